//! Authentication of the IKE SA, RFC 7296 section 2.15: what is signed, and the proof that the
//! peer's AUTH payload verified.

use std::fmt;

use subtle::ConstantTimeEq;

use crate::crypto::prf::Prf;
use crate::crypto::secret::Secret;
use crate::crypto::signature::{PublicKey, SignatureScheme, Signatures};
use crate::keys::IkeKeys;
use crate::wire::AuthMethod;

/// What turns a shared secret into the key of AUTH.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// The octets that the initiator's AUTH covers.
#[derive(Clone, Eq, PartialEq)]
pub struct InitiatorSignedOctets(Vec<u8>);

/// The octets that the responder's AUTH covers.
#[derive(Clone, Eq, PartialEq)]
pub struct ResponderSignedOctets(Vec<u8>);

impl InitiatorSignedOctets {
    /// `RealMessage1 | NonceRData | prf(SK_pi, RestOfInitIDPayload)`.
    ///
    /// `message` is the last IKE_SA_INIT request as it was on the wire, without non-ESP marker;
    /// `id_i_body` the ID payload as it was on the wire, without its generic header.
    pub fn new(message: &[u8], nr: &[u8], keys: &IkeKeys, id_i_body: &[u8]) -> Self {
        Self(signed_octets(
            keys.prf(),
            message,
            nr,
            keys.sk_pi.expose(),
            id_i_body,
        ))
    }

    /// For [`Ask::Sign`](crate::event::Ask::Sign).
    pub fn into_octets(self) -> Vec<u8> {
        self.0
    }
}

impl ResponderSignedOctets {
    /// `RealMessage2 | NonceIData | prf(SK_pr, RestOfRespIDPayload)`.
    ///
    /// `message` is the IKE_SA_INIT reply as it was on the wire, without non-ESP marker;
    /// `id_r_body` the ID payload as it was on the wire, without its generic header.
    pub fn new(message: &[u8], ni: &[u8], keys: &IkeKeys, id_r_body: &[u8]) -> Self {
        Self(signed_octets(
            keys.prf(),
            message,
            ni,
            keys.sk_pr.expose(),
            id_r_body,
        ))
    }

    /// For [`Ask::Sign`](crate::event::Ask::Sign).
    pub fn into_octets(self) -> Vec<u8> {
        self.0
    }
}

//= security S-26
fn signed_octets(prf: Prf, message: &[u8], nonce: &[u8], sk_p: &[u8], id_body: &[u8]) -> Vec<u8> {
    let maced_id = prf.compute(sk_p, &[id_body]);
    [message, nonce, maced_id.expose()].concat()
}

mod sealed {
    pub trait Sealed {
        fn octets(&self) -> &[u8];
    }
}

/// [`InitiatorSignedOctets`] or [`ResponderSignedOctets`].
pub trait SignedOctets: sealed::Sealed {}

impl sealed::Sealed for InitiatorSignedOctets {
    fn octets(&self) -> &[u8] {
        &self.0
    }
}
impl sealed::Sealed for ResponderSignedOctets {
    fn octets(&self) -> &[u8] {
        &self.0
    }
}
impl SignedOctets for InitiatorSignedOctets {}
impl SignedOctets for ResponderSignedOctets {}

/// An AUTH payload, RFC 7296 section 3.8.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Proof<'a> {
    /// Auth Method.
    pub method: AuthMethod,
    /// Authentication Data.
    pub data: &'a [u8],
}

/// The peer's AUTH payload verified. Only this module makes one.
#[derive(Debug)]
#[must_use = "an IKE SA is established with this"]
pub struct AuthVerified {
    by: ProvenBy,
    /// Which of the keys it was that made the signature.
    key: Option<usize>,
}

impl AuthVerified {
    /// What proved it.
    pub fn by(&self) -> ProvenBy {
        self.by
    }

    /// Which of the keys it was that made the signature.
    pub(crate) fn key(&self) -> Option<usize> {
        self.key
    }

    fn without_key(by: ProvenBy) -> Self {
        Self { by, key: None }
    }
}

/// What a peer has proven by who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProvenBy {
    /// A shared secret.
    Secret,
    /// A signature.
    Signature {
        /// How it was made.
        scheme: SignatureScheme,
        /// The size of the key.
        key_bits: u32,
    },
    /// The keys of an IKE SA that was lost (RFC 5723).
    Ticket,
}

