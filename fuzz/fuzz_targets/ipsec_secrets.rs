//! Libreswan's `ipsec.secrets`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_daemon::fuzzing::DOORS;

fuzz_target!(|octets: &[u8]| {
    let (_, door) = DOORS[1];
    door(octets);
});
