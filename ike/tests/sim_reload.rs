//! A new configuration after every single event of a life.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{
    Child, Config, Connection, LocalAuthMethod, Mode, RemoteAuthMethod, Settings, SpiHalf,
    StartAction,
};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::event::{Command, Event};
use obol_ike::proposal::EspProposal;
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{HOSTS, ID_B, PODS, Setup, child, mirror};
use obol_ike::testing::traffic::Traffic;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const TICK: Duration = Duration::from_millis(5);
const SECOND: Duration = Duration::from_secs(1);

/// What changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    /// Nothing.
    Nothing,
    /// Times and actions.
    Times,
    /// Another child is added.
    Added,
    /// The selectors grow.
    Wider,
    /// The selectors have nothing in common with those before.
    Moved,
    /// Other algorithms of the child.
    Algorithms,
    /// SPIs of the other half.
    Half,
    /// Another identity of the first host, which the second one accepts.
    Identity,
    /// The connection goes, and comes back.
    Gone,
}

const CHANGES: [Change; 9] = [
    Change::Nothing,
    Change::Times,
    Change::Added,
    Change::Wider,
    Change::Moved,
    Change::Algorithms,
    Change::Half,
    Change::Identity,
    Change::Gone,
];

impl Change {
    fn of(self, before: &Setup) -> Setup {
        let mut setup = before.clone();
        let connection = &mut setup.connection;
        let pods = Arc::make_mut(&mut connection.children[0]);
        match self {
            Self::Nothing | Self::Gone => {}
            Self::Times => {
                connection.dpd_delay = Some(200 * SECOND);
                connection.rekey_time = 3 * 3600 * SECOND;
                pods.rekey_time = 1800 * SECOND;
            }
            Self::Added => {
                let other = other(StartAction::Start);
                connection.children.push(Arc::new(other));
            }
            Self::Wider => pods.local_ts = vec!["172.16.0.0/16".parse().expect("sound")],
            Self::Moved => pods.local_ts = vec!["172.20.0.0/16".parse().expect("sound")],
            Self::Algorithms => {
                pods.esp_proposals = EspProposal::parse("chacha20poly1305")
                    .expect("sound")
                    .into();
            }
            Self::Half => pods.spi_half = SpiHalf::Upper,
            Self::Identity => connection.local.id = "@other.example.com".parse().ok(),
        }
        setup
    }

    fn children(self) -> usize {
        if self == Self::Added { 2 } else { 1 }
    }
}

fn other(start: StartAction) -> Child {
    child("other", Mode::Tunnel, "10.1.0.0/16", "10.2.0.0/16", start)
}

fn config(connections: Vec<Connection>) -> Arc<Config> {
    let connections = connections.into_iter().map(Arc::new).collect();
    let settings = Settings {
        retransmit_tries: 30,
        ..Settings::default()
    };
    Arc::new(Config {
        connections,
        settings,
    })
}

fn configs(setup: &Setup) -> (Arc<Config>, Arc<Config>) {
    let mut theirs = mirror(&setup.connection, StartAction::None);
    theirs.remote.id = None;
    (config(vec![setup.connection.clone()]), config(vec![theirs]))
}

fn key() -> PrivateKey {
    PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(1))
}

/// The same where one key proves the first host, whatever it calls itself: by a secret, another name
/// would be another peer, which does not get what this one has.
fn by_key((mut a, mut b): (Arc<Config>, Arc<Config>)) -> (Arc<Config>, Arc<Config>) {
    let first = |config: &mut Arc<Config>, change: &dyn Fn(&mut Connection)| {
        let connections = &mut Arc::make_mut(config).connections;
        change(Arc::make_mut(&mut connections[0]));
    };
    first(&mut a, &|own| {
        own.local.method = LocalAuthMethod::Key(key().public());
    });
    first(&mut b, &|theirs| {
        theirs.remote.method = RemoteAuthMethod::Keys(vec![key().public()]);
    });
    (a, b)
}

fn load(pair: &mut Pair, end: End, config: &Arc<Config>) {
    let now = pair.now;
    pair.node(end).endpoint.reload(now, Arc::clone(config));
    // What it asks and sends goes its way before time goes on.
    pair.run_for(Duration::ZERO);
}

