//! What an endpoint does in every state with every kind of message: the whole table is in
//! `docs/transitions.md`. This test makes it anew and compares.
//!
//! After a change that is meant: `OBOL_BLESS=1 cargo test -p obol-ike --test transitions`, and read the
//! difference.

#[path = "transitions/messages.rs"]
mod messages;
#[path = "transitions/states.rs"]
mod states;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use messages::{Kind, kinds};
use obol_ike::event::Event;
use states::{STATES, State};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/transitions.md");

const HEAD: &str = "\
# Every state, every message

Written by `OBOL_BLESS=1 cargo test -p obol-ike --test transitions`, and compared by the same test without `OBOL_BLESS`.
For each state of an IKE SA at one end, and each kind of message that the other end, or a stranger, may send: what
follows at once.

`dropped: X` is the counter that goes up; nothing else changed. Otherwise: `reply` and `request` are what is sent, with
its payloads; `a -> b` are the IKE SAs of the state, as phase/number of Child SAs, before and after; then what the
operator is told. `taken` alone: nothing to see. Protected messages are made with the peer's own keys.

";

/// What followed, in words.
fn outcome(state: &State, kind: &Kind) -> String {
    let mut at = state.enter();
    let Some(datagram) = kind.make(&at) else {
        return "cannot be made".to_owned();
    };
    let before = at.pair.b.endpoint.phases(&at.watched);
    let sas = at.pair.b.endpoint.status(at.pair.now).len();
    let (sent, told) = (at.pair.net.sent.len(), at.pair.b.events.len());
    let path = at.path;
    let now = at.pair.now;
    let result = at.pair.b.endpoint.handle_datagram(now, path, &datagram);
    at.pair.run_for(Duration::ZERO);
    let mut words = Vec::new();
    for packet in &at.pair.net.sent[sent..] {
        words.push(heard(&at.pair, &packet.datagram));
    }
    let after = at.pair.b.endpoint.phases(&at.watched);
    if before != after {
        words.push(format!("{} -> {}", before.join(" "), after.join(" ")));
    }
    let more = at.pair.b.endpoint.status(now).len();
    if more > sas {
        words.push(format!("{} more IKE SA", more - sas));
    }
    // That a request of ours went out is said by the packet.
    let outcome = |event: &&Event| !matches!(event, Event::Progress { .. });
    let told = at.pair.b.events[told..].iter().filter(outcome);
    words.extend(told.map(event));
    match result {
        Err(reason) => words.insert(0, format!("dropped: {reason:?}")),
        Ok(()) if words.is_empty() => words.push("taken".to_owned()),
        Ok(()) => {}
    }
    plain(&words.join("; "))
}

/// Without the types' names around the names of their values.
fn plain(text: &str) -> String {
    let mut text = text.replace("ExchangeType(77)", "77");
    for ty in ["ExchangeType", "NotifyType"] {
        while let Some(start) = text.find(&format!("{ty}(")) {
            let inner = start + ty.len() + 1;
            let end = inner + text[inner..].find(')').unwrap_or(0);
            text.replace_range(end..=end, "");
            text.replace_range(start..inner, "");
        }
    }
    text
}

/// A datagram of the endpoint under test, as the other end reads it.
fn heard(pair: &obol_ike::testing::pair::Pair, datagram: &[u8]) -> String {
    match pair.a.endpoint.read(datagram) {
        Some((header, names)) => {
            let what = if header.flags.response {
                "reply"
            } else {
                "request"
            };
            format!("{what} {:?}[{}]", header.exchange, names.join(" "))
        }
        None => "sends what the peer has no keys for".to_owned(),
    }
}

fn event(event: &Event) -> String {
    let text = format!("{event:?}");
    let reason = text.split("reason: ").nth(1).map(|reason| {
        let end = reason.find(['{', '}', '"']).unwrap_or(reason.len());
        reason[..end]
            .trim()
            .trim_end_matches([' ', '(', ','])
            .to_owned()
    });
    let end = text
        .find(|c: char| !c.is_alphanumeric())
        .unwrap_or(text.len());
    match reason {
        Some(reason) => format!("{} {reason}", &text[..end]),
        None => text[..end].to_owned(),
    }
}

fn table() -> (String, usize) {
    let kinds = kinds();
    let mut text = HEAD.to_owned();
    let cells = STATES.len() * kinds.len();
    writeln!(
        text,
        "{} states, {} kinds of messages, {cells} cells.",
        STATES.len(),
        kinds.len()
    )
    .expect("memory");
    for state in STATES {
        writeln!(text, "\n## {}\n\n{}\n", state.name, state.means).expect("memory");
        writeln!(text, "| message | outcome |\n| --- | --- |").expect("memory");
        for kind in &kinds {
            let outcome = outcome(state, kind);
            assert!(!outcome.is_empty(), "{} / {}", state.name, kind.name);
            writeln!(text, "| {} | {outcome} |", kind.name).expect("memory");
        }
    }
    (text, cells)
}

#[test]
fn every_state_treats_every_message_as_written() {
    let (text, cells) = table();
    let unmade = text.matches("| cannot be made |").count();
    println!("{cells} cells, {unmade} of them of messages that cannot be made");
    assert_eq!(unmade, 0);
    if std::env::var_os("OBOL_BLESS").is_some() {
        std::fs::write(Path::new(FILE), &text).expect("docs/ is writable");
        return;
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    for (line, (now, then)) in text.lines().zip(written.lines()).enumerate() {
        assert_eq!(now, then, "docs/transitions.md:{}", line + 1);
    }
    assert_eq!(text.lines().count(), written.lines().count());
}
