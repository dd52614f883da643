//! Moments at which packets could stop: messages of collisions that are late, or lost for long.
//! Packets of both ends pass all the time, and one of everything is left.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use obol_ike::config::StartAction;
use obol_ike::event::{Command, Event};
use obol_ike::testing::lifecycle::is_up;
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{A, B, HOSTS, PODS, Setup};
use obol_ike::wire::{ExchangeType, Flags, Header, Notify, NotifyType, Payload, emit_message};

/// Each decides otherwise who wins.
const SEEDS: std::ops::Range<u64> = 0..24;

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

fn header(packet: &Packet) -> Header {
    Header::parse(&packet.datagram).expect("only IKE is sent")
}

/// A reply of this exchange on its way to a host.
fn reply(packet: &Packet, to: IpAddr, exchange: ExchangeType) -> bool {
    let header = header(packet);
    packet.to.ip() == to && header.flags.response && header.exchange == exchange
}

/// A sign of life to A.
fn alive(packet: &Packet) -> bool {
    reply(packet, A, ExchangeType::INFORMATIONAL)
}

/// Lets time pass; what is like this gets lost.
fn run_losing(pair: &mut Pair, time: Duration, like: impl Fn(&Packet) -> bool) {
    let end = pair.now + time;
    while pair.now < end {
        pair.net.lose(&like);
        run(pair, Duration::from_millis(1));
    }
    pair.net.lose(like);
}

/// Lets time pass. Where packets pass, they go on passing.
fn run(pair: &mut Pair, time: Duration) {
    let end = pair.now + time;
    let up = Cell::new(is_up(pair));
    pair.run_until(end, |pair| {
        let was_up = up.replace(is_up(pair));
        assert!(up.get() || !was_up, "packets pass no more");
        false
    });
    pair.now = end;
}

/// Somebody says that B does not know the first IKE SA of A.
fn hint(pair: &mut Pair) {
    let status = pair.a.endpoint.status(pair.now).remove(0);
    let flags = Flags {
        response: true,
        ..Flags::default()
    };
    let exchange = ExchangeType::INFORMATIONAL;
    let header = Header::new(status.spi_i, status.spi_r, exchange, flags, 0);
    let notify = Payload::Notify(Notify::bare(NotifyType::INVALID_IKE_SPI));
    let packet = Packet {
        from: (B, 500).into(),
        to: (A, 500).into(),
        datagram: emit_message(&header, &[notify]).expect("short"),
    };
    pair.net.inject(pair.now, packet);
    pair.run_for(Duration::ZERO);
}

/// Lets what was replaced go.
fn finish(pair: &mut Pair) {
    run(pair, Duration::from_secs(300));
    pair.assert_up(1);
}

fn both_start(seed: u64) -> Pair {
    let mut setup = Setup::started(seed);
    setup.b_starts = StartAction::Start;
    let mut pair = setup.pair(seed);
    pair.start();
    pair
}

/// Both ends rekey one Child SA, and one of them is answered so late that the other has rekeyed
/// what came of it once more.
#[test]
fn a_rekey_that_lost_is_not_kept_since_the_winner_was_rekeyed() {
    for seed in SEEDS {
        let mut pair = Setup::started(seed).up(seed);
        pair.command(End::A, child()).expect("it is up");
        pair.command(End::B, child()).expect("it is up");
        run(&mut pair, Duration::from_millis(15));
        pair.net
            .lose(|p| reply(p, A, ExchangeType::CREATE_CHILD_SA));
        run(&mut pair, Duration::from_millis(60));
        // If it is B that lost, there may be nothing to rekey yet.
        let _ = pair.command(End::B, child());
        run(&mut pair, Duration::from_millis(100));
        finish(&mut pair);
    }
}

