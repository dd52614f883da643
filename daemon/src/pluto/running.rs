//! `obol run --ipsec-conf`: pluto's files as a configuration that runs.
//!
//! The connections are written as obol's own text, which goes through the same reader as any
//! other. What is secret does not go through that text.

mod choice;
mod names;
pub(crate) use choice::why_not;
pub(crate) use names::{NamesFound, look_up, names_asked, resolve_ids};
use names::{names_of, names_of_ids};
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_ike::crypto::signature::PublicKey;
use obol_ike::identity::Identity;

use super::Understood;
use super::conn::{Auth, Auto, Conn, End};
use super::files::read_one;
use super::former::{Former, Occasion};
use super::native;
use super::orient::{ChildOf, HostView, Oriented, host_text, orient};
use super::places::Places;
use super::ring::Ring;
use super::secrets::{self, Psks};
use super::values::{Host, Id};
use super::world::World;
use crate::config::{self, ConfigErrors, DaemonSettings, Finding, Loaded, Source};
use crate::control::protocol::{Absence, NotLoaded, WrittenEnd};
use crate::credentials::FoundKey;
use crate::dataplane::DataPlaneError;
use crate::host;

/// The name of the text that connections are translated to, in what is said about it.
const TRANSLATION: &str = "ipsec.conf in obol's words";

/// Addresses of a host with the names of their devices.
pub(crate) type Addresses = Vec<(String, IpAddr)>;

/// The files, as far as the command line says.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// `ipsec.conf`.
    pub(crate) conf: PathBuf,
    /// `ipsec.secrets`.
    pub(crate) secrets: Option<PathBuf>,
    /// The directory of the NSS database.
    pub(crate) nss: Option<PathBuf>,
    /// Connections that are loaded in spite of `auto=ignore`, since somebody asked for them.
    pub(crate) wanted: BTreeSet<String>,
    /// Connections without IKE that are in force in spite of `auto=add`.
    pub(crate) routed: BTreeSet<String>,
    /// Connections that were waiting for something and are not any more, since somebody took them out.
    pub(crate) deleted: BTreeSet<String>,
}

impl Files {
    /// This `ipsec.conf`, and what it says of the others.
    pub(crate) fn of(conf: &Path) -> Self {
        Self {
            conf: conf.to_owned(),
            secrets: None,
            nss: None,
            wanted: BTreeSet::new(),
            routed: BTreeSet::new(),
            deleted: BTreeSet::new(),
        }
    }

    /// Whether a connection without IKE is in force from now on.
    pub(crate) fn route(&mut self, name: &str, routed: bool) {
        match routed {
            true => self.routed.insert(name.to_owned()),
            false => self.routed.remove(name),
        };
    }

    /// Whether a connection with `auto=ignore` is loaded from now on.
    pub(crate) fn want(&mut self, name: &str, wanted: bool) {
        match wanted {
            true => {
                self.deleted.remove(name);
                self.wanted.insert(name.to_owned())
            }
            false => self.wanted.remove(name),
        };
    }

    /// What waits is left out from now on, until somebody wants it.
    pub(crate) fn delete(&mut self, name: &str) {
        self.deleted.insert(name.to_owned());
    }
}

/// Connections in obol's words, with what is secret.
#[derive(Default)]
pub(crate) struct Translated {
    /// What the text is called, if that is not pluto's.
    name: Option<&'static str>,
    text: String,
    /// Where it may be cut into parts that can be read one by one.
    cuts: Vec<usize>,
    /// Private keys by the names that they have in the text.
    pub(crate) keys: Vec<(String, PublicKey, FoundKey)>,
    /// Shared secrets.
    pub(crate) psks: Arc<Psks>,
    /// There is no secret for a connection that needs one.
    pub(crate) lacks_psk: bool,
}

impl Translated {
    /// A text that is complete but for secrets that cannot be had.
    pub(crate) fn of_text(name: &'static str, text: String, lacks_psk: bool) -> Self {
        Self {
            name: Some(name),
            text,
            lacks_psk,
            ..Self::default()
        }
    }

