//! A peer that is proven asks for the networks of another one.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{
    Child, Config, Connection, LocalAuthMethod, Mobike, Mode, RemoteAuthMethod, StartAction, Unique,
};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::error::ChildFailure;
use obol_ike::event::{Command, Event, Withheld};
use obol_ike::identity::Identity;
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{A, ID_A, PODS, child, connection};
use obol_ike::wire::NotifyType;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const OURS: &str = "172.16.1.0/24";
/// How guests call their connection with the gateway.
const GATEWAY: &str = "gateway";

const FIRST: &str = "@first.example.com";
const SECOND: &str = "@second.example.com";
const SITE: &str = "@site.example.com";

/// A host outside.
fn at(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, 0, n))
}

fn secret(id: &str) -> Vec<u8> {
    format!("the secret of {id}").into_bytes()
}

fn tunnel(ours: &str, theirs: &str) -> Child {
    child(PODS, Mode::Tunnel, ours, theirs, StartAction::None)
}

/// A connection of the gateway; who its peer is, if it says so, and which networks that may have.
fn to(name: &str, id: Option<&str>, networks: &str) -> Connection {
    let mut own = connection(vec![tunnel(OURS, networks)]);
    own.name = name.to_owned();
    own.remote_addrs = Vec::new();
    own.remote.id = id.map(|id| id.parse().expect("an identity"));
    own.mobike = Mobike::default();
    own
}

fn guests(networks: &str) -> Connection {
    to("guests", None, networks)
}

/// A host that has these networks behind it.
fn host(n: u8, id: &str, networks: &str, change: impl FnOnce(&mut Connection)) -> Node {
    let mut own = connection(vec![tunnel(networks, OURS)]);
    own.name = GATEWAY.to_owned();
    own.local_addrs = Vec::new();
    own.remote_addrs = vec![A];
    own.local.id = id.parse().ok();
    own.remote.id = ID_A.parse().ok();
    own.mobike = Mobike::default();
    change(&mut own);
    let config = Config {
        connections: vec![Arc::new(own)],
        ..Config::default()
    };
    let node = Node::new(at(n), config, u64::from(n));
    node.with_secret(id, ID_A, &secret(id))
}

fn guest(n: u8, id: &str, networks: &str) -> Node {
    host(n, id, networks, |_| {})
}

/// The gateway, and who wants something of it.
struct Hall(Pair);

impl Hall {
    fn new(connections: Vec<Connection>, guests: Vec<Node>) -> Self {
        let config = Config {
            connections: connections.into_iter().map(Arc::new).collect(),
            ..Config::default()
        };
        let mut gateway = Node::new(A, config, 1);
        for id in [FIRST, SECOND, SITE] {
            gateway = gateway.with_secret(id, ID_A, &secret(id));
        }
        let mut guests = guests.into_iter();
        let first = guests.next().expect("a guest");
        let mut pair = Pair::new(gateway, first, Net::seeded(1));
        pair.others.extend(guests);
        pair.start();
        Self(pair)
    }

    fn reload(&mut self, connections: Vec<Connection>) {
        let config = Config {
            connections: connections.into_iter().map(Arc::new).collect(),
            ..Config::default()
        };
        let now = self.0.now;
        self.0.a.endpoint.reload(now, Arc::new(config));
        self.run(2);
    }

    fn run(&mut self, seconds: u64) {
        self.0.run_for(Duration::from_secs(seconds));
    }

    /// The one that is there for this identity.
    fn node(&mut self, n: usize) -> &mut Node {
        match n {
            0 => &mut self.0.b,
            n => &mut self.0.others[n - 1],
        }
    }

    fn tell(&mut self, n: usize, command: Command) {
        let now = self.0.now;
        let told = self.node(n).endpoint.handle_command(now, command);
        told.expect("it has the connection");
        self.run(2);
    }

    /// A guest asks for its networks.
    fn come(&mut self, n: usize) {
        let command = Command::Initiate {
            connection: GATEWAY.to_owned(),
            child: None,
            local: Some(self.node(n).address),
        };
        self.tell(n, command);
    }

    fn go(&mut self, n: usize) {
        let command = Command::Terminate {
            connection: GATEWAY.to_owned(),
            child: None,
        };
        self.tell(n, command);
    }

