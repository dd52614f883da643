//! `ipsec start`, `stop` and `restart`: by systemd, or without it by ourselves.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::call::Call;
use super::{CONFIG, Daemon, Ended, code};
use crate::cli::{is_running, print_line};
use crate::control::protocol::{DownReport, DownTarget, Request};
use crate::error::{ExitClass, Failure};
use crate::pluto;
use crate::run::Lock;

/// How long the daemon may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does `word` with the service; the exit code is systemctl's where there is one.
pub(super) fn unit(word: &str, call: &Call) -> Result<u8, Ended> {
    if Path::new("/run/systemd/system").exists() && call.rundir.is_none() && call.config.is_none() {
        print_line(&format!("Redirecting to: systemctl {word} ipsec.service"))?;
        let error = Command::new("systemctl")
            .args([word, "ipsec.service"])
            .exec();
        return Err(Ended::new(code::FAILED, format!("systemctl: {error}")));
    }
    let daemon = Daemon::of(call);
    match word {
        "start" => start(&daemon, call),
        "stop" => stop(&daemon),
        "restart" => {
            stop(&daemon)?;
            start(&daemon, call)
        }
        // What does not run is not begun.
        _ if is_running(&daemon.runtime_dir)? => {
            stop(&daemon)?;
            start(&daemon, call)
        }
        _ => Ok(0),
    }
}

fn start(daemon: &Daemon, call: &Call) -> Result<u8, Ended> {
    if is_running(&daemon.runtime_dir)? {
        return Ok(0);
    }
    if let Some(pid) = pluto::running_pid(Path::new(pluto::RUNDIR)) {
        let text = format!("pluto (pid {pid}) runs already: {}", pluto::REMEDY);
        return Err(Ended::new(code::ALREADY, text));
    }
    let config = call.config.as_deref().unwrap_or(Path::new(CONFIG));
    let arguments = ["run".into(), "--ipsec-conf".into(), config.into()];
    start_daemon(&daemon.runtime_dir, &arguments)?;
    Ok(0)
}

/// Starts the daemon with these arguments, and waits until it answers.
///
/// # Errors
/// It does not.
pub(crate) fn start_daemon(runtime_dir: &Path, arguments: &[OsString]) -> Result<(), Failure> {
    let failed = |text: String| Failure::new(ExitClass::Failed, text);
    let program = std::env::current_exe().map_err(|e| failed(format!("cannot find obol: {e}")))?;
    let path = runtime_dir.join("obol.log");
    let log =
        log_file(&path).map_err(|e| failed(format!("cannot write {}: {e}", path.display())))?;
    let mut child = Command::new(program)
        .arg0("obol")
        .arg("--runtime-dir")
        .arg(runtime_dir)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(|e| failed(format!("cannot start obol: {e}")))?;
    let until = Instant::now() + PATIENCE;
    while !is_running(runtime_dir)? {
        let ended = child.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > until {
            let text = format!("the daemon does not run; {} says why", path.display());
            return Err(failed(text));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Where the daemon's log goes, since whoever starts it by hand does not stay.
fn log_file(path: &Path) -> std::io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    let mut file = OpenOptions::new();
    file.create(true).append(true).mode(0o600).open(path)
}

fn stop(daemon: &Daemon) -> Result<u8, Ended> {
    if !is_running(&daemon.runtime_dir)? {
        return Ok(0);
    }
    let request = Request::Down {
        target: DownTarget::All,
        timeout_ms: 10_000,
    };
    daemon.ask::<DownReport>(&request)?;
    Lock::wait_until_free(&daemon.runtime_dir, PATIENCE)?;
    Ok(0)
}
