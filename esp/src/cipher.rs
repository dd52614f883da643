//! Encryption and integrity of one ESP packet, in place. A back end is one [`Cipher`].
//!
//! ```text
//!  | SPI | sequence | IV | payload, padding, pad length, next header | ICV |
//!  |<----- header ---->|<------------------ body ----------------->|
//! ```

mod aead;
mod backend;
mod cbc_hmac;

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use crate::error::KeyError;
use crate::params::{Hash, Suite};
use crate::wire::ESP_HEADER;
use aead::SALT;
pub use backend::Backend;
use cbc_hmac::CbcHmac;

/// Where the parts of a packet lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Layout {
    /// Octets of IV after the ESP header.
    pub(crate) iv: usize,
    /// The body is a multiple of this many octets, a power of two.
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

    /// Verifies the ICV and decrypts the body. On `Err` the body holds nothing of the plaintext.
    fn open(&self, sequence: u64, esp: &mut [u8]) -> Result<(), Refused>;
}

/// Makes the cipher of a suite from its keys, by the fastest back end of this machine.
pub(crate) fn new(
    suite: Suite,
    encr_key: &[u8],
    integ_key: &[u8],
    esn: bool,
) -> Result<Box<dyn Cipher>, KeyError> {
    by(Backend::best(), suite, encr_key, integ_key, esn)
}

/// Makes the cipher of a suite from its keys.
fn by(
    backend: Backend,
    suite: Suite,
    encr_key: &[u8],
    integ_key: &[u8],
    esn: bool,
) -> Result<Box<dyn Cipher>, KeyError> {
    match suite {
        Suite::AesGcm16 { key_bits } if key_bits != 128 && key_bits != 256 => {
            Err(KeyError::KeyBits(key_bits))
        }
        Suite::AesGcm16 { .. } | Suite::ChaCha20Poly1305 => {
            want_integ(integ_key, 0)?;
            let key = suite.aead_key_octets();
            let error = KeyError::EncrLength {
                have: encr_key.len(),
                want: key + SALT,
            };
            let (key, salt) = encr_key
                .split_last_chunk::<SALT>()
                .filter(|(octets, _)| octets.len() == key)
                .ok_or(error)?;
            Ok(backend.aead(suite, key, *salt, esn))
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
        Suite::AesCbcHmac { key_bits, .. } => Err(KeyError::KeyBits(key_bits)),
        Suite::TripleDesCbcHmac { hash } => {
            cbc_hmac::<des::TdesEde3>(hash, encr_key, integ_key, esn)
        }
    }
}

fn cbc_hmac<C>(
    hash: Hash,
    encr_key: &[u8],
    integ_key: &[u8],
    esn: bool,
) -> Result<Box<dyn Cipher>, KeyError>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + KeyInit + Send + Sync + 'static,
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

#[cfg(test)]
mod tests;
