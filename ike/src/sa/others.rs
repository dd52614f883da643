//! Networks of other peers: what is theirs, a peer does not get.
//!
//! Whose a network is says the configuration where it can: it is that of the connection with the
//! narrowest selector for it that names its peer. Of peers that no connection names, who has it has it
//! until its IKE SA ends.

use std::cell::RefCell;
use std::sync::Arc;

use crate::config::{Child, Connection};
use crate::context::{Context, Signal};
use crate::error::{ChildFailure, Fault};
use crate::event::{ChildSaId, Event, IkeSaId, Owner, Withheld};
use crate::holdings::{Held, Holder, has_one_peer, is_about_networks, names_peer};
use crate::proposal::ChildExchange;
use crate::sa::IkeSa;
use crate::sa::negotiate::{Between, Grant, grant};
use crate::sa::payloads::Payloads;
use crate::ts::{MAX_SELECTORS, TrafficSelector, without};

/// So many networks of others are taken out of what one negotiation asks for; what is left then it
/// does not get either. It bounds the work.
const MOST_TAKEN: usize = 512;

/// So many are told.
const MOST_TOLD: usize = 8;

/// What others have, for one negotiation.
pub(crate) struct Others<'a> {
    cx: &'a Context,
    me: Option<Holder>,
    /// What is in use already.
    kept: &'a [TrafficSelector],
    found: RefCell<Vec<Found>>,
}

/// A network of another peer.
struct Found {
    network: TrafficSelector,
    owner: Owner,
    /// Its IKE SA, if it has the network because that is up.
    ike: Option<IkeSaId>,
}

impl Others<'_> {
    //= security S-20
    /// What a child may have of its peer's side: `remote` without what is of others.
    pub(crate) fn leave(
        &self,
        conf: &Child,
        local: &[TrafficSelector],
        remote: Vec<TrafficSelector>,
    ) -> Vec<TrafficSelector> {
        let Some(me) = self.me.as_ref().filter(|_| is_about_networks(conf)) else {
            return remote;
        };
        let leave = |ts: TrafficSelector| {
            let in_use = self.kept.iter().any(|kept| kept.contains(&ts));
            let left = if in_use {
                vec![ts]
            } else {
                self.leave_of(me, conf, local, ts)
            };
            left.into_iter()
        };
        let mut left: Vec<TrafficSelector> = remote.into_iter().flat_map(leave).collect();
        left.truncate(MAX_SELECTORS);
        left
    }

    fn leave_of(
        &self,
        me: &Holder,
        conf: &Child,
        local: &[TrafficSelector],
        ts: TrafficSelector,
    ) -> Vec<TrafficSelector> {
        let asker = Claim {
            named: has_one_peer(&me.connection),
            configured: configured_for(conf, &ts),
            network: ts,
        };
        let configured = self.of_connections(me, &asker, local);
        let held = self.of_peers(me, &asker, local);
        let mut left = vec![ts];
        for found in configured.chain(held) {
            left = without(left, &found.network);
            let mut all = self.found.borrow_mut();
            all.push(found);
            if all.len() >= MOST_TAKEN || left.len() > MAX_SELECTORS {
                left.clear();
            }
            if left.is_empty() {
                break;
            }
        }
        left
    }

    /// Whose it is by the configuration.
    fn of_connections(
        &self,
        me: &Holder,
        asker: &Claim,
        local: &[TrafficSelector],
    ) -> impl Iterator<Item = Found> {
        let before = |ts: &TrafficSelector| asker.gives_way(ts);
        let all = self.cx.directory.with_network(&asker.network, before);
        let others = all.filter(|(_, connection, child)| {
            !is_for(connection, me) && meet(&child.local_ts, local)
        });
        others.map(|(network, connection, _)| Found {
            network,
            owner: Owner {
                connection: connection.name.clone(),
                identity: connection.remote.id.clone(),
                address: None,
            },
            ike: None,
        })
    }

    /// Who has it.
    fn of_peers(
        &self,
        me: &Holder,
        asker: &Claim,
        local: &[TrafficSelector],
    ) -> impl Iterator<Item = Found> {
        let all = self.cx.holdings.overlapping(&asker.network);
        let others = all.filter(|(network, held)| {
            network.intersect(&asker.network).is_some()
                && asker.gives_way(&configured_for(&held.conf, network))
                && !held.holder.is_same_peer(me)
                && meet(&held.local_ts, local)
        });
        others.map(|(network, Held { holder, .. })| Found {
            network,
            owner: Owner {
                connection: holder.connection.name.clone(),
                identity: Some(holder.identity.clone()),
                address: Some(holder.address),
            },
            ike: Some(holder.ike),
        })
    }
}

/// What a peer asks for, and by what it may.
struct Claim {
    /// Its connection is with it alone.
    named: bool,
    /// What that has as its peer's side.
    configured: TrafficSelector,
    network: TrafficSelector,
}

