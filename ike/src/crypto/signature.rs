//! Signatures that authenticate an IKE SA (RFC 7427, RFC 8420, RFC 4754) and the keys that verify them.

use std::fmt;
use std::sync::Arc;

use crypto_bigint::Integer as _;
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{BoxedUint, Pkcs1v15Sign, Pss};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::algorithm_identifier;
use super::ecdsa::{Curve, EcdsaPublic, Form};
use crate::wire::{AuthMethod, HashId};

mod accepted;

pub use accepted::{Signatures, UnknownSignature};

/// A public key that has passed its sanity checks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PublicKey {
    /// RSA, 2048 to 8192 bits, public exponent odd and at least 65537.
    Rsa(Arc<rsa::RsaPublicKey>),
    /// Ed25519, RFC 8032.
    Ed25519(ed25519_dalek::VerifyingKey),
    /// ECDSA on a NIST curve.
    Ecdsa(EcdsaPublic),
}

/// How a signature is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5 with SHA-1, AUTH method 1. Only by explicit option.
    RsaPkcs1Sha1,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA-256, MGF1 with the same hash, salt of the hash's length.
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384.
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512.
    RsaPssSha512,
    /// Ed25519 over the octets themselves (hash "Identity", RFC 8420).
    Ed25519,
    /// ECDSA with SHA-256, on any curve.
    EcdsaSha256,
    /// ECDSA with SHA-384, on any curve.
    EcdsaSha384,
    /// ECDSA with SHA-512, on any curve.
    EcdsaSha512,
    /// ECDSA with SHA-256 on P-256, AUTH method 9 (RFC 4754): for peers without RFC 7427, like the next two.
    EcdsaP256,
    /// ECDSA with SHA-384 on P-384, AUTH method 10.
    EcdsaP384,
    /// ECDSA with SHA-512 on P-521, AUTH method 11.
    EcdsaP521,
}

/// The signature does not verify, or key and scheme do not fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadSignature;

/// Why a public key is not used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadKey {
    /// Too short to be safe, or too long to be worth the work.
    #[error("the RSA key has {0} bits; 2048 to 8192 are accepted")]
    RsaSize(u32),
    /// The modulus is even or otherwise no modulus.
    #[error("the RSA modulus is not one")]
    RsaModulus,
    /// The exponent is even, below 65537, or absurdly large.
    #[error("the RSA public exponent must be odd, at least 65537 and below 2^33")]
    RsaExponent,
    /// Not an encoding of a point, or of one of small order.
    #[error("the octets are no Ed25519 public key")]
    Ed25519,
    /// Not a point of the curve, or the one at infinity.
    #[error("the octets are no point of the curve {0}")]
    Point(Curve),
}

/// The AlgorithmIdentifier of an AUTH payload is none of those that obol accepts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnsupportedScheme;

