//! What should be up comes up without an operator, and what an operator closed stays closed; usage
//! limits rekey without loss, and end a Child SA that cannot be rekeyed. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/daemons.rs"]
mod daemons;
mod support;

use daemons::{
    LIMIT, PATIENCE, assert_only_protected, installed, printed_status, run, started, succeeds,
};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{A, B, Host, Lab, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::{Pinger, ping};
use serde_json::Value;
use std::time::{Duration, Instant};
use support::{Snapshot, is_root, obol};
use tokio::time::timeout;

/// A silent peer is given up soon, so that the pause before the next try can be seen.
const HASTY: &str = "[daemon]\nretransmit_timeout = \"200ms\"\nretransmit_tries = 1\n";

#[tokio::test]
async fn a_peer_that_comes_late_or_again_is_met_without_an_operator() {
    if !is_root() {
        return;
    }
    let (mut lab, capture) = lab_and_capture();
    // The other host does nothing by itself.
    edit(
        &lab.b,
        "start_action = \"start\"",
        "start_action = \"none\"",
    );
    edit(
        &lab.a,
        "[connections.hosts]\n",
        "[connections.hosts]\ndpd_delay = \"1s\"\n",
    );
    edit(
        &lab.a,
        "[connections.hosts]\n",
        &format!("{HASTY}[connections.hosts]\n"),
    );
    lab.a.start().unwrap();
    let waiting = |status: &Value| {
        let pods = policy(status, "pods");
        pods["next_try_in_s"].is_u64() && pods["failures"].as_u64() >= Some(1)
    };
    until(&mut lab.a, waiting).await;
    let deadline = Instant::now() + LIMIT;
    while !succeeds(&lab.a, &["status"]).contains("next try in") {
        assert!(Instant::now() < deadline, "never told");
    }
    lab.b.start().unwrap();
    until(&mut lab.a, |status| installed(status) == ["pods"]).await;
    let status = printed_status(&lab.a);
    let pods = policy(&status, "pods");
    assert_eq!(
        (&pods["failures"], &pods["next_try_in_s"]),
        (&0.into(), &Value::Null)
    );

    // It dies and comes again.
    lab.b.kill().unwrap();
    until(&mut lab.a, |status| installed(status).is_empty()).await;
    lab.b.start().unwrap();
    let begun = Instant::now();
    until(&mut lab.a, |status| installed(status) == ["pods"]).await;
    until(&mut lab.b, |status| installed(status) == ["pods"]).await;
    let deadline = Instant::now() + LIMIT;
    ping(&lab.a.netns, A.pod, B.pod, PATIENCE, deadline)
        .await
        .unwrap();
    println!(
        "a restarted peer is back after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn what_an_operator_closed_stays_closed_whatever_packets_ask() {
    if !is_root() {
        return;
    }
    let (mut lab, capture) = lab_and_capture();
    edit(
        &lab.b,
        "start_action = \"start\"",
        "start_action = \"trap\"\nclose_action = \"none\"",
    );
    started(&mut lab).await;
    let guarded = Snapshot::of(&lab.a.netns);
    succeeds(&lab.a, &["down", "hosts"]);
    assert_eq!(Snapshot::of(&lab.a.netns), guarded, "the protection stays");
    for (host, peer) in [(&lab.a, B), (&lab.b, A)] {
        let deadline = Instant::now() + Duration::from_secs(2);
        let reply = ping(&host.netns, host.side.pod, peer.pod, PATIENCE, deadline).await;
        assert!(reply.is_err(), "{} got a reply", host.side.name);
        let status = printed_status(host);
        assert_eq!(installed(&status), [] as [&str; 0]);
        assert_eq!(policy(&status, "pods")["state"], "blocked", "{status:#}");
    }
    assert_eq!(capture.seen().clear, 0);
    succeeds(&lab.a, &["up", "hosts/pods"]);
    let deadline = Instant::now() + LIMIT;
    ping(&lab.b.netns, B.pod, A.pod, PATIENCE, deadline)
        .await
        .unwrap();
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn packet_limits_rekey_without_loss_and_stop_what_cannot_be_rekeyed() {
    const SOFT: u64 = 100;
    const HARD: u64 = 150;
    if !is_root() {
        return;
    }
    let (mut lab, capture) = lab_and_capture();
    let limits = format!("start_action = \"start\"\nrekey_packets = {SOFT}\nlife_packets = {HARD}");
    edit(&lab.a, "start_action = \"start\"", &limits);
    edit(
        &lab.b,
        "start_action = \"start\"",
        "start_action = \"trap\"",
    );
    started(&mut lab).await;
    let pinger = Pinger::new(&lab.a.netns, A.pod, B.pod).unwrap();
    let mut spis = Vec::new();
    for sequence in 0..500 {
        // Each once: what is lost is lost.
        timeout(LIMIT, pinger.once(sequence))
            .await
            .unwrap()
            .unwrap();
        if sequence % 20 == 0 {
            let spi = spi(&printed_status(&lab.a));
            if !spis.contains(&spi) {
                spis.push(spi);
            }
        }
    }
    assert!(spis.len() >= 4, "{spis:?}");
    println!("500 packets, 0 lost, {} Child SAs", spis.len());

    lab.b.kill().unwrap();
    let before = capture.seen().esp;
    for sequence in 500..500 + 2 * HARD {
        let sequence = u16::try_from(sequence).unwrap();
        let reply = timeout(Duration::from_millis(2), pinger.once(sequence)).await;
        assert!(reply.is_err(), "nobody is there");
    }
    assert_only_protected(&capture).await;
    let used = capture.seen().esp - before;
    assert!(
        (1..=HARD).contains(&used),
        "{used} packets of at most {HARD}"
    );
    let status = printed_status(&lab.a);
    assert!(
        !installed(&status).contains(&"pods".to_owned()),
        "{status:#}"
    );
    println!("without an answer the Child SA ended after {used} more packets");
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

/// Waits until a daemon reports what is wanted.
async fn until(host: &mut Host, wanted: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !host.status().await.is_ok_and(|status| wanted(&status)) {
        let log = std::fs::read_to_string(&host.log).unwrap_or_default();
        let told = run(host, &["status"]);
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(host.runs() && Instant::now() < deadline, "{log}\n{told}");
        tokio::task::yield_now().await;
    }
}

fn policy<'a>(status: &'a Value, child: &str) -> &'a Value {
    let policies = status["policies"].as_array().unwrap();
    policies
        .iter()
        .find(|policy| policy["child"] == child)
        .unwrap()
}

/// The SPI of packets to us of the newest `pods`.
fn spi(status: &Value) -> String {
    let ike_sas = status["ike_sas"].as_array().unwrap();
    let mut children = ike_sas
        .iter()
        .filter_map(|ike| ike["children"].as_array())
        .flatten();
    let pods = children.rfind(|child| child["name"] == "pods").unwrap();
    pods["spi_in"].as_str().unwrap().to_owned()
}
