//! What should be up comes up without an operator: what is done about a child at the start, when
//! the peer closes it, and when the peer is dead.

use std::time::Duration;

use obol_ike::config::{Child, StartAction, Upkeep};
use obol_ike::error::IkeFailure;
use obol_ike::event::{Command, Event};
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, pods};

const NONE: StartAction = StartAction::None;
const TRAP: StartAction = StartAction::Trap;
const START: StartAction = StartAction::Start;

fn terminate(child: Option<&str>) -> Command {
    Command::Terminate {
        connection: HOSTS.to_owned(),
        child: child.map(str::to_owned),
    }
}

fn acquire() -> Command {
    Command::Acquire {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
        flow: None,
        remote: None,
        local: None,
    }
}

fn with(start: StartAction, upkeep: Upkeep) -> Setup {
    let child = Child {
        upkeep,
        ..pods(start)
    };
    let mut setup = Setup::new(1).children(vec![child]);
    setup.connection.dpd_delay = Some(Duration::from_secs(30));
    setup
}

/// Up, by whatever means; what the other host does by itself is nothing.
fn brought_up(setup: &Setup) -> Pair {
    let mut pair = setup.clone().pair(1);
    pair.b
        .endpoint
        .reload(pair.now, std::sync::Arc::new(quiet(setup)));
    pair.start();
    pair.initiate(End::A, HOSTS);
    pair.run_for(Duration::from_secs(5));
    pair.assert_up(1);
    pair
}

/// The other host's configuration without any wishes of its own.
fn quiet(setup: &Setup) -> obol_ike::config::Config {
    let mut setup = setup.clone().children(vec![pods(NONE)]);
    setup.b_starts = NONE;
    let theirs = obol_ike::testing::setup::mirror(&setup.connection, NONE);
    obol_ike::config::Config {
        connections: vec![std::sync::Arc::new(theirs)],
        settings: setup.settings,
    }
}

fn is_up(pair: &Pair) -> bool {
    pair.a.plane.current.len() == 1
}

/// What is so without a packet, and after one.
fn settles(mut pair: Pair, setup: &Setup) -> StartAction {
    pair.run_for(Duration::from_secs(90));
    if is_up(&pair) {
        pair.assert_up(1);
        return START;
    }
    // What packets never may ask for, the data plane does not report.
    if !setup.connection.children[0].may_trap() {
        return NONE;
    }
    pair.command(End::A, acquire()).expect("known");
    pair.run_for(Duration::from_secs(5));
    if is_up(&pair) {
        pair.assert_up(1);
        return TRAP;
    }
    NONE
}

#[test]
fn the_close_action_says_what_follows_when_the_peer_closes() {
    for start in [NONE, TRAP, START] {
        for action in [None, Some(NONE), Some(TRAP), Some(START)] {
            for child in [None, Some(PODS)] {
                let upkeep = Upkeep {
                    close_action: action,
                    dpd_action: Some(NONE),
                    ..Upkeep::default()
                };
                let setup = with(start, upkeep);
                let mut pair = brought_up(&setup);
                pair.command(End::B, terminate(child)).expect("it is up");
                let found = settles(pair, &setup);
                assert_eq!(
                    found,
                    action.unwrap_or(start),
                    "{start:?} {action:?} {child:?}"
                );
            }
        }
    }
}

#[test]
fn the_dpd_action_says_what_follows_when_the_peer_is_dead() {
    for start in [NONE, TRAP, START] {
        for action in [None, Some(NONE), Some(TRAP), Some(START)] {
            let upkeep = Upkeep {
                close_action: Some(NONE),
                dpd_action: action,
                ..Upkeep::default()
            };
            let setup = with(start, upkeep);
            let mut pair = brought_up(&setup);
            // The other host starts anew and knows nothing.
            pair.net.partitioned = true;
            pair.run_for(Duration::from_secs(300));
            let dead = |e: &Event| {
                let Event::IkeDown { reason, .. } = e else {
                    return false;
                };
                matches!(reason, IkeFailure::NoAnswer { .. })
            };
            assert_eq!(pair.a.count(dead), 1);
            pair.net.partitioned = false;
            let found = settles(pair, &setup);
            assert_eq!(found, action.unwrap_or(start), "{start:?} {action:?}");
        }
    }
}

