//! The userspace data plane: a TUN device, our own ESP, and two threads, or as many pairs of them as
//! the child with most queues has (RFC 9611).
//!
//! ```text
//!  TUN -> outbound worker: policy -> SA -> seal -> UDP 4500 or IP protocol 50
//!  TUN <- inbound worker:  open <- SA by SPI    <- UDP 4500 or IP protocol 50
//! ```
//!
//! One thread of a pair does both as long as not both directions carry much ([`lead`]).
//!
//! An inbound worker owns its SAs. Outbound workers have all of them, each behind a lock that is taken
//! once for a frame, and that no two of them meet at while each has an SA of its own. Commands go by a channel and are
//! answered when the worker acts on them. The system steers packets into the TUN and guards
//! what must not leave without: see [`crate::host`].

mod audit;
mod clear;
mod count;
mod early;
mod inbound;
mod lanes;
mod lead;
mod others;
mod outbound;
mod place;
mod policy;
mod sa;
mod sender;
mod strays;
mod upkeep;
mod waiting;
mod wake;
mod waning;

use std::collections::HashMap;
use std::sync::Arc;

use obol_ike::event::{ChildSaId, InboundSa, MovedSa, OutboundSa};
use tokio::sync::{mpsc, oneshot};

use super::{DataPlane, DataPlaneError, DataPlaneEvent, Doing, Policy, Usage};
use crate::host::{self, Carrier, HostSettings};
use crate::ports::{Encapsulation, Ports, RawEsp, RawIp};
use crate::sys::tun::Tun;
use count::{Clock, Drops, SaUsage};
use others::Others;
use place::Place;
use sa::{In, Way};
use strays::Strays;
use upkeep::{Task, Upkeep};
use wake::Commander;
use waning::SharedFlows;

/// IKE messages that may wait for the driver; more are dropped, and their senders ask again.
const IKE_QUEUE: usize = 256;

/// The data plane. When it is dropped, the workers end and the TUN goes; rules, blackholes and
/// guard stay, and protect.
pub(crate) struct UserDataPlane {
    // The workers come first: they end before what they use.
    outbound: Vec<Commander<outbound::Command>>,
    inbound: Vec<Commander<inbound::Command>>,
    settings: HostSettings,
    tun: u32,
    shared: Arc<Shared>,
    /// Of each worker.
    sockets: Vec<(Encapsulation, RawEsp)>,
    /// For what leaves in clear.
    clear: RawIp,
    usages: HashMap<ChildSaId, Arc<SaUsage>>,
    policies: Vec<Policy>,
    /// What the host was told for these.
    applied: Option<host::Applied>,
    others: Arc<Others>,
    upkeep: Upkeep,
    /// What [`DataPlaneEvent::Maintain`] was said for.
    due: Option<Task>,
    events: mpsc::UnboundedReceiver<Told>,
    ike: mpsc::Receiver<DataPlaneEvent>,
}

/// What all workers and the commanding side share.
struct Shared {
    flows: SharedFlows,
    drops: Drops,
    clock: Clock,
    /// What must not be lost. It is little: at most one event per SA and kind, and questions
    /// that are limited in number and rate.
    events: mpsc::UnboundedSender<Told>,
    /// What anyone on the net can cause.
    ike: mpsc::Sender<DataPlaneEvent>,
}

/// What workers tell.
enum Told {
    /// To be passed on.
    Event(DataPlaneEvent),
    /// Somebody deleted the TUN device.
    TunGone,
}

impl Shared {
    fn tell(&self, event: DataPlaneEvent) {
        // The receiver goes only with the data plane itself.
        let _ = self.events.send(Told::Event(event));
    }

    fn tun_gone(&self) {
        let _ = self.events.send(Told::TunGone);
    }
}

