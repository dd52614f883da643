//! Answers of a peer that grants less, more, or something else than it was asked for.

use std::time::Duration;

use obol_ike::config::{Child, Mode, StartAction};
use obol_ike::error::ChildFailure;
use obol_ike::event::{Command, EspSpi, Event, InboundSa, PacketFlow};
use obol_ike::proposal::{ChildExchange, EspProposal};
use obol_ike::testing::pair::End;
use obol_ike::testing::scripted::{Asked, Scripted};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, child, pods};
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::{ExchangeType, NotifyType, Payload};

const CREATE_CHILD_SA: ExchangeType = ExchangeType::CREATE_CHILD_SA;

fn ts(text: &str) -> Vec<TrafficSelector> {
    text.split_whitespace()
        .map(|word| word.parse().expect("a selector of a test"))
        .collect()
}

/// What the second host is configured with beside the tunnel that is up.
fn net() -> Child {
    let (local, remote) = ("10.2.0.0/16", "10.1.0.0/16");
    // As the first host has it.
    child("net", Mode::Tunnel, remote, local, StartAction::Trap)
}

/// A peer with which the tunnel of the setup is up.
fn peer() -> Scripted {
    // Without a key exchange of its own.
    let esp = EspProposal::parse("aes256gcm16").expect("obol has it");
    let children = [pods(StartAction::None), net()].map(|child| Child {
        esp_proposals: esp.clone().into(),
        ..child
    });
    let mut setup = Setup::new(1).children(children.to_vec());
    setup.b_starts = StartAction::Trap;
    Scripted::established(setup)
}

fn failures(peer: &Scripted) -> Vec<&ChildFailure> {
    let events = peer.pair.b.events.iter();
    events
        .filter_map(|event| match event {
            Event::ChildFailed { reason, .. } => Some(reason),
            _ => None,
        })
        .collect()
}

fn inbound(peer: &Scripted) -> Vec<&InboundSa> {
    peer.pair.b.plane.inbound.values().collect()
}

fn rekey(peer: &mut Scripted) -> Asked {
    let command = Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    };
    peer.pair.command(End::B, command).expect("it is up");
    let asked = peer.asked().expect("a request");
    assert_eq!(asked.exchange, CREATE_CHILD_SA);
    asked
}

fn flow() -> PacketFlow {
    PacketFlow {
        protocol: 6,
        source: [10, 2, 9, 1].into(),
        destination: [10, 1, 9, 1].into(),
        source_port: 1000,
        destination_port: 80,
    }
}

fn acquire(peer: &mut Scripted) {
    let command = Command::Acquire {
        connection: HOSTS.to_owned(),
        child: "net".to_owned(),
        flow: Some(flow()),
        remote: None,
        local: None,
    };
    peer.pair.command(End::B, command).expect("known");
}

//= test rfc7296 2.9.2-1 2.9.2-2
#[test]
fn a_rekey_asks_for_what_is_in_use_and_takes_no_less() {
    let mut peer = peer();
    let before = inbound(&peer)[0].info.clone();
    let asked = rekey(&mut peer);
    assert_eq!(asked.selectors, [ts("172.16.2.0/24"), ts("172.16.1.0/24")]);
    let spi = EspSpi(0x7000);
    let less = [ts("172.16.2.0/25"), ts("172.16.1.0/24")];
    peer.grant(&asked, spi, less, &[]);
    assert_eq!(failures(&peer), [&ChildFailure::RekeyNarrows]);
    assert_eq!(
        inbound(&peer)[0].info,
        before,
        "what is in use stays in use"
    );
    assert_eq!(peer.up(), (1, 1));
    let delete = peer.asked().expect("the new one is given back");
    assert_eq!(delete.exchange, ExchangeType::INFORMATIONAL);
    assert_eq!(delete.deleted.len(), 1);
    assert_ne!(delete.deleted[0], before.spi_in);
    peer.answer(&delete.heard, &[]).expect("awaited");
    // It is tried again, but not at once.
    let sent = peer.pair.net.sent.len();
    peer.pair.run_for(Duration::from_secs(50));
    assert_eq!(peer.pair.net.sent.len(), sent);
    peer.pair.run_for(Duration::from_secs(20));
    let again = peer.asked().expect("a request");
    assert_eq!(again.notifies, [NotifyType::REKEY_SA]);
    let same = [ts("172.16.2.0/24"), ts("172.16.1.0/24")];
    peer.grant(&again, spi, same, &[]);
    assert_eq!(failures(&peer).len(), 1);
    assert_eq!(peer.pair.b.plane.spi_out(HOSTS, PODS), Some(spi));
}

