//! Replies to our first request, RFC 7296 sections 1.2, 2.6 and 2.21.1, and RFC 5723 section 4.3.2.
//! Nothing in them is authenticated: each is taken for what it may be, and none keeps the peer's own from counting.

use std::time::{Duration, Instant};

use crate::config::Path;
use crate::context::{Context, Waiting};
use crate::crypto::ke::KeyExchange;
use crate::error::{Dropped, IkeFailure, NotResumed};
use crate::event::{Ask, IkeSpi, Puzzle};
use crate::exchange::nat::{self, Nat};
use crate::keys::{IkeKeys, UnsupportedAlgorithm};
use crate::proposal::check_ike_answer;
use crate::sa::init::{Form, InitSent};
use crate::sa::methods::AuthMethods;
use crate::sa::payloads::Payloads;
use crate::sa::protect::Protection;
use crate::sa::{IkeSa, Phase, Role};
use crate::status::IkeAlgorithms;
use crate::wire::{HashId, KeMethod, Message, Notify, NotifyType};

/// After an error that anybody could have sent, the real reply is waited for this long.
const HINT_PATIENCE: Duration = Duration::from_secs(4);
/// An IKE SA that fails sooner after its first request does so only then: the true reply may be
/// under way.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Puzzles solved in one negotiation; more are a sign of forgery.
const MAX_PUZZLES: u32 = 5;

/// What an acceptable reply says.
pub(crate) struct Accepted {
    /// The form of our request that it answers.
    pub(crate) form: Form,
    pub(crate) spi_r: IkeSpi,
    pub(crate) nr: Vec<u8>,
    pub(crate) nat: Nat,
    /// The responder does NAT traversal.
    pub(crate) natt: bool,
    pub(crate) hashes: Option<Vec<HashId>>,
    /// The responder does without a Child SA in IKE_AUTH.
    pub(crate) childless: bool,
    /// The responder can take fragments, and we said that we can.
    pub(crate) fragmentation: bool,
    pub(crate) methods: Option<AuthMethods>,
    pub(crate) protection: Protection,
}

