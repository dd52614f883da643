//! CREATE_CHILD_SA for a Child SA, as requester: a new one or a rekey (RFC 7296 sections 1.3.1
//! and 1.3.3).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::context::{Context, Loss};
use crate::crypto::ke::KeyExchange;
use crate::crypto::secret::Secret;
use crate::error::{ChildFailure, IkeFailure};
use crate::event::{ChildSaId, Event, Step};
use crate::proposal::ChildExchange;
use crate::sa::child::{Agreed, ChildSa, ChildState};
use crate::sa::negotiate::{Offer, Purpose};
use crate::sa::payloads::Payloads;
use crate::sa::queues::new_spi;
use crate::sa::task::{ChildTask, Fate, Task};
use crate::sa::{IkeSa, Request, Side};
use crate::timer::jittered;
use crate::wire::{ExchangeType, Ke, KeMethod, Notify, NotifyType, Payload};

/// How often a peer can put us off before its state counts as broken (RFC 7296 section 2.25):
/// with the pauses below, for several minutes.
pub(crate) const MAX_TRIES: u32 = 8;
/// A failed rekey is tried again after this time.
pub(crate) const REKEY_AGAIN: Duration = Duration::from_secs(60);

/// A request for a Child SA.
pub(crate) struct ChildRequest {
    /// What its Child SA will be called.
    id: ChildSaId,
    pub(crate) task: ChildTask,
    /// The peer rekeyed the same Child SA meanwhile: its new one, and the lower nonce of that.
    pub(crate) contest: Option<(ChildSaId, Vec<u8>)>,
    /// When it was sent, the peer may not have known the Child SA that it rekeys.
    unknown: bool,
    /// The queue of the Child SA that it rekeys, as in [`ChildSaInfo`](crate::event::ChildSaInfo).
    queue: u16,
    offer: Offer,
    ni: Vec<u8>,
    ke: Option<KeyExchange>,
}

/// What the keys of a new Child SA come from, beside the answer.
pub(crate) struct Answered<'a> {
    /// What the Child SA is called, if it has a name yet.
    pub(crate) id: Option<ChildSaId>,
    pub(crate) ni: Vec<u8>,
    pub(crate) nr: Vec<u8>,
    pub(crate) ke: Option<&'a KeyExchange>,
    pub(crate) replaces: Option<ChildSaId>,
    pub(crate) queue: u16,
}

//= rfc7296 2.25-2
/// How long to wait after the peer put us off for the `tries`-th time.
pub(crate) fn pause(cx: &mut Context, tries: u32) -> Duration {
    let longest = Duration::from_millis(500) * 2u32.pow(tries.min(7));
    // At least half of it, at random, so that two ends that put each other off fall out of step.
    jittered(longest, 50, &mut *cx.rng)
}

