//! What is wanted up: children that start by themselves, and those that somebody asked for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Endpoint;
use crate::config::{Child, Connection, Path, StartAction};
use crate::event::{IkeSaId, PacketFlow};
use crate::exchange::nat::IKE_PORT;
use crate::sa::child::ChildState;
use crate::sa::task::{ChildTask, Task};
use crate::sa::{IkeSa, Phase};
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
pub(super) struct Wishes(BTreeMap<Key, Wish>);

/// That a child be up.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    pub(super) flow: Option<PacketFlow>,
    pub(super) local: Option<IpAddr>,
    pub(super) remote: Option<IpAddr>,
    /// It stays when it is fulfilled, and is tried for ever.
    pub(super) lasting: bool,
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
        if self.0.len() >= FAILURES_REMEMBERED {
            self.0.retain(|key, wish| key.peer.is_none() || !wish.held);
        }
        let lasting = child.start_action == StartAction::Start && key.peer.is_none();
        let failures = self.0.get(&key).map_or(0, |wish| wish.failures);
        let wish = Wish {
            lasting,
            failures,
            ..wish
        };
        self.0.insert(key, wish);
    }

    /// Whether the last try failed so lately that packets cannot ask for another one.
    pub(super) fn is_pausing(
        &self,
        connection: &str,
        child: &str,
        remote: Option<IpAddr>,
        now: Instant,
    ) -> bool {
        self.0.iter().any(|(key, wish)| {
            key.connection == connection
                && key.child == child
                && (key.peer.is_none() || key.peer == remote)
                && wish.not_before.is_some_and(|at| at > now)
        })
    }

    /// Drops what somebody asked for, and holds what starts by itself: of one child, or of all.
    /// Says whether there was anything.
    pub(super) fn hold(&mut self, connection: &str, child: Option<&str>) -> bool {
        let mut any = false;
        self.0.retain(|key, wish| {
            let meant =
                key.connection == connection && child.is_none_or(|child| key.child == child);
            any |= meant && !wish.held;
            wish.held |= meant;
            wish.lasting || !meant
        });
        any
    }

    /// Forgets all wishes of a connection.
    pub(super) fn forget(&mut self, connection: &str) {
        self.0.retain(|key, _| key.connection != connection);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
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
    /// When the next wish is to be tried.
    pub(super) fn next_start(&self) -> Option<Instant> {
        let open = |(key, wish): &(&Key, &Wish)| !wish.held && !self.is_cared_for(key);
        self.wishes
            .0
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
            .0
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
        let Some(wish) = self.wishes.0.get_mut(key) else {
            return;
        };
        wish.failures = 0;
        wish.not_before = None;
        if !wish.lasting {
            self.wishes.0.remove(key);
        }
    }

    fn start_wish(&mut self, now: Instant, key: &Key) {
        let Some(wish) = self.wishes.0.get(key).cloned() else {
            return;
        };
        if wish.not_before.is_some_and(|at| at > now) {
            return;
        }
        let Some((connection, child)) = self.find_child(&key.connection, &key.child) else {
            self.wishes.0.remove(key);
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
                self.wishes.0.remove(key);
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
        if let Some(wish) = self.wishes.0.get_mut(key) {
            wish.failed(now, &mut *self.cx.rng);
            // What somebody asked for waits to be asked for again, and not by every packet.
            wish.held |= !wish.lasting;
        }
    }

    /// What is wanted of a connection with this peer.
    fn wanted(&self, connection: &str, peer: IpAddr) -> Vec<Key> {
        let keys = self.wishes.0.keys();
        keys.filter(|key| key.connection == connection && is_peer(key.peer, peer))
            .cloned()
            .collect()
    }

    /// A Child SA is gone. What is wanted for ever comes again, after a pause: the peer may have
    /// had its reasons.
    pub(super) fn child_lost(&mut self, now: Instant, connection: &str, child: &str, peer: IpAddr) {
        for key in self.wanted(connection, peer) {
            if key.child != child || self.is_cared_for(&key) {
                continue;
            }
            if let Some(wish) = self.wishes.0.get_mut(&key)
                && wish.lasting
            {
                wish.failed(now, &mut *self.cx.rng);
            }
        }
    }

    /// An IKE SA is gone, and with it what was to be made on it.
    pub(super) fn sa_ended(&mut self, now: Instant, connection: &str, peer: IpAddr) {
        for key in self.wanted(connection, peer) {
            let at_work = |wish: &Wish| !wish.held && wish.not_before.is_none_or(|at| at <= now);
            if self.wishes.0.get(&key).is_some_and(at_work) {
                self.wish_failed(now, &key);
            }
        }
    }
}

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
