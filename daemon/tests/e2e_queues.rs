//! Several SAs for one child, each for a queue (RFC 9611), between two daemons. As root; in namespaces.
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

use daemons::{LIMIT, assert_only_protected, ike_sas, printed_status, started};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{A, B, Host, Lab, SERVICE, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::{Service, converse};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{is_root, obol};

/// Sockets that talk at once.
const FLOWS: usize = 24;
/// After this time without an answer a question is repeated.
const PATIENCE: Duration = Duration::from_millis(250);

#[tokio::test]
async fn there_are_as_many_sas_as_both_ends_want_and_flows_use_all() {
    if !is_root() {
        return;
    }
    for encap in [false, true] {
        use_all(encap).await;
    }
}

async fn use_all(encap: bool) {
    let (lab, capture) = up("queues = 2", "queues = 4", encap).await;
    let talk = Talk::start(&lab);
    for (host, peer) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        let numbers = pods(host).into_iter().map(|sa| sa.queue);
        assert_eq!(numbers.collect::<Vec<_>>(), [0, 1]);
        // Children with one SA share it among all workers.
        let address = SocketAddrV4::new(peer.side.address, SERVICE);
        let _service = Service::start(&peer.netns, address).unwrap();
        for _ in 0..4 {
            converse(&host.netns, host.side.address, address, LIMIT)
                .await
                .unwrap();
        }
    }
    until(&lab, "each SA carries packets both ways", || {
        talk.round();
        let used = |sa: &Sa| sa.packets_in >= 10 && sa.packets_out >= 10;
        pods(&lab.a).iter().all(used) && pods(&lab.b).iter().all(used)
    });
    // Answers take the pair that the question came by: now that all queues are on, which they are a moment
    // after their SAs.
    let before = pods(&lab.a);
    (0..4).for_each(|_| talk.round());
    for (sa, before) in pods(&lab.a).iter().zip(&before) {
        assert_eq!(sa.spi, before.spi);
        let sent = sa.packets_out - before.packets_out;
        let come = sa.packets_in - before.packets_in;
        println!("queue {}: {sent} out, {come} in", sa.queue);
        let (most, least) = (sent.max(come), sent.min(come));
        assert!(
            least >= 10 && least * 2 > most,
            "{sa:?}, before: {before:?}"
        );
    }
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn each_is_rekeyed_by_itself() {
    if !is_root() {
        return;
    }
    let limits = "queues = 2\nrekey_packets = 300\nlife_packets = 1000000";
    let (lab, capture) = up(limits, "queues = 2", true).await;
    let talk = Talk::start(&lab);
    let mut seen: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    until(&lab, "each was rekeyed three times", || {
        talk.round();
        for sa in pods(&lab.a) {
            seen.entry(sa.queue).or_default().insert(sa.spi);
        }
        seen.len() == 2 && seen.values().all(|spis| spis.len() > 3)
    });
    until(&lab, "two are left", || {
        [&lab.a, &lab.b].iter().all(|host| pods(host).len() == 2)
    });
    talk.round();
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn one_that_is_used_up_is_made_anew() {
    if !is_root() {
        return;
    }
    // A burst is through before a rekey can be.
    let limits = "queues = 2\nrekey_packets = 200\nlife_packets = 201";
    let (lab, capture) = up(limits, "queues = 2", false).await;
    let talk = Talk::start(&lab);
    talk.round();
    let before = pods(&lab.a);
    let socket = socket(&lab.a, A, 0);
    for _ in 0..1000 {
        // What does not fit is of no interest.
        let _ = socket.send_to(&[0; 32], (B.pod, 9));
    }
    until(&lab, "there are two again, and one is new", || {
        talk.round();
        let (at_a, at_b) = (pods(&lab.a), pods(&lab.b));
        let spis = |sas: &[Sa]| sas.iter().map(|sa| sa.spi.clone()).collect::<BTreeSet<_>>();
        let queues: BTreeSet<u64> = at_a.iter().map(|sa| sa.queue % 2).collect();
        queues.len() == 2 && at_b.len() == 2 && spis(&at_a) != spis(&before)
    });
    let log = std::fs::read_to_string(&lab.a.log).unwrap();
    assert!(drops(&lab.a, "hard-limit") > 0, "{log}");
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn a_peer_with_one_queue_has_one_sa() {
    if !is_root() {
        return;
    }
    for (a, b) in [("queues = 4", ""), ("queues = 1", "queues = 3")] {
        let (lab, capture) = up(a, b, true).await;
        let talk = Talk::start(&lab);
        for _ in 0..4 {
            talk.round();
        }
        for host in [&lab.a, &lab.b] {
            let sas = pods(host);
            assert_eq!(sas.len(), 1, "{sas:?}");
            assert!(sas[0].packets_out as usize >= 4 * FLOWS, "{sas:?}");
        }
        assert_only_protected(&capture).await;
    }
}

/// Both daemons, with these lines for the subnets at the first, who begins, and at the second.
async fn up(at_a: &str, at_b: &str, encap: bool) -> (Lab, Capture) {
    let mut lab = Lab::new(obol(), None).unwrap();
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    for (host, action, lines) in [(&lab.a, "start", at_a), (&lab.b, "trap", at_b)] {
        let text = std::fs::read_to_string(&host.config).unwrap();
        let lines = format!("start_action = \"{action}\"\n{lines}");
        let connection = format!("[connections.hosts]\nencap = {encap}\n");
        let text = text
            .replacen("[connections.hosts]\n", &connection, 1)
            .replacen("start_action = \"start\"", &lines, 1);
        std::fs::write(&host.config, text).unwrap();
    }
    started(&mut lab).await;
    let most = |lines: &str| {
        lines
            .split_whitespace()
            .nth(2)
            .map_or(1, |n| n.parse().unwrap())
    };
    let want = most(at_a).min(most(at_b));
    until(&lab, "all are up", || {
        [&lab.a, &lab.b].iter().all(|host| pods(host).len() == want)
    });
    // A flow that began while there was one SA stays there.
    until(&lab, "all are in use", || {
        Talk::start(&lab).round();
        let used = |host| pods(host).iter().all(|sa| sa.packets_out > 0);
        used(&lab.a) && used(&lab.b)
    });
    (lab, capture)
}

/// An SA of the subnets that is up.
#[derive(Debug)]
struct Sa {
    queue: u64,
    spi: String,
    packets_in: u64,
    packets_out: u64,
}

/// The SAs of the subnets, by queue.
fn pods(host: &Host) -> Vec<Sa> {
    let status = printed_status(host);
    let children = ike_sas(&status)
        .into_iter()
        .flat_map(|ike| ike["children"].as_array());
    let up = |sa: &&Value| sa["name"] == "pods" && sa["state"] == "installed";
    let number = |value: &Value| value.as_u64().unwrap();
    let mut sas: Vec<Sa> = children
        .flatten()
        .filter(up)
        .map(|sa| Sa {
            queue: number(&sa["queue"]),
            spi: sa["spi_in"].as_str().unwrap().to_owned(),
            packets_in: number(&sa["packets_in"]),
            packets_out: number(&sa["packets_out"]),
        })
        .collect();
    sas.sort_by_key(|sa| sa.queue);
    sas
}

fn drops(host: &Host, reason: &str) -> u64 {
    printed_status(host)["drops"][reason].as_u64().unwrap_or(0)
}

fn until(lab: &Lab, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        let log = |host: &Host| std::fs::read_to_string(&host.log).unwrap_or_default();
        let state = || format!("{:?}\n{:?}", pods(&lab.a), pods(&lab.b));
        assert!(
            Instant::now() < deadline,
            "{what}: {}\n{}\n{}",
            state(),
            log(&lab.a),
            log(&lab.b)
        );
    }
}

fn socket(host: &Host, side: obol_daemon::demo::lab::Side, port: u16) -> UdpSocket {
    let bind = || UdpSocket::bind((side.pod, port));
    let socket = host.netns.run(bind).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Flows from the first host to one that answers on the second.
struct Talk {
    flows: Vec<UdpSocket>,
    /// Who answers.
    to: SocketAddr,
    end: Arc<AtomicBool>,
    answerer: Option<JoinHandle<()>>,
}

impl Talk {
    fn start(lab: &Lab) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (answers, ends) = (socket(&lab.b, B, 0), end.clone());
        let to = answers.local_addr().unwrap();
        let answerer = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !ends.load(Relaxed) {
                if let Ok((len, from)) = answers.recv_from(&mut buffer) {
                    answers.send_to(&buffer[..len], from).unwrap();
                }
            }
        });
        Self {
            flows: (0..FLOWS).map(|_| socket(&lab.a, A, 0)).collect(),
            to,
            end,
            answerer: Some(answerer),
        }
    }

    /// One question of each flow at once, and its answer.
    fn round(&self) {
        let ask = |flow: &UdpSocket| flow.send_to(b"question", self.to).unwrap();
        for flow in &self.flows {
            ask(flow);
        }
        let deadline = Instant::now() + LIMIT;
        for flow in &self.flows {
            while let Err(error) = flow.recv(&mut [0; 64]) {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                assert!(Instant::now() < deadline, "no answer");
                ask(flow);
            }
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        if let Some(answerer) = self.answerer.take() {
            answerer.join().unwrap();
        }
    }
}
