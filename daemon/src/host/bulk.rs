//! Thousands of routes with few system calls: many messages in one datagram, of which only the last is
//! answered, and those that fail.

use std::io;
use std::time::Duration;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::RouteMessage;
use rustix::fd::OwnedFd;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Messages in a datagram: some 10 KiB, which every socket sends.
const MANY: usize = 100;

/// How long the kernel may take for an answer that it gives at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A netlink header, and what follows it in an answer: the number of an error.
const HEADER: usize = 16;
const ERROR: u16 = 2;

/// A socket for such messages.
pub(super) struct Bulk(OwnedFd);

impl Bulk {
    /// One in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The system has no socket for us.
    pub(super) fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // The first of all, NETLINK_ROUTE.
            None,
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Sets routes in place of those that are there; those for which that has failed.
    ///
    /// # Errors
    /// It is not known what has become of them.
    pub(super) fn replace(&self, routes: Vec<RouteMessage>) -> io::Result<Vec<RouteMessage>> {
        let mut failed = Vec::new();
        for some in routes.chunks(MANY) {
            let mut octets = Vec::new();
            for (number, route) in (1..).zip(some) {
                let last = number as usize == some.len();
                write(&mut octets, route, number, last);
            }
            rustix::net::send(&self.0, &octets, SendFlags::empty())?;
            for number in self.failed(some.len() as u32)? {
                let route = (number as usize).checked_sub(1).and_then(|at| some.get(at));
                failed.extend(route.cloned());
            }
        }
        Ok(failed)
    }

    /// The numbers of messages that have failed, up to the last of them all.
    fn failed(&self, last: u32) -> io::Result<Vec<u32>> {
        let mut failed = Vec::new();
        let mut buffer = vec![0; 32 << 10];
        loop {
            let (len, _) = rustix::net::recv(&self.0, &mut buffer, RecvFlags::empty())?;
            let mut answers = &buffer[..len];
            while let Some((header, rest)) = answers.split_first_chunk::<HEADER>() {
                let [len, number] = [0, 8].map(|at| {
                    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
                });
                let kind = u16::from_ne_bytes([header[4], header[5]]);
                let code = rest.first_chunk().map(|code| i32::from_ne_bytes(*code));
                let (ERROR, Some(code)) = (kind, code) else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                if code != 0 {
                    failed.push(number);
                }
                if number == last {
                    return Ok(failed);
                }
                let next = (len as usize).next_multiple_of(4).max(HEADER);
                answers = answers.get(next..).unwrap_or_default();
            }
        }
    }
}

/// Adds a message; `answered`: also if nothing is wrong with it.
fn write(octets: &mut Vec<u8>, route: &RouteMessage, number: u32, answered: bool) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE;
    if answered {
        header.flags |= NLM_F_ACK;
    }
    header.sequence_number = number;
    let payload = RouteNetlinkMessage::NewRoute(route.clone());
    let mut message = NetlinkMessage::new(header, payload.into());
    message.finalize();
    let from = octets.len();
    octets.resize(from + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut octets[from..]);
}
