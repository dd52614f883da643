//! What operators and the data plane ask for, and a new configuration.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Endpoint;
use super::hints::ike_path;
use super::wishes::{Wish, start_path};
use crate::config::{Childless, Connection};
use crate::error::{CommandError, IkeFailure};
use crate::event::{ChildSaId, Command, IkeSaId, LocalAddresses};
use crate::sa::child::{ChildSa, ChildState};
use crate::sa::task::{RekeyIkeTask, Task};
use crate::sa::{IkeSa, Phase};

/// A shutdown waits for the peers' answers this long.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(4);

impl Endpoint {
    /// Does what an operator or the data plane asks.
    ///
    /// # Errors
    /// If the command names something that does not exist, or cannot be begun.
    pub fn handle_command(&mut self, now: Instant, command: Command) -> Result<(), CommandError> {
        let result = self.obey(now, command);
        self.settle(now);
        result
    }

    fn obey(&mut self, now: Instant, command: Command) -> Result<(), CommandError> {
        match command {
            Command::Initiate {
                connection,
                child,
                local,
            } => {
                self.wishes.release(&connection, child.as_deref());
                let wish = Wish::between(local, None);
                self.want(now, &connection, child.as_deref(), &wish)
            }
            Command::Acquire {
                connection,
                child,
                flow,
                remote,
                local,
            } => {
                let trapped = self
                    .find_child(&connection, &child)
                    .is_none_or(|(c, child)| self.wishes.is_trapped(&c, &child, remote));
                if !trapped
                    || self
                        .wishes
                        .is_pausing(&connection, &child, (local, remote), now)
                {
                    return Ok(());
                }
                let mut wish = Wish::between(local, remote);
                wish.flow = flow;
                self.want(now, &connection, Some(&child), &wish)
            }
            Command::Terminate { connection, child } => {
                self.terminate(now, &connection, child.as_deref())
            }
            Command::CloseIke(id) => {
                let closed = self.with(now, id, |sa, cx| {
                    let is_up = sa.established().is_some() && !sa.is_closing();
                    if is_up {
                        sa.close(cx, now, IkeFailure::Closed);
                    }
                    is_up
                });
                closed
                    .unwrap_or(false)
                    .then_some(())
                    .ok_or(CommandError::NoSuchSa)
            }
            Command::CloseChild(id) => {
                let is_up = |child: &ChildSa| child.state != ChildState::Deleting;
                let closed = self.with_child(now, id, |sa, _| {
                    let is_up = !sa.is_closing() && sa.child(id).is_some_and(is_up);
                    if is_up {
                        sa.delete_child(id);
                    }
                    is_up
                });
                closed
                    .unwrap_or(false)
                    .then_some(())
                    .ok_or(CommandError::NoSuchSa)
            }
            Command::RekeyIke { connection } => self.rekey_ike(now, &connection),
            Command::Reauthenticate { connection } => {
                self.connection(&connection)?;
                let id = self.current(&connection, None, None);
                let id = id.ok_or(CommandError::NotUp(connection))?;
                self.reauthenticate(now, id);
                Ok(())
            }
            Command::Redirect { connection, to } => self.redirect(now, &connection, to),
            Command::RekeyChild { connection, child } => self.rekey_child(now, &connection, &child),
            Command::InboundUsed(id) => {
                self.on_child(now, id, |sa, cx| sa.on_inbound_used(cx, id));
                Ok(())
            }
            Command::LocalAddresses(addresses) => {
                self.set_local_addresses(now, addresses);
                Ok(())
            }
            Command::PeerMoved { child, path } => {
                self.on_child(now, child, |sa, cx| sa.on_peer_moved(cx, path));
                Ok(())
            }
            Command::SoftExpired(id) => {
                self.on_child(now, id, |sa, _| sa.rekey_child(id));
                Ok(())
            }
            Command::HardExpired(id) => {
                self.on_child(now, id, |sa, cx| sa.expire_child(cx, id));
                Ok(())
            }
            Command::UnknownSpi { path, spi } => {
                self.on_unknown_esp(now, ike_path(path), spi);
                Ok(())
            }
            Command::PathTrouble { remote } => {
                self.doubt_peer(now, remote);
                Ok(())
            }
            Command::Shutdown => {
                self.begin_shutdown(now);
                Ok(())
            }
        }
    }

    fn set_local_addresses(&mut self, now: Instant, addresses: LocalAddresses) {
        let old = std::mem::replace(&mut self.cx.local, addresses);
        for id in self.sas.ids() {
            self.with(now, id, |sa, cx| sa.on_local_addresses(cx, &old));
        }
    }

    /// The addresses of all peers, where they are and where else they may be: those to which the
    /// sources in [`LocalAddresses`] are to be told.
    pub fn peers(&self) -> Vec<IpAddr> {
        let connections = self.cx.config.connections.iter();
        let configured = connections.flat_map(|connection| connection.remote_addrs.iter().copied());
        let known = self.sas.iter().flat_map(|sa| {
            let others = sa.mobility.peer_addresses.iter().copied();
            others.chain([sa.path.remote.ip()])
        });
        let all: BTreeSet<IpAddr> = configured.chain(known).collect();
        all.into_iter().collect()
    }

