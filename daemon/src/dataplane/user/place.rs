//! Which of several workers of a direction does what. A child can have several SAs at once, each for
//! one queue (RFC 9611): worker *k* of *n* has those whose queue is *k* modulo *n*.

use crate::sys::steer;

/// A worker among those of its direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    own: usize,
    workers: usize,
}

impl Place {
    /// Most workers of a direction: a word has a bit for each.
    pub(super) const MOST: usize = u64::BITS as usize;

    /// Number `own` of so many, at least one and at most [`Place::MOST`].
    pub(super) fn new(own: usize, workers: usize) -> Self {
        Self {
            own,
            workers: workers.clamp(1, Self::MOST),
        }
    }

    /// Its number.
    pub(super) fn own(self) -> usize {
        self.own
    }

    /// The worker that sends on an SA for this queue, and whose queue of the TUN takes what was
    /// opened.
    pub(super) fn of_queue(self, queue: u16) -> usize {
        usize::from(queue) % self.workers
    }

    /// The worker that opens packets of this SPI.
    pub(super) fn of_spi(self, spi: u32) -> usize {
        steer::worker_of(spi, self.workers)
    }
}

/// A set of workers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Workers(u64);

impl Workers {
    /// With this one in it.
    pub(super) fn with(self, worker: usize) -> Self {
        Self(self.0 | 1 << worker)
    }

    /// Without this one.
    pub(super) fn without(self, worker: usize) -> Self {
        Self(self.0 & !(1 << worker))
    }

    /// Whether this one is in it.
    pub(super) fn has(self, worker: usize) -> bool {
        self.0 >> worker & 1 == 1
    }

    /// Whether all of the others are in it.
    pub(super) fn has_all(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }
}
