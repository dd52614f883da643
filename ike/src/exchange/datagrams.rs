//! One message as it goes on the wire: one datagram, or the fragments that it was cut into.

use std::sync::Arc;

use bytes::Bytes;

/// The octets of one message, kept so that a repetition is the same octet for octet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Datagrams {
    /// One datagram.
    Whole(Bytes),
    /// IKE Fragment messages, RFC 7383 section 2.5, in order.
    Fragments(Arc<[Bytes]>),
}

impl Datagrams {
    /// Each datagram, in order.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Bytes> {
        match self {
            Self::Whole(datagram) => std::slice::from_ref(datagram).iter(),
            Self::Fragments(fragments) => fragments.iter(),
        }
    }

    /// Octets of the longest of them.
    pub(crate) fn longest(&self) -> usize {
        self.iter().map(Bytes::len).max().unwrap_or(0)
    }

    /// How many there are; a whole message counts as none, since any fragments come after it.
    pub(crate) fn fragments(&self) -> usize {
        match self {
            Self::Whole(_) => 0,
            Self::Fragments(fragments) => fragments.len(),
        }
    }
}

impl From<Vec<u8>> for Datagrams {
    fn from(datagram: Vec<u8>) -> Self {
        Self::Whole(datagram.into())
    }
}

impl From<Bytes> for Datagrams {
    fn from(datagram: Bytes) -> Self {
        Self::Whole(datagram)
    }
}
