//! What is wrong with a configuration: where, what, and what to change; as people read it.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::error::{ExitClass, Failure};

/// A text that was read, and where from.
pub(crate) struct Source {
    /// The path as the operator would write it.
    pub(crate) name: String,
    /// Directory that relative paths in the text start from.
    pub(crate) directory: PathBuf,
    /// The text.
    pub(crate) text: String,
    /// Whether users other than its owner may read it.
    pub(crate) exposed: bool,
}

/// A part of one of the sources.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    /// Index of the source.
    pub(crate) source: usize,
    /// Octets of its text.
    pub(crate) span: Range<usize>,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    /// The value.
    pub(crate) value: T,
    /// Where.
    pub(crate) place: Place,
}

impl<T> Located<T> {
    /// Another value from the same place.
    pub(crate) fn with<U>(&self, value: U) -> Located<U> {
        Located {
            value,
            place: self.place.clone(),
        }
    }
}

/// One error or warning.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    /// File, or file, line and column, both counted from 1 (columns in characters).
    pub(crate) location: String,
    /// The line, if there is one to show.
    excerpt: Option<Excerpt>,
    /// What is wrong.
    pub(crate) message: String,
    /// What to change.
    pub(crate) fix: String,
    /// Another place that has to do with it.
    pub(crate) also: Option<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Excerpt {
    line: usize,
    text: String,
    indent: usize,
    width: usize,
}

/// All errors of a configuration, in the order of the files.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ConfigErrors(pub(crate) Vec<Finding>);

/// Errors printed before the rest is only counted: more than a screen helps nobody.
const SHOWN: usize = 50;

/// Characters of a line that are shown.
const LINE_WIDTH: usize = 120;

/// Collects findings while a configuration is read, so that one pass reports all of them.
pub(crate) struct Report<'s> {
    sources: &'s [Source],
    /// Where lines begin, for each source; found when the first place is asked for.
    lines: Vec<OnceCell<Lines>>,
    errors: RefCell<Vec<(Place, Finding)>>,
    warnings: RefCell<Vec<Finding>>,
}

impl<'s> Report<'s> {
    /// An empty report about these sources.
    pub(crate) fn new(sources: &'s [Source]) -> Self {
        Self {
            sources,
            lines: sources.iter().map(|_| OnceCell::new()).collect(),
            errors: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// The source of a place.
    pub(crate) fn source(&self, place: &Place) -> &'s Source {
        &self.sources[place.source]
    }

    /// Adds an error: what is wrong, and what to change.
    pub(crate) fn error(&self, place: &Place, message: impl Into<String>, fix: impl Into<String>) {
        let finding = self.finding(place, message.into(), fix.into());
        self.errors.borrow_mut().push((place.clone(), finding));
    }

    /// Adds an error that has two places.
    pub(crate) fn clash(
        &self,
        place: &Place,
        other: &Place,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let mut finding = self.finding(place, message.into(), fix.into());
        finding.also = Some(self.location(other));
        self.errors.borrow_mut().push((place.clone(), finding));
    }

    /// Adds a warning.
    pub(crate) fn warn(&self, place: &Place, message: impl Into<String>, fix: impl Into<String>) {
        let finding = self.finding(place, message.into(), fix.into());
        self.warnings.borrow_mut().push(finding);
    }

    /// Whether there is an error yet.
    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.borrow().is_empty()
    }

    /// The warnings, or the errors in the order of the text.
    pub(crate) fn finish(self) -> Result<Vec<Finding>, ConfigErrors> {
        let mut errors = self.errors.into_inner();
        if errors.is_empty() {
            return Ok(self.warnings.into_inner());
        }
        errors.sort_by_key(|(place, _)| (place.source, place.span.start));
        Err(ConfigErrors(errors.into_iter().map(|(_, f)| f).collect()))
    }

