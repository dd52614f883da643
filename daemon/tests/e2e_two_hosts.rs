//! Two daemons on two hosts: what the contract's configuration promises, and what holds when a
//! daemon or its device dies. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/daemons.rs"]
mod daemons;
mod support;

use daemons::{
    LIMIT, PATIENCE, assert_only_protected, ike_sas, installed, printed_status, started, succeeds,
};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{A, B, Lab, SERVICE, WIRE};
use obol_daemon::demo::outage::Traffic;
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::{Service, converse, ping};
use serde_json::Value;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};
use support::{Snapshot, is_root, obol};

/// The file of host A as it is promised to work.
const CONTRACT: &str = r#"[connections.hosts]
local_addrs  = ["192.168.0.1"]
remote_addrs = ["192.168.0.2"]
# proposals = ["aes256gcm16-prfsha384-x25519"]   optional, swanctl syntax
local  = { auth = "psk", id = "@hostA.example.com" }
remote = { auth = "psk", id = "@hostB.example.com" }

[connections.hosts.children.pods]
local_ts  = ["172.16.1.0/24"]
remote_ts = ["172.16.2.0/24"]
start_action = "start"            # none | trap | start

[connections.hosts.children.mongodb-server]
mode = "transport"                # default: tunnel
local_ts  = ["192.168.0.1/32[tcp/27017]"]
remote_ts = ["192.168.0.2/32[tcp]"]
start_action = "trap"

[connections.hosts.children.mongodb-client]
mode = "transport"
local_ts  = ["192.168.0.1/32[tcp]"]
remote_ts = ["192.168.0.2/32[tcp/27017]"]
start_action = "trap"

[secrets.hosts]
type = "psk"
ids  = ["@hostA.example.com", "@hostB.example.com"]
secret = "0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ="   # text, 0x hex, 0s base64, or file = "hosts.psk"
"#;

/// The same seen from the other host.
fn mirrored(contract: &str) -> String {
    let mut text = contract.to_owned();
    for (a, b) in [
        ("192.168.0.1", "192.168.0.2"),
        ("172.16.1.0", "172.16.2.0"),
        ("hostA", "hostB"),
    ] {
        text = text.replace(a, "\0").replace(b, a).replace('\0', b);
    }
    text
}