    /// What the gateway sends to a peer of this name.
    fn has(&self, id: &str) -> Vec<String> {
        let sas = self.0.a.endpoint.status(self.0.now);
        let is_of = |own: &Option<Identity>| *own == id.parse().ok();
        let children = sas.iter().filter(|sa| is_of(&sa.remote_id));
        let children = children.flat_map(|sa| &sa.children);
        let current = children.filter(|child| child.state == "installed");
        let texts = current.flat_map(|child| &child.info.remote_ts);
        texts.map(ToString::to_string).collect()
    }

    /// What the gateway has told of what peers did not get.
    fn told(&self) -> Vec<&Withheld> {
        let told = self.0.a.events.iter().filter_map(|event| match event {
            Event::Withheld(withheld) => Some(withheld),
            Event::ChildFailed {
                reason: ChildFailure::Withheld(withheld),
                ..
            } => Some(withheld),
            _ => None,
        });
        told.map(AsRef::as_ref).collect()
    }

    fn refused(&mut self, n: usize) -> usize {
        let refused = ChildFailure::Refused(NotifyType::TS_UNACCEPTABLE);
        let is_it = |event: &Event| matches!(event, Event::ChildFailed { reason, .. } if *reason == refused);
        self.node(n).count(is_it)
    }
}

fn texts(withheld: &Withheld) -> Vec<String> {
    let networks = withheld.networks.iter();
    networks.map(ToString::to_string).collect()
}

//= test security S-20
#[test]
fn what_one_peer_has_another_one_does_not_get() {
    let both = vec![
        guest(11, FIRST, "10.1.0.0/16"),
        guest(12, SECOND, "10.1.2.0/24"),
    ];
    let mut hall = Hall::new(vec![guests("10.0.0.0/8")], both);
    hall.come(0);
    assert_eq!(hall.has(FIRST), ["10.1.0.0/16"]);
    hall.come(1);
    assert_eq!(hall.has(SECOND), [""; 0]);
    assert_eq!(hall.refused(1), 1, "with TS_UNACCEPTABLE");
    assert_eq!(hall.has(FIRST), ["10.1.0.0/16"]);
    let told = hall.told();
    let [withheld] = told.as_slice() else {
        panic!("one line: {told:?}");
    };
    assert_eq!(withheld.connection, "guests");
    assert_eq!(withheld.peer, SECOND.parse().expect("sound"));
    assert_eq!(withheld.path.remote.ip(), at(12));
    assert_eq!(texts(withheld), ["10.1.0.0/16"]);
    assert_eq!(withheld.owner.identity, FIRST.parse().ok());
    assert_eq!(withheld.owner.address, Some(at(11)));
    assert_eq!(hall.0.a.endpoint.faults()["network_withheld"], 1);
    // The IKE SA stands, and who has it can go.
    hall.go(0);
    hall.come(1);
    assert_eq!(hall.has(SECOND), ["10.1.2.0/24"]);
}

#[test]
fn what_is_left_of_a_network_a_peer_gets() {
    let both = vec![
        guest(11, FIRST, "10.1.0.0/16"),
        guest(12, SECOND, "10.0.0.0/14 10.9.0.0/16"),
    ];
    let mut hall = Hall::new(vec![guests("10.0.0.0/8")], both);
    hall.come(0);
    hall.come(1);
    assert_eq!(
        hall.has(SECOND),
        ["10.0.0.0/16", "10.2.0.0/15", "10.9.0.0/16"]
    );
    assert_eq!(hall.refused(1), 0);
    assert_eq!(texts(hall.told()[0]), ["10.1.0.0/16"]);
    // With what it got it lives on.
    let rekey = Command::RekeyChild {
        connection: GATEWAY.to_owned(),
        child: PODS.to_owned(),
    };
    hall.tell(1, rekey);
    assert_eq!(
        hall.has(SECOND),
        ["10.0.0.0/16", "10.2.0.0/15", "10.9.0.0/16"]
    );
    assert_eq!(hall.told().len(), 1, "a rekey asks for no more");
}