impl PublicKey {
    /// An RSA key from modulus and public exponent, big-endian.
    ///
    /// # Errors
    /// [`BadKey`], where the key is weak or no RSA key at all.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, BadKey> {
        let bits = significant_bits(modulus);
        if !(2048..=8192).contains(&bits) {
            return Err(BadKey::RsaSize(bits));
        }
        // The crate's own limit is 33 bits.
        if significant_bits(exponent) > 33 {
            return Err(BadKey::RsaExponent);
        }
        let n = BoxedUint::from_be_slice_vartime(without_zeros(modulus));
        let e = BoxedUint::from_be_slice_vartime(without_zeros(exponent));
        if !bool::from(n.is_odd()) {
            return Err(BadKey::RsaModulus);
        }
        if !bool::from(e.is_odd()) || e < BoxedUint::from(65537u32) {
            return Err(BadKey::RsaExponent);
        }
        let key = rsa::RsaPublicKey::new(n, e).map_err(|_| BadKey::RsaModulus)?;
        Ok(Self::Rsa(Arc::new(key)))
    }

    /// Checks a key that the `rsa` crate holds.
    ///
    /// # Errors
    /// As [`rsa`](Self::rsa).
    pub(super) fn from_rsa(key: &rsa::RsaPublicKey) -> Result<Self, BadKey> {
        Self::rsa(&key.n().to_be_bytes(), &key.e().to_be_bytes())
    }

    /// An Ed25519 key from its 32 octets.
    ///
    /// # Errors
    /// [`BadKey::Ed25519`], also for points of small order, under which anybody could sign.
    pub fn ed25519(octets: &[u8]) -> Result<Self, BadKey> {
        let octets = octets.try_into().map_err(|_| BadKey::Ed25519)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(octets).map_err(|_| BadKey::Ed25519)?;
        if key.is_weak() {
            return Err(BadKey::Ed25519);
        }
        Ok(Self::Ed25519(key))
    }

    /// Whether `signature` over `octets` was made by the private half, with this scheme.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(
        &self,
        scheme: SignatureScheme,
        octets: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        if !self.fits(scheme) {
            return Err(BadSignature);
        }
        match self {
            Self::Rsa(key) => verify_rsa(key, scheme, octets, signature),
            Self::Ecdsa(key) => key.verify(scheme.form(), &scheme.digest(octets), signature),
            Self::Ed25519(key) => {
                let signature =
                    ed25519_dalek::Signature::from_slice(signature).map_err(|_| BadSignature)?;
                key.verify_strict(octets, &signature)
                    .map_err(|_| BadSignature)
            }
        }
    }

    /// The schemes of this key's signatures with an AlgorithmIdentifier, the best first.
    pub(crate) fn schemes(&self) -> &'static [SignatureScheme] {
        use SignatureScheme as S;
        match self {
            Self::Rsa(_) => &S::RSA,
            Self::Ed25519(_) => &[S::Ed25519],
            // The hash that is as strong as the curve, then what is stronger.
            Self::Ecdsa(key) => match key.curve() {
                Curve::P256 => &[S::EcdsaSha256, S::EcdsaSha384, S::EcdsaSha512],
                Curve::P384 => &[S::EcdsaSha384, S::EcdsaSha512, S::EcdsaSha256],
                Curve::P521 => &[S::EcdsaSha512, S::EcdsaSha384],
            },
        }
    }

    /// The scheme of AUTH methods from before RFC 7427, if a peer does not know that.
    pub(crate) fn old_scheme(&self, allow_sha1_rsa: bool) -> Option<SignatureScheme> {
        match self {
            Self::Rsa(_) => allow_sha1_rsa.then_some(SignatureScheme::RsaPkcs1Sha1),
            Self::Ed25519(_) => None,
            Self::Ecdsa(key) => Some(match key.curve() {
                Curve::P256 => SignatureScheme::EcdsaP256,
                Curve::P384 => SignatureScheme::EcdsaP384,
                Curve::P521 => SignatureScheme::EcdsaP521,
            }),
        }
    }

    /// Whether signatures of this scheme are made with keys of this type.
    pub fn fits(&self, scheme: SignatureScheme) -> bool {
        self.schemes().contains(&scheme) || self.old_scheme(true) == Some(scheme)
    }

    /// SubjectPublicKeyInfo, RFC 5280 section 4.1, in DER.
    pub fn to_spki_der(&self) -> Vec<u8> {
        let document = match self {
            Self::Rsa(key) => key.to_public_key_der(),
            Self::Ed25519(key) => key.to_public_key_der(),
            Self::Ecdsa(key) => key.to_spki_der(),
        };
        document
            .expect("keys of these sizes always have an encoding")
            .into_vec()
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the same key gives the same fingerprint in
    /// whatever format it was written down.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.to_spki_der()).into()
    }

    /// Its size in bits: that of the modulus, or of the curve's field.
    pub fn bits(&self) -> u32 {
        match self {
            Self::Rsa(key) => key.n().bits_vartime(),
            Self::Ed25519(_) => 256,
            Self::Ecdsa(key) => match key.curve() {
                Curve::P256 => 256,
                Curve::P384 => 384,
                Curve::P521 => 521,
            },
        }
    }

    /// `RSA 3072`, `Ed25519` or `ECDSA P-256`.
    pub fn kind(&self) -> String {
        match self {
            Self::Rsa(_) => format!("RSA {}", self.bits()),
            Self::Ed25519(_) => "Ed25519".into(),
            Self::Ecdsa(key) => format!("ECDSA {}", key.curve()),
        }
    }
}

/// The kind and the start of the fingerprint, for logs: `Ed25519 1f0e..`.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} SHA256:", self.kind())?;
        self.fingerprint()
            .iter()
            .take(8)
            .try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

