//! Signs that the peer is in trouble which anybody can give (an ICMP error, a notify in clear):
//! they hasten a sign of life. If that does not come, a new IKE SA is begun beside this one, which
//! loses nothing: it is given up only after the whole sequence of retransmissions, as ever.

use std::time::{Duration, Instant};

use crate::context::{Context, Signal};
use crate::sa::task::Task;
use crate::sa::{IkeSa, Request};

/// Signs that anybody can give make us ask the peer no more often than this.
const HINT_PAUSE: Duration = Duration::from_secs(10);
/// With such a sign, so many requests without answer are enough for a new IKE SA beside this one.
const PATIENT_TRIES: u32 = 3;
/// No datagram is under way for longer than this, as a rule.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// What speaks for the peer's having lost an IKE SA.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Doubt {
    /// When a sign was last acted upon.
    hinted: Option<Instant>,
    /// There was one since the peer was last heard.
    open: bool,
    /// And it did not answer.
    grave: bool,
    early: Early,
}

/// As replier of a rekey: whether signs may come of the time when the peer did not have our reply,
/// and with it this IKE SA. They are no signs.
#[derive(Clone, Copy, Debug, Default)]
enum Early {
    /// No.
    #[default]
    No,
    /// It may not have it yet.
    Unheard,
    /// It has, but what it said before may still be on its way.
    Until(Instant),
}

impl Doubt {
    /// Whether a new IKE SA is needed beside this one.
    pub(crate) fn is_grave(&self) -> bool {
        self.grave
    }

    /// Of an IKE SA that we made as replier of a rekey.
    pub(crate) fn of_replier() -> Self {
        Self {
            early: Early::Unheard,
            ..Self::default()
        }
    }

    /// The peer is heard.
    pub(crate) fn dispel(&mut self, now: Instant) {
        self.open = false;
        self.grave = false;
        if matches!(self.early, Early::Unheard) {
            self.early = Early::Until(now + ON_ITS_WAY);
        }
    }

    fn comes_early(&self, now: Instant) -> bool {
        match self.early {
            Early::No => false,
            Early::Unheard => true,
            Early::Until(at) => now < at,
        }
    }
}

impl IkeSa {
    //= rfc4555 3.5-1 5.3-1
    /// Takes such a sign: the peer is asked whether it lives, unless it was asked lately.
    pub(crate) fn suspect(&mut self, now: Instant) {
        let idle = self.is_idle();
        let Some(established) = self.established_mut().filter(|e| e.is_current()) else {
            return;
        };
        let doubt = &mut established.doubt;
        let lately = |at| now.saturating_duration_since(at) < HINT_PAUSE;
        if doubt.comes_early(now) || doubt.hinted.is_some_and(lately) {
            return;
        }
        doubt.hinted = Some(now);
        doubt.open = true;
        // An open request finds out by itself.
        if idle {
            self.tasks.push(Task::Liveness);
        }
    }

    /// A request of ours has gone out for the `tries`-th time.
    pub(crate) fn unanswered(&mut self, cx: &mut Context, tries: u32) {
        let asks = self.requests.open().map(|open| &open.what);
        let fits = matches!(
            asks,
            Some(
                Request::Liveness
                    | Request::Child(_)
                    | Request::RekeyIke(_)
                    | Request::DeleteChild(_)
            )
        );
        let Some(established) = self.established_mut().filter(|e| e.is_current()) else {
            return;
        };
        if !fits || !established.doubt.open || tries < PATIENT_TRIES {
            return;
        }
        established.doubt.grave = true;
        let children = self.children.iter().filter(|child| child.up);
        cx.signals.push(Signal::Doubted {
            connection: self.connection.name.clone(),
            children: children.map(|child| child.info.child.clone()).collect(),
            peer: self.peer(),
        });
    }
}
