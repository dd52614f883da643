//! The policies of an outbound worker: their SAs, what was asked for them, and what is kept
//! until it is there. All workers have the same SAs.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard};

use obol_esp::{FlowKey, Frame, Plan, SealError, Spd};
use obol_ike::config::Mode;
use obol_ike::event::ChildSaId;

use super::place::{Place, Workers};
use super::sa::{Out, Way};
use crate::dataplane::Policy;

/// Frames kept per policy until there is an SA: enough for the first of each of a few flows.
const KEPT_PACKETS: usize = 16;
/// Octets kept per policy: one frame as long as any, and some.
const KEPT_BYTES: usize = 128 << 10;
/// Milliseconds after which a kept frame is of no use to anyone.
const KEPT_FOR: u64 = 10_000;
/// Milliseconds until the same is asked for again.
const ASK_AGAIN: u64 = 1_000;
/// Pairs of hosts asked for at a time per policy.
const ASKED_MAX: usize = 64;

/// Whom a question was about, in a policy that spans several pairs of hosts.
type Hosts = Option<(IpAddr, IpAddr)>;

/// All policies of a worker.
pub(super) struct Policies {
    place: Place,
    spd: Spd<usize>,
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
}

/// A policy and the state of its packets.
pub(super) struct Entry {
    policy: Policy,
    /// The one to use first comes first.
    lanes: Vec<Lane>,
    asked: Vec<(Hosts, u64)>,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
}

/// SAs with the same selectors, newest first. There are several in a rekey, and where there is one for
/// each queue.
struct Lane {
    ways: Vec<Arc<Way>>,
    /// The workers that have one of these.
    served: Workers,
    /// The one that this worker uses.
    used: Arc<Way>,
}

/// An SA that carries a frame.
pub(super) struct Found<'a> {
    /// The SA, which no other worker uses meanwhile.
    pub(super) out: MutexGuard<'a, Out>,
    /// How the frame is carried.
    pub(super) plan: Result<Plan, SealError>,
    /// Other workers use it too. So that packets are on their way in the order of their sequence
    /// numbers, which not every peer's replay window would make up for, they are sent while the SA is
    /// held.
    pub(super) shared: bool,
}

struct Kept {
    flow: FlowKey,
    octets: Vec<u8>,
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
            spd: Spd::new(),
            entries: Vec::new(),
            by_name: HashMap::new(),
            orphans: Vec::new(),
            places: HashMap::new(),
            owned: vec![0; Place::MOST],
            active: Workers::default().with(0),
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
    pub(super) fn replace(&mut self, wanted: Vec<(Policy, Vec<obol_esp::Selector>)>) {
        let mut old: HashMap<(String, String), Vec<Entry>> = HashMap::new();
        for entry in std::mem::take(&mut self.entries) {
            old.entry(entry.name()).or_default().push(entry);
        }
        let mut sas: Vec<Arc<Way>> = std::mem::take(&mut self.orphans);
        self.spd = Spd::new();
        self.by_name.clear();
        self.places.clear();
        self.owned.fill(0);
        for (policy, selectors) in wanted {
            let index = self.entries.len();
            let children = self.by_name.entry(policy.connection.clone()).or_default();
            children.entry(policy.child.clone()).or_insert(index);
            for selector in selectors {
                self.spd.insert(selector, index);
            }
            let name = (policy.connection.clone(), policy.child.clone());
            let same = old.get_mut(&name).and_then(|entries| {
                let at = entries.iter().position(|entry| entry.policy == policy)?;
                Some(entries.swap_remove(at))
            });
            let entry = same.unwrap_or_else(|| Entry::new(policy));
            for way in entry.lanes.iter().flat_map(|lane| &lane.ways) {
                self.places.insert(way.id, Some(index));
                self.owned[self.place.of_queue(way.queue)] += 1;
            }
            self.entries.push(entry);
        }
        let gone = old.into_values().flatten();
        let lanes = gone.flat_map(|entry| entry.lanes);
        sas.extend(lanes.flat_map(|lane| lane.ways));
        for sa in sas.into_iter().rev() {
            self.adopt(sa);
        }
        self.active = (0..Place::MOST)
            .filter(|worker| *worker == 0 || self.owned[*worker] > 0)
            .fold(Workers::default(), Workers::with);
    }

    /// The policy for a packet.
    pub(super) fn lookup(&mut self, flow: &FlowKey) -> Option<&mut Entry> {
        let index = *self.spd.lookup(flow)?;
        self.entries.get_mut(index)
    }

    /// Takes an SA in, before all others of its policy, in place of the one that it replaces.
    /// The frames that waited for it come back.
    pub(super) fn take_in(&mut self, sa: Arc<Way>, now: u64) -> Vec<Vec<u8>> {
        let replaced = sa.replaces;
        let adopted = self.adopt(sa);
        if let Some(old) = replaced {
            self.remove(old);
        }
        let Some(index) = adopted else {
            return Vec::new();
        };
        self.entries[index].release(now)
    }

