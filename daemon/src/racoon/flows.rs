//! Policies go one way, obol's go both: an `out` line and the `in` line for the answers are a flow.

use std::collections::HashMap;
use std::net::IpAddr;

use obol_ike::ts::TrafficSelector;

use super::setkey::{Action, Direction, Entry, Level, Table, Transform};
use crate::config::{Place, Report};

/// What happens to packets between two sides, in both directions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flow {
    /// This host's side.
    pub(crate) local: TrafficSelector,
    /// The other side.
    pub(crate) remote: TrafficSelector,
    /// What happens.
    pub(crate) what: What,
    /// Where the line for packets from this host is, and which one it is of those in force.
    pub(crate) out: Option<(usize, Place)>,
    /// Where the line for packets to this host is.
    pub(crate) inward: Option<(usize, Place)>,
}

/// What happens to packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum What {
    /// They go through ESP, or not at all. The ends of the tunnel are this host and the peer;
    /// `None` is transport mode.
    Protect(Option<(IpAddr, IpAddr)>),
    /// They go through ESP where there is an SA, and else in clear.
    Prefer(Option<(IpAddr, IpAddr)>),
    /// They pass in clear.
    Pass,
    /// They are dropped.
    Drop,
}

/// The flows of a table, in the order in which they decide. What obol has no words for is reported.
pub(crate) fn pair(report: &Report<'_>, table: &Table) -> Vec<Flow> {
    let entries = table.in_order();
    let mut flows: Vec<Flow> = Vec::new();
    let mut by_sides: HashMap<(TrafficSelector, TrafficSelector), usize> = HashMap::new();
    // Those that go out decide the order.
    let out = |entry: &&(usize, &&Entry)| entry.1.key.direction == Direction::Out;
    let inward = |entry: &&(usize, &&Entry)| entry.1.key.direction == Direction::In;
    let fwd = |entry: &&(usize, &&Entry)| entry.1.key.direction == Direction::Fwd;
    let all: Vec<(usize, &&Entry)> = entries.iter().enumerate().collect();
    let ordered = all.iter().filter(out).chain(all.iter().filter(inward));
    for (at, entry) in ordered.chain(all.iter().filter(fwd)) {
        let Some(what) = what(report, entry) else {
            continue;
        };
        let here = Some((*at, entry.place.clone()));
        let key = &entry.key;
        let is_out = key.direction == Direction::Out;
        let (local, remote) = match is_out {
            true => (key.src, key.dst),
            false => (key.dst, key.src),
        };
        let found = by_sides.get(&(local, remote));
        match found.and_then(|found| flows.get_mut(*found)) {
            None => {
                by_sides.insert((local, remote), flows.len());
                let (out, inward) = if is_out { (here, None) } else { (None, here) };
                flows.push(Flow {
                    local,
                    remote,
                    what,
                    out,
                    inward,
                });
            }
            Some(flow) if flow.what == what => {
                flow.inward.get_or_insert((*at, entry.place.clone()));
            }
            Some(flow) => contradiction(report, entry, flow),
        }
    }
    for flow in &flows {
        one_way(report, flow);
    }
    flows.sort_by_key(|flow| {
        flow.out
            .as_ref()
            .or(flow.inward.as_ref())
            .map(|(at, _)| *at)
    });
    flows
}

/// What a line says, with tunnels from this host's point of view.
fn what(report: &Report<'_>, entry: &Entry) -> Option<What> {
    let rules = match &entry.action {
        Action::Discard => return Some(What::Drop),
        Action::Pass => return Some(What::Pass),
        Action::Entrust => return None,
        Action::Ipsec(rules) => rules,
    };
    for rule in rules {
        if rule.protocol == Transform::Ipcomp {
            report.warn(
                &entry.place,
                "compression (ipcomp) has no effect",
                "remove the rule",
            );
        }
        if let Level::Unique(Some(number)) = rule.level
            && entry.key.direction == Direction::Out
        {
            report.warn(
                &entry.place,
                format!("the number in unique:{number} is listed, and has no other effect"),
                "each policy of obol has its own SAs as it is",
            );
        }
    }
    let esp = rules.iter().find(|rule| rule.protocol == Transform::Esp)?;
    let ends = |(left, right)| match entry.key.direction {
        Direction::Out => (left, right),
        Direction::In | Direction::Fwd => (right, left),
    };
    if esp.level == Level::Use {
        report.warn(
            &entry.place,
            "opportunistic, cleartext allowed: with level use packets pass in clear while there is no SA, and those to this host always",
            "write require; hosts without obol then cannot talk to this one on these ports",
        );
        return Some(What::Prefer(esp.tunnel.map(ends)));
    }
    Some(What::Protect(esp.tunnel.map(ends)))
}

fn contradiction(report: &Report<'_>, entry: &Entry, flow: &Flow) {
    let other = flow.out.as_ref().or(flow.inward.as_ref());
    let other = other.map_or(&entry.place, |(_, place)| place);
    report.clash(
        &entry.place,
        other,
        "the policies for the two directions contradict each other",
        "obol treats both directions alike: let both say the same, with the ends of a tunnel exchanged",
    );
}

