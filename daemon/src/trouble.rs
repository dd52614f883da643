//! ICMP errors about what we send: the network says that a peer is not reached, or the peer's host
//! that nobody is at home.
//!
//! They are read from raw ICMP sockets. The error queue of the sockets that we send with
//! (IP_RECVERR) would give the same, but then the system also fails the next packet on that
//! socket, to whomever that goes: anybody who forges such errors could drop packets of all peers.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tracing::debug;

use crate::host::HostSettings;
use crate::sys::sockopt;
use crate::sys::watch::watch;

/// Errors are told of one peer this often at most, and of so many peers.
const PAUSE: Duration = Duration::from_secs(1);
const PEERS: usize = 1024;
/// Octets of an error that are read: two IP headers with options, and the start of UDP.
const ERROR_MAX: usize = 256;

/// The level and name of the option by which a raw ICMP socket hears some types only; a set bit
/// is a type that is not heard (linux/icmp.h).
const SOL_RAW: i32 = 255;
const ICMP_FILTER: i32 = 1;
const UNREACHABLE: u8 = 3;
const EXCEEDED: u8 = 11;
/// "Fragmentation needed" is about a length and not about the peer.
const TOO_LONG: u8 = 4;
const V6_UNREACHABLE: u8 = 1;
const V6_EXCEEDED: u8 = 3;

const UDP: u8 = 17;
const ESP: u8 = 50;

/// What is heard of such errors.
pub(crate) struct Troubles {
    peers: mpsc::Receiver<IpAddr>,
    count: Arc<AtomicU64>,
}

impl Troubles {
    /// Listens from here on. Must be called within a tokio runtime. Without the right to it,
    /// nothing is ever heard.
    pub(crate) fn listen(settings: &HostSettings) -> Self {
        let (tell, peers) = mpsc::channel(PEERS);
        let count = Arc::new(AtomicU64::new(0));
        let ports = [settings.port, settings.natt_port];
        for v6 in [false, true] {
            match open(v6) {
                Ok(socket) => {
                    tokio::spawn(hear(socket, v6, ports, tell.clone(), Arc::clone(&count)));
                }
                Err(error) => debug!(%error, v6, "ICMP errors are not heard"),
            }
        }
        Self { peers, count }
    }

    /// The next peer that is said not to be reached; cancel safe.
    pub(crate) async fn next(&mut self) -> Option<IpAddr> {
        self.peers.recv().await
    }

    /// Errors so far about what looks like packets of ours.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

fn open(v6: bool) -> io::Result<AsyncFd<OwnedFd>> {
    let (domain, protocol) = if v6 {
        (Domain::IPV6, Protocol::ICMPV6)
    } else {
        (Domain::IPV4, Protocol::ICMPV4)
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if !v6 {
        let heard: u32 = 1 << UNREACHABLE | 1 << EXCEEDED;
        sockopt::set(&socket, SOL_RAW, ICMP_FILTER, (!heard).cast_signed())?;
    }
    watch(socket.into())
}

async fn hear(
    socket: AsyncFd<OwnedFd>,
    v6: bool,
    ports: [u16; 2],
    tell: mpsc::Sender<IpAddr>,
    count: Arc<AtomicU64>,
) {
    let mut told = HashSet::new();
    let mut since = tokio::time::Instant::now();
    let mut buffer = [0; ERROR_MAX];
    while let Ok(mut ready) = socket.readable().await {
        let Ok(read) = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?)) else {
            continue;
        };
        let len = read.unwrap_or(0).min(buffer.len());
        let Some(peer) = about(&buffer[..len], v6, ports) else {
            continue;
        };
        count.fetch_add(1, Ordering::Relaxed);
        if since.elapsed() >= PAUSE {
            told.clear();
            since = tokio::time::Instant::now();
        }
        // What does not fit is told when the next one comes.
        if told.len() < PEERS && told.insert(peer) {
            let _ = tell.try_send(peer);
        }
    }
}

/// Whom a packet of ours did not reach, if that is what the octets from a raw socket say: over
/// IPv4 with the IP header, over IPv6 without.
fn about(octets: &[u8], v6: bool, ports: [u16; 2]) -> Option<IpAddr> {
    if v6 {
        return about_v6(octets, ports);
    }
    let (header, icmp) = split_v4(octets)?;
    let [kind, code, ..] = *icmp else {
        return None;
    };
    let lost = kind == UNREACHABLE && code != TOO_LONG || kind == EXCEEDED && code == 0;
    let (inner, content) = split_v4(icmp.get(8..)?)?;
    // It was sent to whoever it says has sent the packet.
    let ours = header.get(16..20) == inner.get(12..16);
    let protocol = *inner.get(9)?;
    let to: [u8; 4] = inner.get(16..20)?.try_into().ok()?;
    (lost && ours && is_ours(protocol, content, ports)).then(|| Ipv4Addr::from(to).into())
}

fn about_v6(icmp: &[u8], ports: [u16; 2]) -> Option<IpAddr> {
    let [kind, code, ..] = *icmp else {
        return None;
    };
    let lost = kind == V6_UNREACHABLE || kind == V6_EXCEEDED && code == 0;
    let (inner, content) = icmp.get(8..)?.split_at_checked(40)?;
    let to: [u8; 16] = inner.get(24..40)?.try_into().ok()?;
    let sound = inner.first()? >> 4 == 6 && is_ours(*inner.get(6)?, content, ports);
    (lost && sound).then(|| Ipv6Addr::from(to).into())
}

