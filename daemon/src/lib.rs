//! The `obol` daemon and command line as a library, so that tests, benches and fuzz targets
//! reach its parts. Everything that touches the system is in this crate.
#![doc(hidden)]
#![deny(unsafe_code)]

mod cli;
mod clock;
mod config;
mod control;
mod credentials;
mod dataplane;
pub mod demo;
mod driver;
mod error;
pub mod fuzzing;
pub mod host;
mod ipsec;
mod ipsec_tools;
mod logging;
mod pluto;
mod ports;
mod racoon;
mod run;
mod service;
mod state;
mod sys;
mod trouble;
mod updown;

use std::process::ExitCode;

pub use config::fuzz_config;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    cli::main()
}
