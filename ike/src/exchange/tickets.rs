//! Tickets by value as their maker sees them, RFC 5723 section 6: sealed, good once, and void when
//! the IKE SA that they are of is deleted or rekeyed.
//!
//! ```text
//!  version (1) | key identity (8) | number (8) | sealed content | ICV (16)
//! ```
//! The number is the nonce of the AEAD; with the key identity it names the ticket. Which tickets
//! of this run are good stands in a list, a few octets for each, so that nothing has to be
//! remembered of those that are not. A key that is given from outside makes keys that are known
//! again after a restart; of the tickets of an earlier run, those that were used are remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::config::Resumption;
use crate::crypto::encr::IkeCipher;
use crate::crypto::prf::Prf;
use crate::crypto::secret::Secret;
use crate::error::Dropped;
use crate::event::IkeSaId;
use crate::exchange::session::{Calendar, SecretTag, Session};
use crate::proposal::Encr;
use crate::wire::{IntegId, PrfId};

/// The only kind of ticket that there is.
const VERSION: u8 = 1;
/// Version and key identity: what is sealed in clear.
const HEAD_LEN: usize = 9;
/// Number, padding and ICV.
const LEAST: usize = HEAD_LEN + 8 + 4 + 16;
/// No ticket of ours is longer, and a peer's is not kept if it is.
pub(crate) const MAX_TICKET: usize = 2048;
/// Octets of key and salt.
const KEY_LEN: usize = 36;
const ENCR: Encr = Encr::AES256_GCM16;

//= rfc5723 6.2-6 9.5-1
/// A key makes tickets for this long: longer than an IKE SA lives. It opens them until the last
/// one has expired.
const SEALS: Duration = Duration::from_secs(12 * 3600);

/// Tickets that are good at once. For one more, the one that expires first is not.
const MAX_GOOD: usize = 1 << 18;
/// Used tickets of earlier runs. With more, none of an earlier run is good.
const MAX_SPENT: usize = 1 << 16;

/// Where a calendar begins that nobody else reads: far enough from zero for times before now.
const EPOCH: u64 = 1 << 40;

/// Names a ticket: key identity and number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct TicketId(u64, u64);

/// A ticket that came back, and is good.
pub(crate) struct Presented {
    pub(crate) id: TicketId,
    expires: u64,
    pub(crate) session: Session,
}

/// What a maker of tickets knows.
#[derive(Default)]
pub(crate) struct Tickets {
    given: Option<Secret>,
    calendar: Option<Calendar>,
    /// Oldest first; the last one makes tickets.
    keys: Vec<Key>,
    /// With this, shared secrets are recognised.
    tag_key: Option<Secret>,
    /// Of keys of this run: those that are good, and the IKE SA that each is of.
    good: Ledger<IkeSaId>,
    /// Of keys of earlier runs: those that were used.
    spent: Ledger<()>,
}

struct Key {
    id: u64,
    cipher: IkeCipher,
    since: Instant,
    /// Number of the next ticket.
    next: u64,
    /// When the last ticket expires.
    last: u64,
}

/// Tickets, and when they expire.
struct Ledger<T> {
    by_id: BTreeMap<TicketId, (u64, T)>,
    by_expiry: BTreeSet<(u64, TicketId)>,
}

impl<T> Default for Ledger<T> {
    fn default() -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
        }
    }
}

impl<T> Ledger<T> {
    fn add(&mut self, id: TicketId, expires: u64, what: T) {
        self.remove(id);
        self.by_expiry.insert((expires, id));
        self.by_id.insert(id, (expires, what));
    }

    fn remove(&mut self, id: TicketId) -> Option<T> {
        let (expires, what) = self.by_id.remove(&id)?;
        self.by_expiry.remove(&(expires, id));
        Some(what)
    }

    fn get(&self, id: TicketId) -> Option<&T> {
        self.by_id.get(&id).map(|(_, what)| what)
    }

    fn expire(&mut self, seconds: u64) {
        while let Some((_, id)) = self.by_expiry.first().filter(|(at, _)| *at <= seconds) {
            self.remove(*id);
        }
    }
}

