//! What pluto's client is told of thousands of conns: state and configuration in one, without what it does not
//! print.

use serde::{Deserialize, Serialize};

use super::{ListReport, StatusReport};

/// State and configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct OverviewReport {
    /// The state, with those policies alone that are of no connection, and of names that which was asked
    /// about.
    pub(crate) status: StatusReport,
    /// The configuration: in place of proposals, what those for ESP come to.
    pub(crate) list: ListReport,
}

/// What the ESP proposals of a child come to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct OfferReport {
    /// Some have a key exchange of their own.
    pub(crate) pfs: bool,
    /// Some have extended sequence numbers.
    pub(crate) esn: bool,
    /// Some have none.
    pub(crate) no_esn: bool,
}
