//! The messages: protected ones of the peer, unprotected ones of anybody, and malformed ones.

mod requests;

use obol_ike::crypto::ke::KeyExchange;
use obol_ike::event::{EspSpi, IkeSpi};
use obol_ike::proposal::{ChildExchange, EspProposal, IkeProposal};
use obol_ike::testing::forge::Forgery;
use obol_ike::wire::{
    Delete, ExchangeType, Flags, Header, Ke, KeMethod, Notify, NotifyType, Payload, PayloadType,
    Proposal, ProtocolId, emit_message,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::states::{At, NO_CHILD};
use requests::{child_payloads, create_child_requests, informational_requests, other_requests};

const INIT: ExchangeType = ExchangeType::IKE_SA_INIT;
const RESUME: ExchangeType = ExchangeType::IKE_SESSION_RESUME;
const AUTH: ExchangeType = ExchangeType::IKE_AUTH;
const CREATE: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;
const NEW_SPI: EspSpi = EspSpi(0xc000_0042);

/// Makes it, in the state that the second host is in.
type Make = dyn Fn(&At) -> Option<Vec<u8>>;

/// A kind of message.
pub(crate) struct Kind {
    /// Its name.
    pub(crate) name: String,
    make: Box<Make>,
}

impl Kind {
    /// The datagram in this state.
    pub(crate) fn make(&self, at: &At) -> Option<Vec<u8>> {
        (self.make)(at)
    }
}

fn kind(name: &str, make: impl Fn(&At) -> Option<Vec<u8>> + 'static) -> Kind {
    Kind {
        name: name.to_owned(),
        make: Box::new(make),
    }
}

/// All kinds.
pub(crate) fn kinds() -> Vec<Kind> {
    let mut all = unprotected();
    all.extend(repeated());
    all.extend(damaged());
    all.extend(message_ids());
    all.extend(informational_requests());
    all.extend(create_child_requests());
    all.extend(other_requests());
    all.extend(answers());
    all
}

fn header(at: &At, exchange: ExchangeType, response: bool, message_id: u32) -> Header {
    let sas = at.pair.b.endpoint.status(at.pair.now);
    let ours = sas
        .iter()
        .find(|sa| (sa.spi_i, sa.spi_r) == at.spis)
        .is_some_and(|sa| sa.initiator);
    let flags = Flags {
        initiator: !ours,
        version: false,
        response,
    };
    Header::new(at.spis.0, at.spis.1, exchange, flags, message_id)
}

/// Under the keys of the IKE SA; if the peer has none, with an Encrypted payload of zeros.
fn protected(at: &At, forgery: &Forgery) -> Option<Vec<u8>> {
    let (spi_i, spi_r) = at.spis;
    at.pair.a.endpoint.forge(spi_i, spi_r, forgery).or_else(|| {
        let header = header(at, forgery.exchange, forgery.response, forgery.message_id);
        let body = [0; 64];
        let mut datagram =
            obol_ike::wire::protected_prefix(&header, None, forgery.first, body.len()).ok()?;
        datagram.extend(body);
        Some(datagram)
    })
}

/// A request with the message ID that is next.
fn request(at: &At, mut forgery: Forgery) -> Option<Vec<u8>> {
    let (_, next) = at.pair.b.endpoint.message_ids(at.spis.0, at.spis.1);
    forgery.message_id = next;
    protected(at, &forgery)
}

/// An answer to the request that is open; to message ID 0 if none is.
fn answer(at: &At, mut forgery: Forgery) -> Option<Vec<u8>> {
    let (open, _) = at.pair.b.endpoint.message_ids(at.spis.0, at.spis.1);
    forgery.message_id = open.unwrap_or(0);
    protected(at, &forgery)
}

fn asks(
    name: &str,
    exchange: ExchangeType,
    payloads: impl Fn(&At) -> Vec<Payload<'static>> + 'static,
) -> Kind {
    kind(name, move |at| {
        request(at, Forgery::of(exchange, false, &payloads(at)))
    })
}

fn bare(ty: NotifyType) -> Payload<'static> {
    Payload::Notify(Notify::bare(ty))
}

fn unknown(critical: bool) -> Payload<'static> {
    Payload::Unknown {
        ty: PayloadType(200),
        critical,
        body: b"what is this",
    }
}

