//! Identities, RFC 7296 section 3.5: what a peer claims to be.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::IdType;

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
    Other(IdType, Vec<u8>),
}

impl Identity {
    /// The body of an ID payload, RFC 7296 section 3.5: type, three zero octets, data.
    pub fn to_body(&self) -> Vec<u8> {
        let (ty, data): (IdType, &[u8]) = match self {
            Self::Ipv4(address) => (IdType::IPV4_ADDR, &address.octets()),
            Self::Ipv6(address) => (IdType::IPV6_ADDR, &address.octets()),
            Self::Fqdn(name) => (IdType::FQDN, name.as_bytes()),
            Self::Rfc822(name) => (IdType::RFC822_ADDR, name.as_bytes()),
            Self::KeyId(octets) => (IdType::KEY_ID, octets),
            Self::Other(ty, octets) => (*ty, octets),
        };
        [&[ty.0, 0, 0, 0], data].concat()
    }
}
