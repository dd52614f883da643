//! From text to checked values, once: everything behind this module may rely on them.
//!
//! ```text
//!  files -> finding::Source -> reader (TOML with places) -> daemon, secrets, connection, child
//!                                                              -> checks -> Loaded
//! ```
//!
//! Whatever is wrong becomes a [`finding::Finding`] with file, line and column; one pass reports
//! all of them.

mod addition;
pub(crate) mod changes;
mod checks;
mod child;
mod cleartext;
mod connection;
mod daemon;
pub(crate) mod files;
pub(crate) mod finding;
mod fragmentation;
pub(crate) mod generate;
mod kernel;
mod meeting;
mod overlap;
mod planes;
mod proposals;
mod queues;
mod reader;
mod redirect;
mod replacing;
mod resumption;
mod secrets;
pub(crate) mod shunt;
mod signatures;
#[cfg(test)]
mod tests;
mod values;
pub(crate) mod write;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_ike::config::{Config, Connection};
use obol_ike::proposal::Allowed;
use toml::Spanned;
use toml::de::DeTable;

use crate::cli::DEFAULT_CONFIG;
use crate::credentials::Credentials;
use crate::dataplane::{Clear, Policy};
use crate::pluto::{Translated, World};
use child::ReadChild;
use connection::ReadConnection;
pub(crate) use daemon::DaemonSettings;
use files::{Disk, FileSource, NoFiles};
pub(crate) use finding::{ConfigErrors, Finding, Located, Place, Report, Source};
use generate::Level;
pub(crate) use meeting::Areas;
pub(crate) use overlap::is_narrower;
pub(crate) use planes::{ConnectionChoice, DataPlaneChoice};
use proposals::Proposals;
use reader::{Section, shifted};
pub(crate) use reader::{nearest, shorten};
pub(crate) use replacing::{Before, Misfit};
use secrets::Secrets;
pub(crate) use values::secret as secret_octets;

/// A configuration that was read and found right.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Connections and IKE settings.
    pub(crate) ike: Config,
    /// Secrets and private keys.
    pub(crate) credentials: Credentials,
    /// What is to be protected: one policy for each child, in the order of the files, and what is dropped.
    pub(crate) policies: Vec<Policy>,
    /// What is to carry each connection, in their order.
    pub(crate) data_planes: Vec<ConnectionChoice>,
    /// Scripts that are told what becomes of a child, by the names of its connection and its own.
    pub(crate) updown: BTreeMap<(String, String), String>,
    /// How strict policies are that are made for peers, by the names of connections that have such.
    pub(crate) generated: BTreeMap<String, Level>,
    /// Settings of the daemon as a whole.
    pub(crate) daemon: DaemonSettings,
    /// What is allowed but not good.
    pub(crate) warnings: Vec<Finding>,
    /// The files that were read, the main one first.
    pub(crate) files: Vec<PathBuf>,
    /// What is known of connections of pluto's by their own names, and of this host.
    pub(crate) pluto: World,
    /// Each configured address of this host, with what to say if it is not one.
    own_addresses: Vec<(IpAddr, Finding)>,
}

/// Reads a configuration file, and the `conf.d/*.toml` beside it if its name is `obol.toml`.
///
/// # Errors
/// Everything that is wrong with it, or that it cannot be read.
pub(crate) fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    let paths = all_files(path)?;
    let mut loaded = read(&read_sources(&paths)?, &Disk, None)?;
    loaded.files = paths;
    Ok(loaded)
}

/// The same with connections of pluto's beside those of the file, which need not be there if it is
/// the default one.
///
/// # Errors
/// Everything that is wrong with either.
pub(crate) fn load_with(path: &Path, mut translated: Translated) -> Result<Loaded, ConfigErrors> {
    let paths = match path == Path::new(DEFAULT_CONFIG) && !path.exists() {
        true => Vec::new(),
        false => all_files(path)?,
    };
    let mut sources = read_sources(&paths)?;
    sources.push(translated.source());
    let mut loaded = read(&sources, &Disk, Some(&translated))?;
    loaded.files = paths;
    Ok(loaded)
}

