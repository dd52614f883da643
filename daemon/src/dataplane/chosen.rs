//! The data planes that the configuration asks for: the kernel's, our own, or both side by side.
//!
//! Where there are both, each has the policies and SAs of its own connections. They do not meet: no
//! packet is of two connections, each plane has its own guard, and the [half](Which::half) that an SPI
//! is in says whose it is, which filters of the sockets look at.

use std::collections::HashMap;
use std::future::ready;

use obol_ike::event::{ChildSaId, EspSpi, InboundSa, MovedSa, OutboundSa};

use super::assign::{Assignment, Which, assign};
use super::kernel::{self, KernelDataPlane};
use super::user::UserDataPlane;
use super::{DataPlane, DataPlaneError, DataPlaneEvent, Doing, Policy, Usage, meeting};
use crate::config::{Loaded, is_narrower};
use crate::host::{self, Carrier, HostSettings};
use crate::ports::Ports;

/// Those that carry ESP.
pub(crate) struct Plane {
    kernel: Option<Box<KernelDataPlane>>,
    user: Option<Box<UserDataPlane>>,
    settings: HostSettings,
    probe: kernel::Probe,
    /// `None`: nothing was configured yet.
    assigned: Option<Assignment>,
    /// The policies of each, as they were set last.
    policies: Policies,
    /// Which has each SA.
    has: HashMap<ChildSaId, Which>,
    name: &'static str,
    why: String,
}

/// Policies by what carries them.
#[derive(Clone, Default)]
struct Policies {
    kernel: Vec<Policy>,
    user: Vec<Policy>,
}

impl Policies {
    fn split(policies: &[Policy], assigned: &Assignment) -> Self {
        // What passes is an exception to policies of either.
        let of = |which| {
            let own = |policy: &&Policy| policy.pass || assigned.of(&policy.connection).by == which;
            policies.iter().filter(own).cloned().collect()
        };
        Self {
            kernel: of(Which::Kernel),
            user: of(Which::User),
        }
    }

    fn is_empty(&self) -> bool {
        self.kernel.is_empty() && self.user.is_empty()
    }
}