impl IkeSa {
    /// Takes a reply to our first request.
    pub(crate) fn on_init_reply(
        &mut self,
        cx: &mut Context,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Result<(), Dropped> {
        let header = &message.header;
        let init = self.init().ok_or(Dropped::Unexpected)?;
        let expected = header.exchange == init.exchange()
            && header.message_id == 0
            && !header.flags.initiator
            && path.remote.ip() == init.path.remote.ip();
        if !expected || self.has_taken(message.octets) {
            return Err(Dropped::Unexpected);
        }
        let payloads = Payloads::sort(&message.payloads).map_err(|_| Dropped::Malformed)?;
        payloads.check_critical().map_err(|_| Dropped::Critical)?;
        let whole = match init.ticket {
            None => payloads.sa.is_some(),
            Some(_) => payloads.nonce.is_some(),
        };
        if whole {
            return self.take_answer(cx, now, path, message, &payloads);
        }
        if payloads.has(NotifyType::TICKET_NACK) && self.presents_ticket() {
            self.fall_back(cx, now, NotResumed::Refused);
            return Ok(());
        }
        if let Some(notify) = payloads.notify(NotifyType::REDIRECT) {
            return self.on_init_redirect(cx, now, notify);
        }
        if let Some(cookie) = payloads
            .notify(NotifyType::COOKIE)
            .and_then(Notify::as_cookie)
        {
            let puzzle = payloads.notify(NotifyType::PUZZLE).and_then(Puzzle::of);
            return match puzzle.filter(|puzzle| puzzle.bits() <= cx.settings().puzzles.most) {
                Some(puzzle) => self.follow_puzzle(cx, now, puzzle, cookie),
                None => self.follow_cookie(cx, now, cookie),
            };
        }
        if let Some(method) = payloads.wanted_ke() {
            return self.follow_invalid_ke(cx, now, method);
        }
        let error = payloads.error().ok_or(Dropped::Malformed)?;
        self.take_hint(cx, now, IkeFailure::Refused(error))
    }

    /// Takes a reply that may be the one. Those that come after the first cost work that somebody
    /// else decides about.
    fn take_answer(
        &mut self,
        cx: &mut Context,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        payloads: &Payloads<'_>,
    ) -> Result<(), Dropped> {
        let init = self.init().ok_or(Dropped::Unexpected)?;
        let alg = choose(init, message.header.spi_r, payloads)?;
        let further = init.answers > 0;
        let method = init.ticket.as_ref().map_or(alg.ke, |_| KeMethod::NONE);
        if further && !(self.has_place(method) && cx.answers.take(now)) {
            return Err(Dropped::Rationed);
        }
        let init = self.init_mut().ok_or(Dropped::Unexpected)?;
        init.answers = init.answers.saturating_add(1);
        let init = self.init().ok_or(Dropped::Unexpected)?;
        let accepted = self.agree(init, &alg, path, message.header.spi_r, payloads)?;
        match self.candidate(init, now, path, message.octets, accepted) {
            Ok(candidate) => self.admit(cx, now, candidate),
            Err(failure) => self.take_hint(cx, now, failure),
        }
    }

    //= rfc7296 2.6.1-1 2.6-4
    //= security S-14
    fn follow_cookie(
        &mut self,
        cx: &mut Context,
        now: Instant,
        cookie: &[u8],
    ) -> Result<(), Dropped> {
        let init = self.init_mut().ok_or(Dropped::Unexpected)?;
        if init.cookies.knows(cookie) {
            return Err(Dropped::Unexpected);
        }
        let at_once = init.cookies.take(cookie, &mut *cx.rng);
        if at_once {
            init.cookies.use_one(cookie.to_vec(), None);
            self.send_init(cx, now);
        }
        self.dispute(cx, now);
        at_once.then_some(()).ok_or(Dropped::Hint)
    }

    /// Has a puzzle solved, RFC 8019 section 7.1.2. Meanwhile the request is repeated as it is.
    fn follow_puzzle(
        &mut self,
        cx: &mut Context,
        now: Instant,
        puzzle: Puzzle,
        cookie: &[u8],
    ) -> Result<(), Dropped> {
        let id = self.id;
        let init = self.init_mut().ok_or(Dropped::Unexpected)?;
        let given = &mut init.cookies;
        if given.knows(cookie) || given.solving.is_some() || given.puzzles == MAX_PUZZLES {
            return Err(Dropped::Unexpected);
        }
        given.puzzles += 1;
        given.solving = Some(cookie.to_vec());
        let cookie = cookie.to_vec();
        cx.ask(Waiting::Puzzle(id), Ask::Puzzle { puzzle, cookie });
        self.dispute(cx, now);
        Ok(())
    }

    /// The puzzle is solved, or is too hard: then the cookie alone may do.
    pub(crate) fn on_puzzle(&mut self, cx: &mut Context, now: Instant, solution: Option<Vec<u8>>) {
        if let Some(init) = self.init_mut()
            && let Some(cookie) = init.cookies.solving.take()
        {
            init.cookies.use_one(cookie, solution);
            self.send_init(cx, now);
        }
    }

    //= rfc7296 1.2-4 1.2-5 2.6.1-1
    //= security S-14 S-16
    fn follow_invalid_ke(
        &mut self,
        cx: &mut Context,
        now: Instant,
        method: KeMethod,
    ) -> Result<(), Dropped> {
        let offered = self
            .connection
            .ike_proposals
            .iter()
            .any(|proposal| proposal.ke.contains(&method));
        let init = self.init_mut().ok_or(Dropped::Unexpected)?;
        if !offered || init.ticket.is_some() || init.method() == Some(method) {
            return Err(Dropped::Unexpected);
        }
        if init.ke(method).is_some() {
            init.tear();
            self.dispute(cx, now);
            return Err(Dropped::Hint);
        }
        let ke = KeyExchange::generate(method, &mut *cx.rng).map_err(|_| Dropped::Unexpected)?;
        init.change_method(ke);
        self.send_init(cx, now);
        self.dispute(cx, now);
        Ok(())
    }

    //= security S-10 S-30
    /// Takes a failure that anybody can have brought about.
    pub(crate) fn take_hint(
        &mut self,
        cx: &mut Context,
        now: Instant,
        failure: IkeFailure,
    ) -> Result<(), Dropped> {
        let begun = self.begun;
        match &mut self.phase {
            Phase::Init(init) if init.hint.is_none() => {
                // A refusal may be sent again and again. What is wrong with a whole reply stays so.
                let refused = matches!(failure, IkeFailure::Refused(_));
                init.hint = Some(failure);
                init.give_up = Some(if refused {
                    now + HINT_PATIENCE
                } else {
                    begun + PATIENCE
                });
                return Ok(());
            }
            Phase::Init(init) if init.hint.as_ref() == Some(&failure) => {}
            _ => self.dispute(cx, now),
        }
        Err(Dropped::Hint)
    }

    //= rfc7296 2.23-10
    //= rfc5723 4.3.2-4
    fn agree(
        &self,
        init: &InitSent,
        alg: &IkeAlgorithms,
        path: Path,
        spi_r: IkeSpi,
        payloads: &Payloads<'_>,
    ) -> Result<Accepted, Dropped> {
        let nr = payloads.nonce.ok_or(Dropped::Incomplete)?;
        let (method, keys) = match &init.ticket {
            None => self.exchanged_keys(init, alg, spi_r, nr, payloads)?,
            Some(kept) => {
                let sk_d = &kept.session.sk_d;
                let keys = IkeKeys::resume(alg, sk_d, &init.ni, nr, self.spi_i, spi_r);
                (KeMethod::NONE, keys)
            }
        };
        let form = init.form(method).ok_or(Dropped::NotOffered)?;
        let protection = keys
            .and_then(|keys| Protection::new(keys, Role::Initiator))
            .map_err(|_| Dropped::Unexpected)?;
        let (sources, destination) = payloads.nat_hashes(&self.connection);
        Ok(Accepted {
            form: form.clone(),
            spi_r,
            nr: nr.to_vec(),
            protection,
            hashes: payloads.hashes(),
            childless: payloads.has(NotifyType::CHILDLESS_IKEV2_SUPPORTED),
            fragmentation: self.fragmentation_notify().is_some()
                && payloads.has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED),
            methods: AuthMethods::announced(payloads),
            nat: nat::detect(self.spi_i, spi_r, path, &sources, destination),
            natt: !sources.is_empty(),
        })
    }

