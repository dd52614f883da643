//! From an IP packet to the fields that selectors look at.

use std::net::IpAddr;

use crate::error::PacketError;

/// What selectors look at in one packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Next layer protocol, after IPv6 extension headers.
    pub protocol: u8,
    /// Source port; for ICMP and ICMPv6 the type; 0 if not known.
    pub source_port: u16,
    /// Destination port; for ICMP and ICMPv6 the code; 0 if not known.
    pub destination_port: u16,
    /// A fragment that is not the first.
    pub fragment: bool,
    /// Whether the protocol has ports (or type and code) and they are in this packet.
    pub ports_known: bool,
}

/// What an IP header says besides the flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IpInfo {
    /// 4 or 6.
    pub version: u8,
    /// Octets before the next layer, with IPv4 options and IPv6 extension headers.
    pub header_len: usize,
    /// Octets of the whole packet as its header says; at most as many as were given.
    pub total_len: usize,
    /// Type of service or traffic class: DSCP and ECN.
    pub tos: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Whether the packet must not be fragmented on its way: always with IPv6.
    pub df: bool,
}

impl FlowKey {
    /// Reads the headers of an IP packet. Octets beyond the length in its header are ignored.
    ///
    /// # Errors
    /// Not an IP packet, cut short, or with more extension headers than are followed.
    pub fn parse(packet: &[u8]) -> Result<(Self, IpInfo), PacketError> {
        let _ = packet;
        Err(PacketError::Truncated)
    }

    pub(crate) fn has_type_and_code(&self) -> bool {
        matches!(self.protocol, 1 | 58 | 135)
    }
}
