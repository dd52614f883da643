//! IKE_AUTH as initiator, RFC 7296 sections 1.2 and 2.15.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::auth::{AuthVerified, InitiatorSignedOctets, ResponderSignedOctets};
use crate::config::Unique;
use crate::context::Context;
use crate::crypto::signature::SignatureScheme;
use crate::error::{ChildFailure, IkeFailure};
use crate::event::{Answer, Step};
use crate::exchange::kept::Kept;
use crate::exchange::nat::Nat;
use crate::identity::Identity;
use crate::proposal::ChildExchange;
use crate::sa::auth::{
    Check, KnownSecret, OwnMethod, OwnProof, PeerProof, Transcript, another_secret, check_peer,
    of_group, own_method, psk_proof, signature_proof,
};
use crate::sa::childless::FirstChildren;
use crate::sa::claims::Standing;
use crate::sa::create_child::Answered;
use crate::sa::established::{Client, Established};
use crate::sa::methods::AuthMethods;
use crate::sa::negotiate::Offer;
use crate::sa::payloads::Payloads;
use crate::sa::protect::Opened;
use crate::sa::queues::new_spi;
use crate::sa::reauth::auth_lifetime;
use crate::sa::receive::sort;
use crate::sa::task::{Fate, Task};
use crate::sa::{IkeSa, Phase, Request};
use crate::wire::{Auth, ExchangeType, Id, Notify, NotifyType, Payload, USUAL_PAYLOADS};

/// In IKE_AUTH, as initiator.
pub(crate) struct AuthInitiator {
    /// Among the claims on the IKE SA.
    pub(crate) standing: Standing,
    /// The Child SAs to ask for.
    pub(crate) first: FirstChildren,
    /// Why it is to be closed as soon as it is established.
    pub(crate) closing: Option<IkeFailure>,
    transcript: Transcript,
    /// Other replies that lead to the same keys; the peer's AUTH tells which one is its own.
    pub(crate) variants: Vec<Variant>,
    pub(crate) local_id: Identity,
    /// What it is made of, if that is no key exchange.
    pub(crate) resumes: Option<Arc<Kept>>,
    secret: Option<KnownSecret>,
    offer: Option<Offer>,
    stage: Stage,
}

/// A reply that differs from the one that a claim goes by in what no key comes from.
pub(crate) struct Variant {
    pub(crate) message2: Bytes,
    pub(crate) nat: Nat,
    /// The responder does NAT traversal.
    pub(crate) natt: bool,
    /// Both ends can take fragments.
    pub(crate) fragmentation: bool,
}

enum Stage {
    /// Our own proof has not been begun, and is not to be before this time. Without a method, it is
    /// by the keys of an IKE SA that was lost.
    Ready(Option<OwnMethod>, Option<Instant>),
    /// The secret for our own proof was asked for.
    OwnSecret,
    /// The signature was asked for.
    OwnSignature(SignatureScheme),
    /// The request is out.
    Sent,
    /// The reply is there; the secret to check it with was asked for.
    PeerSecret(PeerProof, Opened),
    /// It came to nothing.
    Over,
}

impl AuthInitiator {
    /// What goes by an IKE_SA_INIT reply. Nothing is asked or sent yet.
    ///
    /// # Errors
    /// If we have nothing to prove ourselves with to who sent that.
    pub(crate) fn new(
        sa: &IkeSa,
        standing: Standing,
        first: FirstChildren,
        transcript: Transcript,
        resumes: Option<Arc<Kept>>,
    ) -> Result<Self, IkeFailure> {
        let (method, local_id) = match &resumes {
            None => (
                Some(own_method(&sa.connection, &transcript)?),
                sa.local_id(),
            ),
            Some(kept) => (None, kept.session.local_id.clone()),
        };
        Ok(Self {
            standing,
            first,
            closing: None,
            transcript,
            variants: Vec::new(),
            local_id,
            resumes,
            secret: None,
            offer: None,
            stage: Stage::Ready(method, None),
        })
    }