    /// The keys of a key exchange, and its method.
    fn exchanged_keys(
        &self,
        init: &InitSent,
        alg: &IkeAlgorithms,
        spi_r: IkeSpi,
        nr: &[u8],
        payloads: &Payloads<'_>,
    ) -> Result<(KeMethod, Result<IkeKeys, UnsupportedAlgorithm>), Dropped> {
        let ke = payloads.ke.ok_or(Dropped::Incomplete)?;
        let ours = init.ke(ke.method).ok_or(Dropped::NotOffered)?;
        let shared = ours.agree(ke.data).map_err(|_| Dropped::KeyExchange)?;
        let keys = IkeKeys::derive(alg, &init.ni, nr, &shared, self.spi_i, spi_r);
        Ok((ke.method, keys))
    }
}

/// What a reply chooses of what we offer, and with a public value for a method that we sent one for;
/// or, if it takes our ticket, what the old IKE SA had.
fn choose(
    init: &InitSent,
    spi_r: IkeSpi,
    payloads: &Payloads<'_>,
) -> Result<IkeAlgorithms, Dropped> {
    if let Some(kept) = &init.ticket {
        let alg = kept.session.alg;
        return (spi_r.0 != 0).then_some(alg).ok_or(Dropped::NotOffered);
    }
    let (Some(answer), Some(ke), Some(_)) = (&payloads.sa, payloads.ke, payloads.nonce) else {
        return Err(Dropped::Incomplete);
    };
    let chosen = check_ike_answer(&init.proposals, answer).map_err(|_| Dropped::NotOffered)?;
    let fits = spi_r.0 != 0 && ke.method == chosen.alg.ke && init.ke(ke.method).is_some();
    fits.then_some(chosen.alg).ok_or(Dropped::NotOffered)
}
