//! Laws of the codec, for any message: what is emitted parses to the same, what is cut off does
//! not parse, reserved bits do not count, and no octets make a parser panic.

use obol_ike::testing::arbitrary::{self, OwnedMessage, OwnedPayload};
use obol_ike::testing::{fuzz_datagram, fuzz_identity, fuzz_payloads, fuzz_selector};
use obol_ike::wire::{
    HEADER_LEN, Header, Malformed, Message, Payload, PayloadType, RawPayload, emit_chain,
    parse_chain,
};
use proptest::prelude::*;
use proptest::sample::Index;

fn decode<'a>(message: &Message<'a>) -> Vec<Payload<'a>> {
    let payloads = message.payloads.iter().map(RawPayload::decode);
    payloads
        .collect::<Result<_, _>>()
        .expect("an emitted message decodes")
}

/// Makes the header agree with the datagram's length.
fn fix_length(datagram: &mut [u8]) {
    let length = u32::try_from(datagram.len()).expect("generated messages are short");
    datagram[24..28].copy_from_slice(&length.to_be_bytes());
}

/// Offsets of the octets of a payload's body that are reserved.
fn reserved_octets(ty: PayloadType, body: &[u8]) -> Vec<usize> {
    match ty {
        PayloadType::KE => vec![2, 3],
        PayloadType::ID_I | PayloadType::ID_R | PayloadType::AUTH => vec![1, 2, 3],
        PayloadType::TS_I | PayloadType::TS_R => vec![1, 2, 3],
        PayloadType::SA => reserved_in_sa(body),
        _ => Vec::new(),
    }
}

fn reserved_in_sa(body: &[u8]) -> Vec<usize> {
    let length = |at: usize| usize::from(u16::from_be_bytes([body[at + 2], body[at + 3]]));
    let mut offsets = Vec::new();
    let mut proposal = 0;
    while proposal < body.len() {
        offsets.push(proposal + 1);
        let mut transform = proposal + 8 + usize::from(body[proposal + 6]);
        while transform < proposal + length(proposal) {
            offsets.extend([transform + 1, transform + 5]);
            transform += length(transform);
        }
        proposal += length(proposal);
    }
    offsets
}

/// All bits of a message that a receiver must not look at: (offset, mask).
fn reserved_bits(message: &Message<'_>) -> Vec<(usize, u8)> {
    let mut bits = vec![(19, 0xc7)];
    let mut offset = HEADER_LEN;
    for payload in &message.payloads {
        bits.push((offset + 1, 0x7f));
        let body = offset + 4;
        let octets = reserved_octets(payload.ty, payload.body);
        bits.extend(octets.into_iter().map(|octet| (body + octet, 0xff)));
        offset = body + payload.body.len();
    }
    bits
}

/// Identification bodies are kept with their reserved octets, for AUTH: compare what is read.
fn same(a: &Payload<'_>, b: &Payload<'_>) -> bool {
    match (a, b) {
        (Payload::IdI(a), Payload::IdI(b)) | (Payload::IdR(a), Payload::IdR(b)) => {
            (a.ty(), a.data()) == (b.ty(), b.data())
        }
        _ => a == b,
    }
}

