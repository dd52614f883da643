//! Replies to IKE_SA_INIT, or IKE_SESSION_RESUME, that each claim to be the peer's, RFC 7296 section 2.4. Whoever sees our
//! request can answer it, and nothing shows who did before IKE_AUTH. So each reply that may be the
//! peer's gets an IKE_AUTH request; the first that proves itself is the IKE SA, and the others are
//! forgotten.
//!
//! Keys come from a part of a reply only, so whoever sees one can send copies of it that lead to the
//! same keys and say something else. One claim stands for all of these, with one request: its keys
//! seal each message once. Which copy is genuine shows in the peer's AUTH, which covers it.
//!
//! One claim, in front, is the IKE SA itself. The others stand behind it, as IKE SAs of which the
//! endpoint does not know; when one of them has something to do, it comes to the front.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config::Path;
use crate::context::{Context, Signal};
use crate::error::{Dropped, IkeFailure};
use crate::exchange::nat::{IKE_PORT, NAT_PORT};
use crate::exchange::retransmit::Step;
use crate::exchange::windows::{ReplyWindow, RequestWindow};
use crate::sa::auth::Transcript;
use crate::sa::auth_initiator::{AuthInitiator, Variant};
use crate::sa::end::LINGER;
use crate::sa::fragment::Fragmentation;
use crate::sa::init::InitSent;
use crate::sa::init_reply::{Accepted, PATIENCE};
use crate::sa::mobike::Mobility;
use crate::sa::task::{Task, Tasks};
use crate::sa::{IkeSa, Phase};
use crate::timer::{Deadline, TimerKind, earlier};
use crate::wire::{Delete, ExchangeType, KeMethod, Message, Payload};

/// Replies looked into for each time that our request goes out: at 10,000 a second, those of a
/// round trip of 25 ms. Each costs a key exchange.
const MAX_ANSWERS: u32 = 256;
/// The same for methods that cost a hundred times as much.
const MAX_SLOW_ANSWERS: u32 = 16;
/// Claims that are kept until they answer: for so many times.
const KEPT: usize = 4;
/// Further replies with the same keys that one claim can stand for. Each costs a check of the peer's
/// AUTH, once.
const MAX_VARIANTS: usize = 16;
/// A reply to a later form of our request, while one to an earlier form is looked into, waits so
/// much longer than the reply took to come, and this is the longest.
const HOLD: Duration = Duration::from_millis(10);
const LONGEST_HOLD: Duration = Duration::from_millis(500);

/// What an IKE SA in IKE_AUTH has beside the claim in front.
pub(crate) struct Claims {
    /// What it takes to look into further replies; `None` once one has proven itself.
    pub(crate) init: Option<Box<InitSent>>,
    others: Vec<IkeSa>,
    /// There were replies that contradict each other, so our request is repeated as if there were
    /// none.
    disputed: bool,
    /// The last claim's ordinal.
    last: u32,
    /// When the failure of the claim in front is that of the IKE SA; or, after one has proven
    /// itself, when the others are forgotten.
    until: Option<Instant>,
}

/// Where a claim stands among others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Its name, which no other of the same IKE SA has.
    pub(crate) ordinal: u32,
    /// The number of the form of our request that was answered, and how long that took.
    number: u32,
    took: Duration,
    /// It may say INITIAL_CONTACT, which some take for a reason to forget another one of ours.
    pub(crate) first_contact: bool,
}

impl IkeSa {
    /// Whether the very same reply was taken before.
    pub(crate) fn has_taken(&self, reply: &[u8]) -> bool {
        let same = |auth: &AuthInitiator| auth.goes_by(reply);
        self.auth_initiator().is_some_and(same)
            || self.others().filter_map(Self::auth_initiator).any(same)
    }

    /// Whether a further reply can be looked into.
    pub(crate) fn has_place(&self, method: KeMethod) -> bool {
        self.init().is_some_and(|init| init.answers < most(method))
    }

