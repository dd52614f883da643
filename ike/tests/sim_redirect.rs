//! Redirects (RFC 5685): a client, and two gateways of one identity.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{Config, Connection, StartAction};
use obol_ike::error::{CommandError, Dropped, IkeFailure, RedirectRefusal};
use obol_ike::event::{Command, Event};
use obol_ike::testing::net::{Net, Packet};
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::scripted::Scripted;
use obol_ike::testing::setup::{A, B, HOSTS, ID_A, ID_B, Setup, mirror};
use obol_ike::wire::{
    ExchangeType, Flags, Header, Message, Notify, NotifyType, Payload, emit_message,
};

const C: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 3));
const SECRET: &[u8] = b"a secret for tests";

/// The client, and what each gateway has.
struct Trio {
    client: Connection,
    b: Vec<Connection>,
    c: Connection,
    secret_c: &'static [u8],
    net: Net,
}

impl Trio {
    /// The first gateway sends clients to the second one, and the client goes.
    fn new(seed: u64) -> Self {
        let mut client = Setup::started(seed).connection;
        client.redirect.follow = true;
        let mut b = mirror(&client, StartAction::None);
        b.redirect.follow = false;
        let mut c = b.clone();
        c.local_addrs = vec![C];
        b.redirect.to = Some(C);
        Self {
            client,
            b: vec![b],
            c,
            secret_c: SECRET,
            net: Net::seeded(seed),
        }
    }

    /// So that only IKE_AUTH shows what is to be done with a client.
    fn by_identity(mut self) -> Self {
        let mut other = self.b[0].clone();
        other.name = "others".to_owned();
        other.redirect.to = None;
        other.remote.id = "@somebody.example.com".parse().ok();
        self.b.insert(0, other);
        self
    }

    /// Nobody is sent away but by an operator.
    fn by_command(mut self) -> Self {
        self.b[0].redirect.to = None;
        self
    }

    fn pair(self, seed: u64) -> Pair {
        let node = |address, connections: Vec<Connection>, n, secret: &[u8]| {
            let node = Node::new(address, config(connections), seed * 3 + n);
            node.with_secret(ID_A, ID_B, secret)
        };
        let a = node(A, vec![self.client], 0, SECRET);
        let b = node(B, self.b, 1, SECRET);
        let mut pair = Pair::new(a, b, self.net);
        pair.others = vec![node(C, vec![self.c], 2, self.secret_c)];
        pair
    }

    fn run(self, time: Duration) -> Pair {
        let mut pair = self.pair(1);
        pair.start();
        pair.run_for(time);
        pair
    }
}

fn config(connections: Vec<Connection>) -> Config {
    Config {
        connections: connections.into_iter().map(Arc::new).collect(),
        ..Config::default()
    }
}

/// The client has one IKE SA with one child, with this gateway, and no other has any.
fn assert_with(pair: &Pair, gateway: IpAddr) {
    let sas = pair.a.endpoint.status(pair.now);
    assert_eq!(sas.len(), 1, "{:?}", pair.a.events);
    assert_eq!(sas[0].path.remote.ip(), gateway);
    let paths: Vec<_> = pair.a.plane.outbound.values().collect();
    assert_eq!(paths.len(), 1, "{:?}", pair.a.events);
    assert_eq!(paths[0].info.path.remote.ip(), gateway);
    for node in [&pair.b, &pair.others[0]] {
        let expected = usize::from(node.address == gateway);
        assert_eq!(node.plane.inbound.len(), expected, "{}", node.address);
        assert_eq!(node.endpoint.status(pair.now).len(), expected);
    }
}

fn redirects(node: &Node) -> usize {
    node.count(|e| matches!(e, Event::Redirected { .. }))
}

fn refusals(node: &Node) -> Vec<RedirectRefusal> {
    let reasons = node.events.iter().filter_map(|e| match e {
        Event::RedirectRefused { reason, .. } => Some(*reason),
        _ => None,
    });
    reasons.collect()
}

fn notify_in(datagram: &[u8], ty: NotifyType) -> Option<Vec<u8>> {
    let message = Message::parse(datagram).ok()?;
    message
        .payloads
        .iter()
        .find_map(|raw| match raw.decode().ok()? {
            Payload::Notify(notify) if notify.ty == ty => Some(notify.data.to_vec()),
            _ => None,
        })
}

