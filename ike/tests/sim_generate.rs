//! What a peer gets that no child is about, where a connection says so: packets between this host and the
//! peer's own address that no policy is about, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{Child, Config, Generate, Mode, StartAction};
use obol_ike::error::ChildFailure;
use obol_ike::event::Event;
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{HOSTS, Setup, child, mirror};
use obol_ike::ts::TrafficSelector;

const SECOND: Duration = Duration::from_secs(1);

fn transport(name: &str, local: &str, remote: &str) -> Child {
    child(name, Mode::Transport, local, remote, StartAction::None)
}

fn tunnel(local: &str, remote: &str) -> Child {
    child("net", Mode::Tunnel, local, remote, StartAction::None)
}

/// From the second host's side: `LOCAL=REMOTE`.
fn generate(except: &[&str]) -> Generate {
    let pair = |text: &&str| {
        let (local, remote) = text.split_once('=').expect("two sides");
        let parse = |text: &str| vec![text.parse::<TrafficSelector>().expect("a selector")];
        (parse(local), parse(remote))
    };
    Generate {
        like: transport("like", "", ""),
        except: except.iter().map(pair).collect(),
    }
}

/// The first host with these children, the second with those (as the first one sees them) and what it
/// makes for peers.
fn hosts(ours: Vec<Child>, theirs: Vec<Child>, generate: Option<Generate>) -> Pair {
    let mut pair = Setup::new(1).children(ours).pair(1);
    let mut setup = Setup::new(1).children(theirs);
    setup.connection.generate = generate;
    pair.b = setup.pair(1).b;
    pair
}

/// What the second host makes of one child of the first.
fn granted(ours: Child, theirs: Vec<Child>, except: &[&str]) -> Vec<String> {
    let mut pair = hosts(vec![ours], theirs, Some(generate(except)));
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    pair.assert_invariants();
    names(&pair.b)
}

fn names(node: &Node) -> Vec<String> {
    let sas = node.plane.outbound.values();
    let mut names: Vec<String> = sas.map(|sa| sa.info.child.clone()).collect();
    names.sort();
    names
}

fn failures(node: &Node) -> Vec<&ChildFailure> {
    let events = node.events.iter();
    let failures = events.filter_map(|event| match event {
        Event::ChildFailed { reason, .. } => Some(reason),
        _ => None,
    });
    failures.collect()
}

const MONGODB: &str = "generated:transport:192.168.0.2[tcp/27017]=192.168.0.1[tcp]";

fn mongodb() -> Child {
    transport("client", "192.168.0.0/16[tcp]", "192.168.0.0/16[tcp/27017]")
}

#[test]
fn a_peer_gets_what_it_asks_for() {
    assert_eq!(granted(mongodb(), Vec::new(), &[]), [MONGODB]);
    // A child of another subject does not matter.
    let other = transport("ssh", "192.168.0.1[tcp]", "192.168.0.2[tcp/22]");
    assert_eq!(granted(mongodb(), vec![other], &[]), [MONGODB]);
    // In tunnel mode, this host may have networks behind it.
    let net = tunnel("192.168.0.1", "10.2.0.0/16");
    assert_eq!(
        granted(net, Vec::new(), &[]),
        ["generated:tunnel:10.2.0.0/16=192.168.0.1"]
    );
}

#[test]
fn nothing_is_made_where_nobody_asked_for_it() {
    let mut pair = hosts(vec![mongodb()], Vec::new(), None);
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    pair.assert_up(0);
    assert_eq!(failures(&pair.b), [&ChildFailure::TsUnacceptable]);
}

#[test]
fn packets_of_other_hosts_are_not_the_peers_to_ask_for() {
    for (name, ours, expected) in [
        ("another host", tunnel("192.168.0.9", "192.168.0.2"), None),
        (
            "a network beside it",
            tunnel("10.9.0.0/16", "10.2.0.0/16"),
            None,
        ),
        (
            "a network that it is in",
            tunnel("192.168.0.0/16", "10.2.0.0/16"),
            Some("generated:tunnel:10.2.0.0/16=192.168.0.1"),
        ),
        (
            "everything",
            tunnel("0.0.0.0/0", "0.0.0.0/0"),
            Some("generated:tunnel:0.0.0.0/0=192.168.0.1"),
        ),
        ("the other family", tunnel("::/0", "::/0"), None),
    ] {
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(granted(ours, Vec::new(), &[]), expected, "{name}");
    }
}

#[test]
fn what_a_policy_is_about_is_not_made_anew() {
    for (name, theirs, except, expected) in [
        (
            "dropped",
            vec![],
            &["192.168.0.2[tcp/27017]=0.0.0.0/0"][..],
            &[][..],
        ),
        (
            "a part of it passes",
            vec![],
            &["0.0.0.0/0=192.168.0.1[tcp/40000]"],
            &[],
        ),
        ("beside it", vec![], &["0.0.0.0/0=192.168.0.7"], &[MONGODB]),
        (
            "another port",
            vec![],
            &["192.168.0.2[tcp/22]=0.0.0.0/0"],
            &[MONGODB],
        ),
        // The child decides, also where it refuses.
        (
            "a child in tunnel mode",
            vec![child(
                "net",
                Mode::Tunnel,
                "192.168.0.1",
                "192.168.0.2",
                StartAction::None,
            )],
            &[],
            &[],
        ),
        (
            "a child of a part of it",
            vec![transport(
                "one",
                "192.168.0.1[tcp/40000]",
                "192.168.0.2[tcp/27017]",
            )],
            &[],
            &["one"],
        ),
    ] {
        assert_eq!(granted(mongodb(), theirs, except), expected, "{name}");
    }
}

