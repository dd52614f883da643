//! A daemon dies, and another one resumes what it had with it (RFC 5723): with a ticket that is
//! good after the restart, or from scratch. As root; in namespaces.
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

use daemons::{LIMIT, PATIENCE, ike_sas, printed_status, succeeds};
use obol_daemon::demo::lab::{A, B, Lab, Side, configuration};
use obol_daemon::demo::traffic::ping;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};
use support::{is_root, obol};

/// On demand, with tickets; they are good after a restart, or not.
fn with_tickets(us: Side, peer: Side, keep: bool) -> String {
    let text = configuration(us, peer)
        .replace("\"start\"", "\"trap\"")
        .replace("local_addrs ", "resumption = true\nlocal_addrs ");
    format!("{text}\n[daemon]\nkeep_tickets = {keep}\n")
}

#[tokio::test]
async fn a_daemon_that_was_killed_takes_its_tickets_if_it_keeps_their_key() {
    if !is_root() {
        return;
    }
    for keep in [true, false] {
        let mut lab = Lab::new(obol(), None).unwrap();
        std::fs::write(&lab.a.config, with_tickets(A, B, keep)).unwrap();
        std::fs::write(&lab.b.config, with_tickets(B, A, keep)).unwrap();
        for host in [&mut lab.a, &mut lab.b] {
            host.start().unwrap();
            let deadline = Instant::now() + LIMIT;
            while host.status().await.is_err() {
                assert!(host.runs() && Instant::now() < deadline);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        reached(&lab).await;
        assert_eq!(ike_sas(&printed_status(&lab.a))[0]["resumed"], false);
        let secret = lab.b.runtime.join("state/tickets.key");
        assert_eq!(secret.exists(), keep);
        if keep {
            let mode = std::fs::metadata(secret).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }

        lab.b.kill().unwrap();
        lab.b.start().unwrap();
        let begin = Instant::now();
        reached(&lab).await;
        println!("keep_tickets = {keep}: back after {:?}", begin.elapsed());
        for host in [&lab.a, &lab.b] {
            let status = printed_status(host);
            assert_eq!(ike_sas(&status)[0]["resumed"], keep, "{status:#}");
            let log = std::fs::read_to_string(&host.log).unwrap();
            assert_eq!(log.contains("IKE SA resumed"), keep, "{log}");
            assert_eq!(succeeds(host, &["status"]).contains(", resumed"), keep);
        }
        let log = std::fs::read_to_string(&lab.a.log).unwrap();
        assert_eq!(log.contains("does not take the ticket"), !keep, "{log}");
        let drops = &printed_status(&lab.b)["drops"]["ike_ticket_unknown_key"];
        assert_eq!(drops.is_null(), keep, "{drops}");
    }
}

/// Pings from the first host until one is answered.
async fn reached(lab: &Lab) {
    let deadline = Instant::now() + 3 * LIMIT;
    ping(&lab.a.netns, A.pod, B.pod, PATIENCE, deadline)
        .await
        .unwrap();
}
