//! Traffic selectors as an operator writes them: `10.0.0.0/16`, `10.0.0.1-10.0.0.9`,
//! `10.0.0.1[tcp/80]`, `::/0[udp/1-1024]`, `10.0.0.0/8[icmp/8(0)]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{ANY_PORTS, OPAQUE_PORTS, TrafficSelector, has_type_and_code};

/// Why a text is no traffic selector.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseTsError {
    /// It is `dynamic`, which only the caller can put an address to.
    #[error("`dynamic` stands for an address that is not known here")]
    Dynamic,
    /// Neither address nor subnet nor range.
    #[error("`{0}` is no address, subnet (10.0.0.0/8) or range (10.0.0.1-10.0.0.9)")]
    Address(String),
    /// A prefix longer than the address, or no number.
    #[error("`/{0}` is no prefix length of that address")]
    Prefix(String),
    /// A range that ends before it starts, or in the other address family.
    #[error("the range `{0}` does not end after its start")]
    Range(String),
    /// Something after the address that is not `[protocol]` or `[protocol/port]`.
    #[error("`{0}` is not of the form [protocol/port]")]
    Brackets(String),
    /// Neither a protocol that is known by name nor a number up to 255.
    #[error("`{0}` is no protocol: give its number")]
    Protocol(String),
    /// Neither a port nor a range of ports nor `any` nor `opaque`.
    #[error("`{0}` is no port (80), range of ports (1-1024), `any` or `opaque`")]
    Port(String),
    /// Ports with a protocol that leaves them undefined, RFC 7296 section 3.13.1.
    #[error("ports need a protocol, as in [tcp/80]")]
    PortsWithoutProtocol,
}

/// Names of protocols; of several for one number, the first is printed.
const PROTOCOLS: [(&str, u8); 17] = [
    ("any", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("ospf", 89),
    ("pim", 103),
    ("sctp", 132),
    ("mh", 135),
    ("udplite", 136),
];

impl FromStr for TrafficSelector {
    type Err = ParseTsError;

    fn from_str(text: &str) -> Result<Self, ParseTsError> {
        let (addresses, suffix) = match text.split_once('[') {
            None => (text, None),
            Some((addresses, suffix)) => match suffix.strip_suffix(']') {
                Some(inner) => (addresses, Some(inner)),
                None => return Err(ParseTsError::Brackets(format!("[{suffix}"))),
            },
        };
        let mut selector = parse_addresses(addresses.trim())?;
        let Some(suffix) = suffix else {
            return Ok(selector);
        };
        let (protocol, ports) = match suffix.split_once('/') {
            None => (suffix, "any"),
            Some(both) => both,
        };
        selector.protocol = parse_protocol(protocol.trim())?;
        let ports = parse_ports(selector.protocol, ports.trim())?;
        if selector.protocol == 0 && ports != ANY_PORTS {
            return Err(ParseTsError::PortsWithoutProtocol);
        }
        Ok(selector.with_ports(ports))
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_subnet() {
            Some(_) if self.start == self.end => write!(f, "{}", self.start)?,
            Some((address, prefix_len)) => write!(f, "{address}/{prefix_len}")?,
            None => write!(f, "{}-{}", self.start, self.end)?,
        }
        if (self.protocol, self.ports()) == (0, ANY_PORTS) {
            return Ok(());
        }
        f.write_str("[")?;
        match PROTOCOLS
            .iter()
            .find(|(_, number)| *number == self.protocol)
        {
            Some((name, _)) => f.write_str(name)?,
            None => write!(f, "{}", self.protocol)?,
        }
        match self.ports() {
            ANY_PORTS => {}
            OPAQUE_PORTS => f.write_str("/opaque")?,
            (start, end) => {
                write!(f, "/{}", Port(self.protocol, start))?;
                if start != end {
                    write!(f, "-{}", Port(self.protocol, end))?;
                }
            }
        }
        f.write_str("]")
    }
}

/// A port of a protocol: with ICMP, `type(code)`.
struct Port(u8, u16);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(protocol, port) = *self;
        if has_type_and_code(protocol) {
            let [ty, code] = port.to_be_bytes();
            write!(f, "{ty}({code})")
        } else {
            write!(f, "{port}")
        }
    }
}

fn parse_addresses(text: &str) -> Result<TrafficSelector, ParseTsError> {
    if text.eq_ignore_ascii_case("dynamic") {
        return Err(ParseTsError::Dynamic);
    }
    let address = |part: &str| {
        part.trim()
            .parse::<IpAddr>()
            .map_err(|_| ParseTsError::Address(text.to_owned()))
    };
    if let Some((base, prefix)) = text.split_once('/') {
        return parse_decimal(prefix)
            .and_then(|len| u8::try_from(len).ok())
            .and_then(|len| {
                address(base)
                    .map(|base| TrafficSelector::subnet(base, len))
                    .transpose()
            })
            .ok_or_else(|| ParseTsError::Prefix(prefix.to_owned()))?;
    }
    if let Some((start, end)) = text.split_once('-') {
        return TrafficSelector::range(address(start)?, address(end)?)
            .ok_or_else(|| ParseTsError::Range(text.to_owned()));
    }
    Ok(TrafficSelector::host(address(text)?))
}