/// Both ends rekey one Child SA. The one that lost has no use for the new SA that it made; the
/// other, which does not know that yet, must not send on it.
#[test]
fn nothing_is_sent_on_a_rekey_that_may_have_lost() {
    for seed in SEEDS {
        let mut pair = Setup::started(seed).up(seed);
        pair.command(End::A, child()).expect("it is up");
        pair.command(End::A, ike()).expect("it is up");
        pair.command(End::B, child()).expect("it is up");
        run(&mut pair, Duration::from_millis(15));
        let to_b = |p: &Packet| reply(p, B, ExchangeType::CREATE_CHILD_SA);
        // A's next request shows that it has B's reply.
        run_losing(&mut pair, Duration::from_millis(400), to_b);
        finish(&mut pair);
    }
}

/// Both ends start at once, and one start takes long: if it is the one that is to go, nothing is
/// sent there, however late it is.
#[test]
fn a_start_that_is_to_go_carries_nothing_however_late_it_is() {
    for seed in SEEDS {
        let mut pair = both_start(seed);
        let to_b = |p: &Packet| reply(p, B, ExchangeType::IKE_AUTH);
        run_losing(&mut pair, Duration::from_secs(25), to_b);
        finish(&mut pair);
    }
}

/// Both ends start at once, and one start is done while both rekey the IKE SA of the other, of
/// which one end learns the outcome late.
#[test]
fn a_start_that_is_done_amid_a_rekey_from_both_ends_takes_no_packets_astray() {
    for seed in SEEDS {
        for late in [B, A] {
            for deaf in [A, B] {
                let mut pair = both_start(seed);
                let started = |p: &Packet| {
                    let header = header(p);
                    let auth = header.exchange == ExchangeType::IKE_AUTH;
                    auth && !header.flags.response && p.from.ip() == late
                };
                run_losing(&mut pair, Duration::from_secs(1), started);
                pair.command(End::A, ike()).expect("it is up");
                pair.command(End::B, ike()).expect("it is up");
                run(&mut pair, Duration::from_millis(15));
                let to_deaf = |p: &Packet| reply(p, deaf, ExchangeType::CREATE_CHILD_SA);
                run_losing(&mut pair, Duration::from_secs(3), to_deaf);
                finish(&mut pair);
            }
        }
    }
}

/// Both ends rekey the IKE SA; one has won and ends the new one already, for the sake of a better
/// one, while the other does not know yet that this is where its Child SAs are to be.
#[test]
fn a_new_ike_sa_is_not_ended_before_it_is_known_whether_it_won() {
    for seed in SEEDS {
        let mut pair = both_start(seed);
        let of_b = |p: &Packet| {
            let header = header(p);
            let auth = header.exchange == ExchangeType::IKE_AUTH;
            auth && !header.flags.response && p.from.ip() == B
        };
        run_losing(&mut pair, Duration::from_secs(1), of_b);
        let status = pair.b.endpoint.status(pair.now);
        let up = status.iter().find(|sa| sa.state == "established");
        let old = up.expect("A's start").spi_i;
        pair.command(End::A, ike()).expect("it is up");
        pair.command(End::B, ike()).expect("it is up");
        run(&mut pair, Duration::from_millis(15));
        let on_old = |p: &Packet| p.to.ip() == A && header(p).spi_i == old;
        run_losing(&mut pair, Duration::from_secs(5), on_old);
        finish(&mut pair);
    }
}

/// A start of the other end that is to go waits while the one that stays is rekeyed: it takes over
/// no packets between the old Child SA and the new one.
#[test]
fn a_start_that_is_to_go_takes_nothing_over_amid_a_rekey() {
    let mut seen = 0;
    for seed in SEEDS {
        let mut pair = both_start(seed);
        let auth_of_b = |p: &Packet| {
            let header = header(p);
            let auth = header.exchange == ExchangeType::IKE_AUTH;
            auth && !header.flags.response && p.from.ip() == B
        };
        run_losing(&mut pair, Duration::from_secs(1), auth_of_b);
        let auth_to_b = |p: &Packet| reply(p, B, ExchangeType::IKE_AUTH);
        run_losing(&mut pair, Duration::from_secs(4), auth_to_b);
        let used = pair.a.plane.spi_out(HOSTS, PODS);
        assert_eq!(pair.a.plane.inbound.len(), 2, "B's start is not up at A");
        // A takes the one that is up for dead for a moment, and looks at the other.
        hint(&mut pair);
        let end = pair.now + Duration::from_secs(4);
        while pair.now < end {
            pair.net.lose(|p| alive(p) || auth_to_b(p));
            pair.run_for(Duration::from_millis(1));
        }
        if pair.a.plane.spi_out(HOSTS, PODS) != used {
            // B's start is the one that stays.
            continue;
        }
        seen += 1;
        run_losing(&mut pair, Duration::from_secs(6), auth_to_b);
        pair.command(End::B, child()).expect("it is up");
        run_losing(&mut pair, Duration::from_secs(2), |p| {
            auth_to_b(p) || reply(p, B, ExchangeType::CREATE_CHILD_SA)
        });
        finish(&mut pair);
    }
    assert!(seen > 4, "{seen}");
}

