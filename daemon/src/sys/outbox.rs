//! Many datagrams with one call, for sockets that know no rows.
//!
//! A ring of `io_uring` and not `sendmmsg`: that one lets another thread in after each datagram,
//! so a receiver on the same core is woken for each of them, and both ends do their work in small
//! pieces.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{IoUring, opcode, types};
use socket2::SockAddr;

use crate::sys::msg::{Control, Header};

/// Most datagrams at a time.
const MOST: usize = 64;

/// What became of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// The system took it.
    Sent,
    /// The system did not take it, for the reason of this number; `EAGAIN`: the socket is full.
    Refused(i32),
    /// It was not handed over.
    Left,
}

/// Datagrams that are sent together.
pub(crate) struct Outbox {
    /// `None`: this system, or whoever confines us, has none.
    ring: Option<IoUring>,
    fates: Vec<Fate>,
}

impl Outbox {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let ring = IoUring::new(MOST as u32);
        if let Err(error) = &ring {
            tracing::debug!(%error, "no io_uring: packets without UDP leave one by one");
        }
        Self {
            ring: ring.ok(),
            fates: Vec::with_capacity(MOST),
        }
    }

    /// One that can send nothing, as on a system without `io_uring`.
    #[cfg(test)]
    pub(crate) fn without_ring() -> Self {
        Self {
            ring: None,
            fates: Vec::new(),
        }
    }

    /// Sends each of `packets` as a datagram with the same `header`, in their order, and waits for
    /// nothing. Says what became of the first ones; all behind them are [`Fate::Left`].
    pub(crate) fn send<'a>(
        &mut self,
        fd: impl AsFd,
        packets: impl Iterator<Item = &'a [u8]>,
        header: &Header,
    ) -> &[Fate] {
        self.fates.clear();
        let Some(ring) = &mut self.ring else {
            return &self.fates;
        };
        let fd = types::Fd(fd.as_fd().as_raw_fd());
        let to = SockAddr::from(header.to);
        let mut control = Control::default();
        control.describe(header);
        let mut parts: [libc::iovec; MOST] = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; MOST];
        // SAFETY: `msghdr` is a C struct of integers and pointers, for which all zeros (null) is a
        // value.
        let mut messages: [libc::msghdr; MOST] = unsafe { std::mem::zeroed() };
        let mut queue = ring.submission();
        for ((packet, part), message) in packets.zip(&mut parts).zip(&mut messages) {
            part.iov_base = packet.as_ptr().cast_mut().cast();
            part.iov_len = packet.len();
            message.msg_name = to.as_ptr().cast_mut().cast();
            message.msg_namelen = to.len();
            message.msg_iov = part;
            message.msg_iovlen = 1;
            message.msg_control = control.octets().as_ptr().cast_mut().cast();
            message.msg_controllen = control.octets().len() as _;
            // The entry points to its own message, which points to its own part, to the packet, and
            // to `to` and `control`, each with its own length.
            let entry = opcode::SendMsg::new(fd, message)
                .flags(libc::MSG_DONTWAIT as u32)
                .build()
                .user_data(self.fates.len() as u64);
            // SAFETY: the kernel only reads what the entry points to. All that lives, unmoved, until
            // this function returns, and the descriptor is open as long; `finish` below leaves no
            // entry behind that the kernel still has, or could take later.
            if unsafe { queue.push(&entry) }.is_err() {
                break;
            }
            self.fates.push(Fate::Left);
        }
        drop(queue);
        if let Err(error) = finish(ring, &mut self.fates) {
            tracing::debug!(%error, "io_uring fails: packets without UDP leave one by one");
            self.ring = None;
        }
        &self.fates
    }
}

