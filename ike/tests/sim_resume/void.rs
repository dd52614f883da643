//! Tickets that are good no more, or never were.

use crate::hosts::*;

//= test rfc5723 4.3.1-3 7-1
#[test]
fn a_ticket_that_was_used_is_good_no_more() {
    let mut pair = Hosts::new(1).up();
    let packet = first_presented(&mut pair);
    pair.net.partitioned = false;
    pair.run_for(Duration::from_secs(20));
    pair.assert_up(1);
    forget_events(&mut pair);
    pair.net.sent.clear();
    // As it was, and as another request.
    give(&mut pair, packet.clone(), |_| {});
    assert_eq!(dropped(&pair.b, Dropped::Repeated), 1);
    give(&mut pair, packet.clone(), |d| d[3] ^= 1);
    assert_eq!(dropped(&pair.b, Dropped::TicketVoid), 1);
    assert_eq!(pair.net.sent.len(), 1);
    for nack in &pair.net.sent {
        let message = Message::parse(&nack.datagram).expect("ours");
        let Ok(Payload::Notify(notify)) = message.payloads[0].decode() else {
            panic!("a notify");
        };
        assert_eq!(notify.ty, NotifyType::TICKET_NACK);
        assert_eq!((message.payloads.len(), notify.data.len()), (1, 0));
        assert_eq!((notify.protocol.0, notify.spi.len()), (0, 0));
        assert!(nack.datagram.len() < packet.datagram.len());
    }
    pair.assert_up(1);
    assert!(pair.b.events.is_empty());
}

#[test]
fn no_altered_ticket_or_request_gets_anything() {
    let mut pair = Hosts::new(1).up();
    let packet = first_presented(&mut pair);
    let ticket = ticket_in(&packet.datagram);
    let start = packet
        .datagram
        .windows(ticket.len())
        .position(|octets| octets == ticket)
        .expect("it is in there");
    pair.net.clear();
    let before = pair.b.endpoint.status(pair.now).len();
    for octet in start..start + ticket.len() {
        give(&mut pair, packet.clone(), |d| d[octet] ^= 0x10);
        assert_eq!(pair.b.endpoint.status(pair.now).len(), before, "{octet}");
    }
    let counted = [
        (Dropped::TicketMalformed, 1),
        (Dropped::TicketUnknownKey, 8),
        (Dropped::TicketForged, ticket.len() - 9),
    ];
    for (reason, number) in counted {
        assert_eq!(dropped(&pair.b, reason), number, "{reason:?}");
    }
    for len in 0..packet.datagram.len() {
        give(&mut pair, packet.clone(), |d| d.truncate(len));
    }
    // The same, with lengths that say so.
    let last = start + ticket.len() - 1;
    give(&mut pair, packet.clone(), |d| {
        d.remove(last);
        let len = d.len() as u32;
        d[24..28].copy_from_slice(&len.to_be_bytes());
        let payload = start - 6;
        let len = u16::from_be_bytes([d[payload], d[payload + 1]]) - 1;
        d[payload..payload + 2].copy_from_slice(&len.to_be_bytes());
    });
    assert_eq!(
        dropped(&pair.b, Dropped::TicketForged),
        ticket.len() - 9 + 1
    );
    assert_eq!(pair.b.endpoint.status(pair.now).len(), before);
    assert!(pair.b.count(|e| matches!(e, Event::IkeFailed { .. })) == 0);
    // None of that has used it up.
    pair.net.partitioned = false;
    pair.run_for(Duration::from_secs(60));
    assert_eq!(ups(&pair.b, true), 1);
    pair.assert_up(1);
}

//= test rfc5723 4.3.1-1 6.1-6
#[test]
fn a_ticket_that_is_too_old_is_not_presented_and_would_not_be_taken() {
    let mut hosts = Hosts::new(1);
    hosts.b.resumption.lifetime = Duration::from_secs(300);
    let mut pair = hosts.up();
    let packet = first_presented(&mut pair);
    pair.run_for(Duration::from_secs(301));
    pair.net.clear();
    pair.net.sent.clear();
    pair.net.partitioned = false;
    forget_events(&mut pair);
    pair.run_for(Duration::from_secs(150));
    assert_eq!(presented(&pair), 0);
    pair.assert_up(1);
    assert_eq!(ups(&pair.a, true), 0);
    give(&mut pair, packet, |_| {});
    assert_eq!(dropped(&pair.b, Dropped::TicketExpired), 1);
}

//= test rfc5723 6.2-5
#[test]
fn a_ticket_is_renewed_before_it_is_too_old() {
    let mut hosts = Hosts::new(1);
    hosts.b.resumption.lifetime = Duration::from_secs(400);
    let mut pair = hosts.up();
    pair.run_for(Duration::from_secs(3000));
    interrupt(&mut pair);
    assert_resumed(&pair);
}

