//! What `obol list --json` says: connections and children as they are configured.

use serde::{Deserialize, Serialize};

use super::{OfferReport, PolicyState};

/// What is configured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ListReport {
    /// [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
    pub(crate) schema_version: u32,
    /// Every connection.
    pub(crate) connections: Vec<ConnectionReport>,
}

/// One configured connection.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ConnectionReport {
    /// Its name.
    pub(crate) name: String,
    /// `up`, `connecting` or `down`; `None` where no daemon was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
    /// What carries it, and why; `None` where no daemon was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data_plane: Option<CarrierReport>,
    /// Our addresses; empty: any.
    pub(crate) local_addrs: Vec<String>,
    /// The peer's addresses; empty: any.
    pub(crate) remote_addrs: Vec<String>,
    /// How we authenticate, and as whom.
    pub(crate) local: AuthReport,
    /// How the peer must authenticate, and as whom.
    pub(crate) remote: AuthReport,
    /// IKE proposals in order of preference.
    pub(crate) proposals: Vec<String>,
    /// Seconds of silence after which the peer is asked whether it lives; 0: never.
    #[serde(default)]
    pub(crate) dpd_delay_s: u64,
    /// Seconds that an IKE SA lives at most.
    #[serde(default)]
    pub(crate) ike_life_s: u64,
    /// Seconds before that end at which it is rekeyed.
    #[serde(default)]
    pub(crate) margin_s: u64,
    /// This end never rekeys the IKE SA.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) never_rekeyed: bool,
    /// So many failed tries, and it is left alone; 0: never.
    #[serde(default)]
    pub(crate) keying_tries: u32,
    /// Whether INITIAL_CONTACT is sent.
    #[serde(default)]
    pub(crate) initial_contact: bool,
    /// Whether IKE messages may be fragmented.
    #[serde(default)]
    pub(crate) fragmentation: bool,
    /// What a peer asks for is protected, too, where no policy is about it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) generates: bool,
    /// Its children.
    pub(crate) children: Vec<ChildReport>,
}

/// What carries a connection.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct CarrierReport {
    /// `userspace` or `kernel`.
    pub(crate) name: String,
    /// Why, in words.
    pub(crate) why: String,
}

/// How one side of a connection authenticates.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct AuthReport {
    /// `psk` or `pubkey`; of the peer, also `pubkey|psk`: either.
    pub(crate) auth: String,
    /// The identity; `None`: the address on our side, anybody on the peer's side.
    pub(crate) id: Option<String>,
    /// The public keys that prove it: `0s` and RFC 3110, or lines as OpenSSH has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keys: Vec<String>,
    /// The words of `signatures`; empty: any that the keys make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) signatures: Vec<String>,
}

/// One configured child.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ChildReport {
    /// Its name.
    pub(crate) name: String,
    /// What happens to its packets; `None` where no daemon was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<PolicyState>,
    /// That its packets pass in clear at times, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cleartext: Option<String>,
    /// `tunnel` or `transport`.
    pub(crate) mode: String,
    /// `none`, `trap` or `start`.
    pub(crate) start_action: String,
    /// The same, once the peer closed it.
    #[serde(default)]
    pub(crate) close_action: String,
    /// The same, once the peer died.
    #[serde(default)]
    pub(crate) dpd_action: String,
    /// Configured selectors of our side.
    pub(crate) local_ts: Vec<String>,
    /// Configured selectors of the peer's side.
    pub(crate) remote_ts: Vec<String>,
    /// ESP proposals in order of preference.
    pub(crate) proposals: Vec<String>,
    /// What they come to, in an [`OverviewReport`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offer: Option<OfferReport>,
    /// Seconds that a Child SA lives at most.
    #[serde(default)]
    pub(crate) life_s: u64,
    /// It is rekeyed after so many octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rekey_bytes: Option<u64>,
    /// It is rekeyed after so many packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rekey_packets: Option<u64>,
    /// Seconds after which a Child SA is rekeyed, before jitter; 0: never by this end.
    #[serde(default)]
    pub(crate) rekey_s: u64,
}
