//! One connection of pluto's in place of what its name meant before, where it has to do with others that are
//! loaded: what a client of pluto's asks for with `ipsec add`. All others stay as they are, whatever the files
//! say of them by now.

use std::collections::BTreeMap;
use std::sync::Arc;

use obol_ike::config::{Child, Connection};

use super::addition::meet;
use super::overlap::{Order, order};
use super::planes::ConnectionChoice;
use super::shunt::{DROP, PASS};
use super::{Finding, Loaded};
use crate::dataplane::{Cleartext, KernelOptions, Policy};
use crate::host::pairs;
use crate::pluto::World;

/// What there was, to go back to.
pub(crate) struct Before {
    connections: Vec<Arc<Connection>>,
    data_planes: Vec<ConnectionChoice>,
    policies: Vec<Policy>,
    updown: BTreeMap<(String, String), String>,
    warnings: Vec<Finding>,
    pluto: World,
}

/// Why a connection cannot be put beside others.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Misfit {
    /// Only a look at all of the configuration tells what is right.
    Remarkable,
    /// It is in the way of another one, in words.
    Clash(String),
}

/// Children, each by the names of its connection and its own.
type Names = Vec<(String, String)>;

/// Where something was taken out.
#[derive(Default)]
struct Gap {
    /// The place of the connection, and whether that went as a whole.
    connection: Option<(usize, bool)>,
    /// The place among its children.
    child: usize,
    /// The place among the policies.
    policy: Option<usize>,
}

impl Loaded {
    /// What there is, to go back to it by [`restore`](Self::restore).
    pub(crate) fn before(&self) -> Before {
        Before {
            connections: self.ike.connections.clone(),
            data_planes: self.data_planes.clone(),
            policies: self.policies.clone(),
            updown: self.updown.clone(),
            warnings: self.warnings.clone(),
            pluto: self.pluto.clone(),
        }
    }

    /// Goes back to what there was. Keys and secrets that came since stay.
    pub(crate) fn restore(&mut self, before: Before) {
        self.ike.connections = before.connections;
        self.data_planes = before.data_planes;
        self.policies = before.policies;
        self.updown = before.updown;
        self.warnings = before.warnings;
        self.pluto = before.pluto;
    }

    /// Puts a connection that [`single_out`](Self::single_out) has left of another configuration into the place
    /// of what its name meant: into the connection with the same ends and proofs, if there is one. Its children,
    /// and what there was before.
    ///
    /// # Errors
    /// It does not fit; then all is as before.
    pub(crate) fn put(&mut self, one: Self, name: &str) -> Result<(Names, Before), Misfit> {
        let before = self.before();
        match self.try_put(one, name) {
            Ok(children) => Ok((children, before)),
            Err(misfit) => {
                self.restore(before);
                Err(misfit)
            }
        }
    }

    fn try_put(&mut self, mut one: Self, name: &str) -> Result<Names, Misfit> {
        let old = self.pluto.names.get(name).cloned().unwrap_or_default();
        if !is_plain(&one.policies) || old.iter().any(is_shunt) || self.pluto.is_alias(name) {
            return Err(Misfit::Remarkable);
        }
        let gap = self.take_out(&old);
        let [new] = one.ike.connections.as_slice() else {
            return Err(Misfit::Remarkable);
        };
        let home = self.home_of(new)?;
        let called = match home {
            Some(at) => self.ike.connections[at].name.clone(),
            None => self.free_name(&new.name),
        };
        one.rename(&called);
        self.order_policies(&mut one.policies)?;
        let children = one.pluto.names.get(name).cloned().unwrap_or_default();
        self.fill(one, home, &gap);
        Ok(children)
    }

    /// The connection that a new one, whose name means nothing yet, is a part of, if its packets have nothing
    /// to do with those of others: then nothing of what is there changes for it.
    pub(crate) fn joined_by(&self, one: &Self, name: &str) -> Option<usize> {
        let [new] = one.ike.connections.as_slice() else {
            return None;
        };
        let is_new = !self.pluto.names.contains_key(name);
        if !is_new || !is_plain(&one.policies) || !self.meets_no_policy(one) {
            return None;
        }
        self.home_of(new).ok()?
    }

    /// Whether a name means packets that pass or are dropped without IKE.
    pub(crate) fn has_shunt(&self, name: &str) -> bool {
        let places = self.pluto.names.get(name);
        places.into_iter().flatten().any(is_shunt)
    }

    /// Adds what is [joined](Self::joined_by) to its connection, which is as that is then.
    pub(crate) fn join(&mut self, one: Self, home: usize) -> Arc<Connection> {
        self.fill(one, Some(home), &Gap::default());
        Arc::clone(&self.ike.connections[home])
    }

    /// Gives the connections of this one another name.
    pub(crate) fn rename(&mut self, to: &str) {
        for connection in &mut self.ike.connections {
            Arc::make_mut(connection).name = to.to_owned();
        }
        for policy in &mut self.policies {
            policy.connection = to.to_owned();
        }
        let updown = std::mem::take(&mut self.updown).into_iter();
        let named = updown.map(|((_, child), script)| ((to.to_owned(), child), script));
        self.updown = named.collect();
        for (connection, _) in self.pluto.names.values_mut().flatten() {
            *connection = to.to_owned();
        }
    }

