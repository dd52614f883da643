//! An SA for packets to us.

use std::net::IpAddr;
use std::ops::Range;

use crate::cipher::{self, Cipher, Layout};
use crate::error::{KeyError, OpenError};
use crate::ip::{V4_HEADER, V6_HEADER, protocol};
use crate::lifetime::{Lifetime, Usage};
use crate::params::{Mode, SaParams};
use crate::replay::Window;
use crate::selector::{Selector, Selectors};
use crate::transport::RestoredHeader;
use crate::tunnel;
use crate::wire::{self, ESP_TRAILER};

/// Opens packets. One thread owns it: the replay window is in it.
pub struct Inbound {
    spi: u32,
    mode: Mode,
    esn: bool,
    cipher: Box<dyn Cipher>,
    /// The cipher's own: it is asked for several times for each packet.
    layout: Layout,
    window: Window,
    selectors: Selectors,
    lifetime: Lifetime,
    repair_checksums: bool,
    transport_addresses: Option<(IpAddr, IpAddr)>,
}

/// What the header around an ESP datagram said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outer {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Type of service or traffic class; its ECN field goes into the inner packet.
    pub tos: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
}

/// An opened packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opened {
    /// Where the complete IP packet lies in the buffer.
    pub range: Range<usize>,
    /// The soft limit was met by this packet; said once.
    pub soft_limit: bool,
    /// It is the first packet of this SA.
    pub first: bool,
    /// No packet with a higher sequence number came before: where it came from is news.
    pub newest: bool,
}

impl Inbound {
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
            esn: params.esn,
            layout: cipher.layout(),
            cipher,
            window: Window::new(params.replay_window),
            selectors: params.selectors,
            lifetime: Lifetime::new(params.limits, params.suite),
            repair_checksums: params.repair_checksums,
            transport_addresses: params.transport_addresses,
        })
    }

    /// The SPI, host byte order.
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// What was opened so far.
    pub fn usage(&self) -> Usage {
        self.lifetime.usage()
    }

    /// The addresses of the hosts have changed. What came before stays known: nothing can be
    /// replayed by a move.
    pub fn move_to(
        &mut self,
        transport_addresses: Option<(IpAddr, IpAddr)>,
        repair_checksums: bool,
    ) {
        self.transport_addresses = transport_addresses;
        self.repair_checksums = repair_checksums;
    }

    /// Packets that any of these selectors matches are for others: they are dropped, in place of what was
    /// so before.
    pub fn except(&mut self, others: Vec<Selector>) {
        self.selectors.except(others);
    }

    //= rfc4303 3.4.3-7 3.4.4.1-5
    //= security S-60
    /// Opens the ESP datagram at `datagram` (from the SPI to the ICV) in place.
    /// [`HEADROOM`](crate::HEADROOM) octets before it are overwritten.
    ///
    /// # Errors
    /// The datagram must be dropped, and what is in its place must not be read.
    pub fn open(
        &mut self,
        buffer: &mut [u8],
        datagram: Range<usize>,
        outer: Outer,
    ) -> Result<Opened, OpenError> {
        let restored = self.restored(&datagram, outer)?;
        let esp = buffer.get_mut(datagram.clone()).ok_or(OpenError::NoRoom)?;
        let sequence = self.before_open(esp)?;
        self.cipher
            .open(sequence, esp)
            .map_err(|_| OpenError::Integrity)?;
        let newest = self.window.is_ahead(sequence);
        if !self.window.commit(sequence) {
            return Err(OpenError::Replay);
        }
        let (payload, next_header) = self.body(esp, datagram.start)?;
        let range = match restored {
            None => {
                let inner = &mut buffer[payload.clone()];
                let len = tunnel::after_open(inner, next_header, &self.selectors, outer.tos)?;
                payload.start..payload.start + len
            }
            Some(header) => {
                let range = payload.start - header.len()..payload.end;
                let packet = &mut buffer[range.clone()];
                header.complete(packet, next_header, &self.selectors)?;
                range
            }
        };
        self.account(range, newest)
    }

    /// Octets before a datagram that opening it overwrites: those of a header that is restored in
    /// transport mode and has no room where ESP header and IV were.
    pub fn room_before(&self) -> usize {
        let header = match (self.mode, self.transport_addresses) {
            (Mode::Tunnel, _) => 0,
            (Mode::Transport, Some((IpAddr::V4(_), _))) => V4_HEADER,
            (Mode::Transport, _) => V6_HEADER,
        };
        header.saturating_sub(self.layout.header())
    }

    /// The header to restore, with room for it before the payload; `None` in tunnel mode.
    fn restored(
        &self,
        datagram: &Range<usize>,
        outer: Outer,
    ) -> Result<Option<RestoredHeader>, OpenError> {
        if self.mode == Mode::Tunnel {
            return Ok(None);
        }
        let (source, destination) = self
            .transport_addresses
            .unwrap_or((outer.source, outer.destination));
        let header = RestoredHeader::new(source, destination, outer, self.repair_checksums)?;
        if datagram.start + self.layout.header() < header.len() {
            return Err(OpenError::NoRoom);
        }
        Ok(Some(header))
    }

    //= rfc4303 3.4.3-6
    /// What can be said before any key is used; returns the whole sequence number.
    fn before_open(&self, esp: &[u8]) -> Result<u64, OpenError> {
        let layout = self.layout;
        let body = esp
            .len()
            .checked_sub(layout.header() + layout.icv)
            .ok_or(OpenError::Short)?;
        if body < ESP_TRAILER || body & (layout.align - 1) != 0 {
            return Err(OpenError::Short);
        }
        let (spi, low) = wire::header_fields(
            esp.first_chunk()
                .expect("a layout has at least an ESP header"),
        );
        if spi != self.spi {
            return Err(OpenError::Spi);
        }
        let sequence = if self.esn {
            self.window.extend(low)
        } else {
            Some(u64::from(low))
        };
        let sequence = sequence
            .filter(|number| self.window.is_fresh(*number))
            .ok_or(OpenError::Replay)?;
        self.lifetime.admit(0).map_err(|_| OpenError::HardLimit)?;
        Ok(sequence)
    }

    //= rfc4303 2.6-1 2.6-2
    /// Where the payload of the opened `esp` lies in the buffer, and its Next Header.
    fn body(&self, esp: &[u8], start: usize) -> Result<(Range<usize>, u8), OpenError> {
        let layout = self.layout;
        let body = &esp[layout.header()..esp.len() - layout.icv];
        let (len, next_header) = wire::read_trailer(body).ok_or(OpenError::Padding)?;
        if next_header == protocol::NO_NEXT_HEADER {
            return Err(OpenError::Dummy);
        }
        let start = start + layout.header();
        Ok((start..start + len, next_header))
    }

    fn account(&mut self, range: Range<usize>, newest: bool) -> Result<Opened, OpenError> {
        self.lifetime
            .admit(range.len())
            .map_err(|_| OpenError::HardLimit)?;
        let first = self.lifetime.usage().packets == 0;
        let soft_limit = self.lifetime.record(range.len());
        Ok(Opened {
            range,
            soft_limit,
            first,
            newest,
        })
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbound({:08x})", self.spi)
    }
}

#[cfg(test)]
mod tests;
