//! A peer that shares keys with the endpoint and sends arbitrary payloads under them: before it
//! has proven who it is, or after.

use std::time::Instant;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::fuzz_endpoint::{SECRET, endpoint, later, path, settle};
use super::setup::ID_B;
use crate::auth::{InitiatorSignedOctets, psk_auth_data};
use crate::crypto::ke::KeyExchange;
use crate::crypto::secret::Secret;
use crate::endpoint::Endpoint;
use crate::event::{EspSpi, IkeSpi};
use crate::identity::Identity;
use crate::keys::{IkeCiphers, IkeKeys};
use crate::proposal::{ChildExchange, Encr, EspProposal, IkeProposal};
use crate::status::IkeAlgorithms;
use crate::ts::TrafficSelector;
use crate::wire::{
    Auth, AuthMethod, ExchangeType, Flags, Header, Id, IntegId, Ke, KeMethod, Message, Payload,
    PayloadType, PrfId, emit_chain, emit_message, protected_prefix,
};

const EXCHANGES: [ExchangeType; 3] = [
    ExchangeType::INFORMATIONAL,
    ExchangeType::CREATE_CHILD_SA,
    ExchangeType::IKE_AUTH,
];
const NI: [u8; 32] = [5; 32];
const SPI_I: IkeSpi = IkeSpi(0x0102_0304_0506_0708);

/// Messages that one input may hold.
const MAX_MESSAGES: usize = 8;

