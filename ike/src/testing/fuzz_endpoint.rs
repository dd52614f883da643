//! An endpoint that gets arbitrary octets from the network, as responder and as initiator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::setup::{self, A, B, HOSTS};
use crate::config::{Config, Path, Settings, StartAction};
use crate::crypto::secret::Secret;
use crate::endpoint::Endpoint;
use crate::event::{Answer, Ask, Command, Output};

/// The shared secret of the endpoint and its peer.
pub(super) const SECRET: &[u8] = b"a secret for fuzzing";

/// Outputs after which one input is taken to cause them without end.
const MAX_OUTPUTS: usize = 1000;

/// Gives the datagram to a responder, and to an initiator that waits for the answer to its
/// first request (its SPI and the response flag are put into the datagram). `now` is any time.
///
/// # Panics
/// If the endpoint is at fault.
pub fn fuzz_endpoint(now: Instant, datagram: &[u8]) {
    let mut responder = endpoint();
    let _ = responder.handle_datagram(now, path(), datagram);
    settle(&mut responder, now);
    later(&mut responder, now);

    let mut initiator = endpoint();
    let command = Command::Initiate {
        connection: HOSTS.to_owned(),
        child: None,
        local: Some(A),
    };
    initiator
        .handle_command(now, command)
        .expect("the connection is configured");
    let request = settle(&mut initiator, now)
        .pop()
        .expect("an initiator begins with a request");
    let mut answer = datagram.to_vec();
    if let (Some(spi), Some(flags)) = (request.get(..8), answer.get(19)) {
        let flags = flags & !0x08 | 0x20;
        answer[..8].copy_from_slice(spi);
        answer[19] = flags;
    }
    let _ = initiator.handle_datagram(now, path(), &answer);
    settle(&mut initiator, now);
    later(&mut initiator, now);
}

/// An endpoint of the first host of [`setup`].
pub(super) fn endpoint() -> Endpoint {
    let mut connection = setup::connection(vec![setup::pods(StartAction::None)]);
    connection.resumption.enabled = true;
    let config = Config {
        connections: vec![Arc::new(connection)],
        settings: Settings::default(),
    };
    Endpoint::new(Arc::new(config), Box::new(ChaCha20Rng::from_seed([1; 32])))
}

/// The way between the two hosts.
pub(super) fn path() -> Path {
    Path {
        local: SocketAddr::new(A, 500),
        remote: SocketAddr::new(B, 500),
    }
}

/// Answers what the endpoint asks and returns the datagrams that it sends.
pub(super) fn settle(endpoint: &mut Endpoint, now: Instant) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for _ in 0..MAX_OUTPUTS {
        match endpoint.poll_output() {
            None => return sent,
            Some(Output::Transmit(transmit)) => sent.push(transmit.datagram.to_vec()),
            Some(Output::Ask(id, ask)) => endpoint.handle_answer(now, id, answer(&ask)),
            Some(Output::Event(_)) => {}
        }
    }
    panic!("more than {MAX_OUTPUTS} outputs to one input");
}

/// Lets time pass until every timer is due.
pub(super) fn later(endpoint: &mut Endpoint, now: Instant) {
    let later = now + Duration::from_secs(1_000_000);
    assert!(endpoint.status(now).len() <= 2, "one peer, and one rekey");
    endpoint.handle_timeout(later);
    settle(endpoint, later);
}

fn answer(ask: &Ask) -> Answer {
    match ask {
        Ask::Puzzle { .. } => Answer::Puzzle(None),
        Ask::Psk { .. } => Answer::Psk(Some(Secret::from(SECRET))),
        Ask::Sign { .. } => Answer::Signature(Err("there is no key".to_owned())),
        Ask::AddInbound(_) | Ask::UseOutbound(_) | Ask::MovePath(_) | Ask::Remove(_) => {
            Answer::Done(Ok(()))
        }
        Ask::LastInbound(_) => Answer::LastInbound(None),
        Ask::LastUse(_) => Answer::LastUse(None),
    }
}
