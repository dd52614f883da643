//! `obol run --ipsec-conf`: pluto's files as a configuration that runs.
//!
//! The connections are written as obol's own text, which goes through the same reader as any
//! other. What is secret does not go through that text.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use obol_ike::crypto::signature::PublicKey;
use obol_ike::identity::Identity;
use tokio::time::timeout;

use super::Understood;
use super::conn::{Auth, Auto, Conn, End};
use super::files::read_one;
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

/// How long names may take to be looked up, all at once.
const PATIENCE: Duration = Duration::from_secs(3);

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
}

impl Files {
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
            true => self.wanted.insert(name.to_owned()),
            false => self.wanted.remove(name),
        };
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
    /// This host as it is now, and as if it had the addresses `known` as well; with `listen=`, as
    /// if it had no other address.
    ///
    /// # Errors
    /// The system does not say which addresses it has.
    pub(crate) async fn now(
        understood: &Understood,
        known: &Addresses,
    ) -> Result<Self, DataPlaneError> {
        let mut addrs = addresses().await?;
        let gone = known.iter().filter(|known| !addrs.contains(known));
        addrs.extend(gone.cloned().collect::<Vec<_>>());
        let listen = understood.setup.listen;
        addrs.retain(|(_, addr)| listen.is_none_or(|listen| listen == *addr));
        Ok(Self {
            addrs,
            // With the mark of our own packets, our own rules do not count.
            source: |peer| host::source_for(peer, DaemonSettings::default().fwmark).ok(),
            names: look_up(understood).await,
        })
    }
}

