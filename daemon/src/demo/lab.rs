//! The two hosts of the demo: namespaces, addresses, configurations, daemons. All of it goes
//! when the [`Lab`] is dropped.

use crate::control::protocol::{Data, Reply, Request, SOCKET_NAME, StatusReport};
use crate::error::{ExitClass, Failure};
use crate::host::netns::Netns;
use rustix::process::{Pid, Signal};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// The device at each end of the wire.
pub const WIRE: &str = "wire0";
/// The VXLAN device on each host.
pub const OVERLAY: &str = "vxlan0";
/// The port of the protected TCP service.
pub const SERVICE: u16 = 27017;
/// The UDP port of the overlay.
pub const OVERLAY_PORT: u16 = 8472;

/// What makes one host differ from the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Side {
    /// `a` or `b`.
    pub name: &'static str,
    /// Its address on the wire, /24.
    pub address: Ipv4Addr,
    /// Its address in the network behind it.
    pub pod: Ipv4Addr,
    /// The network behind it, as a selector.
    pub network: &'static str,
    /// Its address on the overlay, /24.
    pub overlay: Ipv4Addr,
    /// Its IKE identity.
    pub id: &'static str,
}

/// The first host.
pub const A: Side = Side {
    name: "a",
    address: Ipv4Addr::new(192, 168, 0, 1),
    pod: Ipv4Addr::new(172, 16, 1, 1),
    network: "172.16.1.0/24",
    overlay: Ipv4Addr::new(10, 200, 0, 1),
    id: "@hostA.example.com",
};

/// The second host.
pub const B: Side = Side {
    name: "b",
    address: Ipv4Addr::new(192, 168, 0, 2),
    pod: Ipv4Addr::new(172, 16, 2, 1),
    network: "172.16.2.0/24",
    overlay: Ipv4Addr::new(10, 200, 0, 2),
    id: "@hostB.example.com",
};

/// Two hosts on one wire, each in a namespace.
#[derive(Debug)]
pub struct Lab {
    /// The first.
    pub a: Host,
    /// The second.
    pub b: Host,
    // After the hosts, whose daemons write into it until they are dropped.
    directory: Directory,
}

impl Lab {
    /// Makes the hosts; no daemon runs yet. With a `prefix`, the namespaces are called
    /// `PREFIX-a` and `PREFIX-b`, and what an earlier lab of that prefix left is removed first.
    ///
    /// # Errors
    /// What the system refused.
    pub fn new(binary: &Path, prefix: Option<&str>) -> io::Result<Self> {
        let directory = Directory::new()?;
        let host = |side: Side, peer: Side| Host::new(binary, prefix, &directory.path, side, peer);
        let (a, b) = (host(A, B)?, host(B, A)?);
        let end = |side: Side| (WIRE, IpAddr::V4(side.address), 24);
        a.netns.join(end(A), &b.netns, end(B))?;
        Ok(Self { a, b, directory })
    }

    /// Where the configurations and logs are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }

    /// Leaves the configurations and logs in place when the lab is dropped.
    pub fn keep_directory(&mut self) {
        self.directory.keep = true;
    }

    /// Joins the two hosts by an overlay: a VXLAN device each, VNI 1, pinned to the wire as
    /// flannel does it.
    ///
    /// # Errors
    /// `Unsupported` if the kernel has no VXLAN.
    pub fn overlay(&self) -> io::Result<()> {
        for (host, peer) in [(&self.a, B), (&self.b, A)] {
            host.netns.configure(async |links| {
                let Side {
                    address, overlay, ..
                } = host.side;
                links
                    .vxlan(OVERLAY, 1, OVERLAY_PORT, address, peer.address, WIRE)
                    .await?;
                links.address(OVERLAY, IpAddr::V4(overlay), 24).await
            })?;
        }
        Ok(())
    }
}

/// One host and its daemon.
#[derive(Debug)]
pub struct Host {
    /// Who it is.
    pub side: Side,
    /// Where it is.
    pub netns: Netns,
    /// The configuration of its daemon.
    pub config: PathBuf,
    /// The runtime directory of its daemon.
    pub runtime: PathBuf,
    /// Where its daemon's output goes.
    pub log: PathBuf,
    /// What `obol run` is told besides.
    pub arguments: Vec<String>,
    binary: PathBuf,
    daemon: Option<Child>,
}

impl Host {
    fn new(
        binary: &Path,
        prefix: Option<&str>,
        directory: &Path,
        side: Side,
        peer: Side,
    ) -> io::Result<Self> {
        let netns = match prefix.map(|prefix| format!("{prefix}-{}", side.name)) {
            None => Netns::anonymous()?,
            Some(name) => {
                remove_leftovers(&name)?;
                Netns::named(&name)?
            }
        };
        // The network behind the host has no other members here, so it is on no other device.
        netns.configure(async |links| links.address("lo", IpAddr::V4(side.pod), 32).await)?;
        let host = Self::bare(binary, netns, directory, side)?;
        // The secret of the two is in the file, so it is nobody else's to read.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&host.config)?;
        file.write_all(configuration(side, peer).as_bytes())?;
        Ok(host)
    }

