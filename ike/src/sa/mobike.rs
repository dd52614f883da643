//! MOBIKE, RFC 4555: what both sides say when an address changes, and that ESP follows only to
//! where the peer has shown to be.
//!
//! ```text
//!  initiator of the first IKE SA               responder
//!  chooses a path, moves to it
//!  UPDATE_SA_ADDRESSES, COOKIE2  ----------->  moves the IKE SA
//!                                <-----------  COOKIE2
//!                                <-----------  COOKIE2'  (does the peer receive there?)
//!  COOKIE2'                      ----------->  moves the Child SAs
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rand_core::Rng as _;

use crate::config::Path;
use crate::context::Context;
use crate::error::IkeFailure;
use crate::event::Event;
use crate::exchange::nat::{self, Nat};
use crate::sa::established::{KEEPALIVE, Succession};
use crate::sa::payloads::Payloads;
use crate::sa::{IkeSa, Request, Role};
use crate::wire::{ExchangeType, Notify, NotifyType, Payload};

//= rfc4555 4.2.5-2
/// Octets of our COOKIE2; RFC 4555 section 4.2.5 lets it have 8 to 64.
const COOKIE2_LEN: usize = 16;
/// Addresses of a peer that we keep.
const PEER_ADDRESSES: usize = 16;

/// What an IKE SA knows for moving. Its successors in rekeys inherit it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mobility {
    /// Both sides have said that they speak MOBIKE.
    pub(crate) on: bool,
    /// We began the first IKE SA of this line, so we decide on addresses.
    pub(crate) decides: bool,
    /// The peer does NAT traversal.
    pub(crate) natt: bool,
    /// Other addresses of the peer, as it told.
    pub(crate) peer_addresses: Vec<IpAddr>,
    /// Where the peer was when this line of IKE SAs began: that is what it is wanted for.
    pub(crate) first_peer: Option<IpAddr>,
    /// Paths that the peer did not accept since the last one that it did.
    pub(crate) refused: Vec<Path>,
    /// ESP goes here although the IKE SA is on another path.
    pub(crate) esp: Option<EspPlace>,
    /// Counts moves, to tell the answers about older ones.
    moves: u32,
    /// The peer is still to be told to move.
    update_owed: bool,
    /// The peer is still to be told our addresses.
    addresses_owed: bool,
    /// The peer is still to show that it receives on the path of the IKE SA.
    check_owed: bool,
    /// Or on this one, which only its ESP packets came from.
    probe_owed: Option<Path>,
    /// Where its ESP packets come from, if that is not where the IKE SA is.
    heard: Option<Path>,
    /// Where the peer has shown to receive.
    verified: Option<SocketAddr>,
    /// How the peer sees our address, as it told last.
    seen_as: Option<Vec<u8>>,
    /// How often the peer found our packets changed on the way.
    unexpected_nats: u32,
}

/// Where ESP goes, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct EspPlace {
    pub(crate) path: Path,
    pub(crate) encap: bool,
    pub(crate) nat: bool,
}

/// A request of MOBIKE.
#[derive(Debug)]
pub(crate) struct MoveRequest {
    kind: Kind,
    cookie2: [u8; COOKIE2_LEN],
    /// The count of moves when it was sent.
    moves: u32,
    /// It went out by several paths: the answer does not say where the peer receives.
    several: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// UPDATE_SA_ADDRESSES.
    Update,
    /// Our other addresses.
    Addresses,
    /// A return routability check, RFC 4555 section 3.7.
    Check,
    /// The same on another path than that of the IKE SA.
    Probe(Path),
}

impl MoveRequest {
    /// The path to send it on, if that is not the one of the IKE SA.
    pub(crate) fn path(&self) -> Option<Path> {
        match self.kind {
            Kind::Probe(path) => Some(path),
            _ => None,
        }
    }

    /// Whether only one path will do.
    fn is_check(&self) -> bool {
        self.kind == Kind::Check
    }
}

impl Mobility {
    /// ESP follows the IKE SA once the peer has shown that it receives there.
    fn waits_for_check(&self) -> bool {
        self.esp.is_some() && self.heard.is_none()
    }

    /// Nothing is known but the path of the IKE SA.
    fn forget_esp(&mut self) {
        self.esp = None;
        self.heard = None;
        self.probe_owed = None;
    }

    /// For the successor of an IKE SA. What the peer said of our address was said with other SPIs.
    pub(crate) fn inherit(&self) -> Self {
        Self {
            seen_as: None,
            ..self.clone()
        }
    }

