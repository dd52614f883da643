//! A connection that leaves open who its peers are, and where. Each pair of addresses has an IKE SA of its own,
//! whatever name is proven there; and what one peer proves says nothing of another one, whatever name they share.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{
    Config, Connection, LocalAuthMethod, RemoteAuthMethod, StartAction, Unique,
};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::event::{Command, Event};
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{A, B, HOSTS, ID_B, PODS, connection, pods};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// Where the third host is.
const C: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 3));
const NAME: &str = "@hostc.example.com";
const MINUTE: Duration = Duration::from_secs(60);

fn key(seed: u64) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(seed))
}

fn node(address: IpAddr, own: Connection, key: PrivateKey, seed: u64) -> Node {
    with_quota(16, address, own, key, seed)
}

fn with_quota(
    ike_sas: usize,
    address: IpAddr,
    own: Connection,
    key: PrivateKey,
    seed: u64,
) -> Node {
    let mut config = Config {
        connections: vec![Arc::new(own)],
        ..Config::default()
    };
    config.settings.quotas.ike_sas = ike_sas;
    Node::new(address, config, seed).with_key(key)
}

/// A host at this address, with this key, in front of a network of its own.
fn host(address: IpAddr, network: u8, contact: bool, seed: u64) -> Node {
    let mut child = pods(StartAction::None);
    let network = format!("172.16.{network}.0/24");
    child.local_ts = vec![network.parse().expect("sound")];
    child.remote_ts = vec!["172.16.2.0/24".parse().expect("sound")];
    let mut own = connection(vec![child]);
    own.local_addrs = vec![address];
    own.local.id = NAME.parse().ok();
    own.local.method = LocalAuthMethod::Key(key(seed).public());
    own.remote.method = RemoteAuthMethod::Keys(vec![key(2).public()]);
    own.initial_contact = contact;
    node(address, own, key(seed), address_seed(address))
}

fn address_seed(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(_) => 6,
    }
}

/// The second host, which takes anybody with one of these keys.
fn gateway(keys: &[u64], unique: Unique) -> Node {
    node(B, open(keys, unique), key(2), 2)
}

fn open(keys: &[u64], unique: Unique) -> Connection {
    let mut child = pods(StartAction::Trap);
    child.local_ts = vec!["172.16.2.0/24".parse().expect("sound")];
    child.remote_ts = vec!["172.16.0.0/16".parse().expect("sound")];
    let mut own = connection(vec![child]);
    own.local_addrs = vec![B];
    own.remote_addrs = Vec::new();
    own.local.id = ID_B.parse().ok();
    own.local.method = LocalAuthMethod::Key(key(2).public());
    own.remote.id = None;
    let keys = keys.iter().map(|seed| key(*seed).public()).collect();
    own.remote.method = RemoteAuthMethod::Keys(keys);
    own.peer.unique = unique;
    own
}

fn initiate() -> Command {
    Command::Initiate {
        connection: HOSTS.to_owned(),
        child: None,
        local: None,
    }
}

/// The third host is told to do something.
fn tell(pair: &mut Pair, command: Command) {
    let now = pair.now;
    let told = pair.others[0].endpoint.handle_command(now, command);
    told.expect("it has the connection");
    pair.run_for(Duration::from_secs(2));
}

/// The second host and the third one are up, whoever began.
fn up(second: Node, third: Node, second_begins: bool) -> Pair {
    let first = host(A, 1, false, 9);
    let mut pair = Pair::new(first, second, Net::seeded(1));
    pair.others.push(third);
    if second_begins {
        let acquire = Command::Acquire {
            connection: HOSTS.to_owned(),
            child: PODS.to_owned(),
            flow: None,
            remote: Some(C),
            local: None,
        };
        pair.command(End::B, acquire).expect("it has that");
        pair.run_for(Duration::from_secs(2));
    } else {
        tell(&mut pair, initiate());
    }
    assert_carries(&pair, "at first");
    pair
}

/// Packets pass between the second host and the third one in both directions, and nothing ended.
fn assert_carries(pair: &Pair, when: &str) {
    let third = &pair.others[0];
    let down = |event: &Event| matches!(event, Event::IkeDown { .. });
    assert_eq!(pair.b.count(down), 0, "{when}: {:?}", pair.b.events);
    assert_eq!(third.count(down), 0, "{when}: {:?}", third.events);
    let last = |node: &Node, to: IpAddr| {
        let order = node.plane.order.iter().rev();
        let mut used = order.filter_map(|id| node.plane.outbound.get(id));
        used.find(|sa| sa.info.path.remote.ip() == to)
            .map(|sa| sa.info.spi_out)
    };
    for (from, to) in [(&pair.b, third), (third, &pair.b)] {
        let spi = last(from, to.address).unwrap_or_else(|| panic!("{when}: no way out"));
        let mut accepted = to.plane.inbound.values();
        assert!(accepted.any(|sa| sa.info.spi_in == spi), "{when}: dropped");
    }
}