//= test rfc7296 2.8-3
#[test]
fn what_was_narrowed_at_first_stays_so_over_rekeys_and_may_come_back_wider() {
    let mut peer = peer();
    acquire(&mut peer);
    let asked = peer.asked().expect("a request");
    let host = "10.2.9.1[tcp/1000] 10.2.0.0/16";
    assert_eq!(asked.selectors[0], ts(host), "the packet first");
    let narrowed = [ts("10.2.9.0/24"), ts("10.1.9.0/24")];
    peer.grant(&asked, EspSpi(0x7000), narrowed.clone(), &[]);
    let rekey = Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: "net".to_owned(),
    };
    peer.pair.command(End::B, rekey).expect("it is up");
    let asked = peer.asked().expect("a request");
    assert_eq!(asked.selectors, narrowed);
    let wider = [ts("10.2.8.0/22"), ts("10.1.8.0/22")];
    peer.grant(&asked, EspSpi(0x7001), wider.clone(), &[]);
    assert_eq!(failures(&peer), [] as [&ChildFailure; 0]);
    let up = inbound(&peer);
    let new = up.iter().find(|sa| sa.info.spi_out == EspSpi(0x7001));
    assert_eq!(new.expect("it is up").info.local_ts, wider[0]);
}

#[test]
fn a_rekey_may_not_widen_beyond_what_is_configured() {
    let mut peer = peer();
    let asked = rekey(&mut peer);
    let all = [ts("172.16.0.0/16"), ts("172.16.1.0/24")];
    peer.grant(&asked, EspSpi(0x7000), all, &[]);
    assert_eq!(failures(&peer), [&ChildFailure::TsUnacceptable]);
    assert_eq!(peer.up(), (1, 1));
}

#[test]
fn an_answer_that_leaves_the_packet_out_is_noticed_and_not_asked_for_for_ever() {
    let mut peer = peer();
    acquire(&mut peer);
    let asked = peer.asked().expect("a request");
    let elsewhere = [ts("10.2.5.0/24"), ts("10.1.0.0/16")];
    let more = [NotifyType::ADDITIONAL_TS_POSSIBLE];
    peer.grant(&asked, EspSpi(0x7000), elsewhere, &more);
    let noticed = |peer: &Scripted| {
        peer.pair
            .b
            .count(|e| matches!(e, Event::FlowLeftOut { flow: f, more: true, .. } if *f == flow()))
    };
    assert_eq!(noticed(&peer), 1, "{:?}", peer.pair.b.events);
    assert_eq!(peer.up(), (1, 2));
    let sent = peer.pair.net.sent.len();
    for _ in 0..600 {
        acquire(&mut peer);
        peer.pair.run_for(Duration::from_millis(100));
    }
    assert_eq!(
        peer.pair.net.sent.len(),
        sent,
        "it is up, as far as it goes"
    );
    assert_eq!(noticed(&peer), 1);
}

//= test rfc7296 2.9-3
#[test]
fn a_peer_that_wants_single_pairs_is_asked_for_the_pair_of_the_packet_once() {
    let mut peer = peer();
    acquire(&mut peer);
    let asked = peer.asked().expect("a request");
    assert_eq!(asked.selectors[0].len(), 2);
    peer.refuse(&asked, NotifyType::SINGLE_PAIR_REQUIRED);
    let asked = peer.asked().expect("a request");
    let pair = [ts("10.2.9.1[tcp/1000]"), ts("10.1.9.1[tcp/80]")];
    assert_eq!(asked.selectors, pair);
    peer.refuse(&asked, NotifyType::SINGLE_PAIR_REQUIRED);
    let refused = ChildFailure::Refused(NotifyType::SINGLE_PAIR_REQUIRED);
    assert_eq!(failures(&peer), [&refused]);
    peer.pair.run_for(Duration::from_secs(5));
    acquire(&mut peer);
    let asked = peer.asked().expect("a packet may ask again later");
    peer.refuse(&asked, NotifyType::SINGLE_PAIR_REQUIRED);
    let asked = peer.asked().expect("a request");
    peer.grant(&asked, EspSpi(0x7000), pair, &[]);
    assert_eq!(peer.up(), (1, 2));
}

