//! Errors, by whose fault they are and what follows.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::Mode;
use crate::event::{EspSpi, Withheld};
use crate::identity::Identity;
use crate::wire::{KeMethod, Notify, NotifyType, PayloadType};

/// Why a datagram was dropped. State is untouched; the driver counts by reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub enum Dropped {
    /// Does not parse as an IKE message.
    Malformed,
    /// Longer than anything that a peer not yet proven has to say.
    TooLong,
    /// IKE version other than 2.
    Version,
    /// No IKE SA has these SPIs.
    UnknownSpi,
    /// Not protected, where it must be.
    Unprotected,
    /// Checksum or tag does not verify.
    Integrity,
    /// A fragment where the peers did not agree on fragments (RFC 7383 section 2.4).
    FragmentNotAgreed,
    /// A fragment with the number 0, one above the total, or a total that is too much.
    FragmentNumber,
    /// A fragment of a set that was cut anew since.
    FragmentOfOldSet,
    /// A fragment that is here already, or of a message that was answered.
    FragmentRepeated,
    /// No room for more fragments of this peer, or of all peers together.
    FragmentLimit,
    /// Message ID outside the window.
    MessageId,
    /// A request that was answered already (the answer was sent again) or that is in work.
    Repeated,
    /// A reply to nothing that was asked.
    Unexpected,
    /// A request that has no place in this IKE SA at this time.
    OutOfPlace,
    /// An IKE_SA_INIT message without SA, KE or nonce, or IKE_SESSION_RESUME without its nonce or
    /// ticket.
    Incomplete,
    /// A payload that must be understood and is not, in IKE_SA_INIT.
    Critical,
    /// An IKE_SA_INIT reply that chooses what was not offered.
    NotOffered,
    /// A public value of the wrong length, off the curve, or that gives the secret away.
    KeyExchange,
    /// Too many half-open IKE SAs.
    HalfOpenLimit,
    /// The network, or the peer, has asked for too much lately; or there are too many answers to one
    /// request.
    Rationed,
    /// The cookie was missing or wrong; a cookie was asked for.
    Cookie,
    /// No connection fits the addresses.
    NoConnection,
    /// No common algorithms for an IKE SA.
    NoProposal,
    /// No solution of a puzzle, or a wrong one, and no luck either.
    Puzzle,
    /// The algorithms fit, the key exchange method does not; the right one was named.
    OtherKeMethod,
    /// An error notify without protection, which anybody can send: a hint at best.
    Hint,
    /// A ticket (RFC 5723) that is not of a length or a kind that this host makes.
    TicketMalformed,
    /// A ticket under a key that this host has not, or has no more.
    TicketUnknownKey,
    /// A ticket that was not made with the key that it names, or was altered.
    TicketForged,
    /// A ticket whose time is over.
    TicketExpired,
    /// A ticket that was used, or of an IKE SA that was deleted or rekeyed since.
    TicketVoid,
    /// A ticket of somebody whom the configuration does not let resume (any more).
    TicketPolicy,
    /// An IKE_SA_INIT request that was answered with the address of another gateway.
    Redirected,
    /// A redirect in reply to IKE_SA_INIT that we did not ask for, or without our nonce.
    RedirectForged,
}

