//! Names in pluto's files, of ends and of identities, and what they stand for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use obol_ike::identity::Identity;
use tokio::time::timeout;

use super::Files;
use crate::config::Report;
use crate::pluto::Understood;
use crate::pluto::conn::Conn;
use crate::pluto::files::{self, Entry, read_one};
use crate::pluto::keyword::Side;
use crate::pluto::values::{self, Host, Id};

/// How long names may take to be looked up, all at once.
const PATIENCE: Duration = Duration::from_secs(3);

/// What names stand for.
pub(crate) type NamesFound = Vec<(String, Vec<IpAddr>)>;

/// The names that a look at the files needs to know, at all of them or at one connection: those of ends and of
/// identities. None where the files are wrong, which that look says.
pub(crate) fn names_asked(from: &Files, only: Option<&str>) -> BTreeSet<String> {
    let one = only.and_then(|name| read_one(&from.conf, name));
    let texts = one.unwrap_or_else(|| files::read(&from.conf));
    let sections = texts.sections(&Report::new(&texts.sources));
    let sections = sections.unwrap_or_default();
    let entries = sections.iter().flat_map(|section| &section.entries);
    let name = |entry: &Entry| match entry.key.keyword.word {
        "" => match values::host(&entry.value.value) {
            Ok(Host::Name(name)) => Some(name),
            _ => None,
        },
        "id" => match values::id(&entry.value.value) {
            Ok(Id::Resolve(name)) => Some(name),
            _ => None,
        },
        _ => None,
    };
    let sided = entries.filter(|entry| entry.key.side.is_some());
    sided.filter_map(name).collect()
}

/// Identities that are the addresses of names. One whose name says nothing is the address of its end, as with
/// pluto 4.
pub(crate) fn resolve_ids(understood: &mut Understood, names: &NamesFound) {
    let mut silent = Vec::new();
    for conn in &mut understood.conns {
        for (side, end) in Side::BOTH.iter().zip(&mut conn.ends) {
            let Id::Resolve(name) = &end.id else {
                continue;
            };
            let found = names.iter().find(|(known, _)| known == name);
            let found = found.map_or(&[][..], |(_, found)| found);
            let family = match end.host.value {
                Host::Addr(addr) => Some(addr.is_ipv4()),
                _ => None,
            };
            let fits = |addr: &&IpAddr| family.is_none_or(|v4| addr.is_ipv4() == v4);
            match found.iter().find(fits).or(found.first()) {
                Some(addr) => end.id = Id::Is(Identity::from(*addr)),
                None => silent.push((conn.name.clone(), *side, name.clone())),
            }
        }
    }
    for (conn, side, name) in silent {
        let message = format!(
            "{side}id={name} of {} has no address now, and is taken as the address of that end",
            conn.value
        );
        let fix = format!("write @{name} for the name itself, or the address");
        let finding = understood.finding(&conn, message, &fix);
        understood.notices.push(finding);
    }
}

/// The names that identities stand for.
pub(super) fn names_of_ids<'c>(conns: impl IntoIterator<Item = &'c Conn>) -> BTreeSet<&'c str> {
    let ends = conns.into_iter().flat_map(|conn| &conn.ends);
    ends.filter_map(|end| match &end.id {
        Id::Resolve(name) => Some(name.as_str()),
        _ => None,
    })
    .collect()
}

/// The names that stand for ends.
pub(super) fn names_of<'c>(conns: impl IntoIterator<Item = &'c Conn>) -> BTreeSet<&'c str> {
    let ends = conns.into_iter().flat_map(|conn| &conn.ends);
    ends.filter_map(|end| match &end.host.value {
        Host::Name(name) => Some(name.as_str()),
        _ => None,
    })
    .collect()
}

/// The addresses of all names. A name without is left out.
pub(crate) async fn look_up(names: impl IntoIterator<Item = &str>) -> NamesFound {
    let look_up = async |name: &str| {
        let found = timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await;
        let found: Vec<IpAddr> = found.ok()?.ok()?.map(|addr| addr.ip()).collect();
        (!found.is_empty()).then(|| (name.to_owned(), found))
    };
    let all = futures_util::future::join_all(names.into_iter().map(look_up)).await;
    all.into_iter().flatten().collect()
}
