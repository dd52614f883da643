//! From what IKE negotiated to the SAs of `obol_esp`, and to where their packets go.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use obol_esp::{Hash, Inbound, Limits, Outbound, SaParams, Selector, Suite};
use obol_ike::config::{Mode, Path};
use obol_ike::event::{ChildSaId, ChildSaInfo, EspKeys, InboundSa, MovedSa, OutboundSa};
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::{EncrId, IntegId};
use zeroize::Zeroizing;

use super::count::SaUsage;
use crate::dataplane::flow::Flow;
use crate::dataplane::{DataPlaneError, Policy};
use crate::host::pairs;
use crate::sys::msg::Header;

/// An SA for packets to the peer, as all outbound workers have it. One of them uses it; others do
/// while they have none of their own.
pub(super) struct Way {
    /// Which.
    pub(super) id: ChildSaId,
    /// Name of the connection.
    pub(super) connection: String,
    /// Name of the child.
    pub(super) child: String,
    /// For which queue it is.
    pub(super) queue: u16,
    /// The SA that this one takes over from.
    pub(super) replaces: Option<ChildSaId>,
    /// What it carries: our selectors, and the peer's.
    pub(super) selectors: (Vec<TrafficSelector>, Vec<TrafficSelector>),
    /// The same for packets to the peer.
    pub(super) carries: Vec<Selector>,
    out: Mutex<Out>,
}

/// What sealing changes.
pub(super) struct Out {
    /// Which.
    pub(super) id: ChildSaId,
    /// The SA itself.
    pub(super) sa: Outbound,
    /// Whether its packets go in UDP.
    pub(super) encap: bool,
    /// Where to, and from where.
    pub(super) header: Header,
    /// Its counters.
    pub(super) usage: Arc<SaUsage>,
}

/// An SA for packets to us, as its worker has it.
pub(super) struct In {
    /// Which.
    pub(super) id: ChildSaId,
    /// The SA itself.
    pub(super) sa: Inbound,
    /// What it carries.
    pub(super) flow: Arc<Flow>,
    /// For which queue it is.
    pub(super) queue: u16,
    /// It was replaced, and ends when its last packets must have come.
    pub(super) wanes: bool,
    /// Transport mode.
    transport: bool,
    /// Where its packets come from, and where to.
    path: Path,
    /// When it was told last that they come from elsewhere, in milliseconds; 0: never.
    told: u64,
    /// Its counters.
    pub(super) usage: Arc<SaUsage>,
}

/// Milliseconds until it is told again that packets come from elsewhere.
const TELL_AGAIN: u64 = 500;

impl Way {
    /// Makes the SA.
    ///
    /// # Errors
    /// What was negotiated is nothing that `obol_esp` can do.
    pub(super) fn new(sa: OutboundSa, usage: Arc<SaUsage>) -> Result<Self, DataPlaneError> {
        let info = sa.info;
        let carries = selectors(&info.local_ts, &info.remote_ts)?;
        let params = params(&info, sa.keys, info.spi_out.0, carries.clone())?;
        let out = Out {
            id: info.id,
            sa: Outbound::new(params).map_err(refused)?,
            encap: info.encap,
            header: header(info.path),
            usage,
        };
        Ok(Self {
            id: info.id,
            replaces: info.replaces,
            queue: info.queue,
            connection: info.connection,
            child: info.child,
            selectors: (info.local_ts, info.remote_ts),
            carries,
            out: Mutex::new(out),
        })
    }

    /// Source and destination, where all that it carries is between two hosts.
    pub(super) fn hosts(&self) -> Option<(IpAddr, IpAddr)> {
        let host = |all: &[TrafficSelector]| {
            let first = all.first()?.start;
            let same = |ts: &TrafficSelector| (ts.start, ts.end) == (first, first);
            all.iter().all(same).then_some(first)
        };
        Some((host(&self.selectors.0)?, host(&self.selectors.1)?))
    }

    /// The SA, for this worker alone. `None`: a worker broke off while it sealed, and which sequence
    /// numbers were used nobody knows.
    pub(super) fn lock(&self) -> Option<MutexGuard<'_, Out>> {
        self.out.lock().ok()
    }
}

impl Out {
    /// Sends by another path from here on.
    pub(super) fn move_to(&mut self, moved: MovedSa) {
        self.encap = moved.encap;
        self.header = header(moved.path);
    }
}

fn header(path: Path) -> Header {
    let local = path.local.ip();
    Header {
        to: path.remote,
        from: Some(local).filter(|ip| !ip.is_unspecified()),
        tos: 0,
        ttl: None,
        segment: None,
    }
}

