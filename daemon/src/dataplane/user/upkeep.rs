//! When to look after what others can take away: the TUN device, rules, routes, the guard.

use std::time::Duration;

use tokio::time::Instant;

use crate::dataplane::DataPlaneError;
use crate::host::{HostSettings, Watch};

/// Something to see to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Task {
    /// The TUN device was deleted: make it anew.
    Revive,
    /// Addresses or rules changed, routes went or the TUN device was set down: make all of them be as they should.
    Apply,
    /// See whether the guard is still loaded.
    CheckGuard,
}

/// How long changes may go on until they are looked at together.
const SETTLE: Duration = Duration::from_millis(300);
/// How long to wait until what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the guard is looked for. A `flush ruleset` of somebody's firewall takes it away. Until it is back, rules
/// and blackholes hold what leaves, and nothing what arrives in clear.
const GUARD_EVERY: Duration = Duration::from_millis(500);

/// What is due when.
pub(super) struct Upkeep {
    watch: Watch,
    losses: Watch,
    revive_at: Option<Instant>,
    apply_at: Option<Instant>,
    guard_at: Instant,
}

impl Upkeep {
    /// Begins to watch.
    ///
    /// # Errors
    /// The system has no socket for us.
    pub(super) fn new(settings: &HostSettings) -> Result<Self, DataPlaneError> {
        Ok(Self {
            watch: Watch::addresses_and_rules()?,
            losses: Watch::losses(settings)?,
            revive_at: None,
            apply_at: None,
            guard_at: Instant::now() + GUARD_EVERY,
        })
    }

    /// The TUN device is gone.
    pub(super) fn tun_gone(&mut self) {
        self.revive_at = Some(Instant::now());
    }

    /// Waits for the next task; cancel safe. It comes again after a while unless it is
    /// [`done`](Self::done).
    pub(super) async fn due(&mut self) -> Task {
        loop {
            let (at, task) = self.first();
            tokio::select! {
                () = tokio::time::sleep_until(at) => {
                    self.postpone(task);
                    return task;
                }
                () = self.watch.changed() => self.apply_soon(),
                () = self.losses.changed() => self.apply_soon(),
            }
        }
    }

    fn apply_soon(&mut self) {
        self.apply_at.get_or_insert(Instant::now() + SETTLE);
    }

    /// A task has succeeded.
    pub(super) fn done(&mut self, task: Task) {
        match task {
            Task::Revive => self.revive_at = None,
            Task::Apply => self.apply_at = None,
            Task::CheckGuard => {}
        }
    }

    fn first(&self) -> (Instant, Task) {
        let mut first = (self.guard_at, Task::CheckGuard);
        for (at, task) in [(self.apply_at, Task::Apply), (self.revive_at, Task::Revive)] {
            if let Some(at) = at.filter(|at| *at <= first.0) {
                first = (at, task);
            }
        }
        first
    }

    fn postpone(&mut self, task: Task) {
        let now = Instant::now();
        match task {
            Task::Revive => self.revive_at = Some(now + AGAIN),
            Task::Apply => self.apply_at = Some(now + AGAIN),
            Task::CheckGuard => self.guard_at = now + GUARD_EVERY,
        }
    }
}
