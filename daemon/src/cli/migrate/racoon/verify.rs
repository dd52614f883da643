//! Whether the move is done: obol runs, its policies are those of the files, and with each peer that is
//! known there is an SA for each policy.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use obol_ike::config::{Child, Connection, Mode, StartAction};
use obol_ike::ts::TrafficSelector;

use super::running;
use crate::cli::args::MigrateArgs;
use crate::cli::{ask, print_line};
use crate::control::describe::texts;
use crate::control::protocol::{ChildReport, IkeSaReport, Request, StatusReport};
use crate::error::{ExitClass, Failure};
use crate::host;
use crate::racoon::Native;

/// How often the daemon is asked what is up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A port of ours where a policy takes any, so that the packet is about no other policy.
const ANY_PORT: u16 = 61_001;
/// As good a protocol as any, where a policy is about all.
const UDP: u8 = 17;
/// What a peer's SPI is before it has answered.
const NO_SPI: &str = "0000000000000000";

/// Prints a line for each policy, and for each policy with each peer.
///
/// # Errors
/// racoon runs, or obol does not; a policy is missing, a peer does not answer, or has no SA with us.
pub(super) fn verify(
    runtime_dir: &Path,
    args: &MigrateArgs,
    native: &Native,
) -> Result<(), Failure> {
    if let Some(pid) = running() {
        let text = format!(
            "racoon runs on this node (pid {pid}), so it has not moved: systemctl disable --now racoon.service"
        );
        return Err(Failure::new(ExitClass::Failed, text));
    }
    let mut verifier = Verifier {
        runtime_dir,
        timeout: args.timeout,
        worst: None,
    };
    let status = verifier.status()?;
    verifier.policies(native, &status)?;
    let mut peers = 0;
    for connection in &native.loaded.ike.connections {
        for peer in peers_of(connection, args, &status) {
            peers += 1;
            for child in &connection.children {
                verifier.child(native, connection, child, peer)?;
            }
        }
    }
    verifier.strangers(native, args)?;
    if peers == 0 {
        print_line("no peer was asked, for the files name none: name some with --peer ADDRESS")?;
    }
    match verifier.worst {
        None => print_line("all of this is as it is to be"),
        Some(class) => Err(Failure::new(
            class,
            "the move is not done: see the lines above",
        )),
    }
}

/// The peers that are asked: those that the connection names, else those of the command line and those
/// that there are SAs with.
fn peers_of(
    connection: &Connection,
    args: &MigrateArgs,
    status: &StatusReport,
) -> BTreeSet<IpAddr> {
    if !connection.remote_addrs.is_empty() {
        return connection.remote_addrs.iter().copied().collect();
    }
    let stands = |sa: &&IkeSaReport| sa.name == connection.name && sa.state == "established";
    let up = status.ike_sas.iter().filter(stands);
    let up = up.filter_map(|sa| sa.remote.addr.parse().ok());
    let is_meant = |peer: &IpAddr| {
        let mut remote = connection.children.iter().flat_map(|own| &own.remote_ts);
        remote.any(|ts| ts.contains_address(*peer))
    };
    let named = args.peer.iter().copied();
    named.chain(up).filter(is_meant).collect()
}

struct Verifier<'v> {
    runtime_dir: &'v Path,
    timeout: Duration,
    /// What was found worst so far.
    worst: Option<ExitClass>,
}