fn nonce_in(datagram: &[u8]) -> Vec<u8> {
    let message = Message::parse(datagram).expect("a message of ours");
    let nonce = message.payloads.iter().find_map(|raw| match raw.decode() {
        Ok(Payload::Nonce(nonce)) => Some(nonce.to_vec()),
        _ => None,
    });
    nonce.expect("IKE_SA_INIT has a nonce")
}

fn send_to(pair: &mut Pair, to: IpAddr) -> Result<(), CommandError> {
    let command = Command::Redirect {
        connection: HOSTS.to_owned(),
        to,
    };
    pair.command(End::B, command)
}

#[test]
fn before_there_is_any_state() {
    let pair = Trio::new(1).run(Duration::from_secs(5));
    assert_with(&pair, C);
    assert_eq!(pair.b.dropped[&Dropped::Redirected], 1);
    assert_eq!(pair.b.events.len(), 0, "{:?}", pair.b.events);
    assert_eq!(redirects(&pair.a), 1);
    let sent = |to: IpAddr| {
        let mut sent = pair.net.sent.iter().filter(|p| p.to.ip() == to);
        sent.next().expect("a request").datagram.clone()
    };
    let (first, second) = (sent(B), sent(C));
    let supported = NotifyType::REDIRECT_SUPPORTED;
    assert_eq!(notify_in(&first, supported), Some(Vec::new()));
    let from = notify_in(&second, NotifyType::REDIRECTED_FROM);
    assert_eq!(from, Some(vec![1, 4, 192, 168, 0, 2]));
    assert_ne!(first[..8], second[..8], "the SPI");
    assert_ne!(nonce_in(&first), nonce_in(&second));
    let answer = &pair.net.sent[1];
    assert_eq!(answer.from.ip(), B);
    assert!(answer.datagram.len() < first.len());
    assert_eq!(answer.datagram[8..16], [0; 8], "no SPI of a responder");
}

#[test]
fn after_both_have_proven_who_they_are() {
    let pair = Trio::new(1).by_identity().run(Duration::from_secs(5));
    assert_with(&pair, C);
    let told = |e: &Event| matches!(e, Event::ClientRedirected { to, .. } if *to == C);
    assert_eq!(pair.b.count(told), 1);
    let went = |e: &Event| matches!(e, Event::IkeDown { reason, .. } if *reason == IkeFailure::Redirected { to: C });
    assert_eq!(pair.a.count(went), 1);
    assert_eq!(pair.a.count(|e| matches!(e, Event::ChildUp(_))), 1);
    let failed = |e: &Event| matches!(e, Event::ChildFailed { .. } | Event::IkeFailed { .. });
    assert_eq!(pair.a.count(failed), 0, "{:?}", pair.a.events);
}

#[test]
fn a_client_that_is_up_moves_without_a_gap() {
    for rekeyed in [None, Some(End::A), Some(End::B)] {
        let mut pair = Trio::new(1).by_command().run(Duration::from_secs(5));
        assert_with(&pair, B);
        // Who rekeys an IKE SA is its initiator, but a client stays a client.
        if let Some(end) = rekeyed {
            let connection = HOSTS.to_owned();
            let rekey = Command::RekeyIke { connection };
            pair.command(end, rekey).expect("it is up");
            pair.run_for(Duration::from_secs(5));
        }
        send_to(&mut pair, C).expect("there is a client");
        for _ in 0..300 {
            pair.run_for(Duration::from_millis(100));
            assert_ne!(pair.a.plane.outbound.len(), 0);
        }
        assert_with(&pair, C);
        assert_eq!(redirects(&pair.a), 1, "{rekeyed:?}");
        let told = |e: &Event| matches!(e, Event::ClientRedirected { .. });
        assert_eq!(pair.b.count(told), 1);
    }
}

#[test]
fn who_did_not_ask_for_it_is_served_and_stays() {
    for trio in [Trio::new(1), Trio::new(1).by_identity()] {
        let mut trio = trio;
        trio.client.redirect.follow = false;
        let mut pair = trio.run(Duration::from_secs(5));
        assert_with(&pair, B);
        let refused = CommandError::NoClient(HOSTS.to_owned());
        assert_eq!(send_to(&mut pair, C), Err(refused));
        let request = &pair.net.sent[0].datagram;
        assert_eq!(notify_in(request, NotifyType::REDIRECT_SUPPORTED), None);
    }
}