    /// Where the text may be cut.
    pub(crate) fn cuts(&self) -> &[usize] {
        &self.cuts
    }

    /// The text, which is given away.
    pub(crate) fn source(&mut self) -> Source {
        Source {
            name: self.name.unwrap_or(TRANSLATION).into(),
            directory: PathBuf::new(),
            text: std::mem::take(&mut self.text),
            exposed: false,
        }
    }
}

/// Addresses of this host.
///
/// # Errors
/// The system refuses to list them.
pub(crate) async fn addresses() -> Result<Addresses, DataPlaneError> {
    host::addresses_of_devices().await
}

impl HostView {
    /// This host as it is now; with `listen=`, as if it had no other address.
    ///
    /// # Errors
    /// The system does not say which addresses it has.
    pub(crate) async fn now(understood: &mut Understood) -> Result<Self, DataPlaneError> {
        let mut asked = names_of(&understood.conns);
        asked.append(&mut names_of_ids(&understood.conns));
        let names = look_up(asked).await;
        resolve_ids(understood, &names);
        Ok(Self::of(understood, addresses().await?, names))
    }

    fn of(understood: &Understood, mut addrs: Addresses, names: NamesFound) -> Self {
        let listen = understood.setup.listen;
        addrs.retain(|(_, addr)| listen.is_none_or(|listen| listen == *addr));
        Self {
            addrs,
            // With the mark of our own packets, our own rules do not count.
            source: |peer| host::source_for(peer, DaemonSettings::default().fwmark).ok(),
            names,
        }
    }
}

/// Reads pluto's files, and beside them obol's own, which need not be there. A connection that
/// cannot be had stays as it is loaded, or is left out, with a warning; all others count.
///
/// # Errors
/// What makes all of it useless.
pub(crate) async fn load_to_run(
    files: &Files,
    own: &Path,
    occasion: Occasion<'_>,
) -> Result<Loaded, ConfigErrors> {
    let understood = super::load(&files.conf)?;
    begin(files, own, occasion, understood).await
}

/// What one name in pluto's files comes to.
pub(crate) enum Single {
    /// A connection, besides obol's own.
    Conn(Box<Loaded>),
    /// A connection that is not loaded, and why.
    Waits(NotLoaded),
    /// One that cannot be had, and why.
    Refused(String),
    /// Nothing, more than one, one that IKE is not for, or one among files of which all has to be said.
    Other,
}

/// Reads the connection of this name alone, besides obol's own.
///
/// # Errors
/// What makes all of it useless.
pub(crate) async fn load_single(
    files: &Files,
    own: &Path,
    name: &str,
    occasion: Occasion<'_>,
) -> Result<Single, ConfigErrors> {
    let texts = read_one(&files.conf, name);
    let texts = texts.unwrap_or_else(|| super::files::read(&files.conf));
    let understood = super::understand(texts, Some(name))?;
    match (understood.conns.as_slice(), understood.refused.as_slice()) {
        ([one], _) if !one.is_shunt() => {}
        ([], [(_, errors)]) => {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Ok(Single::Refused(errors.join("; ")));
        }
        _ => return Ok(Single::Other),
    }
    let Ok(loaded) = begin(files, own, occasion, understood).await else {
        // If something is wrong, it is to be said of all of it.
        return Ok(Single::Other);
    };
    if let Some(not) = loaded.pluto.why_not(name) {
        if not.kind == Absence::Unresolved {
            return Ok(Single::Other);
        }
        return Ok(Single::Waits(not.clone()));
    }
    if loaded.pluto.names.contains_key(name) && loaded.pluto.why_kept(name).is_none() {
        return Ok(Single::Conn(Box::new(loaded)));
    }
    let refusals = ["is refused", "stays as it was"].map(|what| format!("{name} {what}: "));
    let mut warnings = loaded.warnings.into_iter();
    let refused = warnings.find_map(|mut warning| {
        let mut stripped = refusals
            .iter()
            .filter_map(|by| warning.message.strip_prefix(by));
        warning.message = stripped.next()?.to_owned();
        Some(warning.to_string())
    });
    Ok(refused.map_or(Single::Other, Single::Refused))
}