    /// An SA by its name.
    pub(super) fn way(&self, id: ChildSaId) -> Option<&Arc<Way>> {
        let mut ways = match *self.places.get(&id)? {
            Some(index) => self.entries.get(index)?.ways(),
            None => return self.orphans.iter().find(|way| way.id == id),
        };
        ways.find(|way| way.id == id)
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
        if let Some(queue) = entry.remove(id, self.place) {
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
        entry.insert(sa, self.place);
        index
    }
}

impl Lane {
    /// Of SAs of which there is at least one.
    fn new(ways: Vec<Arc<Way>>, place: Place) -> Option<Self> {
        let queues = ways.iter().map(|way| place.of_queue(way.queue));
        let served = queues.fold(Workers::default(), Workers::with);
        let is_own = |way: &&Arc<Way>| place.of_queue(way.queue) == place.own();
        // Who has none uses the one that all others without would use.
        let own = ways.iter().find(is_own);
        let used = own.or_else(|| ways.iter().min_by_key(|way| way.queue))?;
        Some(Self {
            served,
            used: Arc::clone(used),
            ways,
        })
    }
}

impl Entry {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            lanes: Vec::new(),
            asked: Vec::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    fn name(&self) -> (String, String) {
        (self.policy.connection.clone(), self.policy.child.clone())
    }

    /// The policy.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    fn ways(&self) -> impl Iterator<Item = &Arc<Way>> {
        self.lanes.iter().flat_map(|lane| &lane.ways)
    }

    /// Takes an SA in, before all others.
    fn insert(&mut self, sa: Arc<Way>, place: Place) {
        let same = |lane: &Lane| lane.used.selectors == sa.selectors;
        let lane = self.lanes.iter().position(same);
        let mut ways = lane.map_or_else(Vec::new, |lane| self.lanes.remove(lane).ways);
        ways.insert(0, sa);
        self.lanes.splice(0..0, Lane::new(ways, place));
    }

