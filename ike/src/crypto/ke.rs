//! Key exchange: Curve25519 (RFC 8031), ECP groups (RFC 5903) and MODP groups (RFC 3526).

use std::fmt;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::modp::{Group, ModpSecret};
use super::secret::Secret;
use crate::wire::KeMethod;

/// Our half of one key exchange: a private value, used once, and its public counterpart.
pub struct KeyExchange {
    method: KeMethod,
    private: Private,
    public: Vec<u8>,
}

//= rfc7296 2.12-1
enum Private {
    X25519(x25519_dalek::StaticSecret),
    P256(p256::SecretKey),
    P384(p384::SecretKey),
    P521(p521::SecretKey),
    Modp(ModpSecret),
}

/// obol does not implement this key exchange method.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnsupportedKe(pub KeMethod);

/// The peer's public value is not one of this method: wrong length, not on the curve, out of
/// range, or it leads to a shared secret that everybody knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidKe;

/// Length in octets of the public values of a method; `None` if obol does not implement it.
pub fn ke_public_len(method: KeMethod) -> Option<usize> {
    match method {
        KeMethod::CURVE25519 => Some(32),
        KeMethod::ECP_256 => Some(64),
        KeMethod::ECP_384 => Some(96),
        KeMethod::ECP_521 => Some(132),
        _ => Group::of(method).map(Group::octets),
    }
}

impl KeyExchange {
    /// Draws a private value.
    ///
    /// # Errors
    /// If obol does not implement the method.
    pub fn generate(method: KeMethod, rng: &mut dyn CryptoRng) -> Result<Self, UnsupportedKe> {
        use p256::elliptic_curve::Generate as _;
        let private = match method {
            KeMethod::CURVE25519 => {
                Private::X25519(x25519_dalek::StaticSecret::random_from_rng(rng))
            }
            KeMethod::ECP_256 => Private::P256(p256::SecretKey::generate_from_rng(rng)),
            KeMethod::ECP_384 => Private::P384(p384::SecretKey::generate_from_rng(rng)),
            KeMethod::ECP_521 => Private::P521(p521::SecretKey::generate_from_rng(rng)),
            _ => {
                let group = Group::of(method).ok_or(UnsupportedKe(method))?;
                Private::Modp(ModpSecret::generate(group, rng))
            }
        };
        Ok(Self::from_private(method, private))
    }

    /// With a given private value, for known answers; `None` if it is not one of the method.
    pub(super) fn from_private_octets(method: KeMethod, octets: &[u8]) -> Option<Self> {
        let private = match method {
            KeMethod::CURVE25519 => Private::X25519(<[u8; 32]>::try_from(octets).ok()?.into()),
            KeMethod::ECP_256 => Private::P256(p256::SecretKey::from_slice(octets).ok()?),
            KeMethod::ECP_384 => Private::P384(p384::SecretKey::from_slice(octets).ok()?),
            KeMethod::ECP_521 => Private::P521(p521::SecretKey::from_slice(octets).ok()?),
            _ => Private::Modp(ModpSecret::from_octets(Group::of(method)?, octets)?),
        };
        Some(Self::from_private(method, private))
    }

    fn from_private(method: KeMethod, private: Private) -> Self {
        let public = match &private {
            Private::X25519(secret) => x25519_dalek::PublicKey::from(secret).as_bytes().to_vec(),
            Private::P256(secret) => ecp_public(secret),
            Private::P384(secret) => ecp_public(secret),
            Private::P521(secret) => ecp_public(secret),
            Private::Modp(secret) => secret.public(),
        };
        Self {
            method,
            private,
            public,
        }
    }

    /// The method.
    pub fn method(&self) -> KeMethod {
        self.method
    }

    /// What goes into our KE payload.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    //= security S-37
    /// The shared secret `g^ir`, at the fixed length of the method.
    ///
    /// By reference: in IKE_SA_INIT nothing is authenticated, and a forged public value must not
    /// cost an initiator the private value that the real reply needs.
    ///
    /// # Errors
    /// [`InvalidKe`] for every public value that RFC 6989 or the length of the method tells to
    /// refuse, and for an X25519 result of zeros (RFC 7748 section 6.1).
    pub fn agree(&self, peer_public: &[u8]) -> Result<Secret, InvalidKe> {
        match &self.private {
            Private::X25519(secret) => agree_x25519(secret, peer_public),
            Private::P256(secret) => agree_ecp(secret, peer_public),
            Private::P384(secret) => agree_ecp(secret, peer_public),
            Private::P521(secret) => agree_ecp(secret, peer_public),
            Private::Modp(secret) => secret.agree(peer_public),
        }
    }
}

impl fmt::Debug for KeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyExchange({}, ..)", self.method)
    }
}

fn agree_x25519(
    secret: &x25519_dalek::StaticSecret,
    peer_public: &[u8],
) -> Result<Secret, InvalidKe> {
    let peer: [u8; 32] = peer_public.try_into().map_err(|_| InvalidKe)?;
    let shared = secret.diffie_hellman(&x25519_dalek::PublicKey::from(peer));
    // An all-zero result comes from a point of small order (RFC 7748 section 6.1).
    if !shared.was_contributory() {
        return Err(InvalidKe);
    }
    Ok(Secret::from(shared.as_bytes().as_slice()))
}

/// x | y without the leading 0x04 of SEC 1 (RFC 5903 section 7).
fn ecp_public<C>(secret: &p256::elliptic_curve::SecretKey<C>) -> Vec<u8>
where
    C: p256::elliptic_curve::CurveArithmetic,
    p256::elliptic_curve::FieldBytesSize<C>: p256::elliptic_curve::sec1::ModulusSize,
    p256::elliptic_curve::AffinePoint<C>:
        p256::elliptic_curve::sec1::ToSec1Point<C> + p256::elliptic_curve::sec1::FromSec1Point<C>,
{
    use p256::elliptic_curve::sec1::ToSec1Point as _;
    let point = secret.public_key().to_sec1_point(false);
    point.as_bytes()[1..].to_vec()
}

/// The x coordinate of the shared point (RFC 5903 section 9).
fn agree_ecp<C>(
    secret: &p256::elliptic_curve::SecretKey<C>,
    peer_public: &[u8],
) -> Result<Secret, InvalidKe>
where
    C: p256::elliptic_curve::CurveArithmetic,
    p256::elliptic_curve::FieldBytesSize<C>: p256::elliptic_curve::sec1::ModulusSize,
    p256::elliptic_curve::AffinePoint<C>:
        p256::elliptic_curve::sec1::ToSec1Point<C> + p256::elliptic_curve::sec1::FromSec1Point<C>,
{
    let field_len = Zeroizing::new(secret.to_bytes()).len();
    if peer_public.len() != 2 * field_len {
        return Err(InvalidKe);
    }
    let mut uncompressed = Vec::with_capacity(1 + peer_public.len());
    uncompressed.push(0x04);
    uncompressed.extend_from_slice(peer_public);
    // Refuses coordinates that are not reduced and points that are not on the curve; these
    // curves have cofactor 1, so no point on them has a small order.
    let peer = p256::elliptic_curve::PublicKey::<C>::from_sec1_bytes(&uncompressed)
        .map_err(|_| InvalidKe)?;
    let shared =
        p256::elliptic_curve::ecdh::diffie_hellman(secret.to_nonzero_scalar(), peer.as_affine());
    Ok(Secret::from(shared.raw_secret_bytes().as_slice()))
}

#[cfg(test)]
mod tests;
