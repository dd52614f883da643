//! What an operator does with two running daemons, and what they are told when it does not work.
//! As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/daemons.rs"]
mod daemons;
mod support;

use daemons::{
    LIMIT, PATIENCE, assert_only_protected, ike_sas, installed, printed_status, run, started,
    succeeds,
};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{A, B, Host, Lab, Side, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::ping;
use serde_json::Value;
use std::io;
use std::time::{Duration, Instant};
use support::{Snapshot, is_root, obol};

const NOT_UP: i32 = 3;
const REFUSED: i32 = 4;
const NO_ANSWER: i32 = 5;
const CONFIG: i32 = 6;

#[tokio::test]
async fn a_closed_child_stays_closed_and_protected_until_it_is_asked_for() {
    if !is_root() {
        return;
    }
    let (mut lab, capture) = lab_and_capture();
    // Were it `start`, the packets of this test would ask for it.
    for host in [&lab.a, &lab.b] {
        edit(host, "start_action = \"start\"", "start_action = \"none\"");
    }
    for host in [&mut lab.a, &mut lab.b] {
        host.start().unwrap();
        ready(host).await;
    }
    assert!(pinged(&lab.a, B, Duration::from_millis(300)).await.is_err());
    assert_eq!(
        run(&lab.a, &["status", "hosts/pods"]).status.code(),
        Some(NOT_UP)
    );
    succeeds(&lab.a, &["up", "hosts/pods"]);
    succeeds(&lab.a, &["status", "hosts/pods"]);
    pinged(&lab.a, B, LIMIT).await.unwrap();
    succeeds(&lab.a, &["down", "hosts/pods"]);
    assert_eq!(
        run(&lab.a, &["status", "hosts/pods"]).status.code(),
        Some(NOT_UP)
    );
    assert!(pinged(&lab.a, B, Duration::from_millis(300)).await.is_err());
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn a_wrong_secret_names_both_identities_at_both_ends() {
    if !is_root() {
        return;
    }
    let (mut lab, capture) = lab_and_capture();
    edit(
        &lab.b,
        "0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ=",
        "another secret, as long as the first",
    );
    for host in [&mut lab.a, &mut lab.b] {
        host.start().unwrap();
        ready(host).await;
    }
    let output = run(&lab.a, &["up", "hosts", "--timeout", "5s"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(REFUSED), "{error}");
    // The one that was refused may say so a little later.
    for host in [&lab.a, &lab.b] {
        for id in [A.id, B.id].map(|id| id.trim_start_matches('@')) {
            logged(host, id).await;
        }
    }
    assert!(pinged(&lab.a, B, Duration::from_millis(300)).await.is_err());
    assert_eq!(capture.seen().clear, 0);
}

#[tokio::test]
async fn a_peer_that_does_not_run_does_not_answer() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(obol(), None).unwrap();
    lab.a.start().unwrap();
    ready(&mut lab.a).await;
    let output = run(&lab.a, &["up", "hosts", "--timeout", "500ms"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(NO_ANSWER), "{error}");
    assert!(error.contains("hosts is not up"), "{error}");
    assert!(error.contains("192.168.0.2 has not answered"), "{error}");
}

#[tokio::test]
async fn a_reload_leaves_what_did_not_change_alone() {
    if !is_root() {
        return;
    }
    let (mut lab, capture) = lab_and_capture();
    // When both begin, one of two IKE SAs goes a little later.
    edit(
        &lab.b,
        "start_action = \"start\"",
        "start_action = \"trap\"",
    );
    // An address that the route to the peer gives is as good as one that is written down.
    edit(&lab.a, "local_addrs", "# local_addrs");
    started(&mut lab).await;
    let before = printed_status(&lab.a);
    let more = "\n[connections.more]\n\
        local_addrs = [\"192.168.0.1\"]\nremote_addrs = [\"192.0.2.9\"]\n\
        local = { auth = \"psk\", id = \"@hostA.example.com\" }\n\
        remote = { auth = \"psk\", id = \"@hostC.example.com\" }\n\
        [connections.more.children.lab]\n\
        local_ts = [\"172.16.1.0/24\"]\nremote_ts = [\"198.51.100.0/24\"]\n\
        start_action = \"trap\"\n\
        [secrets.more]\ntype = \"psk\"\n\
        ids = [\"@hostA.example.com\", \"@hostC.example.com\"]\n\
        secret = \"a secret that is long enough\"\n";
    let text = std::fs::read_to_string(&lab.a.config).unwrap();
    std::fs::write(&lab.a.config, text.clone() + more).unwrap();
    let report: Value = serde_json::from_str(&succeeds(&lab.a, &["reload", "--json"])).unwrap();
    assert_eq!(report["added"], serde_json::json!(["more"]));
    assert_eq!(report["unchanged"], serde_json::json!(["hosts"]));
    let after = printed_status(&lab.a);
    assert_eq!(
        (spis(&after), installed(&after)),
        (spis(&before), installed(&before))
    );

    let snapshot = Snapshot::of(&lab.a.netns);
    std::fs::write(&lab.a.config, text.replace("start_action", "start_akction")).unwrap();
    let output = run(&lab.a, &["reload"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(CONFIG), "{error}");
    assert!(
        error.contains("start_akction") && error.contains("start_action"),
        "{error}"
    );
    assert_eq!(spis(&printed_status(&lab.a)), spis(&before));
    assert_eq!(Snapshot::of(&lab.a.netns), snapshot);
    pinged(&lab.a, B, LIMIT).await.unwrap();
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn keys_made_by_keygen_authenticate_both_hosts() {
    if !is_root() {
        return;
    }
    let (mut lab, capture) = lab_and_capture();
    // Different kinds, since the two sides need not agree on one.
    for (host, kind) in [(&lab.a, "ed25519"), (&lab.b, "rsa")] {
        let files = [".key", ".pub"].map(|ending| key_file(host, ending));
        let arguments = [
            "keygen",
            "--type",
            kind,
            "--out",
            &files[0],
            "--public-out",
            &files[1],
        ];
        succeeds(host, &arguments);
    }
    for (host, peer) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        let ours = (key_file(host, ".key"), host.side.id);
        let theirs = (key_file(peer, ".pub"), peer.side.id);
        let text = std::fs::read_to_string(&host.config).unwrap();
        let (connection, _) = text.split_once("[secrets.hosts]").unwrap();
        let keys = connection
            .replace(
                &format!("auth = \"psk\", id = \"{}\"", ours.1),
                &format!("auth = \"pubkey\", id = \"{}\"", ours.1),
            )
            .replace(
                &format!("auth = \"psk\", id = \"{}\"", theirs.1),
                &format!(
                    "auth = \"pubkey\", id = \"{}\", pubkeys = [\"{}\"]",
                    theirs.1, theirs.0
                ),
            );
        let secret = format!(
            "[secrets.key]\ntype = \"private-key\"\nfile = \"{}\"\n",
            ours.0
        );
        std::fs::write(&host.config, keys + &secret).unwrap();
    }
    started(&mut lab).await;
    pinged(&lab.a, B, LIMIT).await.unwrap();
    assert_only_protected(&capture).await;
}

//= test rfc7296 2.23-3 2.23-11
#[tokio::test]
async fn encapsulation_that_is_asked_for_puts_all_esp_in_udp() {
    if !is_root() {
        return;
    }
    let (mut lab, capture) = lab_and_capture();
    for host in [&lab.a, &lab.b] {
        edit(
            host,
            "[connections.hosts]\n",
            "[connections.hosts]\nencap = true\n",
        );
    }
    started(&mut lab).await;
    pinged(&lab.a, B, LIMIT).await.unwrap();
    pinged(&lab.b, A, LIMIT).await.unwrap();
    let deadline = Instant::now() + LIMIT;
    while capture.seen().esp_in_udp < 4 {
        assert!(Instant::now() < deadline, "{:?}", capture.seen());
        tokio::task::yield_now().await;
    }
    let seen = capture.seen();
    assert_eq!((seen.esp, seen.clear, seen.other), (0, 0, 0), "{seen:?}");
}

//= test rfc4303 3.4.2-2 3.4.3-7 3.4.3-8 4-1
//= test security S-58 S-61
#[tokio::test]
async fn forged_esp_packets_are_in_the_log_with_their_fields() {
    if !is_root() {
        return;
    }
    let (mut lab, _capture) = lab_and_capture();
    started(&mut lab).await;
    pinged(&lab.a, B, LIMIT).await.unwrap();
    let (_, spi) = spis(&lab.a.status().await.unwrap());
    let spi = u32::from_str_radix(spi.trim_start_matches("0x"), 16).unwrap();
    for (spi, sequence, reason) in [
        (spi, 999u32, "integrity"),
        (0x0102_0304, 998, "unknown-spi"),
    ] {
        let mut forged = [spi.to_be_bytes(), sequence.to_be_bytes()].concat();
        forged.extend([0x5a; 64]);
        // Only so many are told in a time, and what was on its way when one of two IKE SAs went may
        // have been among them.
        let part = format!("sequence={sequence}");
        let deadline = Instant::now() + 2 * LIMIT;
        while !log_of(&lab.a).contains(&part) {
            assert!(Instant::now() < deadline, "{}", log_of(&lab.a));
            let sent = lab.b.netns.run(|| {
                let socket = std::net::UdpSocket::bind((B.address, 0))?;
                socket.send_to(&forged, (A.address, 4500))
            });
            sent.unwrap().unwrap();
            tokio::time::sleep(PATIENCE).await;
        }
        let line = logged(&lab.a, &part).await;
        assert!(line.contains(reason), "{line}");
        assert!(line.contains(&format!("spi={spi:08x}")), "{line}");
        for address in [A.address, B.address] {
            assert!(line.contains(&address.to_string()), "{line}");
        }
    }
}

/// Waits for a line of a daemon's log.
async fn logged(host: &Host, part: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let log = log_of(host);
        if let Some(line) = log.lines().find(|line| line.contains(part)) {
            return line.to_owned();
        }
        assert!(Instant::now() < deadline, "{log}");
        tokio::task::yield_now().await;
    }
}

fn log_of(host: &Host) -> String {
    std::fs::read_to_string(&host.log).unwrap()
}

//= test rfc7296 2.8.1-2
//= test security S-17
#[tokio::test]
async fn rekeys_under_traffic_lose_nothing() {
    if !is_root() {
        return;
    }
    let (mut lab, capture) = lab_and_capture();
    // Only one side, so that its time is the one that counts.
    edit(
        &lab.a,
        "[connections.hosts]\n",
        "[connections.hosts]\nrekey_time = \"3s\"\n",
    );
    edit(
        &lab.a,
        "start_action = \"start\"",
        "start_action = \"start\"\nrekey_time = \"1s\"",
    );
    started(&mut lab).await;
    let first = spis(&printed_status(&lab.a));
    let (mut children, mut ike_sas) = (vec![first.1], vec![first.0]);
    let deadline = Instant::now() + LIMIT;
    while children.len() < 4 || ike_sas.len() < 2 {
        assert!(Instant::now() < deadline, "{children:?} {ike_sas:?}");
        for (host, peer) in [(&lab.a, B), (&lab.b, A)] {
            // A single request: its loss is a failure.
            let once = LIMIT;
            ping(
                &host.netns,
                host.side.pod,
                peer.pod,
                once,
                Instant::now() + once,
            )
            .await
            .unwrap();
        }
        let (ike, child) = spis(&printed_status(&lab.a));
        if !ike_sas.contains(&ike) {
            ike_sas.push(ike);
        }
        if !children.contains(&child) {
            children.push(child);
        }
    }
    assert_only_protected(&capture).await;
}

fn lab_and_capture() -> (Lab, Capture) {
    let lab = Lab::new(obol(), None).unwrap();
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    (lab, capture)
}

/// Changes a host's configuration before its daemon is started.
fn edit(host: &Host, from: &str, to: &str) {
    let text = std::fs::read_to_string(&host.config).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(&host.config, text.replace(from, to)).unwrap();
}

fn key_file(host: &Host, ending: &str) -> String {
    host.config.with_extension("").display().to_string() + ending
}

/// Waits until a daemon answers.
async fn ready(host: &mut Host) {
    let deadline = Instant::now() + LIMIT;
    while host.status().await.is_err() {
        let log = std::fs::read_to_string(&host.log).unwrap_or_default();
        assert!(host.runs() && Instant::now() < deadline, "{log}");
        tokio::task::yield_now().await;
    }
}

async fn pinged(host: &Host, peer: Side, limit: Duration) -> io::Result<Duration> {
    ping(
        &host.netns,
        host.side.pod,
        peer.pod,
        PATIENCE,
        Instant::now() + limit,
    )
    .await
}

/// The SPIs of the newest IKE SA, and the inbound one of the newest child `pods`.
fn spis(status: &Value) -> (String, String) {
    let ike_sas = ike_sas(status);
    let ike = ike_sas.last().unwrap();
    let mut children = ike_sas
        .iter()
        .filter_map(|ike| ike["children"].as_array())
        .flatten();
    let pods = children.rfind(|child| child["name"] == "pods").unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&ike["spi_i"]), text(&pods["spi_in"]))
}
