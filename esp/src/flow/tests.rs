//! What is read from headers, and what is refused.

use super::*;
use crate::testing::{ip, udp};

fn parse(packet: &[u8]) -> (FlowKey, IpInfo) {
    FlowKey::parse(packet).unwrap()
}

#[test]
fn an_ipv4_packet_says_where_it_goes() {
    let packet = ip(4, 0xb9, 17, &udp((4000, 53), b"query"));
    let (flow, info) = parse(&packet);
    let expected = FlowKey {
        source: "192.0.2.1".parse().unwrap(),
        destination: "192.0.2.2".parse().unwrap(),
        protocol: 17,
        source_port: 4000,
        destination_port: 53,
        fragment: false,
        ports_known: true,
    };
    assert_eq!(flow, expected);
    let expected = IpInfo {
        version: 4,
        header_len: 20,
        total_len: packet.len(),
        tos: 0xb9,
        ttl: 64,
        df: true,
        fragmented: false,
        transit_headers: false,
    };
    assert_eq!(info, expected);
}

#[test]
fn ipv4_options_are_skipped() {
    let mut packet = ip(
        4,
        0,
        17,
        &[&[1, 1, 1, 0][..], &udp((4000, 53), b"")].concat(),
    );
    packet[0] = 0x46;
    let (flow, info) = parse(&packet);
    assert_eq!((flow.source_port, flow.destination_port), (4000, 53));
    assert_eq!((info.header_len, info.transit_headers), (24, true));
}

#[test]
fn an_ipv6_packet_says_where_it_goes() {
    let packet = ip(6, 0xb9, 58, &[128, 3, 0, 0, 0, 1, 0, 1]);
    let (flow, info) = parse(&packet);
    assert_eq!(flow.source, "2001:db8::1".parse::<IpAddr>().unwrap());
    assert_eq!(flow.destination, "2001:db8::2".parse::<IpAddr>().unwrap());
    assert_eq!(
        (flow.protocol, flow.source_port, flow.destination_port),
        (58, 128, 3)
    );
    assert!(flow.ports_known && info.df);
    assert_eq!((info.tos, info.ttl, info.header_len), (0xb9, 64, 40));
    assert_eq!(info.total_len, packet.len());
}

#[test]
fn fragments_have_ports_only_at_their_beginning() {
    let rows = [
        // Flags and offset; fragmented, later, ports known.
        (0x4000u16, false, false, true),
        (0x0000, false, false, true),
        (0x2000, true, false, true),
        (0x2001, true, true, false),
        (0x0001, true, true, false),
    ];
    for (field, fragmented, later, known) in rows {
        let mut packet = ip(4, 0, 17, &udp((1, 2), b"abc"));
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        let (flow, info) = parse(&packet);
        let found = (info.fragmented, flow.fragment, flow.ports_known);
        assert_eq!(found, (fragmented, later, known), "{field:04x}");
        assert_eq!(flow.source_port, u16::from(known));
    }
    for (field, later) in [(1u16, false), (8, true), (9, true), (0, false)] {
        let [high, low] = field.to_be_bytes();
        let header = [17, 0, high, low, 0, 0, 0, 1];
        let packet = ip(6, 0, 44, &[&header[..], &udp((1, 2), b"abc")].concat());
        let (flow, info) = parse(&packet);
        assert_eq!(
            (flow.protocol, flow.fragment, flow.ports_known),
            (17, later, !later)
        );
        assert_eq!((info.fragmented, info.header_len), (true, 48));
    }
}

#[test]
fn protocols_have_ports_types_or_nothing() {
    let rows = [
        (6u8, Some((0x0102, 0x0304))),
        (17, Some((0x0102, 0x0304))),
        (33, Some((0x0102, 0x0304))),
        (132, Some((0x0102, 0x0304))),
        (136, Some((0x0102, 0x0304))),
        (1, Some((1, 2))),
        (58, Some((1, 2))),
        (135, Some((3, 0))),
        (47, None),
        (50, None),
        (51, None),
    ];
    for version in [4, 6] {
        for (protocol, ports) in rows {
            let (flow, _) = parse(&ip(version, 0, protocol, &[1, 2, 3, 4]));
            let known = (flow.source_port, flow.destination_port);
            assert_eq!(
                flow.ports_known.then_some(known),
                ports,
                "protocol {protocol}"
            );
            let (flow, _) = parse(&ip(version, 0, protocol, &[1, 2, 3]));
            assert!(!flow.ports_known, "protocol {protocol} cut short");
        }
    }
}

#[test]
fn extension_headers_are_followed_to_the_next_layer() {
    let chain = [
        &[60, 0, 1, 4, 0, 0, 0, 0][..], // hop-by-hop options
        &[43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // destination options, 16 octets
        &[17, 0, 0, 0, 0, 0, 0, 0],     // routing
        &udp((1, 2), b""),
    ];
    let (flow, info) = parse(&ip(6, 0, 0, &chain.concat()));
    assert_eq!(
        (flow.protocol, flow.source_port, flow.destination_port),
        (17, 1, 2)
    );
    assert_eq!((info.header_len, info.transit_headers), (40 + 32, true));
    let (_, info) = parse(&ip(6, 0, 60, &chain[2..].concat()));
    assert!(
        !info.transit_headers,
        "destination options are for the other end only"
    );
}

#[test]
fn a_chain_of_eight_is_followed_and_one_of_nine_refused() {
    let chain = |len: usize| {
        let mut headers = [60, 0, 1, 4, 0, 0, 0, 0].repeat(len);
        headers[8 * (len - 1)] = 17;
        ip(6, 0, 60, &[&headers[..], &udp((1, 2), b"")].concat())
    };
    assert_eq!(parse(&chain(8)).0.source_port, 1);
    assert_eq!(FlowKey::parse(&chain(9)), Err(PacketError::TooManyHeaders));
}

#[test]
fn every_packet_cut_short_is_refused() {
    let chain = [
        &[17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &udp((1, 2), b""),
    ];
    for packet in [
        ip(4, 0, 17, &udp((1, 2), b"abc")),
        ip(6, 0, 60, &chain.concat()),
    ] {
        for len in 0..packet.len() {
            let error = FlowKey::parse(&packet[..len]);
            assert_eq!(
                error,
                Err(PacketError::Truncated),
                "{len} of {}",
                packet.len()
            );
        }
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let packet = ip(4, 0, 17, &udp((1, 2), b"abc"));
    let with = |at: usize, value: u8| {
        let mut packet = packet.clone();
        packet[at] = value;
        FlowKey::parse(&packet).err()
    };
    assert_eq!(with(0, 0x44), Some(PacketError::Malformed));
    assert_eq!(with(0, 0x55), Some(PacketError::Version));
    assert_eq!(with(3, 19), Some(PacketError::Malformed));
    assert_eq!(with(3, 20), None);
    assert_eq!(with(3, 255), Some(PacketError::Truncated));
    // An extension header longer than the packet, and one that begins at its end.
    let long = ip(6, 0, 60, &[17, 1, 1, 4, 0, 0, 0, 0]);
    assert_eq!(FlowKey::parse(&long), Err(PacketError::Truncated));
    let none = ip(6, 0, 60, &[]);
    assert_eq!(FlowKey::parse(&none), Err(PacketError::Truncated));
}