impl Tickets {
    /// Makes keys with this secret from now on, which are known again after a restart. `unix_time`
    /// is the time since 1970.
    pub(crate) fn keep(&mut self, now: Instant, unix_time: Duration, secret: Secret) {
        *self = Self {
            given: Some(secret),
            calendar: Some(Calendar::new(now, unix_time.as_secs())),
            ..Self::default()
        };
    }

    /// Whether there are any that may come back.
    pub(crate) fn are_there(&self) -> bool {
        self.given.is_some() || !self.keys.is_empty()
    }

    //= rfc5723 6.1-1 6.1-6 6.1-7 6.2-5 9.1-1 9.10-1
    //= security S-63
    /// A ticket for this session of an IKE SA, good for whole seconds of `life`. `None` if it is
    /// too long, or has no time to be good.
    pub(crate) fn issue(
        &mut self,
        now: Instant,
        rng: &mut dyn CryptoRng,
        sa: IkeSaId,
        session: &Session,
        life: Duration,
    ) -> Option<(TicketId, Vec<u8>)> {
        self.expire(now);
        let calendar = *self.calendar.get_or_insert(Calendar::new(now, EPOCH));
        let life = life.min(Resumption::LONGEST).as_secs();
        let expires = calendar.seconds(now).checked_add(life)?;
        let content = session.encode(expires, calendar);
        if life == 0 || content.is_empty() {
            return None;
        }
        let key = self.sealing(now, rng)?;
        if HEAD_LEN + key.cipher.sealed_len(content.len()) > MAX_TICKET {
            return None;
        }
        let number = key.next;
        key.next += 1;
        key.last = key.last.max(expires);
        let id = TicketId(key.id, number);
        let mut ticket = head(key.id);
        let sealed = key.cipher.seal(number, &ticket, &content);
        ticket.extend(sealed);
        while self.good.by_id.len() >= MAX_GOOD {
            let (_, first) = *self.good.by_expiry.first()?;
            self.good.remove(first);
        }
        self.good.add(id, expires, sa);
        Some((id, ticket))
    }

    /// Opens a ticket. Nothing changes: whoever has a copy can present it.
    ///
    /// # Errors
    /// Why it is not good; the peer learns no more than that.
    pub(crate) fn open(&self, now: Instant, ticket: &[u8]) -> Result<Presented, Dropped> {
        if !(LEAST..=MAX_TICKET).contains(&ticket.len()) {
            return Err(Dropped::TicketMalformed);
        }
        let ([version, key @ ..], number) = read_head(ticket).ok_or(Dropped::TicketMalformed)?;
        if version != VERSION {
            return Err(Dropped::TicketMalformed);
        }
        let id = TicketId(u64::from_be_bytes(key), number);
        let calendar = self.calendar.ok_or(Dropped::TicketUnknownKey)?;
        let own = self.keys.iter().find(|key| key.id == id.0);
        let derived = match own {
            Some(_) => None,
            None => self.derive(id.0),
        };
        let cipher = own.map(|key| &key.cipher).or(derived.as_ref());
        let cipher = cipher.ok_or(Dropped::TicketUnknownKey)?;
        let content = cipher.open(ticket, HEAD_LEN..ticket.len());
        let content = zeroize::Zeroizing::new(content.map_err(|_| Dropped::TicketForged)?);
        let read = Session::decode(&content, calendar);
        let (expires, session) = read.map_err(|_| Dropped::TicketMalformed)?;
        let seconds = calendar.seconds(now);
        // None that lasts longer was ever made, unless somebody has turned the clock back.
        let latest = seconds.saturating_add(Resumption::LONGEST.as_secs());
        if expires <= seconds || expires > latest {
            return Err(Dropped::TicketExpired);
        }
        let presented = Presented {
            id,
            expires,
            session,
        };
        let good = self.is_good(&presented);
        good.then_some(presented).ok_or(Dropped::TicketVoid)
    }

