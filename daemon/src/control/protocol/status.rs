//! What `obol status --json` says: the daemon, its IKE and Child SAs, policies, and what was dropped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// State of the daemon and of everything it has with peers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct StatusReport {
    /// [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
    pub(crate) schema_version: u32,
    /// The daemon itself.
    pub(crate) daemon: DaemonReport,
    /// Every IKE SA.
    pub(crate) ike_sas: Vec<IkeSaReport>,
    /// Every configured child as the data plane sees it.
    pub(crate) policies: Vec<PolicyReport>,
    /// Packets and datagrams dropped, by reason.
    pub(crate) drops: BTreeMap<String, u64>,
    /// Connections of pluto's by their names and aliases: connections and children that they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) names: Names,
    /// Connections of pluto's that are not loaded, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) not_loaded: BTreeMap<String, NotLoaded>,
}

/// A connection of pluto's that is not loaded.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct NotLoaded {
    /// What kind of reason that has.
    pub(crate) kind: Absence,
    /// The reason, in words.
    pub(crate) why: String,
    /// Its ends, left and right; none, where it is only a part of others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ends: Vec<WrittenEnd>,
}

/// Why a connection of pluto's is not loaded.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Absence {
    /// Neither end, or both, are this host's.
    Unoriented,
    /// It says `auto=ignore`, and nobody asked for it.
    Ignored,
    /// It is without IKE, and nobody asked for it to be in force.
    Unrouted,
    /// The name of its peer has no address yet.
    Unresolved,
}

/// An end as it is written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct WrittenEnd {
    /// Its address, a name, or one of pluto's words.
    pub(crate) host: String,
    /// Its identity; `None`: its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// What is behind it; none: itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) clients: Vec<String>,
}

impl NotLoaded {
    /// For a reason that has nothing to do with its ends.
    pub(crate) fn ignored(why: impl Into<String>) -> Self {
        Self {
            kind: Absence::Ignored,
            why: why.into(),
            ends: Vec::new(),
        }
    }
}

/// Further names of children: for each, connections and children that it stands for.
pub(crate) type Names = BTreeMap<String, Vec<(String, String)>>;

/// The daemon.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct DaemonReport {
    /// Process ID.
    pub(crate) pid: u32,
    /// Version of obol.
    pub(crate) version: String,
    /// Seconds since it was started.
    pub(crate) uptime_s: u64,
    /// `userspace`, `kernel` or, where connections differ, `both`.
    pub(crate) data_plane: String,
    /// Why it is this one, in words.
    #[serde(default)]
    pub(crate) data_plane_why: String,
    /// So many IKE SAs are half-open that who begins another one must answer a cookie first.
    #[serde(default)]
    pub(crate) asks_for_cookies: bool,
    /// The configuration file.
    pub(crate) config: String,
    /// Who asks for keys of Child SAs gets them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) shows_keys: bool,
    /// Weak algorithms that may be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allows: Vec<String>,
    /// Its policies are those that setkey was told.
    #[serde(default)]
    pub(crate) by_setkey: bool,
}

/// One IKE SA.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct IkeSaReport {
    /// Its number; no other IKE SA of this daemon has, had or will have it.
    #[serde(default)]
    pub(crate) id: u64,
    /// Name of the connection; empty while none is chosen.
    pub(crate) name: String,
    /// `connecting`, `established`, `rekeying` or `deleting`.
    pub(crate) state: String,
    /// `initiator` or `responder`: who began the IKE SA.
    pub(crate) role: String,
    /// Our end.
    pub(crate) local: EndReport,
    /// The peer's end.
    pub(crate) remote: EndReport,
    /// The initiator's SPI, 16 hex digits.
    pub(crate) spi_i: String,
    /// The responder's SPI, 16 hex digits.
    pub(crate) spi_r: String,
    /// What was negotiated, once it was.
    pub(crate) algorithms: Option<IkeAlgorithmsReport>,
    /// What the peer has proven its identity by, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proven_by: Option<ProofReport>,
    /// Whether a crash of the peer will be known at once.
    #[serde(default)]
    pub(crate) crash_detection: bool,
    /// Where a NAT was seen.
    pub(crate) nat: NatReport,
    /// Whether both ends can take IKE fragments.
    pub(crate) fragmentation: bool,
    /// Both ends can move to other addresses.
    #[serde(default)]
    pub(crate) mobike: bool,
    /// It was made of one that was lost, by a ticket (RFC 5723).
    #[serde(default)]
    pub(crate) resumed: bool,
    /// Seconds since it was established, or begun.
    pub(crate) age_s: u64,
    /// Seconds until its rekey.
    pub(crate) rekey_in_s: Option<u64>,
    /// Seconds until identities are proven anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reauth_in_s: Option<u64>,
    /// Its Child SAs.
    pub(crate) children: Vec<ChildSaReport>,
}

