//! A worker for packets to us: from its sockets to the TUN. What one call hands over is opened
//! where it lies, and what belongs together is joined across all of it. Its thread mostly does the
//! other direction too ([`lead`](super::lead)).

use std::collections::HashMap;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use obol_esp::{HEADROOM, Joiner, OpenError, Outer, Sad, UdpKind, classify_udp, spi_of};
use obol_ike::config::Path;
use obol_ike::event::{ChildSaId, EspSpi, MovedSa};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;
use socket2::Socket;
use tokio::sync::oneshot;

use super::Shared;
use super::audit::{Audit, Drop, sequence_of};
use super::count::{Drops, Reason};
use super::early::{Early, Held};
use super::lead::{Lead, Load};
use super::others::Others;
use super::place::Place;
use super::sa::In;
use super::strays::Strays;
use super::wake::Orders;
use super::waning::Waning;
use crate::dataplane::{DataPlaneError, DataPlaneEvent};
use crate::ports::{Encapsulation, RawEsp};
use crate::sys::inbox::Inbox;
use crate::sys::msg::{self, Received};
use crate::sys::tun::Tun;

/// Datagrams, or rows of them, with one call.
const BATCH: usize = 32;

/// Octets for packets that need more room before them than there is in a row: any datagram.
const SPARE: usize = HEADROOM + 65_535;

/// Shortest ESP packet of an unknown SPI that is told of, in octets: IKE header, notify with an
/// SPI, and the UDP header that ESP by itself has not.
const HINT_MIN: usize = 28 + 12 + 8;

/// Milliseconds between two such packets.
const HINT_PAUSE: u64 = 100;

/// Place of what other workers pass on, behind the sockets.
const STRAYS: usize = 4;
/// Place of frames of the TUN, where this thread seals them too.
const FRAMES: usize = 5;
/// Place of what commands their sealing.
const SEALING: usize = 6;
/// Places.
const PLACES: usize = 7;

/// Calls for one socket before the others have their turn.
const TURN: usize = 4;

/// What the worker is told.
pub(super) enum Command {
    /// Accept packets of this SA.
    Add(Box<In>, oneshot::Sender<Result<(), DataPlaneError>>),
    /// Expect packets of an SA by another path; whether it is there.
    Move(MovedSa, oneshot::Sender<bool>),
    /// Forget an SA; whether it was there.
    Remove(ChildSaId, oneshot::Sender<bool>),
    /// Use the queues of this device: the one before is gone.
    Tun(Queues),
    /// These packets are for others from here on.
    Others(Arc<Others>, oneshot::Sender<()>),
}

/// The queues of the TUN, one for each outbound worker.
pub(super) type Queues = Arc<[Arc<Tun>]>;

/// The worker.
pub(super) struct Worker {
    orders: Orders<Command>,
    lead: Lead,
    place: Place,
    strays: Arc<Strays>,
    sources: Vec<Source>,
    queues: Queues,
    /// The queue of what is joined.
    queue: usize,
    shared: Arc<Shared>,
    sad: Sad<In>,
    /// The SPIs of each SA.
    spis: HashMap<ChildSaId, Vec<u32>>,
    waning: Waning,
    others: Arc<Others>,
    early: Early,
    audit: Audit,
    inbox: Inbox,
    joiner: Joiner,
    /// What came in this turn.
    load: Load,
    /// Something was opened since the TUN was looked at.
    opened: bool,
    now: u64,
    /// When the driver was last told of ESP with an unknown SPI.
    told: u64,
}

/// A socket, and what comes from it.
struct Source {
    socket: Arc<Socket>,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// UDP at this port of ours: ESP, IKE and keepalives.
    Udp { port: u16 },
    /// ESP after an IPv4 header.
    RawV4,
    /// ESP.
    RawV6,
}

