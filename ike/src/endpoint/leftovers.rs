//! What an endpoint has in hand, for tests that insist on order.

use super::Endpoint;
use crate::sa::{IkeSa, Phase};

impl Endpoint {
    /// What is under way or left behind, in words; nothing at rest.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found: Vec<String> = self.sas.iter().flat_map(of_sa).collect();
        let mut count = |what: &str, number: usize| {
            if number > 0 {
                found.push(format!("{number} {what}"));
            }
        };
        count("half-open IKE SAs", self.half_open.len());
        count("questions without answer", self.cx.open_asks());
        count("signals", self.cx.signals.len());
        count("outputs", self.cx.out.len());
        found
    }
}

fn of_sa(sa: &IkeSa) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |wrong: bool, what: &str| {
        if wrong {
            found.push(format!("{:?}: {what}", sa.id));
        }
    };
    let established = sa.established();
    check(
        matches!(sa.phase, Phase::Lingering { .. }),
        "lingers after its end",
    );
    check(
        established.is_none() && !matches!(sa.phase, Phase::Lingering { .. }),
        "is not established",
    );
    check(
        established.is_some_and(|e| !e.is_current()),
        "is being replaced or closed",
    );
    check(sa.requests.open().is_some(), "has an open request");
    check(sa.claims.is_some(), "has claims on it");
    check(!sa.tasks.is_empty(), "has tasks");
    check(sa.in_work.is_some(), "has a reply in work");
    for child in &sa.children {
        check(!child.is_current(), "has a child that is to go");
        check(!child.up, "has a child that is not up");
        check(child.outbound.is_some(), "has a child that does not send");
        check(child.switch_at.is_some(), "has a child that is to send yet");
        check(
            child.rekeyed_by_peer.is_some(),
            "has a child that is being rekeyed",
        );
    }
    found
}
