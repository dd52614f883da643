//! A bound on what goes to strangers: error notifies outside any IKE SA.

use std::time::{Duration, Instant};

/// Tokens at most in stock.
const BURST: u32 = 20;
/// One token is added in this time.
const REFILL: Duration = Duration::from_millis(50);

/// A token bucket.
#[derive(Debug)]
pub(crate) struct Limit {
    tokens: u32,
    since: Option<Instant>,
}

impl Limit {
    /// A full bucket.
    pub(crate) fn new() -> Self {
        Self {
            tokens: BURST,
            since: None,
        }
    }

    //= rfc7296 2.4-5
    //= security S-32
    /// Takes a token; `false` if there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let added = now.saturating_duration_since(since).as_nanos() / REFILL.as_nanos();
        let added = u32::try_from(added).unwrap_or(u32::MAX);
        if added > 0 {
            self.tokens = self.tokens.saturating_add(added).min(BURST);
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
        let mut limit = Limit::new();
        assert_eq!((0..100).filter(|_| limit.take(start)).count(), 20);
        assert!(!limit.take(start + REFILL / 2));
        assert!(limit.take(start + REFILL));
        assert!(!limit.take(start + REFILL));
    }
}
