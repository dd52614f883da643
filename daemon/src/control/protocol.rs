//! What goes over the control socket: one JSON object per line, a request, then its replies.
//!
//! ```text
//! -> {"version":1,"command":"up","connection":"hosts","child":"pods","timeout_ms":30000}
//! <- {"version":1,"progress":"IKE_SA_INIT sent to 192.168.0.2"}
//! <- {"version":1,"ok":true,"data":{...}}
//! <- {"version":1,"ok":false,"code":4,"error":"..."}
//! ```
//!
//! Any number of progress lines, then one line with `ok`, which ends the exchange.

mod overview;
mod secret;

use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::changes::ChildChange;
use crate::error::{ExitClass, Failure};
pub(crate) use overview::{OfferReport, OverviewReport};
pub(crate) use secret::{KeysReport, OneWay, SecretJson};

/// Version of requests and replies. Raised by changes that an older end would misread.
pub(crate) const VERSION: u32 = 1;

/// Version of [`StatusReport`] and [`ListReport`]. Raised when a field changes or goes; new
/// fields do not raise it.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// Name of the socket within the runtime directory.
pub(crate) const SOCKET_NAME: &str = "obol.sock";

/// Longest line that either end reads, in octets.
///
/// Requests hold two names; the longest reply is a status, about 1 KiB per Child SA, so this
/// is room for some ten thousand of them.
pub(crate) const LINE_LIMIT: usize = 16 * 1024 * 1024;

/// What the daemon is asked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum Request {
    /// State of every IKE SA and policy; answered by a [`StatusReport`].
    Status,
    /// What is configured; answered by a [`ListReport`].
    List,
    /// Both, in short; answered by an [`OverviewReport`].
    Overview {
        /// The name that it is for; `None`: all are meant.
        name: Option<String>,
    },
    /// The keys of all Child SAs; answered by a [`KeysReport`], if the daemon keeps them.
    Keys,
    /// Bring up a connection, or one child of it, and wait for it; answered by [`UpReport`].
    Up {
        /// Name of the connection.
        connection: String,
        /// Name of the child; `None`: all children.
        child: Option<String>,
        /// How long to wait before the answer is "no answer".
        timeout_ms: u64,
    },
    /// Close a connection, one child of it, or everything; answered by [`DownReport`].
    Down {
        /// What to close.
        target: DownTarget,
        /// How long to wait for the peers' replies.
        timeout_ms: u64,
    },
    /// Read the configuration again; answered by [`ReloadReport`].
    Reload,
    /// Read secrets and private keys again, and leave connections as they are; answered by
    /// [`ReloadReport`].
    Secrets,
    /// Tell what happens as it happens, a progress line each, until the client goes away.
    Watch,
    /// Ask for a Child SA as a packet would; answered by a [`ChildReport`] that carries it.
    Establish {
        /// Where such a packet comes from: an address of this host or behind it.
        source: IpAddr,
        /// Where it goes.
        destination: IpAddr,
        /// Its IP protocol and ports; `None`: any that is protected.
        flow: Option<(u8, u16, u16)>,
    },
    /// Read the configuration again, and from now on do this about the children that a name means;
    /// answered by [`ChangeReport`].
    Change {
        /// Name of a child, or what pluto calls a connection.
        name: String,
        /// What to do.
        to: ChildChange,
    },
    /// Send the clients of a connection to another gateway; answered by [`RedirectReport`].
    Redirect {
        /// Name of the connection.
        connection: String,
        /// The other gateway.
        to: IpAddr,
    },
}

/// What `down` closes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DownTarget {
    /// Every SA; the daemon then lifts the protection of all policies and ends.
    All,
    /// What a name means: a connection with all its children, or what pluto calls so.
    Connection(String),
    /// One connection with all its children, whatever pluto calls by its name.
    Whole(String),
    /// One child.
    Child {
        /// Name of the connection.
        connection: String,
        /// Name of the child.
        child: String,
    },
}

/// What the daemon answers, line by line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// More lines follow.
    Progress(String),
    /// The end, with what was asked for.
    Done(Data),
    /// The same, of what is to be wiped. It is only sent: who reads it has [`Reply::Done`].
    Secret(SecretJson),
    /// The end, and why it could not be done.
    Failed(Failure),
}

/// What was asked for, as JSON. A report of ten thousand connections is written once and read once,
/// into what it is to be.
#[derive(Clone, PartialEq)]
pub(crate) struct Data(String);

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may have keys in it.
        write!(f, "Data({} octets)", self.0.len())
    }
}

