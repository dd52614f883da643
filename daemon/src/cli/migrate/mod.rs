//! `obol migrate`: obol in the place of a pluto that runs, and back if something that was up does not
//! come up. From racoon, see [`racoon`].
//!
//! ```text
//!  what is up ─ check ─ block what would be in clear ─ stop pluto ─ start obol ─ all is up? ─ done
//!                                                                                 └─ no: stop obol, start pluto
//! ```

mod old;
mod racoon;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::args::MigrateArgs;
use super::client::{ask, is_running};
use super::{complain_line, print_line};
use crate::config::Loaded;
use crate::control::protocol::{DownReport, DownTarget, Request, StatusReport};
use crate::dataplane;
use crate::error::{ExitClass, Failure};
use crate::host;
use crate::ipsec::start_daemon;
use crate::pluto;
use crate::run::{Lock, system};
use old::Pluto;

/// How long peers may take to confirm the end, in milliseconds.
const FAREWELL: u64 = 2_000;
/// How often the daemon is asked what is up.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// So long pluto has to begin with what it begins with by itself.
const BY_ITSELF: Duration = Duration::from_secs(3);

/// Takes over from pluto, or plans and verifies the move away from racoon.
///
/// # Errors
/// It was not tried, or came to nothing: then pluto runs as before, or the failure says otherwise.
pub(super) fn migrate(
    runtime_dir: &Path,
    config: &Path,
    args: &MigrateArgs,
) -> Result<(), Failure> {
    if let Some(conf) = &args.racoon_conf {
        return racoon::migrate(runtime_dir, config, conf, args);
    }
    if is_running(runtime_dir)? {
        let text = "an obol runs already: obol down --all ends it";
        return Err(Failure::new(ExitClass::AlreadyRuns, text));
    }
    let pluto = Pluto::find(&args.pluto_rundir)?;
    let (up, instances) = pluto.up()?;
    let loaded = load(config, args)?;
    check(args, &(&up | &instances), &pluto.routed()?, &loaded)?;
    let begins = match pluto.by_unit && pluto.unit_is_obol {
        true => "systemctl start ipsec.service".to_owned(),
        false => format!("obol run --ipsec-conf {}", args.ipsec_conf.display()),
    };
    say(args, &plan(args, &pluto, &up, &instances, &begins))?;
    if args.dry_run {
        return Ok(());
    }
    outlive_the_terminal()?;
    // From here until obol or pluto protects again, nothing of theirs leaves in clear.
    let block = || host::load_interim(&loaded.daemon.host(), &loaded.policies).map_err(system);
    block()?;
    let done = take_over((runtime_dir, config), &loaded, args, &pluto, &up);
    if !is_running(runtime_dir).unwrap_or(false)
        && let Some(lacking) = lacking(args, &up)
    {
        // obol may have taken it away when it began.
        block()?;
        complain_line(&format!(
            "obol: {lacking}: what they protect is dropped unless it goes through ESP, until obol runs; `obol purge` lets it pass"
        ));
        return done;
    }
    let lifted = host::remove_interim().map_err(system);
    done.and(lifted)?;
    say(args, &["done: obol runs in the place of pluto".to_owned()])?;
    if !(pluto.by_unit && pluto.unit_is_obol) {
        let text = "so that it does after a restart of this host too, install daemon/systemd/ipsec.service, and a link called ipsec to obol";
        say(args, &[text.to_owned()])?;
    }
    Ok(())
}

/// What of pluto's is not as it was; nothing where all that was up is so.
fn lacking(args: &MigrateArgs, up: &BTreeSet<String>) -> Option<String> {
    match Pluto::lacks(&args.pluto_rundir, up) {
        Ok(names) if names.is_empty() => None,
        Ok(names) => Some(format!("pluto runs again without {}", names.join(", "))),
        Err(_) => Some("neither obol nor pluto runs".to_owned()),
    }
}

fn load(config: &Path, args: &MigrateArgs) -> Result<Loaded, Failure> {
    let files = pluto::Files {
        secrets: args.ipsec_secrets.clone(),
        nss: args.nssdir.clone(),
        ..pluto::Files::of(&args.ipsec_conf)
    };
    let read = pluto::load_to_run(&files, config, pluto::Occasion::Start);
    let loaded = begin_runtime()?.block_on(read);
    loaded.map_err(|errors| Failure::new(ExitClass::Config, errors.to_string()))
}

