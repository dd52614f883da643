//! Raw public keys in `ipsec.conf`: `leftrsasigkey`, `leftecdsakey`, `lefteddsakey`, `leftpubkey`.

use base64ct::{Base64Unpadded, Encoding as _};
use obol_ike::crypto::ecdsa::{Curve, EcdsaPublic};
use obol_ike::crypto::keyfile::{self, KeyFileError};
use obol_ike::crypto::signature::PublicKey;

/// What a point begins with that is not compressed (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;
/// Octets of an Ed25519 key.
const ED25519: usize = 32;

/// The key that is the value of a keyword, which is here without `left` or `right`.
///
/// # Errors
/// What to write, or what is wrong with the key.
pub(super) fn read(word: &str, text: &str) -> Result<PublicKey, String> {
    const PREFIXED: &str = "expected 0s… (base64) or 0x… (hex)";
    match text {
        "%cert" => return Err("obol has no certificates yet; write the key itself".into()),
        text if text.starts_with('%') => {
            return Err("obol asks nobody for keys; write the key itself".into());
        }
        _ => {}
    }
    match word {
        "ecdsakey" => {
            let mut point = octets(text).ok_or(PREFIXED)?;
            if point.len().is_multiple_of(2) {
                point.insert(0, UNCOMPRESSED);
            }
            let curve = match point.len() {
                65 => Curve::P256,
                97 => Curve::P384,
                133 => Curve::P521,
                _ => {
                    let message = "an ECDSA key has 64, 96 or 132 octets (P-256, P-384, P-521)";
                    return Err(message.into());
                }
            };
            let key = EcdsaPublic::from_point(curve, &point);
            key.map(PublicKey::Ecdsa).map_err(|error| error.to_string())
        }
        "pubkey" => {
            let fix = |why: String| format!("expected the base64 of a public key: {why}");
            let der = base64(text).ok_or_else(|| fix("this is no base64".into()))?;
            // As PEM, octets that are something else are not taken for it.
            let padded = base64ct::Base64::encode_string(&der);
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{padded}\n-----END PUBLIC KEY-----\n");
            keyfile::parse_public(pem.as_bytes()).map_err(|error| fix(error.to_string()))
        }
        "eddsakey" => {
            let octets = octets(text).ok_or(PREFIXED)?;
            if octets.len() != ED25519 {
                return Err(format!(
                    "an Ed25519 key has {ED25519} octets, and this has {}",
                    octets.len()
                ));
            }
            PublicKey::ed25519(&octets).map_err(|error| error.to_string())
        }
        _ if text.starts_with("0s") || text.starts_with("0x") => {
            let damaged = || KeyFileError::Damaged("an RSA key (0s or 0x)").to_string();
            let octets = octets(text).ok_or_else(damaged)?;
            let hex = format!("0x{}", super::nss::hex(&octets));
            match keyfile::parse_public(hex.as_bytes()) {
                Err(KeyFileError::Damaged(_)) => Err(damaged()),
                other => other.map_err(|error| error.to_string()),
            }
        }
        _ => Err(PREFIXED.into()),
    }
}

/// `0s` and base64, or `0x` and hexadecimal digits.
fn octets(text: &str) -> Option<Vec<u8>> {
    if let Some(text) = text.strip_prefix("0s") {
        return base64(text);
    }
    let digits = text.strip_prefix("0x")?.as_bytes();
    let digit = |octet: u8| char::from(octet).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

/// With or without `=` at the end.
fn base64(text: &str) -> Option<Vec<u8>> {
    Base64Unpadded::decode_vec(text.trim_end_matches('=')).ok()
}
