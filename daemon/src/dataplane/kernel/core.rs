//! Everything that the data plane decides, apart from sockets and clocks: what the kernel is told,
//! and what its notices mean.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use obol_ike::event::ChildSaId;

use super::bases::{Base, Bases};
use super::foreign::Foreign;
use super::leftovers::Leftovers;
use super::reqids::Reqids;
use super::sas::Sa;
use super::spd::Spd;
use crate::dataplane::flow::Flows;
use crate::dataplane::{DataPlaneError, DataPlaneEvent, Policy};
use crate::host::HostSettings;
use crate::host::xfrm::{self, Key, Refusal, Selector, StateId, Xfrm};

/// Time until a packet without SA asks for one again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The data plane without its sockets.
pub(super) struct Core<K> {
    pub(super) kernel: K,
    pub(super) settings: HostSettings,
    pub(super) reqids: Reqids,
    pub(super) spd: Spd,
    pub(super) bases: Bases,
    /// The policies that ask again after a while.
    pub(super) asked: VecDeque<(Instant, u32)>,
    /// Which these are.
    pub(super) asking: HashSet<u32>,
    pub(super) flows: Flows<ChildSaId>,
    pub(super) sas: HashMap<ChildSaId, Sa>,
    /// Whose each state is.
    pub(super) states: HashMap<StateId, ChildSaId>,
    /// Inbound states that were replaced, until when they are kept.
    pub(super) waning: VecDeque<(Instant, StateId)>,
    pub(super) leftovers: Leftovers,
    /// Policies of others that were told.
    pub(super) foreign: BTreeSet<Foreign>,
    /// All policies of others that were looked at, as they were told last.
    pub(super) others: Vec<xfrm::Policy>,
    /// When to compare the kernel with what it should be.
    pub(super) compare_at: Option<Instant>,
    pub(super) events: VecDeque<DataPlaneEvent>,
}

impl<K: Xfrm> Core<K> {
    /// Takes over what an earlier run left.
    ///
    /// # Errors
    /// The kernel does not tell it.
    pub(super) fn new(kernel: K, settings: HostSettings) -> Result<Self, DataPlaneError> {
        let mut core = Self {
            reqids: Reqids::new(&settings),
            kernel,
            settings,
            spd: Spd::default(),
            bases: Bases::default(),
            asked: VecDeque::new(),
            asking: HashSet::new(),
            flows: Flows::default(),
            sas: HashMap::new(),
            states: HashMap::new(),
            waning: VecDeque::new(),
            leftovers: Leftovers::default(),
            foreign: BTreeSet::new(),
            others: Vec::new(),
            compare_at: None,
            events: VecDeque::new(),
        };
        core.adopt()?;
        Ok(core)
    }

    /// Replaces the set of policies.
    ///
    /// # Errors
    /// The kernel refuses one: then all is as before.
    pub(super) fn set_policies(
        &mut self,
        policies: Vec<Policy>,
        now: Instant,
    ) -> Result<(), DataPlaneError> {
        let before = self.bases.clone();
        let mut old = std::mem::take(&mut self.bases).by_name();
        let mut new = Vec::new();
        let mut refused = None;
        for policy in policies {
            let name = (policy.connection.clone(), policy.child.clone());
            let same = old.get_mut(&name).and_then(|namesakes| {
                let same = namesakes.iter().position(|base| base.policy == policy)?;
                Some(namesakes.swap_remove(same))
            });
            let base = match same {
                Some(same) => Ok(same),
                None => self.base(policy),
            };
            match base {
                Ok(base) => new.push(base),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        self.bases = Bases::new(new);
        if refused.is_none() {
            let forgotten = self.sort_leftovers(now);
            refused = self.sync_base(forgotten).err();
        }
        let Some(error) = refused else {
            for reqid in old.values().flatten().flat_map(Base::reqids) {
                self.reqids.free(reqid);
            }
            self.end_changed();
            self.look_for_foreign();
            return Ok(());
        };
        let failed = std::mem::replace(&mut self.bases, before);
        let kept: HashSet<u32> = self.bases.reqids().collect();
        for reqid in failed.reqids().filter(|reqid| !kept.contains(reqid)) {
            self.reqids.free(reqid);
        }
        if let Err(again) = self.sync_base(BTreeSet::new()) {
            tracing::error!(error = %again, "policies are not as they were");
        }
        Err(error)
    }

    fn sync_base(&mut self, mut keys: BTreeSet<Key>) -> Result<(), DataPlaneError> {
        let mut rules = self.bases.neighbours();
        rules.extend(self.bases.rules().copied());
        keys.extend(self.spd.set_base(&rules));
        self.sync(&keys)
    }

    /// Makes the kernel have these policies as they should be.
    pub(super) fn sync(&mut self, keys: &BTreeSet<Key>) -> Result<(), DataPlaneError> {
        let done = self.spd.sync(&self.kernel, keys);
        done.map_err(|(key, refusal)| policy_refused(&key, &refusal))
    }

    pub(super) fn base(&mut self, policy: Policy) -> Result<Base, DataPlaneError> {
        let reqid = self.reqids.take().ok_or_else(no_reqid)?;
        let mut taken = vec![reqid];
        let base = match policy.pass {
            false => Base::new(policy, reqid),
            true => Base::passing(policy, reqid, &mut || {
                let more = self.reqids.take();
                taken.extend(more);
                more
            }),
        };
        base.inspect_err(|_| taken.iter().for_each(|reqid| self.reqids.free(*reqid)))
    }

    /// Lets the next packet without SA ask again: the kernel asks once for each request ID and
    /// pair of hosts, so the policy gets another one.
    pub(super) fn ask_again(&mut self, reqid: u32) -> Result<(), DataPlaneError> {
        if self.bases.asked_by(reqid).is_none() {
            return Ok(());
        }
        let new = self.reqids.take().ok_or_else(no_reqid)?;
        let (changed, in_use) = self.bases.rename(reqid, new);
        if !in_use {
            self.reqids.free(reqid);
        }
        for (key, rule) in &changed {
            if let Some(wanted) = self.spd.base_mut(key) {
                *wanted = *rule;
            }
        }
        let keys = changed.iter().map(|(key, _)| *key).collect();
        self.sync(&keys)
    }
}

/// The packets of a policy, in words.
pub(super) fn packets(key: &Key) -> String {
    let Selector {
        source,
        destination,
        protocol,
        ..
    } = key.selector;
    format!(
        "from {}/{} to {}/{} (IP protocol {protocol})",
        source.address, source.len, destination.address, destination.len
    )
}

fn policy_refused(key: &Key, refusal: &Refusal) -> DataPlaneError {
    let packets = packets(key);
    if refusal.is(libc::EEXIST) {
        return DataPlaneError::Refused(format!(
            "another program has an IPsec policy for packets {packets}: `ip xfrm policy` shows it; remove it, or leave these packets to that program"
        ));
    }
    DataPlaneError::Refused(format!(
        "the kernel refuses a policy for packets {packets}: {refusal}"
    ))
}

/// More SAs and policies than there are request IDs.
pub(super) fn no_reqid() -> DataPlaneError {
    DataPlaneError::Refused("all 65535 request IDs of this daemon are in use, of which a child needs one, and another one when it is up: configure at most 32000 children, or let another daemon with another fwmark have some".to_owned())
}
