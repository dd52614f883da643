//! The policies of the kernel as they should be. It has one of each [`Key`], so
//! what several want of one is decided here: the newest SA, what an earlier run left, the
//! configuration, in this order.

use std::collections::{BTreeSet, HashMap};

use obol_ike::event::ChildSaId;

use crate::host::xfrm::{Key, Policy, Refusal, Rule, Xfrm};

/// All policies of ours.
#[derive(Debug, Default)]
pub(super) struct Spd {
    slots: HashMap<Key, Slot>,
    /// Where each SA has rules.
    places: HashMap<ChildSaId, Vec<Key>>,
}

/// What is wanted of a policy of the kernel, and what it is.
#[derive(Debug, Default)]
struct Slot {
    installed: Option<Rule>,
    /// By SA, the newest last.
    sas: Vec<(ChildSaId, Rule)>,
    old: Option<Rule>,
    base: Option<Rule>,
}

impl Slot {
    fn wanted(&self) -> Option<Rule> {
        let newest = self.sas.last().map(|(_, rule)| *rule);
        newest.or(self.old).or(self.base)
    }
}

impl Spd {
    /// Takes over what an earlier run left.
    pub(super) fn adopt(&mut self, policy: &Policy) {
        let slot = self.slots.entry(policy.key).or_default();
        slot.installed = Some(policy.rule);
        slot.old = Some(policy.rule);
    }

    /// What an earlier run left there.
    pub(super) fn old(&self, key: &Key) -> Option<Rule> {
        self.slots.get(key)?.old
    }

    /// All that an earlier run left.
    pub(super) fn all_old(&self) -> impl Iterator<Item = (Key, Rule)> {
        let slots = self.slots.iter();
        slots.filter_map(|(key, slot)| Some((*key, slot.old?)))
    }

    /// Has packets use the states of what an earlier run left there; whether they could do without.
    pub(super) fn make_old_strict(&mut self, key: &Key) -> bool {
        let old = self.slots.get_mut(key).and_then(|slot| slot.old.as_mut());
        let template = old.and_then(|rule| rule.template.as_mut());
        template.is_some_and(|template| std::mem::take(&mut template.optional))
    }

