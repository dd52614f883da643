//! From policies to the rules and routes that steer their packets into the TUN: pure functions.

mod more;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use obol_ike::config::Mode;
use obol_ike::ts::TrafficSelector;

use super::matched::{has_types, is_opaque, limits_ports};
use super::prefix::{Prefix, cover};
use super::route::TunRoute;
use super::rule::{Action, Rule};
use super::{HostSettings, PRIORITIES};
use crate::dataplane::{Cleartext, DataPlaneError, Policy};

/// Octets that ESP adds at most to a packet in tunnel mode: outer header (IPv4 20, IPv6 40),
/// UDP 8, ESP 8, IV 8 to 16, padding up to 15, trailer 2, ICV 16 to 32. Worst of the defaults:
/// IPv6 in UDP with AES-GCM, 40 + 8 + 8 + 8 + 3 + 2 + 16 = 85; or IPv4 in UDP with AES-CBC and
/// SHA-256, 20 + 8 + 8 + 16 + 15 + 2 + 16 = 85. A rarer combination that needs more is
/// fragmented on the way, not lost.
const OVERHEAD: u32 = 88;

/// Rules that one set of policies may ask for: each costs a comparison per route lookup, so
/// more than this is a configuration that needs other selectors.
const RULES_MAX: usize = 4096;

/// From so many rules on, those that say the same but for the destination become one where the
/// table leads to no other destinations.
const MERGED_FROM: usize = 64;

/// Rules before they are merged: some hundred thousand connections.
const UNMERGED_MAX: usize = 1 << 20;

/// Turns of what passes and what does not: each needs a priority of its own.
const TURNS_MAX: u32 = PRIORITIES - 10;

const UDP: u8 = 17;
const ESP: u8 = 50;

/// What every link carries of IPv6 (RFC 8200 section 5): the system takes no smaller MTU for it.
const IPV6_MIN: u32 = 1280;

/// A path that takes packets of so many octets has room for that in a tunnel.
pub(crate) const MTU_OF_IPV6: u32 = IPV6_MIN + OVERHEAD;

/// IPv4 and TCP header, which an MSS does not count; 20 more with IPv6.
const TCP_HEADERS: u32 = 40;

/// What the host is to be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// In the order in which they are to be added.
    pub(crate) rules: Vec<Rule>,
    /// By destination.
    pub(crate) routes: BTreeMap<Prefix, TunRoute>,
    /// Destinations to which nothing goes without the TUN. To others, packets of policies that let them
    /// pass in clear go by the host's own routes.
    pub(crate) blackholes: BTreeSet<Prefix>,
}

impl Plan {
    /// What there is besides the one before; `None`: not all of that stays.
    pub(crate) fn added_to(&self, before: &Self) -> Option<Self> {
        let (rules, known): (HashSet<&Rule>, HashSet<&Rule>) =
            (self.rules.iter().collect(), before.rules.iter().collect());
        let mut routes = before.routes.keys();
        let stays = known.is_subset(&rules)
            && routes.all(|known| self.routes.contains_key(known))
            && before.blackholes.is_subset(&self.blackholes);
        if !stays {
            return None;
        }
        let is_new = |rule: &&Rule| !known.contains(*rule);
        let added = self.routes.iter();
        let added = added.filter(|(to, what)| before.routes.get(*to) != Some(*what));
        Some(Self {
            rules: self.rules.iter().filter(is_new).cloned().collect(),
            routes: added.map(|(to, what)| (*to, *what)).collect(),
            blackholes: &self.blackholes - &before.blackholes,
        })
    }
}

