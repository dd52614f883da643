//! `ipsec listpubkeys`: the keys by which connections know this host and its peers.

use std::collections::HashSet;

use obol_ike::crypto::keyfile;
use obol_ike::crypto::signature::PublicKey;

use super::out::Out;
use super::status::{View, id_type, local_id, remote_id};
use crate::pluto::keystore::keyid;

/// A key and whose it is, each pair once; `now` in seconds since 1970.
pub(super) fn print(view: &View, out: &Out, now: u64) {
    out.line("000", " ");
    out.line("000", "List of Public Keys:");
    out.line("000", " ");
    let since = date(now.saturating_sub(view.status.daemon.uptime_s));
    let mut said = HashSet::new();
    for connection in &view.list.connections {
        for (side, id, private) in [
            (&connection.local, local_id(connection), "has"),
            (&connection.remote, remote_id(connection), "no"),
        ] {
            for text in &side.keys {
                if !said.insert((text.as_str(), id.clone())) {
                    continue;
                }
                let Ok(key) = keyfile::parse_public(text.as_bytes()) else {
                    continue;
                };
                let (kind, bits) = kind(&key);
                out.line(
                    "000",
                    &format!(
                        "{since}, {bits:4} {kind} Key {} ({private} private key), until --- -- --:--:-- ---- ok (expires never)",
                        keyid(&key)
                    ),
                );
                out.line("000", &format!("       {} '{id}'", id_type(&id)));
            }
        }
    }
}

/// pluto's name of the kind of a key, and how long it is.
fn kind(key: &PublicKey) -> (&'static str, usize) {
    match key {
        PublicKey::Rsa(_) => {
            let words = key.kind();
            let bits = words.rsplit(' ').find_map(|word| word.parse().ok());
            ("RSA", bits.unwrap_or_default())
        }
        PublicKey::Ecdsa(key) => ("ECDSA", 8 * (key.point().len() / 2)),
        PublicKey::Ed25519(_) => ("EdDSA", 256),
    }
}

/// `Mar 01 12:00:00 2026`, of UTC.
fn date(seconds: u64) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = "Jan";
    for (name, length) in MONTHS.iter().zip(lengths) {
        month = name;
        if days < length {
            break;
        }
        days -= length;
    }
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!(
        "{month} {:02} {hour:02}:{minute:02}:{second:02} {year}",
        days + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "Jan 01 00:00:00 1970"),
            (951_782_400, "Feb 29 00:00:00 2000"),
            (1_772_366_400, "Mar 01 12:00:00 2026"),
            (1_798_761_599, "Dec 31 23:59:59 2026"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
