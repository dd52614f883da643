//! Golden packets of a real strongSwan: obol opens every one of them.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use obol_esp::{
    FlowKey, HEADROOM, Hash, Inbound, Limits, Mode, OpenError, Outer, SaParams, Selector,
    Selectors, Suite, TAILROOM, spi_of,
};

/// Every ping carries this.
const MARKER: &[u8] = b"obol plain text.";

struct Session {
    name: String,
    sas: BTreeMap<u32, Inbound>,
    packets: Vec<Vec<u8>>,
}

//= test rfc4303 3.4.3-1 3.4.3-5
//= test security S-60
#[test]
fn every_packet_opens_once_and_unchanged_only() {
    let mut opened = 0;
    for mut session in sessions() {
        for packet in &session.packets {
            let sa = session.sas.get_mut(&spi_of(packet).unwrap()).unwrap();
            for at in (0..packet.len()).step_by(7) {
                let mut changed = packet.clone();
                changed[at] ^= 0x40;
                assert!(open(sa, &changed).is_err(), "{} octet {at}", session.name);
            }
            let inner = open(sa, packet).unwrap();
            check(&session.name, &inner);
            assert_eq!(open(sa, packet), Err(OpenError::Replay), "{}", session.name);
            opened += 1;
        }
    }
    assert!(opened >= 80, "only {opened} packets");
}

/// A ping from one end of the lab to the other.
fn check(name: &str, inner: &[u8]) {
    let (flow, info) = FlowKey::parse(inner).unwrap();
    assert_eq!(info.total_len, inner.len(), "{name}");
    let ends = [flow.source, flow.destination].map(|address| address.to_string());
    let known = match info.version {
        4 => ["10.1.0.1", "10.2.0.1"],
        _ => ["fd00:a1::1", "fd00:a2::1"],
    };
    assert!(
        known.iter().all(|end| ends.contains(&end.to_string())),
        "{name}: {ends:?}"
    );
    let protocol = if info.version == 4 { 1 } else { 58 };
    assert_eq!(flow.protocol, protocol, "{name}");
    assert!(
        inner.windows(MARKER.len()).any(|octets| octets == MARKER),
        "{name}"
    );
}

fn open(sa: &mut Inbound, packet: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut buffer = vec![0; HEADROOM + packet.len() + TAILROOM];
    let range = HEADROOM..HEADROOM + packet.len();
    buffer[range.clone()].copy_from_slice(packet);
    let outer = Outer {
        source: IpAddr::from([192, 0, 2, 1]),
        destination: IpAddr::from([192, 0, 2, 2]),
        tos: 0,
        ttl: 64,
    };
    let opened = sa.open(&mut buffer, range, outer)?;
    Ok(buffer[opened.range].to_vec())
}

fn sessions() -> Vec<Session> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let sessions: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .map(|path| session(&std::fs::read_to_string(path).unwrap()))
        .collect();
    assert!(sessions.len() >= 11, "golden files are missing");
    sessions
}

fn session(text: &str) -> Session {
    let (head, packets) = text.split_once("\n\n").unwrap();
    let values: BTreeMap<_, _> = head
        .lines()
        .map(|line| {
            line.split_once(": ")
                .unwrap_or((line.trim_end_matches(':'), ""))
        })
        .collect();
    let sas = values
        .keys()
        .filter_map(|name| name.strip_suffix(".spi"))
        .map(|sa| inbound(&values, sa))
        .map(|sa| (sa.spi(), sa))
        .collect();
    Session {
        name: values["name"].to_owned(),
        sas,
        packets: packets
            .lines()
            .map(|line| hex::decode(line.split(' ').nth(2).unwrap()).unwrap())
            .collect(),
    }
}

fn inbound(values: &BTreeMap<&str, &str>, sa: &str) -> Inbound {
    let value = |part: &str| values[format!("{sa}.{part}").as_str()].trim();
    let any = |first: IpAddr, last: IpAddr| {
        Selector::new(
            0,
            (first, last),
            Selector::ANY_PORT,
            (first, last),
            Selector::ANY_PORT,
        )
        .unwrap()
    };
    Inbound::new(SaParams {
        spi: u32::from_str_radix(value("spi"), 16).unwrap(),
        suite: suite(value("algorithms")),
        encr_key: hex::decode(value("encr")).unwrap().into(),
        integ_key: hex::decode(value("integ")).unwrap().into(),
        mode: Mode::Tunnel,
        esn: false,
        selectors: Selectors::new(vec![
            any(
                IpAddr::from([10, 0, 0, 0]),
                IpAddr::from([10, 255, 255, 255]),
            ),
            any(
                IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0]),
                IpAddr::from([0xfd00, 0xffff, 0, 0, 0, 0, 0, 0]),
            ),
        ]),
        limits: Limits::default(),
        replay_window: SaParams::REPLAY_WINDOW,
        repair_checksums: false,
        transport_addresses: None,
    })
    .unwrap()
}

fn suite(algorithms: &str) -> Suite {
    let cbc = |key_bits| {
        let hash = match algorithms.split('/').nth(1).unwrap() {
            "HMAC_SHA2_256_128" => Hash::Sha256,
            "HMAC_SHA2_384_192" => Hash::Sha384,
            "HMAC_SHA2_512_256" => Hash::Sha512,
            other => panic!("no integrity algorithm: {other}"),
        };
        Suite::AesCbcHmac { key_bits, hash }
    };
    match algorithms.split('/').next().unwrap() {
        "AES_GCM_16_128" => Suite::AesGcm16 { key_bits: 128 },
        "AES_GCM_16_256" => Suite::AesGcm16 { key_bits: 256 },
        "CHACHA20_POLY1305" => Suite::ChaCha20Poly1305,
        "AES_CBC_128" => cbc(128),
        "AES_CBC_192" => cbc(192),
        "AES_CBC_256" => cbc(256),
        other => panic!("no cipher: {other}"),
    }
}
