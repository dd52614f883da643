//! The words of swanctl's proposal syntax: those that obol has, those it refuses, and why.

use super::{Allowed, Encr};
use crate::wire::{IntegId, KeMethod, PrfId};

/// What one word stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Word {
    Encr(Encr),
    Integ(IntegId),
    Prf(PrfId),
    Ke(KeMethod),
    Esn(bool),
}

/// The words obol has. The first of several words for one thing is the one that is printed.
pub(super) const KNOWN: &[(&str, Word)] = &[
    ("aes128", Word::Encr(Encr::AES128_CBC)),
    ("aes192", Word::Encr(Encr::AES192_CBC)),
    ("aes256", Word::Encr(Encr::AES256_CBC)),
    ("aes", Word::Encr(Encr::AES128_CBC)),
    ("aes128gcm16", Word::Encr(Encr::AES128_GCM16)),
    ("aes256gcm16", Word::Encr(Encr::AES256_GCM16)),
    ("aes128gcm", Word::Encr(Encr::AES128_GCM16)),
    ("aes256gcm", Word::Encr(Encr::AES256_GCM16)),
    ("aes128gcm128", Word::Encr(Encr::AES128_GCM16)),
    ("aes256gcm128", Word::Encr(Encr::AES256_GCM16)),
    ("chacha20poly1305", Word::Encr(Encr::CHACHA20_POLY1305)),
    ("sha256", Word::Integ(IntegId::HMAC_SHA2_256_128)),
    ("sha384", Word::Integ(IntegId::HMAC_SHA2_384_192)),
    ("sha512", Word::Integ(IntegId::HMAC_SHA2_512_256)),
    ("sha2_256", Word::Integ(IntegId::HMAC_SHA2_256_128)),
    ("sha2_384", Word::Integ(IntegId::HMAC_SHA2_384_192)),
    ("sha2_512", Word::Integ(IntegId::HMAC_SHA2_512_256)),
    ("prfsha256", Word::Prf(PrfId::HMAC_SHA2_256)),
    ("prfsha384", Word::Prf(PrfId::HMAC_SHA2_384)),
    ("prfsha512", Word::Prf(PrfId::HMAC_SHA2_512)),
    ("x25519", Word::Ke(KeMethod::CURVE25519)),
    ("curve25519", Word::Ke(KeMethod::CURVE25519)),
    ("ecp256", Word::Ke(KeMethod::ECP_256)),
    ("ecp384", Word::Ke(KeMethod::ECP_384)),
    ("ecp521", Word::Ke(KeMethod::ECP_521)),
    ("modp2048", Word::Ke(KeMethod::MODP_2048)),
    ("modp3072", Word::Ke(KeMethod::MODP_3072)),
    ("modp4096", Word::Ke(KeMethod::MODP_4096)),
    ("esn", Word::Esn(true)),
    ("noesn", Word::Esn(false)),
];

/// Weak words that are taken where they are allowed; else they are refused as [`WEAK`].
pub(super) fn on_request(word: &str, allowed: Allowed) -> Option<Word> {
    let triple_des = word == "3des" && allowed.triple_des;
    triple_des.then_some(Word::Encr(Encr::TRIPLE_DES_CBC))
}

/// Too weak to be had: the word, why, and what to write for it.
pub(super) const WEAK: &[(&str, &str, &str)] = &[
    ("null", "does not encrypt", "aes256gcm16"),
    ("des", "has 56-bit keys", "aes256gcm16"),
    ("3des", "has 64-bit blocks", "aes256gcm16"),
    ("idea", "has 64-bit blocks", "aes256gcm16"),
    ("cast128", "has 64-bit blocks", "aes256gcm16"),
    ("cast", "has 64-bit blocks", "aes256gcm16"),
    ("blowfish", "has 64-bit blocks", "aes256gcm16"),
    ("blowfish128", "has 64-bit blocks", "aes256gcm16"),
    ("blowfish192", "has 64-bit blocks", "aes256gcm16"),
    ("blowfish256", "has 64-bit blocks", "aes256gcm16"),
    ("rc5", "has 64-bit blocks", "aes256gcm16"),
    ("md5", "is broken", "sha256"),
    ("md5_128", "is broken", "sha256"),
    ("sha", "is SHA-1, which is broken", "sha256"),
    ("sha1", "is broken", "sha256"),
    ("sha1_160", "is broken", "sha256"),
    ("sha256_96", "is a wrong truncation of SHA-256", "sha256"),
    ("sha2_256_96", "is a wrong truncation of SHA-256", "sha256"),
    ("prfmd5", "is broken", "prfsha256"),
    ("prfsha1", "is broken", "prfsha256"),
    ("modp768", "is too short (group 1)", "x25519 or modp3072"),
    ("modp1024", "is too short (group 2)", "x25519 or modp3072"),
    ("modp1536", "is too short (group 5)", "x25519 or modp3072"),
    (
        "modp1024s160",
        "has a prime of unknown origin (group 22)",
        "x25519 or modp3072",
    ),
    (
        "modp2048s224",
        "has a prime of unknown origin (group 23)",
        "x25519 or modp3072",
    ),
    (
        "modp2048s256",
        "has a prime of unknown origin (group 24)",
        "x25519 or modp3072",
    ),
    ("ecp192", "is too short", "ecp256"),
    ("ecp224", "is too short", "ecp256"),
];

/// Not broken, but not here: the beginning of the word and what to write for it. Longer
/// beginnings stand before shorter ones.
pub(super) const ABSENT: &[(&str, &str)] = &[
    ("aes192gcm", "aes256gcm16"),
    ("aes192ccm", "aes256gcm16"),
    ("aes128gcm", "aes128gcm16"),
    ("aes256gcm", "aes256gcm16"),
    ("aes128ccm", "aes128gcm16"),
    ("aes256ccm", "aes256gcm16"),
    ("aes128ctr", "aes128gcm16"),
    ("aes192ctr", "aes256gcm16"),
    ("aes256ctr", "aes256gcm16"),
    ("aes128gmac", "aes128gcm16"),
    ("aes256gmac", "aes256gcm16"),
    ("camellia", "aes256gcm16"),
    ("serpent", "aes256"),
    ("twofish", "aes256"),
    ("aesxcbc", "sha256"),
    ("aescmac", "sha256"),
    ("prfaesxcbc", "prfsha256"),
    ("prfaescmac", "prfsha256"),
    ("modp6144", "modp4096"),
    ("modp8192", "modp4096"),
    ("ecp224bp", "ecp256"),
    ("ecp256bp", "ecp256"),
    ("ecp384bp", "ecp384"),
    ("ecp512bp", "ecp521"),
    ("curve448", "x25519"),
    ("x448", "x25519"),
    ("ke1_", "no additional key exchange"),
    ("ke2_", "no additional key exchange"),
    ("mlkem", "x25519"),
];

pub(super) fn integ(id: IntegId) -> String {
    keyword(Word::Integ(id), id)
}

pub(super) fn prf(id: PrfId) -> String {
    keyword(Word::Prf(id), id)
}

pub(super) fn ke(method: KeMethod) -> String {
    keyword(Word::Ke(method), method)
}

fn keyword(word: Word, otherwise: impl ToString) -> String {
    KNOWN
        .iter()
        .find(|(_, known)| *known == word)
        .map_or_else(|| otherwise.to_string(), |(text, _)| (*text).to_string())
}