/// An IPv4 header with its options, and what follows.
fn split_v4(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = *octets.first()?;
    let len = usize::from(first & 0x0f) * 4;
    let sound = first >> 4 == 4 && len >= 20;
    octets.split_at_checked(len).filter(|_| sound)
}

/// Whether that is IKE or ESP as we send it.
fn is_ours(protocol: u8, content: &[u8], ports: [u16; 2]) -> bool {
    let port = content.first_chunk().map(|port| u16::from_be_bytes(*port));
    protocol == ESP || protocol == UDP && port.is_some_and(|port| ports.contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netns::Netns;

    const PORTS: [u16; 2] = [500, 4500];

    /// An error about a packet from 10.0.0.1 to 10.0.0.2, as a raw socket gives it.
    fn error(kind: u8, code: u8, protocol: u8, port: u16) -> Vec<u8> {
        let header = |protocol: u8, from: [u8; 4], to: [u8; 4]| {
            let mut header = vec![0; 20];
            header[0] = 0x45;
            header[9] = protocol;
            header[12..16].copy_from_slice(&from);
            header[16..20].copy_from_slice(&to);
            header
        };
        let [high, low] = port.to_be_bytes();
        [
            &header(1, [10, 0, 0, 9], [10, 0, 0, 1])[..],
            &[kind, code, 0, 0, 0, 0, 0, 0],
            &header(protocol, [10, 0, 0, 1], [10, 0, 0, 2]),
            &[high, low, 1, 244, 0, 8, 0, 0],
        ]
        .concat()
    }

    #[test]
    fn which_errors_are_about_us() {
        let peer = Some(IpAddr::from([10, 0, 0, 2]));
        for (kind, code, protocol, port, expected) in [
            (3, 3, UDP, 500, peer),
            (3, 1, UDP, 4500, peer),
            (3, 2, ESP, 77, peer),
            (11, 0, UDP, 500, peer),
            (3, 4, UDP, 500, None),
            (11, 1, UDP, 500, None),
            (5, 0, UDP, 500, None),
            (8, 0, UDP, 500, None),
            (3, 3, UDP, 53, None),
            (3, 3, 6, 500, None),
        ] {
            let octets = error(kind, code, protocol, port);
            let found = about(&octets, false, PORTS);
            assert_eq!(found, expected, "{kind} {code} {protocol} {port}");
            // Over IPv6 these octets mean something else; nothing is read past their end.
            for len in 0..octets.len() {
                let cut = about(&octets[..len], false, PORTS);
                assert!(
                    cut.is_none() || cut == expected && len >= 48,
                    "cut to {len}"
                );
                let _ = about(&octets[..len], true, PORTS);
            }
        }
        let mut other = error(3, 3, UDP, 500);
        other[16] = 11;
        assert_eq!(about(&other, false, PORTS), None, "sent to somebody else");
        for first in 0..=255 {
            let mut odd = error(3, 3, UDP, 500);
            odd[0] = first;
            let _ = about(&odd, false, PORTS);
            odd[0] = 0x45;
            odd[28] = first;
            let _ = about(&odd, false, PORTS);
        }
    }

    #[test]
    fn the_same_over_ipv6() {
        let peer: Ipv6Addr = "fd00::2".parse().unwrap();
        let mut octets = vec![1, 4, 0, 0, 0, 0, 0, 0];
        octets.extend([0x60, 0, 0, 0, 0, 8, UDP, 64]);
        octets.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        octets.extend(peer.octets());
        octets.extend([1, 244, 1, 244, 0, 8, 0, 0]);
        assert_eq!(about(&octets, true, PORTS), Some(peer.into()));
        for len in 0..octets.len() - 6 {
            assert_eq!(about(&octets[..len], true, PORTS), None, "cut to {len}");
        }
        octets[0] = 2;
        assert_eq!(about(&octets, true, PORTS), None, "too long for a link");
    }

    #[test]
    fn a_closed_port_is_heard_of() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: raw sockets need root");
            return;
        }
        let netns = Netns::anonymous().unwrap();
        let heard = netns.block_on(async || {
            let mut troubles = Troubles::listen(&HostSettings::for_tests());
            for from in ["127.0.0.3:500", "[::1]:500"] {
                let socket = std::net::UdpSocket::bind(from).unwrap();
                let to: std::net::SocketAddr = match socket.local_addr().unwrap() {
                    from if from.is_ipv4() => "127.0.0.4:500".parse().unwrap(),
                    _ => "[::1]:4500".parse().unwrap(),
                };
                for _ in 0..100 {
                    // The error of the datagram before is the result of this one.
                    let _ = socket.send_to(b"is anybody there", to);
                }
                let next = tokio::time::timeout(Duration::from_secs(5), troubles.next());
                assert_eq!(next.await.unwrap(), Some(to.ip()));
            }
            // Of many errors about one peer, one is told.
            assert!(troubles.peers.try_recv().is_err());
            troubles.count()
        });
        assert!(heard.unwrap() > 2);
    }
}
