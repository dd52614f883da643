//! Client puzzles, RFC 8019: a responder under attack, and initiators that solve or do not.

use std::time::Duration;

use obol_ike::error::Dropped;
use obol_ike::event::Event;
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::Pair;
use obol_ike::testing::setup::Setup;
use obol_ike::wire::{
    ExchangeType, Flags, Header, Message, Notify, NotifyType, Payload, PayloadType, emit_message,
};

/// The second host takes every request for an attack; the first solves up to `most` bits.
fn pair(difficulty: u8, most: u8, seed: u64) -> Pair {
    let mut setup = Setup::started(seed);
    setup.settings.cookie_threshold = 0;
    setup.settings.puzzles.threshold = 0;
    setup.settings.puzzles.difficulty = difficulty;
    setup.settings.puzzles.most = most;
    setup.pair(seed)
}

fn requests(pair: &Pair) -> Vec<&Packet> {
    let init = |p: &&Packet| {
        Header::parse(&p.datagram)
            .is_ok_and(|h| h.exchange == ExchangeType::IKE_SA_INIT && !h.flags.response)
    };
    pair.net.sent.iter().filter(init).collect()
}

fn payload_types(packet: &Packet) -> Vec<PayloadType> {
    let message = Message::parse(&packet.datagram).expect("the endpoint's own");
    message.payloads.iter().map(|raw| raw.ty).collect()
}

fn up(pair: &Pair) -> bool {
    pair.a.count(|e| matches!(e, Event::ChildUp(_))) == 1
}

#[test]
fn who_solves_the_puzzle_is_served() {
    for difficulty in [0, 1, 6, 9] {
        let mut pair = pair(difficulty, 20, 1);
        pair.start();
        pair.run_for(Duration::from_millis(500));
        pair.assert_up(1);
        let [first, second] = requests(&pair)[..] else {
            panic!("two requests");
        };
        assert!(!payload_types(first).contains(&PayloadType::PS));
        // RFC 8019 section 7.1.2: the cookie, then the solution, then the rest.
        let types = payload_types(second);
        assert_eq!(
            types[..3],
            [PayloadType::NOTIFY, PayloadType::PS, PayloadType::SA]
        );
        let asked = &pair.net.sent[1].datagram;
        assert!(
            asked.len() <= first.datagram.len(),
            "no longer than the request"
        );
    }
}

#[test]
fn who_does_not_solve_has_some_chance() {
    let (mut at_once, mut late, mut refused) = (0, 0, 0);
    for seed in 0..40 {
        // The puzzle is harder than the first host would solve.
        let mut pair = pair(9, 8, seed);
        pair.start();
        pair.run_for(Duration::from_millis(500));
        at_once += u32::from(up(&pair));
        pair.run_for(Duration::from_secs(100));
        late += u32::from(up(&pair));
        refused += u32::from(pair.b.dropped.contains_key(&Dropped::Puzzle));
        let solved = |p: &&&Packet| payload_types(p).contains(&PayloadType::PS);
        assert_eq!(requests(&pair).iter().filter(solved).count(), 0);
    }
    println!("of 40 without solution: {at_once} served at once, {late} in the end");
    assert!((1..30).contains(&at_once), "{at_once}");
    assert!(late > at_once && refused > 0);
}

#[test]
fn one_solution_is_for_one_request() {
    let mut pair = pair(9, 20, 1);
    pair.start();
    pair.run_for(Duration::from_millis(500));
    let solved = (*requests(&pair).last().expect("it was solved")).clone();
    let served = |pair: &Pair| pair.b.endpoint.status(pair.now).len();
    let before = served(&pair);
    for n in 0..100u32 {
        let mut altered = solved.clone();
        // Within the hash of an address, which may say anything.
        let at = altered.datagram.len() - 22;
        altered.datagram[at..at + 4].copy_from_slice(&n.to_be_bytes());
        pair.net.inject(pair.now, altered);
    }
    pair.run_for(Duration::ZERO);
    let more = served(&pair) - before;
    println!("a solution used 100 times more: {more} served by luck");
    assert!(more < 50, "{more}");
    assert_eq!(pair.b.dropped[&Dropped::Puzzle], 100 - more);
}

#[test]
fn a_puzzle_without_cookie_is_passed_over() {
    let mut pair = pair(5, 20, 1);
    pair.start();
    let first = pair.net.sent[0].clone();
    let header = Header::parse(&first.datagram).expect("the endpoint's own");
    let flags = Flags {
        response: true,
        ..Flags::default()
    };
    let spi_r = header.spi_r;
    let reply = Header::new(header.spi_i, spi_r, ExchangeType::IKE_SA_INIT, flags, 0);
    let puzzle = Notify::with_data(NotifyType::PUZZLE, vec![0, 5, 1]);
    pair.net.inject(
        pair.now,
        Packet {
            from: first.to,
            to: first.from,
            datagram: emit_message(&reply, &[Payload::Notify(puzzle)]).expect("short"),
        },
    );
    pair.run_for(Duration::from_millis(500));
    assert_eq!(pair.a.dropped[&Dropped::Malformed], 1);
    pair.assert_up(1);
}

#[test]
fn below_the_threshold_nobody_is_asked() {
    let mut setup = Setup::started(1);
    setup.settings.cookie_threshold = 0;
    let pair = setup.up(1);
    pair.assert_up(1);
    let solved = |p: &&&Packet| payload_types(p).contains(&PayloadType::PS);
    assert_eq!(requests(&pair).iter().filter(solved).count(), 0);
}
