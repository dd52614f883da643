//! Keys on their way to an operator who asked for them.

use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::VERSION;

/// JSON that is wiped when it has been sent, and that `Debug` does not show.
#[derive(Clone, PartialEq)]
pub(crate) struct SecretJson(Zeroizing<String>);

impl SecretJson {
    /// Empty, with room for so many octets.
    pub(crate) fn with_capacity(octets: usize) -> Self {
        Self(Zeroizing::new(String::with_capacity(octets)))
    }

    /// To be written to.
    pub(crate) fn text(&mut self) -> &mut String {
        &mut self.0
    }

    /// As the end of an exchange; to be wiped.
    pub(super) fn to_line(&self) -> String {
        let mut line = String::with_capacity(self.0.len() + 64);
        line.push_str("{\"version\":");
        line.push_str(&VERSION.to_string());
        line.push_str(",\"ok\":true,\"data\":");
        line.push_str(&self.0);
        line.push_str("}\n");
        line
    }
}

impl std::fmt::Debug for SecretJson {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretJson(..)")
    }
}

/// The keys of all Child SAs.
#[derive(Default, Deserialize)]
pub(crate) struct KeysReport {
    /// Of each.
    pub(crate) children: Vec<ChildKeys>,
}

impl KeysReport {
    /// Of one direction of the Child SA with this number.
    pub(crate) fn of(&self, id: u64, outbound: bool) -> Option<&OneWay> {
        let child = self.children.iter().find(|child| child.id == id)?;
        match outbound {
            true => child.outbound.as_ref(),
            false => child.inbound.as_ref(),
        }
    }
}

/// The keys of a Child SA.
#[derive(Deserialize)]
pub(crate) struct ChildKeys {
    /// Its number.
    pub(crate) id: u64,
    /// Of packets to this host.
    #[serde(default)]
    pub(crate) inbound: Option<OneWay>,
    /// Of packets to the peer.
    #[serde(default)]
    pub(crate) outbound: Option<OneWay>,
}

/// The keys of one direction, in hexadecimal digits.
#[derive(Deserialize)]
pub(crate) struct OneWay {
    /// Encryption; a salt follows the key.
    pub(crate) encr: String,
    /// Integrity; empty with an AEAD.
    pub(crate) integ: String,
}

impl Drop for OneWay {
    fn drop(&mut self) {
        self.encr.zeroize();
        self.integ.zeroize();
    }
}
