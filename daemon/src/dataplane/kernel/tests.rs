//! The data plane on a kernel that is not there: it counts requests, and refuses where it is told.

mod fake;

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
use crate::dataplane::{DRAIN, DataPlaneEvent, Policy};
use crate::host::HostSettings;
use crate::host::netns::Netns;
use crate::host::prefix::Prefix;
use crate::host::xfrm::{self, Direction, Key, Notice, Rule, Socket, StateId, Xfrm as _};
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

fn install(core: &mut Core<Fake>, info: &ChildSaInfo) {
    let (info, keys) = (info.clone(), keys());
    core.add_inbound(&InboundSa { info, keys }).unwrap();
}

fn send(core: &mut Core<Fake>, info: &ChildSaInfo, now: Instant) {
    let (info, keys) = (info.clone(), keys());
    core.use_outbound(&OutboundSa { info, keys }, now).unwrap();
}

fn up(core: &mut Core<Fake>, info: &ChildSaInfo, now: Instant) {
    install(core, info);
    send(core, info, now);
}

/// The request ID that packets from the local to the remote network must use.
fn leads_to(kernel: &Fake, direction: Direction) -> u32 {
    let found = kernel.policies();
    let mut rules = found.iter().filter(|(key, _)| key.direction == direction);
    rules.next().unwrap().1.template.unwrap().reqid
}

#[test]
fn policies_protect_before_there_is_an_sa() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut core = core(&kernel);
    let blocked = Policy {
        trap: false,
        ..policy("blocked", "10.1.0.0/16", "10.3.0.0/16")
    };
    let hosts = Policy {
        mode: Mode::Transport,
        ..policy("hosts", "fd09::1", "fd09::2")
    };
    let all = vec![net(), blocked, hosts];
    core.set_policies(all.clone(), now).unwrap();
    let installed = kernel.policies();
    assert_eq!(installed.len(), 3 + 3 + 2 + 10);
    for (key, rule) in &installed {
        let ndp = key.selector.protocol == 58;
        assert_eq!(rule.template.is_none(), ndp, "{key:?}");
        let blocks = key.selector.source.address == IpAddr::from([10, 3, 0, 0])
            || key.selector.destination.address == IpAddr::from([10, 3, 0, 0]);
        assert_eq!(rule.block, blocks, "{key:?}");
    }
    let requests = kernel.requests();
    core.set_policies(all.clone(), now).unwrap();
    assert_eq!(kernel.requests(), requests, "nothing has changed");
    core.set_policies(all[1..].to_vec(), now).unwrap();
    assert_eq!(kernel.requests(), requests + 3, "one tunnel is gone");
    core.set_policies(Vec::new(), now).unwrap();
    assert!(kernel.policies().is_empty());
}

#[test]
fn a_rekey_touches_no_policy_but_has_the_kernel_look_again() {
    let kernel = Fake::default();
    let mut now = Instant::now();
    let mut core = ready(&kernel, &[net()], now);
    let asks = leads_to(&kernel, Direction::Out);
    let old = info(1, &net());
    up(&mut core, &old, now);
    let reqid = leads_to(&kernel, Direction::Out);
    assert_ne!(reqid, asks);
    assert!(kernel.states().iter().all(|state| state.reqid == reqid));
    let installed = kernel.policies();
    let requests = kernel.requests();
    let new = ChildSaInfo {
        replaces: Some(old.id),
        ..info(2, &net())
    };
    up(&mut core, &new, now);
    // Two states, and the outbound policy written again.
    assert_eq!(kernel.requests(), requests + 3);
    assert_eq!(kernel.policies(), installed);
    core.remove(old.id, now).unwrap();
    assert_eq!(kernel.policies(), installed);
    let inbound = StateId {
        destination: IpAddr::from([192, 0, 2, 1]),
        spi: 0x1001,
    };
    let has = |id: StateId| kernel.states().iter().any(|state| state.id == id);
    assert_eq!((kernel.states().len(), has(inbound)), (3, true), "it wanes");
    now += DRAIN;
    assert_eq!(core.next_due(), Some(now));
    core.due(now);
    assert_eq!((kernel.states().len(), has(inbound)), (2, false));
    core.remove(new.id, now).unwrap();
    assert!(kernel.states().is_empty(), "no successor: it ends at once");
    assert_eq!(leads_to(&kernel, Direction::Out), asks);
}

