//! A datagram for an IKE SA: checked by reference, and only then acted upon.

use std::time::Instant;

use crate::config::Path;
use crate::context::Context;
use crate::error::{Dropped, Fault, IkeFailure};
use crate::exchange::reassembly::MAX_HELD_UNPROVEN;
use crate::exchange::windows::Incoming;
use crate::sa::established::{Established, Succession};
use crate::sa::payloads::Payloads;
use crate::sa::protect::Opened;
use crate::sa::{IkeSa, Phase, Request};
use crate::wire::{ExchangeType, Fragment, Message, NotifyType, parse_chain};

impl IkeSa {
    //= rfc7296 3.1-11
    /// Takes a message whose SPIs are those of this IKE SA.
    pub(crate) fn on_message(
        &mut self,
        cx: &mut Context,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Result<(), Dropped> {
        if !message.header.flags.response {
            return self.on_request(cx, now, path, message);
        }
        let init = message.header.exchange.begins_ike_sa();
        if matches!(self.phase, Phase::Init(_)) || init {
            return self.on_init_reply(cx, now, path, message);
        }
        if !self.bring_reader(cx, message)? {
            return Ok(());
        }
        self.on_reply(cx, now, path, message)
    }

    fn on_reply(
        &mut self,
        cx: &mut Context,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Result<(), Dropped> {
        let header = &message.header;
        let exchange = self.requests.open().map(|open| open.what.exchange());
        if !self.requests.awaits(header.message_id) || exchange != Some(header.exchange) {
            return Err(Dropped::Unexpected);
        }
        let fragment = self.check_fragment(message)?;
        let opened = self.open(message)?;
        let Some(opened) = self.whole(cx, now, path, message, fragment, opened)? else {
            return Ok(());
        };
        // Authenticated, and never seen before: from here on state may change.
        let first = self.established().is_some_and(|e| !e.heard);
        self.heard_from(cx, now, path);
        if first {
            // Who answers on an IKE SA has the reply that made it.
            self.replies_arrived(cx);
        }
        let found = self.found_path(cx, path);
        let Some(request) = self.requests.close() else {
            return Ok(());
        };
        if found {
            self.move_to(cx, path);
        }
        match sort(&opened) {
            Ok(payloads) => self.dispatch_reply((cx, now, path), request.what, &opened, &payloads),
            Err(fault) => self.broken_reply(cx, now, request.what, fault),
        }
        Ok(())
    }

    //= security S-30
    fn dispatch_reply(
        &mut self,
        (cx, now, path): (&mut Context, Instant, Path),
        request: Request,
        opened: &Opened,
        payloads: &Payloads<'_>,
    ) {
        if self.established().is_some() && payloads.has(NotifyType::INVALID_SYNTAX) {
            self.end(cx, IkeFailure::Refused(NotifyType::INVALID_SYNTAX));
            return;
        }
        match request {
            Request::Auth => self.on_auth_reply(cx, now, opened, payloads),
            // The delete of the IKE SA that follows takes the new Child SA with it.
            Request::Child(_) if self.is_closing() => {}
            Request::Child(request) => self.on_child_reply(cx, now, *request, payloads),
            Request::RekeyIke(request) => self.on_rekey_ike_reply(cx, now, *request, payloads),
            Request::DeleteChild(id) => self.on_child_deleted(cx, now, id, payloads),
            Request::DeleteSpi | Request::Notice => {}
            Request::Ticket => self.learn_ticket(cx, now, payloads),
            Request::Liveness => self.check_mapping(payloads),
            Request::Move(request) => self.on_move_reply(cx, now, path, &request, payloads),
            Request::DeleteIke if self.init().is_some() => {}
            Request::DeleteIke => self.end(cx, IkeFailure::Closed),
        }
    }

    //= rfc7296 2.21.3-2
    fn broken_reply(&mut self, cx: &mut Context, now: Instant, request: Request, fault: Fault) {
        cx.count_fault(fault);
        let reason = match fault {
            Fault::InvalidSyntax(words) => IkeFailure::Protocol(words),
            _ => IkeFailure::Protocol("a reply has a payload that must be understood and is not"),
        };
        match request {
            Request::DeleteIke if self.init().is_some() => {}
            Request::DeleteIke => self.end(cx, IkeFailure::Closed),
            Request::Auth => self.reject(cx, now, reason),
            _ => self.close(cx, now, reason),
        }
    }

    //= rfc7296 1-1 1.4-1 2.1-1 2.1-2 2.3-3 2.3-8 2.11-1
    //= rfc7383 2.6-3
    fn on_request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Result<(), Dropped> {
        let header = &message.header;
        if self.replies.check(header.message_id) == Incoming::Outside {
            return Err(Dropped::MessageId);
        }
        let expected = match self.phase {
            Phase::HalfOpen(_) => header.exchange == ExchangeType::IKE_AUTH,
            Phase::AuthResponder(_) | Phase::Established(_) | Phase::Lingering { .. } => true,
            _ => false,
        };
        if !expected {
            return Err(Dropped::OutOfPlace);
        }
        let half_open = matches!(self.phase, Phase::HalfOpen(_));
        if half_open && message.octets.len() > MAX_HELD_UNPROVEN {
            return Err(Dropped::TooLong);
        }
        let fragment = self.check_fragment(message)?;
        let opened = self.open(message)?;
        match self.replies.check(header.message_id) {
            Incoming::New => {}
            Incoming::Repeated(_) => return self.repeat_reply(cx, now, path, message, fragment),
            Incoming::InWork => return Err(Dropped::Repeated),
            Incoming::Outside => return Err(Dropped::MessageId),
        }
        if matches!(self.phase, Phase::Lingering { .. }) {
            return Err(Dropped::OutOfPlace);
        }
        let Some(opened) = self.whole(cx, now, path, message, fragment, opened)? else {
            return Ok(());
        };
        let payloads = sort(&opened);
        let informational = header.exchange == ExchangeType::INFORMATIONAL;
        if informational && payloads.as_ref().is_ok_and(|p| self.comes_too_early(p)) {
            return Err(Dropped::OutOfPlace);
        }
        // It is not answered, so it comes again, but no faster than that.
        if self.established().is_some() && !self.asked.take(now) {
            return Err(Dropped::Rationed);
        }
        self.heard_from(cx, now, path);
        self.reply_path = path;
        self.replies_arrived(cx);
        self.replies.begin();
        let exchange = header.exchange;
        if half_open {
            self.on_auth_request(cx, now, &opened, payloads);
        } else {
            self.on_established_request(cx, now, exchange, payloads);
        }
        Ok(())
    }

    //= rfc7383 2.6.1-2
    /// A request that was answered came again.
    fn repeat_reply(
        &mut self,
        cx: &mut Context,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        fragment: Option<Fragment>,
    ) -> Result<(), Dropped> {
        // The whole reply once, and not once for each fragment: RFC 7383 section 2.6.1.
        if fragment.is_some_and(|fragment| fragment.number != 1) {
            return Err(Dropped::FragmentRepeated);
        }
        if fragment.is_some() {
            self.shrink_reply(path, message);
        }
        if let Incoming::Repeated(reply) = self.replies.check(message.header.message_id) {
            cx.transmit_all(path, reply);
        }
        self.reply_was_lost(now);
        Err(Dropped::Repeated)
    }

    /// The whole message, if this was one or the last fragment of one that was missing.
    fn whole(
        &mut self,
        cx: &Context,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        fragment: Option<Fragment>,
        opened: Opened,
    ) -> Result<Option<Opened>, Dropped> {
        let Some(fragment) = fragment else {
            self.fragmentation.forget(message.header.flags.response);
            return Ok(Some(opened));
        };
        self.collect(cx, now, path, message, fragment, opened)
    }

    /// Whether it is about Child SAs that this new IKE SA has not inherited yet, or ends it before
    /// it has: the peer knows already which IKE SA survives a rekey from both ends, and we do not.
    /// It asks again.
    fn comes_too_early(&self, payloads: &Payloads<'_>) -> bool {
        let undecided = |e: &Established| e.is_contest() && e.succession == Succession::Undecided;
        self.established().is_some_and(undecided) && !payloads.deletes.is_empty()
    }

    //= rfc7296 1.4-1
    fn on_established_request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        exchange: ExchangeType,
        payloads: Result<Payloads<'_>, Fault>,
    ) {
        let result = payloads.and_then(|payloads| match exchange {
            ExchangeType::CREATE_CHILD_SA => self.on_create_child_sa(cx, now, &payloads),
            ExchangeType::INFORMATIONAL => {
                self.on_informational(cx, now, &payloads);
                Ok(())
            }
            _ => Err(Fault::InvalidSyntax(
                "an exchange that does not belong here",
            )),
        });
        if let Some(established) = self.established_mut() {
            established.put_off = matches!(result, Err(Fault::TemporaryFailure));
            established.crossing |= established.put_off;
        }
        if let Err(fault) = result {
            self.reply_fault(cx, exchange, fault);
        }
    }

    fn open(&self, message: &Message<'_>) -> Result<Opened, Dropped> {
        let protection = self.protection.as_ref().ok_or(Dropped::Unexpected)?;
        protection.open(message)
    }

    //= security S-23
    /// The peer lives. A new message (never a repeated one) also says where it is.
    fn heard_from(&mut self, cx: &mut Context, now: Instant, path: Path) {
        self.last_heard = now;
        if let Some(established) = self.established_mut() {
            established.heard = true;
            established.doubt.dispel(now);
            self.follow(cx, path);
        }
    }
}

impl Request {
    fn exchange(&self) -> ExchangeType {
        match self {
            Self::Auth => ExchangeType::IKE_AUTH,
            Self::Child(_) | Self::RekeyIke(_) => ExchangeType::CREATE_CHILD_SA,
            Self::DeleteChild(_)
            | Self::DeleteSpi
            | Self::DeleteIke
            | Self::Liveness
            | Self::Notice
            | Self::Ticket
            | Self::Move(_) => ExchangeType::INFORMATIONAL,
        }
    }
}

/// Reads what was protected. Whatever is wrong with it is the authenticated peer's fault.
pub(crate) fn sort(opened: &Opened) -> Result<Payloads<'_>, Fault> {
    let chain = parse_chain(opened.first, &opened.octets)
        .map_err(|_| Fault::InvalidSyntax("a protected payload chain is malformed"))?;
    let payloads = Payloads::sort(&chain)
        .map_err(|_| Fault::InvalidSyntax("a protected payload is malformed"))?;
    payloads.check_critical()?;
    Ok(payloads)
}
