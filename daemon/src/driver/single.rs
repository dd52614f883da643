//! One conn of pluto's more, less, or anew, or its secrets: nothing else of the files counts, whatever they
//! say by now.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use obol_ike::config::LocalAuthMethod;
use obol_ike::identity::Identity;
use tracing::warn;

use super::Driver;
use crate::config::changes::{Changes, ChildChange};
use crate::config::{Before, Finding, Loaded, Misfit};
use crate::control::protocol::{ChangeReport, NotLoaded, PsksReport, SecretsReport};
use crate::dataplane::DataPlane;
use crate::error::{ExitClass, Failure};
use crate::pluto::{self, NamesFound, Occasion, Single};

/// Children, each by the names of its connection and its own.
type Names = Vec<(String, String)>;

impl<D: DataPlane> Driver<D> {
    /// Loads what a name means as the files have it now. All else stays as it is. `None`: it takes a look at
    /// all of the files.
    pub(super) async fn add(
        &mut self,
        now: Instant,
        name: &str,
        heard: &NamesFound,
    ) -> Result<Option<ChangeReport>, Failure> {
        let Some(files) = &self.origin.pluto else {
            return Ok(None);
        };
        let occasion = Occasion::Heard(&self.loaded.pluto, heard);
        let single = pluto::load_single(files, &self.origin.config, name, occasion).await;
        let single =
            single.map_err(|errors| Failure::new(ExitClass::Config, errors.to_string()))?;
        match single {
            Single::Other => Ok(None),
            Single::Refused(why) => Err(cannot_be_added(name, &why)),
            Single::Waits(not) => self.leave_out(now, name, not).await,
            Single::Conn(mut one) => match self.loaded.single_out(&mut one, name) {
                true => self.put(now, name, *one).await,
                false => Ok(None),
            },
        }
    }

    /// Puts a connection beside those that are loaded, with as little as will do.
    async fn put(
        &mut self,
        now: Instant,
        name: &str,
        mut one: Loaded,
    ) -> Result<Option<ChangeReport>, Failure> {
        let home = self.loaded.joined_by(&one, name);
        if let Some(home) = home {
            let called = self.loaded.ike.connections[home].name.clone();
            one.rename(&called);
        }
        let is_apart = home.is_some() || self.loaded.has_nothing_of(&one, name);
        let children = one.pluto.names.get(name).cloned().unwrap_or_default();
        let taken = is_apart
            && self
                .plane
                .take_more(&mut one)
                .await
                .map_err(crate::run::system)?;
        if taken {
            self.tell_new(&one);
            match home {
                Some(home) => {
                    let connection = self.loaded.join(one, home);
                    self.endpoint.replace(now, &connection);
                }
                None => {
                    let connections = one.ike.connections.clone();
                    self.loaded.add(one);
                    self.endpoint.add(now, &connections);
                }
            }
            self.say(&children, ChildChange::Load);
            self.configure_scripts().await;
            return Ok(Some(children.into()));
        }
        let warnings = one.warnings.clone();
        let (children, before) = match self.loaded.put(one, name) {
            Ok(put) => put,
            Err(Misfit::Remarkable) => return Ok(None),
            Err(Misfit::Clash(why)) => return Err(cannot_be_added(name, &why)),
        };
        self.go_over_in_place(now, before).await?;
        self.say(&children, ChildChange::Load);
        warnings.iter().for_each(|warning| warn!("{warning}"));
        Ok(Some(children.into()))
    }

    /// Says of what was told before nothing again.
    fn tell_new(&self, one: &Loaded) {
        let known = &self.loaded.warnings;
        let new = |warning: &&Finding| !known.contains(warning);
        one.warnings
            .iter()
            .filter(new)
            .for_each(|warning| warn!("{warning}"));
    }

    /// A conn that is not this host's by now, or was not before.
    async fn leave_out(
        &mut self,
        now: Instant,
        name: &str,
        not: NotLoaded,
    ) -> Result<Option<ChangeReport>, Failure> {
        if self.loaded.pluto.is_alias(name) || self.loaded.has_shunt(name) {
            return Ok(None);
        }
        if let Some(children) = self.unload(now, name).await? {
            self.say(&children, ChildChange::Load);
        }
        self.loaded.pluto.leave_out(name, not.clone());
        Ok(Some(ChangeReport {
            children: Vec::new(),
            waits: Some(not),
        }))
    }

