//! Which packets a policy is for, beside their addresses: those with a mark, those of an xfrm interface.

use super::wire::{Message, u32_at};
use crate::host::nft::attr::find;

/// `struct xfrm_mark`, and what ties policies and states to xfrm interfaces.
const MARK: u16 = 21;
pub(super) const INTERFACE: u16 = 31;

/// The bits of a packet's mark that count.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Mark {
    /// Those of the mask that must be set.
    pub(crate) value: u32,
    /// Which bits count. 0: any mark, and none.
    pub(crate) mask: u32,
}

/// Which packets, beside their addresses. By default those of no xfrm interface, whatever their mark.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Scope {
    /// Those with this mark.
    pub(crate) mark: Mark,
    /// Those that are led into, or come out of, the xfrm interface with this number. 0: of none.
    pub(crate) if_id: u32,
}

impl Mark {
    /// All bits count.
    pub(crate) fn exactly(value: u32) -> Self {
        let mask = u32::MAX;
        Self { value, mask }
    }

    /// Whether a packet can have both.
    pub(crate) fn meets(self, other: Self) -> bool {
        (self.value ^ other.value) & self.mask & other.mask == 0
    }
}

impl Scope {
    /// Adds what the kernel is to know of it to a message about a policy.
    pub(super) fn put(&self, message: &mut Message) {
        if self.mark != Mark::default() {
            let octets = [self.mark.value, self.mark.mask].map(u32::to_ne_bytes);
            message.attribute(MARK, octets.as_flattened());
        }
        put_interface(message, self.if_id);
    }

    /// Reads it from the attributes of a policy.
    pub(super) fn read(attributes: &[u8]) -> Self {
        let number = |kind, at| find(attributes, kind).and_then(|octets| u32_at(octets, at));
        Self {
            mark: Mark {
                value: number(MARK, 0).unwrap_or(0),
                mask: number(MARK, 4).unwrap_or(0),
            },
            if_id: number(INTERFACE, 0).unwrap_or(0),
        }
    }
}

/// Ties what a message is about to an xfrm interface, unless it is 0.
pub(super) fn put_interface(message: &mut Message, if_id: u32) {
    if if_id != 0 {
        message.attribute(INTERFACE, &if_id.to_ne_bytes());
    }
}
