//! One Child SA: what was agreed, its way into the data plane and out of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Child, Mode};
use crate::context::{Context, Loss, Signal, Waiting};
use crate::crypto::secret::Secret;
use crate::error::ChildFailure;
use crate::event::{
    Ask, ChildSaId, ChildSaInfo, DataPlaneRefusal, EspKeys, EspSpi, Event, InboundSa, Limits,
    OutboundSa,
};
use crate::keys::ChildKeys;
use crate::proposal::Encr;
use crate::sa::outbound::SWITCH_AFTER;
use crate::sa::task::{ChildTask, Fate, Task};
use crate::sa::{IkeSa, Phase, Request, Side};
use crate::timer::{Deadline, TimerKind, earlier, jittered};
use crate::ts::TrafficSelector;
use crate::wire::{IntegId, KeMethod};

/// Jitter of lifetimes, in per cent.
const LIFE_JITTER_PERCENT: u32 = 10;

/// What both sides agreed on, ready for the data plane.
pub(crate) struct Agreed {
    /// What it is called, if it has a name yet.
    pub(crate) id: Option<ChildSaId>,
    pub(crate) conf: Arc<Child>,
    pub(crate) mode: Mode,
    /// Our side of the exchange that made it.
    pub(crate) side: Side,
    pub(crate) spi_in: EspSpi,
    pub(crate) spi_out: EspSpi,
    pub(crate) encr: Encr,
    pub(crate) integ: IntegId,
    pub(crate) ke: Option<KeMethod>,
    pub(crate) esn: bool,
    pub(crate) local_ts: Vec<TrafficSelector>,
    pub(crate) remote_ts: Vec<TrafficSelector>,
    pub(crate) shared: Option<Secret>,
    pub(crate) ni: Vec<u8>,
    pub(crate) nr: Vec<u8>,
    pub(crate) replaces: Option<ChildSaId>,
    /// As in [`ChildSaInfo`].
    pub(crate) queue: u16,
}

/// A Child SA.
pub(crate) struct ChildSa {
    pub(crate) info: ChildSaInfo,
    pub(crate) conf: Arc<Child>,
    pub(crate) state: ChildState,
    pub(crate) side: Side,
    /// The lower of the two nonces, which decides between redundant SAs (RFC 7296 section 2.8.1).
    pub(crate) lowest_nonce: Vec<u8>,
    /// The outbound half, until it is used.
    pub(crate) outbound: Option<Box<OutboundSa>>,
    /// When the outbound half is used even without a sign of the peer.
    pub(crate) switch_at: Option<Instant>,
    /// A newer SA that the peer made in place of this one.
    pub(crate) rekeyed_by_peer: Option<ChildSaId>,
    /// It was reported as up.
    pub(crate) up: bool,
    /// It was not put to use for the sake of a better one that the peer made at once.
    pub(crate) held_back: bool,
    /// It is the one of two that stays, and we have sent a request since.
    pub(crate) shown: bool,
    /// It has left the data plane.
    pub(crate) taken_out: bool,
    /// As replier: the peer may not have our reply yet, and so not know it.
    pub(crate) unknown: bool,
    /// The same was true when our delete was sent.
    pub(crate) deleted_unknown: bool,
    /// How often the peer did not know it when we deleted it.
    pub(crate) delete_tries: u32,
    /// No more Child SAs are asked for beside it: the peer has enough of them.
    pub(crate) enough: bool,
    /// Its selectors were configured anew: a rekey asks for those.
    pub(crate) reselect: bool,
    pub(crate) made: Instant,
    pub(crate) rekey_at: Option<Instant>,
    pub(crate) life_at: Option<Instant>,
    /// When to look whether anything uses it.
    pub(crate) idle_at: Option<Instant>,
}

/// How far a Child SA is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ChildState {
    /// The data plane was asked to accept its packets.
    Installing,
    /// It carries packets.
    Installed,
    /// It carries packets, and another one takes its place.
    Rekeyed,
    /// We are telling the peer that it is gone.
    Deleting,
}

impl ChildState {
    /// For an operator.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Installing => "installing",
            Self::Installed => "installed",
            Self::Rekeyed => "rekeyed",
            Self::Deleting => "deleting",
        }
    }
}

