//! The policies of an outbound worker: their SAs, what was asked for them, and what is kept
//! until it is there. All workers have the same SAs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use obol_esp::{FlowKey, Frame, Selector, Spd};
use obol_ike::config::Mode;
use obol_ike::event::ChildSaId;
use obol_ike::ts::TrafficSelector;

use super::lanes::{Found, Lanes};
use super::place::{Place, Workers};
use super::sa::Way;
use super::waiting::{Kept, Waiting, Whom};
use crate::dataplane::Policy;

/// Milliseconds until the same is asked for again.
const ASK_AGAIN: u64 = 1_000;
/// Pairs of hosts of a policy that are asked for at once: some program may ask for a whole network.
const ASKED_AT_ONCE: u32 = 1024;
/// Milliseconds after which one more may be asked for.
const ASKED_EVERY: u64 = 16;

/// So many selectors are added one by one before they are sorted in among the others.
const ADDED_MAX: usize = 256;

/// Whom a question was about, in a policy that spans several pairs of hosts.
type Hosts = Option<(IpAddr, IpAddr)>;

/// All policies of a worker.
pub(super) struct Policies {
    place: Place,
    spd: Spd<usize>,
    /// Of those that were added since: none of their packets are in the other one.
    added: Spd<usize>,
    entries: Vec<Entry>,
    /// Connection -> child -> index of its policy.
    by_name: HashMap<String, HashMap<String, usize>>,
    /// SAs of no policy.
    orphans: Vec<Arc<Way>>,
    /// SA -> index of its policy, if it has one.
    places: HashMap<ChildSaId, Option<usize>>,
    /// How many SAs of policies each worker has.
    owned: Vec<usize>,
    /// Those that have any, and the first.
    active: Workers,
    waiting: Waiting,
    /// Policies so far: each has a number of its own.
    numbers: u64,
}

/// A policy, its SAs and what was asked for it.
pub(super) struct Entry {
    number: u64,
    policy: Policy,
    lanes: Lanes,
    asked: Asked,
}

/// What was asked for, so that nothing is asked for by every packet, and nobody asks for too much.
struct Asked {
    at: HashMap<Hosts, u64>,
    /// How many more may be asked for now.
    left: u32,
    /// Since when there are so many.
    since: u64,
}

/// What to do with a frame that has a policy and no SA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Verdict {
    /// Whether to ask for an SA.
    pub(super) ask: bool,
    /// What becomes of the frame.
    pub(super) fate: Fate,
}

/// What becomes of a frame without SA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It waits for the SA.
    Kept,
    /// It is lost.
    Dropped,
    /// It leaves in clear.
    Clear,
}

