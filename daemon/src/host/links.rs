//! The devices of a network namespace, their addresses and routes, changed over netlink.

use super::netns::{Netns, naming};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder};
use rustix::io::Errno;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};

/// The devices of one namespace; see [`Netns::configure`].
#[derive(Debug)]
pub struct Links {
    pub(super) handle: Handle,
}

impl Links {
    /// The netlink connection itself, for what has no method here.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The names of all devices.
    ///
    /// # Errors
    /// What the system says.
    pub async fn names(&self) -> io::Result<Vec<String>> {
        let links: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(refused("list links"))?;
        let names = links.into_iter().flat_map(|link| link.attributes);
        Ok(names
            .filter_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
            .collect())
    }

    /// The index of a device.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name.
    pub async fn index(&self, name: &str) -> io::Result<u32> {
        Ok(self.link(name).await?.header.index)
    }

    /// Makes a pair of virtual Ethernet devices.
    ///
    /// # Errors
    /// What the system says, with the name of the device.
    pub async fn veth(&self, name: &str, peer: &str) -> io::Result<()> {
        self.add(name, LinkVeth::new(name, peer).build()).await
    }

    /// Makes a pair of virtual Ethernet devices, one of them in another namespace.
    ///
    /// # Errors
    /// What the system says, with the name of the device here.
    pub async fn veth_to(&self, name: &str, other: &Netns, peer: &str) -> io::Result<()> {
        let peer = LinkUnspec::new_with_name(peer)
            .setns_by_fd(other.as_fd().as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        self.add(name, pair.build()).await
    }

    /// Makes a VXLAN device (RFC 7348) with one peer, up. The UDP source port is chosen per flow.
    ///
    /// # Errors
    /// What the system says, with the name of the device.
    pub async fn vxlan(
        &self,
        name: &str,
        vni: u32,
        port: u16,
        local: Ipv4Addr,
        remote: Ipv4Addr,
        over: &str,
    ) -> io::Result<()> {
        let link = LinkVxlan::new(name, vni)
            .port(port)
            .local(local)
            .remote(remote)
            .dev(self.index(over).await?);
        self.add(name, link.up().build()).await
    }

    /// Sets a device up.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name; what the system says.
    pub async fn up(&self, name: &str) -> io::Result<()> {
        self.set(name, |link| link.up()).await
    }

    /// Sets a device down.
    ///
    /// # Errors
    /// As [`Links::up`].
    pub async fn down(&self, name: &str) -> io::Result<()> {
        self.set(name, |link| link.down()).await
    }

    /// Sets the largest packet of a device, in bytes.
    ///
    /// # Errors
    /// As [`Links::up`].
    pub async fn mtu(&self, name: &str, mtu: u32) -> io::Result<()> {
        self.set(name, |link| link.mtu(mtu)).await
    }

    async fn set(
        &self,
        name: &str,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(self.index(name).await?);
        let changed = self.handle.link().set(change(link).build());
        changed.execute().await.map_err(refused(name))
    }

    /// Removes a device.
    ///
    /// # Errors
    /// As [`Links::up`].
    pub async fn delete(&self, name: &str) -> io::Result<()> {
        let index = self.index(name).await?;
        self.handle
            .link()
            .del(index)
            .execute()
            .await
            .map_err(refused(name))
    }

    /// Whether a device is there and up.
    pub async fn is_up(&self, name: &str) -> bool {
        self.link(name)
            .await
            .is_ok_and(|link| link.header.flags.contains(LinkFlags::Up))
    }

    /// Gives a device an address.
    ///
    /// # Errors
    /// As [`Links::up`]; `AlreadyExists` if it has it.
    pub async fn address(&self, name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
        let index = self.index(name).await?;
        let request = self.handle.address().add(index, address, prefix);
        request
            .execute()
            .await
            .map_err(refused(&format!("{address}/{prefix} on {name}")))
    }

    /// Sends what goes to a network over a device, by a gateway if one is given.
    ///
    /// # Errors
    /// As [`Links::up`].
    pub async fn route(
        &self,
        (network, prefix): (IpAddr, u8),
        name: &str,
        gateway: Option<IpAddr>,
    ) -> io::Result<()> {
        let what = format!("route {network}/{prefix} dev {name}");
        let impossible = |_| io::Error::new(io::ErrorKind::InvalidInput, what.clone());
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(network, prefix)
            .map_err(impossible)?
            .output_interface(self.index(name).await?);
        if let Some(gateway) = gateway {
            route = route.gateway(gateway).map_err(impossible)?;
        }
        self.handle
            .route()
            .add(route.build())
            .execute()
            .await
            .map_err(refused(&what))
    }

    async fn add(&self, name: &str, link: LinkMessage) -> io::Result<()> {
        self.handle
            .link()
            .add(link)
            .execute()
            .await
            .map_err(refused(name))
    }

    async fn link(&self, name: &str) -> io::Result<LinkMessage> {
        let mut found = Box::pin(self.handle.link().get().match_name(name).execute());
        let link = found.try_next().await.map_err(refused(name))?;
        link.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{name}: no such device"))
        })
    }
}

fn refused(what: &str) -> impl FnOnce(rtnetlink::Error) -> io::Error {
    let naming = naming(what);
    move |error| {
        let rtnetlink::Error::NetlinkError(message) = error else {
            return naming(io::Error::other(error.to_string()));
        };
        let error = message.to_io();
        if Errno::from_io_error(&error) == Some(Errno::NODEV) {
            // The standard library has no kind for it.
            return naming(io::Error::new(io::ErrorKind::NotFound, error));
        }
        naming(error)
    }
}
