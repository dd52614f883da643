//! Watches a device as tcpdump would, and counts what goes by: a packet socket (packet(7)) with a
//! filter in the kernel, read by a thread of its own.

use super::classify::{Class, Classifier, Protected};
use crate::host::netns::Netns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running capture; ends when it is dropped.
#[derive(Debug)]
pub struct Capture {
    netns: Netns,
    device: String,
    index: u32,
    socket: Arc<Socket>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
    packets_before: u64,
    looked_away: Mutex<LookedAway>,
}

/// Packets that the scope left out.
#[derive(Clone, Copy, Debug, Default)]
struct LookedAway {
    /// In times that are over.
    before: u64,
    /// What had been missed when the present time began.
    since: Option<u64>,
}

/// What went by so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Seen {
    /// Packets by class: IKE.
    pub ike: u64,
    /// ESP, IP protocol 50.
    pub esp: u64,
    /// ESP in UDP, and NAT keepalives.
    pub esp_in_udp: u64,
    /// Address resolution.
    pub arp: u64,
    /// Packets of protected flows outside ESP, and packets that show a demo payload.
    pub clear: u64,
    /// The clear ones by what they were; see [`KINDS`].
    pub clear_kinds: BTreeMap<String, u64>,
    /// Anything else.
    pub other: u64,
    /// The other ones by what they were; see [`KINDS`].
    pub other_kinds: BTreeMap<String, u64>,
    /// From the first IKE_SA_INIT request that led to an IKE SA to its IKE_AUTH response.
    #[serde(skip)]
    pub first_negotiation: Option<Duration>,
}

/// Most kinds of clear or other packets that are told apart; the rest is only counted.
pub const KINDS: usize = 64;

impl Seen {
    /// All packets.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ike + self.esp + self.esp_in_udp + self.arp + self.clear + self.other
    }

    fn count(&mut self, class: Class) {
        match class {
            Class::Ike => self.ike += 1,
            Class::Esp => self.esp += 1,
            Class::EspInUdp | Class::Keepalive => self.esp_in_udp += 1,
            Class::Arp => self.arp += 1,
            Class::Clear(kind) => {
                self.clear += 1;
                count_kind(&mut self.clear_kinds, kind);
            }
            Class::Other(kind) => {
                self.other += 1;
                count_kind(&mut self.other_kinds, kind);
            }
        }
    }
}

/// What the capture looks at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Every packet.
    All,
    /// Every packet that is neither ESP nor on an IKE port: for traffic so fast that looking at
    /// each packet would slow it down, and still nothing in clear is missed.
    Unprotected,
}

impl Capture {
    /// Begins to watch `device` in `netns`.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW; `NotFound` if there is no such device.
    pub fn start(netns: &Netns, device: &str, protected: Protected) -> io::Result<Self> {
        let index = netns.configure(async |links| links.index(device).await)?;
        let socket = Arc::new(netns.run(|| open(index))??);
        let shared = Arc::new(Shared::default());
        let mut watcher = Watcher {
            socket: Arc::clone(&socket),
            shared: Arc::clone(&shared),
            classifier: Classifier::new(protected),
            begun: BTreeMap::new(),
        };
        let packets_before = interface_packets(netns, device)?;
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || watcher.watch())?;
        Ok(Self {
            netns: netns.clone(),
            device: device.to_owned(),
            index,
            socket,
            shared,
            thread: Some(thread),
            packets_before,
            looked_away: Mutex::default(),
        })
    }

    /// Changes what is looked at, from the next packet on. What [`Scope::Unprotected`] leaves out
    /// does not count as missed.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_scope(&self, scope: Scope) -> io::Result<()> {
        let missed = self.missed()?;
        self.socket.attach_filter(&filter(self.index, scope))?;
        let mut away = self
            .looked_away
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match (scope, away.since.take()) {
            (Scope::Unprotected, since) => away.since = since.or(Some(missed)),
            (Scope::All, Some(since)) => away.before += missed.saturating_sub(since),
            (Scope::All, None) => {}
        }
        Ok(())
    }

    /// What went by so far. A packet is counted within moments of its way over the device.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Packets that went over the device since the capture began, by the device's own count.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn on_device(&self) -> io::Result<u64> {
        Ok(interface_packets(&self.netns, &self.device)?.saturating_sub(self.packets_before))
    }

    /// Packets that the device counted and the capture did not, although they were in its scope.
    /// While packets go by, that can be more than in the end.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn missed(&self) -> io::Result<u64> {
        let left_out = self
            .looked_away
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .before;
        Ok(self
            .on_device()?
            .saturating_sub(self.seen().total() + left_out))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its result is of use to nobody any more.
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    stop: AtomicBool,
}

