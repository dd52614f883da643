//! Policies whose packets pass in clear while there is no SA.

use std::net::UdpSocket;

use super::*;
use crate::dataplane::{Clear, Cleartext};
use crate::host::xfrm::Notices;

fn open(when: Cleartext, now: bool) -> Policy {
    Policy {
        clear: Clear { when, now },
        ..policy("open", "10.1.1.0/24", "10.2.1.0/24")
    }
}

/// Of each direction, whether packets are blocked, and whether they can do without an SA.
fn found(kernel: &Fake) -> Vec<(Direction, bool, bool)> {
    let all = kernel.policies().into_iter();
    let mut found: Vec<_> = all
        .map(|(key, rule)| {
            let optional = rule.template.is_some_and(|template| template.optional);
            (key.direction, rule.block, optional)
        })
        .collect();
    found.sort();
    found
}

const DIRECTIONS: [Direction; 3] = [Direction::In, Direction::Out, Direction::Forward];

fn all(block: bool, optional: bool) -> Vec<(Direction, bool, bool)> {
    DIRECTIONS
        .map(|direction| (direction, block, optional))
        .to_vec()
}

#[test]
fn packets_pass_without_sa_and_ask_for_one() {
    let kernel = Fake::default();
    let now = Instant::now();
    let policy = open(Cleartext::WithoutSa, true);
    let mut core = ready(&kernel, std::slice::from_ref(&policy), now);
    assert_eq!(found(&kernel), all(false, true));
    let acquire = |core: &mut Core<Fake>| {
        let reqid = leads_to(&kernel, Direction::Out);
        let flow = PacketFlow {
            protocol: 17,
            source: IpAddr::from([10, 1, 1, 1]),
            destination: IpAddr::from([10, 2, 1, 1]),
            source_port: 1,
            destination_port: 2,
        };
        core.notice(Notice::Acquire { reqid, flow }, now);
        core.events.pop_front()
    };
    let event = acquire(&mut core);
    assert!(matches!(event, Some(DataPlaneEvent::Acquire { child, .. }) if child == "open"));
    // While there is an SA, only what it carries passes, in either direction.
    let sa = info(1, &policy);
    up(&mut core, &sa, now);
    assert_eq!(found(&kernel), all(false, false));
    let closed = open(Cleartext::WithoutSa, false);
    core.set_policies(vec![closed], now).unwrap();
    core.remove(sa.id, now).unwrap();
    assert_eq!(found(&kernel), all(false, false));
    core.set_policies(vec![policy], now).unwrap();
    assert_eq!(found(&kernel), all(false, true));
    // One that waits for the peer lets packets pass, and asks for nothing.
    let waits = Policy {
        trap: false,
        ..open(Cleartext::WithoutSa, true)
    };
    core.set_policies(vec![waits], now).unwrap();
    assert_eq!(found(&kernel), all(false, true));
    assert!(acquire(&mut core).is_none());
    let closed = Policy {
        trap: false,
        ..open(Cleartext::WithoutSa, false)
    };
    core.set_policies(vec![closed], now).unwrap();
    assert_eq!(found(&kernel), all(true, false));
}

#[test]
fn an_opportunistic_one_takes_packets_in_clear_beside_its_sa() {
    let kernel = Fake::default();
    let now = Instant::now();
    let policy = open(Cleartext::Opportunistic, true);
    let mut core = ready(&kernel, std::slice::from_ref(&policy), now);
    up(&mut core, &info(1, &policy), now);
    assert_eq!(
        found(&kernel),
        [
            (Direction::In, false, true),
            (Direction::Out, false, false),
            (Direction::Forward, false, true),
        ]
    );
    // The next run takes the SA over, and no packet in clear beside it that it was not told of.
    drop(core);
    ready(&kernel, &[net()], now);
    let mut expected = [all(false, false), all(false, false)].concat();
    expected.sort();
    assert_eq!(found(&kernel), expected);
}

#[test]
fn a_strict_policy_beside_it_is_as_it_was() {
    let kernel = Fake::default();
    let alone = Fake::default();
    let now = Instant::now();
    ready(&alone, &[net()], now);
    ready(&kernel, &[net(), open(Cleartext::Opportunistic, true)], now);
    let strict = |kernel: &Fake| {
        let all = kernel.policies().into_iter();
        let strict = all.filter(|(_, rule)| rule.template.is_some_and(|t| !t.optional));
        strict.collect::<Vec<_>>()
    };
    assert_eq!(strict(&kernel), strict(&alone));
    assert_eq!(kernel.policies().len(), 6);
    // The narrower one goes first.
    let priorities = |optional| {
        let all = kernel.policies().into_values();
        let of = all.filter(move |rule| rule.template.is_some_and(|t| t.optional == optional));
        of.map(|rule| rule.priority)
    };
    assert!(priorities(true).max() < priorities(false).min());
}

/// The kernel itself lets packets pass, and asks for an SA all the same.
#[test]
fn the_kernel_asks_for_an_sa_that_packets_can_do_without() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: namespaces need root");
        return;
    }
    let (host, peer) = (Netns::anonymous().unwrap(), Netns::anonymous().unwrap());
    let end = |last| ("wire", IpAddr::from([192, 0, 2, last]), 24);
    host.join(end(1), &peer, end(2)).unwrap();
    let bind = |netns: &Netns, last: u8| {
        let address = (IpAddr::from([192, 0, 2, last]), 7000);
        let socket = netns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
        socket.set_read_timeout(Some(5 * SECOND)).unwrap();
        socket
    };
    let (own, other) = (bind(&host, 1), bind(&peer, 2));
    host.block_on(async || {
        let kernel = match Socket::open() {
            Ok(kernel) => kernel,
            Err(error) => {
                println!("skipped: this kernel has no XFRM: {error}");
                return;
            }
        };
        let mut notices = Notices::listen(kernel.port()).unwrap();
        let mut core = Core::new(kernel, HostSettings::for_tests()).unwrap();
        let policy = |now| Policy {
            mode: Mode::Transport,
            clear: Clear {
                when: Cleartext::WithoutSa,
                now,
            },
            ..policy("open", "192.0.2.1[udp]", "192.0.2.2[udp/7000]")
        };
        let now = Instant::now();
        let tunnel = open(Cleartext::Opportunistic, true);
        core.set_policies(vec![policy(true), tunnel], now).unwrap();
        own.send_to(b"in clear", other.local_addr().unwrap())
            .unwrap();
        other.recv_from(&mut [0; 16]).unwrap();
        other
            .send_to(b"and back", own.local_addr().unwrap())
            .unwrap();
        own.recv_from(&mut [0; 16]).unwrap();
        let asked = async {
            loop {
                core.notice(notices.next().await, now);
                if let Some(DataPlaneEvent::Acquire { child, .. }) = core.events.pop_front() {
                    return child;
                }
            }
        };
        let asked = tokio::time::timeout(10 * SECOND, asked).await;
        assert_eq!(asked.unwrap(), "open");
        // Both ways are closed again.
        core.set_policies(vec![policy(false)], now).unwrap();
        let none = Some(SECOND / 4);
        own.set_read_timeout(none).unwrap();
        other.set_read_timeout(none).unwrap();
        let _ = own.send_to(b"in clear", other.local_addr().unwrap());
        other.recv_from(&mut [0; 16]).unwrap_err();
        other
            .send_to(b"and back", own.local_addr().unwrap())
            .unwrap();
        own.recv_from(&mut [0; 16]).unwrap_err();
    })
    .unwrap();
}
