//! Secrets and private keys of this host: what answers `ike`'s questions for them.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::secret::Secret;
use obol_ike::crypto::signature::{PublicKey, SignatureScheme};
use obol_ike::identity::Identity;

use crate::pluto::Psks;
use crate::racoon::PskSource;

/// A pre-shared key, and whose it is.
#[derive(Debug)]
pub(crate) struct Psk {
    /// The name in the configuration.
    pub(crate) name: String,
    /// Who shares it; empty: everybody.
    pub(crate) ids: Vec<Identity>,
    /// The secret.
    pub(crate) secret: Secret,
}

/// Everything secret that the configuration names.
#[derive(Default)]
pub(crate) struct Credentials {
    /// Pre-shared keys.
    pub(crate) psks: Vec<Psk>,
    /// Those of `ipsec.secrets`, for whom none of the former fits.
    pub(crate) pluto: Arc<Psks>,
    /// Files of racoon's with more of them.
    pub(crate) psk_files: Vec<PskSource>,
    keys: Vec<OwnKey>,
}

struct OwnKey {
    name: String,
    public: PublicKey,
    private: FoundKey,
}

/// A pre-shared key for a peer.
struct FoundPsk {
    secret: Secret,
    /// It is for this peer, not for everybody.
    lists_peer: bool,
    /// It is in a file of racoon's.
    is_racoons: bool,
}

/// A secret of a peer that no connection names.
#[derive(Debug)]
pub(crate) struct OpenPsk {
    pub(crate) secret: Secret,
    /// Others have it, too: a peer that has it may call itself what it likes.
    pub(crate) of_group: bool,
}

/// A private key, or in words why it is not there.
pub(crate) type FoundKey = Result<Arc<PrivateKey>, String>;

/// How well a pre-shared key fits; greater is better.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fit {
    /// It is everybody's.
    Anybody,
    /// It lists us and nobody else.
    Local,
    /// It lists the peer.
    Remote,
    /// It lists both.
    Both,
}

impl Credentials {
    /// The pre-shared key of these two: one that lists both before one that lists the peer,
    /// before one that lists us alone, before one that lists nobody. Of equals, the one that
    /// fewer share; of those, the first.
    ///
    /// A key that lists us and others does not fit a peer that is not among them. Where none
    /// fits, the files of racoon's are looked at, whose lines are about the peer alone.
    pub(crate) fn psk(&self, local: &Identity, remote: &Identity) -> Option<Secret> {
        self.find(local, remote).map(|found| found.secret)
    }

    /// The pre-shared key of a peer at this address, on a connection that leaves open who it is:
    /// that of its address where one is for this very address, else as [`Self::psk`] does. Files of
    /// racoon's are always about addresses; other secrets are if the connection names the address
    /// (`named`).
    ///
    /// # Errors
    /// In words, for the log: its address and what it claims to be have different ones. Else whoever
    /// has any secret could take the place of any peer.
    pub(crate) fn psk_at(
        &self,
        local: &Identity,
        remote: &Identity,
        at: IpAddr,
        named: bool,
    ) -> Result<Option<OpenPsk>, String> {
        let by_identity = self.find(local, remote);
        let by_address = self
            .find(local, &Identity::from(at))
            .filter(|found| found.lists_peer && (named || found.is_racoons));
        match (by_address, by_identity) {
            (Some(one), Some(other)) if other.lists_peer && !one.secret.ct_eq(&other.secret) => {
                Err(format!(
                    "a peer at {at} claims to be {remote}, and the secret for {at} is another one \
                     than that for {remote}: leave one of them, make them the same, or give the \
                     peer a connection whose remote id is {remote}"
                ))
            }
            (Some(found), _) | (None, Some(found)) => Ok(Some(OpenPsk {
                of_group: !found.lists_peer || self.have(&found.secret, local) > 1,
                secret: found.secret,
            })),
            (None, None) => Ok(None),
        }
    }

    /// How many others have this secret, as far as they are listed.
    fn have(&self, secret: &Secret, local: &Identity) -> usize {
        let same = self.psks.iter().filter(|psk| psk.secret.ct_eq(secret));
        let mut listed: Vec<&Identity> = Vec::new();
        let of_plutos = self.pluto.with_secret(secret);
        for id in same.flat_map(|psk| &psk.ids).chain(of_plutos) {
            if !id.matches(local) && !listed.iter().any(|known| known.matches(id)) {
                listed.push(id);
            }
        }
        let files = self.psk_files.iter().map(|file| file.lines_with(secret));
        listed.len() + files.sum::<usize>()
    }

