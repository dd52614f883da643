//! Hosts behind a router that is a NAT for some: mappings that are forgotten, and a host that
//! goes to another network. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[expect(dead_code, reason = "other tests need more of it")]
#[path = "support/daemons.rs"]
mod daemons;
#[expect(dead_code, reason = "other tests need more of it")]
mod support;

use daemons::{LIMIT, PATIENCE, ike_sas, printed_status, started};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, Lab, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::{Pinger, ping};
use obol_daemon::host::nat::masquerade;
use obol_daemon::host::netns::Netns;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use support::{is_root, obol};

/// Where the second host is, and the router before it.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 254);

/// A network that the first host can be in.
#[derive(Clone, Copy)]
struct Network {
    device: &'static str,
    at_router: &'static str,
    /// All but the last octet of its addresses.
    prefix: [u8; 3],
}

/// Its hosts are seen as they are.
const PLAIN: Network = Network {
    device: WIRE,
    at_router: "plain",
    prefix: [192, 168, 0],
};

/// A NAT hides its hosts.
const HIDDEN: Network = Network {
    device: "wire1",
    at_router: "hidden",
    prefix: [192, 168, 5],
};

impl Network {
    fn address(self, last: u8) -> IpAddr {
        let [a, b, c] = self.prefix;
        [a, b, c, last].into()
    }
}

/// Two hosts, and what is between them.
struct World {
    lab: Lab,
    router: Netns,
    capture: Capture,
}

impl World {
    /// The first host is in `network`; the second one knows no address of it.
    async fn new(network: Network, more: &str) -> Self {
        let lab = Lab::new(obol(), None).unwrap();
        for host in [&lab.a, &lab.b] {
            host.netns
                .configure(async |links| links.delete(WIRE).await)
                .or_else(|error| match error.kind() {
                    // The other end of the wire went with the first.
                    std::io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })
                .unwrap();
        }
        let router = Netns::anonymous().unwrap();
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
        ] {
            router.sysctl(key, value).unwrap();
        }
        let end = |name, address: Ipv4Addr| (name, IpAddr::V4(address), 24);
        router
            .join(end("server", ROUTER), &lab.b.netns, end(WIRE, SERVER))
            .unwrap();
        let default = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        lab.b
            .netns
            .configure(async |links| links.route(default, WIRE, Some(ROUTER.into())).await)
            .unwrap();
        router
            .run(|| masquerade(HIDDEN.address(0), HIDDEN.address(255)))
            .unwrap()
            .unwrap();
        let capture = Capture::start(&router, "server", protected()).unwrap();
        let mut world = Self {
            lab,
            router,
            capture,
        };
        world.enter(network);
        write_configurations(&world.lab, more);
        started(&mut world.lab).await;
        world
    }

    /// Connects the first host with a network.
    fn enter(&mut self, network: Network) {
        let gateway = network.address(254);
        let end = (network.device, network.address(1), 24);
        self.router
            .join((network.at_router, gateway, 24), &self.lab.a.netns, end)
            .unwrap();
        let default = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        self.lab
            .a
            .netns
            .configure(async |links| links.route(default, network.device, Some(gateway)).await)
            .unwrap();
    }

    fn leave(&mut self, network: Network) {
        self.lab
            .a
            .netns
            .configure(async |links| links.delete(network.device).await)
            .unwrap();
    }

    async fn reached(&self) {
        let (a, b) = (&self.lab.a, &self.lab.b);
        let deadline = Instant::now() + LIMIT;
        ping(&a.netns, a.side.pod, b.side.pod, PATIENCE, deadline)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", logs(&self.lab)));
    }

    /// Echo requests one after another for a while; how many had no reply.
    async fn lost(&self, time: Duration) -> (usize, usize) {
        let (a, b) = (&self.lab.a, &self.lab.b);
        let pinger = Pinger::new(&a.netns, a.side.pod, b.side.pod).unwrap();
        let deadline = Instant::now() + time;
        let (mut sent, mut lost) = (0, 0);
        while Instant::now() < deadline {
            let reply = pinger.once(sent as u16);
            let in_time = tokio::time::timeout(Duration::from_millis(50), reply).await;
            sent += 1;
            lost += usize::from(!matches!(in_time, Ok(Ok(_))));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (sent, lost)
    }

    /// The port of the first host's NAT that the IKE SA of the second one has gone to from `port`.
    async fn next_port(&self, port: &Value) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let now = ike(&self.lab.b)["remote"]["port"].clone();
            if now != *port {
                return now;
            }
            assert!(
                Instant::now() < deadline,
                "still at port {port}\n{}",
                logs(&self.lab)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Nothing of what is protected was on the wire in clear, and no packet was missed.
    async fn assert_protected(&self) {
        let deadline = Instant::now() + LIMIT;
        while self.capture.missed().unwrap() > 0 {
            assert!(Instant::now() < deadline, "packets were missed");
            tokio::task::yield_now().await;
        }
        let seen = self.capture.seen();
        assert_eq!(seen.clear, 0, "{seen:?}");
        // Behind the NAT, ports of IKE and ESP are any at one end; what comes for a mapping that
        // it has forgotten is refused by it.
        let known = |kind: &String| {
            let words: Vec<&str> = kind.split(' ').collect();
            match words[..] {
                ["UDP", from, "to", to] => {
                    [from, to].iter().any(|port| ["500", "4500"].contains(port))
                }
                _ => kind == "ICMP type 3" || kind.starts_with("IPv6"),
            }
        };
        assert!(seen.other_kinds.keys().all(known), "{seen:?}");
    }
}

fn logs(lab: &Lab) -> String {
    let of = |host: &Host| std::fs::read_to_string(&host.log).unwrap_or_default();
    format!("a:\n{}\nb:\n{}", of(&lab.a), of(&lab.b))
}

fn write_configurations(lab: &Lab, more: &str) {
    let text = |ours: &str, theirs: &str, remote: &str, local_ts: &str, remote_ts: &str, start| {
        format!(
            r#"[connections.hosts]
remote_addrs = ["{remote}"]
local  = {{ auth = "psk", id = "{ours}" }}
remote = {{ auth = "psk", id = "{theirs}" }}
{more}

[connections.hosts.children.pods]
local_ts  = ["{local_ts}"]
remote_ts = ["{remote_ts}"]
start_action = "{start}"

[secrets.hosts]
type = "psk"
secret = "0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ="
"#
        )
    };
    let (a, b) = (lab.a.side, lab.b.side);
    let server = SERVER.to_string();
    let of_a = text(a.id, b.id, &server, a.network, b.network, "start");
    let of_b = text(b.id, a.id, "%any", b.network, a.network, "none");
    std::fs::write(&lab.a.config, of_a).unwrap();
    std::fs::write(&lab.b.config, of_b).unwrap();
}

/// Makes a NAT forget all its mappings: IPCTNL_MSG_CT_DELETE, linux/netfilter/nfnetlink_conntrack.h.
fn forget_mappings() {
    const CT_DELETE: u16 = (1 << 8) | 2;
    const REQUEST_ACK: u16 = 0x5;
    let mut socket = Socket::new(NETLINK_NETFILTER).unwrap();
    socket.bind_auto().unwrap();
    let mut request = 20_u32.to_ne_bytes().to_vec();
    request.extend(CT_DELETE.to_ne_bytes());
    request.extend(REQUEST_ACK.to_ne_bytes());
    request.extend([0; 12]);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0).unwrap();
    let (reply, _) = socket.recv_from_full().unwrap();
    // An error message with number 0.
    assert_eq!((&reply[4..6], &reply[16..20]), (&[2, 0][..], &[0; 4][..]));
}

