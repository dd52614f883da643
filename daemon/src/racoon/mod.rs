//! What a user of racoon has: setkey scripts with policies, `racoon.conf`, `psk.txt`.
//!
//! ```text
//! setkey: text ─ statement ─► statements ─ table ─► policies in force ─ flows ─► both directions ─┐
//! conf: files ─ text ─ remote, proposal, sainfo ─► peers and algorithms ─ plan, choice, regions ◄──────────┘
//!                                                                         └─ native ─► TOML
//! ```
//!
//! Two rules decide every doubtful case. Never weaken: what cannot be honoured and protects
//! something is an error, and nothing of the files is used. Never ignore silently: whatever has
//! no effect, or another one than it seems, gets a line with its place.

mod choice;
mod conf;
mod flows;
pub(crate) mod fuzz;
mod kind;
mod names;
mod native;
mod plan;
pub(crate) mod psk;
mod psk_source;
mod regions;
mod running;
mod setkey;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use conf::{Conf, Texts};
pub(crate) use flows::{Flow, What};
pub(crate) use kind::Kind;
pub(crate) use names::Names;
use obol_ike::proposal::Allowed;
use obol_ike::ts::TrafficSelector;
use psk::PskFile;
pub(crate) use psk_source::PskSource;
pub(crate) use running::{Files, Overrides, load_to_run, translated};
pub(crate) use setkey::{
    Action, Direction, Key, Level, Priority, Rule, Store, Stored, Transform, script, write,
};
use zeroize::Zeroizing;

use crate::config::files::{Disk, FileProblem, FileSource, read_text};
use crate::config::{self, ConfigErrors, Finding, Loaded, Report, Source};

/// What to do about a racoon that runs.
pub(crate) const REMEDY: &str = "stop it (systemctl stop racoon), here and on all nodes: `obol migrate --racoon-conf FILE` says what else is to be done";

/// What files of racoon say, all of which make sense.
#[derive(Debug)]
pub(crate) struct Understood {
    /// What happens to packets, in the order in which it is decided.
    pub(crate) flows: Vec<Flow>,
    /// The same as obol's own configuration; needs `racoon.conf` and policies.
    pub(crate) native: Option<Native>,
    /// What has no effect or another one than it seems, a line each.
    pub(crate) notices: Vec<Finding>,
}

/// A configuration of obol's own.
#[derive(Debug)]
pub(crate) struct Native {
    /// As it is written.
    pub(crate) text: String,
    /// As it is read.
    pub(crate) loaded: Loaded,
}

/// How files are read.
#[derive(Clone, Copy)]
struct Terms<'n> {
    names: &'n Names,
    /// Weak algorithms that may be used, as obol's own configuration says.
    allowed: Allowed,
    purpose: Purpose,
}

/// What files are read for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Purpose {
    /// To be looked at.
    Look,
    /// To be run.
    Run,
}

/// What files say, and the same as a text of obol's own.
struct Draft {
    flows: Vec<Flow>,
    notices: Vec<Finding>,
    text: Option<String>,
    /// Secrets cannot be had, which was said; where they are looked for when they are needed.
    late_psk: Option<PathBuf>,
}

/// Reads the files as if they were loaded one after another. Weak algorithms are used if they are
/// `allowed`.
///
/// # Errors
/// Everything that is wrong with them: then none of it is to be used.
pub(crate) fn load(
    files: &[(PathBuf, Kind)],
    names: &Names,
    allowed: Allowed,
) -> Result<Understood, ConfigErrors> {
    let purpose = Purpose::Look;
    let terms = Terms {
        names,
        allowed,
        purpose,
    };
    let draft = read(files, None, terms)?;
    let parse = |text: String| {
        let loaded = config::parse_str("what it was converted to", &text, &PskOrNone)?;
        Ok(Native { text, loaded })
    };
    Ok(Understood {
        flows: draft.flows,
        native: draft.text.map(parse).transpose()?,
        notices: draft.notices,
    })
}

