//! Encryption and integrity of one ESP packet, in place. A back end is one [`Cipher`].
//!
//! ```text
//!  | SPI | sequence | IV | payload, padding, pad length, next header | ICV |
//!  |<----- header ---->|<------------------ body ----------------->|
//! ```

use aes::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit,
    KeyInit,
    consts::{U12, U16},
    typenum::Unsigned,
};
use aes_gcm::AeadInOut;
use hmac::{EagerHash, Hmac, Mac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::error::KeyError;
use crate::params::{Hash, Suite};
use crate::wire::ESP_HEADER;

/// An AES block.
type Block = Array<u8, U16>;

/// Octets of salt that follow an AEAD key in the keying material.
const SALT: usize = 4;

/// Where the parts of a packet lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Layout {
    /// Octets of IV after the ESP header.
    pub(crate) iv: usize,
    /// The body is a multiple of this many octets.
    pub(crate) align: usize,
    /// Octets of ICV.
    pub(crate) icv: usize,
}

impl Layout {
    //= rfc4303 2.3-3
    /// Octets from the SPI to the body.
    pub(crate) const fn header(self) -> usize {
        ESP_HEADER + self.iv
    }
}

/// The cipher refused: a wrong ICV, or a packet that is not of this layout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Refused;

/// One key, ready to seal or open. `sequence` is the whole 64-bit number; its high half counts
/// in the ICV only with extended sequence numbers.
pub(crate) trait Cipher: Send + Sync {
    /// Where the parts of a packet lie.
    fn layout(&self) -> Layout;

    /// Writes the IV for this sequence number; `iv` has the length of the layout.
    fn write_iv(&self, sequence: u64, iv: &mut [u8]);

    /// Encrypts the body and writes the ICV. Header and IV are already in `esp`.
    fn seal(&self, sequence: u64, esp: &mut [u8]) -> Result<(), Refused>;

    /// Verifies the ICV, then decrypts the body. On `Err` the body is still ciphertext.
    fn open(&self, sequence: u64, esp: &mut [u8]) -> Result<(), Refused>;
}

/// Makes the cipher of a suite from its keys.
pub(crate) fn new(
    suite: Suite,
    encr_key: &[u8],
    integ_key: &[u8],
    esn: bool,
) -> Result<Box<dyn Cipher>, KeyError> {
    match suite {
        Suite::AesGcm16 { key_bits: 128 } => aead::<aes_gcm::Aes128Gcm>(encr_key, integ_key, esn),
        Suite::AesGcm16 { key_bits: 256 } => aead::<aes_gcm::Aes256Gcm>(encr_key, integ_key, esn),
        Suite::ChaCha20Poly1305 => {
            aead::<chacha20poly1305::ChaCha20Poly1305>(encr_key, integ_key, esn)
        }
        Suite::AesCbcHmac {
            key_bits: 128,
            hash,
        } => cbc_hmac::<aes::Aes128>(hash, encr_key, integ_key, esn),
        Suite::AesCbcHmac {
            key_bits: 192,
            hash,
        } => cbc_hmac::<aes::Aes192>(hash, encr_key, integ_key, esn),
        Suite::AesCbcHmac {
            key_bits: 256,
            hash,
        } => cbc_hmac::<aes::Aes256>(hash, encr_key, integ_key, esn),
        Suite::AesGcm16 { key_bits } | Suite::AesCbcHmac { key_bits, .. } => {
            Err(KeyError::KeyBits(key_bits))
        }
    }
}

fn aead<A>(encr_key: &[u8], integ_key: &[u8], esn: bool) -> Result<Box<dyn Cipher>, KeyError>
where
    A: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit + Send + Sync + 'static,
{
    want_integ(integ_key, 0)?;
    let want = A::KeySize::USIZE + SALT;
    let error = KeyError::EncrLength {
        have: encr_key.len(),
        want,
    };
    let (key, salt) = encr_key.split_last_chunk::<SALT>().ok_or(error)?;
    let aead = A::new_from_slice(key).map_err(|_| error)?;
    Ok(Box::new(Aead {
        aead,
        salt: *salt,
        esn,
    }))
}

