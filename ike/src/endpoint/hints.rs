//! Messages outside any IKE SA that say that state was lost, RFC 7296 sections 1.5 and 2.21.4:
//! what we tell of packets that we cannot read, and what we make of being told so. Anybody can
//! send such a message, so it makes us ask the peer at most, unless it shows the peer's token
//! (RFC 6290).

use std::time::Instant;

use super::Endpoint;
use crate::config::Path;
use crate::error::Dropped;
use crate::event::{EspSpi, IkeSaId};
use crate::exchange::nat::IKE_PORT;
use crate::sa::IkeSa;
use crate::sa::payloads::Payloads;
use crate::wire::{
    ExchangeType, Flags, Header, Message, Notify, NotifyType, Payload, PayloadType, emit_message,
};

impl Endpoint {
    /// Whether a message is a notify without protection that says that an SPI is not known.
    pub(super) fn is_hint(message: &Message<'_>) -> bool {
        let protected = |ty| matches!(ty, PayloadType::SK | PayloadType::SKF);
        let says_so = |notify: &Notify<'_>| {
            matches!(
                notify.ty,
                NotifyType::INVALID_IKE_SPI | NotifyType::INVALID_SPI
            )
        };
        let last = message.payloads.last();
        !message.header.exchange.begins_ike_sa()
            && last.is_some_and(|last| !protected(last.ty))
            && message
                .payloads
                .iter()
                .filter(|raw| raw.ty == PayloadType::NOTIFY)
                .filter_map(|raw| raw.decode().ok())
                .any(|payload| matches!(payload, Payload::Notify(notify) if says_so(&notify)))
    }

    /// Takes such a message. It is never answered.
    pub(super) fn on_hint(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Result<(), Dropped> {
        let payloads = Payloads::sort(&message.payloads).map_err(|_| Dropped::Malformed)?;
        let header = &message.header;
        let about = if payloads.has(NotifyType::INVALID_IKE_SPI) {
            self.alive(header).filter(|_| header.flags.response)
        } else {
            self.sends_with(now, path, payloads.notify(NotifyType::INVALID_SPI))
        };
        let id = about.ok_or(Dropped::UnknownSpi)?;
        let enabled = self.cx.settings().crash_detection;
        self.with(now, id, |sa, cx| {
            sa.on_hint(cx, now, &payloads.notifies, enabled)
        })
        .unwrap_or(Err(Dropped::UnknownSpi))
    }

    /// The IKE SA with these two SPIs, whichever of them is ours.
    fn alive(&self, header: &Header) -> Option<IkeSaId> {
        [header.spi_i, header.spi_r]
            .into_iter()
            .filter_map(|spi| self.sas.with_spi(spi))
            .find(|sa| sa.spi_i == header.spi_i && sa.spi_r == header.spi_r)
            .map(|sa| sa.id)
    }

    /// The IKE SA with the host at the other end of `path` on which we send with the ESP SPI
    /// that the notify names: who cannot see our packets cannot guess it.
    fn sends_with(
        &mut self,
        now: Instant,
        path: Path,
        notify: Option<&Notify<'_>>,
    ) -> Option<IkeSaId> {
        let octets = <[u8; 4]>::try_from(&*notify?.data).ok()?;
        let spi = EspSpi(u32::from_be_bytes(octets));
        // The search is long where there are many IKE SAs.
        if !self.hints.take(now) {
            return None;
        }
        let sends = |sa: &&IkeSa| sa.children.iter().any(|child| child.info.spi_out == spi);
        self.with_host(path).find(sends).map(|sa| sa.id)
    }

    /// The established IKE SAs with the host at the other end of `path`.
    fn with_host(&self, path: Path) -> impl Iterator<Item = &IkeSa> {
        let all = self.sas.with_host(path.remote.ip());
        all.filter(|sa| sa.established().is_some())
    }

    //= rfc7296 2.21.4-1 2.21.4-2 2.21.4-3
    /// Answers a protected request for an IKE SA that we do not have: with INVALID_IKE_SPI, and
    /// with the token that proves that it was ours (RFC 6290 section 4.5). The answer is never
    /// longer than the request.
    pub(super) fn on_unknown_spi(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Dropped {
        let header = &message.header;
        let asks = !header.flags.response && message.protected().is_ok_and(|p| p.is_some());
        let sound = header.spi_i.0 != 0 && header.spi_r.0 != 0 && self.shutdown.is_none();
        // RFC 6290 section 9.2: never for an IKE SA that is there, whoever turns the flag around. While
        // one is made, only one of its SPIs may be known here, and the other be forged. By a rekey the
        // peer may have made one that we do not have yet: that we say, but without the token.
        let spis = [header.spi_i, header.spi_r];
        let with_one = || spis.iter().filter_map(|spi| self.sas.with_spi(*spi));
        let free = !with_one().any(|sa| spis.contains(&sa.own_spi()));
        let is_made = with_one().next().is_some();
        let known = self.cx.directory.kinds(path).next().is_some();
        if asks && sound && free && known && self.lost.take(now) {
            let invalid = Notify::bare(NotifyType::INVALID_IKE_SPI);
            let token = self.cx.token(header.spi_i, header.spi_r);
            let token = token.filter(|_| !is_made);
            let flags = Flags {
                initiator: !header.flags.initiator,
                version: false,
                response: true,
            };
            let (spi_i, spi_r, id) = (header.spi_i, header.spi_r, header.message_id);
            let reply = Header::new(spi_i, spi_r, header.exchange, flags, id);
            let whole: Vec<Payload<'_>> = [Some(invalid.clone()), token]
                .into_iter()
                .flatten()
                .map(Payload::Notify)
                .collect();
            let short = [Payload::Notify(invalid)];
            let fitting = [&whole[..], &short]
                .into_iter()
                .filter_map(|payloads| emit_message(&reply, payloads).ok())
                .find(|datagram| datagram.len() <= message.octets.len());
            if let Some(datagram) = fitting {
                self.cx.transmit(path, datagram);
            }
        }
        Dropped::UnknownSpi
    }

    //= rfc7296 2.21.4-6
    /// ESP came with an SPI that we do not know: the sender is told, under protection if there
    /// is an IKE SA with it (RFC 7296 section 2.21.4), else in clear.
    pub(super) fn on_unknown_esp(&mut self, now: Instant, path: Path, spi: EspSpi) {
        if self.shutdown.is_some() || self.sas.receives_with(spi) {
            return;
        }
        let peer = self.with_host(path).map(|sa| sa.id).next();
        if let Some(id) = peer {
            self.with(now, id, |sa, _| sa.report_unknown_spi(now, spi));
            return;
        }
        // Whoever we are negotiating with learns from that.
        let busy = self.sas.with_host(path.remote.ip()).next().is_some();
        if busy || self.cx.directory.kinds(path).next().is_none() || !self.lost.take(now) {
            return;
        }
        let flags = Flags {
            initiator: true,
            ..Flags::default()
        };
        let none = crate::event::IkeSpi(0);
        let header = Header::new(none, none, ExchangeType::INFORMATIONAL, flags, 0);
        let payloads = [Payload::Notify(Notify::invalid_spi(spi))];
        if let Ok(datagram) = emit_message(&header, &payloads) {
            self.cx.transmit(path, datagram);
        }
    }
}

/// Where the sender of ESP without UDP, whose ports are 0, expects IKE messages.
pub(crate) fn ike_path(path: Path) -> Path {
    let mut path = path;
    if path.local.port() == 0 {
        path.local.set_port(IKE_PORT);
        path.remote.set_port(IKE_PORT);
    }
    path
}