/// Why an IKE SA ended or did not come up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IkeFailure {
    /// The peer did not answer.
    NoAnswer {
        /// Requests sent, the first included.
        tries: u32,
        /// Time since the first.
        after: Duration,
    },
    /// The peer refused with this notify.
    Refused(NotifyType),
    /// The peer proved nothing we accept.
    PeerNotProven {
        /// What we are.
        local: Identity,
        /// What the peer claims to be.
        remote: Identity,
        /// What is wrong, and which side must change what.
        reason: String,
    },
    /// The peer did not accept our proof.
    WeAreNotProven {
        /// What we claimed to be.
        local: Identity,
        /// What we expect the peer to be.
        remote: Option<Identity>,
    },
    /// No common algorithms.
    NoProposalChosen {
        /// What the peer offers, as far as there is room.
        offered: String,
        /// What we have.
        ours: String,
    },
    /// No connection is configured between these addresses.
    NoConnection,
    /// The peer broke the protocol.
    Protocol(&'static str),
    /// Our credentials do not suffice (no secret, no key).
    Credentials(String),
    /// Closed by an operator or a new configuration.
    Closed,
    /// The peer deleted the SA.
    PeerDeleted,
    /// Replaced by a newer IKE SA with the same peer.
    Replaced,
    /// The peer does not do without a Child SA in IKE_AUTH (RFC 6023), and we want that.
    NoChildless,
    /// The peer is up from another address, and the connection keeps that.
    UpElsewhere {
        /// What the peer has proven to be.
        remote: Identity,
    },
    /// The connection leaves open who its peer is, and so many IKE SAs are up on it that one more is
    /// refused.
    Crowded {
        /// What the peer claims to be.
        remote: Identity,
        /// How many are up.
        up: usize,
    },
    /// Too old and not rekeyed, or the peer not proven anew.
    Expired,
    /// The peer has shown the token that says that it has lost its state, RFC 6290.
    PeerCrashed,
    /// The gateway has sent the client to this one, RFC 5685.
    Redirected {
        /// The other gateway.
        to: IpAddr,
    },
    /// The peer sends us where we do not go.
    RedirectRefused(RedirectRefusal),
    /// The peer has resumed it: another IKE SA was made of it, RFC 5723.
    Resumed,
}

/// Why a ticket that we had did not serve, so that the IKE SA is made from scratch.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum NotResumed {
    /// The responder does not take the ticket.
    Refused,
    /// The responder does not answer it.
    NoAnswer,
    /// The responder answers with this notify instead.
    Notify(NotifyType),
    /// The shared secret is not the one by which the old IKE SA was proven.
    SecretChanged,
    /// Nobody who answers proves to be the responder.
    NotProven,
}

impl From<IkeFailure> for NotResumed {
    fn from(failure: IkeFailure) -> Self {
        match failure {
            IkeFailure::NoAnswer { .. } | IkeFailure::Expired => Self::NoAnswer,
            IkeFailure::Refused(notify) => Self::Notify(notify),
            IkeFailure::WeAreNotProven { .. } => Self::Notify(NotifyType::AUTHENTICATION_FAILED),
            _ => Self::NotProven,
        }
    }
}

/// Why a redirect is not followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum RedirectRefusal {
    /// It does not say where to, or says it in a way that has no place there.
    Malformed,
    /// It gives a name, and none are looked up here.
    Name,
    /// It gives neither address nor name.
    UnknownType(u8),
    /// To where we are already, to ourselves, or to what is no address of one host.
    Unfit,
    /// We have no address of that family.
    Family,
    /// There were too many in a short time.
    TooMany,
    /// A new IKE SA is being made already.
    Busy,
}

/// Why a Child SA did not come up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ChildFailure {
    /// The peer refused with this notify.
    Refused(NotifyType),
    /// No common algorithms.
    NoProposalChosen,
    /// No common traffic selectors.
    TsUnacceptable,
    /// Nothing is left without the networks that are another peer's.
    Withheld(Box<Withheld>),
    /// One side wants transport mode, the other does not.
    ModeMismatch {
        /// What this side has configured.
        ours: Mode,
    },
    /// The peer answers a rekey with less than the Child SA in use carries.
    RekeyNarrows,
    /// The data plane did not take the SA.
    DataPlane(String),
    /// The peer broke the protocol.
    Protocol(&'static str),
    /// The IKE SA ended first.
    IkeDown,
}

/// Why a command was not carried out; never caused by the network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// The configuration has no such connection.
    #[error("there is no connection {0:?}")]
    UnknownConnection(String),
    /// The connection has no such child.
    #[error("connection {connection:?} has no child {child:?}")]
    UnknownChild {
        /// Name of the connection.
        connection: String,
        /// Name asked for.
        child: String,
    },
    /// The connection has no children, so there is nothing to negotiate.
    #[error("connection {0:?} has no children")]
    NoChildren(String),
    /// The connection leaves the peer's address open, and the command names none.
    #[error("connection {0:?} has no remote address to start towards")]
    NoRemote(String),
    /// There is no IKE SA of that connection, or no such Child SA.
    #[error("connection {0:?} has no such SA")]
    NotUp(String),
    /// There is no SA of this number, or it is being closed.
    #[error("there is no such SA")]
    NoSuchSa,
    /// No client of that connection is up that can be sent to another gateway.
    #[error("connection {0:?} has no client that can be redirected there")]
    NoClient(String),
    /// The endpoint is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

