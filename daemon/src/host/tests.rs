//! Steering and guard in namespaces: what the kernel does with them.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use obol_ike::config::Mode;
use obol_ike::ts::TrafficSelector;

use super::netns::Netns;
use super::purge::Removed;
use super::*;
use crate::dataplane::Policy;
use crate::sys::tun::Tun;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn skipped() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: namespaces and packet filters need root");
    }
    !root
}

fn ts(start: &str, end: &str, protocol: u8, ports: (u16, u16)) -> TrafficSelector {
    TrafficSelector {
        protocol,
        start_port: ports.0,
        end_port: ports.1,
        start: ip(start),
        end: ip(end),
    }
}

fn policy(mode: Mode, local: TrafficSelector, remote: TrafficSelector) -> Policy {
    Policy {
        connection: "hosts".into(),
        child: "child".into(),
        mode,
        local_ts: vec![local],
        remote_ts: vec![remote],
        trap: true,
        pass: false,
        narrower: false,
        clear: Default::default(),
        kernel: crate::dataplane::KernelOptions::default(),
    }
}

const ANY: (u16, u16) = (0, 65535);
const PORT: (u16, u16) = (7000, 7000);

/// A host with a TUN device, and a neighbour.
struct Lab {
    host: Netns,
    peer: Netns,
    settings: HostSettings,
    tun: Tun,
    index: u32,
}

impl Lab {
    fn new(local: &str, remote: &str, prefix: u8) -> Self {
        let (host, peer) = (Netns::anonymous().unwrap(), Netns::anonymous().unwrap());
        for netns in [&host, &peer] {
            netns
                .sysctl("net/ipv6/conf/default/accept_dad", "0")
                .unwrap();
        }
        host.join(
            ("left", ip(local), prefix),
            &peer,
            ("right", ip(remote), prefix),
        )
        .unwrap();
        let settings = HostSettings::for_tests();
        let (tun, index) = host
            .block_on(async || {
                let tun = Tun::open(&settings.tun, 1).unwrap().remove(0);
                let index = bring_up(tun.name()).await.unwrap();
                (tun, index)
            })
            .unwrap();
        let lab = Self {
            host,
            peer,
            settings,
            tun,
            index,
        };
        let here = Self::socket(&lab.host, local, 7);
        let there = Self::socket(&lab.peer, remote, 7);
        eventually("the wire is up", || passes(&here, &there).then_some(()));
        lab
    }

    fn apply(&self, policies: &[Policy]) -> Applied {
        self.apply_after(policies, None)
    }

    fn apply_after(&self, policies: &[Policy], before: Option<Applied>) -> Applied {
        let done = self
            .host
            .block_on(async || apply(&self.settings, self.index, policies, before).await);
        done.unwrap().unwrap()
    }

    /// Rules and routes that are ours, in words.
    fn state(&self) -> Vec<String> {
        let state = self.host.block_on(async || {
            let netlink = netlink::Netlink::connect().unwrap();
            let first = self.settings.rule_priority;
            let rules = rule::ours(&netlink, first).await.unwrap();
            let routes = route::ours(&netlink, self.settings.table).await.unwrap();
            let rules = rules.into_iter().map(|(rule, _)| format!("{rule:?}"));
            let mut all: Vec<_> = rules
                .chain(routes.iter().map(|r| format!("{r:?}")))
                .collect();
            all.sort();
            all
        });
        state.unwrap()
    }

    fn blocked(&self) -> guard::Blocked {
        let blocked = self
            .host
            .run(|| blocked(&self.settings, Carrier::Tun).unwrap());
        blocked.unwrap().expect("the guard is loaded")
    }

    /// Waits for the address: an IPv6 one is of no use in its first moments.
    fn socket(netns: &Netns, address: &str, port: u16) -> UdpSocket {
        let bind = || UdpSocket::bind((ip(address), port));
        let socket = eventually("the address is there", || netns.run(bind).unwrap().ok());
        let patience = Some(Duration::from_millis(200));
        socket.set_read_timeout(patience).unwrap();
        socket
    }
}

/// What `f` returns, as soon as it returns something.
pub(crate) fn eventually<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = f() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::yield_now();
    }
}

/// Whether a datagram arrives. A refusal of the system to send counts as a no.
pub(crate) fn passes(from: &UdpSocket, to: &UdpSocket) -> bool {
    let _ = from.send_to(b"in clear", to.local_addr().unwrap());
    to.recv_from(&mut [0; 64]).is_ok()
}

