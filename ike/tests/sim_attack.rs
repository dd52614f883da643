//! Whoever holds no key changes nothing.

use std::time::Duration;

use obol_ike::config::StartAction;
use obol_ike::error::Dropped;
use obol_ike::event::{Command, Event, IkeSpi};
use obol_ike::testing::net::{Net, Packet};
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::scripted::Scripted;
use obol_ike::testing::setup::{A, B, HOSTS, PODS, Setup};
use obol_ike::wire::{
    Delete, ExchangeType, Flags, Header, KeMethod, Notify, NotifyType, Payload, emit_message,
};

/// A pair that has done all kinds of exchanges.
fn experienced() -> Pair {
    let mut pair = Setup::started(1).up(1);
    let connection = || HOSTS.to_owned();
    let child = || PODS.to_owned();
    for end in [End::A, End::B] {
        pair.command(
            end,
            Command::RekeyChild {
                connection: connection(),
                child: child(),
            },
        )
        .expect("it is up");
        pair.run_until_idle();
        pair.command(
            end,
            Command::RekeyIke {
                connection: connection(),
            },
        )
        .expect("it is up");
        pair.run_until_idle();
    }
    pair.run_for(Duration::from_secs(70));
    pair
}

/// What an observer can tell of a pair's state.
fn picture(pair: &Pair) -> String {
    let node = |node: &obol_ike::testing::pair::Node| {
        let status = node.endpoint.status(pair.now);
        format!("{status:?} {:?} {}", node.plane.current, node.events.len())
    };
    format!("{} {}", node(&pair.a), node(&pair.b))
}

//= test rfc7296 2.1-2
//= test security S-5
#[test]
fn replayed_datagrams_have_no_effect() {
    let mut pair = experienced();
    pair.assert_up(1);
    let recorded = pair.net.sent.clone();
    let before = picture(&pair);
    let timer = (
        pair.a.endpoint.poll_timeout(),
        pair.b.endpoint.poll_timeout(),
    );
    for packet in recorded {
        // An IKE_SA_INIT request may open a half-open SA again; the rest must not even do that.
        if packet.datagram[18] == ExchangeType::IKE_SA_INIT.0 {
            continue;
        }
        for _ in 0..3 {
            pair.net.inject(pair.now, packet.clone());
        }
        pair.run_for(Duration::ZERO);
    }
    assert_eq!(picture(&pair), before);
    assert_eq!(
        (
            pair.a.endpoint.poll_timeout(),
            pair.b.endpoint.poll_timeout()
        ),
        timer
    );
}

#[test]
fn a_replayed_first_request_opens_nothing_that_lasts() {
    let mut pair = experienced();
    let first = pair.net.sent[0].clone();
    for _ in 0..5 {
        pair.net.inject(pair.now, first.clone());
    }
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.b.endpoint.status(pair.now).len(), 1, "it is known");
    assert_eq!(pair.b.dropped[&Dropped::Repeated], 5);
    // After a while it is not.
    pair.run_for(Duration::from_secs(600));
    let known = pair.b.endpoint.status(pair.now).len();
    for _ in 0..5 {
        pair.net.inject(pair.now, first.clone());
    }
    pair.run_for(Duration::from_secs(1));
    let more = pair.b.endpoint.status(pair.now).len() - known;
    assert!(more <= 1, "one, however often it comes: {more}");
    pair.run_for(Duration::from_secs(60));
    pair.assert_up(1);
}

