//! nf_tables over netlink, as much of it as the guard needs.
//!
//! Written out here because a bare machine has no `nft` program, and the crates that do without
//! it wrap a C library.

pub(super) mod attr;
mod expr;
mod table;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use crate::sys::sockopt;
use attr::{Attributes, attributes, find};
pub(super) use expr::{Base, Meta, Rule, Verdict};
pub(crate) use table::LoadedTable;
pub(super) use table::Table;

/// The kernel's number for "IPv4 and IPv6".
const INET: u8 = 1;
/// Octets of a netlink header, and of the one of netfilter behind it.
const HEADER: usize = 16;
const NF_HEADER: usize = 4;
/// nf_tables among the subsystems of netfilter.
const SUBSYSTEM: u16 = 10;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_SET: u16 = 9;
const NEW_SET_ELEMENT: u16 = 12;

/// Octets that one batch may have: some thousand rules.
const BATCH_MAX: usize = 8 << 20;

/// How long the kernel may take for an answer that it gives at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a chain hangs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Hook {
    /// `filter`, `nat` or `route`.
    pub(super) kind: &'static str,
    /// Which hook.
    pub(super) hook: HookNumber,
    /// Lower comes first.
    pub(super) priority: i32,
}

/// The hooks that the guard uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HookNumber {
    /// Every packet that came in.
    Prerouting = 0,
    /// Every packet of this host itself.
    Output = 3,
    /// Every packet that leaves.
    Postrouting = 4,
}

/// Changes to one table that the kernel makes all at once or not at all.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    table: String,
    octets: Vec<u8>,
    /// Where the last message starts.
    last: usize,
}

impl Batch {
    /// A batch that makes the table anew, empty.
    pub(super) fn replacing(table: &str) -> Self {
        let mut batch = Self::removing(table);
        batch.table_message(NEW_TABLE, CREATE);
        batch
    }

    /// A batch that removes the table, whether there is one or not.
    pub(super) fn removing(table: &str) -> Self {
        let mut batch = Self::changing(table);
        // What is not there cannot be deleted: made first, it is there.
        batch.table_message(NEW_TABLE, CREATE);
        batch.table_message(DEL_TABLE, 0);
        batch
    }

    /// A batch for a table that is there.
    fn changing(table: &str) -> Self {
        let mut batch = Self {
            table: table.to_owned(),
            octets: Vec::new(),
            last: 0,
        };
        let header = nf_header(0, SUBSYSTEM);
        batch.message(BATCH_BEGIN, REQUEST, &header, &Attributes::default());
        batch
    }

    /// Whether it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.last == 0
    }

    /// Adds a chain; without a hook, rules lead to it.
    pub(super) fn chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut chain = Attributes::default();
        chain.put_name(1, &self.table).put_name(3, name);
        if let Some(hook) = hook {
            let mut place = Attributes::default();
            place
                .put_u32(1, hook.hook as u32)
                .put(2, &hook.priority.to_be_bytes());
            chain.put_list(4, &place).put_name(7, hook.kind);
        }
        self.nf_message(NEW_CHAIN, CREATE, &chain);
    }

    /// Adds a rule at the end of a chain.
    pub(super) fn rule(&mut self, chain: &str, rule: &Rule) {
        let mut message = Attributes::default();
        message
            .put_name(1, &self.table)
            .put_name(2, chain)
            .put_list(4, rule.expressions());
        self.nf_message(NEW_RULE, CREATE | APPEND, &message);
    }

    /// Has the kernel do it.
    ///
    /// # Errors
    /// What the kernel says; then nothing has changed.
    pub(super) fn commit(mut self) -> io::Result<()> {
        // Only the last message asks for an answer. Errors of any come before it, in order.
        let flags = self.last + 6..self.last + 8;
        let set = u16::from_ne_bytes([self.octets[flags.start], self.octets[flags.start + 1]]);
        self.octets[flags].copy_from_slice(&(set | ACK).to_ne_bytes());
        let header = nf_header(0, SUBSYSTEM);
        self.message(BATCH_END, REQUEST, &header, &Attributes::default());
        let socket = open()?;
        send(&socket, &self.octets)?;
        let answer = receive(&socket)?;
        match messages(&answer).next() {
            Some((ERROR, body)) => outcome(body),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn table_message(&mut self, kind: u16, flags: u16) {
        let mut table = Attributes::default();
        table.put_name(1, &self.table);
        self.nf_message(kind, flags, &table);
    }

    fn nf_message(&mut self, kind: u16, flags: u16, attributes: &Attributes) {
        let header = nf_header(INET, 0);
        self.message(SUBSYSTEM << 8 | kind, REQUEST | flags, &header, attributes);
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8; NF_HEADER],
        attributes: &Attributes,
    ) {
        self.last = self.octets.len();
        let message = message(kind, flags, header, attributes);
        self.octets.extend(message);
    }
}

