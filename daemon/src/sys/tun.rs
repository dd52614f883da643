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
    /// Creates the device `name` with so many queues; reads and writes do not wait. A queue is one
    /// value. Flows are spread over the queues that are [turned on](Self::turn), at first the first;
    /// what is written into one has the answers come out of it.
    ///
    /// # Errors
    /// `ENOENT`: this system has no `/dev/net/tun`. `EPERM`: CAP_NET_ADMIN is missing. `EBUSY`:
    /// another process has a device of this name. `EINVAL`: the name is no interface name, or
    /// another kind of interface has it.
    pub(crate) fn open(name: &str, queues: usize) -> io::Result<Vec<Self>> {
        if queues <= 1 {
            return Ok(vec![Self::queue(name, 0)?]);
        }
        // Other processes could have queues of the same device.
        let mut all = vec![Self::queue(
            name,
            libc::IFF_MULTI_QUEUE | libc::IFF_TUN_EXCL,
        )?];
        for _ in 1..queues {
            let queue = Self::queue(name, libc::IFF_MULTI_QUEUE)?;
            queue.turn(false)?;
            all.push(queue);
        }
        Ok(all)
    }

    fn queue(name: &str, flags: libc::c_int) -> io::Result<Self> {
        if name.is_empty() || name.len() > NAME_MAX || name.contains(['\0', '/', '%']) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let how = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/net/tun", how, Mode::empty())?;
        attach(fd.as_fd(), name, flags)?;
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

    /// Turns a queue of several on or off. One that is off gets nothing, takes nothing, and loses what
    /// is in it.
    ///
    /// # Errors
    /// The device was deleted.
    pub(crate) fn turn(&self, on: bool) -> io::Result<()> {
        let flags = match on {
            true => libc::IFF_ATTACH_QUEUE,
            false => libc::IFF_DETACH_QUEUE,
        };
        request(self.fd.as_fd(), libc::TUNSETQUEUE as _, "", flags)
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

fn attach(fd: BorrowedFd<'_>, name: &str, flags: libc::c_int) -> io::Result<()> {
    let flags = flags | libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request(fd, libc::TUNSETIFF as _, name, flags)
}

/// Makes a request that takes an `ifreq`.
fn request(
    fd: BorrowedFd<'_>,
    what: libc::Ioctl,
    name: &str,
    flags: libc::c_int,
) -> io::Result<()> {
    // SAFETY: `ifreq` is a C struct of integers and arrays of them (its union included), for
    // which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, octet) in request.ifr_name.iter_mut().zip(name.bytes().take(NAME_MAX)) {
        *place = octet as c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open as long as it is borrowed. TUNSETIFF and TUNSETQUEUE read and
    // write one `ifreq` at most, which is what the pointer leads to, and which lives until the call
    // returns.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), what, &raw mut request) };
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
