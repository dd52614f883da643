//! Datagrams with what belongs to their IP header: both addresses, type of service, TTL.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use socket2::{MsgHdr, SockAddr, SockRef};

use crate::sys::sockopt;

/// A datagram that came in, or a row of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Received {
    /// Octets of it that are in the buffer.
    pub(crate) len: usize,
    /// Octets of each datagram of a row but the last. `None`: it is one.
    pub(crate) segment: Option<usize>,
    /// Who sent it; port 0 on a raw socket.
    pub(crate) source: SocketAddr,
    /// To which of our addresses.
    pub(crate) local: Option<IpAddr>,
    /// Type of service or traffic class; 0 if the system did not say.
    pub(crate) tos: u8,
    /// Time to live or hop limit; 0 if the system did not say.
    pub(crate) ttl: u8,
}

/// Where a datagram goes, and what its IP header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    /// To whom; the port does not count on a raw socket.
    pub(crate) to: SocketAddr,
    /// From which of our addresses. `None`: the system chooses.
    pub(crate) from: Option<IpAddr>,
    /// Type of service or traffic class.
    pub(crate) tos: u8,
    /// Time to live or hop limit. `None`: the system's default.
    pub(crate) ttl: Option<u8>,
    /// It is a row of datagrams, which have so many octets each; the last may have fewer.
    pub(crate) segment: Option<u16>,
}

/// Asks the system to say, with each datagram, what [`Received`] holds.
///
/// # Errors
/// The socket is not one of the Internet families.
pub(crate) fn announce(fd: impl AsFd, v6: bool) -> io::Result<()> {
    let options: [(i32, i32); 3] = if v6 {
        let level = libc::IPPROTO_IPV6;
        [
            (level, libc::IPV6_RECVPKTINFO),
            (level, libc::IPV6_RECVTCLASS),
            (level, libc::IPV6_RECVHOPLIMIT),
        ]
    } else {
        let level = libc::IPPROTO_IP;
        [
            (level, libc::IP_PKTINFO),
            (level, libc::IP_RECVTOS),
            (level, libc::IP_RECVTTL),
        ]
    };
    for (level, name) in options {
        sockopt::set(fd.as_fd(), level, name, 1)?;
    }
    Ok(())
}

