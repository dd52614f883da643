//! Selectors of one direction, RFC 4301 section 4.4.1: which packets an SA may carry.

use std::net::IpAddr;

use crate::error::SelectorError;
use crate::flow::FlowKey;
use crate::spd::Spd;

/// A protocol, two address ranges and two port ranges, all inclusive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Selector {
    pub(crate) protocol: u8,
    pub(crate) source: (IpAddr, IpAddr),
    pub(crate) source_ports: (u16, u16),
    pub(crate) destination: (IpAddr, IpAddr),
    pub(crate) destination_ports: (u16, u16),
}

/// Any of these, but none of those that are for others.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    any: Vec<Selector>,
    /// There may be thousands within a wide one.
    except: Spd<()>,
}

impl Selector {
    /// Every port, and packets whose ports are not there or cannot be seen.
    pub const ANY_PORT: (u16, u16) = (0, u16::MAX);
    /// Only packets whose ports are not there or cannot be seen.
    pub const OPAQUE: (u16, u16) = (u16::MAX, 0);

    /// Makes a selector from first and last addresses and ports; protocol 0 is any.
    ///
    /// For ICMP, ICMPv6 and Mobility Header, `source_ports` holds the type in the high octet
    /// and the code in the low one; `destination_ports` is about the other direction and is not
    /// looked at (RFC 4301 section 4.4.1.3).
    ///
    /// # Errors
    /// Two families, or a range that ends before it starts (unless it is [`Self::OPAQUE`]).
    pub fn new(
        protocol: u8,
        source: (IpAddr, IpAddr),
        source_ports: (u16, u16),
        destination: (IpAddr, IpAddr),
        destination_ports: (u16, u16),
    ) -> Result<Self, SelectorError> {
        let v4 = source.0.is_ipv4();
        if [source.1, destination.0, destination.1]
            .iter()
            .any(|a| a.is_ipv4() != v4)
        {
            return Err(SelectorError::MixedFamilies);
        }
        if source.0 > source.1 || destination.0 > destination.1 {
            return Err(SelectorError::AddressOrder);
        }
        for ports in [source_ports, destination_ports] {
            if ports.0 > ports.1 && ports != Self::OPAQUE {
                return Err(SelectorError::PortOrder);
            }
        }
        Ok(Self {
            protocol,
            source,
            source_ports,
            destination,
            destination_ports,
        })
    }

    /// Whether the packet of this flow may pass.
    pub fn matches(&self, flow: &FlowKey) -> bool {
        (self.protocol == 0 || self.protocol == flow.protocol)
            && is_within(self.source, flow.source)
            && is_within(self.destination, flow.destination)
            && self.ports_match(flow)
    }

    /// Orders selectors so that one that lies within another comes before it: by the sum of the
    /// address spans (which can carry out of 128 bits), then protocol, then port pairs.
    pub(crate) fn width(&self) -> (bool, u128, bool, u64) {
        let (span, carry) = span(self.source).overflowing_add(span(self.destination));
        let ports = port_count(self.source_ports) * port_count(self.destination_ports);
        (carry, span, self.protocol == 0, ports)
    }

    fn ports_match(&self, flow: &FlowKey) -> bool {
        if flow.has_type_and_code() {
            let both = (flow.source_port << 8) | (flow.destination_port & 0xff);
            return port_matches(self.source_ports, both, flow.ports_known);
        }
        port_matches(self.source_ports, flow.source_port, flow.ports_known)
            && port_matches(
                self.destination_ports,
                flow.destination_port,
                flow.ports_known,
            )
    }
}

/// Whether an address is in a range. As numbers: each packet asks twice, and octets are compared one
/// by one.
fn is_within(range: (IpAddr, IpAddr), address: IpAddr) -> bool {
    match (range, address) {
        ((IpAddr::V4(first), IpAddr::V4(last)), IpAddr::V4(address)) => {
            (first.to_bits()..=last.to_bits()).contains(&address.to_bits())
        }
        ((IpAddr::V6(first), IpAddr::V6(last)), IpAddr::V6(address)) => {
            (first.to_bits()..=last.to_bits()).contains(&address.to_bits())
        }
        _ => false,
    }
}

/// Addresses in a range, less one.
fn span(range: (IpAddr, IpAddr)) -> u128 {
    let number = |address| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    number(range.1) - number(range.0)
}

/// Ports in a range; OPAQUE lies only within "any" and counts as one.
fn port_count(range: (u16, u16)) -> u64 {
    if range == Selector::OPAQUE {
        1
    } else {
        u64::from(range.1 - range.0) + 1
    }
}

fn port_matches(range: (u16, u16), port: u16, known: bool) -> bool {
    match range {
        Selector::ANY_PORT => true,
        Selector::OPAQUE => !known,
        (first, last) => known && (first..=last).contains(&port),
    }
}

