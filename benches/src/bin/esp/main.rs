//! What ESP costs on top of its cipher.
//!
//! For each suite and packet size: nanoseconds to seal and to open one packet in tunnel mode, and
//! the ratio to the bare cipher of the same back end over the same octets, in the same run. A
//! ratio of 1 would mean that headers, windows, selectors and counters cost nothing. Then
//! instructions, counted by valgrind; and the bare ciphers of others.
//!
//! `cargo run --release -p obol-benches --bin esp [-- --write]`; with
//! `RUSTFLAGS="--cfg obol_peers"`, ring and aws-lc-rs too.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

mod count;
mod packets;
mod peers;
mod raw;

use obol_benches::machine;
use obol_esp::{Backend, Hash, Suite};
use packets::Packets;
use raw::Raw;
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

const SIZES: [usize; 4] = [64, 256, 1400, 8900];
/// Packets per timed batch: few enough to stay in the second level cache.
const BATCH: usize = 32;
/// Time per suite and size. The fastest batch counts: what slows others down is not ours.
const BUDGET: Duration = Duration::from_millis(600);
/// Where `--write` puts what is printed.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/esp.md");

/// Name, suite, octets of the two keys.
type NamedSuite = (&'static str, Suite, usize, usize);

const SUITES: [NamedSuite; 4] = [
    ("aes128gcm16", Suite::AesGcm16 { key_bits: 128 }, 20, 0),
    ("aes256gcm16", Suite::AesGcm16 { key_bits: 256 }, 36, 0),
    ("chacha20poly1305", Suite::ChaCha20Poly1305, 36, 0),
    (
        "aes256-sha2_256",
        Suite::AesCbcHmac {
            key_bits: 256,
            hash: Hash::Sha256,
        },
        32,
        32,
    ),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, what, suite, size, count] = &arguments[..]
        && flag == "--loop"
    {
        let suite = SUITES.iter().find(|(name, ..)| name == suite);
        let number = |text: &str| text.parse().expect("a number");
        return repeat(what, suite.expect("a suite"), number(size), number(count));
    }
    let mut text = String::new();
    report(&mut text).expect("a string takes everything");
    println!("{text}");
    if arguments.iter().any(|argument| argument == "--write") {
        std::fs::write(RESULTS, text).expect("the folder is part of the repository");
    }
}

/// What valgrind counts.
fn repeat(what: &str, suite: &NamedSuite, size: usize, count: usize) {
    println!("{}", Backend::best().name());
    let mut packets = Packets::new(suite, size, 1);
    let raw = Raw::new(suite.1);
    packets.seal();
    packets.open();
    for _ in 0..count {
        if what == "esp" {
            packets.seal();
            packets.open();
        } else {
            packets.work(&raw.seal);
            packets.work(&raw.open);
        }
    }
}

fn report(text: &mut String) -> fmt::Result {
    writeln!(text, "# Seal and open beside the bare cipher\n")?;
    writeln!(text, "`cargo run --release -p obol-benches --bin esp`")?;
    writeln!(text, "on {}.\n", machine::describe())?;
    writeln!(
        text,
        "Tunnel mode, ESN, a window of 4096 packets; octets of the inner packet; one thread. The ratio is to the"
    )?;
    writeln!(
        text,
        "bare cipher of the same back end over the same octets in the same run. AEADs by {}.\n",
        Backend::best().name()
    )?;
    let measured: Vec<Measured> = SUITES
        .iter()
        .flat_map(|suite| SIZES.map(|size| Measured::new(suite, size)))
        .collect();
    writeln!(text, "```text")?;
    writeln!(text, "{:<17}{:>6} {:>24} {:>24}", "", "", "seal", "open")?;
    writeln!(
        text,
        "{:<17}{:>6} {:>8}{:>7}{:>9} {:>8}{:>7}{:>9}",
        "suite", "octets", "ns", "ratio", "Gbit/s", "ns", "ratio", "Gbit/s"
    )?;
    for row in &measured {
        row.write_times(text)?;
    }
    writeln!(text, "```\n\n## Instructions to seal and open one packet\n")?;
    instructions(text)?;
    writeln!(text, "\n## The bare ciphers of others\n")?;
    writeln!(
        text,
        "Nanoseconds to seal and open the same octets, without ESP.\n\n```text"
    )?;
    for row in &measured {
        row.write_others(text)?;
    }
    writeln!(text, "```")
}

fn instructions(text: &mut String) -> fmt::Result {
    let Some(backend) = count::backend() else {
        return writeln!(text, "Not counted: valgrind is not there.");
    };
    writeln!(
        text,
        "By valgrind, on whose CPU AEADs are by {backend}.\n\n```text"
    )?;
    writeln!(
        text,
        "{:<17}{:>6} {:>9} {:>9}{:>7}",
        "suite", "octets", "obol", "cipher", "ratio"
    )?;
    for (suite, ..) in &SUITES {
        for size in SIZES {
            match count::instructions(suite, size) {
                Some([esp, raw]) => writeln!(
                    text,
                    "{suite:<17}{size:>6} {esp:>9.0} {raw:>9.0}{:>7.2}",
                    esp / raw
                )?,
                None => writeln!(text, "{suite:<17}{size:>6} not counted")?,
            }
        }
    }
    writeln!(text, "```")
}

/// Nanoseconds to seal and to open a packet.
type Times = [f64; 2];

struct Measured {
    suite: &'static str,
    size: usize,
    esp: Times,
    raw: Times,
    others: Vec<(&'static str, Times)>,
}

impl Measured {
    fn new(suite: &NamedSuite, size: usize) -> Self {
        let mut packets = Packets::new(suite, size, BATCH);
        let others = peers::all(suite.1);
        let (names, others): (Vec<_>, Vec<_>) = others.into_iter().unzip();
        let ciphers: Vec<Raw> = [Raw::new(suite.1)].into_iter().chain(others).collect();
        let mut best = vec![[Duration::MAX; 2]; 1 + ciphers.len()];
        let end = Instant::now() + BUDGET;
        while Instant::now() < end {
            let esp = [time(|| packets.seal()), time(|| packets.open())];
            let each = ciphers
                .iter()
                .map(|cipher| [&cipher.seal, &cipher.open].map(|work| time(|| packets.work(work))));
            let times: Vec<[Duration; 2]> = [esp].into_iter().chain(each).collect();
            for (best, times) in best.iter_mut().flatten().zip(times.into_iter().flatten()) {
                *best = times.min(*best);
            }
        }
        let mut times = best
            .into_iter()
            .map(|times| times.map(|time| time.as_nanos() as f64 / BATCH as f64));
        let mut next = || times.next().expect("one of each");
        Self {
            suite: suite.0,
            size,
            esp: next(),
            raw: next(),
            others: names.into_iter().zip(times).collect(),
        }
    }

    fn write_times(&self, text: &mut String) -> fmt::Result {
        write!(text, "{:<17}{:>6}", self.suite, self.size)?;
        for (esp, raw) in self.esp.iter().zip(self.raw) {
            let gbits = self.size as f64 * 8.0 / esp;
            write!(text, " {esp:>8.0}{:>7.2}{gbits:>9.2}", esp / raw)?;
        }
        writeln!(text)
    }

    fn write_others(&self, text: &mut String) -> fmt::Result {
        write!(text, "{:<17}{:>6}", self.suite, self.size)?;
        for (name, times) in [("obol's", self.raw)].iter().chain(&self.others) {
            write!(text, "  {name} {:.0}", times.iter().sum::<f64>())?;
        }
        writeln!(text)
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
