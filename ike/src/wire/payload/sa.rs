//! Security Association payload: proposals and transforms, RFC 7296 section 3.3.

use crate::wire::reader::{Malformed, Reader};
use crate::wire::writer::Writer;
use crate::wire::{ProtocolId, TransformType};

/// Proposals that one SA payload may have. Peers with a proposal per suite send about 10. With
/// [`MAX_TRANSFORMS`], a payload of n octets costs less than 8 * n octets of memory, and no more
/// than 32 * 128 transforms of 8 octets = 32 KiB.
pub const MAX_PROPOSALS: usize = 32;

/// Transforms that one proposal may have. Peers that put all they can into one send about 40.
pub const MAX_TRANSFORMS: usize = 128;

/// Transforms that most proposals stay below.
const USUAL_TRANSFORMS: usize = 16;

const LAST: u8 = 0;
const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;

/// Attribute format bit: the value is in the length field, RFC 7296 section 3.3.5.
const SHORT_FORMAT: u16 = 0x8000;
/// Key Length attribute, RFC 7296 section 3.3.5.
const KEY_LENGTH: u16 = 14;

/// A set of transforms, one of each type of which makes an SA; RFC 7296 section 3.3.1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proposal {
    /// Number: rises from proposal to proposal; an answer repeats the chosen one's.
    pub num: u8,
    /// Protocol.
    pub protocol: ProtocolId,
    /// The sender's SPI: 4 octets for AH and ESP, none or 8 for IKE.
    pub spi: Vec<u8>,
    /// Transforms in order of preference.
    pub transforms: Vec<Transform>,
}

/// An algorithm, RFC 7296 section 3.3.2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transform {
    /// What it is for.
    pub ty: TransformType,
    /// The algorithm, a number in the registry of its type.
    pub id: u16,
    /// Key Length attribute, in bits.
    pub key_bits: Option<u16>,
    /// It has an attribute that is not known, or not in its only form, and so cannot be
    /// chosen (RFC 7296 section 3.3.6). Such attributes are not kept, and not emitted.
    pub unknown_attributes: bool,
}

impl Transform {
    /// An algorithm, with its key length in bits if it has several.
    pub fn new(ty: TransformType, id: u16, key_bits: Option<u16>) -> Self {
        Self {
            ty,
            id,
            key_bits,
            unknown_attributes: false,
        }
    }
}

//= rfc7296 3.3.1-1 3.3-2
//= security S-36
pub(super) fn parse(r: &mut Reader<'_>) -> Result<Vec<Proposal>, Malformed> {
    let mut proposals: Vec<Proposal> = Vec::new();
    loop {
        if proposals.len() == MAX_PROPOSALS {
            return Err(Malformed::TooMany);
        }
        let marker = r.u8()?;
        r.reserved(1)?;
        let length = r.u16()?;
        let proposal = Proposal::parse(&mut r.sub_counted(length, 4)?)?;
        // An answer names its proposal by number, so numbers must not repeat.
        if proposals
            .last()
            .is_some_and(|last| last.num >= proposal.num)
        {
            return Err(Malformed::Inconsistent);
        }
        proposals.push(proposal);
        match marker {
            LAST => return Ok(proposals),
            MORE_PROPOSALS => {}
            _ => return Err(Malformed::Inconsistent),
        }
    }
}

//= rfc7296 3.3.1-1
pub(super) fn emit(proposals: &[Proposal], w: &mut Writer<'_>) {
    let mut rest = proposals.iter();
    while let Some(proposal) = rest.next() {
        w.u8(if rest.len() == 0 {
            LAST
        } else {
            MORE_PROPOSALS
        });
        w.reserved(1);
        w.length_u16(2, |w| proposal.emit(w));
    }
}

impl Proposal {
    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let num = r.u8()?;
        let protocol = ProtocolId(r.u8()?);
        let spi_size = r.u8()?;
        let count = usize::from(r.u8()?);
        let spi = r.bytes(usize::from(spi_size))?.to_vec();
        let sizes: &[u8] = match protocol {
            ProtocolId::IKE => &[0, 8],
            ProtocolId::AH | ProtocolId::ESP => &[4],
            // A proposal for a protocol that is not known is refused, but not malformed.
            _ => &[spi_size],
        };
        if !sizes.contains(&spi_size) {
            return Err(Malformed::Value);
        }
        Ok(Self {
            num,
            protocol,
            spi,
            transforms: parse_transforms(count, r)?,
        })
    }

    //= rfc7296 3.3.2-1
    fn emit(&self, w: &mut Writer<'_>) {
        w.u8(self.num);
        w.u8(self.protocol.0);
        w.count_u8(self.spi.len());
        w.count_u8(self.transforms.len());
        w.bytes(&self.spi);
        let mut rest = self.transforms.iter();
        while let Some(transform) = rest.next() {
            w.u8(if rest.len() == 0 {
                LAST
            } else {
                MORE_TRANSFORMS
            });
            w.reserved(1);
            w.length_u16(2, |w| transform.emit(w));
        }
    }
}

//= rfc7296 3.3-2 3.3.2-1
//= security S-36
fn parse_transforms(count: usize, r: &mut Reader<'_>) -> Result<Vec<Transform>, Malformed> {
    if count > MAX_TRANSFORMS {
        return Err(Malformed::TooMany);
    }
    let mut transforms = Vec::with_capacity(count.min(USUAL_TRANSFORMS));
    for left in (0..count).rev() {
        let marker = r.u8()?;
        r.reserved(1)?;
        let length = r.u16()?;
        if marker != if left == 0 { LAST } else { MORE_TRANSFORMS } {
            return Err(Malformed::Inconsistent);
        }
        transforms.push(Transform::parse(r.sub_counted(length, 4)?)?);
    }
    if r.is_empty() {
        Ok(transforms)
    } else {
        Err(Malformed::Trailing)
    }
}

impl Transform {
    //= rfc7296 3.3-6 3.3.6-7
    fn parse(mut r: Reader<'_>) -> Result<Self, Malformed> {
        let ty = TransformType(r.u8()?);
        r.reserved(1)?;
        let mut transform = Self::new(ty, r.u16()?, None);
        while !r.is_empty() {
            let ty = r.u16()?;
            let value_or_length = r.u16()?;
            if ty == SHORT_FORMAT | KEY_LENGTH && transform.key_bits.is_none() {
                transform.key_bits = Some(value_or_length);
                continue;
            }
            transform.unknown_attributes = true;
            if ty & SHORT_FORMAT == 0 {
                r.reserved(usize::from(value_or_length))?;
            }
        }
        Ok(transform)
    }

    //= rfc7296 3.3.5-1 3.3.5-3
    fn emit(&self, w: &mut Writer<'_>) {
        w.u8(self.ty.0);
        w.reserved(1);
        w.u16(self.id);
        if let Some(bits) = self.key_bits {
            w.u16(SHORT_FORMAT | KEY_LENGTH);
            w.u16(bits);
        }
    }
}
