//! The fragments of one message, until all are there: RFC 7383 section 2.6.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::error::Dropped;
use crate::wire::{ExchangeType, Fragment, PayloadType};

//= rfc7383 5-3
/// What one IKE SA may hold of fragments: the longest message that UDP could carry whole.
pub(crate) const MAX_HELD: usize = 64 * 1024;
/// The same before the peer is proven: an IKE_AUTH request with a long certificate chain.
pub(crate) const MAX_HELD_UNPROVEN: usize = 16 * 1024;
/// What all IKE SAs together may hold of fragments.
pub(crate) const MAX_HELD_IN_TOTAL: usize = 16 * 1024 * 1024;
/// The part of that which is left to peers that are proven.
pub(crate) const RESERVED_FOR_PROVEN: usize = MAX_HELD_IN_TOTAL / 2;
/// Fragments of one message. [`MAX_HELD`] octets in datagrams of 576 octets, the least that
/// RFC 7383 section 2.5.1 recommends, are about 130; this leaves room for half of that size.
pub(crate) const MAX_FRAGMENTS: u16 = 256;
/// What a fragment costs beside its octets: its place in the collection, and its allocation.
const OVERHEAD: usize = 64;
/// A set to which nothing was added for so long is given up. A peer with our own schedule is
/// silent for less than half a minute between two retransmissions.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Which message a fragment is a part of, within one direction of an IKE SA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MessageKey {
    /// The Message ID.
    pub(crate) message_id: u32,
    /// The exchange.
    pub(crate) exchange: ExchangeType,
}

/// A fragment that authenticated.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Which of how many.
    pub(crate) fragment: Fragment,
    /// Type of the first inner payload, said by the first fragment.
    pub(crate) first: PayloadType,
    /// Its part of the inner payloads.
    pub(crate) octets: Vec<u8>,
}

/// The fragments of one message that are there so far, all of the same total number.
#[derive(Debug)]
pub(crate) struct Reassembly {
    key: MessageKey,
    total: u16,
    first: PayloadType,
    chunks: BTreeMap<u16, Vec<u8>>,
    held: usize,
    until: Instant,
}

impl Reassembly {
    /// Begins with one fragment.
    pub(crate) fn begin(key: MessageKey, now: Instant, chunk: Chunk) -> Self {
        let mut new = Self {
            key,
            total: chunk.fragment.total,
            first: PayloadType::NONE,
            chunks: BTreeMap::new(),
            held: 0,
            until: now,
        };
        new.put(now, chunk);
        new
    }

    //= rfc7383 2.6.1-1 2.6-2 2.6-4
    /// Whether a fragment of this message could be added, or begin the set anew, before anything
    /// is known of its authenticity.
    ///
    /// # Errors
    /// If it belongs to an older set, or is there already.
    pub(crate) fn check(&self, key: MessageKey, fragment: Fragment) -> Result<(), Dropped> {
        if self.key != key {
            return Ok(());
        }
        if fragment.total < self.total {
            return Err(Dropped::FragmentOfOldSet);
        }
        if fragment.total == self.total && self.chunks.contains_key(&fragment.number) {
            return Err(Dropped::FragmentRepeated);
        }
        Ok(())
    }

    //= rfc7383 2.6-4
    /// Whether a fragment goes to this set, rather than beginning one.
    pub(crate) fn takes(&self, key: MessageKey, fragment: Fragment) -> bool {
        self.key == key && self.total == fragment.total
    }

    /// Adds a fragment of which [`takes`](Self::takes) is true.
    pub(crate) fn put(&mut self, now: Instant, chunk: Chunk) {
        if chunk.fragment.number == 1 {
            self.first = chunk.first;
        }
        self.held += cost(&chunk.octets);
        self.chunks.insert(chunk.fragment.number, chunk.octets);
        self.until = now + PATIENCE;
    }

    /// Whether all are there.
    pub(crate) fn is_complete(&self) -> bool {
        self.chunks.len() == usize::from(self.total)
    }

    /// The inner payloads of the message, and the type of the first.
    pub(crate) fn merge(self) -> (PayloadType, Vec<u8>) {
        let len = self.chunks.values().map(Vec::len).sum();
        let mut octets = Vec::with_capacity(len);
        for chunk in self.chunks.values() {
            octets.extend_from_slice(chunk);
        }
        (self.first, octets)
    }

    /// Octets of memory, about.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// When it is given up.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }
}

/// What holding these octets of a fragment costs.
pub(crate) fn cost(octets: &[u8]) -> usize {
    octets.len() + OVERHEAD
}

#[cfg(test)]
#[path = "reassembly_tests.rs"]
mod tests;
