//! Tests of whole configurations.

mod across;
mod bad;
mod broken;
mod cleartext;
mod disk;
mod generate;
mod good;
mod kernel;
mod racoon;

use std::collections::BTreeMap;
use std::path::Path;

use zeroize::Zeroizing;

use super::files::{FileProblem, FileSource, NoFiles};

/// The file that the documentation shows.
pub(super) const HOSTS: &str = include_str!("../../../examples/hosts.toml");

/// Files that exist only here.
#[derive(Default)]
pub(super) struct Table(pub(super) BTreeMap<&'static str, Vec<u8>>);

impl FileSource for Table {
    fn public(&self, path: &Path) -> Result<Vec<u8>, FileProblem> {
        let name = path.to_str().unwrap();
        match self.0.get(name) {
            Some(octets) => Ok(octets.clone()),
            None => NoFiles.public(path),
        }
    }

    fn secret(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
        self.public(path).map(Zeroizing::new)
    }
}
