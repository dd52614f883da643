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

mod bases;
mod core;
mod cover;
mod drops;
mod foreign;
mod leftovers;
mod more;
mod moving;
mod natt;
mod news;
mod offload;
mod probe;
mod purge;
mod reqids;
mod sas;
mod selectors;
mod spd;
mod suite;
#[cfg(test)]
mod tests;
mod used;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use obol_ike::config::Mode;
use obol_ike::event::{ChildSaId, InboundSa, MovedSa, OutboundSa};

use self::core::Core;
use super::{Cleartext, DataPlane, DataPlaneError, DataPlaneEvent, Doing, Policy, Usage};
use crate::host::xfrm::{Notices, Socket};
use crate::host::xfrm_link::{self, Interface};
use crate::host::{self, Carrier, HostSettings, LoadedTable};
use crate::ports::{Encapsulation, Ports};
pub(crate) use drops::UNKNOWN_SPI;
use natt::Natt;
pub(crate) use probe::Probe;
pub(crate) use purge::{Removed, protects, purge};

/// The data plane. When it is dropped, policies stay, and protect.
pub(crate) struct KernelDataPlane {
    core: Core<Socket>,
    /// As they were set last.
    policies: Vec<Policy>,
    /// The guard that was loaded for these.
    guard: Option<LoadedTable>,
    /// Policies were set: what an earlier run left is dealt with.
    settled: bool,
    /// When to see whether the guard is still loaded.
    guard_at: Instant,
    notices: Notices,
    natt: Natt,
}

/// How often the guard is looked for. A `flush ruleset` of somebody's firewall takes it away; the
/// kernel's policies hold until then.
const GUARD_EVERY: Duration = Duration::from_millis(500);

impl KernelDataPlane {
    /// Takes over what an earlier run left in the kernel, and has these sockets of port 4500 take ESP
    /// in UDP. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel has no XFRM, or a right is missing; nothing is changed.
    pub(crate) fn new(
        settings: HostSettings,
        ports: &Ports,
        natt: Encapsulation,
    ) -> Result<Self, DataPlaneError> {
        let kernel = open()?;
        let notices = Notices::listen(kernel.port())
            .map_err(|source| DataPlaneError::system("cannot listen to XFRM", source))?;
        ports.bypass_policies()?;
        natt.bypass_policies()?;
        let natt = Natt::new(natt)?;
        Ok(Self {
            core: Core::new(kernel, settings)?,
            policies: Vec::new(),
            guard: None,
            settled: false,
            guard_at: Instant::now() + GUARD_EVERY,
            notices,
            natt,
        })
    }

