//! Two data planes with static keys in two namespaces, joined by a wire.

mod bulk;
mod cleartext;
mod gateway;
mod lead;
mod moves;
mod queues;
mod restart;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use obol_ike::config::{Mode, Path};
use obol_ike::crypto::secret::Secret;
use obol_ike::event::{
    ChildSaId, ChildSaInfo, EspKeys, EspSpi, IkeSaId, InboundSa, Limits, OutboundSa,
};
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::{EncrId, IntegId};

use super::UserDataPlane;
use crate::dataplane::{DataPlane, DataPlaneError, DataPlaneEvent, Policy};
use crate::host::HostSettings;
use crate::host::netns::Netns;
use crate::host::tests::{eventually, passes};
use crate::ports::Ports;

const SECOND: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn skipped() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: namespaces and TUN devices need root");
    }
    !root
}

/// A host of the test: a namespace and the data plane in it.
struct Host {
    netns: Netns,
    plane: UserDataPlane,
    address: IpAddr,
    subnet: IpAddr,
}

impl Host {
    fn new(netns: Netns, address: &str, subnet: &str, workers: usize) -> Self {
        let plane = netns.block_on(async || {
            let settings = HostSettings::for_tests();
            let ports = Ports::open(&settings).unwrap();
            UserDataPlane::new(settings, &ports, workers, false)
                .await
                .unwrap()
        });
        Self {
            netns,
            plane: plane.unwrap(),
            address: ip(address),
            subnet: ip(subnet),
        }
    }

    fn policies(&mut self, policies: Vec<Policy>) -> Result<(), DataPlaneError> {
        let plane = &mut self.plane;
        self.netns
            .block_on(async || plane.set_policies(policies).await)
            .unwrap()
    }

    fn inbound(&mut self, sa: InboundSa) -> Result<(), DataPlaneError> {
        let plane = &mut self.plane;
        self.netns
            .block_on(async || plane.add_inbound(sa).await)
            .unwrap()
    }

    fn outbound(&mut self, sa: OutboundSa) -> Result<(), DataPlaneError> {
        let plane = &mut self.plane;
        self.netns
            .block_on(async || plane.use_outbound(sa).await)
            .unwrap()
    }

    fn event(&mut self) -> DataPlaneEvent {
        let plane = &mut self.plane;
        let mut next = async || {
            loop {
                match plane.next_event().await {
                    DataPlaneEvent::Maintain => plane.maintain().await,
                    event => return event,
                }
            }
        };
        let event = self
            .netns
            .block_on(async || tokio::time::timeout(5 * SECOND, next()).await);
        event.unwrap().expect("an event within five seconds")
    }

    fn socket(&self, address: IpAddr, port: u16) -> UdpSocket {
        let bind = || UdpSocket::bind((address, port));
        let socket = eventually("the address is there", || {
            self.netns.run(bind).unwrap().ok()
        });
        socket.set_read_timeout(Some(5 * SECOND)).unwrap();
        socket
    }

    fn drops(&self, reason: &str) -> u64 {
        let drops = self.netns.run(|| self.plane.drops()).unwrap();
        let found = drops.iter().find(|(name, _)| *name == reason);
        found.unwrap_or_else(|| panic!("{reason} is no reason")).1
    }
}

/// Two hosts on a wire, each with an address of a subnet behind it.
fn hosts(v4: bool) -> (Host, Host) {
    hosts_with(v4, 1)
}

