//! What is wanted up: children that start by themselves, and those that somebody asked for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Endpoint;
use crate::config::{Child, Connection, Path, StartAction};
use crate::context::Loss;
use crate::event::{IkeSaId, PacketFlow};
use crate::exchange::nat::IKE_PORT;
use crate::sa::child::ChildState;
use crate::sa::task::{ChildTask, Task};
use crate::sa::{IkeSa, Phase};
use crate::status::ChildOutlook;
use crate::timer::jittered;

/// First pause before a start is tried again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Wishes from which failures with single peers of a connection that names none are forgotten:
/// programs on this host can ask for as many peers as a network has addresses.
const FAILURES_REMEMBERED: usize = 4096;

/// Names a child of a connection.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Key {
    connection: String,
    child: String,
    /// With whom, for a connection that names no peer and so may be up with many.
    peer: Option<IpAddr>,
}

impl Key {
    fn new(connection: &Connection, child: &Child, peer: Option<IpAddr>) -> Self {
        Self {
            connection: connection.name.clone(),
            child: child.name.clone(),
            peer,
        }
    }

    /// Whether it is one of this connection, and this child if one is named.
    fn is_of(&self, connection: &str, child: Option<&str>) -> bool {
        self.connection == connection && child.is_none_or(|child| self.child == child)
    }

    /// What is done about a child at first. Who names no peer does not start towards those who
    /// came by themselves.
    fn first_action(&self, child: &Child) -> StartAction {
        match child.start_action {
            StartAction::Start if self.peer.is_some() => StartAction::Trap,
            action => action,
        }
    }

    /// Whether an IKE SA is the one on which this child belongs.
    fn is_with(&self, sa: &IkeSa) -> bool {
        sa.connection.name == self.connection && is_peer(self.peer, sa.path.remote.ip())
    }
}

fn is_peer(wanted: Option<IpAddr>, peer: IpAddr) -> bool {
    wanted.is_none_or(|wanted| wanted == peer)
}

/// All wishes.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    open: BTreeMap<Key, Wish>,
    /// Children about which something else is done now than their start action says.
    resting: BTreeMap<Key, Rest>,
}

/// What is done about a child while it is not up.
#[derive(Clone, Copy, Debug)]
struct Rest {
    action: StartAction,
    /// An operator closed it; only an operator changes that.
    held: bool,
}

/// That a child be up.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    pub(super) flow: Option<PacketFlow>,
    pub(super) local: Option<IpAddr>,
    pub(super) remote: Option<IpAddr>,
    /// It stays when it is fulfilled, and is tried for ever.
    pub(super) lasting: bool,
    /// It is tried until it is fulfilled.
    pub(super) tireless: bool,
    /// An operator wants it down, until somebody asks again.
    pub(super) held: bool,
    pub(super) failures: u32,
    /// Not to be tried before; `None`: at once.
    pub(super) not_before: Option<Instant>,
}

impl Wishes {
    /// Wishes for what starts by itself.
    pub(super) fn add_starts(&mut self, connection: &Connection) {
        for child in &connection.children {
            if child.start_action == StartAction::Start {
                self.add(connection, child, Wish::default());
            }
        }
    }

    /// Wishes for a child.
    pub(super) fn add(&mut self, connection: &Connection, child: &Child, wish: Wish) {
        let key = Key::new(connection, child, wish.peer(connection));
        if self.open.len() >= FAILURES_REMEMBERED {
            self.open
                .retain(|key, wish| key.peer.is_none() || !wish.held);
        }
        let lasting = child.start_action == StartAction::Start && key.peer.is_none();
        let failures = self.open.get(&key).map_or(0, |wish| wish.failures);
        let wish = Wish {
            lasting,
            tireless: wish.tireless || lasting,
            failures,
            ..wish
        };
        self.open.insert(key, wish);
    }

    /// An operator wants a child: what was said before counts no more.
    pub(super) fn release(&mut self, connection: &str, child: Option<&str>) {
        self.resting.retain(|key, _| !key.is_of(connection, child));
    }

    /// What is done about a child that is not up.
    fn action(&self, key: &Key, child: &Child) -> StartAction {
        let rest = self.resting.get(key);
        rest.map_or(key.first_action(child), |rest| rest.action)
    }

    /// Whether packets may ask for a child. Of one for which they never may, nobody reports any.
    pub(super) fn is_trapped(
        &self,
        connection: &Connection,
        child: &Child,
        peer: Option<IpAddr>,
    ) -> bool {
        let peer = peer.filter(|_| connection.remote_addrs.is_empty());
        let action = self.action(&Key::new(connection, child, peer), child);
        action != StartAction::None || !child.may_trap()
    }

    /// A child was lost: from now on this is done about it.
    fn rest(&mut self, key: &Key, child: &Child, action: StartAction) {
        if self.resting.get(key).is_some_and(|rest| rest.held) {
            return;
        }
        if action == key.first_action(child) {
            self.resting.remove(key);
        } else if self.resting.len() < FAILURES_REMEMBERED {
            let rest = Rest {
                action,
                held: false,
            };
            self.resting.insert(key.clone(), rest);
        }
    }

