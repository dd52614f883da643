//! Identities, RFC 7296 section 3.5: what a peer claims to be.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An identity as it goes into an ID payload.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR.
    Ipv4(Ipv4Addr),
    /// ID_IPV6_ADDR.
    Ipv6(Ipv6Addr),
    /// ID_FQDN: a host name, compared without regard to ASCII case.
    Fqdn(String),
    /// ID_RFC822_ADDR: `user@host`.
    Rfc822(String),
    /// ID_KEY_ID: opaque octets.
    KeyId(Vec<u8>),
    /// Any other type, kept as it came.
    Other(crate::wire::IdType, Vec<u8>),
}