/// Reads only the table `[daemon]`, for what must work whatever is wrong with the rest.
///
/// # Errors
/// A file cannot be read or is no TOML, or the table is wrong.
pub(crate) fn load_daemon(path: &Path) -> Result<DaemonSettings, ConfigErrors> {
    let sources = read_sources(&all_files(path)?)?;
    let report = Report::new(&sources);
    let tables = parse_all(&report, &wholes(&sources));
    let (daemon, _) = read_daemon(&report, &roots(&report, &tables), None);
    report.finish().map(|_| daemon)
}

/// Which weak algorithms a configuration allows; none, if it is the default one and not there.
///
/// # Errors
/// As [`load_daemon`].
pub(crate) fn allowed(path: &Path) -> Result<Allowed, ConfigErrors> {
    match path == Path::new(DEFAULT_CONFIG) && !path.exists() {
        true => Ok(Allowed::default()),
        false => load_daemon(path).map(|daemon| daemon.allow),
    }
}

fn read_sources(paths: &[PathBuf]) -> Result<Vec<Source>, ConfigErrors> {
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        match files::read_text(path) {
            Ok((text, exposed)) => sources.push(Source {
                name,
                directory: path.parent().map(Path::to_owned).unwrap_or_default(),
                text,
                exposed,
            }),
            Err(problem) => errors.push(Finding::of_file(&name, problem.message, "")),
        }
    }
    match errors.is_empty() {
        true => Ok(sources),
        false => Err(ConfigErrors(errors)),
    }
}

/// Reads a configuration from a text, with key files from `files`.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn parse_str(
    name: &str,
    text: &str,
    files: &dyn FileSource,
) -> Result<Loaded, ConfigErrors> {
    let source = Source {
        name: name.to_owned(),
        directory: PathBuf::new(),
        text: text.to_owned(),
        exposed: false,
    };
    read(&[source], files, None)
}

/// Reads any octets as a configuration, without files. For fuzzing: must not panic.
pub fn fuzz_config(octets: &[u8]) {
    if let Ok(text) = std::str::from_utf8(octets)
        && let Err(errors) = parse_str("fuzz.toml", text, &NoFiles)
    {
        assert!(!errors.to_string().is_empty(), "errors have words");
    }
}

impl Loaded {
    /// The addresses of this host that are configured, whether it has them or not.
    pub(crate) fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.own_addresses.iter().map(|(addr, _)| *addr)
    }
}

/// Which of the configured own addresses this host does not have.
pub(crate) fn check_addresses(loaded: &Loaded, host: &[IpAddr]) -> ConfigErrors {
    let missing = loaded
        .own_addresses
        .iter()
        .filter(|(addr, _)| !host.contains(addr));
    ConfigErrors(missing.map(|(_, finding)| finding.clone()).collect())
}

/// The main file, and the others in the order of their names.
fn all_files(path: &Path) -> Result<Vec<PathBuf>, ConfigErrors> {
    let mut paths = vec![path.to_owned()];
    if path.file_name() != Some("obol.toml".as_ref()) {
        return Ok(paths);
    }
    let directory = path.parent().unwrap_or(Path::new("")).join("conf.d");
    let unreadable = |e: std::io::Error| {
        let name = directory.display().to_string();
        ConfigErrors(vec![Finding::of_file(
            &name,
            format!("cannot read the directory: {e}"),
            "",
        )])
    };
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(paths),
        Err(e) => return Err(unreadable(e)),
    };
    let mut more = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension() == Some("toml".as_ref()) {
            more.push(path);
        }
    }
    more.sort();
    paths.extend(more);
    Ok(paths)
}

