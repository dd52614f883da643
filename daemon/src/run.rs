//! `obol run`: from a configuration file to a running daemon, and down again.
//!
//! Everything that can be found wrong is found before the first thing is changed: the
//! configuration, the rights, a second instance, the addresses, the ports. Then protection
//! goes up, and only then the first packet out.

use std::fs::{File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use obol_ike::endpoint::Endpoint;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::cli::DEFAULT_RUNTIME_DIR;
use crate::clock::Clock;
use crate::config::{self, DaemonSettings, Loaded};
use crate::control::Server;
use crate::dataplane::{self, DataPlane, DataPlaneError, Plane};
use crate::driver::{Driver, Ended, Roaming, Signal};
use crate::error::{ExitClass, Failure};
use crate::host;
use crate::pluto::{self, Occasion};
use crate::ports::Ports;
use crate::racoon;
use crate::service;
use crate::state;

/// Requests of operators that may wait for the loop.
const CALLS: usize = 16;

/// Runs the daemon until it is told to stop. What `began` gives is kept until then: it is called once no other
/// daemon has the directory.
///
/// # Errors
/// What keeps it from starting; nothing is left half-installed then.
pub(crate) fn run<T>(
    origin: Origin,
    runtime_dir: &Path,
    began: impl FnOnce() -> T,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::system("cannot start the event loop", &e))?;
    let config = origin.config.clone();
    let done = runtime.block_on(daemon(origin, runtime_dir, began));
    done.map_err(|failure| say_what_stays(failure, &config))
}

/// Whoever reads why no daemon runs is to know what becomes meanwhile of what one before protected.
fn say_what_stays(mut failure: Failure, config: &Path) -> Failure {
    let settings = config::load_daemon(config).unwrap_or_default().host();
    let stays = || dataplane::protects(&settings).unwrap_or(false);
    if failure.code != ExitClass::AlreadyRuns && stays() {
        let text = "\nwhat was protected before stays so: it is dropped until a daemon runs, or `obol purge` lets it pass";
        failure.message.push_str(text);
    }
    failure
}

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// obol's own file.
    pub(crate) config: PathBuf,
    /// Files of pluto's beside it.
    pub(crate) pluto: Option<pluto::Files>,
    /// Files of racoon's and setkey's beside it.
    pub(crate) racoon: Option<racoon::Files>,
}

impl Origin {
    /// Reads all of it.
    async fn load(&self, occasion: Occasion<'_>) -> Result<Loaded, Failure> {
        let read = match (&self.pluto, &self.racoon) {
            (Some(files), _) => pluto::load_to_run(files, &self.config, occasion).await,
            (None, Some(files)) => racoon::load_to_run(files, &self.config),
            (None, None) => config::load(&self.config),
        };
        read.map_err(|errors| Failure::new(ExitClass::Config, errors.to_string()))
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let main = match (&self.pluto, &self.racoon) {
            (Some(files), _) => &files.conf,
            (None, Some(files)) => &files.conf,
            (None, None) => &self.config,
        };
        write!(f, "{}", main.display())
    }
}

async fn daemon<T>(
    origin: Origin,
    runtime_dir: &Path,
    began: impl FnOnce() -> T,
) -> Result<(), Failure> {
    let mut loaded = origin.load(Occasion::Start).await?;
    crate::logging::start(&loaded.daemon.log)?;
    keep_memory_private();
    check_rights()?;
    let lock = Lock::take(runtime_dir)?;
    let _kept = began();
    refuse_beside_pluto(&origin)?;
    if origin.racoon.is_some() {
        // setkey may have changed the policies meanwhile; from here on it waits for us.
        loaded = origin.load(Occasion::Start).await?;
    }
    await_addresses(&mut loaded).await?;
    look_up_sources(&mut loaded);
    check_algorithms()?;
    tell(&loaded);
    let settings = loaded.daemon.host();
    let ports = Ports::open(&settings).map_err(system)?;
    let plane = protect(&settings, &ports, &mut loaded).await?;
    let (calls, inbox) = mpsc::channel(CALLS);
    let server = Server::listen(runtime_dir, calls)
        .map_err(|e| Failure::system(format!("cannot listen in {}", runtime_dir.display()), &e))?;
    let rng = Box::new(rand_core::UnwrapErr(getrandom::SysRng));
    let mut endpoint = Endpoint::new(Arc::new(loaded.ike.clone()), rng);
    let clock = Clock::start();
    prepare_for_crashes(&mut endpoint, &loaded, runtime_dir);
    prepare_tickets(&mut endpoint, clock, &loaded, runtime_dir);
    let roaming = Roaming::new().map_err(system)?;
    let parts = (endpoint, plane, ports, roaming);
    let config = origin.to_string();
    let connections = loaded.ike.connections.len();
    let driver = Driver::new(parts, loaded, origin, clock, inbox)
        .map_err(|e| Failure::system("cannot make a timer", &e))?;
    let signals = signals()?;
    info!(%config, "ready");
    service::ready(connections);
    let (ended, plane) = driver.run(signals).await;
    server.end().await;
    plane.teardown(true).await.map_err(system)?;
    if ended == Ended::Lifted {
        let removed = dataplane::purge(&settings).await.map_err(system)?;
        lock.sign_off()
            .map_err(|e| Failure::system("cannot sign off", &e))?;
        info!(?removed, "protection lifted");
    }
    Ok(())
}

