//! The same peer comes twice: what stays is for the connection to say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{
    Config, Connection, LocalAuth, LocalAuthMethod, RemoteAuthMethod, StartAction, Unique,
};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::error::IkeFailure;
use obol_ike::event::Event;
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{A, B, ID_A, ID_B, Setup, connection, mirror, pods};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const ELSEWHERE: &str = "192.168.0.77";

/// Each has its own, so that it is itself wherever it comes from.
fn secret(id: &str) -> Vec<u8> {
    format!("the secret of {id}").into_bytes()
}

/// The first host with this identity at this address, to a second host that takes peers from
/// anywhere.
fn roaming(id: &str, address: IpAddr, contact: bool, seed: u64) -> Node {
    let plain = connection(vec![pods(StartAction::Start)]);
    let own = Connection {
        local_addrs: vec![address],
        local: LocalAuth {
            id: id.parse().ok(),
            ..plain.local.clone()
        },
        initial_contact: contact,
        ..plain
    };
    let config = Config {
        connections: vec![Arc::new(own)],
        ..Config::default()
    };
    Node::new(address, config, seed).with_secret(id, ID_B, &secret(id))
}

fn gateway(unique: Unique) -> Pair {
    let mut setup = Setup::new(1);
    setup.connection.local_addrs = Vec::new();
    setup.connection.local.id = None;
    setup.connection.peer.unique = unique;
    let mut pair = setup.pair(1);
    pair.b.secrets = ["@hosta.example.com", "@hostc.example.com"]
        .map(|id| {
            (
                id.parse().expect("sound"),
                ID_B.parse().expect("sound"),
                secret(id),
            )
        })
        .to_vec();
    pair.a = roaming(ID_A, A, true, 1);
    pair.start();
    pair.run_for(Duration::from_secs(1));
    assert_eq!(established(&pair), [A]);
    pair
}

/// Where the peers of the second host are.
fn established(pair: &Pair) -> Vec<IpAddr> {
    let status = pair.b.endpoint.status(pair.now).into_iter();
    status
        .filter(|sa| sa.state == "established")
        .map(|sa| sa.path.remote.ip())
        .collect()
}

/// The first host is gone without a word; this one comes.
fn then_comes(pair: &mut Pair, node: Node) {
    pair.run_for(Duration::from_secs(60));
    pair.a = node;
    pair.start();
    pair.run_for(Duration::from_secs(1));
}

fn elsewhere() -> IpAddr {
    ELSEWHERE.parse().expect("sound")
}

#[test]
fn a_peer_that_returns_from_another_address_is_treated_as_the_policy_says() {
    let both = vec![A, elsewhere()];
    let new = vec![elsewhere()];
    let old = vec![A];
    // With INITIAL_CONTACT, the peer says itself that it has nothing else.
    let table = [
        (Unique::No, false, &both),
        (Unique::No, true, &new),
        (Unique::Never, false, &both),
        (Unique::Never, true, &both),
        (Unique::Replace, false, &new),
        (Unique::Replace, true, &new),
        (Unique::Keep, false, &old),
        (Unique::Keep, true, &new),
    ];
    for (unique, contact, left) in table {
        let mut pair = gateway(unique);
        then_comes(&mut pair, roaming(ID_A, elsewhere(), contact, 7));
        assert_eq!(established(&pair), *left, "{unique:?}, {contact}");
    }
}

#[test]
fn who_keeps_the_old_one_sees_whether_it_lives() {
    let mut pair = gateway(Unique::Keep);
    then_comes(&mut pair, roaming(ID_A, elsewhere(), false, 7));
    let kept = |e: &Event| {
        let reason = |r: &IkeFailure| matches!(r, IkeFailure::UpElsewhere { .. });
        matches!(e, Event::IkeFailed { reason: r, .. } if reason(r))
    };
    assert!(pair.b.count(kept) >= 1);
    // The old one does not answer, so it goes, and the next try of the new one is accepted.
    pair.run_for(Duration::from_secs(300));
    assert_eq!(established(&pair), [elsewhere()]);
}

#[test]
fn hosts_with_one_address_and_different_identities_coexist() {
    for unique in [Unique::No, Unique::Never, Unique::Replace, Unique::Keep] {
        let mut pair = gateway(unique);
        then_comes(&mut pair, roaming("@hostc.example.com", A, true, 7));
        assert_eq!(established(&pair), [A, A], "{unique:?}");
        pair.run_for(Duration::from_secs(30));
        assert_eq!(established(&pair).len(), 2, "{unique:?}");
    }
}

