//! The list of wishes: what is under way with one costs nothing with the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::config::{Child, Connection, StartAction};
use crate::event::PacketFlow;
use crate::timer::jittered;

/// First pause before a start is tried again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Wishes from which failures with single peers of a connection that names none are forgotten:
/// programs on this host can ask for as many peers as a network has addresses.
const FAILURES_REMEMBERED: usize = 4096;

/// Names a child of a connection.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    pub(super) connection: String,
    /// With whom, for a connection that names no peer and so may be up with many.
    pub(super) peer: Option<IpAddr>,
    /// From which address of ours, where that is asked for and open: each has SAs of its own.
    pub(super) local: Option<IpAddr>,
    pub(super) child: String,
}

impl Key {
    pub(super) fn new(connection: &Connection, child: &Child, peer: Option<IpAddr>) -> Self {
        Self::named(&connection.name, &child.name, peer)
    }

    /// What a wish is known by.
    fn of_wish(connection: &Connection, child: &Child, wish: &Wish) -> Self {
        Self {
            local: wish.own(connection),
            ..Self::new(connection, child, wish.peer(connection))
        }
    }

    fn named(connection: &str, child: &str, peer: Option<IpAddr>) -> Self {
        Self {
            connection: connection.to_owned(),
            peer,
            local: None,
            child: child.to_owned(),
        }
    }

    /// Before all of a connection with this peer.
    fn before(connection: &str, peer: Option<IpAddr>) -> Self {
        Self::named(connection, "", peer)
    }

    /// Whether the two belong on the same IKE SAs.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        (&self.connection, self.peer, self.local) == (&other.connection, other.peer, other.local)
    }

    /// Whether it is one of this connection, and this child if one is named.
    fn is_of(&self, connection: &str, child: Option<&str>) -> bool {
        self.connection == connection && child.is_none_or(|child| self.child == child)
    }

    /// What is done about a child at first. Who names no peer does not start towards those who
    /// came by themselves.
    pub(super) fn first_action(&self, child: &Child) -> StartAction {
        match child.start_action {
            StartAction::Start if self.peer.is_some() => StartAction::Trap,
            action => action,
        }
    }
}

/// All wishes.
#[derive(Debug, Default)]
pub(in crate::endpoint) struct Wishes {
    open: BTreeMap<Key, Wish>,
    /// Children about which something else is done now than their start action says.
    resting: BTreeMap<Key, Rest>,
    /// To be looked at again.
    changed: BTreeSet<Key>,
    /// Those that wait for their time.
    waiting: BTreeSet<(Instant, Key)>,
    /// Failures with single peers, which may be forgotten.
    failures: BTreeSet<Key>,
    /// Wishes looked at, for tests that count work.
    visits: u64,
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
pub(in crate::endpoint) struct Wish {
    pub(in crate::endpoint) flow: Option<PacketFlow>,
    pub(in crate::endpoint) local: Option<IpAddr>,
    pub(in crate::endpoint) remote: Option<IpAddr>,
    /// It stays when it is fulfilled, and is tried for ever.
    pub(super) lasting: bool,
    /// It is tried until it is fulfilled.
    pub(super) tireless: bool,
    /// An operator wants it down, until somebody asks again.
    pub(super) held: bool,
    pub(super) failures: u32,
    /// Not to be tried before; `None`: at once.
    pub(super) not_before: Option<Instant>,
    /// Under what it waits in the queue.
    queued: Option<Instant>,
}

impl Wish {
    /// That a child be up with this peer, to be started from here, where the connection leaves
    /// these open.
    pub(in crate::endpoint) fn between(local: Option<IpAddr>, remote: Option<IpAddr>) -> Self {
        Self {
            local,
            remote,
            ..Self::default()
        }
    }

    /// With whom, where the connection leaves that open.
    pub(in crate::endpoint) fn peer(&self, connection: &Connection) -> Option<IpAddr> {
        self.remote.filter(|_| connection.remote_addrs.is_empty())
    }

    /// From where, where the connection leaves that open and names no peer.
    pub(in crate::endpoint) fn own(&self, connection: &Connection) -> Option<IpAddr> {
        let open = self.peer(connection).is_some() && connection.local_addrs.is_empty();
        self.local.filter(|_| open)
    }

    fn failed(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let pause = FIRST_PAUSE * 2u32.pow(self.failures.min(6));
        self.failures += 1;
        self.not_before = Some(now + jittered(pause.min(LONGEST_PAUSE), 25, rng));
    }
}

impl Wishes {
    /// Wishes for what starts by itself.
    pub(in crate::endpoint) fn add_starts(&mut self, connection: &Connection) {
        for child in &connection.children {
            if child.start_action == StartAction::Start {
                self.add(connection, child, Wish::default());
            }
        }
    }

