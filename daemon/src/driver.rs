//! The loop between the protocol and the system: `ike` decides, this waits.
//!
//! One task owns the [`Endpoint`], the data plane and the configuration. It takes whatever
//! comes first (a datagram, a packet without SA, a deadline, an operator), hands it to the
//! endpoint, and then does everything that the endpoint asks for, in order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use obol_ike::config::{Connection, Mode, Path};
use obol_ike::endpoint::Endpoint;
use obol_ike::error::Dropped;
use obol_ike::event::{Answer, Ask, AskId, Command, Event, Output, PacketFlow};
use tokio::sync::mpsc;
use tracing::{debug, error, trace, warn};

use crate::clock::{Alarm, Clock};
use crate::config::Loaded;
use crate::config::changes::Changes;
use crate::control::Call;
use crate::dataplane::{DataPlane, DataPlaneEvent};
use crate::error::Failure;
use crate::pluto::{Addresses, NamesFound, Occasion};
use crate::ports::Ports;
use crate::run::Origin;
use crate::service::{self, Heartbeat};
use crate::trouble::Troubles;
use crate::updown::Scripts;

mod answers;
mod cleartext;
mod events;
mod generated;
mod heard;
mod keys;
mod last_use;
mod operator;
mod puzzles;
pub(crate) mod report;
mod roam;
mod scripts;
mod single;
mod steps;
mod watch;
mod words;

use answers::Answered;
use cleartext::Cleartexts;
use generated::Generated;
use heard::Held;
use keys::Keys;
use last_use::LastUses;
use operator::Waiter;
use puzzles::Puzzles;
pub(crate) use roam::Roaming;
use watch::Watchers;

/// Everything that a running daemon is.
pub(crate) struct Driver<D: DataPlane> {
    endpoint: Endpoint,
    plane: D,
    ports: Ports,
    loaded: Loaded,
    /// Where the configuration comes from.
    origin: Origin,
    /// What operators have said about single children.
    changes: Changes,
    /// Scripts of updown.
    scripts: Scripts,
    /// Our addresses with their devices, for these.
    devices: Addresses,
    clock: Clock,
    started: Instant,
    alarm: Alarm,
    roaming: Roaming,
    troubles: Troubles,
    calls: mpsc::Receiver<Call>,
    waiters: Vec<Waiter>,
    watchers: Watchers,
    puzzles: Puzzles,
    heartbeat: Heartbeat,
    cleartexts: Cleartexts,
    generated: Generated,
    last_uses: LastUses,
    keys: Keys,
    /// What the data plane was asked and has not answered. Nobody waits for one answer: the loop
    /// goes on with what others want.
    asked: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// Looks for names of pluto's of which nothing was heard yet.
    names: Option<BoxFuture<'static, NamesFound>>,
    /// What waits for names to be looked up, which can take seconds.
    held: FuturesUnordered<BoxFuture<'static, (Held, NamesFound)>>,
    dropped: BTreeMap<Dropped, u64>,
    /// `obol down --all`: take the protection away at the end.
    lifting: bool,
    /// Set once the daemon is told to end: when it ends at the latest.
    stopping: Option<Instant>,
}

/// How long peers have to confirm that everything is closed. A peer that is gone must not keep
/// a machine from shutting down.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the loop ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// By a signal: protection stays, so that nothing leaves in clear until the next start.
    Stopped,
    /// By `obol down --all`: protection goes too.
    Lifted,
}

/// What wakes the loop.
enum Wake {
    Datagram(Path, Vec<u8>),
    Plane(DataPlaneEvent),
    Deadline,
    Addresses,
    /// Packets do not reach this peer.
    Trouble(IpAddr),
    Call(Call),
    Signal(Signal),
    Solved(AskId, Answer),
    /// The service waits for a sign of life.
    Heartbeat,
    Answered(Answered),
    /// This is what names stand for of which nothing was heard before.
    Names(NamesFound),
    /// The names that this waits for were looked up.
    Heard(Held, NamesFound),
}

/// What the process was told by signals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Signal {
    /// SIGTERM or SIGINT: say goodbye to the peers and end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