#[test]
fn steering_is_set_once_changed_and_purged() {
    if skipped() {
        return;
    }
    let lab = Lab::new("192.0.2.1", "192.0.2.2", 24);
    let tunnel = policy(
        Mode::Tunnel,
        ts("192.0.2.0", "192.0.2.255", 0, ANY),
        ts("172.16.2.0", "172.16.2.255", 0, ANY),
    );
    let transport = policy(
        Mode::Transport,
        ts("192.0.2.1", "192.0.2.1", 6, ANY),
        ts("192.0.2.2", "192.0.2.2", 6, (27017, 27018)),
    );
    let v6 = policy(
        Mode::Tunnel,
        ts("fd01::", "fd01::ffff", 0, ANY),
        ts("fd02::", "fd02::ffff", 17, PORT),
    );
    lab.apply(&[tunnel.clone(), transport.clone(), v6.clone()]);
    let all = lab.state();
    // Three for the marks, two for each IPv4 policy and five for the host in one; four of IPv6;
    // and two routes each.
    assert_eq!(all.len(), 3 + 2 + 2 + 5 + 4 + 6, "{all:#?}");
    lab.apply(&[v6.clone(), transport.clone(), tunnel.clone()]);
    assert_eq!(lab.state(), all);
    lab.apply(std::slice::from_ref(&transport));
    assert_eq!(lab.state().len(), 5 + 2);
    lab.apply(&[tunnel, transport, v6]);
    assert_eq!(lab.state(), all);

    let purge_there = || {
        lab.host
            .block_on(async || purge(&lab.settings).await.unwrap())
    };
    let removed = purge_there().unwrap();
    let expected = Removed {
        rules: 16,
        routes: 6,
        tun: true,
        guard: true,
    };
    assert_eq!(removed, expected);
    assert_eq!(lab.state(), [""; 0]);
    assert_eq!(purge_there().unwrap(), Removed::default());
}

#[test]
fn rules_and_routes_of_others_stay() {
    if skipped() {
        return;
    }
    let lab = Lab::new("192.0.2.1", "192.0.2.2", 24);
    let foreign = lab.host.block_on(async || {
        let netlink = netlink::Netlink::connect().unwrap();
        let rule = netlink.rule().add().v4().priority(5300).table_id(26250);
        let to = std::net::Ipv4Addr::new(198, 51, 100, 0);
        let action = rtnetlink::packet_route::rule::RuleAction::ToTable;
        rule.action(action)
            .destination_prefix(to, 24)
            .execute()
            .await
    });
    foreign.unwrap().unwrap();
    let count = || {
        let count = lab.host.block_on(async || {
            use futures_util::TryStreamExt as _;
            let netlink = netlink::Netlink::connect().unwrap();
            let rules = netlink.rule().get(rtnetlink::IpVersion::V4).execute();
            rules.try_collect::<Vec<_>>().await.unwrap().len()
        });
        count.unwrap()
    };
    let before = count();
    let host = ts("192.0.2.1", "192.0.2.1", 0, ANY);
    lab.apply(&[policy(
        Mode::Tunnel,
        host,
        ts("10.0.0.0", "10.0.0.255", 0, ANY),
    )]);
    assert_eq!(count(), before + 10);
    let purged = lab
        .host
        .block_on(async || purge(&lab.settings).await.unwrap());
    assert_eq!(purged.unwrap().rules, 10);
    assert_eq!(count(), before);
}

fn clear_packets_are_dropped_both_ways(local: &str, remote: &str, prefix: u8) {
    let lab = Lab::new(local, remote, prefix);
    let here = Lab::socket(&lab.host, local, 7000);
    let there = Lab::socket(&lab.peer, remote, 7000);
    let other = Lab::socket(&lab.peer, remote, 7001);
    assert!(passes(&here, &there) && passes(&there, &here) && passes(&here, &other));

    let protected = policy(
        Mode::Transport,
        ts(local, local, 17, ANY),
        ts(remote, remote, 17, PORT),
    );
    lab.apply(std::slice::from_ref(&protected));
    assert!(!passes(&here, &there), "out, with the TUN");
    assert!(!passes(&there, &here), "in, with the TUN");
    assert!(
        passes(&here, &other) && passes(&other, &here),
        "another port"
    );
    assert_eq!(
        lab.blocked(),
        guard::Blocked {
            out: 0,
            incoming: 1
        }
    );
    let mut buffer = [0; 2048];
    lab.tun
        .read(&mut buffer)
        .expect("the packet went into the TUN");

    let Lab {
        host,
        settings,
        tun,
        ..
    } = lab;
    drop(tun);
    assert!(!passes(&here, &there), "out, without the TUN");
    assert!(!passes(&there, &here), "in, without the TUN");
    assert!(passes(&here, &other), "another port, without the TUN");

    // Without rules and blackholes only the guard is left.
    let netlink_gone = host.block_on(async || {
        let netlink = netlink::Netlink::connect().unwrap();
        rule::purge(&netlink, settings.rule_priority).await.unwrap();
    });
    netlink_gone.unwrap();
    assert!(!passes(&here, &there), "out, with the guard alone");
    let counts = host
        .run(|| blocked(&settings, Carrier::Tun).unwrap().unwrap())
        .unwrap();
    assert_eq!(
        counts,
        guard::Blocked {
            out: 1,
            incoming: 2
        }
    );

    host.block_on(async || purge(&settings).await.unwrap())
        .unwrap();
    assert!(
        passes(&here, &there) && passes(&there, &here),
        "after the purge"
    );
}

