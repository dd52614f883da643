//! The UDP ports of IKE: 500, and 4500, which IKE shares with ESP (RFC 3948).
//!
//! Port 500 is read here; port 4500 is read by the data plane, which hands IKE messages up.
//! Both are sent from here. Every datagram leaves from the address that its path names, and
//! arrives with the address that it was sent to, so a host with several addresses tells the
//! truth about its own.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use obol_ike::config::Path;
use obol_ike::event::Transmit;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::dataplane::DataPlaneError;
use crate::host::HostSettings;
use crate::sys::{msg, sockopt, steer};

mod clear;
mod group;

pub(crate) use clear::RawIp;
pub(crate) use group::encapsulate;

//= rfc7296 2-1
/// Longest UDP payload in octets, and so the longest IKE message.
const DATAGRAM_MAX: usize = 65_535;

/// Receive buffer asked for, in octets: 4 ms of 10 Gbit/s. The system may grant less.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Send buffer asked for, in octets: some rows of ESP packets on their way to the device. What
/// does not fit waits in the TUN device.
const SEND_BUFFER: usize = 2 << 20;

/// The non-ESP marker, RFC 3948 section 2.2.
const MARKER: [u8; 4] = [0; 4];

/// IP protocol number of ESP.
const ESP: i32 = 50;

/// The sockets of IKE. The IPv6 ones are missing on a host without IPv6.
pub(crate) struct Ports {
    ike_v4: UdpSocket,
    ike_v6: Option<UdpSocket>,
    natt: Encapsulation,
    ike_port: u16,
    natt_port: u16,
}

/// The sockets of port 4500, shared with the data plane, or a worker of it.
#[derive(Clone, Debug)]
pub(crate) struct Encapsulation {
    /// IPv4.
    pub(crate) v4: Arc<Socket>,
    /// IPv6.
    pub(crate) v6: Option<Arc<Socket>>,
    /// The port at our end.
    pub(crate) port: u16,
}

/// A worker's raw sockets of ESP without UDP.
#[derive(Clone, Debug)]
pub(crate) struct RawEsp {
    /// IPv4: received datagrams start with the IP header.
    pub(crate) v4: Arc<Socket>,
    /// IPv6: received datagrams start with the SPI.
    pub(crate) v6: Option<Arc<Socket>>,
}

impl Ports {
    /// Opens the ports. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A port is taken, or the right to it is missing.
    pub(crate) fn open(settings: &HostSettings) -> Result<Self, DataPlaneError> {
        let watch = |socket: Socket| {
            UdpSocket::from_std(socket.into())
                .map_err(|source| DataPlaneError::system("cannot wait for the IKE port", source))
        };
        let (v4, v6) = pair(|domain| udp(domain, settings.port, settings.fwmark, Role::First))?;
        let natt = pair(|domain| udp(domain, settings.natt_port, settings.fwmark, Role::First))?;
        for socket in [Some(&natt.0), natt.1.as_ref()].into_iter().flatten() {
            if !msg::receive_rows(socket) {
                tracing::debug!("this system hands datagrams over one by one");
            }
        }
        Ok(Self {
            ike_v4: watch(v4)?,
            ike_v6: v6.map(watch).transpose()?,
            natt: Encapsulation {
                v4: Arc::new(natt.0),
                v6: natt.1.map(Arc::new),
                port: settings.natt_port,
            },
            ike_port: settings.port,
            natt_port: settings.natt_port,
        })
    }

    /// The sockets of port 4500.
    pub(crate) fn encapsulation(&self) -> Encapsulation {
        self.natt.clone()
    }

    /// The next datagram on port 500; cancel safe.
    pub(crate) async fn recv(&self) -> (Path, Vec<u8>) {
        loop {
            let socket = match &self.ike_v6 {
                Some(v6) => tokio::select! {
                    ready = self.ike_v4.readable() => ready.map(|()| &self.ike_v4),
                    ready = v6.readable() => ready.map(|()| v6),
                },
                None => self.ike_v4.readable().await.map(|()| &self.ike_v4),
            };
            // An error here is one datagram's: an ICMP answer, or a wakeup for a datagram whose
            // checksum turned out wrong. After `WouldBlock` the next wait is a real one.
            let mut buffer = vec![0; DATAGRAM_MAX];
            let received = socket.and_then(|socket| {
                socket.try_io(Interest::READABLE, || msg::receive(socket, &mut buffer))
            });
            let Ok(received) = received else {
                continue;
            };
            let any = unspecified(received.source);
            let path = Path {
                local: SocketAddr::new(received.local.unwrap_or(any), self.ike_port),
                remote: received.source,
            };
            return (path, buffer[..received.len].to_vec());
        }
    }

