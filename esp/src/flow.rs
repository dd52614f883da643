//! From an IP packet to the fields that selectors look at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::PacketError;
use crate::ip::{V4_HEADER, V6_HEADER, protocol};

/// IPv6 extension headers that are followed before a packet is refused; a packet with a reason
/// has at most one of each kind (RFC 8200 section 4.1).
const MAX_EXTENSION_HEADERS: usize = 8;

/// What selectors look at in one packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Next layer protocol, after IPv6 extension headers.
    pub protocol: u8,
    /// Source port; for ICMP, ICMPv6 and Mobility Header the type; 0 if not known.
    pub source_port: u16,
    /// Destination port; for ICMP and ICMPv6 the code; 0 if not known.
    pub destination_port: u16,
    /// A fragment that is not the first.
    pub fragment: bool,
    /// Whether the protocol has ports (or a type) and they are in this packet.
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
    /// Any fragment, the first one too.
    pub fragmented: bool,
    /// Has IPv4 options, or IPv6 headers that routers look at (hop-by-hop options, routing):
    /// those stay outside of ESP in transport mode.
    pub transit_headers: bool,
}

impl FlowKey {
    /// Reads the headers of an IP packet. Octets beyond the length in its header are ignored.
    ///
    /// # Errors
    /// Not an IP packet, cut short, or with more extension headers than are followed.
    #[inline(always)]
    pub fn parse(packet: &[u8]) -> Result<(Self, IpInfo), PacketError> {
        match packet.first().map(|octet| octet >> 4) {
            Some(4) => parse_v4(packet),
            Some(6) => parse_v6(packet),
            Some(_) => Err(PacketError::Version),
            None => Err(PacketError::Truncated),
        }
    }

    pub(crate) fn has_type_and_code(&self) -> bool {
        has_type_and_code(self.protocol)
    }
}

/// Whether packets of a protocol have a type and a code in place of ports.
pub(crate) fn has_type_and_code(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::ICMP | protocol::ICMPV6 | protocol::MOBILITY
    )
}

/// Within whoever calls it: fields that are returned in memory, and copied from there as a whole, wait for their
/// stores.
#[inline(always)]
fn parse_v4(packet: &[u8]) -> Result<(FlowKey, IpInfo), PacketError> {
    let header: &[u8; V4_HEADER] = packet.first_chunk().ok_or(PacketError::Truncated)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_len < V4_HEADER || total_len < header_len {
        return Err(PacketError::Malformed);
    }
    let packet = packet.get(..total_len).ok_or(PacketError::Truncated)?;
    let fragmentation = u16::from_be_bytes([header[6], header[7]]);
    let fragment = fragmentation & 0x1fff != 0;
    let source = Ipv4Addr::from([header[12], header[13], header[14], header[15]]);
    let destination = Ipv4Addr::from([header[16], header[17], header[18], header[19]]);
    let info = IpInfo {
        version: 4,
        header_len,
        total_len,
        tos: header[1],
        ttl: header[8],
        df: fragmentation & 0x4000 != 0,
        fragmented: fragmentation & 0x3fff != 0,
        transit_headers: header_len > V4_HEADER,
    };
    let addresses = (source.into(), destination.into());
    Ok((
        flow(addresses, header[9], fragment, &packet[header_len..]),
        info,
    ))
}

#[inline(never)]
fn parse_v6(packet: &[u8]) -> Result<(FlowKey, IpInfo), PacketError> {
    let header: &[u8; V6_HEADER] = packet.first_chunk().ok_or(PacketError::Truncated)?;
    let total_len = V6_HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = packet.get(..total_len).ok_or(PacketError::Truncated)?;
    let chain = Chain::walk(header[6], packet)?;
    let address = |octets: &[u8]| -> IpAddr {
        let mut address = [0; 16];
        address.copy_from_slice(octets);
        Ipv6Addr::from(address).into()
    };
    let info = IpInfo {
        version: 6,
        header_len: chain.end,
        total_len,
        tos: header[0] << 4 | header[1] >> 4,
        ttl: header[7],
        df: true,
        fragmented: chain.fragmented,
        transit_headers: chain.transit_headers,
    };
    let addresses = (address(&header[8..24]), address(&header[24..40]));
    Ok((
        flow(
            addresses,
            chain.protocol,
            chain.fragment,
            &packet[chain.end..],
        ),
        info,
    ))
}

/// The extension headers of an IPv6 packet, RFC 8200 section 4.
struct Chain {
    protocol: u8,
    end: usize,
    fragment: bool,
    fragmented: bool,
    transit_headers: bool,
}

impl Chain {
    fn walk(first: u8, packet: &[u8]) -> Result<Self, PacketError> {
        let mut chain = Self {
            protocol: first,
            end: V6_HEADER,
            fragment: false,
            fragmented: false,
            transit_headers: false,
        };
        for _ in 0..=MAX_EXTENSION_HEADERS {
            if !chain.step(packet)? {
                return Ok(chain);
            }
        }
        Err(PacketError::TooManyHeaders)
    }

    /// Goes over one header; `false` at the next layer.
    fn step(&mut self, packet: &[u8]) -> Result<bool, PacketError> {
        let rest = &packet[self.end..];
        let extension = matches!(
            self.protocol,
            protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::FRAGMENT
                | protocol::DESTINATION_OPTIONS
        );
        // Behind the header of a later fragment there is the middle of something.
        if self.fragment || !extension {
            return Ok(false);
        }
        let header: &[u8; 8] = rest.first_chunk().ok_or(PacketError::Truncated)?;
        let mut len = 8;
        match self.protocol {
            protocol::FRAGMENT => {
                let field = u16::from_be_bytes([header[2], header[3]]);
                self.fragmented = true;
                self.fragment = field & 0xfff8 != 0;
            }
            other => {
                len += usize::from(header[1]) * 8;
                self.transit_headers |= other != protocol::DESTINATION_OPTIONS;
            }
        }
        if len > rest.len() {
            return Err(PacketError::Truncated);
        }
        self.protocol = header[0];
        self.end += len;
        Ok(true)
    }
}

/// Looks for ports, or type and code, at the beginning of the next layer.
#[inline(always)]
fn flow(addresses: (IpAddr, IpAddr), protocol: u8, fragment: bool, next: &[u8]) -> FlowKey {
    let mut flow = FlowKey {
        source: addresses.0,
        destination: addresses.1,
        protocol,
        source_port: 0,
        destination_port: 0,
        fragment,
        ports_known: false,
    };
    let Some(octets) = next.first_chunk::<4>().filter(|_| !fragment) else {
        return flow;
    };
    let ports = match protocol {
        protocol::TCP | protocol::UDP | protocol::DCCP | protocol::SCTP | protocol::UDP_LITE => (
            u16::from_be_bytes([octets[0], octets[1]]),
            u16::from_be_bytes([octets[2], octets[3]]),
        ),
        protocol::ICMP | protocol::ICMPV6 => (u16::from(octets[0]), u16::from(octets[1])),
        protocol::MOBILITY => (u16::from(octets[2]), 0),
        _ => return flow,
    };
    (flow.source_port, flow.destination_port) = ports;
    flow.ports_known = true;
    flow
}

#[cfg(test)]
mod tests;
