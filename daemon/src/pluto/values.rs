//! Single values of `ipsec.conf`: what a text means, or what to write for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use obol_ike::identity::Identity;
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::IdType;

/// No time is longer, so that no deadline overflows.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// `yes`, `no` and all the other words for them.
///
/// # Errors
/// What to write.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "y" | "1" => Ok(true),
        "no" | "false" | "off" | "n" | "0" => Ok(false),
        _ => Err("write yes or no".into()),
    }
}

/// A time: a number, perhaps with a fraction, and a unit; `default` is the unit without one, in
/// seconds. `%forever` is zero.
///
/// # Errors
/// What to write.
pub(crate) fn duration(text: &str, default: f64) -> Result<Duration, String> {
    const FIX: &str = "write a number with s, m, h or d, like 90m or 8h";
    if text == "%forever" {
        return Ok(Duration::ZERO);
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let unit = match &text[end..] {
        "" => default,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        _ => return Err(FIX.into()),
    };
    let number: f64 = text[..end].parse().map_err(|_| FIX)?;
    match Duration::try_from_secs_f64(number * unit) {
        Ok(time) if time <= LONGEST => Ok(time),
        _ => Err("a year is the longest time".into()),
    }
}

/// `100%`, as a number.
///
/// # Errors
/// What to write.
pub(crate) fn percent(text: &str) -> Result<u32, String> {
    let number = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok());
    number.ok_or_else(|| "write a number and %, like 100%".into())
}

/// A number of bytes (`MiB`) or packets (`Mi`), with powers of 1024.
///
/// # Errors
/// What to write.
pub(crate) fn amount(text: &str, unit: &str) -> Result<u64, String> {
    let fix = || format!("write a number, perhaps with Ki{unit}, Mi{unit} or Gi{unit}");
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let suffix = &text[end..];
    let bare = suffix.strip_suffix(unit).unwrap_or(suffix);
    let shift = match bare.strip_suffix('i').unwrap_or(bare) {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return Err(fix()),
    };
    let number: u64 = text[..end].parse().map_err(|_| fix())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "that is more than 64 bits can count".into())
}

/// What `left=` says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Host {
    /// An address.
    Addr(IpAddr),
    /// A name, to be looked up.
    Name(String),
    /// `%defaultroute`: the address that the route to the other end gives.
    DefaultRoute,
    /// `%any`: whoever it is.
    Any,
    /// `%IFNAME`: the address of a network interface.
    Interface(String),
    /// `%group`, `%opportunistic` and the like.
    Opportunistic,
}

/// What `left=` says.
///
/// # Errors
/// What to write.
pub(crate) fn host(text: &str) -> Result<Host, String> {
    const FIX: &str = "write an address, a host name, %defaultroute or %any";
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(match addr.is_unspecified() {
            true => Host::Any,
            false => Host::Addr(addr),
        });
    }
    let Some(word) = text.strip_prefix('%') else {
        // What looks like an address, and is none, is a slip and no name.
        let numbers = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        return match is_name(text) && !numbers {
            true => Ok(Host::Name(text.to_owned())),
            false => Err(FIX.into()),
        };
    };
    match word {
        "defaultroute" | "defaultroute4" | "defaultroute6" => Ok(Host::DefaultRoute),
        "any" | "any4" | "any6" => Ok(Host::Any),
        "group" | "opportunisticgroup" | "oppogroup" | "opportunistic" | "oppo" => {
            Ok(Host::Opportunistic)
        }
        name if (1..=15).contains(&name.len()) && is_name(name) => {
            Ok(Host::Interface(name.to_owned()))
        }
        _ => Err(FIX.into()),
    }
}

fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.len() < 254 && text.chars().all(fits)
}

/// What `leftid=` says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Id {
    /// This identity.
    Is(Identity),
    /// A name whose address it is.
    Resolve(String),
    /// Whoever the credentials prove.
    Any,
    /// The address of the end.
    Unset,
    /// `%fromcert`.
    FromCertificate,
    /// `%null`.
    Null,
}

