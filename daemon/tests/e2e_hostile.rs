//! A running daemon with a tunnel that is up, and somebody on its network who sends it every kind
//! of bad input there is: each raises its counter, which an operator can read, and does nothing
//! else. As root; in namespaces.
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

use daemons::{LIMIT, PATIENCE, installed, printed_status, started};
use obol_daemon::demo::lab::{A, B, Host, Lab};
use obol_daemon::demo::traffic::ping;
use obol_daemon::host::netns::Netns;
use obol_ike::crypto::ke::KeyExchange;
use obol_ike::event::IkeSpi;
use obol_ike::proposal::IkeProposal;
use obol_ike::wire::{
    ExchangeType, Flags, Header, Ke, KeMethod, Message, Notify, NotifyType, Payload, PayloadType,
    emit_message,
};
use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{is_root, obol};

const INIT: ExchangeType = ExchangeType::IKE_SA_INIT;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;
/// Message IDs of which one is the next that the daemon takes.
const IDS: std::ops::Range<u32> = 0..24;
/// What a daemon may take more after a flood: places of half-open IKE SAs, fragments, the log.
const MORE_MEMORY: i64 = 16 << 20;

/// Sends whatever it likes, in whose name it likes, from the wire of the second host.
struct Attacker {
    socket: Socket,
}

impl Attacker {
    fn new(netns: &Netns) -> Self {
        let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
        Self {
            socket: netns.run(raw).unwrap().unwrap(),
        }
    }

    /// An IPv4 packet with this source; the system fills in lengths and checksums of IP.
    fn packet(&self, from: Ipv4Addr, protocol: u8, content: &[u8]) {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend(from.octets());
        packet.extend(A.address.octets());
        packet.extend(content);
        let to = SockAddr::from(SocketAddrV4::new(A.address, 0));
        self.socket.send_to(&packet, &to).unwrap();
    }

    /// UDP from and to this port, without checksum.
    fn udp(&self, from: Ipv4Addr, port: u16, datagram: &[u8]) {
        let len = u16::try_from(8 + datagram.len()).unwrap();
        let mut content = [port, port, len, 0].map(u16::to_be_bytes).concat();
        content.extend(datagram);
        self.packet(from, 17, &content);
    }

    /// To port 500 in the second host's name.
    fn ike(&self, datagram: &[u8]) {
        self.udp(B.address, 500, datagram);
    }

    /// "Port unreachable", about a datagram of the first host to the second.
    fn icmp(&self) {
        let mut content = vec![3, 3, 0, 0, 0, 0, 0, 0];
        content.extend([0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0]);
        content.extend(A.address.octets());
        content.extend(B.address.octets());
        content.extend([500_u16, 500, 16, 0].map(u16::to_be_bytes).concat());
        let sum = content.chunks(2).fold(0_u32, |sum, pair| {
            sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]))
        });
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        content[2..4].copy_from_slice(&sum.to_be_bytes());
        self.packet(B.address, 1, &content);
    }
}

/// The non-ESP marker of port 4500.
const MARKER: [u8; 4] = [0; 4];

/// IKE messages to the first host, as they were on its wire, with their port.
struct Recorder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(u16, Vec<u8>)>>,
}

