//! Who waits for a negotiation hears how far it is; one that fails as often as the configuration says is left;
//! and what is not to be rekeyed ends.

use std::time::Duration;

use obol_ike::auth::ProvenBy;
use obol_ike::config::{Connection, StartAction};
use obol_ike::error::{CommandError, IkeFailure};
use obol_ike::event::{Command, Event, Step};
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, child, pods};
use obol_ike::wire::ExchangeType;

const LATER: Duration = Duration::from_secs(3600);

fn steps(node: &Node) -> Vec<&Step> {
    let events = node.events.iter();
    let steps = events.filter_map(|event| match event {
        Event::Progress { step, .. } => Some(step),
        _ => None,
    });
    steps.collect()
}

fn another() -> obol_ike::config::Child {
    let mode = obol_ike::config::Mode::Tunnel;
    child(
        "more",
        mode,
        "10.3.0.0/16",
        "10.4.0.0/16",
        StartAction::None,
    )
}

#[test]
fn each_step_is_told_to_the_end_that_began() {
    let setup = Setup::new(1).children(vec![pods(StartAction::None), another()]);
    let mut pair = setup.pair(1);
    pair.start();
    let initiate = |child: &str| Command::Initiate {
        connection: HOSTS.to_owned(),
        child: Some(child.to_owned()),
        local: None,
    };
    pair.command(End::A, initiate(PODS)).expect("known");
    pair.run_for(Duration::from_secs(2));
    let told = steps(&pair.a);
    assert!(
        matches!(told[..], [Step::Begun, Step::Proving(_)]),
        "{told:?}"
    );
    pair.command(End::A, initiate("more")).expect("known");
    pair.run_for(Duration::from_secs(2));
    let told = steps(&pair.a);
    let [_, _, Step::Asked { id, child, spi_in }] = told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(child, "more");
    let made = pair.a.events.iter().find_map(|event| match event {
        Event::ChildUp(info) if info.child == "more" => Some((info.id, info.spi_in)),
        _ => None,
    });
    assert_eq!(
        made,
        Some((*id, *spi_in)),
        "it has the number that it was given"
    );
    assert!(steps(&pair.b).is_empty(), "the other end began nothing");
    let status = pair.a.endpoint.status(pair.now);
    assert_eq!(status[0].proven_by, Some(ProvenBy::Secret));
}

#[test]
fn who_waits_hears_that_there_is_no_answer() {
    let mut pair = Setup::new(1).pair(1);
    pair.net.partitioned = true;
    pair.start();
    pair.initiate(End::A, HOSTS);
    pair.run_for(Duration::from_secs(5));
    let told = steps(&pair.a);
    let repeated: Vec<Duration> = told
        .iter()
        .filter_map(|step| match step {
            Step::Repeated(ExchangeType::IKE_SA_INIT, after) => Some(*after),
            _ => None,
        })
        .collect();
    assert_eq!(told[0], &Step::Begun);
    assert!(repeated.len() > 2, "{told:?}");
    assert!(repeated.windows(2).all(|two| two[0] < two[1]), "{told:?}");
}

fn unanswered(tries: u32) -> Pair {
    let mut setup = Setup::new(1).children(vec![pods(StartAction::Start)]);
    setup.connection.keying_tries = tries;
    setup.b_starts = StartAction::None;
    let mut pair = setup.pair(1);
    pair.net.partitioned = true;
    pair.start();
    pair
}

fn tries(pair: &Pair) -> usize {
    let failed = |event: &Event| matches!(event, Event::IkeFailed { .. });
    pair.a.count(failed)
}

#[test]
fn what_starts_by_itself_is_tried_as_often_as_the_connection_says() {
    for most in [1, 3] {
        let mut pair = unanswered(most);
        pair.run_for(LATER);
        assert_eq!(tries(&pair), most as usize);
        let given_up: Vec<u32> = pair
            .a
            .events
            .iter()
            .filter_map(|event| match event {
                Event::GivenUp { tries, .. } => Some(*tries),
                _ => None,
            })
            .collect();
        assert_eq!(given_up, [most]);
        // An operator, or a packet, has it tried once more, and it comes up.
        pair.net.partitioned = false;
        pair.initiate(End::A, HOSTS);
        pair.run_for(Duration::from_secs(5));
        pair.assert_up(1);
    }
    let mut pair = unanswered(0);
    pair.run_for(LATER);
    assert!(tries(&pair) > 5, "{}", tries(&pair));
    assert_eq!(pair.a.count(|e| matches!(e, Event::GivenUp { .. })), 0);
}