/// Two networks are not in each other's way if packets to them come from different places.
#[test]
fn a_network_is_taken_only_for_what_is_behind_this_host() {
    let other = |mut connection: Connection, ours: &str, theirs: &str| {
        connection.children = vec![Arc::new(tunnel(ours, theirs))];
        connection
    };
    let both = vec![
        guest(11, FIRST, "10.1.0.0/16"),
        host(12, SECOND, "10.1.0.0/16", |own| {
            *own = other(own.clone(), "10.1.0.0/16", "172.16.9.0/24");
        }),
    ];
    let mut all = guests("10.0.0.0/8");
    let more = Child {
        name: "more".to_owned(),
        ..tunnel("172.16.9.0/24", "10.0.0.0/8")
    };
    all.children.push(Arc::new(more));
    let mut hall = Hall::new(vec![all], both);
    hall.come(0);
    hall.come(1);
    assert_eq!(hall.has(FIRST), ["10.1.0.0/16"]);
    assert_eq!(hall.has(SECOND), ["10.1.0.0/16"]);
    assert!(hall.told().is_empty());
}

#[test]
fn a_peer_is_never_in_its_own_way() {
    let only = vec![guest(11, FIRST, "10.1.0.0/16")];
    let mut all = guests("10.0.0.0/8");
    all.peer.unique = Unique::No;
    let mut hall = Hall::new(vec![all], only);
    hall.come(0);
    let (connection, child) = (GATEWAY.to_owned(), PODS.to_owned());
    hall.tell(0, Command::RekeyChild { connection, child });
    let connection = GATEWAY.to_owned();
    hall.tell(0, Command::RekeyIke { connection });
    let connection = "guests".to_owned();
    hall.0
        .command(End::A, Command::RekeyIke { connection })
        .expect("it is up");
    hall.run(2);
    let (connection, child) = ("guests".to_owned(), PODS.to_owned());
    hall.0
        .command(End::A, Command::RekeyChild { connection, child })
        .expect("it is up");
    hall.run(2);
    assert_eq!(hall.has(FIRST), ["10.1.0.0/16"]);
    // It moves, and loses its state.
    hall.0.readdress(End::B, &[at(21)]);
    hall.run(5);
    assert_eq!(hall.has(FIRST), ["10.1.0.0/16"]);
    hall.0.restart(End::B);
    hall.come(0);
    hall.run(200);
    assert_eq!(hall.has(FIRST), ["10.1.0.0/16"]);
    hall.0.readdress(End::B, &[at(31)]);
    hall.0.restart(End::B);
    hall.come(0);
    hall.run(200);
    assert_eq!(hall.has(FIRST), ["10.1.0.0/16"]);
    assert_eq!(hall.refused(0), 0);
    assert!(hall.told().is_empty(), "{:?}", hall.told());
}

/// The gateway and a peer begin at once, and the peer's Child SAs are many.
#[test]
fn two_ends_that_begin_at_once_are_one_peer() {
    let mut all = guests("10.0.0.0/8");
    all.remote_addrs = vec![at(11)];
    let first = host(11, FIRST, "10.0.0.0/8", |own| {
        let more = Child {
            queues: 4,
            ..Child::clone(&own.children[0])
        };
        own.children = vec![Arc::new(more)];
    });
    all.children = vec![Arc::new(Child {
        queues: 4,
        ..Child::clone(&all.children[0])
    })];
    let mut hall = Hall::new(vec![all], vec![first]);
    hall.0.initiate(End::A, "guests");
    hall.come(0);
    hall.run(60);
    assert_eq!(hall.has(FIRST), ["10.0.0.0/8"; 4]);
    assert!(hall.told().is_empty(), "{:?}", hall.told());
    assert_eq!(hall.refused(0), 0);
}

/// Two hosts that say to be the first one, from two addresses; both have what it proves itself with,
/// or each has its own.
fn namesakes(group: bool) -> Hall {
    let both = vec![
        guest(11, FIRST, "10.1.0.0/16"),
        guest(12, FIRST, "10.1.0.0/16"),
    ];
    let mut hall = Hall::new(vec![guests("10.0.0.0/8")], both);
    if group {
        let of_first = hall.0.a.secrets[0].2.clone();
        hall.0.a.secrets[1].2 = of_first;
    }
    hall
}

/// Where is the first one, as the gateway has it?
fn holder(hall: &Hall) -> Vec<IpAddr> {
    let sas = hall.0.a.plane.outbound.values();
    sas.map(|sa| sa.info.path.remote.ip()).collect()
}

