//! Signatures that authenticate an IKE SA (RFC 7427, RFC 8420) and the keys that verify them.

use std::fmt;
use std::sync::Arc;

use crypto_bigint::Integer as _;
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{BoxedUint, Pkcs1v15Sign, Pss};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::algorithm_identifier;
use crate::wire::HashId;

/// A public key that has passed its sanity checks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PublicKey {
    /// RSA, 2048 to 8192 bits, public exponent odd and at least 65537.
    Rsa(Arc<rsa::RsaPublicKey>),
    /// Ed25519, RFC 8032.
    Ed25519(ed25519_dalek::VerifyingKey),
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
        match self {
            Self::Rsa(key) => verify_rsa(key, scheme, octets, signature),
            Self::Ed25519(key) if scheme == SignatureScheme::Ed25519 => {
                let signature =
                    ed25519_dalek::Signature::from_slice(signature).map_err(|_| BadSignature)?;
                key.verify_strict(octets, &signature)
                    .map_err(|_| BadSignature)
            }
            Self::Ed25519(_) => Err(BadSignature),
        }
    }

    /// Whether signatures of this scheme are made with keys of this type.
    pub fn fits(&self, scheme: SignatureScheme) -> bool {
        matches!(self, Self::Ed25519(_)) == (scheme == SignatureScheme::Ed25519)
    }

    /// SubjectPublicKeyInfo, RFC 5280 section 4.1, in DER.
    pub fn to_spki_der(&self) -> Vec<u8> {
        let document = match self {
            Self::Rsa(key) => key.to_public_key_der(),
            Self::Ed25519(key) => key.to_public_key_der(),
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

    /// `RSA 3072` or `Ed25519`.
    pub fn kind(&self) -> String {
        match self {
            Self::Rsa(key) => format!("RSA {}", key.n().bits_vartime()),
            Self::Ed25519(_) => "Ed25519".into(),
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
        S::Ed25519 => return Err(BadSignature),
    };
    verified.map_err(|_| BadSignature)
}

impl SignatureScheme {
    /// What to announce in SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 4).
    pub const ANNOUNCED: [HashId; 4] = [
        HashId::SHA2_256,
        HashId::SHA2_384,
        HashId::SHA2_512,
        HashId::IDENTITY,
    ];

    //= rfc7427 4-1
    //= security S-42
    /// The scheme to sign with for a peer that announced these hashes; `None` if there is none
    /// in common, or the peer announced nothing (it does not know RFC 7427).
    ///
    /// For RSA this is PSS, with the smallest hash in common: RFC 8247 section 3.2 asks for PSS
    /// with SHA-256 and everybody has it.
    pub fn choose(key: &PublicKey, peer_hashes: &[HashId]) -> Option<Self> {
        let candidates: &[Self] = match key {
            PublicKey::Rsa(_) => &[Self::RsaPssSha256, Self::RsaPssSha384, Self::RsaPssSha512],
            PublicKey::Ed25519(_) => &[Self::Ed25519],
        };
        candidates
            .iter()
            .copied()
            .find(|scheme| peer_hashes.contains(&scheme.hash()))
    }

    /// The hash by its number in SIGNATURE_HASH_ALGORITHMS.
    pub fn hash(self) -> HashId {
        match self {
            Self::RsaPkcs1Sha1 => HashId::SHA1,
            Self::RsaPkcs1Sha256 | Self::RsaPssSha256 => HashId::SHA2_256,
            Self::RsaPkcs1Sha384 | Self::RsaPssSha384 => HashId::SHA2_384,
            Self::RsaPkcs1Sha512 | Self::RsaPssSha512 => HashId::SHA2_512,
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

    /// The Authentication Data of AUTH method 14 for a signature made with this scheme;
    /// for [`RsaPkcs1Sha1`](Self::RsaPkcs1Sha1), that of method 1.
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
