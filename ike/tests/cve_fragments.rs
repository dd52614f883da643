//! Fragments from peers that mean no good: what has gone wrong in other IKE daemons, by name, and
//! floods with their numbers.

use std::time::Duration;

use obol_ike::config::FragmentationMode;
use obol_ike::error::Dropped;
use obol_ike::testing::scripted::Scripted;
use obol_ike::testing::setup::{ID_A, Setup};
use obol_ike::wire::{ExchangeType, MAX_PAYLOADS, NotifyType, Payload, PayloadType, emit_chain};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

const AUTH: ExchangeType = ExchangeType::IKE_AUTH;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;
const KIB: usize = 1024;

type Chain = (PayloadType, Vec<u8>);

/// So many vendor IDs of so many octets each, which a receiver ignores.
fn vendor_ids(count: usize, len: usize) -> Chain {
    let data = vec![7; len];
    let payloads = vec![Payload::VendorId(&data); count];
    let mut chain = Vec::new();
    let first = emit_chain(&payloads, &mut chain).expect("short payloads");
    (first, chain)
}

fn held(peer: &Scripted) -> usize {
    peer.pair.b.endpoint.fragments_held()
}

/// Shuffled by the seed.
fn shuffled<T>(mut items: Vec<T>, seed: u64) -> Vec<T> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    for at in (1..items.len()).rev() {
        items.swap(at, rng.next_u32() as usize % (at + 1));
    }
    items
}

/// A host that lets many peers begin.
fn open_to_many() -> Setup {
    let mut setup = Setup::new(1);
    setup.settings.cookie_threshold = 1_000_000;
    setup.settings.half_open_limit = 1_000_000;
    setup
}

#[test]
fn skf_with_max_minus_one_max_max_plus_one_payloads() {
    for count in [MAX_PAYLOADS - 1, MAX_PAYLOADS, MAX_PAYLOADS + 1] {
        let mut peer = Scripted::established(Setup::new(1));
        let fragments = peer.cut(INFORMATIONAL, &vendor_ids(count, 20), 100);
        let (last, others) = fragments.split_last().expect("many");
        for fragment in others {
            assert_eq!(peer.give(fragment), Ok(0));
        }
        assert_eq!(peer.give(last), Ok(1), "answered once it is whole");
        let refused = peer.last_reply().error() == Some(NotifyType::INVALID_SYNTAX);
        assert_eq!(refused, count > MAX_PAYLOADS, "{count}");
        assert_eq!(held(&peer), 0);
    }
}

#[test]
fn skf_zero_length_fragment() {
    let mut peer = Scripted::established(Setup::new(1));
    let chain = vendor_ids(3, 20);
    // Without anything after its numbers: no IV, no checksum.
    for cut_to in 28 + 8..28 + 8 + 8 + 16 {
        let mut fragment = peer.fragment(INFORMATIONAL, (1, 2), chain.0, &[]);
        fragment.truncate(cut_to);
        fragment[24..28].copy_from_slice(&(cut_to as u32).to_be_bytes());
        fragment[30..32].copy_from_slice(&(cut_to as u16 - 28).to_be_bytes());
        assert_eq!(peer.give(&fragment), Err(Dropped::Integrity), "{cut_to}");
    }
    assert_eq!(held(&peer), 0);
    // One with a checksum but no content is a fragment like any other (section 2.5.3).
    let parts: [(u16, &[u8]); 3] = [(1, &[]), (3, &[]), (2, &chain.1)];
    for (number, octets) in parts {
        let first = if number == 1 {
            chain.0
        } else {
            PayloadType::NONE
        };
        let fragment = peer.fragment(INFORMATIONAL, (number, 3), first, octets);
        assert_eq!(peer.give(&fragment), Ok(usize::from(number == 2)));
    }
    assert_eq!(peer.last_reply().error(), None);
    // And many of them are bounded like any others.
    let mut taken = 0;
    for number in 1..=256 {
        let fragment = peer.fragment(INFORMATIONAL, (number, 256), PayloadType::NONE, &[]);
        taken += usize::from(peer.give(&fragment).is_ok());
        assert!(held(&peer) <= 64 * KIB);
    }
    assert_eq!(taken, 256);
}

#[test]
fn fragment_reassembly_is_linear() {
    // The same number of fragments in sampled orders: as many sets of 64, and a quarter of 256.
    let time = |count: usize, seed: u64| {
        let mut peer = Scripted::established(Setup::new(1));
        let chain = vendor_ids(16, count * 64 / 16 - 4);
        let fragments = shuffled(peer.cut(INFORMATIONAL, &chain, 64), seed);
        assert_eq!(fragments.len(), count);
        let begun = cpu_now();
        let answers: usize = fragments.iter().map(|f| peer.give(f).expect("taken")).sum();
        assert_eq!(answers, 1, "order {seed}");
        cpu_now() - begun
    };
    let all = |count: usize| -> Duration {
        let sets = 64 * 64 / count as u64;
        (0..sets).map(|seed| time(count, seed)).sum()
    };
    let (few, many) = (all(64), all(256));
    println!("64 sets of 64 fragments: {few:?}, 16 sets of 256: {many:?}");
    // Were it quadratic, it would be four times as long.
    assert!(many < few * 3, "{few:?}, {many:?}");
}

