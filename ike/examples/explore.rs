//! Passes through every interleaving of every two operations; see `obol_ike::testing::explore`.
#![expect(clippy::print_stdout, reason = "it is what this program is for")]

use std::process::ExitCode;
use std::time::Instant;

use obol_ike::testing::explore::{Limits, Report, Scenario, explore, replay};
use obol_ike::testing::parallel::in_parallel;

const USAGE: &str = "\
cargo run --release -p obol-ike --features testing --example explore -- [options]

  --pair A:rekey-child,B:rekey-ike   only this pair; default: all of them
  --seeds 4                          so many outcomes of the draws of nonces, from 0
  --seed 3                           only this one
  --lost 2 --repeated 1 --late 1 --early 1 --mishaps 2 --states 20000000
                                     the limits of one exploration
  --replay 'SCHEDULE'                follow one schedule of --pair and --seed, and tell";

struct Args {
    pairs: Vec<Scenario>,
    seeds: std::ops::Range<u64>,
    limits: Limits,
    schedule: Option<String>,
}

fn args() -> Result<Args, String> {
    let mut args = Args {
        pairs: Scenario::all(),
        seeds: 0..4,
        limits: Limits::default(),
        schedule: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        let number = || value.parse::<u32>().map_err(|_| USAGE.to_owned());
        match word.as_str() {
            "--pair" => args.pairs = vec![value.parse()?],
            "--seeds" => args.seeds = 0..number()?.into(),
            "--seed" => args.seeds = number()?.into()..u64::from(number()?) + 1,
            "--lost" => args.limits.lost = number()?,
            "--repeated" => args.limits.repeated = number()?,
            "--late" => args.limits.late = number()?,
            "--early" => args.limits.early = number()?,
            "--mishaps" => args.limits.mishaps = number()?,
            "--states" => args.limits.states = number()? as usize,
            "--replay" => args.schedule = Some(value),
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let outcome = args().and_then(|args| match &args.schedule {
        Some(schedule) => {
            let told = replay(args.pairs[0], args.seeds.start, schedule)?;
            told.iter().for_each(|line| println!("{line}"));
            Ok(true)
        }
        None => Ok(explore_all(&args)),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(words) => {
            println!("{words}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether nothing was wrong.
#[expect(clippy::disallowed_methods, reason = "how long it took")]
fn explore_all(args: &Args) -> bool {
    let began = Instant::now();
    println!(
        "{:<34} {:>4} {:>10} {:>11} {:>8} {:>9} {:>5}",
        "pair", "seed", "states", "moves", "at rest", "histories", "depth"
    );
    let jobs: Vec<(Scenario, u64)> = args
        .pairs
        .iter()
        .flat_map(|pair| args.seeds.clone().map(move |seed| (*pair, seed)))
        .collect();
    let reports = in_parallel(&jobs, |(pair, seed)| {
        let report = explore(*pair, *seed, args.limits);
        print(*pair, *seed, &report);
        report
    });
    let mut total = Report::default();
    let mut violations = 0;
    for report in &reports {
        add(&mut total, report);
        violations += usize::from(report.violation.is_some());
    }
    println!(
        "{} explorations: {} states, {} moves, {} at rest, {} histories, {} violations{}, {:.1} s; {:?}",
        jobs.len(),
        total.states,
        total.transitions,
        total.finals,
        total.histories,
        violations,
        if total.cut { " (NOT COMPLETE)" } else { "" },
        began.elapsed().as_secs_f64(),
        args.limits
    );
    violations == 0 && !total.cut
}

fn add(total: &mut Report, report: &Report) {
    total.states += report.states;
    total.transitions += report.transitions;
    total.finals += report.finals;
    total.histories += report.histories;
    total.cut |= report.cut;
}

fn print(pair: Scenario, seed: u64, report: &Report) {
    println!(
        "{:<34} {seed:>4} {:>10} {:>11} {:>8} {:>9} {:>5}{}",
        pair.to_string(),
        report.states,
        report.transitions,
        report.finals,
        report.histories,
        report.depth,
        if report.cut { " cut" } else { "" }
    );
    if let Some(violation) = &report.violation {
        println!("  WRONG: {}", violation.what);
        println!(
            "  --pair {pair} --seed {seed} --replay '{}'",
            violation.schedule
        );
    }
}
