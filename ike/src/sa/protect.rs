//! The protection of an IKE SA's messages: sealing ours, opening the peer's.

use crate::crypto::encr::IkeCipher;
use crate::error::Dropped;
use crate::keys::{IkeKeys, UnsupportedAlgorithm};
use crate::sa::Role;
use crate::wire::{Header, Message, Payload, PayloadType, TooLong, emit_chain, protected_prefix};

//= rfc7296 2-1
/// No message of ours is longer; a datagram cannot be.
const MAX_MESSAGE: usize = 65_000;

/// The keys of an IKE SA, turned to our side.
pub(crate) struct Protection {
    /// From which further keys come.
    pub(crate) keys: IkeKeys,
    send: IkeCipher,
    receive: IkeCipher,
    sealed: u64,
}

/// The content of an Encrypted payload that authenticated.
#[derive(Clone)]
pub(crate) struct Opened {
    /// Type of the first payload inside.
    pub(crate) first: PayloadType,
    /// The payloads.
    pub(crate) octets: Vec<u8>,
}

impl Protection {
    /// The protection with these keys, for the side that has this role.
    pub(crate) fn new(keys: IkeKeys, role: Role) -> Result<Self, UnsupportedAlgorithm> {
        let ciphers = keys.ciphers()?;
        let (send, receive) = match role {
            Role::Initiator => (ciphers.from_initiator, ciphers.from_responder),
            Role::Responder => (ciphers.from_responder, ciphers.from_initiator),
        };
        Ok(Self {
            keys,
            send,
            receive,
            sealed: 0,
        })
    }

    //= security S-40
    /// A whole protected message.
    ///
    /// # Errors
    /// If the payloads do not fit into one message.
    pub(crate) fn seal(
        &mut self,
        header: &Header,
        payloads: &[Payload<'_>],
    ) -> Result<Vec<u8>, TooLong> {
        let mut inner = Vec::new();
        let first = emit_chain(payloads, &mut inner)?;
        let body_len = self.send.sealed_len(inner.len());
        if body_len > MAX_MESSAGE {
            return Err(TooLong);
        }
        let mut message = protected_prefix(header, None, first, body_len)?;
        let sealed = self.send.seal(self.sealed, &message, &inner);
        self.sealed += 1;
        message.extend_from_slice(&sealed);
        Ok(message)
    }

    //= security S-40
    /// Authenticates and decrypts a message of the peer.
    ///
    /// # Errors
    /// `Malformed` without an Encrypted payload, `Integrity` if it does not authenticate.
    pub(crate) fn open(&self, message: &Message<'_>) -> Result<Opened, Dropped> {
        let protected = message
            .protected()
            .ok()
            .flatten()
            .filter(|protected| protected.fragment.is_none())
            .ok_or(Dropped::Malformed)?;
        let start = protected.aad.len();
        let octets = self
            .receive
            .open(message.octets, start..message.octets.len())
            .map_err(|_| Dropped::Integrity)?;
        Ok(Opened {
            first: protected.first,
            octets,
        })
    }
}