/// This host's side of packets, and the other one.
pub(crate) type Sides = (TrafficSelector, TrafficSelector);

/// What a store of setkey's policies drops while no daemon protects anything: both sides of each
/// box of packets.
///
/// # Errors
/// The policies contradict each other, or say what obol does not do.
pub(crate) fn closed(store: &Store) -> Result<(Vec<Sides>, Vec<Finding>), ConfigErrors> {
    let mut sources = Vec::new();
    let table = setkey::Table::of(store.entries(&mut sources));
    let report = Report::new(&sources);
    let flows = flows::pair(&report, &table);
    let closed = plan::closed(&report, &flows);
    let notices = report.finish()?;
    let sides = closed.iter().map(|region| (region.local, region.remote));
    Ok((sides.collect(), notices))
}

fn read(
    files: &[(PathBuf, Kind)],
    store: Option<&Store>,
    terms: Terms<'_>,
) -> Result<Draft, ConfigErrors> {
    let Terms {
        names,
        allowed,
        purpose,
    } = terms;
    let mut sources: Vec<Source> = Vec::new();
    let mut scripts: Vec<(usize, String)> = Vec::new();
    let mut texts = Texts::new();
    for (path, kind) in files {
        match kind {
            Kind::Psk => {}
            Kind::Racoon => texts.open(&mut sources, path, 0),
            Kind::Setkey => match read_text(path) {
                Ok((text, _)) => {
                    let directory = path.parent().map(Path::to_owned).unwrap_or_default();
                    scripts.push((sources.len(), text.clone()));
                    sources.push(setkey::source(path.display().to_string(), directory, &text));
                }
                Err(problem) => {
                    let name = path.display().to_string();
                    texts
                        .unreadable
                        .push(Finding::of_file(&name, problem.message, problem.fix));
                }
            },
        }
    }
    if !texts.unreadable.is_empty() {
        return Err(ConfigErrors(texts.unreadable));
    }
    let stored = store.map(|store| store.entries(&mut sources));
    let report = Report::new(&sources);
    let mut table = setkey::Table::of(stored.unwrap_or_default());
    for (source, text) in &scripts {
        let lines = setkey::read(&report, names, *source, text);
        table.run(&report, &lines);
    }
    let flows = flows::pair(&report, &table);
    let main = files.iter().find(|(_, kind)| *kind == Kind::Racoon);
    let Some((main, _)) = main else {
        let notices = report.finish()?;
        return Ok(Draft {
            flows,
            notices,
            text: None,
            late_psk: None,
        });
    };
    let conf = conf::read(&report, names, allowed, &texts);
    let plan = plan::plan(&report, &conf, &flows);
    say_what_changes(&report, &conf);
    let named = files.iter().find(|(_, kind)| *kind == Kind::Psk);
    let psk = named
        .map(|(path, _)| path)
        .or(conf.psk.as_ref().map(|path| &path.value));
    if psk.is_none() && !plan.peers.is_empty() {
        let place = &plan.peers[0].remote.place;
        let fix = "add path pre_shared_key \"/etc/racoon/psk.txt\"; and the secrets into that file";
        report.error(
            place,
            "no path pre_shared_key says where the secrets are",
            fix,
        );
    }
    let mut notices = report.finish()?;
    notices.insert(0, all_at_once(main));
    let mut psk = psk.filter(|_| !plan.peers.is_empty());
    let mut late_psk = None;
    if let Some(path) = psk {
        let anybody = plan.peers.iter().any(|peer| peer.remote.peer().is_none());
        match secrets(path, anybody) {
            Ok(more) => {
                if purpose == Purpose::Run && !path.exists() {
                    late_psk = Some(path.clone());
                }
                notices.extend(more);
            }
            // As with racoon, nobody can connect, and what the policies name stays closed.
            Err(errors) if purpose == Purpose::Run => {
                late_psk = Some(path.clone());
                notices.extend(errors.0);
            }
            Err(errors) => return Err(errors),
        }
    }
    if late_psk.is_some() {
        psk = None;
    }
    // What runs has the `[daemon]` table that allows them beside it.
    let told = match purpose {
        Purpose::Look => allowed,
        Purpose::Run => Allowed::default(),
    };
    let convert = || native::convert(&conf, &plan, psk.map(PathBuf::as_path), told);
    Ok(Draft {
        text: (!flows.is_empty() || store.is_some() || plan.generates()).then(convert),
        flows,
        notices,
        late_psk,
    })
}

