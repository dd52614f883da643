//! What an authenticated peer may and may not have put into a packet, and the order of checks.

use super::*;
use crate::error::PacketError;
use crate::flow::FlowKey;
use crate::fuzz::{any_selectors, forge, outer, params};
use crate::ip::Sum;
use crate::params::Limits;
use crate::selector::Selector;
use crate::testing::{ip, tcp, udp};
use crate::{HEADROOM, TAILROOM};

const TUNNEL: u8 = 2;
const TRANSPORT: u8 = 2 | 8;
const ESN: u8 = 0x10;
const REPAIR: u8 = 0x80;

/// An SA and the parameters that forge packets for it.
struct Peer {
    params: SaParams,
    inbound: Inbound,
}

impl Peer {
    fn new(choice: u8) -> Self {
        Self::with(choice, |_| ())
    }

    fn with(choice: u8, change: impl Fn(&mut SaParams)) -> Self {
        let mut other = params(choice);
        change(&mut other);
        Self {
            params: params(choice),
            inbound: Inbound::new(other).unwrap(),
        }
    }

    /// Sends `payload` with padding and this Next Header.
    fn send(&mut self, sequence: u64, payload: &[u8], next: u8) -> Result<Vec<u8>, OpenError> {
        self.send_through(sequence, payload, next, outer(4, 0))
            .map(|(packet, _)| packet)
    }

    fn send_through(
        &mut self,
        sequence: u64,
        payload: &[u8],
        next: u8,
        outer: Outer,
    ) -> Result<(Vec<u8>, Opened), OpenError> {
        let mut body = payload.to_vec();
        let pad = wire::padding(payload.len(), 4);
        body.extend(vec![0; pad + ESP_TRAILER]);
        wire::write_trailer(&mut body[payload.len()..], next);
        self.send_body(sequence, &body, outer)
    }

    fn send_body(
        &mut self,
        sequence: u64,
        body: &[u8],
        outer: Outer,
    ) -> Result<(Vec<u8>, Opened), OpenError> {
        let esp = forge(&self.params, sequence, body);
        let mut buffer = [&[0; HEADROOM], &esp[..], &[0; TAILROOM]].concat();
        let opened = self
            .inbound
            .open(&mut buffer, HEADROOM..HEADROOM + esp.len(), outer)?;
        Ok((buffer[opened.range.clone()].to_vec(), opened))
    }
}

//= test rfc4303 2.4-3
#[test]
fn padding_that_does_not_count_is_refused_once_and_then_a_replay() {
    let mut peer = Peer::new(TUNNEL);
    let body = [&ip(4, 0, 17, &udp((1, 2), b"ab"))[..], &[1, 3, 3, 2, 4, 4]].concat();
    let outer = outer(4, 0);
    assert_eq!(peer.send_body(1, &body, outer), Err(OpenError::Padding));
    assert_eq!(peer.send_body(1, &body, outer), Err(OpenError::Replay));
    assert_eq!(
        peer.send_body(2, &[0, 0, 200, 4], outer),
        Err(OpenError::Padding)
    );
}

//= test rfc4303 2.6-1 2.6-2
#[test]
fn a_dummy_packet_is_dropped_and_does_not_count_as_the_first() {
    let mut peer = Peer::new(TUNNEL);
    assert_eq!(
        peer.send(1, &[], protocol::NO_NEXT_HEADER),
        Err(OpenError::Dummy)
    );
    assert_eq!(peer.inbound.usage(), Usage::default());
    let packet = ip(4, 0, 17, &udp((1, 2), b"ab"));
    let first = |peer: &mut Peer, sequence| {
        peer.send_through(sequence, &packet, protocol::IPV4, outer(4, 0))
            .unwrap()
            .1
            .first
    };
    assert!(first(&mut peer, 2));
    assert!(!first(&mut peer, 3));
}

#[test]
fn a_tunnel_carries_ip_packets_only_and_their_version_must_match() {
    let v4 = ip(4, 0, 17, &udp((1, 2), b"ab"));
    let v6 = ip(6, 0, 17, &udp((1, 2), b"ab"));
    let rows = [
        (&v4, protocol::IPV4, None),
        (&v6, protocol::IPV6, None),
        (&v4, protocol::IPV6, Some(OpenError::Malformed)),
        (&v6, protocol::IPV4, Some(OpenError::Malformed)),
        (&v4, protocol::UDP, Some(OpenError::NextHeader)),
        (&v6, protocol::HOP_BY_HOP, Some(OpenError::NextHeader)),
    ];
    for (packet, next, error) in rows {
        let opened = Peer::new(TUNNEL).send(1, packet, next);
        assert_eq!(opened.err(), error, "next header {next}");
    }
}