    /// Takes ESP in UDP from other sockets of port 4500 from now on. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn go_over(&mut self, natt: Encapsulation) -> Result<(), DataPlaneError> {
        natt.bypass_policies()?;
        self.natt.go_over(natt)
    }

    /// With `keep_protection`, policies stay; else everything of ours goes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) async fn teardown(self, keep_protection: bool) -> Result<(), DataPlaneError> {
        let settings = self.core.settings.clone();
        drop(self);
        if keep_protection {
            return Ok(());
        }
        purge(&settings).await?;
        host::remove_guard(&settings, Carrier::Kernel).map(|_| ())
    }

    /// Does it whole, or leaves policies as they were.
    async fn replace_policies(
        &mut self,
        policies: &[Policy],
        interfaces: &[Interface],
    ) -> Result<(), DataPlaneError> {
        let now = Instant::now();
        // Without policies it lets nothing pass.
        xfrm_link::make(&self.core.settings, interfaces).await?;
        self.core.set_policies(policies.to_vec(), now)?;
        if let Err(error) = self.guard(policies) {
            self.core.set_policies(self.policies.clone(), now)?;
            return Err(error);
        }
        Ok(())
    }

    /// Adds policies of children that have none, whose packets are of no other policy: only they are told to the
    /// kernel, where that will do.
    ///
    /// # Errors
    /// The kernel refuses; then all is as before.
    pub(crate) async fn add_policies(&mut self, more: &[Policy]) -> Result<(), DataPlaneError> {
        let are_closed = |policies: &[Policy]| {
            let mut all = policies.iter();
            all.all(|policy| !policy.pass && policy.clear.when == Cleartext::Never)
        };
        let for_tunnels = |policies: &[Policy]| policies.iter().any(|p| p.mode == Mode::Tunnel);
        let same_kind = are_closed(&self.policies)
            && are_closed(more)
            && interfaces(more).is_empty()
            && (for_tunnels(&self.policies) || !for_tunnels(more));
        if self.settled
            && same_kind
            && let Some(guard) = &mut self.guard
            && self.core.add_policies(more)?
            && let Ok(true) = host::add_to_guard(&self.core.settings, more, Carrier::Kernel, guard)
        {
            self.policies.extend_from_slice(more);
            return Ok(());
        }
        let all = [&self.policies[..], more].concat();
        self.set_policies(all).await
    }

    /// Loads the guard for these policies.
    fn guard(&mut self, policies: &[Policy]) -> Result<(), DataPlaneError> {
        let before = self.guard.take();
        let (settings, carrier) = (&self.core.settings, Carrier::Kernel);
        let loaded = host::load_guard(settings, policies, carrier, before.as_ref())?;
        self.guard = Some(loaded);
        Ok(())
    }

    async fn check_guard(&mut self) {
        match xfrm_link::make(&self.core.settings, &interfaces(&self.policies)).await {
            Ok(0) => {}
            Ok(count) => tracing::warn!(
                count,
                "somebody removed xfrm interfaces: they are made again"
            ),
            Err(error) => tracing::error!(%error, "an xfrm interface is missing"),
        }
        let checked = match host::blocked(&self.core.settings, Carrier::Kernel) {
            Ok(None) if !self.policies.is_empty() => {
                tracing::warn!("somebody removed the guard: it is loaded again");
                let policies = std::mem::take(&mut self.policies);
                let loaded = self.guard(&policies);
                self.policies = policies;
                loaded
            }
            checked => checked.map(|_| ()),
        };
        if let Err(error) = checked {
            tracing::error!(%error, "protection is not as it should be");
        }
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

/// Has the kernel drop what these policies name while no daemon runs, in place of what it dropped
/// before; the next daemon takes over.
///
/// # Errors
/// The kernel refuses; then all is as it was.
pub(crate) fn block(settings: HostSettings, policies: Vec<Policy>) -> Result<(), DataPlaneError> {
    let mut core = Core::new(open()?, settings)?;
    host::load_guard(&core.settings, &policies, Carrier::Kernel, None)?;
    core.set_policies(policies, Instant::now())
}

impl DataPlane for KernelDataPlane {
    async fn set_policies(&mut self, policies: Vec<Policy>) -> Result<(), DataPlaneError> {
        let (before, after) = (interfaces(&self.policies), interfaces(&policies));
        let done = self.replace_policies(&policies, &after).await;
        let kept = if done.is_ok() { &after } else { &before };
        if !(before.is_empty() && after.is_empty() && self.settled) {
            xfrm_link::remove_all_but(&self.core.settings, kept).await?;
        }
        done?;
        self.settled = true;
        self.policies = policies;
        Ok(())
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

    fn usages(&self, ids: &[ChildSaId]) -> HashMap<ChildSaId, Usage> {
        self.core.usages(ids)
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        let mut drops = drops::read();
        drops.extend(self.natt.drops());
        match host::blocked(&self.core.settings, Carrier::Kernel) {
            Ok(blocked) => {
                let blocked = blocked.unwrap_or_default();
                drops.push(("clear-out", blocked.out));
                drops.push(("clear-in", blocked.incoming));
            }
            Err(error) => tracing::warn!(%error, "the guard does not answer"),
        }
        drops
    }

    async fn next_event(&mut self) -> DataPlaneEvent {
        loop {
            if let Some(event) = self.core.events.pop_front() {
                return event;
            }
            let due = self
                .core
                .next_due()
                .map_or(self.guard_at, |at| at.min(self.guard_at));
            tokio::select! {
                biased;
                notice = self.notices.next() => self.core.notice(notice, Instant::now()),
                () = tokio::time::sleep_until(due.into()) => return DataPlaneEvent::Maintain,
                event = self.natt.next() => return event,
            }
        }
    }

    async fn maintain(&mut self) {
        let now = Instant::now();
        self.core.due(now);
        if self.guard_at <= now {
            self.check_guard().await;
            self.guard_at = now + GUARD_EVERY;
        }
    }

    fn name(&self) -> &'static str {
        "kernel"
    }
}

/// The xfrm interfaces that these children ask for.
fn interfaces(policies: &[Policy]) -> Vec<Interface> {
    let asked = policies.iter().filter_map(|policy| {
        let options = &policy.kernel;
        Some(Interface {
            name: options.interface.clone()?,
            if_id: options.if_id,
        })
    });
    asked.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The kernel has answered already.
fn done<T: Send + 'static>(answer: Result<T, DataPlaneError>) -> Doing<T> {
    Box::pin(std::future::ready(answer))
}
