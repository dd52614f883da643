//! A table as it is to be, and what the kernel is told to make it so: all of it, or only what is new.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::attr::Attributes;
use super::{Batch, CREATE, Hook, NEW_SET, NEW_SET_ELEMENT, Rule};

/// Flag of a set: its elements are ranges.
const INTERVALS: u32 = 4;
/// Flag of an element: a range ends before it.
const INTERVAL_END: u32 = 1;
/// Elements in one message, far from the 64 KiB that a list may have.
const ELEMENTS: usize = 500;

/// A table.
#[derive(Debug)]
pub(in crate::host) struct Table {
    name: String,
    sets: BTreeMap<String, Ranges>,
    chains: Vec<Chain>,
}

/// What is in the kernel of a table that was loaded.
#[derive(Debug)]
pub(crate) struct LoadedTable {
    sets: BTreeMap<String, Ranges>,
    /// Of all chains: rules of thousands of policies would take much room.
    digest: [u8; 32],
}

#[derive(Debug)]
struct Chain {
    name: &'static str,
    hook: Option<Hook>,
    rules: Vec<Rule>,
}

/// Addresses of one family: ranges that do not overlap, in order.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ranges(BTreeMap<IpAddr, IpAddr>);

impl Ranges {
    /// Of ranges that may overlap, which the kernel does not take.
    fn of(mut ranges: Vec<(IpAddr, IpAddr)>) -> Self {
        ranges.sort_unstable();
        let mut apart: BTreeMap<IpAddr, IpAddr> = BTreeMap::new();
        for (start, end) in ranges {
            match apart.last_entry() {
                Some(mut last) if *last.get() >= start => {
                    let farther = (*last.get()).max(end);
                    last.insert(farther);
                }
                _ => drop(apart.insert(start, end)),
            }
        }
        Self(apart)
    }

    /// What is there besides these; `None`: some of these are not there, or not like this.
    fn added_to(&self, before: &Self) -> Option<Self> {
        let same = |(start, end): (&IpAddr, &IpAddr)| self.0.get(start) == Some(end);
        if !before.0.iter().all(same) {
            return None;
        }
        let is_new = |(start, _): &(&IpAddr, &IpAddr)| !before.0.contains_key(start);
        let added = self.0.iter().filter(is_new);
        Some(Self(added.map(|(start, end)| (*start, *end)).collect()))
    }

    /// Whether none of these is in a range.
    fn are_apart(&self, (start, end): (IpAddr, IpAddr)) -> bool {
        let mut before = self.0.range(..=end);
        before.next_back().is_none_or(|(_, last)| *last < start)
    }

    fn is_v4(&self) -> bool {
        self.0.keys().next().is_none_or(IpAddr::is_ipv4)
    }
}

impl Table {
    /// An empty one.
    pub(in crate::host) fn new(name: String) -> Self {
        Self {
            name,
            sets: BTreeMap::new(),
            chains: Vec::new(),
        }
    }

    /// Adds a set of addresses of one family.
    pub(in crate::host) fn set(&mut self, name: String, ranges: Vec<(IpAddr, IpAddr)>) {
        self.sets.insert(name, Ranges::of(ranges));
    }

    /// Adds a chain; without a hook, rules lead to it.
    pub(in crate::host) fn chain(&mut self, name: &'static str, hook: Option<Hook>) {
        let rules = Vec::new();
        self.chains.push(Chain { name, hook, rules });
    }

    /// Adds a rule at the end of the chain that was added last.
    pub(in crate::host) fn rule(&mut self, rule: Rule) {
        if let Some(chain) = self.chains.last_mut() {
            chain.rules.push(rule);
        }
    }

