//! What stands in requests and replies of the second host, read by a peer that shares its keys.

use std::time::Duration;

use obol_ike::config::{Mode, StartAction};
use obol_ike::crypto::ke::KeyExchange;
use obol_ike::error::ChildFailure;
use obol_ike::event::{Command, EspSpi, Event, PacketFlow};
use obol_ike::proposal::{ChildExchange, EspProposal, IkeProposal, choose_esp};
use obol_ike::testing::scripted::{Heard, SCRIPTED_SPI, Scripted, child_payloads};
use obol_ike::testing::setup::{HOSTS, ID_A, PODS, Setup, child, pods};
use obol_ike::wire::{
    Cert, CertEncoding, CertReq, Delete, ExchangeType, Ke, KeMethod, Notify, NotifyType, Payload,
    PayloadType, Proposal, ProtocolId, Transform, TransformType,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const CREATE: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;
const THEIR_SPI: EspSpi = EspSpi(0xc000_0009);

fn rekey_child() -> Command {
    Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    }
}

fn with_esp(proposals: &str) -> Setup {
    let mut pods = pods(StartAction::None);
    pods.esp_proposals = EspProposal::parse(proposals).expect("sound").into();
    Setup::new(1).children(vec![pods])
}

/// A peer of which the second host wants something, and its request.
fn asked(setup: Setup, command: Command) -> (Scripted, Heard) {
    let mut peer = Scripted::established(setup);
    let mut requests = peer.command(command).expect("it is up");
    assert_eq!(requests.len(), 1);
    (peer, requests.remove(0))
}

fn proposals(heard: &Heard) -> Vec<Proposal> {
    let payloads = heard.payloads();
    let sa = payloads.into_iter().find_map(|payload| match payload {
        Payload::Sa(proposals) => Some(proposals),
        _ => None,
    });
    sa.expect("an SA payload")
}

fn ke(heard: &Heard) -> Option<KeMethod> {
    let payloads = heard.payloads();
    payloads.iter().find_map(|payload| match payload {
        Payload::Ke(ke) => Some(ke.method),
        _ => None,
    })
}

fn methods(proposal: &Proposal) -> Vec<u16> {
    let of_type = |t: &&Transform| t.ty == TransformType::KE;
    proposal
        .transforms
        .iter()
        .filter(of_type)
        .map(|t| t.id)
        .collect()
}

fn selectors(heard: &Heard) -> (Vec<String>, Vec<String>) {
    let texts = |ty| {
        let payloads = heard.payloads();
        let list = payloads.into_iter().find_map(|payload| match payload {
            Payload::TsI(list) if ty == PayloadType::TS_I => Some(list.selectors),
            Payload::TsR(list) if ty == PayloadType::TS_R => Some(list.selectors),
            _ => None,
        });
        let list = list.expect("selectors");
        list.iter().map(ToString::to_string).collect()
    };
    (texts(PayloadType::TS_I), texts(PayloadType::TS_R))
}

/// An answer to a request for a child, without key exchange.
fn granted(request: &Heard) -> Vec<Payload<'static>> {
    let ours = EspProposal::parse("aes256gcm16").expect("sound");
    let exchange = ChildExchange::CreateChildSa(None);
    let chosen = choose_esp(&proposals(request), &ours, exchange).expect("offered");
    let (ts_i, ts_r) = selectors(request);
    let list = |texts: Vec<String>| {
        let parsed: Vec<_> = texts.iter().map(|ts| ts.parse().expect("sound")).collect();
        parsed.into()
    };
    vec![
        Payload::Sa(vec![chosen.answer(THEIR_SPI)]),
        Payload::Nonce(&[8; 32]),
        Payload::TsI(list(ts_i)),
        Payload::TsR(list(ts_r)),
    ]
}

