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
  --duplicated 200";

/// Failing seeds that are printed.
const MAX_PRINTED: usize = 20;

struct Args {
    seeds: std::ops::Range<u64>,
    weather: Weather,
}

#[derive(Default)]
struct Sum {
    /// Time to be up, in milliseconds.
    up_after: Vec<u32>,
    failed: Vec<(u64, String)>,
    total: Life,
    /// Lives with a gap though nobody gave up.
    unexplained: usize,
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
    let seeds = from..from + lives;
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
    let seeds: Vec<u64> = args.seeds.clone().collect();
    let lives = in_parallel(&seeds, |seed| {
        let mut life = live(*seed, args.weather);
        if let (Ok(life), true) = (&mut life, seeds.len() > 1) {
            life.first_gap = None;
        }
        (*seed, life)
    });
    let mut sum = Sum::default();
    for (seed, life) in lives {
        sum.add(&args, seed, life);
    }
    sum.print(&args, began.elapsed());
    if sum.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Sum {
    fn add(&mut self, args: &Args, seed: u64, life: Result<Life, String>) {
        match life {
            Ok(life) => {
                self.up_after
                    .push(u32::try_from(life.up_after.as_millis()).unwrap_or(u32::MAX));
                if args.seeds.end - args.seeds.start == 1 {
                    println!(
                        "{life:?}\n{}",
                        life.first_gap.as_deref().unwrap_or("no gap")
                    );
                }
                self.total.retries += life.retries;
                self.total.datagrams += life.datagrams;
                self.total.given_up += life.given_up;
                self.total.gaps += life.gaps;
                self.unexplained += usize::from(life.gaps > 0 && life.given_up == 0);
                self.total.rekeys += life.rekeys;
            }
            Err(what) => self.failed.push((seed, what)),
        }
    }

    fn print(&self, args: &Args, took: Duration) {
        let mut up_after = self.up_after.clone();
        up_after.sort_unstable();
        let at = |share: f64| {
            let index = (up_after.len() as f64 * share) as usize;
            let value = up_after.get(index.min(up_after.len().saturating_sub(1)));
            f64::from(value.copied().unwrap_or_default()) / 1000.0
        };
        println!(
            "{} lives, {} converged to one IKE SA and one Child SA and went down, {} did not; {:?}",
            args.seeds.end - args.seeds.start,
            up_after.len(),
            self.failed.len(),
            args.weather
        );
        println!(
            "virtual time to up: p50 {:.3} s, p99 {:.3} s, max {:.3} s",
            at(0.5),
            at(0.99),
            at(1.0)
        );
        println!(
            "{} rekeys begun, {} datagrams; {} starts had no answer and came again; {} IKE SAs given up after all tries, {} gaps, {} lives with a gap though nothing was given up",
            self.total.rekeys,
            self.total.datagrams,
            self.total.retries,
            self.total.given_up,
            self.total.gaps,
            self.unexplained
        );
        println!("{:.1} s", took.as_secs_f64());
        for (seed, what) in self.failed.iter().take(MAX_PRINTED) {
            println!(
                "FAILED: {what}\n  --seed {seed} --loss {} --duplicated {}",
                args.weather.loss, args.weather.duplicated
            );
        }
    }
}
