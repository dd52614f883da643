//! Where what is secret is, and reading it: together with the connections, and later without a look at them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_ike::crypto::signature::PublicKey;

use super::native;
use super::ring::{Ring, nss_directories};
use super::running::Files;
use super::secrets::{self, Secrets};
use super::setup::Setup;
use crate::config::{ConfigErrors, Finding};
use crate::credentials::Credentials;

/// As the command line and `config setup` said when the connections were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// The file with secrets.
    secrets: PathBuf,
    /// Somebody named it, so it has to be there.
    said: bool,
    /// Directories of NSS databases.
    databases: Vec<PathBuf>,
}

/// What was read again.
pub(crate) struct Again {
    /// It, to be added to what is known.
    pub(crate) credentials: Credentials,
    /// The files that it was read from.
    pub(crate) files: Vec<PathBuf>,
    /// What is not good about them.
    pub(crate) warnings: Vec<Finding>,
}

impl Places {
    /// What the command line says goes before the configuration.
    pub(super) fn of(files: &Files, setup: &Setup) -> Self {
        let said = files.secrets.as_ref().or(setup.secrets.as_ref());
        let databases = match files.nss.as_ref().or(setup.nss.as_ref()) {
            Some(said) => vec![said.clone()],
            None => nss_directories(setup.directory.clone()),
        };
        Self {
            secrets: said.cloned().unwrap_or_else(secrets::default_path),
            said: said.is_some(),
            databases,
        }
    }

    /// The file with secrets.
    pub(crate) fn secrets(&self) -> &Path {
        &self.secrets
    }

    /// What that file holds.
    ///
    /// # Errors
    /// It, or one that it includes, cannot be read.
    pub(super) fn read_secrets(&self) -> Result<Secrets, ConfigErrors> {
        match self.said || self.secrets.exists() {
            true => secrets::read(&self.secrets),
            false => Ok(Secrets::default()),
        }
    }

    /// The private keys, if somebody `signs`; with those of the secrets, which are taken out.
    pub(super) fn ring(&self, secrets: &mut Secrets, signs: bool) -> Ring {
        let named = std::mem::take(&mut secrets.keys);
        match signs {
            true => Ring::open(self.databases.clone(), named),
            false => Ring::default(),
        }
    }

    /// Reads secrets and the private halves of these keys again, whatever `ipsec.conf` says by now.
    ///
    /// # Errors
    /// As [`read_secrets`](Self::read_secrets); then nothing has changed.
    pub(crate) fn read_again<'k>(
        &self,
        keys: impl Iterator<Item = (&'k str, &'k PublicKey)>,
    ) -> Result<Again, ConfigErrors> {
        let mut secrets = self.read_secrets()?;
        // Others have names, and are obol's own.
        let keys: Vec<_> = keys
            .filter(|(name, key)| *name == native::key_name(key))
            .collect();
        let ring = self.ring(&mut secrets, !keys.is_empty());
        let mut credentials = Credentials::default();
        credentials.pluto = Arc::new(secrets.psks);
        for (name, public) in keys {
            credentials.add_found(name, public.clone(), ring.private(public));
        }
        Ok(Again {
            credentials,
            files: secrets.files,
            warnings: secrets.notices,
        })
    }
}
