//! An IKE SA was replaced, and one end does not hear of its end: nothing lasts, and no packet is lost.

use std::time::Duration;

use obol_ike::event::{Command, Event, IkeSpi};
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{HOSTS, PODS, Setup};
use obol_ike::wire::{ExchangeType, Header};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn ike() -> Command {
    Command::RekeyIke {
        connection: HOSTS.to_owned(),
    }
}

/// Every message takes 10 ms.
fn up(seed: u64, tokens: bool) -> Pair {
    let mut pair = Setup::started(seed).pair(seed);
    if tokens {
        pair.a = pair.a.with_token_secret(b"the first host's own secret");
        pair.b = pair.b.with_token_secret(b"the second host's own secret");
    }
    pair.start();
    pair.run_until_idle();
    pair.assert_up(1);
    pair
}

/// The initiators' SPIs of the IKE SAs that one end has.
fn spis(pair: &mut Pair, end: End) -> Vec<IkeSpi> {
    let now = pair.now;
    let status = pair.node(end).endpoint.status(now);
    status.iter().map(|sa| sa.spi_i).collect()
}

fn lost_a_child(pair: &mut Pair) -> bool {
    [End::A, End::B].into_iter().any(|end| {
        let down = |e: &Event| matches!(e, Event::ChildDown { .. });
        pair.node(end).count(down) > 0
    })
}

#[test]
fn a_delete_that_is_never_answered_is_given_up_after_ten_tries() {
    // The peer hears the delete and its answer is lost, or it does not hear it.
    for heard in [true, false] {
        let mut pair = up(1, false);
        pair.command(End::A, ike()).expect("it is up");
        // The reply is on its way at 10 ms, and the delete at 20 ms.
        pair.run_for(if heard { 25 } else { 15 } * MILLISECOND);
        pair.net.partitioned = true;
        let sent = pair.net.sent.len();
        pair.run_for(29 * SECOND);
        assert_eq!(spis(&mut pair, End::A).len(), 2);
        pair.run_for(2 * SECOND);
        assert_eq!(spis(&mut pair, End::A).len(), 1, "it serves nobody");
        let header = |packet: &obol_ike::testing::net::Packet| Header::parse(&packet.datagram).ok();
        let tries = pair.net.sent[sent..].iter().filter_map(header).filter(|h| {
            h.exchange == ExchangeType::INFORMATIONAL && h.flags.initiator && !h.flags.response
        });
        assert!(tries.count() >= 9, "heard: {heard}");
        pair.net.partitioned = false;
        for _ in 0..130 {
            pair.run_for(SECOND);
            assert!(pair.send_packet(End::A, HOSTS, PODS) && pair.send_packet(End::B, HOSTS, PODS));
        }
        pair.assert_up(1);
        assert!(!lost_a_child(&mut pair));
    }
}

/// Both ends rekey at once, and one of them hears neither the reply to its request nor anything
/// after that, for so long. Says whether the other one won, and has given the old IKE SA up.
fn one_hears_nothing(pair: &mut Pair, first: bool, time: Duration) -> bool {
    let next = pair.net.sent.len();
    let old = spis(pair, End::A);
    // At 10 ms each answers what the other asked.
    pair.net.drop_nth = Some(next + if first { 2 } else { 3 });
    pair.command(End::A, ike()).expect("it is up");
    pair.command(End::B, ike()).expect("it is up");
    pair.run_for(15 * MILLISECOND);
    assert_eq!(pair.net.sent.len(), next + 4);
    pair.net.partitioned = true;
    pair.run_for(time);
    pair.net.partitioned = false;
    let has_old = [End::A, End::B].map(|end| spis(pair, end).contains(&old[0]));
    has_old.contains(&false)
}

//= test rfc7296 2.8.2-1
#[test]
fn who_lost_a_contest_and_hears_nothing_takes_the_new_one() {
    for tokens in [true, false] {
        let mut gone = 0;
        for seed in 0..10 {
            for first in [true, false] {
                let mut pair = up(seed, tokens);
                let was_gone = one_hears_nothing(&mut pair, first, 45 * SECOND);
                for _ in 0..150 {
                    pair.run_for(SECOND);
                    let both = [End::A, End::B];
                    let through = both.map(|end| pair.send_packet(end, HOSTS, PODS));
                    assert_eq!(through, [true; 2], "seed {seed}, tokens: {tokens}");
                }
                pair.run_until_idle();
                pair.assert_up(1);
                // Where it is not known yet who won, another IKE SA may be begun meanwhile.
                if was_gone {
                    gone += 1;
                    assert!(!lost_a_child(&mut pair), "seed {seed}, tokens: {tokens}");
                }
            }
        }
        assert!(gone >= 5, "only {gone} contests were like that");
    }
}

#[test]
fn a_new_one_that_lost_and_that_its_maker_never_knew_is_given_up() {
    let mut never_known = 0;
    for seed in 0..10 {
        for first in [true, false] {
            let mut pair = up(seed, false);
            one_hears_nothing(&mut pair, first, MILLISECOND);
            pair.run_for(SECOND);
            let differ = spis(&mut pair, End::A).len() != spis(&mut pair, End::B).len();
            never_known += usize::from(differ);
            pair.run_for(41 * SECOND);
            let ends = [End::A, End::B].map(|end| spis(&mut pair, end));
            assert_eq!(ends[0], ends[1], "seed {seed}");
            assert_eq!(ends[0].len(), 1, "seed {seed}");
        }
    }
    assert!(never_known >= 5, "only {never_known} were like that");
}
