//! Policies as `setkey -DP` lists them.

use std::fmt::Write as _;

use obol_ike::ts::TrafficSelector;

use super::when::Clock;
use crate::control::protocol::PolicyReport;
use crate::racoon::write;
use crate::racoon::{Action, Direction, Key, Level, Priority, Rule, Store, Stored, Transform};

/// As setkey's own numbers for `unique` without one.
const AUTOMATIC: u32 = 16384;

/// From here on, times 8, are the numbers of policies that were made for peers.
const MADE: u32 = 1 << 20;

/// A policy as it is listed.
struct Listed {
    policy: Stored,
    /// When an SA last carried packets of it, in seconds since 1970.
    last_used: Option<u64>,
    /// Seconds that it is good for; 0 is for ever.
    lifetime: u64,
}

/// All policies, also those of a daemon that were made for its peers; those for packets to this host
/// are there once more for packets through it. `known` is what the daemon says of its own.
pub(super) fn list(store: &Store, known: &[PolicyReport], pid: u32, clock: &Clock) -> String {
    let own = store.policies.iter().map(|policy| Listed {
        last_used: last_used(policy, known, clock),
        policy: policy.clone(),
        lifetime: 0,
    });
    let mut all: Vec<Listed> = own.chain(made(store, known, clock)).collect();
    let copies: Vec<Listed> = all
        .iter()
        .filter_map(|listed| copy(store, listed))
        .collect();
    all.extend(copies);
    if all.is_empty() {
        return "No SPD entries.\n".to_owned();
    }
    let count = all.len();
    let entries = all.iter().enumerate();
    entries
        .map(|(at, listed)| entry(listed, count - 1 - at, pid, clock))
        .collect()
}

/// Those that a daemon made for its peers, as setkey would have been told them, each with a number that no
/// other has.
fn made(store: &Store, known: &[PolicyReport], clock: &Clock) -> impl Iterator<Item = Listed> {
    let made = known.iter().flat_map(|report| generated(report, clock));
    (store.policies.len()..).zip(made).map(|(at, mut listed)| {
        let at = u32::try_from(at).unwrap_or_default();
        listed.policy.spid |= (MADE + at) << 3;
        listed
    })
}

/// The same without when they were used.
pub(super) fn made_policies(
    store: &Store,
    known: &[PolicyReport],
    clock: &Clock,
) -> impl Iterator<Item = Stored> {
    made(store, known, clock).map(|listed| listed.policy)
}

/// When an SA last carried packets that this policy decides about.
fn last_used(policy: &Stored, known: &[PolicyReport], clock: &Clock) -> Option<u64> {
    let key = &policy.key;
    let (ours, theirs) = match key.direction {
        Direction::Out => (&key.src, &key.dst),
        Direction::In | Direction::Fwd => (&key.dst, &key.src),
    };
    let within = |texts: &[String], side: &TrafficSelector| {
        let mut all = texts
            .iter()
            .filter_map(|text| text.parse::<TrafficSelector>().ok());
        all.any(|ts| side.contains(&ts))
    };
    let fits = |report: &&PolicyReport| {
        report.generated.is_none()
            && within(&report.local_ts, ours)
            && within(&report.remote_ts, theirs)
    };
    let ages = known
        .iter()
        .filter(fits)
        .filter_map(|report| match key.direction {
            Direction::Out => report.last_out_s,
            Direction::In | Direction::Fwd => report.last_in_s,
        });
    ages.min().map(|age| clock.ago(age))
}

/// A policy that a daemon made for a peer, as setkey would have been told it: a line for each direction
/// and pair of selectors.
fn generated(report: &PolicyReport, clock: &Clock) -> Vec<Listed> {
    let Some(made) = &report.generated else {
        return Vec::new();
    };
    let side = |texts: &[String]| -> Vec<TrafficSelector> {
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    };
    let level = match made.level.as_str() {
        "use" => Level::Use,
        "unique" => Level::Unique(None),
        _ => Level::Require,
    };
    let ends = (made.ends.0.parse().ok(), made.ends.1.parse().ok());
    let ends = ends.0.zip(ends.1).filter(|_| report.mode == "tunnel");
    let mut all = Vec::new();
    for ours in side(&report.local_ts) {
        for theirs in side(&report.remote_ts) {
            for direction in [Direction::Out, Direction::In] {
                let out = direction == Direction::Out;
                let (src, dst) = if out { (ours, theirs) } else { (theirs, ours) };
                let tunnel = ends.map(|(own, peer)| if out { (own, peer) } else { (peer, own) });
                let age = if out {
                    report.last_out_s
                } else {
                    report.last_in_s
                };
                let rule = Rule {
                    protocol: Transform::Esp,
                    tunnel,
                    level,
                };
                all.push(Listed {
                    policy: Stored {
                        key: Key {
                            src,
                            dst,
                            direction,
                        },
                        priority: Priority::DEFAULT,
                        action: Action::Ipsec(vec![rule]),
                        // The low bits tell the direction.
                        spid: u32::from(out),
                        created: clock.ago(made.age_s),
                        file: String::new(),
                        line: 0,
                    },
                    last_used: age.map(|age| clock.ago(age)),
                    lifetime: made.life_s,
                });
            }
        }
    }
    all
}

