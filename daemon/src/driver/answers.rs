//! What the endpoint asks, and how it is answered: at once from what is here, or when the data plane
//! is done. Nobody waits for one answer of the data plane, so that the loop goes on.

use std::net::IpAddr;

use obol_ike::event::{Answer, Ask, AskId, ChildSaId, DataPlaneRefusal, InboundSa};
use obol_ike::identity::Identity;
use tracing::{debug, warn};

use super::Driver;
use crate::dataplane::{DataPlane, DataPlaneError};

/// The data plane's answer to a question of the endpoint.
pub(super) struct Answered {
    id: AskId,
    answer: Answer,
    /// It refused this SA.
    refused: Option<ChildSaId>,
}

impl<D: DataPlane> Driver<D> {
    /// Takes the answer of the data plane.
    pub(super) fn answered(&mut self, answered: Answered) {
        if let Some(refused) = answered.refused {
            // What was kept of it is dropped; nobody waits for that.
            drop(self.plane.remove(refused));
            self.keys.forget(refused);
            self.generated.forget(refused);
        }
        self.reply(answered.id, answered.answer);
    }

    /// Answers what can be answered at once; else the answer is among those that are waited for.
    pub(super) fn answer(&mut self, id: AskId, ask: Ask) -> Option<Answer> {
        Some(match ask {
            Ask::Psk {
                connection,
                local,
                remote,
                address,
            } => self.psk(&connection, &local, &remote, address),
            Ask::Sign {
                key,
                scheme,
                octets,
            } => Answer::Signature(self.loaded.credentials.sign(&key, scheme, &octets)),
            Ask::LastUse(child) => {
                let usage = self.plane.usage(child);
                let ages = usage.map(|usage| [usage.last_in, usage.last_out]);
                Answer::LastUse(ages.into_iter().flatten().flatten().min())
            }
            // By the thread of `puzzles`.
            Ask::Puzzle { .. } => Answer::Puzzle(None),
            Ask::LastInbound(ids) => {
                let ages = ids.iter().filter_map(|id| self.plane.usage(*id)?.last_in);
                Answer::LastInbound(ages.min())
            }
            Ask::AddInbound(sa) => {
                let sa = self.generated.hold_up(id, sa)?;
                return self.add_inbound(id, sa);
            }
            Ask::UseOutbound(sa) => {
                self.keys.outbound(sa.info.id, &sa.keys);
                let doing = self.plane.use_outbound(*sa);
                return self.later(id, None, doing);
            }
            Ask::MovePath(moved) => {
                let doing = self.plane.move_path(moved);
                return self.later(id, None, doing);
            }
            Ask::Remove(child) => {
                self.keys.forget(child);
                self.generated.forget(child);
                let (now, usage) = (self.clock.now(), self.plane.usage(child));
                self.last_uses.removing(now, child, usage);
                let doing = self.plane.remove(child);
                return self.later(id, None, async move {
                    let usage = doing.await?;
                    debug!(id = ?child, ?usage, "SA removed");
                    Ok(())
                });
            }
        })
    }

    /// Has the data plane accept packets of an SA.
    pub(super) fn add_inbound(&mut self, id: AskId, sa: Box<InboundSa>) -> Option<Answer> {
        let child = sa.info.id;
        self.keys.inbound(child, &sa.keys);
        let doing = self.plane.add_inbound(*sa);
        self.later(id, Some(child), doing)
    }

    /// The secret of a peer; `address` is where it is if the connection leaves open who it is.
    fn psk(
        &self,
        connection: &str,
        local: &Identity,
        remote: &Identity,
        address: Option<IpAddr>,
    ) -> Answer {
        let credentials = &self.loaded.credentials;
        let Some(at) = address else {
            return Answer::Psk(credentials.psk(local, remote));
        };
        let connection = self.endpoint.configured(connection);
        let named = connection.is_none_or(|connection| !connection.remote_addrs.is_empty());
        let found = credentials.psk_at(local, remote, at, named);
        match found {
            Ok(Some(found)) if found.of_group => Answer::GroupPsk(found.secret),
            Ok(found) => Answer::Psk(found.map(|found| found.secret)),
            Err(why) => {
                warn!("{why}");
                Answer::Psk(None)
            }
        }
    }

    /// The answer comes when the data plane is done; if it refuses, `added` is forgotten.
    fn later(
        &mut self,
        id: AskId,
        added: Option<ChildSaId>,
        doing: impl Future<Output = Result<(), DataPlaneError>> + Send + 'static,
    ) -> Option<Answer> {
        self.asked.push(Box::pin(async move {
            let done = match doing.await {
                // What is to be moved or removed may be gone already.
                Err(DataPlaneError::Unknown) => Ok(()),
                done => refusal(done),
            };
            Answered {
                id,
                refused: added.filter(|_| done.is_err()),
                answer: Answer::Done(done),
            }
        }));
        None
    }
}

/// The data plane was not even asked.
pub(super) fn refused(why: String) -> Answer {
    Answer::Done(Err(DataPlaneRefusal::Failed(why)))
}

fn refusal(result: Result<(), DataPlaneError>) -> Result<(), DataPlaneRefusal> {
    result.map_err(|e| match e {
        DataPlaneError::SpiTaken => DataPlaneRefusal::SpiTaken,
        other => {
            warn!(error = %other, "the data plane refused an SA");
            DataPlaneRefusal::Failed(other.to_string())
        }
    })
}
