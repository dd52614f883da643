//! The connections of a configuration, found by name, address and identity without a look at
//! every one.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Child, Config, Connection, Path};
use crate::holdings::{has_one_peer, is_about_networks};
use crate::identity::Identity;
use crate::sa::methods::AuthMethods;
use crate::ts::{Ranges, TrafficSelector};

/// See the module. Wherever several connections fit, they come in the order of the configuration.
#[derive(Default)]
pub(crate) struct Directory {
    connections: Vec<Arc<Connection>>,
    by_name: HashMap<String, usize>,
    /// By the address of the peer; `None`: those that name no peer.
    by_peer: HashMap<Option<IpAddr>, Shelf>,
    /// By the hash of the identity that the peer has to prove, wherever it is.
    by_identity: HashMap<u64, Vec<usize>>,
    /// The networks of peers that connections name.
    networks: Ranges,
    hasher: RandomState,
    /// Whether any has resumption.
    resumes: bool,
    /// Connections looked at, for tests that count work.
    visits: Cell<u64>,
}

/// Connections with one peer.
#[derive(Default)]
struct Shelf {
    /// The first of each kind: IKE_SA_INIT, which knows no identities, cannot tell those of one
    /// kind apart.
    first_of_kind: Vec<usize>,
    /// Hashes of the kinds, to find the first of each.
    kinds: HashMap<u64, Vec<usize>>,
    /// By the hash of the identity that the peer has to prove; `None`: any will do.
    by_identity: HashMap<Option<u64>, Vec<usize>>,
}

impl Directory {
    /// A directory of these connections.
    pub(crate) fn new(config: &Config) -> Self {
        let mut directory = Self::default();
        for connection in &config.connections {
            directory.add(connection);
        }
        directory
    }

    /// Adds a connection behind those that are there.
    pub(crate) fn add(&mut self, connection: &Arc<Connection>) {
        let at = self.connections.len();
        self.connections.push(Arc::clone(connection));
        self.resumes |= connection.resumption.enabled;
        let name = connection.name.clone();
        self.by_name.entry(name).or_insert(at);
        if let Some(id) = &connection.remote.id {
            let hash = self.hasher.hash_one(id.fold());
            self.by_identity.entry(hash).or_default().push(at);
        }
        for (ts, key) in networks(at, connection) {
            self.networks.insert(ts, key);
        }
        let peers = &connection.remote_addrs;
        let any = peers.is_empty().then_some(None);
        for peer in peers.iter().copied().map(Some).chain(any) {
            self.shelve(at, connection, peer);
        }
    }

    /// Puts a connection into the place of the one of its name; `false`: it is to be found elsewhere, or there
    /// is none.
    pub(crate) fn replace(&mut self, connection: &Arc<Connection>) -> bool {
        let Some(at) = self.by_name.get(&connection.name).copied() else {
            return false;
        };
        let known = &self.connections[at];
        let same_place = known.remote_addrs == connection.remote_addrs
            && known.remote.id == connection.remote.id
            && known.resumption.enabled == connection.resumption.enabled
            && same_kind(known, connection);
        if same_place {
            for (ts, key) in networks(at, known) {
                self.networks.remove(ts, key);
            }
            for (ts, key) in networks(at, connection) {
                self.networks.insert(ts, key);
            }
            self.connections[at] = Arc::clone(connection);
        }
        same_place
    }

    fn shelve(&mut self, at: usize, connection: &Connection, peer: Option<IpAddr>) {
        let identity = connection.remote.id.as_ref();
        let identity = identity.map(|id| self.hasher.hash_one(id.fold()));
        let kind = self.hasher.hash_one(&connection.local_addrs);
        let shelf = self.by_peer.entry(peer).or_default();
        let own = shelf.by_identity.entry(identity).or_default();
        if own.last() == Some(&at) {
            // It names the same peer twice.
            return;
        }
        own.push(at);
        let known = shelf.kinds.entry(kind).or_default();
        let connections = &self.connections;
        if !known
            .iter()
            .any(|other| same_kind(&connections[*other], connection))
        {
            known.push(at);
            shelf.first_of_kind.push(at);
        }
    }

    /// The connection of this name.
    pub(crate) fn connection(&self, name: &str) -> Option<&Arc<Connection>> {
        self.connections.get(*self.by_name.get(name)?)
    }

    /// Whether there is one with session resumption.
    pub(crate) fn resumes(&self) -> bool {
        self.resumes
    }

    /// The connections between these addresses, one of each kind.
    pub(crate) fn kinds(&self, path: Path) -> impl Iterator<Item = &Arc<Connection>> {
        let lists = self
            .shelves(path)
            .map(|shelf| shelf.first_of_kind.as_slice());
        self.in_order(lists.collect(), path)
    }

