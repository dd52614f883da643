//! Deadlines have names, so that logs and tests can say what an endpoint waits for.

use std::time::{Duration, Instant};

/// What happens at a deadline.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub enum TimerKind {
    /// A request goes out again, or its peer counts as dead.
    Retransmit,
    /// A half-open IKE SA is forgotten.
    HalfOpen,
    /// The IKE SA is rekeyed.
    RekeyIke,
    /// The IKE SA is closed because it was not rekeyed, or its peer not proven anew.
    IkeOver,
    /// The peer is to be proven anew.
    Reauth,
    /// An IKE SA is closed because a new one has taken over.
    Retire,
    /// A Child SA is rekeyed.
    RekeyChild,
    /// It is looked whether anything uses a Child SA.
    Inactivity,
    /// A Child SA is at the end of its life.
    ChildLife,
    /// New packets begin to use a rekeyed Child SA.
    SwitchOutbound,
    /// An exchange that the peer refused for the moment is tried again.
    TryAgain,
    /// An idle peer is asked whether it lives.
    Liveness,
    /// A NAT mapping is kept alive.
    Keepalive,
    /// A message of which not all fragments came is given up.
    Fragments,
    /// A connection is started, or started again.
    Start,
    /// A ticket for another IKE SA is asked for, before the one that is here is too old.
    Ticket,
    /// Tickets, or keys that made some, are too old to be kept.
    TicketsOver,
    /// A shutdown stops waiting for peers.
    Shutdown,
}

/// A deadline and its name.
pub(crate) type Deadline = (Instant, TimerKind);

/// The earlier of two deadlines, either of which may be absent.
pub(crate) fn earlier(a: Option<Deadline>, b: Option<Deadline>) -> Option<Deadline> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// `time` less up to `percent` per cent, so that peers and SAs do not act in step. Any time will
/// do, also one that means never.
pub(crate) fn jittered(
    time: Duration,
    percent: u32,
    rng: &mut dyn rand_core::CryptoRng,
) -> Duration {
    let share = f64::from(rng.next_u32()) / f64::from(u32::MAX);
    let most = (time / 100).saturating_mul(percent);
    time.saturating_sub(most.mul_f64(share))
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    //= test rfc7296 2.8.1-1
    #[test]
    fn jitter_shortens_within_its_share_and_takes_any_time() {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        for _ in 0..1000 {
            let time = jittered(Duration::from_secs(100), 10, &mut rng);
            assert!((90.0..=100.0).contains(&time.as_secs_f64()), "{time:?}");
            assert!(
                jittered(Duration::MAX, 50, &mut rng) >= Duration::MAX / 2 - Duration::from_secs(1)
            );
            assert_eq!(jittered(Duration::ZERO, 50, &mut rng), Duration::ZERO);
        }
    }
}
