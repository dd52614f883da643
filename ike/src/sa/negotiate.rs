//! What a Child SA is made of: our offer, the check of an answer to it, and what we grant of a
//! peer's offer. No state changes here.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Child, Connection, Generate, Mode, Path};
use crate::error::{ChildFailure, Fault};
use crate::event::{ChildSaInfo, EspSpi, PacketFlow};
use crate::exchange::nat::Nat;
use crate::proposal::{ChildExchange, ChosenEsp, EspProposal, check_esp_answer, choose_esp};
use crate::sa::generate::generate;
use crate::sa::others::Others;
use crate::sa::payloads::Payloads;
use crate::ts::{TrafficSelector, flow_matches, flow_selectors, narrow};
use crate::wire::{Notify, NotifyType, Payload, Proposal};

/// Pairs of a selector of each side that one Child SA may have, unless its child is configured with
/// more: the data plane compares packets with each of them.
const MAX_PAIRS: usize = 256;

/// More are not for any.
const MOST_CONFIGURED: usize = 4096;

/// So many pairs a Child SA of this child may have.
fn most_pairs(conf: &Child) -> usize {
    configured_pairs(conf).clamp(MAX_PAIRS, MOST_CONFIGURED)
}

/// How many pairs the operator has listed: none of a child that was made of what a peer asked for.
pub(crate) fn configured_pairs(conf: &Child) -> usize {
    match Generate::made(&conf.name) {
        true => 0,
        false => conf.pairs(),
    }
}

/// Our offer of a Child SA, as requester.
pub(crate) struct Offer {
    pub(crate) conf: Arc<Child>,
    pub(crate) spi_in: EspSpi,
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
    /// The packet that asks for it, if what is offered carries it.
    flow: Option<PacketFlow>,
    /// It is for a rekey, and offers what is in use.
    rekey: bool,
}

