//! `struct xfrm_selector`: which packets a state or a policy is for.

use super::wire::{address, address_at, be16_at, family, u8_at, u16_at};
use crate::host::prefix::Prefix;

/// Octets of the structure.
pub(super) const LEN: usize = 56;

/// Which packets.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Selector {
    /// Where they come from.
    pub(crate) source: Prefix,
    /// Where they go, of the same family.
    pub(crate) destination: Prefix,
    /// Protocol, or 0 for any.
    pub(crate) protocol: u8,
    /// Source ports (ICMP: type).
    pub(crate) source_port: Ports,
    /// Destination ports (ICMP: code).
    pub(crate) destination_port: Ports,
}

/// Ports that agree with `value` in the bits of `mask`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Ports {
    /// The bits.
    pub(crate) value: u16,
    /// Which of them count. 0: any port, and none.
    pub(crate) mask: u16,
}

impl Ports {
    /// One port.
    pub(crate) fn one(value: u16) -> Self {
        let mask = u16::MAX;
        Self { value, mask }
    }

    fn holds(self, other: Self) -> bool {
        self.mask & other.mask == self.mask && self.value == other.value & self.mask
    }

    fn meets(self, other: Self) -> bool {
        (self.value ^ other.value) & self.mask & other.mask == 0
    }
}

impl Selector {
    /// The structure.
    pub(super) fn octets(&self) -> [u8; LEN] {
        let mut octets = [0; LEN];
        let mut put = |at: usize, field: &[u8]| {
            octets[at..at + field.len()].copy_from_slice(field);
        };
        put(0, &address(self.destination.address));
        put(16, &address(self.source.address));
        put(32, &self.destination_port.value.to_be_bytes());
        put(34, &self.destination_port.mask.to_be_bytes());
        put(36, &self.source_port.value.to_be_bytes());
        put(38, &self.source_port.mask.to_be_bytes());
        put(40, &family(self.source.is_v4()).to_ne_bytes());
        put(42, &[self.destination.len, self.source.len, self.protocol]);
        octets
    }

    /// Reads the structure; `None`: it is of no family that we know, or nonsense.
    pub(super) fn read(octets: &[u8]) -> Option<Self> {
        let family = u16_at(octets, 40)?;
        let prefix = |at, len| {
            let address = address_at(octets, at, family)?;
            let len = u8_at(octets, len)?;
            (len <= Prefix::host(address).len).then_some(Prefix { address, len })
        };
        let ports = |at| {
            Some(Ports {
                value: be16_at(octets, at)?,
                mask: be16_at(octets, at + 2)?,
            })
        };
        Some(Self {
            destination: prefix(0, 42)?,
            source: prefix(16, 43)?,
            destination_port: ports(32)?,
            source_port: ports(36)?,
            protocol: u8_at(octets, 44)?,
        })
    }

    /// Whether every packet of `other` is one of this selector.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        self.source.contains(other.source)
            && self.destination.contains(other.destination)
            && [0, other.protocol].contains(&self.protocol)
            && self.source_port.holds(other.source_port)
            && self.destination_port.holds(other.destination_port)
    }

    /// Whether there are packets of both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let meet = |one: Prefix, two: Prefix| one.contains(two) || two.contains(one);
        meet(self.source, other.source)
            && meet(self.destination, other.destination)
            && (self.protocol == other.protocol || self.protocol == 0 || other.protocol == 0)
            && self.source_port.meets(other.source_port)
            && self.destination_port.meets(other.destination_port)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// TCP to port 27017 of a network.
    pub(in super::super) fn service() -> Selector {
        let prefix = |address: [u8; 4], len| Prefix {
            address: address.into(),
            len,
        };
        Selector {
            source: prefix([192, 168, 0, 1], 32),
            destination: prefix([10, 1, 0, 0], 16),
            protocol: 6,
            source_port: Ports::default(),
            destination_port: Ports::one(27017),
        }
    }

    #[test]
    fn the_structure_is_as_the_kernel_has_it() {
        let octets = service().octets();
        // What `ip xfrm policy add src 192.168.0.1 dst 10.1.0.0/16 proto tcp dport 27017` sends.
        let mut golden = [0; LEN];
        golden[..4].copy_from_slice(&[10, 1, 0, 0]);
        golden[16..20].copy_from_slice(&[192, 168, 0, 1]);
        golden[32..36].copy_from_slice(&[0x69, 0x89, 0xff, 0xff]);
        golden[40..45].copy_from_slice(&[2, 0, 16, 32, 6]);
        if cfg!(target_endian = "little") {
            assert_eq!(octets, golden);
        }
        assert_eq!(Selector::read(&octets), Some(service()));
    }

    #[test]
    fn what_lies_within_is_contained() {
        let all = Selector {
            source: Prefix {
                len: 0,
                ..service().source
            },
            protocol: 0,
            destination_port: Ports::default(),
            ..service()
        };
        assert!(all.contains(&service()) && !service().contains(&all));
        let other = Selector {
            destination_port: Ports::one(27018),
            ..service()
        };
        assert!(!service().contains(&other) && service().contains(&service()));
        assert!(all.overlaps(&service()) && service().overlaps(&all));
        assert!(!service().overlaps(&other) && service().overlaps(&service()));
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(selector) = Selector::read(&octets) {
                prop_assert_eq!(Selector::read(&selector.octets()), Some(selector));
            }
        }
    }
}
