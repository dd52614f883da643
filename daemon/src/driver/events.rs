//! What happened, for the log and for those who wait on the control socket.

use obol_ike::error::IkeFailure;
use obol_ike::event::Event;
use obol_ike::wire::NotifyType;
use tracing::{info, warn};

use super::Driver;
use super::words;
use crate::control::describe::texts;
use crate::dataplane::DataPlane;
use crate::error::Failure;

impl<D: DataPlane> Driver<D> {
    pub(super) fn event(&mut self, event: &Event) {
        self.tell_watchers(event);
        self.note_for_cleartexts(event);
        self.generated.note(self.clock.now(), event);
        match event {
            Event::IkeUp {
                connection,
                initiator,
                remote_id,
                took,
                rekey,
                resumed,
                ..
            } => {
                let role = if *initiator { "initiator" } else { "responder" };
                let what = match (rekey, resumed) {
                    (true, _) => "IKE SA rekeyed",
                    (false, true) => "IKE SA resumed",
                    (false, false) => "IKE SA up",
                };
                let ms = took.as_millis();
                let racoons = self.racoons("ISAKMP-SA established: ");
                info!(%connection, peer = %remote_id, role, took_ms = ms, "{racoons}{what}");
            }
            Event::Progress {
                id,
                connection,
                path,
                step,
            } => self.tell_step(*id, connection, path, step),
            Event::GivenUp {
                connection,
                child,
                tries,
            } => warn!(
                %connection, %child, tries,
                "not tried again before a packet, an operator or the peer asks for it (keyingtries)"
            ),
            Event::IkeDown {
                connection, reason, ..
            } => {
                let (_, text) = words::ike_failure(reason, None);
                let racoons = match reason {
                    IkeFailure::NoAnswer { .. } => self.racoons("DPD: remote seems to be dead: "),
                    _ => self.racoons("ISAKMP-SA deleted: "),
                };
                info!(
                    connection = name(connection),
                    "{racoons}IKE SA down: {text}"
                );
            }
            Event::IkeFailed {
                connection,
                path,
                reason,
            } => {
                let (code, mut text) = words::ike_failure(reason, Some(path));
                if *reason == IkeFailure::Refused(NotifyType::NO_PROPOSAL_CHOSEN) {
                    let ours = connection.as_deref().map(|name| self.offers(name));
                    text.extend(ours.flatten());
                }
                let racoons = match reason {
                    IkeFailure::NoAnswer { .. } => {
                        self.racoons("phase1 negotiation failed due to time up: ")
                    }
                    _ => self.racoons("phase1 negotiation failed: "),
                };
                warn!(connection = name(connection), "{racoons}no IKE SA: {text}");
                if let Some(connection) = connection {
                    self.tell_ike_failure(connection, path, reason);
                }
                self.fail_waiters(connection.as_deref(), None, &Failure::new(code, text));
            }
            Event::NotResumed {
                connection,
                path,
                reason,
            } => {
                let text = words::not_resumed(*reason);
                info!(%connection, peer = %path.remote, "IKE SA is made anew: {text}");
            }
            Event::Moved {
                connection,
                from,
                to,
                ..
            } => {
                info!(
                    %connection, local = %to.local, peer = %to.remote,
                    was_local = %from.local, was_peer = %from.remote,
                    "IKE SA moved"
                );
            }
            Event::MoveRefused {
                connection,
                path,
                notify,
                ..
            } => {
                warn!(
                    %connection, local = %path.local, peer = %path.remote,
                    "the peer does not let us move: {notify}"
                );
            }
            Event::ChildUp(info) => {
                let racoons = self.racoons("IPsec-SA established: ");
                info!(
                    connection = %info.connection, child = %info.child,
                    spi_in = ?info.spi_in, spi_out = ?info.spi_out,
                    rekey = info.replaces.is_some(), encap = info.encap,
                    local_ts = %texts(&info.local_ts).join(" "),
                    remote_ts = %texts(&info.remote_ts).join(" "),
                    "{racoons}Child SA up"
                );
                self.script_up(info);
            }
            Event::ChildDown {
                id,
                connection,
                child,
                ..
            } => {
                self.scripts.down(*id);
                self.last_uses.removed(*id, connection, child);
                info!(%connection, %child, "Child SA down");
            }
            Event::ChildIdle {
                connection,
                child,
                after,
            } => {
                let seconds = after.as_secs();
                info!(%connection, %child, "no packet for {seconds} s: closing the Child SA");
            }
            Event::ChildFailed {
                connection,
                child,
                reason,
            } => {
                let (code, text) = words::child_failure(reason);
                warn!(%connection, child = name(child), "no Child SA: {text}");
                self.tell_child_failure(connection, reason);
                let failure = Failure::new(code, text);
                self.fail_waiters(Some(connection), child.as_deref(), &failure);
            }
            Event::Withheld(withheld) => {
                let (connection, text) = (&withheld.connection, words::withheld(withheld));
                warn!(%connection, "a peer gets less than it asked for: {text}");
            }
            Event::FlowLeftOut {
                connection,
                child,
                flow,
                more,
            } => {
                let text = words::left_out(flow, *more);
                warn!(%connection, %child, "{text}");
            }
            Event::Redirected { .. }
            | Event::RedirectRefused { .. }
            | Event::ClientRedirected { .. } => redirect_event(event),
            Event::Idle => {}
        }
    }
}

impl<D: DataPlane> Driver<D> {
    /// What a connection offers, for who was refused.
    fn offers(&self, connection: &str) -> Option<String> {
        let proposals = &self.endpoint.configured(connection)?.ike_proposals;
        let texts: Vec<String> = proposals.iter().map(ToString::to_string).collect();
        Some(format!("; we offer {}", texts.join(", ")))
    }

    /// Words that people look for in the log of racoon, where its files are what runs.
    fn racoons(&self, words: &'static str) -> &'static str {
        match self.origin.racoon {
            Some(_) => words,
            None => "",
        }
    }
}

fn redirect_event(event: &Event) {
    match event {
        Event::Redirected {
            connection,
            from,
            to,
            proven,
        } => info!(%connection, gateway = %from, %to, proven, "redirected to another gateway"),
        Event::RedirectRefused {
            connection,
            from,
            to,
            reason,
        } => {
            let text = words::redirect_refusal(*reason);
            let to = to.map(|to| to.to_string()).unwrap_or_default();
            warn!(%connection, gateway = %from, %to, "redirect not followed: {text}");
        }
        Event::ClientRedirected {
            connection,
            client,
            to,
            ..
        } => info!(%connection, %client, %to, "client told to go to another gateway"),
        _ => {}
    }
}

fn name(name: &Option<String>) -> &str {
    name.as_deref().unwrap_or("(none)")
}
