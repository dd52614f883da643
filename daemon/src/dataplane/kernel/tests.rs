//! The data plane on a kernel that is not there: it counts requests, and refuses where it is told.

mod cleartext;
mod cost;
mod fake;
mod offload;
mod options;
mod others;
mod passes;
mod policies;
mod restart;
mod sas;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use obol_ike::config::{Mode, Path};
use obol_ike::crypto::secret::Secret;
use obol_ike::event::{
    ChildSaId, ChildSaInfo, EspKeys, EspSpi, IkeSaId, InboundSa, Limits, MovedSa, OutboundSa,
    PacketFlow,
};
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::{EncrId, IntegId};

use super::core::Core;
use super::purge::{protects, purge, remove_all};
use crate::dataplane::{DRAIN, DataPlaneEvent, KernelOptions, Policy};
use crate::host::HostSettings;
use crate::host::netns::Netns;
use crate::host::prefix::Prefix;
use crate::host::xfrm::{self, Direction, Key, Notice, Rule, Socket, StateId, Xfrm};
use fake::Fake;

const SECOND: Duration = Duration::from_secs(1);

fn ts(text: &str) -> Vec<TrafficSelector> {
    text.split(' ').map(|one| one.parse().unwrap()).collect()
}

fn policy(child: &str, local: &str, remote: &str) -> Policy {
    Policy {
        connection: "hosts".into(),
        child: child.into(),
        mode: Mode::Tunnel,
        local_ts: ts(local),
        remote_ts: ts(remote),
        trap: true,
        pass: false,
        narrower: false,
        clear: Default::default(),
        kernel: KernelOptions::default(),
    }
}

fn net() -> Policy {
    policy("net", "10.1.0.0/16", "10.2.0.0/16")
}

fn core(kernel: &Fake) -> Core<Fake> {
    Core::new(kernel.clone(), HostSettings::for_tests()).unwrap()
}

fn ready(kernel: &Fake, policies: &[Policy], now: Instant) -> Core<Fake> {
    let mut core = core(kernel);
    core.set_policies(policies.to_vec(), now).unwrap();
    core
}

fn path(remote: &str) -> Path {
    Path {
        local: SocketAddr::from(([192, 0, 2, 1], 500)),
        remote: remote.parse().unwrap(),
    }
}

fn info(id: u64, policy: &Policy) -> ChildSaInfo {
    ChildSaInfo {
        id: ChildSaId(id),
        ike: IkeSaId(1),
        connection: policy.connection.clone(),
        child: policy.child.clone(),
        mode: policy.mode,
        spi_in: EspSpi(0x1000 + id as u32),
        spi_out: EspSpi(0x2000 + id as u32),
        local_ts: policy.local_ts.clone(),
        remote_ts: policy.remote_ts.clone(),
        encr: EncrId::AES_GCM_16,
        encr_key_bits: 256,
        integ: IntegId::NONE,
        ke: None,
        esn: true,
        path: path("192.0.2.2:500"),
        encap: false,
        nat: false,
        replaces: None,
        queue: 0,
        limits: Limits::default(),
    }
}

fn keys() -> EspKeys {
    EspKeys {
        encr: Secret::new(vec![7; 36]),
        integ: Secret::new(Vec::new()),
    }
}

fn install(core: &mut Core<impl Xfrm>, info: &ChildSaInfo) {
    let (info, keys) = (info.clone(), keys());
    core.add_inbound(&InboundSa { info, keys }).unwrap();
}

fn send(core: &mut Core<impl Xfrm>, info: &ChildSaInfo, now: Instant) {
    let (info, keys) = (info.clone(), keys());
    core.use_outbound(&OutboundSa { info, keys }, now).unwrap();
}

fn up(core: &mut Core<impl Xfrm>, info: &ChildSaInfo, now: Instant) {
    install(core, info);
    send(core, info, now);
}

/// The request ID that packets from the local to the remote network must use.
fn leads_to(kernel: &Fake, direction: Direction) -> u32 {
    let found = kernel.policies();
    let mut rules = found.iter().filter(|(key, _)| key.direction == direction);
    rules.next().unwrap().1.template.unwrap().reqid
}