impl Policies {
    /// None, for the worker of this place.
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            spd: Spd::default(),
            added: Spd::default(),
            entries: Vec::new(),
            by_name: HashMap::new(),
            orphans: Vec::new(),
            places: HashMap::new(),
            owned: vec![0; Place::MOST],
            active: Workers::default().with(0),
            waiting: Waiting::default(),
            numbers: 0,
        }
    }

    /// Whether packets are to come to this worker: to those that have an SA of their own, and the
    /// first.
    pub(super) fn is_active(&self) -> bool {
        self.active.has(self.place.own())
    }

    /// The workers that may have something to send, this one included.
    pub(super) fn users(&self) -> Workers {
        self.active.with(self.place.own())
    }

    /// Replaces all policies; SAs stay with the policy of their names.
    pub(super) fn replace(&mut self, wanted: Vec<(Policy, Vec<Selector>)>) {
        let mut old: HashMap<(String, String), Vec<Entry>> = HashMap::new();
        for entry in std::mem::take(&mut self.entries) {
            old.entry(entry.name()).or_default().push(entry);
        }
        let mut sas: Vec<Arc<Way>> = std::mem::take(&mut self.orphans);
        let mut by_selector = Vec::with_capacity(wanted.len());
        self.by_name.clear();
        self.places.clear();
        self.owned.fill(0);
        for (policy, selectors) in wanted {
            let index = self.entries.len();
            let children = self.by_name.entry(policy.connection.clone()).or_default();
            children.entry(policy.child.clone()).or_insert(index);
            by_selector.extend(selectors.into_iter().map(|selector| (selector, index)));
            let name = (policy.connection.clone(), policy.child.clone());
            let same = old.get_mut(&name).and_then(|entries| {
                let at = entries.iter().position(|entry| entry.policy == policy)?;
                Some(entries.swap_remove(at))
            });
            let entry = same.unwrap_or_else(|| {
                self.numbers += 1;
                Entry::new(self.numbers, policy)
            });
            for way in entry.lanes.ways() {
                self.places.insert(way.id, Some(index));
                self.owned[self.place.of_queue(way.queue)] += 1;
            }
            self.entries.push(entry);
        }
        self.spd = by_selector.into_iter().collect();
        self.added = Spd::default();
        let stay: HashSet<u64> = self.entries.iter().map(|entry| entry.number).collect();
        self.waiting.retain(|policy| stay.contains(&policy));
        for entry in old.into_values().flatten() {
            sas.extend(entry.lanes.ways().cloned());
        }
        for sa in sas.into_iter().rev() {
            self.adopt(sa);
        }
        self.active = (0..Place::MOST)
            .filter(|worker| *worker == 0 || self.owned[*worker] > 0)
            .fold(Workers::default(), Workers::with);
    }

    /// Adds policies that have no packets in common with those before, so that their order does not count.
    pub(super) fn add(&mut self, more: Vec<(Policy, Vec<Selector>)>) {
        let mut by_selector = Vec::new();
        for (policy, selectors) in more {
            let index = self.entries.len();
            let children = self.by_name.entry(policy.connection.clone()).or_default();
            children.entry(policy.child.clone()).or_insert(index);
            by_selector.extend(selectors.into_iter().map(|selector| (selector, index)));
            self.numbers += 1;
            self.entries.push(Entry::new(self.numbers, policy));
        }
        let of = |spd: &Spd<usize>| -> Vec<(Selector, usize)> {
            spd.iter()
                .map(|(selector, index)| (*selector, *index))
                .collect()
        };
        if self.added.len() < ADDED_MAX {
            by_selector.splice(0..0, of(&self.added));
            self.added = by_selector.into_iter().collect();
        } else {
            let all = of(&self.spd).into_iter().chain(of(&self.added));
            self.spd = all.chain(by_selector).collect();
            self.added = Spd::default();
        }
        for sa in std::mem::take(&mut self.orphans).into_iter().rev() {
            self.adopt(sa);
        }
    }

    /// The policy for a packet.
    pub(super) fn lookup(&self, flow: &FlowKey) -> Option<&Entry> {
        self.entries.get(self.index(flow)?)
    }

    fn index(&self, flow: &FlowKey) -> Option<usize> {
        let found = self.spd.lookup(flow);
        found.or_else(|| self.added.lookup(flow)).copied()
    }

    /// What to do with a frame that has no SA; keeps it, as it came from the device, if it is not to
    /// leave in clear, and there is room.
    pub(super) fn without_sa(&mut self, flow: &FlowKey, octets: &[u8], now: u64) -> Verdict {
        let index = self.index(flow);
        let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) else {
            return Verdict {
                ask: false,
                fate: Fate::Dropped,
            };
        };
        let trap = entry.policy.trap;
        let whom = entry.whom((flow.source, flow.destination));
        let ask = trap && entry.asked.ask(whom.hosts, now);
        // Most of what passes in any case does not come here: routing rules see to it where they can.
        let fate = if entry.policy.pass || entry.policy.clear.now {
            Fate::Clear
        } else if trap && self.waiting.keep(whom, flow, octets, now) {
            Fate::Kept
        } else {
            Fate::Dropped
        };
        Verdict { ask, fate }
    }

    /// Frames that have waited for an SA in vain, since the last time.
    pub(super) fn take_lost(&mut self) -> u64 {
        self.waiting.take_lost()
    }

    /// Takes an SA in, before all others of its policy, in place of the one that it replaces.
    /// The frames that waited for it come back.
    pub(super) fn take_in(&mut self, sa: Arc<Way>, now: u64) -> Vec<Vec<u8>> {
        let (replaced, hosts) = (sa.replaces, sa.hosts());
        let adopted = self.adopt(sa);
        if let Some(old) = replaced {
            self.remove(old);
        }
        let Some(index) = adopted else {
            return Vec::new();
        };
        self.release(index, hosts, now)
    }

    /// Gives back what waited for an SA between these hosts, as far as there is one that carries it. The rest
    /// goes on waiting, and is asked for anew.
    fn release(&mut self, index: usize, hosts: Hosts, now: u64) -> Vec<Vec<u8>> {
        let entry = &mut self.entries[index];
        let all = match hosts {
            Some(hosts) => vec![entry.whom(hosts)],
            None => {
                entry.asked.at.clear();
                self.waiting.of_policy(entry.number)
            }
        };
        let mut released = Vec::new();
        for whom in all {
            let waited = self.waiting.take(whom, now).into_iter();
            let (go, wait): (VecDeque<Kept>, VecDeque<Kept>) =
                waited.partition(|kept| entry.lanes.carries(&kept.flow));
            released.extend(go.into_iter().map(|kept| kept.octets));
            self.waiting.put_back(whom, wait);
            entry.asked.forget(whom.hosts);
        }
        released
    }

    /// An SA by its name.
    pub(super) fn way(&self, id: ChildSaId) -> Option<&Arc<Way>> {
        match *self.places.get(&id)? {
            Some(index) => self.entries.get(index)?.lanes.way(id),
            None => self.orphans.iter().find(|way| way.id == id),
        }
    }

    /// Forgets an SA; whether it was there.
    pub(super) fn remove(&mut self, id: ChildSaId) -> bool {
        let Some(place) = self.places.remove(&id) else {
            return false;
        };
        let Some(entry) = place.and_then(|index| self.entries.get_mut(index)) else {
            self.orphans.retain(|way| way.id != id);
            return true;
        };
        if let Some(queue) = entry.lanes.remove(id, self.place) {
            let worker = self.place.of_queue(queue);
            self.owned[worker] -= 1;
            if self.owned[worker] == 0 && worker != 0 {
                self.active = self.active.without(worker);
            }
        }
        true
    }

    fn adopt(&mut self, sa: Arc<Way>) -> Option<usize> {
        let children = self.by_name.get(&sa.connection);
        let index = children.and_then(|children| children.get(&sa.child).copied());
        // The same one again takes its own place.
        self.remove(sa.id);
        self.places.insert(sa.id, index);
        let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) else {
            self.orphans.insert(0, sa);
            return None;
        };
        let worker = self.place.of_queue(sa.queue);
        self.owned[worker] += 1;
        self.active = self.active.with(worker);
        entry.lanes.insert(sa, self.place);
        index
    }
}