/// What is changed at the second host before the client comes back.
fn change(name: &str, connection: &mut Connection) {
    match name {
        "off" => connection.resumption.enabled = false,
        "address" => connection.remote_addrs = vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))],
        "name" => connection.name = "other".to_owned(),
        "own identity" => connection.local.id = "@hostc.example.com".parse().ok(),
        "client's identity" => connection.remote.id = "@hostc.example.com".parse().ok(),
        "method" => {
            connection.remote.method = RemoteAuthMethod::Keys(vec![ed25519(7).public()]);
        }
        "algorithms" => {
            let proposals = &mut connection.ike_proposals;
            *proposals = proposals[1..].into();
        }
        _ => unreachable!(),
    }
}

#[test]
fn what_the_configuration_does_not_allow_any_more_is_not_resumed() {
    // Whether the same client is welcome from scratch.
    for (name, welcome) in [
        ("off", true),
        ("address", false),
        ("name", true),
        ("own identity", false),
        ("client's identity", false),
        ("method", false),
        ("algorithms", true),
    ] {
        let hosts = Hosts::new(1).both_give_up();
        let mut changed = hosts.b.clone();
        let settings = hosts.settings.clone();
        change(name, &mut changed);
        let mut pair = hosts.up();
        let packet = first_presented(&mut pair);
        pair.run_for(Duration::from_secs(300));
        assert!(pair.b.endpoint.status(pair.now).is_empty(), "it gave up");
        let now = pair.now;
        let config = Arc::new(config(changed, &settings));
        pair.b.endpoint.reload(now, config);
        forget_events(&mut pair);
        pair.net.clear();
        pair.net.partitioned = false;
        pair.net.sent.clear();
        pair.run_for(Duration::from_secs(200));
        assert_eq!(ups(&pair.a, true) + ups(&pair.b, true), 0, "{name}");
        assert_eq!(ups(&pair.a, false) > 0, welcome, "{name}");
        assert_eq!(pair.b.plane.inbound.len(), usize::from(welcome), "{name}");
        // As one that was under way all the time.
        give(&mut pair, packet, |d| d[5] ^= 1);
        let expected = match name {
            "address" => Dropped::NoConnection,
            _ => Dropped::TicketPolicy,
        };
        assert!(
            dropped(&pair.b, expected) > 0,
            "{name}: {:?}",
            pair.b.dropped
        );
    }
}

#[test]
fn who_was_removed_from_the_configuration_does_not_come_back() {
    let hosts = Hosts::new(1).both_give_up();
    let mut other = hosts.b.clone();
    other.name = "other".to_owned();
    other.remote.id = "@hostc.example.com".parse().ok();
    let settings = hosts.settings.clone();
    let mut pair = hosts.up();
    lose(&mut pair);
    let now = pair.now;
    pair.b
        .endpoint
        .reload(now, Arc::new(config(other, &settings)));
    forget_events(&mut pair);
    pair.net.partitioned = false;
    pair.run_for(Duration::from_secs(400));
    assert_eq!(ups(&pair.a, true) + ups(&pair.b, true), 0);
    assert!(pair.b.plane.inbound.is_empty() && pair.a.plane.outbound.is_empty());
    assert_eq!(why_not(&pair.a), [NotResumed::Refused]);
}

//= test rfc5723 6.2-2
/// A connection for whoever has the secret: a client is removed by removing its secret.
#[test]
fn another_shared_secret_voids_tickets() {
    let secrets: [&[u8]; 2] = [SECRET, b"another"];
    for (n, (at_a, at_b)) in [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0)].iter().enumerate() {
        let mut pair = Hosts::new(1).up();
        lose(&mut pair);
        for (node, which) in [(&mut pair.a, at_a), (&mut pair.b, at_b)] {
            match secrets.get(*which) {
                Some(secret) => node.secrets[0].2 = secret.to_vec(),
                None => node.secrets.clear(),
            }
        }
        forget_events(&mut pair);
        pair.net.partitioned = false;
        pair.run_for(Duration::from_secs(300));
        assert_eq!(ups(&pair.a, true) + ups(&pair.b, true), 0, "{n}");
        let welcome = at_a == at_b;
        assert_eq!(ups(&pair.a, false), usize::from(welcome), "{n}");
        let first = why_not(&pair.a)[0];
        let expected = if *at_a == 0 {
            NotResumed::Notify(NotifyType::AUTHENTICATION_FAILED)
        } else {
            NotResumed::SecretChanged
        };
        assert_eq!(first, expected, "{n}");
    }
}

