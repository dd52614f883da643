//! The daemon's state in pluto's lines, those of 5.2 or of 4.x.

mod connections;
mod states;
mod whole;
mod words;

use std::collections::HashMap;

use super::{Ended, code};
use crate::config::shunt::{DROP, PASS};
use crate::control::protocol::{
    Absence, ChildReport, ChildSaReport, ConnectionReport, IkeSaReport, ListReport, NotLoaded,
    StatusReport,
};
pub(super) use states::child_words;
pub(super) use words::{
    child_number, client, id_type, ike_number, key_exchange, local_id, numbered, remote_id, written,
};

/// What the daemon says of itself.
pub(super) struct View {
    pub(super) status: StatusReport,
    pub(super) list: ListReport,
    /// Where in the list a connection is.
    places: HashMap<String, usize>,
    /// Which IKE SAs a connection has.
    sas: HashMap<String, Vec<usize>>,
}

impl View {
    /// Of what the daemon has said.
    pub(super) fn new(status: StatusReport, list: ListReport) -> Self {
        let names = list.connections.iter().map(|connection| &connection.name);
        let places = names.cloned().zip(0..).collect();
        let mut sas: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, sa) in status.ike_sas.iter().enumerate() {
            sas.entry(sa.name.clone()).or_default().push(place);
        }
        Self {
            status,
            list,
            places,
            sas,
        }
    }

    /// A connection by its name.
    pub(super) fn connection(&self, name: &str) -> Option<&ConnectionReport> {
        self.list.connections.get(*self.places.get(name)?)
    }

    /// The IKE SAs of a connection.
    pub(super) fn sas_of(&self, connection: &str) -> impl Iterator<Item = &IkeSaReport> {
        let places = self.sas.get(connection).into_iter().flatten();
        places.map(|place| &self.status.ike_sas[*place])
    }

    /// All children that are configured, with their connections.
    pub(super) fn children(&self) -> impl Iterator<Item = (&ConnectionReport, &ChildReport)> {
        let connections = self.list.connections.iter();
        connections.flat_map(|connection| connection.children.iter().map(move |c| (connection, c)))
    }

    /// Those that a name means.
    pub(super) fn find<'a>(
        &'a self,
        name: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a ConnectionReport, &'a ChildReport)> {
        let children = self.children();
        children.filter(move |(connection, child)| self.means(name, &connection.name, &child.name))
    }

    /// What a name means: connections and children, by their names.
    pub(super) fn meant<'a>(&'a self, name: &'a str) -> Result<Vec<(&'a str, &'a str)>, Ended> {
        let found = self.find(Some(name));
        let found = found.map(|(connection, child)| (&*connection.name, &*child.name));
        let meant: Vec<_> = found.collect();
        match meant.is_empty() {
            true => Err(self.unknown(name)),
            false => Ok(meant),
        }
    }

    /// Why there is nothing of this name.
    pub(super) fn unknown(&self, name: &str) -> Ended {
        let Some(not) = self.status.not_loaded.get(name) else {
            return Ended::unknown(name);
        };
        match (not.kind, not.ends.as_slice()) {
            (Absence::Unoriented, [left, right]) => Ended::new(
                code::NOT_ORIENTED,
                format!(
                    "\"{name}\": we cannot identify ourselves with either end of this connection.  {} or {} are not usable",
                    left.host, right.host
                ),
            ),
            (Absence::Unrouted, _) => Ended::new(
                code::NEVER,
                format!(
                    "\"{name}\": cannot initiate connection: authby=never, and {}",
                    not.why
                ),
            ),
            (Absence::Unresolved, _) => Ended::new(
                code::NO_PEER,
                format!(
                    "\"{name}\": cannot initiate connection without knowing peer IP address ({})",
                    not.why
                ),
            ),
            _ => Ended::unknown(name),
        }
    }

    /// Connections that pluto would have, and that are not in force here.
    pub(super) fn absent(&self) -> impl Iterator<Item = (&str, &NotLoaded)> {
        let all = self.status.not_loaded.iter();
        all.filter(|(_, not)| not.kind != Absence::Ignored)
            .map(|(name, not)| (name.as_str(), not))
    }

    /// Whether there is one of this name.
    pub(super) fn has_absent(&self, name: &str) -> bool {
        let not = self.status.not_loaded.get(name);
        not.is_some_and(|not| not.kind != Absence::Ignored)
    }

    /// Whether a name means packets that pass or are dropped without IKE.
    pub(super) fn is_shunt(&self, name: &str) -> bool {
        let places = self.status.names.get(name);
        let mut places = places.into_iter().flatten();
        places.any(|(connection, _)| [PASS, DROP].contains(&connection.as_str()))
    }

    /// Whether a name, if there is one, means this child.
    fn means(&self, name: Option<&str>, connection: &str, child: &str) -> bool {
        let Some(name) = name else {
            return true;
        };
        match self.status.names.get(name) {
            Some(places) => places
                .iter()
                .any(|(of, own)| (of.as_str(), own.as_str()) == (connection, child)),
            None => super::is_meant(name, child),
        }
    }

    /// The SAs of a child that are up, the newest first.
    pub(super) fn up<'a>(
        &'a self,
        connection: &'a str,
        child: &'a str,
    ) -> Vec<(&'a IkeSaReport, &'a ChildSaReport)> {
        let sas = self.sas_of(connection);
        let children = sas.flat_map(|sa| sa.children.iter().map(move |child| (sa, child)));
        let mut up: Vec<_> = children
            .filter(|(_, sa)| sa.name == child && sa.state == "installed")
            .collect();
        up.sort_by_key(|(_, child)| std::cmp::Reverse(child.id));
        up
    }

    /// `"NAME"`, with number and address of the peer where the connection is one for many.
    pub(super) fn instance(&self, sa: &IkeSaReport, child: &str) -> String {
        let connection = self.connection(&sa.name);
        if connection.is_none_or(|connection| !connection.remote_addrs.is_empty()) {
            return format!("\"{child}\"");
        }
        let before = self.sas_of(&sa.name).filter(|other| other.id < sa.id);
        format!("\"{child}\"[{}] {}", before.count() + 1, sa.remote.addr)
    }
}
