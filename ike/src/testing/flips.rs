//! One life of a connection in which one message is altered: every bit of it, or cut off at every
//! octet, instead of the real one or before it; and every message again at every later point.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::net::Packet;
use super::pair::{End, Node, Pair};
use super::setup::{A, B, HOSTS, ID_A, ID_B, PODS, Setup, mirror, pods};
use crate::config::{Config, LocalAuthMethod, Path, RemoteAuthMethod, Settings, StartAction};
use crate::crypto::private_key::PrivateKey;
use crate::error::Dropped;
use crate::event::{Command, Event};
use crate::proposal::{EspProposal, IkeProposal};
use crate::wire::{ExchangeType, HEADER_LEN, Header, PayloadType};

/// Longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Octets of the header with the SPIs and with the version of the protocol (RFC 7296 section 3.1).
/// Altered, they may be answered without protection: INVALID_IKE_SPI, INVALID_MAJOR_VERSION.
const SPI_OCTETS: std::ops::Range<usize> = 0..16;
const VERSION_OCTET: usize = 17;

/// How the two hosts prove themselves, and what protects their messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Suite {
    /// By Ed25519 keys; else by a shared secret.
    pub keys: bool,
    /// AES-CBC with HMAC; else AES-GCM.
    pub cbc: bool,
}

impl Suite {
    /// All four.
    pub const ALL: [Self; 4] = [
        Self {
            keys: false,
            cbc: false,
        },
        Self {
            keys: false,
            cbc: true,
        },
        Self {
            keys: true,
            cbc: false,
        },
        Self {
            keys: true,
            cbc: true,
        },
    ];
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proof = if self.keys { "ed25519" } else { "psk" };
        write!(f, "{proof}, {}", if self.cbc { "cbc" } else { "aead" })
    }
}

/// What is done to one message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tamper {
    /// Which one, in the order of arrival, from 0.
    pub message: usize,
    /// Which of its bits is flipped.
    pub bit: usize,
    /// When the altered message comes.
    pub when: When,
}

/// When an altered message comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// In place of the real one.
    Instead,
    /// Right before the real one.
    Before,
    /// Right after it.
    After,
}

impl When {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Instead, Self::Before, Self::After];
}

/// What was tried, and what came of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Messages of a life.
    pub messages: usize,
    /// Bits flipped.
    pub flipped: usize,
    /// Messages cut off.
    pub cut: usize,
    /// Messages that came again.
    pub again: usize,
}

/// A message that arrives.
struct Arrival {
    packet: Packet,
    /// IKE_SA_INIT, which nothing protects by itself.
    clear: bool,
}

struct Line {
    pair: Pair,
    queue: VecDeque<Packet>,
    /// All that arrived, and all that was sent.
    arrived: Vec<Packet>,
    sent: Vec<Packet>,
}

/// Lives through one life in which one bit is flipped. Both ends are up in the end, and were
/// never up with anything that they do not share. Where the real message comes as well, nothing that
/// was up ended before it was to. Nothing is ever sealed twice with one IV.
///
/// # Errors
/// What is wrong, in words.
pub fn flip(suite: Suite, tamper: Tamper) -> Result<(), String> {
    let mut line = Line::new(suite);
    line.play(|line, arrival| {
        if line.arrived.len() != tamper.message {
            return Ok(true);
        }
        let altered = flipped(&arrival.packet, tamper.bit);
        // Once only; what is sent again is the real one.
        line.arrived.push(arrival.packet.clone());
        if tamper.when == When::After {
            let _ = line.deliver(&arrival.packet);
        }
        let _ = line.deliver(&altered);
        line.check_shared()?;
        Ok(tamper.when == When::Before)
    })?;
    line.check_fresh()?;
    match tamper.when {
        When::Instead => Ok(()),
        When::Before | When::After => line.check_ends(),
    }
}

