//! What an IKE SA is resumed from, RFC 5723 section 5: what the initiator keeps beside a ticket,
//! and what the responder seals into it.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::config::{Connection, LocalAuthMethod, RemoteAuthMethod};
use crate::crypto::secret::Secret;
use crate::crypto::signature::Signatures;
use crate::identity::Identity;
use crate::proposal::Encr;
use crate::status::IkeAlgorithms;
use crate::wire::{EncrId, Id, IntegId, KeMethod, Malformed, PrfId, Reader, Writer};

//= rfc5723 4.2-2 6.1-4
/// What is left of an IKE SA, seen from one of its ends.
pub(crate) struct Session {
    /// Name of the connection.
    pub(crate) connection: String,
    /// What we proved to be.
    pub(crate) local_id: Identity,
    /// What the peer proved to be.
    pub(crate) remote_id: Identity,
    pub(crate) alg: IkeAlgorithms,
    pub(crate) sk_d: Secret,
    /// When identities were proven by more than a ticket.
    pub(crate) proven: Instant,
    /// How they were proven.
    pub(crate) policy: Policy,
    /// The shared secret that was used, if one was.
    pub(crate) secret: Option<SecretTag>,
}

/// A digest of what a connection says of who proves what by which keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Policy([u8; 32]);

/// Recognises a shared secret; made with a key that is nowhere but in memory beside that secret.
#[derive(Clone, Copy)]
pub(crate) struct SecretTag(pub(crate) [u8; 16]);

impl SecretTag {
    /// Equality in constant time.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Policy {
    /// Of this connection.
    pub(crate) fn of(connection: &Connection) -> Self {
        let mut digest = Sha256::new();
        let mut add = |octets: &[u8]| {
            digest.update((octets.len() as u64).to_be_bytes());
            digest.update(octets);
        };
        let body = |id: &Option<Identity>| id.as_ref().map(Identity::to_body).unwrap_or_default();
        add(&body(&connection.local.id));
        match &connection.local.method {
            LocalAuthMethod::Psk => add(b"psk"),
            LocalAuthMethod::Key(key) => add(&key.to_spki_der()),
        }
        add(&body(&connection.remote.id));
        match &connection.remote.method {
            RemoteAuthMethod::Psk => add(b"psk"),
            RemoteAuthMethod::KeysOrPsk(keys) => {
                add(b"either");
                keys.iter().for_each(|key| add(&key.to_spki_der()));
            }
            RemoteAuthMethod::Keys(keys) => {
                keys.iter().for_each(|key| add(&key.to_spki_der()));
            }
        }
        if connection.remote.signatures != Signatures::ALL {
            add(connection.remote.signatures.to_string().as_bytes());
        }
        Self(digest.finalize().into())
    }
}

/// Turns the clock that never runs back into seconds that can be written down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calendar {
    at: Instant,
    seconds: u64,
}

impl Calendar {
    /// Now it is so many seconds after an epoch.
    pub(crate) fn new(now: Instant, seconds: u64) -> Self {
        Self { at: now, seconds }
    }

    /// Whole seconds.
    pub(crate) fn seconds(&self, at: Instant) -> u64 {
        match at.checked_duration_since(self.at) {
            Some(later) => self.seconds.saturating_add(later.as_secs()),
            None => {
                let earlier = self.at.saturating_duration_since(at);
                self.seconds.saturating_sub(earlier.as_secs())
            }
        }
    }

    /// The time at so many seconds, if the clock can tell it.
    pub(crate) fn instant(&self, seconds: u64) -> Option<Instant> {
        match seconds.checked_sub(self.seconds) {
            Some(later) => self.at.checked_add(Duration::from_secs(later)),
            None => {
                let earlier = Duration::from_secs(self.seconds - seconds);
                self.at.checked_sub(earlier)
            }
        }
    }
}

impl Session {
    /// The content of a ticket that is good until `expires`. Too long a field makes it empty.
    pub(crate) fn encode(&self, expires: u64, calendar: Calendar) -> Zeroizing<Vec<u8>> {
        let (local, remote) = (self.local_id.to_body(), self.remote_id.to_body());
        // As long as it can become: a vector that grows leaves copies behind.
        let len = 128 + self.connection.len() + local.len() + remote.len() + self.sk_d.len();
        let mut octets = Zeroizing::new(Vec::with_capacity(len));
        let mut w = Writer::new(&mut octets);
        w.u64(expires);
        w.u64(calendar.seconds(self.proven));
        let alg = &self.alg;
        let numbers = [
            alg.encr.id.0,
            alg.encr.key_bits,
            alg.integ.0,
            alg.prf.0,
            alg.ke.0,
        ];
        numbers.into_iter().for_each(|number| w.u16(number));
        w.bytes(&self.policy.0);
        w.u8(u8::from(self.secret.is_some()));
        w.bytes(&self.secret.map_or([0; 16], |tag| tag.0));
        for field in [
            self.sk_d.expose(),
            self.connection.as_bytes(),
            &local,
            &remote,
        ] {
            w.count_u16(field.len());
            w.bytes(field);
        }
        if w.finish().is_err() {
            octets.clear();
        }
        octets
    }

