//! Lifetimes, restarts and narrowed selectors, as RFC 7296 wants them.

use std::time::Duration;

use obol_ike::config::{Child, LocalAuthMethod, Mode, RemoteAuthMethod, StartAction};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::error::IkeFailure;
use obol_ike::event::{ChildSaId, Command, Event};
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::{End, Node, Transcript};
use obol_ike::testing::setup::{A, B, HOSTS, PODS, Setup, child, pods};
use obol_ike::wire::Header;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

fn downs(node: &Node) -> Vec<&IkeFailure> {
    let downs = node.events.iter().filter_map(|event| match event {
        Event::IkeDown { reason, .. } => Some(reason),
        _ => None,
    });
    downs.collect()
}

//= test rfc7296 2.4-1
#[test]
fn one_of_several_with_the_same_credentials_replaces_no_other() {
    for (alone, replaced) in [(true, 1), (false, 0)] {
        let mut setup = Setup::started(1);
        setup.b_starts = StartAction::Start;
        setup.connection.initial_contact = alone;
        let mut pair = setup.clone().up(1);
        pair.run_for(Duration::from_secs(90));
        pair.assert_up(1);
        // Another one with the identity of the second host.
        pair.b = setup.pair(99).b;
        pair.net.clear();
        pair.start();
        pair.run_for(Duration::from_secs(5));
        let of_contact = downs(&pair.a)
            .into_iter()
            .filter(|reason| **reason == IkeFailure::Replaced);
        assert_eq!(of_contact.count().min(1), replaced, "{alone}");
    }
}

//= test rfc7296 2.8-2
#[test]
fn at_the_end_of_its_life_an_ike_sa_goes_with_its_children() {
    let mut setup = Setup::new(1);
    setup.connection.rekey_time = Duration::MAX;
    setup.connection.over_time = Duration::from_secs(100);
    let mut pair = setup.pair(1);
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    pair.run_for(Duration::from_secs(98));
    pair.assert_up(1);
    pair.run_for(Duration::from_secs(3));
    pair.assert_down();
    let expired = |node: &Node| downs(node).contains(&&IkeFailure::Expired);
    assert!(expired(&pair.a) || expired(&pair.b));
}

//= test rfc7296 4-6
#[test]
fn a_child_that_cannot_be_rekeyed_ends_and_is_made_anew() {
    let mut child = pods(StartAction::Start);
    child.rekey_time = Duration::from_secs(60);
    child.life_time = Duration::from_secs(200);
    let mut pair = Setup::started(1).children(vec![child]).up(1);
    // The second host has no room, and says NO_ADDITIONAL_SAS.
    pair.b.plane.fail_inbound = u32::MAX;
    pair.run_for(Duration::from_secs(195));
    let refused = |e: &Event| matches!(e, Event::ChildFailed { .. });
    assert!(pair.a.count(refused) > 0, "it was asked");
    assert_eq!(pair.a.plane.outbound.len(), 1, "the old one goes on");
    pair.run_for(Duration::from_secs(10));
    assert_eq!(pair.a.plane.outbound.len(), 0, "but not for ever");
    pair.b.plane.fail_inbound = 0;
    pair.run_for(Duration::from_secs(60));
    pair.run_until_idle();
    pair.assert_up(1);
    assert_eq!(pair.a.count(|e| matches!(e, Event::IkeUp { .. })), 1);
}

fn selectors(node: &Node) -> Vec<String> {
    let sas = node.plane.outbound.values();
    let texts = sas.flat_map(|sa| sa.info.local_ts.iter().chain(&sa.info.remote_ts));
    texts.map(ToString::to_string).collect()
}

//= test rfc7296 2.8-3 2.9.2-1 2.9.2-3
#[test]
fn a_rekey_keeps_what_was_narrowed() {
    let tunnel =
        |local, remote| -> Child { child(PODS, Mode::Tunnel, local, remote, StartAction::None) };
    for end in [End::A, End::B] {
        let wide = tunnel("10.1.0.0/16 10.7.0.0/24", "10.2.0.0/16");
        let narrow = tunnel("10.1.0.0/24", "10.2.5.0/24 10.3.0.0/24");
        let mut pair = Setup::new(1).children(vec![wide]).pair(1);
        pair.b = Setup::new(1).children(vec![narrow]).pair(1).b;
        pair.initiate(End::A, HOSTS);
        pair.run_until_idle();
        let before = (selectors(&pair.a), selectors(&pair.b));
        assert_eq!(before.0, ["10.1.0.0/24", "10.2.5.0/24"]);
        let encr = pair
            .a
            .plane
            .outbound
            .values()
            .next()
            .expect("one")
            .info
            .encr;
        let rekey = Command::RekeyChild {
            connection: HOSTS.to_owned(),
            child: PODS.to_owned(),
        };
        pair.command(end, rekey).expect("it is up");
        pair.run_until_idle();
        pair.run_for(Duration::from_secs(60));
        assert_eq!(pair.a.plane.removed.len(), 1, "rekeyed");
        assert_eq!((selectors(&pair.a), selectors(&pair.b)), before);
        let again = pair
            .a
            .plane
            .outbound
            .values()
            .next()
            .expect("one")
            .info
            .encr;
        assert_eq!(again, encr);
    }
}

