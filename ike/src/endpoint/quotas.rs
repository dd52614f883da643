//! What one peer may have at once, whatever it is able to prove.

use std::time::Instant;

use super::Endpoint;
use crate::config::Unique;
use crate::error::IkeFailure;
use crate::event::IkeSaId;
use crate::sa::{IkeSa, Phase};

impl Endpoint {
    /// Child SAs, and pairs of their selectors, that the peer of an IKE SA has on others.
    pub(super) fn peer_has_elsewhere(&self, sa: &IkeSa) -> (usize, usize) {
        self.of_peer(sa)
            .filter(|other| !goes(other, sa))
            .map(|other| (other.children.len(), other.pairs()))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// The other IKE SAs of a proven peer.
    fn of_peer<'a>(&'a self, sa: &'a IkeSa) -> impl Iterator<Item = &'a IkeSa> {
        let ends = match &sa.phase {
            Phase::Established(e) => Some((&e.local_id, &e.remote_id)),
            Phase::AuthResponder(auth) => {
                let proven = auth.proven().is_some();
                proven.then_some((&auth.local_id, &auth.peer.identity))
            }
            _ => None,
        };
        let all = ends.map(|(local, remote)| self.sas.with_identities(local, remote));
        all.into_iter()
            .flatten()
            .filter(|other| other.id != sa.id && other.is_of_same_peer(sa))
    }

    /// How many IKE SAs are up on the connection of one that is being made, if no more must be:
    /// where it says who its peer is, the quotas of that peer hold. Who is up may come again, in place
    /// of that or to be proven anew.
    pub(super) fn crowded(&self, sa: &IkeSa) -> Option<usize> {
        let asks = matches!(&sa.phase, Phase::AuthResponder(auth) if auth.proven().is_some());
        if !asks || sa.connection.remote.id.is_some() {
            return None;
        }
        let up = self.sas.established_on(&sa.connection.name);
        let full = up >= self.cx.settings().quotas.open_ike_sas;
        let again = || {
            let is_up = self.of_peer(sa).next().is_some();
            let stay = self.of_peer(sa).filter(|other| !goes(other, sa));
            is_up && stay.filter(|other| other.is_current()).count() < 2
        };
        (full && !again()).then_some(up)
    }

    /// A peer has made an IKE SA: if it has too many, the oldest go.
    pub(super) fn keep_ike_quota(&mut self, now: Instant, id: IkeSaId) {
        let Some(new) = self.sas.get(id) else {
            return;
        };
        let Some(established) = new.established() else {
            return;
        };
        let all = self.sas.with_identities_of(established);
        let current = all.filter(|sa| sa.is_current() && sa.is_of_same_peer(new));
        let current: Vec<IkeSaId> = current.map(|sa| sa.id).collect();
        let quota = self.cx.settings().quotas.ike_sas.max(1);
        let over = current.len().saturating_sub(quota);
        for id in current.into_iter().take(over) {
            self.with(now, id, |sa, cx| sa.close(cx, now, IkeFailure::Replaced));
        }
    }
}

/// Whether an IKE SA of a peer goes as soon as this one is up, since the peer resumes it or says that
/// it has forgotten it.
fn goes(other: &IkeSa, new: &IkeSa) -> bool {
    let Phase::AuthResponder(auth) = &new.phase else {
        return false;
    };
    let told = auth.is_first_contact() && new.connection.peer.unique != Unique::Never;
    let forgotten = told && other.is_forgotten_with(new, new.begun);
    let resumed = auth.proven().and_then(|proven| proven.resumed);
    forgotten || resumed == Some(other.id)
}
