//! Notify payload, RFC 7296 section 3.10, and the data of the notifies that obol uses.

use std::borrow::Cow;

use crate::event::EspSpi;
use crate::wire::reader::{Malformed, Reader};
use crate::wire::writer::Writer;
use crate::wire::{HashId, KeMethod, NotifyType, PayloadType, ProtocolId};

/// Notify payload, RFC 7296 section 3.10.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notify<'a> {
    /// Protocol of the SA that `spi` names; `NONE` without an SPI.
    pub protocol: ProtocolId,
    /// The SPI, empty where the notify concerns no SA or the IKE SA itself.
    pub spi: Cow<'a, [u8]>,
    /// What is notified.
    pub ty: NotifyType,
    /// Data, in the form that `ty` lays down.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Notify<'a> {
    //= rfc7296 3.10-2 3.10-3
    //= rfc5723 7-1
    /// A notify with data about no particular SA.
    pub fn with_data(ty: NotifyType, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            protocol: ProtocolId::NONE,
            spi: Cow::Borrowed(&[]),
            ty,
            data: data.into(),
        }
    }

    /// Only a type: a status or an error that says it all.
    pub fn bare(ty: NotifyType) -> Self {
        Self::with_data(ty, &[][..])
    }

    /// COOKIE, RFC 7296 section 2.6; 1 to 64 octets.
    pub fn cookie(cookie: &'a [u8]) -> Self {
        Self::with_data(NotifyType::COOKIE, cookie)
    }

    /// INVALID_KE_PAYLOAD with the method that is wanted, RFC 7296 section 1.2.
    pub fn invalid_ke(want: KeMethod) -> Self {
        Self::with_data(
            NotifyType::INVALID_KE_PAYLOAD,
            want.0.to_be_bytes().to_vec(),
        )
    }

    /// UNSUPPORTED_CRITICAL_PAYLOAD with the payload's type, RFC 7296 section 2.5.
    pub fn unsupported_critical(ty: PayloadType) -> Self {
        Self::with_data(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![ty.0])
    }

    /// SIGNATURE_HASH_ALGORITHMS, RFC 7427 section 4.
    pub fn hash_algorithms(hashes: &[HashId]) -> Self {
        let data: Vec<u8> = hashes
            .iter()
            .flat_map(|hash| hash.0.to_be_bytes())
            .collect();
        Self::with_data(NotifyType::SIGNATURE_HASH_ALGORITHMS, data)
    }

    /// AUTH_LIFETIME in whole seconds, RFC 4478 section 3.
    pub fn auth_lifetime(time: std::time::Duration) -> Self {
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        Self::with_data(NotifyType::AUTH_LIFETIME, seconds.to_be_bytes().to_vec())
    }

    /// TICKET_LT_OPAQUE: a ticket and the whole seconds that it is good for, RFC 5723 section 7.1.
    pub fn ticket(time: std::time::Duration, ticket: &[u8]) -> Self {
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let data = [&seconds.to_be_bytes(), ticket].concat();
        Self::with_data(NotifyType::TICKET_LT_OPAQUE, data)
    }

    /// SA_RESOURCE_INFO with the queue that an additional Child SA is for, as two octets in network
    /// order: for the logs of who gets it (RFC 9611).
    pub fn resource(queue: u16) -> Self {
        Self::with_data(NotifyType::SA_RESOURCE_INFO, queue.to_be_bytes().to_vec())
    }

    //= rfc7296 3.10-1
    /// A notify about one ESP SA, such as REKEY_SA (RFC 7296 section 1.3.3) with the SPI of
    /// packets to the sender, or CHILD_SA_NOT_FOUND with the SPI that was asked for.
    pub fn about_esp(ty: NotifyType, spi: EspSpi) -> Self {
        Self {
            protocol: ProtocolId::ESP,
            spi: spi.0.to_be_bytes().to_vec().into(),
            ty,
            data: Cow::Borrowed(&[]),
        }
    }

    /// INVALID_SPI with the SPI of an ESP packet that could not be read, RFC 7296 section 1.5.
    pub fn invalid_spi(spi: EspSpi) -> Self {
        Self::with_data(NotifyType::INVALID_SPI, spi.0.to_be_bytes().to_vec())
    }

    //= rfc7296 2.6-3
    /// The cookie of a COOKIE notify, if it has a legal length (1 to 64 octets).
    pub fn as_cookie(&self) -> Option<&[u8]> {
        (self.ty == NotifyType::COOKIE && (1..=64).contains(&self.data.len()))
            .then_some(&*self.data)
    }

    /// The method wanted by an INVALID_KE_PAYLOAD notify.
    pub fn as_invalid_ke(&self) -> Option<KeMethod> {
        let octets = <[u8; 2]>::try_from(&*self.data).ok()?;
        (self.ty == NotifyType::INVALID_KE_PAYLOAD).then_some(KeMethod(u16::from_be_bytes(octets)))
    }

    /// The time of an AUTH_LIFETIME notify.
    pub fn as_auth_lifetime(&self) -> Option<std::time::Duration> {
        let octets = <[u8; 4]>::try_from(&*self.data).ok()?;
        let seconds = u64::from(u32::from_be_bytes(octets));
        (self.ty == NotifyType::AUTH_LIFETIME).then(|| std::time::Duration::from_secs(seconds))
    }

    /// The time and the ticket of a TICKET_LT_OPAQUE notify.
    pub fn as_ticket(&self) -> Option<(std::time::Duration, &[u8])> {
        let (seconds, ticket) = self.data.split_first_chunk()?;
        let time = std::time::Duration::from_secs(u64::from(u32::from_be_bytes(*seconds)));
        let fits = self.ty == NotifyType::TICKET_LT_OPAQUE && !ticket.is_empty();
        fits.then_some((time, ticket))
    }

    /// The hash algorithms of a SIGNATURE_HASH_ALGORITHMS notify, in order.
    pub fn as_hash_algorithms(&self) -> Option<impl Iterator<Item = HashId>> {
        let (pairs, odd) = self.data.as_chunks();
        (self.ty == NotifyType::SIGNATURE_HASH_ALGORITHMS && odd.is_empty()).then(|| {
            pairs
                .iter()
                .map(|octets| HashId(u16::from_be_bytes(*octets)))
        })
    }

    /// The hash of a NAT_DETECTION_SOURCE_IP or NAT_DETECTION_DESTINATION_IP notify, RFC 7296
    /// section 2.23.
    pub fn as_nat_detection(&self) -> Option<[u8; 20]> {
        let ours = matches!(
            self.ty,
            NotifyType::NAT_DETECTION_SOURCE_IP | NotifyType::NAT_DETECTION_DESTINATION_IP
        );
        <[u8; 20]>::try_from(&*self.data).ok().filter(|_| ours)
    }

    /// The SPI of a notify about an ESP SA, such as REKEY_SA.
    pub fn esp_spi(&self) -> Option<EspSpi> {
        let octets = <[u8; 4]>::try_from(&*self.spi).ok()?;
        (self.protocol == ProtocolId::ESP).then_some(EspSpi(u32::from_be_bytes(octets)))
    }

    pub(super) fn parse(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let protocol = ProtocolId(r.u8()?);
        let spi_size = r.u8()?;
        let ty = NotifyType(r.u16()?);
        Ok(Self {
            protocol,
            spi: r.bytes(usize::from(spi_size))?.into(),
            ty,
            data: r.rest().into(),
        })
    }

    pub(super) fn emit(&self, w: &mut Writer<'_>) {
        w.u8(self.protocol.0);
        w.count_u8(self.spi.len());
        w.u16(self.ty.0);
        w.bytes(&self.spi);
        w.bytes(&self.data);
    }
}
