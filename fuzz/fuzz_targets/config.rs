//! A configuration file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    obol_daemon::fuzz_config(text);
    if let Ok(text) = std::str::from_utf8(text) {
        obol_ike::testing::fuzz_selector(text);
        obol_ike::testing::fuzz_identity(text);
    }
});