//= test security S-30
#[test]
fn every_encrypted_message_bitflip_every_bit_dropped() {
    let pair = Setup::started(1).up(1);
    let recorded = pair.net.sent.clone();
    for packet in recorded
        .iter()
        .filter(|p| p.datagram[18] != ExchangeType::IKE_SA_INIT.0)
    {
        let mut pair = Setup::started(1).pair(1);
        let to_b = packet.to.ip() == B;
        // Everything up to this datagram happens as before; then only forgeries arrive.
        pair.net = Net::seeded(1).drop_nth(if to_b { 2 } else { 3 });
        pair.start();
        pair.run_for(Duration::from_millis(35));
        for bit in 0..packet.datagram.len() * 8 {
            let mut forged = packet.clone();
            forged.datagram[bit / 8] ^= 1 << (bit % 8);
            pair.net.inject(pair.now, forged);
            pair.run_for(Duration::ZERO);
            let node = pair.node(if to_b { End::B } else { End::A });
            let ups = node.count(|e| matches!(e, Event::IkeUp { .. }));
            let harmless = [16 * 8, 17 * 8, 19 * 8];
            let reserved = harmless.iter().any(|at| (*at..at + 8).contains(&bit));
            assert!(ups == 0 || reserved, "bit {bit} is not covered");
        }
        pair.run_until_idle();
        pair.assert_up(1);
    }
}

#[test]
fn corruption_delays_but_does_not_mislead() {
    for seed in 0..60 {
        let mut setup = Setup::started(seed);
        setup.settings.retransmit_tries = 30;
        setup.net.corrupted = 300;
        let mut pair = setup.up(seed);
        pair.net.corrupted = 0;
        pair.run_for(Duration::from_secs(300));
        pair.run_until_idle();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.assert_up(1)));
        assert!(result.is_ok(), "seed {seed}");
    }
}