/// The same with so many workers in each direction.
fn hosts_with(v4: bool, workers: usize) -> (Host, Host) {
    let (wire, prefix, subnets) = if v4 {
        (["192.0.2.1", "192.0.2.2"], 24, ["172.16.1.1", "172.16.2.1"])
    } else {
        (["fd09::1", "fd09::2"], 64, ["fd01::1", "fd02::1"])
    };
    let (a, b) = (Netns::anonymous().unwrap(), Netns::anonymous().unwrap());
    for netns in [&a, &b] {
        // As strict as hosts get.
        netns.sysctl("net/ipv4/conf/all/rp_filter", "1").unwrap();
        // Else an IPv6 address is of no use until its duplicates had a second to show up.
        netns
            .sysctl("net/ipv6/conf/default/accept_dad", "0")
            .unwrap();
    }
    let end = |name, address| (name, ip(address), prefix);
    a.join(end("left", wire[0]), &b, end("right", wire[1]))
        .unwrap();
    for (netns, subnet) in [(&a, subnets[0]), (&b, subnets[1])] {
        let own = ip(subnet);
        let len = if v4 { 32 } else { 128 };
        netns
            .configure(async |links| links.address("lo", own, len).await)
            .unwrap();
    }
    let a = Host::new(a, wire[0], subnets[0], workers);
    let b = Host::new(b, wire[1], subnets[1], workers);
    let (from, to) = (a.socket(a.address, 7), b.socket(b.address, 7));
    to.set_read_timeout(Some(SECOND / 5)).unwrap();
    eventually("the wire is up", || passes(&from, &to).then_some(()));
    (a, b)
}

fn ts(address: IpAddr, protocol: u8, ports: (u16, u16)) -> TrafficSelector {
    TrafficSelector {
        protocol,
        start_port: ports.0,
        end_port: ports.1,
        start: address,
        end: address,
    }
}

const ANY: (u16, u16) = (0, 65535);

/// One child between the hosts: what both ends have to know.
#[derive(Clone, Copy)]
struct Child {
    mode: Mode,
    encap: bool,
    protocol: u8,
    /// At the first host.
    port: (u16, u16),
    id: u64,
}

const TUNNEL: Child = Child {
    mode: Mode::Tunnel,
    encap: false,
    protocol: 0,
    port: ANY,
    id: 1,
};

const TRANSPORT: Child = Child {
    mode: Mode::Transport,
    encap: false,
    protocol: 17,
    port: (8472, 8472),
    id: 1,
};

impl Child {
    /// Selectors of `host`; `first`: it is the one with the port.
    fn selector(&self, host: &Host, first: bool) -> TrafficSelector {
        let address = match self.mode {
            Mode::Tunnel => host.subnet,
            Mode::Transport => host.address,
        };
        ts(address, self.protocol, if first { self.port } else { ANY })
    }

    fn policy(&self, local: &Host, remote: &Host, first: bool) -> Policy {
        Policy {
            connection: "hosts".into(),
            child: "child".into(),
            mode: self.mode,
            local_ts: vec![self.selector(local, first)],
            remote_ts: vec![self.selector(remote, !first)],
            trap: true,
            pass: false,
            narrower: false,
            clear: Default::default(),
            kernel: crate::dataplane::KernelOptions::default(),
        }
    }

    fn info(&self, local: &Host, remote: &Host, first: bool) -> ChildSaInfo {
        let port = if self.encap { 4500 } else { 500 };
        let spis = [
            EspSpi(0x1000 + self.id as u32),
            EspSpi(0x2000 + self.id as u32),
        ];
        ChildSaInfo {
            id: ChildSaId(self.id),
            ike: IkeSaId(1),
            connection: "hosts".into(),
            child: "child".into(),
            mode: self.mode,
            spi_in: spis[usize::from(!first)],
            spi_out: spis[usize::from(first)],
            local_ts: vec![self.selector(local, first)],
            remote_ts: vec![self.selector(remote, !first)],
            encr: EncrId::AES_GCM_16,
            encr_key_bits: 256,
            integ: IntegId::NONE,
            ke: None,
            esn: true,
            path: Path {
                local: SocketAddr::new(local.address, port),
                remote: SocketAddr::new(remote.address, port),
            },
            encap: self.encap,
            nat: false,
            replaces: None,
            queue: 0,
            limits: Limits::default(),
        }
    }

    fn protect(&self, a: &mut Host, b: &mut Host) {
        let policies = (self.policy(a, b, true), self.policy(b, a, false));
        a.policies(vec![policies.0]).unwrap();
        b.policies(vec![policies.1]).unwrap();
    }

