//! Networks that lose, copy and translate; ends that begin at once.

use crate::hosts::*;

#[test]
fn duplicates_change_nothing() {
    for seed in 0..20 {
        let mut hosts = Hosts::new(seed);
        hosts.net = Net::seeded(seed).hostile(0, 1000);
        let mut pair = hosts.pair(seed);
        pair.start();
        // Copies of requests that came too late may have begun something.
        pair.run_for(Duration::from_secs(45));
        pair.assert_up(1);
        interrupt(&mut pair);
        assert_resumed(&pair);
    }
}

#[test]
fn a_bad_network_delays_and_no_more() {
    let mut resumed = 0;
    for seed in 0..60 {
        let mut hosts = Hosts::new(seed);
        if seed % 2 == 0 {
            hosts = hosts.both_give_up();
        }
        hosts.net = Net::seeded(seed).hostile(300, 200);
        let mut pair = hosts.pair(seed);
        pair.start();
        pair.run_for(Duration::from_secs(200));
        for _ in 0..3 {
            forget_events(&mut pair);
            pair.net.partitioned = true;
            pair.run_for(Duration::from_secs(100 + 20 * seed));
            pair.net.partitioned = false;
            pair.run_for(Duration::from_secs(400));
            resumed += ups(&pair.a, true);
        }
        pair.net.loss = 0;
        pair.run_for(Duration::from_secs(300));
        pair.assert_up(1);
    }
    println!("{resumed} of 180 outages ended by a ticket");
    assert!(resumed > 60, "{resumed}");
}

/// Both ends give up, and both begin again: one with a ticket, the other from scratch.
#[test]
fn a_ticket_that_crosses_a_start_from_the_other_end() {
    let mut resumed = 0;
    for seed in 0..60 {
        let mut hosts = Hosts::new(seed).both_give_up();
        hosts.b.dpd_delay = hosts.a.dpd_delay;
        let mut child = (*hosts.b.children[0]).clone();
        child.start_action = StartAction::Start;
        hosts.b.children = vec![Arc::new(child)];
        hosts.net.delay = (
            Duration::from_millis(5),
            Duration::from_millis(100 + 40 * seed),
        );
        let mut pair = hosts.pair(seed);
        pair.initiate(End::A, HOSTS);
        pair.run_for(Duration::from_secs(5));
        pair.start();
        pair.run_for(Duration::from_secs(100));
        forget_events(&mut pair);
        pair.net.partitioned = true;
        pair.run_for(Duration::from_secs(200 + seed));
        pair.net.clear();
        pair.net.partitioned = false;
        pair.run_for(Duration::from_secs(600));
        pair.assert_up(1);
        resumed += usize::from(pair.a.endpoint.status(pair.now)[0].resumed);
    }
    println!("the ticket won {resumed} of 60 times");
    assert!(resumed > 0, "they never crossed");
}

//= test rfc5723 4.3.2-4
#[test]
fn from_behind_a_nat_that_was_not_there_before() {
    let mut pair = Hosts::new(1);
    pair.b.remote_addrs.clear();
    let mut pair = pair.up();
    assert_eq!(pair.a.endpoint.status(pair.now)[0].nat, (false, false));
    lose(&mut pair);
    pair.net.nat = Some((A, IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7))));
    pair.net.partitioned = false;
    forget_events(&mut pair);
    pair.run_for(Duration::from_secs(60));
    assert_eq!((ups(&pair.a, true), ups(&pair.b, true)), (1, 1));
    let at_a = &pair.a.endpoint.status(pair.now)[0];
    assert_eq!(at_a.nat, (true, false));
    assert_eq!(at_a.path.remote.port(), 4500);
    assert_eq!(pair.b.endpoint.status(pair.now).len(), 1);
    assert_eq!(pair.b.plane.inbound.len(), 1);
}

