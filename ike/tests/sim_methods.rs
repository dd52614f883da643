//! SUPPORTED_AUTH_METHODS, RFC 9593: what is announced, and what follows from it.

use std::time::Duration;

use obol_ike::auth::ProvenBy;
use obol_ike::config::{Config, LocalAuthMethod, RemoteAuthMethod, Settings, StartAction};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::error::IkeFailure;
use obol_ike::event::Event;
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::{Node, Pair};
use obol_ike::testing::setup::{ID_A, ID_B, Setup, mirror};
use obol_ike::wire::{ExchangeType, Message, NotifyType, Payload};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

fn ed25519(seed: u64) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(seed))
}

/// The first host proves itself with what the second may not expect; the second does with a key.
fn pair(a_has_key: bool, b_wants_key: bool, b_announces: bool) -> Pair {
    let setup = Setup::started(1);
    let mut at_a = setup.connection.clone();
    let mut at_b = mirror(&setup.connection, StartAction::None);
    if a_has_key {
        at_a.local.method = LocalAuthMethod::Key(ed25519(1).public());
    }
    if b_wants_key {
        at_b.remote.method = RemoteAuthMethod::Keys(vec![ed25519(1).public()]);
    }
    at_b.local.method = LocalAuthMethod::Key(ed25519(2).public());
    at_a.remote.method = RemoteAuthMethod::Keys(vec![ed25519(2).public()]);
    let config = |connection, announce_auth_methods| Config {
        connections: vec![std::sync::Arc::new(connection)],
        settings: Settings {
            announce_auth_methods,
            ..Settings::default()
        },
    };
    let mut pair = setup.pair(5);
    pair.a = Node::new(pair.a.address, config(at_a, true), 11)
        .with_secret(ID_A, ID_B, b"a secret for tests")
        .with_key(ed25519(1));
    pair.b = Node::new(pair.b.address, config(at_b, b_announces), 12)
        .with_secret(ID_A, ID_B, b"a secret for tests")
        .with_key(ed25519(2));
    pair.start();
    // A failure that anybody could have brought about is one after a second.
    pair.run_for(Duration::from_millis(1500));
    pair
}

fn failures(node: &Node) -> Vec<&IkeFailure> {
    node.events.iter().filter_map(failure).collect()
}

fn failure(event: &Event) -> Option<&IkeFailure> {
    match event {
        Event::IkeFailed { reason, .. } => Some(reason),
        _ => None,
    }
}

/// The announcement in the reply to IKE_SA_INIT.
fn announced(pair: &Pair) -> Option<Vec<u8>> {
    let reply = Message::parse(&pair.net.sent[1].datagram).expect("the endpoint's own");
    reply.payloads.iter().find_map(|raw| match raw.decode() {
        Ok(Payload::Notify(n)) if n.ty == NotifyType::SUPPORTED_AUTH_METHODS => {
            Some(n.data.to_vec())
        }
        _ => None,
    })
}

