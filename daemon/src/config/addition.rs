//! One connection more or less, beside all that is loaded: what a client of pluto's asks for with `ipsec add`
//! and `ipsec delete`. It must not cost what reading all of them does, nor have to do with what else the
//! files say by now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use obol_ike::config::{Child, Connection};

use super::Loaded;
use crate::dataplane::Policy;

/// Children that go, by their connections.
struct Gone<'a> {
    of: HashMap<&'a str, HashSet<&'a str>>,
}

impl<'a> Gone<'a> {
    fn of(children: &'a [(String, String)]) -> Self {
        let mut of: HashMap<&str, HashSet<&str>> = HashMap::new();
        for (connection, child) in children {
            of.entry(connection).or_default().insert(child);
        }
        Self { of }
    }

    fn has(&self, connection: &str, child: &str) -> bool {
        self.of
            .get(connection)
            .is_some_and(|children| children.contains(child))
    }
}

impl Loaded {
    /// Of another configuration, leaves what a name of pluto's means there, as something to be put beside
    /// what is here; `false`: there is nothing of it, or what else it says is not as here. Then only a look
    /// at all of it can tell what is right.
    pub(crate) fn single_out(&self, other: &mut Self, name: &str) -> bool {
        let places = other.pluto.names.get(name).cloned().unwrap_or_default();
        let is_meant = |connection: &str| places.iter().any(|(own, _)| own == connection);
        let same_daemon = other.daemon == self.daemon && other.ike.settings == self.ike.settings;
        // What peers may ask for depends on all policies.
        let apart = same_daemon && self.generated.is_empty();
        if places.is_empty() || !apart {
            return false;
        }
        other.retain_connections(|connection| is_meant(&connection.name));
        other.policies.retain(|policy| is_meant(&policy.connection));
        other
            .updown
            .retain(|(connection, _), _| is_meant(connection));
        !other.ike.connections.is_empty()
    }

    /// Whether nothing of this name is here, and nothing of what was [singled out](Self::single_out) has to
    /// do with what is here: it can be added as it is.
    pub(crate) fn has_nothing_of(&self, addition: &Self, name: &str) -> bool {
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
        !self.pluto.names.contains_key(name) && beside && self.meets_no_policy(addition)
    }

    /// Whether none of its packets are those of any policy here.
    pub(super) fn meets_no_policy(&self, addition: &Self) -> bool {
        let mut policies = self.policies.iter();
        policies.all(|known| {
            let mut all = addition.policies.iter();
            all.all(|new| !new.narrower && !new.pass && !meet(known, new))
        })
    }

    /// The policies of all children but these, by the names of their connections and their own.
    pub(crate) fn policies_but(&self, children: &[(String, String)]) -> Vec<Policy> {
        let gone = Gone::of(children);
        let left = self.policies.iter();
        left.filter(|policy| !gone.has(&policy.connection, &policy.child))
            .cloned()
            .collect()
    }

    /// Takes children out, by the names of their connections and their own, and connections that have no
    /// others.
    pub(crate) fn remove(&mut self, children: &[(String, String)]) {
        let gone = Gone::of(children);
        for connection in &mut self.ike.connections {
            let is_gone = |child: &Arc<Child>| gone.has(&connection.name, &child.name);
            let left = connection.children.iter().filter(|child| !is_gone(child));
            let left: Vec<Arc<Child>> = left.cloned().collect();
            if left.len() < connection.children.len() {
                Arc::make_mut(connection).children = left;
            }
        }
        self.retain_connections(|connection| {
            !connection.children.is_empty() || !gone.of.contains_key(connection.name.as_str())
        });
        self.policies
            .retain(|policy| !gone.has(&policy.connection, &policy.child));
        self.updown
            .retain(|(connection, child), _| !gone.has(connection, child));
        self.pluto
            .remove(|connection, child| gone.has(connection, child));
    }

    /// Keeps the connections of which this is true, with what is to carry them, which is said by their
    /// places.
    pub(super) fn retain_connections(&mut self, stays: impl Fn(&Connection) -> bool) {
        let keep: Vec<bool> = self.ike.connections.iter().map(|c| stays(c)).collect();
        let mut kept = keep.iter();
        self.ike.connections.retain(|_| kept.next() == Some(&true));
        let mut kept = keep.iter();
        self.data_planes.retain(|_| kept.next() == Some(&true));
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
pub(super) fn meet(one: &Policy, other: &Policy) -> bool {
    let sides = [
        (&one.local_ts, &other.local_ts),
        (&one.remote_ts, &other.remote_ts),
    ];
    sides.iter().all(|(ours, theirs)| {
        let mut ours = ours.iter();
        ours.any(|a| theirs.iter().any(|b| a.intersect(b).is_some()))
    })
}