/// Has the kernel do all that is in the queue, which has one entry for each of `fates`.
///
/// # Errors
/// What the system says. It holds no entry that it took, since with `MSG_DONTWAIT` each is done
/// within the call or fails; but there may be some that it did not take, so the ring must not be
/// used again.
fn finish(ring: &mut IoUring, fates: &mut [Fate]) -> io::Result<()> {
    let mut left = fates.len();
    while left > 0 {
        let entered = ring.submit_and_wait(left);
        for done in ring.completion() {
            left -= 1;
            if let Some(fate) = fates.get_mut(done.user_data() as usize) {
                *fate = match done.result() {
                    error @ ..0 => Fate::Refused(-error),
                    _ => Fate::Sent,
                };
            }
        }
        match entered {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostSettings;
    use crate::host::netns::Netns;
    use crate::ports::RawEsp;
    use crate::sys::msg::{announce, receive};
    use socket2::{Domain, Socket, Type};
    use std::net::{SocketAddr, UdpSocket};

    fn header(to: SocketAddr) -> Header {
        Header {
            to,
            from: Some(to.ip()),
            tos: 0x28,
            ttl: Some(9),
            segment: None,
        }
    }

    #[test]
    fn datagrams_leave_in_order_and_one_that_is_too_long_stops_no_other() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        announce(&receiver, false).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let long = vec![0; 65_535];
        let packets: [&[u8]; 4] = [b"one", &long, b"three", b"four"];
        let mut outbox = Outbox::new();
        assert!(outbox.ring.is_some(), "this system has no io_uring");
        for _ in 0..40 {
            let header = header(receiver.local_addr().unwrap());
            let fates = outbox.send(&sender, packets.into_iter(), &header);
            let refused = Fate::Refused(libc::EMSGSIZE);
            assert_eq!(fates, [Fate::Sent, refused, Fate::Sent, Fate::Sent]);
            for expected in [&b"one"[..], b"three", b"four"] {
                let mut buffer = [0; 16];
                let received = receive(&receiver, &mut buffer).unwrap();
                assert_eq!(&buffer[..received.len], expected);
                assert_eq!((received.tos, received.ttl), (0x28, 9));
            }
        }
    }

    #[test]
    fn more_than_it_takes_are_left() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let header = header(receiver.local_addr().unwrap());
        let packets = [&b"x"[..]; MOST + 5];
        let mut outbox = Outbox::new();
        let fates = outbox.send(&receiver, packets.into_iter(), &header);
        assert_eq!(fates, [Fate::Sent; MOST]);
        let mut without = Outbox::without_ring();
        let fates = without.send(&receiver, packets.into_iter(), &header);
        assert_eq!(fates, []);
    }

    #[test]
    fn packets_longer_than_the_path_takes_are_fragmented_over_both_families() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a namespace needs root");
            return;
        }
        let netns = Netns::anonymous().unwrap();
        netns
            .configure(async |links| links.mtu("lo", 1280).await)
            .unwrap();
        let pass = || {
            let esp = RawEsp::open(&HostSettings::for_tests(), 1)
                .unwrap()
                .remove(0);
            for (address, before) in [("127.0.0.1", 20), ("::1", 0)] {
                let to = SocketAddr::new(address.parse().unwrap(), 0);
                let socket = esp.by_family(to.is_ipv4()).unwrap();
                let packets: Vec<Vec<u8>> = (0..44).map(|count| vec![count; 1400]).collect();
                let row = packets.iter().map(Vec::as_slice);
                let fates = Outbox::new().send(&**socket, row, &header(to)).to_vec();
                assert_eq!(fates, [Fate::Sent; 44]);
                for packet in packets {
                    let mut buffer = [0; 2000];
                    let received = receive(&**socket, &mut buffer).unwrap();
                    assert_eq!(buffer[before..received.len], packet);
                    assert_eq!((received.tos, received.ttl), (0x28, 9));
                }
            }
        };
        netns.run(pass).unwrap();
    }

    #[test]
    fn a_full_socket_is_not_waited_for() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a namespace needs root");
            return;
        }
        let netns = Netns::anonymous().unwrap();
        netns
            .configure(async |links| {
                links.veth("out0", "out1").await?;
                links
                    .address("out0", "192.0.2.1".parse().unwrap(), 24)
                    .await?;
                links.up("out0").await?;
                links.up("out1").await
            })
            .unwrap();
        let send = || {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.set_send_buffer_size(1).unwrap();
            // Nobody answers for this address: what is sent there waits, and fills the socket.
            let header = Header {
                from: None,
                ..header("192.0.2.77:9".parse().unwrap())
            };
            let packets = [&[0; 1000][..]; MOST];
            Outbox::new()
                .send(&socket, packets.into_iter(), &header)
                .to_vec()
        };
        let fates = netns.run(send).unwrap();
        assert_eq!(fates[0], Fate::Sent);
        assert_eq!(fates[MOST - 1], Fate::Refused(libc::EAGAIN));
    }
}