/// Whoever runs from pluto's files is to take its place.
fn refuse_beside_pluto(origin: &Origin) -> Result<(), Failure> {
    let running = origin.pluto.as_ref();
    let running = running.and_then(|_| pluto::running_pid(Path::new(pluto::RUNDIR)));
    running.map_or(Ok(()), |pid| {
        let text = format!(
            "pluto (pid {pid}) runs, and two IKE daemons cannot share UDP 500: {}",
            pluto::REMEDY
        );
        Err(Failure::new(ExitClass::AlreadyRuns, text))
    })
}

/// Logs what is not good, and which connections of pluto's are other hosts'.
pub(crate) fn tell(loaded: &Loaded) {
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    for (name, why) in loaded.pluto.unoriented() {
        info!("{name} is not this host's: {why}");
    }
}

/// Lets peers know a crash of this host at once. Without a place for the secret that this needs,
/// they find out later.
fn prepare_for_crashes(endpoint: &mut Endpoint, loaded: &Loaded, runtime_dir: &Path) {
    if !loaded.ike.settings.crash_detection {
        return;
    }
    let dir = state_dir(&loaded.daemon, runtime_dir);
    match state::secret(&dir, state::CRASH) {
        Ok(secret) => endpoint.make_tokens(secret),
        Err(error) => warn!(%error, "peers will not know at once when this host has crashed"),
    }
}

/// Lets tickets be good after a restart, if that is wanted. Without a place for the secret that this
/// needs, peers begin from scratch.
fn prepare_tickets(endpoint: &mut Endpoint, clock: Clock, loaded: &Loaded, runtime_dir: &Path) {
    if !loaded.daemon.keep_tickets {
        return;
    }
    let dir = state_dir(&loaded.daemon, runtime_dir);
    // A clock before 1970 is far from right, and then no ticket of an earlier run is good.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    match state::secret(&dir, state::TICKETS) {
        Ok(secret) => endpoint.keep_tickets(clock.now(), since_1970.unwrap_or_default(), secret),
        Err(error) => warn!(%error, "tickets of this host will not be good after a restart"),
    }
}

/// Where the daemon keeps what outlives it. Two daemons must not share that, so one with another
/// runtime directory has it there.
fn state_dir(settings: &DaemonSettings, runtime_dir: &Path) -> PathBuf {
    match &settings.state_dir {
        Some(dir) => dir.clone(),
        None if runtime_dir == Path::new(DEFAULT_RUNTIME_DIR) => state::DEFAULT_DIR.into(),
        None => runtime_dir.join("state"),
    }
}

/// Opens the data planes that are needed, and puts every policy up. If that fails, what an earlier daemon left
/// in place stays, and otherwise nothing does.
async fn protect(
    settings: &host::HostSettings,
    ports: &Ports,
    loaded: &mut Loaded,
) -> Result<Plane, Failure> {
    let adopts = dataplane::protects(settings).map_err(system)?;
    let mut plane = Plane::new(settings.clone(), ports);
    match plane.take_over(loaded, ports).await {
        Ok(()) => {
            plane.replace_other().await.map_err(system)?;
            // What blocked on behalf of the daemon before is not needed any more.
            host::remove_interim().map_err(system)?;
            Ok(plane)
        }
        Err(e) => {
            plane.teardown(adopts).await.map_err(system)?;
            Err(system(e))
        }
    }
}

/// Keeps keys out of core dumps, and our memory from other processes of the same user.
fn keep_memory_private() {
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // The service may forbid the former, having done it itself; the latter alone is enough.
    let _ = rustix::process::setrlimit(Resource::Core, nothing);
    let done = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = done {
        warn!(%error, "a core dump of this process would hold keys");
    }
}

