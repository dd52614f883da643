//! What the operator wants, already checked: the daemon builds these values from its files.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::crypto::signature::{PublicKey, Signatures};
use crate::identity::Identity;
use crate::proposal::{EspProposal, IkeProposal};
use crate::ts::TrafficSelector;

/// Everything an [`Endpoint`](crate::endpoint::Endpoint) is configured with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Connections in the order in which they are tried for an incoming request.
    pub connections: Vec<Arc<Connection>>,
    /// Limits and timers that are not per connection.
    pub settings: Settings,
}

/// Settings of the whole endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Half-open IKE SAs (as responder) from which cookies are asked, RFC 7296 section 2.6.
    pub cookie_threshold: usize,
    /// Half-open IKE SAs (as responder) from which new IKE_SA_INIT requests are dropped.
    pub half_open_limit: usize,
    /// How long a responder keeps a half-open IKE SA.
    pub half_open_timeout: Duration,
    /// What one peer may have.
    pub quotas: Quotas,
    /// First retransmission of a request; later ones grow by `retransmit_base`.
    pub retransmit_timeout: Duration,
    /// Factor between retransmissions.
    pub retransmit_base: f64,
    /// Retransmissions before the peer counts as dead.
    pub retransmit_tries: u32,
    /// What peers must spend before they get state here, RFC 8019.
    pub puzzles: Puzzles,
    /// Tell peers how they may prove themselves, RFC 9593.
    pub announce_auth_methods: bool,
    /// Give peers a token to know a crash of ours by, and believe theirs, RFC 6290.
    pub crash_detection: bool,
}

/// Client puzzles, RFC 8019: in both roles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Puzzles {
    /// Half-open IKE SAs (as responder) from which initiators are asked to solve a puzzle.
    pub threshold: usize,
    /// How hard it is, in bits: four times 2 to this power computations of a PRF.
    pub difficulty: u8,
    /// As initiator: nothing harder is solved.
    pub most: u8,
}

impl Default for Puzzles {
    fn default() -> Self {
        Self {
            threshold: 250,
            difficulty: 14,
            most: 20,
        }
    }
}

/// What a peer, known by the two identities that were proven, may have at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Quotas {
    /// IKE SAs; for one more, the oldest goes.
    pub ike_sas: usize,
    /// Child SAs on all of them; one more is refused.
    pub child_sas: usize,
    /// Pairs of traffic selectors, one of each side, of all Child SAs; what has more is refused. What
    /// a child is configured with is never too much for one Child SA and its rekey.
    pub selectors: usize,
    /// IKE SAs of one connection that leaves open who its peer is: whoever may be on it can have as
    /// many names as it likes. One more is refused.
    pub open_ike_sas: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            ike_sas: 16,
            child_sas: 256,
            selectors: 2048,
            open_ike_sas: 4096,
        }
    }
}

/// One connection: a peer, how each side authenticates, and the Child SAs with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// The name in the configuration.
    pub name: String,
    /// Our addresses; empty means any.
    pub local_addrs: Vec<IpAddr>,
    /// Where to start from if `local_addrs` names nothing: the address that the route to the
    /// peer gives. `None`: nobody has looked, and the command to start must name it.
    pub source: Option<IpAddr>,
    /// The peer's addresses; empty means any. The first is the one to start towards, then the next
    /// where that failed.
    pub remote_addrs: Vec<IpAddr>,
    /// IKE proposals in order of preference. Connections by the thousand share one list.
    pub ike_proposals: Arc<[IkeProposal]>,
    /// How we prove who we are.
    pub local: LocalAuth,
    /// How the peer proves who it is.
    pub remote: RemoteAuth,
    /// The Child SAs.
    pub children: Vec<Arc<Child>>,
    /// So many failed tries in a row to bring up what starts by itself, or is to come again, and it is left until
    /// a packet, an operator or the peer asks for it. 0: tried for ever.
    pub keying_tries: u32,
    /// Rekey the IKE SA after this time, less up to 10 % of jitter; `Duration::MAX`: never, that is left to the
    /// peer.
    pub rekey_time: Duration,
    /// Close the IKE SA when it is this old and was not rekeyed.
    pub over_time: Duration,
    /// Ask an idle peer whether it lives, after this time without a protected packet from it.
    /// `None`: never.
    pub dpd_delay: Option<Duration>,
    /// How often it is asked before it counts as dead. `None`: as often as any request goes out.
    pub dpd_retry: Option<DpdRetry>,
    /// Encapsulate ESP in UDP even where no NAT is seen.
    pub force_encap: bool,
    /// Look for NATs, and let the peer do so. Without, all stays on the port that it began on, and ESP is
    /// not put into UDP, whatever is on the way.
    pub nat_traversal: bool,
    /// Whether IKE SAs come up without Child SAs.
    pub childless: Childless,
    /// Send INITIAL_CONTACT, RFC 7296 section 2.4.
    pub initial_contact: bool,
    /// IKE fragmentation, RFC 7383.
    pub fragmentation: Fragmentation,
    /// Moving to other addresses.
    pub mobike: Mobike,
    /// Accept and produce AUTH method 1 with SHA-1 for peers without RFC 7427.
    pub allow_sha1_rsa: bool,
    /// How long a proof of identity is good, and how many IKE SAs one peer may have.
    pub peer: PeerPolicy,
    /// Whether a gateway may send its clients to another one.
    pub redirect: Redirect,
    /// Whether an IKE SA that was lost is made anew without a key exchange.
    pub resumption: Resumption,
    /// What a peer may have that no child is about; `None`: nothing.
    pub generate: Option<Generate>,
}

