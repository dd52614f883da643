//! A host whose packets pass in clear while there is no SA, beside one that knows nothing of that.

use super::gateway::container;
use super::*;
use crate::dataplane::{Clear, Cleartext};
use crate::sys::msg;

fn clear(now: bool) -> Clear {
    Clear {
        when: Cleartext::WithoutSa,
        now,
    }
}

/// What comes in has to be what a reverse path filter takes.
fn loose(host: &Host) {
    host.netns
        .sysctl("net/ipv4/conf/all/rp_filter", "2")
        .unwrap();
}

fn assert_lost(from: &UdpSocket, to: &UdpSocket) {
    to.set_read_timeout(Some(SECOND / 5)).unwrap();
    assert!(!passes(from, to));
    to.set_read_timeout(Some(5 * SECOND)).unwrap();
}

fn packets_pass_without_sa(v4: bool) {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(v4);
    loose(&a);
    let open = |now| Policy {
        clear: clear(now),
        ..TRANSPORT.policy(&a, &b, true)
    };
    let strict = Policy {
        child: "strict".into(),
        local_ts: vec![ts(a.address, 17, (7001, 7001))],
        ..TRANSPORT.policy(&a, &b, true)
    };
    let (opened, closed) = (open(true), open(false));
    a.policies(vec![opened, strict.clone()]).unwrap();
    let (at_a, at_b) = (a.socket(a.address, 8472), b.socket(b.address, 40_000));
    let strict_at_a = a.socket(a.address, 7001);
    for len in [0, 1, 100, 1400, 1472, 4000, 60_000] {
        let octets: Vec<u8> = (0..len).map(|n| n as u8).collect();
        exchange(&at_a, &at_b, &octets);
        exchange(&at_b, &at_a, &octets);
    }
    let event = a.event();
    assert!(matches!(event, DataPlaneEvent::Acquire { child, .. } if child == "child"));
    assert_lost(&strict_at_a, &at_b);
    assert_lost(&at_b, &strict_at_a);
    let lost = a.netns.run(|| a.plane.drops()).unwrap().into_iter();
    let lost: Vec<_> = lost.filter(|(_, n)| *n > 0).collect();
    assert_eq!(lost, [("clear-in", 1)], "the strict one is kept");

    // Nothing passes any more, until there is an SA.
    a.policies(vec![closed, strict]).unwrap();
    assert_lost(&at_a, &at_b);
    assert_lost(&at_b, &at_a);
    let policy = TRANSPORT.policy(&b, &a, false);
    b.policies(vec![policy]).unwrap();
    TRANSPORT.install(&mut a, &mut b);
    let (len, _) = at_b.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(len, 8, "what was kept");
    exchange(&at_a, &at_b, b"by the SA");
    exchange(&at_b, &at_a, b"and back");
}

#[test]
fn packets_pass_in_clear_without_sa_and_others_do_not() {
    packets_pass_without_sa(true);
}

#[test]
fn packets_pass_in_clear_over_ipv6() {
    packets_pass_without_sa(false);
}

/// A router counts one hop, and so do a router and the device behind it.
#[test]
fn what_is_forwarded_in_clear_is_as_a_router_sends_it() {
    if skipped() {
        return;
    }
    let (mut a, b) = hosts(true);
    loose(&a);
    let container = container(&a);
    let policy = Policy {
        clear: clear(true),
        local_ts: vec![TrafficSelector {
            start: ip("172.16.1.0"),
            end: ip("172.16.1.255"),
            ..ts(ip("0.0.0.0"), 0, ANY)
        }],
        remote_ts: vec![ts(b.address, 0, ANY)],
        ..TUNNEL.policy(&a, &b, true)
    };
    a.policies(vec![policy]).unwrap();
    let way_back = (ip("172.16.1.0"), 24);
    let gateway = Some(a.address);
    let route =
        async |links: &crate::host::links::Links| links.route(way_back, "right", gateway).await;
    b.netns.configure(route).unwrap();
    let at_b = b.socket(b.address, 7000);
    msg::announce(&at_b, false).unwrap();
    let bind = || UdpSocket::bind((ip("172.16.1.2"), 7000));
    let inside = eventually("the address is there", || container.run(bind).unwrap().ok());
    inside.set_read_timeout(Some(5 * SECOND)).unwrap();
    inside.set_ttl(9).unwrap();
    inside.send_to(b"in clear", (b.address, 7000)).unwrap();
    let received = msg::receive(&at_b, &mut [0; 64]).unwrap();
    assert_eq!((received.len, received.ttl), (8, 8));
    assert_eq!(received.source.ip(), ip("172.16.1.2"));
    exchange(&at_b, &inside, b"and back");
}

/// Routing rules know no types of ICMP.
#[test]
fn of_an_icmp_type_that_passes_no_other_one_does() {
    if skipped() {
        return;
    }
    let (mut a, b) = hosts(true);
    loose(&a);
    let all = Policy {
        local_ts: vec![ts(a.address, 0, ANY)],
        remote_ts: vec![ts(b.address, 0, ANY)],
        ..TRANSPORT.policy(&a, &b, true)
    };
    const ECHO: u16 = 8 << 8;
    let ping = Policy {
        child: "ping".into(),
        pass: true,
        trap: false,
        narrower: true,
        local_ts: vec![ts(a.address, 1, (ECHO, ECHO))],
        remote_ts: vec![ts(b.address, 1, ANY)],
        ..all.clone()
    };
    a.policies(vec![ping, all]).unwrap();
    let raw = || {
        let icmp = Some(socket2::Protocol::ICMPV4);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, icmp).unwrap();
        socket.set_read_timeout(Some(SECOND / 5)).unwrap();
        socket
    };
    let (at_a, at_b) = (a.netns.run(raw).unwrap(), b.netns.run(raw).unwrap());
    let to_b = SocketAddr::new(b.address, 0).into();
    // Type, code, checksum, and eight zeros.
    let of_type = |kind: u8| {
        let sum = !(u16::from(kind) << 8);
        let mut octets = vec![0; 12];
        octets[0] = kind;
        octets[2..4].copy_from_slice(&sum.to_be_bytes());
        octets
    };
    let arrives = |kind: u8| {
        at_a.send_to(&of_type(kind), &to_b).unwrap();
        let mut octets = [0; 128];
        // A header of IPv4 is before it.
        while let Ok(length) = std::io::Read::read(&mut &at_b, &mut octets) {
            if length > 20 && octets[20] == kind {
                return true;
            }
        }
        false
    };
    assert!(arrives(8), "an echo request");
    assert!(!arrives(13), "a timestamp request");
    assert!(!arrives(3), "an error");
    assert!(arrives(8));
}
