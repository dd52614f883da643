//! Messages that only somebody with an endpoint's keys can make, and what the endpoint would not:
//! for tests that play an authenticated peer in any state.

use crate::endpoint::Endpoint;
use crate::event::IkeSpi;
use crate::sa::Phase;
use crate::sa::established::Succession;
use crate::wire::{ExchangeType, Header, Message, Payload, PayloadType, emit_chain, parse_chain};

/// Numbers of forged messages begin here; an endpoint's own never come so far.
const FORGED: u64 = 1 << 63;

/// What to forge.
#[derive(Clone, Debug)]
pub struct Forgery {
    /// The exchange type of the header.
    pub exchange: ExchangeType,
    /// Whether it is an answer.
    pub response: bool,
    /// The message ID of the header.
    pub message_id: u32,
    /// Type of the first payload.
    pub first: PayloadType,
    /// The payloads, in octets that need be none.
    pub chain: Vec<u8>,
}

impl Forgery {
    /// One of payloads.
    ///
    /// # Panics
    /// If a payload is too long.
    pub fn of(exchange: ExchangeType, response: bool, payloads: &[Payload<'_>]) -> Self {
        let mut chain = Vec::new();
        let first = emit_chain(payloads, &mut chain).expect("payloads of a test are short");
        Self {
            exchange,
            response,
            message_id: 0,
            first,
            chain,
        }
    }
}

impl Endpoint {
    /// The datagram in which this endpoint would send that on the IKE SA with these SPIs; `None`
    /// without such an IKE SA, or before it has keys.
    pub fn forge(&self, spi_i: IkeSpi, spi_r: IkeSpi, what: &Forgery) -> Option<Vec<u8>> {
        let sa = self.with_spis(spi_i, spi_r)?;
        let header = sa.header(what.exchange, what.response, what.message_id);
        let number = FORGED + u64::from(what.message_id);
        let protection = sa.protection.as_ref()?;
        protection
            .forge(&header, what.first, &what.chain, number)
            .ok()
    }

    /// Types of the payloads that the peer sent to this endpoint in that datagram, notifies by
    /// their own type. `None`: it has not the keys.
    pub fn read(&self, datagram: &[u8]) -> Option<(Header, Vec<String>)> {
        let message = Message::parse(datagram).ok()?;
        let header = message.header;
        if message.protected().ok()?.is_none() {
            let names = message.payloads.iter().map(|raw| name(raw.decode().ok()));
            return Some((header, names.collect()));
        }
        let sa = self.with_spis(header.spi_i, header.spi_r)?;
        let opened = sa.protection.as_ref()?.open(&message).ok()?;
        let chain = parse_chain(opened.first, &opened.octets).ok()?;
        let names = chain.iter().map(|raw| name(raw.decode().ok())).collect();
        Some((header, names))
    }

    /// The state of every IKE SA, in a word, with the number of its Child SAs.
    pub fn phases(&self, spis: &[(IkeSpi, IkeSpi)]) -> Vec<String> {
        let of = |(spi_i, spi_r): &(IkeSpi, IkeSpi)| match self.with_spis(*spi_i, *spi_r) {
            Some(sa) => format!("{}/{}", phase(&sa.phase), sa.children.len()),
            None => "gone".to_owned(),
        };
        spis.iter().map(of).collect()
    }

    /// The message ID of the request that is open on this IKE SA, and of the peer's next request.
    pub fn message_ids(&self, spi_i: IkeSpi, spi_r: IkeSpi) -> (Option<u32>, u32) {
        let Some(sa) = self.with_spis(spi_i, spi_r) else {
            return (None, 0);
        };
        let init = matches!(sa.phase, Phase::Init(_)).then_some(0);
        let open = sa.requests.open().map(|open| open.message_id).or(init);
        (open, sa.replies.current())
    }
}

fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Init(_) => "init",
        Phase::AuthInitiator(_) | Phase::AuthResponder(_) => "auth",
        Phase::HalfOpen(_) => "half-open",
        Phase::Lingering { .. } => "lingering",
        Phase::Gone => "gone",
        Phase::Established(e) => match (&e.closing, &e.succession) {
            (Some(_), _) => "closing",
            (None, Succession::None) => "up",
            (None, Succession::Contested { .. }) => "contested",
            (None, Succession::Undecided) => "undecided",
            (None, Succession::Replaced) => "replaced",
        },
    }
}

fn name(payload: Option<Payload<'_>>) -> String {
    match payload {
        Some(Payload::Notify(notify)) => format!("N({:?})", notify.ty),
        Some(payload) => {
            let text = format!("{payload:?}");
            let end = text.find(|c: char| !c.is_alphanumeric());
            text[..end.unwrap_or(text.len())].to_owned()
        }
        None => "?".to_owned(),
    }
}