//= test security S-48
#[test]
fn inbound_plaintext_matching_protect_policy_dropped() {
    if !skipped() {
        clear_packets_are_dropped_both_ways("192.0.2.1", "192.0.2.2", 24);
    }
}

//= test security S-48
#[test]
fn inbound_plaintext_matching_protect_policy_dropped_over_ipv6() {
    if !skipped() {
        clear_packets_are_dropped_both_ways("fd09::1", "fd09::2", 64);
    }
}

#[test]
fn what_is_narrower_goes_first_whether_it_passes_or_is_protected() {
    if skipped() {
        return;
    }
    let (local, remote) = ("192.0.2.1", "192.0.2.2");
    let lab = Lab::new(local, remote, 24);
    let of = |ports, pass| Policy {
        pass,
        ..policy(
            Mode::Transport,
            ts(local, local, 17, ANY),
            ts(remote, remote, 17, ports),
        )
    };
    lab.apply(&[
        of((7000, 7100), true),
        of(ANY, false),
        of((7050, 7050), false),
    ]);
    let here = Lab::socket(&lab.host, local, 40_000);
    for (port, expected) in [(7000, true), (7050, false), (7051, true), (7101, false)] {
        let there = Lab::socket(&lab.peer, remote, port);
        assert_eq!(passes(&here, &there), expected, "to port {port}");
        assert_eq!(passes(&there, &here), expected, "from port {port}");
    }
    // What a sender ties to the device goes the same ways.
    socket2::SockRef::from(&here)
        .bind_device(Some(b"left"))
        .unwrap();
    let there = Lab::socket(&lab.peer, remote, 7052);
    assert!(passes(&here, &there));
    // Without what passes, all is as it was.
    lab.apply(&[of(ANY, false)]);
    assert!(!passes(&here, &there) && !passes(&there, &here));
}

#[test]
fn a_peer_is_guarded_like_all_others_once_it_is_added_to_them() {
    if skipped() {
        return;
    }
    let (local, remote) = ("192.0.2.1", "192.0.2.2");
    let lab = Lab::new(local, remote, 24);
    let here = Lab::socket(&lab.host, local, 7000);
    let there = Lab::socket(&lab.peer, remote, 7000);
    let peer = |addr: &str| {
        policy(
            Mode::Transport,
            ts(local, local, 0, ANY),
            ts(addr, addr, 0, ANY),
        )
    };
    // As many as make a set; two of them overlap.
    let mut policies: Vec<_> = (1..20).map(|n| peer(&format!("10.9.0.{n}"))).collect();
    policies.push(policy(
        Mode::Transport,
        ts(local, local, 0, ANY),
        ts("10.9.0.3", "10.9.0.30", 0, ANY),
    ));
    let applied = lab.apply(&policies);
    assert!(passes(&here, &there) && passes(&there, &here));
    policies.push(peer(remote));
    let applied = lab.apply_after(&policies, Some(applied));
    assert!(!passes(&here, &there) && !passes(&there, &here));
    let state = lab.state();
    // It is the guard that drops what comes in, and rules lead what leaves elsewhere.
    assert_eq!(lab.blocked().incoming, 1);
    // All is as if there had been nothing before.
    lab.apply(&policies);
    assert_eq!(lab.state(), state);
    // Somebody removes the guard: it comes again as a whole.
    let removed = lab
        .host
        .run(|| guard::remove(&lab.settings, Carrier::Tun).unwrap());
    assert!(removed.unwrap());
    lab.apply_after(&policies, Some(applied));
    assert!(!passes(&there, &here));
    assert_eq!(lab.blocked().incoming, 1);
    // What goes, goes.
    policies.pop();
    lab.apply(&policies);
    assert!(passes(&here, &there) && passes(&there, &here));
}

