//! What a frame on the wire is: IKE, ESP, or something that should have been inside ESP.
//!
//! Written for a judge, not for a receiver: whatever it does not know for harmless it names.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// What every payload contains that the demo sends.
pub const CANARY: &[u8] = b"obol-demo: nobody on the wire may read this";

/// What a frame is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// IKE on port 500, or on 4500 after the non-ESP marker (RFC 3948 section 2.2).
    Ike,
    /// ESP, IP protocol 50.
    Esp,
    /// ESP in UDP, RFC 3948.
    EspInUdp,
    /// The single octet that keeps a NAT mapping alive, RFC 3948 section 2.3.
    Keepalive,
    /// Address resolution.
    Arp,
    /// A packet of a protected flow outside ESP, or any packet that shows a demo payload.
    Clear(String),
    /// Anything else.
    Other(String),
}

impl Class {
    /// Whether such a frame may be on a wire on which the protected flows are the only traffic.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        !matches!(self, Self::Clear(_) | Self::Other(_))
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ike => f.write_str("IKE"),
            Self::Esp => f.write_str("ESP"),
            Self::EspInUdp => f.write_str("ESP in UDP"),
            Self::Keepalive => f.write_str("NAT keepalive"),
            Self::Arp => f.write_str("ARP"),
            Self::Clear(what) => write!(f, "clear: {what}"),
            Self::Other(what) => write!(f, "other: {what}"),
        }
    }
}

/// The flows that may appear inside ESP only.
#[derive(Clone, Debug)]
pub struct Protected {
    /// Addresses of networks that are reached through a tunnel: network and prefix length.
    pub networks: Vec<(Ipv4Addr, u8)>,
    /// TCP ports of protected services, at either end.
    pub tcp: Vec<u16>,
    /// UDP ports of protected services, at either end.
    pub udp: Vec<u16>,
}

/// Tells classes apart; remembers the first fragments, whose followers have no ports.
#[derive(Debug)]
pub struct Classifier {
    protected: Protected,
    first_fragments: BTreeMap<FragmentKey, Class>,
}

/// Source, destination, protocol and identification: what joins fragments, RFC 791 section 3.2.
type FragmentKey = ([u8; 8], u8, [u8; 2]);

impl Classifier {
    /// A classifier for these flows.
    #[must_use]
    pub fn new(protected: Protected) -> Self {
        Self {
            protected,
            first_fragments: BTreeMap::new(),
        }
    }

    /// What this Ethernet frame is.
    pub fn classify(&mut self, frame: &[u8]) -> Class {
        let class = match (frame.get(12..14), frame.get(14..)) {
            (Some([0x08, 0x00]), Some(packet)) => self.ipv4(packet),
            (Some([0x08, 0x06]), _) => Class::Arp,
            (Some([0x86, 0xdd]), Some(packet)) => ipv6(packet),
            (Some([a, b]), _) => Class::Other(format!("ethertype {a:02x}{b:02x}")),
            _ => Class::Other("short frame".to_owned()),
        };
        if contains(frame, CANARY) && !matches!(class, Class::Clear(_)) {
            return Class::Clear(format!("a demo payload in {class}"));
        }
        class
    }

    fn ipv4(&mut self, packet: &[u8]) -> Class {
        let Some(ip) = Ipv4::parse(packet) else {
            return Class::Other("broken IPv4".to_owned());
        };
        if !ip.is_fragment() {
            return self.whole(&ip);
        }
        if ip.fragment_offset != 0 {
            let first = self.first_fragments.get(&ip.key).cloned();
            return first.unwrap_or_else(|| Class::Other("fragment without its first".to_owned()));
        }
        let class = self.whole(&ip);
        if self.first_fragments.len() == FIRST_FRAGMENTS {
            self.first_fragments.clear();
        }
        self.first_fragments.insert(ip.key, class.clone());
        class
    }

    fn whole(&self, ip: &Ipv4<'_>) -> Class {
        let Ipv4 {
            source,
            destination,
            ..
        } = ip;
        if self.is_inner(*source) || self.is_inner(*destination) {
            return Class::Clear(format!("{source} to {destination}"));
        }
        match ip.protocol {
            ESP => Class::Esp,
            UDP => self.udp(ip),
            TCP => self.tcp(ip),
            ICMP => self.icmp(ip),
            other => Class::Other(format!("IP protocol {other}, {source} to {destination}")),
        }
    }

    fn is_inner(&self, address: Ipv4Addr) -> bool {
        self.protected.networks.iter().any(|(network, prefix)| {
            let host_bits = 32 - u32::from(*prefix);
            let differing = address.to_bits() ^ network.to_bits();
            differing.checked_shr(host_bits).unwrap_or(0) == 0
        })
    }

