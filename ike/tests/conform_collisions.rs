//! What both ends ask for at once, RFC 7296 section 2.25: the second host is at something, and the
//! scripted peer asks for something else.

use obol_ike::config::{Mode, StartAction};
use obol_ike::crypto::ke::KeyExchange;
use obol_ike::event::{Command, EspSpi, IkeSpi};
use obol_ike::proposal::{ChildExchange, EspProposal, IkeProposal, choose_esp};
use obol_ike::testing::scripted::{Heard, SCRIPTED_SPI, Scripted, child_payloads, rekey_notify};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, child, pods};
use obol_ike::wire::{
    Delete, ExchangeType, Header, Ke, KeMethod, NotifyType, Payload, PayloadType, Proposal,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const CREATE: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

/// What the second host is at when the peer's request comes.
#[derive(Clone, Copy, Debug)]
enum At {
    RekeyingChild,
    CreatingChild,
    ClosingChild,
    RekeyingIke,
    ClosingIke,
}

fn established() -> Scripted {
    let other = child(
        "other",
        Mode::Tunnel,
        "172.17.1.0/24",
        "172.17.2.0/24",
        StartAction::None,
    );
    let mut setup = Setup::new(1);
    let mut pods = pods(StartAction::None);
    // Without PFS, so that the peer needs no key exchange to answer.
    pods.esp_proposals = EspProposal::parse("aes256gcm16").expect("sound").into();
    setup = setup.children(vec![pods, other]);
    Scripted::established(setup)
}

/// A peer, and the open request of the second host.
fn at(what: At) -> (Scripted, Heard) {
    let mut peer = established();
    let connection = HOSTS.to_owned();
    let name = PODS.to_owned();
    let command = match what {
        At::RekeyingChild => Command::RekeyChild {
            connection,
            child: name,
        },
        At::CreatingChild => Command::Initiate {
            connection,
            child: Some("other".to_owned()),
            local: None,
        },
        At::ClosingChild => Command::Terminate {
            connection,
            child: Some(name),
        },
        At::RekeyingIke => Command::RekeyIke { connection },
        At::ClosingIke => Command::Terminate {
            connection,
            child: None,
        },
    };
    let mut requests = peer.command(command).expect("it is up");
    assert_eq!(requests.len(), 1, "{what:?}");
    (peer, requests.remove(0))
}

fn sa_without_ke(spi: EspSpi) -> Payload<'static> {
    let proposals = EspProposal::parse("aes256gcm16").expect("sound");
    let exchange = ChildExchange::CreateChildSa(None);
    Payload::Sa(EspProposal::to_wire(&proposals, spi, exchange))
}

const THEIR_NEW_SPI: EspSpi = EspSpi(0xc000_0002);

/// A request for a child in place of the first one, with this nonce.
fn rekey_child(nonce: &'static [u8]) -> Vec<Payload<'static>> {
    let mut payloads = child_payloads(ChildExchange::CreateChildSa(None));
    payloads[0] = sa_without_ke(THEIR_NEW_SPI);
    payloads.insert(1, Payload::Nonce(nonce));
    payloads.insert(0, rekey_notify(SCRIPTED_SPI));
    payloads
}

fn create_child() -> Vec<Payload<'static>> {
    rekey_child(&[9; 32]).split_off(1)
}

fn rekey_ike(ke: &KeyExchange) -> Vec<Payload<'_>> {
    let proposals = IkeProposal::parse("aes256gcm16-prfsha256-x25519").expect("sound");
    vec![
        Payload::Sa(IkeProposal::to_wire(&proposals, &[7; 8])),
        Payload::Nonce(&[9; 32]),
        Payload::Ke(Ke {
            method: ke.method(),
            data: ke.public(),
        }),
    ]
}

fn key_exchange() -> KeyExchange {
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    KeyExchange::generate(KeMethod::CURVE25519, &mut rng).expect("obol has it")
}

fn delete_child() -> [Payload<'static>; 1] {
    [Payload::Delete(Delete::Esp(vec![SCRIPTED_SPI]))]
}

fn delete_ike() -> [Payload<'static>; 1] {
    [Payload::Delete(Delete::Ike)]
}

/// The second host's SPI of its first child.
fn their_spi(peer: &Scripted) -> EspSpi {
    let inbound = peer.pair.b.plane.inbound.values();
    inbound.map(|sa| sa.info.spi_in).next().expect("one child")
}

const TEMPORARY_FAILURE: Option<NotifyType> = Some(NotifyType::TEMPORARY_FAILURE);

