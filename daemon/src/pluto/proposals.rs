//! `ike=` and `esp=`: pluto's words for algorithms.

mod words;

use obol_ike::proposal::{Encr, EspProposal, IkeProposal};
use obol_ike::wire::{IntegId, KeMethod, PrfId};

use words::{Cipher, Group, Hash, cipher, group, hash, words};

/// What a list means, and which of its words have no effect, and why.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Read<P> {
    /// In order of preference.
    pub(crate) proposals: Vec<P>,
    /// What is left out, in words.
    pub(crate) dropped: Vec<String>,
}

/// The groups of pluto 5 in its order, as far as obol has them, and X25519, which pluto offers
/// where it is newer.
const GROUPS: [KeMethod; 7] = [
    KeMethod::ECP_256,
    KeMethod::ECP_384,
    KeMethod::ECP_521,
    KeMethod::CURVE25519,
    KeMethod::MODP_4096,
    KeMethod::MODP_3072,
    KeMethod::MODP_2048,
];
const PRFS: [PrfId; 2] = [PrfId::HMAC_SHA2_512, PrfId::HMAC_SHA2_256];
const INTEGS: [IntegId; 2] = [IntegId::HMAC_SHA2_512_256, IntegId::HMAC_SHA2_256_128];

/// One of the proposals of a list, by kind of algorithm.
#[derive(Default)]
struct Slots {
    encr: Vec<Encr>,
    prf: Vec<PrfId>,
    integ: Vec<IntegId>,
    ke: Vec<KeMethod>,
    /// A group is named, or that there is to be none.
    names_group: bool,
    /// Whether each kind had a word that was left out.
    lost: bool,
}

/// Which keyword a list belongs to.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Ike,
    Esp,
}

/// What pluto offers where `ike=` is not set.
pub(crate) fn default_ike() -> Vec<IkeProposal> {
    let with = |encr, integ: &[IntegId]| IkeProposal {
        encr: vec![encr],
        integ: integ.to_vec(),
        prf: PRFS.to_vec(),
        ke: GROUPS.to_vec(),
    };
    vec![
        with(Encr::AES256_GCM16, &[]),
        with(Encr::AES128_GCM16, &[]),
        with(Encr::CHACHA20_POLY1305, &[]),
        with(Encr::AES256_CBC, &INTEGS),
        with(Encr::AES128_CBC, &INTEGS),
    ]
}

/// What pluto offers where `esp=` is not set.
pub(crate) fn default_esp(pfs: bool, esn: &[bool]) -> Vec<EspProposal> {
    let with = |encr, integ: &[IntegId]| EspProposal {
        encr: vec![encr],
        integ: integ.to_vec(),
        ke: if pfs { GROUPS.to_vec() } else { Vec::new() },
        esn: esn.to_vec(),
    };
    vec![
        with(Encr::AES256_GCM16, &[]),
        with(Encr::AES128_GCM16, &[]),
        with(Encr::CHACHA20_POLY1305, &[]),
        with(Encr::AES256_CBC, &INTEGS),
        with(Encr::AES128_CBC, &INTEGS),
    ]
}

/// Reads the value of `ike=`.
///
/// # Errors
/// The word that is wrong, and why.
pub(crate) fn read_ike(text: &str) -> Result<Read<IkeProposal>, String> {
    let mut dropped = Vec::new();
    let mut proposals = Vec::new();
    for part in parts(text, "IKE")? {
        let mut slots = Slots::read(Kind::Ike, part, &mut dropped)?;
        let aead = slots.check_encr("IKE", part)?;
        if slots.prf.is_empty() {
            slots.prf = PRFS.to_vec();
        }
        if aead {
            slots.integ.clear();
        } else if slots.integ.is_empty() {
            slots.integ = INTEGS.to_vec();
        }
        if !slots.names_group {
            slots.ke = GROUPS.to_vec();
        }
        if slots.ke.is_empty() {
            return Err(format!("IKE proposal '{part}' has no key exchange left"));
        }
        proposals.push(IkeProposal {
            encr: slots.encr,
            integ: slots.integ,
            prf: slots.prf,
            ke: slots.ke,
        });
    }
    Ok(Read { proposals, dropped })
}