struct Watcher {
    socket: Arc<Socket>,
    shared: Arc<Shared>,
    classifier: Classifier,
    /// When the IKE_SA_INIT request with this initiator's SPI went by.
    begun: BTreeMap<[u8; 8], Instant>,
}

impl Watcher {
    fn watch(&mut self) -> io::Result<()> {
        let mut frame = vec![0; 1 << 16];
        while !self.shared.stop.load(Ordering::Relaxed) {
            let mut ready = [PollFd::new(&*self.socket, PollFlags::IN)];
            if poll(&mut ready, Some(&STOP_WITHIN))? == 0 {
                continue;
            }
            loop {
                match (&*self.socket).read(&mut frame) {
                    Ok(length) => self.look_at(&frame[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn look_at(&mut self, frame: &[u8]) {
        let class = self.classifier.classify(frame);
        let negotiated = (class == Class::Ike)
            .then(|| self.negotiation(frame))
            .flatten();
        let mut seen = self
            .shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.first_negotiation = seen.first_negotiation.or(negotiated);
        seen.count(class);
    }

    /// How long a negotiation took, if this is its IKE_AUTH response (RFC 7296 section 1.2).
    fn negotiation(&mut self, frame: &[u8]) -> Option<Duration> {
        let message = ike_message(frame)?;
        let spi_i = *message.first_chunk()?;
        match (message.get(18)?, message.get(19)? & RESPONSE != 0) {
            (&IKE_SA_INIT, false) if self.begun.len() < NEGOTIATIONS => {
                self.begun.entry(spi_i).or_insert_with(Instant::now);
                None
            }
            (&IKE_AUTH, true) => Some(self.begun.get(&spi_i)?.elapsed()),
            _ => None,
        }
    }
}

/// How long a capture takes to notice that it shall end.
const STOP_WITHIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Negotiations of which the begin is remembered.
const NEGOTIATIONS: usize = 64;
/// Kernel memory for frames not yet read, in bytes; enough for a second of a gigabit.
const BUFFER: usize = 128 << 20;
const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;
/// The R flag, RFC 7296 section 3.1.
const RESPONSE: u8 = 0x20;
/// ETH_P_ALL of packet(7), in network byte order.
const EVERY_PROTOCOL: i32 = 0x0003_u16.to_be() as i32;

/// A packet socket is not bound to a device here, its filter is: binding takes a kind of address
/// that no safe interface has.
fn open(index: u32) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::PACKET,
        Type::RAW,
        Some(Protocol::from(EVERY_PROTOCOL)),
    )?;
    socket.set_nonblocking(true)?;
    // Unless CAP_NET_ADMIN is held in the initial namespace, the default size has to do.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    // What came from other devices before the filter stood goes unread.
    let mut scratch = [0; 1];
    while (&socket).read(&mut scratch).is_ok() {}
    socket.attach_filter(&filter(index, Scope::All))?;
    Ok(socket)
}

// Instructions of the classic BPF machine, bpf(4) and linux/filter.h.
const RETURN: u16 = 0x06;
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_AT_X: u16 = 0x48;
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_SET: u16 = 0x45;
/// SKF_AD_OFF + SKF_AD_IFINDEX: the index of the frame's device.
const DEVICE: u32 = 0xffff_f008;

/// Accepts all frames of the device, or all that are neither ESP nor from or to an IKE port.
fn filter(index: u32, scope: Scope) -> Vec<SockFilter> {
    let accept = || SockFilter::new(RETURN, 0, 0, u32::MAX);
    let reject = || SockFilter::new(RETURN, 0, 0, 0);
    let mut program = vec![
        SockFilter::new(LOAD_WORD, 0, 0, DEVICE),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, index),
        reject(),
    ];
    if scope == Scope::Unprotected {
        // Jumps count instructions from the next one; `accept` and `reject` end the program.
        program.extend([
            SockFilter::new(LOAD_HALF, 0, 0, 12),
            SockFilter::new(JUMP_IF_EQUAL, 0, 12, 0x0800),
            SockFilter::new(LOAD_BYTE, 0, 0, 14 + 9),
            SockFilter::new(JUMP_IF_EQUAL, 11, 0, 50),
            SockFilter::new(JUMP_IF_EQUAL, 0, 9, 17),
            SockFilter::new(LOAD_HALF, 0, 0, 14 + 6),
            SockFilter::new(JUMP_IF_SET, 7, 0, 0x1fff),
            SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 14),
            SockFilter::new(LOAD_HALF_AT_X, 0, 0, 14),
            SockFilter::new(JUMP_IF_EQUAL, 5, 0, 500),
            SockFilter::new(JUMP_IF_EQUAL, 4, 0, 4500),
            SockFilter::new(LOAD_HALF_AT_X, 0, 0, 14 + 2),
            SockFilter::new(JUMP_IF_EQUAL, 2, 0, 500),
            SockFilter::new(JUMP_IF_EQUAL, 1, 0, 4500),
            accept(),
            reject(),
        ]);
        return program;
    }
    program.push(accept());
    program
}

/// The IKE message (RFC 7296 section 3.1) in a frame that was classed as such.
fn ike_message(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(14..)?;
    let datagram = packet.get(usize::from(packet.first()? & 0x0f) * 4..)?;
    let payload = datagram.get(8..)?;
    let marked = datagram.get(2..4)? != 500_u16.to_be_bytes();
    payload.get(if marked { 4 } else { 0 }..)
}

/// Packets in and out by a device's own count.
fn interface_packets(netns: &Netns, device: &str) -> io::Result<u64> {
    let table = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
    packets_of(&table, device)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{device}: no counters")))
}

/// The second and the tenth column after the name are packets in and out, proc_net_dev(5).
fn packets_of(table: &str, device: &str) -> Option<u64> {
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))?;
    let columns: Vec<u64> = line
        .split_whitespace()
        .map_while(|n| n.parse().ok())
        .collect();
    Some(columns.get(1)? + columns.get(9)?)
}

