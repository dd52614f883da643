//! Requests for Child SAs of the real endpoint, and how a test grants or refuses them.

use std::time::Duration;

use super::{Heard, Scripted};
use crate::event::EspSpi;
use crate::proposal::{ChildExchange, EspProposal, choose_esp};
use crate::ts::TrafficSelector;
use crate::wire::{ExchangeType, Notify, NotifyType, Payload, Proposal};

/// A request of the real endpoint: what is in it, for a test.
#[derive(Debug)]
pub struct Asked {
    /// The exchange.
    pub exchange: ExchangeType,
    /// Types of its notifies.
    pub notifies: Vec<NotifyType>,
    /// What its SA payload offers.
    pub offered: Vec<Proposal>,
    /// Selectors of TSi and TSr.
    pub selectors: Vec<Vec<TrafficSelector>>,
    /// ESP SPIs that it deletes.
    pub deleted: Vec<EspSpi>,
    /// The whole.
    pub heard: Heard,
}

impl Scripted {
    /// The newest request that the second host has sent, once it has had some time.
    pub fn asked(&mut self) -> Option<Asked> {
        self.pair.run_for(Duration::from_millis(10));
        let heard = self.requests_since(0).pop()?;
        let (mut offered, mut selectors) = (Vec::new(), Vec::new());
        for payload in heard.payloads() {
            match payload {
                Payload::Sa(proposals) => offered = proposals,
                Payload::TsI(ts) | Payload::TsR(ts) => selectors.push(ts.selectors),
                _ => {}
            }
        }
        Some(Asked {
            exchange: heard.header.exchange,
            notifies: heard.notifies(),
            offered,
            selectors,
            deleted: heard.deleted(),
            heard,
        })
    }

    /// Answers a request with nothing but this notify.
    ///
    /// # Panics
    /// If nobody waits for an answer.
    pub fn refuse(&mut self, asked: &Asked, notify: NotifyType) {
        let payload = Payload::Notify(Notify::bare(notify));
        self.answer(&asked.heard, &[payload]).expect("awaited");
    }

    /// Grants a Child SA without a key exchange, with these selectors and these notifies.
    ///
    /// # Panics
    /// If nobody waits for an answer, or AES-256 without a key exchange is not on offer.
    pub fn grant(
        &mut self,
        asked: &Asked,
        spi: EspSpi,
        selectors: [Vec<TrafficSelector>; 2],
        notifies: &[NotifyType],
    ) {
        let exchange = ChildExchange::CreateChildSa(None);
        let ours = EspProposal::parse("aes256gcm16").expect("obol has it");
        let chosen = choose_esp(&asked.offered, &ours, exchange);
        let chosen = chosen.expect("the endpoint offers the same");
        let [ts_i, ts_r] = selectors;
        let mut payloads = vec![
            Payload::Sa(vec![chosen.answer(spi)]),
            Payload::Nonce(&[7; 32]),
            Payload::TsI(ts_i.into()),
            Payload::TsR(ts_r.into()),
        ];
        payloads.extend(notifies.iter().map(|ty| Payload::Notify(Notify::bare(*ty))));
        self.answer(&asked.heard, &payloads).expect("awaited");
    }
}
