//! The commands that a running daemon answers.

use std::path::Path;

use super::args::{DownArgs, RedirectArgs, StatusArgs, Target, UpArgs};
use super::client::ask;
use super::{complain_line, print, print_json, print_text, purge};
use crate::control::protocol::{
    Data, DownReport, DownTarget, ListReport, RedirectReport, ReloadReport, Request, StatusReport,
    StepReport, UpReport,
};
use crate::error::{ExitClass, Failure};
use crate::run::Lock;

/// `obol up`.
pub(super) fn up(runtime_dir: &Path, args: &UpArgs) -> Result<(), Failure> {
    let request = Request::Up {
        connection: args.target.connection.clone(),
        child: args.target.child.clone(),
        timeout_ms: milliseconds(args.timeout),
    };
    let data = ask(runtime_dir, &request, |text| {
        if let Some(step) = StepReport::read(text).filter(|_| !args.output.json) {
            complain_line(&step.to_string());
        }
    })?;
    if args.output.json {
        return print_data(&data);
    }
    let report: UpReport = data.read()?;
    print_text(&format!(
        "{}: up in {} ms: {}\n",
        report.connection,
        report.took_ms,
        report.children.join(", ")
    ))
}

/// `obol down`.
pub(super) fn down(runtime_dir: &Path, config: &Path, args: &DownArgs) -> Result<(), Failure> {
    if args.all
        && let Some(_lock) = purge::lock_without_daemon(runtime_dir, args.timeout)?
    {
        return purge::remove_all(config, args.output.json);
    }
    let daemon = Lock::signed_by(runtime_dir);
    let target = match &args.target {
        None => DownTarget::All,
        Some(Target {
            connection,
            child: None,
        }) => DownTarget::Connection(connection.clone()),
        Some(Target {
            connection,
            child: Some(child),
        }) => DownTarget::Child {
            connection: connection.clone(),
            child: child.clone(),
        },
    };
    let request = Request::Down {
        target,
        timeout_ms: milliseconds(args.timeout),
    };
    let data = ask(runtime_dir, &request, |text| {
        if !args.output.json {
            complain_line(text);
        }
    })?;
    if args.all {
        // The answer comes before the daemon lifts the protection, which it does last.
        Lock::wait_until_lifted(runtime_dir, daemon, args.timeout)?;
    }
    if args.output.json {
        return print_data(&data);
    }
    let report: DownReport = data.read()?;
    match report.closed.as_slice() {
        [] => print_text("nothing was up\n"),
        closed => print_text(&format!("closed: {}\n", closed.join(", "))),
    }
}

/// `obol redirect`.
pub(super) fn redirect(runtime_dir: &Path, args: &RedirectArgs) -> Result<(), Failure> {
    let request = Request::Redirect {
        connection: args.connection.clone(),
        to: args.to,
    };
    let data = ask(runtime_dir, &request, |_| ())?;
    if args.output.json {
        return print_data(&data);
    }
    let report: RedirectReport = data.read()?;
    print_text(&format!(
        "{}: clients are told to go to {}\n",
        report.connection, report.to
    ))
}

/// `obol status`.
pub(super) fn status(runtime_dir: &Path, args: &StatusArgs) -> Result<(), Failure> {
    let data = ask(runtime_dir, &Request::Status, |_| ())?;
    let Some(target) = &args.target else {
        return match args.output.json {
            true => print_data(&data),
            false => print_text(&print::status(&data.read()?)),
        };
    };
    let mut report: StatusReport = data.read()?;
    let whole = target.child.is_none() && !report.names.contains_key(&target.to_string());
    let known = narrow(&mut report, target);
    if !known {
        return Err(Failure::new(
            ExitClass::NotRunning,
            format!("{target} is not configured: obol list shows what is"),
        ));
    }
    match args.output.json {
        true => print_json(&report)?,
        false => print_text(&print::status(&report))?,
    }
    if is_up(&report, whole) {
        return Ok(());
    }
    Err(Failure::new(
        ExitClass::NotRunning,
        format!("{target} is not up"),
    ))
}

