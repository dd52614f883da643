//! What may be sealed, and where limits lie.

use super::*;
use crate::fuzz::{outer, params};
use crate::params::Limits;
use crate::selector::Selector;
use crate::testing::{ip, udp};
use crate::{HEADROOM, TAILROOM};

const TUNNEL: u8 = 2;
const TRANSPORT: u8 = 2 | 8;

fn sa(choice: u8) -> Outbound {
    Outbound::new(params(choice)).unwrap()
}

/// Seals; a packet that is refused must be as it was.
fn seal(sa: &mut Outbound, packet: &[u8]) -> Result<Sealed, SealError> {
    let mut buffer = [&[0xee; HEADROOM], packet, &[0xee; TAILROOM]].concat();
    let before = buffer.clone();
    let sealed = sa.seal(&mut buffer, HEADROOM..HEADROOM + packet.len());
    if sealed.is_err() {
        assert_eq!(buffer, before);
    }
    sealed
}

fn packet() -> Vec<u8> {
    ip(4, 0, 17, &udp((1000, 53), b"query"))
}

/// An IPv6 packet with one extension header of 8 octets.
fn extended(header: u8, field: u16) -> Vec<u8> {
    let [high, low] = field.to_be_bytes();
    let payload = [
        &[17, 0, high, low, 0, 0, 0, 0][..],
        &udp((1000, 53), b"query"),
    ]
    .concat();
    ip(6, 0, header, &payload)
}

//= test security S-57
#[test]
fn transport_mode_refuses_what_its_header_cannot_carry() {
    let mut options = packet();
    options[0] = 0x46;
    let flags = |flags: u8, offset: u8| {
        let mut packet = packet();
        packet[6..8].copy_from_slice(&[flags, offset]);
        packet
    };
    let rows = [
        ("plain", packet(), None),
        ("may be fragmented", flags(0, 0), None),
        ("first fragment", flags(0x20, 0), Some(SealError::Fragment)),
        ("later fragment", flags(0x20, 3), Some(SealError::Fragment)),
        ("last fragment", flags(0, 3), Some(SealError::Fragment)),
        ("IPv4 options", options, Some(SealError::ExtensionHeader)),
        (
            "hop-by-hop",
            extended(0, 0x0104),
            Some(SealError::ExtensionHeader),
        ),
        ("routing", extended(43, 0), Some(SealError::ExtensionHeader)),
        (
            "first IPv6 fragment",
            extended(44, 1),
            Some(SealError::Fragment),
        ),
        (
            "later IPv6 fragment",
            extended(44, 8),
            Some(SealError::Fragment),
        ),
        ("destination options", extended(60, 0x0104), None),
    ];
    for (name, packet, error) in rows {
        assert_eq!(seal(&mut sa(TRANSPORT), &packet).err(), error, "{name}");
        assert_eq!(seal(&mut sa(TUNNEL), &packet).err(), None, "{name}");
    }
}

#[test]
fn what_is_no_packet_is_refused() {
    let mut longer = packet();
    longer[3] += 1;
    let rows: [&[u8]; 5] = [&[], &[0x45], &[0x75; 40], &packet()[..19], &longer];
    for octets in rows {
        assert_eq!(
            seal(&mut sa(TUNNEL), octets),
            Err(SealError::Malformed),
            "{octets:02x?}"
        );
    }
}

#[test]
fn octets_behind_the_packet_are_not_sealed() {
    let more = [&packet()[..], &[0; 50]].concat();
    let sealed = seal(&mut sa(TUNNEL), &more).unwrap();
    assert_eq!(sealed.inner_len, packet().len());
    assert_eq!(
        sealed.range,
        seal(&mut sa(TUNNEL), &packet()).unwrap().range
    );
}

#[test]
fn what_is_outside_of_the_selectors_is_refused() {
    let ends = outer(4, 0);
    let (from, to) = (
        (ends.source, ends.source),
        (ends.destination, ends.destination),
    );
    let dns = Selector::new(17, from, Selector::ANY_PORT, to, (53, 53)).unwrap();
    let mut params = params(TUNNEL);
    params.selectors = vec![dns].into();
    let mut sa = Outbound::new(params).unwrap();
    assert!(seal(&mut sa, &packet()).is_ok());
    let other = ip(4, 0, 17, &udp((1000, 54), b"query"));
    assert_eq!(seal(&mut sa, &other), Err(SealError::Selector));
    assert_eq!(sa.usage().packets, 1);
}

#[test]
fn a_packet_parsed_before_is_sealed_alike_and_refused_without_a_trace() {
    let octets = packet();
    let place = HEADROOM..HEADROOM + octets.len();
    let mut buffer = vec![0; place.end + TAILROOM];
    buffer[place.clone()].copy_from_slice(&octets);
    let parsed = FlowKey::parse(&octets).unwrap();

    let mut params = params(TUNNEL);
    params.selectors = Vec::new().into();
    let mut other = Outbound::new(params).unwrap();
    assert!(!other.carries(&parsed.0));
    let refused = other.seal_parsed(&mut buffer, place.clone(), &parsed);
    assert_eq!(refused, Err(SealError::Selector));
    assert_eq!(buffer[place.clone()], octets);

    // What was parsed is not what lies there.
    let short = HEADROOM..HEADROOM + octets.len() - 1;
    let cut = sa(TUNNEL).seal_parsed(&mut buffer, short, &parsed);
    assert_eq!(cut, Err(SealError::Malformed));
    assert_eq!(buffer[place.clone()], octets);

    let sealed = sa(TUNNEL).seal_parsed(&mut buffer, place, &parsed).unwrap();
    assert_eq!(sealed, seal(&mut sa(TUNNEL), &octets).unwrap());
}

