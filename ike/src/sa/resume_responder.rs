//! IKE_SESSION_RESUME as responder, RFC 5723 sections 4.3 and 5: an IKE SA that is half open, and
//! whose keys come from a ticket.

use std::sync::Arc;
use std::time::Instant;

use crate::config::{Connection, Path};
use crate::context::Context;
use crate::directory::fits_path;
use crate::error::{Dropped, IkeFailure};
use crate::exchange::session::{Policy, Session};
use crate::exchange::tickets::Presented;
use crate::identity::Identity;
use crate::keys::IkeKeys;
use crate::sa::auth::PeerProof;
use crate::sa::init_responder::BARE_NOTIFY;
use crate::sa::payloads::Payloads;
use crate::sa::protect::Protection;
use crate::sa::{IkeSa, Role};
use crate::wire::{ExchangeType, Message, Payload, emit_message};

/// The connection of a ticket, if the configuration as it is now would make the same IKE SA.
pub(crate) fn connection_of(
    cx: &Context,
    path: Path,
    session: &Session,
) -> Option<Arc<Connection>> {
    let connection = cx.directory.connection(&session.connection)?;
    let fits = connection.resumption.enabled
        && fits_path(connection, path)
        && session.policy == Policy::of(connection)
        && session.fits(connection, path);
    fits.then(|| Arc::clone(connection))
}

impl IkeSa {
    //= rfc5723 4.3.2-4 5-3
    /// Takes a ticket. Whoever has a copy of it can come so far; only who knows the keys of the
    /// IKE SA that it is of comes through IKE_AUTH.
    ///
    /// # Errors
    /// If that IKE SA had algorithms that obol has not any more. No state is left then.
    pub(crate) fn respond_resumed(
        cx: &mut Context,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        payloads: &Payloads<'_>,
        connection: Arc<Connection>,
        ticket: Presented,
    ) -> Result<Self, Dropped> {
        let ni = payloads.nonce.ok_or(Dropped::Incomplete)?;
        let nr = cx.nonce();
        let spi_i = message.header.spi_i;
        let spi_r = cx.new_ike_spi();
        let Session { alg, sk_d, .. } = &ticket.session;
        let protection = IkeKeys::resume(alg, sk_d, ni, &nr, spi_i, spi_r)
            .and_then(|keys| Protection::new(keys, Role::Responder))
            .map_err(|_| Dropped::TicketPolicy)?;
        let mut sa = Self::half_open(cx, now, path, payloads, connection, (spi_i, protection));
        sa.spi_r = spi_r;
        let reply = sa.resume_reply(path, payloads, &nr, message.octets.len())?;
        let resumes = Some(Box::new(ticket));
        sa.open_half(cx, now, message, payloads, (nr, reply), resumes);
        Ok(sa)
    }

    //= security S-32
    fn resume_reply(
        &self,
        path: Path,
        payloads: &Payloads<'_>,
        nr: &[u8],
        request_len: usize,
    ) -> Result<Vec<u8>, Dropped> {
        let mut reply = vec![Payload::Nonce(nr)];
        reply.extend(self.nat_answer(path, payloads));
        if self.fragmentation.is_agreed() {
            reply.extend(self.fragmentation_notify());
        }
        let header = self.header(ExchangeType::IKE_SESSION_RESUME, true, 0);
        let emit =
            |reply: &[Payload<'_>]| emit_message(&header, reply).map_err(|_| Dropped::Malformed);
        let room = request_len.saturating_sub(emit(&reply)?.len());
        reply.extend(self.childless_notify(room.saturating_sub(BARE_NOTIFY)));
        emit(&reply)
    }

    //= rfc5723 4.3.3-2 4.3.3-4
    /// The connection in IKE_AUTH: the configuration may have changed since the ticket came, and
    /// the ends must be those that it names.
    pub(crate) fn resumed_connection(
        &self,
        cx: &Context,
        session: &Session,
        peer: &PeerProof,
        wanted: Option<&Identity>,
    ) -> Result<Arc<Connection>, IkeFailure> {
        let refused = |reason: &str| IkeFailure::PeerNotProven {
            local: session.local_id.clone(),
            remote: peer.identity.clone(),
            reason: reason.to_owned(),
        };
        let same = peer.identity == session.remote_id
            && wanted.is_none_or(|wanted| *wanted == session.local_id);
        if !same {
            return Err(refused(
                "it presents a ticket of an IKE SA between other identities",
            ));
        }
        connection_of(cx, self.path, session).ok_or_else(|| {
            refused("the connection of its ticket has changed: it will come without a ticket")
        })
    }
}
