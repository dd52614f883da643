//! `ipsec.conf` and all that it includes, as text, and as sections with known keywords.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::keyword::{Fate, Key, Place as Kind, Unknown};
use super::merge::DEFAULT;
use super::text::{self, Item, Parameter, Parsed, Token};
use crate::config::files::read_text;
use crate::config::{Finding, Located, Place, Report, Source};

/// Inclusions within inclusions. A deeper one is most likely a loop.
const DEEPEST: usize = 10;

/// Files in all.
const MOST_FILES: usize = 20_000;

/// A section whose keywords are known, with where all of it was written.
#[derive(Debug)]
pub(crate) struct Section {
    /// The name of a `conn`; `None` is `config setup`.
    pub(crate) name: Option<Located<String>>,
    /// Its header.
    pub(crate) place: Place,
    /// Its parameters, in their order.
    pub(crate) entries: Vec<Entry>,
}

/// A parameter whose keyword is known.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The keyword.
    pub(crate) key: Key,
    /// As it was written.
    pub(crate) written: Located<String>,
    /// The value.
    pub(crate) value: Located<String>,
}

/// All texts that were read.
#[derive(Default)]
pub(crate) struct Texts {
    /// The texts, in the order in which they were opened.
    pub(crate) sources: Vec<Source>,
    /// The sections of all of them, in the order of the text with inclusions where they stand.
    sections: Vec<(usize, text::Section)>,
    /// What makes the whole configuration useless, and what does not.
    errors: Vec<(Place, String, String)>,
    warnings: Vec<(Place, String, String)>,
    unreadable: Vec<Finding>,
    /// Only an outline of each text is made.
    outline: Option<Outline>,
}

/// What is known where only outlines of texts are made.
#[derive(Default)]
struct Outline {
    /// Keywords of the setup, and of a conn.
    words: [HashSet<String>; 2],
    /// Some text is remarkable: it takes a look at all of it to say how.
    failed: bool,
}

impl Outline {
    fn knows(&mut self, in_conn: bool, word: &str) -> bool {
        let (words, kind) = match in_conn {
            false => (&mut self.words[0], Kind::Setup),
            true => (&mut self.words[1], Kind::Conn),
        };
        words.contains(word) || Key::find(kind, word).is_ok() && words.insert(word.to_owned())
    }
}

/// Reads a file with all that it includes.
pub(crate) fn read(path: &Path) -> Texts {
    let mut texts = Texts::default();
    texts.open(path, None, 0);
    texts
}

/// Reads a file with all that it includes, and of its sections those that one conn is made of: the others
/// are looked at for what is wrong with lines and keywords, and no more. `None`: something is, or is
/// remarkable.
pub(crate) fn read_one(path: &Path, name: &str) -> Option<Texts> {
    let mut texts = Texts {
        outline: Some(Outline::default()),
        ..Texts::default()
    };
    texts.open(path, None, 0);
    let made = texts.outline.take().is_some_and(|outline| !outline.failed);
    made.then(|| {
        texts.keep(name);
        texts
    })
}

impl Texts {
    /// Of sections without their parameters, reads those that a conn is made of; the others go.
    fn keep(&mut self, name: &str) {
        let mut wanted = vec![name.to_owned(), DEFAULT.to_owned()];
        let mut kept = vec![false; self.sections.len()];
        let mut next = 0;
        while let Some(name) = wanted.get(next).cloned() {
            for (place, (source, section)) in self.sections.iter_mut().enumerate() {
                let is_it = match &section.name {
                    Some(own) => own.text == name,
                    None => next == 0,
                };
                if !is_it || kept[place] {
                    continue;
                }
                kept[place] = true;
                section.parameters = text::parameters(&self.sources[*source].text, section);
                for target in section.parameters.iter().flat_map(targets) {
                    if !wanted.iter().any(|known| known == target) {
                        wanted.push(target.to_owned());
                    }
                }
            }
            next += 1;
        }
        let mut kept = kept.into_iter();
        self.sections.retain(|_| kept.next() == Some(true));
    }

    /// A text alone: what it includes is not read.
    pub(super) fn of_text(text: &str) -> Self {
        let mut texts = Self::default();
        let source = Source {
            name: "ipsec.conf".into(),
            directory: PathBuf::new(),
            text: text.to_owned(),
            exposed: false,
        };
        texts.add(source, DEEPEST);
        texts
    }

