//! IKE_SA_INIT as initiator, RFC 7296 section 1.2: the request, in all the forms that replies make
//! it take; and IKE_SESSION_RESUME, RFC 5723 section 4.3.2, which differs in what keys come from.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rand_core::CryptoRng;

use crate::config::{Connection, Path};
use crate::context::Context;
use crate::crypto::ke::KeyExchange;
use crate::error::IkeFailure;
use crate::event::{IkeSpi, Step as Progress};
use crate::exchange::kept::Kept;
use crate::exchange::limit::{CREATIONS, Limit, REQUESTS};
use crate::exchange::nat::{self, Nat};
use crate::exchange::retransmit::{Retransmit, Step};
use crate::exchange::windows::{ReplyWindow, RequestWindow};
use crate::proposal::IkeProposal;
use crate::sa::fragment::Fragmentation;
use crate::sa::mobike::Mobility;
use crate::sa::resume_initiator::PATIENT_TRIES;
use crate::sa::task::{ChildTask, Tasks};
use crate::sa::{IkeSa, Phase, Role};
use crate::wire::{
    ExchangeType, Flags, HashId, Header, Ke, KeMethod, Notify, NotifyType, Payload, PayloadType,
    Proposal, USUAL_PAYLOADS, emit_message,
};

/// Hash algorithms we verify signatures with, RFC 7427 section 4.
const OUR_HASHES: [HashId; 4] = [
    HashId::SHA2_256,
    HashId::SHA2_384,
    HashId::SHA2_512,
    HashId::IDENTITY,
];

/// SIGNATURE_HASH_ALGORITHMS with those that one of these connections lets a peer sign with.
pub(crate) fn our_hashes(connections: &[&Connection]) -> Notify<'static> {
    let mut hashes = OUR_HASHES.to_vec();
    hashes.retain(|hash| {
        connections
            .iter()
            .any(|c| c.remote.signatures.use_hash(*hash))
    });
    Notify::hash_algorithms(&hashes)
}
/// Cookies that are kept to be tried later.
const MAX_SPARE: usize = 16;

/// Our first request is out.
pub(crate) struct InitSent {
    /// The Child SA to ask for in IKE_AUTH, or as soon as it is done.
    pub(crate) first: Option<ChildTask>,
    /// Why it fails if no better answer comes, and until when to wait for one.
    pub(crate) hint: Option<IkeFailure>,
    pub(crate) give_up: Option<Instant>,
    /// Between whom it is.
    pub(crate) path: Path,
    pub(crate) ni: Vec<u8>,
    pub(crate) proposals: Vec<Proposal>,
    /// What keys are to come from instead of a key exchange.
    pub(crate) ticket: Option<Arc<Kept>>,
    /// Cookies of the peer, or of who pretends to be it.
    pub(crate) cookies: Given,
    /// Replies that were looked into since it went out.
    pub(crate) answers: u32,
    /// One for each method used so far; the last is the one in use.
    kes: Vec<KeyExchange>,
    /// The request as it went out last with each of these methods.
    forms: Vec<Form>,
    /// A method was asked for that was left because another one was asked for: one of the two is
    /// forged, so both go out.
    torn: bool,
    /// When it goes out again.
    schedule: Option<Retransmit>,
    /// The gateway that sent us here.
    pub(crate) redirected_from: Option<IpAddr>,
}

/// A form that our request took.
#[derive(Clone)]
pub(crate) struct Form {
    /// Later forms have higher numbers.
    pub(crate) number: u32,
    method: KeMethod,
    pub(crate) octets: Bytes,
    /// When it went out last.
    pub(crate) sent: Instant,
}

/// Cookies that came. A genuine one is found among forged ones, if not at once.
#[derive(Default)]
pub(crate) struct Given {
    /// The one that the request has.
    used: Option<Vec<u8>>,
    /// The solution of the puzzle that came with it.
    solution: Option<Vec<u8>>,
    /// The one whose puzzle is being solved.
    pub(crate) solving: Option<Vec<u8>>,
    /// Puzzles so far.
    pub(crate) puzzles: u32,
    /// The one in use, or in work, came after the method was last changed. Then others have to
    /// wait until the request goes out again.
    followed: bool,
    /// Some of those that came since, and how many did.
    spare: Vec<Spare>,
    came: u32,
    /// How often the request went out.
    round: u32,
}

/// A cookie that may be tried.
struct Spare {
    cookie: Vec<u8>,
    /// After how many of our requests it came. That of the peer comes after each.
    rounds: u32,
    /// After which of them it came last.
    last: u32,
}

