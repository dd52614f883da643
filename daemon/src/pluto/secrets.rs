//! `ipsec.secrets` and all that it includes: pre-shared keys, and which of them is whose.
//!
//! A message about these files names the line, and never shows it.

mod records;
mod rsa;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::secret::Secret;
use obol_ike::identity::Identity;
use zeroize::Zeroizing;

use super::files::matches;
use super::values::{self, Id};
use crate::config::files::read_text;
use crate::config::{ConfigErrors, Finding, secret_octets, shorten};
use crate::control::protocol::PskReport;
use records::{Record, Token};

/// Inclusions within inclusions, as in `ipsec.conf`.
const DEEPEST: usize = 10;

/// Files in all.
const MOST_FILES: usize = 20_000;

/// pluto warns of shorter ones; obol's own files ask for more.
const SHORT: usize = 8;

/// For whom a secret is.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Selector {
    /// This one.
    Is(Identity),
    /// Everybody but who is known by an IPv6 address.
    Any,
    /// Everybody but who is known by an IPv4 address.
    Any6,
}

/// A pre-shared key.
pub(crate) struct Psk {
    /// Where it is, `FILE:LINE`.
    place: String,
    /// For whom it is.
    selectors: Vec<Selector>,
    secret: Secret,
}

/// The pre-shared keys of all files, in their order.
#[derive(Default)]
pub(crate) struct Psks(Vec<Psk>);

/// What the files hold.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// The pre-shared keys.
    pub(crate) psks: Psks,
    /// Private keys.
    pub(crate) keys: Vec<PrivateKey>,
    /// Records that are left out, and what else is not good.
    pub(crate) notices: Vec<Finding>,
    /// The files that were read.
    pub(crate) files: Vec<PathBuf>,
}

/// Reads a file with all that it includes. A record that makes no sense is left out with a notice.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn read(path: &Path) -> Result<Secrets, ConfigErrors> {
    let mut reader = Reader::default();
    reader.open(path, 0);
    match reader.unreadable.is_empty() {
        true => Ok(reader.secrets),
        false => Err(ConfigErrors(reader.unreadable)),
    }
}

/// A text that was read, by itself: nothing that it includes.
pub(super) fn of_text(path: &Path, text: &str) -> Secrets {
    let mut reader = Reader::default();
    reader.text(path, text, DEEPEST);
    reader.secrets
}

#[derive(Default)]
struct Reader {
    secrets: Secrets,
    unreadable: Vec<Finding>,
    files: usize,
}

impl Reader {
    fn open(&mut self, path: &Path, depth: usize) {
        let name = path.display().to_string();
        self.files += 1;
        let (text, exposed) = match read_text(path) {
            Ok((text, exposed)) => (Zeroizing::new(text), exposed),
            Err(problem) => {
                let finding = Finding::of_file(&name, problem.message, problem.fix);
                return self.unreadable.push(finding);
            }
        };
        if exposed {
            let message = "others may read it, and it is for secrets";
            self.notice(&name, message, &format!("chmod 600 {name}"));
        }
        self.secrets.files.push(path.to_owned());
        self.text(path, &text, depth);
    }

    fn text(&mut self, path: &Path, text: &str, depth: usize) {
        let name = path.display();
        for record in records::split(text) {
            let place = format!("{name}:{}", record.line);
            if let Some(pattern) = record.included() {
                self.include(path, &place, pattern, depth);
            } else if let Err((message, fix)) = self.record(path, &place, &record) {
                self.notice(&place, format!("the record is left out: {message}"), fix);
            }
        }
    }

    fn include(&mut self, from: &Path, place: &str, pattern: &str, depth: usize) {
        if depth == DEEPEST || self.files >= MOST_FILES {
            let message = format!("{pattern} is not read: too many includes within includes");
            return self.notice(place, message, "do two files include each other?");
        }
        let path = from.parent().unwrap_or(Path::new("")).join(pattern);
        let has_wildcard = pattern.contains(['*', '?', '[']);
        let found = match has_wildcard {
            true => matches(&path),
            false => Ok(vec![path]),
        };
        match found {
            Ok(paths) if !has_wildcard && !paths.iter().all(|path| path.exists()) => {
                let message = format!("no secrets filename matched \"{pattern}\"");
                self.notice(place, message, "make the file, or remove the line");
            }
            Ok(paths) => paths.iter().for_each(|path| self.open(path, depth + 1)),
            Err(why) => self.notice(
                place,
                format!("cannot read what {pattern} names: {why}"),
                "",
            ),
        }
    }

    fn notice(&mut self, place: &str, message: impl Into<String>, fix: &str) {
        let notice = Finding::of_file(place, message, fix);
        self.secrets.notices.push(notice);
    }

