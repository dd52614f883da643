//! Sending on an IKE SA: requests into the request window, replies into the reply window.

use std::time::{Duration, Instant};

use crate::config::Path;
use crate::context::Context;
use crate::error::{Fault, IkeFailure};
use crate::event::{Event, Step};
use crate::exchange::datagrams::Datagrams;
use crate::sa::{IkeSa, Phase, Request, Role};
use crate::wire::{ExchangeType, Flags, Header, Notify, Payload, TooLong};

impl IkeSa {
    //= rfc7296 3.1-10 3.1-12 3.1-13
    /// The header of a message of ours.
    pub(crate) fn header(&self, exchange: ExchangeType, response: bool, message_id: u32) -> Header {
        let flags = Flags {
            initiator: self.role == Role::Initiator,
            version: false,
            response,
        };
        Header::new(self.spi_i, self.spi_r, exchange, flags, message_id)
    }

    /// Sends a protected request. The request window must be free; else nothing happens.
    pub(crate) fn request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
        what: Request,
    ) {
        if let Some(datagrams) = self.seal_request(cx, exchange, payloads) {
            self.send_request(cx, now, datagrams, what);
        }
    }

    /// The octets of the next request; `None` if the request window is not free.
    pub(crate) fn seal_request(
        &mut self,
        cx: &mut Context,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
    ) -> Option<Datagrams> {
        let message_id = self.requests.next_id()?;
        let sealed = self.seal(self.path, exchange, false, message_id, payloads);
        if sealed.is_err() {
            self.end(cx, IkeFailure::Protocol("our request is too long"));
        }
        sealed.ok()
    }

    /// Sends what [`seal_request`](Self::seal_request) made.
    pub(crate) fn send_request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        datagrams: Datagrams,
        what: Request,
    ) {
        let probes = matches!(what, Request::Liveness);
        let retransmit = cx.retransmit(now, self.connection.dpd_retry.filter(|_| probes));
        cx.transmit_all(self.other_path(&what).unwrap_or(self.path), &datagrams);
        self.requests.begin(datagrams, retransmit, what);
    }

    /// Tells those who wait how far the negotiation is.
    pub(crate) fn tell_step(&self, cx: &mut Context, step: Step) {
        cx.event(Event::Progress {
            id: self.id,
            connection: self.connection.name.clone(),
            path: self.path,
            step,
        });
    }

    /// The same of a request that went out again, if it is one that somebody may wait for.
    pub(crate) fn tell_repeat(&self, cx: &mut Context, now: Instant) {
        let open = self.requests.open();
        let (exchange, due) = match (&self.phase, open.map(|open| &open.what)) {
            (Phase::Init(init), _) => (init.exchange(), init.due()),
            (_, Some(Request::Auth)) => (ExchangeType::IKE_AUTH, None),
            (_, Some(Request::Child(_))) => (ExchangeType::CREATE_CHILD_SA, None),
            _ => return,
        };
        let due = due.or(open.map(|open| open.retransmit.due()));
        let after = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
        self.tell_step(cx, Step::Repeated(exchange, after));
    }

    //= rfc7296 2.11-1 2.11-2 2.23-1
    //= security S-23
    /// Sends the protected reply to the request in work, and keeps it for repetitions.
    pub(crate) fn reply(
        &mut self,
        cx: &mut Context,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
    ) {
        let message_id = self.replies.current();
        match self.seal(self.reply_path, exchange, true, message_id, payloads) {
            Ok(datagrams) => {
                cx.transmit_all(self.reply_path, &datagrams);
                self.replies.answer(datagrams);
            }
            Err(TooLong) => self.end(cx, IkeFailure::Protocol("our reply is too long")),
        }
    }

    //= rfc7296 2.21.3-1
    /// Answers the request in work with an error; some errors end the IKE SA.
    pub(crate) fn reply_fault(&mut self, cx: &mut Context, exchange: ExchangeType, fault: Fault) {
        cx.count_fault(fault);
        self.reply_notify(cx, exchange, fault.notify());
        if fault.ends_sa() {
            let words = match fault {
                Fault::InvalidSyntax(words) => words,
                _ => "the peer broke the protocol",
            };
            self.end(cx, IkeFailure::Protocol(words));
        }
    }

    /// Answers the request in work with nothing but a notify.
    pub(crate) fn reply_notify(
        &mut self,
        cx: &mut Context,
        exchange: ExchangeType,
        notify: Notify<'_>,
    ) {
        self.reply(cx, exchange, &[Payload::Notify(notify)]);
    }

    fn seal(
        &mut self,
        path: Path,
        exchange: ExchangeType,
        response: bool,
        message_id: u32,
        payloads: &[Payload<'_>],
    ) -> Result<Datagrams, TooLong> {
        let header = self.header(exchange, response, message_id);
        let split = self.split(path);
        match &mut self.protection {
            Some(protection) => protection.seal(&header, payloads, split),
            None => Err(TooLong),
        }
    }
}