/// Leaves only what belongs to the target; `false` if nothing is configured under its name.
fn narrow(report: &mut StatusReport, target: &Target) -> bool {
    let named = std::mem::take(&mut report.names).remove(&target.to_string());
    let is_named = |connection: &str| match &named {
        Some(places) => places.iter().any(|(own, _)| own == connection),
        None => connection == target.connection,
    };
    let fits = |connection: &str, name: &str| match &named {
        Some(places) => {
            let mut places = places.iter();
            places.any(|(own, child)| own == connection && child == name)
        }
        None => target.child.as_deref().is_none_or(|child| child == name),
    };
    report.ike_sas.retain(|sa| is_named(&sa.name));
    for sa in &mut report.ike_sas {
        sa.children.retain(|child| fits(&sa.name, &child.name));
    }
    report
        .policies
        .retain(|policy| is_named(&policy.connection) && fits(&policy.connection, &policy.child));
    report.drops.clear();
    !report.policies.is_empty()
}

/// Whether the IKE SA is in use, or the child if one is meant.
fn is_up(report: &StatusReport, whole: bool) -> bool {
    let mut live = report
        .ike_sas
        .iter()
        .filter(|sa| matches!(sa.state.as_str(), "established" | "rekeying"));
    match whole {
        true => live.next().is_some(),
        false => live
            .flat_map(|sa| &sa.children)
            .any(|child| child.state == "installed"),
    }
}

/// `obol list`.
pub(super) fn list(runtime_dir: &Path, json: bool) -> Result<(), Failure> {
    let data = ask(runtime_dir, &Request::List, |_| ())?;
    if json {
        return print_data(&data);
    }
    let report: ListReport = data.read()?;
    print_text(&print::connections(&report.connections))
}

/// `obol reload`.
pub(super) fn reload(runtime_dir: &Path, json: bool) -> Result<(), Failure> {
    let data = ask(runtime_dir, &Request::Reload, |_| ())?;
    if json {
        return print_data(&data);
    }
    let report: ReloadReport = data.read()?;
    for warning in &report.warnings {
        complain_line(&format!("warning: {warning}"));
    }
    let mut text = String::new();
    for (what, names) in [
        ("new", &report.added),
        ("removed", &report.removed),
        ("changed", &report.changed),
        ("unchanged", &report.unchanged),
    ] {
        if !names.is_empty() {
            text.push_str(&format!("{what}: {}\n", names.join(", ")));
        }
    }
    print_text(&text)
}

/// Whatever it is.
fn print_data(data: &Data) -> Result<(), Failure> {
    print_json(&data.read::<serde_json::Value>()?)
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::*;
    use crate::cli::args::OutputArgs;
    use crate::control::protocol::SOCKET_NAME;

    /// A daemon that says that all is closed, and then ends.
    fn lifted(directory: &Path, lifts: bool) -> Result<(), Failure> {
        let lock = Lock::take(directory).unwrap();
        let socket = directory.join(SOCKET_NAME);
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = std::thread::spawn(move || {
            // The first only looks whether somebody is there.
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream)
                .read_line(&mut String::new())
                .unwrap();
            stream
                .write_all(b"{\"version\":1,\"ok\":true,\"data\":{\"closed\":[]}}\n")
                .unwrap();
            std::fs::remove_file(socket).unwrap();
            if lifts {
                lock.sign_off().unwrap();
            }
        });
        let args = DownArgs {
            target: None,
            all: true,
            of_unit: None,
            timeout: Duration::from_secs(10),
            output: OutputArgs { json: false },
        };
        let done = down(directory, Path::new("/nonexistent/obol.toml"), &args);
        daemon.join().unwrap();
        done
    }

    #[test]
    fn it_is_done_only_if_the_daemon_has_lifted_the_protection() {
        let directory = std::env::temp_dir().join(format!("obol-down-{}", std::process::id()));
        lifted(&directory, true).unwrap();
        let failure = lifted(&directory, false).unwrap_err();
        assert_eq!(failure.code, ExitClass::Failed);
        assert!(failure.message.contains("could not lift"), "{failure}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
