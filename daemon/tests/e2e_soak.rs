//! All kinds of traffic at once, while the SAs that carry it are rekeyed all the time: nothing is
//! lost, and nothing altered. As root; in namespaces.
//!
//! `OBOL_SOAK_SECONDS` says for how long; without it, a few seconds. Ten minutes:
//! `OBOL_SOAK_SECONDS=600 cargo test --release -p obol --test e2e_soak -- --nocapture`
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[expect(dead_code, reason = "other tests need more of it")]
#[path = "support/daemons.rs"]
mod daemons;
#[expect(dead_code, reason = "other tests need more of it")]
mod support;

use daemons::{ike_sas, printed_status, started};
use obol_daemon::demo::lab::{A, B, Host, Lab, Side};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};
use support::{is_root, obol};

const STREAM_PORT: u16 = 5001;
const DATAGRAM_PORT: u16 = 5002;
/// What may be on its way of one stream, and of the datagrams one way: less than any queue takes, so
/// that nothing is lost for want of room.
const STREAM_BUFFER: usize = 96 << 10;
const DATAGRAMS_BYTES: usize = 96 << 10;
const DATAGRAMS: usize = 24;
/// No reply for so long is a loss.
const LOST: Duration = Duration::from_secs(10);

/// How long it goes on.
fn duration() -> Duration {
    let seconds = std::env::var("OBOL_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(9, |text| {
        text.parse().expect("OBOL_SOAK_SECONDS is no number")
    });
    Duration::from_secs(seconds)
}

/// SAs of seconds, which change at both ends.
fn configuration(us: Side, peer: Side, encap: bool, start: &str) -> String {
    format!(
        r#"[connections.hosts]
local_addrs  = ["{}"]
remote_addrs = ["{}"]
encap = {encap}
rekey_time = "5s"
over_time = "30s"
local  = {{ auth = "psk", id = "{}" }}
remote = {{ auth = "psk", id = "{}" }}

[connections.hosts.children.pods]
local_ts  = ["{}"]
remote_ts = ["{}"]
start_action = "{start}"
rekey_time = "2s"
life_time = "30s"

[secrets.hosts]
type = "psk"
secret = "0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ="
"#,
        us.address, peer.address, us.id, peer.id, us.network, peer.network
    )
}

/// Octets that repeat only after a prime number of them: those of another place differ.
struct Pattern(Vec<u8>);

impl Pattern {
    const PERIOD: usize = 1_048_573;
    /// The longest piece that is asked for.
    const PIECE: usize = 1 << 17;

    fn new() -> Self {
        let mut octets = vec![0; Self::PERIOD];
        getrandom::fill(&mut octets).unwrap();
        octets.extend_from_within(..Self::PIECE);
        Self(octets)
    }

    fn at(&self, position: u64, len: usize) -> &[u8] {
        let from = (position % Self::PERIOD as u64) as usize;
        &self.0[from..from + len]
    }
}

/// What all that send and receive share.
struct Soak {
    pattern: Pattern,
    over: AtomicBool,
    /// Nobody asks any more.
    asked: AtomicBool,
}

impl Soak {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Sends a stream until it is over; how many octets.
    fn send_stream(&self, mut stream: TcpStream) -> u64 {
        let mut sent = 0;
        for len in (1..).map(|n: usize| 1 + n * 7919 % Pattern::PIECE) {
            if self.is_over() {
                break;
            }
            stream.write_all(self.pattern.at(sent, len)).unwrap();
            sent += len as u64;
        }
        sent
    }

    /// Receives one until its end; how many octets, all as they were sent.
    fn receive_stream(&self, mut stream: TcpStream) -> u64 {
        let (mut received, mut buffer) = (0, vec![0; Pattern::PIECE]);
        loop {
            let len = stream.read(&mut buffer).unwrap();
            if len == 0 {
                return received;
            }
            let expected = self.pattern.at(received, len);
            assert!(
                buffer[..len] == *expected,
                "altered after {received} octets"
            );
            received += len as u64;
        }
    }

    /// Sends back what comes.
    fn answer(&self, socket: &UdpSocket) {
        let mut buffer = vec![0; 1 << 16];
        while !self.asked.load(Ordering::Relaxed) {
            match socket.recv_from(&mut buffer) {
                Ok((len, from)) => assert_eq!(socket.send_to(&buffer[..len], from).unwrap(), len),
                Err(error) => assert!(
                    [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()),
                    "{error}"
                ),
            }
        }
    }

    /// Asks with datagrams of all sizes, those of several fragments too, and sees that each comes
    /// back as it was; how many did, and how many octets.
    fn ask(&self, socket: &UdpSocket) -> (u64, u64) {
        let mut open: BTreeMap<u64, (usize, Instant)> = BTreeMap::new();
        let (mut next, mut octets, mut waiting) = (0_u64, 0, 0);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let len = datagram_len(next);
            let room = open.len() < DATAGRAMS && waiting + len <= DATAGRAMS_BYTES;
            if room && !self.is_over() {
                let data = [&next.to_be_bytes(), self.pattern.at(next * 31, len - 8)].concat();
                assert_eq!(socket.send(&data).unwrap(), len);
                open.insert(next, (len, Instant::now()));
                waiting += len;
                next += 1;
                continue;
            }
            if open.is_empty() {
                return (next, octets);
            }
            if let Ok(len) = socket.recv(&mut buffer) {
                let number = u64::from_be_bytes(*buffer.first_chunk().unwrap());
                let (sent, _) = open.remove(&number).expect("an answer comes once");
                assert_eq!(len, sent, "datagram {number}");
                let expected = self.pattern.at(number * 31, len - 8);
                assert!(buffer[8..len] == *expected, "datagram {number} is altered");
                waiting -= len;
                octets += len as u64;
            }
            let late = open.iter().find(|(_, (_, at))| at.elapsed() > LOST);
            assert!(late.is_none(), "lost: number, length, time {late:?}");
        }
    }
}

