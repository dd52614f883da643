//! What is wanted up: children that start by themselves, and those that somebody asked for.

mod list;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::Endpoint;
use super::duplicates::stays_before;
use super::table::Ends;
use crate::config::{Child, Connection, Path, StartAction};
use crate::context::Loss;
use crate::event::{Event, IkeSaId, LocalAddresses};
use crate::exchange::nat::IKE_PORT;
use crate::sa::child::{ChildSa, ChildState};
use crate::sa::task::{ChildTask, Task};
use crate::sa::{IkeSa, Phase};
use crate::status::ChildOutlook;
use list::Key;
pub(super) use list::{Wish, Wishes};

/// What is up and what somebody is at, on the IKE SAs of a connection, with one peer if it is one of
/// many: found once for all children.
#[derive(Default)]
struct Care<'a> {
    /// An IKE SA is on its way, and what becomes of the children is seen then.
    all: bool,
    /// Children of which a Child SA is up, being made, or waiting to be asked for.
    cared: BTreeSet<&'a str>,
    /// Those that are up.
    up: BTreeSet<&'a str>,
}

impl Care<'_> {
    /// Whether this child is up, somebody is at it, or it has to wait.
    fn is_for(&self, key: &Key) -> bool {
        self.all || self.cared.contains(&*key.child)
    }
}

/// What becomes of wishes that were looked at.
#[derive(Default)]
struct Looked {
    fulfilled: Vec<Key>,
    /// Nobody is at them.
    wanted: Vec<Key>,
}

/// Whether an IKE SA is not up yet, or may not stay.
fn is_on_its_way(sa: &IkeSa) -> bool {
    match &sa.phase {
        Phase::Init(_) | Phase::AuthInitiator(_) => true,
        // Which IKE SA goes on is decided within a round trip.
        Phase::Established(established) => established.is_contest(),
        _ => false,
    }
}

impl Endpoint {
    /// What is to be expected of each configured child, in the order of the configuration. Of
    /// several peers of a connection that names none, the next one to be tried.
    pub fn outlook(&self, now: Instant) -> Vec<ChildOutlook> {
        let mut next: BTreeMap<(&str, &str), (Option<Instant>, u32)> = BTreeMap::new();
        let mut found: Option<(&Key, Care)> = None;
        for (key, wish) in self.wishes.iter() {
            let entry = next.entry((&key.connection, &key.child)).or_default();
            entry.1 = entry.1.max(wish.failures);
            if wish.held || wish.not_before.is_none() {
                continue;
            }
            let beside = found.take().filter(|(of, _)| of.is_beside(key));
            let (of, care) = beside.unwrap_or_else(|| (key, self.care(key)));
            if !care.is_for(key) {
                entry.0 = entry.0.min(wish.not_before).or(wish.not_before);
            }
            found = Some((of, care));
        }
        let connections = self.cx.config.connections.iter();
        let children = connections.flat_map(|c| c.children.iter().map(move |child| (c, child)));
        children
            .map(|(connection, child)| {
                let (at, failures) = next
                    .get(&(&*connection.name, &*child.name))
                    .copied()
                    .unwrap_or_default();
                let key = Key::new(connection, child, None);
                ChildOutlook {
                    connection: connection.name.clone(),
                    child: child.name.clone(),
                    action: self.wishes.action(&key, child),
                    failures,
                    next_try_in: at.map(|at| at.saturating_duration_since(now)),
                }
            })
            .collect()
    }

    /// Whether a child is up, somebody is at it, or it has to wait.
    fn is_cared_for(&self, key: &Key) -> bool {
        let cares = |sa: &IkeSa| sa.is_current() && sa.cares_for(&key.child);
        self.any_of_key(key, |sa| is_on_its_way(sa) || cares(sa))
    }

