//! The key `queues` of a child: up to so many Child SAs carry it at once, RFC 9611.

use std::time::Duration;

use obol_ike::event::EspSpi;

use super::finding::{Located, Report};
use super::reader::Section;
use super::values;

/// Reads it, beside `inactivity`. `None`: what is there is wrong.
pub(super) fn read(
    report: &Report<'_>,
    section: &Section<'_>,
    inactivity: Option<&Located<Duration>>,
) -> Option<u16> {
    let Some(queues) = section.quantity("queues", parse) else {
        return (!section.has("queues")).then_some(1);
    };
    // Flows are spread over all SAs, and one that has none just now is not to be closed for that.
    if let Some(time) = inactivity.filter(|time| queues.value > 1 && !time.value.is_zero()) {
        report.clash(
            &queues.place,
            &time.place,
            "a child with several queues cannot be closed for inactivity",
            "remove one of the two lines",
        );
        return None;
    }
    Some(queues.value)
}

fn parse(text: &str) -> Result<u16, String> {
    let most = EspSpi::QUEUES;
    if text == "auto" {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        return Ok(u16::try_from(processors).unwrap_or(most).min(most));
    }
    let number = values::count(text).ok().and_then(|n| u16::try_from(n).ok());
    number
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| {
            format!("write a number from 1 to {most}, or \"auto\" for one per processor")
        })
}
