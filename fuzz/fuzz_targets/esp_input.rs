//! ESP from the network: the input once as it is, and once as what a peer that knows the key
//! has encrypted. The first octet chooses the kind of SA.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Nonce};
use libfuzzer_sys::fuzz_target;
use obol_esp::{
    HEADROOM, Inbound, Limits, Mode, Outer, SaParams, Selector, Selectors, Suite, TAILROOM,
    classify_udp, spi_of,
};
use zeroize::Zeroizing;

const SPI: u32 = 0x1000;
const KEY: [u8; 16] = [1; 16];
const SALT: [u8; 4] = [2; 4];
const IV: [u8; 8] = [3; 8];

fuzz_target!(|input: &[u8]| {
    let Some((kind, input)) = input.split_first() else {
        return;
    };
    let _ = (classify_udp(input), spi_of(input));
    let mut sa = inbound(*kind);
    open(&mut sa, outer(*kind), input);
    let sealed = seal(*kind, input);
    open(&mut sa, outer(*kind), &sealed);
    open(&mut sa, outer(*kind), &sealed);
});

fn open(sa: &mut Inbound, outer: Outer, datagram: &[u8]) {
    let mut buffer = vec![0xaa; HEADROOM + datagram.len() + TAILROOM];
    let range = HEADROOM..HEADROOM + datagram.len();
    buffer[range.clone()].copy_from_slice(datagram);
    if let Ok(opened) = sa.open(&mut buffer, range, outer) {
        let packet = &buffer[opened.range];
        let version = packet.first().map(|octet| octet >> 4);
        assert!(matches!(version, Some(4 | 6)), "{packet:02x?}");
    }
}

/// RFC 4303 section 2 with AES-GCM (RFC 4106); padding, if any, is the plaintext's affair.
fn seal(kind: u8, plaintext: &[u8]) -> Vec<u8> {
    let (spi, sequence) = (SPI.to_be_bytes(), 1u32.to_be_bytes());
    let associated = if esn(kind) {
        [spi, [0; 4], sequence].concat()
    } else {
        [spi, sequence].concat()
    };
    let nonce: [u8; 12] = [&SALT[..], &IV]
        .concat()
        .try_into()
        .expect("4 and 8 octets are 12");
    let mut body = plaintext.to_vec();
    let cipher = Aes128Gcm::new(&KEY.into());
    cipher
        .encrypt_in_place(&Nonce::from(nonce), &associated, &mut body)
        .expect("short enough");
    [&spi[..], &sequence, &IV, &body].concat()
}

fn esn(kind: u8) -> bool {
    kind & 2 != 0
}

fn inbound(kind: u8) -> Inbound {
    Inbound::new(SaParams {
        spi: SPI,
        suite: Suite::AesGcm16 { key_bits: 128 },
        encr_key: Zeroizing::new([&KEY[..], &SALT].concat()),
        integ_key: Zeroizing::new(Vec::new()),
        mode: if kind & 1 == 0 {
            Mode::Tunnel
        } else {
            Mode::Transport
        },
        esn: esn(kind),
        selectors: selectors(),
        limits: Limits::default(),
        replay_window: SaParams::REPLAY_WINDOW,
        repair_checksums: kind & 4 != 0,
        transport_addresses: None,
    })
    .expect("the parameters fit together")
}

fn selectors() -> Selectors {
    let v4 = (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into());
    let v6 = (
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::from_bits(u128::MAX).into(),
    );
    let any = |range| {
        Selector::new(0, range, Selector::ANY_PORT, range, Selector::ANY_PORT)
            .expect("the whole range of one family")
    };
    Selectors::new(vec![any(v4), any(v6)])
}

fn outer(kind: u8) -> Outer {
    let v4 = |last| IpAddr::from([192, 0, 2, last]);
    let v6 = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    let (source, destination) = if kind & 8 == 0 {
        (v4(1), v4(2))
    } else {
        (v6(1), v6(2))
    };
    Outer {
        source,
        destination,
        tos: kind >> 4,
        ttl: 64,
    }
}
