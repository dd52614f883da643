//! What the demo tells: to people line by line as it happens, to machines as one document.

use super::capture::Seen;
use crate::cli::print_line;
use crate::control::protocol::IkeAlgorithmsReport;
use serde::Serialize;
use std::io::IsTerminal as _;
use std::time::Duration;

/// Version of the document's form: it grows when a field changes its meaning or goes.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// Everything that was found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Findings {
    /// [`SCHEMA_VERSION`].
    pub(crate) schema_version: u32,
    /// Version of obol.
    pub(crate) version: String,
    /// Whether every check held.
    pub(crate) ok: bool,
    /// How long the demo took, in seconds.
    pub(crate) seconds: f64,
    /// What the two daemons agreed on.
    pub(crate) negotiated: Option<Negotiated>,
    /// Times of packets and connections.
    pub(crate) latency: Latency,
    /// TCP payload through ESP in transport mode.
    pub(crate) throughput: Option<Throughput>,
    /// A daemon was killed.
    pub(crate) outage: Option<Outage>,
    /// What went over the wire.
    pub(crate) wire: Wire,
    /// What was checked.
    pub(crate) checks: Vec<Check>,
    /// Where configurations and logs are, if a check failed or everything was left up.
    pub(crate) logs: Option<String>,
}

/// What the two daemons agreed on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Negotiated {
    /// From the IKE_SA_INIT request to the IKE_AUTH response, on the wire, in milliseconds.
    pub(crate) first_negotiation_ms: Option<f64>,
    /// From the start of the daemons until the first Child SA was installed at both, in
    /// milliseconds.
    pub(crate) start_to_child_ms: f64,
    /// Identities, ours of host a first.
    pub(crate) identities: [String; 2],
    /// Algorithms of the IKE SA.
    pub(crate) ike: Option<IkeAlgorithmsReport>,
    /// Encryption of the Child SA.
    pub(crate) esp: String,
    /// `none` (IP protocol 50) or `udp`.
    pub(crate) encapsulation: String,
}

/// Times, in milliseconds; absent where there was no answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// Echo requests by their addresses.
    pub(crate) ping_ms: std::collections::BTreeMap<String, f64>,
    /// A TCP connection whose first packet began a negotiation.
    pub(crate) first_connect_ms: Option<f64>,
    /// One that found an SA.
    pub(crate) second_connect_ms: Option<f64>,
}

/// How much went through.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Throughput {
    /// Bytes of TCP payload that arrived.
    pub(crate) bytes: u64,
    /// In this time, in seconds.
    pub(crate) seconds: f64,
    /// The quotient.
    pub(crate) gbit_per_s: f64,
    /// Packets on the wire for it, by the device's own count.
    pub(crate) packets: u64,
}

/// What happened when a daemon was killed with SIGKILL under traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Outage {
    /// How long it stayed dead, in seconds.
    pub(crate) seconds: f64,
    /// Packets and connections tried meanwhile.
    pub(crate) tries: u64,
    /// Those that were answered: each would have gone by another way than ESP.
    pub(crate) answered: u64,
    /// Packets in clear meanwhile.
    pub(crate) clear: u64,
    /// From the new start until every flow worked, in seconds.
    pub(crate) recovery_s: Option<f64>,
}

/// What went over the wire.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Wire {
    /// By class, as captured.
    #[serde(flatten)]
    pub(crate) seen: Seen,
    /// Packets that the device counted and the capture did not see, apart from those of the
    /// throughput measurement, of which it looked at none that were ESP.
    pub(crate) missed: u64,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Check {
    /// A short name.
    pub(crate) name: String,
    /// Whether it was as expected.
    pub(crate) held: bool,
    /// What was seen.
    pub(crate) seen: String,
    /// What should have been.
    pub(crate) expected: String,
}

/// Collects the findings, and tells them.
#[derive(Debug)]
pub(crate) struct Story {
    /// So far.
    pub(crate) findings: Findings,
    style: Option<Style>,
    chapter: usize,
}

#[derive(Clone, Copy, Debug)]
struct Style {
    colour: bool,
}

impl Story {
    /// A story for people, or one for machines that is told at its end.
    pub(crate) fn new(json: bool) -> Self {
        let findings = Findings {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Findings::default()
        };
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = !plain && std::io::stdout().is_terminal();
        Self {
            findings,
            style: (!json).then_some(Style { colour }),
            chapter: 0,
        }
    }

    /// What comes next.
    pub(crate) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        let title = format!("{}. {title}", self.chapter);
        self.line("");
        self.line(&self.painted("1", &title));
    }

    /// Lines that are no check.
    pub(crate) fn note(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("         {line}"));
        }
    }

    /// Something that should be so.
    pub(crate) fn check(&mut self, name: &str, held: bool, seen: &str, expected: &str) {
        let mark = if held {
            self.painted("32", "ok  ")
        } else {
            self.painted("31", "FAIL")
        };
        let (first, more) = seen.split_once('\n').unwrap_or((seen, ""));
        self.line(&format!("   {mark}  {first}"));
        self.note(more);
        if !held {
            self.note(&format!("expected: {expected}"));
        }
        self.findings.checks.push(Check {
            name: name.to_owned(),
            held,
            seen: seen.to_owned(),
            expected: expected.to_owned(),
        });
    }

    /// Ends the story: how many checks held, or the document.
    pub(crate) fn end(&mut self, took: Duration) {
        let held = self
            .findings
            .checks
            .iter()
            .filter(|check| check.held)
            .count();
        let all = self.findings.checks.len();
        self.findings.ok = held == all && all > 0;
        self.findings.seconds = rounded(took.as_secs_f64());
        if self.style.is_none() {
            let document = serde_json::to_string_pretty(&self.findings)
                .expect("the findings have string keys and no failing serializer");
            // A reader that went away has lost interest.
            let _ = print_line(&document);
            return;
        }
        self.line("");
        let summary = format!(
            "{held} of {all} checks held, in {:.1} s.",
            took.as_secs_f64()
        );
        let colour = if self.findings.ok { "1;32" } else { "1;31" };
        self.line(&self.painted(colour, &summary));
    }

    /// A line for people.
    pub(crate) fn line(&self, text: &str) {
        if self.style.is_some() {
            // As above.
            let _ = print_line(text);
        }
    }

    fn painted(&self, code: &str, text: &str) -> String {
        match self.style {
            Some(Style { colour: true }) => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// Milliseconds with three digits after the point.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1000.0)
}

/// With three digits after the point.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_check_fails_the_demo() {
        let mut story = Story::new(true);
        story.check("first", true, "so", "so");
        story.end(Duration::from_millis(1234));
        assert!(story.findings.ok);
        assert_eq!(story.findings.seconds, 1.234);
        story.check("second", false, "otherwise", "so");
        story.end(Duration::ZERO);
        assert!(!story.findings.ok);
    }

    #[test]
    fn a_demo_without_checks_has_shown_nothing() {
        let mut story = Story::new(true);
        story.end(Duration::ZERO);
        assert!(!story.findings.ok);
    }

    #[test]
    fn the_document_has_the_wire_flat() {
        let mut findings = Findings::default();
        findings.wire.seen.esp = 7;
        findings.wire.missed = 1;
        let document = serde_json::to_value(&findings).unwrap();
        assert_eq!(document["wire"]["esp"], 7);
        assert_eq!(document["wire"]["missed"], 1);
        assert_eq!(document["checks"], serde_json::json!([]));
    }
}
