//! Connections of pluto's whose packets pass in clear while there is no SA, on request: before a
//! negotiation has failed, or after. As root; in namespaces.
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
use std::net::{SocketAddrV4, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use daemons::{LIMIT, PATIENCE, installed, printed_status, succeeds};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, Lab, WIRE};
use obol_daemon::demo::protected;
use support::{is_root, obol};

/// Two services of B: one that is to work with or without IPsec, and one that is not.
const CONF: &str = "\
conn %default
  left=192.168.0.1
  leftid=@a
  right=192.168.0.2
  rightid=@b
  authby=secret
  type=transport
  leftprotoport=udp
  auto=ondemand

conn open
  rightprotoport=udp/7000
  SHUNTS

conn strict
  rightprotoport=udp/7001
";
const OPEN: u16 = 7000;
const STRICT: u16 = 7001;

fn said(host: &Host) -> String {
    fs::read_to_string(&host.log).unwrap_or_default()
}

/// A lab in which both hosts have this file, and a secret each.
fn lab(shunts: &str, secrets: [&str; 2], daemon: &str) -> Lab {
    let mut lab = Lab::new(obol(), None).unwrap();
    let directory = lab.directory().to_owned();
    let path = |name: &str| directory.join(name).display().to_string();
    let conf = CONF.replace("SHUNTS", &shunts.replace(' ', "\n  "));
    fs::write(path("ipsec.conf"), conf).unwrap();
    for (host, secret) in [&mut lab.a, &mut lab.b].into_iter().zip(secrets) {
        let file = path(&format!("{}.secrets", host.side.name));
        fs::write(&file, format!(": PSK \"{secret}\"\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&host.config, daemon).unwrap();
        host.arguments = vec![
            "--ipsec-conf".into(),
            path("ipsec.conf"),
            "--ipsec-secrets".into(),
            file,
        ];
    }
    lab
}

async fn start(host: &mut Host) {
    host.start().unwrap();
    let deadline = Instant::now() + LIMIT;
    while host.status().await.is_err() {
        assert!(Instant::now() < deadline && host.runs(), "{}", said(host));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client on one host and a service on the other.
struct Pair(UdpSocket, UdpSocket);

impl Pair {
    fn new(from: &Host, to: &Host, port: u16) -> Self {
        let bind = |host: &Host, port| {
            let address = SocketAddrV4::new(host.side.address, port);
            let bound = host.netns.run(|| UdpSocket::bind(address));
            let socket = bound.unwrap().unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self(bind(from, 0), bind(to, port))
    }

    /// Whether datagrams of a length arrive there and back within a while.
    fn reach(&self, octets: usize, patience: Duration) -> [bool; 2] {
        let sent = vec![octets.to_le_bytes()[0]; octets];
        let deadline = Instant::now() + patience;
        let mut arrived = [false; 2];
        while Instant::now() < deadline && arrived != [true; 2] {
            let ways = [(&self.0, &self.1), (&self.1, &self.0)];
            for ((from, to), arrived) in ways.into_iter().zip(&mut arrived) {
                let _ = from.send_to(&sent, to.local_addr().unwrap());
                std::thread::sleep(Duration::from_millis(10));
                let mut buffer = [0; 9000];
                while let Ok((len, _)) = to.recv_from(&mut buffer) {
                    *arrived |= buffer[..len] == sent;
                }
            }
        }
        arrived
    }

    fn reaches(&self, octets: usize, patience: Duration) -> bool {
        self.reach(octets, patience) == [true; 2]
    }
}

/// What was seen in clear of this service.
fn clear_of(capture: &Capture, port: u16) -> u64 {
    let deadline = Instant::now() + LIMIT;
    while capture.missed().unwrap() > 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let seen = capture.seen();
    let to = format!(" to {port}");
    let kinds = seen.other_kinds.iter().chain(&seen.clear_kinds);
    kinds
        .filter(|(kind, _)| kind.ends_with(&to))
        .map(|(_, count)| count)
        .sum()
}

/// That nothing of the strict service passed, though there was something to pass.
fn assert_strict(strict: &Pair, capture: &Capture) {
    let reached = strict.reach(40, PATIENCE);
    assert_eq!(reached, [false; 2]);
    assert_eq!(clear_of(capture, STRICT), 0, "{:?}", capture.seen());
}

#[tokio::test]
async fn failureshunt_lets_packets_pass_once_a_negotiation_has_failed() {
    if !is_root() {
        return;
    }
    let mut lab = lab(
        "failureshunt=passthrough",
        ["one secret", "another secret"],
        "",
    );
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    start(&mut lab.a).await;
    let log = said(&lab.a);
    let warning = log
        .lines()
        .find(|line| line.contains("cleartext on failure"))
        .unwrap();
    assert!(warning.contains("ipsec.conf:13:"), "{warning}");
    let status = succeeds(&lab.a, &["status"]);
    assert!(
        status.contains("wait for an SA (cleartext allowed after failure)"),
        "{status}"
    );
    let (open, strict) = {
        let (a, b) = (&lab.a, &lab.b);
        (Pair::new(a, b, OPEN), Pair::new(a, b, STRICT))
    };
    // Nobody answers, which takes a while to be a failure.
    assert_eq!(open.reach(40, PATIENCE), [false; 2], "{}", said(&lab.a));
    assert_eq!(clear_of(&capture, OPEN), 0);
    start(&mut lab.b).await;
    assert!(
        open.reaches(40, 3 * LIMIT),
        "{}\n{}",
        said(&lab.a),
        said(&lab.b)
    );
    assert!(clear_of(&capture, OPEN) > 0);
    assert_strict(&strict, &capture);
    // The system cuts what is too long for the wire, and so do we.
    assert!(open.reaches(5000, LIMIT));
    let status = succeeds(&lab.a, &["status"]);
    assert!(
        status.contains("in clear (cleartext allowed after failure)"),
        "{status}"
    );
    let rundir = lab.a.runtime.display().to_string();
    let text = succeeds(&lab.a, &["ipsec", "status", "--rundir", &rundir]);
    assert!(
        text.contains("+failurePASS+") && !text.contains("NEGO_PASS"),
        "{text}"
    );
    // Without its daemon nothing goes where the strict one goes too.
    lab.a.kill().unwrap();
    assert_strict(&strict, &capture);
    assert_eq!(open.reach(40, PATIENCE), [false, true]);
}

#[tokio::test]
async fn negotiationshunt_lets_packets_pass_until_a_negotiation_has_failed() {
    if !is_root() {
        return;
    }
    // Nobody answers for five seconds.
    let daemon =
        "[daemon]\nretransmit_timeout = \"1s\"\nretransmit_base = 1.0\nretransmit_tries = 4\n";
    let mut lab = lab("negotiationshunt=passthrough", ["a secret"; 2], daemon);
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    start(&mut lab.a).await;
    let (open, strict) = {
        let (a, b) = (&lab.a, &lab.b);
        (Pair::new(a, b, OPEN), Pair::new(a, b, STRICT))
    };
    assert!(open.reaches(5000, LIMIT), "{}", said(&lab.a));
    assert!(said(&lab.a).contains("cleartext while negotiating"));
    assert_strict(&strict, &capture);
    let deadline = Instant::now() + 3 * LIMIT;
    while open.reach(40, PATIENCE) != [false; 2] {
        assert!(Instant::now() < deadline, "{}", said(&lab.a));
    }
    assert!(said(&lab.a).contains("no IKE SA"), "{}", said(&lab.a));
    let before = clear_of(&capture, OPEN);
    assert_eq!(open.reach(40, 2 * PATIENCE), [false; 2]);
    assert_eq!(clear_of(&capture, OPEN), before);
    assert_strict(&strict, &capture);

    start(&mut lab.b).await;
    assert!(
        open.reaches(40, 6 * LIMIT),
        "{}\n{}",
        said(&lab.a),
        said(&lab.b)
    );
    assert!(strict.reaches(40, 6 * LIMIT));
    assert_eq!(clear_of(&capture, STRICT), 0);
}

#[tokio::test]
async fn with_an_sa_nothing_passes_in_clear_and_without_one_all_does() {
    if !is_root() {
        return;
    }
    let shunts = "negotiationshunt=passthrough failureshunt=passthrough";
    let mut lab = lab(shunts, ["a secret"; 2], "");
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    start(&mut lab.a).await;
    let open = Pair::new(&lab.a, &lab.b, OPEN);
    assert!(open.reaches(5000, LIMIT), "{}", said(&lab.a));
    start(&mut lab.b).await;
    let deadline = Instant::now() + 6 * LIMIT;
    while !installed(&printed_status(&lab.a)).contains(&"open".to_owned()) {
        assert!(
            open.reaches(40, LIMIT),
            "{}\n{}",
            said(&lab.a),
            said(&lab.b)
        );
        assert!(
            Instant::now() < deadline,
            "{}\n{}",
            said(&lab.a),
            said(&lab.b)
        );
    }
    // What was under way when the SA came up has passed.
    let closed = |host: &Host| said(host).contains("do not pass in clear any more");
    while !(closed(&lab.a) && closed(&lab.b)) {
        assert!(
            Instant::now() < deadline,
            "{}\n{}",
            said(&lab.a),
            said(&lab.b)
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = clear_of(&capture, OPEN);
    assert!(open.reaches(5000, LIMIT));
    assert_eq!(clear_of(&capture, OPEN), before);
    // Without its daemon, B is open or closed as it was; without all of it, it sends in clear, and A
    // takes none of that.
    lab.b.kill().unwrap();
    assert_eq!(open.reach(40, 2 * PATIENCE), [false; 2]);
    succeeds(&lab.b, &["purge"]);
    assert_eq!(open.reach(40, 2 * PATIENCE), [false; 2]);
    let dropped = printed_status(&lab.a)["drops"]["clear-in"].as_u64();
    assert!(dropped > Some(0), "{}", printed_status(&lab.a)["drops"]);
    // Nor does anything of A leave once its own is dead.
    lab.a.kill().unwrap();
    let before = clear_of(&capture, OPEN);
    assert_eq!(open.reach(40, 2 * PATIENCE), [false; 2]);
    assert_eq!(clear_of(&capture, OPEN), before);
}
