//! `psk.txt`: whom a secret is shared with, and the secret, a line each. The first line that fits
//! decides.

use obol_ike::crypto::secret::Secret;
use obol_ike::identity::Identity;
use zeroize::Zeroizing;

/// Longest line in octets.
const LONGEST: usize = 1024;

/// A line.
#[derive(Debug)]
pub(crate) struct Line {
    /// The peer as text; `*` is everybody.
    pub(crate) name: String,
    /// The secret.
    pub(crate) secret: Secret,
    /// Which line of the file it is, from 1.
    pub(crate) number: usize,
}

/// All lines that mean something.
#[derive(Debug, Default)]
pub(crate) struct PskFile {
    lines: Vec<Line>,
}

/// What is worth saying about a line: never the secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Remark {
    /// From 1.
    pub(crate) line: usize,
    /// Whether the file is of no use with it.
    pub(crate) error: bool,
    /// What it is.
    pub(crate) message: String,
    /// What to change.
    pub(crate) fix: &'static str,
}

impl PskFile {
    /// Reads the lines, with what is to be said about them.
    pub(crate) fn read(octets: &[u8]) -> (Self, Vec<Remark>) {
        let mut file = Self::default();
        let mut remarks = Vec::new();
        for (at, line) in octets.split(|octet| *octet == b'\n').enumerate() {
            match parse(at + 1, line, &mut remarks) {
                Some(line) => {
                    file.shadowed(&line, &mut remarks);
                    file.lines.push(line);
                }
                None => continue,
            }
        }
        (file, remarks)
    }

    /// Whether lines before this one leave nothing to it.
    fn shadowed(&self, line: &Line, remarks: &mut Vec<Remark>) {
        let before = self
            .lines
            .iter()
            .find(|other| other.name == "*" || other.name == line.name);
        if let Some(before) = before {
            remarks.push(Remark {
                line: line.number,
                error: false,
                message: format!(
                    "line {} can never match, since line {} does before it",
                    line.number, before.number
                ),
                fix: "move it before that line, or remove it",
            });
        }
    }

    /// The line of a peer.
    pub(crate) fn find(&self, peer: &Identity) -> Option<&Line> {
        let name = as_text(peer);
        let fits = |line: &&Line| {
            line.name == "*"
                || name
                    .as_ref()
                    .is_some_and(|name| same(&line.name, name, peer))
        };
        self.lines.iter().find(fits)
    }

    /// Whom lines name, and the lines.
    pub(crate) fn names(&self) -> Vec<(String, usize)> {
        let lines = self.lines.iter().filter(|line| line.name != "*");
        lines.map(|line| (line.name.clone(), line.number)).collect()
    }

    /// How many lines have this secret.
    pub(crate) fn lines_with(&self, secret: &Secret) -> usize {
        let lines = self.lines.iter();
        lines.filter(|line| line.secret.ct_eq(secret)).count()
    }

    /// Whether there is no secret at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether peers that nobody knows yet have one.
    pub(crate) fn has_any(&self) -> bool {
        self.lines.iter().any(|line| line.name == "*")
    }
}

/// An identity as racoon writes it.
fn as_text(peer: &Identity) -> Option<String> {
    match peer {
        Identity::Ipv4(addr) => Some(addr.to_string()),
        Identity::Ipv6(addr) => Some(addr.to_string()),
        Identity::Fqdn(name) | Identity::Rfc822(name) => Some(name.clone()),
        Identity::KeyId(octets) => String::from_utf8(octets.clone()).ok(),
        Identity::Other(..) => None,
    }
}

/// Whether the name of a line is this peer's; addresses may be written in several ways.
fn same(line: &str, name: &str, peer: &Identity) -> bool {
    match peer {
        Identity::Ipv4(_) | Identity::Ipv6(_) => line
            .parse::<std::net::IpAddr>()
            .is_ok_and(|addr| Identity::from(addr) == *peer),
        Identity::Fqdn(_) => line.eq_ignore_ascii_case(name),
        _ => line == name,
    }
}

