//! What an [`Endpoint`](crate::endpoint::Endpoint) is told, and what it says.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::config::{Mode, Path, SpiHalf};
use crate::crypto::secret::Secret;
use crate::crypto::signature::{PublicKey, SignatureScheme};
use crate::error::{ChildFailure, IkeFailure, NotResumed, RedirectRefusal};
pub use crate::exchange::puzzle::Puzzle;
use crate::identity::Identity;
use crate::status::IkeAlgorithms;
use crate::ts::TrafficSelector;
use crate::wire::{EncrId, ExchangeType, IntegId, KeMethod, NotifyType};

/// An ESP SPI, RFC 4303 section 2.1; host byte order, never below 256.
#[derive(Clone, Copy, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct EspSpi(pub u32);

impl EspSpi {
    /// Queues that an SPI can tell apart.
    pub const QUEUES: u16 = 64;

    /// The queue of an SA to us, modulo [`QUEUES`](Self::QUEUES), where its child has several
    /// (RFC 9611); any number where it has not. So whoever takes in packets knows who opens them.
    pub fn queue(self) -> u16 {
        (self.0 % u32::from(Self::QUEUES)) as u16
    }

    /// The half that it is in.
    pub fn half(self) -> SpiHalf {
        match self.0 >> 31 {
            0 => SpiHalf::Lower,
            _ => SpiHalf::Upper,
        }
    }

    /// The same with another queue; as random otherwise, and not below 256.
    pub(crate) fn with_queue(self, queue: u16) -> Self {
        let queues = u32::from(Self::QUEUES);
        Self(self.0 - self.0 % queues + u32::from(queue) % queues)
    }
}

/// An IKE SPI, RFC 7296 section 3.1; host byte order, never zero once chosen.
#[derive(Clone, Copy, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct IkeSpi(pub u64);

impl std::fmt::Debug for EspSpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl std::fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Names one Child SA for the life of the endpoint; never reused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct ChildSaId(pub u64);

/// Names one IKE SA for the life of the endpoint; never reused. A rekeyed SA gets a new one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct IkeSaId(pub u64);

/// Names one open question.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct AskId(pub u64);

/// One thing to do or to know, in order.
#[derive(Debug)]
pub enum Output {
    /// Send once. If the socket is full, drop it: retransmission is ours.
    Transmit(Transmit),
    /// Answer with [`Endpoint::handle_answer`](crate::endpoint::Endpoint::handle_answer).
    Ask(AskId, Ask),
    /// For operators, counters and tests.
    Event(Event),
}

/// A datagram to send. On a path with a port other than 500 at our end, the driver puts the
/// four zero bytes of the non-ESP marker (RFC 3948 section 2.2) before it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// From where to where.
    pub path: Path,
    /// The IKE message, without non-ESP marker.
    pub datagram: Bytes,
}

/// A question to the daemon. Until it is answered, the exchange it belongs to waits.
#[derive(Debug)]
pub enum Ask {
    /// The shared secret for these two identities.
    Psk {
        /// Name of the connection.
        connection: String,
        /// Our identity.
        local: Identity,
        /// The peer's identity.
        remote: Identity,
        /// Where the peer is, if the connection does not say what it must claim to be. Whom there
        /// is a secret for at that address shall not pass by the secret of another identity: where
        /// the two differ, there is none.
        address: Option<IpAddr>,
    },
    /// Sign `octets` with the private half of `key`.
    Sign {
        /// The public half of the key to use.
        key: PublicKey,
        /// The scheme, chosen from what the peer can verify.
        scheme: SignatureScheme,
        /// What to sign: the InitiatorSignedOctets or ResponderSignedOctets.
        octets: Vec<u8>,
    },
    /// Begin to accept packets of this SA. Asked before the peer learns our SPI as a
    /// responder, and before the first outbound packet as an initiator.
    AddInbound(Box<InboundSa>),
    /// Send new packets with this SA, replacing the outbound SA of `replaces`, if any.
    UseOutbound(Box<OutboundSa>),
    /// Forget both directions of the SA. If new packets used it, they go back to the SA of the
    /// same child that was put to use last before it and is still there.
    Remove(ChildSaId),
    /// The addresses of an SA have changed: packets in both directions go between the new ones
    /// from here on, with the same keys, and with sequence numbers and replay window as they are.
    MovePath(MovedSa),
    /// Solve a puzzle of a responder under attack. That may take seconds: not where it keeps
    /// others waiting.
    Puzzle {
        /// What to solve; see [`Puzzle::solve`].
        puzzle: Puzzle,
        /// The string.
        cookie: Vec<u8>,
    },
    /// How long ago did the data plane last open a packet of any of these SAs?
    LastInbound(Vec<ChildSaId>),
    /// How long ago did the data plane last open or seal a packet of this SA?
    LastUse(ChildSaId),
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub enum Answer {
    /// To [`Ask::Psk`]: the secret, or none is known.
    Psk(Option<Secret>),
    /// To [`Ask::Psk`]: a secret that is not of this peer alone. Whoever of its group proves itself
    /// may call itself what it likes.
    GroupPsk(Secret),
    /// To [`Ask::Sign`]: the raw signature (no AlgorithmIdentifier before it), or why not.
    Signature(Result<Vec<u8>, String>),
    /// To [`Ask::AddInbound`], [`Ask::UseOutbound`], [`Ask::MovePath`] and [`Ask::Remove`].
    Done(Result<(), DataPlaneRefusal>),
    /// To [`Ask::Puzzle`]: the solution, if one was found.
    Puzzle(Option<Vec<u8>>),
    /// To [`Ask::LastInbound`]: `None` if there was no packet at all.
    LastInbound(Option<Duration>),
    /// To [`Ask::LastUse`]: `None` if there was no packet at all.
    LastUse(Option<Duration>),
}

/// Why the data plane did not do what it was asked to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DataPlaneRefusal {
    /// The SPI is in use; draw another.
    SpiTaken,
    /// Anything else, in words for the log.
    Failed(String),
}

