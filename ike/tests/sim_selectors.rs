//! Which child a peer gets, with which selectors and in which mode.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{Child, Config, Mode, StartAction};
use obol_ike::error::ChildFailure;
use obol_ike::event::{ChildSaInfo, Command, Event, PacketFlow};
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{A, B, HOSTS, Setup, child};

fn acquire(child: &str, flow: PacketFlow) -> Command {
    Command::Acquire {
        connection: HOSTS.to_owned(),
        child: child.to_owned(),
        flow: Some(flow),
        remote: None,
        local: None,
    }
}

fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> PacketFlow {
    PacketFlow {
        protocol: 6,
        source: source.0,
        destination: destination.0,
        source_port: source.1,
        destination_port: destination.1,
    }
}

fn info(node: &Node, name: &str) -> ChildSaInfo {
    let sas = node.plane.outbound.values();
    let mut found = sas.filter(|sa| sa.info.child == name);
    let info = found
        .next()
        .unwrap_or_else(|| panic!("{name} is up"))
        .info
        .clone();
    assert!(found.next().is_none());
    info
}

fn texts(info: &ChildSaInfo) -> (Vec<String>, Vec<String>) {
    let text =
        |list: &[obol_ike::ts::TrafficSelector]| list.iter().map(ToString::to_string).collect();
    (text(&info.local_ts), text(&info.remote_ts))
}

fn failures(node: &Node) -> Vec<&ChildFailure> {
    node.events
        .iter()
        .filter_map(|event| match event {
            Event::ChildFailed { reason, .. } => Some(reason),
            _ => None,
        })
        .collect()
}

/// The first host with this child, the second with that one.
fn differing(a: Child, b: Child) -> Pair {
    let mut pair = Setup::new(1).children(vec![a]).pair(1);
    pair.b = Setup::new(1).children(vec![b]).pair(1).b;
    pair
}

//= test rfc7296 2.9-3
#[test]
fn the_responder_narrows() {
    let tunnel = |local, remote| child("net", Mode::Tunnel, local, remote, StartAction::None);
    let mut pair = differing(
        tunnel("10.1.0.0/16", "10.2.0.0/16"),
        tunnel("10.1.0.0/24", "10.2.5.0/24 10.3.0.0/24"),
    );
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    pair.assert_up(1);
    let want = (
        vec!["10.1.0.0/24".to_owned()],
        vec!["10.2.5.0/24".to_owned()],
    );
    assert_eq!(texts(&info(&pair.a, "net")), want);
}

//= test rfc7296 1.3.1-3 2.21.2-3
//= test security S-20 S-31
#[test]
fn nothing_in_common_fails_the_child_and_leaves_the_ike_sa() {
    let tunnel = |local, remote| child("net", Mode::Tunnel, local, remote, StartAction::None);
    let mut pair = differing(
        tunnel("10.1.0.0/16", "10.2.0.0/16"),
        tunnel("10.4.0.0/16", "10.5.0.0/16"),
    );
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    pair.assert_up(0);
    assert_eq!(pair.a.endpoint.status(pair.now).len(), 1);
    assert_eq!(failures(&pair.b), [&ChildFailure::TsUnacceptable]);
    assert!(matches!(failures(&pair.a)[..], [ChildFailure::Refused(_)]));
}

/// The service of a host and its use of the other's, as two transport children.
fn services() -> Vec<Child> {
    let transport =
        |name, local, remote| child(name, Mode::Transport, local, remote, StartAction::Trap);
    vec![
        transport("server", "192.168.0.1[tcp/27017]", "192.168.0.2[tcp]"),
        transport("client", "192.168.0.1[tcp]", "192.168.0.2[tcp/27017]"),
    ]
}

