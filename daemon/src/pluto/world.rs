//! What a daemon knows of pluto's connections besides its configuration.

use std::collections::{BTreeMap, BTreeSet};

use super::places::Places;
use super::running::Addresses;
use crate::control::protocol::{Names, NotLoaded};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// Their names and aliases, and what they stand for.
    pub(crate) names: Names,
    /// Names that connections have beside their own.
    pub(super) aliases: BTreeSet<String>,
    /// Those that are other hosts', and why.
    pub(super) others: BTreeMap<String, NotLoaded>,
    /// The addresses that counted as this host's.
    pub(crate) addresses: Addresses,
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
        for (name, mut places) in others.names {
            self.others.remove(&name);
            self.names.entry(name).or_default().append(&mut places);
        }
        self.aliases.extend(others.aliases);
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
    }

    /// Connections that are other hosts', and why.
    pub(crate) fn unoriented(&self) -> impl Iterator<Item = (&str, &str)> {
        let others = self.others.iter();
        others.map(|(name, not)| (name.as_str(), not.why.as_str()))
    }

    /// Why a connection is not loaded, if it is not.
    pub(crate) fn why_not(&self, name: &str) -> Option<&NotLoaded> {
        self.others.get(name)
    }
}
