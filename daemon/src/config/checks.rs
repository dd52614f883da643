//! What only shows when everything is read: missing secrets, ambiguous connections and
//! selectors.

use std::collections::{BTreeSet, HashMap};

use obol_ike::config::{LocalAuthMethod, RemoteAuthMethod};
use obol_ike::identity::Identity;

use super::child::ReadChild;
use super::connection::ReadConnection;
use super::finding::Report;
use super::meeting::Areas;
use super::overlap::{Relation, relation, values};
use super::planes::ConnectionChoice;
use super::secrets::Secrets;
use crate::host::xfrm::Direction;

/// All checks across connections and secrets. The children that are narrower than those of other
/// connections, by the names of their connections and their own.
pub(crate) fn check(
    report: &Report<'_>,
    connections: &[ReadConnection],
    data_planes: &[ConnectionChoice],
    secrets: &Secrets,
) -> BTreeSet<(String, String)> {
    let mut narrower = BTreeSet::new();
    for connection in connections {
        check_secret(report, connection, secrets);
        check_children(report, connection);
    }
    for (second, first) in neighbours(connections) {
        let (earlier, connection) = (&connections[first], &connections[second]);
        if check_twins(report, earlier, connection) {
            let by_kernel = data_planes[first].is_kernel() && data_planes[second].is_kernel();
            check_overlap(report, earlier, connection, by_kernel, &mut narrower);
        }
    }
    narrower
}

/// The pairs of connections that may be in each other's way, the later one first: those between the
/// same ends, and those with packets in common. Of thousands, most are of neither kind with any other,
/// so nobody compares all with all.
fn neighbours(connections: &[ReadConnection]) -> BTreeSet<(usize, usize)> {
    let mut areas = Areas::default();
    let mut between: HashMap<_, Vec<usize>> = HashMap::new();
    for (second, connection) in connections.iter().enumerate() {
        let config = &connection.config;
        let addresses = (&config.local_addrs, &config.remote_addrs);
        let ids = (&config.local.id, &config.remote.id);
        between.entry((addresses, ids)).or_default().push(second);
        for child in &connection.children {
            areas.add(second, values(&child.local_ts), values(&child.remote_ts));
        }
    }
    let mut pairs = areas.meeting();
    for same in between.into_values() {
        for (at, second) in same.iter().enumerate() {
            pairs.extend(same[..at].iter().map(|first| (*second, *first)));
        }
    }
    pairs
}

/// A connection with PSK needs one.
fn check_secret(report: &Report<'_>, connection: &ReadConnection, secrets: &Secrets) {
    let config = &connection.config;
    let uses_psk = config.local.method == LocalAuthMethod::Psk
        || config.remote.method == RemoteAuthMethod::Psk;
    if !uses_psk || secrets.incomplete {
        return;
    }
    let own_address = || match config.local_addrs.as_slice() {
        [addr] => Some(Identity::from(*addr)),
        _ => None,
    };
    let local = config.local.id.clone().or_else(own_address);
    if secrets
        .credentials
        .may_have_psk(local.as_ref(), config.remote.id.as_ref())
    {
        return;
    }
    let or_any = |id: Option<&Identity>, any: &str| {
        id.map_or_else(|| any.to_owned(), |id| format!("\"{id}\""))
    };
    let local = or_any(local.as_ref(), "this host's address");
    let remote = or_any(config.remote.id.as_ref(), "any peer");
    report.error(
        &connection.local_place,
        format!(
            "no secret for connection {} between {local} and {remote}",
            config.name
        ),
        format!(
            "add a [secrets.NAME] with type = \"psk\", ids = [{local}, {remote}] and secret or file"
        ),
    );
}

/// Within a connection, no two children may be the same.
fn check_children(report: &Report<'_>, connection: &ReadConnection) {
    for (i, child) in connection.children.iter().enumerate() {
        let same = |other: &&ReadChild| {
            other.config.local_ts == child.config.local_ts
                && other.config.remote_ts == child.config.remote_ts
        };
        if let Some(first) = connection.children[..i].iter().find(same) {
            report.clash(
                &child.place,
                &first.place,
                format!(
                    "children {} and {} protect the same packets",
                    first.config.name, child.config.name
                ),
                "remove one of them, or change its selectors",
            );
        }
    }
}

/// Two connections that a peer's request cannot tell apart; `false` if they are such.
fn check_twins(report: &Report<'_>, first: &ReadConnection, second: &ReadConnection) -> bool {
    let (a, b) = (&first.config, &second.config);
    let twins = a.local_addrs == b.local_addrs
        && a.remote_addrs == b.remote_addrs
        && a.local == b.local
        && a.remote == b.remote;
    if twins {
        report.clash(
            &second.place,
            &first.place,
            format!(
                "connections {} and {} have the same addresses and identities",
                a.name, b.name
            ),
            "put the children of both into one connection",
        );
    }
    !twins
}

/// Where children of two connections claim the same packets, these are those of the narrower one.
/// There must be such: to which peer would they go else? `by_kernel`: it carries both for sure.
fn check_overlap(
    report: &Report<'_>,
    first: &ReadConnection,
    second: &ReadConnection,
    by_kernel: bool,
    narrower: &mut BTreeSet<(String, String)>,
) {
    for child in &second.children {
        for other in &first.children {
            // Marks and interfaces tell packets apart, for the kernel.
            let options = [child, other].map(|child| &child.kernel.options);
            let [scope, others] = options.map(|options| options.scope(Direction::Out));
            let apart = scope.if_id != others.if_id || !scope.mark.meets(others.mark);
            if by_kernel && apart {
                continue;
            }
            let sides = [child, other].map(|c| (c.local_ts.as_slice(), c.remote_ts.as_slice()));
            let (ts, other_ts) = match relation(sides[0], sides[1]) {
                Relation::Apart => continue,
                Relation::Narrower => {
                    narrower.insert((second.config.name.clone(), child.config.name.clone()));
                    continue;
                }
                Relation::Wider => {
                    narrower.insert((first.config.name.clone(), other.config.name.clone()));
                    continue;
                }
                Relation::Unclear(ts, other_ts) => (ts, other_ts),
            };
            report.clash(
                &ts.place,
                &other_ts.place,
                format!(
                    "{}/{} and {}/{} claim the same packets, and neither is the narrower one: {} meets {}",
                    first.config.name,
                    other.config.name,
                    second.config.name,
                    child.config.name,
                    other_ts.value,
                    ts.value
                ),
                "change the selectors so that each packet has one peer, or one child lies within the other",
            );
        }
    }
}
