//! How much SAs were used.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use obol_ike::event::ChildSaId;

use super::core::Core;
use crate::dataplane::Usage;
use crate::host::xfrm::{State, StateId, Xfrm};

/// For more SAs than these the kernel is asked for all of its states at once.
const FEW: usize = 8;

impl<K: Xfrm> Core<K> {
    /// How much an SA was used.
    pub(super) fn usage(&self, id: ChildSaId) -> Option<Usage> {
        self.usage_by(id, now(), |id| self.read_state(id))
    }

    /// The same of many.
    pub(super) fn usages(&self, ids: &[ChildSaId]) -> HashMap<ChildSaId, Usage> {
        let few = ids.len() <= FEW;
        let listed = if few { None } else { self.kernel.states().ok() };
        let listed: Option<HashMap<StateId, State>> =
            listed.map(|states| states.into_iter().map(|state| (state.id, state)).collect());
        let now = now();
        let usage = |id| match &listed {
            Some(states) => self.usage_by(id, now, |id| states.get(&id).copied()),
            None => self.usage_by(id, now, |id| self.read_state(id)),
        };
        let known = ids.iter().filter_map(|id| Some((*id, usage(*id)?)));
        known.collect()
    }

    fn usage_by(
        &self,
        id: ChildSaId,
        now: Duration,
        state: impl Fn(StateId) -> Option<State>,
    ) -> Option<Usage> {
        let sa = self.sas.get(&id)?;
        let ago = |state: &Option<State>| {
            let last: Duration = state.as_ref()?.last_used?;
            Some(now.saturating_sub(last))
        };
        let (inbound, outbound) = (sa.inbound.and_then(&state), sa.outbound.and_then(&state));
        Some(Usage {
            bytes_in: inbound.map_or(0, |state| state.bytes),
            packets_in: inbound.map_or(0, |state| state.packets),
            bytes_out: outbound.map_or(0, |state| state.bytes),
            packets_out: outbound.map_or(0, |state| state.packets),
            last_in: ago(&inbound),
            last_out: ago(&outbound),
        })
    }
}

/// The kernel tells times since 1970.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