    fn find(&self, local: &Identity, remote: &Identity) -> Option<FoundPsk> {
        let ranked = self.psks.iter().filter_map(|psk| {
            let fit = psk.fit(local, remote)?;
            Some(((Reverse(fit), psk.ids.len()), psk))
        });
        let best = ranked.min_by_key(|(rank, _)| *rank);
        let best = best.map(|((Reverse(fit), _), psk)| FoundPsk {
            secret: Secret::from(psk.secret.expose()),
            lists_peer: fit >= Fit::Remote,
            is_racoons: false,
        });
        let in_files = || {
            let found = self.psk_files.iter().find_map(|file| file.find(remote));
            found.map(|(secret, lists_peer)| FoundPsk {
                secret,
                lists_peer,
                is_racoons: true,
            })
        };
        let of_plutos = || {
            let (secret, lists_peer) = self.pluto.psk(local, remote)?;
            Some(FoundPsk {
                secret,
                lists_peer,
                is_racoons: false,
            })
        };
        best.or_else(in_files).or_else(of_plutos)
    }

    /// Whether [`Self::psk`] may find one; `None` stands for an identity not known yet.
    pub(crate) fn may_have_psk(&self, local: Option<&Identity>, remote: Option<&Identity>) -> bool {
        let in_files = self.psk_files.iter().any(|file| file.may_have(remote));
        let in_tables = self.psks.iter().any(|psk| match (local, remote) {
            (Some(local), Some(remote)) => psk.fit(local, remote).is_some(),
            (None, Some(remote)) => psk.ids.len() < 2 || psk.lists(remote),
            (_, None) => true,
        });
        in_files
            || in_tables
            || local.is_some_and(|local| self.pluto.place(local, remote).is_some())
    }

    /// Adds a private key.
    pub(crate) fn add_key(&mut self, name: &str, private: PrivateKey) {
        self.add_found(name, private.public(), Ok(Arc::new(private)));
    }

    /// Adds a key whose private half may not be there.
    pub(crate) fn add_found(&mut self, name: &str, public: PublicKey, private: FoundKey) {
        let name = name.to_owned();
        self.keys.push(OwnKey {
            name,
            public,
            private,
        });
    }

    /// Takes in what there is besides: keys of other names, private halves that were missing, and the
    /// secrets of pluto's as they are now.
    pub(crate) fn add(&mut self, others: Self) {
        self.pluto = others.pluto;
        for key in others.keys {
            let mut known = self.keys.iter_mut();
            match known.find(|known| known.name == key.name) {
                None => self.keys.push(key),
                Some(known) if known.private.is_err() => *known = key,
                Some(_) => {}
            }
        }
    }

    /// Names and public halves of the private keys.
    pub(crate) fn keys(&self) -> Vec<(&str, &PublicKey)> {
        let keys = self.keys.iter();
        keys.map(|key| (key.name.as_str(), &key.public)).collect()
    }

    /// Signs with the private half of `key`.
    ///
    /// # Errors
    /// In words, for the log: there is no such key, or it cannot sign this way.
    pub(crate) fn sign(
        &self,
        key: &PublicKey,
        scheme: SignatureScheme,
        octets: &[u8],
    ) -> Result<Vec<u8>, String> {
        let own = self
            .keys
            .iter()
            .find(|own| own.public == *key)
            .ok_or("the private key is not in the configuration any more")?;
        let private = own.private.as_ref().map_err(Clone::clone)?;
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        private
            .sign(scheme, octets, &mut rng)
            .map_err(|e| format!("private key {}: {e}", own.name))
    }
}

impl Psk {
    fn lists(&self, id: &Identity) -> bool {
        self.ids.iter().any(|listed| listed.matches(id))
    }

    fn fit(&self, local: &Identity, remote: &Identity) -> Option<Fit> {
        match (self.lists(local), self.lists(remote)) {
            _ if self.ids.is_empty() => Some(Fit::Anybody),
            (true, true) => Some(Fit::Both),
            (false, true) => Some(Fit::Remote),
            (true, false) if self.ids.len() == 1 => Some(Fit::Local),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Credentials({} pre-shared, {} private keys)",
            self.psks.len(),
            self.keys.len()
        )
    }
}