/// Plans for these policies, on a host with the addresses `own` and a path between the hosts
/// that takes packets of `path_mtu` octets.
///
/// # Errors
/// The selectors need more rules than is sane.
pub(crate) fn plan(
    settings: &HostSettings,
    policies: &[Policy],
    own: &[IpAddr],
    path_mtu: u32,
) -> Result<Plan, DataPlaneError> {
    let mut plan = Plan::default();
    let mut lookups = Vec::new();
    let mut too_many = None;
    let ordered = in_order(policies);
    for (policy, local, remote, turn) in &ordered {
        let (policy, local, remote, turn) = (*policy, *local, *remote, *turn);
        let priority = settings.rule_priority + 1 + turn;
        // What rules do not tell apart, the worker does: it lets pass what is to.
        let action = match policy.pass && !is_left_to_worker(&ordered, &local, &remote) {
            false => Action::Lookup(settings.table),
            true => Action::Goto(landing(settings)),
        };
        let rules = lookup_rules((priority, action), &local, &remote, own);
        lookups.extend(rules);
        if lookups.len() > RULES_MAX {
            too_many.get_or_insert(policy);
        }
        if lookups.len() > UNMERGED_MAX || turn > TURNS_MAX {
            return Err(too_many_rules(policy));
        }
        if policy.pass {
            continue;
        }
        for destination in cover(remote.start, remote.end) {
            let what = tun_route(policy.mode, source_in(&local, own), path_mtu, destination);
            merge(plan.routes.entry(destination).or_insert(what), what);
            if !policy.clear.now {
                plan.blackholes.insert(destination);
            }
        }
    }
    let mut lookups = merged(lookups, &plan.routes);
    if let Some(policy) = too_many.filter(|_| lookups.len() > RULES_MAX) {
        return Err(too_many_rules(policy));
    }
    for v4 in [true, false] {
        if lookups.iter().any(|rule| rule.v4 == v4) {
            plan.rules.extend(bypass(settings, v4));
            plan.rules.push(pinned(settings, v4));
        }
    }
    for own in protected_hosts(policies, own) {
        plan.rules.extend(reverse_path(settings, own));
    }
    plan.rules.append(&mut lookups);
    Ok(plan)
}

fn too_many_rules(policy: &Policy) -> DataPlaneError {
    DataPlaneError::Refused(format!(
        "the selectors of {}.{} and those before need more than {RULES_MAX} routing rules",
        policy.connection, policy.child
    ))
}

/// The rules, each once. Thousands of peers behind one subnet of ours are no thousands of rules: where
/// packets from a source are for the table whatever destination of it they have, a rule need not
/// name the destination, and those that the table does not know go on to the next rule.
fn merged(lookups: Vec<Rule>, routes: &BTreeMap<Prefix, TunRoute>) -> Vec<Rule> {
    let without_destination = |rule: &Rule| Rule {
        destination: None,
        ..rule.clone()
    };
    let mut seen = HashSet::new();
    let lookups: Vec<Rule> = lookups
        .into_iter()
        .filter(|rule| seen.insert(rule.clone()))
        .collect();
    // What passes goes first at its own destinations only.
    let passes = |rule: &Rule| !matches!(rule.action, Action::Lookup(_));
    if lookups.len() < MERGED_FROM || lookups.iter().any(passes) {
        return lookups;
    }
    let mut destinations: HashMap<Rule, usize> = HashMap::new();
    for rule in &lookups {
        *destinations.entry(without_destination(rule)).or_default() += 1;
    }
    let known = |v4| routes.keys().filter(|prefix| prefix.is_v4() == v4).count();
    let (known_v4, known_v6) = (known(true), known(false));
    let mut seen = HashSet::new();
    let merge = |rule: Rule| {
        let wider = without_destination(&rule);
        let all = if rule.v4 { known_v4 } else { known_v6 };
        let whole = destinations.get(&wider) == Some(&all);
        if whole { wider } else { rule }
    };
    let merged = lookups.into_iter().map(merge);
    merged.filter(|rule| seen.insert(rule.clone())).collect()
}

/// A policy with a pair of its selectors, and how many times before it what passes and what does
/// not took turns.
pub(crate) type Ordered<'p> = (&'p Policy, TrafficSelector, TrafficSelector, u32);

/// The pairs of all policies: as they are, or, where some pass or may, in the order in which they
/// count, the narrower first.
pub(crate) fn in_order(policies: &[Policy]) -> Vec<Ordered<'_>> {
    let mut all: Vec<Ordered<'_>> = Vec::new();
    for policy in policies {
        let pairs = pairs(&policy.local_ts, &policy.remote_ts).into_iter();
        all.extend(pairs.map(|(local, remote)| (policy, local, remote, 0)));
    }
    let may_pass = |policy: &Policy| policy.pass || policy.clear.when != Cleartext::Never;
    if !policies.iter().any(may_pass) {
        return all;
    }
    all.sort_by_key(|(_, local, remote, _)| width(local, remote));
    let (mut turns, mut passes) = (0, false);
    for (policy, _, _, turn) in &mut all {
        if policy.pass != passes {
            passes = policy.pass;
            turns += 1;
        }
        *turn = turns;
    }
    all
}

/// Whether packets that may pass look to rules like others that must not: by types of ICMP, or ports that are not known.
fn is_left_to_worker(
    all: &[Ordered<'_>],
    local: &TrafficSelector,
    remote: &TrafficSelector,
) -> bool {
    let is_fine = |ts: &TrafficSelector| has_types(ts) && limits_ports(ts) || is_opaque(ts);
    let meet = |one: &TrafficSelector, other: &TrafficSelector| {
        let same = one.protocol == other.protocol || other.protocol == 0;
        same && one.start.is_ipv4() == other.start.is_ipv4()
            && one.start <= other.end
            && other.start <= one.end
    };
    let is_kept = |(policy, ours, theirs, _): &Ordered<'_>| {
        !policy.pass && meet(local, ours) && meet(remote, theirs)
    };
    (is_fine(local) || is_fine(remote)) && all.iter().any(is_kept)
}

