//! An IKE SA on which both sides are proven.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::auth::AuthVerified;
use crate::context::{Context, Signal};
use crate::error::IkeFailure;
use crate::event::{Event, IkeSaId};
use crate::exchange::session::Session;
use crate::holdings::Mark;
use crate::identity::Identity;
use crate::sa::crash::Crash;
use crate::sa::doubt::Doubt;
use crate::sa::reauth::{ProofLife, Renewal};
use crate::sa::resumption::Resumable;
use crate::sa::task::Task;
use crate::sa::{IkeSa, Phase, Role};
use crate::timer::jittered;

/// Jitter of lifetimes, in per cent.
const LIFE_JITTER_PERCENT: u32 = 10;
/// The answer to a delete of the IKE SA is waited for this long: ten tries. Some peers answer
/// once and know nothing of it any more, so if that answer is lost, no other will come.
const DELETE_PATIENCE: Duration = Duration::from_secs(30);
/// The peer's delete of an IKE SA that it replaced is waited for this long, counted from its
/// last sign: longer than the pause between two retransmissions.
pub(crate) const REPLACED_PATIENCE: Duration = Duration::from_secs(90);
/// A peer that began an IKE SA, and then was silent for this long, is asked whether it has it.
const UNHEARD: Duration = Duration::from_secs(60);
/// A host behind a NAT sends a keepalive this often, RFC 3948 section 4.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(20);

/// What is true of an established IKE SA.
pub(crate) struct Established {
    /// What we proved to be.
    pub(crate) local_id: Identity,
    /// What the peer proved to be.
    pub(crate) remote_id: Identity,
    /// What tells it from others of this name.
    pub(crate) mark: Mark,
    /// Hash of these two, by whoever looks IKE SAs up by them.
    pub(crate) pair: OnceCell<u64>,
    pub(crate) since: Instant,
    pub(crate) rekey_at: Option<Instant>,
    pub(crate) over_at: Option<Instant>,
    pub(crate) liveness_at: Option<Instant>,
    /// How long its proof of identity is good.
    pub(crate) proof: ProofLife,
    /// Another IKE SA, made from scratch, is to take over from this one.
    pub(crate) renewal: Option<Renewal>,
    /// The lower of the two nonces that made it, which decides between two rekeys.
    pub(crate) lowest_nonce: Vec<u8>,
    /// Of IKE SAs with one peer, the one with the highest rank stays: that nonce of the first
    /// one, of which this one is a rekey of rekeys, so that no rekey turns the order around.
    pub(crate) rank: Vec<u8>,
    /// Whether the peer has shown that it, too, is done with making this IKE SA.
    pub(crate) heard: bool,
    /// Another IKE SA takes, or may take, the place of this one.
    pub(crate) succession: Succession,
    /// Our last reply put the peer off.
    pub(crate) put_off: bool,
    /// Since a request of ours was put off, the peer has asked for something that could not be done
    /// at the same time, and was put off, too.
    pub(crate) crossing: bool,
    /// What speaks for the peer's having lost this IKE SA.
    pub(crate) doubt: Doubt,
    /// It was reported as up.
    pub(crate) announced: bool,
    /// Why it is being closed.
    pub(crate) closing: Option<IkeFailure>,
    /// For the case that the peer loses its state, or has lost it.
    pub(crate) crash: Crash,
    /// Who can be sent to another gateway, if anybody: for life, whoever rekeys it.
    pub(crate) client: Option<Client>,
    /// Where we have sent the peer.
    pub(crate) sent_to: Option<IpAddr>,
    /// For the case that it is lost.
    pub(crate) resumable: Resumable,
}

/// Who began, and can be sent to another gateway (RFC 5685 section 10).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Client {
    /// We, and we go.
    Us,
    /// The peer.
    Peer,
}

/// Where an IKE SA stands in a rekey.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Succession {
    /// In none.
    #[default]
    None,
    /// The peer made a new IKE SA while a rekey of our own is open: RFC 7296 section 2.8.2.
    Contested {
        /// The peer's new IKE SA.
        by: IkeSaId,
        /// The lower nonce of the exchange that made it.
        lowest_nonce: Vec<u8>,
    },
    /// It is the peer's new IKE SA in such a contest; it may lose.
    Undecided,
    /// Replaced; only its deletion is left.
    Replaced,
}

impl Established {
    /// Takes the proof that the peer is who it claims to be; and when the IKE SA was begun.
    pub(crate) fn new(
        (verified, mark): (AuthVerified, Mark),
        (begun, now): (Instant, Instant),
        local_id: Identity,
        remote_id: Identity,
        lowest_nonce: Vec<u8>,
    ) -> Self {
        Self {
            proof: ProofLife {
                by: Some(verified.by()),
                ..ProofLife::endless(begun, now)
            },
            mark,
            ..Self::unproven(now, local_id, remote_id, lowest_nonce)
        }
    }

