//! Rekeying the IKE SA, RFC 7296 sections 1.3.2, 2.8.2 and 2.18, from both sides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::context::{Context, Signal};
use crate::crypto::ke::KeyExchange;
use crate::crypto::secret::Secret;
use crate::error::{Fault, IkeFailure};
use crate::event::{IkeSaId, IkeSpi};
use crate::exchange::windows::{ReplyWindow, RequestWindow};
use crate::keys::IkeKeys;
use crate::proposal::{ChosenIke, IkeProposal, check_ike_answer, choose_ike};
use crate::sa::create_child::{MAX_TRIES, REKEY_AGAIN, ke_payload, pause};
use crate::sa::create_child_reply::exchange_keys;
use crate::sa::doubt::Doubt;
use crate::sa::established::{Established, REPLACED_PATIENCE, Succession};
use crate::sa::path::Place;
use crate::sa::payloads::Payloads;
use crate::sa::protect::Protection;
use crate::sa::task::{RekeyIkeTask, Task, Tasks};
use crate::sa::{IkeSa, Phase, Request, Role};
use crate::wire::{ExchangeType, KeMethod, NotifyType, Payload, Proposal};

/// The peer's delete of a new IKE SA that lost is waited for this long.
const LOST_PATIENCE: Duration = Duration::from_secs(10);

/// A request for a new IKE SA.
pub(crate) struct RekeyIkeRequest {
    task: RekeyIkeTask,
    spi: IkeSpi,
    ni: Vec<u8>,
    ke: KeyExchange,
    proposals: Vec<Proposal>,
}

/// What makes a new IKE SA out of an old one.
struct Material<'a> {
    role: Role,
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    ni: &'a [u8],
    nr: &'a [u8],
    shared: Secret,
    chosen: &'a ChosenIke,
}

impl IkeSa {
    /// The SPI that we have chosen for the IKE SA that is to replace this one. The peer may have made
    /// that already.
    pub(crate) fn next_spi(&self) -> Option<IkeSpi> {
        match self.requests.open().map(|open| &open.what) {
            Some(Request::RekeyIke(request)) => Some(request.spi),
            _ => None,
        }
    }

    //= rfc7296 1.3.2-1 2.18-1 2.18-2 3.3.6-8
    /// Sends the request, unless the IKE SA is being replaced or closed already.
    pub(crate) fn ask_rekey_ike(&mut self, cx: &mut Context, now: Instant, task: RekeyIkeTask) {
        let configured = &self.connection.ike_proposals;
        // What made this IKE SA needs no second try, unless the configuration has changed.
        let current = self
            .protection
            .as_ref()
            .map(|protection| protection.keys.algorithms().ke)
            .filter(|method| configured.iter().any(|p| p.ke.contains(method)));
        let first = || configured.iter().find_map(|p| p.ke.first().copied());
        let retry = task.methods.last().copied();
        let Some(method) = retry.or(current).or_else(first) else {
            return;
        };
        let Ok(ke) = KeyExchange::generate(method, &mut *cx.rng) else {
            return;
        };
        let spi = cx.new_ike_spi();
        let request = RekeyIkeRequest {
            task,
            spi,
            ni: cx.nonce(),
            ke,
            proposals: IkeProposal::to_wire(configured, &spi.0.to_be_bytes()),
        };
        let payloads = [
            Payload::Sa(request.proposals.clone()),
            Payload::Nonce(&request.ni),
            ke_payload(&request.ke),
        ];
        let exchange = ExchangeType::CREATE_CHILD_SA;
        if let Some(datagrams) = self.seal_request(cx, exchange, &payloads) {
            self.send_request(cx, now, datagrams, Request::RekeyIke(Box::new(request)));
        }
    }

    /// Takes the answer.
    pub(crate) fn on_rekey_ike_reply(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: RekeyIkeRequest,
        payloads: &Payloads<'_>,
    ) {
        if payloads.sa.is_none() {
            self.on_rekey_ike_refused(cx, now, request, payloads);
            return;
        }
        match self.rekeyed(cx, now, &request, payloads) {
            Some(new) => self.succeed(cx, now, new),
            None => self.close(
                cx,
                now,
                IkeFailure::Protocol("the answer to an IKE rekey is not one"),
            ),
        }
    }

    /// The new IKE SA that an answer makes; `None` if it is not one to our request.
    fn rekeyed(
        &self,
        cx: &mut Context,
        now: Instant,
        request: &RekeyIkeRequest,
        payloads: &Payloads<'_>,
    ) -> Option<IkeSa> {
        let chosen = check_ike_answer(&request.proposals, payloads.sa.as_ref()?).ok()?;
        let theirs = payloads.ke.filter(|ke| ke.method == chosen.alg.ke)?;
        if chosen.alg.ke != request.ke.method() {
            return None;
        }
        let material = Material {
            role: Role::Initiator,
            spi_i: request.spi,
            spi_r: ike_spi(&chosen)?,
            ni: &request.ni,
            nr: payloads.nonce?,
            shared: request.ke.agree(theirs.data).ok()?,
            chosen: &chosen,
        };
        let mut new = self.successor(cx, now, &material)?;
        if let Some(established) = new.established_mut() {
            established.crash.learn(&payloads.notifies);
        }
        if new.token(cx).is_some() {
            new.tasks.push(Task::Token);
        }
        Some(new)
    }

