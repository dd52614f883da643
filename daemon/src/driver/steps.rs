//! Tells those who wait for an `up` how far it is.

use obol_ike::config::Path;
use obol_ike::error::{ChildFailure, IkeFailure};
use obol_ike::event::{IkeSaId, Step};
use tracing::debug;

use super::Driver;
use super::report::algorithms;
use crate::control::protocol::{Reply, StepKind, StepReport};
use crate::dataplane::DataPlane;

impl<D: DataPlane> Driver<D> {
    /// A negotiation goes on.
    pub(super) fn tell_step(&self, id: IkeSaId, connection: &str, path: &Path, step: &Step) {
        debug!(%connection, peer = %path.remote, ?step, "negotiating");
        let kind = match step {
            Step::Begun => StepKind::Begun,
            Step::Proving(chosen) => StepKind::Proving {
                algorithms: algorithms(chosen),
            },
            Step::Asked { id, child, spi_in } => StepKind::Asked {
                child: id.0,
                name: child.clone(),
                spi_in: format!("{:08x}", spi_in.0),
            },
            Step::Repeated(exchange, after) => StepKind::Repeated {
                exchange: exchange.to_string(),
                after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
            },
        };
        self.tell(connection, id.0, path, kind);
    }

    /// There is no IKE SA.
    pub(super) fn tell_ike_failure(&self, connection: &str, path: &Path, reason: &IkeFailure) {
        let kind = match reason {
            IkeFailure::NoAnswer { tries, after } => StepKind::Silent {
                tries: *tries,
                after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
            },
            IkeFailure::Refused(notify) => StepKind::Refused {
                notify: notify.to_string(),
            },
            IkeFailure::WeAreNotProven { .. } => StepKind::Refused {
                notify: "AUTHENTICATION_FAILED".to_owned(),
            },
            _ => return,
        };
        self.tell(connection, 0, path, kind);
    }

    /// There is no Child SA.
    pub(super) fn tell_child_failure(&self, connection: &str, reason: &ChildFailure) {
        let ChildFailure::Refused(notify) = reason else {
            return;
        };
        let sas = self
            .endpoint
            .status_of_connection(connection, self.clock.now());
        if let Some(sa) = sas.iter().find(|sa| sa.state == "established") {
            let notify = notify.to_string();
            self.tell(
                connection,
                sa.id.0,
                &sa.path,
                StepKind::ChildRefused { notify },
            );
        }
    }

    fn tell(&self, connection: &str, ike: u64, path: &Path, kind: StepKind) {
        let peer = path.remote;
        let step = StepReport { ike, peer, kind };
        let waiting = self.waiters.iter();
        for waiter in waiting.filter(|waiter| waiter.waits_for(connection)) {
            waiter.call.reply(Reply::Progress(step.to_text()));
        }
    }
}
