use std::net::IpAddr;
use std::sync::Arc;

use obol_esp::FlowKey;
use obol_ike::config::{Mode, Path};
use obol_ike::crypto::secret::Secret;
use obol_ike::event::{ChildSaId, ChildSaInfo, EspKeys, EspSpi, IkeSaId, Limits, OutboundSa};
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::{EncrId, IntegId};

use super::*;

const OWN: [u8; 4] = [10, 0, 0, 1];

fn ts(first: [u8; 4], last: [u8; 4]) -> TrafficSelector {
    TrafficSelector {
        protocol: 0,
        start_port: 0,
        end_port: u16::MAX,
        start: IpAddr::from(first),
        end: IpAddr::from(last),
    }
}

/// A worker with one policy.
fn policies(mode: Mode, last: [u8; 4], trap: bool) -> Policies {
    let mut policies = Policies::new(Place::new(0, 1));
    policies.replace(vec![wanted(mode, last, trap)]);
    policies
}

fn wanted(mode: Mode, last: [u8; 4], trap: bool) -> (Policy, Vec<Selector>) {
    let policy = Policy {
        connection: "c".into(),
        child: "d".into(),
        mode,
        local_ts: vec![ts(OWN, OWN)],
        remote_ts: vec![ts([10, 0, 0, 2], last)],
        trap,
        pass: false,
        narrower: false,
        clear: Default::default(),
        kernel: crate::dataplane::KernelOptions::default(),
    };
    let selectors = crate::dataplane::user::sa::policy_selectors(&policy).unwrap();
    (policy, selectors)
}

fn flow(destination: [u8; 4]) -> FlowKey {
    FlowKey {
        source: IpAddr::from(OWN),
        destination: IpAddr::from(destination),
        protocol: 17,
        source_port: 1,
        destination_port: 2,
        fragment: false,
        ports_known: true,
    }
}

/// The destination with this number in 10.0.0.0/8, all of which are in a policy up to 10.255.255.255.
fn host(number: u32) -> [u8; 4] {
    (0x0a00_0002 + number).to_be_bytes()
}

const NETWORK: [u8; 4] = [10, 255, 255, 255];

fn way(id: u64, destination: [u8; 4]) -> Arc<Way> {
    let path = Path {
        local: "10.0.0.1:500".parse().unwrap(),
        remote: "10.0.0.2:500".parse().unwrap(),
    };
    let info = ChildSaInfo {
        id: ChildSaId(id),
        ike: IkeSaId(1),
        connection: "c".into(),
        child: "d".into(),
        local_ts: vec![ts(OWN, OWN)],
        remote_ts: vec![ts(destination, destination)],
        mode: Mode::Transport,
        spi_in: EspSpi(1000),
        spi_out: EspSpi(1000),
        encr: EncrId::AES_GCM_16,
        encr_key_bits: 128,
        integ: IntegId::NONE,
        ke: None,
        esn: true,
        path,
        encap: false,
        nat: false,
        limits: Limits::default(),
        replaces: None,
        queue: 0,
    };
    let keys = EspKeys {
        encr: Secret::new(vec![1; 20]),
        integ: Secret::new(Vec::new()),
    };
    Arc::new(Way::new(OutboundSa { info, keys }, Arc::default()).unwrap())
}

#[test]
fn the_same_is_asked_once_a_second() {
    let mut tunnel = policies(Mode::Tunnel, NETWORK, true);
    let mut ask = |number, now| tunnel.without_sa(&flow(host(number)), b"packet", now).ask;
    assert!(ask(2, 1));
    assert!(!ask(2, 2) && !ask(3, 1000));
    assert!(ask(2, 1001));
}

#[test]
fn each_pair_of_hosts_is_asked_for_in_transport_mode_between_networks() {
    let mut wide = policies(Mode::Transport, NETWORK, true);
    let mut ask = |number, now| wide.without_sa(&flow(host(number)), b"packet", now).ask;
    assert!(ask(0, 1) && ask(1, 1) && !ask(1, 2));
    let asked = (2..100_000).filter(|number| ask(*number, 3));
    assert_eq!(asked.count(), ASKED_AT_ONCE as usize - 2);
    assert!(!ask(200_000, ASKED_EVERY - 1));
    assert!(ask(200_000, ASKED_EVERY) && !ask(200_001, ASKED_EVERY));
    // For how long ever somebody asks for a whole network, little is remembered.
    for number in 0..1_000_000 {
        ask(number, u64::from(number));
    }
    let entry = wide.lookup(&flow(host(0))).unwrap();
    assert!(entry.asked.at.len() <= 2 * ASKED_AT_ONCE as usize);

    let mut narrow = policies(Mode::Transport, [10, 0, 0, 2], true);
    assert!(narrow.without_sa(&flow(host(0)), b"packet", 1).ask);
    assert!(!narrow.without_sa(&flow(host(0)), b"packet", 1).ask);
}

#[test]
fn a_policy_that_only_blocks_neither_asks_nor_keeps() {
    let mut blocks = policies(Mode::Tunnel, NETWORK, false);
    let verdict = blocks.without_sa(&flow(host(0)), b"packet", 1);
    assert_eq!((verdict.ask, verdict.fate), (false, Fate::Dropped));
}

