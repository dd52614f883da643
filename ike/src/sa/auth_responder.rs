//! IKE_AUTH as responder, RFC 7296 sections 1.2 and 2.15.

mod proven;

use std::sync::Arc;
use std::time::Instant;

use crate::auth::{AuthVerified, InitiatorSignedOctets, ResponderSignedOctets, is_signature};
use crate::config::{Connection, RemoteAuthMethod};
use crate::context::Context;
use crate::crypto::signature::SignatureScheme;
use crate::error::{Fault, IkeFailure};
use crate::event::{Answer, IkeSaId};
use crate::exchange::tickets::Presented;
use crate::holdings::Mark;
use crate::identity::Identity;
use crate::sa::auth::{
    Check, KnownSecret, OwnMethod, OwnProof, PeerProof, Transcript, check_peer, of_group,
    own_method, psk_proof, resumption_proof, signature_proof,
};
use crate::sa::init_responder::HalfOpen;
use crate::sa::methods::AuthMethods;
use crate::sa::payloads::Payloads;
use crate::sa::protect::Opened;
use crate::sa::receive::sort;
use crate::sa::{IkeSa, Phase};
use crate::status::IkeAlgorithms;
use crate::wire::{AuthMethod, NotifyType};

/// In IKE_AUTH, as responder: the request is there.
pub(crate) struct AuthResponder {
    transcript: Transcript,
    opened: Opened,
    pub(crate) local_id: Identity,
    pub(crate) peer: PeerProof,
    /// The ticket that was presented instead of a key exchange.
    resumes: Option<Box<Presented>>,
    /// It can be sent to another gateway.
    redirectable: bool,
    secret: Option<KnownSecret>,
    stage: Stage,
}

enum Stage {
    /// The secret to check the initiator with was asked for.
    PeerSecret,
    /// The initiator is proven; the secret for our own proof was asked for.
    OwnSecret(AuthVerified),
    /// The same; the signature was asked for.
    OwnSignature(AuthVerified, SignatureScheme),
    /// Both ends are proven by the keys of an IKE SA that was lost; the secret by which they were
    /// proven then was asked for.
    OldSecret(AuthVerified, OwnProof),
    /// Both ends are proven. It is to be seen what else this peer has; the IKE SA that it resumes, if
    /// that is here, goes.
    Proven(Box<Proven>),
    /// Between two of these.
    Moving,
}

/// What both proofs came to.
pub(crate) struct Proven {
    verified: AuthVerified,
    /// What tells the peer from others of its name.
    pub(crate) mark: Mark,
    proof: OwnProof,
    /// The IKE SA that it resumes.
    pub(crate) resumed: Option<IkeSaId>,
}

impl AuthResponder {
    /// What is known of the peer once it is proven.
    pub(crate) fn proven(&self) -> Option<&Proven> {
        match &self.stage {
            Stage::Proven(proven) => Some(proven),
            _ => None,
        }
    }

    /// Whether the peer says that it has nothing else.
    pub(crate) fn is_first_contact(&self) -> bool {
        sort(&self.opened).is_ok_and(|said| said.has(NotifyType::INITIAL_CONTACT))
    }
}

