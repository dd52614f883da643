//! What IKE costs: memory of each IKE SA with one child, and the time to add connections.
//!
//! Both ends run in one process and one thread, without sockets. Live heap is counted by the
//! allocator, of the responder alone: the initiators are dropped.
//!
//! `cargo run --release -p obol-benches --bin ike [-- SAS...]`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use obol_benches::heap::{self, Counting};
use obol_ike::config::{Config, Connection, Path, Settings, StartAction};
use obol_ike::crypto::secret::Secret;
use obol_ike::endpoint::Endpoint;
use obol_ike::event::{Answer, Ask, Command, Event, Output};
use obol_ike::testing::setup::{HOSTS, connection, mirror, pods};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let asked: Vec<usize> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let counts = if asked.is_empty() {
        vec![1, 1_000, 100_000]
    } else {
        asked
    };
    println!("live heap of a responder, for each IKE SA with one child");
    println!("{:>9} {:>12} {:>9}", "SAs", "octets each", "KiB");
    for count in counts {
        let each = memory(count);
        println!("{count:>9} {each:>12.0} {:>9.2}", each / 1024.0);
    }
    println!("\ntime to negotiate with the n-th connection configured");
    println!("{:>9} {:>12}", "n", "us");
    for count in [1, 100, 10_000] {
        println!(
            "{count:>9} {:>12.1}",
            adding(count).as_nanos() as f64 / 1000.0
        );
    }
}

/// The n-th connection of an initiator, or of a responder.
fn nth(n: usize) -> Connection {
    let mut connection = connection(vec![pods(StartAction::None)]);
    connection.name = format!("{HOSTS}{n}");
    connection.local.id = format!("@host{n}.example.com").parse().ok();
    connection
}

fn settings() -> Settings {
    Settings {
        cookie_threshold: usize::MAX,
        half_open_limit: usize::MAX,
        ..Settings::default()
    }
}

fn endpoint(connections: Vec<Connection>, seed: u64) -> Endpoint {
    let config = Config {
        connections: connections.into_iter().map(Arc::new).collect(),
        settings: settings(),
    };
    Endpoint::new(Arc::new(config), Box::new(ChaCha20Rng::seed_from_u64(seed)))
}

/// Octets of live heap for each IKE SA.
fn memory(count: usize) -> f64 {
    let mut theirs = mirror(&nth(0), StartAction::None);
    theirs.remote_addrs.clear();
    theirs.remote.id = None;
    let mut responder = endpoint(vec![theirs], 1);
    let now = Instant::now();
    let mut started = endpoint(vec![nth(count)], 2);
    shake(&mut started, &mut responder, count, now);
    let before = heap::live();
    for n in 0..count {
        let mut initiator = endpoint(vec![nth(n)], n as u64 + 3);
        shake(&mut initiator, &mut responder, n, now);
    }
    let live = heap::live() - before;
    assert_eq!(responder.status(now).len(), count + 1, "all are up");
    live as f64 / count as f64
}

/// The shortest time of a handshake by the last of so many connections.
fn adding(count: usize) -> Duration {
    let ours: Vec<Connection> = (0..count).map(nth).collect();
    let theirs: Vec<Connection> = ours.iter().map(|c| mirror(c, StartAction::None)).collect();
    let (mut a, mut b) = (endpoint(ours, 1), endpoint(theirs, 2));
    let now = Instant::now();
    let times = (0..50).map(|_| {
        let start = Instant::now();
        shake(&mut a, &mut b, count - 1, now);
        let took = start.elapsed();
        let connection = format!("{HOSTS}{}", count - 1);
        let command = Command::Terminate {
            connection,
            child: None,
        };
        a.handle_command(now, command).expect("it is up");
        run(&mut a, &mut b, now);
        took
    });
    times.min().unwrap_or_default()
}

/// One handshake of the n-th connection, the first endpoint being its initiator.
fn shake(a: &mut Endpoint, b: &mut Endpoint, n: usize, now: Instant) {
    let command = Command::Initiate {
        connection: format!("{HOSTS}{n}"),
        child: None,
        local: None,
    };
    a.handle_command(now, command).expect("it can begin");
    let up = run(a, b, now);
    assert_eq!(up, 2, "both ends are up");
}

/// Carries datagrams and answers questions until nothing is under way. Returns how many IKE SAs
/// came up, of both ends.
fn run(a: &mut Endpoint, b: &mut Endpoint, now: Instant) -> usize {
    let mut up = 0;
    let mut busy = true;
    while busy {
        busy = false;
        for turn in [false, true] {
            let (from, to) = if turn {
                (&mut *b, &mut *a)
            } else {
                (&mut *a, &mut *b)
            };
            while let Some(output) = from.poll_output() {
                busy = true;
                match output {
                    Output::Transmit(sent) => {
                        let path = Path {
                            local: sent.path.remote,
                            remote: sent.path.local,
                        };
                        // What is dropped shows in the count of what is up.
                        let _ = to.handle_datagram(now, path, &sent.datagram);
                    }
                    Output::Ask(id, ask) => from.handle_answer(now, id, answer(&ask)),
                    Output::Event(Event::IkeUp { .. }) => up += 1,
                    Output::Event(_) => {}
                }
            }
        }
    }
    up
}

fn answer(ask: &Ask) -> Answer {
    match ask {
        Ask::Psk { .. } => Answer::Psk(Some(Secret::from(&b"a secret for benches"[..]))),
        Ask::LastInbound(_) => Answer::LastInbound(None),
        _ => Answer::Done(Ok(())),
    }
}
