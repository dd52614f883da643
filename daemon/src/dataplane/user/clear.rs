//! Packets that leave in clear, since they have no SA and their policy lets them. A packet stays as it
//! is: the system counted its hops and wrote its checksums before it came to the TUN. Only one that
//! the way does not take is cut into fragments, as the system would have done without the TUN.

use std::io;
use std::net::SocketAddr;

use obol_esp::Frame;
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::Socket;

use crate::ports::RawIp;

/// Octets of a fragment: what all of IPv6 takes, and next to all of IPv4.
const FRAGMENT: usize = 1280;
/// How long a full socket is waited for.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const FRAGMENT_HEADER: usize = 8;
const FRAGMENT_NEXT: u8 = 44;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Sends packets in clear.
pub(super) struct ClearSender {
    sockets: RawIp,
    packet: Vec<u8>,
    /// Of the next packet that is cut and has no number.
    number: u32,
}

impl ClearSender {
    pub(super) fn new(sockets: RawIp) -> Self {
        Self {
            sockets,
            packet: Vec::new(),
            number: std::process::id(),
        }
    }

    /// Sends all packets of a frame; how many were lost. `whole`: one that may not be fragmented
    /// and is too long is lost.
    pub(super) fn send(&mut self, frame: &Frame<'_>, whole: bool) -> u64 {
        // A raw socket over IPv6 takes the port for a protocol number.
        let to = SocketAddr::new(frame.flow().destination, 0);
        let whole = whole && (frame.info().df || to.is_ipv6());
        let mut lost = 0;
        for index in 0..frame.count() {
            frame.copy(index, &mut self.packet);
            lost += u64::from(self.send_packet(to, whole).is_err());
        }
        lost
    }

    fn send_packet(&mut self, to: SocketAddr, whole: bool) -> io::Result<()> {
        let missing = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        let socket = self.sockets.to(to).ok_or_else(missing)?;
        match send(socket, to, &self.packet) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && !whole => {}
            done => return done,
        }
        self.number = self.number.wrapping_add(1);
        let cut = match to.is_ipv4() {
            true => cut_v4(&self.packet, self.number),
            false => cut_v6(&self.packet, self.number),
        };
        let cut = cut.ok_or(io::ErrorKind::InvalidInput)?;
        cut.iter()
            .try_for_each(|fragment| send(socket, to, fragment))
    }
}

fn send(socket: &Socket, to: SocketAddr, packet: &[u8]) -> io::Result<()> {
    match socket.send_to(packet, &to.into()) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let mut writable = [PollFd::new(socket, PollFlags::OUT)];
            rustix::event::poll(&mut writable, Some(&PATIENCE))?;
            socket.send_to(packet, &to.into()).map(|_| ())
        }
        sent => sent.map(|_| ()),
    }
}

/// The fragments of an IPv4 packet, RFC 791 section 2.3. The system writes their checksums. A packet
/// without a number, as one may be that was not to be fragmented, gets this one.
fn cut_v4(packet: &[u8], number: u32) -> Option<Vec<Vec<u8>>> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    if header < V4_HEADER || packet.len() <= header {
        return None;
    }
    let (head, body) = packet.split_at(header);
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let number = match word(4) {
        0 => number as u16 | 1,
        own => own,
    };
    let before = word(6) & !DONT_FRAGMENT;
    let step = (FRAGMENT - header) & !7;
    let count = body.len().div_ceil(step);
    let fragment = |(at, part): (usize, &[u8])| {
        let mut fragment = [head, part].concat();
        let place = u16::try_from(at * step / 8).ok()?;
        let offset = (before & OFFSET).checked_add(place)?;
        let more = match at + 1 == count {
            true => before & MORE_FRAGMENTS,
            false => MORE_FRAGMENTS,
        };
        let len = u16::try_from(fragment.len()).ok()?;
        fragment[2..4].copy_from_slice(&len.to_be_bytes());
        fragment[4..6].copy_from_slice(&number.to_be_bytes());
        fragment[6..8].copy_from_slice(&(offset & OFFSET | more).to_be_bytes());
        Some(fragment)
    };
    body.chunks(step).enumerate().map(fragment).collect()
}