/// Reads the value of `esp=`. Without a group in it, `pfs` asks for one of those that `ike=`
/// offers; with `pfs=no` groups have no effect.
///
/// # Errors
/// The word that is wrong, and why.
pub(crate) fn read_esp(text: &str, pfs: bool, esn: &[bool]) -> Result<Read<EspProposal>, String> {
    let mut dropped = Vec::new();
    let mut proposals: Vec<EspProposal> = Vec::new();
    let mut with_group = None;
    for part in parts(text, "ESP")? {
        let mut slots = Slots::read(Kind::Esp, part, &mut dropped)?;
        let aead = slots.check_encr("ESP", part)?;
        if aead {
            slots.integ.clear();
        } else if slots.integ.is_empty() {
            slots.integ = INTEGS.to_vec();
        }
        if with_group.is_some_and(|with_group| with_group != slots.names_group) {
            return Err("either all ESP proposals name a DH group, or none".into());
        }
        with_group = Some(slots.names_group);
        if !pfs && !slots.ke.is_empty() {
            dropped.push(format!("the DH group of '{part}', since pfs=no"));
            slots.ke.clear();
        }
        if pfs && !slots.names_group {
            slots.ke = GROUPS.to_vec();
        }
        proposals.push(EspProposal {
            encr: slots.encr,
            integ: slots.integ,
            ke: slots.ke,
            esn: esn.to_vec(),
        });
    }
    Ok(Read { proposals, dropped })
}

fn parts<'t>(text: &'t str, kind: &str) -> Result<Vec<&'t str>, String> {
    if text.ends_with('!') {
        return Err(format!(
            "{kind} proposal '{text}': a trailing ! has no meaning; remove it"
        ));
    }
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    match parts.iter().any(|part| part.is_empty()) {
        true => Err(format!("{kind} proposal is empty")),
        false => Ok(parts),
    }
}

impl Slots {
    fn read(kind: Kind, part: &str, dropped: &mut Vec<String>) -> Result<Self, String> {
        let mut slots = Self::default();
        let mut sections = part.split(';');
        let words = words(sections.next().unwrap_or_default());
        let mut words = words.iter().map(String::as_str);
        slots.ciphers(kind, words.next().unwrap_or_default(), dropped)?;
        let mut hashes = 0;
        for word in words {
            let is_group = |word: &str| group(word).is_some() && hash(word).is_none();
            if word.split('+').all(is_group) || slots.names_group {
                if hashes == 0 && kind == Kind::Ike && !slots.names_group {
                    return Err(format!(
                        "IKE PRF '{word}' is not recognized: the second word is a PRF; write {}",
                        suggestion(part, word)
                    ));
                }
                slots.groups(kind, word, dropped)?;
            } else if hashes < 2 {
                slots.hashes(kind, word, hashes, dropped)?;
                hashes += 1;
            } else {
                return Err(format!(
                    "{} proposal '{part}' has too many words",
                    kind.name()
                ));
            }
        }
        for section in sections {
            slots.section(kind, section.trim(), dropped)?;
        }
        Ok(slots)
    }

    /// What follows a semicolon: a group, or `TYPE=WORD`.
    fn section(&mut self, kind: Kind, text: &str, dropped: &mut Vec<String>) -> Result<(), String> {
        let text = text.to_ascii_lowercase();
        match text.split_once('=') {
            None => self.groups(kind, &text, dropped),
            Some(("ke", word)) => self.groups(kind, word, dropped),
            Some(("encrypt", word)) => self.ciphers(kind, word, dropped),
            Some(("prf", word)) => {
                let integ = std::mem::take(&mut self.integ);
                self.prf.clear();
                self.hashes(kind, word, 0, dropped)?;
                self.integ = integ;
                Ok(())
            }
            Some(("integ", word)) => {
                let prf = std::mem::take(&mut self.prf);
                self.integ.clear();
                self.hashes(kind, word, 0, dropped)?;
                self.prf = prf;
                Ok(())
            }
            Some((other, _)) => Err(format!(
                "{} proposal: obol knows no '{other}=': encrypt, prf, integ and ke there are",
                kind.name()
            )),
        }
    }