    fn take_out(&mut self, children: &[(String, String)]) -> Gap {
        let has = |connection: &str, child: &str| {
            let mut all = children.iter();
            all.any(|(of, own)| of == connection && own == child)
        };
        let place = |connection: &Connection| {
            let mut own = connection.children.iter();
            own.position(|child| has(&connection.name, &child.name))
        };
        let mut all = self.ike.connections.iter().enumerate();
        let found = all.find_map(|(at, connection)| Some((at, place(connection)?)));
        let mut policies = self.policies.iter();
        let policy = policies.position(|policy| has(&policy.connection, &policy.child));
        let count = self.ike.connections.len();
        self.remove(children);
        Gap {
            connection: found.map(|(at, _)| (at, self.ike.connections.len() < count)),
            child: found.map_or(0, |(_, child)| child),
            policy,
        }
    }

    /// The connection with the same ends and proofs, which has to be the same in all else.
    fn home_of(&self, new: &Connection) -> Result<Option<usize>, Misfit> {
        let twin = |known: &Arc<Connection>| {
            known.local_addrs == new.local_addrs
                && known.remote_addrs == new.remote_addrs
                && known.local == new.local
                && known.remote == new.remote
        };
        let Some(at) = self.ike.connections.iter().position(twin) else {
            return Ok(None);
        };
        let known = &self.ike.connections[at];
        let alike = Connection {
            name: new.name.clone(),
            source: new.source,
            children: new.children.clone(),
            ..Connection::clone(known)
        };
        let is_taken = |child: &Arc<Child>| known.children.iter().any(|own| own.name == child.name);
        if alike != *new || new.children.iter().any(is_taken) {
            return Err(Misfit::Remarkable);
        }
        for child in &new.children {
            let same = |own: &&Arc<Child>| {
                own.local_ts == child.local_ts && own.remote_ts == child.remote_ts
            };
            if let Some(own) = known.children.iter().find(same) {
                let text = format!("{} is about the same packets", own.name);
                return Err(Misfit::Clash(text));
            }
        }
        Ok(Some(at))
    }

    fn free_name(&self, name: &str) -> String {
        let is_free = |name: &String| self.ike.connections.iter().all(|known| known.name != *name);
        let numbered = (2..).map(|n| format!("{name}-{n}"));
        let mut all = std::iter::once(name.to_owned()).chain(numbered);
        all.find(is_free).unwrap_or_default()
    }

    /// Says of policies, and of those that are there, which are narrower than others.
    fn order_policies(&mut self, policies: &mut [Policy]) -> Result<(), Misfit> {
        let mut narrower = Vec::new();
        for new in policies {
            let own = pairs(&new.local_ts, &new.remote_ts);
            for (at, known) in self.policies.iter().enumerate() {
                if known.connection == new.connection || !meet(known, new) {
                    continue;
                }
                if !is_plain(std::slice::from_ref(known)) {
                    return Err(Misfit::Remarkable);
                }
                match order(&own, &pairs(&known.local_ts, &known.remote_ts)) {
                    Order::Apart => {}
                    Order::Narrower => new.narrower = true,
                    Order::Wider => narrower.push(at),
                    Order::Unclear => {
                        return Err(Misfit::Clash(format!(
                            "it and {} claim the same packets, and neither is the narrower one",
                            known.child
                        )));
                    }
                }
            }
        }
        for at in narrower {
            self.policies[at].narrower = true;
        }
        Ok(())
    }

    fn fill(&mut self, mut one: Self, home: Option<usize>, gap: &Gap) {
        let new = std::mem::take(&mut one.ike.connections);
        match home {
            Some(home) => {
                let known = &mut Arc::make_mut(&mut self.ike.connections[home]).children;
                let place = match gap.connection {
                    Some((at, false)) if at == home => gap.child.min(known.len()),
                    _ => known.len(),
                };
                let children = new.iter().flat_map(|connection| &connection.children);
                known.splice(place..place, children.cloned());
                one.data_planes.clear();
            }
            None => {
                let all = self.ike.connections.len();
                let place = match gap.connection {
                    Some((at, true)) => at.min(all),
                    _ => all,
                };
                self.ike.connections.splice(place..place, new);
                let choices = std::mem::take(&mut one.data_planes);
                self.data_planes.splice(place..place, choices);
            }
        }
        let all = self.policies.len();
        let place = gap.policy.map_or(all, |at| at.min(all));
        let policies = std::mem::take(&mut one.policies);
        self.policies.splice(place..place, policies);
        one.warnings
            .retain(|warning| !self.warnings.contains(warning));
        self.add(one);
    }
}

fn is_shunt((connection, _): &(String, String)) -> bool {
    [DROP, PASS].contains(&connection.as_str())
}

/// Whether these are no more than what is to go through ESP, by whichever data plane.
fn is_plain(policies: &[Policy]) -> bool {
    policies.iter().all(|policy| {
        !policy.pass
            && ![DROP, PASS].contains(&policy.connection.as_str())
            && policy.clear.when == Cleartext::Never
            && policy.kernel == KernelOptions::default()
    })
}