/// Orders pairs so that one that lies within another comes before it.
fn width(local: &TrafficSelector, remote: &TrafficSelector) -> (bool, u128, bool, u64) {
    let number = |address| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let span = |ts: &TrafficSelector| number(ts.end).saturating_sub(number(ts.start));
    let ports = |ts: &TrafficSelector| u64::from(ts.end_port.saturating_sub(ts.start_port)) + 1;
    let (spans, carry) = span(local).overflowing_add(span(remote));
    let ports = ports(local) * ports(remote);
    (carry, spans, local.protocol == 0, ports)
}

/// Every pair of a selector of each side that are of one family and one protocol; the protocol
/// of both is then the more special one.
pub(crate) fn pairs(
    local_ts: &[TrafficSelector],
    remote_ts: &[TrafficSelector],
) -> Vec<(TrafficSelector, TrafficSelector)> {
    let mut found = Vec::new();
    for local in local_ts {
        for remote in remote_ts {
            let same_family = local.start.is_ipv4() == remote.start.is_ipv4();
            let protocol = match (local.protocol, remote.protocol) {
                (0, other) | (other, 0) => other,
                (one, other) if one == other => one,
                _ => continue,
            };
            if same_family {
                let with = |ts: &TrafficSelector| TrafficSelector { protocol, ..*ts };
                found.push((with(local), with(remote)));
            }
        }
    }
    found
}

/// Our own packets pass all other rules of ours: the landing comes first, since a jump to a
/// priority without rule is no jump.
fn bypass(settings: &HostSettings, v4: bool) -> [Rule; 2] {
    let rule = Rule {
        priority: landing(settings),
        action: Action::Nop,
        ..jump(settings, v4)
    };
    let marked = Rule {
        fwmark: Some(settings.fwmark),
        ..jump(settings, v4)
    };
    [rule, marked]
}

/// Where what is none of ours goes on.
fn landing(settings: &HostSettings) -> u32 {
    settings.rule_priority + PRIORITIES - 1
}

/// What the guard has marked because its sender chose another device goes into the TUN.
fn pinned(settings: &HostSettings, v4: bool) -> Rule {
    Rule {
        priority: settings.rule_priority + 1,
        action: Action::Lookup(settings.table),
        fwmark: Some(settings.pinned_mark()),
        ..jump(settings, v4)
    }
}

/// A jump past all rules of ours, without condition.
fn jump(settings: &HostSettings, v4: bool) -> Rule {
    Rule {
        v4,
        priority: settings.rule_priority,
        action: Action::Goto(landing(settings)),
        fwmark: None,
        source: None,
        destination: None,
        protocol: 0,
        source_ports: None,
        destination_ports: None,
        find_source: false,
    }
}

/// IPv4 addresses of ours that take part in a policy which also covers ESP or UDP.
fn protected_hosts(policies: &[Policy], own: &[IpAddr]) -> BTreeSet<IpAddr> {
    let covers = |ts: &TrafficSelector| matches!(ts.protocol, 0 | UDP | ESP);
    let all = policies
        .iter()
        .filter(|policy| !policy.pass)
        .flat_map(|policy| pairs(&policy.local_ts, &policy.remote_ts));
    let locals = all.map(|(local, _)| local).filter(covers);
    locals
        .flat_map(|local| own.iter().copied().filter(move |ip| contains(&local, *ip)))
        .filter(IpAddr::is_ipv4)
        .collect()
}

/// Lets ESP and IKE in through a strict reverse path filter. It asks whether an answer to a
/// packet that came in would leave by the same device, and knows nothing of our mark: without
/// these rules the answer to ESP of a protected host would leave by the TUN. Before Linux 6.12
/// it asks with the ports the wrong way round, so that both ways are needed. What others send
/// by them in clear is for the guard to drop.
fn reverse_path(settings: &HostSettings, own: IpAddr) -> impl Iterator<Item = Rule> {
    let jump = Rule {
        source: Some(Prefix::host(own)),
        ..jump(settings, true)
    };
    let esp = Rule {
        protocol: ESP,
        ..jump.clone()
    };
    let udp = Rule {
        protocol: UDP,
        ..jump
    };
    let ike = [settings.port, settings.natt_port]
        .into_iter()
        .flat_map(move |port| {
            let from = Rule {
                source_ports: Some((port, port)),
                ..udp.clone()
            };
            let to = Rule {
                destination_ports: Some((port, port)),
                ..udp.clone()
            };
            [from, to]
        });
    std::iter::once(esp).chain(ike)
}

