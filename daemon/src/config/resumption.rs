//! The keys `resumption` and `ticket_lifetime` of a connection, RFC 5723.

use std::time::Duration;

use obol_ike::config::Resumption;

use super::finding::Report;
use super::reader::Section;
use super::values;

/// Less, and a client asks for tickets all the time.
const SHORTEST: Duration = Duration::from_secs(60);

/// Reads both.
pub(super) fn read(report: &Report<'_>, section: &Section<'_>) -> Resumption {
    let mut resumption = Resumption {
        enabled: section.boolean("resumption").unwrap_or(false),
        ..Resumption::default()
    };
    let Some(lifetime) = section.quantity("ticket_lifetime", lifetime) else {
        return resumption;
    };
    resumption.lifetime = lifetime.value;
    if !resumption.enabled {
        report.error(
            &lifetime.place,
            "ticket_lifetime has no use where no tickets are given",
            "add resumption = true, or remove the line",
        );
    }
    resumption
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let time = values::duration(text)?;
    if (SHORTEST..=Resumption::LONGEST).contains(&time) {
        Ok(time)
    } else {
        Err("1m is the shortest, and 1d the longest".into())
    }
}