    /// It is made of one that was lost, by a ticket: identities are not proven anew.
    pub(crate) fn resume(&mut self, session: &Session) {
        self.proof.proven = session.proven;
        self.resumable.resumed = true;
        self.resumable.secret = session.secret;
    }

    /// The successor of an established IKE SA inherits its proof.
    pub(crate) fn successor(old: &Self, now: Instant, lowest_nonce: Vec<u8>) -> Self {
        let (local_id, remote_id) = (old.local_id.clone(), old.remote_id.clone());
        Self {
            proof: old.proof,
            mark: old.mark.clone(),
            renewal: old.renewal.clone(),
            client: old.client,
            sent_to: old.sent_to,
            rank: old.rank.clone(),
            resumable: old.resumable.successor(),
            ..Self::unproven(now, local_id, remote_id, lowest_nonce)
        }
    }

    fn unproven(
        now: Instant,
        local_id: Identity,
        remote_id: Identity,
        lowest_nonce: Vec<u8>,
    ) -> Self {
        Self {
            local_id,
            remote_id,
            mark: Mark::Address,
            pair: OnceCell::new(),
            since: now,
            rekey_at: None,
            over_at: None,
            liveness_at: None,
            proof: ProofLife::endless(now, now),
            renewal: None,
            rank: lowest_nonce.clone(),
            lowest_nonce,
            heard: false,
            succession: Succession::None,
            put_off: false,
            crossing: false,
            doubt: Doubt::default(),
            announced: false,
            closing: None,
            crash: Crash::default(),
            client: None,
            sent_to: None,
            resumable: Resumable::default(),
        }
    }

    /// Whether it is one of two in a rekey from both ends that is not decided yet.
    pub(crate) fn is_contest(&self) -> bool {
        let contest = matches!(
            self.succession,
            Succession::Contested { .. } | Succession::Undecided
        );
        contest && self.closing.is_none()
    }

    /// When it must be closed, if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let proof = self.proof.over_at.filter(|_| self.is_current());
        self.over_at.into_iter().chain(proof).min()
    }

    /// Whether new exchanges belong here.
    pub(crate) fn is_current(&self) -> bool {
        self.closing.is_none() && self.succession == Succession::None && !self.doubt.is_grave()
    }
}

impl IkeSa {
    //= rfc7296 2.8.1-1 2.23-9
    /// Enters the established phase: timers start.
    pub(crate) fn establish(
        &mut self,
        cx: &mut Context,
        now: Instant,
        mut established: Established,
    ) {
        self.mobility
            .first_peer
            .get_or_insert(self.path.remote.ip());
        let connection = &self.connection;
        let rekey_after = jittered(connection.rekey_time, LIFE_JITTER_PERCENT, &mut *cx.rng);
        established.rekey_at = now.checked_add(rekey_after);
        established.over_at = now.checked_add(connection.over_time);
        established.heard = self.role == Role::Initiator;
        let unheard = (!established.heard).then_some(UNHEARD);
        let delay = connection.dpd_delay.or(unheard);
        established.liveness_at = delay.and_then(|delay| now.checked_add(delay));
        if self.nat.local {
            self.keepalive_at = Some(now + KEEPALIVE);
        }
        self.phase = Phase::Established(Box::new(established));
    }

    /// Tells the operator that it is up.
    pub(crate) fn announce(&mut self, cx: &mut Context, rekey: bool) {
        let peer = self.peer();
        let Phase::Established(established) = &mut self.phase else {
            return;
        };
        established.announced = true;
        cx.kept.forget(&self.connection, peer);
        if self.role == Role::Responder {
            cx.signals.push(Signal::PeerCame {
                connection: self.connection.name.clone(),
                peer,
            });
        }
        cx.event(Event::IkeUp {
            id: self.id,
            connection: self.connection.name.clone(),
            initiator: self.role == Role::Initiator,
            remote_id: established.remote_id.clone(),
            took: established.since.saturating_duration_since(self.begun),
            rekey,
            resumed: established.resumable.resumed,
        });
    }

    //= rfc7296 2.8-4
    /// Closes the IKE SA: with a delete to the peer where it is established, else at once.
    pub(crate) fn close(&mut self, cx: &mut Context, now: Instant, reason: IkeFailure) {
        match &mut self.phase {
            Phase::Established(established) => {
                if established.closing.is_none() {
                    // Where another IKE SA made Child SAs of its own, the peer should hear by
                    // all means that those here are not received any more.
                    let patience = match reason {
                        IkeFailure::Replaced if !self.children.is_empty() => REPLACED_PATIENCE * 2,
                        _ => DELETE_PATIENCE,
                    };
                    established.closing = Some(reason);
                    established.over_at = Some(now + patience);
                    self.void_ticket(cx);
                    self.tasks.clear();
                    self.tasks.push(Task::DeleteIke);
                }
            }
            // The peer may be establishing it: it can be deleted when that is known.
            Phase::AuthInitiator(auth) if auth.is_sent() => auth.closing = Some(reason),
            _ => self.end(cx, reason),
        }
    }
}