#[test]
fn a_gateway_that_is_reached_where_it_sends_clients_serves_them() {
    for mut trio in [Trio::new(1), Trio::new(1).by_identity()] {
        for connection in &mut trio.b {
            connection.redirect.to = connection.redirect.to.map(|_| B);
        }
        assert_with(&trio.run(Duration::from_secs(5)), B);
    }
}

/// A reply to the client's first request, as anybody can send who sees that.
fn forge(pair: &mut Pair, data: &[u8]) {
    let request = pair.net.sent[0].clone();
    let spi_i = Message::parse(&request.datagram)
        .expect("a message of ours")
        .header
        .spi_i;
    let flags = Flags {
        initiator: false,
        version: false,
        response: true,
    };
    let none = obol_ike::event::IkeSpi(0);
    let header = Header::new(spi_i, none, ExchangeType::IKE_SA_INIT, flags, 0);
    let notify = Notify::with_data(NotifyType::REDIRECT, data);
    let forged = Packet {
        from: request.to,
        to: request.from,
        datagram: emit_message(&header, &[Payload::Notify(notify)]).expect("it is short"),
    };
    pair.net.inject(pair.now, forged);
}

#[test]
fn forged_redirects_do_not_keep_the_real_answer_out() {
    use RedirectRefusal::{Family, Name, Unfit, UnknownType};
    let to_c: &[u8] = &[1, 4, 192, 168, 0, 3];
    let v6 = [&[2, 16, 0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7]].concat();
    let forged = Some(Dropped::RedirectForged);
    for (what, follow, identity, right_nonce, dropped, refused) in [
        ("another nonce", true, to_c, false, forged, None),
        ("not asked for", false, to_c, true, forged, None),
        ("empty", true, &[], true, Some(Dropped::Malformed), None),
        (
            "cut",
            true,
            &[1, 200, 1, 2],
            true,
            Some(Dropped::Malformed),
            None,
        ),
        (
            "long v4",
            true,
            &[1, 5, 1, 2, 3, 4, 5],
            true,
            Some(Dropped::Malformed),
            None,
        ),
        (
            "name",
            true,
            &[3, 3, b'a', b'.', b'b'],
            true,
            None,
            Some(Name),
        ),
        ("type", true, &[77, 1, 0], true, None, Some(UnknownType(77))),
        (
            "the same",
            true,
            &[1, 4, 192, 168, 0, 2],
            true,
            None,
            Some(Unfit),
        ),
        (
            "ourselves",
            true,
            &[1, 4, 192, 168, 0, 1],
            true,
            None,
            Some(Unfit),
        ),
        (
            "nowhere",
            true,
            &[1, 4, 0, 0, 0, 0],
            true,
            None,
            Some(Unfit),
        ),
        (
            "everybody",
            true,
            &[1, 4, 255, 255, 255, 255],
            true,
            None,
            Some(Unfit),
        ),
        (
            "a group",
            true,
            &[1, 4, 224, 0, 0, 1],
            true,
            None,
            Some(Unfit),
        ),
        (
            "loopback",
            true,
            &[1, 4, 127, 0, 0, 1],
            true,
            None,
            Some(Unfit),
        ),
        ("IPv6", true, &v6, true, None, Some(Family)),
    ] {
        let mut trio = Trio::new(1).by_command();
        trio.client.redirect.follow = follow;
        let mut pair = trio.pair(1);
        pair.start();
        let mut nonce = nonce_in(&pair.net.sent[0].datagram);
        if !right_nonce {
            nonce[0] ^= 1;
        }
        for _ in 0..3 {
            forge(&mut pair, &[identity, &nonce].concat());
        }
        pair.run_for(Duration::from_secs(5));
        assert_with(&pair, B);
        assert_eq!(refusals(&pair.a), Vec::from_iter(refused), "{what}");
        assert_eq!(redirects(&pair.a), 0, "{what}");
        let counted = dropped.and_then(|reason| pair.a.dropped.get(&reason));
        assert_eq!(counted.copied(), dropped.map(|_| 3), "{what}");
    }
}

