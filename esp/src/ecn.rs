//! Explicit congestion notification through a tunnel, RFC 6040.

use crate::ip::checksum_after;

/// The ECN field: the low two bits of a type of service or traffic class.
const FIELD: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// Where the field lies in the second octet of a header, after the version: IPv4 has the whole
/// type of service there, IPv6 the low half of the traffic class in the upper four bits.
fn shift(version: u8) -> u32 {
    if version == 4 { 0 } else { 4 }
}

/// The ECN field of the inner packet once the tunnel header is gone, RFC 6040 section 4.2,
/// figure 4; `None`: drop it.
fn combine(inner: u8, outer: u8) -> Option<u8> {
    match (inner & FIELD, outer & FIELD) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (CE, _) | (_, CE) => Some(CE),
        (ECT_1, _) | (_, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

/// Takes what the tunnel header says about congestion over into the inner packet, whose headers
/// were parsed; `false`: the packet is to be dropped.
#[must_use]
pub(crate) fn decapsulate(packet: &mut [u8], version: u8, outer: u8) -> bool {
    let shift = shift(version);
    let inner = packet[1] >> shift & FIELD;
    let Some(field) = combine(inner, outer) else {
        return false;
    };
    if field == inner {
        return true;
    }
    let before = u16::from_be_bytes([packet[0], packet[1]]);
    packet[1] = packet[1] & !(FIELD << shift) | field << shift;
    if version == 4 {
        let after = u16::from_be_bytes([packet[0], packet[1]]);
        let old = u16::from_be_bytes([packet[10], packet[11]]);
        packet[10..12].copy_from_slice(&checksum_after(old, before, after).to_be_bytes());
    }
    true
}