impl UserDataPlane {
    /// Creates the TUN device and starts so many workers in each direction. No packet is steered before
    /// [`DataPlane::set_policies`]. `by_kernel`: the kernel takes ESP off port 4500 until
    /// [`UserDataPlane::share_with_kernel`]. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// No TUN device, or a right is missing; nothing is left behind.
    pub(crate) async fn new(
        settings: HostSettings,
        ports: &Ports,
        workers: usize,
        by_kernel: bool,
    ) -> Result<Self, DataPlaneError> {
        let natt = ports.share(&settings, workers, by_kernel)?;
        let queues = open_tun(&settings.tun, natt.len())?;
        let raw = RawEsp::open(&settings, natt.len())?;
        let all: Vec<_> = natt.iter().cloned().zip(raw).collect();
        let clear = RawIp::open(&settings)?;
        let index = host::bring_up(&settings.tun).await?;
        let (events_in, events) = mpsc::unbounded_channel();
        let (ike_in, ike) = mpsc::channel(IKE_QUEUE);
        let shared = Arc::new(Shared {
            flows: SharedFlows::default(),
            drops: Drops::default(),
            clock: Clock::start(),
            events: events_in,
            ike: ike_in,
        });
        let strays = Arc::new(Strays::new(natt.len())?);
        let (mut outbound, mut inbound) = (Vec::new(), Vec::new());
        for (own, sockets) in all.iter().cloned().enumerate() {
            let place = Place::new(own, natt.len());
            let (lead, second) = lead::pair()?;
            let parts = (sockets.clone(), queues[own].clone(), shared.clone());
            let clear = clear.clone();
            outbound.push(wake::start(&name("outbound", own), move |orders| {
                let (sockets, tun, shared) = parts;
                let sockets = (sockets.0, sockets.1, clear);
                second.run(outbound::Worker::new(orders, place, sockets, tun, shared));
            })?);
            let parts = (strays.clone(), queues.clone(), shared.clone());
            inbound.push(wake::start(&name("inbound", own), move |orders| {
                let (strays, queues, shared) = parts;
                let orders = (orders, lead);
                inbound::Worker::new(orders, place, strays, sockets, queues, shared).run();
            })?);
        }
        let upkeep = Upkeep::new(&settings)?;
        Ok(Self {
            outbound,
            inbound,
            settings,
            tun: index,
            shared,
            sockets: all,
            clear,
            usages: HashMap::new(),
            policies: Vec::new(),
            applied: None,
            others: Arc::default(),
            upkeep,
            due: None,
            events,
            ike,
        })
    }

    /// Leaves the upper half of the SPIs to the kernel, and lets what the workers send and receive
    /// pass its policies. The sockets of port 4500 for the kernel. To be called once.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn share_with_kernel(&self, ports: &Ports) -> Result<Encapsulation, DataPlaneError> {
        let workers = self.sockets.len();
        self.clear.bypass_policies()?;
        for (own, (udp, raw)) in self.sockets.iter().enumerate() {
            udp.bypass_policies()?;
            raw.leave_to_kernel((own, workers))?;
        }
        let udp: Vec<_> = self.sockets.iter().map(|(udp, _)| udp.clone()).collect();
        ports.apart(&self.settings, &udp)
    }

    /// Ends the workers and removes the TUN device; with `keep_protection`, what protects flows
    /// without SA stays: rules, blackholes and guard.
    ///
    /// # Errors
    /// The system refuses; what could be removed is removed.
    pub(crate) async fn teardown(self, keep_protection: bool) -> Result<(), DataPlaneError> {
        let settings = self.settings.clone();
        drop(self);
        if keep_protection {
            return Ok(());
        }
        host::purge_tun(&settings).await.map(|_| ())
    }

    /// Sees to a task of [`Upkeep`]. If that fails, the task comes again.
    async fn see_to(&mut self, task: Task) {
        let done = match task {
            Task::Revive => self.revive().await,
            Task::Apply => {
                let up = host::bring_up(&self.settings.tun).await;
                // Whatever the device is like, the guard and the rules protect.
                let applied = self.apply().await;
                up.and(applied)
            }
            Task::CheckGuard => match host::blocked(&self.settings, Carrier::Tun) {
                Ok(None) if !self.policies.is_empty() => {
                    tracing::warn!("somebody removed the guard: it is loaded again");
                    self.apply().await
                }
                checked => checked.map(|_| ()),
            },
        };
        match done {
            Ok(()) => self.upkeep.done(task),
            Err(error) => tracing::error!(?task, %error, "protection is not as it should be"),
        }
    }

    /// Makes the TUN device anew, with what leads into it. The workers go on with the one that
    /// is gone until they have the other.
    async fn revive(&mut self) -> Result<(), DataPlaneError> {
        let queues = open_tun(&self.settings.tun, self.outbound.len())?;
        self.tun = host::bring_up(&self.settings.tun).await?;
        self.apply().await?;
        for (worker, tun) in self.outbound.iter().zip(queues.iter()) {
            worker.send(outbound::Command::Tun(tun.clone()))?;
        }
        for worker in &self.inbound {
            worker.send(inbound::Command::Tun(queues.clone()))?;
        }
        tracing::info!(tun = self.settings.tun, "the TUN device is back");
        Ok(())
    }

    async fn tell_policies(&mut self, policies: &[Policy]) -> Result<(), DataPlaneError> {
        let others = Others::of(policies)?;
        if others != self.others {
            let command = |answer| inbound::Command::Others(others.clone(), answer);
            answers_of(ask_all(&self.inbound, command)?).await?;
            self.others = others;
        }
        let with_selectors = with_selectors(policies)?;
        let command = |answer| outbound::Command::Policies(with_selectors.clone(), answer);
        answers_of(ask_all(&self.outbound, command)?).await?;
        Ok(())
    }

    /// Adds policies that are not narrower than others and have no packets in common with those before.
    ///
    /// # Errors
    /// The system refuses: then all is as before.
    pub(crate) async fn add_policies(&mut self, more: &[Policy]) -> Result<(), DataPlaneError> {
        let with_selectors = with_selectors(more)?;
        let command = |answer| outbound::Command::More(with_selectors.clone(), answer);
        answers_of(ask_all(&self.outbound, command)?).await?;
        let added = match &mut self.applied {
            Some(applied) => host::add(&self.settings, self.tun, more, applied).await,
            None => Ok(false),
        };
        if matches!(added, Ok(true)) {
            self.policies.extend_from_slice(more);
            return Ok(());
        }
        let all = [&self.policies[..], more].concat();
        self.set_policies(all).await
    }

    /// The inbound worker of an SPI.
    fn inbound_of(&self, spi: u32) -> &Commander<inbound::Command> {
        &self.inbound[Place::new(0, self.inbound.len()).of_spi(spi)]
    }

    /// Has the host be what the policies want, whatever it is like.
    async fn apply(&mut self) -> Result<(), DataPlaneError> {
        self.applied = None;
        self.apply_more().await
    }

    /// The same where nobody else has changed anything: only what is new is told.
    async fn apply_more(&mut self) -> Result<(), DataPlaneError> {
        let before = self.applied.take();
        let applied = host::apply(&self.settings, self.tun, &self.policies, before).await?;
        self.applied = Some(applied);
        Ok(())
    }

    fn usage_of(&mut self, id: ChildSaId) -> Arc<SaUsage> {
        self.usages.entry(id).or_default().clone()
    }
}

