//! Whoever sees the peer's reply to our first request sends altered copies of it that lead to the same
//! keys: they decide nothing, whenever they come.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use obol_ike::event::Event;
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{A, B, HOSTS, PODS, Setup};
use obol_ike::wire::{ExchangeType, Message, Notify, NotifyType, Payload, emit_message};
use sha1::{Digest, Sha1};

const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// Both hosts, when the reply is on its way; and that reply, as it arrives.
fn answered(setup: Setup) -> (Pair, Packet) {
    let mut pair = setup.pair(1);
    pair.start();
    pair.run_for(Duration::from_millis(11));
    let mut reply = pair.net.sent.last().expect("a reply").clone();
    assert_eq!(reply.datagram[18], ExchangeType::IKE_SA_INIT.0);
    assert_eq!(reply.from.ip(), B);
    reply.to = (A, 500).into();
    (pair, reply)
}

/// The same reply with other notifies.
fn altered(reply: &Packet, change: impl Fn(&mut Notify<'_>)) -> Packet {
    let message = Message::parse(&reply.datagram).expect("the endpoint's own");
    let payloads = message.payloads.iter().map(|raw| {
        let mut payload = raw.decode().expect("the endpoint's own");
        if let Payload::Notify(notify) = &mut payload {
            change(notify);
        }
        payload
    });
    let payloads: Vec<Payload<'_>> = payloads.collect();
    Packet {
        datagram: emit_message(&message.header, &payloads).expect("short"),
        ..reply.clone()
    }
}

/// What a notify says of an address, RFC 7296 section 2.23.
fn nat_hash(reply: &Packet, address: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(ip) = address.ip() else {
        panic!("the setup has IPv4");
    };
    let said = [
        &reply.datagram[..16],
        &ip.octets(),
        &address.port().to_be_bytes(),
    ];
    Sha1::digest(said.concat()).to_vec()
}

fn finish(pair: &mut Pair, what: &str) {
    pair.run_until_idle();
    pair.run_for(Duration::from_secs(60));
    pair.assert_up(1);
    for node in [&pair.a, &pair.b] {
        let ended =
            |event: &Event| matches!(event, Event::IkeDown { .. } | Event::IkeFailed { .. });
        assert_eq!(node.count(ended), 0, "{what}: {:?}", node.events);
    }
    assert!(pair.send_packet(End::A, HOSTS, PODS), "{what}");
    assert!(pair.send_packet(End::B, HOSTS, PODS), "{what}");
}

//= test security S-10
#[test]
fn a_copy_that_speaks_of_a_nat_makes_none() {
    for before in [true, false] {
        let (mut pair, reply) = answered(Setup::started(1));
        let copy = altered(&reply, |notify| {
            if notify.ty == NotifyType::NAT_DETECTION_DESTINATION_IP {
                notify.data = vec![7; 20].into();
            }
        });
        if !before {
            pair.run_for(Duration::from_millis(10));
        }
        let now = pair.now;
        pair.net.inject(now, copy);
        finish(&mut pair, &format!("before: {before}"));
        let status = pair.a.endpoint.status(pair.now).remove(0);
        assert_eq!(status.nat, (false, false));
        assert!(pair.a.plane.inbound.values().all(|sa| !sa.info.encap));
    }
}

//= test security S-10
#[test]
fn a_copy_that_hides_a_nat_hides_none() {
    for before in [true, false] {
        let mut setup = Setup::started(1);
        setup.net.nat = Some((A, OUTSIDE));
        setup.connection.local_addrs = Vec::new();
        setup.connection.source = Some(A);
        let (mut pair, reply) = answered(setup);
        let hidden = nat_hash(&reply, (A, 500).into());
        let copy = altered(&reply, |notify| {
            if notify.ty == NotifyType::NAT_DETECTION_DESTINATION_IP {
                assert_ne!(*notify.data, *hidden, "there is a NAT");
                notify.data = hidden.clone().into();
            }
        });
        if !before {
            pair.run_for(Duration::from_millis(10));
        }
        let now = pair.now;
        pair.net.inject(now, copy);
        finish(&mut pair, &format!("before: {before}"));
        for node in [&pair.a, &pair.b] {
            let mut sas = node.plane.inbound.values();
            let at = |path: obol_ike::config::Path| (path.local.port(), path.remote.port());
            assert!(sas.all(|sa| sa.info.encap && at(sa.info.path) != (500, 500)));
        }
    }
}

/// However many come, no two messages say different things under one number, and what is kept of them
/// is bounded.
//= test security S-10 S-40
#[test]
fn a_flood_of_copies_leads_to_one_request() {
    let (mut pair, reply) = answered(Setup::started(1));
    pair.run_for(Duration::from_millis(10));
    for n in 0..200u8 {
        let copy = altered(&reply, |notify| {
            if notify.ty == NotifyType::NAT_DETECTION_DESTINATION_IP {
                notify.data = vec![n; 20].into();
            }
        });
        let now = pair.now;
        pair.net.inject(now, copy);
        pair.run_for(Duration::ZERO);
    }
    finish(&mut pair, "a flood");
    let requests = pair.net.sent.iter().map(|packet| &packet.datagram);
    let mut requests: Vec<_> = requests
        .filter(|octets| octets[18] == ExchangeType::IKE_AUTH.0 && octets[19] & 0x20 == 0)
        .collect();
    requests.dedup();
    assert_eq!(requests.len(), 1);
}