/// Whether obol has all that is up, and all that would be in clear without pluto.
fn check(
    args: &MigrateArgs,
    up: &BTreeSet<String>,
    routed: &BTreeSet<String>,
    loaded: &Loaded,
) -> Result<(), Failure> {
    // What is refused is among these, and only matters if pluto protects something by it.
    for warning in &loaded.warnings {
        complain_line(&format!("note: {warning}"));
    }
    let missing = |names: &BTreeSet<String>| {
        let known = |name: &&String| loaded.pluto.names.contains_key(*name);
        let missing = names.iter().filter(|name| !known(name));
        missing.cloned().collect::<Vec<_>>().join(", ")
    };
    let why = format!("`obol check {}` says why", args.ipsec_conf.display());
    let (up, routed) = (missing(up), missing(routed));
    let text = match (up.as_str(), routed.as_str()) {
        ("", "") => return Ok(()),
        ("", names) => format!(
            "{names} is routed with pluto, and obol would not have it: {why}; what is not wanted any more goes with `ipsec delete`; nothing was changed"
        ),
        (names, _) => format!(
            "{names} is up with pluto, and obol would not have it: {why}; nothing was changed"
        ),
    };
    Err(Failure::new(ExitClass::Config, text))
}

fn plan(
    args: &MigrateArgs,
    pluto: &Pluto,
    up: &BTreeSet<String>,
    instances: &BTreeSet<String>,
    begins: &str,
) -> Vec<String> {
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        format!(
            "pluto runs (pid {}), and has up: {}",
            pluto.pid,
            match up.is_empty() {
                true => "nothing".to_owned(),
                false => list(up),
            }
        ),
        "1. block what would leave in clear in between".to_owned(),
        format!("2. stop pluto: {}", pluto.stop_words()),
        format!("3. start obol: {begins}"),
        format!(
            "4. wait up to {:?} until all of that is up again",
            args.timeout
        ),
        format!(
            "5. if it is not: stop obol, and start pluto: {}",
            pluto.start_words()
        ),
    ];
    if !instances.is_empty() {
        let text = format!(
            "clients of {} have to come back by themselves",
            list(instances)
        );
        lines.insert(1, text);
    }
    lines
}

fn say(args: &MigrateArgs, lines: &[String]) -> Result<(), Failure> {
    for line in lines {
        let before = if args.dry_run { "plan: " } else { "" };
        print_line(&format!("{before}{line}"))?;
    }
    Ok(())
}

/// Goes on when the terminal is gone: its connection may be one that pluto carried.
fn outlive_the_terminal() -> Result<(), Failure> {
    let hangup = async || signal(SignalKind::hangup());
    // The handler stays.
    let handled = begin_runtime()?.block_on(hangup());
    handled
        .map(|_| ())
        .map_err(|e| Failure::system("cannot handle signals", &e))
}

fn take_over(
    (runtime_dir, config): (&Path, &Path),
    loaded: &Loaded,
    args: &MigrateArgs,
    pluto: &Pluto,
    up: &BTreeSet<String>,
) -> Result<(), Failure> {
    pluto.stop(args.timeout).map_err(|failure| {
        let text = format!(
            "{}; obol is not started, and nothing else was changed",
            failure.message
        );
        Failure::new(failure.code, text)
    })?;
    let began = match pluto.by_unit && pluto.unit_is_obol {
        true => begin_unit(),
        false => start_daemon(runtime_dir, &arguments(config, args)),
    };
    let done = began.and_then(|()| wait_until_up(runtime_dir, up, args.timeout));
    let Err(failure) = done else {
        return Ok(());
    };
    complain_line(&format!("obol: {}: going back to pluto", failure.message));
    let again = go_back(runtime_dir, loaded, args, pluto);
    again
        .and_then(|()| wait_for_pluto(args, up))
        .map_err(|again| {
            let text = format!(
                "{}; and going back failed: {}: look after pluto by hand: {}",
                failure.message,
                again.message,
                pluto.start_words()
            );
            Failure::new(failure.code, text)
        })?;
    let text = format!("{}; pluto runs again", failure.message);
    Err(Failure::new(failure.code, text))
}

/// What the daemon is told.
fn arguments(config: &Path, args: &MigrateArgs) -> Vec<std::ffi::OsString> {
    let mut words = vec!["--config".into(), config.into(), "run".into()];
    for (option, path) in [
        ("--ipsec-conf", Some(&args.ipsec_conf)),
        ("--ipsec-secrets", args.ipsec_secrets.as_ref()),
        ("--nssdir", args.nssdir.as_ref()),
    ] {
        if let Some(path) = path {
            words.extend([option.into(), path.into()]);
        }
    }
    words
}

