//! Who computes the AEADs: chosen once, by what this processor can do and what a test shows.

use std::sync::OnceLock;

use aes::cipher::KeyInit;
use aes::cipher::consts::{U12, U16};
use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;

use super::aead::{Aead, AeadKey, SALT};
use super::{Cipher, Refused, by};
use crate::params::Suite;

/// An implementation of AES-GCM and ChaCha20-Poly1305.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Backend {
    /// `aes-gcm` and `chacha20poly1305`, which work everywhere.
    Portable,
    /// `graviola`: twice as fast, on processors of the last ten years.
    Graviola,
}

impl Backend {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Portable, Self::Graviola];

    /// The fastest one of this machine whose results are those of [`Self::Portable`]; said and
    /// tested once.
    pub fn best() -> Self {
        static BEST: OnceLock<Backend> = OnceLock::new();
        *BEST.get_or_init(|| {
            if graviola_works() && agrees(Self::Graviola) {
                Self::Graviola
            } else {
                Self::Portable
            }
        })
    }

    /// Whether this processor can do it.
    pub fn is_there(self) -> bool {
        self == Self::Portable || graviola_works()
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Graviola => "graviola",
        }
    }

    /// The cipher of an AEAD suite; the key has the length that the suite wants.
    pub(super) fn aead(
        self,
        suite: Suite,
        key: &[u8],
        salt: [u8; SALT],
        esn: bool,
    ) -> Box<dyn Cipher> {
        match (self, suite) {
            (Self::Portable, Suite::AesGcm16 { key_bits: 128 }) => {
                boxed(portable::<Aes128Gcm>(key), salt, esn)
            }
            (Self::Portable, Suite::AesGcm16 { .. }) => {
                boxed(portable::<Aes256Gcm>(key), salt, esn)
            }
            (Self::Portable, _) => boxed(portable::<ChaCha20Poly1305>(key), salt, esn),
            (Self::Graviola, Suite::AesGcm16 { .. }) => {
                boxed(graviola::aead::AesGcm::new(key), salt, esn)
            }
            (Self::Graviola, _) => {
                let key = zeroize::Zeroizing::new(
                    <[u8; 32]>::try_from(key).expect("the suite wants 32 octets"),
                );
                boxed(graviola::aead::ChaCha20Poly1305::new(*key), salt, esn)
            }
        }
    }
}

fn boxed<A: AeadKey + 'static>(aead: A, salt: [u8; SALT], esn: bool) -> Box<dyn Cipher> {
    Box::new(Aead { aead, salt, esn })
}

/// Without these, `graviola` panics.
fn graviola_works() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("avx")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("adx")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("sha2")
        && std::arch::is_aarch64_feature_detected!("pmull")
        && std::arch::is_aarch64_feature_detected!("neon");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Whether a back end seals packets of many lengths as the portable one does, and opens them.
fn agrees(backend: Backend) -> bool {
    let suites = [
        (Suite::AesGcm16 { key_bits: 128 }, 16),
        (Suite::AesGcm16 { key_bits: 256 }, 32),
        (Suite::ChaCha20Poly1305, 32),
    ];
    suites.iter().all(|&(suite, octets)| {
        let key: Vec<u8> = (1..=(octets + SALT) as u8).collect();
        let make = |backend| by(backend, suite, &key, &[], true);
        let (Ok(fast), Ok(portable)) = (make(backend), make(Backend::Portable)) else {
            return false;
        };
        // From no body at all to some 2048 octets: each way through blocks, lanes and rests.
        (0..128).chain((128..2100).step_by(61)).all(|body| {
            let plain: Vec<u8> = (0..16 + body + 16).map(|n| n as u8).collect();
            let (mut ours, mut theirs) = (plain.clone(), plain.clone());
            let sequence = 1 << 40 | body as u64;
            let sealed = fast.seal(sequence, &mut ours).is_ok()
                && portable.seal(sequence, &mut theirs).is_ok()
                && ours == theirs;
            let mut altered = ours.clone();
            altered[16 + body] ^= 1;
            sealed
                && fast.open(sequence, &mut altered).is_err()
                && fast.open(sequence, &mut ours).is_ok()
                && ours[..16 + body] == plain[..16 + body]
        })
    })
}

/// An AEAD of the RustCrypto crates.
struct Portable<A>(A);

fn portable<A: KeyInit>(key: &[u8]) -> Portable<A> {
    Portable(A::new_from_slice(key).expect("the suite wants this length"))
}

impl<A> AeadKey for Portable<A>
where
    A: AeadInOut<NonceSize = U12, TagSize = U16> + Send + Sync,
{
    fn seal(&self, nonce: &[u8; 12], data: &[u8], body: &mut [u8]) -> Result<[u8; 16], Refused> {
        let tag = self
            .0
            .encrypt_inout_detached(nonce.into(), data, body.into());
        Ok(tag.map_err(|_| Refused)?.into())
    }

    fn open(
        &self,
        nonce: &[u8; 12],
        data: &[u8],
        body: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), Refused> {
        self.0
            .decrypt_inout_detached(nonce.into(), data, body.into(), tag.into())
            .map_err(|_| Refused)
    }
}

impl AeadKey for graviola::aead::AesGcm {
    fn seal(&self, nonce: &[u8; 12], data: &[u8], body: &mut [u8]) -> Result<[u8; 16], Refused> {
        let mut tag = [0; 16];
        self.encrypt(nonce, data, body, &mut tag);
        Ok(tag)
    }

    fn open(
        &self,
        nonce: &[u8; 12],
        data: &[u8],
        body: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), Refused> {
        self.decrypt(nonce, data, body, tag).map_err(|_| Refused)
    }
}

impl AeadKey for graviola::aead::ChaCha20Poly1305 {
    fn seal(&self, nonce: &[u8; 12], data: &[u8], body: &mut [u8]) -> Result<[u8; 16], Refused> {
        let mut tag = [0; 16];
        self.encrypt(nonce, data, body, &mut tag);
        Ok(tag)
    }

    fn open(
        &self,
        nonce: &[u8; 12],
        data: &[u8],
        body: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), Refused> {
        self.decrypt(nonce, data, body, tag).map_err(|_| Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_back_end_agrees_with_the_portable_one() {
        assert!(Backend::best().is_there());
        assert!(agrees(Backend::Portable));
        if graviola_works() {
            assert!(agrees(Backend::Graviola));
            assert_eq!(Backend::best(), Backend::Graviola);
        } else {
            println!("skipped: this processor lacks what graviola needs");
        }
    }
}