/// What identifies a Child SA to the data plane, in both directions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChildSaInfo {
    /// This SA.
    pub id: ChildSaId,
    /// The IKE SA that owns it.
    pub ike: IkeSaId,
    /// Name of the connection.
    pub connection: String,
    /// Name of the child.
    pub child: String,
    /// Transport or tunnel.
    pub mode: Mode,
    /// SPI of packets to us.
    pub spi_in: EspSpi,
    /// SPI of packets to the peer.
    pub spi_out: EspSpi,
    /// Selectors of our side, as negotiated.
    pub local_ts: Vec<TrafficSelector>,
    /// Selectors of the peer's side, as negotiated.
    pub remote_ts: Vec<TrafficSelector>,
    /// Encryption.
    pub encr: EncrId,
    /// Key length in bits, without salt.
    pub encr_key_bits: u16,
    /// Integrity; `NONE` with an AEAD.
    pub integ: IntegId,
    /// Key exchange of this SA, if it had its own (PFS).
    pub ke: Option<KeMethod>,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Addresses of the ESP packets, and ports if `encap`.
    pub path: Path,
    /// ESP in UDP.
    pub encap: bool,
    /// A NAT was seen: transport-mode checksums of inbound packets need repair.
    pub nat: bool,
    /// The SA this one replaces in a rekey.
    pub replaces: Option<ChildSaId>,
    /// For which queue it is; 0 is the first SA of a child, 1 and more are the additional ones
    /// (RFC 9611). A number of this end alone, which no other SA of the child has but the one that
    /// this one replaces. It can be higher than there are queues.
    pub queue: u16,
    /// Limits, as configured (time: already jittered, and kept by `ike` itself).
    pub limits: Limits,
}

/// Usage limits that the data plane keeps and reports
/// ([`Command::SoftExpired`], [`Command::HardExpired`]).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Bytes before the soft limit.
    pub soft_bytes: Option<u64>,
    /// Bytes before the SA must not be used any more.
    pub hard_bytes: Option<u64>,
    /// Packets before the soft limit.
    pub soft_packets: Option<u64>,
    /// Packets before the SA must not be used any more.
    pub hard_packets: Option<u64>,
}

/// Keys of one direction of a Child SA, RFC 7296 section 2.17.
#[derive(Debug)]
pub struct EspKeys {
    /// Encryption key; for AES-GCM and ChaCha20-Poly1305 the salt follows the key.
    pub encr: Secret,
    /// Integrity key; empty with an AEAD.
    pub integ: Secret,
}

/// An SA for packets to us.
#[derive(Debug)]
pub struct InboundSa {
    /// What it is.
    pub info: ChildSaInfo,
    /// The keys of packets to us.
    pub keys: EspKeys,
}

/// An SA for packets to the peer.
#[derive(Debug)]
pub struct OutboundSa {
    /// What it is.
    pub info: ChildSaInfo,
    /// The keys of packets to the peer.
    pub keys: EspKeys,
}

/// Where the packets of an SA go from here on, in both directions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MovedSa {
    /// Which.
    pub id: ChildSaId,
    /// Addresses of the ESP packets, and ports if `encap`.
    pub path: Path,
    /// ESP in UDP.
    pub encap: bool,
    /// A NAT was seen: transport-mode checksums of inbound packets need repair.
    pub nat: bool,
}

/// The first packet of a flow that has no SA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PacketFlow {
    /// IP protocol.
    pub protocol: u8,
    /// Source address: ours, or of a network behind us.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port (ICMP: type), 0 where there is none.
    pub source_port: u16,
    /// Destination port (ICMP: code), 0 where there is none.
    pub destination_port: u16,
}

