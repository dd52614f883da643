//! Traffic Selector payloads, RFC 7296 section 3.13.

use std::net::IpAddr;

use crate::ts::TrafficSelector;
use crate::wire::TsType;
use crate::wire::reader::{Malformed, Reader};
use crate::wire::writer::Writer;

const FIXED_LEN: usize = 8;

/// The selectors of one TSi or TSr payload. Their number is one octet on the wire.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SelectorList<'a> {
    /// Selectors of the types 7 and 8, in order.
    pub selectors: Vec<TrafficSelector>,
    /// Selectors of other types: ignored when narrowing (RFC 7296 section 2.9).
    pub unknown: Vec<UnknownSelector<'a>>,
}

/// A selector of a type that is not known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnknownSelector<'a> {
    /// The type.
    pub ty: TsType,
    /// The octet after the type, where types 7 and 8 have the protocol.
    pub second_octet: u8,
    /// What follows the length.
    pub body: &'a [u8],
}

impl From<Vec<TrafficSelector>> for SelectorList<'_> {
    fn from(selectors: Vec<TrafficSelector>) -> Self {
        Self {
            selectors,
            unknown: Vec::new(),
        }
    }
}

impl<'a> SelectorList<'a> {
    //= rfc7296 3.13-1
    pub(super) fn parse(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = r.u8()?;
        r.reserved(3)?;
        let mut list = Self::default();
        for _ in 0..count {
            let ty = TsType(r.u8()?);
            let second_octet = r.u8()?;
            let length = r.u16()?;
            let mut body = r.sub_counted(length, 4)?;
            match ty {
                TsType::IPV4_ADDR_RANGE | TsType::IPV6_ADDR_RANGE => {
                    let selector = parse_range(ty, second_octet, &mut body)?;
                    body.finish()?;
                    list.selectors.push(selector);
                }
                _ => list.unknown.push(UnknownSelector {
                    ty,
                    second_octet,
                    body: body.rest(),
                }),
            }
        }
        Ok(list)
    }

    //= rfc7296 3.13-1
    pub(super) fn emit(&self, w: &mut Writer<'_>) {
        w.count_u8(self.selectors.len() + self.unknown.len());
        w.reserved(3);
        for selector in &self.selectors {
            emit_range(selector, w);
        }
        for unknown in &self.unknown {
            w.u8(unknown.ty.0);
            w.u8(unknown.second_octet);
            w.length_u16(2, |w| w.bytes(unknown.body));
        }
    }
}

//= security S-39
fn parse_range(ty: TsType, protocol: u8, r: &mut Reader<'_>) -> Result<TrafficSelector, Malformed> {
    let (start_port, end_port) = (r.u16()?, r.u16()?);
    let selector = TrafficSelector {
        protocol,
        start_port,
        end_port,
        start: parse_address(ty, r)?,
        end: parse_address(ty, r)?,
    };
    if selector.is_valid() {
        Ok(selector)
    } else {
        Err(Malformed::Value)
    }
}

fn parse_address(ty: TsType, r: &mut Reader<'_>) -> Result<IpAddr, Malformed> {
    if ty == TsType::IPV4_ADDR_RANGE {
        Ok(IpAddr::from(r.array::<4>()?))
    } else {
        Ok(IpAddr::from(r.array::<16>()?))
    }
}

fn emit_range(selector: &TrafficSelector, w: &mut Writer<'_>) {
    let (ty, address_len) = match selector.start {
        IpAddr::V4(_) => (TsType::IPV4_ADDR_RANGE, 4),
        IpAddr::V6(_) => (TsType::IPV6_ADDR_RANGE, 16),
    };
    w.u8(ty.0);
    w.u8(selector.protocol);
    w.count_u16(FIXED_LEN + 2 * address_len);
    w.u16(selector.start_port);
    w.u16(selector.end_port);
    for address in [selector.start, selector.end] {
        match address {
            IpAddr::V4(address) => w.bytes(&address.octets()),
            IpAddr::V6(address) => w.bytes(&address.octets()),
        }
    }
}
