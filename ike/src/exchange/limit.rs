//! Bounds on what others can make us do: error notifies to strangers, work for one network, and
//! requests of one peer.

use std::time::{Duration, Instant};

/// How often something may happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Tokens at most in stock.
    burst: u32,
    /// One token is added in this time.
    refill: Duration,
}

/// Error notifies outside any IKE SA.
pub(crate) const STRANGERS: Rate = Rate::new(20, 50);
/// Key exchanges for one network, once cookies are asked for.
pub(crate) const NETWORK: Rate = Rate::new(200, 20);
/// IKE_SA_INIT replies that are looked into although there was one before: each costs a key
/// exchange.
pub(crate) const ANSWERS: Rate = Rate::new(2048, 2);
/// CREATE_CHILD_SA requests of one peer: each may cost a key exchange.
pub(crate) const CREATIONS: Rate = Rate::new(512, 250);
/// Requests of one peer of any kind.
pub(crate) const REQUESTS: Rate = Rate::new(1024, 10);

impl Rate {
    const fn new(burst: u32, refill_ms: u64) -> Self {
        Self {
            burst,
            refill: Duration::from_millis(refill_ms),
        }
    }
}

/// A token bucket.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    rate: Rate,
    tokens: u32,
    since: Option<Instant>,
}

impl Limit {
    /// A full bucket.
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            tokens: rate.burst,
            since: None,
        }
    }

    /// Takes a token; `false` if there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let added = now.saturating_duration_since(since).as_nanos() / self.rate.refill.as_nanos();
        let added = u32::try_from(added).unwrap_or(u32::MAX);
        if added > 0 {
            self.tokens = self.tokens.saturating_add(added).min(self.rate.burst);
            self.since = Some(now);
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= test rfc7296 2.4-5
    #[test]
    fn a_burst_passes_then_a_trickle() {
        let start = Instant::now();
        let mut limit = Limit::new(STRANGERS);
        let refill = STRANGERS.refill;
        assert_eq!((0..100).filter(|_| limit.take(start)).count(), 20);
        assert!(!limit.take(start + refill / 2));
        assert!(limit.take(start + refill));
        assert!(!limit.take(start + refill));
    }
}
