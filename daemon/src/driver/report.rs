//! The daemon's state as its operator reads it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use obol_ike::auth::ProvenBy;
use obol_ike::config::{Connection, StartAction};
use obol_ike::event::ChildSaId;
use obol_ike::identity::Identity;
use obol_ike::status::{ChildOutlook, ChildSaStatus, IkeAlgorithms, IkeSaStatus};
use obol_ike::wire::{EncrId, IntegId};

use super::Driver;
use crate::config::shunt::{DROP, PASS};
use crate::control::describe::{self, mode, texts};
use crate::control::protocol::{
    CarrierReport, ChildSaReport, ConnectionReport, DaemonReport, EndReport, IkeAlgorithmsReport,
    IkeSaReport, ListReport, Names, NatReport, OverviewReport, PolicyReport, PolicyState,
    ProofReport, SCHEMA_VERSION, StatusReport,
};
use crate::dataplane::{DataPlane, Policy, Usage};

impl<D: DataPlane> Driver<D> {
    /// State and configuration in short, for who asks about a name, or all.
    pub(super) fn overview_report(&self, name: Option<&str>) -> OverviewReport {
        let known = &self.loaded.pluto.names;
        let named = name.and_then(|name| known.get_key_value(name)).into_iter();
        let names = named.map(|(name, places)| (name.clone(), places.clone()));
        let is_shunt = |policy: &&Policy| [PASS, DROP].contains(&&*policy.connection);
        let policies: Vec<&Policy> = self.loaded.policies.iter().filter(is_shunt).collect();
        OverviewReport {
            status: self.status_of(&policies, names.collect()),
            list: self.list_of(describe::in_short),
        }
    }

    pub(super) fn status_report(&self) -> StatusReport {
        let policies: Vec<&Policy> = self.loaded.policies.iter().collect();
        self.status_of(&policies, self.loaded.pluto.names.clone())
    }

    fn status_of(&self, policies: &[&Policy], names: Names) -> StatusReport {
        let now = self.clock.now();
        let sas = self.endpoint.status(now);
        let outlook = self.endpoint.outlook(now);
        let children = Children::new(&sas, &outlook);
        let ids: Vec<ChildSaId> = sas
            .iter()
            .flat_map(|sa| sa.children.iter().map(|child| child.info.id))
            .collect();
        let usages = self.plane.usages(&ids);
        let ages = self.last_uses.ages(now, &sas, &usages);
        let mut drops: BTreeMap<String, u64> = self
            .dropped
            .iter()
            .map(|(reason, count)| (format!("ike_{}", snake(&format!("{reason:?}"))), *count))
            .collect();
        for (fault, count) in self.endpoint.faults() {
            *drops.entry(format!("ike_fault_{fault}")).or_default() += count;
        }
        if self.troubles.count() > 0 {
            drops.insert("icmp_errors".to_owned(), self.troubles.count());
        }
        for (reason, count) in self.plane.drops() {
            *drops.entry(reason.to_owned()).or_default() += count;
        }
        StatusReport {
            schema_version: SCHEMA_VERSION,
            daemon: DaemonReport {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_s: now.saturating_duration_since(self.started).as_secs(),
                data_plane: self.plane.name().to_owned(),
                data_plane_why: self.plane.why().to_owned(),
                asks_for_cookies: self.endpoint.asks_for_cookies(now),
                config: self.origin.to_string(),
                shows_keys: self.loaded.daemon.show_keys,
                allows: self
                    .loaded
                    .daemon
                    .allow
                    .words()
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                by_setkey: self
                    .origin
                    .racoon
                    .as_ref()
                    .is_some_and(|files| files.store.is_some()),
            },
            policies: policies
                .iter()
                .map(|p| {
                    let mut report = children.policy(p, self.plane.carrier(&p.connection).0);
                    let name = (p.connection.clone(), p.child.clone());
                    let ages = ages.get(&name).copied();
                    (report.last_in_s, report.last_out_s) = ages.unwrap_or_default();
                    report.generated = self.generated.report(now, p);
                    report
                })
                .collect(),
            ike_sas: sas.iter().map(|sa| self.ike_sa(sa, &usages)).collect(),
            names,
            not_loaded: self.loaded.pluto.not_loaded().clone(),
            drops,
        }
    }