impl Claim {
    /// Whether a peer that is configured with `theirs` goes before this one: the narrower selector
    /// does, as for packets. Of equals, or where neither is within the other, a connection that names
    /// its peer was given the network by the operator, and any other has it if nobody else has.
    fn gives_way(&self, theirs: &TrafficSelector) -> bool {
        let narrower =
            |one: &TrafficSelector, other: &TrafficSelector| one != other && other.contains(one);
        theirs.intersect(&self.network).is_some()
            && match self.named {
                // What is within its own network may be wider than that: that is how the operator
                // has written it.
                true => narrower(theirs, &self.configured) && theirs.contains(&self.network),
                false => !narrower(&self.configured, theirs),
            }
    }
}

impl IkeSa {
    /// Decides what the peer gets of what it asks for; what it does not get since it is another
    /// peer's, is told.
    pub(crate) fn grant(
        &self,
        cx: &mut Context,
        payloads: &Payloads<'_>,
        exchange: ChildExchange,
        rekeyed: Option<&(ChildSaId, Arc<Child>)>,
    ) -> Result<Grant, Fault> {
        let between = Between {
            path: self.path,
            nat: self.nat,
        };
        let others = self.networks_of_others(cx, rekeyed.map(|(id, _)| *id));
        let conf = rekeyed.map(|(_, conf)| conf);
        let granted = grant(
            &self.connection,
            between,
            payloads,
            exchange,
            (conf, &others),
        );
        let mut found = others.found.into_inner();
        // Another child may have it.
        let has = |network: &TrafficSelector| {
            let mut remote = granted.iter().flat_map(|grant| &grant.remote_ts);
            remote.any(|ts| ts.intersect(network).is_some())
        };
        found.retain(|found| !has(&found.network));
        match (&granted, self.withhold(cx, found)) {
            (Ok(_), Some(withheld)) => cx.event(Event::Withheld(withheld)),
            (Err(Fault::TsUnacceptable), Some(withheld)) => {
                self.report_failure(cx, ChildFailure::Withheld(withheld));
            }
            (Err(fault), _) => self.report_refusal(cx, *fault),
            (Ok(_), None) => {}
        }
        granted
    }

    /// Checks that what the peer has agreed to is not another peer's.
    pub(crate) fn check_others(
        &self,
        cx: &mut Context,
        conf: &Child,
        (local, remote): (&[TrafficSelector], &[TrafficSelector]),
        replaces: Option<ChildSaId>,
    ) -> Result<(), ChildFailure> {
        let others = self.networks_of_others(cx, replaces);
        others.leave(conf, local, remote.to_vec());
        let found = others.found.into_inner();
        match self.withhold(cx, found) {
            Some(withheld) => Err(ChildFailure::Withheld(withheld)),
            None => Ok(()),
        }
    }

    fn networks_of_others<'a>(
        &'a self,
        cx: &'a Context,
        replaces: Option<ChildSaId>,
    ) -> Others<'a> {
        let old = replaces.and_then(|id| self.child(id));
        Others {
            cx,
            me: Holder::of(self),
            kept: old.map_or(&[], |old| old.info.remote_ts.as_slice()),
            found: RefCell::default(),
        }
    }

    /// Who has what the peer does not get is to show that it lives: if it does not, the peer can come
    /// again.
    fn withhold(&self, cx: &mut Context, found: Vec<Found>) -> Option<Box<Withheld>> {
        let owner = found.first()?.owner.clone();
        let mut networks: Vec<TrafficSelector> = Vec::new();
        for Found { network, .. } in found.iter().filter(|found| found.owner == owner) {
            if networks.len() < MOST_TOLD && !networks.contains(network) {
                networks.push(*network);
            }
        }
        let holders = found.iter().filter_map(|found| found.ike).collect();
        cx.signals.push(Signal::Withheld { holders });
        cx.count_withheld();
        Some(Box::new(Withheld {
            connection: self.connection.name.clone(),
            peer: self.established()?.remote_id.clone(),
            path: self.path,
            networks,
            owner,
        }))
    }
}

/// Whether a connection that is with one peer is with this one. Where a connection leaves open who that is, what
/// its peer calls itself does not count.
fn is_for(connection: &Connection, me: &Holder) -> bool {
    let own = &me.connection;
    let named = connection.remote.id.as_ref().filter(|_| names_peer(own));
    let same = match names_peer(connection) {
        true => connection.remote == own.remote,
        // Whoever is at that address.
        false => connection.remote_addrs == own.remote_addrs,
    };
    connection.name == own.name || same || named.is_some_and(|id| id.matches(&me.identity))
}

/// By which of its selectors a child has a network.
fn configured_for(conf: &Child, network: &TrafficSelector) -> TrafficSelector {
    let mut configured = conf.remote_ts.iter();
    let found = configured.find(|ts| ts.contains(network));
    *found.unwrap_or(network)
}

fn meet(one: &[TrafficSelector], other: &[TrafficSelector]) -> bool {
    let mut pairs = one
        .iter()
        .flat_map(|one| other.iter().map(move |other| (one, other)));
    pairs.any(|(one, other)| one.intersect(other).is_some())
}
