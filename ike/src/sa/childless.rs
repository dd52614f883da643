//! IKE SAs that come up without a Child SA, RFC 6023.

use crate::config::Childless;
use crate::error::Fault;
use crate::sa::IkeSa;
use crate::sa::payloads::Payloads;
use crate::sa::task::ChildTask;
use crate::wire::{Notify, NotifyType, Payload};

/// Octets of our notify.
const NOTIFY_LEN: usize = 8;

/// The Child SAs that an initiator wants at first.
#[derive(Default)]
pub(crate) struct FirstChildren {
    /// To ask for in IKE_AUTH.
    pub(crate) within: Option<ChildTask>,
    /// To ask for as soon as that is done.
    pub(crate) after: Option<ChildTask>,
}

impl FirstChildren {
    /// What became of these in the meantime, as of the others, which are the same.
    pub(crate) fn share_fate(&mut self, others: &Self) {
        let fate = others
            .within
            .iter()
            .chain(&others.after)
            .map(|task| task.fate);
        if let Some(fate) = fate.max() {
            let own = self.within.iter_mut().chain(&mut self.after);
            own.for_each(|task| task.fate = fate);
        }
    }

    /// The children that are to come of them.
    pub(crate) fn cared(&self) -> impl Iterator<Item = &str> {
        let tasks = self.within.iter().chain(&self.after);
        tasks.filter_map(ChildTask::made)
    }
}

impl IkeSa {
    /// When to ask for the first Child SA, as initiator; `None` if the responder cannot do what
    /// we want.
    pub(crate) fn first_children(
        &self,
        first: Option<ChildTask>,
        supported: bool,
    ) -> Option<FirstChildren> {
        let childless = match self.connection.childless {
            Childless::Never | Childless::Allow => first.is_none(),
            Childless::Prefer => first.is_none() || supported,
            Childless::Force => true,
        };
        if childless && !supported {
            return None;
        }
        let (within, after) = if childless {
            (None, first)
        } else {
            (first, None)
        };
        Some(FirstChildren { within, after })
    }

    /// Says in the reply to IKE_SA_INIT that we do without a Child SA, unless the reply to what
    /// may be a stranger would be longer than the request.
    pub(crate) fn childless_notify(&self, room: usize) -> Option<Payload<'static>> {
        let supported = self.connection.childless != Childless::Never && room >= NOTIFY_LEN;
        let notify = Notify::bare(NotifyType::CHILDLESS_IKEV2_SUPPORTED);
        supported.then_some(Payload::Notify(notify))
    }

    /// Whether an IKE_AUTH request does without a Child SA, and may.
    ///
    /// # Errors
    /// What the peer is to be told if it asks for a Child SA that it is to ask for later.
    pub(crate) fn is_childless(&self, payloads: &Payloads<'_>) -> Result<bool, Fault> {
        let asks = payloads.sa.is_some() || payloads.ts_i.is_some() || payloads.ts_r.is_some();
        match self.connection.childless {
            Childless::Never => Ok(false),
            Childless::Force if asks => Err(Fault::NoAdditionalSas),
            _ => Ok(!asks),
        }
    }
}
