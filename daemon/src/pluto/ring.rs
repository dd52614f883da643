//! The private keys of this host: those in NSS databases, those of obol's own, and those that
//! `ipsec.secrets` names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::signature::PublicKey;

use super::conn::Conn;
use super::keystore;
use super::native;
use super::nss;
use super::orient::Oriented;
use super::running::Refusal;
use crate::credentials::FoundKey;

/// Where pluto has its NSS database, most often.
const NSS: &str = "/var/lib/ipsec/nss";
/// Where it has it on older systems, beside other files.
const IPSEC_D: &str = "/etc/ipsec.d";

/// Where the databases may be; on older systems it is beside other files, in `directory` perhaps.
pub(super) fn nss_directories(directory: Option<PathBuf>) -> Vec<PathBuf> {
    vec![NSS.into(), directory.unwrap_or_else(|| IPSEC_D.into())]
}

/// A public key of this host.
pub(crate) struct HostKey {
    /// Its CKAID.
    pub(crate) ckaid: String,
    /// The key.
    pub(crate) public: PublicKey,
}

/// The public keys of this host, with a database at another place than the usual ones if somebody
/// named one, and what is wrong with others.
pub(crate) fn host_keys(said: Option<PathBuf>) -> (Vec<HostKey>, Vec<String>) {
    let databases = match said {
        Some(said) => vec![said],
        None => {
            let usual = nss_directories(None);
            let is_there = |dir: &&PathBuf| nss::is_there(dir);
            let there: Vec<PathBuf> = usual.iter().filter(is_there).cloned().collect();
            if there.is_empty() { usual } else { there }
        }
    };
    let mut ring = Ring {
        databases,
        ..Ring::default()
    };
    ring.read();
    let keys = ring.keys.into_iter().map(|own| HostKey {
        ckaid: own.ckaid,
        public: own.public,
    });
    let others = ring.others.into_iter();
    let others = others.map(|(ckaid, why)| format!("the key with CKAID {ckaid}: {why}"));
    (keys.collect(), others.chain(ring.errors).collect())
}

/// Keeps a new key where it is found by a database that somebody named, or by all; its CKAID and the
/// directory.
///
/// # Errors
/// It cannot be written.
pub(crate) fn keep_new(said: Option<&Path>, key: &PrivateKey) -> Result<(String, PathBuf), String> {
    let directory = keystore::for_new(said, &nss_directories(None));
    let ckaid = keystore::add(&directory, key)?;
    Ok((ckaid, directory))
}

/// A private key that was found.
struct OwnKey {
    ckaid: String,
    public: PublicKey,
    private: Arc<PrivateKey>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Ring {
    keys: Vec<OwnKey>,
    /// Keys that are there, and of no use.
    others: Vec<(String, &'static str)>,
    /// The directories of NSS databases.
    databases: Vec<PathBuf>,
    /// What was wrong there.
    errors: Vec<String>,
}

impl Ring {
    /// Reads all that there is; `named` are those of `ipsec.secrets`.
    pub(super) fn open(databases: Vec<PathBuf>, named: Vec<PrivateKey>) -> Self {
        let mut ring = Self {
            databases,
            ..Self::default()
        };
        named.into_iter().for_each(|key| ring.add(key));
        ring.read();
        ring
    }

    fn read(&mut self) {
        for place in &self.databases {
            match nss::read(place) {
                Ok(found) => {
                    let keys = found.keys.into_iter();
                    self.keys.extend(keys.map(|found| OwnKey {
                        ckaid: found.ckaid,
                        public: found.key.public(),
                        private: Arc::new(found.key),
                    }));
                    self.others.extend(found.others);
                }
                Err(error) => self.errors.push(error.to_string()),
            }
        }
        for place in keystore::all(&self.databases) {
            let (keys, errors) = keystore::read(&place);
            keys.into_iter().for_each(|key| self.add(key));
            self.errors.extend(errors);
        }
    }

    fn add(&mut self, key: PrivateKey) {
        let public = key.public();
        self.keys.push(OwnKey {
            ckaid: keystore::ckaid(&public),
            public,
            private: Arc::new(key),
        });
    }

    /// An end that names its key by CKAID alone gets its public key.
    pub(super) fn complete(&self, conn: &mut Conn) {
        for end in &mut conn.ends {
            if let (None, Some(ckaid)) = (&end.key, &end.ckaid) {
                let found = self.keys.iter().find(|own| own.ckaid == ckaid.value);
                end.key = found.map(|own| ckaid.with(own.public.clone()));
            }
        }
    }

    /// A key that is named by its CKAID alone must be there, since nobody knows the public one.
    pub(super) fn has_named(&self, conn: &Oriented<'_>) -> Result<(), Refusal> {
        match (&conn.local_end().key, &conn.local_end().ckaid) {
            (None, Some(ckaid)) if conn.conn.signs() => Err((
                self.not_found(&ckaid.value),
                "ipsec showhostkey --list prints which there are",
            )),
            _ => Ok(()),
        }
    }

    /// The private half of a key.
    pub(super) fn private(&self, public: &PublicKey) -> FoundKey {
        match self.keys.iter().find(|own| own.public == *public) {
            Some(own) => Ok(own.private.clone()),
            None => Err(self.not_found(&keystore::ckaid(public))),
        }
    }

    fn not_found(&self, ckaid: &str) -> String {
        if let Some((_, why)) = self.others.iter().find(|(other, _)| other == ckaid) {
            return format!("the private key with CKAID {ckaid} cannot be used: {why}");
        }
        let own = keystore::all(&self.databases);
        let places = self.databases.iter().chain(&own);
        let places: Vec<String> = places.map(|p| p.display().to_string()).collect();
        let mut text = format!(
            "private key matching CKAID {ckaid} not found in {}",
            places.join(" or ")
        );
        for error in &self.errors {
            text.push_str(&format!("; {error}"));
        }
        text
    }

    /// Those of these connections, each once.
    pub(super) fn keys(&self, conns: &[Oriented<'_>]) -> Vec<(String, PublicKey, FoundKey)> {
        let mut found = BTreeMap::new();
        for key in conns
            .iter()
            .filter_map(|conn| conn.local_end().key.as_ref())
        {
            let name = native::key_name(&key.value);
            found
                .entry(name)
                .or_insert_with(|| (key.value.clone(), self.private(&key.value)));
        }
        let keys = found.into_iter();
        keys.map(|(name, (public, private))| (name, public, private))
            .collect()
    }
}
