//! An IKE SA whose connection was configured anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Child, Connection, LocalAuthMethod};
use crate::context::Context;
use crate::error::IkeFailure;
use crate::event::ChildSaId;
use crate::sa::auth_responder::offers;
use crate::sa::child::{ChildSa, ChildState};
use crate::sa::established::Established;
use crate::sa::generate::made_anew;
use crate::sa::negotiate::{selectors, within};
use crate::sa::task::{RekeyIkeTask, Task};
use crate::sa::{IkeSa, Phase};

/// How long an SA goes on that the configuration would not make any more.
const GRACE: Duration = Duration::from_secs(30);

/// What becomes of an IKE SA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// It goes on, or is being closed.
    Settled,
    /// It goes on until a new one stands.
    Renew,
}

impl IkeSa {
    /// Goes over to what its connection is now, as far as that can be.
    pub(crate) fn change_connection(
        &mut self,
        cx: &mut Context,
        now: Instant,
        after: &Arc<Connection>,
    ) -> Fate {
        if self.established().is_none() {
            self.change_handshake(cx, now, after);
            return Fate::Settled;
        }
        let before = std::mem::replace(&mut self.connection, Arc::clone(after));
        if self.is_closing() {
            return Fate::Settled;
        }
        if self
            .established()
            .is_some_and(|e| !accepts(after, &before, e))
        {
            self.close(cx, now, IkeFailure::Closed);
            return Fate::Settled;
        }
        self.change_times(cx, now, &before);
        self.adapt_children(now);
        if self.must_be_made_anew(&before) {
            if let Some(established) = self.established_mut() {
                let over_at = now + GRACE;
                established.proof.over_at = Some(over_at);
                established.renewal = None;
            }
            return Fate::Renew;
        }
        let alg = self.protection.as_ref().map(|p| *p.keys.algorithms());
        let rekeys = self.tasks.iter().any(|t| matches!(t, Task::RekeyIke(_)));
        if alg.is_some_and(|alg| !offers(after, &alg)) && !rekeys {
            self.tasks.push(Task::RekeyIke(RekeyIkeTask::default()));
        }
        Fate::Settled
    }

    /// Before it is established: it goes on if the handshake would be the same.
    fn change_handshake(&mut self, cx: &mut Context, now: Instant, after: &Arc<Connection>) {
        if same_handshake(&self.connection, after) {
            self.connection = Arc::clone(after);
        } else if matches!(self.phase, Phase::AuthResponder(_)) {
            self.refuse(cx, now, IkeFailure::Closed);
        } else {
            self.close(cx, now, IkeFailure::Closed);
        }
    }

    /// Times that run anew; those of rekeys count from the next one on.
    fn change_times(&mut self, cx: &mut Context, now: Instant, before: &Connection) {
        let delay = self.connection.dpd_delay;
        let reauth = self.connection.peer.reauth_time;
        if let Some(established) = self.established_mut() {
            if before.dpd_delay != delay && (delay.is_some() || established.heard) {
                established.liveness_at = delay.and_then(|delay| now.checked_add(delay));
            }
            if before.peer.reauth_time == reauth {
                return;
            }
            self.begin_proof(cx, now, None);
        }
    }

    /// Whether what was agreed on with the peer cannot be changed on this IKE SA.
    fn must_be_made_anew(&self, before: &Connection) -> bool {
        let after = &self.connection;
        let local = |method: &LocalAuthMethod, other: &LocalAuthMethod| method != other;
        let id = self.established().is_some_and(|e| {
            let configured = after.local.id.as_ref();
            configured.is_some_and(|id| !id.matches(&e.local_id))
        });
        let has = |list: &[std::net::IpAddr], ip| list.is_empty() || list.contains(&ip);
        let moved = !has(&after.local_addrs, self.path.local.ip())
            || !has(&after.remote_addrs, self.path.remote.ip());
        id || moved
            || local(&after.local.method, &before.local.method)
            || (after.force_encap, after.nat_traversal)
                != (before.force_encap, before.nat_traversal)
    }

