//! From policies to the rules and routes that steer their packets into the TUN: pure functions.

mod more;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use obol_ike::config::Mode;
use obol_ike::ts::TrafficSelector;

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
    for (policy, local, remote, turn) in in_order(policies) {
        let priority = settings.rule_priority + 1 + turn;
        let action = match policy.pass {
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
mod tests {
    use super::*;

    fn ts(start: &str, end: &str, protocol: u8, ports: (u16, u16)) -> TrafficSelector {
        TrafficSelector {
            protocol,
            start_port: ports.0,
            end_port: ports.1,
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
        }
    }

    const ANY: (u16, u16) = (0, 65535);

    fn policy(mode: Mode, local: TrafficSelector, remote: TrafficSelector) -> Policy {
        Policy {
            connection: "c".into(),
            child: "d".into(),
            mode,
            local_ts: vec![local],
            remote_ts: vec![remote],
            trap: true,
            pass: false,
            narrower: false,
            clear: Default::default(),
            kernel: crate::dataplane::KernelOptions::default(),
        }
    }

    fn show(rule: &Rule) -> String {
        let prefix =
            |p: Option<Prefix>| p.map_or("any".into(), |p| format!("{}/{}", p.address, p.len));
        format!(
            "{} {} {} proto {} {:?} {:?} {:?}",
            rule.priority,
            prefix(rule.source),
            prefix(rule.destination),
            rule.protocol,
            rule.source_ports,
            rule.destination_ports,
            rule.action
        )
    }

    #[test]
    fn a_service_port_in_transport_mode() {
        let local = ts("192.168.0.1", "192.168.0.1", 6, (27017, 27017));
        let remote = ts("192.168.0.2", "192.168.0.2", 6, ANY);
        let settings = HostSettings::for_tests();
        let own = ["127.0.0.1".parse().unwrap(), "192.168.0.1".parse().unwrap()];
        let policies = [policy(Mode::Transport, local, remote)];
        let plan = plan(&settings, &policies, &own, 1500).unwrap();
        let rules: Vec<_> = plan.rules.iter().map(show).collect();
        assert_eq!(
            rules,
            [
                "6199 any any proto 0 None None Nop",
                "5200 any any proto 0 None None Goto(6199)",
                "5201 any any proto 0 None None Lookup(26250)",
                "5201 192.168.0.1/32 192.168.0.2/32 proto 6 Some((27017, 27017)) None Lookup(26250)",
                "5201 0.0.0.0/32 192.168.0.2/32 proto 6 Some((27017, 27017)) None Lookup(26250)",
            ]
        );
        let route = plan.routes.values().next().unwrap();
        assert_eq!((route.mtu, route.advmss), (None, Some(1372)));
        assert_eq!(route.source, Some(own[1]));
    }

    #[test]
    fn nothing_is_in_the_way_of_what_passes_in_clear_where_nothing_else_goes() {
        let local = ts("192.168.0.1", "192.168.0.1", 6, ANY);
        let to = |last: &str, ports| ts(last, last, 6, ports);
        let clear = |remote| Policy {
            clear: crate::dataplane::Clear::at_first(Cleartext::Opportunistic),
            ..policy(Mode::Transport, local, remote)
        };
        let policies = [
            clear(to("192.168.0.2", ANY)),
            clear(to("192.168.0.3", (80, 80))),
            policy(Mode::Transport, local, to("192.168.0.3", (81, 81))),
        ];
        let plan = plan(&HostSettings::for_tests(), &policies, &[], 1500).unwrap();
        let shown = |prefix: &Prefix| prefix.address.to_string();
        let routes: Vec<_> = plan.routes.keys().map(shown).collect();
        assert_eq!(routes, ["192.168.0.2", "192.168.0.3"]);
        let blackholes: Vec<_> = plan.blackholes.iter().map(shown).collect();
        assert_eq!(blackholes, ["192.168.0.3"]);
    }

    #[test]
    fn esp_and_ike_of_a_protected_host_pass_a_reverse_path_filter() {
        let local = ts("192.168.0.0", "192.168.0.255", 0, ANY);
        let settings = HostSettings::for_tests();
        let own = ["192.168.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        let policies = [policy(Mode::Transport, local, local)];
        let plan = plan(&settings, &policies, &own, 1500).unwrap();
        let rules: Vec<_> = plan.rules[3..8].iter().map(show).collect();
        let rule = |what| format!("5200 192.168.0.1/32 any proto {what} Goto(6199)");
        assert_eq!(
            rules,
            [
                rule("50 None None"),
                rule("17 Some((500, 500)) None"),
                rule("17 None Some((500, 500))"),
                rule("17 Some((4500, 4500)) None"),
                rule("17 None Some((4500, 4500))"),
            ]
        );
        assert_eq!(plan.rules.len(), 8 + 2);
    }

    #[test]
    fn subnets_in_tunnel_mode_behind_us() {
        let local = ts("172.16.1.0", "172.16.1.255", 0, ANY);
        let remote = ts("0.0.0.0", "255.255.255.255", 0, ANY);
        let settings = HostSettings::for_tests();
        let policies = [policy(Mode::Tunnel, local, remote)];
        let plan = plan(&settings, &policies, &[], 1500).unwrap();
        let rules: Vec<_> = plan.rules[3..].iter().map(show).collect();
        assert_eq!(
            rules,
            ["5201 172.16.1.0/24 any proto 0 None None Lookup(26250)"]
        );
        let (destination, route) = plan.routes.iter().next().unwrap();
        assert_eq!(destination.len, 0);
        assert_eq!((route.mtu, route.source), (Some(1412), None));
    }

    #[test]
    fn ipv6_in_a_tunnel_over_a_narrow_path_keeps_its_least_mtu() {
        let local = ts("fd10:1::", "fd10:1::ffff", 0, ANY);
        let remote = ts("fd10:2::", "fd10:2::ffff", 0, ANY);
        let of = |path_mtu| {
            let policies = [policy(Mode::Tunnel, local, remote)];
            let plan = plan(&HostSettings::for_tests(), &policies, &[], path_mtu).unwrap();
            let route = plan.routes.values().next().unwrap();
            (route.mtu, route.advmss)
        };
        assert_eq!(of(1500), (Some(1412), Some(1352)));
        assert_eq!(of(1280), (Some(1280), Some(1132)), "TCP fits, all else may");
        assert_eq!(
            (inner_mtu(1280, false), inner_mtu(1367, true)),
            (1192, 1280)
        );
    }

    #[test]
    fn ports_without_a_place_in_a_rule_are_cut_off() {
        let of = |range| ports(&ts("0.0.0.0", "0.0.0.0", 6, range));
        assert_eq!(of(ANY), None);
        assert_eq!(of((0, 10)), Some((1, 10)));
        assert_eq!(of((32768, 65535)), Some((32768, 65534)));
        assert_eq!(of((65535, 0)), None);
    }

    #[test]
    fn too_many_rules_are_refused_by_name() {
        let wide = ts("0.0.0.1", "255.255.255.254", 6, (1, 1));
        let mut both = policy(Mode::Tunnel, wide, wide);
        both.local_ts
            .push(ts("0.0.0.3", "255.255.255.254", 6, (2, 2)));
        // Where there is more than that, they do not become few.
        let other = ts("0.0.0.0", "0.0.0.0", 17, ANY);
        both.local_ts.push(other);
        both.remote_ts.push(other);
        let error = plan(&HostSettings::for_tests(), &[both], &[], 1500).unwrap_err();
        assert!(error.to_string().contains("c.d"), "{error}");
    }

    /// The rules that look up the table, of `peers` peers and what else there is.
    fn lookups(peers: u16, more: &[Policy]) -> Vec<String> {
        let local = ts("172.16.0.0", "172.16.255.255", 0, ANY);
        let mut policies: Vec<Policy> = (0..peers)
            .map(|n| {
                let [high, low] = n.to_be_bytes();
                let [first, last] = [0, 255].map(|end| format!("10.{high}.{low}.{end}"));
                policy(Mode::Tunnel, local, ts(&first, &last, 0, ANY))
            })
            .collect();
        policies.extend_from_slice(more);
        let plan = plan(&HostSettings::for_tests(), &policies, &[], 1500).unwrap();
        assert_eq!(plan.routes.len(), policies.len());
        plan.rules[3..].iter().map(show).collect()
    }

    #[test]
    fn thousands_of_peers_behind_one_subnet_need_one_rule() {
        let one = "5201 172.16.0.0/16 any proto 0 None None Lookup(26250)";
        assert_eq!(lookups(10_000, &[]), [one]);
        assert_eq!(lookups(8, &[]).len(), 8, "few stay as they are");
    }

    #[test]
    fn of_a_plan_with_one_peer_more_only_that_is_new() {
        let local = ts("172.16.0.0", "172.16.255.255", 0, ANY);
        let policies: Vec<Policy> = (0..100)
            .map(|n| {
                let [first, last] = [0, 255].map(|end| format!("10.0.{n}.{end}"));
                policy(Mode::Tunnel, local, ts(&first, &last, 0, ANY))
            })
            .collect();
        let plan = |policies| plan(&HostSettings::for_tests(), policies, &[], 1500).unwrap();
        let (all, but_one) = (plan(&policies), plan(&policies[1..]));
        let added = all.added_to(&but_one).unwrap();
        assert_eq!((added.rules.len(), added.routes.len()), (0, 1));
        assert_eq!(added.blackholes.len(), 1);
        assert_eq!(all.added_to(&all), Some(Plan::default()));
        assert_eq!(but_one.added_to(&all), None, "a route goes");
        // Few peers have a rule each, and those go when there are many.
        assert_eq!(all.added_to(&plan(&policies[..8])), None);
    }

    #[test]
    fn thousands_of_hosts_with_a_service_port_need_a_rule_for_each_role() {
        let own = ts("10.0.0.1", "10.0.0.1", 6, ANY);
        let policies = |count: u32| -> Vec<Policy> {
            let both = (0..count).flat_map(|n| {
                let peer = std::net::Ipv4Addr::from(0x0a01_0000 + n).to_string();
                let port = |of: &str, ports| ts(of, of, 6, ports);
                let server = (port("10.0.0.1", (27017, 27017)), port(&peer, ANY));
                [(own, port(&peer, (27017, 27017))), server]
            });
            both.map(|(local, remote)| policy(Mode::Transport, local, remote))
                .collect()
        };
        let settings = HostSettings::for_tests();
        let rules = |policies: &[Policy]| {
            let plan = plan(&settings, policies, &[], 1500).unwrap();
            plan.rules[3..].iter().map(show).collect::<Vec<String>>()
        };
        let mut many = policies(10_000);
        let merged = rules(&many);
        assert_eq!(merged.len(), 2, "{merged:?}");
        for rule in &merged {
            assert!(rule.starts_with("5201 10.0.0.1/32 any proto 6 "), "{rule}");
        }
        // The table leads to one more, for which a rule of each is not.
        many.truncate(2000);
        let udp = |of| ts(of, of, 17, ANY);
        many.push(policy(Mode::Transport, udp("10.0.0.1"), udp("10.2.0.1")));
        assert_eq!(rules(&many).len(), 2001);
    }

    #[test]
    fn rules_stay_apart_where_the_table_leads_elsewhere_too() {
        let port = ts("172.16.0.0", "172.16.255.255", 6, (1, 1));
        let remote = ts("10.200.0.0", "10.200.0.255", 6, ANY);
        let other = policy(Mode::Tunnel, port, remote);
        assert_eq!(lookups(100, &[other]).len(), 101);
        let local = ts("172.17.0.0", "172.17.255.255", 0, ANY);
        let remote = ts("10.200.0.0", "10.200.0.255", 0, ANY);
        let other = policy(Mode::Tunnel, local, remote);
        assert_eq!(lookups(100, &[other]).len(), 101);
    }

    #[test]
    fn families_and_protocols_pair_up() {
        let mut mixed = policy(
            Mode::Tunnel,
            ts("10.0.0.0", "10.0.0.255", 0, ANY),
            ts("fd00::", "fd00::ff", 0, ANY),
        );
        mixed
            .remote_ts
            .push(ts("10.1.0.0", "10.1.0.255", 17, (53, 53)));
        let pairs = pairs(&mixed.local_ts, &mixed.remote_ts);
        assert_eq!(pairs.len(), 1);
        assert_eq!((pairs[0].0.protocol, pairs[0].1.protocol), (17, 17));
    }
}