    pub(super) fn list_report(&self) -> ListReport {
        self.list_of(describe::connection)
    }

    fn list_of(&self, describe: fn(&Connection) -> ConnectionReport) -> ListReport {
        let now = self.clock.now();
        let sas = self.endpoint.status(now);
        let outlook = self.endpoint.outlook(now);
        let children = Children::new(&sas, &outlook);
        let mut of: HashMap<&str, Vec<&IkeSaStatus>> = HashMap::new();
        for sa in &sas {
            of.entry(sa.connection.as_deref().unwrap_or_default())
                .or_default()
                .push(sa);
        }
        let connections = self.loaded.ike.connections.iter();
        let mut report = ListReport {
            schema_version: SCHEMA_VERSION,
            connections: connections
                .map(|connection| {
                    let (name, why) = self.plane.carrier(&connection.name);
                    let (name, why) = (name.to_owned(), why.to_owned());
                    ConnectionReport {
                        data_plane: Some(CarrierReport { name, why }),
                        ..list_connection(
                            describe(connection),
                            of.get(&*connection.name),
                            &children,
                        )
                    }
                })
                .collect(),
        };
        describe::cleartexts(&mut report.connections, &self.loaded.policies);
        report
    }

    fn ike_sa(&self, sa: &IkeSaStatus, usages: &HashMap<ChildSaId, Usage>) -> IkeSaReport {
        IkeSaReport {
            id: sa.id.0,
            name: sa.connection.clone().unwrap_or_default(),
            state: sa.state.to_owned(),
            role: if sa.initiator {
                "initiator"
            } else {
                "responder"
            }
            .to_owned(),
            local: end(sa.path.local, sa.local_id.as_ref()),
            remote: end(sa.path.remote, sa.remote_id.as_ref()),
            spi_i: format!("{:016x}", sa.spi_i.0),
            spi_r: format!("{:016x}", sa.spi_r.0),
            algorithms: sa.algorithms.as_ref().map(algorithms),
            proven_by: sa.proven_by.map(proof),
            crash_detection: sa.crash_detection,
            nat: NatReport {
                local: sa.nat.0,
                remote: sa.nat.1,
            },
            fragmentation: sa.fragmentation,
            mobike: sa.mobike,
            resumed: sa.resumed,
            age_s: sa.age.as_secs(),
            rekey_in_s: sa.rekey_in.map(|d| d.as_secs()),
            reauth_in_s: sa.reauth_in.map(|d| d.as_secs()),
            children: sa
                .children
                .iter()
                .map(|child| {
                    let usage = usages.get(&child.info.id).copied();
                    self.child_sa(child, usage.unwrap_or_default())
                })
                .collect(),
        }
    }

    fn child_sa(&self, child: &ChildSaStatus, usage: Usage) -> ChildSaReport {
        let info = &child.info;
        ChildSaReport {
            id: info.id.0,
            name: info.child.clone(),
            state: child.state.to_owned(),
            mode: mode(info.mode).to_owned(),
            queue: info.queue,
            spi_in: format!("{:08x}", info.spi_in.0),
            spi_out: format!("{:08x}", info.spi_out.0),
            local_ts: texts(&info.local_ts),
            remote_ts: texts(&info.remote_ts),
            encr: encr(info.encr, info.encr_key_bits),
            integ: integ(info.integ),
            ke: info.ke.map(|ke| ke.to_string()),
            esn: info.esn,
            encapsulation: if info.encap { "udp" } else { "none" }.to_owned(),
            bytes_in: usage.bytes_in,
            bytes_out: usage.bytes_out,
            packets_in: usage.packets_in,
            packets_out: usage.packets_out,
            last_in_s: usage.last_in.as_ref().map(Duration::as_secs),
            last_out_s: usage.last_out.as_ref().map(Duration::as_secs),
            data_plane: self.plane.holder(info.id).to_owned(),
            age_s: child.age.as_secs(),
            rekey_in_s: child.rekey_in.map(|d| d.as_secs()),
        }
    }
}

