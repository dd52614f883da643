//! What a TUN device says of a frame, or is told of one: `struct virtio_net_hdr`, in the byte
//! order of the machine. A frame is one IP packet, or a long one that stands for many.

use crate::error::FrameError;

/// The checksum is not there yet: its field holds the sum of the pseudo-header.
const NEEDS_CHECKSUM: u8 = 1;
/// The checksum was verified.
const VERIFIED: u8 = 2;
/// Beside a kind: the sender uses ECN.
const ECN: u8 = 0x80;

/// What a frame stands for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// Itself.
    #[default]
    Packet,
    /// TCP segments over IPv4.
    TcpV4,
    /// TCP segments over IPv6.
    TcpV6,
    /// UDP datagrams over either.
    Udp,
}

impl Kind {
    const CODES: [(u8, Self); 4] = [
        (0, Self::Packet),
        (1, Self::TcpV4),
        (4, Self::TcpV6),
        (5, Self::Udp),
    ];
}

/// What is still to be done to a frame.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Offload {
    /// What it stands for.
    pub kind: Kind,
    /// Octets of payload in each segment but the last; 0 for a packet.
    pub segment: u16,
    /// Octets of headers that each segment has. A hint: it may be anything.
    pub headers: u16,
    /// The checksum to complete: from which octet of the packet on, and where its field is, from
    /// there.
    pub checksum: Option<(u16, u16)>,
    /// The checksum is right: nobody needs to look.
    pub verified: bool,
}

impl Offload {
    /// Octets of the header.
    pub const LEN: usize = 10;

    /// Reads the header.
    ///
    /// # Errors
    /// A kind of frame that was not asked for.
    pub fn parse(octets: &[u8; Self::LEN]) -> Result<Self, FrameError> {
        let word = |at: usize| u16::from_ne_bytes([octets[at], octets[at + 1]]);
        let code = octets[1] & !ECN;
        let known = Kind::CODES.iter().find(|(known, _)| *known == code);
        let &(_, kind) = known.ok_or(FrameError::Offload)?;
        Ok(Self {
            kind,
            headers: word(2),
            segment: word(4),
            checksum: (octets[0] & NEEDS_CHECKSUM != 0).then(|| (word(6), word(8))),
            verified: octets[0] & VERIFIED != 0,
        })
    }

    /// Writes the header.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let code = Kind::CODES.iter().find(|(_, kind)| *kind == self.kind);
        let (code, _) = code.expect("the table has every kind");
        let needs = if self.checksum.is_some() {
            NEEDS_CHECKSUM
        } else {
            0
        };
        let verified = if self.verified { VERIFIED } else { 0 };
        let (start, field) = self.checksum.unwrap_or_default();
        let mut octets = [0; Self::LEN];
        octets[..2].copy_from_slice(&[needs | verified, *code]);
        let words = [self.headers, self.segment, start, field];
        for (place, word) in octets[2..].as_chunks_mut::<2>().0.iter_mut().zip(words) {
            *place = word.to_ne_bytes();
        }
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_survives_a_round_trip() {
        for (_, kind) in Kind::CODES {
            for checksum in [None, Some((20, 16))] {
                let offload = Offload {
                    kind,
                    segment: 1360,
                    headers: 40,
                    checksum,
                    verified: checksum.is_none(),
                };
                assert_eq!(Offload::parse(&offload.emit()), Ok(offload));
            }
        }
    }

    #[test]
    fn an_ordinary_packet_has_a_header_of_zeros() {
        assert_eq!(Offload::default().emit(), [0; Offload::LEN]);
    }

    #[test]
    fn kinds_that_nobody_asked_for_are_refused() {
        for code in (0..=0x7f).filter(|code| ![0, 1, 4, 5].contains(code)) {
            let octets = [0, code, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(Offload::parse(&octets), Err(FrameError::Offload));
        }
        let ecn = [1, ECN | 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Offload::parse(&ecn).map(|o| o.kind), Ok(Kind::TcpV4));
    }
}
