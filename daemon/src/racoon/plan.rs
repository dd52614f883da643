//! Which peer each flow is protected with, and by what: flows and `racoon.conf` together.

use std::net::IpAddr;
use std::time::Duration;

use obol_ike::proposal::EspProposal;

use super::choice::{self, Chosen};
use super::conf::{Conf, Remote};
use super::flows::{Flow, What};
use super::regions::Region;
use crate::config::generate::Level;
use crate::config::{Place, Report};

/// Boxes in all. More is a mistake: each `none` line cuts those behind it into pieces.
const MOST_BOXES: usize = 100_000;

/// What is to be protected, and what dropped.
#[derive(Debug, Default)]
pub(crate) struct Plan<'c> {
    /// Peers, each with what is protected with it.
    pub(crate) peers: Vec<Peer<'c>>,
    /// What is dropped.
    pub(crate) drops: Vec<Region>,
    /// What passes in clear.
    pub(crate) passes: Vec<Region>,
}

/// A peer, or all that have no `remote` of their own.
#[derive(Debug)]
pub(crate) struct Peer<'c> {
    /// The block for it.
    pub(crate) remote: &'c Remote,
    /// This host's address and the peer's, where policies name them.
    pub(crate) tunnel: Option<(IpAddr, IpAddr)>,
    /// What is protected.
    pub(crate) children: Vec<Protected>,
    /// What policies have that are made for the peer.
    pub(crate) generate: Option<Generate>,
}

/// What policies have that are made because a peer asks for them.
#[derive(Clone, Debug)]
pub(crate) struct Generate {
    /// How strict they are.
    pub(crate) level: Level,
    /// Algorithms.
    pub(crate) esp: EspProposal,
    /// Life of a Child SA.
    pub(crate) lifetime: Duration,
}

/// Packets that go through ESP.
#[derive(Debug)]
pub(crate) struct Protected {
    /// Which.
    pub(crate) region: Region,
    /// Algorithms.
    pub(crate) esp: EspProposal,
    /// Life of a Child SA.
    pub(crate) lifetime: Duration,
    /// Whether the first packet begins.
    pub(crate) trap: bool,
    /// Whether they pass in clear where there is no SA.
    pub(crate) clear: bool,
}

/// What happens to packets, with the peer that it happens with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Treatment {
    Pass,
    Drop,
    /// The place of the block in the configuration, the ends of a tunnel, and whether packets pass in
    /// clear where there is no SA.
    Protect(usize, Option<(IpAddr, IpAddr)>, bool),
}

/// A flow that comes before others.
struct Claim<'f> {
    region: Region,
    treatment: Treatment,
    flow: &'f Flow,
}

/// Finds the peer and the algorithms of each flow. What cannot be is reported.
pub(crate) fn plan<'c>(report: &Report<'_>, conf: &'c Conf, flows: &[Flow]) -> Plan<'c> {
    let mut plan = Plan::default();
    let mut claims: Vec<Claim<'_>> = Vec::new();
    let mut boxes = 0;
    for flow in flows {
        let sainfos = match flow.what {
            What::Protect(_) | What::Prefer(_) => sainfos(report, conf, flow),
            What::Pass | What::Drop => Vec::new(),
        };
        let pieces = treatments(report, conf, flow);
        let first = claims.len();
        for (region, treatment) in pieces {
            let left = left_of(report, &claims[..first], flow, region, treatment);
            boxes += left.len() * sainfos.len().max(1);
            if boxes > MOST_BOXES {
                too_many(report, flow);
                return plan;
            }
            for region in left {
                plan.add(conf, flow, region, treatment, &sainfos);
            }
            claims.push(Claim {
                region,
                treatment,
                flow,
            });
        }
    }
    plan.generate(report, conf);
    if !flows.is_empty() {
        choice::tell_unused(report, conf, flows);
    }
    plan
}