impl Agreed {
    /// The lower of the two nonces, by octets; a prefix is lower.
    pub(crate) fn lowest_nonce(&self) -> Vec<u8> {
        (&self.ni).min(&self.nr).clone()
    }
}

impl ChildSa {
    /// The next deadline.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let switch = self.switch_at.map(|at| (at, TimerKind::SwitchOutbound));
        let life = self.life_at.map(|at| (at, TimerKind::ChildLife));
        match self.state {
            ChildState::Deleting => None,
            ChildState::Installed => {
                let rekey = self.rekey_at.map(|at| (at, TimerKind::RekeyChild));
                let idle = self.idle_at.map(|at| (at, TimerKind::Inactivity));
                earlier(earlier(switch, idle), earlier(rekey, life))
            }
            _ => earlier(switch, life),
        }
    }

    /// Whether packets may go out with it, be it that the data plane has not said so yet.
    pub(crate) fn sends(&self) -> bool {
        self.up || self.state == ChildState::Installed && self.outbound.is_none()
    }

    /// Whether it carries packets and is to go on doing so.
    pub(crate) fn is_current(&self) -> bool {
        matches!(self.state, ChildState::Installing | ChildState::Installed)
    }
}

impl IkeSa {
    pub(crate) fn child(&self, id: ChildSaId) -> Option<&ChildSa> {
        self.children.iter().find(|child| child.info.id == id)
    }

    pub(crate) fn child_mut(&mut self, id: ChildSaId) -> Option<&mut ChildSa> {
        self.children.iter_mut().find(|child| child.info.id == id)
    }

    /// Whether this Child SA takes the place of one that is still there.
    pub(crate) fn is_replacing(&self, id: ChildSaId) -> bool {
        let old = self.child(id).and_then(|child| child.info.replaces);
        old.is_some_and(|old| self.child(old).is_some())
    }

    /// Whether another Child SA, which is to stay, takes the place of this one.
    pub(crate) fn is_replaced(&self, id: ChildSaId) -> bool {
        let mut children = self.children.iter();
        children.any(|child| child.info.replaces == Some(id) && child.is_current())
    }

    //= rfc7296 2.8.1-1
    /// Stages a Child SA: asks the data plane to accept its packets. What follows depends on the
    /// answer. Returns its name, or why there are no keys for it.
    pub(crate) fn install(
        &mut self,
        cx: &mut Context,
        now: Instant,
        agreed: &Agreed,
    ) -> Result<ChildSaId, ChildFailure> {
        let keys = self.child_keys(agreed)?;
        let id = agreed.id.unwrap_or_else(|| cx.new_child_id());
        let info = self.child_info(id, agreed);
        let enough = self.has_enough(&info.child);
        let (inbound, outbound) = by_direction(keys, agreed.side);
        let rekey_after = jittered(agreed.conf.rekey_time, LIFE_JITTER_PERCENT, &mut *cx.rng);
        // Most IKE SAs have one, and room for four would be a fifth of what they take.
        self.children.reserve_exact(1);
        self.children.push(ChildSa {
            conf: Arc::clone(&agreed.conf),
            state: ChildState::Installing,
            side: agreed.side,
            lowest_nonce: agreed.lowest_nonce(),
            outbound: Some(Box::new(OutboundSa {
                info: info.clone(),
                keys: outbound,
            })),
            switch_at: None,
            rekeyed_by_peer: None,
            up: false,
            held_back: false,
            shown: false,
            taken_out: false,
            unknown: agreed.side == Side::Replier,
            deleted_unknown: false,
            delete_tries: 0,
            enough,
            reselect: false,
            made: now,
            rekey_at: now.checked_add(rekey_after),
            life_at: now.checked_add(agreed.conf.life_time),
            idle_at: (agreed.conf.upkeep.inactivity).and_then(|time| now.checked_add(time)),
            info: info.clone(),
        });
        let inbound = InboundSa {
            info,
            keys: inbound,
        };
        cx.ask(Waiting::Inbound(id), Ask::AddInbound(Box::new(inbound)));
        Ok(id)
    }

    fn child_keys(&self, agreed: &Agreed) -> Result<ChildKeys, ChildFailure> {
        let protection = self
            .protection
            .as_ref()
            .ok_or(ChildFailure::Protocol("no keys yet"))?;
        protection
            .keys
            .child(
                agreed.shared.as_ref(),
                &agreed.ni,
                &agreed.nr,
                agreed.encr,
                agreed.integ,
            )
            .map_err(|_| ChildFailure::NoProposalChosen)
    }

