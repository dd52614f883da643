//! Our own addresses, and which of them the system would use towards a peer.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use socket2::{Domain, Socket, Type};

use super::netlink::Netlink;
use crate::dataplane::DataPlaneError;

/// Every address of this host, loopback included.
///
/// # Errors
/// The system refuses to list them.
pub(crate) async fn addresses() -> Result<Vec<IpAddr>, DataPlaneError> {
    let messages = messages(&Netlink::connect()?).await?;
    Ok(messages.iter().filter_map(own_address).collect())
}

/// The same with the names of the devices that have them.
///
/// # Errors
/// The system refuses to list them.
pub(crate) async fn addresses_of_devices() -> Result<Vec<(String, IpAddr)>, DataPlaneError> {
    let netlink = Netlink::connect()?;
    let links: Vec<LinkMessage> = netlink
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|error| super::netlink::refused("cannot list the devices of this host", error))?;
    let name = |index: u32| {
        let link = links.iter().find(|link| link.header.index == index)?;
        link.attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            })
    };
    let messages = messages(&netlink).await?;
    let found = messages.iter().filter_map(|message| {
        let device = name(message.header.index).unwrap_or_default();
        Some((device, own_address(message)?))
    });
    Ok(found.collect())
}

async fn messages(netlink: &Netlink) -> Result<Vec<AddressMessage>, DataPlaneError> {
    let all = netlink.address().get().execute().try_collect().await;
    all.map_err(|error| super::netlink::refused("cannot list the addresses of this host", error))
}

/// The address from which a packet of ours to `remote` leaves. `fwmark` is that of our sockets:
/// the answer is that of the main table, not of our own rules.
///
/// # Errors
/// There is no way to `remote`.
pub(crate) fn source_for(remote: IpAddr, fwmark: u32) -> io::Result<IpAddr> {
    Sources::new(fwmark).of(remote)
}

/// The same for thousands of peers.
pub(crate) struct Sources {
    fwmark: u32,
    /// Of IPv4 and IPv6.
    sockets: RefCell<[Option<Socket>; 2]>,
}

impl Sources {
    /// For sockets with this mark.
    pub(crate) fn new(fwmark: u32) -> Self {
        Self {
            fwmark,
            sockets: RefCell::default(),
        }
    }

    /// See [`source_for`].
    ///
    /// # Errors
    /// There is no way to `remote`.
    pub(crate) fn of(&self, remote: IpAddr) -> io::Result<IpAddr> {
        // Connecting a datagram socket looks the route up and sends nothing; any port will do: 9 is "discard".
        let to = SocketAddr::new(remote, 9);
        let place = usize::from(remote.is_ipv6());
        let mut sockets = self.sockets.borrow_mut();
        let socket = match sockets[place].take() {
            Some(socket) => {
                rustix::net::connect_unspec(&socket)?;
                socket
            }
            None => self.open(to)?,
        };
        socket.connect(&to.into())?;
        let local = socket.local_addr()?.as_socket();
        sockets[place] = Some(socket);
        Ok(local.ok_or(io::ErrorKind::AddrNotAvailable)?.ip())
    }

    fn open(&self, to: SocketAddr) -> io::Result<Socket> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
        socket.set_mark(self.fwmark)?;
        socket.bind(&SocketAddr::new(any, 0).into())?;
        Ok(socket)
    }
}

/// On a point-to-point device, `Address` is the peer's and `Local` ours; elsewhere either is.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let find = |local: bool| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            })
    };
    find(true).or_else(|| find(false))
}
