//! Identification payloads, RFC 7296 section 3.5.

use crate::wire::IdType;
use crate::wire::reader::{Malformed, Reader};

/// The body of an Identification payload, kept as it was on the wire: AUTH covers every octet
/// of it (RFC 7296 section 2.15), the reserved ones included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Id<'a> {
    ty: IdType,
    data: &'a [u8],
    body: &'a [u8],
}

impl<'a> Id<'a> {
    //= rfc7296 3.5-1
    /// Takes a body, as [`Identity::to_body`](crate::identity::Identity::to_body) makes it:
    /// type, three reserved octets, data.
    ///
    /// # Errors
    /// If it is shorter than its fixed part.
    pub fn from_body(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body);
        let ty = IdType(r.u8()?);
        r.reserved(3)?;
        Ok(Self {
            ty,
            data: r.rest(),
            body,
        })
    }

    /// The identification type.
    pub fn ty(&self) -> IdType {
        self.ty
    }

    /// The identification data.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// What AUTH covers: RestOfInitIDPayload or RestOfRespIDPayload, RFC 7296 section 2.15.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    pub(super) fn parse(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Self::from_body(r.rest())
    }
}
