//! `generate_policy`: a host that was told no policy by setkey protects what its peers ask for, and nothing
//! that is configured gives way. As root; in namespaces.
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

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::time::Instant;

use daemons::{LIMIT, assert_only_protected};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::Service;
use racoon::{Bed, IN_VAIN, Racoon, services, talks, talks_at};
use rustix::process::Signal;
use support::is_root;

/// The first host has its policies, the second makes what its peers ask for, and has `script` beside.
struct Made {
    bed: Bed,
    _services: [Service; 2],
    capture: Capture,
}

impl Made {
    fn new(word: &str, script: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let bed = Bed::new();
        let services = services(&bed);
        let capture = Capture::start(&bed.lab.a.netns, WIRE, protected()).unwrap();
        let (a, b) = (&bed.lab.a, &bed.lab.b);
        bed.does(a, "setkey --service start ETC");
        let line = format!("passive off;\n    generate_policy {word};");
        bed.edit(b, "passive off;", &line);
        bed.edit(
            b,
            "dpd_delay 30;",
            "dpd_delay 1; dpd_retry 1; dpd_maxfail 3;",
        );
        let timer = "log debug;\ntimer { counter 3; interval 1 sec; }";
        bed.edit(b, "log debug;", timer);
        fs::write(bed.etc(b).join("more.conf"), script).unwrap();
        bed.does(b, "setkey -f ETC/more.conf");
        Some(Self {
            bed,
            _services: services,
            capture,
        })
    }

    fn start(&self) -> [Racoon<'_>; 2] {
        [&self.bed.lab.a, &self.bed.lab.b].map(|host| self.bed.start(host))
    }

    /// What the second host has of policies.
    fn listed(&self) -> String {
        self.bed.does(&self.bed.lab.b, "setkey -DP")
    }

