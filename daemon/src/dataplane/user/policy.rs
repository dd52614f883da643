//! The policies of the outbound worker: their SAs, what was asked for them, and what is kept
//! until it is there.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use obol_esp::{FlowKey, Frame, Plan, SealError, Spd};
use obol_ike::config::Mode;
use obol_ike::event::ChildSaId;

use super::sa::Out;
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

/// All policies of the worker.
#[derive(Default)]
pub(super) struct Policies {
    spd: Spd<usize>,
    entries: Vec<Entry>,
    /// Connection -> child -> index of its policy.
    by_name: HashMap<String, HashMap<String, usize>>,
    /// SAs of no policy.
    orphans: Vec<Out>,
    /// SA -> index of its policy, if it has one.
    places: HashMap<ChildSaId, Option<usize>>,
}

/// A policy and the state of its packets.
pub(super) struct Entry {
    policy: Policy,
    /// The one to use first comes first.
    sas: Vec<Out>,
    asked: Vec<(Hosts, u64)>,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
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
    /// Whether the frame is kept.
    pub(super) kept: bool,
}

impl Policies {
    /// Replaces all policies; SAs stay with the policy of their names.
    pub(super) fn replace(&mut self, wanted: Vec<(Policy, Vec<obol_esp::Selector>)>) {
        let mut old = std::mem::take(&mut self.entries);
        let mut sas: Vec<Out> = std::mem::take(&mut self.orphans);
        self.spd = Spd::new();
        self.by_name.clear();
        self.places.clear();
        for (policy, selectors) in wanted {
            let index = self.entries.len();
            let children = self.by_name.entry(policy.connection.clone()).or_default();
            children.entry(policy.child.clone()).or_insert(index);
            for selector in selectors {
                self.spd.insert(selector, index);
            }
            let same = old.iter().position(|entry| entry.policy == policy);
            let entry = match same {
                Some(same) => old.swap_remove(same),
                None => Entry::new(policy),
            };
            let ids = entry.sas.iter().map(|sa| sa.id);
            self.places.extend(ids.map(|id| (id, Some(index))));
            self.entries.push(entry);
        }
        sas.extend(old.into_iter().flat_map(|entry| entry.sas));
        for sa in sas.into_iter().rev() {
            self.adopt(sa);
        }
    }

    /// The policy for a packet.
    pub(super) fn lookup(&mut self, flow: &FlowKey) -> Option<&mut Entry> {
        let index = *self.spd.lookup(flow)?;
        self.entries.get_mut(index)
    }

    /// Takes an SA in, before all others of its policy, in place of the one that it replaces.
    /// The frames that waited for it come back.
    pub(super) fn take_in(&mut self, sa: Out, now: u64) -> Vec<Vec<u8>> {
        if let Some(old) = sa.replaces {
            self.remove(old);
        }
        let Some(index) = self.adopt(sa) else {
            return Vec::new();
        };
        self.entries[index].release(now)
    }

    /// An SA by its name.
    pub(super) fn sa_mut(&mut self, id: ChildSaId) -> Option<&mut Out> {
        let place = *self.places.get(&id)?;
        self.list(place)?.iter_mut().find(|sa| sa.id == id)
    }

    /// Forgets an SA; whether it was there.
    pub(super) fn remove(&mut self, id: ChildSaId) -> bool {
        let place = self.places.remove(&id);
        let list = place.and_then(|place| self.list(place));
        list.is_some_and(|list| {
            let before = list.len();
            list.retain(|sa| sa.id != id);
            list.len() != before
        })
    }

    fn adopt(&mut self, sa: Out) -> Option<usize> {
        let children = self.by_name.get(&sa.connection);
        let index = children.and_then(|children| children.get(&sa.child).copied());
        // The same one again takes its own place.
        self.remove(sa.id);
        self.places.insert(sa.id, index);
        self.list(index)?.insert(0, sa);
        index
    }

    /// The SAs of a policy, or those of none.
    fn list(&mut self, index: Option<usize>) -> Option<&mut Vec<Out>> {
        match index {
            Some(index) => self.entries.get_mut(index).map(|entry| &mut entry.sas),
            None => Some(&mut self.orphans),
        }
    }
}

impl Entry {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            sas: Vec::new(),
            asked: Vec::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    /// The policy.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The first SA that carries the frame, with how it does; `None`: there is none.
    pub(super) fn sa_for(
        &mut self,
        frame: &Frame<'_>,
    ) -> Option<(&mut Out, Result<Plan, SealError>)> {
        self.sas
            .iter_mut()
            .find_map(|out| match out.sa.plan(frame) {
                Err(SealError::Selector) => None,
                plan => Some((out, plan)),
            })
    }

    /// What to do with a frame that has no SA; keeps it, as it came from the device, if there is
    /// room.
    pub(super) fn without_sa(&mut self, flow: &FlowKey, octets: &[u8], now: u64) -> Verdict {
        if !self.policy.trap {
            return Verdict {
                ask: false,
                kept: false,
            };
        }
        let ask = self.ask(flow, now);
        let kept = self.keep(flow, octets, now);
        Verdict { ask, kept }
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
            if self.sas.iter().any(|sa| sa.sa.carries(&kept.flow)) {
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
        assert_eq!((verdict.ask, verdict.kept), (false, false));
    }

    #[test]
    fn few_packets_and_few_octets_are_kept_and_not_for_long() {
        let mut many = entry(Mode::Tunnel, true, true);
        let kept = (0..100).filter(|_| many.without_sa(&flow(2), b"packet", 1).kept);
        assert_eq!(kept.count(), KEPT_PACKETS);
        assert!(!many.without_sa(&flow(2), b"packet", KEPT_FOR).kept);
        assert!(many.without_sa(&flow(2), b"packet", KEPT_FOR + 1).kept);
        assert_eq!((many.kept.len(), many.kept_bytes), (1, 6));

        let mut long = entry(Mode::Tunnel, true, true);
        let packet = vec![0; 60_000];
        let kept = (0..100).filter(|_| long.without_sa(&flow(2), &packet, 1).kept);
        assert_eq!(kept.count(), 2);
    }
}