/// Packets and bytes of the first counter in a chain; `None`: no such chain.
///
/// # Errors
/// What the kernel says.
pub(super) fn counter(table: &str, chain: &str) -> io::Result<Option<(u64, u64)>> {
    let socket = open()?;
    let mut wanted = Attributes::default();
    wanted.put_name(1, table).put_name(2, chain);
    let kind = SUBSYSTEM << 8 | GET_RULE;
    let request = message(kind, REQUEST | DUMP, &nf_header(INET, 0), &wanted);
    send(&socket, &request)?;
    let mut found = None;
    loop {
        let answer = receive(&socket)?;
        for (kind, body) in messages(&answer) {
            match kind {
                DONE => return Ok(found),
                ERROR => return outcome(body).map(|()| found),
                _ => found = found.or_else(|| read_counter(body.get(NF_HEADER..)?, chain)),
            }
        }
    }
}

/// The counter in a rule, if the rule is of this chain.
fn read_counter(rule: &[u8], chain: &str) -> Option<(u64, u64)> {
    let name = find(rule, 2)?;
    if name.strip_suffix(&[0])? != chain.as_bytes() {
        return None;
    }
    attributes(find(rule, 4)?).find_map(|(_, expression)| {
        if find(expression, 1)? != b"counter\0" {
            return None;
        }
        let data = find(expression, 2)?;
        let number = |kind| Some(u64::from_be_bytes(find(data, kind)?.try_into().ok()?));
        Some((number(2)?, number(1)?))
    })
}

fn open() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

fn send(socket: &OwnedFd, octets: &[u8]) -> io::Result<()> {
    if octets.len() > 64 << 10 {
        let size = i32::try_from(octets.len().min(BATCH_MAX) * 2).expect("16 MiB fit");
        sockopt::set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size)?;
    }
    rustix::net::send(socket, octets, SendFlags::empty())?;
    Ok(())
}

fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    // The kernel fills at most 32 KiB per datagram of an answer.
    let mut buffer = vec![0; 64 << 10];
    let (len, _) = rustix::net::recv(socket, &mut buffer, RecvFlags::empty())?;
    buffer.truncate(len);
    Ok(buffer)
}

fn nf_header(family: u8, resource: u16) -> [u8; NF_HEADER] {
    let resource = resource.to_be_bytes();
    [family, 0, resource[0], resource[1]]
}

fn message(kind: u16, flags: u16, header: &[u8; NF_HEADER], list: &Attributes) -> Vec<u8> {
    let len = HEADER + NF_HEADER + list.octets().len();
    let mut octets = Vec::with_capacity(len);
    octets.extend((len as u32).to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend(flags.to_ne_bytes());
    // Sequence number and port: one question per socket needs neither.
    octets.extend([0; 8]);
    octets.extend(header);
    octets.extend(list.octets());
    octets
}

/// The messages in a datagram: type, and what follows the netlink header.
fn messages(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = octets.first_chunk()?;
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = octets.get(HEADER..len)?;
        octets = octets.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// What an error message says: 0 is success.
fn outcome(body: &[u8]) -> io::Result<()> {
    let code: &[u8; 4] = body.first_chunk().ok_or(io::ErrorKind::InvalidData)?;
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}
