//! Socket options with an integer value that neither socket2 nor rustix has.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets one integer option.
///
/// # Errors
/// What the system says: the option is unknown, or not allowed.
pub(crate) fn set(fd: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `fd` is borrowed; the pointer and the length
    // describe `value`, which lives until the call returns and which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
