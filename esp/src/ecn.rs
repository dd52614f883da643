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

//= rfc7296 2.24-1
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

//= rfc7296 2.24-1
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::Sum;

    const ECT_0: u8 = 0b10;

    //= test rfc7296 2.24-1
    /// RFC 6040 figure 4: rows by inner, columns by outer: Not-ECT, ECT(0), ECT(1), CE.
    #[test]
    fn the_fields_combine_as_in_figure_4() {
        let outer = [NOT_ECT, ECT_0, ECT_1, CE];
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE); 4]),
        ];
        for (inner, expected) in rows {
            assert_eq!(
                outer.map(|outer| combine(inner, outer)),
                expected,
                "inner {inner:02b}"
            );
        }
    }

    #[test]
    fn only_the_field_and_the_checksum_of_an_ipv4_header_change() {
        for tos in 0..=255 {
            let mut packet = [
                0x45, tos, 0, 20, 1, 2, 3, 4, 64, 17, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8,
            ];
            let checksum = Sum::default().add(&packet).finish();
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            let before = packet;
            let kept = decapsulate(&mut packet, 4, 0xfc | CE);
            assert_eq!(kept, tos & FIELD != NOT_ECT);
            if kept {
                assert_eq!(packet[1], tos | CE);
                assert_eq!(packet[2..10], before[2..10]);
                assert_eq!(packet[12..], before[12..]);
                assert_eq!(Sum::default().add(&packet).finish(), 0, "tos {tos:02x}");
            } else {
                assert_eq!(packet, before);
            }
        }
    }

    #[test]
    fn only_the_field_of_an_ipv6_header_changes() {
        // Traffic class 0xa9 (ECT(1)), flow label 0xfffff.
        let mut packet = [0x6a, 0x9f, 0xff, 0xff];
        assert!(decapsulate(&mut packet, 6, CE));
        assert_eq!(packet, [0x6a, 0xbf, 0xff, 0xff]);
    }
}
