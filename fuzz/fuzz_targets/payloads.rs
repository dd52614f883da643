//! The decrypted content of an Encrypted payload: the type of the first payload, then the chain.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| obol_ike::testing::fuzz_payloads(input));
