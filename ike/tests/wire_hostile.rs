//! Malformed messages and payloads, one named row each: what a peer might send by mistake or
//! with intent, and why it is refused.

use obol_ike::event::{EspSpi, IkeSpi};
use obol_ike::wire::{
    Delete, ExchangeType, Flags, Fragment, HEADER_LEN, Header, MAX_PAYLOADS, MAX_PROPOSALS,
    MAX_TRANSFORMS, Malformed, Message, Notify, NotifyType, Payload, PayloadType, Proposal,
    ProtocolId, RawPayload, SelectorList, TooLong, Transform, TransformType, emit_chain,
    emit_message, parse_chain, protected_prefix,
};

fn header() -> Header {
    let flags = Flags {
        initiator: true,
        ..Flags::default()
    };
    Header::new(IkeSpi(1), IkeSpi(2), ExchangeType::INFORMATIONAL, flags, 3)
}

fn raw(ty: PayloadType, body: &[u8]) -> RawPayload<'_> {
    RawPayload {
        ty,
        critical: false,
        next: PayloadType::NONE,
        body,
    }
}

/// Octets in hex, spaces ignored.
fn octets(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).expect("a row of hexadecimal digits")
}

//= test rfc7296 3.9-1 3.11-1 3.11-3 3.13.1-4
//= test security S-22 S-39
//= test rfc7383 2.5-4 2.5-5 2.5-6 2.6-1
#[test]
fn payload_bodies() {
    use Malformed::*;
    use PayloadType as T;
    let cases: &[(&str, T, &str, Result<(), Malformed>)] = &[
        ("KE without its head", T::KE, "001f00", Err(Truncated)),
        ("ID without its head", T::ID_I, "0100", Err(Truncated)),
        ("AUTH without its head", T::AUTH, "02", Err(Truncated)),
        ("CERT of nothing", T::CERT, "", Err(Truncated)),
        ("nonce of 15", T::NONCE, &"00".repeat(15), Err(Length)),
        ("nonce of 16", T::NONCE, &"00".repeat(16), Ok(())),
        ("nonce of 256", T::NONCE, &"00".repeat(256), Ok(())),
        ("nonce of 257", T::NONCE, &"00".repeat(257), Err(Length)),
        (
            "notify, SPI beyond the end",
            T::NOTIFY,
            "03044009 000000",
            Err(Truncated),
        ),
        ("delete of the IKE SA", T::DELETE, "01000000", Ok(())),
        (
            "delete of the IKE SA with an SPI",
            T::DELETE,
            "01080001 0000000000000001",
            Err(Value),
        ),
        (
            "delete of many empty SPIs",
            T::DELETE,
            "0300ffff",
            Err(Value),
        ),
        (
            "delete, fewer SPIs than said",
            T::DELETE,
            "03040002 00000001",
            Err(Length),
        ),
        (
            "delete, more SPIs than said",
            T::DELETE,
            "03040001 0000000100000002",
            Err(Length),
        ),
        (
            "delete of a protocol we lack",
            T::DELETE,
            "02040001 00000001",
            Ok(()),
        ),
        ("SKF, number 0", T::SKF, "00000001", Err(Value)),
        ("SKF, total 0", T::SKF, "00010000", Err(Value)),
        ("SKF, number above total", T::SKF, "00030002", Err(Value)),
        ("SKF, the last", T::SKF, "00020002", Ok(())),
        (
            "TS, IPv4",
            T::TS_I,
            "01000000 07000010 0000ffff 0a000000 0a0000ff",
            Ok(()),
        ),
        (
            "TS, more than said",
            T::TS_I,
            "00000000 07000010 0000ffff 0a000000 0a0000ff",
            Err(Trailing),
        ),
        (
            "TS, fewer than said",
            T::TS_I,
            "02000000 07000010 0000ffff 0a000000 0a0000ff",
            Err(Truncated),
        ),
        (
            "TS, end before start",
            T::TS_I,
            "01000000 07000010 0000ffff 0a0000ff 0a000000",
            Err(Value),
        ),
        (
            "TS, ports end before start",
            T::TS_I,
            "01000000 07060010 00500001 0a000000 0a0000ff",
            Err(Value),
        ),
        (
            "TS, opaque ports",
            T::TS_I,
            "01000000 07060010 ffff0000 0a000000 0a0000ff",
            Ok(()),
        ),
        (
            "TS, IPv4 in the length of IPv6",
            T::TS_I,
            "01000000 07000011 0000ffff 0a000000 0a0000ff 00",
            Err(Trailing),
        ),
        (
            "TS, IPv6 in the length of IPv4",
            T::TS_I,
            "01000000 08000010 0000ffff 0a000000 0a0000ff",
            Err(Truncated),
        ),
        (
            "TS, length below its head",
            T::TS_I,
            "01000000 07000003 0000ffff 0a000000 0a0000ff",
            Err(Length),
        ),
        (
            "TS, type not known",
            T::TS_I,
            "01000000 09000006 abcd",
            Ok(()),
        ),
    ];
    for (case, ty, body, want) in cases {
        let body = octets(body);
        assert_eq!(raw(*ty, &body).decode().map(drop), *want, "{case}");
    }
}

