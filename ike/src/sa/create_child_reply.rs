//! CREATE_CHILD_SA for a Child SA, as replier, and the reply that waits for the data plane: we
//! can receive before we say so (RFC 7296 section 2.8).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Child, Generate, Mode};
use crate::context::Context;
use crate::crypto::ke::KeyExchange;
use crate::crypto::secret::Secret;
use crate::error::{ChildFailure, Fault};
use crate::event::{ChildSaId, DataPlaneRefusal, EspSpi, Event};
use crate::proposal::ChildExchange;
use crate::sa::auth::OwnProof;
use crate::sa::child::{Agreed, ChildState, words};
use crate::sa::create_child::ke_payload;
use crate::sa::generate::MOST;
use crate::sa::negotiate::{Grant, configured_pairs};
use crate::sa::payloads::Payloads;
use crate::sa::queues::new_spi;
use crate::sa::task::Task;
use crate::sa::{IkeSa, Request, Side};
use crate::wire::{Auth, ExchangeType, Id, Notify, NotifyType, Payload, ProtocolId};

/// SPIs drawn for one Child SA before we give up.
const MAX_SPIS: u32 = 8;

/// A reply that waits for the data plane.
pub(crate) struct InWork {
    child: ChildSaId,
    agreed: Agreed,
    grant: Grant,
    lead: Lead,
    spis: u32,
}

/// What goes before the Child SA in the reply.
pub(crate) enum Lead {
    /// IKE_AUTH: who we are, and what we say of the IKE SA besides.
    Auth(OwnProof, Vec<Notify<'static>>),
    /// CREATE_CHILD_SA: our public value, if there was a key exchange.
    Create(Option<KeyExchange>),
}

/// A Child SA that the peer gets, before it has a name.
pub(crate) struct Staged {
    pub(crate) grant: Grant,
    pub(crate) ni: Vec<u8>,
    pub(crate) nr: Vec<u8>,
    pub(crate) shared: Option<Secret>,
    pub(crate) replaces: Option<ChildSaId>,
    pub(crate) queue: u16,
    pub(crate) lead: Lead,
}

impl IkeSa {
    //= rfc7296 2.25-1 2.25.2-5
    /// Takes a CREATE_CHILD_SA request.
    ///
    /// # Errors
    /// What the peer is to be told instead; nothing has changed then.
    pub(crate) fn on_create_child_sa(
        &mut self,
        cx: &mut Context,
        now: Instant,
        payloads: &Payloads<'_>,
    ) -> Result<(), Fault> {
        if !self.creations.take(now) {
            return Err(Fault::TemporaryFailure);
        }
        let offered = payloads
            .sa
            .as_ref()
            .ok_or(Fault::InvalidSyntax("no SA in CREATE_CHILD_SA"))?;
        if offered.iter().any(|p| p.protocol == ProtocolId::IKE) {
            return self.on_rekey_ike_request(cx, now, payloads);
        }
        let rekeying = matches!(
            self.requests.open().map(|open| &open.what),
            Some(Request::RekeyIke(_) | Request::DeleteIke)
        );
        if rekeying || !self.is_current() {
            return Err(Fault::TemporaryFailure);
        }
        let ni = payloads
            .nonce
            .ok_or(Fault::InvalidSyntax("no Nonce in CREATE_CHILD_SA"))?;
        let rekeyed = self.rekeyed_child(payloads)?;
        if self.children.len() + cx.elsewhere.0 >= cx.settings().quotas.child_sas {
            return Err(Fault::NoAdditionalSas);
        }
        let exchange = ChildExchange::CreateChildSa(payloads.ke.map(|ke| ke.method));
        let grant = self.grant(cx, payloads, exchange, rekeyed.as_ref())?;
        let queue = match &rekeyed {
            Some((old, _)) => self.child(*old).map_or(0, |old| old.info.queue),
            None => self.queue_for_peer(payloads, &grant.conf)?,
        };
        let exchanged = match grant.chosen.ke {
            None => None,
            Some(want) => Some(exchange_keys(cx, payloads, want)?),
        };
        self.check_quota(cx, &grant)?;
        let (ours, shared) = exchanged.unzip();
        let staged = Staged {
            grant,
            ni: ni.to_vec(),
            nr: cx.nonce(),
            shared,
            replaces: rekeyed.map(|(id, _)| id),
            queue,
            lead: Lead::Create(ours),
        };
        self.stage_grant(cx, now, staged);
        Ok(())
    }

