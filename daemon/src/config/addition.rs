//! One connection more or less, beside all that is loaded: what a client of pluto's asks for with `ipsec add`
//! and `ipsec delete`. It must not cost what reading all of them does, nor have to do with what else the
//! files say by now.

use std::collections::HashSet;
use std::sync::Arc;

use super::Loaded;
use crate::dataplane::Policy;

impl Loaded {
    /// Of another configuration, what a name of pluto's means there, as something to be added to this
    /// one. `None`: it is not there, is here already, or has to do with what is here. Then only a look
    /// at all of it can tell what is right.
    pub(crate) fn addition(&self, mut other: Self, name: &str) -> Option<Self> {
        let places = other.pluto.names.get(name).cloned().unwrap_or_default();
        let is_meant = |connection: &str| places.iter().any(|(own, _)| own == connection);
        let same_daemon = other.daemon == self.daemon && other.ike.settings == self.ike.settings;
        if places.is_empty() || self.pluto.names.contains_key(name) || !same_daemon {
            return None;
        }
        let meant: Vec<bool> = other
            .ike
            .connections
            .iter()
            .map(|connection| is_meant(&connection.name))
            .collect();
        let mut keep = meant.iter();
        other.ike.connections.retain(|_| keep.next() == Some(&true));
        let mut keep = meant.iter();
        other.data_planes.retain(|_| keep.next() == Some(&true));
        other.policies.retain(|policy| is_meant(&policy.connection));
        other
            .updown
            .retain(|(connection, _), _| is_meant(connection));
        (!other.ike.connections.is_empty() && self.is_apart(&other)).then_some(other)
    }

    /// Whether nothing of it is in the way of what is here.
    fn is_apart(&self, addition: &Self) -> bool {
        let mut connections = self.ike.connections.iter();
        let beside = connections.all(|known| {
            addition.ike.connections.iter().all(|new| {
                // Those with the same ends and proofs share an IKE SA.
                let same = known.local_addrs == new.local_addrs
                    && known.remote_addrs == new.remote_addrs
                    && known.local == new.local
                    && known.remote == new.remote;
                known.name != new.name && !same
            })
        });
        let mut policies = self.policies.iter();
        beside
            && policies.all(|known| {
                let mut all = addition.policies.iter();
                all.all(|new| !new.narrower && !new.pass && !meet(known, new))
            })
    }

    /// Takes children out, by the names of their connections and their own, and connections that have no
    /// others.
    pub(crate) fn remove(&mut self, children: &[(String, String)]) {
        let gone: HashSet<(&str, &str)> = children.iter().map(|(c, n)| (&**c, &**n)).collect();
        let mut keep = Vec::new();
        for connection in &mut self.ike.connections {
            let name = connection.name.clone();
            let is_gone = |child: &str| gone.contains(&(name.as_str(), child));
            let had = connection.children.len();
            if connection.children.iter().any(|own| is_gone(&own.name)) {
                let changed = Arc::make_mut(connection);
                changed.children.retain(|own| !is_gone(&own.name));
            }
            keep.push(had == 0 || !connection.children.is_empty());
        }
        let mut kept = keep.iter();
        self.ike.connections.retain(|_| kept.next() == Some(&true));
        let mut kept = keep.iter();
        self.data_planes.retain(|_| kept.next() == Some(&true));
        let is_gone = |connection: &str, child: &str| gone.contains(&(connection, child));
        self.policies
            .retain(|policy| !is_gone(&policy.connection, &policy.child));
        self.updown
            .retain(|(connection, child), _| !is_gone(connection, child));
        self.pluto
            .remove(|connection, child| is_gone(connection, child));
    }

    /// Takes in what was found to be an addition.
    pub(crate) fn add(&mut self, addition: Self) {
        self.ike.connections.extend(addition.ike.connections);
        self.data_planes.extend(addition.data_planes);
        self.policies.extend(addition.policies);
        self.updown.extend(addition.updown);
        self.warnings.extend(addition.warnings);
        self.credentials.add(addition.credentials);
        self.pluto.add(addition.pluto);
    }
}

/// Whether there are packets of both, as far as the addresses of each side tell.
fn meet(one: &Policy, other: &Policy) -> bool {
    let sides = [
        (&one.local_ts, &other.local_ts),
        (&one.remote_ts, &other.remote_ts),
    ];
    sides.iter().all(|(ours, theirs)| {
        let mut ours = ours.iter();
        ours.any(|a| theirs.iter().any(|b| a.intersect(b).is_some()))
    })
}