    //= rfc7296 2-2 2.11-2
    //= security S-33
    /// Sends a datagram: from port 500 as it is, from port 4500 with the non-ESP marker
    /// (unless it is a NAT keepalive, RFC 3948 section 2.3).
    ///
    /// # Errors
    /// What the system says; the datagram is lost.
    pub(crate) fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let path = transmit.path;
        let v4 = path.remote.is_ipv4();
        let missing = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        let datagram = IoSlice::new(&transmit.datagram);
        let header = msg::Header {
            to: path.remote,
            from: Some(path.local.ip()).filter(|ip| !ip.is_unspecified()),
            tos: 0,
            ttl: None,
            segment: None,
        };
        if path.local.port() != self.natt_port {
            let v6 = self.ike_v6.as_ref();
            let socket = if v4 { Some(&self.ike_v4) } else { v6 };
            return msg::send(socket.ok_or_else(missing)?, &[datagram], &header);
        }
        let socket = self.natt.by_family(v4).ok_or_else(missing)?;
        if *transmit.datagram == [0xff] {
            return msg::send(socket, &[datagram], &header);
        }
        msg::send(socket, &[IoSlice::new(&MARKER), datagram], &header)
    }
}

impl Encapsulation {
    /// The socket of a family.
    pub(crate) fn by_family(&self, v4: bool) -> Option<&Arc<Socket>> {
        if v4 { Some(&self.v4) } else { self.v6.as_ref() }
    }
}

impl RawEsp {
    //= rfc4303 2-1
    /// Opens the sockets for each of so many workers.
    ///
    /// # Errors
    /// `EPERM`: CAP_NET_RAW is missing.
    pub(crate) fn open(
        settings: &HostSettings,
        workers: usize,
    ) -> Result<Vec<Self>, DataPlaneError> {
        let (v4, v6) = pair(|domain| {
            (0..workers)
                .map(|own| raw(domain, settings.fwmark, own, workers).map(Arc::new))
                .collect::<io::Result<Vec<_>>>()
                .map_err(|source| DataPlaneError::system("cannot open a raw ESP socket", source))
        })?;
        Ok(by_worker(v4, v6).map(|(v4, v6)| Self { v4, v6 }).collect())
    }