impl Recorder {
    fn start(netns: &Netns) -> Self {
        let all = i32::from(0x0800_u16.to_be());
        let packets = || {
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(all)))?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok::<_, std::io::Error>(socket)
        };
        let socket = netns.run(packets).unwrap().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let mut buffer = [0; 65_536];
            while !told.load(Ordering::Relaxed) {
                let Ok(len) = (&socket).read(&mut buffer) else {
                    continue;
                };
                let packet = &buffer[..len];
                let to_a = packet.get(16..20) == Some(&A.address.octets());
                let udp = packet.first() == Some(&0x45) && packet.get(9) == Some(&17);
                let port = packet.get(22..24).map(|p| u16::from_be_bytes([p[0], p[1]]));
                let marked = packet.get(28..32) == Some(&MARKER);
                match port.filter(|_| to_a && udp) {
                    Some(500) => seen.push((500, packet[28..].to_vec())),
                    Some(4500) if marked => seen.push((4500, packet[28..].to_vec())),
                    _ => {}
                }
            }
            seen
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<(u16, Vec<u8>)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// An IKE_SA_INIT request that is good, changed by the test.
fn first_request(spi: u64, change: impl FnOnce(&mut Vec<Payload<'_>>)) -> Vec<u8> {
    let ke = KeyExchange::generate(KeMethod::CURVE25519, &mut random()).unwrap();
    let flags = Flags {
        initiator: true,
        ..Flags::default()
    };
    let header = Header::new(IkeSpi(spi), IkeSpi(0), INIT, flags, 0);
    let mut payloads = vec![
        Payload::Sa(IkeProposal::to_wire(&IkeProposal::defaults(), &[])),
        Payload::Ke(Ke {
            method: ke.method(),
            data: ke.public(),
        }),
        Payload::Nonce(&[7; 32]),
    ];
    change(&mut payloads);
    emit_message(&header, &payloads).unwrap()
}

fn random() -> impl rand_core::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

/// What an outsider who watches the wire knows of the IKE SA.
struct Known {
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    /// The second host began it.
    by_peer: bool,
}

impl Known {
    fn of(status: &Value) -> Self {
        let all = status["ike_sas"].as_array().unwrap();
        let sa = all.iter().find(|sa| sa["state"] == "established").unwrap();
        let spi = |name: &str| IkeSpi(u64::from_str_radix(sa[name].as_str().unwrap(), 16).unwrap());
        Self {
            spi_i: spi("spi_i"),
            spi_r: spi("spi_r"),
            by_peer: sa["role"] == "responder",
        }
    }

    /// A message that is the second host's, as far as its header goes.
    fn header(&self, exchange: ExchangeType, response: bool, id: u32) -> Header {
        let flags = Flags {
            initiator: self.by_peer,
            response,
            version: false,
        };
        Header::new(self.spi_i, self.spi_r, exchange, flags, id)
    }

    fn clear(&self, exchange: ExchangeType, response: bool, id: u32, of: NotifyType) -> Vec<u8> {
        let payload = [Payload::Notify(Notify::bare(of))];
        emit_message(&self.header(exchange, response, id), &payload).unwrap()
    }

    /// With an Encrypted payload, or a fragment of one, that nobody has the key to.
    fn junk(&self, response: bool, id: u32, fragment: Option<[u16; 2]>) -> Vec<u8> {
        let mut message = emit_message(&self.header(INFORMATIONAL, response, id), &[]).unwrap();
        let ty = if fragment.is_some() { 53 } else { 46 };
        message[16] = ty;
        let numbers = fragment.map(|numbers| numbers.map(u16::to_be_bytes).concat());
        let numbers = numbers.unwrap_or_default();
        let len = u16::try_from(4 + numbers.len() + 60).unwrap();
        message.extend([0, 0]);
        message.extend(len.to_be_bytes());
        message.extend(numbers);
        message.extend([id as u8 ^ 0x5a; 60]);
        let len = u32::try_from(message.len()).unwrap();
        message[24..28].copy_from_slice(&len.to_be_bytes());
        message
    }
}

fn drops(status: &Value) -> BTreeMap<String, u64> {
    let drops = status["drops"].as_object().unwrap().iter();
    drops
        .map(|(name, count)| (name.clone(), count.as_u64().unwrap()))
        .collect()
}

/// What must not change: the IKE SA, its Child SAs, and that packets pass.
async fn vital_signs(lab: &Lab) -> Vec<String> {
    let deadline = Instant::now() + LIMIT;
    ping(&lab.a.netns, A.pod, B.pod, PATIENCE, deadline)
        .await
        .unwrap();
    let status = printed_status(&lab.a);
    let all = status["ike_sas"].as_array().unwrap();
    let up = all.iter().filter(|sa| sa["state"] == "established");
    up.map(|sa| {
        let children = sa["children"].as_array().unwrap().iter();
        let spis: Vec<&Value> = children.map(|child| &child["spi_in"]).collect();
        format!("{} {} {spis:?}", sa["spi_i"], sa["spi_r"])
    })
    .collect()
}

/// Waits until the counter is higher than it was; returns the counters.
async fn risen(host: &Host, name: &str, before: u64) -> BTreeMap<String, u64> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let drops = drops(&printed_status(host));
        if drops.get(name).is_some_and(|count| *count > before) {
            return drops;
        }
        assert!(
            Instant::now() < deadline,
            "{name} stays at {before}: {drops:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Resident memory of a process in octets.
fn memory(status: &Value) -> i64 {
    let pid = status["daemon"]["pid"].as_u64().unwrap();
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: i64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// A sort of bad input: its name, the counter it raises, and how it is sent.
type Row<'a> = (&'a str, &'a str, Box<dyn Fn() + 'a>);

//= test security S-5 S-30
#[tokio::test]
async fn every_kind_of_bad_input_raises_its_counter_and_does_nothing_else() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(obol(), None).unwrap();
    let recorder = Recorder::start(&lab.a.netns);
    started(&mut lab).await;
    let vital = vital_signs(&lab).await;
    assert_eq!(vital.len(), 1, "{vital:?}");
    let status = printed_status(&lab.a);
    let (known, memory_before) = (Known::of(&status), memory(&status));
    let recorded = recorder.stop();
    assert!(recorded.len() >= 2, "{}", recorded.len());
    let bare = |(port, octets): &(u16, Vec<u8>)| match port {
        4500 => octets[MARKER.len()..].to_vec(),
        _ => octets.clone(),
    };
    let messages: Vec<Vec<u8>> = recorded.iter().map(bare).collect();
    let protected = |message: &&Vec<u8>| message[18] != INIT.0;
    let last = messages.iter().rfind(protected).unwrap().clone();
    let attacker = Attacker::new(&lab.b.netns);
    let send = |datagram: Vec<u8>| attacker.ike(&datagram);
    let each_id = |make: &dyn Fn(u32) -> Vec<u8>| IDS.for_each(|id| attacker.ike(&make(id)));
    let swapped = |ty: PayloadType, with: Payload<'static>| {
        move |payloads: &mut Vec<Payload<'_>>| {
            let at = payloads.iter().position(|payload| payload.ty() == ty);
            payloads[at.unwrap()] = with;
        }
    };
    let unknown = Payload::Unknown {
        ty: PayloadType(200),
        critical: true,
        body: b"what is this",
    };
    let zeros = |method, data: &'static [u8]| Payload::Ke(Ke { method, data });
    let none_known = || {
        let mut proposals = IkeProposal::to_wire(&IkeProposal::defaults(), &[]);
        let transforms = proposals.iter_mut().flat_map(|p| &mut p.transforms);
        transforms.for_each(|transform| transform.id = 999);
        Payload::Sa(proposals)
    };
    let rows: Vec<Row<'_>> = vec![
        (
            "octets that are no message",
            "ike_malformed",
            Box::new(|| send(vec![0xa5; 100])),
        ),
        (
            "a message cut short",
            "ike_malformed",
            Box::new(|| send(last[..last.len() - 3].to_vec())),
        ),
        (
            "a length that lies",
            "ike_malformed",
            Box::new(|| {
                let mut message = last.clone();
                message[26] ^= 0x40;
                send(message);
            }),
        ),
        (
            "version 3",
            "ike_version",
            Box::new(|| {
                let mut message = last.clone();
                message[17] = 0x30;
                send(message);
            }),
        ),
        (
            "SPIs of nobody",
            "ike_unknown_spi",
            Box::new(|| {
                let mut message = last.clone();
                message[..16].fill(0x77);
                send(message);
            }),
        ),
        (
            "a tag that is altered",
            "ike_integrity",
            Box::new(|| each_id(&|id| known.junk(false, id, None))),
        ),
        (
            "no protection",
            "ike_unprotected",
            Box::new(|| {
                each_id(&|id| {
                    known.clear(INFORMATIONAL, false, id, NotifyType::AUTHENTICATION_FAILED)
                });
            }),
        ),
        (
            "a message ID far ahead",
            "ike_message_id",
            Box::new(|| send(known.junk(false, 0x00ff_ffff, None))),
        ),
        (
            "an answer to nothing",
            "ike_unexpected",
            Box::new(|| each_id(&|id| known.junk(true, id, None))),
        ),
        (
            "a forged error",
            "ike_hint",
            Box::new(|| {
                send(known.clear(INFORMATIONAL, true, 3, NotifyType::INVALID_IKE_SPI));
            }),
        ),
        (
            "a fragment with number 0",
            "ike_fragment_number",
            Box::new(|| each_id(&|id| known.junk(false, id, Some([0, 2])))),
        ),
        (
            "a fragment beyond the total",
            "ike_fragment_number",
            Box::new(|| each_id(&|id| known.junk(false, id, Some([3, 2])))),
        ),
        (
            "fragments of junk",
            "ike_integrity",
            Box::new(|| each_id(&|id| known.junk(false, id, Some([1, 2])))),
        ),
        (
            "a critical payload",
            "ike_critical",
            Box::new(|| {
                send(first_request(1, |payloads| payloads.push(unknown.clone())));
            }),
        ),
        (
            "no nonce",
            "ike_incomplete",
            Box::new(|| send(first_request(2, |payloads| drop(payloads.pop())))),
        ),
        (
            "algorithms of nobody",
            "ike_no_proposal",
            Box::new(|| {
                send(first_request(3, swapped(PayloadType::SA, none_known())));
            }),
        ),
        (
            "a public value of zeros",
            "ike_key_exchange",
            Box::new(|| {
                send(first_request(
                    4,
                    swapped(PayloadType::KE, zeros(KeMethod::CURVE25519, &[0; 32])),
                ));
            }),
        ),
        (
            "another key exchange",
            "ike_other_ke_method",
            Box::new(|| {
                send(first_request(
                    5,
                    swapped(PayloadType::KE, zeros(KeMethod(999), &[1; 32])),
                ));
            }),
        ),
        (
            "an address of nobody",
            "ike_no_connection",
            Box::new(|| {
                attacker.udp(
                    Ipv4Addr::new(192, 168, 0, 77),
                    500,
                    &first_request(6, |_| {}),
                );
            }),
        ),
        (
            "the same first request twice",
            "ike_repeated",
            Box::new(|| {
                let request = first_request(7, |_| {});
                send(request.clone());
                send(request);
            }),
        ),
        ("an ICMP error", "icmp_errors", Box::new(|| attacker.icmp())),
    ];
    let mut counters = drops(&printed_status(&lab.a));
    for (name, counter, bad) in &rows {
        let before = counters.get(*counter).copied().unwrap_or(0);
        bad();
        counters = risen(&lab.a, counter, before).await;
        println!("{name}: {counter} {before} -> {}", counters[*counter]);
        assert_eq!(vital_signs(&lab).await, vital, "{name}");
    }

    // Everything that was ever on the wire, again.
    let before: u64 = counters.values().sum();
    let replays = 20 * recorded.len() as u64;
    for _ in 0..20 {
        for (port, octets) in &recorded {
            attacker.udp(B.address, *port, octets);
        }
    }
    let after = settled(&lab.a).await;
    let more = after.values().sum::<u64>() - before;
    println!(
        "{replays} replays of {} messages: {more} dropped",
        recorded.len()
    );
    // A first request that led to nothing, when both ends began, may be answered once more.
    let firsts = messages.iter().filter(|message| message[18] == INIT.0);
    assert!(
        more + firsts.count() as u64 >= replays,
        "{more} of {replays}"
    );
    assert_eq!(vital_signs(&lab).await, vital);

    // Floods: first requests, so that cookies are asked for, and octets.
    for n in 0..20_000_u64 {
        attacker.ike(&first_request_like(n));
        if n % 4 == 0 {
            attacker.ike(&[n as u8; 60]);
        }
        if n % 200 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let counters = settled(&lab.a).await;
    let status = printed_status(&lab.a);
    let grown = memory(&status) - memory_before;
    println!(
        "25000 datagrams of floods: {} asked for a cookie, {} KiB more; {counters:?}",
        counters["ike_cookie"],
        grown / 1024
    );
    assert!(counters["ike_cookie"] > 1000);
    assert!(grown < MORE_MEMORY, "{grown}");
    assert_eq!(vital_signs(&lab).await, vital);
    assert!(installed(&status).contains(&"pods".to_owned()));
}

