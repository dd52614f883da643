//! One end loses its state: quick crash detection (RFC 6290), and hints without it (RFC 7296
//! sections 1.5 and 2.21.4).

use std::time::Duration;

use obol_ike::config::StartAction;
use obol_ike::error::{Dropped, IkeFailure};
use obol_ike::event::{Command, EspSpi, Event, IkeSpi};
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{A, B, HOSTS, PODS, Setup, pods};
use obol_ike::wire::{
    ExchangeType, Flags, Header, Message, Notify, NotifyType, Payload, PayloadType, emit_message,
};

/// The tunnel, on demand at both ends, and tokens in both directions.
fn trapped(seed: u64) -> Setup {
    let mut setup = Setup::new(seed).children(vec![pods(StartAction::Trap)]);
    setup.connection.dpd_delay = Some(Duration::from_secs(30));
    setup.b_starts = StartAction::Trap;
    setup
}

fn with_tokens(setup: Setup, seed: u64) -> Pair {
    let mut pair = setup.pair(seed);
    pair.a = pair.a.with_token_secret(b"the first host's own secret");
    pair.b = pair.b.with_token_secret(b"the second host's own secret");
    pair
}

fn up(mut pair: Pair) -> Pair {
    pair.start();
    pair.send_packet(End::A, HOSTS, PODS);
    pair.run_until_idle();
    pair.assert_up(1);
    pair
}

fn crashes(node: &Node) -> usize {
    let crashed = |e: &Event| matches!(e, Event::IkeDown { reason, .. } if *reason == IkeFailure::PeerCrashed);
    node.count(crashed)
}

/// Sends ten packets a second until one gets through.
fn time_to_recover(pair: &mut Pair, from: End) -> Duration {
    let begin = pair.now;
    while !pair.send_packet(from, HOSTS, PODS) {
        pair.run_for(Duration::from_millis(100));
        assert!(pair.now - begin < Duration::from_secs(300), "a black hole");
    }
    pair.now - begin
}

#[test]
fn traffic_to_a_peer_that_lost_its_state_is_back_within_ten_seconds() {
    for crashed in [End::A, End::B] {
        for starts in [StartAction::Trap, StartAction::Start] {
            let mut setup = trapped(1).children(vec![pods(starts)]);
            setup.b_starts = starts;
            let mut pair = up(with_tokens(setup, 1));
            let survivor = if crashed == End::A { End::B } else { End::A };
            pair.restart(crashed);
            let took = time_to_recover(&mut pair, survivor);
            println!("{crashed:?} restarted, {starts:?}: back after {took:?}");
            assert!(took <= Duration::from_secs(10), "{took:?}");
            pair.run_until_idle();
            pair.assert_up(1);
        }
    }
}

#[test]
fn it_is_back_when_datagrams_are_lost_too() {
    let mut slowest = Duration::ZERO;
    for seed in 0..100 {
        let mut pair = up(with_tokens(trapped(seed), seed));
        pair.net.loss = 200;
        pair.restart(End::B);
        slowest = slowest.max(time_to_recover(&mut pair, End::A));
        pair.net.loss = 0;
        pair.run_for(Duration::from_secs(200));
        pair.run_until_idle();
        pair.assert_up(1);
    }
    println!("slowest of 100 at 20 % loss: {slowest:?}");
    assert!(slowest <= Duration::from_secs(60), "{slowest:?}");
}

#[test]
fn without_tokens_a_hint_only_asks_earlier() {
    let mut pair = up(trapped(1).pair(1));
    pair.restart(End::B);
    let sent = pair.net.sent.len();
    pair.send_packet(End::A, HOSTS, PODS);
    pair.run_for(Duration::from_millis(100));
    // INVALID_SPI, the question whether it lives, INVALID_IKE_SPI.
    assert_eq!(pair.net.sent.len(), sent + 3);
    assert_eq!(
        pair.a.endpoint.status(pair.now).len(),
        1,
        "nothing torn down"
    );
    assert_eq!(crashes(&pair.a), 0);
    assert_eq!(pair.a.dropped[&Dropped::Hint], 2);
}

#[test]
fn who_does_not_believe_tokens_asks_only() {
    let mut setup = trapped(1);
    setup.settings.crash_detection = false;
    let mut pair = up(with_tokens(setup, 1));
    assert!(!pair.a.endpoint.status(pair.now)[0].crash_detection);
    pair.restart(End::B);
    pair.send_packet(End::A, HOSTS, PODS);
    pair.run_for(Duration::from_secs(5));
    assert_eq!(crashes(&pair.a), 0);
}

