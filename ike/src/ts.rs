//! Traffic selectors and their narrowing, RFC 7296 sections 2.9 and 3.13: pure functions.

mod narrow;
mod ranges;
mod text;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use narrow::{MAX_SELECTORS, flow_selectors, narrow};
pub(crate) use ranges::{Ranges, without};
pub use text::ParseTsError;

use crate::event::PacketFlow;

/// One traffic selector: a protocol, an address range and a port range, all inclusive.
///
/// `start` and `end` are of one address family and `start <= end`. For ICMP and ICMPv6 the
/// ports hold type and code as RFC 7296 section 3.13.1 lays down. "Any" ports are 0 to 65535;
/// OPAQUE is 65535 to 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct TrafficSelector {
    /// IP protocol, or 0 for any.
    pub protocol: u8,
    /// First port, host byte order.
    pub start_port: u16,
    /// Last port, host byte order.
    pub end_port: u16,
    /// First address.
    pub start: IpAddr,
    /// Last address.
    pub end: IpAddr,
}

//= rfc7296 3.13.1-1 3.13.1-2
/// Any port, and packets whose ports cannot be known.
const ANY_PORTS: (u16, u16) = (0, u16::MAX);
//= rfc7296 3.13.1-4
/// Only packets whose ports cannot be known.
const OPAQUE_PORTS: (u16, u16) = (u16::MAX, 0);

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const MOBILITY_HEADER: u8 = 135;

impl TrafficSelector {
    /// All packets with an address from `start` to `end`. `None` if that is no range.
    pub fn range(start: IpAddr, end: IpAddr) -> Option<Self> {
        let selector = Self {
            protocol: 0,
            start_port: ANY_PORTS.0,
            end_port: ANY_PORTS.1,
            start,
            end,
        };
        selector.is_valid().then_some(selector)
    }

    /// All packets with this address.
    pub fn host(address: IpAddr) -> Self {
        Self {
            protocol: 0,
            start_port: ANY_PORTS.0,
            end_port: ANY_PORTS.1,
            start: address,
            end: address,
        }
    }

    /// All packets with an address that has the first `prefix_len` bits of `address`. `None` if
    /// that is more bits than the address has.
    pub fn subnet(address: IpAddr, prefix_len: u8) -> Option<Self> {
        let width = address_bits(address);
        let host_bits = width.checked_sub(u32::from(prefix_len))?;
        // A shift by all 128 bits would overflow: everything is host part then.
        let host_mask = u128::MAX.checked_shr(128 - host_bits).unwrap_or_default();
        let number = to_number(address);
        Self::range(
            from_number(address, number & !host_mask),
            from_number(address, number | host_mask),
        )
    }

    /// The subnet that the address range is, if it is one.
    pub fn as_subnet(&self) -> Option<(IpAddr, u8)> {
        let differing = to_number(self.start) ^ to_number(self.end);
        let prefix_len = differing
            .leading_zeros()
            .checked_sub(128 - address_bits(self.start))?;
        let prefix_len = u8::try_from(prefix_len).ok()?;
        let subnet = Self::subnet(self.start, prefix_len)?;
        ((subnet.start, subnet.end) == (self.start, self.end)).then_some((self.start, prefix_len))
    }

    //= security S-39
    /// Whether addresses and ports are of the form that the type lays down.
    pub fn is_valid(&self) -> bool {
        self.start.is_ipv4() == self.end.is_ipv4()
            && self.start <= self.end
            && (self.start_port <= self.end_port || self.is_opaque())
    }

    /// Whether only packets are meant whose ports cannot be known: RFC 4301 section 4.4.1.1.
    pub fn is_opaque(&self) -> bool {
        self.ports() == OPAQUE_PORTS
    }

    /// Whether any port is meant, and packets whose ports cannot be known as well.
    pub fn is_any_port(&self) -> bool {
        self.ports() == ANY_PORTS
    }