/// How often an idle peer is asked whether it lives, at equal distances, less up to 20 % of jitter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DpdRetry {
    /// How long each question waits for an answer.
    pub after: Duration,
    /// Questions without answer, the first one included, after which it is dead.
    pub tries: u32,
}

impl Connection {
    /// What is left of the life of an IKE SA once it is to be rekeyed; a tenth, where it never is.
    pub fn margin(&self) -> Duration {
        match self.rekey_time {
            Duration::MAX => self.over_time / 10,
            rekey => self.over_time.saturating_sub(rekey),
        }
    }
}

/// Child SAs that a peer gets although no child is about their packets: those between this host and the
/// peer's own address. In tunnel mode this host's side may be networks behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// What they all have; its name, mode and selectors do not count.
    pub like: Child,
    /// The packets that policies are about, our side and the other: who asks for any of them does
    /// not get it so.
    pub except: Arc<[(Vec<TrafficSelector>, Vec<TrafficSelector>)]>,
}

impl Generate {
    /// What the names of such children begin with. No child is configured by such a name.
    pub const MARK: &'static str = "generated:";

    /// Whether a child of this name was made so.
    pub fn made(name: &str) -> bool {
        name.starts_with(Self::MARK)
    }

    /// Whether no policy is about packets between these two sides, ours and the other.
    pub fn allows(&self, ours: &[TrafficSelector], theirs: &[TrafficSelector]) -> bool {
        let meet = |one: &[TrafficSelector], other: &[TrafficSelector]| {
            one.iter()
                .any(|ts| other.iter().any(|other| ts.intersect(other).is_some()))
        };
        !self
            .except
            .iter()
            .any(|(local, remote)| meet(ours, local) && meet(theirs, remote))
    }
}

/// Session resumption, RFC 5723: who has lost an IKE SA that it began makes a new one of it with
/// a ticket that the responder gave it, without a key exchange and without a signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Resumption {
    /// As initiator: ask for tickets, and use them. As responder: give tickets, and take them.
    ///
    /// Off by default: what protects a resumed IKE SA is derived from the keys of the old one, so
    /// who gets at these, or at the responder's key for tickets, reads the resumed one as well.
    pub enabled: bool,
    /// As responder: a ticket is good for so long at most. It is never good for longer than the
    /// IKE SA and the proof of its peer are.
    pub lifetime: Duration,
}

impl Resumption {
    /// No ticket is good for longer, whatever is configured.
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
}

impl Default for Resumption {
    fn default() -> Self {
        Self {
            enabled: false,
            // RFC 5723 section 9.8.
            lifetime: Duration::from_secs(3600),
        }
    }
}

/// Redirects, RFC 5685: a gateway sends a client to another one of the same identity. Only who
/// began an IKE SA can be redirected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Redirect {
    /// As client: go where the gateway says. Its answer to IKE_SA_INIT proves nothing, so whoever
    /// can read and answer that can send us elsewhere; there, too, only the identity that is
    /// configured will do. For connections that name their peer.
    pub follow: bool,
    /// As client: no more than so many redirects within `period`.
    pub most: u32,
    /// See `most`.
    pub period: Duration,
    /// As gateway: where clients are sent that can be. Those that reach this host at that very
    /// address stay.
    pub to: Option<IpAddr>,
    /// As gateway: a client that was sent elsewhere has this time to go.
    pub patience: Duration,
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            follow: false,
            // RFC 5685 section 7.
            most: 5,
            period: Duration::from_secs(300),
            to: None,
            patience: Duration::from_secs(60),
        }
    }
}