    //= rfc5723 4.3.1-3
    /// Uses a ticket up: both ends are proven. `None` if it is good no more, else the IKE SA that
    /// it is of, if that was made in this run.
    pub(crate) fn spend(&mut self, now: Instant, ticket: &Presented) -> Option<Option<IkeSaId>> {
        self.expire(now);
        if !self.is_good(ticket) {
            return None;
        }
        if let Some(sa) = self.good.remove(ticket.id) {
            return Some(Some(sa));
        }
        self.spent.add(ticket.id, ticket.expires, ());
        Some(None)
    }

    /// Its IKE SA was deleted or rekeyed, or has another ticket.
    pub(crate) fn void(&mut self, id: TicketId) {
        self.good.remove(id);
    }

    /// Recognises a shared secret.
    pub(crate) fn tag(&mut self, rng: &mut dyn CryptoRng, secret: &Secret) -> SecretTag {
        let given = self.given.as_ref();
        let key = self.tag_key.get_or_insert_with(|| match given {
            Some(given) => prf().plus(given.expose(), &[b"obol ticket secrets"], 32),
            None => random(rng, 32),
        });
        let mac = prf().compute(key.expose(), &[secret.expose()]);
        let octets = mac.expose().first_chunk().copied();
        SecretTag(octets.expect("a hash is longer"))
    }

    //= rfc5723 9.5-1
    /// Forgets what is too old to be of use.
    pub(crate) fn expire(&mut self, now: Instant) {
        let Some(calendar) = self.calendar else {
            return;
        };
        let seconds = calendar.seconds(now);
        self.good.expire(seconds);
        self.spent.expire(seconds);
        self.keys.retain(|key| key.over_at(calendar) > now);
    }

    /// When the first key is too old to be of use.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let calendar = self.calendar?;
        self.keys.iter().map(|key| key.over_at(calendar)).min()
    }

    fn is_good(&self, ticket: &Presented) -> bool {
        if self.keys.iter().any(|key| key.id == ticket.id.0) {
            self.good.get(ticket.id).is_some()
        } else {
            // `good` is empty of it, since the key is of an earlier run.
            self.given.is_some()
                && self.spent.get(ticket.id).is_none()
                && self.spent.by_id.len() < MAX_SPENT
        }
    }

    fn sealing(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> Option<&mut Key> {
        let seals = |key: &Key| now.saturating_duration_since(key.since) < SEALS;
        if !self.keys.last().is_some_and(seals) {
            let id = rng.next_u64();
            let cipher = match self.derive(id) {
                Some(cipher) => cipher,
                None => cipher(&random(rng, KEY_LEN)),
            };
            self.keys.push(Key {
                id,
                cipher,
                since: now,
                next: 0,
                last: 0,
            });
        }
        self.keys.last_mut()
    }

    /// The key of this identity, where keys are made from a secret.
    fn derive(&self, id: u64) -> Option<IkeCipher> {
        let given = self.given.as_ref()?;
        let parts: [&[u8]; 2] = [b"obol ticket key", &id.to_be_bytes()];
        Some(cipher(&prf().plus(given.expose(), &parts, KEY_LEN)))
    }
}

impl Key {
    fn over_at(&self, calendar: Calendar) -> Instant {
        let seals = self.since + SEALS;
        calendar
            .instant(self.last)
            .map_or(seals, |last| last.max(seals))
    }
}

fn head(key: u64) -> Vec<u8> {
    [&[VERSION][..], &key.to_be_bytes()].concat()
}

fn read_head(ticket: &[u8]) -> Option<([u8; HEAD_LEN], u64)> {
    let (head, rest) = ticket.split_first_chunk()?;
    Some((*head, u64::from_be_bytes(*rest.first_chunk()?)))
}

fn prf() -> Prf {
    Prf::new(PrfId::HMAC_SHA2_256).expect("SHA-256 is always there")
}

fn random(rng: &mut dyn CryptoRng, len: usize) -> Secret {
    let mut octets = vec![0; len];
    rng.fill_bytes(&mut octets);
    Secret::new(octets)
}

fn cipher(key: &Secret) -> IkeCipher {
    let none = Secret::new(Vec::new());
    IkeCipher::new(ENCR, IntegId::NONE, key, &none).expect("a key of its length")
}

#[cfg(test)]
#[path = "tickets_tests.rs"]
mod tests;
