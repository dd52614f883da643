//! `obol migrate --racoon-conf`: from racoon and setkey. All nodes move together, so one of them can but
//! say what is to be done where, and later whether it is.

mod plan;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::args::MigrateArgs;
use crate::error::{ExitClass, Failure};
use crate::ipsec_tools;
use crate::racoon::{self, Kind, Native, Understood};

/// Prints the plan, or whether it is done. obol's own file at `own` tells the data plane.
///
/// # Errors
/// The files are wrong, or what was to be verified is not so.
pub(super) fn migrate(
    runtime_dir: &Path,
    own: &Path,
    conf: &Path,
    args: &MigrateArgs,
) -> Result<(), Failure> {
    let files = Files::of(conf, &args.setkey)?;
    let (understood, native) = files.load(own)?;
    match args.verify {
        true => verify::verify(runtime_dir, args, &native),
        false => plan::print(&files, own, &understood, &native),
    }
}

/// What is read.
struct Files {
    conf: PathBuf,
    scripts: Vec<PathBuf>,
    /// The scripts are those that the service loads.
    usual: bool,
}

impl Files {
    fn of(conf: &Path, named: &[PathBuf]) -> Result<Self, Failure> {
        let usual = named.is_empty();
        let scripts = match usual {
            true => ipsec_tools::scripts(Path::new("/etc"))?,
            false => named.to_vec(),
        };
        Ok(Self {
            conf: conf.to_owned(),
            scripts,
            usual,
        })
    }

    fn load(&self, own: &Path) -> Result<(Understood, Native), Failure> {
        let scripts = self.scripts.iter().map(|path| (path.clone(), Kind::Setkey));
        let all: Vec<_> = std::iter::once((self.conf.clone(), Kind::Racoon))
            .chain(scripts)
            .collect();
        let mut understood = racoon::load_here(&all, own)?;
        match understood.native.take() {
            Some(native) => Ok((understood, native)),
            None => {
                let text = "the scripts of setkey leave no policy, so nothing would be protected: name those with spdadd lines: --setkey FILE";
                Err(Failure::new(ExitClass::Config, text))
            }
        }
    }
}

/// The racoon that runs in this network namespace, by its number: one that is not obol.
fn running() -> Option<u32> {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    let own = namespace("thread-self");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let program = fs::read_link(format!("/proc/{pid}/exe"));
        let is_obol = program.is_ok_and(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name == "obol" || name == "obol (deleted)"
        });
        name.trim() == "racoon" && !is_obol && namespace(&pid.to_string()) == own
    })
}