#[test]
fn what_an_operator_closed_stays_closed() {
    for child in [None, Some(PODS)] {
        let start = Some(START);
        let upkeep = Upkeep {
            close_action: start,
            dpd_action: start,
            ..Upkeep::default()
        };
        let mut pair = brought_up(&with(START, upkeep));
        pair.command(End::A, terminate(child)).expect("it is up");
        for _ in 0..100 {
            pair.run_for(Duration::from_secs(3));
            pair.command(End::A, acquire()).expect("known");
            assert!(!is_up(&pair));
        }
        let outlook = &pair.a.endpoint.outlook(pair.now)[0];
        assert_eq!((outlook.action, outlook.next_try_in), (NONE, None));
        // The peer may still bring it up, and that does not change what the operator said.
        pair.initiate(End::B, HOSTS);
        pair.run_for(Duration::from_secs(5));
        pair.assert_up(1);
        pair.command(End::B, terminate(None)).expect("it is up");
        pair.run_for(Duration::from_secs(90));
        assert!(!is_up(&pair));
        pair.initiate(End::A, HOSTS);
        pair.run_for(Duration::from_secs(5));
        pair.assert_up(1);
        pair.command(End::B, terminate(None)).expect("it is up");
        pair.run_for(Duration::from_secs(30));
        pair.assert_up(1);
    }
}

#[test]
fn what_an_operator_closed_goes_back_to_its_trap() {
    let setup = with(TRAP, Upkeep::default());
    let mut pair = brought_up(&setup);
    pair.command(End::A, terminate(Some(PODS)))
        .expect("it is up");
    assert_eq!(settles(pair, &setup), TRAP);
}

#[test]
fn the_next_try_and_the_failed_ones_are_told() {
    let setup = with(START, Upkeep::default());
    let mut pair = setup.pair(1);
    pair.net.partitioned = true;
    pair.start();
    pair.run_for(Duration::from_secs(1000));
    let outlook = pair.a.endpoint.outlook(pair.now)[0].clone();
    assert!(outlook.failures >= 5, "{outlook:?}");
    let mut waits = Vec::new();
    for _ in 0..400 {
        pair.run_for(Duration::from_secs(1));
        waits.extend(pair.a.endpoint.outlook(pair.now)[0].next_try_in);
    }
    let longest = waits.iter().max().expect("it waits at times");
    assert!((40..=60).contains(&longest.as_secs()), "{longest:?}");
    pair.net.partitioned = false;
    pair.run_for(Duration::from_secs(120));
    pair.assert_up(1);
    let outlook = &pair.a.endpoint.outlook(pair.now)[0];
    assert_eq!((outlook.failures, outlook.next_try_in), (0, None));
}

#[test]
fn what_nothing_uses_is_closed_and_the_next_packet_brings_it_up() {
    let upkeep = Upkeep {
        inactivity: Some(Duration::from_secs(600)),
        ..Upkeep::default()
    };
    for start in [NONE, TRAP, START] {
        let setup = with(start, upkeep);
        let mut pair = brought_up(&setup);
        pair.a.last_inbound = Some(Duration::ZERO);
        pair.a.last_use = Some(Duration::from_secs(100));
        pair.run_for(Duration::from_secs(1000));
        assert!(
            is_up(&pair),
            "it was used 100 seconds before it was looked at"
        );
        pair.a.last_use = None;
        pair.run_for(Duration::from_secs(600));
        assert!(!is_up(&pair), "{start:?}");
        assert_eq!(pair.a.count(|e| matches!(e, Event::ChildIdle { .. })), 1);
        pair.assert_up(0);
        assert_eq!(
            pair.a.endpoint.status(pair.now).len(),
            1,
            "the IKE SA stays"
        );
        let found = settles(pair, &setup);
        assert_eq!(found, if start == NONE { NONE } else { TRAP }, "{start:?}");
    }
}