    /// The connections between these addresses with a peer that has proven, or will have to
    /// prove, this identity.
    pub(crate) fn with_identity(
        &self,
        path: Path,
        identity: &Identity,
    ) -> impl Iterator<Item = &Arc<Connection>> {
        let hash = self.hasher.hash_one(identity.fold());
        let lists = self.shelves(path).flat_map(|shelf| {
            let lists = [Some(hash), None].map(|key| shelf.by_identity.get(&key));
            lists.into_iter().flatten().map(Vec::as_slice)
        });
        let matches = |connection: &&Arc<Connection>| {
            let id = &connection.remote.id;
            id.as_ref().is_none_or(|id| id.matches(identity))
        };
        self.in_order(lists.collect(), path).filter(matches)
    }

    /// The connections whose peer has to prove this identity, wherever it is.
    pub(crate) fn naming(&self, identity: &Identity) -> impl Iterator<Item = &Arc<Connection>> {
        let hash = self.hasher.hash_one(identity.fold());
        let named = self.by_identity.get(&hash).into_iter().flatten();
        let named = named.map(|at| {
            self.visits.set(self.visits.get() + 1);
            &self.connections[*at]
        });
        named.filter(|connection| {
            let id = &connection.remote.id;
            id.as_ref().is_some_and(|id| id.matches(identity))
        })
    }

    /// The networks of peers that connections name, as far as they have an address in common with this
    /// selector and are `like` this, with the connections and the children that have them.
    pub(crate) fn with_network(
        &self,
        ts: &TrafficSelector,
        like: impl Fn(&TrafficSelector) -> bool,
    ) -> impl Iterator<Item = (TrafficSelector, &Arc<Connection>, &Arc<Child>)> {
        let networks = self
            .networks
            .overlapping(ts)
            .filter(move |(ts, _)| like(ts));
        let keys = networks.flat_map(|(ts, keys)| keys.iter().map(|key| (*ts, *key)));
        keys.filter_map(|(ts, key)| {
            self.visits.set(self.visits.get() + 1);
            let connection = self.connections.get(usize::try_from(key >> 32).ok()?)?;
            let child = usize::try_from(key & u64::from(u32::MAX)).ok()?;
            Some((ts, connection, connection.children.get(child)?))
        })
    }

    /// How many connections were looked at so far.
    #[cfg(feature = "testing")]
    pub(crate) fn visits(&self) -> u64 {
        self.visits.get()
    }

    fn shelves(&self, path: Path) -> impl Iterator<Item = &Shelf> {
        let peers = [Some(path.remote.ip()), None];
        peers.into_iter().filter_map(|peer| self.by_peer.get(&peer))
    }

    /// Merges sorted lists, none of which has a number of another one.
    fn in_order(
        &self,
        mut lists: Vec<&[usize]>,
        path: Path,
    ) -> impl Iterator<Item = &Arc<Connection>> {
        std::iter::from_fn(move || {
            let first = lists.iter_mut().filter(|list| !list.is_empty());
            let list = first.min_by_key(|list| list[0])?;
            let (at, rest) = list.split_first()?;
            *list = rest;
            self.visits.set(self.visits.get() + 1);
            Some(&self.connections[*at])
        })
        .filter(move |connection| fits_path(connection, path))
    }
}

/// Whether a connection is between these two addresses.
pub(crate) fn fits_path(connection: &Connection, path: Path) -> bool {
    let fits = |list: &[IpAddr], address| list.is_empty() || list.contains(&address);
    fits(&connection.local_addrs, path.local.ip())
        && fits(&connection.remote_addrs, path.remote.ip())
}

/// The networks of the peer of a connection, if it is with one, each with a key that stands for the
/// connection and the child.
fn networks(at: usize, connection: &Connection) -> impl Iterator<Item = (&TrafficSelector, u64)> {
    let children = connection.children.iter().zip(0u64..);
    let named = children.filter(|(child, _)| has_one_peer(connection) && is_about_networks(child));
    named.flat_map(move |(child, number)| {
        let key = (at as u64) << 32 | number;
        child.remote_ts.iter().map(move |ts| (ts, key))
    })
}

/// Whether IKE_SA_INIT of a peer that both are for cannot tell them apart.
fn same_kind(a: &Connection, b: &Connection) -> bool {
    let accepted = |of| AuthMethods::accepted_by(std::iter::once(of));
    a.local_addrs == b.local_addrs
        && a.ike_proposals == b.ike_proposals
        && a.redirect.to == b.redirect.to
        && a.remote.signatures == b.remote.signatures
        && accepted(a) == accepted(b)
}
