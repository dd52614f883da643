//! The send counter, RFC 4303 section 3.3.3: from 1 upwards, never the same number twice.

use crate::error::SealError;

/// Hands out sequence numbers.
pub(crate) struct SendCounter {
    next: u64,
    last: u64,
    soft: u64,
}

impl SendCounter {
    //= rfc4303 2.2.1-1
    /// A counter of 64 bits with ESN, of 32 without. It asks for a successor when half of the
    /// numbers are used.
    pub(crate) fn new(esn: bool) -> Self {
        let last = if esn { u64::MAX } else { u64::from(u32::MAX) };
        Self {
            next: 1,
            last,
            soft: last / 2 + 1,
        }
    }

    //= rfc4303 2.2-1 2.2-5 3.3.3-1
    //= security S-52
    /// The next number, used up by this call, and whether it is the one at which to ask for a
    /// successor.
    ///
    /// # Errors
    /// The number after it would cycle: with the last one kept back, it never can.
    pub(crate) fn take(&mut self) -> Result<(u64, bool), SealError> {
        let sequence = self.next;
        if sequence >= self.last {
            return Err(SealError::CounterExhausted);
        }
        self.next += 1;
        Ok((sequence, sequence == self.soft))
    }

    #[cfg(test)]
    pub(crate) fn jump(&mut self, next: u64) {
        self.next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= test rfc4303 2.2-1
    //= test security S-52
    #[test]
    fn the_first_number_is_one() {
        assert_eq!(SendCounter::new(false).take(), Ok((1, false)));
        assert_eq!(SendCounter::new(true).take(), Ok((1, false)));
    }

    //= test rfc4303 2.2-5 3.3.3-1
    //= test security S-52
    #[test]
    fn without_esn_it_stops_before_the_last_number_and_asks_at_half() {
        let mut counter = SendCounter::new(false);
        counter.jump((1 << 31) - 1);
        assert_eq!(counter.take(), Ok(((1 << 31) - 1, false)));
        assert_eq!(counter.take(), Ok((1 << 31, true)));
        assert_eq!(counter.take(), Ok(((1 << 31) + 1, false)));
        counter.jump((1 << 32) - 2);
        assert_eq!(counter.take(), Ok(((1 << 32) - 2, false)));
        for _ in 0..3 {
            assert_eq!(counter.take(), Err(SealError::CounterExhausted));
        }
    }

    //= test rfc4303 2.2.1-1
    #[test]
    fn with_esn_it_goes_on_beyond_32_bits() {
        let mut counter = SendCounter::new(true);
        counter.jump((1 << 32) - 1);
        assert_eq!(counter.take(), Ok(((1 << 32) - 1, false)));
        assert_eq!(counter.take(), Ok((1 << 32, false)));
        counter.jump(u64::MAX);
        assert_eq!(counter.take(), Err(SealError::CounterExhausted));
    }
}
