//! xfrm interfaces: what is led into one is sealed by policies and states with its number, or dropped;
//! what they opened comes out of it.

use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoXfrm, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkXfrm};

use super::HostSettings;
use super::netlink::{Netlink, gone, refused, to_io};
use super::plan::inner_mtu;
use super::steering::{links, path_mtu};
use crate::dataplane::DataPlaneError;

/// An xfrm interface.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// Its number.
    pub(crate) if_id: u32,
}

/// The alias of those that this instance made: by it they are told from those of others.
fn alias(settings: &HostSettings) -> String {
    format!("obol {:02x}", settings.fwmark & 0xff)
}

/// Makes those that are missing, and brings all of ours up. One that is there already and was made
/// by others is used as it is. How many were made.
///
/// # Errors
/// The system refuses, or a name or a number is taken; those that were made until then stay.
pub(crate) async fn make(
    settings: &HostSettings,
    wanted: &[Interface],
) -> Result<usize, DataPlaneError> {
    let mut made = 0;
    if wanted.is_empty() {
        return Ok(made);
    }
    let netlink = Netlink::connect()?;
    let present = links(&netlink).await?;
    // A device with less than IPv6 asks for has none.
    let mtu = inner_mtu(path_mtu(settings, &netlink).await?, true);
    for own in wanted {
        let found = present.iter().find(|link| name(link) == Some(&own.name));
        match found {
            Some(link) if if_id(link) == Some(own.if_id) => {
                if is_ours(settings, link) && !link.header.flags.contains(LinkFlags::Up) {
                    bring_up(settings, &netlink, own, link.header.index, mtu).await?;
                }
                continue;
            }
            // Of an earlier configuration.
            Some(link) if is_ours(settings, link) => remove(&netlink, link).await?,
            Some(_) => {
                return Err(DataPlaneError::Refused(format!(
                    "there is a device {} already, and it is no xfrm interface with if_id {}: remove it, or write another name for the interface",
                    own.name, own.if_id
                )));
            }
            None => {}
        }
        add(settings, &netlink, own, mtu).await?;
        made += 1;
    }
    Ok(made)
}

/// Removes those of ours that are not among these; how many there were.
///
/// # Errors
/// The system refuses.
pub(crate) async fn remove_all_but(
    settings: &HostSettings,
    kept: &[Interface],
) -> Result<usize, DataPlaneError> {
    let netlink = Netlink::connect()?;
    let mut removed = 0;
    for link in links(&netlink).await? {
        let same =
            |own: &Interface| name(&link) == Some(&own.name) && if_id(&link) == Some(own.if_id);
        if is_ours(settings, &link) && !kept.iter().any(same) {
            remove(&netlink, &link).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

async fn add(
    settings: &HostSettings,
    netlink: &Netlink,
    own: &Interface,
    mtu: u32,
) -> Result<(), DataPlaneError> {
    let link = LinkMessageBuilder::<LinkXfrm>::new(&own.name).if_id(own.if_id);
    let added = netlink.link().add(link.build()).execute().await;
    added.map_err(|error| not_made(own, error))?;
    let present = links(netlink).await?;
    let found = present.iter().find(|link| name(link) == Some(&own.name));
    let Some(link) = found else {
        return Err(DataPlaneError::Refused(format!("{} is gone", own.name)));
    };
    let up = bring_up(settings, netlink, own, link.header.index, mtu).await;
    if up.is_err() {
        // Nobody would know it as ours.
        remove(netlink, link).await?;
    }
    up
}

async fn bring_up(
    settings: &HostSettings,
    netlink: &Netlink,
    own: &Interface,
    index: u32,
    mtu: u32,
) -> Result<(), DataPlaneError> {
    let link = LinkUnspec::new_with_index(index)
        .alias(alias(settings))
        .mtu(mtu)
        .up();
    let done = netlink.link().set(link.build()).execute().await;
    done.map_err(|error| refused(format!("cannot bring {} up", own.name), error))
}

fn not_made(own: &Interface, error: rtnetlink::Error) -> DataPlaneError {
    let source = to_io(error);
    let Interface { name, if_id } = own;
    match source.raw_os_error() {
        Some(libc::EEXIST) => DataPlaneError::Refused(format!(
            "another xfrm interface has if_id {if_id}, so there is no {name}: `ip -d link show type xfrm` shows it; remove it, or write another if_id at both"
        )),
        Some(libc::EOPNOTSUPP) => DataPlaneError::Refused(format!(
            "this kernel has no xfrm interfaces, so there is no {name}: `modprobe xfrm_interface`, or a kernel with CONFIG_XFRM_INTERFACE"
        )),
        _ => DataPlaneError::system(format!("cannot make the xfrm interface {name}"), source),
    }
}

async fn remove(netlink: &Netlink, link: &LinkMessage) -> Result<(), DataPlaneError> {
    match netlink.link().del(link.header.index).execute().await {
        Err(error) if !gone(&error) => {
            let name = name(link).unwrap_or_default();
            Err(refused(format!("cannot delete {name}"), error))
        }
        _ => Ok(()),
    }
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

/// The number of an xfrm interface; `None`: it is none.
fn if_id(link: &LinkMessage) -> Option<u32> {
    let infos = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })?;
    let of_xfrm = infos.contains(&LinkInfo::Kind(InfoKind::Xfrm));
    infos
        .iter()
        .filter(|_| of_xfrm)
        .find_map(|info| match info {
            LinkInfo::Data(InfoData::Xfrm(data)) => data.iter().find_map(|data| match data {
                InfoXfrm::IfId(number) => Some(*number),
                _ => None,
            }),
            _ => None,
        })
}

fn is_ours(settings: &HostSettings, link: &LinkMessage) -> bool {
    let alias = LinkAttribute::IfAlias(alias(settings));
    if_id(link).is_some() && link.attributes.contains(&alias)
}
