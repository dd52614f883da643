use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::ip::protocol;
use crate::spd::Spd;

/// Addresses that are often the same or beside each other.
fn address(v4: bool) -> impl Strategy<Value = IpAddr> {
    let low = prop_oneof![0..8u32, 250..260u32, any::<u32>()];
    low.prop_map(move |low| match v4 {
        true => Ipv4Addr::from(0x0a00_0000 ^ low).into(),
        false => Ipv6Addr::from(0xfd << 120 ^ u128::from(low) << 60).into(),
    })
}

fn range<T: Ord>((one, other): (T, T)) -> (T, T) {
    if one <= other {
        (one, other)
    } else {
        (other, one)
    }
}

fn addresses(v4: bool) -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        address(v4).prop_map(|one| (one, one)),
        (address(v4), address(v4)).prop_map(range),
    ]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0..4u16, Just(27_017), Just(u16::MAX)]
}

fn ports() -> impl Strategy<Value = (u16, u16)> {
    prop_oneof![
        3 => Just(Selector::ANY_PORT),
        1 => Just(Selector::OPAQUE),
        3 => port().prop_map(|one| (one, one)),
        1 => (port(), port()).prop_map(range),
    ]
}

fn protocols() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(6), Just(17), Just(protocol::ICMP), Just(47)]
}

fn selector() -> impl Strategy<Value = Selector> {
    any::<bool>()
        .prop_flat_map(|v4| (protocols(), addresses(v4), ports(), addresses(v4), ports()))
        .prop_map(|(protocol, from, from_ports, to, to_ports)| {
            Selector::new(protocol, from, from_ports, to, to_ports).unwrap()
        })
}

fn flow() -> impl Strategy<Value = FlowKey> {
    let ends = any::<bool>().prop_flat_map(|v4| (address(v4), address(v4)));
    (ends, protocols(), port(), port(), any::<bool>()).prop_map(
        |((source, destination), protocol, source_port, destination_port, ports_known)| FlowKey {
            source,
            destination,
            protocol,
            source_port: if ports_known { source_port } else { 0 },
            destination_port: if ports_known { destination_port } else { 0 },
            fragment: !ports_known,
            ports_known,
        },
    )
}

proptest! {
    /// All that match, in their order, as a walk through all of them finds them.
    #[test]
    fn finds_what_a_walk_finds(
        selectors in prop::collection::vec((selector(), 0..40u64), 0..60),
        flows in prop::collection::vec(flow(), 1..20),
        gone in any::<u64>(),
    ) {
        let mut index = Index::new();
        let all_of = |of: u64| {
            let all = selectors.iter().filter(move |(_, rank)| *rank == of);
            all.map(|(selector, _)| selector)
        };
        for (place, (selector, rank)) in selectors.iter().enumerate() {
            index.insert(*selector, *rank, place);
        }
        let is_gone = |rank: u64| gone >> rank & 1 == 1;
        for rank in (0..40).filter(|rank| is_gone(*rank)) {
            index.remove(all_of(rank), rank);
        }
        let left = selectors.iter().filter(|(_, rank)| !is_gone(*rank));
        let left: Vec<&(Selector, u64)> = left.collect();
        for flow in &flows {
            let mut found = Vec::new();
            let nothing = index.find(flow, |place| {
                found.push(selectors[*place].1);
                None::<()>
            });
            prop_assert!(nothing.is_none());
            let matching = left.iter().filter(|(selector, _)| selector.matches(flow));
            let mut walked: Vec<u64> = matching.map(|(_, rank)| *rank).collect();
            walked.sort_unstable();
            walked.dedup();
            prop_assert_eq!(&found, &walked);
            let first = index.find(flow, |place| Some(selectors[*place].1));
            prop_assert_eq!(first, walked.first().copied());
        }
        for rank in 0..40 {
            index.remove(all_of(rank), rank);
        }
        prop_assert!(index.tables.is_empty());
    }

    #[test]
    fn policies_are_found_as_by_a_walk(
        selectors in prop::collection::vec(selector(), 0..60),
        flows in prop::collection::vec(flow(), 1..20),
    ) {
        let spd: Spd<usize> = selectors.iter().copied().zip(0..).collect();
        for flow in &flows {
            let walked = spd.iter().find(|(selector, _)| selector.matches(flow));
            prop_assert_eq!(spd.lookup(flow), walked.map(|(_, place)| place));
        }
    }
}