/// Whether an earlier run left protection in place, by whichever data plane.
///
/// # Errors
/// The system does not tell.
pub(crate) fn protects(settings: &HostSettings) -> Result<bool, DataPlaneError> {
    for carrier in Carrier::ALL {
        if host::blocked(settings, carrier)?.is_some() {
            return Ok(true);
        }
    }
    kernel::protects(settings)
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
    /// Nothing is opened yet.
    pub(crate) fn new(settings: HostSettings, ports: &Ports) -> Self {
        let with_v6 = ports.encapsulation().v6.is_some();
        Self {
            kernel: None,
            user: None,
            probe: kernel::Probe::new(settings.clone(), with_v6),
            settings,
            assigned: None,
            policies: Policies::default(),
            has: HashMap::new(),
            name: "",
            why: String::new(),
        }
    }

    /// Removes what a data plane left that is not in use any more, once the other one protects.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) async fn replace_other(&self) -> Result<(), DataPlaneError> {
        if self.user.is_none() {
            let removed = host::purge_tun(&self.settings).await?;
            if removed != host::Removed::default() {
                tracing::info!(?removed, "what the userspace data plane left is removed");
            }
        }
        if self.kernel.is_none() {
            let removed = kernel::purge(&self.settings).await?;
            let guard = host::remove_guard(&self.settings, Carrier::Kernel)?;
            if guard || removed != kernel::Removed::default() {
                tracing::info!(?removed, "what the kernel data plane left is removed");
            }
        }
        Ok(())
    }

    /// Ends all; with `keep_protection`, what protects flows without SA stays.
    ///
    /// # Errors
    /// The system refuses; what could be removed is removed.
    pub(crate) async fn teardown(self, keep_protection: bool) -> Result<(), DataPlaneError> {
        let kernel = match self.kernel {
            Some(kernel) => kernel.teardown(keep_protection).await,
            None => Ok(()),
        };
        if let Some(user) = self.user {
            user.teardown(keep_protection).await?;
        }
        kernel
    }

    fn decide(&mut self, loaded: &Loaded) -> Result<Assignment, DataPlaneError> {
        let default = loaded.daemon.data_plane;
        let decide = |probe: &mut kernel::Probe| {
            assign(&loaded.ike, &loaded.data_planes, default, |children| {
                probe.carries(children)
            })
        };
        decide(&mut self.probe).or_else(|_| {
            // Perhaps somebody has loaded a module since it was tried.
            self.probe.forget_failures();
            decide(&mut self.probe)
        })
    }

    async fn open_user(&mut self, workers: usize, ports: &Ports) -> Result<(), DataPlaneError> {
        let by_kernel = self.kernel.is_some();
        let settings = self.settings.clone();
        let user = UserDataPlane::new(settings, ports, workers, by_kernel).await?;
        if let Some(kernel) = &mut self.kernel {
            kernel.go_over(user.share_with_kernel(ports)?)?;
        }
        self.user = Some(Box::new(user));
        Ok(())
    }

    fn open_kernel(&mut self, ports: &Ports) -> Result<(), DataPlaneError> {
        let natt = match &self.user {
            Some(user) => user.share_with_kernel(ports)?,
            None => ports.encapsulation(),
        };
        let kernel = KernelDataPlane::new(self.settings.clone(), ports, natt)?;
        self.kernel = Some(Box::new(kernel));
        Ok(())
    }

    /// Replaces all policies. What goes from one data plane to the other is in both for a moment, and
    /// in none at no time.
    async fn replace_policies(&mut self, wanted: Policies) -> Result<(), DataPlaneError> {
        let before = std::mem::take(&mut self.policies);
        let done = self.go_over(&before, &wanted).await;
        if done.is_ok() {
            self.policies = wanted;
            return Ok(());
        }
        // At start there is nothing to go back to, and what an earlier run left must stay.
        if !before.is_empty()
            && let Err(again) = self.go_over(&wanted, &before).await
        {
            tracing::error!(error = %again, "policies are not as they were");
        }
        self.policies = before;
        done
    }

    async fn go_over(&mut self, from: &Policies, to: &Policies) -> Result<(), DataPlaneError> {
        let leaving = leaving_kernel(&self.settings, from, to)?;
        if let Some(kernel) = &mut self.kernel {
            let both = [&to.kernel[..], &leaving].concat();
            kernel.set_policies(both).await?;
        }
        if let Some(user) = &mut self.user {
            user.set_policies(to.user.clone()).await?;
        }
        match &mut self.kernel {
            Some(kernel) if !leaving.is_empty() => kernel.set_policies(to.kernel.clone()).await,
            _ => Ok(()),
        }
    }

    fn one(&mut self, which: Option<Which>) -> One<'_> {
        match (which, &mut self.kernel, &mut self.user) {
            (Some(Which::Kernel), Some(kernel), _) => One::Kernel(kernel),
            (Some(Which::User), _, Some(user)) => One::User(user),
            _ => One::Neither,
        }
    }

    /// What has an SA with this SPI, or is to have it.
    fn of_spi(&self, spi: EspSpi) -> Which {
        match (&self.kernel, &self.user) {
            (Some(_), None) => Which::Kernel,
            (None, _) => Which::User,
            _ => Which::of(spi.half()),
        }
    }
}