fn check_algorithms() -> Result<(), Failure> {
    obol_ike::crypto::self_test().map_err(|failed| {
        let list = failed.join(", ");
        Failure::new(
            ExitClass::Failed,
            format!("the self test of {list} failed: this build or this machine must not be used"),
        )
    })
}

/// Reads the configuration and checks it against this host.
///
/// # Errors
/// All that is wrong with it.
pub(crate) async fn load_checked(
    origin: &Origin,
    occasion: Occasion<'_>,
    running: &Loaded,
) -> Result<Loaded, Failure> {
    let mut loaded = origin.load(occasion).await?;
    check_addresses(&loaded, running).await?;
    look_up_sources(&mut loaded);
    Ok(loaded)
}

/// Asks the routing table from which address we reach the peers of connections that leave
/// their own address open.
pub(crate) fn look_up_sources(loaded: &mut Loaded) {
    for connection in &mut loaded.ike.connections {
        let Some(remote) = connection.remote_addrs.first().copied() else {
            continue;
        };
        if !connection.local_addrs.is_empty() {
            continue;
        }
        match host::source_for(remote, loaded.daemon.fwmark) {
            Ok(source) => Arc::make_mut(connection).source = Some(source),
            Err(e) => warn!(connection = %connection.name, error = %e, "no way to {remote}"),
        }
    }
}

/// What is new has to be there. What is waited for, or is gone for a while, keeps nothing else from being changed.
async fn check_addresses(loaded: &Loaded, running: &Loaded) -> Result<(), Failure> {
    let mut addresses = host::addresses().await.map_err(system)?;
    addresses.extend(running.own_addresses());
    let errors = config::check_addresses(loaded, &addresses);
    if errors.0.is_empty() {
        return Ok(());
    }
    Err(Failure::new(ExitClass::Failed, errors.to_string()))
}

/// At start an address may be still to come. What it is for is protected all the same, so nothing of it leaves
/// in clear meanwhile.
async fn await_addresses(loaded: &mut Loaded) -> Result<(), Failure> {
    let addresses = host::addresses().await.map_err(system)?;
    for mut missing in config::check_addresses(loaded, &addresses).0 {
        missing.message += ": its connections wait until it is, and their packets are dropped";
        loaded.warnings.push(missing);
    }
    Ok(())
}

/// What sockets and devices were made of cannot change while they are in use.
///
/// # Errors
/// If the `[daemon]` tables differ.
pub(crate) fn refuse_daemon_changes(
    running: &DaemonSettings,
    new: &DaemonSettings,
) -> Result<(), Failure> {
    // Which algorithms are allowed only counts where files are read.
    let allow = new.allow;
    let running = DaemonSettings {
        allow,
        ..running.clone()
    };
    if running == *new {
        return Ok(());
    }
    Err(Failure::new(
        ExitClass::Config,
        "the [daemon] table has changed, and it is only read at start: restart the daemon, or undo the change; everything runs on as before",
    ))
}

/// A data plane's or host's error as the end of a command.
pub(crate) fn system(error: DataPlaneError) -> Failure {
    match &error {
        DataPlaneError::System { what, source } => Failure::system(what, source),
        _ => Failure::new(ExitClass::Failed, error.to_string()),
    }
}

/// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_NET_RAW, by their bits in CapEff.
const CAPABILITIES: [(u32, &str); 3] = [
    (10, "CAP_NET_BIND_SERVICE"),
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
];

fn check_rights() -> Result<(), Failure> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|e| Failure::system("cannot read /proc/self/status", &e))?;
    let missing = missing_capabilities(&status);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        ExitClass::NotPermitted,
        format!(
            "`obol run` needs {}: run it as root, or give it these capabilities",
            missing.join(", ")
        ),
    ))
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES
        .iter()
        .filter(|(bit, _)| bits >> bit & 1 == 0)
        .map(|(_, name)| *name)
        .collect()
}

