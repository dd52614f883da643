//! IKE_SA_INIT as initiator, RFC 7296 section 1.2. Nothing here is authenticated: a reply is
//! taken or dropped, and an error is only a hint until the real reply had its time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config::{Connection, Path};
use crate::context::{Context, Waiting};
use crate::crypto::ke::KeyExchange;
use crate::crypto::secret::Secret;
use crate::error::{Dropped, IkeFailure};
use crate::event::{Ask, IkeSpi, Puzzle};
use crate::exchange::datagrams::Datagrams;
use crate::exchange::limit::{CREATIONS, Limit, REQUESTS};
use crate::exchange::nat::{self, IKE_PORT, NAT_PORT, Nat};
use crate::exchange::windows::{ReplyWindow, RequestWindow};
use crate::keys::IkeKeys;
use crate::proposal::{IkeProposal, check_ike_answer};
use crate::sa::auth::Transcript;
use crate::sa::fragment::Fragmentation;
use crate::sa::methods::AuthMethods;
use crate::sa::mobike::Mobility;
use crate::sa::payloads::Payloads;
use crate::sa::protect::Protection;
use crate::sa::task::{ChildTask, Tasks};
use crate::sa::{IkeSa, Phase, Request, Role};
use crate::status::IkeAlgorithms;
use crate::wire::{
    ExchangeType, HashId, Ke, KeMethod, Message, Notify, NotifyType, Payload, PayloadType,
    Proposal, emit_message,
};

/// Hash algorithms we verify signatures with, RFC 7427 section 4.
pub(crate) const OUR_HASHES: [HashId; 4] = [
    HashId::SHA2_256,
    HashId::SHA2_384,
    HashId::SHA2_512,
    HashId::IDENTITY,
];
/// After an error that anybody could have sent, the real reply is waited for this long.
const HINT_PATIENCE: Duration = Duration::from_secs(4);
/// Cookies followed in one negotiation; more are a sign of forgery.
const MAX_COOKIES: u32 = 5;

/// Our IKE_SA_INIT request is out.
pub(crate) struct InitSent {
    /// The Child SA to ask for in IKE_AUTH, or as soon as it is done.
    pub(crate) first: Option<ChildTask>,
    /// The refusal to report if no better answer comes, and until when to wait for one.
    pub(crate) hint: Option<NotifyType>,
    pub(crate) give_up: Option<Instant>,
    ni: Vec<u8>,
    ke: KeyExchange,
    /// Key exchange methods used so far; each once.
    methods: Vec<KeMethod>,
    proposals: Vec<Proposal>,
    cookie: Option<Vec<u8>>,
    /// The solution of the puzzle that came with it.
    pub(crate) solution: Option<Vec<u8>>,
    /// The cookie whose puzzle is being solved.
    solving: Option<Vec<u8>>,
    cookies: u32,
    /// The gateway that sent us here.
    pub(crate) redirected_from: Option<IpAddr>,
}

impl InitSent {
    /// What a first request says; `None` if no key exchange method is implemented.
    pub(crate) fn new(
        cx: &mut Context,
        connection: &Connection,
        first: Option<ChildTask>,
        redirected_from: Option<IpAddr>,
    ) -> Option<Self> {
        let method = connection
            .ike_proposals
            .iter()
            .find_map(|proposal| proposal.ke.first().copied())?;
        Some(Self {
            first,
            hint: None,
            give_up: None,
            ni: cx.nonce(),
            ke: KeyExchange::generate(method, &mut *cx.rng).ok()?,
            methods: vec![method],
            proposals: IkeProposal::to_wire(&connection.ike_proposals, &[]),
            cookie: None,
            solution: None,
            solving: None,
            cookies: 0,
            redirected_from,
        })
    }

    /// Our nonce.
    pub(crate) fn ni(&self) -> &[u8] {
        &self.ni
    }
}