impl<D: DataPlane> Driver<D> {
    /// Puts the parts together. Nothing is sent before [`Driver::run`].
    pub(crate) fn new(
        (endpoint, plane, ports, roaming): (Endpoint, D, Ports, Roaming),
        loaded: Loaded,
        origin: Origin,
        clock: Clock,
        calls: mpsc::Receiver<Call>,
    ) -> std::io::Result<Self> {
        let troubles = Troubles::listen(&loaded.daemon.host());
        let keys = Keys::new(loaded.daemon.show_keys);
        Ok(Self {
            endpoint,
            plane,
            ports,
            loaded,
            origin,
            changes: Changes::default(),
            scripts: Scripts::new(),
            devices: Addresses::new(),
            clock,
            started: clock.now(),
            alarm: Alarm::new(clock)?,
            roaming,
            troubles,
            calls,
            waiters: Vec::new(),
            watchers: Watchers::default(),
            puzzles: Puzzles::new(),
            heartbeat: Heartbeat::new(),
            cleartexts: Cleartexts::default(),
            generated: Generated::default(),
            last_uses: LastUses::default(),
            keys,
            asked: FuturesUnordered::new(),
            names: None,
            held: FuturesUnordered::new(),
            dropped: BTreeMap::new(),
            lifting: false,
            stopping: None,
        })
    }

    /// Runs until a stop signal is done with; gives the data plane back to be taken down.
    pub(crate) async fn run(mut self, mut signals: mpsc::Receiver<Signal>) -> (Ended, D) {
        // Peers are told our addresses from the beginning.
        self.look_at_addresses().await;
        self.configure_scripts().await;
        self.look_for_names();
        self.endpoint.handle_timeout(self.clock.now());
        loop {
            if self.drain() {
                self.dismiss_waiters();
                self.dismiss_watchers();
                self.scripts.end(FAREWELL);
                let ended = if self.lifting {
                    Ended::Lifted
                } else {
                    Ended::Stopped
                };
                return (ended, self.plane);
            }
            if self.settle_generated().await {
                continue;
            }
            self.settle_cleartexts().await;
            self.scripts.run();
            self.settle_waiters();
            let wake = self.wait(&mut signals).await;
            self.handle(wake).await;
        }
    }

    async fn wait(&mut self, signals: &mut mpsc::Receiver<Signal>) -> Wake {
        let now = self.clock.now();
        let waiters = self.waiters.iter().map(|waiter| waiter.deadline).min();
        let deadline = self.endpoint.poll_timeout().map(|(at, _)| at);
        let (cleartexts, generated) = (self.cleartexts.due(), self.generated.due());
        let earliest = [deadline, waiters, self.stopping, cleartexts, generated]
            .into_iter()
            .flatten()
            .min();
        if let Err(e) = self.alarm.set(earliest) {
            error!(error = %e, "the timer cannot be set");
        }
        if earliest.is_some_and(|at| at <= now) {
            return Wake::Deadline;
        }
        tokio::select! {
            (path, datagram) = self.ports.recv() => Wake::Datagram(path, datagram),
            event = self.plane.next_event() => Wake::Plane(event),
            () = self.alarm.fired() => Wake::Deadline,
            () = self.roaming.changed() => Wake::Addresses,
            Some(peer) = self.troubles.next() => Wake::Trouble(peer),
            Some(call) = self.calls.recv() => Wake::Call(call),
            Some(signal) = signals.recv() => Wake::Signal(signal),
            Some((id, answer)) = self.puzzles.solved() => Wake::Solved(id, answer),
            Some(answered) = self.asked.next() => Wake::Answered(answered),
            Some(found) = heard(&mut self.names) => Wake::Names(found),
            Some((held, found)) = self.held.next() => Wake::Heard(held, found),
            () = self.heartbeat.due() => Wake::Heartbeat,
        }
    }

