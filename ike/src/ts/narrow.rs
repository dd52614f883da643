//! What a responder accepts of an offer, RFC 7296 section 2.9.

use super::{TrafficSelector, has_type_and_code};
use crate::event::PacketFlow;

/// Selectors that fit one TS payload, whose count is one octet (RFC 7296 section 3.13).
pub const MAX_SELECTORS: usize = 255;

//= rfc7296 2.9-2 2.9-3
//= security S-20
/// What is both offered and configured.
///
/// In the order of the offer; a selector that another one contains is left out. If the first
/// selector offered is acceptable as a whole, the first of the result contains it: that is the
/// packet for which the SA is made. Empty: TS_UNACCEPTABLE. At most [`MAX_SELECTORS`], since a
/// responder may always take less.
pub fn narrow(offered: &[TrafficSelector], configured: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut narrowed = Vec::new();
    for offer in offered {
        // Bounds the work that an offer can cause; whatever is offered later may be refused.
        if narrowed.len() >= MAX_SELECTORS {
            break;
        }
        for allowed in configured {
            if let Some(common) = offer.intersect(allowed) {
                add(&mut narrowed, common);
            }
        }
    }
    narrowed.truncate(MAX_SELECTORS);
    narrowed
}

//= rfc7296 2.9-1
/// The first selectors to offer for an SA that a packet asks for (RFC 7296 section 2.9), of the
/// packet's source and of its destination.
///
/// Type and code of an ICMP packet are left out: an SA for echo requests alone would not carry
/// the replies.
pub fn flow_selectors(flow: &PacketFlow) -> (TrafficSelector, TrafficSelector) {
    let has_ports =
        !has_type_and_code(flow.protocol) && (flow.source_port, flow.destination_port) != (0, 0);
    let side = |address, port| {
        let selector = TrafficSelector {
            protocol: flow.protocol,
            ..TrafficSelector::host(address)
        };
        if has_ports {
            selector.with_ports((port, port))
        } else {
            selector
        }
    };
    (
        side(flow.source, flow.source_port),
        side(flow.destination, flow.destination_port),
    )
}

