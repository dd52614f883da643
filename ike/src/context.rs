//! What the endpoint and its IKE SAs share: configuration, randomness, the queue of outputs,
//! open questions, and names that are never reused.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use rand_core::{CryptoRng, Rng};

use crate::config::{Child, Config, Connection, DpdRetry, Path, Settings, SpiHalf};
use crate::crypto::secret::Secret;
use crate::directory::Directory;
use crate::error::Fault;
use crate::event::{
    Ask, AskId, ChildSaId, EspSpi, Event, IkeSaId, IkeSpi, LocalAddresses, Output, Transmit,
};
use crate::exchange::crash::TokenMaker;
use crate::exchange::datagrams::Datagrams;
use crate::exchange::kept::KeptTickets;
use crate::exchange::limit::{ANSWERS, Limit};
use crate::exchange::redirect::Trail;
use crate::exchange::retransmit::Retransmit;
use crate::exchange::tickets::Tickets;
use crate::holdings::Holdings;
use crate::sa::child::ChildSa;
use crate::sa::childless::FirstChildren;
use crate::sa::path::Place;
use crate::sa::task::Tasks;
use crate::sa::{IkeSa, Side};
use crate::wire::Notify;

//= rfc7296 2.10-1
/// Octets of our nonces: at least half of the key size of any PRF, RFC 7296 section 2.10.
const NONCE_LEN: usize = 32;

/// Lent to whatever handles an input.
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) directory: Directory,
    /// Our addresses, as far as they were told.
    pub(crate) local: LocalAddresses,
    pub(crate) rng: Box<dyn CryptoRng + Send>,
    pub(crate) out: VecDeque<Output>,
    /// What an IKE SA wants of the endpoint, acted upon when the handler is done.
    pub(crate) signals: Vec<Signal>,
    /// Child SAs of the same connection and peer, for the IKE SA at work.
    pub(crate) rivals: Vec<Rival>,
    /// Makes the tokens of quick crash detection, if there is a secret for it.
    token_maker: Option<TokenMaker>,
    /// Octets of fragments that IKE SAs hold, without the one at work.
    pub(crate) fragments_of_others: usize,
    /// The networks that peers hold.
    pub(crate) holdings: Holdings,
    /// What the peer of the IKE SA at work has on others: Child SAs, and pairs of their selectors.
    pub(crate) elsewhere: (usize, usize),
    /// IKE SAs that keep the peer that proves itself on the IKE SA at work from having another.
    pub(crate) namesakes: Vec<IkeSaId>,
    /// So many IKE SAs are up on the connection of the one at work, which leaves open who its peer
    /// is, and more must not be.
    pub(crate) crowded: Option<usize>,
    /// What authenticated peers did wrong, by name.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// IKE_SA_INIT replies that may be looked into after the first of each IKE SA.
    pub(crate) answers: Limit,
    /// Redirects that were followed lately.
    pub(crate) trail: Trail,
    /// Tickets that we give.
    pub(crate) tickets: Tickets,
    /// Tickets of IKE SAs that we have lost.
    pub(crate) kept: KeptTickets,
    asks: HashMap<AskId, Waiting>,
    last_ask: u64,
    last_ike: u64,
    last_child: u64,
}

/// Who waits for an answer, and for what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waiting {
    /// The authentication of this IKE SA, and which of its claims.
    Auth(IkeSaId, u32),
    /// This Child SA: its inbound half.
    Inbound(ChildSaId),
    /// This Child SA: its outbound half.
    Outbound(ChildSaId),
    /// The puzzle that the responder of this IKE SA asks us to solve.
    Puzzle(IkeSaId),
    /// The liveness check of this IKE SA.
    LastInbound(IkeSaId),
    /// This Child SA: whether anything uses it.
    LastUse(ChildSaId),
    /// Nobody.
    Nobody,
}