    /// Forgets an SA; the queue that it was for.
    fn remove(&mut self, id: ChildSaId, place: Place) -> Option<u16> {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let Some(found) = lane.ways.iter().position(|way| way.id == id) else {
                continue;
            };
            let queue = lane.ways.remove(found).queue;
            let rest = Lane::new(std::mem::take(&mut lane.ways), place);
            self.lanes.splice(index..=index, rest);
            return Some(queue);
        }
        None
    }

    /// The SA that carries the frame, and is this worker's to use among `users`; `None`: there is
    /// none.
    pub(super) fn sa_for(&self, frame: &Frame<'_>, users: Workers) -> Option<Found<'_>> {
        self.lanes.iter().find_map(|lane| {
            let out = lane.used.lock()?;
            match out.sa.plan(frame) {
                Err(SealError::Selector) => None,
                plan => Some(Found {
                    out,
                    plan,
                    shared: !lane.served.has_all(users),
                }),
            }
        })
    }

    /// What to do with a frame that has no SA; keeps it, as it came from the device, if it is not to
    /// leave in clear, and there is room.
    pub(super) fn without_sa(&mut self, flow: &FlowKey, octets: &[u8], now: u64) -> Verdict {
        let trap = self.policy.trap;
        let ask = trap && self.ask(flow, now);
        let fate = if self.policy.clear.now {
            Fate::Clear
        } else if trap && self.keep(flow, octets, now) {
            Fate::Kept
        } else {
            Fate::Dropped
        };
        Verdict { ask, fate }
    }

    fn ask(&mut self, flow: &FlowKey, now: u64) -> bool {
        let hosts = self.is_wide().then_some((flow.source, flow.destination));
        self.asked
            .retain(|(_, at)| now.saturating_sub(*at) < ASK_AGAIN);
        let known = self.asked.iter().any(|(asked, _)| *asked == hosts);
        if known || self.asked.len() >= ASKED_MAX {
            return false;
        }
        self.asked.push((hosts, now));
        true
    }

    /// Whether each pair of hosts needs an SA of its own: transport mode between networks.
    fn is_wide(&self) -> bool {
        let mut selectors = self.policy.local_ts.iter().chain(&self.policy.remote_ts);
        self.policy.mode == Mode::Transport && selectors.any(|ts| ts.start != ts.end)
    }

    fn keep(&mut self, flow: &FlowKey, octets: &[u8], now: u64) -> bool {
        while let Some(first) = self.kept.front() {
            if now.saturating_sub(first.since) < KEPT_FOR {
                break;
            }
            self.kept_bytes -= first.octets.len();
            self.kept.pop_front();
        }
        if self.kept.len() >= KEPT_PACKETS || self.kept_bytes + octets.len() > KEPT_BYTES {
            return false;
        }
        self.kept_bytes += octets.len();
        self.kept.push_back(Kept {
            flow: *flow,
            octets: octets.to_vec(),
            since: now,
        });
        true
    }

    /// Gives back what the SAs carry and what is not too old; the rest stays.
    fn release(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut released = Vec::new();
        let mut stay = VecDeque::new();
        for kept in std::mem::take(&mut self.kept) {
            if now.saturating_sub(kept.since) >= KEPT_FOR {
                continue;
            }
            let carries = |way: &Arc<Way>| way.lock().is_some_and(|out| out.sa.carries(&kept.flow));
            if self.lanes.iter().any(|lane| carries(&lane.used)) {
                released.push(kept.octets);
            } else {
                stay.push_back(kept);
            }
        }
        self.kept_bytes = stay.iter().map(|kept| kept.octets.len()).sum();
        self.kept = stay;
        self.asked.clear();
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_ike::ts::TrafficSelector;

    fn entry(mode: Mode, wide: bool, trap: bool) -> Entry {
        let ts = |last: [u8; 4]| TrafficSelector {
            protocol: 0,
            start_port: 0,
            end_port: u16::MAX,
            start: IpAddr::from([10, 0, 0, 1]),
            end: IpAddr::from(if wide { last } else { [10, 0, 0, 1] }),
        };
        Entry::new(Policy {
            connection: "c".into(),
            child: "d".into(),
            mode,
            local_ts: vec![ts([10, 0, 0, 9])],
            remote_ts: vec![ts([10, 0, 0, 9])],
            trap,
            pass: false,
            narrower: false,
            clear: Default::default(),
            kernel: crate::dataplane::KernelOptions::default(),
        })
    }

    fn flow(last: u8) -> FlowKey {
        FlowKey {
            source: IpAddr::from([10, 0, 0, 1]),
            destination: IpAddr::from([10, 0, 0, last]),
            protocol: 17,
            source_port: 1,
            destination_port: 2,
            fragment: false,
            ports_known: true,
        }
    }

    #[test]
    fn the_same_is_asked_once_a_second() {
        let mut entry = entry(Mode::Tunnel, true, true);
        let mut ask = |last, now| entry.without_sa(&flow(last), b"packet", now).ask;
        assert!(ask(2, 1));
        assert!(!ask(2, 2) && !ask(3, 1000));
        assert!(ask(2, 1001));
    }

    #[test]
    fn each_pair_of_hosts_is_asked_for_in_transport_mode_between_networks() {
        let mut wide = entry(Mode::Transport, true, true);
        assert!(wide.without_sa(&flow(2), b"packet", 1).ask);
        assert!(wide.without_sa(&flow(3), b"packet", 1).ask);
        assert!(!wide.without_sa(&flow(3), b"packet", 2).ask);
        let asked = (4..=255).filter(|last| wide.without_sa(&flow(*last), b"", 3).ask);
        assert_eq!(asked.count(), ASKED_MAX - 2);
        let mut narrow = entry(Mode::Transport, false, true);
        assert!(narrow.without_sa(&flow(2), b"packet", 1).ask);
        assert!(!narrow.without_sa(&flow(3), b"packet", 1).ask);
    }

    #[test]
    fn a_policy_that_only_blocks_neither_asks_nor_keeps() {
        let verdict = entry(Mode::Tunnel, true, false).without_sa(&flow(2), b"packet", 1);
        assert_eq!((verdict.ask, verdict.fate), (false, Fate::Dropped));
    }

    #[test]
    fn a_policy_that_lets_packets_pass_in_clear_asks_and_keeps_nothing() {
        let mut open = entry(Mode::Transport, true, true);
        open.policy.clear.now = true;
        let verdict = open.without_sa(&flow(2), b"packet", 1);
        assert_eq!((verdict.ask, verdict.fate), (true, Fate::Clear));
        let verdict = open.without_sa(&flow(2), b"packet", 2);
        assert_eq!((verdict.ask, verdict.fate), (false, Fate::Clear));
        open.policy.trap = false;
        let verdict = open.without_sa(&flow(3), b"packet", 3);
        assert_eq!((verdict.ask, verdict.fate), (false, Fate::Clear));
        assert!(open.kept.is_empty());
    }

    #[test]
    fn few_packets_and_few_octets_are_kept_and_not_for_long() {
        let kept = |verdict: Verdict| verdict.fate == Fate::Kept;
        let mut many = entry(Mode::Tunnel, true, true);
        let first = (0..100).filter(|_| kept(many.without_sa(&flow(2), b"packet", 1)));
        assert_eq!(first.count(), KEPT_PACKETS);
        assert!(!kept(many.without_sa(&flow(2), b"packet", KEPT_FOR)));
        assert!(kept(many.without_sa(&flow(2), b"packet", KEPT_FOR + 1)));
        assert_eq!((many.kept.len(), many.kept_bytes), (1, 6));

        let mut long = entry(Mode::Tunnel, true, true);
        let packet = vec![0; 60_000];
        let first = (0..100).filter(|_| kept(long.without_sa(&flow(2), &packet, 1)));
        assert_eq!(first.count(), 2);
    }
}
