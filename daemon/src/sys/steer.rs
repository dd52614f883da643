//! Which of several like sockets gets a packet of ESP: that of the worker whose the SA is, as its SPI
//! tells. Programs for the kernel's packet filter; `BPF_...` of `linux/bpf_common.h`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::sock_filter;

/// Number of the worker that opens packets of an SPI, of so many workers.
pub(crate) fn worker_of(spi: u32, workers: usize) -> usize {
    spi as usize % QUEUES as usize % workers
}

/// SPIs tell so many queues apart.
const QUEUES: u32 = obol_ike::event::EspSpi::QUEUES as u32;

/// Has the first of `workers` sockets that were bound to one UDP port get what is no ESP, and each of
/// them the SPIs of its worker; SPIs of the upper half go to one more socket, which was bound after
/// them, if it is there. Any of them may be given.
///
/// # Errors
/// The system cannot do it: what each socket gets is then a matter of addresses and ports.
pub(crate) fn share_port(fd: impl AsFd, workers: usize, one_more: bool) -> io::Result<()> {
    let [mask, modulo] = worker(workers);
    let upper = [upper_half(0, 1), op(0x06, workers as u32)];
    let upper = if one_more { &upper[..] } else { &[] };
    // Of what is shorter than an SPI, the load makes 0, and so does the non-ESP marker.
    let program = [&[load(0x20, 0)], upper, &[mask, modulo, op(0x16, 0)]].concat();
    attach(fd, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Has a raw socket of ESP, each of which gets everything, take the SPIs of one worker alone, and none
/// of the upper half if it is to take `lower` ones only. What is too short for an SPI is dropped.
///
/// # Errors
/// The system cannot do it.
pub(crate) fn take_only(
    fd: impl AsFd,
    v4: bool,
    (own, workers): (usize, usize),
    lower: bool,
) -> io::Result<()> {
    let [mask, modulo] = worker(workers);
    let is_own = sock_filter {
        code: 0x15,
        jt: 0,
        jf: 1,
        k: own as u32,
    };
    let end = [mask, modulo, is_own, op(0x06, u32::MAX), op(0x06, 0)];
    // Over IPv4 the header comes first, and tells its own length.
    let v4_start = [load(0xb1, 0), load(0x40, 0)];
    let v6_start = [load(0x20, 0)];
    let start = if v4 { &v4_start[..] } else { &v6_start[..] };
    // To the last of those that follow.
    let upper = [upper_half(4, 0)];
    let upper = if lower { &upper[..] } else { &[] };
    attach(fd, libc::SO_ATTACH_FILTER, &[start, upper, &end].concat())
}

/// Where to go on, so many instructions further, with an SPI of the upper half, and with others.
fn upper_half(jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: 0x45,
        jt,
        jf,
        k: 1 << 31,
    }
}

/// From the SPI to the number of its worker.
fn worker(workers: usize) -> [sock_filter; 2] {
    [op(0x54, QUEUES - 1), op(0x94, workers as u32)]
}

fn load(code: u16, at: u32) -> sock_filter {
    op(code, at)
}

fn op(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn attach(fd: impl AsFd, option: i32, program: &[sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the descriptor is open as long as `fd` is borrowed. The kernel reads one `sock_fprog`,
    // which lives until the call returns, and the instructions that it points to, which are borrowed
    // for as long, and does not write to them.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