    /// Makes the table anew, with these rules at the beginning of chains.
    pub(in crate::host) fn whole(&self, first: &[(&'static str, Rule)]) -> Batch {
        let mut batch = Batch::replacing(&self.name);
        for (name, ranges) in &self.sets {
            batch.set(name, ranges);
            batch.elements(name, ranges);
        }
        for chain in &self.chains {
            batch.chain(chain.name, chain.hook);
            let own = first.iter().filter(|(name, _)| *name == chain.name);
            for rule in own.map(|(_, rule)| rule).chain(&chain.rules) {
                batch.rule(chain.name, rule);
            }
        }
        batch
    }

    /// Makes the table of the one that was loaded, where that takes no more than further elements
    /// of sets.
    pub(in crate::host) fn added_to(&self, before: &LoadedTable) -> Option<Batch> {
        if self.digest() != before.digest || !self.sets.keys().eq(before.sets.keys()) {
            return None;
        }
        let mut batch = Batch::changing(&self.name);
        for ((name, ranges), known) in self.sets.iter().zip(before.sets.values()) {
            batch.elements(name, &ranges.added_to(known)?);
        }
        Some(batch)
    }

    /// What is to be remembered of it.
    pub(in crate::host) fn loaded(self) -> LoadedTable {
        LoadedTable {
            digest: self.digest(),
            sets: self.sets,
        }
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for chain in &self.chains {
            digest.update(chain.name);
            digest.update(format!("{:?}", chain.hook));
            for rule in &chain.rules {
                let octets = rule.expressions().octets();
                digest.update(octets.len().to_ne_bytes());
                digest.update(octets);
            }
        }
        digest.finalize().into()
    }
}

impl LoadedTable {
    /// Whether it has a set.
    pub(in crate::host) fn has_set(&self, name: &str) -> bool {
        self.sets.contains_key(name)
    }

    /// What tells the kernel of further ranges in sets; `None`: some are there in part, or a set is not.
    pub(in crate::host) fn more(
        &self,
        table: &str,
        ranges: &[(String, (IpAddr, IpAddr))],
    ) -> Option<Batch> {
        let mut batch = Batch::changing(table);
        let mut more: BTreeMap<&str, Ranges> = BTreeMap::new();
        for (name, range) in ranges {
            let new = more.entry(name).or_default();
            if !self.sets.get(name)?.are_apart(*range) || !new.are_apart(*range) {
                return None;
            }
            new.0.insert(range.0, range.1);
        }
        for (name, ranges) in more {
            batch.elements(name, &ranges);
        }
        Some(batch)
    }

    /// The kernel has them.
    pub(in crate::host) fn add(&mut self, ranges: Vec<(String, (IpAddr, IpAddr))>) {
        for (name, (start, end)) in ranges {
            self.sets.entry(name).or_default().0.insert(start, end);
        }
    }
}

impl Batch {
    fn set(&mut self, name: &str, ranges: &Ranges) {
        let (kind, octets) = if ranges.is_v4() { (7, 4) } else { (8, 16) };
        let mut set = Attributes::default();
        set.put_name(1, &self.table)
            .put_name(2, name)
            .put_u32(3, INTERVALS)
            // How nft is to print them.
            .put_u32(4, kind)
            .put_u32(5, octets)
            // A number within the batch, which is not used.
            .put_u32(10, 1);
        self.nf_message(NEW_SET, CREATE, &set);
    }

    /// A range is an element where it begins, and another one where it is over.
    fn elements(&mut self, set: &str, ranges: &Ranges) {
        let all: Vec<(&IpAddr, &IpAddr)> = ranges.0.iter().collect();
        for some in all.chunks(ELEMENTS) {
            let mut list = Attributes::default();
            for (start, end) in some {
                list.put_list(1, &element(**start, false));
                if let Some(over) = after(**end) {
                    list.put_list(1, &element(over, true));
                }
            }
            let mut message = Attributes::default();
            message
                .put_name(1, &self.table)
                .put_name(2, set)
                .put_list(3, &list);
            self.nf_message(NEW_SET_ELEMENT, CREATE, &message);
        }
    }
}

fn element(address: IpAddr, is_end: bool) -> Attributes {
    let mut key = Attributes::default();
    match address {
        IpAddr::V4(v4) => key.put(1, &v4.octets()),
        IpAddr::V6(v6) => key.put(1, &v6.octets()),
    };
    let mut element = Attributes::default();
    element.put_list(1, &key);
    if is_end {
        element.put_u32(3, INTERVAL_END);
    }
    element
}

/// The next address, if there is one.
fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_grow_by_ranges_that_are_apart_from_what_they_have() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let range = |set: &str, start, end| (set.to_owned(), (ip(start), ip(end)));
        let mut table = Table::new("obol".into());
        table.set("peers".into(), vec![(ip("10.0.1.0"), ip("10.0.1.255"))]);
        let mut loaded = table.loaded();
        let one = range("peers", "10.0.2.0", "10.0.2.255");
        let batch = loaded.more("obol", std::slice::from_ref(&one)).unwrap();
        assert!(!batch.is_empty());
        loaded.add(vec![one]);
        for other in [
            range("peers", "10.0.2.255", "10.0.3.0"),
            range("peers", "10.0.0.0", "10.0.1.0"),
            range("peers", "10.0.1.1", "10.0.1.2"),
            range("peers", "10.0.0.0", "10.0.9.0"),
            range("own", "10.0.4.0", "10.0.4.1"),
        ] {
            assert!(loaded.more("obol", &[other]).is_none());
        }
        let twice = [
            range("peers", "10.0.4.0", "10.0.4.9"),
            range("peers", "10.0.4.9", "10.0.5.0"),
        ];
        assert!(loaded.more("obol", &twice).is_none());
    }