/// What `leftid=` says; also a selector of `ipsec.secrets`.
///
/// # Errors
/// What is wrong.
pub(crate) fn id(text: &str) -> Result<Id, String> {
    match text {
        "" => return Err("it is empty; leave it out for the address of the end".into()),
        "%any" | "%any6" | "0.0.0.0" | "::" => return Ok(Id::Any),
        "%none" => return Ok(Id::Unset),
        "%fromcert" => return Ok(Id::FromCertificate),
        "%null" => return Ok(Id::Null),
        _ if text.starts_with('%') => {
            return Err(format!(
                "{text} is no word for an identity: %any, %none, %fromcert"
            ));
        }
        _ => {}
    }
    if let Some(hex) = text.strip_prefix("@#") {
        let hex = hex.strip_prefix("0x").unwrap_or(hex);
        return parse(&format!("@#{hex}"));
    }
    if let Some(text) = text.strip_prefix("@[") {
        let octets = text.strip_suffix(']').unwrap_or(text).as_bytes();
        return match octets.is_empty() {
            true => Err("the key ID is empty".into()),
            false => Ok(Id::Is(Identity::KeyId(octets.to_vec()))),
        };
    }
    if let Some(hex) = text.strip_prefix("@~") {
        return match parse(&format!("@#{hex}"))? {
            Id::Is(Identity::KeyId(der)) => Ok(Id::Is(Identity::Other(IdType::DER_ASN1_DN, der))),
            _ => Err("write @~ and hexadecimal digits".into()),
        };
    }
    if text.contains('=') {
        return Err(
            "obol has no distinguished names yet; use @name, user@host or an address".into(),
        );
    }
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(Id::Is(addr.into()));
    }
    match text.contains('@') {
        true => parse(text.trim_end_matches('.')),
        false if is_name(text) => Ok(Id::Resolve(text.to_owned())),
        false => Err("write @name, user@host, an address or @#hex".into()),
    }
}

/// An identity as pluto writes it.
pub(crate) fn shown(id: &Identity) -> String {
    match id {
        Identity::Fqdn(name) => format!("@{name}"),
        id => id.to_string(),
    }
}

fn parse(text: &str) -> Result<Id, String> {
    text.parse().map(Id::Is).map_err(|e| format!("{e}"))
}

/// `PROTO`, `PROTO/PORT` or `PROTO/%any`, with names as `/etc/protocols` and `/etc/services` have
/// them: the protocol, and the port if it is one.
///
/// # Errors
/// What to write.
pub(crate) fn protoport(text: &str) -> Result<(u8, Port), String> {
    let (protocol, port) = text.split_once('/').unwrap_or((text, ""));
    let protocol = protocol_number(protocol)?;
    let port = match port {
        "" | "0" | "any" => Port::All,
        "%any" => Port::Each,
        port => Port::One(port_number(port)?),
    };
    match (protocol, port) {
        (0, Port::One(_)) => Err("a port needs a protocol: tcp/27017".into()),
        found => Ok(found),
    }
}

/// The port of a selector.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Port {
    /// All of them.
    All,
    /// `%any`: whichever it is, each with an SA of its own.
    Each,
    /// This one.
    One(u16),
}

/// Those that stand in configurations; others are written as numbers.
const PROTOCOLS: &[(&str, u8)] = &[
    ("any", 0),
    ("%any", 0),
    ("all", 0),
    ("icmp", 1),
    ("ipip", 4),
    ("ipencap", 4),
    ("ipv4", 4),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("icmp6", 58),
    ("ipv6-icmp", 58),
    ("ospf", 89),
    ("l2tp", 115),
    ("sctp", 132),
];
const SERVICES: &[(&str, u16)] = &[
    ("ssh", 22),
    ("domain", 53),
    ("http", 80),
    ("ntp", 123),
    ("https", 443),
    ("syslog", 514),
    ("l2tp", 1701),
    ("l2f", 1701),
    ("nfs", 2049),
    ("iscsi-target", 3260),
    ("mysql", 3306),
    ("postgresql", 5432),
    ("geneve", 6081),
];

fn protocol_number(text: &str) -> Result<u8, String> {
    let lower = text.to_ascii_lowercase();
    let named = PROTOCOLS.iter().find(|(name, _)| *name == lower);
    let number = named
        .map(|(_, number)| *number)
        .or_else(|| lower.parse().ok());
    number.ok_or_else(|| "write tcp, udp, icmp, or the number of the protocol".into())
}

fn port_number(text: &str) -> Result<u16, String> {
    let lower = text.to_ascii_lowercase();
    let named = SERVICES.iter().find(|(name, _)| *name == lower);
    let number = named
        .map(|(_, number)| *number)
        .or_else(|| lower.parse().ok());
    number.ok_or_else(|| "write the number of the port".into())
}

/// `ADDR`, `ADDR/LEN`, or `ADDR/LEN/PROTO/PORT`.
///
/// # Errors
/// What to write.
pub(crate) fn selector(text: &str) -> Result<TrafficSelector, String> {
    const FIX: &str = "write a network, like 10.0.0.0/16, or 10.0.0.0/16/tcp/27017";
    let mut parts = text.splitn(3, '/');
    let addr: IpAddr = parts.next().unwrap_or_default().parse().map_err(|_| FIX)?;
    let whole = if addr.is_ipv4() { 32 } else { 128 };
    let length = match parts.next() {
        None => whole,
        Some(length) => length.parse().map_err(|_| FIX)?,
    };
    let network = network(addr, length).ok_or(FIX)?;
    let mut ts = TrafficSelector::subnet(network, length).ok_or(FIX)?;
    if network != addr {
        return Err(format!(
            "{addr} has bits beyond the prefix; write {network}/{length}"
        ));
    }
    if let Some(rest) = parts.next() {
        narrow(&mut ts, protoport(rest)?);
    }
    Ok(ts)
}