impl Given {
    /// Whether this one is known. All the others are new.
    pub(crate) fn knows(&mut self, cookie: &[u8]) -> bool {
        if let Some(spare) = self.spare.iter_mut().find(|spare| spare.cookie == cookie) {
            spare.rounds += u32::from(spare.last != self.round);
            spare.last = self.round;
            return true;
        }
        let mut one = [&self.used, &self.solving].into_iter().flatten();
        one.any(|known| known == cookie)
    }

    /// Takes a new one. Whether it is to be used at once; if not, it may be later.
    pub(crate) fn take(&mut self, cookie: &[u8], rng: &mut dyn CryptoRng) -> bool {
        if !self.followed {
            self.followed = true;
            return true;
        }
        self.came = self.came.saturating_add(1);
        let new = Spare {
            cookie: cookie.to_vec(),
            rounds: 1,
            last: self.round,
        };
        if self.spare.len() < MAX_SPARE {
            self.spare.push(new);
        } else {
            // Each that came once has the same chance to be among these.
            let place = rng.next_u32() % self.came;
            let old = self.spare.get_mut(place as usize);
            if let Some(old) = old.filter(|old| old.rounds == 1) {
                *old = new;
            }
        }
        false
    }

    /// The request is to have this one.
    pub(crate) fn use_one(&mut self, cookie: Vec<u8>, solution: Option<Vec<u8>>) {
        self.used = Some(cookie);
        self.solution = solution;
    }

    /// The request is to have another one, if there is any.
    fn use_another(&mut self, rng: &mut dyn CryptoRng) -> bool {
        let Some(rounds) = self.spare.iter().map(|spare| spare.rounds).max() else {
            return false;
        };
        let all = self.spare.iter().enumerate();
        let best = all.filter(|(_, spare)| spare.rounds == rounds);
        let best: Vec<usize> = best.map(|(place, _)| place).collect();
        let place = best[rng.next_u32() as usize % best.len()];
        let spare = self.spare.swap_remove(place);
        self.use_one(spare.cookie, None);
        true
    }
}

impl InitSent {
    /// What a first request says; `None` if no key exchange method is implemented.
    pub(crate) fn new(
        cx: &mut Context,
        connection: &Connection,
        path: Path,
        first: Option<ChildTask>,
        redirected_from: Option<IpAddr>,
    ) -> Option<Self> {
        let method = connection
            .ike_proposals
            .iter()
            .find_map(|proposal| proposal.ke.first().copied())?;
        let ni = cx.nonce();
        Some(Self {
            proposals: IkeProposal::to_wire(&connection.ike_proposals, &[]),
            kes: vec![KeyExchange::generate(method, &mut *cx.rng).ok()?],
            redirected_from,
            ..Self::with(ni, path, first)
        })
    }

    /// What presents a ticket.
    pub(crate) fn resume(
        cx: &mut Context,
        path: Path,
        first: Option<ChildTask>,
        kept: Kept,
    ) -> Self {
        let ni = cx.nonce();
        Self {
            ticket: Some(Arc::new(kept)),
            ..Self::with(ni, path, first)
        }
    }

    fn with(ni: Vec<u8>, path: Path, first: Option<ChildTask>) -> Self {
        Self {
            first,
            hint: None,
            give_up: None,
            path,
            ni,
            proposals: Vec::new(),
            ticket: None,
            cookies: Given::default(),
            answers: 0,
            kes: Vec::new(),
            forms: Vec::new(),
            torn: false,
            schedule: None,
            redirected_from: None,
        }
    }

    /// The exchange that it begins.
    pub(crate) fn exchange(&self) -> ExchangeType {
        match self.ticket {
            None => ExchangeType::IKE_SA_INIT,
            Some(_) => ExchangeType::IKE_SESSION_RESUME,
        }
    }

    /// Whether a ticket was presented so often without answer that nobody seems to know what it is.
    pub(crate) fn is_ticket_ignored(&self) -> bool {
        let tries = self.schedule.as_ref().map_or(0, Retransmit::tries);
        self.ticket.is_some() && tries >= PATIENT_TRIES
    }

    /// Our half of the key exchange with this method, if we have sent one.
    pub(crate) fn ke(&self, method: KeMethod) -> Option<&KeyExchange> {
        self.kes.iter().find(|ke| ke.method() == method)
    }

