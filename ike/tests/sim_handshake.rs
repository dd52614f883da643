//! IKE_SA_INIT and IKE_AUTH between two endpoints over a simulated network.

use std::sync::OnceLock;
use std::time::Duration;

use obol_ike::config::{LocalAuthMethod, RemoteAuthMethod, StartAction};
use obol_ike::crypto::ecdsa::Curve;
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::error::{Dropped, IkeFailure};
use obol_ike::event::Event;
use obol_ike::proposal::IkeProposal;
use obol_ike::testing::net::{Net, Packet};
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{HOSTS, ID_B, PODS, Setup, child, pods};
use obol_ike::wire::{KeMethod, NotifyType};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

fn failures(node: &Node) -> Vec<&IkeFailure> {
    node.events
        .iter()
        .filter_map(|event| match event {
            Event::IkeFailed { reason, .. } => Some(reason),
            _ => None,
        })
        .collect()
}

//= test rfc7296 4-4
#[test]
fn a_shared_secret_brings_up_a_child() {
    let pair = Setup::started(1).up(1);
    pair.assert_up(1);
    for node in [&pair.a, &pair.b] {
        assert_eq!(node.count(|e| matches!(e, Event::IkeUp { .. })), 1);
        assert_eq!(node.count(|e| matches!(e, Event::ChildUp(_))), 1);
    }
    assert_eq!(pair.net.sent.len(), 4, "two exchanges and nothing else");
}

#[test]
fn all_children_of_a_connection_come_up_one_after_another() {
    let more = |name, local, remote| {
        let mode = obol_ike::config::Mode::Tunnel;
        child(name, mode, local, remote, StartAction::Start)
    };
    let children = vec![
        pods(StartAction::Start),
        more("six", "fd00:1::/64", "fd00:2::/64"),
        more("third", "10.1.0.0/16", "10.2.0.0/16"),
    ];
    let pair = Setup::started(1).children(children).up(1);
    pair.assert_up(3);
}

fn rsa(which: usize) -> PrivateKey {
    static KEYS: OnceLock<Vec<PrivateKey>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        let mut rng = ChaCha20Rng::seed_from_u64(77);
        let mut draw = || PrivateKey::generate_rsa(2048, &mut rng).expect("a legal size");
        vec![draw(), draw()]
    });
    match &keys[which] {
        PrivateKey::Rsa(key) => PrivateKey::Rsa(key.clone()),
        _ => unreachable!("drawn as RSA"),
    }
}

fn ed25519(seed: u64) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(seed))
}

fn ecdsa(curve: Curve) -> PrivateKey {
    PrivateKey::generate_ecdsa(curve, &mut ChaCha20Rng::seed_from_u64(1))
}

/// How a host proves itself: with a key, or with the shared secret.
type Proof = Option<PrivateKey>;

/// A pair in which the first host proves itself with `a`, the second with `b`; each expects
/// what `a_seen` and `b_seen` say.
fn signed(a: Proof, b: Proof, a_seen: Proof, b_seen: Proof) -> Pair {
    use obol_ike::config::{Config, Settings};
    let local = |key: &Proof| match key {
        Some(key) => LocalAuthMethod::Key(key.public()),
        None => LocalAuthMethod::Psk,
    };
    let remote = |key: &Proof| match key {
        Some(key) => RemoteAuthMethod::Keys(vec![key.public()]),
        None => RemoteAuthMethod::Psk,
    };
    let setup = Setup::started(1);
    let mut at_a = setup.connection.clone();
    at_a.local.method = local(&a);
    at_a.remote.method = remote(&b_seen);
    let mut at_b = obol_ike::testing::setup::mirror(&setup.connection, StartAction::None);
    at_b.local.method = local(&b);
    at_b.remote.method = remote(&a_seen);
    let config = |connection| Config {
        connections: vec![std::sync::Arc::new(connection)],
        settings: Settings::default(),
    };
    let mut pair = setup.pair(5);
    let secrets = |node: &mut Node| std::mem::take(&mut node.secrets);
    let (secrets_a, secrets_b) = (secrets(&mut pair.a), secrets(&mut pair.b));
    pair.a = Node::new(pair.a.address, config(at_a), 11);
    pair.b = Node::new(pair.b.address, config(at_b), 12);
    (pair.a.secrets, pair.b.secrets) = (secrets_a, secrets_b);
    pair.a.keys.extend(a);
    pair.b.keys.extend(b);
    pair.start();
    pair.run_for(Duration::from_millis(1500));
    pair
}

