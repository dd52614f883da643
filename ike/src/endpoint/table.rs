//! All IKE SAs, and the ways to find them: what a message costs does not depend on how many there
//! are.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::Connection;
use crate::event::{ChildSaId, EspSpi, IkeSaId, IkeSpi};
use crate::identity::Identity;
use crate::sa::established::Established;
use crate::sa::{IkeSa, Phase};
use crate::timer::{Deadline, TimerKind};

/// The IKE SAs of an endpoint.
#[derive(Default)]
pub(super) struct Table {
    places: BTreeMap<IkeSaId, Place>,
    /// By the SPI that we chose, and by the one of a rekey that is open.
    by_spi: HashMap<IkeSpi, IkeSaId>,
    by_child: HashMap<ChildSaId, IkeSaId>,
    /// By the ESP SPI of packets to us.
    by_esp: HashMap<EspSpi, IkeSaId>,
    by_host: Index,
    by_connection: Index,
    by_peer: Index,
    by_pair: Index,
    /// Those of `by_peer` that we are starting and nobody has answered.
    by_start: Index,
    by_identity: Index,
    /// How many are established, by the name of their connection.
    established: HashMap<String, usize>,
    deadlines: BTreeSet<(Instant, TimerKind, IkeSaId)>,
    hasher: RandomState,
    /// Those that do not only linger.
    alive: usize,
    changed: Changes,
    /// IKE SAs looked at, for tests that count work.
    visits: Cell<u64>,
}

/// IKE SAs by the hash of something; who uses it compares the thing itself.
#[derive(Default)]
struct Index(BTreeSet<(u64, IkeSaId)>);

/// Where an IKE SA lies.
#[derive(Default)]
struct Place {
    /// `None` while it is lent.
    sa: Option<Box<IkeSa>>,
    filed: Filed,
    /// It is among what has changed.
    changed: bool,
}

/// Under what an IKE SA can be found.
#[derive(Clone, Default, PartialEq)]
struct Filed {
    /// The SPI that we chose, and the one that we have chosen for its successor.
    spis: [Option<IkeSpi>; 2],
    children: Vec<(ChildSaId, EspSpi)>,
    deadline: Option<Deadline>,
    alive: bool,
    ends: Option<Ends>,
}

/// Between whom an IKE SA is. Strangers that have shown nothing yet have none.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) connection: Arc<Connection>,
    /// Where the peer was at first: that is what it is wanted for.
    pub(super) peer: IpAddr,
    /// Our own address.
    pub(super) own: IpAddr,
    /// Where it is.
    host: IpAddr,
    /// Hash of the identities that were proven.
    identity: Option<u64>,
    /// We are starting it, and nobody has answered.
    starts: bool,
}

impl PartialEq for Ends {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
            && (self.peer, self.own, self.host) == (other.peer, other.own, other.host)
            && (self.identity, self.starts) == (other.identity, other.starts)
    }
}

impl Ends {
    /// Whether who looks for these finds the others, too: at most, the identities have been proven
    /// since.
    fn extends(&self, old: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &old.connection)
            && (self.peer, self.own) == (old.peer, old.own)
            && (old.identity.is_none() || self.identity == old.identity)
    }
}

/// What to look at again.
#[derive(Default)]
struct Changes {
    /// Each once, be it there or gone since.
    sas: Vec<IkeSaId>,
    /// Where an IKE SA is not any more.
    left: Vec<Ends>,
}

impl Index {
    fn of(&self, hash: u64) -> impl Iterator<Item = IkeSaId> {
        let range = (hash, IkeSaId(0))..=(hash, IkeSaId(u64::MAX));
        self.0.range(range).map(|(_, id)| *id)
    }
}

impl Table {
    /// The IKE SA with this name.
    pub(super) fn get(&self, id: IkeSaId) -> Option<&IkeSa> {
        self.visits.set(self.visits.get() + 1);
        self.places.get(&id)?.sa.as_deref()
    }

