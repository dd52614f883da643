//! Leaving the network namespace of the process, for one thread.

use rustix::thread::UnshareFlags;
use std::io;

/// Gives the calling thread a new, empty network namespace.
///
/// # Errors
/// `PermissionDenied` without CAP_SYS_ADMIN.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: what makes `unshare` unsafe is CLONE_FILES, after which a descriptor may mean
    // another file in this thread than elsewhere. Only CLONE_NEWNET is passed: the table of
    // descriptors and all memory stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}