fn ike(host: &Host) -> Value {
    let status = printed_status(host);
    let sas = ike_sas(&status);
    assert_eq!(sas.len(), 1, "{status:#}");
    sas[0].clone()
}

fn encapsulation(host: &Host) -> String {
    ike(host)["children"][0]["encapsulation"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn traffic_goes_on_when_the_nat_forgets() {
    if !is_root() {
        return;
    }
    for mobike in [false, true] {
        let world = World::new(HIDDEN, &format!("mobike = {mobike}")).await;
        world.reached().await;
        assert_eq!(ike(&world.lab.a)["nat"]["local"], true);
        assert_eq!(ike(&world.lab.b)["nat"]["remote"], true);
        assert_eq!(ike(&world.lab.b)["mobike"], mobike);
        let mut ports = vec![ike(&world.lab.b)["remote"]["port"].clone()];
        let (mut sent, mut lost) = (0, 0);
        for _ in 0..5 {
            world.router.run(forget_mappings).unwrap();
            let now = world.lost(Duration::from_millis(700)).await;
            (sent, lost) = (sent + now.0, lost + now.1);
            ports.push(world.next_port(&ports[ports.len() - 1]).await);
        }
        println!(
            "mobike {mobike}: 5 times forgotten by the NAT: {lost} of {sent} echo requests lost"
        );
        assert!(lost <= 10, "{lost} of {sent}\n{}", logs(&world.lab));
        world.reached().await;
        world.assert_protected().await;
    }
}

#[tokio::test]
async fn a_host_takes_its_tunnel_to_another_network() {
    if !is_root() {
        return;
    }
    let mut world = World::new(PLAIN, "").await;
    world.reached().await;
    for host in [&world.lab.a, &world.lab.b] {
        assert_eq!(ike(host)["mobike"], true);
        assert_eq!(ike(host)["local"]["port"], 4500);
        assert_eq!(encapsulation(host), "none");
    }
    let spi = ike(&world.lab.a)["spi_i"].clone();
    for (from, to, expected) in [(PLAIN, HIDDEN, "udp"), (HIDDEN, PLAIN, "none")] {
        world.leave(from);
        let outage = Instant::now();
        world.enter(to);
        world.reached().await;
        let took = outage.elapsed();
        let (sent, lost) = world.lost(Duration::from_millis(500)).await;
        println!(
            "to another network ({expected}): reached after {took:?}, then {lost} of {sent} lost"
        );
        assert!(lost <= 5, "{lost} of {sent}\n{}", logs(&world.lab));
        let deadline = Instant::now() + LIMIT;
        while [&world.lab.a, &world.lab.b]
            .iter()
            .any(|host| encapsulation(host) != expected)
        {
            assert!(Instant::now() < deadline, "{}", logs(&world.lab));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(
            ike(&world.lab.a)["local"]["addr"],
            to.address(1).to_string()
        );
        assert_eq!(ike(&world.lab.a)["spi_i"], spi, "it is the same IKE SA");
        world.assert_protected().await;
    }
    assert!(world.capture.seen().esp > 0);
}
