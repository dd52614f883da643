//! MOBIKE, RFC 4555: hosts that change their addresses, in both roles.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{Config, Connection, Mobike, Path, StartAction};
use obol_ike::error::Dropped;
use obol_ike::event::{Command, Event};
use obol_ike::testing::net::{Net, Packet};
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::scripted::{Reply, Scripted};
use obol_ike::testing::setup::{A, B, HOSTS, ID_A, PODS, Setup, connection, mirror, pods};
use obol_ike::wire::{ExchangeType, Notify, NotifyType, Payload};

const fn ip(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const A2: IpAddr = ip(192, 168, 7, 1);
const A3: IpAddr = ip(192, 168, 8, 1);
const B2: IpAddr = ip(192, 168, 9, 2);
const OUTSIDE: IpAddr = ip(203, 0, 113, 7);

/// Hosts that may be anywhere. The first one has to know where the second may be, to begin there.
fn mobile(seed: u64, mobike: Mobike) -> Setup {
    let mut setup = Setup::started(seed);
    setup.connection.local_addrs.clear();
    setup.connection.source = Some(A);
    setup.connection.remote_addrs = vec![B, B2];
    setup.connection.mobike = mobike;
    setup
}

fn up(setup: Setup, seed: u64) -> Pair {
    let mut pair = setup.pair(seed);
    pair.readdress(End::A, &[A]);
    pair.readdress(End::B, &[B]);
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
    pair
}

fn sa_path(pair: &Pair, end: End) -> Path {
    let node = if end == End::A { &pair.a } else { &pair.b };
    node.endpoint.status(pair.now)[0].path
}

fn esp(pair: &Pair, end: End) -> (Path, bool) {
    let node = if end == End::A { &pair.a } else { &pair.b };
    let id = *node.plane.current.values().next().unwrap();
    let (out, into) = (
        &node.plane.outbound[&id].info,
        &node.plane.inbound[&id].info,
    );
    assert_eq!((out.path, out.encap), (into.path, into.encap));
    (out.path, out.encap)
}

/// Both ends have IKE and ESP between these two addresses.
fn assert_between(pair: &Pair, a: IpAddr, b: IpAddr) {
    for (end, local, remote) in [(End::A, a, b), (End::B, b, a)] {
        for path in [sa_path(pair, end), esp(pair, end).0] {
            assert_eq!(
                (path.local.ip(), path.remote.ip()),
                (local, remote),
                "{end:?}"
            );
        }
    }
}

fn moves(pair: &Pair, end: End) -> usize {
    let node = if end == End::A { &pair.a } else { &pair.b };
    node.count(|event| matches!(event, Event::Moved { .. }))
}

fn rekey_ike() -> Command {
    Command::RekeyIke {
        connection: HOSTS.to_owned(),
    }
}

fn rekey_child() -> Command {
    Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    }
}

/// Sends a packet each way every millisecond for a while; how many were lost to each end.
fn flow(pair: &mut Pair, time: Duration) -> (usize, usize) {
    let before = (pair.a.plane.opened_packets(), pair.b.plane.opened_packets());
    let count = time.as_millis() as usize;
    for _ in 0..count {
        assert!(pair.send_esp(End::A) && pair.send_esp(End::B));
        pair.run_for(Duration::from_millis(1));
    }
    pair.run_for(Duration::from_millis(100));
    let to_a = pair.a.plane.opened_packets() - before.0;
    let to_b = pair.b.plane.opened_packets() - before.1;
    (count - to_a, count - to_b)
}

//= test rfc4555 3.2-1 3.3-1
#[test]
fn mobike_is_offered_and_runs_on_port_4500_without_encapsulation() {
    let pair = up(mobile(1, Mobike::default()), 1);
    for (end, node) in [(End::A, &pair.a), (End::B, &pair.b)] {
        let status = &node.endpoint.status(pair.now)[0];
        assert!(status.mobike);
        assert_eq!(
            (status.path.local.port(), status.path.remote.port()),
            (4500, 4500)
        );
        assert!(!esp(&pair, end).1, "no NAT, no UDP");
    }
    let off = Mobike {
        enabled: false,
        ..Mobike::default()
    };
    for (a, b) in [
        (off, Mobike::default()),
        (Mobike::default(), off),
        (off, off),
    ] {
        let mut pair = mobile(2, a).pair(2);
        let theirs = Connection {
            mobike: b,
            ..mirror(&mobile(2, a).connection, StartAction::None)
        };
        let now = pair.now;
        let config = Config {
            connections: vec![Arc::new(theirs)],
            ..Config::default()
        };
        pair.b.endpoint.reload(now, Arc::new(config));
        pair.start();
        pair.run_until_idle();
        pair.assert_up(1);
        for node in [&pair.a, &pair.b] {
            assert!(!node.endpoint.status(pair.now)[0].mobike);
        }
    }
}

