//! Routes of our own table: into the TUN, and behind it a blackhole that outlives it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};

use super::RTPROT;
use super::bulk::Bulk;
use super::netlink::{Netlink, gone, refused};
use super::plan::Plan;
use super::prefix::Prefix;
use crate::dataplane::DataPlaneError;

/// Metric of the routes into the TUN.
const TUN_METRIC: u32 = 10;
/// Metric of the blackholes: found only where the TUN's route is gone.
const BLACKHOLE_METRIC: u32 = 9999;

/// From so many routes on, they are set many at a time.
const MANY: usize = 16;

/// What the route into the TUN says besides its destination.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct TunRoute {
    /// The address of ours from which local packets leave that have none yet.
    pub(crate) source: Option<IpAddr>,
    /// Longest packet in octets. `None`: that of the device.
    pub(crate) mtu: Option<u32>,
    /// Longest TCP segment in octets that we ask the other end for.
    pub(crate) advmss: Option<u32>,
}

/// Adds a blackhole for every destination; what is there stays.
///
/// # Errors
/// The system refuses.
pub(crate) async fn add_blackholes(
    netlink: &Netlink,
    table: u32,
    destinations: impl IntoIterator<Item = Prefix>,
) -> Result<(), DataPlaneError> {
    let blackhole = |destination| {
        let mut message = route(destination, table, BLACKHOLE_METRIC);
        message.header.kind = RouteType::BlackHole;
        message
    };
    replace_all(netlink, destinations.into_iter().map(blackhole).collect()).await
}

/// Adds the routes into the TUN, or replaces them; then removes whatever else is in the table.
///
/// # Errors
/// The system refuses.
pub(crate) async fn sync(
    netlink: &Netlink,
    table: u32,
    tun: u32,
    wanted: &Plan,
) -> Result<(), DataPlaneError> {
    add_all(netlink, table, tun, &wanted.routes).await?;
    let routes: BTreeSet<Prefix> = wanted.routes.keys().copied().collect();
    for message in ours(netlink, table).await? {
        let keep = match message.header.kind {
            RouteType::BlackHole => &wanted.blackholes,
            _ => &routes,
        };
        if !destination(&message).is_some_and(|prefix| keep.contains(&prefix)) {
            remove(netlink, message).await?;
        }
    }
    Ok(())
}

/// Adds the routes into the TUN, or replaces them.
///
/// # Errors
/// The system refuses.
pub(crate) async fn add_all(
    netlink: &Netlink,
    table: u32,
    tun: u32,
    wanted: &BTreeMap<Prefix, TunRoute>,
) -> Result<(), DataPlaneError> {
    let routes = wanted.iter();
    let routes = routes.map(|(to, what)| tun_route(table, tun, *to, *what));
    replace_all(netlink, routes.collect()).await
}

fn tun_route(table: u32, tun: u32, destination: Prefix, what: TunRoute) -> RouteMessage {
    let mut message = route(destination, table, TUN_METRIC);
    message.attributes.push(RouteAttribute::Oif(tun));
    if destination.is_v4() {
        message.header.scope = RouteScope::Link;
    }
    let mtu = what.mtu.map(RouteMetric::Mtu);
    let advmss = what.advmss.map(RouteMetric::Advmss);
    let metrics: Vec<_> = mtu.into_iter().chain(advmss).collect();
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    if let Some(source) = what.source {
        let source = RouteAttribute::PrefSource(source.into());
        message.attributes.push(source);
    }
    message
}

/// Sets routes, each in place of the one that is there.
async fn replace_all(netlink: &Netlink, routes: Vec<RouteMessage>) -> Result<(), DataPlaneError> {
    let failed = match Bulk::open() {
        Ok(bulk) if routes.len() >= MANY => bulk
            .replace(routes)
            .map_err(|source| DataPlaneError::system("cannot set routes", source))?,
        _ => routes,
    };
    for message in failed {
        set(netlink, message).await?;
    }
    Ok(())
}

async fn set(netlink: &Netlink, mut message: RouteMessage) -> Result<(), DataPlaneError> {
    let is_source = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::PrefSource(_));
    match replace(netlink, message.clone()).await {
        // The address went, or (IPv6) is not proven unique yet: the system then chooses itself.
        Err(error)
            if error.number() == Some(libc::EINVAL) && message.attributes.iter().any(is_source) =>
        {
            message.attributes.retain(|attribute| !is_source(attribute));
            replace(netlink, message).await
        }
        done => done,
    }
}

/// Removes all our routes; how many there were.
///
/// # Errors
/// The system refuses.
pub(crate) async fn purge(netlink: &Netlink, table: u32) -> Result<usize, DataPlaneError> {
    let present = ours(netlink, table).await?;
    let count = present.len();
    for message in present {
        remove(netlink, message).await?;
    }
    Ok(count)
}

/// Every route that is in our table and of our making.
pub(crate) async fn ours(
    netlink: &Netlink,
    table: u32,
) -> Result<Vec<RouteMessage>, DataPlaneError> {
    let mut found = Vec::new();
    for builder in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let list = netlink.route().get(builder).execute();
        let messages: Vec<RouteMessage> = match list.try_collect().await {
            Ok(messages) => messages,
            Err(error) if super::netlink::lacks_family(&error) => continue,
            Err(error) => return Err(refused("cannot list the routes", error)),
        };
        let is_ours = |message: &RouteMessage| {
            table_of(message) == table && u8::from(message.header.protocol) == RTPROT
        };
        found.extend(messages.into_iter().filter(is_ours));
    }
    Ok(found)
}

fn route(destination: Prefix, table: u32, metric: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.protocol = RouteProtocol::from(RTPROT);
    header.kind = RouteType::Unicast;
    header.destination_prefix_length = destination.len;
    let (family, address) = match destination.address {
        IpAddr::V4(v4) => (AddressFamily::Inet, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, RouteAddress::Inet6(v6)),
    };
    header.address_family = family;
    let attributes = &mut message.attributes;
    if destination.len > 0 {
        attributes.push(RouteAttribute::Destination(address));
    }
    attributes.push(RouteAttribute::Table(table));
    attributes.push(RouteAttribute::Priority(metric));
    message
}

async fn replace(netlink: &Netlink, message: RouteMessage) -> Result<(), DataPlaneError> {
    let request = netlink.route().add(message).replace();
    request
        .execute()
        .await
        .map_err(|error| refused("cannot set a route", error))
}

async fn remove(netlink: &Netlink, message: RouteMessage) -> Result<(), DataPlaneError> {
    match netlink.route().del(message).execute().await {
        Err(error) if gone(&error) => Ok(()),
        done => done.map_err(|error| refused("cannot remove a route", error)),
    }
}

/// Whether a route is in the main table.
pub(crate) fn in_main(message: &RouteMessage) -> bool {
    table_of(message) == u32::from(RouteHeader::RT_TABLE_MAIN)
}

/// The table that a route is in.
pub(super) fn table_of(message: &RouteMessage) -> u32 {
    let attribute = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
    attribute.unwrap_or(message.header.table.into())
}

fn destination(message: &RouteMessage) -> Option<Prefix> {
    let len = message.header.destination_prefix_length;
    let v4 = message.header.address_family == AddressFamily::Inet;
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        });
    let address = address.unwrap_or(Prefix::unspecified(v4).address);
    Some(Prefix { address, len })
}
