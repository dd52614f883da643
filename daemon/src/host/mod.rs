//! The host that obol runs on: its addresses, routes, rules, packet filter and namespaces.
//!
//! ```text
//!  local flow, no mark -> rule "from LOCAL to REMOTE" -> table T -> TUN -> ESP, marked
//!  marked (our own)    -> rule "fwmark M goto"        -> main table -> wire
//!  TUN gone            -> table T -> blackhole;   rules gone -> nftables guard drops
//! ```

mod address;
mod bulk;
mod guard;
pub mod links;
mod matched;
pub mod nat;
pub(crate) mod netlink;

pub mod netns;
mod nft;
mod owner;
mod plan;
pub(crate) mod prefix;
mod purge;
mod route;
mod rule;
mod steering;
mod watch;
pub(crate) mod xfrm;
pub(crate) mod xfrm_link;

pub(crate) use address::{Sources, addresses, addresses_of_devices, source_for};
pub(crate) use guard::{
    Carrier, add as add_to_guard, blocked, has_interim, load as load_guard, load_interim,
    remove as remove_guard, remove_interim,
};
pub(crate) use nft::LoadedTable;
pub(crate) use owner::port_owner;
pub(crate) use plan::{MTU_OF_IPV6, pairs};
pub(crate) use purge::{Removed, purge, purge_tun, stop_steering};
#[cfg(test)]
pub(crate) use purge::{remove_routes, remove_rules};
pub(crate) use steering::{Applied, add, apply, bring_up};
pub(crate) use watch::Watch;

/// Marks our routes and rules as ours (RTPROT), so that they are told from those of others.
const RTPROT: u8 = 111;

/// Priorities of routing rules that are ours, from [`HostSettings::rule_priority`] on.
const PRIORITIES: u32 = 1000;

/// What obol may use of the host, from the `[daemon]` table of its configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HostSettings {
    /// Name of the TUN device.
    pub(crate) tun: String,
    /// Longest packet in octets that passes between the hosts, ESP included. `None`: the MTU of
    /// the device that the default route leads to.
    pub(crate) mtu: Option<u32>,
    /// Routing table that is ours alone.
    pub(crate) table: u32,
    /// Priority of the first routing rule; the 1000 priorities from here on are ours alone.
    pub(crate) rule_priority: u32,
    /// Mark of our own packets.
    pub(crate) fwmark: u32,
    /// Port of IKE.
    pub(crate) port: u16,
    /// Port that IKE shares with ESP in UDP.
    pub(crate) natt_port: u16,
}

impl HostSettings {
    /// Mark of packets that are led to the TUN although their sender chose another device: the
    /// highest bit tells it from the marks of our own packets, of any instance.
    fn pinned_mark(&self) -> u32 {
        self.fwmark ^ 1 << 31
    }
}

#[cfg(test)]
impl HostSettings {
    /// Settings for tests, which run in namespaces of their own.
    pub(crate) fn for_tests() -> Self {
        Self {
            tun: "obol0".to_owned(),
            mtu: None,
            table: 26250,
            rule_priority: 5200,
            fwmark: 0x6f62,
            port: 500,
            natt_port: 4500,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
