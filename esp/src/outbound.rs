//! An SA for packets to the peer.

use std::ops::Range;

use crate::cipher::{self, Cipher, Layout};
use crate::error::{KeyError, SealError};
use crate::flow::{FlowKey, IpInfo};
use crate::frame::Frame;
use crate::ip::{UDP_HEADER, V4_HEADER, V6_HEADER};
use crate::lifetime::{Lifetime, Usage};
use crate::params::{Mode, SaParams};
use crate::run::Run;
use crate::selector::Selectors;
use crate::seq::SendCounter;
use crate::wire::{self, ESP_TRAILER};
use crate::{transport, tunnel};

/// An IPv4 packet has at most so many octets; ESP over UDP leaves this for ESP.
const MAX_ESP: usize = u16::MAX as usize - V4_HEADER - UDP_HEADER;

/// Seals packets. One thread owns it: the sequence number is in it.
pub struct Outbound {
    spi: u32,
    mode: Mode,
    cipher: Box<dyn Cipher>,
    /// The cipher's own: it is asked for several times for each packet.
    layout: Layout,
    counter: SendCounter,
    selectors: Selectors,
    lifetime: Lifetime,
}

/// A sealed packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// Where it lies in the buffer, from the SPI to the end of the ICV.
    pub range: Range<usize>,
    /// For the outer header: type of service or traffic class, RFC 6040 section 4.1.
    pub tos: u8,
    /// For the outer header in transport mode: the packet's own TTL. `None`: the system's.
    pub ttl: Option<u8>,
    /// For the outer header: whether the packet must not be fragmented.
    pub df: bool,
    /// Octets of the packet before it was sealed.
    pub inner_len: usize,
    /// The soft limit was met by this packet; said once.
    pub soft_limit: bool,
}

/// How the packets of a frame are sealed, all alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Octets of the packet that are left behind.
    skip: usize,
    next_header: u8,
    /// For the outer header: as in [`Sealed`].
    pub tos: u8,
    /// For the outer header: as in [`Sealed`].
    pub ttl: Option<u8>,
}

impl Outbound {
    /// Makes the SA.
    ///
    /// # Errors
    /// Parameters that do not fit together.
    pub fn new(params: SaParams) -> Result<Self, KeyError> {
        params.check()?;
        let cipher = cipher::new(
            params.suite,
            &params.encr_key,
            &params.integ_key,
            params.esn,
        )?;
        Ok(Self {
            spi: params.spi,
            mode: params.mode,
            layout: cipher.layout(),
            cipher,
            counter: SendCounter::new(params.esn),
            selectors: params.selectors,
            lifetime: Lifetime::new(params.limits, params.suite),
        })
    }

    /// The SPI, host byte order.
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// Whether packets of this flow are what the SA is for.
    pub fn carries(&self, flow: &FlowKey) -> bool {
        self.selectors.matches(flow)
    }

    /// What was sealed so far.
    pub fn usage(&self) -> Usage {
        self.lifetime.usage()
    }

    /// Seals the IP packet at `packet` in place. [`HEADROOM`](crate::HEADROOM) octets before it
    /// and [`TAILROOM`](crate::TAILROOM) after it are overwritten.
    ///
    /// # Errors
    /// The packet must be dropped; its octets are as they were.
    pub fn seal(&mut self, buffer: &mut [u8], packet: Range<usize>) -> Result<Sealed, SealError> {
        let octets = buffer.get(packet.clone()).ok_or(SealError::NoRoom)?;
        let parsed = FlowKey::parse(octets).map_err(|_| SealError::Malformed)?;
        self.seal_parsed(buffer, packet, &parsed)
    }

