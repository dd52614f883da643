//! Deletes, signs of life, restarts, commands, a new configuration, a shutdown.

use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{Config, DpdRetry, Mode, Settings, StartAction};
use obol_ike::error::{CommandError, IkeFailure};
use obol_ike::event::{Command, Event};
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, child, pods};

fn terminate(child: Option<&str>) -> Command {
    Command::Terminate {
        connection: HOSTS.to_owned(),
        child: child.map(str::to_owned),
    }
}

fn downs(node: &Node) -> Vec<&IkeFailure> {
    node.events
        .iter()
        .filter_map(|event| match event {
            Event::IkeDown { reason, .. } => Some(reason),
            _ => None,
        })
        .collect()
}

//= test rfc7296 1.4-2
#[test]
fn a_terminated_connection_stays_down_until_it_is_asked_for() {
    let mut pair = Setup::started(1).up(1);
    pair.command(End::A, terminate(None)).expect("it is up");
    pair.run_until_idle();
    pair.run_for(Duration::from_secs(300));
    pair.assert_down();
    assert_eq!(downs(&pair.a), [&IkeFailure::Closed]);
    assert_eq!(downs(&pair.b), [&IkeFailure::PeerDeleted]);
    assert_eq!(
        pair.command(End::A, terminate(None)),
        Err(CommandError::NotUp(HOSTS.to_owned()))
    );
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    pair.assert_up(1);
}

//= test rfc7296 1.4.1-1 2.4-8
#[test]
fn a_terminated_child_goes_alone() {
    for end in [End::A, End::B] {
        let mut pair = Setup::new(1).pair(1);
        pair.initiate(End::A, HOSTS);
        pair.run_until_idle();
        pair.command(end, terminate(Some(PODS))).expect("it is up");
        pair.run_until_idle();
        pair.assert_up(0);
        assert_eq!(pair.a.endpoint.status(pair.now).len(), 1);
        assert_eq!(pair.a.plane.removed.len(), 1);
        assert_eq!(pair.b.plane.removed.len(), 1);
    }
}

//= test rfc7296 1.4.1-4
//= test security S-38
#[test]
fn deletes_that_cross_leave_nothing() {
    let mut pair = Setup::new(1).pair(1);
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    for end in [End::A, End::B] {
        pair.command(end, terminate(Some(PODS))).expect("it is up");
    }
    pair.run_until_idle();
    pair.assert_up(0);
    for end in [End::A, End::B] {
        pair.command(end, terminate(None)).expect("it is up");
    }
    pair.run_until_idle();
    pair.assert_down();
}

#[test]
fn what_starts_by_itself_comes_again_after_a_delete_of_the_peer() {
    let mut pair = Setup::started(1).up(1);
    pair.command(End::B, terminate(None)).expect("it is up");
    pair.run_for(Duration::from_secs(30));
    pair.run_until_idle();
    pair.assert_up(1);
    assert_eq!(pair.a.count(|e| matches!(e, Event::IkeUp { .. })), 2);
}

#[test]
fn unknown_names_are_the_callers_fault() {
    let mut pair = Setup::new(1).pair(1);
    let initiate = |connection: &str, child: Option<&str>| Command::Initiate {
        connection: connection.to_owned(),
        child: child.map(str::to_owned),
        local: None,
    };
    assert_eq!(
        pair.command(End::A, initiate("nobody", None)),
        Err(CommandError::UnknownConnection("nobody".to_owned()))
    );
    assert!(matches!(
        pair.command(End::A, initiate(HOSTS, Some("nothing"))),
        Err(CommandError::UnknownChild { .. })
    ));
    let rekey = Command::RekeyIke {
        connection: HOSTS.to_owned(),
    };
    assert_eq!(
        pair.command(End::A, rekey),
        Err(CommandError::NotUp(HOSTS.to_owned()))
    );
}

fn watched(seed: u64) -> Pair {
    let mut setup = Setup::started(seed);
    setup.connection.dpd_delay = Some(Duration::from_secs(30));
    setup.up(seed)
}

