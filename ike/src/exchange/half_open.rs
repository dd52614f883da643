//! Half-open IKE SAs as responder: found by the request that began each, and counted, all of
//! them and by the network that they come from (RFC 8019 section 4.2).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::event::IkeSaId;
use crate::exchange::limit::{Limit, NETWORK};

/// A request that made an IKE SA is known for this long at least, and for twice as long at most.
const KNOWN: Duration = Duration::from_secs(120);
/// So many of those at most, twice.
const MAX_KNOWN: usize = 65_536;

/// The half-open IKE SAs of an endpoint.
///
/// The key covers the whole request and not just its SPI: requests that differ each make an IKE
/// SA of their own (RFC 7296 section 2.1), and each of those has to count.
#[derive(Debug, Default)]
pub(crate) struct HalfOpens {
    by_request: HashMap<Key, IkeSaId>,
    keys: HashMap<IkeSaId, Key>,
    networks: HashMap<IpAddr, Network>,
    /// The same by how many each has.
    sizes: BTreeSet<(usize, IpAddr)>,
    /// Requests of IKE SAs that are established, and those before, by the beginning of the hash.
    known: HashSet<u128>,
    known_before: HashSet<u128>,
    since: Option<Instant>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// Nothing: it was never seen, or long ago.
    New,
    /// This half-open IKE SA.
    HalfOpen(IkeSaId),
    /// An IKE SA that was established.
    Done,
}

/// What comes from one network.
#[derive(Debug)]
struct Network {
    /// Its half-open IKE SAs; the lowest is the oldest.
    ids: BTreeSet<IkeSaId>,
    /// Key exchanges that it may still have.
    work: Limit,
}

/// Where a request came from, and the hash of it.
pub(crate) type Key = (SocketAddr, [u8; 32]);

impl HalfOpens {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_request.len()
    }

    /// How many come from the network of this address.
    pub(crate) fn in_network_of(&self, ip: IpAddr) -> usize {
        self.networks.get(&network(ip)).map_or(0, |n| n.ids.len())
    }

    /// Whether a key exchange may be done for this address: its network has so many in a time.
    pub(crate) fn may_work_for(&mut self, now: Instant, ip: IpAddr) -> bool {
        let network = self.networks.get_mut(&network(ip));
        network.is_none_or(|network| network.work.take(now))
    }

    /// The oldest one from the network of this address.
    pub(crate) fn oldest_of(&self, ip: IpAddr) -> Option<IkeSaId> {
        self.networks.get(&network(ip))?.ids.first().copied()
    }

    /// The oldest one from the network that has most.
    pub(crate) fn oldest_of_largest(&self) -> Option<IkeSaId> {
        self.oldest_of(self.sizes.last()?.1)
    }

    //= rfc7296 2.1-5
    /// What became of this very request.
    pub(crate) fn find(&self, key: &Key) -> Fate {
        let start = start(key);
        if self.known.contains(&start) || self.known_before.contains(&start) {
            return Fate::Done;
        }
        let id = self.by_request.get(key);
        id.map_or(Fate::New, |id| Fate::HalfOpen(*id))
    }

    /// One is established: its request, if it comes again, is late.
    pub(crate) fn done(&mut self, now: Instant, id: IkeSaId) {
        let Some(key) = self.keys.get(&id) else {
            return;
        };
        let since = *self.since.get_or_insert(now);
        let old = now.saturating_duration_since(since) >= KNOWN;
        if old || self.known.len() >= MAX_KNOWN {
            self.known_before = std::mem::take(&mut self.known);
            self.since = Some(now);
        }
        self.known.insert(start(key));
        self.remove(id);
    }

    /// Adds the one that this request began.
    pub(crate) fn add(&mut self, key: Key, id: IkeSaId) {
        if let Some(before) = self.by_request.get(&key).copied() {
            self.remove(before);
        }
        self.by_request.insert(key, id);
        self.keys.insert(id, key);
        self.change(network(key.0.ip()), |ids| {
            ids.insert(id);
        });
    }

    /// Forgets one: it is established, or gone.
    pub(crate) fn remove(&mut self, id: IkeSaId) {
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        self.by_request.remove(&key);
        self.change(network(key.0.ip()), |ids| {
            ids.remove(&id);
        });
    }

    fn change(&mut self, network: IpAddr, change: impl FnOnce(&mut BTreeSet<IkeSaId>)) {
        let entry = self.networks.entry(network).or_insert_with(|| Network {
            ids: BTreeSet::new(),
            work: Limit::new(NETWORK),
        });
        self.sizes.remove(&(entry.ids.len(), network));
        change(&mut entry.ids);
        if entry.ids.is_empty() {
            self.networks.remove(&network);
        } else {
            self.sizes.insert((entry.ids.len(), network));
        }
    }
}

