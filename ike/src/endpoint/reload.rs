//! A new configuration at any time: what has not changed is not touched, what can be taken over
//! is, what must be negotiated again is made before the old one goes where that can be.

use std::sync::Arc;
use std::time::Instant;

use super::Endpoint;
use super::wishes::{Wish, start_path};
use crate::config::{Config, Connection, Path};
use crate::error::IkeFailure;
use crate::event::{IkeSaId, LocalAddresses};
use crate::sa::change::Fate;

impl Endpoint {
    /// Replaces the configuration.
    ///
    /// Connections that are equal in both keep everything. Of those that have changed, IKE SAs
    /// and Child SAs go on with what can be taken over (actions, times, liveness); other
    /// algorithms or selectors are negotiated by rekeys; other addresses or identities of ours
    /// by new IKE SAs, and the old ones go when these stand. What the new configuration has not,
    /// or would not accept from the peer, is closed with deletes. What starts by itself is begun.
    pub fn reload(&mut self, now: Instant, config: Arc<Config>) {
        let (old, known) = self.cx.set_config(Arc::clone(&config));
        for before in &old.connections {
            match self.cx.directory.connection(&before.name).cloned() {
                Some(after) if Arc::ptr_eq(&after, before) || after == *before => {}
                Some(after) => self.change(now, before, &after),
                None => {
                    self.wishes.forget(&before.name);
                    for id in self.ids_of(&before.name) {
                        self.with(now, id, |sa, cx| sa.close(cx, now, IkeFailure::Closed));
                    }
                }
            }
        }
        self.tidy();
        if self.shutdown.is_none() {
            for connection in &config.connections {
                if known.connection(&connection.name).is_none() {
                    self.wishes.add_starts(connection);
                }
            }
        }
        self.settle(now);
    }

    /// Adds connections behind those that are there, and begins what starts by itself. They have
    /// names that none of those has.
    pub fn add(&mut self, now: Instant, connections: &[Arc<Connection>]) {
        for connection in connections {
            self.cx.add_connection(connection);
            if self.shutdown.is_none() {
                self.wishes.add_starts(connection);
            }
        }
        self.settle(now);
    }

    /// Replaces the connection of this name, as [`reload`](Self::reload) would if nothing else had changed.
    pub fn replace(&mut self, now: Instant, connection: &Arc<Connection>) {
        if let Some(before) = self.cx.replace_connection(connection) {
            self.change(now, &before, connection);
            self.tidy();
            self.settle(now);
            return;
        }
        let mut config = (*self.cx.config).clone();
        let mut all = config.connections.iter_mut();
        if let Some(known) = all.find(|known| known.name == connection.name) {
            *known = Arc::clone(connection);
        }
        self.reload(now, Arc::new(config));
    }

    /// Forgets what was kept of connections that are not there any more, or are others.
    fn tidy(&mut self) {
        let directory = &self.cx.directory;
        self.cx
            .trail
            .keep(|name| directory.connection(name).is_some());
        let now_is = |name: &str| directory.connection(name).map(|connection| &**connection);
        self.cx.kept.keep(now_is);
    }

    fn change(&mut self, now: Instant, before: &Connection, after: &Arc<Connection>) {
        if self.shutdown.is_none() {
            self.wishes.change(before, after);
        }
        for id in self.ids_of(&before.name) {
            let fate = self.with(now, id, |sa, cx| sa.change_connection(cx, now, after));
            if fate == Some(Fate::Renew) {
                self.move_to(now, id, after);
            }
        }
    }

    /// An IKE SA that goes on only until a new one stands.
    fn move_to(&mut self, now: Instant, id: IkeSaId, connection: &Arc<Connection>) {
        let Some(old) = self.sas.get(id) else {
            return;
        };
        match new_path(connection, old.path, &self.cx.local) {
            Some(path) => {
                self.renew(now, id, Arc::clone(connection), path, None);
            }
            None => {
                self.with(now, id, |sa, cx| sa.close(cx, now, IkeFailure::Closed));
            }
        }
    }
}

/// Where to begin in place of an IKE SA on this path: there, if the connection still has it.
fn new_path(connection: &Connection, old: Path, own: &LocalAddresses) -> Option<Path> {
    let has = |list: &[std::net::IpAddr], ip| list.is_empty() || list.contains(&ip);
    let local = has(&connection.local_addrs, old.local.ip());
    if local && has(&connection.remote_addrs, old.remote.ip()) {
        return Some(old);
    }
    let wish = Wish::between(local.then(|| old.local.ip()), None);
    start_path(connection, &wish, own)
}
