//! Hundreds of pairs of hosts that begin at the same moment, as when a replica set is started anew:
//! each has one packet, sent once, and none of them is lost. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]
#![expect(dead_code, reason = "what tests share, they do not all use")]

#[path = "support/daemons.rs"]
mod daemons;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use daemons::{LIMIT, assert_only_protected, printed_status};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::classify::Protected;
use obol_daemon::demo::lab::{Host, Lab, SERVICE, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::host::netns::Netns;
use support::{is_root, obol};

/// Peers of the one host.
const PEERS: u16 = 512;
/// Those of which no first packet is lost where both begin: of two IKE SAs for each, one is given up, and what
/// waits for it waits for the other one.
const CROSSING: u16 = 64;

/// What all hosts have. A datagram is sent once: whether it comes does not depend on who sends it again.
const CONFIGURATION: &str = r#"
[connections.any]
remote_addrs = ["%any"]
nat_traversal = false
mobike = false
proposals = ["aes128gcm16-prfsha256-x25519"]
local  = { auth = "psk" }
remote = { auth = "psk", id = "%any" }

[connections.any.children.server]
mode = "transport"
local_ts  = ["192.168.0.0/16[udp/27017]"]
remote_ts = ["192.168.0.0/16[udp]"]
start_action = "trap"

[connections.any.children.client]
mode = "transport"
local_ts  = ["192.168.0.0/16[udp]"]
remote_ts = ["192.168.0.0/16[udp/27017]"]
start_action = "trap"

[secrets.all]
type = "psk"
secret = "0sw10kX6LrKBNJnGyRC8qcJwghrUH1HcFKIdHFlEClT0g="
"#;

/// Each of the peers would be asked by one host: what one of all of them does about many strangers is none
/// of theirs.
const PEERS_DAEMON: &str = "[daemon]\ncookie_threshold = 100000\nhalf_open_limit = 100000\n";

/// The address of a peer: 128 in each subnet.
fn peer(n: u16) -> Ipv4Addr {
    let (subnet, host) = ((n / 128).to_be_bytes()[1], (n % 128).to_be_bytes()[1]);
    Ipv4Addr::new(192, 168, 1 + subnet, 1 + host)
}

/// What waits for an SA waits for ten seconds, so each test has the machine for itself.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// One host, and another one that has the addresses of all its peers.
struct Bed {
    lab: Lab,
    capture: Capture,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

impl Bed {
    async fn new() -> Self {
        let alone = ALONE.lock().await;
        let mut lab = Lab::new(obol(), None).unwrap();
        let gateway = IpAddr::V4(lab.b.side.address);
        let network = (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16);
        let a = &lab.a.netns;
        a.configure(async |links| links.route(network, WIRE, Some(gateway)).await)
            .unwrap();
        let b = &lab.b.netns;
        b.configure(async |links| {
            for n in 0..PEERS {
                links.address(WIRE, IpAddr::V4(peer(n)), 32).await?;
            }
            Ok(())
        })
        .unwrap();
        let port = Protected {
            udp: vec![SERVICE],
            ..protected()
        };
        let capture = Capture::start(&lab.a.netns, WIRE, port).unwrap();
        for (host, more) in [(&mut lab.a, ""), (&mut lab.b, PEERS_DAEMON)] {
            fs::write(&host.config, format!("{more}{CONFIGURATION}")).unwrap();
            fs::set_permissions(&host.config, fs::Permissions::from_mode(0o600)).unwrap();
            host.start().unwrap();
            let deadline = Instant::now() + LIMIT;
            while host.status().await.is_err() {
                assert!(Instant::now() < deadline && host.runs(), "{}", said(host));
                tokio::task::yield_now().await;
            }
        }
        Self {
            lab,
            capture,
            _alone: alone,
        }
    }

    /// No packet was lost, none was in clear.
    async fn assert_nothing_lost(&self) {
        for host in [&self.lab.a, &self.lab.b] {
            let status = printed_status(host);
            let dropped = &status["drops"];
            for reason in ["no-sa", "no-policy", "send-failed", "ike-queue-full"] {
                assert!(
                    dropped[reason].is_null() || dropped[reason] == 0,
                    "{dropped}"
                );
            }
        }
        assert_only_protected(&self.capture).await;
    }
}

fn said(host: &Host) -> String {
    fs::read_to_string(&host.log).unwrap_or_default()
}

/// Sends a datagram to each, and never again.
fn send(netns: &Netns, pairs: Vec<(Ipv4Addr, Ipv4Addr)>) {
    let sent = netns.run(move || {
        for (from, to) in pairs {
            let socket = UdpSocket::bind((from, 0))?;
            socket.send_to(&[from.octets(), to.octets()].concat(), (to, SERVICE))?;
        }
        Ok::<_, std::io::Error>(())
    });
    sent.unwrap().unwrap();
}

/// From whom to whom datagrams have come: waits for so many.
fn receive(netns: &Netns, count: usize) -> JoinHandle<std::io::Result<BTreeSet<[u8; 8]>>> {
    let bind = || UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVICE));
    let socket = netns.run(bind).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut come = BTreeSet::new();
        let deadline = Instant::now() + 2 * LIMIT;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        while come.len() < count && Instant::now() < deadline {
            let mut datagram = [0; 8];
            if socket.recv(&mut datagram).is_ok() {
                assert!(come.insert(datagram), "{datagram:?} came twice");
            }
        }
        Ok(come)
    })
}

