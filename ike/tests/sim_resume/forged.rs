//! Copies and forgeries.

use crate::hosts::*;

#[test]
fn copies_of_a_ticket_fill_no_memory_and_lead_nowhere() {
    let mut hosts = Hosts::new(1);
    hosts.settings.cookie_threshold = 10;
    hosts.settings.half_open_limit = 20;
    let mut pair = hosts.up();
    let packet = first_presented(&mut pair);
    pair.net.clear();
    pair.net.sent.clear();
    for n in 0..100u8 {
        give(&mut pair, packet.clone(), |d| d[0] ^= n);
    }
    let half_open = |pair: &Pair| {
        let sas = pair.b.endpoint.status(pair.now);
        sas.iter().filter(|sa| sa.state == "connecting").count()
    };
    assert_eq!(half_open(&pair), 10);
    assert_eq!(dropped(&pair.b, Dropped::Cookie), 90);
    // None is established by who does not know the keys.
    let replies: Vec<Packet> = pair.net.sent.iter().take(10).cloned().collect();
    for reply in replies {
        let header = Header::parse(&reply.datagram).expect("ours");
        let mut forged = packet.clone();
        forged.datagram = obol_ike::wire::protected_prefix(
            &Header {
                exchange: ExchangeType::IKE_AUTH,
                message_id: 1,
                flags: obol_ike::wire::Flags {
                    initiator: true,
                    ..Default::default()
                },
                ..header
            },
            None,
            PayloadType::ID_I,
            100,
        )
        .expect("short");
        forged.datagram.extend([7; 100]);
        give(&mut pair, forged, |_| {});
    }
    assert_eq!(dropped(&pair.b, Dropped::Integrity), 10);
    pair.net.partitioned = false;
    pair.run_for(Duration::from_secs(60));
    assert_eq!(half_open(&pair), 0);
    assert_eq!(ups(&pair.b, true), 1);
    pair.assert_up(1);
}

/// An IKE_AUTH message under the keys of this end, with an AUTH that proves nothing.
fn forged_auth(node: &Node, at: &Pair, response: bool, ids: (&str, &str)) -> Vec<u8> {
    let body = |id: &str| id.parse::<Identity>().expect("an identity").to_body();
    let (id_i, id_r) = (body(ids.0), body(ids.1));
    let auth = Payload::Auth(Auth {
        method: AuthMethod::SHARED_KEY,
        data: &[7; 32],
    });
    let id = |body| Id::from_body(body).expect("a body");
    let payloads = match response {
        true => vec![Payload::IdR(id(&id_r)), auth],
        false => vec![Payload::IdI(id(&id_i)), Payload::IdR(id(&id_r)), auth],
    };
    let mut forgery = Forgery::of(ExchangeType::IKE_AUTH, response, &payloads);
    forgery.message_id = 1;
    let sas = at.a.endpoint.status(at.now);
    let new = sas.iter().find(|sa| sa.state == "connecting");
    let new = new.expect("a resumed one is being made");
    let forged = node.endpoint.forge(new.spi_i, new.spi_r, &forgery);
    forged.expect("it has keys")
}

fn not_proven(node: &Node) -> Vec<String> {
    let reasons = node.events.iter().filter_map(|event| match event {
        Event::IkeFailed {
            reason: IkeFailure::PeerNotProven { reason, .. },
            ..
        } => Some(reason.clone()),
        _ => None,
    });
    reasons.collect()
}

//= test rfc5723 4.3.3-2 4.3.3-4
#[test]
fn the_ends_are_those_of_the_ticket_and_know_its_keys() {
    const OTHER: &str = "@hostc.example.com";
    // As responder.
    for (ids, expected) in [
        ((OTHER, ID_B), "between other identities"),
        ((ID_A, OTHER), "between other identities"),
        ((ID_A, ID_B), "without knowing the keys"),
    ] {
        let mut pair = Hosts::new(1).up();
        let before = pair.b.endpoint.status(pair.now).len();
        lose(&mut pair);
        pair.a.answer_delay = Duration::from_secs(3600);
        pair.net.partitioned = false;
        forget_events(&mut pair);
        pair.run_for(Duration::from_secs(5));
        let datagram = forged_auth(&pair.a, &pair, false, ids);
        let (from, to) = ((A, 500).into(), (B, 500).into());
        give(&mut pair, Packet { from, to, datagram }, |_| {});
        let reasons = not_proven(&pair.b);
        assert!(reasons[0].contains(expected), "{reasons:?}");
        assert_eq!(ups(&pair.b, true), 0);
        let now_up = pair.b.endpoint.status(pair.now);
        assert_eq!(now_up.len(), before, "the old one stays");
    }
    // As initiator.
    for id in [OTHER, ID_B] {
        let mut hosts = Hosts::new(1).by_keys();
        hosts.a.remote.id = None;
        let mut pair = hosts.up();
        lose(&mut pair);
        pair.b.answer_delay = Duration::from_secs(3600);
        pair.net.partitioned = false;
        forget_events(&mut pair);
        pair.run_for(Duration::from_secs(5));
        let datagram = forged_auth(&pair.b, &pair, true, (ID_A, id));
        let (from, to) = ((B, 500).into(), (A, 500).into());
        give(&mut pair, Packet { from, to, datagram }, |_| {});
        assert_eq!(why_not(&pair.a), [NotResumed::NotProven], "{id}");
        assert_eq!(ups(&pair.a, true), 0);
        assert!(pair.a.plane.outbound.is_empty());
    }
}

/// Whoever sees the request can answer it, but keeps the responder's own answer from nothing.
#[test]
fn forged_answers_do_not_keep_the_true_one_out() {
    let mut pair = Hosts::new(1).up();
    forget_events(&mut pair);
    lose(&mut pair);
    pair.net.sent.clear();
    pair.net.partitioned = false;
    let end = pair.now + Duration::from_secs(10);
    pair.run_until(end, |pair| presented(pair) > 0);
    let asked = pair.net.sent.last().expect("presented").clone();
    let spi_i = Header::parse(&asked.datagram).expect("ours").spi_i;
    for n in 1..=20u64 {
        let flags = obol_ike::wire::Flags {
            response: true,
            ..Default::default()
        };
        let spi_r = obol_ike::event::IkeSpi(n);
        let header = Header::new(spi_i, spi_r, ExchangeType::IKE_SESSION_RESUME, flags, 0);
        let nonce = [n as u8; 32];
        let datagram = obol_ike::wire::emit_message(&header, &[Payload::Nonce(&nonce)]);
        let (from, to) = (asked.to, asked.from);
        let datagram = datagram.expect("short");
        give(&mut pair, Packet { from, to, datagram }, |_| {});
    }
    pair.run_for(Duration::from_secs(20));
    assert_resumed(&pair);
    assert!(why_not(&pair.a).is_empty());
}

/// What anybody can send makes us ask the peer, and begin from scratch beside an IKE SA that may be
/// lost; a ticket is for one that is.
//= test rfc5723 9.4-1
#[test]
fn signs_that_anybody_can_give_present_no_ticket() {
    let mut pair = Hosts::new(1).up();
    pair.net.sent.clear();
    pair.net.partitioned = true;
    pair.command(End::A, Command::PathTrouble { remote: B })
        .expect("always taken");
    pair.run_for(Duration::from_secs(10));
    assert!(count(&pair, ExchangeType::IKE_SA_INIT) > 0, "it doubts");
    pair.run_for(Duration::from_secs(300));
    assert_eq!(presented(&pair), 0);
}
