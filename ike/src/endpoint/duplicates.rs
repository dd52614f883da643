//! Both ends started at once: of two IKE SAs, or two Child SAs, one is closed, and both ends find
//! the same one without a word (the rule of RFC 7296 section 2.8.1).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use super::table::Ends;
use super::{Endpoint, age};
use crate::config::Unique;
use crate::context::Age;
use crate::error::IkeFailure;
use crate::event::{ChildSaId, IkeSaId};
use crate::sa::child::{ChildSa, ChildState};
use crate::sa::task::{ChildTask, Task};
use crate::sa::{IkeSa, Phase, Role, Side};

impl Endpoint {
    /// Gives up a start of ours of which the peer knows next to nothing, once the peer's own
    /// start stands. The peer cannot do the same with that: it has proven itself there.
    pub(super) fn drop_crossed_starts(&mut self, changes: &[Ends]) {
        let mut crossed = BTreeSet::new();
        for ends in changes {
            let (name, peer) = (&ends.connection.name, ends.peer);
            // Behind one address there may be many peers, so it is not theirs that come first.
            let mut ours = self.sas.starts_with(name, peer).peekable();
            if ours.peek().is_none() {
                continue;
            }
            let theirs = self.sas.with_peer(name, peer);
            let theirs = theirs.filter(|sa| sa.is_current() && sa.role == Role::Responder);
            let theirs =
                theirs.filter_map(|sa| Some((sa.path.local.ip(), sa.established()?.since)));
            // Where the connection leaves open with which address of ours it is, each has its own.
            let one =
                !ends.connection.remote_addrs.is_empty() || !ends.connection.local_addrs.is_empty();
            let mut since: BTreeMap<Option<IpAddr>, Instant> = BTreeMap::new();
            for (own, at) in theirs {
                let last = since.entry(Some(own).filter(|_| !one)).or_insert(at);
                *last = at.max(*last);
            }
            // One that was there before is what ours is to replace.
            let stands = |sa: &&IkeSa| {
                let own = Some(sa.path.local.ip()).filter(|_| !one);
                since.get(&own).is_some_and(|since| sa.begun <= *since)
            };
            crossed.extend(ours.filter(stands).map(|sa| sa.id));
        }
        for id in crossed {
            if let Some(mut sa) = self.sas.lend(id) {
                sa.phase = Phase::Gone;
                self.put(sa);
            }
        }
    }

    /// Whether there is nothing between these ends that could be there twice or is being replaced:
    /// so it is nearly always.
    pub(super) fn is_plain(&self, ends: &Ends) -> bool {
        let mut family = self.sas.family(ends);
        let (first, second) = (family.next(), family.next());
        second.is_none() && first.is_none_or(is_plain)
    }

    /// Closes what there is twice.
    pub(super) fn merge_duplicates(&mut self, now: Instant, changes: &[Ends]) {
        for (loser, winner) in self.in_families(changes, IkeSa::is_current, duplicate_sas) {
            self.merge_sas(now, loser, winner);
        }
        for id in self.in_families(changes, IkeSa::is_current, duplicate_children) {
            self.with_child(now, id, |sa, _| sa.delete_child(id));
        }
        for id in self.in_families(changes, IkeSa::is_current, not_shown) {
            self.with_child(now, id, |sa, _| sa.show_child(id));
        }
        for id in self.in_families(changes, IkeSa::may_carry, held_back) {
            self.with_child(now, id, |sa, cx| sa.use_outbound(cx, id));
        }
    }

    /// What `find` finds among the IKE SAs between these ends that are like this, and of which one can
    /// stand for another.
    fn in_families<T: Ord>(
        &self,
        changes: &[Ends],
        like: impl Fn(&IkeSa) -> bool,
        find: impl Fn(&[&IkeSa], &mut BTreeSet<T>),
    ) -> BTreeSet<T> {
        let mut found = BTreeSet::new();
        for ends in changes {
            let mut places: BTreeMap<_, Vec<&IkeSa>> = BTreeMap::new();
            for sa in self.sas.family(ends).filter(|sa| like(sa)) {
                places.entry(sa.stands_at()).or_default().push(sa);
            }
            places.values().for_each(|there| find(there, &mut found));
        }
        found
    }

