//! Several Child SAs for one child, one for each queue (RFC 9611).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{Child, Config, Connection, StartAction};
use obol_ike::event::{ChildSaId, Command, EspSpi, Event};
use obol_ike::proposal::ChildExchange;
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::scripted::{Scripted, child_payloads};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, mirror};
use obol_ike::wire::{ExchangeType, Notify, NotifyType, Payload};

const SECOND: Duration = Duration::from_secs(1);

/// The tunnel with so many queues at the first host, who begins, and at the second.
fn pair(queues: (u16, u16), net: Net, seed: u64) -> Pair {
    let mut setup = Setup::started(seed).net(net);
    let theirs = config(&setup, queues.1, true);
    setup.connection = connection(&setup, queues.0);
    let b = setup.clone().pair(seed).b;
    let secrets = b.secrets.clone();
    let mut pair = setup.pair(seed);
    pair.b = Node::new(b.address, Config::clone(&theirs), seed * 2 + 2);
    pair.b.secrets = secrets;
    pair
}

fn connection(setup: &Setup, queues: u16) -> Connection {
    let children = setup.connection.children.iter().map(|child| {
        Arc::new(Child {
            queues,
            ..Child::clone(child)
        })
    });
    Connection {
        children: children.collect(),
        ..setup.connection.clone()
    }
}

/// The configuration of the first host, or that of the second, with so many queues.
fn config(setup: &Setup, queues: u16, second: bool) -> Arc<Config> {
    let own = connection(setup, queues);
    let own = match second {
        true => mirror(&own, StartAction::None),
        false => own,
    };
    Arc::new(Config {
        connections: vec![Arc::new(own)],
        settings: setup.settings.clone(),
    })
}

fn reload(pair: &mut Pair, end: End, queues: u16) {
    let config = config(&Setup::started(1), queues, end == End::B);
    let now = pair.now;
    pair.node(end).endpoint.reload(now, config);
}

fn up(queues: (u16, u16), seed: u64) -> Pair {
    let mut pair = pair(queues, Net::seeded(seed), seed);
    pair.start();
    pair.run_for(5 * SECOND);
    pair
}

/// One packet goes out on every SA of both ends, and the other end takes it.
fn use_all(pair: &mut Pair) {
    for (from, to) in [(End::A, End::B), (End::B, End::A), (End::A, End::B)] {
        let out = pair.node(from).plane.outbound.values();
        let spis: Vec<_> = out.map(|sa| sa.info.spi_out).collect();
        for spi in spis {
            let mut inbound = pair.node(to).plane.inbound.values();
            let sa = inbound.find(|sa| sa.info.spi_in == spi);
            let id = sa.expect("the other end takes it").info.id;
            let told = pair.command(to, Command::InboundUsed(id));
            told.expect("it is no question");
        }
        pair.run_for(SECOND);
    }
}

/// Both ends at rest, with so many SAs that packets go out on.
fn assert_queues(pair: &mut Pair, queues: usize) {
    use_all(pair);
    pair.assert_invariants();
    for node in [&pair.a, &pair.b] {
        let out = node.plane.outbound.len();
        assert_eq!((node.plane.inbound.len(), out), (queues, queues));
        let numbers = node.plane.outbound.values().map(|sa| sa.info.queue);
        assert_eq!(numbers.collect::<BTreeSet<_>>().len(), queues);
    }
}

/// The SPIs of all SAs to us tell their queues.
fn assert_told_apart(pair: &Pair) {
    for sa in pair
        .a
        .plane
        .inbound
        .values()
        .chain(pair.b.plane.inbound.values())
    {
        let info = &sa.info;
        assert_eq!(info.spi_in.queue(), info.queue % EspSpi::QUEUES, "{info:?}");
    }
}

/// CREATE_CHILD_SA requests so far.
fn creations(pair: &Pair) -> usize {
    let sent = pair.net.sent.iter().map(|packet| &packet.datagram);
    let asks = |d: &&Vec<u8>| d.get(18) == Some(&36) && d[19] & 0x20 == 0;
    sent.filter(asks).count()
}

fn ids(node: &Node) -> BTreeSet<ChildSaId> {
    node.plane.inbound.keys().copied().collect()
}

#[test]
fn there_are_as_many_as_both_ends_want() {
    for (queues, want) in [
        ((1, 1), 1),
        ((2, 2), 2),
        ((4, 4), 4),
        ((4, 2), 2),
        ((2, 4), 2),
        ((4, 1), 1),
        ((1, 4), 1),
        ((64, 64), 64),
    ] {
        let mut pair = up(queues, 1);
        assert_queues(&mut pair, want);
        // Whoever is refused does not ask again.
        let before = creations(&pair);
        pair.run_for(600 * SECOND);
        assert_eq!(creations(&pair), before, "{queues:?}");
        assert_queues(&mut pair, want);
    }
}

