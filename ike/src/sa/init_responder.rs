//! IKE_SA_INIT as responder, RFC 7296 section 1.2, and what IKE_SESSION_RESUME shares with it: an
//! IKE SA that is half open.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::config::{Connection, Path};
use crate::context::Context;
use crate::crypto::ke::KeyExchange;
use crate::error::Dropped;
use crate::event::IkeSpi;
use crate::exchange::limit::{CREATIONS, Limit, REQUESTS};
use crate::exchange::nat;
use crate::exchange::tickets::Presented;
use crate::exchange::windows::{ReplyWindow, RequestWindow};
use crate::keys::IkeKeys;
use crate::proposal::ChosenIke;
use crate::sa::auth::Transcript;
use crate::sa::fragment::Fragmentation;
use crate::sa::init::our_hashes;
use crate::sa::methods::AuthMethods;
use crate::sa::mobike::Mobility;
use crate::sa::payloads::Payloads;
use crate::sa::protect::Protection;
use crate::sa::task::Tasks;
use crate::sa::{IkeSa, Phase, Role};
use crate::wire::{ExchangeType, Ke, Message, Notify, NotifyType, Payload, emit_message};

/// Octets of a notify without data.
pub(crate) const BARE_NOTIFY: usize = 8;

/// Our reply to the first request is out.
pub(crate) struct HalfOpen {
    pub(crate) transcript: Transcript,
    /// The ticket that was presented instead of a key exchange.
    pub(crate) resumes: Option<Box<Presented>>,
    /// It can be sent to another gateway.
    pub(crate) redirectable: bool,
    /// When it is forgotten.
    pub(crate) until: Instant,
}

/// How a peer may prove itself.
struct Announced {
    /// SIGNATURE_HASH_ALGORITHMS, for peers with RFC 7427.
    hashes: Notify<'static>,
    /// SUPPORTED_AUTH_METHODS, RFC 9593 section 3.1, where there is room.
    methods: Option<Notify<'static>>,
}

impl Announced {
    /// On this path. Who the peer is comes later, so this is what any connection accepts.
    fn on(cx: &Context, path: Path) -> Self {
        let connections: Vec<&Connection> = cx.directory.kinds(path).map(|c| &**c).collect();
        let enabled = cx.settings().announce_auth_methods;
        Self {
            hashes: our_hashes(&connections),
            methods: enabled
                .then(|| AuthMethods::accepted_by(connections.iter().copied()).notify()),
        }
    }
}

impl IkeSa {
    //= rfc7296 4-4
    /// Answers an IKE_SA_INIT request with what was chosen of it.
    ///
    /// # Errors
    /// If its key exchange is no such thing. No state is left then.
    pub(crate) fn respond(
        cx: &mut Context,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        payloads: &Payloads<'_>,
        connection: Arc<Connection>,
        chosen: &ChosenIke,
    ) -> Result<Self, Dropped> {
        let (Some(ke), Some(ni)) = (payloads.ke, payloads.nonce) else {
            return Err(Dropped::Malformed);
        };
        let ours =
            KeyExchange::generate(chosen.alg.ke, &mut *cx.rng).map_err(|_| Dropped::Malformed)?;
        let shared = ours.agree(ke.data).map_err(|_| Dropped::KeyExchange)?;
        let nr = cx.nonce();
        let spi_i = message.header.spi_i;
        let spi_r = cx.new_ike_spi();
        let protection = IkeKeys::derive(&chosen.alg, ni, &nr, &shared, spi_i, spi_r)
            .and_then(|keys| Protection::new(keys, Role::Responder))
            .map_err(|_| Dropped::Malformed)?;
        let mut sa = Self::half_open(cx, now, path, payloads, connection, (spi_i, protection));
        sa.spi_r = spi_r;
        let length = message.octets.len();
        let optional = (length, Announced::on(cx, path));
        let reply = sa.init_reply(path, payloads, chosen, (&ours, &nr), optional)?;
        sa.open_half(cx, now, message, payloads, (nr, reply), None);
        Ok(sa)
    }

