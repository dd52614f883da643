//! What a user of pluto (Libreswan) has: `ipsec.conf` and the files that it includes.
//!
//! ```text
//! files ─ text ─ keyword ─► sections ─ merge ─► flat connections ─ conn, policy, refused ─►
//!                                                      connections ─ orient ─► what is ours
//! ```
//!
//! Three rules decide every doubtful case. Never weaken: what obol cannot honour and what protects
//! something refuses its connection. Never ignore silently: whatever has no effect gets a line with
//! its place. What any version of pluto with IKEv2 meant, it still means.

mod conn;
mod files;
mod former;
pub(crate) mod fuzz;
pub(crate) mod keystore;
mod keyword;
mod lists;
mod merge;
mod native;
mod nss;
mod orient;
mod places;
mod policy;
mod process;
mod proposals;
mod public;
mod refused;
mod ring;
mod running;
mod secrets;
mod setup;
mod text;
mod values;
mod world;

#[cfg(test)]
mod acceptance;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;

pub(crate) use conn::{Auto, Conn, Kind};
pub(crate) use former::Occasion;
use merge::Problem;
pub(crate) use native::{clean, convert};
pub(crate) use orient::{HostView, Oriented, orient};
pub(crate) use process::{REMEDY, RUNDIR, running_pid};
pub(crate) use ring::{HostKey, host_keys, keep_new};
pub(crate) use running::{
    Addresses, Files, NamesFound, Single, Translated, addresses, load_single, load_to_run, look_up,
    names_asked, refuse, why_not,
};
pub(crate) use secrets::Psks;
use setup::Setup;
pub(crate) use world::World;

use crate::config::{ConfigErrors, Finding, Located, Report, Source};

/// All that a configuration says.
#[derive(Debug)]
pub(crate) struct Understood {
    /// What holds for the daemon as a whole.
    pub(crate) setup: Setup,
    /// The connections that make sense, in the order of the files.
    pub(crate) conns: Vec<Conn>,
    /// Those that do not: the name, and what is wrong.
    pub(crate) refused: Vec<(String, Vec<Finding>)>,
    /// Those that are only parts of others: the name, and what they lack.
    pub(crate) parts: Vec<(String, String)>,
    /// What has no effect or another one than it seems, a line each.
    pub(crate) notices: Vec<Finding>,
    /// The texts, for what is found wrong later.
    sources: Sources,
}

/// Texts that `Debug` does not show.
#[derive(Default)]
struct Sources(Vec<Source>);

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sources({})", self.0.len())
    }
}

impl Understood {
    /// File, line and column of the header of a connection.
    fn location(&self, name: &Located<String>) -> String {
        Report::new(&self.sources.0).location(&name.place)
    }

    /// Says what is wrong with a connection, at its header.
    fn finding(&self, name: &Located<String>, message: String, fix: &str) -> Finding {
        Report::new(&self.sources.0).finding(&name.place, message, fix.to_owned())
    }
}

/// Reads `ipsec.conf` and what it includes.
///
/// # Errors
/// What makes the whole configuration useless: a file that cannot be read, a line that is none of
/// the grammar's, a keyword that nobody knows.
pub(crate) fn load(path: &Path) -> Result<Understood, ConfigErrors> {
    understand(files::read(path), None)
}

/// All of it, or the one connection of this name.
fn understand(texts: files::Texts, only: Option<&str>) -> Result<Understood, ConfigErrors> {
    let report = Report::new(&texts.sources);
    let sections = texts.sections(&report).map_err(ConfigErrors)?;
    let setup = setup::read(&report, &sections);
    let flat = merge::flatten(&report, &sections, only);
    if report.has_errors() {
        return Err(report.finish().err().unwrap_or_default());
    }
    let mut understood = Understood {
        setup,
        conns: Vec::new(),
        refused: Vec::new(),
        parts: Vec::new(),
        notices: Vec::new(),
        sources: Sources::default(),
    };
    let lists = lists::Lists::default();
    for flat in &flat {
        if let Some(side) = flat.lacks_end() {
            let why = format!("auto=ignore, and {side}= is not set: it is for the also= of others");
            understood.parts.push((flat.name.value.clone(), why));
            continue;
        }
        let (conn, notices) = conn::read(flat, &lists);
        let finding = |problem: Problem| problem.finding(&report);
        understood.notices.extend(notices.into_iter().map(finding));
        match conn {
            Ok(conn) => understood.conns.push(conn),
            Err(errors) => {
                let errors = errors.into_iter().map(finding).collect();
                understood.refused.push((flat.name.value.clone(), errors));
            }
        }
    }
    understood.notices.splice(0..0, report.finish()?);
    understood.sources = Sources(texts.sources);
    // What several connections inherit is said once.
    let mut said = HashSet::new();
    let mut is_new =
        |notice: &Finding| said.insert((notice.location.clone(), notice.message.clone()));
    understood.notices.retain(|notice| is_new(notice));
    Ok(understood)
}
