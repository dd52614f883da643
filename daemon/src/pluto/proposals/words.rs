//! The words themselves: what pluto calls ciphers, hashes and groups.

use obol_ike::proposal::Encr;
use obol_ike::wire::{EncrId, IntegId, KeMethod, PrfId};

/// What a word for a cipher means.
#[derive(Clone, Copy)]
pub(super) enum Cipher {
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
pub(super) enum Hash {
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
pub(super) enum Group {
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

/// The words of a proposal: what stands between hyphens, where a number belongs to what stands
/// before it.
pub(super) fn words(text: &str) -> Vec<String> {
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
pub(super) fn cipher(word: &str) -> Option<(Cipher, Option<u16>)> {
    CIPHERS.iter().find_map(|(name, cipher)| {
        let length = word.strip_prefix(name)?;
        match length.strip_prefix('_').unwrap_or(length) {
            "" if length.is_empty() => Some((*cipher, None)),
            digits => Some((*cipher, Some(digits.parse().ok()?))),
        }
    })
}

pub(super) fn hash(word: &str) -> Option<Hash> {
    let found = HASHES.iter().find(|(name, _)| *name == word);
    found.map(|(_, hash)| *hash)
}

pub(super) fn group(word: &str) -> Option<Group> {
    let found = GROUP_WORDS.iter().find(|(words, _)| words.contains(&word));
    found.map(|(_, group)| *group)
}
