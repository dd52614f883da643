//! AES-CBC and 3DES-CBC with HMAC-SHA2.

use aes::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit,
    KeyInit, array::ArraySize, typenum::Unsigned,
};
use hmac::{EagerHash, Hmac, Mac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Cipher, Layout, Refused, want_integ};
use crate::error::KeyError;
use crate::wire::ESP_HEADER;

/// AES-CBC (RFC 3602) or 3DES-CBC (RFC 2451), then HMAC-SHA2 truncated to `ICV` octets (RFC 4868).
pub(super) struct CbcHmac<C, D: EagerHash, const ICV: usize> {
    cipher: C,
    /// Makes IVs; see [`CbcHmac::write_iv`].
    iv_cipher: C,
    /// With the key taken in; cloned for each packet.
    hmac: Hmac<D>,
    esn: bool,
}

impl<C, D, const ICV: usize> CbcHmac<C, D, ICV>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + KeyInit,
    D: EagerHash,
    Hmac<D>: Mac + KeyInit + Clone,
{
    const LAYOUT: Layout = Layout {
        iv: C::BlockSize::USIZE,
        align: C::BlockSize::USIZE,
        icv: ICV,
    };

    pub(super) fn new(encr_key: &[u8], integ_key: &[u8], esn: bool) -> Result<Self, KeyError> {
        // RFC 4868 section 2.1.1: the key is as long as the hash, twice the ICV.
        want_integ(integ_key, 2 * ICV)?;
        let error = KeyError::EncrLength {
            have: encr_key.len(),
            want: C::KeySize::USIZE,
        };
        let cipher = C::new_from_slice(encr_key).map_err(|_| error)?;
        let hmac = <Hmac<D> as KeyInit>::new_from_slice(integ_key)
            .expect("HMAC takes a key of any length");
        let iv_cipher = C::new_from_slice(&iv_key(&hmac)[..C::KeySize::USIZE])
            .expect("every hash here is at least as long as a key");
        Ok(Self {
            cipher,
            iv_cipher,
            hmac,
            esn,
        })
    }

    /// RFC 4303 section 2.8: over everything before the ICV, and the high half of an extended
    /// sequence number.
    pub(super) fn icv(&self, sequence: u64, covered: &[u8]) -> [u8; ICV] {
        let mut hmac = self.hmac.clone();
        hmac.update(covered);
        if self.esn {
            hmac.update(&sequence.to_be_bytes()[..4]);
        }
        let full = hmac.finalize().into_bytes();
        let mut icv = [0; ICV];
        icv.copy_from_slice(&full[..ICV]);
        icv
    }
}

/// The key of the IV generator: an HMAC under the integrity key over what can be no packet,
/// since SPI 0 is never used.
fn iv_key<H: Mac + Clone>(hmac: &H) -> Zeroizing<Vec<u8>> {
    let mut hmac = hmac.clone();
    hmac.update(&[0; ESP_HEADER]);
    hmac.update(b"CBC IV generation");
    Zeroizing::new(hmac.finalize().into_bytes().to_vec())
}

impl<C, D, const ICV: usize> Cipher for CbcHmac<C, D, ICV>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + KeyInit + Send + Sync,
    D: EagerHash,
    Hmac<D>: Mac + KeyInit + Clone + Send + Sync,
{
    fn layout(&self) -> Layout {
        Self::LAYOUT
    }

    /// An encrypted counter: RFC 3602 section 3 and RFC 2451 section 3 want an IV that cannot be predicted, and
    /// NIST SP 800-38A appendix C makes one from a nonce with the block cipher. The key is not
    /// the one of the data, so no choice of plaintext shows anything about later IVs.
    fn write_iv(&self, sequence: u64, iv: &mut [u8]) {
        let mut block = Array::<u8, C::BlockSize>::default();
        let counter = block.len() - 8;
        block[counter..].copy_from_slice(&sequence.to_be_bytes());
        self.iv_cipher.encrypt_block(&mut block);
        iv.copy_from_slice(&block);
    }

    fn seal(&self, sequence: u64, esp: &mut [u8]) -> Result<(), Refused> {
        let (covered, icv) = esp.split_last_chunk_mut::<ICV>().ok_or(Refused)?;
        let (iv, blocks) = cbc_parts::<C::BlockSize>(covered).ok_or(Refused)?;
        cbc::Encryptor::inner_iv_init(&self.cipher, &iv).encrypt_blocks(blocks);
        *icv = self.icv(sequence, covered);
        Ok(())
    }

    fn open(&self, sequence: u64, esp: &mut [u8]) -> Result<(), Refused> {
        let (covered, icv) = esp.split_last_chunk_mut::<ICV>().ok_or(Refused)?;
        if !bool::from(self.icv(sequence, covered).ct_eq(icv)) {
            return Err(Refused);
        }
        let (iv, blocks) = cbc_parts::<C::BlockSize>(covered).ok_or(Refused)?;
        cbc::Decryptor::inner_iv_init(&self.cipher, &iv).decrypt_blocks(blocks);
        Ok(())
    }
}

/// IV and body; `None` if the body is not a whole number of blocks.
#[expect(clippy::type_complexity, reason = "an IV and a row of blocks")]
fn cbc_parts<N: ArraySize>(covered: &mut [u8]) -> Option<(Array<u8, N>, &mut [Array<u8, N>])> {
    let (_header, rest) = covered.split_first_chunk_mut::<ESP_HEADER>()?;
    match Array::slice_as_chunks_mut(rest) {
        ([iv, blocks @ ..], []) => Some((iv.clone(), blocks)),
        _ => None,
    }
}
