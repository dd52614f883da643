//! Much at once: streams and rows of datagrams go through whole, in every mode, while the system
//! leaves segments and checksums to us.

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::*;
use crate::sys::msg::{self, Header};

/// Octets of a stream in each direction.
const STREAM: usize = 6 << 20;

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    let word = |n: usize| (n.wrapping_mul(0x9e37_79b9) ^ seed).wrapping_mul(0x85eb_ca6b) >> 13;
    (0..len).map(|n| word(n) as u8).collect()
}

/// Sends one pattern and expects another one.
fn both_ways(stream: TcpStream, send: usize, expect: usize) {
    stream.set_read_timeout(Some(20 * SECOND)).unwrap();
    let mut out = stream.try_clone().unwrap();
    let sender = thread::spawn(move || {
        out.write_all(&pattern(send, STREAM)).unwrap();
        out.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    (&stream).read_to_end(&mut got).unwrap();
    assert!(got == pattern(expect, STREAM), "{} octets came", got.len());
    sender.join().unwrap();
}

fn streams(child: Child, v4: bool) {
    let (mut a, mut b) = hosts(v4);
    child.protect(&mut a, &mut b);
    child.install(&mut a, &mut b);
    let (at_a, at_b) = (
        child.selector(&a, true).start,
        child.selector(&b, true).start,
    );
    let port = if child.protocol == 6 {
        child.port.0
    } else {
        5000
    };
    let listener = a
        .netns
        .run(|| TcpListener::bind((at_a, port)).unwrap())
        .unwrap();
    let serve = thread::spawn(move || both_ways(listener.accept().unwrap().0, 1, 2));
    let connect = || TcpStream::connect((at_a, port)).unwrap();
    let stream = b.netns.run(connect).unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), at_b);
    both_ways(stream, 2, 1);
    serve.join().unwrap();
    for host in [&a, &b] {
        let usage = host.netns.run(|| host.plane.usage(ChildSaId(1))).unwrap();
        let usage = usage.unwrap();
        assert!(usage.bytes_in > STREAM as u64 && usage.bytes_out > STREAM as u64);
        // What the system left to us was cut to what fits the path.
        assert!(usage.bytes_out / usage.packets_out < 1500, "{usage:?}");
        let drops = host.netns.run(|| host.plane.drops()).unwrap();
        let lies = [
            "offload",
            "not-ip",
            "malformed",
            "integrity",
            "tun-write",
            "too-long",
        ];
        let wrong: Vec<_> = drops
            .into_iter()
            .filter(|(name, count)| lies.contains(name) && *count > 0)
            .collect();
        assert_eq!(wrong, []);
    }
}

const TCP: Child = Child {
    protocol: 6,
    port: (27_017, 27_017),
    ..TRANSPORT
};

fn in_udp(child: Child) -> Child {
    Child {
        encap: true,
        ..child
    }
}

#[test]
fn a_stream_passes_a_tunnel() {
    if !skipped() {
        streams(TUNNEL, true);
        streams(TUNNEL, false);
    }
}

#[test]
fn a_stream_passes_a_tunnel_in_udp() {
    if !skipped() {
        streams(in_udp(TUNNEL), true);
        streams(in_udp(TUNNEL), false);
    }
}

#[test]
fn a_stream_passes_in_transport_mode() {
    if !skipped() {
        streams(TCP, true);
        streams(TCP, false);
    }
}

#[test]
fn a_stream_passes_in_transport_mode_in_udp() {
    if !skipped() {
        streams(in_udp(TCP), true);
        streams(in_udp(TCP), false);
    }
}

/// A sender that leaves the cutting of UDP to the system leaves it to us.
#[test]
fn rows_of_datagrams_pass_a_tunnel_in_udp() {
    if skipped() {
        return;
    }
    for v4 in [true, false] {
        let (mut a, mut b) = hosts(v4);
        let child = in_udp(TUNNEL);
        child.protect(&mut a, &mut b);
        child.install(&mut a, &mut b);
        let (from, to) = (a.socket(a.subnet, 7), b.socket(b.subnet, 7));
        for (segment, len) in [(1000, 20_000), (1000, 20_001), (1200, 1300), (13, 500)] {
            let octets = pattern(len, len);
            let header = Header {
                to: to.local_addr().unwrap(),
                from: None,
                tos: 0,
                ttl: None,
                segment: Some(segment),
            };
            msg::send(&from, &[IoSlice::new(&octets)], &header).unwrap();
            for want in octets.chunks(segment.into()) {
                let mut buffer = [0; 2000];
                let len = to.recv(&mut buffer).expect("each datagram arrives");
                assert!(&buffer[..len] == want, "{segment} {len}");
            }
        }
    }
}

/// Without what makes rows of datagrams on the way, each comes by itself.
#[test]
fn a_stream_passes_a_wire_without_offloads() {
    if skipped() {
        return;
    }
    let off = |host: &Host, link: &str| {
        let ethtool = || {
            std::process::Command::new("ethtool")
                .args(["-K", link, "tx-udp-segmentation", "off", "gro", "off"])
                .status()
        };
        host.netns
            .run(ethtool)
            .unwrap()
            .is_ok_and(|status| status.success())
    };
    let (mut a, mut b) = hosts(true);
    if !off(&a, "left") || !off(&b, "right") {
        println!("skipped: ethtool is not there");
        return;
    }
    let child = in_udp(TUNNEL);
    child.protect(&mut a, &mut b);
    child.install(&mut a, &mut b);
    let (at_a, at_b) = (a.subnet, b.subnet);
    let listener = a
        .netns
        .run(|| TcpListener::bind((at_a, 5000)).unwrap())
        .unwrap();
    let serve = thread::spawn(move || both_ways(listener.accept().unwrap().0, 1, 2));
    let connect = || TcpStream::connect((at_a, 5000)).unwrap();
    let stream = b.netns.run(connect).unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), at_b);
    both_ways(stream, 2, 1);
    serve.join().unwrap();
}
