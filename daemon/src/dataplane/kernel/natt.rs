//! Port 4500: the kernel takes ESP in UDP off its sockets, and leaves us the rest, which is IKE.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};

use obol_ike::config::Path;
use tokio::io::unix::AsyncFd;

use crate::dataplane::{DataPlaneError, DataPlaneEvent};
use crate::ports::Encapsulation;
use crate::sys::{msg, sockopt, watch};

/// Longest UDP payload in octets.
const DATAGRAM_MAX: usize = 65_535;

/// `UDP_ENCAP` and its value for RFC 3948.
const UDP_ENCAP: i32 = 100;
const ESP_IN_UDP: i32 = 2;

/// The sockets.
pub(super) struct Natt {
    v4: AsyncFd<OwnedFd>,
    v6: Option<AsyncFd<OwnedFd>>,
    port: u16,
    short: Cell<u64>,
}

impl Natt {
    /// Has the kernel take ESP off the sockets. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel cannot.
    pub(super) fn new(ports: Encapsulation) -> Result<Self, DataPlaneError> {
        let failed = |source| {
            DataPlaneError::system("the kernel does not take ESP in UDP from port 4500", source)
        };
        let watched = |socket: &socket2::Socket| {
            encapsulate(socket)?;
            watch::watch(socket.try_clone()?.into())
        };
        Ok(Self {
            v4: watched(&ports.v4).map_err(failed)?,
            v6: ports
                .v6
                .as_deref()
                .map(watched)
                .transpose()
                .map_err(failed)?,
            port: ports.port,
            short: Cell::new(0),
        })
    }

    /// The next IKE message; cancel safe.
    pub(super) async fn next(&self) -> DataPlaneEvent {
        loop {
            let ready = match &self.v6 {
                Some(v6) => tokio::select! {
                    ready = self.v4.readable() => ready,
                    ready = v6.readable() => ready,
                },
                None => self.v4.readable().await,
            };
            let Ok(mut guard) = ready else {
                continue;
            };
            let mut buffer = vec![0; DATAGRAM_MAX];
            let received = match msg::receive(guard.get_inner(), &mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    guard.clear_ready();
                    continue;
                }
                // One datagram's: an ICMP answer to what was sent.
                Err(_) => continue,
            };
            // The non-ESP marker, RFC 3948 section 2.2. Keepalives have none.
            let message = buffer[..received.len].strip_prefix(&[0; 4]);
            match message.zip(received.local) {
                Some((message, local)) => {
                    let path = Path {
                        local: (local, self.port).into(),
                        remote: received.source,
                    };
                    let datagram = message.to_vec();
                    return DataPlaneEvent::Ike { path, datagram };
                }
                None => self.short.set(self.short.get() + 1),
            }
        }
    }

    /// What was neither ESP nor IKE.
    pub(super) fn drops(&self) -> [(&'static str, u64); 1] {
        [("short-datagram", self.short.get())]
    }
}

fn encapsulate(socket: impl AsFd) -> std::io::Result<()> {
    let socket = socket.as_fd();
    // The kernel is to open packets one by one.
    sockopt::set(socket, libc::SOL_UDP, libc::UDP_GRO, 0)?;
    sockopt::set(socket, libc::SOL_UDP, UDP_ENCAP, ESP_IN_UDP)
}
