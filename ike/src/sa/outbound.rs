//! When packets go out on a Child SA: as soon as the peer is ready to receive them, and no sooner.

use std::time::{Duration, Instant};

use crate::context::{Age, Context, Rival, Waiting};
use crate::error::ChildFailure;
use crate::event::{Ask, ChildSaId, DataPlaneRefusal, Event};
use crate::sa::child::{ChildSa, ChildState, words};
use crate::sa::established::{REPLACED_PATIENCE, Succession};
use crate::sa::task::Task;
use crate::sa::{IkeSa, Request, Side};

/// A replier uses the new SA of a rekey after this time even without a sign that the requester
/// has its reply: longer than a requester goes on asking, since all that it repeats may be lost.
pub(crate) const SWITCH_AFTER: Duration = Duration::from_secs(180);

impl IkeSa {
    /// Lets new packets use this SA.
    pub(crate) fn use_outbound(&mut self, cx: &mut Context, id: ChildSaId) {
        let replaced = |c: &ChildSa| c.info.replaces == Some(id) && c.outbound.is_none();
        if self.children.iter().any(replaced) {
            // A newer one is in use already.
            return;
        }
        let replacing = self.is_replacing(id);
        let closing = self.is_closing();
        let ike_rank = self.established().map(|e| e.rank.clone());
        let Some(child) = self.child_mut(id) else {
            return;
        };
        child.switch_at = None;
        // The peer may have closed the whole IKE SA already.
        if closing || child.state == ChildState::Deleting {
            return;
        }
        // Both ends made this child at once, and this one will go: packets stay where they can
        // stay.
        // Nor do they go back to an IKE SA whose place another one has taken.
        let ike_rank = ike_rank.unwrap_or_default();
        let beats = |rival: &Rival| rival.beats(child, &ike_rank, replacing);
        let lost = cx.rivals.iter().any(beats);
        child.held_back = lost || cx.has_rival(&child.info.child, Age::Newer);
        if child.held_back {
            return;
        }
        if let Some(outbound) = child.outbound.take() {
            cx.ask(Waiting::Outbound(id), Ask::UseOutbound(outbound));
        }
    }

    /// As replier, once the reply is out: the only SA of a child is used at once. In a rekey, or
    /// where both ends made the child at once and the other one is up, the requester may not be
    /// ready to receive, so we wait for a sign of it (RFC 7296 section 2.8).
    pub(crate) fn replied(&mut self, cx: &mut Context, now: Instant, id: ChildSaId) {
        let Some(child) = self.child_mut(id) else {
            return;
        };
        if child.state != ChildState::Installing {
            return;
        }
        child.state = ChildState::Installed;
        let stands_in = |rival: &Rival| rival.child.name == child.info.child;
        if child.info.replaces.is_none() && !cx.rivals.iter().any(stands_in) {
            self.use_outbound(cx, id);
        } else if child.outbound.is_some() {
            child.switch_at = Some(now + SWITCH_AFTER);
        }
    }

    /// The peer showed that it has our replies to all that it asked before, and so is ready to
    /// receive.
    pub(crate) fn replies_arrived(&mut self, cx: &mut Context) {
        let mut ready = Vec::new();
        let contested = self.contested();
        for child in &mut self.children {
            child.unknown = false;
            let waits = child.switch_at.is_some() && contested != Some(child.info.id);
            ready.extend(waits.then_some(child.info.id));
        }
        for id in ready {
            self.use_outbound(cx, id);
        }
    }

    /// Sends a request, which shows the peer that we have its reply about this Child SA.
    pub(crate) fn show_child(&mut self, id: ChildSaId) {
        if let Some(child) = self.child_mut(id) {
            child.shown = true;
        }
        let asks = self.tasks.iter().any(|task| matches!(task, Task::Liveness));
        if !asks {
            self.tasks.push(Task::Liveness);
        }
    }

    /// A Child SA that the peer made while a rekey of ours was open for the same old one. If ours
    /// wins, the peer may not even install its own, so nothing is sent on that until it is decided.
    pub(crate) fn contested(&self) -> Option<ChildSaId> {
        match self.requests.open().map(|open| &open.what) {
            Some(Request::Child(request)) => request.contest.as_ref().map(|(by, _)| *by),
            _ => None,
        }
    }

    /// The peer repeated a request, so it lacks our reply, and is not ready to receive.
    pub(crate) fn reply_was_lost(&mut self, now: Instant) {
        for child in &mut self.children {
            if child.unknown && child.switch_at.is_some() {
                child.switch_at = Some(now + SWITCH_AFTER);
            }
        }
        let Some(established) = self.established_mut() else {
            return;
        };
        if established.succession == Succession::Replaced && established.closing.is_none() {
            established.over_at = Some(now + REPLACED_PATIENCE);
        }
        established.crossing |= established.put_off;
    }

    /// The data plane opened a packet of this Child SA: the peer knows it, and uses it.
    pub(crate) fn on_inbound_used(&mut self, cx: &mut Context, id: ChildSaId) {
        if let Some(child) = self.child_mut(id) {
            child.unknown = false;
        }
        self.use_outbound(cx, id);
    }

    /// The data plane's answer about the outbound half.
    pub(crate) fn on_outbound(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: ChildSaId,
        result: Result<(), DataPlaneRefusal>,
    ) {
        let Some(child) = self.child_mut(id) else {
            return;
        };
        let (info, side) = (child.info.clone(), child.side);
        child.up |= result.is_ok();
        match result {
            Ok(()) => {
                let replaces = info.replaces;
                cx.event(Event::ChildUp(Box::new(info)));
                if let (Some(old), Side::Requester) = (replaces, side) {
                    self.delete_child(old);
                }
                self.adapt_child(now, id);
            }
            Err(refusal) => {
                self.enough_of(&info.child);
                self.child_failed(cx, &info.child, ChildFailure::DataPlane(words(refusal)));
                self.delete_child(id);
            }
        }
    }
}
