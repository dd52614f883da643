//! Pairs of running daemons, for the tests that need them.

use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, Lab};
use serde_json::Value;
use std::process::Output;
use std::time::{Duration, Instant};

/// How long anything may take that is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// After this time without reply an echo request is repeated.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);

/// Starts both daemons, and waits until the subnets are joined, and of two IKE SAs, where both
/// ends began at once, one is left.
pub(crate) async fn started(lab: &mut Lab) {
    for host in [&mut lab.a, &mut lab.b] {
        host.start().unwrap();
    }
    let deadline = Instant::now() + LIMIT;
    while !(is_up(&lab.a).await && is_up(&lab.b).await) {
        if Instant::now() >= deadline || !lab.a.runs() || !lab.b.runs() {
            panic!("not up:\n{}\n{}", said(&lab.a).await, said(&lab.b).await);
        }
        tokio::task::yield_now().await;
    }
}

/// What a host says of itself, for a test that fails.
async fn said(host: &Host) -> String {
    let log = std::fs::read_to_string(&host.log).unwrap_or_default();
    let status = host.status().await;
    format!("{}: {status:?}\n{log}", host.side.name)
}

/// Whether a host has the subnets joined, by its only IKE SA.
async fn is_up(host: &Host) -> bool {
    let up = |status: Value| {
        ike_sas(&status).len() == 1 && installed(&status).contains(&"pods".to_owned())
    };
    host.status().await.is_ok_and(up)
}

/// What is on the wire is IKE, ESP and address resolution, and the capture missed none of it.
pub(crate) async fn assert_only_protected(capture: &Capture) {
    let deadline = Instant::now() + LIMIT;
    while capture.missed().unwrap() > 0 {
        assert!(
            Instant::now() < deadline,
            "missed {}",
            capture.missed().unwrap()
        );
        tokio::task::yield_now().await;
    }
    let seen = capture.seen();
    assert_eq!((seen.clear, seen.other), (0, 0), "{seen:?}");
    assert!(seen.ike > 0 && seen.esp + seen.esp_in_udp > 0, "{seen:?}");
}

/// What `obol status --json` prints.
pub(crate) fn printed_status(host: &Host) -> Value {
    serde_json::from_str(&succeeds(host, &["status", "--json"])).unwrap()
}

/// The IKE SAs that are or were up. An attempt that the peer gave up for one of ours stays half-open
/// until its time is over: nobody is there to say more about it.
pub(crate) fn ike_sas(status: &Value) -> Vec<&Value> {
    let all = status["ike_sas"].as_array().into_iter().flatten();
    all.filter(|sa| sa["state"] != "connecting").collect()
}

/// Runs a command for the daemon of a host; what it printed.
pub(crate) fn succeeds(host: &Host, arguments: &[&str]) -> String {
    let output = run(host, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the children that are up, each once.
pub(crate) fn installed(status: &Value) -> Vec<String> {
    let ike_sas = ike_sas(status).into_iter();
    let children = ike_sas
        .filter_map(|ike| ike["children"].as_array())
        .flatten();
    let installed = children.filter(|child| child["state"] == "installed");
    let mut names: Vec<String> = installed
        .filter_map(|child| child["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Runs a command for the daemon of a host.
pub(crate) fn run(host: &Host, arguments: &[&str]) -> Output {
    host.netns
        .run(|| host.command(arguments).output())
        .unwrap()
        .unwrap()
}