    //= rfc7296 2.23-10
    /// An IKE SA in IKE_AUTH that goes by this reply.
    ///
    /// # Errors
    /// Why there can be none.
    pub(crate) fn candidate(
        &self,
        init: &InitSent,
        now: Instant,
        path: Path,
        message2: &[u8],
        accepted: Accepted,
    ) -> Result<Self, IkeFailure> {
        let first = self
            .first_children(init.first.clone(), accepted.childless)
            .ok_or(IkeFailure::NoChildless)?;
        let standing = Standing {
            ordinal: 0,
            number: accepted.form.number,
            took: now.saturating_duration_since(accepted.form.sent),
            first_contact: true,
        };
        let transcript = Transcript {
            ni: init.ni.clone(),
            nr: accepted.nr,
            message1: accepted.form.octets,
            message2: Bytes::copy_from_slice(message2),
            peer_hashes: accepted.hashes,
            peer_methods: accepted.methods,
        };
        let resumes = init.ticket.clone();
        let auth = AuthInitiator::new(self, standing, first, transcript, resumes)?;
        let mut sa = Self {
            id: self.id,
            role: self.role,
            spi_i: self.spi_i,
            spi_r: accepted.spi_r,
            path,
            reply_path: path,
            nat: accepted.nat,
            connection: self.connection.clone(),
            phase: Phase::AuthInitiator(Box::new(auth)),
            protection: Some(accepted.protection),
            // Message ID 0 was IKE_SA_INIT.
            requests: RequestWindow::new(1),
            replies: ReplyWindow::new(0),
            creations: self.creations.clone(),
            asked: self.asked.clone(),
            in_work: None,
            fragmentation: Fragmentation::new(accepted.fragmentation),
            tasks: Tasks::default(),
            children: Vec::new(),
            alone: self.alone,
            begun: self.begun,
            last_heard: now,
            keepalive_at: None,
            mobility: Mobility::default(),
            claims: None,
        };
        sa.mobility.decides = true;
        sa.mobility.natt = accepted.natt;
        sa.leave_ike_port();
        Ok(sa)
    }

    //= rfc7296 2.23-2
    //= rfc4555 3.3-1
    /// Whoever sees a NAT sends all further traffic from port 4500 (RFC 7296 section 2.23). So does
    /// who may move to where there is one (RFC 4555 section 3.3).
    fn leave_ike_port(&mut self) {
        let mobile = self.connection.mobike.enabled && self.mobility.natt;
        if (self.wants_encap() || mobile) && self.path.remote.port() == IKE_PORT {
            self.path.remote.set_port(NAT_PORT);
            if self.path.local.port() == IKE_PORT {
                self.path.local.set_port(NAT_PORT);
            }
        }
    }

    //= security S-10
    /// Takes a claim among the others, or as the first.
    ///
    /// # Errors
    /// If there is one with these keys, and no more can come of it.
    pub(crate) fn admit(
        &mut self,
        cx: &mut Context,
        now: Instant,
        mut claim: Self,
    ) -> Result<(), Dropped> {
        let Phase::Init(_) = &self.phase else {
            self.dispute(cx, now);
            return match self.with_keys_of(&claim) {
                Some(known) => known.take_variant(claim),
                None => {
                    self.admit_another(cx, now, claim);
                    Ok(())
                }
            };
        };
        std::mem::swap(self, &mut claim);
        self.tasks = std::mem::take(&mut claim.tasks);
        let Phase::Init(mut init) = claim.phase else {
            return Ok(());
        };
        let disputed = init.hint.take().is_some();
        self.claims = Some(Box::new(Claims {
            init: Some(init),
            others: Vec::new(),
            disputed,
            last: 0,
            until: None,
        }));
        self.prove(cx, now);
        Ok(())
    }

    /// The claim that has the keys of this one.
    fn with_keys_of(&mut self, claim: &Self) -> Option<&mut Self> {
        let new = &claim.protection.as_ref()?.keys;
        let same = |sa: &Self| sa.protection.as_ref().is_some_and(|own| own.keys.are(new));
        if same(self) {
            return Some(self);
        }
        let claims = self.claims.as_mut()?;
        claims.others.iter_mut().find(|other| same(other))
    }

