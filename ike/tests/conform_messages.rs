//! What stands on the wire in the life of two hosts, seen by whoever has no keys.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use obol_ike::config::StartAction;
use obol_ike::event::{Command, Event, IkeSpi};
use obol_ike::proposal::IkeProposal;
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{A, B, HOSTS, PODS, Setup};
use obol_ike::wire::{
    ExchangeType, Flags, Header, KeMethod, Message, Notify, NotifyType, Payload, PayloadType,
    ProtocolId, RawPayload, TransformType, emit_message,
};

const INIT: ExchangeType = ExchangeType::IKE_SA_INIT;

fn rekey_child() -> Command {
    Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    }
}

fn rekey_ike() -> Command {
    Command::RekeyIke {
        connection: HOSTS.to_owned(),
    }
}

/// Two hosts that have rekeyed everything from both ends, several times, and closed it.
fn a_life() -> Pair {
    let mut pair = Setup::new(1).pair(1);
    pair.initiate(End::A, HOSTS);
    pair.run_until_idle();
    for end in [End::A, End::B, End::B, End::A] {
        pair.command(end, rekey_child()).expect("it is up");
        pair.run_until_idle();
        pair.command(end, rekey_ike()).expect("it is up");
        pair.run_until_idle();
    }
    let terminate = Command::Terminate {
        connection: HOSTS.to_owned(),
        child: None,
    };
    pair.command(End::A, terminate).expect("it is up");
    pair.run_until_idle();
    pair
}

fn headers(pair: &Pair) -> Vec<(IpAddr, Header)> {
    let header = |packet: &Packet| {
        let header = Header::parse(&packet.datagram).expect("sound");
        (packet.from.ip(), header)
    };
    pair.net.sent.iter().map(header).collect()
}

//= test rfc7296 2.5-4 3.1-2 3.1-3 3.1-4 3.1-7 3.1-12
//= test security S-13
#[test]
fn every_header_is_of_version_2_with_its_spis() {
    let pair = a_life();
    assert_eq!(pair.net.sent.len(), 38);
    for packet in &pair.net.sent {
        let header = Header::parse(&packet.datagram).expect("sound");
        assert_eq!(packet.datagram[17], 0x20, "version");
        assert_eq!(packet.datagram[19] & !0x28, 0, "no other flags");
        assert_ne!(header.spi_i, IkeSpi(0));
        let first = header.exchange == INIT && !header.flags.response;
        assert_eq!(header.spi_r == IkeSpi(0), first);
    }
}

//= test rfc7296 3.1-10 3.1-13
#[test]
fn every_reply_answers_a_request_and_names_the_initiator_of_its_ike_sa() {
    let mut asked = BTreeSet::new();
    let mut initiators = BTreeMap::new();
    for (from, header) in headers(&a_life()) {
        let initiator = if header.flags.initiator {
            from
        } else {
            other(from)
        };
        let known = *initiators.entry(header.spi_i.0).or_insert(initiator);
        assert_eq!(known, initiator, "for the life of the IKE SA");
        let key = (header.spi_i.0, header.exchange, header.message_id);
        if header.flags.response {
            assert!(asked.contains(&(key, other(from))));
        } else {
            asked.insert((key, from));
        }
    }
    // Both ends have begun some.
    let a = initiators.values().filter(|ip| **ip == A).count();
    assert_eq!((initiators.len(), a), (5, 3));
}

fn other(ip: IpAddr) -> IpAddr {
    if ip == A { B } else { A }
}

//= test rfc7296 2.3-2 2.18-3
//= test security S-4
#[test]
fn requests_are_numbered_from_zero_and_wait_for_each_other() {
    let mut pair = Setup::started(1).up(1);
    pair.net.delay = (Duration::from_millis(20), Duration::from_millis(20));
    for _ in 0..3 {
        for end in [End::A, End::B] {
            // All at once: they have to wait for each other.
            pair.command(end, rekey_child()).expect("it is up");
            pair.command(end, rekey_ike()).expect("it is up");
        }
        pair.run_until_idle();
        pair.run_for(Duration::from_secs(100));
    }
    let mut last: BTreeMap<(u64, IpAddr), u32> = BTreeMap::new();
    let mut answered: BTreeSet<(u64, IpAddr, u32)> = BTreeSet::new();
    for (from, header) in headers(&pair) {
        let (spi, id) = (header.spi_i.0, header.message_id);
        if header.flags.response {
            answered.insert((spi, other(from), id));
            continue;
        }
        match last.insert((spi, from), id) {
            None => assert_eq!(id, 0),
            Some(before) => {
                assert_eq!(id, before + 1, "from {from}");
                assert!(answered.contains(&(spi, from, before)));
            }
        }
    }
    assert!(last.len() > 6, "several IKE SAs");
}

