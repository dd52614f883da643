//! Handing SAs to whatever carries ESP: the kernel (`kernel`), or our own threads over a TUN (`user`).

mod assign;
mod chosen;
mod cleartext;
mod flow;
pub(crate) mod kernel;
mod options;
pub(crate) mod user;

pub(crate) use chosen::{Plane, protects, purge};
pub(crate) use cleartext::{Clear, Cleartext};
pub(crate) use options::{HwOffload, KernelOptions};

use obol_ike::config::{Mode, Path};
use obol_ike::event::{ChildSaId, EspSpi, InboundSa, MovedSa, OutboundSa, PacketFlow};
use obol_ike::ts::TrafficSelector;
use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::time::Duration;

use crate::config::{Areas, Loaded};
use crate::ports::Ports;

/// A call that was made: resolves when every worker acts on it, or one refuses. Calls take effect in
/// the order in which they are made, whether or not they are waited for.
pub(crate) type Doing<T> = Pin<Box<dyn Future<Output = Result<T, DataPlaneError>> + Send>>;

/// What must be protected: from the moment it is set, a packet that matches leaves or enters
/// only through an SA.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    /// Name of the connection.
    pub(crate) connection: String,
    /// Name of the child.
    pub(crate) child: String,
    /// Transport or tunnel.
    pub(crate) mode: Mode,
    /// Our side.
    pub(crate) local_ts: Vec<TrafficSelector>,
    /// The peer's side.
    pub(crate) remote_ts: Vec<TrafficSelector>,
    /// Whether a packet without SA raises [`DataPlaneEvent::Acquire`].
    pub(crate) trap: bool,
    /// Its packets pass in clear, though wider policies are about them.
    pub(crate) pass: bool,
    /// A wider policy of another connection may be about its packets, and does not count for them.
    pub(crate) narrower: bool,
    /// Whether its packets pass in clear while there is no SA.
    pub(crate) clear: Clear,
    /// What the kernel's data plane is to do beside. The other one has nothing of it.
    pub(crate) kernel: KernelOptions,
}

/// Each policy that is narrower than others may be, with each that has packets in common with it, both by
/// their places; the narrower first.
pub(crate) fn meeting(policies: &[Policy]) -> BTreeSet<(usize, usize)> {
    let is_narrower = |place: &usize| policies[*place].narrower;
    if !policies.iter().any(|policy| policy.narrower) {
        return BTreeSet::new();
    }
    let mut areas = Areas::default();
    for (place, policy) in policies.iter().enumerate() {
        areas.add(place, policy.local_ts.iter(), policy.remote_ts.iter());
    }
    let pairs = areas.meeting().into_iter();
    let both_ways = pairs.flat_map(|(one, other)| [(one, other), (other, one)]);
    both_ways
        .filter(|(narrow, _)| is_narrower(narrow))
        .collect()
}

/// For so long packets of an SA that was replaced are accepted after its end: they were on their way,
/// or waited in a queue, when it was ended.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

/// How much an SA was used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Bytes of inner packets opened.
    pub(crate) bytes_in: u64,
    /// Packets opened.
    pub(crate) packets_in: u64,
    /// Bytes of inner packets sealed.
    pub(crate) bytes_out: u64,
    /// Packets sealed.
    pub(crate) packets_out: u64,
    /// Time since the last packet was opened.
    pub(crate) last_in: Option<Duration>,
    /// Time since the last packet was sealed.
    pub(crate) last_out: Option<Duration>,
}

/// Why the data plane did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataPlaneError {
    /// The SPI is in use.
    #[error("the SPI is in use")]
    SpiTaken,
    /// No such SA.
    #[error("no such SA")]
    Unknown,
    /// The system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Refused(String),
}

impl DataPlaneError {
    /// The system refused `what`, which reads like "cannot open the TUN device".
    pub(crate) fn system(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::System {
            what: what.into(),
            source: source.into(),
        }
    }

