//! A peer that began an IKE SA is proven: whether it is taken, and what follows then.

use std::time::Instant;

use super::{Proven, Stage};
use crate::auth::AuthVerified;
use crate::config::Unique;
use crate::context::{Context, Signal};
use crate::error::IkeFailure;
use crate::event::IkeSaId;
use crate::exchange::redirect;
use crate::proposal::ChildExchange;
use crate::sa::auth::{OwnProof, Transcript};
use crate::sa::create_child_reply::{Lead, Staged};
use crate::sa::established::{Client, Established};
use crate::sa::payloads::Payloads;
use crate::sa::receive::sort;
use crate::sa::{IkeSa, Phase};
use crate::wire::{Notify, NotifyType};

impl IkeSa {
    /// Both proofs stand. What the same peer has beside this is for the endpoint to find.
    pub(super) fn initiator_proven(
        &mut self,
        cx: &mut Context,
        verified: AuthVerified,
        proof: OwnProof,
        resumed: Option<IkeSaId>,
    ) {
        let Phase::AuthResponder(auth) = &self.phase else {
            return;
        };
        let proven = Proven {
            mark: self.mark_of_peer(&verified, auth.secret.as_ref()),
            verified,
            proof,
            resumed,
        };
        if let Phase::AuthResponder(auth) = &mut self.phase {
            auth.stage = Stage::Proven(Box::new(proven));
            cx.signals.push(Signal::Proven(self.id));
        }
    }

    //= rfc7296 2.4-2
    //= security S-9
    /// What this peer has is known: the IKE SA is established, and the Child SA is looked at.
    pub(crate) fn accept_initiator(&mut self, cx: &mut Context, now: Instant) {
        if self.refused_as_second(cx, now) || self.refused_as_one_too_many(cx, now) {
            return;
        }
        let Phase::AuthResponder(auth) = std::mem::replace(&mut self.phase, Phase::Gone) else {
            return;
        };
        let auth = *auth;
        let Stage::Proven(proven) = auth.stage else {
            return;
        };
        let Proven {
            verified,
            mark,
            proof,
            resumed,
        } = *proven;
        // Before anything is counted or compared.
        cx.signals.extend(resumed.map(Signal::Resumed));
        let Ok(payloads) = sort(&auth.opened) else {
            return;
        };
        let mut established = Established::new(
            (verified, mark),
            (self.begun, now),
            auth.local_id.clone(),
            auth.peer.identity.clone(),
            auth.transcript.lowest_nonce(),
        );
        established.crash.learn(&payloads.notifies);
        established.client = auth.redirectable.then_some(Client::Peer);
        let secret = auth.secret.as_ref().map(|known| &known.secret);
        established.resumable.secret = self.tag(cx, secret);
        if let Some(old) = &auth.resumes {
            established.resume(&old.session);
        }
        self.establish(cx, now, established);
        self.begin_proof(cx, now, None);
        self.announce(cx, false);
        self.take_mobike_offer(&payloads);
        let forgotten = payloads.has(NotifyType::INITIAL_CONTACT);
        if forgotten && self.connection.peer.unique != Unique::Never {
            cx.signals.push(Signal::InitialContact {
                on: self.id,
                before: self.begun,
            });
        }
        cx.signals.push(Signal::Arrived(self.id));
        let transcript = auth.transcript;
        let lifetime = self.lifetime_notify(now);
        let mut extras: Vec<Notify<'static>> = self.token(cx).into_iter().chain(lifetime).collect();
        if let Some(to) = self.redirect_target() {
            extras.push(redirect::notify(to, &[]));
            self.send_away(cx, now, to);
            extras.extend(self.give_ticket(cx, now, &payloads));
            self.reply_childless(cx, &Lead::Auth(proof, extras));
            return;
        }
        extras.extend(self.give_ticket(cx, now, &payloads));
        if self.mobility.on {
            extras.extend(self.mobike_offer(cx));
        }
        self.grant_first_child(cx, now, &payloads, transcript, Lead::Auth(proof, extras));
    }

    /// Refuses a proven peer that is up from another address, where the connection says so. It
    /// has to show there that it lives: if it does not, it can come again.
    fn refused_as_second(&mut self, cx: &mut Context, now: Instant) -> bool {
        let Phase::AuthResponder(auth) = &self.phase else {
            return false;
        };
        let others = std::mem::take(&mut cx.namesakes);
        if others.is_empty() || auth.is_first_contact() {
            return false;
        }
        let resumed = auth.proven().and_then(|proven| proven.resumed);
        cx.signals
            .extend(others.into_iter().chain(resumed).map(Signal::Probe));
        let remote = auth.peer.identity.clone();
        self.refuse(cx, now, IkeFailure::UpElsewhere { remote });
        true
    }

    /// Refuses a proven peer of a connection that takes anybody, where too many are up.
    fn refused_as_one_too_many(&mut self, cx: &mut Context, now: Instant) -> bool {
        let (Some(up), Phase::AuthResponder(auth)) = (cx.crowded.take(), &self.phase) else {
            return false;
        };
        let resumed = auth.proven().and_then(|proven| proven.resumed);
        cx.signals.extend(resumed.map(Signal::Probe));
        let remote = auth.peer.identity.clone();
        let notify = Notify::bare(NotifyType::NO_ADDITIONAL_SAS);
        self.refuse_with(cx, now, IkeFailure::Crowded { remote, up }, notify);
        true
    }

    /// What the request asks for beside the IKE SA, which stands whatever comes of it.
    fn grant_first_child(
        &mut self,
        cx: &mut Context,
        now: Instant,
        payloads: &Payloads<'_>,
        transcript: Transcript,
        lead: Lead,
    ) {
        let exchange = ChildExchange::IkeAuth;
        let granted = match self.is_childless(payloads) {
            Ok(true) => return self.reply_childless(cx, &lead),
            Ok(false) => self.grant(cx, payloads, exchange, None).and_then(|grant| {
                let checked = self.check_quota(cx, &grant);
                checked.inspect_err(|fault| self.report_refusal(cx, *fault))?;
                Ok(grant)
            }),
            Err(fault) => {
                self.report_refusal(cx, fault);
                Err(fault)
            }
        };
        match granted {
            Ok(grant) => {
                let staged = Staged {
                    grant,
                    ni: transcript.ni,
                    nr: transcript.nr,
                    shared: None,
                    replaces: None,
                    queue: 0,
                    lead,
                };
                self.stage_grant(cx, now, staged);
            }
            Err(fault) => self.reply_without_child(cx, &lead, fault),
        }
    }
}
