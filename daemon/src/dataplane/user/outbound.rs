//! A worker for packets to the peer: from its queue of the TUN to the sockets, one frame at a time and each
//! to its end. What is sealed leaves when the TUN is empty, or when a row is full. Which thread it
//! works on, [`lead`](super::lead) decides.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use obol_esp::{FlowKey, Frame, FrameError, Offload, SealError, Selector};
use obol_ike::config::Mode;
use obol_ike::event::{ChildSaId, MovedSa, PacketFlow};
use tokio::sync::oneshot;

use super::Shared;
use super::audit::{Audit, Drop};
use super::clear::ClearSender;
use super::count::Reason;
use super::lanes::Found;
use super::lead::Load;
use super::place::Place;
use super::policy::{Entry, Fate, Policies};
use super::sa::Way;
use super::sender::Sender;
use super::wake::Orders;
use crate::dataplane::{DataPlaneEvent, Policy};
use crate::ports::{Encapsulation, RawEsp, RawIp};
use crate::sys::tun::Tun;

/// Longest frame in octets.
const FRAME_MAX: usize = Offload::LEN + 65_535;

/// Frames before commands, and the other direction, have their turn.
const TURN: usize = 64;

/// Turns for what is left in a queue that is turned off: more frames than it holds. There is an end to
/// them, for others may go on to fill it.
const LAST_TURNS: usize = 64;

/// What the worker is told.
pub(super) enum Command {
    /// Use these policies, with their selectors.
    Policies(Vec<(Policy, Vec<Selector>)>, oneshot::Sender<()>),
    /// Use these too, which have no packets in common with those before.
    More(Vec<(Policy, Vec<Selector>)>, oneshot::Sender<()>),
    /// Use this SA from here on.
    Use(Arc<Way>, oneshot::Sender<()>),
    /// Send packets of an SA by another path; whether it is there.
    Move(MovedSa, oneshot::Sender<bool>),
    /// Forget an SA; whether it was there.
    Remove(ChildSaId, oneshot::Sender<bool>),
    /// Use this queue: the device before is gone.
    Tun(Arc<Tun>),
}

/// The worker.
pub(super) struct Worker {
    orders: Orders<Command>,
    place: Place,
    tun: Arc<Tun>,
    /// Whether the device is there, and packets come to this queue of it.
    tun_lives: bool,
    /// The frame that was read.
    frame: Vec<u8>,
    parts: Parts,
}

/// What a frame goes through.
struct Parts {
    sender: Sender,
    clear: ClearSender,
    shared: Arc<Shared>,
    policies: Policies,
    audit: Audit,
    now: u64,
}

impl Worker {
    /// A worker without policies.
    pub(super) fn new(
        orders: Orders<Command>,
        place: Place,
        (natt, raw, clear): (Encapsulation, RawEsp, RawIp),
        tun: Arc<Tun>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            orders,
            place,
            tun,
            // The other queues are off until there is an SA for them.
            tun_lives: place.own() == 0,
            frame: vec![0; FRAME_MAX],
            parts: Parts {
                sender: Sender::new(natt, raw),
                clear: ClearSender::new(clear),
                shared,
                policies: Policies::new(place),
                audit: Audit::new(),
                now: 1,
            },
        }
    }

    /// Wakes when there are commands.
    pub(super) fn orders(&self) -> BorrowedFd<'_> {
        self.orders.as_fd()
    }

    /// Wakes when there are frames; `None`: none can come.
    pub(super) fn tun(&self) -> Option<BorrowedFd<'_>> {
        self.tun_lives.then(|| self.tun.as_fd())
    }

    /// The time, for a thread that has none of its own.
    pub(super) fn millis(&self) -> u64 {
        self.parts.shared.clock.millis()
    }

    /// Obeys all commands that there are; `false`: the commander is gone.
    pub(super) fn obey_all(&mut self, now: u64) -> bool {
        self.parts.now = now;
        let Some(commands) = self.orders.take() else {
            return false;
        };
        commands.into_iter().for_each(|command| self.obey(command));
        self.turn();
        true
    }

    fn obey(&mut self, command: Command) {
        let parts = &mut self.parts;
        // Whoever asked may have stopped waiting: nothing to do about that.
        match command {
            Command::Policies(policies, answer) => {
                parts.policies.replace(policies);
                let _ = answer.send(());
            }
            Command::More(policies, answer) => {
                parts.policies.add(policies);
                let _ = answer.send(());
            }
            Command::Use(sa, answer) => {
                let waiting = parts.policies.take_in(sa, parts.now);
                let _ = answer.send(());
                for octets in waiting {
                    parts.frame(&octets);
                }
                parts.flush();
            }
            Command::Move(moved, answer) => {
                let out = parts.policies.way(moved.id).and_then(|way| way.lock());
                let _ = answer.send(out.map(|mut out| out.move_to(moved)).is_some());
            }
            Command::Remove(id, answer) => {
                let _ = answer.send(parts.policies.remove(id));
            }
            Command::Tun(tun) => {
                self.tun = tun;
                self.tun_lives = self.place.own() == 0;
            }
        }
    }

    /// Has packets come to this queue of the device, or not. The first one has them always.
    fn turn(&mut self) {
        let on = self.parts.policies.is_active();
        if self.place.own() == 0 || on == self.tun_lives {
            return;
        }
        if !on {
            // What is left would be lost.
            let now = self.parts.now;
            (0..LAST_TURNS).any(|_| self.drain(now).1);
        }
        match self.tun.turn(on) {
            Ok(()) => self.tun_lives = on,
            Err(error) => {
                // It was deleted, which the first worker tells, and another one comes.
                tracing::debug!(%error, on, "a queue of the TUN device");
                self.tun_lives = false;
            }
        }
    }

    /// Seals and sends the frames that are there, but no more than what is one turn. How much that was,
    /// and whether it was all.
    pub(super) fn drain(&mut self, now: u64) -> (Load, bool) {
        let mut load = Load::default();
        let mut emptied = !self.tun_lives;
        self.parts.now = now;
        for _ in 0..TURN {
            if emptied || load.fills_a_turn() {
                break;
            }
            match self.tun.read(&mut self.frame) {
                Ok(len) => {
                    load.add(len);
                    self.parts.frame(&self.frame[..len]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => emptied = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    emptied = true;
                    self.tun_lives = false;
                    // The first worker speaks for all.
                    if self.place.own() == 0 {
                        // Blackholes and guard stay; without the device nothing can be sealed.
                        tracing::error!(tun = self.tun.name(), %error, "the TUN device is gone");
                        self.parts.shared.tun_gone();
                    }
                }
            }
        }
        self.parts.flush();
        load.waited = self.parts.sender.take_waited();
        (load, emptied)
    }
}