    /// Forgets what an earlier run left there.
    pub(super) fn forget_old(&mut self, key: &Key) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.old = None;
        }
    }

    /// Replaces what the configuration wants; of two rules for one key the first counts. The keys
    /// where that changed.
    pub(super) fn set_base(&mut self, wanted: &[(Key, Rule)]) -> BTreeSet<Key> {
        let mut new: HashMap<Key, Rule> = HashMap::new();
        for (key, rule) in wanted {
            new.entry(*key).or_insert(*rule);
        }
        let mut changed = BTreeSet::new();
        for (key, slot) in &mut self.slots {
            let base = new.remove(key);
            if slot.base != base {
                slot.base = base;
                changed.insert(*key);
            }
        }
        for (key, rule) in new {
            self.slots.entry(key).or_default().base = Some(rule);
            changed.insert(key);
        }
        changed
    }

    /// Adds what the configuration wants besides; where it wants something already, that counts. The keys where it
    /// did not.
    pub(super) fn add_base(&mut self, wanted: &[(Key, Rule)]) -> BTreeSet<Key> {
        let mut added = BTreeSet::new();
        for (key, rule) in wanted {
            let base = &mut self.slots.entry(*key).or_default().base;
            if base.is_none() {
                *base = Some(*rule);
                added.insert(*key);
            }
        }
        added
    }

    /// The configuration wants nothing there.
    pub(super) fn drop_base(&mut self, keys: &BTreeSet<Key>) {
        for key in keys {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.base = None;
            }
        }
    }

    /// What the configuration wants there.
    pub(super) fn base_mut(&mut self, key: &Key) -> Option<&mut Rule> {
        self.slots.get_mut(key)?.base.as_mut()
    }

    /// Adds rules of an SA, in place of those that it has for the same keys.
    pub(super) fn add_sa(&mut self, id: ChildSaId, rules: &[(Key, Rule)]) -> BTreeSet<Key> {
        let places = self.places.entry(id).or_default();
        for (key, rule) in rules {
            let slot = self.slots.entry(*key).or_default();
            match slot.sas.iter_mut().find(|(own, _)| *own == id) {
                Some(own) => own.1 = *rule,
                None => {
                    slot.sas.push((id, *rule));
                    places.push(*key);
                }
            }
        }
        rules.iter().map(|(key, _)| *key).collect()
    }

    /// Removes the rules of an SA; where they were.
    pub(super) fn drop_sa(&mut self, id: ChildSaId) -> BTreeSet<Key> {
        let places = self.places.remove(&id).unwrap_or_default();
        for key in &places {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.sas.retain(|(own, _)| *own != id);
            }
        }
        places.into_iter().collect()
    }

    /// Makes the kernel be as it should be at these keys. What is new is in place before what is
    /// stale goes.
    ///
    /// # Errors
    /// What the kernel says; what was done until then stays, and the rest is done next time.
    pub(super) fn sync(
        &mut self,
        kernel: &impl Xfrm,
        keys: &BTreeSet<Key>,
    ) -> Result<(), (Key, Refusal)> {
        let mut stale = Vec::new();
        for key in keys {
            let Some(slot) = self.slots.get_mut(key) else {
                continue;
            };
            match slot.wanted() {
                None => stale.push(*key),
                Some(rule) if slot.installed == Some(rule) => {}
                Some(rule) => {
                    let policy = Policy { key: *key, rule };
                    if let Some(before) = slot.installed
                        && before.pass != rule.pass
                    {
                        // What takes its place would keep its index. Meanwhile a wider policy holds.
                        match kernel.carry_out(key.delete()) {
                            Err(refusal) if !refusal.gone() => return Err((*key, refusal)),
                            _ => slot.installed = None,
                        }
                    }
                    // What is not ours is not overwritten.
                    let message = policy.install(slot.installed.is_none());
                    kernel
                        .carry_out(message)
                        .map_err(|refusal| (*key, refusal))?;
                    slot.installed = Some(rule);
                }
            }
        }
        for key in stale {
            let installed = self.slots.get(&key).and_then(|slot| slot.installed);
            if installed.is_some() {
                match kernel.carry_out(key.delete()) {
                    Err(refusal) if !refusal.gone() => return Err((key, refusal)),
                    _ => {}
                }
            }
            self.slots.remove(&key);
        }
        Ok(())
    }

    /// Those of these keys where the kernel has what is wanted.
    pub(super) fn in_place(&self, keys: &BTreeSet<Key>) -> BTreeSet<Key> {
        let same = |key: &&Key| {
            let slot = self.slots.get(key);
            slot.is_some_and(|slot| slot.installed.is_some() && slot.installed == slot.wanted())
        };
        keys.iter().filter(same).copied().collect()
    }

    /// Writes a policy again as it is, so that the kernel forgets which states it used for it.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn refresh(&self, kernel: &impl Xfrm, key: &Key) -> Result<(), Refusal> {
        let installed = self.slots.get(key).and_then(|slot| slot.installed);
        let Some(rule) = installed else {
            return Ok(());
        };
        let policy = Policy { key: *key, rule };
        kernel.carry_out(policy.install(false))
    }

    /// Compares with what the kernel has: the keys where something is not as it was left.
    pub(super) fn compare(&mut self, present: &HashMap<Key, Rule>) -> BTreeSet<Key> {
        let mut differ = BTreeSet::new();
        for (key, slot) in &mut self.slots {
            let found = present.get(key).copied();
            if slot.installed.is_some() && found != slot.installed {
                slot.installed = found;
                differ.insert(*key);
            }
        }
        differ
    }

    /// Whether the kernel is to have a policy there.
    pub(super) fn wants(&self, key: &Key) -> bool {
        self.slots
            .get(key)
            .is_some_and(|slot| slot.wanted().is_some())
    }
}