/// For what a Child SA is asked.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// All that is configured.
    All,
    /// All that is configured, and this packet first.
    Flow(&'a PacketFlow),
    /// Nothing but this packet and those of the same flow: the peer wants a Child SA for each
    /// pair of addresses.
    Single(&'a PacketFlow),
    /// What another one carries, which it is to replace.
    Rekey(&'a ChildSaInfo),
}

/// What an answer to an offer says.
pub(crate) struct Answer {
    pub(crate) chosen: ChosenEsp,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
    /// The packet that asked for it and is not carried all the same.
    pub(crate) left_out: Option<PacketFlow>,
}

/// What a peer may have, as replier.
pub(crate) struct Grant {
    pub(crate) conf: Arc<Child>,
    pub(crate) chosen: ChosenEsp,
    /// Selectors from our side.
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
    /// Selectors as the peer wrote the addresses.
    pub(crate) told_i: Vec<TrafficSelector>,
    pub(crate) told_r: Vec<TrafficSelector>,
    /// More of what the peer asked for would do, with another Child SA.
    pub(crate) more: bool,
}

/// What the IKE SA contributes to a negotiation.
#[derive(Clone, Copy)]
pub(crate) struct Between {
    pub(crate) path: Path,
    pub(crate) nat: Nat,
}

impl Offer {
    //= rfc7296 2.9-1
    /// The offer of a child.
    pub(crate) fn new(
        conf: Arc<Child>,
        purpose: Purpose<'_>,
        path: Path,
        spi_in: EspSpi,
        exchange: ChildExchange,
    ) -> Self {
        let (mut local_ts, mut remote_ts) = selectors(&conf, path);
        let mut asking = None;
        match purpose {
            Purpose::All => {}
            Purpose::Flow(flow) | Purpose::Single(flow) => {
                asking = flow_matches(&local_ts, &remote_ts, flow).then_some(*flow);
                let (source, destination) = flow_selectors(flow);
                put_first(&mut local_ts, source);
                put_first(&mut remote_ts, destination);
            }
            // RFC 7296 section 2.9.2: the same as in use.
            Purpose::Rekey(old) => {
                local_ts.clone_from(&old.local_ts);
                remote_ts.clone_from(&old.remote_ts);
            }
        }
        if matches!(purpose, Purpose::Single(_)) {
            local_ts.truncate(1);
            remote_ts.truncate(1);
        }
        Self {
            proposals: EspProposal::to_wire(&conf.esp_proposals, spi_in, exchange),
            conf,
            spi_in,
            local_ts,
            remote_ts,
            flow: asking,
            rekey: matches!(purpose, Purpose::Rekey(_)),
        }
    }

    //= rfc7296 2.5-11
    /// SA, TSi, TSr, and the notify that asks for transport mode. The Nonce and KE payloads of a
    /// CREATE_CHILD_SA exchange go between SA and TSi.
    pub(crate) fn payloads<'a>(&self, between: Vec<Payload<'a>>) -> Vec<Payload<'a>> {
        let mut payloads = Vec::new();
        if self.conf.mode == Mode::Transport {
            payloads.push(Payload::Notify(Notify::bare(
                NotifyType::USE_TRANSPORT_MODE,
            )));
        }
        payloads.push(Payload::Sa(self.proposals.clone()));
        payloads.extend(between);
        payloads.push(Payload::TsI(self.local_ts.clone().into()));
        payloads.push(Payload::TsR(self.remote_ts.clone().into()));
        payloads
    }

    //= rfc7296 1.3.1-1 1.3.1-2
    /// Checks the answer: algorithms out of our offer, selectors within ours, the same mode.
    pub(crate) fn check(
        &self,
        payloads: &Payloads<'_>,
        path: Path,
    ) -> Result<Answer, ChildFailure> {
        let missing = ChildFailure::Protocol("the answer lacks SA, TSi or TSr");
        let (Some(answer), Some(ts_i), Some(ts_r)) = (&payloads.sa, &payloads.ts_i, &payloads.ts_r)
        else {
            return Err(missing);
        };
        let chosen = check_esp_answer(&self.proposals, answer).map_err(|_| {
            ChildFailure::Protocol("the answer has algorithms that we did not offer")
        })?;
        // Without the notify, the responder declined transport mode (RFC 7296 section 1.3.1).
        let transport = payloads.has(NotifyType::USE_TRANSPORT_MODE);
        if transport != (self.conf.mode == Mode::Transport) {
            let ours = self.conf.mode;
            return Err(ChildFailure::ModeMismatch { ours });
        }
        self.check_selectors(ts_i, ts_r, path)?;
        let carried = |flow: &PacketFlow| flow_matches(ts_i, ts_r, flow);
        Ok(Answer {
            chosen,
            local_ts: ts_i.clone(),
            remote_ts: ts_r.clone(),
            left_out: self.flow.filter(|flow| !carried(flow)),
        })
    }

    fn check_selectors(
        &self,
        ts_i: &[TrafficSelector],
        ts_r: &[TrafficSelector],
        path: Path,
    ) -> Result<(), ChildFailure> {
        let (local, remote) = if self.rekey {
            // Nothing that is in use may be lost; peers that give more than was asked for are
            // suffered within what is configured.
            if !within(&self.local_ts, ts_i) || !within(&self.remote_ts, ts_r) {
                return Err(ChildFailure::RekeyNarrows);
            }
            selectors(&self.conf, path)
        } else {
            (self.local_ts.clone(), self.remote_ts.clone())
        };
        let too_many = ts_i.len() * ts_r.len() > most_pairs(&self.conf);
        if too_many || !within(ts_i, &local) || !within(ts_r, &remote) {
            return Err(ChildFailure::TsUnacceptable);
        }
        Ok(())
    }
}