#[test]
fn refusals_leave_nothing_behind_and_are_not_repeated_at_once() {
    for notify in [
        NotifyType::NO_ADDITIONAL_SAS,
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::TS_UNACCEPTABLE,
        NotifyType::INTERNAL_ADDRESS_FAILURE,
        NotifyType::FAILED_CP_REQUIRED,
        NotifyType::SINGLE_PAIR_REQUIRED,
    ] {
        let mut peer = peer();
        let command = Command::Initiate {
            connection: HOSTS.to_owned(),
            child: Some("net".to_owned()),
            local: None,
        };
        peer.pair.command(End::B, command).expect("known");
        let asked = peer.asked().expect("a request");
        peer.refuse(&asked, notify);
        assert_eq!(failures(&peer), [&ChildFailure::Refused(notify)]);
        assert_eq!(peer.up(), (1, 1), "{notify}");
        assert_eq!(inbound(&peer).len(), 1);
        let sent = peer.pair.net.sent.len();
        peer.pair.run_for(Duration::from_secs(600));
        assert_eq!(peer.pair.net.sent.len(), sent, "an operator asks again");
        assert_eq!(peer.up(), (1, 1), "{notify}");
    }
}

//= test rfc7296 1.3.1-2
#[test]
fn a_mode_that_was_not_asked_for_fails_closed() {
    let mut peer = peer();
    acquire(&mut peer);
    let asked = peer.asked().expect("a request");
    let all = [ts("10.2.0.0/16"), ts("10.1.0.0/16")];
    let transport = [NotifyType::USE_TRANSPORT_MODE];
    peer.grant(&asked, EspSpi(0x7000), all, &transport);
    let mismatch = ChildFailure::ModeMismatch { ours: Mode::Tunnel };
    assert_eq!(failures(&peer), [&mismatch]);
    assert_eq!(peer.up(), (1, 1));
    let delete = peer.asked().expect("it is given back");
    assert_eq!(delete.deleted.len(), 1);
}

#[test]
fn who_asks_for_what_two_children_share_is_told_that_there_is_more() {
    let esp = EspProposal::parse("aes256gcm16").expect("obol has it");
    let net = |name, local| Child {
        esp_proposals: esp.clone().into(),
        ..child(name, Mode::Tunnel, "10.1.0.0/16", local, StartAction::None)
    };
    let two = [net("one", "10.2.0.0/24"), net("two", "10.2.1.0/24")];
    let children = [[pods(StartAction::None)].as_slice(), &two].concat();
    let mut peer = Scripted::established(Setup::new(1).children(children));
    for (spi, ts_r, more) in [
        (0x7000, "10.2.0.0/16", true),
        (0x7001, "10.2.1.0/25", false),
        (0x7002, "10.2.0.0/24", false),
    ] {
        let exchange = ChildExchange::CreateChildSa(None);
        let offered = EspProposal::to_wire(&esp, EspSpi(spi), exchange);
        let request = [
            Payload::Sa(offered),
            Payload::Nonce(&[9; 32]),
            Payload::TsI(ts("10.1.0.0/16").into()),
            Payload::TsR(ts(ts_r).into()),
        ];
        let reply = peer.request(CREATE_CHILD_SA, &request).expect("answered");
        assert_eq!(reply.error(), None);
        let told = |(ty, _): &(NotifyType, _)| *ty == NotifyType::ADDITIONAL_TS_POSSIBLE;
        assert_eq!(reply.notifies.iter().any(told), more, "{ts_r}");
    }
}