    fn udp(&self, ip: &Ipv4<'_>) -> Class {
        let Some((source, destination)) = ports(ip.payload) else {
            return Class::Other("short UDP".to_owned());
        };
        if self
            .protected
            .udp
            .iter()
            .any(|port| [source, destination].contains(port))
        {
            return Class::Clear(format!("UDP {source} to {destination}"));
        }
        // Both daemons of the demo use these ports at both ends.
        match ((source, destination), ip.payload.get(8..)) {
            ((500, 500), _) => Class::Ike,
            ((4500, 4500), Some([0xff])) => Class::Keepalive,
            ((4500, 4500), Some([0, 0, 0, 0, ..])) => Class::Ike,
            ((4500, 4500), Some([_, _, _, _, ..])) => Class::EspInUdp,
            _ => Class::Other(format!("UDP {source} to {destination}")),
        }
    }

    fn tcp(&self, ip: &Ipv4<'_>) -> Class {
        let Some((source, destination)) = ports(ip.payload) else {
            return Class::Other("short TCP".to_owned());
        };
        if self
            .protected
            .tcp
            .iter()
            .any(|port| [source, destination].contains(port))
        {
            return Class::Clear(format!("TCP {source} to {destination}"));
        }
        Class::Other(format!("TCP {source} to {destination}"))
    }

    /// An error quotes the packet it is about (RFC 792): quoting a protected one gives it away.
    /// One about IKE or ESP is what a host sends whose daemon is dead.
    fn icmp(&self, ip: &Ipv4<'_>) -> Class {
        let Some(kind) = ip.payload.first() else {
            return Class::Other("short ICMP".to_owned());
        };
        if !matches!(kind, 3 | 4 | 5 | 11 | 12) {
            return Class::Other(format!(
                "ICMP type {kind}, {} to {}",
                ip.source, ip.destination
            ));
        }
        let quoted = ip.payload.get(8..).and_then(Ipv4::parse);
        match quoted.map(|quoted| self.whole(&quoted)) {
            Some(Class::Clear(what)) => Class::Clear(format!("ICMP error about {what}")),
            Some(about @ (Class::Ike | Class::Esp | Class::EspInUdp | Class::Keepalive)) => about,
            _ => Class::Other(format!("ICMP type {kind}")),
        }
    }
}

/// First fragments remembered; a peer's kernel sends the followers at once.
const FIRST_FRAGMENTS: usize = 1024;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ESP: u8 = 50;

/// The parts of an IPv4 packet (RFC 791) that a judge asks for.
struct Ipv4<'a> {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    /// In units of 8 octets.
    fragment_offset: u16,
    more_fragments: bool,
    key: FragmentKey,
    payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// The total length is not looked at: what an ICMP error quotes is cut off.
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let header: &[u8; 20] = packet.first_chunk()?;
        if header[0] >> 4 != 4 {
            return None;
        }
        let header_length = usize::from(header[0] & 0x0f) * 4;
        let addresses: [u8; 8] = header[12..20].try_into().ok()?;
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
        let flags = u16::from_be_bytes([header[6], header[7]]);
        Some(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3),
            destination: Ipv4Addr::new(d0, d1, d2, d3),
            protocol: header[9],
            fragment_offset: flags & 0x1fff,
            more_fragments: flags & 0x2000 != 0,
            key: (addresses, header[9], [header[4], header[5]]),
            payload: packet.get(header_length.max(20)..)?,
        })
    }

    fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }
}

fn ipv6(packet: &[u8]) -> Class {
    let next_header = packet.get(6).copied().unwrap_or_default();
    Class::Other(format!("IPv6, next header {next_header}"))
}

