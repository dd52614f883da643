//! Port 4500: the kernel takes ESP in UDP off its sockets, and leaves us the rest, which is IKE.

use std::cell::Cell;
use std::os::fd::OwnedFd;

use obol_ike::config::Path;
use tokio::io::unix::AsyncFd;

use crate::dataplane::{DataPlaneError, DataPlaneEvent};
use crate::ports::{Encapsulation, encapsulate};
use crate::sys::{msg, watch};

/// Longest UDP payload in octets.
const DATAGRAM_MAX: usize = 65_535;

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
            encapsulate(socket, true)?;
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

    /// Goes over to other sockets, which the kernel takes ESP off. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel cannot; then all is as before.
    pub(super) fn go_over(&mut self, ports: Encapsulation) -> Result<(), DataPlaneError> {
        let short = self.short.clone();
        *self = Self {
            short,
            ..Self::new(ports)?
        };
        Ok(())
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
