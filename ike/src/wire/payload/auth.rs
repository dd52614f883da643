//! Certificate, Certificate Request and Authentication payloads, RFC 7296 sections 3.6 to 3.8.

use crate::wire::reader::{Malformed, Reader};
use crate::wire::writer::Writer;
use crate::wire::{AuthMethod, CertEncoding};

/// Certificate payload, RFC 7296 section 3.6.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cert<'a> {
    /// What `data` is.
    pub encoding: CertEncoding,
    /// The certificate, or what stands for one.
    pub data: &'a [u8],
}

/// Certificate Request payload, RFC 7296 section 3.7.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CertReq<'a> {
    /// The encoding that is asked for.
    pub encoding: CertEncoding,
    /// The authorities that are trusted, in a form that the encoding lays down.
    pub authorities: &'a [u8],
}

/// Authentication payload, RFC 7296 section 3.8.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Auth<'a> {
    /// How `data` was made.
    pub method: AuthMethod,
    /// The proof: a MAC or a signature.
    pub data: &'a [u8],
}

impl<'a> Cert<'a> {
    pub(super) fn parse(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            encoding: CertEncoding(r.u8()?),
            data: r.rest(),
        })
    }

    pub(super) fn emit(&self, w: &mut Writer<'_>) {
        w.u8(self.encoding.0);
        w.bytes(self.data);
    }
}

impl<'a> CertReq<'a> {
    pub(super) fn parse(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            encoding: CertEncoding(r.u8()?),
            authorities: r.rest(),
        })
    }

    pub(super) fn emit(&self, w: &mut Writer<'_>) {
        w.u8(self.encoding.0);
        w.bytes(self.authorities);
    }
}

impl<'a> Auth<'a> {
    //= rfc7296 3.8-2
    pub(super) fn parse(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let method = AuthMethod(r.u8()?);
        r.reserved(3)?;
        Ok(Self {
            method,
            data: r.rest(),
        })
    }

    //= rfc7296 3.8-2
    pub(super) fn emit(&self, w: &mut Writer<'_>) {
        w.u8(self.method.0);
        w.reserved(3);
        w.bytes(self.data);
    }
}

/// The proof stays out of logs: with a weak shared secret it can be searched for offline.
impl std::fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("method", &self.method)
            .field("len", &self.data.len())
            .finish()
    }
}
