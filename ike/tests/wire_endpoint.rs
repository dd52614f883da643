//! An endpoint that gets anything from the network neither panics nor talks without end.

use std::path::Path;
use std::time::Instant;

use obol_ike::testing::{arbitrary, fuzz_datagram, fuzz_endpoint, fuzz_payloads};
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
    fn any_octets_are_survived(datagram: Vec<u8>) {
        fuzz_endpoint(Instant::now(), &datagram);
    }
}