impl IkeSa {
    //= rfc7296 1.3-1 1.3-2 2.8-3 2.9.2-2 3.4-2 3.4-3
    //= security S-24
    /// Sends the request, unless what it is about has changed.
    pub(crate) fn ask_child(&mut self, cx: &mut Context, now: Instant, task: ChildTask) {
        let queue = self.queue_to_ask(&task);
        let spi_in = new_spi(cx, &task.conf, queue);
        let (rekeys, purpose) = match task.rekeys.map(|id| self.child(id)) {
            None if task.additional => match self.pattern(&task.conf.name) {
                Some(pattern) if self.lacks_queue(&task.conf) => {
                    (None, Purpose::Rekey(&pattern.info))
                }
                _ => return,
            },
            None => (None, task.purpose()),
            Some(Some(old))
                if old.state == ChildState::Installed && old.rekeyed_by_peer.is_none() =>
            {
                let purpose = match old.reselect {
                    true => Purpose::All,
                    false => Purpose::Rekey(&old.info),
                };
                (Some(old.info.spi_in), purpose)
            }
            Some(_) => return,
        };
        let first_method = || {
            task.conf
                .esp_proposals
                .iter()
                .find_map(|p| p.ke.first().copied())
        };
        // The one that the peer chose for the IKE SA is the one that it will most likely choose again.
        let current = self.protection.as_ref().map(|p| p.keys.algorithms().ke);
        let proposals = &task.conf.esp_proposals;
        let current = current.filter(|ke| proposals.iter().any(|p| p.ke.contains(ke)));
        let retry = task.methods.last().copied();
        let method = retry.or(current).or_else(first_method);
        let ke = match method.map(|method| KeyExchange::generate(method, &mut *cx.rng)) {
            Some(Ok(ke)) => Some(ke),
            Some(Err(_)) => {
                self.enough_of(&task.conf.name);
                self.child_failed(cx, &task.conf.name, ChildFailure::NoProposalChosen);
                return;
            }
            None => None,
        };
        let exchange = ChildExchange::CreateChildSa(method);
        let offer = Offer::new(Arc::clone(&task.conf), purpose, self.path, spi_in, exchange);
        let request = ChildRequest {
            id: cx.new_child_id(),
            contest: None,
            unknown: self.may_be_unknown(task.rekeys),
            queue,
            task,
            offer,
            ni: cx.nonce(),
            ke,
        };
        let payloads = request.payloads(rekeys);
        let exchange = ExchangeType::CREATE_CHILD_SA;
        let Some(datagrams) = self.seal_request(cx, exchange, &payloads) else {
            return;
        };
        drop(payloads);
        let asked = Step::Asked {
            id: request.id,
            child: request.task.conf.name.clone(),
            spi_in,
        };
        let is_new = rekeys.is_none() && !request.task.additional;
        self.send_request(cx, now, datagrams, Request::Child(Box::new(request)));
        if is_new {
            self.tell_step(cx, asked);
        }
    }

    //= rfc7296 1.3.1-2 3.10.1-1
    /// Takes the answer.
    pub(crate) fn on_child_reply(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: ChildRequest,
        payloads: &Payloads<'_>,
    ) {
        let (Some(_), Some(nr), None) = (&payloads.sa, payloads.nonce, payloads.error()) else {
            if payloads.sa.is_some() {
                // Whatever went wrong there, the peer may have the Child SA.
                self.tasks.push(Task::DeleteSpi(request.offer.spi_in));
            }
            self.on_child_refused(cx, now, request, payloads);
            return;
        };
        if request.task.fate == Fate::Unwanted {
            self.tasks.push(Task::DeleteSpi(request.offer.spi_in));
            return;
        }
        let answered = Answered {
            id: Some(request.id),
            ni: request.ni.clone(),
            nr: nr.to_vec(),
            ke: request.ke.as_ref(),
            replaces: request.task.rekeys,
            // The peer may have made another one meanwhile.
            queue: match request.task.additional {
                true => self.free_queue(&request.task.conf),
                false => request.queue,
            },
        };
        if self.lost_contest(&request, &answered) {
            self.tasks.push(Task::DeleteSpi(request.offer.spi_in));
            if let Some((by, _)) = request.contest {
                self.use_known(cx, by);
            }
            return;
        }
        if let Err(failure) = self.accept_child(cx, now, &request.offer, payloads, answered) {
            self.tasks.push(Task::DeleteSpi(request.offer.spi_in));
            if request.task.additional {
                self.enough_of(&request.task.conf.name);
            }
            self.child_failed(cx, &request.task.conf.name, failure);
            self.rekey_again(now, request.task.rekeys);
        }
    }

    //= rfc7296 2.8.1-3 2.25.1-2
    //= security S-18
    /// Both ends rekeyed the same Child SA. The new one that was made with the lowest of the four
    /// nonces goes, and whoever made it deletes it; whoever made the other deletes the old one.
    fn lost_contest(&mut self, request: &ChildRequest, answered: &Answered<'_>) -> bool {
        let Some((by, lowest_nonce)) = request.contest.as_ref() else {
            return false;
        };
        // If the peer has deleted its new one already, ours is the one left, unless there was time
        // for yet another rekey: then what came of that stays.
        let name = &request.task.conf.name;
        let same = |c: &ChildSa| c.info.child == *name && c.info.queue == request.queue;
        let stays = |c: &ChildSa| c.is_current() && same(c);
        let mut others = self.children.iter();
        let lost = (&answered.ni).min(&answered.nr) < lowest_nonce
            && others.any(|c| stays(c) && Some(c.info.id) != request.task.rekeys);
        let gone = if lost { request.task.rekeys } else { Some(*by) };
        if let Some(child) = gone.and_then(|id| self.child_mut(id)) {
            // The peer deletes it; until then it only receives.
            child.state = ChildState::Rekeyed;
            if !lost {
                child.switch_at = None;
                child.outbound = None;
            }
        }
        lost
    }