    //= rfc7296 2.8.2-1 2.8-4
    //= security S-18
    /// Our rekey was granted: the new IKE SA takes over, unless the peer made one, too, and ours
    /// is the one with the lowest of the four nonces.
    fn succeed(&mut self, cx: &mut Context, now: Instant, mut new: IkeSa) {
        if self.is_closing() {
            // The peer has moved its Child SAs to the new one.
            new.close(cx, now, IkeFailure::Closed);
            cx.signals.push(Signal::NewSa(Box::new(new)));
            return;
        }
        let our_lowest = new.established().map(|e| e.lowest_nonce.clone());
        let contest = self.established().map(|e| e.succession.clone());
        if let Some(Succession::Contested { by, lowest_nonce }) = contest {
            if our_lowest < Some(lowest_nonce) {
                // The peer deletes the old one; we delete our new one.
                self.hand_over(cx, now, by);
                new.close(cx, now, IkeFailure::Replaced);
                cx.signals.push(Signal::NewSa(Box::new(new)));
                return;
            }
            cx.signals.push(Signal::Lost(by));
        }
        let to = new.id;
        cx.signals.push(Signal::NewSa(Box::new(new)));
        self.hand_over(cx, now, to);
        self.close(cx, now, IkeFailure::Replaced);
    }

    fn on_rekey_ike_refused(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: RekeyIkeRequest,
        payloads: &Payloads<'_>,
    ) {
        if self.yield_contest(cx, now) {
            // The peer was done with its rekey before it saw ours.
            return;
        }
        let mut task = request.task;
        match (payloads.error(), payloads.wanted_ke()) {
            (_, Some(method)) if self.may_retry_ike(&request.ke, &task, method) => {
                task.methods.push(request.ke.method());
                task.methods.push(method);
                self.tasks.push_front(Task::RekeyIke(task));
            }
            (Some(NotifyType::TEMPORARY_FAILURE), _) if task.tries < MAX_TRIES => {
                task.tries += 1;
                let pause = pause(cx, task.tries);
                self.tasks.push_later(now + pause, Task::RekeyIke(task));
            }
            _ => {
                if let Some(established) = self.established_mut() {
                    established.rekey_at = Some(now + REKEY_AGAIN);
                }
            }
        }
    }

    fn may_retry_ike(&self, used: &KeyExchange, task: &RekeyIkeTask, method: KeMethod) -> bool {
        method != used.method()
            && !task.methods.contains(&method)
            && self
                .connection
                .ike_proposals
                .iter()
                .any(|proposal| proposal.ke.contains(&method))
    }

