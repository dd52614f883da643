//! ECDSA (FIPS 186-5) on the NIST curves: keys, and signatures in the two forms that IKEv2 has.
//!
//! With RFC 7427 a signature is an ECDSA-Sig-Value in DER, with any hash; the older methods of
//! RFC 4754 have the two numbers one after the other, and one hash for each curve.

use std::fmt;

use p256::ecdsa::signature::hazmat::{PrehashVerifier as _, RandomizedPrehashSigner as _};
use p256::elliptic_curve::Generate as _;
use rand_core::CryptoRng;
use rsa::pkcs8::spki::{self, EncodePublicKey as _};
use rsa::pkcs8::{self, EncodePrivateKey as _, LineEnding, ObjectIdentifier, PrivateKeyInfoRef};
use sec1::{EcParameters, EcPrivateKey};
use zeroize::Zeroizing;

use super::private_key::SignError;
use super::signature::{BadKey, BadSignature};

/// A curve of FIPS 186-4, by which keys and signatures have their size.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
}

/// A public key: a point of its curve, and not that at infinity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EcdsaPublic {
    /// On P-256.
    P256(p256::ecdsa::VerifyingKey),
    /// On P-384.
    P384(p384::ecdsa::VerifyingKey),
    /// On P-521.
    P521(p521::ecdsa::VerifyingKey),
}

/// A private key; wiped on drop.
pub enum EcdsaPrivate {
    /// On P-256.
    P256(p256::ecdsa::SigningKey),
    /// On P-384.
    P384(p384::ecdsa::SigningKey),
    /// On P-521.
    P521(p521::ecdsa::SigningKey),
}

/// How the two numbers of a signature are written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// ECDSA-Sig-Value (RFC 3279 section 2.2.3), as RFC 7427 has it.
    Der,
    /// Each in as many octets as the field has (RFC 4754 section 7).
    Fixed,
}

impl Curve {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// Octets of a coordinate, and of the private number.
    pub fn octets(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// `nistp256`, as OpenSSH has it.
    pub(super) fn ssh_name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }

    /// The curve that an object identifier names (RFC 5480 section 2.1.1.1).
    pub(super) fn named(oid: ObjectIdentifier) -> Option<Self> {
        let known = |curve: &Self| {
            let arcs = match curve {
                Self::P256 => "1.2.840.10045.3.1.7",
                Self::P384 => "1.3.132.0.34",
                Self::P521 => "1.3.132.0.35",
            };
            ObjectIdentifier::new_unwrap(arcs) == oid
        };
        Self::ALL.into_iter().find(known)
    }
}

/// `P-256`.
impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        })
    }
}

/// The same for each curve, whose type of signatures gets the name that is given.
macro_rules! each {
    ($key:expr, $one:ident, $signature:ident => $what:expr) => {
        match $key {
            Self::P256($one) => {
                type $signature = p256::ecdsa::Signature;
                $what
            }
            Self::P384($one) => {
                type $signature = p384::ecdsa::Signature;
                $what
            }
            Self::P521($one) => {
                type $signature = p521::ecdsa::Signature;
                $what
            }
        }
    };
    ($key:expr, $one:ident => $what:expr) => {
        match $key {
            Self::P256($one) => $what,
            Self::P384($one) => $what,
            Self::P521($one) => $what,
        }
    };
}

impl EcdsaPublic {
    /// A key from the octets of its point (SEC 1 section 2.3.3), compressed or not.
    ///
    /// # Errors
    /// [`BadKey::Point`]: the curve has no such point.
    pub fn from_point(curve: Curve, point: &[u8]) -> Result<Self, BadKey> {
        let key = match curve {
            Curve::P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Self::P256),
            Curve::P384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Self::P384),
            Curve::P521 => p521::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Self::P521),
        };
        key.map_err(|_| BadKey::Point(curve))
    }

    /// The octets of the point, uncompressed.
    pub fn point(&self) -> Vec<u8> {
        each!(self, key => key.to_sec1_point(false).as_bytes().to_vec())
    }

    /// Its curve.
    pub fn curve(&self) -> Curve {
        match self {
            Self::P256(_) => Curve::P256,
            Self::P384(_) => Curve::P384,
            Self::P521(_) => Curve::P521,
        }
    }

    //= rfc7427 3-3
    /// `digest` is that of the octets; the curve takes of it what fits.
    pub(super) fn verify(
        &self,
        form: Form,
        digest: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let valid = each!(self, key, Signature => {
            let signature = match form {
                Form::Der => Signature::from_der(signature),
                Form::Fixed => Signature::from_slice(signature),
            };
            signature.and_then(|signature| key.verify_prehash(digest, &signature))
        });
        valid.map_err(|_| BadSignature)
    }

    pub(super) fn to_spki_der(&self) -> spki::Result<spki::Document> {
        each!(self, key => key.to_public_key_der())
    }
}