//= test rfc7296 2.4-4
#[test]
fn a_silent_peer_is_asked_and_a_dead_one_is_tried_for_ever() {
    let mut pair = watched(1);
    let before = pair.net.sent.len();
    pair.run_for(Duration::from_secs(100));
    assert!(pair.net.sent.len() > before, "signs of life");
    pair.assert_up(1);
    pair.net.partitioned = true;
    pair.run_for(Duration::from_secs(1200));
    assert!(
        matches!(downs(&pair.a)[..], [IkeFailure::NoAnswer { .. }]),
        "{:?}",
        pair.a.events
    );
    assert!(pair.a.plane.inbound.is_empty());
    assert!(pair.b.plane.inbound.is_empty());
    pair.net.partitioned = false;
    pair.run_for(Duration::from_secs(120));
    pair.run_for(Duration::from_secs(1));
    pair.assert_up(1);
}

/// The times of a racoon.conf that says `dpd_delay 30;` and no more: five probes, five seconds each. With the
/// longest way through (the last packet came just before it was looked) and the shortest.
#[test]
fn r_a13_a_peer_that_is_cut_off_is_dead_between_30_and_65_seconds_and_comes_back() {
    for seed in 1..=20 {
        let mut setup = Setup::started(seed);
        setup.connection.dpd_delay = Some(Duration::from_secs(30));
        setup.connection.dpd_retry = Some(DpdRetry {
            after: Duration::from_secs(5),
            tries: 5,
        });
        let mut pair = setup.up(seed);
        pair.run_for(Duration::from_secs(100 + seed));
        pair.net.partitioned = true;
        // The last sign of life before that may be as old as the time that is waited for one.
        pair.run_for(Duration::from_millis(19_900));
        pair.assert_up(1);
        pair.run_for(Duration::from_millis(45_100));
        for node in [&pair.a, &pair.b] {
            assert!(
                matches!(downs(node)[..], [IkeFailure::NoAnswer { tries: 5, .. }]),
                "{seed}: {:?}",
                node.events
            );
            assert!(node.plane.inbound.is_empty(), "{seed}");
        }
        pair.net.partitioned = false;
        pair.run_for(Duration::from_secs(120));
        pair.assert_up(1);
    }
}

#[test]
fn received_packets_are_signs_of_life() {
    let mut pair = watched(1);
    pair.a.last_inbound = Some(Duration::ZERO);
    pair.b.last_inbound = Some(Duration::ZERO);
    let before = pair.net.sent.len();
    pair.run_for(Duration::from_secs(600));
    assert_eq!(pair.net.sent.len(), before);
}

//= test rfc7296 2.1-3 2.1-7 2.2-1
//= test security S-8
#[test]
fn a_peer_that_never_answers_is_reported_with_the_number_of_tries() {
    let mut setup = Setup::new(1);
    setup.net.partitioned = true;
    let mut pair = setup.pair(1);
    pair.initiate(End::A, HOSTS);
    pair.run_for(Duration::from_secs(600));
    let (steps, others): (Vec<&Event>, Vec<&Event>) =
        (pair.a.events.iter()).partition(|event| matches!(event, Event::Progress { .. }));
    assert_eq!(steps.len(), 13, "each request is told");
    let [
        Event::IkeFailed {
            reason: IkeFailure::NoAnswer { tries: 13, after },
            ..
        },
    ] = others[..]
    else {
        panic!("{:?}", pair.a.events);
    };
    assert!((60..200).contains(&after.as_secs()), "{after:?}");
    pair.assert_down();
    let first = pair.net.sent[0].datagram.clone();
    assert_eq!(pair.net.sent.len(), 13);
    assert!(pair.net.sent.iter().all(|packet| packet.datagram == first));
}

#[test]
fn hard_limits_of_the_data_plane_end_a_child_and_soft_ones_rekey_it() {
    let mut pair = Setup::started(1).up(1);
    let id = *pair.a.plane.inbound.keys().next().expect("one");
    pair.command(End::A, Command::SoftExpired(id))
        .expect("always");
    pair.run_until_idle();
    pair.assert_up(1);
    assert!(!pair.a.plane.inbound.contains_key(&id));
    let id = *pair.a.plane.inbound.keys().next().expect("one");
    pair.command(End::A, Command::HardExpired(id))
        .expect("always");
    assert!(pair.a.plane.inbound.is_empty(), "at once");
    // It is to be up, so it comes again.
    pair.run_until_idle();
    pair.assert_up(1);
    assert!(pair.a.plane.removed.contains(&id));
}

