//! An initiator that does what a test says, right or wrong, against a real endpoint.

mod asked;
mod fragments;
mod heard;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::net::{Net, Packet};
use super::pair::{End, Pair};
use super::setup::{A, B, ID_A, Setup};
use crate::auth::{InitiatorSignedOctets, psk_auth_data};
use crate::config::{Config, Path};
use crate::crypto::ke::KeyExchange;
use crate::crypto::secret::Secret;
use crate::error::Dropped;
use crate::event::{EspSpi, IkeSpi};
use crate::identity::Identity;
use crate::keys::{IkeCiphers, IkeKeys};
use crate::proposal::{ChildExchange, Encr, EspProposal, IkeProposal};
use crate::status::IkeAlgorithms;
use crate::wire::{
    Auth, AuthMethod, Delete, ExchangeType, Flags, Fragment, Header, Id, IntegId, Ke, KeMethod,
    Message, Notify, NotifyType, Payload, PayloadType, PrfId, emit_chain, emit_message,
    parse_chain, protected_prefix,
};

pub use asked::Asked;
pub use heard::Heard;

/// SPI of the first Child SA's packets to the scripted peer.
pub const SCRIPTED_SPI: EspSpi = EspSpi(0xc000_0001);
const SPI_I: IkeSpi = IkeSpi(0x0102_0304_0506_0708);
const NI: [u8; 32] = [5; 32];

/// The scripted initiator, in the place of the first host, and the real second host.
pub struct Scripted {
    /// The second host is the one to look at.
    pub pair: Pair,
    /// Message ID of the next request.
    pub message_id: u32,
    /// Where its messages arrive, and where from.
    pub path: Path,
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    keys: IkeKeys,
    ciphers: IkeCiphers,
    message1: Vec<u8>,
    nr: Vec<u8>,
    sealed: u64,
}

/// A reply: what is in it, for a test.
#[derive(Debug, Default)]
pub struct Reply {
    /// Types of its payloads.
    pub payloads: Vec<PayloadType>,
    /// Its notifies.
    pub notifies: Vec<(NotifyType, Vec<u8>)>,
    /// ESP SPIs that it deletes.
    pub deleted: Vec<EspSpi>,
}

impl Reply {
    /// The first notify that reports an error.
    pub fn error(&self) -> Option<NotifyType> {
        self.notifies
            .iter()
            .map(|(ty, _)| *ty)
            .find(|ty| ty.is_error())
    }
}

impl Scripted {
    /// After IKE_SA_INIT with the second host of this setup.
    ///
    /// # Panics
    /// If the second host does not answer.
    pub fn begun(setup: Setup) -> Self {
        let mut pair = setup.pair(3);
        pair.net = Net::seeded(3);
        Self::with_pair(pair)
    }

    /// The same with a second host that has this configuration.
    pub fn begun_with(config: Config) -> Self {
        let mut pair = Setup::new(3).pair(3);
        let now = pair.now;
        pair.b.endpoint.reload(now, Arc::new(config));
        Self::with_pair(pair)
    }

    /// One more peer of the same second host, with its own IKE SA; this one is left as it is.
    #[must_use]
    pub fn another(self, spi_i: u64) -> Self {
        Self::with_spi(self.pair, IkeSpi(spi_i))
    }

    fn with_pair(pair: Pair) -> Self {
        Self::with_spi(pair, SPI_I)
    }

    fn with_spi(mut pair: Pair, spi_i: IkeSpi) -> Self {
        // The first host itself would say that it knows nothing of what the scripted one does.
        pair.a.address = [0, 0, 0, 0].into();
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let ke = KeyExchange::generate(KeMethod::CURVE25519, &mut rng).expect("obol has it");
        let message1 = init_request(spi_i, ke.public());
        let now = pair.now;
        let taken = pair.b.endpoint.handle_datagram(now, path(), &message1);
        assert_eq!(taken, Ok(()));
        pair.run_for(Duration::ZERO);
        let reply = pair.net.sent.last().expect("a reply").datagram.clone();
        let message = Message::parse(&reply).expect("the endpoint's own");
        let (mut nr, mut shared) = (Vec::new(), None);
        for raw in &message.payloads {
            match raw.decode().expect("the endpoint's own") {
                Payload::Nonce(nonce) => nr = nonce.to_vec(),
                Payload::Ke(theirs) => shared = ke.agree(theirs.data).ok(),
                _ => {}
            }
        }
        let alg = IkeAlgorithms {
            encr: Encr::AES256_GCM16,
            integ: IntegId::NONE,
            prf: PrfId::HMAC_SHA2_256,
            ke: KeMethod::CURVE25519,
        };
        let spi_r = message.header.spi_r;
        let shared = shared.expect("a KE payload");
        let keys = IkeKeys::derive(&alg, &NI, &nr, &shared, spi_i, spi_r).expect("obol has it");
        Self {
            spi_i,
            ciphers: keys.ciphers().expect("obol has it"),
            pair,
            message_id: 1,
            path: path(),
            spi_r,
            keys,
            message1,
            nr,
            sealed: 0,
        }
    }

