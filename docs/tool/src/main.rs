//! `cargo run -p obol-docs`: writes `docs/conformance.md`, and tells where it is incomplete.

use std::process::ExitCode;

use obol_docs::{Conformance, PAGE, root};

#[allow(clippy::print_stderr)] // A tool that is run by hand.
fn main() -> ExitCode {
    let written = Conformance::read(root()).and_then(|conformance| {
        std::fs::write(root().join(PAGE), conformance.page())
            .map_err(|error| format!("{PAGE}: {error}"))?;
        Ok(conformance)
    });
    match written {
        Ok(conformance) if conformance.problems().is_empty() => ExitCode::SUCCESS,
        Ok(conformance) => {
            for problem in conformance.problems() {
                eprintln!("{problem}");
            }
            eprintln!("{} problems", conformance.problems().len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