async fn begin(
    files: &Files,
    own: &Path,
    occasion: Occasion<'_>,
    mut understood: Understood,
) -> Result<Loaded, ConfigErrors> {
    let addresses = addresses().await.map_err(|e| {
        let name = files.conf.display().to_string();
        ConfigErrors(vec![Finding::of_file(&name, e.to_string(), "")])
    })?;
    let places = Places::of(files, &understood.setup);
    let mut secrets = places.read_secrets()?;
    let signs = understood.conns.iter().any(Conn::signs);
    let mut loader = Loader {
        ring: places.ring(&mut secrets, signs),
        secrets,
        places,
        warnings: std::mem::take(&mut understood.notices),
        wanted: files.wanted.clone(),
        routed: files.routed.clone(),
        deleted: files.deleted.clone(),
        world: World::default(),
        occasion,
    };
    let names = loader.names(&understood).await;
    resolve_ids(&mut understood, &names);
    loader.warnings.append(&mut understood.notices);
    loader.world.names_found.clone_from(&names);
    loader.world.addresses.clone_from(&addresses);
    if let Some(before) = occasion.beside() {
        // One that goes and comes is none that is new.
        let known = before.addresses.iter();
        let gone = known.filter(|known| !addresses.contains(known));
        loader.world.addresses.extend(gone.cloned());
    }
    let view = HostView::of(&understood, addresses, names);
    loader.load(own, understood, &view)
}

struct Loader<'w> {
    ring: Ring,
    secrets: secrets::Secrets,
    places: Places,
    warnings: Vec<Finding>,
    wanted: BTreeSet<String>,
    routed: BTreeSet<String>,
    deleted: BTreeSet<String>,
    world: World,
    occasion: Occasion<'w>,
}

impl<'w> Loader<'w> {
    /// What names stand for: as they say now or, of those that say nothing, as they said last. Only a daemon that
    /// does nothing else yet can wait for the answers.
    async fn names(&mut self, understood: &Understood) -> NamesFound {
        let known = self.occasion.world().map(|world| &*world.names_found);
        let known = known.unwrap_or_default();
        let mut names = match self.occasion {
            Occasion::Event(_) => Vec::new(),
            Occasion::Heard(_, heard) | Occasion::Named(_, heard, _) => heard.clone(),
            Occasion::Start => {
                let mut asked = names_of(&understood.conns);
                asked.append(&mut names_of_ids(&understood.conns));
                look_up(asked).await
            }
        };
        let lacking = |names: &[(String, _)], name: &str| names.iter().all(|(own, _)| own != name);
        for (name, addrs) in known {
            if lacking(&names, name) {
                names.push((name.clone(), addrs.clone()));
            }
        }
        let conns = understood.conns.iter();
        let loaded = conns.filter(|conn| self.why_not(conn).is_none());
        let unresolved = names_of(loaded).into_iter();
        let unresolved = unresolved.filter(|name| lacking(&names, name));
        self.world.unresolved = unresolved.map(str::to_owned).collect();
        names
    }

    fn load(
        mut self,
        own: &Path,
        mut understood: Understood,
        view: &HostView,
    ) -> Result<Loaded, ConfigErrors> {
        self.warnings.append(&mut self.secrets.notices);
        let parts = std::mem::take(&mut understood.parts).into_iter();
        let parts = parts.map(|(name, why)| (name, NotLoaded::ignored(why)));
        self.world.others.extend(parts);
        for conn in &mut understood.conns {
            self.ring.complete(conn);
        }
        let mut conns = self.choose(&understood, view);
        for conn in &conns {
            if let Some(peer) = conn.unresolved() {
                self.leave_out(
                    conn.conn,
                    Absence::Unresolved,
                    format!("{peer} has no address now"),
                );
            }
        }
        let psks = Arc::new(std::mem::take(&mut self.secrets.psks));
        let lacks_psk = self.missing_psks(&psks, &conns);
        loop {
            let native = native::translate(&understood.setup, &conns);
            let translated = Translated {
                name: None,
                text: native.text,
                cuts: native.cuts,
                keys: self.ring.keys(&conns),
                psks: psks.clone(),
                lacks_psk,
            };
            match config::load_with(own, translated) {
                Ok(loaded) => return Ok(self.finish(loaded, &conns, native.children)),
                Err(errors) => self.settle(errors, &mut conns, &native.lines, &understood)?,
            }
        }
    }