//= rfc7296 2.8-3 2.9-2 2.9.2-1 2.9.2-3
/// Decides what a peer gets of what it asks for: the child that fits best, in a rekey the same
/// one as before if it still fits. What is of others is left out.
pub(crate) fn grant(
    connection: &Connection,
    between: Between,
    payloads: &Payloads<'_>,
    exchange: ChildExchange,
    (rekeyed, others): (Option<&Arc<Child>>, &Others<'_>),
) -> Result<Grant, Fault> {
    let (Some(offered), Some(ts_i), Some(ts_r)) = (&payloads.sa, &payloads.ts_i, &payloads.ts_r)
    else {
        return Err(Fault::InvalidSyntax(
            "a Child SA request without SA, TSi or TSr",
        ));
    };
    let transport = payloads.has(NotifyType::USE_TRANSPORT_MODE);
    let mode = if transport {
        Mode::Transport
    } else {
        Mode::Tunnel
    };
    let asked = Asked::new(ts_i, ts_r, transport, between);
    let children = rekeyed.into_iter().chain(&connection.children);
    let mut best: Option<(Fit, Grant)> = None;
    let mut fault = Fault::TsUnacceptable;
    let mut generated = None;
    let about = |conf: &Arc<Child>| {
        let (local, remote) = asked.within(conf, between.path);
        !local.is_empty() && !remote.is_empty()
    };
    if !children.clone().any(about) {
        let sides = (&*asked.local.selectors, &*asked.remote.selectors);
        generated = generate(connection, sides, mode, between);
    }
    let mut fitting = 0;
    for conf in children.chain(&generated) {
        let Some((fit, local_ts, remote_ts)) = asked.narrow(conf, between.path, others) else {
            continue;
        };
        if conf.mode != mode {
            fault = Fault::ModeMismatch { ours: conf.mode };
            continue;
        }
        let Some(chosen) = choose_esp(offered, &conf.esp_proposals, exchange) else {
            fault = Fault::NoProposalChosen;
            continue;
        };
        fitting += u32::from(rekeyed.is_none_or(|rekeyed| !Arc::ptr_eq(rekeyed, conf)));
        if best.as_ref().is_some_and(|(best, _)| *best >= fit) {
            continue;
        }
        let grant = Grant {
            told_i: asked.as_told(&remote_ts, &asked.remote),
            told_r: asked.as_told(&local_ts, &asked.local),
            conf: Arc::clone(conf),
            chosen,
            local_ts,
            remote_ts,
            more: !fit.all_kept,
        };
        best = Some((fit, grant));
    }
    let (_, mut grant) = best.ok_or(fault)?;
    grant.more &= fitting > 1;
    Ok(grant)
}

/// How well a child fits what is asked: the packet that asks for it is carried, nothing is
/// taken away of what is asked, nothing is left over of what is configured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
struct Fit {
    first_kept: bool,
    all_kept: bool,
    all_used: bool,
}

/// A peer's selectors, in our view of the addresses.
struct Asked {
    local: Side,
    remote: Side,
}

struct Side {
    selectors: Vec<TrafficSelector>,
    /// The address that the peer wrote where a NAT put another one: (ours, peer's).
    substituted: Option<(IpAddr, IpAddr)>,
}

impl Asked {
    /// In transport mode behind a NAT, the addresses of the selectors are the ones that the peer
    /// sees; ours are those of the packets (RFC 7296 section 2.23.1).
    fn new(
        ts_i: &[TrafficSelector],
        ts_r: &[TrafficSelector],
        transport: bool,
        between: Between,
    ) -> Self {
        let side = |selectors: &[TrafficSelector], behind_nat: bool, address: IpAddr| {
            let told = selectors.first().map(|ts| ts.start);
            let substituted = told
                .filter(|told| transport && behind_nat && *told != address)
                .filter(|told| {
                    selectors
                        .iter()
                        .all(|ts| ts.start == *told && ts.end == *told)
                })
                .map(|told| (address, told));
            let selectors = match substituted {
                Some((ours, _)) => selectors.iter().map(|ts| with_host(ts, ours)).collect(),
                None => selectors.to_vec(),
            };
            Side {
                selectors,
                substituted,
            }
        };
        Self {
            local: side(ts_r, between.nat.local, between.path.local.ip()),
            remote: side(ts_i, between.nat.remote, between.path.remote.ip()),
        }
    }

    /// What a child is about of it.
    fn within(&self, conf: &Child, path: Path) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
        let (local, remote) = selectors(conf, path);
        let local_ts = narrow(&self.local.selectors, &local);
        (local_ts, narrow(&self.remote.selectors, &remote))
    }

    fn narrow(
        &self,
        conf: &Child,
        path: Path,
        others: &Others<'_>,
    ) -> Option<(Fit, Vec<TrafficSelector>, Vec<TrafficSelector>)> {
        let (local, remote) = selectors(conf, path);
        let (mut local_ts, remote_ts) = self.within(conf, path);
        let mut remote_ts = others.leave(conf, &local_ts, remote_ts);
        limit_pairs(&mut local_ts, &mut remote_ts, most_pairs(conf));
        if local_ts.is_empty() || remote_ts.is_empty() {
            return None;
        }
        let first_in = |asked: &Side, got: &[TrafficSelector]| {
            let first = asked.selectors.first();
            first.is_some_and(|first| got.iter().any(|ts| ts.contains(first)))
        };
        let fit = Fit {
            first_kept: first_in(&self.local, &local_ts) && first_in(&self.remote, &remote_ts),
            all_kept: within(&self.local.selectors, &local_ts)
                && within(&self.remote.selectors, &remote_ts),
            all_used: within(&local, &local_ts) && within(&remote, &remote_ts),
        };
        Some((fit, local_ts, remote_ts))
    }

    /// Our selectors with the addresses that the peer wrote.
    fn as_told(&self, selectors: &[TrafficSelector], side: &Side) -> Vec<TrafficSelector> {
        match side.substituted {
            Some((_, told)) => selectors.iter().map(|ts| with_host(ts, told)).collect(),
            None => selectors.to_vec(),
        }
    }
}

