//! A host that forwards for others: its own addresses are not those that are protected.

use super::*;
use crate::host::nat::{masquerade, publish};

/// A container behind the first host, at 172.16.1.2.
pub(super) fn container(host: &Host) -> Netns {
    let container = Netns::anonymous().unwrap();
    let (bridge, inside) = (
        ("docker0", ip("172.16.1.254"), 24),
        ("eth0", ip("172.16.1.2"), 24),
    );
    host.netns.join(bridge, &container, inside).unwrap();
    host.netns.sysctl("net/ipv4/ip_forward", "1").unwrap();
    let everything = (ip("0.0.0.0"), 0);
    let gateway = Some(ip("172.16.1.254"));
    let route = container.configure(async |links| links.route(everything, "eth0", gateway).await);
    route.unwrap();
    container
}

/// A tunnel between the two networks, whose name in `info` and policies is that of [`TUNNEL`].
fn protect_networks(a: &mut Host, b: &mut Host) {
    let network = |third: u8| TrafficSelector {
        start: IpAddr::from([172, 16, third, 0]),
        end: IpAddr::from([172, 16, third, 255]),
        ..ts(ip("0.0.0.0"), 0, ANY)
    };
    let (at_a, at_b) = (vec![network(1)], vec![network(2)]);
    let mut policies = (TUNNEL.policy(a, b, true), TUNNEL.policy(b, a, false));
    (policies.0.local_ts, policies.0.remote_ts) = (at_a.clone(), at_b.clone());
    (policies.1.local_ts, policies.1.remote_ts) = (at_b.clone(), at_a.clone());
    a.policies(vec![policies.0]).unwrap();
    b.policies(vec![policies.1]).unwrap();
    let mut infos = (TUNNEL.info(a, b, true), TUNNEL.info(b, a, false));
    (infos.0.local_ts, infos.0.remote_ts) = (at_a.clone(), at_b.clone());
    (infos.1.local_ts, infos.1.remote_ts) = (at_b, at_a);
    a.inbound(inbound(&infos.0, 2)).unwrap();
    b.inbound(inbound(&infos.1, 1)).unwrap();
    a.outbound(outbound(&infos.0, 1)).unwrap();
    b.outbound(outbound(&infos.1, 2)).unwrap();
}

#[test]
fn forwarded_packets_keep_their_source_in_spite_of_masquerade() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    let container = container(&a);
    let like_docker = || masquerade(ip("172.16.1.0"), ip("172.16.1.255"));
    a.netns.run(like_docker).unwrap().unwrap();
    protect_networks(&mut a, &mut b);
    let at_b = b.socket(b.subnet, 7000);
    let bind = || UdpSocket::bind((ip("172.16.1.2"), 7000));
    let inside = eventually("the address is there", || container.run(bind).unwrap().ok());
    inside.set_read_timeout(Some(5 * SECOND)).unwrap();
    exchange(&inside, &at_b, b"from the container");
    exchange(&at_b, &inside, b"and back");

    // The rule of the others does work, where nothing is protected.
    let outside = b.socket(b.address, 7001);
    inside.send_to(b"masqueraded", (b.address, 7001)).unwrap();
    let (_, source) = outside.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(source.ip(), a.address);
}

#[test]
fn a_masquerade_that_makes_a_packet_match_a_policy_does_not_let_it_out_in_clear() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    let container = container(&a);
    a.netns
        .run(|| masquerade(ip("172.16.1.0"), ip("172.16.1.255")))
        .unwrap()
        .unwrap();
    let host_to_host = Child {
        port: ANY,
        ..TRANSPORT
    };
    host_to_host.protect(&mut a, &mut b);
    let at_b = b.socket(b.address, 7000);
    at_b.set_read_timeout(Some(SECOND / 5)).unwrap();
    let bind = || UdpSocket::bind((ip("172.16.1.2"), 0));
    let inside = eventually("the address is there", || container.run(bind).unwrap().ok());
    // Its source becomes the host's address, and the pair is then one that is protected.
    inside.send_to(b"in clear?", (b.address, 7000)).unwrap();
    at_b.recv_from(&mut [0; 64]).unwrap_err();
    eventually("the guard counts it", || {
        (a.drops("clear-out") > 0).then_some(())
    });
}

#[test]
fn a_published_port_lets_nothing_in_that_a_tunnel_must_bring() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    let container = container(&a);
    protect_networks(&mut a, &mut b);
    let (own, inside) = ([192, 0, 2, 1].into(), [172, 16, 1, 2].into());
    assert_eq!(a.address, IpAddr::V4(own));
    a.netns.run(|| publish(own, inside)).unwrap().unwrap();
    let bind = || UdpSocket::bind((ip("172.16.1.2"), 7000));
    let published = eventually("the address is there", || container.run(bind).unwrap().ok());
    published.set_read_timeout(Some(5 * SECOND)).unwrap();

    // In clear, from an address that only the tunnel may bring: no policy of the sender's is about it, and
    // at its arrival none of ours, until the other destination is put in.
    let spoofed = b.socket(b.subnet, 7001);
    spoofed.send_to(b"in clear?", (a.address, 7000)).unwrap();
    eventually("the guard counts it", || {
        (a.drops("clear-in") > 0).then_some(())
    });
    // What nothing protects is published.
    let outside = b.socket(b.address, 7001);
    outside.send_to(b"published", (a.address, 7000)).unwrap();
    let mut octets = [0; 64];
    let (length, _) = published.recv_from(&mut octets).unwrap();
    assert_eq!(&octets[..length], b"published");
}
