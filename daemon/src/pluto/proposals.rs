//! `ike=` and `esp=`: pluto's words for algorithms.

use obol_ike::proposal::{Encr, EspProposal, IkeProposal};
use obol_ike::wire::{EncrId, IntegId, KeMethod, PrfId};

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

/// What a word for a cipher means.
#[derive(Clone, Copy)]
enum Cipher {
    /// One with several key lengths.
    Sized(EncrId, &'static str, &'static [u16]),
    /// One whose key has one length.
    Fixed(Encr),
    /// Known, but obol does not have it.
    Absent(&'static str),
    /// Known, and too weak.
    Weak(&'static str),
}

/// Longer names stand before those that they begin with.
const CIPHERS: &[(&str, Cipher)] = &[
    ("aes_gcm_16", GCM),
    ("aes_gcm_12", Cipher::Absent("AES_GCM_12")),
    ("aes_gcm_8", Cipher::Absent("AES_GCM_8")),
    ("aes_gcm_a", Cipher::Absent("AES_GCM_8")),
    ("aes_gcm_b", Cipher::Absent("AES_GCM_12")),
    ("aes_gcm_c", GCM),
    ("aes_gcm", GCM),
    ("aesgcm", GCM),
    ("aes_ccm_16", Cipher::Absent("AES_CCM_16")),
    ("aes_ccm_12", Cipher::Absent("AES_CCM_12")),
    ("aes_ccm_8", Cipher::Absent("AES_CCM_8")),
    ("aes_ccm_a", Cipher::Absent("AES_CCM_8")),
    ("aes_ccm_b", Cipher::Absent("AES_CCM_12")),
    ("aes_ccm_c", Cipher::Absent("AES_CCM_16")),
    ("aes_ccm", Cipher::Absent("AES_CCM_16")),
    ("aes_ctr", Cipher::Absent("AES_CTR")),
    ("aesctr", Cipher::Absent("AES_CTR")),
    ("aes_cbc", CBC),
    ("aes", CBC),
    ("chacha20_poly1305", Cipher::Fixed(Encr::CHACHA20_POLY1305)),
    ("chacha20poly1305", Cipher::Fixed(Encr::CHACHA20_POLY1305)),
    ("3des_cbc", Cipher::Weak("3DES_CBC")),
    ("3des", Cipher::Weak("3DES_CBC")),
    ("des", Cipher::Weak("DES_CBC")),
    ("camellia_cbc", Cipher::Absent("CAMELLIA_CBC")),
    ("camellia", Cipher::Absent("CAMELLIA_CBC")),
    ("null_auth_aes_gmac", Cipher::Absent("NULL_AUTH_AES_GMAC")),
    ("null", Cipher::Weak("NULL")),
];
const GCM: Cipher = Cipher::Sized(EncrId::AES_GCM_16, "AES_GCM_16", &[128, 256]);
const CBC: Cipher = Cipher::Sized(EncrId::AES_CBC, "AES_CBC", &[128, 192, 256]);

/// A word for a PRF and the integrity algorithm that goes with it.
#[derive(Clone, Copy)]
enum Hash {
    Strong(PrfId, IntegId),
    Absent(&'static str),
    Weak(&'static str),
    None,
}

const HASHES: &[(&str, Hash)] = &[
    ("sha2", SHA256),
    ("sha256", SHA256),
    ("sha2_256", SHA256),
    ("sha2_256_128", SHA256),
    ("sha384", SHA384),
    ("sha2_384", SHA384),
    ("sha2_384_192", SHA384),
    ("sha512", SHA512),
    ("sha2_512", SHA512),
    ("sha2_512_256", SHA512),
    ("sha1", Hash::Weak("HMAC_SHA1")),
    ("sha", Hash::Weak("HMAC_SHA1")),
    ("sha1_96", Hash::Weak("HMAC_SHA1")),
    ("md5", Hash::Weak("HMAC_MD5")),
    ("md5_96", Hash::Weak("HMAC_MD5")),
    ("aes_xcbc", Hash::Absent("AES_XCBC")),
    ("aes_xcbc_96", Hash::Absent("AES_XCBC")),
    ("aes128_xcbc", Hash::Absent("AES_XCBC")),
    ("aes_cmac", Hash::Absent("AES_CMAC_96")),
    ("aes_cmac_96", Hash::Absent("AES_CMAC_96")),
    ("none", Hash::None),
    ("null", Hash::None),
];
const SHA256: Hash = Hash::Strong(PrfId::HMAC_SHA2_256, IntegId::HMAC_SHA2_256_128);
const SHA384: Hash = Hash::Strong(PrfId::HMAC_SHA2_384, IntegId::HMAC_SHA2_384_192);
const SHA512: Hash = Hash::Strong(PrfId::HMAC_SHA2_512, IntegId::HMAC_SHA2_512_256);

/// A word for a group.
#[derive(Clone, Copy)]
enum Group {
    Strong(KeMethod),
    Absent,
    Weak,
    None,
}

const GROUP_WORDS: &[(&[&str], Group)] = &[
    (&["modp2048", "dh14"], Group::Strong(KeMethod::MODP_2048)),
    (&["modp3072", "dh15"], Group::Strong(KeMethod::MODP_3072)),
    (&["modp4096", "dh16"], Group::Strong(KeMethod::MODP_4096)),
    (
        &["dh19", "ecp_256", "ecp256"],
        Group::Strong(KeMethod::ECP_256),
    ),
    (
        &["dh20", "ecp_384", "ecp384"],
        Group::Strong(KeMethod::ECP_384),
    ),
    (
        &["dh21", "ecp_521", "ecp521"],
        Group::Strong(KeMethod::ECP_521),
    ),
    (
        &["dh31", "curve25519", "x25519"],
        Group::Strong(KeMethod::CURVE25519),
    ),
    (
        &[
            "modp6144",
            "dh17",
            "modp8192",
            "dh18",
            "ml_kem_512",
            "ml_kem_768",
            "ml_kem_1024",
        ],
        Group::Absent,
    ),
    (
        &["modp1536", "dh5", "modp1024", "dh2", "dh22", "dh23", "dh24"],
        Group::Weak,
    ),
    (&["dh0", "none"], Group::None),
];

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

/// The words of a proposal: what stands between hyphens, where a number belongs to what stands
/// before it.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.to_ascii_lowercase().split('-') {
        let is_number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        match words.last_mut() {
            Some(last) if is_number => {
                last.push('_');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

/// A cipher, and the length of its key if that is said.
fn cipher(word: &str) -> Option<(Cipher, Option<u16>)> {
    CIPHERS.iter().find_map(|(name, cipher)| {
        let length = word.strip_prefix(name)?;
        match length.strip_prefix('_').unwrap_or(length) {
            "" if length.is_empty() => Some((*cipher, None)),
            digits => Some((*cipher, Some(digits.parse().ok()?))),
        }
    })
}

fn hash(word: &str) -> Option<Hash> {
    let found = HASHES.iter().find(|(name, _)| *name == word);
    found.map(|(_, hash)| *hash)
}

fn group(word: &str) -> Option<Group> {
    let found = GROUP_WORDS.iter().find(|(words, _)| words.contains(&word));
    found.map(|(_, group)| *group)
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
mod tests {
    use super::*;

    fn ike(text: &str) -> String {
        match read_ike(text) {
            Err(error) => format!("! {error}"),
            Ok(read) => {
                let texts: Vec<String> = read.proposals.iter().map(ToString::to_string).collect();
                texts.join(", ")
            }
        }
    }

    fn esp(text: &str, pfs: bool) -> String {
        match read_esp(text, pfs, &[true, false]) {
            Err(error) => format!("! {error}"),
            Ok(read) => {
                let texts: Vec<String> = read.proposals.iter().map(ToString::to_string).collect();
                texts.join(", ")
            }
        }
    }

    const ALL: &str = "ecp256-ecp384-ecp521-x25519-modp4096-modp3072-modp2048";

    #[test]
    fn ike_lists() {
        let table = [
            (
                "aes_gcm256-sha2;modp2048,aes128-sha2-dh19",
                "aes256gcm16-prfsha256-modp2048, aes128-sha256-prfsha256-ecp256".to_owned(),
            ),
            (
                "aes-sha2;modp2048",
                "aes256-aes128-sha256-prfsha256-modp2048".to_owned(),
            ),
            (
                "aes-sha1-sha2-dh14",
                "! IKE PRF 'sha1' is not supported".to_owned(),
            ),
            (
                "aes256-sha512-sha256-modp3072",
                "aes256-sha512-prfsha256-modp3072".to_owned(),
            ),
            (
                "AES_GCM_16_256-SHA2_512-DH19+DH31",
                "aes256gcm16-prfsha512-ecp256-x25519".to_owned(),
            ),
            (
                "aes-256-sha2-256-dh20",
                "aes256-sha256-prfsha256-ecp384".to_owned(),
            ),
            (
                "chacha20_poly1305",
                format!("chacha20poly1305-prfsha512-prfsha256-{ALL}"),
            ),
            (
                "aes256+aes128-sha2;dh19",
                "aes256-aes128-sha256-prfsha256-ecp256".to_owned(),
            ),
            (
                "aes256;prf=sha2_512;integ=sha2_256;ke=dh19",
                "aes256-sha256-prfsha512-ecp256".to_owned(),
            ),
        ];
        for (text, expected) in table {
            assert_eq!(ike(text), expected, "{text}");
        }
    }

    #[test]
    fn esp_lists() {
        let both = "esn-noesn";
        let table = [
            (
                "aes_gcm,aes-sha2",
                true,
                format!("aes128gcm16-aes256gcm16-{ALL}-{both}, aes128-aes256-sha256-{ALL}-{both}"),
            ),
            ("aes_gcm256-null", false, format!("aes256gcm16-{both}")),
            (
                "aes128-sha2;modp2048",
                true,
                format!("aes128-sha256-modp2048-{both}"),
            ),
            (
                "aes128-sha2;modp2048",
                false,
                format!("aes128-sha256-{both}"),
            ),
            (
                "aes_gcm-none-dh0",
                true,
                format!("aes128gcm16-aes256gcm16-{both}"),
            ),
        ];
        for (text, pfs, expected) in table {
            assert_eq!(esp(text, pfs), expected, "{text}");
        }
    }

    #[test]
    fn what_is_refused_names_the_word() {
        let table = [
            ("aes_gcm-modp2048", "PRF 'modp2048'"),
            ("3des-sha1;modp1024", "'sha1'"),
            ("foo-sha2", "cipher) 'foo'"),
            ("aes-sha3", "PRF 'sha3'"),
            ("aes224-sha2", "valid key lengths: 128, 192, 256"),
            ("aes-sha2;modp1024", "'modp1024' is not supported"),
            ("aes-sha2;dh99", "'dh99' is not recognized"),
            ("3des-sha2;dh14", "no cipher that obol has"),
            ("aes_gcm+aes-sha2", "mixes AEAD"),
            ("aes-sha2-modp2048!", "trailing !"),
            ("", "is empty"),
            ("aes-sha2,,aes-sha2", "is empty"),
            ("aes-sha2-sha2-sha2", "too many words"),
        ];
        for (text, expected) in table {
            let found = ike(text);
            assert!(
                found.starts_with("! ") && found.contains(expected),
                "{text}: {found}"
            );
        }
        for (text, expected) in [
            ("aes-md5", "'md5' is not supported"),
            ("aes-sah1", "Integrity Algorithm 'sah1' is not recognized"),
            ("aes-sha2;dh14,aes_gcm", "either all ESP proposals"),
        ] {
            let found = esp(text, true);
            assert!(
                found.starts_with("! ") && found.contains(expected),
                "{text}: {found}"
            );
        }
    }

    #[test]
    fn weak_words_are_left_out_beside_strong_ones() {
        let read = read_ike("aes+3des-sha2+sha1;modp2048+modp1024").unwrap();
        assert_eq!(read.dropped.len(), 3, "{:?}", read.dropped);
        assert_eq!(
            read.proposals[0].to_string(),
            "aes256-aes128-sha256-prfsha256-modp2048"
        );
    }
}