    /// The packets that both selectors mean.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (a, b) if a == b => a,
            _ => return None,
        };
        let (start_port, end_port) = intersect_ports(self.ports(), other.ports())?;
        if self.start.is_ipv4() != other.start.is_ipv4() {
            return None;
        }
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start <= end).then_some(Self {
            protocol,
            start_port,
            end_port,
            start,
            end,
        })
    }

    /// Whether `other` means each packet that this one means.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.intersect(other) == Some(*self)
    }

    /// Whether this one means each packet that `other` means.
    pub fn contains(&self, other: &Self) -> bool {
        other.is_subset_of(self)
    }

    /// Whether the address is in the range.
    pub fn contains_address(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && (self.start..=self.end).contains(&address)
    }

    /// Whether a packet is meant that has this address and this port on the selector's side.
    /// `port` is `None` if it cannot be known (a later fragment) or the protocol has none.
    pub fn matches(&self, protocol: u8, address: IpAddr, port: Option<u16>) -> bool {
        (self.protocol == 0 || self.protocol == protocol)
            && self.contains_address(address)
            && match port {
                _ if self.is_any_port() => true,
                None => self.is_opaque(),
                Some(port) => (self.start_port..=self.end_port).contains(&port),
            }
    }

    fn ports(&self) -> (u16, u16) {
        (self.start_port, self.end_port)
    }

    fn with_ports(self, (start_port, end_port): (u16, u16)) -> Self {
        Self {
            start_port,
            end_port,
            ..self
        }
    }
}

/// Whether a packet is meant by a selector of each side.
///
/// ICMP has no port of its own for the destination: type and code of a packet are looked up at
/// the side that sends it (RFC 4301 section 4.4.1.3).
pub fn flow_matches(
    source: &[TrafficSelector],
    destination: &[TrafficSelector],
    flow: &PacketFlow,
) -> bool {
    let protocol = flow.protocol;
    if has_type_and_code(protocol) {
        let type_and_code = flow.source_port << 8 | flow.destination_port & 0xff;
        return source
            .iter()
            .any(|ts| ts.matches(protocol, flow.source, Some(type_and_code)))
            && destination.iter().any(|ts| {
                ts.with_ports(ANY_PORTS)
                    .matches(protocol, flow.destination, None)
            });
    }
    let side = |selectors: &[TrafficSelector], address, port| {
        selectors
            .iter()
            .any(|ts| ts.matches(protocol, address, Some(port)))
    };
    side(source, flow.source, flow.source_port)
        && side(destination, flow.destination, flow.destination_port)
}

fn has_type_and_code(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMPV6 | MOBILITY_HEADER)
}

//= rfc7296 3.13.1-3
/// "Any" includes OPAQUE (RFC 7296 section 3.13.1). A range of ports does not, and has nothing
/// in common with OPAQUE, whose end lies before its start.
fn intersect_ports(a: (u16, u16), b: (u16, u16)) -> Option<(u16, u16)> {
    match (a, b) {
        (ANY_PORTS, ports) | (ports, ANY_PORTS) => Some(ports),
        (OPAQUE_PORTS, OPAQUE_PORTS) => Some(OPAQUE_PORTS),
        (a, b) => {
            let (start, end) = (a.0.max(b.0), a.1.min(b.1));
            (start <= end).then_some((start, end))
        }
    }
}