    /// Whether the last try failed so lately that packets cannot ask for another one.
    pub(super) fn is_pausing(
        &self,
        connection: &str,
        child: &str,
        remote: Option<IpAddr>,
        now: Instant,
    ) -> bool {
        self.open.iter().any(|(key, wish)| {
            key.connection == connection
                && key.child == child
                && (key.peer.is_none() || key.peer == remote)
                && wish.not_before.is_some_and(|at| at > now)
        })
    }

    /// Drops what somebody asked for, and holds what starts by itself: of one child, or of all.
    /// What packets ask for goes back to its trap. Says whether there was anything.
    pub(super) fn hold(&mut self, connection: &Connection, child: Option<&str>) -> bool {
        let mut any = false;
        self.open.retain(|key, wish| {
            let meant = key.is_of(&connection.name, child);
            any |= meant && !wish.held;
            wish.held |= meant;
            wish.lasting || !meant
        });
        self.release(&connection.name, child);
        let starts = |conf: &&Arc<Child>| conf.start_action == StartAction::Start;
        for conf in connection.children.iter().filter(starts) {
            if child.is_none_or(|child| conf.name == child) {
                let rest = Rest {
                    action: StartAction::None,
                    held: true,
                };
                self.resting.insert(Key::new(connection, conf, None), rest);
            }
        }
        any
    }

    /// Forgets all wishes of a connection.
    pub(super) fn forget(&mut self, connection: &str) {
        self.open.retain(|key, _| key.connection != connection);
        self.release(connection, None);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }
}

impl Wish {
    /// With whom, where the connection leaves that open.
    pub(super) fn peer(&self, connection: &Connection) -> Option<IpAddr> {
        self.remote.filter(|_| connection.remote_addrs.is_empty())
    }

    fn failed(&mut self, now: Instant, rng: &mut dyn rand_core::CryptoRng) {
        let pause = FIRST_PAUSE * 2u32.pow(self.failures.min(6));
        self.failures += 1;
        self.not_before = Some(now + jittered(pause.min(LONGEST_PAUSE), 25, rng));
    }
}

