//! What rules of the guard are about: pairs of selectors one by one, or, where thousands differ in
//! nothing but the addresses of one side, all of them by a set of addresses.

use std::collections::HashMap;
use std::net::IpAddr;

use obol_ike::ts::TrafficSelector;

use super::nft::{Base, Rule};
use super::plan::{Ordered, in_order, pairs};
use crate::dataplane::Policy;

/// From so many pairs on, they become a set.
const SET_FROM: usize = 8;

/// Packets that one rule is about.
pub(super) struct Matched<'p> {
    /// Their policy, or one of their policies: all say the same of them.
    pub(super) policy: &'p Policy,
    local: TrafficSelector,
    remote: TrafficSelector,
    /// The set that has the addresses of one side.
    set: Option<(Side, String)>,
}

/// Which side.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Side {
    Local,
    Remote,
}

/// Sets by their names.
pub(super) type Sets = Vec<(String, Vec<Range>)>;

/// What the rules for these policies are about, in the order in which they count.
pub(super) fn matched(policies: &[Policy]) -> (Vec<Matched<'_>>, Sets) {
    let (mut all, mut sets) = (Vec::new(), Vec::new());
    let ordered = in_order(policies);
    // Between two turns the same becomes of all packets, so that no order counts.
    let turns = ordered.chunk_by(|one, other| becomes(one.0) == becomes(other.0));
    for (number, turn) in turns.enumerate() {
        let ways = [Side::Remote, Side::Local].map(|side| gathered(turn, side, number));
        let [remote, local] = ways;
        let (some, their) = match local.0.len() < remote.0.len() {
            true => local,
            false => remote,
        };
        all.extend(some);
        sets.extend(their);
    }
    (all, sets)
}

/// The sets that may have the addresses of this policy's packets, and these addresses; `None`: packets of
/// this kind are in none.
pub(super) fn sets_of(policy: &Policy) -> Option<Vec<[(String, Range); 2]>> {
    let pairs = pairs(&policy.local_ts, &policy.remote_ts).into_iter();
    let of_pair = |(local, remote): (TrafficSelector, TrafficSelector)| {
        let pair = (policy, local, remote, 0);
        let range = |ts: TrafficSelector| (ts.start, ts.end);
        [
            (name(&key(&pair, Side::Remote), 0), range(remote)),
            (name(&key(&pair, Side::Local), 0), range(local)),
        ]
    };
    is_plain(policy).then(|| pairs.map(of_pair).collect())
}

/// Addresses from the first to the last.
pub(super) type Range = (IpAddr, IpAddr);

/// All of a policy that decides what the guard does with its packets, but for marks.
fn becomes(policy: &Policy) -> impl PartialEq {
    (policy.pass, policy.clear.now)
}