    //= security S-40
    /// Takes another reply with the keys of this claim: what was sent on it, or will be, stays what
    /// it is.
    fn take_variant(&mut self, claim: Self) -> Result<(), Dropped> {
        let (Phase::AuthInitiator(auth), Phase::AuthInitiator(other)) =
            (&mut self.phase, claim.phase)
        else {
            return Err(Dropped::Unexpected);
        };
        if auth.is_over() {
            return Err(Dropped::Unexpected);
        }
        if auth.variants.len() >= MAX_VARIANTS {
            return Err(Dropped::Rationed);
        }
        auth.variants.push(Variant {
            message2: other.into_message2(),
            nat: claim.nat,
            natt: claim.mobility.natt,
            fragmentation: claim.fragmentation.is_agreed(),
        });
        Ok(())
    }

    /// The reply that the peer's AUTH covers is this one.
    pub(crate) fn go_by(&mut self, variant: &Variant) {
        let before = self.path;
        self.nat = variant.nat;
        self.mobility.natt = variant.natt;
        self.fragmentation.agree(variant.fragmentation);
        self.leave_ike_port();
        if self.path != before {
            // The peer shall see where we are.
            self.tasks.push(Task::Liveness);
        }
    }

    fn admit_another(&mut self, cx: &mut Context, now: Instant, mut claim: Self) {
        let earlier = self.answers_earlier_form(&claim);
        let is_over = self.auth_initiator().is_some_and(AuthInitiator::is_over);
        let (Some(claims), Phase::AuthInitiator(auth)) = (&mut self.claims, &mut claim.phase)
        else {
            return;
        };
        claims.last += 1;
        auth.standing.ordinal = claims.last;
        if let Some(protection) = &mut claim.protection {
            // There may have been a claim with these keys that is forgotten.
            protection.count_for(claims.last);
        }
        if earlier {
            auth.standing.first_contact = false;
            auth.hold(now + (auth.standing.took + HOLD).min(LONGEST_HOLD));
        } else {
            claim.prove(cx, now);
        }
        if is_over {
            claims.until = None;
            self.change_places(&mut claim);
        } else {
            claims.make_room(&claim);
            claims.others.push(claim);
        }
    }

    /// Whether there is a claim on an earlier form of our request than this one answers. If both
    /// are genuine, which takes forged requests for another form, the peer would make two IKE SAs.
    fn answers_earlier_form(&self, claim: &Self) -> bool {
        let number = claim.auth_initiator().map(|auth| auth.standing.number);
        let front = self.auth_initiator();
        let all = front
            .into_iter()
            .chain(self.others().filter_map(Self::auth_initiator));
        all.filter(|auth| !auth.is_over())
            .any(|auth| Some(auth.standing.number) < number)
    }

    /// There is a reply that contradicts another one. The genuine one may yet come, if it is asked
    /// for again.
    pub(crate) fn dispute(&mut self, cx: &mut Context, now: Instant) {
        if let Phase::Init(init) = &mut self.phase {
            if init.hint.is_some() {
                init.give_up = None;
            }
            return;
        }
        let Some(claims) = self.claims.as_mut().filter(|claims| !claims.disputed) else {
            return;
        };
        claims.disputed = true;
        if let Some(init) = &mut claims.init {
            init.begin_again(cx.retransmit(now, None));
        }
    }