    /// A finding at a place, for somebody else to report.
    pub(crate) fn finding(&self, place: &Place, message: String, fix: String) -> Finding {
        Finding {
            location: self.location(place),
            excerpt: excerpt(&self.source(place).text, self.lines(place), &place.span),
            message,
            fix,
            also: None,
        }
    }

    /// The same finding with another place that has to do with it.
    pub(crate) fn beside(&self, finding: Finding, other: &Place) -> Finding {
        Finding {
            also: Some(self.location(other)),
            ..finding
        }
    }

    /// File, line and column of a place.
    pub(crate) fn location(&self, place: &Place) -> String {
        let source = self.source(place);
        let (line, column) = self
            .lines(place)
            .line_and_column(&source.text, place.span.start);
        format!("{}:{line}:{column}", source.name)
    }

    fn lines(&self, place: &Place) -> &Lines {
        let text = &self.sources[place.source].text;
        self.lines[place.source].get_or_init(|| Lines::of(text))
    }
}

impl Finding {
    /// A finding about a whole file.
    pub(crate) fn of_file(name: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            location: name.to_owned(),
            excerpt: None,
            message: message.into(),
            fix: fix.into(),
            also: None,
        }
    }
}

/// Where the lines of a text begin, so that nobody counts them for each of thousands of places.
struct Lines {
    starts: Vec<usize>,
    /// Lines that begin a table of secrets, or one in which there are none for sure.
    tables: Vec<(usize, bool)>,
}

impl Lines {
    fn of(text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        let starts: Vec<usize> = [0]
            .into_iter()
            .chain(newlines.map(|(at, _)| at + 1))
            .collect();
        let table = |start: &usize| {
            let line = text[*start..].lines().next().unwrap_or_default();
            match line.trim_start() {
                line if !line.starts_with('[') => None,
                line if line.contains("secrets") => Some((*start, true)),
                line if line.contains("connections") || line.contains("daemon") => {
                    Some((*start, false))
                }
                _ => None,
            }
        };
        let tables = starts.iter().filter_map(table).collect();
        Self { starts, tables }
    }

    fn line_and_column(&self, text: &str, at: usize) -> (usize, usize) {
        let end = floor_boundary(text, at);
        let line = self.starts.partition_point(|start| *start <= end);
        let start = self.starts[line - 1];
        (line, 1 + text[start..end].chars().count())
    }

    /// Whether the last table before this place is one of secrets.
    fn is_secret(&self, start: usize) -> bool {
        let before = self.tables.partition_point(|(at, _)| *at < start);
        before > 0 && self.tables[before - 1].1
    }
}