    /// As [`seal`](Self::seal), for a packet that the caller has parsed already to find its SA.
    /// Where several SAs may carry it, ask one after the other: one that does not says
    /// [`SealError::Selector`] and leaves the packet as it was.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub fn seal_parsed(
        &mut self,
        buffer: &mut [u8],
        packet: Range<usize>,
        (flow, info): &(FlowKey, IpInfo),
    ) -> Result<Sealed, SealError> {
        if !self.carries(flow) {
            return Err(SealError::Selector);
        }
        let octets = buffer.get(packet.clone()).ok_or(SealError::NoRoom)?;
        if octets.len() < info.total_len {
            return Err(SealError::Malformed);
        }
        let (header, next_header) = match self.mode {
            Mode::Tunnel => (0, tunnel::next_header(info.version)),
            Mode::Transport => transport::split(octets, info)?,
        };
        let payload = packet.start + header..packet.start + info.total_len;
        let range = self.place(buffer.len(), &payload)?;
        self.lifetime
            .admit(info.total_len)
            .map_err(|_| SealError::HardLimit)?;
        let (sequence, half_used) = self.counter.take()?;
        self.transform(
            &mut buffer[range.clone()],
            payload.len(),
            sequence,
            next_header,
        )?;
        let soft_limit = self.lifetime.record(info.total_len) || half_used;
        Ok(self.sealed(range, info, soft_limit))
    }

    /// How the packets of a frame are to be sealed.
    ///
    /// # Errors
    /// [`SealError::Selector`]: the SA does not carry the flow; another may. Otherwise the frame
    /// must be dropped.
    pub fn plan(&self, frame: &Frame<'_>) -> Result<Plan, SealError> {
        if !self.carries(frame.flow()) {
            return Err(SealError::Selector);
        }
        let info = frame.info();
        let (skip, next_header) = match self.mode {
            Mode::Tunnel => (0, tunnel::next_header(info.version)),
            Mode::Transport => transport::split(frame.octets(), info)?,
        };
        Ok(Plan {
            skip,
            next_header,
            tos: info.tos,
            ttl: (self.mode == Mode::Transport).then_some(info.ttl),
        })
    }

    /// Octets of a packet of the frame once it is sealed.
    ///
    /// # Errors
    /// It would be longer than an ESP packet can be.
    pub fn sealed_len(
        &self,
        frame: &Frame<'_>,
        plan: &Plan,
        index: usize,
    ) -> Result<usize, SealError> {
        let layout = self.layout;
        let payload = frame.len(index) - plan.skip;
        let trailer = wire::padding(payload, layout.align) + ESP_TRAILER;
        let len = layout.header() + payload + trailer + layout.icv;
        if len > MAX_ESP {
            return Err(SealError::TooLong);
        }
        Ok(len)
    }

    /// Seals a packet of the frame behind those in `run`, which takes the `len` octets that
    /// [`sealed_len`](Self::sealed_len) said. Returns whether the soft limit was met by it; that
    /// is said once.
    ///
    /// # Errors
    /// The packet must be dropped; the run is as it was.
    pub fn seal_into(
        &mut self,
        run: &mut Run,
        frame: &Frame<'_>,
        plan: &Plan,
        index: usize,
        len: usize,
    ) -> Result<bool, SealError> {
        let inner = frame.len(index);
        self.lifetime
            .admit(inner)
            .map_err(|_| SealError::HardLimit)?;
        let (sequence, half_used) = self.counter.take()?;
        let header = self.layout.header();
        let payload = inner - plan.skip;
        let esp = run.place(len);
        frame.write(index, plan.skip, &mut esp[header..header + payload]);
        self.transform(esp, payload, sequence, plan.next_header)?;
        run.keep(len);
        Ok(self.lifetime.record(inner) || half_used)
    }

    /// Where the ESP packet for this payload will lie.
    fn place(&self, buffer: usize, payload: &Range<usize>) -> Result<Range<usize>, SealError> {
        let layout = self.layout;
        let trailer = wire::padding(payload.len(), layout.align) + ESP_TRAILER;
        let end = payload.end + trailer + layout.icv;
        let start = payload
            .start
            .checked_sub(layout.header())
            .ok_or(SealError::NoRoom)?;
        if end > buffer {
            return Err(SealError::NoRoom);
        }
        if end - start > MAX_ESP {
            return Err(SealError::TooLong);
        }
        Ok(start..end)
    }

    /// Writes everything around the payload and encrypts it.
    fn transform(
        &self,
        esp: &mut [u8],
        payload: usize,
        sequence: u64,
        next_header: u8,
    ) -> Result<(), SealError> {
        let layout = self.layout;
        let icv = esp.len() - layout.icv;
        wire::write_header(esp, self.spi, sequence);
        self.cipher
            .write_iv(sequence, &mut esp[wire::ESP_HEADER..layout.header()]);
        wire::write_trailer(&mut esp[layout.header() + payload..icv], next_header);
        self.cipher
            .seal(sequence, esp)
            .map_err(|_| SealError::Cipher)
    }

    //= rfc7296 2.24-1
    fn sealed(&self, range: Range<usize>, info: &IpInfo, soft_limit: bool) -> Sealed {
        Sealed {
            range,
            // Normal mode of RFC 6040 section 4.1: ECN is copied, and so is DSCP.
            tos: info.tos,
            ttl: (self.mode == Mode::Transport).then_some(info.ttl),
            df: info.df,
            inner_len: info.total_len,
            soft_limit,
        }
    }

    /// The most octets that sealing adds to a packet in tunnel mode, without outer IP and UDP
    /// headers.
    pub fn overhead(&self) -> usize {
        let layout = self.layout;
        layout.header() + layout.align - 1 + ESP_TRAILER + layout.icv
    }

    //= rfc4303 3.3.4-1
    /// The longest packet in octets that fits a path of `path_mtu` octets once it is sealed,
    /// with the outer IP header and with the UDP header of RFC 3948 if `encap`.
    pub fn max_packet(&self, path_mtu: usize, outer_v6: bool, encap: bool) -> usize {
        let layout = self.layout;
        let ip = if outer_v6 { V6_HEADER } else { V4_HEADER };
        let udp = if encap { UDP_HEADER } else { 0 };
        let body = path_mtu.saturating_sub(ip + udp + layout.header() + layout.icv);
        let payload = (body / layout.align * layout.align).saturating_sub(ESP_TRAILER);
        match self.mode {
            Mode::Tunnel => payload,
            // The outer header stands for the packet's own.
            Mode::Transport if payload == 0 => 0,
            Mode::Transport => payload + ip,
        }
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbound({:08x})", self.spi)
    }
}

#[cfg(test)]
mod tests;
