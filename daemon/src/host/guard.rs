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
//!            asked before destination NAT and once more after it
//! ```

use obol_ike::config::Mode;

use super::HostSettings;
use super::matched::{Matched, matched, sets_of};
use super::nft::{self, Base, Batch, Hook, HookNumber, LoadedTable, Meta, Rule, Table, Verdict};
use crate::dataplane::{DataPlaneError, Policy};

const LEAVING: &str = "leaving";
const INCOMING: &str = "incoming";
const BLOCKED_OUT: &str = "blocked-out";
const BLOCKED_IN: &str = "blocked-in";

/// Before any source NAT (100): the addresses are those that the policy is about.
const BEFORE_NAT: i32 = -150;
/// After any source NAT: an address that NAT put in may be one that a policy is about.
const AFTER_NAT: i32 = 300;
/// As early as packets can be filtered: before connection tracking and any NAT.
const RAW: i32 = -300;
/// After any destination NAT (-100): the address that it put in may be one that a policy is about.
const AFTER_DESTINATION_NAT: i32 = -99;
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
/// there is no gap, and with its counts. Of what was loaded `before`, only what is new is added
/// where that will do.
///
/// # Errors
/// The kernel refuses; the guard that was there stays.
pub(crate) fn load(
    settings: &HostSettings,
    policies: &[Policy],
    carrier: Carrier,
    before: Option<&LoadedTable>,
) -> Result<LoadedTable, DataPlaneError> {
    let name = table(settings, carrier);
    let refused =
        |source| DataPlaneError::system(format!("cannot load nftables table {name}"), source);
    let count = |chain| nft::counter(&name, chain).map_err(refused);
    let (counted_out, counted_in) = (count(BLOCKED_OUT)?, count(BLOCKED_IN)?);

    let table = guard(name.clone(), settings, policies, carrier);
    let more = before.and_then(|before| table.added_to(before));
    // Somebody may have removed it.
    if let Some(more) = more.filter(|_| counted_out.is_some() && counted_in.is_some())
        && (more.is_empty() || more.commit().is_ok())
    {
        return Ok(table.loaded());
    }
    let counts = [(BLOCKED_OUT, counted_out), (BLOCKED_IN, counted_in)];
    let counts = counts.map(|(chain, counted)| {
        let (packets, bytes) = counted.unwrap_or_default();
        (chain, Rule::default().counter(packets, bytes))
    });
    table.whole(&counts).commit().map_err(refused)?;
    Ok(table.loaded())
}

/// Adds the packets of further policies to the guard that was loaded, where sets of it are about such
/// packets already; `false`: they are not, or somebody removed the guard. Nothing may pass in clear, by
/// these policies and by those before; where one of these is for a tunnel, so was one of those.
///
/// # Errors
/// The kernel refuses; the guard is as it was.
pub(crate) fn add(
    settings: &HostSettings,
    policies: &[Policy],
    carrier: Carrier,
    loaded: &mut LoadedTable,
) -> Result<bool, DataPlaneError> {
    let name = table(settings, carrier);
    let mut ranges = Vec::new();
    for policy in policies {
        let Some(pairs) = sets_of(policy) else {
            return Ok(false);
        };
        for sets in pairs {
            let known = sets.into_iter().find(|(set, _)| loaded.has_set(set));
            let Some(known) = known else {
                return Ok(false);
            };
            ranges.push(known);
        }
    }
    let Some(more) = loaded.more(&name, &ranges) else {
        return Ok(false);
    };
    let is_there = blocked(settings, carrier)?.is_some();
    let added = is_there && (more.is_empty() || more.commit().is_ok());
    if added {
        loaded.add(ranges);
    }
    Ok(added)
}

fn guard(name: String, settings: &HostSettings, policies: &[Policy], carrier: Carrier) -> Table {
    let mut table = Table::new(name);
    let matched = begin(&mut table, policies);
    guard_leaving(&mut table, settings, &matched, carrier, Vec::new());
    if carrier == Carrier::Tun {
        free_pinned(&mut table, settings, &matched);
    }
    guard_incoming(&mut table, settings, &matched, carrier, Vec::new());
    if policies.iter().any(|policy| policy.mode == Mode::Tunnel) {
        keep_sources(&mut table, settings, carrier);
    }
    table
}

