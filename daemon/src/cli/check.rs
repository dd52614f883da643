//! `obol check`: reads a configuration and says what it means, or everything that is wrong.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{complain_line, print_json, print_text};
use super::{pluto, print, racoon};
use crate::config::{self, ConfigErrors, Finding, Loaded};
use crate::control::describe;
use crate::control::protocol::SCHEMA_VERSION;
use crate::error::{ExitClass, Failure};

/// Checks the files that were named, or else the `default`.
///
/// # Errors
/// Everything that is wrong with them.
pub(super) fn check(paths: &[PathBuf], default: &Path, json: bool) -> Result<(), Failure> {
    let path = match paths {
        [] => default,
        [path] => path,
        [..] => match racoon::kinds(paths)? {
            Some(files) => return racoon::check(&files, default, json),
            None => {
                let message =
                    "several files can be checked at once if they are racoon's and setkey's";
                return Err(Failure::new(ExitClass::Usage, message));
            }
        },
    };
    if let Some(files) = racoon::kinds(&[path.to_owned()])? {
        return racoon::check(&files, default, json);
    }
    if pluto::is_pluto(path) {
        return pluto::check(path, json);
    }
    match config::load(path) {
        Ok(loaded) if json => print_json(&right(&loaded)),
        Ok(loaded) => {
            for warning in &loaded.warnings {
                complain_line(&format!("warning: {warning}"));
            }
            print_text(&format!(
                "{} is right\n\n{}",
                files(&loaded),
                print::connections(&describe::connections(&loaded))
            ))
        }
        Err(errors) => {
            if json {
                print_json(&wrong(&errors))?;
            }
            Err(errors.into())
        }
    }
}

fn files(loaded: &Loaded) -> String {
    let names: Vec<String> = loaded
        .files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(" with ")
}

fn right(loaded: &Loaded) -> serde_json::Value {
    json!({
        "schema_version": SCHEMA_VERSION,
        "ok": true,
        "warnings": findings(&loaded.warnings),
        "connections": describe::connections(loaded),
    })
}

fn wrong(errors: &ConfigErrors) -> serde_json::Value {
    json!({
        "schema_version": SCHEMA_VERSION,
        "ok": false,
        "errors": findings(&errors.0),
    })
}

pub(super) fn findings(findings: &[Finding]) -> serde_json::Value {
    let one = |finding: &Finding| {
        json!({
            "location": finding.location,
            "message": finding.message,
            "fix": finding.fix,
            "also": finding.also,
        })
    };
    findings.iter().map(one).collect()
}
