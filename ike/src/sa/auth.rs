//! What both roles of IKE_AUTH share: the transcript that AUTH covers, our proof, the check of
//! the peer's.

use std::time::Instant;

use bytes::Bytes;

use crate::auth::{
    AuthError, AuthVerified, Proof, SignatureOptions, SignedOctets, psk_auth_data,
    resumption_auth_data, signature_auth, verify_psk, verify_resumption, verify_signature,
};
use crate::config::{Connection, LocalAuthMethod};
use crate::context::{Context, Waiting};
use crate::crypto::prf::Prf;
use crate::crypto::secret::Secret;
use crate::crypto::signature::{PublicKey, SignatureScheme, Signatures};
use crate::error::IkeFailure;
use crate::event::{Answer, Ask};
use crate::exchange::session::Session;
use crate::holdings::{Mark, names_peer};
use crate::identity::Identity;
use crate::sa::methods::AuthMethods;
use crate::sa::{IkeSa, Role};
use crate::wire::{AuthMethod, HashId};

/// IKE_SA_INIT, or IKE_SESSION_RESUME, as it was on the wire.
pub(crate) struct Transcript {
    pub(crate) ni: Vec<u8>,
    pub(crate) nr: Vec<u8>,
    /// The request that was answered, and the reply.
    pub(crate) message1: Bytes,
    pub(crate) message2: Bytes,
    /// What the peer verifies signatures with; `None` without RFC 7427.
    pub(crate) peer_hashes: Option<Vec<HashId>>,
    /// How the peer wants us to prove ourselves; `None` without RFC 9593.
    pub(crate) peer_methods: Option<AuthMethods>,
}

impl Transcript {
    /// The lower of the two nonces, by octets.
    pub(crate) fn lowest_nonce(&self) -> Vec<u8> {
        (&self.ni).min(&self.nr).clone()
    }
}

/// An AUTH payload of the peer, kept while its check waits for a secret.
pub(crate) struct PeerProof {
    pub(crate) identity: Identity,
    /// The ID payload's body as it came.
    pub(crate) id_body: Vec<u8>,
    pub(crate) method: AuthMethod,
    pub(crate) data: Vec<u8>,
}

impl PeerProof {
    fn proof(&self) -> Proof<'_> {
        Proof {
            method: self.method,
            data: &self.data,
        }
    }
}

/// Our AUTH payload and the ID payload it is about.
pub(crate) struct OwnProof {
    pub(crate) id_body: Vec<u8>,
    pub(crate) method: AuthMethod,
    pub(crate) data: Vec<u8>,
}

/// A shared secret, and whose it is.
pub(crate) struct KnownSecret {
    pub(crate) remote: Identity,
    pub(crate) secret: Secret,
    /// Others have it, too.
    pub(crate) of_group: bool,
}

/// An answer to a question for a secret, and whether others have it, too.
pub(crate) fn of_group(answer: Answer) -> (Answer, bool) {
    match answer {
        Answer::GroupPsk(secret) => (Answer::Psk(Some(secret)), true),
        answer => (answer, false),
    }
}

/// With what we prove ourselves.
#[derive(Clone, Debug)]
pub(crate) enum OwnMethod {
    Psk,
    Signature(Box<PublicKey>, SignatureScheme),
}

//= rfc7296 3.8-1
//= rfc7427 3-2
/// How we prove ourselves to a peer that has said what it accepts.
pub(crate) fn own_method(
    connection: &Connection,
    transcript: &Transcript,
) -> Result<OwnMethod, IkeFailure> {
    let peer_hashes = transcript.peer_hashes.as_deref();
    let methods = transcript.peer_methods.as_ref();
    let key = match &connection.local.method {
        LocalAuthMethod::Psk => return psk_method(methods),
        LocalAuthMethod::Key(key) => key,
    };
    let (allow_sha1, among) = (connection.allow_sha1_rsa, connection.local.signatures);
    let scheme = match (methods, peer_hashes) {
        (Some(methods), hashes) => methods.choose(key, hashes, allow_sha1, among),
        (None, Some(hashes)) => SignatureScheme::choose(key, hashes, among),
        (None, None) => key
            .old_scheme(allow_sha1)
            .filter(|old| among.contains(*old)),
    };
    match scheme {
        Some(scheme) => Ok(OwnMethod::Signature(Box::new(key.clone()), scheme)),
        None => Err(IkeFailure::Credentials(format!(
            "the peer does not verify signatures of our {} key{}: it announces {}; update the peer \
             or use another kind of key on this side",
            key.kind(),
            made_with(among),
            announced(peer_hashes, methods),
        ))),
    }
}

/// ` with rsa-pss`, where signatures are not made with just anything.
fn made_with(signatures: Signatures) -> String {
    match signatures {
        Signatures::ALL => String::new(),
        some => format!(" with {some}"),
    }
}

/// A shared secret, unless the peer has said that it takes none: then trying tells it nothing
/// but who we are.
fn psk_method(methods: Option<&AuthMethods>) -> Result<OwnMethod, IkeFailure> {
    match methods {
        Some(methods) if !methods.takes_psk() => Err(IkeFailure::Credentials(format!(
            "the peer takes no shared secret: it announces {methods}; make the local auth of this \
             side and the remote auth of the peer the same"
        ))),
        _ => Ok(OwnMethod::Psk),
    }
}

