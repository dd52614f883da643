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
        for host in [&mut lab.a, &mut lab.b] {
            let log = std::fs::read_to_string(&host.log).unwrap_or_default();
            assert!(
                host.runs() && Instant::now() < deadline,
                "{}: {log}",
                host.side.name
            );
        }
        tokio::task::yield_now().await;
    }
}

/// Whether a host has the subnets joined, by its only IKE SA.
async fn is_up(host: &Host) -> bool {
    let up = |status: Value| {
        let alone = status["ike_sas"]
            .as_array()
            .is_some_and(|all| all.len() == 1);
        alone && installed(&status).contains(&"pods".to_owned())
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
    assert!(seen.ike > 0 && seen.esp > 0, "{seen:?}");
}

/// What `obol status --json` prints.
pub(crate) fn printed_status(host: &Host) -> Value {
    serde_json::from_str(&succeeds(host, &["status", "--json"])).unwrap()
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
    let ike_sas = status["ike_sas"].as_array().cloned().unwrap_or_default();
    let children = ike_sas
        .iter()
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
