//! Children whose packets pass in clear while there is no SA.

use super::HOSTS;
use super::bad::errors;
use crate::config::files::NoFiles;
use crate::config::{Loaded, parse_str};
use crate::dataplane::{Clear, Cleartext};

/// The documented file, whose child for pods has this line more.
fn with(line: &str) -> String {
    let table = "[connections.hosts.children.pods]\n";
    assert!(HOSTS.contains(table));
    HOSTS.replace(table, &format!("{table}{line}\n"))
}

fn parse(text: &str) -> Loaded {
    parse_str("a.toml", text, &NoFiles).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn packets_pass_in_clear_only_where_that_is_written_and_said() {
    let loaded = parse(HOSTS);
    let never = |clear: Clear| clear == Clear::default();
    assert!(loaded.policies.iter().all(|policy| never(policy.clear)));
    for (word, when, at_first) in [
        ("never", Cleartext::Never, false),
        ("while-negotiating", Cleartext::WhileNegotiating, true),
        ("after-failure", Cleartext::AfterFailure, false),
        ("without-sa", Cleartext::WithoutSa, true),
        ("opportunistic", Cleartext::Opportunistic, true),
    ] {
        let loaded = parse(&with(&format!("cleartext = \"{word}\"")));
        let clear = loaded.policies[0].clear;
        assert_eq!(
            clear,
            Clear {
                when,
                now: at_first
            },
            "{word}"
        );
        assert!(
            loaded.policies[1..]
                .iter()
                .all(|policy| never(policy.clear))
        );
        let said = loaded.warnings.iter().map(ToString::to_string);
        let said: Vec<_> = said
            .filter(|text| text.contains("cleartext allowed"))
            .collect();
        match when {
            Cleartext::Never => assert!(said.is_empty()),
            _ => assert!(
                said.len() == 1 && said[0].starts_with("a.toml:"),
                "{said:?}"
            ),
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for (line, expected) in [
        (
            "cleartext = \"always\"",
            "cleartext = \"always\" is none that obol knows",
        ),
        ("cleartext = true", "cleartext"),
        (
            "cleartext = \"without-sa\"\nif_id = 5",
            "the xfrm interface lets nothing pass in clear",
        ),
    ] {
        let said = errors(&with(line)).to_string();
        assert!(said.contains(expected), "{line}: {said}");
    }
}

/// Which of the two would a packet be of that both are about?
#[test]
fn one_that_lets_packets_pass_lies_within_a_strict_one_or_apart_from_it() {
    let child = |name: &str, local: &str, line: &str| {
        format!(
            "[connections.hosts.children.{name}]\nmode = \"transport\"\n{line}\n\
             local_ts = [\"192.168.0.1/32{local}\"]\nremote_ts = [\"192.168.0.2/32[udp]\"]\n"
        )
    };
    let text = |one: &str, other: &str, line: &str| {
        let clear = "cleartext = \"opportunistic\"";
        format!(
            "{HOSTS}\n{}{}",
            child("one", one, clear),
            child("other", other, line)
        )
    };
    let clear = "cleartext = \"opportunistic\"";
    parse(&text("[udp/80]", "[udp]", ""));
    parse(&text("[udp/80]", "[udp/81]", ""));
    parse(&text("[udp/80-90]", "[udp/85-95]", clear));
    for line in ["", "cleartext = \"without-sa\""] {
        let said = errors(&text("[udp/80-90]", "[udp/85-95]", line)).to_string();
        assert!(said.contains("cleartext says different things"), "{said}");
        assert_eq!(said.matches("different things").count(), 1, "{said}");
    }
}
