//! Which `sainfo` packets have: the one whose sides are those of their policy or, since an SA in transport
//! mode is between two hosts, those of the two hosts. The one that says most comes first.

use obol_ike::ts::TrafficSelector;

use super::conf::{Conf, Sainfo};
use super::flows::{Flow, What};
use super::regions::Region;
use crate::config::Report;

/// Packets of a flow, and their block.
pub(crate) type Chosen<'c> = (Region, &'c Sainfo);

/// How much a side of a block says: it is one, of one host, with the port of the policy.
type Exact = (bool, bool, bool);

/// The blocks for the packets of a flow, each with those that it is about: no packet is in two. `Err`: there is
/// none for what is left.
pub(crate) fn choose<'c>(conf: &'c Conf, flow: &Flow) -> Result<Vec<Chosen<'c>>, Vec<Chosen<'c>>> {
    let hosts = matches!(flow.what, What::Protect(None) | What::Prefer(None));
    let mut candidates: Vec<((Exact, Exact), Chosen<'c>)> = Vec::new();
    for sainfo in &conf.sainfos {
        let local = side(sainfo.local.as_ref(), &flow.local, hosts);
        let remote = side(sainfo.remote.as_ref(), &flow.remote, hosts);
        if let (Some((local, ours)), Some((remote, theirs))) = (local, remote) {
            candidates.push(((ours, theirs), (Region { local, remote }, sainfo)));
        }
    }
    // Both sides come before one, and ours before the other; then those of hosts, then ports.
    candidates.sort_by_key(|((ours, theirs), _)| {
        std::cmp::Reverse((
            (ours.0, theirs.0),
            u8::from(ours.1) + u8::from(theirs.1),
            u8::from(ours.2) + u8::from(theirs.2),
        ))
    });
    let mut chosen = Vec::new();
    let mut rest = vec![Region {
        local: flow.local,
        remote: flow.remote,
    }];
    for (_, (region, sainfo)) in candidates {
        let common = rest.iter().filter_map(|piece| piece.overlap(&region));
        chosen.extend(common.map(|common| (common, sainfo)));
        // The protocol is the same, so there are words for what is left.
        let cut = |piece: &Region| piece.without(&region).unwrap_or_default();
        rest = rest.iter().flat_map(cut).collect();
    }
    match rest.is_empty() {
        true => Ok(chosen),
        false => Err(chosen),
    }
}

/// What a side of a block is of the same side of a flow, and how exactly; `None`: nothing.
fn side(
    said: Option<&TrafficSelector>,
    flow: &TrafficSelector,
    hosts: bool,
) -> Option<(TrafficSelector, Exact)> {
    let Some(said) = said else {
        return Some((*flow, (false, false, false)));
    };
    let is_host = said.start == said.end;
    if said == flow {
        return Some((*flow, (true, is_host, true)));
    }
    let has_port = (said.start_port, said.end_port) == (flow.start_port, flow.end_port);
    // With racoon, the SA of two hosts was for all ports.
    let fits = hosts
        && is_host
        && said.protocol == flow.protocol
        && (has_port || said.is_any_port())
        && flow.contains_address(said.start);
    let of_host = TrafficSelector {
        start: said.start,
        end: said.end,
        ..*flow
    };
    fits.then_some((of_host, (true, true, has_port)))
}

/// Says which blocks no policy has.
pub(crate) fn tell_unused(report: &Report<'_>, conf: &Conf, flows: &[Flow]) {
    let is_for_all = |sainfo: &Sainfo| sainfo.local.is_none() && sainfo.remote.is_none();
    let chosen: Vec<Chosen<'_>> = flows
        .iter()
        .filter(|flow| matches!(flow.what, What::Protect(_) | What::Prefer(_)))
        .flat_map(|flow| choose(conf, flow).unwrap_or_else(|some| some))
        .collect();
    for sainfo in conf.sainfos.iter().filter(|sainfo| !is_for_all(sainfo)) {
        if !chosen.iter().any(|(_, other)| std::ptr::eq(*other, sainfo)) {
            report.warn(
                &sainfo.place,
                "this sainfo is never used: no policy has its sides",
                "write address, port and protocol as the policy has them or, where it is about networks in transport mode, two hosts of them with its protocol",
            );
        }
    }
}