/// F20: the network needs 10 ms one way, so 20 packets are a round trip.
#[test]
fn the_initiator_moves() {
    for (check_first, most) in [(true, 45), (false, 25)] {
        let mobike = Mobike {
            enabled: true,
            check_first,
        };
        let mut pair = up(mobile(3, mobike), 3);
        pair.net.delay = (Duration::from_millis(10), Duration::from_millis(10));
        assert_eq!(flow(&mut pair, Duration::from_millis(100)), (0, 0));
        pair.readdress(End::A, &[A2]);
        let lost = flow(&mut pair, Duration::from_millis(500));
        println!(
            "own address changed, round trip 20 packets, check_first {check_first}: lost {} to the \
             mover, {} from it",
            lost.0, lost.1
        );
        assert_between(&pair, A2, B);
        assert!(lost.0 <= most && lost.1 == 0, "{lost:?}");
        assert_eq!((moves(&pair, End::A), moves(&pair, End::B)), (1, 1));
        pair.run_until_idle();
        pair.assert_up(1);
    }
}

//= test rfc4555 3.4-1
#[test]
fn the_responder_moves() {
    let mut pair = up(mobile(4, Mobike::default()), 4);
    pair.readdress(End::B, &[B2]);
    let lost = flow(&mut pair, Duration::from_millis(500));
    println!(
        "the responder's address changed: lost {} to the initiator, {} from it",
        lost.0, lost.1
    );
    assert_between(&pair, A, B2);
    assert!(lost.0 == 0 && lost.1 <= 65, "{lost:?}");
    pair.run_until_idle();
    pair.assert_up(1);
}

#[test]
fn after_rekeys_from_both_ends_the_first_initiator_still_decides() {
    let mut pair = up(mobile(5, Mobike::default()), 5);
    pair.command(End::B, rekey_ike()).unwrap();
    pair.run_until_idle();
    assert!(pair.b.endpoint.status(pair.now)[0].initiator);
    pair.readdress(End::A, &[A2]);
    pair.run_until_idle();
    assert_between(&pair, A2, B);
    pair.command(End::A, rekey_ike()).unwrap();
    pair.readdress(End::A, &[A3]);
    pair.run_until_idle();
    assert_between(&pair, A3, B);
    pair.assert_up(1);
}

//= test rfc4555 3.4-1
#[test]
fn a_dead_path_is_left_for_one_that_answers() {
    let mut setup = mobile(6, Mobike::default());
    setup.connection.dpd_delay = Some(Duration::from_secs(30));
    let mut pair = setup.pair(6);
    pair.readdress(End::A, &[A, A2]);
    pair.readdress(End::B, &[B, B2]);
    pair.start();
    pair.run_until_idle();
    assert_between(&pair, A, B);
    for dead in [vec![A], vec![A2, B], vec![A, B2]] {
        pair.net.dead = dead.clone();
        let began = pair.now;
        pair.command(End::A, rekey_child()).unwrap();
        pair.run_until_idle();
        println!("dead {dead:?}: elsewhere after {:?}", pair.now - began);
        let path = esp(&pair, End::A).0;
        assert!(!dead.contains(&path.local.ip()) && !dead.contains(&path.remote.ip()));
        assert_between(&pair, path.local.ip(), path.remote.ip());
        pair.assert_up(1);
    }
    // Without an open request, the sign of life finds it out.
    pair.net.dead = vec![esp(&pair, End::A).0.local.ip()];
    pair.run_for(Duration::from_secs(60));
    let path = esp(&pair, End::A).0;
    assert!(!pair.net.dead.contains(&path.local.ip()));
    pair.assert_up(1);
}

#[test]
fn a_nat_that_comes_and_goes_turns_encapsulation_on_and_off() {
    let mut pair = up(mobile(7, Mobike::default()), 7);
    for (address, nat) in [(A2, true), (A3, false), (A2, true)] {
        pair.net.nat = Some((A2, OUTSIDE));
        pair.readdress(End::A, &[address]);
        pair.run_until_idle();
        assert_eq!((esp(&pair, End::A).1, esp(&pair, End::B).1), (nat, nat));
        let seen = if nat { OUTSIDE } else { address };
        assert_eq!(esp(&pair, End::B).0.remote.ip(), seen);
        assert_eq!(sa_path(&pair, End::B).remote.ip(), seen);
        assert_eq!(flow(&mut pair, Duration::from_millis(50)), (0, 0));
        let before = pair.a.keepalives;
        pair.run_for(Duration::from_secs(61));
        let kept = pair.a.keepalives - before;
        assert_eq!(kept, if nat { 3 } else { 0 });
        pair.assert_up(1);
    }
}

