use proptest::prelude::*;

use super::*;
use crate::frame;
use crate::testing::stream::{Proto, Stream};

/// What the device is handed for a batch of packets, frame by frame.
fn joined(udp: bool, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut buffer = packets.concat();
    let mut joiner = Joiner::new(udp);
    let mut frames = Vec::new();
    let mut write = |parts: &[IoSlice<'_>]| {
        frames.push(parts.iter().flat_map(|part| part.to_vec()).collect());
    };
    let mut start = 0;
    for packet in packets {
        joiner.push(&mut buffer, start..start + packet.len(), &mut write);
        start += packet.len();
    }
    joiner.flush(&mut buffer, &mut write);
    frames
}

/// The packets that the frames stand for.
fn cut(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for octets in frames {
        let frame = frame::Frame::parse(octets).unwrap();
        for index in 0..frame.count() {
            let mut packet = vec![0; frame.len(index)];
            frame.write(index, 0, &mut packet);
            packets.push(packet);
        }
    }
    packets
}

fn count(udp: bool, packets: &[Vec<u8>]) -> usize {
    let frames = joined(udp, packets);
    assert_eq!(cut(&frames), packets);
    frames.len()
}

fn tcp(payload: usize) -> Stream {
    Stream::new(false, Proto::Tcp, payload)
}

#[test]
fn packets_of_one_flow_are_joined_to_the_frame_that_they_were_cut_from() {
    for v6 in [false, true] {
        for proto in [Proto::Tcp, Proto::Udp] {
            let stream = Stream::new(v6, proto, 40_000);
            let packets = stream.packets(1300);
            let frames = joined(true, &packets);
            assert_eq!(frames.len(), 1, "{v6} {proto:?}");
            assert_eq!(frames[0][10..], stream.frame(1300)[10..]);
            assert_eq!(cut(&frames), packets);
        }
    }
}

#[test]
fn a_packet_by_itself_is_handed_over_as_it_is() {
    let packets = tcp(500).packets(500);
    let frames = joined(true, &packets);
    assert_eq!(frames, [[&[0; 10], &packets[0][..]].concat()]);
}

#[test]
fn udp_is_joined_only_for_a_device_that_takes_it() {
    let packets = Stream::new(false, Proto::Udp, 5000).packets(1000);
    assert_eq!(count(true, &packets), 1);
    assert_eq!(count(false, &packets), 5);
}

#[test]
fn a_frame_ends_at_a_short_packet_at_push_and_at_its_greatest_length() {
    let stream = tcp(2500);
    let next = Stream {
        sequence: stream.sequence.wrapping_add(2500),
        id: stream.id.wrapping_add(3),
        ..tcp(2000)
    };
    let both = [stream.packets(1000), next.packets(1000)].concat();
    assert_eq!(count(true, &both), 2);
    let push = Stream {
        flags: 0x18,
        payload: stream.payload[..2000].to_vec(),
        ..stream.clone()
    };
    let next = Stream {
        sequence: push.sequence.wrapping_add(2000),
        id: push.id.wrapping_add(2),
        ..tcp(2000)
    };
    assert_eq!(
        count(true, &[push.packets(1000), next.packets(1000)].concat()),
        2
    );
    assert_eq!(count(true, &tcp(64_000).packets(1000)), 1);
    assert_eq!(count(true, &tcp(65_000).packets(1000)), 2);
    assert_eq!(
        count(true, &Stream::new(false, Proto::Udp, 650).packets(10)),
        2
    );
    // 65535 octets with headers: 46 of these.
    assert_eq!(count(true, &tcp(47 * 1400).packets(1400)), 2);
}

#[test]
fn a_difference_that_cutting_would_not_restore_keeps_packets_apart() {
    let changes: [&dyn Fn(&mut Stream); 8] = [
        &|s| s.ports.0 += 1,
        &|s| s.tos = 1,
        &|s| s.sequence = s.sequence.wrapping_add(1),
        &|s| s.id = s.id.wrapping_add(1),
        &|s| s.options[11] += 1,
        &|s| s.options.clear(),
        &|s| s.flags = 0x11,
        &|s| s.flags = 0x12,
    ];
    let stream = tcp(1000);
    let next = Stream {
        sequence: stream.sequence.wrapping_add(1000),
        id: stream.id.wrapping_add(1),
        ..tcp(1000)
    };
    let with = |next: &Stream| count(true, &[stream.packets(1000), next.packets(1000)].concat());
    assert_eq!(with(&next), 1);
    for (index, change) in changes.into_iter().enumerate() {
        let mut next = next.clone();
        change(&mut next);
        assert_eq!(with(&next), 2, "change {index}");
    }
    let mut v6 = Stream::new(true, Proto::Tcp, 2000).packets(1000);
    assert_eq!(count(true, &v6), 1);
    // Flow label, then hop limit.
    v6[1][3] ^= 1;
    assert_eq!(count(true, &v6), 2);
    v6[1][3] ^= 1;
    v6[1][7] -= 1;
    assert_eq!(count(true, &v6), 2);
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for wrong in [0, 1] {
        let mut packets = tcp(3000).packets(1000);
        packets[wrong][100] ^= 1;
        let frames = joined(true, &packets);
        assert_eq!(frames.len(), 2 + wrong, "{wrong}");
        let alone = [&[0; 10], &packets[wrong][..]].concat();
        assert!(frames.contains(&alone), "{wrong}");
    }
}

