//! IKE_SESSION_RESUME as initiator, RFC 5723 sections 4.3 and 5: an IKE SA made of one that was
//! lost. If that cannot be, it is made from scratch, without a pause.

use std::sync::Arc;
use std::time::Instant;

use crate::config::{Connection, Path};
use crate::context::Context;
use crate::crypto::secret::Secret;
use crate::error::NotResumed;
use crate::event::Event;
use crate::exchange::kept::Kept;
use crate::exchange::session::Session;
use crate::sa::auth::resumption_proof;
use crate::sa::auth_responder::offers;
use crate::sa::init::InitSent;
use crate::sa::task::ChildTask;
use crate::sa::{IkeSa, Phase};

/// A ticket is presented so often without answer: in these eight seconds, one message in three may
/// be lost. Who does not know what a ticket is stays silent.
pub(crate) const PATIENT_TRIES: u32 = 6;

impl IkeSa {
    //= rfc5723 4.3.2-2 5-3
    /// Begins an IKE SA of one that was lost, if what that was still fits the connection, else from
    /// scratch. `None` as [`initiate`](Self::initiate).
    pub(crate) fn resume(
        cx: &mut Context,
        now: Instant,
        connection: Arc<Connection>,
        path: Path,
        first: Option<ChildTask>,
        kept: Kept,
    ) -> Option<Self> {
        if !kept.session.fits(&connection, path) {
            return Self::initiate(cx, now, connection, path, first);
        }
        let init = InitSent::resume(cx, path, first, kept);
        Some(Self::begin_with(cx, now, connection, init))
    }

    /// Whether our IKE_SESSION_RESUME request is out, and no reply has come that could be one.
    pub(crate) fn presents_ticket(&self) -> bool {
        matches!(&self.phase, Phase::Init(init) if init.ticket.is_some())
    }

    //= rfc5723 4.3.2-1 4.3.3-3
    /// Proves that we know the keys of the old IKE SA. If the ends were proven by a shared secret
    /// then, it has to be the same still.
    pub(crate) fn prove_old(&mut self, cx: &mut Context, now: Instant) {
        let Phase::AuthInitiator(auth) = &self.phase else {
            return;
        };
        let session = auth.resumes.as_ref().map(|kept| &kept.session);
        match session.filter(|session| session.secret.is_some()) {
            Some(session) => {
                let (local, remote) = (session.local_id.clone(), session.remote_id.clone());
                self.ask_psk(cx, local, remote);
            }
            None => self.send_old_proof(cx, now),
        }
    }

    //= rfc5723 6.2-2
    /// The shared secret as it is now.
    pub(crate) fn on_old_secret(&mut self, cx: &mut Context, now: Instant, secret: Option<Secret>) {
        let Phase::AuthInitiator(auth) = &self.phase else {
            return;
        };
        let then = auth.resumes.as_ref().and_then(|kept| kept.session.secret);
        let tag = secret.map(|secret| cx.tickets.tag(&mut *cx.rng, &secret));
        if then.zip(tag).is_some_and(|(then, tag)| then.is(&tag)) {
            self.send_old_proof(cx, now);
        } else {
            self.fall_back(cx, now, NotResumed::SecretChanged);
        }
    }

    fn send_old_proof(&mut self, cx: &mut Context, now: Instant) {
        let (Phase::AuthInitiator(auth), Some(octets), Some(protection)) =
            (&self.phase, self.own_octets_initiator(), &self.protection)
        else {
            return;
        };
        let keys = &protection.keys;
        let body = auth.local_id.to_body();
        let proof = resumption_proof(keys.prf(), keys.sk_pi.expose(), &octets, body);
        self.send_auth(cx, now, &proof);
    }

    /// The ticket does not serve: the same IKE SA is made by a key exchange. Unless the responder
    /// was silent, which says nothing about the ticket, that is not presented once more.
    pub(crate) fn fall_back(&mut self, cx: &mut Context, now: Instant, reason: NotResumed) {
        let path = self.init().map_or(self.path, |init| init.path);
        let first = match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Init(init) => {
                let kept = init.ticket.and_then(Arc::into_inner);
                if let Some(kept) = kept.filter(|_| reason == NotResumed::NoAnswer) {
                    cx.kept.put(&self.connection, self.peer(), kept);
                }
                init.first
            }
            Phase::AuthInitiator(auth) => {
                if let Some(reason) = auth.closing.clone() {
                    self.phase = Phase::AuthInitiator(auth);
                    self.end(cx, reason);
                    return;
                }
                auth.first.within.or(auth.first.after)
            }
            other => {
                self.phase = other;
                return;
            }
        };
        cx.event(Event::NotResumed {
            connection: self.connection.name.clone(),
            path,
            reason,
        });
        let connection = Arc::clone(&self.connection);
        if let Some(new) = Self::initiate(cx, now, connection, path, first) {
            let (id, begun, alone) = (self.id, self.begun, self.alone);
            *self = Self {
                id,
                begun,
                alone,
                ..new
            };
        }
    }
}

impl Session {
    /// Whether it can be resumed on a connection as it is configured, between these addresses.
    pub(crate) fn fits(&self, connection: &Connection, path: Path) -> bool {
        let called = match &connection.local.id {
            Some(id) => id.matches(&self.local_id),
            None => self.local_id.matches(&path.local.ip().into()),
        };
        let peer = connection.remote.id.as_ref();
        let peer = peer.is_none_or(|id| id.matches(&self.remote_id));
        called && peer && offers(connection, &self.alg)
    }
}