#[test]
fn whatever_the_kernel_refuses_nothing_is_half_installed() {
    let now = Instant::now();
    let info = info(
        1,
        &policy("net", "10.1.0.0/16 fd01::/64", "10.2.0.0/16 fd02::/64"),
    );
    let policies = [policy(
        "net",
        "10.1.0.0/16 fd01::/64",
        "10.2.0.0/16 fd02::/64",
    )];
    let mut refused = [0; 3];
    for at in 1.. {
        let kernel = Fake::default();
        let mut core = core(&kernel);
        kernel.refuse(at, libc::ENOBUFS);
        let mut before = kernel.contents();
        if core.set_policies(policies.to_vec(), now).is_err() {
            assert_eq!(kernel.contents(), before, "policies, request {at}");
            refused[0] += 1;
            continue;
        }
        before = kernel.contents();
        let sa = InboundSa {
            info: info.clone(),
            keys: keys(),
        };
        if core.add_inbound(&sa).is_err() {
            assert_eq!(kernel.contents(), before, "inbound, request {at}");
            refused[1] += 1;
            continue;
        }
        let sa = OutboundSa {
            info: info.clone(),
            keys: keys(),
        };
        if core.use_outbound(&sa, now).is_err() {
            assert_eq!(kernel.contents(), before, "outbound, request {at}");
            refused[2] += 1;
            continue;
        }
        break;
    }
    assert_eq!(refused, [6 + 10, 1 + 4, 1 + 2]);
}

#[test]
fn what_the_kernel_lacks_is_named() {
    let kernel = Fake::default();
    let mut core = ready(&kernel, &[net()], Instant::now());
    for (number, text) in [
        (libc::EPROTONOSUPPORT, "modprobe esp4"),
        (libc::ENOSYS, "modprobe -a gcm seqiv"),
        (libc::EEXIST, "the SPI is in use"),
    ] {
        kernel.refuse(kernel.requests() + 1, number);
        let sa = InboundSa {
            info: info(1, &net()),
            keys: keys(),
        };
        let error = core.add_inbound(&sa).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn what_others_remove_is_noticed() {
    let kernel = Fake::default();
    let mut now = Instant::now();
    let mut core = ready(&kernel, &[net()], now);
    let sa = info(1, &net());
    up(&mut core, &sa, now);
    let installed = kernel.policies();
    kernel.flush_policies();
    core.notice(Notice::PoliciesChanged, now);
    now = core.next_due().unwrap();
    core.due(now);
    assert_eq!(kernel.policies(), installed);
    kernel.flush_states();
    core.notice(Notice::StatesGone, now);
    now = core.next_due().unwrap();
    core.due(now);
    assert!(
        core.events
            .iter()
            .all(|event| matches!(event, DataPlaneEvent::HardExpired(id) if *id == sa.id))
    );
    assert_eq!(core.events.len(), 2);
    core.remove(sa.id, now).unwrap();
    assert_eq!(core.next_due(), None);
    // A packet of now asks for another one.
    assert_ne!(kernel.policies(), installed);
}

#[test]
fn a_packet_without_sa_asks_and_asks_again_a_second_later() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut core = ready(&kernel, &[net()], now);
    let flow = PacketFlow {
        protocol: 6,
        source: IpAddr::from([10, 1, 0, 1]),
        destination: IpAddr::from([10, 2, 0, 1]),
        source_port: 0,
        destination_port: 0,
    };
    let reqid = leads_to(&kernel, Direction::Out);
    core.notice(Notice::Acquire { reqid, flow }, now);
    let event = core.events.pop_front();
    assert!(
        matches!(&event, Some(DataPlaneEvent::Acquire { child, flow: told, .. }) if child == "net" && *told == flow),
        "{event:?}"
    );
    assert_eq!(core.next_due(), Some(now + SECOND));
    core.due(now + SECOND);
    let again = leads_to(&kernel, Direction::Out);
    assert_ne!(again, reqid);
    core.notice(Notice::Acquire { reqid: again, flow }, now + SECOND);
    assert_eq!(core.events.len(), 1);
    // A policy that an SA has taken leads to it still.
    let sa = info(1, &net());
    up(&mut core, &sa, now);
    let taken = leads_to(&kernel, Direction::Out);
    core.due(now + 2 * SECOND);
    assert_eq!(leads_to(&kernel, Direction::Out), taken);
}

#[test]
fn the_next_run_keeps_the_sas_until_new_ones_stand() {
    let kernel = Fake::default();
    let mut now = Instant::now();
    let gone = policy("gone", "10.1.0.0/16", "10.9.0.0/16");
    let mut first = ready(&kernel, &[net(), gone.clone()], now);
    up(&mut first, &info(1, &net()), now);
    up(&mut first, &info(2, &gone), now);
    drop(first);

    let reqid = kernel
        .states()
        .iter()
        .find(|s| s.id.spi == 0x1001)
        .unwrap()
        .reqid;
    let mut second = ready(&kernel, &[net()], now);
    second.due(now);
    assert_eq!(
        kernel.states().len(),
        2,
        "what is not configured any more goes"
    );
    assert_eq!(leads_to(&kernel, Direction::Out), reqid);
    let new = ChildSaInfo {
        spi_in: EspSpi(0x3001),
        spi_out: EspSpi(0x4001),
        ..info(1, &net())
    };
    up(&mut second, &new, now);
    assert_eq!(
        leads_to(&kernel, Direction::Out),
        reqid,
        "old packets fit new policies"
    );
    assert_eq!(kernel.states().len(), 4);
    now += DRAIN;
    second.due(now);
    assert_eq!(kernel.states().len(), 2);
    second.remove(new.id, now).unwrap();
    assert_ne!(leads_to(&kernel, Direction::Out), reqid);
    second.due(now + 60 * SECOND);
    assert_eq!(kernel.states().len(), 0);
}

#[test]
fn sas_of_an_earlier_run_that_nobody_renews_end() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut first = ready(&kernel, &[net()], now);
    up(&mut first, &info(1, &net()), now);
    let mut second = ready(&kernel, &[net()], now);
    let until = second.next_due().unwrap();
    assert!(until > now + 10 * SECOND);
    second.due(until);
    assert!(kernel.states().is_empty());
    assert_eq!(kernel.policies().len(), 3);
    assert_eq!(second.next_due(), None);
}

