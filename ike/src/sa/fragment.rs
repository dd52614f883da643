//! IKE fragmentation of one IKE SA, RFC 7383: how long our datagrams may be, and what has come
//! of the peer's messages so far.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::config::{self, FragmentationMode, Path};
use crate::context::Context;
use crate::error::Dropped;
use crate::exchange::datagrams::Datagrams;
use crate::exchange::nat::IKE_PORT;
use crate::exchange::reassembly::{
    Chunk, MAX_FRAGMENTS, MAX_HELD, MAX_HELD_IN_TOTAL, MAX_HELD_UNPROVEN, MessageKey,
    RESERVED_FOR_PROVEN, Reassembly, cost,
};
use crate::exchange::windows::Incoming;
use crate::sa::protect::{Opened, Split};
use crate::sa::{IkeSa, Phase};
use crate::wire::{Fragment, HEADER_LEN, Header, Malformed, Message, Notify, NotifyType, Payload};

//= rfc7383 2.5.1-3
/// Longest IP packet that passes nearly everywhere.
const SIZE: u16 = config::Fragmentation::DEFAULT_SIZE;
//= rfc7383 2.5.1-4
/// Longest IPv4 packet that passes where that does not, RFC 7383 section 2.5.1.
const SIZE_SMALL: u16 = 576;
/// A request that went out so often without answer goes out in smaller datagrams, if it can.
const TRIES_BEFORE_SMALLER: u32 = 3;
const UDP_HEADER_LEN: usize = 8;
const NON_ESP_MARKER_LEN: usize = 4;

/// IKE fragmentation of one IKE SA.
#[derive(Debug, Default)]
pub(crate) struct Fragmentation {
    /// Both ends said in IKE_SA_INIT that they can.
    agreed: bool,
    /// Longest IP packet in octets, once the configured length turned out to be too much.
    learned: Option<u16>,
    /// The peer's next request as far as it is here.
    request: Option<Box<Reassembly>>,
    /// The same of its reply to our open request.
    reply: Option<Box<Reassembly>>,
}

impl Fragmentation {
    /// Of an IKE SA on which both ends said that they can, or not.
    pub(crate) fn new(agreed: bool) -> Self {
        Self {
            agreed,
            ..Self::default()
        }
    }

    /// What the peer has really said in IKE_SA_INIT.
    pub(crate) fn agree(&mut self, agreed: bool) {
        self.agreed = agreed;
    }

    /// Of the IKE SA that replaces this one: what IKE_SA_INIT agreed on stands.
    pub(crate) fn successor(&self) -> Self {
        Self::new(self.agreed)
    }

    /// Whether both ends can.
    pub(crate) fn is_agreed(&self) -> bool {
        self.agreed
    }

    /// Octets of memory that fragments take.
    pub(crate) fn held(&self) -> usize {
        self.sets().map(Reassembly::held).sum()
    }

    /// When the first incomplete message is given up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.sets().map(Reassembly::until).min()
    }

    //= rfc7383 2.6-5
    /// Gives up what is due.
    pub(crate) fn expire(&mut self, now: Instant) {
        for set in [&mut self.request, &mut self.reply] {
            if set.as_ref().is_some_and(|set| set.until() <= now) {
                *set = None;
            }
        }
    }

    /// Forgets the fragments of a message that is here whole.
    pub(crate) fn forget(&mut self, response: bool) {
        *self.set(response) = None;
    }

    fn sets(&self) -> impl Iterator<Item = &Reassembly> {
        [&self.request, &self.reply]
            .into_iter()
            .flatten()
            .map(|set| &**set)
    }

    fn set(&mut self, response: bool) -> &mut Option<Box<Reassembly>> {
        if response {
            &mut self.reply
        } else {
            &mut self.request
        }
    }
}

