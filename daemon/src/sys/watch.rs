//! File descriptors that the tokio runtime watches.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers `fd` with the current runtime.
///
/// # Errors
/// What the system says.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open as long as it lives, and names the same descriptor all that
    // time. It is moved into the `AsyncFd`, and nobody takes it out or swaps it there.
    let watched = unsafe { AsyncFd::register(fd) };
    Ok(watched?)
}
