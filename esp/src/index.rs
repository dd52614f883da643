//! Selectors, found by the packets that they match: however many there are, a packet costs a look into a
//! table for each form that selectors have, and forms are few.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::flow::{FlowKey, has_type_and_code};
use crate::selector::Selector;

/// Values, each with a selector and a rank. Of those whose selectors match a packet, the lowest rank comes
/// first.
#[derive(Clone, Debug)]
pub struct Index<T> {
    /// The one with the lowest rank comes first.
    tables: Vec<Table<T>>,
}

/// All selectors of one form.
#[derive(Clone, Debug)]
struct Table<T> {
    form: Form,
    /// No rank in it is lower.
    lowest: u64,
    /// By what a packet has in common with a selector; the lowest rank comes first. However many have
    /// that in common, one more, or less, costs next to nothing: a peer may have a say in selectors.
    entries: HashMap<Key, BTreeMap<Place, Entry<T>>>,
}

/// A rank, and which one of those with this rank.
type Place = (u64, u32);

#[derive(Clone, Debug)]
struct Entry<T> {
    selector: Selector,
    value: T,
}

/// What a packet must have in common with a selector exactly, for the selector to match: the leading bits
/// that the addresses of a range have in common, and protocol and ports where there is one alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Form {
    v4: bool,
    /// Bits of the source address that do not count, and of the destination address.
    skip: (u32, u32),
    protocol: bool,
    source_port: bool,
    destination_port: bool,
}

/// That part of a packet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    source: u128,
    destination: u128,
    rest: u64,
}

impl<T> Index<T> {
    /// Without any.
    pub fn new() -> Self {
        Self { tables: Vec::new() }
    }

    /// Adds a value. It may come with several selectors, each with the same rank.
    pub fn insert(&mut self, selector: Selector, rank: u64, value: T) {
        let form = Form::of(&selector);
        let table = match self.tables.iter_mut().find(|table| table.form == form) {
            Some(table) => table,
            None => {
                self.tables.push(Table {
                    form,
                    lowest: u64::MAX,
                    entries: HashMap::new(),
                });
                // It was pushed just now.
                let last = self.tables.len() - 1;
                &mut self.tables[last]
            }
        };
        let entries = table.entries.entry(form.key(&selector)).or_default();
        let mut same = entries.range(all_with(rank));
        let next = same.next_back().map_or(0, |((_, last), _)| last + 1);
        entries.insert((rank, next), Entry { selector, value });
        if rank < table.lowest {
            table.lowest = rank;
            self.tables.sort_by_key(|table| table.lowest);
        }
    }

    /// Takes what has this rank away; `selectors`: all that it has.
    pub fn remove<'s>(&mut self, selectors: impl IntoIterator<Item = &'s Selector>, rank: u64) {
        for selector in selectors {
            let form = Form::of(selector);
            let Some(at) = self.tables.iter().position(|table| table.form == form) else {
                continue;
            };
            let table = &mut self.tables[at];
            let key = form.key(selector);
            if let Some(entries) = table.entries.get_mut(&key) {
                // Of several with one key, the first one finds them all.
                while let Some(place) = entries.range(all_with(rank)).next().map(|(at, _)| *at) {
                    entries.remove(&place);
                }
                if entries.is_empty() {
                    table.entries.remove(&key);
                }
            }
            if table.entries.is_empty() {
                self.tables.remove(at);
            }
        }
    }

    /// What `visit` says of the first value for this packet of which it says anything.
    pub fn find<'a, R>(
        &'a self,
        flow: &FlowKey,
        mut visit: impl FnMut(&'a T) -> Option<R>,
    ) -> Option<R> {
        let mut from = 0;
        loop {
            let (rank, value) = self.next(flow, from)?;
            if let Some(found) = visit(value) {
                return Some(found);
            }
            from = rank.checked_add(1)?;
        }
    }

    /// The lowest rank from this one on, and its value.
    fn next(&self, flow: &FlowKey, from: u64) -> Option<(u64, &T)> {
        let mut best: Option<(u64, &T)> = None;
        for table in &self.tables {
            if best.is_some_and(|(best, _)| best <= table.lowest) {
                break;
            }
            let entries = table
                .form
                .key_in(flow)
                .and_then(|key| table.entries.get(&key));
            let mut entries = entries.into_iter().flat_map(|all| all.range((from, 0)..));
            let found = entries.find(|(_, entry)| entry.selector.matches(flow));
            let found = found.map(|((rank, _), entry)| (*rank, &entry.value));
            let lower = |(rank, _): &(u64, &T)| best.is_none_or(|(best, _)| *rank < best);
            best = found.filter(lower).or(best);
        }
        best
    }
}

fn all_with(rank: u64) -> RangeInclusive<Place> {
    (rank, 0)..=(rank, u32::MAX)
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl Form {
    fn of(selector: &Selector) -> Self {
        let v4 = selector.source.0.is_ipv4();
        let skip = |(first, last)| u128::BITS - (number(first) ^ number(last)).leading_zeros();
        // Types and codes are in the place of ports, and others may be anywhere.
        let ports = selector.protocol != 0 && !has_type_and_code(selector.protocol);
        let one = |(first, last): (u16, u16)| ports && first == last;
        Self {
            v4,
            skip: (skip(selector.source), skip(selector.destination)),
            protocol: selector.protocol != 0,
            source_port: one(selector.source_ports),
            destination_port: one(selector.destination_ports),
        }
    }

    fn key(self, selector: &Selector) -> Key {
        let addresses = (selector.source.0, selector.destination.0);
        let ports = (selector.source_ports.0, selector.destination_ports.0);
        self.cut(addresses, selector.protocol, ports)
    }

    /// `None`: no selector of this form matches.
    fn key_in(self, flow: &FlowKey) -> Option<Key> {
        let asks_ports = self.source_port || self.destination_port;
        if self.v4 != flow.source.is_ipv4()
            || self.v4 != flow.destination.is_ipv4()
            || asks_ports && !flow.ports_known
        {
            return None;
        }
        let ports = (flow.source_port, flow.destination_port);
        Some(self.cut((flow.source, flow.destination), flow.protocol, ports))
    }

    fn cut(self, addresses: (IpAddr, IpAddr), protocol: u8, ports: (u16, u16)) -> Key {
        let cut = |address, skip| number(address).checked_shr(skip).unwrap_or(0);
        let asked = |asks: bool, number: u64| if asks { number } else { 0 };
        Key {
            source: cut(addresses.0, self.skip.0),
            destination: cut(addresses.1, self.skip.1),
            rest: asked(self.protocol, u64::from(protocol)) << 32
                | asked(self.source_port, u64::from(ports.0)) << 16
                | asked(self.destination_port, u64::from(ports.1)),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests;
