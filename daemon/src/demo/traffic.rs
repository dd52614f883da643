//! Real traffic between two namespaces: echo requests, a TCP service, datagrams. Every payload
//! contains the [`CANARY`].
//!
//! A socket stays in the namespace in which it was made, so the sockets are made there and the
//! rest is done by tasks of the caller's runtime.

use super::classify::CANARY;
use crate::host::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Sends an ICMP echo request (RFC 792) from one address to another, again after each `patience`
/// without a reply, and says how long the reply to the last one took.
///
/// # Errors
/// `TimedOut` if no reply came before `deadline`; otherwise what the system says.
pub async fn ping(
    netns: &Netns,
    from: Ipv4Addr,
    to: Ipv4Addr,
    patience: Duration,
    deadline: Instant,
) -> io::Result<Duration> {
    let pinger = Pinger::new(netns, from, to)?;
    for sequence in 0..=u16::MAX {
        let wait = patience.min(deadline.saturating_duration_since(Instant::now()));
        if wait.is_zero() {
            break;
        }
        match timeout(wait, pinger.once(sequence)).await {
            Ok(Ok(took)) => return Ok(took),
            // No route, no ARP reply, nobody there: as good as no reply.
            Ok(Err(error)) if is_unreachable(&error) => tokio::time::sleep(wait).await,
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
    let what = format!("no echo reply from {to} to {from}");
    Err(io::Error::new(io::ErrorKind::TimedOut, what))
}

/// One end of a row of echo requests.
#[derive(Debug)]
pub struct Pinger {
    /// A raw socket: tokio has no type for it, and reads and writes it as any datagram socket.
    socket: UdpSocket,
    to: SocketAddr,
    identifier: u16,
}

impl Pinger {
    /// A socket for echo requests from one address to another.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW; `AddrNotAvailable` if `from` is not in `netns`.
    pub fn new(netns: &Netns, from: Ipv4Addr, to: Ipv4Addr) -> io::Result<Self> {
        let socket = netns.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddrV4::new(from, 0).into())?;
            Ok::<_, io::Error>(socket)
        })??;
        let mut identifier = [0; 2];
        getrandom::fill(&mut identifier).map_err(io::Error::other)?;
        Ok(Self {
            socket: UdpSocket::from_std(std::net::UdpSocket::from(socket))?,
            to: SocketAddrV4::new(to, 0).into(),
            identifier: u16::from_ne_bytes(identifier),
        })
    }

    /// Sends one request and waits for its reply. The caller sets the limit of time.
    ///
    /// # Errors
    /// What the system says.
    pub async fn once(&self, sequence: u16) -> io::Result<Duration> {
        let request = echo(8, self.identifier, sequence);
        let expected = echo(0, self.identifier, sequence);
        let begin = Instant::now();
        self.socket.send_to(&request, self.to).await?;
        let mut packet = [0; 1500];
        loop {
            let length = self.socket.recv(&mut packet).await?;
            // Raw sockets see the IPv4 header, without options here.
            if packet[..length].get(20..) == Some(&expected) {
                return Ok(begin.elapsed());
            }
        }
    }
}

/// A TCP service in a namespace: it sends back what it reads, or swallows and counts it.
#[derive(Debug)]
pub struct Service {
    task: JoinHandle<()>,
}

impl Service {
    /// Listens, and serves any number of clients until the value is dropped.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`.
    pub fn start(netns: &Netns, address: SocketAddrV4) -> io::Result<Self> {
        let listener = netns.run(|| {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        })??;
        let listener = TcpListener::from_std(listener)?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that breaks off is the client's affair.
                tokio::spawn(async move { serve(stream).await.ok() });
            }
        });
        Ok(Self { task })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long a TCP connection took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversation {
    /// Until the connection stood.
    pub connect: Duration,
    /// Until what was sent had come back.
    pub echo: Duration,
}

/// Connects to a [`Service`], and has it send something back.
///
/// # Errors
/// `TimedOut` if it is not done within `limit`; otherwise what the system says.
pub async fn converse(
    netns: &Netns,
    from: Ipv4Addr,
    to: SocketAddrV4,
    limit: Duration,
) -> io::Result<Conversation> {
    within(limit, async {
        let begin = Instant::now();
        let mut stream = connect(netns, from, to).await?;
        let connect = begin.elapsed();
        let begin = Instant::now();
        stream.write_all(&[ECHO]).await?;
        stream.write_all(CANARY).await?;
        let mut reply = [0; CANARY.len()];
        stream.read_exact(&mut reply).await?;
        if reply != CANARY {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "another echo than was sent",
            ));
        }
        Ok(Conversation {
            connect,
            echo: begin.elapsed(),
        })
    })
    .await
}

