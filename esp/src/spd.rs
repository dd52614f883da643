//! The policy database, RFC 4301 section 4.4.1: what is to happen to a packet.

use crate::flow::FlowKey;
use crate::selector::Selector;

/// Policies, each for the packets of one selector.
///
/// A policy whose selector lies within that of another is asked first, whatever their order;
/// among policies that are neither narrower nor wider, the one added first.
#[derive(Clone, Debug)]
pub struct Spd<T> {
    entries: Vec<(Selector, T)>,
}

impl<T> Spd<T> {
    /// No policies: nothing matches.
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// Adds a policy after those that are at least as narrow.
    pub fn insert(&mut self, selector: Selector, policy: T) {
        let width = selector.width();
        let place = self
            .entries
            .partition_point(|(other, _)| other.width() <= width);
        self.entries.insert(place, (selector, policy));
    }

    /// The policy for packets of this flow.
    pub fn lookup(&self, flow: &FlowKey) -> Option<&T> {
        self.entries
            .iter()
            .find(|(selector, _)| selector.matches(flow))
            .map(|(_, policy)| policy)
    }

    /// The policies in the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = (&Selector, &T)> {
        self.entries
            .iter()
            .map(|(selector, policy)| (selector, policy))
    }

    /// Number of policies.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no policy.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T> Default for Spd<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> FromIterator<(Selector, T)> for Spd<T> {
    fn from_iter<I: IntoIterator<Item = (Selector, T)>>(policies: I) -> Self {
        let mut entries: Vec<_> = policies.into_iter().collect();
        entries.sort_by_key(|(selector, _)| selector.width());
        Self { entries }
    }
}