/// Reads with the names of this system, and what obol's own file at `own` allows.
///
/// # Errors
/// As [`load`], or that file cannot be read.
pub(crate) fn load_here(files: &[(PathBuf, Kind)], own: &Path) -> Result<Understood, ConfigErrors> {
    load(files, &Names::of_system(), config::allowed(own)?)
}

/// The first line of every report.
fn all_at_once(main: &Path) -> Finding {
    Finding::of_file(
        &main.display().to_string(),
        "racoon cannot speak IKEv2, and obol nothing else: all nodes move together",
        "stop racoon on all of them, then start obol on all of them",
    )
}

/// What only shows when all of it is read.
fn say_what_changes(report: &Report<'_>, conf: &Conf) {
    for remote in &conf.remotes {
        let lives: Vec<_> = remote
            .proposals
            .iter()
            .filter_map(|proposal| proposal.lifetime)
            .collect();
        if lives.iter().any(|life| Some(life) != lives.first()) {
            let message = "the proposals have different lifetimes: the shortest holds for all";
            report.warn(
                &remote.place,
                message,
                "write the same lifetime into all of them",
            );
        }
    }
}

/// What is to be said of `psk.txt`; `anybody`: peers that nobody knows yet need a line as well.
fn secrets(path: &Path, anybody: bool) -> Result<Vec<Finding>, ConfigErrors> {
    let name = path.display().to_string();
    let octets = match Disk.psk_txt(path) {
        Ok(octets) => octets,
        // It may be on another host, and everything else can be said all the same.
        Err(_) if !path.exists() => {
            let fix = "put it there: it is read when a secret is needed";
            return Ok(vec![Finding::of_file(&name, "there is no such file", fix)]);
        }
        Err(problem) => {
            let finding = Finding::of_file(&name, problem.message, problem.fix);
            return Err(ConfigErrors(vec![finding]));
        }
    };
    let (file, remarks) = PskFile::read(&octets);
    let (mut wrong, mut notices) = (Vec::new(), Vec::new());
    for remark in remarks {
        let finding = Finding::of_file(
            &format!("{name}:{}", remark.line),
            remark.message,
            remark.fix,
        );
        match remark.error {
            true => wrong.push(finding),
            false => notices.push(finding),
        }
    }
    if file.is_empty() && wrong.is_empty() {
        let fix = "write a line: * and the secret, or the peer's address and the secret";
        wrong.push(Finding::of_file(&name, "there is no secret in it", fix));
        wrong.append(&mut notices);
    } else if anybody && !file.has_any() {
        let message = "there is no line for *: peers that have none of their own are refused";
        notices.push(Finding::of_file(
            &name,
            message,
            "add a line that begins with *",
        ));
    }
    match wrong.is_empty() {
        true => Ok(notices),
        false => Err(ConfigErrors(wrong)),
    }
}

/// Files for a configuration that is only looked at: one that is not there yet holds a secret for all.
struct PskOrNone;

impl FileSource for PskOrNone {
    fn public(&self, path: &Path) -> Result<Vec<u8>, FileProblem> {
        Disk.public(path)
    }

    fn secret(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
        if path.exists() {
            return Disk.psk_txt(path);
        }
        Ok(Zeroizing::new(
            b"* stands for what is not there yet".to_vec(),
        ))
    }
}