fn verify_rsa(
    key: &rsa::RsaPublicKey,
    scheme: SignatureScheme,
    octets: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    use SignatureScheme as S;
    // RFC 8017 section 8.1.2 step 1: neither shorter nor with zeros in front.
    if signature.len() != key.size() {
        return Err(BadSignature);
    }
    let digest = scheme.digest(octets);
    let verified = match scheme {
        S::RsaPkcs1Sha1 => key.verify(Pkcs1v15Sign::new::<Sha1>(), &digest, signature),
        S::RsaPkcs1Sha256 => key.verify(Pkcs1v15Sign::new::<Sha256>(), &digest, signature),
        S::RsaPkcs1Sha384 => key.verify(Pkcs1v15Sign::new::<Sha384>(), &digest, signature),
        S::RsaPkcs1Sha512 => key.verify(Pkcs1v15Sign::new::<Sha512>(), &digest, signature),
        S::RsaPssSha256 => key.verify(Pss::<Sha256>::new(), &digest, signature),
        S::RsaPssSha384 => key.verify(Pss::<Sha384>::new(), &digest, signature),
        S::RsaPssSha512 => key.verify(Pss::<Sha512>::new(), &digest, signature),
        _ => return Err(BadSignature),
    };
    verified.map_err(|_| BadSignature)
}

impl SignatureScheme {
    /// What RSA keys sign with, the best first: RFC 8247 section 3.2 asks for PSS with SHA-256.
    pub(crate) const RSA: [Self; 6] = [
        Self::RsaPssSha256,
        Self::RsaPssSha384,
        Self::RsaPssSha512,
        Self::RsaPkcs1Sha256,
        Self::RsaPkcs1Sha384,
        Self::RsaPkcs1Sha512,
    ];

    /// Whether it is RSASSA-PKCS1-v1_5.
    pub(crate) fn is_rsa_pkcs1(self) -> bool {
        matches!(
            self,
            Self::RsaPkcs1Sha1 | Self::RsaPkcs1Sha256 | Self::RsaPkcs1Sha384 | Self::RsaPkcs1Sha512
        )
    }

    //= rfc7427 4-1
    //= security S-42
    /// The scheme of these to sign with for a peer that announced these hashes; `None` if there is
    /// none in common, or the peer announced nothing (it does not know RFC 7427).
    ///
    /// For RSA this is PSS wherever that is among them, with the smallest hash in common, which
    /// everybody has.
    pub fn choose(key: &PublicKey, peer_hashes: &[HashId], among: Signatures) -> Option<Self> {
        let mut candidates = key.schemes().iter().copied();
        candidates.find(|scheme| among.contains(*scheme) && peer_hashes.contains(&scheme.hash()))
    }

    /// The AUTH method that it goes with.
    pub fn method(self) -> AuthMethod {
        match self {
            Self::RsaPkcs1Sha1 => AuthMethod::RSA,
            Self::EcdsaP256 => AuthMethod::ECDSA_256,
            Self::EcdsaP384 => AuthMethod::ECDSA_384,
            Self::EcdsaP521 => AuthMethod::ECDSA_521,
            _ => AuthMethod::DIGITAL_SIGNATURE,
        }
    }

    /// The scheme that an AUTH method from before RFC 7427 stands for.
    pub(crate) fn of_method(method: AuthMethod) -> Option<Self> {
        let old = [
            Self::RsaPkcs1Sha1,
            Self::EcdsaP256,
            Self::EcdsaP384,
            Self::EcdsaP521,
        ];
        old.into_iter().find(|scheme| scheme.method() == method)
    }

    /// How signatures of ECDSA are written with it.
    pub(super) fn form(self) -> Form {
        match self.method() {
            AuthMethod::DIGITAL_SIGNATURE => Form::Der,
            _ => Form::Fixed,
        }
    }

    /// The hash by its number in SIGNATURE_HASH_ALGORITHMS.
    pub fn hash(self) -> HashId {
        match self {
            Self::RsaPkcs1Sha1 => HashId::SHA1,
            Self::RsaPkcs1Sha256 | Self::RsaPssSha256 | Self::EcdsaSha256 | Self::EcdsaP256 => {
                HashId::SHA2_256
            }
            Self::RsaPkcs1Sha384 | Self::RsaPssSha384 | Self::EcdsaSha384 | Self::EcdsaP384 => {
                HashId::SHA2_384
            }
            Self::RsaPkcs1Sha512 | Self::RsaPssSha512 | Self::EcdsaSha512 | Self::EcdsaP521 => {
                HashId::SHA2_512
            }
            Self::Ed25519 => HashId::IDENTITY,
        }
    }

