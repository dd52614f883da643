//! What a user of racoon has: setkey scripts with policies, `racoon.conf`, `psk.txt`.
//!
//! ```text
//! setkey: text ─ statement ─► statements ─ table ─► policies in force ─ flows ─► both directions
//! ```
//!
//! Two rules decide every doubtful case. Never weaken: what cannot be honoured and protects
//! something is an error, and nothing of the files is used. Never ignore silently: whatever has
//! no effect, or another one than it seems, gets a line with its place.

mod flows;
mod kind;
mod names;
mod setkey;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub(crate) use flows::{Flow, What};
pub(crate) use kind::Kind;
use names::Names;

use crate::config::files::read_text;
use crate::config::{ConfigErrors, Finding, Report, Source};

/// What files of racoon say, all of which make sense.
#[derive(Debug)]
pub(crate) struct Understood {
    /// What happens to packets, in the order in which it is decided.
    pub(crate) flows: Vec<Flow>,
    /// What has no effect or another one than it seems, a line each.
    pub(crate) notices: Vec<Finding>,
}

/// Reads the files as if they were loaded one after another.
///
/// # Errors
/// Everything that is wrong with them: then none of it is to be used.
pub(crate) fn load(files: &[(PathBuf, Kind)]) -> Result<Understood, ConfigErrors> {
    let mut texts = Vec::new();
    let mut unreadable = Vec::new();
    for (path, kind) in files {
        let name = path.display().to_string();
        if *kind != Kind::Setkey {
            let message = "obol does not read racoon.conf and psk.txt yet";
            unreadable.push(Finding::of_file(
                &name,
                message,
                "name scripts of setkey alone",
            ));
            continue;
        }
        match read_text(path) {
            Ok((text, _)) => texts.push((*kind, name, directory(path), text)),
            Err(problem) => unreadable.push(Finding::of_file(&name, problem.message, problem.fix)),
        }
    }
    if !unreadable.is_empty() {
        return Err(ConfigErrors(unreadable));
    }
    let sources: Vec<Source> = texts
        .iter()
        .map(|(_, name, directory, text)| setkey::source(name.clone(), directory.clone(), text))
        .collect();
    let report = Report::new(&sources);
    let names = Names::of_system();
    let mut table = setkey::Table::default();
    for (source, (kind, _, _, text)) in texts.iter().enumerate() {
        if *kind == Kind::Setkey {
            let lines = setkey::read(&report, &names, source, text);
            table.run(&report, &lines);
        }
    }
    let flows = flows::pair(&report, &table);
    let notices = report.finish()?;
    Ok(Understood { flows, notices })
}

fn directory(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}