/// Plays a peer. The first octet of the input says whether it proves itself first (1), then
/// come messages: kind, type of the first payload, length (one octet each), payloads. The
/// remainder of `kind` by 3 chooses the exchange; its highest bit makes the message an answer
/// to the endpoint's last request. Returns how many of the peer's requests were answered.
///
/// # Panics
/// If the endpoint is at fault.
pub fn fuzz_peer(now: Instant, input: &[u8]) -> usize {
    let Some((prove, mut input)) = input.split_first() else {
        return 0;
    };
    let mut peer = Peer::new(now);
    if *prove == 1 {
        peer.prove();
    }
    for _ in 0..MAX_MESSAGES {
        let [kind, first, len, rest @ ..] = input else {
            break;
        };
        let (payloads, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        input = rest;
        let exchange = EXCHANGES[usize::from(kind % 3)];
        if kind & 0x80 == 0 {
            peer.request(exchange, PayloadType(*first), payloads);
        } else {
            peer.answer(PayloadType(*first), payloads);
        }
    }
    later(&mut peer.endpoint, now);
    peer.answered
}

struct Peer {
    endpoint: Endpoint,
    now: Instant,
    spi_r: IkeSpi,
    keys: IkeKeys,
    ciphers: IkeCiphers,
    request: Vec<u8>,
    nr: Vec<u8>,
    /// Message ID of the next request.
    message_id: u32,
    sealed: u64,
    answered: usize,
    /// The endpoint's last request.
    asked: Option<Header>,
}

impl Peer {
    /// A peer that has done IKE_SA_INIT.
    fn new(now: Instant) -> Self {
        let mut endpoint = endpoint();
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let ke = KeyExchange::generate(KeMethod::CURVE25519, &mut rng).expect("obol has X25519");
        let request = init_request(ke.public());
        endpoint
            .handle_datagram(now, path(), &request)
            .expect("a fresh responder takes a request");
        let reply = settle(&mut endpoint, now).pop().expect("a reply");
        let (spi_r, nr, shared) = read_reply(&reply, &ke);
        let alg = IkeAlgorithms {
            encr: Encr::AES128_GCM16,
            integ: IntegId::NONE,
            prf: PrfId::HMAC_SHA2_256,
            ke: KeMethod::CURVE25519,
        };
        let keys = IkeKeys::derive(&alg, &NI, &nr, &shared, SPI_I, spi_r)
            .expect("obol has these algorithms");
        let ciphers = keys.ciphers().expect("obol has these algorithms");
        Self {
            endpoint,
            now,
            spi_r,
            keys,
            ciphers,
            request,
            nr,
            message_id: 1,
            sealed: 0,
            answered: 0,
            asked: None,
        }
    }

    /// Sends a good IKE_AUTH request.
    fn prove(&mut self) {
        let body = ID_B
            .parse::<Identity>()
            .expect("an identity of the setup")
            .to_body();
        let octets = InitiatorSignedOctets::new(&self.request, &self.nr, &self.keys, &body);
        let data = psk_auth_data(self.keys.prf(), &Secret::from(SECRET), &octets);
        let proposals = EspProposal::to_wire(
            &EspProposal::defaults(),
            EspSpi(0xc000_0001),
            ChildExchange::IkeAuth,
        );
        let selectors = |text: &str| {
            let selector: TrafficSelector = text.parse().expect("a selector of the setup");
            vec![selector].into()
        };
        let payloads = [
            Payload::IdI(Id::from_body(&body).expect("a body has its fixed part")),
            Payload::Auth(Auth {
                method: AuthMethod::SHARED_KEY,
                data: &data,
            }),
            Payload::Sa(proposals),
            Payload::TsI(selectors("172.16.2.0/24")),
            Payload::TsR(selectors("172.16.1.0/24")),
        ];
        let mut chain = Vec::new();
        let first = emit_chain(&payloads, &mut chain).expect("short payloads");
        self.request(ExchangeType::IKE_AUTH, first, &chain);
        let status = self.endpoint.status(self.now);
        assert!(
            status.iter().any(|sa| sa.state == "established"),
            "{status:?}"
        );
    }

    fn request(&mut self, exchange: ExchangeType, first: PayloadType, chain: &[u8]) {
        let id = self.message_id;
        self.send(exchange, false, id, first, chain);
        if self.message_id != id {
            self.answered += 1;
        }
    }

    fn answer(&mut self, first: PayloadType, chain: &[u8]) {
        if let Some(asked) = self.asked {
            self.send(asked.exchange, true, asked.message_id, first, chain);
        }
    }

    fn send(
        &mut self,
        exchange: ExchangeType,
        response: bool,
        message_id: u32,
        first: PayloadType,
        chain: &[u8],
    ) {
        let flags = Flags {
            initiator: true,
            version: false,
            response,
        };
        let header = Header::new(SPI_I, self.spi_r, exchange, flags, message_id);
        let cipher = &self.ciphers.from_initiator;
        let mut datagram = protected_prefix(&header, None, first, cipher.sealed_len(chain.len()))
            .expect("inputs are short");
        let sealed = cipher.seal(self.sealed, &datagram, chain);
        self.sealed += 1;
        datagram.extend(sealed);
        let _ = self.endpoint.handle_datagram(self.now, path(), &datagram);
        for sent in settle(&mut self.endpoint, self.now) {
            match Header::parse(&sent) {
                Ok(header) if !header.flags.response => self.asked = Some(header),
                Ok(header) if header.message_id == self.message_id => self.message_id += 1,
                _ => {}
            }
        }
    }
}

fn init_request(public: &[u8]) -> Vec<u8> {
    let proposal = IkeProposal {
        encr: vec![Encr::AES128_GCM16],
        integ: Vec::new(),
        prf: vec![PrfId::HMAC_SHA2_256],
        ke: vec![KeMethod::CURVE25519],
    };
    let flags = Flags {
        initiator: true,
        ..Flags::default()
    };
    let header = Header::new(SPI_I, IkeSpi(0), ExchangeType::IKE_SA_INIT, flags, 0);
    let payloads = [
        Payload::Sa(IkeProposal::to_wire(&[proposal], &[])),
        Payload::Ke(Ke {
            method: KeMethod::CURVE25519,
            data: public,
        }),
        Payload::Nonce(&NI),
    ];
    emit_message(&header, &payloads).expect("short payloads")
}

/// The responder's SPI and nonce, and the shared secret.
fn read_reply(reply: &[u8], ke: &KeyExchange) -> (IkeSpi, Vec<u8>, Secret) {
    let message = Message::parse(reply).expect("the endpoint's message");
    let (mut nr, mut shared) = (None, None);
    for payload in &message.payloads {
        match payload.decode().expect("the endpoint's payload") {
            Payload::Nonce(nonce) => nr = Some(nonce.to_vec()),
            Payload::Ke(theirs) => shared = ke.agree(theirs.data).ok(),
            _ => {}
        }
    }
    let (nr, shared) = nr.zip(shared).expect("a reply has both");
    (message.header.spi_r, nr, shared)
}