    /// The socket of a family.
    pub(crate) fn by_family(&self, v4: bool) -> Option<&Arc<Socket>> {
        if v4 { Some(&self.v4) } else { self.v6.as_ref() }
    }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

/// What each worker gets of the sockets of both families.
fn by_worker(
    v4: Vec<Arc<Socket>>,
    v6: Option<Vec<Arc<Socket>>>,
) -> impl Iterator<Item = (Arc<Socket>, Option<Arc<Socket>>)> {
    let mut v6 = v6.into_iter().flatten();
    v4.into_iter().map(move |v4| (v4, v6.next()))
}

/// The IPv4 socket or sockets and, unless this host has no IPv6, the IPv6 ones.
fn pair<T>(
    open: impl Fn(Domain) -> Result<T, DataPlaneError>,
) -> Result<(T, Option<T>), DataPlaneError> {
    let v4 = open(Domain::IPV4)?;
    match open(Domain::IPV6) {
        Ok(v6) => Ok((v4, Some(v6))),
        Err(error) if lacks_family(&error) => Ok((v4, None)),
        Err(error) => Err(error),
    }
}

fn lacks_family(error: &DataPlaneError) -> bool {
    matches!(
        error.number(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// Which socket of its port one is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Role {
    /// The first, perhaps the only one.
    First,
    /// One more.
    Joins,
    /// One more, off which the kernel takes ESP.
    JoinsForKernel,
}

fn udp(domain: Domain, port: u16, fwmark: u32, role: Role) -> Result<Socket, DataPlaneError> {
    let open = || {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        prepare(&socket, domain, fwmark)?;
        if role != Role::First {
            socket.set_reuse_port(true)?;
        }
        if role == Role::JoinsForKernel {
            encapsulate(&socket, true)?;
        }
        let any = if domain == Domain::IPV4 {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
        };
        socket.bind(&any.into())?;
        Ok(socket)
    };
    open().map_err(|source: io::Error| {
        let what = match source.kind() {
            io::ErrorKind::AddrInUse => {
                let owner = crate::host::port_owner(port);
                let remedies = [
                    ("pluto ", crate::pluto::REMEDY),
                    ("racoon ", crate::racoon::REMEDY),
                ];
                let remedy = remedies.iter().find(|(name, _)| owner.starts_with(name));
                let remedy = remedy.map_or_else(String::new, |(_, remedy)| format!(", {remedy}"));
                format!("UDP port {port} is taken by {owner}{remedy}")
            }
            _ => format!("cannot open UDP port {port}"),
        };
        DataPlaneError::system(what, source)
    })
}

fn raw(domain: Domain, fwmark: u32, own: usize, workers: usize) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(ESP)))?;
    if workers > 1 {
        steer::take_only(&socket, domain == Domain::IPV4, (own, workers), false)?;
    }
    prepare(&socket, domain, fwmark)?;
    if domain == Domain::IPV6 {
        msg::note_errors(&socket)?;
    }
    Ok(socket)
}

