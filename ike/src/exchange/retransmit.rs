//! When a request goes out again, RFC 7296 sections 2.1 and 2.4.

use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::config::{DpdRetry, Settings};

/// No two transmissions of one request are further apart than this.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// Transmissions without answer after which other paths are tried.
const LATE: u32 = 3;
/// Jitter in per cent, so that many SAs with one dead peer do not retransmit in step.
const JITTER_PERCENT: u32 = 20;

/// The schedule of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retransmit {
    first: Instant,
    due: Instant,
    interval: Duration,
    tries: u32,
    /// Transmissions in another form, before the schedule began anew.
    before: u32,
    /// It asks for a sign of life, at distances of its own.
    probe: Option<DpdRetry>,
}

/// What to do when a schedule is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Send the same octets again.
    Again,
    /// The peer is dead: `tries` requests in `after` had no answer.
    Dead { tries: u32, after: Duration },
}

impl Retransmit {
    /// For a request that goes out at `now`, or for a probe of a connection that says how often.
    pub(crate) fn start(
        now: Instant,
        settings: &Settings,
        probe: Option<DpdRetry>,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let interval = probe.map_or(settings.retransmit_timeout, |probe| probe.after);
        Self {
            first: now,
            due: now + crate::timer::jittered(interval, JITTER_PERCENT, rng),
            interval,
            tries: 1,
            before: 0,
            probe,
        }
    }

    //= rfc7383 2.5.2-3
    /// The request goes out in another form at `now`, and the schedule begins anew: RFC 7383
    /// section 2.5.2.
    pub(crate) fn restart(&mut self, now: Instant, settings: &Settings, rng: &mut dyn CryptoRng) {
        *self = Self {
            first: self.first,
            before: self.before + self.tries,
            ..Self::start(now, settings, self.probe, rng)
        };
    }

    /// How often the request went out in its present form.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// Whether it has gone out so often without answer that the path seems dead.
    pub(crate) fn is_late(&self) -> bool {
        self.before + self.tries >= LATE
    }

    /// Whether it went out an odd number of times.
    pub(crate) fn is_odd(&self) -> bool {
        self.tries % 2 == 1
    }

    /// When the next step is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    //= rfc7296 2.4-6
    //= security S-8
    /// The step that is due at `now`.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        settings: &Settings,
        rng: &mut dyn CryptoRng,
    ) -> Step {
        let (most, base) = match self.probe {
            Some(probe) => (probe.tries, 1.0),
            None => (
                settings.retransmit_tries.saturating_add(1),
                settings.retransmit_base,
            ),
        };
        if self.tries >= most {
            return self.dead(now);
        }
        self.tries += 1;
        let grown = self.interval.as_secs_f64() * base.max(1.0);
        self.interval = Duration::from_secs_f64(grown.min(LONGEST_INTERVAL.as_secs_f64()));
        self.due = now + crate::timer::jittered(self.interval, JITTER_PERCENT, rng);
        Step::Again
    }

    /// The verdict of a peer that did not answer until `now`.
    pub(crate) fn dead(&self, now: Instant) -> Step {
        Step::Dead {
            tries: self.before + self.tries,
            after: now.saturating_duration_since(self.first),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    //= test rfc7296 2.4-6
    #[test]
    fn intervals_grow_and_end_after_the_configured_tries() {
        let settings = Settings {
            retransmit_tries: 3,
            ..Settings::default()
        };
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        let start = Instant::now();
        let mut schedule = Retransmit::start(start, &settings, None, &mut rng);
        let mut last = start;
        let mut gaps = Vec::new();
        for _ in 0..3 {
            let due = schedule.due();
            gaps.push(due - last);
            last = due;
            assert_eq!(schedule.step(due, &settings, &mut rng), Step::Again);
        }
        assert!(gaps.windows(2).all(|pair| pair[1] > pair[0]), "{gaps:?}");
        let due = schedule.due();
        assert_eq!(
            schedule.step(due, &settings, &mut rng),
            Step::Dead {
                tries: 4,
                after: due - start
            }
        );
    }

    #[test]
    fn a_probe_goes_out_at_its_own_distances_so_many_times_in_all() {
        let settings = Settings::default();
        let after = Duration::from_secs(5);
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        let start = Instant::now();
        for tries in [1, 5] {
            let probe = Some(DpdRetry { after, tries });
            let mut schedule = Retransmit::start(start, &settings, probe, &mut rng);
            for _ in 1..tries {
                let due = schedule.due();
                assert_eq!(schedule.step(due, &settings, &mut rng), Step::Again);
                assert!(schedule.due() - due <= after && schedule.due() - due >= after * 4 / 5);
            }
            let due = schedule.due();
            let dead = Step::Dead {
                tries,
                after: due - start,
            };
            assert_eq!(schedule.step(due, &settings, &mut rng), dead);
        }
    }
}
