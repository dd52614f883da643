//! Removing every trace of obol from the host.

use super::netlink::Netlink;
use super::steering::delete_link;
use super::{Carrier, HostSettings, guard, route, rule};
use crate::dataplane::DataPlaneError;

/// What [`purge`] found and removed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Removed {
    /// Routing rules.
    pub(crate) rules: usize,
    /// Routes of our table.
    pub(crate) routes: usize,
    /// The TUN device.
    pub(crate) tun: bool,
    /// A guard: an nftables table.
    pub(crate) guard: bool,
}

/// Removes rules, routes and the TUN device that these settings name, and at last the guards of both
/// data planes: flows that were protected pass in clear from then on.
///
/// # Errors
/// The system refuses; what was removed until then is gone.
pub(crate) async fn purge(settings: &HostSettings) -> Result<Removed, DataPlaneError> {
    let mut removed = purge_tun(settings).await?;
    removed.guard |= guard::remove(settings, Carrier::Kernel)?;
    Ok(removed)
}

/// Removes rules, routes and the TUN device that these settings name, and at last its guard.
///
/// # Errors
/// As [`purge`].
pub(crate) async fn purge_tun(settings: &HostSettings) -> Result<Removed, DataPlaneError> {
    let (rules, routes) = stop_steering(settings).await?;
    let tun = delete_link(&Netlink::connect()?, &settings.tun).await?;
    let guard = guard::remove(settings, Carrier::Tun)?;
    Ok(Removed {
        rules,
        routes,
        tun,
        guard,
    })
}

/// Removes rules and routes: packets go where they would without us, and the guard sees them there. How
/// many of each there were.
///
/// # Errors
/// As [`purge`].
pub(crate) async fn stop_steering(
    settings: &HostSettings,
) -> Result<(usize, usize), DataPlaneError> {
    let netlink = Netlink::connect()?;
    let rules = rule::purge(&netlink, settings.rule_priority).await?;
    Ok((rules, route::purge(&netlink, settings.table).await?))
}

/// Removes our routes, as somebody else might.
#[cfg(test)]
pub(crate) async fn remove_routes(settings: &HostSettings) -> Result<usize, DataPlaneError> {
    route::purge(&Netlink::connect()?, settings.table).await
}

/// Removes our rules, as somebody else might.
#[cfg(test)]
pub(crate) async fn remove_rules(settings: &HostSettings) -> Result<usize, DataPlaneError> {
    rule::purge(&Netlink::connect()?, settings.rule_priority).await
}
