//! The guard: a packet filter that drops what matches a policy and would pass in clear.
//!
//! It is the last line, for when rules and routes fail: another program changed them, the TUN
//! device is gone, obol is dead. It is a table of nf_tables that nobody else touches, and it
//! stays until [`remove`].
//!
//! Where the kernel carries ESP, "by the TUN" means: to be sealed, or opened, by the kernel; and
//! nothing is pinned. Each carrier has a table of its own, for its own policies: where there are both,
//! a packet meets both, and no policy of one is about packets of the other.
//!
//! ```text
//!  leaving:  not by the TUN, not ours (mark), and matches local -> remote:  counted, dropped
//!            asked before source NAT and once more after it
//!  pinned:   about to leave by a device that its sender chose, and matches local -> remote:
//!            marked, so that it is routed again, into the TUN
//!  both:     what a policy lets pass, always or while it has no SA, is accepted before the wider ones
//!            that would drop it
//!  incoming: not by the TUN, and matches remote -> local:  counted, dropped
//! ```

use obol_ike::config::Mode;
use obol_ike::ts::TrafficSelector;

use super::nft::{self, Base, Batch, Hook, HookNumber, Meta, Rule, Verdict};
use super::{HostSettings, in_order};
use crate::dataplane::{DataPlaneError, Policy};

const LEAVING: &str = "leaving";
const BLOCKED_OUT: &str = "blocked-out";
const BLOCKED_IN: &str = "blocked-in";

/// Before any source NAT (100): the addresses are those that the policy is about.
const BEFORE_NAT: i32 = -150;
/// After any source NAT: an address that NAT put in may be one that a policy is about.
const AFTER_NAT: i32 = 300;
/// As early as packets can be filtered: before connection tracking and any NAT.
const RAW: i32 = -300;
/// One step before the source NAT of others.
const JUST_BEFORE_NAT: i32 = 99;

const ESP: u8 = 50;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Neighbour and router discovery: ICMPv6 types 133 to 137 (RFC 4861). IPv6 cannot do without,
/// and they do not leave the link.
const NDP: (u8, u8) = (133, 137);

/// What carries ESP, and has a guard for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Carrier {
    /// The TUN.
    Tun,
    /// The kernel.
    Kernel,
}

impl Carrier {
    /// All.
    pub(crate) const ALL: [Self; 2] = [Self::Tun, Self::Kernel];

    /// Packets that leave by it.
    fn leaving(self, settings: &HostSettings) -> Rule {
        match self {
            Self::Tun => Rule::default().device(Meta::OifName, &settings.tun),
            Self::Kernel => Rule::default().will_be_protected(),
        }
    }

    /// Packets that came in by it.
    fn incoming(self, settings: &HostSettings) -> Rule {
        match self {
            Self::Tun => Rule::default().device(Meta::IifName, &settings.tun),
            Self::Kernel => Rule::default().was_protected(),
        }
    }
}

/// Packets that the guard dropped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Blocked {
    /// On their way out.
    pub(crate) out: u64,
    /// On their way in.
    pub(crate) incoming: u64,
}

/// Loads the guard for these policies, in place of the one that is there: in one step, so that
/// there is no gap, and with its counts.
///
/// # Errors
/// The kernel refuses; the guard that was there stays.
pub(crate) fn load(
    settings: &HostSettings,
    policies: &[Policy],
    carrier: Carrier,
) -> Result<(), DataPlaneError> {
    let table = table(settings, carrier);
    let refused =
        |source| DataPlaneError::system(format!("cannot load nftables table {table}"), source);
    let count = |chain| Ok(nft::counter(&table, chain)?.unwrap_or_default());
    let counted_out = count(BLOCKED_OUT).map_err(refused)?;
    let counted_in = count(BLOCKED_IN).map_err(refused)?;

    let mut batch = Batch::replacing(&table);
    for (chain, counted) in [(BLOCKED_OUT, counted_out), (BLOCKED_IN, counted_in)] {
        batch.chain(chain, None);
        let rule = Rule::default().counter(counted.0, counted.1);
        batch.rule(chain, &rule.verdict(Verdict::Drop));
    }
    guard_leaving(&mut batch, settings, policies, carrier, Vec::new());
    if carrier == Carrier::Tun {
        free_pinned(&mut batch, settings, policies);
    }
    guard_incoming(&mut batch, settings, policies, carrier, Vec::new());
    if policies.iter().any(|policy| policy.mode == Mode::Tunnel) {
        keep_sources(&mut batch, settings, carrier);
    }
    batch.commit().map_err(refused)
}

/// The table for the time between another IKE daemon and obol.
const INTERIM: &str = "obol_interim";