#[test]
fn whoever_sees_the_nonce_sends_us_only_to_who_cannot_prove_itself() {
    let mut trio = Trio::new(1).by_command();
    trio.secret_c = b"another secret";
    let mut pair = trio.pair(1);
    pair.start();
    let nonce = nonce_in(&pair.net.sent[0].datagram);
    forge(&mut pair, &[&[1, 4, 192, 168, 0, 3], &nonce[..]].concat());
    pair.run_for(Duration::from_millis(200));
    assert_eq!(redirects(&pair.a), 1);
    assert!(pair.a.plane.outbound.is_empty());
    pair.run_for(Duration::from_secs(40));
    assert_with(&pair, B);
}

#[test]
fn another_identity_will_not_do() {
    let mut trio = Trio::new(1);
    trio.c.local.id = "@hostc.example.com".parse().ok();
    let mut pair = trio.pair(1);
    pair.start();
    for _ in 0..600 {
        pair.run_for(Duration::from_secs(1));
        assert!(pair.a.plane.outbound.is_empty());
        assert!(pair.others[0].plane.inbound.is_empty());
    }
    assert!(redirects(&pair.a) > 0);
}

#[test]
fn gateways_that_send_us_to_each_other_do_not_keep_us_busy() {
    for by_identity in [false, true] {
        let mut trio = Trio::new(1);
        let mut other = trio.c.clone();
        trio.c.redirect.to = Some(B);
        if by_identity {
            trio = trio.by_identity();
        }
        let mut pair = trio.run(Duration::from_secs(290));
        assert_eq!(redirects(&pair.a), 5, "{by_identity}");
        assert!(pair.a.plane.outbound.is_empty());
        let refused = refusals(&pair.a);
        assert!(!refused.is_empty());
        assert!(refused.iter().all(|r| *r == RedirectRefusal::TooMany));
        // With the pauses of any start that fails.
        assert!(refused.len() < 20, "{}", refused.len());
        other.redirect.to = None;
        let now = pair.now;
        let config = Arc::new(config(vec![other]));
        pair.others[0].endpoint.reload(now, config);
        pair.run_for(Duration::from_secs(150));
        assert_with(&pair, C);
    }
}

#[test]
fn only_who_began_can_be_sent_away() {
    let mut setup = Setup::new(1);
    setup.connection.redirect.follow = true;
    let mut scripted = Scripted::established(setup);
    let notify = Notify::with_data(NotifyType::REDIRECT, vec![1, 4, 192, 168, 0, 3]);
    let sent = scripted.pair.net.sent.len();
    let payloads = [Payload::Notify(notify)];
    scripted
        .ask(ExchangeType::INFORMATIONAL, &payloads)
        .expect("it is answered");
    scripted.pair.run_for(Duration::from_secs(20));
    let sent = &scripted.pair.net.sent[sent..];
    assert!(sent.iter().all(|packet| packet.to.ip() != C));
    assert_eq!(redirects(&scripted.pair.b), 0);
    assert_eq!(scripted.up().0, 1);
}

#[test]
fn who_cannot_go_is_closed_when_its_time_is_over() {
    let mut pair = Trio::new(1).by_command().run(Duration::from_secs(5));
    pair.others.clear();
    send_to(&mut pair, C).expect("there is a client");
    pair.run_for(Duration::from_secs(50));
    assert_eq!(pair.b.plane.inbound.len(), 1);
    pair.run_for(Duration::from_secs(15));
    let over = |e: &Event| matches!(e, Event::IkeDown { reason, .. } if *reason == IkeFailure::Redirected { to: C });
    assert_eq!(pair.b.count(over), 1);
}

#[test]
fn a_bad_network_changes_nothing() {
    for seed in 0..60 {
        let mut trio = Trio::new(seed);
        trio.net = Net::seeded(seed).hostile(300, 200);
        let live = seed % 3 == 2;
        match seed % 3 {
            0 => {}
            1 => trio = trio.by_identity(),
            _ => trio = trio.by_command(),
        }
        let mut pair = trio.pair(seed);
        pair.start();
        pair.run_for(Duration::from_secs(200));
        if live {
            send_to(&mut pair, C).expect("there is a client");
            pair.run_for(Duration::from_secs(400));
        }
        assert_with(&pair, C);
    }
}