    /// The method that the last form of the request has: `NONE` with a ticket.
    pub(crate) fn method(&self) -> Option<KeMethod> {
        let none = self.ticket.as_ref().map(|_| KeMethod::NONE);
        none.or(self.kes.last().map(KeyExchange::method))
    }

    /// The last form of the request with this method.
    pub(crate) fn form(&self, method: KeMethod) -> Option<&Form> {
        self.forms.iter().find(|form| form.method == method)
    }

    /// When the request goes out again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.schedule.as_ref().map(Retransmit::due)
    }

    /// What to say of a peer that did not answer until `now`.
    pub(crate) fn dead(&self, now: Instant) -> Option<Step> {
        self.schedule.as_ref().map(|schedule| schedule.dead(now))
    }

    /// The request goes out again as if nothing had come.
    pub(crate) fn begin_again(&mut self, schedule: Retransmit) {
        self.schedule = Some(schedule);
    }

    /// A public value of another method is wanted.
    pub(crate) fn change_method(&mut self, ke: KeyExchange) {
        self.kes.push(ke);
        self.cookies.followed = false;
    }

    /// One of two methods was asked for by somebody else than the peer.
    pub(crate) fn tear(&mut self) {
        self.torn = true;
    }

    fn keep_form(&mut self, now: Instant, octets: Bytes) -> Option<()> {
        let method = self.method()?;
        let number = self.forms.iter().map(|form| form.number + 1).max();
        self.forms.retain(|form| form.method != method);
        self.forms.push(Form {
            number: number.unwrap_or(0),
            method,
            octets,
            sent: now,
        });
        Some(())
    }
}

impl IkeSa {
    //= rfc7296 3.1-3 3.3.1-4 3.3.6-8 3.4-2 4-4
    /// Begins an IKE SA and its first Child SA. `None` if the connection has no key exchange
    /// method that is implemented, which the configuration does not let pass.
    pub(crate) fn initiate(
        cx: &mut Context,
        now: Instant,
        connection: Arc<Connection>,
        path: Path,
        first: impl Into<Option<ChildTask>>,
    ) -> Option<Self> {
        Self::initiate_from(cx, now, connection, path, first.into(), None)
    }

    /// As [`initiate`](Self::initiate), where a gateway has sent us.
    pub(crate) fn initiate_from(
        cx: &mut Context,
        now: Instant,
        connection: Arc<Connection>,
        path: Path,
        first: Option<ChildTask>,
        redirected_from: Option<IpAddr>,
    ) -> Option<Self> {
        let init = InitSent::new(cx, &connection, path, first, redirected_from)?;
        Some(Self::begin_with(cx, now, connection, init))
    }

    /// Begins an IKE SA with this request.
    pub(crate) fn begin_with(
        cx: &mut Context,
        now: Instant,
        connection: Arc<Connection>,
        init: InitSent,
    ) -> Self {
        let path = init.path;
        let mut sa = Self {
            id: cx.new_ike_id(),
            role: Role::Initiator,
            spi_i: cx.new_ike_spi(),
            spi_r: IkeSpi(0),
            path,
            reply_path: path,
            nat: Nat::default(),
            connection,
            phase: Phase::Init(Box::new(init)),
            protection: None,
            requests: RequestWindow::new(0),
            replies: ReplyWindow::new(0),
            creations: Limit::new(CREATIONS),
            asked: Limit::new(REQUESTS),
            in_work: None,
            fragmentation: Fragmentation::default(),
            tasks: Tasks::default(),
            children: Vec::new(),
            alone: true,
            begun: now,
            last_heard: now,
            keepalive_at: None,
            mobility: Mobility::default(),
            claims: None,
        };
        sa.send_init(cx, now);
        sa
    }

    /// What is left of IKE_SA_INIT while no reply to it has proven itself.
    pub(crate) fn init(&self) -> Option<&InitSent> {
        match &self.phase {
            Phase::Init(init) => Some(init),
            _ => self
                .claims
                .as_ref()
                .and_then(|claims| claims.init.as_deref()),
        }
    }

    /// What is left of IKE_SA_INIT while no reply to it has proven itself.
    pub(crate) fn init_mut(&mut self) -> Option<&mut InitSent> {
        match &mut self.phase {
            Phase::Init(init) => Some(init),
            _ => self
                .claims
                .as_mut()
                .and_then(|claims| claims.init.as_deref_mut()),
        }
    }

