//! An endpoint that gets anything from the network neither panics nor talks without end.

use std::time::Instant;

use obol_ike::testing::{arbitrary, fuzz_endpoint};
use proptest::prelude::*;
use proptest::sample::Index;

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
