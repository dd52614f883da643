//! Session resumption (RFC 5723): what an IKE SA that was lost is made of, and when it is made from
//! scratch instead.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{
    Childless, Config, Connection, LocalAuthMethod, RemoteAuthMethod, Settings, StartAction, Unique,
};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::error::{Dropped, IkeFailure, NotResumed};
use obol_ike::event::{Command, Event};
use obol_ike::identity::Identity;
use obol_ike::testing::forge::Forgery;
use obol_ike::testing::net::{Net, Packet};
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{A, B, HOSTS, ID_A, ID_B, PODS, Setup, mirror};
use obol_ike::wire::{
    Auth, AuthMethod, ExchangeType, Header, Id, Message, NotifyType, Payload, PayloadType,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const SECRET: &[u8] = b"a secret for tests";
const KEY: &[u8] = b"what the second host makes tickets with";

/// The first host is the client, which looks every 30 s whether the second lives.
struct Hosts {
    a: Connection,
    b: Connection,
    settings: Settings,
    net: Net,
    keys: bool,
}

impl Hosts {
    fn new(seed: u64) -> Self {
        let mut a = Setup::started(seed).connection;
        a.resumption.enabled = true;
        a.dpd_delay = Some(Duration::from_secs(30));
        let mut b = mirror(&a, StartAction::None);
        b.dpd_delay = None;
        Self {
            a,
            b,
            settings: Settings::default(),
            net: Net::seeded(seed),
            keys: false,
        }
    }

    /// The second host gives up a silent client, too.
    fn both_give_up(mut self) -> Self {
        self.b.dpd_delay = Some(Duration::from_secs(20));
        self
    }

    /// Proven by raw keys.
    fn by_keys(mut self) -> Self {
        let key = |n| ed25519(n).public();
        self.a.local.method = LocalAuthMethod::Key(key(1));
        self.a.remote.method = RemoteAuthMethod::Keys(vec![key(2)]);
        self.b.local.method = LocalAuthMethod::Key(key(2));
        self.b.remote.method = RemoteAuthMethod::Keys(vec![key(1)]);
        self.keys = true;
        self
    }

    fn pair(self, seed: u64) -> Pair {
        let node = |address, connection: Connection, n| {
            let config = config(connection, &self.settings);
            let node = Node::new(address, config, seed * 2 + n);
            if self.keys {
                node.with_key(ed25519(n))
            } else {
                node.with_secret(ID_A, ID_B, SECRET)
            }
        };
        let (a, b) = (node(A, self.a, 1), node(B, self.b, 2));
        Pair::new(a, b, self.net)
    }

    fn up(self) -> Pair {
        let mut pair = self.pair(1);
        pair.start();
        pair.run_for(Duration::from_secs(5));
        pair.assert_up(1);
        pair
    }
}

fn ed25519(seed: u64) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(seed))
}

fn config(connection: Connection, settings: &Settings) -> Config {
    Config {
        connections: vec![Arc::new(connection)],
        settings: settings.clone(),
    }
}

/// Until the client has given its IKE SA up, and has begun anew.
fn lose(pair: &mut Pair) {
    pair.net.partitioned = true;
    let end = pair.now + Duration::from_secs(300);
    pair.run_until(end, |pair| {
        pair.a.count(|e| matches!(e, Event::IkeDown { .. })) > 0
    });
    assert!(pair.now < end, "it did not notice");
    assert!(pair.a.plane.outbound.is_empty());
}

/// Lost, and found again.
fn interrupt(pair: &mut Pair) {
    forget_events(pair);
    lose(pair);
    pair.net.partitioned = false;
    pair.net.sent.clear();
    pair.run_for(Duration::from_secs(60));
}

fn forget_events(pair: &mut Pair) {
    for node in [&mut pair.a, &mut pair.b] {
        node.events.clear();
        node.dropped.clear();
    }
}

fn ups(node: &Node, is_resumed: bool) -> usize {
    node.count(
        |e| matches!(e, Event::IkeUp { resumed, rekey: false, .. } if *resumed == is_resumed),
    )
}

/// Both ends have one IKE SA, which was resumed, with the child.
fn assert_resumed(pair: &Pair) {
    pair.assert_up(1);
    for node in [&pair.a, &pair.b] {
        assert_eq!(
            (ups(node, true), ups(node, false)),
            (1, 0),
            "{:?}",
            node.events
        );
        assert!(node.endpoint.status(pair.now)[0].resumed);
    }
}

/// The same, made from scratch.
fn assert_made_anew(pair: &Pair) {
    pair.assert_up(1);
    for node in [&pair.a, &pair.b] {
        assert_eq!(
            (ups(node, true), ups(node, false)),
            (0, 1),
            "{:?}",
            node.events
        );
        assert!(!node.endpoint.status(pair.now)[0].resumed);
    }
}

fn why_not(node: &Node) -> Vec<NotResumed> {
    let reasons = node.events.iter().filter_map(|event| match event {
        Event::NotResumed { reason, .. } => Some(*reason),
        _ => None,
    });
    reasons.collect()
}

fn downs(node: &Node) -> Vec<IkeFailure> {
    let reasons = node.events.iter().filter_map(|event| match event {
        Event::IkeDown { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    reasons.collect()
}

fn exchange(packet: &Packet) -> ExchangeType {
    Header::parse(&packet.datagram)
        .expect("a message of ours")
        .exchange
}

fn count(pair: &Pair, ty: ExchangeType) -> usize {
    pair.net.sent.iter().filter(|p| exchange(p) == ty).count()
}

fn presented(pair: &Pair) -> usize {
    let from = |packet: &&Packet| packet.from.ip() == pair.a.address;
    let sent = pair.net.sent.iter().filter(from);
    sent.filter(|p| exchange(p) == ExchangeType::IKE_SESSION_RESUME)
        .count()
}

fn dropped(node: &Node, reason: Dropped) -> usize {
    node.dropped.get(&reason).copied().unwrap_or(0)
}

fn terminate(pair: &mut Pair, end: End) {
    let command = Command::Terminate {
        connection: HOSTS.to_owned(),
        child: None,
    };
    pair.command(end, command).expect("it is up");
}

fn rekey(pair: &mut Pair, end: End) {
    let connection = HOSTS.to_owned();
    pair.command(end, Command::RekeyIke { connection })
        .expect("it is up");
    pair.run_for(Duration::from_secs(5));
}

/// The first IKE_SESSION_RESUME request of a client whose messages do not arrive.
fn first_presented(pair: &mut Pair) -> Packet {
    pair.net.sent.clear();
    lose(pair);
    let end = pair.now + Duration::from_secs(10);
    pair.run_until(end, |pair| presented(pair) > 0);
    let mut sent = pair.net.sent.iter();
    let found = sent.find(|p| exchange(p) == ExchangeType::IKE_SESSION_RESUME);
    found.cloned().expect("it presents its ticket")
}

/// Gives the second host a datagram as if it came from the first.
fn give(pair: &mut Pair, mut packet: Packet, change: impl FnOnce(&mut Vec<u8>)) {
    change(&mut packet.datagram);
    pair.net.inject(pair.now, packet);
    pair.run_for(Duration::ZERO);
}

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

fn ticket_in(datagram: &[u8]) -> Vec<u8> {
    let message = Message::parse(datagram).expect("a message of ours");
    let ticket = message.payloads.iter().find_map(|raw| match raw.decode() {
        Ok(Payload::Notify(n)) if n.ty == NotifyType::TICKET_OPAQUE => Some(n.data.to_vec()),
        _ => None,
    });
    ticket.expect("it presents one")
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
            proposals.remove(0);
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
