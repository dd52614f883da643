//! Short lives under load by racoon's files: one host talks with many others, all SAs are made anew again and
//! again, and one of the others is killed and returns. Nothing is lost of what the rest say to each other,
//! nothing altered, and nothing in clear. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/daemons.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod daemons;
#[path = "support/racoon.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod racoon;
#[allow(dead_code, reason = "each test uses its part of it")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daemons::{LIMIT, assert_only_protected, ike_sas, printed_status};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, SERVICE, Side, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::Service;
use obol_daemon::host::netns::Netns;
use racoon::{Bed, talks};
use rustix::process::Signal;
use support::{is_root, obol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Peers that stay, all of them addresses of the second host, and those that begin by themselves.
const PEERS: u8 = 20;
const CLIENTS: u8 = 5;

/// The one that is killed, on a wire of its own.
const C: Side = Side {
    name: "c",
    address: Ipv4Addr::new(192, 168, 1, 3),
    pod: Ipv4Addr::new(172, 16, 3, 1),
    network: "172.16.3.0/24",
    overlay: Ipv4Addr::new(10, 200, 0, 3),
    id: "@hostC.example.com",
};
const OTHER_WIRE: &str = "wire1";

fn peer(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 2, 1 + n)
}

/// The hosts and their files: an SA lives ten seconds, an IKE SA twenty.
fn hosts() -> (Bed, Host) {
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let c = Host::bare(obol(), Netns::anonymous().unwrap(), bed.lab.directory(), C).unwrap();
    bed.furnish(&c);
    for host in [a, b, &c] {
        bed.edit(host, "24 hour", "20 sec");
        bed.edit(host, "12 hour", "10 sec");
        bed.edit(host, "dpd_delay 30", "dpd_delay 5");
    }
    let own = IpAddr::V4(a.side.address);
    let (gateway, third) = (IpAddr::V4(b.side.address), IpAddr::V4(C.address));
    let network = (IpAddr::V4(Ipv4Addr::new(192, 168, 2, 0)), 24);
    a.netns
        .configure(async |links| {
            links.route(network, WIRE, Some(gateway)).await?;
            links.veth_to(OTHER_WIRE, &c.netns, WIRE).await?;
            links.address(OTHER_WIRE, own, 32).await?;
            links.up(OTHER_WIRE).await?;
            links.route((third, 32), OTHER_WIRE, None).await
        })
        .unwrap();
    b.netns
        .configure(async |links| {
            for n in 0..PEERS {
                links.address(WIRE, IpAddr::V4(peer(n)), 32).await?;
            }
            Ok(())
        })
        .unwrap();
    c.netns
        .configure(async |links| {
            links.address(WIRE, third, 24).await?;
            links.up(WIRE).await?;
            links.route((own, 32), WIRE, None).await
        })
        .unwrap();
    (bed, c)
}

