//! An endpoint that gets anything from the network neither panics nor talks without end.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start clocks and read files of their own"
)]

use std::path::Path;
use std::time::Instant;

use obol_ike::testing::arbitrary::{self, OwnedPayload};
use obol_ike::testing::{fuzz_datagram, fuzz_endpoint, fuzz_payloads, fuzz_peer};
use obol_ike::wire::emit_chain;
use proptest::prelude::*;
use proptest::sample::Index;

/// The seeds of a fuzz target, and whatever once made it fail.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let files = std::fs::read_dir(directory.join(target)).expect("every target has a corpus");
    let contents: Vec<_> = files
        .map(|file| std::fs::read(file.expect("a file").path()).expect("a readable file"))
        .collect();
    assert!(!contents.is_empty());
    contents
}

#[test]
fn the_corpus_of_datagrams_is_survived() {
    for datagram in corpus("datagram") {
        fuzz_datagram(&datagram);
        fuzz_endpoint(Instant::now(), &datagram);
    }
}

#[test]
fn the_corpus_of_payloads_is_survived() {
    for payloads in corpus("payloads") {
        fuzz_payloads(&payloads);
    }
}

/// One message of [`fuzz_peer`]'s input.
fn record(kind: u8, payloads: &[OwnedPayload]) -> Vec<u8> {
    let payloads: Vec<_> = payloads.iter().map(OwnedPayload::borrow).collect();
    let mut chain = Vec::new();
    let first = emit_chain(&payloads, &mut chain).expect("short payloads");
    let len = u8::try_from(chain.len()).unwrap_or(u8::MAX);
    [&[kind, first.0, len], &chain[..usize::from(len)]].concat()
}

#[test]
fn the_corpus_of_peers_is_survived() {
    for input in corpus("peer") {
        fuzz_peer(Instant::now(), &input);
    }
}

#[test]
fn a_peer_is_answered_once_it_has_proven_itself() {
    let empty = [0, 0, 0];
    let (unproven, proven) = ([&[0][..], &empty].concat(), [&[1][..], &empty].concat());
    assert_eq!(fuzz_peer(Instant::now(), &unproven), 0);
    assert_eq!(fuzz_peer(Instant::now(), &proven), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_message_is_survived(
        message in arbitrary::message(),
        exchange in 34..38u8,
        changes in prop::collection::vec(any::<(Index, u8)>(), 0..4),
    ) {
        let mut datagram = message.emit();
        datagram[18] = exchange;
        for (index, octet) in changes {
            let at = index.index(datagram.len());
            datagram[at] = octet;
        }
        fuzz_endpoint(Instant::now(), &datagram);
    }

    #[test]
    fn a_peer_that_says_anything_is_survived(
        proves in 0..2u8,
        messages in prop::collection::vec(
            (any::<u8>(), prop::collection::vec(arbitrary::payload(), 0..4)),
            1..6,
        ),
    ) {
        let mut input = vec![proves];
        for (kind, payloads) in messages {
            input.extend(record(kind, &payloads));
        }
        fuzz_peer(Instant::now(), &input);
    }

    #[test]
    fn any_octets_are_survived(datagram: Vec<u8>) {
        fuzz_endpoint(Instant::now(), &datagram);
    }
}
