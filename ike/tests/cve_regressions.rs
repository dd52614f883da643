//! What has gone wrong in other IKE daemons, named as in the list of it, with packets of our own.

use std::time::Duration;

use obol_ike::crypto::ke::{KeyExchange, ke_public_len};
use obol_ike::crypto::secret::Secret;
use obol_ike::error::Dropped;
use obol_ike::event::{Command, Event};
use obol_ike::identity::Identity;
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::scripted::Scripted;
use obol_ike::testing::setup::{A, B, HOSTS, ID_A, PODS, Setup};
use obol_ike::wire::{
    Delete, ExchangeType, Id, KeMethod, Notify, NotifyType, Payload, PayloadType,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// Every method that there could be, of those that obol has.
fn methods() -> impl Iterator<Item = KeMethod> {
    (0..=u16::MAX)
        .map(KeMethod)
        .filter(|method| ke_public_len(*method).is_some())
}

fn ours(method: KeMethod) -> KeyExchange {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    KeyExchange::generate(method, &mut rng).expect("obol has it")
}

/// Sends the second host a datagram from the address of the first.
fn send(pair: &mut Pair, datagram: Vec<u8>) {
    let packet = Packet {
        from: (A, 500).into(),
        to: (B, 500).into(),
        datagram,
    };
    pair.net.inject(pair.now, packet);
    pair.run_for(Duration::ZERO);
}

/// The first request of a good handshake.
fn first_request() -> Vec<u8> {
    Setup::started(1).up(1).net.sent[0].datagram.clone()
}

//= test security S-37
#[test]
fn ke_all_zero_rejected_per_group() {
    for method in methods() {
        let ke = ours(method);
        let len = ke_public_len(method).expect("it has one");
        let mut one = vec![0; len];
        one[len - 1] = 1;
        for public in [vec![0; len], one] {
            // Octets of Curve25519 stand the other way round, and this is a good value there.
            if method == KeMethod::CURVE25519 && public[len - 1] == 1 {
                continue;
            }
            assert!(ke.agree(&public).is_err(), "{method:?} {public:02x?}");
        }
        if method != KeMethod::CURVE25519 {
            assert!(ke.agree(&vec![0xff; len]).is_err(), "{method:?}");
        }
    }
}

//= test rfc7296 3.4-1
//= test security S-37
#[test]
fn ke_length_must_equal_group_length() {
    for method in methods() {
        let (ke, peer) = (ours(method), ours(method));
        let public = peer.public();
        assert!(ke.agree(public).is_ok(), "{method:?}");
        let longer = [public, &[0]].concat();
        let led = [&[0], public].concat();
        for wrong in [
            &public[1..],
            &public[..public.len() - 1],
            &longer,
            &led,
            &[],
        ] {
            assert!(ke.agree(wrong).is_err(), "{method:?} {}", wrong.len());
        }
    }
}

//= test rfc7296 3-1
#[test]
fn ke_group_unknown_private_internal_ids() {
    let known: Vec<u16> = methods().map(|method| method.0).collect();
    assert_eq!(known, [14, 15, 16, 19, 20, 21, 31]);
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for id in (0..=u16::MAX).filter(|id| !known.contains(id)) {
        assert!(KeyExchange::generate(KeMethod(id), &mut rng).is_err());
    }
}

#[test]
fn every_prefix_length_0_to_28() {
    let request = first_request();
    let mut pair = Setup::new(1).pair(1);
    for len in 0..=28 {
        send(&mut pair, request[..len].to_vec());
    }
    assert_eq!(pair.b.dropped[&Dropped::Malformed], 29);
    assert!(pair.b.endpoint.status(pair.now).is_empty());
    assert!(pair.net.sent.is_empty());
}

//= test rfc7296 2.5-3
//= test security S-43
#[test]
fn ikev1_any_bytes_ignored_without_state() {
    let request = first_request();
    let mut pair = Setup::new(1).pair(1);
    for exchange in 0..=u8::MAX {
        for flags in [0, 1, 8, 0x20] {
            let mut datagram = request.clone();
            (datagram[17], datagram[18], datagram[19]) = (0x10, exchange, flags);
            send(&mut pair, datagram);
        }
    }
    assert_eq!(pair.b.dropped[&Dropped::Version], 4 * 256);
    assert!(pair.b.endpoint.status(pair.now).is_empty());
    assert!(pair.net.sent.is_empty());
}

//= test rfc7296 1.5-1 2.21.4-3
#[test]
fn informational_for_unknown_spi_ignored() {
    let mut pair = Setup::new(1).pair(1);
    let mut datagram = first_request();
    datagram[8..16].copy_from_slice(&7u64.to_be_bytes());
    for exchange in 34..=38 {
        datagram[18] = exchange;
        send(&mut pair, datagram.clone());
    }
    assert_eq!(pair.b.dropped[&Dropped::UnknownSpi], 5);
    assert!(pair.net.sent.is_empty());
}

#[test]
fn init_failure_leaves_no_sa_then_child_request_ignored() {
    let mut pair = Setup::new(1).pair(1);
    let request = first_request();
    // The type of the proposal's protocol: no such proposal can be chosen.
    let mut broken = request.clone();
    broken[28 + 4 + 5] = 3;
    send(&mut pair, broken);
    assert!(pair.b.endpoint.status(pair.now).is_empty());
    let answers = pair.net.sent.len();
    let mut child = request;
    child[18] = ExchangeType::CREATE_CHILD_SA.0;
    send(&mut pair, child);
    assert_eq!(pair.b.dropped[&Dropped::UnknownSpi], 1);
    assert_eq!(pair.net.sent.len(), answers);
}

//= test rfc7296 2.1-1
#[test]
fn responder_never_sends_unprompted() {
    let mut peer = Scripted::begun(Setup::new(1));
    let sent = peer.pair.net.sent.len();
    peer.pair.run_for(Duration::from_secs(600));
    assert_eq!(peer.pair.net.sent.len(), sent);
    assert_eq!(peer.up(), (0, 0));
}

//= test rfc7296 2.16-1
//= test security S-29
#[test]
fn eap_payload_gets_auth_failed_and_close() {
    let mut peer = Scripted::begun(Setup::new(1));
    let reply = peer
        .prove(ID_A, |payloads| {
            payloads.retain(|payload| !matches!(payload, Payload::Auth(_)));
            payloads.push(Payload::Eap(&[3, 1, 0, 4]));
        })
        .expect("answered");
    assert_eq!(reply.error(), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(peer.up(), (0, 0));
}

//= test rfc7296 1.2-2 2.21.2-1
//= test security S-31
#[test]
fn no_path_to_established_without_verified_auth() {
    for exchange in 0..=u8::MAX {
        let mut peer = Scripted::begun(Setup::new(1));
        let payloads = [
            Payload::Notify(Notify::bare(NotifyType::INITIAL_CONTACT)),
            Payload::Notify(Notify::bare(NotifyType::USE_TRANSPORT_MODE)),
        ];
        // Dropped or refused: which of both is not the question.
        let _ = peer.request(ExchangeType(exchange), &payloads);
        let ups = |e: &Event| matches!(e, Event::IkeUp { .. } | Event::ChildUp(_));
        assert_eq!(peer.pair.b.count(ups), 0, "exchange {exchange}");
        assert!(peer.pair.b.plane.inbound.is_empty(), "exchange {exchange}");
    }
    let mut peer = Scripted::begun(Setup::new(1));
    let reply = peer
        .prove(ID_A, |payloads| {
            for payload in payloads {
                if let Payload::Auth(auth) = payload {
                    auth.data = &[0; 32];
                }
            }
        })
        .expect("answered");
    assert_eq!(reply.error(), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(peer.up(), (0, 0));
}

//= test rfc7296 4-2
#[test]
fn payload_type_each_of_256_in_each_exchange() {
    for exchange in [ExchangeType::CREATE_CHILD_SA, ExchangeType::INFORMATIONAL] {
        for ty in 0..=u8::MAX {
            let mut peer = Scripted::established(Setup::new(1));
            let body = b"\0\0\0\x04";
            let reply = peer.request_octets(exchange, PayloadType(ty), body);
            // Whatever it says, it says something, and nothing new stands.
            assert!(reply.is_ok(), "{exchange:?} {ty}");
            assert!(peer.up() == (1, 1) || peer.up() == (0, 0), "{ty}");
        }
    }
}

#[test]
fn delete_then_more_payloads_in_one_message() {
    let mut peer = Scripted::established(Setup::new(1));
    let payloads = [
        Payload::Delete(Delete::Ike),
        Payload::Notify(Notify::bare(NotifyType::AUTHENTICATION_FAILED)),
        Payload::Delete(Delete::Ike),
    ];
    let reply = peer.request(ExchangeType::INFORMATIONAL, &payloads);
    assert!(reply.expect("answered").payloads.is_empty());
    assert_eq!(peer.up(), (0, 0));
    assert!(peer.pair.b.plane.inbound.is_empty());
    let down = |e: &Event| matches!(e, Event::IkeDown { .. });
    assert_eq!(peer.pair.b.count(down), 1);
}

#[test]
fn id_compare_length_mismatch_never_matches() {
    let id: Identity = ID_A.parse().expect("an identity");
    let body = id.to_body();
    for len in 4..body.len() {
        let shorter = Id::from_body(&body[..len]).expect("it has its fixed part");
        let matched = Identity::from_payload(&shorter).is_ok_and(|other| id.matches(&other));
        assert!(!matched, "{len}");
    }
    let longer = [&body[..], b"\0"].concat();
    let longer = Id::from_body(&longer).expect("it has its fixed part");
    assert!(!Identity::from_payload(&longer).is_ok_and(|other| id.matches(&other)));
}

#[test]
fn identity_display_is_bounded_and_escaped() {
    let text = [&b"a\n\x1b[31m\xff"[..], &vec![b'x'; 60_000]].concat();
    for ty in 1..=11 {
        let body = [&[ty, 0, 0, 0][..], &text].concat();
        let id = Id::from_body(&body).expect("it has its fixed part");
        if let Ok(identity) = Identity::from_payload(&id) {
            let shown = identity.to_string();
            assert!(shown.chars().all(|c| !c.is_control()), "type {ty}");
            assert!(shown.len() < 1000, "type {ty}: {}", shown.len());
        }
    }
}

//= test security S-24
#[test]
fn no_two_sas_share_key_material() {
    let mut pair = Setup::started(1).up(1);
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for _ in 0..4 {
        for node in [&pair.a, &pair.b] {
            let out = node.plane.outbound.values();
            keys.extend(out.map(|sa| Secret::expose(&sa.keys.encr).to_vec()));
        }
        let rekey = Command::RekeyChild {
            connection: HOSTS.to_owned(),
            child: PODS.to_owned(),
        };
        pair.command(End::A, rekey).expect("it is up");
        pair.run_until_idle();
    }
    let all = keys.len();
    assert!(all >= 8);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all);
}