    /// The IKE SA for which we chose this SPI, or that is being rekeyed with it.
    pub(super) fn with_spi(&self, own: IkeSpi) -> Option<&IkeSa> {
        self.get(*self.by_spi.get(&own)?)
    }

    /// The IKE SA that owns a Child SA.
    pub(super) fn owner(&self, child: ChildSaId) -> Option<IkeSaId> {
        self.by_child.get(&child).copied()
    }

    /// Whether packets to us may come with this SPI.
    pub(super) fn receives_with(&self, spi: EspSpi) -> bool {
        self.by_esp.contains_key(&spi)
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &IkeSa> {
        self.places.keys().filter_map(|id| self.get(*id))
    }

    /// The names of all.
    pub(super) fn ids(&self) -> Vec<IkeSaId> {
        self.places.keys().copied().collect()
    }

    /// Whether any does more than to linger.
    pub(super) fn any_alive(&self) -> bool {
        self.alive > 0
    }

    /// The IKE SAs of a connection.
    pub(super) fn of_connection<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a IkeSa> {
        self.find(&self.by_connection, self.hash(name))
            .filter(move |sa| sa.connection.name == name)
    }

    /// How many IKE SAs of a connection are established.
    pub(super) fn established_on(&self, name: &str) -> usize {
        self.established.get(name).copied().unwrap_or_default()
    }

    fn count_established(&mut self, old: Option<&Ends>, new: Option<&Ends>) {
        let name = |ends: Option<&Ends>| {
            let ends = ends.filter(|ends| ends.identity.is_some());
            ends.map(|ends| ends.connection.name.clone())
        };
        if let Some(name) = name(new) {
            *self.established.entry(name).or_default() += 1;
        }
        if let Some(name) = name(old)
            && let Some(count) = self.established.get_mut(&name)
        {
            *count -= 1;
            if *count == 0 {
                self.established.remove(&name);
            }
        }
    }

    /// The IKE SAs of a connection with this peer.
    pub(super) fn with_peer<'a>(
        &'a self,
        name: &'a str,
        peer: IpAddr,
    ) -> impl Iterator<Item = &'a IkeSa> {
        self.find(&self.by_peer, self.hash((name, peer)))
            .filter(move |sa| sa.connection.name == name && sa.peer() == peer)
    }

    /// Those of them that are from this address of ours.
    pub(super) fn with_pair<'a>(
        &'a self,
        name: &'a str,
        (own, peer): (IpAddr, IpAddr),
    ) -> impl Iterator<Item = &'a IkeSa> {
        let is_pair = move |sa: &&IkeSa| sa.peer() == peer && sa.path.local.ip() == own;
        self.find(&self.by_pair, self.hash((name, own, peer)))
            .filter(move |sa| sa.connection.name == name && is_pair(sa))
    }

    /// Those of a connection with this peer that we are starting and nobody has answered.
    pub(super) fn starts_with<'a>(
        &'a self,
        name: &'a str,
        peer: IpAddr,
    ) -> impl Iterator<Item = &'a IkeSa> {
        self.find(&self.by_start, self.hash((name, peer)))
            .filter(move |sa| sa.connection.name == name && sa.peer() == peer)
    }

    /// The IKE SAs with a host, of whatever connection.
    pub(super) fn with_host(&self, host: IpAddr) -> impl Iterator<Item = &IkeSa> {
        self.find(&self.by_host, self.hash(host))
            .filter(move |sa| sa.path.remote.ip() == host)
    }

    /// The IKE SAs on which we have proven to be one, and the peer the other.
    pub(super) fn with_identities<'a>(
        &'a self,
        local: &'a Identity,
        remote: &'a Identity,
    ) -> impl Iterator<Item = &'a IkeSa> {
        self.between(self.hash((local.fold(), remote.fold())), local, remote)
    }

    fn between<'a>(
        &'a self,
        hash: u64,
        local: &'a Identity,
        remote: &'a Identity,
    ) -> impl Iterator<Item = &'a IkeSa> {
        self.find(&self.by_identity, hash).filter(|sa| {
            let established = sa.established();
            established.is_some_and(|e| e.local_id.matches(local) && e.remote_id.matches(remote))
        })
    }

    /// The hash of the two identities of an IKE SA, which stay the same.
    fn pair(&self, established: &Established) -> u64 {
        let (local, remote) = (&established.local_id, &established.remote_id);
        let hash = || self.hash((local.fold(), remote.fold()));
        *established.pair.get_or_init(hash)
    }

    /// The IKE SAs between the same two identities as this one, itself included.
    pub(super) fn with_identities_of<'a>(
        &'a self,
        established: &'a Established,
    ) -> impl Iterator<Item = &'a IkeSa> {
        let (local, remote) = (&established.local_id, &established.remote_id);
        self.between(self.pair(established), local, remote)
    }

    /// All that one of these IKE SAs can be twice with, or can stand for: a connection that names
    /// its peer has one, any other has one for each identity.
    pub(super) fn family<'a>(&'a self, ends: &'a Ends) -> impl Iterator<Item = &'a IkeSa> {
        let connection = &ends.connection;
        let named = !connection.remote_addrs.is_empty();
        let of_connection = named.then(|| self.of_connection(&connection.name));
        let identity = ends.identity.filter(|_| !named);
        let of_identity = identity.map(|hash| self.find(&self.by_identity, hash));
        let same_name = |sa: &&IkeSa| sa.connection.name == connection.name;
        of_connection
            .into_iter()
            .flatten()
            .chain(of_identity.into_iter().flatten().filter(same_name))
    }

    /// Between whom an IKE SA is.
    pub(super) fn ends(&self, sa: &IkeSa) -> Option<Ends> {
        let known = matches!(
            sa.phase,
            Phase::Init(_)
                | Phase::AuthInitiator(_)
                | Phase::AuthResponder(_)
                | Phase::Established(_)
        );
        known.then(|| Ends {
            connection: Arc::clone(&sa.connection),
            peer: sa.peer(),
            own: sa.path.local.ip(),
            host: sa.path.remote.ip(),
            identity: sa.established().map(|e| self.pair(e)),
            starts: matches!(sa.phase, Phase::Init(_)),
        })
    }

    /// The next deadline of any.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.deadlines.first().map(|(at, kind, _)| (*at, *kind))
    }

    /// Whose deadline has come, earliest first.
    pub(super) fn due(&self, now: Instant) -> Vec<IkeSaId> {
        let due = self.deadlines.iter().take_while(|(at, ..)| *at <= now);
        due.map(|(.., id)| *id).collect()
    }

    /// Lends an IKE SA, to be put back. Until then it is found by none of the above.
    pub(super) fn lend(&mut self, id: IkeSaId) -> Option<Box<IkeSa>> {
        self.places.get_mut(&id)?.sa.take()
    }

    /// Keeps an IKE SA findable, or forgets it.
    pub(super) fn put(&mut self, sa: Box<IkeSa>) {
        let id = sa.id;
        let gone = sa.is_gone();
        let filed = if gone {
            Filed::default()
        } else {
            self.file(&sa)
        };
        let place = self.places.entry(id).or_default();
        place.sa = Some(sa);
        if !std::mem::replace(&mut place.changed, true) {
            self.changed.sas.push(id);
        }
        if place.filed != filed {
            let old = std::mem::replace(&mut place.filed, filed.clone());
            self.refile(id, old, filed);
        }
        if gone {
            self.places.remove(&id);
        }
    }

    /// Between whom something has changed since this was asked last: of each IKE SA that was put
    /// back, and of those that are gone or changed sides.
    pub(super) fn take_changes(&mut self) -> Vec<Ends> {
        let mut ends = std::mem::take(&mut self.changed.left);
        let mut sas = std::mem::take(&mut self.changed.sas);
        sas.sort_unstable();
        for id in sas.drain(..) {
            if let Some(place) = self.places.get_mut(&id) {
                place.changed = false;
                ends.extend(self.ends_of(id));
            }
        }
        // Its room is used again.
        self.changed.sas = sas;
        ends
    }

    /// The same without taking.
    pub(super) fn changes(&self) -> Vec<Ends> {
        let sas = self.changed.sas.iter();
        let now = sas.filter_map(|id| self.ends_of(*id));
        self.changed.left.iter().cloned().chain(now).collect()
    }

    /// How many IKE SAs were looked at so far.
    #[cfg(feature = "testing")]
    pub(super) fn visits(&self) -> u64 {
        self.visits.get()
    }

    fn ends_of(&self, id: IkeSaId) -> Option<Ends> {
        self.visits.set(self.visits.get() + 1);
        self.places.get(&id)?.filed.ends.clone()
    }

    fn find<'a>(&'a self, index: &'a Index, hash: u64) -> impl Iterator<Item = &'a IkeSa> {
        index.of(hash).filter_map(|id| self.get(id))
    }

    fn hash(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    fn file(&self, sa: &IkeSa) -> Filed {
        Filed {
            spis: [Some(sa.own_spi()), sa.next_spi()],
            children: sa
                .children
                .iter()
                .map(|c| (c.info.id, c.info.spi_in))
                .collect(),
            deadline: sa.deadline(),
            alive: !matches!(sa.phase, Phase::Lingering { .. }),
            ends: self.ends(sa),
        }
    }

    fn refile(&mut self, id: IkeSaId, old: Filed, new: Filed) {
        if old.spis != new.spis {
            for spi in old.spis.into_iter().flatten() {
                // The successor may have it already.
                if self.by_spi.get(&spi) == Some(&id) {
                    self.by_spi.remove(&spi);
                }
            }
            let spis = new.spis.into_iter().flatten();
            self.by_spi.extend(spis.map(|spi| (spi, id)));
        }
        if old.children != new.children {
            for (child, spi) in &old.children {
                // Another IKE SA may have adopted it already.
                if self.by_child.get(child) == Some(&id) {
                    self.by_child.remove(child);
                    self.by_esp.remove(spi);
                }
            }
            for (child, spi) in &new.children {
                self.by_child.insert(*child, id);
                self.by_esp.insert(*spi, id);
            }
        }
        if old.deadline != new.deadline {
            old.deadline
                .map(|(at, kind)| self.deadlines.remove(&(at, kind, id)));
            new.deadline
                .map(|(at, kind)| self.deadlines.insert((at, kind, id)));
        }
        self.alive = self.alive + usize::from(new.alive) - usize::from(old.alive);
        if old.ends != new.ends {
            self.count_established(old.ends.as_ref(), new.ends.as_ref());
            for (index, hash) in self.hashes(old.ends.as_ref()) {
                self.index(index).0.remove(&(hash, id));
            }
            for (index, hash) in self.hashes(new.ends.as_ref()) {
                self.index(index).0.insert((hash, id));
            }
            let left = |old: &Ends| new.ends.as_ref().is_none_or(|new| !new.extends(old));
            self.changed.left.extend(old.ends.filter(left));
        }
    }

    fn hashes(&self, ends: Option<&Ends>) -> Vec<(By, u64)> {
        let Some(ends) = ends else {
            return Vec::new();
        };
        let name = ends.connection.name.as_str();
        let peer = self.hash((name, ends.peer));
        let mut hashes = vec![
            (By::Connection, self.hash(name)),
            (By::Peer, peer),
            (By::Pair, self.hash((name, ends.own, ends.peer))),
            (By::Host, self.hash(ends.host)),
        ];
        hashes.extend(ends.starts.then_some((By::Start, peer)));
        hashes.extend(ends.identity.map(|hash| (By::Identity, hash)));
        hashes
    }

    fn index(&mut self, by: By) -> &mut Index {
        match by {
            By::Connection => &mut self.by_connection,
            By::Peer => &mut self.by_peer,
            By::Pair => &mut self.by_pair,
            By::Start => &mut self.by_start,
            By::Host => &mut self.by_host,
            By::Identity => &mut self.by_identity,
        }
    }
}

/// Names an index.
#[derive(Clone, Copy)]
enum By {
    Connection,
    Peer,
    Pair,
    Start,
    Host,
    Identity,
}
