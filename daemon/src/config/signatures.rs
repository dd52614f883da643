//! The key `signatures` of `local` and `remote`: how this side signs, and how the peer may.

use obol_ike::config::{Connection, LocalAuthMethod, RemoteAuthMethod};
use obol_ike::crypto::signature::{PublicKey, SignatureScheme, Signatures};

use super::finding::{Place, Report};
use super::reader::{Section, nearest, shorten};

/// Reads it; `None` if that makes no sense. `keys` are those that sign, or `None` for a shared secret.
pub(super) fn read(
    report: &Report<'_>,
    section: &Section<'_>,
    keys: Option<&[PublicKey]>,
) -> Option<Signatures> {
    let Some(texts) = section.strings("signatures") else {
        return (!section.has("signatures")).then_some(Signatures::ALL);
    };
    let Some(keys) = keys else {
        report.error(
            &section.place,
            "auth is psk, but there are signatures",
            "write auth = \"pubkey\", or remove signatures",
        );
        return None;
    };
    let mut all = Signatures::NONE;
    let mut complete = true;
    for text in &texts {
        match text.value.parse::<Signatures>() {
            Ok(these) => all = all.and(these),
            Err(_) => {
                let message = format!("\"{}\" is none that obol knows", shorten(text.value));
                let fix = match nearest(text.value, Signatures::words()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("known are {}", list()),
                };
                report.error(&text.place, message, fix);
                complete = false;
            }
        }
    }
    if !complete {
        return None;
    }
    for key in keys.iter().filter(|key| !all.suit(key)) {
        report.error(
            &texts[0].place,
            format!("no {} key signs with {all}", key.kind()),
            "add what it does sign with, or another key",
        );
        complete = false;
    }
    complete.then_some(all)
}

fn list() -> String {
    let words: Vec<&str> = Signatures::words().collect();
    words.join(", ")
}

/// What allows SHA-1 has no effect where no side uses it.
pub(super) fn check(report: &Report<'_>, place: &Place, connection: &Connection) {
    let uses = |signatures: Signatures| signatures.contains(SignatureScheme::RsaPkcs1Sha1);
    let local = match connection.local.method {
        LocalAuthMethod::Psk => None,
        LocalAuthMethod::Key(_) => Some(uses(connection.local.signatures)),
    };
    let remote = match connection.remote.method {
        RemoteAuthMethod::Psk => None,
        RemoteAuthMethod::Keys(_) | RemoteAuthMethod::KeysOrPsk(_) => {
            Some(uses(connection.remote.signatures))
        }
    };
    let mut sides = [local, remote].into_iter().flatten().peekable();
    if connection.allow_sha1_rsa && sides.peek().is_some() && !sides.any(|uses| uses) {
        report.error(
            place,
            "allow_sha1_rsa = true, and signatures leave it out",
            "add \"rsa-pkcs1\" to signatures, or remove allow_sha1_rsa",
        );
    }
}
