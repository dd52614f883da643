//! Sealed packets in a row, as the kernel sends them with one call: back to back, all as long as
//! the first one, but for the last, which may be shorter.

/// Longest row in octets: what a UDP datagram over IPv4 can hold, since the kernel checks a row
/// like one.
const MAX_LEN: usize = 65_535 - 20 - 8;
/// Most packets in a row: UDP_MAX_SEGMENTS of kernels before 6.9.
const MAX_COUNT: usize = 64;

/// Sealed packets in a row.
#[derive(Debug)]
pub struct Run {
    octets: Box<[u8]>,
    len: usize,
    /// Octets of each but the last.
    segment: usize,
    count: usize,
    /// The last one is shorter: none can follow.
    closed: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            octets: vec![0; MAX_LEN].into_boxed_slice(),
            len: 0,
            segment: 0,
            count: 0,
            closed: false,
        }
    }
}

impl Run {
    /// Whether a packet of `len` octets can follow those that are there.
    pub fn takes(&self, len: usize) -> bool {
        let fits = self.len + len <= self.octets.len();
        fits && (self.count == 0 || !self.closed && len <= self.segment && self.count < MAX_COUNT)
    }

    /// The place of the next packet, which [`takes`](Self::takes) allows; it counts once it is
    /// [kept](Self::keep).
    pub(crate) fn place(&mut self, len: usize) -> &mut [u8] {
        &mut self.octets[self.len..self.len + len]
    }

    /// Keeps the packet of `len` octets that was written to the next place.
    pub(crate) fn keep(&mut self, len: usize) {
        if self.count == 0 {
            self.segment = len;
        }
        self.closed = len < self.segment;
        self.len += len;
        self.count += 1;
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Octets of each but the last.
    pub fn segment(&self) -> usize {
        self.segment
    }

    /// All of them, back to back.
    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    /// Each by itself.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.octets().chunks(self.segment.max(1))
    }

    /// Makes room for others.
    pub fn clear(&mut self) {
        (self.len, self.segment, self.count, self.closed) = (0, 0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lens: &[usize]) -> Run {
        let mut run = Run::default();
        for len in lens {
            assert!(run.takes(*len), "{len} of {lens:?}");
            run.place(*len).fill(7);
            run.keep(*len);
        }
        run
    }

    #[test]
    fn a_shorter_packet_is_the_last_one() {
        let mut run = run(&[100, 100, 60]);
        assert!(!run.takes(60) && !run.takes(100));
        assert_eq!(
            (run.count(), run.segment(), run.octets().len()),
            (3, 100, 260)
        );
        let lens: Vec<usize> = run.packets().map(<[u8]>::len).collect();
        assert_eq!(lens, [100, 100, 60]);
        run.clear();
        assert!(run.is_empty() && run.takes(101));
    }

    #[test]
    fn a_longer_packet_does_not_follow() {
        assert!(!run(&[100]).takes(101));
        assert!(run(&[100]).takes(100));
    }

    #[test]
    fn a_row_is_no_longer_than_the_kernel_takes() {
        let mut run = run(&vec![1000; MAX_COUNT]);
        assert!(!run.takes(1000));
        run.clear();
        let run = self::run(&[30_000, 30_000]);
        assert!(run.takes(MAX_LEN - 60_000) && !run.takes(MAX_LEN - 60_000 + 1));
    }
}
