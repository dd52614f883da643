//! AES-CBC (RFC 3602), 3DES-CBC (RFC 2451) and HMAC-SHA2 as integrity algorithm (RFC 4868), for peers without AEAD.

use aes::cipher::{Block, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use des::TdesEde3;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::prf::Prf;
use super::secret::Secret;
use crate::proposal::Encr;
use crate::wire::{EncrId, IntegId, PrfId};

/// Octets of the longest block.
const MAX_BLOCK_LEN: usize = 16;

/// A key for CBC.
pub(super) struct Cbc {
    cipher: Cipher,
    key: Zeroizing<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum Cipher {
    Aes128,
    Aes192,
    Aes256,
    TripleDes,
}

impl Cbc {
    /// `None` if there is no such cipher, or the key is not of its length.
    pub(super) fn new(encr: Encr, key: &[u8]) -> Option<Self> {
        let cipher = match (encr.id, key.len()) {
            (EncrId::AES_CBC, 16) => Cipher::Aes128,
            (EncrId::AES_CBC, 24) => Cipher::Aes192,
            (EncrId::AES_CBC, 32) => Cipher::Aes256,
            (EncrId::DES3, 24) if !is_single_des(key) => Cipher::TripleDes,
            _ => return None,
        };
        Some(Self {
            cipher,
            key: Zeroizing::new(key.to_vec()),
        })
    }

    /// Octets of a block, and of the IV.
    pub(super) fn block_len(&self) -> usize {
        match self.cipher {
            Cipher::Aes128 | Cipher::Aes192 | Cipher::Aes256 => 16,
            Cipher::TripleDes => 8,
        }
    }

    /// In place; the IV is a block, and the length of the buffer is a multiple of it.
    pub(super) fn encrypt(&self, iv: &[u8], buffer: &mut [u8]) {
        match self.cipher {
            Cipher::Aes128 => encrypt::<cbc::Encryptor<Aes128>>(&self.key, iv, buffer),
            Cipher::Aes192 => encrypt::<cbc::Encryptor<Aes192>>(&self.key, iv, buffer),
            Cipher::Aes256 => encrypt::<cbc::Encryptor<Aes256>>(&self.key, iv, buffer),
            Cipher::TripleDes => encrypt::<cbc::Encryptor<TdesEde3>>(&self.key, iv, buffer),
        }
    }

    /// In place; the IV is a block, and the length of the buffer is a multiple of it.
    pub(super) fn decrypt(&self, iv: &[u8], buffer: &mut [u8]) {
        match self.cipher {
            Cipher::Aes128 => decrypt::<cbc::Decryptor<Aes128>>(&self.key, iv, buffer),
            Cipher::Aes192 => decrypt::<cbc::Decryptor<Aes192>>(&self.key, iv, buffer),
            Cipher::Aes256 => decrypt::<cbc::Decryptor<Aes256>>(&self.key, iv, buffer),
            Cipher::TripleDes => decrypt::<cbc::Decryptor<TdesEde3>>(&self.key, iv, buffer),
        }
    }
}

fn encrypt<M: KeyIvInit + BlockModeEncrypt>(key: &[u8], iv: &[u8], buffer: &mut [u8]) {
    let mut mode = M::new_from_slices(key, iv).expect("lengths were checked in new()");
    let (blocks, rest) = Block::<M>::slice_as_chunks_mut(buffer);
    debug_assert!(rest.is_empty());
    mode.encrypt_blocks(blocks);
}

fn decrypt<M: KeyIvInit + BlockModeDecrypt>(key: &[u8], iv: &[u8], buffer: &mut [u8]) {
    let mut mode = M::new_from_slices(key, iv).expect("lengths were checked in new()");
    let (blocks, rest) = Block::<M>::slice_as_chunks_mut(buffer);
    debug_assert!(rest.is_empty());
    mode.decrypt_blocks(blocks);
}

/// Whether two neighbours of the three keys are alike, so that 3DES is no more than DES: RFC 2451
/// section 2.3 has such a key refused. The lowest bit of each octet is no part of the key.
pub(crate) fn is_single_des(key: &[u8]) -> bool {
    let pairs = key.chunks_exact(8).zip(key.chunks_exact(8).skip(1));
    let alike = pairs.map(|(one, other)| {
        let octets = one.iter().zip(other);
        octets.fold(0, |differing, (a, b)| differing | ((a ^ b) & 0xfe))
    });
    alike.fold(false, |any, differing: u8| any | (differing == 0))
}

/// An integrity key.
pub(super) struct Hmac {
    prf: Prf,
    key: Zeroizing<Vec<u8>>,
}

impl Hmac {
    /// `None` if obol does not implement the algorithm.
    pub(super) fn new(integ: IntegId, key: &Secret) -> Option<Self> {
        let prf = match integ {
            IntegId::HMAC_SHA2_256_128 => PrfId::HMAC_SHA2_256,
            IntegId::HMAC_SHA2_384_192 => PrfId::HMAC_SHA2_384,
            IntegId::HMAC_SHA2_512_256 => PrfId::HMAC_SHA2_512,
            _ => return None,
        };
        Some(Self {
            prf: Prf::new(prf)?,
            key: Zeroizing::new(key.expose().to_vec()),
        })
    }

    /// Half of the hash (RFC 4868 section 2.3).
    pub(super) fn icv_len(&self) -> usize {
        self.prf.len() / 2
    }

    pub(super) fn icv(&self, aad: &[u8], covered: &[u8]) -> Vec<u8> {
        let mac = self.prf.compute(&self.key, &[aad, covered]);
        mac.expose()[..self.icv_len()].to_vec()
    }

    pub(super) fn verify(&self, aad: &[u8], covered: &[u8], icv: &[u8]) -> bool {
        self.icv(aad, covered).ct_eq(icv).into()
    }

    //= rfc7296 3.14-3
    /// An IV that nobody without the key can foresee, as RFC 7296 section 3.14 asks; a shorter block
    /// takes as much of it as it needs. Messages
    /// under this key are longer than these octets, so the two uses never meet on the same
    /// input.
    pub(super) fn iv(&self, counter: u64) -> [u8; MAX_BLOCK_LEN] {
        let mac = self
            .prf
            .compute(&self.key, &[b"CBC IV", &counter.to_be_bytes()]);
        let mut iv = [0; MAX_BLOCK_LEN];
        iv.copy_from_slice(&mac.expose()[..MAX_BLOCK_LEN]);
        iv
    }
}
