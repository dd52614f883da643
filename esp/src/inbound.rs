//! An SA for packets to us.

use std::net::IpAddr;
use std::ops::Range;

use crate::error::{KeyError, OpenError};
use crate::params::SaParams;

/// Opens packets. One thread owns it: the replay window is in it.
pub struct Inbound {
    params: SaParams,
}

/// What the header around an ESP datagram said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outer {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Type of service or traffic class; its ECN field goes into the inner packet.
    pub tos: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
}

/// An opened packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opened {
    /// Where the complete IP packet lies in the buffer.
    pub range: Range<usize>,
    /// The soft limit was crossed by this packet.
    pub soft_limit: bool,
    /// It is the first packet of this SA.
    pub first: bool,
}

impl Inbound {
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

    /// Opens the ESP datagram at `datagram` (from the SPI to the ICV) in place.
    /// [`HEADROOM`](crate::HEADROOM) octets before it are overwritten.
    ///
    /// # Errors
    /// The datagram must be dropped, and what is in its place must not be read.
    pub fn open(
        &mut self,
        buffer: &mut [u8],
        datagram: Range<usize>,
        outer: Outer,
    ) -> Result<Opened, OpenError> {
        let _ = (buffer, datagram, outer);
        Err(OpenError::Integrity)
    }
}