/// There are signs that the peer has lost an IKE SA, and another one is begun beside it. Both live,
/// and packets go on the new one already: it is the old one that goes.
#[test]
fn of_two_ike_sas_the_one_that_was_begun_in_doubt_stays() {
    for seed in SEEDS {
        let mut pair = Setup::started(seed).up(seed);
        let spi = pair.a.endpoint.status(pair.now)[0].spi_i;
        run(&mut pair, Duration::from_secs(4));
        hint(&mut pair);
        run_losing(&mut pair, Duration::from_secs(3), alive);
        finish(&mut pair);
        assert_ne!(
            pair.a.endpoint.status(pair.now)[0].spi_i,
            spi,
            "seed {seed}"
        );
    }
}

/// Requests on a new IKE SA overtook the reply that made it, and what the peer answered to that
/// comes when the peer has been heard there: it is no sign of anything.
#[test]
fn a_hint_that_comes_late_casts_no_doubt() {
    for seed in SEEDS {
        let mut pair = Setup::started(seed).up(seed);
        pair.command(End::B, ike()).expect("it is up");
        run(&mut pair, Duration::from_millis(100));
        pair.command(End::B, child()).expect("it is up");
        run(&mut pair, Duration::from_millis(400));
        let spi = pair.a.endpoint.status(pair.now)[0].spi_i;
        hint(&mut pair);
        run_losing(&mut pair, Duration::from_secs(3), alive);
        finish(&mut pair);
        assert_eq!(
            pair.a.endpoint.status(pair.now)[0].spi_i,
            spi,
            "seed {seed}"
        );
    }
}

/// All that shows that a rekey is still being asked for gets lost, for as long as a requester goes
/// on asking: nothing is sent on the new SA before that.
#[test]
fn a_replier_waits_as_long_as_a_requester_asks() {
    let mut setup = Setup::started(1);
    setup.settings.retransmit_tries = 20;
    let mut pair = setup.up(1);
    pair.command(End::B, child()).expect("it is up");
    run(&mut pair, Duration::from_millis(15));
    assert_eq!(pair.a.plane.inbound.len(), 2);
    let any = |p: &Packet| header(p).exchange == ExchangeType::CREATE_CHILD_SA;
    run_losing(&mut pair, Duration::from_secs(120), any);
    finish(&mut pair);
}

/// A rekey of the IKE SA and one of its child are put off for each other, again and again, since the
/// answers to the one are lost for long: that is no broken state, and nothing is closed.
#[test]
fn ends_that_put_each_other_off_for_long_do_not_give_up() {
    let mut setup = Setup::started(1);
    setup.settings.retransmit_tries = 30;
    let mut pair = setup.up(1);
    pair.command(End::A, ike()).expect("it is up");
    pair.command(End::B, child()).expect("it is up");
    let to_a = |p: &Packet| reply(p, A, ExchangeType::CREATE_CHILD_SA);
    run_losing(&mut pair, Duration::from_secs(600), to_a);
    finish(&mut pair);
    let downs = pair.a.count(|e| matches!(e, Event::IkeDown { .. }));
    assert_eq!(downs, 1, "it was rekeyed, and nothing else");
}
