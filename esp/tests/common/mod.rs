//! What several tests need: SAs with fixed keys, and IP packets.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its own part"
)]

use obol_esp::{
    HEADROOM, Hash, Inbound, Limits, Mode, Outbound, Outer, SaParams, Selector, Selectors, Suite,
    TAILROOM,
};
use std::net::IpAddr;
use zeroize::Zeroizing;

pub(crate) const SPI: u32 = 0xc0de_0001;

pub(crate) const SUITES: [Suite; 9] = [
    Suite::AesGcm16 { key_bits: 128 },
    Suite::AesGcm16 { key_bits: 256 },
    Suite::ChaCha20Poly1305,
    Suite::AesCbcHmac {
        key_bits: 128,
        hash: Hash::Sha256,
    },
    Suite::AesCbcHmac {
        key_bits: 192,
        hash: Hash::Sha256,
    },
    Suite::AesCbcHmac {
        key_bits: 256,
        hash: Hash::Sha256,
    },
    Suite::AesCbcHmac {
        key_bits: 256,
        hash: Hash::Sha384,
    },
    Suite::AesCbcHmac {
        key_bits: 256,
        hash: Hash::Sha512,
    },
    Suite::TripleDesCbcHmac { hash: Hash::Sha256 },
];

/// Octets of encryption and integrity key.
pub(crate) fn key_lengths(suite: Suite) -> (usize, usize) {
    match suite {
        Suite::AesGcm16 { key_bits } => (usize::from(key_bits) / 8 + 4, 0),
        Suite::ChaCha20Poly1305 => (36, 0),
        Suite::AesCbcHmac { key_bits, hash } => (usize::from(key_bits) / 8, hash_octets(hash)),
        Suite::TripleDesCbcHmac { hash } => (24, hash_octets(hash)),
    }
}

fn hash_octets(hash: Hash) -> usize {
    match hash {
        Hash::Sha256 => 32,
        Hash::Sha384 => 48,
        Hash::Sha512 => 64,
    }
}

/// Octets of ESP header and IV, of alignment and of ICV.
pub(crate) fn layout(suite: Suite) -> (usize, usize, usize) {
    match suite {
        Suite::AesCbcHmac { .. } => (24, 16, key_lengths(suite).1 / 2),
        Suite::TripleDesCbcHmac { .. } => (16, 8, key_lengths(suite).1 / 2),
        _ => (16, 4, 16),
    }
}

pub(crate) fn any_selectors() -> Selectors {
    let any = |first: &str, last: &str| {
        let range: (IpAddr, IpAddr) = (first.parse().unwrap(), last.parse().unwrap());
        Selector::new(0, range, Selector::ANY_PORT, range, Selector::ANY_PORT).unwrap()
    };
    Selectors::new(vec![
        any("0.0.0.0", "255.255.255.255"),
        any("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ])
}

pub(crate) fn params(suite: Suite, mode: Mode) -> SaParams {
    let (encr, integ) = key_lengths(suite);
    let key = |first: u8, len: usize| Zeroizing::new((0..len as u8).map(|i| first ^ i).collect());
    SaParams {
        spi: SPI,
        suite,
        encr_key: key(0x40, encr),
        integ_key: key(0x80, integ),
        mode,
        esn: false,
        selectors: any_selectors(),
        limits: Limits::default(),
        replay_window: 1024,
        repair_checksums: false,
        transport_addresses: None,
    }
}

pub(crate) fn pair(suite: Suite, mode: Mode) -> (Outbound, Inbound) {
    let make = || params(suite, mode);
    (
        Outbound::new(make()).unwrap(),
        Inbound::new(make()).unwrap(),
    )
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Addresses of the two ends: 4 or 6.
pub(crate) fn ends(version: u8) -> (IpAddr, IpAddr) {
    match version {
        4 => (address("192.0.2.1"), address("192.0.2.2")),
        _ => (address("2001:db8::1"), address("2001:db8::2")),
    }
}

pub(crate) fn outer(version: u8, tos: u8) -> Outer {
    let (source, destination) = ends(version);
    Outer {
        source,
        destination,
        tos,
        ttl: 57,
    }
}

/// RFC 1071, written for clarity.
pub(crate) fn checksum(octets: &[u8]) -> u16 {
    let mut sum = 0u32;
    for word in octets.chunks(2) {
        sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IP packet between the two ends.
pub(crate) fn ip(version: u8, tos: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = ends(version);
    ip_between(source, destination, tos, protocol, payload)
}

pub(crate) fn ip_between(
    source: IpAddr,
    destination: IpAddr,
    tos: u8,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let len = 20 + payload.len() as u16;
            packet.extend([0x45, tos, (len >> 8) as u8, len as u8, 0, 0, 0x40, 0]);
            packet.extend([57, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            let sum = checksum(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60 | tos >> 4, tos << 4, 0, 0]);
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 57]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        _ => panic!("two families"),
    }
    packet.extend(payload);
    packet
}

pub(crate) fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(source_port.to_be_bytes());
    datagram.extend(destination_port.to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// A packet with room around it.
pub(crate) struct Room {
    pub(crate) buffer: Vec<u8>,
    pub(crate) range: std::ops::Range<usize>,
}

impl Room {
    pub(crate) fn new(packet: &[u8]) -> Self {
        let mut buffer = vec![0xee; HEADROOM];
        buffer.extend(packet);
        buffer.extend([0xee; TAILROOM]);
        Self {
            buffer,
            range: HEADROOM..HEADROOM + packet.len(),
        }
    }

    pub(crate) fn packet(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

/// Seals a packet, as octets.
pub(crate) fn seal(sa: &mut Outbound, packet: &[u8]) -> Vec<u8> {
    let mut room = Room::new(packet);
    let sealed = sa.seal(&mut room.buffer, room.range).unwrap();
    room.buffer[sealed.range].to_vec()
}

/// Opens a datagram, as octets.
pub(crate) fn open(
    sa: &mut Inbound,
    esp: &[u8],
    outer: Outer,
) -> Result<Vec<u8>, obol_esp::OpenError> {
    let mut room = Room::new(esp);
    let opened = sa.open(&mut room.buffer, room.range, outer)?;
    Ok(room.buffer[opened.range].to_vec())
}