#[test]
fn what_others_installed_is_not_touched() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut other = Core::new(
        kernel.clone(),
        HostSettings {
            fwmark: 1,
            ..HostSettings::for_tests()
        },
    )
    .unwrap();
    other.set_policies(vec![net()], now).unwrap();
    up(&mut other, &info(1, &net()), now);
    let theirs = kernel.contents();

    let mut core = core(&kernel);
    let error = core.set_policies(vec![net()], now).unwrap_err().to_string();
    assert!(
        error.contains("another program has an IPsec policy"),
        "{error}"
    );
    assert!(error.contains("10.1.0.0/16"), "{error}");
    assert_eq!(kernel.contents(), theirs);
    let own = policy("own", "10.1.0.0/16", "10.4.0.0/16");
    core.set_policies(vec![own], now).unwrap();
    let removed = remove_all(&kernel, &HostSettings::for_tests()).unwrap();
    assert_eq!((removed.policies, removed.states), (3, 0));
    assert_eq!(kernel.contents(), theirs);
}

#[test]
fn policies_of_others_that_overlap_are_told_and_not_touched() {
    let kernel = Fake::default();
    let now = Instant::now();
    let ours = net();
    let mut core = ready(&kernel, std::slice::from_ref(&ours), now);
    assert!(core.foreign.is_empty());
    let key = |destination: [u8; 4], len| {
        let found = kernel.policies();
        let mut key = *found
            .keys()
            .find(|key| key.direction == Direction::Out)
            .unwrap();
        key.selector.destination = Prefix {
            address: destination.into(),
            len,
        };
        key
    };
    let add = |key: Key, priority| {
        let rule = Rule {
            priority,
            block: false,
            template: None,
        };
        let message = xfrm::Policy { key, rule }.install(true);
        kernel.carry_out(message).unwrap();
    };
    add(key([10, 2, 3, 0], 24), 5);
    add(key([10, 0, 0, 0], 8), 1 << 30);
    add(key([10, 3, 0, 0], 16), 5);
    let contents = kernel.contents();
    core.notice(Notice::PoliciesChanged, now);
    core.due(core.next_due().unwrap());
    let first: Vec<bool> = core.foreign.iter().map(|foreign| foreign.first).collect();
    assert_eq!(first, [false, true], "10.3.0.0/16 is not ours");
    assert!(core.foreign.iter().all(|foreign| foreign.clear));
    assert_eq!(kernel.contents(), contents);
    // What is there at the start is told too, and what goes is forgotten.
    let again = ready(&kernel, &[ours], now);
    assert_eq!(again.foreign, core.foreign);
    kernel.carry_out(key([10, 2, 3, 0], 24).delete()).unwrap();
    core.look_for_foreign();
    assert_eq!(core.foreign.len(), 1);
}