/// What is true of each child, by the names of its connection and its own.
struct Children<'a> {
    outlook: HashMap<(&'a str, &'a str), &'a ChildOutlook>,
    up: HashSet<(&'a str, &'a str)>,
}

impl<'a> Children<'a> {
    fn new(sas: &'a [IkeSaStatus], outlook: &'a [ChildOutlook]) -> Self {
        let children = sas.iter().flat_map(|sa| &sa.children);
        let up = children.filter(|child| child.state == "installed");
        Self {
            outlook: outlook
                .iter()
                .map(|o| ((&*o.connection, &*o.child), o))
                .collect(),
            up: up
                .map(|child| (&*child.info.connection, &*child.info.child))
                .collect(),
        }
    }

    fn state(&self, connection: &str, child: &str) -> PolicyState {
        let name = (connection, child);
        let trapped = |o: &&ChildOutlook| o.action != StartAction::None;
        match self.outlook.get(&name).is_some_and(trapped) {
            _ if self.up.contains(&name) => PolicyState::Up,
            true => PolicyState::Trapped,
            false => PolicyState::Blocked,
        }
    }

    fn policy(&self, policy: &Policy, data_plane: &str) -> PolicyReport {
        let outlook = self.outlook.get(&(&*policy.connection, &*policy.child));
        PolicyReport {
            connection: policy.connection.clone(),
            child: policy.child.clone(),
            mode: mode(policy.mode).to_owned(),
            local_ts: texts(&policy.local_ts),
            remote_ts: texts(&policy.remote_ts),
            data_plane: data_plane.to_owned(),
            failures: outlook.map_or(0, |o| o.failures),
            next_try_in_s: outlook
                .and_then(|o| o.next_try_in)
                .map(|time| time.as_secs_f64().ceil() as u64),
            state: match self.state(&policy.connection, &policy.child) {
                _ if policy.pass => PolicyState::Passing,
                PolicyState::Trapped | PolicyState::Blocked if policy.clear.now => {
                    PolicyState::Passing
                }
                state => state,
            },
            cleartext: policy.clear.when.said().map(str::to_owned),
            generated: None,
            last_in_s: None,
            last_out_s: None,
        }
    }
}

fn list_connection(
    mut report: ConnectionReport,
    sas: Option<&Vec<&IkeSaStatus>>,
    children: &Children<'_>,
) -> ConnectionReport {
    let sas = sas.map_or(&[][..], Vec::as_slice);
    let state = match sas.iter().any(|sa| sa.state != "connecting") {
        true => "up",
        false if !sas.is_empty() => "connecting",
        false => "down",
    };
    report.state = Some(state.to_owned());
    for child in &mut report.children {
        child.state = Some(children.state(&report.name, &child.name));
    }
    report
}

fn end(socket: std::net::SocketAddr, id: Option<&Identity>) -> EndReport {
    EndReport {
        addr: socket.ip().to_string(),
        port: socket.port(),
        id: id.map(ToString::to_string),
    }
}

/// Algorithms by the names of proposals.
pub(super) fn algorithms(chosen: &IkeAlgorithms) -> IkeAlgorithmsReport {
    IkeAlgorithmsReport {
        encr: encr(chosen.encr.id, chosen.encr.key_bits),
        integ: integ(chosen.integ),
        prf: chosen.prf.to_string(),
        ke: chosen.ke.to_string(),
    }
}

fn proof(by: ProvenBy) -> ProofReport {
    let (by, key_bits) = match by {
        ProvenBy::Secret => ("psk", None),
        ProvenBy::Ticket => ("ticket", None),
        ProvenBy::Signature { scheme, key_bits } => (scheme.word(), Some(key_bits)),
    };
    let by = by.to_owned();
    ProofReport { by, key_bits }
}

fn encr(id: EncrId, key_bits: u16) -> String {
    match id {
        EncrId::CHACHA20_POLY1305 | EncrId::DES3 => id.to_string(),
        _ => format!("{id}-{key_bits}"),
    }
}

fn integ(id: IntegId) -> Option<String> {
    (id != IntegId::NONE).then(|| id.to_string())
}

/// `HalfOpenLimit` as `half_open_limit`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (at, c) in name.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