/// Time that this thread was on a processor.
fn cpu_now() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

//= test rfc7383 2.6.1-1 2.6-2
#[test]
fn fragment_retransmit_any_order_any_duplicates_still_completes() {
    for seed in 0..60 {
        let count = 1 + seed as usize;
        let mut peer = Scripted::established(Setup::new(1));
        let chain = vendor_ids(1, count * 40 - 4);
        let fragments = peer.cut(INFORMATIONAL, &chain, 40);
        // Each one up to four times, the last one too, however it falls.
        let copies = fragments.iter().enumerate().flat_map(|(at, fragment)| {
            let times = 1 + (at as u64 * 7 + seed) % 4;
            (0..times).map(move |_| fragment.clone())
        });
        let mut answered = 0;
        for fragment in shuffled(copies.collect(), seed) {
            match peer.give(&fragment) {
                Ok(sent) => answered += sent,
                Err(reason) => assert!(
                    matches!(reason, Dropped::FragmentRepeated | Dropped::Repeated),
                    "{reason:?}"
                ),
            }
        }
        assert_eq!(answered, 1, "seed {seed}");
        assert_eq!(held(&peer), 0);
    }
}

//= test rfc7383 2.6.1-2
//= test security S-41
#[test]
fn only_the_first_fragment_of_an_answered_request_repeats_the_reply() {
    let mut peer = Scripted::begun(Setup::new(1));
    let chain = peer.auth_chain(ID_A, |_| {});
    let fragments = peer.cut(AUTH, &chain, 60);
    for fragment in &fragments {
        peer.give(fragment).expect("new");
    }
    assert_eq!(peer.up(), (1, 1));
    let reply = peer.pair.net.sent.last().expect("a reply").clone();
    let sent = peer.pair.net.sent.len();
    for fragment in fragments[1..].iter().rev() {
        assert_eq!(peer.give(fragment), Err(Dropped::FragmentRepeated));
    }
    assert_eq!(peer.pair.net.sent.len(), sent, "nothing was sent");
    assert_eq!(peer.give(&fragments[0]), Err(Dropped::Repeated));
    assert_eq!(peer.pair.net.sent[sent..], [reply], "once");
}

#[test]
fn a_whole_message_and_its_fragments_mix() {
    for given in 0..4 {
        let mut peer = Scripted::begun(Setup::new(1));
        let chain = peer.auth_chain(ID_A, |_| {});
        let fragments = peer.cut(AUTH, &chain, chain.1.len() / 4 + 1);
        for fragment in &fragments[..given] {
            assert_eq!(peer.give(fragment), Ok(0));
        }
        let whole = peer.whole(AUTH, &chain);
        assert_eq!(peer.give(&whole), Ok(1), "after {given} fragments");
        assert_eq!(peer.up(), (1, 1));
        assert_eq!(held(&peer), 0, "they are of no use any more");
        assert_eq!(peer.give(&fragments[0]), Err(Dropped::Repeated));
        assert_eq!(peer.give(&fragments[3]), Err(Dropped::FragmentRepeated));
    }
}

//= test rfc7383 2.6-4
#[test]
fn totals_that_mix_begin_anew_or_are_dropped() {
    let mut peer = Scripted::established(Setup::new(1));
    let chain = vendor_ids(4, 50);
    let (few, many) = (
        peer.cut(INFORMATIONAL, &chain, 100),
        peer.cut(INFORMATIONAL, &chain, 30),
    );
    assert_eq!(peer.give(&few[0]), Ok(0));
    assert_eq!(peer.give(&few[0]), Err(Dropped::FragmentRepeated));
    assert_eq!(peer.give(&many[3]), Ok(0));
    for fragment in &few {
        assert_eq!(peer.give(fragment), Err(Dropped::FragmentOfOldSet));
    }
    // Forged, so that it would begin anew: it does not.
    let mut forged = peer.fragment(INFORMATIONAL, (1, 200), PayloadType::NONE, &[1; 30]);
    *forged.last_mut().expect("octets") ^= 1;
    assert_eq!(peer.give(&forged), Err(Dropped::Integrity));
    let rest = many.iter().enumerate().filter(|(at, _)| *at != 3);
    let answers: usize = rest.map(|(_, f)| peer.give(f).expect("taken")).sum();
    assert_eq!(answers, 1);
}

//= test rfc7383 2.6-1
#[test]
fn numbers_that_cannot_be_are_dropped_before_they_are_looked_at() {
    let mut peer = Scripted::established(Setup::new(1));
    for numbers in [
        (0, 0),
        (0, 3),
        (4, 3),
        (u16::MAX, 1),
        (1, 257),
        (1, u16::MAX),
    ] {
        let fragment = peer.fragment(INFORMATIONAL, numbers, PayloadType::NONE, &[1; 30]);
        assert_eq!(
            peer.give(&fragment),
            Err(Dropped::FragmentNumber),
            "{numbers:?}"
        );
    }
    assert_eq!(held(&peer), 0);
    let mut setup = Setup::new(1);
    setup.connection.fragmentation.mode = FragmentationMode::No;
    let mut peer = Scripted::begun(setup);
    let chain = peer.auth_chain(ID_A, |_| {});
    for fragment in peer.cut(AUTH, &chain, 60) {
        assert_eq!(peer.give(&fragment), Err(Dropped::FragmentNotAgreed));
    }
}