impl IkeSa {
    //= rfc7383 2.3-1 2.3-2 2.3-3
    /// IKEV2_FRAGMENTATION_SUPPORTED for an IKE_SA_INIT message, if it is wanted.
    pub(crate) fn fragmentation_notify(&self) -> Option<Payload<'static>> {
        let wanted = self.connection.fragmentation.mode != FragmentationMode::No;
        let notify = Notify::bare(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED);
        wanted.then_some(Payload::Notify(notify))
    }

    //= rfc7383 2.4-1
    /// How messages on this path are to be cut; `None` if they must not be.
    pub(crate) fn split(&self, path: Path) -> Option<Split> {
        let mode = self.connection.fragmentation.mode;
        let allowed = self.fragmentation.agreed && mode != FragmentationMode::No;
        allowed.then(|| Split {
            longest: message_len(path, self.longest_packet()),
            force: mode == FragmentationMode::Force,
        })
    }

    //= rfc7383 2.4-3 2.5.1-2
    /// Longest IP packet in octets.
    fn longest_packet(&self) -> u16 {
        let configured = self.connection.fragmentation.size;
        let learned = self.fragmentation.learned;
        learned.map_or(configured, |learned| learned.min(configured))
    }

    //= rfc7383 2.5.2-1 2.5.2-2
    /// Cuts the open request into smaller datagrams, if it was not answered for a while: perhaps
    /// the path does not carry these (RFC 7383 section 2.5.2). Says whether it did.
    pub(crate) fn shrink_request(&mut self, cx: &mut Context, now: Instant) -> bool {
        let Some(open) = self.requests.open() else {
            return false;
        };
        if open.retransmit.tries() < TRIES_BEFORE_SMALLER {
            return false;
        }
        let sent = open.datagrams.clone();
        let path = self.path;
        // More datagrams are more that can be lost; nearly every path carries these.
        if sent.fragments() == 0 && sent.longest() <= message_len(path, SIZE) {
            return false;
        }
        let smaller = [SIZE, SIZE_SMALL].into_iter().find_map(|size| {
            let useful = size > SIZE_SMALL || path.remote.is_ipv4();
            let cut = useful.then(|| self.recut(path, &sent, size)).flatten()?;
            Some((size, cut))
        });
        let (Some((size, smaller)), Some(open)) = (smaller, self.requests.open_mut()) else {
            return false;
        };
        cx.transmit_all(path, &smaller);
        open.datagrams = smaller;
        open.retransmit
            .restart(now, &cx.config.settings, &mut *cx.rng);
        self.fragmentation.learned = Some(size);
        true
    }

    /// The first fragment of a request came again. If it is smaller than the datagrams of our
    /// reply, the peer has reason to think that those do not pass.
    pub(crate) fn shrink_reply(&mut self, path: Path, message: &Message<'_>) {
        let id = message.header.message_id;
        let Incoming::Repeated(reply) = self.replies.check(id) else {
            return;
        };
        let reply = reply.clone();
        let Some(size) = self.learn_size(path, message.octets.len()) else {
            return;
        };
        if let Some(smaller) = self.recut(path, &reply, size) {
            self.replies.reshape(smaller);
        }
    }

    //= rfc7383 2.5.1-2
    /// Takes the size of a fragment of the peer for what the path carries, if that is less than
    /// what we would send: RFC 7383 section 2.5.1.
    fn learn_size(&mut self, path: Path, datagram_len: usize) -> Option<u16> {
        let least = if path.remote.is_ipv4() {
            SIZE_SMALL
        } else {
            SIZE
        };
        let packet = u16::try_from(datagram_len + overhead(path)).ok()?;
        let size = packet.max(least);
        if size >= self.longest_packet() {
            return None;
        }
        self.fragmentation.learned = Some(size);
        Some(size)
    }

    //= rfc7383 2.5.2-6
    /// A message of ours in smaller datagrams, and in more of them; `None` if that cannot be.
    fn recut(&mut self, path: Path, sent: &Datagrams, size: u16) -> Option<Datagrams> {
        let mut split = self.split(path)?;
        split.longest = message_len(path, size);
        if sent.longest() <= split.longest {
            return None;
        }
        let cut = self.protection.as_mut()?.recut(sent, split)?;
        (cut.fragments() > sent.fragments()).then_some(cut)
    }

    //= rfc7383 2.4-1 2.6-1
    /// Which fragment a message is, if it may be one: looked at before it is authenticated.
    ///
    /// # Errors
    /// If its numbers are impossible, if fragments were not agreed on, or if it adds nothing.
    pub(crate) fn check_fragment(
        &self,
        message: &Message<'_>,
    ) -> Result<Option<Fragment>, Dropped> {
        let protected = message.protected().map_err(|error| match error {
            Malformed::Value => Dropped::FragmentNumber,
            _ => Dropped::Malformed,
        })?;
        let Some(fragment) = protected.ok_or(Dropped::Unprotected)?.fragment else {
            return Ok(None);
        };
        if !self.fragmentation.agreed {
            return Err(Dropped::FragmentNotAgreed);
        }
        if fragment.total > MAX_FRAGMENTS {
            return Err(Dropped::FragmentNumber);
        }
        let set = if message.header.flags.response {
            &self.fragmentation.reply
        } else {
            &self.fragmentation.request
        };
        if let Some(set) = set {
            set.check(key(&message.header), fragment)?;
        }
        Ok(Some(fragment))
    }

    //= security S-41
    /// Keeps a fragment that authenticated. The whole message, if it was the last one missing.
    ///
    /// # Errors
    /// If there is no room for it.
    pub(crate) fn collect(
        &mut self,
        cx: &Context,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        fragment: Fragment,
        opened: Opened,
    ) -> Result<Option<Opened>, Dropped> {
        let (key, response) = (key(&message.header), message.header.flags.response);
        let old = self.fragmentation.set(response).take();
        let joins = old.as_ref().is_some_and(|set| set.takes(key, fragment));
        let kept = if joins { old } else { None };
        let kept_len = kept.as_ref().map_or(0, |set| set.held());
        let others = self.fragmentation.held();
        let chunk = Chunk {
            fragment,
            first: opened.first,
            octets: opened.octets,
        };
        if !self.has_room(cx, others + kept_len + cost(&chunk.octets)) {
            *self.fragmentation.set(response) = kept;
            return Err(Dropped::FragmentLimit);
        }
        let set = match kept {
            Some(mut set) => {
                set.put(now, chunk);
                set
            }
            None => Box::new(Reassembly::begin(key, now, chunk)),
        };
        if fragment.number == 1 && fragment.total > 1 && !response {
            self.learn_size(path, message.octets.len());
        }
        if !set.is_complete() {
            *self.fragmentation.set(response) = Some(set);
            return Ok(None);
        }
        let (first, octets) = set.merge();
        Ok(Some(Opened { first, octets }))
    }

    //= rfc7383 5-1
    //= security S-41
    /// Whether this IKE SA may hold so many octets of fragments, with all others that hold some.
    fn has_room(&self, cx: &Context, octets: usize) -> bool {
        let proven = matches!(self.phase, Phase::Established(_));
        let (own, reserved) = if proven {
            (MAX_HELD, 0)
        } else {
            (MAX_HELD_UNPROVEN, RESERVED_FOR_PROVEN)
        };
        octets <= own && cx.fragments_of_others + octets <= MAX_HELD_IN_TOTAL - reserved
    }
}

fn key(header: &Header) -> MessageKey {
    MessageKey {
        message_id: header.message_id,
        exchange: header.exchange,
    }
}

/// Octets of an IP packet before the IKE message.
fn overhead(path: Path) -> usize {
    let ip = match path.remote.ip() {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    };
    let marker = if is_ike_port(path.local) {
        0
    } else {
        NON_ESP_MARKER_LEN
    };
    ip + UDP_HEADER_LEN + marker
}

fn is_ike_port(local: SocketAddr) -> bool {
    local.port() == IKE_PORT
}

//= rfc7383 2.5.1-1
/// Octets of the longest IKE message that fits into IP packets of this size.
fn message_len(path: Path, packet: u16) -> usize {
    usize::from(packet)
        .saturating_sub(overhead(path))
        .max(HEADER_LEN)
}