/// Where policies are about the same packets, one data plane has to carry both, since neither knows of
/// the other's: rules would lead packets to the TUN that are the kernel's, or the kernel would seal what
/// is to go there. What passes is told to both.
fn check_one_plane(policies: &[Policy], assigned: &Assignment) -> Result<(), DataPlaneError> {
    let by = |policy: &Policy| assigned.of(&policy.connection).by;
    for (narrow, wide) in meeting(policies) {
        let (narrow, wide) = (&policies[narrow], &policies[wide]);
        if narrow.pass || wide.pass || by(wide) == by(narrow) {
            continue;
        }
        let inner = host::pairs(&narrow.local_ts, &narrow.remote_ts);
        let outer = host::pairs(&wide.local_ts, &wide.remote_ts);
        let mut outer = outer.iter();
        if outer.any(|wide| inner.iter().any(|narrow| is_narrower(narrow, wide))) {
            return Err(DataPlaneError::Refused(format!(
                "{}.{} lies within {}.{}, which the {} data plane carries: give both connections the same `dataplane`",
                narrow.connection,
                narrow.child,
                wide.connection,
                wide.child,
                by(wide).name()
            )));
        }
    }
    Ok(())
}

/// Policies that the kernel has until our own data plane has those that take their place.
fn leaving_kernel(
    settings: &HostSettings,
    from: &Policies,
    to: &Policies,
) -> Result<Vec<Policy>, DataPlaneError> {
    if from.is_empty() {
        // What an earlier run left there may be about any of them.
        let left = !to.user.is_empty() && !to.kernel.is_empty() && kernel::protects(settings)?;
        let blocking = |policy: &Policy| Policy {
            trap: false,
            clear: Default::default(),
            ..policy.clone()
        };
        return Ok(match left {
            true => to.user.iter().filter(|p| !p.pass).map(blocking).collect(),
            false => Vec::new(),
        });
    }
    if to.user.is_empty() {
        return Ok(Vec::new());
    }
    // Whatever they are called there.
    let name = |policy: &Policy| (policy.connection.clone(), policy.child.clone());
    let kept: HashMap<_, &Policy> = to.kernel.iter().map(|own| (name(own), own)).collect();
    let leaving = |policy: &&Policy| kept.get(&name(policy)) != Some(policy);
    Ok(from.kernel.iter().filter(leaving).cloned().collect())
}

/// Which of them is to do something.
enum One<'a> {
    Kernel(&'a mut KernelDataPlane),
    User(&'a mut UserDataPlane),
    Neither,
}

fn unknown<T: Send + 'static>() -> Doing<T> {
    Box::pin(ready(Err(DataPlaneError::Unknown)))
}

impl DataPlane for Plane {
    async fn set_policies(&mut self, policies: Vec<Policy>) -> Result<(), DataPlaneError> {
        let Some(assigned) = &self.assigned else {
            return Err(DataPlaneError::Refused("no configuration yet".to_owned()));
        };
        let wanted = Policies::split(&policies, assigned);
        self.replace_policies(wanted).await
    }

    fn add_inbound(&mut self, sa: InboundSa) -> Doing<()> {
        let which = self.of_spi(sa.info.spi_in);
        self.has.insert(sa.info.id, which);
        match self.one(Some(which)) {
            One::Kernel(kernel) => kernel.add_inbound(sa),
            One::User(user) => user.add_inbound(sa),
            One::Neither => unknown(),
        }
    }

    fn use_outbound(&mut self, sa: OutboundSa) -> Doing<()> {
        let which = self.of_spi(sa.info.spi_in);
        self.has.insert(sa.info.id, which);
        match self.one(Some(which)) {
            One::Kernel(kernel) => kernel.use_outbound(sa),
            One::User(user) => user.use_outbound(sa),
            One::Neither => unknown(),
        }
    }

    fn move_path(&mut self, moved: MovedSa) -> Doing<()> {
        let which = self.has.get(&moved.id).copied();
        match self.one(which) {
            One::Kernel(kernel) => kernel.move_path(moved),
            One::User(user) => user.move_path(moved),
            One::Neither => unknown(),
        }
    }

    fn remove(&mut self, id: ChildSaId) -> Doing<Usage> {
        let which = self.has.remove(&id);
        match self.one(which) {
            One::Kernel(kernel) => kernel.remove(id),
            One::User(user) => user.remove(id),
            One::Neither => unknown(),
        }
    }