    /// Takes the secret of a record, or says what is wrong with the record and what to change.
    fn record(
        &mut self,
        path: &Path,
        place: &str,
        record: &Record<'_>,
    ) -> Result<(), (String, &'static str)> {
        if let Some((message, fix)) = record.error {
            return Err((message.to_owned(), fix));
        }
        let colon = record.tokens.iter().position(|token| token.is(":"));
        let Some(colon) = colon else {
            let fix = "write SELECTORS : PSK \"SECRET\", with a blank behind the colon";
            return Err(("it has no colon of its own".into(), fix));
        };
        let (selectors, rest) = (&record.tokens[..colon], &record.tokens[colon + 1..]);
        let [kind, values @ ..] = rest else {
            return Err((
                "there is nothing behind the colon".into(),
                "write PSK \"SECRET\"",
            ));
        };
        match kind.text.to_ascii_uppercase().as_str() {
            "PSK" => {
                let selectors = self.selectors(place, selectors)?;
                let secret = self.psk(place, values)?;
                let place = place.to_owned();
                self.secrets.psks.0.push(Psk {
                    place,
                    selectors,
                    secret,
                });
            }
            "RSA" => {
                let directory = path.parent().unwrap_or(Path::new(""));
                self.secrets.keys.extend(rsa::read(directory, values)?);
            }
            "ECDSA" => {
                let message = "ECDSA keys are not read from here";
                return Err((
                    message.into(),
                    "make another one: ipsec newhostkey --keytype ecdsa",
                ));
            }
            "XAUTH" => return Err(("XAUTH was for IKEv1".into(), "remove it")),
            "PPKS" => {
                let message = "obol has no post-quantum preshared keys yet";
                return Err((message.into(), "remove it"));
            }
            "PIN" => return Err(("obol uses no smartcards".into(), "remove it")),
            other => {
                let message = format!("unrecognized keyword {}", shorten(other));
                return Err((message, "write PSK \"SECRET\""));
            }
        }
        Ok(())
    }

    /// Those that make sense; everybody if there are none. If none of several makes sense, the
    /// secret must not become everybody's.
    fn selectors(
        &mut self,
        place: &str,
        tokens: &[Token<'_>],
    ) -> Result<Vec<Selector>, (String, &'static str)> {
        if tokens.is_empty() {
            return Ok(vec![Selector::Any, Selector::Any6]);
        }
        let mut selectors = Vec::new();
        for token in tokens {
            match selector(token.text) {
                Ok(selector) => selectors.push(selector),
                Err(why) => {
                    let message = format!("selector {} is left out: {why}", shorten(token.text));
                    self.notice(place, message, "");
                }
            }
        }
        match selectors.is_empty() {
            true => Err(("none of its selectors is one".into(), "correct them")),
            false => Ok(selectors),
        }
    }

    fn psk(&mut self, place: &str, values: &[Token<'_>]) -> Result<Secret, (String, &'static str)> {
        const FIX: &str =
            "write PSK \"SECRET\", or 0x and hexadecimal digits, 0s and base64, 0t and text";
        let [value] = values else {
            let message = match values.is_empty() {
                true => "PSK has no secret",
                false => "there is more behind the secret",
            };
            return Err((message.into(), FIX));
        };
        let octets = octets(value).map_err(|why| (why.to_owned(), FIX))?;
        if octets.is_empty() {
            return Err(("the secret is empty".into(), FIX));
        }
        if octets.len() < SHORT {
            let message = format!(
                "a secret of {} octets is weak: whoever takes the peer's place once can search for it",
                octets.len()
            );
            self.notice(place, message, "make one with obol keygen --psk");
        }
        Ok(Secret::from(octets.as_slice()))
    }
}

fn selector(text: &str) -> Result<Selector, String> {
    match text {
        "%any6" | "::" => return Ok(Selector::Any6),
        "%any" | "0.0.0.0" => return Ok(Selector::Any),
        _ => {}
    }
    match values::id(text)? {
        Id::Is(id) => Ok(Selector::Is(id)),
        Id::Resolve(_) => Err("names are not looked up here; write an address or @name".into()),
        Id::Any | Id::Unset | Id::FromCertificate | Id::Null => Err("it names nobody".into()),
    }
}

fn octets(value: &Token<'_>) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let text = value.text;
    if value.quoted {
        return Ok(Zeroizing::new(text.as_bytes().to_vec()));
    }
    let rest = || text.get(2..).unwrap_or_default();
    match text.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => secret_octets(&Zeroizing::new(format!("0x{}", rest().replace('_', "")))),
        Some("0s") => {
            let base64 = rest().trim_end_matches('=');
            let padding = "=".repeat((4 - base64.len() % 4) % 4);
            secret_octets(&Zeroizing::new(format!("0s{base64}{padding}")))
        }
        Some("0t") => Ok(Zeroizing::new(rest().as_bytes().to_vec())),
        _ => Err("PSK data malformed (input does not begin with format prefix)"),
    }
}

/// How well the selectors of a secret fit a pair of identities, as pluto adds it up.
mod fit {
    pub(super) const LOCAL: u8 = 8;
    pub(super) const PEER: u8 = 4;
    pub(super) const ANY: u8 = 2;
    pub(super) const ALONE: u8 = 1;
    /// All that are good enough.
    pub(super) const ACCEPTED: [u8; 5] =
        [LOCAL | PEER, LOCAL | ANY, LOCAL | ALONE, PEER | ANY, ANY];
}

impl Psk {
    /// Greater is better. `None` is a peer that is not known yet.
    fn fit(&self, local: &Identity, peer: Option<&Identity>) -> Option<u8> {
        let lists = |id: &Identity| {
            let mut all = self.selectors.iter();
            all.any(|selector| matches!(selector, Selector::Is(listed) if listed.matches(id)))
        };
        let any = |id: Option<&Identity>| {
            let mut all = self.selectors.iter();
            all.any(|selector| match selector {
                Selector::Is(_) => false,
                Selector::Any => !id.is_some_and(|id| matches!(id, Identity::Ipv6(_))),
                Selector::Any6 => !id.is_some_and(|id| matches!(id, Identity::Ipv4(_))),
            })
        };
        let (has_local, has_peer) = (lists(local), peer.is_some_and(lists));
        let mut fit = 0;
        if has_local {
            fit |= fit::LOCAL;
        }
        if has_peer {
            fit |= fit::PEER;
        }
        if (!has_local && any(Some(local))) || (!has_peer && any(peer)) {
            fit |= fit::ANY;
        }
        if self.selectors.len() == 1 && has_local {
            fit |= fit::ALONE;
        }
        fit::ACCEPTED.contains(&fit).then_some(fit)
    }
}

impl Psks {
    /// The secret of a pair: the one that fits best, and of equals the first.
    fn find(&self, local: &Identity, peer: Option<&Identity>) -> Option<&Psk> {
        let fitting = self
            .0
            .iter()
            .filter_map(|psk| Some((psk.fit(local, peer)?, psk)));
        // Of equals, `max_by_key` takes the last.
        let best = fitting.rev().max_by_key(|(fit, _)| *fit);
        best.map(|(_, psk)| psk)
    }

