//! What the fuzzer begins with, and whatever once made it fail, in every run of the tests.
#![allow(clippy::disallowed_methods, reason = "tests read files of their own")]

use std::path::Path;

#[test]
fn the_corpus_of_esp_is_survived() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/esp_input");
    let mut files = 0;
    for file in std::fs::read_dir(directory).expect("the target has a corpus") {
        let input = std::fs::read(file.expect("a file").path()).expect("a readable file");
        obol_esp::fuzz_input(&input);
        files += 1;
    }
    assert!(files > 0);
}
