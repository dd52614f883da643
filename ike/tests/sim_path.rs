//! Where peers are, and that SAs go along when that changes: NATs, RFC 7296 section 2.23.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use obol_ike::config::{Mode, Path, StartAction};
use obol_ike::event::{Command, Event};
use obol_ike::testing::net::{Net, Packet};
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{A, B, HOSTS, PODS, Setup, child};

/// Where the NAT is.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// The first host behind a NAT, and all up.
fn behind_nat(mut setup: Setup, net: Net) -> Pair {
    setup = setup.net(net);
    setup.connection.local_addrs.clear();
    setup.connection.source = Some(A);
    let mut pair = setup.pair(7);
    pair.net.nat = Some((A, OUTSIDE));
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
    pair
}

fn path_of(pair: &Pair, end: End) -> Path {
    let node = if end == End::A { &pair.a } else { &pair.b };
    node.endpoint.status(pair.now)[0].path
}

fn esp_path(pair: &Pair, end: End) -> Path {
    let node = if end == End::A { &pair.a } else { &pair.b };
    let outbound = node.plane.outbound.values().next().unwrap();
    let inbound = &node.plane.inbound[&outbound.info.id];
    assert_eq!(outbound.info.path, inbound.info.path);
    outbound.info.path
}

fn moves(pair: &Pair, end: End) -> usize {
    let node = if end == End::A { &pair.a } else { &pair.b };
    node.count(|event| matches!(event, Event::Moved { .. }))
}

/// A packet each way, and what came of them: to the first host, to the second.
fn echo(pair: &mut Pair) -> (bool, bool) {
    let before = (pair.a.plane.opened_packets(), pair.b.plane.opened_packets());
    assert!(pair.send_esp(End::A));
    pair.run_for(Duration::from_millis(50));
    assert!(pair.send_esp(End::B));
    pair.run_for(Duration::from_millis(50));
    let after = (pair.a.plane.opened_packets(), pair.b.plane.opened_packets());
    (after.0 > before.0, after.1 > before.1)
}

//= test rfc7296 2.23-13
#[test]
fn a_message_from_a_remapped_peer_moves_its_children_too() {
    let mut pair = behind_nat(Setup::started(1), Net::seeded(1));
    let before = path_of(&pair, End::B);
    pair.net.rebind();
    let rekey = Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    };
    pair.command(End::A, rekey).unwrap();
    pair.run_until_idle();
    let after = path_of(&pair, End::B);
    assert_ne!(before, after);
    assert_eq!(esp_path(&pair, End::B), after);
    assert_eq!(moves(&pair, End::B), 1);
    // Behind the NAT, nobody has moved.
    assert_eq!(moves(&pair, End::A), 0);
    pair.assert_up(1);
    assert_eq!(echo(&mut pair), (true, true));
}

//= test rfc7296 2.23-13
#[test]
fn a_packet_from_a_remapped_peer_moves_all() {
    let mut pair = behind_nat(Setup::started(2), Net::seeded(2));
    pair.net.rebind();
    assert_eq!(echo(&mut pair), (true, true));
    assert_eq!(esp_path(&pair, End::B), path_of(&pair, End::B));
    assert_eq!(moves(&pair, End::B), 1);
}

#[test]
fn a_flow_survives_a_nat_that_forgets_every_five_seconds() {
    let mut pair = behind_nat(Setup::started(3), Net::seeded(3));
    let (mut sent, mut lost) = ([0, 0], [0, 0]);
    for second in 0..600 {
        if second % 5 == 0 {
            pair.net.rebind();
        }
        for _ in 0..10 {
            let (to_a, to_b) = echo(&mut pair);
            sent = [sent[0] + 1, sent[1] + 1];
            lost = [lost[0] + usize::from(!to_a), lost[1] + usize::from(!to_b)];
        }
    }
    println!(
        "NAT rebinding every 5 s for 600 s: lost {} of {} to the host behind it, {} of {} from it",
        lost[0], sent[0], lost[1], sent[1]
    );
    assert_eq!(lost, [0, 0]);
    assert_eq!(moves(&pair, End::B), 120);
    pair.assert_up(1);
}