    fn child_info(&self, id: ChildSaId, agreed: &Agreed) -> ChildSaInfo {
        let conf = &agreed.conf;
        let place = self.esp_place();
        ChildSaInfo {
            id,
            ike: self.id,
            connection: self.connection.name.clone(),
            child: conf.name.clone(),
            mode: agreed.mode,
            spi_in: agreed.spi_in,
            spi_out: agreed.spi_out,
            local_ts: agreed.local_ts.clone(),
            remote_ts: agreed.remote_ts.clone(),
            encr: agreed.encr.id,
            encr_key_bits: agreed.encr.key_bits,
            integ: agreed.integ,
            ke: agreed.ke,
            esn: agreed.esn,
            path: place.path,
            encap: place.encap,
            nat: place.nat,
            replaces: agreed.replaces,
            queue: agreed.queue,
            limits: Limits {
                soft_bytes: conf.rekey_bytes,
                hard_bytes: conf.life_bytes,
                soft_packets: conf.rekey_packets,
                hard_packets: conf.life_packets,
            },
        }
    }

    /// Tells the peer that a Child SA is gone, and forgets it when the peer has answered.
    pub(crate) fn delete_child(&mut self, id: ChildSaId) {
        if let Some(child) = self.child_mut(id)
            && child.state != ChildState::Deleting
        {
            child.state = ChildState::Deleting;
            child.switch_at = None;
            self.tasks.push(Task::DeleteChild(id));
        }
    }

    /// Closes all Child SAs of a child, and what is about to make one. Says whether there was any.
    pub(crate) fn close_children(&mut self, name: &str) -> bool {
        let about = |task: &Task| matches!(task, Task::Child(task) if task.conf.name == name);
        let mut any = self.tasks.drop_where(about);
        if let Some(task) = self.task_in_work().filter(|task| task.conf.name == name) {
            task.fate = Fate::Unwanted;
            any = true;
        }
        let ids: Vec<ChildSaId> = self
            .children
            .iter()
            .filter(|child| child.info.child == name)
            .map(|child| child.info.id)
            .collect();
        any |= !ids.is_empty();
        for id in ids {
            self.delete_child(id);
        }
        any
    }

    /// The Child SA that our open request asks for, also in IKE_AUTH.
    pub(crate) fn task_in_work(&mut self) -> Option<&mut ChildTask> {
        match &mut self.phase {
            Phase::Init(init) => return init.first.as_mut(),
            Phase::AuthInitiator(auth) => {
                let first = &mut auth.first;
                return first.within.as_mut().or(first.after.as_mut());
            }
            _ => {}
        }
        match &mut self.requests.open_mut()?.what {
            Request::Child(request) => Some(&mut request.task),
            _ => None,
        }
    }

    /// Forgets a Child SA: both halves leave the data plane.
    pub(crate) fn remove_child(&mut self, cx: &mut Context, id: ChildSaId, loss: Loss) {
        self.take_out(cx, id, loss == Loss::Dead);
        let Some(position) = self.children.iter().position(|c| c.info.id == id) else {
            return;
        };
        let child = self.children.remove(position);
        // What we are closing ourselves, we lose for our own reasons.
        let ours = child.state == ChildState::Deleting || self.is_closing();
        cx.signals.push(Signal::ChildLost {
            connection: child.info.connection,
            child: child.info.child,
            peer: self.peer(),
            loss: if ours { Loss::Own } else { loss },
        });
    }

    //= rfc7296 2.8-1 2.8-2
    /// A Child SA must not be used any more: it leaves the data plane at once, and is forgotten
    /// when the peer has answered our delete.
    pub(crate) fn expire_child(&mut self, cx: &mut Context, id: ChildSaId) {
        self.take_out(cx, id, true);
        self.delete_child(id);
    }

    //= rfc7296 1.4.1-1
    /// Both halves leave the data plane, if they have not yet; `expired`, if nobody has closed it.
    pub(crate) fn take_out(&mut self, cx: &mut Context, id: ChildSaId, expired: bool) {
        let Some(child) = self.child_mut(id).filter(|child| !child.taken_out) else {
            return;
        };
        child.taken_out = true;
        child.outbound = None;
        let (up, info) = (child.up, child.info.clone());
        cx.ask(Waiting::Nobody, Ask::Remove(id));
        if up {
            cx.event(Event::ChildDown {
                id,
                connection: info.connection,
                child: info.child,
                expired,
            });
        }
    }

