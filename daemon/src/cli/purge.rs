//! `obol purge`, and `obol down --all` where no daemon runs: removes what a dead one left.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::is_running;
use super::{complain_line, print_json, print_line};
use crate::config::{self, DaemonSettings};
use crate::dataplane::{self, DataPlaneError};
use crate::error::{ExitClass, Failure};
use crate::host;
use crate::run::Lock;

/// How often it is looked whether a daemon is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `obol purge`.
///
/// # Errors
/// A daemon runs; or see [`remove_all`].
pub(super) fn purge(runtime_dir: &Path, config: &Path) -> Result<(), Failure> {
    let _lock = Lock::take(runtime_dir).map_err(|failure| match failure.code {
        ExitClass::AlreadyRuns => Failure::new(
            ExitClass::Failed,
            format!(
                "a daemon runs at {}, or begins: obol down --all ends it and removes everything",
                runtime_dir.display()
            ),
        ),
        _ => failure,
    })?;
    let removed = remove(config)?;
    // The last of what drops: an `obol migrate` that was cut short left it.
    let interim = host::remove_interim().map_err(|e| refused(&e))?;
    print_line(&in_words(&removed, interim))
}

/// Keeps daemons from beginning, so that what one of them sets up is not taken away; nothing where one runs
/// already. One that begins or ends is waited for.
///
/// # Errors
/// It does not get done with that within `limit`, or the directory cannot be used.
pub(super) fn lock_without_daemon(
    runtime_dir: &Path,
    limit: Duration,
) -> Result<Option<Lock>, Failure> {
    let deadline = Instant::now() + limit;
    loop {
        if is_running(runtime_dir)? {
            return Ok(None);
        }
        match Lock::take(runtime_dir) {
            Err(failure) if failure.code == ExitClass::AlreadyRuns => {}
            taken => return taken.map(Some),
        }
        if Instant::now() >= deadline {
            let text = format!(
                "a daemon begins or ends at {}, and does not get done with it: try again",
                runtime_dir.display()
            );
            return Err(Failure::new(ExitClass::Failed, text));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Removes everything that a daemon with this configuration sets up on the host. What `obol migrate` blocks
/// stays: pluto may be just ending, and obol not running yet.
///
/// # Errors
/// The configuration has no usable `[daemon]` table, or the system refuses.
pub(super) fn remove_all(config: &Path, json: bool) -> Result<(), Failure> {
    let (removed, by_kernel) = remove(config)?;
    if host::has_interim().map_err(|e| refused(&e))? {
        complain_line("obol: what an obol migrate has blocked stays so; `obol purge` lets it pass");
    }
    if json {
        return print_json(&json!({
            "closed": [],
            "removed": {
                "rules": removed.rules,
                "routes": removed.routes,
                "tun": removed.tun,
                "states": by_kernel.states,
                "policies": by_kernel.policies,
                "interfaces": by_kernel.interfaces,
            },
        }));
    }
    print_line(&in_words(&(removed, by_kernel), false))
}

type Removed = (host::Removed, dataplane::kernel::Removed);

fn remove(config: &Path) -> Result<Removed, Failure> {
    // Without a file, what is left is of a daemon with the defaults, or of none.
    let settings = match config.exists() {
        true => config::load_daemon(config)?,
        false => DaemonSettings::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::system("cannot start", &e))?;
    let removed = runtime.block_on(dataplane::purge(&settings.host()));
    removed.map_err(|e| refused(&e))
}

fn in_words((removed, by_kernel): &Removed, interim: bool) -> String {
    let tun = if removed.tun { ", the TUN device" } else { "" };
    let kernel = match by_kernel {
        dataplane::kernel::Removed { policies: 0, .. } => String::new(),
        found => format!(
            ", {} SAs, {} policies and {} xfrm interfaces of the kernel",
            found.states, found.policies, found.interfaces
        ),
    };
    let block = match interim {
        true => ", what an obol migrate that was cut short had blocked",
        false => "",
    };
    format!(
        "removed {} rules, {} routes{tun}{kernel}{block}; nothing is protected",
        removed.rules, removed.routes
    )
}

fn refused(error: &DataPlaneError) -> Failure {
    let mut failure = match error {
        DataPlaneError::System { what, source } => Failure::system(what, source),
        other => Failure::new(ExitClass::Failed, other.to_string()),
    };
    if failure.code == ExitClass::NotPermitted {
        failure
            .message
            .push_str("; run it as root, or with CAP_NET_ADMIN");
    }
    failure
}