//= test rfc4555 3.12-1
/// F20, with MOBIKE: ESP is followed at once, and the IKE SA when the initiator hears how it is
/// seen.
#[test]
fn a_flow_survives_a_nat_that_forgets_every_five_seconds() {
    let mut setup = mobile(8, Mobike::default());
    setup.connection.dpd_delay = Some(Duration::from_secs(30));
    let mut pair = setup.pair(8);
    pair.net.nat = Some((A, OUTSIDE));
    pair.readdress(End::A, &[A]);
    pair.readdress(End::B, &[B]);
    pair.start();
    pair.run_until_idle();
    let mut lost = (0, 0);
    for _ in 0..60 {
        pair.net.rebind();
        // One packet from inside is what opens the way back.
        assert!(pair.send_esp(End::A));
        pair.run_for(Duration::from_millis(20));
        let now = flow(&mut pair, Duration::from_millis(200));
        lost = (lost.0 + now.0, lost.1 + now.1);
        pair.run_for(Duration::from_millis(4600));
        assert_eq!(
            sa_path(&pair, End::B),
            esp(&pair, End::B).0,
            "IKE went along"
        );
    }
    println!("MOBIKE, NAT rebinding every 5 s for 300 s: lost {lost:?} of 12000 each way");
    assert_eq!(lost, (0, 0));
    pair.assert_up(1);
}

//= test rfc4555 3.12-1
/// Behind a NAT that forgets, the responder's requests are on the way to where nobody is: its own
/// ones, and the question whether the peer receives elsewhere. All go after ESP.
#[test]
fn requests_go_after_a_peer_whose_nat_forgets_while_they_are_on_the_way() {
    for (seed, request) in [
        (11, Some(rekey_child())),
        (12, Some(rekey_ike())),
        (13, None),
    ] {
        let mut pair = mobile(seed, Mobike::default()).pair(seed);
        pair.net.nat = Some((A, OUTSIDE));
        pair.readdress(End::A, &[A]);
        pair.readdress(End::B, &[B]);
        pair.start();
        pair.run_until_idle();
        let before = sa_path(&pair, End::B);
        if let Some(request) = request {
            pair.command(End::B, request).unwrap();
        } else {
            pair.net.rebind();
            assert!(pair.send_esp(End::A));
            // Enough for ESP to get there, and not for the question to get back.
            pair.run_for(Duration::from_millis(12));
            assert_ne!(esp(&pair, End::B).0, before);
        }
        pair.net.rebind();
        pair.net.clear();
        assert!(pair.send_esp(End::A));
        pair.run_for(Duration::from_millis(200));
        let after = sa_path(&pair, End::B);
        assert_ne!(before, after, "seed {seed}");
        assert_eq!(esp(&pair, End::B).0, after, "seed {seed}");
        pair.run_for(Duration::from_secs(60));
        pair.assert_up(1);
    }
}

//= test rfc4555 3.8-1 3.8-2 3.8-3
/// Without ESP, the initiator's sign of life tells it that the NAT has changed.
#[test]
fn an_idle_initiator_notices_that_its_nat_has_changed() {
    let mut setup = mobile(9, Mobike::default());
    setup.connection.dpd_delay = Some(Duration::from_secs(30));
    let mut pair = setup.pair(9);
    pair.net.nat = Some((A, OUTSIDE));
    pair.start();
    pair.run_for(Duration::from_secs(120));
    let before = sa_path(&pair, End::B);
    pair.net.rebind();
    pair.run_for(Duration::from_secs(70));
    let after = sa_path(&pair, End::B);
    assert_ne!(before, after);
    assert_eq!(esp(&pair, End::B).0, after);
    pair.assert_up(1);
}

//= test rfc4555 3.8-4
//= test security S-23
/// S23: nothing that is not new and authenticated moves anything, and with MOBIKE not even that,
/// if it is no update.
#[test]
fn replays_and_other_messages_from_a_wrong_address_move_nothing() {
    let mut pair = up(mobile(10, Mobike::default()), 10);
    pair.readdress(End::A, &[A2]);
    pair.run_until_idle();
    assert_eq!(flow(&mut pair, Duration::from_millis(5)), (0, 0));
    let counts = (moves(&pair, End::A), moves(&pair, End::B));
    for packet in pair.net.sent.clone() {
        let now = pair.now;
        let from = "198.51.100.66:4500".parse().unwrap();
        pair.net.inject(now, Packet { from, ..packet });
        pair.run_for(Duration::from_millis(1));
    }
    // A new request, as it was sent, but brought from elsewhere.
    pair.net.partitioned = true;
    pair.command(End::A, rekey_child()).unwrap();
    pair.net.partitioned = false;
    let packet = pair.net.sent.last().unwrap().clone();
    let from = "198.51.100.66:4500".parse().unwrap();
    let now = pair.now;
    pair.net.inject(now, Packet { from, ..packet });
    pair.run_until_idle();
    assert_between(&pair, A2, B);
    assert_eq!((moves(&pair, End::A), moves(&pair, End::B)), counts);
    pair.assert_up(1);
}

