//! Packets on their way in: those that follow each other in one flow are joined to one frame for
//! the TUN device, as the sender's system had them before they were cut. No octet of payload is
//! moved: a frame is a list of places.
//!
//! What is joined can be cut again to the same packets: only what differs by length, sequence
//! number, identification and PSH joins, and only with a checksum that is right (a frame has none
//! of its own, so a wrong one would be mended on the way).

use std::io::IoSlice;
use std::ops::Range;

use crate::ip::{Sum, UDP_HEADER, V4_HEADER, V6_HEADER, protocol};
use crate::offload::{Kind, Offload};

/// Flows that are joined at a time; of more, the oldest is let go.
const FLOWS: usize = 8;
/// Packets in a frame: as many as the kernel cuts UDP into.
const MAX_COUNT: usize = 64;
/// Octets in a frame.
const MAX_LEN: usize = 65_535;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// Joins the packets of a batch.
#[derive(Debug)]
pub struct Joiner {
    /// Whether the device takes frames of UDP.
    udp: bool,
    /// The oldest first.
    open: Vec<Frame>,
    /// For reuse, with what they have allocated.
    spare: Vec<Frame>,
}

/// Packets of one flow, to become one frame.
#[derive(Debug, Default)]
struct Frame {
    first: Part,
    /// Where the payload of those after the first lies.
    others: Vec<Range<usize>>,
    /// Octets of all of them, with the headers of the first.
    len: usize,
    /// The checksum of the first one was verified.
    verified: bool,
    /// None can follow.
    closed: bool,
}

/// A packet that may be joined with others.
#[derive(Clone, Debug, Default)]
struct Part {
    place: Range<usize>,
    /// Octets of the IP header.
    ip: usize,
    /// Octets of all headers.
    headers: usize,
    tcp: bool,
    push: bool,
}

impl Part {
    fn payload(&self) -> Range<usize> {
        self.place.start + self.headers..self.place.end
    }

    /// The packet at this place, if it is of a kind that may be joined.
    fn new(buffer: &[u8], place: Range<usize>) -> Option<Self> {
        let packet = &buffer[place.clone()];
        let (ip, next) = match packet.first()? >> 4 {
            4 => (V4_HEADER, plain_v4(packet)?),
            6 => (V6_HEADER, plain_v6(packet)?),
            _ => return None,
        };
        let segment = &packet[ip..];
        let mut part = Self {
            place,
            ip,
            headers: ip + UDP_HEADER,
            tcp: next == protocol::TCP,
            push: false,
        };
        match next {
            protocol::TCP => {
                let header: &[u8; 20] = segment.first_chunk()?;
                let len = usize::from(header[12] >> 4) * 4;
                if len < header.len() || header[13] & !PSH != ACK {
                    return None;
                }
                part.headers = ip + len;
                part.push = header[13] & PSH != 0;
            }
            protocol::UDP => {
                let header: &[u8; UDP_HEADER] = segment.first_chunk()?;
                let len = u16::from_be_bytes([header[4], header[5]]);
                let none = header[6..8] == [0, 0];
                if usize::from(len) != segment.len() || none {
                    return None;
                }
            }
            _ => return None,
        }
        (part.headers < packet.len()).then_some(part)
    }

    /// Whether the checksum of its TCP or UDP is right.
    fn verify(&self, buffer: &[u8]) -> bool {
        let packet = &buffer[self.place.clone()];
        let segment = &packet[self.ip..];
        self.pseudo_header(packet, segment.len())
            .add(segment)
            .fold()
            == 0xffff
    }

    fn pseudo_header(&self, packet: &[u8], len: usize) -> Sum {
        let protocol = if self.tcp {
            protocol::TCP
        } else {
            protocol::UDP
        };
        Sum::default()
            .add(&packet[if self.ip == V4_HEADER { 12..20 } else { 8..40 }])
            .add(&(len as u32).to_be_bytes())
            .add(&[0, 0, 0, protocol])
    }