//= test rfc7296 1.3-1 1.3-2 1.3.3-1 2.5-11 2.9.2-2 2.9.2-4 3.4-2 3.10-1
#[test]
fn a_rekey_of_a_child_names_it_and_asks_for_the_same() {
    let (_, request) = asked(Setup::new(1), rekey_child());
    assert_eq!(
        request.types(),
        [
            PayloadType::NOTIFY,
            PayloadType::SA,
            PayloadType::NONCE,
            PayloadType::KE,
            PayloadType::TS_I,
            PayloadType::TS_R
        ],
        "the order of the figures"
    );
    let Payload::Notify(notify) = request.payloads().remove(0) else {
        panic!("{request:?}");
    };
    assert_eq!(notify.ty, NotifyType::REKEY_SA);
    assert_eq!((notify.protocol, notify.spi.len()), (ProtocolId::ESP, 4));
    let (whole, nothing_else) = (
        vec!["172.16.2.0/24".to_owned()],
        vec!["172.16.1.0/24".to_owned()],
    );
    assert_eq!(selectors(&request), (whole, nothing_else));
    let method = ke(&request).expect("PFS is offered").0;
    let first = methods(&proposals(&request)[0]);
    assert_eq!(first.first(), Some(&method));
}

//= test rfc7296 3.4-3
#[test]
fn without_a_method_in_the_offer_there_is_no_key_exchange() {
    let (_, request) = asked(with_esp("aes256gcm16"), rekey_child());
    assert!(proposals(&request).iter().all(|p| methods(p).is_empty()));
    assert_eq!(ke(&request), None);
}

//= test rfc7296 1.3.2-1 2.18-1 2.18-2
#[test]
fn a_rekey_of_the_ike_sa_has_a_key_exchange() {
    let rekey = Command::RekeyIke {
        connection: HOSTS.to_owned(),
    };
    let (mut peer, request) = asked(Setup::new(1), rekey);
    let types = [PayloadType::SA, PayloadType::NONCE, PayloadType::KE];
    assert_eq!(request.types(), types);
    for proposal in proposals(&request) {
        assert_eq!(proposal.spi.len(), 8);
        assert!(!methods(&proposal).is_empty());
        assert!(!methods(&proposal).contains(&KeMethod::NONE.0));
    }
    peer.answer(&request, &[temporary_failure()])
        .expect("awaited");
    let mut offer = IkeProposal::to_wire(
        &IkeProposal::parse("aes256gcm16-prfsha256-x25519").expect("sound"),
        &[7; 8],
    );
    let without_ke = [Payload::Sa(offer.clone()), Payload::Nonce(&[9; 32])];
    let reply = peer.ask(CREATE, &without_ke).expect("answered");
    assert_eq!(reply.error(), Some(NotifyType::INVALID_KE_PAYLOAD));
    for none in [true, false] {
        offer[0].transforms.retain(|t| t.ty != TransformType::KE);
        if none {
            offer[0]
                .transforms
                .push(Transform::new(TransformType::KE, 0, None));
        }
        let payloads = [Payload::Sa(offer.clone()), Payload::Nonce(&[9; 32])];
        let reply = peer.ask(CREATE, &payloads).expect("answered");
        assert_eq!(reply.error(), Some(NotifyType::NO_PROPOSAL_CHOSEN));
    }
    assert_eq!(peer.up(), (1, 1));
}

fn temporary_failure() -> Payload<'static> {
    Payload::Notify(Notify::bare(NotifyType::TEMPORARY_FAILURE))
}

//= test rfc7296 1.3.1-2
#[test]
fn a_child_in_the_wrong_mode_is_deleted() {
    let host = child(
        "host",
        Mode::Transport,
        "192.168.0.1",
        "192.168.0.2",
        StartAction::None,
    );
    let setup = Setup::new(1).children(vec![pods(StartAction::None), host]);
    let initiate = Command::Initiate {
        connection: HOSTS.to_owned(),
        child: Some("host".to_owned()),
        local: None,
    };
    let (mut peer, request) = asked(setup, initiate);
    assert_eq!(request.notifies(), [NotifyType::USE_TRANSPORT_MODE]);
    let spi = proposals(&request)[0].spi.clone();
    let next = peer.answer(&request, &granted(&request)).expect("awaited");
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].deleted()[0].0.to_be_bytes(), spi[..]);
    let mode = |e: &Event| {
        let reason = ChildFailure::ModeMismatch {
            ours: Mode::Transport,
        };
        matches!(e, Event::ChildFailed { reason: r, .. } if *r == reason)
    };
    assert_eq!(peer.pair.b.count(mode), 1);
    assert_eq!(peer.up(), (1, 1));
}

