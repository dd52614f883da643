//! Messages that are too long for a packet: IKE fragmentation (RFC 7383) between two hosts.

use std::time::Duration;

use obol_ike::config::{Fragmentation, FragmentationMode, Mode, StartAction};
use obol_ike::event::{Command, Event};
use obol_ike::proposal::IkeProposal;
use obol_ike::testing::net::{Net, Packet};
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, child};
use obol_ike::wire::{ExchangeType, Message, NotifyType, Payload};

/// What UDP and IPv4 put before a message.
const HEADERS: usize = 28;
const AEAD: &str = "aes256gcm16-prfsha256-x25519";
const CBC: &str = "aes256-sha384-x25519";

/// A connection whose messages are long: each side has so many networks.
fn with_networks(seed: u64, count: usize) -> Setup {
    let list = |side: usize| {
        let network = |n| format!("10.{side}.{n}.0/25");
        let all: Vec<String> = (0..count).map(network).collect();
        all.join(" ")
    };
    let nets = child(PODS, Mode::Tunnel, &list(1), &list(2), StartAction::Start);
    Setup::new(seed).children(vec![nets])
}

fn with_suite(mut setup: Setup, suite: &str) -> Setup {
    setup.connection.ike_proposals = IkeProposal::parse(suite).expect("a suite of a test").into();
    setup
}

fn with_fragments(mut setup: Setup, mode: FragmentationMode, size: Option<u16>) -> Setup {
    let size = size.unwrap_or(Fragmentation::DEFAULT_SIZE);
    setup.connection.fragmentation = Fragmentation { mode, size };
    setup
}

/// Which fragment of how many, if it is one.
fn fragment(packet: &Packet) -> Option<(u16, u16)> {
    let message = Message::parse(&packet.datagram).expect("an endpoint's own");
    let protected = message.protected().expect("an endpoint's own")?;
    protected.fragment.map(|f| (f.number, f.total))
}

fn fragments(pair: &Pair) -> usize {
    pair.net.sent.iter().filter_map(fragment).count()
}

fn longest(pair: &Pair) -> usize {
    let lengths = pair.net.sent.iter().map(|packet| packet.datagram.len());
    lengths.max().unwrap_or(0)
}

fn says_that_it_can(packet: &Packet) -> bool {
    let message = Message::parse(&packet.datagram).expect("an endpoint's own");
    message.payloads.iter().any(|raw| {
        let payload = raw.decode().expect("an endpoint's own");
        matches!(payload, Payload::Notify(n) if n.ty == NotifyType::IKEV2_FRAGMENTATION_SUPPORTED
            && n.spi.is_empty() && n.data.is_empty())
    })
}

/// Nothing of any message is left behind.
fn assert_nothing_held(pair: &Pair) {
    for node in [&pair.a, &pair.b] {
        assert_eq!(node.endpoint.fragments_held(), 0);
    }
}

fn rekey_all(pair: &mut Pair) {
    let (connection, child) = (HOSTS.to_owned(), PODS.to_owned());
    for end in [End::A, End::B] {
        let (connection, child) = (connection.clone(), child.clone());
        let rekey = Command::RekeyIke {
            connection: connection.clone(),
        };
        pair.command(end, rekey).expect("it is up");
        pair.run_until_idle();
        pair.run_for(Duration::from_secs(100));
        let rekey = Command::RekeyChild { connection, child };
        pair.command(end, rekey).expect("it is up");
        pair.run_until_idle();
        pair.run_for(Duration::from_secs(100));
    }
}