fn begin_unit() -> Result<(), Failure> {
    let mut command = std::process::Command::new("systemctl");
    let status = command.args(["start", "ipsec.service"]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let text = format!("systemctl start ipsec.service: {status}");
            Err(Failure::new(ExitClass::Failed, text))
        }
        Err(error) => Err(Failure::system("cannot run systemctl", &error)),
    }
}

/// Waits until each name is up, having asked for it.
fn wait_until_up(
    runtime_dir: &Path,
    up: &BTreeSet<String>,
    limit: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let mut asked = false;
    loop {
        let data = ask(runtime_dir, &Request::Status, |_| ())?;
        let status: StatusReport = data.read()?;
        let missing: Vec<&String> = up.iter().filter(|name| !is_up(&status, name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if !asked {
            missing
                .iter()
                .for_each(|name| begin(runtime_dir, &status, name));
            asked = true;
        }
        if Instant::now() >= deadline {
            let names: Vec<&str> = missing.into_iter().map(String::as_str).collect();
            let text = format!("not up after {limit:?}: {}", names.join(", "));
            return Err(Failure::new(ExitClass::NoAnswer, text));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn is_up(status: &StatusReport, name: &str) -> bool {
    let Some(places) = status.names.get(name) else {
        return false;
    };
    places.iter().all(|(connection, child)| {
        let sas = status.ike_sas.iter().filter(|sa| sa.name == *connection);
        let mut children = sas.flat_map(|sa| &sa.children);
        children.any(|sa| sa.name == *child && sa.state == "installed")
    })
}

/// Has the daemon bring something up; whether it does shows later.
fn begin(runtime_dir: &Path, status: &StatusReport, name: &str) {
    for (connection, child) in status.names.get(name).into_iter().flatten() {
        let request = Request::Up {
            connection: connection.clone(),
            child: Some(child.clone()),
            timeout_ms: 0,
        };
        // It goes on trying, and says at once that it is not up yet.
        let _ = ask(runtime_dir, &request, |_| ());
    }
}

/// Ends obol with its protection, and has pluto run again. What blocks meanwhile is not obol's.
fn go_back(
    runtime_dir: &Path,
    loaded: &Loaded,
    args: &MigrateArgs,
    pluto: &Pluto,
) -> Result<(), Failure> {
    let settings = loaded.daemon.host();
    // obol, once it protected, took it away.
    host::load_interim(&settings, &loaded.policies).map_err(system)?;
    if is_running(runtime_dir)? {
        let request = Request::Down {
            target: DownTarget::All,
            timeout_ms: FAREWELL,
        };
        let asked = ask(runtime_dir, &request, |_| ());
        match asked.and_then(|data| data.read::<DownReport>()) {
            // A peer that is gone does not confirm, and obol ends all the same.
            Err(failure) if failure.code != ExitClass::NoAnswer => return Err(failure),
            _ => {}
        }
        Lock::wait_until_free(runtime_dir, args.timeout.max(Duration::from_secs(20)))?;
    }
    // What it left if it died.
    begin_runtime()?
        .block_on(dataplane::purge(&settings))
        .map_err(system)?;
    pluto.start(args.timeout)
}

/// Waits until pluto has up what was. It says that it runs before it has read its connections.
fn wait_for_pluto(args: &MigrateArgs, up: &BTreeSet<String>) -> Result<(), Failure> {
    let deadline = Instant::now() + args.timeout;
    let mut begin_at = Instant::now() + BY_ITSELF;
    loop {
        let lacks = match Pluto::lacks(&args.pluto_rundir, up) {
            // Its client may be refused while it begins.
            Err(failure) if failure.code != ExitClass::NotRunning => failure.message,
            Err(_) => return Err(Failure::new(ExitClass::Failed, "pluto has ended again")),
            Ok(names) if names.is_empty() => return Ok(()),
            Ok(names) => {
                if Instant::now() >= begin_at {
                    begin_at += BY_ITSELF;
                    Pluto::initiate(&args.pluto_rundir, &names)?;
                }
                names.join(", ")
            }
        };
        if Instant::now() >= deadline {
            let text = format!("pluto has not up after {:?}: {lacks}", args.timeout);
            return Err(Failure::new(ExitClass::NoAnswer, text));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn begin_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(|e| Failure::system("cannot begin", &e))
}
