//! A new IKE SA in place of an old one, made from scratch: to prove identities anew (RFC 7296
//! section 2.8.3), for a changed configuration, or because a peer came back. The old one goes
//! when the new one carries everything.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Endpoint;
use super::duplicates::{is_up, same_ends};
use super::table::Ends;
use crate::config::{Child, Connection, Path, Unique};
use crate::error::IkeFailure;
use crate::event::IkeSaId;
use crate::sa::reauth::Renewal;
use crate::sa::task::{ChildTask, Task};
use crate::sa::{IkeSa, Phase};

/// The peer has this time to begin to send on the new Child SAs before the old ones go.
const GRACE: Duration = Duration::from_secs(10);
/// A renewal that failed is tried again after this time.
const AGAIN: Duration = Duration::from_secs(60);
/// Who was heard of within this time is not asked whether it lives.
const SILENCE: Duration = Duration::from_secs(10);
/// So many are asked at once for the sake of one other.
const MOST_PROBED: usize = 8;

/// What is to be done about a renewal.
enum Step {
    /// Nothing, for now.
    Wait,
    /// The new IKE SA is to make these, too.
    Make(Vec<Arc<Child>>),
    /// The peer is to show that it has the new IKE SA.
    Probe,
    /// The new one is complete: the old one goes after a while.
    Linger,
    /// The old one goes.
    Close,
    /// The new one came to nothing.
    Fail,
}

impl Endpoint {
    /// The proof of an IKE SA's peer is old.
    pub(super) fn reauthenticate(&mut self, now: Instant, id: IkeSaId) {
        let Some(old) = self.sas.get(id).filter(|sa| sa.is_current()) else {
            return;
        };
        let path = old.path;
        let connection = self.cx.directory.connection(&old.connection.name);
        if let Some(connection) = connection.cloned() {
            self.renew(now, id, connection, path, None);
        }
    }

    /// Begins an IKE SA that is to take over from this one with all its children, perhaps because
    /// a gateway sent us there. Says whether it was begun.
    pub(super) fn renew(
        &mut self,
        now: Instant,
        id: IkeSaId,
        connection: Arc<Connection>,
        path: Path,
        redirected_from: Option<IpAddr>,
    ) -> bool {
        let Some(old) = self.sas.get(id) else {
            return false;
        };
        let under_way = old.established().is_none_or(|e| e.renewal.is_some());
        if under_way || self.shutdown.is_some() {
            return false;
        }
        let first = children_of(old, &connection).into_iter().next();
        let asked = first.iter().map(|first| first.name.clone()).collect();
        let task = first.map(|first| ChildTask::new(first, None, None));
        let cx = &mut self.cx;
        let new = IkeSa::initiate_from(cx, now, connection, path, task, redirected_from);
        let Some(new) = new else {
            return false;
        };
        let mut renewal = Renewal::new(new.id, true);
        renewal.asked = asked;
        self.put(Box::new(new));
        self.set_renewal(now, id, Some(renewal));
        true
    }

    fn set_renewal(&mut self, now: Instant, old: IkeSaId, renewal: Option<Renewal>) {
        self.with(now, old, |sa, _| {
            if let Some(established) = sa.established_mut() {
                established.renewal = renewal;
            }
        });
    }

    /// An IKE SA was rekeyed: what it was to take over is for its successor.
    pub(super) fn renewal_moves(&mut self, from: IkeSaId, to: IkeSaId) {
        let Some(ends) = self.sas.get(from).and_then(|sa| self.sas.ends(sa)) else {
            return;
        };
        let family = self.sas.family(&ends);
        let ids: Vec<IkeSaId> = family.map(|sa| sa.id).collect();
        for id in ids {
            let Some(mut sa) = self.sas.lend(id) else {
                continue;
            };
            let renewal = sa.established_mut().and_then(|e| e.renewal.as_mut());
            if let Some(renewal) = renewal.filter(|renewal| renewal.by == from) {
                renewal.by = to;
            }
            self.put(sa);
        }
    }

    /// Goes on with every renewal where something has changed.
    pub(super) fn drive_renewals(&mut self, now: Instant, changes: &[Ends]) {
        let mut steps = Vec::new();
        for ends in changes {
            for old in self.sas.family(ends).filter(|sa| sa.is_current()) {
                let renewal = old.established().and_then(|e| e.renewal.as_ref());
                let step = renewal.map(|renewal| self.step(now, old, renewal));
                steps.extend(step.map(|step| (old.id, step)));
            }
        }
        for (id, step) in steps {
            self.take_step(now, id, step);
        }
    }

    fn step(&self, now: Instant, old: &IkeSa, renewal: &Renewal) -> Step {
        let Some(new) = self.sas.get(renewal.by) else {
            return Step::Fail;
        };
        match &new.phase {
            Phase::Established(established) if established.is_contest() => return Step::Wait,
            Phase::Established(established) if !established.is_current() => return Step::Fail,
            Phase::Established(_) => {}
            Phase::Lingering { .. } | Phase::Gone => return Step::Fail,
            _ => return Step::Wait,
        }
        if renewal.close_at.is_some_and(|at| at <= now) && old.requests.open().is_none() {
            return Step::Close;
        }
        if !renewal.complete {
            return Step::Linger;
        }
        let children = children_of(old, &new.connection);
        let missing = children.iter().filter(|child| !new.cares_for(&child.name));
        let (refused, unasked): (Vec<_>, Vec<_>) = missing
            .cloned()
            .partition(|child| renewal.asked.contains(&child.name));
        let heard = new.established().is_some_and(|e| e.heard);
        let probing = new.requests.open().is_some() || !new.tasks.is_empty();
        let made = |child: &Arc<Child>| is_up(new, &child.name) || refused.contains(child);
        if !unasked.is_empty() {
            Step::Make(unasked)
        } else if !heard && !probing {
            Step::Probe
        } else if heard && children.iter().all(made) {
            Step::Linger
        } else {
            Step::Wait
        }
    }

