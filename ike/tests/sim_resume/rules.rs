//! Who has tickets, and what stays as it is without resumption: proofs of identity, cookies.

use crate::hosts::*;

//= test rfc5723 4.1-1
#[test]
fn only_who_began_has_tickets() {
    let mut hosts = Hosts::new(1);
    hosts.a.dpd_delay = None;
    hosts.b.dpd_delay = Some(Duration::from_secs(30));
    let mut child = (*hosts.b.children[0]).clone();
    child.start_action = StartAction::Start;
    child.upkeep.dpd_action = Some(StartAction::Start);
    hosts.b.children = vec![Arc::new(child)];
    let mut quiet = (*hosts.a.children[0]).clone();
    quiet.start_action = StartAction::None;
    hosts.a.children = vec![Arc::new(quiet)];
    let mut pair = hosts.pair(1);
    // The first host begins; the second brings up again what it loses.
    pair.initiate(End::A, HOSTS);
    pair.run_for(Duration::from_secs(5));
    rekey(&mut pair, End::B);
    pair.net.partitioned = true;
    pair.run_for(Duration::from_secs(300));
    pair.net.partitioned = false;
    pair.net.sent.clear();
    forget_events(&mut pair);
    pair.run_for(Duration::from_secs(200));
    assert_eq!(ups(&pair.b, false), 1);
    assert_eq!(count(&pair, ExchangeType::IKE_SESSION_RESUME), 0);
}

//= test rfc5723 6.2-4
#[test]
fn resuming_does_not_put_off_the_proof_of_identities() {
    let reauth = Duration::from_secs(2000);
    let mut hosts = Hosts::new(1);
    hosts.b.peer.reauth_time = Some(reauth);
    let mut pair = hosts.up();
    let begin = pair.now;
    // So often that the jitter of lifetimes makes no difference.
    while pair.now - begin < reauth / 2 {
        interrupt(&mut pair);
        assert_resumed(&pair);
    }
    let left = pair.a.endpoint.status(pair.now)[0].reauth_in;
    assert!(left.expect("told") <= reauth - (pair.now - begin));
    forget_events(&mut pair);
    let end = begin + reauth;
    pair.run_until(end, |pair| ups(&pair.a, false) > 0);
    assert!(pair.now < end, "not proven anew in time");
    pair.run_for(Duration::from_secs(60));
    assert_made_anew(&pair);
    // Nor is a ticket good for longer.
    let mut hosts = Hosts::new(1);
    hosts.b.peer.reauth_time = Some(Duration::from_secs(200));
    hosts.b.peer.unique = Unique::Replace;
    let mut pair = hosts.up();
    let packet = first_presented(&mut pair);
    pair.run_for(Duration::from_secs(200));
    give(&mut pair, packet, |_| {});
    assert_eq!(dropped(&pair.b, Dropped::TicketExpired), 1);
}

#[test]
fn a_cookie_is_asked_for_and_given() {
    let mut hosts = Hosts::new(1);
    hosts.settings.cookie_threshold = 0;
    let mut pair = hosts.up();
    interrupt(&mut pair);
    assert_resumed(&pair);
    assert_eq!(count(&pair, ExchangeType::IKE_SESSION_RESUME), 4);
    assert!(dropped(&pair.b, Dropped::Cookie) > 0);
    let (asked, given) = (&pair.net.sent[1].datagram, &pair.net.sent[2].datagram);
    assert!(asked.len() < pair.net.sent[0].datagram.len());
    let message = Message::parse(given).expect("ours");
    let Ok(Payload::Notify(first)) = message.payloads[0].decode() else {
        panic!("a notify");
    };
    assert_eq!(first.ty, NotifyType::COOKIE);
    // No puzzle goes with it, however many there are.
    let mut hosts = Hosts::new(1);
    hosts.settings.cookie_threshold = 0;
    hosts.settings.puzzles.threshold = 0;
    let mut pair = hosts.up();
    interrupt(&mut pair);
    assert_resumed(&pair);
}
