//! Policies as `setkey -DP` lists them.

use std::fmt::Write as _;

use super::when::Clock;
use crate::racoon::write;
use crate::racoon::{Action, Direction, Level, Store, Stored};

/// As setkey's own numbers for `unique` without one.
const AUTOMATIC: u32 = 16384;

/// All policies; those for packets to this host are there once more for packets through it.
pub(super) fn list(store: &Store, pid: u32, clock: &Clock) -> String {
    let forwarded = store
        .policies
        .iter()
        .filter_map(|policy| copy(store, policy));
    let all: Vec<Stored> = store.policies.iter().cloned().chain(forwarded).collect();
    if all.is_empty() {
        return "No SPD entries.\n".to_owned();
    }
    let count = all.len();
    let entries = all.iter().enumerate();
    entries
        .map(|(at, policy)| entry(policy, count - 1 - at, pid, clock))
        .collect()
}

/// The copy for packets through this host, unless a line of its own says what becomes of them.
fn copy(store: &Store, policy: &Stored) -> Option<Stored> {
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
    Some(copy)
}

/// The number of a policy that is to be unique and names none.
pub(super) fn automatic(policy: &Stored) -> u32 {
    AUTOMATIC + (policy.spid >> 3)
}

fn entry(policy: &Stored, seq: usize, pid: u32, clock: &Clock) -> String {
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
    // When a policy was used last, nobody knows: the line is empty there, as for one never used.
    let _ = writeln!(
        text,
        "\tcreated: {}  lastused: {}\n\tlifetime: 0(s) validtime: 0(s)\n\tspid={} seq={seq} pid={pid}\n\trefcnt=1",
        clock.long(Some(policy.created)),
        clock.long(None),
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
        list(&outcome.store, 1234, &clock)
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
