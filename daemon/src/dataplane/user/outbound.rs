//! The worker for packets to the peer: from the TUN to the sockets, one frame at a time and each
//! to its end. What is sealed leaves when the TUN is empty, or when a row is full.

use std::io;
use std::sync::Arc;

use obol_esp::{FlowKey, Frame, FrameError, Offload, SealError, Selector};
use obol_ike::event::{ChildSaId, MovedSa, PacketFlow};
use rustix::event::{PollFd, PollFlags};
use tokio::sync::oneshot;

use super::Shared;
use super::audit::{Audit, Drop};
use super::count::Reason;
use super::policy::{Entry, Policies};
use super::sa::Out;
use super::sender::Sender;
use super::wake::Orders;
use crate::dataplane::{DataPlaneEvent, Policy};
use crate::ports::{Encapsulation, RawEsp};
use crate::sys::tun::Tun;

/// Longest frame in octets.
const FRAME_MAX: usize = Offload::LEN + 65_535;

/// Frames before commands have their turn.
const TURN: usize = 64;

/// What the worker is told.
pub(super) enum Command {
    /// Use these policies, with their selectors.
    Policies(Vec<(Policy, Vec<Selector>)>, oneshot::Sender<()>),
    /// Use this SA from here on.
    Use(Box<Out>, oneshot::Sender<()>),
    /// Send packets of an SA by another path; whether it is there.
    Move(MovedSa, oneshot::Sender<bool>),
    /// Forget an SA; whether it was there.
    Remove(ChildSaId, oneshot::Sender<bool>),
    /// Use this device: the one before is gone.
    Tun(Arc<Tun>),
}

/// The worker.
pub(super) struct Worker {
    orders: Orders<Command>,
    tun: Arc<Tun>,
    /// Whether the device is there.
    tun_lives: bool,
    /// The frame that was read.
    frame: Vec<u8>,
    parts: Parts,
}

/// What a frame goes through.
struct Parts {
    sender: Sender,
    shared: Arc<Shared>,
    policies: Policies,
    audit: Audit,
    now: u64,
}

impl Worker {
    /// A worker without policies.
    pub(super) fn new(
        orders: Orders<Command>,
        natt: Encapsulation,
        raw: RawEsp,
        tun: Arc<Tun>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            orders,
            tun,
            tun_lives: true,
            frame: vec![0; FRAME_MAX],
            parts: Parts {
                sender: Sender::new(natt, raw),
                shared,
                policies: Policies::default(),
                audit: Audit::new(),
                now: 1,
            },
        }
    }

    /// Works until the commander is gone.
    pub(super) fn run(mut self) {
        loop {
            let mut fds = [
                PollFd::new(&self.orders, PollFlags::IN),
                PollFd::new(&*self.tun, PollFlags::IN),
            ];
            let fds = if self.tun_lives {
                &mut fds[..]
            } else {
                &mut fds[..1]
            };
            if let Err(error) = rustix::event::poll(fds, None) {
                // A signal for this thread; the next turn waits again.
                tracing::debug!(%error, "poll");
            }
            let commanded = !fds[0].revents().is_empty();
            let readable = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
            self.parts.now = self.parts.shared.clock.millis();
            if commanded {
                let Some(commands) = self.orders.take() else {
                    return;
                };
                commands.into_iter().for_each(|command| self.obey(command));
            }
            if readable {
                self.drain();
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let parts = &mut self.parts;
        // Whoever asked may have stopped waiting: nothing to do about that.
        match command {
            Command::Policies(policies, answer) => {
                parts.policies.replace(policies);
                let _ = answer.send(());
            }
            Command::Use(sa, answer) => {
                let waiting = parts.policies.take_in(*sa, parts.now);
                let _ = answer.send(());
                for octets in waiting {
                    parts.frame(&octets);
                }
                parts.flush();
            }
            Command::Move(moved, answer) => {
                let sa = parts.policies.sa_mut(moved.id);
                let _ = answer.send(sa.map(|sa| sa.move_to(moved)).is_some());
            }
            Command::Remove(id, answer) => {
                let _ = answer.send(parts.policies.remove(id));
            }
            Command::Tun(tun) => {
                self.tun = tun;
                self.tun_lives = true;
            }
        }
    }

    fn drain(&mut self) {
        for _ in 0..TURN {
            match self.tun.read(&mut self.frame) {
                Ok(len) => self.parts.frame(&self.frame[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Blackholes and guard stay; without the device nothing can be sealed.
                    tracing::error!(tun = self.tun.name(), %error, "the TUN device is gone");
                    self.tun_lives = false;
                    self.parts.shared.tun_gone();
                    break;
                }
            }
        }
        self.parts.flush();
    }
}

impl Parts {
    /// Seals a frame by its SA, or sees to it that there is one.
    fn frame(&mut self, octets: &[u8]) {
        let drops = &self.shared.drops;
        let frame = match Frame::parse(octets) {
            Ok(frame) => frame,
            Err(FrameError::Packet) => return drops.count(Reason::NotIp),
            Err(FrameError::Offload) => return drops.count(Reason::Offload),
        };
        let Some(entry) = self.policies.lookup(frame.flow()) else {
            return drops.count(Reason::NoPolicy);
        };
        let Some((out, plan)) = entry.sa_for(&frame) else {
            let verdict = entry.without_sa(frame.flow(), octets, self.now);
            if !verdict.kept {
                drops.count(Reason::NoSa);
            }
            if verdict.ask {
                self.shared.tell(acquire(entry, frame.flow()));
            }
            return;
        };
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => return drops.seal(error),
        };
        let sealed = self.sender.push(out, &frame, &plan);
        if sealed.packets > 0 {
            out.usage
                .outbound
                .count(sealed.packets, sealed.bytes, self.now);
        }
        if sealed.soft_limit {
            self.shared.tell(DataPlaneEvent::SoftExpired(out.id));
        }
        let Some(error) = sealed.error else {
            return;
        };
        drops.seal(error);
        if matches!(error, SealError::HardLimit | SealError::CounterExhausted) {
            let id = out.id;
            let drop = Drop {
                reason: error.name(),
                spi: out.sa.spi(),
                sequence: None,
                source: out.header.from,
                destination: Some(out.header.to.ip()),
            };
            self.audit.tell(self.now, drop);
            self.policies.remove(id);
            self.shared.tell(DataPlaneEvent::HardExpired(id));
        }
    }

    /// Sends what is sealed.
    fn flush(&mut self) {
        self.sender.flush();
        self.shared
            .drops
            .count_many(Reason::SendFailed, self.sender.take_lost());
    }
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