    /// As [`inherit`](Self::inherit), once the successor takes over: what was asked on the old IKE
    /// SA may never be answered.
    pub(crate) fn take_over(&self) -> Self {
        Self {
            check_owed: self.check_owed || self.waits_for_check(),
            probe_owed: self.heard,
            ..self.inherit()
        }
    }
}

impl IkeSa {
    /// The peer as it was when the IKE SA, or the first one that this one replaces, was made.
    pub(crate) fn peer(&self) -> IpAddr {
        let first = self.mobility.first_peer;
        first.unwrap_or_else(|| self.path.remote.ip())
    }

    //= rfc4555 3.2-1 3.9-1 4.2.1-1
    /// What goes into IKE_AUTH, RFC 4555 sections 3.2, 3.4 and 3.9.
    pub(crate) fn mobike_offer(&self, cx: &Context) -> Vec<Notify<'static>> {
        if !self.connection.mobike.enabled {
            return Vec::new();
        }
        let mut notifies = vec![Notify::bare(NotifyType::MOBIKE_SUPPORTED)];
        notifies.extend(self.additional_addresses(cx));
        if !self.mobility.natt && self.role == Role::Initiator {
            notifies.push(no_nats(self.path));
        }
        notifies
    }

    //= rfc4555 4.2.1-1
    /// Takes what the peer says of MOBIKE in IKE_AUTH.
    pub(crate) fn take_mobike_offer(&mut self, payloads: &Payloads<'_>) {
        let supported = payloads.has(NotifyType::MOBIKE_SUPPORTED);
        self.mobility.on = supported && self.connection.mobike.enabled;
        if self.mobility.on {
            self.mobility.peer_addresses = told_addresses(payloads);
        }
    }

    //= rfc4555 3.9-2
    //= rfc7296 2.21.2-4
    /// Whether the addresses in the header are other ones than the peer has sent to, where it
    /// says that they must not be (RFC 4555 section 3.9).
    pub(crate) fn sees_unexpected_nat(&self, payloads: &Payloads<'_>) -> bool {
        let told = payloads.notify(NotifyType::NO_NATS_ALLOWED);
        let told = told.filter(|_| self.connection.mobike.enabled);
        let seen = Path {
            local: self.reply_path.remote,
            remote: self.reply_path.local,
        };
        told.is_some_and(|told| *told.data != *no_nats_data(seen))
    }

    /// Where ESP goes.
    pub(crate) fn esp_place(&self) -> EspPlace {
        self.mobility.esp.unwrap_or_else(|| self.ike_place())
    }

    fn ike_place(&self) -> EspPlace {
        EspPlace {
            path: self.path,
            encap: self.encap(),
            nat: self.nat.any(),
        }
    }

    //= rfc4555 3.6-1
    /// As the one who decides: goes to another path, and tells the peer. A request that is open
    /// goes on there; the update follows when it is answered (RFC 4555 section 3.5).
    pub(crate) fn move_to(&mut self, cx: &mut Context, path: Path) {
        let verified = self.mobility.verified.unwrap_or(self.path.remote);
        if self.connection.mobike.check_first && verified != path.remote {
            let place = self.esp_place();
            self.mobility.esp.get_or_insert(place);
        }
        self.set_path(cx, path);
        self.mobility.moves += 1;
        self.mobility.update_owed = true;
        self.move_children(cx);
        self.repeat_request(cx);
    }

    /// Our address is gone, and it is not for us to decide on another: ESP may go from a new one
    /// at once, and the peer hears of it (RFC 4555 sections 3.5 and 3.6).
    pub(crate) fn leave_address(&mut self, cx: &mut Context, local: IpAddr) {
        let mut path = self.path;
        path.local.set_ip(local);
        self.set_path(cx, path);
        self.mobility.moves += 1;
        self.mobility.forget_esp();
        self.mobility.addresses_owed = true;
        self.move_children(cx);
        self.repeat_request(cx);
    }

    /// Our other addresses have changed.
    pub(crate) fn owe_addresses(&mut self) {
        self.mobility.addresses_owed = true;
    }

    /// The path, other than that of the IKE SA, by which a request may sooner reach the peer.
    /// (That the peer receives on the path of the IKE SA can be shown by no other.)
    pub(crate) fn other_path(&self, what: &Request) -> Option<Path> {
        match what {
            Request::Move(asked) if asked.is_check() => None,
            Request::Move(asked) => self.mobility.heard.or(asked.path()),
            _ => self.mobility.heard,
        }
    }

    /// The open request goes by several paths.
    pub(crate) fn note_several(&mut self) {
        if let Some(Request::Move(asked)) = self.requests.open_mut().map(|open| &mut open.what) {
            asked.several = true;
        }
    }

    /// Sends the open request again, on the path as it is now.
    fn repeat_request(&mut self, cx: &mut Context) {
        self.send_open(cx, self.path);
    }

    /// Sends the open request again by `path`.
    fn send_open(&mut self, cx: &mut Context, path: Path) {
        if let Some(open) = self.requests.open() {
            let datagrams = open.datagrams.clone();
            cx.transmit_all(path, &datagrams);
        }
    }

    //= rfc4555 3.12-1
    /// The data plane opened a packet of a peer behind a NAT that came from elsewhere. ESP goes
    /// there; the IKE SA stays until the peer says that it has moved (RFC 4555 section 3.8), which
    /// it does when it learns how we see it.
    pub(crate) fn esp_came_from(&mut self, cx: &mut Context, path: Path) {
        if self.mobility.decides || path == self.esp_place().path {
            return;
        }
        self.mobility.esp = Some(EspPlace {
            path,
            encap: true,
            nat: true,
        });
        self.mobility.heard = Some(path);
        self.move_children(cx);
        self.mobility.probe_owed = Some(path);
        // Where the NAT was, nobody may be any more; all else waits for what is open.
        let open = self.requests.open();
        if open.is_some_and(|open| self.other_path(&open.what).is_some()) {
            self.note_several();
            self.send_open(cx, path);
        }
    }

    /// Asks for what MOBIKE has still to ask, if anything; the request window is free. Says whether
    /// it did.
    pub(crate) fn ask_owed(&mut self, cx: &mut Context, now: Instant) -> bool {
        let Some(established) = self.established() else {
            return false;
        };
        let waits = !self.mobility.on
            || established.closing.is_some()
            || matches!(established.succession, Succession::Undecided);
        if waits {
            return false;
        }
        let mobility = &mut self.mobility;
        let kind = if std::mem::take(&mut mobility.update_owed) {
            // It says all our addresses, too.
            mobility.addresses_owed = false;
            Kind::Update
        } else if std::mem::take(&mut mobility.addresses_owed) {
            Kind::Addresses
        } else if std::mem::take(&mut mobility.check_owed) {
            Kind::Check
        } else if let Some(path) = mobility.probe_owed.take() {
            Kind::Probe(path)
        } else {
            return false;
        };
        self.ask_move(cx, now, kind);
        true
    }

    //= rfc4555 3.9-1 4.2.5-2
    fn ask_move(&mut self, cx: &mut Context, now: Instant, kind: Kind) {
        let mut cookie2 = [0; COOKIE2_LEN];
        cx.rng.fill_bytes(&mut cookie2);
        let path = match kind {
            Kind::Probe(path) => path,
            _ => self.path,
        };
        let mut payloads = Vec::new();
        if kind == Kind::Update {
            payloads.push(bare(NotifyType::UPDATE_SA_ADDRESSES));
        }
        if self.mobility.natt && kind != Kind::Addresses {
            payloads.extend(self.nat_notifies(path));
        }
        if matches!(kind, Kind::Update | Kind::Addresses) {
            let others = self.additional_addresses(cx);
            if others.is_empty() {
                payloads.push(bare(NotifyType::NO_ADDITIONAL_ADDRESSES));
            }
            payloads.extend(others.into_iter().map(Payload::Notify));
            if !self.mobility.natt {
                payloads.push(Payload::Notify(no_nats(path)));
            }
        }
        payloads.push(Payload::Notify(Notify::with_data(
            NotifyType::COOKIE2,
            cookie2.to_vec(),
        )));
        let moves = self.mobility.moves;
        let request = MoveRequest {
            kind,
            cookie2,
            moves,
            several: false,
        };
        let exchange = ExchangeType::INFORMATIONAL;
        self.request(cx, now, exchange, &payloads, Request::Move(request));
    }

    //= rfc4555 3.6-1 3.7-4 3.7-5
    //= security S-47
    /// Takes the answer to a request of MOBIKE, which came by `path`.
    pub(crate) fn on_move_reply(
        &mut self,
        cx: &mut Context,
        now: Instant,
        path: Path,
        request: &MoveRequest,
        payloads: &Payloads<'_>,
    ) {
        let cookie2 = payloads.notify(NotifyType::COOKIE2);
        if cookie2.is_none_or(|cookie2| *cookie2.data != request.cookie2) {
            let what = "the answer to an address check has another COOKIE2";
            self.close(cx, now, IkeFailure::Protocol(what));
            return;
        }
        if request.moves != self.mobility.moves {
            // It may have been sent to several addresses. (What has changed since is asked again.)
            self.mobility.check_owed |= !self.mobility.decides && self.mobility.waits_for_check();
            return;
        }
        match request.kind {
            Kind::Update => self.on_updated(cx, now, path, payloads),
            Kind::Addresses => self.retry_through_nat(cx, payloads, Kind::Addresses),
            Kind::Check => self.settle_esp(cx),
            Kind::Probe(_) if request.several => {}
            Kind::Probe(probed) => self.mobility.verified = Some(probed.remote),
        }
    }

    fn on_updated(&mut self, cx: &mut Context, now: Instant, path: Path, payloads: &Payloads<'_>) {
        if payloads.has(NotifyType::UNEXPECTED_NAT_DETECTED) {
            self.retry_through_nat(cx, payloads, Kind::Update);
            return;
        }
        if payloads.has(NotifyType::UNACCEPTABLE_ADDRESSES) {
            self.mobility.refused.push(self.path);
            self.report_refused(cx, NotifyType::UNACCEPTABLE_ADDRESSES);
            self.try_another_path(cx);
            return;
        }
        self.mobility.refused.clear();
        self.mobility.unexpected_nats = 0;
        self.take_nat(now, path, payloads);
        self.note_seen_as(payloads);
        self.settle_esp(cx);
    }

    //= rfc4555 3.9-3
    /// The peer found our packets changed on the way: once may be by an attacker, who then must
    /// do it again and again (RFC 4555 section 3.9).
    fn retry_through_nat(&mut self, cx: &mut Context, payloads: &Payloads<'_>, kind: Kind) {
        if !payloads.has(NotifyType::UNEXPECTED_NAT_DETECTED) {
            return;
        }
        self.mobility.unexpected_nats += 1;
        if self.mobility.unexpected_nats > cx.settings().retransmit_tries {
            self.report_refused(cx, NotifyType::UNEXPECTED_NAT_DETECTED);
            self.mobility.unexpected_nats = 0;
            if kind == Kind::Update {
                self.mobility.refused.push(self.path);
                self.try_another_path(cx);
            }
        } else if kind == Kind::Update {
            self.mobility.update_owed = true;
        } else {
            self.mobility.addresses_owed = true;
        }
    }

    fn report_refused(&self, cx: &mut Context, notify: NotifyType) {
        cx.event(Event::MoveRefused {
            id: self.id,
            connection: self.connection.name.clone(),
            path: self.path,
            notify,
        });
    }

    //= rfc4555 3.7-2
    /// The peer receives on the path of the IKE SA: ESP goes there, too.
    fn settle_esp(&mut self, cx: &mut Context) {
        self.mobility.verified = Some(self.path.remote);
        self.mobility.forget_esp();
        self.move_children(cx);
    }

    /// Finds out anew where there are NATs.
    fn take_nat(&mut self, now: Instant, path: Path, payloads: &Payloads<'_>) {
        let (sources, destination) = payloads.nat_hashes(&self.connection);
        if !self.mobility.natt || sources.is_empty() {
            return;
        }
        let found = nat::detect(self.spi_i, self.spi_r, path, &sources, destination);
        self.set_nat(now, found);
    }

    fn set_nat(&mut self, now: Instant, found: Nat) {
        self.nat = found;
        self.keepalive_at = match (found.local, self.keepalive_at) {
            (true, None) => now.checked_add(KEEPALIVE),
            (true, at) => at,
            (false, _) => None,
        };
    }

    /// Whether the peer sees us at another address than it said before; remembers what it says.
    fn note_seen_as(&mut self, payloads: &Payloads<'_>) -> bool {
        let (_, Some(seen)) = payloads.nat_hashes(&self.connection) else {
            return false;
        };
        let before = self.mobility.seen_as.replace(seen.to_vec());
        before.as_deref() != Some(seen)
    }

    //= rfc4555 3.8-2
    /// What a sign of life is asked for with: behind a NAT, the peer also says how it sees us
    /// (RFC 4555 section 3.8).
    pub(crate) fn liveness_payloads(&self) -> Vec<Payload<'static>> {
        let mobility = &self.mobility;
        if mobility.on && mobility.decides && mobility.natt && self.nat.local {
            self.nat_notifies(self.path).into()
        } else {
            Vec::new()
        }
    }

    //= rfc4555 3.8-2 3.8-3
    /// The peer says how it sees us: if that is not what it was, the NAT has changed.
    pub(crate) fn check_mapping(&mut self, payloads: &Payloads<'_>) {
        let mobility = &self.mobility;
        let asked = mobility.on && mobility.decides && mobility.natt;
        if asked && self.note_seen_as(payloads) {
            self.mobility.moves += 1;
            self.mobility.update_owed = true;
        }
    }

    //= rfc4555 3.7-3 3.8-1 3.9-5
    /// What MOBIKE has to do with an INFORMATIONAL request, and to say in the answer.
    pub(crate) fn on_move_request(
        &mut self,
        cx: &mut Context,
        now: Instant,
        payloads: &Payloads<'_>,
    ) -> Vec<Payload<'static>> {
        if !self.mobility.on {
            return Vec::new();
        }
        let mut reply = Vec::new();
        let cookie2 = payloads.notify(NotifyType::COOKIE2);
        if let Some(cookie2) = cookie2.filter(|c| (8..=64).contains(&c.data.len())) {
            let data = cookie2.data.to_vec();
            reply.push(Payload::Notify(Notify::with_data(
                NotifyType::COOKIE2,
                data,
            )));
        }
        let update = payloads.has(NotifyType::UPDATE_SA_ADDRESSES);
        let addresses = tells_addresses(payloads);
        if (update || addresses) && self.sees_unexpected_nat(payloads) {
            reply.push(bare(NotifyType::UNEXPECTED_NAT_DETECTED));
            return reply;
        }
        if self.mobility.natt && !payloads.nat_hashes(&self.connection).0.is_empty() {
            reply.extend(self.nat_notifies(self.reply_path));
        }
        if update && !self.mobility.decides {
            if !self.accepts_path(self.reply_path) {
                reply.push(bare(NotifyType::UNACCEPTABLE_ADDRESSES));
                return reply;
            }
            self.on_update(cx, now, payloads);
        } else if !update {
            self.check_mapping(payloads);
        }
        if addresses {
            self.on_peer_addresses(cx, payloads);
        }
        reply
    }

    //= rfc4555 3.7-1 3.7-2
    //= security S-47
    /// The peer has moved to where its request came from.
    fn on_update(&mut self, cx: &mut Context, now: Instant, payloads: &Payloads<'_>) {
        let path = self.reply_path;
        let verified = self.mobility.verified.unwrap_or(self.path.remote);
        let before = self.esp_place();
        if path != self.path {
            self.mobility.moves += 1;
        }
        self.set_path(cx, path);
        self.take_nat(now, path, payloads);
        self.mobility.forget_esp();
        let known = path.remote == verified;
        self.mobility.check_owed = !known;
        self.mobility.esp = (!known && self.connection.mobike.check_first).then_some(before);
        self.move_children(cx);
        self.repeat_request(cx);
    }

    //= rfc4555 3.4-1
    /// The peer has told all its addresses: that of the header, and others.
    fn on_peer_addresses(&mut self, cx: &mut Context, payloads: &Payloads<'_>) {
        let from = self.reply_path;
        let mut told = told_addresses(payloads);
        told.insert(0, from.remote.ip());
        let here = told.contains(&self.path.remote.ip());
        self.mobility.peer_addresses = told;
        if self.mobility.decides && !here && self.accepts_path(from) {
            self.move_to(cx, from);
        }
    }
}