    /// Wishes for a child.
    pub(in crate::endpoint) fn add(&mut self, connection: &Connection, child: &Child, wish: Wish) {
        let key = Key::of_wish(connection, child, &wish);
        let lasting = child.start_action == StartAction::Start && key.peer.is_none();
        let failures = self.open.get(&key).map_or(0, |wish| wish.failures);
        self.remove(&key);
        if self.failures.len() >= FAILURES_REMEMBERED {
            for key in std::mem::take(&mut self.failures) {
                self.remove(&key);
            }
        }
        let wish = Wish {
            lasting,
            tireless: wish.tireless || lasting,
            failures,
            ..wish
        };
        self.changed.insert(key.clone());
        self.open.insert(key, wish);
    }

    /// This wish.
    pub(super) fn get(&self, key: &Key) -> Option<&Wish> {
        self.open.get(key)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Wish)> {
        self.open.iter()
    }

    /// Whether it is to be come true.
    pub(super) fn is_open(&self, key: &Key) -> bool {
        self.open.get(key).is_some_and(|wish| !wish.held)
    }

    /// An operator wants a child: what was said before counts no more.
    pub(in crate::endpoint) fn release(&mut self, connection: &str, child: Option<&str>) {
        let keys = of_connection(&self.resting, connection);
        for key in keys.iter().filter(|key| key.is_of(connection, child)) {
            self.resting.remove(key);
        }
    }

    /// What is done about a child that is not up.
    pub(super) fn action(&self, key: &Key, child: &Child) -> StartAction {
        let rest = self.resting.get(key);
        rest.map_or(key.first_action(child), |rest| rest.action)
    }