    /// After a good IKE_AUTH with the second host of this setup.
    ///
    /// # Panics
    /// If the second host does not accept it.
    pub fn established(setup: Setup) -> Self {
        let mut peer = Self::begun(setup);
        let reply = peer.prove(ID_A, |_| {}).expect("a reply");
        assert_eq!(reply.error(), None);
        peer
    }

    /// Sends an IKE_AUTH request as this identity, changed by the test, and returns the reply.
    ///
    /// # Errors
    /// Why the request was dropped.
    pub fn prove(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut Vec<Payload<'_>>),
    ) -> Result<Reply, Dropped> {
        let (first, chain) = self.auth_chain(id, change);
        self.request_octets(ExchangeType::IKE_AUTH, first, &chain)
    }

    /// The content of such an IKE_AUTH request.
    ///
    /// # Panics
    /// If the test's payloads are too long.
    pub fn auth_chain(
        &self,
        id: &str,
        change: impl FnOnce(&mut Vec<Payload<'_>>),
    ) -> (PayloadType, Vec<u8>) {
        let body = id
            .parse::<Identity>()
            .expect("an identity of a test")
            .to_body();
        let octets = InitiatorSignedOctets::new(&self.message1, &self.nr, &self.keys, &body);
        let secret = Secret::from(&b"a secret for tests"[..]);
        let data = psk_auth_data(self.keys.prf(), &secret, &octets);
        let mut payloads = vec![
            Payload::IdI(Id::from_body(&body).expect("a body has its fixed part")),
            Payload::Auth(Auth {
                method: AuthMethod::SHARED_KEY,
                data: &data,
            }),
        ];
        payloads.extend(child_payloads(ChildExchange::IkeAuth));
        change(&mut payloads);
        let mut chain = Vec::new();
        let first = emit_chain(&payloads, &mut chain).expect("short payloads");
        (first, chain)
    }

    /// Sends a request and returns the reply.
    ///
    /// # Errors
    /// Why the request was dropped.
    pub fn request(
        &mut self,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
    ) -> Result<Reply, Dropped> {
        let mut chain = Vec::new();
        let first = emit_chain(payloads, &mut chain).expect("short payloads");
        self.request_octets(exchange, first, &chain)
    }

    /// The same with octets that need be no payloads.
    ///
    /// # Errors
    /// Why the request was dropped.
    pub fn request_octets(
        &mut self,
        exchange: ExchangeType,
        first: PayloadType,
        chain: &[u8],
    ) -> Result<Reply, Dropped> {
        let datagram = self.seal(exchange, None, first, chain);
        let sent = self.pair.net.sent.len();
        let now = self.pair.now;
        self.pair
            .node(End::B)
            .endpoint
            .handle_datagram(now, self.path, &datagram)?;
        self.pair.run_for(Duration::ZERO);
        self.message_id += 1;
        let replies = self.pair.net.sent[sent..].iter();
        let replies: Vec<&[u8]> = replies
            .map(|packet| &*packet.datagram)
            .filter(|datagram| datagram[19] & 0x20 != 0)
            .collect();
        assert!(!replies.is_empty(), "no reply");
        Ok(self.read(&replies))
    }

    /// The last request of the second host: where it was sent to, and what is in it.
    ///
    /// # Panics
    /// If there was none.
    pub fn last_asked(&self) -> (SocketAddr, Reply) {
        let request = self.last_request();
        (request.to, self.read(&[&request.datagram]))
    }

    /// Answers that request.
    ///
    /// # Errors
    /// Why the answer was dropped.
    pub fn answer_last(&mut self, payloads: &[Payload<'_>]) -> Result<(), Dropped> {
        let mut chain = Vec::new();
        let first = emit_chain(payloads, &mut chain).expect("short payloads");
        let request = Message::parse(&self.last_request().datagram)
            .expect("the endpoint's own")
            .header;
        let flags = Flags {
            initiator: true,
            response: true,
            ..Flags::default()
        };
        let id = request.message_id;
        let header = Header::new(self.spi_i, self.spi_r, request.exchange, flags, id);
        let cipher = &self.ciphers.from_initiator;
        let sealed_len = cipher.sealed_len(chain.len());
        let mut datagram =
            protected_prefix(&header, None, first, sealed_len).expect("short payloads");
        let sealed = cipher.seal(self.sealed, &datagram, &chain);
        self.sealed += 1;
        datagram.extend(sealed);
        let now = self.pair.now;
        let endpoint = &mut self.pair.node(End::B).endpoint;
        endpoint.handle_datagram(now, self.path, &datagram)?;
        self.pair.run_for(Duration::ZERO);
        Ok(())
    }

    fn last_request(&self) -> &Packet {
        let sent = self.pair.net.sent.iter();
        let mut requests = sent.filter(|packet| packet.datagram[19] & 0x20 == 0);
        requests.next_back().expect("a request of the endpoint")
    }

    /// A request, or a fragment of one, with the next Message ID.
    fn seal(
        &mut self,
        exchange: ExchangeType,
        fragment: Option<Fragment>,
        first: PayloadType,
        chain: &[u8],
    ) -> Vec<u8> {
        let flags = Flags {
            initiator: true,
            ..Flags::default()
        };
        let mut header = Header::new(self.spi_i, self.spi_r, exchange, flags, self.message_id);
        // Whoever speaks a later minor version of 2 is understood (RFC 7296 section 2.5).
        header.minor = 5;
        let cipher = &self.ciphers.from_initiator;
        let sealed_len = cipher.sealed_len(chain.len());
        let mut datagram =
            protected_prefix(&header, fragment, first, sealed_len).expect("short payloads");
        let sealed = cipher.seal(self.sealed, &datagram, chain);
        self.sealed += 1;
        datagram.extend(sealed);
        datagram
    }

    /// Reads a reply that is whole, or in fragments in order.
    fn read(&self, datagrams: &[&[u8]]) -> Reply {
        let (mut first, mut octets) = (None, Vec::new());
        for datagram in datagrams {
            let message = Message::parse(datagram).expect("the endpoint's own");
            let protected = message.protected().expect("sound").expect("protected");
            let body = protected.aad.len()..datagram.len();
            let opened = self.ciphers.from_responder.open(datagram, body);
            octets.extend(opened.expect("its own keys"));
            first.get_or_insert(protected.first);
        }
        let first = first.expect("a reply");
        let mut reply = Reply::default();
        for raw in parse_chain(first, &octets).expect("the endpoint's own") {
            reply.payloads.push(raw.ty);
            match raw.decode().expect("the endpoint's own") {
                Payload::Notify(n) => reply.notifies.push((n.ty, n.data.to_vec())),
                Payload::Delete(Delete::Esp(spis)) => reply.deleted.extend(spis),
                _ => {}
            }
        }
        reply
    }

    /// The IKE_SA_INIT request as it was sent.
    pub fn first_request(&self) -> &[u8] {
        &self.message1
    }

    /// How many IKE SAs the second host has, and how many Child SAs.
    pub fn up(&self) -> (usize, usize) {
        let status = self.pair.b.endpoint.status(self.pair.now);
        let children = status.iter().map(|sa| sa.children.len()).sum();
        (status.len(), children)
    }
}

/// SA, TSi and TSr for the tunnel of the setup.
///
/// # Panics
/// Never.
pub fn child_payloads(exchange: ChildExchange) -> Vec<Payload<'static>> {
    let selectors = |text: &str| vec![text.parse().expect("a selector of the setup")].into();
    vec![
        Payload::Sa(EspProposal::to_wire(
            &EspProposal::defaults(),
            SCRIPTED_SPI,
            exchange,
        )),
        Payload::TsI(selectors("172.16.1.0/24")),
        Payload::TsR(selectors("172.16.2.0/24")),
    ]
}

/// REKEY_SA for a Child SA, named by the SPI of packets to the scripted peer.
pub fn rekey_notify(spi: EspSpi) -> Payload<'static> {
    Payload::Notify(Notify::about_esp(NotifyType::REKEY_SA, spi))
}

fn path() -> Path {
    Path {
        local: (B, 500).into(),
        remote: (A, 500).into(),
    }
}

fn init_request(spi_i: IkeSpi, public: &[u8]) -> Vec<u8> {
    let proposal = IkeProposal {
        encr: vec![Encr::AES256_GCM16],
        integ: Vec::new(),
        prf: vec![PrfId::HMAC_SHA2_256],
        ke: vec![KeMethod::CURVE25519],
    };
    let flags = Flags {
        initiator: true,
        ..Flags::default()
    };
    let header = Header::new(spi_i, IkeSpi(0), ExchangeType::IKE_SA_INIT, flags, 0);
    let payloads = [
        Payload::Sa(IkeProposal::to_wire(&[proposal], &[])),
        Payload::Ke(Ke {
            method: KeMethod::CURVE25519,
            data: public,
        }),
        Payload::Nonce(&NI),
        Payload::Notify(Notify::bare(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED)),
    ];
    emit_message(&header, &payloads).expect("short payloads")
}