    //= security S-17
    //= rfc7296 2.8.1-2 2.9.2-1
    /// Checks the answer to an offer and stages what was agreed.
    ///
    /// # Errors
    /// If the answer is not one to our offer, or not what we want. The peer believes then that
    /// the Child SA is up.
    pub(crate) fn accept_child(
        &mut self,
        cx: &mut Context,
        now: Instant,
        offer: &Offer,
        payloads: &Payloads<'_>,
        answered: Answered<'_>,
    ) -> Result<(), ChildFailure> {
        let answer = offer.check(payloads, self.path)?;
        let chosen = answer.chosen;
        let shared = match chosen.ke {
            None => None,
            Some(method) => Some(agree(answered.ke, payloads.ke, method)?),
        };
        // The old one may be gone already.
        let replaces = answered.replaces.filter(|id| self.child(*id).is_some());
        let sides = (&*answer.local_ts, &*answer.remote_ts);
        self.check_others(cx, &offer.conf, sides, replaces)?;
        let agreed = Agreed {
            id: answered.id,
            conf: Arc::clone(&offer.conf),
            mode: offer.conf.mode,
            side: Side::Requester,
            spi_in: offer.spi_in,
            spi_out: chosen.spi,
            encr: chosen.encr,
            integ: chosen.integ,
            ke: chosen.ke,
            esn: chosen.esn,
            local_ts: answer.local_ts,
            remote_ts: answer.remote_ts,
            shared,
            ni: answered.ni,
            nr: answered.nr,
            replaces,
            queue: answered.queue,
        };
        self.install(cx, now, &agreed)?;
        if let Some(flow) = answer.left_out {
            cx.event(Event::FlowLeftOut {
                connection: self.connection.name.clone(),
                child: offer.conf.name.clone(),
                flow,
                more: payloads.has(NotifyType::ADDITIONAL_TS_POSSIBLE),
            });
        }
        if let Some(old) = replaces.and_then(|id| self.child_mut(id)) {
            old.state = ChildState::Rekeyed;
        }
        Ok(())
    }

    //= rfc7296 2.25-5 3.10.1-1 4-6
    fn on_child_refused(
        &mut self,
        cx: &mut Context,
        now: Instant,
        request: ChildRequest,
        payloads: &Payloads<'_>,
    ) {
        let mut task = request.task;
        if let Some((by, _)) = request.contest
            && self.child(by).is_some()
        {
            // The peer was done with its rekey before it saw ours (RFC 7296 section 2.8.1).
            if let Some(old) = task.rekeys.and_then(|id| self.child_mut(id)) {
                old.state = ChildState::Rekeyed;
            }
            self.use_known(cx, by);
            return;
        }
        if task.fate == Fate::Unwanted {
            return;
        }
        match (payloads.error(), payloads.wanted_ke()) {
            (_, Some(method)) if may_retry(&task, method) => {
                task.methods.extend(request.ke.map(|ke| ke.method()));
                task.methods.push(method);
                self.tasks.push_front(Task::Child(task));
            }
            (error, _) if task.becomes_single(error) => self.tasks.push_front(Task::Child(task)),
            (Some(NotifyType::TEMPORARY_FAILURE), _) => self.put_off(cx, now, task),
            // It is about to get our repeated reply that says that the Child SA is there.
            (Some(NotifyType::CHILD_SA_NOT_FOUND), _) if request.unknown => {
                self.put_off(cx, now, task);
            }
            // No wonder.
            (Some(NotifyType::CHILD_SA_NOT_FOUND), _) if task.fate == Fate::ClosedByPeer => {}
            (Some(NotifyType::CHILD_SA_NOT_FOUND), _) if task.rekeys.is_some() => {
                if let Some(old) = task.rekeys {
                    self.remove_child(cx, old, Loss::Dead);
                }
                if !self.cares_for(&task.conf.name) {
                    self.tasks
                        .push(Task::Child(ChildTask::new(task.conf, None, None)));
                }
            }
            (Some(NotifyType::TS_MAX_QUEUE), _) if task.additional => {
                self.enough_of(&task.conf.name);
            }
            (error, _) => {
                if task.additional {
                    self.enough_of(&task.conf.name);
                }
                let reason = match error {
                    Some(notify) => ChildFailure::Refused(notify),
                    None => ChildFailure::Protocol("the answer lacks SA or Nonce"),
                };
                self.child_failed(cx, &task.conf.name, reason);
                self.rekey_again(now, task.rekeys);
            }
        }
    }

