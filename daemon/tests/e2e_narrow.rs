//! Narrow paths. One that becomes so under a stream: packets that do not fit any more are fragmented,
//! and the stream goes on. One that does not take IPv6's least packet with what ESP adds. One that
//! loses what is too long and says nothing. As root; in namespaces.
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

use daemons::{LIMIT, started};
use obol_daemon::demo::lab::{A, B, Host, Lab, Side, WIRE};
use obol_daemon::host::netns::Netns;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use support::{is_root, obol};

/// What passes the path in the end, in octets: the least that IPv6 promises.
const NARROW: u32 = 1280;
const PORT: u16 = 5001;
/// Octets of a stream before and after.
const OCTETS: usize = 1 << 20;

/// Where hosts and router are.
struct Addresses {
    host: [&'static str; 2],
    router: [&'static str; 2],
    prefix: u8,
    any: &'static str,
}

const V4: Addresses = Addresses {
    host: ["10.1.0.1", "10.2.0.1"],
    router: ["10.1.0.254", "10.2.0.254"],
    prefix: 24,
    any: "0.0.0.0",
};

const V6: Addresses = Addresses {
    host: ["fd01::1", "fd02::1"],
    router: ["fd01::fe", "fd02::fe"],
    prefix: 64,
    any: "::",
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The hosts with a router between them.
fn lab(addresses: &Addresses) -> (Lab, Netns) {
    let lab = Lab::new(obol(), None).unwrap();
    // The other end of the wire goes with it.
    lab.a
        .netns
        .configure(async |links| links.delete(WIRE).await)
        .unwrap();
    let router = Netns::anonymous().unwrap();
    for netns in [&router, &lab.a.netns, &lab.b.netns] {
        for kind in ["all", "default"] {
            for (key, value) in [("disable_ipv6", "0"), ("accept_dad", "0")] {
                netns
                    .sysctl(&format!("net/ipv6/conf/{kind}/{key}"), value)
                    .unwrap();
            }
        }
    }
    router.sysctl("net/ipv4/ip_forward", "1").unwrap();
    router.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    for (index, (host, device)) in [(&lab.a, "to-a"), (&lab.b, "to-b")].into_iter().enumerate() {
        let gateway = ip(addresses.router[index]);
        let own = (WIRE, ip(addresses.host[index]), addresses.prefix);
        router
            .join((device, gateway, addresses.prefix), &host.netns, own)
            .unwrap();
        host.netns
            .configure(async |links| {
                links
                    .route((ip(addresses.any), 0), WIRE, Some(gateway))
                    .await
            })
            .unwrap();
    }
    (lab, router)
}

/// Both configurations: the first host begins. `more` goes into the table of the daemon.
fn configure(lab: &Lab, addresses: &Addresses, encap: bool, more: &str) {
    let [a, b] = addresses.host;
    let [inner_a, inner_b] = ["fd10:1::/64", "fd10:2::/64"];
    configure_one(
        &lab.a,
        B,
        [a, b],
        [inner_a, inner_b],
        (encap, "start", more),
    );
    configure_one(&lab.b, A, [b, a], [inner_b, inner_a], (encap, "none", more));
}

fn configure_one(
    host: &Host,
    peer: Side,
    [own, other]: [&str; 2],
    [own_v6, other_v6]: [&str; 2],
    (encap, action, more): (bool, &str, &str),
) {
    let side = host.side;
    let text = format!(
        r#"[daemon]
{more}

[connections.hosts]
local_addrs  = ["{own}"]
remote_addrs = ["{other}"]
encap = {encap}
local  = {{ auth = "psk", id = "{}" }}
remote = {{ auth = "psk", id = "{}" }}

[connections.hosts.children.pods]
local_ts  = ["{}", "{own_v6}"]
remote_ts = ["{}", "{other_v6}"]
start_action = "{action}"

[secrets.hosts]
type = "psk"
secret = "0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ="
"#,
        side.id, peer.id, side.network, peer.network
    );
    std::fs::write(&host.config, text).unwrap();
}

/// Two ends of a stream to an address of another host.
fn stream(from: &Netns, to: &Netns, address: IpAddr) -> (TcpStream, TcpStream) {
    let listener = to
        .run(|| TcpListener::bind((address, PORT)))
        .unwrap()
        .unwrap();
    let client = from
        .run(|| TcpStream::connect_timeout(&(address, PORT).into(), LIMIT))
        .unwrap()
        .unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    (client, server)
}

/// All arrives, and none of it waits for long.
fn passes(client: &mut TcpStream, server: &mut TcpStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| client.write_all(&vec![7; OCTETS]).unwrap());
        let mut received = vec![0; OCTETS];
        server.read_exact(&mut received).unwrap();
        assert!(received.iter().all(|octet| *octet == 7));
    });
}

