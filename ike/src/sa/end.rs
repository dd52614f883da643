//! The end of an IKE SA, whatever the reason.

use std::time::{Duration, Instant};

use crate::context::{Context, Loss, Signal};
use crate::error::IkeFailure;
use crate::event::{ChildSaId, Event};
use crate::sa::established::Succession;
use crate::sa::{IkeSa, Phase, Request};
use crate::wire::{ExchangeType, Notify, NotifyType, Payload};

/// A peer that did not get our last answer can ask again this long.
pub(crate) const LINGER: Duration = Duration::from_secs(30);

impl IkeSa {
    /// Ends the IKE SA: its Child SAs leave the data plane, and the operator is told why.
    pub(crate) fn end(&mut self, cx: &mut Context, reason: IkeFailure) {
        let loss = match reason {
            IkeFailure::PeerDeleted => Loss::Closed,
            // A peer says that it has forgotten us by its INITIAL_CONTACT.
            IkeFailure::NoAnswer { .. }
            | IkeFailure::PeerCrashed
            | IkeFailure::Replaced
            | IkeFailure::Resumed => Loss::Dead,
            _ => Loss::Own,
        };
        let closing = self.established().and_then(|e| e.closing.clone());
        let first = closing.as_ref().unwrap_or(&reason);
        let expired = loss == Loss::Dead || *first == IkeFailure::Expired;
        self.settle_tickets(cx, &reason);
        self.report(cx, reason);
        let children: Vec<ChildSaId> = self.children.iter().map(|c| c.info.id).collect();
        for id in children.into_iter().filter(|_| expired) {
            self.take_out(cx, id, true);
        }
        self.forget_for(cx, loss);
    }

    /// The peer ended it: as [`end`](Self::end), but our answer can still be repeated.
    pub(crate) fn end_by_peer(&mut self, cx: &mut Context, now: Instant, reason: IkeFailure) {
        self.end(cx, reason);
        self.keepalive_at = None;
        self.phase = Phase::Lingering {
            until: now + LINGER,
        };
    }

    /// Ends it without a word.
    pub(crate) fn forget(&mut self, cx: &mut Context) {
        self.forget_for(cx, Loss::Own);
    }

    fn forget_for(&mut self, cx: &mut Context, loss: Loss) {
        let children: Vec<ChildSaId> = self.children.iter().map(|c| c.info.id).collect();
        for id in children {
            self.remove_child(cx, id, loss);
        }
        if let Some(Succession::Contested { by, .. }) = self.established().map(|e| &e.succession) {
            // It will never be decided.
            cx.signals.push(Signal::Lost(*by));
        }
        if !matches!(self.phase, Phase::Lingering { .. } | Phase::Gone) {
            cx.signals.push(Signal::SaEnded {
                connection: self.connection.name.clone(),
                peer: self.peer(),
            });
        }
        self.tasks.clear();
        self.requests.close();
        self.claims = None;
        self.in_work = None;
        self.phase = Phase::Gone;
    }

    pub(crate) fn report(&mut self, cx: &mut Context, reason: IkeFailure) {
        match &self.phase {
            Phase::Established(established) => {
                // What ended it first is what the operator should read.
                let reason = established.closing.clone().unwrap_or(reason);
                if !established.announced {
                    return;
                }
                cx.event(Event::IkeDown {
                    id: self.id,
                    connection: Some(self.connection.name.clone()),
                    reason,
                });
            }
            Phase::Lingering { .. } | Phase::Gone => {}
            phase => cx.event(Event::IkeFailed {
                // Before a peer's identity is accepted, the connection is only a guess.
                connection: match phase {
                    Phase::HalfOpen(_) => None,
                    _ => Some(self.connection.name.clone()),
                },
                path: self.path,
                reason,
            }),
        }
    }

    //= rfc7296 2.21.2-1
    //= security S-31
    /// As responder in IKE_AUTH: answers AUTHENTICATION_FAILED.
    pub(crate) fn refuse(&mut self, cx: &mut Context, now: Instant, reason: IkeFailure) {
        self.refuse_with(
            cx,
            now,
            reason,
            Notify::bare(NotifyType::AUTHENTICATION_FAILED),
        );
    }

    /// As responder in IKE_AUTH: answers with this notify, and keeps the answer for a while.
    pub(crate) fn refuse_with(
        &mut self,
        cx: &mut Context,
        now: Instant,
        reason: IkeFailure,
        notify: Notify<'_>,
    ) {
        self.report(cx, reason);
        self.phase = Phase::Lingering {
            until: now + LINGER,
        };
        self.reply_notify(cx, ExchangeType::IKE_AUTH, notify);
    }

    /// As initiator in IKE_AUTH, after the reply: the responder believes that the IKE SA is up,
    /// so it is told that it failed to prove itself (RFC 7296 section 2.21.2).
    pub(crate) fn reject(&mut self, cx: &mut Context, now: Instant, reason: IkeFailure) {
        let notify = Notify::bare(NotifyType::AUTHENTICATION_FAILED);
        self.request(
            cx,
            now,
            ExchangeType::INFORMATIONAL,
            &[Payload::Notify(notify)],
            Request::DeleteIke,
        );
        self.refuted(cx, now, reason);
    }
}
