//! A door for fuzzers, and what it shares with the tests: packets that verify but hold anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zeroize::Zeroizing;

use crate::cipher;
use crate::error::OpenError;
use crate::flow::FlowKey;
use crate::inbound::{Inbound, Outer};
use crate::outbound::Outbound;
use crate::params::{Hash, Limits, Mode, SaParams, Suite};
use crate::selector::{Selector, Selectors};
use crate::wire::{self, classify_udp};
use crate::{HEADROOM, TAILROOM};

const SPI: u32 = 0x0102_0304;

/// Runs arbitrary octets through everything that takes octets from the network.
///
/// The first octet chooses suite, mode, family, ESN and checksum repair, and whether the rest is
/// a datagram as it came, or what an authenticated peer could have put into one. The second
/// octet is the outer type of service. SAs have fixed keys and the SPI 0x01020304.
///
/// # Panics
/// If something is opened that is not one whole IP packet, opens twice, or does not open to what
/// was sealed: a bug that the fuzzer found.
pub fn fuzz_input(data: &[u8]) {
    let _ = classify_udp(data);
    let _ = FlowKey::parse(data);
    let &[choice, tos, ref rest @ ..] = data else {
        return;
    };
    let outer = outer(if choice & 0x40 == 0 { 4 } else { 6 }, tos);
    if choice & 0x20 == 0 {
        check_open(choice, rest, outer);
    } else {
        check_open(choice, &forge(&params(choice), 1, rest), outer);
    }
    check_seal(choice, rest, outer);
}

/// Opens a datagram twice.
fn check_open(choice: u8, datagram: &[u8], outer: Outer) {
    let mut inbound = Inbound::new(params(choice)).expect("the parameters below fit together");
    let (mut buffer, range) = with_room(datagram);
    let Ok(opened) = inbound.open(&mut buffer, range.clone(), outer) else {
        return;
    };
    let (_, info) = FlowKey::parse(&buffer[opened.range.clone()]).expect("an IP packet");
    assert_eq!(info.total_len, opened.range.len());
    let (mut buffer, range) = with_room(datagram);
    assert_eq!(
        inbound.open(&mut buffer, range, outer),
        Err(OpenError::Replay)
    );
}

/// Seals a packet, and opens it if that went well.
fn check_seal(choice: u8, packet: &[u8], outer: Outer) {
    let mut outbound = Outbound::new(params(choice)).expect("the parameters below fit together");
    let mut inbound = Inbound::new(params(choice)).expect("the parameters below fit together");
    let (mut buffer, range) = with_room(packet);
    let Ok(sealed) = outbound.seal(&mut buffer, range) else {
        return;
    };
    let outer = Outer {
        tos: sealed.tos,
        ..outer
    };
    let opened = inbound.open(&mut buffer, sealed.range, outer);
    if params(choice).mode == Mode::Tunnel {
        let opened = opened.expect("what was sealed opens");
        assert_eq!(buffer[opened.range], packet[..sealed.inner_len]);
    }
}

fn with_room(octets: &[u8]) -> (Vec<u8>, std::ops::Range<usize>) {
    let buffer = [&[0; HEADROOM], octets, &[0; TAILROOM]].concat();
    (buffer, HEADROOM..HEADROOM + octets.len())
}

/// A datagram that verifies, with this number; what is in it is as given, but for zeros in front
/// that fill the first block.
pub(crate) fn forge(params: &SaParams, sequence: u64, body: &[u8]) -> Vec<u8> {
    let cipher = cipher::new(
        params.suite,
        &params.encr_key,
        &params.integ_key,
        params.esn,
    )
    .expect("the caller's parameters fit together");
    let layout = cipher.layout();
    let fill = body.len().next_multiple_of(layout.align) - body.len();
    let mut esp = vec![0; layout.header() + fill];
    esp.extend_from_slice(body);
    esp.resize(esp.len() + layout.icv, 0);
    wire::write_header(&mut esp, params.spi, sequence);
    cipher.write_iv(sequence, &mut esp[wire::ESP_HEADER..layout.header()]);
    cipher
        .seal(sequence, &mut esp)
        .expect("the body is a whole number of blocks");
    esp
}

/// Documentation addresses of one family (RFC 5737, RFC 3849).
pub(crate) fn outer(version: u8, tos: u8) -> Outer {
    let ends: [IpAddr; 2] = if version == 4 {
        [1, 2].map(|host| Ipv4Addr::new(192, 0, 2, host).into())
    } else {
        [1, 2].map(|host| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into())
    };
    Outer {
        source: ends[0],
        destination: ends[1],
        tos,
        ttl: 64,
    }
}

/// Selectors that every packet matches.
pub(crate) fn any_selectors() -> Selectors {
    let any = |first: IpAddr, last: IpAddr| {
        let range = (first, last);
        Selector::new(0, range, Selector::ANY_PORT, range, Selector::ANY_PORT)
            .expect("first and last address of one family")
    };
    Selectors::new(vec![
        any(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
        any(
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::from([0xff; 16]).into(),
        ),
    ])
}

/// Parameters with fixed keys, by the bits of `choice`.
pub(crate) fn params(choice: u8) -> SaParams {
    let cbc = |key_bits, hash| Suite::AesCbcHmac { key_bits, hash };
    let (suite, encr, integ) = match choice & 7 {
        0 => (Suite::AesGcm16 { key_bits: 128 }, 20, 0),
        1 => (Suite::AesGcm16 { key_bits: 256 }, 36, 0),
        2 => (Suite::ChaCha20Poly1305, 36, 0),
        3 => (cbc(128, Hash::Sha256), 16, 32),
        4 => (cbc(192, Hash::Sha384), 24, 48),
        5 => (Suite::TripleDesCbcHmac { hash: Hash::Sha256 }, 24, 32),
        _ => (cbc(256, Hash::Sha512), 32, 64),
    };
    SaParams {
        spi: SPI,
        suite,
        encr_key: Zeroizing::new(vec![0x5a; encr]),
        integ_key: Zeroizing::new(vec![0xa5; integ]),
        mode: if choice & 8 == 0 {
            Mode::Tunnel
        } else {
            Mode::Transport
        },
        esn: choice & 0x10 != 0,
        selectors: any_selectors(),
        limits: Limits::default(),
        replay_window: 1024,
        repair_checksums: choice & 0x80 != 0,
        transport_addresses: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_from_the_network_panics(data in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_input(&data);
        }

        /// Mostly right inner packets get much deeper than random octets do.
        #[test]
        fn nothing_from_an_authenticated_peer_panics(
            choice: u8,
            tos: u8,
            version in prop::sample::select(vec![0x45u8, 0x46, 0x60]),
            next_header in prop::sample::select(vec![0u8, 4, 6, 17, 41, 43, 44, 59, 60]),
            packet in prop::collection::vec(any::<u8>(), 40..120),
            length in 0usize..120,
            pad in 0u8..4,
        ) {
            let mut packet = packet;
            packet[0] = version;
            packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            packet[6] = next_header;
            packet.extend(1..=pad);
            packet.extend([pad, next_header]);
            let data = [&[choice | 0x20, tos], &packet[..]].concat();
            fuzz_input(&data);
        }
    }
}
