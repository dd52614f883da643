//! `ipsec`: pluto's commands for scripts and fingers that know them. A client of the daemon like
//! obol's own commands; lines and exit codes are pluto's.

mod act;
mod call;
mod keys;
mod newkey;
mod options;
mod out;
mod progress;
mod pubkeys;
mod status;
mod unit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;

use crate::cli::{Cli, ask, complain_line, print_line};
pub(crate) use crate::config::changes::is_meant;
use crate::control::protocol::{OverviewReport, Request, SOCKET_NAME, StepReport};
use crate::error::{ExitClass, Failure};
use call::{Call, Usage, Verb};
use out::Out;
use status::View;
pub(crate) use unit::start_daemon;

/// The version of pluto whose lines these are.
const COMPATIBLE: &str = "5.2";

/// Where pluto's configuration is.
pub(crate) const CONFIG: &str = "/etc/ipsec.conf";

/// pluto's exit codes.
mod code {
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const CONFIG: u8 = 3;
    pub(super) const ALREADY: u8 = 10;
    pub(super) const UNKNOWN_NAME: u8 = 21;
    pub(super) const NOT_ORIENTED: u8 = 22;
    pub(super) const NO_PEER: u8 = 29;
    pub(super) const NEVER: u8 = 30;
    pub(super) const NOT_RUNNING: u8 = 33;
    pub(super) const NO_RESPONSE: u8 = 51;
    pub(super) const FATAL: u8 = 56;
}

/// Why a command ends otherwise than well, and with which exit code.
#[derive(Debug, PartialEq)]
struct Ended {
    code: u8,
    text: String,
}

impl Ended {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    fn unknown(name: &str) -> Self {
        let text = format!("no connection or alias named \"{name}\"");
        Self::new(code::UNKNOWN_NAME, text)
    }
}

impl From<Usage> for Ended {
    fn from(Usage(text): Usage) -> Self {
        Self::new(code::USAGE, text)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        let code = match failure.code {
            ExitClass::NotRunning => code::NOT_RUNNING,
            ExitClass::Config => code::CONFIG,
            ExitClass::NoAnswer => code::NO_RESPONSE,
            ExitClass::Refused => code::FATAL,
            ExitClass::AlreadyRuns => code::ALREADY,
            _ => code::FAILED,
        };
        Self::new(code, failure.message)
    }
}

/// Runs `ipsec` with these arguments.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(ended) => {
            complain_line(&ended.text);
            ExitCode::from(ended.code)
        }
    }
}

fn run(arguments: &[String]) -> Result<u8, Ended> {
    if let Some((first, rest)) = arguments.split_first() {
        match first.as_str() {
            "showhostkey" => return keys::show(rest),
            "newhostkey" => return newkey::make(rest),
            _ => {}
        }
    }
    // Scripts of users end with pluto's own one, whose work obol does by itself.
    if arguments
        .first()
        .is_some_and(|first| first.starts_with("_updown"))
    {
        return Ok(0);
    }
    let call = Call::read(arguments)?;
    let out = Out::new();
    if call.by_auto && out.style == out::Style::Five {
        complain_line("WARNING: ipsec auto has been deprecated");
    }
    if let Some(text) = call.would() {
        print_line(&text)?;
        return Ok(0);
    }
    match call.verb {
        Verb::Help => {
            let words: Vec<&str> = call::list().collect();
            print_line(&format!(
                "ipsec COMMAND, where COMMAND is one of:\n  {}",
                words.join("\n  ")
            ))?;
        }
        Verb::Version => print_line(&format!(
            "obol {} (Libreswan {COMPATIBLE} compatible)",
            env!("CARGO_PKG_VERSION")
        ))?,
        Verb::VersionCode => print_line(COMPATIBLE)?,
        Verb::Unit(word) => return unit::unit(word, &call),
        Verb::CheckConfig => return act::check_config(call.config.as_deref()),
        Verb::Without(text) => out.line("000", text),
        _ => return Daemon::of(&call).run(&call, &out),
    }
    Ok(0)
}

