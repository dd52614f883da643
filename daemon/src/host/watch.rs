//! Notices when somebody changes addresses, routes, routing rules or the TUN device.

use std::io;
use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use tokio::task::JoinHandle;

use super::{HostSettings, route};
use crate::dataplane::DataPlaneError;

/// A subscription to changes in the network namespace of the thread that made it.
pub(crate) struct Watch {
    changes: Pin<Box<dyn Stream<Item = ()> + Send + Sync>>,
    connection: JoinHandle<()>,
}

impl Watch {
    /// Subscribes to what protection depends on: addresses and rules. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// The system has no socket for us.
    pub(crate) fn addresses_and_rules() -> Result<Self, DataPlaneError> {
        let groups = [
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ];
        Self::new(&groups, |_| true)
    }

    /// Subscribes to what takes routes out of our table: somebody removes them, or sets the TUN device down,
    /// which the system does not tell of each route (IPv4). Must be called within a tokio runtime.
    ///
    /// What is told while more comes than the socket holds is lost. This is no change: what we set ourselves is told
    /// too, and to set it again because of that would have no end.
    ///
    /// # Errors
    /// As [`Watch::addresses_and_rules`].
    pub(crate) fn losses(settings: &HostSettings) -> Result<Self, DataPlaneError> {
        let name = LinkAttribute::IfName(settings.tun.clone());
        let table = settings.table;
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        Self::new(&groups, move |change| match change {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => {
                route::table_of(route) == table
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                !link.header.flags.contains(LinkFlags::Up) && link.attributes.contains(&name)
            }
            _ => false,
        })
    }

    /// Subscribes to what the way to peers depends on: addresses and routes. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// As [`Watch::addresses_and_rules`].
    pub(crate) fn addresses_and_routes() -> Result<Self, DataPlaneError> {
        let groups = [
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        Self::new(&groups, |_| true)
    }

    fn new(
        groups: &[MulticastGroup],
        counts: impl Fn(&NetlinkPayload<RouteNetlinkMessage>) -> bool + Send + Sync + 'static,
    ) -> Result<Self, DataPlaneError> {
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(groups).map_err(|source: io::Error| {
                DataPlaneError::system("cannot watch addresses, routes and rules", source)
            })?;
        let changes = messages.filter_map(move |(message, _)| {
            let counts = counts(&message.payload);
            std::future::ready(counts.then_some(()))
        });
        Ok(Self {
            changes: Box::pin(changes),
            connection: tokio::spawn(connection),
        })
    }

    /// The next change of those subscribed to; cancel safe.
    pub(crate) async fn changed(&mut self) {
        if self.changes.next().await.is_none() {
            // The connection ended, which it says in the log: no news from it.
            std::future::pending().await
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
