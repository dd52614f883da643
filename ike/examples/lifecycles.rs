//! Lives through many connections on a bad network; see `obol_ike::testing::lifecycle`.
#![expect(clippy::print_stdout, reason = "it is what this program is for")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use obol_ike::testing::lifecycle::{Life, Weather, live};
use obol_ike::testing::parallel::in_parallel;

const USAGE: &str = "\
cargo run --release -p obol-ike --features testing --example lifecycles -- [options]

  --lives 1000000   how many; default: 10000
  --from 0          the first seed
  --seed 42         only this one
  --loss 300        thousandths of the datagrams
  --duplicated 200

All must converge, and none may have a gap in its traffic unless an end has given the other up.";

/// Lives after which the sum so far is printed, and which of them failed.
const PART: usize = 20_000;
/// Failures of a part that are printed.
const MAX_PRINTED: usize = 20;

struct Args {
    seeds: std::ops::Range<u64>,
    weather: Weather,
}

#[derive(Default)]
struct Sum {
    lives: usize,
    /// Time to be up, in milliseconds.
    up_after: Vec<u32>,
    did_not: usize,
    /// Lives with a gap before anything was given up.
    with_gap: usize,
    total: Life,
}

fn args() -> Result<Args, &'static str> {
    let (mut lives, mut from, mut weather) = (10_000, 0, Weather::default());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value: u64 = words.next().and_then(|w| w.parse().ok()).ok_or(USAGE)?;
        match word.as_str() {
            "--lives" => lives = value,
            "--from" => from = value,
            "--seed" => (from, lives) = (value, 1),
            "--loss" => weather.loss = u32::try_from(value).map_err(|_| USAGE)?,
            "--duplicated" => weather.duplicated = u32::try_from(value).map_err(|_| USAGE)?,
            _ => return Err(USAGE),
        }
    }
    let seeds = from..from.saturating_add(lives);
    Ok(Args { seeds, weather })
}

#[expect(clippy::disallowed_methods, reason = "how long it took")]
fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(usage) => {
            println!("{usage}");
            return ExitCode::FAILURE;
        }
    };
    let began = Instant::now();
    let mut sum = Sum::default();
    let mut rest = args.seeds.clone();
    while !rest.is_empty() {
        let seeds: Vec<u64> = rest.by_ref().take(PART).collect();
        let lives = in_parallel(&seeds, |seed| (*seed, live(*seed, args.weather)));
        let failures = lives.into_iter().filter_map(|(seed, life)| {
            let what = sum.add(life).err()?;
            Some((seed, what))
        });
        for (seed, what) in failures.collect::<Vec<_>>().iter().take(MAX_PRINTED) {
            let Weather { loss, duplicated } = args.weather;
            println!("FAILED: {what}\n  --seed {seed} --loss {loss} --duplicated {duplicated}");
        }
        sum.print(&args, began.elapsed());
    }
    if let (1, Some(picture)) = (sum.lives, &sum.total.first_unexplained) {
        println!("{picture}");
    }
    if sum.did_not + sum.with_gap == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Sum {
    /// Adds a life.
    ///
    /// # Errors
    /// What is wrong with it.
    fn add(&mut self, life: Result<Life, String>) -> Result<(), String> {
        self.lives += 1;
        let life = life.inspect_err(|_| self.did_not += 1)?;
        self.up_after
            .push(u32::try_from(life.up_after.as_millis()).unwrap_or(u32::MAX));
        self.total.retries += life.retries;
        self.total.datagrams += life.datagrams;
        self.total.given_up += life.given_up;
        self.total.gaps += life.gaps;
        self.total.rekeys += life.rekeys;
        if life.unexplained == 0 {
            return Ok(());
        }
        self.with_gap += 1;
        self.total.first_unexplained = life.first_unexplained;
        Err("a gap in traffic".to_owned())
    }

    fn print(&mut self, args: &Args, took: Duration) {
        self.up_after.sort_unstable();
        let up_after = &self.up_after;
        let at = |share: f64| {
            let index = (up_after.len() as f64 * share) as usize;
            let value = up_after.get(index.min(up_after.len().saturating_sub(1)));
            f64::from(value.copied().unwrap_or_default()) / 1000.0
        };
        println!(
            "{} lives from seed {}, {} converged to one IKE SA and one Child SA and went down, {} did not; {:?}; {:.1} s",
            self.lives,
            args.seeds.start,
            up_after.len(),
            self.did_not,
            args.weather,
            took.as_secs_f64()
        );
        println!(
            "  virtual time to up: p50 {:.3} s, p99 {:.3} s, p99.9 {:.3} s, max {:.3} s",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
        println!(
            "  {} rekeys begun, {} datagrams; {} starts had no answer and came again; {} IKE SAs given up after all tries; {} gaps in traffic, {} lives with one before anything was given up",
            self.total.rekeys,
            self.total.datagrams,
            self.total.retries,
            self.total.given_up,
            self.total.gaps,
            self.with_gap
        );
    }
}
