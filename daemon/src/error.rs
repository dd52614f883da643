//! How a command ends: one class per kind of failure, each with a documented exit code.

use serde::{Deserialize, Serialize};

/// The kind of a failure. The numbers are the exit codes of `obol` and part of its interface.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub(crate) enum ExitClass {
    /// Tried and failed, for a reason that has no class of its own.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The daemon does not run, or what was asked about is not up.
    NotRunning = 3,
    /// The peer refused.
    Refused = 4,
    /// The peer did not answer.
    NoAnswer = 5,
    /// The configuration of this host is wrong.
    Config = 6,
    /// A right or capability is missing.
    NotPermitted = 7,
    /// A firewall or the path blocks.
    Blocked = 8,
    /// A daemon runs already, in whose way this one would be. The number is pluto's.
    AlreadyRuns = 10,
}

impl ExitClass {
    /// All classes, in the order of their codes.
    pub(crate) const ALL: [Self; 9] = [
        Self::Failed,
        Self::Usage,
        Self::NotRunning,
        Self::Refused,
        Self::NoAnswer,
        Self::Config,
        Self::NotPermitted,
        Self::Blocked,
        Self::AlreadyRuns,
    ];

    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

impl From<ExitClass> for u8 {
    fn from(class: ExitClass) -> Self {
        class.code()
    }
}

impl TryFrom<u8> for ExitClass {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|class| class.code() == code)
            .ok_or_else(|| format!("{code} is no exit code of obol"))
    }
}

/// Why a command did not do what it was asked to: what its user reads, and the exit code.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// The exit code's class.
    pub(crate) code: ExitClass,
    /// What went wrong and what to do about it; may have several lines.
    pub(crate) message: String,
}

impl Failure {
    /// A failure of this class.
    pub(crate) fn new(code: ExitClass, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A failed system call: a missing right becomes [`ExitClass::NotPermitted`], all else
    /// [`ExitClass::Failed`]. `what` names the attempt, as in `cannot open /dev/net/tun`.
    pub(crate) fn system(what: impl std::fmt::Display, source: &std::io::Error) -> Self {
        let code = match source.kind() {
            std::io::ErrorKind::PermissionDenied => ExitClass::NotPermitted,
            _ => ExitClass::Failed,
        };
        Self::new(code, format!("{what}: {source}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes: Vec<u8> = ExitClass::ALL.into_iter().map(ExitClass::code).collect();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 8, 10]);
        assert_eq!(ExitClass::try_from(6), Ok(ExitClass::Config));
        assert!(ExitClass::try_from(0).is_err());
    }

    #[test]
    fn a_missing_right_has_its_own_code() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let failure = Failure::system("cannot open /dev/net/tun", &denied);
        assert_eq!(failure.code, ExitClass::NotPermitted);
        assert!(failure.message.starts_with("cannot open /dev/net/tun: "));
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(Failure::system("x", &missing).code, ExitClass::Failed);
    }
}
