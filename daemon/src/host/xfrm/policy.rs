//! `struct xfrm_userpolicy_info` with its templates: what is to happen to packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use obol_ike::config::Mode;

use super::scope::{Mark, Scope};
use super::selector::{self, Selector};
use super::wire::{Message, address, address_at, family, u8_at, u16_at, u32_at};
use super::{ESP, state};
use crate::host::nft::attr::find;

/// Octets of `struct xfrm_userpolicy_info`, `xfrm_userpolicy_id` and `xfrm_user_tmpl`.
pub(super) const LEN: usize = 168;
pub(super) const ID_LEN: usize = 64;
const TEMPLATE_LEN: usize = 64;

const NEW: u16 = 0x13;
const UPDATE: u16 = 0x19;
const DELETE: u16 = 0x14;
const GET: u16 = 0x15;
const DUMP: u16 = 0x300;

/// Attribute with templates.
pub(super) const TEMPLATES: u16 = 5;
const BLOCK: u8 = 1;
/// ICMP errors about protected packets are looked up by what they are about.
const NO_FLAGS: u8 = 0;

/// Where packets are when they meet a policy.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Direction {
    /// They came in, for this host.
    In = 0,
    /// They leave.
    Out = 1,
    /// They came in, for another host.
    Forward = 2,
}

/// Which policy: the kernel has one of each.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    /// Where.
    pub(crate) direction: Direction,
    /// For which packets.
    pub(crate) selector: Selector,
    /// And which of these.
    pub(crate) scope: Scope,
}

/// What a policy does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rule {
    /// Lower comes first.
    pub(crate) priority: u32,
    /// Drop all packets; else they pass by the states of the template, or in clear without one.
    pub(crate) block: bool,
    /// Which states.
    pub(crate) template: Option<Template>,
    /// It lets packets pass in clear by the will of the configuration, and this says whose it is, as
    /// the request ID of a template does: written into the index of the policy.
    pub(crate) pass: Option<u32>,
}

/// Which states packets must use, or must have used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Template {
    /// The request ID of the states.
    pub(crate) reqid: u32,
    /// Their mode.
    pub(crate) mode: Mode,
    /// Their addresses in tunnel mode. Outbound the system makes use of them; inbound, and in
    /// transport mode, none means any.
    pub(crate) ends: Option<(IpAddr, IpAddr)>,
    /// Packets for which there is none pass in clear, and outbound they ask for one; inbound packets
    /// in clear pass.
    pub(crate) optional: bool,
}

/// A policy of the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Policy {
    /// Which.
    pub(crate) key: Key,
    /// What it does.
    pub(crate) rule: Rule,
}

impl Policy {
    /// The message that installs it: in one step in place of the one with its key, or, if it is
    /// `new`, only where there is none (else `EEXIST`).
    pub(crate) fn install(&self, new: bool) -> Message {
        let mut message = Message::new(if new { NEW } else { UPDATE }, 0);
        message.put(&self.octets());
        if let Some(template) = &self.rule.template {
            let v4 = self.key.selector.source.is_v4();
            message.attribute(TEMPLATES, &template.octets(v4));
        }
        self.key.scope.put(&mut message);
        message
    }

    /// `struct xfrm_userpolicy_info`.
    fn octets(&self) -> [u8; LEN] {
        let mut octets = [0; LEN];
        octets[..selector::LEN].copy_from_slice(&self.key.selector.octets());
        octets[56..120].copy_from_slice(&state::no_limits());
        octets[152..156].copy_from_slice(&self.rule.priority.to_ne_bytes());
        if let Some(reqid) = self.rule.pass {
            octets[156..160].copy_from_slice(&index(reqid, self.key.direction).to_ne_bytes());
        }
        let action = if self.rule.block { BLOCK } else { 0 };
        octets[160..163].copy_from_slice(&[self.key.direction as u8, action, NO_FLAGS]);
        octets
    }

    /// Reads `struct xfrm_userpolicy_info` and the first template behind it. `None`: it is of a
    /// socket, or nonsense.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        // Others are of sockets.
        let direction = Direction::read(u8_at(body, 160)?)?;
        let attributes = body.get(LEN..).unwrap_or_default();
        let templates = find(attributes, TEMPLATES);
        let block = u8_at(body, 161)? == BLOCK;
        let pass = reqid_of(u32_at(body, 156)?).filter(|_| !block && templates.is_none());
        Some(Self {
            key: Key {
                direction,
                selector: Selector::read(body)?,
                scope: Scope::read(attributes),
            },
            rule: Rule {
                priority: u32_at(body, 152)?,
                block,
                template: templates.and_then(Template::read),
                pass,
            },
        })
    }
}

