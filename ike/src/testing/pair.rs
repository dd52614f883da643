//! Two endpoints, the network between them, and whatever answers their questions.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::net::Net;
use super::plane::FakePlane;
use crate::config::{Config, Path};
use crate::crypto::private_key::PrivateKey;
use crate::crypto::secret::Secret;
use crate::endpoint::Endpoint;
use crate::error::{CommandError, Dropped};
use crate::event::{Answer, Ask, AskId, Command, Event, LocalAddresses, Output};
use crate::identity::Identity;
use crate::timer::TimerKind;

/// When tests begin, since 1970.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// No test takes more steps than this.
const MAX_STEPS: usize = 200_000;

/// One host.
pub struct Node {
    /// Its IKE.
    pub endpoint: Endpoint,
    /// Its address.
    pub address: IpAddr,
    /// Its other addresses.
    pub others: Vec<IpAddr>,
    /// Addresses that it had: nothing leaves from them any more.
    pub gone: Vec<IpAddr>,
    /// Secrets it knows, with the two identities each is for.
    pub secrets: Vec<(Identity, Identity, Vec<u8>)>,
    /// Private keys it has.
    pub keys: Vec<PrivateKey>,
    /// Its ESP.
    pub plane: FakePlane,
    /// How long ago the peer's last ESP packet came.
    pub last_inbound: Option<Duration>,
    /// How long ago the last ESP packet went or came.
    pub last_use: Option<Duration>,
    /// What it told.
    pub events: Vec<Event>,
    /// What it dropped.
    pub dropped: BTreeMap<Dropped, usize>,
    /// How long its questions take.
    pub answer_delay: Duration,
    /// Single octets that keep NAT mappings alive.
    pub keepalives: usize,
    /// What a log of everything would hold; kept if there is one to begin with.
    pub transcript: Option<Transcript>,
    waiting: VecDeque<(Instant, AskId, Ask)>,
    rng: ChaCha20Rng,
    config: Arc<Config>,
    token_secret: Option<Vec<u8>>,
    ticket_secret: Option<Vec<u8>>,
}

/// All that went out of an endpoint and into it, and the keys that went with it.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// Outputs and answers, a line each, as `Debug` prints them.
    pub text: String,
    /// Keys of all Child SAs; those of an AEAD end with the salt.
    pub keys: Vec<Vec<u8>>,
}

impl Transcript {
    fn add(&mut self, line: &dyn std::fmt::Debug) {
        self.text.push_str(&format!("{line:?}\n"));
    }

    fn add_output(&mut self, output: &Output) {
        self.add(output);
        let keys = match output {
            Output::Ask(_, Ask::AddInbound(sa)) => &sa.keys,
            Output::Ask(_, Ask::UseOutbound(sa)) => &sa.keys,
            _ => return,
        };
        for key in [&keys.encr, &keys.integ] {
            if !key.is_empty() {
                self.keys.push(key.expose().to_vec());
            }
        }
    }
}

/// Which host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The first.
    A,
    /// The second.
    B,
}

/// Two hosts.
pub struct Pair {
    /// The first.
    pub a: Node,
    /// The second.
    pub b: Node,
    /// Any others.
    pub others: Vec<Node>,
    /// What is between them.
    pub net: Net,
    /// The time.
    pub now: Instant,
    /// When it began.
    begun: Instant,
}

impl Node {
    /// A host with this configuration. `seed` decides all its random draws.
    pub fn new(address: IpAddr, config: Config, seed: u64) -> Self {
        let rng = Box::new(ChaCha20Rng::seed_from_u64(seed));
        let config = Arc::new(config);
        Self {
            endpoint: Endpoint::new(Arc::clone(&config), rng),
            address,
            others: Vec::new(),
            gone: Vec::new(),
            secrets: Vec::new(),
            keys: Vec::new(),
            plane: FakePlane::default(),
            last_inbound: None,
            last_use: None,
            events: Vec::new(),
            dropped: BTreeMap::new(),
            answer_delay: Duration::ZERO,
            keepalives: 0,
            transcript: None,
            waiting: VecDeque::new(),
            rng: ChaCha20Rng::seed_from_u64(seed ^ 0x5eed),
            config,
            token_secret: None,
            ticket_secret: None,
        }
    }