//= test rfc7296 2.6-1
//= test security S-13
#[test]
fn spis_of_ike_sas_never_repeat() {
    let mut pair = Setup::started(1).up(1);
    for _ in 0..30 {
        pair.command(End::A, rekey_ike()).expect("it is up");
        pair.run_until_idle();
    }
    let pairs: BTreeSet<_> = headers(&pair)
        .into_iter()
        .filter(|(_, header)| header.spi_r.0 != 0)
        .map(|(_, header)| (header.spi_i.0, header.spi_r.0))
        .collect();
    let spis: BTreeSet<_> = pairs.iter().flat_map(|(i, r)| [*i, *r]).collect();
    // Nothing was said yet on the last one.
    assert_eq!((pairs.len(), spis.len()), (30, 60));
}

//= test rfc7296 2.8-4
#[test]
fn the_last_request_on_a_rekeyed_ike_sa_is_its_delete() {
    for end in [End::A, End::B] {
        let mut pair = Setup::started(1).up(1);
        let old = pair.a.endpoint.status(pair.now)[0].spi_i;
        let before = pair.net.sent.len();
        pair.command(end, rekey_ike()).expect("it is up");
        pair.command(end, rekey_child()).ok();
        pair.run_until_idle();
        pair.run_for(Duration::from_secs(120));
        let requests: Vec<_> = headers(&pair)[before..]
            .iter()
            .filter(|(_, header)| header.spi_i == old && !header.flags.response)
            .map(|(_, header)| header.exchange)
            .collect();
        let want = [ExchangeType::CREATE_CHILD_SA, ExchangeType::INFORMATIONAL];
        assert_eq!(requests, want);
        assert_ne!(pair.a.endpoint.status(pair.now)[0].spi_i, old);
    }
}

//= test rfc7296 2.1-7 2.2-1
#[test]
fn a_repeated_request_is_the_same_octets() {
    for command in [rekey_child, rekey_ike] {
        let mut pair = Setup::started(1).up(1);
        pair.net.partitioned = true;
        let before = pair.net.sent.len();
        pair.command(End::A, command()).expect("it is up");
        pair.run_for(Duration::from_secs(30));
        let repeated = &pair.net.sent[before..];
        assert!(repeated.len() > 3);
        assert!(repeated.iter().all(|packet| packet == &repeated[0]));
    }
}

fn payloads<'a>(message: &Message<'a>) -> Vec<Payload<'a>> {
    let decoded = message.payloads.iter().map(RawPayload::decode);
    decoded.collect::<Result<_, _>>().expect("sound")
}

/// IKE_SA_INIT requests and replies, in order.
fn inits(pair: &Pair) -> Vec<Message<'_>> {
    let messages = pair.net.sent.iter();
    let messages = messages.map(|packet| Message::parse(&packet.datagram).expect("sound"));
    messages.filter(|m| m.header.exchange == INIT).collect()
}

fn two_methods(settings: impl Fn(&mut Setup)) -> Pair {
    let with = |text: &str| {
        let mut setup = Setup::started(1);
        settings(&mut setup);
        setup.connection.ike_proposals = IkeProposal::parse(text).expect("sound").into();
        setup.pair(1)
    };
    let mut pair = with("aes256gcm16-aes128gcm16-prfsha384-x25519-ecp256");
    pair.b = with("aes256gcm16-prfsha384-ecp256").b;
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
    pair
}

//= test rfc7296 1.2-5 3.3.6-8
//= test security S-16
#[test]
fn another_key_exchange_method_changes_nothing_of_the_offer() {
    let pair = two_methods(|_| ());
    let inits = inits(&pair);
    let offers: Vec<_> = [&inits[0], &inits[2]].map(payloads).to_vec();
    assert_eq!(offers[0][0], offers[1][0], "the SA payload");
    let method = |payloads: &[Payload<'_>]| match &payloads[1] {
        Payload::Ke(ke) => ke.method,
        other => panic!("{other:?}"),
    };
    let methods = [method(&offers[0]), method(&offers[1])];
    assert_eq!(methods, [KeMethod::CURVE25519, KeMethod::ECP_256]);
    let Payload::Sa(proposals) = &offers[0][0] else {
        panic!("{:?}", offers[0]);
    };
    let of_ke = |t: &&obol_ike::wire::Transform| t.ty == TransformType::KE;
    let first = proposals[0].transforms.iter().find(of_ke).map(|t| t.id);
    assert_eq!(first, Some(methods[0].0), "the first of the first proposal");
}

