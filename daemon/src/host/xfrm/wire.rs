//! Octets of XFRM messages. Numbers are in the byte order of the host unless they belong to a
//! packet (SPI, ports, addresses). Structures are laid out as on machines whose 64-bit numbers
//! are aligned to 8 octets: all that Rust's Linux targets of 64 bits are.

use std::net::IpAddr;

use zeroize::Zeroizing;

/// Octets of a netlink header.
pub(super) const HEADER: usize = 16;
/// A message has room for so much without moving: what was written is wiped where it lies, and
/// a copy that was left behind would not be.
const ROOM: usize = 4096;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;

/// A message under construction. It may hold keys, and is wiped when it goes.
#[derive(Clone)]
pub(crate) struct Message(Zeroizing<Vec<u8>>);

impl Message {
    /// A message of this type, with flags beside those of every request.
    pub(super) fn new(kind: u16, flags: u16) -> Self {
        let mut octets = Zeroizing::new(Vec::with_capacity(ROOM));
        octets.extend([0; 4]);
        octets.extend(kind.to_ne_bytes());
        octets.extend((REQUEST | flags).to_ne_bytes());
        octets.extend([0; 8]);
        Self(octets)
    }

    /// Adds octets of the fixed part.
    pub(super) fn put(&mut self, octets: &[u8]) -> &mut Self {
        self.0.extend(octets);
        self
    }

    /// Adds an attribute.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // The longest is a replay window, far from 64 KiB.
        let len = u16::try_from(4 + value.len()).expect("an attribute below 64 KiB");
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        let padded = self.0.len().next_multiple_of(4);
        self.0.resize(padded, 0);
        self
    }

    /// The message as it is sent: with its length, this sequence number and the port of its sender,
    /// which the kernel puts into notices of what the message has caused; and with the wish for an
    /// answer in any case if `acknowledged`.
    pub(crate) fn seal(&mut self, sequence: u32, port: u32, acknowledged: bool) -> &[u8] {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        if acknowledged {
            let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | ACK;
            self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        }
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0[12..16].copy_from_slice(&port.to_ne_bytes());
        &self.0
    }

    /// Its type, and what follows the header.
    #[cfg(test)]
    pub(crate) fn parts(&self) -> (u16, &[u8]) {
        (
            u16::from_ne_bytes([self.0[4], self.0[5]]),
            &self.0[HEADER..],
        )
    }
}

/// One message of the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Incoming<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// Whose request it is about.
    pub(super) port: u32,
    pub(super) body: &'a [u8],
}

/// The messages in a datagram, as far as they are well-formed.
pub(super) fn incoming(mut octets: &[u8]) -> impl Iterator<Item = Incoming<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(octets, 0)? as usize;
        let message = Incoming {
            kind: u16_at(octets, 4)?,
            flags: u16_at(octets, 6)?,
            sequence: u32_at(octets, 8)?,
            port: u32_at(octets, 12)?,
            body: octets.get(HEADER..len)?,
        };
        let next = len.checked_next_multiple_of(4)?;
        octets = octets.get(next..).unwrap_or_default();
        Some(message)
    })
}

fn array_at<const N: usize>(octets: &[u8], at: usize) -> Option<[u8; N]> {
    octets.get(at..)?.first_chunk().copied()
}

pub(super) fn u8_at(octets: &[u8], at: usize) -> Option<u8> {
    octets.get(at).copied()
}

pub(super) fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    array_at(octets, at).map(u16::from_ne_bytes)
}

pub(super) fn be16_at(octets: &[u8], at: usize) -> Option<u16> {
    array_at(octets, at).map(u16::from_be_bytes)
}

pub(super) fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    array_at(octets, at).map(u32::from_ne_bytes)
}

pub(super) fn be32_at(octets: &[u8], at: usize) -> Option<u32> {
    array_at(octets, at).map(u32::from_be_bytes)
}

pub(super) fn u64_at(octets: &[u8], at: usize) -> Option<u64> {
    array_at(octets, at).map(u64::from_ne_bytes)
}

/// An address in its 16 octets, of the family that stands elsewhere.
pub(super) fn address_at(octets: &[u8], at: usize, family: u16) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => array_at::<4>(octets, at).map(IpAddr::from),
        libc::AF_INET6 => array_at::<16>(octets, at).map(IpAddr::from),
        _ => None,
    }
}

/// An address in 16 octets.
pub(super) fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            octets
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The number of an address family.
pub(super) fn family(v4: bool) -> u16 {
    (if v4 { libc::AF_INET } else { libc::AF_INET6 }) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_and_what_was_put_into_it() {
        let mut message = Message::new(0x10, 0x400);
        message.put(&[1, 2, 3, 4]).attribute(7, &[9]);
        let octets = message.seal(5, 7, true).to_vec();
        let all: Vec<_> = incoming(&octets).collect();
        let expected = Incoming {
            kind: 0x10,
            flags: 0x405,
            sequence: 5,
            port: 7,
            body: &octets[HEADER..],
        };
        assert_eq!(all, [expected]);
        let mut body = vec![1, 2, 3, 4];
        body.extend(5_u16.to_ne_bytes());
        body.extend(7_u16.to_ne_bytes());
        body.extend([9, 0, 0, 0]);
        assert_eq!(all[0].body, body);
    }

    #[test]
    fn cut_messages_end_the_walk() {
        let mut message = Message::new(0x10, 0);
        message.put(&[0; 24]);
        let octets = message.seal(1, 7, false).to_vec();
        for len in 0..octets.len() {
            assert_eq!(incoming(&octets[..len]).count(), 0);
        }
        assert_eq!(incoming(&[0; 64]).count(), 0, "a length below the header's");
        assert_eq!(incoming(&[0xff; 64]).count(), 0);
    }
}