/// A good first request that costs its sender nothing.
fn first_request_like(n: u64) -> Vec<u8> {
    static MADE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let mut request = MADE.get_or_init(|| first_request(1, |_| {})).clone();
    request[..8].copy_from_slice(&(n + 1000).to_be_bytes());
    assert!(Message::parse(&request).is_ok());
    request
}

/// The counters, once they rise no more.
async fn settled(host: &Host) -> BTreeMap<String, u64> {
    let mut last = drops(&printed_status(host));
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = drops(&printed_status(host));
        if now == last {
            return now;
        }
        last = now;
    }
}

//= test rfc7296 2.4-3
#[tokio::test]
async fn a_closed_port_hastens_a_probe_and_tears_nothing_down() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(obol(), None).unwrap();
    started(&mut lab).await;
    let vital = vital_signs(&lab).await;
    // Nobody's word for it is enough.
    let attacker = Attacker::new(&lab.b.netns);
    for _ in 0..2000 {
        attacker.icmp();
    }
    risen(&lab.a, "icmp_errors", 100).await;
    assert_eq!(vital_signs(&lab).await, vital);

    // But whoever is not there does not answer: an idle peer would be asked after 30 seconds.
    // The errors above had a probe of their own, and the next is not sent within ten seconds.
    tokio::time::sleep(Duration::from_secs(10)).await;
    lab.b.kill().unwrap();
    let begin = Instant::now();
    let up_and_connecting = |status: &Value| {
        let all = status["ike_sas"].as_array().unwrap();
        let state = |name: &str| all.iter().any(|sa| sa["state"] == name);
        state("established") && state("connecting")
    };
    loop {
        let deadline = Instant::now() + PATIENCE;
        let lost = ping(&lab.a.netns, A.pod, B.pod, PATIENCE, deadline).await;
        assert!(lost.is_err());
        if up_and_connecting(&printed_status(&lab.a)) {
            break;
        }
        assert!(begin.elapsed() < 2 * LIMIT, "{:#}", printed_status(&lab.a));
    }
    let took = begin.elapsed();
    lab.b.start().unwrap();
    let deadline = Instant::now() + 3 * LIMIT;
    ping(&lab.a.netns, A.pod, B.pod, PATIENCE, deadline)
        .await
        .unwrap();
    println!(
        "a new IKE SA is begun beside the old one after {:.1} s; packets pass after {:.1} s",
        took.as_secs_f64(),
        begin.elapsed().as_secs_f64()
    );
}
