//! SAs that were replaced, and whose last packets may still be on their way, or wait in a socket of
//! ours: the message that ends an SA overtakes them. Their inbound half is kept a little longer. An
//! SA that is ended while no newer one carries its flow ends at once: its flow is closed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::time::Timespec;

use crate::dataplane::DRAIN;
use crate::dataplane::flow::{Ended, Flow, Flows};

/// Which SAs carry which flow, by SPI, for all workers: an SA and its successor can be different
/// workers'.
#[derive(Default)]
pub(super) struct SharedFlows(Mutex<Flows<u32>>);

/// SAs that were replaced and that a worker still keeps.
#[derive(Default)]
pub(super) struct Waning {
    /// SPIs with the time of their end, in milliseconds, soonest first.
    kept: VecDeque<(u64, u32)>,
}

impl SharedFlows {
    /// An SA carries this flow from now on.
    pub(super) fn begin(&self, flow: Arc<Flow>, spi: u32) {
        self.with(|flows| flows.begin(flow, spi));
    }

    /// An SA does not carry its flow any more; whether a newer one does.
    pub(super) fn end(&self, flow: &Flow, spi: u32) -> bool {
        self.with(|flows| flows.end(flow, spi)) == Some(Ended::Succeeded)
    }

    fn with<T>(&self, step: impl FnOnce(&mut Flows<u32>) -> T) -> T {
        // No step in between is of harm to anyone.
        step(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Waning {
    /// Keeps an SA that has a successor.
    pub(super) fn keep(&mut self, spi: u32, now: u64) {
        let drain = u64::try_from(DRAIN.as_millis()).unwrap_or(u64::MAX);
        self.kept.push_back((now.saturating_add(drain), spi));
    }

    /// The next SA whose time is over.
    pub(super) fn expire(&mut self, now: u64) -> Option<u32> {
        let (until, spi) = *self.kept.front()?;
        if until > now {
            return None;
        }
        self.kept.pop_front();
        Some(spi)
    }

    /// How long to wait until it is seen whether a time is over; `None`: nothing is kept.
    pub(super) fn patience(&self) -> Option<&'static Timespec> {
        const WAIT: Timespec = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        (!self.kept.is_empty()).then_some(&WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_for_a_while_only() {
        let mut waning = Waning::default();
        assert!(waning.patience().is_none());
        waning.keep(1, 1_000);
        waning.keep(2, 2_000);
        assert!(waning.patience().is_some());
        let over = DRAIN.as_millis() as u64;
        assert_eq!(waning.expire(999 + over), None);
        assert_eq!(waning.expire(1_000 + over), Some(1));
        assert_eq!(waning.expire(1_000 + over), None);
        assert_eq!(waning.expire(9_000 + over), Some(2));
        assert!(waning.patience().is_none());
    }
}
