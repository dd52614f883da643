//! Keys as they stand in files and configurations, from and to text. Nothing here opens a file.
//!
//! | public                                   | private                                |
//! |------------------------------------------|----------------------------------------|
//! | PEM `PUBLIC KEY`, `RSA PUBLIC KEY`       | PEM `PRIVATE KEY`, `RSA PRIVATE KEY`, `EC PRIVATE KEY` |
//! | OpenSSH line `ssh-rsa`, `ssh-ed25519`, `ecdsa-sha2-…` | PEM `OPENSSH PRIVATE KEY`, unencrypted |
//! | `0s` base64, `0x` hex: RFC 3110, DNSKEY, a point |                                |
//! | DER, or DER in base64                    | DER                                    |

use base64ct::{Base64, Encoding as _};
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::spki::SubjectPublicKeyInfoRef;
use rsa::pkcs8::{ObjectIdentifier, PrivateKeyInfoRef};
use rsa::traits::PublicKeyParts as _;
use sec1::{EcParameters, EcPrivateKey};
use zeroize::Zeroizing;

use super::ecdsa::{Curve, EcdsaPrivate, EcdsaPublic};
use super::private_key::PrivateKey;
use super::signature::{BadKey, PublicKey};

mod dns;
mod openssh;
mod pem;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// What a text was expected to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// A public key.
    Public,
    /// A private key.
    Private,
}

/// Why no key was read; says what the text looks like and what was expected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyFileError {
    /// Nothing but white space.
    #[error("it is empty; expected {}", .0.words())]
    Empty(Expected),
    /// A form that is known, but not here.
    #[error("it looks like {found}; expected {}", .expected.words())]
    WrongKind {
        /// What it looks like.
        found: String,
        /// What belongs here.
        expected: Expected,
    },
    /// The private key is locked with a passphrase.
    #[error(
        "it is an encrypted private key ({0}), and obol asks for no passphrase; store it \
         decrypted with mode 0600 (`openssl pkey -in OLD -out NEW`, or `ssh-keygen -p -N '' -f FILE`)"
    )]
    Encrypted(&'static str),
    /// A key, but of a type that obol has not.
    #[error(
        "it is a key of type {0}; obol authenticates with RSA keys, Ed25519, and ECDSA on P-256, P-384 and P-521"
    )]
    KeyType(String),
    /// The form is known, the content is not what the form says.
    #[error("it looks like {0}, but it is damaged or cut off")]
    Damaged(&'static str),
    /// The key itself is refused.
    #[error(transparent)]
    Bad(#[from] BadKey),
    /// Nothing known.
    #[error("it has no form that obol knows; expected {}", .0.words())]
    Unrecognised(Expected),
}

impl Expected {
    fn words(self) -> &'static str {
        match self {
            Self::Public => "a public key: PEM, an OpenSSH line, or 0s with the base64 of RFC 3110",
            Self::Private => "a private key: PEM (PKCS#8, PKCS#1, SEC 1 or OpenSSH), unencrypted",
        }
    }
}

/// Reads a public key in any of the forms above.
///
/// # Errors
/// [`KeyFileError`].
pub fn parse_public(octets: &[u8]) -> Result<PublicKey, KeyFileError> {
    let Ok(text) = std::str::from_utf8(octets) else {
        return public_der(octets).ok_or(KeyFileError::Unrecognised(Expected::Public))?;
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(KeyFileError::Empty(Expected::Public));
    }
    if let Some(block) = pem::first_block(text)? {
        return public_pem(&block);
    }
    if let Some(key) = openssh::public_line(text) {
        return key;
    }
    if let Some(base64) = text.strip_prefix("0s") {
        return encoded_public(decode_base64(base64));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return encoded_public(decode_hex(hex));
    }
    decode_base64(text)
        .and_then(|der| public_der(&der))
        .ok_or(KeyFileError::Unrecognised(Expected::Public))?
}

