//! Generators of messages and payloads, for property tests and to seed fuzzers.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::event::{EspSpi, IkeSpi};
use crate::ts::TrafficSelector;
use crate::wire::{
    Auth, AuthMethod, Cert, CertEncoding, CertReq, Delete, ExchangeType, Flags, Fragment, Header,
    Id, IdType, Ke, KeMethod, Notify, NotifyType, Payload, PayloadType, Proposal, ProtocolId,
    SelectorList, Transform, TransformType, TsType, UnknownSelector, emit_message,
};

/// A message that owns its octets.
#[derive(Clone, Debug)]
pub struct OwnedMessage {
    /// The header; its length and first payload are filled in when it is emitted.
    pub header: Header,
    /// The payloads.
    pub payloads: Vec<OwnedPayload>,
}

/// A payload that owns its octets.
#[derive(Clone, Debug)]
pub enum OwnedPayload {
    /// One that borrows nothing.
    Whole(Payload<'static>),
    /// Key Exchange.
    Ke(KeMethod, Vec<u8>),
    /// Identification of the initiator: a body.
    IdI(Vec<u8>),
    /// Identification of the responder: a body.
    IdR(Vec<u8>),
    /// Certificate.
    Cert(CertEncoding, Vec<u8>),
    /// Certificate Request.
    CertReq(CertEncoding, Vec<u8>),
    /// Authentication.
    Auth(AuthMethod, Vec<u8>),
    /// Nonce.
    Nonce(Vec<u8>),
    /// Delete of a protocol that is not known: SPI size, SPIs.
    Delete(ProtocolId, u8, Vec<u8>),
    /// Vendor ID.
    VendorId(Vec<u8>),
    /// Traffic Selectors, with one of a type that is not known.
    TsI(Vec<TrafficSelector>, TsType, Vec<u8>),
    /// Encrypted.
    Sk(PayloadType, Vec<u8>),
    /// Encrypted Fragment.
    Skf(PayloadType, Fragment, Vec<u8>),
    /// Configuration.
    Cp(Vec<u8>),
    /// Extensible Authentication.
    Eap(Vec<u8>),
    /// A type that is not known.
    Unknown(PayloadType, bool, Vec<u8>),
}

impl OwnedMessage {
    /// The payloads, borrowing from this.
    pub fn payloads(&self) -> Vec<Payload<'_>> {
        self.payloads.iter().map(OwnedPayload::borrow).collect()
    }

    /// The datagram.
    pub fn emit(&self) -> Vec<u8> {
        emit_message(&self.header, &self.payloads()).expect("generated messages are short")
    }
}

impl OwnedPayload {
    /// The payload, borrowing from this.
    pub fn borrow(&self) -> Payload<'_> {
        match self {
            Self::Whole(payload) => payload.clone(),
            Self::Ke(method, data) => Payload::Ke(Ke {
                method: *method,
                data,
            }),
            Self::IdI(body) => Payload::IdI(id(body)),
            Self::IdR(body) => Payload::IdR(id(body)),
            Self::Cert(encoding, data) => Payload::Cert(Cert {
                encoding: *encoding,
                data,
            }),
            Self::CertReq(encoding, authorities) => Payload::CertReq(CertReq {
                encoding: *encoding,
                authorities,
            }),
            Self::Auth(method, data) => Payload::Auth(Auth {
                method: *method,
                data,
            }),
            Self::Nonce(nonce) => Payload::Nonce(nonce),
            Self::Delete(protocol, spi_size, spis) => {
                Payload::Delete(delete(*protocol, *spi_size, spis))
            }
            Self::VendorId(data) => Payload::VendorId(data),
            Self::TsI(selectors, ty, body) => Payload::TsI(SelectorList {
                selectors: selectors.clone(),
                unknown: vec![UnknownSelector {
                    ty: *ty,
                    second_octet: 7,
                    body,
                }],
            }),
            Self::Sk(first, body) => Payload::Sk {
                first: *first,
                body,
            },
            Self::Skf(first, fragment, body) => Payload::Skf {
                first: *first,
                fragment: *fragment,
                body,
            },
            Self::Cp(data) => Payload::Cp(data),
            Self::Eap(data) => Payload::Eap(data),
            Self::Unknown(ty, critical, body) => Payload::Unknown {
                ty: *ty,
                critical: *critical,
                body,
            },
        }
    }
}