    /// The secret itself, and whether it names the peer.
    pub(crate) fn psk(&self, local: &Identity, peer: &Identity) -> Option<(Secret, bool)> {
        let psk = self.find(local, Some(peer))?;
        let fit = psk.fit(local, Some(peer)).unwrap_or_default();
        Some((Secret::from(psk.secret.expose()), fit & fit::PEER != 0))
    }

    /// Who is listed with this secret.
    pub(crate) fn with_secret(&self, secret: &Secret) -> impl Iterator<Item = &Identity> {
        let same = self.0.iter().filter(|psk| psk.secret.ct_eq(secret));
        same.flat_map(|psk| &psk.selectors)
            .filter_map(|selector| match selector {
                Selector::Is(id) => Some(id),
                _ => None,
            })
    }

    /// Where the secret of a pair is.
    pub(crate) fn place(&self, local: &Identity, peer: Option<&Identity>) -> Option<&str> {
        self.find(local, peer).map(|psk| psk.place.as_str())
    }

    /// All of them, without what is secret.
    pub(crate) fn report(&self) -> Vec<PskReport> {
        let shown = |selector: &Selector| match selector {
            Selector::Is(id) => values::shown(id),
            Selector::Any => "%any".to_owned(),
            Selector::Any6 => "%any6".to_owned(),
        };
        let all = self.0.iter().map(|psk| PskReport {
            place: psk.place.clone(),
            ids: psk.selectors.iter().map(shown).collect(),
            used_by: Vec::new(),
        });
        all.collect()
    }

    /// Says that a connection has no secret, with a hint if there is one for the addresses of the
    /// ends: most often identities were forgotten.
    pub(crate) fn missing(
        &self,
        local: &Identity,
        peer: Option<&Identity>,
        addresses: &[Identity],
        file: &Path,
    ) -> String {
        let own = values::shown(local);
        let others = peer.map_or_else(|| "%any".to_owned(), values::shown);
        let mut text = format!("no PSK for {own} → {others} in {}", file.display());
        let listed = self.0.iter().flat_map(|psk| &psk.selectors);
        let ids = listed.filter_map(|selector| match selector {
            Selector::Is(id) => Some(id),
            Selector::Any | Selector::Any6 => None,
        });
        let near = ids.filter(|id| *id != local && Some(*id) != peer);
        if let Some(id) = near.into_iter().find(|id| addresses.contains(id)) {
            text.push_str(&format!(
                " (there is one for {id}; secrets are found by identity, and those of the connection are {own} and {others})"
            ));
        }
        text
    }
}

impl fmt::Debug for Psks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Psks({})", self.0.len())
    }
}

/// Where pluto looks unless it is told otherwise.
pub(crate) fn default_path() -> PathBuf {
    PathBuf::from("/etc/ipsec.secrets")
}