    /// It is decided that the peer's new Child SA stays. If the peer has shown that it has it, it
    /// is put to use.
    fn use_known(&mut self, cx: &mut Context, id: ChildSaId) {
        let waits = |child: &ChildSa| child.switch_at.is_some() && !child.unknown;
        if self.child(id).is_some_and(waits) {
            self.use_outbound(cx, id);
        }
    }

    fn may_be_unknown(&self, id: Option<ChildSaId>) -> bool {
        id.and_then(|id| self.child(id))
            .is_some_and(|child| child.unknown)
    }

    //= rfc7296 2.25-2 2.25-3
    fn put_off(&mut self, cx: &mut Context, now: Instant, mut task: ChildTask) {
        task.tries += 1;
        let crossing = self.established_mut().map(|e| &mut e.crossing);
        // Where we put the peer off, too, both states may be sound.
        let explained = crossing.is_some_and(std::mem::take);
        task.strikes += u32::from(!explained);
        if task.strikes > MAX_TRIES && task.additional {
            // What there is carries everything.
            self.enough_of(&task.conf.name);
            return;
        }
        if task.strikes > MAX_TRIES {
            self.close(cx, now, IkeFailure::Refused(NotifyType::TEMPORARY_FAILURE));
            return;
        }
        let pause = pause(cx, task.tries);
        self.tasks.push_later(now + pause, Task::Child(task));
    }

    //= rfc7296 4-6
    /// A rekey that failed is tried again while the old Child SA lives.
    pub(crate) fn rekey_again(&mut self, now: Instant, old: Option<ChildSaId>) {
        if let Some(old) = old.and_then(|id| self.child_mut(id)) {
            if old.state == ChildState::Rekeyed {
                old.state = ChildState::Installed;
            }
            old.rekey_at = Some(now + REKEY_AGAIN);
        }
    }
}

impl ChildRequest {
    //= rfc7296 1.3.3-1
    fn payloads(&self, rekeys: Option<crate::event::EspSpi>) -> Vec<Payload<'_>> {
        let mut payloads = Vec::new();
        if let Some(spi) = rekeys {
            payloads.push(Payload::Notify(Notify::about_esp(
                NotifyType::REKEY_SA,
                spi,
            )));
        }
        if self.queue != 0 {
            payloads.push(Payload::Notify(Notify::resource(self.queue)));
        }
        let mut between = vec![Payload::Nonce(&self.ni)];
        between.extend(self.ke.as_ref().map(ke_payload));
        payloads.extend(self.offer.payloads(between));
        payloads
    }
}

/// Our KE payload.
pub(crate) fn ke_payload(ke: &KeyExchange) -> Payload<'_> {
    Payload::Ke(Ke {
        method: ke.method(),
        data: ke.public(),
    })
}

fn agree(
    ours: Option<&KeyExchange>,
    theirs: Option<Ke<'_>>,
    method: KeMethod,
) -> Result<Secret, ChildFailure> {
    let ours = ours.filter(|ke| ke.method() == method);
    let theirs = theirs.filter(|ke| ke.method == method);
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => ours
            .agree(theirs.data)
            .map_err(|_| ChildFailure::Protocol("the answer has no valid public value")),
        _ => Err(ChildFailure::Protocol(
            "the answer has no KE of the method that it chose",
        )),
    }
}

/// Whether a method that the peer wants is one we offered and did not use yet.
fn may_retry(task: &ChildTask, method: KeMethod) -> bool {
    !task.methods.contains(&method)
        && task
            .conf
            .esp_proposals
            .iter()
            .any(|p| p.ke.contains(&method))
}
