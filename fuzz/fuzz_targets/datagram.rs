//! An IKE datagram from anybody: the codec, then a responder and an initiator.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    obol_ike::testing::fuzz_datagram(datagram);
    obol_ike::testing::fuzz_endpoint(Instant::now(), datagram);
});