/// One end of an IKE SA.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct EndReport {
    /// Address.
    pub(crate) addr: String,
    /// UDP port.
    pub(crate) port: u16,
    /// Identity; `None` before it is known, and for the peer before it is proven.
    pub(crate) id: Option<String>,
}

/// Algorithms of an IKE SA, by the names of proposals.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct IkeAlgorithmsReport {
    /// Encryption with key length.
    pub(crate) encr: String,
    /// Integrity; `None` with an AEAD.
    pub(crate) integ: Option<String>,
    /// Pseudorandom function.
    pub(crate) prf: String,
    /// Key exchange.
    pub(crate) ke: String,
}

/// What an identity was proven by.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ProofReport {
    /// `psk`, `ticket` (of an IKE SA that was lost), or how a signature was made: `rsa-pss-sha512`.
    pub(crate) by: String,
    /// Bits of the key, with a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_bits: Option<u32>,
}

/// Where a NAT was seen.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct NatReport {
    /// Before us.
    pub(crate) local: bool,
    /// Before the peer.
    pub(crate) remote: bool,
}

/// One Child SA.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ChildSaReport {
    /// Its number; no other Child SA of this daemon has, had or will have it.
    #[serde(default)]
    pub(crate) id: u64,
    /// Name of the child.
    pub(crate) name: String,
    /// `installing`, `installed`, `rekeyed` or `deleting`.
    pub(crate) state: String,
    /// `tunnel` or `transport`.
    pub(crate) mode: String,
    /// Its queue, RFC 9611: 0 is the first SA of the child, and others are additional ones.
    pub(crate) queue: u16,
    /// SPI of packets to us, 8 hex digits.
    pub(crate) spi_in: String,
    /// SPI of packets to the peer, 8 hex digits.
    pub(crate) spi_out: String,
    /// Negotiated selectors of our side.
    pub(crate) local_ts: Vec<String>,
    /// Negotiated selectors of the peer's side.
    pub(crate) remote_ts: Vec<String>,
    /// Encryption with key length.
    pub(crate) encr: String,
    /// Integrity; `None` with an AEAD.
    pub(crate) integ: Option<String>,
    /// Key exchange of its own (PFS).
    pub(crate) ke: Option<String>,
    /// Extended sequence numbers.
    pub(crate) esn: bool,
    /// `none` (IP protocol 50) or `udp`.
    pub(crate) encapsulation: String,
    /// Bytes of inner packets received.
    pub(crate) bytes_in: u64,
    /// Bytes of inner packets sent.
    pub(crate) bytes_out: u64,
    /// Packets received.
    pub(crate) packets_in: u64,
    /// Packets sent.
    pub(crate) packets_out: u64,
    /// Seconds since the last packet received.
    pub(crate) last_in_s: Option<u64>,
    /// Seconds since the last packet sent.
    pub(crate) last_out_s: Option<u64>,
    /// `userspace` or `kernel`.
    pub(crate) data_plane: String,
    /// Seconds since it was made.
    pub(crate) age_s: u64,
    /// Seconds until its rekey.
    pub(crate) rekey_in_s: Option<u64>,
}

/// One configured child as the data plane sees it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct PolicyReport {
    /// Name of the connection.
    pub(crate) connection: String,
    /// Name of the child.
    pub(crate) child: String,
    /// `tunnel` or `transport`.
    pub(crate) mode: String,
    /// Configured selectors of our side.
    pub(crate) local_ts: Vec<String>,
    /// Configured selectors of the peer's side.
    pub(crate) remote_ts: Vec<String>,
    /// What carries it, `userspace` or `kernel`.
    #[serde(default)]
    pub(crate) data_plane: String,
    /// What happens to a packet.
    pub(crate) state: PolicyState,
    /// That packets pass in clear at times, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cleartext: Option<String>,
    /// It was made because a peer asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generated: Option<GeneratedReport>,
    /// Seconds since the last packet to this host that an SA carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_in_s: Option<u64>,
    /// Seconds since the last packet from this host that an SA carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_out_s: Option<u64>,
    /// Tries in a row that failed to bring it up.
    #[serde(default)]
    pub(crate) failures: u32,
    /// Seconds until the next try to bring it up, if one waits.
    pub(crate) next_try_in_s: Option<u64>,
}

/// What is told of a policy that was made for a peer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct GeneratedReport {
    /// `use`, `require` or `unique`.
    pub(crate) level: String,
    /// The ends of a tunnel: this host's address and the peer's.
    pub(crate) ends: (String, String),
    /// Seconds since it was made.
    pub(crate) age_s: u64,
    /// Seconds that an SA of it lives at most.
    pub(crate) life_s: u64,
}

/// What happens to a packet that matches a policy.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PolicyState {
    /// It goes through an SA.
    Up,
    /// There is no SA: it asks for one and waits or is dropped.
    Trapped,
    /// There is no SA, and it is dropped.
    Blocked,
    /// It passes in clear, since the configuration says so.
    Passing,
}