//= test rfc7296 2.6-4 3.1-3
//= test security S-12
#[test]
fn a_cookie_goes_in_front_of_the_same_request() {
    let mut setup = Setup::started(1);
    setup.settings.cookie_threshold = 0;
    let pair = setup.up(1);
    let sent = &pair.net.sent;
    let (first, again) = (&sent[0].datagram, &sent[2].datagram);
    let cookie = Message::parse(&sent[1].datagram).expect("sound").payloads[0];
    let len = 4 + cookie.body.len();
    assert_eq!(again[16], PayloadType::NOTIFY.0);
    assert_eq!(&again[32..28 + len], cookie.body);
    assert_eq!(again[28], first[16], "and then what came first");
    assert_eq!(again[28 + len..], first[28..], "unchanged");
    assert_eq!(again[..16], first[..16]);
    assert_eq!(again[17..24], first[17..24]);
}

//= test rfc7296 2.6-5
#[test]
fn a_wrong_cookie_is_as_good_as_none() {
    let mut setup = Setup::started(1);
    setup.settings.cookie_threshold = 0;
    let donor = setup.clone().up(1);
    let mut pair = setup.pair(2);
    let mut replies = Vec::new();
    for (flip, cookies) in [(None, 1), (Some(45), 2)] {
        // Its second request has the cookie of another secret.
        let mut packet = donor.net.sent[2].clone();
        if let Some(at) = flip {
            packet.datagram[at] ^= 1;
        }
        pair.net.inject(pair.now, packet);
        pair.run_for(Duration::ZERO);
        let reply = &pair.net.sent.last().expect("a reply").datagram;
        let message = Message::parse(reply).expect("sound");
        let [Payload::Notify(notify)] = &payloads(&message)[..] else {
            panic!("{message:?}");
        };
        assert_eq!(notify.ty, NotifyType::COOKIE);
        assert_eq!(pair.net.sent.len(), cookies);
        assert!(pair.b.endpoint.status(pair.now).is_empty());
        replies.push(notify.data.to_vec());
    }
    assert_eq!(replies[0], replies[1], "the right one");
}

//= test rfc7296 2.6.1-1 2.23-7 3.3.1-4 3.10-2 3.10-3
#[test]
fn first_messages_have_no_spis_but_both_hashes_of_addresses() {
    let pair = two_methods(|setup| setup.settings.cookie_threshold = 0);
    let inits = inits(&pair);
    assert_eq!(inits.len(), 6, "another method with the same cookie");
    for message in &inits {
        for payload in payloads(message) {
            match payload {
                Payload::Sa(proposals) => assert!(proposals.iter().all(|p| p.spi.is_empty())),
                Payload::Notify(notify) => {
                    assert_eq!(notify.protocol, ProtocolId::NONE);
                    assert!(notify.spi.is_empty());
                }
                _ => {}
            }
        }
    }
    for message in [&inits[0], inits.last().expect("some")] {
        let of_nat = |payload: &Payload<'_>| match payload {
            Payload::Notify(notify) => notify.as_nat_detection().map(|_| notify.ty),
            _ => None,
        };
        let hashes: Vec<_> = payloads(message).iter().filter_map(of_nat).collect();
        let want = [
            NotifyType::NAT_DETECTION_SOURCE_IP,
            NotifyType::NAT_DETECTION_DESTINATION_IP,
        ];
        assert_eq!(hashes, want);
    }
}

