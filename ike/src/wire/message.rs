//! IKE messages: a header and a chain of payloads, RFC 7296 sections 3.1 and 3.2.

use super::PayloadType;
use super::header::{HEADER_LEN, Header};
use super::payload::Payload;
use super::reader::{Malformed, Reader};
use super::writer::{TooLong, Writer};

/// Payloads that one message, or the inside of one Encrypted payload, may have.
///
/// The largest legitimate message is an IKE_AUTH request with a long certificate chain: about
/// 10 CERT, 10 CERTREQ, 20 notifies and vendor IDs, and ID, AUTH, SA, TS and CP. 64 leaves room
/// above that, and keeps what a parsed message allocates under 64 * 32 octets = 2 KiB.
pub const MAX_PAYLOADS: usize = 64;

const GENERIC_HEADER_LEN: usize = 4;
const FRAGMENT_HEADER_LEN: usize = 4;
const CRITICAL: u8 = 0x80;
/// Payloads that most messages stay below.
pub(crate) const USUAL_PAYLOADS: usize = 12;
/// Octets that most chains of payloads stay below.
pub(crate) const CHAIN_LEN: usize = 512;

/// A datagram whose header and payload chain are sound. The payloads' content is not looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    /// The header.
    pub header: Header,
    /// The payloads in order. An Encrypted (Fragment) payload can only be the last.
    pub payloads: Vec<RawPayload<'a>>,
    /// The octets of the whole message, as they came: what AUTH signs, and what a checksum
    /// covers.
    pub octets: &'a [u8],
}

/// One payload: its generic header, RFC 7296 section 3.2, and its body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RawPayload<'a> {
    /// Payload type.
    pub ty: PayloadType,
    /// The critical bit: who does not know the type must refuse the message.
    pub critical: bool,
    /// The "next payload" field: for an Encrypted payload, the type of the first inner one.
    pub next: PayloadType,
    /// What follows the generic header.
    pub body: &'a [u8],
}

/// The Encrypted payload (RFC 7296 section 3.14) or Encrypted Fragment payload (RFC 7383
/// section 2.5) of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Protected<'a> {
    /// Type of the first inner payload. In a fragment other than the first it says nothing.
    pub first: PayloadType,
    /// Which fragment; `None` for a whole message.
    pub fragment: Option<Fragment>,
    /// The associated data of an AEAD, RFC 5282 section 5.1: from the IKE header to the end of
    /// the payload's header, which for a fragment includes its numbers.
    pub aad: &'a [u8],
    /// Initialization vector, ciphertext, and checksum or tag. A checksum that is not an AEAD
    /// tag covers `aad` and this, without itself: all of [`Message::octets`] before it.
    pub body: &'a [u8],
}

/// Which fragment of how many, RFC 7383 section 2.5: `1 <= number <= total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fragment {
    /// Number of this fragment, from 1.
    pub number: u16,
    /// Number of all fragments.
    pub total: u16,
}

impl<'a> Message<'a> {
    /// Reads a datagram (without non-ESP marker).
    ///
    /// # Errors
    /// If header or payload chain are unsound, or the major version is not 2; to answer other
    /// versions, see [`Header::parse`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let header = Header::parse(datagram)?;
        if header.major != 2 {
            return Err(Malformed::Version);
        }
        let mut r = Reader::new(datagram);
        r.reserved(HEADER_LEN)?;
        let payloads = read_chain(header.next_payload, r)?;
        Ok(Self {
            header,
            payloads,
            octets: datagram,
        })
    }

    /// The Encrypted or Encrypted Fragment payload, if the message has one.
    ///
    /// # Errors
    /// If the numbers of a fragment are impossible.
    pub fn protected(&self) -> Result<Option<Protected<'a>>, Malformed> {
        let Some(last) = self.payloads.last() else {
            return Ok(None);
        };
        let mut r = Reader::new(last.body);
        let fragment = match last.ty {
            PayloadType::SK => None,
            PayloadType::SKF => Some(Fragment::parse(&mut r)?),
            _ => return Ok(None),
        };
        let body = r.rest();
        let (aad, _) = self
            .octets
            .split_at_checked(self.octets.len() - body.len())
            .ok_or(Malformed::Length)?;
        Ok(Some(Protected {
            first: last.next,
            fragment,
            aad,
            body,
        }))
    }
}

impl<'a> RawPayload<'a> {
    /// Reads the payload's content.
    ///
    /// # Errors
    /// If it is not what its type lays down. A type that is not known is no error.
    pub fn decode(&self) -> Result<Payload<'a>, Malformed> {
        Payload::parse(self)
    }
}

//= rfc7296 3.1-1
/// Reads the decrypted content of an Encrypted payload, without its padding.
///
/// # Errors
/// If the chain is unsound or an Encrypted payload is inside.
pub fn parse_chain(first: PayloadType, octets: &[u8]) -> Result<Vec<RawPayload<'_>>, Malformed> {
    let payloads = read_chain(first, Reader::new(octets))?;
    if payloads.iter().any(|payload| is_protected(payload.ty)) {
        return Err(Malformed::Inconsistent);
    }
    Ok(payloads)
}

