//! Two threads for two directions, and which of them does what.
//!
//! As a rule the first one does both, and the second one sleeps: the answer to what is handed to the
//! TUN (an echo, an acknowledgement) is mostly in it when that call returns, and is sealed and sent
//! without anybody being woken. When both directions carry much, the second thread takes the outbound
//! one over, until either of them carries little again. That is found by counting octets, not by a
//! clock.
//!
//! What goes from thread to thread is the whole outbound worker, between two frames and with nothing
//! left in its row. So it is never used by two, packets leave in the order in which they were read,
//! and there is no lock.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use rustix::event::{EventfdFlags, PollFd, PollFlags};

use super::outbound::Worker;
use crate::dataplane::DataPlaneError;

/// Turns that are looked at together.
const TURNS: u32 = 16;
/// What each direction has to carry in so many turns for two threads to be worth it.
const MUCH: u64 = TURNS as u64 * (16 << 10);
/// When either carries less than this, one thread is enough.
const LITTLE: u64 = TURNS as u64 * (4 << 10);
/// What a frame or datagram costs as much as, in octets, besides its own.
const EACH: u64 = 512;

/// Work: octets, and what their frames cost.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Load {
    amount: u64,
    /// A full socket had to be waited for, which must not hold up the other direction.
    pub(super) waited: bool,
}

impl Load {
    /// Adds a frame or datagram of this length.
    pub(super) fn add(&mut self, octets: usize) {
        self.amount += octets as u64 + EACH;
    }

    /// Whether this much is enough for one turn.
    pub(super) fn fills_a_turn(&self) -> bool {
        self.amount >= 1 << 20
    }

    fn join(&mut self, other: Self) {
        self.amount += other.amount;
        self.waited |= other.waited;
    }
}

/// The first thread's end: it has the inbound worker, and mostly the outbound one too.
pub(super) struct Lead {
    outbound: Option<Box<Worker>>,
    /// `None`: the outbound worker has ended.
    to_second: Option<mpsc::Sender<Box<Worker>>>,
    back: mpsc::Receiver<Box<Worker>>,
    /// Wakes when the outbound worker comes back.
    wake: Arc<OwnedFd>,
    /// What the first thread had of inbound work, for the second to compare.
    inbound: Arc<AtomicU64>,
    balance: Balance,
    /// The TUN was found empty in this turn.
    emptied: bool,
}

/// The second thread's end.
pub(super) struct Second {
    from_lead: mpsc::Receiver<Box<Worker>>,
    back: mpsc::Sender<Box<Worker>>,
    wake: Arc<OwnedFd>,
    inbound: Arc<AtomicU64>,
}

/// What both directions had in the last turns.
#[derive(Default)]
struct Balance {
    turns: u32,
    inbound: u64,
    outbound: Load,
}

/// What the first thread waits for on behalf of the outbound worker.
pub(super) struct Awaited<'a> {
    /// Commands, or its return.
    pub(super) orders: Option<BorrowedFd<'a>>,
    /// Frames.
    pub(super) tun: Option<BorrowedFd<'a>>,
}

/// The ends of two threads.
///
/// # Errors
/// The system has no descriptor for us.
pub(super) fn pair() -> Result<(Lead, Second), DataPlaneError> {
    let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
    let wake = rustix::event::eventfd(0, flags)
        .map_err(|error| DataPlaneError::system("cannot start the workers", error))?;
    let wake = Arc::new(wake);
    let inbound = Arc::new(AtomicU64::new(0));
    let (to_second, from_lead) = mpsc::channel();
    let (to_lead, back) = mpsc::channel();
    let lead = Lead {
        outbound: None,
        to_second: Some(to_second),
        back,
        wake: wake.clone(),
        inbound: inbound.clone(),
        balance: Balance::default(),
        emptied: false,
    };
    let second = Second {
        from_lead,
        back: to_lead,
        wake,
        inbound,
    };
    Ok((lead, second))
}