#[test]
fn what_fits_is_announced_and_used() {
    let psk = pair(false, false, true);
    psk.assert_up(1);
    assert_eq!(announced(&psk), Some(vec![2, 2]));
    let key = pair(true, true, true);
    key.assert_up(1);
    let ed25519 = [10, 14, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
    assert_eq!(announced(&key), Some(ed25519.to_vec()));
}

#[test]
fn what_does_not_fit_is_not_tried_and_this_side_says_why() {
    for (a_has_key, b_wants_key) in [(false, true), (true, false)] {
        let pair = pair(a_has_key, b_wants_key, true);
        let [IkeFailure::Credentials(why)] = failures(&pair.a)[..] else {
            panic!("{:?}", pair.a.events);
        };
        let wanted = if b_wants_key { "Ed25519" } else { "psk" };
        assert!(why.contains(&format!("announces {wanted}")), "{why}");
        let auth = |p: &&Packet| p.datagram[18] == ExchangeType::IKE_AUTH.0;
        assert_eq!(pair.net.sent.iter().filter(auth).count(), 0);
    }
}

#[test]
fn without_an_announcement_the_peer_decides() {
    let same = pair(true, true, false);
    same.assert_up(1);
    assert_eq!(announced(&same), None);
    let other = pair(false, true, false);
    let refused = |failure: &&IkeFailure| matches!(failure, IkeFailure::WeAreNotProven { .. });
    assert!(
        failures(&other.a).iter().all(refused),
        "{:?}",
        other.a.events
    );
    assert_eq!(failures(&other.a).len(), 1);
}

/// Both have an RSA key. The first signs with what `signs` says, the second takes what `takes` says.
fn rsa_pair(signs: &str, takes: &str, announces: bool) -> Pair {
    let key = |seed| {
        let key = PrivateKey::generate_rsa(2048, &mut ChaCha20Rng::seed_from_u64(seed));
        key.expect("of a legal size")
    };
    let (key_a, key_b) = (key(21), key(22));
    let setup = Setup::started(1);
    let mut at_a = setup.connection.clone();
    at_a.local.method = LocalAuthMethod::Key(key_a.public());
    at_a.local.signatures = signs.parse().expect("a word");
    at_a.remote.method = RemoteAuthMethod::Keys(vec![key_b.public()]);
    let mut at_b = mirror(&setup.connection, StartAction::None);
    at_b.local.method = LocalAuthMethod::Key(key_b.public());
    at_b.remote.method = RemoteAuthMethod::Keys(vec![key_a.public()]);
    at_b.remote.signatures = takes.parse().expect("a word");
    let config = |connection| Config {
        connections: vec![std::sync::Arc::new(connection)],
        settings: Settings {
            announce_auth_methods: announces,
            ..Settings::default()
        },
    };
    let mut pair = setup.pair(6);
    pair.a = Node::new(pair.a.address, config(at_a), 11).with_key(key_a);
    pair.b = Node::new(pair.b.address, config(at_b), 12).with_key(key_b);
    pair.start();
    pair.run_for(Duration::from_millis(1500));
    pair
}

#[test]
fn rsa_signatures_are_taken_as_the_configuration_says() {
    for (signs, takes) in [
        ("rsa-pss", "rsa-pss"),
        ("rsa-pss", "rsa-pss-sha512"),
        ("rsa-pkcs1", "rsa-pkcs1"),
    ] {
        rsa_pair(signs, takes, false).assert_up(1);
        rsa_pair(signs, takes, true).assert_up(1);
    }
    // Who has not said so beforehand refuses it, and says what to change.
    let pair = rsa_pair("rsa-pkcs1", "rsa-pss", false);
    let [IkeFailure::PeerNotProven { reason, .. }] = failures(&pair.b)[..] else {
        panic!("{:?}", pair.b.events);
    };
    for part in ["signs with RSA PKCS#1 v1.5", "charon.rsa_pss", "RSASSA-PSS"] {
        assert!(reason.contains(part), "{reason}");
    }
    let [IkeFailure::WeAreNotProven { .. }] = failures(&pair.a)[..] else {
        panic!("{:?}", pair.a.events);
    };
    // Who has, is not even asked.
    let pair = rsa_pair("rsa-pkcs1", "rsa-pss", true);
    let [IkeFailure::Credentials(why)] = failures(&pair.a)[..] else {
        panic!("{:?}", pair.a.events);
    };
    assert!(
        why.contains("key with rsa-pkcs1: it announces RSA PSS"),
        "{why}"
    );
    assert_eq!(failures(&pair.b).len(), 0, "{:?}", pair.b.events);
}

/// Two hosts that take a key or a secret of each other. `by_key`: whether each proves itself with its key;
/// `key` is the one that the second host has of the first one.
fn either_pair(by_key: [bool; 2], key: u64, secret_b: &[u8]) -> Pair {
    let setup = Setup::started(1);
    let mut at_a = setup.connection.clone();
    let mut at_b = mirror(&setup.connection, StartAction::None);
    for (host, seed, by_key) in [(&mut at_a, 1, by_key[0]), (&mut at_b, 2, by_key[1])] {
        if by_key {
            host.local.method = LocalAuthMethod::Key(ed25519(seed).public());
        }
    }
    at_a.remote.method = RemoteAuthMethod::KeysOrPsk(vec![ed25519(2).public()]);
    at_b.remote.method = RemoteAuthMethod::KeysOrPsk(vec![ed25519(key).public()]);
    let config = |connection| Config {
        connections: vec![std::sync::Arc::new(connection)],
        settings: Settings::default(),
    };
    let mut pair = setup.pair(5);
    pair.a = Node::new(pair.a.address, config(at_a), 11)
        .with_secret(ID_A, ID_B, b"a secret for tests")
        .with_key(ed25519(1));
    pair.b = Node::new(pair.b.address, config(at_b), 12)
        .with_secret(ID_A, ID_B, secret_b)
        .with_key(ed25519(2));
    pair.start();
    pair.run_for(Duration::from_millis(1500));
    pair
}

#[test]
fn where_a_key_or_a_secret_will_do_the_peer_has_the_choice_and_must_have_one_of_them() {
    let secret = b"a secret for tests";
    for a in [true, false] {
        for b in [true, false] {
            let pair = either_pair([a, b], 1, secret);
            pair.assert_up(1);
            let by = |node: &Node, signed: bool| {
                let status = node.endpoint.status(pair.now);
                let by = status[0].proven_by;
                assert_eq!(by == Some(ProvenBy::Secret), !signed, "{by:?}");
            };
            by(&pair.a, b);
            by(&pair.b, a);
        }
    }
    // Another key and the right secret, another secret and the right key.
    for (by_key, key, secret) in [
        ([true, true], 3, &secret[..]),
        ([false, true], 1, b"another"),
    ] {
        let pair = either_pair(by_key, key, secret);
        let [IkeFailure::PeerNotProven { .. }] = failures(&pair.b)[..] else {
            panic!("{:?}", pair.b.events)
        };
    }
}

/// The hashes that the first request names are those of the schemes that the initiator takes.
#[test]
fn hashes_that_no_scheme_uses_are_not_named() {
    let hashes = |pair: &Pair| {
        let request = Message::parse(&pair.net.sent[0].datagram).expect("the endpoint's own");
        let mut notifies = request
            .payloads
            .iter()
            .filter_map(|raw| match raw.decode() {
                Ok(Payload::Notify(n)) => Some(n),
                _ => None,
            });
        let named = notifies.find(|n| n.ty == NotifyType::SIGNATURE_HASH_ALGORITHMS);
        named.map(|n| n.data.to_vec())
    };
    let setup = Setup::started(1);
    let mut pair = setup.pair(5);
    pair.start();
    pair.run_for(Duration::from_millis(1500));
    assert_eq!(hashes(&pair), Some(vec![0, 2, 0, 3, 0, 4, 0, 5]));
    let mut setup = Setup::started(1);
    setup.connection.remote.signatures = "rsa-pss-sha512".parse().expect("a word");
    let mut pair = setup.pair(5);
    pair.start();
    pair.run_for(Duration::from_millis(1500));
    assert_eq!(hashes(&pair), Some(vec![0, 4]));
}