#[test]
fn a_connection_that_is_added_later_comes_up() {
    let (setup, mut pair) = before(1);
    let (ours, theirs) = configs(&setup);
    for end in [End::A, End::B] {
        load(&mut pair, end, &config(Vec::new()));
    }
    pair.start();
    pair.run_for(SECOND);
    pair.assert_down();
    for (end, config) in [(End::B, &theirs), (End::A, &ours)] {
        let now = pair.now;
        let endpoint = &mut pair.node(end).endpoint;
        endpoint.add(now, &config.connections);
        assert!(endpoint.configured(HOSTS).is_some());
        pair.run_for(SECOND);
    }
    pair.assert_up(1);
}

/// One connection anew, by itself or among all: the same is said to the peer, octet by octet.
#[test]
fn one_connection_is_replaced_as_by_a_reload() {
    for change in CHANGES.into_iter().filter(|change| *change != Change::Gone) {
        let said = [true, false].map(|alone| {
            let (setup, mut pair) = before(1);
            let (a, b) = configs(&setup);
            load(&mut pair, End::A, &a);
            load(&mut pair, End::B, &b);
            pair.start();
            pair.run_for(SECOND);
            let (new_a, new_b) = configs(&change.of(&setup));
            load(&mut pair, End::B, &new_b);
            match alone {
                true => {
                    let now = pair.now;
                    let endpoint = &mut pair.node(End::A).endpoint;
                    endpoint.replace(now, &new_a.connections[0]);
                    let known = endpoint.configured(HOSTS).expect("it is there");
                    assert_eq!(*known, new_a.connections[0]);
                    pair.run_for(Duration::ZERO);
                }
                false => load(&mut pair, End::A, &new_a),
            }
            pair.run_for(20 * SECOND);
            pair.assert_up(change.children());
            let sent = pair.net.sent.iter();
            sent.map(|packet| packet.datagram.clone())
                .collect::<Vec<_>>()
        });
        assert_eq!(said[0], said[1], "{change:?}");
    }
}

fn before(seed: u64) -> (Setup, Pair) {
    let mut setup = Setup::started(seed);
    setup.connection.dpd_delay = Some(100 * SECOND);
    let mut pair = setup.clone().pair(seed);
    for node in [&mut pair.a, &mut pair.b] {
        let secret = node.secrets[0].2.clone();
        let ids = ["@other.example.com", ID_B].map(|id| id.parse().expect("sound"));
        let [other, theirs] = ids;
        node.secrets.push((other, theirs, secret));
    }
    (setup, pair)
}

/// What happens in a life, by the time at which it begins.
fn script() -> Vec<(u32, End, Command)> {
    let connection = || HOSTS.to_owned();
    let rekey_child = Command::RekeyChild {
        connection: connection(),
        child: PODS.to_owned(),
    };
    let rekey_ike = Command::RekeyIke {
        connection: connection(),
    };
    let close = Command::Terminate {
        connection: connection(),
        child: Some(PODS.to_owned()),
    };
    let open = Command::Initiate {
        connection: connection(),
        child: None,
        local: None,
    };
    let end = Command::Terminate {
        connection: connection(),
        child: None,
    };
    vec![
        (12, End::A, rekey_child.clone()),
        (20, End::B, rekey_child.clone()),
        (28, End::A, rekey_ike.clone()),
        (36, End::B, rekey_ike.clone()),
        (44, End::A, rekey_child.clone()),
        (44, End::B, rekey_child),
        (54, End::A, rekey_ike.clone()),
        (54, End::B, rekey_ike),
        (64, End::A, close),
        (70, End::A, open.clone()),
        (78, End::B, end),
        (84, End::A, open),
    ]
}

