//! What peers hold: the networks of their Child SAs on connections that leave open who the peer is.
//!
//! Only those have to be kept here. Whose the networks of any other connection are stands in the
//! configuration, whether it is up or not.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Child, Connection, Generate, Mode};
use crate::crypto::signature::PublicKey;
use crate::event::{ChildSaId, IkeSaId};
use crate::identity::Identity;
use crate::sa::IkeSa;
use crate::sa::child::{ChildSa, ChildState};
use crate::ts::{Ranges, TrafficSelector};

/// See the module.
#[derive(Default)]
pub(crate) struct Holdings {
    ranges: Ranges,
    children: HashMap<u64, Held>,
    by_sa: HashMap<IkeSaId, Filed>,
    /// Child SAs looked at, for tests that count work.
    visits: Cell<u64>,
}

/// A Child SA, and whose it is.
pub(crate) struct Held {
    pub(crate) holder: Arc<Holder>,
    pub(crate) conf: Arc<Child>,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
}

/// The peer of an established IKE SA.
pub(crate) struct Holder {
    pub(crate) ike: IkeSaId,
    pub(crate) connection: Arc<Connection>,
    pub(crate) identity: Identity,
    /// Where it is.
    pub(crate) address: IpAddr,
    mark: Mark,
}

/// What tells a peer from others that may call themselves the same.
#[derive(Clone, PartialEq)]
pub(crate) enum Mark {
    /// Its name does: nobody else can prove it there.
    Name,
    /// The one of several keys that it has.
    Key(Box<PublicKey>),
    /// Only where it is: others have its secret, too.
    Address,
}

/// What stands here of an IKE SA.
struct Filed {
    holder: Arc<Holder>,
    children: Vec<ChildSaId>,
}

impl Holdings {
    /// Takes an IKE SA as it is: to be called whenever something may have changed about it.
    pub(crate) fn file(&mut self, sa: &IkeSa) {
        let children = match has_one_peer(&sa.connection) {
            true => &[],
            false => sa.children.as_slice(),
        };
        let held: Vec<&ChildSa> = children.iter().filter(|child| holds(child)).collect();
        if self.is_filed(sa, &held) {
            return;
        }
        self.forget(sa.id);
        let Some(holder) = Holder::of(sa).map(Arc::new) else {
            return;
        };
        for child in &held {
            self.add(Arc::clone(&holder), child);
        }
        let children = held.iter().map(|child| child.info.id).collect();
        self.by_sa.insert(sa.id, Filed { holder, children });
    }

    fn is_filed(&self, sa: &IkeSa, held: &[&ChildSa]) -> bool {
        let Some(filed) = self.by_sa.get(&sa.id) else {
            return held.is_empty();
        };
        let same_child = |(id, child): (&ChildSaId, &&ChildSa)| {
            let known = self.children.get(&id.0);
            *id == child.info.id && known.is_some_and(|known| Arc::ptr_eq(&known.conf, &child.conf))
        };
        Arc::ptr_eq(&filed.holder.connection, &sa.connection)
            && filed.holder.address == sa.path.remote.ip()
            && !sa.is_closing()
            && filed.children.len() == held.len()
            && filed.children.iter().zip(held).all(same_child)
    }

    fn add(&mut self, holder: Arc<Holder>, child: &ChildSa) {
        let id = child.info.id.0;
        for ts in &child.info.remote_ts {
            self.ranges.insert(ts, id);
        }
        let held = Held {
            holder,
            conf: Arc::clone(&child.conf),
            local_ts: child.info.local_ts.clone(),
            remote_ts: child.info.remote_ts.clone(),
        };
        self.children.insert(id, held);
    }

    /// Forgets what an IKE SA has, until it is filed again.
    pub(crate) fn forget(&mut self, sa: IkeSaId) {
        let filed = self.by_sa.remove(&sa);
        for ChildSaId(id) in filed.into_iter().flat_map(|filed| filed.children) {
            // Another IKE SA may have adopted it already.
            let Entry::Occupied(known) = self.children.entry(id) else {
                continue;
            };
            if known.get().holder.ike == sa {
                for ts in &known.remove().remote_ts {
                    self.ranges.remove(ts, id);
                }
            }
        }
    }

    /// What Child SAs have of their peer's side, as far as it has an address in common with a selector.
    pub(crate) fn overlapping(
        &self,
        ts: &TrafficSelector,
    ) -> impl Iterator<Item = (TrafficSelector, &Held)> {
        let found = self.ranges.overlapping(ts);
        let keys = found.flat_map(|(ts, keys)| keys.iter().map(|key| (*ts, *key)));
        keys.filter_map(|(ts, key)| {
            self.visits.set(self.visits.get() + 1);
            Some((ts, self.children.get(&key)?))
        })
    }

    /// How many Child SAs were looked at so far.
    #[cfg(feature = "testing")]
    pub(crate) fn visits(&self) -> u64 {
        self.visits.get()
    }
}

impl Holder {
    /// The peer of this IKE SA, if it goes on.
    pub(crate) fn of(sa: &IkeSa) -> Option<Self> {
        let established = sa.established().filter(|_| !sa.is_closing())?;
        Some(Self {
            ike: sa.id,
            connection: Arc::clone(&sa.connection),
            identity: established.remote_id.clone(),
            address: sa.path.remote.ip(),
            mark: established.mark.clone(),
        })
    }

    /// Whether both are the same peer.
    pub(crate) fn is_same_peer(&self, other: &Self) -> bool {
        self.ike == other.ike
            || (self.identity.matches(&other.identity)
                && want_same_proof(&self.connection, &other.connection)
                && self
                    .mark
                    .is_same((&other.mark, self.address == other.address)))
    }
}

impl Mark {
    /// Whether two that call themselves the same are the same, at one address or not.
    pub(crate) fn is_same(&self, (other, here): (&Self, bool)) -> bool {
        match (self, other) {
            (Self::Key(one), Self::Key(other)) => one == other,
            (Self::Name, Self::Name) => true,
            // More keys may have been configured since one of them was proven.
            (Self::Name, Self::Key(_)) | (Self::Key(_), Self::Name) => here,
            (Self::Address, _) | (_, Self::Address) => here,
        }
    }
}

/// Whether an identity that was proven on both was proven by the same peer: on one connection, or on two
/// that want the same proof of one identity. Where a connection leaves the identity open, it is no
/// more than what its peer says.
pub(crate) fn want_same_proof(one: &Connection, other: &Connection) -> bool {
    one.name == other.name || (one.remote.id.is_some() && one.remote == other.remote)
}

/// Whether a connection says who its peer is.
pub(crate) fn names_peer(connection: &Connection) -> bool {
    connection.remote.id.is_some() || connection.remote.is_one_key()
}

/// Whether a connection is with one peer: the one that it names, or the one at the only address that it has.
pub(crate) fn has_one_peer(connection: &Connection) -> bool {
    names_peer(connection) || connection.remote_addrs.len() == 1
}

/// Whether a child is about networks behind a peer, and the operator has written which.
pub(crate) fn is_about_networks(child: &Child) -> bool {
    child.mode == Mode::Tunnel && !Generate::made(&child.name)
}

/// Whether packets to its peer's networks go by this one.
fn holds(child: &ChildSa) -> bool {
    child.state != ChildState::Deleting && !child.taken_out && is_about_networks(&child.conf)
}