/// Why the peer's AUTH payload does not prove what it should, in words that say which side
/// must change what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AuthError {
    /// Shared secrets differ.
    WrongSecret,
    /// Our secret is empty, which would prove anybody.
    EmptySecret,
    /// None of the configured keys made the signature.
    WrongKey {
        /// How the signature claims to be made.
        scheme: SignatureScheme,
        /// How many keys of that type were tried.
        tried: usize,
    },
    /// The signature is of a type of which no key is configured.
    KeyType {
        /// How the signature claims to be made.
        scheme: SignatureScheme,
    },
    /// The peer authenticates with another method than configured here.
    MethodMismatch {
        /// What is configured: `psk` or `pubkey`.
        expected: &'static str,
        /// What came.
        got: AuthMethod,
    },
    /// AUTH method 14 with an AlgorithmIdentifier that obol does not accept.
    UnsupportedScheme,
    /// An IKE SA was resumed by somebody who does not know the keys of the old one.
    WrongResumption,
    /// AUTH method 1 with SHA-1, without the option that allows it.
    Sha1NotAllowed,
    /// A scheme that the configuration leaves out.
    NotAccepted {
        /// How the signature claims to be made.
        scheme: SignatureScheme,
        /// How it may be made.
        accepted: Signatures,
    },
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongSecret => f.write_str(
                "the shared secrets differ: put the same secret for this pair of identities \
                 on both sides",
            ),
            Self::EmptySecret => f.write_str("our shared secret is empty: set one on both sides"),
            Self::WrongKey { scheme, tried } => write!(
                f,
                "the peer's signature ({scheme}) was not made with any of the {tried} matching \
                 public keys configured here: copy the peer's public key into `pubkeys` on \
                 this side, or give the peer its old private key back"
            ),
            Self::KeyType { scheme } => write!(
                f,
                "the peer signs with {scheme}, and no public key of that type is configured \
                 here: add the peer's public key to `pubkeys` on this side"
            ),
            Self::MethodMismatch { expected, got } => write!(
                f,
                "the peer authenticates with {}, this side expects `{expected}`: make the \
                 peer's local auth and our remote auth the same",
                method_words(*got)
            ),
            Self::WrongResumption => f.write_str(
                "it presents the ticket of an IKE SA without knowing the keys of that: somebody \
                 has copied the ticket, or the peer is broken",
            ),
            Self::UnsupportedScheme => f.write_str(
                "the peer's signature algorithm is not accepted: let the peer sign with RSA or ECDSA \
                 and SHA-2, or with Ed25519",
            ),
            Self::Sha1NotAllowed => f.write_str(
                "the peer signs with RSA and SHA-1 (AUTH method 1): enable RFC 7427 signatures \
                 on the peer, or set allow_sha1_rsa on this side",
            ),
            Self::NotAccepted { scheme, accepted } => not_accepted(f, *scheme, *accepted),
        }
    }
}

impl std::error::Error for AuthError {}

fn not_accepted(
    f: &mut fmt::Formatter<'_>,
    scheme: SignatureScheme,
    accepted: Signatures,
) -> fmt::Result {
    write!(
        f,
        "the peer signs with {scheme}, and this side accepts {accepted} only (`signatures`, or authby= of \
         ipsec.conf): "
    )?;
    let mut rsa = SignatureScheme::RSA.into_iter();
    let takes_pss = rsa.any(|rsa| !rsa.is_rsa_pkcs1() && accepted.contains(rsa));
    let pss_instead = scheme.is_rsa_pkcs1() && takes_pss;
    f.write_str(match pss_instead {
        true => {
            "have the peer sign with RSASSA-PSS (strongSwan: `charon.rsa_pss = yes` in strongswan.conf), or \
             accept rsa-pkcs1 (authby=rsasig) on this side"
        }
        false => "have the peer sign so, or accept that on this side",
    })
}

fn method_words(method: AuthMethod) -> String {
    match method {
        AuthMethod::SHARED_KEY => "a shared secret".into(),
        method if is_signature(method) => "a signature".into(),
        other => format!("method {other}"),
    }
}

/// Whether a signature proves whoever uses this method.
pub(crate) fn is_signature(method: AuthMethod) -> bool {
    method == AuthMethod::DIGITAL_SIGNATURE || SignatureScheme::of_method(method).is_some()
}

/// What is accepted of a signature.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SignatureOptions {
    /// AUTH method 1, RSA with SHA-1.
    pub allow_sha1_rsa: bool,
    /// The schemes.
    pub accepted: Signatures,
}

/// Our Authentication Data of AUTH method 2:
/// `prf(prf(Shared Secret, "Key Pad for IKEv2"), octets)`.
pub fn psk_auth_data(prf: Prf, secret: &Secret, octets: &impl SignedOctets) -> Vec<u8> {
    psk_mac(prf, secret, octets).expose().to_vec()
}