    /// Addresses and ports.
    fn flow<'a>(&self, buffer: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let packet = &buffer[self.place.clone()];
        let addresses = if self.ip == V4_HEADER { 12..20 } else { 8..40 };
        (&packet[addresses], &packet[self.ip..self.ip + 4])
    }

    /// Whether any packet may be of its flow: where that is not easy to see, it may.
    fn may_be_of(&self, packet: &[u8], buffer: &[u8]) -> bool {
        let ports = match packet.first().map(|octet| octet >> 4) {
            Some(4) => plain_v4(packet)
                .zip(packet.get(12..20))
                .zip(packet.get(20..24)),
            Some(6) => plain_v6(packet)
                .zip(packet.get(8..40))
                .zip(packet.get(40..44)),
            _ => None,
        };
        let Some(((protocol, addresses), ports)) = ports else {
            return true;
        };
        let tcp = protocol == protocol::TCP;
        (tcp || protocol == protocol::UDP)
            && tcp == self.tcp
            && (addresses, ports) == self.flow(buffer)
    }

    fn is_of(&self, other: &Self, buffer: &[u8]) -> bool {
        self.ip == other.ip && self.tcp == other.tcp && self.flow(buffer) == other.flow(buffer)
    }
}

/// The protocol of an IPv4 packet without options that is no fragment and as long as it says.
fn plain_v4(packet: &[u8]) -> Option<u8> {
    let header: &[u8; V4_HEADER] = packet.first_chunk()?;
    let len = u16::from_be_bytes([header[2], header[3]]);
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    let plain = header[0] == 0x45 && usize::from(len) == packet.len() && !fragment;
    plain.then_some(header[9])
}

/// The protocol of an IPv6 packet without extensions.
fn plain_v6(packet: &[u8]) -> Option<u8> {
    let header: &[u8; V6_HEADER] = packet.first_chunk()?;
    let len = u16::from_be_bytes([header[4], header[5]]);
    (V6_HEADER + usize::from(len) == packet.len()).then_some(header[6])
}

impl Joiner {
    /// Joins UDP only if the device takes frames of it.
    pub fn new(udp: bool) -> Self {
        let frames = || (0..FLOWS).map(|_| Frame::new());
        Self {
            udp,
            open: Vec::with_capacity(FLOWS),
            spare: frames().collect(),
        }
    }

