//! Private keys that `ipsec.secrets` has: `: RSA { Modulus: 0x… }` of Openswan and Libreswan 3, and
//! `: RSA FILE` with a key in PEM.

use std::path::{Path, PathBuf};

use obol_ike::crypto::keyfile;
use obol_ike::crypto::private_key::PrivateKey;
use zeroize::Zeroizing;

use super::octets;
use super::records::Token;
use crate::pluto::keystore;
use crate::pluto::nss::pkcs1;

/// The numbers of a key, in the order of PKCS#1.
const FIELDS: [&str; 8] = [
    "Modulus",
    "PublicExponent",
    "PrivateExponent",
    "Prime1",
    "Prime2",
    "Exponent1",
    "Exponent2",
    "Coefficient",
];

/// What is wrong, and what to change.
type Wrong = (String, &'static str);

/// The key of a record, from what is behind `RSA`; `None` where that is the nickname of a key in the
/// NSS database, in which all keys are looked for.
pub(super) fn read(directory: &Path, values: &[Token<'_>]) -> Result<Option<PrivateKey>, Wrong> {
    match values {
        [open, fields @ .., close] if open.is("{") && close.is("}") => numbers(fields),
        [open, ..] if open.is("{") => Err((
            "the RSA key does not end".into(),
            "end it with a } that has a blank before it",
        )),
        [name, ..] => match file(directory, name.text) {
            Some(path) => {
                let fix = "write a key in PEM (PKCS#8 or PKCS#1) into it, without a passphrase";
                keystore::read_file(&path)
                    .map(Some)
                    .map_err(|why| (why, fix))
            }
            None => Ok(None),
        },
        [] => Ok(None),
    }
}

/// The file that is meant, if it is one.
fn file(directory: &Path, name: &str) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    let places = [
        directory.join("ipsec.d/private").join(name),
        directory.join(name),
    ];
    let found = places.into_iter().find(|path| path.is_file());
    // A path that leads nowhere is no nickname either.
    found.or_else(|| name.starts_with('/').then(|| PathBuf::from(name)))
}

/// `Modulus: 0x… PublicExponent: 0x…`, in any order. Where there is just the public half and
/// `CKAIDNSS:`, the private one is in the NSS database.
fn numbers(fields: &[Token<'_>]) -> Result<Option<PrivateKey>, Wrong> {
    const FIX: &str =
        "write each number as NAME: 0x and hexadecimal digits, as ipsec newhostkey left it";
    let mut found: [Option<Zeroizing<Vec<u8>>>; 8] = Default::default();
    let mut is_in_nss = false;
    let mut fields = fields;
    while let Some((name, rest)) = fields.split_first() {
        let [colon, value, rest @ ..] = rest else {
            return Err(("a number of the RSA key is cut off".into(), FIX));
        };
        if !colon.is(":") {
            return Err(("a number of the RSA key has no name".into(), FIX));
        }
        if let Some(at) = FIELDS.iter().position(|field| *field == name.text) {
            let number = octets(value).map_err(|_| {
                let message = format!("{} of the RSA key is no number", FIELDS[at]);
                (message, FIX)
            })?;
            found[at] = Some(number);
        }
        is_in_nss |= name.text == "CKAIDNSS";
        fields = rest;
    }
    let lacking = FIELDS.iter().zip(&found).find(|(_, found)| found.is_none());
    match lacking {
        Some(_) if is_in_nss => return Ok(None),
        Some((name, _)) => return Err((format!("the RSA key has no {name}"), FIX)),
        None => {}
    }
    let numbers = found
        .each_ref()
        .map(|n| n.as_deref().map_or(&[][..], |n| n));
    let key = pkcs1(numbers)
        .ok()
        .and_then(|der| keyfile::parse_private(&der).ok());
    match key {
        Some(key) => Ok(Some(key)),
        None => Err((
            "its numbers are no RSA key that obol takes (2048 to 8192 bits, public exponent 65537 or more)".into(),
            "make another one: ipsec newhostkey",
        )),
    }
}