//= test rfc7296 1.3.1-1
#[test]
fn a_packet_brings_up_the_child_that_it_belongs_to() {
    let mut pair = Setup::new(1).children(services()).pair(1);
    let flow = tcp((A, 40000), (B, 27017));
    pair.command(End::A, acquire("client", flow))
        .expect("known");
    pair.run_until_idle();
    pair.assert_up(1);
    // The mirror of the first host's client is the second host's own "client", mirrored.
    let theirs = info(&pair.b, "client");
    assert_eq!(theirs.mode, Mode::Transport);
    assert_eq!(texts(&theirs).0, ["192.168.0.2[tcp/27017]"]);
    assert_eq!(texts(&theirs).1, ["192.168.0.1[tcp]"]);
    let flow = tcp((A, 27017), (B, 50000));
    pair.command(End::A, acquire("server", flow))
        .expect("known");
    pair.run_until_idle();
    pair.assert_up(2);
    assert_eq!(pair.a.count(|e| matches!(e, Event::IkeUp { .. })), 1);
}

#[test]
fn a_second_acquire_while_the_first_is_at_work_changes_nothing() {
    let mut pair = Setup::new(1).children(services()).pair(1);
    for _ in 0..5 {
        let flow = tcp((A, 40000), (B, 27017));
        pair.command(End::A, acquire("client", flow))
            .expect("known");
        pair.run_for(Duration::from_millis(7));
    }
    pair.run_until_idle();
    pair.assert_up(1);
    assert_eq!(pair.net.sent.len(), 4);
}

//= test rfc7296 2.23-12
#[test]
fn transport_mode_takes_the_two_hosts_out_of_networks() {
    let nets = child(
        "all",
        Mode::Transport,
        "192.168.0.0/16[udp/8472]",
        "192.168.0.0/16[udp/8472]",
        StartAction::None,
    );
    let mut pair = Setup::new(1).children(vec![nets]).pair(1);
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    pair.assert_up(1);
    let want = (
        vec!["192.168.0.1[udp/8472]".to_owned()],
        vec!["192.168.0.2[udp/8472]".to_owned()],
    );
    assert_eq!(texts(&info(&pair.a, "all")), want);
}

//= test rfc7296 2.23.1-3 2.23.1-4 2.23-12
//= test security S-34
#[test]
fn transport_mode_crosses_a_nat() {
    let outside: IpAddr = [203, 0, 113, 9].into();
    let host = |local: &str, remote: &str| {
        child("host", Mode::Transport, local, remote, StartAction::Start)
    };
    let mut setup = Setup::new(1).children(vec![host("192.168.0.1", "192.168.0.2")]);
    let mut pair = setup.clone().pair(1);
    pair.net.nat = Some((A, outside));
    setup = setup.children(vec![host("203.0.113.9", "192.168.0.2")]);
    setup.connection.local_addrs = vec![outside];
    pair.b = setup.pair(1).b;
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
    assert_eq!(texts(&info(&pair.a, "host")).0, ["192.168.0.1"]);
    assert_eq!(texts(&info(&pair.b, "host")).1, ["203.0.113.9"]);
}

#[test]
fn different_modes_fail_the_child() {
    for (a, b) in [
        (Mode::Transport, Mode::Tunnel),
        (Mode::Tunnel, Mode::Transport),
    ] {
        let host = |mode| {
            child(
                "host",
                mode,
                "192.168.0.1",
                "192.168.0.2",
                StartAction::None,
            )
        };
        let mut pair = differing(host(a), host(b));
        pair.initiate(End::A, HOSTS);
        pair.run_until_idle();
        pair.assert_up(0);
        assert_eq!(failures(&pair.a).len(), 1);
        assert_eq!(failures(&pair.b), [&ChildFailure::ModeMismatch { ours: b }]);
    }
}

#[test]
fn packets_do_not_ask_a_peer_that_refuses_again_and_again() {
    let tunnel = |local, remote| child("net", Mode::Tunnel, local, remote, StartAction::Trap);
    let mut pair = differing(
        tunnel("10.1.0.0/16", "10.2.0.0/16"),
        tunnel("10.4.0.0/16", "10.5.0.0/16"),
    );
    let flow = tcp(([10, 1, 0, 1].into(), 1), ([10, 2, 0, 1].into(), 2));
    for _ in 0..600 {
        pair.command(End::A, acquire("net", flow)).expect("known");
        pair.run_for(Duration::from_millis(100));
    }
    let tries = failures(&pair.a).len();
    assert!((3..=10).contains(&tries), "{tries} tries in a minute");
}

