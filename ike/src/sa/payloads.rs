//! The payloads of one message, sorted: handlers see what is there, not where it stood.

use crate::config::Connection;
use crate::error::Fault;
use crate::event::EspSpi;
use crate::ts::TrafficSelector;
use crate::wire::{
    Auth, Delete, HashId, Id, Ke, KeMethod, Malformed, Notify, NotifyType, Payload, PayloadType,
    Proposal, RawPayload,
};

/// What a message says. A payload that may be there once is an `Option`.
#[derive(Debug, Default)]
pub(crate) struct Payloads<'a> {
    pub(crate) sa: Option<Vec<Proposal>>,
    pub(crate) ke: Option<Ke<'a>>,
    pub(crate) nonce: Option<&'a [u8]>,
    pub(crate) id_i: Option<Id<'a>>,
    pub(crate) id_r: Option<Id<'a>>,
    pub(crate) auth: Option<Auth<'a>>,
    pub(crate) ts_i: Option<Vec<TrafficSelector>>,
    pub(crate) ts_r: Option<Vec<TrafficSelector>>,
    pub(crate) eap: bool,
    /// The solution of a puzzle.
    pub(crate) ps: Option<&'a [u8]>,
    pub(crate) notifies: Vec<Notify<'a>>,
    pub(crate) deletes: Vec<Delete<'a>>,
    /// A payload type that we do not know and that must be understood.
    pub(crate) critical: Option<PayloadType>,
}

impl<'a> Payloads<'a> {
    //= rfc7296 2.5-11
    /// Sorts a chain.
    ///
    /// # Errors
    /// If a payload is malformed, or there twice where only one makes sense.
    pub(crate) fn sort(chain: &[RawPayload<'a>]) -> Result<Self, Malformed> {
        let mut sorted = Self::default();
        for raw in chain {
            sorted.put(raw.decode()?)?;
        }
        Ok(sorted)
    }

    //= rfc7296 2.3-1 2.5-7 2.19-5 2.20-1 2.22-1 3.2-3 3.6-2 3.10.1-3 3.12-2 3.15.1-8
    //= security S-11
    fn put(&mut self, payload: Payload<'a>) -> Result<(), Malformed> {
        match payload {
            Payload::Sa(value) => once(&mut self.sa, value),
            Payload::Ke(value) => once(&mut self.ke, value),
            Payload::Nonce(value) => once(&mut self.nonce, value),
            Payload::IdI(value) => once(&mut self.id_i, value),
            Payload::IdR(value) => once(&mut self.id_r, value),
            Payload::Auth(value) => once(&mut self.auth, value),
            Payload::TsI(value) => once(&mut self.ts_i, value.selectors),
            Payload::TsR(value) => once(&mut self.ts_r, value.selectors),
            Payload::Notify(value) => {
                self.notifies.push(value);
                Ok(())
            }
            Payload::Delete(value) => {
                self.deletes.push(value);
                Ok(())
            }
            Payload::Eap(_) => {
                self.eap = true;
                Ok(())
            }
            Payload::Unknown {
                ty: PayloadType::PS,
                body,
                ..
            } => once(&mut self.ps, body),
            Payload::Unknown {
                ty, critical: true, ..
            } => {
                self.critical.get_or_insert(ty);
                Ok(())
            }
            // Vendor IDs, certificates and their requests, and configuration mean nothing to us.
            _ => Ok(()),
        }
    }

    /// The first notify of this type.
    pub(crate) fn notify(&self, ty: NotifyType) -> Option<&Notify<'a>> {
        self.notifies.iter().find(|notify| notify.ty == ty)
    }

    /// Whether there is a notify of this type.
    pub(crate) fn has(&self, ty: NotifyType) -> bool {
        self.notify(ty).is_some()
    }

    /// The first notify that reports an error.
    pub(crate) fn error(&self) -> Option<NotifyType> {
        self.notifies.iter().map(|n| n.ty).find(|ty| ty.is_error())
    }

    /// The key exchange method that an INVALID_KE_PAYLOAD asks for.
    pub(crate) fn wanted_ke(&self) -> Option<KeMethod> {
        self.notify(NotifyType::INVALID_KE_PAYLOAD)?.as_invalid_ke()
    }

    /// The SPI of the Child SA that a REKEY_SA names.
    pub(crate) fn rekeyed_spi(&self) -> Option<EspSpi> {
        self.notify(NotifyType::REKEY_SA)?.esp_spi()
    }

    /// Whether who sends this IKE_SA_INIT request can be sent to another gateway (RFC 5685
    /// section 3).
    pub(crate) fn can_be_redirected(&self) -> bool {
        self.has(NotifyType::REDIRECT_SUPPORTED) || self.has(NotifyType::REDIRECTED_FROM)
    }

    /// The hash algorithms the peer can verify signatures with; `None` without RFC 7427.
    pub(crate) fn hashes(&self) -> Option<Vec<HashId>> {
        Some(
            self.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS)?
                .as_hash_algorithms()?
                .collect(),
        )
    }

    /// What the peer says about addresses: hashes of its own, and the one of ours. A connection
    /// without NAT traversal does not listen.
    pub(crate) fn nat_hashes(&self, connection: &Connection) -> (Vec<Vec<u8>>, Option<&[u8]>) {
        if !connection.nat_traversal {
            return (Vec::new(), None);
        }
        let sources = self
            .notifies
            .iter()
            .filter(|n| n.ty == NotifyType::NAT_DETECTION_SOURCE_IP)
            .map(|n| n.data.to_vec())
            .collect();
        let destination = self
            .notify(NotifyType::NAT_DETECTION_DESTINATION_IP)
            .map(|n| &*n.data);
        (sources, destination)
    }

    //= rfc7296 2.5-8
    /// Refuses a message with a payload that must be understood and is not.
    pub(crate) fn check_critical(&self) -> Result<(), Fault> {
        match self.critical {
            Some(ty) => Err(Fault::UnsupportedCritical(ty)),
            None => Ok(()),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Malformed> {
    if slot.replace(value).is_some() {
        return Err(Malformed::Inconsistent);
    }
    Ok(())
}