impl Selectors {
    /// A packet passes if any of these matches.
    pub fn new(selectors: Vec<Selector>) -> Self {
        Self {
            any: selectors,
            except: Spd::default(),
        }
    }

    /// Packets that any of these matches are for others, in place of what was so before.
    pub fn except(&mut self, others: Vec<Selector>) {
        self.except = others.into_iter().map(|other| (other, ())).collect();
    }

    /// Whether the packet of this flow may pass.
    pub fn matches(&self, flow: &FlowKey) -> bool {
        self.any.iter().any(|one| one.matches(flow)) && self.except.lookup(flow).is_none()
    }
}

impl From<Vec<Selector>> for Selectors {
    fn from(selectors: Vec<Selector>) -> Self {
        Self::new(selectors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Ports = (u16, u16);

    fn range(text: &str) -> (IpAddr, IpAddr) {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        (first.parse().unwrap(), last.parse().unwrap())
    }

    fn selector(protocol: u8, source: Ports, destination: Ports) -> Selector {
        let (from, to) = (range("10.0.0.0-10.0.0.255"), range("10.1.0.7"));
        Selector::new(protocol, from, source, to, destination).unwrap()
    }

    fn flow(protocol: u8, ports: Option<Ports>) -> FlowKey {
        let (source_port, destination_port) = ports.unwrap_or((0, 0));
        FlowKey {
            source: range("10.0.0.9").0,
            destination: range("10.1.0.7").0,
            protocol,
            source_port,
            destination_port,
            fragment: false,
            ports_known: ports.is_some(),
        }
    }

    #[test]
    fn ports_and_protocols_match_as_in_rfc_4301() {
        const ANY: Ports = Selector::ANY_PORT;
        const OPAQUE: Ports = Selector::OPAQUE;
        let rows = [
            ("any", 0, ANY, ANY, flow(6, Some((1, 2))), true),
            ("any, no ports", 0, ANY, ANY, flow(47, None), true),
            ("protocol", 6, ANY, ANY, flow(6, Some((1, 2))), true),
            ("other protocol", 17, ANY, ANY, flow(6, Some((1, 2))), false),
            ("port", 6, ANY, (443, 443), flow(6, Some((1, 443))), true),
            (
                "port of the other end",
                6,
                (443, 443),
                ANY,
                flow(6, Some((1, 443))),
                false,
            ),
            (
                "first of a range",
                6,
                (10, 20),
                ANY,
                flow(6, Some((10, 1))),
                true,
            ),
            (
                "last of a range",
                6,
                (10, 20),
                ANY,
                flow(6, Some((20, 1))),
                true,
            ),
            (
                "before a range",
                6,
                (10, 20),
                ANY,
                flow(6, Some((9, 1))),
                false,
            ),
            (
                "after a range",
                6,
                (10, 20),
                ANY,
                flow(6, Some((21, 1))),
                false,
            ),
            ("a later fragment", 6, ANY, (443, 443), flow(6, None), false),
            (
                "a later fragment, from port 0",
                6,
                ANY,
                (0, 443),
                flow(6, None),
                false,
            ),
            (
                "opaque, a later fragment",
                6,
                OPAQUE,
                OPAQUE,
                flow(6, None),
                true,
            ),
            (
                "opaque, a whole packet",
                6,
                OPAQUE,
                OPAQUE,
                flow(6, Some((0, 0))),
                false,
            ),
            (
                "ICMP type and code",
                1,
                (0x0301, 0x0301),
                ANY,
                flow(1, Some((3, 1))),
                true,
            ),
            (
                "other ICMP code",
                1,
                (0x0301, 0x0301),
                ANY,
                flow(1, Some((3, 2))),
                false,
            ),
            (
                "ICMP type",
                1,
                (0x0300, 0x03ff),
                ANY,
                flow(1, Some((3, 200))),
                true,
            ),
            (
                "ICMP of the other direction",
                1,
                OPAQUE,
                (0x0800, 0x0800),
                flow(1, Some((8, 0))),
                false,
            ),
            (
                "ICMP, and not this",
                58,
                (0x8000, 0x8000),
                OPAQUE,
                flow(58, Some((128, 0))),
                true,
            ),
        ];
        for (name, protocol, source, destination, flow, expected) in rows {
            assert_eq!(
                selector(protocol, source, destination).matches(&flow),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn addresses_match_to_the_ends_of_their_ranges() {
        let selector = selector(0, Selector::ANY_PORT, Selector::ANY_PORT);
        let with = |source: &str, destination: &str| FlowKey {
            source: range(source).0,
            destination: range(destination).0,
            ..flow(17, None)
        };
        assert!(selector.matches(&with("10.0.0.0", "10.1.0.7")));
        assert!(selector.matches(&with("10.0.0.255", "10.1.0.7")));
        assert!(!selector.matches(&with("10.0.1.0", "10.1.0.7")));
        assert!(!selector.matches(&with("9.255.255.255", "10.1.0.7")));
        assert!(!selector.matches(&with("10.0.0.0", "10.1.0.8")));
        assert!(!selector.matches(&with("10.1.0.7", "10.0.0.0")));
        assert!(!selector.matches(&with("::ffff:10.0.0.0", "::ffff:10.1.0.7")));

        let any = Selector::ANY_PORT;
        let (from, to) = (range("fd00::2-fd01::"), range("fd02::1"));
        let selector = Selector::new(0, from, any, to, any).unwrap();
        assert!(selector.matches(&with("fd00::2", "fd02::1")));
        assert!(selector.matches(&with("fd01::", "fd02::1")));
        assert!(selector.matches(&with("fd00:0:0:1::1", "fd02::1")));
        assert!(!selector.matches(&with("fd00::1", "fd02::1")));
        assert!(!selector.matches(&with("fd01::1", "fd02::1")));
        assert!(!selector.matches(&with("fd00::2", "fd02::2")));
        assert!(!selector.matches(&with("10.0.0.0", "10.1.0.7")));
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        let new = |source, ports, destination| {
            Selector::new(
                0,
                range(source),
                ports,
                range(destination),
                Selector::ANY_PORT,
            )
            .err()
        };
        let any = Selector::ANY_PORT;
        assert_eq!(
            new("10.0.0.1", any, "::1"),
            Some(SelectorError::MixedFamilies)
        );
        assert_eq!(
            new("10.0.0.1-::1", any, "10.0.0.1"),
            Some(SelectorError::MixedFamilies)
        );
        assert_eq!(
            new("10.0.0.2-10.0.0.1", any, "::1"),
            Some(SelectorError::MixedFamilies)
        );
        let order = Some(SelectorError::AddressOrder);
        assert_eq!(new("10.0.0.2-10.0.0.1", any, "10.0.0.1"), order);
        assert_eq!(new("10.0.0.1", any, "10.0.0.2-10.0.0.1"), order);
        assert_eq!(new("::1", (2, 1), "::1"), Some(SelectorError::PortOrder));
        assert_eq!(new("::1", Selector::OPAQUE, "::1"), None);
    }

    #[test]
    fn what_is_for_others_does_not_match() {
        let addresses = |first: &str, last: &str| (first.parse().unwrap(), last.parse().unwrap());
        let of = |first, last| {
            let (from, to) = (
                addresses("10.1.0.0", "10.1.255.255"),
                addresses(first, last),
            );
            Selector::new(0, from, Selector::ANY_PORT, to, Selector::ANY_PORT).unwrap()
        };
        let flow = |destination: &str| FlowKey {
            source: "10.1.0.1".parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 17,
            source_port: 1,
            destination_port: 2,
            fragment: false,
            ports_known: true,
        };
        let mut selectors = Selectors::new(vec![of("10.2.0.0", "10.2.255.255")]);
        assert!(selectors.matches(&flow("10.2.1.1")));
        selectors.except(vec![of("10.2.1.0", "10.2.1.255")]);
        assert!(!selectors.matches(&flow("10.2.1.1")));
        assert!(selectors.matches(&flow("10.2.2.1")));
        selectors.except(Vec::new());
        assert!(selectors.matches(&flow("10.2.1.1")));
    }

    #[test]
    fn no_selectors_match_nothing() {
        assert!(!Selectors::default().matches(&flow(6, Some((1, 2)))));
    }
    #[test]
    fn of_thousands_that_are_for_others_each_counts() {
        let host = |n: u16| {
            let [high, low] = n.to_be_bytes();
            IpAddr::from([10, 0, high, low])
        };
        let to = |n: u16| {
            let any = Selector::ANY_PORT;
            let from = range("10.9.0.1");
            Selector::new(0, from, any, (host(n), host(n)), any).unwrap()
        };
        let all = Selector::new(
            0,
            range("10.9.0.0-10.9.255.255"),
            Selector::ANY_PORT,
            range("10.0.0.0-10.0.255.255"),
            Selector::ANY_PORT,
        );
        let mut selectors = Selectors::new(vec![all.unwrap()]);
        selectors.except((0..2000).map(|n| to(2 * n)).collect());
        for n in 0..4000 {
            let flow = FlowKey {
                source: range("10.9.0.1").0,
                destination: host(n),
                ..flow(6, Some((1, 2)))
            };
            assert_eq!(selectors.matches(&flow), n % 2 == 1, "{n}");
        }
    }
}
