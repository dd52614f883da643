//! Instructions per packet, counted by valgrind: what no neighbour on the machine can change. (It knows no
//! VAES, so back ends that choose by CPU features may take another way than without it.)

use std::process::{Command, Output};

/// Packets in the shorter of the two runs whose difference counts.
const FEW: usize = 1_000;

/// The back end that is used under valgrind; `None` if that is not there.
pub(crate) fn backend() -> Option<String> {
    let output = run("backend", "aes128gcm16", 64, 0)?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Instructions to seal and open a packet of `size` octets: by obol, and by the bare cipher.
pub(crate) fn instructions(suite: &str, size: usize) -> Option<[f64; 2]> {
    let of = |what: &str| {
        let [few, many] = [FEW, 3 * FEW].map(|count| collected(what, suite, size, count));
        Some((many? - few?) as f64 / (2 * FEW) as f64)
    };
    Some([of("esp")?, of("raw")?])
}

/// All instructions of a run of this program that does just that.
fn collected(what: &str, suite: &str, size: usize, count: usize) -> Option<u64> {
    let output = run(what, suite, size, count)?;
    let text = String::from_utf8_lossy(&output.stderr);
    let (_, count) = text.split_once("Collected : ")?;
    count.split_whitespace().next()?.parse().ok()
}

fn run(what: &str, suite: &str, size: usize, count: usize) -> Option<Output> {
    let program = std::env::current_exe().ok()?;
    Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--loop", what, suite])
        .args([size.to_string(), count.to_string()])
        .output()
        .ok()
}