//= test rfc7296 2.25-1 2.25.1-1
//= test security S-19
#[test]
fn a_child_that_is_being_closed_is_not_rekeyed() {
    let (mut peer, _) = at(At::ClosingChild);
    let reply = peer.ask(CREATE, &rekey_child(&[9; 32])).expect("answered");
    assert_eq!(reply.error(), TEMPORARY_FAILURE);
    assert_eq!(peer.up().0, 1);
}

/// The peer's rekey of the child that the second host rekeys, too, and the answer to that; with
/// what is asked then.
fn both_rekey(
    theirs: &'static [u8],
    answer: &'static [u8],
) -> (Scripted, EspSpi, EspSpi, Vec<Heard>) {
    let (mut peer, request) = at(At::RekeyingChild);
    let old = their_spi(&peer);
    let reply = peer.ask(CREATE, &rekey_child(theirs)).expect("answered");
    assert_eq!(reply.error(), None);
    assert!(reply.types().contains(&PayloadType::SA), "the usual reply");
    let (proposals, new) = offered(&request);
    let proposals_of_peer = EspProposal::parse("aes256gcm16").expect("sound");
    let exchange = ChildExchange::CreateChildSa(None);
    let chosen = choose_esp(&proposals, &proposals_of_peer, exchange).expect("offered");
    let ts = child_payloads(exchange);
    let payloads = [
        Payload::Sa(vec![chosen.answer(EspSpi(0xc000_0003))]),
        Payload::Nonce(answer),
        // The second host is the initiator of this exchange.
        swap(&ts[2]),
        swap(&ts[1]),
    ];
    let next = peer.answer(&request, &payloads).expect("awaited");
    (peer, old, new, next)
}

fn swap(payload: &Payload<'static>) -> Payload<'static> {
    match payload {
        Payload::TsI(list) => Payload::TsR(list.clone()),
        Payload::TsR(list) => Payload::TsI(list.clone()),
        other => other.clone(),
    }
}

fn offered(request: &Heard) -> (Vec<Proposal>, EspSpi) {
    let payloads = request.payloads();
    let sa = payloads.iter().find_map(|payload| match payload {
        Payload::Sa(proposals) => Some(proposals.clone()),
        _ => None,
    });
    let proposals = sa.expect("an offer");
    let spi = <[u8; 4]>::try_from(proposals[0].spi.as_slice()).expect("four octets");
    (proposals, EspSpi(u32::from_be_bytes(spi)))
}

//= test rfc7296 2.8.1-3 2.25.1-2
//= test security S-18
#[test]
fn a_child_that_both_ends_rekey_is_decided_by_the_lowest_nonce() {
    // The lowest nonce is in the peer's exchange: its SA goes, and the second host deletes the
    // old one.
    let (_, old, _, next) = both_rekey(&[0; 32], &[0xff; 32]);
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].deleted(), [old]);
    // The lowest nonce is in the exchange of the second host: it deletes what it made.
    let (peer, old, new, next) = both_rekey(&[0xff; 32], &[0; 32]);
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].deleted(), [new]);
    let mut left = peer.pair.b.plane.inbound.values().map(|sa| sa.info.spi_in);
    assert!(left.any(|spi| spi == old), "the peer deletes the old one");
}

//= test rfc7296 1.4.1-5 2.25.1-4
#[test]
fn a_child_that_both_ends_close_is_not_deleted_again() {
    let (mut peer, request) = at(At::ClosingChild);
    let reply = peer.ask(INFORMATIONAL, &delete_child()).expect("answered");
    assert!(reply.payloads().is_empty());
    assert_eq!(peer.up(), (1, 0));
    let next = peer.answer(&request, &[]).expect("awaited");
    assert!(next.is_empty());
    assert_eq!(peer.up(), (1, 0));
}

//= test rfc7296 2.25.1-5
#[test]
fn a_child_that_is_being_rekeyed_can_be_closed() {
    let (mut peer, _) = at(At::RekeyingChild);
    let spi = their_spi(&peer);
    let reply = peer.ask(INFORMATIONAL, &delete_child()).expect("answered");
    assert_eq!(reply.deleted(), [spi]);
    assert!(peer.pair.b.plane.inbound.is_empty());
}