#[test]
fn tokens_follow_a_rekey_from_either_end() {
    for rekeying in [End::A, End::B] {
        for crashed in [End::A, End::B] {
            let mut pair = up(with_tokens(trapped(1), 1));
            let rekey = Command::RekeyIke {
                connection: HOSTS.to_owned(),
            };
            pair.command(rekeying, rekey).expect("it is up");
            pair.run_until_idle();
            pair.run_for(Duration::from_secs(100));
            for end in [End::A, End::B] {
                let now = pair.now;
                assert!(pair.node(end).endpoint.status(now)[0].crash_detection);
            }
            let survivor = if crashed == End::A { End::B } else { End::A };
            pair.restart(crashed);
            let took = time_to_recover(&mut pair, survivor);
            assert!(took <= Duration::from_secs(2), "{took:?}");
            assert_eq!(crashes(pair.node(survivor)), 1);
        }
    }
}

/// A protected request that nobody can read, about these SPIs.
fn protected(spi_i: IkeSpi, spi_r: IkeSpi, flags: Flags, len: usize) -> Vec<u8> {
    let header = Header::new(spi_i, spi_r, ExchangeType::INFORMATIONAL, flags, 2);
    let body = vec![7; len];
    let payload = Payload::Sk {
        first: PayloadType::NONE,
        body: &body,
    };
    emit_message(&header, &[payload]).expect("short")
}

fn inject(pair: &mut Pair, to: End, datagram: Vec<u8>) {
    let (from, to) = match to {
        End::A => (B, A),
        End::B => (A, B),
    };
    let packet = Packet {
        from: (from, 500).into(),
        to: (to, 500).into(),
        datagram,
    };
    let now = pair.now;
    pair.net.inject(now, packet);
    pair.run_for(Duration::ZERO);
}

fn notifies(datagram: &[u8]) -> Vec<(NotifyType, Vec<u8>)> {
    let message = Message::parse(datagram).expect("the endpoint's own");
    let read = |raw: &obol_ike::wire::RawPayload<'_>| match raw.decode() {
        Ok(Payload::Notify(notify)) => Some((notify.ty, notify.data.to_vec())),
        _ => None,
    };
    message.payloads.iter().filter_map(read).collect()
}

const EVERY_FLAG: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

#[test]
fn no_token_is_shown_of_an_sa_that_is_there() {
    let mut pair = up(with_tokens(trapped(1), 1));
    let status = pair.b.endpoint.status(pair.now).remove(0);
    let sent = pair.net.sent.len();
    let (i, r) = (status.spi_i, status.spi_r);
    for end in [End::A, End::B] {
        for (spi_i, spi_r) in [(i, r), (r, i)] {
            for (initiator, response) in EVERY_FLAG {
                let flags = Flags {
                    initiator,
                    response,
                    version: false,
                };
                let datagram = protected(spi_i, spi_r, flags, 80);
                inject(&mut pair, end, datagram);
            }
        }
    }
    let tokens = |pair: &Pair| -> Vec<(NotifyType, Vec<u8>)> {
        let all = pair.net.sent[sent..].iter();
        all.flat_map(|packet| notifies(&packet.datagram))
            .filter(|(ty, _)| *ty == NotifyType::QCD_TOKEN)
            .collect()
    };
    let early = tokens(&pair);
    // With the SPIs exchanged it is about another IKE SA, which is not there.
    pair.restart(End::B);
    let flags = Flags {
        initiator: true,
        ..Flags::default()
    };
    inject(&mut pair, End::B, protected(i, r, flags, 80));
    let real = tokens(&pair).pop().expect("after the crash");
    assert!(!early.contains(&real));
    pair.assert_down_at_b();
}

/// While an IKE SA is made, only our own SPI is settled: the other one may be anything, and be the true
/// one soon.
#[test]
fn no_token_is_shown_of_an_sa_that_is_being_made() {
    for answered in [false, true] {
        let mut pair = with_tokens(trapped(1), 1);
        pair.net.partitioned = !answered;
        // The secret takes its time, so the IKE SA stays between its two exchanges.
        pair.b.answer_delay = Duration::from_secs(10);
        pair.start();
        pair.send_packet(End::B, HOSTS, PODS);
        pair.run_for(Duration::from_millis(100));
        let status = pair.b.endpoint.status(pair.now).remove(0);
        assert_eq!(status.spi_r.0 != 0, answered, "{}", status.state);
        let sent = pair.net.sent.len();
        for (initiator, response) in EVERY_FLAG {
            for (spi_i, spi_r) in [
                (status.spi_i, IkeSpi(77)),
                (IkeSpi(77), status.spi_i),
                (status.spi_i, IkeSpi(status.spi_r.0 ^ 1)),
            ] {
                let flags = Flags {
                    initiator,
                    response,
                    version: false,
                };
                inject(&mut pair, End::B, protected(spi_i, spi_r, flags, 80));
            }
        }
        let shown = pair.net.sent[sent..].iter();
        let mut shown = shown.flat_map(|packet| notifies(&packet.datagram));
        assert!(
            shown.all(|(ty, _)| ty != NotifyType::QCD_TOKEN),
            "{answered}"
        );
    }
}