    //= rfc7296 2.8.2-2 2.18-1 2.25-1 2.25.1-7 2.25.2-1 2.25.2-2
    //= security S-19
    /// Takes a request for a new IKE SA.
    pub(crate) fn on_rekey_ike_request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        payloads: &Payloads<'_>,
    ) -> Result<(), Fault> {
        let own = self.requests.open().map(|open| &open.what);
        let contested = matches!(own, Some(Request::RekeyIke(_)));
        // RFC 7296 section 2.25: not while a Child SA changes, or while we close the IKE SA.
        let busy = !matches!(
            own,
            None | Some(
                Request::RekeyIke(_) | Request::Liveness | Request::Notice | Request::Ticket
            )
        );
        if busy || !self.is_current() {
            return Err(Fault::TemporaryFailure);
        }
        let (Some(offered), Some(ni)) = (&payloads.sa, payloads.nonce) else {
            return Err(Fault::InvalidSyntax("no SA or Nonce in an IKE rekey"));
        };
        let prefer = payloads.ke.map(|ke| ke.method);
        let chosen = choose_ike(offered, &self.connection.ike_proposals, prefer)
            .ok_or(Fault::NoProposalChosen)?;
        let spi_i = ike_spi(&chosen).ok_or(Fault::InvalidSyntax("no SPI in an IKE rekey"))?;
        let (ours, shared) = exchange_keys(cx, payloads, chosen.alg.ke)?;
        let (nr, spi_r) = (cx.nonce(), cx.new_ike_spi());
        let material = Material {
            role: Role::Responder,
            spi_i,
            spi_r,
            ni,
            nr: &nr,
            shared,
            chosen: &chosen,
        };
        let mut new = self
            .successor(cx, now, &material)
            .ok_or(Fault::NoProposalChosen)?;
        let answer = chosen.answer(&spi_r.0.to_be_bytes());
        let mut reply = vec![
            Payload::Sa(vec![answer]),
            Payload::Nonce(&nr),
            ke_payload(&ours),
        ];
        reply.extend(new.token(cx).map(Payload::Notify));
        reply.extend(new.give_ticket(cx, now, payloads).map(Payload::Notify));
        self.reply(cx, ExchangeType::CREATE_CHILD_SA, &reply);
        self.replaced_by(cx, now, new, contested);
        Ok(())
    }

    //= rfc7296 2.8.2-1 2.25.2-1
    /// The peer made a new IKE SA. It takes over, unless a rekey of our own is open: then it is
    /// decided by the nonces once that is answered.
    fn replaced_by(&mut self, cx: &mut Context, now: Instant, mut new: IkeSa, contested: bool) {
        let to = new.id;
        if !contested {
            cx.signals.push(Signal::NewSa(Box::new(new)));
            self.hand_over(cx, now, to);
            return;
        }
        if let (Some(established), Some(new)) = (self.established_mut(), new.established_mut()) {
            established.succession = Succession::Contested {
                by: to,
                lowest_nonce: new.lowest_nonce.clone(),
            };
            new.succession = Succession::Undecided;
        }
        cx.signals.push(Signal::NewSa(Box::new(new)));
    }

    //= rfc7296 1.4-3
    /// Gives Child SAs, and what is left to ask about them, to the new IKE SA. Only the deletion
    /// of this one is left; if the peer does not see to that, we do.
    pub(crate) fn hand_over(&mut self, cx: &mut Context, now: Instant, to: IkeSaId) {
        cx.signals.push(Signal::Adopt {
            from: self.id,
            to,
            children: std::mem::take(&mut self.children),
            tasks: std::mem::take(&mut self.tasks),
            place: Box::new(self.place()),
        });
        self.keepalive_at = None;
        self.void_ticket(cx);
        if let Some(established) = self.established_mut() {
            established.succession = Succession::Replaced;
            established.over_at = Some(now + REPLACED_PATIENCE);
        }
    }

    /// The peer is done with this IKE SA, or lost it. If it made a new one while a rekey of ours is
    /// open, it decided for that one, which inherits the Child SAs. Says whether it was so.
    pub(crate) fn yield_contest(&mut self, cx: &mut Context, now: Instant) -> bool {
        let contest = self.established().map(|e| e.succession.clone());
        let Some(Succession::Contested { by, .. }) = contest else {
            return false;
        };
        self.hand_over(cx, now, by);
        true
    }

    //= rfc7296 1.4-3
    /// Takes Child SAs over from the IKE SA that this one replaces.
    pub(crate) fn adopt(
        &mut self,
        cx: &mut Context,
        mut children: Vec<crate::sa::child::ChildSa>,
        tasks: Tasks,
        place: Place,
    ) {
        for child in &mut children {
            child.info.ike = self.id;
            if let Some(outbound) = &mut child.outbound {
                outbound.info.ike = self.id;
            }
        }
        self.children.append(&mut children);
        self.take_over_place(cx, place);
        self.tasks.adopt(tasks);
        if let Some(established) = self.established_mut() {
            established.succession = Succession::None;
        }
        self.want_ticket();
        self.announce(cx, true);
    }

    /// It lost against another rekey of the same IKE SA. The peer, who made it, deletes it, or
    /// will never know it if our reply was lost; if it does not, we do.
    pub(crate) fn lose(&mut self, cx: &mut Context, now: Instant) {
        self.void_ticket(cx);
        if let Some(established) = self.established_mut() {
            established.succession = Succession::Replaced;
            established.over_at = Some(now + LOST_PATIENCE);
        }
        self.keepalive_at = None;
    }

    //= rfc7296 2.18-3
    fn successor(&self, cx: &mut Context, now: Instant, material: &Material<'_>) -> Option<IkeSa> {
        let old = self.established()?;
        let keys = IkeKeys::rekey(
            &self.protection.as_ref()?.keys,
            &material.chosen.alg,
            material.ni,
            material.nr,
            &material.shared,
            material.spi_i,
            material.spi_r,
        )
        .ok()?;
        let lowest_nonce = material.ni.min(material.nr).to_vec();
        let mut established = Established::successor(old, now, lowest_nonce);
        if material.role == Role::Responder {
            established.doubt = Doubt::of_replier();
        }
        let mut new = Self {
            id: cx.new_ike_id(),
            role: material.role,
            spi_i: material.spi_i,
            spi_r: material.spi_r,
            path: self.path,
            reply_path: self.path,
            nat: self.nat,
            connection: Arc::clone(&self.connection),
            phase: Phase::Gone,
            protection: Some(Protection::new(keys, material.role).ok()?),
            requests: RequestWindow::new(0),
            replies: ReplyWindow::new(0),
            creations: self.creations.clone(),
            asked: self.asked.clone(),
            in_work: None,
            fragmentation: self.fragmentation.successor(),
            tasks: Tasks::default(),
            children: Vec::new(),
            alone: false,
            begun: now,
            last_heard: now,
            keepalive_at: None,
            mobility: self.mobility.inherit(),
            claims: None,
        };
        new.establish(cx, now, established);
        Some(new)
    }
}

/// The peer's SPI in a rekey.
fn ike_spi(chosen: &ChosenIke) -> Option<IkeSpi> {
    let octets = <[u8; 8]>::try_from(chosen.spi.as_slice()).ok()?;
    let spi = u64::from_be_bytes(octets);
    (spi != 0).then_some(IkeSpi(spi))
}
