//! Traffic selectors and their narrowing, RFC 7296 sections 2.9 and 3.13: pure functions.

use std::net::IpAddr;

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

impl TrafficSelector {
    /// Whether addresses and ports are of the form that the type lays down.
    pub fn is_valid(&self) -> bool {
        self.start.is_ipv4() == self.end.is_ipv4()
            && self.start <= self.end
            && (self.start_port <= self.end_port || self.is_opaque())
    }

    /// Whether only packets are meant whose ports cannot be known: RFC 4301 section 4.4.1.1.
    pub fn is_opaque(&self) -> bool {
        (self.start_port, self.end_port) == (u16::MAX, 0)
    }
}