fn reload(pair: &mut Pair, setup: &Setup) {
    let config = Arc::new(Config {
        connections: vec![Arc::new(setup.connection.clone())],
        settings: Settings::default(),
    });
    pair.a.endpoint.reload(pair.now, config);
    pair.run_until_idle();
}

#[test]
fn a_new_configuration_touches_only_what_changed() {
    let mut setup = Setup::started(1);
    let mut pair = setup.clone().up(1);
    let spi = pair.a.plane.spi_out(HOSTS, PODS);
    let datagrams = pair.net.sent.len();
    reload(&mut pair, &setup);
    assert_eq!(pair.a.plane.spi_out(HOSTS, PODS), spi);
    assert_eq!(pair.net.sent.len(), datagrams);

    let other = child(
        "other",
        Mode::Tunnel,
        "10.1.0.0/16",
        "10.2.0.0/16",
        StartAction::None,
    );
    setup = setup.children(vec![pods(StartAction::Start), other]);
    reload(&mut pair, &setup);
    pair.assert_up(1);
    assert_eq!(pair.a.plane.spi_out(HOSTS, PODS), spi);
    assert!(downs(&pair.a).is_empty());

    pair.a
        .endpoint
        .reload(pair.now, Arc::new(Config::default()));
    pair.run_until_idle();
    pair.assert_down();
}

//= test rfc7296 2.4-9
#[test]
fn a_shutdown_deletes_and_then_says_that_it_is_idle() {
    let mut pair = Setup::started(1).up(1);
    pair.command(End::A, Command::Shutdown).expect("always");
    pair.run_until_idle();
    assert!(matches!(pair.a.events.last(), Some(Event::Idle)));
    pair.assert_down();
    assert_eq!(downs(&pair.b), [&IkeFailure::PeerDeleted]);
    pair.run_for(Duration::from_secs(60));
    assert_eq!(pair.a.count(|e| matches!(e, Event::Idle)), 1);
}

#[test]
fn a_shutdown_does_not_wait_for_ever() {
    let mut pair = Setup::started(1).up(1);
    pair.net.partitioned = true;
    pair.command(End::A, Command::Shutdown).expect("always");
    pair.run_for(Duration::from_secs(5));
    assert!(matches!(pair.a.events.last(), Some(Event::Idle)));
    assert!(pair.a.plane.inbound.is_empty());
    assert!(pair.a.endpoint.poll_timeout().is_none());
}

#[test]
fn a_shutdown_with_nothing_up_is_idle_at_once() {
    let mut pair = Setup::new(1).pair(1);
    pair.command(End::A, Command::Shutdown).expect("always");
    assert!(matches!(pair.a.events[..], [Event::Idle]));
}

#[test]
fn lifetimes_may_be_without_end() {
    let mut setup = Setup::started(1);
    setup.connection.rekey_time = Duration::MAX;
    setup.connection.over_time = Duration::MAX;
    setup.connection.dpd_delay = Some(Duration::MAX);
    let mut child = pods(StartAction::Start);
    (child.rekey_time, child.life_time) = (Duration::MAX, Duration::MAX);
    let mut pair = setup.children(vec![child]).up(1);
    pair.run_for(Duration::from_secs(1_000_000));
    pair.assert_up(1);
    assert_eq!(pair.net.sent.len(), 4);
}

//= test rfc7296 2.8-1
#[test]
fn at_the_end_of_its_life_a_child_is_out_of_use_whether_or_not_the_peer_answers() {
    let mut child = pods(StartAction::Start);
    child.rekey_time = Duration::from_secs(3000);
    child.life_time = Duration::from_secs(60);
    let mut setup = Setup::started(1).children(vec![child]);
    setup.settings.retransmit_tries = 20;
    let mut pair = setup.up(1);
    pair.assert_up(1);
    pair.net.partitioned = true;
    pair.run_for(Duration::from_secs(61));
    for node in [&pair.a, &pair.b] {
        assert!(node.plane.inbound.is_empty() && node.plane.outbound.is_empty());
        assert_eq!(node.count(|e| matches!(e, Event::ChildDown { .. })), 1);
    }
}