    fn take_step(&mut self, now: Instant, id: IkeSaId, step: Step) {
        let established = self.sas.get(id).and_then(IkeSa::established);
        let Some(mut renewal) = established.and_then(|e| e.renewal.clone()) else {
            return;
        };
        match step {
            Step::Wait => {}
            Step::Make(children) => {
                renewal
                    .asked
                    .extend(children.iter().map(|c| c.name.clone()));
                let by = renewal.by;
                self.set_renewal(now, id, Some(renewal));
                self.with(now, by, |sa, _| {
                    for child in children {
                        sa.tasks
                            .push(Task::Child(ChildTask::new(child, None, None)));
                    }
                });
            }
            Step::Probe => {
                self.with(now, renewal.by, |sa, _| sa.tasks.push(Task::Liveness));
            }
            Step::Linger if renewal.close_at.is_none_or(|at| at <= now) => {
                renewal.close_at = Some(now + GRACE);
                self.set_renewal(now, id, Some(renewal));
            }
            Step::Linger => {}
            Step::Close => {
                self.with(now, id, |sa, cx| sa.close(cx, now, IkeFailure::Replaced));
            }
            Step::Fail => {
                self.with(now, id, |sa, _| {
                    if let Some(established) = sa.established_mut() {
                        established.renewal = None;
                        established.proof.renew_at = Some(now + AGAIN);
                    }
                });
            }
        }
    }

    /// A peer has made this IKE SA. What it had before goes, if the connection says so.
    pub(super) fn arrived(&mut self, now: Instant, id: IkeSaId) {
        self.keep_ike_quota(now, id);
        let Some(new) = self.sas.get(id) else {
            return;
        };
        let unique = new.connection.peer.unique;
        if !matches!(unique, Unique::Replace | Unique::No) {
            return;
        }
        let Some(ends) = self.sas.ends(new) else {
            return;
        };
        let (peer, begun) = (new.path.remote.ip(), new.begun);
        let before = |sa: &&IkeSa| sa.established().is_some_and(|e| e.since < begun);
        let family = self.sas.family(&ends).filter(|sa| sa.is_current());
        let old = family
            .filter(|sa| sa.id != id && same_ends(sa, new))
            .filter(before);
        let old: Vec<(IkeSaId, bool)> =
            old.map(|sa| (sa.id, sa.path.remote.ip() == peer)).collect();
        if unique == Unique::No {
            // The peer may have lost them, and does not say so: packets must not go there for long.
            old.iter().for_each(|(old, _)| self.probe(now, *old));
            return;
        }
        for (old, same_address) in old {
            if same_address {
                // It may be about to move its children: it shall not be interrupted.
                self.set_renewal(now, old, Some(Renewal::new(id, false)));
            } else {
                self.with(now, old, |sa, cx| sa.close(cx, now, IkeFailure::Replaced));
            }
        }
    }
}

impl Endpoint {
    /// For a connection that keeps what it has: the IKE SAs with the peer that is proving itself,
    /// from other addresses.
    pub(super) fn namesakes(&self, sa: &IkeSa) -> Vec<IkeSaId> {
        let Phase::AuthResponder(auth) = &sa.phase else {
            return Vec::new();
        };
        let keeps = sa.connection.peer.unique == Unique::Keep;
        let Some(proven) = auth.proven().filter(|_| keeps) else {
            return Vec::new();
        };
        // What it resumes goes in any case.
        let resumed = proven.resumed;
        self.sas
            .with_identities(&auth.local_id, &auth.peer.identity)
            .filter(|other| other.is_current() && Some(other.id) != resumed)
            .filter(|other| other.connection.name == sa.connection.name)
            .filter(|other| other.is_of_same_peer(sa))
            .filter(|other| other.path.remote.ip() != sa.path.remote.ip())
            .map(|other| other.id)
            .collect()
    }

    /// Asks the peers of some of these IKE SAs for a sign of life, those that have not given one for
    /// a while.
    pub(super) fn probe_silent(&mut self, now: Instant, mut among: Vec<IkeSaId>) {
        among.sort_unstable();
        among.dedup();
        let silent = |id: &IkeSaId| {
            let heard = self.sas.get(*id).map(|sa| sa.last_heard);
            heard.is_some_and(|heard| now.saturating_duration_since(heard) >= SILENCE)
        };
        let silent: Vec<IkeSaId> = among.into_iter().filter(silent).take(MOST_PROBED).collect();
        for id in silent {
            self.probe(now, id);
        }
    }

    /// Asks the peer of an IKE SA for a sign of life.
    pub(super) fn probe(&mut self, now: Instant, id: IkeSaId) {
        self.with(now, id, |sa, _| {
            if !sa.tasks.iter().any(|task| matches!(task, Task::Liveness)) {
                sa.tasks.push(Task::Liveness);
            }
        });
    }
}

/// The children that are up on an IKE SA, as the connection has them now.
fn children_of(sa: &IkeSa, connection: &Connection) -> Vec<Arc<Child>> {
    let wanted = |conf: &&Arc<Child>| {
        let mut children = sa.children.iter();
        children.any(|child| child.is_current() && child.info.child == conf.name)
    };
    connection.children.iter().filter(wanted).cloned().collect()
}
