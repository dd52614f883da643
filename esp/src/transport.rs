//! Transport mode: the payload of IP packets between the two ends.
//!
//! A socket builds the outer header, so on the way out the packet's own header is left behind,
//! and on the way in a new one is written before the payload. What such a header cannot carry
//! over (options, fragments) is refused by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{OpenError, SealError};
use crate::flow::{FlowKey, IpInfo};
use crate::inbound::Outer;
use crate::ip::{Sum, V4_HEADER, V6_HEADER, protocol};
use crate::selector::Selectors;

//= security S-57
/// Octets of the IP header of a packet that may be sealed, and its next header.
pub(crate) fn split(packet: &[u8], info: &IpInfo) -> Result<(usize, u8), SealError> {
    if info.fragmented {
        return Err(SealError::Fragment);
    }
    if info.transit_headers {
        return Err(SealError::ExtensionHeader);
    }
    Ok(match info.version {
        4 => (V4_HEADER, packet[9]),
        _ => (V6_HEADER, packet[6]),
    })
}

/// The IP header that is put before a payload which came without one.
pub(crate) struct RestoredHeader {
    addresses: Addresses,
    tos: u8,
    ttl: u8,
    repair_checksum: bool,
}

/// Source and destination, of one family.
enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl RestoredHeader {
    /// A header between these addresses, otherwise like the outer one.
    ///
    /// # Errors
    /// The addresses are of two families.
    pub(crate) fn new(
        source: IpAddr,
        destination: IpAddr,
        outer: Outer,
        repair_checksum: bool,
    ) -> Result<Self, OpenError> {
        let addresses = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Addresses::V4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Addresses::V6(source, destination),
            _ => return Err(OpenError::Family),
        };
        Ok(Self {
            addresses,
            tos: outer.tos,
            ttl: outer.ttl,
            repair_checksum,
        })
    }

    /// Octets.
    pub(crate) fn len(&self) -> usize {
        match self.addresses {
            Addresses::V4(..) => V4_HEADER,
            Addresses::V6(..) => V6_HEADER,
        }
    }

    //= security S-48
    /// Completes `packet`, in which room for the header precedes the opened payload, and checks
    /// it.
    pub(crate) fn complete(
        &self,
        packet: &mut [u8],
        next_header: u8,
        selectors: &Selectors,
    ) -> Result<(), OpenError> {
        self.write(packet, next_header)?;
        let (flow, info) = FlowKey::parse(packet).map_err(|_| OpenError::Malformed)?;
        // Routers, or the reassembly before ESP, have dealt with these already.
        if info.fragmented || info.transit_headers {
            return Err(OpenError::NextHeader);
        }
        if !selectors.matches(&flow) {
            return Err(OpenError::Selector);
        }
        if self.repair_checksum {
            repair_checksum(&mut packet[info.header_len..], &flow)?;
        }
        Ok(())
    }

    fn write(&self, packet: &mut [u8], next_header: u8) -> Result<(), OpenError> {
        match self.addresses {
            Addresses::V4(source, destination) => {
                let len = u16::try_from(packet.len()).map_err(|_| OpenError::TooLong)?;
                let header = &mut packet[..V4_HEADER];
                header[..2].copy_from_slice(&[0x45, self.tos]);
                header[2..4].copy_from_slice(&len.to_be_bytes());
                // Identification 0 with DF set: an atomic datagram, RFC 6864 section 4.1.
                header[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
                header[8..12].copy_from_slice(&[self.ttl, next_header, 0, 0]);
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&destination.octets());
                let checksum = Sum::default().add(header).finish();
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            Addresses::V6(source, destination) => {
                let len = u16::try_from(packet.len() - V6_HEADER);
                let len = len.map_err(|_| OpenError::TooLong)?;
                let header = &mut packet[..V6_HEADER];
                // The flow label is not protected by ESP and stays 0.
                header[..4].copy_from_slice(&[0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
                header[4..6].copy_from_slice(&len.to_be_bytes());
                header[6..8].copy_from_slice(&[next_header, self.ttl]);
                header[8..24].copy_from_slice(&source.octets());
                header[24..40].copy_from_slice(&destination.octets());
            }
        }
        Ok(())
    }
}

//= security S-34
/// Recomputes the checksum of TCP or UDP over the addresses that now stand in the header, RFC
/// 3948 section 3.1.2. The payload is authenticated, so nothing is lost with the old one.
fn repair_checksum(segment: &mut [u8], flow: &FlowKey) -> Result<(), OpenError> {
    let at = match flow.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return Ok(()),
    };
    let field = segment.get(at..at + 2).ok_or(OpenError::Checksum)?;
    let udp = flow.protocol == protocol::UDP;
    // A UDP sender over IPv4 may leave it out, and then it stays out.
    if udp && flow.source.is_ipv4() && field == [0, 0] {
        return Ok(());
    }
    segment[at..at + 2].copy_from_slice(&[0, 0]);
    let checksum = Sum::default()
        .add_pseudo_header(flow.source, flow.destination, flow.protocol, segment.len())
        .add(segment)
        .finish();
    let checksum = if udp && checksum == 0 {
        0xffff
    } else {
        checksum
    };
    segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}