//= test rfc7296 2.25-1 2.25.1-7
//= test security S-19
#[test]
fn the_ike_sa_is_not_rekeyed_while_a_child_changes() {
    for what in [At::CreatingChild, At::RekeyingChild, At::ClosingChild] {
        let (mut peer, _) = at(what);
        let ke = key_exchange();
        let reply = peer.ask(CREATE, &rekey_ike(&ke)).expect("answered");
        assert_eq!(reply.error(), TEMPORARY_FAILURE, "{what:?}");
        assert_eq!(peer.up().0, 1, "{what:?}");
    }
}

//= test rfc7296 2.25.2-1
#[test]
fn an_ike_sa_that_both_ends_rekey_is_rekeyed() {
    let (mut peer, _) = at(At::RekeyingIke);
    let ke = key_exchange();
    let reply = peer.ask(CREATE, &rekey_ike(&ke)).expect("answered");
    assert_eq!(reply.error(), None);
    let usual = [PayloadType::SA, PayloadType::NONCE, PayloadType::KE];
    assert_eq!(reply.types(), usual);
    // Which of the two new ones survives is not known before ours is answered.
    assert_eq!(peer.up(), (2, 1));
}

//= test rfc7296 2.8.2-2 2.25-1 2.25.2-2
//= test security S-19
#[test]
fn an_ike_sa_that_is_being_closed_is_not_rekeyed() {
    let (mut peer, _) = at(At::ClosingIke);
    let ke = key_exchange();
    let reply = peer.ask(CREATE, &rekey_ike(&ke)).expect("answered");
    assert_eq!(reply.error(), TEMPORARY_FAILURE);
    // Nor is one that was rekeyed before.
    let mut peer = established();
    assert_eq!(
        peer.ask(CREATE, &rekey_ike(&ke)).expect("answered").error(),
        None
    );
    let reply = peer.ask(CREATE, &rekey_ike(&ke)).expect("answered");
    assert_eq!(reply.error(), TEMPORARY_FAILURE);
}

//= test rfc7296 2.25.2-3 2.25.2-4
#[test]
fn an_ike_sa_that_is_being_rekeyed_or_closed_can_be_closed() {
    for what in [At::RekeyingIke, At::ClosingIke] {
        let (mut peer, _) = at(what);
        let sent = peer.pair.net.sent.len();
        let reply = peer.ask(INFORMATIONAL, &delete_ike()).expect("answered");
        assert!(reply.payloads().is_empty(), "{what:?}");
        assert_eq!(peer.up(), (0, 0), "{what:?}");
        peer.pair.run_for(std::time::Duration::from_secs(60));
        assert_eq!(peer.requests_since(sent).len(), 0, "{what:?} is forgotten");
    }
}

//= test rfc7296 2.25-1 2.25.2-5
//= test security S-19
#[test]
fn no_child_is_made_or_rekeyed_while_the_ike_sa_is_rekeyed() {
    for payloads in [create_child(), rekey_child(&[9; 32])] {
        let (mut peer, _) = at(At::RekeyingIke);
        let reply = peer.ask(CREATE, &payloads).expect("answered");
        assert_eq!(reply.error(), TEMPORARY_FAILURE);
        assert_eq!(peer.up(), (1, 1));
    }
}

//= test rfc7296 2.25.2-6
#[test]
fn a_child_can_be_closed_while_the_ike_sa_is_rekeyed() {
    let (mut peer, _) = at(At::RekeyingIke);
    let spi = their_spi(&peer);
    let reply = peer.ask(INFORMATIONAL, &delete_child()).expect("answered");
    assert_eq!(reply.deleted(), [spi]);
    assert_eq!(peer.up(), (1, 0));
}

//= test rfc7296 1.3.2-2
#[test]
fn nothing_new_begins_on_an_ike_sa_that_is_being_rekeyed() {
    let mut peer = established();
    let ke = key_exchange();
    peer.ask(CREATE, &rekey_ike(&ke)).expect("answered");
    let sent = peer.pair.net.sent.len();
    let rekey = Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    };
    assert!(peer.command(rekey).expect("it is up").is_empty());
    let begun = &peer.pair.net.sent[sent..];
    assert_eq!(begun.len(), 1, "but on the new one");
    let header = Header::parse(&begun[0].datagram).expect("sound");
    assert_eq!(header.spi_i, IkeSpi(0x0707_0707_0707_0707));
    // And none while a rekey of ours is open.
    let (mut peer, request) = at(At::RekeyingIke);
    let initiate = Command::Initiate {
        connection: HOSTS.to_owned(),
        child: Some("other".to_owned()),
        local: None,
    };
    assert!(peer.command(initiate).expect("known").is_empty());
    assert_eq!(request.header.exchange, CREATE);
}
