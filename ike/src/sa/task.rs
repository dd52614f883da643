//! What an IKE SA has still to ask of its peer, one request after another.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::Child;
use crate::event::{ChildSaId, EspSpi, PacketFlow};
use crate::sa::negotiate::Purpose;
use crate::wire::{KeMethod, NotifyType};

/// One thing to ask for.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// A new Child SA.
    Child(ChildTask),
    /// A new IKE SA in place of this one.
    RekeyIke(RekeyIkeTask),
    /// The end of a Child SA.
    DeleteChild(ChildSaId),
    /// The end of a Child SA that is not installed here.
    DeleteSpi(EspSpi),
    /// The end of the IKE SA.
    DeleteIke,
    /// A sign of life.
    Liveness,
    /// Tells of ESP with an SPI that is not known here.
    InvalidSpi(EspSpi),
    /// Gives our token of quick crash detection.
    Token,
    /// Asks for a ticket.
    Ticket,
    /// Sends the peer to another gateway.
    Redirect(IpAddr),
}

/// A Child SA to ask for.
#[derive(Clone, Debug)]
pub(crate) struct ChildTask {
    /// Which child of the configuration.
    pub(crate) conf: Arc<Child>,
    /// The packet that asks for it.
    pub(crate) flow: Option<PacketFlow>,
    /// The peer wants to be asked for nothing but that packet.
    pub(crate) single: bool,
    /// It is to be an additional one of a child that is up (RFC 9611).
    pub(crate) additional: bool,
    /// The Child SA that it replaces.
    pub(crate) rekeys: Option<ChildSaId>,
    /// Key exchange methods tried; the last is the one to use.
    pub(crate) methods: Vec<KeMethod>,
    /// How often the peer put us off.
    pub(crate) tries: u32,
    /// How often it did so without a reason that we can see.
    pub(crate) strikes: u32,
    pub(crate) fate: Fate,
}

/// What became of a Child SA to ask for while the answer was waited for.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fate {
    /// Nothing.
    #[default]
    Wanted,
    /// The peer closed the one that it was to replace.
    ClosedByPeer,
    /// An operator closed it: if the peer grants it all the same, it is deleted.
    Unwanted,
}

/// A rekey of the IKE SA to ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct RekeyIkeTask {
    /// Key exchange methods tried; the last is the one to use.
    pub(crate) methods: Vec<KeMethod>,
    /// How often the peer put us off.
    pub(crate) tries: u32,
}

impl ChildTask {
    /// For what it asks.
    pub(crate) fn purpose(&self) -> Purpose<'_> {
        match &self.flow {
            None => Purpose::All,
            Some(flow) if self.single => Purpose::Single(flow),
            Some(flow) => Purpose::Flow(flow),
        }
    }

    /// Whether the peer refused because it wants to be asked for one pair of addresses, and that
    /// can be done; notes it.
    pub(crate) fn becomes_single(&mut self, error: Option<NotifyType>) -> bool {
        let now = error == Some(NotifyType::SINGLE_PAIR_REQUIRED)
            && self.flow.is_some()
            && self.rekeys.is_none()
            && !self.single;
        self.single |= now;
        now
    }

    /// A first try.
    pub(crate) fn new(
        conf: Arc<Child>,
        flow: Option<PacketFlow>,
        rekeys: Option<ChildSaId>,
    ) -> Self {
        Self {
            conf,
            flow,
            single: false,
            additional: false,
            rekeys,
            methods: Vec::new(),
            tries: 0,
            strikes: 0,
            fate: Fate::Wanted,
        }
    }

    /// The child that is to come of it.
    pub(crate) fn made(&self) -> Option<&str> {
        (self.fate == Fate::Wanted).then_some(&*self.conf.name)
    }
}

/// The tasks of an IKE SA in order.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    ready: VecDeque<Task>,
    later: Vec<(Instant, Task)>,
}

impl Tasks {
    /// Adds one at the end.
    pub(crate) fn push(&mut self, task: Task) {
        self.ready.push_back(task);
    }

    /// Adds these at the end.
    pub(crate) fn extend(&mut self, tasks: impl IntoIterator<Item = Task>) {
        self.ready.extend(tasks);
    }

    /// Adds one to be done next.
    pub(crate) fn push_front(&mut self, task: Task) {
        self.ready.push_front(task);
    }

    /// Adds one that must not be done before `at`.
    pub(crate) fn push_later(&mut self, at: Instant, task: Task) {
        self.later.push((at, task));
    }

    /// The next one.
    pub(crate) fn pop(&mut self) -> Option<Task> {
        self.ready.pop_front()
    }

    /// Makes those ready whose time has come.
    pub(crate) fn ripen(&mut self, now: Instant) {
        let (ripe, later) = std::mem::take(&mut self.later)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.later = later;
        self.ready
            .extend(Vec::into_iter(ripe).map(|(_, task): (Instant, Task)| task));
    }

    /// When the next one ripens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.later.iter().map(|(at, _)| *at).min()
    }

    /// All of them, waiting ones included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.ready
            .iter()
            .chain(self.later.iter().map(|(_, task)| task))
    }

    /// Whether nothing is left to ask, now or later.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.later.is_empty()
    }

    /// Takes over what another IKE SA has left to ask about Child SAs.
    pub(crate) fn adopt(&mut self, other: Self) {
        let about_child = |task: &Task| {
            matches!(
                task,
                Task::Child(_) | Task::DeleteChild(_) | Task::DeleteSpi(_)
            )
        };
        self.ready
            .extend(other.ready.into_iter().filter(about_child));
        self.later.extend(
            other
                .later
                .into_iter()
                .filter(|(_, task)| about_child(task)),
        );
    }

    /// Drops some; says whether there were any.
    pub(crate) fn drop_where(&mut self, which: impl Fn(&Task) -> bool) -> bool {
        let before = self.ready.len() + self.later.len();
        self.ready.retain(|task| !which(task));
        self.later.retain(|(_, task)| !which(task));
        before != self.ready.len() + self.later.len()
    }

    /// Children are configured anew: what is to be made is made by that, or not at all.
    pub(crate) fn change_children(&mut self, conf_of: impl Fn(&str) -> Option<Arc<Child>>) {
        let mut keep = |task: &mut Task| match task {
            Task::Child(task) => match conf_of(&task.conf.name) {
                Some(conf) => {
                    task.conf = conf;
                    true
                }
                None => false,
            },
            _ => true,
        };
        self.ready.retain_mut(&mut keep);
        self.later.retain_mut(|(_, task)| keep(task));
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.ready.clear();
        self.later.clear();
    }

    /// The children of which a new Child SA waits to be asked for.
    pub(crate) fn created(&self) -> impl Iterator<Item = &str> {
        self.iter().filter_map(|task| match task {
            Task::Child(task) if task.rekeys.is_none() => Some(&*task.conf.name),
            _ => None,
        })
    }
}
