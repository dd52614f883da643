use super::*;

fn ts(start: &str, end: &str, protocol: u8, ports: (u16, u16)) -> TrafficSelector {
    TrafficSelector {
        protocol,
        start_port: ports.0,
        end_port: ports.1,
        start: start.parse().unwrap(),
        end: end.parse().unwrap(),
    }
}

const ANY: (u16, u16) = (0, 65535);

fn policy(mode: Mode, local: TrafficSelector, remote: TrafficSelector) -> Policy {
    Policy {
        connection: "c".into(),
        child: "d".into(),
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

fn show(rule: &Rule) -> String {
    let prefix = |p: Option<Prefix>| p.map_or("any".into(), |p| format!("{}/{}", p.address, p.len));
    format!(
        "{} {} {} proto {} {:?} {:?} {:?}",
        rule.priority,
        prefix(rule.source),
        prefix(rule.destination),
        rule.protocol,
        rule.source_ports,
        rule.destination_ports,
        rule.action
    )
}

/// Rules have no ports 0 and 65535, and must not be about the ones beside them.
#[test]
fn a_port_that_rules_do_not_have_has_none() {
    let plan_of = |ports| {
        let local = ts("192.168.0.1", "192.168.0.1", 6, ports);
        let remote = ts("192.168.0.2", "192.168.0.2", 6, ANY);
        let own = ["192.168.0.1".parse().unwrap()];
        let policies = [policy(Mode::Transport, local, remote)];
        plan(&HostSettings::for_tests(), &policies, &own, 1500).unwrap()
    };
    let with_ports = |plan: &Plan| plan.rules.iter().any(|rule| rule.source_ports.is_some());
    for ports in [(0, 0), (65535, 65535)] {
        assert!(!with_ports(&plan_of(ports)), "{ports:?}");
    }
    for ports in [(0, 1), (1, 1), (65534, 65535)] {
        assert!(with_ports(&plan_of(ports)), "{ports:?}");
    }
}

#[test]
fn a_service_port_in_transport_mode() {
    let local = ts("192.168.0.1", "192.168.0.1", 6, (27017, 27017));
    let remote = ts("192.168.0.2", "192.168.0.2", 6, ANY);
    let settings = HostSettings::for_tests();
    let own = ["127.0.0.1".parse().unwrap(), "192.168.0.1".parse().unwrap()];
    let policies = [policy(Mode::Transport, local, remote)];
    let plan = plan(&settings, &policies, &own, 1500).unwrap();
    let rules: Vec<_> = plan.rules.iter().map(show).collect();
    assert_eq!(
        rules,
        [
            "6199 any any proto 0 None None Nop",
            "5200 any any proto 0 None None Goto(6199)",
            "5201 any any proto 0 None None Lookup(26250)",
            "5201 192.168.0.1/32 192.168.0.2/32 proto 6 Some((27017, 27017)) None Lookup(26250)",
            "5201 0.0.0.0/32 192.168.0.2/32 proto 6 Some((27017, 27017)) None Lookup(26250)",
        ]
    );
    let route = plan.routes.values().next().unwrap();
    assert_eq!((route.mtu, route.advmss), (None, Some(1372)));
    assert_eq!(route.source, Some(own[1]));
}

#[test]
fn nothing_is_in_the_way_of_what_passes_in_clear_where_nothing_else_goes() {
    let local = ts("192.168.0.1", "192.168.0.1", 6, ANY);
    let to = |last: &str, ports| ts(last, last, 6, ports);
    let clear = |remote| Policy {
        clear: crate::dataplane::Clear::at_first(Cleartext::Opportunistic),
        ..policy(Mode::Transport, local, remote)
    };
    let policies = [
        clear(to("192.168.0.2", ANY)),
        clear(to("192.168.0.3", (80, 80))),
        policy(Mode::Transport, local, to("192.168.0.3", (81, 81))),
    ];
    let plan = plan(&HostSettings::for_tests(), &policies, &[], 1500).unwrap();
    let shown = |prefix: &Prefix| prefix.address.to_string();
    let routes: Vec<_> = plan.routes.keys().map(shown).collect();
    assert_eq!(routes, ["192.168.0.2", "192.168.0.3"]);
    let blackholes: Vec<_> = plan.blackholes.iter().map(shown).collect();
    assert_eq!(blackholes, ["192.168.0.3"]);
}

#[test]
fn esp_and_ike_of_a_protected_host_pass_a_reverse_path_filter() {
    let local = ts("192.168.0.0", "192.168.0.255", 0, ANY);
    let settings = HostSettings::for_tests();
    let own = ["192.168.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
    let policies = [policy(Mode::Transport, local, local)];
    let plan = plan(&settings, &policies, &own, 1500).unwrap();
    let rules: Vec<_> = plan.rules[3..8].iter().map(show).collect();
    let rule = |what| format!("5200 192.168.0.1/32 any proto {what} Goto(6199)");
    assert_eq!(
        rules,
        [
            rule("50 None None"),
            rule("17 Some((500, 500)) None"),
            rule("17 None Some((500, 500))"),
            rule("17 Some((4500, 4500)) None"),
            rule("17 None Some((4500, 4500))"),
        ]
    );
    assert_eq!(plan.rules.len(), 8 + 2);
}

#[test]
fn subnets_in_tunnel_mode_behind_us() {
    let local = ts("172.16.1.0", "172.16.1.255", 0, ANY);
    let remote = ts("0.0.0.0", "255.255.255.255", 0, ANY);
    let settings = HostSettings::for_tests();
    let policies = [policy(Mode::Tunnel, local, remote)];
    let plan = plan(&settings, &policies, &[], 1500).unwrap();
    let rules: Vec<_> = plan.rules[3..].iter().map(show).collect();
    assert_eq!(
        rules,
        ["5201 172.16.1.0/24 any proto 0 None None Lookup(26250)"]
    );
    let (destination, route) = plan.routes.iter().next().unwrap();
    assert_eq!(destination.len, 0);
    assert_eq!((route.mtu, route.source), (Some(1412), None));
}

#[test]
fn ipv6_in_a_tunnel_over_a_narrow_path_keeps_its_least_mtu() {
    let local = ts("fd10:1::", "fd10:1::ffff", 0, ANY);
    let remote = ts("fd10:2::", "fd10:2::ffff", 0, ANY);
    let of = |path_mtu| {
        let policies = [policy(Mode::Tunnel, local, remote)];
        let plan = plan(&HostSettings::for_tests(), &policies, &[], path_mtu).unwrap();
        let route = plan.routes.values().next().unwrap();
        (route.mtu, route.advmss)
    };
    assert_eq!(of(1500), (Some(1412), Some(1352)));
    assert_eq!(of(1280), (Some(1280), Some(1132)), "TCP fits, all else may");
    assert_eq!(
        (inner_mtu(1280, false), inner_mtu(1367, true)),
        (1192, 1280)
    );
}

#[test]
fn ports_without_a_place_in_a_rule_are_cut_off() {
    let of = |range| ports(&ts("0.0.0.0", "0.0.0.0", 6, range));
    assert_eq!(of(ANY), None);
    assert_eq!(of((0, 10)), Some((1, 10)));
    assert_eq!(of((32768, 65535)), Some((32768, 65534)));
    assert_eq!(of((65535, 0)), None);
}

#[test]
fn too_many_rules_are_refused_by_name() {
    let wide = ts("0.0.0.1", "255.255.255.254", 6, (1, 1));
    let mut both = policy(Mode::Tunnel, wide, wide);
    both.local_ts
        .push(ts("0.0.0.3", "255.255.255.254", 6, (2, 2)));
    // Where there is more than that, they do not become few.
    let other = ts("0.0.0.0", "0.0.0.0", 17, ANY);
    both.local_ts.push(other);
    both.remote_ts.push(other);
    let error = plan(&HostSettings::for_tests(), &[both], &[], 1500).unwrap_err();
    assert!(error.to_string().contains("c.d"), "{error}");
}

/// The rules that look up the table, of `peers` peers and what else there is.
fn lookups(peers: u16, more: &[Policy]) -> Vec<String> {
    let local = ts("172.16.0.0", "172.16.255.255", 0, ANY);
    let mut policies: Vec<Policy> = (0..peers)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            let [first, last] = [0, 255].map(|end| format!("10.{high}.{low}.{end}"));
            policy(Mode::Tunnel, local, ts(&first, &last, 0, ANY))
        })
        .collect();
    policies.extend_from_slice(more);
    let plan = plan(&HostSettings::for_tests(), &policies, &[], 1500).unwrap();
    assert_eq!(plan.routes.len(), policies.len());
    plan.rules[3..].iter().map(show).collect()
}

#[test]
fn thousands_of_peers_behind_one_subnet_need_one_rule() {
    let one = "5201 172.16.0.0/16 any proto 0 None None Lookup(26250)";
    assert_eq!(lookups(10_000, &[]), [one]);
    assert_eq!(lookups(8, &[]).len(), 8, "few stay as they are");
}

#[test]
fn of_a_plan_with_one_peer_more_only_that_is_new() {
    let local = ts("172.16.0.0", "172.16.255.255", 0, ANY);
    let policies: Vec<Policy> = (0..100)
        .map(|n| {
            let [first, last] = [0, 255].map(|end| format!("10.0.{n}.{end}"));
            policy(Mode::Tunnel, local, ts(&first, &last, 0, ANY))
        })
        .collect();
    let plan = |policies| plan(&HostSettings::for_tests(), policies, &[], 1500).unwrap();
    let (all, but_one) = (plan(&policies), plan(&policies[1..]));
    let added = all.added_to(&but_one).unwrap();
    assert_eq!((added.rules.len(), added.routes.len()), (0, 1));
    assert_eq!(added.blackholes.len(), 1);
    assert_eq!(all.added_to(&all), Some(Plan::default()));
    assert_eq!(but_one.added_to(&all), None, "a route goes");
    // Few peers have a rule each, and those go when there are many.
    assert_eq!(all.added_to(&plan(&policies[..8])), None);
}

#[test]
fn thousands_of_hosts_with_a_service_port_need_a_rule_for_each_role() {
    let own = ts("10.0.0.1", "10.0.0.1", 6, ANY);
    let policies = |count: u32| -> Vec<Policy> {
        let both = (0..count).flat_map(|n| {
            let peer = std::net::Ipv4Addr::from(0x0a01_0000 + n).to_string();
            let port = |of: &str, ports| ts(of, of, 6, ports);
            let server = (port("10.0.0.1", (27017, 27017)), port(&peer, ANY));
            [(own, port(&peer, (27017, 27017))), server]
        });
        both.map(|(local, remote)| policy(Mode::Transport, local, remote))
            .collect()
    };
    let settings = HostSettings::for_tests();
    let rules = |policies: &[Policy]| {
        let plan = plan(&settings, policies, &[], 1500).unwrap();
        plan.rules[3..].iter().map(show).collect::<Vec<String>>()
    };
    let mut many = policies(10_000);
    let merged = rules(&many);
    assert_eq!(merged.len(), 2, "{merged:?}");
    for rule in &merged {
        assert!(rule.starts_with("5201 10.0.0.1/32 any proto 6 "), "{rule}");
    }
    // The table leads to one more, for which a rule of each is not.
    many.truncate(2000);
    let udp = |of| ts(of, of, 17, ANY);
    many.push(policy(Mode::Transport, udp("10.0.0.1"), udp("10.2.0.1")));
    assert_eq!(rules(&many).len(), 2001);
}

#[test]
fn rules_stay_apart_where_the_table_leads_elsewhere_too() {
    let port = ts("172.16.0.0", "172.16.255.255", 6, (1, 1));
    let remote = ts("10.200.0.0", "10.200.0.255", 6, ANY);
    let other = policy(Mode::Tunnel, port, remote);
    assert_eq!(lookups(100, &[other]).len(), 101);
    let local = ts("172.17.0.0", "172.17.255.255", 0, ANY);
    let remote = ts("10.200.0.0", "10.200.0.255", 0, ANY);
    let other = policy(Mode::Tunnel, local, remote);
    assert_eq!(lookups(100, &[other]).len(), 101);
}

#[test]
fn families_and_protocols_pair_up() {
    let mut mixed = policy(
        Mode::Tunnel,
        ts("10.0.0.0", "10.0.0.255", 0, ANY),
        ts("fd00::", "fd00::ff", 0, ANY),
    );
    mixed
        .remote_ts
        .push(ts("10.1.0.0", "10.1.0.255", 17, (53, 53)));
    let pairs = pairs(&mixed.local_ts, &mixed.remote_ts);
    assert_eq!(pairs.len(), 1);
    assert_eq!((pairs[0].0.protocol, pairs[0].1.protocol), (17, 17));
}