impl Worker {
    /// A worker without SAs.
    pub(super) fn new(
        (orders, lead): (Orders<Command>, Lead),
        place: Place,
        strays: Arc<Strays>,
        (natt, raw): (Encapsulation, RawEsp),
        queues: Queues,
        shared: Arc<Shared>,
    ) -> Self {
        let udp = Kind::Udp { port: natt.port };
        let v4 = [(natt.v4, udp), (raw.v4, Kind::RawV4)];
        let v6 = [(natt.v6, udp), (raw.v6, Kind::RawV6)];
        let v6 = v6
            .into_iter()
            .filter_map(|(socket, kind)| Some((socket?, kind)));
        Self {
            orders,
            lead,
            place,
            strays,
            sources: v4
                .into_iter()
                .chain(v6)
                .map(|(socket, kind)| Source { socket, kind })
                .collect(),
            joiner: joiner(&queues),
            queues,
            queue: 0,
            shared,
            sad: Sad::new(),
            spis: HashMap::new(),
            waning: Waning::default(),
            others: Arc::default(),
            early: Early::default(),
            audit: Audit::new(),
            // Room after a datagram: none is needed to open it.
            inbox: Inbox::new(BATCH, HEADROOM, SPARE),
            load: Load::default(),
            opened: false,
            now: 1,
            told: 0,
        }
    }

    /// Works until the commander is gone.
    pub(super) fn run(mut self) {
        loop {
            let mut ready = [false; PLACES];
            if !self.wait(&mut ready) {
                return;
            }
            self.now = self.shared.clock.millis();
            while let Some(spi) = self.waning.expire(self.now) {
                self.sad.remove(spi);
            }
            for held in self.early.expire(self.now) {
                let sequence = sequence_of(&held.octets);
                self.audit_unknown(held.spi, sequence, held.received);
                self.unknown_spi(held.spi, held.octets.len(), held.received, held.port);
            }
            if ready[SEALING] {
                self.lead.obey(self.now);
            }
            for (index, ready) in ready[..FRAMES].iter().enumerate() {
                match index {
                    _ if !ready => {}
                    STRAYS => self.take_strays(),
                    _ => self.drain(index),
                }
            }
            let load = std::mem::take(&mut self.load);
            self.lead.end_turn(load, ready[FRAMES], self.now);
        }
    }

    /// Opens what other workers got.
    fn take_strays(&mut self) {
        for held in self.strays.take(self.place.own()) {
            self.open_held(held);
        }
    }

    /// Waits for packets and obeys; `false`: the end.
    fn wait(&mut self, ready: &mut [bool; PLACES]) -> bool {
        let orders = PollFd::new(&self.orders, PollFlags::IN);
        // Unused places watch for orders once more.
        let mut fds = [const { None }; PLACES];
        for (index, fd) in fds.iter_mut().enumerate() {
            *fd = self.poll_fd(index);
        }
        let used = fds.each_ref().map(Option::is_some);
        let [a, b, c, d, e, f, g] = fds.map(|fd| fd.unwrap_or_else(|| orders.clone()));
        let mut fds = [orders.clone(), a, b, c, d, e, f, g];
        if let Err(error) = rustix::event::poll(&mut fds, self.patience()) {
            // A signal for this thread; the next turn waits again.
            tracing::debug!(%error, "poll");
        }
        for ((ready, used), fd) in ready.iter_mut().zip(used).zip(&fds[1..]) {
            *ready = used && !fd.revents().is_empty();
        }
        for (source, fd) in self.sources.iter().zip(&fds[1..]) {
            if fd.revents().contains(PollFlags::ERR) {
                msg::forget_errors(&*source.socket);
            }
        }
        if fds[0].revents().is_empty() {
            return true;
        }
        let Some(commands) = self.orders.take() else {
            return false;
        };
        commands.into_iter().for_each(|command| self.obey(command));
        true
    }

