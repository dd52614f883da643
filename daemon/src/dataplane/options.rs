//! What only the kernel's data plane does for a child.

use crate::host::xfrm::{Direction, Mark, Scope};

/// The options of a child; by default it has none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct KernelOptions {
    /// The number of an xfrm interface: the child carries what is led into it, and what it carried
    /// comes out of it. 0: no interface.
    pub(crate) if_id: u32,
    /// The name under which obol makes that interface. `None`: somebody else makes it.
    pub(crate) interface: Option<String>,
    /// Packets that came in by the child get this mark, and pass for it.
    pub(crate) mark_in: Mark,
    /// Only packets with this mark leave by the child.
    pub(crate) mark_out: Mark,
    /// Whether a device seals and opens.
    pub(crate) hw_offload: HwOffload,
}

/// Whether a device seals and opens in place of the processor.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum HwOffload {
    /// No.
    #[default]
    No,
    /// Where it can.
    Auto,
    /// It must.
    Crypto,
}

impl KernelOptions {
    /// Whether the child needs the kernel's data plane.
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }

    /// What packets in this direction must be beside their addresses.
    pub(crate) fn scope(&self, direction: Direction) -> Scope {
        let mark = match direction {
            Direction::Out => self.mark_out,
            Direction::In | Direction::Forward => self.mark_in,
        };
        Scope {
            mark,
            if_id: self.if_id,
        }
    }
}
