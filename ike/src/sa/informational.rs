//! INFORMATIONAL exchanges, RFC 7296 sections 1.4 and 2.4: deletes, errors, signs of life.

use std::time::Instant;

use crate::context::{Context, Loss};
use crate::error::IkeFailure;
use crate::event::{ChildSaId, EspSpi};
use crate::sa::child::ChildState;
use crate::sa::create_child::{MAX_TRIES, pause};
use crate::sa::established::Succession;
use crate::sa::payloads::Payloads;
use crate::sa::task::{Fate, Task};
use crate::sa::{IkeSa, Request};
use crate::wire::{Delete, ExchangeType, NotifyType, Payload};

impl IkeSa {
    //= rfc7296 1.4-4 2.21.4-8 2.25.2-6 3.10.1-2 4-5
    /// Takes a request; it is always answered.
    pub(crate) fn on_informational(
        &mut self,
        cx: &mut Context,
        now: Instant,
        payloads: &Payloads<'_>,
    ) {
        if payloads.deletes.contains(&Delete::Ike) {
            self.reply(cx, ExchangeType::INFORMATIONAL, &[]);
            self.on_ike_deleted(cx, now);
            return;
        }
        if let Some(reason) = self.fatal_notify(payloads) {
            self.reply(cx, ExchangeType::INFORMATIONAL, &[]);
            self.end_by_peer(cx, now, reason);
            return;
        }
        if let Some(established) = self.established_mut() {
            established.crash.learn(&payloads.notifies);
        }
        self.on_auth_lifetime(cx, now, payloads);
        let deleted: Vec<EspSpi> = payloads
            .deletes
            .iter()
            .filter_map(|delete| match delete {
                Delete::Esp(spis) => Some(spis.iter().copied()),
                _ => None,
            })
            .flatten()
            .collect();
        let ours: Vec<EspSpi> = deleted
            .into_iter()
            .filter_map(|spi| self.on_peer_deleted_child(cx, spi))
            .collect();
        let mut reply: Vec<Payload<'_>> = if ours.is_empty() {
            Vec::new()
        } else {
            vec![Payload::Delete(Delete::Esp(ours))]
        };
        reply.extend(self.on_move_request(cx, now, payloads));
        reply.extend(self.give_ticket(cx, now, payloads).map(Payload::Notify));
        self.reply(cx, ExchangeType::INFORMATIONAL, &reply);
        if let Some(notify) = payloads.notify(NotifyType::REDIRECT) {
            self.on_redirect(cx, now, notify);
        }
    }

    /// A notify after which the peer has no such IKE SA any more.
    fn fatal_notify(&self, payloads: &Payloads<'_>) -> Option<IkeFailure> {
        if payloads.has(NotifyType::AUTHENTICATION_FAILED) {
            let established = self.established()?;
            return Some(IkeFailure::WeAreNotProven {
                local: established.local_id.clone(),
                remote: Some(established.remote_id.clone()),
            });
        }
        let syntax = NotifyType::INVALID_SYNTAX;
        payloads.has(syntax).then_some(IkeFailure::Refused(syntax))
    }

    //= rfc7296 2.25.2-3 2.25.2-4
    /// The peer deleted the IKE SA. If it replaced it, the new one inherits the Child SAs, and a
    /// rekey of our own is forgotten (RFC 7296 section 2.8.2).
    fn on_ike_deleted(&mut self, cx: &mut Context, now: Instant) {
        self.yield_contest(cx, now);
        let reason = match self.established().map(|e| &e.succession) {
            Some(Succession::Replaced) => IkeFailure::Replaced,
            _ => IkeFailure::PeerDeleted,
        };
        self.end_by_peer(cx, now, reason);
    }

    //= rfc7296 1.4.1-2 1.4.1-3 1.4.1-4 1.4.1-5 2.25.1-4 2.25.1-5 2.25.1-6
    //= security S-38
    /// The peer deleted a Child SA, named by the SPI of packets to the peer. Returns the SPI of
    /// the other direction, which we delete in return.
    fn on_peer_deleted_child(&mut self, cx: &mut Context, spi_out: EspSpi) -> Option<EspSpi> {
        let child = self.children.iter().find(|c| c.info.spi_out == spi_out)?;
        let (id, spi_in) = (child.info.id, child.info.spi_in);
        let successor = child.rekeyed_by_peer;
        if let Some(task) = self.task_in_work().filter(|task| task.rekeys == Some(id)) {
            task.fate = task.fate.max(Fate::ClosedByPeer);
        }
        let crossing = matches!(
            self.requests.open().map(|open| &open.what),
            Some(Request::DeleteChild(ours)) if *ours == id
        );
        // The peer is done with the old one, so it is ready to receive on the new one.
        if let Some(successor) = successor {
            self.use_outbound(cx, successor);
        }
        self.note_unwanted(id);
        self.remove_child(cx, id, Loss::Closed);
        self.unmark_successor_of(id);
        (!crossing).then_some(spi_in)
    }

    /// A Child SA that was to replace another is gone: the other one goes on.
    fn unmark_successor_of(&mut self, gone: ChildSaId) {
        let replaced: Vec<ChildSaId> = self
            .children
            .iter()
            .filter_map(|c| c.info.replaces)
            .collect();
        for child in &mut self.children {
            if child.rekeyed_by_peer != Some(gone) {
                continue;
            }
            child.rekeyed_by_peer = None;
            // Unless a rekey of our own replaces it.
            if child.state == ChildState::Rekeyed && !replaced.contains(&child.info.id) {
                child.state = ChildState::Installed;
            }
        }
    }

    //= rfc7296 1.4.1-4
    /// The peer answered our delete of a Child SA.
    pub(crate) fn on_child_deleted(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: ChildSaId,
        payloads: &Payloads<'_>,
    ) {
        let deleted = |spi: EspSpi| {
            payloads
                .deletes
                .iter()
                .any(|delete| matches!(delete, Delete::Esp(spis) if spis.contains(&spi)))
        };
        if let Some(child) = self.child_mut(id)
            && child.deleted_unknown
            && child.delete_tries < MAX_TRIES
            && !deleted(child.info.spi_out)
        {
            // It is about to get our repeated reply that says that the Child SA is there.
            child.delete_tries += 1;
            let pause = pause(cx, child.delete_tries);
            self.tasks.push_later(now + pause, Task::DeleteChild(id));
            return;
        }
        self.remove_child(cx, id, Loss::Own);
    }

    //= rfc7296 1.4.1-2 2.4-8
    /// Tells the peer that a Child SA is gone.
    pub(crate) fn ask_delete_child(&mut self, cx: &mut Context, now: Instant, id: ChildSaId) {
        if let Some(child) = self.child_mut(id) {
            let spi_in = child.info.spi_in;
            child.deleted_unknown = child.unknown;
            self.ask_delete_spi(cx, now, spi_in, Request::DeleteChild(id));
        }
    }

    pub(crate) fn ask_delete_spi(
        &mut self,
        cx: &mut Context,
        now: Instant,
        spi_in: EspSpi,
        what: Request,
    ) {
        let delete = Payload::Delete(Delete::Esp(vec![spi_in]));
        self.request(cx, now, ExchangeType::INFORMATIONAL, &[delete], what);
    }

    //= rfc7296 1.4-2 2.4-9
    /// Tells the peer that the IKE SA is gone.
    pub(crate) fn ask_delete_ike(&mut self, cx: &mut Context, now: Instant) {
        let delete = Payload::Delete(Delete::Ike);
        self.request(
            cx,
            now,
            ExchangeType::INFORMATIONAL,
            &[delete],
            Request::DeleteIke,
        );
    }

    /// Asks the peer for a sign of life.
    pub(crate) fn ask_liveness(&mut self, cx: &mut Context, now: Instant) {
        let payloads = self.liveness_payloads();
        self.request(
            cx,
            now,
            ExchangeType::INFORMATIONAL,
            &payloads,
            Request::Liveness,
        );
    }
}