impl Endpoint {
    /// What is to be expected of each configured child, in the order of the configuration. Of
    /// several peers of a connection that names none, the next one to be tried.
    pub fn outlook(&self, now: Instant) -> Vec<ChildOutlook> {
        let mut next: BTreeMap<(&str, &str), (Option<Instant>, u32)> = BTreeMap::new();
        for (key, wish) in &self.wishes.open {
            let entry = next.entry((&key.connection, &key.child)).or_default();
            entry.1 = entry.1.max(wish.failures);
            if !wish.held && wish.not_before.is_some() && !self.is_cared_for(key) {
                entry.0 = entry.0.min(wish.not_before).or(wish.not_before);
            }
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

    /// When the next wish is to be tried.
    pub(super) fn next_start(&self) -> Option<Instant> {
        let open = |(key, wish): &(&Key, &Wish)| !wish.held && !self.is_cared_for(key);
        self.wishes
            .open
            .iter()
            .filter(open)
            .filter_map(|(_, wish)| wish.not_before)
            .min()
    }

    /// Whether a child is up, somebody is at it, or it has to wait.
    fn is_cared_for(&self, key: &Key) -> bool {
        self.of_key(key).any(|sa| match &sa.phase {
            Phase::Init(_) | Phase::AuthInitiator(_) => true,
            // Which IKE SA goes on is decided within a round trip.
            Phase::Established(established) if established.is_contest() => true,
            _ => sa.is_current() && sa.cares_for(&key.child),
        })
    }

    fn is_up(&self, key: &Key) -> bool {
        self.of_key(key)
            .filter(|sa| sa.is_current())
            .flat_map(|sa| &sa.children)
            .any(|c| c.info.child == key.child && c.state == ChildState::Installed)
    }

    /// The IKE SAs of a connection.
    pub(super) fn of_connection<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a IkeSa> {
        self.sas
            .values()
            .filter(move |sa| sa.connection.name == name)
    }

    fn of_key<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a IkeSa> {
        self.sas.values().filter(|sa| key.is_with(sa))
    }

    /// The IKE SA of a connection, and with this peer if one is named, on which new exchanges begin. Of several, the one that stays:
    /// both ends find the same.
    pub(super) fn current(&self, connection: &str, peer: Option<IpAddr>) -> Option<IkeSaId> {
        self.of_connection(connection)
            .filter(|sa| sa.is_current() && is_peer(peer, sa.path.remote.ip()))
            .max_by_key(|sa| sa.established().map(|e| e.lowest_nonce.clone()))
            .map(|sa| sa.id)
    }

    /// Begins what is wanted and nobody is at.
    pub(super) fn start_wishes(&mut self, now: Instant) {
        let keys: Vec<Key> = self
            .wishes
            .open
            .iter()
            .filter(|(_, wish)| !wish.held)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            if self.is_up(&key) {
                self.fulfilled(&key);
            } else if !self.is_cared_for(&key) {
                self.start_wish(now, &key);
            }
        }
    }

    fn fulfilled(&mut self, key: &Key) {
        let Some(wish) = self.wishes.open.get_mut(key) else {
            return;
        };
        wish.failures = 0;
        wish.not_before = None;
        if !wish.lasting {
            self.wishes.open.remove(key);
        }
    }

    fn start_wish(&mut self, now: Instant, key: &Key) {
        let Some(wish) = self.wishes.open.get(key).cloned() else {
            return;
        };
        if wish.not_before.is_some_and(|at| at > now) {
            return;
        }
        let Some((connection, child)) = self.find_child(&key.connection, &key.child) else {
            self.wishes.open.remove(key);
            return;
        };
        let task = ChildTask::new(child, wish.flow, None);
        if let Some(id) = self.current(&key.connection, key.peer) {
            self.with(now, id, |sa, _| sa.tasks.push(Task::Child(task)));
            return;
        }
        let path = start_path(&connection, &wish);
        let sa = path.and_then(|path| IkeSa::initiate(&mut self.cx, now, connection, path, task));
        match sa {
            Some(sa) => self.put(sa),
            // Nothing to start towards, or nothing to start with: no use in trying again.
            None => {
                self.wishes.open.remove(key);
            }
        }
    }

    pub(super) fn find_child(
        &self,
        connection: &str,
        child: &str,
    ) -> Option<(Arc<Connection>, Arc<Child>)> {
        let connections = &self.cx.config.connections;
        let connection = connections.iter().find(|c| c.name == connection)?;
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
        for key in self.wanted(connection, peer) {
            if key.child == child {
                self.wish_failed(now, &key);
            }
        }
    }

    fn wish_failed(&mut self, now: Instant, key: &Key) {
        if self.is_cared_for(key) {
            return;
        }
        if let Some(wish) = self.wishes.open.get_mut(key) {
            wish.failed(now, &mut *self.cx.rng);
            // What somebody asked for waits to be asked for again, and not by every packet.
            wish.held |= !wish.tireless;
        }
    }

    /// What is wanted of a connection with this peer.
    fn wanted(&self, connection: &str, peer: IpAddr) -> Vec<Key> {
        let keys = self.wishes.open.keys();
        keys.filter(|key| key.connection == connection && is_peer(key.peer, peer))
            .cloned()
            .collect()
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
        } else if let Some(wish) = self.wishes.open.get_mut(&key) {
            wish.held |= wish.lasting;
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
            if action != StartAction::None && !self.wishes.open.contains_key(&key) {
                let wish = Wish {
                    remote,
                    ..Wish::default()
                };
                self.wishes.add(&connection, &child, wish);
            }
        }
    }

    /// A peer has shown itself: what is to be up with it is tried now.
    pub(super) fn hasten(&mut self, now: Instant, connection: &str, peer: IpAddr) {
        for key in self.wanted(connection, peer) {
            if let Some(wish) = self.wishes.open.get_mut(&key) {
                wish.not_before = wish.not_before.map(|at| at.min(now));
            }
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
        if let Some(wish) = self.wishes.open.get_mut(&key) {
            wish.held = true;
        }
    }

    fn want_again(&mut self, now: Instant, connection: &Connection, child: &Child, key: &Key) {
        if !self.wishes.open.contains_key(key) {
            let wish = Wish {
                remote: key.peer,
                tireless: true,
                ..Wish::default()
            };
            self.wishes.add(connection, child, wish);
        }
        if let Some(wish) = self.wishes.open.get_mut(key) {
            wish.held = false;
            wish.failed(now, &mut *self.cx.rng);
        }
    }

    /// An IKE SA is gone, and with it what was to be made on it.
    pub(super) fn sa_ended(&mut self, now: Instant, connection: &str, peer: IpAddr) {
        for key in self.wanted(connection, peer) {
            let at_work = |wish: &Wish| !wish.held && wish.not_before.is_none_or(|at| at <= now);
            if self.wishes.open.get(&key).is_some_and(at_work) {
                self.wish_failed(now, &key);
            }
        }
    }
}

//= rfc7296 2.23-1
/// From where to where a connection is started.
pub(super) fn start_path(connection: &Connection, wish: &Wish) -> Option<Path> {
    let remote = wish
        .remote
        .or_else(|| connection.remote_addrs.first().copied())?;
    let of_family = |ip: &&IpAddr| ip.is_ipv4() == remote.is_ipv4();
    let unspecified = match remote {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let configured = connection.local_addrs.iter().find(of_family).copied();
    let routed = connection.source.filter(|ip| of_family(&ip));
    let local = wish.local.or(configured).or(routed).unwrap_or(unspecified);
    Some(Path {
        local: SocketAddr::new(local, IKE_PORT),
        remote: SocketAddr::new(remote, IKE_PORT),
    })
}
