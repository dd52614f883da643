//! The tables `[secrets.NAME]`: pre-shared keys and private keys.

use std::path::PathBuf;

use obol_ike::crypto::keyfile;
use obol_ike::crypto::secret::Secret;
use obol_ike::identity::Identity;
use zeroize::Zeroizing;

use super::files::FileSource;
use super::finding::{Located, Place, Report};
use super::reader::Section;
use super::values;
use crate::credentials::{Credentials, Psk};
use crate::pluto::Translated;
use crate::racoon::PskSource;

/// Shorter secrets can be guessed from one recorded handshake, RFC 7296 section 2.15.
const SHORT_PSK: usize = 16;

/// What the tables hold.
#[derive(Default)]
pub(crate) struct Secrets {
    /// The secrets themselves.
    pub(crate) credentials: Credentials,
    /// Where each name was given.
    names: Vec<Located<String>>,
    /// Where the identities of each pre-shared key were given, in their order in `credentials`.
    psk_places: Vec<Place>,
    /// Whether a secret could not be read, so that what is missing may just be wrong.
    pub(crate) incomplete: bool,
}

impl Secrets {
    /// Takes over what connections of pluto's need.
    pub(crate) fn take(&mut self, translated: &Translated) {
        for (name, public, private) in &translated.keys {
            let private = private.clone();
            self.credentials.add_found(name, public.clone(), private);
        }
        self.credentials.pluto = translated.psks.clone();
        // What is missing was said when they were translated.
        self.incomplete |= translated.lacks_psk;
    }

    /// Adds the secrets of one text.
    pub(crate) fn read(&mut self, report: &Report<'_>, files: &dyn FileSource, root: &Section<'_>) {
        for (name, section) in root.named("secrets") {
            if let Some(first) = self.names.iter().find(|other| other.value == name.value) {
                report.clash(
                    &name.place,
                    &first.place,
                    format!("two secrets are called {}", name.value),
                    "rename one of them",
                );
            }
            self.names.push(name.with(name.value.to_owned()));
            let read = match section.string("type") {
                Some(kind) if kind.value == "psk" => self.read_psk(report, files, &name, &section),
                Some(kind) if kind.value == "psk.txt" => {
                    self.read_psk_file(report, files, &name, &section)
                }
                Some(kind) if kind.value == "private-key" => {
                    self.read_key(report, files, &name, &section)
                }
                Some(kind) => {
                    report.error(
                        &kind.place,
                        "type is none that obol knows",
                        "write \"psk\", \"psk.txt\" or \"private-key\"",
                    );
                    None
                }
                None => {
                    if !section.has("type") {
                        report.error(
                            &name.place,
                            format!("secret {} has no type", name.value),
                            "add type = \"psk\" or type = \"private-key\"",
                        );
                    }
                    None
                }
            };
            self.incomplete |= read.is_none();
            if section.has("type") && read.is_some() {
                section.finish();
            }
        }
    }

    fn read_psk(
        &mut self,
        report: &Report<'_>,
        files: &dyn FileSource,
        name: &Located<&str>,
        section: &Section<'_>,
    ) -> Option<()> {
        let ids = read_ids(report, section);
        let octets = read_psk_octets(report, files, name, section);
        let (ids, octets) = (ids?, octets?);
        if octets.value.len() < SHORT_PSK {
            report.warn(
                &octets.place,
                format!(
                    "this secret has only {} octets: whoever takes the peer's place once can search for it",
                    octets.value.len()
                ),
                "make one with obol keygen --psk",
            );
        }
        self.check_same_ids(report, name, &ids);
        let place = ids.first().map_or(&name.place, |id| &id.place);
        self.psk_places.push(place.clone());
        self.credentials.psks.push(Psk {
            name: name.value.into(),
            ids: ids.into_iter().map(|id| id.value).collect(),
            secret: Secret::from(octets.value.as_slice()),
        });
        Some(())
    }

    /// The secrets in a file of racoon's, `psk.txt`.
    fn read_psk_file(
        &mut self,
        report: &Report<'_>,
        files: &dyn FileSource,
        name: &Located<&str>,
        section: &Section<'_>,
    ) -> Option<()> {
        let fix = "add file = \"/etc/racoon/psk.txt\"";
        let file = file_of(report, name, section, "secret", fix)?;
        let (psks, remarks) = match PskSource::read(files, resolve(report, &file)) {
            Ok(read) => read,
            Err(problem) => {
                let message = format!("{}: {}", file.value, problem.message);
                report.error(&file.place, message, problem.fix);
                return None;
            }
        };
        let mut right = true;
        for remark in remarks {
            let message = format!("{}, line {}: {}", file.value, remark.line, remark.message);
            match remark.error {
                true => report.error(&file.place, message, remark.fix),
                false => report.warn(&file.place, message, remark.fix),
            }
            right &= !remark.error;
        }
        self.credentials.psk_files.push(psks);
        right.then_some(())
    }

    /// Two secrets for the very same identities: which one is meant?
    fn check_same_ids(&self, report: &Report<'_>, name: &Located<&str>, ids: &[Located<Identity>]) {
        let psks = self.credentials.psks.iter().zip(&self.psk_places);
        for (psk, place) in psks {
            let same = psk.ids.len() == ids.len()
                && ids
                    .iter()
                    .all(|id| psk.ids.iter().any(|other| other.matches(&id.value)));
            if same {
                report.clash(
                    ids.first().map_or(&name.place, |id| &id.place),
                    place,
                    format!(
                        "secrets {} and {} are for the same ids",
                        psk.name, name.value
                    ),
                    "remove one of them, or change its ids",
                );
            }
        }
    }