    /// A responder's IKE SA with these keys; its own SPI is still to be put in.
    pub(crate) fn half_open(
        cx: &mut Context,
        now: Instant,
        path: Path,
        payloads: &Payloads<'_>,
        connection: Arc<Connection>,
        (spi_i, protection): (IkeSpi, Protection),
    ) -> Self {
        let (sources, destination) = payloads.nat_hashes(&connection);
        let mut sa = Self {
            id: cx.new_ike_id(),
            role: Role::Responder,
            spi_i,
            spi_r: IkeSpi(0),
            path,
            reply_path: path,
            // The initiator hashed before it knew our SPI.
            nat: nat::detect(spi_i, IkeSpi(0), path, &sources, destination),
            connection,
            phase: Phase::Gone,
            protection: Some(protection),
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
        sa.mobility.natt = !sources.is_empty();
        let asked = payloads.has(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED);
        sa.fragmentation = Fragmentation::new(asked && sa.fragmentation_notify().is_some());
        sa
    }

    /// Sends the reply; IKE_AUTH is waited for.
    pub(crate) fn open_half(
        &mut self,
        cx: &mut Context,
        now: Instant,
        message: &Message<'_>,
        payloads: &Payloads<'_>,
        (nr, reply): (Vec<u8>, Vec<u8>),
        resumes: Option<Box<Presented>>,
    ) {
        let reply = Bytes::from(reply);
        cx.transmit(self.path, reply.clone());
        self.replies.begin();
        self.replies.answer(reply.clone().into());
        self.phase = Phase::HalfOpen(Box::new(HalfOpen {
            transcript: Transcript {
                ni: payloads.nonce.unwrap_or_default().to_vec(),
                nr,
                message1: Bytes::copy_from_slice(message.octets),
                message2: reply,
                peer_hashes: payloads.hashes(),
                // In IKE_AUTH.
                peer_methods: None,
            },
            resumes,
            redirectable: payloads.can_be_redirected(),
            until: now + cx.settings().half_open_timeout,
        }));
    }

    //= rfc7296 2.23-7
    //= security S-32
    fn init_reply(
        &self,
        path: Path,
        payloads: &Payloads<'_>,
        chosen: &ChosenIke,
        (ours, nr): (&KeyExchange, &[u8]),
        (request_len, announced): (usize, Announced),
    ) -> Result<Vec<u8>, Dropped> {
        let mut reply = vec![
            Payload::Sa(vec![chosen.answer(&[])]),
            Payload::Ke(Ke {
                method: ours.method(),
                data: ours.public(),
            }),
            Payload::Nonce(nr),
        ];
        reply.extend(self.nat_answer(path, payloads));
        if payloads.hashes().is_some() {
            reply.push(Payload::Notify(announced.hashes));
        }
        if self.fragmentation.is_agreed() {
            reply.extend(self.fragmentation_notify());
        }
        let header = self.header(ExchangeType::IKE_SA_INIT, true, 0);
        let datagram = emit_message(&header, &reply).map_err(|_| Dropped::Malformed)?;
        let mut room = request_len.saturating_sub(datagram.len());
        if let Some(notify) = self.childless_notify(room) {
            reply.push(notify);
            room -= BARE_NOTIFY;
        }
        let fits = |notify: &Notify<'_>| BARE_NOTIFY + notify.data.len() <= room;
        reply.extend(announced.methods.filter(fits).map(Payload::Notify));
        emit_message(&header, &reply).map_err(|_| Dropped::Malformed)
    }

    /// What we say of the addresses to who does NAT traversal. Others have no use for it, and
    /// whoever forged its address none at all: a reply to a stranger should not be longer than the
    /// request.
    pub(crate) fn nat_answer(&self, path: Path, payloads: &Payloads<'_>) -> Vec<Payload<'static>> {
        let (sources, destination) = payloads.nat_hashes(&self.connection);
        let asked = !sources.is_empty() || destination.is_some();
        let notifies = asked.then(|| self.nat_notifies(path));
        notifies.into_iter().flatten().collect()
    }

    /// If this datagram is the very first request that this IKE SA answered: the answer.
    pub(crate) fn repeated_init(&self, datagram: &[u8]) -> Option<&Bytes> {
        match &self.phase {
            Phase::HalfOpen(half_open) if half_open.transcript.message1 == datagram => {
                Some(&half_open.transcript.message2)
            }
            _ => None,
        }
    }
}