/// Sends the second host a message without keys, and returns what it answers.
fn stranger(pair: &mut Pair, header: &Header, payloads: &[Payload<'_>]) -> Vec<Packet> {
    let sent = pair.net.sent.len();
    let packet = Packet {
        from: (A, 40_500).into(),
        to: (B, 500).into(),
        datagram: emit_message(header, payloads).expect("short"),
    };
    pair.net.inject(pair.now, packet);
    pair.run_for(Duration::ZERO);
    pair.net.sent[sent..].to_vec()
}

//= test rfc7296 2.21.4-1 3.1-11
#[test]
fn what_is_marked_as_a_reply_is_never_answered() {
    let mut setup = Setup::new(1);
    setup.b_starts = StartAction::None;
    let mut pair = setup.pair(1);
    let notify = Payload::Notify(Notify::bare(NotifyType::INVALID_IKE_SPI));
    for major in [2, 3] {
        for exchange in 34..=38 {
            let flags = Flags {
                initiator: true,
                response: true,
                ..Flags::default()
            };
            let exchange = ExchangeType(exchange);
            let mut header = Header::new(IkeSpi(1), IkeSpi(2), exchange, flags, 7);
            header.major = major;
            let answers = stranger(&mut pair, &header, std::slice::from_ref(&notify));
            assert!(answers.is_empty(), "{major} {exchange:?}");
        }
    }
}

//= test rfc7296 2.5-2 2.21.4-2
#[test]
fn an_answer_to_a_stranger_goes_back_with_its_spis_and_message_id() {
    let mut pair = Setup::new(1).pair(1);
    let flags = Flags {
        initiator: true,
        ..Flags::default()
    };
    let exchange = ExchangeType::INFORMATIONAL;
    let mut header = Header::new(IkeSpi(1), IkeSpi(2), exchange, flags, 7);
    header.major = 3;
    let answers = stranger(&mut pair, &header, &[]);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].to, (A, 40_500).into());
    assert_eq!(answers[0].from, (B, 500).into());
    let message = Message::parse(&answers[0].datagram).expect("version 2");
    let answer = message.header;
    assert_eq!((answer.spi_i, answer.spi_r), (IkeSpi(1), IkeSpi(2)));
    assert_eq!((answer.message_id, answer.flags.response), (7, true));
    let [Payload::Notify(notify)] = &payloads(&message)[..] else {
        panic!("{message:?}");
    };
    assert_eq!(notify.ty, NotifyType::INVALID_MAJOR_VERSION);
}

/// A reply to the first request of the first host, by whoever saw that.
fn forged(pair: &Pair, notify: Notify<'_>) -> Packet {
    let first = &pair.net.sent[0];
    let header = Header::parse(&first.datagram).expect("our own");
    let flags = Flags {
        response: true,
        ..Flags::default()
    };
    let header = Header::new(header.spi_i, IkeSpi(0), INIT, flags, 0);
    Packet {
        from: first.to,
        to: first.from,
        datagram: emit_message(&header, &[Payload::Notify(notify)]).expect("short"),
    }
}

//= test security S-14
#[test]
fn forged_replies_make_an_initiator_send_so_often_and_no_more() {
    let mut setup = Setup::started(1);
    // So that only replies make it send.
    setup.settings.retransmit_timeout = Duration::from_secs(1000);
    let mut pair = setup.pair(1);
    pair.net.partitioned = true;
    pair.start();
    for n in 0..200 {
        let cookie = vec![n; 8];
        for notify in [
            Notify::cookie(&cookie),
            Notify::invalid_ke(KeMethod(u16::from(n) % 40)),
        ] {
            let packet = forged(&pair, notify);
            pair.net.inject(pair.now, packet);
            pair.run_for(Duration::ZERO);
        }
    }
    // The first request, and with each of the seven methods one more for a cookie.
    assert_eq!(pair.net.sent.len(), 7 + 7);
    // Cookies that are left are tried when the request is repeated: as often as ever, with each
    // method. A second try, which nobody answers, goes as ever.
    pair.run_for(Duration::from_secs(3600));
    assert!(inits(&pair).len() <= 14 + 12 * 7 + 2 * 13);
}

//= test security S-26
#[test]
fn nobody_is_authenticated_on_altered_first_messages() {
    let recorded = Setup::started(1).up(1).net.sent;
    let mut judged = 0;
    for nth in [0, 1] {
        let packet = &recorded[nth];
        for bit in (0..packet.datagram.len() * 8).step_by(7) {
            let mut pair = Setup::started(1).pair(1);
            pair.net.drop_nth = Some(nth);
            pair.start();
            // The message is lost on its way, and the altered one comes in its place.
            pair.run_for(Duration::from_millis(11));
            let mut altered = packet.clone();
            altered.datagram[bit / 8] ^= 1 << (bit % 8);
            pair.net.inject(pair.now, altered);
            // Nothing is sent again before 800 ms.
            pair.run_for(Duration::from_millis(500));
            // A refusal of another method has the first host begin again, with a message of its own.
            if inits(&pair).len() > 2 {
                continue;
            }
            // The reply is covered by the responder's proof, which comes last.
            let receiver = if nth == 0 { &pair.b } else { &pair.a };
            let ups = |e: &Event| matches!(e, Event::IkeUp { .. } | Event::ChildUp(_));
            assert_eq!(receiver.count(ups), 0, "message {nth}, bit {bit}");
            judged += 1;
        }
    }
    assert!(judged > 300, "{judged}");
}
