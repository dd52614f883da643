//! What is sealed opens to the same packet, and nothing else opens.

mod common;

use common::*;
use obol_esp::{FlowKey, Inbound, Mode, OpenError, Outbound, classify_udp};
use proptest::prelude::*;

fn any_suite() -> impl Strategy<Value = obol_esp::Suite> {
    prop::sample::select(SUITES.to_vec())
}

fn any_mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(vec![Mode::Tunnel, Mode::Transport])
}

fn any_version() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![4u8, 6])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_sealed_opens_to_the_same_packet(
        suite in any_suite(),
        mode in any_mode(),
        inner in any_version(),
        outer_version in any_version(),
        esn: bool,
        tos: u8,
        payload in prop::collection::vec(any::<u8>(), 0..1500),
        packets in 1usize..4,
    ) {
        // In transport mode there is one header, so one family.
        let outer_version = if mode == Mode::Transport { inner } else { outer_version };
        let make = || obol_esp::SaParams { esn, ..params(suite, mode) };
        let mut outbound = Outbound::new(make()).unwrap();
        let mut inbound = Inbound::new(make()).unwrap();
        let packet = ip(inner, tos, 17, &udp(1, 2, &payload));
        for nth in 0..packets {
            let mut room = Room::new(&packet);
            let sealed = outbound.seal(&mut room.buffer, room.range.clone()).unwrap();
            prop_assert_eq!(sealed.tos, tos);
            prop_assert_eq!(sealed.inner_len, packet.len());
            prop_assert_eq!(sealed.ttl, (mode == Mode::Transport).then_some(57));
            prop_assert!(sealed.df);
            let (header, align, icv) = layout(suite);
            prop_assert_eq!((sealed.range.len() - header - icv) % align, 0);
            prop_assert!(sealed.range.len() <= packet.len() + outbound.overhead());
            let esp = room.buffer[sealed.range].to_vec();
            prop_assert_eq!(&esp[..4], SPI.to_be_bytes());
            prop_assert_eq!(&esp[4..8], (nth as u32 + 1).to_be_bytes());

            let mut room = Room::new(&esp);
            let outer = outer(outer_version, sealed.tos);
            let opened = inbound.open(&mut room.buffer, room.range, outer).unwrap();
            prop_assert_eq!(&room.buffer[opened.range], &packet[..]);
            prop_assert_eq!(opened.first, nth == 0);
        }
        prop_assert_eq!(outbound.usage(), inbound.usage());
        prop_assert_eq!(outbound.usage().packets, packets as u64);
    }

    #[test]
    fn random_octets_never_panic(
        suite in any_suite(),
        mode in any_mode(),
        esn: bool,
        octets in prop::collection::vec(any::<u8>(), 0..200),
        spi_fits: bool,
    ) {
        let mut octets = octets;
        if spi_fits && octets.len() >= 4 {
            octets[..4].copy_from_slice(&SPI.to_be_bytes());
        }
        let mut inbound =
            Inbound::new(obol_esp::SaParams { esn, ..params(suite, mode) }).unwrap();
        prop_assert!(open(&mut inbound, &octets, outer(4, 0)).is_err());
        let mut outbound = Outbound::new(params(suite, mode)).unwrap();
        let mut room = Room::new(&octets);
        let _ = outbound.seal(&mut room.buffer, room.range);
        let _ = FlowKey::parse(&octets);
        let _ = classify_udp(&octets);
    }
}