fn parse_protocol(text: &str) -> Result<u8, ParseTsError> {
    let named = PROTOCOLS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    named
        .map(|(_, number)| *number)
        .or_else(|| parse_decimal(text).and_then(|number| u8::try_from(number).ok()))
        .ok_or_else(|| ParseTsError::Protocol(text.to_owned()))
}

fn parse_ports(protocol: u8, text: &str) -> Result<(u16, u16), ParseTsError> {
    match text {
        "any" | "%any" => return Ok(ANY_PORTS),
        "opaque" => return Ok(OPAQUE_PORTS),
        _ => {}
    }
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let ports = parse_port(protocol, start).zip(parse_port(protocol, end));
    ports
        .filter(|(start, end)| start <= end)
        .ok_or_else(|| ParseTsError::Port(text.to_owned()))
}

/// A port; with ICMP either `type(code)` or, as swanctl writes it, `type * 256 + code`.
fn parse_port(protocol: u8, text: &str) -> Option<u16> {
    match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        None => parse_decimal(text),
        Some((ty, code)) if has_type_and_code(protocol) => {
            let ty = u8::try_from(parse_decimal(ty)?).ok()?;
            let code = u8::try_from(parse_decimal(code)?).ok()?;
            Some(u16::from_be_bytes([ty, code]))
        }
        Some(_) => None,
    }
}

/// Digits only: `u16::from_str` would take a sign.
fn parse_decimal(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ts(text: &str) -> Result<TrafficSelector, ParseTsError> {
        text.parse()
    }

    //= test rfc7296 3.13.1-1 3.13.1-2
    #[test]
    fn every_form_is_read_and_printed() {
        for (text, printed) in [
            ("10.0.0.0/16", "10.0.0.0/16"),
            ("10.0.3.4/16", "10.0.0.0/16"),
            ("192.168.0.1", "192.168.0.1"),
            ("192.168.0.1/32", "192.168.0.1"),
            ("10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9"),
            ("10.0.0.0 - 10.0.0.255", "10.0.0.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:db8::/32[tcp/443]", "2001:db8::/32[tcp/443]"),
            ("10.0.0.1[any]", "10.0.0.1"),
            ("10.0.0.1[6]", "10.0.0.1[tcp]"),
            ("10.0.0.1[TCP/any]", "10.0.0.1[tcp]"),
            ("10.0.0.1[udp/opaque]", "10.0.0.1[udp/opaque]"),
            ("10.0.0.1[udp/1-1024]", "10.0.0.1[udp/1-1024]"),
            ("10.0.0.1[ipv6-icmp]", "10.0.0.1[icmpv6]"),
            ("10.0.0.1[icmp/2048]", "10.0.0.1[icmp/8(0)]"),
            ("10.0.0.1[icmp/8(0)-8(255)]", "10.0.0.1[icmp/8(0)-8(255)]"),
            ("10.0.0.1[200/7]", "10.0.0.1[200/7]"),
        ] {
            let selector = ts(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.to_string(), printed);
            assert_eq!(ts(printed), Ok(selector));
        }
    }

    #[test]
    fn every_mistake_has_its_error() {
        use ParseTsError::*;
        let s = str::to_owned;
        for (text, error) in [
            ("dynamic", Dynamic),
            ("dynamic[tcp/80]", Dynamic),
            ("", Address(s(""))),
            ("example.com", Address(s("example.com"))),
            ("example.com/8", Address(s("example.com/8"))),
            ("10.0.0.0/33", Prefix(s("33"))),
            ("10.0.0.0/", Prefix(s(""))),
            ("10.0.0.0/+8", Prefix(s("+8"))),
            ("10.0.0.9-10.0.0.1", Range(s("10.0.0.9-10.0.0.1"))),
            ("10.0.0.9-::1", Range(s("10.0.0.9-::1"))),
            ("10.0.0.1[tcp", Brackets(s("[tcp"))),
            ("10.0.0.1[tcp]x", Brackets(s("[tcp]x"))),
            ("10.0.0.1[]", Protocol(s(""))),
            ("10.0.0.1[256]", Protocol(s("256"))),
            ("10.0.0.1[tcp/]", Port(s(""))),
            ("10.0.0.1[tcp/65536]", Port(s("65536"))),
            ("10.0.0.1[tcp/9-1]", Port(s("9-1"))),
            ("10.0.0.1[tcp/8(0)]", Port(s("8(0)"))),
            ("10.0.0.1[icmp/256(0)]", Port(s("256(0)"))),
            ("10.0.0.1[any/80]", PortsWithoutProtocol),
        ] {
            assert_eq!(ts(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(
            protocol in 1..=255u8,
            ports in prop_oneof![
                Just(ANY_PORTS),
                Just(OPAQUE_PORTS),
                any::<(u16, u16)>().prop_map(|(a, b)| (a.min(b), a.max(b))),
            ],
            a in any::<IpAddr>(),
            b in any::<IpAddr>(),
        ) {
            let range = TrafficSelector::range(a.min(b), a.max(b));
            let selector = TrafficSelector {
                protocol,
                ..range.unwrap_or(TrafficSelector::host(a))
            };
            let selector = selector.with_ports(ports);
            prop_assert_eq!(ts(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f:./\\-\\[\\]()tcpim]{0,40}") {
            if let Ok(selector) = ts(&text) {
                prop_assert!(selector.is_valid());
            }
        }
    }
}