fn count_kind(kinds: &mut BTreeMap<String, u64>, kind: String) {
    if kinds.len() < KINDS || kinds.contains_key(&kind) {
        *kinds.entry(kind).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::classify::CANARY;
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    /// Two hosts, and a capture of what goes between them.
    fn wire() -> Option<(Netns, Netns, Capture)> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: namespaces need root");
            return None;
        }
        let (a, b) = (Netns::anonymous().unwrap(), Netns::anonymous().unwrap());
        for netns in [&a, &b] {
            netns
                .sysctl("net/ipv6/conf/default/disable_ipv6", "1")
                .unwrap();
        }
        a.join(("wire", A, 24), &b, ("wire", B, 24)).unwrap();
        let protected = Protected {
            networks: vec![],
            tcp: vec![],
            udp: vec![8472],
        };
        let capture = Capture::start(&a, "wire", protected).unwrap();
        Some((a, b, capture))
    }

    fn send(from: &Netns, port: u16, payload: &[u8]) {
        let sent = from.run(|| UdpSocket::bind((A, port))?.send_to(payload, (B, port)));
        assert_eq!(sent.unwrap().unwrap(), payload.len());
    }

    fn wait_for(capture: &Capture, enough: impl Fn(&Seen) -> bool) -> Seen {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !enough(&capture.seen()) {
            assert!(Instant::now() < deadline, "{:?}", capture.seen());
            std::thread::yield_now();
        }
        capture.seen()
    }

    #[test]
    fn everything_on_the_device_is_counted_once_and_nothing_else() {
        let Some((a, b, capture)) = wire() else {
            return;
        };
        let port = |port| b.run(|| UdpSocket::bind((B, port)).unwrap()).unwrap();
        let receivers = [500, 4500, 8472].map(port);
        send(&a, 500, &[1; 28]);
        send(&a, 4500, &[1; 28]);
        send(&a, 8472, b"vxlan");
        send(&a, 500, CANARY);
        let seen = wait_for(&capture, |seen| seen.clear == 2 && seen.arp >= 2);
        assert_eq!((seen.ike, seen.esp_in_udp, seen.other), (1, 1, 0));
        assert_eq!(seen.clear_kinds["UDP 8472 to 8472"], 1);
        assert_eq!(seen.clear_kinds["a demo payload in IKE"], 1);
        assert_eq!(capture.missed().unwrap(), 0);
        assert_eq!(capture.on_device().unwrap(), seen.total());
        drop(receivers);
    }

    #[test]
    fn the_narrow_scope_sees_all_but_what_protects() {
        let Some((a, b, capture)) = wire() else {
            return;
        };
        let port = |port| b.run(|| UdpSocket::bind((B, port)).unwrap()).unwrap();
        let receivers = [500, 501, 4500, 8472].map(port);
        capture.set_scope(Scope::Unprotected).unwrap();
        send(&a, 500, &[1; 28]);
        send(&a, 4500, &[1; 28]);
        send(&a, 501, &[1; 28]);
        send(&a, 8472, b"vxlan");
        let seen = wait_for(&capture, |seen| seen.clear == 1);
        assert_eq!((seen.ike, seen.esp_in_udp, seen.other), (0, 0, 1));
        capture.set_scope(Scope::All).unwrap();
        send(&a, 500, &[1; 28]);
        assert_eq!(wait_for(&capture, |seen| seen.ike > 0).ike, 1);
        assert_eq!(capture.missed().unwrap(), 0);
        assert_eq!(capture.on_device().unwrap(), capture.seen().total() + 2);
        drop(receivers);
    }

    #[test]
    fn a_negotiation_is_timed_from_its_first_request() {
        let Some((a, b, capture)) = wire() else {
            return;
        };
        let _receiver = b.run(|| UdpSocket::bind((B, 500)).unwrap()).unwrap();
        let message = |spi: u8, exchange, flags| {
            let mut message = [0; 28];
            message[..8].fill(spi);
            (message[18], message[19]) = (exchange, flags);
            message
        };
        send(&a, 500, &message(1, IKE_SA_INIT, 0x08));
        send(&a, 500, &message(2, IKE_AUTH, RESPONSE));
        assert_eq!(
            wait_for(&capture, |seen| seen.ike == 2).first_negotiation,
            None
        );
        send(&a, 500, &message(1, IKE_AUTH, RESPONSE));
        wait_for(&capture, |seen| {
            seen.ike == 3 && seen.first_negotiation.is_some()
        });
    }

    #[test]
    fn device_counters_are_found_by_name() {
        let table =
            "Inter-|   Receive\n face |bytes packets\n  wire: 10 3 0 0 0 0 0 0 20 4 0 0 0 0 0 0\n";
        assert_eq!(packets_of(table, "wire"), Some(7));
        assert_eq!(packets_of(table, "wir"), None);
    }
}