//= test rfc4303 3.4.3-2 3.4.3-7 3.4.4.1-5
//= test security S-60
#[test]
fn a_flip_of_any_bit_is_refused_and_leaves_no_trace() {
    for suite in SUITES {
        for esn in [false, true] {
            let make = || obol_esp::SaParams {
                esn,
                ..params(suite, Mode::Tunnel)
            };
            let mut outbound = Outbound::new(make()).unwrap();
            let mut inbound = Inbound::new(make()).unwrap();
            let packet = ip(4, 0, 17, &udp(1, 2, b"payload"));
            let esp = seal(&mut outbound, &packet);
            for bit in 0..esp.len() * 8 {
                let mut forged = esp.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                let error = open(&mut inbound, &forged, outer(4, 0)).unwrap_err();
                let expected = match bit / 8 {
                    0..4 => OpenError::Spi,
                    _ => OpenError::Integrity,
                };
                // A sequence number of 0 is refused before the ICV is looked at.
                if forged[4..8] == [0; 4] {
                    assert_eq!(error, OpenError::Replay);
                } else {
                    assert_eq!(error, expected, "{suite:?} bit {bit}");
                }
            }
            // None of that moved the window: the genuine one opens.
            assert_eq!(
                open(&mut inbound, &esp, outer(4, 0)),
                Ok(packet),
                "{suite:?}"
            );
            assert_eq!(
                open(&mut inbound, &esp, outer(4, 0)),
                Err(OpenError::Replay)
            );
        }
    }
}

#[test]
fn a_truncated_or_longer_datagram_is_refused() {
    for suite in SUITES {
        let (mut outbound, mut inbound) = pair(suite, Mode::Tunnel);
        let esp = seal(&mut outbound, &ip(6, 0, 17, &udp(1, 2, b"some payload")));
        for len in 0..esp.len() {
            let error = open(&mut inbound, &esp[..len], outer(6, 0)).unwrap_err();
            assert!(
                matches!(error, OpenError::Short | OpenError::Integrity),
                "{suite:?} {len}"
            );
        }
        for more in 1..40 {
            let mut longer = esp.clone();
            longer.extend(vec![0; more]);
            let error = open(&mut inbound, &longer, outer(6, 0)).unwrap_err();
            assert!(
                matches!(error, OpenError::Short | OpenError::Integrity),
                "{suite:?} {more}"
            );
        }
    }
}

//= test rfc4303 2.2-1
//= test security S-63
#[test]
fn the_iv_never_repeats() {
    for suite in SUITES {
        let (mut outbound, _) = pair(suite, Mode::Tunnel);
        let (header, ..) = layout(suite);
        let packet = ip(4, 0, 17, &udp(1, 2, b"same"));
        let ivs: std::collections::HashSet<Vec<u8>> = (0..500)
            .map(|_| seal(&mut outbound, &packet)[8..header].to_vec())
            .collect();
        assert_eq!(ivs.len(), 500, "{suite:?}");
    }
}

#[test]
fn keys_of_one_end_do_not_open_what_others_sealed() {
    for suite in SUITES {
        let mut outbound = Outbound::new(params(suite, Mode::Tunnel)).unwrap();
        let esp = seal(&mut outbound, &ip(4, 0, 17, &udp(1, 2, b"x")));
        for integrity in [false, true] {
            let mut other = params(suite, Mode::Tunnel);
            let key = if integrity {
                &mut other.integ_key
            } else {
                &mut other.encr_key
            };
            let Some(octet) = key.first_mut() else {
                continue;
            };
            // The lowest bit is none of a key of DES.
            *octet ^= 2;
            let mut inbound = Inbound::new(other).unwrap();
            let opened = open(&mut inbound, &esp, outer(4, 0));
            match suite {
                // The ICV does not depend on this key; the plaintext is garbage.
                obol_esp::Suite::AesCbcHmac { .. } | obol_esp::Suite::TripleDesCbcHmac { .. }
                    if !integrity =>
                {
                    assert!(opened.is_err());
                }
                _ => assert_eq!(opened, Err(OpenError::Integrity), "{suite:?}"),
            }
        }
    }
}

#[test]
fn an_sa_can_move_to_its_thread_and_shows_no_key() {
    fn sendable(value: impl std::fmt::Debug + Send) -> String {
        format!("{value:?}")
    }
    let params = params(SUITES[3], Mode::Tunnel);
    let keys = [&params.encr_key, &params.integ_key].map(|key| {
        let octets = key[..4].iter().map(u8::to_string);
        octets.collect::<Vec<_>>().join(", ")
    });
    let (outbound, inbound) = pair(SUITES[3], Mode::Tunnel);
    for shown in [sendable(params), sendable(outbound), sendable(inbound)] {
        assert!(shown.contains("c0de0001"), "{shown}");
        assert!(keys.iter().all(|key| !shown.contains(key)), "{shown}");
    }
}
