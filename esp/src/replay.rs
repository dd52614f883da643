//! The receive window, RFC 4303 section 3.4.3, over whole 64-bit sequence numbers, and the way
//! from the 32 bits on the wire to 64 (appendix A2).

//= rfc4303 3.4.3-1
//= security S-59
/// Sequence numbers seen: exact for the last `size` of them, "too old" before.
///
/// The bitmap is a ring of words, one word longer than the window, so that moving it forward
/// clears whole words and touches each at most once.
pub(crate) struct Window {
    top: u64,
    size: u64,
    words: Box<[u64]>,
}

impl Window {
    //= rfc4303 3.4.3-4
    /// A window of `size` packets, into which nothing has come yet.
    pub(crate) fn new(size: u32) -> Self {
        let words = (size as usize).div_ceil(64) + 1;
        let words = vec![0; words.next_power_of_two()].into_boxed_slice();
        Self {
            top: 0,
            size: u64::from(size),
            words,
        }
    }

    /// Whether the number is neither seen nor too old. Zero is never sent.
    pub(crate) fn is_fresh(&self, sequence: u64) -> bool {
        if sequence == 0 {
            return false;
        }
        if sequence > self.top {
            return true;
        }
        self.top - sequence < self.size && self.words[self.word(sequence)] & bit(sequence) == 0
    }

    /// Whether the number is higher than all that were seen.
    pub(crate) fn is_ahead(&self, sequence: u64) -> bool {
        sequence > self.top
    }

    //= rfc4303 3.4.3-5
    /// Marks a number as seen; only after its packet was authenticated. Returns what
    /// [`Window::is_fresh`] would have said before.
    pub(crate) fn commit(&mut self, sequence: u64) -> bool {
        if !self.is_fresh(sequence) {
            return false;
        }
        if sequence > self.top {
            self.advance(sequence);
        }
        let word = self.word(sequence);
        self.words[word] |= bit(sequence);
        true
    }

    //= rfc4303 2.2.1-1 A-1
    //= security S-53
    /// The whole sequence number for its low half, by RFC 4303 appendix A2.2: the one that lies
    /// in the window or else ahead of it. `None` if it would lie before 0 or beyond the last.
    pub(crate) fn extend(&self, low: u32) -> Option<u64> {
        let (th, tl) = (self.top >> 32, self.top as u32);
        let reach = self.size as u32 - 1;
        // Bottom of the window, modulo 2^32.
        let bottom = tl.wrapping_sub(reach);
        let high = if tl >= reach {
            if low >= bottom { th } else { th + 1 }
        } else if low >= bottom {
            th.checked_sub(1)?
        } else {
            th
        };
        (high <= u64::from(u32::MAX)).then_some(high << 32 | u64::from(low))
    }

    /// Clears the words between the old top and the new one.
    fn advance(&mut self, top: u64) {
        let first = (self.top >> 6) + 1;
        let last = top >> 6;
        let stale = (last + 1)
            .saturating_sub(first)
            .min(self.words.len() as u64);
        for word in last + 1 - stale..=last {
            let index = self.ring(word);
            self.words[index] = 0;
        }
        self.top = top;
    }

    fn word(&self, sequence: u64) -> usize {
        self.ring(sequence >> 6)
    }

    fn ring(&self, word: u64) -> usize {
        word as usize & (self.words.len() - 1)
    }
}

fn bit(sequence: u64) -> u64 {
    1 << (sequence & 63)
}

#[cfg(test)]
mod tests;