#[test]
fn a_peer_that_is_added_alone_has_all_that_it_would_have_had_with_the_others() {
    if skipped() {
        return;
    }
    let (local, remote) = ("192.0.2.1", "192.0.2.2");
    let lab = Lab::new(local, remote, 24);
    let here = Lab::socket(&lab.host, local, 7000);
    let there = Lab::socket(&lab.peer, remote, 7000);
    let peer = |addr: &str| {
        policy(
            Mode::Tunnel,
            ts(local, local, 0, ANY),
            ts(addr, addr, 0, ANY),
        )
    };
    let mut policies: Vec<_> = (1..100).map(|n| peer(&format!("10.9.0.{n}"))).collect();
    let mut applied = lab.apply(&policies);
    let mut grow = |policy: &Policy| {
        let policies = std::slice::from_ref(policy);
        let done = lab
            .host
            .block_on(async || add(&lab.settings, lab.index, policies, &mut applied).await);
        done.unwrap().unwrap()
    };
    assert!(passes(&here, &there) && passes(&there, &here));
    let new = peer(remote);
    assert!(grow(&new));
    assert!(!passes(&here, &there) && !passes(&there, &here));
    assert_eq!(lab.blocked().incoming, 1);
    let state = lab.state();
    policies.push(new);
    lab.apply(&policies);
    assert_eq!(lab.state(), state);
    // Of another kind than those that are there, or beside a guard that is gone: all is to be told.
    let mut of_port = peer("10.9.1.1");
    of_port.remote_ts = vec![ts("10.9.1.1", "10.9.1.1", 17, PORT)];
    assert!(!grow(&of_port));
    let mut passing = peer("10.9.1.1");
    passing.pass = true;
    assert!(!grow(&passing));
    let removed = lab
        .host
        .run(|| guard::remove(&lab.settings, Carrier::Tun).unwrap());
    assert!(removed.unwrap());
    assert!(!grow(&peer("10.9.1.1")));
}

/// What passes goes before wider policies that block, however many there are of each.
#[test]
fn sets_keep_the_order_of_what_passes_and_what_does_not() {
    if skipped() {
        return;
    }
    let (local, remote) = ("192.0.2.1", "192.0.2.2");
    let lab = Lab::new(local, remote, 24);
    let here = Lab::socket(&lab.host, local, 7000);
    let there = Lab::socket(&lab.peer, remote, 7000);
    let of = |first: &str, last: &str, pass| Policy {
        pass,
        ..policy(
            Mode::Transport,
            ts(local, local, 0, ANY),
            ts(first, last, 0, ANY),
        )
    };
    let host = |n: u8, pass| {
        let addr = format!("10.9.0.{n}");
        of(&addr, &addr, pass)
    };
    let (pass, drop): (Vec<_>, Vec<_>) = (1..20)
        .map(|n| (host(n, true), host(n + 100, false)))
        .unzip();
    let check = |more: &[Policy], expected: bool| {
        lab.apply(&[&pass, &drop, more].concat());
        assert_eq!(passes(&there, &here), expected, "{more:?}");
        assert_eq!(passes(&here, &there), expected, "{more:?}");
    };
    let net = |pass| of("192.0.2.0", "192.0.2.255", pass);
    let peer = |pass| of(remote, remote, pass);
    check(&[net(false), peer(true)], true);
    check(&[net(true), peer(false)], false);
    check(&[net(false)], false);
    check(&[net(true)], true);
}

#[test]
fn hundreds_of_routes_are_set_also_where_their_source_is_not_ours() {
    if skipped() {
        return;
    }
    let lab = Lab::new("192.0.2.1", "192.0.2.2", 24);
    let wanted = (0..250_u8).map(|n| {
        let to = prefix::Prefix::host(IpAddr::from([10, 9, 0, n]));
        let source = ip(if n % 2 == 0 {
            "192.0.2.1"
        } else {
            "192.0.2.99"
        });
        let what = route::TunRoute {
            source: Some(source),
            ..route::TunRoute::default()
        };
        (to, what)
    });
    let wanted = wanted.collect();
    let found = lab.host.block_on(async || {
        let netlink = netlink::Netlink::connect().unwrap();
        let table = lab.settings.table;
        route::add_all(&netlink, table, lab.index, &wanted)
            .await
            .unwrap();
        route::ours(&netlink, table).await.unwrap()
    });
    let found = found.unwrap();
    assert_eq!(found.len(), 250);
    let with_source = found.iter().filter(|route| {
        let text = format!("{route:?}");
        text.contains("PrefSource")
    });
    assert_eq!(with_source.count(), 125);
}