//= test rfc4303 2.7-1 2.7-2
#[test]
fn octets_behind_the_inner_packet_are_cut_off_and_missing_ones_refused() {
    for version in [4, 6] {
        let packet = ip(version, 0, 17, &udp((1, 2), b"abcd"));
        let next = tunnel::next_header(version);
        let mut peer = Peer::new(TUNNEL);
        let padded = [&packet[..], &[0xff; 301]].concat();
        assert_eq!(peer.send(1, &padded, next), Ok(packet.clone()));
        assert_eq!(peer.inbound.usage().bytes, packet.len() as u64);
        let short = &packet[..packet.len() - 1];
        assert_eq!(peer.send(2, short, next), Err(OpenError::Malformed));
        assert_eq!(peer.send(3, &[], next), Err(OpenError::Malformed));
    }
}

//= test security S-48
#[test]
fn what_is_outside_of_the_selectors_is_dropped_after_decryption() {
    let ends = outer(4, 0);
    let selector = Selector::new(
        17,
        (ends.source, ends.source),
        Selector::ANY_PORT,
        (ends.destination, ends.destination),
        (53, 53),
    );
    let selectors: Selectors = vec![selector.unwrap()].into();
    for (choice, next) in [(TUNNEL, protocol::IPV4), (TRANSPORT, protocol::UDP)] {
        let mut peer = Peer::with(choice, |params| params.selectors = selectors.clone());
        let mut send = |sequence, port| {
            let datagram = udp((1000, port), b"query");
            let packet = ip(4, 0, 17, &datagram);
            let payload = if choice == TUNNEL { packet } else { datagram };
            peer.send(sequence, &payload, next).err()
        };
        assert_eq!(send(1, 53), None);
        assert_eq!(send(2, 54), Some(OpenError::Selector));
        assert_eq!(send(2, 53), Some(OpenError::Replay));
        assert_eq!(peer.inbound.usage().packets, 1);
    }
}

//= test rfc7296 2.24-1
#[test]
fn congestion_on_the_way_shows_in_the_inner_packet() {
    for version in [4, 6] {
        let next = tunnel::next_header(version);
        let mut peer = Peer::new(TUNNEL);
        let capable = ip(version, 0b10, 17, &udp((1, 2), b"ab"));
        let (packet, _) = peer
            .send_through(1, &capable, next, outer(4, 0b11))
            .unwrap();
        assert_eq!(packet, ip(version, 0b11, 17, &udp((1, 2), b"ab")));
        let not_capable = ip(version, 0, 17, &udp((1, 2), b"ab"));
        let dropped = peer.send_through(2, &not_capable, next, outer(4, 0b11));
        assert_eq!(dropped, Err(OpenError::Ecn));
    }
}

#[test]
fn limits_stop_the_sa() {
    let packet = ip(4, 0, 17, &udp((1, 2), b"ab"));
    let limits = Limits {
        soft_packets: Some(2),
        hard_packets: Some(3),
        ..Limits::default()
    };
    let mut peer = Peer::with(TUNNEL, |params| params.limits = limits);
    let mut send = |sequence| {
        let sent = peer.send_through(sequence, &packet, protocol::IPV4, outer(4, 0));
        sent.map(|(_, opened)| opened.soft_limit)
    };
    assert_eq!([1, 2, 3].map(&mut send), [Ok(false), Ok(true), Ok(false)]);
    assert_eq!(send(4), Err(OpenError::HardLimit));

    let limits = Limits {
        hard_bytes: Some(packet.len() as u64),
        ..Limits::default()
    };
    let mut peer = Peer::with(TUNNEL, |params| params.limits = limits);
    assert!(peer.send(1, &packet, protocol::IPV4).is_ok());
    assert_eq!(
        peer.send(2, &packet, protocol::IPV4),
        Err(OpenError::HardLimit)
    );
}

//= test rfc4303 2.2.1-1
//= test security S-53
#[test]
fn extended_sequence_numbers_go_across_32_bits_and_back() {
    let packet = ip(4, 0, 17, &udp((1, 2), b"ab"));
    for suite in 0..6 {
        let mut peer = Peer::new(suite | ESN);
        let mut send = |sequence| peer.send(sequence, &packet, protocol::IPV4).err();
        let edge = 1u64 << 32;
        for sequence in [
            1,
            edge / 2,
            edge - 2,
            edge,
            edge - 1,
            edge + 900,
            edge - 100,
        ] {
            assert_eq!(send(sequence), None, "suite {suite} {sequence}");
            assert_eq!(
                send(sequence),
                Some(OpenError::Replay),
                "suite {suite} {sequence}"
            );
        }
        // One window back from edge + 900 lies edge - 124: what is before counts as ahead.
        assert_eq!(send(edge - 123), None);
        assert_eq!(send(edge - 124), Some(OpenError::Integrity));
    }
}