    /// The sections with known keywords. What is wrong is reported.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn sections(&self, report: &Report<'_>) -> Result<Vec<Section>, Vec<Finding>> {
        if !self.unreadable.is_empty() {
            return Err(self.unreadable.clone());
        }
        for (place, message, fix) in &self.errors {
            report.error(place, message, fix);
        }
        for (place, message, fix) in &self.warnings {
            report.warn(place, message, fix);
        }
        let mut words = Words::default();
        let sections = self.sections.iter();
        Ok(sections
            .map(|(source, section)| understand(report, &mut words, *source, section))
            .collect())
    }

    /// Reads a file, for a line that includes it.
    fn open(&mut self, path: &Path, included: Option<&Place>, depth: usize) {
        let name = path.display().to_string();
        let (text, exposed) = match read_text(path) {
            Ok(read) => read,
            Err(problem) => {
                let finding = match included {
                    None => Finding::of_file(&name, problem.message, problem.fix),
                    Some(_) => Finding::of_file(
                        &name,
                        problem.message,
                        "what it was to say is missing: make it readable, or remove the include",
                    ),
                };
                self.unreadable.push(finding);
                return;
            }
        };
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        self.add(
            Source {
                name,
                directory,
                text,
                exposed,
            },
            depth,
        );
    }

    fn add(&mut self, file: Source, depth: usize) {
        let source = self.sources.len();
        let parsed = match &mut self.outline {
            None => text::parse(&file.text),
            Some(outline) => {
                let knows = |in_conn, word: &str| outline.knows(in_conn, word);
                let Some(items) = text::outline(&file.text, knows) else {
                    outline.failed = true;
                    return;
                };
                Parsed {
                    items,
                    ..Parsed::default()
                }
            }
        };
        self.sources.push(file);
        for error in parsed.errors {
            let place = Place {
                source,
                span: error.span,
            };
            self.errors
                .push((place, "syntax error".into(), error.fix.into()));
        }
        if let Some(span) = parsed.carriage_return {
            let message = "lines end in a carriage return, which is left out";
            self.warn(
                Place { source, span },
                message,
                "save the file with Unix line ends",
            );
        }
        for item in parsed.items {
            match item {
                Item::Section(section) => self.sections.push((source, section)),
                Item::Include(pattern) => self.include(source, &pattern, depth),
            }
        }
    }

    fn include(&mut self, source: usize, pattern: &Token, depth: usize) {
        let place = Place {
            source,
            span: pattern.span.clone(),
        };
        if self.outline.as_ref().is_some_and(|outline| outline.failed) {
            return;
        }
        if depth == DEEPEST || self.sources.len() >= MOST_FILES {
            let message = format!(
                "{} is not read: too many includes within includes",
                pattern.text
            );
            self.warn(place, message, "do two files include each other?");
            return;
        }
        let path = self.sources[source].directory.join(&pattern.text);
        let has_wildcard = pattern.text.contains(['*', '?', '[']);
        let found = match has_wildcard {
            true => matches(&path),
            false => Ok(vec![path.clone()]),
        };
        match found {
            Ok(paths) if !has_wildcard && !paths.iter().all(|path| path.exists()) => {
                let message = format!("could not open include filename: '{}'", path.display());
                self.warn(place, message, "make the file, or remove the line");
            }
            Ok(paths) => {
                for path in paths {
                    self.open(&path, Some(&place), depth + 1);
                }
            }
            Err(problem) => {
                let message = format!("cannot read what {} names: {problem}", path.display());
                self.errors.push((place, message, String::new()));
            }
        }
    }

    fn warn(&mut self, place: Place, message: impl Into<String>, fix: &str) {
        self.warnings.push((place, message.into(), fix.into()));
    }
}

/// The files that a pattern names, in the order of their names. A directory that is not there has
/// none.
pub(super) fn matches(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let text = pattern.to_str().ok_or("it is no text")?;
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        ..glob::MatchOptions::default()
    };
    let mut paths = Vec::new();
    for path in glob::glob_with(text, options).map_err(|e| e.to_string())? {
        let path = path.map_err(|e| e.to_string())?;
        if fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) || !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// What a parameter inherits from, if it is an `also=`.
fn targets(parameter: &Parameter) -> impl Iterator<Item = &str> {
    let key = Key::find(Kind::Conn, &parameter.key.text).ok();
    let inherits = key.is_some_and(|key| matches!(key.keyword.word, "also" | "alsoflip"));
    let value = if inherits { &*parameter.value.text } else { "" };
    value.split_whitespace()
}

/// Keywords that were found before, of each kind of section: thousands of conns have the same.
type Words<'t> = [HashMap<&'t str, Key>; 2];

fn understand<'t>(
    report: &Report<'_>,
    words: &mut Words<'t>,
    source: usize,
    section: &'t text::Section,
) -> Section {
    let located = |token: &Token| Located {
        value: token.text.clone(),
        place: Place {
            source,
            span: token.span.clone(),
        },
    };
    let [setup, conn] = words;
    let (words, kind) = match &section.name {
        None => (setup, Kind::Setup),
        Some(_) => (conn, Kind::Conn),
    };
    let mut entry = |parameter: &'t Parameter| {
        let written = located(&parameter.key);
        let key = match words.get(&*parameter.key.text) {
            Some(key) => *key,
            None => {
                let key = known(report, kind, &written)?;
                *words.entry(&parameter.key.text).or_insert(key)
            }
        };
        Some(Entry {
            key,
            written,
            value: located(&parameter.value),
        })
    };
    Section {
        name: section.name.as_ref().map(located),
        place: Place {
            source,
            span: section.span.clone(),
        },
        entries: section.parameters.iter().filter_map(&mut entry).collect(),
    }
}