//= test rfc7296 2.9-1 2.23.1-2
#[test]
fn a_request_for_a_packet_begins_with_the_packet() {
    let other = child(
        "other",
        Mode::Tunnel,
        "172.17.1.0/24",
        "172.17.2.0/24",
        StartAction::Trap,
    );
    let setup = Setup::new(1).children(vec![pods(StartAction::None), other]);
    let acquire = Command::Acquire {
        connection: HOSTS.to_owned(),
        child: "other".to_owned(),
        flow: Some(PacketFlow {
            protocol: 6,
            source: "172.17.2.5".parse().unwrap(),
            destination: "172.17.1.6".parse().unwrap(),
            source_port: 40_000,
            destination_port: 443,
        }),
        remote: None,
        local: None,
    };
    let (_, request) = asked(setup, acquire);
    let (ts_i, ts_r) = selectors(&request);
    assert_eq!(ts_i, ["172.17.2.5[tcp/40000]", "172.17.2.0/24"]);
    assert_eq!(ts_r, ["172.17.1.6[tcp/443]", "172.17.1.0/24"]);
}

/// The next request of the second host within this time.
fn next_request(peer: &mut Scripted, within: Duration) -> Option<Heard> {
    let sent = peer.pair.net.sent.len();
    let end = peer.pair.now + within;
    while peer.pair.now < end {
        peer.pair.run_for(Duration::from_millis(100));
        if let Some(request) = peer.requests_since(sent).pop() {
            return Some(request);
        }
    }
    None
}

//= test rfc7296 2.25-2 2.25-3
#[test]
fn who_is_put_off_waits_longer_and_longer_and_then_gives_up() {
    let (mut peer, mut request) = asked(Setup::new(1), rekey_child());
    let begun = peer.pair.now;
    loop {
        let at_once = peer
            .answer(&request, &[temporary_failure()])
            .expect("awaited");
        if let Some(last) = at_once.first() {
            assert!(last.deletes_ike());
            break;
        }
        assert!(next_request(&mut peer, Duration::from_millis(400)).is_none());
        let next = next_request(&mut peer, Duration::from_secs(70));
        request = next.expect("another try");
        assert_eq!(request.header.exchange, CREATE);
    }
    let minutes = (peer.pair.now - begun).as_secs() / 60;
    assert!((1..10).contains(&minutes), "{minutes} minutes");
}

//= test rfc7296 2.25-5
#[test]
fn a_child_that_the_peer_does_not_know_is_made_anew() {
    let mut peer = Scripted::established(Setup::new(1));
    // A new request shows that the peer has had every reply: it is not a matter of time.
    peer.ask(INFORMATIONAL, &[]).expect("answered");
    let request = peer.command(rekey_child()).expect("it is up").remove(0);
    let unknown = Notify::about_esp(NotifyType::CHILD_SA_NOT_FOUND, SCRIPTED_SPI);
    let next = peer.answer(&request, &[Payload::Notify(unknown)]);
    let next = next.expect("awaited");
    assert_eq!(peer.pair.b.plane.removed.len(), 1, "forgotten");
    assert_eq!(next.len(), 1, "without a delete");
    assert_eq!(next[0].header.exchange, CREATE);
    assert!(next[0].notifies().is_empty(), "not as a rekey");
}

//= test rfc7296 3.10.1-1
#[test]
fn an_error_that_is_not_known_fails_the_request() {
    let unknown = || Payload::Notify(Notify::bare(NotifyType(8191)));
    for with_sa in [false, true] {
        let (mut peer, request) = asked(with_esp("aes256gcm16"), rekey_child());
        let mut answer = vec![unknown()];
        if with_sa {
            answer.extend(granted(&request));
        }
        peer.answer(&request, &answer).expect("awaited");
        let failed = |e: &Event| {
            let reason = ChildFailure::Refused(NotifyType(8191));
            matches!(e, Event::ChildFailed { reason: r, .. } if *r == reason)
        };
        assert_eq!(peer.pair.b.count(failed), 1, "{with_sa}");
        assert_eq!(peer.up(), (1, 1), "the old one stays");
    }
}