//= test rfc7383 2.6-5
#[test]
fn a_set_that_stays_incomplete_is_given_up() {
    let mut peer = Scripted::established(Setup::new(1));
    let chain = vendor_ids(4, 50);
    let fragments = peer.cut(INFORMATIONAL, &chain, 100);
    assert_eq!(peer.give(&fragments[0]), Ok(0));
    peer.pair.run_for(Duration::from_secs(59));
    assert!(held(&peer) > 0);
    peer.pair.run_for(Duration::from_secs(2));
    assert_eq!(held(&peer), 0);
    assert_eq!(peer.up(), (1, 1), "no failure of the IKE SA");
    let (last, others) = fragments.split_last().expect("some");
    for fragment in others {
        assert_eq!(peer.give(fragment), Ok(0));
    }
    assert_eq!(peer.give(last), Ok(1), "the request comes again");
}

/// Fills what one peer may hold, with fragments of so many octets; what it got.
fn fill(peer: &mut Scripted, exchange: ExchangeType, len: usize) -> usize {
    let before = held(peer);
    for number in 2..=255 {
        let fragment = peer.fragment(exchange, (number, 256), PayloadType::NONE, &vec![7; len]);
        match peer.give(&fragment) {
            Ok(_) => {}
            Err(reason) => {
                assert_eq!(reason, Dropped::FragmentLimit);
                break;
            }
        }
    }
    held(peer) - before
}

//= test rfc7383 5-1 5-3
//= test security S-41
#[test]
fn fragment_flood_is_bounded_for_each_peer_and_in_total() {
    // F14: junk under a valid header is not kept at all.
    let mut peer = Scripted::established(open_to_many());
    for number in 1..=250 {
        let mut junk = peer.fragment(INFORMATIONAL, (number, 250), PayloadType::NONE, &[7; 1000]);
        let at = junk.len() - 20;
        junk[at] ^= 1;
        assert_eq!(peer.give(&junk), Err(Dropped::Integrity));
    }
    assert_eq!(held(&peer), 0);
    // Half sets of a peer that is proven.
    let proven = fill(&mut peer, INFORMATIONAL, 1000);
    assert!(proven > 60 * KIB && proven <= 64 * KIB, "{proven}");
    // Half sets of peers that are not.
    let (mut most, mut peers) = (0, 0);
    let total = loop {
        peer = peer.another(1000 + peers);
        peers += 1;
        let got = fill(&mut peer, AUTH, 4000);
        most = most.max(got);
        if got == 0 {
            break held(&peer);
        }
        assert!(peers < 2000, "no limit");
    };
    println!(
        "F14: {proven} octets held for a proven peer, {most} for one that is not, {total} for \
         {peers} of them"
    );
    assert!(most <= 16 * KIB, "{most}");
    assert!(total <= 8 * KIB * KIB + 64 * KIB, "{total}");
    // Whoever is proven still has its room, and it all goes with the half-open IKE SAs.
    let mut peer = peer.another(1);
    let chain = peer.auth_chain(ID_A, |_| {});
    let whole = peer.whole(AUTH, &chain);
    assert_eq!(peer.give(&whole), Ok(1));
    peer.last_reply();
    let long = vendor_ids(20, 2000);
    let fragments = peer.cut(INFORMATIONAL, &long, 1000);
    let answers: usize = fragments.iter().map(|f| peer.give(f).expect("room")).sum();
    assert_eq!(answers, 1);
    peer.pair.run_for(Duration::from_secs(120));
    assert_eq!(held(&peer), 0);
}

#[test]
fn what_a_half_open_ike_sa_keeps_is_bounded() {
    let request = Scripted::begun(Setup::new(1)).first_request().to_vec();
    for (len, taken) in [(4096, true), (4097, false), (60_000, false)] {
        // A vendor ID at the end makes it as long as that.
        let mut long = request.clone();
        let last = long.len() - 8;
        long[last] = PayloadType::VENDOR_ID.0;
        let rest = len - long.len();
        long.extend([0, 0]);
        long.extend((rest as u16).to_be_bytes());
        long.resize(len, 7);
        long[24..28].copy_from_slice(&(len as u32).to_be_bytes());
        let mut peer = Scripted::begun(Setup::new(1));
        let result = peer.give(&long);
        assert_eq!(result.is_ok(), taken, "{len}: {result:?}");
        assert!(taken || result == Err(Dropped::TooLong));
    }
    let mut peer = Scripted::begun(Setup::new(1));
    let long = peer.whole(AUTH, &vendor_ids(20, 1000));
    assert_eq!(peer.give(&long), Err(Dropped::TooLong));
    assert!(peer.prove(ID_A, |_| {}).is_ok(), "and nothing has happened");
}