fn announced(hashes: Option<&[HashId]>, methods: Option<&AuthMethods>) -> String {
    match (hashes, methods) {
        (None, _) => "no SIGNATURE_HASH_ALGORITHMS (RFC 7427)".to_owned(),
        (Some(_), Some(methods)) => methods.to_string(),
        (Some(hashes), None) => {
            let names: Vec<String> = hashes.iter().map(ToString::to_string).collect();
            format!("the hashes {}", names.join(", "))
        }
    }
}

/// The peer's proof checked against a connection.
pub(crate) enum Check {
    Verified(AuthVerified),
    /// The shared secret with this peer is needed first.
    NeedsSecret,
    Failed(AuthError),
}

//= rfc7296 1.2-2 1.2-3
/// Checks the peer's proof of what `octets` makes. `secret` is the shared one, if it is known
/// already.
pub(crate) fn check_peer<O: SignedOctets>(
    connection: &Connection,
    prf: Prf,
    octets: impl FnOnce() -> O,
    peer: &PeerProof,
    secret: Option<&KnownSecret>,
) -> Check {
    let method = &connection.remote.method;
    let by_secret =
        !method.takes_signatures() || method.takes_psk() && peer.method == AuthMethod::SHARED_KEY;
    let result = match by_secret {
        true => match secret {
            Some(known) if known.remote == peer.identity => {
                verify_psk(prf, &known.secret, &octets(), peer.proof())
            }
            _ if peer.method != AuthMethod::SHARED_KEY => Err(AuthError::MethodMismatch {
                expected: "psk",
                got: peer.method,
            }),
            _ => return Check::NeedsSecret,
        },
        false => {
            let options = SignatureOptions {
                allow_sha1_rsa: connection.allow_sha1_rsa,
                accepted: connection.remote.signatures,
            };
            verify_signature(method.keys(), &octets(), peer.proof(), options)
        }
    };
    match result {
        Ok(verified) => Check::Verified(verified),
        Err(error) => Check::Failed(error),
    }
}

impl Session {
    //= rfc5723 4.3.3-2 4.3.3-4
    /// Checks the proof of a peer that resumes this. `sk_p` is the peer's, of the new keys.
    pub(crate) fn check(
        &self,
        prf: Prf,
        sk_p: &[u8],
        octets: &impl SignedOctets,
        peer: &PeerProof,
    ) -> Check {
        if peer.identity != self.remote_id {
            return Check::Failed(AuthError::WrongResumption);
        }
        match verify_resumption(prf, sk_p, octets, peer.proof()) {
            Ok(verified) => Check::Verified(verified),
            Err(error) => Check::Failed(error),
        }
    }
}

/// Our AUTH payload on an IKE SA that is resumed. `sk_p` is ours, of the new keys.
pub(crate) fn resumption_proof(
    prf: Prf,
    sk_p: &[u8],
    octets: &impl SignedOctets,
    id_body: Vec<u8>,
) -> OwnProof {
    OwnProof {
        id_body,
        method: AuthMethod::SHARED_KEY,
        data: resumption_auth_data(prf, sk_p, octets),
    }
}

/// Our AUTH payload made with a shared secret.
pub(crate) fn psk_proof(
    prf: Prf,
    secret: &Secret,
    octets: &impl SignedOctets,
    id_body: Vec<u8>,
) -> OwnProof {
    OwnProof {
        id_body,
        method: AuthMethod::SHARED_KEY,
        data: psk_auth_data(prf, secret, octets),
    }
}

/// Our AUTH payload around a signature.
pub(crate) fn signature_proof(
    scheme: SignatureScheme,
    signature: &[u8],
    id_body: Vec<u8>,
) -> OwnProof {
    let (method, data) = signature_auth(scheme, signature);
    OwnProof {
        id_body,
        method,
        data,
    }
}

impl IkeSa {
    /// What we claim to be: as configured, else our address.
    pub(crate) fn local_id(&self) -> Identity {
        let id = self.connection.local.id.clone();
        id.unwrap_or_else(|| Identity::from(self.path.local.ip()))
    }

    /// What the peer is expected to be: as configured, else its address.
    pub(crate) fn expected_remote_id(&self) -> Identity {
        let id = self.connection.remote.id.clone();
        id.unwrap_or_else(|| Identity::from(self.path.remote.ip()))
    }

    /// What tells the peer from others that may call themselves the same.
    pub(crate) fn mark_of_peer(
        &self,
        verified: &AuthVerified,
        secret: Option<&KnownSecret>,
    ) -> Mark {
        let keys = self.connection.remote.method.keys();
        match verified.key().and_then(|at| keys.get(at)) {
            _ if names_peer(&self.connection) => Mark::Name,
            Some(key) => Mark::Key(Box::new(key.clone())),
            // One that is resumed has shown its ticket, and where it is.
            None if secret.is_none_or(|known| known.of_group) => Mark::Address,
            None => Mark::Name,
        }
    }