#[test]
fn without_extended_numbers_the_high_half_is_not_looked_at() {
    let packet = ip(4, 0, 17, &udp((1, 2), b"ab"));
    let mut peer = Peer::new(TUNNEL);
    assert!(
        peer.send(u64::from(u32::MAX), &packet, protocol::IPV4)
            .is_ok()
    );
    assert_eq!(
        peer.send(0, &packet, protocol::IPV4),
        Err(OpenError::Replay)
    );
    assert_eq!(
        peer.send(1 << 32, &packet, protocol::IPV4),
        Err(OpenError::Replay)
    );
}

#[test]
fn a_transport_packet_gets_a_header_from_the_outer_one() {
    for version in [4, 6] {
        let mut peer = Peer::new(TRANSPORT);
        let datagram = udp((1, 2), b"odd");
        let through = outer(version, 0x2f);
        let (packet, opened) = peer.send_through(1, &datagram, 17, through).unwrap();
        assert_eq!(packet, ip(version, 0x2f, 17, &datagram));
        let header = if version == 4 { 20 } else { 40 };
        assert_eq!(opened.range.len(), header + datagram.len());
    }
}

#[test]
fn a_transport_packet_needs_room_for_the_header() {
    for (version, room) in [(4, 4), (6, 24)] {
        let mut peer = Peer::new(TRANSPORT);
        let mut body = udp((1, 2), b"ab");
        body.extend([0, 17]);
        let esp = forge(&peer.params, 1, &body);
        for (front, expected) in [(room - 1, Some(OpenError::NoRoom)), (room, None)] {
            let mut buffer = [&vec![0; front], &esp[..]].concat();
            let range = front..buffer.len();
            let opened = peer.inbound.open(&mut buffer, range, outer(version, 0));
            assert_eq!(opened.err(), expected, "version {version}");
        }
    }
}

//= test security S-34
#[test]
fn behind_a_nat_addresses_are_restored_and_checksums_repaired() {
    for version in [4, 6] {
        let real = outer(version, 0);
        let mut seen = real;
        seen.source = match version {
            4 => "203.0.113.9".parse().unwrap(),
            _ => "2001:db8:ff::9".parse().unwrap(),
        };
        // The checksum was made before the NAT, over an address that is not restored.
        let segment = tcp(seen.source, real.destination, b"hello");
        let addresses = Some((real.source, real.destination));
        let mut peer = Peer::with(TRANSPORT | REPAIR, |params| {
            params.transport_addresses = addresses;
        });
        let (packet, _) = peer.send_through(1, &segment, 6, seen).unwrap();
        let expected = tcp(real.source, real.destination, b"hello");
        assert_eq!(packet, ip(version, 0, 6, &expected));

        // And without repair it stays what it was.
        let mut peer = Peer::with(TRANSPORT, |params| params.transport_addresses = addresses);
        let (packet, _) = peer.send_through(1, &segment, 6, seen).unwrap();
        assert_eq!(packet, ip(version, 0, 6, &segment));
    }
}

#[test]
fn a_udp_checksum_that_was_left_out_stays_out_over_ipv4_only() {
    let datagram = udp((1, 2), b"ab");
    let mut peer = Peer::new(TRANSPORT | REPAIR);
    let (packet, _) = peer.send_through(1, &datagram, 17, outer(4, 0)).unwrap();
    assert_eq!(packet, ip(4, 0, 17, &datagram));
    let (packet, _) = peer.send_through(2, &datagram, 17, outer(6, 0)).unwrap();
    let ends = outer(6, 0);
    let sum = Sum::default().add_pseudo_header(ends.source, ends.destination, 17, datagram.len());
    assert_ne!(packet[46..48], [0, 0]);
    assert_eq!(sum.add(&packet[40..]).finish(), 0);
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
    for version in [4, 6] {
        let ends = outer(version, 0);
        let mut datagram = udp((1, 2), &[0, 0]);
        let sum = Sum::default().add_pseudo_header(ends.source, ends.destination, 17, 10);
        let balance = sum.add(&datagram).finish();
        datagram[8..].copy_from_slice(&balance.to_be_bytes());
        // Over IPv4, a field of zero would be left alone.
        datagram[6..8].copy_from_slice(&[0x12, 0x34]);
        let mut peer = Peer::new(TRANSPORT | REPAIR);
        let (packet, _) = peer.send_through(1, &datagram, 17, ends).unwrap();
        assert_eq!(packet[packet.len() - 4..packet.len() - 2], [0xff, 0xff]);
    }
}

#[test]
fn a_segment_too_short_for_its_checksum_is_refused() {
    let mut peer = Peer::new(TRANSPORT | REPAIR);
    assert_eq!(peer.send(1, &[0; 17], 6), Err(OpenError::Checksum));
    assert_eq!(peer.send(2, &[0; 7], 17), Err(OpenError::Checksum));
    assert!(peer.send(3, &[0; 8], 17).is_ok());
    assert!(peer.send(4, &[0; 3], 50).is_ok());
}

