//! Two daemons with files of racoon's and setkey's, as they stand on the hosts of a MongoDB replica
//! set; only the network is another one. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]
#![expect(dead_code, reason = "what tests share, they do not all use")]

#[path = "support/daemons.rs"]
mod daemons;
mod support;

use std::fs;
use std::net::SocketAddrV4;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use daemons::{LIMIT, assert_only_protected, ike_sas, installed, printed_status, succeeds};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, Lab, SERVICE, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::{Service, converse};
use support::{is_root, obol};

const RACOON: &str = include_str!("../src/racoon/tests/racoon.conf");
const POLICIES: &str = include_str!("../src/racoon/tests/mongodb.conf");
const PSK: &str = "*  /zatck0CNzYad4fGw4ZV9G1R8b93pdBzCc3I7iXh2zzvediol0yBR8F8wCHKryXE\n";

/// A lab whose daemons run with these files and nothing else.
fn lab(psk: &str, mode: u32) -> Lab {
    let mut lab = Lab::new(obol(), None).unwrap();
    let directory = lab.directory().to_owned();
    for host in [&mut lab.a, &mut lab.b] {
        fs::write(&host.config, "").unwrap();
        let own = directory.join(format!("{}-etc", host.side.name));
        fs::create_dir_all(&own).unwrap();
        let path = |name: &str| own.join(name).display().to_string();
        let racoon = RACOON.replace("/etc/racoon/psk.txt", &path("psk.txt"));
        let policies = POLICIES.replace("10.0.0.0/16", "192.168.0.0/16");
        for (name, text, mode) in [
            ("racoon.conf", racoon.as_str(), 0o644),
            ("mongodb.conf", policies.as_str(), 0o644),
            ("psk.txt", psk, mode),
        ] {
            fs::write(own.join(name), text).unwrap();
            fs::set_permissions(own.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        host.arguments = vec![
            "--racoon-conf".into(),
            path("racoon.conf"),
            "--setkey".into(),
            path("mongodb.conf"),
        ];
    }
    lab
}

fn said(host: &Host) -> String {
    fs::read_to_string(&host.log).unwrap_or_default()
}

async fn start(host: &mut Host) {
    host.start().unwrap();
    let deadline = Instant::now() + LIMIT;
    while host.status().await.is_err() {
        assert!(Instant::now() < deadline && host.runs(), "{}", said(host));
        tokio::task::yield_now().await;
    }
}

/// A conversation from one host with the service on the other.
async fn talks(host: &Host, peer: &Host, limit: Duration) -> bool {
    let service = SocketAddrV4::new(peer.side.address, SERVICE);
    let _service = Service::start(&peer.netns, service).unwrap();
    converse(&host.netns, host.side.address, service, limit)
        .await
        .is_ok()
}

#[tokio::test]
async fn the_story_protects_a_port_between_any_two_hosts() {
    if !is_root() {
        return;
    }
    let mut lab = lab(PSK, 0o400);
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    for host in [&mut lab.a, &mut lab.b] {
        start(host).await;
        let log = said(host);
        let first = log.lines().find(|line| line.contains("WARN")).unwrap();
        assert!(first.contains("all nodes move together"), "{log}");
    }
    for (host, peer) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        assert!(talks(host, peer, LIMIT).await, "{}", said(host));
    }
    for host in [&lab.a, &lab.b] {
        let status = printed_status(host);
        assert_eq!(installed(&status), ["client-27017", "server-27017"]);
        assert_eq!(ike_sas(&status).len(), 1, "{status:#}");
        let child = &ike_sas(&status)[0]["children"][0];
        assert_eq!(
            (&child["mode"], &child["encr"]),
            (&"transport".into(), &"AES_CBC-128".into())
        );
        assert_eq!(child["integ"], "HMAC_SHA2_512_256");
    }
    assert_only_protected(&capture).await;
    // As the firewalls of the story have it: no UDP but on port 500.
    assert_eq!(capture.seen().esp_in_udp, 0);
    succeeds(&lab.a, &["reload"]);
    assert!(talks(&lab.a, &lab.b, LIMIT).await);
}

#[tokio::test]
async fn idle_pairs_go_and_the_next_packet_brings_them_back() {
    if !is_root() {
        return;
    }
    let mut lab = lab(PSK, 0o400);
    for name in [lab.a.side.name, lab.b.side.name] {
        let path = lab.directory().join(format!("{name}-etc/racoon.conf"));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("12 hour", "10 sec")).unwrap();
    }
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    for host in [&mut lab.a, &mut lab.b] {
        start(host).await;
    }
    let children = |host: &Host| installed(&printed_status(host)).len();
    let service = SocketAddrV4::new(lab.b.side.address, SERVICE);
    let _service = Service::start(&lab.b.netns, service).unwrap();
    // Longer than keys live, and shorter than nothing may come.
    for seconds in [11, 2] {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < deadline {
            let done = converse(&lab.a.netns, lab.a.side.address, service, LIMIT).await;
            assert!(done.is_ok(), "{}", said(&lab.a));
        }
        assert_eq!((children(&lab.a), children(&lab.b)), (1, 1));
        let deadline = Instant::now() + LIMIT;
        while (children(&lab.a), children(&lab.b)) != (0, 0) {
            assert!(Instant::now() < deadline, "{}", said(&lab.a));
            std::thread::sleep(Duration::from_millis(50));
        }
        let rows = [&lab.a, &lab.b].map(|host| ike_sas(&printed_status(host)).len());
        assert_eq!(rows, [1, 1], "the IKE SA stays until its own end");
    }
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn without_usable_secrets_nothing_passes() {
    if !is_root() {
        return;
    }
    let mut lab = lab(PSK, 0o644);
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    for host in [&mut lab.a, &mut lab.b] {
        start(host).await;
        assert!(
            said(host).contains("weak file permission"),
            "{}",
            said(host)
        );
    }
    assert!(!talks(&lab.a, &lab.b, Duration::from_secs(2)).await);
    let seen = capture.seen();
    assert_eq!((seen.clear, seen.other), (0, 0), "{seen:?}");
    assert!(ike_sas(&printed_status(&lab.a)).is_empty());
}

#[tokio::test]
async fn a_host_without_obol_cannot_connect() {
    if !is_root() {
        return;
    }
    let mut lab = lab(PSK, 0o400);
    start(&mut lab.a).await;
    for (host, peer) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        assert!(!talks(host, peer, Duration::from_secs(1)).await);
    }
}
