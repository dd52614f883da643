//! What stands in IKE Fragment messages, and what is done with those that are not whole: RFC 7383.

use std::collections::BTreeMap;
use std::time::Duration;

use obol_ike::config::{Fragmentation, FragmentationMode, Mode, StartAction};
use obol_ike::error::Dropped;
use obol_ike::event::Event;
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::Pair;
use obol_ike::testing::setup::{PODS, Setup, child};
use obol_ike::wire::{Fragment, HEADER_LEN, Message, PayloadType};

/// A connection whose messages are long.
fn long(seed: u64, size: u16) -> Setup {
    let list = |side: usize| {
        let all: Vec<String> = (0..60).map(|n| format!("10.{side}.{n}.0/25")).collect();
        all.join(" ")
    };
    let nets = child(PODS, Mode::Tunnel, &list(1), &list(2), StartAction::Start);
    let mut setup = Setup::new(seed).children(vec![nets]);
    let mode = FragmentationMode::Yes;
    setup.connection.fragmentation = Fragmentation { mode, size };
    setup
}

fn fragment(packet: &Packet) -> Option<Fragment> {
    let message = Message::parse(&packet.datagram).expect("an endpoint's own");
    message.protected().expect("an endpoint's own")?.fragment
}

//= test rfc7383 2.5-1 2.5-2 2.5-3 2.5-4 2.5-5 2.5-6 2.5-7
#[test]
fn the_first_fragment_names_the_first_payload_and_all_have_the_header_of_the_message() {
    let pair = long(1, 600).up(1);
    pair.assert_up(1);
    let mut headers: BTreeMap<(Vec<u8>, u32), Vec<u8>> = BTreeMap::new();
    let mut seen = 0;
    for packet in &pair.net.sent {
        let Some(fragment) = fragment(packet) else {
            continue;
        };
        seen += 1;
        assert!(fragment.number >= 1 && fragment.number <= fragment.total);
        let message = Message::parse(&packet.datagram).expect("sound");
        assert_eq!(message.payloads.len(), 1, "the last, and here the only one");
        assert_eq!(message.header.next_payload, PayloadType::SKF);
        let inner = PayloadType(packet.datagram[HEADER_LEN]);
        match fragment.number {
            1 => assert!([PayloadType::ID_I, PayloadType::ID_R].contains(&inner)),
            _ => assert_eq!(inner, PayloadType::NONE),
        }
        // SPIs, version, exchange, flags and Message ID.
        let header = packet.datagram[..24].to_vec();
        let key = (
            packet.from.to_string().into_bytes(),
            message.header.message_id,
        );
        assert_eq!(
            headers.entry(key).or_insert_with(|| header.clone()),
            &header
        );
    }
    assert!(seen > 6, "{seen} fragments");
}

/// The first fragment that arrives at the second host, before it does.
fn first_fragment(pair: &mut Pair) -> Packet {
    pair.start();
    loop {
        pair.run_for(Duration::from_millis(1));
        if let Some(packet) = pair.net.sent.iter().find(|p| fragment(p).is_some()) {
            return packet.clone();
        }
    }
}

//= test rfc7383 2.6-1 2.6-3
//= test security S-41
#[test]
fn altered_fragments_are_dropped_and_the_true_ones_still_count() {
    let mut pair = long(1, 600).pair(1);
    let packet = first_fragment(&mut pair);
    let mut altered = 0;
    for at in HEADER_LEN + 4..packet.datagram.len() {
        let mut forged = packet.clone();
        forged.datagram[at] ^= 0x40;
        pair.net.inject(pair.now, forged);
        altered += 1;
    }
    pair.run_for(Duration::ZERO);
    let dropped: usize = [Dropped::Integrity, Dropped::FragmentNumber]
        .iter()
        .filter_map(|reason| pair.b.dropped.get(reason))
        .sum();
    assert_eq!(dropped, altered);
    assert_eq!(pair.b.endpoint.fragments_held(), 0);
    assert_eq!(pair.b.count(|e| matches!(e, Event::IkeFailed { .. })), 0);
    pair.run_until_idle();
    pair.assert_up(1);
}

//= test rfc7383 2.5.2-2 2.5.2-3 2.5.2-4
#[test]
fn a_smaller_size_begins_its_repetitions_anew() {
    let mut pair = long(1, 9000).pair(1);
    pair.start();
    // The reply to the first request arrives, and nothing after it.
    pair.run_for(Duration::from_millis(15));
    pair.net.partitioned = true;
    // When datagrams went out, and of how many fragments.
    let mut rounds: Vec<(u64, u16)> = Vec::new();
    let mut seen = pair.net.sent.len();
    for tenth in 0..3000 {
        pair.run_for(Duration::from_millis(100));
        if pair.net.sent.len() > seen && pair.net.sent[seen].datagram[18] == 35 {
            let total = fragment(&pair.net.sent[seen]).map_or(0, |f| f.total);
            rounds.push((tenth, total));
        }
        seen = pair.net.sent.len();
    }
    let gaps = |total: u16| -> Vec<u64> {
        let of_total: Vec<u64> = rounds
            .iter()
            .filter(|r| r.1 == total)
            .map(|r| r.0)
            .collect();
        of_total.windows(2).map(|pair| pair[1] - pair[0]).collect()
    };
    let mut totals: Vec<u16> = rounds.iter().map(|round| round.1).collect();
    totals.dedup();
    assert!(totals.len() >= 3 && totals.is_sorted(), "{totals:?}");
    // Each size begins with the shortest pause, and the last one goes on to the end.
    for total in &totals[1..] {
        assert!(gaps(*total)[0] <= 11, "{total}: {:?}", gaps(*total));
    }
    let last = gaps(*totals.last().expect("some"));
    assert!(
        last.len() >= 7 && last.is_sorted_by(|a, b| *a <= b + 1),
        "{last:?}"
    );
}