/// Lives until the tick, loads what has changed, and lives on. Says what was sent.
fn live(change: Change, end: End, at: u32, net: Net) -> Pair {
    let (setup, mut pair) = before(1);
    pair.net = net;
    let (a, b) = configs(&setup);
    load(&mut pair, End::A, &a);
    load(&mut pair, End::B, &b);
    let after = change.of(&setup);
    let (new_a, new_b) = configs(&after);
    let none = config(Vec::new());
    pair.start();
    for tick in 0..100 {
        for (_, end, command) in script().into_iter().filter(|(when, ..)| *when == tick) {
            // Perhaps it is not up, or not there.
            let _ = pair.command(end, command);
        }
        if tick == at {
            let (first, new) = if end == End::A {
                (
                    if change == Change::Gone {
                        &none
                    } else {
                        &new_a
                    },
                    &new_a,
                )
            } else {
                (
                    if change == Change::Gone {
                        &none
                    } else {
                        &new_b
                    },
                    &new_b,
                )
            };
            load(&mut pair, end, first);
            if change == Change::Gone {
                pair.run_for(Duration::from_millis(3));
                load(&mut pair, end, new);
            }
        }
        // The other end follows a little later.
        if tick == at + 7 && change != Change::Nothing {
            let (end, new) = match end {
                End::A => (End::B, &new_b),
                End::B => (End::A, &new_a),
            };
            load(&mut pair, end, new);
        }
        pair.run_for(TICK);
    }
    pair
}

fn settle(pair: &mut Pair) {
    (pair.net.loss, pair.net.duplicated) = (0, 0);
    pair.run_for(400 * SECOND);
    pair.initiate(End::A, HOSTS);
    pair.run_for(100 * SECOND);
    pair.run_until_idle();
}

/// Every step if `OBOL_FULL` is set, else some of them.
fn stride() -> usize {
    match std::env::var_os("OBOL_FULL") {
        Some(_) => 1,
        None => 5,
    }
}

#[test]
fn at_every_step_of_a_life_and_at_either_end_order_returns() {
    let mut runs = 0;
    for (nth, change) in CHANGES.into_iter().enumerate() {
        for end in [End::A, End::B] {
            // Changes and ends take turns, so that together they see every step.
            let first = (nth * 2 + usize::from(end == End::B)) % stride();
            for at in (0..92).skip(first).step_by(stride()) {
                let mut pair = live(change, end, at, Net::seeded(1));
                settle(&mut pair);
                let ok = AssertUnwindSafe(|| pair.assert_up(change.children()));
                assert!(catch_unwind(ok).is_ok(), "{change:?} at {end:?}, tick {at}");
                runs += 1;
            }
        }
    }
    println!("{runs} lives with a new configuration, all in order");
}

#[test]
fn the_same_on_a_hostile_network() {
    for change in CHANGES {
        for at in (0..92).step_by(12) {
            let end = if at % 8 == 0 { End::A } else { End::B };
            let net = Net::seeded(u64::from(at)).hostile(250, 150);
            let mut pair = live(change, end, at, net);
            settle(&mut pair);
            let ok = AssertUnwindSafe(|| pair.assert_up(change.children()));
            assert!(catch_unwind(ok).is_ok(), "{change:?} at {end:?}, tick {at}");
        }
    }
}

#[test]
fn the_same_configuration_changes_not_one_octet() {
    let without = live(Change::Nothing, End::A, 1000, Net::seeded(1));
    for end in [End::A, End::B] {
        for at in (0..92).step_by(stride()) {
            let with = live(Change::Nothing, end, at, Net::seeded(1));
            assert_eq!(with.net.sent, without.net.sent, "{end:?}, tick {at}");
        }
    }
}

#[test]
fn a_thousand_new_configurations_cost_other_connections_no_packet() {
    let (setup, mut pair) = before(1);
    let (a, b) = configs(&setup);
    load(&mut pair, End::A, &a);
    load(&mut pair, End::B, &b);
    pair.start();
    pair.run_until_idle();
    let mut traffic = Traffic::of(HOSTS, PODS);
    let datagrams = pair.net.sent.len();
    for round in 0..1000u32 {
        let mut second = Connection {
            name: "second".to_owned(),
            remote_addrs: vec!["192.168.0.3".parse().expect("sound")],
            ..setup.connection.clone()
        };
        second.children = vec![Arc::new(other(StartAction::None))];
        second.dpd_delay = Some((round + 1) * SECOND);
        let mut connections = vec![setup.connection.clone()];
        if round % 3 != 0 {
            connections.push(second);
        }
        load(&mut pair, End::A, &config(connections));
        traffic.run(&mut pair, Duration::from_millis(7));
    }
    assert!(traffic.is_whole(), "{traffic:?}");
    assert_eq!(pair.net.sent.len(), datagrams);
    println!("1000 reloads, {} packets, 0 lost", traffic.sent);
}

