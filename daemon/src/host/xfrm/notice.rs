//! What the kernel says without being asked.

use std::net::IpAddr;

use obol_ike::event::PacketFlow;

use super::policy::{TEMPLATES, Template};
use super::selector::Selector;
use super::state::{self, State, StateId};
use super::wire::{Incoming, address_at, be16_at, u8_at, u16_at};
use crate::host::nft::attr::find;

const DELETE_STATE: u16 = 0x11;
const NEW_POLICY: u16 = 0x13;
const DELETE_POLICY: u16 = 0x14;
const ACQUIRE: u16 = 0x17;
const EXPIRE: u16 = 0x18;
const UPDATE_POLICY: u16 = 0x19;
const FLUSH_STATES: u16 = 0x1c;
const FLUSH_POLICIES: u16 = 0x1d;
const MAPPING: u16 = 0x26;

/// Octets of `struct xfrm_user_acquire`.
const ACQUIRE_LEN: usize = 280;

/// Multicast groups: acquires, expiries, states, policies, mappings.
pub(super) const GROUPS: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 7;

/// Something happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Notice {
    /// A packet has a policy and no state.
    Acquire {
        /// The request ID in the policy's template.
        reqid: u32,
        /// The packet.
        flow: PacketFlow,
    },
    /// A state has met a limit.
    Expired {
        /// Which.
        id: StateId,
        /// It is gone.
        hard: bool,
    },
    /// A state was removed.
    StateGone(StateId),
    /// All states were removed.
    StatesGone,
    /// A policy was added, changed or removed, or all were removed.
    PoliciesChanged,
    /// Packets of an inbound state in UDP come from elsewhere.
    Mapping {
        /// The state.
        id: StateId,
        /// Where they come from.
        address: IpAddr,
        /// And the port.
        port: u16,
    },
    /// So much happened that some of it was not told.
    Lost,
}

impl Notice {
    /// Reads a message; `None`: it is about nothing that we care for.
    pub(super) fn read(message: &Incoming<'_>) -> Option<Self> {
        let body = message.body;
        match message.kind {
            ACQUIRE => {
                let list = body.get(ACQUIRE_LEN..)?;
                Some(Self::Acquire {
                    reqid: Template::read(find(list, TEMPLATES)?)?.reqid,
                    flow: flow(&Selector::read(body.get(40..)?)?),
                })
            }
            EXPIRE => Some(Self::Expired {
                id: State::read(body.get(..state::LEN)?)?.id,
                hard: u8_at(body, state::LEN)? != 0,
            }),
            DELETE_STATE => Some(Self::StateGone(StateId::read(body)?)),
            FLUSH_STATES => Some(Self::StatesGone),
            NEW_POLICY | UPDATE_POLICY | DELETE_POLICY | FLUSH_POLICIES => {
                Some(Self::PoliciesChanged)
            }
            MAPPING => Some(Self::Mapping {
                id: StateId::read(body)?,
                address: address_at(body, 44, u16_at(body, 20)?)?,
                port: be16_at(body, 62)?,
            }),
            _ => None,
        }
    }
}

/// The packet. The kernel asks before it chooses the source port of a connection: then no port is
/// told, since neither would be without the other.
fn flow(selector: &Selector) -> PacketFlow {
    let (source_port, destination_port) =
        (selector.source_port.value, selector.destination_port.value);
    let has_type = [1, 58].contains(&selector.protocol);
    let known = has_type || source_port != 0;
    PacketFlow {
        protocol: selector.protocol,
        source: selector.source.address,
        destination: selector.destination.address,
        source_port,
        destination_port: if known { destination_port } else { 0 },
    }
}

/// Octets that the kernel would send for these.
#[cfg(test)]
pub(crate) mod samples {
    use super::super::policy::{self, Policy};
    use super::*;

    /// An acquire of a policy.
    pub(crate) fn acquire(policy: &Policy, packet: &Selector) -> Vec<u8> {
        let message = policy.install(true);
        let (_, info) = message.parts();
        let mut body = vec![0; 40];
        body[20] = 50;
        body.extend(packet.octets());
        body.extend(&info[..policy::LEN]);
        body.extend([0; 16]);
        body.extend(&info[policy::LEN..]);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::tests::tunnel;
    use super::super::selector::Ports;
    use super::super::selector::tests::service;
    use super::*;
    use crate::host::prefix::Prefix;
    use proptest::prelude::*;

    fn read(kind: u16, body: &[u8]) -> Option<Notice> {
        Notice::read(&Incoming {
            kind,
            flags: 0,
            sequence: 0,
            port: 0,
            body,
        })
    }

    #[test]
    fn an_acquire_tells_the_packet_and_whose_policy_it_met() {
        let packet = |port| Selector {
            destination: Prefix::host(IpAddr::from([10, 1, 2, 3])),
            source_port: Ports::one(port),
            ..service()
        };
        let reqid = tunnel().rule.template.unwrap().reqid;
        for (port, ports) in [(40_000, (40_000, 27017)), (0, (0, 0))] {
            let body = samples::acquire(&tunnel(), &packet(port));
            let flow = PacketFlow {
                protocol: 6,
                source: IpAddr::from([192, 168, 0, 1]),
                destination: IpAddr::from([10, 1, 2, 3]),
                source_port: ports.0,
                destination_port: ports.1,
            };
            assert_eq!(read(ACQUIRE, &body), Some(Notice::Acquire { reqid, flow }));
        }
    }

    #[test]
    fn a_mapping_tells_where_packets_come_from() {
        let mut body = [0; 64];
        body[..4].copy_from_slice(&[192, 0, 2, 1]);
        body[16..20].copy_from_slice(&[0, 0, 1, 2]);
        body[20..22].copy_from_slice(&2_u16.to_ne_bytes());
        body[22] = 50;
        body[44..48].copy_from_slice(&[192, 0, 2, 9]);
        body[62..64].copy_from_slice(&4711_u16.to_be_bytes());
        let notice = Notice::Mapping {
            id: StateId {
                destination: IpAddr::from([192, 0, 2, 1]),
                spi: 0x102,
            },
            address: IpAddr::from([192, 0, 2, 9]),
            port: 4711,
        };
        assert_eq!(read(MAPPING, &body), Some(notice));
        assert_eq!(read(MAPPING, &body[..62]), None);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(
            kind in 0x10..0x28_u16,
            octets in prop::collection::vec(any::<u8>(), 0..500),
        ) {
            let _ = read(kind, &octets);
        }
    }
}