/// What each of so many peers sends to the host, or the host to each.
fn pairs(host: &Host, from_peers: bool, peers: u16) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let own = host.side.address;
    let pair = |n| match from_peers {
        true => (peer(n), own),
        false => (own, peer(n)),
    };
    (0..peers).map(pair).collect()
}

fn all_came(host: &Host, come: JoinHandle<std::io::Result<BTreeSet<[u8; 8]>>>, count: u16) {
    let come = come.join().unwrap().unwrap();
    let status = printed_status(host);
    let sas = status["ike_sas"].as_array().map_or(0, Vec::len);
    let log = said(host);
    let last: Vec<&str> = log.lines().rev().take(10).collect();
    let what = format!("{sas} IKE SAs, drops {}: {last:#?}", status["drops"]);
    assert_eq!(
        come.len(),
        usize::from(count),
        "{} came, {what}",
        come.len()
    );
}

#[tokio::test]
async fn one_host_asks_hundreds_at_once_and_no_first_packet_is_lost() {
    if !is_root() {
        return;
    }
    let bed = Bed::new().await;
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let come = receive(&b.netns, usize::from(PEERS));
    send(&a.netns, pairs(a, false, PEERS));
    all_came(a, come, PEERS);
    // Then these, each on the IKE SA that is there.
    let come = receive(&a.netns, usize::from(PEERS));
    send(&b.netns, pairs(a, true, PEERS));
    all_came(a, come, PEERS);
    bed.assert_nothing_lost().await;
    let sas = printed_status(a)["ike_sas"].as_array().unwrap().len();
    assert_eq!(sas, usize::from(PEERS));
}

#[tokio::test]
async fn hundreds_ask_one_host_at_once_and_no_first_packet_is_lost() {
    if !is_root() {
        return;
    }
    let bed = Bed::new().await;
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let come = receive(&a.netns, usize::from(PEERS));
    send(&b.netns, pairs(a, true, PEERS));
    all_came(a, come, PEERS);
    bed.assert_nothing_lost().await;
}

#[tokio::test]
async fn pairs_begin_at_both_ends_and_no_first_packet_is_lost() {
    if !is_root() {
        return;
    }
    let bed = Bed::new().await;
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let come = [a, b].map(|host| receive(&host.netns, usize::from(CROSSING)));
    std::thread::scope(|scope| {
        scope.spawn(|| send(&a.netns, pairs(a, false, CROSSING)));
        scope.spawn(|| send(&b.netns, pairs(a, true, CROSSING)));
    });
    for come in come {
        all_came(a, come, CROSSING);
    }
    bed.assert_nothing_lost().await;
}

/// What comes to a host, from whom to whom, until this is dropped.
struct Inbox {
    come: Arc<Mutex<BTreeSet<[u8; 8]>>>,
    over: Arc<AtomicBool>,
}

impl Inbox {
    fn open(netns: &Netns) -> Self {
        let bind = || UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVICE));
        let socket = netns.run(bind).unwrap().unwrap();
        let inbox = Self {
            come: Arc::default(),
            over: Arc::default(),
        };
        let (come, over) = (inbox.come.clone(), inbox.over.clone());
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let mut datagram = [0; 8];
                if socket.recv(&mut datagram).is_ok() {
                    come.lock().unwrap().insert(datagram);
                }
            }
        });
        inbox
    }

    /// Those of whom nothing has come.
    fn misses(&self, mut pairs: Vec<(Ipv4Addr, Ipv4Addr)>) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let come = self.come.lock().unwrap();
        pairs.retain(|(from, to)| {
            let datagram = [from.octets(), to.octets()].concat();
            !come.iter().any(|other| other[..] == datagram[..])
        });
        pairs
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Of so many, some wait for longer than a packet is kept, so each is sent again every two seconds until it has
/// come, as TCP would. Of the two IKE SAs of each pair one stays, and all that has come was protected.
#[tokio::test]
async fn hundreds_of_pairs_begin_at_both_ends_and_all_come_up_with_one_ike_sa_each() {
    if !is_root() {
        return;
    }
    let bed = Bed::new().await;
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let inboxes = [Inbox::open(&a.netns), Inbox::open(&b.netns)];
    let deadline = Instant::now() + 18 * LIMIT;
    loop {
        let missing = [
            inboxes[0].misses(pairs(a, true, PEERS)),
            inboxes[1].misses(pairs(a, false, PEERS)),
        ];
        if missing.iter().all(Vec::is_empty) {
            break;
        }
        let counts = missing.each_ref().map(Vec::len);
        assert!(Instant::now() < deadline, "{counts:?} are missing");
        let [to_a, to_b] = missing;
        std::thread::scope(|scope| {
            scope.spawn(|| send(&a.netns, to_b));
            scope.spawn(|| send(&b.netns, to_a));
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    loop {
        let status = printed_status(a);
        let all = status["ike_sas"].as_array().unwrap();
        let addrs: Vec<_> = all.iter().map(|sa| sa["remote"]["addr"].as_str()).collect();
        let different: BTreeSet<_> = addrs.iter().collect();
        assert_eq!(different.len(), usize::from(PEERS));
        if addrs.len() == different.len() {
            break;
        }
        assert!(Instant::now() < deadline, "{} IKE SAs", addrs.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_only_protected(&bed.capture).await;
}