/// What an IKE SA wants of the endpoint.
pub(crate) enum Signal {
    /// This IKE SA replaces another, or is about to.
    NewSa(Box<IkeSa>),
    /// Child SAs, and what is left to ask about them, of an IKE SA that `to` replaces.
    Adopt {
        from: IkeSaId,
        to: IkeSaId,
        children: Vec<ChildSa>,
        tasks: Tasks,
        place: Box<Place>,
    },
    /// This new IKE SA lost against another rekey of the same old one.
    Lost(IkeSaId),
    /// Both ends of this IKE SA that a peer makes are proven.
    Proven(IkeSaId),
    /// INITIAL_CONTACT: the peer of this IKE SA has forgotten all others between the same
    /// identities that were established before.
    InitialContact { on: IkeSaId, before: Instant },
    /// A negotiation of this child failed.
    ChildFailed {
        connection: String,
        child: String,
        peer: IpAddr,
    },
    /// A Child SA of this child is being closed because nothing uses it.
    ChildIdle {
        connection: String,
        child: String,
        peer: IpAddr,
    },
    /// A Child SA of this child is gone and nothing replaces it.
    ChildLost {
        connection: String,
        child: String,
        peer: IpAddr,
        loss: Loss,
    },
    /// There are signs that the peer has lost an IKE SA with these children, and it does not
    /// answer there.
    Doubted {
        connection: String,
        children: Vec<String>,
        peer: IpAddr,
    },
    /// A peer has made an IKE SA with us.
    PeerCame { connection: String, peer: IpAddr },
    /// The peer of this IKE SA is to be proven anew.
    Reauthenticate(IkeSaId),
    /// The peer of this IKE SA is to show that it lives.
    Probe(IkeSaId),
    /// A peer does not get what these have: their peers are to show that they live.
    Withheld { holders: Vec<IkeSaId> },
    /// The gateway of this IKE SA sends us to another one.
    Redirected {
        id: IkeSaId,
        path: Path,
        /// In IKE_AUTH, before there was a child: what we have asked for.
        instead: Option<FirstChildren>,
    },
    /// This IKE SA was just made by a peer.
    Arrived(IkeSaId),
    /// The peer has made another IKE SA of this one, with its ticket.
    Resumed(IkeSaId),
    /// An IKE SA is gone.
    SaEnded { connection: String, peer: IpAddr },
}

/// By whose doing a Child SA is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Loss {
    /// The peer closed it.
    Closed,
    /// The peer is dead, or has forgotten it.
    Dead,
    /// Ours: its time is over, or an operator closed it.
    Own,
}

/// A Child SA that is up.
pub(crate) struct Rival {
    pub(crate) child: Arc<Child>,
    pub(crate) side: Side,
    /// It, or what is to take its place, is to stay, as far as its own IKE SA, or what replaces
    /// that, is concerned.
    pub(crate) stays: bool,
    pub(crate) queue: u16,
    /// The rank of its IKE SA.
    pub(crate) ike_rank: Vec<u8>,
    pub(crate) lowest_nonce: Vec<u8>,
    /// The age of its IKE SA compared with the one at work.
    pub(crate) age: Age,
}

/// How an IKE SA compares with another one that was not made at once with it. Rekeys do not make
/// it younger.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Age {
    /// It is what the other one is there to replace.
    Older,
    /// Both were made at once, or it is the same.
    Same,
    /// It is there to replace the other one.
    Newer,
}

impl Rival {
    /// Whether the other Child SA is the one to go, of two that both ends made at once: the one
    /// on the IKE SA that is to go, else the one with the lowest of the four nonces, as in a
    /// rekey (RFC 7296 section 2.8.1).
    /// The latter is no matter for one that takes the place of another (`replacing`).
    pub(crate) fn beats(&self, other: &ChildSa, ike_rank: &[u8], replacing: bool) -> bool {
        self.stays
            && self.age == Age::Same
            && self.child.name == other.info.child
            && match self.ike_rank.as_slice().cmp(ike_rank) {
                Ordering::Equal if replacing => false,
                Ordering::Equal => {
                    self.queue == other.info.queue
                        && self.side != other.side
                        && self.lowest_nonce > other.lowest_nonce
                }
                order => order.is_gt(),
            }
    }
}

impl Context {
    pub(crate) fn new(config: Arc<Config>, rng: Box<dyn CryptoRng + Send>) -> Self {
        Self {
            directory: Directory::new(&config),
            config,
            local: LocalAddresses::default(),
            rng,
            out: VecDeque::new(),
            signals: Vec::new(),
            rivals: Vec::new(),
            token_maker: None,
            fragments_of_others: 0,
            holdings: Holdings::default(),
            elsewhere: (0, 0),
            namesakes: Vec::new(),
            crowded: None,
            faults: BTreeMap::new(),
            answers: Limit::new(ANSWERS),
            trail: Trail::default(),
            tickets: Tickets::default(),
            kept: KeptTickets::default(),
            asks: HashMap::new(),
            last_ask: 0,
            last_ike: 0,
            last_child: 0,
        }
    }

    /// Replaces the configuration; returns the one before.
    pub(crate) fn set_config(&mut self, config: Arc<Config>) -> (Arc<Config>, Directory) {
        let directory = std::mem::replace(&mut self.directory, Directory::new(&config));
        (std::mem::replace(&mut self.config, config), directory)
    }

    pub(crate) fn add_connection(&mut self, connection: &Arc<Connection>) {
        let config = Arc::make_mut(&mut self.config);
        config.connections.push(Arc::clone(connection));
        self.directory.add(connection);
    }

