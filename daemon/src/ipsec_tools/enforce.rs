//! The policies of setkey hold without a daemon: the system drops what they name, until one runs
//! and takes over.

use obol_ike::config::Mode;

use super::Here;
use crate::config::{self, DaemonSettings, DataPlaneChoice};
use crate::dataplane::{self, DataPlaneError, KernelOptions, Policy};
use crate::error::{ExitClass, Failure};
use crate::host::{self, Carrier, HostSettings};
use crate::racoon::Sides;
use crate::run::system;

/// What stands where a connection has its name: none of obol's names has brackets.
const CONNECTION: &str = "[setkey]";

/// Has the system drop these packets, in both directions, and what was dropped before and is not
/// among them no more. All at once, or nothing.
///
/// # Errors
/// The configuration of obol's own is wrong, or the system refuses; then all is as it was.
pub(super) fn enforce(here: &Here, closed: &[Sides]) -> Result<(), Failure> {
    let settings = settings(here)?;
    let host = settings.host();
    let policies: Vec<Policy> = closed.iter().enumerate().map(policy).collect();
    if policies.is_empty() {
        return open(&host);
    }
    let done = match carrier(&settings, &host).map_err(refused)? {
        Carrier::Kernel => dataplane::kernel::block(host.clone(), policies),
        Carrier::Tun => host::load_guard(&host, &policies, Carrier::Tun, None).map(|_| ()),
    };
    done.map_err(refused)?;
    // What a daemon that is dead led into its TUN would be dropped, named by a policy or not.
    let stopped = runtime()?.block_on(host::stop_steering(&host));
    stopped.map(|_| ()).map_err(refused)
}

/// Without policies everything passes.
fn open(host: &HostSettings) -> Result<(), Failure> {
    let purged = runtime()?.block_on(dataplane::purge(host));
    purged.map(|_| ()).map_err(refused)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::system("cannot start", &e))
}

/// The `[daemon]` table of obol's own file, or what holds without one.
fn settings(here: &Here) -> Result<DaemonSettings, Failure> {
    match here.config.exists() {
        true => config::load_daemon(&here.config)
            .map_err(|errors| Failure::new(ExitClass::Config, errors.to_string())),
        false => Ok(DaemonSettings::default()),
    }
}

/// The data plane that the next daemon will use; where that is open, the one that the last one used.
fn carrier(settings: &DaemonSettings, host: &HostSettings) -> Result<Carrier, DataPlaneError> {
    let by_kernel = match settings.data_plane {
        DataPlaneChoice::Kernel => true,
        DataPlaneChoice::Userspace => false,
        DataPlaneChoice::Auto => host::blocked(host, Carrier::Kernel)?.is_some(),
    };
    Ok(if by_kernel {
        Carrier::Kernel
    } else {
        Carrier::Tun
    })
}

fn policy((at, (local, remote)): (usize, &Sides)) -> Policy {
    Policy {
        connection: CONNECTION.to_owned(),
        child: format!("policy-{at}"),
        // Whatever goes through ESP later, nothing passes now.
        mode: Mode::Transport,
        local_ts: vec![*local],
        remote_ts: vec![*remote],
        trap: false,
        pass: false,
        narrower: false,
        clear: Default::default(),
        kernel: KernelOptions::default(),
    }
}

fn refused(error: DataPlaneError) -> Failure {
    let mut failure = system(error);
    if failure.code == ExitClass::NotPermitted {
        failure
            .message
            .push_str("; run it as root, or with CAP_NET_ADMIN");
    }
    failure
}
