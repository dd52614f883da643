//! AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634): they differ only in the AEAD.

use super::{Cipher, Layout, Refused};

/// Octets of salt that follow an AEAD key in the keying material.
pub(super) const SALT: usize = 4;

/// One key of an AEAD with a nonce of 12 octets and a tag of 16.
pub(super) trait AeadKey: Send + Sync {
    /// Encrypts the body and returns the tag.
    fn seal(&self, nonce: &[u8; 12], data: &[u8], body: &mut [u8]) -> Result<[u8; 16], Refused>;

    /// Verifies the tag and decrypts the body. On `Err` the body holds nothing of the plaintext.
    fn open(
        &self,
        nonce: &[u8; 12],
        data: &[u8],
        body: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), Refused>;
}

/// An AEAD as ESP uses it.
pub(super) struct Aead<A> {
    pub(super) aead: A,
    pub(super) salt: [u8; SALT],
    pub(super) esn: bool,
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

impl<A: AeadKey> Cipher for Aead<A> {
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
        let nonce = self.nonce(parts.iv);
        *parts.icv = self.aead.seal(&nonce, &data[..len], parts.body)?;
        Ok(())
    }

    fn open(&self, sequence: u64, esp: &mut [u8]) -> Result<(), Refused> {
        let parts = AeadParts::split(esp).ok_or(Refused)?;
        let (data, len) = self.additional(parts.spi, sequence);
        let nonce = self.nonce(parts.iv);
        self.aead.open(&nonce, &data[..len], parts.body, parts.icv)
    }
}