    /// How long to wait at most.
    fn patience(&self) -> Option<&'static Timespec> {
        // The former is the shorter one.
        self.early.patience().or(self.waning.patience())
    }

    fn poll_fd(&self, place: usize) -> Option<PollFd<'_>> {
        let fd = match place {
            STRAYS => self.strays.fd(self.place.own())?,
            FRAMES => self.lead.awaited().tun?,
            SEALING => self.lead.awaited().orders?,
            source => self.sources.get(source)?.socket.as_fd(),
        };
        Some(PollFd::from_borrowed_fd(fd, PollFlags::IN))
    }

    fn obey(&mut self, command: Command) {
        // Whoever asked may have stopped waiting: nothing to do about that.
        match command {
            Command::Add(mut sa, answer) => {
                sa.sa.except(self.others.for_flow(&sa.flow));
                let (spi, id, flow) = (sa.sa.spi(), sa.id, sa.flow.clone());
                let done = self.sad.insert(spi, *sa);
                if done.is_ok() {
                    self.shared.flows.begin(flow, spi);
                    self.spis.entry(id).or_default().push(spi);
                }
                let _ = answer.send(done.map_err(|_| DataPlaneError::SpiTaken));
                self.catch_up(spi);
            }
            Command::Move(moved, answer) => {
                let spis = self.spis.get(&moved.id);
                for spi in spis.into_iter().flatten() {
                    if let Some(sa) = self.sad.get_mut(*spi) {
                        sa.move_to(moved);
                    }
                }
                let _ = answer.send(spis.is_some_and(|spis| !spis.is_empty()));
            }
            Command::Remove(id, answer) => {
                let spis = self.spis.remove(&id);
                for spi in spis.iter().flatten() {
                    self.end(*spi);
                }
                let _ = answer.send(spis.is_some_and(|spis| !spis.is_empty()));
            }
            Command::Others(others, answer) => {
                self.others = others;
                for sa in self.sad.iter_mut() {
                    sa.sa.except(self.others.for_flow(&sa.flow));
                }
                let _ = answer.send(());
            }
            Command::Tun(queues) => {
                self.flush();
                self.joiner = joiner(&queues);
                self.queues = queues;
            }
        }
    }

    /// Ends an SA, at once or when its last packets must have come.
    fn end(&mut self, spi: u32) {
        let Some(sa) = self.sad.get_mut(spi) else {
            return;
        };
        sa.wanes = self.shared.flows.end(&sa.flow, spi);
        if sa.wanes {
            self.waning.keep(spi, self.shared.clock.millis());
        } else {
            self.sad.remove(spi);
        }
    }

    /// Obeys what came while packets were worked on, if a packet is of no SA: whoever sends it may
    /// know of an SA since we were told to accept it. What is told later cannot be waited for.
    fn obey_first(&mut self, datagram: Range<usize>) {
        let spi = spi_of(&self.inbox.octets()[datagram]);
        if spi.is_some_and(|spi| self.sad.get(spi).is_none()) {
            while let Some(command) = self.orders.next() {
                self.obey(command);
            }
        }
    }

    /// Opens what came before its SA.
    fn catch_up(&mut self, spi: u32) {
        self.now = self.shared.clock.millis();
        for held in self.early.take(spi) {
            self.open_held(held);
        }
    }

    fn open_held(&mut self, held: Held) {
        self.flush();
        let start = self.inbox.spare().start + HEADROOM;
        let datagram = start..start + held.octets.len();
        self.inbox.octets()[datagram.clone()].copy_from_slice(&held.octets);
        self.esp(datagram, held.received, held.port);
        self.flush();
    }

    fn drain(&mut self, index: usize) {
        for _ in 0..TURN {
            let source = &self.sources[index];
            let kind = source.kind;
            match self.inbox.receive(&*source.socket) {
                Ok(count) => {
                    for index in 0..count {
                        self.row(kind, index);
                    }
                    self.flush();
                    if std::mem::take(&mut self.opened) {
                        // The answer to what was just handed over is there already.
                        self.lead.turn_around(self.now);
                    }
                    if count < BATCH {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // One datagram's: an ICMP answer to what was sent.
                Err(_) => {}
            }
        }
    }

    /// One of those that were received: a datagram, or several of the same length in a row.
    fn row(&mut self, kind: Kind, index: usize) {
        let Some((place, received)) = self.inbox.datagram(index) else {
            return self.shared.drops.count(Reason::ShortDatagram);
        };
        self.load.add(place.len());
        let step = received.segment.unwrap_or(place.len()).max(1);
        let mut start = place.start;
        loop {
            let end = (start + step).min(place.end);
            let row = start > place.start;
            self.datagram(kind, start..end, received, row);
            start = end;
            if start >= place.end {
                return;
            }
        }
    }

    //= rfc7296 2.23-4 2.23-11
    /// A datagram, behind another one if it is in a `row`.
    fn datagram(&mut self, kind: Kind, place: Range<usize>, received: Received, row: bool) {
        let octets = &self.inbox.octets()[place.clone()];
        let (before, port) = match kind {
            Kind::Udp { port } => match classify_udp(octets) {
                UdpKind::Esp { .. } => (0, Some(port)),
                UdpKind::Keepalive => return,
                UdpKind::Short => return self.shared.drops.count(Reason::ShortDatagram),
                UdpKind::Ike => {
                    // The non-ESP marker, RFC 3948 section 2.2, has four octets.
                    let message = octets[4..].to_vec();
                    return self.ike(port, received, message);
                }
            },
            // The low half of the first octet: header length in words of 4 octets.
            Kind::RawV4 => {
                let first = octets.first().copied().unwrap_or_default();
                (usize::from(first & 0xf) * 4, None)
            }
            Kind::RawV6 => (0, None),
        };
        // Of an IPv4 header that is shorter than it says, nothing is left.
        let mut place = (place.start + before).min(place.end)..place.end;
        self.obey_first(place.clone());
        if row {
            place = self.with_room(place);
        }
        self.esp(place, received, port);
    }

    /// The header that is restored in transport mode takes more room than what is left of the
    /// packet before in a row: such a packet is moved to where there is room.
    fn with_room(&mut self, place: Range<usize>) -> Range<usize> {
        let octets = &self.inbox.octets()[place.clone()];
        let sa = spi_of(octets).and_then(|spi| self.sad.get_mut(spi));
        if sa.is_none_or(|sa| sa.sa.room_before() <= obol_esp::ICV_MIN) {
            return place;
        }
        // What was moved there before may still be waited for.
        self.flush();
        let start = self.inbox.spare().start + HEADROOM;
        let moved = start..start + place.len();
        self.inbox.octets().copy_within(place, start);
        moved
    }

    /// Hands what is joined to the TUN.
    fn flush(&mut self) {
        let (queues, queue, drops) = (&self.queues, self.queue, &self.shared.drops);
        self.joiner.flush(self.inbox.octets(), &mut |parts| {
            write(queues, queue, drops, parts);
        });
    }

    fn ike(&self, port: u16, received: Received, message: Vec<u8>) {
        let Some(local) = received.local else {
            return self.shared.drops.count(Reason::ShortDatagram);
        };
        let path = Path {
            local: (local, port).into(),
            remote: received.source,
        };
        let event = DataPlaneEvent::Ike {
            path,
            datagram: message,
        };
        if self.shared.ike.try_send(event).is_err() {
            self.shared.drops.count(Reason::IkeQueueFull);
        }
    }

    fn audit_unknown(&mut self, spi: u32, sequence: Option<u32>, received: Received) {
        let drop = Drop {
            reason: "unknown-spi",
            spi,
            sequence,
            source: Some(received.source.ip()),
            destination: received.local,
        };
        self.audit.tell(self.now, drop);
    }

    /// Counts a packet of no SA of ours. Tells the driver of it if it is longer than the IKE
    /// message that it may cause, and not of many: anybody can send them.
    fn unknown_spi(&mut self, spi: u32, len: usize, received: Received, port: Option<u16>) {
        self.shared.drops.count(Reason::UnknownSpi);
        let Some(local) = received.local else {
            return;
        };
        if len < HINT_MIN || self.now.saturating_sub(self.told) < HINT_PAUSE {
            return;
        }
        self.told = self.now;
        let (ours, theirs) = match port {
            Some(port) => (port, received.source.port()),
            None => (0, 0),
        };
        let path = Path {
            local: (local, ours).into(),
            remote: (received.source.ip(), theirs).into(),
        };
        let spi = EspSpi(spi);
        // Shared with IKE messages, which anyone can cause as well.
        let _ = self
            .shared
            .ike
            .try_send(DataPlaneEvent::UnknownSpi { path, spi });
    }

    //= rfc4303 2.1-1 3.4.2-1
    //= security S-58
    /// Opens the ESP datagram at `datagram` in the inbox, which came in UDP to `port` of ours,
    /// or without UDP.
    fn esp(&mut self, datagram: Range<usize>, received: Received, port: Option<u16>) {
        let drops = &self.shared.drops;
        let octets = self.inbox.octets().get(datagram.clone());
        let Some((octets, spi)) = octets.and_then(|octets| Some((octets, spi_of(octets)?))) else {
            return drops.open(OpenError::Short);
        };
        let sequence = sequence_of(octets);
        let Some(sa) = self.sad.get_mut(spi) else {
            let owner = self.place.of_spi(spi);
            if owner != self.place.own() {
                let stray = Held::new(spi, octets, received, port, self.now);
                if !self.strays.pass_on(owner, stray) {
                    drops.count(Reason::PassedOn);
                }
                return;
            }
            let len = octets.len();
            if !self.early.hold(spi, octets, received, port, self.now) {
                self.audit_unknown(spi, sequence, received);
                self.unknown_spi(spi, len, received, port);
            }
            return;
        };
        let any = IpAddr::from([0; 4]);
        let outer = Outer {
            source: received.source.ip(),
            destination: received.local.unwrap_or(any),
            tos: received.tos,
            ttl: received.ttl,
        };
        let opened = match sa.sa.open(self.inbox.octets(), datagram, outer) {
            Ok(opened) => opened,
            Err(OpenError::HardLimit) => {
                drops.open(OpenError::HardLimit);
                if sa.wanes {
                    return;
                }
                let id = sa.id;
                self.shared.flows.end(&sa.flow, spi);
                self.sad.remove(spi);
                if let Some(spis) = self.spis.get_mut(&id) {
                    spis.retain(|own| *own != spi);
                }
                return self.shared.tell(DataPlaneEvent::HardExpired(id));
            }
            Err(error) => {
                drops.open(error);
                let drop = Drop {
                    reason: error.name(),
                    spi,
                    sequence,
                    source: Some(outer.source),
                    destination: received.local,
                };
                return self.audit.tell(self.now, drop);
            }
        };
        self.opened = true;
        sa.usage.inbound.count(1, opened.range.len(), self.now);
        // The queue of the worker that sends on the other SA of the pair, so that answers go there.
        let queue = self.place.of_queue(sa.queue);
        let queues = &self.queues;
        if queue != self.queue {
            let before = std::mem::replace(&mut self.queue, queue);
            self.joiner.flush(self.inbox.octets(), &mut |parts| {
                write(queues, before, drops, parts);
            });
        }
        self.joiner
            .push(self.inbox.octets(), opened.range, &mut |parts| {
                write(queues, queue, drops, parts);
            });
        if sa.wanes {
            return;
        }
        let local = received.local.zip(port).map(SocketAddr::from);
        if opened.newest
            && port.is_some()
            && let Some(path) = sa.news(received.source, local, self.now)
        {
            self.shared
                .tell(DataPlaneEvent::PeerMoved { id: sa.id, path });
        }
        if opened.first {
            self.shared.tell(DataPlaneEvent::InboundUsed(sa.id));
        }
        if opened.soft_limit {
            self.shared.tell(DataPlaneEvent::SoftExpired(sa.id));
        }
    }
}

/// Hands a frame to a queue of the TUN, or to the first one, which is always on, if that is off.
fn write(queues: &Queues, queue: usize, drops: &Drops, parts: &[IoSlice<'_>]) {
    let written = match queues[queue].write(parts) {
        Err(error) if queue != 0 && error.raw_os_error() == Some(libc::EBADFD) => {
            queues[0].write(parts)
        }
        written => written,
    };
    if written.is_err() {
        // The header, and the packets.
        drops.count_many(Reason::TunWrite, parts.len() as u64 - 1);
    }
}

fn joiner(queues: &Queues) -> Joiner {
    Joiner::new(queues.iter().all(|queue| queue.takes_udp_frames()))
}