    /// Adds a secret for two identities, in whatever order.
    #[must_use]
    pub fn with_secret(mut self, one: &str, other: &str, secret: &[u8]) -> Self {
        let parse = |text: &str| text.parse::<Identity>().expect("an identity of a test");
        self.secrets
            .push((parse(one), parse(other), secret.to_vec()));
        self
    }

    /// Lets it make tokens of quick crash detection.
    #[must_use]
    pub fn with_token_secret(mut self, secret: &[u8]) -> Self {
        self.endpoint.make_tokens(Secret::from(secret));
        self.token_secret = Some(secret.to_vec());
        self
    }

    /// Loses all that is not configured, as a host that is switched off and on.
    fn restart(&mut self) {
        let rng = Box::new(ChaCha20Rng::seed_from_u64(self.rng.next_u64()));
        self.endpoint = Endpoint::new(Arc::clone(&self.config), rng);
        if let Some(secret) = &self.token_secret {
            self.endpoint.make_tokens(Secret::from(secret.as_slice()));
        }
        self.plane = FakePlane::default();
        self.last_inbound = None;
        self.waiting.clear();
    }

    /// Adds a private key.
    #[must_use]
    pub fn with_key(mut self, key: PrivateKey) -> Self {
        self.keys.push(key);
        self
    }

    /// How many events are like this.
    pub fn count(&self, like: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| like(event)).count()
    }

    fn secret(&self, local: &Identity, remote: &Identity) -> Option<&[u8]> {
        let fits = |(one, other, _): &&(Identity, Identity, Vec<u8>)| {
            one.matches(local) && other.matches(remote)
                || one.matches(remote) && other.matches(local)
        };
        let found = self.secrets.iter().find(fits);
        found.map(|(_, _, secret)| secret.as_slice())
    }

    /// Whether it has this secret with several others.
    fn is_of_group(&self, secret: &[u8], local: &Identity) -> bool {
        let same = self.secrets.iter().filter(|(.., known)| known == secret);
        let theirs = same.flat_map(|(one, other, _)| [one, other]);
        let mut theirs = theirs.filter(|id| !id.matches(local));
        let first = theirs.next();
        first.is_some_and(|first| theirs.any(|id| !id.matches(first)))
    }

    /// What this host says to a question of its endpoint.
    pub(super) fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Psk {
                local,
                remote,
                address,
                ..
            } => {
                let of_address = address.and_then(|ip| self.secret(&local, &Identity::from(ip)));
                let of_identity = self.secret(&local, &remote);
                let found = match (of_address, of_identity) {
                    (Some(one), Some(other)) if one != other => None,
                    (one, other) => one.or(other),
                };
                match found {
                    Some(found) if self.is_of_group(found, &local) => {
                        Answer::GroupPsk(Secret::from(found))
                    }
                    found => Answer::Psk(found.map(Secret::from)),
                }
            }
            Ask::Sign {
                key,
                scheme,
                octets,
            } => {
                let private = self.keys.iter().find(|private| private.public() == key);
                let signature = match private {
                    Some(private) => private
                        .sign(scheme, &octets, &mut self.rng)
                        .map_err(|_| "cannot sign with this scheme".to_owned()),
                    None => Err("no such private key".to_owned()),
                };
                Answer::Signature(signature)
            }
            Ask::AddInbound(sa) => Answer::Done(self.plane.add_inbound(*sa)),
            Ask::UseOutbound(sa) => Answer::Done(self.plane.use_outbound(*sa)),
            Ask::MovePath(moved) => {
                self.plane.move_path(moved);
                Answer::Done(Ok(()))
            }
            Ask::Remove(id) => {
                self.plane.remove(id);
                Answer::Done(Ok(()))
            }
            Ask::Puzzle { puzzle, cookie } => Answer::Puzzle(puzzle.solve(&cookie)),
            Ask::LastInbound(_) => Answer::LastInbound(self.last_inbound),
            Ask::LastUse(_) => Answer::LastUse(self.last_use),
        }
    }

    /// Answers what is due, sends what is to be sent, keeps what is told.
    fn drain(&mut self, now: Instant, net: &mut Net) {
        loop {
            while let Some(output) = self.endpoint.poll_output() {
                if let Some(transcript) = &mut self.transcript {
                    transcript.add_output(&output);
                }
                match output {
                    Output::Transmit(transmit) if *transmit.datagram == [0xff] => {
                        self.keepalives += 1;
                    }
                    Output::Transmit(t) if self.gone.contains(&t.path.local.ip()) => {}
                    Output::Transmit(transmit) => {
                        net.send(now, transmit.path, transmit.datagram.to_vec())
                    }
                    Output::Ask(id, ask) => {
                        self.waiting.push_back((now + self.answer_delay, id, ask));
                    }
                    Output::Event(event) => self.events.push(event),
                }
            }
            if self.waiting.front().is_none_or(|(at, _, _)| *at > now) {
                return;
            }
            if let Some((_, id, ask)) = self.waiting.pop_front() {
                let answer = self.answer(ask);
                if let Some(transcript) = &mut self.transcript {
                    transcript.add(&answer);
                }
                self.endpoint.handle_answer(now, id, answer);
            }
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        self.address == address || self.others.contains(&address)
    }

    fn next_answer(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _, _)| *at)
    }
}