/// What holds for the peer of a connection, whichever IKE SA it is on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerPolicy {
    /// Prove identities anew after this time, less up to 10 % of jitter: a new IKE SA with new
    /// Child SAs is made before the old one is deleted (RFC 7296 section 2.8.3). `None`: never.
    pub reauth_time: Option<Duration>,
    /// What to do when the same peer comes twice.
    pub unique: Unique,
}

/// What to do when a peer makes another IKE SA of the same connection between the same two
/// identities. Two ends that start at once end with one IKE SA, except with `Never`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub enum Unique {
    /// Both stay, unless the peer says by INITIAL_CONTACT that it has no other.
    #[default]
    No,
    /// Both stay; INITIAL_CONTACT is neither sent nor obeyed.
    Never,
    /// The new one replaces the old one.
    Replace,
    /// From another address, the new one is refused while the old one lives.
    Keep,
}

/// How long messages are sent, RFC 7383. Whatever it says, a message is fragmented only if both
/// peers have said that they can take it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fragmentation {
    /// Whether.
    pub mode: FragmentationMode,
    /// Longest IP packet in octets. A request that is not answered goes out in smaller ones
    /// after a while: of 1280 octets, and on IPv4 of 576.
    pub size: u16,
}

impl Fragmentation {
    /// Every IPv6 path carries packets of so many octets (RFC 8200 section 5), and nearly every
    /// IPv4 path.
    pub const DEFAULT_SIZE: u16 = 1280;
}

impl Default for Fragmentation {
    fn default() -> Self {
        Self {
            mode: FragmentationMode::Yes,
            size: Self::DEFAULT_SIZE,
        }
    }
}

/// Moving to other addresses, RFC 4555. The addresses are always ones that the connection names,
/// where it names any.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mobike {
    /// Offer it, and take the peer's offer.
    pub enabled: bool,
    /// Send ESP to a new address of the peer only once the peer has shown that it receives there
    /// (RFC 4555 section 3.7); else at once, and check meanwhile.
    pub check_first: bool,
}

impl Default for Mobike {
    fn default() -> Self {
        Self {
            enabled: true,
            check_first: true,
        }
    }
}

/// Whether IKE messages are fragmented.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub enum FragmentationMode {
    /// Those that are longer than one packet may be.
    #[default]
    Yes,
    /// Never, and the peer is told so.
    No,
    /// All that have content, also short ones, but for INFORMATIONAL.
    Force,
}

/// How we authenticate.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalAuth {
    /// What we claim to be; by default our address.
    pub id: Option<Identity>,
    /// The proof.
    pub method: LocalAuthMethod,
    /// How we sign, where that is with a key.
    pub signatures: Signatures,
}

/// Our proof of identity.
#[derive(Clone, Debug, PartialEq)]
pub enum LocalAuthMethod {
    /// A shared secret, looked up by the two identities ([`Ask::Psk`](crate::event::Ask::Psk)).
    Psk,
    /// A private key of ours, named by its public half
    /// ([`Ask::Sign`](crate::event::Ask::Sign)).
    Key(PublicKey),
}

/// How the peer authenticates.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteAuth {
    /// What the peer must claim to be; `None` accepts any identity that the credentials prove.
    pub id: Option<Identity>,
    /// The proof asked for.
    pub method: RemoteAuthMethod,
    /// How the peer may sign, where that is the proof.
    pub signatures: Signatures,
}

impl RemoteAuth {
    /// Whether there is one key that proves the peer, whatever it calls itself.
    pub(crate) fn is_one_key(&self) -> bool {
        matches!(&self.method, RemoteAuthMethod::Keys(keys) if keys.len() == 1)
    }
}

/// The peer's proof of identity.
#[derive(Clone, Debug, PartialEq)]
pub enum RemoteAuthMethod {
    /// A shared secret.
    Psk,
    /// A signature that one of these keys verifies.
    Keys(Vec<PublicKey>),
    /// Either of them, as the peer likes.
    KeysOrPsk(Vec<PublicKey>),
}

impl RemoteAuthMethod {
    /// The keys of signatures that will do.
    pub fn keys(&self) -> &[PublicKey] {
        match self {
            Self::Psk => &[],
            Self::Keys(keys) | Self::KeysOrPsk(keys) => keys,
        }
    }