//= test rfc7427 3-2
#[test]
fn every_mix_of_methods_authenticates() {
    let proofs: [fn() -> [Proof; 2]; 8] = [
        || [Some(ed25519(1)), Some(ed25519(2))],
        || [Some(rsa(0)), Some(rsa(1))],
        || [Some(rsa(0)), Some(ed25519(2))],
        || [Some(ed25519(1)), Some(rsa(1))],
        || [None, Some(ed25519(2))],
        || [Some(rsa(0)), None],
        || [Some(ecdsa(Curve::P256)), Some(ecdsa(Curve::P384))],
        || [Some(ecdsa(Curve::P521)), Some(ed25519(2))],
    ];
    for proof in proofs {
        let ([a, b], [a_seen, b_seen]) = (proof(), proof());
        signed(a, b, a_seen, b_seen).assert_up(1);
    }
}

//= test rfc7296 1.2-2
#[test]
fn a_wrong_key_is_refused_on_either_side() {
    let pair = signed(
        Some(ed25519(1)),
        Some(ed25519(2)),
        Some(ed25519(3)),
        Some(ed25519(2)),
    );
    assert!(
        matches!(failures(&pair.b)[..], [IkeFailure::PeerNotProven { .. }]),
        "{:?}",
        pair.b.events
    );
    assert!(matches!(
        failures(&pair.a)[..],
        [IkeFailure::WeAreNotProven { .. }]
    ));
    assert!(pair.b.plane.inbound.is_empty() && pair.a.plane.inbound.is_empty());

    let pair = signed(
        Some(ed25519(1)),
        Some(ed25519(2)),
        Some(ed25519(1)),
        Some(ed25519(3)),
    );
    assert!(matches!(
        failures(&pair.a)[..],
        [IkeFailure::PeerNotProven { .. }]
    ));
    assert!(pair.b.plane.inbound.is_empty() && pair.a.plane.inbound.is_empty());
}

//= test rfc7296 1.2-2
#[test]
fn different_secrets_are_refused_and_both_sides_say_why() {
    let mut setup = Setup::new(1);
    setup.secret_b = b"another secret";
    let mut pair = setup.pair(1);
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    pair.run_for(Duration::from_secs(60));
    pair.assert_down();
    let [
        IkeFailure::PeerNotProven {
            local,
            remote,
            reason,
        },
    ] = failures(&pair.b)[..]
    else {
        panic!("{:?}", pair.b.events);
    };
    assert_eq!(local.to_string(), "hostb.example.com");
    assert_eq!(remote.to_string(), "hosta.example.com");
    assert!(reason.contains("secret"));
    assert!(matches!(
        failures(&pair.a)[..],
        [IkeFailure::WeAreNotProven { .. }]
    ));
}

#[test]
fn a_missing_secret_is_said_and_leaves_nothing() {
    for without in [End::A, End::B] {
        let mut pair = Setup::new(1).pair(1);
        pair.node(without).secrets.clear();
        pair.initiate(End::A, HOSTS);
        pair.run_for(Duration::from_secs(120));
        pair.assert_down();
        assert!(matches!(
            failures(pair.node(without))[..],
            [IkeFailure::Credentials(_)]
        ));
    }
}

//= test rfc7296 1.2-3
#[test]
fn an_unknown_identity_is_refused_with_both_names() {
    let mut pair = Setup::new(1).pair(1);
    let mut other = Setup::new(1);
    other.connection.local.id = "@stranger.example.com".parse().ok();
    let stranger = other.pair(1).a;
    pair.a = stranger.with_secret("@stranger.example.com", ID_B, b"a secret for tests");
    pair.initiate(End::A, HOSTS);
    pair.run_for(Duration::from_secs(60));
    pair.assert_down();
    let [IkeFailure::PeerNotProven { remote, .. }] = failures(&pair.b)[..] else {
        panic!("{:?}", pair.b.events);
    };
    assert_eq!(remote.to_string(), "stranger.example.com");
    assert!(matches!(
        failures(&pair.a)[..],
        [IkeFailure::WeAreNotProven { .. }]
    ));
}

//= test rfc7296 2.1-6 2.3-6
#[test]
fn a_handshake_survives_losing_any_one_datagram() {
    for lost in 0..6 {
        let pair = Setup::started(lost)
            .net(Net::seeded(7).drop_nth(lost as usize))
            .up(lost);
        pair.assert_up(1);
    }
}

#[test]
fn handshakes_survive_loss_duplication_and_reordering() {
    for seed in 0..200 {
        let mut setup = Setup::started(seed).net(Net::seeded(seed).hostile(300, 200));
        setup.settings.retransmit_tries = 30;
        let pair = std::panic::catch_unwind(|| {
            let pair = setup.up(seed);
            pair.assert_up(1);
        });
        assert!(pair.is_ok(), "seed {seed}");
    }
}

