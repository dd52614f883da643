//! Policies of other programs that are about packets of ours: they are told, and never touched. Of
//! two policies for a packet the kernel takes the one with the lower priority.

use std::collections::BTreeSet;

use super::bases::Base;
use super::core::{Core, packets};
use super::leftovers::ours;
use crate::host::xfrm::{Key, Policy, Xfrm};

/// Policies of others that are looked at, those first that come first: each is compared with all
/// of ours.
const MOST: usize = 256;

/// A policy of others, and what it overlaps.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Foreign {
    /// Which.
    key: Key,
    /// Whether it comes before ours.
    pub(super) first: bool,
    /// Whether packets that meet it pass in clear.
    pub(super) clear: bool,
}

impl<K: Xfrm> Core<K> {
    /// Asks the kernel for policies of others.
    pub(super) fn look_for_foreign(&mut self) {
        match self.kernel.policies() {
            Ok(policies) => self.tell_foreign(policies),
            Err(refusal) => {
                tracing::warn!(%refusal, "the kernel does not tell policies of other programs");
            }
        }
    }

    /// Tells those of others among all policies, each once for as long as it is there.
    pub(super) fn tell_foreign(&mut self, mut all: Vec<Policy>) {
        let (own, _) = ours(all.clone(), Vec::new(), |reqid| self.reqids.is_ours(reqid));
        let own: BTreeSet<Key> = own.iter().map(|policy| policy.key).collect();
        all.retain(|policy| !own.contains(&policy.key));
        all.sort_by_key(|policy| policy.rule.priority);
        all.truncate(MOST);
        self.others = all;
        let found = self.overlapping(self.bases.all());
        self.foreign = found;
    }

    /// Tells those of others that are about packets of these, which are new.
    pub(super) fn tell_foreign_of(&mut self, new: &[Base]) {
        let found = self.overlapping(new);
        self.foreign.extend(found);
    }

    /// Those of others that are about packets of these; what was not known is told.
    fn overlapping(&self, bases: &[Base]) -> BTreeSet<Foreign> {
        let mut found = BTreeSet::new();
        for policy in &self.others {
            let Some((child, first)) = overlapped(bases, policy) else {
                continue;
            };
            let foreign = Foreign {
                key: policy.key,
                first,
                clear: policy.rule.template.is_none() && !policy.rule.block,
            };
            if !self.foreign.contains(&foreign) {
                tell(&foreign, child);
            }
            found.insert(foreign);
        }
        found
    }
}

/// A child with packets that this policy is about, one that it comes before if there is any, and
/// whether it does.
fn overlapped<'b>(bases: &'b [Base], other: &Policy) -> Option<(&'b str, bool)> {
    let mut behind = None;
    for base in bases {
        let child = base.policy.child.as_str();
        for (key, rule) in base.rules() {
            if !key.overlaps(&other.key) {
                continue;
            }
            // The policy of an SA is one before that of its child.
            if other.rule.priority <= rule.priority {
                return Some((child, true));
            }
            behind = behind.or(Some(child));
        }
    }
    behind.map(|child| (child, false))
}

fn tell(foreign: &Foreign, child: &str) {
    let packets = packets(&foreign.key);
    let direction = foreign.key.direction;
    match (foreign.first, foreign.clear) {
        (true, true) => tracing::error!(
            child,
            ?direction,
            "another program's IPsec policy for packets {packets} comes before those of this child: what meets it passes in clear; `ip xfrm policy` shows it; remove it, or leave these packets to that program"
        ),
        (true, false) => tracing::warn!(
            child,
            ?direction,
            "another program's IPsec policy for packets {packets} comes before those of this child: what meets it does not go by this child; `ip xfrm policy` shows it"
        ),
        (false, _) => tracing::warn!(
            child,
            ?direction,
            "another program's IPsec policy for packets {packets} overlaps this child, whose policies come first: what both are about goes by this child; `ip xfrm policy` shows it"
        ),
    }
}
