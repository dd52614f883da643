//! The payloads of IKE messages, RFC 7296 sections 3.3 to 3.16.

mod auth;
mod delete;
mod id;
mod ke;
mod notify;
mod sa;
mod ts;

pub use auth::{Auth, Cert, CertReq};
pub use delete::Delete;
pub use id::Id;
pub use ke::Ke;
pub use notify::Notify;
pub use sa::{MAX_PROPOSALS, MAX_TRANSFORMS, Proposal, Transform};
pub use ts::{SelectorList, UnknownSelector};

use super::PayloadType;
use super::message::{Fragment, RawPayload};
use super::reader::{Malformed, Reader};
use super::writer::Writer;

/// A payload, read or to be sent. Most borrow the octets they stand for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Payload<'a> {
    /// Security Association, section 3.3.
    Sa(Vec<Proposal>),
    /// Key Exchange, section 3.4.
    Ke(Ke<'a>),
    /// Identification of the initiator, section 3.5.
    IdI(Id<'a>),
    /// Identification of the responder, section 3.5.
    IdR(Id<'a>),
    /// Certificate, section 3.6.
    Cert(Cert<'a>),
    /// Certificate Request, section 3.7.
    CertReq(CertReq<'a>),
    /// Authentication, section 3.8.
    Auth(Auth<'a>),
    /// Nonce, section 3.9: 16 to 256 octets.
    Nonce(&'a [u8]),
    /// Notify, section 3.10.
    Notify(Notify<'a>),
    /// Delete, section 3.11.
    Delete(Delete<'a>),
    /// Vendor ID, section 3.12.
    VendorId(&'a [u8]),
    /// Traffic Selectors of the initiator's side, section 3.13.
    TsI(SelectorList<'a>),
    /// Traffic Selectors of the responder's side, section 3.13.
    TsR(SelectorList<'a>),
    /// Encrypted, section 3.14.
    Sk {
        /// Type of the first inner payload.
        first: PayloadType,
        /// Initialization vector, ciphertext, and checksum or tag.
        body: &'a [u8],
    },
    /// Encrypted Fragment, RFC 7383 section 2.5.
    Skf {
        /// Type of the first inner payload, in the first fragment.
        first: PayloadType,
        /// Which fragment.
        fragment: Fragment,
        /// Initialization vector, ciphertext, and checksum or tag.
        body: &'a [u8],
    },
    /// Configuration, section 3.15, not looked into.
    Cp(&'a [u8]),
    /// Extensible Authentication, section 3.16, not looked into.
    Eap(&'a [u8]),
    /// Any other type.
    Unknown {
        /// The type.
        ty: PayloadType,
        /// The critical bit: a message with such a payload must be refused.
        critical: bool,
        /// What follows the generic header.
        body: &'a [u8],
    },
}

impl<'a> Payload<'a> {
    /// The payload's type.
    pub fn ty(&self) -> PayloadType {
        match self {
            Self::Sa(_) => PayloadType::SA,
            Self::Ke(_) => PayloadType::KE,
            Self::IdI(_) => PayloadType::ID_I,
            Self::IdR(_) => PayloadType::ID_R,
            Self::Cert(_) => PayloadType::CERT,
            Self::CertReq(_) => PayloadType::CERTREQ,
            Self::Auth(_) => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete(_) => PayloadType::DELETE,
            Self::VendorId(_) => PayloadType::VENDOR_ID,
            Self::TsI(_) => PayloadType::TS_I,
            Self::TsR(_) => PayloadType::TS_R,
            Self::Sk { .. } => PayloadType::SK,
            Self::Skf { .. } => PayloadType::SKF,
            Self::Cp(_) => PayloadType::CP,
            Self::Eap(_) => PayloadType::EAP,
            Self::Unknown { ty, .. } => *ty,
        }
    }

    //= rfc7296 3.2-5 4-2
    /// Reads the content of a payload.
    pub(super) fn parse(raw: &RawPayload<'a>) -> Result<Self, Malformed> {
        let mut r = Reader::new(raw.body);
        let r = &mut r;
        let payload = match raw.ty {
            PayloadType::SA => Self::Sa(sa::parse(r)?),
            PayloadType::KE => Self::Ke(Ke::parse(r)?),
            PayloadType::ID_I => Self::IdI(Id::parse(r)?),
            PayloadType::ID_R => Self::IdR(Id::parse(r)?),
            PayloadType::CERT => Self::Cert(Cert::parse(r)?),
            PayloadType::CERTREQ => Self::CertReq(CertReq::parse(r)?),
            PayloadType::AUTH => Self::Auth(Auth::parse(r)?),
            PayloadType::NONCE => Self::Nonce(ke::parse_nonce(r)?),
            PayloadType::NOTIFY => Self::Notify(Notify::parse(r)?),
            PayloadType::DELETE => Self::Delete(Delete::parse(r)?),
            PayloadType::VENDOR_ID => Self::VendorId(r.rest()),
            PayloadType::TS_I => Self::TsI(SelectorList::parse(r)?),
            PayloadType::TS_R => Self::TsR(SelectorList::parse(r)?),
            PayloadType::SK => Self::Sk {
                first: raw.next,
                body: r.rest(),
            },
            PayloadType::SKF => Self::Skf {
                first: raw.next,
                fragment: Fragment::parse(r)?,
                body: r.rest(),
            },
            PayloadType::CP => Self::Cp(r.rest()),
            PayloadType::EAP => Self::Eap(r.rest()),
            ty => Self::Unknown {
                ty,
                critical: raw.critical,
                body: r.rest(),
            },
        };
        if !r.is_empty() {
            return Err(Malformed::Trailing);
        }
        Ok(payload)
    }

    /// Writes what follows the generic header.
    pub(super) fn emit(&self, w: &mut Writer<'_>) {
        match self {
            Self::Sa(proposals) => sa::emit(proposals, w),
            Self::Ke(ke) => ke.emit(w),
            Self::IdI(id) | Self::IdR(id) => w.bytes(id.body()),
            Self::Cert(cert) => cert.emit(w),
            Self::CertReq(request) => request.emit(w),
            Self::Auth(auth) => auth.emit(w),
            Self::Notify(notify) => notify.emit(w),
            Self::Delete(delete) => delete.emit(w),
            Self::TsI(selectors) | Self::TsR(selectors) => selectors.emit(w),
            Self::Skf { fragment, body, .. } => {
                fragment.emit(w);
                w.bytes(body);
            }
            Self::Nonce(body)
            | Self::VendorId(body)
            | Self::Sk { body, .. }
            | Self::Cp(body)
            | Self::Eap(body)
            | Self::Unknown { body, .. } => w.bytes(body),
        }
    }

    //= rfc7296 2.5-10 3.2-1
    /// The critical bit to send: zero for every payload that RFC 7296 defines.
    pub(super) fn critical(&self) -> bool {
        matches!(self, Self::Unknown { critical: true, .. })
    }

    /// What an Encrypted payload has in place of the type of the next payload.
    pub(super) fn first_inner(&self) -> Option<PayloadType> {
        match self {
            Self::Sk { first, .. } | Self::Skf { first, .. } => Some(*first),
            _ => None,
        }
    }
}
