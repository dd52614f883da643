//! IKE_SA_INIT requests, and what else comes from strangers: answered without state as long as
//! possible, and never with more than was asked.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Endpoint;
use crate::config::{Connection, Path};
use crate::crypto::prf::Prf;
use crate::error::{Dropped, IkeFailure};
use crate::event::{Event, Puzzle};
use crate::exchange::half_open::{self, Fate};
use crate::proposal::{ChosenIke, choose_ike, offer_text};
use crate::sa::IkeSa;
use crate::sa::payloads::Payloads;
use crate::wire::{
    ExchangeType, Flags, Header, Message, Notify, NotifyType, Payload, PrfId, TransformType,
    emit_message,
};

/// So many networks share the places for half-open IKE SAs, once cookies are asked for: who
/// receives at all addresses of one cannot keep everybody out.
const NETWORKS: usize = 4;

/// Connections whose algorithms are told where none of them is common.
const KINDS_SHOWN: usize = 4;

/// Once cookies are asked for, they are for this long after the load is gone. An initiator that was asked
/// for one sends another request, and may not have the first one served as well, whose copy comes
/// late: it could take either answer, and its AUTH covers but one.
const AFTER_LOAD: Duration = Duration::from_secs(10);

/// Octets of an IKE_SA_INIT request, which a half-open IKE SA keeps for AUTH to cover: above the
/// 3000 that RFC 7296 section 2 asks for.
pub(super) const MAX_REQUEST: usize = 4096;