fn unprotected() -> Vec<Kind> {
    let in_clear = |exchange, response, payloads: Vec<Payload<'static>>| {
        move |at: &At| {
            let message_id = at
                .pair
                .b
                .endpoint
                .message_ids(at.spis.0, at.spis.1)
                .0
                .filter(|_| response && exchange != INIT);
            emit_message(
                &header(at, exchange, response, message_id.unwrap_or(0)),
                &payloads,
            )
            .ok()
        }
    };
    let clear = |name: &str, exchange, response, payloads| {
        kind(name, in_clear(exchange, response, payloads))
    };
    let delete = || vec![Payload::Delete(Delete::Ike)];
    vec![
        kind("a stranger: IKE_SA_INIT request", |_| {
            Some(stranger(&[KeMethod::CURVE25519], 32))
        }),
        kind(
            "a stranger: IKE_SA_INIT request, key exchange of 31 octets",
            |_| Some(stranger(&[KeMethod::CURVE25519], 31)),
        ),
        kind(
            "a stranger: IKE_SA_INIT request for a method that is unknown",
            |_| Some(stranger(&[KeMethod(999)], 32)),
        ),
        kind("a stranger: major version 3", |_| {
            let mut datagram = stranger(&[KeMethod::CURVE25519], 32);
            datagram[17] = 0x30;
            Some(datagram)
        }),
        clear(
            "clear: IKE_SA_INIT answer NO_PROPOSAL_CHOSEN",
            INIT,
            true,
            vec![bare(NotifyType::NO_PROPOSAL_CHOSEN)],
        ),
        clear(
            "clear: IKE_SA_INIT answer INVALID_SYNTAX",
            INIT,
            true,
            vec![bare(NotifyType::INVALID_SYNTAX)],
        ),
        clear(
            "clear: IKE_SA_INIT answer COOKIE",
            INIT,
            true,
            vec![Payload::Notify(Notify::cookie(&[7; 20]))],
        ),
        clear(
            "clear: IKE_SA_INIT answer INVALID_KE_PAYLOAD, offered",
            INIT,
            true,
            vec![Payload::Notify(Notify::invalid_ke(KeMethod::ECP_256))],
        ),
        clear(
            "clear: IKE_SA_INIT answer INVALID_KE_PAYLOAD, not offered",
            INIT,
            true,
            vec![Payload::Notify(Notify::invalid_ke(KeMethod(2)))],
        ),
        clear(
            "clear: IKE_SA_INIT answer without payloads",
            INIT,
            true,
            vec![],
        ),
        kind("a stranger: IKE_SESSION_RESUME request", |_| {
            Some(stranger_with_ticket())
        }),
        clear(
            "clear: IKE_SESSION_RESUME answer TICKET_NACK",
            RESUME,
            true,
            vec![bare(NotifyType::TICKET_NACK)],
        ),
        clear(
            "clear: IKE_SESSION_RESUME answer COOKIE",
            RESUME,
            true,
            vec![Payload::Notify(Notify::cookie(&[7; 20]))],
        ),
        clear(
            "clear: IKE_SESSION_RESUME answer INVALID_SYNTAX",
            RESUME,
            true,
            vec![bare(NotifyType::INVALID_SYNTAX)],
        ),
        clear(
            "clear: IKE_SESSION_RESUME answer with a nonce, and no SPI",
            RESUME,
            true,
            vec![Payload::Nonce(&[4; 32])],
        ),
        clear(
            "clear: IKE_SESSION_RESUME answer without payloads",
            RESUME,
            true,
            vec![],
        ),
        clear("clear: IKE_AUTH request", AUTH, false, delete()),
        clear(
            "clear: IKE_AUTH answer AUTHENTICATION_FAILED",
            AUTH,
            true,
            vec![bare(NotifyType::AUTHENTICATION_FAILED)],
        ),
        clear("clear: CREATE_CHILD_SA request", CREATE, false, delete()),
        clear(
            "clear: INFORMATIONAL request, delete of the IKE SA",
            INFORMATIONAL,
            false,
            delete(),
        ),
        clear(
            "clear: INFORMATIONAL request INVALID_IKE_SPI",
            INFORMATIONAL,
            false,
            vec![bare(NotifyType::INVALID_IKE_SPI)],
        ),
        clear(
            "clear: INFORMATIONAL answer INVALID_IKE_SPI",
            INFORMATIONAL,
            true,
            vec![bare(NotifyType::INVALID_IKE_SPI)],
        ),
        clear("clear: exchange 77", ExchangeType(77), false, vec![]),
    ]
}

