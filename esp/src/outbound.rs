//! An SA for packets to the peer.

use std::ops::Range;

use crate::error::{KeyError, SealError};
use crate::params::SaParams;

/// Seals packets. One thread owns it: the sequence number is in it.
pub struct Outbound {
    params: SaParams,
}

/// A sealed packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// Where it lies in the buffer, from the SPI to the end of the ICV.
    pub range: Range<usize>,
    /// For the outer header: type of service or traffic class, RFC 6040 section 4.1.
    pub tos: u8,
    /// For the outer header in transport mode: the packet's own TTL. `None`: the system's.
    pub ttl: Option<u8>,
    /// For the outer header: whether the packet must not be fragmented.
    pub df: bool,
    /// Octets of the packet before it was sealed.
    pub inner_len: usize,
    /// The soft limit was crossed by this packet.
    pub soft_limit: bool,
}

impl Outbound {
    /// Makes the SA.
    ///
    /// # Errors
    /// Parameters that do not fit together.
    pub fn new(params: SaParams) -> Result<Self, KeyError> {
        Ok(Self { params })
    }

    /// The SPI, host byte order.
    pub fn spi(&self) -> u32 {
        self.params.spi
    }

    /// Seals the IP packet at `packet` in place. [`HEADROOM`](crate::HEADROOM) octets before it
    /// and [`TAILROOM`](crate::TAILROOM) after it are overwritten.
    ///
    /// # Errors
    /// The packet must be dropped; its octets are as they were.
    pub fn seal(&mut self, buffer: &mut [u8], packet: Range<usize>) -> Result<Sealed, SealError> {
        let _ = (buffer, packet);
        Err(SealError::Cipher)
    }

    /// The most octets that sealing adds to a packet in tunnel mode, without outer IP and UDP
    /// headers.
    pub fn overhead(&self) -> usize {
        0
    }

    /// The longest packet in octets that fits a path of `path_mtu` octets once it is sealed,
    /// with the outer IP header and with the UDP header of RFC 3948 if `encap`.
    pub fn max_packet(&self, path_mtu: usize, outer_v6: bool, encap: bool) -> usize {
        let _ = (path_mtu, outer_v6, encap);
        0
    }
}
