//! What the endpoint is told of our own addresses, so that it can move when they change.

use std::net::IpAddr;
use std::time::Duration;

use obol_ike::event::LocalAddresses;
use tokio::time::Instant;

use crate::dataplane::DataPlaneError;
use crate::host::{self, Watch};

/// How long changes may go on until they are looked at together: an address and the route to it
/// come one after the other.
const SETTLE: Duration = Duration::from_millis(50);

/// Watches addresses and routes.
pub(crate) struct Roaming {
    watch: Watch,
    look_at: Option<Instant>,
}

impl Roaming {
    /// Begins to watch. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The system has no socket for us.
    pub(crate) fn new() -> Result<Self, DataPlaneError> {
        Ok(Self {
            watch: Watch::addresses_and_routes()?,
            look_at: None,
        })
    }

    /// Waits until there may be other addresses or routes; cancel safe.
    pub(super) async fn changed(&mut self) {
        loop {
            let Some(at) = self.look_at else {
                self.watch.changed().await;
                self.look_at = Some(Instant::now() + SETTLE);
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(at) => {
                    self.look_at = None;
                    return;
                }
                // Not put off by more of them.
                () = self.watch.changed() => {}
            }
        }
    }
}

/// Our addresses, and from which of them the system sends to each of `peers`. `fwmark` is that of
/// our own packets.
///
/// # Errors
/// The system refuses to list them.
pub(super) async fn local_addresses(
    peers: &[IpAddr],
    fwmark: u32,
) -> Result<LocalAddresses, DataPlaneError> {
    let mut addresses = host::addresses().await?;
    addresses.retain(|address| !address.is_loopback() && !is_link_local(*address));
    let sources = host::Sources::new(fwmark);
    let source = |peer: &IpAddr| Some((*peer, sources.of(*peer).ok()?));
    Ok(LocalAddresses {
        addresses,
        sources: peers.iter().filter_map(source).collect(),
    })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