impl IkeSa {
    //= rfc7296 2.21.2-2
    /// Takes the first IKE_AUTH request.
    pub(crate) fn on_auth_request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        opened: &Opened,
        payloads: Result<Payloads<'_>, Fault>,
    ) {
        // The initiator may have moved to port 4500.
        self.path = self.reply_path;
        let broken = |fault: Fault| {
            (
                fault,
                IkeFailure::Protocol("the IKE_AUTH request is broken"),
            )
        };
        let staged = payloads.map_err(broken).and_then(|payloads| {
            if self.sees_unexpected_nat(&payloads) {
                let why = "a NAT, or somebody, changes the packets of a peer that allows none";
                return Err((Fault::UnexpectedNat, IkeFailure::Protocol(why)));
            }
            let claim = self.claim(&payloads).map_err(broken)?;
            let wanted = payloads
                .id_r
                .and_then(|id| Identity::from_payload(&id).ok());
            Ok((claim, wanted, AuthMethods::announced(&payloads)))
        });
        let (claim, wanted, methods) = match staged {
            Ok(staged) => staged,
            Err((fault, reason)) => {
                cx.count_fault(fault);
                self.refuse_with(cx, now, reason, fault.notify());
                return;
            }
        };
        let chosen = self
            .no_eap(claim)
            .and_then(|peer| Ok((self.connection_with(cx, &peer, wanted.as_ref())?, peer)));
        let peer = match chosen {
            Ok((connection, peer)) => {
                self.connection = connection;
                peer
            }
            Err(reason) => {
                self.refuse(cx, now, reason);
                return;
            }
        };
        let Phase::HalfOpen(half_open) = std::mem::replace(&mut self.phase, Phase::Gone) else {
            return;
        };
        let HalfOpen {
            mut transcript,
            resumes,
            redirectable,
            ..
        } = *half_open;
        transcript.peer_methods = methods;
        let old_id = resumes.as_ref().map(|old| old.session.local_id.clone());
        self.phase = Phase::AuthResponder(Box::new(AuthResponder {
            transcript,
            opened: opened.clone(),
            local_id: old_id.unwrap_or_else(|| self.local_id()),
            peer,
            resumes,
            redirectable,
            secret: None,
            stage: Stage::Moving,
        }));
        self.check_initiator(cx, now);
    }

    //= rfc7296 2.16-1
    //= security S-29
    /// Without AUTH, an initiator asks for EAP (RFC 7296 section 2.16), which obol has not.
    fn no_eap(&self, claim: Claim) -> Result<PeerProof, IkeFailure> {
        claim.proof.ok_or_else(|| IkeFailure::PeerNotProven {
            local: self.local_id(),
            remote: claim.identity,
            reason: "it sends no AUTH payload, so it asks for EAP: let the peer authenticate \
                     with a shared secret or a key"
                .to_owned(),
        })
    }

    /// Who the initiator claims to be, and its proof.
    fn claim(&self, payloads: &Payloads<'_>) -> Result<Claim, Fault> {
        let id_i = payloads
            .id_i
            .ok_or(Fault::InvalidSyntax("no IDi in IKE_AUTH"))?;
        let identity =
            Identity::from_payload(&id_i).map_err(|_| Fault::InvalidSyntax("IDi is malformed"))?;
        let proof = payloads.auth.map(|auth| PeerProof {
            identity: identity.clone(),
            id_body: id_i.body().to_vec(),
            method: auth.method,
            data: auth.data.to_vec(),
        });
        Ok(Claim { identity, proof })
    }

    /// The connection of an IKE SA that is resumed, or the one that fits.
    fn connection_with(
        &self,
        cx: &Context,
        peer: &PeerProof,
        wanted: Option<&Identity>,
    ) -> Result<Arc<Connection>, IkeFailure> {
        match &self.phase {
            Phase::HalfOpen(half_open) => match &half_open.resumes {
                Some(ticket) => self.resumed_connection(cx, &ticket.session, peer, wanted),
                None => self.choose_connection(cx, peer, wanted),
            },
            _ => self.choose_connection(cx, peer, wanted),
        }
    }

    //= rfc7296 1.2-3
    //= security S-28
    /// Finds the connection whose identities, proofs and algorithms fit.
    fn choose_connection(
        &self,
        cx: &Context,
        peer: &PeerProof,
        wanted: Option<&Identity>,
    ) -> Result<Arc<Connection>, IkeFailure> {
        let alg = self.protection.as_ref().map(|p| *p.keys.algorithms());
        let by_id = || {
            cx.directory
                .with_identity(self.path, &peer.identity)
                .filter(|connection| alg.is_some_and(|alg| offers(connection, &alg)))
        };
        let chosen = by_id()
            .filter(|connection| wanted.is_none_or(|wanted| self.is_called(connection, wanted)))
            .filter(|connection| method_fits(connection, peer.method))
            .filter(|connection| self.owner(cx, connection, &peer.identity).is_none())
            // A connection that names this peer goes before one that takes any, and one that takes its
            // signature before one that does not.
            .min_by_key(|connection| {
                (
                    connection.remote.id.is_none(),
                    !takes_signature(connection, peer),
                )
            });
        if let Some(connection) = chosen {
            self.may_claim(connection, &self.local_id(), &peer.identity)?;
            return Ok(Arc::clone(connection));
        }
        let owner = by_id().find_map(|connection| self.owner(cx, connection, &peer.identity));
        let reason = match (by_id().next(), wanted) {
            (Some(_), _) if let Some(owner) = owner => format!(
                "connection {:?} is for this identity, so no other connection takes it from \
                 whoever says it: let the peer come by the addresses, the proof and the algorithms \
                 of that one, or remove its remote id there",
                owner.name
            ),
            (None, _) => {
                "no connection with this address expects this identity: change the peer's local \
                 id, or a remote id on this side"
                    .to_owned()
            }
            (Some(connection), Some(wanted)) if !self.is_called(connection, wanted) => format!(
                "it asks for {wanted}, which is not our identity: change the peer's remote id, \
                 or our local id"
            ),
            (Some(connection), _) => format!(
                "it proves itself by {}, connection {:?} expects {}: make the peer's local auth \
                 and our remote auth the same",
                peer.method,
                connection.name,
                match connection.remote.method {
                    RemoteAuthMethod::Psk => "psk",
                    RemoteAuthMethod::Keys(_) => "pubkey",
                    RemoteAuthMethod::KeysOrPsk(_) => "pubkey or psk",
                }
            ),
        };
        Err(IkeFailure::PeerNotProven {
            local: wanted.cloned().unwrap_or_else(|| self.local_id()),
            remote: peer.identity.clone(),
            reason,
        })
    }

    /// The connection that alone takes this identity, if `connection` takes any: there, the
    /// identity has to be proven, and here it is no more than said.
    fn owner<'a>(
        &self,
        cx: &'a Context,
        connection: &Connection,
        identity: &Identity,
    ) -> Option<&'a Arc<Connection>> {
        if connection.remote.id.is_some() {
            return None;
        }
        let own = |of: &Connection| {
            let here = of.local_addrs.is_empty() || of.local_addrs.contains(&self.path.local.ip());
            let address = here.then(|| Identity::from(self.path.local.ip()));
            of.local.id.clone().or(address)
        };
        let we = own(connection)?;
        let mut named = cx.directory.naming(identity);
        named.find(|named| own(named).is_some_and(|id| id.matches(&we)))
    }

    fn is_called(&self, connection: &Connection, wanted: &Identity) -> bool {
        match &connection.local.id {
            Some(id) => id.matches(wanted),
            None => Identity::from(self.path.local.ip()).matches(wanted),
        }
    }

    fn check_initiator(&mut self, cx: &mut Context, now: Instant) {
        let (Phase::AuthResponder(auth), Some(protection)) = (&mut self.phase, &self.protection)
        else {
            return;
        };
        let keys = &protection.keys;
        let (said, id_body) = (&auth.transcript, &auth.peer.id_body);
        let octets = || InitiatorSignedOctets::new(&said.message1, &said.nr, keys, id_body);
        let (local, remote) = (auth.local_id.clone(), auth.peer.identity.clone());
        let secret = auth.secret.as_ref();
        let checked = match &auth.resumes {
            Some(old) => {
                let sk_p = keys.sk_pi.expose();
                old.session.check(keys.prf(), sk_p, &octets(), &auth.peer)
            }
            None => check_peer(&self.connection, keys.prf(), octets, &auth.peer, secret),
        };
        match checked {
            Check::Verified(verified) => self.prove_to_initiator(cx, now, verified),
            Check::NeedsSecret => {
                auth.stage = Stage::PeerSecret;
                self.ask_psk(cx, local, remote);
            }
            Check::Failed(error) => {
                let reason = error.to_string();
                self.refuse(
                    cx,
                    now,
                    IkeFailure::PeerNotProven {
                        local,
                        remote,
                        reason,
                    },
                );
            }
        }
    }

    fn prove_to_initiator(&mut self, cx: &mut Context, now: Instant, verified: AuthVerified) {
        let Some(octets) = self.own_octets_responder() else {
            return;
        };
        let (Phase::AuthResponder(auth), Some(protection)) = (&mut self.phase, &self.protection)
        else {
            return;
        };
        if let Some(old) = &auth.resumes {
            let keys = &protection.keys;
            let body = auth.local_id.to_body();
            let proof = resumption_proof(keys.prf(), keys.sk_pr.expose(), &octets, body);
            if old.session.secret.is_none() {
                self.resumption_accepted(cx, now, verified, proof);
                return;
            }
            auth.stage = Stage::OldSecret(verified, proof);
            let (local, remote) = (auth.local_id.clone(), auth.peer.identity.clone());
            self.ask_psk(cx, local, remote);
            return;
        }
        match own_method(&self.connection, &auth.transcript) {
            Ok(OwnMethod::Psk) => match &auth.secret {
                Some(known) => {
                    let body = auth.local_id.to_body();
                    let proof = psk_proof(protection.keys.prf(), &known.secret, &octets, body);
                    self.initiator_proven(cx, verified, proof, None);
                }
                None => {
                    auth.stage = Stage::OwnSecret(verified);
                    let (local, remote) = (auth.local_id.clone(), auth.peer.identity.clone());
                    self.ask_psk(cx, local, remote);
                }
            },
            Ok(OwnMethod::Signature(key, scheme)) => {
                auth.stage = Stage::OwnSignature(verified, scheme);
                self.ask_signature(cx, *key, scheme, octets.into_octets());
            }
            Err(failure) => self.refuse(cx, now, failure),
        }
    }

    fn own_octets_responder(&self) -> Option<ResponderSignedOctets> {
        let Phase::AuthResponder(auth) = &self.phase else {
            return None;
        };
        Some(ResponderSignedOctets::new(
            &auth.transcript.message2,
            &auth.transcript.ni,
            &self.protection.as_ref()?.keys,
            &auth.local_id.to_body(),
        ))
    }

    pub(crate) fn on_responder_answer(&mut self, cx: &mut Context, now: Instant, answer: Answer) {
        let Phase::AuthResponder(auth) = &mut self.phase else {
            return;
        };
        let remote = auth.peer.identity.clone();
        let (answer, of_group) = of_group(answer);
        let known = |remote, secret| KnownSecret {
            remote,
            secret,
            of_group,
        };
        match (std::mem::replace(&mut auth.stage, Stage::Moving), answer) {
            (Stage::PeerSecret, Answer::Psk(Some(secret))) => {
                auth.secret = Some(known(remote, secret));
                self.check_initiator(cx, now);
            }
            (Stage::OwnSecret(verified), Answer::Psk(Some(secret))) => {
                auth.secret = Some(known(remote, secret));
                self.prove_to_initiator(cx, now, verified);
            }
            (Stage::OldSecret(verified, proof), Answer::Psk(secret)) => {
                let old = auth.resumes.as_ref().and_then(|old| old.session.secret);
                let now_is = secret.map(|secret| cx.tickets.tag(&mut *cx.rng, &secret));
                if old.zip(now_is).is_some_and(|(old, now_is)| old.is(&now_is)) {
                    self.resumption_accepted(cx, now, verified, proof);
                } else {
                    let why = "the shared secret is another one than when the ticket was given";
                    self.refuse_ticket(cx, now, why);
                }
            }
            (Stage::PeerSecret | Stage::OwnSecret(_), Answer::Psk(None)) => {
                let local = auth.local_id.clone();
                let failure = self.no_secret(&local, &remote);
                self.refuse(cx, now, failure);
            }
            (Stage::OwnSignature(verified, scheme), Answer::Signature(Ok(signature))) => {
                let proof = signature_proof(scheme, &signature, auth.local_id.to_body());
                self.initiator_proven(cx, verified, proof, None);
            }
            (Stage::OwnSignature(..), Answer::Signature(Err(why))) => {
                self.refuse(cx, now, IkeFailure::Credentials(why));
            }
            (stage, _) => auth.stage = stage,
        }
    }

    //= rfc5723 4.3.1-3 4.3.4-1
    /// Both ends of an IKE SA that was lost are proven by its keys. The ticket has served; what is
    /// still here of that IKE SA goes without a word.
    fn resumption_accepted(
        &mut self,
        cx: &mut Context,
        now: Instant,
        verified: AuthVerified,
        proof: OwnProof,
    ) {
        let Phase::AuthResponder(auth) = &self.phase else {
            return;
        };
        let spent = auth.resumes.as_ref();
        match spent.and_then(|ticket| cx.tickets.spend(now, ticket)) {
            Some(old) => {
                // What it had, it may have again.
                old.into_iter().for_each(|old| cx.holdings.forget(old));
                self.initiator_proven(cx, verified, proof, old);
            }
            None => {
                let why = "the ticket was used meanwhile, or its IKE SA was deleted";
                self.refuse_ticket(cx, now, why);
            }
        }
    }

    fn refuse_ticket(&mut self, cx: &mut Context, now: Instant, why: &str) {
        let Phase::AuthResponder(auth) = &self.phase else {
            return;
        };
        let failure = IkeFailure::PeerNotProven {
            local: auth.local_id.clone(),
            remote: auth.peer.identity.clone(),
            reason: format!("{why}: it will come without a ticket"),
        };
        self.refuse(cx, now, failure);
    }
}