#[test]
fn identifications_of_what_nobody_fragments_may_stay_the_same() {
    let packets: Vec<Vec<u8>> = tcp(3000)
        .packets(1000)
        .into_iter()
        .map(|mut packet| {
            packet[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
            packet[10..12].fill(0);
            let checksum = Sum::default().add(&packet[..20]).finish();
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            packet
        })
        .collect();
    assert_eq!(joined(true, &packets).len(), 1);
    let fragmentable: Vec<Vec<u8>> = packets
        .into_iter()
        .map(|mut packet| {
            packet[6] = 0;
            packet
        })
        .collect();
    assert_eq!(joined(true, &fragmentable).len(), 3);
}

#[test]
fn what_is_not_joined_does_not_overtake_its_own_flow_and_holds_no_other_up() {
    let data = tcp(2000).packets(1000);
    let mut ack = tcp(1).packets(1).remove(0);
    ack.pop();
    let len = (ack.len() as u16).to_be_bytes();
    ack[2..4].copy_from_slice(&len);
    let other = Stream {
        ports: (7, 7),
        ..tcp(2000)
    };
    let other = other.packets(1000);
    let mixed = [&data[0], &other[0], &ack, &other[1], &data[1]].map(Clone::clone);
    let frames = joined(true, &mixed);
    assert_eq!(frames.len(), 4);
    assert_eq!(frames[0][10..], data[0]);
    assert_eq!(frames[1][10..], ack);
    // A fragment shows no ports: all must be out before it.
    let mut fragment = data[1].clone();
    fragment[6] = 0x20;
    let frames = joined(true, &[data[0].clone(), other[0].clone(), fragment.clone()]);
    assert_eq!(frames[2][10..], fragment);
}

#[test]
fn of_too_many_flows_the_oldest_is_let_go() {
    let flows: Vec<Vec<Vec<u8>>> = (0..FLOWS as u16 + 1)
        .map(|port| {
            Stream {
                ports: (port, 80),
                ..tcp(2000)
            }
            .packets(1000)
        })
        .collect();
    let turns: Vec<Vec<u8>> = (0..2)
        .flat_map(|turn| flows.iter().map(move |packets| packets[turn].clone()))
        .collect();
    // Each one drives the one out that would be next.
    assert_eq!(joined(true, &turns).len(), turns.len());
    let fewer: Vec<Vec<u8>> = (0..2)
        .flat_map(|turn| flows[1..].iter().map(move |packets| packets[turn].clone()))
        .collect();
    assert_eq!(joined(true, &fewer).len(), FLOWS);
}

proptest! {
    #[test]
    fn whatever_comes_goes_out_and_in_order_within_its_flow(
        seeds in prop::collection::vec((0_u16..3, any::<bool>(), any::<bool>(), 1_usize..4000, 1_usize..1500), 1..8),
        garbage in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..90)), 0..6),
    ) {
        let mut packets = Vec::new();
        for (port, v6, tcp, payload, segment) in seeds {
            let proto = if tcp { Proto::Tcp } else { Proto::Udp };
            let stream = Stream { ports: (port, 80), ..Stream::new(v6, proto, payload) };
            packets.extend(stream.packets(segment));
        }
        for (place, octets) in garbage {
            packets.insert(place.index(packets.len() + 1), octets);
        }
        let frames = joined(true, &packets);
        let mut out = Vec::new();
        for octets in &frames {
            match frame::Frame::parse(octets) {
                Ok(frame) if octets[1] != 0 => {
                    for index in 0..frame.count() {
                        let mut packet = vec![0; frame.len(index)];
                        frame.write(index, 0, &mut packet);
                        out.push(packet);
                    }
                }
                _ => out.push(octets[10..].to_vec()),
            }
        }
        // Sorting by flow is stable: what is left is the order within each.
        let flow = |packet: &Vec<u8>| -> Vec<u8> {
            let v6 = packet[0] >> 4 == 6;
            let at = if v6 { 40 } else { 20 };
            let proto = packet.get(if v6 { 6 } else { 9 }).copied().unwrap_or(0);
            [&[packet[0] >> 4, proto][..], packet.get(at..at + 4).unwrap_or(&[])].concat()
        };
        packets.sort_by_key(flow);
        out.sort_by_key(flow);
        prop_assert_eq!(out, packets);
    }
}