#[test]
fn an_sa_that_moves_keeps_its_keys_and_its_policies_follow() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut core = ready(&kernel, &[net()], now);
    up(&mut core, &info(1, &net()), now);
    let to = path("198.51.100.7:500");
    let moved = MovedSa {
        id: ChildSaId(1),
        path: to,
        encap: false,
        nat: false,
    };
    core.move_path(moved).unwrap();
    let outbound = StateId {
        destination: to.remote.ip(),
        spi: 0x2001,
    };
    assert_eq!(kernel.states().len(), 2);
    assert!(kernel.states().iter().any(|state| state.id == outbound));
    let policies = kernel.policies();
    let out = policies
        .iter()
        .find(|(key, _)| key.direction == Direction::Out);
    let ends = out.unwrap().1.template.unwrap().ends;
    assert_eq!(ends, Some((to.local.ip(), to.remote.ip())));
    core.notice(
        Notice::Expired {
            id: outbound,
            hard: false,
        },
        now,
    );
    assert!(matches!(
        core.events.pop_front(),
        Some(DataPlaneEvent::SoftExpired(ChildSaId(1)))
    ));
}

#[test]
fn the_first_packet_is_told_and_then_the_configured_limit() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut core = ready(&kernel, &[net()], now);
    let mut sa = info(1, &net());
    sa.limits.soft_packets = Some(1000);
    up(&mut core, &sa, now);
    let id = StateId {
        destination: IpAddr::from([192, 0, 2, 1]),
        spi: 0x1001,
    };
    assert_eq!(kernel.soft_packets(id), 1);
    core.notice(Notice::Expired { id, hard: false }, now);
    assert!(matches!(
        core.events.pop_front(),
        Some(DataPlaneEvent::InboundUsed(ChildSaId(1)))
    ));
    assert_eq!(kernel.soft_packets(id), 1000);
    // What was on its way when the first packet was seen in the state itself.
    core.notice(Notice::Expired { id, hard: false }, now);
    assert!(core.events.is_empty());
    kernel.carry(id, 1000);
    core.notice(Notice::Expired { id, hard: false }, now);
    assert!(matches!(
        core.events.pop_front(),
        Some(DataPlaneEvent::SoftExpired(ChildSaId(1)))
    ));
}

#[test]
fn an_sa_costs_the_same_however_many_there_are() {
    let kernel = Fake::default();
    let now = Instant::now();
    let child = |n: u32| {
        policy(
            &format!("c{n}"),
            "10.1.0.1",
            &format!("10.2.{}.{}", n >> 8, n & 255),
        )
    };
    let policies: Vec<Policy> = (0..2000).map(child).collect();
    let mut core = ready(&kernel, &policies, now);
    let mut costs = Vec::new();
    for (n, policy) in policies.iter().enumerate() {
        let before = kernel.requests();
        up(&mut core, &info(n as u64, policy), now);
        costs.push(kernel.requests() - before);
    }
    assert!(
        costs.iter().all(|cost| *cost == 5),
        "{:?}",
        costs.iter().max()
    );
    for n in 0..2000 {
        let before = kernel.requests();
        core.remove(ChildSaId(n), now).unwrap();
        assert_eq!(
            kernel.requests() - before,
            5 + 2,
            "two questions for its use"
        );
    }
    assert!(kernel.states().is_empty());
    let keys: Vec<Key> = kernel.policies().into_keys().collect();
    assert_eq!(keys.len(), 6000);
}

/// On the kernel of this machine, which needs XFRM for it, but no ESP.
#[test]
fn a_real_kernel_keeps_policies_as_they_were_set() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: namespaces need root");
        return;
    }
    let netns = Netns::anonymous().unwrap();
    let told = netns.run(|| {
        let kernel = match Socket::open() {
            Ok(kernel) => kernel,
            Err(error) => {
                println!("skipped: this kernel has no XFRM: {error}");
                return;
            }
        };
        let settings = HostSettings::for_tests();
        let six = Policy {
            mode: Mode::Transport,
            ..policy("six", "fd09::1[tcp/27017]", "fd09::2[tcp]")
        };
        let blocked = Policy {
            trap: false,
            ..policy("blocked", "10.1.0.0/16", "10.3.0.0/16")
        };
        let all = vec![net(), six, blocked];
        let fake = Fake::default();
        ready(&fake, &all, Instant::now());
        let mut core = Core::new(kernel, settings.clone()).unwrap();
        core.set_policies(all, Instant::now()).unwrap();
        let listed = core.kernel.policies().unwrap();
        let listed: BTreeMap<_, _> = listed.iter().map(|p| (p.key, p.rule)).collect();
        assert_eq!(listed, fake.policies());
        assert!(protects(&settings).unwrap());
        assert_eq!(core.kernel.states().unwrap(), []);
        let nobody = StateId {
            destination: IpAddr::from([192, 0, 2, 1]),
            spi: 0x1000,
        };
        let refusal = core.kernel.state(nobody).unwrap_err();
        assert!(refusal.gone(), "{refusal}");
        let removed = purge(&settings).unwrap();
        assert_eq!((removed.policies, removed.states), (listed.len(), 0));
        assert!(!protects(&settings).unwrap());
    });
    told.unwrap();
}
