//! Who has a secret of its own, and takes the place of somebody else: where a connection does not
//! say what its peer must claim to be, addresses tell whose secret counts.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{Config, Connection, LocalAuthMethod, RemoteAuthMethod, StartAction};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::error::IkeFailure;
use obol_ike::event::Event;
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{A, B, HOSTS, connection, pods};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// Where a third host is.
const C: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 3));
const NAME_C: &str = "@hostc.example.com";

const OF_B: &[u8] = b"what the first shares with the second";
const OF_C: &[u8] = b"what the first shares with the third";

/// A connection to this peer that leaves open what it claims to be.
fn open(peer: IpAddr, name: &str) -> Connection {
    let mut open = connection(vec![pods(StartAction::None)]);
    open.name = name.to_owned();
    open.remote_addrs = vec![peer];
    open.local.id = None;
    open.remote.id = None;
    open
}

/// The first host: a secret with each of the two others, and connections with both.
fn first(change: impl Fn(&mut Connection)) -> Node {
    let mut both = [open(B, HOSTS), open(C, "third")];
    both.iter_mut().for_each(change);
    let config = Config {
        connections: both.into_iter().map(Arc::new).collect(),
        ..Config::default()
    };
    let text = |address: IpAddr| address.to_string();
    Node::new(A, config, 1)
        .with_secret(&text(A), &text(B), OF_B)
        .with_secret(&text(A), &text(C), OF_C)
        .with_secret(&text(A), NAME_C, OF_C)
}

/// A host at this address that claims to be `id`, with this secret.
fn at(address: IpAddr, id: &str, secret: &[u8], change: impl Fn(&mut Connection)) -> Node {
    let mut own = open(A, HOSTS);
    own.local_addrs = vec![address];
    own.local.id = id.parse().ok();
    let mut child = pods(StartAction::None);
    std::mem::swap(&mut child.local_ts, &mut child.remote_ts);
    own.children = vec![Arc::new(child)];
    change(&mut own);
    let config = Config {
        connections: vec![Arc::new(own)],
        ..Config::default()
    };
    Node::new(address, config, 2).with_secret(&A.to_string(), id, secret)
}

fn is_established(pair: &Pair) -> bool {
    let status = pair.a.endpoint.status(pair.now);
    status.iter().any(|sa| sa.state == "established")
}

/// What the first host has to say of a peer that it does not believe.
fn complaints(pair: &Pair) -> Vec<String> {
    let failed = |event: &Event| match event {
        Event::IkeFailed { reason, .. } => match reason {
            IkeFailure::PeerNotProven { .. } | IkeFailure::Credentials(_) => {
                Some(format!("{reason:?}"))
            }
            _ => None,
        },
        _ => None,
    };
    pair.a.events.iter().filter_map(failed).collect()
}

fn run(a: Node, b: Node, from: End) -> Pair {
    let mut pair = Pair::new(a, b, Net::seeded(1));
    pair.start();
    pair.initiate(from, HOSTS);
    pair.run_for(Duration::from_secs(5));
    pair
}

fn ed25519(seed: u64) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(seed))
}

/// The second host may be what it wants to be, as long as nobody else's secret says so.
#[test]
fn who_has_the_secret_of_its_address_gets_in() {
    for (id, encap) in [
        ("192.168.0.2", false),
        ("@somebody", false),
        ("10.9.8.7", true),
    ] {
        for from in [End::A, End::B] {
            let encap = |own: &mut Connection| own.force_encap = encap;
            let pair = run(first(|_| {}), at(B, id, OF_B, encap), from);
            assert!(
                is_established(&pair),
                "{id}, {from:?}: {:?}",
                complaints(&pair)
            );
        }
    }
}