/// Who asks for a rekey knows nothing of the peer's SPI of the new IKE SA, where that is there already.
#[test]
fn no_token_is_shown_of_an_sa_that_a_rekey_makes() {
    let mut pair = up(with_tokens(trapped(1), 1));
    let old = pair.b.endpoint.status(pair.now).remove(0);
    let rekey = Command::RekeyIke {
        connection: HOSTS.to_owned(),
    };
    pair.command(End::A, rekey).expect("it is up");
    pair.run_for(Duration::from_millis(15));
    pair.net.lose(|packet| packet.to.ip() == A);
    let status = pair.b.endpoint.status(pair.now);
    let made = status.iter().find(|sa| sa.spi_i != old.spi_i);
    let made = made.expect("the second host has answered");
    let (i, r) = (made.spi_i, made.spi_r);
    let sent = pair.net.sent.len();
    // The second host itself is not answered with it, and nor is anybody else.
    let child = Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    };
    pair.command(End::B, child).expect("it is up");
    for (initiator, response) in EVERY_FLAG {
        let flags = Flags {
            initiator,
            response,
            version: false,
        };
        inject(&mut pair, End::A, protected(i, r, flags, 80));
    }
    pair.run_for(Duration::from_millis(200));
    let shown = pair.net.sent[sent..].iter();
    let mut shown = shown.flat_map(|packet| notifies(&packet.datagram));
    assert!(shown.all(|(ty, _)| ty != NotifyType::QCD_TOKEN));
    pair.run_until_idle();
    pair.run_for(Duration::from_secs(100));
    pair.assert_up(1);
    let status = pair.a.endpoint.status(pair.now).remove(0);
    assert_eq!((status.spi_i, status.spi_r), (i, r));
}

trait Down {
    fn assert_down_at_b(&self);
}

impl Down for Pair {
    fn assert_down_at_b(&self) {
        assert!(self.b.endpoint.status(self.now).is_empty());
    }
}

//= test rfc7296 2.21.4-2 2.21.4-3
#[test]
fn an_answer_is_rare_and_never_longer_than_what_it_answers() {
    let mut pair = with_tokens(trapped(1), 1);
    let flags = Flags {
        initiator: true,
        ..Flags::default()
    };
    for len in 0..100 {
        pair.run_for(Duration::from_secs(1));
        let sent = pair.net.sent.len();
        let request = protected(IkeSpi(5), IkeSpi(6), flags, len);
        let longest = request.len();
        inject(&mut pair, End::B, request);
        let answers = &pair.net.sent[sent..];
        for packet in answers {
            assert_eq!(packet.to, (A, 500).into());
            let header = Header::parse(&packet.datagram).expect("the endpoint's own");
            let spis = (header.spi_i, header.spi_r, header.message_id);
            assert_eq!(spis, (IkeSpi(5), IkeSpi(6), 2));
            let said = notifies(&packet.datagram);
            assert_eq!(said[0], (NotifyType::INVALID_IKE_SPI, Vec::new()));
        }
        assert!(
            answers
                .iter()
                .all(|packet| packet.datagram.len() <= longest)
        );
        let token = answers.iter().flat_map(|packet| notifies(&packet.datagram));
        let shown = token.filter(|(ty, _)| *ty == NotifyType::QCD_TOKEN).count();
        assert_eq!(shown, usize::from(longest >= 60), "{longest}");
    }
    let sent = pair.net.sent.len();
    for n in 0..1000 {
        let request = protected(IkeSpi(n + 1), IkeSpi(6), flags, 80);
        inject(&mut pair, End::B, request);
    }
    let answers = pair.net.sent.len() - sent;
    assert!((1..=20).contains(&answers), "{answers}");
}