    /// Whether this is an IKE_SA_INIT reply that it may come to go by.
    pub(crate) fn goes_by(&self, reply: &[u8]) -> bool {
        let variants = self.variants.iter().map(|variant| &variant.message2);
        let mut replies = variants.chain([&self.transcript.message2]);
        replies.any(|known| known == reply)
    }

    /// The IKE_SA_INIT reply that it goes by.
    pub(crate) fn into_message2(self) -> Bytes {
        self.transcript.message2
    }

    /// Nothing is to be sent before this.
    pub(crate) fn hold(&mut self, at: Instant) {
        if let Stage::Ready(_, until) = &mut self.stage {
            *until = Some(at);
        }
    }

    /// When it goes on, if it waits for that.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        match self.stage {
            Stage::Ready(_, until) => until,
            _ => None,
        }
    }

    /// Whether the peer may have our request.
    pub(crate) fn is_sent(&self) -> bool {
        matches!(self.stage, Stage::Sent | Stage::PeerSecret(..))
    }

    /// It has come to nothing.
    pub(crate) fn give_up(&mut self) {
        self.stage = Stage::Over;
    }

    /// Whether it has come to nothing.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }
}

impl IkeSa {
    /// Which of the claims on the IKE SA it is.
    pub(crate) fn ordinal(&self) -> u32 {
        match &self.phase {
            Phase::AuthInitiator(auth) => auth.standing.ordinal,
            _ => 0,
        }
    }

    /// Begins with our own proof.
    pub(crate) fn prove(&mut self, cx: &mut Context, now: Instant) {
        let Phase::AuthInitiator(auth) = &mut self.phase else {
            return;
        };
        let Stage::Ready(method, _) = std::mem::replace(&mut auth.stage, Stage::OwnSecret) else {
            return;
        };
        match method {
            None => self.prove_old(cx, now),
            Some(OwnMethod::Signature(key, scheme)) => {
                auth.stage = Stage::OwnSignature(scheme);
                if let Some(octets) = self.own_octets_initiator() {
                    self.ask_signature(cx, *key, scheme, octets.into_octets());
                }
            }
            Some(OwnMethod::Psk) => {
                let local_id = auth.local_id.clone();
                self.ask_psk(cx, local_id, self.expected_remote_id());
            }
        }
    }

    pub(crate) fn own_octets_initiator(&self) -> Option<InitiatorSignedOctets> {
        let Phase::AuthInitiator(auth) = &self.phase else {
            return None;
        };
        let keys = &self.protection.as_ref()?.keys;
        Some(InitiatorSignedOctets::new(
            &auth.transcript.message1,
            &auth.transcript.nr,
            keys,
            &auth.local_id.to_body(),
        ))
    }