#[test]
fn each_is_rekeyed_by_itself_by_either_end() {
    for end in [End::A, End::B] {
        let mut pair = up((4, 4), 2);
        assert_queues(&mut pair, 4);
        for id in ids(pair.node(end)) {
            let before = ids(pair.node(end));
            let told = pair.command(end, Command::SoftExpired(id));
            told.expect("it is no question");
            pair.run_for(SECOND);
            assert_queues(&mut pair, 4);
            let after = ids(pair.node(end));
            assert_told_apart(&pair);
            let gone: Vec<_> = before.difference(&after).collect();
            assert_eq!(gone, [&id]);
        }
        // And when their time comes.
        let first = ids(&pair.a);
        pair.run_for(4000 * SECOND);
        assert_queues(&mut pair, 4);
        assert!(first.is_disjoint(&ids(&pair.a)));
    }
}

#[test]
fn both_ends_rekey_all_at_once() {
    for seed in 0..20 {
        let mut pair = up((4, 4), seed);
        assert_queues(&mut pair, 4);
        for end in [End::A, End::B] {
            for id in ids(pair.node(end)) {
                let told = pair.command(end, Command::SoftExpired(id));
                told.expect("it is no question");
            }
            pair.run_for(Duration::from_millis(seed));
        }
        pair.run_for(60 * SECOND);
        assert_queues(&mut pair, 4);
    }
}

#[test]
fn both_ends_start_at_once() {
    for seed in 0..20 {
        let mut pair = pair((3, 3), Net::seeded(seed), seed);
        pair.start();
        pair.initiate(End::B, HOSTS);
        pair.run_for(300 * SECOND);
        assert_queues(&mut pair, 3);
    }
}

#[test]
fn a_child_that_both_ends_make_at_once_is_there_once() {
    for seed in 0..20 {
        let mut pair = up((3, 3), seed);
        assert_queues(&mut pair, 3);
        let down = Command::Terminate {
            connection: HOSTS.into(),
            child: Some(PODS.into()),
        };
        pair.command(End::A, down).expect("it is up");
        pair.run_for(5 * SECOND);
        assert!(pair.a.plane.inbound.is_empty() && pair.b.plane.inbound.is_empty());
        let firsts = |pair: &Pair| {
            let first = |event: &&Event| matches!(event, Event::ChildUp(info) if info.queue == 0);
            pair.a.events.iter().filter(first).count()
        };
        let before = firsts(&pair);
        pair.initiate(End::A, HOSTS);
        pair.initiate(End::B, HOSTS);
        pair.run_for(60 * SECOND);
        assert_queues(&mut pair, 3);
        assert!(firsts(&pair) > before);
        let only_first = |sa: &&obol_ike::event::OutboundSa| sa.info.queue == 0;
        assert_eq!(pair.a.plane.outbound.values().filter(only_first).count(), 1);
    }
}

#[test]
fn a_rekey_of_the_ike_sa_takes_them_along() {
    for end in [End::A, End::B] {
        let mut pair = up((3, 3), 3);
        assert_queues(&mut pair, 3);
        let before = ids(&pair.a);
        let rekey = Command::RekeyIke {
            connection: HOSTS.into(),
        };
        let rekeyed = |event: &Event| matches!(event, Event::IkeUp { rekey: true, .. });
        let rekeys = pair.a.count(rekeyed);
        pair.command(end, rekey).expect("it is up");
        pair.run_for(5 * SECOND);
        assert_eq!(pair.a.count(rekeyed), rekeys + 1);
        assert_queues(&mut pair, 3);
        assert_eq!(ids(&pair.a), before);
    }
}

#[test]
fn loss_is_overcome() {
    for seed in 0..20 {
        let mut pair = pair((4, 4), Net::seeded(seed).hostile(30, 10), seed);
        pair.start();
        pair.run_for(900 * SECOND);
        pair.net = Net::seeded(seed);
        pair.run_for(60 * SECOND);
        assert_queues(&mut pair, 4);
    }
}

#[test]
fn they_go_with_the_child_and_come_again() {
    let mut pair = up((3, 3), 4);
    let down = |child: Option<&str>| Command::Terminate {
        connection: HOSTS.into(),
        child: child.map(str::to_owned),
    };
    pair.command(End::A, down(Some(PODS))).expect("it is up");
    pair.run_for(5 * SECOND);
    assert!(pair.a.plane.inbound.is_empty() && pair.b.plane.inbound.is_empty());
    pair.initiate(End::A, HOSTS);
    pair.run_for(5 * SECOND);
    assert_queues(&mut pair, 3);
    pair.command(End::B, down(None)).expect("it is up");
    pair.run_for(Duration::from_millis(500));
    assert!(pair.b.plane.inbound.is_empty());
}

#[test]
fn a_restart_of_either_end_ends_with_as_many() {
    for end in [End::A, End::B] {
        let mut pair = up((3, 3), 5);
        assert_queues(&mut pair, 3);
        pair.restart(end);
        pair.initiate(end, HOSTS);
        pair.run_for(300 * SECOND);
        assert_queues(&mut pair, 3);
    }
}

