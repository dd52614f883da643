//! All IKE SAs of a host: who gets which datagram, and what is to be begun or ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rand_core::CryptoRng;

use crate::config::{Config, Path};
use crate::error::{CommandError, Dropped};
use crate::event::{Answer, AskId, Command, Output};
use crate::status::IkeSaStatus;
use crate::timer::TimerKind;

/// The IKEv2 side of a host, without I/O.
///
/// After `new`, call [`handle_timeout`](Self::handle_timeout) once: that begins the children
/// whose start action says so. After every `handle_*` call, drain
/// [`poll_output`](Self::poll_output) to `None`, then re-arm from
/// [`poll_timeout`](Self::poll_timeout). An early or repeated `handle_timeout` does no harm.
/// `now` is the only clock; it must never run back.
pub struct Endpoint {
    config: Arc<Config>,
    #[expect(dead_code, reason = "the exchanges that draw from it land next")]
    rng: Box<dyn CryptoRng + Send>,
    out: VecDeque<Output>,
}

impl Endpoint {
    /// An endpoint without SAs. `rng` must be cryptographically strong (tests: seeded).
    pub fn new(config: Arc<Config>, rng: Box<dyn CryptoRng + Send>) -> Self {
        Self {
            config,
            rng,
            out: VecDeque::new(),
        }
    }

    /// Takes one IKE message from the network, without non-ESP marker.
    ///
    /// # Errors
    /// Why it was dropped, for a counter; nothing is wrong with the endpoint.
    pub fn handle_datagram(
        &mut self,
        _now: Instant,
        _path: Path,
        _datagram: &[u8],
    ) -> Result<(), Dropped> {
        Err(Dropped::UnknownSpi)
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Does what an operator or the data plane asks.
    ///
    /// # Errors
    /// If the command names something that does not exist, or cannot be begun.
    pub fn handle_command(&mut self, _now: Instant, command: Command) -> Result<(), CommandError> {
        match command {
            Command::Initiate { connection, .. } => {
                let known = self.config.connections.iter().any(|c| c.name == connection);
                known
                    .then_some(())
                    .ok_or(CommandError::UnknownConnection(connection))
            }
            _ => Ok(()),
        }
    }

    /// Takes the answer to a question. An answer nobody waits for any more is ignored.
    pub fn handle_answer(&mut self, _now: Instant, _id: AskId, _answer: Answer) {}

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        None
    }

    /// Replaces the configuration. Connections that are equal in both keep their SAs; others
    /// are closed with deletes to their peers, and what the new ones start is begun.
    pub fn reload(&mut self, _now: Instant, config: Arc<Config>) {
        self.config = config;
    }

    /// All IKE SAs, oldest first.
    pub fn status(&self, _now: Instant) -> Vec<IkeSaStatus> {
        Vec::new()
    }
}