    fn ciphers(
        &mut self,
        kind: Kind,
        words: &str,
        dropped: &mut Vec<String>,
    ) -> Result<(), String> {
        for word in words.split('+') {
            let (found, length) = cipher(word).ok_or_else(|| {
                format!(
                    "{} Encryption Algorithm (cipher) '{word}' is not recognized",
                    kind.name()
                )
            })?;
            match found {
                Cipher::Fixed(encr) => push(&mut self.encr, encr),
                Cipher::Absent(name) | Cipher::Weak(name) => self.lose(word, name, dropped),
                Cipher::Sized(id, name, lengths) => match length {
                    Some(bits) if lengths.contains(&bits) => {
                        push(&mut self.encr, Encr::new(id, bits))
                    }
                    Some(192) => self.lose(word, name, dropped),
                    Some(bits) => {
                        return Err(format!(
                            "{} Encryption Algorithm (cipher) {name} with key length {bits} invalid; valid key lengths: {}",
                            kind.name(),
                            lengths
                                .iter()
                                .map(u16::to_string)
                                .collect::<Vec<_>>()
                                .join(", ")
                        ));
                    }
                    None => {
                        let order = if kind == Kind::Ike {
                            [256, 128]
                        } else {
                            [128, 256]
                        };
                        for bits in order {
                            push(&mut self.encr, Encr::new(id, bits));
                        }
                    }
                },
            }
        }
        Ok(())
    }

    /// The first word of hashes is the PRF, and integrity goes with it; a second one stands for
    /// the old order, with the integrity first.
    fn hashes(
        &mut self,
        kind: Kind,
        words: &str,
        before: usize,
        dropped: &mut Vec<String>,
    ) -> Result<(), String> {
        if before == 1 {
            self.prf.clear();
        }
        let what = if kind == Kind::Ike {
            "PRF"
        } else {
            "Integrity Algorithm"
        };
        for word in words.split('+') {
            let found = hash(word)
                .ok_or_else(|| format!("{} {what} '{word}' is not recognized", kind.name()))?;
            match found {
                Hash::Strong(prf, integ) => {
                    push(&mut self.prf, prf);
                    if before == 0 {
                        push(&mut self.integ, integ);
                    }
                }
                Hash::Absent(name) | Hash::Weak(name) => self.lose(word, name, dropped),
                Hash::None => {}
            }
        }
        match self.prf.is_empty() && self.lost {
            true => Err(format!("{} {what} '{words}' is not supported", kind.name())),
            false => Ok(()),
        }
    }

    fn groups(&mut self, kind: Kind, words: &str, dropped: &mut Vec<String>) -> Result<(), String> {
        self.names_group = true;
        let mut lost = false;
        for word in words.split('+') {
            match group(word) {
                Some(Group::Strong(ke)) => push(&mut self.ke, ke),
                Some(Group::None) if kind == Kind::Esp => {}
                Some(Group::Absent | Group::Weak) => {
                    lost = true;
                    self.lose(word, word, dropped);
                }
                Some(Group::None) | None => {
                    return Err(format!(
                        "{} Key Exchange Method (DH) '{word}' is not recognized",
                        kind.name()
                    ));
                }
            }
        }
        match self.ke.is_empty() && lost {
            true => Err(format!(
                "{} Key Exchange Method (DH) '{words}' is not supported",
                kind.name()
            )),
            false => Ok(()),
        }
    }

    fn lose(&mut self, word: &str, name: &str, dropped: &mut Vec<String>) {
        self.lost = true;
        let name = name.to_ascii_uppercase();
        dropped.push(format!(
            "{word} ({name}), which obol does not have or does not trust"
        ));
    }

    /// Whether the ciphers are AEAD, all or none.
    fn check_encr(&self, kind: &str, part: &str) -> Result<bool, String> {
        let aead = self.encr.iter().filter(|encr| encr.is_aead()).count();
        match aead {
            _ if self.encr.is_empty() => Err(format!(
                "{kind} proposal '{part}' has no cipher that obol has; write aes_gcm or aes"
            )),
            0 => Ok(false),
            n if n == self.encr.len() => Ok(true),
            _ => Err(format!(
                "{kind} proposal '{part}' mixes AEAD and other ciphers; write two proposals, with a comma"
            )),
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ike => "IKE",
            Self::Esp => "ESP",
        }
    }
}

/// What was probably meant by a proposal whose second word is a group.
fn suggestion(part: &str, word: &str) -> String {
    let cipher = part.split('-').next().unwrap_or_default();
    format!("{cipher}-sha2-{word} or {cipher};{word}")
}

fn push<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests;