//= test security S-9 S-28
#[test]
fn members_of_a_group_do_not_take_the_place_of_each_other() {
    let mut hall = namesakes(true);
    hall.come(0);
    // Each time it says by INITIAL_CONTACT that it has lost all others.
    for _ in 0..20 {
        hall.come(1);
        assert_eq!(holder(&hall), [at(11)]);
        hall.go(1);
    }
    assert!(hall.refused(1) >= 20);
    let ends = |event: &Event| matches!(event, Event::IkeDown { .. });
    assert_eq!(hall.0.b.count(ends), 0, "the first one does not notice");
    // Where it is it is itself, and elsewhere once it is not there any more.
    hall.0.restart(End::B);
    hall.come(0);
    assert_eq!(hall.refused(0), 0);
    hall.0.net.dead.push(at(11));
    hall.run(60);
    hall.come(1);
    hall.run(200);
    hall.come(1);
    assert_eq!(holder(&hall), [at(12)]);
}

#[test]
fn a_secret_of_its_own_makes_a_peer_itself_wherever_it_is() {
    let mut hall = namesakes(false);
    hall.come(0);
    hall.come(1);
    assert_eq!(holder(&hall), [at(12)]);
    assert!(hall.told().is_empty());
}

//= test security S-9 S-28
#[test]
fn of_several_keys_each_is_a_peer_whatever_it_calls_itself() {
    let key = |seed| PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(seed));
    let (own, other) = (key(1), key(2));
    for (second, takes) in [(1, true), (2, false)] {
        let mut all = guests("10.0.0.0/8");
        all.remote.method = RemoteAuthMethod::Keys(vec![own.public(), other.public()]);
        let by = |n: u8, seed| {
            let signing = |own: &mut Connection| {
                own.local.method = LocalAuthMethod::Key(key(seed).public());
            };
            host(n, FIRST, "10.1.0.0/16", signing).with_key(key(seed))
        };
        let mut hall = Hall::new(vec![all], vec![by(11, 1), by(12, second)]);
        hall.come(0);
        hall.come(1);
        let place = if takes { at(12) } else { at(11) };
        assert_eq!(holder(&hall), [place], "{second}");
        assert_eq!(hall.told().is_empty(), takes);
    }
}

#[test]
fn who_is_dead_does_not_keep_others_out() {
    let both = vec![
        guest(11, FIRST, "10.1.0.0/16"),
        guest(12, SECOND, "10.1.0.0/16"),
    ];
    // Nothing but the wish of another one makes the gateway ask whether it lives.
    let mut hall = Hall::new(vec![guests("10.0.0.0/8")], both);
    hall.come(0);
    hall.run(100);
    hall.come(1);
    hall.run(200);
    assert_eq!(hall.has(FIRST), ["10.1.0.0/16"], "it lives");
    hall.0.net.dead.push(at(11));
    hall.run(1000);
    hall.come(1);
    assert_eq!(hall.has(SECOND), [""; 0]);
    hall.run(200);
    hall.come(1);
    assert_eq!(hall.has(FIRST), [""; 0]);
    assert_eq!(hall.has(SECOND), ["10.1.0.0/16"]);
}

/// What others ask for makes no traffic to a peer that was heard of lately.
#[test]
fn who_lives_is_not_asked_all_the_time() {
    let both = vec![
        guest(11, FIRST, "10.1.0.0/16"),
        guest(12, SECOND, "10.1.0.0/16"),
    ];
    let mut hall = Hall::new(vec![guests("10.0.0.0/8")], both);
    hall.come(0);
    hall.come(1);
    hall.run(60);
    let to_first = |hall: &Hall| {
        let sent = hall.0.net.sent.iter();
        sent.filter(|packet| packet.to.ip() == at(11)).count()
    };
    let before = to_first(&hall);
    for _ in 0..30 {
        hall.come(1);
    }
    assert!(hall.refused(1) >= 31, "{}", hall.refused(1));
    let asked = to_first(&hall) - before;
    assert!((1..=7).contains(&asked), "{asked} in a minute");
}