#[test]
fn what_can_be_kept_is_kept_and_the_rest_made_before_it_breaks() {
    for (change, rekeys) in [
        (Change::Times, 0),
        (Change::Added, 0),
        (Change::Wider, 1),
        (Change::Algorithms, 1),
        (Change::Half, 1),
        (Change::Identity, 1),
    ] {
        let (setup, mut pair) = before(1);
        pair.a.keys.push(key());
        let configs = |setup: &Setup| match change {
            Change::Identity => by_key(configs(setup)),
            _ => configs(setup),
        };
        let (a, b) = configs(&setup);
        load(&mut pair, End::A, &a);
        load(&mut pair, End::B, &b);
        pair.start();
        pair.run_for(30 * SECOND);
        let mut traffic = Traffic::of(HOSTS, PODS);
        let (new_a, new_b) = configs(&change.of(&setup));
        load(&mut pair, End::B, &new_b);
        traffic.run(&mut pair, SECOND);
        load(&mut pair, End::A, &new_a);
        traffic.run(&mut pair, 20 * SECOND);
        assert!(traffic.is_whole(), "{change:?}: {traffic:?}");
        pair.run_for(100 * SECOND);
        pair.run_until_idle();
        pair.assert_up(change.children());
        let pods_up = |e: &Event| matches!(e, Event::ChildUp(info) if info.child == PODS);
        let ups = pair.a.count(pods_up);
        let made = if change == Change::Times || change == Change::Added {
            ups == 1
        } else {
            ups > rekeys
        };
        assert!(made, "{change:?}: {ups}");
        let upper = [&pair.a, &pair.b].map(|node| {
            let mut all = node.plane.inbound.values();
            all.all(|sa| sa.info.spi_in.half() == SpiHalf::Upper)
        });
        assert_eq!(upper, [change == Change::Half; 2], "{change:?}");
        let info = &pair.a.plane.outbound.values().next().expect("sound").info;
        if change == Change::Wider {
            assert_eq!(info.local_ts[0].to_string(), "172.16.0.0/16");
        }
    }
}

/// By a secret, a peer with another name is another one: it gets its network when the one before has
/// closed what it had, which it does at once.
#[test]
fn who_has_another_name_by_a_secret_comes_up_again() {
    let (setup, mut pair) = before(1);
    let (a, b) = configs(&setup);
    load(&mut pair, End::A, &a);
    load(&mut pair, End::B, &b);
    pair.start();
    pair.run_for(30 * SECOND);
    let (new_a, _) = configs(&Change::Identity.of(&setup));
    load(&mut pair, End::A, &new_a);
    pair.run_for(20 * SECOND);
    pair.assert_up(1);
    let status = pair.b.endpoint.status(pair.now);
    assert_eq!(status[0].remote_id, "@other.example.com".parse().ok());
}

#[test]
fn who_is_no_longer_accepted_goes_at_once() {
    let (setup, mut pair) = before(1);
    pair.start();
    pair.run_for(SECOND);
    let mut theirs = mirror(&setup.connection, StartAction::None);
    theirs.remote.id = "@somebody.example.com".parse().ok();
    load(&mut pair, End::B, &config(vec![theirs]));
    pair.run_for(Duration::from_millis(100));
    assert!(pair.b.plane.inbound.is_empty());
    assert!(pair.a.plane.inbound.is_empty());
}

#[test]
fn what_an_operator_closed_stays_closed() {
    let (setup, mut pair) = before(1);
    pair.start();
    pair.run_until_idle();
    let close = Command::Terminate {
        connection: HOSTS.to_owned(),
        child: None,
    };
    pair.command(End::A, close).expect("sound");
    pair.run_until_idle();
    let (a, _) = configs(&Change::Times.of(&setup));
    load(&mut pair, End::A, &a);
    pair.run_for(200 * SECOND);
    assert!(pair.a.plane.inbound.is_empty());
}
