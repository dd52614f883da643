//! Raw sockets for IP packets that are whole: what leaves in clear, since its policy lets it.

use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::group::bypass;
use super::pair;
use crate::dataplane::DataPlaneError;
use crate::host::HostSettings;

/// `IPPROTO_RAW`: packets come with their IP header, and none are received.
const RAW: i32 = 255;

/// The sockets. What they send has the mark of our own packets: rules do not lead it into the TUN, and
/// the guard lets it pass.
#[derive(Clone, Debug)]
pub(crate) struct RawIp {
    v4: Arc<Socket>,
    v6: Option<Arc<Socket>>,
}

impl RawIp {
    /// Opens them.
    ///
    /// # Errors
    /// `EPERM`: CAP_NET_RAW is missing.
    pub(crate) fn open(settings: &HostSettings) -> Result<Self, DataPlaneError> {
        let (v4, v6) = pair(|domain| {
            open(domain, settings.fwmark)
                .map(Arc::new)
                .map_err(|source| DataPlaneError::system("cannot open a raw socket", source))
        })?;
        Ok(Self { v4, v6 })
    }

    /// Lets what they send pass policies of the kernel.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn bypass_policies(&self) -> Result<(), DataPlaneError> {
        bypass(&*self.v4, true)?;
        self.v6.as_ref().map_or(Ok(()), |v6| bypass(&**v6, false))
    }

    /// The socket for packets to an address.
    pub(crate) fn to(&self, destination: SocketAddr) -> Option<&Socket> {
        match destination.is_ipv4() {
            true => Some(&self.v4),
            false => self.v6.as_deref(),
        }
    }
}

fn open(domain: Domain, fwmark: u32) -> std::io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
    socket.set_nonblocking(true)?;
    socket.set_mark(fwmark)?;
    if domain == Domain::IPV4 {
        socket.set_broadcast(true)?;
    }
    Ok(socket)
}
