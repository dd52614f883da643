//! Frames on their way out: what a TUN device hands over, cut into the packets that it stands
//! for. Each octet of payload is touched once, when it is copied to where it will be sealed; its
//! checksum is made on the way.

use crate::error::FrameError;
use crate::flow::{FlowKey, IpInfo};
use crate::ip::{Sum, UDP_HEADER, V6_HEADER, protocol};
use crate::offload::{Kind, Offload};

/// Packets that one frame may stand for. The least segment size of Linux (88 octets) makes 745
/// of the longest frame.
const MAX_SEGMENTS: usize = 1024;

/// Octets of a TCP header without options.
const TCP_HEADER: usize = 20;
/// TCP flags that only the last segment has.
const FIN_PSH: u8 = 0x09;
/// The TCP flag that only the first segment has, RFC 3168 section 6.1.2.
const CWR: u8 = 0x80;

/// A frame, checked: every octet that its headers speak of is there.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    packet: &'a [u8],
    flow: FlowKey,
    info: IpInfo,
    shape: Shape,
    count: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shape {
    /// One packet, with a checksum to complete.
    Packet { checksum: Option<(usize, usize)> },
    /// Each has so many octets of headers, and of payload (the last: at most).
    Segments { headers: usize, payload: usize },
}

impl<'a> Frame<'a> {
    /// Takes what was read from the device: the header of [`Offload`], and an IP packet.
    ///
    /// # Errors
    /// Not an IP packet, or the two contradict each other.
    pub fn parse(octets: &'a [u8]) -> Result<Self, FrameError> {
        let (header, packet) = octets
            .split_first_chunk::<{ Offload::LEN }>()
            .ok_or(FrameError::Packet)?;
        Self::new(Offload::parse(header)?, packet)
    }

    /// A packet that is complete, as one that was kept.
    ///
    /// # Errors
    /// Not an IP packet.
    pub fn packet(packet: &'a [u8]) -> Result<Self, FrameError> {
        Self::new(Offload::default(), packet)
    }

    fn new(offload: Offload, packet: &'a [u8]) -> Result<Self, FrameError> {
        let (flow, info) = FlowKey::parse(packet).map_err(|_| FrameError::Packet)?;
        let mut frame = Self {
            packet: &packet[..info.total_len],
            flow,
            info,
            shape: Shape::Packet { checksum: None },
            count: 1,
        };
        match offload.kind {
            Kind::Packet => frame.shape = frame.whole(offload)?,
            kind => (frame.shape, frame.count) = frame.segments(kind, offload)?,
        }
        Ok(frame)
    }

    fn whole(&self, offload: Offload) -> Result<Shape, FrameError> {
        let checksum = offload
            .checksum
            .map(|(start, field)| (usize::from(start), usize::from(field)));
        if let Some((start, field)) = checksum
            && (start < self.info.header_len || start + field + 2 > self.packet.len())
        {
            return Err(FrameError::Offload);
        }
        Ok(Shape::Packet { checksum })
    }

    fn segments(&self, kind: Kind, offload: Offload) -> Result<(Shape, usize), FrameError> {
        let next = &self.packet[self.info.header_len..];
        let (protocol, version, header) = match kind {
            Kind::TcpV4 => (protocol::TCP, Some(4), tcp_header(next)),
            Kind::TcpV6 => (protocol::TCP, Some(6), tcp_header(next)),
            _ => (protocol::UDP, None, Some(UDP_HEADER)),
        };
        let header = header.filter(|len| *len < next.len());
        let headers = self.info.header_len + header.ok_or(FrameError::Offload)?;
        let payload = usize::from(offload.segment);
        let lies = self.flow.protocol != protocol
            || version.is_some_and(|version| version != self.info.version)
            || self.info.fragmented
            || payload == 0;
        if lies {
            return Err(FrameError::Offload);
        }
        let count = (self.packet.len() - headers).div_ceil(payload);
        if count > MAX_SEGMENTS {
            return Err(FrameError::Offload);
        }
        Ok((Shape::Segments { headers, payload }, count))
    }

    /// The flow, the same for each packet.
    pub fn flow(&self) -> &FlowKey {
        &self.flow
    }

    /// What the IP header says; its length is that of the whole frame.
    pub fn info(&self) -> &IpInfo {
        &self.info
    }