fn bare(ty: NotifyType) -> Payload<'static> {
    Payload::Notify(Notify::bare(ty))
}

/// NO_NATS_ALLOWED, RFC 4555 section 4.2.6.
fn no_nats(path: Path) -> Notify<'static> {
    Notify::with_data(NotifyType::NO_NATS_ALLOWED, no_nats_data(path))
}

fn no_nats_data(path: Path) -> Vec<u8> {
    let ends = [path.local, path.remote];
    let mut data: Vec<u8> = ends.iter().flat_map(|end| octets(end.ip())).collect();
    data.extend(ends.iter().flat_map(|end| end.port().to_be_bytes()));
    data
}

/// An address as notifies carry it.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn tells_addresses(payloads: &Payloads<'_>) -> bool {
    payloads.has(NotifyType::ADDITIONAL_IP4_ADDRESS)
        || payloads.has(NotifyType::ADDITIONAL_IP6_ADDRESS)
        || payloads.has(NotifyType::NO_ADDITIONAL_ADDRESSES)
}

fn told_addresses(payloads: &Payloads<'_>) -> Vec<IpAddr> {
    let address = |notify: &Notify<'_>| match notify.ty {
        NotifyType::ADDITIONAL_IP4_ADDRESS => {
            <[u8; 4]>::try_from(&*notify.data).ok().map(IpAddr::from)
        }
        NotifyType::ADDITIONAL_IP6_ADDRESS => {
            <[u8; 16]>::try_from(&*notify.data).ok().map(IpAddr::from)
        }
        _ => None,
    };
    let told = payloads.notifies.iter().filter_map(address);
    told.take(PEER_ADDRESSES).collect()
}