/// The keyword that a word is; else the whole configuration is useless, since nobody knows what
/// was meant.
fn known(report: &Report<'_>, kind: Kind, written: &Located<String>) -> Option<Key> {
    let word = &written.value;
    let (message, fix) = match Key::find(kind, word) {
        Ok(key) => return Some(key),
        Err(Unknown::NeedsSide) => (
            format!("keyword \"{word}\" requires \"left\" or \"right\" prefix"),
            format!("write left{word} or right{word}"),
        ),
        Err(Unknown::OtherSection) => match kind {
            Kind::Setup => (
                format!("'{word}' is no 'config setup' keyword"),
                "move it into a conn".into(),
            ),
            Kind::Conn => (
                format!("'{word}' is no 'conn' keyword"),
                "move it into config setup".into(),
            ),
        },
        Err(Unknown::Nowhere(near)) => {
            let kind = match kind {
                Kind::Setup => "config setup",
                Kind::Conn => "conn",
            };
            (
                format!("unrecognized '{kind}' keyword '{word}'"),
                near.map_or_else(
                    || "remove the line".to_owned(),
                    |near| format!("did you mean {near}?"),
                ),
            )
        }
    };
    report.error(&written.place, message, fix);
    None
}

impl Entry {
    /// Why it has no effect; `None` if it has one.
    pub(crate) fn idle(&self) -> Option<&'static str> {
        match self.key.keyword.fate {
            Fate::Idle(why) => Some(why),
            Fate::Read => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pluto::tests::Files;
    use crate::pluto::understand;

    /// What both ways of reading one conn come to, in words; and whether the short one did.
    fn both(files: &[(&str, &str)], name: &str) -> ([String; 2], bool) {
        let written = Files::new(files);
        let path = written.0.join("ipsec.conf");
        let said = |texts: Texts| match understand(texts, Some(name)) {
            Ok(understood) => format!("{understood:?}"),
            Err(errors) => errors.to_string(),
        };
        let one = read_one(&path, name);
        let is_short = one.is_some();
        let whole = said(read(&path));
        ([one.map_or_else(|| whole.clone(), said), whole], is_short)
    }

    const ENDS: &str = " left=127.0.0.1\n right=198.18.0.1\n";

    #[test]
    fn one_conn_is_what_it_is_among_all() {
        let base = format!("conn base\n{ENDS} authby=secret\n also=lives\n");
        let conf = format!(
            "version 2.0\n# c\nconfig setup\n\tuniqueids=yes\n\ninclude more/*.conf\nconn %default\n esp=aes256-sha2\n\
             conn a\n also=base\n leftsubnet=10.1.0.0/16 # c\nconn other\n left=%any\n rightid=\"x y\"\n authby=none\n\
             conn twice\n{ENDS}conn twice\n{ENDS}conn lost\n also=nobody\n{ENDS}conn bad\n{ENDS} authby=pks\n\
             conn flipped\n alsoflip=base\n"
        );
        let files = [
            ("ipsec.conf", conf.as_str()),
            ("more/b.conf", "conn lives\n ikelifetime=1h\n also=base\n"),
            ("more/a.conf", base.as_str()),
            (
                "more/c.conf",
                "conn %default\n salifetime=2h\ninclude gone.conf\n",
            ),
        ];
        for name in [
            "a", "other", "twice", "lost", "bad", "flipped", "lives", "nobody",
        ] {
            let ([one, whole], is_short) = both(&files, name);
            assert!(is_short, "{name}");
            assert_eq!(one, whole, "{name}");
        }
        let ([one, _], _) = both(&files, "a");
        assert!(one.contains("could not open include filename"), "{one}");
    }

    #[test]
    fn what_is_wrong_with_others_is_found() {
        for wrong in [
            " lefsubnet=10.0.0.0/8\n",
            " plutodebug=none\n",
            "left=127.0.0.1\n",
            " left=127.0.0.1 127.0.0.2\n",
            " leftid=\"x\n",
            " conn c\n",
            " left=127.0.0.1\r\n",
            "config setup\n left=127.0.0.1\n",
        ] {
            let conf = format!("conn a\n{ENDS}conn b\n{wrong}");
            let ([one, whole], is_short) = both(&[("ipsec.conf", &conf)], "a");
            assert!(!is_short, "{wrong}");
            assert_eq!(one, whole);
        }
    }
}
