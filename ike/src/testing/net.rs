//! A network as a value with a seed: loss, duplication, reordering, delay, corruption,
//! partition, and a NAT. The same seed gives the same run.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::config::Path;

/// What happens to datagrams. Shares are in thousandths.
#[derive(Clone, Debug)]
pub struct Net {
    rng: ChaCha20Rng,
    /// Datagrams lost.
    pub loss: u32,
    /// Datagrams that arrive twice.
    pub duplicated: u32,
    /// Datagrams of which one bit is flipped.
    pub corrupted: u32,
    /// Least and greatest delay; what is sent later may arrive earlier.
    pub delay: (Duration, Duration),
    /// Nothing arrives.
    pub partitioned: bool,
    /// Longer datagrams are lost: what a path does that drops IP fragments.
    pub longest: Option<usize>,
    /// The datagram with this number (from 0) is lost.
    pub drop_nth: Option<usize>,
    /// A NAT before the host with the first address; others see the second.
    pub nat: Option<(IpAddr, IpAddr)>,
    /// Nothing passes to or from these addresses.
    pub dead: Vec<IpAddr>,
    /// Everything that was sent, in order.
    pub sent: Vec<Packet>,
    in_flight: BTreeMap<(Instant, u64), Packet>,
    number: u64,
    /// What the NAT knows: sockets inside by the ports that it gave them.
    mappings: BTreeMap<u16, SocketAddr>,
    shift: u16,
}

/// A datagram, as its sender addressed it or as it arrives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet {
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// Payload of UDP, without non-ESP marker.
    pub datagram: Vec<u8>,
}

/// Ports behind a NAT are shifted by this, until it is rebooted.
const NAT_SHIFT: u16 = 10_000;

impl Net {
    /// A network that delivers everything, in order, within ten milliseconds.
    pub fn seeded(seed: u64) -> Self {
        Self {
            rng: ChaCha20Rng::seed_from_u64(seed),
            loss: 0,
            duplicated: 0,
            corrupted: 0,
            delay: (Duration::from_millis(10), Duration::from_millis(10)),
            partitioned: false,
            longest: None,
            drop_nth: None,
            nat: None,
            dead: Vec::new(),
            sent: Vec::new(),
            in_flight: BTreeMap::new(),
            number: 0,
            mappings: BTreeMap::new(),
            shift: NAT_SHIFT,
        }
    }

    /// Loses, duplicates, delays and so reorders: shares in thousandths.
    #[must_use]
    pub fn hostile(mut self, loss: u32, duplicated: u32) -> Self {
        self.loss = loss;
        self.duplicated = duplicated;
        self.delay = (Duration::from_millis(5), Duration::from_millis(300));
        self
    }

    /// Loses the datagram with this number.
    #[must_use]
    pub fn drop_nth(mut self, nth: usize) -> Self {
        self.drop_nth = Some(nth);
        self
    }

    /// Puts a datagram on its way.
    pub fn send(&mut self, now: Instant, path: Path, datagram: Vec<u8>) {
        let dead = [path.local.ip(), path.remote.ip()]
            .iter()
            .any(|ip| self.dead.contains(ip));
        let packet = self.translate_out(Packet {
            from: path.local,
            to: path.remote,
            datagram,
        });
        self.sent.push(packet.clone());
        let too_long = self.longest.is_some_and(|max| packet.datagram.len() > max);
        let nth = self.drop_nth == Some(self.sent.len() - 1);
        let lost = nth || too_long || self.chance(self.loss);
        if lost || dead || self.partitioned {
            return;
        }
        if self.chance(self.duplicated) {
            self.deliver_later(now, packet.clone());
        }
        self.deliver_later(now, packet);
    }

    /// Puts a datagram on its way as it stands, past all mishaps.
    pub fn inject(&mut self, now: Instant, packet: Packet) {
        self.number += 1;
        self.in_flight.insert((now, self.number), packet);
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.in_flight.keys().next().map(|(at, _)| *at)
    }

    /// The datagram that arrives until `now`, if any.
    pub fn arrive(&mut self, now: Instant) -> Option<Packet> {
        let entry = self.in_flight.first_entry().filter(|e| e.key().0 <= now)?;
        Some(entry.remove())
    }

    /// Loses those of the datagrams on their way that are like this.
    pub fn lose(&mut self, like: impl Fn(&Packet) -> bool) {
        self.in_flight.retain(|_, packet| !like(packet));
    }

    /// Forgets what is on its way.
    pub fn clear(&mut self) {
        self.in_flight.clear();
    }

    /// The NAT forgets its mappings, and gives other ports from here on.
    pub fn rebind(&mut self) {
        self.mappings.clear();
        self.shift = if self.shift > 50_000 {
            NAT_SHIFT
        } else {
            self.shift + 7
        };
    }

    fn deliver_later(&mut self, now: Instant, mut packet: Packet) {
        if self.chance(self.corrupted) && !packet.datagram.is_empty() {
            let bit = self.rng.next_u64() as usize % (packet.datagram.len() * 8);
            packet.datagram[bit / 8] ^= 1 << (bit % 8);
        }
        let (least, greatest) = self.delay;
        let spread = (greatest - least).as_micros().max(1) as u64;
        let delay = least + Duration::from_micros(self.rng.next_u64() % spread);
        self.number += 1;
        let packet = self.translate_in(packet);
        self.in_flight.insert((now + delay, self.number), packet);
    }

    /// What leaves the host behind the NAT gets another source.
    fn translate_out(&mut self, mut packet: Packet) -> Packet {
        if let Some((inside, outside)) = self.nat
            && packet.from.ip() == inside
        {
            let port = packet.from.port() + self.shift;
            self.mappings.insert(port, packet.from);
            packet.from = SocketAddr::new(outside, port);
        }
        packet
    }

    /// What comes back to it gets its own address again; what the NAT does not know stays there.
    fn translate_in(&self, mut packet: Packet) -> Packet {
        if let Some((_, outside)) = self.nat
            && packet.to.ip() == outside
            && let Some(inside) = self.mappings.get(&packet.to.port())
        {
            packet.to = *inside;
        }
        packet
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.rng.next_u32() % 1000 < thousandths
    }
}