impl Data {
    /// As what it is.
    ///
    /// # Errors
    /// It is something else: the daemon is of another version.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.0).map_err(|e| {
            Failure::new(
                ExitClass::Failed,
                format!("the daemon's answer is none that this obol knows: {e}"),
            )
        })
    }
}

#[derive(Deserialize, Serialize)]
struct RequestLine {
    version: u32,
    #[serde(flatten)]
    request: Request,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct ReplyLine<'a> {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<ExitClass>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(borrow, skip_serializing)]
    data: Option<&'a RawValue>,
}

impl Request {
    /// The request as a line, with its newline.
    pub(crate) fn to_line(&self) -> String {
        let line = RequestLine {
            version: VERSION,
            request: self.clone(),
        };
        to_line(&line)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// A [`Failure`] to send back: another version, or no request at all.
    pub(crate) fn from_line(line: &[u8]) -> Result<Self, Failure> {
        check_version(line)?;
        serde_json::from_slice::<RequestLine>(line)
            .map(|line| line.request)
            .map_err(|e| Failure::new(ExitClass::Usage, format!("not a request: {e}")))
    }
}

impl Reply {
    /// The end of an exchange with this data.
    pub(crate) fn done(data: &impl Serialize) -> Self {
        match serde_json::to_string(data) {
            Ok(text) => Self::Done(Data(text)),
            Err(e) => Self::Failed(Failure::new(ExitClass::Failed, e.to_string())),
        }
    }

    /// The reply as a line, with its newline.
    pub(crate) fn to_line(&self) -> String {
        let mut line = ReplyLine {
            version: VERSION,
            ..ReplyLine::default()
        };
        match self {
            Self::Progress(text) => line.progress = Some(text.clone()),
            Self::Done(Data(data)) => {
                return format!("{{\"version\":{VERSION},\"ok\":true,\"data\":{data}}}\n");
            }
            Self::Secret(json) => return json.to_line(),
            Self::Failed(failure) => {
                line.ok = Some(false);
                line.code = Some(failure.code);
                line.error = Some(failure.message.clone());
            }
        }
        to_line(&line)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// A [`Failure`] that says in which way it is no reply.
    pub(crate) fn from_line(line: &[u8]) -> Result<Self, Failure> {
        let read = serde_json::from_slice::<ReplyLine<'_>>(line);
        if !matches!(&read, Ok(read) if read.version == VERSION) {
            check_version(line)?;
        }
        let line =
            read.map_err(|e| Failure::new(ExitClass::Failed, format!("not a reply: {e}")))?;
        match (line.progress, line.ok) {
            (Some(text), None) => Ok(Self::Progress(text)),
            (None, Some(true)) => {
                let data = line.data.map_or("null", RawValue::get);
                Ok(Self::Done(Data(data.to_owned())))
            }
            (None, Some(false)) => Ok(Self::Failed(Failure::new(
                line.code.unwrap_or(ExitClass::Failed),
                line.error.unwrap_or_default(),
            ))),
            _ => Err(Failure::new(
                ExitClass::Failed,
                "not a reply: neither progress nor an end",
            )),
        }
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn check_version(line: &[u8]) -> Result<(), Failure> {
    let VersionOnly { version } = serde_json::from_slice(line)
        .map_err(|e| Failure::new(ExitClass::Usage, format!("not a line of obol's: {e}")))?;
    if version == VERSION {
        return Ok(());
    }
    Err(Failure::new(
        ExitClass::Failed,
        format!(
            "the other end speaks version {version}, this one version {VERSION}: use the obol that the daemon was started from"
        ),
    ))
}

fn to_line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value)
        .expect("the types of this file have string keys and no failing serializer");
    line.push('\n');
    line
}

/// State of the daemon and of everything it has with peers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct StatusReport {
    /// [`SCHEMA_VERSION`].
    pub(crate) schema_version: u32,
    /// The daemon itself.
    pub(crate) daemon: DaemonReport,
    /// Every IKE SA.
    pub(crate) ike_sas: Vec<IkeSaReport>,
    /// Every configured child as the data plane sees it.
    pub(crate) policies: Vec<PolicyReport>,
    /// Packets and datagrams dropped, by reason.
    pub(crate) drops: std::collections::BTreeMap<String, u64>,
    /// Connections of pluto's by their names and aliases: connections and children that they are.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) names: Names,
    /// Connections of pluto's that are not loaded, and why.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) not_loaded: std::collections::BTreeMap<String, String>,
}

/// Further names of children: for each, connections and children that it stands for.
pub(crate) type Names = std::collections::BTreeMap<String, Vec<(String, String)>>;

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
    /// Tries in a row that failed to bring it up.
    #[serde(default)]
    pub(crate) failures: u32,
    /// Seconds until the next try to bring it up, if one waits.
    pub(crate) next_try_in_s: Option<u64>,
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

/// What is configured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ListReport {
    /// [`SCHEMA_VERSION`].
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
    /// Whether INITIAL_CONTACT is sent.
    #[serde(default)]
    pub(crate) initial_contact: bool,
    /// Whether IKE messages may be fragmented.
    #[serde(default)]
    pub(crate) fragmentation: bool,
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
    /// `psk` or `pubkey`.
    pub(crate) auth: String,
    /// The identity; `None`: the address on our side, anybody on the peer's side.
    pub(crate) id: Option<String>,
    /// The public keys that prove it: `0s` and RFC 3110, or lines as OpenSSH has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keys: Vec<String>,
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
    /// Seconds after which a Child SA is rekeyed, before jitter.
    #[serde(default)]
    pub(crate) rekey_s: u64,
}