    /// What is up and what somebody is at where this child belongs.
    fn care<'a>(&'a self, key: &'a Key) -> Care<'a> {
        let mut care = Care::default();
        self.any_of_key(key, |sa| {
            care.all |= is_on_its_way(sa);
            if sa.is_current() {
                care.cared.extend(sa.cared());
                let up = |child: &&ChildSa| child.state == ChildState::Installed;
                let up = sa.children.iter().filter(up);
                care.up.extend(up.map(|child| &*child.info.child));
            }
            false
        });
        care
    }

    /// Whether this is true of any IKE SA on which this child belongs.
    fn any_of_key<'a>(&'a self, key: &'a Key, is_so: impl FnMut(&'a IkeSa) -> bool) -> bool {
        match (key.peer, key.local) {
            (Some(peer), Some(own)) => self.sas.with_pair(&key.connection, (own, peer)).any(is_so),
            (Some(peer), None) => self.sas.with_peer(&key.connection, peer).any(is_so),
            (None, _) => self.sas.of_connection(&key.connection).any(is_so),
        }
    }

    /// The IKE SA of a connection, and with this peer, and from this address of ours, if one is named, on
    /// which new exchanges begin. Of several, the one that stays: both ends find the same.
    pub(super) fn current(
        &self,
        connection: &str,
        peer: Option<IpAddr>,
        own: Option<IpAddr>,
    ) -> Option<IkeSaId> {
        let current = |sa: &&IkeSa| sa.is_current();
        let lasts = |sa: &IkeSa| sa.established().is_some_and(|e| e.renewal.is_none());
        let better = |best, sa| {
            let stays = match (lasts(sa), lasts(best)) {
                (true, true) | (false, false) => stays_before(sa, best),
                (lasts, _) => lasts,
            };
            if stays { sa } else { best }
        };
        let best = match (peer, own) {
            (Some(peer), Some(own)) => self
                .sas
                .with_pair(connection, (own, peer))
                .filter(current)
                .reduce(better),
            (Some(peer), None) => self
                .sas
                .with_peer(connection, peer)
                .filter(current)
                .reduce(better),
            (None, _) => self
                .sas
                .of_connection(connection)
                .filter(current)
                .reduce(better),
        };
        best.map(|sa| sa.id)
    }

    /// Begins what is wanted and nobody is at, where something has changed.
    pub(super) fn start_wishes(&mut self, now: Instant, mut changes: Vec<Ends>) {
        changes.extend(self.sas.changes());
        let mut keys = self.wishes.take_changed(now);
        for ends in changes {
            let name = &ends.connection.name;
            keys.extend(self.wishes.with_pair(name, ends.own, ends.peer));
        }
        keys.iter().for_each(|key| self.wishes.visit(key));
        let open = keys.iter().filter(|key| self.wishes.is_open(key));
        let looked = self.look_at(open);
        for key in &looked.fulfilled {
            self.wishes.fulfilled(key);
        }
        for key in self.in_order(looked.wanted) {
            // The one before may have begun an IKE SA.
            if !self.is_cared_for(&key) {
                self.start_wish(now, &key);
            }
        }
        // What was begun may have failed at once. That is looked at next time, but not later than
        // its pause is over.
        let changed = self.wishes.changed();
        let open = changed.iter().filter(|key| self.wishes.is_open(key));
        for key in self.look_at(open).wanted {
            self.wishes.queue(&key);
        }
    }

    /// What becomes of these, which are sorted.
    fn look_at<'a>(&'a self, keys: impl Iterator<Item = &'a Key>) -> Looked {
        let mut looked = Looked::default();
        let mut found: Option<(&Key, Care)> = None;
        for key in keys {
            let beside = found.take().filter(|(of, _)| of.is_beside(key));
            let (of, care) = beside.unwrap_or_else(|| (key, self.care(key)));
            if care.up.contains(&*key.child) {
                looked.fulfilled.push(key.clone());
            } else if !care.is_for(key) {
                looked.wanted.push(key.clone());
            }
            found = Some((of, care));
        }
        looked
    }

    /// The children of a connection in the order in which they are configured.
    fn in_order(&self, keys: impl IntoIterator<Item = Key>) -> Vec<Key> {
        let mut keys: Vec<Key> = keys.into_iter().collect();
        let mut places: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
        for key in &keys {
            if !places.contains_key(&key.connection) {
                let connection = self.cx.directory.connection(&key.connection);
                let children = connection
                    .iter()
                    .flat_map(|connection| &connection.children);
                let names = children.map(|child| &*child.name);
                let of_connection = names.zip(0..).collect();
                places.insert(key.connection.clone(), of_connection);
            }
        }
        keys.sort_by_cached_key(|key| {
            let of_connection = places.get(&key.connection);
            let place = of_connection.and_then(|places| places.get(&*key.child));
            (key.connection.clone(), key.peer, place.copied())
        });
        keys
    }

    fn start_wish(&mut self, now: Instant, key: &Key) {
        let Some(wish) = self.wishes.get(key).cloned() else {
            return;
        };
        if wish.not_before.is_some_and(|at| at > now) {
            self.wishes.queue(key);
            return;
        }
        let Some((connection, child)) = self.find_child(&key.connection, &key.child) else {
            self.wishes.remove(key);
            return;
        };
        let task = ChildTask::new(child, wish.flow, None);
        if let Some(id) = self.current(&key.connection, key.peer, key.local) {
            self.with(now, id, |sa, _| sa.tasks.push(Task::Child(task)));
            return;
        }
        let path = start_path(&connection, &wish, &self.cx.local);
        let sa = path.and_then(|path| self.begin(now, connection, path, Some(task)));
        match sa {
            Some(sa) => self.put(Box::new(sa)),
            // Nothing to start towards, or nothing to start with: no use in trying again.
            None => self.wishes.remove(key),
        }
    }

    /// Begins an IKE SA that somebody wants: of one that was lost, if there is a ticket, or from
    /// scratch.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        connection: Arc<Connection>,
        path: Path,
        first: Option<ChildTask>,
    ) -> Option<IkeSa> {
        let cx = &mut self.cx;
        match cx.kept.take(now, &connection, path.remote.ip()) {
            Some(kept) => IkeSa::resume(cx, now, connection, path, first, kept),
            None => IkeSa::initiate(cx, now, connection, path, first),
        }
    }

    pub(super) fn find_child(
        &self,
        connection: &str,
        child: &str,
    ) -> Option<(Arc<Connection>, Arc<Child>)> {
        let connection = self.cx.directory.connection(connection)?;
        let child = connection.children.iter().find(|c| c.name == child)?;
        Some((Arc::clone(connection), Arc::clone(child)))
    }

    /// A negotiation of a child failed: a lasting wish is tried again after a pause.
    pub(super) fn child_failed(
        &mut self,
        now: Instant,
        connection: &str,
        child: &str,
        peer: IpAddr,
    ) {
        for key in self.wishes.with_peer(connection, peer) {
            if key.child == child {
                self.wish_failed(now, &key);
            }
        }
    }

    fn wish_failed(&mut self, now: Instant, key: &Key) {
        if self.is_cared_for(key) {
            return;
        }
        let connection = self.cx.directory.connection(&key.connection);
        let most = connection.map_or(0, |connection| connection.keying_tries);
        if let Some(tries) = self.wishes.failed(now, key, most, &mut *self.cx.rng) {
            self.cx.event(Event::GivenUp {
                connection: key.connection.clone(),
                child: key.child.clone(),
                tries,
            });
        }
    }

    /// A Child SA is gone. What is to be done about it now depends on by whose doing; what is
    /// wanted comes again after a pause, since the peer may have had its reasons.
    pub(super) fn child_lost(
        &mut self,
        now: Instant,
        connection: &str,
        child: &str,
        peer: IpAddr,
        loss: Loss,
    ) {
        let Some((connection, child)) = self.find_child(connection, child) else {
            return;
        };
        let peer = connection.remote_addrs.is_empty().then_some(peer);
        let key = Key::new(&connection, &child, peer);
        if self.is_cared_for(&key) {
            return;
        }
        let action = match loss {
            Loss::Closed => child.upkeep.close_action,
            Loss::Dead => child.upkeep.dpd_action,
            Loss::Own => Some(self.wishes.action(&key, &child)),
        };
        let action = action.unwrap_or(key.first_action(&child));
        self.wishes.rest(&key, &child, action);
        if self.wishes.action(&key, &child) == StartAction::Start && self.shutdown.is_none() {
            self.want_again(now, &connection, &child, &key);
        } else {
            self.wishes.hold_lasting(&key);
        }
    }

    /// An IKE SA may be lost: another one is begun beside it.
    pub(super) fn sa_doubted(&mut self, connection: &str, children: &[String], peer: IpAddr) {
        for child in children {
            let Some((connection, child)) = self.find_child(connection, child) else {
                continue;
            };
            let remote = connection.remote_addrs.is_empty().then_some(peer);
            let key = Key::new(&connection, &child, remote);
            let action = child.upkeep.dpd_action.unwrap_or(key.first_action(&child));
            if action != StartAction::None && self.wishes.get(&key).is_none() {
                let wish = Wish::between(None, remote);
                self.wishes.add(&connection, &child, wish);
            }
        }
    }

    /// A peer has shown itself: what is to be up with it is tried now.
    pub(super) fn hasten(&mut self, now: Instant, connection: &str, peer: IpAddr) {
        for key in self.wishes.with_peer(connection, peer) {
            self.wishes.hasten(now, &key);
        }
    }

    /// Nothing uses a child: from now on it waits for a packet.
    pub(super) fn child_idle(&mut self, connection: &str, child: &str, peer: IpAddr) {
        let Some((connection, child)) = self.find_child(connection, child) else {
            return;
        };
        let peer = connection.remote_addrs.is_empty().then_some(peer);
        let key = Key::new(&connection, &child, peer);
        let action = if child.may_trap() {
            StartAction::Trap
        } else {
            StartAction::None
        };
        self.wishes.rest(&key, &child, action);
        self.wishes.let_rest(&key);
    }

    fn want_again(&mut self, now: Instant, connection: &Connection, child: &Child, key: &Key) {
        if self.wishes.get(key).is_none() {
            let mut wish = Wish::between(None, key.peer);
            wish.tireless = true;
            self.wishes.add(connection, child, wish);
        }
        self.wishes.revive(now, key, &mut *self.cx.rng);
    }

    /// An IKE SA is gone, and with it what was to be made on it.
    pub(super) fn sa_ended(&mut self, now: Instant, connection: &str, peer: IpAddr) {
        for key in self.wishes.with_peer(connection, peer) {
            let at_work = |wish: &Wish| !wish.held && wish.not_before.is_none_or(|at| at <= now);
            if self.wishes.get(&key).is_some_and(at_work) {
                self.wish_failed(now, &key);
            }
        }
    }
}

//= rfc7296 2.23-1
//= rfc4555 3.1-1
/// From where to where a connection is started: towards another address of the peer with each try
/// that failed.
pub(super) fn start_path(
    connection: &Connection,
    wish: &Wish,
    own: &LocalAddresses,
) -> Option<Path> {
    let known = &connection.remote_addrs;
    let next = wish.failures as usize % known.len().max(1);
    let remote = wish.remote.or_else(|| known.get(next).copied())?;
    let of_family = |ip: &&IpAddr| ip.is_ipv4() == remote.is_ipv4();
    let unspecified = match remote {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let configured = connection.local_addrs.iter().find(of_family).copied();
    // What is known of late goes before what the configuration was read with.
    let routed = own.source(remote).or(connection.source);
    let routed = routed.filter(|ip| of_family(&ip));
    let local = wish.local.or(configured).or(routed).unwrap_or(unspecified);
    Some(Path {
        local: SocketAddr::new(local, IKE_PORT),
        remote: SocketAddr::new(remote, IKE_PORT),
    })
}
