//! Steering: keeps rules and routes of the host as the policies want them.

use std::fs;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::TryStreamExt as _;
use obol_ike::config::Mode;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};

use super::address::addresses;
use super::netlink::{Netlink, gone, refused};
use super::plan::{Plan, plan};
use super::{HostSettings, LoadedTable, guard, route, rule};
use crate::dataplane::{Cleartext, DataPlaneError, Policy};

/// Longest packet in octets that fits where no device says otherwise: Ethernet.
const DEFAULT_MTU: u32 = 1500;

/// MTU of the TUN device in octets. Long, because the system must not fragment what goes out in
/// transport mode (tunnel-mode routes have an MTU of their own); short enough that the sealed
/// packet still is an IP packet.
const TUN_MTU: u32 = 65_400;

/// Frames that wait in the TUN device until they are read: of as many hosts as a policy asks for at once, all
/// of which may begin at the same moment, there is a first packet or two. The system's own 500 lost some.
const TUN_QUEUE: u32 = 2048;

/// Brings the TUN device up; its index. It gets no address.
///
/// # Errors
/// The system refuses.
pub(crate) async fn bring_up(name: &str) -> Result<u32, DataPlaneError> {
    let netlink = Netlink::connect()?;
    let index = link_index(&netlink, name)
        .await?
        .ok_or_else(|| DataPlaneError::Refused(format!("the TUN device {name} is gone")))?;
    // What is opened was authenticated; where it may go is for routes and filters to say. The
    // stronger of a device's value and that of `all` counts, and 2 (loose) is stronger than 1
    // (strict), which fails where only some ports of a host are steered.
    let strict = setting("all", "ipv4", "rp_filter").is_some_and(|all| all == "1");
    configure(name, "ipv4", "rp_filter", if strict { "2" } else { "0" });
    // No link-local address, and so no router solicitations into the tunnel.
    configure(name, "ipv6", "addr_gen_mode", "1");
    let message = LinkUnspec::new_with_index(index)
        .mtu(TUN_MTU)
        .append_extra_attribute(LinkAttribute::TxQueueLen(TUN_QUEUE))
        .up()
        .build();
    let request = netlink.link().set(message);
    request
        .execute()
        .await
        .map_err(|error| refused(format!("cannot bring {name} up"), error))?;
    Ok(index)
}

/// What the system was last told for a set of policies.
#[derive(Debug)]
pub(crate) struct Applied {
    tun: u32,
    guard: LoadedTable,
    plan: Plan,
    /// What the plan was made for besides policies.
    own: Vec<IpAddr>,
    path_mtu: u32,
    /// Whether nothing of them may pass in clear.
    closed: bool,
    /// Whether some are for tunnels.
    with_tunnels: bool,
}

/// Makes guard, rules and routes be what the policies want. What is new is added before what is
/// stale goes; the guard first, blackholes before the rules that lead to them, routes into the
/// TUN last. What an earlier run left is adopted. Where all of what was there `before` stays, the
/// system is told no more than what is new.
///
/// # Errors
/// The system refuses; what was added until then stays, and protects.
pub(crate) async fn apply(
    settings: &HostSettings,
    tun: u32,
    policies: &[Policy],
    before: Option<Applied>,
) -> Result<Applied, DataPlaneError> {
    let netlink = Netlink::connect()?;
    let own = own_addresses().await?;
    let path_mtu = path_mtu(settings, &netlink).await?;
    let plan = plan(settings, policies, &own, path_mtu)?;
    let before = before.filter(|before| before.tun == tun);
    let known = before.as_ref().map(|before| &before.guard);
    let guard = guard::load(settings, policies, guard::Carrier::Tun, known)?;
    let more = before.and_then(|before| plan.added_to(&before.plan));
    let added = match &more {
        Some(more) => add_planned(settings, &netlink, tun, more).await.is_ok(),
        None => false,
    };
    if !added {
        let blackholes = plan.blackholes.iter().copied();
        route::add_blackholes(&netlink, settings.table, blackholes).await?;
        rule::sync(&netlink, settings.rule_priority, &plan.rules).await?;
        route::sync(&netlink, settings.table, tun, &plan).await?;
    }
    tell_of_strict_filters(settings, policies);
    Ok(Applied {
        tun,
        guard,
        plan,
        own,
        path_mtu,
        closed: are_closed(policies),
        with_tunnels: have_tunnels(policies),
    })
}

/// Tells the system of further policies, which have no packets in common with those before; `false`: it
/// has to be told of all, and perhaps it was told of some.
///
/// # Errors
/// The system refuses; what was added until then stays, and protects.
pub(crate) async fn add(
    settings: &HostSettings,
    tun: u32,
    policies: &[Policy],
    applied: &mut Applied,
) -> Result<bool, DataPlaneError> {
    let same_kind = applied.tun == tun
        && applied.closed
        && are_closed(policies)
        && (applied.with_tunnels || !have_tunnels(policies));
    if !same_kind || applied.own != own_addresses().await? {
        return Ok(false);
    }
    let (own, path_mtu) = (&applied.own, applied.path_mtu);
    let Some(more) = applied.plan.more(settings, policies, own, path_mtu) else {
        return Ok(false);
    };
    if !guard::add(settings, policies, guard::Carrier::Tun, &mut applied.guard)? {
        return Ok(false);
    }
    add_planned(settings, &Netlink::connect()?, tun, &more).await?;
    applied.plan.add(more);
    Ok(true)
}