    fn install(&self, a: &mut Host, b: &mut Host) {
        let (at_a, at_b) = (self.info(a, b, true), self.info(b, a, false));
        a.inbound(inbound(&at_a, 2)).unwrap();
        b.inbound(inbound(&at_b, 1)).unwrap();
        a.outbound(outbound(&at_a, 1)).unwrap();
        b.outbound(outbound(&at_b, 2)).unwrap();
    }
}

fn keys(seed: u8) -> EspKeys {
    EspKeys {
        encr: Secret::new(vec![seed; 36]),
        integ: Secret::new(Vec::new()),
    }
}

fn inbound(info: &ChildSaInfo, seed: u8) -> InboundSa {
    InboundSa {
        info: info.clone(),
        keys: keys(seed),
    }
}

fn outbound(info: &ChildSaInfo, seed: u8) -> OutboundSa {
    OutboundSa {
        info: info.clone(),
        keys: keys(seed),
    }
}

fn exchange(from: &UdpSocket, to: &UdpSocket, octets: &[u8]) {
    from.send_to(octets, to.local_addr().unwrap()).unwrap();
    let mut buffer = vec![0; 70_000];
    let (len, source) = to.recv_from(&mut buffer).expect("the datagram arrives");
    assert_eq!(&buffer[..len], octets);
    assert_eq!(source, from.local_addr().unwrap());
}

/// Protects, installs, and sends datagrams both ways, short and longer than the path.
fn carries(child: Child, v4: bool) {
    let (mut a, mut b) = hosts(v4);
    child.protect(&mut a, &mut b);
    child.install(&mut a, &mut b);
    let of = |host: &Host| child.selector(host, true).start;
    let at_a = a.socket(of(&a), 8472);
    let at_b = b.socket(of(&b), 40_000);
    for len in [0, 1, 100, 1400, 1472, 4000, 60_000] {
        let octets: Vec<u8> = (0..len).map(|n| n as u8).collect();
        exchange(&at_a, &at_b, &octets);
        exchange(&at_b, &at_a, &octets);
    }
    let usage = a.plane.usage(ChildSaId(1)).unwrap();
    assert!(usage.packets_out >= 7 && usage.packets_in >= 7, "{usage:?}");
    assert!(
        usage.bytes_out > 66_000 && usage.bytes_in > 66_000,
        "{usage:?}"
    );
    assert!(usage.last_in.unwrap() < 5 * SECOND);
    assert!(matches!(
        a.event(),
        DataPlaneEvent::InboundUsed(ChildSaId(1))
    ));
    let lost: Vec<_> = a
        .plane
        .drops()
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .collect();
    assert_eq!(lost, []);
}

//= test rfc7296 2.23-4
//= test rfc4303 2-1
#[test]
fn a_tunnel_carries_ipv4() {
    if !skipped() {
        carries(TUNNEL, true);
    }
}

//= test rfc7296 2.23-4
#[test]
fn a_tunnel_in_udp_carries_ipv4() {
    if !skipped() {
        carries(
            Child {
                encap: true,
                ..TUNNEL
            },
            true,
        );
    }
}

#[test]
fn a_tunnel_carries_ipv6() {
    if !skipped() {
        carries(TUNNEL, false);
    }
}

#[test]
fn a_tunnel_in_udp_carries_ipv6() {
    if !skipped() {
        carries(
            Child {
                encap: true,
                ..TUNNEL
            },
            false,
        );
    }
}

#[test]
fn transport_mode_carries_a_port_over_ipv4() {
    if !skipped() {
        carries(TRANSPORT, true);
    }
}

#[test]
fn transport_mode_in_udp_carries_a_port_over_ipv4() {
    if !skipped() {
        carries(
            Child {
                encap: true,
                ..TRANSPORT
            },
            true,
        );
    }
}

#[test]
fn transport_mode_carries_a_port_over_ipv6() {
    if !skipped() {
        carries(TRANSPORT, false);
    }
}