    /// Takes the packet at `place` in the buffer, which must stay there until [`flush`].
    /// `write` is handed the parts of each frame that is complete: the header of [`Offload`], and
    /// a packet.
    ///
    /// [`flush`]: Self::flush
    pub fn push(
        &mut self,
        buffer: &mut [u8],
        place: Range<usize>,
        write: &mut impl FnMut(&[IoSlice<'_>]),
    ) {
        let part = Part::new(buffer, place.clone()).filter(|part| part.tcp || self.udp);
        let Some(part) = part else {
            self.let_pass(buffer, &place, write);
            let header = Offload::default().emit();
            return write(&[IoSlice::new(&header), IoSlice::new(&buffer[place])]);
        };
        let same = |frame: &Frame| frame.first.is_of(&part, buffer);
        if let Some(index) = self.open.iter().position(same) {
            if self.open[index].join(buffer, &part) {
                return;
            }
            self.let_go(index, buffer, write);
        } else if self.open.len() == FLOWS {
            self.let_go(0, buffer, write);
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.begin(part);
        self.open.push(frame);
    }

    /// Hands over what is not complete yet: the end of the batch.
    pub fn flush(&mut self, buffer: &mut [u8], write: &mut impl FnMut(&[IoSlice<'_>])) {
        while !self.open.is_empty() {
            self.let_go(0, buffer, write);
        }
    }

    /// A packet that is not joined must not overtake one of its flow.
    fn let_pass(
        &mut self,
        buffer: &mut [u8],
        place: &Range<usize>,
        write: &mut impl FnMut(&[IoSlice<'_>]),
    ) {
        let mut index = 0;
        while let Some(frame) = self.open.get(index) {
            if frame.first.may_be_of(&buffer[place.clone()], buffer) {
                self.let_go(index, buffer, write);
            } else {
                index += 1;
            }
        }
    }

    fn let_go(&mut self, index: usize, buffer: &mut [u8], write: &mut impl FnMut(&[IoSlice<'_>])) {
        let frame = self.open.remove(index);
        frame.write(buffer, write);
        self.spare.push(frame);
    }
}

impl Frame {
    fn new() -> Self {
        Self {
            others: Vec::with_capacity(MAX_COUNT),
            ..Self::default()
        }
    }

    fn begin(&mut self, first: Part) {
        self.others.clear();
        self.len = first.place.len();
        self.verified = false;
        self.closed = first.push;
        self.first = first;
    }

    /// Adds the packet if it continues the frame.
    fn join(&mut self, buffer: &mut [u8], part: &Part) -> bool {
        let segment = self.first.payload().len();
        let payload = part.payload();
        let fits = !self.closed
            && payload.len() <= segment
            && self.others.len() + 1 < MAX_COUNT
            && self.len + payload.len() <= MAX_LEN;
        if !fits || !self.continues(buffer, part) {
            return false;
        }
        self.verified = self.verified || self.first.verify(buffer);
        if !self.verified || !part.verify(buffer) {
            self.closed = true;
            return false;
        }
        self.closed = part.push || payload.len() < segment;
        if part.push {
            buffer[self.first.place.start + self.first.ip + 13] |= PSH;
        }
        self.len += payload.len();
        self.others.push(payload);
        true
    }

    /// Whether the headers are those that the next packet would have.
    fn continues(&self, buffer: &[u8], part: &Part) -> bool {
        let first = &buffer[self.first.place.clone()];
        let next = &buffer[part.place.clone()];
        let ip = self.first.ip;
        let same_ip = if ip == V4_HEADER {
            // Type of service, fragmentation, TTL.
            let same = first[1] == next[1] && first[6..9] == next[6..9];
            same && self.may_have(first, identification(next))
        } else {
            // Traffic class, flow label, hop limit.
            first[..4] == next[..4] && first[7] == next[7]
        };
        if !same_ip || self.first.headers != part.headers {
            return false;
        }
        if !self.first.tcp {
            return true;
        }
        let (first, next) = (&first[ip..self.first.headers], &next[ip..part.headers]);
        let sent = (self.len - self.first.headers) as u32;
        // Acknowledgment number and header length; flags are the same but for PSH; window; urgent
        // pointer and options.
        sequence(next) == sequence(first).wrapping_add(sent)
            && first[8..13] == next[8..13]
            && first[14..16] == next[14..16]
            && first[18..] == next[18..]
    }

    /// A cut frame counts identifications up. Where nobody fragments, they mean nothing (RFC 6864
    /// section 4.1), and may stay the same.
    fn may_have(&self, first: &[u8], other: u16) -> bool {
        let atomic = first[6] & 0x40 != 0;
        let own = identification(first);
        other == own.wrapping_add(self.others.len() as u16 + 1) || atomic && other == own
    }

    /// Completes the headers, and hands the frame over.
    fn write(&self, buffer: &mut [u8], write: &mut impl FnMut(&[IoSlice<'_>])) {
        let first = &self.first;
        let offload = if self.others.is_empty() {
            Offload {
                verified: self.verified,
                ..Offload::default()
            }
        } else {
            self.complete(&mut buffer[first.place.clone()])
        };
        let header = offload.emit();
        let mut parts = [IoSlice::new(&[]); MAX_COUNT + 1];
        parts[0] = IoSlice::new(&header);
        parts[1] = IoSlice::new(&buffer[first.place.clone()]);
        for (part, other) in parts[2..].iter_mut().zip(&self.others) {
            *part = IoSlice::new(&buffer[other.clone()]);
        }
        write(&parts[..2 + self.others.len()]);
    }

    fn complete(&self, packet: &mut [u8]) -> Offload {
        let first = &self.first;
        let len = self.len - first.ip;
        if first.ip == V4_HEADER {
            packet[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
            packet[10..12].fill(0);
            let checksum = Sum::default().add(&packet[..V4_HEADER]).finish();
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            packet[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        }
        let (kind, field) = match (first.tcp, first.ip) {
            (true, V4_HEADER) => (Kind::TcpV4, 16),
            (true, _) => (Kind::TcpV6, 16),
            (false, _) => (Kind::Udp, 6),
        };
        if !first.tcp {
            packet[first.ip + 4..first.ip + 6].copy_from_slice(&(len as u16).to_be_bytes());
        }
        let partial = first.pseudo_header(packet, len).fold();
        let at = first.ip + field;
        packet[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        Offload {
            kind,
            segment: first.payload().len() as u16,
            headers: first.headers as u16,
            checksum: Some((first.ip as u16, field as u16)),
            verified: false,
        }
    }
}

fn identification(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[4], packet[5]])
}

fn sequence(header: &[u8]) -> u32 {
    u32::from_be_bytes([header[4], header[5], header[6], header[7]])
}

#[cfg(test)]
mod tests;
