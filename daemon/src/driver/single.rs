//! One conn of pluto's more or less, or its secrets anew: nothing else of the files counts, whatever they
//! say by now.

use std::time::Instant;

use tracing::warn;

use super::Driver;
use crate::config::changes::{Changes, ChildChange};
use crate::control::protocol::SecretsReport;
use crate::dataplane::DataPlane;
use crate::error::{ExitClass, Failure};
use crate::pluto::Addresses;

/// Children, each by the names of its connection and its own.
type Names = Vec<(String, String)>;

impl<D: DataPlane> Driver<D> {
    /// Adds what a name means, where it is new and has nothing to do with what is there: the rest is
    /// not looked at.
    pub(super) async fn add(&mut self, now: Instant, name: &str) -> Result<Option<Names>, Failure> {
        let addition = crate::run::load_addition(&self.origin, &self.loaded, name).await?;
        let Some(mut addition) = addition else {
            return Ok(None);
        };
        let children = Changes::find(&addition, name);
        let taken = self.plane.take_more(&mut addition).await;
        if !taken.map_err(crate::run::system)? {
            return Ok(None);
        }
        for child in &children {
            self.changes.say(child.clone(), ChildChange::Load);
        }
        // What is about all of the files was said before.
        let known = &self.loaded.warnings;
        addition.warnings.retain(|warning| !known.contains(warning));
        for warning in &addition.warnings {
            warn!("{warning}");
        }
        let connections = addition.ike.connections.clone();
        self.loaded.add(addition);
        self.endpoint.add(now, &connections);
        self.configure_scripts().await;
        Ok(Some(children))
    }

    /// Takes out what a name means; `None`: nothing of it is loaded.
    pub(super) async fn unload(
        &mut self,
        now: Instant,
        name: &str,
    ) -> Result<Option<Names>, Failure> {
        let children = Changes::find(&self.loaded, name);
        if children.is_empty() {
            return Ok(None);
        }
        let policies = self.loaded.policies_but(&children);
        let taken = self.plane.set_policies(policies).await;
        taken.map_err(crate::run::system)?;
        self.loaded.remove(&children);
        for child in &children {
            self.changes.say(child.clone(), ChildChange::Unload);
        }
        self.endpoint
            .reload(now, std::sync::Arc::new(self.loaded.ike.clone()));
        self.configure_scripts().await;
        self.cleartexts.look_again(now);
        Ok(Some(children))
    }

    /// Takes over secrets and private keys as they are now; with pluto's files, whatever `ipsec.conf` says
    /// by now. With files of obol's own alone, which have them beside all else, that is a reload.
    pub(super) async fn read_secrets(&mut self, now: Instant) -> Result<SecretsReport, Failure> {
        if self.origin.pluto.is_none() {
            self.reload(now, &Addresses::new()).await?;
            return Ok(SecretsReport {
                files: Vec::new(),
                warnings: self
                    .loaded
                    .warnings
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            });
        }
        let keys = self.loaded.credentials.keys().into_iter();
        let read = self.loaded.pluto.places.read_again(keys);
        let again = read.map_err(|errors| Failure::new(ExitClass::Config, errors.to_string()))?;
        self.loaded.credentials.add(again.credentials);
        for warning in &again.warnings {
            warn!("{warning}");
        }
        Ok(SecretsReport {
            files: again
                .files
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
            warnings: again.warnings.iter().map(ToString::to_string).collect(),
        })
    }
}
