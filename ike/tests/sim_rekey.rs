//! Rekeys of Child SAs and of the IKE SA, alone and at once from both ends.

use std::time::Duration;

use obol_ike::config::StartAction;
use obol_ike::event::{Command, Event};
use obol_ike::proposal::{EspProposal, IkeProposal};
use obol_ike::testing::net::{Net, Packet};
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, pods};
use obol_ike::wire::{ExchangeType, KeMethod};

fn child() -> Command {
    Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    }
}

fn ike() -> Command {
    Command::RekeyIke {
        connection: HOSTS.to_owned(),
    }
}

/// Runs on until all is quiet and what was replaced had time to go.
fn rest(pair: &mut Pair) {
    pair.run_until_idle();
    pair.run_for(Duration::from_secs(90));
    pair.run_until_idle();
}

//= test rfc7296 2.8-3
#[test]
fn a_child_is_rekeyed_from_either_end() {
    for end in [End::A, End::B] {
        let mut pair = Setup::started(1).up(1);
        let before = pair.a.plane.spi_out(HOSTS, PODS);
        pair.command(end, child()).expect("it is up");
        rest(&mut pair);
        pair.assert_up(1);
        assert_ne!(pair.a.plane.spi_out(HOSTS, PODS), before);
        assert_eq!(pair.a.plane.removed.len(), 1);
        assert_eq!(pair.b.plane.removed.len(), 1);
    }
}

//= test rfc7296 2.8.1-2 2.8-6
//= test security S-17
#[test]
fn the_replier_of_a_rekey_sends_on_the_new_sa_when_it_is_used() {
    let mut setup = Setup::started(1);
    setup.net.delay = (Duration::from_secs(1), Duration::from_secs(1));
    setup.settings.retransmit_timeout = Duration::from_secs(30);
    let mut pair = setup.up(1);
    let before = pair.b.plane.spi_out(HOSTS, PODS);
    pair.command(End::A, child()).expect("it is up");
    // The request has arrived, and the reply not yet.
    pair.run_for(Duration::from_millis(1500));
    assert_eq!(
        pair.b.plane.inbound.len(),
        2,
        "it can receive before it says so"
    );
    assert_eq!(pair.b.plane.spi_out(HOSTS, PODS), before);
    let new = *pair.b.plane.inbound.keys().last().expect("two of them");
    pair.command(End::B, Command::InboundUsed(new))
        .expect("always");
    pair.run_for(Duration::from_millis(1));
    assert_ne!(pair.b.plane.spi_out(HOSTS, PODS), before);
    rest(&mut pair);
    pair.assert_up(1);
}

//= test rfc7296 1.3-3
#[test]
fn with_perfect_forward_secrecy_the_method_may_have_to_be_corrected() {
    let mut setup = Setup::started(1);
    let mut wide = pods(StartAction::Start);
    wide.esp_proposals = EspProposal::parse("aes256gcm16-x25519-ecp256")
        .expect("sound")
        .into();
    let mut narrow = wide.clone();
    narrow.esp_proposals = EspProposal::parse("aes256gcm16-ecp256")
        .expect("sound")
        .into();
    let mut pair = setup.clone().children(vec![wide]).pair(1);
    setup = setup.children(vec![narrow]);
    pair.b = setup.pair(1).b;
    pair.start();
    pair.run_until_idle();
    pair.command(End::A, child()).expect("it is up");
    rest(&mut pair);
    pair.assert_up(1);
    let info = &pair.a.plane.outbound.values().next().expect("one").info;
    assert_eq!(info.ke, Some(KeMethod::ECP_256));
}