    /// A host in a namespace that somebody else wires up, without a configuration: its files are to be
    /// in `directory`.
    ///
    /// # Errors
    /// What the system refused.
    pub fn bare(binary: &Path, netns: Netns, directory: &Path, side: Side) -> io::Result<Self> {
        without_ipv6(&netns)?;
        let file = |extension| directory.join(format!("{}.{extension}", side.name));
        Ok(Self {
            side,
            netns,
            config: file("toml"),
            runtime: file("run"),
            log: file("log"),
            arguments: Vec::new(),
            binary: binary.to_owned(),
            daemon: None,
        })
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn start(&mut self) -> io::Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let mut command = self.command(&["run"]);
        command.args(&self.arguments);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // A Ctrl-C at the terminal is for the demo, which then ends its daemons in its own order.
        command.process_group(0);
        self.daemon = Some(self.netns.run(|| command.spawn())??);
        Ok(())
    }

    /// An `obol` command for this host's daemon. Run it inside the namespace.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(&self.config);
        command.arg("--runtime-dir").arg(&self.runtime);
        command.args(arguments).env_remove("OBOL_RUNTIME_DIR");
        command
    }

    /// Kills the daemon with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// `NotFound` if none runs.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        let mut daemon = self.daemon.take().ok_or_else(not_running)?;
        daemon.kill()?;
        daemon.wait()
    }

    /// Asks the daemon to end (SIGTERM), and waits; after `limit` it is killed.
    ///
    /// # Errors
    /// `NotFound` if none runs, `TimedOut` if it had to be killed.
    pub async fn stop(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let mut daemon = self.daemon.take().ok_or_else(not_running)?;
        rustix::process::kill_process(Pid::from_child(&daemon), Signal::TERM)?;
        let deadline = Instant::now() + limit;
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        while Instant::now() < deadline {
            ticks.tick().await;
            if let Some(status) = daemon.try_wait()? {
                return Ok(status);
            }
        }
        daemon.kill()?;
        daemon.wait()?;
        let what = format!(
            "the daemon on {} did not end within {limit:?}",
            self.side.name
        );
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    }

    /// What the daemon says of itself, as `obol status --json` prints it.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` if it does not listen; `Other` with what it answered.
    pub async fn status(&self) -> io::Result<serde_json::Value> {
        let data = self.ask(&Request::Status).await?;
        data.read().map_err(io::Error::other)
    }

    pub(crate) async fn report(&self) -> io::Result<StatusReport> {
        let data = self.ask(&Request::Status).await?;
        data.read().map_err(io::Error::other)
    }

    async fn ask(&self, request: &Request) -> io::Result<Data> {
        let stream = UnixStream::connect(self.runtime.join(SOCKET_NAME)).await?;
        let mut stream = BufReader::new(stream);
        stream
            .get_mut()
            .write_all(request.to_line().as_bytes())
            .await?;
        loop {
            let mut line = Vec::new();
            if stream.read_until(b'\n', &mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match Reply::from_line(&line).map_err(io::Error::other)? {
                Reply::Secret(_) | Reply::Progress(_) => {}
                Reply::Done(data) => return Ok(data),
                Reply::Failed(failure) => return Err(io::Error::other(failure)),
            }
        }
    }

    /// Waits until the daemon's status is as wanted, and returns it.
    ///
    /// # Errors
    /// A failure that says what was waited for, and what the daemon last wrote if it ended.
    pub(crate) async fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&StatusReport) -> bool,
    ) -> Result<StatusReport, Failure> {
        let deadline = Instant::now() + limit;
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            let report = self.report().await;
            match report {
                Ok(report) if wanted(&report) => return Ok(report),
                _ if Instant::now() < deadline && self.runs() => {}
                Ok(_) => return Err(self.failure(what, "it was not so in time")),
                Err(error) => return Err(self.failure(what, &error.to_string())),
            }
        }
    }

    /// Whether a child is up on this host, by a status report.
    pub(crate) fn has_child(report: &StatusReport, name: &str) -> bool {
        let mut children = report.ike_sas.iter().flat_map(|ike| &ike.children);
        children.any(|child| child.name == name && child.state == "installed")
    }

    /// Whether the daemon runs.
    pub fn runs(&mut self) -> bool {
        self.daemon
            .as_mut()
            .is_some_and(|daemon| matches!(daemon.try_wait(), Ok(None)))
    }

    fn failure(&mut self, what: &str, reason: &str) -> Failure {
        let name = self.side.name;
        let ended = match self.daemon.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => {
                format!("; the daemon on {name} ended with {}", words(status))
            }
            _ => String::new(),
        };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
        Failure::new(
            ExitClass::Failed,
            format!("waited on host {name} until {what}: {reason}{ended}; its last lines:\n{tail}"),
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nothing outlives the daemon but what is in the namespace, which ends as well.
        let _ = self.kill();
    }
}