    /// Reads what [`encode`](Self::encode) wrote: when it expires, and what is in it.
    ///
    /// # Errors
    /// If it is something else.
    pub(crate) fn decode(octets: &[u8], calendar: Calendar) -> Result<(u64, Self), Malformed> {
        let mut r = Reader::new(octets);
        let expires = r.u64()?;
        let proven = calendar.instant(r.u64()?).ok_or(Malformed::Value)?;
        let alg = IkeAlgorithms {
            encr: Encr::new(EncrId(r.u16()?), r.u16()?),
            integ: IntegId(r.u16()?),
            prf: PrfId(r.u16()?),
            ke: KeMethod(r.u16()?),
        };
        let policy = Policy(r.array()?);
        let has_secret = r.u8()? == 1;
        let tag = SecretTag(r.array()?);
        let mut field = || {
            let len = r.u16()?;
            r.bytes(usize::from(len))
        };
        let sk_d = Secret::from(field()?);
        let connection = String::from_utf8(field()?.to_vec()).map_err(|_| Malformed::Value)?;
        let local_id = identity(field()?)?;
        let remote_id = identity(field()?)?;
        r.finish()?;
        let session = Self {
            connection,
            local_id,
            remote_id,
            alg,
            sk_d,
            proven,
            policy,
            secret: has_secret.then_some(tag),
        };
        Ok((expires, session))
    }
}

fn identity(body: &[u8]) -> Result<Identity, Malformed> {
    Identity::from_payload(&Id::from_body(body)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::setup;

    /// A session of the setup's first host.
    pub(crate) fn session(now: Instant) -> Session {
        let connection = setup::connection(Vec::new());
        Session {
            policy: Policy::of(&connection),
            connection: connection.name,
            local_id: connection.local.id.expect("the setup has one"),
            remote_id: connection.remote.id.expect("the setup has one"),
            alg: IkeAlgorithms {
                encr: Encr::AES256_GCM16,
                integ: IntegId::NONE,
                prf: PrfId::HMAC_SHA2_256,
                ke: KeMethod::CURVE25519,
            },
            sk_d: Secret::new(vec![7; 32]),
            proven: now,
            secret: Some(SecretTag([9; 16])),
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_shorter_or_longer() {
        let now = Instant::now();
        let calendar = Calendar::new(now, 1_000_000);
        let later = now + Duration::from_secs(100);
        let written = session(now).encode(1_000_500, calendar);
        let Ok((expires, read)) = Session::decode(&written, Calendar::new(later, 1_000_100)) else {
            panic!("it is not read");
        };
        assert_eq!(expires, 1_000_500);
        let before = session(now);
        assert_eq!(read.connection, before.connection);
        assert_eq!((read.alg, read.proven), (before.alg, now));
        assert_eq!(read.local_id, before.local_id);
        assert_eq!(read.remote_id, before.remote_id);
        assert_eq!(read.policy, before.policy);
        assert!(read.sk_d.ct_eq(&before.sk_d));
        assert!(
            read.secret
                .is_some_and(|tag| tag.is(&SecretTag([9; 16])) && !tag.is(&SecretTag([8; 16])))
        );
        for len in 0..written.len() {
            assert!(Session::decode(&written[..len], calendar).is_err(), "{len}");
        }
        let longer = [&written[..], &[0]].concat();
        assert!(Session::decode(&longer, calendar).is_err());
    }

    #[test]
    fn what_is_too_long_for_its_field_is_not_written() {
        let now = Instant::now();
        let mut session = session(now);
        session.connection = "c".repeat(70_000);
        assert!(session.encode(1, Calendar::new(now, 0)).is_empty());
    }

    #[test]
    fn who_proves_what_by_which_keys_is_in_the_policy() {
        use crate::crypto::signature::PublicKey;
        let base = setup::connection(Vec::new());
        let key = |n: u8| PublicKey::rsa(&[n; 256], &[1, 0, 1]).expect("of a legal size");
        let mut others = vec![base.clone(); 7];
        others[0].local.id = None;
        others[1].remote.id = None;
        others[2].local.method = LocalAuthMethod::Key(key(0xff));
        others[3].remote.method = RemoteAuthMethod::Keys(vec![key(0xff)]);
        others[4].remote.method = RemoteAuthMethod::Keys(vec![key(0xff), key(0xfd)]);
        others[5].remote.method = RemoteAuthMethod::Keys(vec![key(0xfd)]);
        others[6].remote = others[3].remote.clone();
        others[6].remote.signatures = "rsa-pss".parse().expect("a word");
        others.push(base.clone());
        for (n, one) in others.iter().enumerate() {
            for (m, other) in others.iter().enumerate() {
                assert_eq!(Policy::of(one) == Policy::of(other), n == m, "{n} {m}");
            }
        }
        let mut same = base.clone();
        same.rekey_time = Duration::from_secs(1);
        assert_eq!(Policy::of(&base), Policy::of(&same));
    }
}
