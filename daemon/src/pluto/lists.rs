//! Lists of proposals that connections share: what `ike=` and `esp=` say, or nothing says, is worked
//! out once for all that have the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use obol_ike::proposal::{EspProposal, IkeProposal};

use super::proposals::{self, Read};

/// What was worked out so far.
#[derive(Default)]
pub(crate) struct Lists {
    /// By the text; `None`: there is none.
    ike: RefCell<HashMap<Option<String>, Shared<IkeProposal>>>,
    /// By the text, PFS and ESN.
    esp: RefCell<HashMap<EspKey, Shared<EspProposal>>>,
}

type EspKey = (Option<String>, bool, Vec<bool>);

/// What a text means, for all who have it.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    /// What is left of it.
    pub(crate) proposals: Arc<[T]>,
    /// What was left out.
    pub(crate) dropped: Vec<String>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            proposals: Arc::clone(&self.proposals),
            dropped: self.dropped.clone(),
        }
    }
}

impl<T> From<Read<T>> for Shared<T> {
    fn from(read: Read<T>) -> Self {
        Self {
            proposals: read.proposals.into(),
            dropped: read.dropped,
        }
    }
}

impl Lists {
    /// `ike=`.
    ///
    /// # Errors
    /// What to write.
    pub(super) fn ike(&self, text: &str) -> Result<Shared<IkeProposal>, String> {
        known(&self.ike, Some(text.to_owned()), || {
            proposals::read_ike(text).map(Shared::from)
        })
    }

    /// Where there is no `ike=`.
    pub(super) fn default_ike(&self) -> Arc<[IkeProposal]> {
        let mut known = self.ike.borrow_mut();
        let default = known
            .entry(None)
            .or_insert_with(|| whole(proposals::default_ike()));
        Arc::clone(&default.proposals)
    }

    /// `esp=`.
    ///
    /// # Errors
    /// What to write.
    pub(super) fn esp(
        &self,
        text: &str,
        pfs: bool,
        esn: &[bool],
    ) -> Result<Shared<EspProposal>, String> {
        known(
            &self.esp,
            (Some(text.to_owned()), pfs, esn.to_vec()),
            || proposals::read_esp(text, pfs, esn).map(Shared::from),
        )
    }

    /// Where there is no `esp=`.
    pub(super) fn default_esp(&self, pfs: bool, esn: &[bool]) -> Arc<[EspProposal]> {
        let mut known = self.esp.borrow_mut();
        let default = known
            .entry((None, pfs, esn.to_vec()))
            .or_insert_with(|| whole(proposals::default_esp(pfs, esn)));
        Arc::clone(&default.proposals)
    }
}

fn whole<T>(proposals: Vec<T>) -> Shared<T> {
    Shared {
        proposals: proposals.into(),
        dropped: Vec::new(),
    }
}

/// What is known by this key, or is now.
fn known<K: std::hash::Hash + Eq, T: Clone>(
    map: &RefCell<HashMap<K, T>>,
    key: K,
    read: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    if let Some(found) = map.borrow().get(&key) {
        return Ok(found.clone());
    }
    let found = read()?;
    map.borrow_mut().insert(key, found.clone());
    Ok(found)
}
