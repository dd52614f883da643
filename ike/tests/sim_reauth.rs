//! Identities are proven anew by a new IKE SA, made before the old one goes.

use std::time::Duration;

use obol_ike::config::{Mode, StartAction};
use obol_ike::error::IkeFailure;
use obol_ike::event::{Command, Event, IkeSpi};
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, child, pods};
use obol_ike::testing::traffic::Traffic;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

const SECOND: Duration = Duration::from_secs(1);

fn reauth() -> Command {
    Command::Reauthenticate {
        connection: HOSTS.to_owned(),
    }
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

fn spi(pair: &Pair) -> IkeSpi {
    pair.a.endpoint.status(pair.now)[0].spi_i
}

fn ups(pair: &Pair) -> usize {
    let fresh = |e: &Event| matches!(e, Event::IkeUp { rekey: false, .. });
    pair.a.count(fresh)
}

#[test]
fn a_new_proof_comes_in_time_and_costs_no_packet() {
    let mut setup = Setup::started(1);
    setup.connection.peer.reauth_time = Some(100 * SECOND);
    let mut pair = setup.up(1);
    let mut traffic = Traffic::of(HOSTS, PODS);
    let mut last = spi(&pair);
    for round in 1..=3 {
        // Between 90 and 100 seconds after the last one, and 10 more for the old one to go.
        traffic.run(&mut pair, 115 * SECOND);
        pair.assert_up(1);
        assert_ne!(spi(&pair), last, "round {round}");
        last = spi(&pair);
    }
    assert!(traffic.is_whole(), "{traffic:?}");
    assert_eq!(ups(&pair), 4, "one at first, and three more");
    println!("{} packets, 3 new proofs, 0 lost", traffic.sent);
}

#[test]
fn the_responder_says_how_long_and_the_initiator_obeys() {
    let mut pair = Setup::started(1).pair(1);
    let mut asking = Setup::started(1);
    asking.connection.peer.reauth_time = Some(100 * SECOND);
    pair.b = asking.pair(1).b;
    pair.start();
    pair.run_until_idle();
    let first = spi(&pair);
    let due = pair.a.endpoint.status(pair.now)[0].reauth_in;
    assert!(due.is_some_and(|due| due <= 100 * SECOND), "{due:?}");
    pair.run_for(115 * SECOND);
    pair.assert_up(1);
    assert_ne!(spi(&pair), first);
    assert!(pair.a.endpoint.status(pair.now)[0].initiator);
}

#[test]
fn all_children_move() {
    let other = child(
        "other",
        Mode::Tunnel,
        "10.1.0.0/16",
        "10.2.0.0/16",
        StartAction::Start,
    );
    for end in [End::A, End::B] {
        let children = vec![pods(StartAction::Start), other.clone()];
        let mut pair = Setup::started(1).children(children).up(1);
        pair.assert_up(2);
        let mut traffic = Traffic::of(HOSTS, "other");
        pair.command(end, reauth()).expect("it is up");
        traffic.run(&mut pair, 20 * SECOND);
        assert!(traffic.is_whole(), "{traffic:?}");
        pair.run_until_idle();
        pair.assert_up(2);
        assert_eq!(ups(&pair), 2);
    }
}

/// Runs `a` at the first host and `b` at the second within a few round trips.
fn crossing(seed: u64, net: Net, a: &Command, b: Option<&Command>) -> (Pair, Traffic) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut setup = Setup::started(seed);
    setup.settings.retransmit_tries = 30;
    setup.b_starts = if seed.is_multiple_of(2) {
        StartAction::None
    } else {
        StartAction::Start
    };
    let mut pair = setup.up(seed);
    pair.run_for(30 * SECOND);
    pair.assert_up(1);
    pair.net = net;
    let mut traffic = Traffic::of(HOSTS, PODS);
    let mut pause = || Duration::from_millis(u64::from(rng.next_u32() % 80));
    traffic.run(&mut pair, pause());
    pair.command(End::A, a.clone()).expect("it is up");
    traffic.run(&mut pair, pause());
    if let Some(b) = b {
        // Perhaps nothing is left there that could be rekeyed.
        let _ = pair.command(End::B, b.clone());
    }
    (pair, traffic)
}

#[test]
fn whatever_it_crosses_with_one_of_each_is_left_and_no_packet_is_lost() {
    let mut packets = 0;
    for seed in 0..8 {
        for b in [None, Some(reauth()), Some(rekey_ike()), Some(rekey_child())] {
            let net = || {
                let mut net = Net::seeded(seed);
                // No message is faster than the packets, so that none overtakes them.
                net.delay = (Duration::from_millis(10), Duration::from_millis(40));
                net
            };
            let (mut pair, mut traffic) = crossing(seed, net(), &reauth(), b.as_ref());
            traffic.run(&mut pair, 14 * SECOND);
            pair.run_for(60 * SECOND);
            pair.run_until_idle();
            pair.assert_up(1);
            assert!(traffic.is_whole(), "seed {seed}, {b:?}: {traffic:?}");
            packets += traffic.sent;
        }
    }
    println!("{packets} packets, 0 lost");
}

#[test]
fn the_same_on_a_hostile_network_ends_with_one_of_each() {
    for seed in 0..20 {
        for b in [None, Some(reauth()), Some(rekey_ike()), Some(rekey_child())] {
            let net = Net::seeded(seed).hostile(300, 200);
            let (mut pair, _) = crossing(seed, net, &reauth(), b.as_ref());
            pair.run_for(300 * SECOND);
            (pair.net.loss, pair.net.duplicated) = (0, 0);
            pair.run_for(200 * SECOND);
            pair.run_until_idle();
            pair.assert_up(1);
        }
    }
}

#[test]
fn without_a_new_proof_the_old_one_serves_until_its_time_is_over() {
    let mut setup = Setup::started(1);
    setup.connection.peer.reauth_time = Some(1000 * SECOND);
    setup.connection.rekey_time = 100_000 * SECOND;
    setup.connection.over_time = 100_500 * SECOND;
    let mut pair = setup.up(1);
    pair.b.secrets.clear();
    pair.run_for(1400 * SECOND);
    assert_eq!(pair.a.plane.current.len(), 1);
    let refused = |e: &Event| {
        let reason = |r: &IkeFailure| matches!(r, IkeFailure::WeAreNotProven { .. });
        matches!(e, Event::IkeFailed { reason: r, .. } if reason(r))
    };
    let tries = pair.a.count(refused);
    assert!((4..=9).contains(&tries), "{tries} tries in 400 to 500 s");
    pair.run_for(200 * SECOND);
    let expired = |e: &Event| {
        let reason = IkeFailure::Expired;
        matches!(e, Event::IkeDown { reason: r, .. } if *r == reason)
    };
    assert_eq!(pair.a.count(expired), 1);
    assert!(pair.a.plane.inbound.is_empty());
}