proptest! {
    //= test rfc7296 3.2-5
    #[test]
    fn what_is_emitted_parses_to_the_same(message in arbitrary::message()) {
        let datagram = message.emit();
        let parsed = Message::parse(&datagram).unwrap();
        prop_assert_eq!(decode(&parsed), message.payloads());
        let header = Header {
            next_payload: parsed.header.next_payload,
            length: u32::try_from(datagram.len()).unwrap(),
            ..message.header
        };
        prop_assert_eq!(parsed.header, header);
        let first = message.payloads().first().map_or(PayloadType::NONE, Payload::ty);
        prop_assert_eq!(header.next_payload, first);
    }

    #[test]
    fn an_inner_chain_parses_to_the_same(payloads in prop::collection::vec(arbitrary::payload(), 0..6)) {
        let payloads: Vec<_> = payloads.iter().map(OwnedPayload::borrow).collect();
        let mut chain = Vec::new();
        let first = emit_chain(&payloads, &mut chain).unwrap();
        let parsed = parse_chain(first, &chain).unwrap();
        let decoded: Vec<_> = parsed.iter().map(|raw| raw.decode().unwrap()).collect();
        prop_assert_eq!(decoded, payloads);
    }

    //= test security S-35
    #[test]
    fn every_truncation_is_an_error(message in arbitrary::message()) {
        let datagram = message.emit();
        for len in 0..datagram.len() {
            let mut cut = datagram[..len].to_vec();
            prop_assert!(Message::parse(&cut).is_err(), "{len} octets");
            if len >= HEADER_LEN {
                fix_length(&mut cut);
                prop_assert!(Message::parse(&cut).is_err(), "{len} octets, length adapted");
            }
        }
    }

    //= test security S-35
    #[test]
    fn octets_after_the_end_are_an_error(message in arbitrary::message(), extra in 1..40usize) {
        let mut datagram = message.emit();
        datagram.resize(datagram.len() + extra, 0);
        fix_length(&mut datagram);
        prop_assert_eq!(Message::parse(&datagram).err(), Some(Malformed::Trailing));
    }

    //= test rfc7296 3.3-2
    #[test]
    fn every_truncation_of_a_counted_list_is_an_error(payload in arbitrary::payload()) {
        let payload = payload.borrow();
        let counted = matches!(
            payload,
            Payload::Sa(_) | Payload::TsI(_) | Payload::TsR(_) | Payload::Delete(_)
        );
        prop_assume!(counted);
        let mut chain = Vec::new();
        let ty = emit_chain(&[payload], &mut chain).unwrap();
        for len in 0..chain.len() - 4 {
            let cut = RawPayload {
                ty,
                critical: false,
                next: PayloadType::NONE,
                body: &chain[4..4 + len],
            };
            prop_assert!(cut.decode().is_err(), "{len} octets");
        }
    }

    //= test rfc7296 2.5-6 3.1-9 3.2-6 3.3.1-1 3.3.2-1 3.5-1 3.8-2 3.13-1
    //= test security S-11
    #[test]
    fn reserved_bits_do_not_count(message in arbitrary::message(), noise in any::<u8>()) {
        let datagram = message.emit();
        let parsed = Message::parse(&datagram).unwrap();
        let mut noisy = datagram.clone();
        for (offset, mask) in reserved_bits(&parsed) {
            prop_assert_eq!(datagram[offset] & mask, 0, "sent at offset {}", offset);
            noisy[offset] |= mask & noise;
        }
        let reread = Message::parse(&noisy).unwrap();
        prop_assert_eq!(reread.header, parsed.header);
        let (got, want) = (decode(&reread), decode(&parsed));
        prop_assert_eq!(got.len(), want.len());
        prop_assert!(got.iter().zip(&want).all(|(a, b)| same(a, b)), "{got:?} {want:?}");
    }

    #[test]
    fn what_protects_a_message_splits_it_in_two(
        message in arbitrary::message(),
        protected in arbitrary::protected(),
    ) {
        let mut message: OwnedMessage = message;
        message.payloads.retain(|p| !matches!(p, OwnedPayload::Sk(..) | OwnedPayload::Skf(..)));
        let clear = message.emit();
        prop_assert_eq!(Message::parse(&clear).unwrap().protected(), Ok(None));
        message.payloads.push(protected);
        let datagram = message.emit();
        let parsed = Message::parse(&datagram).unwrap();
        let split = parsed.protected().unwrap().unwrap();
        prop_assert_eq!([split.aad, split.body].concat(), &datagram[..]);
        match message.payloads().last() {
            Some(Payload::Sk { first, body }) => {
                prop_assert_eq!((split.first, split.fragment, split.body), (*first, None, *body));
            }
            Some(Payload::Skf { first, fragment, body }) => {
                prop_assert_eq!((split.first, split.fragment, split.body), (*first, Some(*fragment), *body));
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn changed_octets_never_panic(
        message in arbitrary::message(),
        changes in prop::collection::vec(any::<(Index, u8)>(), 1..8),
    ) {
        let mut datagram = message.emit();
        for (index, octet) in changes {
            let at = index.index(datagram.len());
            datagram[at] = octet;
        }
        fuzz_datagram(&datagram);
        fix_length(&mut datagram);
        datagram[17] = 0x20;
        fuzz_datagram(&datagram);
        fuzz_payloads(&[&datagram[16..17], &datagram[HEADER_LEN..]].concat());
    }

    #[test]
    fn random_octets_and_texts_never_panic(octets: Vec<u8>, text in ".{0,60}") {
        fuzz_datagram(&octets);
        fuzz_payloads(&octets);
        fuzz_selector(&text);
        fuzz_identity(&text);
    }
}