#[tokio::test]
async fn the_contract_protects_two_hosts() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(obol(), None).unwrap();
    std::fs::write(&lab.a.config, CONTRACT).unwrap();
    std::fs::write(&lab.b.config, mirrored(CONTRACT)).unwrap();
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    started(&mut lab).await;

    for (host, peer) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        let deadline = Instant::now() + LIMIT;
        ping(
            &host.netns,
            host.side.pod,
            peer.side.pod,
            PATIENCE,
            deadline,
        )
        .await
        .unwrap();
        let service = SocketAddrV4::new(peer.side.address, SERVICE);
        let _service = Service::start(&peer.netns, service).unwrap();
        let talk = converse(&host.netns, host.side.address, service, LIMIT)
            .await
            .unwrap();
        // The first SYN was kept: had it been lost, the next would have come after a second.
        assert!(talk.connect < Duration::from_secs(1), "{talk:?}");
    }

    for host in [&lab.a, &lab.b] {
        let status = printed_status(host);
        assert_eq!(
            installed(&status),
            ["mongodb-client", "mongodb-server", "pods"],
            "{status:#}"
        );
        let ike = ike_sas(&status)[0];
        assert_eq!(
            (&ike["name"], &ike["state"]),
            (&"hosts".into(), &"established".into())
        );
        let pods = child(&status, "pods");
        assert_eq!(pods["mode"], "tunnel");
        assert!(pods["packets_in"].as_u64() >= Some(1), "{pods:#}");
        assert!(pods["packets_out"].as_u64() >= Some(1), "{pods:#}");
        assert_eq!(child(&status, "mongodb-server")["mode"], "transport");
    }
    assert_only_protected(&capture).await;
    for host in [&mut lab.a, &mut lab.b] {
        assert!(host.stop(LIMIT).await.unwrap().success());
    }
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn nothing_passes_in_clear_after_sigkill() {
    if !is_root() {
        return;
    }
    let (mut lab, capture) = protected_lab().await;
    let _services = services(&lab);
    let mut traffic = Traffic::start(&lab).unwrap();
    answered(&mut traffic).await;
    for host in ["b", "a"] {
        let dead = if host == "b" { &mut lab.b } else { &mut lab.a };
        dead.kill().unwrap();
        // Replies that were on their way.
        traffic.run_for(Duration::from_millis(100)).await;
        let outcome = traffic.run_for(Duration::from_secs(1)).await;
        assert!(outcome.tries > 0);
        assert_eq!(outcome.answered, 0, "without the daemon of {host}");
        assert_only_protected(&capture).await;
    }
    started(&mut lab).await;
    answered(&mut traffic).await;
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn nothing_passes_in_clear_without_the_tun() {
    if !is_root() {
        return;
    }
    let (lab, capture) = protected_lab().await;
    let _services = services(&lab);
    let mut traffic = Traffic::start(&lab).unwrap();
    answered(&mut traffic).await;
    lab.a
        .netns
        .configure(async |links| links.delete(TUN).await)
        .unwrap();
    assert_only_protected(&capture).await;
    // The daemon makes the device again.
    let deadline = Instant::now() + LIMIT;
    for (host, peer) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        ping(
            &host.netns,
            host.side.pod,
            peer.side.pod,
            PATIENCE,
            deadline,
        )
        .await
        .unwrap();
    }
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn down_all_and_purge_leave_nothing() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(obol(), None).unwrap();
    let before = [Snapshot::of(&lab.a.netns), Snapshot::of(&lab.b.netns)];
    started(&mut lab).await;
    assert_ne!(Snapshot::of(&lab.a.netns), before[0]);
    succeeds(&lab.a, &["down", "--all"]);
    assert_eq!(Snapshot::of(&lab.a.netns), before[0]);

    lab.b.kill().unwrap();
    assert_ne!(
        Snapshot::of(&lab.b.netns),
        before[1],
        "the protection outlives the daemon"
    );
    succeeds(&lab.b, &["purge"]);
    assert_eq!(Snapshot::of(&lab.b.netns), before[1]);

    // What was protected passes in clear: that is what the operator asked for.
    let service = SocketAddrV4::new(B.address, SERVICE);
    let _service = Service::start(&lab.b.netns, service).unwrap();
    converse(&lab.a.netns, A.address, service, LIMIT)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_daemon_that_ends_in_order_keeps_its_flows_protected() {
    if !is_root() {
        return;
    }
    let (mut lab, capture) = protected_lab().await;
    let _services = services(&lab);
    let mut traffic = Traffic::start(&lab).unwrap();
    answered(&mut traffic).await;
    for host in [&mut lab.a, &mut lab.b] {
        assert!(host.stop(LIMIT).await.unwrap().success());
    }
    let outcome = traffic.run_for(Duration::from_secs(1)).await;
    assert!(outcome.tries > 0);
    assert_eq!(outcome.answered, 0);
    assert_only_protected(&capture).await;
}

const TUN: &str = "obol0";

/// Two hosts with the demo's configuration, the overlay, and both daemons up.
async fn protected_lab() -> (Lab, Capture) {
    let mut lab = Lab::new(obol(), None).unwrap();
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    started(&mut lab).await;
    lab.overlay().unwrap();
    (lab, capture)
}

fn services(lab: &Lab) -> [Service; 2] {
    [&lab.a, &lab.b].map(|host| {
        Service::start(&host.netns, SocketAddrV4::new(host.side.address, SERVICE)).unwrap()
    })
}

/// Waits until some of the traffic is answered.
async fn answered(traffic: &mut Traffic) {
    let deadline = Instant::now() + LIMIT;
    while traffic.run_for(Duration::from_millis(50)).await.answered == 0 {
        assert!(Instant::now() < deadline, "nothing is answered");
    }
}

fn child<'a>(status: &'a Value, name: &str) -> &'a Value {
    let ike_sas = status["ike_sas"].as_array().unwrap();
    let mut children = ike_sas
        .iter()
        .filter_map(|ike| ike["children"].as_array())
        .flatten();
    children.find(|child| child["name"] == name).unwrap()
}
