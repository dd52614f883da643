//! What goes over the control socket: one JSON object per line, a request, then its replies.
//!
//! ```text
//! -> {"version":1,"command":"up","connection":"hosts","child":"pods","timeout_ms":30000}
//! <- {"version":1,"progress":"{\"ike\":1,\"peer\":\"192.168.0.2:500\",\"step\":\"begun\"}"}
//! <- {"version":1,"ok":true,"data":{...}}
//! <- {"version":1,"ok":false,"code":4,"error":"..."}
//! ```
//!
//! Any number of progress lines, then one line with `ok`, which ends the exchange.

mod list;
mod overview;
mod secret;
mod status;
mod step;

use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::changes::ChildChange;
use crate::error::{ExitClass, Failure};
pub(crate) use list::{AuthReport, CarrierReport, ChildReport, ConnectionReport, ListReport};
pub(crate) use overview::{OfferReport, OverviewReport};
pub(crate) use secret::{KeysReport, OneWay, SecretJson};
pub(crate) use status::{
    Absence, ChildSaReport, DaemonReport, EndReport, GeneratedReport, IkeAlgorithmsReport,
    IkeSaReport, Names, NatReport, NotLoaded, PolicyReport, PolicyState, ProofReport, StatusReport,
    WrittenEnd,
};
pub(crate) use step::{StepKind, StepReport};

/// Version of requests and replies. Raised by changes that an older end would misread.
pub(crate) const VERSION: u32 = 1;

/// Version of [`StatusReport`] and [`ListReport`]. Raised when a field changes or goes; new
/// fields do not raise it.
pub(crate) const SCHEMA_VERSION: u32 = 2;

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
    /// Bring up a connection, or one child of it, and wait for it; answered by [`UpReport`], after a
    /// [`StepReport`] for each step.
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
    /// Close one SA by its number; what is to be up comes again. Answered by nothing more.
    CloseSa(SaName),
    /// Rekey the IKE SA of a connection, or the Child SAs of one child; answered by nothing more, once it is
    /// begun.
    Rekey {
        /// Name of the connection.
        connection: String,
        /// Name of the child; `None`: the IKE SA.
        child: Option<String>,
    },
    /// Which shared secrets of pluto's files there are, and whose; answered by [`PsksReport`].
    Psks,
    /// Read the configuration again; answered by [`ReloadReport`].
    Reload,
    /// Look at our addresses again, and with pluto's files at which connections are this host's; what is loaded
    /// stays as it is.
    Listen,
    /// Read secrets and private keys again, and leave connections as they are; answered by
    /// [`SecretsReport`].
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

/// One SA, by the number that [`StatusReport`] has of it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SaName {
    /// An IKE SA, with its Child SAs.
    Ike(u64),
    /// A Child SA.
    Child(u64),
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
    /// There are none yet, and why: what the name means is another host's, or not routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) waits: Option<NotLoaded>,
}

impl From<Vec<(String, String)>> for ChangeReport {
    fn from(children: Vec<(String, String)>) -> Self {
        let waits = None;
        Self { children, waits }
    }
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

/// Shared secrets of pluto's files, without what is secret.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct PsksReport {
    /// The file that the others are included from.
    pub(crate) file: String,
    /// Each record, in order.
    pub(crate) records: Vec<PskReport>,
}

/// One of them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct PskReport {
    /// Where it is: `FILE:LINE`.
    pub(crate) place: String,
    /// For whom it is; none: for all.
    pub(crate) ids: Vec<String>,
    /// The connections that use it.
    pub(crate) used_by: Vec<String>,
}

/// Where secrets were read from again.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct SecretsReport {
    /// The files.
    pub(crate) files: Vec<String>,
    /// What is not good about them.
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
            Request::Listen,
            Request::Psks,
            Request::CloseSa(SaName::Ike(7)),
            Request::CloseSa(SaName::Child(8)),
            Request::Rekey {
                connection: "hosts".into(),
                child: Some("pods".into()),
            },
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
