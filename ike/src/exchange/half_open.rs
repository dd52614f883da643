//! Half-open IKE SAs as responder: found by the request that began each, and counted, all of
//! them and by the network that they come from (RFC 8019 section 4.2).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};

use sha2::{Digest, Sha256};

use crate::event::IkeSaId;

/// The half-open IKE SAs of an endpoint.
///
/// The key covers the whole request and not just its SPI: requests that differ each make an IKE
/// SA of their own (RFC 7296 section 2.1), and each of those has to count.
#[derive(Debug, Default)]
pub(crate) struct HalfOpens {
    by_request: HashMap<Key, IkeSaId>,
    keys: HashMap<IkeSaId, Key>,
    networks: HashMap<IpAddr, usize>,
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
        self.networks.get(&network(ip)).copied().unwrap_or_default()
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
        *self.networks.entry(network(remote.ip())).or_default() += 1;
    }

    /// Forgets one: it is established, or gone.
    pub(crate) fn remove(&mut self, id: IkeSaId) {
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        self.by_request.remove(&key);
        if let Entry::Occupied(mut count) = self.networks.entry(network(key.0.ip())) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
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
        half_open.remove(IkeSaId(5));
        assert_eq!(half_open.find(at(places[0]), b"another"), None);
        assert_eq!(half_open.in_network_of(at("10.0.0.77:1").ip()), 2);
        assert_eq!(half_open.find(at(places[0]), b"request"), Some(IkeSaId(1)));
    }
}
