//! Three hosts with the same files, each a server and a client of each other: the mirror of the story. As
//! root; in namespaces.
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

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use daemons::LIMIT;
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{A, Host, SERVICE, Side, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::host::netns::Netns;
use racoon::{Bed, service, talks};
use rustix::process::Signal;
use support::{is_root, obol};

/// Three hosts on a switch, with the files of the story.
struct Three {
    bed: Bed,
    hosts: [Host; 3],
    captures: Vec<Capture>,
    _switch: Netns,
}

impl Three {
    fn new() -> Self {
        let bed = Bed::new();
        let switch = Netns::anonymous().unwrap();
        // Nobody speaks IPv6, which would be noise on the wire.
        for scope in ["all", "default"] {
            let key = format!("net/ipv6/conf/{scope}/disable_ipv6");
            switch.sysctl(&key, "1").unwrap();
        }
        let bridge = "ip link add switch type bridge mcast_snooping 0; ip link set switch up";
        shell(&switch, bridge);
        let host = |n: u8| {
            let side = Side {
                name: ["x", "y", "z"][usize::from(n)],
                address: Ipv4Addr::new(192, 168, 0, 11 + n),
                ..A
            };
            let netns = Netns::anonymous().unwrap();
            let host = Host::bare(obol(), netns, bed.lab.directory(), side).unwrap();
            let port = format!("port{n}");
            let address = IpAddr::V4(host.side.address);
            let wired = host.netns.configure(async |links| {
                links.veth_to(WIRE, &switch, &port).await?;
                links.address(WIRE, address, 24).await?;
                links.up(WIRE).await
            });
            wired.unwrap();
            shell(&switch, &format!("ip link set {port} up master switch"));
            bed.furnish(&host);
            bed.does(&host, "setkey --service start ETC");
            host
        };
        let hosts = [0, 1, 2].map(host);
        let captures = hosts.iter().map(|host| {
            let capture = Capture::start(&host.netns, WIRE, protected());
            capture.unwrap()
        });
        Self {
            captures: captures.collect(),
            bed,
            hosts,
            _switch: switch,
        }
    }

    /// Both SPIs of each IKE SA that a host lists.
    fn ike_sas(&self, host: &Host) -> Vec<String> {
        let listed = self.bed.does(host, "racoonctl show-sa isakmp");
        let rows = listed.lines().skip(1);
        rows.map(|row| row.split_whitespace().nth(1).unwrap().to_owned())
            .collect()
    }
}

fn shell(netns: &Netns, script: &str) {
    let mut command = std::process::Command::new("sh");
    command.args(["-ec", script]);
    let output = netns.run(|| command.output()).unwrap().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
}

#[tokio::test]
async fn r_a2_three_hosts_have_three_ike_sas_and_six_child_sas_in_any_order_of_starting() {
    if !is_root() {
        return;
    }
    let three = Three::new();
    let _services = three.hosts.each_ref().map(|host| service(host, SERVICE));
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut racoons = Vec::new();
        for (count, at) in order.into_iter().enumerate() {
            let host = &three.hosts[at];
            racoons.push(three.bed.start(host));
            // With those that run already: the one that comes last is the server first.
            for other in order[..count].iter().map(|other| &three.hosts[*other]) {
                assert!(talks(other, host, LIMIT).await, "{order:?}");
                assert!(talks(host, other, LIMIT).await, "{order:?}");
            }
        }
        let mut all = BTreeSet::new();
        for host in &three.hosts {
            let rows = three.ike_sas(host);
            assert_eq!(rows.len(), 2, "{order:?}: {rows:?}");
            all.extend(rows);
            // Two Child SAs with each of the others, each in both directions.
            assert_eq!(three.bed.sas(host), 8, "{order:?}");
        }
        assert_eq!(all.len(), 3, "{order:?}: {all:?}");
        for racoon in racoons {
            racoon.signal(Signal::TERM);
        }
    }
    for capture in &three.captures {
        let seen = capture.seen();
        assert_eq!(
            (seen.clear, seen.other, seen.esp_in_udp),
            (0, 0, 0),
            "{seen:?}"
        );
    }
}
