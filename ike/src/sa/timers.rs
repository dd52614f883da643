//! Deadlines of an IKE SA and what happens at them.

use std::sync::Arc;
use std::time::Instant;

use crate::config::{Child, StartAction};
use crate::context::{Context, Waiting};
use crate::error::IkeFailure;
use crate::event::{Ask, ChildSaId};
use crate::exchange::datagrams::Datagrams;
use crate::exchange::retransmit::Step;
use crate::sa::established::{KEEPALIVE, Succession};
use crate::sa::task::{RekeyIkeTask, Task};
use crate::sa::{IkeSa, Phase, Request};
use crate::timer::{Deadline, TimerKind, earlier};

impl IkeSa {
    /// The next deadline, and what for.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let request = self
            .requests
            .open()
            .map(|open| (open.retransmit.due(), TimerKind::Retransmit));
        let phase = match &self.phase {
            Phase::Init(init) => {
                let at = init.give_up.into_iter().chain(init.due()).min();
                at.map(|at| (at, TimerKind::Retransmit))
            }
            Phase::AuthInitiator(auth) => auth.held_until().map(|at| (at, TimerKind::Retransmit)),
            Phase::HalfOpen(half_open) => Some((half_open.until, TimerKind::HalfOpen)),
            Phase::Lingering { until } => Some((*until, TimerKind::HalfOpen)),
            Phase::Established(_) => self.established_deadline(),
            _ => None,
        };
        let keepalive = self.keepalive_at.map(|at| (at, TimerKind::Keepalive));
        let fragments = self.fragmentation.deadline();
        let fragments = fragments.map(|at| (at, TimerKind::Fragments));
        let keepalive = earlier(keepalive, fragments);
        let request = earlier(request, self.claims_deadline());
        self.children
            .iter()
            .map(|child| child.deadline())
            .fold(earlier(request, earlier(phase, keepalive)), earlier)
    }

    fn established_deadline(&self) -> Option<Deadline> {
        let established = self.established()?;
        let over = established.deadline().map(|at| (at, TimerKind::IkeOver));
        if !established.is_current() {
            return over;
        }
        let again = self.tasks.deadline().map(|at| (at, TimerKind::TryAgain));
        let rekey = established.rekey_at.map(|at| (at, TimerKind::RekeyIke));
        let liveness = established.liveness_at.map(|at| (at, TimerKind::Liveness));
        let renew = established.proof.renew_at.map(|at| (at, TimerKind::Reauth));
        let renewed = established.renewal.as_ref().and_then(|r| r.close_at);
        let renewed = renewed.map(|at| (at, TimerKind::Retire));
        let ticket = established.resumable.ask_at;
        let renewed = earlier(renewed, ticket.map(|at| (at, TimerKind::Ticket)));
        let ages = earlier(over, earlier(renew, renewed));
        earlier(earlier(ages, again), earlier(rekey, liveness))
    }

    /// Does what is due.
    pub(crate) fn on_timeout(&mut self, cx: &mut Context, now: Instant) {
        self.on_own_timeout(cx, now);
        self.claims_timeout(cx, now);
    }

    //= rfc7296 2.23-9
    /// Does what is due, as far as it concerns the claim in front.
    pub(crate) fn on_own_timeout(&mut self, cx: &mut Context, now: Instant) {
        self.fragmentation.expire(now);
        if self
            .requests
            .open()
            .is_some_and(|open| open.retransmit.due() <= now)
        {
            self.retransmit(cx, now);
        }
        match &self.phase {
            Phase::Init(init) if init.give_up.is_some_and(|at| at <= now) => self.give_up(cx, now),
            Phase::Init(init) if init.due().is_some_and(|at| at <= now) => {
                if init.is_ticket_ignored() {
                    self.give_up(cx, now);
                    return;
                }
                let step = self.repeat_init(cx, now);
                if step != Some(Step::Again) {
                    self.give_up(cx, now);
                }
            }
            Phase::AuthInitiator(auth) if auth.held_until().is_some_and(|at| at <= now) => {
                self.prove(cx, now);
            }
            Phase::HalfOpen(half_open) if half_open.until <= now => self.forget(cx),
            Phase::Lingering { until } if *until <= now => self.forget(cx),
            Phase::Established(_) => self.on_established_timeout(cx, now),
            _ => {}
        }
        if self.keepalive_at.is_some_and(|at| at <= now) && !self.is_gone() {
            self.keepalive_at = Some(now + KEEPALIVE);
            cx.transmit(self.path, vec![0xff]);
        }
    }

    //= rfc7296 2.1-6 2.1-7 2.2-1
    //= rfc7383 2.5.2-4
    fn retransmit(&mut self, cx: &mut Context, now: Instant) {
        if self.shrink_request(cx, now) {
            return;
        }
        let Some(open) = self.requests.open_mut() else {
            return;
        };
        match open.retransmit.step(now, &cx.config.settings, &mut *cx.rng) {
            Step::Again => {
                let tries = open.retransmit.tries();
                let datagrams = open.datagrams.clone();
                self.repeat_by_turns(cx, &datagrams);
                self.tell_repeat(cx, now);
                self.search_path(cx);
                self.unanswered(cx, tries);
            }
            Step::Dead { .. } => self.give_up(cx, now),
        }
    }

    /// Sends the open request again. The path by which it went may lead nowhere: another one, if
    /// there is one, takes every second turn.
    fn repeat_by_turns(&mut self, cx: &mut Context, datagrams: &Datagrams) {
        let Some(open) = self.requests.open() else {
            return;
        };
        let odd = open.retransmit.is_odd();
        let other = self.other_path(&open.what);
        let path = other.filter(|_| odd).unwrap_or(self.path);
        if other.is_some() {
            self.note_several();
        }
        cx.transmit_all(path, datagrams);
    }

    //= rfc7296 2.4-4
    /// The peer did not answer, or only with an error that anybody could have sent.
    fn give_up(&mut self, cx: &mut Context, now: Instant) {
        let (hint, dead) = match &self.phase {
            Phase::Init(init) => (init.hint.clone(), init.dead(now)),
            _ => (
                None,
                self.requests.open().map(|open| open.retransmit.dead(now)),
            ),
        };
        let reason = match (hint, dead) {
            _ if self.yield_contest(cx, now) => IkeFailure::Replaced,
            (Some(failure), _) => failure,
            (None, Some(Step::Dead { tries, after })) => IkeFailure::NoAnswer { tries, after },
            _ => IkeFailure::Expired,
        };
        if matches!(self.phase, Phase::AuthInitiator(_)) {
            self.requests.close();
            self.refuted(cx, now, reason);
        } else if self.presents_ticket() {
            self.fall_back(cx, now, reason.into());
        } else {
            self.end(cx, reason);
        }
    }

    //= rfc7296 2.8-2
    fn on_established_timeout(&mut self, cx: &mut Context, now: Instant) {
        self.child_timers(cx, now);
        self.tasks.ripen(now);
        let Some(established) = self.established_mut() else {
            return;
        };
        if established.deadline().is_some_and(|at| at <= now) {
            established.over_at = None;
            if established.closing.is_some() {
                // Even the delete was not answered.
                self.end(cx, IkeFailure::Expired);
            } else {
                let reason = match (&established.succession, established.sent_to) {
                    (Succession::Replaced, _) => IkeFailure::Replaced,
                    (_, Some(to)) => IkeFailure::Redirected { to },
                    (_, None) => IkeFailure::Expired,
                };
                self.close(cx, now, reason);
            }
            return;
        }
        if established.rekey_at.is_some_and(|at| at <= now) {
            established.rekey_at = None;
            if established.is_current() && self.is_unused() {
                self.close(cx, now, IkeFailure::Expired);
                return;
            }
            if self.is_current() {
                self.tasks.push(Task::RekeyIke(RekeyIkeTask::default()));
            }
        }
        self.check_proof(cx, now);
        self.check_ticket(now);
        self.check_liveness(cx, now);
    }

    /// Whether it is there for nothing: all Child SAs that it is for come when a packet asks for them, or
    /// when the peer does, and none is there. A new IKE SA comes as they do.
    fn is_unused(&self) -> bool {
        let children = &self.connection.children;
        let starts = |child: &Arc<Child>| child.start_action == StartAction::Start;
        let is_still = self.children.is_empty() && self.tasks.is_empty();
        is_still
            && self.requests.open().is_none()
            && self.in_work.is_none()
            && (!children.is_empty() || self.connection.generate.is_some())
            && !children.iter().any(starts)
    }

    /// Whether it is time to ask for a sign of life. What the data plane received counts too.
    fn check_liveness(&mut self, cx: &mut Context, now: Instant) {
        let Some(delay) = self.connection.dpd_delay else {
            self.check_unheard(now);
            return;
        };
        let last_heard = self.last_heard;
        let busy = self.requests.open().is_some();
        let Some(established) = self.established_mut() else {
            return;
        };
        if established.liveness_at.is_none_or(|at| at > now) {
            return;
        }
        let silent = now.saturating_duration_since(last_heard);
        if silent < delay || busy {
            // An open request finds out by itself.
            let again = if busy { now } else { last_heard };
            established.liveness_at = again.checked_add(delay);
            return;
        }
        established.liveness_at = now.checked_add(delay);
        let children: Vec<ChildSaId> = self.children.iter().map(|c| c.info.id).collect();
        if children.is_empty() {
            self.tasks.push(Task::Liveness);
        } else {
            cx.ask(Waiting::LastInbound(self.id), Ask::LastInbound(children));
        }
    }

    /// Even without a check of idle peers: one that never showed that it has our reply is asked
    /// once, since it may have nothing.
    fn check_unheard(&mut self, now: Instant) {
        let Some(established) = self.established_mut() else {
            return;
        };
        if established.liveness_at.is_some_and(|at| at <= now) {
            established.liveness_at = None;
            if !established.heard && established.is_current() {
                self.tasks.push(Task::Liveness);
            }
        }
    }

    /// The data plane's answer: time since the last packet of the peer.
    pub(crate) fn on_last_inbound(&mut self, now: Instant, last: Option<std::time::Duration>) {
        let Some(delay) = self.connection.dpd_delay else {
            return;
        };
        let idle = !self.tasks.iter().any(|task| matches!(task, Task::Liveness));
        let Some(established) = self.established_mut() else {
            return;
        };
        match last {
            Some(ago) if ago < delay => {
                established.liveness_at = now.checked_add(delay - ago);
            }
            _ if idle && established.is_current() => self.tasks.push(Task::Liveness),
            _ => {}
        }
    }

    //= rfc7296 1.3.2-2 2.2-2
    /// Begins the next thing to ask for, if nothing is open.
    pub(crate) fn run_tasks(&mut self, cx: &mut Context, now: Instant) {
        if self.requests.is_used_up() && self.established().is_some() {
            // Not even a delete can be sent any more; the peer finds out by itself.
            self.end(cx, IkeFailure::Expired);
        }
        while self.requests.next_id().is_some() {
            let Some(established) = self.established() else {
                return;
            };
            // An IKE SA that may yet lose against another one begins nothing, but for its end.
            let may_ask = established.closing.is_some() || established.is_current();
            if self.ask_owed(cx, now) || !may_ask {
                return;
            }
            match self.tasks.pop() {
                Some(Task::RekeyIke(task)) if self.in_work.is_some() => {
                    self.tasks.push_front(Task::RekeyIke(task));
                    return;
                }
                Some(task) => self.begin(cx, now, task),
                None => {
                    if let Some(task) = self.next_queue() {
                        self.begin(cx, now, Task::Child(task));
                    }
                    return;
                }
            }
        }
    }

    fn begin(&mut self, cx: &mut Context, now: Instant, task: Task) {
        match task {
            Task::Child(task) => self.ask_child(cx, now, task),
            Task::RekeyIke(task) => self.ask_rekey_ike(cx, now, task),
            Task::DeleteChild(id) => self.ask_delete_child(cx, now, id),
            Task::DeleteSpi(spi) => self.ask_delete_spi(cx, now, spi, Request::DeleteSpi),
            Task::DeleteIke => self.ask_delete_ike(cx, now),
            Task::Liveness => self.ask_liveness(cx, now),
            Task::InvalidSpi(spi) => self.ask_invalid_spi(cx, now, spi),
            Task::Token => self.ask_token(cx, now),
            Task::Ticket => self.ask_ticket(cx, now),
            Task::Redirect(to) => self.ask_redirect(cx, now, to),
        }
    }
}