    pub(crate) fn on_initiator_answer(&mut self, cx: &mut Context, now: Instant, answer: Answer) {
        let Phase::AuthInitiator(auth) = &mut self.phase else {
            return;
        };
        let stage = std::mem::replace(&mut auth.stage, Stage::Sent);
        let local = auth.local_id.clone();
        let (answer, of_group) = of_group(answer);
        let known = |remote, secret| KnownSecret {
            remote,
            secret,
            of_group,
        };
        match (stage, answer) {
            (Stage::OwnSecret, Answer::Psk(secret)) if auth.resumes.is_some() => {
                self.on_old_secret(cx, now, secret);
            }
            (Stage::OwnSecret, Answer::Psk(Some(secret))) => {
                let remote = self.expected_remote_id();
                self.prove_with_secret(cx, now, known(remote, secret));
            }
            (Stage::OwnSecret, Answer::Psk(None)) => {
                let failure = self.no_secret(&local, &self.expected_remote_id());
                self.end(cx, failure);
            }
            (Stage::OwnSignature(scheme), Answer::Signature(Ok(signature))) => {
                let proof = signature_proof(scheme, &signature, local.to_body());
                self.send_auth(cx, now, &proof);
            }
            (Stage::OwnSignature(_), Answer::Signature(Err(why))) => {
                self.end(cx, IkeFailure::Credentials(why));
            }
            (Stage::PeerSecret(peer, opened), Answer::Psk(Some(secret))) => {
                let remote = peer.identity.clone();
                let own = auth
                    .secret
                    .as_ref()
                    .filter(|own| !own.secret.ct_eq(&secret));
                if let Some(own) = own {
                    let failure = another_secret(local, remote, &own.remote);
                    self.reject(cx, now, failure);
                    return;
                }
                auth.secret = Some(known(remote, secret));
                if let Ok(payloads) = sort(&opened) {
                    self.check_responder(cx, now, peer, &opened, &payloads);
                }
            }
            (Stage::PeerSecret(peer, _), Answer::Psk(None)) => {
                self.reject(cx, now, self.no_secret(&local, &peer.identity));
            }
            (stage, _) => auth.stage = stage,
        }
    }

    fn prove_with_secret(&mut self, cx: &mut Context, now: Instant, known: KnownSecret) {
        let Some(octets) = self.own_octets_initiator() else {
            return;
        };
        let (Phase::AuthInitiator(auth), Some(protection)) = (&mut self.phase, &self.protection)
        else {
            return;
        };
        let body = auth.local_id.to_body();
        let proof = psk_proof(protection.keys.prf(), &known.secret, &octets, body);
        auth.secret = Some(known);
        self.send_auth(cx, now, &proof);
    }

    //= rfc7296 2.4-1 2.4-2
    pub(crate) fn send_auth(&mut self, cx: &mut Context, now: Instant, proof: &OwnProof) {
        let token = self.token(cx);
        let ticket = self.ticket_request();
        let mobike = self.mobike_offer(cx);
        let Phase::AuthInitiator(auth) = &mut self.phase else {
            return;
        };
        auth.stage = Stage::Sent;
        let offer = auth.first.within.as_ref().map(|first| {
            let exchange = ChildExchange::IkeAuth;
            let conf = Arc::clone(&first.conf);
            let spi_in = new_spi(cx, &conf, 0);
            Offer::new(conf, first.purpose(), self.path, spi_in, exchange)
        });
        // A resumed IKE SA is between the ends of the old one.
        let resumes = auth.resumes.as_ref().map(|kept| &kept.session.remote_id);
        let remote = resumes.or(self.connection.remote.id.as_ref());
        let remote_body = remote.map(Identity::to_body);
        let mut payloads = Vec::with_capacity(USUAL_PAYLOADS);
        payloads.extend(Id::from_body(&proof.id_body).ok().map(Payload::IdI));
        if let Some(body) = &remote_body {
            payloads.extend(Id::from_body(body).ok().map(Payload::IdR));
        }
        payloads.push(Payload::Auth(Auth {
            method: proof.method,
            data: &proof.data,
        }));
        if cx.settings().announce_auth_methods && auth.transcript.peer_methods.is_some() {
            let methods = AuthMethods::accepted_by([&*self.connection].into_iter());
            payloads.push(Payload::Notify(methods.notify()));
        }
        payloads.extend(token.map(Payload::Notify));
        let forgets = self.connection.peer.unique != Unique::Never;
        let told = self.alone && auth.standing.first_contact;
        if told && self.connection.initial_contact && forgets {
            payloads.push(Payload::Notify(Notify::bare(NotifyType::INITIAL_CONTACT)));
        }
        payloads.extend(mobike.into_iter().map(Payload::Notify));
        payloads.extend(ticket);
        payloads.extend(offer.iter().flat_map(|offer| offer.payloads(Vec::new())));
        auth.offer = offer;
        self.request(cx, now, ExchangeType::IKE_AUTH, &payloads, Request::Auth);
        if let Some(protection) = &self.protection {
            let algorithms = *protection.keys.algorithms();
            self.tell_step(cx, Step::Proving(algorithms));
        }
    }