/// Makes sets of the addresses of one side.
fn gathered<'p>(turn: &[Ordered<'p>], side: Side, number: usize) -> (Vec<Matched<'p>>, Sets) {
    let mut groups: Vec<(Key, Vec<&Ordered<'p>>)> = Vec::new();
    let mut places: HashMap<Key, usize> = HashMap::new();
    for pair in turn {
        let key = key(pair, side);
        let place = *places.entry(key).or_insert_with(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(pair);
    }
    let (mut all, mut sets) = (Vec::new(), Vec::new());
    for (key, pairs) in groups {
        if pairs.len() < SET_FROM || !is_plain(pairs[0].0) {
            all.extend(pairs.into_iter().map(|(policy, local, remote, _)| Matched {
                policy,
                local: *local,
                remote: *remote,
                set: None,
            }));
            continue;
        }
        let (policy, local, remote, _) = pairs[0];
        let name = name(&key, number);
        let addresses = pairs.iter().map(|(_, local, remote, _)| match side {
            Side::Local => (local.start, local.end),
            Side::Remote => (remote.start, remote.end),
        });
        sets.push((name.clone(), addresses.collect()));
        all.push(Matched {
            policy,
            local: *local,
            remote: *remote,
            set: Some((side, name)),
        });
    }
    (all, sets)
}

/// What pairs of a set have in common: whether the kernel does more than usual for them, and both
/// selectors, without the addresses of one side.
type Key = (bool, Side, TrafficSelector, TrafficSelector);

fn key((policy, local, remote, _): &Ordered<'_>, side: Side) -> Key {
    let open = |ts: &TrafficSelector| {
        let none = match ts.start {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        TrafficSelector {
            start: none,
            end: none,
            ..*ts
        }
    };
    let (local, remote) = match side {
        Side::Local => (open(local), *remote),
        Side::Remote => (*local, open(remote)),
    };
    (is_plain(policy), side, local, remote)
}

/// Neither marks nor interfaces have to do with it.
fn is_plain(policy: &Policy) -> bool {
    let options = &policy.kernel;
    options.if_id == 0 && options.mark_out.mask == 0 && options.mark_in.mask == 0
}

/// `peers-0-172.16.0.0-172.16.255.255`: letters, digits and what nft takes in names.
fn name((_, side, local, remote): &Key, turn: usize) -> String {
    let (what, fixed) = match side {
        Side::Local => ("own", remote),
        Side::Remote => ("peers", local),
    };
    let mut name = format!("{what}-{turn}-{}-{}", fixed.start, fixed.end);
    let ports = |ts: &TrafficSelector| format!("{}-{}", ts.start_port, ts.end_port);
    if local.protocol != 0 {
        let (ours, theirs) = (ports(local), ports(remote));
        name += &format!("-{}-{ours}-{theirs}", local.protocol);
    }
    name.replace(':', "_")
}

impl Matched<'_> {
    /// Our side's selector; of a set of our addresses, that of one of them.
    pub(super) fn local(&self) -> &TrafficSelector {
        &self.local
    }

    /// All that leave, or that come in.
    pub(super) fn selected(&self, leaving: bool) -> Rule {
        let mut rule = self.hosts(leaving);
        let (from, to) = self.ends(leaving);
        if has_ports(from) {
            for (offset, ts) in [(0, from), (2, to)] {
                if limits_ports(ts) {
                    rule = rule.number(Base::Transport, offset, ts.start_port, ts.end_port);
                }
            }
        }
        rule
    }

    /// None but those that the policy is about, which may pass; `None`: rules do not tell them from others.
    pub(super) fn exactly(&self, leaving: bool) -> Option<Rule> {
        let (from, to) = self.ends(leaving);
        let rule = self.selected(leaving);
        if is_opaque(from) || is_opaque(to) {
            return None;
        }
        match has_types(from) && limits_ports(from) {
            true => Some(rule.number(Base::Transport, 0, from.start_port, from.end_port)),
            false => Some(rule),
        }
    }

    /// Fragments of those that leave, without the ports that routing rules ask for.
    pub(super) fn fragments(&self) -> Option<Rule> {
        let ports = has_ports(&self.local);
        let limits = limits_ports(&self.local) || limits_ports(&self.remote);
        let v4 = self.local.start.is_ipv4();
        (ports && limits).then(|| self.hosts(true).later_fragment(v4))
    }

    fn ends(&self, leaving: bool) -> (&TrafficSelector, &TrafficSelector) {
        match leaving {
            true => (&self.local, &self.remote),
            false => (&self.remote, &self.local),
        }
    }

    /// Family, addresses and protocol.
    fn hosts(&self, leaving: bool) -> Rule {
        let (from, to) = self.ends(leaving);
        let v4 = from.start.is_ipv4();
        let mut rule = Rule::default().family(v4);
        for (source, ts) in [(true, from), (false, to)] {
            let side = if source == leaving {
                Side::Local
            } else {
                Side::Remote
            };
            rule = match &self.set {
                Some((of, name)) if *of == side => rule.within(source, v4, name),
                _ => rule.address(source, ts.start, ts.end),
            };
        }
        match from.protocol {
            0 => rule,
            protocol => rule.protocol(protocol),
        }
    }
}

/// TCP, UDP, SCTP, UDP-Lite, DCCP: source and destination port come first in the header.
fn has_ports(ts: &TrafficSelector) -> bool {
    matches!(ts.protocol, 6 | 17 | 33 | 132 | 136)
}

/// ICMP, ICMPv6: type and code come first in the header, and are where ports are in a selector.
pub(super) fn has_types(ts: &TrafficSelector) -> bool {
    matches!(ts.protocol, 1 | 58)
}

/// OPAQUE (65535 to 0) is no limit here: what has ports is then dropped as well.
pub(super) fn limits_ports(ts: &TrafficSelector) -> bool {
    (ts.start_port, ts.end_port) != (0, u16::MAX) && !is_opaque(ts)
}

/// Packets of which the ports are not known.
pub(super) fn is_opaque(ts: &TrafficSelector) -> bool {
    ts.start_port > ts.end_port
}
