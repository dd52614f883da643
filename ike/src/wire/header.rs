//! The IKE header, RFC 7296 section 3.1.

use super::reader::{Malformed, Reader};
use super::writer::Writer;
use super::{ExchangeType, PayloadType};
use crate::event::IkeSpi;

/// Length of the IKE header in octets.
pub const HEADER_LEN: usize = 28;

/// The header of an IKE message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// The original initiator's SPI.
    pub spi_i: IkeSpi,
    /// The original responder's SPI; zero in the first message of an IKE_SA_INIT exchange.
    pub spi_r: IkeSpi,
    /// Type of the first payload. Emitting a message fills it in.
    pub next_payload: PayloadType,
    /// Major version: 2. Anything else parses, so that it can be answered.
    pub major: u8,
    /// Minor version: 0 when sent, ignored on receipt.
    pub minor: u8,
    /// Exchange type.
    pub exchange: ExchangeType,
    /// Flags.
    pub flags: Flags,
    /// Message ID.
    pub message_id: u32,
    /// Length of the whole message in octets. Emitting a message fills it in.
    pub length: u32,
}

/// The flags of the header. Reserved bits are ignored on receipt and sent as zero.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flags {
    /// I: the sender is the original initiator of the IKE SA.
    pub initiator: bool,
    /// V: the sender can speak a higher major version. Never sent by us.
    pub version: bool,
    /// R: this message answers the one with the same Message ID.
    pub response: bool,
}

const INITIATOR: u8 = 0x08;
const VERSION: u8 = 0x10;
const RESPONSE: u8 = 0x20;

impl Header {
    //= rfc7296 2.5-3 2.5-4 3.1-4 3.1-7
    /// A header of version 2.0 to send; emitting a message fills in the rest.
    pub fn new(
        spi_i: IkeSpi,
        spi_r: IkeSpi,
        exchange: ExchangeType,
        flags: Flags,
        message_id: u32,
    ) -> Self {
        Self {
            spi_i,
            spi_r,
            next_payload: PayloadType::NONE,
            major: 2,
            minor: 0,
            exchange,
            flags,
            message_id,
            length: 0,
        }
    }

    //= rfc7296 2.5-1
    //= security S-35
    /// Reads the header of a datagram, whatever follows it and whatever its version.
    ///
    /// # Errors
    /// If the datagram is shorter than a header or not of the length that the header says.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(datagram);
        let spi_i = IkeSpi(r.u64()?);
        let spi_r = IkeSpi(r.u64()?);
        let next_payload = PayloadType(r.u8()?);
        let version = r.u8()?;
        let header = Self {
            spi_i,
            spi_r,
            next_payload,
            major: version >> 4,
            minor: version & 0x0f,
            exchange: ExchangeType(r.u8()?),
            flags: Flags::from_octet(r.u8()?),
            message_id: r.u32()?,
            length: r.u32()?,
        };
        if usize::try_from(header.length) != Ok(datagram.len()) {
            return Err(Malformed::Length);
        }
        Ok(header)
    }

    pub(crate) fn emit(&self, w: &mut Writer<'_>) {
        w.u64(self.spi_i.0);
        w.u64(self.spi_r.0);
        w.u8(self.next_payload.0);
        w.u8(self.major << 4 | self.minor & 0x0f);
        w.u8(self.exchange.0);
        w.u8(self.flags.to_octet());
        w.u32(self.message_id);
        w.u32(self.length);
    }
}

impl Flags {
    //= rfc7296 3.1-9 3.1-12
    fn from_octet(octet: u8) -> Self {
        Self {
            initiator: octet & INITIATOR != 0,
            version: octet & VERSION != 0,
            response: octet & RESPONSE != 0,
        }
    }

    //= rfc7296 3.1-9
    fn to_octet(self) -> u8 {
        let bit = |set: bool, mask: u8| if set { mask } else { 0 };
        bit(self.initiator, INITIATOR) | bit(self.version, VERSION) | bit(self.response, RESPONSE)
    }
}
