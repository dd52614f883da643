//! The daemon's clock and its one timer. Both count the time a machine sleeps: an SA that is
//! too old after a suspend must be seen as too old at once.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Instants that go on while the machine sleeps (CLOCK_BOOTTIME).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Instant,
    boot: Duration,
}

impl Clock {
    /// A clock whose instants are comparable with those of `Instant::now` at this moment.
    pub(crate) fn start() -> Self {
        Self {
            base: Instant::now(),
            boot: boot_time(),
        }
    }

    /// The present. Never runs back.
    pub(crate) fn now(&self) -> Instant {
        self.base + boot_time().saturating_sub(self.boot)
    }
}

fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    // Boot time is never negative, and its nanoseconds are below one second.
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// One timer that fires at an instant of a [`Clock`].
pub(crate) struct Alarm {
    clock: Clock,
    timer: AsyncFd<OwnedFd>,
    /// When it will fire; `None`: not at all.
    armed: Cell<Option<Instant>>,
}

impl Alarm {
    /// Makes the timer; it belongs to the current tokio runtime.
    pub(crate) fn new(clock: Clock) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        Ok(Self {
            clock,
            timer: crate::sys::watch::watch(timer)?,
            armed: Cell::new(None),
        })
    }

    /// Fires at the deadline, or once before; `None`: not at all. Deadlines mostly move to later
    /// ones, and who wakes early sets it anew: that is cheaper than a system call for each.
    pub(crate) fn set(&self, deadline: Option<Instant>) -> io::Result<()> {
        let armed = self.armed.get();
        let in_time = |at: Instant| armed.is_some_and(|armed| armed <= at);
        if deadline.map_or(armed.is_none(), in_time) {
            return Ok(());
        }
        let wait = deadline.map(|at| {
            // Zero would disarm: a deadline that has passed fires after one nanosecond.
            at.saturating_duration_since(self.clock.now())
                .max(Duration::from_nanos(1))
        });
        let value = wait.map_or(
            Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            |wait| Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            },
        );
        let spec = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: value,
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
        self.armed.set(deadline);
        Ok(())
    }

    /// Resolves when the timer has fired; cancel safe.
    pub(crate) async fn fired(&self) {
        loop {
            let Ok(mut guard) = self.timer.readable().await else {
                return;
            };
            let mut count = [0u8; 8];
            match rustix::io::read(self.timer.get_ref(), &mut count) {
                Ok(_) => {
                    self.armed.set(None);
                    return;
                }
                Err(_) => guard.clear_ready(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_in_the_past_fires_at_once_and_a_disarmed_one_never() {
        let clock = Clock::start();
        let alarm = Alarm::new(clock).expect("a timer");
        alarm.set(Some(clock.now())).expect("armed");
        alarm.fired().await;
        alarm.set(None).expect("disarmed");
        let silent = tokio::time::timeout(Duration::from_millis(20), alarm.fired()).await;
        assert!(silent.is_err());
    }

    #[tokio::test]
    async fn a_deadline_that_moves_is_never_missed() {
        let clock = Clock::start();
        let alarm = Alarm::new(clock).expect("a timer");
        let (early, late) = (Duration::from_millis(1), Duration::from_secs(3600));
        alarm.set(Some(clock.now() + late)).expect("armed");
        alarm.set(Some(clock.now() + early)).expect("armed");
        // It may fire before, and then it is set anew.
        let deadline = clock.now() + 5 * early;
        alarm.set(Some(deadline)).expect("armed");
        alarm.fired().await;
        alarm.set(Some(deadline)).expect("armed");
        while clock.now() < deadline {
            alarm.fired().await;
            alarm.set(Some(deadline)).expect("armed");
        }
    }
}