/// Whichever end has less patience, and whoever began.
#[test]
fn either_end_closes_what_nothing_uses_and_no_ike_sa_stays_for_nothing() {
    let idle = Upkeep {
        inactivity: Some(Duration::from_secs(600)),
        ..Upkeep::default()
    };
    for end in [End::A, End::B] {
        let patient = Upkeep::default();
        let (ours, theirs) = match end {
            End::A => (idle, patient),
            End::B => (patient, idle),
        };
        let setup = with(TRAP, ours);
        let mut pair = setup.clone().pair(1);
        let mut config = quiet(&with(TRAP, theirs));
        let connection = std::sync::Arc::make_mut(&mut config.connections[0]);
        let child = std::sync::Arc::make_mut(&mut connection.children[0]);
        child.upkeep = theirs;
        pair.b
            .endpoint
            .reload(pair.now, std::sync::Arc::new(config));
        pair.start();
        pair.initiate(End::A, HOSTS);
        pair.run_for(Duration::from_secs(5));
        pair.assert_up(1);
        for used in [&mut pair.a, &mut pair.b] {
            used.last_use = Some(Duration::ZERO);
        }
        pair.run_for(Duration::from_secs(3000));
        pair.assert_up(1);
        for used in [&mut pair.a, &mut pair.b] {
            used.last_use = None;
        }
        pair.run_for(Duration::from_secs(1300));
        pair.assert_up(0);
        let idle = |e: &Event| matches!(e, Event::ChildIdle { .. });
        let told = [pair.a.count(idle), pair.b.count(idle)];
        assert_eq!(told, if end == End::A { [1, 0] } else { [0, 1] });
        let rekeys = |e: &Event| matches!(e, Event::IkeUp { rekey: true, .. });
        let before = [pair.a.count(rekeys), pair.b.count(rekeys)];
        pair.run_for(setup.connection.rekey_time + setup.connection.over_time);
        assert_eq!([pair.a.count(rekeys), pair.b.count(rekeys)], before);
        for host in [&pair.a, &pair.b] {
            assert!(host.endpoint.status(pair.now).is_empty(), "{end:?}");
        }
        pair.command(End::A, acquire()).expect("it may");
        pair.run_for(Duration::from_secs(5));
        pair.assert_up(1);
    }
}

fn trouble() -> Command {
    Command::PathTrouble {
        remote: obol_ike::testing::setup::B,
    }
}

//= test rfc4555 3.5-1 5.3-1
#[test]
fn signs_without_proof_hasten_a_probe_and_tear_nothing_down() {
    let mut setup = with(START, Upkeep::default());
    setup.connection.dpd_delay = None;
    let mut pair = brought_up(&setup);
    let before = pair.net.sent.len();
    let up = pair.a.plane.spi_out(HOSTS, PODS);
    for _ in 0..10_000 {
        pair.command(End::A, trouble()).expect("always");
        pair.run_for(Duration::from_millis(10));
    }
    let probes = (pair.net.sent.len() - before) / 2;
    println!("10000 forged errors in 100 s: {probes} probes, nothing torn down");
    assert!((9..=11).contains(&probes), "{probes} probes in 100 s");
    assert_eq!(pair.a.plane.spi_out(HOSTS, PODS), up);
    pair.assert_up(1);
}