    /// Whether a peer may have this, too.
    pub(crate) fn check_quota(&self, cx: &Context, grant: &Grant) -> Result<(), Fault> {
        let quotas = &cx.settings().quotas;
        let (children, pairs) = cx.elsewhere;
        let wanted = grant.local_ts.len() * grant.remote_ts.len();
        let has = pairs + self.pairs();
        let most = quotas.selectors.max(2 * configured_pairs(&grant.conf));
        let spi = grant.chosen.spi;
        // An SPI that the peer uses already would name two SAs.
        let twice = self.children.iter().any(|child| child.info.spi_out == spi);
        let over = children + self.children.len() >= quotas.child_sas;
        if twice || over || self.has_enough_generated(&grant.conf.name) || has + wanted > most {
            return Err(Fault::NoAdditionalSas);
        }
        Ok(())
    }

    /// Whether a peer asks for one more that no child is about, and has as many as it may.
    fn has_enough_generated(&self, name: &str) -> bool {
        let names = self.children.iter().map(|child| &*child.info.child);
        let made: HashSet<&str> = names.filter(|name| Generate::made(name)).collect();
        Generate::made(name) && !made.contains(name) && made.len() >= MOST
    }

    /// Pairs of traffic selectors of all Child SAs: what a data plane has to tell apart.
    pub(crate) fn pairs(&self) -> usize {
        let infos = self.children.iter().map(|child| &child.info);
        infos
            .map(|info| info.local_ts.len() * info.remote_ts.len())
            .sum()
    }

    /// Reports that a peer did not get the Child SA that it asked for.
    pub(crate) fn report_refusal(&self, cx: &mut Context, fault: Fault) {
        self.report_failure(cx, fault.child_failure());
    }

    /// The same, with what there is to say about it.
    pub(crate) fn report_failure(&self, cx: &mut Context, reason: ChildFailure) {
        cx.event(Event::ChildFailed {
            connection: self.connection.name.clone(),
            child: None,
            reason,
        });
    }

    //= rfc7296 2.25.1-1 2.25-4
    //= security S-19
    /// The Child SA that the peer wants to replace, named by the SPI of packets to the peer.
    fn rekeyed_child(
        &self,
        payloads: &Payloads<'_>,
    ) -> Result<Option<(ChildSaId, Arc<Child>)>, Fault> {
        if !payloads.has(NotifyType::REKEY_SA) {
            return Ok(None);
        }
        let spi = payloads.rekeyed_spi().unwrap_or(EspSpi(0));
        let child = self
            .children
            .iter()
            .find(|child| child.info.spi_out == spi)
            .ok_or(Fault::ChildSaNotFound(spi))?;
        // RFC 7296 section 2.25.1: one that is being closed, or is replaced already, is not
        // rekeyed once more.
        if child.state != ChildState::Installed || child.rekeyed_by_peer.is_some() {
            return Err(Fault::TemporaryFailure);
        }
        Ok(Some((child.info.id, Arc::clone(&child.conf))))
    }

    /// Stages the Child SA; the reply follows when the data plane has answered.
    pub(crate) fn stage_grant(&mut self, cx: &mut Context, now: Instant, staged: Staged) {
        let Staged { grant, lead, .. } = staged;
        let chosen = &grant.chosen;
        let agreed = Agreed {
            id: None,
            conf: Arc::clone(&grant.conf),
            mode: grant.conf.mode,
            side: Side::Replier,
            spi_in: new_spi(cx, &grant.conf, staged.queue),
            spi_out: chosen.spi,
            encr: chosen.encr,
            integ: chosen.integ,
            ke: chosen.ke,
            esn: chosen.esn,
            local_ts: grant.local_ts.clone(),
            remote_ts: grant.remote_ts.clone(),
            shared: staged.shared,
            ni: staged.ni,
            nr: staged.nr,
            replaces: staged.replaces,
            queue: staged.queue,
        };
        match self.install(cx, now, &agreed) {
            Ok(child) => {
                self.note_contest(child, &agreed);
                self.in_work = Some(InWork {
                    child,
                    agreed,
                    grant,
                    lead,
                    spis: 1,
                });
            }
            Err(_) => self.reply_without_child(cx, &lead, Fault::NoProposalChosen),
        }
    }

