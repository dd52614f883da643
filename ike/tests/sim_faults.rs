//! Faults of the network and of lifetimes, with the numbers that are promised: run with
//! `--nocapture` to read them.

use std::time::Duration;

use obol_ike::config::{Child, StartAction};
use obol_ike::error::IkeFailure;
use obol_ike::event::{Command, Event};
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, pods};

const TICK: Duration = Duration::from_millis(100);

fn both_up(pair: &Pair) -> bool {
    !pair.a.plane.current.is_empty() && !pair.b.plane.current.is_empty()
}

/// Steps until it holds; how long that took.
fn until(pair: &mut Pair, limit: Duration, holds: impl Fn(&Pair) -> bool) -> Option<Duration> {
    let begun = pair.now;
    while !holds(pair) {
        if pair.now - begun > limit {
            return None;
        }
        pair.run_for(TICK);
    }
    Some(pair.now - begun)
}

#[test]
fn on_a_lossy_network_all_come_up_without_an_operator() {
    for (loss, runs) in [(10, 50), (50, 50), (100, 50), (300, 400), (500, 100)] {
        let mut times = Vec::new();
        for seed in 0..runs {
            let mut setup = Setup::started(seed).net(Net::seeded(seed));
            setup.net.loss = loss;
            let mut pair = setup.pair(seed);
            pair.start();
            let took = until(&mut pair, Duration::from_secs(3600), both_up);
            times.push(took.unwrap_or_else(|| panic!("seed {seed} at {loss} per mille")));
            pair.net.loss = 0;
            pair.run_for(Duration::from_secs(600));
            pair.assert_up(1);
        }
        times.sort();
        let share = |percent: usize| times[times.len() * percent / 100].as_secs_f64();
        let (half, most) = (share(50), share(99));
        println!(
            "F1: {} % loss: {runs} of {runs} up, p50 {half:.1} s, p99 {most:.1} s, all {:.1} s",
            loss / 10,
            times.last().map_or(0.0, Duration::as_secs_f64)
        );
        assert!(loss > 300 || (half <= 3.0 && most <= 45.0), "{half} {most}");
    }
}

#[test]
fn a_slow_network_is_no_dead_peer() {
    let mut hours = 0;
    let mut probes = 0;
    for seed in 0..20 {
        let mut setup = Setup::started(seed);
        setup.connection.dpd_delay = Some(Duration::from_secs(30));
        let mut pair = setup.up(seed);
        let before = pair.net.sent.len();
        pair.net.delay = (Duration::ZERO, Duration::from_secs(30));
        pair.run_for(Duration::from_secs(3600));
        hours += 1;
        probes += (pair.net.sent.len() - before) / 2;
        for node in [&pair.a, &pair.b] {
            let down = node.count(|e| matches!(e, Event::IkeDown { .. }));
            assert_eq!(down, 0, "seed {seed}: {:?}", node.events);
        }
        pair.net.delay = (Duration::ZERO, Duration::ZERO);
        pair.run_for(Duration::from_secs(300));
        pair.assert_up(1);
    }
    println!("F4: {hours} hours with 0 to 30 s of delay, {probes} messages, 0 false deaths");
    assert!(probes > hours * 20, "{probes}");
}

/// A pair whose child is rekeyed by limits that the data plane reports.
fn limited(seed: u64) -> Pair {
    let mut setup = Setup::started(seed);
    setup.net.delay = (Duration::from_millis(20), Duration::from_millis(20));
    setup.up(seed)
}

#[test]
fn limits_that_race_leave_one_working_child() {
    let mut runs = 0;
    for soft_at in [End::A, End::B] {
        for hard_at in [End::A, End::B] {
            for millis in 0..130 {
                let mut pair = limited(1);
                let id = |pair: &mut Pair, end| {
                    *pair.node(end).plane.inbound.keys().next().expect("one")
                };
                let (soft, hard) = (id(&mut pair, soft_at), id(&mut pair, hard_at));
                let soft = Command::SoftExpired(soft);
                pair.command(soft_at, soft).expect("always");
                pair.run_for(Duration::from_millis(millis));
                let hard = Command::HardExpired(hard);
                pair.command(hard_at, hard).expect("always");
                pair.run_for(Duration::from_secs(90));
                pair.run_until_idle();
                pair.assert_up(1);
                runs += 1;
            }
        }
    }
    println!("F17: {runs} races of a soft limit, its rekey and a hard limit: one child each");
}

#[test]
fn a_rekey_that_is_answered_in_time_leaves_no_gap_and_one_that_is_not_leaves_nothing() {
    let mut gaps = 0;
    for seed in 0..100 {
        let child = Child {
            rekey_time: Duration::from_secs(600),
            life_time: Duration::from_secs(640),
            ..pods(StartAction::Start)
        };
        let mut pair = Setup::started(seed).children(vec![child]).up(seed);
        let first = pair.a.plane.spi_out(HOSTS, PODS);
        pair.run_for(Duration::from_secs(530));
        // Nothing passes for half a minute at some time around the rekey.
        pair.run_for(Duration::from_secs(seed % 40));
        pair.net.partitioned = true;
        for _ in 0..300 {
            pair.run_for(TICK);
            gaps += usize::from(!both_up(&pair));
        }
        pair.net.partitioned = false;
        for _ in 0..900 {
            pair.run_for(TICK);
            gaps += usize::from(!both_up(&pair));
        }
        pair.assert_invariants();
        assert_ne!(pair.a.plane.spi_out(HOSTS, PODS), first, "seed {seed}");
    }
    println!("F17: 100 rekeys with the peer away for 30 s: {gaps} ticks without a Child SA");
    assert_eq!(gaps, 0);

    let mut pair = limited(1);
    pair.net.partitioned = true;
    pair.run_for(Duration::from_secs(5000));
    for node in [&pair.a, &pair.b] {
        assert!(node.plane.inbound.is_empty() && node.plane.outbound.is_empty());
    }
    let dead = |e: &Event| {
        let Event::IkeDown { reason, .. } = e else {
            return false;
        };
        matches!(reason, IkeFailure::NoAnswer { .. })
    };
    assert!(pair.a.count(dead) >= 1);
    pair.net.partitioned = false;
    let back = until(&mut pair, Duration::from_secs(120), both_up).expect("by itself");
    println!("F17: back {:.1} s after the network is", back.as_secs_f64());
}
