//! What an operator can read of an IKE SA.

use std::time::Instant;

use crate::sa::child::{ChildSa, ChildState};
use crate::sa::established::{Established, Succession};
use crate::sa::{IkeSa, Phase, Request, Role};
use crate::status::{ChildSaStatus, IkeSaStatus};

impl IkeSa {
    /// The state in words and numbers, without secrets.
    pub(crate) fn status(&self, now: Instant) -> IkeSaStatus {
        let established = self.established();
        let since = established.map_or(self.begun, |e| e.since);
        IkeSaStatus {
            id: self.id,
            connection: match self.phase {
                Phase::HalfOpen(_) => None,
                _ => Some(self.connection.name.clone()),
            },
            state: self.state_name(),
            initiator: self.role == Role::Initiator,
            path: self.path,
            spi_i: self.spi_i,
            spi_r: self.spi_r,
            local_id: established.map(|e| e.local_id.clone()),
            remote_id: established.map(|e| e.remote_id.clone()),
            proven_by: established.and_then(|e| e.proof.by),
            algorithms: self.protection.as_ref().map(|p| *p.keys.algorithms()),
            crash_detection: established.is_some_and(|e| e.crash.has_token()),
            nat: (self.nat.local, self.nat.remote),
            fragmentation: self.fragmentation.is_agreed(),
            mobike: self.mobility.on,
            resumed: established.is_some_and(|e| e.resumable.resumed),
            age: now.saturating_duration_since(since),
            rekey_in: established
                .and_then(|e| e.rekey_at)
                .map(|at| at.saturating_duration_since(now)),
            reauth_in: established
                .and_then(|e| e.proof.renew_at)
                .map(|at| at.saturating_duration_since(now)),
            children: self.children.iter().map(|c| child_status(c, now)).collect(),
        }
    }

    /// Whether an operator reads that it is established.
    pub(crate) fn is_shown_established(&self) -> bool {
        self.state_name() == "established"
    }

    /// Whether a Child SA of this child carries packets.
    pub(crate) fn carries(&self, child: &str) -> bool {
        let mut children = self.children.iter();
        children.any(|own| own.info.child == child && own.state == ChildState::Installed)
    }

    fn state_name(&self) -> &'static str {
        let rekeying = matches!(
            self.requests.open().map(|open| &open.what),
            Some(Request::RekeyIke(_))
        );
        match self.established() {
            None => "connecting",
            Some(Established {
                closing: Some(_), ..
            }) => "deleting",
            Some(e) if e.succession == Succession::Replaced => "deleting",
            Some(e) if rekeying || e.succession != Succession::None => "rekeying",
            Some(_) => "established",
        }
    }
}

fn child_status(child: &ChildSa, now: Instant) -> ChildSaStatus {
    ChildSaStatus {
        info: child.info.clone(),
        state: child.state.name(),
        age: now.saturating_duration_since(child.made),
        rekey_in: child.rekey_at.map(|at| at.saturating_duration_since(now)),
    }
}