//= test rfc7296 3.3-2
//= test security S-36
#[test]
fn proposals() {
    use Malformed::*;
    let cases: &[(&str, &str, Result<(), Malformed>)] = &[
        ("nothing", "", Err(Truncated)),
        ("one", "00000010 01010001 00000008 02000005", Ok(())),
        ("no transforms", "00000008 01010000", Ok(())),
        (
            "marked as not the last",
            "02000008 01010000",
            Err(Truncated),
        ),
        ("marked with 1", "01000008 01010000", Err(Inconsistent)),
        (
            "another after the last",
            "00000008 01010000 00000008 02010000",
            Err(Trailing),
        ),
        (
            "number repeated",
            "02000008 01010000 00000008 01010000",
            Err(Inconsistent),
        ),
        (
            "number falling",
            "02000008 02010000 00000008 01010000",
            Err(Inconsistent),
        ),
        ("number from 2", "00000008 02010000", Ok(())),
        ("length below its head", "00000003 01010000", Err(Length)),
        ("length beyond the end", "00000009 01010000", Err(Truncated)),
        ("IKE SPI of 4", "0000000c 01010400 00000001", Err(Value)),
        (
            "ESP SPI of 8",
            "00000010 01030800 0000000000000001",
            Err(Value),
        ),
        ("ESP without SPI", "00000008 01030000", Err(Value)),
        ("protocol not known", "0000000a 01090200 abcd", Ok(())),
        ("SPI beyond the end", "00000008 0101ff00", Err(Truncated)),
        (
            "transform missing",
            "00000010 01010002 00000008 02000005",
            Err(Inconsistent),
        ),
        (
            "transform not counted",
            "00000010 01010000 00000008 02000005",
            Err(Trailing),
        ),
        (
            "last transform marked as not",
            "00000010 01010001 03000008 02000005",
            Err(Inconsistent),
        ),
        (
            "transform marked with 2",
            "00000018 01010002 02000008 02000005 00000008 02000006",
            Err(Inconsistent),
        ),
        (
            "transform too short",
            "0000000f 01010001 00000007 020000",
            Err(Truncated),
        ),
        (
            "attribute cut off",
            "00000012 01010001 0000000a 02000005 800e",
            Err(Truncated),
        ),
        (
            "long attribute beyond the end",
            "00000015 01010001 0000000d 02000005 00120002 00",
            Err(Truncated),
        ),
    ];
    for (case, body, want) in cases {
        let body = octets(body);
        assert_eq!(
            raw(PayloadType::SA, &body).decode().map(drop),
            *want,
            "{case}"
        );
    }
}

//= test rfc7296 3.3.5-1 3.3-6 3.3.6-7
//= test security S-36
#[test]
fn an_attribute_that_is_not_known_spoils_its_transform_only() {
    let plain = Transform::new(TransformType::ENCR, 12, Some(256));
    let spoiled = Transform {
        unknown_attributes: true,
        ..plain
    };
    for (case, attributes, want) in [
        ("key length", "800e0100", plain),
        ("short form", "800e0100 80120000", spoiled),
        ("long form", "800e0100 00120003 abcdef", spoiled),
        ("key length twice", "800e0100 800e0080", spoiled),
        ("key length in long form", "800e0100 000e0002 0080", spoiled),
    ] {
        let attributes = octets(attributes);
        let first_len = u8::try_from(8 + attributes.len()).unwrap();
        let body = [
            &[0, 0, 0, 16 + first_len, 1, 1, 0, 2][..],
            &[3, 0, 0, first_len, 1, 0, 0, 12],
            &attributes,
            &[0, 0, 0, 8, 2, 0, 0, 5],
        ]
        .concat();
        let proposal = Proposal {
            num: 1,
            protocol: ProtocolId::IKE,
            spi: Vec::new(),
            transforms: vec![want, Transform::new(TransformType::PRF, 5, None)],
        };
        let decoded = raw(PayloadType::SA, &body).decode();
        assert_eq!(decoded, Ok(Payload::Sa(vec![proposal])), "{case}");
    }
}

