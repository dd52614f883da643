//! Selectors of one direction, RFC 4301 section 4.4.1: which packets an SA may carry.

use std::net::IpAddr;

use crate::error::SelectorError;
use crate::flow::FlowKey;

/// A protocol, two address ranges and two port ranges, all inclusive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Selector {
    protocol: u8,
    source: (IpAddr, IpAddr),
    source_ports: (u16, u16),
    destination: (IpAddr, IpAddr),
    destination_ports: (u16, u16),
}

/// Any of these.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selectors(Vec<Selector>);

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
            && (self.source.0..=self.source.1).contains(&flow.source)
            && (self.destination.0..=self.destination.1).contains(&flow.destination)
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
        Self(selectors)
    }

    /// Whether the packet of this flow may pass.
    pub fn matches(&self, flow: &FlowKey) -> bool {
        self.0.iter().any(|selector| selector.matches(flow))
    }
}

impl From<Vec<Selector>> for Selectors {
    fn from(selectors: Vec<Selector>) -> Self {
        Self(selectors)
    }
}
