//! The policy database, RFC 4301 section 4.4.1: what is to happen to a packet.

use crate::flow::FlowKey;
use crate::index::Index;
use crate::selector::Selector;

/// From so many policies on they are found by an [`Index`]; fewer are compared one after another faster.
const INDEXED_FROM: usize = 16;

/// Policies, each for the packets of one selector.
///
/// A policy whose selector lies within that of another is asked first, whatever their order;
/// among policies that are neither narrower nor wider, the one that came first.
#[derive(Clone, Debug)]
pub struct Spd<T> {
    entries: Vec<(Selector, T)>,
    /// Their places.
    index: Option<Index<usize>>,
}

impl<T> Spd<T> {
    /// The policy for packets of this flow.
    pub fn lookup(&self, flow: &FlowKey) -> Option<&T> {
        let found = match &self.index {
            Some(index) => index.find(flow, |place| self.entries.get(*place)),
            None => {
                let mut entries = self.entries.iter();
                entries.find(|(selector, _)| selector.matches(flow))
            }
        };
        found.map(|(_, policy)| policy)
    }

    /// The policies in the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = (&Selector, &T)> {
        self.entries
            .iter()
            .map(|(selector, policy)| (selector, policy))
    }

    /// Number of policies.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no policy.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T> Default for Spd<T> {
    fn default() -> Self {
        std::iter::empty().collect()
    }
}

impl<T> FromIterator<(Selector, T)> for Spd<T> {
    fn from_iter<I: IntoIterator<Item = (Selector, T)>>(policies: I) -> Self {
        let mut entries: Vec<_> = policies.into_iter().collect();
        entries.sort_by_key(|(selector, _)| selector.width());
        let mut index = None;
        if entries.len() >= INDEXED_FROM {
            let index = index.get_or_insert_with(Index::new);
            for (place, (selector, _)) in entries.iter().enumerate() {
                index.insert(*selector, place as u64, place);
            }
        }
        Self { entries, index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn selector(
        protocol: u8,
        source: [&str; 2],
        destination: [&str; 2],
        port: (u16, u16),
    ) -> Selector {
        let range = |ends: [&str; 2]| {
            let [first, last] = ends.map(|end| end.parse::<IpAddr>().unwrap());
            (first, last)
        };
        let any = Selector::ANY_PORT;
        Selector::new(protocol, range(source), any, range(destination), port).unwrap()
    }

    fn flow(destination: &str, protocol: u8, port: u16) -> FlowKey {
        FlowKey {
            source: "192.168.0.1".parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            source_port: 40_000,
            destination_port: port,
            fragment: false,
            ports_known: true,
        }
    }

    const HOST: [&str; 2] = ["192.168.0.1", "192.168.0.1"];
    const PEER: [&str; 2] = ["192.168.0.2", "192.168.0.2"];
    const NET: [&str; 2] = ["192.168.0.0", "192.168.0.200"];
    const WIDER_NET: [&str; 2] = ["192.168.0.0", "192.168.0.255"];
    const ALL: [&str; 2] = ["0.0.0.0", "255.255.255.255"];

    fn policies() -> Vec<(Selector, &'static str)> {
        let any = Selector::ANY_PORT;
        vec![
            (selector(0, ALL, ALL, any), "everything"),
            (selector(0, HOST, WIDER_NET, any), "wider net"),
            (selector(0, HOST, NET, any), "net"),
            (selector(6, HOST, PEER, any), "tcp"),
            (selector(6, HOST, PEER, (27017, 27017)), "service"),
            (selector(0, HOST, PEER, any), "peer"),
        ]
    }

    #[test]
    fn the_narrowest_policy_is_asked_first_whatever_the_order() {
        let forward: Spd<_> = policies().into_iter().collect();
        let backward: Spd<_> = policies().into_iter().rev().collect();
        for spd in [forward, backward] {
            let rows = [
                (flow("192.168.0.2", 6, 27017), "service"),
                (flow("192.168.0.2", 6, 27018), "tcp"),
                (flow("192.168.0.2", 17, 27017), "peer"),
                (flow("192.168.0.3", 17, 27017), "net"),
                (flow("192.168.0.201", 17, 27017), "wider net"),
                (flow("10.0.0.1", 17, 27017), "everything"),
            ];
            for (flow, policy) in rows {
                assert_eq!(spd.lookup(&flow), Some(&policy), "{flow:?}");
            }
            assert_eq!(spd.lookup(&flow("::1", 17, 1)), None);
            assert_eq!(spd.len(), 6);
        }
    }

    #[test]
    fn of_two_alike_the_first_wins() {
        let same = selector(0, HOST, PEER, Selector::ANY_PORT);
        let spd: Spd<_> = [(same, "first"), (same, "second")].into_iter().collect();
        assert_eq!(spd.lookup(&flow("192.168.0.2", 6, 1)), Some(&"first"));
        let many: Spd<_> = (0..100).map(|number| (same, number)).collect();
        assert_eq!(many.lookup(&flow("192.168.0.2", 6, 1)), Some(&0));
    }
}