//= test rfc5723 6.2-1
#[test]
fn a_ticket_goes_with_an_ike_sa_that_is_deleted() {
    // By the client.
    let mut pair = Hosts::new(1).up();
    terminate(&mut pair, End::A);
    pair.run_for(Duration::from_secs(10));
    pair.net.sent.clear();
    forget_events(&mut pair);
    pair.initiate(End::A, HOSTS);
    pair.run_for(Duration::from_secs(10));
    assert_made_anew(&pair);
    assert_eq!(presented(&pair), 0);
    // By the responder, and the client hears of it.
    let mut pair = Hosts::new(1).up();
    pair.net.sent.clear();
    forget_events(&mut pair);
    terminate(&mut pair, End::B);
    pair.run_for(Duration::from_secs(30));
    assert_made_anew(&pair);
    assert_eq!(presented(&pair), 0);
    // The operator of the client closes what was lost.
    let mut pair = Hosts::new(1).up();
    lose(&mut pair);
    terminate(&mut pair, End::A);
    pair.net.clear();
    pair.net.partitioned = false;
    pair.net.sent.clear();
    forget_events(&mut pair);
    pair.run_for(Duration::from_secs(100));
    pair.initiate(End::A, HOSTS);
    pair.run_for(Duration::from_secs(10));
    assert_eq!((presented(&pair), ups(&pair.a, false)), (0, 1));
}

//= test rfc5723 6.2-1
#[test]
fn a_responder_that_deleted_an_ike_sa_does_not_take_its_ticket() {
    let mut pair = Hosts::new(1).up();
    pair.net.partitioned = true;
    terminate(&mut pair, End::B);
    forget_events(&mut pair);
    lose(&mut pair);
    pair.net.partitioned = false;
    pair.run_for(Duration::from_secs(60));
    assert_made_anew(&pair);
    assert_eq!(dropped(&pair.b, Dropped::TicketVoid), 1);
    assert_eq!(why_not(&pair.a), [NotResumed::Refused]);
}

//= test rfc5723 4.1-1 6.2-3
#[test]
fn a_rekeyed_ike_sa_has_a_ticket_of_its_own() {
    for by in [End::A, End::B] {
        let mut pair = Hosts::new(1).up();
        let asked = count(&pair, ExchangeType::INFORMATIONAL);
        rekey(&mut pair, by);
        pair.assert_up(1);
        // The old one is deleted, and a ticket asked for.
        assert_eq!(count(&pair, ExchangeType::INFORMATIONAL), asked + 4);
        interrupt(&mut pair);
        assert_resumed(&pair);
    }
}

/// From the moment at which the responder has made the new one, or begins to delete.
#[test]
fn a_ticket_is_void_before_the_client_knows_it() {
    let packet = first_presented(&mut Hosts::new(1).up());
    let refused = |pair: &mut Pair| {
        give(pair, packet.clone(), |_| {});
        assert_eq!(dropped(&pair.b, Dropped::TicketVoid), 1);
    };
    let mut pair = Hosts::new(1).up();
    let connection = HOSTS.to_owned();
    pair.command(End::A, Command::RekeyIke { connection })
        .expect("it is up");
    pair.run_for(Duration::from_millis(15));
    assert_eq!(pair.b.endpoint.status(pair.now).len(), 2);
    refused(&mut pair);
    let mut pair = Hosts::new(1).up();
    pair.net.partitioned = true;
    terminate(&mut pair, End::B);
    assert_eq!(pair.b.endpoint.status(pair.now)[0].state, "deleting");
    refused(&mut pair);
}

#[test]
fn the_configuration_may_change_until_the_last_moment() {
    let hosts = Hosts::new(1);
    let mut changed = hosts.b.clone();
    changed.resumption.enabled = false;
    let settings = hosts.settings.clone();
    let mut pair = hosts.up();
    lose(&mut pair);
    pair.a.answer_delay = Duration::from_secs(5);
    pair.net.partitioned = false;
    pair.net.sent.clear();
    forget_events(&mut pair);
    let end = pair.now + Duration::from_secs(10);
    let taken = |pair: &Pair| {
        let sas = pair.a.endpoint.status(pair.now);
        sas.iter().any(|sa| sa.spi_r.0 != 0)
    };
    pair.run_until(end, taken);
    assert!(taken(&pair), "the ticket is taken");
    let now = pair.now;
    let config = Arc::new(config(changed, &settings));
    pair.b.endpoint.reload(now, config);
    pair.run_for(Duration::from_secs(60));
    assert_made_anew(&pair);
    let refused = NotResumed::Notify(NotifyType::AUTHENTICATION_FAILED);
    assert_eq!(why_not(&pair.a), [refused]);
}