//= rfc7296 3.2-6
/// Appends the payloads to `out` and returns the type of the first: the content of an
/// Encrypted payload, before its padding. [`Payload::Sk`] and [`Payload::Skf`] go last.
///
/// # Errors
/// If a payload or a part of it is too long; what was appended must not be sent.
pub fn emit_chain(payloads: &[Payload<'_>], out: &mut Vec<u8>) -> Result<PayloadType, TooLong> {
    let mut w = Writer::new(out);
    let mut rest = payloads.iter();
    while let Some(payload) = rest.next() {
        let following = rest
            .as_slice()
            .first()
            .map_or(PayloadType::NONE, Payload::ty);
        w.u8(payload.first_inner().unwrap_or(following).0);
        w.u8(if payload.critical() { CRITICAL } else { 0 });
        w.length_u16(2, |w| payload.emit(w));
    }
    w.finish()?;
    Ok(payloads.first().map_or(PayloadType::NONE, Payload::ty))
}

/// Emits a whole message; `next_payload` and `length` of the header are filled in.
///
/// # Errors
/// If a payload or a part of it is too long.
pub fn emit_message(header: &Header, payloads: &[Payload<'_>]) -> Result<Vec<u8>, TooLong> {
    let mut chain = Vec::with_capacity(CHAIN_LEN);
    let next_payload = emit_chain(payloads, &mut chain)?;
    let mut out = start_message(header, next_payload, chain.len())?;
    out.append(&mut chain);
    Ok(out)
}

/// Emits the part of a protected message that comes before the initialization vector, with its
/// final lengths: the associated data of an AEAD. The caller appends exactly `body_len` octets:
/// initialization vector, ciphertext, and checksum or tag.
///
/// # Errors
/// If `body_len` is too long for one payload.
pub fn protected_prefix(
    header: &Header,
    fragment: Option<Fragment>,
    first: PayloadType,
    body_len: usize,
) -> Result<Vec<u8>, TooLong> {
    let (ty, head) = match fragment {
        None => (PayloadType::SK, GENERIC_HEADER_LEN),
        Some(_) => (PayloadType::SKF, GENERIC_HEADER_LEN + FRAGMENT_HEADER_LEN),
    };
    let payload_len = head.checked_add(body_len).ok_or(TooLong)?;
    let mut out = start_message(header, ty, payload_len)?;
    let mut w = Writer::new(&mut out);
    w.u8(first.0);
    w.reserved(1);
    w.count_u16(payload_len);
    if let Some(fragment) = fragment {
        fragment.emit(&mut w);
    }
    w.finish()?;
    Ok(out)
}

impl Fragment {
    //= rfc7383 2.5-4 2.5-5 2.5-6 2.6-1
    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (number, total) = (r.u16()?, r.u16()?);
        if number == 0 || number > total {
            return Err(Malformed::Value);
        }
        Ok(Self { number, total })
    }

    pub(crate) fn emit(self, w: &mut Writer<'_>) {
        w.u16(self.number);
        w.u16(self.total);
    }
}

fn is_protected(ty: PayloadType) -> bool {
    matches!(ty, PayloadType::SK | PayloadType::SKF)
}

//= rfc7296 3.1-1 3.2-6
//= security S-35
//= rfc7383 2.5-1
fn read_chain(first: PayloadType, mut r: Reader<'_>) -> Result<Vec<RawPayload<'_>>, Malformed> {
    let mut payloads = Vec::new();
    if first != PayloadType::NONE {
        payloads.reserve(USUAL_PAYLOADS);
    }
    let mut ty = first;
    while ty != PayloadType::NONE {
        if payloads.len() == MAX_PAYLOADS {
            return Err(Malformed::TooMany);
        }
        let next = PayloadType(r.u8()?);
        let critical = r.u8()? & CRITICAL != 0;
        let length = r.u16()?;
        let body = r.sub_counted(length, GENERIC_HEADER_LEN)?.rest();
        payloads.push(RawPayload {
            ty,
            critical,
            next,
            body,
        });
        // The "next payload" of an Encrypted payload is inside it; nothing can follow.
        ty = if is_protected(ty) {
            PayloadType::NONE
        } else {
            next
        };
    }
    r.finish()?;
    Ok(payloads)
}

fn start_message(
    header: &Header,
    next_payload: PayloadType,
    chain_len: usize,
) -> Result<Vec<u8>, TooLong> {
    let total = HEADER_LEN.checked_add(chain_len).ok_or(TooLong)?;
    let header = Header {
        next_payload,
        length: u32::try_from(total).map_err(|_| TooLong)?,
        ..*header
    };
    let mut out = Vec::with_capacity(total);
    header.emit(&mut Writer::new(&mut out));
    Ok(out)
}