    fn ranges(texts: &[(&str, &str)]) -> Ranges {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let all = texts.iter().map(|(start, end)| (parse(start), parse(end)));
        Ranges::of(all.collect())
    }

    #[test]
    fn ranges_that_overlap_are_one() {
        let found = ranges(&[
            ("10.0.1.0", "10.0.1.255"),
            ("10.0.0.0", "10.0.3.255"),
            ("10.0.2.0", "10.0.4.0"),
            ("10.0.4.1", "10.0.4.1"),
        ]);
        // What only touches stays apart: the kernel takes it.
        let apart = ranges(&[("10.0.0.0", "10.0.4.0"), ("10.0.4.1", "10.0.4.1")]);
        assert_eq!(found, apart);
        assert_eq!(found.0.len(), 2);
    }

    #[test]
    fn only_what_is_new_is_added_and_never_to_what_has_changed() {
        let before = ranges(&[("10.0.0.0", "10.0.0.255"), ("10.0.2.0", "10.0.2.255")]);
        let more = ranges(&[
            ("10.0.0.0", "10.0.0.255"),
            ("10.0.1.0", "10.0.1.255"),
            ("10.0.2.0", "10.0.2.255"),
        ]);
        let added = ranges(&[("10.0.1.0", "10.0.1.255")]);
        assert_eq!(more.added_to(&before), Some(added));
        assert_eq!(before.added_to(&more), None, "something goes");
        let wider = ranges(&[("10.0.0.0", "10.0.1.0"), ("10.0.2.0", "10.0.2.255")]);
        assert_eq!(wider.added_to(&before), None, "something is wider");
    }

    #[test]
    fn a_table_with_other_rules_or_sets_is_made_anew() {
        let table = |sets: &[&str], mark| {
            let mut table = Table::new("t".to_owned());
            for set in sets {
                table.set((*set).to_owned(), Vec::new());
            }
            table.chain("c", None);
            table.rule(Rule::default().mark(mark));
            table
        };
        let known = table(&["a"], 1).loaded();
        assert!(table(&["a"], 1).added_to(&known).is_some());
        assert!(table(&["a"], 2).added_to(&known).is_none());
        assert!(table(&["b"], 1).added_to(&known).is_none());
        assert!(table(&["a", "b"], 1).added_to(&known).is_none());
    }

    #[test]
    fn nothing_comes_after_the_last_address() {
        assert_eq!(after("255.255.255.255".parse().unwrap()), None);
        let last: IpAddr = "10.0.0.255".parse().unwrap();
        assert_eq!(after(last), "10.0.1.0".parse().ok());
    }
}