#[test]
fn caps_hold_on_both_sides_of_the_limit() {
    let transform = Transform::new(TransformType::ENCR, 12, None);
    let proposal = |num: usize, transforms: usize| Proposal {
        num: u8::try_from(num).unwrap(),
        protocol: ProtocolId::IKE,
        spi: Vec::new(),
        transforms: vec![transform; transforms],
    };
    let proposals = |count| Payload::Sa((1..=count).map(|num| proposal(num, 1)).collect());
    let transforms = |count| Payload::Sa(vec![proposal(1, count)]);
    for (payload, want) in [
        (proposals(MAX_PROPOSALS), Ok(())),
        (proposals(MAX_PROPOSALS + 1), Err(Malformed::TooMany)),
        (transforms(MAX_TRANSFORMS), Ok(())),
        (transforms(MAX_TRANSFORMS + 1), Err(Malformed::TooMany)),
    ] {
        let mut chain = Vec::new();
        let first = emit_chain(&[payload], &mut chain).unwrap();
        let raw = parse_chain(first, &chain).unwrap();
        assert_eq!(raw[0].decode().map(drop), want);
    }
    for (count, want) in [
        (MAX_PAYLOADS, Ok(MAX_PAYLOADS)),
        (MAX_PAYLOADS + 1, Err(Malformed::TooMany)),
    ] {
        let datagram = emit_message(&header(), &vec![Payload::VendorId(b"x"); count]).unwrap();
        assert_eq!(Message::parse(&datagram).map(|m| m.payloads.len()), want);
    }
}

//= test rfc7296 3.1-1
//= test security S-35 S-40
#[test]
fn chains() {
    let sk = |body| Payload::Sk {
        first: PayloadType::NOTIFY,
        body,
    };
    let vendor = Payload::VendorId(b"x");
    let parse = |payloads: &[Payload<'_>]| {
        let datagram = emit_message(&header(), payloads).unwrap();
        Message::parse(&datagram).map(|message| message.payloads.len())
    };
    assert_eq!(parse(&[]), Ok(0));
    assert_eq!(parse(&[vendor.clone(), sk(b"abc")]), Ok(2));
    let after_sk = parse(&[sk(b"abc"), vendor.clone()]);
    assert_eq!(after_sk, Err(Malformed::Trailing));

    let mut inner = Vec::new();
    let first = emit_chain(&[vendor, sk(b"abc")], &mut inner).unwrap();
    assert_eq!(parse_chain(first, &inner), Err(Malformed::Inconsistent));

    let no_chain = Err(Malformed::Trailing);
    assert_eq!(parse_chain(PayloadType::NONE, &[0]), no_chain);
    let short = Err(Malformed::Length);
    assert_eq!(parse_chain(PayloadType::NONCE, &[0, 0, 0, 3]), short);
}

//= test rfc7296 2.5-1
//= test security S-35
#[test]
fn headers() {
    let good = emit_message(&header(), &[]).unwrap();
    let with = |at: usize, octet: u8| {
        let mut datagram = good.clone();
        datagram[at] = octet;
        datagram
    };
    for (case, datagram, of_header, of_message) in [
        ("good", good.clone(), Ok(()), Ok(())),
        (
            "length too large",
            with(27, 29),
            Err(Malformed::Length),
            Err(Malformed::Length),
        ),
        (
            "length too small",
            with(27, 27),
            Err(Malformed::Length),
            Err(Malformed::Length),
        ),
        (
            "length of gigabytes",
            with(24, 0xff),
            Err(Malformed::Length),
            Err(Malformed::Length),
        ),
        ("version 1", with(17, 0x10), Ok(()), Err(Malformed::Version)),
        ("version 3", with(17, 0x30), Ok(()), Err(Malformed::Version)),
        ("version 2.15", with(17, 0x2f), Ok(()), Ok(())),
        ("exchange not known", with(18, 255), Ok(()), Ok(())),
        (
            "first payload missing",
            with(16, 33),
            Ok(()),
            Err(Malformed::Truncated),
        ),
        (
            "cut off",
            good[..27].to_vec(),
            Err(Malformed::Truncated),
            Err(Malformed::Truncated),
        ),
    ] {
        assert_eq!(Header::parse(&datagram).map(drop), of_header, "{case}");
        assert_eq!(Message::parse(&datagram).map(drop), of_message, "{case}");
    }
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let mut out = Vec::new();
    let big = vec![0; 65_532];
    let fits = emit_chain(&[Payload::VendorId(&big[..65_531])], &mut out);
    assert_eq!(fits, Ok(PayloadType::VENDOR_ID));
    assert_eq!(
        emit_chain(&[Payload::VendorId(&big)], &mut out),
        Err(TooLong)
    );

    let selector = "10.0.0.1".parse().unwrap();
    let list = |count| Payload::TsI(SelectorList::from(vec![selector; count]));
    assert_eq!(emit_chain(&[list(255)], &mut out), Ok(PayloadType::TS_I));
    assert_eq!(emit_chain(&[list(256)], &mut out), Err(TooLong));

    let many = |count| Payload::Delete(Delete::Esp(vec![EspSpi(256); count]));
    assert_eq!(emit_chain(&[many(70_000)], &mut out), Err(TooLong));

    let prefix = |len| protected_prefix(&header(), None, PayloadType::NOTIFY, len).map(drop);
    assert_eq!(prefix(65_531), Ok(()));
    assert_eq!(prefix(65_532), Err(TooLong));
    assert_eq!(prefix(usize::MAX), Err(TooLong));
}

