//! Routing rules: which packets are looked up in our table.

use std::collections::HashSet;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{
    RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange,
};
use rtnetlink::{IpVersion, RuleAddRequest};

use super::netlink::{Netlink, exists, gone, refused};
use super::prefix::Prefix;
use super::{PRIORITIES, RTPROT};
use crate::dataplane::DataPlaneError;

/// FIB_RULE_FIND_SADDR: where the packet has no source yet, the rule counts if the source that
/// the system would choose is in its prefix. IPv6 only.
const FIND_SOURCE: RuleFlags = RuleFlags::from_bits_retain(0x0001_0000);

/// One rule of ours.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Rule {
    /// Of IPv4.
    pub(crate) v4: bool,
    /// Lower is asked first.
    pub(crate) priority: u32,
    /// What to do.
    pub(crate) action: Action,
    /// Packets with this mark; `None`: with any or without.
    pub(crate) fwmark: Option<u32>,
    /// Packets from here; `None`: from anywhere.
    pub(crate) source: Option<Prefix>,
    /// Packets to here; `None`: to anywhere.
    pub(crate) destination: Option<Prefix>,
    /// IP protocol; 0: any.
    pub(crate) protocol: u8,
    /// First and last source port.
    pub(crate) source_ports: Option<(u16, u16)>,
    /// First and last destination port.
    pub(crate) destination_ports: Option<(u16, u16)>,
    /// See [`FIND_SOURCE`].
    pub(crate) find_source: bool,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Action {
    /// Look the packet up in this table.
    Lookup(u32),
    /// Go on at this priority.
    Goto(u32),
    /// Go on with the next rule.
    Nop,
}

/// Makes our rules be exactly `wanted`, for priorities from `first` on: adds what is missing, in
/// the order given, then removes what is stale.
///
/// # Errors
/// The system refuses; what was added until then stays.
pub(crate) async fn sync(
    netlink: &Netlink,
    first: u32,
    wanted: &[Rule],
) -> Result<(), DataPlaneError> {
    let present = ours(netlink, first).await?;
    let known: HashSet<&Rule> = present.iter().map(|(rule, _)| rule).collect();
    let mut done = HashSet::new();
    for rule in wanted {
        if !known.contains(rule) && done.insert(rule) {
            add(netlink, rule).await?;
        }
    }
    let keep: HashSet<&Rule> = wanted.iter().collect();
    for (rule, message) in &present {
        if !keep.contains(rule) {
            remove(netlink, message.clone()).await?;
        }
    }
    Ok(())
}

/// Adds these rules, in the order given.
///
/// # Errors
/// The system refuses; what was added until then stays.
pub(crate) async fn add_all(netlink: &Netlink, rules: &[Rule]) -> Result<(), DataPlaneError> {
    for rule in rules {
        add(netlink, rule).await?;
    }
    Ok(())
}

/// Our rules that the system has.
pub(crate) async fn ours(
    netlink: &Netlink,
    first: u32,
) -> Result<Vec<(Rule, RuleMessage)>, DataPlaneError> {
    let mut found = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let list = netlink.rule().get(version).execute();
        let messages: Vec<RuleMessage> = match list.try_collect().await {
            Ok(messages) => messages,
            Err(error) if super::netlink::lacks_family(&error) => continue,
            Err(error) => return Err(refused("cannot list the routing rules", error)),
        };
        let range = first..first.saturating_add(PRIORITIES);
        found.extend(messages.into_iter().filter_map(|message| {
            let rule = read(&message)?;
            range.contains(&rule.priority).then_some((rule, message))
        }));
    }
    Ok(found)
}

async fn add(netlink: &Netlink, rule: &Rule) -> Result<(), DataPlaneError> {
    let mut request: RuleAddRequest<()> = netlink.rule().add();
    *request.message_mut() = write(rule);
    match request.execute().await {
        Err(error) if exists(&error) => Ok(()),
        done => done.map_err(|error| refused("cannot add a routing rule", error)),
    }
}

async fn remove(netlink: &Netlink, message: RuleMessage) -> Result<(), DataPlaneError> {
    match netlink.rule().del(message).execute().await {
        Err(error) if gone(&error) => Ok(()),
        done => done.map_err(|error| refused("cannot remove a routing rule", error)),
    }
}

/// Removes all our rules; how many there were.
///
/// # Errors
/// The system refuses.
pub(crate) async fn purge(netlink: &Netlink, first: u32) -> Result<usize, DataPlaneError> {
    let present = ours(netlink, first).await?;
    for (_, message) in &present {
        remove(netlink, message.clone()).await?;
    }
    Ok(present.len())
}

