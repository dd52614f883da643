//! `racoon`, `racoonctl` and `setkey`: the commands of ipsec-tools for scripts and fingers that
//! know them. Arguments, lines and exit codes are theirs.
//!
//! ```text
//! setkey ── policies ──► store in the runtime directory ── enforce (no daemon), or reload ──► protection
//! racoon ── racoon.conf, psk.txt and the store ──► the daemon
//! racoonctl, setkey -D ── control socket ──► sad
//! ```

mod enforce;
mod racoon;
mod racoonctl;
mod sad;
mod service;
mod setkey;
mod spd;
mod when;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::de::DeserializeOwned;

use crate::cli::{Cli, DEFAULT_CONFIG, ask, complain_line, is_running, print_text};
use crate::control::protocol::{KeysReport, Request, StatusReport};
use crate::error::{ExitClass, Failure};
use crate::racoon::Store;
use sad::View;
use when::Clock;

/// The version whose lines these are.
const COMPATIBLE: &str = "0.8.2";

/// The file in the runtime directory that the policies of setkey are kept in.
pub(crate) const STORE_NAME: &str = "setkey.conf";

/// Environment variable for obol's own configuration file.
const CONFIG_VARIABLE: &str = "OBOL_CONFIG";

/// One of the programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Program {
    Racoon,
    Racoonctl,
    Setkey,
}

impl Program {
    /// The program that is called so.
    pub(crate) fn called(name: &str) -> Option<Self> {
        match name {
            "racoon" => Some(Self::Racoon),
            "racoonctl" => Some(Self::Racoonctl),
            "setkey" => Some(Self::Setkey),
            _ => None,
        }
    }
}

/// Which daemon is meant, and which configuration of obol's own counts.
#[derive(Clone, Debug)]
pub(crate) struct Here {
    /// Directory of the control socket.
    pub(crate) runtime_dir: PathBuf,
    /// For its `[daemon]` table.
    pub(crate) config: PathBuf,
}

impl Here {
    /// By environment or default.
    pub(crate) fn by_environment() -> Self {
        let config = std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty());
        Self {
            runtime_dir: Cli::default_runtime_dir(),
            config: config.map_or_else(|| PathBuf::from(DEFAULT_CONFIG), PathBuf::from),
        }
    }

    fn store(&self) -> PathBuf {
        store_path(&self.runtime_dir)
    }

    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        ask(&self.runtime_dir, request, |_| ())?.read()
    }

    fn view(&self) -> Result<View, Failure> {
        let status: StatusReport = self.ask(&Request::Status)?;
        let list = self.ask(&Request::List)?;
        // Whoever set show_keys wants to see them.
        let keys = match status.daemon.shows_keys {
            true => self.ask(&Request::Keys)?,
            false => KeysReport::default(),
        };
        // What cannot be read was said to whoever wrote it, and names no SAs.
        let store = Store::load(&self.store()).unwrap_or_default();
        let clock = Clock::here();
        let made: Vec<_> = spd::made_policies(&store, &status.policies, &clock).collect();
        let mut policies = store.policies;
        policies.sort_by_key(|policy| policy.priority);
        policies.extend(made);
        Ok(View {
            status,
            list,
            keys,
            policies,
        })
    }

    fn runs(&self) -> Result<bool, Failure> {
        is_running(&self.runtime_dir)
    }
}

/// Where the policies of setkey are kept.
pub(crate) fn store_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(STORE_NAME)
}

/// Forgets what setkey was told, once nothing holds any more: it would be listed as if it did.
///
/// # Errors
/// The system refuses.
pub(crate) fn forget(runtime_dir: &Path) -> Result<(), Failure> {
    let path = store_path(runtime_dir);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            let what = format!("cannot remove {}", path.display());
            Err(Failure::system(what, &e))
        }
        _ => Ok(()),
    }
}

/// The scripts that `setkey --service` loads from a directory, in their order.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn scripts(etc: &Path) -> Result<Vec<PathBuf>, Failure> {
    service::files(etc).map_err(|Ended(text)| Failure::new(ExitClass::Failed, text))
}

/// Why a program ends otherwise than well: what it says, on standard error. The exit code is 1 for
/// all reasons.
#[derive(Debug, PartialEq)]
struct Ended(String);

impl Ended {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self(failure.message)
    }
}

/// Runs one of the programs with these arguments.
pub(crate) fn main(program: Program, here: &Here, arguments: &[String]) -> ExitCode {
    let done = match program {
        Program::Racoon => racoon::run(here, arguments),
        Program::Racoonctl => racoonctl::run(here, arguments),
        Program::Setkey => setkey::run(here, arguments),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Ended(text)) => {
            complain_line(&text);
            ExitCode::from(1)
        }
    }
}

/// Says how a program is called; its exit code.
fn usage(text: &str, code: u8) -> Result<u8, Ended> {
    print_text(text)?;
    Ok(code)
}