fn id(body: &[u8]) -> Id<'_> {
    Id::from_body(body).expect("generated bodies have their fixed part")
}

fn delete(protocol: ProtocolId, spi_size: u8, spis: &[u8]) -> Delete<'_> {
    let count = spis.len() / usize::from(spi_size);
    Delete::Other {
        protocol,
        spi_size,
        count: u16::try_from(count).expect("generated lists are short"),
        spis,
    }
}

/// Any message: some payloads, and perhaps an Encrypted (Fragment) payload at the end.
pub fn message() -> impl Strategy<Value = OwnedMessage> {
    (
        header(),
        vec(payload(), 0..6),
        prop::option::of(protected()),
    )
        .prop_map(|(header, mut payloads, protected)| {
            payloads.extend(protected);
            OwnedMessage { header, payloads }
        })
}

/// Any header of version 2.
pub fn header() -> impl Strategy<Value = Header> {
    let flags = any::<(bool, bool, bool)>().prop_map(|(initiator, version, response)| Flags {
        initiator,
        version,
        response,
    });
    let fields = (
        any::<(u64, u64)>(),
        0..16u8,
        any::<u8>(),
        flags,
        any::<u32>(),
    );
    fields.prop_map(
        |((spi_i, spi_r), minor, exchange, flags, message_id)| Header {
            minor,
            ..Header::new(
                IkeSpi(spi_i),
                IkeSpi(spi_r),
                ExchangeType(exchange),
                flags,
                message_id,
            )
        },
    )
}

/// Any payload that need not be the last.
pub fn payload() -> impl Strategy<Value = OwnedPayload> {
    use OwnedPayload as P;
    let encoding = || any::<u8>().prop_map(CertEncoding);
    prop_oneof![
        vec(proposal(), 1..4).prop_map(|list| P::Whole(Payload::Sa(numbered(list)))),
        (any::<u16>(), octets()).prop_map(|(method, data)| P::Ke(KeMethod(method), data)),
        id_body().prop_map(P::IdI),
        id_body().prop_map(P::IdR),
        (encoding(), octets()).prop_map(|(encoding, data)| P::Cert(encoding, data)),
        (encoding(), octets()).prop_map(|(encoding, data)| P::CertReq(encoding, data)),
        (any::<u8>(), octets()).prop_map(|(method, data)| P::Auth(AuthMethod(method), data)),
        vec(any::<u8>(), 16..=256).prop_map(P::Nonce),
        notify().prop_map(|notify| P::Whole(Payload::Notify(notify))),
        deletes(),
        octets().prop_map(P::VendorId),
        vec(selector(), 0..5).prop_map(|list| P::Whole(Payload::TsI(list.into()))),
        vec(selector(), 0..5).prop_map(|list| P::Whole(Payload::TsR(list.into()))),
        (vec(selector(), 0..5), 9..=255u8, octets()).prop_map(|(list, ty, body)| P::TsI(
            list,
            TsType(ty),
            body
        )),
        octets().prop_map(P::Cp),
        octets().prop_map(P::Eap),
        (unknown_type(), any::<bool>(), octets())
            .prop_map(|(ty, critical, body)| P::Unknown(ty, critical, body)),
    ]
}