#[test]
fn a_reload_makes_more_or_takes_some_away() {
    let mut pair = up((1, 4), 6);
    assert_queues(&mut pair, 1);
    let first = ids(&pair.a);
    for (end, queues, want) in [
        (End::A, 4, 4),
        (End::A, 2, 2),
        (End::A, 3, 3),
        (End::B, 2, 2),
        (End::B, 4, 2),
        // It is the first host that asks, and it hears of its own configuration only.
        (End::A, 4, 4),
        (End::B, 1, 1),
    ] {
        reload(&mut pair, end, queues);
        pair.run_for(10 * SECOND);
        assert_queues(&mut pair, want);
        // What there was before goes on.
        assert!(first.is_subset(&ids(&pair.a)), "{end:?} {queues}");
    }
}

/// A request for another Child SA of the tunnel.
fn request() -> Vec<Payload<'static>> {
    let mut payloads = child_payloads(ChildExchange::CreateChildSa(None));
    payloads.insert(1, Payload::Nonce(&[9; 32]));
    payloads.insert(0, Payload::Notify(Notify::resource(7)));
    payloads
}

#[test]
fn a_peer_that_asks_for_too_many_is_told_so() {
    let mut peer = Scripted::established(Setup::new(1));
    let mut payloads = request();
    let reply = peer
        .request(ExchangeType::CREATE_CHILD_SA, &payloads)
        .expect("answered");
    assert_eq!(reply.notifies, [(NotifyType::TS_MAX_QUEUE, Vec::new())]);
    assert_eq!(peer.up(), (1, 1));
    let failed = |event: &Event| matches!(event, Event::ChildFailed { .. });
    assert_eq!(peer.pair.b.count(failed), 0);
    // What the peer says about its resources is no matter.
    payloads[0] = Payload::Notify(Notify::bare(NotifyType::SA_RESOURCE_INFO));
    let reply = peer
        .request(ExchangeType::CREATE_CHILD_SA, &payloads)
        .expect("answered");
    assert_eq!(reply.error(), Some(NotifyType::TS_MAX_QUEUE));
}

#[test]
fn a_peer_that_closes_one_is_not_asked_again() {
    let mut pair = up((3, 3), 7);
    assert_queues(&mut pair, 3);
    let first = *ids(&pair.b).first().expect("it is up");
    let before = creations(&pair);
    pair.command(End::B, Command::HardExpired(first))
        .expect("it is no question");
    pair.run_for(60 * SECOND);
    assert_queues(&mut pair, 2);
    assert_eq!(creations(&pair), before);
    let down = |event: &Event| matches!(event, Event::IkeDown { .. });
    assert_eq!(pair.a.count(down), 0);
}

#[test]
fn one_that_is_used_up_is_made_anew_for_a_thread_that_has_none() {
    let mut pair = up((4, 4), 9);
    for _ in 0..12 {
        assert_queues(&mut pair, 4);
        let before = ids(&pair.a);
        let oldest = *before.first().expect("it is up");
        pair.command(End::A, Command::HardExpired(oldest))
            .expect("it is no question");
        pair.run_for(5 * SECOND);
        assert_queues(&mut pair, 4);
        assert_told_apart(&pair);
        assert!(!ids(&pair.a).contains(&oldest));
        for node in [&pair.a, &pair.b] {
            let threads = node.plane.outbound.values().map(|sa| sa.info.queue % 4);
            assert_eq!(threads.collect::<BTreeSet<_>>().len(), 4);
        }
    }
}

#[test]
fn one_that_the_data_plane_refuses_is_done_without() {
    for end in [End::A, End::B] {
        let mut pair = pair((3, 3), Net::seeded(8), 8);
        pair.start();
        let begun = pair.now + 5 * SECOND;
        pair.run_until(begun, |pair| !pair.a.plane.outbound.is_empty());
        pair.node(end).plane.fail_inbound = 1;
        pair.run_for(60 * SECOND);
        assert_eq!(pair.node(end).plane.fail_inbound, 0, "it was refused");
        let before = creations(&pair);
        pair.run_for(600 * SECOND);
        assert_eq!(creations(&pair), before);
        assert_eq!(pair.a.plane.outbound.len(), pair.b.plane.outbound.len());
        let left = pair.a.plane.outbound.len();
        assert!((1..3).contains(&left), "{left}");
        use_all(&mut pair);
        pair.assert_invariants();
    }
}

#[test]
fn the_notifies_on_the_wire() {
    let octets = |notify: Notify<'_>| {
        let mut chain = Vec::new();
        let payloads = [Payload::Notify(notify)];
        obol_ike::wire::emit_chain(&payloads, &mut chain).expect("short");
        chain
    };
    let resource = octets(Notify::resource(0x0102));
    assert_eq!(resource, b"\0\0\0\x0a\0\0\x40\x3c\x01\x02");
    let enough = octets(Notify::bare(NotifyType::TS_MAX_QUEUE));
    assert_eq!(enough, b"\0\0\0\x08\0\0\0\x30");
}
