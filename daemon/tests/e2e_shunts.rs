//! Connections of pluto's without IKE, and connections about the same packets: what is narrower goes
//! first. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]
#![expect(dead_code, reason = "what tests share, they do not all use")]

#[path = "support/daemons.rs"]
mod daemons;
#[path = "support/pluto.rs"]
mod pluto;
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use daemons::{LIMIT, PATIENCE, printed_status, run};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, Lab, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::ping;
use pluto::{ipsec, log, run_from, write};
use support::{is_root, obol};

/// All hosts have it: a host to whom all is protected, but for some ports.
const PORTS: &str = "\
conn %default
  left=192.168.0.1
  leftid=@a
  right=192.168.0.2
  rightid=@b

conn hosts
  authby=secret
  auto=start

conn clear
  type=passthrough
  authby=never
  leftprotoport=udp
  rightprotoport=udp/7000
  auto=ondemand

conn never
  type=drop
  authby=never
  leftprotoport=udp
  rightprotoport=udp/7001
  auto=route

conn later
  type=pass
  leftprotoport=udp
  rightprotoport=udp/7002
  auto=add

conn lan
  type=passthrough
  right=127.0.0.1
  leftsubnet=192.168.0.0/24
  rightsubnet=192.168.0.0/28
  auto=route
";

/// Networks of two peers, one within the other; and a conn that is like one of them.
const NETWORKS: &str = "\
conn %default
  left=192.168.0.1
  leftid=@a
  leftsubnet=172.16.1.0/24
  authby=secret

conn wide
  right=192.168.0.2
  rightid=@b
  rightsubnet=172.16.0.0/16
  auto=start

conn narrow
  right=192.168.0.3
  rightid=@c
  rightsubnet=172.16.3.0/24
  auto=ondemand

conn twin
  right=192.168.0.4
  rightid=@d
  rightsubnet=172.16.3.0/24
  auto=add
";

/// A lab in which both hosts have this file.
fn lab(conf: &str) -> Lab {
    let mut lab = Lab::new(obol(), None).unwrap();
    let directory = lab.directory().to_owned();
    write(&directory.join("ipsec.conf"), conf, 0o644);
    write(
        &directory.join("ipsec.secrets"),
        ": PSK \"a secret of all\"\n",
        0o600,
    );
    for host in [&mut lab.a, &mut lab.b] {
        run_from(host, &directory);
    }
    lab
}