#[test]
fn a_policy_that_lets_packets_pass_in_clear_asks_and_keeps_nothing() {
    let mut open = policies(Mode::Transport, NETWORK, true);
    open.entries[0].policy.clear.now = true;
    let verdict = open.without_sa(&flow(host(2)), b"packet", 1);
    assert_eq!((verdict.ask, verdict.fate), (true, Fate::Clear));
    let verdict = open.without_sa(&flow(host(2)), b"packet", 2);
    assert_eq!((verdict.ask, verdict.fate), (false, Fate::Clear));
    open.entries[0].policy.trap = false;
    let verdict = open.without_sa(&flow(host(3)), b"packet", 3);
    assert_eq!((verdict.ask, verdict.fate), (false, Fate::Clear));
    assert!(open.waiting.of_policy(1).is_empty());
}

#[test]
fn hundreds_of_peers_at_once_each_get_their_first_packets() {
    let mut wide = policies(Mode::Transport, NETWORK, true);
    let flood = flow(host(100_000));
    for number in 0..1000 {
        for _ in 0..20 {
            wide.without_sa(&flood, &[0; 60_000], 1);
        }
        let verdict = wide.without_sa(&flow(host(number)), &number.to_be_bytes(), 1);
        assert_eq!((verdict.ask, verdict.fate), (true, Fate::Kept), "{number}");
    }
    for number in (0..1000).rev() {
        let waited = wide.take_in(way(u64::from(number) + 1, host(number)), 2);
        assert_eq!(waited, [number.to_be_bytes()], "and no others");
    }
    // What the SA does not carry waits on, and may be asked for again.
    assert!(wide.without_sa(&flow(host(5000)), b"other", 2).ask);
    assert!(wide.take_in(way(5001, host(5001)), 2).is_empty());
    let (policy, selectors) = wanted(Mode::Transport, NETWORK, true);
    wide.replace(vec![(policy, selectors)]);
    assert_eq!(wide.take_in(way(5000, host(5000)), 3), [b"other"]);
}

#[test]
fn of_many_sas_the_newest_that_carries_a_packet_is_found() {
    let mut wide = policies(Mode::Transport, NETWORK, true);
    let carried = |wide: &Policies, number| {
        let lanes = &wide.lookup(&flow(host(number))).unwrap().lanes;
        lanes.carries(&flow(host(number)))
    };
    for number in 0..1000u32 {
        assert!(!carried(&wide, number), "{number}");
        wide.take_in(way(u64::from(number) + 1, host(number)), 1);
        assert!(
            carried(&wide, number) && carried(&wide, number / 2),
            "{number}"
        );
    }
    // A rekey: the new one carries it, and the old one may go.
    wide.take_in(way(2001, host(7)), 1);
    assert!(wide.remove(ChildSaId(8)) && carried(&wide, 7));
    assert!(wide.way(ChildSaId(2001)).is_some() && wide.way(ChildSaId(8)).is_none());
    assert!(wide.remove(ChildSaId(2001)) && !carried(&wide, 7));
    for number in (0..1000u32).filter(|number| *number != 7) {
        assert!(carried(&wide, number), "{number}");
        assert!(wide.remove(ChildSaId(u64::from(number) + 1)));
        assert!(!carried(&wide, number), "{number}");
    }
    assert!(!wide.remove(ChildSaId(1)));
}

#[test]
fn policies_that_are_added_are_found_beside_the_others_and_have_their_sas() {
    let mut policies = policies(Mode::Tunnel, [10, 0, 0, 9], true);
    let more = |n: u8| {
        let (mut policy, _) = wanted(Mode::Tunnel, [10, 0, 0, 9], true);
        policy.child = format!("more-{n}");
        policy.remote_ts = vec![ts([10, 1, n, 0], [10, 1, n, 255])];
        let selectors = crate::dataplane::user::sa::policy_selectors(&policy).unwrap();
        vec![(policy, selectors)]
    };
    let child = |policies: &Policies, destination| {
        let entry = policies.lookup(&flow(destination));
        entry.map(|entry| entry.policy().child.clone())
    };
    for n in 0..=255 {
        policies.add(more(n));
        assert_eq!(child(&policies, [10, 1, n, 1]), Some(format!("more-{n}")));
    }
    assert_eq!(policies.added.len(), ADDED_MAX);
    // Then all are sorted in.
    let (mut last, _) = more(0).remove(0);
    last.child = "last".to_owned();
    last.remote_ts = vec![ts([10, 2, 0, 0], [10, 2, 0, 255])];
    let selectors = crate::dataplane::user::sa::policy_selectors(&last).unwrap();
    policies.add(vec![(last, selectors)]);
    assert_eq!((policies.spd.len(), policies.added.len()), (258, 0));
    for n in 0..=255 {
        assert_eq!(child(&policies, [10, 1, n, 1]), Some(format!("more-{n}")));
    }
    assert_eq!(child(&policies, [10, 0, 0, 2]), Some("d".to_owned()));
    assert_eq!(child(&policies, [10, 2, 0, 2]), Some("last".to_owned()));
    assert_eq!(child(&policies, [10, 3, 0, 2]), None);
}
