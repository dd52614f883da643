//! All IKE SAs of a host: who gets which datagram, and what is to be begun or ended.

mod commands;
mod duplicates;
mod hints;
mod init;
#[cfg(feature = "testing")]
mod leftovers;
mod quotas;
mod redirect;
mod reload;
mod renewals;
mod resume;
mod table;
mod wishes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::config::{Config, Connection, Path, Unique};
use crate::context::{Age, Context, Rival, Signal, Waiting};
use crate::crypto::secret::Secret;
use crate::error::{Dropped, IkeFailure};
use crate::event::{Answer, Ask, AskId, ChildSaId, Event, IkeSaId, Output};
use crate::exchange::cookie::Cookies;
use crate::exchange::half_open::HalfOpens;
use crate::exchange::limit::{Limit, STRANGERS};
use crate::sa::child::{ChildSa, ChildState};
use crate::sa::established::Established;
use crate::sa::{IkeSa, Phase, Role};
use crate::status::IkeSaStatus;
use crate::timer::{TimerKind, earlier};
use crate::wire::{ExchangeType, Header, Message};
use table::{Ends, Table};
use wishes::Wishes;

/// The IKEv2 side of a host, without I/O.
///
/// After `new`, call [`handle_timeout`](Self::handle_timeout) once: that begins the children
/// whose start action says so. After every `handle_*` call, drain
/// [`poll_output`](Self::poll_output) to `None`, then re-arm from
/// [`poll_timeout`](Self::poll_timeout). An early or repeated `handle_timeout` does no harm.
/// `now` is the only clock; it must never run back.
pub struct Endpoint {
    cx: Context,
    sas: Table,
    /// As responder, not established yet.
    half_open: HalfOpens,
    /// Until when cookies are asked for, whatever the load.
    cookies_until: Option<Instant>,
    cookies: Cookies,
    strangers: Limit,
    /// Of answers to who has an SA that we have not.
    lost: Limit,
    /// Of searches for the SA that a hint is about.
    hints: Limit,
    wishes: Wishes,
    /// Shutting down: until when peers are waited for.
    shutdown: Option<Instant>,
    idle_told: bool,
}

impl Endpoint {
    /// An endpoint without SAs. `rng` must be cryptographically strong (tests: seeded).
    pub fn new(config: Arc<Config>, rng: Box<dyn CryptoRng + Send>) -> Self {
        let mut wishes = Wishes::default();
        for connection in &config.connections {
            wishes.add_starts(connection);
        }
        Self {
            cx: Context::new(config, rng),
            sas: Table::default(),
            half_open: HalfOpens::default(),
            cookies_until: None,
            cookies: Cookies::new(),
            strangers: Limit::new(STRANGERS),
            lost: Limit::new(STRANGERS),
            hints: Limit::new(STRANGERS),
            wishes,
            shutdown: None,
            idle_told: false,
        }
    }

    /// Gives peers tokens made with this secret, by which they know at once that this host has
    /// lost its state (RFC 6290). It must survive restarts, and no other endpoint may have it.
    pub fn make_tokens(&mut self, secret: Secret) {
        self.cx.make_tokens(secret);
    }

    /// Makes the tickets of session resumption (RFC 5723) with keys that come from this secret, so
    /// that they are good after a restart. It must survive restarts, and no other endpoint may have
    /// it; who has it can read what goes over IKE SAs that are resumed. `unix_time` is the time
    /// since 1970. Which tickets were used, and which IKE SAs deleted, is not known after a restart:
    /// a client that does not forget its ticket then could use it until it expires, once more.
    /// Without this, keys are drawn, and are nowhere but in memory.
    pub fn keep_tickets(&mut self, now: Instant, unix_time: Duration, secret: Secret) {
        self.cx.tickets.keep(now, unix_time, secret);
    }