/// Ends what waits for questions; where that is for a failure, says what the daemons dropped.
struct End<'a>(&'a Soak, &'a Lab);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        self.0.asked.store(true, Ordering::Relaxed);
        if std::thread::panicking() {
            for host in [&self.1.a, &self.1.b] {
                println!("{}: {}", host.side.name, printed_status(host)["drops"]);
                let log = std::fs::read_to_string(&host.log).unwrap_or_default();
                println!("{log}");
            }
        }
    }
}

/// Small ones, large ones, and here and there one that goes in up to 30 fragments.
fn datagram_len(number: u64) -> usize {
    let spread = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize;
    match number % 50 {
        0 => 8 + spread % 40_000,
        n if n % 3 == 0 => 8 + spread % 64,
        _ => 8 + spread % 1_400,
    }
}

fn address(side: Side, port: u16) -> SocketAddr {
    SocketAddrV4::new(side.pod, port).into()
}

fn stream_socket(host: &Host) -> Socket {
    let socket = host
        .netns
        .run(|| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)))
        .unwrap()
        .unwrap();
    socket.set_send_buffer_size(STREAM_BUFFER / 2).unwrap();
    socket.set_recv_buffer_size(STREAM_BUFFER / 2).unwrap();
    socket
}

fn listener(host: &Host) -> TcpListener {
    let socket = stream_socket(host);
    let at = address(host.side, STREAM_PORT);
    socket.bind(&at.into()).unwrap();
    socket.listen(8).unwrap();
    socket.into()
}

fn connected(host: &Host, peer: Side) -> TcpStream {
    let socket = stream_socket(host);
    socket.bind(&address(host.side, 0).into()).unwrap();
    socket.connect(&address(peer, STREAM_PORT).into()).unwrap();
    socket.into()
}

fn datagram_socket(host: &Host, port: u16) -> UdpSocket {
    let socket = host
        .netns
        .run(|| UdpSocket::bind(address(host.side, port)))
        .unwrap()
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    socket
}

/// What one host sends to the other.
struct OneWay<'scope> {
    sent: ScopedJoinHandle<'scope, u64>,
    received: ScopedJoinHandle<'scope, u64>,
    asked: ScopedJoinHandle<'scope, (u64, u64)>,
}

impl<'scope> OneWay<'scope> {
    fn start(scope: &'scope Scope<'scope, '_>, soak: &'scope Soak, from: &Host, to: &Host) -> Self {
        let listener = listener(to);
        let client = connected(from, to.side);
        let (server, _) = listener.accept().unwrap();
        let asking = datagram_socket(from, 0);
        asking.connect(address(to.side, DATAGRAM_PORT)).unwrap();
        let answering = datagram_socket(to, DATAGRAM_PORT);
        scope.spawn(move || soak.answer(&answering));
        Self {
            sent: scope.spawn(move || soak.send_stream(client)),
            received: scope.spawn(move || soak.receive_stream(server)),
            asked: scope.spawn(move || soak.ask(&asking)),
        }
    }

    fn finish(self, name: &str) {
        let (sent, received) = (self.sent.join().unwrap(), self.received.join().unwrap());
        let (datagrams, octets) = self.asked.join().unwrap();
        println!(
            "{name}: stream {} MB, datagrams {datagrams} of {} MB there and back",
            sent / 1_000_000,
            octets / 1_000_000
        );
        assert_eq!(sent, received);
        assert!(sent > 0 && datagrams > 0);
    }
}

/// The SPIs of IKE SAs and of Child SAs that a daemon shows until `end`.
fn watch(host: &Host, end: Instant) -> [BTreeSet<String>; 2] {
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    while Instant::now() < end {
        let status = printed_status(host);
        for ike in ike_sas(&status) {
            seen[0].insert(text(&ike["spi_i"]));
            let children = ike["children"].as_array().unwrap();
            seen[1].extend(children.iter().map(|child| text(&child["spi_in"])));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    seen
}

async fn soak(encap: bool) {
    let mut lab = Lab::new(obol(), None).unwrap();
    let file = configuration(A, B, encap, "start");
    std::fs::write(&lab.a.config, file).unwrap();
    std::fs::write(&lab.b.config, configuration(B, A, encap, "none")).unwrap();
    started(&mut lab).await;
    let soak = Soak {
        pattern: Pattern::new(),
        over: AtomicBool::new(false),
        asked: AtomicBool::new(false),
    };
    let time = duration();
    let [ike_sas, child_sas] = std::thread::scope(|scope| {
        let _end = End(&soak, &lab);
        let there = OneWay::start(scope, &soak, &lab.a, &lab.b);
        let back = OneWay::start(scope, &soak, &lab.b, &lab.a);
        let watched = watch(&lab.a, Instant::now() + time);
        soak.over.store(true, Ordering::Relaxed);
        there.finish("to b");
        back.finish("to a");
        watched
    });
    let (ike_sas, child_sas) = (ike_sas.len(), child_sas.len());
    println!(
        "encapsulation {encap}: {time:?}, {ike_sas} IKE SAs, {child_sas} Child SAs, nothing lost or altered"
    );
    // Less than half of what their times promise: the machine may be busy.
    let least = (1 + time.as_secs() / 15, 1 + time.as_secs() / 6);
    assert!(ike_sas as u64 > least.0 && child_sas as u64 > least.1);
}

#[tokio::test]
async fn nothing_is_lost_or_altered_while_all_is_rekeyed() {
    if !is_root() {
        return;
    }
    for encap in [false, true] {
        soak(encap).await;
    }
}