//= test rfc7296 1.2-4
#[test]
fn another_key_exchange_method_is_asked_for_and_given() {
    let mut setup = Setup::started(1);
    setup.connection.ike_proposals = IkeProposal::parse("aes256gcm16-prfsha384-x25519-ecp256")
        .expect("sound")
        .into();
    let mut pair = setup.clone().pair(1);
    setup.connection.ike_proposals = IkeProposal::parse("aes256gcm16-prfsha384-ecp256")
        .expect("sound")
        .into();
    pair.b = setup.pair(1).b;
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
    let status = pair.a.endpoint.status(pair.now);
    assert_eq!(
        status[0].algorithms.map(|alg| alg.ke),
        Some(KeMethod::ECP_256)
    );
    assert_eq!(pair.net.sent.len(), 6);
}

//= test rfc7296 2.7-3
#[test]
fn no_common_algorithms_is_a_failure_after_a_while() {
    let mut setup = Setup::new(1);
    setup.connection.ike_proposals = IkeProposal::parse("aes256gcm16-prfsha384-x25519")
        .expect("sound")
        .into();
    let mut pair = setup.clone().pair(1);
    setup.connection.ike_proposals = IkeProposal::parse("aes128-sha256-modp2048")
        .expect("sound")
        .into();
    pair.b = setup.pair(1).b;
    pair.initiate(End::A, HOSTS);
    pair.run_for(Duration::from_millis(100));
    assert!(failures(&pair.a).is_empty(), "anybody could have said that");
    pair.run_for(Duration::from_secs(60));
    assert!(matches!(failures(&pair.a)[..], [IkeFailure::Refused(_)]));
    pair.assert_down();
}

//= test rfc7296 2.6.1-1 2.6-2
#[test]
fn under_load_a_cookie_is_asked_for_and_given() {
    let mut setup = Setup::started(1);
    setup.settings.cookie_threshold = 0;
    let pair = setup.clone().up(1);
    pair.assert_up(1);
    assert_eq!(pair.b.dropped[&Dropped::Cookie], 1);
    assert_eq!(pair.net.sent.len(), 6);

    // With another key exchange method on top, RFC 7296 section 2.6.1.
    setup.connection.ike_proposals = IkeProposal::parse("aes256gcm16-prfsha384-x25519-ecp256")
        .expect("sound")
        .into();
    let mut pair = setup.clone().pair(1);
    setup.connection.ike_proposals = IkeProposal::parse("aes256gcm16-prfsha384-ecp256")
        .expect("sound")
        .into();
    pair.b = setup.pair(1).b;
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
}

#[test]
fn beyond_the_limit_nobody_gets_state() {
    let mut setup = Setup::new(1);
    setup.settings.half_open_limit = 0;
    let mut pair = setup.pair(1);
    pair.initiate(End::A, HOSTS);
    pair.run_for(Duration::from_secs(10));
    assert!(pair.b.dropped[&Dropped::HalfOpenLimit] > 1);
    assert!(pair.b.endpoint.status(pair.now).is_empty());
}

#[test]
fn a_half_open_sa_is_forgotten() {
    let mut pair = Setup::new(1).net(Net::seeded(1).drop_nth(1)).pair(1);
    pair.initiate(End::A, HOSTS);
    pair.net.partitioned = false;
    pair.run_for(Duration::from_millis(15));
    assert_eq!(pair.b.endpoint.status(pair.now).len(), 1);
    pair.net.partitioned = true;
    pair.run_for(Duration::from_secs(120));
    pair.assert_down();
    assert!(
        failures(&pair.b).is_empty(),
        "nothing an operator could do about"
    );
}

//= test rfc7296 2.11-1 2.23-1 2.23-2 2.23-5 2.23-8 2.23-9 2.23-10
//= test security S-23 S-33
#[test]
fn behind_a_nat_packets_move_to_port_4500_and_into_udp() {
    let outside = [203, 0, 113, 9].into();
    let mut setup = Setup::started(1);
    setup.connection.initial_contact = false;
    let mut pair = setup.clone().pair(1);
    pair.net.nat = Some((pair.a.address, outside));
    // The second host sees the NAT's address.
    setup.connection.local_addrs = vec![outside];
    pair.b = setup.pair(1).b;
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
    let status = pair.a.endpoint.status(pair.now);
    assert_eq!(status[0].nat, (true, false));
    assert_eq!(
        (status[0].path.local.port(), status[0].path.remote.port()),
        (4500, 4500)
    );
    let status = pair.b.endpoint.status(pair.now);
    assert_eq!(status[0].nat, (false, true));
    assert_eq!(status[0].path.remote.port(), 14500);
    let info = &status[0].children[0].info;
    assert!(info.encap && info.nat);
    pair.run_for(Duration::from_secs(61));
    assert!(
        (2..=4).contains(&pair.a.keepalives),
        "{}",
        pair.a.keepalives
    );
    assert_eq!(pair.b.keepalives, 0);
}