/// The daemon that is asked.
struct Daemon {
    runtime_dir: PathBuf,
}

impl Daemon {
    fn of(call: &Call) -> Self {
        let known = call.rundir.clone();
        // A script that names pluto's own directory means the daemon of this host.
        let known = known
            .filter(|dir| dir != Path::new("/run/pluto") && dir != Path::new("/var/run/pluto"));
        Self {
            runtime_dir: known.unwrap_or_else(Cli::default_runtime_dir),
        }
    }

    fn run(&self, call: &Call, out: &Out) -> Result<u8, Ended> {
        let name = call.name.as_deref();
        match (call.verb, name) {
            (Verb::Start, Some(name)) => return act::start(self, out, name, call.asynchronous),
            (Verb::Up, Some(name)) => return act::up(self, out, name, call.asynchronous),
            (Verb::Down, Some(name)) => return act::down(self, out, name),
            (Verb::Add | Verb::Delete | Verb::Route | Verb::Unroute, Some(name)) => {
                return act::change(self, out, call.verb, name);
            }
            (Verb::RekeyIke | Verb::RekeyChild, Some(name)) => {
                return act::rekey(self, out, call.verb, name);
            }
            (Verb::DeleteState(number), _) => return act::delete_state(self, out, number),
            (Verb::ListSecrets, _) => return act::list_secrets(self, out),
            (Verb::RereadSecrets, _) => return act::read_secrets(self, out),
            (Verb::Listen, _) => return act::listen(self, out),
            (Verb::Reread | Verb::AddAll, _) => {
                return act::read_again(self, out, call.verb);
            }
            _ => {}
        }
        out.gather();
        let view = self.view(name)?;
        if let Some(name) = name
            && view.find(Some(name)).next().is_none()
            && !view.has_absent(name)
        {
            return Err(view.unknown(name));
        }
        match call.verb {
            Verb::Status => view.print_all(out),
            Verb::BriefStatus => view.print_brief(out),
            Verb::GlobalStatus => view.print_global(out),
            Verb::ShowStates => view.print_states(out),
            Verb::ShuntStatus => view.print_shunts(out),
            Verb::TrafficStatus => view.print_traffic(out, name, now()),
            Verb::ConnectionStatus => drop(view.print_connections(out, name, false)),
            Verb::BriefConnectionStatus => drop(view.print_connections(out, name, true)),
            Verb::ListKeys => pubkeys::print(&view, out, now()),
            _ => {}
        }
        Ok(0)
    }

    /// What there is of a name, or at all.
    fn view(&self, name: Option<&str>) -> Result<View, Ended> {
        let request = Request::Overview {
            name: name.map(str::to_owned),
        };
        let OverviewReport { status, list } = self.ask(&request)?;
        Ok(View::new(status, list))
    }

    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Ended> {
        self.ask_and_hear(request, |_| ())
    }

    /// The same, and each step is told as it is heard of.
    fn ask_and_hear<T: DeserializeOwned>(
        &self,
        request: &Request,
        mut told: impl FnMut(&StepReport),
    ) -> Result<T, Ended> {
        let heard = |text: &str| StepReport::read(text).iter().for_each(&mut told);
        let data = ask(&self.runtime_dir, request, heard).map_err(|failure| self.ended(failure))?;
        let read = data.read();
        read.map_err(|failure| Ended::new(code::FAILED, format!("whack: {}", failure.message)))
    }

    /// Without a daemon, what pluto's client says.
    fn ended(&self, failure: Failure) -> Ended {
        if failure.code != ExitClass::NotRunning {
            return failure.into();
        }
        let socket = self.runtime_dir.join(SOCKET_NAME);
        Ended::new(
            code::NOT_RUNNING,
            format!("whack: Pluto is not running (no \"{}\")", socket.display()),
        )
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