#[test]
fn the_first_packet_asks_for_an_sa_and_is_not_lost() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    TUNNEL.protect(&mut a, &mut b);
    // A socket that names no source: the system has to choose the one of the subnet.
    let at_a = a.socket(ip("0.0.0.0"), 0);
    let at_b = b.socket(b.subnet, 7);
    at_a.send_to(b"first", at_b.local_addr().unwrap()).unwrap();
    at_a.send_to(b"second", at_b.local_addr().unwrap()).unwrap();
    let DataPlaneEvent::Acquire { child, flow, .. } = a.event() else {
        panic!("the first event is a question");
    };
    assert_eq!(child, "child");
    assert_eq!((flow.source, flow.destination), (a.subnet, b.subnet));
    assert_eq!((flow.protocol, flow.destination_port), (17, 7));
    TUNNEL.install(&mut a, &mut b);
    let mut buffer = [0; 16];
    for text in [&b"first"[..], b"second"] {
        let (len, from) = at_b.recv_from(&mut buffer).expect("the packet was kept");
        assert_eq!((&buffer[..len], from.ip()), (text, a.subnet));
    }
    assert!(matches!(
        b.event(),
        DataPlaneEvent::InboundUsed(ChildSaId(1))
    ));
    assert_eq!(a.drops("no-sa"), 0);
}

//= test rfc4303 2.1-1 3.4.2-1
//= test security S-58
#[test]
fn rekeyed_sas_take_over_and_go() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    TUNNEL.protect(&mut a, &mut b);
    TUNNEL.install(&mut a, &mut b);
    let (at_a, at_b) = (a.socket(a.subnet, 7), b.socket(b.subnet, 7));
    exchange(&at_a, &at_b, b"old");
    let again = Child { id: 2, ..TUNNEL };
    let mut info = again.info(&a, &b, true);
    info.replaces = Some(ChildSaId(1));
    b.inbound(inbound(&again.info(&b, &a, false), 7)).unwrap();
    a.outbound(outbound(&info, 7)).unwrap();
    exchange(&at_a, &at_b, b"new");
    assert_eq!(b.plane.usage(ChildSaId(2)).unwrap().packets_in, 1);

    let taken = b.inbound(inbound(&again.info(&b, &a, false), 7));
    assert!(matches!(taken, Err(DataPlaneError::SpiTaken)));
    let (netns, plane) = (&b.netns, &mut b.plane);
    let removed = netns
        .block_on(async || plane.remove(ChildSaId(2)).await)
        .unwrap();
    assert_eq!(removed.unwrap().packets_in, 1);
    let gone = netns
        .block_on(async || plane.remove(ChildSaId(2)).await)
        .unwrap();
    assert!(matches!(gone, Err(DataPlaneError::Unknown)));
    at_a.send_to(b"nobody opens it", at_b.local_addr().unwrap())
        .unwrap();
    at_b.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    at_b.recv_from(&mut [0; 16]).unwrap_err();
    // It is held for a while, since its SA could be about to come.
    eventually("it is dropped", || {
        (b.drops("unknown-spi") == 1).then_some(())
    });
}

#[test]
fn packets_that_come_after_the_end_of_an_sa_that_was_replaced_are_not_lost() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    TUNNEL.protect(&mut a, &mut b);
    TUNNEL.install(&mut a, &mut b);
    let (at_a, at_b) = (a.socket(a.subnet, 7), b.socket(b.subnet, 7));
    let again = Child { id: 2, ..TUNNEL };
    b.inbound(inbound(&again.info(&b, &a, false), 7)).unwrap();
    let (netns, plane) = (&b.netns, &mut b.plane);
    netns
        .block_on(async || plane.remove(ChildSaId(1)).await)
        .unwrap()
        .unwrap();
    // The first host does not use the new one yet.
    exchange(&at_a, &at_b, b"late");
    assert_eq!(b.drops("unknown-spi"), 0);
}

