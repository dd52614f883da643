//! What fuzz targets run on arbitrary octets: nothing may panic, and what was read must survive
//! being written and read again.

use crate::identity::Identity;
use crate::ts::{TrafficSelector, narrow};
use crate::wire::{
    Header, Malformed, Message, Payload, PayloadType, RawPayload, emit_chain, emit_message,
    parse_chain,
};

/// A datagram from anybody: header, payload chain and all unencrypted payloads.
pub fn fuzz_datagram(datagram: &[u8]) {
    let header = Header::parse(datagram);
    let Ok(message) = Message::parse(datagram) else {
        return;
    };
    assert_eq!(header, Ok(message.header));
    if let Ok(Some(protected)) = message.protected() {
        assert_eq!([protected.aad, protected.body].concat(), datagram);
    }
    let Ok(payloads) = decode(&message.payloads) else {
        return;
    };
    let emitted = emit_message(&message.header, &payloads).expect("it was read from a message");
    let again = Message::parse(&emitted).expect("it was emitted");
    assert_eq!(again.header.message_id, message.header.message_id);
    assert_eq!(decode(&again.payloads).as_ref(), Ok(&payloads));
}

/// The decrypted content of an Encrypted payload: the type of the first payload, then the chain.
pub fn fuzz_payloads(input: &[u8]) {
    let Some((first, chain)) = input.split_first() else {
        return;
    };
    let Ok(payloads) = parse_chain(PayloadType(*first), chain) else {
        return;
    };
    for payload in &payloads {
        if let Ok(payload) = payload.decode() {
            use_payload(&payload);
        }
    }
    let Ok(payloads) = decode(&payloads) else {
        return;
    };
    let mut emitted = Vec::new();
    let first = emit_chain(&payloads, &mut emitted).expect("it was read from a chain");
    let again = parse_chain(first, &emitted).expect("it was emitted");
    assert_eq!(decode(&again).as_ref(), Ok(&payloads));
}

/// A traffic selector in an operator's words.
pub fn fuzz_selector(text: &str) {
    if let Ok(selector) = text.parse::<TrafficSelector>() {
        assert_eq!(selector.to_string().parse(), Ok(selector));
    }
}

/// An identity in an operator's words.
pub fn fuzz_identity(text: &str) {
    if let Ok(identity) = text.parse::<Identity>() {
        let body = identity.to_body();
        let id = crate::wire::Id::from_body(&body).expect("a body has its fixed part");
        assert_eq!(Identity::from_payload(&id), Ok(identity));
    }
}

/// All payloads. Attributes that are not known are not kept, so the mark they leave on a
/// transform is taken off: it would not survive being written.
fn decode<'a>(payloads: &[RawPayload<'a>]) -> Result<Vec<Payload<'a>>, Malformed> {
    let mut decoded = payloads
        .iter()
        .map(RawPayload::decode)
        .collect::<Result<Vec<_>, _>>()?;
    for payload in &mut decoded {
        if let Payload::Sa(proposals) = payload {
            let transforms = proposals.iter_mut().flat_map(|p| &mut p.transforms);
            transforms.for_each(|transform| transform.unknown_attributes = false);
        }
    }
    Ok(decoded)
}

/// Does with a payload what its reader would.
fn use_payload(payload: &Payload<'_>) {
    match payload {
        Payload::IdI(id) | Payload::IdR(id) => {
            if let Ok(identity) = Identity::from_payload(id) {
                assert!(identity.to_string().len() < 2048);
                assert_eq!(identity.to_body().get(4..), id.body().get(4..));
            }
        }
        Payload::TsI(list) | Payload::TsR(list) => {
            let all: Vec<_> = ["0.0.0.0/0", "::/0"]
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect();
            let narrowed = narrow(&list.selectors, &all);
            assert_eq!(narrowed.is_empty(), list.selectors.is_empty());
            assert!(
                narrowed
                    .iter()
                    .all(|selector| list.selectors.contains(selector))
            );
        }
        Payload::Notify(notify) => {
            let _ = notify.as_cookie();
            let _ = notify.as_invalid_ke();
            let _ = notify.as_nat_detection();
            let _ = notify.as_hash_algorithms().map(Iterator::count);
            let _ = notify.esp_spi();
        }
        _ => {}
    }
}
