//! Whole lives of a connection on a bad network: up, traffic, rekeys at either end or at both at
//! once, and down again. A seed decides all of it. Packets pass from when it is up until it is told
//! to go down, unless so many requests in a row got no answer that an end took the other for dead.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::net::Net;
use super::pair::{End, Node, Pair};
use super::setup::{HOSTS, PODS, Setup};
use crate::config::StartAction;
use crate::error::IkeFailure;
use crate::event::{ChildSaId, Command, Event};

/// Longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(3600);
/// An idle peer is asked for a sign of life after this time.
const DPD_DELAY: Duration = Duration::from_secs(30);

/// How bad the network is, in thousandths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Weather {
    /// Datagrams lost.
    pub loss: u32,
    /// Datagrams that arrive twice.
    pub duplicated: u32,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            loss: 300,
            duplicated: 200,
        }
    }
}

/// What a life was like.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Time until packets could pass in both directions.
    pub up_after: Duration,
    /// Starts that had no answer, before that.
    pub retries: usize,
    /// Datagrams sent.
    pub datagrams: usize,
    /// IKE SAs given up since many requests in a row had no answer.
    pub given_up: usize,
    /// Times that packets passed no more.
    pub gaps: usize,
    /// Those of them before which no IKE SA was given up: there is no excuse for them.
    pub unexplained: usize,
    /// The first of these, for whoever looks for its cause.
    pub first_unexplained: Option<String>,
    /// Rekeys that were begun.
    pub rekeys: usize,
}

/// Lives through one seed.
///
/// # Errors
/// What is wrong, in words.
pub fn live(seed: u64, weather: Weather) -> Result<Life, String> {
    let lived = catch_unwind(AssertUnwindSafe(|| Lifetime::new(seed, weather).live()));
    lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_else(|| "a panic".to_owned()))
    })
}

struct Lifetime {
    rng: ChaCha20Rng,
    pair: Pair,
    life: Life,
}

impl Lifetime {
    fn new(seed: u64, weather: Weather) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(!seed);
        // One end starts, or both at once.
        let actions = [StartAction::Start, StartAction::None];
        let (a, b) = [(0, 1), (1, 0), (0, 0)][rng.next_u32() as usize % 3];
        let mut setup = match actions[a] {
            StartAction::Start => Setup::started(seed),
            _ => Setup::new(seed),
        };
        setup.b_starts = actions[b];
        setup.connection.dpd_delay = Some(DPD_DELAY);
        setup.net = Net::seeded(seed).hostile(weather.loss, weather.duplicated);
        Self {
            rng,
            pair: setup.pair(seed),
            life: Life::default(),
        }
    }

    fn live(mut self) -> Result<Life, String> {
        let begun = self.pair.now;
        self.pair.start();
        self.wait_for("up", is_up)?;
        self.life.up_after = self.pair.now - begun;
        let unanswered = |event: &Event| matches!(event, Event::IkeFailed { .. });
        self.life.retries = self.pair.a.count(unanswered) + self.pair.b.count(unanswered);
        self.carry_traffic();
        for _ in 0..1 + self.rng.next_u32() % 3 {
            self.rekey();
            let pause = self.rng.next_u32() % 5000;
            self.rest(Duration::from_millis(pause.into()));
            self.carry_traffic();
        }
        self.converge()?;
        self.life.given_up = given_up(&self.pair);
        self.go_down()?;
        self.life.datagrams = self.pair.net.sent.len();
        Ok(self.life)
    }

    /// Rekeys something at one end, or at both.
    fn rekey(&mut self) {
        let draw = self.rng.next_u32();
        for (end, bit) in [(End::A, 0), (End::B, 1)] {
            let here = draw % 4 == 3 || draw % 2 == bit;
            let connection = HOSTS.to_owned();
            let command = if draw >> (8 + bit) & 1 == 0 {
                let child = PODS.to_owned();
                Command::RekeyChild { connection, child }
            } else {
                Command::RekeyIke { connection }
            };
            // While another rekey is under way, there may be nothing to rekey for a moment.
            if here && self.pair.command(end, command).is_ok() {
                self.life.rekeys += 1;
            }
        }
    }

    /// All that is under way comes to its end, and what was replaced has time to go; then both
    /// ends have the same, and nothing twice.
    fn converge(&mut self) -> Result<(), String> {
        self.wait_for("in order", |pair| {
            is_up(pair) && is_single(pair) && is_calm(pair)
        })?;
        self.carry_traffic();
        self.rest(Duration::from_secs(100));
        self.wait_for("in order at the end", |pair| {
            is_up(pair) && is_single(pair) && is_calm(pair)
        })?;
        self.pair.assert_up(1);
        Ok(())
    }

    fn go_down(&mut self) -> Result<(), String> {
        for end in [End::A, End::B] {
            let connection = HOSTS.to_owned();
            let child = None;
            // The other end may have been quicker.
            let _ = self
                .pair
                .command(end, Command::Terminate { connection, child });
        }
        let down = |pair: &Pair| {
            [&pair.a, &pair.b].iter().all(|node| {
                node.plane.inbound.is_empty() && node.endpoint.status(pair.now).is_empty()
            })
        };
        // That packets pass no more is what is asked for.
        self.pair.run_until(self.pair.now + PATIENCE, down);
        self.check("down", down)?;
        self.pair.run_for(Duration::from_secs(100));
        self.pair.assert_down();
        Ok(())
    }

    fn wait_for(&mut self, what: &str, holds: impl Fn(&Pair) -> bool) -> Result<(), String> {
        self.run_until(PATIENCE, &holds);
        self.check(what, holds)
    }

    fn check(&self, what: &str, holds: impl Fn(&Pair) -> bool) -> Result<(), String> {
        if holds(&self.pair) {
            return Ok(());
        }
        Err(format!("not {what} after {PATIENCE:?}"))
    }

    fn rest(&mut self, time: Duration) {
        let end = self.pair.now + time;
        self.run_until(time, |_| false);
        self.pair.now = end;
    }

    /// Lets time pass, and counts how often packets pass no more.
    fn run_until(&mut self, time: Duration, holds: impl Fn(&Pair) -> bool) {
        let up = Cell::new(is_up(&self.pair));
        let life = RefCell::new(&mut self.life);
        self.pair.run_until(self.pair.now + time, |pair| {
            let was_up = up.replace(is_up(pair));
            if was_up && !up.get() {
                life.borrow_mut().add_gap(pair);
            }
            holds(pair)
        });
    }

    /// The first packets on what both ends send with.
    fn carry_traffic(&mut self) {
        for (from, to) in [(End::A, End::B), (End::B, End::A)] {
            let spi = self.pair.node(from).plane.spi_out(HOSTS, PODS);
            let inbound = &self.pair.node(to).plane.inbound;
            let used = inbound.iter().find(|(_, sa)| Some(sa.info.spi_in) == spi);
            let used: Option<ChildSaId> = used.map(|(id, _)| *id);
            if let Some(id) = used {
                let _ = self.pair.command(to, Command::InboundUsed(id));
            }
        }
    }
}