//= test rfc7383 2.4-2 2.4-4 2.5.1-1 2.5.1-3
#[test]
fn long_messages_of_every_exchange_go_in_fragments_that_fit() {
    for suite in [AEAD, CBC] {
        for (size, most) in [(None, 1280), (Some(600), 600), (Some(256), 256)] {
            let setup = with_suite(with_networks(1, 60), suite);
            let mut pair = with_fragments(setup, FragmentationMode::Yes, size).up(1);
            pair.assert_up(1);
            assert_eq!(
                pair.a
                    .plane
                    .inbound
                    .values()
                    .next()
                    .map(|sa| sa.info.local_ts.len()),
                Some(60)
            );
            rekey_all(&mut pair);
            pair.assert_up(1);
            assert_nothing_held(&pair);
            for exchange in [ExchangeType::IKE_AUTH, ExchangeType::CREATE_CHILD_SA] {
                for response in [false, true] {
                    let cut = pair.net.sent.iter().filter(|packet| {
                        let reply = packet.datagram[19] & 0x20 != 0;
                        packet.datagram[18] == exchange.0 && reply == response
                    });
                    assert!(cut.filter_map(fragment).any(|(_, total)| total >= 2));
                }
            }
            let whole = pair
                .net
                .sent
                .iter()
                .filter(|packet| fragment(packet).is_none());
            assert!(whole.count() > 4, "short messages are not cut");
            let protected = pair.net.sent.iter().filter(|p| p.datagram[18] != 34);
            let longest = protected.map(|p| p.datagram.len() + HEADERS).max();
            assert!(
                longest.is_some_and(|l| l <= most && l + 16 > most),
                "{longest:?} {most}"
            );
        }
    }
}

//= test rfc7383 2.3-1 2.3-2 2.3-3 2.4-1
#[test]
fn who_does_not_want_fragments_neither_says_so_nor_gets_any() {
    for (a, b) in [(true, false), (false, true), (false, false)] {
        let mode = |wants| {
            if wants {
                FragmentationMode::Yes
            } else {
                FragmentationMode::No
            }
        };
        let mut theirs = with_fragments(with_networks(1, 60), mode(b), None).pair(1);
        let mut pair = with_fragments(with_networks(1, 60), mode(a), None).pair(1);
        std::mem::swap(&mut pair.b, &mut theirs.b);
        pair.start();
        pair.run_until_idle();
        pair.assert_up(1);
        assert_eq!(fragments(&pair), 0);
        assert!(longest(&pair) > 2000);
        assert_eq!(says_that_it_can(&pair.net.sent[0]), a);
        assert!(
            !says_that_it_can(&pair.net.sent[1]),
            "only who is asked answers"
        );
    }
    let pair = with_networks(1, 60).up(1);
    assert!(says_that_it_can(&pair.net.sent[0]) && says_that_it_can(&pair.net.sent[1]));
}

#[test]
fn forced_fragments_hold_short_messages_and_informational_ones_stay_whole() {
    for suite in [AEAD, CBC] {
        let setup = with_suite(Setup::started(1), suite);
        let mut setup = with_fragments(setup, FragmentationMode::Force, None);
        setup.connection.dpd_delay = Some(Duration::from_secs(10));
        let mut pair = setup.up(1);
        rekey_all(&mut pair);
        pair.assert_up(1);
        for packet in &pair.net.sent {
            let message = Message::parse(&packet.datagram).expect("an endpoint's own");
            let protected = message.protected().expect("an endpoint's own").is_some();
            let short = message.header.exchange == ExchangeType::INFORMATIONAL;
            let expected = (protected && !short).then_some((1, 1));
            assert_eq!(
                fragment(packet),
                expected,
                "{} octets",
                packet.datagram.len()
            );
        }
        assert!(
            pair.net
                .sent
                .iter()
                .filter(|p| fragment(p).is_none())
                .count()
                > 20
        );
    }
}

#[test]
fn fragments_of_any_number_get_through_where_three_of_ten_are_lost() {
    let (mut up, mut sent) = (0, 0);
    for seed in 0..40 {
        let networks = [4, 20, 40, 60][seed as usize % 4];
        let suite = [AEAD, CBC][seed as usize / 4 % 2];
        let mut setup = with_suite(with_networks(seed, networks), suite)
            .net(Net::seeded(seed).hostile(300, 200));
        setup.settings.retransmit_tries = 20;
        setup.settings.half_open_timeout = Duration::from_secs(600);
        let mut pair = with_fragments(setup, FragmentationMode::Yes, Some(700)).up(seed);
        let again = Command::RekeyChild {
            connection: HOSTS.to_owned(),
            child: PODS.to_owned(),
        };
        pair.command(End::B, again).expect("it is up");
        pair.run_until_idle();
        pair.run_for(Duration::from_secs(300));
        pair.run_until_idle();
        pair.assert_up(1);
        assert_nothing_held(&pair);
        up += 1;
        sent += fragments(&pair);
    }
    println!("{up} of 40 up and rekeyed at 30 % loss and 20 % duplicates, {sent} fragments sent");
    assert_eq!(up, 40);
}

