//! What an earlier run left in the kernel: its SAs go on with their policies until new ones stand,
//! or it is clear that none will.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::bases::NEIGHBOURS;
use super::core::Core;
use super::cover::Cover;
use crate::dataplane::{DRAIN, DataPlaneError};
use crate::host::xfrm::{Key, Policy, Scope, State, StateId, Template, Xfrm};

/// For so long SAs of an earlier run go on while there is no new one: a peer that is to be reached
/// is up by then, and one that asks for nothing has lost them when it asks again.
const AT_MOST: Duration = Duration::from_secs(30);

/// States of an earlier run.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// With what ties them to policies.
    states: HashMap<StateId, u32>,
    /// And by that, also those that are gone.
    by_reqid: HashMap<u32, Vec<StateId>>,
    /// Where the policies of a request ID are, or were.
    places: HashMap<u32, Vec<Key>>,
    /// Request IDs whose states go then.
    ends: BTreeSet<(Instant, u32)>,
    /// Request IDs that new SAs have taken over.
    adopted: HashSet<u32>,
    /// When the rest goes.
    over: Option<Instant>,
}

impl Leftovers {
    /// When there is something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = self.ends.first().map(|(at, _)| *at);
        first.into_iter().chain(self.over).min()
    }

    /// Whether nothing of an earlier run goes on.
    pub(super) fn are_over(&self) -> bool {
        self.states.is_empty() && self.ends.is_empty() && self.over.is_none()
    }

    /// Whether this state is one of them.
    pub(super) fn has(&self, id: &StateId) -> bool {
        self.states.contains_key(id)
    }
}

impl<K: Xfrm> Core<K> {
    /// Finds what is ours.
    pub(super) fn adopt(&mut self) -> Result<(), DataPlaneError> {
        let failed = |refusal| {
            DataPlaneError::Refused(format!("the kernel does not tell its SAs: {refusal}"))
        };
        let states = self.kernel.states().map_err(failed)?;
        let (policies, states) = ours(self.kernel.policies().map_err(failed)?, states, |reqid| {
            self.reqids.is_ours(reqid)
        });
        for policy in &policies {
            self.spd.adopt(policy);
            if let Some(Template { reqid, .. }) = policy.rule.template {
                self.reqids.claim(reqid);
                let places = self.leftovers.places.entry(reqid).or_default();
                places.push(policy.key);
            }
            if let Some(reqid) = policy.rule.pass {
                self.reqids.claim(reqid);
            }
        }
        // States that ask for an SA, and have no SPI, go by themselves.
        let named = states.iter().filter(|state| state.id.spi != 0);
        for state in named {
            self.leftovers.states.insert(state.id, state.reqid);
            let same = self.leftovers.by_reqid.entry(state.reqid).or_default();
            same.push(state.id);
        }
        for state in &states {
            self.reqids.claim(state.reqid);
        }
        if !self.leftovers.states.is_empty() {
            let count = self.leftovers.states.len();
            tracing::info!(
                count,
                "SAs of an earlier run go on until there are new ones"
            );
        }
        Ok(())
    }

    /// Once the policies are known: policies without SA, and those that no policy of the
    /// configuration covers, are not kept. Where they are, and where others change.
    pub(super) fn sort_leftovers(&mut self, now: Instant) -> BTreeSet<Key> {
        let alive: HashSet<u32> = self.leftovers.states.values().copied().collect();
        let mut kept = HashSet::new();
        let mut forgotten = BTreeSet::new();
        let old: Vec<_> = self.spd.all_old().collect();
        if old.is_empty() && alive.is_empty() {
            return forgotten;
        }
        let cover = Cover::of(self.bases.rules().map(|(key, _)| key));
        for (key, rule) in old {
            let reqid = rule.template.map(|template| template.reqid);
            match reqid.filter(|reqid| alive.contains(reqid) && cover.holds(&key)) {
                Some(reqid) => {
                    kept.insert(reqid);
                    // Whether packets pass in clear is for the configuration of now to say.
                    if self.spd.make_old_strict(&key) {
                        forgotten.insert(key);
                    }
                }
                None => {
                    self.spd.forget_old(&key);
                    forgotten.insert(key);
                    if let Some(reqid) = reqid.filter(|reqid| !alive.contains(reqid)) {
                        self.reqids.free(reqid);
                    }
                }
            }
        }
        // Those that a new SA has succeeded wane, whatever the policies are by now.
        let ending: HashSet<u32> = self.leftovers.ends.iter().map(|(_, own)| *own).collect();
        let unwanted = alive
            .into_iter()
            .filter(|reqid| !kept.contains(reqid) && !ending.contains(reqid));
        self.leftovers
            .ends
            .extend(unwanted.map(|reqid| (now, reqid)));
        if !kept.is_empty() {
            self.leftovers.over.get_or_insert(now + AT_MOST);
        }
        forgotten
    }

