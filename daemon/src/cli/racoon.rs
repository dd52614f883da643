//! `obol check` and `obol convert` for the files of racoon and setkey.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{complain_line, print, print_json, print_text};
use crate::config::ConfigErrors;
use crate::control::describe;
use crate::control::protocol::SCHEMA_VERSION;
use crate::error::{ExitClass, Failure};
use crate::racoon::{self, Flow, Kind, Understood, What};

/// The kinds of these files, if any of them is racoon's.
///
/// # Errors
/// Some are, and some are not.
pub(super) fn kinds(paths: &[PathBuf]) -> Result<Option<Vec<(PathBuf, Kind)>>, Failure> {
    let kinds: Vec<_> = paths.iter().map(|path| (path, Kind::of(path))).collect();
    if kinds.iter().all(|(_, kind)| kind.is_none()) {
        return Ok(None);
    }
    let known = |(path, kind): (&PathBuf, Option<Kind>)| match kind {
        Some(kind) => Ok((path.clone(), kind)),
        None => Err(Failure::new(
            ExitClass::Config,
            format!(
                "{} is none of racoon's files, but others that are named beside it are",
                path.display()
            ),
        )),
    };
    kinds
        .into_iter()
        .map(known)
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Checks files of racoon, and says what they mean; `own` is obol's own file, which may allow more.
///
/// # Errors
/// Everything that is wrong with them.
pub(super) fn check(files: &[(PathBuf, Kind)], own: &Path, json: bool) -> Result<(), Failure> {
    let understood = load(files, own, json)?;
    if json {
        return print_json(&report(&understood));
    }
    for notice in &understood.notices {
        complain_line(&format!("notice: {notice}"));
    }
    let names: Vec<String> = files.iter().map(|(path, _)| shown(path)).collect();
    let mut text = format!("{}\n\n{}", right(&names), flows(&understood.flows));
    if let Some(native) = &understood.native {
        let connections = describe::connections(&native.loaded);
        text.push_str(&format!("\n{}", print::connections(&connections)));
    }
    print_text(&text)
}

/// Prints what the files mean in obol's own words.
///
/// # Errors
/// Everything that is wrong with them.
pub(super) fn convert(files: &[(PathBuf, Kind)], own: &Path) -> Result<(), Failure> {
    let understood = load(files, own, false)?;
    for notice in &understood.notices {
        complain_line(&format!("notice: {notice}"));
    }
    let has = |kind| files.iter().any(|(_, other)| *other == kind);
    let Some(native) = understood.native else {
        let missing = match has(Kind::Racoon) {
            false => "racoon.conf is missing: name it beside the scripts of setkey",
            true if has(Kind::Setkey) => {
                "the scripts of setkey leave no policy, so nothing would be protected"
            }
            true => "policies are missing: name the scripts of setkey beside racoon.conf",
        };
        return Err(Failure::new(ExitClass::Config, missing));
    };
    print_text(&native.text)
}

fn right(names: &[String]) -> String {
    match names {
        [name] => format!("{name} is right"),
        names => format!("{} are right", names.join(" with ")),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn load(files: &[(PathBuf, Kind)], own: &Path, json: bool) -> Result<Understood, Failure> {
    racoon::load_here(files, own).map_err(|errors| {
        if json {
            // What cannot be printed is in the failure all the same.
            let _ = print_json(&wrong(&errors));
        }
        errors.into()
    })
}

fn wrong(errors: &ConfigErrors) -> serde_json::Value {
    json!({
        "schema_version": SCHEMA_VERSION,
        "ok": false,
        "errors": super::check::findings(&errors.0),
    })
}

/// A table of what happens to packets.
pub(super) fn flows(flows: &[Flow]) -> String {
    if flows.is_empty() {
        return "no policy: all packets pass in clear\n".to_owned();
    }
    let heading = ["THIS HOST", "OTHERS", "PACKETS"]
        .map(str::to_owned)
        .to_vec();
    let rows = flows.iter().map(|flow| {
        vec![
            flow.local.to_string(),
            flow.remote.to_string(),
            what(flow.what),
        ]
    });
    print::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

fn what(what: What) -> String {
    match what {
        What::Protect(None) => "through ESP or not at all, transport mode".to_owned(),
        What::Protect(Some((own, peer))) => {
            format!("through ESP or not at all, tunnel {own} ... {peer}")
        }
        What::Prefer(None) => "opportunistic, cleartext allowed, transport mode".to_owned(),
        What::Prefer(Some((own, peer))) => {
            format!("opportunistic, cleartext allowed, tunnel {own} ... {peer}")
        }
        What::Pass => "pass in clear".to_owned(),
        What::Drop => "are dropped".to_owned(),
    }
}

fn report(understood: &Understood) -> serde_json::Value {
    let flow = |flow: &Flow| {
        json!({
            "local_ts": flow.local.to_string(),
            "remote_ts": flow.remote.to_string(),
            "action": match flow.what {
                What::Protect(_) => "protect",
                What::Prefer(_) => "opportunistic, cleartext allowed",
                What::Pass => "pass",
                What::Drop => "drop",
            },
            "tunnel": match flow.what {
                What::Protect(Some((own, peer))) | What::Prefer(Some((own, peer))) => Some([own.to_string(), peer.to_string()]),
                _ => None,
            },
        })
    };
    json!({
        "schema_version": SCHEMA_VERSION,
        "ok": true,
        "connections": understood.native.as_ref().map(|native| describe::connections(&native.loaded)),
        "flows": understood.flows.iter().map(flow).collect::<Vec<_>>(),
    })
}
