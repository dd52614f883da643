//! What it costs to find the policy of a packet, and of an SA within a policy, however many there are.
//!
//! For each number of them: nanoseconds for a packet of one after another, and what comparing them one by
//! one would cost in the same run. Each is for the packets of this host to a port of another one.
//!
//! `cargo run --release -p obol-benches --bin spd [-- --write]`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::fmt::{self, Write as _};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use obol_benches::machine;
use obol_esp::{FlowKey, Index, Selector, Spd};

const COUNTS: [u32; 6] = [1, 10, 15, 100, 1_000, 10_000];
/// Packets per timed batch.
const BATCH: u32 = 1024;
/// Time for each figure. The fastest batch counts: what slows others down is not ours.
const BUDGET: Duration = Duration::from_millis(400);
/// Where `--write` puts what is printed.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/spd.md");

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PORT: u16 = 27_017;

fn main() {
    let mut text = String::new();
    report(&mut text).expect("a string takes everything");
    println!("{text}");
    if std::env::args().any(|argument| argument == "--write") {
        std::fs::write(RESULTS, text).expect("the folder is part of the repository");
    }
}

fn report(text: &mut String) -> fmt::Result {
    writeln!(text, "# Policies and SAs of a packet\n")?;
    writeln!(text, "`cargo run --release -p obol-benches --bin spd`")?;
    writeln!(text, "on {}.\n", machine::describe())?;
    writeln!(
        text,
        "Nanoseconds for a packet: its policy among so many, its SA among so many of one policy, and what a walk\nfrom the first to the last costs in the same run.\n"
    )?;
    writeln!(text, "| there are | policy | SA | walk |")?;
    writeln!(text, "|---|---|---|---|")?;
    for count in COUNTS {
        let [policy, sa, walk] = measured(count);
        writeln!(text, "| {count} | {policy:.0} | {sa:.0} | {walk:.0} |")?;
    }
    Ok(())
}

fn measured(count: u32) -> [f64; 3] {
    let selectors: Vec<Selector> = (0..count).map(selector).collect();
    // In no order that a processor could guess.
    let flows: Vec<FlowKey> = (0..BATCH)
        .map(|n| flow(n.wrapping_mul(2_654_435_761) % count))
        .collect();
    let spd: Spd<u32> = selectors.iter().copied().zip(0..).collect();
    let mut index = Index::new();
    for (selector, number) in selectors.iter().zip(0..) {
        index.insert(*selector, number, number);
    }
    let policy = fastest(&flows, |flow| spd.lookup(flow).is_some());
    let sa = fastest(&flows, |flow| {
        index.find(flow, |number| Some(*number)).is_some()
    });
    let walk = fastest(&flows, |flow| {
        selectors.iter().any(|selector| selector.matches(flow))
    });
    [policy, sa, walk]
}

/// Nanoseconds for each, all of which must be found.
fn fastest(flows: &[FlowKey], find: impl Fn(&FlowKey) -> bool) -> f64 {
    let begun = Instant::now();
    let mut best = f64::INFINITY;
    while begun.elapsed() < BUDGET {
        let start = Instant::now();
        let found = flows
            .iter()
            .filter(|flow| black_box(find(black_box(flow))))
            .count();
        let took = start.elapsed();
        assert_eq!(found, flows.len());
        best = best.min(took.as_nanos() as f64 / flows.len() as f64);
    }
    best
}

fn peer(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a01_0000 + number).into()
}

fn selector(number: u32) -> Selector {
    let (own, peer) = (IpAddr::from(OWN), peer(number));
    let ports = (PORT, PORT);
    Selector::new(6, (own, own), Selector::ANY_PORT, (peer, peer), ports)
        .expect("a host and a port")
}

fn flow(number: u32) -> FlowKey {
    FlowKey {
        source: OWN.into(),
        destination: peer(number),
        protocol: 6,
        source_port: 40_000,
        destination_port: PORT,
        fragment: false,
        ports_known: true,
    }
}