/// The messages of a life that nothing disturbs: whether each is in clear, and its length.
///
/// # Errors
/// If that life is not as it should be.
pub fn messages(suite: Suite) -> Result<Vec<(bool, usize)>, String> {
    let mut all = Vec::new();
    Line::new(suite).play(|_, arrival| {
        all.push((arrival.clear, arrival.packet.datagram.len()));
        Ok(true)
    })?;
    Ok(all)
}

/// Lives through one life, and before each message arrives, all that can be made of it: each
/// protected message with each of its bits flipped, each message cut off at each octet, and each
/// message that ever arrived once more. None of that changes anything.
///
/// # Errors
/// What changed something.
pub fn probe(suite: Suite) -> Result<Tally, String> {
    let mut tally = Tally::default();
    Line::new(suite).play(|line, arrival| {
        let packet = &arrival.packet;
        let number = tally.messages;
        tally.messages += 1;
        let imprint = line.imprint(packet);
        for len in 0..packet.datagram.len() {
            let mut cut = packet.clone();
            cut.datagram.truncate(len);
            line.must_drop(&cut, false)
                .map_err(|what| format!("message {number} cut to {len}: {what}"))?;
            tally.cut += 1;
        }
        let bits = if arrival.clear {
            0
        } else {
            packet.datagram.len() * 8
        };
        for bit in 0..bits {
            let octet = bit / 8;
            let answered = SPI_OCTETS.contains(&octet) || octet == VERSION_OCTET;
            line.must_drop(&flipped(packet, bit), answered)
                .map_err(|what| format!("message {number}, bit {bit}: {what}"))?;
            tally.flipped += 1;
        }
        if line.imprint(packet) != imprint {
            return Err(format!("message {number}: altered, it changed something"));
        }
        tally.again += line.replay_all()?;
        Ok(true)
    })?;
    Ok(tally)
}

fn flipped(packet: &Packet, bit: usize) -> Packet {
    let mut altered = packet.clone();
    altered.datagram[bit / 8] ^= 1 << (bit % 8);
    altered
}

fn exchange(datagram: &[u8]) -> Option<ExchangeType> {
    Header::parse(datagram).ok().map(|header| header.exchange)
}

fn command_all() -> [(End, Command); 6] {
    let connection = || HOSTS.to_owned();
    let child = || Command::RekeyChild {
        connection: connection(),
        child: PODS.to_owned(),
    };
    let ike = || Command::RekeyIke {
        connection: connection(),
    };
    let close = Command::Terminate {
        connection: connection(),
        child: None,
    };
    [
        (End::A, child()),
        (End::B, ike()),
        (End::B, child()),
        (End::A, ike()),
        (End::A, child()),
        (End::A, close),
    ]
}

