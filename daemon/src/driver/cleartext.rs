//! Children whose packets pass in clear until a try to bring them up has failed, or from then on: the
//! data plane is told when that changes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use obol_ike::event::Event;
use tracing::{error, info, warn};

use super::Driver;
use crate::dataplane::{DataPlane, Policy};

/// When to look at them again.
#[derive(Debug, Default)]
pub(super) struct Cleartexts {
    due: Option<Instant>,
    /// Not before: to set thousands of policies takes a while, and is not to be all that is done.
    pause: Option<Instant>,
}

/// So many times as long as it took to set policies they stay as they are.
const REST: u32 = 4;
/// How long until what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl Cleartexts {
    /// Has them looked at.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.due.is_none() {
            let pause = self.pause.take();
            self.due = Some(pause.map_or(now, |pause| pause.max(now)));
        }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl<D: DataPlane> Driver<D> {
    /// Has them looked at, once all has happened that happens now.
    pub(super) fn note_for_cleartexts(&mut self, event: &Event) {
        let may_change = matches!(
            event,
            Event::IkeFailed { .. }
                | Event::IkeDown { .. }
                | Event::ChildUp(_)
                | Event::ChildDown { .. }
                | Event::ChildFailed { .. }
        );
        if may_change {
            self.cleartexts.look_again(self.clock.now());
        }
    }

    /// Tells the data plane which packets pass in clear from now on, and which no longer do.
    pub(super) async fn settle_cleartexts(&mut self) {
        let now = self.clock.now();
        if self.cleartexts.due.is_none_or(|due| due > now) {
            return;
        }
        self.cleartexts.due = None;
        if !self
            .loaded
            .policies
            .iter()
            .any(|policy| policy.clear.when.changes())
        {
            return;
        }
        let mut policies = self.loaded.policies.clone();
        let changed = self.look_at_cleartexts(&mut policies);
        if changed.is_empty() {
            return;
        }
        let done = self.plane.set_policies(policies.clone()).await;
        let after = self.clock.now();
        if let Err(error) = done {
            error!(%error, "which packets pass in clear is not as it should be");
            self.cleartexts.due = Some(after + AGAIN);
            return;
        }
        self.cleartexts.pause = Some(after + (after - now) * REST);
        self.loaded.policies = policies;
        for at in changed {
            tell(&self.loaded.policies[at]);
        }
    }

    /// Sets what is so now; where that changed.
    pub(super) fn look_at_cleartexts(&self, policies: &mut [Policy]) -> Vec<usize> {
        if !policies.iter().any(|policy| policy.clear.when.changes()) {
            return Vec::new();
        }
        let now = self.clock.now();
        let outlook = self.endpoint.outlook(now);
        let failed = outlook.iter().filter(|child| child.failures > 0);
        let failed: HashSet<_> = failed.map(|o| (&*o.connection, &*o.child)).collect();
        let sas = self.endpoint.status(now);
        let children = sas.iter().flat_map(|sa| &sa.children);
        let up: HashSet<_> = children
            .filter(|child| child.state == "installed")
            .map(|child| (&*child.info.connection, &*child.info.child))
            .collect();
        let mut changed = Vec::new();
        for (at, policy) in policies.iter_mut().enumerate() {
            let name = (&*policy.connection, &*policy.child);
            let (is_up, has_failed) = (up.contains(&name), failed.contains(&name));
            let clear = policy.clear.when.allows(is_up, has_failed);
            if policy.clear.when.changes() && clear != policy.clear.now {
                policy.clear.now = clear;
                changed.push(at);
            }
        }
        changed
    }
}

fn tell(policy: &Policy) {
    let (connection, child) = (&policy.connection, &policy.child);
    match policy.clear.now {
        true => warn!(
            %connection, %child,
            "no SA: packets pass in clear, as cleartext = \"{}\" says",
            policy.clear.when.word()
        ),
        false => info!(%connection, %child, "packets do not pass in clear any more"),
    }
}