fn cbc_hmac<C>(
    hash: Hash,
    encr_key: &[u8],
    integ_key: &[u8],
    esn: bool,
) -> Result<Box<dyn Cipher>, KeyError>
where
    C: BlockCipherEncrypt<BlockSize = U16>
        + BlockCipherDecrypt<BlockSize = U16>
        + KeyInit
        + Send
        + Sync
        + 'static,
{
    Ok(match hash {
        Hash::Sha256 => Box::new(CbcHmac::<C, sha2::Sha256, 16>::new(
            encr_key, integ_key, esn,
        )?),
        Hash::Sha384 => Box::new(CbcHmac::<C, sha2::Sha384, 24>::new(
            encr_key, integ_key, esn,
        )?),
        Hash::Sha512 => Box::new(CbcHmac::<C, sha2::Sha512, 32>::new(
            encr_key, integ_key, esn,
        )?),
    })
}

fn want_integ(integ_key: &[u8], want: usize) -> Result<(), KeyError> {
    if integ_key.len() == want {
        return Ok(());
    }
    Err(KeyError::IntegLength {
        have: integ_key.len(),
        want,
    })
}

/// AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634): they differ only in the AEAD.
struct Aead<A> {
    aead: A,
    salt: [u8; SALT],
    esn: bool,
}

impl<A> Aead<A> {
    const LAYOUT: Layout = Layout {
        iv: 8,
        align: 4,
        icv: 16,
    };

    /// Salt and IV: RFC 4106 section 4, RFC 7634 section 2.
    fn nonce(&self, iv: &[u8; 8]) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..SALT].copy_from_slice(&self.salt);
        nonce[SALT..].copy_from_slice(iv);
        nonce
    }

    /// Additional data: the SPI and the sequence number, of 64 bits with ESN (RFC 4106
    /// section 5). Returns the octets and how many of them count.
    fn additional(&self, spi: &[u8; 4], sequence: u64) -> ([u8; 12], usize) {
        let mut data = [0; 12];
        data[..4].copy_from_slice(spi);
        if self.esn {
            data[4..].copy_from_slice(&sequence.to_be_bytes());
            return (data, 12);
        }
        data[4..8].copy_from_slice(&sequence.to_be_bytes()[4..]);
        (data, 8)
    }
}

/// The parts of an AEAD packet.
struct AeadParts<'a> {
    spi: &'a [u8; 4],
    iv: &'a [u8; 8],
    body: &'a mut [u8],
    icv: &'a mut [u8; 16],
}

impl<'a> AeadParts<'a> {
    fn split(esp: &'a mut [u8]) -> Option<Self> {
        let (spi, rest) = esp.split_first_chunk_mut::<4>()?;
        let (_sequence, rest) = rest.split_first_chunk_mut::<4>()?;
        let (iv, rest) = rest.split_first_chunk_mut::<8>()?;
        let (body, icv) = rest.split_last_chunk_mut::<16>()?;
        Some(Self { spi, iv, body, icv })
    }
}

impl<A> Cipher for Aead<A>
where
    A: AeadInOut<NonceSize = U12, TagSize = U16> + Send + Sync,
{
    fn layout(&self) -> Layout {
        Self::LAYOUT
    }

    //= security S-63
    /// The sequence number itself, which never repeats under a key.
    fn write_iv(&self, sequence: u64, iv: &mut [u8]) {
        iv.copy_from_slice(&sequence.to_be_bytes());
    }

    fn seal(&self, sequence: u64, esp: &mut [u8]) -> Result<(), Refused> {
        let parts = AeadParts::split(esp).ok_or(Refused)?;
        let (data, len) = self.additional(parts.spi, sequence);
        let tag = self
            .aead
            .encrypt_inout_detached(
                &self.nonce(parts.iv).into(),
                &data[..len],
                parts.body.into(),
            )
            .map_err(|_| Refused)?;
        *parts.icv = tag.into();
        Ok(())
    }

    fn open(&self, sequence: u64, esp: &mut [u8]) -> Result<(), Refused> {
        let parts = AeadParts::split(esp).ok_or(Refused)?;
        let (data, len) = self.additional(parts.spi, sequence);
        let tag = Array(*parts.icv);
        self.aead
            .decrypt_inout_detached(
                &self.nonce(parts.iv).into(),
                &data[..len],
                parts.body.into(),
                &tag,
            )
            .map_err(|_| Refused)
    }
}

