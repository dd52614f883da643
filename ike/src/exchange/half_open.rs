//! Half-open IKE SAs as responder: found by the request that began each, and counted, all of
//! them and by the network that they come from (RFC 8019 section 4.2).

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::event::IkeSaId;
use crate::exchange::limit::{Limit, NETWORK};

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
type Key = (SocketAddr, [u8; 32]);

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

    /// The one that this very request began.
    pub(crate) fn find(&self, remote: SocketAddr, request: &[u8]) -> Option<IkeSaId> {
        self.by_request.get(&key(remote, request)).copied()
    }

    /// Adds the one that this request began.
    pub(crate) fn add(&mut self, remote: SocketAddr, request: &[u8], id: IkeSaId) {
        let key = key(remote, request);
        if let Some(before) = self.by_request.get(&key).copied() {
            self.remove(before);
        }
        self.by_request.insert(key, id);
        self.keys.insert(id, key);
        self.change(network(remote.ip()), |ids| {
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
fn key(remote: SocketAddr, request: &[u8]) -> Key {
    (remote, Sha256::digest(request).into())
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
            half_open.add(at(place), b"request", IkeSaId(n));
        }
        half_open.add(at(places[0]), b"another", IkeSaId(5));
        assert_eq!(half_open.len(), 5);
        assert_eq!(half_open.in_network_of(at("10.0.0.77:1").ip()), 3);
        assert_eq!(half_open.in_network_of(at("[fd00::77]:1").ip()), 1);
        assert_eq!(half_open.in_network_of(at("[fd00:0:0:1::1]:1").ip()), 0);
        assert_eq!(half_open.find(at(places[0]), b"another"), Some(IkeSaId(5)));
        assert_eq!(half_open.find(at(places[1]), b"another"), None);
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
        assert_eq!(half_open.find(at(places[0]), b"another"), None);
        assert_eq!(half_open.in_network_of(at("10.0.0.77:1").ip()), 2);
        assert_eq!(half_open.find(at(places[0]), b"request"), Some(IkeSaId(1)));
    }
}
