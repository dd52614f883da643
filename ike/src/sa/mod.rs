//! One IKE SA.
//!
//! ```text
//!  initiator   Init ------> AuthInitiator --.
//!                                            >--> Established --> Gone
//!  responder   HalfOpen --> AuthResponder --'
//! ```
//! A phase changes by authenticated input only (IKE_SA_INIT and IKE_SESSION_RESUME, which AUTH
//! covers later, aside).
//! Exchanges in flight are no phases: what we asked stands in `requests`, what the peer asked
//! in `replies` and `in_work`.

pub(crate) mod addresses;
pub(crate) mod auth;
pub(crate) mod auth_initiator;
pub(crate) mod auth_responder;
pub(crate) mod change;
pub(crate) mod child;
pub(crate) mod childless;
pub(crate) mod claims;
pub(crate) mod crash;
pub(crate) mod create_child;
pub(crate) mod create_child_reply;
pub(crate) mod doubt;
pub(crate) mod end;
pub(crate) mod established;
pub(crate) mod fragment;
mod generate;
pub(crate) mod informational;
pub(crate) mod init;
pub(crate) mod init_reply;
pub(crate) mod init_responder;
pub(crate) mod methods;
pub(crate) mod mobike;
pub(crate) mod negotiate;
pub(crate) mod others;
pub(crate) mod outbound;
pub(crate) mod path;
pub(crate) mod payloads;
pub(crate) mod protect;
pub(crate) mod queues;
pub(crate) mod reauth;
pub(crate) mod receive;
pub(crate) mod redirect;
pub(crate) mod rekey_ike;
pub(crate) mod resume_initiator;
pub(crate) mod resume_responder;
pub(crate) mod resumption;
pub(crate) mod send;
pub(crate) mod status;
pub(crate) mod task;
pub(crate) mod timers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Connection, Path};
use crate::event::{ChildSaId, IkeSaId, IkeSpi};
use crate::exchange::limit::Limit;
use crate::exchange::nat::Nat;
use crate::exchange::windows::{ReplyWindow, RequestWindow};
use crate::holdings::{Mark, want_same_proof};
use crate::wire::Header;
use auth_initiator::AuthInitiator;
use auth_responder::AuthResponder;
use child::ChildSa;
use claims::Claims;
use create_child::ChildRequest;
use create_child_reply::InWork;
use established::Established;
use fragment::Fragmentation;
use init::InitSent;
use init_responder::HalfOpen;
use mobike::{Mobility, MoveRequest};
use protect::Protection;
use rekey_ike::RekeyIkeRequest;
use task::{ChildTask, Tasks};

//= rfc7296 3.1-13
/// Who began the IKE SA; for life (RFC 7296 section 3.1). The requester of a rekey is the
/// initiator of the new IKE SA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// Our side of one exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    /// We sent the request.
    Requester,
    /// We sent the reply.
    Replier,
}

/// An IKE SA; see the module.
pub(crate) struct IkeSa {
    pub(crate) id: IkeSaId,
    pub(crate) role: Role,
    pub(crate) spi_i: IkeSpi,
    /// Zero until the responder has chosen it.
    pub(crate) spi_r: IkeSpi,
    pub(crate) path: Path,
    /// Where the request in work came from: its reply goes back there.
    pub(crate) reply_path: Path,
    pub(crate) nat: Nat,
    /// As responder before IKE_AUTH: the first that fits the addresses.
    pub(crate) connection: Arc<Connection>,
    pub(crate) phase: Phase,
    /// `None` before both public values are known.
    pub(crate) protection: Option<Protection>,
    pub(crate) requests: RequestWindow<Request>,
    pub(crate) replies: ReplyWindow,
    /// CREATE_CHILD_SA requests, and all requests, that the peer may still make.
    pub(crate) creations: Limit,
    pub(crate) asked: Limit,
    pub(crate) in_work: Option<InWork>,
    pub(crate) fragmentation: Fragmentation,
    pub(crate) tasks: Tasks,
    pub(crate) children: Vec<ChildSa>,
    /// As initiator: no other IKE SA with this peer is up, so INITIAL_CONTACT may be sent.
    pub(crate) alone: bool,
    pub(crate) begun: Instant,
    pub(crate) last_heard: Instant,
    pub(crate) keepalive_at: Option<Instant>,
    pub(crate) mobility: Mobility,
    /// As initiator in IKE_AUTH: what else may come of our first request.
    pub(crate) claims: Option<Box<Claims>>,
}

/// How far an IKE SA is, with what is true only there.
pub(crate) enum Phase {
    /// IKE_SA_INIT or IKE_SESSION_RESUME request sent.
    Init(Box<InitSent>),
    /// As initiator, in IKE_AUTH. Which IKE_SA_INIT reply is the peer's is not known yet.
    AuthInitiator(Box<AuthInitiator>),
    /// Reply to that sent.
    HalfOpen(Box<HalfOpen>),
    /// As responder, at work on the IKE_AUTH request.
    AuthResponder(Box<AuthResponder>),
    /// Both sides proven.
    Established(Box<Established>),
    /// It is over; the last reply is repeated for a while if the peer asks again, or a last
    /// request waits for its answer.
    Lingering {
        /// Until when.
        until: Instant,
    },
    /// Nothing is left; the endpoint forgets the IKE SA.
    Gone,
}

