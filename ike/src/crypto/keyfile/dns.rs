//! Public keys as in DNS: RFC 3110 (RSA), points (RFC 6605), and DNSKEY records around them (RFC 4034, RFC 8080).

use super::{KeyFileError, ecdsa};
use crate::crypto::ecdsa::Curve;
use crate::crypto::signature::PublicKey;

/// `None` if it is neither.
pub(super) fn public(octets: &[u8]) -> Option<Result<PublicKey, KeyFileError>> {
    match octets {
        // DNSKEY RDATA: flags 256 or 257, protocol 3, algorithm. As RFC 3110 this would be an
        // exponent of 0 or 1.
        [1, 0 | 1, 3, algorithm, key @ ..] => match algorithm {
            1 | 5 | 7 | 8 | 10 => rsa(key),
            13 | 14 => point(key),
            15 => Some(PublicKey::ed25519(key).map_err(Into::into)),
            other => Some(Err(KeyFileError::KeyType(format!(
                "DNSSEC algorithm {other}"
            )))),
        },
        key => rsa(key),
    }
}

/// RFC 6605 section 4: the two coordinates, and nothing else; or a point of SEC 1, whose first octet says
/// that it is not compressed. `None`: of no such length.
pub(super) fn point(octets: &[u8]) -> Option<Result<PublicKey, KeyFileError>> {
    let coordinates = |curve: &Curve| 2 * curve.octets();
    let whole = |curve: &Curve| octets.len() == 1 + coordinates(curve) && octets[0] == 4;
    let mut curves = Curve::ALL.into_iter();
    if let Some(curve) = curves.clone().find(whole) {
        return Some(ecdsa(curve, octets));
    }
    let curve = curves.find(|curve| octets.len() == coordinates(curve))?;
    Some(ecdsa(curve, &[&[4], octets].concat()))
}

/// RFC 3110 section 2: length of the exponent (one octet, or zero and two), exponent, modulus.
fn rsa(octets: &[u8]) -> Option<Result<PublicKey, KeyFileError>> {
    let (len, rest) = match octets {
        [0, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        [len, rest @ ..] => (usize::from(*len), rest),
        [] => return None,
    };
    let (exponent, modulus) = rest.split_at_checked(len)?;
    if exponent.is_empty() || modulus.is_empty() {
        return None;
    }
    Some(PublicKey::rsa(modulus, exponent).map_err(Into::into))
}

/// The encoding of RFC 3110, for exponents without leading zeros.
pub(super) fn rfc3110(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let len = u8::try_from(exponent.len()).expect("exponents have at most 33 bits");
    [&[len], exponent, modulus].concat()
}