//= security S-27
fn psk_mac(prf: Prf, secret: &Secret, octets: &impl SignedOctets) -> Secret {
    let key = prf.compute(secret.expose(), &[KEY_PAD]);
    prf.compute(key.expose(), &[octets.octets()])
}

//= rfc7427 3-2
/// Our Auth Method and Authentication Data for a signature made with `scheme`.
pub fn signature_auth(scheme: SignatureScheme, signature: &[u8]) -> (AuthMethod, Vec<u8>) {
    (scheme.method(), scheme.to_auth_data(signature))
}

//= rfc7296 1.2-2
/// Checks a peer that should know a shared secret. `octets` are those of the peer's role.
///
/// # Errors
/// [`AuthError`]; the peer learns no more than AUTHENTICATION_FAILED of it.
pub fn verify_psk(
    prf: Prf,
    secret: &Secret,
    octets: &impl SignedOctets,
    proof: Proof<'_>,
) -> Result<AuthVerified, AuthError> {
    if proof.method != AuthMethod::SHARED_KEY {
        return Err(AuthError::MethodMismatch {
            expected: "psk",
            got: proof.method,
        });
    }
    if secret.is_empty() {
        return Err(AuthError::EmptySecret);
    }
    let expected = psk_mac(prf, secret, octets);
    if bool::from(expected.expose().ct_eq(proof.data)) {
        Ok(AuthVerified::without_key(ProvenBy::Secret))
    } else {
        Err(AuthError::WrongSecret)
    }
}

/// The Authentication Data of one end of a resumed IKE SA, RFC 5723 section 4.3.3:
/// `prf(SK_px, octets)`. `sk_p` is SK_pi for the initiator's octets, SK_pr for the responder's,
/// of the new keys.
pub fn resumption_auth_data(prf: Prf, sk_p: &[u8], octets: &impl SignedOctets) -> Vec<u8> {
    prf.compute(sk_p, &[octets.octets()]).expose().to_vec()
}

/// Checks a peer that resumes an IKE SA; see [`resumption_auth_data`]. `octets` are those of the
/// peer's role.
///
/// # Errors
/// [`AuthError`]; the peer learns no more than AUTHENTICATION_FAILED of it.
pub fn verify_resumption(
    prf: Prf,
    sk_p: &[u8],
    octets: &impl SignedOctets,
    proof: Proof<'_>,
) -> Result<AuthVerified, AuthError> {
    let expected = prf.compute(sk_p, &[octets.octets()]);
    let same = bool::from(expected.expose().ct_eq(proof.data));
    if same && proof.method == AuthMethod::SHARED_KEY {
        Ok(AuthVerified::without_key(ProvenBy::Ticket))
    } else {
        Err(AuthError::WrongResumption)
    }
}

//= rfc7296 1.2-2 3.8-1
//= security S-42
/// Checks a peer that should have the private half of one of `keys`. `octets` are those of the
/// peer's role.
///
/// # Errors
/// [`AuthError`]; the peer learns no more than AUTHENTICATION_FAILED of it.
pub fn verify_signature(
    keys: &[PublicKey],
    octets: &impl SignedOctets,
    proof: Proof<'_>,
    options: SignatureOptions,
) -> Result<AuthVerified, AuthError> {
    let (scheme, signature) = match proof.method {
        AuthMethod::DIGITAL_SIGNATURE => {
            SignatureScheme::from_auth_data(proof.data).map_err(|_| AuthError::UnsupportedScheme)?
        }
        AuthMethod::RSA if !options.allow_sha1_rsa => return Err(AuthError::Sha1NotAllowed),
        got => match SignatureScheme::of_method(got) {
            Some(scheme) => (scheme, proof.data),
            None => {
                return Err(AuthError::MethodMismatch {
                    expected: "pubkey",
                    got,
                });
            }
        },
    };
    let accepted = options.accepted;
    if !accepted.contains(scheme) {
        return Err(AuthError::NotAccepted { scheme, accepted });
    }
    let made = |key: &PublicKey| {
        key.fits(scheme) && key.verify(scheme, octets.octets(), signature).is_ok()
    };
    if let Some(key) = keys.iter().position(made) {
        let key_bits = keys[key].bits();
        let by = ProvenBy::Signature { scheme, key_bits };
        return Ok(AuthVerified { by, key: Some(key) });
    }
    match keys.iter().filter(|key| key.fits(scheme)).count() {
        0 => Err(AuthError::KeyType { scheme }),
        tried => Err(AuthError::WrongKey { scheme, tried }),
    }
}
