//! What RFC 4555 asks of the messages of MOBIKE, seen by a peer that shares keys and does no NAT
//! traversal.

use std::net::IpAddr;
use std::sync::Arc;

use obol_ike::config::{Config, Connection, Mobike, StartAction};
use obol_ike::testing::pair::End;
use obol_ike::testing::scripted::{Heard, Scripted};
use obol_ike::testing::setup::{B, ID_A, connection, mirror, pods};
use obol_ike::wire::{Notify, NotifyType, Payload};

/// The peer, and the second host, which speaks MOBIKE, too.
fn peer(data: &'static [u8]) -> Scripted {
    let ours = Connection {
        mobike: Mobike::default(),
        remote_addrs: Vec::new(),
        local_addrs: Vec::new(),
        ..mirror(
            &connection(vec![pods(StartAction::None)]),
            StartAction::None,
        )
    };
    let mut peer = Scripted::begun_with(Config {
        connections: vec![Arc::new(ours)],
        ..Config::default()
    });
    let supported = Notify::with_data(NotifyType::MOBIKE_SUPPORTED, data);
    let reply = peer.prove(ID_A, |payloads| payloads.push(Payload::Notify(supported)));
    let reply = reply.expect("answered");
    assert_eq!(reply.error(), None);
    let mut notifies = reply.notifies.iter();
    let ours = notifies.find(|(ty, _)| *ty == NotifyType::MOBIKE_SUPPORTED);
    assert_eq!(ours.map(|(_, data)| data.len()), Some(0), "sent empty");
    peer
}

fn data(heard: &Heard, ty: NotifyType) -> Option<Vec<u8>> {
    let payloads = heard.payloads();
    payloads.iter().find_map(|payload| match payload {
        Payload::Notify(notify) if notify.ty == ty => Some(notify.data.to_vec()),
        _ => None,
    })
}

fn with(ty: NotifyType, data: Vec<u8>) -> Payload<'static> {
    Payload::Notify(Notify::with_data(ty, data))
}

/// What the second host asks when it has one more address.
fn with_one_more_address(peer: &mut Scripted) -> Heard {
    let sent = peer.pair.net.sent.len();
    let more: IpAddr = [192, 168, 0, 77].into();
    peer.pair.readdress(End::B, &[B, more]);
    let mut requests = peer.requests_since(sent);
    assert_eq!(requests.len(), 1);
    requests.remove(0)
}

//= test rfc4555 3.2-1 4.2.1-1
#[test]
fn mobike_supported_is_sent_empty_and_its_data_are_not_looked_at() {
    for data in [&b""[..], b"whatever"] {
        let peer = peer(data);
        let status = peer.pair.b.endpoint.status(peer.pair.now);
        assert!(status[0].mobike);
    }
}

//= test rfc4555 3.9-1 3.9-3 4.2.5-2
#[test]
fn without_nat_traversal_addresses_go_with_no_nats_allowed_and_again_if_there_was_one() {
    let mut peer = peer(b"");
    let mut request = with_one_more_address(&mut peer);
    let (mut ids, mut cookies) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let no_nats = data(&request, NotifyType::NO_NATS_ALLOWED).expect("it is there");
        assert_eq!(no_nats.len(), 4 + 4 + 2 + 2);
        assert!(data(&request, NotifyType::ADDITIONAL_IP4_ADDRESS).is_some());
        let cookie = data(&request, NotifyType::COOKIE2).expect("it is there");
        assert!((8..=64).contains(&cookie.len()));
        let answer = [
            with(NotifyType::COOKIE2, cookie.clone()),
            with(NotifyType::UNEXPECTED_NAT_DETECTED, Vec::new()),
        ];
        ids.push(request.header.message_id);
        cookies.push(cookie);
        let mut next = peer.answer(&request, &answer).expect("awaited");
        assert_eq!(next.len(), 1, "a new request");
        request = next.remove(0);
    }
    assert!(ids.is_sorted_by(|a, b| a < b));
    cookies.dedup();
    assert_eq!(cookies.len(), 3, "nobody can foresee them");
    let cookie = data(&request, NotifyType::COOKIE2).expect("it is there");
    let next = peer.answer(&request, &[with(NotifyType::COOKIE2, cookie)]);
    assert!(next.expect("awaited").is_empty());
    assert_eq!(peer.up(), (1, 1));
}

//= test rfc4555 3.7-3
#[test]
fn cookie2_comes_back_as_it_is() {
    let mut peer = peer(b"");
    let exchange = obol_ike::wire::ExchangeType::INFORMATIONAL;
    for len in [8, 33, 64] {
        let sent = vec![len; usize::from(len)];
        let reply = peer.ask(exchange, &[with(NotifyType::COOKIE2, sent.clone())]);
        let reply = reply.expect("answered");
        assert_eq!(data(&reply, NotifyType::COOKIE2), Some(sent));
    }
}
