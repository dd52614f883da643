//! Tickets of an established IKE SA, RFC 5723 sections 4.1, 4.2 and 6.2: asked for, given, kept
//! when the IKE SA is lost, void when it ends otherwise.

use std::time::{Duration, Instant};

use crate::config::{Connection, LocalAuthMethod, Resumption};
use crate::context::Context;
use crate::crypto::secret::Secret;
use crate::error::IkeFailure;
use crate::exchange::kept::Kept;
use crate::exchange::session::{Policy, SecretTag, Session};
use crate::exchange::tickets::{MAX_TICKET, TicketId};
use crate::sa::payloads::Payloads;
use crate::sa::task::Task;
use crate::sa::{IkeSa, Request};
use crate::timer::jittered;
use crate::wire::{ExchangeType, Notify, NotifyType, Payload};

/// A ticket is asked for again no sooner than this.
const PAUSE: Duration = Duration::from_secs(30);
/// A ticket is replaced when so much of its time has passed, in per cent, less a jitter.
const RENEW_PERCENT: u32 = 70;
const JITTER_PERCENT: u32 = 20;

/// What an established IKE SA knows of its resumption.
#[derive(Default)]
pub(crate) struct Resumable {
    /// We began the first IKE SA, of which this one is a rekey of rekeys: only we resume it.
    pub(crate) ours: bool,
    /// It was made of one that was lost.
    pub(crate) resumed: bool,
    /// The shared secret by which the ends were proven, if they were by one.
    pub(crate) secret: Option<SecretTag>,
    /// The peer has said something about tickets.
    peer_can: bool,
    ticket: Option<Ticket>,
    /// When to ask for another ticket.
    pub(crate) ask_at: Option<Instant>,
    /// The ticket that we gave the peer.
    given: Option<TicketId>,
}

/// A ticket that the peer gave us.
struct Ticket {
    octets: Vec<u8>,
    expires: Instant,
}

impl Resumable {
    /// Of the IKE SA that replaces this one: a ticket is of one IKE SA alone.
    pub(crate) fn successor(&self) -> Self {
        Self {
            ours: self.ours,
            secret: self.secret,
            peer_can: self.peer_can,
            ..Self::default()
        }
    }
}

/// As initiator.
impl IkeSa {
    /// Asks for a ticket in IKE_AUTH.
    pub(crate) fn ticket_request(&self) -> Option<Payload<'static>> {
        let enabled = self.connection.resumption.enabled;
        let notify = Notify::bare(NotifyType::TICKET_REQUEST);
        enabled.then_some(Payload::Notify(notify))
    }

    //= rfc5723 4.1-1
    /// Asks for one later, in an exchange of its own.
    pub(crate) fn ask_ticket(&mut self, cx: &mut Context, now: Instant) {
        if let Some(payload) = self.ticket_request().filter(|_| self.may_ask_ticket()) {
            let exchange = ExchangeType::INFORMATIONAL;
            self.request(cx, now, exchange, &[payload], Request::Ticket);
        }
    }

    fn may_ask_ticket(&self) -> bool {
        let resumable = self.established().map(|e| &e.resumable);
        resumable.is_some_and(|r| r.ours && r.peer_can) && self.connection.resumption.enabled
    }

    /// What the answer says of tickets.
    pub(crate) fn learn_ticket(&mut self, cx: &mut Context, now: Instant, payloads: &Payloads<'_>) {
        let enabled = self.connection.resumption.enabled;
        let Some(established) = self
            .established_mut()
            .filter(|e| e.resumable.ours && enabled)
        else {
            return;
        };
        let resumable = &mut established.resumable;
        let given = payloads
            .notify(NotifyType::TICKET_LT_OPAQUE)
            .and_then(Notify::as_ticket)
            .filter(|(life, ticket)| !life.is_zero() && ticket.len() <= MAX_TICKET);
        let later = payloads.has(NotifyType::TICKET_ACK);
        resumable.peer_can |= given.is_some() || later || payloads.has(NotifyType::TICKET_NACK);
        if let Some((life, octets)) = given {
            let life = life.min(Resumption::LONGEST);
            resumable.ticket = Some(Ticket {
                octets: octets.to_vec(),
                expires: now + life,
            });
            let renew = jittered(life * RENEW_PERCENT / 100, JITTER_PERCENT, &mut *cx.rng);
            resumable.ask_at = Some(now + renew.max(PAUSE));
        } else if later {
            resumable.ask_at = Some(now + PAUSE);
        }
    }

    /// Whether it is time to ask for another ticket.
    pub(crate) fn check_ticket(&mut self, now: Instant) {
        if let Some(established) = self.established_mut().filter(|e| e.is_current())
            && established.resumable.ask_at.is_some_and(|at| at <= now)
        {
            established.resumable.ask_at = None;
            self.want_ticket();
        }
    }

    //= rfc5723 6.2-3
    /// Has a ticket asked for, where the peer has said that it knows of tickets.
    pub(crate) fn want_ticket(&mut self) {
        let waits = self.tasks.iter().any(|task| matches!(task, Task::Ticket));
        if self.may_ask_ticket() && !waits {
            self.tasks.push(Task::Ticket);
        }
    }
}