//= test security S-20
#[test]
fn what_the_operator_gave_to_one_peer_no_other_one_gets() {
    let site = |networks: &str| to("site", Some(SITE), networks);
    for (networks, may, asked, gets) in [
        ("10.2.0.0/16", "10.0.0.0/8", "10.2.3.0/24", ""),
        ("10.2.0.0/16", "10.2.0.0/16", "10.2.0.0/16", ""),
        ("10.2.0.0/16", "10.2.3.0/24", "10.2.3.0/24", "10.2.3.0/24"),
        ("10.0.0.0/15", "10.1.0.0/16", "10.1.0.0/16", "10.1.0.0/16"),
        ("10.3.0.0/16", "10.2.0.0/15", "10.2.0.0/15", "10.2.0.0/16"),
    ] {
        for up in [false, true] {
            let both = vec![guest(11, SITE, networks), guest(12, SECOND, asked)];
            let mut hall = Hall::new(vec![site(networks), guests(may)], both);
            if up {
                hall.come(0);
            }
            hall.come(1);
            let want: Vec<&str> = gets.split_whitespace().collect();
            assert_eq!(hall.has(SECOND), want, "{networks}, {may}, {asked}, {up}");
            let told = hall.told();
            assert_eq!(told.is_empty(), gets == asked);
            for withheld in told {
                assert_eq!(withheld.owner.connection, "site");
                assert_eq!(withheld.owner.address, None);
            }
            // Neither way does the site notice.
            hall.come(0);
            assert_eq!(hall.has(SITE), [networks], "{may}, {asked}, {up}");
        }
    }
}

/// Who comes first has nothing that is given to another one later.
#[test]
fn who_took_a_network_first_does_not_keep_its_owner_out() {
    let both = vec![
        guest(11, FIRST, "10.2.0.0/16"),
        guest(12, SITE, "10.2.0.0/16"),
    ];
    let mut hall = Hall::new(vec![guests("10.0.0.0/8")], both);
    hall.come(0);
    let site = to("site", Some(SITE), "10.2.0.0/16");
    hall.reload(vec![site, guests("10.0.0.0/8")]);
    hall.come(1);
    assert_eq!(hall.has(SITE), ["10.2.0.0/16"]);
    assert_eq!(hall.refused(1), 0);
}

/// A claim to be the site proves nothing on a connection that leaves open who comes.
#[test]
fn a_name_alone_does_not_make_a_peer_the_owner() {
    let key = PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(1));
    let mut site = to("site", Some(SITE), "10.2.0.0/16");
    site.remote.method = RemoteAuthMethod::Keys(vec![key.public()]);
    // So that no connection takes the name from the other.
    site.local.id = "@other.example.com".parse().ok();
    let asker = guest(11, SITE, "10.2.0.0/16");
    let mut hall = Hall::new(vec![site, guests("10.0.0.0/8")], vec![asker]);
    hall.come(0);
    assert_eq!(hall.has(SITE), [""; 0]);
    assert_eq!(hall.refused(0), 1);
}

#[test]
fn a_peer_with_a_wide_network_gets_nothing_within_that_of_another_one() {
    let wide = || to("wide", Some(FIRST), "10.0.0.0/8");
    let site = || to("site", Some(SITE), "10.2.0.0/16");
    let run = |asked: &str| {
        let both = vec![guest(11, FIRST, asked), guest(12, SITE, "10.2.0.0/16")];
        let mut hall = Hall::new(vec![wide(), site()], both);
        hall.come(0);
        hall.come(1);
        assert_eq!(hall.has(SITE), ["10.2.0.0/16"], "{asked}");
        hall.has(FIRST)
    };
    assert_eq!(run("10.2.3.0/24"), [""; 0]);
    assert_eq!(run("10.2.0.0/16 10.3.0.0/16"), ["10.3.0.0/16"]);
    // One within the other is how the operator has written it.
    assert_eq!(run("10.0.0.0/8"), ["10.0.0.0/8"]);
    assert_eq!(run("10.2.0.0/15"), ["10.2.0.0/15"]);
}

/// Two gateways of one network, as the operator has written it.
#[test]
fn two_peers_that_are_given_the_same_network_both_get_it() {
    let both = vec![
        guest(11, FIRST, "10.2.0.0/16"),
        guest(12, SECOND, "10.2.0.0/16"),
    ];
    let connections = vec![
        to("one", Some(FIRST), "10.2.0.0/16"),
        to("two", Some(SECOND), "10.2.0.0/16"),
    ];
    let mut hall = Hall::new(connections, both);
    hall.come(0);
    hall.come(1);
    assert_eq!(hall.has(FIRST), ["10.2.0.0/16"]);
    assert_eq!(hall.has(SECOND), ["10.2.0.0/16"]);
    assert!(hall.told().is_empty());
}