/// Adds a selector that none present contains. It takes the place of the first that it contains.
fn add(selectors: &mut Vec<TrafficSelector>, new: TrafficSelector) {
    if selectors.iter().any(|present| present.contains(&new)) {
        return;
    }
    let place = selectors.iter().position(|present| new.contains(present));
    selectors.retain(|present| !new.contains(present));
    selectors.insert(place.unwrap_or(selectors.len()), new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn list(text: &str) -> Vec<TrafficSelector> {
        text.split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect()
    }

    //= test rfc7296 2.9-2
    #[test]
    fn narrowing() {
        for (case, offered, configured, want) in [
            ("the same", "10.0.0.0/16", "10.0.0.0/16", "10.0.0.0/16"),
            ("less configured", "0.0.0.0/0", "10.0.0.0/16", "10.0.0.0/16"),
            ("less offered", "10.0.1.0/24", "10.0.0.0/16", "10.0.1.0/24"),
            ("nothing", "10.0.0.0/16", "10.1.0.0/16", ""),
            ("other family", "::/0", "0.0.0.0/0", ""),
            (
                "packet first",
                "10.0.0.1[tcp/80] 10.0.0.0/8",
                "10.0.0.0/24 10.1.0.0/24",
                "10.0.0.0/24 10.1.0.0/24",
            ),
            (
                "packet's subnet first",
                "10.1.0.1[tcp/80] 10.0.0.0/8",
                "10.0.0.0/24 10.1.0.0/24",
                "10.1.0.0/24 10.0.0.0/24",
            ),
            (
                "packet not allowed",
                "10.9.0.1[tcp/80] 10.0.0.0/8",
                "10.0.0.0/24",
                "10.0.0.0/24",
            ),
            (
                "order of the offer",
                "10.2.0.0/16 10.1.0.0/16",
                "10.1.0.0/16 10.2.0.0/16",
                "10.2.0.0/16 10.1.0.0/16",
            ),
            (
                "duplicates",
                "10.0.0.0/16 10.0.0.0/16",
                "10.0.0.0/8 0.0.0.0/0",
                "10.0.0.0/16",
            ),
            (
                "protocol",
                "10.0.0.0/16",
                "10.0.0.0/16[udp/53]",
                "10.0.0.0/16[udp/53]",
            ),
        ] {
            assert_eq!(
                narrow(&list(offered), &list(configured)),
                list(want),
                "{case}"
            );
        }
    }

    #[test]
    fn the_result_fits_a_payload() {
        let single = |n: u32| TrafficSelector::host(Ipv4Addr::from_bits(2 * n).into());
        let many: Vec<_> = (0..300).map(single).collect();
        let narrowed = narrow(&many, &list("0.0.0.0/0"));
        assert_eq!(narrowed, many[..MAX_SELECTORS]);
    }

    //= test rfc7296 3.13.1-1 3.13.1-2
    #[test]
    fn a_packet_is_offered_with_its_ports_if_it_has_some() {
        for (protocol, ports, want) in [
            (6, (1000, 80), ("10.0.0.1[tcp/1000]", "10.0.0.2[tcp/80]")),
            (6, (0, 0), ("10.0.0.1[tcp]", "10.0.0.2[tcp]")),
            (1, (8, 0), ("10.0.0.1[icmp]", "10.0.0.2[icmp]")),
            (47, (0, 0), ("10.0.0.1[gre]", "10.0.0.2[gre]")),
        ] {
            let flow = PacketFlow {
                protocol,
                source: "10.0.0.1".parse().unwrap(),
                destination: "10.0.0.2".parse().unwrap(),
                source_port: ports.0,
                destination_port: ports.1,
            };
            let (source, destination) = flow_selectors(&flow);
            assert_eq!((&*source.to_string(), &*destination.to_string()), want);
        }
    }

    // The oracle: selectors over a universe that is small enough to list each packet.
    type Packet = (u8, IpAddr, Option<u16>);

    const FIRST: u32 = 0x0a00_0000;

    fn universe() -> impl Iterator<Item = Packet> {
        let ports = [None, Some(0), Some(1), Some(2), Some(3), Some(65535)];
        [1, 6, 17].into_iter().flat_map(move |protocol| {
            (0..8).flat_map(move |n| {
                let address = IpAddr::from(Ipv4Addr::from_bits(FIRST + n));
                ports.into_iter().map(move |port| (protocol, address, port))
            })
        })
    }

    fn covers(selectors: &[TrafficSelector], (protocol, address, port): Packet) -> bool {
        selectors
            .iter()
            .any(|ts| ts.matches(protocol, address, port))
    }

    fn selector() -> impl Strategy<Value = TrafficSelector> {
        let ports = prop_oneof![
            3 => Just((0, u16::MAX)),
            1 => Just((u16::MAX, 0)),
            2 => (0..4u16, 0..4u16).prop_map(|(a, b)| (a.min(b), a.max(b))),
            1 => Just((1, u16::MAX)),
        ];
        (
            prop::sample::select(&[0, 0, 1, 6, 17][..]),
            ports,
            0..8u32,
            0..8u32,
        )
            .prop_map(|(protocol, ports, a, b)| {
                let address = |n| IpAddr::from(Ipv4Addr::from_bits(FIRST + n));
                TrafficSelector {
                    protocol,
                    ..TrafficSelector::range(address(a.min(b)), address(a.max(b))).unwrap()
                }
                .with_ports(ports)
            })
    }

    fn selectors() -> impl Strategy<Value = Vec<TrafficSelector>> {
        prop::collection::vec(selector(), 0..6)
    }

    proptest! {
        #[test]
        fn intersecting_and_containing_agree_with_the_oracle(a in selector(), b in selector()) {
            let both: Vec<_> = a.intersect(&b).into_iter().collect();
            for packet in universe() {
                let want = covers(&[a], packet) && covers(&[b], packet);
                prop_assert_eq!(covers(&both, packet), want, "{:?}", packet);
            }
            if a.is_subset_of(&b) {
                prop_assert!(universe().all(|packet| !covers(&[a], packet) || covers(&[b], packet)));
            }
        }

        //= test security S-20
        #[test]
        fn narrowing_keeps_what_both_sides_want(offered in selectors(), configured in selectors()) {
            let narrowed = narrow(&offered, &configured);
            for packet in universe() {
                let want = covers(&offered, packet) && covers(&configured, packet);
                prop_assert_eq!(covers(&narrowed, packet), want, "{:?}", packet);
            }
            for (i, a) in narrowed.iter().enumerate() {
                prop_assert!(offered.iter().any(|offer| offer.contains(a)));
                for (k, b) in narrowed.iter().enumerate() {
                    prop_assert!(i == k || !a.contains(b), "{} holds {}", a, b);
                }
            }
        }

        //= test rfc7296 2.9-2
        #[test]
        fn the_first_choice_comes_first(first in selector(), rest in selectors(), configured in selectors()) {
            let offered = [vec![first], rest].concat();
            let narrowed = narrow(&offered, &configured);
            if configured.iter().any(|allowed| allowed.contains(&first)) {
                prop_assert!(narrowed[0].contains(&first));
            }
        }
    }
}
