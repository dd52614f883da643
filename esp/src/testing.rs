//! IP packets for unit tests.

mod pipeline;
pub(crate) mod stream;

use std::net::IpAddr;

use crate::fuzz::outer;
use crate::ip::Sum;

/// An IP packet between the documentation addresses of `fuzz::outer`.
pub(crate) fn ip(version: u8, tos: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let ends = outer(version, 0);
    let len = payload.len() as u16;
    let mut packet = Vec::new();
    match (ends.source, ends.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x45, tos]);
            packet.extend((20 + len).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend([source.octets(), destination.octets()].concat());
            let checksum = Sum::default().add(&packet).finish();
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60 | tos >> 4, tos << 4, 0, 0]);
            packet.extend(len.to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend([source.octets(), destination.octets()].concat());
        }
        _ => unreachable!("outer() has one family"),
    }
    packet.extend(payload);
    packet
}

/// A UDP datagram without checksum.
pub(crate) fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let words = [ports.0, ports.1, len, 0].map(u16::to_be_bytes);
    [&words.concat()[..], payload].concat()
}

/// A TCP segment without options, with the checksum it has between these addresses.
pub(crate) fn tcp(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..4].copy_from_slice(&[0x12, 0x34, 0x00, 0x50]);
    segment[12] = 0x50;
    segment.extend(payload);
    let sum = Sum::default().add_pseudo_header(source, destination, 6, segment.len());
    let checksum = sum.add(&segment).finish();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}
