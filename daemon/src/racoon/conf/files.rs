//! `racoon.conf` with all that it includes, as texts and statements.

use std::path::{Path, PathBuf};

use super::text::{self, Node, SyntaxError, TokenKind};
use crate::config::files::read_text;
use crate::config::{Finding, Place, Report, Source};

/// Inclusions within inclusions, as in racoon.
const DEEPEST: usize = 10;

/// Files in all.
const MOST_FILES: usize = 1000;

/// The statements of all files, in the order of the text with inclusions where they stand.
pub(crate) struct Texts {
    /// Which text a statement is in, and the statement.
    pub(crate) nodes: Vec<(usize, Node)>,
    errors: Vec<(Place, String, String)>,
    /// Files that cannot be read.
    pub(crate) unreadable: Vec<Finding>,
    directory: PathBuf,
}

impl Texts {
    /// Nothing yet; relative inclusions start from the working directory.
    pub(crate) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            errors: Vec::new(),
            unreadable: Vec::new(),
            directory: PathBuf::new(),
        }
    }

    /// Reads a file with all that it includes, and adds the texts to `sources`.
    pub(crate) fn open(&mut self, sources: &mut Vec<Source>, path: &Path, depth: usize) {
        let name = path.display().to_string();
        match read_text(path) {
            Ok((text, _)) => self.add(
                sources,
                name,
                path.parent().unwrap_or(Path::new("")),
                text,
                depth,
            ),
            Err(problem) => {
                self.unreadable
                    .push(Finding::of_file(&name, problem.message, problem.fix))
            }
        }
    }

    /// Takes a text that was read.
    pub(crate) fn add(
        &mut self,
        sources: &mut Vec<Source>,
        name: String,
        directory: &Path,
        text: String,
        depth: usize,
    ) {
        let source = sources.len();
        let parsed = text::parse(&text);
        sources.push(Source {
            name,
            directory: directory.to_owned(),
            text,
            exposed: false,
        });
        let nodes = match parsed {
            Ok(nodes) => nodes,
            Err(error) => {
                self.syntax(source, error);
                return;
            }
        };
        for node in nodes {
            let words: Vec<&str> = node.words.iter().map(|word| word.text.as_str()).collect();
            match words.as_slice() {
                ["path", "include", directory] => self.directory = PathBuf::from(directory),
                ["include", pattern] if node.words[1].kind == TokenKind::Quoted => {
                    let place = Place {
                        source,
                        span: node.span.clone(),
                    };
                    self.include(sources, &place, pattern, depth);
                }
                _ => self.nodes.push((source, node)),
            }
        }
    }

    fn include(&mut self, sources: &mut Vec<Source>, place: &Place, pattern: &str, depth: usize) {
        let mut wrong =
            |message: String, fix: &str| self.errors.push((place.clone(), message, fix.to_owned()));
        if depth >= DEEPEST || sources.len() >= MOST_FILES {
            wrong(
                "too many includes within includes".into(),
                "do two files include each other?",
            );
            return;
        }
        let home = std::env::var("HOME").unwrap_or_default();
        let path = match pattern.strip_prefix("~/") {
            Some(rest) => Path::new(&home).join(rest),
            None => self.directory.join(pattern),
        };
        let Some(text) = path.to_str() else {
            wrong(
                format!("{} is no text", path.display()),
                "write a path in UTF-8",
            );
            return;
        };
        let mut paths: Vec<PathBuf> = match glob::glob(text) {
            Ok(found) => found.filter_map(Result::ok).collect(),
            Err(e) => {
                wrong(format!("\"{pattern}\" is no pattern: {e}"), "");
                return;
            }
        };
        paths.sort();
        if paths.is_empty() {
            let message = format!("\"{pattern}\" names no file");
            wrong(message, "make the file, or remove the line");
            return;
        }
        for path in paths {
            self.open(sources, &path, depth + 1);
        }
    }

    fn syntax(&mut self, source: usize, error: SyntaxError) {
        let place = Place {
            source,
            span: error.span,
        };
        let token = crate::config::shorten(&error.token);
        self.errors.push((
            place,
            format!("\"{token}\" syntax error"),
            error.fix.to_owned(),
        ));
    }

    /// Tells what is wrong with the grammar.
    pub(crate) fn report(&self, report: &Report<'_>) {
        for (place, message, fix) in &self.errors {
            report.error(place, message, fix);
        }
    }
}
