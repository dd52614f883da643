//! The tables `[drop.NAME]` and `[pass.NAME]`: packets that never pass, and packets that pass in
//! clear, in either direction. What is narrower goes first, of these and of children.

use std::collections::BTreeSet;

use obol_ike::config::Mode;
use obol_ike::ts::TrafficSelector;

use super::child::{self, ReadChild};
use super::connection::ReadConnection;
use super::finding::{Located, Place, Report};
use super::meeting::Areas;
use super::overlap::{Relation, relation, values};
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
    let children: Vec<(&ReadConnection, &ReadChild)> = connections
        .iter()
        .flat_map(|connection| connection.children.iter().map(move |c| (connection, c)))
        .collect();
    for (number, other) in meeting(shunts, &children) {
        let shunt = &shunts[number];
        let own = (shunt.local_ts.as_slice(), shunt.remote_ts.as_slice());
        let Some(child) = other.checked_sub(shunts.len()) else {
            let other = &shunts[other];
            let others = (other.local_ts.as_slice(), other.remote_ts.as_slice());
            if let Relation::Unclear(ts, other_ts) = relation(own, others)
                && shunt.pass != other.pass
            {
                clash(report, shunt, &other.called(), ts, other_ts);
            }
            continue;
        };
        let (connection, child) = children[child];
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

/// The shunts, each with those before it and the children that have packets in common with it: those
/// are counted behind the shunts.
fn meeting(
    shunts: &[ReadShunt],
    children: &[(&ReadConnection, &ReadChild)],
) -> BTreeSet<(usize, usize)> {
    if shunts.is_empty() {
        return BTreeSet::new();
    }
    let of_shunts = shunts.iter().map(|one| (&one.local_ts, &one.remote_ts));
    let of_children = children
        .iter()
        .map(|(_, one)| (&one.local_ts, &one.remote_ts));
    let mut areas = Areas::default();
    for (number, (local, remote)) in of_shunts.chain(of_children).enumerate() {
        areas.add(number, values(local), values(remote));
    }
    let pairs = areas.meeting().into_iter();
    let pairs = pairs.filter(|(_, first)| *first < shunts.len());
    pairs
        .map(|(second, first)| match second < shunts.len() {
            true => (second, first),
            false => (first, second),
        })
        .collect()
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