/// Longer than any pause between two repetitions, or two tries.
const SETTLED: Duration = Duration::from_secs(400);

/// Moves of both ends crossing with rekeys of both ends, on a network that loses a third.
#[test]
fn moves_and_rekeys_cross_under_loss() {
    for seed in 0..300 {
        let mut setup = mobile(seed, Mobike::default());
        setup.settings.retransmit_tries = 20;
        let mut pair = up(setup, seed);
        pair.net = Net::seeded(seed).hostile(300, 100);
        let (mut a, mut b) = (A, B);
        for step in 0..6 {
            match (seed / 2 + step * 5) % 7 {
                0 => pair.command(End::A, rekey_ike()).unwrap_or(()),
                1 => pair.command(End::B, rekey_ike()).unwrap_or(()),
                2 => pair.command(End::A, rekey_child()).unwrap_or(()),
                3 => pair.command(End::B, rekey_child()).unwrap_or(()),
                4 => {
                    b = if b == B { B2 } else { B };
                    // Of two that move at once, neither can find the other.
                    pair.run_for(SETTLED);
                    pair.readdress(End::B, &[b]);
                    pair.run_for(SETTLED);
                }
                _ => {
                    a = [A, A2, A3][(seed + step) as usize % 3];
                    pair.readdress(End::A, &[a]);
                }
            }
            pair.run_for(Duration::from_millis(seed * 7 % 200));
        }
        pair.run_for(SETTLED);
        pair.run_until_idle();
        pair.assert_up(1);
        assert_between(&pair, a, b);
    }
    println!("300 runs at 30 % loss with crossing moves and rekeys: all agree");
}

fn path(a: IpAddr, port: u16) -> Path {
    Path {
        local: (B, port).into(),
        remote: (a, port).into(),
    }
}

fn bare(ty: NotifyType) -> Payload<'static> {
    Payload::Notify(Notify::bare(ty))
}

fn no_nats(source: [u8; 4]) -> Payload<'static> {
    let IpAddr::V4(own) = B else {
        unreachable!("it is one");
    };
    let data = [
        &source[..],
        &own.octets(),
        &4500_u16.to_be_bytes(),
        &4500_u16.to_be_bytes(),
    ];
    Payload::Notify(Notify::with_data(
        NotifyType::NO_NATS_ALLOWED,
        data.concat(),
    ))
}

/// A peer that speaks MOBIKE, and does no NAT traversal.
fn scripted(mobike: Mobike, remote: Vec<IpAddr>) -> Scripted {
    let ours = Connection {
        mobike,
        remote_addrs: remote,
        ..mirror(
            &connection(vec![pods(StartAction::None)]),
            StartAction::None,
        )
    };
    let config = Config {
        connections: vec![Arc::new(ours)],
        ..Config::default()
    };
    let mut peer = Scripted::begun_with(config);
    let reply = peer.prove(ID_A, |payloads| {
        payloads.push(bare(NotifyType::MOBIKE_SUPPORTED))
    });
    let reply = reply.unwrap();
    assert_eq!(reply.error(), None);
    assert!(
        reply
            .notifies
            .iter()
            .any(|(ty, _)| *ty == NotifyType::MOBIKE_SUPPORTED)
    );
    peer
}

fn update(peer: &mut Scripted, from: IpAddr, more: &[Payload<'static>]) -> Result<Reply, Dropped> {
    peer.path = path(from, 4500);
    let payloads = [&[bare(NotifyType::UPDATE_SA_ADDRESSES)], more].concat();
    peer.request(ExchangeType::INFORMATIONAL, &payloads)
}

fn cookie2(asked: &Reply) -> Vec<u8> {
    let mut all = asked.notifies.iter();
    let found = all.find(|(ty, _)| *ty == NotifyType::COOKIE2);
    found.unwrap().1.clone()
}

fn esp_remote(peer: &Scripted) -> IpAddr {
    let outbound = peer.pair.b.plane.outbound.values().next().unwrap();
    outbound.info.path.remote.ip()
}

fn with_cookie(data: Vec<u8>) -> Payload<'static> {
    Payload::Notify(Notify::with_data(NotifyType::COOKIE2, data))
}