    /// The request ID of SAs that were left, and whose policies are these.
    pub(super) fn left_reqid(&mut self, keys: impl Iterator<Item = Key>) -> Option<u32> {
        let olds = keys.map(|key| self.spd.old(&key)?.template.map(|template| template.reqid));
        let reqid = olds.reduce(|one, other| one.filter(|_| one == other))??;
        self.leftovers.adopted.insert(reqid).then_some(reqid)
    }

    /// No new SA has this request ID any more. It is free, unless states have it that were left: then with
    /// the last of them.
    pub(super) fn give_back(&mut self, reqid: u32) {
        if self.leftovers.by_reqid.contains_key(&reqid) {
            self.leftovers.adopted.remove(&reqid);
        } else {
            self.reqids.free(reqid);
        }
    }

    /// A new SA has taken the place of those that were left with its request ID. It may carry less than they
    /// did: what it does not carry is as the configuration says again.
    pub(super) fn succeed(&mut self, reqid: u32, now: Instant) -> Result<(), DataPlaneError> {
        if !self.leftovers.by_reqid.contains_key(&reqid) {
            return Ok(());
        }
        self.leftovers.ends.insert((now + DRAIN, reqid));
        let places = self.leftovers.places.remove(&reqid).unwrap_or_default();
        let keys: BTreeSet<Key> = places.into_iter().collect();
        for key in &keys {
            self.spd.forget_old(key);
        }
        self.sync(&keys)
    }

    /// Removes what has had its time.
    pub(super) fn end_leftovers(&mut self, now: Instant) -> Result<(), DataPlaneError> {
        if self.leftovers.over.is_some_and(|over| over <= now) {
            self.leftovers.over = None;
            let old: BTreeSet<Key> = self.spd.all_old().map(|(key, _)| key).collect();
            for key in &old {
                self.spd.forget_old(key);
            }
            let rest: HashSet<u32> = self.leftovers.states.values().copied().collect();
            let ends = rest.into_iter().map(|reqid| (now, reqid));
            self.leftovers.ends.extend(ends);
            self.sync(&old)?;
        }
        while let Some((at, reqid)) = self.leftovers.ends.first().copied()
            && at <= now
        {
            self.leftovers.ends.pop_first();
            let Some(ids) = self.leftovers.by_reqid.remove(&reqid) else {
                continue;
            };
            for id in ids {
                self.end_leftover(id);
            }
            if !self.leftovers.adopted.remove(&reqid) {
                self.reqids.free(reqid);
            }
        }
        Ok(())
    }

    /// Removes a state that was left, if this is one.
    pub(super) fn end_leftover(&mut self, id: StateId) -> bool {
        let was = self.leftovers.states.remove(&id).is_some();
        if was {
            self.delete_state(id);
        }
        was
    }
}

/// Those of all that are of this instance.
pub(super) fn ours(
    policies: Vec<Policy>,
    states: Vec<State>,
    is_ours: impl Fn(u32) -> bool,
) -> (Vec<Policy>, Vec<State>) {
    let own = |policy: &Policy| match policy.rule.template {
        Some(template) => is_ours(template.reqid),
        None if policy.rule.pass.is_some_and(&is_ours) => true,
        None => policy.rule.priority == NEIGHBOURS && policy.key.scope == Scope::default(),
    };
    (
        policies.into_iter().filter(own).collect(),
        states
            .into_iter()
            .filter(|state| is_ours(state.reqid))
            .collect(),
    )
}