/// AES-CBC (RFC 3602), then HMAC-SHA2 truncated to `ICV` octets (RFC 4868).
struct CbcHmac<C, D: EagerHash, const ICV: usize> {
    cipher: C,
    /// Makes IVs; see [`CbcHmac::write_iv`].
    iv_cipher: C,
    /// With the key taken in; cloned for each packet.
    hmac: Hmac<D>,
    esn: bool,
}

impl<C, D, const ICV: usize> CbcHmac<C, D, ICV>
where
    C: BlockCipherEncrypt<BlockSize = U16> + BlockCipherDecrypt<BlockSize = U16> + KeyInit,
    D: EagerHash,
    Hmac<D>: Mac + KeyInit + Clone,
{
    const LAYOUT: Layout = Layout {
        iv: 16,
        align: 16,
        icv: ICV,
    };

    fn new(encr_key: &[u8], integ_key: &[u8], esn: bool) -> Result<Self, KeyError> {
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
            .expect("every hash here is at least as long as an AES key");
        Ok(Self {
            cipher,
            iv_cipher,
            hmac,
            esn,
        })
    }

    /// RFC 4303 section 2.8: over everything before the ICV, and the high half of an extended
    /// sequence number.
    fn icv(&self, sequence: u64, covered: &[u8]) -> [u8; ICV] {
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
    C: BlockCipherEncrypt<BlockSize = U16>
        + BlockCipherDecrypt<BlockSize = U16>
        + KeyInit
        + Send
        + Sync,
    D: EagerHash,
    Hmac<D>: Mac + KeyInit + Clone + Send + Sync,
{
    fn layout(&self) -> Layout {
        Self::LAYOUT
    }

    /// An encrypted counter: RFC 3602 section 3 wants an IV that cannot be predicted, and
    /// NIST SP 800-38A appendix C makes one from a nonce with the block cipher. The key is not
    /// the one of the data, so no choice of plaintext shows anything about later IVs.
    fn write_iv(&self, sequence: u64, iv: &mut [u8]) {
        let mut block = Array::from([0; 16]);
        block[8..].copy_from_slice(&sequence.to_be_bytes());
        self.iv_cipher.encrypt_block(&mut block);
        iv.copy_from_slice(&block);
    }

    fn seal(&self, sequence: u64, esp: &mut [u8]) -> Result<(), Refused> {
        let (covered, icv) = esp.split_last_chunk_mut::<ICV>().ok_or(Refused)?;
        let (iv, blocks) = cbc_parts(covered).ok_or(Refused)?;
        cbc::Encryptor::inner_iv_init(&self.cipher, &iv).encrypt_blocks(blocks);
        *icv = self.icv(sequence, covered);
        Ok(())
    }

    fn open(&self, sequence: u64, esp: &mut [u8]) -> Result<(), Refused> {
        let (covered, icv) = esp.split_last_chunk_mut::<ICV>().ok_or(Refused)?;
        if !bool::from(self.icv(sequence, covered).ct_eq(icv)) {
            return Err(Refused);
        }
        let (iv, blocks) = cbc_parts(covered).ok_or(Refused)?;
        cbc::Decryptor::inner_iv_init(&self.cipher, &iv).decrypt_blocks(blocks);
        Ok(())
    }
}

/// IV and body; `None` if the body is not a whole number of blocks.
fn cbc_parts(covered: &mut [u8]) -> Option<(Block, &mut [Block])> {
    let (_header, rest) = covered.split_first_chunk_mut::<ESP_HEADER>()?;
    let (iv, body) = rest.split_first_chunk_mut::<16>()?;
    match Array::slice_as_chunks_mut(body) {
        (blocks, []) => Some((Array(*iv), blocks)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
