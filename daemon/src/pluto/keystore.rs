//! Private keys of obol's own: what `ipsec newhostkey` makes, a file in PEM (PKCS#8) for each, named by
//! its CKAID. NSS databases are only read, so it is here that new keys go.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding as _};
use obol_ike::crypto::keyfile;
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::signature::PublicKey;
use sha1::{Digest as _, Sha1};

use super::nss::hex;
use crate::config::files::{Disk, FileSource as _};

/// Where keys are, unless an NSS database at an unusual place is named.
const DIRECTORY: &str = "/etc/obol/keys";
/// Where they are beside such a database.
const BESIDE: &str = "obol-keys";

/// Where new keys go, for a database that somebody named.
pub(super) fn for_new(nss: Option<&Path>, usual: &[PathBuf]) -> PathBuf {
    match nss {
        Some(nss) if !usual.iter().any(|usual| usual == nss) => nss.join(BESIDE),
        _ => DIRECTORY.into(),
    }
}

/// Where keys may be, for databases at these places.
pub(super) fn all<'p>(nss: impl IntoIterator<Item = &'p PathBuf>) -> Vec<PathBuf> {
    let beside = nss.into_iter().map(|place| place.join(BESIDE));
    [DIRECTORY.into()].into_iter().chain(beside).collect()
}

/// The keys of a directory in the order of their names, and what is wrong with others.
pub(super) fn read(directory: &Path) -> (Vec<PrivateKey>, Vec<String>) {
    let (mut keys, mut errors) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return (keys, errors),
        Err(error) => {
            errors.push(format!("cannot read {}: {error}", directory.display()));
            return (keys, errors);
        }
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "pem" || e == "key"))
        .collect();
    paths.sort();
    for path in paths {
        match read_file(&path) {
            Ok(key) => keys.push(key),
            Err(error) => errors.push(error),
        }
    }
    (keys, errors)
}

/// The key in a file, in PEM (PKCS#8, PKCS#1) or as OpenSSH writes it.
///
/// # Errors
/// The file cannot be read, is open to others, or holds no key that obol has.
pub(super) fn read_file(path: &Path) -> Result<PrivateKey, String> {
    let octets = Disk
        .secret(path)
        .map_err(|problem| format!("{}: {}", problem.message, problem.fix))?;
    keyfile::parse_private(&octets).map_err(|error| format!("{}: {error}", path.display()))
}

/// Leaves a new key in a directory; its CKAID. What is there is never written over.
///
/// # Errors
/// The file cannot be written, or is there already.
pub(super) fn add(directory: &Path, key: &PrivateKey) -> Result<String, String> {
    let ckaid = ckaid(&key.public());
    let path = directory.join(format!("{ckaid}.pem"));
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed)?;
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    file.write_all(key.to_pkcs8_pem().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    Ok(ckaid)
}

/// What pluto names a key by: SHA-1 of its modulus, of its point on a curve, or of the octets of an
/// Ed25519 key, in hexadecimal.
pub(crate) fn ckaid(key: &PublicKey) -> String {
    hex(&digest(key))
}

fn digest(key: &PublicKey) -> [u8; 20] {
    let octets = match key {
        PublicKey::Rsa(_) => modulus(key).unwrap_or_default(),
        PublicKey::Ecdsa(key) => key.point(),
        PublicKey::Ed25519(key) => key.as_bytes().to_vec(),
    };
    Sha1::digest(octets).into()
}

fn modulus(key: &PublicKey) -> Option<Vec<u8>> {
    let text = key.to_rfc3110()?;
    let blob = Base64::decode_vec(text.strip_prefix("0s")?).ok()?;
    let modulus = match *blob.first()? {
        0 => blob.get(3 + usize::from(u16::from_be_bytes([*blob.get(1)?, *blob.get(2)?]))..)?,
        length => blob.get(1 + usize::from(length)..)?,
    };
    Some(modulus.to_vec())
}

/// The octets of a public key as `ipsec.conf` has them, in base64: RFC 3110, the two numbers of a point,
/// or an Ed25519 key as it is.
pub(crate) fn blob(key: &PublicKey) -> String {
    match key {
        PublicKey::Rsa(_) => {
            let text = key.to_rfc3110().unwrap_or_default();
            text.trim_start_matches("0s").to_owned()
        }
        PublicKey::Ecdsa(key) => Base64::encode_string(&key.point()[1..]),
        PublicKey::Ed25519(key) => Base64::encode_string(key.as_bytes()),
    }
}

/// The short name of a key: how an RSA key begins, or the CKAID of another, in base64.
pub(crate) fn keyid(key: &PublicKey) -> String {
    const LENGTH: usize = 9;
    let text = match key {
        PublicKey::Rsa(_) => blob(key),
        PublicKey::Ecdsa(_) | PublicKey::Ed25519(_) => Base64::encode_string(&digest(key)),
    };
    text.chars().take(LENGTH).collect()
}