#[test]
fn a_protected_message_starts_with_its_associated_data() {
    let body = [9; 40];
    for fragment in [
        None,
        Some(Fragment {
            number: 2,
            total: 3,
        }),
    ] {
        let prefix = protected_prefix(&header(), fragment, PayloadType::ID_I, body.len()).unwrap();
        let datagram = [&prefix[..], &body].concat();
        let message = Message::parse(&datagram).unwrap();
        let protected = message.protected().unwrap().unwrap();
        assert_eq!(protected.aad, prefix);
        assert_eq!(protected.body, body);
        assert_eq!(
            (protected.first, protected.fragment),
            (PayloadType::ID_I, fragment)
        );
        let head = if fragment.is_some() { 8 } else { 4 };
        assert_eq!(prefix.len(), HEADER_LEN + head);
    }
}

#[test]
fn selectors_of_unknown_types_are_kept_apart() {
    let body = octets("02000000 f1050006 abcd 07000010 0000ffff 0a000000 0a0000ff");
    let Ok(Payload::TsR(list)) = raw(PayloadType::TS_R, &body).decode() else {
        panic!("not read");
    };
    assert_eq!(list.selectors, ["10.0.0.0/24".parse().unwrap()]);
    assert_eq!(list.unknown.len(), 1);
    assert_eq!(list.unknown[0].body, [0xab, 0xcd]);
}

#[test]
fn an_unknown_critical_payload_is_a_value() {
    let unknown = Payload::Unknown {
        ty: PayloadType(200),
        critical: true,
        body: b"?",
    };
    let datagram = emit_message(&header(), std::slice::from_ref(&unknown)).unwrap();
    let message = Message::parse(&datagram).unwrap();
    assert_eq!(message.payloads[0].decode(), Ok(unknown));
}

//= test rfc7296 2.6-3
#[test]
fn notify_data() {
    use obol_ike::wire::{HashId, KeMethod};
    let want = KeMethod::CURVE25519;
    assert_eq!(Notify::invalid_ke(want).as_invalid_ke(), Some(want));
    assert_eq!(Notify::invalid_ke(want).as_cookie(), None);
    let long = Notify::with_data(NotifyType::INVALID_KE_PAYLOAD, vec![0, 0, 31]);
    assert_eq!(long.as_invalid_ke(), None);

    for (len, ok) in [(0, false), (1, true), (64, true), (65, false)] {
        let cookie = vec![7; len];
        assert_eq!(Notify::cookie(&cookie).as_cookie().is_some(), ok, "{len}");
    }

    let hashes = [HashId::SHA2_256, HashId::IDENTITY];
    let notify = Notify::hash_algorithms(&hashes);
    assert!(notify.as_hash_algorithms().unwrap().eq(hashes));
    let odd = Notify::with_data(NotifyType::SIGNATURE_HASH_ALGORITHMS, vec![0, 2, 0]);
    assert!(odd.as_hash_algorithms().is_none());

    let rekey = Notify::about_esp(NotifyType::REKEY_SA, EspSpi(0xc0de));
    assert_eq!(rekey.esp_spi(), Some(EspSpi(0xc0de)));
    assert_eq!(Notify::bare(NotifyType::REKEY_SA).esp_spi(), None);

    let nat = |len| Notify::with_data(NotifyType::NAT_DETECTION_SOURCE_IP, vec![1; len]);
    assert_eq!(nat(20).as_nat_detection(), Some([1; 20]));
    assert_eq!(nat(19).as_nat_detection(), None);
}