/// The child of the third host is rekeyed, and that is over.
fn rekey(pair: &mut Pair) {
    let rekeyed = |event: &Event| matches!(event, Event::ChildUp(info) if info.replaces.is_some());
    let before = pair.others[0].count(rekeyed);
    let command = Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    };
    tell(pair, command);
    pair.run_for(10 * MINUTE);
    assert!(pair.others[0].count(rekeyed) > before);
}

/// Who comes last with one key under one name, and keeps the connection from being the only one,
/// takes nothing from the one that was first.
#[test]
fn two_hosts_with_one_key_and_one_name_are_both_up_where_both_may() {
    for second_begins in [false, true] {
        let second = gateway(&[3], Unique::No);
        let mut pair = up(second, host(C, 3, false, 3), second_begins);
        pair.run_for(MINUTE);
        pair.a = host(A, 1, false, 3);
        pair.initiate(End::A, HOSTS);
        pair.run_for(MINUTE);
        assert_carries(&pair, "with a second one");
        rekey(&mut pair);
        assert_carries(&pair, "rekeyed");
    }
}

/// One host at two addresses, to both of which packets go.
#[test]
fn two_addresses_of_one_peer_are_each_up() {
    let mut pair = up(gateway(&[3], Unique::No), both(), true);
    let acquire = |remote| Command::Acquire {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
        flow: None,
        remote: Some(remote),
        local: None,
    };
    for second in 0..120 {
        let to = [C, D][second % 2];
        let has = pair.b.plane.outbound.values();
        if has.filter(|sa| sa.info.path.remote.ip() == to).count() == 0 {
            pair.command(End::B, acquire(to)).expect("it has that");
        }
        pair.run_for(Duration::from_secs(5));
    }
    assert_carries(&pair, "after ten minutes");
    let ups = |event: &Event| matches!(event, Event::IkeUp { .. });
    assert_eq!(pair.b.count(ups), 2);
    rekey(&mut pair);
    assert_carries(&pair, "rekeyed");
    let spis = |node: &Node, address: IpAddr| {
        let all = node.plane.outbound.values();
        let there = all.filter(|sa| sa.info.path.remote.ip() == address);
        there.map(|sa| sa.info.spi_out).collect::<Vec<_>>()
    };
    let accepts = &pair.others[0].plane.inbound;
    for address in [C, D] {
        let spis = spis(&pair.b, address);
        assert!(!spis.is_empty(), "{address}");
        let accepted = |spi| accepts.values().any(|sa| sa.info.spi_in == spi);
        assert!(spis.into_iter().all(accepted), "{address}");
    }
}

const D: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 4));

/// The third host, where it has two addresses.
fn both() -> Node {
    let mut child = pods(StartAction::None);
    child.local_ts = vec!["172.16.3.0/24".parse().expect("sound")];
    child.remote_ts = vec!["172.16.2.0/24".parse().expect("sound")];
    let mut own = connection(vec![child]);
    own.local_addrs = Vec::new();
    own.remote_addrs = Vec::new();
    own.local.id = NAME.parse().ok();
    own.local.method = LocalAuthMethod::Key(key(3).public());
    own.remote.method = RemoteAuthMethod::Keys(vec![key(2).public()]);
    let mut both = node(C, own, key(3), 3);
    both.others = vec![D];
    both
}

//= test security S-9 S-28
#[test]
fn another_key_under_the_same_name_ends_and_hinders_nothing() {
    for unique in [Unique::No, Unique::Replace, Unique::Keep] {
        for contact in [false, true] {
            for second_begins in [false, true] {
                let when = format!("{unique:?}, contact {contact}, second {second_begins}");
                let second = gateway(&[3, 4], unique);
                let mut pair = up(second, host(C, 3, false, 3), second_begins);
                pair.run_for(MINUTE);
                pair.a = host(A, 1, contact, 4);
                pair.initiate(End::A, HOSTS);
                pair.run_for(MINUTE);
                assert_carries(&pair, &when);
                assert_eq!(pair.b.endpoint.status(pair.now).len(), 2, "{when}");
                rekey(&mut pair);
                assert_carries(&pair, &format!("{when}, rekeyed"));
            }
        }
    }
}

//= test security S-9
#[test]
fn another_key_under_the_same_name_uses_up_no_quota() {
    let second = with_quota(1, B, open(&[3, 4], Unique::No), key(2), 2);
    let mut pair = up(second, host(C, 3, false, 3), false);
    pair.run_for(MINUTE);
    pair.a = host(A, 1, false, 4);
    pair.initiate(End::A, HOSTS);
    pair.run_for(MINUTE);
    assert_carries(&pair, "with a second one");
}