impl DataPlane for UserDataPlane {
    async fn set_policies(&mut self, policies: Vec<Policy>) -> Result<(), DataPlaneError> {
        self.tell_policies(&policies).await?;
        let before = std::mem::replace(&mut self.policies, policies);
        let Err(error) = self.apply_more().await else {
            return Ok(());
        };
        // At start there is nothing to go back to, and what an earlier run left must stay.
        if !before.is_empty() {
            self.tell_policies(&before).await?;
            self.policies = before;
            self.apply().await?;
        }
        Err(error)
    }

    fn add_inbound(&mut self, sa: InboundSa) -> Doing<()> {
        let usage = self.usage_of(sa.info.id);
        let worker = self.inbound_of(sa.info.spi_in.0);
        let told = In::new(sa, usage)
            .map(Box::new)
            .and_then(|sa| ask(worker, |answer| inbound::Command::Add(sa, answer)));
        Box::pin(async { answer_of(told?).await? })
    }

    fn use_outbound(&mut self, sa: OutboundSa) -> Doing<()> {
        let usage = self.usage_of(sa.info.id);
        let told = Way::new(sa, usage).map(Arc::new).and_then(|way| {
            ask_all(&self.outbound, |answer| {
                outbound::Command::Use(way.clone(), answer)
            })
        });
        Box::pin(async { answers_of(told?).await.map(|_| ()) })
    }

    fn move_path(&mut self, moved: MovedSa) -> Doing<()> {
        let told_out = ask_all(&self.outbound, |answer| {
            outbound::Command::Move(moved, answer)
        });
        let told_in = ask_all(&self.inbound, |answer| {
            inbound::Command::Move(moved, answer)
        });
        Box::pin(async {
            let (was_out, was_in) = (answers_of(told_out?).await?, answers_of(told_in?).await?);
            let was_there = was_out.contains(&true) || was_in.contains(&true);
            was_there.then_some(()).ok_or(DataPlaneError::Unknown)
        })
    }

