//! Counters that workers write and everyone reads: packets by SA, drops by reason.
//!
//! All are relaxed atomics: each is exact, and two read together need not fit each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use obol_esp::{OpenError, SealError};

use crate::dataplane::Usage;

/// Why a worker dropped a packet, where it is not `obol_esp` that says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    /// Came into the TUN and is not an IP packet.
    NotIp,
    /// Came into the TUN with a header that contradicts the packet.
    Offload,
    /// Came into the TUN and no policy is for it.
    NoPolicy,
    /// A policy is for it, and no SA.
    NoSa,
    /// The socket did not take the sealed packet.
    SendFailed,
    /// Came on port 4500 and is too short to be anything.
    ShortDatagram,
    /// ESP of no SA of ours.
    UnknownSpi,
    /// ESP that one worker got, and the one whose it is, is behind.
    PassedOn,
    /// The driver is behind: an IKE message is lost.
    IkeQueueFull,
    /// The TUN did not take the opened packet.
    TunWrite,
}

impl Reason {
    const NAMES: [&str; 10] = [
        "not-ip",
        "offload",
        "no-policy",
        "no-sa",
        "send-failed",
        "short-datagram",
        "unknown-spi",
        "worker-behind",
        "ike-queue-full",
        "tun-write",
    ];
}

/// Drops by reason.
#[derive(Debug, Default)]
pub(super) struct Drops {
    own: [AtomicU64; Reason::NAMES.len()],
    seal: [AtomicU64; SealError::ALL.len()],
    open: [AtomicU64; OpenError::ALL.len()],
}

impl Drops {
    /// Counts one drop of a worker.
    pub(super) fn count(&self, reason: Reason) {
        self.own[reason as usize].fetch_add(1, Relaxed);
    }

    /// Counts so many drops of a worker.
    pub(super) fn count_many(&self, reason: Reason, count: u64) {
        self.own[reason as usize].fetch_add(count, Relaxed);
    }

    /// Counts one packet that was not sealed.
    pub(super) fn seal(&self, error: SealError) {
        self.seal[error as usize].fetch_add(1, Relaxed);
    }

    /// Counts one packet that was not opened.
    pub(super) fn open(&self, error: OpenError) {
        self.open[error as usize].fetch_add(1, Relaxed);
    }

    /// Every reason with its count. A reason that both directions know is one.
    pub(super) fn read(&self) -> BTreeMap<&'static str, u64> {
        let own = Reason::NAMES.into_iter().zip(&self.own);
        let seal = SealError::ALL
            .iter()
            .map(|error| error.name())
            .zip(&self.seal);
        let open = OpenError::ALL
            .iter()
            .map(|error| error.name())
            .zip(&self.open);
        let mut all = BTreeMap::new();
        for (name, count) in own.chain(seal).chain(open) {
            *all.entry(name).or_default() += count.load(Relaxed);
        }
        all
    }
}

/// Milliseconds since the data plane began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    /// Begins.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds, at least 1.
    pub(super) fn millis(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).map_or(u64::MAX, |millis| millis.max(1))
    }
}

/// How much one SA pair was used.
#[derive(Debug, Default)]
pub(super) struct SaUsage {
    /// What was opened.
    pub(super) inbound: Direction,
    /// What was sealed.
    pub(super) outbound: Direction,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Direction {
    bytes: AtomicU64,
    packets: AtomicU64,
    last: AtomicU64,
}

impl Direction {
    /// Counts packets of so many bytes together. Only one thread writes a direction, so that no
    /// two additions meet.
    pub(super) fn count(&self, packets: usize, bytes: usize, now: u64) {
        let bytes = self.bytes.load(Relaxed).wrapping_add(bytes as u64);
        self.bytes.store(bytes, Relaxed);
        let packets = self.packets.load(Relaxed).wrapping_add(packets as u64);
        self.packets.store(packets, Relaxed);
        self.last.store(now, Relaxed);
    }

    fn ago(&self, now: u64) -> Option<Duration> {
        match self.last.load(Relaxed) {
            0 => None,
            last => Some(Duration::from_millis(now.saturating_sub(last))),
        }
    }
}

impl SaUsage {
    /// The figures so far.
    pub(super) fn read(&self, now: u64) -> Usage {
        Usage {
            bytes_in: self.inbound.bytes.load(Relaxed),
            packets_in: self.inbound.packets.load(Relaxed),
            bytes_out: self.outbound.bytes.load(Relaxed),
            packets_out: self.outbound.packets.load(Relaxed),
            last_in: self.inbound.ago(now),
            last_out: self.outbound.ago(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted_by_name() {
        let drops = Drops::default();
        drops.count(Reason::TunWrite);
        drops.seal(SealError::Selector);
        drops.open(OpenError::Selector);
        drops.open(OpenError::ALL[OpenError::ALL.len() - 1]);
        let read = drops.read();
        assert_eq!(read["tun-write"], 1);
        assert_eq!(read["selector"], 2);
        assert_eq!(read[OpenError::ALL[OpenError::ALL.len() - 1].name()], 1);
        assert_eq!(read.values().sum::<u64>(), 4);
    }

    #[test]
    fn an_sa_that_was_not_used_has_no_last_packet() {
        let usage = SaUsage::default();
        assert_eq!(usage.read(5), Usage::default());
        usage.inbound.count(1, 100, 2);
        let read = usage.read(5);
        assert_eq!((read.bytes_in, read.packets_in), (100, 1));
        assert_eq!(read.last_in, Some(Duration::from_millis(3)));
        assert_eq!(read.last_out, None);
    }
}
