//! What one peer may have at once, whatever it is able to prove.

use std::time::Instant;

use super::Endpoint;
use crate::error::IkeFailure;
use crate::event::IkeSaId;
use crate::sa::IkeSa;

impl Endpoint {
    /// Child SAs, and their selectors, that the peer of an IKE SA has on others.
    pub(super) fn peer_has_elsewhere(&self, sa: &IkeSa) -> (usize, usize) {
        let Some(established) = sa.established() else {
            return (0, 0);
        };
        let all = self.sas.with_identities_of(established);
        all.filter(|other| other.id != sa.id)
            .map(|other| (other.children.len(), other.selectors()))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// A peer has made an IKE SA: if it has too many, the oldest go.
    pub(super) fn keep_ike_quota(&mut self, now: Instant, id: IkeSaId) {
        let established = self.sas.get(id).and_then(IkeSa::established);
        let Some(established) = established else {
            return;
        };
        let all = self.sas.with_identities_of(established);
        let current: Vec<IkeSaId> = all.filter(|sa| sa.is_current()).map(|sa| sa.id).collect();
        let quota = self.cx.settings().quotas.ike_sas.max(1);
        let over = current.len().saturating_sub(quota);
        for id in current.into_iter().take(over) {
            self.with(now, id, |sa, cx| sa.close(cx, now, IkeFailure::Replaced));
        }
    }
}
