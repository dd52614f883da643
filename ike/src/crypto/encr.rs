//! Protection of SK and SKF payloads, RFC 7296 section 3.14 and RFC 5282.
//!
//! ```text
//!  IKE header | payloads in clear | generic header (| fragment fields) | IV | ciphertext | ICV
//!  \______________________ associated data ___________________________/
//! ```
//! With an AEAD the ICV covers the associated data and the ciphertext, with CBC and HMAC
//! everything before the ICV. So the two ask the same of the caller: all octets before the IV.

use std::fmt;
use std::ops::Range;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;

use super::cbc::{Cbc, Hmac};
use super::secret::Secret;
use crate::proposal::Encr;
use crate::wire::{EncrId, IntegId};

/// Octets of the explicit IV of an AEAD (RFC 5282 section 3.1, RFC 7634 section 2).
const AEAD_IV_LEN: usize = 8;
/// Octets of the ICV of an AEAD.
const AEAD_ICV_LEN: usize = 16;
/// Octets of the salt that follows the key in the key material of an AEAD.
const SALT_LEN: usize = 4;
/// With an AEAD, plaintext, padding and Pad Length together are a multiple of this many octets.
const AEAD_ALIGNMENT: usize = 4;

/// The message does not authenticate under this key (or it does, and its padding is no
/// padding); nothing may be concluded from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Integrity;

/// obol does not implement this combination, or the keys have another length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnsupportedEncr;

/// One direction of the protection of an IKE SA.
pub struct IkeCipher(Kind);

enum Kind {
    Gcm128(Box<Aes128Gcm>, [u8; SALT_LEN]),
    Gcm256(Box<Aes256Gcm>, [u8; SALT_LEN]),
    ChaCha(Box<ChaCha20Poly1305>, [u8; SALT_LEN]),
    Cbc(Box<Cbc>, Hmac),
}

/// Octets of key material an encryption algorithm takes, salt included; `None` if obol does
/// not implement it.
pub fn encr_key_len(encr: Encr) -> Option<usize> {
    match (encr.id, encr.key_bits) {
        (EncrId::AES_GCM_16, 128) => Some(16 + SALT_LEN),
        (EncrId::AES_GCM_16, 256) => Some(32 + SALT_LEN),
        (EncrId::CHACHA20_POLY1305, _) => Some(32 + SALT_LEN),
        (EncrId::AES_CBC, bits @ (128 | 192 | 256)) => Some(usize::from(bits) / 8),
        (EncrId::DES3, _) => Some(24),
        _ => None,
    }
}

/// Octets of key material an integrity algorithm takes (RFC 4868 section 2.1.1); `None` if
/// obol does not implement it.
pub fn integ_key_len(integ: IntegId) -> Option<usize> {
    match integ {
        IntegId::NONE => Some(0),
        IntegId::HMAC_SHA2_256_128 => Some(32),
        IntegId::HMAC_SHA2_384_192 => Some(48),
        IntegId::HMAC_SHA2_512_256 => Some(64),
        _ => None,
    }
}

impl IkeCipher {
    //= rfc7296 3.14-2 5-2
    /// With SK_ei or SK_er (for an AEAD: key and salt) and SK_ai or SK_ar (for an AEAD: empty).
    ///
    /// # Errors
    /// If obol does not implement the combination, or a key is not of its length.
    pub fn new(
        encr: Encr,
        integ: IntegId,
        key: &Secret,
        integ_key: &Secret,
    ) -> Result<Self, UnsupportedEncr> {
        let aead = encr.is_aead();
        if encr_key_len(encr) != Some(key.len())
            || integ_key_len(integ) != Some(integ_key.len())
            || aead != (integ == IntegId::NONE)
        {
            return Err(UnsupportedEncr);
        }
        let kind = if aead {
            Self::aead(encr, key.expose())?
        } else {
            let cbc = Cbc::new(encr, key.expose()).ok_or(UnsupportedEncr)?;
            let hmac = Hmac::new(integ, integ_key).ok_or(UnsupportedEncr)?;
            Kind::Cbc(Box::new(cbc), hmac)
        };
        Ok(Self(kind))
    }