/// An IKE_SA_INIT request of nobody we know.
fn stranger(methods: &[KeMethod], len: usize) -> Vec<u8> {
    let flags = Flags {
        initiator: true,
        ..Flags::default()
    };
    let header = Header::new(IkeSpi(0x5555), IkeSpi(0), INIT, flags, 0);
    let mut proposals = IkeProposal::defaults();
    proposals.truncate(1);
    proposals[0].ke = methods.to_vec();
    let payloads = [
        Payload::Sa(IkeProposal::to_wire(&proposals, &[])),
        Payload::Ke(Ke {
            method: methods[0],
            data: &[9; 32][..len],
        }),
        Payload::Nonce(&[3; 32]),
    ];
    emit_message(&header, &payloads).expect("short")
}

/// An IKE_SESSION_RESUME request with a ticket that nobody made.
fn stranger_with_ticket() -> Vec<u8> {
    let flags = Flags {
        initiator: true,
        ..Flags::default()
    };
    let header = Header::new(IkeSpi(0x5555), IkeSpi(0), RESUME, flags, 0);
    let ticket = Notify::with_data(NotifyType::TICKET_OPAQUE, vec![1; 200]);
    let payloads = [Payload::Nonce(&[3; 32]), Payload::Notify(ticket)];
    emit_message(&header, &payloads).expect("short")
}

/// What the peer really sent, or really answers.
fn repeated() -> Vec<Kind> {
    let from_peer = |at: &At| {
        let sent = at
            .pair
            .net
            .sent
            .iter()
            .filter(|packet| packet.from.ip() == at.pair.a.address);
        sent.map(|packet| packet.datagram.clone())
            .collect::<Vec<_>>()
    };
    let or_nothing = |found: Option<Vec<u8>>| Some(found.unwrap_or_default());
    vec![
        kind("the peer's first message again", move |at| {
            or_nothing(from_peer(at).first().cloned())
        }),
        kind("the peer's last message (again)", move |at| {
            or_nothing(from_peer(at).last().cloned())
        }),
        kind("our own last message", move |at| {
            let sent = at
                .pair
                .net
                .sent
                .iter()
                .rfind(|packet| packet.from.ip() == at.pair.b.address);
            or_nothing(sent.map(|packet| packet.datagram.clone()))
        }),
    ]
}

fn liveness() -> Forgery {
    Forgery::of(INFORMATIONAL, false, &[])
}

fn damaged() -> Vec<Kind> {
    let sound = |at: &At| request(at, liveness()).expect("always made");
    let damage = move |name: &str, change: fn(&mut Vec<u8>)| {
        kind(name, move |at| {
            let mut datagram = sound(at);
            change(&mut datagram);
            Some(datagram)
        })
    };
    vec![
        damage("damaged: empty", |d| d.clear()),
        damage("damaged: cut to 27 octets", |d| d.truncate(27)),
        damage("damaged: cut to the header", |d| d.truncate(28)),
        damage("damaged: an octet too many", |d| d.push(0)),
        damage("damaged: an octet too few", |d| {
            d.pop();
        }),
        damage("damaged: the length says too much", |d| d[27] ^= 0x80),
        damage("damaged: an altered tag", |d| {
            if let Some(last) = d.last_mut() {
                *last ^= 1;
            }
        }),
        damage("damaged: another initiator's SPI", |d| d[0] ^= 1),
        damage("damaged: another responder's SPI", |d| d[8] ^= 1),
        damage("damaged: the initiator flag turned", |d| d[19] ^= 0x08),
        damage("damaged: the response flag turned", |d| d[19] ^= 0x20),
        damage("damaged: another exchange type", |d| d[18] = 36),
        damage("damaged: major version 1", |d| d[17] = 0x10),
        damage("damaged: payload length 0", |d| {
            if d.len() > 31 {
                (d[30], d[31]) = (0, 0);
            }
        }),
        damage("damaged: SK becomes a payload that is unknown", |d| {
            d[16] = 200
        }),
    ]
}

fn message_ids() -> Vec<Kind> {
    let with = |name: &str, id: fn(u32) -> u32| {
        kind(name, move |at| {
            let (_, next) = at.pair.b.endpoint.message_ids(at.spis.0, at.spis.1);
            protected(
                at,
                &Forgery {
                    message_id: id(next),
                    ..liveness()
                },
            )
        })
    };
    vec![
        with("message ID of the last request, other content", |next| {
            next.wrapping_sub(1)
        }),
        with("message ID of the request before that", |next| {
            next.wrapping_sub(2)
        }),
        with("message ID one too high", |next| next + 1),
        with("message ID far too high", |next| next + 1_000_000),
        with("message ID 2^32 - 1", |_| u32::MAX),
    ]
}