async fn goes_on(addresses: &Addresses, encap: bool) {
    if !is_root() {
        return;
    }
    let (mut lab, router) = lab(addresses);
    configure(&lab, addresses, encap, "");
    started(&mut lab).await;
    let begin = |lab: &Lab| stream(&lab.a.netns, &lab.b.netns, B.pod.into());
    let (mut client, mut server) = begin(&lab);
    passes(&mut client, &mut server);
    router
        .configure(async |links| links.mtu("to-b", NARROW).await)
        .unwrap();
    passes(&mut client, &mut server);
    // And one that begins when the path is narrow.
    drop((client, server));
    let (mut client, mut server) = begin(&lab);
    passes(&mut client, &mut server);
}

//= test security S-49
#[tokio::test]
async fn a_stream_goes_on_when_the_path_becomes_narrow() {
    goes_on(&V4, false).await;
}

//= test security S-49
#[tokio::test]
async fn a_stream_in_udp_goes_on_when_the_path_becomes_narrow() {
    goes_on(&V4, true).await;
}

//= test security S-49
#[tokio::test]
async fn a_stream_goes_on_when_the_path_over_ipv6_becomes_narrow() {
    goes_on(&V6, false).await;
}

//= test security S-49
#[tokio::test]
async fn a_stream_in_udp_goes_on_when_the_path_over_ipv6_becomes_narrow() {
    goes_on(&V6, true).await;
}

/// Networks of IPv6 behind both hosts: a machine of its own behind the first one.
fn inside(lab: &Lab) -> Netns {
    let inside = Netns::anonymous().unwrap();
    inside
        .sysctl("net/ipv6/conf/default/accept_dad", "0")
        .unwrap();
    let gateway = ip(GATEWAY);
    lab.a
        .netns
        .join(("to-inside", gateway, 64), &inside, (WIRE, ip(MACHINE), 64))
        .unwrap();
    inside
        .configure(async |links| links.route((ip("::"), 0), WIRE, Some(gateway)).await)
        .unwrap();
    lab.a
        .netns
        .sysctl("net/ipv6/conf/all/forwarding", "1")
        .unwrap();
    lab.b
        .netns
        .configure(async |links| links.address("lo", ip(BEHIND_B), 128).await)
        .unwrap();
    inside
}

const GATEWAY: &str = "fd10:1::1";
const MACHINE: &str = "fd10:1::2";
const BEHIND_B: &str = "fd10:2::1";

/// Sends a datagram of so many octets until it arrives; whether it did, and its answer of the same length.
fn answered(from: &Netns, to: &Netns, address: SocketAddr, octets: usize, limit: Duration) -> bool {
    let bind = |netns: &Netns, at: SocketAddr| netns.run(|| UdpSocket::bind(at)).unwrap().unwrap();
    let server = bind(to, address);
    let any = if address.is_ipv4() { V4.any } else { V6.any };
    let client = bind(from, SocketAddr::new(ip(any), 0));
    for socket in [&server, &client] {
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
    }
    let (question, mut buffer) = (vec![7; octets], vec![0; 65_535]);
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        // What the system knows of the path may be news, and an error once.
        let _ = client.send_to(&question, address);
        let Ok((len, asker)) = server.recv_from(&mut buffer) else {
            continue;
        };
        server.send_to(&buffer[..len], asker).unwrap();
        if client.recv(&mut buffer).is_ok_and(|len| len == octets) {
            return true;
        }
    }
    false
}