/// obol's own go both ways, so a line that stands alone changes its meaning.
fn one_way(report: &Report<'_>, flow: &Flow) {
    let (place, message, fix) = match (&flow.out, &flow.inward, flow.what) {
        (Some((_, place)), None, What::Protect(_) | What::Prefer(_)) => (
            place,
            "no in-bound policy found for this one: obol protects the answers as well",
            "add the line for them: source and destination exchanged, -P in",
        ),
        (None, Some((_, place)), What::Prefer(_)) => (
            place,
            "no out-bound policy found for this one: obol waits for the peer to begin, and then protects both directions",
            "add the line for it: source and destination exchanged, -P out",
        ),
        (None, Some((_, place)), What::Protect(_)) => (
            place,
            "no out-bound policy found for this one: obol drops what this host sends until the peer begins",
            "add the line for it: source and destination exchanged, -P out",
        ),
        (Some((_, place)), None, What::Drop) | (None, Some((_, place)), What::Drop) => (
            place,
            "this drops packets in one direction: obol drops them in both",
            "add the line for the other direction",
        ),
        _ => return,
    };
    report.warn(place, message, fix);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::racoon::names::Names;
    use crate::racoon::setkey;

    /// Flows as `LOCAL=REMOTE WHAT`, then notices as lines, or all that is wrong.
    fn flows(text: &str) -> Result<Vec<String>, String> {
        let sources = vec![setkey::source("s.conf".into(), "".into(), text)];
        let report = Report::new(&sources);
        let lines = setkey::read(&report, &Names::for_tests(), 0, text);
        let mut table = Table::default();
        table.run(&report, &lines);
        let flows = pair(&report, &table);
        let shown = flows
            .iter()
            .map(|f| format!("{}={} {:?}", f.local, f.remote, f.what));
        let mut shown: Vec<String> = shown.collect();
        let notices = report.finish().map_err(|errors| errors.to_string())?;
        let first = |notice: String| notice.lines().next().unwrap_or_default().to_owned();
        shown.extend(notices.iter().map(|notice| first(notice.to_string())));
        Ok(shown)
    }

    #[test]
    fn the_story_is_two_flows() {
        assert_eq!(
            flows(include_str!("tests/mongodb.conf")).unwrap(),
            [
                "10.0.0.0/16[tcp/27017]=10.0.0.0/16[tcp] Protect(None)",
                "10.0.0.0/16[tcp]=10.0.0.0/16[tcp/27017] Protect(None)",
            ]
        );
    }

    #[test]
    fn both_ends_of_a_tunnel_are_seen_from_here() {
        let text = "spdadd 10.2.0.0/16 10.1.0.0/16 any -P fwd ipsec esp/tunnel/192.0.2.2-192.0.2.1/require;
            spdadd 10.2.0.0/16 10.1.0.0/16 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/unique;
            spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;";
        assert_eq!(
            flows(text).unwrap(),
            ["10.1.0.0/16=10.2.0.0/16 Protect(Some((192.0.2.1, 192.0.2.2)))"]
        );
        let swapped = text.replace("192.0.2.2-192.0.2.1/require", "192.0.2.1-192.0.2.2/require");
        assert!(flows(&swapped).unwrap_err().contains("contradict"));
    }

    #[test]
    fn what_stands_alone_is_told() {
        let out = "spdadd 10.0.0.1 10.0.0.2 any -P out ipsec esp/transport//require;";
        assert!(flows(out).unwrap()[1].contains("no in-bound policy found"));
        let inward = out.replace("out", "in");
        assert!(flows(&inward).unwrap()[1].contains("no out-bound policy found"));
        let both = format!("{out} spdadd 10.0.0.2 10.0.0.1 any -P in none;");
        assert!(flows(&both).unwrap_err().contains("contradict"));
        let drop = "spdadd 10.0.0.1 10.0.0.2 any -P out discard;";
        assert!(flows(drop).unwrap()[1].contains("drops them in both"));
        let strict = both.replace("in none", "in ipsec esp/transport//require");
        assert_eq!(flows(&strict).unwrap(), ["10.0.0.1=10.0.0.2 Protect(None)"]);
        let clear = flows(&strict.replace("require", "use")).unwrap();
        assert_eq!(clear[0], "10.0.0.1=10.0.0.2 Prefer(None)");
        let told = |notice: &String| notice.contains("opportunistic, cleartext allowed");
        assert_eq!(clear[1..].iter().filter(|notice| told(notice)).count(), 2);
        // Both directions say the same.
        let half = strict.replacen("require", "use", 1);
        assert!(flows(&half).unwrap_err().contains("contradict"));
        let pressed = out.replace("ipsec", "ipsec ipcomp/transport//use");
        // The level of compression lets nothing pass in clear.
        assert!(flows(&pressed).unwrap()[0].ends_with(" Protect(None)"));
        assert!(
            flows(&pressed)
                .unwrap()
                .iter()
                .any(|line| line.contains("compression"))
        );
    }
}