/// An Encrypted or Encrypted Fragment payload, which can only be the last.
pub fn protected() -> impl Strategy<Value = OwnedPayload> {
    let fragment = any::<(u16, u16)>().prop_map(|(a, b)| Fragment {
        number: a.min(b).max(1),
        total: a.max(b).max(1),
    });
    (any::<u8>(), prop::option::of(fragment), octets()).prop_map(|(first, fragment, body)| {
        let first = PayloadType(first);
        match fragment {
            None => OwnedPayload::Sk(first, body),
            Some(fragment) => OwnedPayload::Skf(first, fragment, body),
        }
    })
}

/// Any proposal, numbered 1.
pub fn proposal() -> impl Strategy<Value = Proposal> {
    let protocol_and_spi = prop_oneof![
        Just((ProtocolId::IKE, 0)),
        Just((ProtocolId::IKE, 8)),
        Just((ProtocolId::ESP, 4)),
        Just((ProtocolId::AH, 4)),
        (4..=255u8, 0..20usize).prop_map(|(protocol, len)| (ProtocolId(protocol), len)),
    ];
    let transform = (any::<u8>(), any::<u16>(), any::<Option<u16>>())
        .prop_map(|(ty, id, key_bits)| Transform::new(TransformType(ty), id, key_bits));
    (protocol_and_spi, vec(transform, 0..10)).prop_flat_map(|((protocol, len), transforms)| {
        vec(any::<u8>(), len).prop_map(move |spi| Proposal {
            num: 1,
            protocol,
            spi,
            transforms: transforms.clone(),
        })
    })
}

/// Any selector that is valid.
pub fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ports = prop_oneof![
        Just((0, u16::MAX)),
        Just((u16::MAX, 0)),
        any::<(u16, u16)>().prop_map(|(a, b)| (a.min(b), a.max(b))),
    ];
    (any::<u8>(), ports, any::<(IpAddr, IpAddr)>()).prop_map(|(protocol, ports, (a, b))| {
        let addresses = TrafficSelector::range(a.min(b), a.max(b));
        TrafficSelector {
            protocol,
            start_port: ports.0,
            end_port: ports.1,
            ..addresses.unwrap_or(TrafficSelector::host(a))
        }
    })
}

/// Any notify.
pub fn notify() -> impl Strategy<Value = Notify<'static>> {
    let status = prop_oneof![0..60u16, 16384..16440u16, any::<u16>()];
    (any::<u8>(), vec(any::<u8>(), 0..10), status, octets()).prop_map(
        |(protocol, spi, ty, data)| Notify {
            protocol: ProtocolId(protocol),
            spi: spi.into(),
            ty: NotifyType(ty),
            data: data.into(),
        },
    )
}

fn deletes() -> impl Strategy<Value = OwnedPayload> {
    let whole = |delete| OwnedPayload::Whole(Payload::Delete(delete));
    prop_oneof![
        Just(whole(Delete::Ike)),
        vec(any::<u32>().prop_map(EspSpi), 0..5).prop_map(move |list| whole(Delete::Esp(list))),
        (4..=255u8, 1..9u8, 0..5usize).prop_map(|(protocol, size, count)| {
            OwnedPayload::Delete(
                ProtocolId(protocol),
                size,
                vec![7; usize::from(size) * count],
            )
        }),
    ]
}

fn id_body() -> impl Strategy<Value = Vec<u8>> {
    let ty = prop_oneof![
        prop::sample::select(&[IdType::IPV4_ADDR.0, IdType::FQDN.0, IdType::KEY_ID.0][..]),
        any::<u8>(),
    ];
    (ty, octets()).prop_map(|(ty, data)| [&[ty, 0, 0, 0], &data[..]].concat())
}

fn unknown_type() -> impl Strategy<Value = PayloadType> {
    prop_oneof![1..33u8, 49..53u8, 54..=255u8].prop_map(PayloadType)
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn numbered(mut proposals: Vec<Proposal>) -> Vec<Proposal> {
    for (proposal, num) in proposals.iter_mut().zip(1..) {
        proposal.num = num;
    }
    proposals
}
