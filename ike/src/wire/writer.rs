//! Appends big-endian fields to a buffer, and fills in lengths and counts afterwards.

/// A structure does not fit its length or count field, so nothing was emitted that may be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("too long for its length field")]
pub struct TooLong;

/// Writes to the end of a buffer. What does not fit a length field is remembered and comes
/// back as an error from [`Writer::finish`], so payload code needs no error paths.
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    buf: &'b mut Vec<u8>,
    too_long: bool,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(buf: &'b mut Vec<u8>) -> Self {
        Self {
            buf,
            too_long: false,
        }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.buf.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, octets: &[u8]) {
        self.buf.extend_from_slice(octets);
    }

    //= rfc7296 2.5-6
    pub(crate) fn reserved(&mut self, len: usize) {
        self.buf.resize(self.buf.len() + len, 0);
    }

    /// A count or size that has one octet on the wire.
    pub(crate) fn count_u8(&mut self, count: usize) {
        let octet = u8::try_from(count).unwrap_or_else(|_| {
            self.too_long = true;
            u8::MAX
        });
        self.u8(octet);
    }

    /// A count that has two octets on the wire.
    pub(crate) fn count_u16(&mut self, count: usize) {
        let value = self.checked_u16(count);
        self.u16(value);
    }

    /// A 16-bit length field that counts from `before` octets ahead of itself to the end of
    /// what `content` writes. It holds all-ones until then: a half-written structure does not
    /// parse.
    pub(crate) fn length_u16(&mut self, before: usize, content: impl FnOnce(&mut Self)) {
        let field = self.buf.len();
        self.u16(u16::MAX);
        content(self);
        let length = self.checked_u16(before + self.buf.len() - field);
        let slot = self.buf.get_mut(field..field + 2);
        slot.expect("the field was written above, and writers only append")
            .copy_from_slice(&length.to_be_bytes());
    }

    /// Says whether every structure fitted its length field.
    ///
    /// # Errors
    /// [`TooLong`]: the buffer's content must not be sent.
    pub(crate) fn finish(self) -> Result<(), TooLong> {
        if self.too_long { Err(TooLong) } else { Ok(()) }
    }

    fn checked_u16(&mut self, value: usize) -> u16 {
        u16::try_from(value).unwrap_or_else(|_| {
            self.too_long = true;
            u16::MAX
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_counts_what_came_before_it_and_nests() {
        let mut buf = Vec::new();
        let mut w = Writer::new(&mut buf);
        w.u8(9);
        w.length_u16(1, |w| {
            w.u8(8);
            w.length_u16(1, |w| w.u32(5));
        });
        assert_eq!(w.finish(), Ok(()));
        assert_eq!(buf, [9, 0, 10, 8, 0, 7, 0, 0, 0, 5]);
    }

    #[test]
    fn a_structure_of_exactly_65535_octets_fits_and_one_more_does_not() {
        for (len, want) in [(65533, Ok(())), (65534, Err(TooLong))] {
            let mut buf = Vec::new();
            let mut w = Writer::new(&mut buf);
            w.length_u16(0, |w| w.reserved(len));
            assert_eq!(w.finish(), want, "{len}");
            assert_eq!(buf[..2], [0xff, 0xff]);
        }
    }

    #[test]
    fn counts_that_do_not_fit_are_reported() {
        for (count, want) in [(255, Ok(())), (256, Err(TooLong))] {
            let mut buf = Vec::new();
            let mut w = Writer::new(&mut buf);
            w.count_u8(count);
            assert_eq!(w.finish(), want, "{count}");
        }
    }
}