    /// Closes `loser` once the peer is known to be done with making `winner`, and `winner` has
    /// all children of `loser`.
    fn merge_sas(&mut self, now: Instant, loser: IkeSaId, winner: IkeSaId) {
        let (Some(old), Some(new)) = (self.sas.get(loser), self.sas.get(winner)) else {
            return;
        };
        let heard = new.established().is_some_and(|e| e.heard);
        let mut seen = BTreeSet::new();
        let missing: Vec<ChildTask> = old
            .children
            .iter()
            .filter(|child| child.is_current() && !new.cares_for(&child.info.child))
            .filter(|child| seen.insert(&child.info.child))
            .map(|child| ChildTask::new(child.conf.clone(), None, None))
            .collect();
        let all_up = old
            .children
            .iter()
            .filter(|child| child.is_current())
            .all(|child| is_there(new, &child.info.child));
        let probing = new.requests.open().is_some() || !new.tasks.is_empty();
        if !missing.is_empty() {
            self.with(now, winner, |sa, _| {
                missing
                    .into_iter()
                    .for_each(|task| sa.tasks.push(Task::Child(task)));
            });
        } else if !heard && !probing {
            self.with(now, winner, |sa, _| sa.tasks.push(Task::Liveness));
        } else if heard && all_up && old.requests.open().is_none() {
            self.with(now, loser, |sa, cx| sa.close(cx, now, IkeFailure::Replaced));
        }
    }

    //= rfc7296 2.4-4
    //= security S-9
    /// IKE SAs of the peer of this one, between the same identities, that were established before
    /// `before`.
    pub(super) fn established_earlier(&self, id: IkeSaId, before: Instant) -> Vec<IkeSaId> {
        let Some(new) = self.sas.get(id) else {
            return Vec::new();
        };
        let all = new.established().map(|e| self.sas.with_identities_of(e));
        all.into_iter()
            .flatten()
            .filter(|sa| sa.id != id && sa.is_of_same_peer(new))
            .filter(|sa| sa.is_forgotten_with(new, before))
            .map(|sa| sa.id)
            .collect()
    }
}

/// Whether an IKE SA has neither a successor nor several Child SAs, or one that waits for others.
fn is_plain(sa: &IkeSa) -> bool {
    let waits = |child: &ChildSa| child.held_back || child.switch_at.is_some();
    let renewed = sa.established().is_some_and(|e| e.renewal.is_some());
    !renewed && sa.children.len() < 2 && !sa.children.iter().any(waits)
}

/// Pairs of IKE SAs with one peer: the one to close, where that is for us to do since we began
/// it, and the one to keep.
fn duplicate_sas(current: &[&IkeSa], found: &mut BTreeSet<(IkeSaId, IkeSaId)>) {
    for loser in current.iter().filter(|sa| sa.role == Role::Initiator) {
        let winner = current.iter().find(|other| {
            let renewal = renews(other, loser) || renews(loser, other);
            same_ends(loser, other) && stays_before(other, loser) && !renewal
        });
        found.extend(winner.map(|winner| (loser.id, winner.id)));
    }
}

//= rfc7296 2.8-5
/// Child SAs that we made, and that lost against one of the same child that the peer made on the
/// same IKE SA, or that a newer one of ours makes superfluous. Those on an IKE SA that is to go
/// will go with it: if one of them won, the one on the other would be made again.
fn duplicate_children(current: &[&IkeSa], found: &mut BTreeSet<ChildSaId>) {
    let staying = |sa: &&&IkeSa| sa.established().is_some_and(|e| e.renewal.is_none());
    for sa in current.iter().filter(staying) {
        let heard = sa.established().is_some_and(|e| e.heard);
        for same in several_times(sa).iter().filter(|_| heard) {
            let lost = same.iter().filter(|loser| {
                loser.side == Side::Requester
                    && same.iter().any(|winner| winner.up && beats(winner, loser))
            });
            found.extend(lost.map(|loser| loser.info.id));
        }
    }
}

