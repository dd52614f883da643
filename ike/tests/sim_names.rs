//! Whoever may be anybody says that it is somebody else: that one must not notice.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use obol_ike::config::{Child, Config, Connection, LocalAuthMethod, RemoteAuthMethod, StartAction};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::error::IkeFailure;
use obol_ike::event::{Command, Event};
use obol_ike::identity::Identity;
use obol_ike::testing::pair::{End, Node};
use obol_ike::testing::scripted::Scripted;
use obol_ike::testing::setup::{B, HOSTS, ID_B, PODS, Setup, connection, mirror, pods};
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::{Notify, NotifyType, Payload};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const SITE: &str = "@site.example.com";
const AT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 9));
const SECRET: &[u8] = b"a secret for tests";

fn key() -> PrivateKey {
    PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(1))
}

/// A connection for one site, by its key, and one for guests, by the secret of all of them.
fn gateway(site: Option<&str>, quotas: impl FnOnce(&mut Config)) -> Config {
    let plain = mirror(&Setup::new(1).connection, StartAction::None);
    let keyed = Connection {
        name: "site".to_owned(),
        remote_addrs: Vec::new(),
        ..plain.clone()
    };
    let mut keyed = keyed;
    keyed.remote.id = site.and_then(|id| id.parse().ok());
    keyed.remote.method = RemoteAuthMethod::Keys(vec![key().public()]);
    let mut guests = plain;
    guests.name = "guests".to_owned();
    guests.remote_addrs = Vec::new();
    guests.remote.id = None;
    guests.children = vec![Arc::new(Child {
        remote_ts: vec!["10.0.0.0/8".parse().expect("a network")],
        ..Child::clone(&guests.children[0])
    })];
    let mut config = Config {
        connections: vec![Arc::new(keyed), Arc::new(guests)],
        ..Config::default()
    };
    quotas(&mut config);
    config
}

/// The site itself.
fn site() -> Node {
    let mut own = connection(vec![pods(StartAction::None)]);
    own.local_addrs = vec![AT];
    own.local.id = SITE.parse().ok();
    own.local.method = LocalAuthMethod::Key(key().public());
    let config = Config {
        connections: vec![Arc::new(own)],
        ..Config::default()
    };
    Node::new(AT, config, 77)
        .with_secret(SITE, ID_B, SECRET)
        .with_key(key())
}

/// A guest in the place of the first host, and the site, which is up.
fn with_site_up(config: Config) -> Scripted {
    let mut peer = Scripted::begun_with(config);
    let secret = |id: &str| {
        let id = id.parse().expect("an identity");
        (id, ID_B.parse().expect("an identity"), SECRET.to_vec())
    };
    peer.pair.b.secrets.push(secret(SITE));
    peer.pair.others.push(site());
    tell_site(
        &mut peer,
        Command::Initiate {
            connection: HOSTS.to_owned(),
            child: None,
            local: None,
        },
    );
    assert!(is_up(&peer));
    // INITIAL_CONTACT is about what was there before.
    peer.another(99)
}

fn tell_site(peer: &mut Scripted, command: Command) {
    let now = peer.pair.now;
    let told = peer.pair.others[0].endpoint.handle_command(now, command);
    told.expect("the site has the connection");
    peer.pair.run_for(Duration::from_secs(2));
}

/// Whether the site is up, at both ends.
fn is_up(peer: &Scripted) -> bool {
    let now = peer.pair.now;
    let here = peer.pair.b.endpoint.status_of_connection("site", now);
    let there = peer.pair.others[0].endpoint.status(now);
    [here, there].iter().all(|sas| {
        let up = sas.iter().filter(|sa| sa.state == "established");
        up.filter(|sa| sa.children.len() == 1).count() == 1
    })
}

/// A guest by this name, with a network of its own; what it is told.
fn prove(peer: &mut Scripted, id: &str, n: u64, notify: Option<NotifyType>) -> Option<NotifyType> {
    let network = format!("10.0.{n}.0/24").parse::<TrafficSelector>();
    let network = vec![network.expect("a network")];
    let reply = peer.prove(id, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::TsI(ts) = payload {
                *ts = network.clone().into();
            }
        }
        payloads.extend(notify.map(|notify| Payload::Notify(Notify::bare(notify))));
    });
    reply.expect("a reply").error()
}

fn as_site(peer: &mut Scripted) -> Option<NotifyType> {
    prove(peer, SITE, 1, Some(NotifyType::INITIAL_CONTACT))
}

//= test security S-9 S-28
#[test]
fn an_identity_that_a_connection_names_is_not_taken_by_another_one() {
    let mut peer = with_site_up(gateway(Some(SITE), |_| {}));
    let refused = Some(NotifyType::AUTHENTICATION_FAILED);
    assert_eq!(as_site(&mut peer), refused);
    let mut peer = peer.another(2);
    // Identities are the same in any case.
    assert_eq!(prove(&mut peer, "@SITE.example.com", 2, None), refused);
    assert!(is_up(&peer));
    let why = |event: &Event| {
        let of_site = |reason: &str| reason.contains("\"site\" is for this identity");
        matches!(event, Event::IkeFailed { reason: IkeFailure::PeerNotProven { reason, .. }, .. }
            if of_site(reason))
    };
    assert_eq!(peer.pair.b.count(why), 2);
    // A guest by its own name is one.
    let mut peer = peer.another(3);
    assert_eq!(prove(&mut peer, "@hosta.example.com", 3, None), None);
}