/// What the daemon asks of the endpoint, for an operator or for the data plane.
#[derive(Clone, Debug)]
pub enum Command {
    /// Bring up one child, or all children of a connection (and its IKE SA if need be).
    Initiate {
        /// Name of the connection.
        connection: String,
        /// Name of the child; `None`: all.
        child: Option<String>,
        /// The local address to start from, if the connection leaves it open.
        local: Option<IpAddr>,
    },
    /// A packet matched a trap.
    Acquire {
        /// Name of the connection.
        connection: String,
        /// Name of the child.
        child: String,
        /// The packet.
        flow: Option<PacketFlow>,
        /// The peer to start towards, where the connection leaves it open.
        remote: Option<IpAddr>,
        /// The local address to start from, where the connection leaves it open.
        local: Option<IpAddr>,
    },
    /// Close a child, or the whole connection, and stay down until asked.
    Terminate {
        /// Name of the connection.
        connection: String,
        /// Name of the child; `None`: the IKE SA with all children.
        child: Option<String>,
    },
    /// Close one IKE SA with its Child SAs. What is to be up comes again.
    CloseIke(IkeSaId),
    /// Close one Child SA. What is to be up comes again.
    CloseChild(ChildSaId),
    /// Rekey the IKE SA of a connection.
    RekeyIke {
        /// Name of the connection.
        connection: String,
    },
    /// Prove the identities of a connection anew, by a new IKE SA with all its children.
    Reauthenticate {
        /// Name of the connection.
        connection: String,
    },
    /// Send the clients of a connection that are up, and can be redirected, to another gateway.
    Redirect {
        /// Name of the connection.
        connection: String,
        /// The other gateway.
        to: IpAddr,
    },
    /// Rekey a child.
    RekeyChild {
        /// Name of the connection.
        connection: String,
        /// Name of the child.
        child: String,
    },
    /// The data plane opened the first packet of an inbound SA.
    InboundUsed(ChildSaId),
    /// The data plane opened a packet of this SA, with a higher sequence number than any before,
    /// that came from another address or port than it should. At most a few times a second.
    PeerMoved {
        /// The Child SA.
        child: ChildSaId,
        /// Where it came from and where to, from our side.
        path: Path,
    },
    /// Addresses or routes of this host have changed.
    LocalAddresses(LocalAddresses),
    /// A soft limit was met: rekey.
    SoftExpired(ChildSaId),
    /// A hard limit was met: the SA is gone.
    HardExpired(ChildSaId),
    /// ESP came with an SPI that the data plane does not know; not to be told of each packet.
    UnknownSpi {
        /// From where to where, from our side; both ports are 0 without UDP.
        path: Path,
        /// The SPI.
        spi: EspSpi,
    },
    /// The network says that packets do not reach this host (an ICMP error, which anybody can
    /// send): the peer is asked for a sign of life, at most once in ten seconds.
    PathTrouble {
        /// The peer.
        remote: IpAddr,
    },
    /// Close everything with deletes to the peers; then [`Event::Idle`].
    Shutdown,
}

/// The addresses of this host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LocalAddresses {
    /// All that other hosts may reach it at.
    pub addresses: Vec<IpAddr>,
    /// From which of them the system would send, by peer
    /// ([`Endpoint::peers`](crate::endpoint::Endpoint::peers)).
    pub sources: Vec<(IpAddr, IpAddr)>,
}

impl LocalAddresses {
    /// From which address the system would send to a peer.
    pub fn source(&self, peer: IpAddr) -> Option<IpAddr> {
        let found = self.sources.iter().find(|(known, _)| *known == peer);
        found.map(|(_, source)| *source)
    }
}

/// Networks that a peer asks for and does not get, since they are another peer's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Withheld {
    /// Name of the connection.
    pub connection: String,
    /// Who asks.
    pub peer: Identity,
    /// Where it is.
    pub path: Path,
    /// What it does not get.
    pub networks: Vec<TrafficSelector>,
    /// Whose that is, or the first of it.
    pub owner: Owner,
}

/// Whose a network is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owner {
    /// Name of the connection.
    pub connection: String,
    /// Who it is; `None`: the connection has the key of its peer alone, whatever that calls itself.
    pub identity: Option<Identity>,
    /// Where it is, if the network is its own because it has it, and not by the configuration.
    pub address: Option<IpAddr>,
}

