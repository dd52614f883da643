//! Floods of first requests, with forged addresses and with true ones. With `--nocapture` the
//! figures are printed.

#[path = "heap/mod.rs"]
mod heap;

use std::time::{Duration, Instant};

use obol_ike::config::StartAction;
use obol_ike::error::Dropped;
use obol_ike::event::{Command, Event};
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::scripted::Scripted;
use obol_ike::testing::setup::{HOSTS, PODS, Setup};
use obol_ike::wire::{ExchangeType, Flags, Header, NotifyType};

const MIB: i64 = 1 << 20;

/// Two hosts, of which the second takes peers from anywhere, and a first request to it.
fn open_to_all() -> (Pair, Packet) {
    let mut setup = Setup::new(1);
    let mut donor = Setup::started(1);
    donor.b_starts = StartAction::None;
    let first = donor.up(1).net.sent[0].clone();
    setup.connection.local_addrs = Vec::new();
    let mut pair = setup.pair(2);
    // The first host does know its address.
    pair.a = Setup::new(1).pair(2).a;
    (pair, first)
}

/// Gives a datagram to the second host; what it answers.
fn give(pair: &mut Pair, packet: &Packet) -> Option<Vec<u8>> {
    let sent = pair.net.sent.len();
    pair.net.inject(pair.now, packet.clone());
    pair.run_for(Duration::ZERO);
    pair.net.sent.get(sent).map(|reply| reply.datagram.clone())
}

/// Forgets what only the test keeps, so that what is left is the endpoint's.
fn forget(pair: &mut Pair) {
    pair.net.sent.clear();
    pair.b.events.clear();
}

/// The same request with the cookie of the reply; a puzzle that came with it is not solved.
fn with_cookie(request: &Packet, reply: &[u8]) -> Packet {
    let len = usize::from(u16::from_be_bytes([reply[30], reply[31]]));
    let notify = &reply[28..28 + len];
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

/// The first host brings up its tunnel while `flood` does what it does, a millisecond a time.
fn time_to_up(pair: &mut Pair, mut flood: impl FnMut(&mut Pair)) -> Duration {
    let begun = pair.now;
    let took = |now: Instant| now - begun;
    pair.initiate(End::A, HOSTS);
    while pair.a.plane.current.is_empty() || pair.b.plane.current.is_empty() {
        flood(pair);
        pair.run_for(Duration::from_millis(1));
        assert!(took(pair.now) < Duration::from_secs(10), "shut out");
    }
    took(pair.now)
}

/// Whoever was asked for a cookie sends another request. A copy of the first one that comes late is not
/// served, too, when the load is gone: the initiator could take its answer for that of the other.
//= test rfc7296 2.6-2
#[test]
fn cookies_are_asked_for_until_late_copies_have_come() {
    let mut setup = Setup::new(1);
    setup.settings.cookie_threshold = 1;
    setup.settings.half_open_timeout = Duration::from_secs(1);
    setup.connection.local_addrs = Vec::new();
    let (_, load) = open_to_all();
    let mut pair = setup.pair(2);
    let mut request = load.clone();
    request.datagram[..8].copy_from_slice(&[7; 8]);
    request.from.set_port(501);
    let is_cookie = |reply: &[u8]| reply[16] == 41;
    let served = give(&mut pair, &load).expect("the first is served");
    assert!(!is_cookie(&served));
    let asked = give(&mut pair, &request).expect("now there is load");
    assert!(is_cookie(&asked));
    pair.run_for(Duration::from_secs(5));
    assert!(
        pair.b.endpoint.status(pair.now).is_empty(),
        "the load is gone"
    );
    let late = give(&mut pair, &request).expect("an answer");
    assert!(is_cookie(&late), "still within the time");
    let answer = give(&mut pair, &with_cookie(&request, &late)).expect("an answer");
    assert!(!is_cookie(&answer), "who receives there is served");
    pair.run_for(Duration::from_secs(15));
    assert!(pair.b.endpoint.status(pair.now).is_empty());
    request.datagram[..8].copy_from_slice(&[8; 8]);
    let calm = give(&mut pair, &request).expect("an answer");
    assert!(!is_cookie(&calm), "all is as before");
}

//= test security S-12 S-44
#[test]
fn a_flood_with_forged_addresses_takes_no_memory_and_shuts_nobody_out() {
    let (mut calm, _) = open_to_all();
    let baseline = time_to_up(&mut calm, |_| {});

    let (mut pair, first) = open_to_all();
    let mut spoofed = 0_u32;
    let (mut octets_in, mut octets_out) = (0, 0);
    let mut spoof = |pair: &mut Pair| {
        spoofed += 1;
        let mut packet = first.clone();
        packet.datagram[..8].copy_from_slice(&u64::from(spoofed).to_be_bytes());
        packet.from = (spoofed.wrapping_mul(2_654_435_761).to_be_bytes(), 500).into();
        octets_in += packet.datagram.len();
        let reply = give(pair, &packet).map_or(0, |reply| reply.len());
        assert!(reply <= packet.datagram.len(), "{reply}");
        octets_out += reply;
        forget(pair);
    };
    let before = heap::LIVE.get();
    for _ in 0..100_000 {
        spoof(&mut pair);
        pair.run_for(Duration::from_micros(20));
    }
    // What is on its way is the test's.
    pair.run_for(Duration::from_millis(20));
    let grown = heap::LIVE.get() - before;
    let half_open = pair.b.endpoint.status(pair.now).len();
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        // 50,000 a second go on.
        let took = time_to_up(&mut pair, |pair| (0..50).for_each(|_| spoof(pair)));
        longest = longest.max(took);
        let connection = HOSTS.to_owned();
        let down = Command::Terminate {
            connection,
            child: None,
        };
        pair.command(End::A, down).expect("it is up");
        pair.run_for(Duration::from_secs(1));
    }
    println!(
        "F11: {spoofed} forged first requests: {half_open} half-open IKE SAs, {grown} octets more, \
         {octets_out} octets for {octets_in}; an honest peer is up after {longest:?} \
         (without: {baseline:?})"
    );
    assert!(half_open <= 32, "the threshold of cookies");
    assert!(grown <= MIB, "{grown}");
    assert!(longest <= (2 * baseline).max(Duration::from_millis(100)));
    assert!(pair.b.dropped[&Dropped::Cookie] > 100_000 - 100);
}

