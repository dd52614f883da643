//! The protection of an IKE SA's messages: sealing ours, opening the peer's.

use bytes::Bytes;

use crate::crypto::encr::IkeCipher;
use crate::error::Dropped;
use crate::exchange::datagrams::Datagrams;
use crate::keys::{IkeKeys, UnsupportedAlgorithm};
use crate::sa::Role;
use crate::wire::{
    CHAIN_LEN, ExchangeType, Fragment, HEADER_LEN, Header, Message, Payload, PayloadType, TooLong,
    emit_chain, protected_prefix,
};

//= rfc7296 2-1
/// No message of ours is longer; a datagram cannot be.
const MAX_MESSAGE: usize = 65_000;
/// Octets of the headers of an Encrypted payload and of an Encrypted Fragment payload.
const PAYLOAD_HEADER_LEN: usize = 4;
const FRAGMENT_HEADER_LEN: usize = 8;

/// When and how messages are cut into fragments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    /// Longest IKE message in octets that goes out in one datagram.
    pub(crate) longest: usize,
    /// Cut what is shorter, too, as far as it has content.
    pub(crate) force: bool,
}

/// The keys of an IKE SA, turned to our side.
pub(crate) struct Protection {
    /// From which further keys come.
    pub(crate) keys: IkeKeys,
    send: IkeCipher,
    receive: IkeCipher,
    sealed: u64,
}

/// The content of an Encrypted or Encrypted Fragment payload that authenticated.
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
    /// Messages are counted from a place that no other `number` leads to, so that two of these with
    /// the same keys do not seal with the same IV.
    pub(crate) fn count_for(&mut self, number: u32) {
        self.sealed = u64::from(number) << 32;
    }

    //= security S-40
    //= rfc7383 2.4-2 2.4-4
    /// A protected message: whole, or cut into fragments if `split` says so.
    ///
    /// # Errors
    /// If the payloads do not fit into one message.
    pub(crate) fn seal(
        &mut self,
        header: &Header,
        payloads: &[Payload<'_>],
        split: Option<Split>,
    ) -> Result<Datagrams, TooLong> {
        let room = if payloads.is_empty() { 0 } else { CHAIN_LEN };
        let mut inner = Vec::with_capacity(room);
        let first = emit_chain(payloads, &mut inner)?;
        self.seal_inner(header, first, &inner, split)
    }

    fn seal_inner(
        &mut self,
        header: &Header,
        first: PayloadType,
        inner: &[u8],
        split: Option<Split>,
    ) -> Result<Datagrams, TooLong> {
        let body_len = self.send.sealed_len(inner.len());
        if body_len > MAX_MESSAGE {
            return Err(TooLong);
        }
        let whole_len = HEADER_LEN + PAYLOAD_HEADER_LEN + body_len;
        // INFORMATIONAL messages are short, and charon takes none in pieces.
        let may_force = header.exchange != ExchangeType::INFORMATIONAL && !inner.is_empty();
        let chunk_len = split
            .filter(|split| whole_len > split.longest || split.force && may_force)
            .and_then(|split| self.chunk_len(split));
        match chunk_len {
            Some(chunk_len) => self.seal_fragments(header, first, inner, chunk_len),
            None => Ok(self.seal_datagram(header, None, first, inner)?.into()),
        }
    }

    /// Octets of inner payloads that fit into one fragment; `None` if none do.
    fn chunk_len(&self, split: Split) -> Option<usize> {
        let body_len = split
            .longest
            .checked_sub(HEADER_LEN + FRAGMENT_HEADER_LEN)?;
        let chunk_len = self.send.max_plain_len(body_len)?;
        (chunk_len > 0).then_some(chunk_len)
    }

    //= rfc7383 2.5-2 2.5-3 2.5-7
    /// Cuts inner payloads regardless of where they begin and end: RFC 7383 section 2.5.
    fn seal_fragments(
        &mut self,
        header: &Header,
        first: PayloadType,
        inner: &[u8],
        chunk_len: usize,
    ) -> Result<Datagrams, TooLong> {
        let total = u16::try_from(inner.len().div_ceil(chunk_len)).map_err(|_| TooLong)?;
        let fragments = (1..=total)
            .zip(inner.chunks(chunk_len))
            .map(|(number, chunk)| {
                let fragment = Fragment { number, total };
                let first = if number == 1 {
                    first
                } else {
                    PayloadType::NONE
                };
                let datagram = self.seal_datagram(header, Some(fragment), first, chunk)?;
                Ok(Bytes::from(datagram))
            });
        Ok(Datagrams::Fragments(
            fragments.collect::<Result<_, TooLong>>()?,
        ))
    }

    fn seal_datagram(
        &mut self,
        header: &Header,
        fragment: Option<Fragment>,
        first: PayloadType,
        inner: &[u8],
    ) -> Result<Vec<u8>, TooLong> {
        let body_len = self.send.sealed_len(inner.len());
        let mut message = protected_prefix(header, fragment, first, body_len)?;
        let sealed = self.send.seal(self.sealed, &message, inner);
        self.sealed += 1;
        message.extend_from_slice(&sealed);
        Ok(message)
    }

    /// The same message of ours, cut another way; `None` if it is not one of ours.
    pub(crate) fn recut(&mut self, sent: &Datagrams, split: Split) -> Option<Datagrams> {
        let mut whole: Option<(Header, PayloadType)> = None;
        let mut inner = Vec::new();
        for datagram in sent.iter() {
            let message = Message::parse(datagram).ok()?;
            let opened = open(&self.send, &message).ok()?;
            whole.get_or_insert((message.header, opened.first));
            inner.extend_from_slice(&opened.octets);
        }
        let (header, first) = whole?;
        self.seal_inner(&header, first, &inner, Some(split)).ok()
    }

    /// A message with whatever content, as only somebody with our keys can make it. `number`
    /// must not be one that [`seal`](Self::seal) uses.
    #[cfg(feature = "testing")]
    pub(crate) fn forge(
        &self,
        header: &Header,
        first: PayloadType,
        inner: &[u8],
        number: u64,
    ) -> Result<Vec<u8>, TooLong> {
        let mut message = protected_prefix(header, None, first, self.send.sealed_len(inner.len()))?;
        let sealed = self.send.seal(number, &message, inner);
        message.extend_from_slice(&sealed);
        Ok(message)
    }

    //= security S-40
    /// Authenticates and decrypts a message of the peer, or a fragment of one.
    ///
    /// # Errors
    /// `Unprotected` without an Encrypted payload, `Integrity` if it does not authenticate.
    pub(crate) fn open(&self, message: &Message<'_>) -> Result<Opened, Dropped> {
        open(&self.receive, message)
    }
}

fn open(cipher: &IkeCipher, message: &Message<'_>) -> Result<Opened, Dropped> {
    let protected = message.protected().ok().flatten();
    let protected = protected.ok_or(Dropped::Unprotected)?;
    let start = protected.aad.len();
    let octets = cipher
        .open(message.octets, start..message.octets.len())
        .map_err(|_| Dropped::Integrity)?;
    Ok(Opened {
        first: protected.first,
        octets,
    })
}
