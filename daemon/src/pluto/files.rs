//! `ipsec.conf` and all that it includes, as text, and as sections with known keywords.

use std::fs;
use std::path::{Path, PathBuf};

use super::keyword::{Fate, Key, Place as Kind, Unknown};
use super::text::{self, Item, Parameter, Token};
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
}

/// Reads a file with all that it includes.
pub(crate) fn read(path: &Path) -> Texts {
    let mut texts = Texts::default();
    texts.open(path, None, 0);
    texts
}

impl Texts {
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
        let sections = self.sections.iter();
        Ok(sections
            .map(|(source, section)| understand(report, *source, section))
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
        let parsed = text::parse(&file.text);
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

fn understand(report: &Report<'_>, source: usize, section: &text::Section) -> Section {
    let located = |token: &Token| Located {
        value: token.text.clone(),
        place: Place {
            source,
            span: token.span.clone(),
        },
    };
    let kind = match &section.name {
        None => Kind::Setup,
        Some(_) => Kind::Conn,
    };
    let entry = |parameter: &Parameter| {
        let written = located(&parameter.key);
        let key = known(report, kind, &written)?;
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
        entries: section.parameters.iter().filter_map(entry).collect(),
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