/// Octets of a UDP datagram that is an IPv6 packet of the least that all links carry.
const LEAST: usize = NARROW as usize - 48;

/// All devices between the hosts have the least MTU of IPv6, so IPv6 packets that long do not fit with
/// what ESP adds, neither those of the host itself nor those it forwards.
async fn ipv6_fits(addresses: &Addresses, encap: bool) {
    if !is_root() {
        return;
    }
    let (mut lab, router) = lab(addresses);
    let inside = inside(&lab);
    for (netns, device) in [
        (&router, "to-a"),
        (&router, "to-b"),
        (&lab.a.netns, WIRE),
        (&lab.b.netns, WIRE),
    ] {
        netns
            .configure(async |links| links.mtu(device, NARROW).await)
            .unwrap();
    }
    configure(&lab, addresses, encap, "");
    started(&mut lab).await;
    let (a, b) = (&lab.a.netns, &lab.b.netns);
    let service = SocketAddr::new(ip(BEHIND_B), PORT);
    for (from, what) in [(a, "its own"), (&inside, "forwarded")] {
        for octets in [LEAST, 4000] {
            let passed = answered(from, b, service, octets, LIMIT);
            assert!(passed, "{what}, {octets} octets");
        }
        let (mut client, mut server) = stream(from, b, ip(BEHIND_B));
        passes(&mut client, &mut server);
        passes(&mut server, &mut client);
    }
}

//= test rfc4303 3.3.4-1
#[tokio::test]
async fn ipv6_passes_a_tunnel_over_a_path_with_no_room_for_it() {
    for encap in [false, true] {
        ipv6_fits(&V4, encap).await;
    }
}

//= test rfc4303 3.3.4-1
#[tokio::test]
async fn ipv6_passes_a_tunnel_over_ipv6_with_no_room_for_it() {
    for encap in [false, true] {
        ipv6_fits(&V6, encap).await;
    }
}

/// A router that never says that something is too long for it.
async fn survives_silence(encap: bool) {
    if !is_root() {
        return;
    }
    let (mut lab, router) = lab(&V6);
    let inside = inside(&lab);
    for (key, value) in [("ratemask", "0-127"), ("ratelimit", "1000000000")] {
        router
            .sysctl(&format!("net/ipv6/icmp/{key}"), value)
            .unwrap();
    }
    for device in ["to-a", "to-b"] {
        router
            .configure(async |links| links.mtu(device, HOLE).await)
            .unwrap();
    }
    configure(&lab, &V6, encap, &format!("mtu = {HOLE}"));
    started(&mut lab).await;
    let (a, b) = (&lab.a.netns, &lab.b.netns);
    let clear = SocketAddr::new(ip(V6.host[1]), PORT);
    let shortly = Duration::from_millis(500);
    assert!(answered(a, b, clear, HOLE as usize - 48, LIMIT));
    assert!(
        !answered(a, b, clear, HOLE as usize - 47, shortly),
        "it is no black hole"
    );
    let (pod, v6) = (IpAddr::V4(B.pod), ip(BEHIND_B));
    for (from, to) in [(a, pod), (a, v6), (&inside, v6)] {
        for octets in [LEAST, 4000] {
            let passed = answered(from, b, SocketAddr::new(to, PORT), octets, LIMIT);
            assert!(passed, "{to}, {octets} octets");
        }
        let (mut client, mut server) = stream(from, b, to);
        passes(&mut client, &mut server);
        passes(&mut server, &mut client);
    }
}

/// What passes the black hole: IPv6's least packet, with all that ESP adds.
const HOLE: u32 = NARROW + 88;

//= test security S-49
#[tokio::test]
async fn where_nobody_says_what_is_too_long_the_configured_mtu_does() {
    for encap in [false, true] {
        survives_silence(encap).await;
    }
}