    //= rfc7296 2.4-3
    /// Takes one IKE message from the network, without non-ESP marker.
    ///
    /// # Errors
    /// Why it was dropped, for a counter; nothing is wrong with the endpoint.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
    ) -> Result<(), Dropped> {
        let header = Header::parse(datagram).map_err(|_| Dropped::Malformed)?;
        if header.major != 2 {
            self.refuse_version(now, path, &header);
            return Err(Dropped::Version);
        }
        let message = Message::parse(datagram).map_err(|_| Dropped::Malformed)?;
        let begins = !header.flags.response && header.spi_r.0 == 0;
        let result = match header.exchange {
            ExchangeType::IKE_SA_INIT if begins => self.on_init_request(now, path, &message),
            ExchangeType::IKE_SESSION_RESUME if begins && self.takes_tickets() => {
                self.on_resume_request(now, path, &message)
            }
            _ => self.on_known(now, path, &message),
        };
        // What was dropped changed nothing, and whoever sent it shall not make us look at every
        // IKE SA.
        if result.is_ok() {
            self.settle(now);
        }
        result
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        for id in self.sas.due(now) {
            self.with(now, id, |sa, cx| sa.on_timeout(cx, now));
        }
        if self.shutdown.is_some_and(|at| at <= now) {
            self.abandon(now);
        }
        self.cx.expire_tickets(now);
        self.settle(now);
    }

    /// Takes the answer to a question. An answer nobody waits for any more is ignored.
    pub fn handle_answer(&mut self, now: Instant, id: AskId, answer: Answer) {
        match (self.cx.answered(id), answer) {
            (Some(Waiting::Auth(sa, claim)), answer) => {
                self.with(now, sa, |sa, cx| sa.on_auth_answer(cx, now, claim, answer));
            }
            (Some(Waiting::Inbound(child)), Answer::Done(result)) => {
                self.with_child(now, child, |sa, cx| sa.on_inbound(cx, now, child, result));
            }
            (Some(Waiting::Outbound(child)), Answer::Done(result)) => {
                self.with_child(now, child, |sa, cx| sa.on_outbound(cx, now, child, result));
            }
            (Some(Waiting::Puzzle(sa)), Answer::Puzzle(solution)) => {
                self.with(now, sa, |sa, cx| sa.on_puzzle(cx, now, solution));
            }
            (Some(Waiting::LastInbound(sa)), Answer::LastInbound(last)) => {
                self.with(now, sa, |sa, _| sa.on_last_inbound(now, last));
            }
            (Some(Waiting::LastUse(child)), Answer::LastUse(last)) => {
                self.with_child(now, child, |sa, cx| sa.on_last_use(cx, now, child, last));
            }
            _ => {}
        }
        self.settle(now);
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.cx.out.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        let start = self.wishes.next().map(|at| (at, TimerKind::Start));
        let shutdown = self.shutdown.filter(|_| !self.idle_told);
        let shutdown = shutdown.map(|at| (at, TimerKind::Shutdown));
        let tickets = self.cx.tickets_deadline();
        let tickets = tickets.map(|at| (at, TimerKind::TicketsOver));
        earlier(
            earlier(self.sas.deadline(), tickets),
            earlier(start, shutdown),
        )
    }

    /// As if so many requests had been sent on every IKE SA.
    #[cfg(feature = "testing")]
    pub fn skip_message_ids(&mut self, next: u32) {
        for id in self.sas.ids() {
            if let Some(mut sa) = self.sas.lend(id) {
                sa.requests.skip_to(next);
                self.sas.put(sa);
            }
        }
    }

    /// All IKE SAs, oldest first.
    pub fn status(&self, now: Instant) -> Vec<IkeSaStatus> {
        self.sas.iter().filter_map(|sa| shown(sa, now)).collect()
    }

    /// One of them.
    pub fn status_of(&self, id: IkeSaId, now: Instant) -> Option<IkeSaStatus> {
        self.sas.get(id).and_then(|sa| shown(sa, now))
    }

    /// Those of a connection.
    pub fn status_of_connection(&self, connection: &str, now: Instant) -> Vec<IkeSaStatus> {
        let sas = self.sas.of_connection(connection);
        sas.filter_map(|sa| shown(sa, now)).collect()
    }

    /// The connection of this name.
    pub fn configured(&self, name: &str) -> Option<&Arc<Connection>> {
        self.cx.directory.connection(name)
    }

    /// Whether an IKE SA of this connection is established, or this child of it carries packets.
    pub fn is_established(&self, connection: &str, child: Option<&str>) -> bool {
        let mut sas = self.sas.of_connection(connection);
        match child {
            None => sas.any(IkeSa::is_shown_established),
            Some(child) => sas.any(|sa| sa.carries(child)),
        }
    }

    /// Whether there is an IKE SA of this connection, or a Child SA of this child of it, in
    /// whatever state.
    pub fn has(&self, connection: &str, child: Option<&str>) -> bool {
        let mut sas = self.sas.of_connection(connection);
        let of = |sa: &IkeSa, child: &str| sa.children.iter().any(|own| own.info.child == child);
        sas.any(|sa| child.is_none_or(|child| of(sa, child)))
    }

    /// What authenticated peers did wrong so far, by name: for counters.
    pub fn faults(&self) -> &std::collections::BTreeMap<&'static str, u64> {
        &self.cx.faults
    }

    /// Octets of memory that fragments of incomplete messages take, of all peers together.
    pub fn fragments_held(&self) -> usize {
        self.cx.fragments_of_others
    }

    /// How many IKE SAs, connections, wishes and networks were looked at so far: work that must not
    /// grow with how many of them there are.
    #[cfg(feature = "testing")]
    pub fn visits(&self) -> u64 {
        let known = self.cx.directory.visits() + self.cx.holdings.visits();
        self.sas.visits() + self.wishes.visits() + known
    }

    //= rfc7296 1.5-1 2.21.4-1 2.21.4-4
    /// A message with an SPI of ours.
    fn on_known(&mut self, now: Instant, path: Path, message: &Message<'_>) -> Result<(), Dropped> {
        if Self::is_hint(message) {
            return self.on_hint(now, path, message);
        }
        let header = &message.header;
        let own = if header.flags.initiator {
            header.spi_r
        } else {
            header.spi_i
        };
        let found = self.sas.with_spi(own).filter(|sa| sa.has_spis(header));
        let Some(id) = found.map(|sa| sa.id) else {
            return Err(self.on_unknown_spi(now, path, message));
        };
        self.with(now, id, |sa, cx| sa.on_message(cx, now, path, message))
            .unwrap_or(Err(Dropped::UnknownSpi))
    }

    /// The IKE SA with these SPIs.
    #[cfg(feature = "testing")]
    pub(crate) fn with_spis(
        &self,
        spi_i: crate::event::IkeSpi,
        spi_r: crate::event::IkeSpi,
    ) -> Option<&IkeSa> {
        self.sas
            .iter()
            .find(|sa| sa.spi_i == spi_i && sa.spi_r == spi_r)
    }

    /// Lets an IKE SA act, then does what it wants of the endpoint.
    fn with<R>(
        &mut self,
        now: Instant,
        id: IkeSaId,
        act: impl FnOnce(&mut IkeSa, &mut Context) -> R,
    ) -> Option<R> {
        let mut sa = self.sas.lend(id)?;
        sa.alone = self.is_alone(&sa);
        self.cx.rivals = self.rivals(&sa);
        self.cx.fragments_of_others -= sa.fragments_held();
        self.cx.namesakes = self.namesakes(&sa);
        self.cx.crowded = self.crowded(&sa);
        self.cx.elsewhere = self.peer_has_elsewhere(&sa);
        let result = act(&mut sa, &mut self.cx);
        sa.run_tasks(&mut self.cx, now);
        if !sa.is_gone() {
            self.cx.fragments_of_others += sa.fragments_held();
        }
        self.put(sa);
        self.heed(now);
        Some(result)
    }

    fn with_child<R>(
        &mut self,
        now: Instant,
        child: ChildSaId,
        act: impl FnOnce(&mut IkeSa, &mut Context) -> R,
    ) -> Option<R> {
        let id = self.sas.owner(child)?;
        self.with(now, id, act)
    }

    /// As initiator while it is not established: whether no other IKE SA with this peer is up.
    fn is_alone(&self, sa: &IkeSa) -> bool {
        let proven = |other: &IkeSa| {
            let proven = matches!(other.phase, Phase::Established(_) | Phase::AuthResponder(_));
            proven && other.may_stand_for(sa)
        };
        if sa.role == Role::Responder || sa.established().is_some() {
            return false;
        }
        // INITIAL_CONTACT is about identities, so another connection with the same ones counts.
        let (local, remote) = (sa.local_id(), sa.expected_remote_id());
        if self.sas.with_identities(&local, &remote).next().is_some() {
            return false;
        }
        // What the peer will prove to be is not known yet: it may be anything that was proven there.
        let is_open = sa.connection.remote.id.is_none();
        let as_us = |other: &IkeSa| {
            other
                .established()
                .is_some_and(|e| e.local_id.matches(&local))
        };
        if is_open && self.sas.with_host(sa.path.remote.ip()).any(as_us) {
            return false;
        }
        let name = &sa.connection.name;
        if sa.connection.remote_addrs.is_empty() {
            !self.sas.with_peer(name, sa.peer()).any(proven)
        } else {
            !self.sas.of_connection(name).any(proven)
        }
    }

    /// The Child SAs that carry packets on any IKE SA of the same connection and peer.
    fn rivals(&self, sa: &IkeSa) -> Vec<Rival> {
        if sa.established().is_none() {
            return Vec::new();
        }
        let several = sa.connection.peer.unique == Unique::Never;
        let Some(ends) = self.sas.ends(sa) else {
            return Vec::new();
        };
        let carries = |child: &ChildSa| child.sends() && child.state != ChildState::Deleting;
        self.sas
            .family(&ends)
            .filter(|other| other.may_stand_for(sa) && other.stands_at() == sa.stands_at())
            .filter(|_| !several)
            .chain([sa])
            .filter(|other| !other.is_closing())
            .flat_map(|other| other.children.iter().map(move |child| (other, child)))
            .filter(|(_, child)| carries(child))
            .filter_map(|(other, child)| {
                Some(Rival {
                    child: Arc::clone(&child.conf),
                    side: child.side,
                    queue: child.info.queue,
                    stays: child.is_current() || other.is_replaced(child.info.id),
                    ike_rank: other.established()?.rank.clone(),
                    lowest_nonce: child.lowest_nonce.clone(),
                    age: age(other, sa),
                })
            })
            .collect()
    }

    /// Keeps an IKE SA findable, or forgets it.
    fn put(&mut self, sa: Box<IkeSa>) {
        let half_open = matches!(
            sa.phase,
            Phase::HalfOpen(_) | Phase::AuthResponder(_) | Phase::Lingering { .. }
        );
        match sa.established() {
            Some(established) => self.half_open.done(established.since, sa.id),
            None if half_open => {}
            None => self.half_open.remove(sa.id),
        }
        self.cx.holdings.file(&sa);
        self.sas.put(sa);
    }

    /// Does what IKE SAs want of the endpoint.
    fn heed(&mut self, now: Instant) {
        for signal in std::mem::take(&mut self.cx.signals) {
            match signal {
                Signal::NewSa(mut sa) => {
                    sa.run_tasks(&mut self.cx, now);
                    self.put(sa);
                }
                Signal::Adopt {
                    from,
                    to,
                    children,
                    tasks,
                    place,
                } => {
                    self.renewal_moves(from, to);
                    let ids: Vec<ChildSaId> = children.iter().map(|c| c.info.id).collect();
                    let adopted =
                        self.with(now, to, |sa, cx| sa.adopt(cx, children, tasks, *place));
                    if adopted.is_none() {
                        // The new IKE SA is gone already, and its Child SAs with it.
                        for id in ids {
                            self.cx.ask(Waiting::Nobody, Ask::Remove(id));
                        }
                    }
                }
                Signal::Lost(id) => {
                    self.with(now, id, |sa, cx| sa.lose(cx, now));
                }
                Signal::Proven(id) => {
                    self.with(now, id, |sa, cx| sa.accept_initiator(cx, now));
                }
                Signal::InitialContact { on, before } => {
                    for id in self.established_earlier(on, before) {
                        self.with(now, id, |sa, cx| sa.end(cx, IkeFailure::Replaced));
                    }
                }
                Signal::ChildFailed {
                    connection,
                    child,
                    peer,
                } => self.child_failed(now, &connection, &child, peer),
                Signal::ChildIdle {
                    connection,
                    child,
                    peer,
                } => self.child_idle(&connection, &child, peer),
                Signal::ChildLost {
                    connection,
                    child,
                    peer,
                    loss,
                } => self.child_lost(now, &connection, &child, peer, loss),
                Signal::Doubted {
                    connection,
                    children,
                    peer,
                } => self.sa_doubted(&connection, &children, peer),
                Signal::PeerCame { connection, peer } => self.hasten(now, &connection, peer),
                Signal::Reauthenticate(id) => self.reauthenticate(now, id),
                Signal::Probe(id) => self.probe(now, id),
                Signal::Withheld { holders } => self.probe_silent(now, holders),
                Signal::Redirected { id, path, instead } => self.redirected(now, id, path, instead),
                Signal::Arrived(id) => self.arrived(now, id),
                Signal::Resumed(old) => {
                    self.with(now, old, |sa, cx| sa.end(cx, IkeFailure::Resumed));
                }
                Signal::SaEnded { connection, peer } => self.sa_ended(now, &connection, peer),
            }
        }
    }

    /// Brings what is into line with what is wanted.
    fn settle(&mut self, now: Instant) {
        let changes = self.sas.take_changes();
        self.drop_crossed_starts(&changes);
        let several = changes.iter().filter(|ends| !self.is_plain(ends));
        let several: Vec<Ends> = several.cloned().collect();
        if !several.is_empty() {
            self.merge_duplicates(now, &several);
            self.drive_renewals(now, &several);
        }
        self.start_wishes(now, changes);
        let left = self.sas.any_alive();
        if self.shutdown.is_some() && !left && !self.idle_told {
            self.idle_told = true;
            self.cx.event(Event::Idle);
        }
    }
}

/// What is told of an IKE SA; nothing of one that is over, and only answers repetitions.
fn shown(sa: &IkeSa, now: Instant) -> Option<IkeSaStatus> {
    let is_over = matches!(sa.phase, Phase::Lingering { .. });
    (!is_over).then(|| sa.status(now))
}

/// How old `other` is, compared with `sa`. Two cross if each was begun before the other was proven,
/// however long the handshakes took; both ends see that alike, since a start that has not reached
/// the peer by then is dropped.
fn age(other: &IkeSa, sa: &IkeSa) -> Age {
    let (Some(theirs), Some(ours)) = (other.established(), sa.established()) else {
        return Age::Same;
    };
    let renews = |new: &IkeSa, old: &Established| {
        let renewal = old.renewal.as_ref();
        renewal.is_some_and(|renewal| renewal.by == new.id)
    };
    if renews(sa, theirs) || theirs.proof.since < ours.proof.begun {
        Age::Older
    } else if renews(other, ours) || ours.proof.since < theirs.proof.begun {
        Age::Newer
    } else {
        Age::Same
    }
}