//= test rfc7296 1.4-3 2.18-1
#[test]
fn the_ike_sa_is_rekeyed_from_either_end_and_keeps_its_children() {
    for end in [End::A, End::B] {
        let mut pair = Setup::started(1).up(1);
        let before = pair.a.endpoint.status(pair.now)[0].spi_i;
        let spi = pair.a.plane.spi_out(HOSTS, PODS);
        pair.command(end, ike()).expect("it is up");
        rest(&mut pair);
        pair.assert_up(1);
        let status = pair.a.endpoint.status(pair.now);
        assert_ne!(status[0].spi_i, before);
        assert_eq!(status[0].initiator, end == End::A);
        assert_eq!(
            pair.a.plane.spi_out(HOSTS, PODS),
            spi,
            "the child did not change"
        );
        assert_eq!(pair.a.count(|e| matches!(e, Event::ChildDown { .. })), 0);
        assert_eq!(
            pair.a
                .count(|e| matches!(e, Event::IkeUp { rekey: true, .. })),
            1
        );
        // The new IKE SA works.
        pair.command(End::B, child()).expect("it is up");
        rest(&mut pair);
        pair.assert_up(1);
    }
}

//= test rfc7296 3.3.6-8
#[test]
fn an_ike_rekey_begins_with_the_key_exchange_that_was_agreed_on() {
    let wide = IkeProposal::parse("aes256gcm16-prfsha384-x25519-ecp256").expect("sound");
    let narrow = IkeProposal::parse("aes256gcm16-prfsha384-ecp256").expect("sound");
    let mut setup = Setup::started(1);
    setup.connection.ike_proposals = narrow.into();
    let b = setup.clone().pair(1).b;
    setup.connection.ike_proposals = wide.into();
    let mut pair = setup.pair(1);
    pair.b = b;
    pair.start();
    pair.run_until_idle();
    pair.net.sent.clear();
    pair.command(End::A, ike()).expect("it is up");
    pair.run_until_idle();
    pair.assert_up(1);
    assert_eq!(
        pair.net.sent.len(),
        4,
        "a rekey and a delete, each answered"
    );
}

//= test rfc7296 2.3-3 2.8.1-3 2.8.2-1
//= test security S-18
#[test]
fn every_mix_of_rekeys_at_once_ends_with_one_of_each() {
    let commands: [fn() -> Command; 2] = [child, ike];
    for seed in 0..60 {
        for (at_a, at_b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut pair = Setup::started(seed).up(seed);
            pair.net.delay = (Duration::from_millis(5), Duration::from_millis(80));
            pair.command(End::A, commands[at_a]()).expect("it is up");
            pair.command(End::B, commands[at_b]()).expect("it is up");
            rest(&mut pair);
            let checked = std::panic::AssertUnwindSafe(|| pair.assert_up(1));
            let result = std::panic::catch_unwind(checked);
            assert!(result.is_ok(), "seed {seed}, commands {at_a} and {at_b}");
        }
    }
}

#[test]
fn rekeys_at_once_survive_a_hostile_network() {
    let commands: [fn() -> Command; 2] = [child, ike];
    for seed in 0..200 {
        let mut setup = Setup::started(seed);
        setup.settings.retransmit_tries = 40;
        let mut pair = setup.up(seed);
        pair.net = Net::seeded(seed).hostile(300, 200);
        for round in 0..3 {
            let pick = (seed >> round) as usize;
            // Before the next one, a rekey may have taken the child away for a moment.
            let _ = pair.command(End::A, commands[pick % 2]());
            let _ = pair.command(End::B, commands[pick / 2 % 2]());
            pair.run_for(Duration::from_millis(700 * (seed % 5)));
        }
        pair.run_for(Duration::from_secs(240));
        rest(&mut pair);
        let checked = std::panic::AssertUnwindSafe(|| pair.assert_up(1));
        let result = std::panic::catch_unwind(checked);
        assert!(result.is_ok(), "seed {seed}");
    }
}