fn answers() -> Vec<Kind> {
    let mut all = vec![kind("the peer's true answer to what is open", |at| {
        Some(true_answer(at))
    })];
    for (name, exchange) in [
        ("IKE_AUTH", AUTH),
        ("CREATE_CHILD_SA", CREATE),
        ("INFORMATIONAL", INFORMATIONAL),
    ] {
        let says = |what: &str, payloads: fn() -> Vec<Payload<'static>>| {
            kind(&format!("{name} answer {what}"), move |at| {
                answer(at, Forgery::of(exchange, true, &payloads()))
            })
        };
        all.extend([
            says("without payloads", Vec::new),
            says("NO_PROPOSAL_CHOSEN", || {
                vec![bare(NotifyType::NO_PROPOSAL_CHOSEN)]
            }),
            says("TS_UNACCEPTABLE", || {
                vec![bare(NotifyType::TS_UNACCEPTABLE)]
            }),
            says("NO_ADDITIONAL_SAS", || {
                vec![bare(NotifyType::NO_ADDITIONAL_SAS)]
            }),
            says("TEMPORARY_FAILURE", || {
                vec![bare(NotifyType::TEMPORARY_FAILURE)]
            }),
            says("CHILD_SA_NOT_FOUND", || {
                vec![Payload::Notify(Notify::about_esp(
                    NotifyType::CHILD_SA_NOT_FOUND,
                    NO_CHILD,
                ))]
            }),
            says("INVALID_KE_PAYLOAD, offered", || {
                vec![Payload::Notify(Notify::invalid_ke(KeMethod::ECP_256))]
            }),
            says("INVALID_KE_PAYLOAD, not offered", || {
                vec![Payload::Notify(Notify::invalid_ke(KeMethod(2)))]
            }),
            says("AUTHENTICATION_FAILED", || {
                vec![bare(NotifyType::AUTHENTICATION_FAILED)]
            }),
            says("INVALID_SYNTAX", || vec![bare(NotifyType::INVALID_SYNTAX)]),
            says("error 8191 that nobody knows", || {
                vec![bare(NotifyType(8191))]
            }),
            says("with a ticket", || {
                let life = std::time::Duration::from_secs(3600);
                vec![Payload::Notify(Notify::ticket(life, &[1; 200]))]
            }),
            says("with an unknown critical payload", || vec![unknown(true)]),
            says("with payloads of a child", || child_payloads(16)),
        ]);
        all.push(kind(
            &format!("{name} answer, payloads that are no chain"),
            move |at| {
                let forgery = Forgery {
                    first: PayloadType::NOTIFY,
                    chain: b"\0\0\0\xff".to_vec(),
                    ..Forgery::of(exchange, true, &[])
                };
                answer(at, forgery)
            },
        ));
    }
    all.push(kind(
        "INFORMATIONAL answer to a message ID that is not open",
        |at| {
            let (open, _) = at.pair.b.endpoint.message_ids(at.spis.0, at.spis.1);
            let message_id = open.map_or(5, |id| id + 1);
            protected(
                at,
                &Forgery {
                    message_id,
                    ..Forgery::of(INFORMATIONAL, true, &[])
                },
            )
        },
    ));
    all
}

/// What the first host answers to the last request of the second; if it has none to answer, its
/// last message again.
fn true_answer(at: &At) -> Vec<u8> {
    let mut copy = at.again();
    let asked =
        copy.pair.net.sent.iter().rfind(|packet| {
            packet.from.ip() == copy.pair.b.address && packet.datagram[19] & 0x20 == 0
        });
    if let Some(asked) = asked.cloned() {
        let path = obol_ike::config::Path {
            local: asked.to,
            remote: asked.from,
        };
        let now = copy.pair.now;
        let sent = copy.pair.net.sent.len();
        let _ = copy
            .pair
            .a
            .endpoint
            .handle_datagram(now, path, &asked.datagram);
        copy.pair.run_for(std::time::Duration::ZERO);
        let answer = copy.pair.net.sent[sent..]
            .iter()
            .find(|packet| packet.datagram[19] & 0x20 != 0);
        if let Some(answer) = answer {
            return answer.datagram.clone();
        }
    }
    let last = copy
        .pair
        .net
        .sent
        .iter()
        .rfind(|packet| packet.from.ip() == copy.pair.a.address);
    last.map(|packet| packet.datagram.clone())
        .unwrap_or_default()
}
