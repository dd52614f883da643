//! Both ends begin at once, and end with one working set.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use obol_ike::config::{Mode, StartAction};
use obol_ike::event::{Command, Event};
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, child, pods};

fn rest(pair: &mut Pair) {
    pair.run_until_idle();
    pair.run_for(Duration::from_secs(90));
    pair.run_until_idle();
}

fn both_start(seed: u64) -> Setup {
    let mut setup = Setup::started(seed);
    setup.b_starts = StartAction::Start;
    setup
}

/// A second child between the same two hosts.
fn other(start: StartAction) -> obol_ike::config::Child {
    child("other", Mode::Tunnel, "10.1.0.0/16", "10.2.0.0/16", start)
}

#[test]
fn both_ends_starting_at_once_end_with_one_of_each() {
    for seed in 0..100 {
        let mut setup = both_start(seed);
        setup.net.delay = (Duration::from_millis(1), Duration::from_millis(100));
        let mut pair = setup.up(seed);
        rest(&mut pair);
        let result = catch_unwind(AssertUnwindSafe(|| pair.assert_up(1)));
        assert!(result.is_ok(), "seed {seed}");
        // It stays like that: no war.
        let datagrams = pair.net.sent.len();
        pair.run_for(Duration::from_secs(600));
        assert_eq!(pair.net.sent.len(), datagrams, "seed {seed}");
    }
}

#[test]
fn the_same_in_step() {
    for seed in 0..30 {
        let mut setup = both_start(seed);
        setup.net.delay = (Duration::from_millis(50), Duration::from_millis(50));
        let mut pair = setup.up(seed);
        rest(&mut pair);
        let result = catch_unwind(AssertUnwindSafe(|| pair.assert_up(1)));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn the_same_on_a_hostile_network() {
    for seed in 0..150 {
        let mut setup = both_start(seed).net(Net::seeded(seed).hostile(300, 200));
        setup.settings.retransmit_tries = 40;
        let mut pair = setup.up(seed);
        pair.run_for(Duration::from_secs(300));
        rest(&mut pair);
        let result = catch_unwind(AssertUnwindSafe(|| pair.assert_up(1)));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn each_end_starts_another_child() {
    for seed in 0..60 {
        let mut setup =
            Setup::started(seed).children(vec![pods(StartAction::None), other(StartAction::None)]);
        setup.net.delay = (Duration::from_millis(1), Duration::from_millis(100));
        let mut pair = setup.pair(seed);
        let initiate = |child: &str| Command::Initiate {
            connection: HOSTS.to_owned(),
            child: Some(child.to_owned()),
            local: None,
        };
        pair.command(End::A, initiate("pods")).expect("known");
        pair.command(End::B, initiate("other")).expect("known");
        rest(&mut pair);
        let result = catch_unwind(AssertUnwindSafe(|| pair.assert_up(2)));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn both_ends_starting_two_children_at_once_end_with_one_of_each() {
    for seed in 0..300 {
        let mut setup =
            both_start(seed).children(vec![pods(StartAction::Start), other(StartAction::Start)]);
        setup.net.delay = (Duration::from_millis(1), Duration::from_millis(100));
        let mut pair = setup.up(seed);
        rest(&mut pair);
        let result = catch_unwind(AssertUnwindSafe(|| pair.assert_up(2)));
        assert!(result.is_ok(), "seed {seed}");
    }
}

/// No end waits until the other one has something to say.
#[test]
fn the_same_is_so_soon_after_a_hostile_network_has_become_a_good_one() {
    for seed in 0..200 {
        let net = Net::seeded(seed).hostile(300, 200);
        let children = vec![pods(StartAction::Start), other(StartAction::Start)];
        let mut pair = both_start(seed).net(net).children(children).up(seed);
        pair.run_for(Duration::from_secs(1));
        pair.net.loss = 0;
        pair.run_for(Duration::from_secs(60));
        let result = catch_unwind(AssertUnwindSafe(|| pair.assert_up(2)));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn the_same_child_asked_for_at_both_ends_of_one_ike_sa() {
    for seed in 0..60 {
        let setup =
            Setup::started(seed).children(vec![pods(StartAction::Start), other(StartAction::None)]);
        let mut pair = setup.up(seed);
        pair.net.delay = (Duration::from_millis(1), Duration::from_millis(100));
        for end in [End::A, End::B] {
            let acquire = Command::Acquire {
                connection: HOSTS.to_owned(),
                child: "other".to_owned(),
                flow: None,
                remote: None,
                local: None,
            };
            pair.command(end, acquire).expect("known");
        }
        rest(&mut pair);
        let result = catch_unwind(AssertUnwindSafe(|| pair.assert_up(2)));
        assert!(result.is_ok(), "seed {seed}");
    }
}

//= test rfc7296 2.4-4
//= test security S-9
#[test]
fn a_restarted_peer_replaces_what_it_forgot() {
    let mut pair = both_start(1).up(1);
    rest(&mut pair);
    pair.b = both_start(1).pair(99).b;
    pair.net.clear();
    pair.start();
    rest(&mut pair);
    pair.assert_up(1);
    let replaced = |e: &Event| {
        let reason = obol_ike::error::IkeFailure::Replaced;
        matches!(e, Event::IkeDown { reason: r, .. } if *r == reason)
    };
    assert!(pair.a.count(replaced) >= 1, "INITIAL_CONTACT");
}

/// As with files of pluto's, where INITIAL_CONTACT is off, and with a data plane that says nothing of
/// unknown SPIs, as the kernel's.
#[test]
fn a_restarted_peer_that_does_not_say_so_gets_packets_that_it_can_open() {
    for seed in 0..20 {
        let children = vec![pods(StartAction::None), other(StartAction::None)];
        let mut setup = both_start(seed).children(children);
        setup.connection.initial_contact = false;
        let mut pair = setup.up(seed);
        pair.restart(End::B);
        pair.run_for(Duration::from_secs(30));
        for child in [PODS, "other"] {
            let spi = pair.a.plane.spi_out(HOSTS, child).expect("it is up");
            let mut known = pair.b.plane.inbound.values();
            assert!(
                known.any(|sa| sa.info.spi_in == spi),
                "{child}, seed {seed}"
            );
        }
    }
}