/// The same where this host asks: what another one answers may be too much.
#[test]
fn an_answer_with_the_network_of_another_peer_is_not_taken() {
    let mut asked = to("asked", None, "10.0.0.0/8");
    asked.remote_addrs = vec![at(12), at(13)];
    let both = vec![
        guest(11, FIRST, "10.1.0.0/16"),
        guest(12, SECOND, "10.0.0.0/8"),
    ];
    let mut hall = Hall::new(vec![guests("10.0.0.0/8"), asked], both);
    hall.come(0);
    // It is known by its address before it says who it is.
    let address = Identity::from(at(12));
    let known = (address, ID_A.parse().expect("sound"), secret(SECOND));
    hall.0.a.secrets.push(known);
    hall.0.initiate(End::A, "asked");
    hall.run(5);
    assert_eq!(hall.has(SECOND), [""; 0]);
    assert_eq!(hall.has(FIRST), ["10.1.0.0/16"]);
    assert_eq!(hall.told().len(), 1);
    let left = hall.0.others[0].plane.inbound.len();
    assert_eq!(left, 0, "the peer is told");
}

/// As with racoon's files, which say where a peer is and leave open what it calls itself.
#[test]
fn a_host_known_by_its_address_has_what_its_connection_says_beside_narrower_networks() {
    for first in [FIRST, SECOND] {
        let mut wide = to("wide", None, "0.0.0.0/0");
        wide.remote_addrs = vec![at(12)];
        let mut near = to("near", None, "10.1.0.0/16");
        near.remote_addrs = vec![at(11)];
        let both = vec![
            guest(11, FIRST, "10.1.0.0/16"),
            guest(12, SECOND, "0.0.0.0/0"),
        ];
        let mut hall = Hall::new(vec![near, wide], both);
        for (n, id) in [(11, FIRST), (12, SECOND)] {
            let us = ID_A.parse().expect("sound");
            hall.0
                .a
                .secrets
                .push((Identity::from(at(n)), us, secret(id)));
        }
        let names = match first {
            FIRST => ["near", "wide"],
            _ => ["wide", "near"],
        };
        for name in names {
            hall.0.initiate(End::A, name);
            hall.run(5);
        }
        assert_eq!(hall.has(FIRST), ["10.1.0.0/16"], "{first} first");
        assert_eq!(hall.has(SECOND), ["0.0.0.0/0"], "{first} first");
        assert!(hall.told().is_empty());
    }
}

/// Who asks for everything, among many: the work is bounded, and what is left is nothing.
#[test]
fn who_asks_for_everything_among_many_gets_nothing() {
    let many = 300;
    let networks: Vec<String> = (0..many)
        .map(|n| format!("10.{}.{}.0/24", n / 100, n % 100 * 2))
        .collect();
    let mut all = vec![guests("10.0.0.0/8")];
    let sites = networks.iter().enumerate();
    all.extend(sites.map(|(n, network)| {
        let id = format!("@site{n}.example.com");
        to(&format!("site{n}"), Some(&id), network)
    }));
    let both = vec![
        guest(11, FIRST, "10.0.0.0/8"),
        guest(12, SECOND, "10.0.1.0/24"),
    ];
    let mut hall = Hall::new(all, both);
    hall.come(0);
    assert_eq!(hall.has(FIRST), [""; 0]);
    hall.come(1);
    assert_eq!(hall.has(SECOND), ["10.0.1.0/24"]);
    assert_eq!(hall.told()[0].networks.len(), 1, "those of one site");
}

#[test]
fn an_ike_sa_that_ends_in_any_way_gives_its_network_free() {
    let ends: [&dyn Fn(&mut Hall); 3] = [
        &|hall| hall.go(0),
        &|hall| {
            let connection = "guests".to_owned();
            let child = Some(PODS.to_owned());
            let close = Command::Terminate { connection, child };
            hall.0.command(End::A, close).expect("it is up");
            hall.run(2);
        },
        &|hall| {
            hall.reload(Vec::new());
            hall.reload(vec![guests("10.0.0.0/8")]);
        },
    ];
    for (which, end) in ends.iter().enumerate() {
        let both = vec![
            guest(11, FIRST, "10.1.0.0/16"),
            guest(12, SECOND, "10.1.0.0/16"),
        ];
        let mut hall = Hall::new(vec![guests("10.0.0.0/8")], both);
        hall.come(0);
        assert_eq!(hall.has(FIRST), ["10.1.0.0/16"]);
        end(&mut hall);
        hall.come(1);
        assert_eq!(hall.has(SECOND), ["10.1.0.0/16"], "{which}");
    }
}