    /// An event of the data plane about a Child SA that may be gone already.
    fn on_child(
        &mut self,
        now: Instant,
        id: ChildSaId,
        act: impl FnOnce(&mut IkeSa, &mut crate::context::Context),
    ) {
        self.with_child(now, id, act);
    }

    fn want(
        &mut self,
        now: Instant,
        name: &str,
        child: Option<&str>,
        wish: &Wish,
    ) -> Result<(), CommandError> {
        if self.shutdown.is_some() {
            return Err(CommandError::ShuttingDown);
        }
        let connection = self.connection(name)?;
        if connection.children.is_empty() && connection.childless == Childless::Never {
            return Err(CommandError::NoChildren(name.to_owned()));
        }
        let (peer, own) = (wish.peer(&connection), wish.own(&connection));
        if self.current(name, peer, own).is_none()
            && start_path(&connection, wish, &self.cx.local).is_none()
        {
            return Err(CommandError::NoRemote(name.to_owned()));
        }
        if connection.children.is_empty() {
            self.start_childless(now, connection, wish);
            return Ok(());
        }
        let mut known = false;
        for conf in &connection.children {
            if child.is_none_or(|child| conf.name == child) {
                known = true;
                self.wishes.add(&connection, conf, wish.clone());
            }
        }
        match child {
            Some(child) if !known => Err(CommandError::UnknownChild {
                connection: name.to_owned(),
                child: child.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Begins the IKE SA of a connection that has no children, unless there is one.
    fn start_childless(&mut self, now: Instant, connection: Arc<Connection>, wish: &Wish) {
        if !self.ids_of(&connection.name).is_empty() {
            return;
        }
        let path = start_path(&connection, wish, &self.cx.local);
        let sa = path.and_then(|path| self.begin(now, connection, path, None));
        if let Some(sa) = sa {
            self.put(Box::new(sa));
        }
    }

    pub(super) fn connection(&self, name: &str) -> Result<Arc<Connection>, CommandError> {
        let connection = self.cx.directory.connection(name);
        connection
            .cloned()
            .ok_or_else(|| CommandError::UnknownConnection(name.to_owned()))
    }

    fn terminate(
        &mut self,
        now: Instant,
        name: &str,
        child: Option<&str>,
    ) -> Result<(), CommandError> {
        let connection = self.connection(name)?;
        if child.is_none() {
            self.cx.kept.forget_all(name);
        }
        let mut any = self.wishes.hold(&connection, child);
        for id in self.ids_of(name) {
            let acted = self.with(now, id, |sa, cx| match child {
                None => {
                    sa.close(cx, now, IkeFailure::Closed);
                    true
                }
                Some(child) => sa.close_children(child),
            });
            any |= acted == Some(true);
        }
        any.then_some(())
            .ok_or_else(|| CommandError::NotUp(name.to_owned()))
    }

    pub(super) fn ids_of(&self, connection: &str) -> Vec<IkeSaId> {
        self.sas
            .of_connection(connection)
            .filter(|sa| !matches!(sa.phase, Phase::Lingering { .. } | Phase::HalfOpen(_)))
            .map(|sa| sa.id)
            .collect()
    }

    fn rekey_ike(&mut self, now: Instant, name: &str) -> Result<(), CommandError> {
        self.connection(name)?;
        let id = self
            .current(name, None, None)
            .ok_or_else(|| CommandError::NotUp(name.to_owned()))?;
        self.with(now, id, |sa, _| {
            sa.tasks.push(Task::RekeyIke(RekeyIkeTask::default()));
        });
        Ok(())
    }

    fn rekey_child(&mut self, now: Instant, name: &str, child: &str) -> Result<(), CommandError> {
        self.connection(name)?;
        let ids: Vec<ChildSaId> = self
            .sas
            .of_connection(name)
            .filter(|sa| sa.is_current())
            .flat_map(|sa| &sa.children)
            .filter(|c| c.state == ChildState::Installed && c.info.child == child)
            .map(|c| c.info.id)
            .collect();
        if ids.is_empty() {
            return Err(CommandError::NotUp(name.to_owned()));
        }
        for id in ids {
            self.on_child(now, id, |sa, _| sa.rekey_child(id));
        }
        Ok(())
    }

    fn begin_shutdown(&mut self, now: Instant) {
        if self.shutdown.is_some() {
            return;
        }
        self.shutdown = Some(now + SHUTDOWN_PATIENCE);
        self.wishes.clear();
        self.cx.kept.clear();
        for id in self.sas.ids() {
            self.with(now, id, |sa, cx| match sa.phase {
                Phase::HalfOpen(_) | Phase::Lingering { .. } => sa.forget(cx),
                _ => sa.close(cx, now, IkeFailure::Closed),
            });
        }
    }

    /// Somebody says that packets do not reach a peer: it is asked. A start that waits between two
    /// repetitions goes on waiting.
    fn doubt_peer(&mut self, now: Instant, remote: IpAddr) {
        let ids: Vec<IkeSaId> = self.sas.with_host(remote).map(|sa| sa.id).collect();
        for id in ids {
            self.with(now, id, |sa, _| sa.suspect(now));
        }
    }

    /// Ends a shutdown that peers do not answer.
    pub(super) fn abandon(&mut self, now: Instant) {
        for id in self.sas.ids() {
            self.with(now, id, |sa, cx| sa.end(cx, IkeFailure::Closed));
        }
    }
}
