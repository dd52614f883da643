//! What a daemon knows of pluto's connections besides its configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::former::Former;
use super::places::Places;
use super::running::{Addresses, NamesFound, look_up};
use crate::control::protocol::{Absence, Names, NotLoaded};

/// When names of which nothing was heard are looked up again.
const AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// Their names and aliases, and what they stand for.
    pub(crate) names: Names,
    /// Names that connections have beside their own.
    pub(super) aliases: BTreeSet<String>,
    /// Those that are other hosts', and why.
    pub(super) others: BTreeMap<String, NotLoaded>,
    /// The addresses that this host had.
    pub(crate) addresses: Addresses,
    /// What names stand for, by the last that was heard of each.
    pub(super) names_found: NamesFound,
    /// Names of which nothing was heard yet.
    pub(super) unresolved: Vec<String>,
    /// Connections in force.
    pub(super) former: Former,
    /// Those that are in force as they were before, and why.
    pub(super) kept: BTreeMap<String, String>,
    /// Where secrets and private keys are.
    pub(crate) places: Places,
}

impl World {
    /// Connections that are not loaded, and why.
    pub(crate) fn not_loaded(&self) -> &BTreeMap<String, NotLoaded> {
        &self.others
    }

    /// Takes in what is known of others.
    pub(crate) fn add(&mut self, others: Self) {
        self.former.add(others.former);
        for (name, mut places) in others.names {
            self.others.remove(&name);
            self.kept.remove(&name);
            self.names.entry(name).or_default().append(&mut places);
        }
        self.aliases.extend(others.aliases);
        let newer = |name: &String| others.names_found.iter().any(|(new, _)| new == name);
        self.names_found.retain(|(name, _)| !newer(name));
        self.names_found.extend(others.names_found);
        for address in others.addresses {
            if !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
    }

    /// Whether it is a name that connections have beside their own, and so may be of several.
    pub(crate) fn is_alias(&self, name: &str) -> bool {
        self.aliases.contains(name)
    }

    /// A connection is not loaded.
    pub(crate) fn leave_out(&mut self, name: &str, not: NotLoaded) {
        self.others.insert(name.to_owned(), not);
    }

    /// Forgets what stands for children that are gone.
    pub(crate) fn remove(&mut self, is_gone: impl Fn(&str, &str) -> bool) {
        for places in self.names.values_mut() {
            places.retain(|(connection, child)| !is_gone(connection, child));
        }
        self.names.retain(|_, places| !places.is_empty());
        let names = &self.names;
        let waits = |name: &str| {
            let not = self.others.get(name);
            not.is_some_and(|not| not.kind == Absence::Unresolved)
        };
        self.former
            .retain(|name| names.contains_key(name) || waits(name));
        self.kept.retain(|name, _| names.contains_key(name));
    }

    /// Why a connection is in force as it was before, if it is.
    pub(crate) fn why_kept(&self, name: &str) -> Option<&str> {
        self.kept.get(name).map(String::as_str)
    }

    /// Looks up names of which nothing was heard yet, until there is an answer. `None`: there are none.
    pub(crate) fn look_up_again(&self) -> Option<impl Future<Output = NamesFound> + use<>> {
        let names = self.unresolved.clone();
        let asked = async move {
            loop {
                tokio::time::sleep(AGAIN).await;
                let found = look_up(names.iter().map(String::as_str)).await;
                if !found.is_empty() {
                    return found;
                }
            }
        };
        (!self.unresolved.is_empty()).then_some(asked)
    }

    /// This is what names stand for.
    pub(crate) fn learn(&mut self, found: NamesFound) {
        self.names_found.extend(found);
    }

    /// Connections that are other hosts', and why.
    pub(crate) fn unoriented(&self) -> impl Iterator<Item = (&str, &str)> {
        let others = self.others.iter();
        let others = others.filter(|(_, not)| not.kind != Absence::Unresolved);
        others.map(|(name, not)| (name.as_str(), not.why.as_str()))
    }

    /// Why a connection is not loaded, if it is not.
    pub(crate) fn why_not(&self, name: &str) -> Option<&NotLoaded> {
        self.others.get(name)
    }
}