//= test security S-28
#[test]
fn another_ones_secret_does_not_open_a_connection_that_names_an_address() {
    for id in ["192.168.0.3", NAME_C] {
        for encap in [false, true] {
            let encapsulate = |own: &mut Connection| own.force_encap = encap;
            let pair = run(first(|_| {}), at(B, id, OF_C, encapsulate), End::B);
            assert!(!is_established(&pair), "{id}, {encap}");
            assert!(!complaints(&pair).is_empty());
            // As initiator, with a proof that the other one can check.
            let key = ed25519(1);
            let signing = |own: &mut Connection| {
                own.local.method = LocalAuthMethod::Key(key.public());
            };
            let checking = |own: &mut Connection| {
                own.remote.method = RemoteAuthMethod::Keys(vec![key.public()]);
                own.force_encap = encap;
            };
            let other = at(B, id, OF_C, checking);
            let pair = run(first(signing).with_key(ed25519(1)), other, End::A);
            assert!(!is_established(&pair), "{id}, {encap}, as initiator");
            assert!(!complaints(&pair).is_empty());
        }
    }
}

/// The third host is itself where it is.
#[test]
fn the_owner_of_the_secret_gets_in_where_it_is() {
    for id in ["192.168.0.3", NAME_C] {
        let mut pair = Pair::new(first(|_| {}), at(C, id, OF_C, |_| {}), Net::seeded(1));
        pair.start();
        pair.initiate(End::B, HOSTS);
        pair.run_for(Duration::from_secs(5));
        assert!(is_established(&pair), "{id}: {:?}", complaints(&pair));
    }
}

/// Where there is no secret for the address of the peer, the one of its identity counts, unless that
/// is an address where the peer is not.
#[test]
fn an_address_as_identity_is_where_the_peer_is_unless_there_is_a_nat() {
    let anybody = |own: &mut Connection| own.remote_addrs = Vec::new();
    let elsewhere: IpAddr = [192, 168, 0, 77].into();
    for (id, nat, fits) in [
        ("192.168.0.3", false, false),
        ("192.168.0.3", true, true),
        (NAME_C, false, true),
    ] {
        let encap = |own: &mut Connection| own.force_encap = nat;
        let pair = run(first(anybody), at(elsewhere, id, OF_C, encap), End::B);
        assert_eq!(is_established(&pair), fits, "{id}, {nat}");
        let told = complaints(&pair)
            .iter()
            .any(|why| why.contains("192.168.0.77"));
        assert_eq!(told, !fits);
        // Where no NAT is looked for, none is pretended.
        let off = |own: &mut Connection| {
            anybody(own);
            own.nat_traversal = false;
        };
        let pair = run(first(off), at(elsewhere, id, OF_C, encap), End::B);
        assert_eq!(is_established(&pair), id == NAME_C, "{id}, {nat}, off");
    }
}

/// The addresses of a connection are those of one peer, which is called by one of them.
#[test]
fn a_peer_may_be_called_by_any_address_that_its_connection_lists() {
    let elsewhere: IpAddr = [192, 168, 0, 77].into();
    for (listed, fits) in [(vec![C, elsewhere], true), (vec![B, elsewhere], false)] {
        let several = |own: &mut Connection| {
            if own.name == HOSTS {
                own.remote_addrs = listed.clone();
            }
        };
        let peer = at(elsewhere, "192.168.0.3", OF_C, |_| {});
        let pair = run(first(several), peer, End::B);
        assert_eq!(is_established(&pair), fits, "{:?}", complaints(&pair));
    }
}

/// One key proves one peer, whatever it calls itself; of several, any of them may be borrowed.
#[test]
fn several_keys_are_as_good_as_several_secrets() {
    let (key, other) = (ed25519(1), ed25519(2));
    for (keys, fits) in [
        (vec![key.public()], true),
        (vec![key.public(), other.public()], false),
    ] {
        let keyed = |own: &mut Connection| {
            own.remote.method = RemoteAuthMethod::Keys(keys.clone());
        };
        let signing = |own: &mut Connection| {
            own.local.method = LocalAuthMethod::Key(key.public());
        };
        let peer = at(B, "192.168.0.3", OF_B, signing).with_key(ed25519(1));
        let mut ours = first(keyed);
        ours.secrets[0].2 = OF_B.to_vec();
        ours.secrets[1].2 = OF_B.to_vec();
        let pair = run(ours, peer, End::B);
        assert_eq!(
            is_established(&pair),
            fits,
            "{}: {:?}",
            keys.len(),
            complaints(&pair)
        );
    }
}
