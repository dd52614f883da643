//! What IKE costs: handshakes beside the cryptography in them, memory of each IKE SA with one
//! child, and what many connections cost.
//!
//! Both ends run in one process and one thread, without sockets. Live heap is counted by the
//! allocator, of the responder alone: the initiators are dropped.
//!
//! `cargo run --release -p obol-benches --bin ike [-- --write] [SAS...]`
//!
//! With `--shakes N [--ed25519]` it makes N handshakes and nothing else, for a profiler:
//! `valgrind --tool=callgrind --toggle-collect='*ends::shake*' target/release/ike --shakes 200`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

mod ends;
mod handshake;
mod limit;
mod scale;

use std::fmt::{self, Write as _};

use handshake::Shakes;
use obol_benches::heap::Counting;
use obol_benches::machine;
use obol_ike::crypto::keyfile;
use obol_ike::crypto::private_key::PrivateKey;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Where `--write` puts what is printed.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/ike.md");

fn main() {
    let asked: Vec<usize> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let counts = if asked.is_empty() {
        vec![1, 1_000, 100_000]
    } else {
        asked
    };
    if has("--shakes") {
        let key = has("--ed25519").then(ed25519);
        handshake::only(counts[0], key.as_ref());
        return;
    }
    let mut text = String::new();
    report(&mut text, &counts).expect("a string takes everything");
    println!("{text}");
    if has("--write") {
        std::fs::write(RESULTS, text).expect("the folder is part of the repository");
    }
}

fn has(option: &str) -> bool {
    std::env::args().any(|arg| arg == option)
}

fn ed25519() -> PrivateKey {
    PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(0))
}

fn report(text: &mut String, counts: &[usize]) -> fmt::Result {
    writeln!(text, "# IKE: handshakes, memory, many connections\n")?;
    writeln!(text, "`cargo run --release -p obol-benches --bin ike`")?;
    writeln!(text, "on {}.\n", machine::describe())?;
    handshakes(text)?;
    writeln!(text, "\n## Memory\n")?;
    writeln!(text, "Live heap of a responder, for each IKE SA with one")?;
    writeln!(text, "child.\n\n```text")?;
    writeln!(text, "{:>9} {:>12} {:>9}", "SAs", "octets each", "KiB")?;
    for count in counts {
        let each = scale::memory(*count);
        writeln!(text, "{count:>9} {each:>12.0} {:>9.2}", each / 1024.0)?;
    }
    writeln!(text, "```")?;
    connections(text)
}

fn handshakes(text: &mut String) -> fmt::Result {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let ed25519 = ed25519();
    let rsa = PrivateKey::generate_rsa(2048, &mut rng).expect("a good size");
    let kinds = [
        ("PSK", None),
        ("Ed25519", Some(&ed25519)),
        ("RSA-2048", Some(&rsa)),
    ];
    let mut all = kinds.map(|(auth, key)| Shakes::measure(auth, key));
    writeln!(text, "## Handshakes\n")?;
    writeln!(
        text,
        "IKE_SA_INIT and IKE_AUTH with one child; both ends on one core,"
    )?;
    writeln!(
        text,
        "x25519, aes256gcm16, prfsha256. \"Crypto\" is the time of what a"
    )?;
    writeln!(
        text,
        "handshake has to compute, done by the same crates in the same run,"
    )?;
    writeln!(
        text,
        "one after the other. Of all times, nine tenths are longer.\n\n```text"
    )?;
    writeln!(
        text,
        "{:<10}{:>14}{:>12}{:>12}{:>8}",
        "auth", "handshakes/s", "us each", "us crypto", "ratio"
    )?;
    for shakes in &all {
        let (each, limit) = (shakes.each, shakes.limit);
        let (auth, rate, ratio) = (shakes.auth, 1e6 / each, limit / each);
        writeln!(
            text,
            "{auth:<10}{rate:>14.0}{each:>12.1}{limit:>12.1}{ratio:>8.2}"
        )?;
    }
    for shakes in &mut all {
        writeln!(text, "\n{}:", shakes.auth)?;
        writeln!(
            text,
            "  {:<34}{:>4}{:>10}{:>10}",
            "operation", "n", "us each", "us"
        )?;
        write!(text, "{}", shakes.parts())?;
    }
    writeln!(text, "```")
}

fn connections(text: &mut String) -> fmt::Result {
    writeln!(text, "\n## Many connections\n")?;
    writeln!(
        text,
        "Adding n connections by one reload, time for each of them; and a"
    )?;
    writeln!(
        text,
        "handshake by the last of n connections, both ends together.\n\n```text"
    )?;
    writeln!(
        text,
        "{:>9}{:>12}{:>8}{:>16}{:>8}",
        "n", "us to add", "ratio", "us to shake", "ratio"
    )?;
    let mut base = None;
    for n in [1, 100, 10_000] {
        let micros = |time: std::time::Duration| time.as_nanos() as f64 / 1000.0;
        let now = (micros(scale::added(n)), micros(scale::among(n)));
        let (add, shake) = *base.get_or_insert(now);
        writeln!(
            text,
            "{n:>9}{:>12.2}{:>8.2}{:>16.1}{:>8.2}",
            now.0,
            now.0 / add,
            now.1,
            now.1 / shake
        )?;
    }
    writeln!(text, "```")
}

/// The value below which a tenth of them are: what else runs on the machine only adds to a time.
fn tenth(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 10).copied().unwrap_or_default()
}

/// A copy: private keys have no `Clone`, lest they be copied by accident.
fn again(key: &PrivateKey) -> PrivateKey {
    keyfile::parse_private(key.to_pkcs8_pem().as_bytes()).expect("just written")
}
