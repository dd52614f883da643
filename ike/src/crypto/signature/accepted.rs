//! Which schemes of signatures one end of a connection uses, by words for people.

use std::fmt;
use std::str::FromStr;

use super::{PublicKey, SignatureScheme as S};
use crate::wire::HashId;

/// Words that stand for schemes; those of a family stand before those of one hash. The methods from
/// before RFC 7427 go with the algorithm that they are.
const WORDS: [(&str, &[S]); 13] = [
    (
        "rsa-pss",
        &[S::RsaPssSha256, S::RsaPssSha384, S::RsaPssSha512],
    ),
    (
        "rsa-pkcs1",
        &[
            S::RsaPkcs1Sha1,
            S::RsaPkcs1Sha256,
            S::RsaPkcs1Sha384,
            S::RsaPkcs1Sha512,
        ],
    ),
    (
        "ecdsa",
        &[
            S::EcdsaSha256,
            S::EcdsaSha384,
            S::EcdsaSha512,
            S::EcdsaP256,
            S::EcdsaP384,
            S::EcdsaP521,
        ],
    ),
    ("ed25519", &[S::Ed25519]),
    ("rsa-pss-sha256", &[S::RsaPssSha256]),
    ("rsa-pss-sha384", &[S::RsaPssSha384]),
    ("rsa-pss-sha512", &[S::RsaPssSha512]),
    ("rsa-pkcs1-sha256", &[S::RsaPkcs1Sha256]),
    ("rsa-pkcs1-sha384", &[S::RsaPkcs1Sha384]),
    ("rsa-pkcs1-sha512", &[S::RsaPkcs1Sha512]),
    ("ecdsa-sha256", &[S::EcdsaSha256, S::EcdsaP256]),
    ("ecdsa-sha384", &[S::EcdsaSha384, S::EcdsaP384]),
    ("ecdsa-sha512", &[S::EcdsaSha512, S::EcdsaP521]),
];

/// How many words stand for families, which have all schemes.
const FAMILIES: usize = 4;

/// A set of [`SignatureScheme`](super::SignatureScheme)s; by default all.
///
/// RSA with SHA-1 (AUTH method 1) is used only where `allow_sha1_rsa` of the connection says so as well.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Signatures(u16);

impl Default for Signatures {
    fn default() -> Self {
        Self::ALL
    }
}

impl Signatures {
    /// Every scheme that obol has.
    pub const ALL: Self = Self((1 << 14) - 1);
    /// None; others are added to it.
    pub const NONE: Self = Self(0);

    /// All words that there are.
    pub fn words() -> impl Iterator<Item = &'static str> {
        WORDS.iter().map(|(word, _)| *word)
    }

    /// The fewest words that stand for these.
    pub fn to_words(self) -> Vec<&'static str> {
        let mut said = Self::NONE;
        let mut words = Vec::new();
        for (word, schemes) in WORDS {
            let these = Self::of(schemes);
            if these.is_within(self) && !these.is_within(said) {
                words.push(word);
                said = said.and(these);
            }
        }
        words
    }

    /// Whether this scheme is used.
    pub fn contains(self, scheme: S) -> bool {
        self.0 & bit(scheme) != 0
    }

    /// Whether all of these are among others.
    pub fn is_within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// These and others.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether this key makes signatures of one of them.
    pub fn suit(self, key: &PublicKey) -> bool {
        self.each().any(|scheme| key.fits(scheme))
    }

    /// Whether this key makes signatures that are none of them, too.
    pub fn limit(self, key: &PublicKey) -> bool {
        Self::ALL
            .each()
            .any(|scheme| key.fits(scheme) && !self.contains(scheme))
    }

    /// Whether one of them is made with this hash (RFC 7427 section 4).
    pub(crate) fn use_hash(self, hash: HashId) -> bool {
        self.each().any(|scheme| scheme.hash() == hash)
    }

    fn each(self) -> impl Iterator<Item = S> {
        let families = WORDS[..FAMILIES].iter();
        let schemes = families.flat_map(|(_, schemes)| *schemes).copied();
        schemes.filter(move |scheme| self.contains(*scheme))
    }

    fn of(schemes: &[S]) -> Self {
        Self(schemes.iter().fold(0, |bits, scheme| bits | bit(*scheme)))
    }
}

fn bit(scheme: S) -> u16 {
    1 << (scheme as u8)
}

/// The word is none of [`Signatures::words`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnknownSignature;

/// One word: `rsa-pss`, or with a hash `rsa-pss-sha512`.
impl FromStr for Signatures {
    type Err = UnknownSignature;

    fn from_str(text: &str) -> Result<Self, UnknownSignature> {
        let found = WORDS.iter().find(|(word, _)| *word == text);
        let (_, schemes) = found.ok_or(UnknownSignature)?;
        Ok(Self::of(schemes))
    }
}

/// The words that they come to: `rsa-pss, ecdsa-sha384`.
impl fmt::Display for Signatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_words().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Signatures {
        let each = words.split(", ").map(|word| word.parse::<Signatures>());
        each.fold(Signatures::NONE, |all, one| all.and(one.unwrap()))
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in Signatures::words() {
            assert_eq!(of(word).to_string(), word);
        }
        for list in [
            "rsa-pss, ecdsa-sha384",
            "ed25519, rsa-pss-sha256, ecdsa-sha512",
            "rsa-pss, rsa-pkcs1, ecdsa, ed25519",
        ] {
            assert_eq!(of(list).to_string(), list);
        }
        assert_eq!(
            of("rsa-pss-sha256, rsa-pss-sha384, rsa-pss-sha512"),
            of("rsa-pss")
        );
        for unknown in ["", "rsa", "RSA-PSS", "rsa-pss-sha1", "rsa-pss "] {
            assert_eq!(unknown.parse::<Signatures>(), Err(UnknownSignature));
        }
        assert_eq!(of("rsa-pss, rsa-pkcs1, ecdsa, ed25519"), Signatures::ALL);
    }

    #[test]
    fn sets_hold_what_their_words_say() {
        let pss = of("rsa-pss");
        assert!(pss.contains(S::RsaPssSha384) && !pss.contains(S::RsaPkcs1Sha384));
        assert!(pss.is_within(Signatures::ALL) && !Signatures::ALL.is_within(pss));
        assert!(of("rsa-pss-sha512").is_within(pss));
        assert!(of("ecdsa-sha384").contains(S::EcdsaP384));
        let hashes = [
            HashId::SHA1,
            HashId::SHA2_256,
            HashId::SHA2_384,
            HashId::SHA2_512,
            HashId::IDENTITY,
        ];
        let used = |words: &str| hashes.map(|hash| of(words).use_hash(hash));
        assert_eq!(used("rsa-pss"), [false, true, true, true, false]);
        assert_eq!(used("ecdsa-sha384"), [false, false, true, false, false]);
        assert_eq!(used("ed25519"), [false, false, false, false, true]);
        assert_eq!(hashes.map(|hash| Signatures::ALL.use_hash(hash)), [true; 5]);
    }

    #[test]
    fn keys_go_with_some() {
        let key = PublicKey::rsa(&[0xff; 256], &[1, 0, 1]).unwrap();
        for (words, suit, limit) in [
            ("rsa-pss", true, true),
            ("rsa-pss, rsa-pkcs1", true, false),
            ("rsa-pkcs1-sha384, ed25519", true, true),
            ("ecdsa, ed25519", false, true),
        ] {
            assert_eq!((of(words).suit(&key), of(words).limit(&key)), (suit, limit));
        }
    }
}
