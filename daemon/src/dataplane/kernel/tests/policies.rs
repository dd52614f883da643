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
