//! From a frame through seal and open to frames again.

use std::io::IoSlice;

use proptest::prelude::*;

use super::stream::{Proto, Stream};
use crate::fuzz::{outer, params};
use crate::{Frame, HEADROOM, Inbound, Joiner, Outbound, Run, SealError};

/// Seals a frame, run by run; each is opened and joined, and what comes out is cut again.
fn travel(choice: u8, octets: &[u8]) -> Vec<Vec<u8>> {
    let frame = Frame::parse(octets).unwrap();
    let mut outbound = Outbound::new(params(choice)).unwrap();
    let mut inbound = Inbound::new(params(choice)).unwrap();
    let plan = outbound.plan(&frame).unwrap();
    let mut run = Run::default();
    let mut packets = Vec::new();
    for index in 0..frame.count() {
        let len = outbound.sealed_len(&frame, &plan, index).unwrap();
        if !run.takes(len) {
            packets.extend(arrive(&mut inbound, frame.info().version, &run));
            run.clear();
        }
        outbound
            .seal_into(&mut run, &frame, &plan, index, len)
            .unwrap();
    }
    packets.extend(arrive(&mut inbound, frame.info().version, &run));
    packets
}

fn arrive(inbound: &mut Inbound, version: u8, run: &Run) -> Vec<Vec<u8>> {
    // Each datagram has room before it, as in one buffer of a receive call.
    let mut buffer = Vec::new();
    let mut joiner = Joiner::new(true);
    let mut places = Vec::new();
    for packet in run.packets() {
        buffer.extend([0; HEADROOM]);
        places.push(buffer.len()..buffer.len() + packet.len());
        buffer.extend(packet);
    }
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut write = |parts: &[IoSlice<'_>]| {
        frames.push(parts.iter().flat_map(|part| part.to_vec()).collect());
    };
    for place in places {
        let opened = inbound.open(&mut buffer, place, outer(version, 0)).unwrap();
        joiner.push(&mut buffer, opened.range, &mut write);
    }
    joiner.flush(&mut buffer, &mut write);
    let cut = |octets: &Vec<u8>| {
        let frame = Frame::parse(octets).unwrap();
        let packet = |index| {
            let mut packet = vec![0; frame.len(index)];
            frame.write(index, 0, &mut packet);
            packet
        };
        (0..frame.count()).map(packet).collect::<Vec<_>>()
    };
    frames.iter().flat_map(cut).collect()
}

proptest! {
    #[test]
    fn a_frame_arrives_as_the_packets_that_it_stands_for(
        choice in 0_u8..32,
        v6: bool,
        tcp: bool,
        tos: u8,
        sequence: u32,
        payload in 1_usize..65_400,
        segment in 64_usize..9000,
    ) {
        // The outer header is Not-ECT here, so the inner one must not be marked otherwise.
        let proto = if tcp { Proto::Tcp } else { Proto::Udp };
        let stream = Stream { tos: tos & 0xfc, sequence, ..Stream::new(v6, proto, payload) };
        let octets = stream.frame(segment);
        // Tunnel mode.
        let choice = choice & !8;
        prop_assert_eq!(travel(choice, &octets), stream.packets(segment));
    }
}

#[test]
fn in_transport_mode_what_follows_the_ip_header_arrives() {
    for (v6, ip) in [(false, 20), (true, 40)] {
        for proto in [Proto::Tcp, Proto::Udp] {
            for choice in (0..32).filter(|choice| choice & 8 != 0) {
                let stream = Stream::new(v6, proto, 10_000);
                // The header that is restored has the addresses of the outer one.
                let sent = stream.packets(1300);
                let mut got = Vec::new();
                let octets = stream.frame(1300);
                let frame = Frame::parse(&octets).unwrap();
                let mut outbound = Outbound::new(params(choice)).unwrap();
                let mut inbound = Inbound::new(params(choice)).unwrap();
                let plan = outbound.plan(&frame).unwrap();
                assert_eq!(plan.ttl, Some(frame.info().ttl));
                let mut run = Run::default();
                for index in 0..frame.count() {
                    let len = outbound.sealed_len(&frame, &plan, index).unwrap();
                    outbound
                        .seal_into(&mut run, &frame, &plan, index, len)
                        .unwrap();
                }
                for packet in run.packets() {
                    let mut buffer = [&[0; HEADROOM], packet].concat();
                    let place = HEADROOM..buffer.len();
                    let outer = outer(if v6 { 6 } else { 4 }, 0);
                    let opened = inbound.open(&mut buffer, place, outer).unwrap();
                    got.push(buffer[opened.range][ip..].to_vec());
                }
                let sent: Vec<Vec<u8>> = sent.iter().map(|packet| packet[ip..].to_vec()).collect();
                assert_eq!(got, sent, "{v6} {proto:?} {choice}");
            }
        }
    }
}

#[test]
fn a_frame_seals_to_what_its_packets_seal_to() {
    for choice in 0..32 {
        let stream = Stream::new(false, Proto::Tcp, 5000);
        let mut by_frame = Outbound::new(params(choice)).unwrap();
        let mut by_packet = Outbound::new(params(choice)).unwrap();
        let octets = stream.frame(1200);
        let frame = Frame::parse(&octets).unwrap();
        let plan = by_frame.plan(&frame).unwrap();
        let mut run = Run::default();
        let mut want: Vec<u8> = Vec::new();
        for (index, packet) in stream.packets(1200).iter().enumerate() {
            let len = by_frame.sealed_len(&frame, &plan, index).unwrap();
            by_frame
                .seal_into(&mut run, &frame, &plan, index, len)
                .unwrap();
            let mut buffer = [&[0; HEADROOM], &packet[..], &[0; crate::TAILROOM]].concat();
            let sealed = by_packet
                .seal(&mut buffer, HEADROOM..HEADROOM + packet.len())
                .unwrap();
            want.extend(&buffer[sealed.range]);
        }
        assert_eq!(run.octets(), want, "{choice}");
    }
}

#[test]
fn a_frame_of_another_flow_is_refused_by_the_selectors() {
    let mut params = params(0);
    let hosts = |last| {
        let host = std::net::IpAddr::from([192, 0, 2, last]);
        (host, host)
    };
    let selector = crate::Selector::new(6, hosts(1), (0, 65_535), hosts(2), (443, 443)).unwrap();
    params.selectors = vec![selector].into();
    let outbound = Outbound::new(params).unwrap();
    let plan = |port| {
        let stream = Stream {
            ports: (1, port),
            ..Stream::new(false, Proto::Tcp, 3000)
        };
        let octets = stream.frame(1000);
        outbound.plan(&Frame::parse(&octets).unwrap()).map(|_| ())
    };
    assert_eq!(plan(443), Ok(()));
    assert_eq!(plan(80), Err(SealError::Selector));
}
