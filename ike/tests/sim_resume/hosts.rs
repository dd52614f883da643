//! Two hosts, one of which loses the other, and what is asked about them afterwards.

pub(crate) use std::net::{IpAddr, Ipv4Addr};
pub(crate) use std::sync::Arc;
pub(crate) use std::time::Duration;

pub(crate) use obol_ike::config::{
    Childless, Config, Connection, LocalAuthMethod, RemoteAuthMethod, Settings, StartAction, Unique,
};
pub(crate) use obol_ike::crypto::private_key::PrivateKey;
pub(crate) use obol_ike::error::{Dropped, IkeFailure, NotResumed};
pub(crate) use obol_ike::event::{Command, Event};
pub(crate) use obol_ike::identity::Identity;
pub(crate) use obol_ike::testing::forge::Forgery;
pub(crate) use obol_ike::testing::net::{Net, Packet};
pub(crate) use obol_ike::testing::pair::{End, Node, Pair};
pub(crate) use obol_ike::testing::setup::{A, B, HOSTS, ID_A, ID_B, PODS, Setup, mirror};
pub(crate) use obol_ike::wire::{
    Auth, AuthMethod, ExchangeType, Header, Id, Message, NotifyType, Payload, PayloadType,
};
pub(crate) use rand_chacha::ChaCha20Rng;
pub(crate) use rand_core::SeedableRng;

pub(crate) const SECRET: &[u8] = b"a secret for tests";
pub(crate) const KEY: &[u8] = b"what the second host makes tickets with";

/// The first host is the client, which looks every 30 s whether the second lives.
pub(crate) struct Hosts {
    pub(crate) a: Connection,
    pub(crate) b: Connection,
    pub(crate) settings: Settings,
    pub(crate) net: Net,
    pub(crate) keys: bool,
}

impl Hosts {
    pub(crate) fn new(seed: u64) -> Self {
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
    pub(crate) fn both_give_up(mut self) -> Self {
        self.b.dpd_delay = Some(Duration::from_secs(20));
        self
    }

    /// Proven by raw keys.
    pub(crate) fn by_keys(mut self) -> Self {
        let key = |n| ed25519(n).public();
        self.a.local.method = LocalAuthMethod::Key(key(1));
        self.a.remote.method = RemoteAuthMethod::Keys(vec![key(2)]);
        self.b.local.method = LocalAuthMethod::Key(key(2));
        self.b.remote.method = RemoteAuthMethod::Keys(vec![key(1)]);
        self.keys = true;
        self
    }

    pub(crate) fn pair(self, seed: u64) -> Pair {
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

    pub(crate) fn up(self) -> Pair {
        let mut pair = self.pair(1);
        pair.start();
        pair.run_for(Duration::from_secs(5));
        pair.assert_up(1);
        pair
    }
}

pub(crate) fn ed25519(seed: u64) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(seed))
}

pub(crate) fn config(connection: Connection, settings: &Settings) -> Config {
    Config {
        connections: vec![Arc::new(connection)],
        settings: settings.clone(),
    }
}

/// Until the client has given its IKE SA up, and has begun anew.
pub(crate) fn lose(pair: &mut Pair) {
    pair.net.partitioned = true;
    let end = pair.now + Duration::from_secs(300);
    pair.run_until(end, |pair| {
        pair.a.count(|e| matches!(e, Event::IkeDown { .. })) > 0
    });
    assert!(pair.now < end, "it did not notice");
    assert!(pair.a.plane.outbound.is_empty());
}

/// Lost, and found again.
pub(crate) fn interrupt(pair: &mut Pair) {
    forget_events(pair);
    lose(pair);
    pair.net.partitioned = false;
    pair.net.sent.clear();
    pair.run_for(Duration::from_secs(60));
}

pub(crate) fn forget_events(pair: &mut Pair) {
    for node in [&mut pair.a, &mut pair.b] {
        node.events.clear();
        node.dropped.clear();
    }
}

pub(crate) fn ups(node: &Node, is_resumed: bool) -> usize {
    node.count(
        |e| matches!(e, Event::IkeUp { resumed, rekey: false, .. } if *resumed == is_resumed),
    )
}

/// Both ends have one IKE SA, which was resumed, with the child.
pub(crate) fn assert_resumed(pair: &Pair) {
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
pub(crate) fn assert_made_anew(pair: &Pair) {
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

pub(crate) fn why_not(node: &Node) -> Vec<NotResumed> {
    let reasons = node.events.iter().filter_map(|event| match event {
        Event::NotResumed { reason, .. } => Some(*reason),
        _ => None,
    });
    reasons.collect()
}

pub(crate) fn downs(node: &Node) -> Vec<IkeFailure> {
    let reasons = node.events.iter().filter_map(|event| match event {
        Event::IkeDown { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    reasons.collect()
}

pub(crate) fn exchange(packet: &Packet) -> ExchangeType {
    Header::parse(&packet.datagram)
        .expect("a message of ours")
        .exchange
}

pub(crate) fn count(pair: &Pair, ty: ExchangeType) -> usize {
    pair.net.sent.iter().filter(|p| exchange(p) == ty).count()
}

pub(crate) fn presented(pair: &Pair) -> usize {
    let from = |packet: &&Packet| packet.from.ip() == pair.a.address;
    let sent = pair.net.sent.iter().filter(from);
    sent.filter(|p| exchange(p) == ExchangeType::IKE_SESSION_RESUME)
        .count()
}

pub(crate) fn dropped(node: &Node, reason: Dropped) -> usize {
    node.dropped.get(&reason).copied().unwrap_or(0)
}

pub(crate) fn terminate(pair: &mut Pair, end: End) {
    let command = Command::Terminate {
        connection: HOSTS.to_owned(),
        child: None,
    };
    pair.command(end, command).expect("it is up");
}

pub(crate) fn rekey(pair: &mut Pair, end: End) {
    let connection = HOSTS.to_owned();
    pair.command(end, Command::RekeyIke { connection })
        .expect("it is up");
    pair.run_for(Duration::from_secs(5));
}

/// The first IKE_SESSION_RESUME request of a client whose messages do not arrive.
pub(crate) fn first_presented(pair: &mut Pair) -> Packet {
    pair.net.sent.clear();
    lose(pair);
    let end = pair.now + Duration::from_secs(10);
    pair.run_until(end, |pair| presented(pair) > 0);
    let mut sent = pair.net.sent.iter();
    let found = sent.find(|p| exchange(p) == ExchangeType::IKE_SESSION_RESUME);
    found.cloned().expect("it presents its ticket")
}

/// Gives the second host a datagram as if it came from the first.
pub(crate) fn give(pair: &mut Pair, mut packet: Packet, change: impl FnOnce(&mut Vec<u8>)) {
    change(&mut packet.datagram);
    pair.net.inject(pair.now, packet);
    pair.run_for(Duration::ZERO);
}

pub(crate) fn ticket_in(datagram: &[u8]) -> Vec<u8> {
    let message = Message::parse(datagram).expect("a message of ours");
    let ticket = message.payloads.iter().find_map(|raw| match raw.decode() {
        Ok(Payload::Notify(n)) if n.ty == NotifyType::TICKET_OPAQUE => Some(n.data.to_vec()),
        _ => None,
    });
    ticket.expect("it presents one")
}