    pub(crate) fn ask_psk(&self, cx: &mut Context, local: Identity, remote: Identity) {
        let is_open = self.connection.remote.id.is_none();
        let ask = Ask::Psk {
            connection: self.connection.name.clone(),
            local,
            remote,
            address: is_open.then(|| self.path.remote.ip()),
        };
        cx.ask(Waiting::Auth(self.id, self.ordinal()), ask);
    }

    /// Our side lacks the secret for a pair of identities, or has one too many.
    pub(crate) fn no_secret(&self, local: &Identity, remote: &Identity) -> IkeFailure {
        let at = self.path.remote.ip();
        let is_open = self.connection.remote.id.is_none() && *remote != Identity::from(at);
        IkeFailure::Credentials(match is_open {
            true => format!(
                "no shared secret for {local} and {remote} at {at}: add one for these identities \
                 on this side; where the secret for {at} is another one, {remote} needs a \
                 connection of its own with it as the remote id"
            ),
            false => format!(
                "no shared secret for {local} and {remote}: add one for these identities on this side"
            ),
        })
    }

    //= security S-28
    /// Whether the peer of a connection that leaves open who it is may claim this identity: an
    /// address is the one that it has, or one of those that the connection says it has. A NAT changes
    /// that, and a peer can pretend to be behind one, so this is never all that keeps peers apart.
    pub(crate) fn may_claim(
        &self,
        connection: &Connection,
        local: &Identity,
        identity: &Identity,
    ) -> Result<(), IkeFailure> {
        let is_address = matches!(identity, Identity::Ipv4(_) | Identity::Ipv6(_));
        let mut listed = connection.remote_addrs.iter();
        let is_listed = listed.any(|address| *identity == Identity::from(*address));
        let translated = self.nat.remote && connection.nat_traversal;
        let at = self.path.remote.ip();
        let is_own = is_listed || *identity == Identity::from(at);
        if !is_address || translated || !is_shared(connection) || is_own {
            return Ok(());
        }
        Err(IkeFailure::PeerNotProven {
            local: local.clone(),
            remote: identity.clone(),
            reason: format!(
                "it claims to be {identity} and comes from {at}, and no NAT is in between: change \
                 the peer's local id, or write \"{identity}\" as the remote id on this side"
            ),
        })
    }

    pub(crate) fn ask_signature(
        &self,
        cx: &mut Context,
        key: PublicKey,
        scheme: SignatureScheme,
        octets: Vec<u8>,
    ) {
        let ask = Ask::Sign {
            key,
            scheme,
            octets,
        };
        cx.ask(Waiting::Auth(self.id, self.ordinal()), ask);
    }

    /// Takes the answer that the authentication waits for.
    pub(crate) fn on_auth_answer(
        &mut self,
        cx: &mut Context,
        now: Instant,
        claim: u32,
        answer: Answer,
    ) {
        if self.role == Role::Responder {
            self.on_responder_answer(cx, now, answer);
        } else if self.bring_forward(claim) {
            self.on_initiator_answer(cx, now, answer);
        }
    }
}

/// The secret of the identity that the peer claims is not the one that we have proven ourselves
/// with to whoever is at its address.
pub(crate) fn another_secret(
    local: Identity,
    remote: Identity,
    proven_to: &Identity,
) -> IkeFailure {
    let reason = format!(
        "the secret of {remote} is another one than that of {proven_to}, which this side began with: \
         let it have the same, or write \"{remote}\" as the remote id on this side"
    );
    IkeFailure::PeerNotProven {
        local,
        remote,
        reason,
    }
}

/// Whether several have credentials that open this connection, so that nothing but what a peer says
/// tells which of them it is.
fn is_shared(connection: &Connection) -> bool {
    !names_peer(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::InitiatorSignedOctets;
    use crate::event::IkeSpi;
    use crate::exchange::session::tests::session;
    use crate::keys::IkeKeys;

    //= test rfc5723 4.3.3-4
    #[test]
    fn who_knows_the_keys_is_not_whoever_it_likes() {
        let session = session(Instant::now());
        let (ni, nr) = ([1; 32], [2; 32]);
        let (spi_i, spi_r) = (IkeSpi(1), IkeSpi(2));
        let keys = IkeKeys::resume(&session.alg, &session.sk_d, &ni, &nr, spi_i, spi_r);
        let keys = keys.expect("obol has these algorithms");
        let check = |identity: &Identity| {
            let id_body = identity.to_body();
            let octets = InitiatorSignedOctets::new(b"message", &nr, &keys, &id_body);
            let sk_p = keys.sk_pi.expose();
            let own = resumption_proof(keys.prf(), sk_p, &octets, id_body.clone());
            let peer = PeerProof {
                identity: identity.clone(),
                id_body,
                method: own.method,
                data: own.data,
            };
            session.check(keys.prf(), sk_p, &octets, &peer)
        };
        let (own, other) = (&session.remote_id, &session.local_id);
        assert!(matches!(check(own), Check::Verified(_)));
        assert!(matches!(check(other), Check::Failed(_)));
    }
}