    /// Waits until it has this many entries.
    fn has(&self, entries: usize) {
        let deadline = Instant::now() + 3 * LIMIT;
        while self.listed().matches("spid=").count() != entries {
            assert!(Instant::now() < deadline, "{}", self.listed());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn assert_never_in_clear(&self) {
        let seen = self.capture.seen();
        assert_eq!((seen.clear, seen.other), (0, 0), "{seen:?}");
    }
}

fn said(host: &Host) -> String {
    fs::read_to_string(host.runtime.join("racoon.log")).unwrap_or_default()
}

#[tokio::test]
async fn a_policy_is_made_and_stays_while_there_is_an_sa() {
    for (word, level) in [("require", "require"), ("unique", "unique#")] {
        let Some(made) = Made::new(word, "") else {
            return;
        };
        let (a, b) = (&made.bed.lab.a, &made.bed.lab.b);
        let _racoons = made.start();
        assert_eq!(made.listed(), "No SPD entries.\n");
        assert!(talks(a, b, LIMIT).await, "{}", said(b));
        // Out, in, and the copy for packets through it.
        let listed = made.listed();
        for entry in [
            "192.168.0.2[27017] 192.168.0.1[any] tcp\n\tout prio def ipsec\n",
            "192.168.0.1[any] 192.168.0.2[27017] tcp\n\tin prio def ipsec\n",
            "192.168.0.1[any] 192.168.0.2[27017] tcp\n\tfwd prio def ipsec\n",
            &format!("\n\tesp/transport//{level}"),
            "\n\tlifetime: 43200(s) validtime: 0(s)\n",
        ] {
            assert!(listed.contains(entry), "{entry}: {listed}");
        }
        assert!(
            !listed.contains("lastused:                     \n"),
            "{listed}"
        );
        made.has(3);
        assert!(said(b).contains("policy generated, since a peer asked for it"));
        // Another configuration that has it, too, changes nothing.
        made.bed.does(b, "racoonctl reload-config");
        assert!(talks(a, b, LIMIT).await, "{}", said(b));
        made.has(3);
        assert_only_protected(&made.capture).await;
        // It stays for a while when the peer closes the SA, and another SA finds it there.
        made.bed.does(a, "racoonctl flush-sa isakmp");
        made.has(3);
        assert!(talks(a, b, LIMIT).await, "{}", said(b));
        made.has(3);
        made.bed.does(b, "setkey -FP");
        made.has(0);
    }
}

/// The host that made the policy has something to say on a connection whose SA the peer has closed, and
/// whatever TCP does then, none of it is in clear.
#[tokio::test]
async fn the_last_segments_of_a_connection_are_not_in_clear_and_then_the_policy_goes() {
    let Some(made) = Made::new("require", "") else {
        return;
    };
    let (a, b) = (&made.bed.lab.a, &made.bed.lab.b);
    made.bed.edit(b, "12 hour", "10 sec");
    let late = SocketAddrV4::new(b.side.address, 27019);
    let policy = "spdadd 192.168.0.1 192.168.0.2[27019] tcp -P out ipsec esp/transport//require;\n\
                  spdadd 192.168.0.2[27019] 192.168.0.1 tcp -P in ipsec esp/transport//require;\n";
    fs::write(made.bed.etc(a).join("more.conf"), policy).unwrap();
    made.bed.does(a, "setkey -f ETC/more.conf");
    let listener = b
        .netns
        .run(move || TcpListener::bind(late))
        .unwrap()
        .unwrap();
    let _racoons = made.start();
    let connected = a.netns.run(move || TcpStream::connect(late)).unwrap();
    let (connected, (mut accepted, _)) = (connected.unwrap(), listener.accept().unwrap());
    made.has(3);
    made.bed.does(a, "racoonctl flush-sa isakmp");
    assert_eq!(made.bed.sas(b), 0);
    made.has(3);
    accepted.write_all(b"a last word").unwrap();
    drop(accepted);
    std::thread::sleep(IN_VAIN);
    made.assert_never_in_clear();
    drop(connected);
    made.has(0);
    assert!(said(b).contains("generated policy removed"), "{}", said(b));
}

#[tokio::test]
async fn a_peer_that_dies_leaves_it_closed_until_it_comes_back_or_an_operator_opens() {
    let Some(made) = Made::new("require", "") else {
        return;
    };
    let (a, b) = (&made.bed.lab.a, &made.bed.lab.b);
    let [at_a, _at_b] = made.start();
    assert!(talks(a, b, LIMIT).await, "{}", said(b));
    at_a.signal(Signal::KILL);
    let deadline = Instant::now() + 3 * LIMIT;
    while made.bed.sas(b) > 0 {
        assert!(Instant::now() < deadline, "{}", said(b));
        tokio::task::yield_now().await;
    }
    // The other host has nothing that protects any more, and is not answered in clear.
    made.bed.does(a, "setkey -FP");
    assert!(!talks(a, b, IN_VAIN).await);
    made.has(3);
    // What it sent was in clear: that is its own doing. Nothing came back.
    made.bed.does(b, "setkey -FP");
    made.has(0);
    assert!(talks(a, b, LIMIT).await, "an operator has opened it");
}

#[tokio::test]
async fn with_on_packets_pass_in_clear_where_there_is_no_sa() {
    let Some(made) = Made::new("on", "") else {
        return;
    };
    let (a, b) = (&made.bed.lab.a, &made.bed.lab.b);
    let [at_a, _at_b] = made.start();
    assert!(talks(a, b, LIMIT).await, "{}", said(b));
    assert!(made.listed().contains("\n\tesp/transport//use\n"));
    assert_only_protected(&made.capture).await;
    at_a.signal(Signal::KILL);
    made.bed.does(a, "setkey -FP");
    assert!(talks(a, b, 3 * LIMIT).await, "{}", said(b));
    made.has(0);
}

#[tokio::test]
async fn what_setkey_was_told_does_not_give_way() {
    let line = |action: &str| {
        format!(
            "spdadd 192.168.0.2[27017] 192.168.0.1 tcp -P out {action};\n\
             spdadd 192.168.0.1 192.168.0.2[27017] tcp -P in {action};\n"
        )
    };
    for (action, refused) in [
        ("discard", true),
        ("none", true),
        ("ipsec esp/tunnel/192.168.0.2-192.168.0.1/require", true),
        ("ipsec esp/transport//require", false),
    ] {
        let script = line(action);
        // The ends of a tunnel are the other way round for packets to this host.
        let (out, inward) = script.split_once('\n').unwrap();
        let inward = inward.replace("192.168.0.2-192.168.0.1/", "192.168.0.1-192.168.0.2/");
        let script = format!("{out}\n{inward}");
        let Some(made) = Made::new("require", &script) else {
            return;
        };
        let (a, b) = (&made.bed.lab.a, &made.bed.lab.b);
        let before = made.listed();
        let _racoons = made.start();
        let comes = talks(a, b, if refused { IN_VAIN } else { LIMIT }).await;
        assert_eq!(comes, !refused, "{action}: {}", said(b));
        let now = made.listed();
        assert_eq!(
            now.matches("spid=").count(),
            before.matches("spid=").count()
        );
        assert!(!said(b).contains("policy generated"), "{action}");
        made.assert_never_in_clear();
    }
}

/// Ports that no peer has asked for are as they were.
#[tokio::test]
async fn other_packets_of_the_peer_are_left_alone() {
    let Some(made) = Made::new("require", "") else {
        return;
    };
    let (a, b) = (&made.bed.lab.a, &made.bed.lab.b);
    let _other = racoon::service(b, 27018);
    let _racoons = made.start();
    assert!(talks(a, b, LIMIT).await, "{}", said(b));
    assert!(talks_at(a, b, 27018, LIMIT).await);
    let seen = made.capture.seen();
    let mut kinds = seen.clear_kinds.keys().chain(seen.other_kinds.keys());
    assert!(kinds.all(|kind| kind.contains("27018")), "{seen:?}");
}