#[test]
fn a_peer_that_begins_again_at_its_address_has_one_in_the_end() {
    let mut pair = gateway(Unique::Replace);
    then_comes(&mut pair, roaming(ID_A, A, false, 7));
    assert_eq!(established(&pair).len(), 2, "it may be about to move");
    pair.run_for(Duration::from_secs(60));
    assert_eq!(established(&pair), [A]);
    assert_eq!(pair.a.plane.inbound.len(), 1);
}

#[test]
fn first_contacts_that_cross_end_with_one_whatever_the_policy() {
    for unique in [Unique::No, Unique::Replace, Unique::Keep] {
        for seed in 0..40 {
            let mut setup = Setup::started(seed);
            setup.b_starts = StartAction::Start;
            setup.connection.peer.unique = unique;
            let slowest = 1 + seed % 100;
            setup.net.delay = (Duration::from_millis(1), Duration::from_millis(slowest));
            let mut pair = setup.up(seed);
            pair.run_for(Duration::from_secs(90));
            pair.run_until_idle();
            let ok = std::panic::AssertUnwindSafe(|| pair.assert_up(1));
            assert!(
                std::panic::catch_unwind(ok).is_ok(),
                "{unique:?}, seed {seed}"
            );
        }
    }
}

#[test]
fn two_connections_with_one_peer_do_not_end_each_other() {
    let mut net = pods(StartAction::Start);
    net.name = "net".to_owned();
    net.local_ts = vec!["10.1.0.0/16".parse().expect("sound")];
    net.remote_ts = vec!["10.2.0.0/16".parse().expect("sound")];
    // The second host has both children in one connection.
    let both = vec![pods(StartAction::None), net.clone()];
    let theirs = mirror(&connection(both), StartAction::None);
    let plain = connection(vec![pods(StartAction::Start)]);
    let more = Connection {
        name: "more".to_owned(),
        ..connection(vec![net])
    };
    let config = |connections: Vec<Connection>| Config {
        connections: connections.into_iter().map(Arc::new).collect(),
        ..Config::default()
    };
    let a = Node::new(A, config(vec![plain, more]), 1).with_secret(ID_A, ID_B, &secret(ID_A));
    let b = Node::new(B, config(vec![theirs]), 2).with_secret(ID_A, ID_B, &secret(ID_A));
    let mut pair = Pair::new(a, b, Net::seeded(1));
    pair.start();
    pair.run_for(Duration::from_secs(30));
    assert_eq!(pair.a.endpoint.status(pair.now).len(), 2);
    assert_eq!(pair.b.endpoint.status(pair.now).len(), 2);
    assert_eq!(pair.a.plane.current.len(), 2);
    let downs = |node: &Node| node.count(|e| matches!(e, Event::IkeDown { .. }));
    assert_eq!((downs(&pair.a), downs(&pair.b)), (0, 0));
}

/// Where no connection says who its peer is, that is known only once it is proven.
#[test]
fn two_connections_with_a_peer_that_they_do_not_name_do_not_end_each_other() {
    let key = |seed| PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(seed));
    let mut net = pods(StartAction::None);
    net.name = "net".to_owned();
    net.local_ts = vec!["10.1.0.0/16".parse().expect("sound")];
    net.remote_ts = vec!["10.2.0.0/16".parse().expect("sound")];
    let mut theirs = mirror(
        &connection(vec![pods(StartAction::None), net.clone()]),
        StartAction::None,
    );
    theirs.local.method = LocalAuthMethod::Key(key(2).public());
    theirs.remote.method = RemoteAuthMethod::Keys(vec![key(1).public()]);
    let open = |name: &str, child| {
        let mut open = connection(vec![child]);
        open.name = name.to_owned();
        open.local.method = LocalAuthMethod::Key(key(1).public());
        open.remote.method = RemoteAuthMethod::Keys(vec![key(2).public()]);
        open.remote.id = None;
        open
    };
    let config = |connections: Vec<Connection>| Config {
        connections: connections.into_iter().map(Arc::new).collect(),
        ..Config::default()
    };
    let first = open("first", pods(StartAction::None));
    let more = open("more", net);
    let a = Node::new(A, config(vec![first, more]), 1).with_key(key(1));
    let b = Node::new(B, config(vec![theirs]), 2).with_key(key(2));
    let mut pair = Pair::new(a, b, Net::seeded(1));
    for name in ["first", "more"] {
        pair.initiate(End::A, name);
        pair.run_for(Duration::from_secs(30));
    }
    assert_eq!(pair.a.endpoint.status(pair.now).len(), 2);
    assert_eq!(pair.b.endpoint.status(pair.now).len(), 2);
    let downs = |node: &Node| node.count(|e| matches!(e, Event::IkeDown { .. }));
    assert_eq!((downs(&pair.a), downs(&pair.b)), (0, 0));
}
