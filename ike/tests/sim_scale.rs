//! What one message, command or deadline costs does not depend on how many IKE SAs and
//! connections there are. Counted is work, never time.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{Child, Config, Connection, Mode, RemoteAuth, Settings, StartAction};
use obol_ike::event::{Command, Event};
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{A, B, HOSTS, ID_A, ID_B, PODS, child, connection, mirror, pods};

const SECRET: &[u8] = b"a secret for tests";

/// How the responder tells its peers apart.
#[derive(Clone, Copy)]
enum Peers {
    /// A connection for each identity, between the same two addresses.
    Identities,
    /// A connection for each address; all but one are of others.
    Addresses,
    /// One connection for whoever comes; all come from one address, as behind a NAT.
    Anybody,
}

fn initiator(n: usize) -> Connection {
    let network = format!("10.{}.{}.0/24", n / 256, n % 256);
    let start = StartAction::None;
    let child = child(PODS, Mode::Tunnel, &network, "172.16.2.0/24", start);
    let mut connection = connection(vec![child]);
    connection.name = format!("{HOSTS}{n}");
    connection.local.id = Some(identity(n));
    connection
}

fn identity(n: usize) -> obol_ike::identity::Identity {
    format!("@host{n}.example.com")
        .parse()
        .expect("a host name")
}

/// Two hosts with so many connections, of which both use the last ones.
fn pair(connections: usize, peers: Peers) -> Pair {
    let settings = Settings {
        half_open_limit: 100_000,
        cookie_threshold: 100_000,
        ..Settings::default()
    };
    let ours: Vec<Connection> = (0..connections).map(initiator).collect();
    let theirs = ours.iter().enumerate().map(|(n, connection)| {
        let mut theirs = mirror(connection, StartAction::None);
        theirs.remote = RemoteAuth {
            id: Some(identity(n)),
            ..theirs.remote
        };
        if matches!(peers, Peers::Addresses) && n + 1 < connections {
            let n = u32::try_from(n).expect("few");
            theirs.remote_addrs = vec![IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n))];
        }
        if matches!(peers, Peers::Anybody) {
            theirs.remote_addrs.clear();
            theirs.remote.id = None;
            theirs.children = vec![Arc::new(Child {
                remote_ts: vec!["10.0.0.0/8".parse().expect("a network")],
                ..Child::clone(&theirs.children[0])
            })];
        }
        theirs
    });
    let theirs = theirs.take(match peers {
        Peers::Anybody => 1,
        _ => connections,
    });
    let config = |connections: Vec<Connection>| Config {
        connections: connections.into_iter().map(Arc::new).collect(),
        settings: settings.clone(),
    };
    let theirs = theirs.collect();
    let mut a = Node::new(A, config(ours), 1);
    let mut b = Node::new(B, config(theirs), 2);
    for n in 0..connections {
        let own = format!("@host{n}.example.com");
        a = a.with_secret(&own, ID_B, SECRET);
        b = b.with_secret(&own, ID_B, SECRET);
    }
    Pair::new(a, b, Net::seeded(3))
}

fn name(n: usize) -> String {
    format!("{HOSTS}{n}")
}

fn visits(pair: &Pair) -> u64 {
    pair.a.endpoint.visits() + pair.b.endpoint.visits()
}

const LIFE: [&str; 4] = ["handshake", "IKE rekey", "child rekey", "end"];

/// The work of each part of a life.
fn life(pair: &mut Pair, n: usize) -> [u64; 4] {
    let steps: [&dyn Fn(&mut Pair); 4] = [
        &|pair| pair.initiate(End::A, &name(n)),
        &|pair| {
            let connection = name(n);
            pair.command(End::A, Command::RekeyIke { connection })
                .expect("it is up");
        },
        &|pair| {
            let (connection, child) = (name(n), PODS.to_owned());
            pair.command(End::A, Command::RekeyChild { connection, child })
                .expect("it is up");
        },
        &|pair| {
            let (connection, child) = (name(n), None);
            pair.command(End::A, Command::Terminate { connection, child })
                .expect("it is up");
        },
    ];
    steps.map(|step| {
        let before = visits(pair);
        step(pair);
        pair.run_until_idle();
        visits(pair) - before
    })
}

fn up(pair: &Pair) -> usize {
    pair.b
        .count(|event| matches!(event, Event::IkeUp { rekey: false, .. }))
}