    /// Whether a shared secret will do.
    pub fn takes_psk(&self) -> bool {
        matches!(self, Self::Psk | Self::KeysOrPsk(_))
    }

    /// Whether a signature will do.
    pub fn takes_signatures(&self) -> bool {
        !matches!(self, Self::Psk)
    }
}

/// Transport or tunnel, RFC 4301 section 4.1.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum Mode {
    /// Whole IP packets inside ESP.
    Tunnel,
    /// The payload of packets between the two hosts themselves.
    Transport,
}

/// What to do about a Child SA that is not up: when the configuration is loaded, and when it was
/// lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum StartAction {
    /// Wait for the peer or an operator.
    None,
    /// Negotiate when a packet asks for it.
    Trap,
    /// Negotiate at once, and again until it is up.
    Start,
}

/// Whether an IKE SA may come up without a Child SA, RFC 6023.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub enum Childless {
    /// No.
    Never,
    /// The peer may ask for it. We do only if there is no child.
    #[default]
    Allow,
    /// We ask for it where the peer can: then each Child SA can have its own key exchange.
    Prefer,
    /// Only so, in both roles.
    Force,
}

/// What to do about a Child SA once it was up. By default all goes on as at the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Upkeep {
    /// The peer closed it, or its IKE SA. `None`: as the start action says.
    pub close_action: Option<StartAction>,
    /// The peer is dead, or has forgotten it. `None`: as the start action says.
    pub dpd_action: Option<StartAction>,
    /// Close it after so long without a packet in either direction; the next packet brings it up
    /// again if packets may. `None`: never.
    pub inactivity: Option<Duration>,
}

/// One Child SA as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// The name in the configuration, unique within the connection.
    pub name: String,
    /// Transport or tunnel.
    pub mode: Mode,
    /// What we protect on our side.
    pub local_ts: Vec<TrafficSelector>,
    /// What we protect on the peer's side.
    pub remote_ts: Vec<TrafficSelector>,
    /// ESP proposals in order of preference. A key exchange method in them asks for PFS. Children
    /// by the thousand share one list.
    pub esp_proposals: Arc<[EspProposal]>,
    /// What to do at load.
    pub start_action: StartAction,
    /// What to do later.
    pub upkeep: Upkeep,
    /// Rekey after this time, less up to 10 % of jitter; `Duration::MAX`: never, that is left to the peer.
    pub rekey_time: Duration,
    /// Hard limit of the SA's age.
    pub life_time: Duration,
    /// Rekey after this many bytes in one direction. `None`: no limit.
    pub rekey_bytes: Option<u64>,
    /// Hard limit in bytes.
    pub life_bytes: Option<u64>,
    /// Rekey after this many packets in one direction.
    pub rekey_packets: Option<u64>,
    /// Hard limit in packets.
    pub life_packets: Option<u64>,
    /// Up to so many Child SAs carry it at once, each for a queue of the data plane (RFC 9611);
    /// at least 1.
    pub queues: u16,
    /// Which half of the SPIs those of packets to us are taken from.
    pub spi_half: SpiHalf,
}

/// A half of all SPIs of ESP. Where two receivers share this host's addresses and ports, it tells
/// whose a packet is, before anybody has looked for its SA.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SpiHalf {
    /// Those below 2^31.
    #[default]
    Lower,
    /// Those from 2^31 on.
    Upper,
}

impl Child {
    /// How many pairs its selectors make, one of each side.
    pub fn pairs(&self) -> usize {
        self.local_ts.len() * self.remote_ts.len()
    }

    /// Whether packets may ask for it at some time.
    pub fn may_trap(&self) -> bool {
        let Upkeep {
            close_action,
            dpd_action,
            ..
        } = self.upkeep;
        [Some(self.start_action), close_action, dpd_action]
            .into_iter()
            .flatten()
            .any(|action| action != StartAction::None)
    }
}

/// The two ends of an IKE SA's UDP flow, from our side.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Path {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cookie_threshold: 32,
            half_open_limit: 1000,
            half_open_timeout: Duration::from_secs(30),
            quotas: Quotas::default(),
            // A dozen repetitions in a minute and a half: with 30 % loss each way, one exchange in
            // 6000 fails, and one handshake in a hundred takes longer than 20 s.
            retransmit_timeout: Duration::from_millis(500),
            retransmit_base: 1.4,
            retransmit_tries: 12,
            puzzles: Puzzles::default(),
            announce_auth_methods: true,
            crash_detection: true,
        }
    }
}
