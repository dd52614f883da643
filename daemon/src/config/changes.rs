//! What operators say about single children while the daemon runs. It counts until the daemon ends
//! or they say otherwise, whatever is read again meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use obol_ike::config::{Config, StartAction};
use serde::{Deserialize, Serialize};

use super::{Loaded, shunt};
use crate::dataplane::Policy;
use crate::pluto;

/// What is done about a child from now on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChildChange {
    /// What the configuration says.
    Load,
    /// It is as if it were not configured: its packets pass in clear.
    Unload,
    /// Packets ask for it.
    Trap,
    /// It waits for the peer.
    Wait,
}

/// What was said, by child.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes(BTreeMap<(String, String), ChildChange>);

impl Changes {
    /// The children that a name means: one child of this name, or those that pluto makes of a
    /// connection with several subnets.
    pub(crate) fn find(loaded: &Loaded, name: &str) -> Vec<(String, String)> {
        if let Some(places) = loaded.pluto.names.get(name) {
            return places.clone();
        }
        let children = loaded.ike.connections.iter().flat_map(|connection| {
            let names = connection.children.iter().map(|child| child.name.clone());
            names.map(|child| (connection.name.clone(), child))
        });
        children
            .filter(|(_, child)| is_meant(name, child))
            .collect()
    }

    /// This is done about a child from now on.
    pub(crate) fn say(&mut self, child: (String, String), change: ChildChange) {
        match change {
            ChildChange::Load => self.0.remove(&child),
            other => self.0.insert(child, other),
        };
    }

    /// Changes a configuration that was read accordingly.
    pub(crate) fn apply(&self, loaded: &mut Loaded) {
        if self.0.is_empty() {
            return;
        }
        self.change(&mut loaded.ike);
        let unloaded = |name: &str| {
            let mut of_it = self.0.iter().filter(|((own, _), _)| own == name);
            of_it.any(|(_, change)| *change == ChildChange::Unload)
        };
        loaded.retain_connections(|connection| {
            !connection.children.is_empty() || !unloaded(&connection.name)
        });
        let said = |policy: &Policy| {
            let key = (policy.connection.clone(), policy.child.clone());
            self.0.get(&key).copied()
        };
        let policies = &mut loaded.policies;
        // Nobody waits where there is no peer.
        let gone = |policy: &Policy| match said(policy) {
            Some(ChildChange::Wait) => [shunt::DROP, shunt::PASS].contains(&&*policy.connection),
            said => said == Some(ChildChange::Unload),
        };
        policies.retain(|policy| !gone(policy));
        for policy in policies.iter_mut().filter(|policy| said(policy).is_some()) {
            let mut connections = loaded.ike.connections.iter();
            let connection = connections.find(|connection| connection.name == policy.connection);
            let mut children = connection
                .iter()
                .flat_map(|connection| &connection.children);
            policy.trap = children.any(|child| child.name == policy.child && child.may_trap());
        }
    }

    fn change(&self, config: &mut Config) {
        for connection in &mut config.connections {
            let said = |child: &str| {
                let key = (connection.name.clone(), child.to_owned());
                self.0.get(&key).copied()
            };
            let mut changed = (**connection).clone();
            changed
                .children
                .retain(|child| said(&child.name) != Some(ChildChange::Unload));
            for child in &mut changed.children {
                let action = match said(&child.name) {
                    Some(ChildChange::Trap) => StartAction::Trap,
                    Some(ChildChange::Wait) => StartAction::None,
                    _ => continue,
                };
                Arc::make_mut(child).start_action = action;
            }
            let emptied = changed.children.is_empty() && !connection.children.is_empty();
            if changed.children != connection.children || emptied {
                *connection = Arc::new(changed);
            }
        }
    }
}

/// Whether pluto's name of a connection means this child of ours.
pub(crate) fn is_meant(name: &str, child: &str) -> bool {
    let name = pluto::clean(name);
    let Some(rest) = child.strip_prefix(&name) else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let pair = rest.strip_prefix('-').and_then(|rest| rest.split_once('x'));
    rest.is_empty() || pair.is_some_and(|(left, right)| digits(left) && digits(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_a_child_or_those_of_its_subnets() {
        for child in ["net", "net-1x1", "net-2x10"] {
            assert!(is_meant("net", child), "{child}");
        }
        for child in [
            "net-1x",
            "net-x1",
            "net2",
            "nets",
            "ne",
            "net-1x1-a",
            "net-a",
        ] {
            assert!(!is_meant("net", child), "{child}");
        }
        assert!(is_meant("n/1x2", "n-1x2"));
        assert!(is_meant("a.b", "a.b") && !is_meant("a.b", "a-b"));
    }
}
