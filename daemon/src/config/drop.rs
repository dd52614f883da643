//! The tables `[drop.NAME]`: packets that never pass, in either direction.

use obol_ike::config::Mode;

use super::child;
use super::connection::ReadConnection;
use super::finding::{Located, Place, Report};
use super::reader::Section;
use crate::dataplane::{KernelOptions, Policy};
use obol_ike::ts::TrafficSelector;

/// What stands where a connection has its name: none of obol's names has brackets.
const CONNECTION: &str = "[drop]";

/// A table, and where its parts were written.
pub(crate) struct ReadDrop {
    name: String,
    place: Place,
    local_ts: Vec<Located<TrafficSelector>>,
    remote_ts: Vec<Located<TrafficSelector>>,
}

/// Reads all tables that make sense; what does not is reported.
pub(crate) fn read_all(report: &Report<'_>, roots: &[Section<'_>]) -> Vec<ReadDrop> {
    let mut drops: Vec<ReadDrop> = Vec::new();
    for root in roots {
        for (name, section) in root.named("drop") {
            if let Some(first) = drops.iter().find(|other| other.name == name.value) {
                let message = format!("two tables are called drop.{}", name.value);
                report.clash(&name.place, &first.place, message, "rename one of them");
            }
            let local_ts = child::read_selectors(report, &name, &section, "local", &[]);
            let remote_ts = child::read_selectors(report, &name, &section, "remote", &[]);
            section.finish();
            let (Some(local_ts), Some(remote_ts)) = (local_ts, remote_ts) else {
                continue;
            };
            child::check_families(report, &local_ts, &remote_ts);
            drops.push(ReadDrop {
                name: name.value.to_owned(),
                place: name.place.clone(),
                local_ts,
                remote_ts,
            });
        }
    }
    drops
}

/// What is dropped must not be protected: which of the two would hold?
pub(crate) fn check(report: &Report<'_>, drops: &[ReadDrop], connections: &[ReadConnection]) {
    let children = || {
        connections
            .iter()
            .flat_map(|connection| &connection.children)
    };
    for drop in drops {
        for child in children() {
            let local = meets(&drop.local_ts, &child.local_ts);
            let remote = meets(&drop.remote_ts, &child.remote_ts);
            if let (Some(_), Some((ts, other))) = (local, remote) {
                let message = format!(
                    "drop.{} and child {} are about the same packets: {} meets {}",
                    drop.name, child.config.name, ts.value, other.value
                );
                let fix = "change the selectors so that each packet is in one of them";
                report.clash(&ts.place, &other.place, message, fix);
            }
        }
    }
}

type Met<'t> = (&'t Located<TrafficSelector>, &'t Located<TrafficSelector>);

fn meets<'t>(
    all: &'t [Located<TrafficSelector>],
    others: &'t [Located<TrafficSelector>],
) -> Option<Met<'t>> {
    all.iter().find_map(|ts| {
        let other = others
            .iter()
            .find(|other| ts.value.intersect(&other.value).is_some())?;
        Some((ts, other))
    })
}

/// Policies that nothing negotiates for, so that what matches them is dropped.
pub(crate) fn policies(drops: Vec<ReadDrop>) -> impl Iterator<Item = Policy> {
    let values = |all: Vec<Located<TrafficSelector>>| all.into_iter().map(|ts| ts.value).collect();
    drops.into_iter().map(move |drop| Policy {
        connection: CONNECTION.to_owned(),
        child: drop.name,
        mode: Mode::Tunnel,
        local_ts: values(drop.local_ts),
        remote_ts: values(drop.remote_ts),
        trap: false,
        kernel: KernelOptions::default(),
    })
}
