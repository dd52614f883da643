//! The worker for packets to the peer: from the TUN to the sockets, one packet at a time and
//! each to its end.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use obol_esp::{FlowKey, HEADROOM, SealError, Selector, TAILROOM};
use obol_ike::event::{ChildSaId, MovedSa, PacketFlow};
use rustix::event::{PollFd, PollFlags};
use tokio::sync::oneshot;

use super::Shared;
use super::audit::{Audit, Drop};
use super::count::Reason;
use super::policy::{Entry, Policies};
use super::sa::Out;
use super::wake::Orders;
use crate::dataplane::{DataPlaneEvent, Policy};
use crate::ports::{Encapsulation, RawEsp};
use crate::sys::msg::{self, Header};
use crate::sys::tun::Tun;

/// Longest packet in octets.
const PACKET_MAX: usize = 65_535;

/// Packets before commands have their turn.
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
    sockets: Sockets,
    tun: Arc<Tun>,
    /// Whether the device is there.
    tun_lives: bool,
    shared: Arc<Shared>,
    policies: Policies,
    audit: Audit,
    buffer: Vec<u8>,
    now: u64,
}

/// Where sealed packets go.
struct Sockets {
    natt: Encapsulation,
    raw: RawEsp,
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
            sockets: Sockets { natt, raw },
            tun,
            tun_lives: true,
            shared,
            policies: Policies::default(),
            audit: Audit::new(),
            buffer: vec![0; HEADROOM + PACKET_MAX + TAILROOM],
            now: 1,
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
            self.now = self.shared.clock.millis();
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
        // Whoever asked may have stopped waiting: nothing to do about that.
        match command {
            Command::Policies(policies, answer) => {
                self.policies.replace(policies);
                let _ = answer.send(());
            }
            Command::Use(sa, answer) => {
                let waiting = self.policies.take_in(*sa, self.now);
                let _ = answer.send(());
                for packet in waiting {
                    let place = HEADROOM..HEADROOM + packet.len();
                    self.buffer[place.clone()].copy_from_slice(&packet);
                    self.packet(place);
                }
            }
            Command::Move(moved, answer) => {
                let sa = self.policies.sa_mut(moved.id);
                let _ = answer.send(sa.map(|sa| sa.move_to(moved)).is_some());
            }
            Command::Remove(id, answer) => {
                let _ = answer.send(self.policies.remove(id));
            }
            Command::Tun(tun) => {
                self.tun = tun;
                self.tun_lives = true;
            }
        }
    }

    fn drain(&mut self) {
        for _ in 0..TURN {
            let place = &mut self.buffer[HEADROOM..HEADROOM + PACKET_MAX];
            match self.tun.read(place) {
                Ok(len) => self.packet(HEADROOM..HEADROOM + len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Blackholes and guard stay; without the device nothing can be sealed.
                    tracing::error!(tun = self.tun.name(), %error, "the TUN device is gone");
                    self.tun_lives = false;
                    return self.shared.tun_gone();
                }
            }
        }
    }

    /// Sends the packet at `place` in the buffer by its SA, or sees to it that there is one.
    fn packet(&mut self, place: Range<usize>) {
        let drops = &self.shared.drops;
        let Ok(parsed) = FlowKey::parse(&self.buffer[place.clone()]) else {
            return drops.count(Reason::NotIp);
        };
        let flow = &parsed.0;
        let Some(entry) = self.policies.lookup(flow) else {
            return drops.count(Reason::NoPolicy);
        };
        let Some((out, sealed)) = entry.seal(&mut self.buffer, place.clone(), &parsed) else {
            let verdict = entry.without_sa(flow, &self.buffer[place], self.now);
            if !verdict.kept {
                drops.count(Reason::NoSa);
            }
            if verdict.ask {
                self.shared.tell(acquire(entry, flow));
            }
            return;
        };
        match sealed {
            Ok(sealed) => {
                let header = Header {
                    tos: sealed.tos,
                    ttl: sealed.ttl,
                    ..out.header
                };
                let octets = &self.buffer[sealed.range];
                out.usage.outbound.count(sealed.inner_len, self.now);
                if self.sockets.send(out.encap, &header, octets).is_err() {
                    drops.count(Reason::SendFailed);
                }
                if sealed.soft_limit {
                    self.shared.tell(DataPlaneEvent::SoftExpired(out.id));
                }
            }
            Err(error) => {
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
        }
    }
}

impl Sockets {
    //= rfc7296 2.23-3
    fn send(&self, encap: bool, header: &Header, octets: &[u8]) -> io::Result<()> {
        let v4 = header.to.is_ipv4();
        let missing = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        let octets = [IoSlice::new(octets)];
        if encap {
            let socket = self.natt.by_family(v4).ok_or_else(missing)?;
            return msg::send(&**socket, &octets, header);
        }
        let socket = self.raw.by_family(v4).ok_or_else(missing)?;
        // A raw socket over IPv6 takes the port for a protocol number, and only its own or 0.
        let mut header = *header;
        header.to.set_port(0);
        msg::send(&**socket, &octets, &header)
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