/// Reads a private key in any of the forms above.
///
/// # Errors
/// [`KeyFileError`].
pub fn parse_private(octets: &[u8]) -> Result<PrivateKey, KeyFileError> {
    let Ok(text) = std::str::from_utf8(octets) else {
        return private_der(octets).ok_or(KeyFileError::Unrecognised(Expected::Private))?;
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(KeyFileError::Empty(Expected::Private));
    }
    if let Some(block) = pem::first_block(text)? {
        return private_pem(&block);
    }
    if openssh::public_line(text).is_some() {
        return Err(KeyFileError::WrongKind {
            found: "an OpenSSH public key".into(),
            expected: Expected::Private,
        });
    }
    Err(KeyFileError::Unrecognised(Expected::Private))
}

fn public_pem(block: &pem::Block<'_>) -> Result<PublicKey, KeyFileError> {
    match block.label {
        "PUBLIC KEY" => spki(&block.content).ok_or(KeyFileError::Damaged("a PEM public key"))?,
        "RSA PUBLIC KEY" => {
            pkcs1_public(&block.content).ok_or(KeyFileError::Damaged("a PEM RSA public key"))?
        }
        label => Err(KeyFileError::WrongKind {
            found: format!("a PEM {label}"),
            expected: Expected::Public,
        }),
    }
}

fn private_pem(block: &pem::Block<'_>) -> Result<PrivateKey, KeyFileError> {
    if block.encrypted {
        return Err(KeyFileError::Encrypted("PEM with Proc-Type"));
    }
    match block.label {
        "PRIVATE KEY" => pkcs8(&block.content).ok_or(KeyFileError::Damaged("a PEM private key"))?,
        "RSA PRIVATE KEY" => {
            pkcs1_private(&block.content).ok_or(KeyFileError::Damaged("a PEM RSA private key"))?
        }
        "OPENSSH PRIVATE KEY" => openssh::private(&block.content),
        "ENCRYPTED PRIVATE KEY" => Err(KeyFileError::Encrypted("PKCS#8")),
        "EC PRIVATE KEY" => {
            sec1(&block.content).ok_or(KeyFileError::Damaged("a PEM EC private key"))?
        }
        label => Err(KeyFileError::WrongKind {
            found: format!("a PEM {label}"),
            expected: Expected::Private,
        }),
    }
}

/// After `0s` or `0x`: RFC 3110, DNSKEY, a point, or DER.
fn encoded_public(octets: Option<Vec<u8>>) -> Result<PublicKey, KeyFileError> {
    let octets = octets.ok_or(KeyFileError::Damaged("an encoded public key (0s or 0x)"))?;
    public_der(&octets)
        .or_else(|| dns::point(&octets))
        .or_else(|| dns::public(&octets))
        .ok_or(KeyFileError::Damaged("an encoded public key (0s or 0x)"))?
}

fn public_der(der: &[u8]) -> Option<Result<PublicKey, KeyFileError>> {
    spki(der).or_else(|| pkcs1_public(der))
}

fn private_der(der: &[u8]) -> Option<Result<PrivateKey, KeyFileError>> {
    pkcs8(der)
        .or_else(|| pkcs1_private(der))
        .or_else(|| sec1(der))
}

/// `None`: not a SubjectPublicKeyInfo.
fn spki(der: &[u8]) -> Option<Result<PublicKey, KeyFileError>> {
    let info = SubjectPublicKeyInfoRef::try_from(der).ok()?;
    let key = info.subject_public_key.as_bytes()?;
    match info.algorithm.oid {
        RSA_ENCRYPTION => pkcs1_public(key),
        ED25519 => Some(PublicKey::ed25519(key).map_err(Into::into)),
        EC_PUBLIC_KEY => Some(match Curve::named(info.algorithm.parameters_oid().ok()?) {
            Some(curve) => ecdsa(curve, key),
            None => Err(other_curve()),
        }),
        oid => Some(Err(other_type(oid))),
    }
}