impl Parts {
    /// Seals a frame by its SA, or sees to it that there is one.
    fn frame(&mut self, octets: &[u8]) {
        let drops = &self.shared.drops;
        let users = self.policies.users();
        let frame = match Frame::parse(octets) {
            Ok(frame) => frame,
            Err(FrameError::Packet) => return drops.count(Reason::NotIp),
            Err(FrameError::Offload) => return drops.count(Reason::Offload),
        };
        let Some(entry) = self.policies.lookup(frame.flow()) else {
            return drops.count(Reason::NoPolicy);
        };
        let Some(found) = entry.sa_for(&frame, users) else {
            return self.without_sa(&frame, octets);
        };
        let Some((drop, id)) = seal(found, &frame, &mut self.sender, &self.shared, self.now) else {
            return;
        };
        self.audit.tell(self.now, drop);
        self.policies.remove(id);
        self.shared.tell(DataPlaneEvent::HardExpired(id));
    }

    /// Keeps or drops a frame that has no SA, or sends it in clear, and asks for an SA.
    fn without_sa(&mut self, frame: &Frame<'_>, octets: &[u8]) {
        let flow = frame.flow();
        let verdict = self.policies.without_sa(flow, octets, self.now);
        let drops = &self.shared.drops;
        let Some(entry) = self.policies.lookup(flow) else {
            return drops.count(Reason::NoPolicy);
        };
        if verdict.ask {
            self.shared.tell(acquire(entry, flow));
        }
        match verdict.fate {
            Fate::Kept => {}
            Fate::Dropped => drops.count(Reason::NoSa),
            Fate::Clear => {
                // Routes of tunnels have the MTU that fits: who sends more has to be told by a
                // router, and to cut packets is not ours.
                let whole = entry.policy().mode == Mode::Tunnel;
                let lost = self.clear.send(frame, whole);
                drops.count_many(Reason::SendFailed, lost);
            }
        }
    }

    /// Sends what is sealed.
    fn flush(&mut self) {
        self.sender.flush();
        let drops = &self.shared.drops;
        drops.count_many(Reason::SendFailed, self.sender.take_lost());
        drops.count_many(Reason::NoSa, self.policies.take_lost());
    }
}

/// Seals a frame, and says if that was the end of the SA.
fn seal(
    found: Found<'_>,
    frame: &Frame<'_>,
    sender: &mut Sender,
    shared: &Shared,
    now: u64,
) -> Option<(Drop<'static>, ChildSaId)> {
    let mut out = found.out;
    let drops = &shared.drops;
    let plan = match found.plan {
        Ok(plan) => plan,
        Err(error) => {
            drops.seal(error);
            return None;
        }
    };
    let sealed = sender.push(&mut out, frame, &plan);
    if found.shared {
        sender.flush();
    }
    if sealed.packets > 0 {
        out.usage.outbound.count(sealed.packets, sealed.bytes, now);
    }
    if sealed.soft_limit {
        shared.tell(DataPlaneEvent::SoftExpired(out.id));
    }
    let error = sealed.error?;
    drops.seal(error);
    if !matches!(error, SealError::HardLimit | SealError::CounterExhausted) {
        return None;
    }
    let drop = Drop {
        reason: error.name(),
        spi: out.sa.spi(),
        sequence: None,
        source: out.header.from,
        destination: Some(out.header.to.ip()),
    };
    Some((drop, out.id))
}

fn acquire(entry: &Entry, flow: &FlowKey) -> DataPlaneEvent {
    let policy = entry.policy();
    DataPlaneEvent::Acquire {
        connection: policy.connection.clone(),
        child: policy.child.clone(),
        flow: PacketFlow {
            protocol: flow.protocol,
            source: flow.source,
            destination: flow.destination,
            source_port: flow.source_port,
            destination_port: flow.destination_port,
        },
    }
}

#[cfg(test)]
mod tests;
