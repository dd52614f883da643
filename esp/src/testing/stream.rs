//! One flow of TCP or UDP as whole packets, written down without any of the code that cuts and
//! joins; and the frame that stands for them.

use crate::offload::{Kind, Offload};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Proto {
    Tcp,
    Udp,
}

#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) v6: bool,
    pub(crate) proto: Proto,
    pub(crate) flags: u8,
    pub(crate) tos: u8,
    pub(crate) ports: (u16, u16),
    pub(crate) sequence: u32,
    pub(crate) id: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// Behind the payload.
    pub(crate) tail: Vec<u8>,
}

impl Stream {
    pub(crate) fn new(v6: bool, proto: Proto, payload: usize) -> Self {
        let octets = (0..payload).map(|n| (n * 7 + n / 251) as u8);
        Self {
            v6,
            proto,
            flags: 0x10,
            tos: 0,
            ports: (0x1234, 80),
            sequence: u32::MAX - 700,
            id: 0xfffe,
            options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            payload: octets.collect(),
            tail: Vec::new(),
        }
    }

    fn all(&self) -> Vec<u8> {
        [&self.payload[..], &self.tail].concat()
    }

    /// The packets with so many octets of payload each.
    pub(crate) fn packets(&self, segment: usize) -> Vec<Vec<u8>> {
        let all = self.all();
        let count = all.len().div_ceil(segment);
        let packet = |(index, payload): (usize, &[u8])| {
            let mut flags = self.flags;
            if index > 0 {
                flags &= !0x80;
            }
            if index + 1 < count {
                flags &= !0x09;
            }
            let sequence = self.sequence.wrapping_add((index * segment) as u32);
            let id = self.id.wrapping_add(index as u16);
            self.packet(id, sequence, flags, payload, true)
        };
        all.chunks(segment).enumerate().map(packet).collect()
    }

    /// The frame that stands for [`packets`](Self::packets), with its header.
    pub(crate) fn frame(&self, segment: usize) -> Vec<u8> {
        let packet = self.packet(self.id, self.sequence, self.flags, &self.all(), false);
        let (ip, field) = self.places();
        let kind = match (self.proto, self.v6) {
            (Proto::Tcp, false) => Kind::TcpV4,
            (Proto::Tcp, true) => Kind::TcpV6,
            (Proto::Udp, _) => Kind::Udp,
        };
        let offload = Offload {
            kind,
            segment: segment as u16,
            headers: 0,
            checksum: Some((ip as u16, field as u16)),
            verified: false,
        };
        [&offload.emit()[..], &packet].concat()
    }

    /// All in one packet whose checksum is still to be made, with its header.
    pub(crate) fn unfinished(&self) -> Vec<u8> {
        let mut octets = self.frame(1);
        // Neither kind nor segment size.
        octets[1] = 0;
        octets[4..6].fill(0);
        octets
    }

    /// Octets of the IP header, and where the checksum is after it.
    fn places(&self) -> (usize, usize) {
        let ip = if self.v6 { 40 } else { 20 };
        (ip, if self.proto == Proto::Tcp { 16 } else { 6 })
    }

    fn packet(&self, id: u16, sequence: u32, flags: u8, payload: &[u8], finish: bool) -> Vec<u8> {
        let mut next = Vec::new();
        next.extend(self.ports.0.to_be_bytes());
        next.extend(self.ports.1.to_be_bytes());
        match self.proto {
            Proto::Tcp => {
                next.extend(sequence.to_be_bytes());
                next.extend([9, 8, 7, 6, (5 + self.options.len() as u8 / 4) << 4, flags]);
                next.extend([0x20, 0, 0, 0, 0, 0]);
                next.extend(&self.options);
            }
            Proto::Udp => {
                next.extend((8 + payload.len() as u16).to_be_bytes());
                next.extend([0, 0]);
            }
        }
        next.extend(payload);
        let (ip, field) = self.places();
        let (source, destination) = if self.v6 {
            (
                [&[0xfd; 15][..], &[1]].concat(),
                [&[0xfd; 15][..], &[2]].concat(),
            )
        } else {
            (vec![192, 0, 2, 1], vec![192, 0, 2, 2])
        };
        let proto = if self.proto == Proto::Tcp { 6 } else { 17 };
        let len = (next.len() as u32).to_be_bytes();
        let mut covered = [&source[..], &destination, &len, &[0, 0, 0, proto]].concat();
        if finish {
            covered.extend(&next);
        }
        let mut checksum = sum(&covered);
        if finish {
            checksum = !checksum;
            if checksum == 0 && self.proto == Proto::Udp {
                checksum = 0xffff;
            }
        }
        next[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        let mut packet = Vec::new();
        if self.v6 {
            packet.extend([0x60 | self.tos >> 4, self.tos << 4 | 1, 2, 3]);
            packet.extend((next.len() as u16).to_be_bytes());
            packet.extend([proto, 64]);
        } else {
            packet.extend([0x45, self.tos]);
            packet.extend((ip as u16 + next.len() as u16).to_be_bytes());
            packet.extend(id.to_be_bytes());
            packet.extend([0, 0, 63, proto, 0, 0]);
        }
        packet.extend(source);
        packet.extend(destination);
        if !self.v6 {
            let checksum = !sum(&packet);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        packet.extend(next);
        packet
    }
}

/// RFC 1071, word by word.
fn sum(octets: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for word in octets.chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