struct Claim {
    identity: Identity,
    proof: Option<PeerProof>,
}

/// Whether a connection accepts the algorithms that were negotiated before it was known.
pub(crate) fn offers(connection: &Connection, alg: &IkeAlgorithms) -> bool {
    connection.ike_proposals.iter().any(|proposal| {
        proposal.encr.contains(&alg.encr)
            && proposal.prf.contains(&alg.prf)
            && proposal.ke.contains(&alg.ke)
            && (alg.encr.is_aead() || proposal.integ.contains(&alg.integ))
    })
}

/// Whether a connection takes signatures of the scheme that this one claims to be of.
fn takes_signature(connection: &Connection, peer: &PeerProof) -> bool {
    let scheme = match peer.method {
        AuthMethod::DIGITAL_SIGNATURE => {
            let read = SignatureScheme::from_auth_data(&peer.data);
            read.ok().map(|(scheme, _)| scheme)
        }
        old => SignatureScheme::of_method(old),
    };
    scheme.is_none_or(|scheme| connection.remote.signatures.contains(scheme))
}

fn method_fits(connection: &Connection, method: AuthMethod) -> bool {
    let wanted = &connection.remote.method;
    wanted.takes_psk() && method == AuthMethod::SHARED_KEY
        || wanted.takes_signatures() && is_signature(method)
}