/// Another address of the first host.
const A2: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 9));

/// A policy between all hosts of a network, and a connection that names no peer.
fn any_peer() -> Pair {
    let service =
        |name, local, remote| child(name, Mode::Transport, local, remote, StartAction::Trap);
    let children = vec![
        service("server", "192.168.0.0/24[tcp/27017]", "192.168.0.0/24[tcp]"),
        service("client", "192.168.0.0/24[tcp]", "192.168.0.0/24[tcp/27017]"),
    ];
    let mut setup = Setup::new(5).children(children);
    setup.connection.remote_addrs.clear();
    setup.connection.local_addrs.clear();
    setup.connection.remote.id = None;
    // Each is who its address says.
    setup.connection.local.id = None;
    let node = |address: IpAddr, seed| {
        let config = Config {
            connections: vec![Arc::new(setup.connection.clone())],
            settings: setup.settings.clone(),
        };
        let node = Node::new(address, config, seed);
        let node = node.with_secret(&A.to_string(), &B.to_string(), b"a secret of all");
        node.with_secret(&A2.to_string(), &B.to_string(), b"a secret of all")
    };
    Pair::new(node(A, 1), node(B, 2), setup.net.clone())
}

#[test]
fn a_connection_without_peer_is_up_with_each_on_its_own() {
    let third: IpAddr = "192.168.0.3".parse().unwrap();
    let to = |peer: IpAddr| Command::Acquire {
        connection: HOSTS.to_owned(),
        child: "client".to_owned(),
        flow: Some(tcp((A, 40_000), (peer, 27017))),
        remote: Some(peer),
        local: Some(A),
    };
    let peers = |pair: &Pair, state: &str| -> Vec<IpAddr> {
        let sas = pair.a.endpoint.status(pair.now).into_iter();
        sas.filter(|sa| sa.state == state)
            .map(|sa| sa.path.remote.ip())
            .collect()
    };
    let mut pair = any_peer();
    pair.start();
    pair.command(End::A, to(third)).unwrap();
    pair.run_for(Duration::from_secs(1));
    pair.command(End::A, to(B)).unwrap();
    pair.run_for(Duration::from_secs(1));
    assert_eq!(peers(&pair, "established"), [B]);
    assert_eq!(peers(&pair, "connecting"), [third]);
    let client = info(&pair.a, "client");
    let want = (vec![format!("{A}[tcp]")], vec![format!("{B}[tcp/27017]")]);
    assert_eq!(texts(&client), want);

    pair.run_for(Duration::from_secs(300));
    assert!(peers(&pair, "connecting").is_empty());
    pair.command(End::A, to(third)).unwrap();
    pair.command(End::A, to(B)).unwrap();
    pair.run_for(Duration::from_secs(1));
    assert_eq!(peers(&pair, "connecting"), [third]);
    assert_eq!(info(&pair.a, "client").id, client.id);
}

#[test]
fn a_host_with_two_addresses_is_up_from_each_of_them() {
    let from = |own: IpAddr| Command::Acquire {
        connection: HOSTS.to_owned(),
        child: "client".to_owned(),
        flow: Some(tcp((own, 40_000), (B, 27017))),
        remote: Some(B),
        local: Some(own),
    };
    let mut pair = any_peer();
    pair.start();
    pair.readdress(End::A, &[A, A2]);
    let up = |pair: &Pair| {
        let sas = pair.a.endpoint.status(pair.now).into_iter();
        let mut up: Vec<(IpAddr, usize)> = sas
            .filter(|sa| sa.state == "established")
            .map(|sa| (sa.path.local.ip(), sa.children.len()))
            .collect();
        up.sort();
        up
    };
    for own in [A, A2, A, A2] {
        pair.command(End::A, from(own)).unwrap();
        pair.run_for(Duration::from_secs(1));
    }
    assert_eq!(up(&pair), [(A, 1), (A2, 1)]);
}
