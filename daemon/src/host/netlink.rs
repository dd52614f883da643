//! A netlink connection for routes, rules, links and addresses, that ends with its value.

use std::io;
use std::ops::Deref;

use rtnetlink::Handle;
use tokio::task::JoinHandle;

use crate::dataplane::DataPlaneError;

/// A connection in the network namespace of the calling thread; must be made and used within a
/// tokio runtime.
#[derive(Debug)]
pub(crate) struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Netlink {
    /// Connects.
    ///
    /// # Errors
    /// The system has no socket for us.
    pub(crate) fn connect() -> Result<Self, DataPlaneError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| DataPlaneError::system("cannot open a netlink socket", source))?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }
}

impl Deref for Netlink {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What the system said to a netlink request.
pub(crate) fn refused(what: impl Into<String>, error: rtnetlink::Error) -> DataPlaneError {
    DataPlaneError::system(what, to_io(error))
}

/// The system's error number, if the answer is one.
pub(crate) fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

/// Whether what was to be added is there already.
pub(crate) fn exists(error: &rtnetlink::Error) -> bool {
    has_number(error, libc::EEXIST)
}

/// Whether what was to be removed is gone already.
pub(crate) fn gone(error: &rtnetlink::Error) -> bool {
    has_number(error, libc::ESRCH) || has_number(error, libc::ENOENT)
}

fn has_number(error: &rtnetlink::Error, number: i32) -> bool {
    let rtnetlink::Error::NetlinkError(message) = error else {
        return false;
    };
    message.to_io().raw_os_error() == Some(number)
}

/// Whether this host lacks the address family that was asked about.
pub(crate) fn lacks_family(error: &rtnetlink::Error) -> bool {
    has_number(error, libc::EAFNOSUPPORT) || has_number(error, libc::EOPNOTSUPP)
}