/// Sends to a [`Service`] for `time` as fast as it goes; says how many bytes arrived, and in what
/// time.
///
/// # Errors
/// `TimedOut` if the service has not counted everything `grace` after the end; otherwise what
/// the system says.
pub async fn flood(
    netns: &Netns,
    from: Ipv4Addr,
    to: SocketAddrV4,
    time: Duration,
    grace: Duration,
) -> io::Result<(u64, Duration)> {
    within(time + grace, async {
        let mut stream = connect(netns, from, to).await?;
        let chunk = CANARY.repeat(CHUNK / CANARY.len());
        let begin = Instant::now();
        stream.write_all(&[SWALLOW]).await?;
        while begin.elapsed() < time {
            stream.write_all(&chunk).await?;
        }
        stream.shutdown().await?;
        let bytes = stream.read_u64().await?;
        Ok((bytes, begin.elapsed()))
    })
    .await
}

/// Sends a datagram to a port at which nobody need listen.
///
/// # Errors
/// What the system says; that the host or port cannot be reached is no error.
pub async fn datagram(netns: &Netns, from: Ipv4Addr, to: SocketAddrV4) -> io::Result<()> {
    let socket = netns.run(|| {
        let socket = std::net::UdpSocket::bind((from, 0))?;
        socket.set_nonblocking(true)?;
        Ok::<_, io::Error>(socket)
    })??;
    match UdpSocket::from_std(socket)?
        .send_to(CANARY, SocketAddr::V4(to))
        .await
    {
        Err(error) if !is_unreachable(&error) => Err(error),
        _ => Ok(()),
    }
}

/// What a client of a [`Service`] sends first.
const ECHO: u8 = b'e';
const SWALLOW: u8 = b's';
/// Bytes handed over at once in bulk.
const CHUNK: usize = 1 << 18;

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let echo = stream.read_u8().await? == ECHO;
    let mut count = 0;
    loop {
        let length = stream.read(&mut buffer).await?;
        count += length as u64;
        match (length, echo) {
            (0, true) => return Ok(()),
            (0, false) => return stream.write_u64(count).await,
            (_, true) => stream.write_all(&buffer[..length]).await?,
            (_, false) => {}
        }
    }
}

async fn connect(netns: &Netns, from: Ipv4Addr, to: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = netns.run(TcpSocket::new_v4)??;
    socket.bind(SocketAddrV4::new(from, 0).into())?;
    let stream = socket.connect(to.into()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("nothing for {limit:?}"),
        ))
    })
}

/// What a host says of a packet that it cannot send, or whose error came back.
fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, HostUnreachable, InvalidInput, NetworkUnreachable, PermissionDenied,
    };
    // A blackhole route answers with EINVAL, a packet filter's drop with EPERM.
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | InvalidInput | NetworkUnreachable | PermissionDenied
    )
}

/// An echo request (type 8) or reply (type 0) with the canary as its data.
fn echo(kind: u8, identifier: u16, sequence: u16) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(CANARY);
    let checksum = internet_checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Both halves were folded into the low one.
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const LIMIT: Duration = Duration::from_secs(5);

    fn hosts() -> Option<(Netns, Netns)> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: namespaces need root");
            return None;
        }
        let (a, b) = (Netns::anonymous().unwrap(), Netns::anonymous().unwrap());
        a.join(("wire", IpAddr::V4(A), 24), &b, ("wire", IpAddr::V4(B), 24))
            .unwrap();
        Some((a, b))
    }

    #[test]
    fn checksums_are_those_of_rfc_1071() {
        // The example of its section 3, and an odd length.
        assert_eq!(
            internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        assert_eq!(internet_checksum(&[0xff, 0xff, 0x01]), !0x0100);
    }

    #[tokio::test]
    async fn echo_requests_are_answered_or_time_out() {
        let Some((a, _b)) = hosts() else { return };
        let deadline = Instant::now() + LIMIT;
        ping(&a, A, B, Duration::from_secs(1), deadline)
            .await
            .unwrap();
        let nobody = Ipv4Addr::new(192, 0, 2, 3);
        let deadline = Instant::now() + Duration::from_millis(60);
        let error = ping(&a, A, nobody, Duration::from_millis(20), deadline)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_service_echoes_and_counts() {
        let Some((a, b)) = hosts() else { return };
        let service = SocketAddrV4::new(B, 27017);
        let refused = converse(&a, A, service, LIMIT).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _service = Service::start(&b, service).unwrap();
        converse(&a, A, service, LIMIT).await.unwrap();
        let time = Duration::from_millis(20);
        let (bytes, took) = flood(&a, A, service, time, LIMIT).await.unwrap();
        assert!(bytes > 0 && took >= time, "{bytes} in {took:?}");
    }

    #[tokio::test]
    async fn datagrams_go_out_whether_or_not_anyone_listens() {
        let Some((a, b)) = hosts() else { return };
        let receiver = b
            .run(|| std::net::UdpSocket::bind((B, 9999)))
            .unwrap()
            .unwrap();
        receiver.set_read_timeout(Some(LIMIT)).unwrap();
        datagram(&a, A, SocketAddrV4::new(B, 9999)).await.unwrap();
        let mut buffer = [0; 100];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], CANARY);
        datagram(&a, A, SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 9))
            .await
            .unwrap();
    }
}