/// Sets, and the chains where packets end; what rules are about.
fn begin<'p>(table: &mut Table, policies: &'p [Policy]) -> Vec<Matched<'p>> {
    let (matched, sets) = matched(policies);
    for (name, ranges) in sets {
        table.set(name, ranges);
    }
    for chain in [BLOCKED_OUT, BLOCKED_IN] {
        table.chain(chain, None);
        table.rule(Rule::default().verdict(Verdict::Drop));
    }
    matched
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
    let mut table = Table::new(INTERIM.to_owned());
    let matched = begin(&mut table, policies);
    let ike = |port| rule().protocol(UDP).number(Base::Transport, 0, port, port);
    let leaving = vec![
        rule().device(Meta::OifName, &settings.tun),
        rule().protocol(ESP),
        ike(settings.port),
        ike(settings.natt_port),
    ];
    let incoming = vec![rule().device(Meta::IifName, &settings.tun)];
    guard_leaving(&mut table, settings, &matched, Carrier::Kernel, leaving);
    guard_incoming(&mut table, settings, &matched, Carrier::Kernel, incoming);
    let refused =
        |source| DataPlaneError::system(format!("cannot load nftables table {INTERIM}"), source);
    let counts = [BLOCKED_OUT, BLOCKED_IN].map(|chain| (chain, Rule::default().counter(0, 0)));
    table.whole(&counts).commit().map_err(refused)
}

/// Whether that is so.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn has_interim() -> Result<bool, DataPlaneError> {
    has_table(INTERIM)
        .map_err(|source| DataPlaneError::system("cannot look for nftables tables", source))
}

fn has_table(table: &str) -> std::io::Result<bool> {
    nft::counter(table, BLOCKED_OUT).map(|counter| counter.is_some())
}

/// Ends that; whether there was anything.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn remove_interim() -> Result<bool, DataPlaneError> {
    remove_table(INTERIM)
}

/// Removes the guard of a carrier; whether there was one.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn remove(settings: &HostSettings, carrier: Carrier) -> Result<bool, DataPlaneError> {
    remove_table(&table(settings, carrier))
}