/// Asks the system to hand over a row of like datagrams of one sender as one ([`Received`]);
/// whether it will.
pub(crate) fn receive_rows(fd: impl AsFd) -> bool {
    sockopt::set(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok()
}

/// Has the system note what ICMPv6 says about packets that a raw socket has sent: else it does not
/// learn from that how long they may be. What it notes is to be [forgotten](forget_errors).
///
/// # Errors
/// What the system says.
pub(crate) fn note_errors(fd: impl AsFd) -> io::Result<()> {
    sockopt::set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
}

/// Throws away what the system noted about packets that were sent; some of it, if it is much.
pub(crate) fn forget_errors(fd: impl AsFd) {
    const SOME: usize = 64;
    let fd = fd.as_fd();
    let socket = SockRef::from(&fd);
    // Of what is longer, the rest goes with it.
    let mut quoted = [MaybeUninit::uninit(); 8];
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    let noted = || socket.recv_with_flags(&mut quoted, flags);
    for result in std::iter::repeat_with(noted).take(SOME) {
        if result.is_err() {
            return;
        }
    }
}

/// Receives one datagram.
///
/// # Errors
/// `EAGAIN`: there is none. Anything else, such as an ICMP error of an earlier datagram, says
/// nothing about the next call.
pub(crate) fn receive(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut name = [0_u8; NAME];
    let mut control = [0_u64; CONTROL];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: `msghdr` is a C struct of integers and pointers, for which all zeros (null) is a
    // value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = name.len() as _;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the descriptor is open as long as `fd` is borrowed. Every pointer in `message`
    // was set above from a live, exclusively borrowed local or from `buffer`, with its own
    // length in octets; all of them take any octets the kernel writes.
    let len = unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut message, 0) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Received::new(len, &name, &control, message.msg_controllen as _)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Octets for an address.
pub(super) const NAME: usize = 128;
/// Words for control messages.
pub(super) const CONTROL: usize = 32;

impl Received {
    /// From what the system wrote; `None`: the address is of another family.
    pub(super) fn new(
        len: usize,
        name: &[u8; NAME],
        control: &[u64; CONTROL],
        used: usize,
    ) -> Option<Self> {
        let mut received = Self {
            len,
            segment: None,
            source: parse_name(name)?,
            local: None,
            tos: 0,
            ttl: 0,
        };
        let mut octets = [0_u8; CONTROL * 8];
        for (place, word) in octets.chunks_exact_mut(8).zip(control) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        let used = used.min(octets.len());
        read_control(&octets[..used], &mut received);
        Some(received)
    }
}

/// Sends one datagram, or a row, whose octets stand in `parts`.
///
/// # Errors
/// `EAGAIN`: the socket is full. `EMSGSIZE`: too long. `EINVAL`: a row of what is longer than the
/// path takes. `EIO`: the device takes no rows. Anything else the system says about the
/// way to the destination.
pub(crate) fn send(fd: impl AsFd, parts: &[IoSlice<'_>], header: &Header) -> io::Result<()> {
    let mut control = Control::default();
    control.describe(header);
    let to = SockAddr::from(header.to);
    let message = MsgHdr::new()
        .with_addr(&to)
        .with_buffers(parts)
        .with_control(control.octets());
    SockRef::from(&fd.as_fd()).sendmsg(&message, 0)?;
    Ok(())
}

const WORD: usize = size_of::<usize>();
/// Octets of a `cmsghdr`, which are a multiple of the alignment: length, level, type.
const CMSG_HEADER: usize = WORD + 8;

/// Control messages to send: at most PKTINFO (12 or 20), TOS and TTL (4 each) and the length in a
/// row (2), each with a header of 16 and padding; 112 octets together.
#[derive(Default)]
pub(super) struct Control {
    octets: [[u8; 32]; 4],
    used: usize,
}

impl Control {
    /// As they are handed to the system.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets.as_flattened()[..self.used]
    }

    fn push(&mut self, level: i32, kind: i32, value: &[u8]) {
        let octets = self.octets.as_flattened_mut();
        let len = CMSG_HEADER + value.len();
        let place = &mut octets[self.used..self.used + len];
        place[..WORD].copy_from_slice(&len.to_ne_bytes());
        place[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        place[WORD + 4..CMSG_HEADER].copy_from_slice(&kind.to_ne_bytes());
        place[CMSG_HEADER..].copy_from_slice(value);
        self.used += len.next_multiple_of(WORD);
    }

    /// Says what `header` says, but for the destination.
    pub(super) fn describe(&mut self, header: &Header) {
        if let Some(segment) = header.segment {
            self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        let tos = i32::from(header.tos).to_ne_bytes();
        match header.to {
            SocketAddr::V4(_) => {
                if let Some(IpAddr::V4(from)) = header.from {
                    // struct in_pktinfo: interface index, source address, unused.
                    let mut info = [0; 12];
                    info[4..8].copy_from_slice(&from.octets());
                    self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
                }
                if header.tos != 0 {
                    self.push(libc::IPPROTO_IP, libc::IP_TOS, &tos);
                }
                if let Some(ttl) = header.ttl.filter(|ttl| *ttl != 0) {
                    let ttl = i32::from(ttl).to_ne_bytes();
                    self.push(libc::IPPROTO_IP, libc::IP_TTL, &ttl);
                }
            }
            SocketAddr::V6(to) => {
                if let Some(IpAddr::V6(from)) = header.from {
                    // struct in6_pktinfo: source address, interface index.
                    let mut info = [0; 20];
                    info[..16].copy_from_slice(&from.octets());
                    info[16..].copy_from_slice(&to.scope_id().to_ne_bytes());
                    self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
                }
                if header.tos != 0 {
                    self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &tos);
                }
                if let Some(ttl) = header.ttl {
                    let ttl = i32::from(ttl).to_ne_bytes();
                    self.push(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &ttl);
                }
            }
        }
    }
}

fn read_control(mut octets: &[u8], received: &mut Received) {
    while let Some((header, _)) = octets.split_at_checked(CMSG_HEADER) {
        let (len, rest) = header.split_at(WORD);
        let len = usize::from_ne_bytes(len.try_into().expect("split at the size of a word"));
        let number = |place: usize| {
            i32::from_ne_bytes(rest[place..place + 4].try_into().expect("four octets"))
        };
        let Some(value) = octets.get(CMSG_HEADER..len) else {
            return;
        };
        note(number(0), number(4), value, received);
        let Some(next) = octets.get(len.next_multiple_of(WORD)..) else {
            return;
        };
        octets = next;
    }
}

fn note(level: i32, kind: i32, value: &[u8], received: &mut Received) {
    // The kernel hands out numbers as one octet (IP_TOS) or as a C int (all others).
    let number = match *value {
        [octet] => octet,
        [a, b, c, d] => i32::from_ne_bytes([a, b, c, d]) as u8,
        _ => 0,
    };
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // struct in_pktinfo: interface index, our address, destination in the header.
            received.local = value.get(8..12).and_then(v4).map(IpAddr::V4);
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            received.local = value.get(..16).and_then(v6).map(IpAddr::V6);
        }
        (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
            received.tos = number;
        }
        (libc::SOL_UDP, libc::UDP_GRO) => {
            let octets = value
                .first_chunk()
                .map(|octets| i32::from_ne_bytes(*octets));
            received.segment = octets.and_then(|len| usize::try_from(len).ok());
        }
        (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
            received.ttl = number;
        }
        _ => {}
    }
}