#[test]
fn headers_that_belong_before_esp_are_refused_after_it() {
    for next in [protocol::HOP_BY_HOP, protocol::ROUTING, protocol::FRAGMENT] {
        let mut peer = Peer::new(TRANSPORT);
        let payload = [&[17, 0, 0, 1, 0, 0, 0, 0][..], &udp((1, 2), b"ab")].concat();
        let opened = peer.send_through(1, &payload, next, outer(6, 0));
        assert_eq!(
            opened.err(),
            Some(OpenError::NextHeader),
            "next header {next}"
        );
    }
    let mut peer = Peer::new(TRANSPORT);
    let payload = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp((1, 2), b"ab")].concat();
    assert!(
        peer.send_through(1, &payload, protocol::DESTINATION_OPTIONS, outer(6, 0))
            .is_ok()
    );
}

#[test]
fn a_datagram_of_another_sa_or_family_is_refused_before_any_key_is_used() {
    let mut peer = Peer::new(TRANSPORT);
    peer.params.spi += 1;
    assert_eq!(peer.send(1, b"ab", 17), Err(OpenError::Spi));
    let mut peer = Peer::new(TRANSPORT);
    let mixed = Outer {
        source: outer(6, 0).source,
        ..outer(4, 0)
    };
    let sent = peer.send_through(1, &udp((1, 2), b"ab"), 17, mixed);
    assert_eq!(sent.err(), Some(OpenError::Family));
    assert!(peer.send(1, &udp((1, 2), b"ab"), 17).is_ok());
}

#[test]
fn a_range_outside_of_the_buffer_is_refused() {
    let mut peer = Peer::new(TUNNEL);
    let mut buffer = [0; 100];
    for range in [90..101, 200..300] {
        let opened = peer.inbound.open(&mut buffer, range, outer(4, 0));
        assert_eq!(opened, Err(OpenError::NoRoom));
    }
}

//= test rfc4303 2.1-6 3.4.3-9
//= test security S-51
#[test]
fn parameters_that_do_not_fit_are_refused() {
    let error = |choice, change: fn(&mut SaParams)| {
        let mut params = params(choice);
        change(&mut params);
        Inbound::new(params).err()
    };
    let v4 = outer(4, 0).source;
    let v6 = outer(6, 0).source;
    assert_eq!(
        error(TUNNEL, |p| p.spi = 255),
        Some(KeyError::ReservedSpi(255))
    );
    assert_eq!(error(TUNNEL, |p| p.spi = 256), None);
    assert_eq!(
        error(TUNNEL, |p| p.replay_window = 1023),
        Some(KeyError::ReplayWindow(1023))
    );
    assert_eq!(
        error(TUNNEL, |p| p.replay_window = 65537),
        Some(KeyError::ReplayWindow(65537))
    );
    assert_eq!(error(TUNNEL, |p| p.replay_window = 65536), None);
    for (choice, addresses) in [(TUNNEL, (v4, v4)), (TRANSPORT, (v4, v6))] {
        let mut params = params(choice);
        params.transport_addresses = Some(addresses);
        assert_eq!(
            Inbound::new(params).err(),
            Some(KeyError::TransportAddresses)
        );
    }
}

#[test]
fn names_of_reasons_are_distinct() {
    let names: std::collections::BTreeSet<_> = OpenError::ALL.iter().map(|e| e.name()).collect();
    assert_eq!(names.len(), OpenError::ALL.len());
    assert_eq!(OpenError::Replay.to_string(), "replay");
    assert_eq!(PacketError::Truncated.name(), "truncated");
    let any = any_selectors();
    assert!(any.matches(&FlowKey::parse(&ip(4, 0, 1, &[8, 0, 0, 0])).unwrap().0));
}

#[test]
fn the_newest_packet_says_so_and_a_move_forgets_nothing() {
    let mut peer = Peer::new(TUNNEL);
    let packet = ip(4, 0, 17, &udp((1, 2), b"ab"));
    let newest = |peer: &mut Peer, sequence| {
        let sent = peer.send_through(sequence, &packet, 4, outer(4, 0));
        sent.map(|(_, opened)| opened.newest)
    };
    assert_eq!(newest(&mut peer, 5), Ok(true));
    assert_eq!(newest(&mut peer, 3), Ok(false));
    assert_eq!(newest(&mut peer, 6), Ok(true));
    peer.inbound.move_to(None, false);
    assert_eq!(newest(&mut peer, 6), Err(OpenError::Replay));
    assert_eq!(newest(&mut peer, 4), Ok(false));
    assert_eq!(newest(&mut peer, 7), Ok(true));
}
