//! Protected requests of the peer: INFORMATIONAL, CREATE_CHILD_SA, and exchanges that do not exist.

use super::*;

pub(super) fn informational_requests() -> Vec<Kind> {
    let child = |at: &At| at.theirs.unwrap_or(NO_CHILD);
    let esp = |spis: Vec<EspSpi>| Payload::Delete(Delete::Esp(spis));
    vec![
        asks("INFORMATIONAL request, empty", INFORMATIONAL, |_| vec![]),
        asks(
            "INFORMATIONAL request, delete of the IKE SA",
            INFORMATIONAL,
            |_| vec![Payload::Delete(Delete::Ike)],
        ),
        asks(
            "INFORMATIONAL request, delete of the child",
            INFORMATIONAL,
            move |at| vec![esp(vec![child(at)])],
        ),
        asks(
            "INFORMATIONAL request, delete of a child that is not there",
            INFORMATIONAL,
            move |_| vec![esp(vec![NO_CHILD])],
        ),
        asks(
            "INFORMATIONAL request, delete of the child twice",
            INFORMATIONAL,
            move |at| vec![esp(vec![child(at), child(at)])],
        ),
        asks(
            "INFORMATIONAL request, delete of the child and the IKE SA",
            INFORMATIONAL,
            move |at| vec![esp(vec![child(at)]), Payload::Delete(Delete::Ike)],
        ),
        asks(
            "INFORMATIONAL request AUTHENTICATION_FAILED",
            INFORMATIONAL,
            |_| vec![bare(NotifyType::AUTHENTICATION_FAILED)],
        ),
        asks(
            "INFORMATIONAL request INVALID_SYNTAX",
            INFORMATIONAL,
            |_| vec![bare(NotifyType::INVALID_SYNTAX)],
        ),
        asks(
            "INFORMATIONAL request TICKET_REQUEST",
            INFORMATIONAL,
            |_| vec![bare(NotifyType::TICKET_REQUEST)],
        ),
        asks("INFORMATIONAL request INVALID_SPI", INFORMATIONAL, |_| {
            vec![bare(NotifyType::INVALID_SPI)]
        }),
        asks(
            "INFORMATIONAL request INITIAL_CONTACT",
            INFORMATIONAL,
            |_| vec![bare(NotifyType::INITIAL_CONTACT)],
        ),
        asks(
            "INFORMATIONAL request, error 8191 that nobody knows",
            INFORMATIONAL,
            |_| vec![bare(NotifyType(8191))],
        ),
        asks(
            "INFORMATIONAL request, status 40000 that nobody knows",
            INFORMATIONAL,
            |_| vec![bare(NotifyType(40000))],
        ),
        asks(
            "INFORMATIONAL request, unknown payload",
            INFORMATIONAL,
            |_| vec![unknown(false)],
        ),
        asks(
            "INFORMATIONAL request, unknown critical payload",
            INFORMATIONAL,
            |_| vec![unknown(true)],
        ),
        kind("INFORMATIONAL request, payloads that are no chain", |at| {
            let forgery = Forgery {
                first: PayloadType::NOTIFY,
                chain: b"\0\0\0\xff".to_vec(),
                ..liveness()
            };
            request(at, forgery)
        }),
        kind(
            "INFORMATIONAL request, a payload that cannot be read",
            |at| {
                let forgery = Forgery {
                    first: PayloadType::DELETE,
                    chain: b"\0\0\0\x05\x03".to_vec(),
                    ..liveness()
                };
                request(at, forgery)
            },
        ),
    ]
}

fn esp_offer(text: &str, exchange: ChildExchange) -> Vec<Proposal> {
    EspProposal::to_wire(&EspProposal::parse(text).expect("sound"), NEW_SPI, exchange)
}

/// SA, nonce and selectors for a child, as the second host has it configured.
pub(super) fn child_payloads(subnet: u8) -> Vec<Payload<'static>> {
    let selectors = |text: String| vec![text.parse().expect("a selector of the setup")].into();
    vec![
        Payload::Sa(esp_offer("aes256gcm16", ChildExchange::CreateChildSa(None))),
        Payload::Nonce(&[8; 32]),
        Payload::TsI(selectors(format!("172.{subnet}.1.0/24"))),
        Payload::TsR(selectors(format!("172.{subnet}.2.0/24"))),
    ]
}

fn rekey(at: &At) -> Vec<Payload<'static>> {
    let spi = at.theirs.unwrap_or(NO_CHILD);
    let mut payloads = child_payloads(16);
    payloads.insert(
        0,
        Payload::Notify(Notify::about_esp(NotifyType::REKEY_SA, spi)),
    );
    payloads
}

