//! A path that becomes narrower under a stream: packets that do not fit any more are fragmented, and
//! the stream goes on. As root; in namespaces.
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
use std::net::{IpAddr, TcpListener, TcpStream};
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

fn configure(host: &Host, peer: Side, own: &str, other: &str, encap: bool, action: &str) {
    let side = host.side;
    let text = format!(
        r#"[connections.hosts]
local_addrs  = ["{own}"]
remote_addrs = ["{other}"]
encap = {encap}
local  = {{ auth = "psk", id = "{}" }}
remote = {{ auth = "psk", id = "{}" }}

[connections.hosts.children.pods]
local_ts  = ["{}"]
remote_ts = ["{}"]
start_action = "{action}"

[secrets.hosts]
type = "psk"
secret = "0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ="
"#,
        side.id, peer.id, side.network, peer.network
    );
    std::fs::write(&host.config, text).unwrap();
}

/// Two ends of a stream in the tunnel, from the first host to the second.
fn stream(lab: &Lab) -> (TcpStream, TcpStream) {
    let listener = lab
        .b
        .netns
        .run(|| TcpListener::bind((B.pod, PORT)))
        .unwrap()
        .unwrap();
    let client = lab
        .a
        .netns
        .run(|| TcpStream::connect((B.pod, PORT)))
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
    let [a, b] = addresses.host;
    configure(&lab.a, B, a, b, encap, "start");
    configure(&lab.b, A, b, a, encap, "none");
    started(&mut lab).await;
    let (mut client, mut server) = stream(&lab);
    passes(&mut client, &mut server);
    router
        .configure(async |links| links.mtu("to-b", NARROW).await)
        .unwrap();
    passes(&mut client, &mut server);
    // And one that begins when the path is narrow.
    drop((client, server));
    let (mut client, mut server) = stream(&lab);
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
