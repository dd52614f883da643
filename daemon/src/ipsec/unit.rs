//! `ipsec start`, `stop` and `restart`: by systemd, or without it by ourselves.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::call::Call;
use super::{CONFIG, Daemon, Ended, code};
use crate::cli::{DEFAULT_CONFIG, is_running, print_line};
use crate::control::protocol::{DaemonReport, DownReport, DownTarget, Request, StatusReport};
use crate::error::{ExitClass, Failure};
use crate::pluto;
use crate::run::Lock;
use crate::service;

/// How long the daemon may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does `word` with the service; the exit code is systemctl's where there is one.
pub(super) fn unit(word: &str, call: &Call) -> Result<u8, Ended> {
    let daemon = Daemon::of(call);
    let running = running(&daemon);
    // One that does not answer is all the more systemd's.
    let known = running.as_ref().ok().and_then(Option::as_ref);
    if is_systemds(call, known) {
        if let (Some(running), "restart" | "try-restart") = (known, word) {
            let is_own = service::is_main_of(running.pid, "ipsec.service");
            let usual = Path::new(CONFIG);
            check(if is_own {
                Path::new(&running.config)
            } else {
                usual
            })?;
        }
        print_line(&format!("Redirecting to: systemctl {word} ipsec.service"))?;
        let error = Command::new("systemctl")
            .args([word, "ipsec.service"])
            .exec();
        return Err(Ended::new(code::FAILED, format!("systemctl: {error}")));
    }
    match (word, running?) {
        ("start" | "restart", None) => start(&daemon, call),
        ("restart" | "try-restart", Some(running)) => {
            is_same(call, &running)?;
            check(conf(call))?;
            end(&daemon, &running)?;
            start(&daemon, call)
        }
        ("stop", Some(running)) => stop(&daemon, &running),
        // It runs already, or what does not run is not begun and not stopped.
        _ => Ok(0),
    }
}

/// Whether systemd is to do it: not what is about another daemon than those of obol's units, as `obol migrate` and
/// `obol run` start one.
fn is_systemds(call: &Call, running: Option<&DaemonReport>) -> bool {
    let is_usual = call.rundir.is_none() && call.config.is_none();
    is_usual
        && Path::new("/run/systemd/system").exists()
        && running.is_none_or(|daemon| service::is_main_of_ours(daemon.pid))
}

/// What the daemon says of itself, if there is one.
fn running(daemon: &Daemon) -> Result<Option<DaemonReport>, Ended> {
    if !is_running(&daemon.runtime_dir)? {
        return Ok(None);
    }
    let status: StatusReport = daemon.ask(&Request::Status)?;
    Ok(Some(status.daemon))
}

/// The file to start from.
fn conf(call: &Call) -> &Path {
    call.config.as_deref().unwrap_or(Path::new(CONFIG))
}

/// Whether the daemon that runs is of the file to start from: what another file has not would lose its
/// protection.
fn is_same(call: &Call, running: &DaemonReport) -> Result<(), Ended> {
    let conf = conf(call);
    if call.config.is_some() || Path::new(&running.config) == conf {
        return Ok(());
    }
    let text = format!(
        "the daemon that runs (pid {}) is of {}, and {} would take its place: nothing was restarted; say --config {}, or ipsec stop first",
        running.pid,
        running.config,
        conf.display(),
        conf.display()
    );
    Err(Ended::new(code::CONFIG, text))
}

/// Whether a daemon could start from these files: one that runs is not ended for one that would not.
fn check(conf: &Path) -> Result<(), Ended> {
    let files = pluto::Files::of(conf);
    let read = pluto::load_to_run(&files, Path::new(DEFAULT_CONFIG), pluto::Occasion::Start);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| Failure::system("cannot begin", &e))?;
    runtime.block_on(read).map(drop).map_err(|errors| {
        let text = format!("{errors}\nnothing was restarted: all runs on as before");
        Ended::new(code::CONFIG, text)
    })
}

/// Ends the daemon. What it protects stays so, for the next one to take over.
fn end(daemon: &Daemon, running: &DaemonReport) -> Result<(), Ended> {
    let pid = i32::try_from(running.pid).ok().and_then(Pid::from_raw);
    let ended = pid.map_or(Err(Errno::SRCH), |pid| kill_process(pid, Signal::TERM));
    ended.map_err(|e| Failure::system(format!("cannot end pid {}", running.pid), &e.into()))?;
    Ok(Lock::wait_until_free(&daemon.runtime_dir, PATIENCE)?)
}

fn start(daemon: &Daemon, call: &Call) -> Result<u8, Ended> {
    if let Some(pid) = pluto::running_pid(Path::new(pluto::RUNDIR)) {
        let text = format!("pluto (pid {pid}) runs already: {}", pluto::REMEDY);
        return Err(Ended::new(code::ALREADY, text));
    }
    let arguments = ["run".into(), "--ipsec-conf".into(), conf(call).into()];
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

fn stop(daemon: &Daemon, running: &DaemonReport) -> Result<u8, Ended> {
    let request = Request::Down {
        target: DownTarget::All,
        timeout_ms: 10_000,
    };
    daemon.ask::<DownReport>(&request)?;
    Lock::wait_until_lifted(&daemon.runtime_dir, Some(running.pid), PATIENCE)?;
    Ok(0)
}