fn remove_table(table: &str) -> Result<bool, DataPlaneError> {
    let refused =
        |source| DataPlaneError::system(format!("cannot remove nftables table {table}"), source);
    let present = has_table(table).map_err(refused)?;
    if present {
        Batch::removing(table).commit().map_err(refused)?;
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
    table: &mut Table,
    settings: &HostSettings,
    matched: &[Matched<'_>],
    carrier: Carrier,
    more: Vec<Rule>,
) {
    table.chain(LEAVING, None);
    let rule = Rule::default;
    let accepted = [
        rule().device(Meta::OifName, "lo"),
        carrier.leaving(settings),
        rule().mark(settings.fwmark),
        ndp(),
    ];
    for accepted in accepted.into_iter().chain(more) {
        table.rule(accepted.verdict(Verdict::Accept));
    }
    for matched in matched {
        let policy = matched.policy;
        let mark = policy.kernel.mark_out;
        if policy.pass || policy.clear.now {
            if let Some(exactly) = matched.exactly(true) {
                table.rule(exactly.marked(mark).verdict(Verdict::Accept));
            }
            continue;
        }
        let selected = matched.selected(true).marked(mark);
        // An xfrm interface lets nothing pass in clear by itself.
        if policy.kernel.if_id == 0 {
            table.rule(selected.verdict(Verdict::Goto(BLOCKED_OUT)));
            if let Some(fragments) = matched.fragments() {
                // A fragment without ports went past the routing rules that ask for them.
                let fragments = fragments.marked(mark);
                table.rule(fragments.verdict(Verdict::Goto(BLOCKED_OUT)));
            }
        }
    }
    let points = [("outgoing", BEFORE_NAT), ("translated", AFTER_NAT)];
    ask(table, LEAVING, HookNumber::Postrouting, points);
}

/// Packets of this host whose sender names the device to leave by go past routing rules that
/// lead to another one: VXLAN devices with an underlying device, as flannel makes them. A packet
/// whose mark changes is routed once more, without that device; the mark leads it to the TUN.
fn free_pinned(table: &mut Table, settings: &HostSettings, matched: &[Matched<'_>]) {
    let hook = Hook {
        kind: "route",
        hook: HookNumber::Output,
        priority: BEFORE_NAT,
    };
    table.chain("pinned", Some(hook));
    let rule = Rule::default;
    let left_alone = [
        rule().device(Meta::OifName, "lo"),
        rule().device(Meta::OifName, &settings.tun),
        rule().mark(settings.fwmark),
        ndp(),
    ];
    for rule in left_alone {
        table.rule(rule.verdict(Verdict::Accept));
    }
    for matched in matched {
        let rule = match matched.policy.pass {
            true => matched
                .exactly(true)
                .map(|exactly| exactly.verdict(Verdict::Accept)),
            false => Some(matched.selected(true).set_mark(settings.pinned_mark())),
        };
        rule.into_iter().for_each(|rule| table.rule(rule));
    }
}

fn guard_incoming(
    table: &mut Table,
    settings: &HostSettings,
    matched: &[Matched<'_>],
    carrier: Carrier,
    more: Vec<Rule>,
) {
    table.chain(INCOMING, None);
    // What has a mark has it from elsewhere, later than here: the kernel's own policies drop it.
    let guarded = |policy: &Policy| policy.kernel.if_id == 0 && policy.kernel.mark_in.mask == 0;
    let guarded = || matched.iter().filter(|matched| guarded(matched.policy));
    let rule = Rule::default;
    let mut accepted = vec![
        rule().device(Meta::IifName, "lo"),
        carrier.incoming(settings),
        ndp(),
    ];
    accepted.extend(more);
    let covers = |protocol| {
        guarded().any(|matched| {
            let all_of = [0, protocol].contains(&matched.local().protocol);
            !matched.policy.pass && all_of
        })
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
        table.rule(accepted.verdict(Verdict::Accept));
    }
    for matched in guarded() {
        let policy = matched.policy;
        let rule = match policy.pass || policy.clear.now {
            true => matched
                .exactly(false)
                .map(|exactly| exactly.verdict(Verdict::Accept)),
            false => Some(matched.selected(false).verdict(Verdict::Goto(BLOCKED_IN))),
        };
        rule.into_iter().for_each(|rule| table.rule(rule));
    }
    let points = [("arriving", RAW), ("redirected", AFTER_DESTINATION_NAT)];
    ask(table, INCOMING, HookNumber::Prerouting, points);
}

/// Has a chain asked before a NAT and once more after it, by chains of these names.
fn ask(table: &mut Table, what: &str, hook: HookNumber, points: [(&'static str, i32); 2]) {
    for (chain, priority) in points {
        let hook = Hook {
            kind: "filter",
            hook,
            priority,
        };
        table.chain(chain, Some(hook));
        table.rule(Rule::default().verdict(Verdict::Jump(what)));
    }
}

/// Keeps the source addresses of what will be sealed: MASQUERADE rules of others, such as
/// Docker's, would put one there that no policy is about. Accepting the packet does not help,
/// only a NAT of its own does: the first one that a flow gets is the only one.
fn keep_sources(table: &mut Table, settings: &HostSettings, carrier: Carrier) {
    let hook = Hook {
        kind: "nat",
        hook: HookNumber::Postrouting,
        priority: JUST_BEFORE_NAT,
    };
    table.chain("keep-source", Some(hook));
    for v4 in [true, false] {
        let sealed = carrier.leaving(settings).family(v4);
        table.rule(sealed.keep_source(v4));
    }
}

fn ndp() -> Rule {
    let rule = Rule::default().family(false).protocol(ICMPV6);
    rule.octet(Base::Transport, 0, NDP.0, NDP.1)
}