    /// The headers and payload of the whole frame.
    pub fn octets(&self) -> &'a [u8] {
        self.packet
    }

    /// How many packets it stands for: at least 1.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Octets of one of them.
    pub fn len(&self, index: usize) -> usize {
        match self.shape {
            Shape::Packet { .. } => self.packet.len(),
            Shape::Segments { headers, payload } => {
                let rest = self.packet.len() - headers;
                headers + rest.saturating_sub(index * payload).min(payload)
            }
        }
    }

    /// Whether it stands for no packet: never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// One of them as it would have been on its way, had the device been asked to take packets: cut,
    /// with its checksums. `to` holds nothing else then.
    pub fn copy(&self, index: usize, to: &mut Vec<u8>) {
        to.resize(self.len(index), 0);
        self.write(index, 0, to);
    }

    /// Writes one of them to `to`, which is as long as the packet less `skip`: without its first
    /// `skip` octets, which are none or the IP header without extensions.
    pub(crate) fn write(&self, index: usize, skip: usize, to: &mut [u8]) {
        match self.shape {
            Shape::Packet { checksum: None } => to.copy_from_slice(&self.packet[skip..]),
            Shape::Packet {
                checksum: Some((start, field)),
            } => self.complete(start, field, skip, to),
            Shape::Segments { headers, payload } => self.segment(index, headers, payload, skip, to),
        }
    }

    /// A packet whose checksum is still to be made.
    fn complete(&self, start: usize, field: usize, skip: usize, to: &mut [u8]) {
        let (before, covered) = to.split_at_mut(start - skip);
        before.copy_from_slice(&self.packet[skip..start]);
        // The field holds what is to be added for the pseudo-header.
        let sum = Sum::default().add_copy(&self.packet[start..], covered);
        put_checksum(covered, field, sum, self.flow.protocol);
    }

    fn segment(&self, index: usize, headers: usize, payload: usize, skip: usize, to: &mut [u8]) {
        let from = headers + index * payload;
        let until = (from + payload).min(self.packet.len());
        let (head, body) = to.split_at_mut(headers - skip);
        head.copy_from_slice(&self.packet[skip..headers]);
        let sum = Sum::default().add_copy(&self.packet[from..until], body);
        let len = headers + until - from;
        let (ip, next) = head.split_at_mut(self.info.header_len - skip);
        if skip == 0 {
            self.ip_header(ip, index, len);
        }
        let last = until == self.packet.len();
        let field = match self.flow.protocol {
            protocol::TCP => tcp(next, index, index * payload, last),
            _ => udp(next, len - self.info.header_len),
        };
        let len = len - self.info.header_len;
        let flow = &self.flow;
        let sum =
            sum.add(next)
                .add_pseudo_header(flow.source, flow.destination, flow.protocol, len);
        put_checksum(next, field, sum, flow.protocol);
    }

    /// Length, identification and checksum.
    fn ip_header(&self, ip: &mut [u8], index: usize, len: usize) {
        if self.info.version == 6 {
            let len = (len - V6_HEADER) as u16;
            ip[4..6].copy_from_slice(&len.to_be_bytes());
            return;
        }
        let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(index as u16);
        ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        ip[10..12].fill(0);
        let checksum = Sum::default().add(ip).finish();
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

fn tcp_header(next: &[u8]) -> Option<usize> {
    let len = usize::from(next.get(12)? >> 4) * 4;
    (len >= TCP_HEADER).then_some(len)
}

/// Sequence number and flags; the checksum is cleared, and its place returned.
fn tcp(header: &mut [u8], index: usize, offset: usize, last: bool) -> usize {
    let mut sequence = [0; 4];
    sequence.copy_from_slice(&header[4..8]);
    let sequence = u32::from_be_bytes(sequence).wrapping_add(offset as u32);
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    if !last {
        header[13] &= !FIN_PSH;
    }
    if index > 0 {
        header[13] &= !CWR;
    }
    header[16..18].fill(0);
    16
}

/// Length; the checksum is cleared, and its place returned.
fn udp(header: &mut [u8], len: usize) -> usize {
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    header[6..8].fill(0);
    6
}

fn put_checksum(covered: &mut [u8], field: usize, sum: Sum, protocol: u8) {
    let checksum = match sum.finish() {
        // To UDP, 0 says that there is none.
        0 if protocol == protocol::UDP => 0xffff,
        checksum => checksum,
    };
    covered[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests;
