//! Delete payload, RFC 7296 section 3.11.

use crate::event::EspSpi;
use crate::wire::ProtocolId;
use crate::wire::reader::{Malformed, Reader};
use crate::wire::writer::Writer;

//= rfc7296 3.11-1
/// Which SAs the sender has removed. ESP SPIs are those of packets to the sender of the Delete.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Delete<'a> {
    /// The IKE SA that carries the message.
    Ike,
    /// ESP SAs.
    Esp(Vec<EspSpi>),
    /// SAs of another protocol.
    Other {
        /// The protocol.
        protocol: ProtocolId,
        /// Octets per SPI.
        spi_size: u8,
        /// How many SPIs there are.
        count: u16,
        /// The SPIs, `count * spi_size` octets.
        spis: &'a [u8],
    },
}

impl<'a> Delete<'a> {
    //= rfc7296 3.11-3
    pub(super) fn parse(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let protocol = ProtocolId(r.u8()?);
        let spi_size = r.u8()?;
        let count = r.u16()?;
        let spis = r.rest();
        if usize::from(spi_size) * usize::from(count) != spis.len() {
            return Err(Malformed::Length);
        }
        match protocol {
            ProtocolId::IKE if spi_size == 0 && count == 0 => Ok(Self::Ike),
            ProtocolId::ESP if spi_size == 4 => Ok(Self::Esp(parse_esp(spis))),
            ProtocolId::IKE | ProtocolId::ESP => Err(Malformed::Value),
            _ => Ok(Self::Other {
                protocol,
                spi_size,
                count,
                spis,
            }),
        }
    }

    //= rfc7296 3.11-3
    pub(super) fn emit(&self, w: &mut Writer<'_>) {
        match self {
            Self::Ike => {
                w.u8(ProtocolId::IKE.0);
                w.reserved(3);
            }
            Self::Esp(spis) => {
                w.u8(ProtocolId::ESP.0);
                w.u8(4);
                w.count_u16(spis.len());
                for spi in spis {
                    w.u32(spi.0);
                }
            }
            Self::Other {
                protocol,
                spi_size,
                count,
                spis,
            } => {
                w.u8(protocol.0);
                w.u8(*spi_size);
                w.u16(*count);
                w.bytes(spis);
            }
        }
    }
}

fn parse_esp(spis: &[u8]) -> Vec<EspSpi> {
    let (spis, _) = spis.as_chunks();
    spis.iter()
        .map(|spi| EspSpi(u32::from_be_bytes(*spi)))
        .collect()
}