//= security S-3
/// What a request is known by.
pub(crate) fn key(remote: SocketAddr, request: &[u8]) -> Key {
    (remote, Sha256::digest(request).into())
}

fn start(key: &Key) -> u128 {
    let [high, ..] = key.1.as_chunks::<16>().0 else {
        return 0;
    };
    u128::from_be_bytes(*high)
}

//= security S-44
/// What one holder of addresses usually has at least: /24 of IPv4, /64 of IPv6.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() & !0xff).into()),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= test security S-3
    #[test]
    fn requests_that_differ_count_each_and_by_their_network() {
        let mut half_open = HalfOpens::default();
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let places = [
            "10.0.0.1:500",
            "10.0.0.9:500",
            "10.0.1.1:500",
            "[fd00::1]:500",
        ];
        for (n, place) in (1..).zip(places) {
            half_open.add(key(at(place), b"request"), IkeSaId(n));
        }
        half_open.add(key(at(places[0]), b"another"), IkeSaId(5));
        assert_eq!(half_open.len(), 5);
        assert_eq!(half_open.in_network_of(at("10.0.0.77:1").ip()), 3);
        assert_eq!(half_open.in_network_of(at("[fd00::77]:1").ip()), 1);
        assert_eq!(half_open.in_network_of(at("[fd00:0:0:1::1]:1").ip()), 0);
        let five = Fate::HalfOpen(IkeSaId(5));
        assert_eq!(half_open.find(&key(at(places[0]), b"another")), five);
        assert_eq!(half_open.find(&key(at(places[1]), b"another")), Fate::New);
        assert_eq!(
            half_open.oldest_of(at("10.0.0.77:1").ip()),
            Some(IkeSaId(1))
        );
        assert_eq!(half_open.oldest_of_largest(), Some(IkeSaId(1)));
        assert_eq!(
            half_open.oldest_of(at("[fd00::77]:1").ip()),
            Some(IkeSaId(4))
        );
        half_open.remove(IkeSaId(5));
        assert_eq!(half_open.find(&key(at(places[0]), b"another")), Fate::New);
        assert_eq!(half_open.in_network_of(at("10.0.0.77:1").ip()), 2);
        let one = Fate::HalfOpen(IkeSaId(1));
        assert_eq!(half_open.find(&key(at(places[0]), b"request")), one);
    }

    //= test rfc7296 2.1-5
    #[test]
    fn a_request_that_made_an_ike_sa_is_known_for_a_while() {
        let mut half_open = HalfOpens::default();
        let at: SocketAddr = "10.0.0.1:500".parse().unwrap();
        let start = Instant::now();
        let make = |half_open: &mut HalfOpens, n: u64, now| {
            half_open.add(key(at, &n.to_be_bytes()), IkeSaId(n));
            half_open.done(now, IkeSaId(n));
        };
        make(&mut half_open, 1, start);
        assert_eq!(half_open.len(), 0);
        assert_eq!(half_open.find(&key(at, &1u64.to_be_bytes())), Fate::Done);
        make(&mut half_open, 2, start + KNOWN);
        assert_eq!(half_open.find(&key(at, &1u64.to_be_bytes())), Fate::Done);
        make(&mut half_open, 3, start + 2 * KNOWN);
        assert_eq!(half_open.find(&key(at, &1u64.to_be_bytes())), Fate::New);
        assert_eq!(half_open.find(&key(at, &2u64.to_be_bytes())), Fate::Done);
        // They are bounded in number, too.
        for n in 10..10 + 2 * MAX_KNOWN as u64 {
            make(&mut half_open, n, start + 2 * KNOWN);
        }
        assert_eq!(half_open.find(&key(at, &2u64.to_be_bytes())), Fate::New);
        assert!(half_open.known.len() + half_open.known_before.len() <= 2 * MAX_KNOWN);
    }
}
