//! Policies as text: as statements that are read back, and as `setkey -DP` lists them.

use std::net::IpAddr;

use obol_ike::ts::TrafficSelector;

use super::policy::{Action, Direction, Level, Priority, Rule, Transform};
use super::statement::Key;

/// `spdadd` with all that tells a policy; names were looked up before.
pub(crate) fn statement(key: &Key, priority: Priority, action: &Action) -> String {
    let number = 0x8000_0000 - i64::from(priority.0);
    let upper = match key.src.protocol {
        0 => "any".to_owned(),
        number => number.to_string(),
    };
    format!(
        "spdadd {} {} {upper}{} -P {} prio {number} {};",
        side(&key.src),
        side(&key.dst),
        misc(&key.src),
        direction(key.direction),
        words(action, |_| "unique".to_owned())
    )
}

/// `in`, `out` or `fwd`.
pub(crate) fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "in",
        Direction::Out => "out",
        Direction::Fwd => "fwd",
    }
}

/// `10.0.0.0/16[27017]`; a whole address stands without its length, and ICMP and GRE have no ports.
pub(crate) fn side(ts: &TrafficSelector) -> String {
    // All come from `RANGE` of the grammar.
    let (addr, len) = ts.as_subnet().unwrap_or((ts.start, 0));
    let whole = match addr {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    let range = match len == whole {
        true => addr.to_string(),
        false => format!("{addr}/{len}"),
    };
    match ts.protocol {
        1 | 47 | 58 => range,
        _ if ts.is_any_port() => format!("{range}[any]"),
        _ => format!("{range}[{}]", ts.start_port),
    }
}

/// The protocol as it is listed.
pub(crate) fn upper(ts: &TrafficSelector) -> String {
    let name = match ts.protocol {
        0 => "any",
        1 => "icmp",
        4 => "ip4",
        6 => "tcp",
        17 => "udp",
        41 => "ipv6",
        47 => "gre",
        58 => "icmp6",
        132 => "sctp",
        other => return other.to_string(),
    };
    format!("{name}{}", misc(ts))
}

/// Type and code of ICMP, with a blank before them.
fn misc(ts: &TrafficSelector) -> String {
    if !matches!(ts.protocol, 1 | 58) || ts.is_any_port() {
        return String::new();
    }
    let [ty, code] = ts.start_port.to_be_bytes();
    match ts.start_port == ts.end_port {
        true => format!(" {ty},{code}"),
        false => format!(" {ty}"),
    }
}

/// `prio def`, `prio high + 10`: the nearest word.
pub(crate) fn priority(priority: Priority) -> String {
    let bases = [
        ("high", 0x4000_0000_i64),
        ("def", 0x8000_0000),
        ("low", 0xc000_0000),
    ];
    let value = i64::from(priority.0);
    let nearest = bases
        .into_iter()
        .min_by_key(|(_, base)| (base - value).abs());
    let (word, base) = nearest.unwrap_or(("def", 0x8000_0000));
    match base - value {
        0 => format!("prio {word}"),
        more @ 1.. => format!("prio {word} + {more}"),
        less => format!("prio {word} - {}", -less),
    }
}

/// `discard`, `none`, or `ipsec` and the rules; `unique` says what stands for an SA of one's own
/// without a number.
fn words(action: &Action, unique: impl Fn(&Rule) -> String) -> String {
    let first = action_word(action).to_owned();
    let rules = rules(action, unique);
    std::iter::once(first)
        .chain(rules)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The word for what happens.
pub(crate) fn action_word(action: &Action) -> &'static str {
    match action {
        Action::Discard => "discard",
        Action::Pass => "none",
        Action::Ipsec(_) => "ipsec",
        Action::Entrust => "entrust",
    }
}

/// Each rule: `esp/transport//require`.
pub(crate) fn rules(action: &Action, unique: impl Fn(&Rule) -> String) -> Vec<String> {
    let Action::Ipsec(rules) = action else {
        return Vec::new();
    };
    let one = |rule: &Rule| {
        let protocol = match rule.protocol {
            Transform::Esp => "esp",
            Transform::Ah => "ah",
            Transform::Ipcomp => "ipcomp",
        };
        let (mode, ends) = match rule.tunnel {
            None => ("transport", String::new()),
            Some((from, to)) => ("tunnel", format!("{from}-{to}")),
        };
        let level = match rule.level {
            Level::Use => "use".to_owned(),
            Level::Require => "require".to_owned(),
            Level::Unique(Some(number)) => format!("unique:{number}"),
            Level::Unique(None) => unique(rule),
        };
        format!("{protocol}/{mode}/{ends}/{level}")
    };
    rules.iter().map(one).collect()
}