impl In {
    /// Makes the SA.
    ///
    /// # Errors
    /// As [`Out::new`].
    pub(super) fn new(sa: InboundSa, usage: Arc<SaUsage>) -> Result<Self, DataPlaneError> {
        let info = sa.info;
        let wanted = selectors(&info.remote_ts, &info.local_ts)?;
        let mut params = params(&info, sa.keys, info.spi_in.0, wanted)?;
        let transport = info.mode == Mode::Transport;
        params.transport_addresses = ends(transport, info.path);
        params.repair_checksums = transport && info.nat;
        Ok(Self {
            id: info.id,
            flow: Flow::of(&info),
            queue: info.queue,
            wanes: false,
            sa: Inbound::new(params).map_err(refused)?,
            transport,
            path: info.path,
            told: 0,
            usage,
        })
    }

    /// Expects packets by another path from here on.
    pub(super) fn move_to(&mut self, moved: MovedSa) {
        self.path = moved.path;
        self.told = 0;
        let ends = ends(self.transport, moved.path);
        self.sa.move_to(ends, self.transport && moved.nat);
    }

    /// Whether it is to be told that a packet came from `remote`, to `local` of our addresses and
    /// ports if that is known: the path to tell.
    pub(super) fn news(
        &mut self,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        now: u64,
    ) -> Option<Path> {
        let path = Path {
            local: local.unwrap_or(self.path.local),
            remote,
        };
        let told = self.told != 0 && now < self.told + TELL_AGAIN;
        if path == self.path || told {
            return None;
        }
        self.told = now;
        Some(path)
    }
}

/// Source and destination of what is opened in transport mode.
fn ends(transport: bool, path: Path) -> Option<(IpAddr, IpAddr)> {
    transport.then(|| (path.remote.ip(), path.local.ip()))
}

/// The selectors of a policy's packets to the peer.
///
/// # Errors
/// A range that ends before it starts.
pub(super) fn policy_selectors(policy: &Policy) -> Result<Vec<Selector>, DataPlaneError> {
    selectors(&policy.local_ts, &policy.remote_ts)
}

/// The selectors of packets from one side to the other.
///
/// # Errors
/// A range that ends before it starts.
pub(super) fn selectors(
    from: &[TrafficSelector],
    to: &[TrafficSelector],
) -> Result<Vec<Selector>, DataPlaneError> {
    pairs(from, to)
        .into_iter()
        .map(|(from, to)| {
            let addresses = |ts: &TrafficSelector| -> (IpAddr, IpAddr) { (ts.start, ts.end) };
            Selector::new(
                from.protocol,
                addresses(&from),
                (from.start_port, from.end_port),
                addresses(&to),
                (to.start_port, to.end_port),
            )
            .map_err(refused)
        })
        .collect()
}

//= rfc4303 2.2.1-2
fn params(
    info: &ChildSaInfo,
    keys: EspKeys,
    spi: u32,
    selectors: Vec<Selector>,
) -> Result<SaParams, DataPlaneError> {
    Ok(SaParams {
        spi,
        suite: suite(info)?,
        encr_key: Zeroizing::new(keys.encr.expose().to_vec()),
        integ_key: Zeroizing::new(keys.integ.expose().to_vec()),
        mode: match info.mode {
            Mode::Tunnel => obol_esp::Mode::Tunnel,
            Mode::Transport => obol_esp::Mode::Transport,
        },
        esn: info.esn,
        selectors: selectors.into(),
        limits: Limits {
            soft_bytes: info.limits.soft_bytes,
            hard_bytes: info.limits.hard_bytes,
            soft_packets: info.limits.soft_packets,
            hard_packets: info.limits.hard_packets,
        },
        replay_window: SaParams::REPLAY_WINDOW,
        repair_checksums: false,
        transport_addresses: None,
    })
}

//= rfc4303 3.2-1
fn suite(info: &ChildSaInfo) -> Result<Suite, DataPlaneError> {
    let key_bits = info.encr_key_bits;
    let hash = match info.integ {
        IntegId::HMAC_SHA2_256_128 => Some(Hash::Sha256),
        IntegId::HMAC_SHA2_384_192 => Some(Hash::Sha384),
        IntegId::HMAC_SHA2_512_256 => Some(Hash::Sha512),
        _ => None,
    };
    match (info.encr, hash) {
        (EncrId::AES_GCM_16, None) => Ok(Suite::AesGcm16 { key_bits }),
        (EncrId::CHACHA20_POLY1305, None) => Ok(Suite::ChaCha20Poly1305),
        (EncrId::AES_CBC, Some(hash)) => Ok(Suite::AesCbcHmac { key_bits, hash }),
        (EncrId::DES3, Some(hash)) => Ok(Suite::TripleDesCbcHmac { hash }),
        (encr, _) => Err(DataPlaneError::Refused(format!(
            "no ESP with {encr} and {}",
            info.integ
        ))),
    }
}

fn refused(error: impl std::fmt::Display) -> DataPlaneError {
    DataPlaneError::Refused(error.to_string())
}
