//! The log: lines on standard error, one per event, at the level that the configuration names.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::error::{ExitClass, Failure};

/// Starts logging. `filter` is a level, or directives as in `info,obol_ike=debug`; the
/// environment variable OBOL_LOG overrides it. Later calls change nothing.
///
/// # Errors
/// If the filter does not parse.
pub(crate) fn start(filter: &str) -> Result<(), Failure> {
    let text = std::env::var("OBOL_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter = EnvFilter::try_new(&text)
        .map_err(|e| Failure::new(ExitClass::Config, format!("log filter {text:?}: {e}")))?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .try_init();
    Ok(())
}