#[test]
fn nothing_is_made_through_a_nat() {
    let mut pair = hosts(vec![mongodb()], Vec::new(), Some(generate(&[])));
    // It looks as if there were one.
    let mut setup = Setup::new(1).children(vec![mongodb()]);
    setup.connection.force_encap = true;
    pair.a = setup.pair(1).a;
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    assert_eq!(names(&pair.b), [""; 0]);
    assert_eq!(failures(&pair.b), [&ChildFailure::TsUnacceptable]);
}

#[test]
fn a_peer_gets_sixteen_and_no_more() {
    let one = |port: u16| {
        let remote = format!("192.168.0.2[tcp/{port}]");
        transport(&format!("to-{port}"), "192.168.0.1[tcp]", &remote)
    };
    let mut pair = hosts((1..=17).map(one).collect(), Vec::new(), Some(generate(&[])));
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    pair.assert_up(16);
    assert_eq!(pair.a.count(|e| matches!(e, Event::ChildFailed { .. })), 1);
}

#[test]
fn either_end_makes_new_keys_and_the_name_stays() {
    for (ours, theirs) in [(1000, 3000), (3000, 1000)] {
        let mut made = generate(&[]);
        made.like.rekey_time = theirs * SECOND;
        let mut client = mongodb();
        client.rekey_time = ours * SECOND;
        let mut pair = hosts(vec![client], Vec::new(), Some(made));
        pair.initiate(End::A, HOSTS);
        pair.run_for(2500 * SECOND);
        pair.assert_up(1);
        assert_eq!(names(&pair.b), [MONGODB]);
        let up = pair.b.count(|e| matches!(e, Event::ChildUp(_)));
        assert!(up >= 3, "{up}");
        assert_eq!(pair.b.count(|e| matches!(e, Event::ChildFailed { .. })), 0);
    }
}

/// How the Child SA of the second host ended, if it did: `true` is by nobody's doing.
fn ended(node: &Node) -> Vec<bool> {
    let events = node.events.iter();
    let ends = events.filter_map(|event| match event {
        Event::ChildDown { expired, .. } => Some(*expired),
        _ => None,
    });
    ends.collect()
}

#[test]
fn another_configuration_keeps_it_or_closes_it() {
    let mut slower = generate(&[]);
    slower.like.rekey_time = 2000 * SECOND;
    for (name, after, stays) in [
        ("the same", Some(generate(&[])), true),
        ("other times", Some(slower), true),
        (
            "beside it",
            Some(generate(&["0.0.0.0/0=192.168.0.7"])),
            true,
        ),
        (
            "for others",
            Some(generate(&["0.0.0.0/0=192.168.0.1"])),
            false,
        ),
        ("no more", None, false),
    ] {
        let mut pair = hosts(vec![mongodb()], Vec::new(), Some(generate(&[])));
        pair.initiate(End::A, HOSTS);
        pair.run_until_idle();
        pair.assert_up(1);
        let mut connection = mirror(
            &Setup::new(1).children(Vec::new()).connection,
            StartAction::None,
        );
        connection.generate = after;
        // Something else that is new.
        connection.dpd_delay = Some(50 * SECOND);
        let config = Config {
            connections: vec![Arc::new(connection)],
            ..Config::default()
        };
        let now = pair.now;
        pair.b.endpoint.reload(now, Arc::new(config));
        pair.run_for(10 * SECOND);
        assert_eq!(names(&pair.b), [MONGODB][usize::from(!stays)..], "{name}");
        assert_eq!(ended(&pair.b), [false][usize::from(stays)..], "{name}");
    }
}

#[test]
fn an_end_by_nobodys_doing_is_told_from_others() {
    let up = || {
        let mut made = generate(&[]);
        made.like.rekey_time = 10_000 * SECOND;
        made.like.life_time = 1000 * SECOND;
        let mut pair = hosts(vec![mongodb()], Vec::new(), Some(made));
        pair.initiate(End::A, HOSTS);
        pair.run_until_idle();
        pair
    };
    let mut pair = up();
    let connection = HOSTS.to_owned();
    let close = obol_ike::event::Command::Terminate {
        connection,
        child: None,
    };
    pair.command(End::A, close).expect("known");
    pair.run_until_idle();
    assert_eq!(ended(&pair.b), [false], "closed by the peer");
    let mut pair = up();
    pair.run_for(1001 * SECOND);
    assert_eq!(ended(&pair.b), [true], "its time is over");
    let mut pair = up();
    pair.net.partitioned = true;
    let connection = HOSTS.to_owned();
    let close = obol_ike::event::Command::Terminate {
        connection,
        child: None,
    };
    pair.command(End::B, close).expect("known");
    pair.run_for(300 * SECOND);
    assert_eq!(ended(&pair.b), [false], "an operator");
}