    /// The system's error number, if it was the system that refused.
    pub(crate) fn number(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// What the data plane tells the driver.
#[derive(Debug)]
pub(crate) enum DataPlaneEvent {
    /// A packet matched a trap; it is kept, or dropped, until an SA stands.
    Acquire {
        /// Name of the connection.
        connection: String,
        /// Name of the child.
        child: String,
        /// The packet.
        flow: PacketFlow,
    },
    /// The first packet of this inbound SA was opened.
    InboundUsed(ChildSaId),
    /// A packet of this SA, newer than all before, was opened and came by another path than it
    /// should.
    PeerMoved {
        /// The SA.
        id: ChildSaId,
        /// From where to where, from our side. Without UDP, only the addresses mean something.
        path: Path,
    },
    /// ESP came with an SPI that no SA has; told of a few packets only.
    UnknownSpi {
        /// From where to where, from our side; both ports are 0 without UDP.
        path: Path,
        /// The SPI.
        spi: EspSpi,
    },
    /// A soft limit was met.
    SoftExpired(ChildSaId),
    /// A hard limit was met.
    HardExpired(ChildSaId),
    /// Something of the host needs care: call [`DataPlane::maintain`].
    Maintain,
    /// An IKE datagram came in on port 4500 (the non-ESP marker is taken off).
    Ike {
        /// From where to where, from our side.
        path: Path,
        /// The message.
        datagram: Vec<u8>,
    },
}

/// Whatever carries ESP.
///
/// Keys move by value. The data plane owes: replay protection, the selector check after
/// decryption, usage limits and their events, and that nothing which matches a policy passes in
/// clear.
pub(crate) trait DataPlane {
    /// Replaces the set of policies by this one: what is in both is not touched.
    async fn set_policies(&mut self, policies: Vec<Policy>) -> Result<(), DataPlaneError>;
    /// `Ok`: packets of this SA are accepted.
    fn add_inbound(&mut self, sa: InboundSa) -> Doing<()>;
    /// `Ok`: new packets use this SA, and no longer the one it replaces.
    fn use_outbound(&mut self, sa: OutboundSa) -> Doing<()>;
    /// `Ok`: packets of this SA go by the new path, and none was lost for it.
    fn move_path(&mut self, moved: MovedSa) -> Doing<()>;
    /// Forgets both directions, also of an SA that was refused. Where a newer SA carries the same
    /// flow, packets of this one are accepted for [`DRAIN`] more, and nothing is told of them.
    fn remove(&mut self, id: ChildSaId) -> Doing<Usage>;
    /// How much it was used so far.
    fn usage(&self, id: ChildSaId) -> Option<Usage>;
    /// The same of many, those of which there is something to tell.
    fn usages(&self, ids: &[ChildSaId]) -> HashMap<ChildSaId, Usage> {
        let known = ids.iter().filter_map(|id| Some((*id, self.usage(*id)?)));
        known.collect()
    }
    /// Packets dropped, by reason.
    fn drops(&self) -> Vec<(&'static str, u64)>;
    /// The next event; cancel safe.
    async fn next_event(&mut self) -> DataPlaneEvent;
    /// Does what [`DataPlaneEvent::Maintain`] is about. To be run to its end: it is no part of
    /// waiting for events, or whoever sends us datagrams could interrupt it again and again.
    async fn maintain(&mut self);
    /// `userspace`, `kernel` or `both`.
    fn name(&self) -> &'static str;
    /// Why it is this one, in words.
    fn why(&self) -> &str {
        ""
    }
    /// What carries a connection, `userspace` or `kernel`, and why, in words.
    fn carrier(&self, _connection: &str) -> (&'static str, &str) {
        (self.name(), self.why())
    }
    /// What has an SA: `userspace` or `kernel`.
    fn holder(&self, _id: ChildSaId) -> &'static str {
        self.name()
    }
    /// Adds what is new of a configuration to what was taken over; `false`: that takes more than to
    /// add policies, and nothing is done.
    ///
    /// # Errors
    /// The system refuses: then all is as before.
    async fn take_more(&mut self, _addition: &mut Loaded) -> Result<bool, DataPlaneError> {
        Ok(false)
    }
    /// Takes over a configuration. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Something in it cannot be done, or the system refuses: then all is as before.
    async fn take_over(
        &mut self,
        loaded: &mut Loaded,
        _ports: &Ports,
    ) -> Result<(), DataPlaneError> {
        self.set_policies(loaded.policies.clone()).await
    }
}
