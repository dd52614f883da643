//! How far a negotiation is: a progress line for each step, as JSON of its own, to those who wait for an `up`.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::IkeAlgorithmsReport;

/// A step.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct StepReport {
    /// The number of the IKE SA; 0 where it is not known.
    pub(crate) ike: u64,
    /// The peer's address and port.
    pub(crate) peer: SocketAddr,
    /// What it is.
    #[serde(flatten)]
    pub(crate) kind: StepKind,
}

/// What a step is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(crate) enum StepKind {
    /// The request is out that begins an IKE SA.
    Begun,
    /// It was answered, and the IKE_AUTH request is out.
    Proving {
        /// What the answer has chosen.
        algorithms: IkeAlgorithmsReport,
    },
    /// The request for a Child SA is out.
    Asked {
        /// The number that it will have.
        child: u64,
        /// Its name.
        name: String,
        /// SPI of packets to us, 8 hex digits.
        spi_in: String,
    },
    /// A request without answer went out again.
    Repeated {
        /// `IKE_SA_INIT`, `IKE_AUTH`, `CREATE_CHILD_SA`.
        exchange: String,
        /// Milliseconds until it does so once more.
        after_ms: u64,
    },
    /// The peer answered no more.
    Silent {
        /// Requests without answer, the first included.
        tries: u32,
        /// Milliseconds since the first.
        after_ms: u64,
    },
    /// The peer refused the IKE SA.
    Refused {
        /// With this notify.
        notify: String,
    },
    /// The peer refused the Child SA.
    ChildRefused {
        /// With this notify.
        notify: String,
    },
}

impl StepReport {
    /// As a progress line.
    pub(crate) fn to_text(&self) -> String {
        // Without maps and floats, nothing can fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Of a progress line; `None`: it is about something else.
    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// For people.
impl fmt::Display for StepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer;
        match &self.kind {
            StepKind::Begun => write!(f, "a new IKE SA is asked of {peer}"),
            StepKind::Proving { algorithms } => write!(
                f,
                "{peer} answers with {}, {}, {}; identities are proven",
                algorithms.encr, algorithms.prf, algorithms.ke
            ),
            StepKind::Asked { name, .. } => write!(f, "{peer} is asked for {name}"),
            StepKind::Repeated { exchange, .. } => {
                write!(f, "{peer} has not answered {exchange}: sent again")
            }
            StepKind::Silent { .. } => write!(f, "{peer} does not answer"),
            StepKind::Refused { notify } | StepKind::ChildRefused { notify } => {
                write!(f, "{peer} answers {notify}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_round_trip_as_text_and_have_words() {
        let algorithms = IkeAlgorithmsReport {
            encr: "AES_GCM_16-256".into(),
            integ: None,
            prf: "PRF_HMAC_SHA2_512".into(),
            ke: "ECP_256".into(),
        };
        let notify = || "TS_UNACCEPTABLE".to_owned();
        let kinds = [
            (StepKind::Begun, "a new IKE SA is asked of 192.0.2.1:500"),
            (
                StepKind::Proving { algorithms },
                "answers with AES_GCM_16-256",
            ),
            (
                StepKind::Asked {
                    child: 3,
                    name: "pods".into(),
                    spi_in: "0000beef".into(),
                },
                "is asked for pods",
            ),
            (
                StepKind::Repeated {
                    exchange: "IKE_AUTH".into(),
                    after_ms: 700,
                },
                "has not answered IKE_AUTH",
            ),
            (
                StepKind::Silent {
                    tries: 3,
                    after_ms: 1,
                },
                "does not answer",
            ),
            (StepKind::Refused { notify: notify() }, "TS_UNACCEPTABLE"),
            (
                StepKind::ChildRefused { notify: notify() },
                "TS_UNACCEPTABLE",
            ),
        ];
        for (kind, words) in kinds {
            let peer = "192.0.2.1:500".parse().unwrap();
            let step = StepReport { ike: 7, peer, kind };
            assert_eq!(StepReport::read(&step.to_text()).as_ref(), Some(&step));
            assert!(step.to_string().contains(words), "{step}");
        }
        assert_eq!(StepReport::read("Phase 1 established"), None);
    }
}
