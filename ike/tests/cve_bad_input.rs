//! Bad input, each kind under its own counter and without a trace beside it.

use obol_ike::error::Dropped;
use obol_ike::testing::scripted::Scripted;
use obol_ike::testing::setup::{ID_A, Setup};
use obol_ike::wire::{ExchangeType, KeMethod, NotifyType, PayloadType};

/// Where things are in the scripted peer's first request: header, SA, KE.
const HEADER: usize = 28;

/// The offset of the body of a payload in the first request.
fn body(request: &[u8], ty: PayloadType) -> usize {
    let (mut at, mut next) = (HEADER, request[16]);
    while next != ty.0 {
        assert_ne!(next, 0, "the request has {ty:?}");
        next = request[at];
        at += usize::from(u16::from_be_bytes([request[at + 2], request[at + 3]]));
    }
    at + 4
}

/// Gives a changed first request to a host that has no trace of it; the reason it was dropped for.
fn drop_reason(change: impl FnOnce(&mut Vec<u8>)) -> Option<Dropped> {
    let mut peer = Scripted::begun(Setup::new(1));
    let mut request = peer.first_request().to_vec();
    // Another SPI: it is a request of its own.
    request[0] ^= 0xff;
    change(&mut request);
    let before = peer.up();
    let result = peer.give(&request).err();
    if let Some(reason) = result {
        assert_eq!(peer.up(), before, "{reason:?} leaves a trace");
        assert_eq!(peer.pair.b.dropped.len(), 1, "{reason:?} alone");
        assert_eq!(peer.pair.b.dropped[&reason], 1);
    }
    result
}

#[test]
fn each_bad_first_request_raises_exactly_its_counter() {
    let ke = |request: &[u8]| body(request, PayloadType::KE);
    assert_eq!(drop_reason(|_| {}), None);
    type Change = Box<dyn FnOnce(&mut Vec<u8>)>;
    let rows: Vec<(&str, Dropped, Change)> = vec![
        (
            "cut short",
            Dropped::Malformed,
            Box::new(|r| r.truncate(100)),
        ),
        ("length field", Dropped::Malformed, Box::new(|r| r[27] ^= 1)),
        ("SPI zero", Dropped::Malformed, Box::new(|r| r[..8].fill(0))),
        ("Message ID", Dropped::Malformed, Box::new(|r| r[23] = 1)),
        ("version", Dropped::Version, Box::new(|r| r[17] = 0x30)),
        (
            "an SPI of ours",
            Dropped::UnknownSpi,
            Box::new(|r| r[15] = 1),
        ),
        (
            "unknown critical payload",
            Dropped::Critical,
            Box::new(|r| {
                let at = body(r, PayloadType::NOTIFY) - 4;
                let nonce = body(r, PayloadType::NONCE) - 4;
                (r[nonce], r[at + 1]) = (200, 0x80);
            }),
        ),
        (
            "no nonce",
            Dropped::Incomplete,
            Box::new(|r| {
                let ke = body(r, PayloadType::KE) - 4;
                r[ke] = 200;
            }),
        ),
        (
            "unknown algorithms",
            Dropped::NoProposal,
            Box::new(|r| {
                // The first transform's number.
                r[HEADER + 4 + 8 + 7] = 99;
            }),
        ),
        (
            "KE of another method",
            Dropped::OtherKeMethod,
            Box::new(move |r| {
                let at = ke(r);
                r[at..at + 2].copy_from_slice(&KeMethod::ECP_256.0.to_be_bytes());
            }),
        ),
        (
            "KE value of zeros",
            Dropped::KeyExchange,
            Box::new(move |r| {
                let at = ke(r);
                r[at + 4..at + 36].fill(0);
            }),
        ),
        (
            "KE value of low order",
            Dropped::KeyExchange,
            Box::new(move |r| {
                let at = ke(r);
                r[at + 4..at + 36].fill(0);
                r[at + 4] = 1;
            }),
        ),
    ];
    for (name, reason, change) in rows {
        assert_eq!(drop_reason(change), Some(reason), "{name}");
    }
}