//= test security S-9
#[test]
fn what_is_proven_to_one_connection_ends_nothing_of_another() {
    let mut peer = with_site_up(gateway(None, |_| {}));
    assert_eq!(as_site(&mut peer), None, "both may be anybody");
    assert!(is_up(&peer), "after INITIAL_CONTACT");
    for spi in 2..20 {
        peer = peer.another(spi);
        assert_eq!(prove(&mut peer, SITE, spi, None), None);
    }
    peer.pair.run_for(Duration::from_secs(1));
    assert!(is_up(&peer), "after more IKE SAs than one peer may have");
    let now = peer.pair.now;
    let guests = peer.pair.b.endpoint.status_of_connection("guests", now);
    let current = guests.iter().filter(|sa| sa.state == "established");
    assert_eq!(current.count(), 16, "that counts for guests");
    assert_eq!(peer.pair.b.address, B);
}

#[test]
fn what_others_have_under_its_name_is_not_counted() {
    let mut peer = with_site_up(gateway(None, |config| config.settings.quotas.child_sas = 2));
    assert_eq!(as_site(&mut peer), None);
    let mut peer = peer.another(2);
    assert_eq!(prove(&mut peer, SITE, 2, None), None);
    tell_site(
        &mut peer,
        Command::RekeyChild {
            connection: HOSTS.to_owned(),
            child: PODS.to_owned(),
        },
    );
    let rekeyed = |event: &Event| matches!(event, Event::ChildUp(info) if info.replaces.is_some());
    assert_eq!(peer.pair.others[0].count(rekeyed), 1);
    assert!(is_up(&peer));
}

/// Who may be anybody may be many: they are counted together.
#[test]
fn a_crowd_of_names_is_bounded_and_keeps_nobody_else_away() {
    let mut peer = with_site_up(gateway(Some(SITE), |config| {
        config.settings.quotas.open_ike_sas = 20;
        // Those that were refused are remembered for a while.
        config.settings.cookie_threshold = 1000;
    }));
    let prove = |peer: &mut Scripted, n: u64| {
        let id: Identity = format!("@guest{n}.example.com").parse().expect("sound");
        let own: Identity = ID_B.parse().expect("sound");
        peer.pair.b.secrets.push((id.clone(), own, SECRET.to_vec()));
        prove(peer, &format!("@guest{n}.example.com"), n % 200, None)
    };
    let mut outcomes = Vec::new();
    for n in 0..60 {
        peer = peer.another(100 + n);
        outcomes.push(prove(&mut peer, n));
    }
    let (made, refused) = outcomes.split_at(20);
    assert!(made.iter().all(Option::is_none), "{made:?}");
    let crowded = Some(NotifyType::NO_ADDITIONAL_SAS);
    assert!(refused.iter().all(|error| *error == crowded), "{refused:?}");
    let told = |event: &Event| {
        let is_told = |reason: &IkeFailure| matches!(reason, IkeFailure::Crowded { up: 20, .. });
        matches!(event, Event::IkeFailed { reason, .. } if is_told(reason))
    };
    assert_eq!(peer.pair.b.count(told), 40);
    // Who is up comes again: in place of what it had, and to be proven anew, but not ever more.
    peer.pair.run_for(Duration::from_secs(1));
    for (n, contact, refused) in [
        (0, true, false),
        (1, false, false),
        (2, false, true),
        (3, true, false),
    ] {
        peer = peer.another(400 + n);
        let says = |payloads: &mut Vec<Payload<'_>>| {
            let notify = Notify::bare(NotifyType::INITIAL_CONTACT);
            payloads.extend(contact.then_some(Payload::Notify(notify)));
        };
        let reply = peer.prove("@guest7.example.com", says).expect("a reply");
        // Another guest may have its network by now.
        assert_eq!(reply.error() == crowded, refused, "{n}");
        peer.pair.run_for(Duration::from_secs(1));
    }
    // A connection that says who its peer is does not notice.
    let rekey = Command::RekeyIke {
        connection: HOSTS.to_owned(),
    };
    tell_site(&mut peer, rekey);
    assert!(is_up(&peer));
    let close = Command::Terminate {
        connection: HOSTS.to_owned(),
        child: None,
    };
    tell_site(&mut peer, close);
    tell_site(
        &mut peer,
        Command::Initiate {
            connection: HOSTS.to_owned(),
            child: None,
            local: None,
        },
    );
    assert!(is_up(&peer));
    // Whoever goes makes room for another one.
    peer = peer.another(500);
    assert_eq!(prove(&mut peer, 500), crowded);
    let guests = Command::Terminate {
        connection: "guests".to_owned(),
        child: None,
    };
    peer.pair.command(End::B, guests).expect("it is up");
    peer.pair.run_for(Duration::from_secs(300));
    peer = peer.another(501);
    assert_eq!(prove(&mut peer, 501), None);
}
