//! What an IKE SA makes of signs that one end has lost its state: RFC 7296 sections 1.5 and
//! 2.21.4, and quick crash detection, RFC 6290.

use std::time::{Duration, Instant};

use crate::context::Context;
use crate::error::{Dropped, IkeFailure};
use crate::event::EspSpi;
use crate::exchange::crash::PeerToken;
use crate::sa::task::Task;
use crate::sa::{IkeSa, Request};
use crate::wire::{ExchangeType, Notify, Payload};

/// The peer is told of packets that we cannot read no more often than this.
const HINT_PAUSE: Duration = Duration::from_secs(10);

/// What an established IKE SA knows of crashes.
#[derive(Default)]
pub(crate) struct Crash {
    /// Shown in clear, it says that the peer has lost this IKE SA.
    token: Option<PeerToken>,
    /// When the peer was last told of an ESP SPI that we do not know.
    told: Option<Instant>,
}

impl Crash {
    /// Keeps the token that a protected message brings; RFC 6290 section 4.4: at any time.
    pub(crate) fn learn(&mut self, notifies: &[Notify<'_>]) {
        self.token = PeerToken::of(notifies).or(self.token);
    }

    /// Whether the peer gave us a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }
}

/// Whether it is so long since `last` that it may be done again, which is noted then.
fn again(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|last| now.saturating_duration_since(last) >= HINT_PAUSE);
    if due {
        *last = Some(now);
    }
    due
}

impl IkeSa {
    //= rfc7296 2.21.4-5
    /// Takes an unprotected notify that says that the peer does not know our SPI. With the token,
    /// the IKE SA ends without a word to the peer; else the peer is asked whether it lives.
    ///
    /// # Errors
    /// [`Dropped::Hint`] without the token.
    pub(crate) fn on_hint(
        &mut self,
        cx: &mut Context,
        now: Instant,
        notifies: &[Notify<'_>],
        believe: bool,
    ) -> Result<(), Dropped> {
        let Some(established) = self.established() else {
            return Err(Dropped::Hint);
        };
        let token = established.crash.token.filter(|_| believe);
        // RFC 6290 section 4.5: nobody is there to be told.
        if token.is_some_and(|token| token.is_shown_by(notifies)) {
            let reason = if self.yield_contest(cx, now) {
                IkeFailure::Replaced
            } else {
                IkeFailure::PeerCrashed
            };
            self.end(cx, reason);
            return Ok(());
        }
        self.suspect(now);
        Err(Dropped::Hint)
    }

    /// Tells the peer that it sends ESP with an SPI that we do not know.
    pub(crate) fn report_unknown_spi(&mut self, now: Instant, spi: EspSpi) {
        let idle = self.is_idle();
        if let Some(established) = self.established_mut()
            && established.is_current()
            && idle
            && again(&mut established.crash.told, now)
        {
            self.tasks.push(Task::InvalidSpi(spi));
        }
    }

    pub(crate) fn ask_invalid_spi(&mut self, cx: &mut Context, now: Instant, spi: EspSpi) {
        let payload = Payload::Notify(Notify::invalid_spi(spi));
        let exchange = ExchangeType::INFORMATIONAL;
        self.request(cx, now, exchange, &[payload], Request::Notice);
    }

    /// Gives the peer our token for this IKE SA, where the exchange that made it could not
    /// (RFC 6290 section 4.3).
    pub(crate) fn ask_token(&mut self, cx: &mut Context, now: Instant) {
        if let Some(token) = cx.token(self.spi_i, self.spi_r) {
            let payload = Payload::Notify(token);
            let exchange = ExchangeType::INFORMATIONAL;
            self.request(cx, now, exchange, &[payload], Request::Notice);
        }
    }

    /// Whether nothing is being asked that shows whether the peer lives.
    pub(crate) fn is_idle(&self) -> bool {
        let shows = |task: &Task| matches!(task, Task::Liveness | Task::InvalidSpi(_));
        self.requests.open().is_none() && !self.tasks.iter().any(shows)
    }

    /// Our token as a payload of the exchange that makes this IKE SA.
    pub(crate) fn token(&self, cx: &Context) -> Option<Notify<'static>> {
        cx.token(self.spi_i, self.spi_r)
    }
}