/// Reads all sources, of which the last is pluto's if there is something translated.
fn read(
    sources: &[Source],
    files: &dyn FileSource,
    translated: Option<&Translated>,
) -> Result<Loaded, ConfigErrors> {
    let report = Report::new(sources);
    let mut parts = wholes(sources);
    let cuts = translated.map_or(&[][..], Translated::cuts);
    let rest = cuts
        .first()
        .map_or_else(Vec::new, |_| cut(&mut parts, cuts));
    let tables = parse_all(&report, &parts);
    if report.has_errors() {
        // What a broken text lacks was perhaps in its broken part.
        return Err(report.finish().err().unwrap_or_default());
    }
    let first = roots(&report, &tables);
    let foreign = translated.map(|_| sources.len() - 1);
    let (daemon, settings) = read_daemon(&report, &first, foreign);
    let mut secrets = Secrets::default();
    if let Some(translated) = translated {
        secrets.take(translated);
    }
    for root in &first {
        secrets.read(&report, files, root);
    }
    let mut found = Tables::new(daemon.allow);
    found.read(&report, files, &secrets, first);
    // Of thousands of connections, a few at a time are there as TOML.
    for part in rest {
        let tables = parse_all(&report, &[part]);
        found.read(&report, files, &secrets, roots(&report, &tables));
    }
    let Tables {
        mut connections,
        shunts,
        ..
    } = found;
    let data_planes = planes::choices(&report, daemon.data_plane, &connections);
    let mut narrower = checks::check(&report, &connections, &data_planes, &secrets);
    shunt::check(&report, &shunts, &connections, &mut narrower);
    kernel::check(&report, &connections, &data_planes);
    cleartext::check(&report, &connections, foreign);
    generate::check(&report, &connections, foreign);
    let own_addresses = own_addresses(&report, &connections, foreign);
    let warnings = report.finish()?;
    let mut policies = policies(&connections);
    for policy in &mut policies {
        let name = (policy.connection.clone(), policy.child.clone());
        policy.narrower = !narrower.is_empty() && narrower.contains(&name);
    }
    policies.extend(shunt::policies(shunts));
    generate::settle(&mut connections, &policies);
    let generated = generate::levels(&connections);
    let updown = updown(&connections);
    let connections: Vec<Arc<Connection>> = connections.into_iter().map(assemble).collect();
    Ok(Loaded {
        policies,
        ike: Config {
            connections,
            settings,
        },
        credentials: secrets.credentials,
        data_planes,
        updown,
        generated,
        daemon,
        warnings,
        files: Vec::new(),
        pluto: World::default(),
        own_addresses,
    })
}

/// A text that is read at once: a source, or a part of one.
#[derive(Clone, Copy)]
struct Part<'s> {
    source: usize,
    /// Where in the source it begins.
    base: usize,
    text: &'s str,
}

fn wholes(sources: &[Source]) -> Vec<Part<'_>> {
    let sources = sources.iter().enumerate();
    let whole = sources.map(|(source, whole)| Part {
        source,
        base: 0,
        text: &whole.text,
    });
    whole.collect()
}

/// Cuts the last part at these places; what comes after the first of them.
fn cut<'s>(parts: &mut [Part<'s>], cuts: &[usize]) -> Vec<Part<'s>> {
    let Some(last) = parts.last_mut() else {
        return Vec::new();
    };
    let whole = *last;
    let mut rest = Vec::new();
    let ends = cuts[1..].iter().copied().chain([whole.text.len()]);
    for (base, end) in cuts.iter().copied().zip(ends) {
        let text = &whole.text[base..end];
        rest.push(Part {
            base,
            text,
            ..whole
        });
    }
    last.text = &whole.text[..cuts[0]];
    rest
}

/// A part, and the table that it is.
type Parsed<'s> = (Part<'s>, Spanned<DeTable<'s>>);

