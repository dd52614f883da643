//! The command line: parses it, runs the command, prints, and ends with the right exit code.

mod args;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

pub(crate) use args::{Cli, Command, DemoArgs};

use crate::error::{ExitClass, Failure};

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.code.code())
        }
    }
}

fn dispatch(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Demo(args) => crate::demo::demo(args),
        Command::Version(output) => version(output.json),
        command => Err(Failure::new(
            ExitClass::Failed,
            format!("{command:?} is not in this build"),
        )),
    }
}

fn version(json: bool) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        return print_line(&serde_json::json!({"version": version}).to_string());
    }
    print_line(&format!("obol {version}"))
}

/// Writes a line to standard output. A reader that went away is no failure.
pub(crate) fn print_line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::system("cannot write to standard output", &e))
        }
        _ => Ok(()),
    }
}

/// Writes a failure to standard error; where that fails there is nobody left to tell.
fn complain(failure: &Failure) {
    let _ = writeln!(std::io::stderr().lock(), "obol: {}", failure.message);
}