//= test rfc7296 2.21.3-2
#[test]
fn a_broken_reply_is_not_complained_of() {
    let (mut peer, request) = asked(Setup::new(1), rekey_child());
    let next = peer.answer(&request, &[Payload::Nonce(&[1; 3])]);
    let next = next.expect("awaited");
    assert_eq!(next.len(), 1);
    assert!(next[0].deletes_ike());
    assert!(next[0].notifies().is_empty());
}

//= test rfc7296 2.5-11
#[test]
fn payloads_come_in_any_order() {
    let mut peer = Scripted::begun(Setup::new(1));
    let reply = peer.prove(ID_A, |payloads| payloads.reverse());
    assert_eq!(reply.expect("answered").error(), None);
    assert_eq!(peer.up(), (1, 1));
}

/// What obol does not offer, and what nobody knows.
fn extras() -> Vec<Payload<'static>> {
    let bare = |ty| Payload::Notify(Notify::bare(NotifyType(ty)));
    let ipcomp = Notify::with_data(NotifyType::IPCOMP_SUPPORTED, vec![0, 1, 2]);
    let window = Notify::with_data(NotifyType::SET_WINDOW_SIZE, vec![0, 0, 0, 64]);
    vec![
        Payload::Unknown {
            ty: PayloadType(200),
            critical: false,
            body: b"what is this",
        },
        Payload::VendorId(b"a vendor"),
        Payload::Cp(&[1, 0, 0, 0, 0, 1, 0, 0]),
        Payload::Cp(&[3, 0, 0, 0, 0, 5, 0, 4, 0, 0, 0, 9]),
        Payload::Cert(Cert {
            encoding: CertEncoding::X509_SIGNATURE,
            data: b"no certificate",
        }),
        Payload::CertReq(CertReq {
            encoding: CertEncoding::X509_HASH_AND_URL,
            authorities: b"http://192.0.2.1/",
        }),
        Payload::Notify(ipcomp),
        Payload::Notify(window),
        bare(NotifyType::INVALID_SPI.0),
        bare(NotifyType::INVALID_SELECTORS.0),
        bare(8191),
        bare(40_959),
    ]
}

//= test rfc7296 1.2-1 1.6-5 2.3-1 2.19-5 2.20-1 2.21.4-8 2.22-1 3.6-2 3.7-2 3.10.1-2 3.10.1-3
//= test rfc7296 3.12-2 3.15.1-5 3.15.1-6 3.15.1-8
#[test]
fn what_obol_does_not_offer_is_passed_over() {
    let mut peer = Scripted::begun(Setup::new(1));
    let reply = peer.prove(ID_A, |payloads| payloads.extend(extras()));
    let reply = reply.expect("answered");
    assert_eq!(
        reply.payloads,
        [
            PayloadType::ID_R,
            PayloadType::AUTH,
            PayloadType::SA,
            PayloadType::TS_I,
            PayloadType::TS_R
        ]
    );
    assert_eq!(peer.up(), (1, 1));
    let reply = peer.ask(INFORMATIONAL, &extras()).expect("answered");
    assert!(reply.payloads().is_empty());
    assert_eq!(peer.up(), (1, 1));
}

//= test rfc7296 3.2-3
//= test security S-11
#[test]
fn the_critical_bit_of_a_known_payload_does_nothing() {
    let mut peer = Scripted::established(Setup::new(1));
    let delete = [
        &[0, 0x80, 0, 12, 3, 4, 0, 1][..],
        &SCRIPTED_SPI.0.to_be_bytes(),
    ];
    let reply = peer.request_octets(INFORMATIONAL, PayloadType::DELETE, &delete.concat());
    let reply = reply.expect("answered");
    assert_eq!((reply.error(), reply.deleted.len()), (None, 1));
    assert_eq!(peer.up(), (1, 0));
}

/// All messages that the second host makes in a life.
fn replies_and_requests() -> Vec<Heard> {
    let (mut peer, request) = asked(with_esp("aes256gcm16"), rekey_child());
    let mut heard = vec![request.clone()];
    heard.extend(peer.answer(&request, &granted(&request)).expect("awaited"));
    let mut create = child_payloads(ChildExchange::CreateChildSa(None));
    create.insert(1, Payload::Nonce(&[9; 32]));
    heard.push(peer.ask(CREATE, &create).expect("answered"));
    let delete = Payload::Delete(Delete::Esp(vec![SCRIPTED_SPI]));
    heard.push(peer.ask(INFORMATIONAL, &[delete]).expect("answered"));
    heard.push(peer.ask(CREATE, &[]).expect("answered"));
    heard
}