//= rfc7296 2.23.1-3 2.23.1-4
/// The configured selectors; in transport mode only the two hosts themselves are left of them.
pub(crate) fn selectors(conf: &Child, path: Path) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    match conf.mode {
        Mode::Tunnel => (conf.local_ts.clone(), conf.remote_ts.clone()),
        Mode::Transport => (
            only_host(&conf.local_ts, path.local.ip()),
            only_host(&conf.remote_ts, path.remote.ip()),
        ),
    }
}

//= rfc7296 2.23-12
//= security S-34
fn only_host(selectors: &[TrafficSelector], host: IpAddr) -> Vec<TrafficSelector> {
    selectors
        .iter()
        .filter_map(|ts| ts.intersect(&TrafficSelector::host(host)))
        .collect()
}

fn with_host(selector: &TrafficSelector, host: IpAddr) -> TrafficSelector {
    TrafficSelector {
        start: host,
        end: host,
        ..*selector
    }
}

//= rfc7296 2.9-1 2.23.1-2
/// Puts the selector of a packet first, if it is configured at all.
fn put_first(selectors: &mut Vec<TrafficSelector>, packet: TrafficSelector) {
    if let Some(first) = selectors.iter().find_map(|ts| ts.intersect(&packet))
        && selectors.first() != Some(&first)
    {
        selectors.insert(0, first);
    }
}

/// Leaves the last selectors out until there are at most so many pairs; a responder may always take
/// less.
fn limit_pairs(local: &mut Vec<TrafficSelector>, remote: &mut Vec<TrafficSelector>, most: usize) {
    while local.len() * remote.len() > most {
        if local.len() > remote.len() {
            local.pop();
        } else {
            remote.pop();
        }
    }
}

//= security S-20
/// Whether each of `inner` (at least one) is contained in one of `outer`.
pub(crate) fn within(inner: &[TrafficSelector], outer: &[TrafficSelector]) -> bool {
    !inner.is_empty() && inner.iter().all(|i| outer.iter().any(|o| o.contains(i)))
}