/// The fragments of an IPv6 packet, RFC 8200 section 4.5. One with headers for routers on its way is
/// not cut, nor one that is a fragment.
fn cut_v6(packet: &[u8], number: u32) -> Option<Vec<Vec<u8>>> {
    let (head, body) = packet.split_at_checked(V6_HEADER)?;
    let next = head[6];
    if body.is_empty() || [0, 43, 60, FRAGMENT_NEXT].contains(&next) {
        return None;
    }
    let step = (FRAGMENT - V6_HEADER - FRAGMENT_HEADER) & !7;
    let count = body.len().div_ceil(step);
    let fragment = |(at, part): (usize, &[u8])| {
        let place = u16::try_from(at * step).ok()?;
        let more = u16::from(at + 1 < count);
        let mut between = [next, 0, 0, 0, 0, 0, 0, 0];
        between[2..4].copy_from_slice(&(place | more).to_be_bytes());
        between[4..8].copy_from_slice(&number.to_be_bytes());
        let mut fragment = [head, &between, part].concat();
        let len = u16::try_from(FRAGMENT_HEADER + part.len()).ok()?;
        fragment[4..6].copy_from_slice(&len.to_be_bytes());
        fragment[6] = FRAGMENT_NEXT;
        Some(fragment)
    };
    body.chunks(step).enumerate().map(fragment).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(body: &[u8], flags: u16, number: u16) -> Vec<u8> {
        let mut packet = vec![
            0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        packet[2..4].copy_from_slice(&((body.len() + V4_HEADER) as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&number.to_be_bytes());
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        packet.extend(body);
        packet
    }

    fn v6(body: &[u8], next: u8) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
        packet.extend([1; 16]);
        packet.extend([2; 16]);
        packet.extend(body);
        packet
    }

    fn word(packet: &[u8], at: usize) -> u16 {
        u16::from_be_bytes([packet[at], packet[at + 1]])
    }

    proptest! {
        #[test]
        fn fragments_are_the_packet_again(
            body in prop::collection::vec(any::<u8>(), 1..9000), number: u32,
        ) {
            let packet = v4(&body, DONT_FRAGMENT, 0);
            let mut whole = vec![None; body.len()];
            let fragments = cut_v4(&packet, number).unwrap();
            for (at, fragment) in fragments.iter().enumerate() {
                prop_assert!(fragment.len() <= FRAGMENT);
                prop_assert_eq!(usize::from(word(fragment, 2)), fragment.len());
                prop_assert_ne!(word(fragment, 4), 0);
                prop_assert_eq!(word(fragment, 4), word(&fragments[0], 4));
                let last = at + 1 == fragments.len();
                prop_assert_eq!(word(fragment, 6) & MORE_FRAGMENTS == 0, last);
                let offset = usize::from(word(fragment, 6) & OFFSET) * 8;
                for (place, octet) in fragment[V4_HEADER..].iter().enumerate() {
                    prop_assert_eq!(whole[offset + place].replace(*octet), None);
                }
            }
            prop_assert_eq!(whole.into_iter().flatten().collect::<Vec<_>>(), body.clone());

            let mut whole = vec![None; body.len()];
            let fragments = cut_v6(&v6(&body, 17), number).unwrap();
            for (at, fragment) in fragments.iter().enumerate() {
                prop_assert!(fragment.len() <= FRAGMENT);
                prop_assert_eq!(usize::from(word(fragment, 4)), fragment.len() - V6_HEADER);
                prop_assert_eq!((fragment[6], fragment[40]), (FRAGMENT_NEXT, 17));
                prop_assert_eq!(fragment[44..48].to_vec(), number.to_be_bytes().to_vec());
                prop_assert_eq!(word(fragment, 42) & 1 == 0, at + 1 == fragments.len());
                let offset = usize::from(word(fragment, 42) & !7);
                for (place, octet) in fragment[V6_HEADER + 8..].iter().enumerate() {
                    prop_assert_eq!(whole[offset + place].replace(*octet), None);
                }
            }
            prop_assert_eq!(whole.into_iter().flatten().collect::<Vec<_>>(), body);
        }

        #[test]
        fn any_octets_are_cut_or_not(packet in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = cut_v4(&packet, 1);
            let _ = cut_v6(&packet, 1);
        }
    }

    #[test]
    fn a_fragment_is_cut_in_its_place_and_keeps_its_number() {
        let packet = v4(&[7; 2000], MORE_FRAGMENTS | 185, 42);
        let fragments = cut_v4(&packet, 1).unwrap();
        let seen: Vec<_> = fragments.iter().map(|f| (word(f, 4), word(f, 6))).collect();
        assert_eq!(
            seen,
            [
                (42, MORE_FRAGMENTS | 185),
                (42, MORE_FRAGMENTS | (185 + 157))
            ]
        );
        assert_eq!(cut_v6(&v6(&[1; 2000], FRAGMENT_NEXT), 1), None);
    }
}