//= test rfc7296 2.5-10 3.2-1 3.10-2 3.10-3
#[test]
fn nothing_that_is_sent_is_critical_and_only_children_have_spis() {
    let heard = replies_and_requests();
    assert_eq!(heard.len(), 5);
    for message in &heard {
        assert!(message.raw().iter().all(|raw| !raw.critical));
        for payload in message.payloads() {
            let Payload::Notify(notify) = payload else {
                continue;
            };
            let want = match notify.ty {
                NotifyType::REKEY_SA => (ProtocolId::ESP, 4),
                _ => (ProtocolId::NONE, 0),
            };
            assert_eq!((notify.protocol, notify.spi.len()), want);
        }
    }
}

//= test rfc7296 3.3.6-11
#[test]
fn a_key_exchange_that_is_not_wanted_is_ignored() {
    let mut peer = Scripted::established(with_esp("aes256gcm16"));
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    let ours = KeyExchange::generate(KeMethod::CURVE25519, &mut rng).expect("obol has it");
    let mut payloads = child_payloads(ChildExchange::CreateChildSa(None));
    let offer = EspProposal::parse("aes256gcm16-x25519").expect("sound");
    let exchange = ChildExchange::CreateChildSa(Some(KeMethod::CURVE25519));
    let mut offer = EspProposal::to_wire(&offer, THEIR_SPI, exchange);
    offer[0]
        .transforms
        .push(Transform::new(TransformType::KE, 0, None));
    payloads[0] = Payload::Sa(offer);
    payloads.insert(1, Payload::Nonce(&[9; 32]));
    payloads.insert(
        2,
        Payload::Ke(Ke {
            method: ours.method(),
            data: ours.public(),
        }),
    );
    let reply = peer.ask(CREATE, &payloads).expect("answered");
    assert_eq!(reply.error(), None);
    assert_eq!(ke(&reply), None);
    assert_eq!(methods(&proposals(&reply)[0]), [KeMethod::NONE.0]);
}

//= test rfc7296 2.6-1 2.10-1 3.9-2
//= test security S-22
#[test]
fn nonces_and_spis_are_long_and_never_repeat() {
    let mut peer = Scripted::established(with_esp("aes256gcm16"));
    let (mut nonces, mut spis) = (Vec::new(), Vec::new());
    for n in 0..60 {
        let mut payloads = child_payloads(ChildExchange::CreateChildSa(None));
        let offer = EspProposal::parse("aes256gcm16").expect("sound");
        let exchange = ChildExchange::CreateChildSa(None);
        payloads[0] = Payload::Sa(EspProposal::to_wire(&offer, EspSpi(1000 + n), exchange));
        payloads.insert(1, Payload::Nonce(&[9; 32]));
        let reply = peer.ask(CREATE, &payloads).expect("answered");
        spis.push(proposals(&reply)[0].spi.clone());
        let own = reply.payloads();
        nonces.extend(own.iter().find_map(|payload| match payload {
            Payload::Nonce(nonce) => Some(nonce.to_vec()),
            _ => None,
        }));
    }
    // Half of the key of the largest PRF, HMAC-SHA2-512.
    assert!(nonces.iter().all(|nonce| nonce.len() >= 32));
    for mut values in [nonces, spis] {
        values.sort();
        values.dedup();
        assert_eq!(values.len(), 60);
    }
}

//= test rfc7296 3.3-7
#[test]
fn key_sizes_are_transforms_of_their_own() {
    let ours = IkeProposal::parse("aes256gcm16-aes128gcm16-prfsha256-x25519").expect("sound");
    let offer = IkeProposal::to_wire(&ours, &[]);
    let of_encr = |t: &&Transform| t.ty == TransformType::ENCR;
    let sizes = offer[0].transforms.iter().filter(of_encr);
    let sizes: Vec<_> = sizes.map(|t| t.key_bits).collect();
    assert_eq!(sizes, [Some(256), Some(128)]);
}