/// One line; `None` if it means nothing.
fn parse(number: usize, line: &[u8], remarks: &mut Vec<Remark>) -> Option<Line> {
    let mut remark = |error, message: &str, fix| {
        remarks.push(Remark {
            line: number,
            error,
            message: message.to_owned(),
            fix,
        });
    };
    if line.first() == Some(&b'#') || line.is_empty() {
        return None;
    }
    if line.len() > LONGEST {
        remark(
            true,
            "the line is longer than 1024 octets",
            "shorten the secret",
        );
        return None;
    }
    let blank = |octet: &u8| *octet == b' ' || *octet == b'\t';
    let length = line.iter().position(blank).unwrap_or(line.len());
    let (name, rest) = line.split_at(length);
    let Some(begin) = rest.iter().position(|octet| !blank(octet)) else {
        remark(
            false,
            "a line without a secret has no effect",
            "write the secret behind the name, or remove the line",
        );
        return None;
    };
    let secret = rest.get(begin..).unwrap_or_default();
    let Ok(name) = std::str::from_utf8(name) else {
        remark(
            true,
            "the name is no text",
            "write an address, a host name, user@host or *",
        );
        return None;
    };
    if name.is_empty() {
        remark(
            true,
            "the line begins with a blank",
            "begin it with the name of the peer, or *",
        );
        return None;
    }
    if name != "*" && name.contains('*') {
        remark(
            false,
            "only a * that stands alone is everybody",
            "write names out, or *",
        );
    }
    match secret.last() {
        Some(b'\r') => remark(
            false,
            "the secret ends in a carriage return, which is part of it",
            "save the file with Unix line ends",
        ),
        Some(b' ' | b'\t') => remark(
            false,
            "the secret ends in a blank, which is part of it",
            "remove it on all hosts",
        ),
        _ => {}
    }
    let octets = match secret.strip_prefix(b"0x") {
        None => Zeroizing::new(secret.to_vec()),
        Some(digits) => match hex(digits) {
            Some(octets) => octets,
            None => {
                remark(
                    true,
                    "0x begins a secret in hex, and this is none",
                    "write an even number of hex digits behind 0x",
                );
                return None;
            }
        },
    };
    if octets.len() < 16 {
        remark(
            false,
            "the secret is short: whoever takes the peer's place once can search for it",
            "make one with obol keygen --psk",
        );
    }
    Some(Line {
        name: name.to_owned(),
        secret: Secret::from(octets.as_slice()),
        number,
    })
}

fn hex(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |octet: u8| {
        char::from(octet)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    if pairs.is_empty() {
        return None;
    }
    let mut octets = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for [high, low] in pairs {
        octets.push(digit(*high)? << 4 | digit(*low)?);
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &PskFile, id: &str) -> Option<(Vec<u8>, usize)> {
        let id: Identity = id.parse().unwrap();
        file.find(&id)
            .map(|line| (line.secret.expose().to_vec(), line.number))
    }

    const STORY: &str = "*  /zatck0CNzYad4fGw4ZV9G1R8b93pdBzCc3I7iXh2zzvediol0yBR8F8wCHKryXE\n";

    #[test]
    fn r_a6_everybody_has_the_secret_of_the_story_as_text() {
        let (file, remarks) = PskFile::read(STORY.as_bytes());
        assert_eq!(remarks, []);
        let secret = STORY
            .trim_start_matches("*  ")
            .trim_end()
            .as_bytes()
            .to_vec();
        assert_eq!(secret.len(), 64);
        for id in ["10.0.1.13", "fd00::1", "@host.example.com", "a@b.example"] {
            assert_eq!(found(&file, id), Some((secret.clone(), 1)), "{id}");
        }
    }

    #[test]
    fn r_a6_the_first_line_that_fits_decides() {
        let text = "# comment\n10.0.1.241 specific key of 16\n\nhost.example.com\tanother one 12345 \n10.0.1.9\n*\teverybody's secret\n10.0.1.77 never never never\n";
        let (file, remarks) = PskFile::read(text.as_bytes());
        let table = [
            ("10.0.1.241", "specific key of 16", 2),
            ("@HOST.example.com", "another one 12345 ", 4),
            ("10.0.1.9", "everybody's secret", 6),
            ("10.0.1.77", "everybody's secret", 6),
        ];
        for (id, secret, line) in table {
            assert_eq!(found(&file, id), Some((secret.into(), line)), "{id}");
        }
        let said: Vec<(usize, bool, &str)> = remarks
            .iter()
            .map(|r| (r.line, r.error, r.message.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                (4, false, "the secret ends in a blank, which is part of it"),
                (5, false, "a line without a secret has no effect"),
                (
                    7,
                    false,
                    "line 7 can never match, since line 6 does before it"
                ),
            ]
        );
    }

    #[test]
    fn r_a6_secrets_in_hex() {
        let (file, _) = PskFile::read(b"* 0x0a0B00ff000102030405060708090a0b");
        let secret = found(&file, "10.0.0.1").unwrap().0;
        assert_eq!(secret[..4], [10, 11, 0, 255]);
        for bad in ["* 0x", "* 0x123", "* 0xzz", " x y", "10.0.0.1 0x12 "] {
            let (file, remarks) = PskFile::read(bad.as_bytes());
            assert!(file.is_empty() && remarks.iter().any(|r| r.error), "{bad}");
        }
    }

    #[test]
    fn who_is_not_listed_has_none() {
        let (file, _) = PskFile::read(b"10.0.0.1 a secret of sixteen\n10.0.* another of sixteen");
        assert!(found(&file, "10.0.0.2").is_none());
        assert!(!file.has_any());
        assert_eq!(found(&file, "10.0.0.1").unwrap().1, 1);
    }
}
