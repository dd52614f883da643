//! Packets that came a little before their SA: the first ones of a responder can overtake its
//! last message, which tells us of the SA. Whoever sends us packets can fill this store, so it is
//! small, and what does not fit is dropped as it would be without.

use std::collections::VecDeque;

use rustix::time::Timespec;

use crate::sys::msg::Received;

/// Milliseconds after which a packet is not waited for any more. A busy or slow machine takes some
/// hundred to work through the message that an SA comes from.
const PATIENCE: u64 = 1000;
/// Packets held.
const PACKETS: usize = 16;
/// Octets held.
const OCTETS: usize = 64 << 10;

/// The store.
#[derive(Default)]
pub(super) struct Early {
    held: VecDeque<Held>,
    octets: usize,
}

/// A packet.
pub(super) struct Held {
    pub(super) spi: u32,
    since: u64,
    /// From the SPI to the ICV.
    pub(super) octets: Vec<u8>,
    pub(super) received: Received,
    /// The port of ours, in UDP.
    pub(super) port: Option<u16>,
}

impl Held {
    /// A copy of a packet that came at this time.
    pub(super) fn new(
        spi: u32,
        octets: &[u8],
        received: Received,
        port: Option<u16>,
        now: u64,
    ) -> Self {
        Self {
            spi,
            since: now,
            octets: octets.to_vec(),
            received,
            port,
        }
    }
}

impl Early {
    /// Holds a packet of an SPI that is not known; whether there was room.
    pub(super) fn hold(
        &mut self,
        spi: u32,
        octets: &[u8],
        received: Received,
        port: Option<u16>,
        now: u64,
    ) -> bool {
        if self.held.len() == PACKETS || self.octets + octets.len() > OCTETS {
            return false;
        }
        self.octets += octets.len();
        let packet = Held::new(spi, octets, received, port, now);
        self.held.push_back(packet);
        true
    }

    /// The packets of this SPI, in order.
    pub(super) fn take(&mut self, spi: u32) -> Vec<Held> {
        let (taken, rest): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| held.spi == spi);
        self.held = rest.into();
        self.count();
        taken
    }

    /// What has waited for too long, which is forgotten.
    pub(super) fn expire(&mut self, now: u64) -> Vec<Held> {
        let (late, rest): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| now.saturating_sub(held.since) >= PATIENCE);
        self.held = rest.into();
        self.count();
        late
    }

    /// How long to wait until something may be forgotten; `None`: nothing is held.
    pub(super) fn patience(&self) -> Option<&'static Timespec> {
        const WAIT: Timespec = Timespec {
            tv_sec: (PATIENCE / 1000) as i64,
            tv_nsec: (PATIENCE % 1000) as i64 * 1_000_000,
        };
        (!self.held.is_empty()).then_some(&WAIT)
    }

    fn count(&mut self) {
        self.octets = self.held.iter().map(|held| held.octets.len()).sum();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn held(spi: u32, len: usize) -> Held {
        Held::new(spi, &vec![0; len], received(), Some(4500), 1)
    }

    fn received() -> Received {
        Received {
            len: 0,
            segment: None,
            source: "192.0.2.1:4500".parse().unwrap(),
            local: None,
            tos: 0,
            ttl: 64,
        }
    }

    #[test]
    fn little_is_held_and_not_for_long() {
        let mut early = Early::default();
        assert!(early.patience().is_none());
        let fits = (0..100).filter(|n| early.hold(*n, b"packet", received(), None, 1));
        assert_eq!(fits.count(), PACKETS);
        assert!(early.patience().is_some());
        assert_eq!(early.take(3).len(), 1);
        assert_eq!(early.take(3).len(), 0);
        assert_eq!(early.expire(PATIENCE).len(), 0);
        assert_eq!(early.expire(PATIENCE + 1).len(), PACKETS - 1);

        let long = vec![0; 40_000];
        assert!(early.hold(1, &long, received(), Some(4500), 2));
        assert!(!early.hold(1, &long, received(), Some(4500), 2));
        assert_eq!(early.take(1)[0].octets.len(), 40_000);
        assert!(early.hold(1, &long, received(), Some(4500), 2));
    }
}
