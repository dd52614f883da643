//! A daemon dies and loses all its state, and only the other end has something to send: the
//! tunnel is back soon (RFC 6290). As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/daemons.rs"]
#[expect(dead_code, reason = "what other tests use")]
mod daemons;
#[expect(dead_code, reason = "what other tests use")]
mod support;

use daemons::{LIMIT, PATIENCE, ike_sas, printed_status};
use obol_daemon::demo::lab::{A, B, Lab, configuration};
use obol_daemon::demo::traffic::ping;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};
use support::{is_root, obol};

/// Nothing starts by itself.
fn on_demand(text: &str) -> String {
    text.replace("\"start\"", "\"trap\"")
}

#[tokio::test]
async fn traffic_to_a_daemon_that_was_killed_is_back_within_ten_seconds() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(obol(), None).unwrap();
    std::fs::write(&lab.a.config, on_demand(&configuration(A, B))).unwrap();
    std::fs::write(&lab.b.config, on_demand(&configuration(B, A))).unwrap();
    for host in [&mut lab.a, &mut lab.b] {
        host.start().unwrap();
        let deadline = Instant::now() + LIMIT;
        while host.status().await.is_err() {
            assert!(host.runs() && Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    reached(&lab).await;
    for host in [&lab.a, &lab.b] {
        let status = printed_status(host);
        assert_eq!(ike_sas(&status)[0]["crash_detection"], true, "{status:#}");
        let secret = host.runtime.join("state/crash.key");
        let mode = std::fs::metadata(secret).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    lab.b.kill().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    lab.b.start().unwrap();
    let begin = Instant::now();
    reached(&lab).await;
    let took = begin.elapsed();
    println!(
        "kill -9, start, and pings from the other end alone: back after {:.2} s",
        took.as_secs_f64()
    );
    let log = std::fs::read_to_string(&lab.a.log).unwrap();
    assert!(log.contains("has lost its state"), "{log}");
    assert!(took <= Duration::from_secs(10), "{took:?}");
}

/// Pings from the first host until one is answered.
async fn reached(lab: &Lab) {
    let deadline = Instant::now() + 3 * LIMIT;
    ping(&lab.a.netns, A.pod, B.pod, PATIENCE, deadline)
        .await
        .unwrap();
}