    /// Replaces the connection of this name; the one before. `None`: it is to be found elsewhere from now on.
    pub(crate) fn replace_connection(
        &mut self,
        connection: &Arc<Connection>,
    ) -> Option<Arc<Connection>> {
        let mut all = self.config.connections.iter();
        let at = all.position(|known| known.name == connection.name)?;
        if !self.directory.replace(connection) {
            return None;
        }
        let known = &mut Arc::make_mut(&mut self.config).connections[at];
        Some(std::mem::replace(known, Arc::clone(connection)))
    }

    /// Whether a Child SA of this child is up on an IKE SA of this age.
    pub(crate) fn has_rival(&self, child: &str, age: Age) -> bool {
        let mut rivals = self.rivals.iter();
        rivals.any(|rival| rival.age == age && rival.child.name == child)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.config.settings
    }

    /// Makes tokens with this secret from now on.
    pub(crate) fn make_tokens(&mut self, secret: Secret) {
        self.token_maker = Some(TokenMaker::new(secret));
    }

    /// Our token for the IKE SA with these SPIs, RFC 6290 section 4.1.
    pub(crate) fn token(&self, spi_i: IkeSpi, spi_r: IkeSpi) -> Option<Notify<'static>> {
        let maker = self.token_maker.as_ref()?;
        let enabled = self.config.settings.crash_detection;
        enabled.then(|| maker.notify(spi_i, spi_r))
    }

    pub(crate) fn transmit(&mut self, path: Path, datagram: impl Into<Bytes>) {
        let datagram = datagram.into();
        self.out
            .push_back(Output::Transmit(Transmit { path, datagram }));
    }

    /// Sends a message, in as many datagrams as it has.
    pub(crate) fn transmit_all(&mut self, path: Path, datagrams: &Datagrams) {
        for datagram in datagrams.iter() {
            self.transmit(path, datagram.clone());
        }
    }

    /// An authenticated peer did this wrong.
    pub(crate) fn count_fault(&mut self, fault: Fault) {
        *self.faults.entry(fault.name()).or_default() += 1;
    }

    /// A peer did not get a network that is another one's.
    pub(crate) fn count_withheld(&mut self) {
        *self.faults.entry("network_withheld").or_default() += 1;
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    pub(crate) fn ask(&mut self, waiting: Waiting, ask: Ask) {
        self.last_ask += 1;
        let id = AskId(self.last_ask);
        self.asks.insert(id, waiting);
        self.out.push_back(Output::Ask(id, ask));
    }

    /// Who waited for this answer; each question is answered once.
    pub(crate) fn answered(&mut self, id: AskId) -> Option<Waiting> {
        self.asks.remove(&id)
    }

    /// Questions that somebody waits for an answer to.
    #[cfg(feature = "testing")]
    pub(crate) fn open_asks(&self) -> usize {
        let waited = |waiting: &&Waiting| **waiting != Waiting::Nobody;
        self.asks.values().filter(waited).count()
    }

    pub(crate) fn new_ike_id(&mut self) -> IkeSaId {
        self.last_ike += 1;
        IkeSaId(self.last_ike)
    }

    pub(crate) fn new_child_id(&mut self) -> ChildSaId {
        self.last_child += 1;
        ChildSaId(self.last_child)
    }

    //= rfc7296 2.6-1 3.1-2
    //= security S-13
    /// An IKE SPI that no one can guess; with 64 random bits, collisions do not happen.
    pub(crate) fn new_ike_spi(&mut self) -> IkeSpi {
        loop {
            let spi = self.rng.next_u64();
            if spi != 0 {
                return IkeSpi(spi);
            }
        }
    }

    //= rfc4303 2.1-6
    //= security S-13 S-51
    /// An ESP SPI of one half, above the reserved ones. The data plane says if it is taken.
    pub(crate) fn new_esp_spi(&mut self, half: SpiHalf) -> EspSpi {
        loop {
            let low = self.rng.next_u32() >> 1;
            let spi = match half {
                SpiHalf::Lower => low,
                SpiHalf::Upper => low | 1 << 31,
            };
            if spi >= 256 {
                return EspSpi(spi);
            }
        }
    }

    //= rfc7296 2.10-1 3.9-2
    //= security S-22
    pub(crate) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    /// Forgets tickets, and keys for them, that are too old to be of use.
    pub(crate) fn expire_tickets(&mut self, now: Instant) {
        if self.tickets_deadline().is_some_and(|at| at <= now) {
            self.tickets.expire(now);
            self.kept.expire(now);
        }
    }

    /// When there are such.
    pub(crate) fn tickets_deadline(&self) -> Option<Instant> {
        let deadlines = [self.tickets.deadline(), self.kept.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// When a request that goes out at `now` goes out again; `probe` is of one that asks for a sign of life.
    pub(crate) fn retransmit(&mut self, now: Instant, probe: Option<DpdRetry>) -> Retransmit {
        Retransmit::start(now, &self.config.settings, probe, &mut *self.rng)
    }
}