    fn read_key(
        &mut self,
        report: &Report<'_>,
        files: &dyn FileSource,
        name: &Located<&str>,
        section: &Section<'_>,
    ) -> Option<()> {
        let fix = "add file = \"…\"; obol keygen --out FILE makes one";
        let file = file_of(report, name, section, "private key", fix)?;
        let octets = read_secret_file(report, files, &file)?;
        match keyfile::parse_private(&octets) {
            Ok(key) => {
                self.credentials.add_key(name.value, key);
                Some(())
            }
            Err(e) => {
                report.error(
                    &file.place,
                    format!("{}: {e}", file.value),
                    "obol keygen makes a key; ssh-keygen -p -N '' takes the passphrase off one",
                );
                None
            }
        }
    }
}

fn read_ids(report: &Report<'_>, section: &Section<'_>) -> Option<Vec<Located<Identity>>> {
    let Some(texts) = section.strings("ids") else {
        return (!section.has("ids")).then(Vec::new);
    };
    let mut ids: Vec<Located<Identity>> = Vec::new();
    for text in &texts {
        let id = read_id(report, text)?;
        if let Some(first) = ids.iter().find(|other| other.value.matches(&id.value)) {
            report.clash(
                &id.place,
                &first.place,
                format!("{} is listed twice", id.value),
                "remove one of them",
            );
        }
        ids.push(id);
    }
    Some(ids)
}

/// An identity in swanctl's form.
pub(crate) fn read_id(report: &Report<'_>, text: &Located<&str>) -> Option<Located<Identity>> {
    match text.value.parse::<Identity>() {
        Ok(id) => Some(text.with(id)),
        Err(e) => {
            report.error(
                &text.place,
                e.to_string(),
                "write @host.example.com, user@example.com, an IP address, or @#hex for a key ID",
            );
            None
        }
    }
}

fn read_psk_octets(
    report: &Report<'_>,
    files: &dyn FileSource,
    name: &Located<&str>,
    section: &Section<'_>,
) -> Option<Located<Zeroizing<Vec<u8>>>> {
    let text = match (section.string("secret"), section.string("file")) {
        (Some(inline), None) => inline_psk(report, name, &inline),
        (None, Some(file)) => psk_file(report, files, &file)?,
        (None, None) => {
            if !section.has("secret") && !section.has("file") {
                report.error(
                    &name.place,
                    format!("secret {} has neither secret nor file", name.value),
                    "add secret = \"0s…\" or file = \"…\"; obol keygen --psk makes one",
                );
            }
            return None;
        }
        (Some(inline), Some(file)) => {
            report.clash(
                &inline.place,
                &file.place,
                "both secret and file are given",
                "remove one of them",
            );
            return None;
        }
    };
    match values::secret(&text.value) {
        Ok(octets) => Some(text.with(octets)),
        Err(e) => {
            let fix = "write text, 0x and hex digits, or 0s and base64";
            report.error(&text.place, e, fix);
            None
        }
    }
}

/// The file that a secret or key is in.
fn file_of<'a>(
    report: &Report<'_>,
    name: &Located<&str>,
    section: &Section<'a>,
    what: &str,
    fix: &str,
) -> Option<Located<&'a str>> {
    let file = section.string("file");
    if file.is_none() && !section.has("file") {
        let message = format!("{what} {} has no file", name.value);
        report.error(&name.place, message, fix);
    }
    file
}

/// A secret in the configuration itself, which then must be private.
fn inline_psk(
    report: &Report<'_>,
    name: &Located<&str>,
    inline: &Located<&str>,
) -> Located<Zeroizing<String>> {
    let source = report.source(&inline.place);
    if source.exposed {
        report.error(
            &inline.place,
            format!("{} holds a secret, and others may read it", source.name),
            format!(
                "chmod 600 {}, or move the secret: file = \"{}.psk\"",
                source.name, name.value
            ),
        );
    }
    inline.with(Zeroizing::new(inline.value.to_owned()))
}

/// A secret in a file, whose last newline is not part of it.
fn psk_file(
    report: &Report<'_>,
    files: &dyn FileSource,
    file: &Located<&str>,
) -> Option<Located<Zeroizing<String>>> {
    let octets = read_secret_file(report, files, file)?;
    let Ok(text) = std::str::from_utf8(&octets) else {
        report.error(
            &file.place,
            format!("{} is no text", file.value),
            "write the secret as text, 0x hex or 0s base64",
        );
        return None;
    };
    let text = text.trim_end_matches(['\n', '\r']);
    Some(file.with(Zeroizing::new(text.to_owned())))
}

fn read_secret_file(
    report: &Report<'_>,
    files: &dyn FileSource,
    file: &Located<&str>,
) -> Option<Zeroizing<Vec<u8>>> {
    match files.secret(&resolve(report, file)) {
        Ok(octets) => Some(octets),
        Err(problem) => {
            report.error(&file.place, problem.message, problem.fix);
            None
        }
    }
}

/// A path in a text: relative ones start from the directory of the text.
pub(crate) fn resolve(report: &Report<'_>, file: &Located<&str>) -> PathBuf {
    report.source(&file.place).directory.join(file.value)
}
