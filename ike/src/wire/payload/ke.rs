//! Key Exchange and Nonce payloads, RFC 7296 sections 3.4 and 3.9.

use crate::wire::KeMethod;
use crate::wire::reader::{Malformed, Reader};
use crate::wire::writer::Writer;

/// Key Exchange payload, RFC 7296 section 3.4.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ke<'a> {
    /// The method that `data` belongs to.
    pub method: KeMethod,
    /// The public value. Its length is the method's affair.
    pub data: &'a [u8],
}

impl<'a> Ke<'a> {
    pub(super) fn parse(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let method = KeMethod(r.u16()?);
        r.reserved(2)?;
        Ok(Self {
            method,
            data: r.rest(),
        })
    }

    pub(super) fn emit(&self, w: &mut Writer<'_>) {
        w.u16(self.method.0);
        w.reserved(2);
        w.bytes(self.data);
    }
}

//= rfc7296 3.9-1
//= security S-22
/// Reads the body of a Nonce payload.
pub(super) fn parse_nonce<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let nonce = r.rest();
    if (16..=256).contains(&nonce.len()) {
        Ok(nonce)
    } else {
        Err(Malformed::Length)
    }
}