    async fn handle(&mut self, wake: Wake) {
        let now = self.clock.now();
        match wake {
            Wake::Datagram(path, datagram) => self.datagram(now, path, &datagram),
            Wake::Plane(DataPlaneEvent::Maintain) => self.plane.maintain().await,
            Wake::Plane(event) => self.plane_event(now, event),
            Wake::Deadline => {
                self.endpoint.handle_timeout(now);
                self.expire_waiters(now);
            }
            Wake::Addresses => {
                self.look_at_addresses().await;
                self.orient(now).await;
            }
            Wake::Trouble(remote) => {
                debug!(peer = %remote, "the network says that packets do not arrive");
                self.command(now, Command::PathTrouble { remote });
            }
            Wake::Call(call) => self.call(now, call).await,
            Wake::Signal(Signal::Reload) => self.when_heard(now, Held::Reload(None)).await,
            Wake::Heard(held, names) => self.go_on(now, held, &names).await,
            Wake::Signal(Signal::Stop) => self.stop(now),
            Wake::Heartbeat => service::alive(),
            Wake::Names(found) => {
                debug!(?found, "names have addresses now");
                self.loaded.pluto.learn(found);
                if let Err(failure) = self.reload(now, None).await {
                    error!("{}", failure.message);
                }
                self.look_for_names();
            }
            Wake::Solved(id, answer) => self.reply(id, answer),
            Wake::Answered(answered) => {
                self.answered(answered);
                while let Some(Some(more)) = self.asked.next().now_or_never() {
                    self.answered(more);
                }
            }
        }
    }

    async fn look_at_addresses(&mut self) {
        let fwmark = self.loaded.daemon.host().fwmark;
        match roam::local_addresses(&self.endpoint.peers(), fwmark).await {
            Ok(addresses) => self.command(self.clock.now(), Command::LocalAddresses(addresses)),
            Err(e) => warn!(error = %e, "the addresses of this host are not known"),
        }
    }

    /// Looks at our addresses, and at which connections of pluto's files are this host's with these. What the
    /// files say by now of those that are loaded does not count.
    async fn listen(&mut self, now: Instant) -> Result<(), Failure> {
        self.look_at_addresses().await;
        match self.origin.pluto {
            Some(_) => self.reload(now, None).await,
            None => Ok(()),
        }
    }

    fn stop(&mut self, now: Instant) {
        if self.stopping.is_none() {
            self.stopping = Some(now + FAREWELL);
            service::stopping(2 * FAREWELL);
            self.command(now, Command::Shutdown);
        }
    }