/// Child SAs that we made and that stay, while the peer's own of the same child is still there: it
/// closes that one once it sees that its reply to us has come.
fn not_shown(current: &[&IkeSa], found: &mut BTreeSet<ChildSaId>) {
    let staying = |sa: &&&IkeSa| sa.established().is_some_and(|e| e.renewal.is_none());
    for same in current
        .iter()
        .filter(staying)
        .flat_map(|sa| several_times(sa))
    {
        let won = same.iter().filter(|winner| {
            let beaten = |loser: &&&ChildSa| loser.side == Side::Replier && beats(winner, loser);
            winner.side == Side::Requester
                && winner.up
                && !winner.shown
                && same.iter().any(|loser| beaten(&loser))
        });
        found.extend(won.map(|winner| winner.info.id));
    }
}

/// What there should be one of.
fn which(child: &ChildSa) -> (&str, u16) {
    (&child.info.child, child.info.queue)
}

/// The Child SAs of an IKE SA that are to stay, where there are several of the same child.
/// Additional ones (RFC 9611) are none too many.
fn several_times(sa: &IkeSa) -> Vec<Vec<&ChildSa>> {
    let current = sa.children.iter().filter(|child| child.is_current());
    let mut current: Vec<&ChildSa> = current.collect();
    current.sort_by(|a, b| which(a).cmp(&which(b)));
    let several = current.chunk_by(|a, b| which(a) == which(b));
    let stays = |child: &&ChildSa| !sa.is_replacing(child.info.id);
    let several = several.filter(|same| same.len() > 1);
    several
        .map(|same| same.iter().copied().filter(stays).collect())
        .collect()
}

/// Child SAs that were not put to use for the sake of a better one, and may be the better one by
/// themselves now.
fn held_back(family: &[&IkeSa], found: &mut BTreeSet<ChildSaId>) {
    // Nothing is left that could carry packets until the peer is ready. What is on an IKE SA that
    // both ends are rekeying still does.
    let only = |child: &ChildSa| {
        let mut children = family.iter().flat_map(|sa| &sa.children);
        let waits = child.switch_at.is_some() && child.info.replaces.is_none();
        waits && !children.any(|other| other.sends() && other.info.child == child.info.child)
    };
    let current = family.iter().filter(|sa| sa.is_current());
    let held = current
        .flat_map(|sa| &sa.children)
        .filter(|child| child.state == ChildState::Installed)
        .filter(|child| child.held_back || only(child));
    found.extend(held.map(|child| child.info.id));
}

/// Whether `new` is to take over from `old`.
fn renews(new: &IkeSa, old: &IkeSa) -> bool {
    let renewal = old.established().and_then(|e| e.renewal.as_ref());
    renewal.is_some_and(|renewal| renewal.by == new.id)
}

/// Whether `sa` is the one to stay, of two IKE SAs with one peer; both ends find the same. One that
/// was begun when the other was there was begun for a reason, and packets go there already; of two
/// that cross, the rank decides, since in a slow handshake one end is done much later than the other.
pub(super) fn stays_before(sa: &IkeSa, other: &IkeSa) -> bool {
    match age(sa, other) {
        Age::Older => false,
        Age::Same => sa.established().map(|e| &e.rank) > other.established().map(|e| &e.rank),
        Age::Newer => true,
    }
}

pub(super) fn same_ends(a: &IkeSa, b: &IkeSa) -> bool {
    match (a.established(), b.established()) {
        (Some(a_ends), Some(b_ends)) => {
            a.connection.name == b.connection.name
                && a.is_of_same_peer(b)
                && a.connection.peer.unique != Unique::Never
                && a_ends.local_id.matches(&b_ends.local_id)
                && a_ends.remote_id.matches(&b_ends.remote_id)
        }
        _ => false,
    }
}

/// Which of two of the same child stays.
fn beats(winner: &ChildSa, loser: &ChildSa) -> bool {
    if winner.side == loser.side {
        winner.info.id > loser.info.id
    } else {
        winner.lowest_nonce > loser.lowest_nonce
    }
}

/// Whether a Child SA of this child is up, or held back for one that is to go.
fn is_there(sa: &IkeSa, child: &str) -> bool {
    let held = |c: &ChildSa| c.held_back && c.state == ChildState::Installed;
    let mut children = sa.children.iter();
    is_up(sa, child) || children.any(|c| held(c) && c.info.child == child)
}

pub(super) fn is_up(sa: &IkeSa, child: &str) -> bool {
    sa.children
        .iter()
        .any(|c| c.is_current() && c.up && c.info.child == child)
}
