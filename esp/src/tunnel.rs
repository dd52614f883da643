//! Tunnel mode: whole IP packets, RFC 4301 section 5.1.2.

use crate::ecn;
use crate::error::OpenError;
use crate::flow::FlowKey;
use crate::ip::protocol;
use crate::selector::Selectors;

/// The Next Header for a packet of this version, RFC 4303 section 2.6.
pub(crate) fn next_header(version: u8) -> u8 {
    if version == 4 {
        protocol::IPV4
    } else {
        protocol::IPV6
    }
}

//= rfc4303 2.7-1 2.7-2
//= security S-48
/// Looks at what came out of the tunnel, with TFC padding perhaps behind it, and takes the outer
/// ECN field over. Returns the octets of the packet.
pub(crate) fn after_open(
    payload: &mut [u8],
    header: u8,
    selectors: &Selectors,
    outer_tos: u8,
) -> Result<usize, OpenError> {
    if header != protocol::IPV4 && header != protocol::IPV6 {
        return Err(OpenError::NextHeader);
    }
    let (flow, info) = FlowKey::parse(payload).map_err(|_| OpenError::Malformed)?;
    if next_header(info.version) != header {
        return Err(OpenError::Malformed);
    }
    if !selectors.matches(&flow) {
        return Err(OpenError::Selector);
    }
    if !ecn::decapsulate(payload, info.version, outer_tos) {
        return Err(OpenError::Ecn);
    }
    Ok(info.total_len)
}
