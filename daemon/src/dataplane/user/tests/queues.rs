//! Several workers in each direction: a packet is opened by the worker whose SA it is, whichever one
//! received it.

use std::io::IoSlice;
use std::sync::Arc;

use obol_esp::{HEADROOM, TAILROOM};

use super::*;
use crate::dataplane::user::sa::Way;
use crate::sys::msg::{self, Header};

/// Datagrams of each SA in a row.
const EACH: u32 = 20;
/// Rows.
const ROWS: u32 = 100;

/// An IPv4 packet with a UDP datagram that holds a number.
fn datagram(from: IpAddr, to: IpAddr, port: u16, number: u32) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        panic!("IPv4 is enough here");
    };
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let words = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    for field in [40_000, port, 12, 0_u16] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(number.to_be_bytes());
    packet
}

fn sealed(way: &Way, packet: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; HEADROOM + packet.len() + TAILROOM];
    let range = HEADROOM..HEADROOM + packet.len();
    buffer[range.clone()].copy_from_slice(packet);
    let mut out = way.lock().unwrap();
    let sealed = out.sa.seal(&mut buffer, range).unwrap();
    buffer[sealed.range].to_vec()
}

/// Where packets of two SAs come as one row, the first of them decides which worker gets it.
#[test]
fn what_another_worker_is_to_open_is_passed_on_in_order() {
    if skipped() {
        return;
    }
    let (a, mut b) = hosts_with(true, 2);
    let children = [64, 65].map(|id| Child {
        encap: true,
        id,
        ..TUNNEL
    });
    b.policies(vec![children[0].policy(&b, &a, false)]).unwrap();
    let ways = [0, 1].map(|queue: u16| {
        let child = children[usize::from(queue)];
        let of = |info: ChildSaInfo| ChildSaInfo { queue, ..info };
        let at_b = of(child.info(&b, &a, false));
        assert_eq!(at_b.spi_in.queue(), queue, "it tells the worker");
        b.inbound(inbound(&at_b, 1 + queue as u8)).unwrap();
        let at_a = of(child.info(&a, &b, true));
        Way::new(outbound(&at_a, 1 + queue as u8), Arc::default()).unwrap()
    });
    let from = a.socket(a.address, 0);
    let to = [7000, 7001].map(|port| b.socket(b.subnet, port));
    for row in 0..ROWS {
        let mut octets = Vec::new();
        let mut len = 0;
        for number in row * EACH..(row + 1) * EACH {
            for (way, port) in ways.iter().zip([7000, 7001]) {
                let packet = sealed(way, &datagram(a.subnet, b.subnet, port, number));
                len = packet.len();
                octets.extend(packet);
            }
        }
        let header = Header {
            to: SocketAddr::new(b.address, 4500),
            from: None,
            tos: 0,
            ttl: None,
            segment: Some(len as u16),
        };
        msg::send(&from, &[IoSlice::new(&octets)], &header).unwrap();
        for socket in &to {
            for number in row * EACH..(row + 1) * EACH {
                let mut buffer = [0; 100];
                let len = socket.recv(&mut buffer).expect("each comes");
                assert_eq!(buffer[..len], number.to_be_bytes(), "in order");
            }
        }
    }
    for child in children {
        let usage = b.plane.usage(ChildSaId(child.id)).unwrap();
        assert_eq!(usage.packets_in, u64::from(ROWS * EACH));
    }
    let drops = b.netns.run(|| b.plane.drops()).unwrap();
    let lost: Vec<_> = drops.into_iter().filter(|(_, n)| *n > 0).collect();
    assert_eq!(lost, []);
}

/// Peers can have replay windows of 32 packets, and take nothing that comes later than that. So
/// packets of an SA leave in the order of their numbers, also while several workers send on it.
#[test]
fn packets_of_an_sa_leave_in_the_order_of_their_numbers() {
    const PORT: u16 = 4501;
    const FLOWS: usize = 8;
    const DATAGRAMS: usize = 12;
    if skipped() {
        return;
    }
    for workers in [1, 2] {
        let (mut a, b) = hosts_with(true, workers);
        let udp = Child {
            encap: true,
            protocol: 17,
            ..TUNNEL
        };
        // It has an SA for each worker, so that the system spreads flows over them; the other has one.
        let tcp = Child {
            encap: true,
            protocol: 6,
            id: 64,
            ..TUNNEL
        };
        let policy = |child: Child, name: &str| Policy {
            child: name.into(),
            ..child.policy(&a, &b, true)
        };
        let policies = vec![policy(udp, "udp"), policy(tcp, "tcp")];
        let info = |child: Child, name: &str, queue: u16| ChildSaInfo {
            child: name.into(),
            queue,
            ..Child {
                id: child.id + u64::from(queue),
                ..child
            }
            .info(&a, &b, true)
        };
        let mut to_peer = info(udp, "udp", 0);
        to_peer.path.remote.set_port(PORT);
        let all = [to_peer, info(tcp, "tcp", 0), info(tcp, "tcp", 1)];
        a.policies(policies).unwrap();
        for info in &all[..=workers] {
            a.inbound(inbound(info, 2)).unwrap();
            a.outbound(outbound(info, 1)).unwrap();
        }
        let peer = b.socket(b.address, PORT);
        let flows: Vec<UdpSocket> = (0..FLOWS).map(|_| a.socket(a.subnet, 0)).collect();
        let header = Header {
            to: SocketAddr::new(b.subnet, 9),
            from: None,
            tos: 0,
            ttl: None,
            segment: Some(100),
        };
        let row = vec![7; 100 * DATAGRAMS];
        let mut last = 0;
        for _ in 0..100 {
            std::thread::scope(|scope| {
                let (first, second) = flows.split_at(FLOWS / 2);
                for half in [first, second] {
                    let (row, header) = (&row, &header);
                    scope.spawn(move || {
                        for flow in half {
                            msg::send(flow, &[IoSlice::new(row)], header).unwrap();
                        }
                    });
                }
            });
            for _ in 0..FLOWS * DATAGRAMS {
                let mut buffer = [0; 2000];
                peer.recv(&mut buffer).expect("each comes");
                let number = u32::from_be_bytes(buffer[4..8].try_into().unwrap());
                assert_eq!(number, last + 1, "{workers} workers");
                last = number;
            }
        }
    }
}