    fn aead(encr: Encr, keymat: &[u8]) -> Result<Kind, UnsupportedEncr> {
        let (key, salt) = keymat
            .split_last_chunk::<SALT_LEN>()
            .ok_or(UnsupportedEncr)?;
        let bad = |_| UnsupportedEncr;
        Ok(match (encr.id, key.len()) {
            (EncrId::AES_GCM_16, 16) => Kind::Gcm128(
                Box::new(Aes128Gcm::new_from_slice(key).map_err(bad)?),
                *salt,
            ),
            (EncrId::AES_GCM_16, _) => Kind::Gcm256(
                Box::new(Aes256Gcm::new_from_slice(key).map_err(bad)?),
                *salt,
            ),
            _ => Kind::ChaCha(
                Box::new(ChaCha20Poly1305::new_from_slice(key).map_err(bad)?),
                *salt,
            ),
        })
    }

    /// Length of what [`seal`](Self::seal) makes of `plain_len` octets: IV, ciphertext, padding
    /// with Pad Length, ICV.
    pub fn sealed_len(&self, plain_len: usize) -> usize {
        match &self.0 {
            Kind::Cbc(cbc, hmac) => {
                let block = cbc.block_len();
                block + padded_len(plain_len, block) + hmac.icv_len()
            }
            _ => AEAD_IV_LEN + aead_padded_len(plain_len) + AEAD_ICV_LEN,
        }
    }

    /// The longest plaintext that seals to at most `sealed_len` octets; `None` if none does.
    pub fn max_plain_len(&self, sealed_len: usize) -> Option<usize> {
        match &self.0 {
            Kind::Cbc(cbc, hmac) => {
                let block = cbc.block_len();
                let room = sealed_len.checked_sub(block + hmac.icv_len())?;
                (room / block * block).checked_sub(1)
            }
            _ => {
                let room = sealed_len.checked_sub(AEAD_IV_LEN + AEAD_ICV_LEN)?;
                (room / AEAD_ALIGNMENT * AEAD_ALIGNMENT).checked_sub(1)
            }
        }
    }

    /// Encrypts and authenticates: `IV | ciphertext (with padding and Pad Length) | ICV`.
    ///
    /// `counter` must differ in all calls under one key, over the life of the IKE SA: with an
    /// AEAD a repeated value gives plaintext and authentication away (RFC 5282 section 3.1).
    /// A retransmission repeats the sealed octets and does not come here again.
    ///
    /// `aad` is everything before the IV, with the lengths in the headers already right.
    pub fn seal(&self, counter: u64, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(self.sealed_len(plaintext.len()));
        match &self.0 {
            Kind::Gcm128(aead, salt) => {
                seal_aead(aead.as_ref(), salt, counter, aad, plaintext, &mut sealed);
            }
            Kind::Gcm256(aead, salt) => {
                seal_aead(aead.as_ref(), salt, counter, aad, plaintext, &mut sealed);
            }
            Kind::ChaCha(aead, salt) => {
                seal_aead(aead.as_ref(), salt, counter, aad, plaintext, &mut sealed);
            }
            Kind::Cbc(cbc, hmac) => seal_cbc(cbc, hmac, counter, aad, plaintext, &mut sealed),
        }
        sealed
    }

    /// Checks and decrypts the payload whose IV begins at `body.start` and whose ICV ends at
    /// `body.end`, which is also the end of the message. Returns the plaintext without padding.
    ///
    /// # Errors
    /// [`Integrity`], also for a body that is too short or a range outside the message.
    pub fn open(&self, message: &[u8], body: Range<usize>) -> Result<Vec<u8>, Integrity> {
        let aad = message.get(..body.start).ok_or(Integrity)?;
        let body = message.get(body).ok_or(Integrity)?;
        let padded = match &self.0 {
            Kind::Gcm128(aead, salt) => open_aead(aead.as_ref(), salt, aad, body)?,
            Kind::Gcm256(aead, salt) => open_aead(aead.as_ref(), salt, aad, body)?,
            Kind::ChaCha(aead, salt) => open_aead(aead.as_ref(), salt, aad, body)?,
            Kind::Cbc(cbc, hmac) => open_cbc(cbc, hmac, aad, body)?,
        };
        without_padding(padded)
    }
}

impl fmt::Debug for IkeCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IkeCipher(..)")
    }
}

//= rfc7296 3.14-4
/// Plaintext, padding and Pad Length together fill blocks.
fn padded_len(plain_len: usize, block: usize) -> usize {
    (plain_len + 1).next_multiple_of(block)
}

