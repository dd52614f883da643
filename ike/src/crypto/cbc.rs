//! AES-CBC (RFC 3602) and HMAC-SHA2 as integrity algorithm (RFC 4868), for peers without AEAD.

use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::prf::Prf;
use super::secret::Secret;
use crate::wire::{IntegId, PrfId};

const BLOCK_LEN: usize = 16;

/// An AES key for CBC.
pub(super) struct AesCbc(Zeroizing<Vec<u8>>);

impl AesCbc {
    /// With a key of 16, 24 or 32 octets.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        matches!(key.len(), 16 | 24 | 32).then(|| Self(Zeroizing::new(key.to_vec())))
    }

    /// In place; the length is a multiple of the block.
    pub(super) fn encrypt(&self, iv: &[u8; BLOCK_LEN], buffer: &mut [u8]) {
        match self.0.len() {
            16 => encrypt::<cbc::Encryptor<Aes128>>(&self.0, iv, buffer),
            24 => encrypt::<cbc::Encryptor<Aes192>>(&self.0, iv, buffer),
            _ => encrypt::<cbc::Encryptor<Aes256>>(&self.0, iv, buffer),
        }
    }

    /// In place; the length is a multiple of the block.
    pub(super) fn decrypt(&self, iv: &[u8; BLOCK_LEN], buffer: &mut [u8]) {
        match self.0.len() {
            16 => decrypt::<cbc::Decryptor<Aes128>>(&self.0, iv, buffer),
            24 => decrypt::<cbc::Decryptor<Aes192>>(&self.0, iv, buffer),
            _ => decrypt::<cbc::Decryptor<Aes256>>(&self.0, iv, buffer),
        }
    }
}

fn encrypt<M>(key: &[u8], iv: &[u8; BLOCK_LEN], buffer: &mut [u8])
where
    M: KeyIvInit + BlockModeEncrypt<BlockSize = aes::cipher::consts::U16>,
{
    let mut mode = M::new_from_slices(key, iv).expect("lengths were checked in new()");
    let (blocks, rest) = aes::Block::slice_as_chunks_mut(buffer);
    debug_assert!(rest.is_empty());
    mode.encrypt_blocks(blocks);
}

fn decrypt<M>(key: &[u8], iv: &[u8; BLOCK_LEN], buffer: &mut [u8])
where
    M: KeyIvInit + BlockModeDecrypt<BlockSize = aes::cipher::consts::U16>,
{
    let mut mode = M::new_from_slices(key, iv).expect("lengths were checked in new()");
    let (blocks, rest) = aes::Block::slice_as_chunks_mut(buffer);
    debug_assert!(rest.is_empty());
    mode.decrypt_blocks(blocks);
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
    /// An IV that nobody without the key can foresee, as RFC 7296 section 3.14 asks. Messages
    /// under this key are longer than these octets, so the two uses never meet on the same
    /// input.
    pub(super) fn iv(&self, counter: u64) -> [u8; BLOCK_LEN] {
        let mac = self
            .prf
            .compute(&self.key, &[b"CBC IV", &counter.to_be_bytes()]);
        let mut iv = [0; BLOCK_LEN];
        iv.copy_from_slice(&mac.expose()[..BLOCK_LEN]);
        iv
    }
}
