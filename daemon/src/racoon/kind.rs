//! Which of racoon's files a file is.

use std::path::Path;

use super::setkey::is_statement;
use crate::config::files::read_text;

/// A kind of file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A script for setkey.
    Setkey,
    /// `racoon.conf`.
    Racoon,
    /// `psk.txt`.
    Psk,
}

impl Kind {
    /// By the first word, or where that is none of racoon's, by the name. `None`: it is none of
    /// racoon's files.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let by_name = Self::by_name(path);
        if by_name == Some(Self::Psk) {
            return by_name;
        }
        let text = read_text(path).map(|(text, _)| text).unwrap_or_default();
        Self::by_text(&text).or(by_name)
    }

    fn by_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let directory = path.parent().and_then(Path::file_name);
        match name {
            "psk.txt" => Some(Self::Psk),
            "racoon.conf" => Some(Self::Racoon),
            "ipsec-tools.conf" | "setkey.conf" => Some(Self::Setkey),
            _ if directory == Some("ipsec-tools.d".as_ref()) => Some(Self::Setkey),
            _ => None,
        }
    }

    fn by_text(text: &str) -> Option<Self> {
        let mut lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        let line = lines.find(|line| !line.is_empty())?;
        let ends = |c: char| c.is_whitespace() || "{;\"".contains(c);
        let word = line.split(ends).next().unwrap_or_default();
        let rest = line.get(word.len()..).unwrap_or_default().trim_start();
        match word {
            // A key of TOML is followed by its sign.
            _ if rest.starts_with('=') => None,
            word if is_statement(word) => Some(Self::Setkey),
            // Libreswan has that as well.
            "include" if !rest.starts_with('"') || !line.ends_with(';') => None,
            word => super::conf::is_statement(word).then_some(Self::Racoon),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_the_first_word_and_by_name() {
        let texts = [
            (include_str!("tests/mongodb.conf"), Some(Kind::Setkey)),
            (include_str!("tests/racoon.conf"), Some(Kind::Racoon)),
            ("#!/usr/sbin/setkey -f\nflush;\n", Some(Kind::Setkey)),
            ("include \"/etc/racoon/x.conf\";", Some(Kind::Racoon)),
            ("include /etc/ipsec.d/*.conf\n", None),
            ("config setup\n", None),
            ("[connections.a]\n", None),
            ("log = \"info\"\n", None),
            ("remote{", Some(Kind::Racoon)),
            ("", None),
        ];
        for (text, kind) in texts {
            assert_eq!(Kind::by_text(text), kind, "{text}");
        }
        let names = [
            ("/etc/ipsec-tools.conf", Some(Kind::Setkey)),
            ("/etc/ipsec-tools.d/x.conf", Some(Kind::Setkey)),
            ("/etc/racoon/psk.txt", Some(Kind::Psk)),
            ("/etc/racoon/racoon.conf", Some(Kind::Racoon)),
            ("/etc/ipsec.conf", None),
            ("/", None),
        ];
        for (name, kind) in names {
            assert_eq!(Kind::by_name(Path::new(name)), kind, "{name}");
        }
    }
}
