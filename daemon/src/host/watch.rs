//! Notices when somebody changes addresses, routes or routing rules.

use std::io;
use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;

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
        Self::new(&[
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ])
    }

    /// Subscribes to what the way to peers depends on: addresses and routes. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// As [`Watch::addresses_and_rules`].
    pub(crate) fn addresses_and_routes() -> Result<Self, DataPlaneError> {
        Self::new(&[
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])
    }

    fn new(groups: &[MulticastGroup]) -> Result<Self, DataPlaneError> {
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(groups).map_err(|source: io::Error| {
                DataPlaneError::system("cannot watch addresses, routes and rules", source)
            })?;
        Ok(Self {
            changes: Box::pin(messages.map(|_| ())),
            connection: tokio::spawn(connection),
        })
    }

    /// The next change, whatever it is; cancel safe.
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