/// Blocks what matches these policies and would be in clear, whoever protects: the kernel's ESP with SAs of
/// another daemon, or obol by either data plane. That daemon's IKE and ESP pass.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn load_interim(
    settings: &HostSettings,
    policies: &[Policy],
) -> Result<(), DataPlaneError> {
    let rule = Rule::default;
    let mut batch = Batch::replacing(INTERIM);
    for chain in [BLOCKED_OUT, BLOCKED_IN] {
        batch.chain(chain, None);
        batch.rule(chain, &rule().verdict(Verdict::Drop));
    }
    let ike = |port| rule().protocol(UDP).number(Base::Transport, 0, port, port);
    let leaving = vec![
        rule().device(Meta::OifName, &settings.tun),
        rule().protocol(ESP),
        ike(settings.port),
        ike(settings.natt_port),
    ];
    let incoming = vec![rule().device(Meta::IifName, &settings.tun)];
    guard_leaving(&mut batch, settings, policies, Carrier::Kernel, leaving);
    guard_incoming(&mut batch, settings, policies, Carrier::Kernel, incoming);
    let refused =
        |source| DataPlaneError::system(format!("cannot load nftables table {INTERIM}"), source);
    batch.commit().map_err(refused)
}

/// Ends that.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn remove_interim() -> Result<(), DataPlaneError> {
    let removed = Batch::removing(INTERIM).commit();
    removed.map_err(|source| {
        DataPlaneError::system(format!("cannot remove nftables table {INTERIM}"), source)
    })
}

/// Removes the guard of a carrier; whether there was one.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn remove(settings: &HostSettings, carrier: Carrier) -> Result<bool, DataPlaneError> {
    let table = table(settings, carrier);
    let refused =
        |source| DataPlaneError::system(format!("cannot remove nftables table {table}"), source);
    let present = nft::counter(&table, BLOCKED_OUT)
        .map_err(refused)?
        .is_some();
    if present {
        Batch::removing(&table).commit().map_err(refused)?;
    }
    Ok(present)
}

/// What the guard of a carrier dropped so far; `None`: there is no guard.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn blocked(
    settings: &HostSettings,
    carrier: Carrier,
) -> Result<Option<Blocked>, DataPlaneError> {
    let table = table(settings, carrier);
    let refused = |source| DataPlaneError::system("cannot read the counters of the guard", source);
    let out = nft::counter(&table, BLOCKED_OUT).map_err(refused)?;
    let incoming = nft::counter(&table, BLOCKED_IN).map_err(refused)?;
    Ok(out.zip(incoming).map(|(out, incoming)| Blocked {
        out: out.0,
        incoming: incoming.0,
    }))
}

/// `obol`, for the kernel `obol_kernel`; with another TUN than the usual one `obol-TUN` and
/// `obol_kernel-TUN`, so that several instances on a host do not meet.
fn table(settings: &HostSettings, carrier: Carrier) -> String {
    let table = match carrier {
        Carrier::Tun => "obol",
        Carrier::Kernel => "obol_kernel",
    };
    match settings.tun.as_str() {
        "obol0" => table.to_owned(),
        tun => format!("{table}-{tun}"),
    }
}

fn guard_leaving(
    batch: &mut Batch,
    settings: &HostSettings,
    policies: &[Policy],
    carrier: Carrier,
    more: Vec<Rule>,
) {
    batch.chain(LEAVING, None);
    let rule = Rule::default;
    let accepted = [
        rule().device(Meta::OifName, "lo"),
        carrier.leaving(settings),
        rule().mark(settings.fwmark),
        ndp(),
    ];
    for accepted in accepted.into_iter().chain(more) {
        batch.rule(LEAVING, &accepted.verdict(Verdict::Accept));
    }
    for (policy, local, remote, _) in in_order(policies) {
        let mark = policy.kernel.mark_out;
        let matched = selected(&local, &remote).marked(mark);
        if policy.pass || policy.clear.now {
            batch.rule(LEAVING, &matched.verdict(Verdict::Accept));
            continue;
        }
        // An xfrm interface lets nothing pass in clear by itself.
        if policy.kernel.if_id == 0 {
            batch.rule(LEAVING, &matched.verdict(Verdict::Goto(BLOCKED_OUT)));
            if has_ports(&local) && (limits_ports(&local) || limits_ports(&remote)) {
                // A fragment without ports went past the routing rules that ask for them.
                let fragment = hosts(&local, &remote).later_fragment(local.start.is_ipv4());
                let fragment = fragment.marked(mark);
                batch.rule(LEAVING, &fragment.verdict(Verdict::Goto(BLOCKED_OUT)));
            }
        }
    }
    for (chain, priority) in [("outgoing", BEFORE_NAT), ("translated", AFTER_NAT)] {
        let hook = Hook {
            kind: "filter",
            hook: HookNumber::Postrouting,
            priority,
        };
        batch.chain(chain, Some(hook));
        batch.rule(chain, &rule().verdict(Verdict::Jump(LEAVING)));
    }
}