/// The lock of a runtime directory: one daemon each.
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Makes the directory if need be, and takes its lock.
    ///
    /// # Errors
    /// Another daemon has it, or the directory cannot be used.
    pub(crate) fn take(runtime_dir: &Path) -> Result<Self, Failure> {
        let cannot = |e: &std::io::Error| {
            Failure::system(
                format!("cannot use runtime directory {}", runtime_dir.display()),
                e,
            )
        };
        // Who can open the file can take its lock, and keep us from starting.
        let mut directory = std::fs::DirBuilder::new();
        let directory = directory.recursive(true).mode(0o700);
        directory.create(runtime_dir).map_err(|e| cannot(&e))?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(LOCK_MODE)
            .open(runtime_dir.join(LOCK_NAME))
            .map_err(|e| cannot(&e))?;
        let private = Permissions::from_mode(LOCK_MODE);
        file.set_permissions(private).map_err(|e| cannot(&e))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(Failure::new(
                ExitClass::AlreadyRuns,
                format!(
                    "another obol (pid {}) runs with runtime directory {}: stop it, or give this one its own --runtime-dir, ports and tun",
                    pid.trim(),
                    runtime_dir.display()
                ),
            ));
        }
        file.set_len(0).map_err(|e| cannot(&e))?;
        file.rewind().map_err(|e| cannot(&e))?;
        writeln!(file, "{}", std::process::id()).map_err(|e| cannot(&e))?;
        Ok(Self { file })
    }

    /// Tells whoever has asked for it that the protection is lifted: the file names no process any more.
    pub(crate) fn sign_off(&self) -> std::io::Result<()> {
        self.file.set_len(0)
    }

    /// The process that the file names: one that has the lock, or that ended without lifting its protection.
    pub(crate) fn signed_by(runtime_dir: &Path) -> Option<u32> {
        let text = std::fs::read_to_string(runtime_dir.join(LOCK_NAME)).ok()?;
        text.trim().parse().ok()
    }

    /// Whether a daemon has this directory; it may be just beginning.
    pub(crate) fn is_taken(runtime_dir: &Path) -> bool {
        File::open(runtime_dir.join(LOCK_NAME))
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// Waits until this daemon has ended, and its protection with it.
    ///
    /// # Errors
    /// It has not within `limit`, or not lifted what it protects.
    pub(crate) fn wait_until_lifted(
        runtime_dir: &Path,
        daemon: Option<u32>,
        limit: Duration,
    ) -> Result<(), Failure> {
        Self::wait_until_free(runtime_dir, limit)?;
        if daemon.is_none() || Self::signed_by(runtime_dir) != daemon {
            return Ok(());
        }
        let text = "the daemon has ended, and could not lift what it protects, which is dropped: its log says why, and `obol purge` tries again";
        Err(Failure::new(ExitClass::Failed, text))
    }

    /// Waits until the daemon of this directory has ended, with everything that it does last.
    ///
    /// # Errors
    /// It has not within `limit`.
    pub(crate) fn wait_until_free(runtime_dir: &Path, limit: Duration) -> Result<(), Failure> {
        let Ok(file) = File::open(runtime_dir.join(LOCK_NAME)) else {
            return Ok(());
        };
        let deadline = Instant::now() + limit;
        while flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            if Instant::now() >= deadline {
                let text = format!("the daemon has not ended after {limit:?}");
                return Err(Failure::new(ExitClass::Failed, text));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

/// The file that is locked; it holds the process ID until the protection is lifted.
const LOCK_NAME: &str = "obol.pid";
/// Its owner's alone.
const LOCK_MODE: u32 = 0o600;
/// How often a lock is tried that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

fn signals() -> Result<mpsc::Receiver<Signal>, Failure> {
    let (sender, receiver) = mpsc::channel(4);
    let kinds = [
        (SignalKind::terminate(), Signal::Stop),
        (SignalKind::interrupt(), Signal::Stop),
        (SignalKind::hangup(), Signal::Reload),
    ];
    for (kind, meaning) in kinds {
        let mut stream = signal(kind).map_err(|e| Failure::system("cannot handle signals", &e))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() && sender.send(meaning).await.is_ok() {}
        });
    }
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert!(missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(
            missing_capabilities("CapEff:\t0000000000001000\n"),
            ["CAP_NET_BIND_SERVICE", "CAP_NET_RAW"]
        );
        assert_eq!(missing_capabilities("").len(), 3);
    }

    #[test]
    fn a_runtime_directory_has_one_daemon() {
        let dir = std::env::temp_dir().join(format!("obol-lock-{}", std::process::id()));
        let first = Lock::take(&dir).expect("free");
        let Err(failure) = Lock::take(&dir) else {
            panic!("taken twice")
        };
        assert!(
            failure.message.contains(&std::process::id().to_string()),
            "{failure}"
        );
        assert_eq!(failure.code, ExitClass::AlreadyRuns);
        drop(first);
        let again = Lock::take(&dir).expect("free again");
        // Who ends otherwise than by lifting everything leaves its name.
        assert_eq!(Lock::signed_by(&dir), Some(std::process::id()));
        again.sign_off().expect("writable");
        assert_eq!(Lock::signed_by(&dir), None);
        std::fs::remove_dir_all(&dir).expect("cleaned up");
    }
}
