//! Every interleaving of every two operations, as far as a test may take: without mishaps, and
//! with one where that is few states. The example `explore` goes further.

use std::time::Duration;

use obol_ike::event::Command;
use obol_ike::testing::explore::{Limits, Scenario, explore};
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{HOSTS, PODS, Setup};

/// Explorations of a test are done by so many threads of the harness.
const SHARES: usize = 4;

fn share(which: usize, limits: Limits) {
    let (mut states, mut wrong) = (0, Vec::new());
    for (n, scenario) in Scenario::all().into_iter().enumerate() {
        if n % SHARES != which {
            continue;
        }
        let report = explore(scenario, 0, limits);
        states += report.states;
        if let Some(violation) = report.violation {
            wrong.push(format!(
                "{}: --pair {scenario} --seed 0 --replay '{}'",
                violation.what, violation.schedule
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(states > 4_000, "{states} states");
}

const WITHOUT_MISHAPS: Limits = Limits {
    lost: 0,
    repeated: 0,
    late: 0,
    early: 0,
    mishaps: 0,
    states: 1_000_000,
};

#[test]
fn every_two_operations_in_every_order_first_share() {
    share(0, WITHOUT_MISHAPS);
}

#[test]
fn every_two_operations_in_every_order_second_share() {
    share(1, WITHOUT_MISHAPS);
}

#[test]
fn every_two_operations_in_every_order_third_share() {
    share(2, WITHOUT_MISHAPS);
}

#[test]
fn every_two_operations_in_every_order_fourth_share() {
    share(3, WITHOUT_MISHAPS);
}

/// What the explorer found once.
mod found {
    use super::*;

    fn rekey() -> Command {
        Command::RekeyChild {
            connection: HOSTS.to_owned(),
            child: PODS.to_owned(),
        }
    }

    fn close() -> Command {
        Command::Terminate {
            connection: HOSTS.to_owned(),
            child: Some(PODS.to_owned()),
        }
    }

    fn up() -> Pair {
        let mut pair = Setup::new(1).pair(1);
        pair.initiate(End::A, HOSTS);
        pair.run_until_idle();
        pair
    }

    fn rest(pair: &mut Pair) {
        pair.run_until_idle();
        pair.run_for(Duration::from_secs(90));
        pair.run_until_idle();
    }

    #[test]
    fn a_child_that_is_closed_while_it_is_rekeyed_stays_closed() {
        for end in [End::A, End::B] {
            let mut pair = up();
            pair.command(end, rekey()).expect("it is up");
            pair.command(end, close()).expect("it is up");
            rest(&mut pair);
            pair.assert_up(0);
            assert_eq!(pair.a.endpoint.status(pair.now).len(), 1);
        }
    }

    #[test]
    fn a_child_that_is_closed_while_it_is_made_stays_closed() {
        let mut pair = up();
        pair.command(End::A, close()).expect("it is up");
        pair.run_until_idle();
        pair.initiate(End::A, HOSTS);
        pair.command(End::A, close()).expect("it is being made");
        rest(&mut pair);
        pair.assert_up(0);
        assert_eq!(pair.a.endpoint.status(pair.now).len(), 1);
    }

    #[test]
    fn a_first_child_that_is_closed_in_the_handshake_stays_closed() {
        let mut pair = Setup::new(1).pair(1);
        pair.initiate(End::A, HOSTS);
        pair.command(End::A, close()).expect("it is being made");
        rest(&mut pair);
        pair.assert_up(0);
        assert_eq!(pair.a.endpoint.status(pair.now).len(), 1);
    }

    #[test]
    fn a_rekey_that_comes_after_the_delete_that_it_crossed_makes_no_new_child() {
        let mut pair = up();
        pair.net.delay = (Duration::from_millis(500), Duration::from_millis(500));
        pair.command(End::A, rekey()).expect("it is up");
        pair.net.delay = (Duration::from_millis(10), Duration::from_millis(10));
        pair.command(End::B, close()).expect("it is up");
        rest(&mut pair);
        pair.assert_up(0);
        assert_eq!(pair.a.endpoint.status(pair.now).len(), 1);
    }
}
