//! Two endpoints in one thread, with nothing between them.

use std::sync::Arc;
use std::time::Instant;

use obol_ike::config::{Config, Connection, Mode, Path, Settings, StartAction};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::secret::Secret;
use obol_ike::endpoint::Endpoint;
use obol_ike::event::{Answer, Ask, Command, Event, Output};
use obol_ike::testing::setup::{HOSTS, PODS, child, connection};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// What both ends share where they authenticate by a secret.
pub(crate) const SECRET: &[u8] = b"a secret for benches";

/// One end, with what answers its questions.
pub(crate) struct End {
    pub(crate) endpoint: Endpoint,
    key: Option<PrivateKey>,
    rng: ChaCha20Rng,
}

impl End {
    pub(crate) fn new(connections: Vec<Connection>, seed: u64) -> Self {
        Self {
            endpoint: Endpoint::new(
                Arc::new(config(connections)),
                Box::new(ChaCha20Rng::seed_from_u64(seed)),
            ),
            key: None,
            rng: ChaCha20Rng::seed_from_u64(seed),
        }
    }

    pub(crate) fn with_key(self, key: Option<PrivateKey>) -> Self {
        Self { key, ..self }
    }

    fn answer(&mut self, ask: &Ask) -> Answer {
        match ask {
            Ask::Psk { .. } => Answer::Psk(Some(Secret::from(SECRET))),
            Ask::Sign { scheme, octets, .. } => {
                let key = self.key.as_ref().expect("asked of ends with a key");
                let made = key.sign(*scheme, octets, &mut self.rng);
                Answer::Signature(made.map_err(|e| format!("{e:?}")))
            }
            Ask::LastInbound(_) => Answer::LastInbound(None),
            _ => Answer::Done(Ok(())),
        }
    }
}

/// A configuration without limits on who may come.
pub(crate) fn config(connections: Vec<Connection>) -> Config {
    Config {
        connections: connections.into_iter().map(Arc::new).collect(),
        settings: Settings {
            cookie_threshold: usize::MAX,
            half_open_limit: usize::MAX,
            ..Settings::default()
        },
    }
}

/// The n-th connection of an initiator, with a network of its own.
pub(crate) fn nth(n: usize) -> Connection {
    let [.., a, b, c] = n.to_be_bytes();
    let network = format!("10.{a}.{b}.{c}/32");
    let (theirs, start) = ("172.16.2.0/24", StartAction::None);
    let child = child(PODS, Mode::Tunnel, &network, theirs, start);
    let mut connection = connection(vec![child]);
    connection.name = name(n);
    connection.local.id = format!("@host{n}.example.com").parse().ok();
    connection
}

pub(crate) fn name(n: usize) -> String {
    format!("{HOSTS}{n}")
}

/// What was seen while datagrams went to and fro.
#[derive(Default)]
pub(crate) struct Seen {
    /// IKE SAs that came up, of both ends.
    pub(crate) up: usize,
    /// Lengths of the datagrams.
    pub(crate) datagrams: Vec<usize>,
}

/// One handshake of the n-th connection, the first endpoint being its initiator.
pub(crate) fn shake(a: &mut End, b: &mut End, n: usize, now: Instant) -> Seen {
    let command = Command::Initiate {
        connection: name(n),
        child: None,
        local: None,
    };
    a.endpoint
        .handle_command(now, command)
        .expect("it can begin");
    let seen = run(a, b, now);
    assert_eq!(seen.up, 2, "both ends are up");
    seen
}

/// The end of what [`shake`] began.
pub(crate) fn close(a: &mut End, b: &mut End, n: usize, now: Instant) {
    let command = Command::Terminate {
        connection: name(n),
        child: None,
    };
    a.endpoint.handle_command(now, command).expect("it is up");
    run(a, b, now);
}

/// Carries datagrams and answers questions until nothing is under way.
pub(crate) fn run(a: &mut End, b: &mut End, now: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut busy = true;
    while busy {
        busy = drain(a, b, now, &mut seen);
        busy |= drain(b, a, now, &mut seen);
    }
    seen
}

fn drain(from: &mut End, to: &mut End, now: Instant, seen: &mut Seen) -> bool {
    let mut busy = false;
    while let Some(output) = from.endpoint.poll_output() {
        busy = true;
        match output {
            Output::Transmit(sent) => {
                let path = Path {
                    local: sent.path.remote,
                    remote: sent.path.local,
                };
                seen.datagrams.push(sent.datagram.len());
                // What is dropped shows in the count of what is up.
                let _ = to.endpoint.handle_datagram(now, path, &sent.datagram);
            }
            Output::Ask(id, ask) => {
                let answer = from.answer(&ask);
                from.endpoint.handle_answer(now, id, answer);
            }
            Output::Event(Event::IkeUp { .. }) => seen.up += 1,
            Output::Event(_) => {}
        }
    }
    busy
}