/// Nothing passes in clear by these policies, now or at other times.
fn are_closed(policies: &[Policy]) -> bool {
    let is_closed = |policy: &Policy| !policy.pass && policy.clear.when == Cleartext::Never;
    policies.iter().all(is_closed)
}

fn have_tunnels(policies: &[Policy]) -> bool {
    policies.iter().any(|policy| policy.mode == Mode::Tunnel)
}

/// Addresses of this host that others may know.
async fn own_addresses() -> Result<Vec<IpAddr>, DataPlaneError> {
    let mut own = addresses().await?;
    own.retain(|address| !address.is_loopback() && !is_link_local(*address));
    Ok(own)
}

/// Adds rules and routes to those that are there.
async fn add_planned(
    settings: &HostSettings,
    netlink: &Netlink,
    tun: u32,
    more: &Plan,
) -> Result<(), DataPlaneError> {
    let blackholes = more.blackholes.iter().copied();
    route::add_blackholes(netlink, settings.table, blackholes).await?;
    rule::add_all(netlink, &more.rules).await?;
    route::add_all(netlink, settings.table, tun, &more.routes).await
}

/// Removes the device, if there is one; whether there was.
///
/// # Errors
/// The system refuses.
pub(crate) async fn delete_link(netlink: &Netlink, name: &str) -> Result<bool, DataPlaneError> {
    let Some(index) = link_index(netlink, name).await? else {
        return Ok(false);
    };
    match netlink.link().del(index).execute().await {
        Err(error) if gone(&error) => Ok(false),
        done => done
            .map(|()| true)
            .map_err(|error| refused(format!("cannot delete {name}"), error)),
    }
}

async fn link_index(netlink: &Netlink, name: &str) -> Result<Option<u32>, DataPlaneError> {
    Ok(links(netlink).await?.iter().find_map(|link| {
        let named = LinkAttribute::IfName(name.to_owned());
        link.attributes
            .contains(&named)
            .then_some(link.header.index)
    }))
}

/// All devices.
pub(super) async fn links(netlink: &Netlink) -> Result<Vec<LinkMessage>, DataPlaneError> {
    let list = netlink.link().get().execute();
    list.try_collect()
        .await
        .map_err(|error| refused("cannot list the devices", error))
}

/// Longest packet in octets that passes between the hosts, ESP included.
pub(super) async fn path_mtu(
    settings: &HostSettings,
    netlink: &Netlink,
) -> Result<u32, DataPlaneError> {
    match settings.mtu {
        Some(mtu) => Ok(mtu),
        None => default_mtu(netlink).await,
    }
}

/// The smallest MTU of the devices that default routes lead to.
async fn default_mtu(netlink: &Netlink) -> Result<u32, DataPlaneError> {
    let mut devices = Vec::new();
    for message in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let routes: Result<Vec<RouteMessage>, _> =
            netlink.route().get(message).execute().try_collect().await;
        // A family that this host lacks has no default route.
        for route in routes.unwrap_or_default() {
            if route.header.destination_prefix_length == 0 && route::in_main(&route) {
                devices.extend(
                    route
                        .attributes
                        .iter()
                        .filter_map(|attribute| match attribute {
                            RouteAttribute::Oif(index) => Some(*index),
                            _ => None,
                        }),
                );
            }
        }
    }
    let links = links(netlink).await?;
    let led_to = links
        .iter()
        .filter(|link| devices.contains(&link.header.index));
    let mtus = led_to
        .flat_map(|link| &link.attributes)
        .filter_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
    Ok(mtus.min().unwrap_or(DEFAULT_MTU))
}

/// Packets that come in in clear, where their answers would go into the TUN, are what a strict reverse
/// path filter drops.
fn tell_of_strict_filters(settings: &HostSettings, policies: &[Policy]) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let v4 = |policy: &Policy| policy.local_ts.iter().any(|ts| ts.start.is_ipv4());
    if !policies.iter().any(|policy| policy.clear.now && v4(policy)) {
        return;
    }
    let value = |device: &str| -> u8 {
        let text = setting(device, "ipv4", "rp_filter");
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let all = value("all");
    let devices = fs::read_dir("/proc/sys/net/ipv4/conf")
        .into_iter()
        .flatten();
    let names = devices.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let strict: Vec<String> = names
        .filter(|name| !["all", "default", "lo", &settings.tun].contains(&name.as_str()))
        .filter(|name| value(name).max(all) == 1)
        .collect();
    if !strict.is_empty() && !TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            devices = strict.join(" "),
            "a strict reverse path filter drops packets that come in in clear: set net.ipv4.conf.all.rp_filter=2 (loose), or use the kernel's data plane"
        );
    }
}

fn configure(device: &str, family: &str, key: &str, value: &str) {
    if setting(device, family, key).is_some_and(|present| present == value) {
        return;
    }
    let path = setting_path(device, family, key);
    match fs::write(&path, value) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path, value, %error, "a setting of the TUN device stays as it is");
        }
        _ => {}
    }
}

fn setting(device: &str, family: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(setting_path(device, family, key)).ok()?;
    Some(text.trim().to_owned())
}

fn setting_path(device: &str, family: &str, key: &str) -> String {
    format!("/proc/sys/net/{family}/conf/{device}/{key}")
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