    /// Has packets ask for what a name means, or not. `None`: it takes a look at all of the files.
    pub(super) async fn route(
        &mut self,
        now: Instant,
        name: &str,
        to: ChildChange,
        heard: &NamesFound,
    ) -> Result<Option<ChangeReport>, Failure> {
        if Changes::find(&self.loaded, name).is_empty() && to == ChildChange::Trap {
            match self.add(now, name, heard).await? {
                Some(ChangeReport {
                    waits: Some(not), ..
                }) => {
                    let text = format!("{name} is not loaded: {}", not.why);
                    return Err(Failure::new(ExitClass::Usage, text));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
        let children = Changes::find(&self.loaded, name);
        if children.is_empty() || self.loaded.has_shunt(name) {
            return Ok(None);
        }
        let before = self.loaded.before();
        self.say(&children, to);
        self.changes.apply(&mut self.loaded);
        self.go_over_in_place(now, before).await?;
        Ok(Some(children.into()))
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
        self.say(&children, ChildChange::Unload);
        self.endpoint.reload(now, Arc::new(self.loaded.ike.clone()));
        self.configure_scripts().await;
        self.cleartexts.look_again(now);
        Ok(Some(children))
    }

    fn say(&mut self, children: &[(String, String)], change: ChildChange) {
        for child in children {
            self.changes.say(child.clone(), change);
        }
    }

    /// Has data planes and the protocol be as `loaded` says by now.
    ///
    /// # Errors
    /// The system refuses; then all is as it was before.
    async fn go_over_in_place(&mut self, now: Instant, before: Before) -> Result<(), Failure> {
        let mut policies = std::mem::take(&mut self.loaded.policies);
        self.look_at_cleartexts(&mut policies);
        self.loaded.policies = policies;
        let taken = self.plane.take_over(&mut self.loaded, &self.ports).await;
        if let Err(error) = taken {
            self.loaded.restore(before);
            return Err(crate::run::system(error));
        }
        self.endpoint.reload(now, Arc::new(self.loaded.ike.clone()));
        self.configure_scripts().await;
        self.cleartexts.look_again(now);
        Ok(())
    }

    /// The shared secrets of pluto's files, and which connections use them.
    pub(super) fn psks_report(&self) -> PsksReport {
        let psks = &self.loaded.credentials.pluto;
        let mut records = psks.report();
        for connection in &self.loaded.ike.connections {
            if connection.local.method != LocalAuthMethod::Psk {
                continue;
            }
            let address = |addrs: &[IpAddr]| addrs.first().copied().map(Identity::from);
            let own = &connection.local.id;
            let local = own.clone().or_else(|| address(&connection.local_addrs));
            let remote = connection.remote.id.clone();
            let remote = remote.or_else(|| address(&connection.remote_addrs));
            let place = local.and_then(|local| psks.place(&local, remote.as_ref()));
            if let Some(record) = records
                .iter_mut()
                .find(|record| Some(&*record.place) == place)
            {
                let children = connection.children.iter();
                record
                    .used_by
                    .extend(children.map(|child| child.name.clone()));
            }
        }
        PsksReport {
            file: self.loaded.pluto.places.secrets().display().to_string(),
            records,
        }
    }

    /// Takes over secrets and private keys as they are now; with pluto's files, whatever `ipsec.conf` says
    /// by now. With files of obol's own alone, which have them beside all else, that is a reload.
    pub(super) async fn read_secrets(&mut self, now: Instant) -> Result<SecretsReport, Failure> {
        if self.origin.pluto.is_none() {
            self.reload(now, Some(&NamesFound::new())).await?;
            let warnings = self.loaded.warnings.iter();
            return Ok(SecretsReport {
                files: Vec::new(),
                warnings: warnings.map(ToString::to_string).collect(),
            });
        }
        let keys = self.loaded.credentials.keys().into_iter();
        let read = self.loaded.pluto.places.read_again(keys);
        let again = read.map_err(|errors| Failure::new(ExitClass::Config, errors.to_string()))?;
        self.loaded.credentials.add(again.credentials);
        for warning in &again.warnings {
            warn!("{warning}");
        }
        let files = again.files.iter();
        let warnings = again.warnings.iter();
        Ok(SecretsReport {
            files: files.map(|path| path.display().to_string()).collect(),
            warnings: warnings.map(ToString::to_string).collect(),
        })
    }
}

fn cannot_be_added(name: &str, why: &str) -> Failure {
    let text = format!("\"{name}\": failed to add connection: {why}");
    Failure::new(ExitClass::Refused, text)
}
