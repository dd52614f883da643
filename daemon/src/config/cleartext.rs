//! The key `cleartext` of a child: when its packets pass in clear.

use super::child::ReadChild;
use super::connection::ReadConnection;
use super::finding::{Place, Report};
use super::overlap::{Relation, relation};
use super::reader::{Section, shorten};
use crate::dataplane::Cleartext;

/// What was written, and where.
#[derive(Default)]
pub(super) struct ReadCleartext {
    pub(super) when: Cleartext,
    place: Option<Place>,
}

/// Reads it. `None`: it is wrong.
pub(super) fn read(report: &Report<'_>, section: &Section<'_>) -> Option<ReadCleartext> {
    let Some(text) = section.string("cleartext") else {
        return (!section.has("cleartext")).then(ReadCleartext::default);
    };
    let mut all = Cleartext::ALL.into_iter();
    let Some(when) = all.find(|when| when.word() == text.value) else {
        report.error(
            &text.place,
            format!("cleartext = \"{}\" is none that obol knows", shorten(text.value)),
            "write \"never\", \"while-negotiating\", \"after-failure\", \"without-sa\" or \"opportunistic\"",
        );
        return None;
    };
    Some(ReadCleartext {
        when,
        place: Some(text.place),
    })
}

/// Says which children let packets pass in clear, but for those from the source `foreign`, of which
/// that was said where they were written; and sees to it that each packet is either of them or not.
pub(super) fn check(report: &Report<'_>, connections: &[ReadConnection], foreign: Option<usize>) {
    let children = || connections.iter().flat_map(of);
    if children().all(|(_, child)| child.cleartext.when == Cleartext::Never) {
        return;
    }
    let all: Vec<_> = children().collect();
    for (at, (connection, child)) in all.iter().enumerate() {
        let Some(said) = child.cleartext.when.said() else {
            continue;
        };
        let place = child.cleartext.place.as_ref().unwrap_or(&child.place);
        if child.kernel.options.if_id != 0 {
            report.error(
                place,
                "cleartext with if_id: the xfrm interface lets nothing pass in clear",
                "remove one of them",
            );
        }
        if foreign != Some(place.source) {
            let name = &child.config.name;
            report.warn(
                place,
                format!("{connection}/{name}: {said}. Whoever keeps the hosts from negotiating can read and forge these packets"),
                "remove the line, and what is not protected is dropped",
            );
        }
        for (other_at, (of, other)) in all.iter().enumerate() {
            let same = child.cleartext.when == other.cleartext.when;
            // Of two that have it, once.
            let later = other_at < at && other.cleartext.when != Cleartext::Never;
            if !same && !later {
                tell_apart(report, (connection, child), (of, other));
            }
        }
    }
}

fn of(connection: &ReadConnection) -> impl Iterator<Item = (&str, &ReadChild)> {
    let name = connection.config.name.as_str();
    connection.children.iter().map(move |child| (name, child))
}

/// Of two that treat packets without SA differently, one must be the narrower one.
fn tell_apart(report: &Report<'_>, one: (&str, &ReadChild), other: (&str, &ReadChild)) {
    let sides = [one.1, other.1].map(|c| (c.local_ts.as_slice(), c.remote_ts.as_slice()));
    let Relation::Unclear(ts, other_ts) = relation(sides[0], sides[1]) else {
        return;
    };
    let called =
        |(connection, child): (&str, &ReadChild)| format!("{connection}/{}", child.config.name);
    report.clash(
        &ts.place,
        &other_ts.place,
        format!(
            "{} and {} are about the same packets, neither is the narrower one, and cleartext says different things of them: {} meets {}",
            called(one),
            called(other),
            ts.value,
            other_ts.value
        ),
        "give both the same cleartext, or change the selectors so that one lies within the other",
    );
}
