//! Those who watch what happens, in the words of `racoonctl show-event`; and who asks for an SA as
//! a packet would.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use obol_ike::config::Path;
use obol_ike::error::{ChildFailure, IkeFailure};
use obol_ike::event::{ChildSaId, Event, IkeSaId, PacketFlow};
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::NotifyType;

use super::Driver;
use crate::control::Call;
use crate::control::describe;
use crate::control::protocol::Reply;
use crate::dataplane::DataPlane;
use crate::error::{ExitClass, Failure};

/// Clients that are told of events. While there is none, nothing is kept for them.
#[derive(Default)]
pub(super) struct Watchers {
    calls: Vec<Call>,
    /// Where the peers of SAs are, which those that end do not say.
    ike: HashMap<IkeSaId, Path>,
    children: HashMap<ChildSaId, Path>,
}

impl<D: DataPlane> Driver<D> {
    /// Tells this client of all that happens from now on.
    pub(super) fn watch(&mut self, now: Instant, call: Call) {
        for sa in self.endpoint.status(now) {
            self.watchers.ike.insert(sa.id, sa.path);
            for child in sa.children {
                self.watchers
                    .children
                    .insert(child.info.id, child.info.path);
            }
        }
        self.watchers.calls.push(call);
    }

    pub(super) fn tell_watchers(&mut self, event: &Event) {
        self.watchers.calls.retain(|call| !call.is_over());
        if self.watchers.calls.is_empty() {
            self.watchers = Watchers::default();
            return;
        }
        if let Event::IkeUp { id, .. } = event {
            let sa = self.endpoint.status_of(*id, self.clock.now());
            self.watchers.ike.extend(sa.map(|sa| (*id, sa.path)));
        }
        if let Some(text) = self.watchers.words(event) {
            for call in &self.watchers.calls {
                call.reply(Reply::Progress(text.clone()));
            }
        }
    }

    /// Tells them that there is nothing more to come.
    pub(super) fn dismiss_watchers(&mut self) {
        for call in std::mem::take(&mut self.watchers).calls {
            call.reply(Reply::Progress("Racoon terminated".to_owned()));
            call.reply(Reply::done(&()));
        }
    }

    /// Asks for an SA as a packet would.
    pub(super) fn establish(
        &mut self,
        now: Instant,
        source: IpAddr,
        destination: IpAddr,
        flow: Option<(u8, u16, u16)>,
    ) -> Result<Reply, Failure> {
        let connections = &self.loaded.ike.connections;
        let mut children = connections
            .iter()
            .flat_map(|connection| connection.children.iter().map(move |own| (connection, own)));
        let fits = |local: &TrafficSelector, remote: &TrafficSelector| {
            packet(local, remote, (source, destination), flow)
        };
        let found = children.find_map(|(connection, child)| {
            let pairs = child.local_ts.iter().flat_map(|local| {
                let remotes = child.remote_ts.iter();
                remotes.map(move |remote| (local, remote))
            });
            let mut packets = pairs.filter_map(|(local, remote)| fits(local, remote));
            packets.next().map(|packet| (connection, child, packet))
        });
        let Some((connection, child, packet)) = found else {
            let text = format!("no policy protects packets from {source} to {destination}");
            return Err(Failure::new(ExitClass::Config, text));
        };
        let report = describe::child(child);
        let names = (connection.name.clone(), child.name.clone());
        let command = self.acquire(names.0, names.1, packet);
        let asked = self.endpoint.handle_command(now, command);
        asked.map_err(|e| Failure::new(ExitClass::Failed, e.to_string()))?;
        Ok(Reply::done(&report))
    }
}

/// A packet between these hosts that both selectors carry.
fn packet(
    local: &TrafficSelector,
    remote: &TrafficSelector,
    (source, destination): (IpAddr, IpAddr),
    flow: Option<(u8, u16, u16)>,
) -> Option<PacketFlow> {
    if !local.contains_address(source) || !remote.contains_address(destination) {
        return None;
    }
    let (protocol, own, other) = flow.unwrap_or_default();
    let protocol = match (protocol, local.protocol) {
        (0, known) | (known, 0) => known,
        (known, same) if known == same => known,
        _ => return None,
    };
    // Where nothing is said, the first that there is.
    let port = |port: u16, ts: &TrafficSelector| match port {
        0 => Some(ts.start_port),
        port => (ts.start_port..=ts.end_port)
            .contains(&port)
            .then_some(port),
    };
    Some(PacketFlow {
        protocol,
        source,
        destination,
        source_port: port(own, local)?,
        destination_port: port(other, remote)?,
    })
}

impl Watchers {
    /// `TEXT : OWN[PORT] -> PEER[PORT]`, for what racoon has words for.
    fn words(&mut self, event: &Event) -> Option<String> {
        let (text, path) = match event {
            Event::IkeUp { id, rekey, .. } => {
                let path = self.ike.get(id)?;
                let text = if *rekey {
                    "Phase 1 rekeyed"
                } else {
                    "Phase 1 established"
                };
                (text, *path)
            }
            Event::IkeDown { id, reason, .. } => {
                let text = match reason {
                    IkeFailure::NoAnswer { .. } => "Phase 1 error: dead peer detected",
                    _ => "Phase 1 deleted",
                };
                (text, self.ike.remove(id)?)
            }
            Event::IkeFailed { path, reason, .. } => (ike_failed(reason), *path),
            Event::ChildUp(info) => {
                self.children.insert(info.id, info.path);
                ("Phase 2 established", info.path)
            }
            Event::ChildDown { id, .. } => ("Phase 2 deleted", self.children.remove(id)?),
            Event::ChildFailed { reason, .. } => {
                return Some(child_failed(reason).to_owned());
            }
            _ => return None,
        };
        let end = |end: SocketAddr| format!("{}[{}]", end.ip(), end.port());
        Some(format!(
            "{text} : {} -> {}",
            end(path.local),
            end(path.remote)
        ))
    }
}

fn ike_failed(reason: &IkeFailure) -> &'static str {
    match reason {
        IkeFailure::NoAnswer { .. } => "Phase 1 error: peer not responding",
        IkeFailure::NoProposalChosen { .. }
        | IkeFailure::Refused(NotifyType::NO_PROPOSAL_CHOSEN) => {
            "Phase 1 error: no proposal chosen"
        }
        _ => "Phase 1 error: authentication failed (bad certificate?)",
    }
}

fn child_failed(reason: &ChildFailure) -> &'static str {
    match reason {
        ChildFailure::IkeDown => "Phase 2 error: no suitable phase 1",
        ChildFailure::NoProposalChosen | ChildFailure::Refused(_) => {
            "Phase 2 error: no proposal chosen"
        }
        _ => "Phase 2 error: no response",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_a_policy_protects() {
        let (local, remote) = ("10.0.0.0/16[tcp]", "10.0.0.0/16[tcp/27017]");
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        let hosts = ([10, 0, 1, 13].into(), [10, 0, 1, 241].into());
        let found = |flow| packet(&local, &remote, hosts, flow);
        let any = found(None).unwrap();
        assert_eq!((any.protocol, any.destination_port), (6, 27017));
        let exact = found(Some((6, 40000, 27017))).unwrap();
        assert_eq!((exact.source_port, exact.destination_port), (40000, 27017));
        assert!(found(Some((17, 0, 0))).is_none());
        assert!(found(Some((6, 0, 22))).is_none());
        let elsewhere = ([10, 1, 1, 13].into(), hosts.1);
        assert!(packet(&local, &remote, elsewhere, None).is_none());
    }
}