//= test rfc7296 2.2-2
//= test security S-4
#[test]
fn an_ike_sa_ends_before_its_message_ids_repeat() {
    let mut pair = Setup::started(1).up(1);
    let before = pair.a.endpoint.status(pair.now)[0].spi_i;
    // One request is left, and the next one has no number.
    pair.a.endpoint.skip_message_ids(u32::MAX - 1);
    pair.net.partitioned = true;
    let rekey = Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    };
    pair.command(End::A, rekey).expect("it is up");
    let last = Header::parse(&pair.net.sent.last().expect("it").datagram).expect("sound");
    assert_eq!((last.spi_i, last.message_id), (before, u32::MAX - 1));
    pair.run_for(Duration::from_secs(600));
    pair.net.partitioned = false;
    // It begins anew by itself.
    pair.run_for(Duration::from_secs(120));
    let after = pair.a.endpoint.status(pair.now);
    assert_eq!(after.len(), 1);
    assert_ne!(after[0].spi_i, before);
    let of_old = |packet: &&Packet| {
        let header = Header::parse(&packet.datagram).expect("sound");
        header.spi_i == before && !header.flags.response && header.message_id == u32::MAX
    };
    assert_eq!(pair.net.sent.iter().filter(of_old).count(), 0);

    let mut pair = Setup::started(1).up(1);
    pair.a.endpoint.skip_message_ids(u32::MAX);
    pair.command(End::A, Command::InboundUsed(ChildSaId(1)))
        .expect("always");
    assert_eq!(downs(&pair.a), [&IkeFailure::Expired]);
}

//= test rfc7296 2.23-14
//= test security S-23
#[test]
fn a_host_behind_a_nat_does_not_follow_a_packet_from_elsewhere() {
    let outside = [203, 0, 113, 7].into();
    let mut setup = Setup::started(1);
    setup.connection.local_addrs.clear();
    setup.connection.source = Some(A);
    let mut pair = setup.pair(7);
    pair.net.nat = Some((A, outside));
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
    let before = pair.a.endpoint.status(pair.now)[0].path;
    // A new request of the second host comes by another way than it was sent.
    pair.net.drop_nth = Some(pair.net.sent.len());
    let rekey = Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    };
    pair.command(End::B, rekey).expect("it is up");
    let mut request = pair.net.sent.last().expect("it").clone();
    request.to = before.local;
    request.from = "198.51.100.66:6666".parse().unwrap();
    pair.net.inject(pair.now, request.clone());
    let sent = pair.net.sent.len();
    pair.run_for(Duration::ZERO);
    // It is answered to where it came from, and nothing else goes there.
    assert_eq!(pair.net.sent[sent].to, request.from);
    assert_eq!(pair.a.endpoint.status(pair.now)[0].path, before);
}

//= test rfc7427 3-2
#[test]
fn who_can_do_rfc_7427_does_not_sign_with_sha1_even_where_that_is_allowed() {
    let mut rng = ChaCha20Rng::seed_from_u64(77);
    let PrivateKey::Rsa(key) = PrivateKey::generate_rsa(2048, &mut rng).expect("a legal size")
    else {
        panic!("drawn as RSA");
    };
    let public = PrivateKey::Rsa(key.clone()).public();
    let mut setup = Setup::started(1);
    setup.connection.local.method = LocalAuthMethod::Key(public.clone());
    setup.connection.remote.method = RemoteAuthMethod::Keys(vec![public]);
    setup.connection.allow_sha1_rsa = true;
    let mut pair = setup.pair(1);
    for node in [&mut pair.a, &mut pair.b] {
        node.keys.push(PrivateKey::Rsa(key.clone()));
        node.transcript = Some(Transcript::default());
    }
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
    for node in [&pair.a, &pair.b] {
        let text = &node.transcript.as_ref().expect("kept").text;
        assert!(
            text.contains("Sign {") && text.contains("scheme: Rsa"),
            "{text}"
        );
        assert!(!text.contains("RsaPkcs1Sha1"), "{text}");
    }
}

//= test rfc4555 3.1-1
#[test]
fn a_peer_is_tried_at_one_of_its_addresses_after_another() {
    let nobody = "192.168.0.99".parse().unwrap();
    let mut setup = Setup::started(1);
    setup.connection.remote_addrs = vec![nobody, B];
    setup.connection.local_addrs = vec![A];
    let mut pair = setup.clone().pair(1);
    setup.connection.remote_addrs = vec![B];
    pair.b = setup.pair(1).b;
    pair.start();
    pair.run_for(Duration::from_secs(5));
    assert!(pair.net.sent.iter().all(|packet| packet.to.ip() == nobody));
    pair.run_for(Duration::from_secs(900));
    pair.assert_up(1);
    assert_eq!(pair.a.endpoint.status(pair.now)[0].path.remote.ip(), B);
}