#[test]
fn what_was_given_up_comes_back_when_the_peer_brings_it_up_and_is_lost() {
    let mut pair = unanswered(1);
    pair.run_for(LATER);
    assert_eq!(tries(&pair), 1);
    pair.net.partitioned = false;
    pair.initiate(End::B, HOSTS);
    pair.run_for(Duration::from_secs(5));
    pair.assert_up(1);
    let close = Command::Terminate {
        connection: HOSTS.to_owned(),
        child: None,
    };
    pair.command(End::B, close).expect("it is up");
    pair.run_for(Duration::from_secs(60));
    pair.assert_up(1);
}

fn never(connection: &mut Connection) {
    connection.rekey_time = Duration::MAX;
    connection.over_time = LATER;
}

#[test]
fn without_rekeys_sas_end_at_their_time_and_what_starts_by_itself_comes_again() {
    let mut pods = pods(StartAction::Start);
    pods.rekey_time = Duration::MAX;
    pods.life_time = LATER * 2;
    let mut setup = Setup::new(1).children(vec![pods]);
    never(&mut setup.connection);
    setup.b_starts = StartAction::None;
    let mut pair = setup.pair(1);
    pair.start();
    pair.run_for(LATER * 3);
    let rekeyed = |event: &Event| match event {
        Event::IkeUp { rekey, .. } => *rekey,
        Event::ChildUp(info) => info.replaces.is_some(),
        _ => false,
    };
    assert_eq!(pair.a.count(rekeyed) + pair.b.count(rekeyed), 0);
    let down = |event: &Event| matches!(event, Event::IkeDown { .. });
    assert_eq!(pair.a.count(down), 2, "{:?}", pair.a.events);
    pair.assert_up(1);
}

#[test]
fn a_peer_may_rekey_what_this_end_does_not() {
    let mut setup = Setup::new(1);
    setup.connection.rekey_time = Duration::from_secs(600);
    let mut pair = setup.clone().pair(1);
    never(&mut setup.connection);
    let config = obol_ike::config::Config {
        connections: vec![std::sync::Arc::new(setup.connection)],
        settings: setup.settings,
    };
    pair.a
        .endpoint
        .reload(pair.now, std::sync::Arc::new(config));
    pair.start();
    pair.initiate(End::A, HOSTS);
    pair.run_for(LATER * 2);
    let rekeyed = |event: &Event| matches!(event, Event::IkeUp { rekey: true, .. });
    assert!(pair.a.count(rekeyed) > 5, "{:?}", pair.a.events);
    let down = |event: &Event| {
        matches!(
            event,
            Event::IkeDown {
                reason: IkeFailure::Expired,
                ..
            }
        )
    };
    assert_eq!(pair.a.count(down), 0, "{:?}", pair.a.events);
    pair.assert_up(1);
}

#[test]
fn an_sa_is_closed_by_its_number_and_what_starts_by_itself_comes_again() {
    let mut setup = Setup::started(1);
    setup.b_starts = StartAction::None;
    let mut pair = setup.up(1);
    let status = pair.a.endpoint.status(pair.now);
    let (ike, child) = (status[0].id, status[0].children[0].info.id);
    pair.command(End::A, Command::CloseChild(child))
        .expect("it is up");
    pair.run_for(Duration::from_secs(60));
    pair.assert_up(1);
    let status = pair.a.endpoint.status(pair.now);
    assert_eq!(status[0].id, ike, "the IKE SA stays");
    assert_ne!(status[0].children[0].info.id, child);
    pair.command(End::A, Command::CloseIke(ike))
        .expect("it is up");
    pair.run_for(Duration::from_secs(60));
    pair.assert_up(1);
    assert_ne!(pair.a.endpoint.status(pair.now)[0].id, ike);
    for gone in [Command::CloseIke(ike), Command::CloseChild(child)] {
        let refused = pair.command(End::A, gone);
        assert_eq!(refused, Err(CommandError::NoSuchSa));
    }
}
