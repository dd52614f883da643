//! The data plane that the configuration names, or the best that this host has.

use std::collections::HashMap;

use obol_ike::config::Config;
use obol_ike::event::{ChildSaId, InboundSa, MovedSa, OutboundSa};

use super::kernel::{self, KernelDataPlane};
use super::user::UserDataPlane;
use super::{DataPlane, DataPlaneError, DataPlaneEvent, Doing, Policy, Usage};
use crate::config::DataPlaneChoice;
use crate::host::{self, HostSettings};
use crate::ports::Ports;

/// The one that carries ESP.
pub(crate) struct Plane {
    kind: Kind,
    settings: HostSettings,
    why: String,
}

enum Kind {
    Kernel(Box<KernelDataPlane>),
    User(Box<UserDataPlane>),
}

/// Opens the data plane. Must be called within a tokio runtime.
///
/// # Errors
/// It cannot be opened; nothing is left behind.
pub(crate) async fn open(
    choice: DataPlaneChoice,
    settings: HostSettings,
    config: &Config,
    ports: &Ports,
) -> Result<Plane, DataPlaneError> {
    let with_v6 = ports.encapsulation().v6.is_some();
    let workers = most_queues(config);
    let probed = || match workers {
        1 => kernel::probe(&settings, config, with_v6),
        _ => Err(DataPlaneError::Refused(
            "several queues of a child need the userspace data plane".to_owned(),
        )),
    };
    let (by_kernel, why) = match choice {
        DataPlaneChoice::Userspace => (false, "configured".to_owned()),
        DataPlaneChoice::Kernel => {
            probed()?;
            (true, "configured".to_owned())
        }
        DataPlaneChoice::Auto => match probed() {
            Ok(()) => (true, "auto: the kernel takes what is configured".to_owned()),
            Err(error) => (false, format!("auto: the kernel cannot: {error}")),
        },
    };
    let kind = if by_kernel {
        Kind::Kernel(Box::new(KernelDataPlane::new(settings.clone(), ports)?))
    } else {
        let user = UserDataPlane::new(settings.clone(), ports, workers).await?;
        Kind::User(Box::new(user))
    };
    let plane = Plane {
        kind,
        settings,
        why,
    };
    tracing::info!(dataplane = plane.name(), why = plane.why, "data plane");
    Ok(plane)
}

/// The queues of the child that has most (RFC 9611).
pub(crate) fn most_queues(config: &Config) -> usize {
    let connections = config.connections.iter();
    let children = connections.flat_map(|connection| &connection.children);
    let queues = children.map(|child| usize::from(child.queues)).max();
    queues.unwrap_or(1).max(1)
}

/// Whether an earlier run left protection in place, by whichever data plane.
///
/// # Errors
/// The system does not tell.
pub(crate) fn protects(settings: &HostSettings) -> Result<bool, DataPlaneError> {
    Ok(host::blocked(settings)?.is_some() || kernel::protects(settings)?)
}

/// Removes every trace of both data planes: flows that were protected pass in clear from then on.
///
/// # Errors
/// The system refuses; what was removed until then is gone.
pub(crate) async fn purge(
    settings: &HostSettings,
) -> Result<(host::Removed, kernel::Removed), DataPlaneError> {
    let by_kernel = kernel::purge(settings).await?;
    Ok((host::purge(settings).await?, by_kernel))
}

impl Plane {
    /// Removes what the other data plane left, once this one protects.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) async fn replace_other(&self) -> Result<(), DataPlaneError> {
        match &self.kind {
            Kind::Kernel(_) => {
                let removed = host::unsteer(&self.settings).await?;
                if removed != host::Removed::default() {
                    tracing::info!(?removed, "what the userspace data plane left is removed");
                }
            }
            Kind::User(_) => {
                let removed = kernel::purge(&self.settings).await?;
                if removed != kernel::Removed::default() {
                    tracing::info!(?removed, "what the kernel data plane left is removed");
                }
            }
        }
        Ok(())
    }

    /// Ends it; with `keep_protection`, what protects flows without SA stays.
    ///
    /// # Errors
    /// The system refuses; what could be removed is removed.
    pub(crate) async fn teardown(self, keep_protection: bool) -> Result<(), DataPlaneError> {
        match self.kind {
            Kind::Kernel(kernel) => kernel.teardown(keep_protection).await,
            Kind::User(user) => user.teardown(keep_protection).await,
        }
    }
}

impl DataPlane for Plane {
    async fn set_policies(&mut self, policies: Vec<Policy>) -> Result<(), DataPlaneError> {
        match &mut self.kind {
            Kind::Kernel(kernel) => kernel.set_policies(policies).await,
            Kind::User(user) => user.set_policies(policies).await,
        }
    }

    fn add_inbound(&mut self, sa: InboundSa) -> Doing<()> {
        match &mut self.kind {
            Kind::Kernel(kernel) => kernel.add_inbound(sa),
            Kind::User(user) => user.add_inbound(sa),
        }
    }

    fn use_outbound(&mut self, sa: OutboundSa) -> Doing<()> {
        match &mut self.kind {
            Kind::Kernel(kernel) => kernel.use_outbound(sa),
            Kind::User(user) => user.use_outbound(sa),
        }
    }

    fn move_path(&mut self, moved: MovedSa) -> Doing<()> {
        match &mut self.kind {
            Kind::Kernel(kernel) => kernel.move_path(moved),
            Kind::User(user) => user.move_path(moved),
        }
    }

    fn remove(&mut self, id: ChildSaId) -> Doing<Usage> {
        match &mut self.kind {
            Kind::Kernel(kernel) => kernel.remove(id),
            Kind::User(user) => user.remove(id),
        }
    }

    fn usage(&self, id: ChildSaId) -> Option<Usage> {
        match &self.kind {
            Kind::Kernel(kernel) => kernel.usage(id),
            Kind::User(user) => user.usage(id),
        }
    }

    fn usages(&self, ids: &[ChildSaId]) -> HashMap<ChildSaId, Usage> {
        match &self.kind {
            Kind::Kernel(kernel) => kernel.usages(ids),
            Kind::User(user) => user.usages(ids),
        }
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        match &self.kind {
            Kind::Kernel(kernel) => kernel.drops(),
            Kind::User(user) => user.drops(),
        }
    }

    async fn next_event(&mut self) -> DataPlaneEvent {
        match &mut self.kind {
            Kind::Kernel(kernel) => kernel.next_event().await,
            Kind::User(user) => user.next_event().await,
        }
    }

    async fn maintain(&mut self) {
        match &mut self.kind {
            Kind::Kernel(kernel) => kernel.maintain().await,
            Kind::User(user) => user.maintain().await,
        }
    }

    fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Kernel(kernel) => kernel.name(),
            Kind::User(user) => user.name(),
        }
    }

    fn why(&self) -> &str {
        &self.why
    }
}
