//! SAs: made, replaced, moved, ended, refused.

use super::*;

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

#[test]
fn no_sequence_number_is_used_twice_while_an_sa_moves() {
    // Another peer's address is another state; another of ours is the same one.
    let near = Path {
        local: SocketAddr::from(([192, 0, 2, 9], 500)),
        ..path("192.0.2.2:500")
    };
    for (to, esn) in [path("198.51.100.7:500"), near]
        .into_iter()
        .flat_map(|to| [(to, true), (to, false)])
    {
        let kernel = Fake::default();
        let now = Instant::now();
        let mut core = ready(&kernel, &[net()], now);
        let mut sa = info(1, &net());
        sa.esn = esn;
        sa.limits.hard_packets = Some(1 << 20);
        up(&mut core, &sa, now);
        let outbound = |path: Path| StateId {
            destination: path.remote.ip(),
            spi: 0x2001,
        };
        kernel.carry(outbound(sa.path), 5000);
        let moved = MovedSa {
            id: sa.id,
            path: to,
            encap: false,
            nat: false,
        };
        core.move_path(moved).unwrap();
        // One state for each direction is left: each has a replay window of its own.
        assert_eq!(kernel.states().len(), 2);
        // From when its number was read, the old one can send no more than is passed over.
        assert!(kernel.limits_of_removed().contains(&(5000 + 1024)));
        let made = kernel.limit_and_number(outbound(to));
        assert_eq!(made, (1 << 20, 5000 + 1024), "{to:?} with ESN: {esn}");
    }
}

#[test]
fn the_use_of_many_sas_is_asked_for_at_once() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut core = ready(&kernel, &[net()], now);
    for n in 0..100 {
        up(&mut core, &info(n, &net()), now);
    }
    let used = StateId {
        destination: IpAddr::from([192, 0, 2, 2]),
        spi: 0x2007,
    };
    kernel.carry(used, 12);
    let unknown = ChildSaId(1000);
    let ids: Vec<_> = (0..100).map(ChildSaId).chain([unknown]).collect();
    let (requests, lists) = (kernel.requests(), kernel.lists());
    let usages = core.usages(&ids);
    assert_eq!((kernel.requests(), kernel.lists()), (requests, lists + 1));
    assert_eq!(usages.len(), 100);
    for (id, usage) in &usages {
        assert_eq!(core.usage(*id), Some(*usage));
        assert_eq!(usage.packets_out, if id.0 == 7 { 12 } else { 0 });
    }
    // A few are cheaper one by one, whatever else the kernel has.
    let some = core.usages(&[ChildSaId(7), unknown]);
    assert_eq!((kernel.lists(), some.len()), (lists + 1, 1));
    assert_eq!(some[&ChildSaId(7)].packets_out, 12);
}