async fn start(lab: &mut Lab, conn: &str) {
    for host in [&mut lab.a, &mut lab.b] {
        host.start().unwrap();
    }
    let deadline = Instant::now() + LIMIT;
    for host in [&mut lab.a, &mut lab.b] {
        while !run(host, &["status", conn]).status.success() {
            assert!(Instant::now() < deadline && host.runs(), "{}", log(host));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Whether datagrams to a port of the peer arrive, within a while.
fn arrives(from: &Host, to: &Host, port: u16, patience: Duration) -> bool {
    let bind = |host: &Host, port| {
        let address = SocketAddrV4::new(host.side.address, port);
        let bound = host.netns.run(|| UdpSocket::bind(address));
        bound.unwrap().unwrap()
    };
    let (sender, receiver) = (bind(from, 0), bind(to, port));
    receiver
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let _ = sender.send_to(b"datagram", SocketAddrV4::new(to.side.address, port));
        if receiver.recv_from(&mut [0; 16]).is_ok() {
            return true;
        }
    }
    false
}

/// What was seen in clear to these ports.
fn clear_to(capture: &Capture, port: u16) -> u64 {
    let deadline = Instant::now() + LIMIT;
    while capture.missed().unwrap() > 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let seen = capture.seen();
    let to = format!(" to {port}");
    let kinds = seen.other_kinds.iter().chain(&seen.clear_kinds);
    let to_port = kinds.filter(|(kind, _)| kind.ends_with(&to));
    to_port.map(|(_, count)| count).sum()
}

#[tokio::test]
async fn some_ports_pass_in_clear_and_others_never() {
    if !is_root() {
        return;
    }
    let mut lab = lab(PORTS);
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    start(&mut lab, "hosts").await;
    let (a, b) = (&lab.a, &lab.b);
    assert!(arrives(a, b, 7000, LIMIT), "{}", log(a));
    assert!(!arrives(a, b, 7001, 2 * PATIENCE));
    for port in [7002, 7003] {
        assert!(arrives(a, b, port, LIMIT));
    }
    assert!(clear_to(&capture, 7000) > 0);
    for port in [7001, 7002, 7003] {
        assert_eq!(clear_to(&capture, port), 0, "{:?}", capture.seen());
    }
    let (code, text) = ipsec(a, "shuntstatus");
    assert_eq!(code, 0, "{text}");
    for line in [
        "Bare Shunt list:",
        "192.168.0.1/32 -17-> 192.168.0.2/32:7000 => %pass    clear",
        "192.168.0.1/32 -17-> 192.168.0.2/32:7001 => %drop    never",
        "192.168.0.0/24 -0-> 192.168.0.0/28 => %pass    lan",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}: {text}");
    }
    assert!(!text.contains("later"), "{text}");
    let (code, text) = ipsec(a, "up clear");
    assert_eq!(code, 30, "{text}");

    // One that waits is in force once it is routed, until it is unrouted.
    for host in [a, b] {
        let (code, text) = ipsec(host, "route later");
        assert_eq!(code, 0, "{text}");
    }
    assert!(
        ipsec(a, "shuntstatus")
            .1
            .contains(":7002 => %pass    later")
    );
    assert!(arrives(a, b, 7002, LIMIT));
    assert!(clear_to(&capture, 7002) > 0);
    for host in [a, b] {
        let (code, text) = ipsec(host, "unroute later");
        assert_eq!(code, 0, "{text}");
    }
    assert!(!ipsec(a, "shuntstatus").1.contains("later"));
    let before = clear_to(&capture, 7002);
    assert!(arrives(a, b, 7002, LIMIT));
    assert_eq!(clear_to(&capture, 7002), before);
    for host in [&mut lab.a, &mut lab.b] {
        assert!(host.stop(LIMIT).await.unwrap().success());
    }
}

#[tokio::test]
async fn of_two_peers_the_one_with_the_narrower_network_is_meant() {
    if !is_root() {
        return;
    }
    let mut lab = lab(NETWORKS);
    let third = Ipv4Addr::new(172, 16, 3, 1);
    // The peer of the wide one pretends to have what is the other one's.
    lab.b
        .netns
        .configure(async |links| links.address("lo", IpAddr::V4(third), 32).await)
        .unwrap();
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    start(&mut lab, "wide").await;
    let (a, b) = (&lab.a, &lab.b);
    let reaches = async |from: &Host, own: Ipv4Addr, to: Ipv4Addr, limit: Duration| {
        let deadline = Instant::now() + limit;
        ping(&from.netns, own, to, PATIENCE, deadline).await.is_ok()
    };
    assert!(reaches(a, a.side.pod, b.side.pod, LIMIT).await);
    assert!(!reaches(a, a.side.pod, third, 2 * PATIENCE).await);
    // Nor does what comes from there by the wrong SA.
    let count = |reason: &str| printed_status(a)["drops"][reason].as_u64().unwrap_or(0);
    let before = count("selector");
    assert!(!reaches(b, third, a.side.pod, 2 * PATIENCE).await);
    assert!(count("selector") > before, "{}", printed_status(a)["drops"]);
    let log = log(a);
    let line = log
        .lines()
        .find(|line| line.contains("twin is refused"))
        .unwrap();
    let conf = lab.directory().join("ipsec.conf").display().to_string();
    assert!(line.contains(&format!("{conf}:19:")), "{line}");
    assert!(line.contains("conn narrow is in its way"), "{line}");
    assert!(log.contains(&format!("{conf}:13:")), "{log}");

    // Without it, all of the network is the wide one's.
    assert_eq!(ipsec(a, "delete narrow").0, 0);
    assert!(reaches(a, a.side.pod, third, LIMIT).await);
    assert!(reaches(b, third, a.side.pod, LIMIT).await);
    assert_eq!(ipsec(a, "add narrow").0, 0);
    assert!(!reaches(a, a.side.pod, third, 2 * PATIENCE).await);
    assert!(reaches(a, a.side.pod, b.side.pod, LIMIT).await);
    let seen = capture.seen();
    assert_eq!(seen.clear, 0, "{seen:?}");
}
