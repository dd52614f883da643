//! What the kernel says by itself, and what is due by time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use obol_ike::config::Path;
use obol_ike::event::{ChildSaId, Limits};

use super::core::{ASK_AGAIN, Core};
use super::leftovers::ours;
use super::sas::to_us;
use crate::dataplane::{DataPlaneError, DataPlaneEvent};
use crate::host::xfrm::{Copied, Key, Notice, StateId, Xfrm};

/// How long changes by others may go on until they are looked at together.
const SETTLE: Duration = Duration::from_millis(100);
/// How long to wait until what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl<K: Xfrm> Core<K> {
    /// Takes what the kernel says.
    pub(super) fn notice(&mut self, notice: Notice, now: Instant) {
        match notice {
            Notice::Acquire { reqid, flow } => {
                // Of the policy of an SA: its state was taken away, which is noticed elsewhere.
                let Some(policy) = self.bases.asked_by(reqid).filter(|policy| policy.trap) else {
                    return;
                };
                let (connection, child) = (policy.connection.clone(), policy.child.clone());
                if self.asking.insert(reqid) {
                    self.asked.push_back((now + ASK_AGAIN, reqid));
                }
                self.events.push_back(DataPlaneEvent::Acquire {
                    connection,
                    child,
                    flow,
                });
            }
            Notice::Expired { id, hard: true } => self.lost(id),
            Notice::Expired { id, hard: false } => self.soft_limit(id),
            Notice::StateGone(id) => {
                if self.states.contains_key(&id) {
                    tracing::warn!(?id, "somebody removed an SA from the kernel");
                    self.lost(id);
                }
            }
            Notice::StatesGone | Notice::PoliciesChanged | Notice::Lost => {
                self.compare_at.get_or_insert(now + SETTLE);
            }
            Notice::Mapping { id, address, port } => {
                let Some((child, sa)) = self.sa_of(id) else {
                    return;
                };
                let path = Path {
                    local: sa.info.path.local,
                    remote: (address, port).into(),
                };
                if path != sa.info.path {
                    let moved = DataPlaneEvent::PeerMoved { id: child, path };
                    self.events.push_back(moved);
                }
            }
        }
    }

    fn sa_of(&self, id: StateId) -> Option<(ChildSaId, &super::sas::Sa)> {
        let child = *self.states.get(&id)?;
        Some((child, self.sas.get(&child)?))
    }

    /// A state is gone.
    fn lost(&mut self, id: StateId) {
        let Some(child) = self.states.remove(&id) else {
            return;
        };
        if let Some(sa) = self.sas.get_mut(&child) {
            if sa.inbound == Some(id) {
                sa.inbound = None;
            } else {
                sa.outbound = None;
            }
        }
        self.events.push_back(DataPlaneEvent::HardExpired(child));
    }

    /// A state has met a soft limit. Of an inbound one, the first is one packet; the notice of that
    /// may come when the packet has been [seen](Self::seen) already.
    fn soft_limit(&mut self, id: StateId) {
        let Some((child, sa)) = self.sa_of(id) else {
            return;
        };
        if sa.inbound != Some(id) || sa.used {
            if sa.inbound != Some(id) || self.is_beyond(id, &sa.info.limits) {
                self.events.push_back(DataPlaneEvent::SoftExpired(child));
            }
            return;
        }
        if let Some(sa) = self.sas.get_mut(&child) {
            sa.used = true;
        }
        self.events.push_back(DataPlaneEvent::InboundUsed(child));
        if let Err(error) = self.true_limits(child, id) {
            tracing::warn!(%error, ?id, "an inbound SA has no soft limit");
        }
    }

    /// Whether a state has met a soft limit that it is to have.
    fn is_beyond(&self, id: StateId, limits: &Limits) -> bool {
        let met = |limit: Option<u64>, count| limit.is_some_and(|limit| count >= limit);
        self.read_state(id).is_some_and(|state| {
            met(limits.soft_packets, state.packets) || met(limits.soft_bytes, state.bytes)
        })
    }

    /// Gives an inbound state the limits that it is to have.
    fn true_limits(&self, child: ChildSaId, id: StateId) -> Result<(), crate::host::xfrm::Refusal> {
        let Some(sa) = self.sas.get(&child) else {
            return Ok(());
        };
        let info = &sa.info;
        if info.limits.soft_bytes.is_none() && info.limits.soft_packets.is_none() {
            return Ok(());
        }
        let body = self.kernel.state(id)?;
        let Some(copied) = Copied::new(&body) else {
            return Ok(());
        };
        let as_is = to_us(info.path, info.encap);
        self.kernel
            .carry_out(copied.update(&as_is, Some(&info.limits)))
    }

    /// When there is something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let asked = self.asked.front().map(|(at, _)| *at);
        let waning = self.waning.front().map(|(at, _)| *at);
        let times = [asked, waning, self.leftovers.next(), self.compare_at];
        times.into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn due(&mut self, now: Instant) {
        while let Some((at, id)) = self.waning.front().copied()
            && at <= now
        {
            self.waning.pop_front();
            self.delete_state(id);
        }
        while let Some((at, reqid)) = self.asked.front().copied()
            && at <= now
        {
            self.asked.pop_front();
            self.asking.remove(&reqid);
            if let Err(error) = self.ask_again(reqid) {
                tracing::warn!(%error, "a policy does not ask again");
            }
        }
        if let Err(error) = self.end_leftovers(now) {
            tracing::warn!(%error, "something of an earlier run stays");
        }
        if self.compare_at.is_some_and(|at| at <= now) {
            self.compare_at = None;
            if let Err(error) = self.compare() {
                tracing::error!(%error, "protection is not as it should be");
                self.compare_at = Some(now + AGAIN);
            }
        }
    }

    /// Compares the kernel with what it should be: policies are restored, and what is missing of
    /// SAs is told.
    fn compare(&mut self) -> Result<(), DataPlaneError> {
        let failed = |refusal| {
            DataPlaneError::Refused(format!("the kernel does not tell its SAs: {refusal}"))
        };
        let policies = self.kernel.policies().map_err(failed)?;
        let present: HashMap<_, _> = policies.iter().map(|p| (p.key, p.rule)).collect();
        let differ = self.spd.compare(&present);
        if !differ.is_empty() {
            let count = differ.len();
            tracing::error!(
                count,
                "somebody removed IPsec policies: what they protect could pass in clear until now; they are restored"
            );
            self.sync(&differ)?;
        }
        self.tell_foreign(policies.clone());
        let states = self.kernel.states().map_err(failed)?;
        let (policies, states) = ours(policies, states, |reqid| self.reqids.is_ours(reqid));
        let stray: BTreeSet<Key> = policies
            .iter()
            .map(|policy| policy.key)
            .filter(|key| !self.spd.wants(key))
            .collect();
        for key in stray {
            let _ = self.kernel.carry_out(key.delete());
        }
        let present: HashSet<StateId> = states.iter().map(|state| state.id).collect();
        let missing = self.states.keys().filter(|id| !present.contains(id));
        let missing: Vec<StateId> = missing.copied().collect();
        if !missing.is_empty() {
            tracing::warn!(count = missing.len(), "SAs are gone from the kernel");
        }
        for id in missing {
            self.lost(id);
        }
        let waning: HashSet<StateId> = self.waning.iter().map(|(_, id)| *id).collect();
        for state in states {
            let known = self.states.contains_key(&state.id)
                || self.leftovers.has(&state.id)
                || waning.contains(&state.id);
            if !known && state.id.spi != 0 {
                self.delete_state(state.id);
            } else if state.packets > 0 {
                self.seen(state.id);
            }
        }
        Ok(())
    }

    /// An inbound state was used, which may not have been told.
    fn seen(&mut self, id: StateId) {
        let fresh = self
            .sa_of(id)
            .is_some_and(|(_, sa)| sa.inbound == Some(id) && !sa.used);
        if fresh {
            self.soft_limit(id);
        }
    }
}