    /// Takes the reply: who the responder claims to be, its proof, and the Child SA.
    pub(crate) fn on_auth_reply(
        &mut self,
        cx: &mut Context,
        now: Instant,
        opened: &Opened,
        payloads: &Payloads<'_>,
    ) {
        let Phase::AuthInitiator(auth) = &self.phase else {
            return;
        };
        let (Some(id_r), Some(proof)) = (payloads.id_r, payloads.auth) else {
            let local = auth.local_id.clone();
            match payloads.error() {
                Some(NotifyType::AUTHENTICATION_FAILED) => {
                    let remote = self.connection.remote.id.clone();
                    self.refuted(cx, now, IkeFailure::WeAreNotProven { local, remote });
                }
                Some(notify) => self.refuted(cx, now, IkeFailure::Refused(notify)),
                None => self.reject(cx, now, IkeFailure::Protocol("no IDr or AUTH in IKE_AUTH")),
            }
            return;
        };
        let Ok(identity) = Identity::from_payload(&id_r) else {
            self.reject(cx, now, IkeFailure::Protocol("IDr is malformed"));
            return;
        };
        let expected = self.connection.remote.id.as_ref();
        if let Some(expected) = expected.filter(|expected| !expected.matches(&identity)) {
            let failure = IkeFailure::PeerNotProven {
                local: auth.local_id.clone(),
                reason: format!(
                    "it claims to be {identity}, this side expects {expected}: change the \
                     peer's local id, or our remote id"
                ),
                remote: identity,
            };
            self.reject(cx, now, failure);
            return;
        }
        let certain = auth.variants.is_empty();
        let may = self.may_claim(&self.connection, &auth.local_id, &identity);
        if let Some(failure) = may.err().filter(|_| certain) {
            self.reject(cx, now, failure);
            return;
        }
        let peer = PeerProof {
            identity,
            id_body: id_r.body().to_vec(),
            method: proof.method,
            data: proof.data.to_vec(),
        };
        self.check_responder(cx, now, peer, opened, payloads);
    }

    fn check_responder(
        &mut self,
        cx: &mut Context,
        now: Instant,
        peer: PeerProof,
        opened: &Opened,
        payloads: &Payloads<'_>,
    ) {
        let Some((checked, variant)) = self.check_replies(&peer) else {
            return;
        };
        let Phase::AuthInitiator(auth) = &mut self.phase else {
            return;
        };
        let (local, remote) = (auth.local_id.clone(), peer.identity.clone());
        match checked {
            Check::Verified(verified) => {
                let variant = variant.map(|place| auth.variants.swap_remove(place));
                if let Some(variant) = variant {
                    self.go_by(&variant);
                }
                match self.may_claim(&self.connection, &local, &remote) {
                    Ok(()) => self.responder_proven(cx, now, verified, peer, payloads),
                    Err(failure) => self.reject(cx, now, failure),
                }
            }
            Check::NeedsSecret => {
                auth.stage = Stage::PeerSecret(peer, opened.clone());
                self.ask_psk(cx, local, remote);
            }
            Check::Failed(error) => {
                let reason = error.to_string();
                let failure = IkeFailure::PeerNotProven {
                    local,
                    remote,
                    reason,
                };
                self.reject(cx, now, failure);
            }
        }
    }