    //= rfc7296 2.25.1-2
    /// Remembers at the old Child SA, and at a rekey of it that we asked for ourselves, that the
    /// peer replaces it.
    fn note_contest(&mut self, child: ChildSaId, agreed: &Agreed) {
        let Some(old) = agreed.replaces else {
            return;
        };
        if let Some(old) = self.child_mut(old) {
            old.rekeyed_by_peer = Some(child);
        }
        if let Some(Request::Child(request)) = self.requests.open_mut().map(|open| &mut open.what)
            && request.task.rekeys == Some(old)
        {
            request.contest = Some((child, agreed.lowest_nonce()));
        }
    }

    /// The data plane's answer about the inbound half of a Child SA.
    pub(crate) fn on_inbound(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: ChildSaId,
        result: Result<(), DataPlaneRefusal>,
    ) {
        match self.in_work.take() {
            Some(work) if work.child == id => match result {
                Ok(()) => self.grant_child(cx, now, work),
                Err(refusal) => self.on_grant_refused(cx, now, work, refusal),
            },
            other => {
                self.in_work = other;
                self.on_answer_installed(cx, now, id, result);
            }
        }
    }

    /// As requester: the data plane accepts packets, so they can be sent, too.
    fn on_answer_installed(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: ChildSaId,
        result: Result<(), DataPlaneRefusal>,
    ) {
        let Some(child) = self.child_mut(id) else {
            return;
        };
        match result {
            Ok(()) if child.state == ChildState::Installing => {
                child.state = ChildState::Installed;
                self.use_outbound(cx, id);
            }
            Ok(()) => {}
            Err(refusal) => {
                let (name, spi_in) = (child.info.child.clone(), child.info.spi_in);
                let replaces = child.info.replaces;
                if child.info.queue != 0 {
                    self.enough_of(&name);
                }
                self.abandon_child(id);
                self.tasks.push(Task::DeleteSpi(spi_in));
                self.child_failed(cx, &name, ChildFailure::DataPlane(words(refusal)));
                self.rekey_again(now, replaces);
            }
        }
    }

    //= rfc7296 2.8-6
    //= security S-17
    fn grant_child(&mut self, cx: &mut Context, now: Instant, work: InWork) {
        let InWork {
            child,
            agreed,
            grant,
            lead,
            ..
        } = work;
        let exchange = lead.exchange();
        self.reply(cx, exchange, &lead.payloads(&agreed, &grant));
        self.replied(cx, now, child);
        let contested = matches!(
            self.requests.open().map(|open| &open.what),
            Some(Request::Child(request)) if request.contest.is_some()
        );
        if let Some(old) = agreed.replaces.and_then(|id| self.child_mut(id))
            && !contested
            && old.state == ChildState::Installed
        {
            old.state = ChildState::Rekeyed;
        }
    }

    fn on_grant_refused(
        &mut self,
        cx: &mut Context,
        now: Instant,
        mut work: InWork,
        refusal: DataPlaneRefusal,
    ) {
        self.abandon_child(work.child);
        if refusal == DataPlaneRefusal::SpiTaken && work.spis < MAX_SPIS {
            work.spis += 1;
            work.agreed.spi_in = new_spi(cx, &work.agreed.conf, work.agreed.queue);
            if let Ok(child) = self.install(cx, now, &work.agreed) {
                self.note_contest(child, &work.agreed);
                work.child = child;
                self.in_work = Some(work);
                return;
            }
        }
        if let Some(old) = work.agreed.replaces.and_then(|id| self.child_mut(id)) {
            old.rekeyed_by_peer = None;
        }
        if let Some(Request::Child(request)) = self.requests.open_mut().map(|open| &mut open.what) {
            request.contest = None;
        }
        cx.event(Event::ChildFailed {
            connection: self.connection.name.clone(),
            child: Some(work.agreed.conf.name.clone()),
            reason: ChildFailure::DataPlane(words(refusal)),
        });
        self.reply_without_child(cx, &work.lead, Fault::NoAdditionalSas);
    }