/// `None`: not an RSAPublicKey.
fn pkcs1_public(der: &[u8]) -> Option<Result<PublicKey, KeyFileError>> {
    let key = rsa::pkcs1::RsaPublicKeyRef::try_from(der).ok()?;
    let (n, e) = (key.modulus.as_bytes(), key.public_exponent.as_bytes());
    Some(PublicKey::rsa(n, e).map_err(Into::into))
}

/// `None`: not a PKCS#8 PrivateKeyInfo, or one with a damaged key.
fn pkcs8(der: &[u8]) -> Option<Result<PrivateKey, KeyFileError>> {
    let info = PrivateKeyInfoRef::try_from(der).ok()?;
    match info.algorithm.oid {
        RSA_ENCRYPTION => pkcs1_private(info.private_key.as_bytes()),
        ED25519 => {
            let key = ed25519_dalek::SigningKey::from_pkcs8_der(der).ok()?;
            Some(Ok(PrivateKey::Ed25519(Box::new(key))))
        }
        EC_PUBLIC_KEY => Some(match Curve::named(info.algorithm.parameters_oid().ok()?) {
            Some(_) => Ok(PrivateKey::Ecdsa(Box::new(EcdsaPrivate::from_pkcs8(info)?))),
            None => Err(other_curve()),
        }),
        oid => Some(Err(other_type(oid))),
    }
}

/// `None`: not an RSAPrivateKey, or its numbers do not belong together.
fn pkcs1_private(der: &[u8]) -> Option<Result<PrivateKey, KeyFileError>> {
    let key = rsa::RsaPrivateKey::from_pkcs1_der(der).ok()?;
    Some(PrivateKey::from_rsa(key).map_err(Into::into))
}

/// `None`: not an ECPrivateKey (RFC 5915), or its numbers do not belong together.
fn sec1(der: &[u8]) -> Option<Result<PrivateKey, KeyFileError>> {
    let key = EcPrivateKey::try_from(der).ok()?;
    if let Some(EcParameters::NamedCurve(oid)) = key.parameters
        && Curve::named(oid).is_none()
    {
        return Some(Err(other_curve()));
    }
    let key = EcdsaPrivate::from_sec1(&key)?;
    Some(Ok(PrivateKey::Ecdsa(Box::new(key))))
}

fn ecdsa(curve: Curve, point: &[u8]) -> Result<PublicKey, KeyFileError> {
    Ok(PublicKey::Ecdsa(EcdsaPublic::from_point(curve, point)?))
}

fn other_curve() -> KeyFileError {
    KeyFileError::KeyType("ECDSA on another curve".into())
}

fn other_type(oid: ObjectIdentifier) -> KeyFileError {
    KeyFileError::KeyType(oid.to_string())
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let compact: Zeroizing<String> =
        Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    Base64::decode_vec(&compact).ok()
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| !c.is_ascii_whitespace() && *c != ':' && *c != '_')
        .map(|c| u8::try_from(c.to_digit(16)?).ok())
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}

impl PublicKey {
    /// SubjectPublicKeyInfo in PEM.
    pub fn to_pem(&self) -> String {
        let base64 = Base64::encode_string(&self.to_spki_der());
        let mut text = String::from("-----BEGIN PUBLIC KEY-----\n");
        let mut rest = base64.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = more;
        }
        text.push_str("-----END PUBLIC KEY-----\n");
        text
    }

    /// One line as in OpenSSH's `.pub` files, without newline.
    pub fn to_openssh(&self, comment: &str) -> String {
        openssh::to_public_line(self, comment)
    }

    /// `0s` and the base64 of RFC 3110, which Libreswan and strongSwan read; RSA only.
    pub fn to_rfc3110(&self) -> Option<String> {
        let Self::Rsa(key) = self else {
            return None;
        };
        let n = key.n().to_be_bytes_trimmed_vartime();
        let e = key.e().to_be_bytes_trimmed_vartime();
        Some(format!(
            "0s{}",
            Base64::encode_string(&dns::rfc3110(&n, &e))
        ))
    }
}
