//! Redirects, RFC 5685: where a gateway sends a client, in IKE_SA_INIT, in IKE_AUTH, or later.
//!
//! A redirect changes nothing but the address to begin at: the new gateway must prove the same
//! identity, by the same credentials, as the one that is configured.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::config::Path;
use crate::context::{Context, Signal};
use crate::error::{ChildFailure, Dropped, IkeFailure, RedirectRefusal};
use crate::event::Event;
use crate::exchange::nat::IKE_PORT;
use crate::exchange::redirect::{self, Gateway};
use crate::sa::childless::FirstChildren;
use crate::sa::established::Client;
use crate::sa::init::InitSent;
use crate::sa::payloads::Payloads;
use crate::sa::{IkeSa, Phase, Request};
use crate::wire::{ExchangeType, Notify, NotifyType, Payload};

/// As client.
impl IkeSa {
    /// Says in IKE_SA_INIT that we can be sent elsewhere, or who has done that.
    pub(crate) fn redirect_notify(&self, init: &InitSent) -> Option<Payload<'static>> {
        let notify = match init.redirected_from {
            Some(gateway) => redirect::redirected_from(gateway),
            None if self.connection.redirect.follow => Notify::bare(NotifyType::REDIRECT_SUPPORTED),
            None => return None,
        };
        Some(Payload::Notify(notify))
    }

    /// In reply to IKE_SA_INIT: whoever saw our nonce can have sent it.
    pub(crate) fn on_init_redirect(
        &mut self,
        cx: &mut Context,
        now: Instant,
        notify: &Notify<'_>,
    ) -> Result<(), Dropped> {
        let Phase::Init(init) = &self.phase else {
            return Err(Dropped::Unexpected);
        };
        let (gateway, nonce) = redirect::parse(notify).ok_or(Dropped::Malformed)?;
        if !self.connection.redirect.follow || nonce != init.ni {
            return Err(Dropped::RedirectForged);
        }
        let first_hint = init.hint.is_none();
        match self.next_gateway(cx, now, gateway) {
            Ok(path) => {
                self.start_over(cx, now, path);
                Ok(())
            }
            Err(reason) => {
                if first_hint {
                    self.report_redirect_refused(cx, address_of(gateway), reason);
                }
                self.take_hint(cx, now, IkeFailure::Refused(NotifyType::REDIRECT))
            }
        }
    }

    /// Begins anew at another gateway, with nothing that the first one saw.
    fn start_over(&mut self, cx: &mut Context, now: Instant, path: Path) {
        let from = self.path.remote.ip();
        let Phase::Init(init) = &mut self.phase else {
            return;
        };
        let first = init.first.take();
        let Some(init) = InitSent::new(cx, &self.connection, path, first, Some(from)) else {
            return;
        };
        self.report_followed(cx, path.remote.ip(), false);
        self.phase = Phase::Init(Box::new(init));
        self.spi_i = cx.new_ike_spi();
        self.path = path;
        self.reply_path = path;
        self.send_init(cx, now);
    }

    /// The REDIRECT of an IKE_AUTH reply, if we go by it. A gateway that redirects makes no child.
    pub(crate) fn auth_redirect<'a>(&self, payloads: &'a Payloads<'_>) -> Option<&'a Notify<'a>> {
        let follows = self.connection.redirect.follow && payloads.sa.is_none();
        payloads
            .notify(NotifyType::REDIRECT)
            .filter(move |_| follows)
    }

    /// In the reply to IKE_AUTH, from a gateway that is proven: this IKE SA goes, and another
    /// gateway is asked for what was to be on it.
    pub(crate) fn on_auth_redirect(
        &mut self,
        cx: &mut Context,
        now: Instant,
        notify: &Notify<'_>,
        first: FirstChildren,
    ) {
        match self.proven_gateway(cx, now, notify) {
            Ok(path) => {
                let to = path.remote.ip();
                self.report_followed(cx, to, true);
                self.close(cx, now, IkeFailure::Redirected { to });
                cx.signals.push(Signal::Redirected {
                    id: self.id,
                    path,
                    instead: Some(first),
                });
            }
            Err((to, reason)) => {
                self.report_redirect_refused(cx, to, reason);
                self.close(cx, now, IkeFailure::RedirectRefused(reason));
                if let Some(first) = first.within.or(first.after) {
                    let failure = ChildFailure::Refused(NotifyType::REDIRECT);
                    self.child_failed(cx, &first.conf.name, failure);
                }
            }
        }
    }

    /// In a request of the gateway of an established IKE SA. That is answered already; this IKE SA
    /// goes when the new one carries everything.
    pub(crate) fn on_redirect(&mut self, cx: &mut Context, now: Instant, notify: &Notify<'_>) {
        let established = self.established().filter(|e| e.is_current());
        if established.is_none_or(|e| e.client != Some(Client::Us)) {
            return;
        }
        match self.proven_gateway(cx, now, notify) {
            Ok(path) => cx.signals.push(Signal::Redirected {
                id: self.id,
                path,
                instead: None,
            }),
            Err((to, reason)) => self.report_redirect_refused(cx, to, reason),
        }
    }

    fn proven_gateway(
        &self,
        cx: &mut Context,
        now: Instant,
        notify: &Notify<'_>,
    ) -> Result<Path, (Option<IpAddr>, RedirectRefusal)> {
        match redirect::parse(notify) {
            // RFC 5685 section 9.2: there is no nonce to repeat.
            Some((gateway, [])) => self
                .next_gateway(cx, now, gateway)
                .map_err(|reason| (address_of(gateway), reason)),
            _ => Err((None, RedirectRefusal::Malformed)),
        }
    }

    /// Where to begin, if we go there at all.
    fn next_gateway(
        &self,
        cx: &mut Context,
        now: Instant,
        gateway: Gateway,
    ) -> Result<Path, RedirectRefusal> {
        let to = match gateway {
            Gateway::Address(to) => to,
            Gateway::Name => return Err(RedirectRefusal::Name),
            Gateway::Unknown(ty) => return Err(RedirectRefusal::UnknownType(ty)),
        };
        let ours = &self.connection.local_addrs;
        let local = self.path.local.ip();
        let known = to == self.path.remote.ip() || to == local || ours.contains(&to);
        if known || !is_host(to) {
            return Err(RedirectRefusal::Unfit);
        }
        let local = [local]
            .into_iter()
            .chain(ours.iter().copied())
            .find(|ip| ip.is_ipv4() == to.is_ipv4())
            .ok_or(RedirectRefusal::Family)?;
        let name = &self.connection.name;
        if !cx.trail.follow(now, name, self.connection.redirect) {
            return Err(RedirectRefusal::TooMany);
        }
        Ok(Path {
            local: SocketAddr::new(local, IKE_PORT),
            remote: SocketAddr::new(to, IKE_PORT),
        })
    }

    /// Tells the operator that we go.
    pub(crate) fn report_followed(&self, cx: &mut Context, to: IpAddr, proven: bool) {
        cx.event(Event::Redirected {
            connection: self.connection.name.clone(),
            from: self.path.remote.ip(),
            to,
            proven,
        });
    }

    /// Tells the operator that we do not go.
    pub(crate) fn report_redirect_refused(
        &self,
        cx: &mut Context,
        to: Option<IpAddr>,
        reason: RedirectRefusal,
    ) {
        cx.event(Event::RedirectRefused {
            connection: self.connection.name.clone(),
            from: self.path.remote.ip(),
            to,
            reason,
        });
    }
}