/// The public value of a key exchange; leaked, since payloads borrow it.
fn public() -> &'static [u8] {
    let mut rng = ChaCha20Rng::seed_from_u64(11);
    let ke = KeyExchange::generate(KeMethod::CURVE25519, &mut rng).expect("obol has it");
    ke.public().to_vec().leak()
}

fn rekey_ike(method: KeMethod, data: &'static [u8]) -> Vec<Payload<'static>> {
    vec![
        Payload::Sa(IkeProposal::to_wire(
            &IkeProposal::defaults(),
            &0x7777_u64.to_be_bytes(),
        )),
        Payload::Nonce(&[8; 32]),
        Payload::Ke(Ke { method, data }),
    ]
}

fn without(mut payloads: Vec<Payload<'static>>, nth: usize) -> Vec<Payload<'static>> {
    payloads.remove(nth);
    payloads
}

fn with(mut payloads: Vec<Payload<'static>>, more: Payload<'static>) -> Vec<Payload<'static>> {
    payloads.push(more);
    payloads
}

pub(super) fn create_child_requests() -> Vec<Kind> {
    let create = |name: &str, payloads: fn(&At) -> Vec<Payload<'static>>| {
        asks(
            &format!("CREATE_CHILD_SA request, {name}"),
            CREATE,
            payloads,
        )
    };
    vec![
        create("a child that is up", |_| child_payloads(16)),
        create("another child", |_| child_payloads(17)),
        create("another child in transport mode", |_| {
            with(child_payloads(17), bare(NotifyType::USE_TRANSPORT_MODE))
        }),
        create("a child that is not configured", |_| child_payloads(99)),
        create("a child without SA", |_| without(child_payloads(17), 0)),
        create("a child without nonce", |_| without(child_payloads(17), 1)),
        create("a child without selectors", |_| {
            without(child_payloads(17), 3)
        }),
        create("a child with two SA payloads", |_| {
            with(child_payloads(17), child_payloads(17).remove(0))
        }),
        create("a child with a nonce of 15 octets", |_| {
            let mut payloads = child_payloads(17);
            payloads[1] = Payload::Nonce(&[8; 15]);
            payloads
        }),
        create("a child with algorithms that we do not want", |_| {
            let mut payloads = child_payloads(17);
            payloads[0] = Payload::Sa(Vec::from([no_algorithms()]));
            payloads
        }),
        create("a child with an unknown critical payload", |_| {
            with(child_payloads(17), unknown(true))
        }),
        create("a rekey of the child", rekey),
        create("a rekey of a child that is not there", |_| {
            with(
                child_payloads(16),
                Payload::Notify(Notify::about_esp(NotifyType::REKEY_SA, NO_CHILD)),
            )
        }),
        create("a rekey of the child for AH", |at| {
            let mut payloads = rekey(at);
            if let Payload::Notify(notify) = &mut payloads[0] {
                notify.protocol = ProtocolId(2);
            }
            payloads
        }),
        create("a rekey of the child without SPI", |_| {
            with(child_payloads(16), bare(NotifyType::REKEY_SA))
        }),
        create("a rekey of the IKE SA", |_| {
            rekey_ike(KeMethod::CURVE25519, public())
        }),
        create("a rekey of the IKE SA without key exchange", |_| {
            without(rekey_ike(KeMethod::CURVE25519, public()), 2)
        }),
        create("a rekey of the IKE SA, key exchange of 31 octets", |_| {
            rekey_ike(KeMethod::CURVE25519, &public()[1..])
        }),
        create("a rekey of the IKE SA, a public value of low order", |_| {
            rekey_ike(KeMethod::CURVE25519, &[0; 32])
        }),
        create("a rekey of the IKE SA, a method that is unknown", |_| {
            rekey_ike(KeMethod(999), public())
        }),
        create("nothing", |_| vec![]),
    ]
}

/// A proposal of an encryption that does not exist.
fn no_algorithms() -> Proposal {
    let mut proposal = esp_offer("aes256gcm16", ChildExchange::CreateChildSa(None)).remove(0);
    proposal
        .transforms
        .iter_mut()
        .for_each(|transform| transform.id = 999);
    proposal
}

pub(super) fn other_requests() -> Vec<Kind> {
    vec![
        asks("IKE_SA_INIT request, protected", INIT, |_| vec![]),
        asks("IKE_AUTH request, empty", AUTH, |_| vec![]),
        asks("IKE_AUTH request with a delete", AUTH, |_| {
            vec![Payload::Delete(Delete::Ike)]
        }),
        asks("request of exchange 77", ExchangeType(77), |_| vec![]),
    ]
}