#[test]
fn the_source_towards_each_of_several_peers_is_found() {
    if skipped() {
        return;
    }
    let lab = Lab::new("192.0.2.1", "192.0.2.2", 24);
    let other = ip("198.51.100.1");
    lab.host
        .configure(async |links| links.address("left", other, 24).await)
        .unwrap();
    let found = lab.host.run(|| {
        let sources = Sources::new(lab.settings.fwmark);
        let peers = ["192.0.2.2", "203.0.113.1", "198.51.100.7", "192.0.2.9"];
        peers.map(|peer| sources.of(ip(peer)).ok())
    });
    let ours = Some(ip("192.0.2.1"));
    assert_eq!(found.unwrap(), [ours, None, Some(other), ours]);
}

#[test]
fn counts_outlive_a_reload() {
    if skipped() {
        return;
    }
    let lab = Lab::new("192.0.2.1", "192.0.2.2", 24);
    let here = Lab::socket(&lab.host, "192.0.2.1", 7000);
    let there = Lab::socket(&lab.peer, "192.0.2.2", 7000);
    let protected = policy(
        Mode::Transport,
        ts("192.0.2.1", "192.0.2.1", 0, ANY),
        ts("192.0.2.2", "192.0.2.2", 0, ANY),
    );
    lab.apply(std::slice::from_ref(&protected));
    assert!(!passes(&there, &here));
    lab.apply(&[protected]);
    assert_eq!(lab.blocked().incoming, 1);
    assert!(!passes(&there, &here));
    assert_eq!(lab.blocked().incoming, 2);
}

#[test]
fn ike_passes_a_guard_of_everything_to_this_host_only() {
    if skipped() {
        return;
    }
    let lab = Lab::new("192.0.2.1", "192.0.2.2", 24);
    let everything = policy(
        Mode::Transport,
        ts("192.0.2.1", "192.0.2.1", 0, ANY),
        ts("192.0.2.2", "192.0.2.2", 0, ANY),
    );
    lab.apply(&[everything]);
    let there = Lab::socket(&lab.peer, "192.0.2.2", 500);
    for (port, expected) in [(500, true), (4500, true), (501, false)] {
        let here = Lab::socket(&lab.host, "192.0.2.1", port);
        assert_eq!(passes(&there, &here), expected, "port {port}");
        assert!(!passes(&here, &there), "what is not marked does not leave");
        let mark =
            |socket: &UdpSocket| socket2::SockRef::from(socket).set_mark(lab.settings.fwmark);
        mark(&here).unwrap();
        assert!(passes(&here, &there), "what is marked leaves");
    }
}

#[test]
fn many_policies_fit_one_batch() {
    if skipped() {
        return;
    }
    let lab = Lab::new("192.0.2.1", "192.0.2.2", 24);
    let local = ts("192.0.2.1", "192.0.2.1", 6, PORT);
    let policies: Vec<_> = (0..500_u16)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            let remote = IpAddr::from([10, 9, high, low]).to_string();
            policy(Mode::Transport, local, ts(&remote, &remote, 6, ANY))
        })
        .collect();
    let loaded = lab
        .host
        .run(|| guard::load(&lab.settings, &policies, Carrier::Tun, None));
    loaded.unwrap().unwrap();
    assert_eq!(lab.blocked(), guard::Blocked::default());
    let removed = lab
        .host
        .run(|| guard::remove(&lab.settings, Carrier::Tun).unwrap());
    assert!(removed.unwrap());
}

/// The second fragment of a UDP datagram, as a router would forward it.
fn later_fragment(source: std::net::Ipv4Addr, destination: std::net::Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 1, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend([0; 8]);
    packet
}

#[test]
fn fragments_without_ports_do_not_pass_for_another_port() {
    if skipped() {
        return;
    }
    let lab = Lab::new("192.0.2.1", "192.0.2.2", 24);
    let protected = policy(
        Mode::Transport,
        ts("192.0.2.1", "192.0.2.1", 17, ANY),
        ts("192.0.2.2", "192.0.2.2", 17, PORT),
    );
    lab.apply(&[protected]);
    let packet = later_fragment([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let send = || {
        // IPPROTO_RAW: the header is ours.
        let protocol = Some(socket2::Protocol::from(255));
        let raw = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, protocol)?;
        let to: std::net::SocketAddr = (ip("192.0.2.2"), 0).into();
        raw.send_to(&packet, &to.into())
    };
    // The system reports the drop to the sender or not, as it likes.
    let _ = lab.host.run(send).unwrap();
    assert_eq!(
        lab.blocked(),
        guard::Blocked {
            out: 1,
            incoming: 0
        }
    );
}
