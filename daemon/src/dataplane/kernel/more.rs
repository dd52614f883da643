//! Further policies beside those that were set: the kernel is told of them alone, and of what there is no more is
//! looked at than what they meet.

use super::bases::{Base, is_caught};
use super::core::Core;
use crate::dataplane::{DataPlaneError, Policy};
use crate::host::xfrm::{Key, Rule, Xfrm};

impl<K: Xfrm> Core<K> {
    /// Adds policies of children that have none; `false`: it takes a look at all of them.
    ///
    /// # Errors
    /// The kernel refuses one: then all is as before.
    pub(super) fn add_policies(&mut self, more: &[Policy]) -> Result<bool, DataPlaneError> {
        let is_new = |policy: &Policy| {
            let known = self.bases.policy(&policy.connection, &policy.child);
            !policy.pass && known.is_none()
        };
        if !self.leftovers.are_over() || !more.iter().all(is_new) {
            return Ok(false);
        }
        let mut new = Vec::new();
        for policy in more {
            match self.base(policy.clone()) {
                Ok(base) => new.push(base),
                Err(error) => {
                    self.forget(&new);
                    return Err(error);
                }
            }
        }
        let rules: Vec<(Key, Rule)> = new.iter().flat_map(Base::rules).copied().collect();
        if rules.iter().any(|(key, _)| is_caught(key)) && !self.bases.catch_neighbours() {
            self.forget(&new);
            return Ok(false);
        }
        let keys = self.spd.add_base(&rules);
        if let Err(error) = self.sync(&keys) {
            self.spd.drop_base(&keys);
            if let Err(again) = self.sync(&keys) {
                tracing::error!(error = %again, "policies are not as they were");
            }
            self.forget(&new);
            return Err(error);
        }
        self.tell_foreign_of(&new);
        new.into_iter().for_each(|base| self.bases.push(base));
        Ok(true)
    }

    fn forget(&mut self, bases: &[Base]) {
        for reqid in bases.iter().flat_map(Base::reqids) {
            self.reqids.free(reqid);
        }
    }
}