/// Each part as TOML, as far as it can be read.
fn parse_all<'s>(report: &Report<'_>, parts: &[Part<'s>]) -> Vec<Parsed<'s>> {
    let mut tables = Vec::new();
    for part in parts {
        let (table, errors) = DeTable::parse_recoverable(part.text);
        let mut twice = false;
        for error in errors {
            let span = shifted(error.span().unwrap_or_default(), part.base);
            let source = part.source;
            let fix = match error.message() {
                // A table that is there twice makes all of its keys so.
                "duplicate key" if twice => continue,
                "duplicate key" => {
                    twice = true;
                    "remove one of them, or rename it"
                }
                _ => "",
            };
            report.error(&Place { source, span }, error.message(), fix);
        }
        tables.push((*part, table));
    }
    tables
}

fn roots<'a>(report: &'a Report<'a>, tables: &'a [Parsed<'a>]) -> Vec<Section<'a>> {
    let tables = tables.iter();
    tables
        .map(|(part, table)| Section::root(report, (part.source, part.base), table))
        .collect()
}

/// The one `[daemon]` table, on top of what the source `foreign` says of the daemon, key by key.
fn read_daemon(
    report: &Report<'_>,
    roots: &[Section<'_>],
    foreign: Option<usize>,
) -> (DaemonSettings, obol_ike::config::Settings) {
    let mut own: Option<Section<'_>> = None;
    let mut translated = None;
    for section in roots.iter().filter_map(|root| root.section("daemon")) {
        if foreign == Some(section.place.source) {
            translated = Some(section);
            continue;
        }
        match &own {
            Some(other) => report.clash(
                &section.place,
                &other.place,
                "there are two [daemon] tables",
                "put all of it into one file",
            ),
            None => own = Some(section),
        }
    }
    if let (Some(own), Some(translated)) = (&own, &translated) {
        for key in own.keys().filter(|key| translated.has(key.value)) {
            report.warn(
                &key.place,
                format!(
                    "{} here goes before what was translated says of it",
                    key.value
                ),
                "remove one of them if they differ",
            );
        }
    }
    let mut read = Default::default();
    for section in translated.into_iter().chain(own) {
        read = daemon::read(report, section, read);
    }
    read
}

/// What the tables of connections and shunts are.
struct Tables {
    connections: Vec<ReadConnection>,
    shunts: Vec<shunt::ReadShunt>,
    /// Where each name of a connection was given.
    names: HashMap<String, Place>,
    proposals: Proposals,
}

impl Tables {
    fn new(allowed: Allowed) -> Self {
        Self {
            connections: Vec::new(),
            shunts: Vec::new(),
            names: HashMap::new(),
            proposals: Proposals::new(allowed),
        }
    }

    /// Reads them, and all that is wrong with them.
    fn read(
        &mut self,
        report: &Report<'_>,
        files: &dyn FileSource,
        secrets: &Secrets,
        roots: Vec<Section<'_>>,
    ) {
        for root in &roots {
            self.read_connections(report, files, secrets, root);
        }
        shunt::read_all(report, &roots, &mut self.shunts);
        for root in roots {
            root.finish();
        }
    }

    fn read_connections(
        &mut self,
        report: &Report<'_>,
        files: &dyn FileSource,
        secrets: &Secrets,
        root: &Section<'_>,
    ) {
        for (name, section) in root.named("connections") {
            if let Some(first) = self.names.get(name.value) {
                report.clash(
                    &name.place,
                    first,
                    format!("two connections are called {}", name.value),
                    "rename one of them; a connection and its children go into one file",
                );
                continue;
            }
            let beside = (secrets, &self.proposals);
            let read = connection::read(report, files, beside, &name, section);
            self.connections.extend(read);
            self.names.insert(name.value.to_owned(), name.place);
        }
    }
}

/// Those of pluto's connections, from the source `foreign`, were found on this host.
fn own_addresses(
    report: &Report<'_>,
    connections: &[ReadConnection],
    foreign: Option<usize>,
) -> Vec<(IpAddr, Finding)> {
    let all = connections.iter().flat_map(|c| &c.local_addrs);
    let written = all.filter(|addr| foreign != Some(addr.place.source));
    written
        .map(|addr| {
            let message = format!("{} is not an address of this host", addr.value);
            let fix = "write one that `ip address` shows, or \"%any\"".to_owned();
            (addr.value, report.finding(&addr.place, message, fix))
        })
        .collect()
}

fn assemble(connection: ReadConnection) -> Arc<Connection> {
    let children = connection.children.into_iter();
    Arc::new(Connection {
        children: children.map(|child| Arc::new(child.config)).collect(),
        ..connection.config
    })
}

fn updown(connections: &[ReadConnection]) -> BTreeMap<(String, String), String> {
    let children = connections.iter().flat_map(|connection| {
        let children = connection.children.iter();
        children.map(|child| (connection.config.name.clone(), child))
    });
    children
        .filter_map(|(of, child)| Some(((of, child.config.name.clone()), child.updown.clone()?)))
        .collect()
}

/// Every child is protected; those that wait for nobody also raise an acquire.
fn policies(connections: &[ReadConnection]) -> Vec<Policy> {
    let policy = |connection: &Connection, read: &ReadChild| {
        let child = &read.config;
        Policy {
            connection: connection.name.clone(),
            child: child.name.clone(),
            mode: child.mode,
            local_ts: child.local_ts.clone(),
            remote_ts: child.remote_ts.clone(),
            trap: child.may_trap(),
            pass: false,
            narrower: false,
            clear: Clear::at_first(read.cleartext.when),
            kernel: read.kernel.options.clone(),
        }
    };
    connections
        .iter()
        .flat_map(|connection| {
            let children = connection.children.iter();
            children.map(|child| policy(&connection.config, child))
        })
        .collect()
}