    /// Sends the first request as it stands, and begins to repeat it.
    pub(crate) fn send_init(&mut self, cx: &mut Context, now: Instant) {
        if self.make_form(now) {
            self.send_forms(cx, now);
            let schedule = cx.retransmit(now, None);
            if let Some(init) = self.init_mut() {
                init.schedule = Some(schedule);
            }
            self.tell_step(cx, Progress::Begun);
        }
    }

    //= rfc7296 2.1-6
    /// The request goes out again, perhaps with another cookie. Says so if that was often enough.
    pub(crate) fn repeat_init(&mut self, cx: &mut Context, now: Instant) -> Option<Step> {
        let init = self.init_mut()?;
        let settings = &cx.config.settings;
        let step = init.schedule.as_mut()?.step(now, settings, &mut *cx.rng);
        if step == Step::Again {
            if init.cookies.use_another(&mut *cx.rng) {
                self.make_form(now);
            }
            self.send_forms(cx, now);
            self.tell_repeat(cx, now);
        }
        Some(step)
    }

    /// The request is not repeated any more.
    pub(crate) fn stop_init(&mut self) {
        if let Some(init) = self.init_mut() {
            init.schedule = None;
        }
    }

    fn send_forms(&mut self, cx: &mut Context, now: Instant) {
        let Some(init) = self.init_mut() else {
            return;
        };
        init.answers = 0;
        init.cookies.round += 1;
        let last = init.forms.len().saturating_sub(1);
        let forms = if init.torn { 0 } else { last };
        for form in init.forms.iter_mut().skip(forms) {
            form.sent = now;
            cx.transmit(init.path, form.octets.clone());
        }
    }

    //= rfc7296 1.2-5 2.6-4
    /// Makes the request anew, with Message ID 0 each time.
    fn make_form(&mut self, now: Instant) -> bool {
        let octets = self.init().and_then(|init| self.init_request(init));
        let kept = octets.zip(self.init_mut());
        kept.is_some_and(|(octets, init)| init.keep_form(now, octets.into()).is_some())
    }

    fn init_request(&self, init: &InitSent) -> Option<Vec<u8>> {
        let mut payloads = Vec::with_capacity(USUAL_PAYLOADS);
        if let Some(cookie) = &init.cookies.used {
            payloads.push(Payload::Notify(Notify::cookie(cookie)));
        }
        if let Some(body) = &init.cookies.solution {
            payloads.push(Payload::Unknown {
                ty: PayloadType::PS,
                critical: false,
                body,
            });
        }
        if let Some(ke) = init.kes.last() {
            payloads.push(Payload::Sa(init.proposals.clone()));
            payloads.push(Payload::Ke(Ke {
                method: ke.method(),
                data: ke.public(),
            }));
        }
        payloads.push(Payload::Nonce(&init.ni));
        let ticket = init.ticket.as_ref().map(|kept| &kept.ticket[..]);
        let opaque = |ticket| Notify::with_data(NotifyType::TICKET_OPAQUE, ticket);
        payloads.extend(ticket.map(opaque).map(Payload::Notify));
        payloads.extend(self.redirect_notify(init));
        payloads.extend(self.fragmentation_notify());
        if self.connection.nat_traversal {
            payloads.extend(self.nat_hashes(IkeSpi(0), init.path));
        }
        if init.ticket.is_none() {
            payloads.push(Payload::Notify(our_hashes(&[&*self.connection])));
        }
        let flags = Flags {
            initiator: true,
            ..Flags::default()
        };
        let header = Header::new(self.spi_i, IkeSpi(0), init.exchange(), flags, 0);
        // Our own proposals, checked when they were configured, are far from any limit.
        emit_message(&header, &payloads).ok()
    }

    //= rfc7296 2.23-7
    /// What we say of the addresses. To force encapsulation, the source is one that cannot fit,
    /// so that the peer, too, sees a NAT.
    pub(crate) fn nat_notifies(&self, path: Path) -> [Payload<'static>; 2] {
        self.nat_hashes(self.spi_r, path)
    }

    fn nat_hashes(&self, spi_r: IkeSpi, path: Path) -> [Payload<'static>; 2] {
        let mut source = path.local;
        if self.connection.force_encap {
            source.set_port(0);
        }
        let source = nat::hash(self.spi_i, spi_r, source).to_vec();
        let destination = nat::hash(self.spi_i, spi_r, path.remote).to_vec();
        [
            Payload::Notify(Notify::with_data(
                NotifyType::NAT_DETECTION_SOURCE_IP,
                source,
            )),
            Payload::Notify(Notify::with_data(
                NotifyType::NAT_DETECTION_DESTINATION_IP,
                destination,
            )),
        ]
    }
}
