//! What an SA is made from.

use std::net::IpAddr;
use zeroize::Zeroizing;

use crate::error::KeyError;
use crate::selector::Selectors;

/// Parameters of one SA in one direction. The keys are wiped when it is dropped.
pub struct SaParams {
    /// SPI in host byte order; above 255.
    pub spi: u32,
    /// Cipher and integrity.
    pub suite: Suite,
    /// Encryption key, followed by the salt (RFC 4106 section 8.1, RFC 7634 section 2) with an
    /// AEAD.
    pub encr_key: Zeroizing<Vec<u8>>,
    /// Integrity key; empty with an AEAD.
    pub integ_key: Zeroizing<Vec<u8>>,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Extended sequence numbers, RFC 4303 section 2.2.1.
    pub esn: bool,
    /// What the SA may carry, on the inner packet, in the direction of this SA.
    pub selectors: Selectors,
    /// When to say so, and when to stop.
    pub limits: Limits,
    /// Packets in the replay window: 1024 to 65536; [`SaParams::REPLAY_WINDOW`] is a good one.
    pub replay_window: u32,
    /// Recompute TCP and UDP checksums of what is opened: transport mode behind a NAT, RFC 3948
    /// section 3.1.2.
    pub repair_checksums: bool,
    /// Source and destination to restore in packets that are opened in transport mode; `None`:
    /// those of the outer header.
    pub transport_addresses: Option<(IpAddr, IpAddr)>,
}

impl SaParams {
    //= rfc4303 3.4.3-9
    //= security S-59
    /// A replay window that outlasts the reordering of several queues at 10 Gbit/s.
    pub const REPLAY_WINDOW: u32 = 4096;

    //= rfc4303 2.1-6 3.4.3-9
    //= security S-51
    /// Checks what does not depend on the suite.
    pub(crate) fn check(&self) -> Result<(), KeyError> {
        if self.spi < 256 {
            return Err(KeyError::ReservedSpi(self.spi));
        }
        if !(1024..=65536).contains(&self.replay_window) {
            return Err(KeyError::ReplayWindow(self.replay_window));
        }
        match self.transport_addresses {
            Some((source, destination))
                if self.mode == Mode::Tunnel || source.is_ipv4() != destination.is_ipv4() =>
            {
                Err(KeyError::TransportAddresses)
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for SaParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaParams")
            .field("spi", &format_args!("{:08x}", self.spi))
            .field("suite", &self.suite)
            .field("mode", &self.mode)
            .field("esn", &self.esn)
            .finish_non_exhaustive()
    }
}

//= rfc4303 3.2-1 3.4.3-2
//= security S-62
/// Cipher and integrity of an SA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Suite {
    /// AES-GCM with an ICV of 16 octets, RFC 4106.
    AesGcm16 {
        /// 128 or 256, without salt.
        key_bits: u16,
    },
    /// ChaCha20-Poly1305, RFC 7634.
    ChaCha20Poly1305,
    /// AES-CBC (RFC 3602) with HMAC-SHA2 (RFC 4868).
    AesCbcHmac {
        /// 128, 192 or 256.
        key_bits: u16,
        /// The hash of the HMAC.
        hash: Hash,
    },
    /// 3DES-CBC (RFC 2451) with HMAC-SHA2, for peers that have nothing else: blocks of 64 bits
    /// are few enough to collide, so a key is good for little.
    TripleDesCbcHmac {
        /// The hash of the HMAC.
        hash: Hash,
    },
}

impl Suite {
    /// Octets of the key of an AEAD, without salt; 0 for others.
    pub(crate) fn aead_key_octets(self) -> usize {
        match self {
            Self::AesGcm16 { key_bits } => usize::from(key_bits) / 8,
            Self::ChaCha20Poly1305 => 32,
            Self::AesCbcHmac { .. } | Self::TripleDesCbcHmac { .. } => 0,
        }
    }
}

/// Hash of an HMAC, with the truncation of RFC 4868.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hash {
    /// HMAC-SHA2-256-128.
    Sha256,
    /// HMAC-SHA2-384-192.
    Sha384,
    /// HMAC-SHA2-512-256.
    Sha512,
}

/// What an SA carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Whole IP packets.
    Tunnel,
    /// The payload of IP packets between the two ends.
    Transport,
}

/// When an SA asks to be replaced (soft) and when it refuses to go on (hard). Bytes are those
/// of inner packets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Bytes after which to ask for another SA.
    pub soft_bytes: Option<u64>,
    /// Bytes beyond which no packet passes.
    pub hard_bytes: Option<u64>,
    /// Packets after which to ask for another SA.
    pub soft_packets: Option<u64>,
    /// Packets beyond which none passes.
    pub hard_packets: Option<u64>,
}