#[test]
fn the_room_that_is_needed_is_enough_and_one_octet_less_is_not() {
    for choice in 0..16 {
        let mut sa = sa(choice);
        let packet = packet();
        let sealed = seal(&mut sa, &packet).unwrap();
        let front = HEADROOM - sealed.range.start.min(HEADROOM);
        let back = sealed.range.end - HEADROOM - packet.len();
        for (less_front, less_back) in [(0, 0), (1, 0), (0, 1)] {
            if less_front > front {
                continue; // In transport mode the packet's own header may be room enough.
            }
            let front = front - less_front;
            let mut buffer = [&vec![0; front], &packet[..], &vec![0; back - less_back]].concat();
            let sealed = sa.seal(&mut buffer, front..front + packet.len());
            let expected = (less_front + less_back > 0).then_some(SealError::NoRoom);
            assert_eq!(sealed.err(), expected, "choice {choice}");
        }
    }
}

#[test]
fn a_range_outside_of_the_buffer_is_refused() {
    for range in [90..101, 200..300] {
        assert_eq!(
            sa(TUNNEL).seal(&mut [0; 100], range),
            Err(SealError::NoRoom)
        );
    }
}

#[test]
fn the_longest_packet_is_sealed_and_a_longer_one_is_not() {
    let sealed_len = |payload: usize| {
        let sealed = seal(&mut sa(TUNNEL), &ip(4, 0, 99, &vec![0; payload]));
        sealed.map(|sealed| sealed.range.len())
    };
    assert_eq!(sealed_len(65_450), Ok(65_504));
    assert_eq!(sealed_len(65_451), Err(SealError::TooLong));
}

#[test]
fn limits_stop_the_sa() {
    let mut params = params(TUNNEL);
    params.limits = Limits {
        soft_packets: Some(2),
        hard_packets: Some(3),
        ..Limits::default()
    };
    let mut sa = Outbound::new(params).unwrap();
    let mut soft = || seal(&mut sa, &packet()).map(|sealed| sealed.soft_limit);
    assert_eq!([soft(), soft(), soft()], [Ok(false), Ok(true), Ok(false)]);
    assert_eq!(soft(), Err(SealError::HardLimit));
}

//= test rfc4303 2.2-5 3.3.3-1
//= test security S-52
#[test]
fn the_counter_asks_for_a_successor_at_half_and_ends_before_it_cycles() {
    let mut sa = sa(TUNNEL);
    sa.counter.jump(1 << 31);
    assert!(seal(&mut sa, &packet()).unwrap().soft_limit);
    assert!(!seal(&mut sa, &packet()).unwrap().soft_limit);
    sa.counter.jump((1 << 32) - 2);
    assert!(seal(&mut sa, &packet()).is_ok());
    assert_eq!(seal(&mut sa, &packet()), Err(SealError::CounterExhausted));
    assert_eq!(seal(&mut sa, &packet()), Err(SealError::CounterExhausted));
}

//= test rfc4303 3.3.4-1
#[test]
fn the_longest_packet_for_a_path_fits_and_one_octet_more_does_not() {
    for choice in 0..16 {
        for (mtu, v6, encap) in [
            (1500, false, false),
            (1500, true, true),
            (1280, true, false),
            (577, false, true),
        ] {
            let mut sa = sa(choice);
            let around = if v6 { 40 } else { 20 } + if encap { 8 } else { 0 };
            let header = if v6 { 40 } else { 20 };
            let max = sa.max_packet(mtu, v6, encap);
            let mut outer_len = |len: usize| {
                let packet = ip(if v6 { 6 } else { 4 }, 0, 99, &vec![0; len - header]);
                around + seal(&mut sa, &packet).unwrap().range.len()
            };
            assert!(outer_len(max) <= mtu, "choice {choice}, mtu {mtu}");
            assert!(outer_len(max + 1) > mtu, "choice {choice}, mtu {mtu}");
        }
        assert_eq!(sa(choice).max_packet(30, false, false), 0);
    }
}

//= test rfc7296 2.24-1
#[test]
fn what_the_outer_header_needs_is_told() {
    let mut packet = ip(4, 0xba, 17, &udp((1, 2), b"ab"));
    packet[6] = 0;
    let sealed = seal(&mut sa(TUNNEL), &packet).unwrap();
    assert_eq!((sealed.tos, sealed.ttl, sealed.df), (0xba, None, false));
    packet[6] = 0x40;
    packet[8] = 9;
    let sealed = seal(&mut sa(TRANSPORT), &packet).unwrap();
    assert_eq!((sealed.tos, sealed.ttl, sealed.df), (0xba, Some(9), true));
    let sealed = seal(&mut sa(TRANSPORT), &ip(6, 0xba, 17, &udp((1, 2), b"ab"))).unwrap();
    assert_eq!((sealed.tos, sealed.ttl, sealed.df), (0xba, Some(64), true));
}