impl Entry {
    fn new(number: u64, policy: Policy) -> Self {
        Self {
            number,
            policy,
            lanes: Lanes::default(),
            asked: Asked {
                at: HashMap::new(),
                left: ASKED_AT_ONCE,
                since: 0,
            },
        }
    }

    fn name(&self) -> (String, String) {
        (self.policy.connection.clone(), self.policy.child.clone())
    }

    /// The policy.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The SA that carries the frame, and is this worker's to use among `users`; `None`: there is
    /// none.
    pub(super) fn sa_for(&self, frame: &Frame<'_>, users: Workers) -> Option<Found<'_>> {
        self.lanes.sa_for(frame, users)
    }

    /// What packets between these hosts wait for.
    fn whom(&self, hosts: (IpAddr, IpAddr)) -> Whom {
        Whom {
            policy: self.number,
            hosts: self.is_wide().then_some(hosts),
        }
    }

    /// Whether each pair of hosts needs an SA of its own: transport mode between networks.
    fn is_wide(&self) -> bool {
        let mut selectors = self.policy.local_ts.iter().chain(&self.policy.remote_ts);
        let wide = |ts: &TrafficSelector| ts.start != ts.end;
        self.policy.mode == Mode::Transport && selectors.any(wide)
    }
}

impl Asked {
    /// Whether to ask, and so it is asked.
    fn ask(&mut self, hosts: Hosts, now: u64) -> bool {
        let fresh = |at: u64| now.saturating_sub(at) < ASK_AGAIN;
        if self.at.get(&hosts).is_some_and(|at| fresh(*at)) {
            return false;
        }
        let more = now.saturating_sub(self.since) / ASKED_EVERY;
        self.since += more * ASKED_EVERY;
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(more).min(ASKED_AT_ONCE);
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        // No more than that are fresh.
        if self.at.len() >= 2 * ASKED_AT_ONCE as usize {
            self.at.retain(|_, at| fresh(*at));
        }
        self.at.insert(hosts, now);
        true
    }

    /// It may be asked for at once.
    fn forget(&mut self, hosts: Hosts) {
        self.at.remove(&hosts);
    }
}

#[cfg(test)]
mod tests;
