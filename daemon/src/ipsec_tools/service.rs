//! `setkey --service WORD`: what the service `setkey` of Debian does with the scripts in `/etc`,
//! for a unit of systemd and for scripts.

use std::path::{Path, PathBuf};

use super::setkey::Setkey;
use super::{Ended, Here};
use crate::cli::{complain_line, print_line};
use crate::racoon::Store;
use crate::service::Jobs;

const USAGE: &str = "Usage: setkey --service {start|stop|restart|force-reload} [DIRECTORY]";

/// Where scripts are, below the directory.
const MAIN: &str = "ipsec-tools.conf";
const MORE: &str = "ipsec-tools.d";
const SETTINGS: &str = "default/setkey";

/// Does the word, with the files of the directory, or of `/etc`.
pub(super) fn run(here: &Here, words: &[String]) -> Result<u8, Ended> {
    let (word, etc) = match words {
        [word] => (word.as_str(), Path::new("/etc")),
        [word, etc] => (word.as_str(), Path::new(etc)),
        _ => return Err(Ended::new(USAGE)),
    };
    if !is_wanted(etc) {
        return Ok(0);
    }
    match word {
        "start" => load(here, etc),
        "stop" if is_restarted() => Ok(0),
        "stop" => {
            print_line("Flushing IPsec SA/SP database: ")?;
            Setkey::open_any(here)?.commit(Store::default())?;
            Ok(0)
        }
        "restart" | "force-reload" => {
            print_line("Flushing IPsec SA/SP database: ")?;
            let code = load(here, etc)?;
            print_line("done.")?;
            Ok(code)
        }
        _ => Err(Ended::new(USAGE)),
    }
}

/// `RUN_SETKEY=` says otherwise, perhaps.
fn is_wanted(etc: &Path) -> bool {
    let text = std::fs::read_to_string(etc.join(SETTINGS)).unwrap_or_default();
    let mut said = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("RUN_SETKEY="));
    said.next_back()
        .is_none_or(|said| said.trim_matches(['"', '\'']) == "yes")
}

/// systemd stops a service before it starts it again. To flush in between would open for a moment
/// what is to be protected; the start replaces all of it anyway.
fn is_restarted() -> bool {
    match Jobs::now() {
        Some(jobs) => jobs.has("setkey.service", "restart"),
        // Without systemd somebody has typed it; in a unit that cannot be known.
        None => std::env::var_os("INVOCATION_ID").is_some(),
    }
}

fn load(here: &Here, etc: &Path) -> Result<u8, Ended> {
    print_line("Loading IPsec SA/SP database: ")?;
    let mut scripts = Vec::new();
    let files = files(etc)?;
    if files.is_empty() {
        complain_line(
            "notice: there is no script, so nothing is loaded, and what holds stays so; setkey -FP ends it",
        );
        return Ok(0);
    }
    for path in files {
        let name = path.display().to_string();
        print_line(&format!(" - {name}"))?;
        let text = std::fs::read_to_string(&path)
            .map_err(|e| Ended::new(format!("setkey: fopen: {name}: {e}")))?;
        scripts.push((name, text));
    }
    let all = Setkey::open(here)?.swap(&scripts)?;
    Ok(u8::from(!all))
}

/// The scripts in the order in which they are loaded.
pub(super) fn files(etc: &Path) -> Result<Vec<PathBuf>, Ended> {
    let main = etc.join(MAIN);
    let directory = etc.join(MORE);
    let mut files = Vec::new();
    match main.exists() {
        true => files.push(main),
        false => complain_line(&format!(
            "notice: there is no {}: {} is loaded all the same",
            main.display(),
            directory.display()
        )),
    }
    let mut more = Vec::new();
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(e) => return Err(Ended::new(format!("setkey: {}: {e}", directory.display()))),
    };
    for entry in entries {
        let path = entry
            .map_err(|e| Ended::new(format!("setkey: {}: {e}", directory.display())))?
            .path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension() == Some("conf".as_ref()) && !hidden {
            more.push(path);
        }
    }
    more.sort();
    files.extend(more);
    Ok(files)
}
