//! What is resumed, and what is made from scratch instead.

use crate::hosts::*;

//= test rfc5723 4.2-2 4.3.2-1 4.3.3-3 4.3.4-1 5-3
#[test]
fn a_client_that_lost_its_way_resumes_with_a_responder_that_noticed_nothing() {
    for hosts in [Hosts::new(1), Hosts::new(1).by_keys()] {
        let mut pair = hosts.up();
        let old = pair.b.endpoint.status(pair.now)[0].clone();
        forget_events(&mut pair);
        lose(&mut pair);
        pair.net.partitioned = false;
        pair.net.sent.clear();
        pair.run_for(Duration::from_secs(20));
        assert_resumed(&pair);
        assert_eq!(count(&pair, ExchangeType::IKE_SA_INIT), 0);
        assert_eq!(downs(&pair.b), [IkeFailure::Resumed]);
        let new = &pair.b.endpoint.status(pair.now)[0];
        assert_ne!(new.spi_i, old.spi_i);
        assert_ne!(new.spi_r, old.spi_r);
        assert_eq!(new.remote_id, old.remote_id);
        assert_eq!(new.algorithms, old.algorithms);
        // Nothing told the client that the old one is gone.
        assert_eq!(count(&pair, ExchangeType::INFORMATIONAL), 0);
        // Two messages, and two more with proof and child.
        assert_eq!(pair.net.sent.len(), 4);
        assert!(pair.net.sent[1].datagram.len() < pair.net.sent[0].datagram.len());
        let asked = pair.b.endpoint.read(&pair.net.sent[2].datagram);
        let (_, names) = asked.expect("it has the keys");
        let has = |name: &str| names.iter().any(|has| has == name);
        assert!(has("IdI") && has("IdR") && has("Auth") && has("N(NotifyType(TICKET_REQUEST))"));
        assert!(!has("Cert"), "{names:?}");
        let message = Message::parse(&pair.net.sent[0].datagram).expect("ours");
        let types = |ty| message.payloads.iter().filter(|raw| raw.ty == ty).count();
        assert_eq!(types(PayloadType::SA) + types(PayloadType::KE), 0);
    }
}

#[test]
fn again_and_again_with_a_new_ticket_each_time() {
    let mut pair = Hosts::new(1).both_give_up().up();
    let mut tickets = Vec::new();
    for _ in 0..5 {
        interrupt(&mut pair);
        assert_resumed(&pair);
        tickets.push(ticket_in(&pair.net.sent[0].datagram));
    }
    tickets.sort();
    tickets.dedup();
    assert_eq!(tickets.len(), 5);
}

#[test]
fn a_responder_that_gave_up_too_takes_the_ticket() {
    let mut pair = Hosts::new(1).both_give_up().up();
    forget_events(&mut pair);
    lose(&mut pair);
    pair.run_for(Duration::from_secs(200));
    assert!(pair.b.endpoint.status(pair.now).is_empty());
    pair.net.partitioned = false;
    pair.run_for(Duration::from_secs(150));
    assert_resumed(&pair);
}

#[test]
fn after_a_restart_with_the_same_key_a_ticket_is_good_once() {
    let mut pair = Hosts::new(1).pair(1);
    pair.keep_tickets(End::B, KEY);
    pair.start();
    pair.run_for(Duration::from_secs(5));
    let packet = first_presented(&mut pair);
    pair.restart(End::B);
    forget_events(&mut pair);
    pair.net.partitioned = false;
    pair.run_for(Duration::from_secs(60));
    assert_resumed(&pair);
    give(&mut pair, packet, |d| d[0] ^= 1);
    assert_eq!(dropped(&pair.b, Dropped::TicketVoid), 1);
    pair.assert_up(1);
}

//= test rfc5723 4.3.2-3
#[test]
fn after_a_restart_without_the_key_it_is_made_anew_at_once() {
    for hosts in [Hosts::new(1), Hosts::new(1).by_keys()] {
        let mut pair = hosts.up();
        forget_events(&mut pair);
        lose(&mut pair);
        pair.restart(End::B);
        pair.net.partitioned = false;
        let begin = pair.now;
        let end = begin + Duration::from_secs(60);
        pair.run_until(end, |pair| ups(&pair.a, false) > 0);
        // A start waits for its pause, and a message for its repetition, but for nothing else.
        assert!(
            pair.now - begin < Duration::from_secs(3),
            "{:?}",
            pair.now - begin
        );
        pair.run_for(Duration::from_secs(5));
        assert_made_anew(&pair);
        assert_eq!(why_not(&pair.a), [NotResumed::Refused]);
        assert_eq!(dropped(&pair.b, Dropped::TicketUnknownKey), 1);
    }
}

#[test]
fn a_responder_that_knows_of_no_tickets_costs_seconds() {
    let mut hosts = Hosts::new(1);
    hosts.b.resumption.enabled = true;
    let mut other = hosts.b.clone();
    other.resumption.enabled = false;
    let settings = hosts.settings.clone();
    let mut pair = hosts.up();
    forget_events(&mut pair);
    lose(&mut pair);
    // As another program in its place.
    pair.b = Node::new(B, config(other, &settings), 99).with_secret(ID_A, ID_B, SECRET);
    pair.net.partitioned = false;
    let begin = pair.now;
    pair.run_until(begin + Duration::from_secs(60), |pair| {
        ups(&pair.a, false) > 0
    });
    assert!(
        pair.now - begin < Duration::from_secs(12),
        "{:?}",
        pair.now - begin
    );
    pair.run_for(Duration::from_secs(5));
    assert_made_anew(&pair);
    assert_eq!(why_not(&pair.a), [NotResumed::NoAnswer]);
    assert_eq!(dropped(&pair.b, Dropped::UnknownSpi), 6);
    let to_client = |packet: &&Packet| {
        packet.to.ip() == A && exchange(packet) == ExchangeType::IKE_SESSION_RESUME
    };
    assert_eq!(pair.net.sent.iter().filter(to_client).count(), 0);
}

/// In a long outage, the ticket is tried as often as a start from scratch.
#[test]
fn a_ticket_survives_starts_that_nobody_answers() {
    let mut pair = Hosts::new(1).up();
    forget_events(&mut pair);
    lose(&mut pair);
    pair.run_for(Duration::from_secs(1200));
    assert!(why_not(&pair.a).len() > 3);
    assert!(why_not(&pair.a).iter().all(|r| *r == NotResumed::NoAnswer));
    pair.net.partitioned = false;
    pair.run_for(Duration::from_secs(200));
    pair.assert_up(1);
}

//= test rfc5723 4.1-2 4.1-3 4.3.2-2
#[test]
fn without_the_option_nothing_on_the_wire_is_different() {
    for end in [End::A, End::B] {
        let mut hosts = Hosts::new(1);
        let connection = match end {
            End::A => &mut hosts.a,
            End::B => &mut hosts.b,
        };
        connection.resumption.enabled = false;
        let mut pair = hosts.up();
        interrupt(&mut pair);
        assert_made_anew(&pair);
        assert_eq!(presented(&pair), 0);
    }
    assert!(!Setup::new(1).connection.resumption.enabled, "the default");
}