    /// Whether packets may ask for a child. Of one for which they never may, nobody reports any.
    pub(in crate::endpoint) fn is_trapped(
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
    pub(super) fn rest(&mut self, key: &Key, child: &Child, action: StartAction) {
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
    pub(in crate::endpoint) fn is_pausing(
        &self,
        connection: &str,
        child: &str,
        (local, remote): (Option<IpAddr>, Option<IpAddr>),
        now: Instant,
    ) -> bool {
        let keys = [(None, None), (remote, None), (remote, local)];
        keys.into_iter().any(|(peer, local)| {
            let key = Key {
                local,
                ..Key::named(connection, child, peer)
            };
            let not_before = self.open.get(&key).and_then(|wish| wish.not_before);
            not_before.is_some_and(|at| at > now)
        })
    }

    /// Drops what somebody asked for, and holds what starts by itself: of one child, or of all.
    /// What packets ask for goes back to its trap. Says whether there was anything.
    pub(in crate::endpoint) fn hold(
        &mut self,
        connection: &Connection,
        child: Option<&str>,
    ) -> bool {
        let mut any = false;
        let keys = of_connection(&self.open, &connection.name);
        for key in keys.iter().filter(|key| key.is_of(&connection.name, child)) {
            any |= self.is_open(key);
            self.hold_one(key);
        }
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

    fn hold_one(&mut self, key: &Key) {
        match self.open.get_mut(key) {
            Some(wish) if wish.lasting => {
                wish.held = true;
                self.unqueue(key);
            }
            _ => self.remove(key),
        }
    }

    /// Holds what starts by itself, until it is lost or asked for once more.
    pub(super) fn hold_lasting(&mut self, key: &Key) {
        if self.open.get(key).is_some_and(|wish| wish.lasting) {
            self.hold_one(key);
        }
    }

    /// Holds it, whatever it is, until it is lost or asked for once more.
    pub(super) fn let_rest(&mut self, key: &Key) {
        self.unqueue(key);
        if let Some(wish) = self.open.get_mut(key) {
            wish.held = true;
        }
    }

    /// It need not wait any more.
    pub(super) fn hasten(&mut self, now: Instant, key: &Key) {
        if let Some(wish) = self.open.get_mut(key) {
            wish.not_before = wish.not_before.map(|at| at.min(now));
            self.changed.insert(key.clone());
        }
    }

    /// A connection is configured anew. What an operator closed stays so.
    pub(in crate::endpoint) fn change(&mut self, before: &Connection, after: &Connection) {
        let starts = |connection: &Connection, name: &str| {
            let mut children = connection.children.iter();
            children.any(|c| c.name == name && c.start_action == StartAction::Start)
        };
        let known = |name: &str| after.children.iter().any(|child| child.name == name);
        for key in of_connection(&self.open, &before.name) {
            let lasting = self.open.get(&key).is_some_and(|wish| wish.lasting);
            if !known(&key.child) || lasting && !starts(after, &key.child) {
                self.remove(&key);
            } else if let Some(wish) = self.open.get_mut(&key) {
                // What failed may do now.
                wish.not_before = None;
                wish.failures = 0;
                self.unqueue(&key);
                self.changed.insert(key);
            }
        }
        for key in of_connection(&self.resting, &before.name) {
            let held = self.resting.get(&key).is_some_and(|rest| rest.held);
            if !held || !known(&key.child) {
                self.resting.remove(&key);
            }
        }
        for child in &after.children {
            if starts(after, &child.name) && !starts(before, &child.name) {
                self.add(after, child, Wish::default());
            }
        }
    }

    /// Forgets all wishes of a connection.
    pub(in crate::endpoint) fn forget(&mut self, connection: &str) {
        for key in of_connection(&self.open, connection) {
            self.remove(&key);
        }
        self.release(connection, None);
    }

    /// Forgets all.
    pub(in crate::endpoint) fn clear(&mut self) {
        self.open.clear();
        self.changed.clear();
        self.waiting.clear();
        self.failures.clear();
    }

    /// What is wanted of a connection with this peer.
    pub(super) fn with_peer(&self, connection: &str, peer: IpAddr) -> Vec<Key> {
        self.with(connection, peer, |_| true)
    }

    /// What of it may be up from this address of ours.
    pub(super) fn with_pair(&self, connection: &str, own: IpAddr, peer: IpAddr) -> Vec<Key> {
        self.with(connection, peer, |key| {
            key.local.is_none_or(|local| local == own)
        })
    }

    fn with(&self, connection: &str, peer: IpAddr, which: impl Fn(&Key) -> bool) -> Vec<Key> {
        if self.open.is_empty() {
            return Vec::new();
        }
        let with = |peer: Option<IpAddr>| {
            let keys = self.open.range(Key::before(connection, peer)..);
            keys.map(|(key, _)| key)
                .take_while(move |key| key.connection == connection && key.peer == peer)
        };
        let all = with(None).chain(with(Some(peer)));
        all.filter(|key| which(key)).cloned().collect()
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, key: &Key) {
        self.unqueue(key);
        self.failures.remove(key);
        self.changed.remove(key);
        self.open.remove(key);
    }

    /// It came true: one that does not last is done with.
    pub(super) fn fulfilled(&mut self, key: &Key) {
        let Some(wish) = self.open.get_mut(key) else {
            return;
        };
        wish.failures = 0;
        wish.not_before = None;
        if !wish.lasting {
            self.remove(key);
        }
    }

    /// A try failed: there is a pause before the next one, unless there were `most` of them (0: no matter how
    /// many). How many there were, where that is enough.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        key: &Key,
        most: u32,
        rng: &mut dyn CryptoRng,
    ) -> Option<u32> {
        let wish = self.open.get_mut(key)?;
        wish.failed(now, rng);
        let tired = wish.tireless && most > 0 && wish.failures >= most;
        let given_up = (tired && !wish.held).then_some(wish.failures);
        // What somebody asked for waits to be asked for again, and not by every packet.
        wish.held |= tired || !wish.tireless;
        if wish.held && key.peer.is_some() {
            self.failures.insert(key.clone());
        }
        self.changed.insert(key.clone());
        given_up
    }

    /// It is tried again after a pause, whoever held it before.
    pub(super) fn revive(&mut self, now: Instant, key: &Key, rng: &mut dyn CryptoRng) {
        if let Some(wish) = self.open.get_mut(key) {
            wish.held = false;
            wish.failed(now, rng);
            self.failures.remove(key);
            self.changed.insert(key.clone());
        }
    }

    /// Has it looked at when its time comes.
    pub(super) fn queue(&mut self, key: &Key) {
        self.unqueue(key);
        if let Some(wish) = self.open.get_mut(key)
            && let Some(at) = wish.not_before
        {
            wish.queued = Some(at);
            self.waiting.insert((at, key.clone()));
        }
    }

    fn unqueue(&mut self, key: &Key) {
        let queued = self.open.get_mut(key).and_then(|wish| wish.queued.take());
        if let Some(at) = queued {
            self.waiting.remove(&(at, key.clone()));
        }
    }

    /// When the first of those that wait is due.
    pub(in crate::endpoint) fn next(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// What is to be looked at: what has changed, and whose time has come.
    pub(super) fn take_changed(&mut self, now: Instant) -> BTreeSet<Key> {
        let mut keys = std::mem::take(&mut self.changed);
        let due = self.waiting.iter().take_while(|(at, _)| *at <= now);
        keys.extend(due.map(|(_, key)| key.clone()));
        keys
    }

    /// What has changed since it was asked last, without taking it.
    pub(super) fn changed(&self) -> Vec<Key> {
        self.changed.iter().cloned().collect()
    }

    /// It is being looked at, and waits no more.
    pub(super) fn visit(&mut self, key: &Key) {
        self.visits += 1;
        self.unqueue(key);
    }

    /// How many wishes were looked at so far.
    #[cfg(feature = "testing")]
    pub(in crate::endpoint) fn visits(&self) -> u64 {
        self.visits
    }
}

fn of_connection<T>(map: &BTreeMap<Key, T>, connection: &str) -> Vec<Key> {
    let keys = map.range(Key::before(connection, None)..);
    keys.map(|(key, _)| key)
        .take_while(|key| key.connection == connection)
        .cloned()
        .collect()
}
