//! What RFC 4303 asks of packets as a whole.

mod common;

use common::*;
use obol_esp::{Mode, OpenError};

//= test rfc4303 2.3-3
#[test]
fn the_next_header_is_aligned_behind_the_esp_header() {
    for suite in SUITES {
        for version in [4, 6] {
            let (mut outbound, _) = pair(suite, Mode::Tunnel);
            let mut room = Room::new(&ip(version, 0, 17, &udp(1, 2, b"odd")));
            let packet = room.range.start;
            let sealed = outbound.seal(&mut room.buffer, room.range).unwrap();
            assert_eq!((packet - sealed.range.start) % 8, 0, "{suite:?}");
            assert_eq!(sealed.range.len() % 4, 0, "{suite:?}");
        }
    }
}

//= test rfc4303 3.4.3-6
//= test security S-59
#[test]
fn a_number_that_was_seen_is_refused_before_its_tag_is_looked_at() {
    for suite in SUITES {
        let (mut outbound, mut inbound) = pair(suite, Mode::Tunnel);
        let mut next = || seal(&mut outbound, &ip(4, 0, 17, &udp(1, 2, b"text")));
        let broken = |esp: &[u8]| {
            let mut broken = esp.to_vec();
            *broken.last_mut().unwrap() ^= 1;
            broken
        };
        let (first, second) = (next(), next());
        assert!(open(&mut inbound, &first, outer(4, 0)).is_ok());
        for (esp, error) in [
            (broken(&first), OpenError::Replay),
            (broken(&second), OpenError::Integrity),
        ] {
            let opened = open(&mut inbound, &esp, outer(4, 0));
            assert_eq!(opened, Err(error), "{suite:?}");
        }
        // Which takes nothing from the number.
        assert!(open(&mut inbound, &second, outer(4, 0)).is_ok());
    }
}