fn forged_reply(pair: &Pair, spi_r: u64, payloads: &[Payload<'_>]) -> Packet {
    let first = &pair.net.sent[0];
    let header = Header::parse(&first.datagram).expect("our own");
    let flags = Flags {
        response: true,
        ..Flags::default()
    };
    let spi_r = IkeSpi(spi_r);
    let reply = Header::new(header.spi_i, spi_r, ExchangeType::IKE_SA_INIT, flags, 0);
    Packet {
        from: first.to,
        to: first.from,
        datagram: emit_message(&reply, payloads).expect("short"),
    }
}

//= test security S-10 S-16 S-30
#[test]
fn forged_errors_do_not_stop_a_handshake() {
    let errors = [
        Notify::bare(NotifyType::NO_PROPOSAL_CHOSEN),
        Notify::bare(NotifyType::AUTHENTICATION_FAILED),
        Notify::bare(NotifyType::INVALID_SYNTAX),
        Notify::invalid_ke(KeMethod::MODP_1024),
        Notify::invalid_ke(KeMethod(9999)),
        Notify::with_data(NotifyType::COOKIE, vec![]),
        Notify::with_data(NotifyType::COOKIE, vec![1; 65]),
    ];
    for error in errors {
        let mut pair = Setup::started(1).pair(1);
        pair.start();
        let payload = [Payload::Notify(error)];
        for spi_r in [0, 7] {
            let forged = forged_reply(&pair, spi_r, &payload);
            pair.net.inject(pair.now, forged);
        }
        pair.run_until_idle();
        pair.assert_up(1);
        assert_eq!(pair.a.count(|e| matches!(e, Event::IkeFailed { .. })), 0);
    }
}

//= test rfc7296 1.4-1 2.4-3 2.21.4-4 3.1-11
//= test security S-23
#[test]
fn cleartext_notify_never_changes_an_established_sa() {
    let mut pair = Setup::started(1).up(1);
    let status = pair.a.endpoint.status(pair.now).remove(0);
    let before = picture(&pair);
    let payloads = [
        Payload::Delete(Delete::Ike),
        Payload::Notify(Notify::bare(NotifyType::INVALID_IKE_SPI)),
        Payload::Notify(Notify::bare(NotifyType::AUTHENTICATION_FAILED)),
        Payload::Notify(Notify::bare(NotifyType::INITIAL_CONTACT)),
    ];
    for exchange in 34..=38 {
        for response in [false, true] {
            for message_id in 0..4 {
                let flags = Flags {
                    initiator: true,
                    version: false,
                    response,
                };
                let exchange = ExchangeType(exchange);
                let header = Header::new(status.spi_i, status.spi_r, exchange, flags, message_id);
                let datagram = emit_message(&header, &payloads).expect("short");
                let packet = Packet {
                    from: (A, 500).into(),
                    to: (B, 500).into(),
                    datagram,
                };
                pair.net.inject(pair.now, packet);
            }
        }
    }
    pair.run_for(Duration::ZERO);
    assert_eq!(picture(&pair), before);
}

//= test rfc7296 2.4-5 2.5-2
//= test security S-11 S-32
#[test]
fn another_major_version_is_told_ours_and_unknown_spis_are_told_nothing() {
    let mut pair = Setup::new(1).pair(1);
    let header = |major, exchange, spi_r| {
        let flags = Flags {
            initiator: true,
            ..Flags::default()
        };
        let mut header = Header::new(IkeSpi(1), IkeSpi(spi_r), exchange, flags, 0);
        header.major = major;
        header
    };
    let send = |pair: &mut Pair, header: &Header| {
        let packet = Packet {
            from: (A, 500).into(),
            to: (B, 500).into(),
            datagram: emit_message(header, &[]).expect("short"),
        };
        pair.net.inject(pair.now, packet);
        pair.run_for(Duration::ZERO);
    };
    send(&mut pair, &header(3, ExchangeType::IKE_SA_INIT, 0));
    assert_eq!(pair.b.dropped[&Dropped::Version], 1);
    assert_eq!(pair.net.sent.len(), 1);
    for _ in 0..200 {
        send(&mut pair, &header(3, ExchangeType::IKE_SA_INIT, 0));
    }
    assert!(pair.net.sent.len() < 30, "a few, not all");
    let sent = pair.net.sent.len();
    send(&mut pair, &header(1, ExchangeType::IKE_SA_INIT, 0));
    send(&mut pair, &header(2, ExchangeType::INFORMATIONAL, 5));
    assert_eq!(pair.b.dropped[&Dropped::UnknownSpi], 1);
    assert_eq!(pair.net.sent.len(), sent);
}

//= test rfc7296 2.6-2
//= test security S-44
#[test]
fn a_flood_of_first_requests_is_bounded_and_a_peer_with_a_cookie_gets_through() {
    let mut setup = Setup::started(1);
    setup.settings.half_open_limit = 100;
    setup.b_starts = StartAction::None;
    let donor = setup.clone().up(1);
    let first = donor.net.sent[0].clone();
    let mut pair = setup.pair(2);
    for n in 0..500u64 {
        let mut packet = first.clone();
        packet.datagram[..8].copy_from_slice(&(n + 1).to_be_bytes());
        pair.net.inject(pair.now, packet);
    }
    pair.run_for(Duration::from_millis(1));
    assert_eq!(
        pair.b.endpoint.status(pair.now).len(),
        32,
        "the threshold of cookies"
    );
    pair.start();
    pair.run_for(Duration::from_secs(3));
    assert_eq!(pair.a.count(|e| matches!(e, Event::ChildUp(_))), 1);
}

/// A host that nobody has asked for anything, and a first request to it.
fn asked(half_open_limit: usize) -> (Pair, Packet) {
    let mut setup = Setup::started(1);
    setup.settings.half_open_limit = half_open_limit;
    let first = setup.clone().up(1).net.sent[0].clone();
    // The second host takes peers from anywhere.
    setup.connection.local_addrs = Vec::new();
    (setup.pair(2), first)
}

//= test security S-3
#[test]
fn first_requests_that_share_an_spi_count_each() {
    let (mut pair, first) = asked(100);
    for n in 0..200u32 {
        let mut packet = first.clone();
        // Within the hash of an address, which may say anything.
        let at = packet.datagram.len() - 22;
        packet.datagram[at..at + 4].copy_from_slice(&n.to_be_bytes());
        pair.net.inject(pair.now, packet);
    }
    pair.run_for(Duration::from_millis(1));
    let half_open = pair.b.endpoint.status(pair.now).len();
    assert_eq!(half_open, 32, "the threshold of cookies");
    assert_eq!(pair.b.dropped[&Dropped::Cookie], 200 - 32);
}

/// The same request with the cookie that was asked for in the last reply.
fn with_cookie(pair: &Pair, request: &Packet) -> Packet {
    let reply = &pair.net.sent.last().expect("a reply").datagram;
    let notify = &reply[28..];
    assert_eq!(notify[6..8], NotifyType::COOKIE.0.to_be_bytes());
    let mut packet = request.clone();
    let first = packet.datagram[16];
    packet.datagram[16] = 41;
    packet.datagram.splice(28..28, notify.iter().copied());
    packet.datagram[28] = first;
    let len = u32::try_from(packet.datagram.len()).expect("short");
    packet.datagram[24..28].copy_from_slice(&len.to_be_bytes());
    packet
}

//= test security S-44
#[test]
fn one_network_does_not_take_all_places_with_cookies() {
    let (mut pair, first) = asked(400);
    let mut from = |network: u8, n: u64| {
        let mut packet = first.clone();
        packet.datagram[..8].copy_from_slice(&(n + 1).to_be_bytes());
        packet.from = ([203, 0, network, (n % 250) as u8], 500).into();
        pair.net.inject(pair.now, packet.clone());
        pair.run_for(Duration::ZERO);
        if n >= 32 {
            let again = with_cookie(&pair, &packet);
            pair.net.inject(pair.now, again);
            pair.run_for(Duration::ZERO);
        }
        pair.b.endpoint.status(pair.now).len()
    };
    let taken = (0..500).map(|n| from(113, n)).last();
    assert_eq!(taken, Some(32 + 400 / 4));
    assert_eq!(from(114, 1000), 32 + 400 / 4 + 1, "another network");
}

//= test security S-32
#[test]
fn a_reply_to_a_stranger_is_not_longer_than_its_request() {
    let peer = Scripted::begun(Setup::new(1));
    let reply = &peer.pair.net.sent[0].datagram;
    assert!(
        reply.len() <= peer.first_request().len(),
        "{} octets for {}",
        reply.len(),
        peer.first_request().len()
    );
}

#[test]
fn a_flood_with_cookies_from_one_network_leaves_others_alone_and_costs_little() {
    let (mut pair, first) = asked(400);
    let mut exchanges = 0;
    let mut ask = |pair: &mut Pair, from: [u8; 4], spi: u64| {
        let mut packet = first.clone();
        packet.datagram[..8].copy_from_slice(&spi.to_be_bytes());
        packet.from = (from, 500).into();
        let sent = pair.net.sent.len();
        pair.net.inject(pair.now, packet.clone());
        pair.run_for(Duration::ZERO);
        if pair.net.sent.len() > sent && pair.net.sent[sent].datagram.len() < 200 {
            let again = with_cookie(pair, &packet);
            pair.net.inject(pair.now, again);
            pair.run_for(Duration::ZERO);
        }
        let reply = &pair.net.sent.last().expect("a reply").datagram;
        let served = reply[..8] == spi.to_be_bytes() && reply.len() >= 200;
        exchanges += usize::from(served);
        served
    };
    let (mut honest, mut spi) = (0, 1);
    for ms in 0..2000u32 {
        for n in 0..5 {
            spi += 1;
            ask(&mut pair, [203, 0, 113, ((ms * 5 + n) % 250) as u8], spi);
        }
        if ms % 20 == 0 {
            spi += 1;
            honest += usize::from(ask(&mut pair, [198, 51, (ms / 20) as u8, 1], spi));
        }
        pair.run_for(Duration::from_millis(1));
    }
    println!("5000 a second for 2 s: {exchanges} key exchanges, {honest} of 100 others served");
    assert_eq!(honest, 100);
    assert!(exchanges <= 32 + 200 + 2 * 50 + 100 + 1, "{exchanges}");
    assert!(pair.b.dropped[&Dropped::Rationed] > 9000);
}