/// Has a service send back octets that differ each time, until it is over; how often.
fn talk(
    host: &Host,
    from: Ipv4Addr,
    to: Ipv4Addr,
    over: &Arc<AtomicBool>,
) -> JoinHandle<io::Result<u64>> {
    let socket = host.netns.run(TcpSocket::new_v4).unwrap().unwrap();
    socket.bind(SocketAddrV4::new(from, 0).into()).unwrap();
    let over = Arc::clone(over);
    tokio::spawn(async move {
        let service = SocketAddrV4::new(to, SERVICE).into();
        let mut stream = timeout(3 * LIMIT, socket.connect(service)).await??;
        // To be answered with the same.
        stream.write_all(b"e").await?;
        let mut round = 0u64;
        while !over.load(Ordering::Relaxed) {
            round += 1;
            let sent = round.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            let sent = [&to.octets()[..], &from.octets(), &sent]
                .concat()
                .repeat(256);
            let mut came = vec![0; sent.len()];
            timeout(2 * LIMIT, stream.write_all(&sent)).await??;
            timeout(2 * LIMIT, stream.read_exact(&mut came)).await??;
            assert!(
                came == sent,
                "round {round} from {from} to {to} is another one"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(round)
    })
}

/// For each peer that stays, and each child with it, the SPIs of the IKE SA and of the child.
fn spis(host: &Host) -> BTreeMap<(String, String), (String, String)> {
    let status = printed_status(host);
    let mut found = BTreeMap::new();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    for sa in ike_sas(&status) {
        let addr = text(&sa["remote"]["addr"]);
        for child in sa["children"].as_array().into_iter().flatten() {
            if child["state"] == "installed" && addr != C.address.to_string() {
                let key = (addr.clone(), text(&child["name"]));
                found.insert(key, (text(&sa["spi_i"]), text(&child["spi_in"])));
            }
        }
    }
    found
}

/// Waits until each child with those that stay has other SPIs than before.
async fn all_made_anew(bed: &Bed, before: &BTreeMap<(String, String), (String, String)>) {
    let a = &bed.lab.a;
    let deadline = Instant::now() + 9 * LIMIT;
    loop {
        let now = spis(a);
        let is_new = |(key, (ike, child)): (&(String, String), &(String, String))| {
            let is_other = |now: &(String, String)| now.0 != *ike && now.1 != *child;
            now.get(key).is_some_and(is_other)
        };
        if before.iter().all(is_new) {
            return;
        }
        assert!(Instant::now() < deadline, "{}", said(a));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn said(host: &Host) -> String {
    fs::read_to_string(host.runtime.join("racoon.log")).unwrap_or_default()
}

#[tokio::test]
async fn nothing_is_lost_while_sas_are_made_anew_and_a_peer_is_killed() {
    if !is_root() {
        return;
    }
    let (bed, c) = hosts();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let captures = [WIRE, OTHER_WIRE].map(|wire| {
        let capture = Capture::start(&a.netns, wire, protected());
        capture.unwrap()
    });
    let _services = [a, b, &c].map(|host| {
        let anywhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVICE);
        Service::start(&host.netns, anywhere).unwrap()
    });
    for host in [a, b, &c] {
        bed.does(host, "setkey --service start ETC");
    }
    let _racoons = [bed.start(a), bed.start(b)];
    let third = bed.start(&c);
    let over = Arc::new(AtomicBool::new(false));
    let own = a.side.address;
    let to = (0..PEERS).map(|n| talk(a, own, peer(n), &over));
    let from = (0..CLIENTS).map(|n| talk(b, peer(n), own, &over));
    let stay: Vec<_> = to.chain(from).collect();
    let killed = [
        talk(a, own, C.address, &over),
        talk(&c, C.address, own, &over),
    ];
    let all = usize::from(PEERS + CLIENTS);
    let deadline = Instant::now() + 3 * LIMIT;
    while spis(a).len() < all {
        assert!(Instant::now() < deadline, "{}", said(a));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let first = spis(a);
    third.signal(Signal::KILL);
    drop(third);
    all_made_anew(&bed, &first).await;
    let _third = bed.start(&c);
    for (host, peer) in [(a, &c), (&c, a)] {
        assert!(talks(host, peer, 3 * LIMIT).await, "{}", said(host));
    }
    let second = spis(a);
    assert_eq!(second.len(), all);
    all_made_anew(&bed, &second).await;
    over.store(true, Ordering::Relaxed);
    for talk in stay {
        let rounds = talk.await.unwrap();
        assert!(
            rounds.as_ref().is_ok_and(|rounds| *rounds > 0),
            "{rounds:?}: {}",
            said(a)
        );
    }
    for talk in killed {
        // It may have gone on, but never with anything else than what was sent.
        println!("with the host that was killed: {:?}", talk.await.unwrap());
    }
    assert_only_protected(&captures[0]).await;
    // The kernel of the killed one says of ESP and IKE that nobody takes it.
    let seen = captures[1].seen();
    assert!(seen.clear == 0 && seen.esp > 0, "{seen:?}");
}