/// As responder.
impl IkeSa {
    //= rfc5723 4.1-2 4.1-3
    /// The answer to a request for a ticket, if there is one.
    pub(crate) fn give_ticket(
        &mut self,
        cx: &mut Context,
        now: Instant,
        payloads: &Payloads<'_>,
    ) -> Option<Notify<'static>> {
        if !payloads.has(NotifyType::TICKET_REQUEST) {
            return None;
        }
        let nack = Notify::bare(NotifyType::TICKET_NACK);
        Some(self.make_ticket(cx, now).unwrap_or(nack))
    }

    fn make_ticket(&mut self, cx: &mut Context, now: Instant) -> Option<Notify<'static>> {
        let established = self.established()?;
        let theirs = !established.resumable.ours && established.sent_to.is_none();
        // One that lost against another rekey, or may lose yet, ends by itself.
        if !theirs || established.closing.is_some() || !self.connection.resumption.enabled {
            return None;
        }
        let life = self.ticket_life(now)?;
        let session = self.session()?;
        let rng = &mut *cx.rng;
        let (id, ticket) = cx.tickets.issue(now, rng, self.id, &session, life)?;
        let resumable = &mut self.established_mut()?.resumable;
        if let Some(before) = resumable.given.replace(id) {
            cx.tickets.void(before);
        }
        Some(Notify::ticket(life, &ticket))
    }

    //= rfc5723 6.2-4 6.2-5
    /// No longer than this IKE SA, and than its peer counts as proven.
    fn ticket_life(&self, now: Instant) -> Option<Duration> {
        let established = self.established()?;
        let left = |at: Instant| at.saturating_duration_since(now);
        let reauth = self.connection.peer.reauth_time;
        let reauth = reauth.and_then(|time| established.proof.proven.checked_add(time));
        let lives = [established.over_at, reauth]
            .into_iter()
            .flatten()
            .map(left);
        let configured = self.connection.resumption.lifetime.min(Resumption::LONGEST);
        let life = lives.chain([configured]).min()?;
        (life >= Duration::from_secs(1)).then_some(life)
    }

    /// The ticket that we gave is good no more.
    pub(crate) fn void_ticket(&mut self, cx: &mut Context) {
        let given = self
            .established_mut()
            .and_then(|e| e.resumable.given.take());
        if let Some(given) = given {
            cx.tickets.void(given);
        }
    }
}

impl IkeSa {
    //= rfc5723 6.2-1 9.4-1
    /// It ends. If it was lost, because the peer is silent or has lost it, our ticket is kept, and
    /// the one that we gave stays good.
    pub(crate) fn settle_tickets(&mut self, cx: &mut Context, reason: &IkeFailure) {
        let silent = matches!(reason, IkeFailure::NoAnswer { .. });
        let lost = silent || *reason == IkeFailure::PeerCrashed;
        let session = self.session();
        let Some(established) = self.established_mut() else {
            return;
        };
        let current = established.is_current();
        let ticket = established.resumable.ticket.take();
        if !(silent && current) {
            self.void_ticket(cx);
        }
        if let (true, Some(ticket), Some(session)) = (lost && current, ticket, session)
            && self.connection.resumption.enabled
        {
            let kept = Kept {
                session,
                ticket: ticket.octets,
                expires: ticket.expires,
            };
            cx.kept.put(&self.connection, self.peer(), kept);
        }
    }

    /// What it can be resumed from. `None` if that would not say by which secret it was proven.
    fn session(&self) -> Option<Session> {
        let established = self.established()?;
        let keys = &self.protection.as_ref()?.keys;
        let secret = established.resumable.secret;
        let known = secret.is_some() || !takes_secret(&self.connection);
        known.then(|| Session {
            connection: self.connection.name.clone(),
            local_id: established.local_id.clone(),
            remote_id: established.remote_id.clone(),
            alg: *keys.algorithms(),
            sk_d: Secret::from(keys.sk_d.expose()),
            proven: established.proof.proven,
            policy: Policy::of(&self.connection),
            secret,
        })
    }

    /// What is remembered of a shared secret that has proven the ends.
    pub(crate) fn tag(&self, cx: &mut Context, secret: Option<&Secret>) -> Option<SecretTag> {
        let secret = secret.filter(|_| self.connection.resumption.enabled)?;
        Some(cx.tickets.tag(&mut *cx.rng, secret))
    }
}

/// Whether one of the ends proves itself by a shared secret.
fn takes_secret(connection: &Connection) -> bool {
    connection.local.method == LocalAuthMethod::Psk || connection.remote.method.takes_psk()
}
