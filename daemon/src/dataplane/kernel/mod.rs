//! The data plane of the kernel: XFRM states and policies, set over netlink.
//!
//! ```text
//!  configuration -> policies whose template no state fits: packets ask (ACQUIRE), or are dropped
//!  an SA         -> two states, and policies with its request ID in place of the former
//! ```
//!
//! Policies are in the kernel before any negotiation and stay when this process ends, however it
//! does. All that is ours has a request ID of our range ([`reqids`]), by which the next run knows
//! it. Requests are carried out at once by the kernel, in the order of the calls.

mod core;
mod drops;
mod flows;
mod leftovers;
mod natt;
mod news;
mod probe;
mod purge;
mod reqids;
mod sas;
mod selectors;
mod spd;
mod suite;
#[cfg(test)]
mod tests;

use std::time::Instant;

use obol_ike::event::{ChildSaId, InboundSa, MovedSa, OutboundSa};

use self::core::Core;
use super::{DataPlane, DataPlaneError, DataPlaneEvent, Doing, Policy, Usage};
use crate::host::HostSettings;
use crate::host::xfrm::{Notices, Socket};
use crate::ports::Ports;
use natt::Natt;
pub(crate) use probe::probe;
pub(crate) use purge::{Removed, protects, purge};

/// The data plane. When it is dropped, policies stay, and protect.
pub(crate) struct KernelDataPlane {
    core: Core<Socket>,
    notices: Notices,
    natt: Natt,
}

impl KernelDataPlane {
    /// Takes over what an earlier run left in the kernel, and has port 4500 take ESP in UDP. Must
    /// be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel has no XFRM, or a right is missing; nothing is changed.
    pub(crate) fn new(settings: HostSettings, ports: &Ports) -> Result<Self, DataPlaneError> {
        let kernel = open()?;
        let notices = Notices::listen(kernel.port())
            .map_err(|source| DataPlaneError::system("cannot listen to XFRM", source))?;
        ports.bypass_policies()?;
        let natt = Natt::new(ports.encapsulation())?;
        Ok(Self {
            core: Core::new(kernel, settings)?,
            notices,
            natt,
        })
    }

    /// With `keep_protection`, policies stay; else everything of ours goes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn teardown(self, keep_protection: bool) -> Result<(), DataPlaneError> {
        let settings = self.core.settings.clone();
        drop(self);
        if keep_protection {
            return Ok(());
        }
        purge(&settings).map(|_| ())
    }
}

fn open() -> Result<Socket, DataPlaneError> {
    Socket::open().map_err(|source| {
        let what = match source.raw_os_error() {
            Some(libc::EPROTONOSUPPORT) => {
                "this kernel has no XFRM (`modprobe xfrm_user`, or a kernel with CONFIG_XFRM_USER)"
            }
            _ => "cannot open a netlink socket for XFRM",
        };
        DataPlaneError::system(what, source)
    })
}

impl DataPlane for KernelDataPlane {
    async fn set_policies(&mut self, policies: Vec<Policy>) -> Result<(), DataPlaneError> {
        self.core.set_policies(policies, Instant::now())
    }

    fn add_inbound(&mut self, sa: InboundSa) -> Doing<()> {
        done(self.core.add_inbound(&sa))
    }

    fn use_outbound(&mut self, sa: OutboundSa) -> Doing<()> {
        done(self.core.use_outbound(&sa, Instant::now()))
    }

    fn move_path(&mut self, moved: MovedSa) -> Doing<()> {
        done(self.core.move_path(moved))
    }

    fn remove(&mut self, id: ChildSaId) -> Doing<Usage> {
        done(self.core.remove(id, Instant::now()))
    }

    fn usage(&self, id: ChildSaId) -> Option<Usage> {
        self.core.usage(id)
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        let mut drops = drops::read();
        drops.extend(self.natt.drops());
        drops
    }

    async fn next_event(&mut self) -> DataPlaneEvent {
        loop {
            if let Some(event) = self.core.events.pop_front() {
                return event;
            }
            let due = self.core.next_due();
            tokio::select! {
                biased;
                notice = self.notices.next() => self.core.notice(notice, Instant::now()),
                () = until(due) => return DataPlaneEvent::Maintain,
                event = self.natt.next() => return event,
            }
        }
    }

    async fn maintain(&mut self) {
        self.core.due(Instant::now());
    }

    fn name(&self) -> &'static str {
        "kernel"
    }
}

/// The kernel has answered already.
fn done<T: Send + 'static>(answer: Result<T, DataPlaneError>) -> Doing<T> {
    Box::pin(std::future::ready(answer))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
