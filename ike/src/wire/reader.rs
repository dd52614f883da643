//! A slice that shrinks as it is read: no payload code indexes into bytes.

/// Why bytes are not what they should be. Whoever sent them is to blame; what follows depends
/// on where they were met.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, thiserror::Error)]
pub enum Malformed {
    /// A field or a structure reaches beyond the end of what holds it.
    #[error("too short")]
    Truncated,
    /// Octets are left over after a structure's end.
    #[error("octets after the end")]
    Trailing,
    /// A length field contradicts the length of what it describes.
    #[error("wrong length")]
    Length,
    /// More elements than a message may have.
    #[error("too many elements")]
    TooMany,
    /// A "last" marker, a count or a number contradicts what follows it.
    #[error("inconsistent structure")]
    Inconsistent,
    /// A field has a value that its definition rules out.
    #[error("impossible value")]
    Value,
    /// An IKE major version other than 2.
    #[error("IKE version other than 2")]
    Version,
}

/// Reads big-endian fields from the front of a slice.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(Malformed::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[octet]| octet)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    //= rfc7296 2.5-6
    /// Passes over octets that are ignored on receipt.
    pub(crate) fn reserved(&mut self, len: usize) -> Result<(), Malformed> {
        self.bytes(len).map(drop)
    }

    /// A reader over the next `len` octets only.
    pub(crate) fn sub(&mut self, len: usize) -> Result<Self, Malformed> {
        self.bytes(len).map(Self)
    }

    /// A reader over a substructure whose 16-bit length field also counts the `read` octets
    /// up to and including that field.
    pub(crate) fn sub_counted(&mut self, length: u16, read: usize) -> Result<Self, Malformed> {
        let len = usize::from(length)
            .checked_sub(read)
            .ok_or(Malformed::Length)?;
        self.sub(len)
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Trailing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_big_endian_and_shrinks() {
        let mut r = Reader::new(&[1, 0, 2, 0, 0, 0, 3, 9, 9]);
        assert_eq!(r.u8(), Ok(1));
        assert_eq!(r.u16(), Ok(2));
        assert_eq!(r.u32(), Ok(3));
        assert_eq!(r.clone().finish(), Err(Malformed::Trailing));
        assert_eq!(r.rest(), [9, 9]);
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn a_failed_read_takes_nothing() {
        let mut r = Reader::new(&[7]);
        assert_eq!(r.u16(), Err(Malformed::Truncated));
        assert_eq!(r.bytes(2), Err(Malformed::Truncated));
        assert_eq!(r.u8(), Ok(7));
    }

    #[test]
    fn a_counted_substructure_cannot_be_shorter_than_its_head() {
        let mut r = Reader::new(&[1, 2, 3]);
        assert_eq!(r.sub_counted(3, 4).err(), Some(Malformed::Length));
        assert_eq!(r.sub_counted(8, 4).err(), Some(Malformed::Truncated));
        assert_eq!(r.sub_counted(6, 4).map(|mut s| s.rest().len()), Ok(2));
    }
}