/// How far a negotiation is that this end began.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// The request is out that begins an IKE SA; with another cookie or key exchange once more.
    Begun,
    /// That was answered, by whoever it was, with these algorithms; the IKE_AUTH request is out.
    Proving(IkeAlgorithms),
    /// The request for a Child SA on an IKE SA that is up is out.
    Asked {
        /// The number that it will have.
        id: ChildSaId,
        /// Name of the child.
        child: String,
        /// SPI of packets to us.
        spi_in: EspSpi,
    },
    /// There is no answer: a request of this exchange went out again, and will once more after this time.
    Repeated(ExchangeType, Duration),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// An IKE SA is up.
    IkeUp {
        /// Which.
        id: IkeSaId,
        /// Name of the connection.
        connection: String,
        /// Whether we began it.
        initiator: bool,
        /// The peer's proven identity.
        remote_id: Identity,
        /// Time from the first packet of the negotiation to this event.
        took: Duration,
        /// Whether it replaces an IKE SA (rekey).
        rekey: bool,
        /// Whether it was made of one that was lost, by a ticket (RFC 5723).
        resumed: bool,
    },
    /// A negotiation that we began goes on; for those who wait for its end.
    Progress {
        /// The IKE SA.
        id: IkeSaId,
        /// Name of the connection.
        connection: String,
        /// Where our request went.
        path: Path,
        /// How far it is.
        step: Step,
    },
    /// An IKE SA is gone.
    IkeDown {
        /// Which.
        id: IkeSaId,
        /// Name of the connection, if one had been found.
        connection: Option<String>,
        /// Why, in words.
        reason: IkeFailure,
    },
    /// The peer, or this host, is reached at another address or port.
    Moved {
        /// The IKE SA.
        id: IkeSaId,
        /// Name of the connection.
        connection: String,
        /// Where it was.
        from: Path,
        /// Where it is.
        to: Path,
    },
    /// A move came to nothing: the peer does not accept the addresses, or they are changed on the
    /// way.
    MoveRefused {
        /// The IKE SA.
        id: IkeSaId,
        /// Name of the connection.
        connection: String,
        /// The path that was refused.
        path: Path,
        /// What the peer said.
        notify: NotifyType,
    },
    /// A Child SA is up in both directions.
    ChildUp(Box<ChildSaInfo>),
    /// A Child SA is gone.
    ChildDown {
        /// Which.
        id: ChildSaId,
        /// Name of the connection.
        connection: String,
        /// Name of the child.
        child: String,
        /// Nobody has closed it: its time was over, or the peer is dead or has forgotten it.
        expired: bool,
    },
    /// A Child SA is being closed because nothing used it for so long.
    ChildIdle {
        /// Name of the connection.
        connection: String,
        /// Name of the child.
        child: String,
        /// How long.
        after: Duration,
    },
    /// A Child SA could not be made, by either side.
    ChildFailed {
        /// Name of the connection.
        connection: String,
        /// Name of the child, if it was found.
        child: Option<String>,
        /// Why.
        reason: ChildFailure,
    },
    /// A peer gets a Child SA, but for networks that are another peer's.
    Withheld(Box<Withheld>),
    /// A Child SA is up, and does not carry the packet for which we asked: the peer took less
    /// than it was offered. What it carries, it carries.
    FlowLeftOut {
        /// Name of the connection.
        connection: String,
        /// Name of the child.
        child: String,
        /// The packet.
        flow: PacketFlow,
        /// The peer says that another Child SA might carry it.
        more: bool,
    },
    /// An IKE SA could not be made: no answer, refused, or not proven.
    IkeFailed {
        /// Name of the connection, if one was found.
        connection: Option<String>,
        /// The peer.
        path: Path,
        /// Why, with what the operator needs: both identities where there are two.
        reason: IkeFailure,
    },
    /// A child was tried as often as its connection says, and is not tried again before somebody asks for it.
    GivenUp {
        /// Name of the connection.
        connection: String,
        /// Name of the child.
        child: String,
        /// How often.
        tries: u32,
    },
    /// An IKE SA that was lost could not be resumed, and is made from scratch.
    NotResumed {
        /// Name of the connection.
        connection: String,
        /// The peer.
        path: Path,
        /// Why.
        reason: NotResumed,
    },
    /// The gateway sends us to another one, and we go.
    Redirected {
        /// Name of the connection.
        connection: String,
        /// The gateway that says so.
        from: IpAddr,
        /// The other one.
        to: IpAddr,
        /// Whether the gateway had proven who it is.
        proven: bool,
    },
    /// The gateway sends us elsewhere, and we do not go.
    RedirectRefused {
        /// Name of the connection.
        connection: String,
        /// The gateway that says so.
        from: IpAddr,
        /// Where to, if that is an address.
        to: Option<IpAddr>,
        /// Why not.
        reason: RedirectRefusal,
    },
    /// A client that has proven who it is was told to go to another gateway.
    ClientRedirected {
        /// The IKE SA with it.
        id: IkeSaId,
        /// Name of the connection.
        connection: String,
        /// The client's address and port.
        client: SocketAddr,
        /// The other gateway.
        to: IpAddr,
    },
    /// After [`Command::Shutdown`]: nothing is left to wait for.
    Idle,
}