/// What an authenticated peer did wrong, or asked for and cannot have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// A message that authenticates but makes no sense.
    InvalidSyntax(&'static str),
    /// A payload that must be understood and is not.
    UnsupportedCritical(PayloadType),
    /// No common algorithms.
    NoProposalChosen,
    /// A key exchange of another method is needed.
    InvalidKe {
        /// The method we want.
        want: KeMethod,
    },
    /// No common traffic selectors.
    TsUnacceptable,
    /// Transport mode is asked for where tunnel mode is configured, or the reverse.
    ModeMismatch {
        /// What this side has configured.
        ours: Mode,
    },
    /// The Child SA could not be installed here.
    NoAdditionalSas,
    /// The child has as many Child SAs as it may (RFC 9611).
    MaxQueue,
    /// Not just now: it crosses with something of ours (RFC 7296 section 2.25).
    TemporaryFailure,
    /// The Child SA to be rekeyed is not there.
    ChildSaNotFound(EspSpi),
    /// The packets are changed on the way, which the peer does not allow (RFC 4555 section 3.9).
    UnexpectedNat,
}

impl Fault {
    /// Its name for a counter.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InvalidSyntax(_) => "invalid_syntax",
            Self::UnsupportedCritical(_) => "unsupported_critical",
            Self::NoProposalChosen => "no_proposal_chosen",
            Self::InvalidKe { .. } => "invalid_ke",
            Self::TsUnacceptable => "ts_unacceptable",
            _ => "other",
        }
    }

    //= rfc7296 3.10.1-4
    /// What the peer is told.
    pub(crate) fn notify(self) -> Notify<'static> {
        match self {
            Self::InvalidSyntax(_) => Notify::bare(NotifyType::INVALID_SYNTAX),
            Self::UnsupportedCritical(ty) => Notify::unsupported_critical(ty),
            // RFC 7296 has no notify of its own for the mode.
            Self::NoProposalChosen | Self::ModeMismatch { .. } => {
                Notify::bare(NotifyType::NO_PROPOSAL_CHOSEN)
            }
            Self::InvalidKe { want } => Notify::invalid_ke(want),
            Self::TsUnacceptable => Notify::bare(NotifyType::TS_UNACCEPTABLE),
            Self::NoAdditionalSas => Notify::bare(NotifyType::NO_ADDITIONAL_SAS),
            Self::MaxQueue => Notify::bare(NotifyType::TS_MAX_QUEUE),
            Self::TemporaryFailure => Notify::bare(NotifyType::TEMPORARY_FAILURE),
            Self::UnexpectedNat => Notify::bare(NotifyType::UNEXPECTED_NAT_DETECTED),
            Self::ChildSaNotFound(spi) => Notify::about_esp(NotifyType::CHILD_SA_NOT_FOUND, spi),
        }
    }

    /// Whether the IKE SA cannot go on, RFC 7296 section 2.21.3.
    pub(crate) fn ends_sa(self) -> bool {
        matches!(self, Self::InvalidSyntax(_))
    }

    /// What an operator is told about a Child SA that did not come up for it.
    pub(crate) fn child_failure(self) -> ChildFailure {
        match self {
            Self::NoProposalChosen | Self::InvalidKe { .. } => ChildFailure::NoProposalChosen,
            Self::TsUnacceptable => ChildFailure::TsUnacceptable,
            Self::ModeMismatch { ours } => ChildFailure::ModeMismatch { ours },
            Self::InvalidSyntax(what) => ChildFailure::Protocol(what),
            _ => ChildFailure::Refused(self.notify().ty),
        }
    }
}