impl Pair {
    /// Two hosts at rest, nothing begun.
    #[expect(
        clippy::disallowed_methods,
        reason = "an instant to begin at; virtual time goes on from there"
    )]
    pub fn new(a: Node, b: Node, net: Net) -> Self {
        let now = Instant::now();
        Self {
            a,
            b,
            others: Vec::new(),
            net,
            now,
            begun: now,
        }
    }

    /// Lets a host make tickets that are good after a restart.
    pub fn keep_tickets(&mut self, end: End, secret: &[u8]) {
        let (now, time) = (self.now, EPOCH + (self.now - self.begun));
        let node = self.node(end);
        node.ticket_secret = Some(secret.to_vec());
        node.endpoint.keep_tickets(now, time, Secret::from(secret));
    }

    /// Begins what starts by itself at both ends.
    pub fn start(&mut self) {
        for end in [End::A, End::B] {
            let now = self.now;
            self.node(end).endpoint.handle_timeout(now);
            self.drain();
        }
    }

    /// The host at one end.
    pub fn node(&mut self, end: End) -> &mut Node {
        match end {
            End::A => &mut self.a,
            End::B => &mut self.b,
        }
    }

    /// Gives a command.
    ///
    /// # Errors
    /// What the endpoint says to it.
    pub fn command(&mut self, end: End, command: Command) -> Result<(), CommandError> {
        let now = self.now;
        let result = self.node(end).endpoint.handle_command(now, command);
        self.drain();
        result
    }

    /// Asks for a connection with all its children.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn initiate(&mut self, end: End, connection: &str) {
        let command = Command::Initiate {
            connection: connection.to_owned(),
            child: None,
            local: None,
        };
        self.command(end, command).expect("the connection exists");
    }

    /// Sends a packet of the first child that is up; says whether there is one.
    pub fn send_esp(&mut self, end: End) -> bool {
        let now = self.now;
        let Some((path, packet)) = self.node(end).plane.seal() else {
            return false;
        };
        if !self.node(end).gone.contains(&path.local.ip()) {
            self.net.send(now, path, packet);
        }
        true
    }

    /// A host loses its state, and begins anew.
    pub fn restart(&mut self, end: End) {
        let now = self.now;
        self.node(end).restart();
        if let Some(secret) = self.node(end).ticket_secret.clone() {
            self.keep_tickets(end, &secret);
        }
        self.node(end).endpoint.handle_timeout(now);
        self.drain();
    }

    /// One packet for a child, as its data plane sends it. Says whether the other end could
    /// read it; if it could not, or if there is no SA to send it with, the data planes say so.
    pub fn send_packet(&mut self, from: End, connection: &str, child: &str) -> bool {
        let now = self.now;
        let partitioned = self.net.partitioned;
        let (ours, theirs) = match from {
            End::A => (&mut self.a, &mut self.b),
            End::B => (&mut self.b, &mut self.a),
        };
        let Some(spi) = ours.plane.spi_out(connection, child) else {
            let acquire = Command::Acquire {
                connection: connection.to_owned(),
                child: child.to_owned(),
                flow: None,
                remote: None,
                local: None,
            };
            // The endpoint says no while it has no such child.
            let _ = ours.endpoint.handle_command(now, acquire);
            self.drain();
            return false;
        };
        let mut inbound = theirs.plane.inbound.values();
        if partitioned || inbound.any(|sa| sa.info.spi_in == spi) {
            return !partitioned;
        }
        let path = Path {
            local: (theirs.address, 500).into(),
            remote: (ours.address, 500).into(),
        };
        let command = Command::UnknownSpi { path, spi };
        let told = theirs.endpoint.handle_command(now, command);
        told.expect("it names nothing");
        self.drain();
        false
    }

    /// Gives a host these addresses in place of those that it has; the first of a family is the one
    /// that it would send from.
    ///
    /// # Panics
    /// If there is none.
    pub fn readdress(&mut self, end: End, addresses: &[IpAddr]) {
        let node = self.node(end);
        let old: Vec<IpAddr> = node.others.drain(..).chain([node.address]).collect();
        node.gone.extend(old);
        node.gone.retain(|gone| !addresses.contains(gone));
        node.address = addresses[0];
        node.others = addresses[1..].to_vec();
        let source = |peer: &IpAddr| {
            let of_family = |own: &&IpAddr| own.is_ipv4() == peer.is_ipv4();
            addresses.iter().find(of_family).map(|own| (*peer, *own))
        };
        let told = LocalAddresses {
            addresses: addresses.to_vec(),
            sources: node.endpoint.peers().iter().filter_map(source).collect(),
        };
        self.command(end, Command::LocalAddresses(told))
            .expect("news of the host is always taken");
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run(end, |_| false);
        self.now = end;
    }

    /// Runs until nothing is under way: what is left are lifetimes and signs of life. At most
    /// ten minutes.
    pub fn run_until_idle(&mut self) {
        let end = self.now + Duration::from_secs(600);
        self.run(end, Self::is_idle);
    }

    /// Runs until something holds, or until `end`.
    pub fn run_until(&mut self, end: Instant, holds: impl Fn(&Self) -> bool) {
        self.run(end, holds);
    }

    fn run(&mut self, end: Instant, stop: impl Fn(&Self) -> bool) {
        for _ in 0..MAX_STEPS {
            self.drain();
            if stop(self) {
                return;
            }
            match self.next().filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => return,
            }
            self.step();
        }
        panic!("no rest after {MAX_STEPS} steps");
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        [&self.a, &self.b].into_iter().chain(&self.others)
    }

    fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        [&mut self.a, &mut self.b]
            .into_iter()
            .chain(&mut self.others)
    }

    /// When something happens next.
    pub(super) fn next(&self) -> Option<Instant> {
        let timer = |node: &Node| node.endpoint.poll_timeout().map(|(at, _)| at);
        self.nodes()
            .flat_map(|node| [node.next_answer(), timer(node)])
            .chain([self.net.next_arrival()])
            .flatten()
            .min()
    }

    fn is_idle(&self) -> bool {
        let resting = |node: &Node| {
            let lasting = |kind| {
                matches!(
                    kind,
                    TimerKind::RekeyIke
                        | TimerKind::Reauth
                        | TimerKind::IkeOver
                        | TimerKind::RekeyChild
                        | TimerKind::ChildLife
                        | TimerKind::Liveness
                        | TimerKind::Keepalive
                )
            };
            let timer = node.endpoint.poll_timeout();
            node.waiting.is_empty() && timer.is_none_or(|(_, kind)| lasting(kind))
        };
        self.net.next_arrival().is_none() && self.nodes().all(resting)
    }

    /// Does what is due.
    pub(super) fn step(&mut self) {
        let now = self.now;
        while let Some(packet) = self.net.arrive(now) {
            let to = packet.to.ip();
            let Some(node) = self.nodes_mut().find(|node| node.has(to)) else {
                continue;
            };
            let path = Path {
                local: packet.to,
                remote: packet.from,
            };
            if let Some(told) = node.plane.open(now, path, &packet.datagram) {
                if let Some(command) = told {
                    node.endpoint
                        .handle_command(now, command)
                        .expect("news of the data plane is always taken");
                }
                self.drain();
                continue;
            }
            if let Err(reason) = node.endpoint.handle_datagram(now, path, &packet.datagram) {
                *node.dropped.entry(reason).or_default() += 1;
            }
            self.drain();
        }
        for node in self.nodes_mut() {
            if node
                .endpoint
                .poll_timeout()
                .is_some_and(|(at, _)| at <= now)
            {
                node.endpoint.handle_timeout(now);
            }
        }
        self.drain();
    }

    /// Answers what is asked and sends what is to be sent.
    pub(super) fn drain(&mut self) {
        for node in [&mut self.a, &mut self.b]
            .into_iter()
            .chain(&mut self.others)
        {
            node.drain(self.now, &mut self.net);
        }
    }
}
