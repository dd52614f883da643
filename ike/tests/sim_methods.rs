//! SUPPORTED_AUTH_METHODS, RFC 9593: what is announced, and what follows from it.

use std::time::Duration;

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
