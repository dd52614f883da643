//! What an operator can read of the endpoint's state; no secrets in it.

use std::time::Duration;

use crate::auth::ProvenBy;
use crate::config::{Path, StartAction};
use crate::event::{ChildSaInfo, IkeSaId, IkeSpi};
use crate::identity::Identity;
use crate::proposal::Encr;
use crate::wire::{IntegId, KeMethod, PrfId};

/// One IKE SA.
#[derive(Clone, Debug)]
pub struct IkeSaStatus {
    /// Which.
    pub id: IkeSaId,
    /// Name of the connection, once known.
    pub connection: Option<String>,
    /// `connecting`, `established`, `rekeying`, `deleting`.
    pub state: &'static str,
    /// Whether we are the initiator.
    pub initiator: bool,
    /// Addresses and ports.
    pub path: Path,
    /// The initiator's SPI.
    pub spi_i: IkeSpi,
    /// The responder's SPI.
    pub spi_r: IkeSpi,
    /// Our identity, once known.
    pub local_id: Option<Identity>,
    /// The peer's identity, once proven.
    pub remote_id: Option<Identity>,
    /// What the peer has proven its identity by, once it has.
    pub proven_by: Option<ProvenBy>,
    /// Chosen algorithms, once known.
    pub algorithms: Option<IkeAlgorithms>,
    /// The peer has shown us how to know a crash of its by, RFC 6290.
    pub crash_detection: bool,
    /// A NAT was seen before us, before the peer.
    pub nat: (bool, bool),
    /// Both ends can take IKE fragments.
    pub fragmentation: bool,
    /// Both sides speak MOBIKE.
    pub mobike: bool,
    /// It was made of an IKE SA that was lost, by a ticket (RFC 5723).
    pub resumed: bool,
    /// Time since it was established (or begun).
    pub age: Duration,
    /// Time until rekey, if established.
    pub rekey_in: Option<Duration>,
    /// Time until identities are proven anew, if they are.
    pub reauth_in: Option<Duration>,
    /// Its Child SAs.
    pub children: Vec<ChildSaStatus>,
}

/// What is to be expected of a configured child.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChildOutlook {
    /// Name of the connection.
    pub connection: String,
    /// Name of the child.
    pub child: String,
    /// What is done about it while it is not up: its start action, unless it was closed or lost.
    pub action: StartAction,
    /// Tries in a row that failed.
    pub failures: u32,
    /// Time until the next try, if one waits.
    pub next_try_in: Option<Duration>,
}

/// The algorithms of one IKE SA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IkeAlgorithms {
    /// Encryption.
    pub encr: Encr,
    /// Integrity; `NONE` with an AEAD.
    pub integ: IntegId,
    /// Pseudorandom function.
    pub prf: PrfId,
    /// Key exchange.
    pub ke: KeMethod,
}

/// One Child SA.
#[derive(Clone, Debug)]
pub struct ChildSaStatus {
    /// What it is.
    pub info: ChildSaInfo,
    /// `installing`, `installed`, `rekeying`, `rekeyed`, `deleting`.
    pub state: &'static str,
    /// Time since it was made.
    pub age: Duration,
    /// Time until rekey.
    pub rekey_in: Option<Duration>,
}