/// Narrows a selector to a protocol and a port.
pub(crate) fn narrow(ts: &mut TrafficSelector, (protocol, port): (u8, Port)) {
    ts.protocol = protocol;
    if let Port::One(port) = port {
        (ts.start_port, ts.end_port) = (port, port);
    }
}

fn network(addr: IpAddr, length: u8) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(addr) if length <= 32 => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Some(Ipv4Addr::from_bits(addr.to_bits() & mask).into())
        }
        IpAddr::V6(addr) if length <= 128 => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Some(Ipv6Addr::from_bits(addr.to_bits() & mask).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let table = [
            ("90", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("90m", Some(5_400_000)),
            ("500ms", Some(500)),
            ("2w", Some(1_209_600_000)),
            ("%forever", Some(0)),
            ("0", Some(0)),
            ("", None),
            ("h", None),
            ("-1h", None),
            ("0x10", None),
            ("1.2.3", None),
            ("1e9", None),
            ("99999999999999999999d", None),
        ];
        for (text, expected) in table {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(duration(text, 1.0).ok(), expected, "{text}");
        }
        assert_eq!(duration("500", 1e-3).unwrap(), Duration::from_millis(500));
    }

    #[test]
    fn amounts() {
        assert_eq!(amount("10", "B"), Ok(10));
        assert_eq!(amount("2KiB", "B"), Ok(2048));
        assert_eq!(amount("1M", "B"), Ok(1 << 20));
        assert_eq!(amount("1Gi", ""), Ok(1 << 30));
        assert_eq!(amount("8E", "B"), Ok(1 << 63));
        for bad in ["", "B", "1X", "16E", "-1", "1.5G"] {
            assert!(amount(bad, "B").is_err(), "{bad}");
        }
        assert_eq!(percent("100%"), Ok(100));
        assert!(percent("100").is_err());
    }

    #[test]
    fn hosts() {
        let table = [
            ("192.0.2.1", Host::Addr("192.0.2.1".parse().unwrap())),
            ("fd00::1", Host::Addr("fd00::1".parse().unwrap())),
            ("0.0.0.0", Host::Any),
            ("%any", Host::Any),
            ("%defaultroute", Host::DefaultRoute),
            ("%eth0", Host::Interface("eth0".into())),
            ("%group", Host::Opportunistic),
            ("gw.example.com", Host::Name("gw.example.com".into())),
        ];
        for (text, expected) in table {
            assert_eq!(host(text), Ok(expected), "{text}");
        }
        for bad in ["", "%", "10.0.0.0/8", "a b", "%a-very-long-interface-name"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn identities() {
        let is = |text: &str| Id::Is(text.parse().unwrap());
        let table = [
            ("@host.example.com", is("@host.example.com")),
            ("@host.example.com.", is("@host.example.com")),
            ("user@example.com", is("user@example.com")),
            ("192.0.2.1", is("192.0.2.1")),
            ("@#0a0b", is("@#0a0b")),
            ("@#0x0a0b", is("@#0a0b")),
            ("@[ab]", Id::Is(Identity::KeyId(b"ab".to_vec()))),
            ("@[ab", Id::Is(Identity::KeyId(b"ab".to_vec()))),
            ("%any", Id::Any),
            ("%none", Id::Unset),
            ("%fromcert", Id::FromCertificate),
            ("host.example.com", Id::Resolve("host.example.com".into())),
        ];
        for (text, expected) in table {
            assert_eq!(id(text), Ok(expected), "{text}");
        }
        for bad in ["", "@", "@#0", "@#zz", "@[", "C=US, CN=a", "%what", "a b"] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn selectors() {
        let table = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("fd00::/64", "fd00::/64"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.0.0.0/16/tcp/27017", "10.0.0.0/16[tcp/27017]"),
            ("10.0.0.0/16/udp", "10.0.0.0/16[udp]"),
        ];
        for (text, expected) in table {
            let expected: TrafficSelector = expected.parse().unwrap();
            assert_eq!(selector(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "host",
            "10.0.0.0/8/tcp/x",
            "10.0.0.0/8/any/7",
        ] {
            assert!(selector(bad).is_err(), "{bad}");
        }
        assert_eq!(protoport("udp/%any"), Ok((17, Port::Each)));
        assert_eq!(protoport("17/8472"), Ok((17, Port::One(8472))));
        assert_eq!(protoport("tcp/"), Ok((6, Port::All)));
        assert!(protoport("frob").is_err());
    }
}