//= test rfc7296 2.21.4-1
#[test]
fn responses_and_hints_are_not_answered() {
    let mut pair = with_tokens(trapped(1), 1);
    let response = Flags {
        response: true,
        ..Flags::default()
    };
    inject(
        &mut pair,
        End::B,
        protected(IkeSpi(5), IkeSpi(6), response, 80),
    );
    let initiator = Flags {
        initiator: true,
        ..Flags::default()
    };
    for ty in [NotifyType::INVALID_SPI, NotifyType::INVALID_IKE_SPI] {
        let header = Header::new(
            IkeSpi(0),
            IkeSpi(0),
            ExchangeType::INFORMATIONAL,
            initiator,
            0,
        );
        let notify = Payload::Notify(Notify::with_data(ty, vec![1; 4]));
        let datagram = emit_message(&header, &[notify]).expect("short");
        inject(&mut pair, End::B, datagram);
    }
    assert!(pair.net.sent.is_empty());
}

//= test rfc7296 2.21.4-5
#[test]
fn forged_hints_make_one_question_in_ten_seconds_and_tear_nothing_down() {
    let mut pair = up(with_tokens(trapped(1), 1));
    pair.run_for(Duration::from_secs(1));
    let status = pair.a.endpoint.status(pair.now).remove(0);
    let spi_out = status.children[0].info.spi_out;
    let (sent, begin) = (pair.net.sent.len(), pair.now);
    let mut forged = 0;
    while pair.now - begin < Duration::from_secs(29) {
        for response in [false, true] {
            let flags = Flags {
                initiator: false,
                response,
                version: false,
            };
            let header = |id| {
                Header::new(
                    status.spi_i,
                    status.spi_r,
                    ExchangeType::INFORMATIONAL,
                    flags,
                    id,
                )
            };
            let token = Notify::with_data(NotifyType::QCD_TOKEN, vec![9; 16]);
            let lists = [
                vec![Notify::bare(NotifyType::INVALID_IKE_SPI)],
                vec![Notify::bare(NotifyType::INVALID_IKE_SPI), token.clone()],
                vec![Notify::invalid_spi(spi_out)],
                vec![Notify::invalid_spi(EspSpi(300)), token],
            ];
            for list in lists {
                let payloads: Vec<_> = list.into_iter().map(Payload::Notify).collect();
                for id in 0..5 {
                    let datagram = emit_message(&header(id), &payloads).expect("short");
                    inject(&mut pair, End::A, datagram);
                    forged += 1;
                }
            }
        }
        pair.run_for(Duration::from_millis(50));
    }
    // Each question has one answer.
    let questions = (pair.net.sent.len() - sent) / 2;
    println!("{forged} forged hints in 29 s made {questions} questions");
    assert_eq!(questions, 3);
    assert_eq!(crashes(&pair.a), 0);
    pair.assert_up(1);
}

//= test rfc7296 2.21.4-6 2.21.4-8
#[test]
fn a_live_peer_that_sends_with_an_spi_we_do_not_have_is_told_under_protection() {
    let mut pair = up(with_tokens(trapped(1), 1));
    let spi = EspSpi(0xdead_beef);
    let path = obol_ike::config::Path {
        local: (B, 500).into(),
        remote: (A, 500).into(),
    };
    let before = pair.net.sent.len();
    for _ in 0..50 {
        pair.command(End::B, Command::UnknownSpi { path, spi })
            .expect("it names nothing");
        pair.run_for(Duration::from_millis(100));
    }
    let sent = &pair.net.sent[before..];
    assert_eq!(sent.len(), 2, "one exchange");
    let message = Message::parse(&sent[0].datagram).expect("the endpoint's own");
    assert!(message.protected().expect("sound").is_some());
    pair.assert_up(1);
}

#[test]
fn somebody_whom_we_do_not_know_is_told_nothing() {
    let mut pair = with_tokens(trapped(1), 1);
    let path = obol_ike::config::Path {
        local: (B, 500).into(),
        remote: ([203, 0, 113, 5], 500).into(),
    };
    let spi = EspSpi(0xdead_beef);
    pair.command(End::B, Command::UnknownSpi { path, spi })
        .expect("it names nothing");
    assert!(pair.net.sent.is_empty());
    let path = obol_ike::config::Path {
        remote: (A, 500).into(),
        ..path
    };
    pair.command(End::B, Command::UnknownSpi { path, spi })
        .expect("it names nothing");
    let [packet] = &pair.net.sent[..] else {
        panic!("one message")
    };
    let message = Message::parse(&packet.datagram).expect("the endpoint's own");
    assert!(message.header.flags.initiator && !message.header.flags.response);
    let said = (NotifyType::INVALID_SPI, spi.0.to_be_bytes().to_vec());
    assert_eq!(notifies(&packet.datagram), [said]);
}
