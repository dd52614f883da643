//! What the real endpoint sends to the scripted peer, opened, and the answers to it.

use super::{Scripted, path};
use crate::error::{CommandError, Dropped};
use crate::event::{Command, EspSpi};
use crate::testing::pair::End;
use crate::wire::{
    Delete, ExchangeType, Flags, Header, Message, NotifyType, Payload, PayloadType, RawPayload,
    emit_chain, parse_chain, protected_prefix,
};

/// A message of the second host on the first IKE SA.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its header.
    pub header: Header,
    first: PayloadType,
    octets: Vec<u8>,
}

impl Heard {
    /// Its payloads as they came.
    ///
    /// # Panics
    /// If they are no chain.
    pub fn raw(&self) -> Vec<RawPayload<'_>> {
        parse_chain(self.first, &self.octets).expect("the endpoint's own")
    }

    /// Its payloads.
    ///
    /// # Panics
    /// If one cannot be read.
    pub fn payloads(&self) -> Vec<Payload<'_>> {
        let decoded = self.raw().into_iter().map(|raw| raw.decode());
        decoded
            .collect::<Result<_, _>>()
            .expect("the endpoint's own")
    }

    /// Types of its payloads.
    pub fn types(&self) -> Vec<PayloadType> {
        self.raw().iter().map(|raw| raw.ty).collect()
    }

    /// Types of its notifies.
    pub fn notifies(&self) -> Vec<NotifyType> {
        let notify = |payload| match payload {
            Payload::Notify(notify) => Some(notify.ty),
            _ => None,
        };
        self.payloads().into_iter().filter_map(notify).collect()
    }

    /// The first notify that reports an error.
    pub fn error(&self) -> Option<NotifyType> {
        self.notifies().into_iter().find(|ty| ty.is_error())
    }

    /// ESP SPIs that it deletes.
    pub fn deleted(&self) -> Vec<EspSpi> {
        let deleted = |payload| match payload {
            Payload::Delete(Delete::Esp(spis)) => spis,
            _ => Vec::new(),
        };
        self.payloads().into_iter().flat_map(deleted).collect()
    }

    /// Whether it deletes the IKE SA.
    pub fn deletes_ike(&self) -> bool {
        self.payloads().contains(&Payload::Delete(Delete::Ike))
    }
}

impl Scripted {
    /// Gives the second host a command.
    ///
    /// # Errors
    /// What it says to it.
    pub fn command(&mut self, command: Command) -> Result<Vec<Heard>, CommandError> {
        let sent = self.pair.net.sent.len();
        self.pair.command(End::B, command)?;
        self.pair.run_for(std::time::Duration::ZERO);
        Ok(self.requests_since(sent))
    }

    /// Requests of the second host on the first IKE SA, from this number of its datagrams on.
    pub fn requests_since(&self, sent: usize) -> Vec<Heard> {
        let heard = self.pair.net.sent[sent..]
            .iter()
            .filter_map(|packet| self.hear(&packet.datagram));
        heard.filter(|heard| !heard.header.flags.response).collect()
    }

    fn hear(&self, datagram: &[u8]) -> Option<Heard> {
        let message = Message::parse(datagram).ok()?;
        let header = message.header;
        if (header.spi_i, header.spi_r) != (self.spi_i, self.spi_r) || header.flags.initiator {
            return None;
        }
        let protected = message.protected().ok().flatten()?;
        let body = protected.aad.len()..datagram.len();
        let octets = self.ciphers.from_responder.open(datagram, body).ok()?;
        Some(Heard {
            header,
            first: protected.first,
            octets,
        })
    }

    /// Sends a request and returns the whole reply.
    ///
    /// # Errors
    /// Why the request was dropped.
    ///
    /// # Panics
    /// If there is no reply.
    pub fn ask(
        &mut self,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
    ) -> Result<Heard, Dropped> {
        let sent = self.pair.net.sent.len();
        self.request(exchange, payloads)?;
        let replies = self.pair.net.sent[sent..]
            .iter()
            .filter_map(|packet| self.hear(&packet.datagram));
        let mut replies = replies.filter(|heard| heard.header.flags.response);
        Ok(replies.next().expect("a reply"))
    }

    /// Answers a request of the second host, and returns what it asks then.
    ///
    /// # Errors
    /// Why the answer was dropped.
    ///
    /// # Panics
    /// If the payloads are too long.
    pub fn answer(
        &mut self,
        request: &Heard,
        payloads: &[Payload<'_>],
    ) -> Result<Vec<Heard>, Dropped> {
        let mut chain = Vec::new();
        let first = emit_chain(payloads, &mut chain).expect("short payloads");
        let flags = Flags {
            initiator: true,
            response: true,
            ..Flags::default()
        };
        let exchange = request.header.exchange;
        let header = Header::new(
            self.spi_i,
            self.spi_r,
            exchange,
            flags,
            request.header.message_id,
        );
        let cipher = &self.ciphers.from_initiator;
        let mut datagram = protected_prefix(&header, None, first, cipher.sealed_len(chain.len()))
            .expect("short payloads");
        let sealed = cipher.seal(self.sealed, &datagram, &chain);
        self.sealed += 1;
        datagram.extend(sealed);
        let sent = self.pair.net.sent.len();
        let now = self.pair.now;
        let endpoint = &mut self.pair.node(End::B).endpoint;
        endpoint.handle_datagram(now, path(), &datagram)?;
        self.pair.run_for(std::time::Duration::ZERO);
        Ok(self.requests_since(sent))
    }
}