#[test]
fn a_look_at_one_connection_costs_the_same_beside_many_others() {
    let many = 300;
    let mut crowd = pair(many, Peers::Identities);
    for n in 0..many - 1 {
        crowd.initiate(End::A, &name(n));
    }
    crowd.run_until_idle();
    let before = visits(&crowd);
    let a = &crowd.a.endpoint;
    assert!(a.is_established(&name(7), Some(PODS)) && a.is_established(&name(7), None));
    assert!(a.has(&name(7), Some(PODS)) && !a.has(&name(7), Some("other")));
    assert!(!a.has(&name(many - 1), None) && !a.is_established(&name(many - 1), Some(PODS)));
    let connection = name(7);
    let down = Command::Terminate {
        connection: connection.clone(),
        child: None,
    };
    assert!(visits(&crowd) - before <= 6);
    crowd.command(End::A, down).expect("it is up");
    let a = &crowd.a.endpoint;
    assert!(a.has(&connection, None) && !a.is_established(&connection, None));
}

#[test]
fn the_work_of_a_life_is_the_same_beside_many_others() {
    for peers in [Peers::Identities, Peers::Addresses, Peers::Anybody] {
        let mut alone = pair(1, peers);
        let first = life(&mut alone, 0);
        assert_eq!(up(&alone), 1);

        let many = 300;
        let mut crowd = pair(many, peers);
        if !matches!(peers, Peers::Addresses) {
            for n in 0..many - 1 {
                crowd.initiate(End::A, &name(n));
            }
            crowd.run_until_idle();
            assert_eq!(up(&crowd), many - 1);
        }
        let before = up(&crowd);
        let last = life(&mut crowd, many - 1);
        assert_eq!(up(&crowd), before + 1);
        // What was done last before may be looked at once more.
        for (what, (first, last)) in LIFE.iter().zip(first.into_iter().zip(last)) {
            assert!(
                last <= first + 4,
                "{what}: {first} alone, {last} beside many"
            );
        }
    }
}

#[test]
fn deadlines_of_some_do_not_touch_others() {
    let mut crowd = pair(200, Peers::Identities);
    for n in 0..200 {
        crowd.initiate(End::A, &name(n));
        crowd.run_for(Duration::from_secs(30));
    }
    assert_eq!(up(&crowd), 200);
    // All Child SAs are rekeyed once, each at its own time.
    let before = visits(&crowd);
    crowd.run_for(Duration::from_secs(3600));
    let rekeys = crowd.a.count(|event| matches!(event, Event::ChildUp(_))) as u64 - 200;
    assert!(rekeys >= 200, "{rekeys}");
    let each = (visits(&crowd) - before) / rekeys;
    assert!(each < 150, "{each} for each rekey");
}

#[test]
fn junk_for_known_spis_is_not_looked_at_twice() {
    let mut crowd = pair(100, Peers::Identities);
    for n in 0..100 {
        crowd.initiate(End::A, &name(n));
    }
    crowd.run_until_idle();
    let sas = crowd.b.endpoint.status(crowd.now);
    let before = crowd.b.endpoint.visits();
    let now = crowd.now;
    for sa in sas.iter().cycle().take(10_000) {
        let mut junk = [&sa.spi_i.0.to_be_bytes()[..], &sa.spi_r.0.to_be_bytes()].concat();
        junk.extend([46, 0x20, 37, 0x08, 0, 0, 0, 1, 0, 0, 0, 60, 0, 0, 0, 32]);
        junk.extend([7; 28]);
        let dropped = crowd.b.endpoint.handle_datagram(now, sa.path, &junk);
        assert!(dropped.is_err());
    }
    assert!(crowd.b.endpoint.visits() - before <= 30_000);
}

#[test]
fn wishes_that_cannot_come_true_cost_by_their_own_tries_only() {
    let start = |n: usize| {
        let mut connection = connection(vec![pods(StartAction::Start)]);
        connection.name = name(n);
        connection.local.id = Some(identity(n));
        connection
    };
    let work = |connections: usize| {
        let config = Config {
            connections: (0..connections).map(|n| Arc::new(start(n))).collect(),
            settings: Settings::default(),
        };
        let a = Node::new(A, config, 1).with_secret(ID_A, ID_B, SECRET);
        let b = Node::new(B, Config::default(), 2);
        let mut pair = Pair::new(a, b, Net::seeded(3));
        pair.start();
        pair.run_for(Duration::from_secs(600));
        assert!(
            pair.a
                .count(|event| matches!(event, Event::IkeFailed { .. }))
                >= connections
        );
        pair.a.endpoint.visits() / connections as u64
    };
    let (few, many) = (work(2), work(200));
    assert!(
        many <= few * 3 / 2,
        "{few} for each of few, {many} for each of many"
    );
}