/// The same with an AEAD, which needs no padding: with it, no request of ours is shorter than an
/// answer from a host that has lost its state, which must not be the longer one.
fn aead_padded_len(plain_len: usize) -> usize {
    (plain_len + 1).next_multiple_of(AEAD_ALIGNMENT)
}

//= rfc7296 3.14-5
fn without_padding(mut padded: Vec<u8>) -> Result<Vec<u8>, Integrity> {
    let pad_len = usize::from(padded.pop().ok_or(Integrity)?);
    let plain_len = padded.len().checked_sub(pad_len).ok_or(Integrity)?;
    padded.truncate(plain_len);
    Ok(padded)
}

/// Salt, then IV (RFC 5282 section 4, RFC 7634 section 2).
fn nonce(salt: &[u8; SALT_LEN], iv: &[u8; AEAD_IV_LEN]) -> [u8; SALT_LEN + AEAD_IV_LEN] {
    let mut nonce = [0; SALT_LEN + AEAD_IV_LEN];
    nonce[..SALT_LEN].copy_from_slice(salt);
    nonce[SALT_LEN..].copy_from_slice(iv);
    nonce
}

fn seal_aead<A>(
    aead: &A,
    salt: &[u8; SALT_LEN],
    counter: u64,
    aad: &[u8],
    plaintext: &[u8],
    sealed: &mut Vec<u8>,
) where
    A: AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16>,
{
    let iv = counter.to_be_bytes();
    sealed.extend_from_slice(&iv);
    sealed.extend_from_slice(plaintext);
    let pad_len = aead_padded_len(plaintext.len()) - plaintext.len() - 1;
    sealed.resize(sealed.len() + pad_len, 0);
    sealed.push(u8::try_from(pad_len).expect("less than the alignment"));
    let tag = aead
        .encrypt_inout_detached(
            &nonce(salt, &iv).into(),
            aad,
            (&mut sealed[AEAD_IV_LEN..]).into(),
        )
        .expect("an IKE message is far shorter than the limits of these ciphers");
    sealed.extend_from_slice(&tag);
}

fn open_aead<A>(
    aead: &A,
    salt: &[u8; SALT_LEN],
    aad: &[u8],
    body: &[u8],
) -> Result<Vec<u8>, Integrity>
where
    A: AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16>,
{
    let (iv, rest) = body.split_first_chunk().ok_or(Integrity)?;
    let (ciphertext, tag) = rest.split_last_chunk::<AEAD_ICV_LEN>().ok_or(Integrity)?;
    let mut plaintext = ciphertext.to_vec();
    aead.decrypt_inout_detached(
        &nonce(salt, iv).into(),
        aad,
        plaintext.as_mut_slice().into(),
        &(*tag).into(),
    )
    .map_err(|_| Integrity)?;
    Ok(plaintext)
}

//= rfc7296 3.14-5 3.14-6
fn seal_cbc(
    cbc: &Cbc,
    hmac: &Hmac,
    counter: u64,
    aad: &[u8],
    plaintext: &[u8],
    sealed: &mut Vec<u8>,
) {
    let block = cbc.block_len();
    let iv = &hmac.iv(counter)[..block];
    sealed.extend_from_slice(iv);
    sealed.extend_from_slice(plaintext);
    let pad_len = padded_len(plaintext.len(), block) - plaintext.len() - 1;
    sealed.resize(sealed.len() + pad_len, 0);
    sealed.push(u8::try_from(pad_len).expect("less than a block"));
    cbc.encrypt(iv, &mut sealed[block..]);
    let icv = hmac.icv(aad, sealed);
    sealed.extend_from_slice(&icv);
}

//= rfc7296 3.14-6
fn open_cbc(cbc: &Cbc, hmac: &Hmac, aad: &[u8], body: &[u8]) -> Result<Vec<u8>, Integrity> {
    let split = body.len().checked_sub(hmac.icv_len()).ok_or(Integrity)?;
    let (covered, icv) = body.split_at(split);
    if !hmac.verify(aad, covered, icv) {
        return Err(Integrity);
    }
    let block = cbc.block_len();
    let (iv, ciphertext) = covered.split_at_checked(block).ok_or(Integrity)?;
    if ciphertext.is_empty() || ciphertext.len() % block != 0 {
        return Err(Integrity);
    }
    let mut plaintext = ciphertext.to_vec();
    cbc.decrypt(iv, &mut plaintext);
    Ok(plaintext)
}

#[cfg(test)]
mod tests;
