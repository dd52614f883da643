//! The ciphers without ESP.

use aes_gcm::AeadInOut;
use aes_gcm::aead::consts::{U12, U16};
use cbc::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit,
    KeyInit,
};
use hmac::{Hmac, Mac};
use obol_esp::{Backend, Suite};

/// The same for each packet, since nobody will see them.
pub(crate) const NONCE: [u8; 12] = [9; 12];

/// A bare cipher over a packet from the SPI to the ICV.
pub(crate) type Work = Box<dyn Fn(&mut [u8])>;

/// The cipher without ESP: the same octets encrypted and covered, with a constant nonce.
pub(crate) struct Raw {
    pub(crate) seal: Work,
    pub(crate) open: Work,
}

impl Raw {
    /// By the back end that ESP uses.
    pub(crate) fn new(suite: Suite) -> Self {
        let portable = Backend::best() == Backend::Portable;
        match suite {
            Suite::AesCbcHmac { .. } | Suite::TripleDesCbcHmac { .. } => Self::cbc(),
            Suite::AesGcm16 { key_bits } if !portable => {
                let cipher = || graviola::aead::AesGcm::new(&[7; 32][..usize::from(key_bits / 8)]);
                let (sealer, opener) = (cipher(), cipher());
                Self::of(
                    move |data, body, tag| sealer.encrypt(&NONCE, data, body, tag),
                    move |data, body, tag| opener.decrypt(&NONCE, data, body, tag).is_ok(),
                )
            }
            Suite::ChaCha20Poly1305 if !portable => {
                let cipher = || graviola::aead::ChaCha20Poly1305::new([7; 32]);
                let (sealer, opener) = (cipher(), cipher());
                Self::of(
                    move |data, body, tag| sealer.encrypt(&NONCE, data, body, tag),
                    move |data, body, tag| opener.decrypt(&NONCE, data, body, tag).is_ok(),
                )
            }
            _ => Self::portable(suite).expect("an AEAD"),
        }
    }

    /// By the portable back end; `None` if the suite has only that.
    pub(crate) fn portable(suite: Suite) -> Option<Self> {
        Some(match suite {
            Suite::AesGcm16 { key_bits: 128 } => Self::aead::<aes_gcm::Aes128Gcm>(&[7; 16]),
            Suite::AesGcm16 { .. } => Self::aead::<aes_gcm::Aes256Gcm>(&[7; 32]),
            Suite::ChaCha20Poly1305 => Self::aead::<chacha20poly1305::ChaCha20Poly1305>(&[7; 32]),
            Suite::AesCbcHmac { .. } | Suite::TripleDesCbcHmac { .. } => return None,
        })
    }

    /// From an AEAD: additional data, body, tag.
    fn of(
        seal: impl Fn(&[u8], &mut [u8], &mut [u8; 16]) + 'static,
        open: impl Fn(&[u8], &mut [u8], &[u8; 16]) -> bool + 'static,
    ) -> Self {
        Self::sealing_and_opening(seal, move |data, body_and_icv| {
            let (body, icv) = body_and_icv.split_last_chunk_mut().expect("has an ICV");
            open(data, body, icv)
        })
    }

    /// The same for one that takes body and tag as one when it opens.
    pub(crate) fn sealing_and_opening(
        seal: impl Fn(&[u8], &mut [u8], &mut [u8; 16]) + 'static,
        open: impl Fn(&[u8], &mut [u8]) -> bool + 'static,
    ) -> Self {
        let seal = move |esp: &mut [u8]| {
            let (front, icv) = esp.split_last_chunk_mut::<16>().expect("has an ICV");
            let (header, body) = front.split_at_mut(16);
            seal(&header[..12], body, icv);
        };
        let open = move |esp: &mut [u8]| {
            let (header, body_and_icv) = esp.split_at_mut(16);
            assert!(open(&header[..12], body_and_icv), "sealed just before");
        };
        Self {
            seal: Box::new(seal),
            open: Box::new(open),
        }
    }

    fn aead<A>(key: &[u8]) -> Self
    where
        A: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit + Clone + 'static,
    {
        let sealer = A::new_from_slice(key).expect("a key of the right length");
        let opener = sealer.clone();
        Self::of(
            move |data, body, tag| {
                let made = sealer.encrypt_inout_detached(&NONCE.into(), data, body.into());
                *tag = made.expect("short").into();
            },
            move |data, body, tag| {
                opener
                    .decrypt_inout_detached(&NONCE.into(), data, body.into(), tag.into())
                    .is_ok()
            },
        )
    }

    fn cbc() -> Self {
        let cipher = || aes::Aes256::new(&Array([7; 32]));
        let hmac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(&[8; 32]).expect("any length");
        let iv = Array([9; 16]);
        let (sealer, sealing) = (cipher(), hmac.clone());
        let seal = move |esp: &mut [u8]| {
            let (covered, icv) = esp.split_last_chunk_mut::<16>().expect("has an ICV");
            let (blocks, _) = Array::slice_as_chunks_mut(&mut covered[24..]);
            encrypt(&sealer, &iv, blocks);
            icv.copy_from_slice(
                &sealing
                    .clone()
                    .chain_update(covered)
                    .finalize()
                    .into_bytes()[..16],
            );
        };
        let opener = cipher();
        let open = move |esp: &mut [u8]| {
            let (covered, icv) = esp.split_last_chunk_mut::<16>().expect("has an ICV");
            let verified = hmac
                .clone()
                .chain_update(&*covered)
                .verify_truncated_left(icv);
            verified.expect("sealed just before");
            let (blocks, _) = Array::slice_as_chunks_mut(&mut covered[24..]);
            decrypt(&opener, &iv, blocks);
        };
        Self {
            seal: Box::new(seal),
            open: Box::new(open),
        }
    }
}

fn encrypt<C>(cipher: &C, iv: &Array<u8, U16>, blocks: &mut [Array<u8, U16>])
where
    C: BlockCipherEncrypt<BlockSize = U16>,
{
    cbc::Encryptor::inner_iv_init(cipher, iv).encrypt_blocks(blocks);
}

fn decrypt<C>(cipher: &C, iv: &Array<u8, U16>, blocks: &mut [Array<u8, U16>])
where
    C: BlockCipherDecrypt<BlockSize = U16>,
{
    cbc::Decryptor::inner_iv_init(cipher, iv).decrypt_blocks(blocks);
}