fn write(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.v4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    if rule.find_source {
        message.header.flags = FIND_SOURCE;
    }
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(RTPROT)));
    message.header.action = match rule.action {
        Action::Lookup(table) => {
            attributes.push(RuleAttribute::Table(table));
            RuleAction::ToTable
        }
        Action::Goto(priority) => {
            attributes.push(RuleAttribute::Goto(priority));
            RuleAction::Goto
        }
        Action::Nop => RuleAction::Nop,
    };
    if let Some(mark) = rule.fwmark {
        attributes.push(RuleAttribute::FwMark(mark));
        attributes.push(RuleAttribute::FwMask(u32::MAX));
    }
    if let Some(prefix) = rule.source {
        message.header.src_len = prefix.len;
        attributes.push(RuleAttribute::Source(prefix.address));
    }
    if let Some(prefix) = rule.destination {
        message.header.dst_len = prefix.len;
        attributes.push(RuleAttribute::Destination(prefix.address));
    }
    if rule.protocol != 0 {
        attributes.push(RuleAttribute::IpProtocol(rule.protocol.into()));
    }
    let range = |(start, end)| RulePortRange { start, end };
    if let Some(ports) = rule.source_ports {
        attributes.push(RuleAttribute::SourcePortRange(range(ports)));
    }
    if let Some(ports) = rule.destination_ports {
        attributes.push(RuleAttribute::DestinationPortRange(range(ports)));
    }
    message
}

/// `None`: not a rule that we would write.
fn read(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let v4 = header.family == AddressFamily::Inet;
    let mut rule = Rule {
        v4,
        priority: 0,
        action: Action::Nop,
        fwmark: None,
        source: prefix(IpAddr::from([0; 4]), header.src_len, v4),
        destination: prefix(IpAddr::from([0; 4]), header.dst_len, v4),
        protocol: 0,
        source_ports: None,
        destination_ports: None,
        find_source: header.flags.contains(FIND_SOURCE),
    };
    let mut table = u32::from(header.table);
    let mut target = 0;
    let mut protocol = None;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Protocol(from) => protocol = Some(u8::from(*from)),
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Goto(priority) => target = *priority,
            RuleAttribute::FwMark(mark) => rule.fwmark = Some(*mark),
            RuleAttribute::Source(address) => {
                rule.source = prefix(*address, header.src_len, v4);
            }
            RuleAttribute::Destination(address) => {
                rule.destination = prefix(*address, header.dst_len, v4);
            }
            RuleAttribute::IpProtocol(number) => rule.protocol = u8::from(*number),
            RuleAttribute::SourcePortRange(range) => {
                rule.source_ports = Some((range.start, range.end));
            }
            RuleAttribute::DestinationPortRange(range) => {
                rule.destination_ports = Some((range.start, range.end));
            }
            _ => {}
        }
    }
    rule.action = match header.action {
        RuleAction::ToTable => Action::Lookup(table),
        RuleAction::Goto => Action::Goto(target),
        RuleAction::Nop => Action::Nop,
        _ => return None,
    };
    (protocol == Some(RTPROT)).then_some(rule)
}

/// A prefix of length 0 is no condition. The unspecified address has no attribute of its own
/// in some answers, so it is what stands without one.
fn prefix(address: IpAddr, len: u8, v4: bool) -> Option<Prefix> {
    if len == 0 {
        return None;
    }
    let address = if address.is_unspecified() {
        Prefix::unspecified(v4).address
    } else {
        address
    };
    Some(Prefix { address, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let rule = Rule {
            v4: false,
            priority: 5201,
            action: Action::Lookup(26250),
            fwmark: None,
            source: Some(Prefix::unspecified(false)),
            destination: Some(Prefix {
                address: "fd00::".parse().unwrap(),
                len: 64,
            }),
            protocol: 17,
            source_ports: Some((1, 65534)),
            destination_ports: Some((8472, 8472)),
            find_source: true,
        };
        assert_eq!(read(&write(&rule)), Some(rule.clone()));
        let bypass = Rule {
            action: Action::Goto(6199),
            fwmark: Some(7),
            source: None,
            ..rule
        };
        assert_eq!(read(&write(&bypass)), Some(bypass));
    }

    #[test]
    fn rules_of_others_are_not_ours() {
        let mut message = RuleMessage::default();
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Priority(5201));
        assert_eq!(read(&message), None);
    }
}