/// What flows keep from passing in clear, whoever the peers are. What cannot be is reported.
pub(crate) fn closed(report: &Report<'_>, flows: &[Flow]) -> Vec<Region> {
    let mut claims: Vec<Claim<'_>> = Vec::new();
    let mut closed = Vec::new();
    for flow in flows {
        let region = Region {
            local: flow.local,
            remote: flow.remote,
        };
        let treatment = match flow.what {
            What::Pass => Treatment::Pass,
            What::Protect(_) | What::Drop => Treatment::Drop,
            // With whom does not matter here.
            What::Prefer(tunnel) => Treatment::Protect(0, tunnel, true),
        };
        let left = left_of(report, &claims, flow, region, treatment);
        if treatment == Treatment::Drop {
            closed.extend(left);
        }
        if closed.len() > MOST_BOXES {
            too_many(report, flow);
            return closed;
        }
        claims.push(Claim {
            region,
            treatment,
            flow,
        });
    }
    closed
}

fn too_many(report: &Report<'_>, flow: &Flow) {
    report.error(
        place(flow),
        "the policies cut each other into too many pieces",
        "write fewer of them",
    );
}

/// Where a flow was written.
fn place(flow: &Flow) -> &Place {
    static NOWHERE: Place = Place {
        source: 0,
        span: 0..0,
    };
    let line = flow.out.as_ref().or(flow.inward.as_ref());
    line.map_or(&NOWHERE, |(_, place)| place)
}

/// The boxes of a flow by the peer that they are protected with.
fn treatments(report: &Report<'_>, conf: &Conf, flow: &Flow) -> Vec<(Region, Treatment)> {
    let whole = Region {
        local: flow.local,
        remote: flow.remote,
    };
    let none = |region| {
        let (what, treatment) = match flow.what {
            What::Prefer(_) => ("pass in clear", Treatment::Pass),
            _ => ("are dropped", Treatment::Drop),
        };
        report.warn(
            place(flow),
            format!("no remote configuration found for these packets: they {what}"),
            "add remote anonymous { ... }, or one for the peer, to racoon.conf",
        );
        (region, treatment)
    };
    let index = |remote: &Remote| {
        conf.remotes
            .iter()
            .position(|other| std::ptr::eq(other, remote))
    };
    let clear = matches!(flow.what, What::Prefer(_));
    match flow.what {
        What::Pass => vec![(whole, Treatment::Pass)],
        What::Drop => vec![(whole, Treatment::Drop)],
        What::Protect(Some(ends)) | What::Prefer(Some(ends)) => {
            match conf.remote_for(ends.1).and_then(index) {
                Some(at) => vec![(whole, Treatment::Protect(at, Some(ends), clear))],
                None => vec![none(whole)],
            }
        }
        What::Protect(None) | What::Prefer(None) => {
            let mut found = Vec::new();
            let mut rest = vec![whole];
            for (at, remote) in conf.remotes.iter().enumerate() {
                let Some(peer) = remote.peer() else {
                    continue;
                };
                let only = Region {
                    local: whole.local,
                    remote: obol_ike::ts::TrafficSelector::host(peer),
                };
                if let Some(common) = whole.overlap(&only) {
                    found.push((common, Treatment::Protect(at, None, clear)));
                    let cut = |region: &Region| region.without(&common).unwrap_or_default();
                    rest = rest.iter().flat_map(cut).collect();
                }
            }
            let anonymous = conf.anonymous().and_then(index);
            for region in rest {
                found.push(match anonymous {
                    Some(at) => (region, Treatment::Protect(at, None, clear)),
                    None => none(region),
                });
            }
            found
        }
    }
}