    fn remove(&mut self, id: ChildSaId) -> Doing<Usage> {
        let told_out = ask_all(&self.outbound, |answer| {
            outbound::Command::Remove(id, answer)
        });
        let told_in = ask_all(&self.inbound, |answer| inbound::Command::Remove(id, answer));
        let usage = self.usages.remove(&id);
        let shared = self.shared.clone();
        Box::pin(async move {
            let (was_out, was_in) = (answers_of(told_out?).await?, answers_of(told_in?).await?);
            let was_there = was_out.contains(&true) || was_in.contains(&true);
            match usage {
                Some(usage) => Ok(usage.read(shared.clock.millis())),
                None if was_there => Ok(Usage::default()),
                None => Err(DataPlaneError::Unknown),
            }
        })
    }

    fn usage(&self, id: ChildSaId) -> Option<Usage> {
        let usage = self.usages.get(&id)?;
        Some(usage.read(self.shared.clock.millis()))
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        let mut drops: Vec<_> = self.shared.drops.read().into_iter().collect();
        match host::blocked(&self.settings, Carrier::Tun) {
            Ok(Some(blocked)) => {
                drops.push(("clear-out", blocked.out));
                drops.push(("clear-in", blocked.incoming));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the guard does not answer"),
        }
        drops
    }

    async fn next_event(&mut self) -> DataPlaneEvent {
        loop {
            // The senders are in `shared`, which lives as long as `self`.
            tokio::select! {
                biased;
                Some(told) = self.events.recv() => match told {
                    Told::Event(event) => return event,
                    Told::TunGone => self.upkeep.tun_gone(),
                },
                task = self.upkeep.due() => {
                    self.due = Some(task);
                    return DataPlaneEvent::Maintain;
                }
                Some(event) = self.ike.recv() => return event,
            }
        }
    }

    async fn maintain(&mut self) {
        if let Some(task) = self.due.take() {
            self.see_to(task).await;
        }
    }

    fn name(&self) -> &'static str {
        "userspace"
    }
}

fn with_selectors(
    policies: &[Policy],
) -> Result<Vec<(Policy, Vec<obol_esp::Selector>)>, DataPlaneError> {
    let policies = policies.iter();
    policies
        .map(|policy| Ok((policy.clone(), sa::policy_selectors(policy)?)))
        .collect()
}

/// Hands a worker a command that is answered.
fn ask<C, T>(
    worker: &Commander<C>,
    command: impl FnOnce(oneshot::Sender<T>) -> C,
) -> Result<oneshot::Receiver<T>, DataPlaneError> {
    let (answer, answered) = oneshot::channel();
    worker.send(command(answer))?;
    Ok(answered)
}

/// Hands all workers a command that each answers.
fn ask_all<C, T>(
    workers: &[Commander<C>],
    command: impl Fn(oneshot::Sender<T>) -> C,
) -> Result<Vec<oneshot::Receiver<T>>, DataPlaneError> {
    workers.iter().map(|worker| ask(worker, &command)).collect()
}

async fn answers_of<T>(answered: Vec<oneshot::Receiver<T>>) -> Result<Vec<T>, DataPlaneError> {
    let mut answers = Vec::with_capacity(answered.len());
    for answer in answered {
        answers.push(answer_of(answer).await?);
    }
    Ok(answers)
}

async fn answer_of<T>(answered: oneshot::Receiver<T>) -> Result<T, DataPlaneError> {
    answered.await.map_err(|_| worker_gone())
}

/// Name of a thread, which the system cuts off after 15 octets.
fn name(direction: &str, own: usize) -> String {
    match own {
        0 => format!("obol-{direction}"),
        _ => format!("obol-{direction}{own}"),
    }
}

fn open_tun(name: &str, queues: usize) -> Result<inbound::Queues, DataPlaneError> {
    let opened = Tun::open(name, queues).map(|all| all.into_iter().map(Arc::new).collect());
    opened.map_err(|source| {
        let what = match source.kind() {
            std::io::ErrorKind::NotFound => {
                "cannot open /dev/net/tun (`modprobe tun`; for a container, --device /dev/net/tun)"
                    .to_owned()
            }
            std::io::ErrorKind::PermissionDenied => {
                format!(
                    "no right to create the TUN device {name} (CAP_NET_ADMIN; for a container, --device /dev/net/tun too)"
                )
            }
            std::io::ErrorKind::ResourceBusy => {
                format!("the TUN device {name} belongs to another process")
            }
            _ => format!("cannot create the TUN device {name}"),
        };
        DataPlaneError::system(what, source)
    })
}

fn worker_gone() -> DataPlaneError {
    DataPlaneError::Refused("a worker of the data plane has ended".to_owned())
}

#[cfg(test)]
mod tests;