impl Lead {
    /// What to wait for.
    pub(super) fn awaited(&self) -> Awaited<'_> {
        match &self.outbound {
            Some(worker) => Awaited {
                orders: Some(worker.orders()),
                tun: worker.tun(),
            },
            None => Awaited {
                orders: self.to_second.is_some().then(|| self.wake.as_fd()),
                tun: None,
            },
        }
    }

    /// Has the outbound worker obey, or takes it back.
    pub(super) fn obey(&mut self, now: u64) {
        if let Some(worker) = &mut self.outbound {
            if !worker.obey_all(now) {
                self.outbound = None;
                self.to_second = None;
            }
            return;
        }
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        self.outbound = self.back.try_recv().ok();
        self.balance = Balance::default();
    }

    /// Seals and sends what is in the TUN, if that is for this thread to do.
    pub(super) fn turn_around(&mut self, now: u64) {
        if let Some(worker) = &mut self.outbound {
            let (load, emptied) = worker.drain(now);
            self.balance.outbound.join(load);
            self.emptied = emptied;
        }
    }

    /// The end of a turn, in which so much came in; `readable`: so was the TUN, at its start.
    pub(super) fn end_turn(&mut self, inbound: Load, readable: bool, now: u64) {
        if readable && !self.emptied {
            self.turn_around(now);
        }
        self.emptied = false;
        if self.outbound.is_none() {
            self.inbound.fetch_add(inbound.amount, Ordering::Relaxed);
            return;
        }
        self.balance.inbound += inbound.amount;
        if self.balance.asks_for_two() {
            self.hand_over();
        }
        self.balance.count_turn();
    }

    fn hand_over(&mut self) {
        if let (Some(worker), Some(second)) = (self.outbound.take(), &self.to_second)
            && let Err(mpsc::SendError(worker)) = second.send(worker)
        {
            // Without the second thread the first one goes on with all of it.
            self.outbound = Some(worker);
        }
    }
}

impl Balance {
    fn asks_for_two(&self) -> bool {
        self.outbound.waited || self.inbound.min(self.outbound.amount) >= MUCH
    }

    /// Counts a turn; after enough of them it begins anew.
    fn count_turn(&mut self) {
        self.turns += 1;
        if self.turns >= TURNS {
            *self = Self::default();
        }
    }
}

impl Second {
    /// Gives the first thread the worker, and takes it whenever there is enough to do for two.
    pub(super) fn run(self, worker: Worker) {
        self.give_back(Box::new(worker));
        while let Ok(mut worker) = self.from_lead.recv() {
            if !self.work(&mut worker) {
                return;
            }
            self.give_back(worker);
        }
    }

    fn give_back(&self, worker: Box<Worker>) {
        // Without the first thread the outbound worker ends too, and its commander learns that.
        if self.back.send(worker).is_ok() {
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Works while both directions carry much; `false`: the worker has ended.
    fn work(&self, worker: &mut Worker) -> bool {
        let mut before = self.inbound.load(Ordering::Relaxed);
        let mut outbound = Load::default();
        let mut turns = 0;
        loop {
            let (commanded, readable) = wait(worker);
            let now = worker.millis();
            if commanded && !worker.obey_all(now) {
                return false;
            }
            if readable {
                outbound.join(worker.drain(now).0);
            }
            turns += 1;
            if turns < TURNS {
                continue;
            }
            let inbound = self.inbound.load(Ordering::Relaxed);
            let least = outbound.amount.min(inbound.wrapping_sub(before));
            if least < LITTLE && !outbound.waited {
                return true;
            }
            (before, outbound, turns) = (inbound, Load::default(), 0);
        }
    }
}

/// Waits for commands and for frames; which of them there are.
fn wait(worker: &Worker) -> (bool, bool) {
    let orders = PollFd::from_borrowed_fd(worker.orders(), PollFlags::IN);
    let tun = worker.tun();
    let frames = tun.map(|tun| PollFd::from_borrowed_fd(tun, PollFlags::IN));
    let used = 1 + usize::from(frames.is_some());
    let mut fds = [orders.clone(), frames.unwrap_or(orders)];
    if let Err(error) = rustix::event::poll(&mut fds[..used], None) {
        // A signal for this thread; the next turn waits again.
        tracing::debug!(%error, "poll");
    }
    let [commanded, readable] = fds.map(|fd| !fd.revents().is_empty());
    (commanded, readable && used > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(frames: usize, octets: usize) -> Load {
        let mut load = Load::default();
        (0..frames).for_each(|_| load.add(octets));
        load
    }

    /// Whether turns like these ask for two threads.
    fn asks(turns: u32, inbound: Load, outbound: Load) -> bool {
        let mut balance = Balance::default();
        (0..turns).any(|_| {
            balance.inbound += inbound.amount;
            balance.outbound.join(outbound);
            let asks = balance.asks_for_two();
            balance.count_turn();
            asks
        })
    }

    #[test]
    fn two_threads_are_for_two_directions_that_carry_much() {
        let (stream, acknowledgements) = (load(1, 64_000), load(3, 60));
        assert!(!asks(1000, stream, acknowledgements));
        assert!(!asks(1000, acknowledgements, stream));
        assert!(!asks(1000, load(1, 100), load(1, 100)), "echoes");
        assert!(!asks(1000, load(64, 64), load(2, 64)), "a flood one way");
        assert!(asks(TURNS, stream, stream));
        assert!(asks(TURNS, load(64, 64), load(64, 64)), "a flood each way");
    }

    #[test]
    fn who_had_to_wait_for_a_socket_does_not_do_the_other_direction_too() {
        let waited = Load {
            waited: true,
            ..load(1, 100)
        };
        assert!(asks(1, Load::default(), waited));
    }
}
