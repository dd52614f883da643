//! Socket options that neither socket2 nor rustix has.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets one integer option.
///
/// # Errors
/// What the system says: the option is unknown, or not allowed.
pub(crate) fn set(fd: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_octets(fd, level, name, &value.to_ne_bytes())
}

/// Sets one option whose value is a structure.
///
/// # Errors
/// As [`set`].
pub(crate) fn set_octets(fd: impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open as long as `fd` is borrowed; the pointer and the length
    // describe `value`, which is borrowed until the call returns and which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
