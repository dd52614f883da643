//! Full handshakes of two endpoints, beside the cryptography that they cannot do without.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use obol_ike::config::{Connection, LocalAuthMethod, RemoteAuthMethod, StartAction};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::proposal::Encr;
use obol_ike::testing::setup::mirror;
use obol_ike::wire::{KeMethod, PrfId};

use crate::ends::{End, close, nth, shake};
use crate::limit::{self, Datagrams, Operation};

/// Time for each kind.
const BUDGET: Duration = Duration::from_secs(6);
/// Handshakes, and the cryptography of handshakes, in a row. Both kinds of rows take turns, so
/// that what slows the machine down slows both down.
const ROW: usize = 20;
/// Between handshakes, for what closed IKE SAs leave for a while.
const PAUSE: Duration = Duration::from_secs(300);

/// What was measured of one kind of authentication.
pub(crate) struct Shakes {
    pub(crate) auth: &'static str,
    /// Microseconds of one handshake, both ends together.
    pub(crate) each: f64,
    /// Microseconds that the cryptography alone takes.
    pub(crate) limit: f64,
    pub(crate) operations: Vec<Operation>,
}

impl Shakes {
    /// `key` signs at both ends; without one, they share a secret.
    pub(crate) fn measure(auth: &'static str, key: Option<&PrivateKey>) -> Self {
        let mut now = Instant::now();
        let (mut a, mut b) = ends(key);
        let datagrams = first(&mut a, &mut b, now);
        let mut operations = limit::operations(key, datagrams);
        let (mut times, mut rounds) = (Vec::new(), Vec::new());
        let start = Instant::now();
        while start.elapsed() < BUDGET {
            for _ in 0..ROW {
                now += PAUSE;
                a.endpoint.handle_timeout(now);
                b.endpoint.handle_timeout(now);
                let start = Instant::now();
                shake(&mut a, &mut b, 0, now);
                times.push(start.elapsed().as_nanos() as f64 / 1000.0);
                close(&mut a, &mut b, 0, now);
            }
            rounds.extend((0..ROW).map(|_| limit::round(&mut operations)));
        }
        Self {
            auth,
            each: crate::tenth(&mut times),
            limit: crate::tenth(&mut rounds),
            operations,
        }
    }

    /// One line for each operation.
    pub(crate) fn parts(&mut self) -> String {
        let mut text = String::new();
        for operation in &mut self.operations {
            let each = operation.each();
            let (name, count) = (operation.name, operation.count);
            let all = each * count as f64;
            // Writing into a string does not fail.
            let _ = writeln!(text, "  {name:<34}{count:>4}{each:>10.2}{all:>10.1}");
        }
        text
    }
}

/// So many handshakes and nothing else, for a profiler.
pub(crate) fn only(count: usize, key: Option<&PrivateKey>) {
    let mut now = Instant::now();
    let (mut a, mut b) = ends(key);
    for _ in 0..count {
        now += PAUSE;
        a.endpoint.handle_timeout(now);
        b.endpoint.handle_timeout(now);
        shake(&mut a, &mut b, 0, now);
        close(&mut a, &mut b, 0, now);
    }
}

fn ends(key: Option<&PrivateKey>) -> (End, End) {
    let ours = with_key(nth(0), key);
    let theirs = mirror(&ours, StartAction::None);
    let own = || key.map(crate::again);
    let a = End::new(vec![ours], 1).with_key(own());
    let b = End::new(vec![theirs], 2).with_key(own());
    (a, b)
}

fn with_key(mut connection: Connection, key: Option<&PrivateKey>) -> Connection {
    if let Some(key) = key {
        connection.local.method = LocalAuthMethod::Key(key.public());
        connection.remote.method = RemoteAuthMethod::Keys(vec![key.public()]);
    }
    connection
}

/// The lengths of the datagrams of a handshake, which is checked to be one that the limit is for.
fn first(a: &mut End, b: &mut End, now: Instant) -> Datagrams {
    let seen = shake(a, b, 0, now);
    let status = a.endpoint.status(now);
    let algorithms = status[0].algorithms.expect("it is up");
    assert_eq!(algorithms.encr, Encr::AES256_GCM16);
    assert_eq!(algorithms.prf, PrfId::HMAC_SHA2_256);
    assert_eq!(algorithms.ke, KeMethod::CURVE25519);
    close(a, b, 0, now);
    let datagrams = seen.datagrams.try_into();
    datagrams.expect("IKE_SA_INIT and IKE_AUTH, a request and a reply each")
}