/// What an acceptable reply says.
struct Accepted {
    spi_r: IkeSpi,
    nr: Vec<u8>,
    nat: Nat,
    /// The responder does NAT traversal.
    natt: bool,
    hashes: Option<Vec<HashId>>,
    /// The responder does without a Child SA in IKE_AUTH.
    childless: bool,
    /// The responder can take fragments, and we said that we can.
    fragmentation: bool,
    methods: Option<AuthMethods>,
    protection: Protection,
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
        let init = InitSent::new(cx, &connection, first, redirected_from)?;
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
        };
        sa.send_init(cx, now);
        Some(sa)
    }

    //= rfc7296 1.2-5 2.6-4
    /// Sends the IKE_SA_INIT request as it stands, with Message ID 0 each time.
    pub(crate) fn send_init(&mut self, cx: &mut Context, now: Instant) {
        let Phase::Init(init) = &self.phase else {
            return;
        };
        let mut payloads = Vec::new();
        if let Some(cookie) = &init.cookie {
            payloads.push(Payload::Notify(Notify::cookie(cookie)));
        }
        if let Some(body) = &init.solution {
            payloads.push(Payload::Unknown {
                ty: PayloadType::PS,
                critical: false,
                body,
            });
        }
        payloads.push(Payload::Sa(init.proposals.clone()));
        payloads.push(Payload::Ke(Ke {
            method: init.ke.method(),
            data: init.ke.public(),
        }));
        payloads.push(Payload::Nonce(&init.ni));
        payloads.extend(self.redirect_notify(init));
        payloads.extend(self.fragmentation_notify());
        payloads.extend(self.nat_notifies(self.path));
        payloads.push(Payload::Notify(Notify::hash_algorithms(&OUR_HASHES)));
        let header = self.header(ExchangeType::IKE_SA_INIT, false, 0);
        // Our own proposals, checked when they were configured, are far from any limit.
        let Ok(datagram) = emit_message(&header, &payloads) else {
            return;
        };
        drop(payloads);
        self.requests = RequestWindow::new(0);
        let retransmit = cx.retransmit(now);
        let datagrams = Datagrams::from(datagram);
        cx.transmit_all(self.path, &datagrams);
        self.requests.begin(datagrams, retransmit, Request::Init);
    }

    //= rfc7296 2.23-7
    /// What we say of the addresses. To force encapsulation, the source is one that cannot fit,
    /// so that the peer, too, sees a NAT.
    pub(crate) fn nat_notifies(&self, path: Path) -> [Payload<'static>; 2] {
        let mut source = path.local;
        if self.connection.force_encap {
            source.set_port(0);
        }
        let source = nat::hash(self.spi_i, self.spi_r, source).to_vec();
        let destination = nat::hash(self.spi_i, self.spi_r, path.remote).to_vec();
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

    /// Takes a reply to our IKE_SA_INIT request.
    pub(crate) fn on_init_reply(
        &mut self,
        cx: &mut Context,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Result<(), Dropped> {
        let header = &message.header;
        let Phase::Init(init) = &self.phase else {
            return Err(Dropped::Unexpected);
        };
        let expected = header.exchange == ExchangeType::IKE_SA_INIT
            && header.message_id == 0
            && !header.flags.initiator
            && path.remote.ip() == self.path.remote.ip();
        if !expected {
            return Err(Dropped::Unexpected);
        }
        let payloads = Payloads::sort(&message.payloads).map_err(|_| Dropped::Malformed)?;
        payloads.check_critical().map_err(|_| Dropped::Critical)?;
        if payloads.sa.is_some() {
            let accepted = self.check_init_reply(init, path, header.spi_r, &payloads)?;
            self.accept_init_reply(cx, path, message.octets, accepted);
            return Ok(());
        }
        if let Some(notify) = payloads.notify(NotifyType::REDIRECT) {
            return self.on_init_redirect(cx, now, notify);
        }
        if let Some(cookie) = payloads
            .notify(NotifyType::COOKIE)
            .and_then(Notify::as_cookie)
        {
            let cookie = cookie.to_vec();
            let puzzle = payloads.notify(NotifyType::PUZZLE).and_then(Puzzle::of);
            return match puzzle.filter(|puzzle| puzzle.bits() <= cx.settings().puzzles.most) {
                Some(puzzle) => self.follow_puzzle(cx, puzzle, cookie),
                None => self.follow_cookie(cx, now, cookie),
            };
        }
        if let Some(method) = payloads.wanted_ke() {
            return self.follow_invalid_ke(cx, now, method);
        }
        let error = payloads.error().ok_or(Dropped::Malformed)?;
        self.take_hint(now, error)
    }

    //= rfc7296 2.6.1-1 2.6-4
    //= security S-14
    fn follow_cookie(
        &mut self,
        cx: &mut Context,
        now: Instant,
        cookie: Vec<u8>,
    ) -> Result<(), Dropped> {
        let Phase::Init(init) = &mut self.phase else {
            return Err(Dropped::Unexpected);
        };
        if init.cookie.as_ref() == Some(&cookie) || init.cookies == MAX_COOKIES {
            return Err(Dropped::Unexpected);
        }
        init.cookie = Some(cookie);
        init.solution = None;
        init.cookies += 1;
        self.send_init(cx, now);
        Ok(())
    }

    /// Has a puzzle solved, RFC 8019 section 7.1.2. Meanwhile the request is repeated as it is.
    fn follow_puzzle(
        &mut self,
        cx: &mut Context,
        puzzle: Puzzle,
        cookie: Vec<u8>,
    ) -> Result<(), Dropped> {
        let Phase::Init(init) = &mut self.phase else {
            return Err(Dropped::Unexpected);
        };
        let known = init.cookie.as_ref() == Some(&cookie);
        if known || init.solving.is_some() || init.cookies == MAX_COOKIES {
            return Err(Dropped::Unexpected);
        }
        init.cookies += 1;
        init.solving = Some(cookie.clone());
        cx.ask(Waiting::Puzzle(self.id), Ask::Puzzle { puzzle, cookie });
        Ok(())
    }

    /// The puzzle is solved, or is too hard: then the cookie alone may do.
    pub(crate) fn on_puzzle(&mut self, cx: &mut Context, now: Instant, solution: Option<Vec<u8>>) {
        if let Phase::Init(init) = &mut self.phase
            && let Some(cookie) = init.solving.take()
        {
            init.cookie = Some(cookie);
            init.solution = solution;
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
        let Phase::Init(init) = &mut self.phase else {
            return Err(Dropped::Unexpected);
        };
        if !offered || init.methods.contains(&method) {
            return Err(Dropped::Unexpected);
        }
        init.ke = KeyExchange::generate(method, &mut *cx.rng).map_err(|_| Dropped::Unexpected)?;
        init.methods.push(method);
        self.send_init(cx, now);
        Ok(())
    }

    //= security S-10 S-30
    pub(crate) fn take_hint(&mut self, now: Instant, error: NotifyType) -> Result<(), Dropped> {
        let Phase::Init(init) = &mut self.phase else {
            return Err(Dropped::Unexpected);
        };
        init.hint.get_or_insert(error);
        init.give_up.get_or_insert(now + HINT_PATIENCE);
        Ok(())
    }

    //= rfc7296 2.23-10
    fn check_init_reply(
        &self,
        init: &InitSent,
        path: Path,
        spi_r: IkeSpi,
        payloads: &Payloads<'_>,
    ) -> Result<Accepted, Dropped> {
        let (Some(answer), Some(ke), Some(nr)) = (&payloads.sa, payloads.ke, payloads.nonce) else {
            return Err(Dropped::Incomplete);
        };
        let chosen = check_ike_answer(&init.proposals, answer).map_err(|_| Dropped::NotOffered)?;
        let method = init.ke.method();
        if spi_r.0 == 0 || chosen.alg.ke != method || ke.method != method {
            return Err(Dropped::NotOffered);
        }
        let shared = init.ke.agree(ke.data).map_err(|_| Dropped::KeyExchange)?;
        let protection = self.derive(&chosen.alg, &init.ni, nr, &shared, spi_r)?;
        let (sources, destination) = payloads.nat_hashes();
        Ok(Accepted {
            spi_r,
            nr: nr.to_vec(),
            nat: nat::detect(self.spi_i, spi_r, path, &sources, destination),
            natt: !sources.is_empty(),
            hashes: payloads.hashes(),
            childless: payloads.has(NotifyType::CHILDLESS_IKEV2_SUPPORTED),
            fragmentation: self.fragmentation_notify().is_some()
                && payloads.has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED),
            methods: AuthMethods::announced(payloads),
            protection,
        })
    }

    fn derive(
        &self,
        alg: &IkeAlgorithms,
        ni: &[u8],
        nr: &[u8],
        shared: &Secret,
        spi_r: IkeSpi,
    ) -> Result<Protection, Dropped> {
        IkeKeys::derive(alg, ni, nr, shared, self.spi_i, spi_r)
            .and_then(|keys| Protection::new(keys, Role::Initiator))
            .map_err(|_| Dropped::Unexpected)
    }

    //= rfc7296 2.23-2 2.23-10
    //= rfc4555 3.3-1
    /// Commits to a reply, and goes on to IKE_AUTH.
    fn accept_init_reply(
        &mut self,
        cx: &mut Context,
        path: Path,
        message2: &[u8],
        accepted: Accepted,
    ) {
        let first = match &self.phase {
            Phase::Init(init) => self.first_children(init.first.clone(), accepted.childless),
            _ => None,
        };
        let Some(first) = first else {
            self.end(cx, IkeFailure::NoChildless);
            return;
        };
        // IKE_SA_INIT is never fragmented: RFC 7383 section 2.2.
        let Some(Datagrams::Whole(message1)) = self.requests.close().map(|open| open.datagrams)
        else {
            return;
        };
        let Phase::Init(init) = std::mem::replace(&mut self.phase, Phase::Gone) else {
            return;
        };
        self.spi_r = accepted.spi_r;
        self.nat = accepted.nat;
        self.fragmentation = Fragmentation::new(accepted.fragmentation);
        self.mobility.decides = true;
        self.mobility.natt = accepted.natt;
        self.protection = Some(accepted.protection);
        self.path = path;
        // Whoever sees a NAT sends all further traffic from port 4500 (RFC 7296 section 2.23).
        // So does who may move to where there is one (RFC 4555 section 3.3).
        let mobile = self.connection.mobike.enabled && accepted.natt;
        if (self.wants_encap() || mobile) && self.path.remote.port() == IKE_PORT {
            self.path.remote.set_port(NAT_PORT);
            if self.path.local.port() == IKE_PORT {
                self.path.local.set_port(NAT_PORT);
            }
        }
        let transcript = Transcript {
            ni: init.ni,
            nr: accepted.nr,
            message1,
            message2: Bytes::copy_from_slice(message2),
            peer_hashes: accepted.hashes,
            peer_methods: accepted.methods,
        };
        self.begin_auth(cx, first, transcript);
    }
}
