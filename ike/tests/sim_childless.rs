//! IKE SAs that come up without a Child SA (RFC 6023), and what follows them.

use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{Childless, Config, StartAction};
use obol_ike::error::{CommandError, IkeFailure};
use obol_ike::event::{Command, Event};
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{HOSTS, Setup, mirror, pods};

use Childless::{Allow, Force, Never, Prefer};

/// The first host starts the tunnel; each is configured in its own way.
fn pair(a: Childless, b: Childless, setup: &Setup) -> Pair {
    let mut setup = setup.clone();
    setup.connection.childless = a;
    let mut theirs = mirror(&setup.connection, StartAction::None);
    theirs.childless = b;
    let config = Config {
        connections: vec![Arc::new(theirs)],
        settings: setup.settings.clone(),
    };
    let mut pair = setup.pair(1);
    pair.b.endpoint.reload(pair.now, Arc::new(config));
    pair
}

fn own_key_exchange(pair: &Pair) -> bool {
    let sas: Vec<_> = pair.a.plane.outbound.values().collect();
    assert_eq!(sas.len(), 1, "{:?}", pair.a.events);
    sas[0].info.ke.is_some()
}

#[test]
fn the_first_child_has_a_key_exchange_of_its_own_where_both_sides_want_it() {
    for (a, b, own) in [
        (Never, Never, false),
        (Never, Prefer, false),
        (Allow, Allow, false),
        (Allow, Prefer, false),
        (Prefer, Never, false),
        (Prefer, Allow, true),
        (Prefer, Prefer, true),
        (Prefer, Force, true),
        (Force, Allow, true),
        (Force, Force, true),
    ] {
        let mut pair = pair(a, b, &Setup::started(1));
        pair.start();
        pair.run_for(Duration::from_secs(1));
        pair.assert_up(1);
        assert_eq!(own_key_exchange(&pair), own, "{a:?} {b:?}");
        let datagrams = if own { 6 } else { 4 };
        assert_eq!(pair.net.sent.len(), datagrams, "{a:?} {b:?}");
    }
}

#[test]
fn a_responder_that_does_without_gives_the_first_child_later() {
    let mut pair = pair(Never, Force, &Setup::started(1));
    pair.start();
    pair.run_for(Duration::from_secs(10));
    pair.assert_up(1);
    assert!(own_key_exchange(&pair));
}

#[test]
fn who_insists_is_told_if_the_peer_cannot() {
    let mut pair = pair(Force, Never, &Setup::started(1));
    pair.start();
    pair.run_for(Duration::from_millis(1500));
    for node in [&pair.a, &pair.b] {
        let sas = node.endpoint.status(pair.now);
        assert!(sas.iter().all(|sa| sa.state == "connecting"), "{sas:?}");
        assert!(node.plane.inbound.is_empty());
    }
    let told = |e: &Event| {
        let Event::IkeFailed { reason, .. } = e else {
            return false;
        };
        *reason == IkeFailure::NoChildless
    };
    assert_eq!(pair.a.count(told), 1);
}

#[test]
fn a_connection_without_children_comes_up_alone() {
    let setup = Setup::new(1).children(Vec::new());
    let mut lonely = pair(Allow, Allow, &setup);
    for _ in 0..3 {
        lonely.initiate(End::A, HOSTS);
        lonely.run_for(Duration::from_secs(1));
    }
    lonely.assert_up(0);
    assert_eq!(lonely.a.endpoint.status(lonely.now).len(), 1);
    assert_eq!(lonely.net.sent.len(), 4);
    let terminate = Command::Terminate {
        connection: HOSTS.to_owned(),
        child: None,
    };
    lonely.command(End::B, terminate).expect("it is up");
    lonely.run_for(Duration::from_secs(1));
    lonely.assert_down();

    let mut never = pair(Never, Never, &setup);
    let initiate = Command::Initiate {
        connection: HOSTS.to_owned(),
        child: None,
        local: None,
    };
    let refused = CommandError::NoChildren(HOSTS.to_owned());
    assert_eq!(never.command(End::A, initiate), Err(refused));
}

#[test]
fn without_a_child_a_handshake_survives_a_hostile_network() {
    for seed in 0..100 {
        let mut setup = Setup::started(seed).net(Net::seeded(seed).hostile(300, 200));
        setup = setup.children(vec![pods(StartAction::Start)]);
        let mut pair = pair(Prefer, Prefer, &setup);
        pair.start();
        pair.run_for(Duration::from_secs(600));
        pair.run_until_idle();
        pair.assert_up(1);
        assert!(own_key_exchange(&pair), "seed {seed}");
    }
}