/// The highest five bits of an index that has a request ID in it. The kernel itself counts indices from
/// 0 on, by eight for each policy.
const INDEX: u32 = 13 << 27;
/// The highest octet of request IDs, which is not in it.
const REQID: u32 = 0x6f << 24;

/// The index of a policy: the lowest three bits are its direction.
fn index(reqid: u32, direction: Direction) -> u32 {
    INDEX | (reqid & 0x00ff_ffff) << 3 | direction as u32
}

/// The request ID in an index, if there is one.
fn reqid_of(index: u32) -> Option<u32> {
    (index & 0xf800_0000 == INDEX).then_some(REQID | index >> 3 & 0x00ff_ffff)
}

impl Direction {
    fn read(number: u8) -> Option<Self> {
        let all = [Self::In, Self::Out, Self::Forward];
        all.into_iter().find(|direction| *direction as u8 == number)
    }
}

impl Key {
    /// Reads `struct xfrm_userpolicy_id` and what follows it.
    #[cfg(test)]
    pub(crate) fn read(octets: &[u8]) -> Option<Self> {
        Some(Self {
            direction: Direction::read(u8_at(octets, 60)?)?,
            selector: Selector::read(octets)?,
            scope: Scope::read(octets.get(ID_LEN..).unwrap_or_default()),
        })
    }

    /// Whether a policy of another program is about packets of this one. One for packets with a
    /// mark is not where this one is for any.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (mark, others) = (self.scope.mark, other.scope.mark);
        self.direction == other.direction
            && self.scope.if_id == other.scope.if_id
            && (others == Mark::default() || mark != Mark::default() && mark.meets(others))
            && self.selector.overlaps(&other.selector)
    }

    /// The message that removes the policy.
    pub(crate) fn delete(&self) -> Message {
        let mut octets = [0; ID_LEN];
        octets[..selector::LEN].copy_from_slice(&self.selector.octets());
        octets[60] = self.direction as u8;
        let mut message = Message::new(DELETE, 0);
        message.put(&octets);
        self.scope.put(&mut message);
        message
    }
}

/// The message that asks for all policies.
pub(super) fn dump() -> Message {
    let mut message = Message::new(GET, DUMP);
    message.put(&[0; ID_LEN]);
    message
}

