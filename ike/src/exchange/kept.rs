//! Tickets of IKE SAs that were lost, as their holder keeps them, RFC 5723 sections 4.2 and 6.2.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::config::Connection;
use crate::exchange::session::{Policy, Session};

/// Tickets kept; more push those out that expire first. A connection that names its peer has one.
const MAX_KEPT: usize = 4096;

/// A ticket, and what it is good for.
pub(crate) struct Kept {
    pub(crate) session: Session,
    pub(crate) ticket: Vec<u8>,
    pub(crate) expires: Instant,
}

/// The tickets, by connection, and by peer where the connection names none.
#[derive(Default)]
pub(crate) struct KeptTickets(BTreeMap<(String, Option<IpAddr>), Kept>);

impl KeptTickets {
    /// Keeps one for this connection and peer.
    pub(crate) fn put(&mut self, connection: &Connection, peer: IpAddr, kept: Kept) {
        self.0.insert(key(connection, peer), kept);
        if self.0.len() > MAX_KEPT {
            let first = self.0.iter().min_by_key(|(_, kept)| kept.expires);
            if let Some(first) = first.map(|(key, _)| key.clone()) {
                self.0.remove(&first);
            }
        }
    }

    //= rfc5723 4.3.1-1 4.3.1-2 9.7-1
    /// Takes the one for this connection and peer, if it is good and the connection is still the
    /// one that it was given for.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        connection: &Connection,
        peer: IpAddr,
    ) -> Option<Kept> {
        let kept = self.0.remove(&key(connection, peer))?;
        let good = kept.expires > now && fits(&kept, connection);
        good.then_some(kept)
    }

    //= rfc5723 6.2-1
    /// Forgets the one for this connection and peer.
    pub(crate) fn forget(&mut self, connection: &Connection, peer: IpAddr) {
        self.0.remove(&key(connection, peer));
    }

    //= rfc5723 6.2-2
    /// Forgets all of a connection.
    pub(crate) fn forget_all(&mut self, connection: &str) {
        self.0.retain(|(name, _), _| name != connection);
    }

    /// Forgets those of connections that are not what they were.
    pub(crate) fn keep<'a>(&mut self, find: impl Fn(&str) -> Option<&'a Connection>) {
        self.0
            .retain(|(name, _), kept| find(name).is_some_and(|now| fits(kept, now)));
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets those that are too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, kept| kept.expires > now);
    }

    /// When the first one is too old.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.values().map(|kept| kept.expires).min()
    }
}

/// Whether a ticket is for this connection as it is configured.
fn fits(kept: &Kept, connection: &Connection) -> bool {
    connection.resumption.enabled && kept.session.policy == Policy::of(connection)
}

fn key(connection: &Connection, peer: IpAddr) -> (String, Option<IpAddr>) {
    let open = connection.remote_addrs.is_empty();
    (connection.name.clone(), open.then_some(peer))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exchange::session::tests::session;
    use crate::testing::setup::{self, B};

    fn kept(now: Instant, seconds: u64) -> Kept {
        Kept {
            session: session(now),
            ticket: vec![1; 100],
            expires: now + Duration::from_secs(seconds),
        }
    }

    fn enabled() -> Connection {
        let mut connection = setup::connection(Vec::new());
        connection.resumption.enabled = true;
        connection
    }

    //= test rfc5723 4.3.1-1 4.3.1-2 9.7-1
    #[test]
    fn a_ticket_is_taken_once_and_in_time_and_for_what_it_was_given() {
        let now = Instant::now();
        let connection = enabled();
        let mut tickets = KeptTickets::default();
        tickets.put(&connection, B, kept(now, 10));
        assert!(tickets.take(now, &connection, B).is_some());
        assert!(tickets.take(now, &connection, B).is_none());
        tickets.put(&connection, B, kept(now, 10));
        let late = now + Duration::from_secs(10);
        assert!(tickets.take(late, &connection, B).is_none());
        let mut others = [connection.clone(), connection.clone()];
        others[0].resumption.enabled = false;
        others[1].local.id = None;
        for other in others {
            tickets.put(&connection, B, kept(now, 10));
            tickets.keep(|_| Some(&connection));
            assert_eq!(tickets.0.len(), 1);
            tickets.keep(|_| Some(&other));
            assert!(tickets.0.is_empty());
            tickets.put(&connection, B, kept(now, 10));
            assert!(tickets.take(now, &other, B).is_none());
        }
    }

    #[test]
    fn their_number_is_bounded_and_the_oldest_go() {
        let now = Instant::now();
        let mut connection = enabled();
        connection.remote_addrs.clear();
        let mut tickets = KeptTickets::default();
        for n in 0..MAX_KEPT as u32 + 10 {
            let peer = std::net::Ipv4Addr::from_bits(n).into();
            tickets.put(&connection, peer, kept(now, u64::from(n) + 1));
        }
        assert_eq!(tickets.0.len(), MAX_KEPT);
        assert_eq!(tickets.deadline(), Some(now + Duration::from_secs(11)));
        tickets.expire(now + Duration::from_secs(11));
        assert_eq!(tickets.0.len(), MAX_KEPT - 1);
        tickets.forget_all("another");
        assert_eq!(tickets.0.len(), MAX_KEPT - 1);
        tickets.forget_all(&connection.name);
        assert_eq!(tickets.deadline(), None);
    }
}