impl Verifier<'_> {
    fn status(&self) -> Result<StatusReport, Failure> {
        self.ask(&Request::Status)
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        ask(self.runtime_dir, request, |_| ())?.read()
    }

    /// A missing policy is worse than a peer that does not answer, and that worse than one without SA.
    fn found(&mut self, class: ExitClass) {
        let rank = |class: ExitClass| match class {
            ExitClass::Failed => 2,
            ExitClass::NoAnswer => 1,
            _ => 0,
        };
        let before = self.worst.map(rank);
        if Some(rank(class)) > before {
            self.worst = Some(class);
        }
    }

    fn policies(&mut self, native: &Native, status: &StatusReport) -> Result<(), Failure> {
        for policy in &native.loaded.policies {
            let sides = (texts(&policy.local_ts), texts(&policy.remote_ts));
            let stands = status.policies.iter().any(|there| {
                (&there.connection, &there.child) == (&policy.connection, &policy.child)
                    && (&there.local_ts, &there.remote_ts) == (&sides.0, &sides.1)
            });
            let what = format!("{} ... {}", sides.0.join(","), sides.1.join(","));
            if stands {
                print_line(&format!("policy {}: {what} stands", policy.child))?;
                continue;
            }
            print_line(&format!(
                "policy {}: {what} is missing: the daemon runs with other files, or was not told: obol setkey --service restart",
                policy.child
            ))?;
            self.found(ExitClass::Failed);
        }
        Ok(())
    }

    /// Peers of the command line that no policy is about.
    fn strangers(&mut self, native: &Native, args: &MigrateArgs) -> Result<(), Failure> {
        let connections = &native.loaded.ike.connections;
        for peer in &args.peer {
            let is_known = connections.iter().any(|connection| {
                let mut remote = connection.children.iter().flat_map(|own| &own.remote_ts);
                connection.remote_addrs.contains(peer)
                    || remote.any(|ts| ts.contains_address(*peer))
            });
            if !is_known {
                print_line(&format!("{peer}: no policy is about it"))?;
                self.found(ExitClass::Failed);
            }
        }
        Ok(())
    }

    fn child(
        &mut self,
        native: &Native,
        connection: &Connection,
        child: &Child,
        peer: IpAddr,
    ) -> Result<(), Failure> {
        let own = host::source_for(peer, native.loaded.daemon.fwmark).ok();
        let own = own.or(connection.local_addrs.first().copied());
        let Some(packet) = Packet::of(child, own, peer) else {
            return Ok(());
        };
        let said = match child.start_action {
            StartAction::None => self.waited_for(&packet, peer)?,
            _ => self.met(&packet, peer)?,
        };
        print_line(&format!("{peer}: {}: {said}", child.name))
    }

    /// Asks for an SA as a packet would, and waits for it.
    fn met(&mut self, packet: &Packet, peer: IpAddr) -> Result<String, Failure> {
        let request = Request::Establish {
            source: packet.source.0,
            destination: packet.destination.0,
            flow: packet
                .protocol
                .map(|protocol| (protocol, packet.source.1, packet.destination.1)),
        };
        let asked: Result<ChildReport, Failure> = self.ask(&request);
        match asked {
            // The daemon has no such policy, which was said.
            Err(failure) if failure.code == ExitClass::Config => {
                self.found(ExitClass::Failed);
                return Ok(failure.message);
            }
            asked => asked?,
        };
        let until = Instant::now() + self.timeout;
        let mut answered = false;
        loop {
            let status = self.status()?;
            let sas: Vec<_> = of(&status, peer).collect();
            if packet.is_carried(&sas) {
                return Ok("an SA is up".to_owned());
            }
            answered |= sas.iter().any(|sa| sa.spi_r != NO_SPI);
            if Instant::now() > until {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let limit = self.timeout;
        if answered {
            self.found(ExitClass::Refused);
            return Ok(format!(
                "it answers by IKEv2, and there is no SA for this after {limit:?}: the logs of both nodes say why"
            ));
        }
        self.found(ExitClass::NoAnswer);
        Ok(format!(
            "no answer by IKEv2 within {limit:?}: it has not moved, UDP 500 is blocked, or its secret is another one (see the log)"
        ))
    }

    /// Where we never begin (`passive on`), it is for the peer to.
    fn waited_for(&mut self, packet: &Packet, peer: IpAddr) -> Result<String, Failure> {
        let status = self.status()?;
        let sas: Vec<_> = of(&status, peer).collect();
        Ok(match packet.is_carried(&sas) {
            true => "an SA is up",
            false => "no SA yet: with passive on, it is for the peer to begin",
        }
        .to_owned())
    }
}

/// IKE SAs with a peer.
fn of(status: &StatusReport, peer: IpAddr) -> impl Iterator<Item = &IkeSaReport> {
    let with = move |sa: &&IkeSaReport| sa.remote.addr.parse() == Ok(peer);
    status.ike_sas.iter().filter(with)
}

/// A packet that a policy is about.
struct Packet {
    /// `None`: any.
    protocol: Option<u8>,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
}

impl Packet {
    /// One from `own`, if the policy is about it, to the peer, or by it. `None`: no packets go there.
    fn of(child: &Child, own: Option<IpAddr>, peer: IpAddr) -> Option<Self> {
        let to_peer = |remote: &&TrafficSelector| remote.contains_address(peer);
        let remote = match child.mode {
            Mode::Transport => child.remote_ts.iter().find(to_peer)?,
            Mode::Tunnel => child.remote_ts.first()?,
        };
        let same_family =
            |local: &&TrafficSelector| local.start.is_ipv4() == remote.start.is_ipv4();
        let local = child.local_ts.iter().find(same_family)?;
        let source = own.filter(|own| local.contains_address(*own));
        let destination = Some(peer).filter(|peer| remote.contains_address(*peer));
        Some(Self {
            protocol: Some(local.protocol).filter(|protocol| *protocol != 0),
            source: (source.unwrap_or(local.start), port(local)),
            destination: (destination.unwrap_or(remote.start), port(remote)),
        })
    }

    /// Whether one of the SAs that are up carries it.
    fn is_carried(&self, sas: &[&IkeSaReport]) -> bool {
        let is_in = |selectors: &[String], (address, port)| {
            let mut parsed = selectors.iter().filter_map(|text| text.parse().ok());
            parsed.any(|ts: TrafficSelector| {
                ts.matches(self.protocol.unwrap_or(UDP), address, Some(port))
            })
        };
        let mut children = sas.iter().flat_map(|sa| &sa.children);
        children.any(|up| {
            up.state == "installed"
                && is_in(&up.local_ts, self.source)
                && is_in(&up.remote_ts, self.destination)
        })
    }
}

/// A port of a packet that a selector carries.
fn port(ts: &TrafficSelector) -> u16 {
    match (ts.start_port..=ts.end_port).contains(&ANY_PORT) {
        true => ANY_PORT,
        false => ts.start_port,
    }
}