impl Life {
    fn add_gap(&mut self, pair: &Pair) {
        self.gaps += 1;
        if given_up(pair) == 0 {
            self.unexplained += 1;
            self.first_unexplained.get_or_insert_with(|| picture(pair));
        }
    }
}

/// IKE SAs that either end has given up so far.
fn given_up(pair: &Pair) -> usize {
    let gave_up = |event: &Event| {
        let reasons = |reason: &IkeFailure| {
            matches!(reason, IkeFailure::NoAnswer { .. } | IkeFailure::Expired)
        };
        matches!(event, Event::IkeDown { reason, .. } if reasons(reason))
    };
    pair.a.count(gave_up) + pair.b.count(gave_up)
}

/// What both ends have, and what they told last.
fn picture(pair: &Pair) -> String {
    let of = |node: &Node| {
        let inbound = node.plane.inbound.values();
        let accepted: Vec<_> = inbound.map(|sa| (sa.info.id, sa.info.spi_in)).collect();
        let status = node.endpoint.status(pair.now);
        let states: Vec<_> = status
            .iter()
            .map(|sa| (sa.id, sa.spi_i, sa.state))
            .collect();
        let told = &node.events[node.events.len().saturating_sub(4)..];
        format!(
            "{states:?} sends with {:?}, accepts {accepted:?}, {:?}, told {told:#?}",
            node.plane.spi_out(HOSTS, PODS),
            node.endpoint.leftovers(),
        )
    };
    format!("A {}\nB {}", of(&pair.a), of(&pair.b))
}

/// Whether packets of both ends pass.
pub fn is_up(pair: &Pair) -> bool {
    [(&pair.a, &pair.b), (&pair.b, &pair.a)]
        .into_iter()
        .all(|(from, to)| {
            let spi = from.plane.spi_out(HOSTS, PODS);
            let accepts = |spi| to.plane.inbound.values().any(|sa| sa.info.spi_in == spi);
            spi.is_some_and(accepts)
        })
}

/// Each end has one IKE SA, the same, and one Child SA.
fn is_single(pair: &Pair) -> bool {
    let spis = |node: &Node| -> Vec<_> {
        let status = node.endpoint.status(pair.now);
        status.iter().map(|sa| (sa.spi_i, sa.spi_r)).collect()
    };
    let (a, b) = (spis(&pair.a), spis(&pair.b));
    a.len() == 1 && a == b && pair.a.plane.inbound.len() == 1 && pair.b.plane.inbound.len() == 1
}

/// Neither end has anything under way.
fn is_calm(pair: &Pair) -> bool {
    pair.net.next_arrival().is_none()
        && pair.a.endpoint.leftovers().is_empty()
        && pair.b.endpoint.leftovers().is_empty()
}