//= test rfc7296 2.8-1
#[test]
fn a_hard_limit_ends_an_sa() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    TUNNEL.protect(&mut a, &mut b);
    TUNNEL.install(&mut a, &mut b);
    let limited = Child { id: 2, ..TUNNEL };
    let mut info = limited.info(&a, &b, true);
    info.replaces = Some(ChildSaId(1));
    info.limits.soft_packets = Some(1);
    info.limits.hard_packets = Some(2);
    b.inbound(inbound(&limited.info(&b, &a, false), 7)).unwrap();
    a.outbound(outbound(&info, 7)).unwrap();
    let (at_a, at_b) = (a.socket(a.subnet, 7), b.socket(b.subnet, 7));
    exchange(&at_a, &at_b, b"1");
    exchange(&at_a, &at_b, b"2");
    at_a.send_to(b"3", at_b.local_addr().unwrap()).unwrap();
    assert!(matches!(
        a.event(),
        DataPlaneEvent::SoftExpired(ChildSaId(2))
    ));
    assert!(matches!(
        a.event(),
        DataPlaneEvent::HardExpired(ChildSaId(2))
    ));
    assert_eq!(a.drops("hard-limit"), 1);
}

//= test rfc7296 2-2
//= test security S-33
#[test]
fn ike_messages_on_port_4500_come_up_and_garbage_does_not() {
    if skipped() {
        return;
    }
    let (mut a, b) = hosts(true);
    let sender = b.socket(b.address, 4501);
    for datagram in [
        &b"\xff"[..],
        b"abc",
        b"\0\0\0\0an IKE message",
        b"no such SPI at all",
    ] {
        sender.send_to(datagram, (a.address, 4500)).unwrap();
    }
    let DataPlaneEvent::Ike { path, datagram } = a.event() else {
        panic!("the first event is the message");
    };
    assert_eq!(datagram, b"an IKE message");
    assert_eq!(path.local, SocketAddr::new(a.address, 4500));
    assert_eq!(path.remote, SocketAddr::new(b.address, 4501));
    sender.send_to(b"\0\0\0\0again", (a.address, 4500)).unwrap();
    assert!(matches!(a.event(), DataPlaneEvent::Ike { .. }));
    assert_eq!(a.drops("short-datagram"), 1);
    eventually("it is dropped", || {
        (a.drops("unknown-spi") == 1).then_some(())
    });
}

#[test]
fn one_policy_between_networks_has_an_sa_per_pair_of_hosts() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    let network = TrafficSelector {
        start: ip("192.0.2.0"),
        end: ip("192.0.2.255"),
        ..ts(a.address, 0, ANY)
    };
    let wide = Child {
        protocol: 0,
        port: ANY,
        ..TRANSPORT
    };
    for host in [&mut a, &mut b] {
        let policy = Policy {
            connection: "hosts".into(),
            child: "child".into(),
            mode: Mode::Transport,
            local_ts: vec![network],
            remote_ts: vec![network],
            trap: true,
            pass: false,
            narrower: false,
            clear: Default::default(),
            kernel: crate::dataplane::KernelOptions::default(),
        };
        host.policies(vec![policy]).unwrap();
    }
    let (at_a, at_b) = (a.socket(a.address, 7000), b.socket(b.address, 7000));
    let mut asked = Vec::new();
    for destination in [b.address, ip("192.0.2.3")] {
        at_a.send_to(b"kept", (destination, 7000)).unwrap();
        let DataPlaneEvent::Acquire { flow, .. } = a.event() else {
            panic!("each pair of hosts is asked for");
        };
        asked.push(flow.destination);
    }
    assert_eq!(asked, [b.address, ip("192.0.2.3")]);
    wide.install(&mut a, &mut b);
    let mut buffer = [0; 16];
    assert_eq!(at_b.recv_from(&mut buffer).unwrap().0, 4);
    exchange(&at_a, &at_b, b"protected");
    exchange(&at_b, &at_a, b"and back");
}