//= test rfc4555 3.7-1 3.7-2 3.7-3
//= test security S-47
#[test]
fn esp_goes_to_a_new_address_only_when_the_peer_receives_there() {
    let mut peer = scripted(Mobike::default(), Vec::new());
    let reply = update(&mut peer, A2, &[with_cookie(vec![7; 8])]).unwrap();
    assert_eq!(cookie2(&reply), vec![7; 8]);
    let (to, asked) = peer.last_asked();
    assert_eq!(to.ip(), A2);
    assert_eq!(esp_remote(&peer), A);
    let cookie = cookie2(&asked);
    assert!(cookie.len() >= 8);
    peer.answer_last(&[with_cookie(cookie)]).unwrap();
    assert_eq!(esp_remote(&peer), A2);
    assert_eq!(peer.up(), (1, 1));
}

//= test rfc4555 3.7-4 3.7-5
//= test security S-47
#[test]
fn a_wrong_or_missing_cookie2_closes_the_ike_sa() {
    for wrong in [Some(vec![0; 16]), None] {
        let mut peer = scripted(Mobike::default(), Vec::new());
        update(&mut peer, A2, &[]).unwrap();
        peer.answer_last(&wrong.into_iter().map(with_cookie).collect::<Vec<_>>())
            .unwrap();
        assert_eq!(esp_remote(&peer), A, "nothing has moved");
        let status = peer.pair.b.endpoint.status(peer.pair.now);
        assert_eq!(status[0].state, "deleting");
    }
}

//= test rfc4555 3.6-1 4.2.5-2
#[test]
fn an_answer_about_an_older_address_moves_nothing() {
    let mut peer = scripted(Mobike::default(), Vec::new());
    update(&mut peer, A2, &[]).unwrap();
    let first = cookie2(&peer.last_asked().1);
    // The open check is repeated to the new address, so its answer says nothing.
    update(&mut peer, A3, &[]).unwrap();
    peer.answer_last(&[with_cookie(first.clone())]).unwrap();
    assert_eq!(esp_remote(&peer), A);
    let (to, asked) = peer.last_asked();
    assert_eq!(to.ip(), A3);
    assert_ne!(cookie2(&asked), first);
    peer.answer_last(&[with_cookie(cookie2(&asked))]).unwrap();
    assert_eq!(esp_remote(&peer), A3);
}

#[test]
fn addresses_that_the_connection_does_not_name_are_refused() {
    let mut peer = scripted(Mobike::default(), vec![A, A3]);
    let reply = update(&mut peer, A2, &[with_cookie(vec![1; 64])]).unwrap();
    assert_eq!(reply.error(), Some(NotifyType::UNACCEPTABLE_ADDRESSES));
    assert_eq!(cookie2(&reply), vec![1; 64]);
    assert_eq!(esp_remote(&peer), A);
    assert_eq!(
        peer.pair.b.endpoint.status(peer.pair.now)[0]
            .path
            .remote
            .ip(),
        A
    );
    let reply = update(&mut peer, A3, &[]).unwrap();
    assert_eq!(reply.error(), None);
}

//= test rfc4555 3.9-2 3.9-5
//= test rfc7296 2.21.2-4
#[test]
fn whoever_allows_no_nat_is_told_of_one() {
    let mut peer = scripted(Mobike::default(), Vec::new());
    let reply = update(&mut peer, A2, &[no_nats([192, 168, 7, 99])]).unwrap();
    assert_eq!(reply.error(), Some(NotifyType::UNEXPECTED_NAT_DETECTED));
    assert_eq!(
        peer.pair.b.endpoint.status(peer.pair.now)[0]
            .path
            .remote
            .ip(),
        A
    );
    let reply = update(&mut peer, A2, &[no_nats([192, 168, 7, 1])]).unwrap();
    assert_eq!(reply.error(), None);
    assert_eq!(
        peer.pair.b.endpoint.status(peer.pair.now)[0]
            .path
            .remote
            .ip(),
        A2
    );

    let mut setup = Setup::new(3);
    setup.connection.mobike = Mobike::default();
    let mut peer = Scripted::begun(setup);
    let reply = peer.prove(ID_A, |payloads| payloads.push(no_nats([10, 0, 0, 1])));
    let error = reply.unwrap().error();
    assert_eq!(error, Some(NotifyType::UNEXPECTED_NAT_DETECTED));
    assert_eq!(peer.up().1, 0);
}