    /// Forgets a Child SA that the data plane did not take.
    pub(crate) fn abandon_child(&mut self, id: ChildSaId) {
        self.children.retain(|c| c.info.id != id);
    }

    /// Reports that a child of ours did not come up.
    pub(crate) fn child_failed(&mut self, cx: &mut Context, child: &str, reason: ChildFailure) {
        cx.event(Event::ChildFailed {
            connection: self.connection.name.clone(),
            child: Some(child.to_owned()),
            reason,
        });
        cx.signals.push(Signal::ChildFailed {
            connection: self.connection.name.clone(),
            child: child.to_owned(),
            peer: self.peer(),
        });
    }

    /// Does what is due for the Child SAs.
    pub(crate) fn child_timers(&mut self, cx: &mut Context, now: Instant) {
        let due: Vec<(ChildSaId, TimerKind)> = self
            .children
            .iter()
            .filter_map(|c| c.deadline().map(|(at, kind)| (at, kind, c.info.id)))
            .filter(|(at, _, _)| *at <= now)
            .map(|(_, kind, id)| (id, kind))
            .collect();
        let contested = self.contested();
        for (id, kind) in due {
            match kind {
                TimerKind::SwitchOutbound if contested == Some(id) => {
                    if let Some(child) = self.child_mut(id) {
                        child.switch_at = Some(now + SWITCH_AFTER);
                    }
                }
                TimerKind::SwitchOutbound => self.use_outbound(cx, id),
                TimerKind::RekeyChild => self.rekey_child(id),
                TimerKind::Inactivity => self.ask_last_use(cx, id),
                // However long the peer takes to answer, nothing uses it from here on.
                _ => self.expire_child(cx, id),
            }
        }
    }

    fn ask_last_use(&mut self, cx: &mut Context, id: ChildSaId) {
        if let Some(child) = self.child_mut(id) {
            child.idle_at = None;
            cx.ask(Waiting::LastUse(id), Ask::LastUse(id));
        }
    }

    /// The data plane's answer: time since the last packet in either direction.
    pub(crate) fn on_last_use(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: ChildSaId,
        last: Option<Duration>,
    ) {
        let Some(child) = self.child_mut(id) else {
            return;
        };
        let Some(after) = child.conf.upkeep.inactivity else {
            return;
        };
        if child.state != ChildState::Installed {
            return;
        }
        let info = child.info.clone();
        match last {
            Some(ago) if ago < after => child.idle_at = now.checked_add(after - ago),
            _ => {
                cx.event(Event::ChildIdle {
                    connection: info.connection.clone(),
                    child: info.child.clone(),
                    after,
                });
                cx.signals.push(Signal::ChildIdle {
                    connection: info.connection,
                    child: info.child,
                    peer: self.peer(),
                });
                self.delete_child(id);
            }
        }
    }

    //= rfc7296 2.9.2-4
    /// Asks for a rekey of a Child SA, unless one is under way.
    pub(crate) fn rekey_child(&mut self, id: ChildSaId) {
        let Some(child) = self.child_mut(id) else {
            return;
        };
        child.rekey_at = None;
        if child.state == ChildState::Installed && child.rekeyed_by_peer.is_none() {
            let task = ChildTask::new(Arc::clone(&child.conf), None, Some(id));
            self.tasks.push(Task::Child(task));
        }
    }
}

/// Turns keys by role in the exchange into keys by direction: the requester sent Ni, and the
/// first half of KEYMAT protects what the sender of Ni sends (RFC 7296 section 2.17).
fn by_direction(keys: ChildKeys, side: Side) -> (EspKeys, EspKeys) {
    match side {
        Side::Requester => (keys.responder_to_initiator, keys.initiator_to_responder),
        Side::Replier => (keys.initiator_to_responder, keys.responder_to_initiator),
    }
}

/// A refusal in words.
pub(crate) fn words(refusal: DataPlaneRefusal) -> String {
    match refusal {
        DataPlaneRefusal::SpiTaken => "the SPI is in use".to_owned(),
        DataPlaneRefusal::Failed(why) => why,
    }
}
