//! What the daemon tells systemd: that it is ready, reads its configuration again, ends, and is not
//! stuck. Without systemd nothing is told.

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