#[test]
fn without_nat_traversal_nothing_is_said_of_nats_and_nothing_believed() {
    for off in [End::A, End::B] {
        let mut setup = Setup::started(1);
        let with = setup.clone().pair(1);
        setup.connection.nat_traversal = false;
        let without = setup.pair(1);
        let mut pair = match off {
            End::A => Pair::new(without.a, with.b, Net::seeded(1)),
            End::B => Pair::new(with.a, without.b, Net::seeded(1)),
        };
        pair.start();
        pair.run_until_idle();
        pair.assert_up(1);
        for node in [&pair.a, &pair.b] {
            let status = node.endpoint.status(pair.now);
            assert_eq!(status[0].nat, (false, false));
            assert_eq!(status[0].path.local.port(), 500);
            assert!(!status[0].children[0].info.encap);
        }
        // The hash of an address is 20 octets, behind its type.
        let own = if off == End::A { &pair.a } else { &pair.b };
        let from = own.address;
        let sent = pair
            .net
            .sent
            .iter()
            .filter(|packet| packet.from.ip() == from);
        let speaks = |packet: &&Packet| {
            let types = [
                NotifyType::NAT_DETECTION_SOURCE_IP,
                NotifyType::NAT_DETECTION_DESTINATION_IP,
            ];
            let has = |ty: &NotifyType| {
                packet
                    .datagram
                    .windows(6)
                    .any(|octets| octets[..4] == [0, 28, 0, 0] && octets[4..] == ty.0.to_be_bytes())
            };
            types.iter().any(has)
        };
        assert_eq!(sent.filter(speaks).count(), 0);
        let all = pair.net.sent.iter().filter(speaks).count();
        assert_eq!(all > 0, off == End::B, "who does it asks for it");
    }
}

#[test]
fn encapsulation_can_be_forced_from_either_side() {
    for forced in [End::A, End::B] {
        let mut setup = Setup::started(1);
        let plain = setup.clone().pair(1);
        setup.connection.force_encap = true;
        let forcing = setup.pair(1);
        let mut pair = match forced {
            End::A => Pair::new(forcing.a, plain.b, Net::seeded(1)),
            End::B => Pair::new(plain.a, forcing.b, Net::seeded(1)),
        };
        pair.start();
        pair.run_until_idle();
        pair.assert_up(1);
        for node in [&pair.a, &pair.b] {
            let status = node.endpoint.status(pair.now);
            assert!(status[0].children[0].info.encap);
            assert_eq!(status[0].path.local.port(), 4500);
        }
    }
}

//= test rfc7296 2.1-2
#[test]
fn slow_answers_do_not_make_a_request_work_twice() {
    let mut pair = Setup::started(1).pair(1);
    pair.b.answer_delay = Duration::from_secs(3);
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
    assert!(pair.b.dropped[&Dropped::Repeated] >= 1);
    assert_eq!(pair.b.count(|e| matches!(e, Event::ChildUp(_))), 1);
}

#[test]
fn a_taken_spi_is_replaced_and_a_refusal_leaves_the_ike_sa() {
    let mut pair = Setup::started(1).pair(1);
    pair.b.plane.take_spis = 2;
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);

    let mut pair = Setup::started(1).pair(1);
    pair.b.plane.fail_inbound = 1;
    pair.start();
    pair.run_for(Duration::from_millis(500));
    assert_eq!(pair.a.count(|e| matches!(e, Event::ChildFailed { .. })), 1);
    assert_eq!(pair.b.count(|e| matches!(e, Event::ChildFailed { .. })), 1);
    pair.run_until_idle();
    pair.assert_up(1);
    assert_eq!(pair.a.count(|e| matches!(e, Event::IkeUp { .. })), 1);
}

#[test]
fn a_refusal_at_the_initiator_is_told_to_the_peer_and_tried_again() {
    let mut pair = Setup::started(1).pair(1);
    pair.a.plane.fail_inbound = 1;
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
    assert_eq!(pair.b.plane.removed.len(), 1);
    assert!(pair.a.plane.spi_out(HOSTS, PODS).is_some());
}