    /// Checks the peer's proof of any of the replies that it may have sent, and says which variant
    /// it is of, if it is of one.
    fn check_replies(&self, peer: &PeerProof) -> Option<(Check, Option<usize>)> {
        let Phase::AuthInitiator(auth) = &self.phase else {
            return None;
        };
        let keys = &self.protection.as_ref()?.keys;
        let check = |message2: &Bytes| {
            let ni = &auth.transcript.ni;
            let octets = || ResponderSignedOctets::new(message2, ni, keys, &peer.id_body);
            match &auth.resumes {
                Some(kept) => {
                    let sk_p = keys.sk_pr.expose();
                    kept.session.check(keys.prf(), sk_p, &octets(), peer)
                }
                None => {
                    let secret = auth.secret.as_ref();
                    check_peer(&self.connection, keys.prf(), octets, peer, secret)
                }
            }
        };
        let first = check(&auth.transcript.message2);
        if !matches!(first, Check::Failed(_)) {
            return Some((first, None));
        }
        let variants = auth.variants.iter().enumerate();
        let mut checked = variants.map(|(place, variant)| (check(&variant.message2), Some(place)));
        let found = checked.find(|(checked, _)| matches!(checked, Check::Verified(_)));
        Some(found.unwrap_or((first, None)))
    }

    //= rfc7296 1.3.1-2 2.21.2-3
    fn responder_proven(
        &mut self,
        cx: &mut Context,
        now: Instant,
        verified: AuthVerified,
        peer: PeerProof,
        payloads: &Payloads<'_>,
    ) {
        self.settle_claims(now);
        let Phase::AuthInitiator(auth) = std::mem::replace(&mut self.phase, Phase::Gone) else {
            return;
        };
        let auth = *auth;
        let mark = self.mark_of_peer(&verified, auth.secret.as_ref());
        let secret = auth.secret.as_ref().map(|known| &known.secret);
        let secret = self.tag(cx, secret);
        let lowest_nonce = auth.transcript.lowest_nonce();
        let times = (self.begun, now);
        let mut established = Established::new(
            (verified, mark),
            times,
            auth.local_id,
            peer.identity,
            lowest_nonce,
        );
        established.crash.learn(&payloads.notifies);
        established.client = self.connection.redirect.follow.then_some(Client::Us);
        established.resumable.ours = true;
        established.resumable.secret = secret;
        if let Some(kept) = &auth.resumes {
            established.resume(&kept.session);
        }
        self.establish(cx, now, established);
        self.begin_proof(cx, now, auth_lifetime(payloads));
        self.learn_ticket(cx, now, payloads);
        self.announce(cx, false);
        if let Some(reason) = auth.closing {
            self.close(cx, now, reason);
            return;
        }
        if let Some(notify) = self.auth_redirect(payloads) {
            self.on_auth_redirect(cx, now, notify, auth.first);
            return;
        }
        let after = auth.first.after.filter(|task| task.fate == Fate::Wanted);
        self.tasks.extend(after.map(Task::Child));
        let Some(offer) = auth.offer else {
            return;
        };
        self.take_mobike_offer(payloads);
        let mut first = auth.first.within;
        if first
            .as_ref()
            .is_some_and(|first| first.fate == Fate::Unwanted)
        {
            self.tasks.push(Task::DeleteSpi(offer.spi_in));
            return;
        }
        if first
            .as_mut()
            .is_some_and(|first| first.becomes_single(payloads.error()))
        {
            self.tasks.extend(first.map(Task::Child));
            return;
        }
        if payloads.sa.is_none() {
            let reason = match payloads.error() {
                Some(notify) => ChildFailure::Refused(notify),
                None => ChildFailure::Protocol("the answer lacks SA, TSi or TSr"),
            };
            self.child_failed(cx, &offer.conf.name, reason);
            return;
        }
        let answered = Answered {
            id: None,
            ni: auth.transcript.ni,
            nr: auth.transcript.nr,
            ke: None,
            replaces: None,
            queue: 0,
        };
        if let Err(failure) = self.accept_child(cx, now, &offer, payloads, answered) {
            self.child_failed(cx, &offer.conf.name, failure);
            self.tasks.push(Task::DeleteSpi(offer.spi_in));
        }
    }
}