impl Endpoint {
    //= rfc7296 3.1-2
    /// Takes a request for a new IKE SA.
    pub(super) fn on_init_request(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Result<(), Dropped> {
        let header = &message.header;
        if message.octets.len() > MAX_REQUEST {
            return Err(Dropped::TooLong);
        }
        if !header.flags.initiator || header.message_id != 0 || header.spi_i.0 == 0 {
            return Err(Dropped::Malformed);
        }
        let request = half_open::key(path.remote, message.octets);
        self.repeat_init(path, message, &request)?;
        let payloads = Payloads::sort(&message.payloads).map_err(|_| Dropped::Malformed)?;
        if let Err(fault) = payloads.check_critical() {
            self.refuse_stranger(now, path, header, fault.notify());
            return Err(Dropped::Critical);
        }
        if payloads.sa.is_none() || payloads.ke.is_none() || payloads.nonce.is_none() {
            return Err(Dropped::Incomplete);
        }
        if self.shutdown.is_some() || self.cx.directory.kinds(path).next().is_none() {
            self.report_stranger(now, path, header);
            return Err(Dropped::NoConnection);
        }
        // It costs no more than to ask for a cookie.
        self.redirect_stranger(path, header, &payloads)?;
        self.check_load(now, path, header, &payloads)?;
        let (connection, chosen) = self.choose_init(now, path, header, &payloads)?;
        let sa = IkeSa::respond(
            &mut self.cx,
            now,
            path,
            message,
            &payloads,
            connection,
            &chosen,
        )?;
        self.half_open.add(request, sa.id);
        self.put(Box::new(sa));
        Ok(())
    }

    //= security S-3
    /// Answers a repetition with the stored reply, or not at all once that has arrived. A request
    /// that is not the same octet for octet is a new one, even with the same SPI (RFC 7296 section 2.1).
    pub(super) fn repeat_init(
        &mut self,
        path: Path,
        message: &Message<'_>,
        request: &half_open::Key,
    ) -> Result<(), Dropped> {
        let id = match self.half_open.find(request) {
            Fate::New => return Ok(()),
            Fate::HalfOpen(id) => id,
            Fate::Done => return Err(Dropped::Repeated),
        };
        // With the IKE_AUTH request, the peer has shown that it has the reply.
        let sa = self.sas.get(id);
        if let Some(reply) = sa.and_then(|sa| sa.repeated_init(message.octets)) {
            let reply = reply.clone();
            self.cx.transmit(path, reply);
        }
        Err(Dropped::Repeated)
    }

    /// Whether there are so many half-open IKE SAs that only who receives at its address gets another
    /// one (RFC 7296 section 2.6), or were a moment ago.
    pub fn asks_for_cookies(&self, now: Instant) -> bool {
        self.half_open.len() >= self.cx.settings().cookie_threshold
            || self.cookies_until.is_some_and(|until| now < until)
    }

    //= rfc7296 2.6-2 2.6-5
    //= security S-44
    /// Under load, only who receives at its address gets state; under more load, nobody.
    pub(super) fn check_load(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        payloads: &Payloads<'_>,
    ) -> Result<(), Dropped> {
        let settings = self.cx.settings();
        let limit = settings.half_open_limit;
        let half_open = self.half_open.len();
        if half_open >= settings.cookie_threshold {
            self.cookies_until = Some(now + AFTER_LOAD);
        }
        if !self.asks_for_cookies(now) {
            let room = half_open < limit;
            return room.then_some(()).ok_or(Dropped::HalfOpenLimit);
        }
        let ni = payloads.nonce.unwrap_or_default();
        let (ip, spi_i) = (path.remote.ip(), header.spi_i);
        let cookie = payloads
            .notify(NotifyType::COOKIE)
            .and_then(Notify::as_cookie);
        let given = cookie.and_then(|cookie| self.cookies.check(now, cookie, ni, ip, spi_i));
        let puzzle = self.puzzle(payloads);
        match (cookie.zip(given), puzzle) {
            (Some(_), None) => return self.make_room(now, ip),
            (Some((cookie, Some(given))), Some(_)) => {
                self.check_solution(cookie, given, payloads.ps)?;
                return self.make_room(now, ip);
            }
            // It was asked for a cookie only, when there was less load.
            (Some((_, None)), Some(_)) | (None, _) => {}
        }
        let cookie = self
            .cookies
            .make(now, &mut *self.cx.rng, ni, ip, spi_i, puzzle);
        // Shorter than the request, so no limit is needed; one would shut honest peers out.
        let notifies = [Some(Notify::cookie(&cookie)), puzzle.map(Puzzle::notify)];
        self.answer_stranger(
            path,
            header,
            header.exchange,
            notifies.into_iter().flatten(),
        );
        Err(Dropped::Cookie)
    }

    /// The puzzle to ask for at this load, with a PRF that the initiator has. Who presents a ticket
    /// names none; a cookie is enough then, since it costs no key exchange (RFC 8019 section 4.5).
    fn puzzle(&self, payloads: &Payloads<'_>) -> Option<Puzzle> {
        let puzzles = self.cx.settings().puzzles;
        if self.half_open.len() < puzzles.threshold {
            return None;
        }
        let offered = payloads.sa.iter().flatten().flat_map(|p| &p.transforms);
        let prf = offered
            .filter(|transform| transform.ty == TransformType::PRF)
            .map(|transform| PrfId(transform.id))
            .find(|prf| Prf::new(*prf).is_some())?;
        Some(Puzzle {
            prf,
            difficulty: puzzles.difficulty,
        })
    }

    /// Who has solved the puzzle is served; of the others, who may not know puzzles, a few are,
    /// and fewer under more load (RFC 8019 sections 7.1.4 and 7.1.5).
    fn check_solution(
        &mut self,
        cookie: &[u8],
        given: Puzzle,
        solution: Option<&[u8]>,
    ) -> Result<(), Dropped> {
        let solved = solution.is_some_and(|solution| given.is_solved(cookie, solution));
        if solved && self.cookies.spend(cookie) {
            return Ok(());
        }
        let settings = self.cx.settings();
        let limit = u32::try_from(settings.half_open_limit).unwrap_or(u32::MAX);
        let taken = u32::try_from(self.half_open.len()).unwrap_or(u32::MAX);
        let places = limit.saturating_sub(taken);
        // With all places free one in four, with none free nobody.
        let lucky = self.cx.rng.next_u32() % limit.max(1).saturating_mul(4) < places;
        if lucky { Ok(()) } else { Err(Dropped::Puzzle) }
    }

    /// Somebody who receives at its address wants a place. Where there is none, the oldest from
    /// the same network goes, or else from the one that has most.
    fn make_room(&mut self, now: Instant, ip: IpAddr) -> Result<(), Dropped> {
        let settings = self.cx.settings();
        let (threshold, limit) = (settings.cookie_threshold, settings.half_open_limit);
        if !self.half_open.may_work_for(now, ip) {
            return Err(Dropped::Rationed);
        }
        // What may be forged, because it came before cookies were asked for, takes no share.
        let share = threshold + limit / NETWORKS;
        let goes = if self.half_open.in_network_of(ip) >= share {
            self.half_open.oldest_of(ip)
        } else if self.half_open.len() >= limit {
            self.half_open.oldest_of_largest()
        } else {
            return Ok(());
        };
        let goes = goes.ok_or(Dropped::HalfOpenLimit)?;
        self.with(now, goes, |sa, cx| sa.forget(cx));
        Ok(())
    }

    //= rfc7296 2.7-3
    /// The first connection that agrees on algorithms; which one it is to be in the end is
    /// decided by identities, in IKE_AUTH.
    fn choose_init(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        payloads: &Payloads<'_>,
    ) -> Result<(Arc<Connection>, ChosenIke), Dropped> {
        let offered = payloads.sa.as_deref().unwrap_or_default();
        let method = payloads.ke.map(|ke| ke.method);
        let choices: Vec<_> = self
            .cx
            .directory
            .kinds(path)
            .filter_map(|connection| {
                let chosen = choose_ike(offered, &connection.ike_proposals, method)?;
                Some((Arc::clone(connection), chosen))
            })
            .collect();
        let exact = choices.iter().position(|(_, c)| Some(c.alg.ke) == method);
        let mut choices = choices;
        if let Some(exact) = exact {
            return Ok(choices.swap_remove(exact));
        }
        let notify = match choices.first() {
            Some((_, chosen)) => Notify::invalid_ke(chosen.alg.ke),
            None => Notify::bare(NotifyType::NO_PROPOSAL_CHOSEN),
        };
        let told = self.refuse_stranger(now, path, header, notify);
        if told && choices.is_empty() {
            let mut ours: Vec<String> = Vec::new();
            for connection in self.cx.directory.kinds(path).take(KINDS_SHOWN) {
                ours.extend(connection.ike_proposals.iter().map(ToString::to_string));
            }
            ours.dedup();
            let reason = IkeFailure::NoProposalChosen {
                offered: offer_text(offered),
                ours: ours.join(", "),
            };
            self.cx.event(Event::IkeFailed {
                connection: None,
                path,
                reason,
            });
        }
        Err(if choices.is_empty() {
            Dropped::NoProposal
        } else {
            Dropped::OtherKeMethod
        })
    }

    fn report_stranger(&mut self, now: Instant, path: Path, header: &Header) {
        let notify = Notify::bare(NotifyType::NO_PROPOSAL_CHOSEN);
        if self.shutdown.is_none() && self.refuse_stranger(now, path, header, notify) {
            self.cx.event(Event::IkeFailed {
                connection: None,
                path,
                reason: IkeFailure::NoConnection,
            });
        }
    }

    //= rfc7296 2.5-2 2.21.4-1
    //= security S-11
    /// A message of another major version: says which one we speak (RFC 7296 section 2.5).
    pub(super) fn refuse_version(&mut self, now: Instant, path: Path, header: &Header) {
        // Who speaks version 1 or less would not understand; and an answer is never answered.
        if header.major > 2 && !header.flags.response {
            let notify = Notify::bare(NotifyType::INVALID_MAJOR_VERSION);
            self.refuse_stranger(now, path, header, notify);
        }
    }

    //= rfc7296 2.4-5
    /// Sends an error outside any IKE SA, if there were not many lately. Says whether it did.
    pub(super) fn refuse_stranger(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        notify: Notify<'_>,
    ) -> bool {
        let allowed = self.strangers.take(now);
        if allowed {
            self.answer_stranger(path, header, header.exchange, [notify]);
        }
        allowed
    }

    //= rfc7296 2.21.4-2
    pub(super) fn answer_stranger<'a>(
        &mut self,
        path: Path,
        header: &Header,
        exchange: ExchangeType,
        notifies: impl IntoIterator<Item = Notify<'a>>,
    ) {
        let flags = Flags {
            initiator: false,
            version: false,
            response: true,
        };
        let reply = Header::new(
            header.spi_i,
            header.spi_r,
            exchange,
            flags,
            header.message_id,
        );
        let payloads: Vec<Payload<'_>> = notifies.into_iter().map(Payload::Notify).collect();
        if let Ok(datagram) = emit_message(&reply, &payloads) {
            self.cx.transmit(path, datagram);
        }
    }
}
