//! OpenSSH's own forms: the public line (RFC 4253 section 6.6, RFC 5656, RFC 8709) and the private file
//! (PROTOCOL.key in OpenSSH's source), as far as they are not encrypted.

use base64ct::{Base64, Encoding as _};
use rsa::BoxedUint;
use rsa::traits::PublicKeyParts as _;

use super::{Expected, KeyFileError, decode_base64};
use crate::crypto::ecdsa::{Curve, EcdsaPrivate};
use crate::crypto::private_key::PrivateKey;
use crate::crypto::signature::PublicKey;

const RSA: &str = "ssh-rsa";
const ED25519: &str = "ssh-ed25519";
/// And the name of the curve.
const ECDSA: &str = "ecdsa-sha2-";
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// A line of a `.pub` file; `None` if it does not begin like one.
pub(super) fn public_line(text: &str) -> Option<Result<PublicKey, KeyFileError>> {
    let mut words = text.split_ascii_whitespace();
    let algorithm = words.next()?;
    if !algorithm.starts_with("ssh-")
        && !algorithm.starts_with("ecdsa-")
        && !algorithm.starts_with("sk-")
    {
        return None;
    }
    if algorithm != RSA && algorithm != ED25519 && curve(algorithm.as_bytes()).is_none() {
        return Some(Err(KeyFileError::KeyType(algorithm.into())));
    }
    let damaged = KeyFileError::Damaged("an OpenSSH public key");
    let Some(blob) = words.next().and_then(decode_base64) else {
        return Some(Err(damaged));
    };
    Some(public_blob(algorithm, &blob).unwrap_or(Err(damaged)))
}

fn public_blob(algorithm: &str, blob: &[u8]) -> Option<Result<PublicKey, KeyFileError>> {
    let mut r = Reader(blob);
    if r.string()? != algorithm.as_bytes() {
        return None;
    }
    let key = if algorithm == RSA {
        let exponent = r.string()?;
        PublicKey::rsa(r.string()?, exponent).map_err(Into::into)
    } else if let Some(curve) = curve(algorithm.as_bytes()) {
        (r.string()? == curve.ssh_name().as_bytes()).then_some(())?;
        super::ecdsa(curve, r.string()?)
    } else {
        PublicKey::ed25519(r.string()?).map_err(Into::into)
    };
    r.0.is_empty().then_some(key)
}

/// Of `ecdsa-sha2-nistp256`.
fn curve(algorithm: &[u8]) -> Option<Curve> {
    let name = algorithm.strip_prefix(ECDSA.as_bytes())?;
    let mut all = Curve::ALL.into_iter();
    all.find(|curve| curve.ssh_name().as_bytes() == name)
}

pub(super) fn to_public_line(key: &PublicKey, comment: &str) -> String {
    let mut blob = Vec::new();
    let algorithm = match key {
        PublicKey::Rsa(key) => {
            put_string(&mut blob, RSA.as_bytes());
            put_mpint(&mut blob, key.e());
            put_mpint(&mut blob, key.n());
            RSA.to_owned()
        }
        PublicKey::Ed25519(key) => {
            put_string(&mut blob, ED25519.as_bytes());
            put_string(&mut blob, key.as_bytes());
            ED25519.to_owned()
        }
        PublicKey::Ecdsa(key) => {
            let curve = key.curve().ssh_name();
            let algorithm = format!("{ECDSA}{curve}");
            put_string(&mut blob, algorithm.as_bytes());
            put_string(&mut blob, curve.as_bytes());
            put_string(&mut blob, &key.point());
            algorithm
        }
    };
    let line = format!("{algorithm} {} {comment}", Base64::encode_string(&blob));
    line.trim_end().to_string()
}

fn put_string(out: &mut Vec<u8>, octets: &[u8]) {
    let len = u32::try_from(octets.len()).expect("keys are short");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(octets);
}

/// A positive number (RFC 4251 section 5): a zero octet before a leading one bit.
fn put_mpint(out: &mut Vec<u8>, number: &BoxedUint) {
    let octets = number.to_be_bytes_trimmed_vartime();
    let sign: &[u8] = match octets.first() {
        Some(first) if first & 0x80 != 0 => &[0],
        _ => &[],
    };
    put_string(out, &[sign, &octets[..]].concat());
}

/// What stands in the base64 of an `OPENSSH PRIVATE KEY`.
pub(super) fn private(content: &[u8]) -> Result<PrivateKey, KeyFileError> {
    let damaged = KeyFileError::Damaged("an OpenSSH private key");
    let mut r = Reader(content.strip_prefix(MAGIC).ok_or(damaged.clone())?);
    let cipher = r.string().ok_or(damaged.clone())?;
    if cipher != b"none" {
        return Err(KeyFileError::Encrypted("OpenSSH"));
    }
    unencrypted(&mut r).unwrap_or(Err(damaged))
}

fn unencrypted(r: &mut Reader<'_>) -> Option<Result<PrivateKey, KeyFileError>> {
    let _kdf_name = r.string()?;
    let _kdf_options = r.string()?;
    if r.u32()? != 1 {
        return Some(Err(KeyFileError::WrongKind {
            found: "an OpenSSH file with several keys".into(),
            expected: Expected::Private,
        }));
    }
    let _public = r.string()?;
    let mut r = Reader(r.string()?);
    if r.u32()? != r.u32()? {
        return None;
    }
    let algorithm = r.string()?;
    if algorithm == ED25519.as_bytes() {
        return ed25519(&mut r);
    }
    if algorithm == RSA.as_bytes() {
        return rsa(&mut r);
    }
    if let Some(curve) = curve(algorithm) {
        return ecdsa(curve, &mut r);
    }
    let name = String::from_utf8_lossy(algorithm).into_owned();
    Some(Err(KeyFileError::KeyType(name)))
}

/// The public key, then seed and public key.
fn ed25519(r: &mut Reader<'_>) -> Option<Result<PrivateKey, KeyFileError>> {
    let public = r.string()?;
    let pair = r.string()?.try_into().ok()?;
    let key = ed25519_dalek::SigningKey::from_keypair_bytes(pair).ok()?;
    (key.verifying_key().as_bytes() == public).then(|| Ok(PrivateKey::Ed25519(Box::new(key))))
}

/// The name of the curve, the point, the private number.
fn ecdsa(curve: Curve, r: &mut Reader<'_>) -> Option<Result<PrivateKey, KeyFileError>> {
    let name = r.string()?;
    let point = r.string()?;
    let key = EcdsaPrivate::from_number(curve, r.string()?)?;
    let same = name == curve.ssh_name().as_bytes() && key.public().point() == point;
    same.then(|| Ok(PrivateKey::Ecdsa(Box::new(key))))
}

/// n, e, d, q^-1 mod p, p, q.
fn rsa(r: &mut Reader<'_>) -> Option<Result<PrivateKey, KeyFileError>> {
    let mut number = || Some(BoxedUint::from_be_slice_vartime(r.string()?));
    let (n, e, d) = (number()?, number()?, number()?);
    let _coefficient = number()?;
    let primes = vec![number()?, number()?];
    let key = rsa::RsaPrivateKey::from_components(n, e, d, primes).ok()?;
    Some(PrivateKey::from_rsa(key).map_err(Into::into))
}

/// Fields of RFC 4251 section 5.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*value))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (value, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(value)
    }
}