fn parse_name(name: &[u8; 128]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([name[2], name[3]]);
    match i32::from(u16::from_ne_bytes([name[0], name[1]])) {
        libc::AF_INET => Some(SocketAddrV4::new(v4(&name[4..8])?, port).into()),
        libc::AF_INET6 => {
            let scope = u32::from_ne_bytes(name[24..28].try_into().ok()?);
            Some(SocketAddrV6::new(v6(&name[8..24])?, port, 0, scope).into())
        }
        _ => None,
    }
}

fn v4(octets: &[u8]) -> Option<Ipv4Addr> {
    Some(<[u8; 4]>::try_from(octets).ok()?.into())
}

fn v6(octets: &[u8]) -> Option<Ipv6Addr> {
    Some(<[u8; 16]>::try_from(octets).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn round_trip(address: &str) {
        let receiver = UdpSocket::bind((address, 0)).unwrap();
        let to = receiver.local_addr().unwrap();
        announce(&receiver, to.is_ipv6()).unwrap();
        let sender = UdpSocket::bind((address, 0)).unwrap();
        let header = Header {
            to,
            from: Some(to.ip()),
            tos: 0xb9,
            ttl: Some(33),
            segment: None,
        };
        send(
            &sender,
            &[IoSlice::new(b"ab"), IoSlice::new(b"cde")],
            &header,
        )
        .unwrap();
        let mut buffer = [0; 16];
        let received = receive(&receiver, &mut buffer).unwrap();
        assert_eq!(&buffer[..received.len], b"abcde");
        assert_eq!(received.source, sender.local_addr().unwrap());
        assert_eq!(received.local, Some(to.ip()));
        assert_eq!((received.tos, received.ttl), (0xb9, 33));
    }

    #[test]
    fn header_fields_arrive_over_ipv4() {
        round_trip("127.0.0.1");
    }

    #[test]
    fn header_fields_arrive_over_ipv6() {
        if UdpSocket::bind("[::1]:0").is_err() {
            println!("skipped: this host has no IPv6");
            return;
        }
        round_trip("::1");
    }

    #[test]
    fn control_messages_that_lie_about_their_length_end_the_walk() {
        let mut received = Received {
            len: 0,
            segment: None,
            source: "127.0.0.1:1".parse().unwrap(),
            local: None,
            tos: 0,
            ttl: 0,
        };
        let before = received;
        for len in [0, 1, CMSG_HEADER - 1, 4000, usize::MAX] {
            let mut octets = [0; 40];
            octets[..WORD].copy_from_slice(&len.to_ne_bytes());
            read_control(&octets, &mut received);
            assert_eq!(received, before);
        }
    }
}
