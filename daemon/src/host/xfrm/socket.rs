//! The netlink sockets of XFRM: one for requests, one for what the kernel says unasked.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;
use zeroize::Zeroizing;

use super::notice::GROUPS;
use super::wire::{Incoming, Message, incoming, u32_at};
use super::{Device, Notice, Policy, Refusal, State, StateId, Xfrm, device, policy, state};
use crate::host::nft::attr::find;
use crate::sys::sockopt;

/// How long the kernel may take. It loads modules and tests their algorithms before it answers to
/// the first state of a kind.
const PATIENCE: Duration = Duration::from_secs(60);

/// Octets of one answer: the kernel fills at most 32 KiB.
const BUFFER: usize = 64 << 10;
/// Octets of notices that may wait for us.
const NOTICES: i32 = 4 << 20;

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The error message has attributes, and the request is not in it.
const WITH_ATTRIBUTES: u16 = 0x200;
/// The list may miss something: it was changed while it was told.
const INTERRUPTED: u16 = 0x10;
/// The attribute of an error message with words.
const WORDS: u16 = 1;
/// `struct nlmsgerr`: the number, and the header of the request.
const ERROR_LEN: usize = 20;

const SOL_NETLINK: i32 = 270;
const CAP_ACK: i32 = 10;
const EXT_ACK: i32 = 11;

/// Times that a list is asked for until it was not changed meanwhile.
const TRIES: usize = 5;

/// The socket for requests, in the network namespace of the thread that made it.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    port: u32,
    sequence: Cell<u32>,
}

impl Socket {
    /// Opens it.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT`: this kernel has no XFRM. Else what the system says.
    pub(crate) fn open() -> io::Result<Self> {
        let (socket, port) = open(0, SocketFlags::CLOEXEC)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        // Errors with words, and without our request: it may have keys.
        for option in [CAP_ACK, EXT_ACK] {
            sockopt::set(&socket, SOL_NETLINK, option, 1)?;
        }
        Ok(Self {
            socket,
            port,
            sequence: Cell::new(0),
        })
    }

    /// Names this socket in notices about what it caused.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    fn send(&self, message: &mut Message, acknowledged: bool) -> io::Result<u32> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let octets = message.seal(sequence, self.port, acknowledged);
        rustix::net::send(&self.socket, octets, SendFlags::empty())?;
        Ok(sequence)
    }

    /// Hands every message of the answer to `each`, until that says that it has enough, or the
    /// kernel that it was all.
    fn answers(
        &self,
        sequence: u32,
        mut each: impl FnMut(&Incoming<'_>) -> bool,
    ) -> Result<(), Refusal> {
        let mut buffer = Zeroizing::new(vec![0; BUFFER]);
        loop {
            let (len, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            for message in incoming(&buffer[..len]) {
                // What is late belongs to a request that was given up.
                if message.sequence != sequence {
                    continue;
                }
                match message.kind {
                    ERROR => return outcome(&message),
                    DONE => return Ok(()),
                    _ if each(&message) => return Ok(()),
                    _ => {}
                }
            }
        }
    }

    fn list<T>(
        &self,
        ask: fn() -> Message,
        read: fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        for _ in 0..TRIES {
            let mut list = Vec::new();
            let mut whole = true;
            let sequence = self.send(&mut ask(), false)?;
            self.answers(sequence, |message| {
                whole &= message.flags & INTERRUPTED == 0;
                list.extend(read(message.body));
                false
            })?;
            if whole {
                return Ok(list);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR).into())
    }
}

impl Xfrm for Socket {
    fn carry_out(&self, mut message: Message) -> Result<(), Refusal> {
        let sequence = self.send(&mut message, true)?;
        self.answers(sequence, |_| false)
    }

    fn state(&self, id: StateId) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let sequence = self.send(&mut id.get(), false)?;
        let mut found = None;
        self.answers(sequence, |message| {
            found = Some(Zeroizing::new(message.body.to_vec()));
            true
        })?;
        found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData).into())
    }

    fn states(&self) -> Result<Vec<State>, Refusal> {
        self.list(state::dump, State::read)
    }

    fn policies(&self) -> Result<Vec<Policy>, Refusal> {
        self.list(policy::dump, Policy::read)
    }

    fn device(&self, source: IpAddr, destination: IpAddr, mark: u32) -> Result<Device, Refusal> {
        device::between(source, destination, mark)
    }
}

/// What an error message says: 0 is success.
fn outcome(message: &Incoming<'_>) -> Result<(), Refusal> {
    let number = u32_at(message.body, 0).ok_or(io::ErrorKind::InvalidData);
    let number = number.map_err(io::Error::from)? as i32;
    if number == 0 {
        return Ok(());
    }
    let list = message.body.get(ERROR_LEN..).unwrap_or_default();
    let words = Some(list).filter(|_| message.flags & WITH_ATTRIBUTES != 0);
    let words = words.and_then(|list| find(list, WORDS));
    Err(Refusal {
        source: io::Error::from_raw_os_error(number.saturating_neg()),
        words: words.map(|octets| {
            let text = String::from_utf8_lossy(octets);
            text.trim_end_matches('\0').to_owned()
        }),
    })
}

fn open(groups: u32, flags: SocketFlags) -> io::Result<(OwnedFd, u32)> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        Some(netlink::XFRM),
    )?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    let address = SocketAddrNetlink::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, address.pid()))
}

/// What the kernel says without being asked.
pub(crate) struct Notices {
    socket: AsyncFd<OwnedFd>,
    /// Whose changes are ours, and no news.
    own: u32,
    // States are told with their keys.
    buffer: Zeroizing<Vec<u8>>,
    read: VecDeque<Notice>,
}

impl Notices {
    /// Listens, except to what the socket with the port `own` causes. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn listen(own: u32) -> io::Result<Self> {
        let (socket, _) = open(GROUPS, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        if let Err(error) = sockopt::set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, NOTICES) {
            tracing::warn!(%error, "few notices of the kernel can wait");
        }
        Ok(Self {
            socket: crate::sys::watch::watch(socket)?,
            own,
            buffer: Zeroizing::new(vec![0; BUFFER]),
            read: VecDeque::new(),
        })
    }

    /// The next notice; cancel safe.
    pub(crate) async fn next(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.read.pop_front() {
                return notice;
            }
            let Ok(mut guard) = self.socket.readable().await else {
                return std::future::pending().await;
            };
            let received = rustix::net::recv(
                self.socket.get_ref(),
                &mut self.buffer[..],
                RecvFlags::empty(),
            );
            match received {
                Ok((len, _)) => {
                    let own = self.own;
                    let news = incoming(&self.buffer[..len])
                        .filter(|message| message.port != own)
                        .filter_map(|message| Notice::read(&message));
                    self.read.extend(news);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => guard.clear_ready(),
                // ENOBUFS, in the first place.
                Err(_) => return Notice::Lost,
            }
        }
    }
}
