//! Packets of one child in both directions, without pause: what an exchange costs them.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::pair::{End, Pair};
use crate::event::{ChildSaId, Command, EspSpi};

/// One packet goes out at each end this often.
const EVERY: Duration = Duration::from_millis(1);
/// How long a packet is under way.
const DELAY: Duration = Duration::from_millis(10);

/// Packets, and what became of them.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Connection and child that they belong to.
    pub of: (String, String),
    /// Packets sent.
    pub sent: usize,
    /// Packets for which there was no SA to go out on.
    pub stuck: usize,
    /// Packets that arrived where no SA accepted them.
    pub lost: usize,
    under_way: VecDeque<(Instant, End, EspSpi)>,
    used: BTreeSet<(bool, ChildSaId)>,
}

impl Traffic {
    /// Of this child.
    pub fn of(connection: &str, child: &str) -> Self {
        Self {
            of: (connection.to_owned(), child.to_owned()),
            ..Self::default()
        }
    }

    /// Lets this much time pass, with packets.
    pub fn run(&mut self, pair: &mut Pair, time: Duration) {
        let end = pair.now + time;
        while pair.now < end {
            self.send(pair, End::A, End::B);
            self.send(pair, End::B, End::A);
            pair.run_for(EVERY);
            self.arrive(pair);
        }
    }

    /// Whether no packet was held up or lost.
    pub fn is_whole(&self) -> bool {
        self.sent > 0 && self.stuck == 0 && self.lost == 0
    }

    fn send(&mut self, pair: &mut Pair, from: End, to: End) {
        self.sent += 1;
        let (connection, child) = &self.of;
        let at = pair.now + DELAY;
        match pair.node(from).plane.spi_out(connection, child) {
            Some(spi) => self.under_way.push_back((at, to, spi)),
            None => self.stuck += 1,
        }
    }

    fn arrive(&mut self, pair: &mut Pair) {
        while let Some((_, to, spi)) = self.under_way.pop_front_if(|(at, ..)| *at <= pair.now) {
            let inbound = &pair.node(to).plane.inbound;
            let found = inbound.values().find(|sa| sa.info.spi_in == spi);
            let Some(id) = found.map(|sa| sa.info.id) else {
                self.lost += 1;
                continue;
            };
            if self.used.insert((to == End::A, id)) {
                let told = pair.command(to, Command::InboundUsed(id));
                assert_eq!(told, Ok(()));
            }
        }
    }
}