fn line_start(text: &str, at: usize) -> usize {
    let at = floor_boundary(text, at);
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The line of a span with what to underline. Long lines are cut, and secrets left out.
fn excerpt(text: &str, lines: &Lines, span: &Range<usize>) -> Option<Excerpt> {
    let start = line_start(text, span.start);
    let line = text[start..].split('\n').next()?.trim_end();
    if line.is_empty() {
        return None;
    }
    let shown = match secret_begins(lines, start, line) {
        Some(at) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    };
    let length = shown.chars().count();
    let from = floor_boundary(text, span.start);
    let column = text[start..from.max(start)].chars().count().min(length);
    let to = floor_boundary(text, span.end).clamp(from, from.max(start + line.len()));
    let width = text[from.min(to)..to].chars().count();
    let cut = if column > LINE_WIDTH / 2 && length > LINE_WIDTH {
        column - LINE_WIDTH / 2
    } else {
        0
    };
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    Some(Excerpt {
        line: lines.line_and_column(text, start).0,
        text: shown
            .chars()
            .skip(cut)
            .take(LINE_WIDTH)
            .map(printable)
            .collect(),
        indent: column - cut,
        width: width
            .min(length.saturating_sub(column))
            .clamp(1, LINE_WIDTH),
    })
}

/// Where in this line a secret may begin: after the `=` of a line about secrets, or at once in
/// a later line of a value in a table of secrets. The text may be no TOML at all, so this errs
/// on the side of hiding.
fn secret_begins(lines: &Lines, start: usize, line: &str) -> Option<usize> {
    let is_header = |line: &str| line.starts_with('[') && !line.contains(['=', '"']);
    if is_header(line) {
        return None;
    }
    if !lines.is_secret(start) && !line.contains("secret") {
        return None;
    }
    // Secrets have `=` in them as well, so only what is known to be a key is shown.
    let key = line.split('=').next().unwrap_or_default();
    match ["type", "ids", "secret", "file"].contains(&key.trim()) {
        true => Some((key.len() + 1).min(line.len())),
        false => Some(0),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.message)?;
        let margin = match &self.excerpt {
            Some(excerpt) => {
                let number = excerpt.line.to_string();
                let margin = " ".repeat(number.len());
                let indent = " ".repeat(excerpt.indent);
                let carets = "^".repeat(excerpt.width);
                write!(f, "\n {margin} |\n {number} | {}", excerpt.text)?;
                write!(f, "\n {margin} | {indent}{carets}")?;
                margin
            }
            None => String::new(),
        };
        if let Some(also) = &self.also {
            write!(f, "\n {margin} = the other one: {also}")?;
        }
        if !self.fix.is_empty() {
            write!(f, "\n {margin} = {}", self.fix)?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.0.iter().take(SHOWN).enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{finding}")?;
        }
        match self.0.len() {
            0 => f.write_str("no errors"),
            1 => Ok(()),
            n if n > SHOWN => write!(f, "\n\n{n} errors, {} of them not shown", n - SHOWN),
            n => write!(f, "\n\n{n} errors"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(
            ExitClass::Config,
            format!("the configuration is wrong\n{errors}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Vec<Source> {
        vec![Source {
            name: "a.toml".into(),
            directory: PathBuf::new(),
            text: text.into(),
            exposed: false,
        }]
    }

    fn shown(text: &str, part: &str) -> String {
        let start = text.find(part).expect("the part is in the text");
        let sources = source(text);
        let report = Report::new(&sources);
        let place = Place {
            source: 0,
            span: start..start + part.len(),
        };
        report.error(&place, "is wrong", "change it");
        report.finish().unwrap_err().to_string()
    }

    #[test]
    fn an_error_shows_the_line_with_a_caret() {
        assert_eq!(
            shown("a = 1\nbé = 22\n", "22"),
            "a.toml:2:6: is wrong\n   |\n 2 | bé = 22\n   |      ^^\n   = change it"
        );
    }

    #[test]
    fn a_secret_is_never_shown() {
        for text in [
            "[secrets.a]\nsecret = \"hunter2\"\n",
            "[secrets.a]\nsercet = \"hunter2\"\n",
            "[secrets]\na = { secret = \"hunter2\" }\n",
            "secrets.a.secret = \"hunter2\"\n",
            "[secrets.a]\nsecret = \"\"\"\nhunter2\n\"\"\"\n",
            "[secrets.a]\nsecret = \"\"\"\nhunter2==\n\"\"\"\n",
        ] {
            let shown = shown(text, "hunter2");
            assert!(!shown.contains("hunter"), "{shown}");
        }
    }

    #[test]
    fn long_lines_are_cut_around_the_error() {
        let text = format!("a = \"{}BAD{}\"", "x".repeat(500), "y".repeat(500));
        let shown = shown(&text, "BAD");
        assert!(shown.contains("xxxBADyyy"), "{shown}");
        assert!(shown.lines().all(|line| line.len() < 140), "{shown}");
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[2].find("BAD"), lines[3].find("^^^"), "{shown}");
    }

    #[test]
    fn spans_beyond_the_text_do_no_harm() {
        let sources = source("é  \r\n");
        let report = Report::new(&sources);
        for span in [0..0, 1..2, 2..2, 4..5, 5..6, 7..9] {
            report.error(&Place { source: 0, span }, "is wrong", "");
        }
        assert_eq!(report.finish().unwrap_err().0.len(), 6);
    }
}