    /// Brings all Child SAs into line with their configuration.
    fn adapt_children(&mut self, now: Instant) {
        let (connection, children) = (&self.connection, &self.children);
        let conf_of = |name: &str| {
            let mut confs = connection.children.iter();
            let found = confs.find(|conf| conf.name == name).cloned();
            found.or_else(|| {
                let child = children.iter().find(|child| child.info.child == name)?;
                made_anew(connection, &child.conf)
            })
        };
        self.tasks.change_children(conf_of);
        let ids: Vec<ChildSaId> = self.children.iter().map(|child| child.info.id).collect();
        for id in ids {
            self.adapt_child(now, id);
        }
    }

    /// Brings a Child SA into line with its configuration, which may have changed while it was
    /// being made.
    pub(crate) fn adapt_child(&mut self, now: Instant, id: ChildSaId) {
        let path = self.path;
        let Some(child) = self.children.iter_mut().find(|child| child.info.id == id) else {
            return;
        };
        let mut confs = self.connection.children.iter();
        let found = confs.find(|conf| conf.name == child.info.child).cloned();
        let Some(conf) = found.or_else(|| made_anew(&self.connection, &child.conf)) else {
            self.delete_child(id);
            return;
        };
        if conf == child.conf || child.state == ChildState::Deleting {
            return;
        }
        let before = std::mem::replace(&mut child.conf, Arc::clone(&conf));
        child.enough = false;
        if conf.mode != before.mode || self.is_beyond(id, conf.queues) {
            self.delete_child(id);
            return;
        }
        let Some(child) = self.child_mut(id) else {
            return;
        };
        if !same_agreement(&conf, &before) {
            child.reselect = true;
            let (local, remote) = selectors(&conf, path);
            let kept =
                within(&child.info.local_ts, &local) && within(&child.info.remote_ts, &remote);
            if !kept {
                end_by(child, now + GRACE);
            }
            if child.state == ChildState::Installed && child.rekeyed_by_peer.is_none() {
                self.rekey_child(id);
            }
        }
    }
}

fn end_by(child: &mut ChildSa, at: Instant) {
    child.life_at = Some(child.life_at.map_or(at, |life| life.min(at)));
}

/// Whether a handshake that began with one could have begun with the other.
fn same_handshake(a: &Connection, b: &Connection) -> bool {
    (&a.local_addrs, &a.remote_addrs, &a.source) == (&b.local_addrs, &b.remote_addrs, &b.source)
        && a.ike_proposals == b.ike_proposals
        && (&a.local, &a.remote) == (&b.local, &b.remote)
        && (a.force_encap, a.nat_traversal) == (b.force_encap, b.nat_traversal)
        && a.allow_sha1_rsa == b.allow_sha1_rsa
        && (a.resumption.enabled, &a.children) == (b.resumption.enabled, &b.children)
}

/// Whether what was negotiated for one serves the other.
fn same_agreement(a: &Child, b: &Child) -> bool {
    (&a.local_ts, &a.remote_ts, &a.esp_proposals) == (&b.local_ts, &b.remote_ts, &b.esp_proposals)
        && a.spi_half == b.spi_half
}

/// Whether the peer would still be accepted with what it has proven.
fn accepts(after: &Connection, before: &Connection, established: &Established) -> bool {
    let id = after.remote.id.as_ref();
    let id = id.is_none_or(|id| id.matches(&established.remote_id));
    let (new, old) = (&after.remote.method, &before.remote.method);
    let keys = old.keys().iter().all(|key| new.keys().contains(key));
    let method = keys
        && (new.takes_psk() || !old.takes_psk())
        && (new.takes_signatures() || !old.takes_signatures());
    let signatures = before.remote.signatures.is_within(after.remote.signatures);
    id && method && signatures
}
