//! `cargo run -p obol-docs`: writes `docs/conformance.md`, and tells where it is incomplete.
//! With a name and a file, `rfc7296 rfc7296.txt`: tells where the list has other numbers of
//! entries than the text has sentences with key words.

use std::process::ExitCode;

use obol_docs::{Conformance, PAGE, root};

#[allow(clippy::print_stderr)] // A tool that is run by hand.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let found = Conformance::read(root()).and_then(|conformance| match &arguments[..] {
        [] => write(&conformance),
        [name, file] => compare(&conformance, name, file),
        _ => Err("usage: obol-docs [NAME FILE]".to_owned()),
    });
    let problems = found.unwrap_or_else(|error| vec![error]);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        eprintln!("{} problems", problems.len());
        ExitCode::FAILURE
    }
}

fn write(conformance: &Conformance) -> Result<Vec<String>, String> {
    std::fs::write(root().join(PAGE), conformance.page())
        .map_err(|error| format!("{PAGE}: {error}"))?;
    Ok(conformance.problems().to_vec())
}

fn compare(conformance: &Conformance, name: &str, file: &str) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let differing = conformance.compare(name, &text)?;
    let line = |(section, sentences, entries)| {
        format!("{name} {section}: {sentences} sentences with key words, {entries} entries")
    };
    Ok(differing.into_iter().map(line).collect())
}