//= security S-49
fn prepare(socket: &Socket, domain: Domain, fwmark: u32) -> io::Result<()> {
    let v6 = domain == Domain::IPV6;
    socket.set_nonblocking(true)?;
    // Marked packets pass our own rules and guard: see `host`.
    socket.set_mark(fwmark)?;
    if v6 {
        if socket.r#type()? == Type::DGRAM {
            socket.set_only_v6(true)?;
        }
        let off = libc::IPV6_PMTUDISC_DONT;
        sockopt::set(
            socket.as_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            off,
        )?;
    } else {
        // A sealed packet that is too long for the path is fragmented on it: the packet inside
        // was as long as we said it may be.
        let off = libc::IP_PMTUDISC_DONT;
        sockopt::set(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, off)?;
    }
    msg::announce(socket.as_fd(), v6)?;
    // With CAP_NET_ADMIN beyond what the system allows everyone; else as much as that.
    let size = RECEIVE_BUFFER as i32;
    let forced = sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size);
    if let Err(error) = forced.or_else(|_| socket.set_recv_buffer_size(RECEIVE_BUFFER)) {
        tracing::warn!(%error, "the receive buffer stays small");
    }
    let size = SEND_BUFFER as i32;
    let forced = sockopt::set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size);
    if let Err(error) = forced.or_else(|_| socket.set_send_buffer_size(SEND_BUFFER)) {
        tracing::warn!(%error, "the send buffer stays small");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netns::Netns;

    fn skipped() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            println!("skipped: marks and low ports need root");
        }
        !root
    }

    fn transmit(local: &str, remote: SocketAddr, datagram: &[u8]) -> Transmit {
        Transmit {
            path: Path {
                local: local.parse().unwrap(),
                remote,
            },
            datagram: datagram.to_vec().into(),
        }
    }

    //= test rfc7296 2.11-2
    #[test]
    fn datagrams_leave_from_the_address_of_their_path_and_say_where_they_arrived() {
        if skipped() {
            return;
        }
        let netns = Netns::anonymous().unwrap();
        let exchange = async || {
            let ports = Ports::open(&HostSettings::for_tests()).unwrap();
            let _shared = ports.share(&HostSettings::for_tests(), 3, false).unwrap();
            let peer = std::net::UdpSocket::bind("127.0.0.9:0").unwrap();
            let to = peer.local_addr().unwrap();
            let mut buffer = [0; 64];
            for (local, octets, on_the_wire) in [
                ("127.0.0.2:500", &b"from 500"[..], &b"from 500"[..]),
                ("127.0.0.3:4500", b"from 4500", b"\0\0\0\0from 4500"),
                ("127.0.0.3:4500", b"\xff", b"\xff"),
            ] {
                ports.send(&transmit(local, to, octets)).unwrap();
                let (len, from) = peer.recv_from(&mut buffer).unwrap();
                assert_eq!(
                    (&buffer[..len], from),
                    (on_the_wire, local.parse().unwrap())
                );
            }
            peer.send_to(b"to 500", "127.0.0.4:500").unwrap();
            let (path, datagram) = ports.recv().await;
            assert_eq!(datagram, b"to 500");
            assert_eq!(path.local, "127.0.0.4:500".parse().unwrap());
            assert_eq!(path.remote, to);

            let peer = std::net::UdpSocket::bind("[::1]:0").unwrap();
            peer.send_to(b"over IPv6", "[::1]:500").unwrap();
            let (path, datagram) = ports.recv().await;
            assert_eq!(datagram, b"over IPv6");
            assert_eq!(path.local, "[::1]:500".parse().unwrap());
        };
        netns.block_on(exchange).unwrap();
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_its_owner() {
        if skipped() {
            return;
        }
        let netns = Netns::anonymous().unwrap();
        let open = async || {
            let _other = std::net::UdpSocket::bind("0.0.0.0:4500").unwrap();
            Ports::open(&HostSettings::for_tests())
                .map(|_| ())
                .unwrap_err()
        };
        let error = netns.block_on(open).unwrap();
        let owner = format!("(pid {})", std::process::id());
        let text = error.to_string();
        assert!(
            text.contains("port 4500 is taken by") && text.contains(&owner),
            "{text}"
        );
    }

    #[test]
    fn a_port_that_workers_share_is_shared_with_nobody_else() {
        if skipped() {
            return;
        }
        let netns = Netns::anonymous().unwrap();
        let open = async || {
            let ports = Ports::open(&HostSettings::for_tests()).unwrap();
            let _shared = ports.share(&HostSettings::for_tests(), 2, false).unwrap();
            let second = HostSettings {
                port: 1500,
                ..HostSettings::for_tests()
            };
            Ports::open(&second).map(|_| ()).unwrap_err()
        };
        let error = netns.block_on(open).unwrap();
        assert!(error.to_string().contains("port 4500 is taken"), "{error}");
    }

    #[test]
    fn each_worker_gets_its_spis_and_the_first_all_else() {
        if skipped() {
            return;
        }
        let netns = Netns::anonymous().unwrap();
        let receive = async || {
            let workers = 3;
            let settings = HostSettings::for_tests();
            let ports = Ports::open(&settings).unwrap();
            let raw = RawEsp::open(&settings, workers).unwrap();
            let udp = ports.share(&settings, workers, false).unwrap();
            let sender = std::net::UdpSocket::bind("127.0.0.9:0").unwrap();
            let bare = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(ESP))).unwrap();
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into();
            let mut expected = vec![Vec::new(); workers];
            for spi in 0x100_u32..0x200 {
                let worker = steer::worker_of(spi, workers);
                let octets = [&spi.to_be_bytes()[..], b"rest"].concat();
                sender.send_to(&octets, "127.0.0.1:4500").unwrap();
                bare.send_to(&octets, &to).unwrap();
                expected[worker].push(octets);
            }
            for other in [&b"\xff"[..], b"\0\0\0\0IKE"] {
                sender.send_to(other, "127.0.0.1:4500").unwrap();
                expected[0].push(other.to_vec());
            }
            let mut buffer = [0; 64];
            for (worker, mut expected) in expected.into_iter().enumerate() {
                let mut all = |socket: &Socket, skip: usize| {
                    let mut got = Vec::new();
                    while let Ok(received) = msg::receive(socket, &mut buffer) {
                        got.push(buffer[skip..received.len].to_vec());
                    }
                    got
                };
                assert_eq!(all(&udp[worker].v4, 0), expected);
                expected.retain(|octets| octets.ends_with(b"rest"));
                // Also what `bare` sent to itself comes to it, which is nobody's matter.
                assert_eq!(all(&raw[worker].v4, 20), expected);
            }
        };
        netns.block_on(receive).unwrap();
    }
}