fn lookup_rules(
    (priority, action): (u32, Action),
    local: &TrafficSelector,
    remote: &TrafficSelector,
    own: &[IpAddr],
) -> Vec<Rule> {
    let v4 = local.start.is_ipv4();
    let mut sources: Vec<Option<Prefix>> = cover(local.start, local.end)
        .into_iter()
        .map(condition)
        .collect();
    // A local program that names no source: IPv6 rules find out what it would be, IPv4 rules
    // are asked with the source 0.0.0.0.
    if v4 && source_in(local, own).is_some() {
        sources.push(Some(Prefix::unspecified(true)));
    }
    let destinations = cover(remote.start, remote.end);
    let with_ports = matches!(local.protocol, 6 | 17 | 132 | 136);
    if with_ports && (has_no_rule(local) || has_no_rule(remote)) {
        return Vec::new();
    }
    let rule = |source, destination| Rule {
        v4,
        priority,
        action,
        fwmark: None,
        source,
        destination,
        protocol: local.protocol,
        source_ports: ports(local).filter(|_| with_ports),
        destination_ports: ports(remote).filter(|_| with_ports),
        find_source: !v4 && source.is_some(),
    };
    let each = |source: Option<Prefix>| {
        let to = destinations.iter().map(move |prefix| condition(*prefix));
        to.map(move |destination| rule(source, destination))
            .collect::<Vec<_>>()
    };
    sources.into_iter().flat_map(each).collect()
}

/// A prefix of length 0 is no condition.
fn condition(prefix: Prefix) -> Option<Prefix> {
    (prefix.len > 0).then_some(prefix)
}

/// The port range as rules know it: they have no ports 0 and 65535, which then only the guard
/// catches. `None`: any.
fn ports(ts: &TrafficSelector) -> Option<(u16, u16)> {
    let (first, last) = (ts.start_port, ts.end_port);
    if (first, last) == (0, u16::MAX) || first > last {
        return None;
    }
    Some((first.clamp(1, u16::MAX - 1), last.clamp(1, u16::MAX - 1)))
}

/// Nothing but a port that rules do not have.
fn has_no_rule(ts: &TrafficSelector) -> bool {
    limits_ports(ts) && (ts.end_port == 0 || ts.start_port == u16::MAX)
}

/// The first address of ours within a selector.
fn source_in(ts: &TrafficSelector, own: &[IpAddr]) -> Option<IpAddr> {
    own.iter().copied().find(|ip| contains(ts, *ip))
}

fn contains(ts: &TrafficSelector, ip: IpAddr) -> bool {
    ip.is_ipv4() == ts.start.is_ipv4() && (ts.start..=ts.end).contains(&ip)
}

fn tun_route(mode: Mode, source: Option<IpAddr>, path_mtu: u32, destination: Prefix) -> TunRoute {
    let v4 = destination.is_v4();
    let headers = if v4 { TCP_HEADERS } else { TCP_HEADERS + 20 };
    let fits = path_mtu.saturating_sub(OVERHEAD);
    // TCP keeps to what fits, also where IPv6 may be longer than that.
    let advmss = Some(fits.saturating_sub(headers));
    // In transport mode ESP cannot carry fragments (RFC 4303 section 3.3.4): the system must
    // not make any before the TUN. TCP keeps below the limit by its MSS, other long packets
    // are fragmented after they were sealed.
    let mtu = (mode == Mode::Tunnel).then(|| inner_mtu(path_mtu, !v4));
    TunRoute {
        source,
        mtu,
        advmss,
    }
}

//= rfc4303 3.3.4-1
/// Longest packet in octets that goes into a tunnel. Where even the least of IPv6 does not fit with
/// what ESP adds, it is the ESP packet that is fragmented.
pub(super) fn inner_mtu(path_mtu: u32, v6: bool) -> u32 {
    let fits = path_mtu.saturating_sub(OVERHEAD);
    if v6 { fits.max(IPV6_MIN) } else { fits }
}

/// Two policies with one destination share a route: it has the source of the first and the
/// caution of both.
fn merge(present: &mut TunRoute, other: TunRoute) {
    present.source = present.source.or(other.source);
    present.mtu = present.mtu.or(other.mtu);
    present.advmss = present.advmss.or(other.advmss);
}

#[cfg(test)]
mod tests;
