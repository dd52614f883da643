//! Netlink attributes as nf_tables takes them: numbers in network byte order.

/// Octets of an attribute header: length and type.
const HEADER: usize = 4;
/// The attribute holds attributes.
const NESTED: u16 = 0x8000;
/// Bits of the type that are its number.
const KIND: u16 = 0x3fff;

/// A list of attributes under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// The octets so far, padded to a multiple of four.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Adds octets as they are.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // Names, addresses and lists of a handful of expressions: far from 64 KiB.
        let len = u16::try_from(HEADER + value.len()).expect("an attribute below 64 KiB");
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a number.
    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds a number.
    pub(crate) fn put_u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds a name with the zero octet that ends it.
    pub(crate) fn put_name(&mut self, kind: u16, name: &str) -> &mut Self {
        let mut octets = name.as_bytes().to_vec();
        octets.push(0);
        self.put(kind, &octets)
    }

    /// Adds a list of attributes.
    pub(crate) fn put_list(&mut self, kind: u16, list: &Self) -> &mut Self {
        self.put(kind | NESTED, list.octets())
    }
}

/// The attributes in these octets, as far as they are well-formed.
pub(crate) fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = octets.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND;
        let value = octets.get(HEADER..len)?;
        octets = octets.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(crate) fn find(octets: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut all = attributes(octets);
    all.find_map(|(kind, value)| (kind == wanted).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_found() {
        let mut inner = Attributes::default();
        inner.put_u32(1, 0x0102_0304).put_name(2, "abc");
        let mut outer = Attributes::default();
        outer.put(7, &[1]).put_list(4, &inner);
        let list = find(outer.octets(), 4).unwrap();
        assert_eq!(find(list, 1), Some(&[1, 2, 3, 4][..]));
        assert_eq!(find(list, 2), Some(&b"abc\0"[..]));
        assert_eq!(find(outer.octets(), 7), Some(&[1][..]));
        assert_eq!(outer.octets().len() % 4, 0);
    }

    #[test]
    fn cut_octets_end_the_walk() {
        let mut whole = Attributes::default();
        whole.put_u32(1, 1).put(2, &[1, 2, 3]);
        for len in 0..whole.octets().len() {
            assert!(attributes(&whole.octets()[..len]).count() <= 2);
        }
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }
}