/// How long it takes until the Child SA is up.
fn time_to_up(setup: Setup) -> (Pair, Duration) {
    let mut pair = setup.pair(1);
    let begun = pair.now;
    pair.start();
    let up = |pair: &Pair| pair.a.count(|e| matches!(e, Event::ChildUp(_))) == 1;
    while !up(&pair) && pair.now < begun + Duration::from_secs(120) {
        pair.run_for(Duration::from_millis(100));
    }
    let took = pair.now - begun;
    pair.run_until_idle();
    (pair, took)
}

//= test rfc7383 2.4-3 2.5.1-2 2.5.1-4 2.5.2-1
#[test]
fn what_does_not_get_through_is_cut_smaller_and_stays_so() {
    // What is configured, what the path carries, what is sent in the end.
    let rows = [
        (None, 1260, 576),
        (Some(9000), 1500, 1280),
        (Some(9000), 1000, 576),
    ];
    for suite in [AEAD, CBC] {
        for (size, path, most) in rows {
            let mut setup = with_suite(with_networks(1, 60), suite);
            setup.net.longest = Some(path - HEADERS);
            let (mut pair, took) = time_to_up(with_fragments(setup, FragmentationMode::Yes, size));
            pair.assert_up(1);
            println!("{size:?} over a path of {path}: up in {took:?}");
            assert!(took < Duration::from_secs(15), "{size:?} {path}: {took:?}");
            // From here on both ends know, and lose no time.
            let sent = pair.net.sent.len();
            let rekey = Command::RekeyChild {
                connection: HOSTS.to_owned(),
                child: PODS.to_owned(),
            };
            pair.command(End::B, rekey).expect("it is up");
            pair.run_for(Duration::from_secs(1));
            let exchange = &pair.net.sent[sent..];
            assert!(exchange.iter().any(|packet| fragment(packet).is_some()));
            assert!(
                exchange
                    .iter()
                    .all(|packet| packet.datagram.len() + HEADERS <= most)
            );
            pair.run_until_idle();
            pair.assert_up(1);
            assert_nothing_held(&pair);
        }
    }
}

//= test rfc7383 2.5.2-2 2.5.2-4 2.5.2-6
#[test]
fn each_set_of_a_message_has_more_fragments_than_the_one_before() {
    let setup = with_networks(1, 60);
    let mut pair = with_fragments(setup, FragmentationMode::Yes, Some(9000)).pair(1);
    pair.start();
    // The reply to the first request arrives, and nothing after it.
    pair.run_for(Duration::from_millis(15));
    pair.net.partitioned = true;
    pair.run_until_idle();
    let auth = pair
        .net
        .sent
        .iter()
        .filter(|packet| packet.datagram[18] == ExchangeType::IKE_AUTH.0);
    let mut totals: Vec<u16> = auth
        .map(|p| fragment(p).map_or(0, |(_, total)| total))
        .collect();
    totals.dedup();
    assert_eq!(totals, [0, 2, 5], "0: whole");
    let failed = |e: &Event| matches!(e, Event::IkeFailed { .. });
    assert!(pair.a.count(failed) >= 1, "and in the end it gives up");
}

#[test]
fn fragments_repeated_later_are_the_same_octets() {
    let mut setup = with_networks(1, 60);
    setup.net.delay = (Duration::from_secs(2), Duration::from_secs(2));
    let pair = setup.up(1);
    pair.assert_up(1);
    let key = |packet: &Packet| {
        (
            packet.from,
            packet.datagram[16..28].to_vec(),
            fragment(packet),
        )
    };
    let cut = || pair.net.sent.iter().filter(|p| fragment(p).is_some());
    let mut repeated = 0;
    for packet in cut() {
        let same = cut().filter(|other| key(other) == key(packet));
        let same: Vec<_> = same.collect();
        repeated += same.len() - 1;
        assert!(same.iter().all(|other| other.datagram == packet.datagram));
    }
    assert!(repeated > 4, "{repeated}");
}