/// Packets of this host whose sender names the device to leave by go past routing rules that
/// lead to another one: VXLAN devices with an underlying device, as flannel makes them. A packet
/// whose mark changes is routed once more, without that device; the mark leads it to the TUN.
fn free_pinned(batch: &mut Batch, settings: &HostSettings, policies: &[Policy]) {
    const PINNED: &str = "pinned";
    let hook = Hook {
        kind: "route",
        hook: HookNumber::Output,
        priority: BEFORE_NAT,
    };
    batch.chain(PINNED, Some(hook));
    let rule = Rule::default;
    let left_alone = [
        rule().device(Meta::OifName, "lo"),
        rule().device(Meta::OifName, &settings.tun),
        rule().mark(settings.fwmark),
        ndp(),
    ];
    for rule in left_alone {
        batch.rule(PINNED, &rule.verdict(Verdict::Accept));
    }
    for (policy, local, remote, _) in in_order(policies) {
        let matched = selected(&local, &remote);
        let rule = match policy.pass {
            true => matched.verdict(Verdict::Accept),
            false => matched.set_mark(settings.pinned_mark()),
        };
        batch.rule(PINNED, &rule);
    }
}

fn guard_incoming(
    batch: &mut Batch,
    settings: &HostSettings,
    policies: &[Policy],
    carrier: Carrier,
    more: Vec<Rule>,
) {
    const INCOMING: &str = "incoming";
    let hook = Hook {
        kind: "filter",
        hook: HookNumber::Prerouting,
        priority: RAW,
    };
    batch.chain(INCOMING, Some(hook));
    // What has a mark has it from elsewhere, later than here: the kernel's own policies drop it.
    let guarded = |policy: &Policy| policy.kernel.if_id == 0 && policy.kernel.mark_in.mask == 0;
    let pairs: Vec<_> = in_order(policies)
        .into_iter()
        .filter(|(policy, ..)| guarded(policy))
        .collect();
    let rule = Rule::default;
    let mut accepted = vec![
        rule().device(Meta::IifName, "lo"),
        carrier.incoming(settings),
        ndp(),
    ];
    accepted.extend(more);
    let covers = |protocol| {
        let mut pairs = pairs.iter();
        pairs.any(|(policy, ts, ..)| !policy.pass && [0, protocol].contains(&ts.protocol))
    };
    if covers(ESP) {
        accepted.push(rule().protocol(ESP).for_this_host());
    }
    if covers(UDP) {
        for port in [settings.port, settings.natt_port] {
            let ike = rule().protocol(UDP).number(Base::Transport, 2, port, port);
            accepted.push(ike.for_this_host());
        }
    }
    for accepted in accepted {
        batch.rule(INCOMING, &accepted.verdict(Verdict::Accept));
    }
    for (policy, local, remote, _) in &pairs {
        let verdict = match policy.pass || policy.clear.now {
            true => Verdict::Accept,
            false => Verdict::Goto(BLOCKED_IN),
        };
        batch.rule(INCOMING, &selected(remote, local).verdict(verdict));
    }
}

/// Keeps the source addresses of what will be sealed: MASQUERADE rules of others, such as
/// Docker's, would put one there that no policy is about. Accepting the packet does not help,
/// only a NAT of its own does: the first one that a flow gets is the only one.
fn keep_sources(batch: &mut Batch, settings: &HostSettings, carrier: Carrier) {
    const KEEP: &str = "keep-source";
    let hook = Hook {
        kind: "nat",
        hook: HookNumber::Postrouting,
        priority: JUST_BEFORE_NAT,
    };
    batch.chain(KEEP, Some(hook));
    for v4 in [true, false] {
        let sealed = carrier.leaving(settings).family(v4);
        batch.rule(KEEP, &sealed.keep_source(v4));
    }
}

fn ndp() -> Rule {
    let rule = Rule::default().family(false).protocol(ICMPV6);
    rule.octet(Base::Transport, 0, NDP.0, NDP.1)
}

/// Family, addresses and protocol.
fn hosts(from: &TrafficSelector, to: &TrafficSelector) -> Rule {
    let rule = Rule::default()
        .family(from.start.is_ipv4())
        .address(true, from.start, from.end)
        .address(false, to.start, to.end);
    match from.protocol {
        0 => rule,
        protocol => rule.protocol(protocol),
    }
}

fn selected(from: &TrafficSelector, to: &TrafficSelector) -> Rule {
    let mut rule = hosts(from, to);
    if has_ports(from) {
        for (offset, ts) in [(0, from), (2, to)] {
            if limits_ports(ts) {
                rule = rule.number(Base::Transport, offset, ts.start_port, ts.end_port);
            }
        }
    }
    rule
}

/// TCP, UDP, SCTP, UDP-Lite, DCCP: source and destination port come first in the header.
fn has_ports(ts: &TrafficSelector) -> bool {
    matches!(ts.protocol, 6 | 17 | 33 | 132 | 136)
}

/// OPAQUE (65535 to 0) is no limit here: what has ports is then dropped as well.
fn limits_ports(ts: &TrafficSelector) -> bool {
    (ts.start_port, ts.end_port) != (0, u16::MAX) && ts.start_port <= ts.end_port
}
