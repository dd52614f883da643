//! Annotations: comment lines in the sources that name requirements.

use std::path::{Path, PathBuf};

/// What begins an annotation.
const MARK: &str = "//= ";

/// One annotation of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Below the root of the repository.
    pub file: String,
    /// From 1; for messages only, since numbers of lines do not last.
    pub line: usize,
    /// Code or test.
    pub kind: Kind,
    /// `rfc7296`.
    pub document: String,
    /// `2.8.1-3`, at least one.
    pub ids: Vec<String>,
    /// The item below, or the function around; empty at the head of a module.
    pub item: String,
}

/// What an annotation says of its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It does what is asked.
    Code,
    /// It shows that what is asked is done.
    Test,
}

impl Annotation {
    /// File and line, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// The annotations of one file.
///
/// # Errors
/// A line that begins like an annotation and is none, and a test annotation that is not above a
/// test.
pub fn scan(file: &str, text: &str) -> Result<Vec<Annotation>, String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(rest) = line.trim_start().strip_prefix(MARK) else {
            continue;
        };
        let place = format!("{file}:{}", index + 1);
        let (kind, rest) = match rest.strip_prefix("test ") {
            Some(rest) => (Kind::Test, rest),
            None => (Kind::Code, rest),
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        let document = words.next().unwrap_or_default();
        let ids: Vec<String> = words.collect();
        if ids.is_empty() || ids.iter().any(|id| !id.contains('-')) {
            return Err(format!("{place}: not an annotation: {line}"));
        }
        let item = match kind {
            Kind::Test => test_below(&lines[index + 1..])
                .ok_or_else(|| format!("{place}: there is no test below"))?,
            Kind::Code => item_below(&lines[index + 1..])
                .or_else(|| function_around(&lines[..=index]))
                .unwrap_or_default(),
        };
        found.push(Annotation {
            file: file.to_owned(),
            line: index + 1,
            kind,
            document,
            ids,
            item,
        });
    }
    Ok(found)
}

/// The item that the next lines begin, behind comments and attributes.
fn item_below(lines: &[&str]) -> Option<String> {
    let mut code = lines.iter().map(|line| line.trim()).filter(|line| {
        !line.starts_with("//") && !line.starts_with("#[") && !line.starts_with("#![")
    });
    item(code.next()?)
}

/// The function that the next lines begin, if one of its attributes makes it a test.
fn test_below(lines: &[&str]) -> Option<String> {
    let mut is_test = false;
    for line in lines.iter().map(|line| line.trim()) {
        if line == "#[test]" || (line.starts_with("#[") && line.contains("::test")) {
            is_test = true;
        } else if !line.starts_with("//") && !line.starts_with("#[") {
            return item(line).filter(|item| is_test && item.ends_with("()"));
        }
    }
    None
}

/// The nearest function above that is indented less.
fn function_around(lines: &[&str]) -> Option<String> {
    let (last, above) = lines.split_last()?;
    let inner = indent(last);
    above
        .iter()
        .rev()
        .filter(|line| indent(line) < inner)
        .find_map(|line| item(line.trim()).filter(|item| item.ends_with("()")))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name of the item that a line begins; functions with `()`.
fn item(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    loop {
        let word = words.next()?;
        let named = match word {
            "pub" | "async" | "unsafe" | "default" => continue,
            _ if word.starts_with("pub(") => continue,
            // `const fn` is a function, and `const` alone an item.
            "const" => match words.next()? {
                "fn" => return words.next().and_then(name).map(|name| name + "()"),
                other => return name(other),
            },
            "fn" => return words.next().and_then(name).map(|name| name + "()"),
            "struct" | "enum" | "trait" | "static" | "type" | "mod" => words.next()?,
            "impl" => line.trim_start_matches("impl").trim(),
            _ => return None,
        };
        return name(named);
    }
}

fn name(word: &str) -> Option<String> {
    let end = word
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(word.len());
    (end > 0).then(|| word[..end].to_owned())
}

/// All Rust files below a folder, in the order of their names.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let fail = |error| format!("{}: {error}", folder.display());
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        entries.push(entry.map_err(fail)?.path());
    }
    entries.sort();
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                files.extend(rust_files(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}