    //= rfc7296 1.3.1-3
    //= security S-31
    /// Replies with an error in the place of the Child SA. In IKE_AUTH, the IKE SA stands all the
    /// same (RFC 7296 section 1.2).
    pub(crate) fn reply_without_child(&mut self, cx: &mut Context, lead: &Lead, fault: Fault) {
        let mut payloads = match lead {
            Lead::Auth(proof, extras) => proof_payloads(proof, extras),
            Lead::Create(_) => Vec::new(),
        };
        payloads.push(Payload::Notify(fault.notify()));
        self.reply(cx, lead.exchange(), &payloads);
    }
}

impl IkeSa {
    /// Replies to an IKE_AUTH request that does without a Child SA.
    pub(crate) fn reply_childless(&mut self, cx: &mut Context, lead: &Lead) {
        if let Lead::Auth(proof, extras) = lead {
            self.reply(cx, lead.exchange(), &proof_payloads(proof, extras));
        }
    }
}

impl Lead {
    fn exchange(&self) -> ExchangeType {
        match self {
            Self::Auth(..) => ExchangeType::IKE_AUTH,
            Self::Create(_) => ExchangeType::CREATE_CHILD_SA,
        }
    }

    //= rfc7296 1.3.1-1
    fn payloads<'a>(&'a self, agreed: &'a Agreed, grant: &Grant) -> Vec<Payload<'a>> {
        let mut payloads = match self {
            Self::Auth(proof, extras) => proof_payloads(proof, extras),
            Self::Create(_) => Vec::new(),
        };
        if agreed.mode == Mode::Transport {
            payloads.push(Payload::Notify(Notify::bare(
                NotifyType::USE_TRANSPORT_MODE,
            )));
        }
        payloads.push(Payload::Sa(vec![grant.chosen.answer(agreed.spi_in)]));
        if let Self::Create(ke) = self {
            payloads.push(Payload::Nonce(&agreed.nr));
            payloads.extend(ke.as_ref().map(ke_payload));
        }
        payloads.push(Payload::TsI(grant.told_i.clone().into()));
        payloads.push(Payload::TsR(grant.told_r.clone().into()));
        if grant.more {
            let more = NotifyType::ADDITIONAL_TS_POSSIBLE;
            payloads.push(Payload::Notify(Notify::bare(more)));
        }
        payloads
    }
}

fn proof_payloads<'a>(proof: &'a OwnProof, extras: &'a [Notify<'static>]) -> Vec<Payload<'a>> {
    let id = Id::from_body(&proof.id_body).ok().map(Payload::IdR);
    let auth = Payload::Auth(Auth {
        method: proof.method,
        data: &proof.data,
    });
    let extras = extras.iter().cloned().map(Payload::Notify);
    id.into_iter().chain([auth]).chain(extras).collect()
}

//= rfc7296 1.3-3
//= security S-24
/// Our half of the key exchange that a request asks for.
///
/// # Errors
/// If its KE payload is of another method than the one chosen, or not valid.
pub(crate) fn exchange_keys(
    cx: &mut Context,
    payloads: &Payloads<'_>,
    want: crate::wire::KeMethod,
) -> Result<(KeyExchange, Secret), Fault> {
    let theirs = payloads
        .ke
        .filter(|ke| ke.method == want)
        .ok_or(Fault::InvalidKe { want })?;
    let ours = KeyExchange::generate(want, &mut *cx.rng).map_err(|_| Fault::NoProposalChosen)?;
    let shared = ours
        .agree(theirs.data)
        .map_err(|_| Fault::InvalidSyntax("a public value that is none"))?;
    Ok((ours, shared))
}
