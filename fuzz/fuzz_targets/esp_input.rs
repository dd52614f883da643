//! ESP from the network, from anybody and from a peer that knows the key.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| obol_esp::fuzz_input(input));