/// As gateway.
impl IkeSa {
    /// Where a client that has just proven who it is goes, if it can and is to go.
    pub(crate) fn redirect_target(&self) -> Option<IpAddr> {
        let to = self.connection.redirect.to?;
        self.can_be_sent_to(to).then_some(to)
    }

    /// Whether the peer is a client that can be sent there.
    pub(crate) fn can_be_sent_to(&self, to: IpAddr) -> bool {
        let client = self.established().and_then(|e| e.client);
        client == Some(Client::Peer) && to != self.path.local.ip() && to != self.path.remote.ip()
    }

    /// The client is being told to go: this IKE SA does not last much longer.
    pub(crate) fn send_away(&mut self, cx: &mut Context, now: Instant, to: IpAddr) {
        let until = now.checked_add(self.connection.redirect.patience);
        let Some(established) = self.established_mut() else {
            return;
        };
        established.sent_to = Some(to);
        let over_at = &mut established.proof.over_at;
        *over_at = over_at.iter().copied().chain(until).min();
        cx.event(Event::ClientRedirected {
            id: self.id,
            connection: self.connection.name.clone(),
            client: self.path.remote,
            to,
        });
    }

    /// Tells the client of an established IKE SA.
    pub(crate) fn ask_redirect(&mut self, cx: &mut Context, now: Instant, to: IpAddr) {
        self.send_away(cx, now, to);
        let payload = Payload::Notify(redirect::notify(to, &[]));
        let exchange = ExchangeType::INFORMATIONAL;
        self.request(cx, now, exchange, &[payload], Request::Notice);
    }
}

fn address_of(gateway: Gateway) -> Option<IpAddr> {
    match gateway {
        Gateway::Address(to) => Some(to),
        Gateway::Name | Gateway::Unknown(_) => None,
    }
}

/// Whether it can be the address of another host.
fn is_host(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || broadcast)
}