impl EcdsaPrivate {
    /// Draws a key.
    pub fn generate(curve: Curve, mut rng: &mut dyn CryptoRng) -> Self {
        match curve {
            Curve::P256 => Self::P256(p256::ecdsa::SigningKey::generate_from_rng(&mut rng)),
            Curve::P384 => Self::P384(p384::ecdsa::SigningKey::generate_from_rng(&mut rng)),
            Curve::P521 => Self::P521(p521::ecdsa::SigningKey::generate_from_rng(&mut rng)),
        }
    }

    /// A key from its private number, big-endian, with or without zeros in front.
    pub fn from_number(curve: Curve, number: &[u8]) -> Option<Self> {
        let zeros = number.iter().take_while(|octet| **octet == 0).count();
        let number = number.get(zeros..)?;
        let mut whole = Zeroizing::new(vec![0; curve.octets().checked_sub(number.len())?]);
        whole.extend_from_slice(number);
        match curve {
            Curve::P256 => p256::ecdsa::SigningKey::from_slice(&whole).map(Self::P256),
            Curve::P384 => p384::ecdsa::SigningKey::from_slice(&whole).map(Self::P384),
            Curve::P521 => p521::ecdsa::SigningKey::from_slice(&whole).map(Self::P521),
        }
        .ok()
    }

    /// `None`: the curve is none of ours, or the number none of the curve's.
    pub(super) fn from_pkcs8(info: PrivateKeyInfoRef<'_>) -> Option<Self> {
        match Curve::named(info.algorithm.parameters_oid().ok()?)? {
            Curve::P256 => info.try_into().map(Self::P256),
            Curve::P384 => info.try_into().map(Self::P384),
            Curve::P521 => info.try_into().map(Self::P521),
        }
        .ok()
    }

    /// An ECPrivateKey (RFC 5915). One that names no curve is of that which it fills.
    pub(super) fn from_sec1(key: &EcPrivateKey<'_>) -> Option<Self> {
        let curve = match key.parameters {
            Some(EcParameters::NamedCurve(oid)) => Curve::named(oid)?,
            None => {
                let mut all = Curve::ALL.into_iter();
                all.find(|curve| curve.octets() == key.private_key.len())?
            }
        };
        let private = Self::from_number(curve, key.private_key)?;
        let point = |point| EcdsaPublic::from_point(curve, point).ok();
        let public = key.public_key.map(point);
        (public.is_none_or(|public| public == Some(private.public()))).then_some(private)
    }

    /// The public half.
    pub fn public(&self) -> EcdsaPublic {
        match self {
            Self::P256(key) => EcdsaPublic::P256(*key.verifying_key()),
            Self::P384(key) => EcdsaPublic::P384(*key.verifying_key()),
            Self::P521(key) => EcdsaPublic::P521(*key.verifying_key()),
        }
    }

    pub(super) fn sign(
        &self,
        form: Form,
        digest: &[u8],
        mut rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, SignError> {
        each!(self, key, Signature => {
            let signature: Signature = key
                .sign_prehash_with_rng(&mut rng, digest)
                .map_err(|_| SignError::Scheme)?;
            Ok(match form {
                Form::Der => signature.to_der().as_bytes().to_vec(),
                Form::Fixed => signature.to_vec(),
            })
        })
    }

    pub(super) fn to_pkcs8_pem(&self) -> pkcs8::Result<Zeroizing<String>> {
        each!(self, key => key.to_pkcs8_pem(LineEnding::LF))
    }
}