fn address_bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BITS,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of the same family as `like` with this number; bits too many are dropped.
fn from_number(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => {
            let [.., a, b, c, d] = number.to_be_bytes();
            IpAddr::from([a, b, c, d])
        }
        IpAddr::V6(_) => IpAddr::from(number.to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(text: &str) -> TrafficSelector {
        text.parse().unwrap()
    }

    //= test rfc7296 3.13.1-3 3.13.1-4
    #[test]
    fn intersections() {
        for (a, b, want) in [
            ("10.0.0.0/8", "10.1.0.0/16", Some("10.1.0.0/16")),
            (
                "10.0.0.0-10.0.0.9",
                "10.0.0.5-10.0.0.20",
                Some("10.0.0.5-10.0.0.9"),
            ),
            ("10.0.0.0/24", "10.0.1.0/24", None),
            ("0.0.0.0/0", "::/0", None),
            ("10.0.0.1[tcp]", "10.0.0.1[udp]", None),
            ("10.0.0.1", "10.0.0.1[udp/53]", Some("10.0.0.1[udp/53]")),
            (
                "10.0.0.1[tcp/1-1024]",
                "10.0.0.1[tcp/80-2000]",
                Some("10.0.0.1[tcp/80-1024]"),
            ),
            ("10.0.0.1[tcp/1-79]", "10.0.0.1[tcp/80]", None),
            (
                "10.0.0.1[tcp]",
                "10.0.0.1[tcp/opaque]",
                Some("10.0.0.1[tcp/opaque]"),
            ),
            ("10.0.0.1[tcp/0-65534]", "10.0.0.1[tcp/opaque]", None),
        ] {
            assert_eq!(ts(a).intersect(&ts(b)), want.map(ts), "{a} with {b}");
            assert_eq!(ts(b).intersect(&ts(a)), want.map(ts), "{b} with {a}");
        }
    }

    #[test]
    fn subnets_of_every_length_are_found_again() {
        for address in ["10.1.2.3", "2001:db8::1"] {
            let address: IpAddr = address.parse().unwrap();
            for len in 0..=address_bits(address) as u8 {
                let subnet = TrafficSelector::subnet(address, len).unwrap();
                assert!(subnet.contains_address(address));
                assert_eq!(subnet.as_subnet(), Some((subnet.start, len)));
            }
        }
        assert_eq!(
            TrafficSelector::subnet(Ipv4Addr::LOCALHOST.into(), 33),
            None
        );
        assert_eq!(ts("10.0.0.1-10.0.0.2").as_subnet(), None);
        assert_eq!(ts("10.0.0.1-10.0.0.4").as_subnet(), None);
    }

    //= test rfc7296 3.13.1-3
    #[test]
    fn opaque_means_only_packets_without_ports() {
        let address = "10.0.0.1".parse().unwrap();
        for (selector, known, unknown) in [
            ("10.0.0.1[tcp]", true, true),
            ("10.0.0.1[tcp/opaque]", false, true),
            ("10.0.0.1[tcp/1-1024]", true, false),
        ] {
            assert_eq!(
                ts(selector).matches(6, address, Some(80)),
                known,
                "{selector}"
            );
            assert_eq!(
                ts(selector).matches(6, address, None),
                unknown,
                "{selector}"
            );
        }
    }

    #[test]
    fn icmp_type_and_code_belong_to_the_sender() {
        let echo = PacketFlow {
            protocol: 1,
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            source_port: 8,
            destination_port: 0,
        };
        let (send, none) = (ts("10.0.0.1[icmp/8(0)]"), ts("10.0.0.2[icmp/opaque]"));
        assert!(flow_matches(&[send], &[none], &echo));
        let reply = PacketFlow {
            source: echo.destination,
            destination: echo.source,
            source_port: 0,
            ..echo
        };
        assert!(!flow_matches(&[none], &[send], &reply));
    }

    #[test]
    fn a_flow_needs_both_sides() {
        let flow = PacketFlow {
            protocol: 17,
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            source_port: 100,
            destination_port: 300,
        };
        let (source, destination) = ([ts("10.0.0.1[udp/100]")], [ts("10.0.0.2[udp/300]")]);
        assert!(flow_matches(&source, &destination, &flow));
        assert!(!flow_matches(&destination, &source, &flow));
        assert!(!flow_matches(&source, &[ts("10.0.0.2[udp/301]")], &flow));
        assert!(!flow_matches(&source, &[], &flow));
    }
}