#[test]
fn each_bad_protected_request_raises_exactly_its_counter() {
    let informational = ExchangeType::INFORMATIONAL;
    let nothing = (PayloadType::NONE, Vec::new());
    let mut peer = Scripted::established(Setup::new(1));
    let good = peer.whole(informational, &nothing);
    let mut forged = good.clone();
    *forged.last_mut().expect("octets") ^= 1;
    let mut bare = good.clone();
    bare[16] = 0;
    bare.truncate(HEADER);
    bare[24..28].copy_from_slice(&(HEADER as u32).to_be_bytes());
    peer.message_id += 5;
    let ahead = peer.whole(informational, &nothing);
    peer.message_id = 0;
    let replayed = peer.whole(informational, &nothing);
    let mut unasked = good.clone();
    unasked[19] |= 0x20;
    let rows = [
        (forged, Dropped::Integrity),
        (bare, Dropped::Unprotected),
        (ahead, Dropped::MessageId),
        (replayed, Dropped::MessageId),
        (unasked, Dropped::Unexpected),
    ];
    for (datagram, reason) in rows {
        let before = peer.pair.b.dropped.clone();
        assert_eq!(peer.give(&datagram), Err(reason));
        let counted = peer.pair.b.dropped.get(&reason).copied().unwrap_or(0);
        assert_eq!(counted, before.get(&reason).copied().unwrap_or(0) + 1);
    }
    assert_eq!(peer.give(&good), Ok(1), "and the real one is answered");
    assert_eq!(peer.give(&good), Err(Dropped::Repeated));
    assert_eq!(peer.up(), (1, 1));
}

#[test]
fn faults_of_a_proven_peer_are_counted_by_name() {
    let mut peer = Scripted::established(Setup::new(1));
    let unknown = [0, 0x80, 0, 4];
    let chain = (PayloadType(200), {
        let mut chain = unknown.to_vec();
        chain[1] = 0x80;
        chain
    });
    let request = peer.whole(ExchangeType::INFORMATIONAL, &chain);
    assert_eq!(peer.give(&request), Ok(1));
    assert_eq!(
        peer.last_reply().error(),
        Some(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD)
    );
    let reply = peer.request_octets(
        ExchangeType::INFORMATIONAL,
        PayloadType::DELETE,
        &[0, 0, 0, 3],
    );
    assert_eq!(
        reply.expect("answered").error(),
        Some(NotifyType::INVALID_SYNTAX)
    );
    let faults = peer.pair.b.endpoint.faults();
    assert_eq!(faults.get("unsupported_critical"), Some(&1));
    assert_eq!(faults.get("invalid_syntax"), Some(&1));
    assert_eq!(faults.len(), 2);
}

#[test]
fn rejected_init_leaves_spi_unusable() {
    let mut peer = Scripted::begun(Setup::new(1));
    let reply = peer.prove("@nobody.example.com", |_| {}).expect("answered");
    assert_eq!(reply.error(), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(peer.prove(ID_A, |_| {}).err(), Some(Dropped::OutOfPlace));
    let request = peer.first_request().to_vec();
    let mut rejected = request.clone();
    rejected[HEADER + 4 + 8 + 7] = 99;
    rejected[0] ^= 0xff;
    assert_eq!(peer.give(&rejected), Err(Dropped::NoProposal));
    // The answer named no SPI of ours, and none that is guessed works.
    let answer = &peer.pair.net.sent.last().expect("an answer").datagram;
    assert_eq!(answer[8..16], [0; 8]);
    assert_eq!(peer.up(), (0, 0));
}

#[test]
fn ike_proposal_missing_each_transform_type() {
    // ENCR, PRF and KE of the scripted peer's only proposal, each in turn of a type that nobody knows.
    for transform in 0..3 {
        let reason = drop_reason(|request| {
            let mut at = HEADER + 4 + 8;
            for _ in 0..transform {
                at += usize::from(u16::from_be_bytes([request[at + 2], request[at + 3]]));
            }
            request[at + 4] = 200;
        });
        assert_eq!(reason, Some(Dropped::NoProposal), "{transform}");
    }
}

#[test]
fn reserved_bits_all_set_everywhere() {
    let reason = drop_reason(|request| {
        // Header flags, generic headers, proposals, transforms, KE.
        request[19] |= 0xc7;
        let (mut at, mut next) = (HEADER, request[16]);
        while next != 0 {
            next = request[at];
            request[at + 1] |= 0x7f;
            at += usize::from(u16::from_be_bytes([request[at + 2], request[at + 3]]));
        }
        let sa = body(request, PayloadType::SA);
        request[sa + 1] = 0xff;
        let ke = body(request, PayloadType::KE);
        request[ke + 2..ke + 4].fill(0xff);
    });
    assert_eq!(
        reason, None,
        "reserved bits are ignored: RFC 7296 section 3"
    );
}