/// What is left of a box where others come first that do something else.
fn left_of(
    report: &Report<'_>,
    claims: &[Claim<'_>],
    flow: &Flow,
    region: Region,
    treatment: Treatment,
) -> Vec<Region> {
    let mut left = vec![region];
    for claim in claims {
        if claim.treatment == treatment || claim.region.overlap(&region).is_none() {
            continue;
        }
        if !same_order(report, claim, flow) {
            return Vec::new();
        }
        // What passes anyway needs nothing cut out of it.
        if treatment == Treatment::Pass {
            continue;
        }
        let mut rest = Vec::new();
        for piece in &left {
            match piece.without(&claim.region) {
                Ok(pieces) => rest.extend(pieces),
                Err(_) => {
                    report.clash(
                        place(flow),
                        place(claim.flow),
                        "packets of another policy come before these, and what is left is all protocols but one",
                        "write this policy with protocols, like tcp, udp and icmp, in place of any",
                    );
                    return Vec::new();
                }
            }
            if rest.len() > MOST_BOXES {
                return rest;
            }
        }
        left = rest;
    }
    left
}

/// Whether a policy comes before another one in both directions.
fn same_order(report: &Report<'_>, first: &Claim<'_>, second: &Flow) -> bool {
    let one_way = first.treatment == Treatment::Pass
        && (first.flow.out.is_none() || first.flow.inward.is_none());
    let turned = match (&first.flow.inward, &second.inward) {
        (Some((first, _)), Some((second, _))) => first > second,
        _ => false,
    };
    let message = if one_way {
        "a policy before this one lets these packets pass in one direction alone"
    } else if turned {
        "of these two policies, one comes first for packets to this host, and the other for packets from it"
    } else {
        return true;
    };
    report.clash(
        place(second),
        place(first.flow),
        message,
        "obol treats both directions alike: write the lines for both directions, in the same order",
    );
    false
}

/// The blocks for the packets of a flow.
fn sainfos<'c>(report: &Report<'_>, conf: &'c Conf, flow: &Flow) -> Vec<Chosen<'c>> {
    choice::choose(conf, flow).unwrap_or_else(|some| {
        if !conf.broken {
            report.error(
                place(flow),
                "failed to get sainfo: no sainfo of racoon.conf is about this policy",
                "add sainfo anonymous { ... } to racoon.conf",
            );
        }
        some
    })
}

impl<'c> Plan<'c> {
    fn add(
        &mut self,
        conf: &'c Conf,
        flow: &Flow,
        region: Region,
        treatment: Treatment,
        sainfos: &[Chosen<'c>],
    ) {
        let (at, tunnel, clear) = match treatment {
            Treatment::Pass => {
                self.passes.push(region);
                return;
            }
            Treatment::Drop => {
                self.drops.push(region);
                return;
            }
            Treatment::Protect(at, tunnel, clear) => (at, tunnel, clear),
        };
        let Some(remote) = conf.remotes.get(at) else {
            return;
        };
        let children = sainfos.iter().filter_map(|(about, sainfo)| {
            Some(Protected {
                region: region.overlap(about)?,
                esp: sainfo.esp.clone(),
                lifetime: sainfo.lifetime,
                trap: flow.out.is_some() && !remote.passive,
                clear,
            })
        });
        let same =
            |peer: &&mut Peer<'c>| std::ptr::eq(peer.remote, remote) && peer.tunnel == tunnel;
        match self.peers.iter_mut().find(same) {
            Some(peer) => peer.children.extend(children),
            None => self.peers.push(Peer {
                remote,
                tunnel,
                children: children.collect(),
                generate: None,
            }),
        }
    }

    /// Whether policies are made for any peer.
    pub(crate) fn generates(&self) -> bool {
        self.peers.iter().any(|peer| peer.generate.is_some())
    }

    /// Peers for which policies are made need no others.
    fn generate(&mut self, report: &Report<'_>, conf: &'c Conf) {
        for remote in &conf.remotes {
            let Some(level) = remote.generate else {
                continue;
            };
            let mut sainfos = conf.sainfos.iter();
            let any = sainfos.find(|sainfo| (sainfo.local, sainfo.remote) == (None, None));
            let Some(sainfo) = any else {
                if !conf.broken {
                    report.error(
                        &remote.place,
                        "failed to get sainfo: generate_policy needs the one for all",
                        "add sainfo anonymous { ... } to racoon.conf",
                    );
                }
                continue;
            };
            let generate = Generate {
                level,
                esp: sainfo.esp.clone(),
                lifetime: sainfo.lifetime,
            };
            let is_of = |peer: &&mut Peer<'c>| std::ptr::eq(peer.remote, remote);
            let mut found = false;
            for peer in self.peers.iter_mut().filter(is_of) {
                peer.generate = Some(generate.clone());
                found = true;
            }
            if !found {
                self.peers.push(Peer {
                    remote,
                    tunnel: None,
                    children: Vec::new(),
                    generate: Some(generate),
                });
            }
        }
    }
}