    fn usage(&self, id: ChildSaId) -> Option<Usage> {
        match self.has.get(&id)? {
            Which::Kernel => self.kernel.as_ref()?.usage(id),
            Which::User => self.user.as_ref()?.usage(id),
        }
    }

    fn usages(&self, ids: &[ChildSaId]) -> HashMap<ChildSaId, Usage> {
        let of = |which: Which| {
            let own = ids.iter().filter(|id| self.has.get(id) == Some(&which));
            own.copied().collect::<Vec<_>>()
        };
        let kernel = self.kernel.as_ref();
        let mut usages = kernel.map_or_else(HashMap::new, |k| k.usages(&of(Which::Kernel)));
        if let Some(user) = &self.user {
            usages.extend(user.usages(&of(Which::User)));
        }
        usages
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        let user = self.user.as_ref().map(|user| user.drops());
        let mut kernel = self.kernel.as_ref().map_or_else(Vec::new, |k| k.drops());
        if user.is_some() {
            // The kernel does not know the SPIs of packets that our own opens, and counts each.
            kernel.retain(|(reason, _)| *reason != kernel::UNKNOWN_SPI);
        }
        kernel.extend(user.unwrap_or_default());
        kernel
    }

    async fn next_event(&mut self) -> DataPlaneEvent {
        tokio::select! {
            event = next_of(&mut self.kernel) => event,
            event = next_of(&mut self.user) => event,
        }
    }

    async fn maintain(&mut self) {
        // Whichever has nothing to do does nothing.
        if let Some(kernel) = &mut self.kernel {
            kernel.maintain().await;
        }
        if let Some(user) = &mut self.user {
            user.maintain().await;
        }
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn why(&self) -> &str {
        &self.why
    }

    fn carrier(&self, connection: &str) -> (&'static str, &str) {
        match &self.assigned {
            Some(assigned) => {
                let carried = assigned.of(connection);
                (carried.by.name(), &carried.why)
            }
            None => (self.name, &self.why),
        }
    }

    fn holder(&self, id: ChildSaId) -> &'static str {
        self.has.get(&id).map_or(self.name, |which| which.name())
    }

    /// Where there is one data plane, and it carries what is new.
    async fn take_more(&mut self, addition: &mut Loaded) -> Result<bool, DataPlaneError> {
        let open = match (&self.kernel, &self.user) {
            (Some(_), None) => Which::Kernel,
            (None, Some(_)) => Which::User,
            _ => return Ok(false),
        };
        let Ok(new) = self.decide(addition) else {
            return Ok(false);
        };
        if self.assigned.is_none() || !new.is_all(open) {
            return Ok(false);
        }
        let more = &addition.policies;
        if let Some(user) = &mut self.user {
            user.add_policies(more).await?;
            self.policies.user.extend_from_slice(more);
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.add_policies(more).await?;
            self.policies.kernel.extend_from_slice(more);
        }
        new.mark(&mut addition.ike);
        if let Some(assigned) = &mut self.assigned {
            assigned.add(new);
        }
        Ok(true)
    }

    /// Decides what carries each connection, which its SPIs will tell, and opens what is not open yet.
    /// What is open stays so.
    async fn take_over(
        &mut self,
        loaded: &mut Loaded,
        ports: &Ports,
    ) -> Result<(), DataPlaneError> {
        let assigned = self.decide(loaded)?;
        let needed = assigned.planes();
        if needed.len() > 1 {
            check_one_plane(&loaded.policies, &assigned)?;
        }
        if needed.contains(&Which::User) && self.user.is_none() {
            self.open_user(assigned.workers(&loaded.ike), ports).await?;
        }
        if needed.contains(&Which::Kernel) && self.kernel.is_none() {
            self.open_kernel(ports)?;
        }
        let wanted = Policies::split(&loaded.policies, &assigned);
        self.replace_policies(wanted).await?;
        assigned.mark(&mut loaded.ike);
        let (name, why) = assigned.summary();
        let before = self.assigned.take();
        if needed.len() > 1 {
            for (connection, carried) in assigned.connections() {
                if before.as_ref().map(|before| before.of(connection)) != Some(carried) {
                    let (dataplane, why) = (carried.by.name(), &carried.why);
                    tracing::info!(%connection, dataplane, why, "data plane of a connection");
                }
            }
        }
        self.assigned = Some(assigned);
        if (name, &*why) != (self.name, &*self.why) {
            tracing::info!(dataplane = name, why, "data plane");
        }
        (self.name, self.why) = (name, why);
        Ok(())
    }
}