/// With `unique = "keep"`, a peer may not have a second IKE SA from elsewhere; this is no second.
#[test]
fn a_client_that_moved_resumes_what_is_kept_for_it() {
    let mut hosts = Hosts::new(1);
    hosts.a.local_addrs.clear();
    hosts.a.source = Some(A);
    hosts.a.initial_contact = false;
    hosts.b.remote_addrs.clear();
    hosts.b.peer.unique = Unique::Keep;
    let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 77));
    let mut pair = hosts.up();
    lose(&mut pair);
    pair.readdress(End::A, &[elsewhere]);
    pair.net.partitioned = false;
    forget_events(&mut pair);
    pair.run_for(Duration::from_secs(100));
    assert_eq!((ups(&pair.a, true), ups(&pair.b, true)), (1, 1));
    let at_b = pair.b.endpoint.status(pair.now);
    assert_eq!(at_b.len(), 1);
    assert_eq!(at_b[0].path.remote.ip(), elsewhere);
}

#[test]
fn with_and_without_a_child_in_ike_auth() {
    for childless in [Childless::Never, Childless::Prefer, Childless::Force] {
        let mut hosts = Hosts::new(1);
        hosts.a.childless = childless;
        hosts.b.childless = childless;
        let mut pair = hosts.up();
        interrupt(&mut pair);
        assert_resumed(&pair);
        let made = count(&pair, ExchangeType::CREATE_CHILD_SA);
        assert_eq!(made > 0, childless != Childless::Never, "{childless:?}");
    }
}

#[test]
fn in_fragments() {
    let mut hosts = Hosts::new(1);
    for connection in [&mut hosts.a, &mut hosts.b] {
        connection.fragmentation.mode = obol_ike::config::FragmentationMode::Force;
        connection.fragmentation.size = 576;
    }
    let mut pair = hosts.up();
    interrupt(&mut pair);
    assert_resumed(&pair);
}

/// Nobody but the client asks for tickets, and nobody gets one for an IKE SA that is to go.
#[test]
fn a_crashed_client_has_no_ticket_and_its_old_one_is_void() {
    let mut pair = Hosts::new(1).up();
    let packet = {
        let mut copy = Hosts::new(1).up();
        first_presented(&mut copy)
    };
    forget_events(&mut pair);
    pair.net.sent.clear();
    pair.restart(End::A);
    pair.run_for(Duration::from_secs(20));
    assert_made_anew(&pair);
    assert_eq!(presented(&pair), 0);
    give(&mut pair, packet, |_| {});
    assert_eq!(dropped(&pair.b, Dropped::TicketVoid), 1);
    assert!(pair.send_packet(End::A, HOSTS, PODS));
}

/// Nor is it a way around that: another one may have come in its place.
#[test]
fn a_ticket_gets_no_further_than_a_proof_where_another_one_is_kept() {
    let mut hosts = Hosts::new(1).by_keys();
    hosts.a.initial_contact = false;
    hosts.b.remote_addrs.clear();
    hosts.b.peer.unique = Unique::Keep;
    let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 77));
    let mut second = hosts.a.clone();
    second.local_addrs = vec![elsewhere];
    let second = Node::new(elsewhere, config(second, &hosts.settings), 9).with_key(ed25519(1));
    let mut pair = hosts.up();
    pair.net.dead = vec![A];
    pair.run_for(Duration::from_secs(300));
    pair.others.push(second);
    let begin = Command::Initiate {
        connection: HOSTS.to_owned(),
        child: None,
        local: None,
    };
    let now = pair.now;
    let told = pair.others[0].endpoint.handle_command(now, begin);
    told.expect("it has the connection");
    pair.run_for(Duration::from_secs(600));
    let at = |pair: &Pair| {
        let status = pair.b.endpoint.status(pair.now);
        let all = status.iter().filter(|sa| sa.state == "established");
        all.map(|sa| sa.path.remote.ip()).collect::<Vec<_>>()
    };
    assert_eq!(at(&pair), [elsewhere]);
    forget_events(&mut pair);
    pair.net.dead.clear();
    pair.run_for(Duration::from_secs(120));
    let refused = |event: &Event| {
        let why = |reason: &IkeFailure| matches!(reason, IkeFailure::UpElsewhere { .. });
        matches!(event, Event::IkeFailed { reason, .. } if why(reason))
    };
    assert!(pair.b.count(refused) > 0);
    assert_eq!(at(&pair), [elsewhere]);
}
