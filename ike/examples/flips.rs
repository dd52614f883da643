//! Flips every bit of every message of a life, one life for each; see `obol_ike::testing::flips`.
#![expect(clippy::print_stdout, reason = "it is what this program is for")]

use std::process::ExitCode;
use std::time::Instant;

use obol_ike::testing::flips::{Suite, Tamper, When, flip, messages, probe};
use obol_ike::testing::parallel::in_parallel;

const USAGE: &str = "\
cargo run --release -p obol-ike --features testing --example flips -- [STRIDE]

  STRIDE   lives for every so-manieth bit only; default: 1, all";

/// Failures that are printed.
const MAX_PRINTED: usize = 20;

#[expect(clippy::disallowed_methods, reason = "how long it took")]
fn main() -> ExitCode {
    let stride = std::env::args().nth(1).map_or(Ok(1), |word| word.parse());
    let Some(stride) = stride.ok().filter(|stride| *stride > 0) else {
        println!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let began = Instant::now();
    let mut wrong = Vec::new();
    for suite in Suite::ALL {
        match probe(suite) {
            Ok(tally) => println!(
                "{suite}: {} messages; dropped without effect: {} flipped bits of protected ones, \
                 {} cut off, {} come again",
                tally.messages, tally.flipped, tally.cut, tally.again
            ),
            Err(what) => wrong.push(format!("{suite}: {what}")),
        }
        lives(suite, stride, &mut wrong);
    }
    println!(
        "{} wrong, {:.1} s",
        wrong.len(),
        began.elapsed().as_secs_f64()
    );
    wrong
        .iter()
        .take(MAX_PRINTED)
        .for_each(|line| println!("WRONG: {line}"));
    if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One life for each bit, in place of the real message, before it and after it.
fn lives(suite: Suite, stride: usize, wrong: &mut Vec<String>) {
    let lens = match messages(suite) {
        Ok(lens) => lens,
        Err(what) => {
            wrong.push(format!("{suite}: {what}"));
            return;
        }
    };
    let mut jobs = Vec::new();
    for (message, (_, len)) in lens.iter().enumerate() {
        for bit in (0..len * 8).step_by(stride) {
            for when in When::ALL {
                jobs.push(Tamper { message, bit, when });
            }
        }
    }
    let count = jobs.len();
    let failed = in_parallel(&jobs, |tamper| {
        let result = flip(suite, *tamper);
        result
            .err()
            .map(|what| format!("{suite}: {tamper:?}: {what}"))
    });
    println!("{suite}: {count} lives with one flipped bit");
    wrong.extend(failed.into_iter().flatten());
}