    /// Takes the Authentication Data of AUTH method 14 apart (RFC 7427 section 3): the scheme
    /// and the signature. The AlgorithmIdentifier is compared, not parsed.
    ///
    /// # Errors
    /// [`UnsupportedScheme`], also where the data ends early and for SHA-1 in any form.
    pub fn from_auth_data(data: &[u8]) -> Result<(Self, &[u8]), UnsupportedScheme> {
        let (&len, rest) = data.split_first().ok_or(UnsupportedScheme)?;
        let (identifier, signature) = rest
            .split_at_checked(usize::from(len))
            .ok_or(UnsupportedScheme)?;
        let scheme = algorithm_identifier::scheme(identifier).ok_or(UnsupportedScheme)?;
        Ok((scheme, signature))
    }

    /// The Authentication Data of this scheme's [`method`](Self::method): for 14 with the
    /// AlgorithmIdentifier before the signature.
    pub fn to_auth_data(self, signature: &[u8]) -> Vec<u8> {
        let Some(identifier) = algorithm_identifier::preferred(self) else {
            return signature.to_vec();
        };
        let mut data = Vec::with_capacity(1 + identifier.len() + signature.len());
        data.push(u8::try_from(identifier.len()).expect("the longest is 72 octets"));
        data.extend_from_slice(&identifier);
        data.extend_from_slice(signature);
        data
    }

    /// The digest that is signed; for Ed25519 the octets themselves.
    pub(super) fn digest(self, octets: &[u8]) -> Vec<u8> {
        match self.hash() {
            HashId::SHA1 => Sha1::digest(octets).to_vec(),
            HashId::SHA2_256 => Sha256::digest(octets).to_vec(),
            HashId::SHA2_384 => Sha384::digest(octets).to_vec(),
            HashId::SHA2_512 => Sha512::digest(octets).to_vec(),
            _ => octets.to_vec(),
        }
    }
}

impl SignatureScheme {
    /// In a word, as configurations have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::RsaPkcs1Sha1 => "rsa-pkcs1-sha1",
            Self::RsaPkcs1Sha256 => "rsa-pkcs1-sha256",
            Self::RsaPkcs1Sha384 => "rsa-pkcs1-sha384",
            Self::RsaPkcs1Sha512 => "rsa-pkcs1-sha512",
            Self::RsaPssSha256 => "rsa-pss-sha256",
            Self::RsaPssSha384 => "rsa-pss-sha384",
            Self::RsaPssSha512 => "rsa-pss-sha512",
            Self::Ed25519 => "ed25519",
            Self::EcdsaSha256 | Self::EcdsaP256 => "ecdsa-sha256",
            Self::EcdsaSha384 | Self::EcdsaP384 => "ecdsa-sha384",
            Self::EcdsaSha512 | Self::EcdsaP521 => "ecdsa-sha512",
        }
    }
}

impl fmt::Display for SignatureScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RsaPkcs1Sha1 => "RSA PKCS#1 v1.5 with SHA-1",
            Self::RsaPkcs1Sha256 => "RSA PKCS#1 v1.5 with SHA-256",
            Self::RsaPkcs1Sha384 => "RSA PKCS#1 v1.5 with SHA-384",
            Self::RsaPkcs1Sha512 => "RSA PKCS#1 v1.5 with SHA-512",
            Self::RsaPssSha256 => "RSA PSS with SHA-256",
            Self::RsaPssSha384 => "RSA PSS with SHA-384",
            Self::RsaPssSha512 => "RSA PSS with SHA-512",
            Self::Ed25519 => "Ed25519",
            Self::EcdsaSha256 => "ECDSA with SHA-256",
            Self::EcdsaSha384 => "ECDSA with SHA-384",
            Self::EcdsaSha512 => "ECDSA with SHA-512",
            Self::EcdsaP256 => "ECDSA with SHA-256 on P-256",
            Self::EcdsaP384 => "ECDSA with SHA-384 on P-384",
            Self::EcdsaP521 => "ECDSA with SHA-512 on P-521",
        })
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    &number[zeros..]
}

/// Bits of a big-endian number; saturates far above every limit.
fn significant_bits(number: &[u8]) -> u32 {
    let number = without_zeros(number);
    let Some(first) = number.first() else {
        return 0;
    };
    let octets = u32::try_from(number.len()).unwrap_or(u32::MAX);
    octets
        .saturating_mul(8)
        .saturating_sub(first.leading_zeros())
}

#[cfg(test)]
mod tests;
