//! What the daemon tells systemd: that it is ready, reads its configuration again, ends, and is not
//! stuck. Without systemd nothing is told. And what systemd is asked: why it ends a unit.

use std::process::{Command, Stdio};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::debug;

/// The signs of life that the service asks for.
pub(crate) struct Heartbeat(Option<Interval>);

impl Heartbeat {
    /// Twice as often as they are asked for. Must be called within a tokio runtime.
    pub(crate) fn new() -> Self {
        let period = sd_notify::watchdog_enabled().map(|period| period / 2);
        Self(period.filter(|period| !period.is_zero()).map(|period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    /// Waits until the next one is due; cancel safe.
    pub(crate) async fn due(&mut self) {
        match &mut self.0 {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }
}

/// Protection is up, and peers can come.
pub(crate) fn ready(connections: usize) {
    let status = format!("{connections} connections");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The configuration is read again; [`ready`] follows.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no time for systemd"),
    }
}

/// The daemon says goodbye to its peers, for so long at most.
pub(crate) fn stopping(patience: Duration) {
    let patience = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    tell(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(patience),
    ]);
}

/// The loop turns.
pub(crate) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "systemd is not told");
    }
}

/// A property of a unit; nothing without systemd.
pub(crate) fn shown(unit: &str, property: &str) -> Option<String> {
    let mut command = Command::new("systemctl");
    command.args(["show", "--property", property, "--value", unit]);
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Whether systemd has this process for the main one of a unit.
pub(crate) fn is_main_of(pid: u32, unit: &str) -> bool {
    shown(unit, "MainPID").and_then(|text| text.parse().ok()) == Some(pid)
}

/// Whether a process is the main one of a unit of obol's.
pub(crate) fn is_main_of_ours(pid: u32) -> bool {
    UNITS.into_iter().any(|unit| is_main_of(pid, unit))
}

/// The units of obol's that protect: what one of them leaves, another takes over.
const UNITS: [&str; 3] = ["obol.service", "ipsec.service", "racoon.service"];
/// What is begun when the host as a whole is shut down, or but for its shell.
const ENDS: [&str; 3] = ["shutdown.target", "rescue.target", "emergency.target"];

/// What systemd has begun and is not done with.
pub(crate) struct Jobs(String);

impl Jobs {
    /// As they are at this moment; nothing where systemd does not answer.
    pub(crate) fn now() -> Option<Self> {
        let mut command = Command::new("systemctl");
        command.args(["list-jobs", "--no-legend", "--plain", "--full"]);
        let output = command.output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(Self(text))
    }

    /// Whether there is one of this kind (`start`, `stop`, `restart`) for a unit.
    pub(crate) fn has(&self, unit: &str, kind: &str) -> bool {
        self.each().any(|job| job == (unit, kind))
    }

    /// Units with what becomes of them.
    fn each(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next().zip(words.next())
        })
    }

    /// Why a unit ends although nobody wants to be without what it protects; nothing if somebody
    /// stops it, and it alone.
    fn unasked(&self, unit: &str) -> Option<&'static str> {
        let begins = |other: &str| self.has(other, "start") || self.has(other, "restart");
        if ENDS.into_iter().any(begins) {
            return Some("the host goes down");
        }
        if UNITS.into_iter().any(begins) {
            return Some("it is to run again");
        }
        (!self.has(unit, "stop")).then_some("nobody stops it")
    }
}

/// Why the protection of a unit that ends is not to be lifted; nothing where somebody has asked for
/// that, by `systemctl stop`.
pub(crate) fn keeps_protection(unit: &str) -> Option<&'static str> {
    match Jobs::now() {
        Some(jobs) => jobs.unasked(unit),
        None => Some("systemd does not say why it ends"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protection_goes_with_a_unit_that_somebody_stops_and_else_stays() {
        for (jobs, keeps) in [
            ("", true),
            ("7 ipsec.service stop running\n", false),
            ("7 ipsec.service restart running\n", true),
            ("7 ipsec.service start waiting\n", true),
            ("7 other.service stop running\n", true),
            (
                "7 ipsec.service stop running\n8 other.service start waiting\n",
                false,
            ),
            (
                "7 ipsec.service stop running\n8 shutdown.target start waiting\n",
                true,
            ),
            (
                "8 rescue.target start waiting\n7 ipsec.service stop running\n",
                true,
            ),
            (
                "7 ipsec.service stop running\n8 obol.service start waiting\n",
                true,
            ),
            ("No jobs running.\n", true),
        ] {
            let jobs = Jobs(jobs.to_owned());
            assert_eq!(jobs.unasked("ipsec.service").is_some(), keeps, "{}", jobs.0);
        }
    }
}