//= test security S-44
#[test]
fn a_flood_of_work_with_garbage_after_it_is_rationed_and_hurts_no_established_sa() {
    let (mut pair, first) = open_to_all();
    time_to_up(&mut pair, |_| {});
    let mut numbers = 0_u64;
    let (mut exchanges, mut garbage) = (0_u32, 0_u32);
    let mut attack = |pair: &mut Pair| {
        numbers += 1;
        let mut packet = first.clone();
        packet.datagram[..8].copy_from_slice(&numbers.to_be_bytes());
        packet.from = ([203, 0, 113, (numbers % 250) as u8], 500).into();
        let mut reply = give(pair, &packet);
        if let Some(cookie) = reply.as_deref().filter(|reply| reply.len() < 200) {
            reply = give(pair, &with_cookie(&packet, cookie));
        }
        let header = reply.as_deref().and_then(|reply| Header::parse(reply).ok());
        if let Some(header) = header.filter(|header| header.spi_r.0 != 0) {
            exchanges += 1;
            for n in 0..10 {
                garbage += 1;
                let flags = Flags {
                    initiator: true,
                    ..Flags::default()
                };
                let auth = ExchangeType::IKE_AUTH;
                let header = Header::new(header.spi_i, header.spi_r, auth, flags, 1);
                let mut datagram = obol_ike::wire::emit_message(&header, &[]).expect("short");
                datagram[16] = 46;
                datagram.extend_from_slice(&[0, 0, 0, 84]);
                datagram.extend_from_slice(&[n; 80]);
                let len = u32::try_from(datagram.len()).expect("short");
                datagram[24..28].copy_from_slice(&len.to_be_bytes());
                let packet = Packet {
                    datagram,
                    ..packet.clone()
                };
                assert_eq!(give(pair, &packet), None, "garbage is not answered");
            }
        }
        forget(pair);
    };
    // Until all places that one network can have are taken.
    (0..400).for_each(|_| attack(&mut pair));
    let before = heap::LIVE.get();
    let spi = |pair: &Pair| pair.a.plane.spi_out(HOSTS, PODS);
    let (mut rekeys, mut slowest) = (0, Duration::ZERO);
    for _ in 0..20 {
        let (begun, old) = (pair.now, spi(&pair));
        let rekey = Command::RekeyChild {
            connection: HOSTS.to_owned(),
            child: PODS.to_owned(),
        };
        pair.command(End::A, rekey).expect("it is up");
        let done = |pair: &Pair| spi(pair) != old && pair.b.plane.inbound.len() == 1;
        while !done(&pair) {
            (0..5).for_each(|_| attack(&mut pair));
            pair.run_for(Duration::from_millis(1));
            assert!(pair.now - begun < Duration::from_secs(5));
        }
        slowest = slowest.max(pair.now - begun);
        rekeys += 1;
        for _ in 0..100 {
            (0..5).for_each(|_| attack(&mut pair));
            pair.run_for(Duration::from_millis(1));
        }
    }
    let grown = heap::LIVE.get() - before;
    println!(
        "F13: {numbers} requests of one network, 5000 a second: {exchanges} key exchanges, {garbage} \
         IKE_AUTH of garbage, {grown} octets more; {rekeys} rekeys of an established SA, the slowest \
         {slowest:?}"
    );
    let seconds = 3;
    assert!(exchanges <= 32 + 200 + 50 * seconds, "{exchanges}");
    assert_eq!(pair.b.dropped[&Dropped::Integrity], garbage as usize);
    let refused = pair.b.dropped[&Dropped::Rationed] + pair.b.dropped[&Dropped::Puzzle];
    assert!(refused > 10_000, "{refused}");
    assert!(grown <= MIB, "{grown}");
    assert!(slowest <= Duration::from_millis(100), "{slowest:?}");
    let downs = |e: &Event| matches!(e, Event::IkeDown { .. } | Event::IkeFailed { .. });
    assert_eq!(pair.a.count(downs), 0);
}