/// A request of ours.
pub(crate) enum Request {
    /// IKE_AUTH.
    Auth,
    /// CREATE_CHILD_SA for a Child SA.
    Child(Box<ChildRequest>),
    /// CREATE_CHILD_SA for an IKE SA.
    RekeyIke(Box<RekeyIkeRequest>),
    /// INFORMATIONAL with a Delete payload for a Child SA.
    DeleteChild(ChildSaId),
    /// The same for a Child SA that is not installed here.
    DeleteSpi,
    /// INFORMATIONAL that ends the IKE SA.
    DeleteIke,
    /// INFORMATIONAL that asks for nothing but an answer.
    Liveness,
    /// INFORMATIONAL with a notify that asks for nothing.
    Notice,
    /// INFORMATIONAL that asks for a ticket.
    Ticket,
    /// INFORMATIONAL about addresses.
    Move(MoveRequest),
}

impl IkeSa {
    /// The SPI that we chose.
    pub(crate) fn own_spi(&self) -> IkeSpi {
        match self.role {
            Role::Initiator => self.spi_i,
            Role::Responder => self.spi_r,
        }
    }

    /// Whether a message with these SPIs, and from this role, is one for this IKE SA.
    pub(crate) fn has_spis(&self, header: &Header) -> bool {
        let from = match self.role {
            Role::Initiator => !header.flags.initiator,
            Role::Responder => header.flags.initiator,
        };
        let spi_r = self.spi_r == header.spi_r || matches!(self.phase, Phase::Init(_));
        from && self.spi_i == header.spi_i && (spi_r || self.has_claim(header))
    }

    /// The state of an established IKE SA.
    pub(crate) fn established(&self) -> Option<&Established> {
        match &self.phase {
            Phase::Established(established) => Some(established),
            _ => None,
        }
    }

    /// The state of an established IKE SA.
    pub(crate) fn established_mut(&mut self) -> Option<&mut Established> {
        match &mut self.phase {
            Phase::Established(established) => Some(established),
            _ => None,
        }
    }

    /// Whether the endpoint can forget it.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    /// Whether it is established and is to go on: new exchanges belong here.
    pub(crate) fn is_current(&self) -> bool {
        self.established().is_some_and(Established::is_current)
    }

    /// Whether packets may get through on its Child SAs: it is not being closed, and nothing says
    /// that the peer has lost it.
    pub(crate) fn may_carry(&self) -> bool {
        self.established()
            .is_some_and(|e| e.closing.is_none() && !e.doubt.is_grave())
    }

    /// Whether its deletion is under way, or waits for an open request.
    pub(crate) fn is_closing(&self) -> bool {
        self.established().is_some_and(|e| e.closing.is_some())
    }

    /// Whether both are of one connection and with one peer, so that one of them can do what the
    /// other is for. A connection that names no peer can be up with many.
    pub(crate) fn may_stand_for(&self, other: &Self) -> bool {
        let named = !self.connection.remote_addrs.is_empty();
        self.connection.name == other.connection.name
            && match (named, self.established(), other.established()) {
                (true, ..) => true,
                (false, Some(a), Some(b)) => {
                    a.remote_id.matches(&b.remote_id) && self.is_of_same_peer(other)
                }
                _ => self.peer() == other.peer(),
            }
    }

    /// Where a connection leaves open with whom it is, each pair of addresses has an IKE SA of its own,
    /// whatever the peer calls itself there.
    pub(crate) fn stands_at(&self) -> Option<(IpAddr, IpAddr)> {
        let open = self.connection.remote_addrs.is_empty();
        open.then(|| (self.peer(), self.path.local.ip()))
    }

    /// Whether it goes when the peer of both says on `new` that it had nothing before this time. Where
    /// a connection leaves open with whom it is, a peer does not know that two of our addresses are
    /// one host, so it says nothing of the other one.
    pub(crate) fn is_forgotten_with(&self, new: &Self, before: Instant) -> bool {
        let own = |sa: &Self| sa.stands_at().map(|(_, own)| own);
        let earlier = self.established().is_some_and(|e| e.since < before);
        earlier && own(self) == own(new)
    }

    //= security S-9
    /// Whether what was proven on both, between the same identities, was proven by the same peer.
    pub(crate) fn is_of_same_peer(&self, other: &Self) -> bool {
        let marks = match (self.mark(), other.mark()) {
            (Some(one), Some(two)) => {
                let here = self.path.remote.ip() == other.path.remote.ip();
                one.is_same((two, here))
            }
            _ => true,
        };
        marks && want_same_proof(&self.connection, &other.connection)
    }

    /// What tells a proven peer from others of its name.
    fn mark(&self) -> Option<&Mark> {
        match &self.phase {
            Phase::Established(established) => Some(&established.mark),
            Phase::AuthResponder(auth) => auth.proven().map(|proven| &proven.mark),
            _ => None,
        }
    }

    /// Whether a Child SA of this child is up, being made, or waiting to be asked for.
    pub(crate) fn cares_for(&self, child: &str) -> bool {
        self.cared().any(|cared| cared == child)
    }

    /// The children of which a Child SA is up, being made, or waiting to be asked for; some perhaps
    /// several times.
    pub(crate) fn cared(&self) -> impl Iterator<Item = &str> {
        let being_asked = match self.requests.open().map(|open| &open.what) {
            Some(Request::Child(request)) => {
                // A rekey whose old Child SA is gone makes a new one all the same.
                let rekeys = request.task.rekeys;
                let new = rekeys.is_none_or(|old| self.child(old).is_none());
                request.task.made().filter(|_| new)
            }
            _ => None,
        };
        let (at_first, in_auth) = match &self.phase {
            Phase::Init(init) => (init.first.as_ref(), None),
            Phase::AuthInitiator(auth) => (None, Some(auth.first.cared())),
            _ => (None, None),
        };
        let current = self.children.iter().filter(|child| child.is_current());
        being_asked
            .into_iter()
            .chain(at_first.and_then(ChildTask::made))
            .chain(in_auth.into_iter().flatten())
            .chain(self.tasks.created())
            .chain(current.map(|child| &*child.info.child))
    }
}