    /// Brings the claim to the front that can read this message of the peer. Says whether there is
    /// anything left to do with it.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn bring_reader(
        &mut self,
        cx: &mut Context,
        message: &Message<'_>,
    ) -> Result<bool, Dropped> {
        let spi_r = message.header.spi_r;
        let meant = |sa: &&Self| sa.spi_r == spi_r;
        let reads = |sa: &&Self| sa.spi_r == spi_r && sa.reads(message);
        if self.others().find(meant).is_none() || reads(&&*self) {
            return Ok(true);
        }
        let reader = self.others().find(reads).and_then(Self::auth_initiator);
        let Some(ordinal) = reader.map(|auth| auth.standing.ordinal) else {
            return if self.spi_r == spi_r {
                Ok(true)
            } else {
                Err(Dropped::Integrity)
            };
        };
        if self.established().is_some() {
            self.delete_other(cx, ordinal);
            return Ok(false);
        }
        Ok(self.bring_forward(ordinal))
    }

    /// Brings a claim to the front; `false` if it is gone.
    pub(crate) fn bring_forward(&mut self, ordinal: u32) -> bool {
        let named = |sa: &Self| {
            let auth = sa.auth_initiator();
            auth.is_some_and(|auth| auth.standing.ordinal == ordinal)
        };
        if named(self) {
            return true;
        }
        let Some(mut claims) = self.claims.take() else {
            return false;
        };
        let found = claims.others.iter_mut().find(|other| named(other));
        let is_there = found.is_some();
        if let Some(other) = found {
            self.change_places(other);
        }
        self.claims = Some(claims);
        is_there
    }

    /// The other one is the IKE SA from here on, with all that it is told.
    fn change_places(&mut self, other: &mut Self) {
        let claims = self.claims.take();
        std::mem::swap(self, other);
        self.claims = claims;
        self.tasks = std::mem::take(&mut other.tasks);
        self.alone = other.alone;
        if let (Phase::AuthInitiator(new), Phase::AuthInitiator(old)) =
            (&mut self.phase, &other.phase)
        {
            new.closing.clone_from(&old.closing);
            new.first.share_fate(&old.first);
        }
    }

    //= security S-10 S-30
    /// The claim in front has come to nothing, by a word that is proof of nothing. The IKE SA has
    /// failed only if there is no other, and had its time to come.
    pub(crate) fn refuted(&mut self, cx: &mut Context, now: Instant, failure: IkeFailure) {
        let begun = self.begun;
        let Some(claims) = &mut self.claims else {
            self.end(cx, failure);
            return;
        };
        if let Some(init) = &mut claims.init {
            init.hint.get_or_insert(failure);
        }
        if !claims.others.is_empty() {
            let mut next = claims.others.remove(0);
            self.change_places(&mut next);
            return;
        }
        // As long as our request is repeated, there is hope.
        let hope = claims.disputed
            && claims
                .init
                .as_ref()
                .is_some_and(|init| init.due().is_some());
        let until = begun + PATIENCE;
        claims.until = (!hope).then_some(until);
        if let Phase::AuthInitiator(auth) = &mut self.phase {
            auth.give_up();
        }
        if !hope && until <= now {
            self.fail(cx, now);
        }
    }

    /// No reply has led anywhere.
    fn fail(&mut self, cx: &mut Context, now: Instant) {
        let hint = self.init().and_then(|init| init.hint.clone());
        let failure = hint.unwrap_or(IkeFailure::Expired);
        if self.init().is_some_and(|init| init.ticket.is_some()) {
            self.fall_back(cx, now, failure.into());
            return;
        }
        self.claims = None;
        if self.requests.open().is_none() {
            self.end(cx, failure);
            return;
        }
        // The responder is being told.
        self.report(cx, failure);
        cx.signals.push(Signal::SaEnded {
            connection: self.connection.name.clone(),
            peer: self.peer(),
        });
        self.phase = Phase::Lingering {
            until: now + LINGER,
        };
    }

    /// The claim in front is proven. Of the others, those that answer another form of our request
    /// may be the peer's, too, and have to be deleted there if they are.
    pub(crate) fn settle_claims(&mut self, now: Instant) {
        let number = self.auth_initiator().map(|auth| auth.standing.number);
        let Some(claims) = &mut self.claims else {
            return;
        };
        claims.init = None;
        claims.until = Some(now + LINGER);
        claims.others.retain(|other| {
            let auth = other.auth_initiator();
            auth.is_some_and(|auth| auth.is_sent() && Some(auth.standing.number) != number)
        });
        if claims.others.is_empty() {
            self.claims = None;
        }
    }

    /// The peer has made another IKE SA of a reply that came too late.
    fn delete_other(&mut self, cx: &mut Context, ordinal: u32) {
        let Some(claims) = &mut self.claims else {
            return;
        };
        let named = |sa: &Self| {
            let auth = sa.auth_initiator();
            auth.is_some_and(|auth| auth.standing.ordinal == ordinal)
        };
        let Some(place) = claims.others.iter().position(named) else {
            return;
        };
        let mut other = claims.others.swap_remove(place);
        other.requests.close();
        let delete = [Payload::Delete(Delete::Ike)];
        if let Some(datagrams) = other.seal_request(cx, ExchangeType::INFORMATIONAL, &delete) {
            cx.transmit_all(other.path, &datagrams);
        }
    }

    /// The next deadline of what is not in front.
    pub(crate) fn claims_deadline(&self) -> Option<Deadline> {
        let claims = self.claims.as_ref()?;
        let until = claims.until.map(|at| (at, TimerKind::HalfOpen));
        let Some(init) = &claims.init else {
            return until;
        };
        let again = init.due().filter(|_| claims.disputed);
        let again = again.map(|at| (at, TimerKind::Retransmit));
        let others = claims.others.iter().map(Self::deadline);
        others.fold(earlier(until, again), earlier)
    }

    /// Does what is due of that.
    pub(crate) fn claims_timeout(&mut self, cx: &mut Context, now: Instant) {
        let Some(claims) = &self.claims else {
            return;
        };
        let is_over = claims.until.is_some_and(|at| at <= now);
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let Some(init) = &claims.init else {
            if is_over {
                self.claims = None;
            }
            return;
        };
        let repeats = claims.disputed && due(init.due());
        let exhausted = repeats && self.repeat_init(cx, now) != Some(Step::Again);
        if exhausted {
            self.stop_init();
        }
        let late = self
            .others()
            .filter(|other| due(other.deadline().map(|(at, _)| at)));
        let late: Vec<u32> = late
            .filter_map(|other| Some(other.auth_initiator()?.standing.ordinal))
            .collect();
        for ordinal in late {
            if self.init().is_some() && self.bring_forward(ordinal) {
                self.on_own_timeout(cx, now);
            }
        }
        let over = self.auth_initiator().is_some_and(AuthInitiator::is_over);
        if over && (is_over || exhausted) {
            self.fail(cx, now);
        }
    }

    /// Octets that fragments of its claims take.
    pub(crate) fn fragments_held(&self) -> usize {
        let others = self.others().map(|other| other.fragmentation.held());
        self.fragmentation.held() + others.sum::<usize>()
    }

    /// Whether a claim that is not in front has this SPI.
    pub(crate) fn has_claim(&self, header: &crate::wire::Header) -> bool {
        let answer = header.exchange.begins_ike_sa() && header.flags.response;
        let open = answer && self.init().is_some();
        open || self.others().any(|other| other.spi_r == header.spi_r)
    }

    fn others(&self) -> impl Iterator<Item = &Self> {
        self.claims.iter().flat_map(|claims| &claims.others)
    }

    fn reads(&self, message: &Message<'_>) -> bool {
        let protection = self.protection.as_ref();
        protection.is_some_and(|protection| protection.open(message).is_ok())
    }

    fn auth_initiator(&self) -> Option<&AuthInitiator> {
        match &self.phase {
            Phase::AuthInitiator(auth) => Some(auth),
            _ => None,
        }
    }
}

impl Claims {
    /// Makes room for this one.
    fn make_room(&mut self, claim: &IkeSa) {
        let method = claim.protection.as_ref().map(|p| p.keys.algorithms().ke);
        let most = method.map_or(0, most) as usize * KEPT;
        if self.others.len() >= most {
            let oldest = self.others.iter().enumerate();
            let oldest = oldest.min_by_key(|(_, other)| other.ordinal());
            oldest.map(|(at, _)| at).map(|at| self.others.remove(at));
        }
    }
}

/// How many replies are looked into, if each means a key exchange with this method.
fn most(method: KeMethod) -> u32 {
    match method {
        // `NONE` is a ticket in place of a key exchange.
        KeMethod::NONE | KeMethod::CURVE25519 | KeMethod::ECP_256 | KeMethod::ECP_384 => {
            MAX_ANSWERS
        }
        _ => MAX_SLOW_ANSWERS,
    }
}