//= test rfc7296 2.23-14
/// RFC 7296 section 2.23: old packets from a wrong address move nothing, and neither does
/// anything towards a host that is behind a NAT itself.
#[test]
fn replays_from_a_wrong_address_move_nothing() {
    let mut pair = behind_nat(Setup::started(4), Net::seeded(4));
    assert_eq!(echo(&mut pair), (true, true));
    let rekey = Command::RekeyIke {
        connection: HOSTS.to_owned(),
    };
    pair.command(End::A, rekey).unwrap();
    pair.run_until_idle();
    let paths = [End::A, End::B].map(|end| (path_of(&pair, end), esp_path(&pair, end)));
    let recorded = pair.net.sent.clone();
    let wrong = "198.51.100.66:6666".parse().unwrap();
    for packet in recorded {
        let now = pair.now;
        // The inside address is what arrives at the host behind the NAT.
        let to = if packet.to.ip() == OUTSIDE {
            (A, packet.to.port() - 10_000).into()
        } else {
            packet.to
        };
        pair.net.inject(
            now,
            Packet {
                from: wrong,
                to,
                ..packet
            },
        );
        pair.run_for(Duration::from_millis(1));
    }
    let after = [End::A, End::B].map(|end| (path_of(&pair, end), esp_path(&pair, end)));
    assert_eq!(paths, after);
    assert_eq!((moves(&pair, End::A), moves(&pair, End::B)), (0, 0));
    // A new packet to the one behind the NAT, brought from elsewhere.
    let (path, packet) = pair.b.plane.seal().unwrap();
    let now = pair.now;
    pair.net.inject(
        now,
        Packet {
            from: wrong,
            to: (A, 4500).into(),
            datagram: packet,
        },
    );
    assert_eq!(path.local, (B, 4500).into());
    pair.run_for(Duration::from_millis(1));
    assert_eq!(moves(&pair, End::A), 0);
    assert_eq!(echo(&mut pair), (true, true));
}

#[test]
fn without_nat_nobody_is_followed() {
    let mut setup = Setup::started(5);
    setup.connection.force_encap = false;
    let mut pair = setup.up(5);
    let before = (path_of(&pair, End::B), esp_path(&pair, End::B));
    let (_, packet) = pair.a.plane.seal().unwrap();
    let now = pair.now;
    pair.net.inject(
        now,
        Packet {
            from: "198.51.100.66:4500".parse().unwrap(),
            to: before.0.local,
            datagram: packet,
        },
    );
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.b.plane.opened_packets(), 1);
    assert_eq!((path_of(&pair, End::B), esp_path(&pair, End::B)), before);
}

/// Transport mode is about the addresses of the hosts: where the NAT gets another one, its Child
/// SAs cannot go along, and are made anew.
#[test]
fn a_transport_child_is_made_anew_at_another_address() {
    let host = |local: &str, remote: &str| {
        child("host", Mode::Transport, local, remote, StartAction::Start)
    };
    let mut setup = Setup::new(6).children(vec![host("192.168.0.1", "192.168.0.2")]);
    setup.connection.local_addrs.clear();
    setup.connection.source = Some(A);
    let mut pair = setup.clone().pair(6);
    pair.net.nat = Some((A, OUTSIDE));
    setup = setup.children(vec![host("203.0.113.0/24", "192.168.0.2")]);
    pair.b = setup.pair(6).b;
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);

    let elsewhere: IpAddr = [203, 0, 113, 99].into();
    pair.net.nat = Some((A, elsewhere));
    pair.net.rebind();
    let rekey = Command::RekeyIke {
        connection: HOSTS.to_owned(),
    };
    pair.command(End::A, rekey).unwrap();
    pair.run_for(Duration::from_secs(10));
    pair.assert_up(1);
    assert_eq!(esp_path(&pair, End::B).remote.ip(), elsewhere);
    let remote_ts = pair
        .b
        .plane
        .outbound
        .values()
        .next()
        .unwrap()
        .info
        .remote_ts[0];
    assert_eq!((remote_ts.start, remote_ts.end), (elsewhere, elsewhere));
}
