//! Many selectors, found by what they overlap with and not by a walk through all.

use std::collections::BTreeMap;

use super::{TrafficSelector, address_bits, from_number, to_number};

/// Selectors, each with the keys of those that have it.
///
/// They are kept by how many bits the length of their address range has, so the ones that reach into
/// another range begin not far before it.
#[derive(Default)]
pub(crate) struct Ranges(BTreeMap<Class, BTreeMap<Place, Entry>>);

/// Width of the addresses, and bits of the distance from the first to the last.
type Class = (u32, u32);

/// First and last address, protocol and ports.
type Place = (u128, u128, u8, (u16, u16));

struct Entry {
    ts: TrafficSelector,
    /// In order.
    keys: Vec<u64>,
}

impl Ranges {
    /// Adds a key to a selector; once more is as once.
    pub(crate) fn insert(&mut self, ts: &TrafficSelector, key: u64) {
        let (class, place) = place(ts);
        let entry = self.0.entry(class).or_default().entry(place);
        let entry = entry.or_insert_with(|| Entry {
            ts: *ts,
            keys: Vec::with_capacity(1),
        });
        if let Err(at) = entry.keys.binary_search(&key) {
            entry.keys.insert(at, key);
        }
    }

    /// Removes a key from a selector, if it is there.
    pub(crate) fn remove(&mut self, ts: &TrafficSelector, key: u64) {
        let (class, place) = place(ts);
        let Some(places) = self.0.get_mut(&class) else {
            return;
        };
        if let Some(entry) = places.get_mut(&place) {
            entry.keys.retain(|known| *known != key);
            if entry.keys.is_empty() {
                places.remove(&place);
            }
        }
        if places.is_empty() {
            self.0.remove(&class);
        }
    }

    /// The selectors that have an address in common with this one, and who has them.
    pub(crate) fn overlapping(
        &self,
        ts: &TrafficSelector,
    ) -> impl Iterator<Item = (&TrafficSelector, &[u64])> {
        let width = address_bits(ts.start);
        let (first, last) = (to_number(ts.start), to_number(ts.end));
        let classes = self.0.range((width, 0)..=(width, u128::BITS));
        classes.flat_map(move |((_, bits), places)| {
            let longest = u128::MAX.checked_shr(u128::BITS - bits);
            let from = first.saturating_sub(longest.unwrap_or_default());
            let most = (u16::MAX, u16::MAX);
            let near = places.range((from, 0, 0, (0, 0))..=(last, u128::MAX, u8::MAX, most));
            near.filter(move |((_, end, ..), _)| *end >= first)
                .map(|(_, entry)| (&entry.ts, entry.keys.as_slice()))
        })
    }
}

fn place(ts: &TrafficSelector) -> (Class, Place) {
    let (first, last) = (to_number(ts.start), to_number(ts.end));
    let bits = u128::BITS - (last - first).leading_zeros();
    let class = (address_bits(ts.start), bits);
    (class, (first, last, ts.protocol, ts.ports()))
}

/// What is left of selectors without the addresses of another one, whatever its protocol and ports.
pub(crate) fn without(
    selectors: Vec<TrafficSelector>,
    taken: &TrafficSelector,
) -> Vec<TrafficSelector> {
    let apart = |ts: &TrafficSelector| {
        ts.start.is_ipv4() != taken.start.is_ipv4() || ts.end < taken.start || taken.end < ts.start
    };
    let mut left = Vec::with_capacity(selectors.len());
    for ts in selectors {
        if apart(&ts) {
            left.push(ts);
            continue;
        }
        if ts.start < taken.start {
            let end = from_number(ts.start, to_number(taken.start) - 1);
            left.push(TrafficSelector { end, ..ts });
        }
        if taken.end < ts.end {
            let start = from_number(ts.start, to_number(taken.end) + 1);
            left.push(TrafficSelector { start, ..ts });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};

    fn list(text: &str) -> Vec<TrafficSelector> {
        let words = text.split_whitespace();
        words.map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_left_of_selectors() {
        for (case, of, taken, want) in [
            ("all", "10.1.0.0/16", "10.0.0.0/8", ""),
            ("nothing", "10.1.0.0/16", "10.2.0.0/16", "10.1.0.0/16"),
            ("other family", "::/0", "0.0.0.0/0", "::/0"),
            (
                "the middle",
                "10.0.0.0-10.0.0.9",
                "10.0.0.4-10.0.0.5",
                "10.0.0.0-10.0.0.3 10.0.0.6-10.0.0.9",
            ),
            ("the start", "10.0.0.0/24", "10.0.0.0/25", "10.0.0.128/25"),
            (
                "the ends of all addresses",
                "0.0.0.0/0",
                "0.0.0.0-255.255.255.254",
                "255.255.255.255",
            ),
            (
                "ports stay",
                "10.0.0.0/31[tcp/80]",
                "10.0.0.0",
                "10.0.0.1[tcp/80]",
            ),
        ] {
            let taken = taken.parse().unwrap();
            assert_eq!(without(list(of), &taken), list(want), "{case}");
        }
    }

    fn selector() -> impl Strategy<Value = TrafficSelector> {
        let numbers = prop_oneof![0..40u32, any::<u32>()];
        (numbers, prop_oneof![0..9u32, any::<u32>()], any::<bool>()).prop_map(|(start, len, v4)| {
            let end = start.saturating_add(len);
            let address = |n: u32| match v4 {
                true => IpAddr::V4(Ipv4Addr::from_bits(n)),
                false => IpAddr::V6((u128::MAX << 32 | u128::from(n)).into()),
            };
            TrafficSelector::range(address(start), address(end)).unwrap()
        })
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_walk_finds(
            all in prop::collection::vec(selector(), 0..30),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
            asked in selector(),
        ) {
            let mut ranges = Ranges::default();
            for (key, ts) in (0..).zip(&all) {
                ranges.insert(ts, key);
                ranges.insert(ts, key);
            }
            let gone: BTreeSet<usize> = gone.iter().filter(|_| !all.is_empty())
                .map(|index| index.index(all.len())).collect();
            for at in &gone {
                ranges.remove(&all[*at], *at as u64);
                ranges.remove(&all[*at], *at as u64);
            }
            let walk = (0..all.len()).filter(|at| !gone.contains(at) && all[*at].intersect(&asked).is_some());
            let found = ranges.overlapping(&asked);
            let mut found: Vec<u64> = found.flat_map(|(_, keys)| keys).copied().collect();
            found.sort_unstable();
            prop_assert_eq!(found, walk.map(|at| at as u64).collect::<Vec<_>>());
            for at in (0..all.len()).filter(|at| !gone.contains(at)) {
                ranges.remove(&all[at], at as u64);
            }
            prop_assert!(ranges.0.is_empty());
        }

        #[test]
        fn what_is_left_and_what_is_taken_is_all(of in selector(), taken in selector()) {
            let left = without(vec![of], &taken);
            let count = |ts: &TrafficSelector| to_number(ts.end) - to_number(ts.start) + 1;
            let both = of.intersect(&taken).map_or(0, |both| count(&both));
            prop_assert!(left.iter().all(|ts| of.contains(ts) && ts.intersect(&taken).is_none()));
            prop_assert_eq!(left.iter().map(count).sum::<u128>() + both, count(&of));
        }
    }
}