/// One attempt after another, of every kind, each from another place.
fn attempt(peer: &mut Scripted, n: u32, good: &[u8]) {
    let kind = n % 8;
    let mut datagram = good.to_vec();
    datagram[..8].copy_from_slice(&(u64::from(n) + 1).to_be_bytes());
    match kind {
        0 => datagram.truncate((n as usize / 8) % datagram.len()),
        1 => datagram[17] = 0x30,
        2 => datagram[28 + 4 + 8 + 7] = 99,
        3 => datagram[18] = (n / 8) as u8,
        4 => datagram[19] |= 0x20,
        5 => datagram.fill(n as u8),
        // Two that make an IKE SA half open, one of which goes on with garbage.
        _ => {}
    }
    peer.path.remote = (n.wrapping_mul(2_654_435_761).to_be_bytes(), 500).into();
    let _ = peer.give(&datagram);
    let cookie = |reply: &Packet| {
        let notify = reply.datagram.get(34..36) == Some(&NotifyType::COOKIE.0.to_be_bytes()[..]);
        notify.then(|| reply.datagram.clone())
    };
    if kind >= 6
        && let Some(reply) = peer.pair.net.sent.last().and_then(cookie)
    {
        let request = Packet {
            from: peer.path.remote,
            to: peer.path.local,
            datagram,
        };
        let _ = peer.give(&with_cookie(&request, &reply).datagram);
    }
    if kind == 7 {
        let reply = peer
            .pair
            .net
            .sent
            .last()
            .map(|reply| reply.datagram.clone());
        let Some(spi_r) = reply.and_then(|reply| Header::parse(&reply).ok()) else {
            return;
        };
        let mut garbage = good.to_vec();
        garbage[..8].copy_from_slice(&spi_r.spi_i.0.to_be_bytes());
        garbage[8..16].copy_from_slice(&spi_r.spi_r.0.to_be_bytes());
        garbage[16] = 46;
        garbage[18] = ExchangeType::IKE_AUTH.0;
        garbage[23] = 1;
        let _ = peer.give(&garbage);
    }
    peer.pair.run_for(Duration::from_millis(1));
    peer.pair.net.sent.clear();
    peer.pair.b.events.clear();
}

/// `OBOL_ATTEMPTS=1000000` has the million.
#[test]
#[expect(clippy::disallowed_methods, reason = "the tester's environment")]
fn one_million_bad_attempts_flat_memory() {
    let set = std::env::var("OBOL_ATTEMPTS").ok();
    let attempts = set.and_then(|text| text.parse().ok()).unwrap_or(40_000);
    let mut setup = Setup::new(1);
    setup.connection.local_addrs = Vec::new();
    let mut peer = Scripted::begun(setup);
    let good = peer.first_request().to_vec();
    let tenth = attempts / 10;
    (0..tenth).for_each(|n| attempt(&mut peer, n, &good));
    let before = heap::LIVE.get();
    (tenth..attempts).for_each(|n| attempt(&mut peer, n, &good));
    let grown = heap::LIVE.get() - before;
    // What is half open, and what is remembered of networks, goes.
    peer.pair.run_for(Duration::from_secs(300));
    let after = heap::LIVE.get() - before;
    let kinds = &peer.pair.b.dropped;
    println!("{attempts} bad attempts: {grown} octets more, {after} five minutes later; {kinds:?}");
    assert!(grown <= 4 * MIB, "{grown}");
    assert!(after <= MIB / 4, "{after}");
    assert_eq!(peer.up(), (0, 0));
    assert!(kinds.len() >= 5, "{kinds:?}");
}
