//! The SA database, RFC 4301 section 4.4.2: what belongs to an SPI.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table by SPI. `T` is the SA, or whatever leads to it.
///
/// The hash is a multiplication: SPIs in the table were drawn at random by this host, so a peer
/// cannot choose them to collide, and looking one up that is not there changes nothing.
#[derive(Clone, Debug)]
pub struct Sad<T> {
    entries: HashMap<u32, T, BuildHasherDefault<SpiHasher>>,
}

impl<T> Sad<T> {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            entries: HashMap::default(),
        }
    }

    //= rfc4303 2.1-1 2.1-4
    /// What belongs to this SPI.
    pub fn get(&self, spi: u32) -> Option<&T> {
        self.entries.get(&spi)
    }

    /// What belongs to this SPI, to be changed.
    pub fn get_mut(&mut self, spi: u32) -> Option<&mut T> {
        self.entries.get_mut(&spi)
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The SPI is in use; the entry comes back and the table is as it was.
    pub fn insert(&mut self, spi: u32, entry: T) -> Result<(), T> {
        match self.entries.entry(spi) {
            std::collections::hash_map::Entry::Occupied(_) => Err(entry),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(entry);
                Ok(())
            }
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, spi: u32) -> Option<T> {
        self.entries.remove(&spi)
    }

    /// All SAs, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.values_mut()
    }

    /// Every SPI and its entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().map(|(spi, entry)| (*spi, entry))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T> Default for Sad<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Spreads the bits of an SPI over a `u64`.
#[derive(Clone, Copy, Debug, Default)]
struct SpiHasher(u64);

impl Hasher for SpiHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.write_u32(u32::from(*octet));
        }
    }

    fn write_u32(&mut self, spi: u32) {
        // 2^64 over the golden ratio, odd: the product has well mixed high and middle bits, and
        // the rotation brings them to where a table of any size takes its bits from.
        self.0 = (self.0 ^ u64::from(spi))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= test rfc4303 2.1-1
    #[test]
    fn an_spi_in_use_is_refused_and_kept() {
        let mut sad = Sad::new();
        assert_eq!(sad.insert(0x100, "first"), Ok(()));
        assert_eq!(sad.insert(0x100, "second"), Err("second"));
        assert_eq!(sad.get(0x100), Some(&"first"));
        assert_eq!(sad.remove(0x100), Some("first"));
        assert_eq!(sad.get(0x100), None);
        assert!(sad.is_empty());
    }

    //= test rfc4303 2.1-4
    #[test]
    fn neighbouring_spis_do_not_share_a_bucket() {
        let low_bits = |spi: u32| {
            let mut hasher = SpiHasher::default();
            hasher.write_u32(spi);
            hasher.finish() & 0xfff
        };
        let buckets: std::collections::HashSet<u64> = (256..256 + 1024).map(low_bits).collect();
        assert!(buckets.len() > 700, "only {} of 1024", buckets.len());
    }
}
