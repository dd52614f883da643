//! The row of sealed packets that is being filled, and the sockets that it leaves by.
//!
//! In UDP a row goes to the system as one datagram, which is what makes it fast. Without UDP each
//! packet is a datagram, but all of a row are handed over with one call.

use std::io::{self, IoSlice};
use std::sync::Arc;

use obol_esp::{Frame, Plan, Run, SealError};
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::Socket;

use super::sa::Out;
use crate::ports::{Encapsulation, RawEsp};
use crate::sys::msg::{self, Header};
use crate::sys::outbox::{Fate, Outbox};

/// How long a full socket is waited for: meanwhile packets wait in the TUN device. A device that
/// takes nothing for so long is in trouble.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Fills rows and sends them.
pub(super) struct Sender {
    natt: Encapsulation,
    raw: RawEsp,
    run: Run,
    /// Where the row goes; `None`: it is empty.
    to: Option<Destination>,
    /// Whether the device takes rows.
    rows: bool,
    /// For what leaves as single packets; made with the first ones.
    outbox: Option<Outbox>,
    /// Packets that the system did not take.
    lost: u64,
    /// A full socket was waited for.
    waited: bool,
}

/// What packets in a row have in common.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Destination {
    encap: bool,
    header: Header,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Sealed {
    /// Packets that were sealed.
    pub(super) packets: usize,
    /// Their octets, before that.
    pub(super) bytes: usize,
    /// The soft limit was met.
    pub(super) soft_limit: bool,
    /// Why the rest was not sealed.
    pub(super) error: Option<SealError>,
}

impl Sender {
    pub(super) fn new(natt: Encapsulation, raw: RawEsp) -> Self {
        Self {
            natt,
            raw,
            run: Run::default(),
            to: None,
            rows: true,
            outbox: None,
            lost: 0,
            waited: false,
        }
    }

    /// Seals the packets of a frame and puts them into rows; full rows are sent.
    pub(super) fn push(&mut self, out: &mut Out, frame: &Frame<'_>, plan: &Plan) -> Sealed {
        let to = Destination {
            encap: out.encap,
            header: Header {
                tos: plan.tos,
                ttl: plan.ttl,
                ..out.header
            },
        };
        let mut sealed = Sealed::default();
        for index in 0..frame.count() {
            match self.seal(out, to, frame, plan, index) {
                Ok(soft_limit) => {
                    sealed.packets += 1;
                    sealed.bytes += frame.len(index);
                    sealed.soft_limit |= soft_limit;
                }
                Err(error) => {
                    sealed.error = Some(error);
                    break;
                }
            }
        }
        sealed
    }

    fn seal(
        &mut self,
        out: &mut Out,
        to: Destination,
        frame: &Frame<'_>,
        plan: &Plan,
        index: usize,
    ) -> Result<bool, SealError> {
        let len = out.sa.sealed_len(frame, plan, index)?;
        if self.to.is_some_and(|other| other != to) || !self.run.takes(len) {
            self.flush();
        }
        let soft_limit = out.sa.seal_into(&mut self.run, frame, plan, index, len)?;
        self.to = Some(to);
        Ok(soft_limit)
    }

    /// Sends the row.
    pub(super) fn flush(&mut self) {
        if let Some(to) = self.to.take() {
            self.lost += self.send_row(to);
        }
        self.run.clear();
    }

    /// Packets that the system did not take since the last time.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Whether a full socket was waited for since the last time.
    pub(super) fn take_waited(&mut self) -> bool {
        std::mem::take(&mut self.waited)
    }

    //= rfc7296 2.23-3
    /// Sends all that is in the row; how many packets were lost.
    fn send_row(&mut self, to: Destination) -> u64 {
        let count = self.run.count() as u64;
        let Some(socket) = self.socket(to) else {
            return count;
        };
        let socket = Arc::clone(socket);
        let mut header = to.header;
        if to.encap && self.rows && count > 1 {
            header.segment = u16::try_from(self.run.segment()).ok();
            match send(&socket, self.run.octets(), &header, &mut self.waited) {
                Ok(()) => return 0,
                // The device cannot make checksums, or knows no rows.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => self.rows = false,
                // Longer than the path takes: by themselves, they are fragmented.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
                Err(_) => return count,
            }
            header.segment = None;
        }
        if !to.encap {
            // A raw socket over IPv6 takes the port for a protocol number, and only its own or 0.
            header.to.set_port(0);
        }
        let fates = if count > 1 {
            let outbox = self.outbox.get_or_insert_with(Outbox::new);
            outbox.send(&*socket, self.run.packets(), &header)
        } else {
            &[]
        };
        let waited = &mut self.waited;
        settle(self.run.packets(), fates, |packet| {
            send(&socket, packet, &header, waited)
        })
    }

    fn socket(&self, to: Destination) -> Option<&Arc<Socket>> {
        let v4 = to.header.to.is_ipv4();
        if to.encap {
            self.natt.by_family(v4)
        } else {
            self.raw.by_family(v4)
        }
    }
}

/// Sends by themselves the packets that were not sent together but can be; how many are lost.
fn settle<'a>(
    packets: impl Iterator<Item = &'a [u8]>,
    fates: &[Fate],
    mut send: impl FnMut(&'a [u8]) -> io::Result<()>,
) -> u64 {
    let fates = fates.iter().copied().chain(std::iter::repeat(Fate::Left));
    let lost = packets.zip(fates).filter(|(packet, fate)| match *fate {
        Fate::Sent => false,
        Fate::Refused(error) if is_final(error) => true,
        Fate::Left | Fate::Refused(_) => send(packet).is_err(),
    });
    lost.count() as u64
}

/// Whether an error is about the packet that it is told of: a firewall refuses it. Others can be
/// about an earlier packet, and now the system knows, for instance, how long they may be.
fn is_final(error: i32) -> bool {
    error == libc::EPERM
}

/// Sends, and waits for room if there is none; then it has `waited`.
fn send(socket: &Socket, octets: &[u8], header: &Header, waited: &mut bool) -> io::Result<()> {
    let parts = [IoSlice::new(octets)];
    match msg::send(socket, &parts, header) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            *waited = true;
            let mut writable = [PollFd::new(socket, PollFlags::OUT)];
            rustix::event::poll(&mut writable, Some(&PATIENCE))?;
            msg::send(socket, &parts, header)
        }
        Err(error) if !error.raw_os_error().is_some_and(is_final) => {
            msg::send(socket, &parts, header)
        }
        sent => sent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_is_sent_again_unless_a_firewall_refuses_it() {
        let packets: [&[u8]; 6] = [b"sent", b"full", b"told", b"refused", b"left", b"behind"];
        let fates = [
            Fate::Sent,
            Fate::Refused(libc::EAGAIN),
            Fate::Refused(libc::EMSGSIZE),
            Fate::Refused(libc::EPERM),
            Fate::Left,
        ];
        let mut again = Vec::new();
        let lost = settle(packets.into_iter(), &fates, |packet| {
            again.push(packet);
            match packet {
                b"left" => Err(io::ErrorKind::PermissionDenied.into()),
                _ => Ok(()),
            }
        });
        assert_eq!(again, [&b"full"[..], b"told", b"left", b"behind"]);
        assert_eq!(lost, 2);
    }
}