    fn leave_out(&mut self, conn: &Conn, kind: Absence, why: String) {
        let ends = conn.ends.iter().map(written_end).collect();
        let not_loaded = NotLoaded { kind, why, ends };
        self.world
            .others
            .insert(conn.name.value.clone(), not_loaded);
    }

    fn refuse(&mut self, name: &str, mut finding: Finding) {
        finding.message = format!("{name} is refused: {}", finding.message);
        self.warnings.push(finding);
    }

    /// Says which connections have no shared secret; whether there are such.
    fn missing_psks(&mut self, psks: &Psks, conns: &[Oriented<'_>]) -> bool {
        let mut missing = false;
        for conn in conns
            .iter()
            .filter(|conn| needs_secret(conn.conn) && conn.unresolved().is_none())
        {
            let addr = conn.remote_addrs.first().copied();
            let Some(local) = identity(&conn.local_end().id, Some(conn.local_addr)) else {
                continue;
            };
            let peer = identity(&conn.remote_end().id, addr);
            if psks.place(&local, peer.as_ref()).is_some() {
                continue;
            }
            missing = true;
            let addresses: Vec<Identity> = [Some(conn.local_addr), addr]
                .into_iter()
                .flatten()
                .map(Identity::from)
                .collect();
            let text = psks.missing(&local, peer.as_ref(), &addresses, self.places.secrets());
            let name = &conn.conn.name.value;
            let finding = Finding::of_file(
                &self.places.secrets().display().to_string(),
                format!("{name} cannot come up: {text}"),
                "add a record, then: obol reload",
            );
            self.warnings.push(finding);
        }
        missing
    }

    fn finish(
        mut self,
        mut loaded: Loaded,
        conns: &[Oriented<'_>],
        children: Vec<(String, (String, String))>,
    ) -> Loaded {
        let resolved = conns.iter().filter(|conn| conn.unresolved().is_none());
        for conn in resolved.clone().filter(|conn| conn.conn.signs()) {
            if let Some(key) = &conn.local_end().key
                && let Err(why) = self.ring.private(&key.value)
            {
                let name = &conn.conn.name.value;
                let message = format!("{name} cannot come up: {why}");
                self.warnings.push(Finding::of_file("NSS", message, ""));
            }
        }
        let aliases: HashMap<&str, &[String]> = resolved
            .map(|conn| (conn.conn.name.value.as_str(), conn.conn.aliases.as_slice()))
            .collect();
        let waiting = conns.iter().filter(|conn| conn.unresolved().is_some());
        let waiting: HashSet<String> = waiting
            .flat_map(|conn| {
                let children = conn.children().into_iter().map(|child| child.name);
                children.chain([conn.conn.name.value.clone()])
            })
            .collect();
        for (name, place) in children {
            if waiting.contains(&name) {
                continue;
            }
            let places = self.world.names.entry(name.clone()).or_default();
            places.push(place.clone());
            for alias in aliases.get(name.as_str()).copied().unwrap_or_default() {
                let places = self.world.names.entry(alias.clone()).or_default();
                places.push(place.clone());
                self.world.aliases.insert(alias.clone());
            }
        }
        self.world.former = Former::of(conns);
        self.world.places = self.places;
        self.warnings.append(&mut loaded.warnings);
        loaded.warnings = self.warnings;
        loaded.pluto = self.world;
        loaded
    }
}

/// Whether there is nothing but a secret for one of the ends to prove itself by.
fn needs_secret(conn: &Conn) -> bool {
    match conn.auth {
        Auth::Secret => true,
        Auth::Either(_) => conn.ends.iter().any(|end| end.key.is_none()),
        Auth::Signature(_) | Auth::Never => false,
    }
}

/// An end for a report of what is not loaded.
fn written_end(end: &End) -> WrittenEnd {
    let id = match &end.id {
        Id::Is(id) => Some(id.to_string()),
        Id::Resolve(name) => Some(name.clone()),
        Id::Any => Some("%any".to_owned()),
        Id::FromCertificate => Some("%fromcert".to_owned()),
        Id::Null => Some("%null".to_owned()),
        Id::Unset => None,
    };
    let clients = end.subnets.iter().chain(&end.more_subnets);
    WrittenEnd {
        host: host_text(&end.host.value),
        id,
        clients: clients.map(ToString::to_string).collect(),
    }
}

/// Who an end is; nothing if that is not known yet.
fn identity(id: &Id, addr: Option<IpAddr>) -> Option<Identity> {
    match id {
        Id::Is(id) => Some(id.clone()),
        Id::Unset | Id::Resolve(_) => addr.map(Identity::from),
        Id::Any | Id::FromCertificate | Id::Null => None,
    }
}

/// What is wrong, and what to change.
pub(super) type Refusal = (String, &'static str);

/// Refuses connections that are this host's, and that obol cannot run.
pub(crate) fn refuse(understood: &mut Understood, view: &HostView) {
    let mut refused = Vec::new();
    for conn in understood
        .conns
        .iter()
        .filter(|conn| conn.auto != Auto::Ignore)
    {
        if let Ok(oriented) = orient(conn, view)
            && let Err((why, fix)) = usable(&oriented)
        {
            let finding = understood.finding(&conn.name, why, fix);
            refused.push((conn.name.value.clone(), vec![finding]));
        }
    }
    let names: HashSet<&str> = refused.iter().map(|(name, _)| name.as_str()).collect();
    let conns = &mut understood.conns;
    conns.retain(|conn| !names.contains(conn.name.value.as_str()));
    understood.refused.extend(refused);
}

/// Whether obol can run a connection.
fn usable(conn: &Oriented<'_>) -> Result<(), Refusal> {
    if conn.conn.is_shunt() {
        return usable_shunt(conn);
    }
    let remote = &conn.remote_end().host.value;
    match remote {
        Host::Name(name) if conn.remote_addrs.is_empty() => {
            return Err((
                format!("{name} has no address now"),
                "write an address; obol reload looks it up again",
            ));
        }
        Host::Opportunistic | Host::DefaultRoute | Host::Interface(_) => {
            let why = format!("{} is no peer that obol can have", host_text(remote));
            return Err((why, "write the peer's address, or %any"));
        }
        _ => {}
    }
    if !conn.conn.signs() || matches!(conn.conn.auth, Auth::Either(_)) {
        return Ok(());
    }
    let (local, other) = (conn.local, conn.local.other());
    if conn.remote_end().key.is_none() {
        return Err((
            format!("there is no {other}rsasigkey, so the peer cannot prove who it is"),
            "add it; ipsec showhostkey on the peer prints it",
        ));
    }
    match (&conn.local_end().key, &conn.local_end().ckaid) {
        (Some(_), _) | (None, Some(_)) => Ok(()),
        (None, None) => Err((
            format!(
                "there is neither {local}rsasigkey nor {local}ckaid, so it is not known which key is this host's"
            ),
            "add one; ipsec showhostkey prints them",
        )),
    }
}

/// Whether it is known which packets pass or are dropped.
fn usable_shunt(conn: &Oriented<'_>) -> Result<(), Refusal> {
    let children = conn.children();
    let whole = |child: &ChildOf| !child.local_ts.is_empty() && !child.remote_ts.is_empty();
    match children.iter().all(whole) && !children.is_empty() {
        true => Ok(()),
        false => Err((
            "a connection without IKE needs to say which packets it is about".into(),
            "add leftsubnet and rightsubnet",
        )),
    }
}
