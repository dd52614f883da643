//! XFRM: the SAs and policies of the kernel, over netlink.
//!
//! Encoded here because the crate for it (`netlink-packet-xfrm`) copies keys into buffers that
//! nobody wipes and prints them with `Debug`, and because it lacks what newer kernels have. What
//! comes from the kernel is read with every length checked.

mod device;
mod notice;
mod policy;
mod scope;
mod selector;
mod socket;
mod state;
mod wire;

use std::io;
use std::net::IpAddr;

#[cfg(test)]
pub(crate) use crate::host::nft::attr::find as find_attribute;
pub(crate) use device::Device;
pub(crate) use notice::Notice;
pub(crate) use policy::{Direction, Key, Policy, Rule, Template, socket_bypass};
pub(crate) use scope::{Mark, Scope};
pub(crate) use selector::{Ports, Selector};
pub(crate) use socket::{Notices, Socket};
pub(crate) use state::{
    Algorithm, Copied, Encap, HEADWAY, Move, NewState, Offload, State, StateId,
};
pub(crate) use wire::Message;
use zeroize::Zeroizing;

/// IP protocol of ESP.
const ESP: u8 = 50;

/// The kernel's side: requests and their answers.
pub(crate) trait Xfrm {
    /// Has a request carried out.
    ///
    /// # Errors
    /// What the kernel says; then nothing has changed.
    fn carry_out(&self, message: Message) -> Result<(), Refusal>;
    /// Asks for a state: the body of the answer, which has its keys.
    ///
    /// # Errors
    /// `ESRCH`: there is none.
    fn state(&self, id: StateId) -> Result<Zeroizing<Vec<u8>>, Refusal>;
    /// All states of ESP.
    ///
    /// # Errors
    /// What the kernel says.
    fn states(&self) -> Result<Vec<State>, Refusal>;
    /// All policies but those of sockets.
    ///
    /// # Errors
    /// What the kernel says.
    fn policies(&self) -> Result<Vec<Policy>, Refusal>;
    /// The device that packets with this mark take.
    ///
    /// # Errors
    /// There is no way, or the system does not tell.
    fn device(&self, source: IpAddr, destination: IpAddr, mark: u32) -> Result<Device, Refusal>;
}

/// The kernel did not do it.
#[derive(Debug, thiserror::Error)]
#[error("{source}{}", .words.as_ref().map(|words| format!(" ({words})")).unwrap_or_default())]
pub(crate) struct Refusal {
    /// Its error number.
    #[source]
    pub(crate) source: io::Error,
    /// What it says about it.
    pub(crate) words: Option<String>,
}

impl Refusal {
    /// Whether the kernel gave this number.
    pub(crate) fn is(&self, number: i32) -> bool {
        self.source.raw_os_error() == Some(number)
    }

    /// Whether what it was about is not there.
    pub(crate) fn gone(&self) -> bool {
        self.is(libc::ESRCH) || self.is(libc::ENOENT)
    }
}

impl From<io::Error> for Refusal {
    fn from(source: io::Error) -> Self {
        Self {
            source,
            words: None,
        }
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}