//= test rfc7296 2.1-6 2.3-7
#[test]
fn a_rekey_survives_losing_any_one_datagram() {
    for command in [child, ike] {
        for nth in 4..12 {
            let mut pair = Setup::started(7).net(Net::seeded(7).drop_nth(nth)).up(7);
            pair.command(End::A, command()).expect("it is up");
            pair.run_for(Duration::from_millis(20));
            pair.command(End::B, command()).ok();
            rest(&mut pair);
            pair.assert_up(1);
        }
    }
}

#[test]
fn lifetimes_rekey_for_days() {
    let mut pair = Setup::started(3).up(3);
    for _ in 0..48 {
        pair.run_for(Duration::from_secs(3600));
        pair.run_until_idle();
    }
    rest(&mut pair);
    pair.assert_up(1);
    let rekeys = |rekey| move |e: &Event| matches!(e, Event::IkeUp { rekey: r, .. } if *r == rekey);
    assert!(pair.a.count(rekeys(true)) >= 11, "every four hours");
    assert_eq!(pair.a.count(rekeys(false)), 1, "never from scratch");
    assert!(pair.a.count(|e| matches!(e, Event::ChildUp(_))) >= 48);
}

/// Who chose a method for the IKE SA most likely chooses it again, and some peers do not say so where
/// the request has a value of another one.
#[test]
fn a_child_begins_with_the_key_exchange_of_its_ike_sa() {
    let wide = IkeProposal::parse("aes256gcm16-prfsha384-x25519-ecp256").expect("sound");
    let narrow = IkeProposal::parse("aes256gcm16-prfsha384-ecp256").expect("sound");
    let mut setup = Setup::started(1);
    let mut either = pods(StartAction::Start);
    either.esp_proposals = EspProposal::parse("aes256gcm16-x25519-ecp256")
        .expect("sound")
        .into();
    setup = setup.children(vec![either]);
    setup.connection.ike_proposals = narrow.into();
    let b = setup.clone().pair(1).b;
    setup.connection.ike_proposals = wide.into();
    let mut pair = setup.pair(1);
    pair.b = b;
    pair.start();
    pair.run_until_idle();
    pair.command(End::A, child()).expect("it is up");
    rest(&mut pair);
    pair.assert_up(1);
    let info = &pair.a.plane.outbound.values().next().expect("one").info;
    assert_eq!(info.ke, Some(KeMethod::ECP_256));
}

/// The requester of a rekey does not know the new IKE SA before it has the reply, and says so when
/// it is asked something on it. That is no sign of a crash.
#[test]
fn a_request_that_overtakes_the_reply_that_made_its_ike_sa_casts_no_doubt_on_it() {
    for seed in 0..8 {
        let mut setup = Setup::started(seed);
        let mut child_conf = pods(StartAction::Start);
        child_conf.esp_proposals = EspProposal::parse("aes256gcm16-modp4096")
            .expect("sound")
            .into();
        setup = setup.children(vec![child_conf]);
        setup.b_starts = StartAction::Trap;
        let mut pair = setup.up(seed);
        pair.net.drop_nth = Some(pair.net.sent.len() + 1);
        pair.command(End::A, ike()).expect("it is up");
        pair.run_for(Duration::from_millis(30));
        let before = pair.net.sent.len();
        pair.command(End::B, child()).expect("it is up");
        pair.run_for(Duration::from_millis(30));
        let hint = &pair.net.sent[before + 1].datagram;
        let invalid = [0, 0, 0, 8, 0, 0, 0, 4];
        assert_eq!(hint[28..], invalid, "INVALID_IKE_SPI, and no token");
        // A has the reply when it repeats its request; what B repeats is too long for the path.
        pair.net.longest = Some(600);
        pair.run_for(Duration::from_secs(4));
        pair.net.longest = None;
        rest(&mut pair);
        pair.assert_up(1);
        let init = |packet: &Packet| packet.datagram[18] == ExchangeType::IKE_SA_INIT.0;
        let begun = pair.net.sent[before..].iter().filter(|p| init(p)).count();
        assert_eq!(begun, 0, "another IKE SA was begun");
    }
}
