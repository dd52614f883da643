//! What a peer says under keys that it shares with us, unproven or proven.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = obol_ike::testing::fuzz_peer(Instant::now(), input);
});
