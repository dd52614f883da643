//! The tables `[drop.NAME]` and `[pass.NAME]`: packets that never pass, and packets that pass in
//! clear, in either direction. What is narrower goes first, of these and of children.

use std::collections::BTreeSet;

use obol_ike::config::Mode;
use obol_ike::ts::TrafficSelector;

use super::child;
use super::connection::ReadConnection;
use super::finding::{Located, Place, Report};
use super::overlap::{Relation, relation};
use super::reader::Section;
use crate::dataplane::{KernelOptions, Policy};

/// What stands where a connection has its name: none of obol's names has brackets.
pub(crate) const DROP: &str = "[drop]";
/// The same for what passes.
pub(crate) const PASS: &str = "[pass]";

/// A table, and where its parts were written.
pub(crate) struct ReadShunt {
    pass: bool,
    name: String,
    place: Place,
    local_ts: Vec<Located<TrafficSelector>>,
    remote_ts: Vec<Located<TrafficSelector>>,
}

impl ReadShunt {
    /// As it is called in what is said.
    fn called(&self) -> String {
        format!("{}.{}", if self.pass { "pass" } else { "drop" }, self.name)
    }
}

/// Reads all tables that make sense; what does not is reported.
pub(crate) fn read_all(report: &Report<'_>, roots: &[Section<'_>], shunts: &mut Vec<ReadShunt>) {
    for (root, (table, pass)) in roots
        .iter()
        .flat_map(|root| [("drop", false), ("pass", true)].map(|kind| (root, kind)))
    {
        for (name, section) in root.named(table) {
            let same = |other: &&ReadShunt| other.pass == pass && other.name == name.value;
            if let Some(first) = shunts.iter().find(same) {
                let message = format!("two tables are called {table}.{}", name.value);
                report.clash(&name.place, &first.place, message, "rename one of them");
            }
            let local_ts = child::read_selectors(report, &name, &section, "local", &[]);
            let remote_ts = child::read_selectors(report, &name, &section, "remote", &[]);
            section.finish();
            let (Some(local_ts), Some(remote_ts)) = (local_ts, remote_ts) else {
                continue;
            };
            child::check_families(report, &local_ts, &remote_ts);
            shunts.push(ReadShunt {
                pass,
                name: name.value.to_owned(),
                place: name.place.clone(),
                local_ts,
                remote_ts,
            });
        }
    }
}

/// Of two that are about the same packets, one must be the narrower one: which of them would hold?
/// Adds those children that are narrower than one of these to `narrower`.
pub(crate) fn check(
    report: &Report<'_>,
    shunts: &[ReadShunt],
    connections: &[ReadConnection],
    narrower: &mut BTreeSet<(String, String)>,
) {
    for (i, shunt) in shunts.iter().enumerate() {
        let own = (shunt.local_ts.as_slice(), shunt.remote_ts.as_slice());
        for other in &shunts[..i] {
            let others = (other.local_ts.as_slice(), other.remote_ts.as_slice());
            if let Relation::Unclear(ts, other_ts) = relation(own, others)
                && shunt.pass != other.pass
            {
                clash(report, shunt, &other.called(), ts, other_ts);
            }
        }
        for connection in connections {
            for child in &connection.children {
                let of_child = (child.local_ts.as_slice(), child.remote_ts.as_slice());
                match relation(own, of_child) {
                    Relation::Apart | Relation::Narrower => {}
                    Relation::Wider => {
                        let name = child.config.name.clone();
                        narrower.insert((connection.config.name.clone(), name));
                    }
                    Relation::Unclear(ts, other_ts) => {
                        let called = format!("child {}", child.config.name);
                        clash(report, shunt, &called, ts, other_ts);
                    }
                }
            }
        }
    }
}

fn clash(
    report: &Report<'_>,
    shunt: &ReadShunt,
    other: &str,
    ts: &Located<TrafficSelector>,
    other_ts: &Located<TrafficSelector>,
) {
    let message = format!(
        "{} and {other} are about the same packets, and neither is the narrower one: {} meets {}",
        shunt.called(),
        ts.value,
        other_ts.value
    );
    let fix = "change the selectors so that one lies within the other, or apart from it";
    report.clash(&ts.place, &other_ts.place, message, fix);
}

/// Policies that nothing negotiates for.
pub(crate) fn policies(shunts: Vec<ReadShunt>) -> impl Iterator<Item = Policy> {
    let values = |all: Vec<Located<TrafficSelector>>| all.into_iter().map(|ts| ts.value).collect();
    shunts.into_iter().map(move |shunt| Policy {
        connection: if shunt.pass { PASS } else { DROP }.to_owned(),
        child: shunt.name,
        mode: Mode::Tunnel,
        local_ts: values(shunt.local_ts),
        remote_ts: values(shunt.remote_ts),
        trap: false,
        pass: shunt.pass,
        narrower: true,
        clear: Default::default(),
        kernel: KernelOptions::default(),
    })
}
