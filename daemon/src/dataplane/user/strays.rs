//! Packets that one inbound worker received and another one has the SA of: in a row that a socket
//! hands over there can be packets of several SAs, and it is the first that decides who gets the row.
//! Whoever sends us packets can fill this store, so it is small.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::EventfdFlags;

use super::early::Held;
use crate::dataplane::DataPlaneError;

/// Octets that may wait for one worker.
const OCTETS: usize = 1 << 20;
/// What a packet takes besides its octets.
const PACKET: usize = 256;

/// The store: a box for each worker.
pub(super) struct Strays(Vec<Letterbox>);

struct Letterbox {
    waiting: Mutex<Waiting>,
    wake: OwnedFd,
}

#[derive(Default)]
struct Waiting {
    packets: Vec<Held>,
    octets: usize,
}

impl Strays {
    /// For so many workers.
    ///
    /// # Errors
    /// The system has no descriptors for us.
    pub(super) fn new(workers: usize) -> Result<Self, DataPlaneError> {
        let letterbox = || {
            let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
            Ok(Letterbox {
                waiting: Mutex::default(),
                wake: rustix::event::eventfd(0, flags)?,
            })
        };
        let all: rustix::io::Result<Vec<_>> = (0..workers).map(|_| letterbox()).collect();
        all.map(Self)
            .map_err(|error| DataPlaneError::system("cannot start the workers", error))
    }

    /// Passes a packet on; whether there was room.
    pub(super) fn pass_on(&self, to: usize, packet: Held) -> bool {
        let Some(letterbox) = self.0.get(to) else {
            return false;
        };
        let mut waiting = letterbox.lock();
        let octets = packet.octets.len() + PACKET;
        if waiting.octets + octets > OCTETS {
            return false;
        }
        waiting.octets += octets;
        waiting.packets.push(packet);
        if waiting.packets.len() == 1 {
            // It fails only if the counter is full, and then the worker has been woken already.
            let _ = rustix::io::write(&letterbox.wake, &1_u64.to_ne_bytes());
        }
        true
    }

    /// What was passed on to this worker, in order.
    pub(super) fn take(&self, own: usize) -> Vec<Held> {
        let Some(letterbox) = self.0.get(own) else {
            return Vec::new();
        };
        let mut waiting = letterbox.lock();
        let _ = rustix::io::read(&letterbox.wake, &mut [0; 8]);
        waiting.octets = 0;
        std::mem::take(&mut waiting.packets)
    }

    /// Readable while something waits for this worker.
    pub(super) fn fd(&self, own: usize) -> Option<BorrowedFd<'_>> {
        self.0.get(own).map(|letterbox| letterbox.wake.as_fd())
    }
}

impl Letterbox {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // Whoever panicked left whole packets.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::early::tests::held;
    use super::*;

    #[test]
    fn packets_are_passed_on_in_order_and_not_too_many() {
        let strays = Strays::new(2).unwrap();
        assert!(strays.pass_on(1, held(7, 10)) && strays.pass_on(1, held(8, 10)));
        assert!(strays.take(0).is_empty());
        let spis: Vec<u32> = strays.take(1).iter().map(|held| held.spi).collect();
        assert_eq!(spis, [7, 8]);
        assert!(strays.take(1).is_empty());
        let fit = (0..100).filter(|_| strays.pass_on(0, held(1, 60_000)));
        assert_eq!(fit.count(), OCTETS / (60_000 + PACKET));
        assert!(strays.pass_on(1, held(1, 60_000)), "each has its own");
        assert!(!strays.pass_on(2, held(1, 10)));
        strays.take(0);
        assert!(strays.pass_on(0, held(1, 60_000)));
    }
}
