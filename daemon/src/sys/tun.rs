//! A TUN device: IP packets in and out of a file descriptor, each behind a header that says what
//! is left to be done to it ([`obol_esp::Offload`]). With offloads, one that is read or written
//! may stand for many, which is what makes it fast.
//!
//! The device is not persistent: it goes with its last descriptor, and its routes with it.

use std::ffi::c_char;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// Longest interface name in octets.
pub(crate) const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// An open TUN device in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Tun {
    fd: OwnedFd,
    name: String,
    udp: bool,
}

/// Checksums, and TCP segmentation over both families, with ECN (`TUN_F_...` of
/// `linux/if_tun.h`).
const OFFLOADS: libc::c_uint = 0x01 | 0x02 | 0x04 | 0x08;
/// UDP segmentation over both families, since Linux 6.2.
const OFFLOADS_UDP: libc::c_uint = 0x20 | 0x40;

impl Tun {
    /// Creates the device `name`; reads and writes do not wait.
    ///
    /// # Errors
    /// `ENOENT`: this system has no `/dev/net/tun`. `EPERM`: CAP_NET_ADMIN is missing. `EBUSY`:
    /// another process has a device of this name. `EINVAL`: the name is no interface name, or
    /// another kind of interface has it.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() > NAME_MAX || name.contains(['\0', '/', '%']) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        attach(fd.as_fd(), name)?;
        let udp = offload(fd.as_fd(), OFFLOADS | OFFLOADS_UDP).is_ok();
        if !udp {
            offload(fd.as_fd(), OFFLOADS)?;
        }
        Ok(Self {
            fd,
            name: name.to_owned(),
            udp,
        })
    }

    /// Whether it takes frames that stand for several packets of UDP.
    pub(crate) fn takes_udp_frames(&self) -> bool {
        self.udp
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Reads one frame that the system sends into the device; its length.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. `EBADFD`: the device was deleted.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }

    /// Hands one frame to the system as received by the device.
    ///
    /// # Errors
    /// `EIO`: the device is down. `EINVAL`: not an IP packet, or its header is wrong.
    pub(crate) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        rustix::io::writev(&self.fd, parts)?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn attach(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // SAFETY: `ifreq` is a C struct of integers and arrays of them (its union included), for
    // which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, octet) in request.ifr_name.iter_mut().zip(name.bytes().take(NAME_MAX)) {
        *place = octet as c_char;
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open as long as it is borrowed. TUNSETIFF reads and writes one
    // `ifreq`, which is what the pointer leads to, and which lives until the call returns.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Says what the system may leave to us, and we to it.
fn offload(fd: BorrowedFd<'_>, what: libc::c_uint) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as it is borrowed, and TUNSETOFFLOAD takes its
    // argument by value.
    let result = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETOFFLOAD as _,
            libc::c_ulong::from(what),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