/// How often a daemon is asked whether it is so far.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Lines of a log that are shown with a failure.
const LOG_TAIL: usize = 12;

/// The configuration of one host. The first half is what two hosts of anybody's would have; the
/// pair for the overlay shows a transport-mode flow in UDP.
#[must_use]
pub fn configuration(us: Side, peer: Side) -> String {
    let Side {
        address: local,
        network: local_network,
        id: local_id,
        ..
    } = us;
    let Side {
        address: remote,
        network: remote_network,
        id: remote_id,
        ..
    } = peer;
    format!(
        r#"[connections.hosts]
local_addrs  = ["{local}"]
remote_addrs = ["{remote}"]
local  = {{ auth = "psk", id = "{local_id}" }}
remote = {{ auth = "psk", id = "{remote_id}" }}

[connections.hosts.children.pods]
local_ts  = ["{local_network}"]
remote_ts = ["{remote_network}"]
start_action = "start"

[connections.hosts.children.mongodb-server]
mode = "transport"
local_ts  = ["{local}/32[tcp/{SERVICE}]"]
remote_ts = ["{remote}/32[tcp]"]
start_action = "trap"

[connections.hosts.children.mongodb-client]
mode = "transport"
local_ts  = ["{local}/32[tcp]"]
remote_ts = ["{remote}/32[tcp/{SERVICE}]"]
start_action = "trap"

[connections.hosts.children.vxlan-in]
mode = "transport"
local_ts  = ["{local}/32[udp/{OVERLAY_PORT}]"]
remote_ts = ["{remote}/32[udp]"]
start_action = "trap"

[connections.hosts.children.vxlan-out]
mode = "transport"
local_ts  = ["{local}/32[udp]"]
remote_ts = ["{remote}/32[udp/{OVERLAY_PORT}]"]
start_action = "trap"

[secrets.hosts]
type = "psk"
ids  = ["{local_id}", "{remote_id}"]
secret = "0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ="
"#
    )
}

/// A directory that only its owner can enter, removed when dropped unless it shall be kept.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    keep: bool,
}

impl Directory {
    /// Makes one where temporary files are.
    ///
    /// # Errors
    /// What the system refused.
    pub fn new() -> io::Result<Self> {
        let mut suffix = [0; 8];
        getrandom::fill(&mut suffix).map_err(io::Error::other)?;
        let name = format!("obol-demo-{:016x}", u64::from_ne_bytes(suffix));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, keep: false })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed is a few small files in the directory for such.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes a namespace of this name and ends the daemons in it: a demo was killed.
fn remove_leftovers(name: &str) -> io::Result<()> {
    let netns = match Netns::open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A file without a namespace: made, and then not bound.
        Err(_) => return Netns::delete_named(name).map(drop),
        Ok(netns) => netns,
    };
    for pid in netns.processes()? {
        let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // A shell that somebody has open there is theirs; the namespace lives as long as it.
        if let (Some(pid), "obol") = (Pid::from_raw(pid.cast_signed()), program.trim()) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    Netns::delete_named(name).map(drop)
}

/// IPv6 is not used here, and its neighbour discovery would be noise on the wire.
fn without_ipv6(netns: &Netns) -> io::Result<()> {
    for scope in ["all", "default"] {
        match netns.sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1") {
            // A kernel that has none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn not_running() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no daemon runs")
}

/// A lock that one demo at a time can hold; the system lets go of it when the process ends.
///
/// # Errors
/// `WouldBlock` if another holds it.
pub fn lock() -> io::Result<File> {
    let file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(LOCK)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

const LOCK: &str = "/run/obol-demo.lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_mirror_each_other() {
        let swap = |text: &str| {
            let mut text = text.to_owned();
            let pairs = [
                (A.address.to_string(), B.address.to_string()),
                (A.network.to_owned(), B.network.to_owned()),
                (A.id.to_owned(), B.id.to_owned()),
            ];
            for (a, b) in pairs {
                text = text.replace(&a, "\0").replace(&b, &a).replace('\0', &b);
            }
            text
        };
        assert_eq!(swap(&configuration(A, B)), configuration(B, A));
        assert_ne!(configuration(A, B), configuration(B, A));
    }

    #[test]
    fn a_directory_goes_with_its_value_unless_kept() {
        let mut kept = Directory::new().unwrap();
        let path = kept.path.clone();
        kept.keep = true;
        drop(kept);
        assert!(path.is_dir());
        drop(Directory {
            path: path.clone(),
            keep: false,
        });
        assert!(!path.exists());
    }
}