#[test]
fn a_peer_that_forgot_us_is_met_anew_within_seconds() {
    let mut worst = Duration::ZERO;
    for seed in 0..50 {
        let setup = with(START, Upkeep::default());
        let mut pair = brought_up(&setup);
        // It starts anew, knows nothing, and does nothing by itself.
        let mut again = setup.clone();
        again.b_starts = TRAP;
        pair.b = again.pair(100 + seed).b;
        pair.net.loss = 100;
        let begun = pair.now;
        // Our packets of the old Child SA cause errors.
        while pair.b.plane.current.is_empty() {
            pair.command(End::A, trouble()).expect("always");
            pair.run_for(Duration::from_millis(100));
            assert!(pair.now - begun < Duration::from_secs(60), "seed {seed}");
        }
        worst = worst.max(pair.now - begun);
        pair.net.loss = 0;
        pair.run_for(Duration::from_secs(600));
        pair.assert_up(1);
    }
    println!(
        "F19: 50 reboots, back after {:.1} s at most",
        worst.as_secs_f64()
    );
    assert!(worst <= Duration::from_secs(10), "{worst:?}");
}

#[test]
fn a_doubt_that_comes_to_nothing_leaves_one_of_each() {
    for seed in 0..30 {
        let mut setup = with(START, Upkeep::default());
        setup.net = obol_ike::testing::net::Net::seeded(seed);
        let mut pair = brought_up(&setup);
        pair.command(End::A, trouble()).expect("always");
        pair.net.partitioned = true;
        pair.run_for(Duration::from_millis(2000 + 300 * seed));
        pair.net.partitioned = false;
        pair.run_for(Duration::from_secs(700));
        pair.run_until_idle();
        pair.assert_up(1);
        let dead = |e: &Event| matches!(e, Event::ChildDown { .. });
        assert!(pair.a.count(dead) <= 1, "seed {seed}: {:?}", pair.a.events);
    }
}

#[test]
fn a_peer_that_shows_itself_is_tried_at_once() {
    let other = obol_ike::testing::setup::child(
        "other",
        obol_ike::config::Mode::Tunnel,
        "10.1.0.0/16",
        "10.2.0.0/16",
        START,
    );
    let setup = Setup::new(3).children(vec![pods(START), other]);
    let mut pair = setup.pair(3);
    pair.net.partitioned = true;
    pair.start();
    let pausing = |pair: &Pair| {
        let outlook = pair.a.endpoint.outlook(pair.now);
        outlook
            .iter()
            .all(|o| o.next_try_in > Some(Duration::from_secs(20)))
    };
    while !pausing(&pair) {
        pair.run_for(Duration::from_secs(1));
    }
    pair.net.partitioned = false;
    let initiate = Command::Initiate {
        connection: HOSTS.to_owned(),
        child: Some(PODS.to_owned()),
        local: None,
    };
    pair.command(End::B, initiate).expect("known");
    pair.run_for(Duration::from_secs(1));
    pair.assert_up(2);
}

#[test]
fn children_come_up_in_the_order_of_the_configuration_and_a_refused_one_stops_none() {
    let net = |name: &str, n: u8| {
        let (local, remote) = (format!("10.1.{n}.0/24"), format!("10.2.{n}.0/24"));
        obol_ike::testing::setup::child(
            name,
            obol_ike::config::Mode::Tunnel,
            &local,
            &remote,
            START,
        )
    };
    let children = vec![net("zebra", 1), net("yak", 2), net("ant", 3), net("bee", 4)];
    let mut pair = Setup::new(1).children(children).pair(1);
    // The other host does not know one of them.
    let others = vec![net("zebra", 1), net("ant", 3), net("bee", 4)];
    pair.b = Setup::new(1).children(others).pair(1).b;
    pair.start();
    pair.run_for(Duration::from_secs(30));
    let up = pair.a.events.iter().filter_map(|event| match event {
        Event::ChildUp(info) => Some(info.child.as_str()),
        _ => None,
    });
    assert_eq!(up.collect::<Vec<_>>(), ["zebra", "ant", "bee"]);
    let outlook = pair.a.endpoint.outlook(pair.now);
    let waits: Vec<bool> = outlook.iter().map(|o| o.next_try_in.is_some()).collect();
    assert_eq!(waits, [false, true, false, false]);
    let refused = pair.a.count(|e| matches!(e, Event::ChildFailed { .. }));
    assert!((4..=6).contains(&refused), "{refused} tries in 30 s");
}
