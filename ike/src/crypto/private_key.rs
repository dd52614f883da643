//! Private keys: made, used to sign, and written down.

use std::fmt;

use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use rand_core::CryptoRng;
use rsa::pkcs8::LineEnding;
use rsa::{Pkcs1v15Sign, Pss, RsaPrivateKey};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use super::ecdsa::{Curve, EcdsaPrivate};
use super::signature::{BadKey, PublicKey, SignatureScheme};

/// A private key that has passed its sanity checks; wiped on drop.
pub enum PrivateKey {
    /// RSA, two primes, 2048 to 8192 bits.
    Rsa(Box<RsaPrivateKey>),
    /// Ed25519, RFC 8032.
    Ed25519(Box<ed25519_dalek::SigningKey>),
    /// ECDSA on a NIST curve.
    Ecdsa(Box<EcdsaPrivate>),
}

/// Why there is no signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignError {
    /// The scheme is not one of this type of key.
    #[error("the key is not of the type that the signature scheme needs")]
    Scheme,
    /// The operation failed within the key.
    #[error("the private key is damaged")]
    Damaged,
}

impl PrivateKey {
    /// Draws an Ed25519 key.
    pub fn generate_ed25519(rng: &mut dyn CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut_slice());
        Self::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    /// Draws an ECDSA key.
    pub fn generate_ecdsa(curve: Curve, rng: &mut dyn CryptoRng) -> Self {
        Self::Ecdsa(Box::new(EcdsaPrivate::generate(curve, rng)))
    }

    /// Draws an RSA key; takes seconds.
    ///
    /// # Errors
    /// [`BadKey::RsaSize`] below 2048 or above 8192 bits.
    pub fn generate_rsa(bits: u32, rng: &mut dyn CryptoRng) -> Result<Self, BadKey> {
        if !(2048..=8192).contains(&bits) {
            return Err(BadKey::RsaSize(bits));
        }
        let key = RsaPrivateKey::new(rng, bits as usize).map_err(|_| BadKey::RsaModulus)?;
        Self::from_rsa(key)
    }

    pub(super) fn from_rsa(key: RsaPrivateKey) -> Result<Self, BadKey> {
        PublicKey::from_rsa(key.as_public_key())?;
        Ok(Self::Rsa(Box::new(key)))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        match self {
            Self::Rsa(key) => PublicKey::from_rsa(key.as_public_key())
                .expect("checked when the private key was made"),
            Self::Ed25519(key) => PublicKey::Ed25519(key.verifying_key()),
            Self::Ecdsa(key) => PublicKey::Ecdsa(key.public()),
        }
    }

    /// Signs; the signature is raw, without AlgorithmIdentifier. `rng` makes the salt of PSS and
    /// the blinding of RSA, and goes into the number that ECDSA draws (RFC 6979 section 3.6).
    ///
    /// # Errors
    /// [`SignError::Scheme`] where key and scheme do not fit.
    pub fn sign(
        &self,
        scheme: SignatureScheme,
        octets: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, SignError> {
        use SignatureScheme as S;
        if !self.public().fits(scheme) {
            return Err(SignError::Scheme);
        }
        let digest = scheme.digest(octets);
        let key = match self {
            Self::Ed25519(key) => return Ok(key.sign(octets).to_vec()),
            Self::Ecdsa(key) => return key.sign(scheme.form(), &digest, rng),
            Self::Rsa(key) => key,
        };
        let signature = match scheme {
            S::RsaPkcs1Sha1 => key.sign_with_rng(rng, Pkcs1v15Sign::new::<Sha1>(), &digest),
            S::RsaPkcs1Sha256 => key.sign_with_rng(rng, Pkcs1v15Sign::new::<Sha256>(), &digest),
            S::RsaPkcs1Sha384 => key.sign_with_rng(rng, Pkcs1v15Sign::new::<Sha384>(), &digest),
            S::RsaPkcs1Sha512 => key.sign_with_rng(rng, Pkcs1v15Sign::new::<Sha512>(), &digest),
            S::RsaPssSha256 => key.sign_with_rng(rng, Pss::<Sha256>::new(), &digest),
            S::RsaPssSha384 => key.sign_with_rng(rng, Pss::<Sha384>::new(), &digest),
            S::RsaPssSha512 => key.sign_with_rng(rng, Pss::<Sha512>::new(), &digest),
            _ => return Err(SignError::Scheme),
        };
        signature.map_err(|_| SignError::Damaged)
    }

    /// PKCS#8 (RFC 5958) in PEM, unencrypted. Ed25519 keys come without their public half
    /// (version 1), since OpenSSL does not read the other form everywhere.
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        let pem = match self {
            Self::Rsa(key) => key.to_pkcs8_pem(LineEnding::LF),
            Self::Ed25519(key) => ed25519_dalek::pkcs8::KeypairBytes {
                secret_key: key.to_bytes(),
                public_key: None,
            }
            .to_pkcs8_pem(LineEnding::LF),
            Self::Ecdsa(key) => key.to_pkcs8_pem(),
        };
        pem.expect("keys of these sizes always have an encoding")
    }
}

/// The public half only.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, ..)", self.public())
    }
}