/// What `up` brought up.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct UpReport {
    /// Name of the connection.
    pub(crate) connection: String,
    /// Children that are up.
    pub(crate) children: Vec<String>,
    /// How long it took; 0 if all were up before.
    pub(crate) took_ms: u64,
}

/// What `down` closed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct DownReport {
    /// `CONNECTION` or `CONNECTION/CHILD` of everything that was closed.
    pub(crate) closed: Vec<String>,
}

/// Which children `change` was about.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ChangeReport {
    /// Each with the name of its connection.
    pub(crate) children: Vec<(String, String)>,
}

/// What `redirect` told the clients.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct RedirectReport {
    /// Name of the connection.
    pub(crate) connection: String,
    /// Where they are told to go.
    pub(crate) to: IpAddr,
}

/// What `reload` changed, by names of connections.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ReloadReport {
    /// New ones.
    pub(crate) added: Vec<String>,
    /// Removed ones.
    pub(crate) removed: Vec<String>,
    /// Changed ones: closed, and opened again as configured.
    pub(crate) changed: Vec<String>,
    /// Untouched ones.
    pub(crate) unchanged: Vec<String>,
    /// Warnings about the configuration.
    pub(crate) warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip_in_the_documented_form() {
        let up = Request::Up {
            connection: "hosts".into(),
            child: Some("pods".into()),
            timeout_ms: 30_000,
        };
        assert_eq!(
            up.to_line(),
            concat!(
                r#"{"version":1,"command":"up","connection":"hosts","child":"pods","timeout_ms":30000}"#,
                "\n"
            )
        );
        let down = |target| Request::Down {
            target,
            timeout_ms: 1,
        };
        let requests = [
            up,
            Request::Status,
            Request::List,
            Request::Overview {
                name: Some("pods".into()),
            },
            Request::Reload,
            Request::Secrets,
            Request::Watch,
            Request::Establish {
                source: IpAddr::from([10, 0, 1, 13]),
                destination: IpAddr::from([10, 0, 1, 241]),
                flow: Some((6, 0, 27017)),
            },
            Request::Redirect {
                connection: "hosts".into(),
                to: IpAddr::from([192, 0, 2, 7]),
            },
            Request::Change {
                name: "pods".into(),
                to: ChildChange::Unload,
            },
            down(DownTarget::All),
            down(DownTarget::Connection("a".into())),
            down(DownTarget::Whole("a".into())),
            down(DownTarget::Child {
                connection: "a".into(),
                child: "b".into(),
            }),
        ];
        for request in requests {
            assert_eq!(
                Request::from_line(request.to_line().as_bytes()),
                Ok(request)
            );
        }
    }

    #[test]
    fn replies_round_trip() {
        let replies = [
            Reply::Progress("sent".into()),
            Reply::done(&serde_json::json!({"a": 1})),
            Reply::Failed(Failure::new(ExitClass::Refused, "no")),
        ];
        for reply in replies {
            assert_eq!(Reply::from_line(reply.to_line().as_bytes()), Ok(reply));
        }
    }

    #[test]
    fn another_version_is_named() {
        let failure = Request::from_line(br#"{"version":7,"command":"fly"}"#).unwrap_err();
        assert!(failure.message.contains("version 7"), "{failure}");
        let failure = Reply::from_line(br#"{"version":7}"#).unwrap_err();
        assert!(failure.message.contains("version 7"), "{failure}");
    }

    #[test]
    fn garbage_is_refused() {
        for line in [
            "",
            "x",
            "[]",
            "{}",
            r#"{"version":1}"#,
            r#"{"version":1,"command":"fly"}"#,
        ] {
            assert!(Request::from_line(line.as_bytes()).is_err(), "{line}");
            assert!(Reply::from_line(line.as_bytes()).is_err(), "{line}");
        }
    }
}