    fn datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        if let Err(reason) = self.endpoint.handle_datagram(now, path, datagram) {
            trace!(?reason, peer = %path.remote, "datagram dropped");
            *self.dropped.entry(reason).or_default() += 1;
        }
    }

    fn plane_event(&mut self, now: Instant, event: DataPlaneEvent) {
        match event {
            // Seen to before.
            DataPlaneEvent::Maintain => {}
            DataPlaneEvent::Ike { path, datagram } => self.datagram(now, path, &datagram),
            DataPlaneEvent::Acquire {
                connection,
                child,
                flow,
            } => {
                debug!(%connection, %child, ?flow, "a packet asks for an SA");
                let command = self.acquire(connection, child, flow);
                self.command(now, command);
            }
            DataPlaneEvent::UnknownSpi { path, spi } => {
                self.command(now, Command::UnknownSpi { path, spi });
            }
            DataPlaneEvent::InboundUsed(id) => self.command(now, Command::InboundUsed(id)),
            DataPlaneEvent::PeerMoved { id, path } => {
                debug!(?id, peer = %path.remote, "packets come from elsewhere");
                self.command(now, Command::PeerMoved { child: id, path });
            }
            DataPlaneEvent::SoftExpired(id) => self.command(now, Command::SoftExpired(id)),
            DataPlaneEvent::HardExpired(id) => self.command(now, Command::HardExpired(id)),
        }
    }

    /// In transport mode, the packet's own destination is the peer of a connection that names
    /// none.
    fn acquire(&self, connection: String, child: String, flow: PacketFlow) -> Command {
        let open = self.endpoint.configured(&connection);
        let direct = |c: &&Arc<Connection>| {
            let mut children = c.children.iter();
            children.any(|own| own.name == child && own.mode == Mode::Transport)
        };
        let remote = open
            .filter(|c| c.remote_addrs.is_empty())
            .filter(direct)
            .map(|_| flow.destination);
        let local = open.filter(|c| c.local_addrs.is_empty() && remote.is_some());
        let local = local.map(|_| flow.source);
        Command::Acquire {
            connection,
            child,
            flow: Some(flow),
            remote,
            local,
        }
    }

    fn command(&mut self, now: Instant, command: Command) {
        if let Err(e) = self.endpoint.handle_command(now, command) {
            debug!(error = %e, "command not carried out");
        }
    }

    /// Does what the endpoint asks for; `true` once it has nothing left to wait for.
    fn drain(&mut self) -> bool {
        let mut idle = false;
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    if let Err(e) = self.ports.send(&transmit) {
                        debug!(error = %e, peer = %transmit.path.remote, "datagram not sent");
                    }
                }
                Output::Ask(id, Ask::Puzzle { puzzle, cookie }) => {
                    self.puzzles.solve(id, puzzle, cookie);
                }
                Output::Ask(id, ask) => {
                    if let Some(answer) = self.answer(id, ask) {
                        self.reply(id, answer);
                    }
                }
                Output::Event(Event::Idle) => idle = true,
                Output::Event(event) => self.event(&event),
            }
        }
        self.stopping
            .is_some_and(|latest| idle || self.clock.now() >= latest)
    }

    fn reply(&mut self, id: AskId, answer: Answer) {
        self.endpoint.handle_answer(self.clock.now(), id, answer);
    }

    /// Reads the configuration again; what runs goes on if the new one is bad.
    /// Somebody asked for it, if names were looked up for it.
    async fn reload(&mut self, now: Instant, heard: Option<&NamesFound>) -> Result<(), Failure> {
        service::reloading();
        let occasion = match heard {
            None => Occasion::Event(&self.loaded.pluto),
            Some(heard) => Occasion::Heard(&self.loaded.pluto, heard),
        };
        let done = match crate::run::load_checked(&self.origin, occasion, &self.loaded).await {
            Ok(loaded) => self.go_over(now, loaded).await,
            Err(failure) => Err(failure),
        };
        service::ready(self.loaded.ike.connections.len());
        done
    }

    /// Goes over to a configuration that was read and checked.
    async fn take(&mut self, now: Instant, loaded: Loaded) -> Result<(), Failure> {
        service::reloading();
        let done = self.go_over(now, loaded).await;
        service::ready(self.loaded.ike.connections.len());
        done
    }

    async fn go_over(&mut self, now: Instant, mut loaded: Loaded) -> Result<(), Failure> {
        // As at start: a connection without is another one, and would be closed.
        crate::run::look_up_sources(&mut loaded);
        self.changes.apply(&mut loaded);
        self.look_at_cleartexts(&mut loaded.policies);
        self.generated.carry_over(&mut loaded);
        crate::run::refuse_daemon_changes(&self.loaded.daemon, &loaded.daemon)?;
        self.plane
            .take_over(&mut loaded, &self.ports)
            .await
            .map_err(crate::run::system)?;
        self.loaded = loaded;
        self.generated.adapt(&self.loaded);
        self.last_uses.adapt(&self.loaded);
        self.endpoint.reload(now, Arc::new(self.loaded.ike.clone()));
        self.configure_scripts().await;
        self.look_for_names();
        crate::run::tell(&self.loaded);
        self.cleartexts.look_again(now);
        Ok(())
    }

    fn look_for_names(&mut self) {
        self.names = self.loaded.pluto.look_up_again().map(FutureExt::boxed);
    }

    /// Looks for connections of pluto's that have become this host's by a new address. What is loaded stays as
    /// it is, so that what it protects does not leave in clear.
    async fn orient(&mut self, now: Instant) {
        if self.origin.pluto.is_none() {
            return;
        }
        let known = self.loaded.pluto.addresses.clone();
        let mut new = crate::pluto::addresses().await.unwrap_or_default();
        new.retain(|address| !known.contains(address));
        if new.is_empty() {
            return;
        }
        debug!(addresses = ?new, "this host has new addresses");
        if let Err(failure) = self.reload(now, None).await {
            error!("{}", failure.message);
            // Not again with every change of a route: the operator has to mend the files first.
            self.loaded.pluto.addresses.extend(new);
        }
    }
}

/// What was heard of names; nothing, ever, if nobody asks.
async fn heard<T>(asked: &mut Option<BoxFuture<'static, T>>) -> Option<T> {
    let found = asked.as_mut()?.await;
    *asked = None;
    Some(found)
}
