//! Policies of the configuration, and the packets that meet them.

use super::*;

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

/// Policies one by one come to what all of them at once do, with no more requests than those for what is new.
#[test]
fn policies_are_added_to_those_that_are_there() {
    let now = Instant::now();
    let other = |child: &str, n: u8| policy(child, "10.1.0.0/16", &format!("10.{n}.0.0/16"));
    let kernel = Fake::default();
    let mut core = ready(
        &kernel,
        &[net(), policy("six", "fd01::/64", "fd02::/64")],
        now,
    );
    let requests = kernel.requests();
    assert!(core.add_policies(&[other("three", 3)]).unwrap());
    assert!(
        core.add_policies(&[policy("seven", "fd01::/64", "fd03::/64")])
            .unwrap()
    );
    assert_eq!(kernel.requests(), requests + 6);
    let all = [
        net(),
        policy("six", "fd01::/64", "fd02::/64"),
        other("three", 3),
        policy("seven", "fd01::/64", "fd03::/64"),
    ];
    let at_once = Fake::default();
    ready(&at_once, &all, now);
    assert_eq!(kernel.policies(), at_once.policies());
    core.set_policies(all.to_vec(), now).unwrap();
    assert_eq!(kernel.requests(), requests + 6, "nothing has changed");
    // An SA of one takes the place of its policy, and gives it back.
    let before = kernel.policies();
    let info = info(7, &all[2]);
    up(&mut core, &info, now);
    assert_ne!(kernel.policies(), before);
    core.remove(info.id, now).unwrap();
    assert_eq!(kernel.policies(), before);
}

#[test]
fn policies_that_others_have_to_do_with_are_not_just_added() {
    let now = Instant::now();
    let kernel = Fake::default();
    let mut core = ready(&kernel, &[net()], now);
    let before = kernel.policies();
    let passes = Policy {
        pass: true,
        ..policy("passes", "10.1.0.0/16", "10.3.0.0/16")
    };
    // The first of IPv6 would catch neighbour discovery.
    for more in [passes, policy("six", "fd01::/64", "fd02::/64"), net()] {
        assert!(!core.add_policies(&[more]).unwrap());
    }
    assert_eq!(kernel.policies(), before);
    // What an earlier run left is sorted with all of them.
    let mut again = ready(&kernel, &[net()], now);
    let info = info(1, &net());
    up(&mut again, &info, now);
    let mut next = ready(&kernel, &[net()], now);
    assert!(
        !next
            .add_policies(&[policy("three", "10.1.0.0/16", "10.3.0.0/16")])
            .unwrap()
    );
}

#[test]
fn a_policy_that_the_kernel_refuses_leaves_nothing() {
    let now = Instant::now();
    let three = policy("three", "10.1.0.0/16", "10.3.0.0/16");
    for at in 1..=3 {
        let kernel = Fake::default();
        let mut core = ready(&kernel, &[net()], now);
        let before = kernel.policies();
        kernel.refuse(kernel.requests() + at, libc::ENOBUFS);
        core.add_policies(std::slice::from_ref(&three)).unwrap_err();
        assert_eq!(kernel.policies(), before, "request {at}");
        assert!(core.add_policies(std::slice::from_ref(&three)).unwrap());
        assert_eq!(kernel.policies().len(), before.len() + 3);
    }
}