impl Template {
    fn octets(&self, selector_v4: bool) -> [u8; TEMPLATE_LEN] {
        let any: IpAddr = if selector_v4 {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let (source, destination) = self.ends.unwrap_or((any, any));
        let mut octets = [0; TEMPLATE_LEN];
        octets[..16].copy_from_slice(&address(destination));
        octets[20] = ESP;
        octets[24..26].copy_from_slice(&family(source.is_ipv4()).to_ne_bytes());
        octets[28..44].copy_from_slice(&address(source));
        octets[44..48].copy_from_slice(&self.reqid.to_ne_bytes());
        octets[48] = state::mode(self.mode);
        octets[50] = u8::from(self.optional);
        // Any algorithm: what was negotiated decides.
        octets[52..64].fill(0xff);
        octets
    }

    /// Reads the first of a list.
    pub(super) fn read(octets: &[u8]) -> Option<Self> {
        let family = u16_at(octets, 24)?;
        let ends = (
            address_at(octets, 28, family)?,
            address_at(octets, 0, family)?,
        );
        let some = !ends.0.is_unspecified() || !ends.1.is_unspecified();
        Some(Self {
            reqid: u32_at(octets, 44)?,
            mode: match u8_at(octets, 48)? {
                0 => Mode::Transport,
                1 => Mode::Tunnel,
                _ => return None,
            },
            ends: some.then_some(ends),
            optional: u8_at(octets, 50)? != 0,
        })
    }
}

/// A policy for one socket: what it sends and receives passes in clear. As `setsockopt` with
/// `IP_XFRM_POLICY` takes it.
pub(crate) fn socket_bypass(v4: bool, direction: Direction) -> [u8; LEN] {
    let mut octets = [0; LEN];
    octets[40..42].copy_from_slice(&family(v4).to_ne_bytes());
    octets[160] = direction as u8;
    octets
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::selector::tests::service;
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) fn tunnel() -> Policy {
        Policy {
            key: Key {
                direction: Direction::Out,
                selector: service(),
                scope: Scope::default(),
            },
            rule: Rule {
                priority: 0x0102_0304,
                block: false,
                pass: None,
                template: Some(Template {
                    reqid: 0x6f01_0001,
                    mode: Mode::Tunnel,
                    ends: Some((IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]))),
                    optional: false,
                }),
            },
        }
    }

    #[test]
    fn the_message_is_as_the_kernel_has_it() {
        let message = tunnel().install(false);
        let (kind, body) = message.parts();
        assert_eq!((kind, body.len()), (0x19, LEN + 4 + TEMPLATE_LEN));
        assert!(body[56..88].iter().all(|octet| *octet == 0xff), "no limits");
        assert!(body[88..152].iter().all(|octet| *octet == 0));
        assert_eq!(body[152..156], 0x0102_0304_u32.to_ne_bytes());
        assert_eq!(body[160..164], [1, 0, 0, 0]);
        let template = &body[LEN + 4..];
        assert_eq!(template[..4], [192, 0, 2, 2]);
        assert_eq!(template[20], 50);
        assert_eq!(template[24..26], 2_u16.to_ne_bytes());
        assert_eq!(template[28..32], [192, 0, 2, 1]);
        assert_eq!(template[44..48], 0x6f01_0001_u32.to_ne_bytes());
        assert_eq!(template[48..52], [1, 0, 0, 0]);
        assert_eq!(template[52..], [0xff; 12]);
        assert_eq!(Policy::read(body), Some(tunnel()));
    }

    #[test]
    fn a_template_that_packets_can_do_without_says_so() {
        let mut policy = tunnel();
        if let Some(template) = &mut policy.rule.template {
            template.optional = true;
        }
        let message = policy.install(false);
        let (_, body) = message.parts();
        assert_eq!(body[LEN + 4 + 48..LEN + 4 + 52], [1, 0, 1, 0]);
        assert_eq!(Policy::read(body), Some(policy));
    }

    #[test]
    fn what_blocks_and_what_goes_are_told_by_their_octets() {
        let mut policy = tunnel();
        policy.rule.block = true;
        policy.rule.template = None;
        let message = policy.install(true);
        let (_, body) = message.parts();
        assert_eq!((body.len(), body[161]), (LEN, 1));
        assert_eq!(Policy::read(body), Some(policy));
        let message = policy.key.delete();
        let (kind, body) = message.parts();
        assert_eq!((kind, body.len(), body[60]), (0x14, ID_LEN, 1));
        assert_eq!(Selector::read(body), Some(service()));
    }

    #[test]
    fn what_passes_says_whose_it_is_by_its_index() {
        let mut policy = tunnel();
        policy.rule.template = None;
        policy.rule.pass = Some(0x6f62_fffe);
        let message = policy.install(true);
        let (_, body) = message.parts();
        let number = u32_at(body, 156).unwrap();
        assert_eq!(number % 8, 1, "the kernel wants the direction there");
        assert_eq!(Policy::read(body), Some(policy));
        // One of somebody else.
        assert_eq!(reqid_of(number - INDEX), None);
    }

    #[test]
    fn marks_and_the_interface_are_where_the_kernel_looks_for_them() {
        let mut policy = tunnel();
        policy.key.scope = Scope {
            mark: Mark {
                value: 5,
                mask: 0xff,
            },
            if_id: 42,
        };
        let message = policy.install(true);
        let (_, body) = message.parts();
        let list = &body[LEN..];
        let mark = [5, 0xff].map(u32::to_ne_bytes).concat();
        assert_eq!(find(list, 21), Some(&mark[..]));
        assert_eq!(find(list, 31), Some(&42_u32.to_ne_bytes()[..]));
        assert_eq!(Policy::read(body), Some(policy));
        let message = policy.key.delete();
        assert_eq!(Key::read(message.parts().1), Some(policy.key));
        let plain = tunnel().install(true);
        assert_eq!(find(&plain.parts().1[LEN..], 21), None);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Policy::read(&octets);
            let _ = Template::read(&octets);
        }
    }
}