fn ports(segment: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *segment.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window[0] == needle[0] && window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 4] = [192, 168, 0, 1];
    const B: [u8; 4] = [192, 168, 0, 2];
    const POD: [u8; 4] = [172, 16, 2, 1];

    fn classifier() -> Classifier {
        Classifier::new(Protected {
            networks: vec![
                (Ipv4Addr::new(172, 16, 0, 0), 16),
                (Ipv4Addr::new(10, 200, 0, 0), 24),
            ],
            tcp: vec![27017],
            udp: vec![8472],
        })
    }

    fn ip(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0];
        packet.extend(source);
        packet.extend(destination);
        packet.extend(payload);
        packet
    }

    fn segment(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        segment.extend([0; 4]);
        segment.extend(payload);
        segment
    }

    fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend(ethertype.to_be_bytes());
        frame.extend(packet);
        frame
    }

    fn class_of(packet: &[u8]) -> Class {
        classifier().classify(&ethernet(0x0800, packet))
    }

    fn clear(what: &str) -> Class {
        Class::Clear(what.to_owned())
    }

    fn other(what: &str) -> Class {
        Class::Other(what.to_owned())
    }

    //= test rfc4303 2-1
    #[test]
    fn what_protects_is_told_apart() {
        let udp = |port, payload: &[u8]| class_of(&ip(A, B, UDP, &segment(port, port, payload)));
        assert_eq!(udp(500, &[1; 28]), Class::Ike);
        assert_eq!(udp(4500, &[0, 0, 0, 0, 9, 9]), Class::Ike);
        assert_eq!(udp(4500, &[0, 0, 1, 0, 0, 0, 0, 1]), Class::EspInUdp);
        assert_eq!(udp(4500, &[0xff]), Class::Keepalive);
        assert_eq!(class_of(&ip(B, A, ESP, &[0; 40])), Class::Esp);
        assert_eq!(
            classifier().classify(&ethernet(0x0806, &[0; 28])),
            Class::Arp
        );
    }

    #[test]
    fn protected_flows_outside_esp_are_clear() {
        let rows = [
            (
                ip(A, B, TCP, &segment(40000, 27017, b"")),
                "TCP 40000 to 27017",
            ),
            (
                ip(A, B, TCP, &segment(27017, 40000, b"")),
                "TCP 27017 to 40000",
            ),
            (
                ip(A, B, UDP, &segment(50000, 8472, b"")),
                "UDP 50000 to 8472",
            ),
            (ip(A, POD, ICMP, &[8, 0]), "192.168.0.1 to 172.16.2.1"),
            (ip(POD, B, ESP, &[0; 40]), "172.16.2.1 to 192.168.0.2"),
            (
                ip([10, 200, 0, 1], B, TCP, &[]),
                "10.200.0.1 to 192.168.0.2",
            ),
        ];
        for (packet, what) in rows {
            assert_eq!(class_of(&packet), clear(what));
        }
    }

    #[test]
    fn a_payload_of_the_demo_is_clear_wherever_it_is() {
        let payload = [&[7; 16][..], CANARY, &[7; 3]].concat();
        let seen = class_of(&ip(A, B, ESP, &payload));
        assert_eq!(seen, clear("a demo payload in ESP"));
        let cut = &CANARY[..CANARY.len() - 1];
        assert_eq!(class_of(&ip(A, B, ESP, cut)), Class::Esp);
        let frame = ethernet(0x88b5, CANARY);
        assert_eq!(
            classifier().classify(&frame),
            clear("a demo payload in other: ethertype 88b5")
        );
    }

    #[test]
    fn an_icmp_error_is_judged_by_what_it_quotes() {
        let error = |quoted: Vec<u8>| {
            class_of(&ip(
                B,
                A,
                ICMP,
                &[&[3, 2, 0, 0, 0, 0, 0, 0][..], &quoted].concat(),
            ))
        };
        assert_eq!(error(ip(A, B, ESP, &[0; 8])), Class::Esp);
        assert_eq!(error(ip(A, B, UDP, &segment(500, 500, &[]))), Class::Ike);
        let leaked = error(ip(A, B, TCP, &segment(40000, 27017, &[])));
        assert_eq!(leaked, clear("ICMP error about TCP 40000 to 27017"));
        assert_eq!(error(vec![]), other("ICMP type 3"));
    }

    #[test]
    fn fragments_are_what_their_first_is() {
        let mut classifier = classifier();
        let mut fragment = |flags: [u8; 2], protocol, payload: &[u8]| {
            let mut packet = ip(A, B, protocol, payload);
            packet[6..8].copy_from_slice(&flags);
            classifier.classify(&ethernet(0x0800, &packet))
        };
        assert_eq!(
            fragment([0, 9], UDP, &[1; 8]),
            other("fragment without its first")
        );
        assert_eq!(
            fragment([0x20, 0], UDP, &segment(4500, 4500, &[1; 8])),
            Class::EspInUdp
        );
        assert_eq!(fragment([0, 9], UDP, &[1; 8]), Class::EspInUdp);
        assert_eq!(
            fragment([0x20, 0], UDP, &segment(9, 8472, &[1; 8])),
            clear("UDP 9 to 8472")
        );
        assert_eq!(fragment([0, 9], UDP, &[1; 8]), clear("UDP 9 to 8472"));
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert_eq!(
            class_of(&ip(A, B, TCP, &segment(1, 22, &[]))),
            other("TCP 1 to 22")
        );
        assert_eq!(
            class_of(&ip(A, B, 89, &[])),
            other("IP protocol 89, 192.168.0.1 to 192.168.0.2")
        );
        assert_eq!(class_of(&[0x45]), other("broken IPv4"));
        assert_eq!(classifier().classify(&[0; 5]), other("short frame"));
        let mut six = [0; 40];
        six[6] = 58;
        assert_eq!(
            classifier().classify(&ethernet(0x86dd, &six)),
            other("IPv6, next header 58")
        );
        for class in [clear(""), other("")] {
            assert!(!class.is_expected());
        }
        assert!(Class::Esp.is_expected());
    }
}