async fn next_of(plane: &mut Option<Box<impl DataPlane>>) -> DataPlaneEvent {
    match plane {
        Some(plane) => plane.next_event().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use obol_ike::config::Mode;

    use super::*;
    use crate::config::files::NoFiles;
    use crate::config::parse_str;
    use crate::dataplane::KernelOptions;

    fn policy(connection: &str, remote: &str) -> Policy {
        Policy {
            connection: connection.into(),
            child: "net".into(),
            mode: Mode::Tunnel,
            local_ts: vec!["10.0.0.0/16".parse().unwrap()],
            remote_ts: vec![remote.parse().unwrap()],
            trap: true,
            pass: false,
            narrower: false,
            clear: Default::default(),
            kernel: KernelOptions::default(),
        }
    }

    #[test]
    fn what_lies_within_another_is_of_the_same_data_plane() {
        let text = |plane: &str| {
            let connection = |name: &str, plane: &str, remote: &str| {
                format!(
                    "[connections.{name}]\nremote_addrs = [\"192.0.2.{}\"]\ndataplane = \"{plane}\"\n\
                     local = {{ auth = \"psk\", id = \"@l\" }}\nremote = {{ auth = \"psk\", id = \"@{name}\" }}\n\
                     [connections.{name}.children.net]\nlocal_ts = [\"10.0.0.0/16\"]\nremote_ts = [\"{remote}\"]\n",
                    name.len()
                )
            };
            format!(
                "{}{}[secrets.s]\ntype = \"psk\"\nsecret = \"0sdm0tc2VjcmV0LXZtLXNlY3JldA==\"\n\
                 [pass.p]\nlocal_ts = [\"10.0.0.0/16\"]\nremote_ts = [\"10.1.2.3\"]\n",
                connection("wide", "kernel", "10.1.0.0/16"),
                connection("narrow", plane, "10.1.2.0/24"),
            )
        };
        let checked = |plane: &str| {
            let loaded = parse_str("t.toml", &text(plane), &NoFiles).unwrap();
            let default = loaded.daemon.data_plane;
            let assigned = assign(&loaded.ike, &loaded.data_planes, default, |_| Ok(())).unwrap();
            check_one_plane(&loaded.policies, &assigned).map_err(|error| error.to_string())
        };
        assert_eq!(checked("kernel"), Ok(()));
        let refused = checked("userspace").unwrap_err();
        assert!(
            refused.starts_with("narrow.net lies within wide.net"),
            "{refused}"
        );
    }

    #[test]
    fn the_kernel_keeps_what_goes_until_the_other_has_it() {
        let settings = HostSettings::for_tests();
        let stays = policy("stays", "10.1.0.0/16");
        let (goes, changes) = (
            policy("goes", "10.2.0.0/16"),
            policy("changes", "10.3.0.0/16"),
        );
        let from = Policies {
            kernel: vec![stays.clone(), goes.clone(), changes.clone()],
            user: Vec::new(),
        };
        let mut to = Policies {
            kernel: vec![stays, policy("changes", "10.4.0.0/16")],
            // The packets of what goes, under another name.
            user: vec![policy("other", "10.2.0.0/16")],
        };
        let leaving = leaving_kernel(&settings, &from, &to).unwrap();
        assert_eq!(leaving, [goes, changes]);
        // Nobody takes anything over.
        to.user.clear();
        assert_eq!(leaving_kernel(&settings, &from, &to).unwrap(), []);
    }
}
