//! Many datagrams with one call: buffers for them, used again and again, so that a flood takes no
//! more memory than a trickle.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use crate::sys::msg::{CONTROL, NAME, Received};

/// Longest datagram, or row of them, in octets.
const DATAGRAM_MAX: usize = 65_535;

/// Datagrams, each with room before it.
pub(crate) struct Inbox {
    octets: Box<[u8]>,
    room: usize,
    slots: Vec<Slot>,
}

/// What the system writes beside a datagram.
struct Slot {
    name: [u8; NAME],
    control: [u64; CONTROL],
    len: usize,
    control_len: usize,
}

impl Inbox {
    /// Takes as many as `count` datagrams at a time, with `room` octets before each, and `spare`
    /// octets behind all of them that no datagram is put into.
    pub(crate) fn new(count: usize, room: usize, spare: usize) -> Self {
        let slot = || Slot {
            name: [0; NAME],
            control: [0; CONTROL],
            len: 0,
            control_len: 0,
        };
        Self {
            octets: vec![0; count * (room + DATAGRAM_MAX) + spare].into_boxed_slice(),
            room,
            slots: (0..count).map(|_| slot()).collect(),
        }
    }

    /// All of them.
    pub(crate) fn octets(&mut self) -> &mut [u8] {
        &mut self.octets
    }

    /// The octets that no datagram is put into.
    pub(crate) fn spare(&self) -> Range<usize> {
        self.place(self.slots.len()).start - self.room..self.octets.len()
    }

    /// Receives what is there, in place of what was; how many.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Anything else, such as an ICMP error of an earlier datagram, says
    /// nothing about the next call.
    pub(crate) fn receive(&mut self, fd: impl AsFd) -> io::Result<usize> {
        let stride = self.room + DATAGRAM_MAX;
        let places = self.octets.chunks_exact_mut(stride);
        let mut parts: [libc::iovec; MOST] = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; MOST];
        // SAFETY: `mmsghdr` is a C struct of integers and pointers, for which all zeros (null)
        // is a value.
        let mut messages: [libc::mmsghdr; MOST] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        let all = messages.iter_mut().zip(&mut parts).zip(&mut self.slots);
        for (((message, part), slot), place) in all.zip(places) {
            let place = &mut place[self.room..];
            part.iov_base = place.as_mut_ptr().cast();
            part.iov_len = place.len();
            let header = &mut message.msg_hdr;
            header.msg_name = slot.name.as_mut_ptr().cast();
            header.msg_namelen = slot.name.len() as _;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            header.msg_control = slot.control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&slot.control) as _;
            count += 1;
        }
        // SAFETY: `fd` is open while it is borrowed. Each of the first `count` messages points to
        // its own part, slot and place in `octets`, borrowed by the loop above and alive until this
        // function ends, each with its own length, and any octets are a value. No timeout is given.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_fd().as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (slot, message) in self.slots.iter_mut().zip(&messages).take(received) {
            slot.len = message.msg_len as usize;
            slot.control_len = message.msg_hdr.msg_controllen as _;
        }
        Ok(received)
    }

    /// One of those that were received last: where it lies, and what is known of it. `None`: its
    /// address is of another family.
    pub(crate) fn datagram(&self, index: usize) -> Option<(Range<usize>, Received)> {
        let slot = self.slots.get(index)?;
        let received = Received::new(slot.len, &slot.name, &slot.control, slot.control_len)?;
        let start = self.place(index).start;
        Some((start..start + slot.len.min(DATAGRAM_MAX), received))
    }

    fn place(&self, index: usize) -> Range<usize> {
        let start = index * (self.room + DATAGRAM_MAX) + self.room;
        start..start + DATAGRAM_MAX
    }
}

/// Most datagrams at a time.
const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::msg::{self, Header};
    use std::io::IoSlice;
    use std::net::UdpSocket;

    #[test]
    fn datagrams_and_rows_arrive_with_their_headers() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        msg::announce(&receiver, false).unwrap();
        assert!(msg::receive_rows(&receiver), "this system has no UDP_GRO");
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let header = Header {
            to: receiver.local_addr().unwrap(),
            from: None,
            tos: 0x28,
            ttl: None,
            segment: None,
        };
        msg::send(&sender, &[IoSlice::new(b"alone")], &header).unwrap();
        let row = Header {
            segment: Some(3),
            ..header
        };
        msg::send(&sender, &[IoSlice::new(b"onetwosix!")], &row).unwrap();
        let mut inbox = Inbox::new(4, 8, 100);
        assert_eq!(inbox.receive(&receiver).unwrap(), 2);
        let (place, received) = inbox.datagram(0).unwrap();
        assert_eq!(&inbox.octets()[place], b"alone");
        assert_eq!((received.segment, received.tos), (None, 0x28));
        assert_eq!(received.source, sender.local_addr().unwrap());
        let (place, received) = inbox.datagram(1).unwrap();
        assert_eq!(&inbox.octets()[place], b"onetwosix!");
        assert_eq!(received.segment, Some(3));
        assert_eq!(inbox.spare().len(), 100);
        let error = inbox.receive(&receiver).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