/// The addresses of all names. A name without is left out.
async fn look_up(understood: &Understood) -> Vec<(String, Vec<IpAddr>)> {
    let ends = understood.conns.iter().flat_map(|conn| &conn.ends);
    let mut names: Vec<&str> = ends
        .filter_map(|end| match &end.host.value {
            Host::Name(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    let look_up = async |name: &str| {
        let found = timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await;
        let found = found.ok()?.ok()?;
        Some((name.to_owned(), found.map(|addr| addr.ip()).collect()))
    };
    let all = futures_util::future::join_all(names.into_iter().map(look_up)).await;
    all.into_iter().flatten().collect()
}

/// Reads pluto's files, and beside them obol's own, which need not be there. A connection that
/// cannot be had is left out, with a warning; all others count.
///
/// # Errors
/// What makes all of it useless.
pub(crate) async fn load_to_run(
    files: &Files,
    own: &Path,
    known: &Addresses,
) -> Result<Loaded, ConfigErrors> {
    let understood = super::load(&files.conf)?;
    begin(files, own, known, understood).await
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
    let Ok(loaded) = begin(files, own, &Addresses::new(), understood).await else {
        // If something is wrong, it is to be said of all of it.
        return Ok(Single::Other);
    };
    if let Some(not) = loaded.pluto.why_not(name) {
        return Ok(Single::Waits(not.clone()));
    }
    if loaded.pluto.names.contains_key(name) {
        return Ok(Single::Conn(Box::new(loaded)));
    }
    let refusal = format!("{name} is refused: ");
    let mut warnings = loaded.warnings.into_iter();
    let refused = warnings.find_map(|mut warning| {
        warning.message = warning.message.strip_prefix(&refusal)?.to_owned();
        Some(warning.to_string())
    });
    Ok(refused.map_or(Single::Other, Single::Refused))
}

async fn begin(
    files: &Files,
    own: &Path,
    known: &Addresses,
    mut understood: Understood,
) -> Result<Loaded, ConfigErrors> {
    let view = HostView::now(&understood, known).await.map_err(|e| {
        let name = files.conf.display().to_string();
        ConfigErrors(vec![Finding::of_file(&name, e.to_string(), "")])
    })?;
    let places = Places::of(files, &understood.setup);
    let mut secrets = places.read_secrets()?;
    let signs = understood.conns.iter().any(Conn::signs);
    let loader = Loader {
        ring: places.ring(&mut secrets, signs),
        secrets,
        places,
        warnings: std::mem::take(&mut understood.notices),
        wanted: files.wanted.clone(),
        routed: files.routed.clone(),
        world: World::default(),
    };
    loader.load(own, understood, view)
}

struct Loader {
    ring: Ring,
    secrets: secrets::Secrets,
    places: Places,
    warnings: Vec<Finding>,
    wanted: BTreeSet<String>,
    routed: BTreeSet<String>,
    world: World,
}

impl Loader {
    fn load(
        mut self,
        own: &Path,
        mut understood: Understood,
        view: HostView,
    ) -> Result<Loaded, ConfigErrors> {
        self.warnings.append(&mut self.secrets.notices);
        for (name, errors) in std::mem::take(&mut understood.refused) {
            errors
                .into_iter()
                .for_each(|error| self.refuse(&name, error));
        }
        let parts = std::mem::take(&mut understood.parts).into_iter();
        let parts = parts.map(|(name, why)| (name, NotLoaded::ignored(why)));
        self.world.others.extend(parts);
        for conn in &mut understood.conns {
            self.ring.complete(conn);
        }
        let mut conns = Vec::new();
        for conn in &understood.conns {
            let wanted = self.wanted.contains(&conn.name.value);
            if conn.auto == Auto::Ignore && !wanted {
                self.leave_out(conn, Absence::Ignored, "auto=ignore".into());
                continue;
            }
            let waits = conn.is_shunt() && conn.auto == Auto::Add;
            if waits && !self.routed.contains(&conn.name.value) {
                let why = "it is not routed (auto=add)".to_owned();
                self.leave_out(conn, Absence::Unrouted, why);
                continue;
            }
            match orient(conn, &view) {
                Ok(oriented) => match self.ring.has_named(&oriented).and(usable(&oriented)) {
                    Ok(()) => conns.push(oriented),
                    Err((why, fix)) => {
                        let finding = understood.finding(&conn.name, why, fix);
                        self.refuse(&conn.name.value, finding);
                    }
                },
                Err(why) => self.leave_out(conn, Absence::Unoriented, why.to_string()),
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
            let errors = match config::load_with(own, translated) {
                Ok(loaded) => return Ok(self.finish(loaded, &conns, native.children, view)),
                Err(errors) => errors,
            };
            // What cannot be had beside the others is left out.
            let culprits: Vec<(Vec<String>, Finding)> = errors
                .0
                .iter()
                .filter_map(|error| Some((whose(&error.location, &native.lines)?, error.clone())))
                .collect();
            if culprits.len() < errors.0.len() || culprits.is_empty() {
                return Err(errors);
            }
            for (names, error) in culprits {
                conns.retain(|conn| !names.contains(&conn.conn.name.value));
                let error = in_files(&error, &names, &native.lines, &understood);
                self.refuse(&names.join(", "), error);
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
        for conn in conns.iter().filter(|conn| conn.conn.auth == Auth::Secret) {
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
        view: HostView,
    ) -> Loaded {
        for conn in conns.iter().filter(|conn| conn.conn.signs()) {
            if let Some(key) = &conn.local_end().key
                && let Err(why) = self.ring.private(&key.value)
            {
                let name = &conn.conn.name.value;
                let message = format!("{name} cannot come up: {why}");
                self.warnings.push(Finding::of_file("NSS", message, ""));
            }
        }
        let aliases: HashMap<&str, &[String]> = conns
            .iter()
            .map(|conn| (conn.conn.name.value.as_str(), conn.conn.aliases.as_slice()))
            .collect();
        for (name, place) in children {
            let places = self.world.names.entry(name.clone()).or_default();
            places.push(place.clone());
            for alias in aliases.get(name.as_str()).copied().unwrap_or_default() {
                let places = self.world.names.entry(alias.clone()).or_default();
                places.push(place.clone());
                self.world.aliases.insert(alias.clone());
            }
        }
        self.world.addresses = view.addrs;
        self.world.places = self.places;
        self.warnings.append(&mut loaded.warnings);
        loaded.warnings = self.warnings;
        loaded.pluto = self.world;
        loaded
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

/// An error about two connections, at their places in pluto's files.
fn in_files(
    error: &Finding,
    names: &[String],
    lines: &[(usize, Vec<String>)],
    understood: &Understood,
) -> Finding {
    let conn = |names: &[String]| {
        let mut conns = understood.conns.iter();
        conns.find(|conn| names.contains(&conn.name.value))
    };
    let others = error.also.as_ref().and_then(|also| whose(also, lines));
    let both = conn(names).zip(others.and_then(|others| conn(&others)));
    let Some((own, other)) = both else {
        return error.clone();
    };
    let message = format!("conn {} is in its way: {}", other.name.value, error.message);
    let mut finding = understood.finding(&own.name, message, &error.fix);
    finding.also = Some(understood.location(&other.name));
    finding
}

/// The connections that a place in the translation is about.
fn whose(location: &str, lines: &[(usize, Vec<String>)]) -> Option<Vec<String>> {
    let place = location.strip_prefix(TRANSLATION)?.strip_prefix(':')?;
    let line: usize = place.split(':').next()?.parse().ok()?;
    let before = lines.iter().rev().find(|(from, _)| *from <= line)?;
    Some(before.1.clone())
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
        let children = conn.children();
        let whole = |child: &ChildOf| !child.local_ts.is_empty() && !child.remote_ts.is_empty();
        return match children.iter().all(whole) && !children.is_empty() {
            true => Ok(()),
            false => Err((
                "a connection without IKE needs to say which packets it is about".into(),
                "add leftsubnet and rightsubnet",
            )),
        };
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
    if !conn.conn.signs() {
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
