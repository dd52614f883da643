//! The command line: parses it, runs the command, prints, and ends with the right exit code.

mod args;
mod check;
mod client;
mod keygen;
mod migrate;
mod pluto;
mod print;
mod purge;
mod racoon;
mod remote;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

pub(crate) use args::{
    Cli, Command, DEFAULT_CONFIG, DEFAULT_RUNTIME_DIR, DemoArgs, RUNTIME_DIR_VARIABLE,
};

use crate::error::{ExitClass, Failure};
use crate::ipsec;
use crate::ipsec_tools::{self, Here, Program};
use crate::run::Origin;
use crate::service;
pub(crate) use client::{ask, is_running};

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    if let Some(program) = ipsec_tools_program(&program) {
        let words: Vec<String> = words.collect();
        return ipsec_tools::main(program, &Here::by_environment(), &words);
    }
    if let Some(name) = called(&program) {
        let name = name.map(str::to_owned).into_iter();
        return ipsec::main(&name.chain(words).collect::<Vec<_>>());
    }
    let cli = Cli::parse();
    if let Command::Ipsec(args) = &cli.command {
        return ipsec::main(&args.arguments);
    }
    let program = match &cli.command {
        Command::Racoon(args) => Some((Program::Racoon, args)),
        Command::Racoonctl(args) => Some((Program::Racoonctl, args)),
        Command::Setkey(args) => Some((Program::Setkey, args)),
        _ => None,
    };
    if let Some((program, args)) = program {
        let here = Here {
            runtime_dir: cli.runtime_dir(),
            config: cli.config.clone(),
        };
        return ipsec_tools::main(program, &here, &args.arguments);
    }
    match dispatch(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain_line(&format!("obol: {failure}"));
            ExitCode::from(failure.code.code())
        }
    }
}

/// Whether this is a name by which obol is pluto's client, with the command that it stands for.
fn called(program: &str) -> Option<Option<&'static str>> {
    match Path::new(program).file_name()?.to_str()? {
        "ipsec" => Some(None),
        "whack" => Some(Some("whack")),
        "addconn" => Some(Some("addconn")),
        _ => None,
    }
}

fn ipsec_tools_program(program: &str) -> Option<Program> {
    Program::called(Path::new(program).file_name()?.to_str()?)
}

fn dispatch(cli: &Cli) -> Result<(), Failure> {
    let runtime_dir = cli.runtime_dir();
    match &cli.command {
        Command::Up(args) => remote::up(&runtime_dir, args),
        Command::Down(args) => {
            if let Some(why) = args.of_unit.as_deref().and_then(service::keeps_protection) {
                return print_line(&format!("{why}: nothing is lifted"));
            }
            remote::down(&runtime_dir, &cli.config, args)?;
            if args.all {
                ipsec_tools::forget(&runtime_dir)
            } else {
                Ok(())
            }
        }
        Command::Redirect(args) => remote::redirect(&runtime_dir, args),
        Command::Status(args) => remote::status(&runtime_dir, args),
        Command::List(output) => remote::list(&runtime_dir, output.json),
        Command::Reload(output) => remote::reload(&runtime_dir, output.json),
        Command::Check(args) => check::check(&args.files, &cli.config, args.output.json),
        Command::Convert(args) => convert(&args.files, &cli.config),
        // Done before.
        Command::Ipsec(_) | Command::Racoon(_) | Command::Racoonctl(_) | Command::Setkey(_) => {
            Ok(())
        }
        Command::Migrate(args) => migrate::migrate(&runtime_dir, &cli.config, args),
        Command::Keygen(args) => keygen::keygen(args),
        Command::Demo(args) => crate::demo::demo(args),
        Command::Version(output) => version(output.json),
        Command::Run(args) => {
            let config = cli.config.clone();
            let (pluto, racoon) = (args.pluto(), args.racoon(&runtime_dir));
            let origin = Origin {
                config,
                pluto,
                racoon,
            };
            crate::run::run(origin, &runtime_dir, || ())
        }
        Command::Purge => {
            purge::purge(&runtime_dir, &cli.config)?;
            ipsec_tools::forget(&runtime_dir)
        }
    }
}

/// Prints files of Libreswan or racoon as a configuration of obol's own.
fn convert(files: &[std::path::PathBuf], own: &Path) -> Result<(), Failure> {
    match (racoon::kinds(files)?, files) {
        (Some(files), _) => racoon::convert(&files, own),
        (None, [file]) => pluto::convert(file),
        (None, _) => Err(Failure::new(
            ExitClass::Usage,
            "several files can be converted at once if they are racoon's and setkey's",
        )),
    }
}

fn version(json: bool) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        return print_json(&serde_json::json!({"version": version}));
    }
    print_line(&format!("obol {version}"))
}

/// Prints one JSON document.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new(ExitClass::Failed, e.to_string()))?;
    print_line(&text)
}

/// Writes a line to standard output.
pub(crate) fn print_line(text: &str) -> Result<(), Failure> {
    print_text(&format!("{text}\n"))
}

/// Writes to standard output. A reader that went away is no failure.
pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::system("cannot write to standard output", &e))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error; where that fails there is nobody left to tell.
pub(crate) fn complain_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
