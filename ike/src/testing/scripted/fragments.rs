//! What the scripted peer sends in IKE fragments, RFC 7383.

use std::time::Duration;

use super::{Reply, Scripted, path};
use crate::error::Dropped;
use crate::testing::pair::End;
use crate::wire::{ExchangeType, Fragment, PayloadType};

impl Scripted {
    /// One fragment of the next request, sealed.
    pub fn fragment(
        &mut self,
        exchange: ExchangeType,
        (number, total): (u16, u16),
        first: PayloadType,
        octets: &[u8],
    ) -> Vec<u8> {
        let fragment = Fragment { number, total };
        self.seal(exchange, Some(fragment), first, octets)
    }

    /// The next request, cut into fragments of so many octets each.
    ///
    /// # Panics
    /// If these are more fragments than there can be.
    pub fn cut(
        &mut self,
        exchange: ExchangeType,
        (first, chain): &(PayloadType, Vec<u8>),
        chunk_len: usize,
    ) -> Vec<Vec<u8>> {
        let total = u16::try_from(chain.chunks(chunk_len).count()).expect("few fragments");
        let cut = (1..=total).zip(chain.chunks(chunk_len));
        cut.map(|(number, chunk)| {
            let first = if number == 1 {
                *first
            } else {
                PayloadType::NONE
            };
            self.fragment(exchange, (number, total), first, chunk)
        })
        .collect()
    }

    /// The next request in one datagram.
    pub fn whole(&mut self, exchange: ExchangeType, chain: &(PayloadType, Vec<u8>)) -> Vec<u8> {
        self.seal(exchange, None, chain.0, &chain.1)
    }

    /// Gives the second host a datagram; how many it sends in return.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn give(&mut self, datagram: &[u8]) -> Result<usize, Dropped> {
        let (sent, now) = (self.pair.net.sent.len(), self.pair.now);
        let node = self.pair.node(End::B);
        let taken = node.endpoint.handle_datagram(now, path(), datagram);
        if let Err(reason) = taken {
            *node.dropped.entry(reason).or_default() += 1;
        }
        self.pair.run_for(Duration::ZERO);
        let answered = self.pair.net.sent.len() - sent;
        taken.map(|()| answered)
    }

    /// The last datagram of the second host, which is a whole reply to the last request.
    ///
    /// # Panics
    /// If it is not.
    pub fn last_reply(&mut self) -> Reply {
        self.message_id += 1;
        let last = self.pair.net.sent.last().expect("a reply");
        self.read(&[&last.datagram])
    }
}
