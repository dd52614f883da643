//! Several Child SAs for one child, one for each queue of the data plane (RFC 9611).
//!
//! The first is made as ever, and carries what has no other. Once it is up, the initiator of the
//! IKE SA asks for further ones, one after another, until there are as many as its own child has
//! queues; so the two ends do not ask at once, and after a rekey of the IKE SA both know anew who
//! it is. Who is asked grants up to its own number of queues, also to a peer with another rule.
//! So there are as many as both ends want. A peer that refuses one, or closes one that we did not
//! replace, is not asked again while any of these Child SAs, or what takes their place, is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::Child;
use crate::context::Context;
use crate::error::Fault;
use crate::event::{ChildSaId, EspSpi};
use crate::sa::child::{ChildSa, ChildState};
use crate::sa::payloads::Payloads;
use crate::sa::task::ChildTask;
use crate::sa::{IkeSa, Role};
use crate::wire::NotifyType;

impl IkeSa {
    fn of_child(&self, name: &str) -> impl Iterator<Item = &ChildSa> {
        self.children.iter().filter(move |c| c.info.child == name)
    }

    /// The queues of a child that have a Child SA. One and what takes its place are for the same
    /// queue, and so are two that both ends made at once, of which one goes.
    fn served(&self, name: &str) -> BTreeSet<u16> {
        let stays = |child: &&ChildSa| child.state != ChildState::Deleting;
        let served = self.of_child(name).filter(stays);
        served.map(|child| child.info.queue).collect()
    }

    /// The Child SA whose selectors the additional ones of a child get.
    pub(crate) fn pattern(&self, name: &str) -> Option<&ChildSa> {
        let lasts = |child: &&ChildSa| {
            child.up
                && child.state == ChildState::Installed
                && child.rekeyed_by_peer.is_none()
                && !child.reselect
        };
        let lasting = self.of_child(name).filter(lasts);
        lasting.min_by_key(|child| child.info.queue)
    }

    /// The lowest number that no Child SA of this child has; better still, one that is another
    /// thread's too, where there are as many threads as queues.
    pub(crate) fn free_queue(&self, conf: &Child) -> u16 {
        let name = &conf.name;
        let free = |queue: &u16| self.of_child(name).all(|child| child.info.queue != *queue);
        let queues = conf.queues.max(1);
        let busy: BTreeSet<u16> = self.served(name).iter().map(|q| q % queues).collect();
        let idle = |queue: &u16| free(queue) && !busy.contains(&(queue % queues));
        let range = || 1..u16::MAX;
        range()
            .find(idle)
            .or_else(|| range().find(free))
            .unwrap_or(u16::MAX)
    }

    /// The queue of what a task asks for.
    pub(crate) fn queue_to_ask(&self, task: &ChildTask) -> u16 {
        let old = task.rekeys.and_then(|id| self.child(id));
        match old {
            Some(old) => old.info.queue,
            None if task.additional => self.free_queue(&task.conf),
            None => 0,
        }
    }

    /// The next additional Child SA to ask for.
    pub(crate) fn next_queue(&self) -> Option<ChildTask> {
        let renewed = self.established().is_none_or(|e| e.renewal.is_some());
        if self.role != Role::Initiator || !self.is_current() || renewed {
            return None;
        }
        let mut children = self.connection.children.iter();
        let conf = children.find(|conf| {
            self.lacks_queue(conf) && !self.tasks.created().any(|name| name == conf.name)
        })?;
        Some(ChildTask {
            additional: true,
            ..ChildTask::new(Arc::clone(conf), None, None)
        })
    }

    /// Whether the peer is to be asked for another one.
    pub(crate) fn lacks_queue(&self, conf: &Child) -> bool {
        conf.queues > 1
            && self.pattern(&conf.name).is_some_and(|first| !first.enough)
            && self.served(&conf.name).len() < usize::from(conf.queues)
    }

    /// For which queue a peer gets a new Child SA.
    ///
    /// # Errors
    /// If it asks for an additional one, and there are enough.
    pub(crate) fn queue_for_peer(
        &self,
        payloads: &Payloads<'_>,
        conf: &Child,
    ) -> Result<u16, Fault> {
        let served = self.served(&conf.name).len();
        if !payloads.has(NotifyType::SA_RESOURCE_INFO) || served == 0 {
            return Ok(0);
        }
        if served >= usize::from(conf.queues) {
            return Err(Fault::MaxQueue);
        }
        Ok(self.free_queue(conf))
    }

    /// Asks for no more Child SAs of this child, while it has any.
    pub(crate) fn enough_of(&mut self, name: &str) {
        for child in &mut self.children {
            child.enough |= child.info.child == name;
        }
    }

    pub(crate) fn has_enough(&self, name: &str) -> bool {
        self.of_child(name).any(|child| child.enough)
    }

    /// The peer closes a Child SA: if it is not replaced, the peer takes it for one too many.
    pub(crate) fn note_unwanted(&mut self, id: ChildSaId) {
        let Some(closed) = self.child(id).map(|child| &child.info) else {
            return;
        };
        let serves = |c: &ChildSa| c.info.id != id && c.info.queue == closed.queue;
        if !self.of_child(&closed.child).any(serves) {
            let name = closed.child.clone();
            self.enough_of(&name);
        }
    }

    /// Whether there are as many others of the same child before this one as it has queues.
    pub(crate) fn is_beyond(&self, id: ChildSaId, queues: u16) -> bool {
        let Some(child) = self.child(id) else {
            return false;
        };
        let served = self.served(&child.info.child);
        served.range(..child.info.queue).count() >= usize::from(queues)
    }
}

/// An SPI for packets to us on an SA of this queue.
pub(crate) fn new_spi(cx: &mut Context, conf: &Child, queue: u16) -> EspSpi {
    let spi = cx.new_esp_spi(conf.spi_half);
    match conf.queues {
        0 | 1 => spi,
        _ => spi.with_queue(queue),
    }
}