impl Line {
    fn new(suite: Suite) -> Self {
        let mut setup = Setup::started(1);
        let mut pods = pods(StartAction::Start);
        if suite.cbc {
            setup.connection.ike_proposals = IkeProposal::parse("aes256-sha256-x25519")
                .expect("sound")
                .into();
            pods.esp_proposals = EspProposal::parse("aes256-sha256-x25519")
                .expect("sound")
                .into();
        }
        setup = setup.children(vec![pods]);
        let mut theirs = mirror(&setup.connection, StartAction::None);
        let key = |seed| PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(seed));
        let (key_a, key_b) = (key(1), key(2));
        if suite.keys {
            setup.connection.local.method = LocalAuthMethod::Key(key_a.public());
            setup.connection.remote.method = RemoteAuthMethod::Keys(vec![key_b.public()]);
            theirs.local.method = LocalAuthMethod::Key(key_b.public());
            theirs.remote.method = RemoteAuthMethod::Keys(vec![key_a.public()]);
        }
        let config = |connection| Config {
            connections: vec![Arc::new(connection)],
            settings: Settings::default(),
        };
        let node = |address, connection, seed, key| {
            Node::new(address, config(connection), seed)
                .with_secret(ID_A, ID_B, b"a secret for tests")
                .with_key(key)
        };
        let a = node(A, setup.connection, 3, key_a);
        let b = node(B, theirs, 4, key_b);
        // Nothing arrives by itself: what is sent goes through our hands.
        setup.net.partitioned = true;
        Self {
            pair: Pair::new(a, b, setup.net),
            queue: VecDeque::new(),
            arrived: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Lives through a life. `meet` sees each message before it arrives, and says whether it does.
    fn play(
        &mut self,
        mut meet: impl FnMut(&mut Self, &Arrival) -> Result<bool, String>,
    ) -> Result<(), String> {
        self.pair.start();
        self.settle(1, &mut meet)?;
        for (end, command) in command_all() {
            let down = matches!(command, Command::Terminate { .. });
            let result = self.pair.command(end, command);
            result.map_err(|error| format!("{error:?}"))?;
            self.settle(usize::from(!down), &mut meet)?;
        }
        Ok(())
    }

    /// Lets things happen until so many IKE SAs are up and nothing is under way.
    fn settle(
        &mut self,
        ikes: usize,
        meet: &mut impl FnMut(&mut Self, &Arrival) -> Result<bool, String>,
    ) -> Result<(), String> {
        let latest = self.pair.now + PATIENCE;
        loop {
            self.gather();
            if let Some(packet) = self.queue.pop_front() {
                let clear = exchange(&packet.datagram) == Some(ExchangeType::IKE_SA_INIT);
                let arrival = Arrival { packet, clear };
                if meet(self, &arrival)? {
                    self.arrived.push(arrival.packet.clone());
                    let _ = self.deliver(&arrival.packet);
                }
                self.check_shared()?;
                continue;
            }
            if self.is_settled(ikes) {
                return self.check_partners();
            }
            match self.pair.next().filter(|at| *at <= latest) {
                Some(at) => self.pair.now = self.pair.now.max(at),
                None => return Err(format!("not settled after {PATIENCE:?}: {}", self.unrest())),
            }
            self.pair.step();
        }
    }

    fn is_settled(&self, ikes: usize) -> bool {
        let Pair { a, b, now, .. } = &self.pair;
        [a, b].into_iter().all(|node| {
            node.endpoint.status(*now).len() == ikes
                && node.plane.current.len() == ikes
                && node.endpoint.leftovers().is_empty()
        })
    }

    fn unrest(&self) -> String {
        let Pair { a, b, now, .. } = &self.pair;
        let all = [a, b].map(|node| {
            let status = node.endpoint.status(*now);
            let states: Vec<_> = status.iter().map(|sa| (sa.id, sa.state)).collect();
            (states, node.plane.current.len(), node.endpoint.leftovers())
        });
        format!("{all:?}")
    }

    fn gather(&mut self) {
        self.sent.extend_from_slice(&self.pair.net.sent);
        self.queue.extend(self.pair.net.sent.drain(..));
    }

    fn receiver(&mut self, packet: &Packet) -> &mut Node {
        let end = if packet.to.ip() == A { End::A } else { End::B };
        self.pair.node(end)
    }

    fn deliver(&mut self, packet: &Packet) -> Result<(), Dropped> {
        let now = self.pair.now;
        let path = Path {
            local: packet.to,
            remote: packet.from,
        };
        let endpoint = &mut self.receiver(packet).endpoint;
        let result = endpoint.handle_datagram(now, path, &packet.datagram);
        self.pair.drain();
        self.gather();
        result
    }

    /// An altered message is dropped without an answer, unless one without protection is due.
    fn must_drop(&mut self, packet: &Packet, answered: bool) -> Result<(), String> {
        let before = self.queue.len();
        if self.deliver(packet).is_ok() {
            return Err("it was accepted".to_owned());
        }
        let answers = self.queue.len() - before;
        self.queue.truncate(before);
        if answers > usize::from(answered) {
            return Err("it was answered".to_owned());
        }
        Ok(())
    }

    /// Every message that ever arrived comes again. The answer may be repeated; IKE_SA_INIT
    /// requests may begin an IKE SA that stays half open.
    fn replay_all(&mut self) -> Result<usize, String> {
        for number in 0..self.arrived.len() {
            let packet = self.arrived[number].clone();
            let clear = exchange(&packet.datagram) == Some(ExchangeType::IKE_SA_INIT);
            let imprint = self.imprint(&packet);
            let before = self.queue.len();
            let accepted = self.deliver(&packet).is_ok();
            self.queue.truncate(before);
            if accepted && !clear {
                return Err(format!("message {number} was accepted again"));
            }
            if !clear && self.imprint(&packet) != imprint {
                return Err(format!("message {number} changed something again"));
            }
        }
        Ok(self.arrived.len())
    }

    /// All that can be seen of the end that a message is for.
    fn imprint(&mut self, packet: &Packet) -> String {
        let now = self.pair.now;
        let node = self.receiver(packet);
        format!(
            "{:?} {:?} {:?} {:?} {}",
            node.endpoint.status(now),
            node.endpoint.leftovers(),
            node.plane.inbound.keys(),
            node.plane.current,
            node.events.len(),
        )
    }

    /// Whoever sends with an SPI that the other end accepts does so with the same keys and
    /// selectors.
    fn check_shared(&self) -> Result<(), String> {
        let Pair { a, b, .. } = &self.pair;
        for (from, to) in [(a, b), (b, a)] {
            for out in from.plane.outbound.values() {
                let mut accepted = to.plane.inbound.values();
                let Some(into) = accepted.find(|into| into.info.spi_in == out.info.spi_out) else {
                    continue;
                };
                let same = out.keys.encr.ct_eq(&into.keys.encr)
                    && out.keys.integ.ct_eq(&into.keys.integ)
                    && out.info.local_ts == into.info.remote_ts
                    && out.info.remote_ts == into.info.local_ts
                    && (out.info.encr, out.info.mode) == (into.info.encr, into.info.mode);
                if !same {
                    return Err("up with different keys or selectors".to_owned());
                }
            }
        }
        Ok(())
    }

    /// Both ends receive on what the other one sends on.
    fn check_partners(&self) -> Result<(), String> {
        let Pair { a, b, .. } = &self.pair;
        for (from, to) in [(a, b), (b, a)] {
            for out in from.plane.outbound.values() {
                let mut accepted = to.plane.inbound.values();
                if !accepted.any(|into| into.info.spi_in == out.info.spi_out) {
                    return Err("what one end sends, the other one cannot read".to_owned());
                }
            }
        }
        Ok(())
    }

    /// No IKE SA ended but those that were rekeyed, and the last one.
    fn check_ends(&self) -> Result<(), String> {
        let ends = |command: &Command| {
            matches!(
                command,
                Command::RekeyIke { .. } | Command::Terminate { .. }
            )
        };
        let due = command_all().iter().filter(|(_, what)| ends(what)).count();
        let Pair { a, b, .. } = &self.pair;
        for node in [a, b] {
            let downs = node.count(|event| matches!(event, Event::IkeDown { .. }));
            if downs != due {
                return Err(format!("{downs} IKE SAs ended: {:?}", node.events));
            }
        }
        Ok(())
    }

    /// No two messages of one end of an IKE SA have an IV in common.
    fn check_fresh(&self) -> Result<(), String> {
        let mut known = HashMap::new();
        for Packet { datagram, .. } in &self.sent {
            if let Some(place) = iv_place(datagram)
                && known
                    .insert(place, datagram)
                    .is_some_and(|one| one != datagram)
            {
                return Err("two messages are sealed with one IV".to_owned());
            }
        }
        Ok(())
    }
}

/// The SPIs of a protected message, who sent it, and its IV, which with an AEAD is eight octets.
fn iv_place(datagram: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let header = Header::parse(datagram).ok()?;
    let at = match header.next_payload {
        PayloadType::SK => HEADER_LEN + 4,
        PayloadType::SKF => HEADER_LEN + 8,
        _ => return None,
    };
    let iv = datagram.get(at..at + 8)?;
    Some((&datagram[SPI_OCTETS], header.flags.initiator, iv))
}
