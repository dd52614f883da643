//! Packets that the kernel dropped, by reason: /proc/net/xfrm_stat, which counts for all of a
//! network namespace.

use std::collections::BTreeMap;
use std::fs;

/// What the kernel calls it, and what this program does, where it counts the same.
const REASONS: [(&str, &str); 14] = [
    ("XfrmInNoStates", UNKNOWN_SPI),
    ("XfrmInStateProtoError", "auth"),
    ("XfrmInStateSeqError", "replay"),
    ("XfrmInStateExpired", "hard-limit"),
    ("XfrmInStateMismatch", "selector"),
    ("XfrmInNoPols", "selector"),
    ("XfrmInTmplMismatch", "clear-in"),
    ("XfrmInPolBlock", "clear-in"),
    ("XfrmOutNoStates", "no-sa"),
    ("XfrmOutPolBlock", "no-sa"),
    ("XfrmAcquireError", "no-sa"),
    ("XfrmOutStateExpired", "hard-limit"),
    ("XfrmOutStateSeqError", "counter-exhausted"),
    ("XfrmOutBundleGenError", "no-route"),
];

/// ESP with an SPI that the kernel does not know.
pub(crate) const UNKNOWN_SPI: &str = "unknown-spi";

/// The other reasons of the kernel together.
const OTHER: &str = "kernel-other";

/// Packets by reason; empty if the kernel does not count.
pub(super) fn read() -> Vec<(&'static str, u64)> {
    let text = fs::read_to_string("/proc/thread-self/net/xfrm_stat").unwrap_or_default();
    parse(&text).into_iter().collect()
}

fn parse(text: &str) -> BTreeMap<&'static str, u64> {
    let mut drops = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(count)) = (words.next(), words.next()) else {
            continue;
        };
        let known = REASONS.iter().find(|(own, _)| *own == name);
        let reason = known.map_or(OTHER, |(_, reason)| reason);
        *drops.entry(reason).or_default() += count.parse::<u64>().unwrap_or(0);
    }
    drops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_those_of_this_program() {
        let text = "XfrmInError                 \t1\nXfrmInNoPols\t2\nXfrmInStateMismatch\t3\nrubbish\nXfrmNew\t4\n";
        let drops = parse(text);
        assert_eq!(drops["selector"], 5);
        assert_eq!(drops[OTHER], 5);
        assert_eq!(drops.len(), 2);
    }
}