/// The copy for packets through this host, unless a line of its own says what becomes of them.
fn copy(store: &Store, listed: &Listed) -> Option<Listed> {
    let policy = &listed.policy;
    let mut copy = policy.clone();
    copy.key.direction = Direction::Fwd;
    if policy.key.direction != Direction::In || store.find(&copy.key).is_some() {
        return None;
    }
    copy.spid = policy.spid | 2;
    if let Action::Ipsec(rules) = &mut copy.action {
        for rule in rules {
            if matches!(rule.level, Level::Unique(_)) {
                rule.level = Level::Require;
            }
        }
    }
    Some(Listed {
        policy: copy,
        ..*listed
    })
}

/// The number of a policy that is to be unique and names none.
pub(super) fn automatic(policy: &Stored) -> u32 {
    AUTOMATIC + (policy.spid >> 3)
}

fn entry(listed: &Listed, seq: usize, pid: u32, clock: &Clock) -> String {
    let policy = &listed.policy;
    let key = &policy.key;
    let mut text = format!(
        "{} {} {}\n\t{} {} {}\n",
        write::side(&key.src),
        write::side(&key.dst),
        write::upper(&key.src),
        write::direction(key.direction),
        write::priority(policy.priority),
        write::action_word(&policy.action)
    );
    for rule in write::rules(&policy.action, |_| format!("unique#{}", automatic(policy))) {
        let _ = writeln!(text, "\t{rule}");
    }
    let _ = writeln!(
        text,
        "\tcreated: {}  lastused: {}\n\tlifetime: {}(s) validtime: 0(s)\n\tspid={} seq={seq} pid={pid}\n\trefcnt=1",
        clock.long(Some(policy.created)),
        clock.long(listed.last_used),
        listed.lifetime,
        policy.spid
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::racoon::{Names, script};

    fn listed(text: &str) -> String {
        let clock = Clock::for_tests();
        let store = Store::default();
        let outcome = script::run(&store, &Names::none(), "x", text, clock.ago(17));
        list(&outcome.store, &[], 1234, &clock)
    }

    #[test]
    fn r_a1_the_story_is_four_policies_and_two_copies() {
        let text = listed(include_str!("../racoon/tests/mongodb.conf"));
        let first = concat!(
            "10.0.0.0/16[any] 10.0.0.0/16[27017] tcp\n",
            "\tin prio def ipsec\n",
            "\tesp/transport//require\n",
            "\tcreated: Mar  1 12:00:00 2026  lastused:                     \n",
            "\tlifetime: 0(s) validtime: 0(s)\n",
            "\tspid=8 seq=5 pid=1234\n",
            "\trefcnt=1\n",
            "10.0.0.0/16[27017] 10.0.0.0/16[any] tcp\n",
            "\tout prio def ipsec\n",
        );
        assert!(text.starts_with(first), "{text}");
        assert_eq!(text.matches("\n\tfwd prio def ipsec\n").count(), 2);
        assert!(
            text.ends_with("\tspid=26 seq=0 pid=1234\n\trefcnt=1\n"),
            "{text}"
        );
        assert_eq!(listed(""), "No SPD entries.\n");
    }

    /// A policy of a daemon: `LOCAL=REMOTE`.
    fn known(sides: &str, ages: (Option<u64>, Option<u64>), level: Option<&str>) -> PolicyReport {
        let (local, remote) = sides.split_once('=').unwrap();
        let generated = level.map(|level| {
            serde_json::json!({
                "level": level, "ends": ["10.0.1.13", "10.0.1.241"], "age_s": 10, "life_s": 43200,
            })
        });
        let mode = match level {
            Some("require") => "tunnel",
            _ => "transport",
        };
        serde_json::from_value(serde_json::json!({
            "connection": "anonymous", "child": "a", "mode": mode, "local_ts": [local],
            "remote_ts": [remote], "state": "up", "next_try_in_s": null, "generated": generated,
            "last_in_s": ages.0, "last_out_s": ages.1,
        }))
        .unwrap()
    }

    #[test]
    fn when_an_sa_last_carried_packets_of_a_policy() {
        let clock = Clock::for_tests();
        let text = include_str!("../racoon/tests/mongodb.conf");
        let store = script::run(&Store::default(), &Names::none(), "x", text, clock.ago(17)).store;
        let server = "10.0.0.0/16[tcp/27017]=10.0.0.0/16[tcp]";
        let known = [
            known(server, (Some(8), Some(3)), None),
            known(
                "10.0.0.0/16[tcp/22]=10.0.0.0/16[tcp]",
                (Some(1), Some(1)),
                None,
            ),
        ];
        let text = list(&store, &known, 1234, &clock);
        let used: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once("lastused: "))
            .map(|(_, at)| at.trim())
            .collect();
        let (inward, out) = ("Mar  1 12:00:09 2026", "Mar  1 12:00:14 2026");
        // In and out of the server; the client's; then the copies of both in.
        assert_eq!(used, [inward, out, "", "", inward, ""]);
    }

    #[test]
    fn policies_that_were_made_for_peers_are_listed_as_any() {
        let clock = Clock::for_tests();
        let made = known(
            "10.0.1.13[tcp/27017]=10.0.1.241[tcp]",
            (None, Some(3)),
            Some("unique"),
        );
        assert_eq!(
            list(&Store::default(), &[made], 1234, &clock),
            concat!(
                "10.0.1.13[27017] 10.0.1.241[any] tcp\n",
                "\tout prio def ipsec\n",
                "\tesp/transport//unique#1064960\n",
                "\tcreated: Mar  1 12:00:07 2026  lastused: Mar  1 12:00:14 2026\n",
                "\tlifetime: 43200(s) validtime: 0(s)\n",
                "\tspid=8388609 seq=2 pid=1234\n\trefcnt=1\n",
                "10.0.1.241[any] 10.0.1.13[27017] tcp\n",
                "\tin prio def ipsec\n",
                "\tesp/transport//unique#1064961\n",
                "\tcreated: Mar  1 12:00:07 2026  lastused:                     \n",
                "\tlifetime: 43200(s) validtime: 0(s)\n",
                "\tspid=8388616 seq=1 pid=1234\n\trefcnt=1\n",
                "10.0.1.241[any] 10.0.1.13[27017] tcp\n",
                "\tfwd prio def ipsec\n",
                "\tesp/transport//require\n",
                "\tcreated: Mar  1 12:00:07 2026  lastused:                     \n",
                "\tlifetime: 43200(s) validtime: 0(s)\n",
                "\tspid=8388618 seq=0 pid=1234\n\trefcnt=1\n",
            )
        );
        let tunnel = known("10.2.0.0/16=10.0.1.241", (None, None), Some("require"));
        let text = list(&Store::default(), &[tunnel], 1234, &clock);
        assert!(
            text.contains("out prio def ipsec\n\tesp/tunnel/10.0.1.13-10.0.1.241/require\n"),
            "{text}"
        );
        assert!(
            text.contains("in prio def ipsec\n\tesp/tunnel/10.0.1.241-10.0.1.13/require\n"),
            "{text}"
        );
    }

    #[test]
    fn r_a9_forms_of_policies() {
        for (line, shown) in [
            (
                "spdadd ::/0 ::/0 icmp6 135,0 -P out none;",
                "::/0 ::/0 icmp6 135,0\n\tout prio def none\n\tcreated",
            ),
            (
                "spdadd 10.0.1.13 10.0.1.241 any -P out prio high discard;",
                "10.0.1.13[any] 10.0.1.241[any] any\n\tout prio high discard\n\tcreated",
            ),
            (
                "spdadd 10.0.0.0/16[any] 10.0.0.0/16[27017] 6 -P out prio def + 10 ipsec esp/transport/;",
                "10.0.0.0/16[any] 10.0.0.0/16[27017] tcp\n\tout prio def + 10 ipsec\n\tesp/transport//require\n",
            ),
            (
                "spdadd 10.1.0.0/16 10.2.0.0/16 any -P in ipsec esp/tunnel/10.0.1.13-10.0.1.241/unique:7;",
                "10.1.0.0/16[any] 10.2.0.0/16[any] any\n\tin prio def ipsec\n\tesp/tunnel/10.0.1.13-10.0.1.241/unique:7\n",
            ),
            (
                "spdadd 10.0.1.13 10.0.1.241 tcp -P out prio low - 3 ipsec esp/transport//unique;",
                "10.0.1.13[any] 10.0.1.241[any] tcp\n\tout prio low - 3 ipsec\n\tesp/transport//unique#16385\n",
            ),
        ] {
            let text = listed(line);
            assert!(text.starts_with(shown), "{line}: {text}");
        }
    }
}
