//! How long a proof of identity is good: RFC 7296 section 2.8.3, and RFC 4478, by which a
//! responder tells the initiator. The endpoint makes the new IKE SA.

use std::time::{Duration, Instant};

use crate::auth::ProvenBy;
use crate::context::{Context, Signal};
use crate::event::IkeSaId;
use crate::sa::payloads::Payloads;
use crate::sa::{IkeSa, Role};
use crate::timer::jittered;
use crate::wire::{Notify, NotifyType};

/// Jitter in per cent, so that not all peers are proven anew at once.
const JITTER_PERCENT: u32 = 10;
/// No peer makes us prove ourselves more often than this.
const SHORTEST: Duration = Duration::from_secs(10);

/// When a proof of identity grows old; an IKE SA passes it on to its successor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProofLife {
    /// When the IKE SA was begun on which they were.
    pub(crate) begun: Instant,
    /// When identities were proven.
    pub(crate) since: Instant,
    /// When they were by more than the ticket of an IKE SA that was lost.
    pub(crate) proven: Instant,
    /// By what the peer's was; `None`: by nothing yet.
    pub(crate) by: Option<ProvenBy>,
    /// When it is to be renewed.
    pub(crate) renew_at: Option<Instant>,
    /// When it is over.
    pub(crate) over_at: Option<Instant>,
}

impl ProofLife {
    /// A proof that is good for ever.
    pub(crate) fn endless(begun: Instant, since: Instant) -> Self {
        Self {
            begun,
            since,
            proven: since,
            by: None,
            renew_at: None,
            over_at: None,
        }
    }
}

/// A new IKE SA is to take over from an old one.
#[derive(Clone, Debug)]
pub(crate) struct Renewal {
    /// The new one.
    pub(crate) by: IkeSaId,
    /// Children that the new one was told to make.
    pub(crate) asked: Vec<String>,
    /// Whether the new one must have the children of the old one first.
    pub(crate) complete: bool,
    /// When the old one is closed.
    pub(crate) close_at: Option<Instant>,
}

impl Renewal {
    /// A renewal that has just begun.
    pub(crate) fn new(by: IkeSaId, complete: bool) -> Self {
        Self {
            by,
            asked: Vec::new(),
            complete,
            close_at: None,
        }
    }
}

impl IkeSa {
    /// Begins the time for which both proofs are good. `told` is what the responder says of that.
    pub(crate) fn begin_proof(&mut self, cx: &mut Context, now: Instant, told: Option<Duration>) {
        let connection = &self.connection;
        let slack = connection.margin();
        let proven = self.established().map_or(now, |e| e.proof.proven);
        let (mut renew_at, mut over_at) = (None, None);
        if let Some(time) = connection.peer.reauth_time {
            // A responder that has told how long leaves it to the initiator, and sees to it
            // itself if nothing comes.
            let time = match self.role {
                Role::Initiator => jittered(time, JITTER_PERCENT, &mut *cx.rng),
                Role::Responder => time.saturating_add(slack / 2),
            };
            renew_at = proven.checked_add(time);
            over_at = proven.checked_add(time.saturating_add(slack));
        }
        if let Some(established) = self.established_mut() {
            established.proof.renew_at = renew_at;
            established.proof.over_at = over_at;
        }
        self.limit_proof(cx, now, told);
    }

    /// The peer says for how long, from now, it takes our proof for good.
    fn limit_proof(&mut self, cx: &mut Context, now: Instant, told: Option<Duration>) {
        let Some(told) = told else {
            return;
        };
        let time = jittered(told, JITTER_PERCENT, &mut *cx.rng).max(SHORTEST);
        if let Some(established) = self.established_mut() {
            let renew_at = now.checked_add(time);
            established.proof.renew_at = earliest(established.proof.renew_at, renew_at);
        }
    }

    /// A responder may also say so later, in an INFORMATIONAL request (RFC 4478 section 3).
    pub(crate) fn on_auth_lifetime(
        &mut self,
        cx: &mut Context,
        now: Instant,
        payloads: &Payloads<'_>,
    ) {
        let told = auth_lifetime(payloads);
        self.limit_proof(cx, now, told);
    }

    /// As responder: what the initiator is told in IKE_AUTH.
    pub(crate) fn lifetime_notify(&self, now: Instant) -> Option<Notify<'static>> {
        let time = self.connection.peer.reauth_time?;
        let proven = self.established()?.proof.proven;
        let passed = now.saturating_duration_since(proven);
        Some(Notify::auth_lifetime(time.saturating_sub(passed)))
    }

    /// Whether it is time to prove anew; tells the endpoint if so.
    pub(crate) fn check_proof(&mut self, cx: &mut Context, now: Instant) {
        let id = self.id;
        let Some(established) = self.established_mut() else {
            return;
        };
        let due = established.proof.renew_at.is_some_and(|at| at <= now);
        if due && established.is_current() {
            established.proof.renew_at = None;
            cx.signals.push(Signal::Reauthenticate(id));
        }
    }
}

/// What an AUTH_LIFETIME notify says, RFC 4478 section 3.
pub(crate) fn auth_lifetime(payloads: &Payloads<'_>) -> Option<Duration> {
    payloads
        .notify(NotifyType::AUTH_LIFETIME)?
        .as_auth_lifetime()
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
