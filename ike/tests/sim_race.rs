//! Somebody sees our first request and answers it 10,000 times a second, before the peer does: the
//! peer's own answer makes the IKE SA all the same, and not much later. With `--nocapture` the
//! figures are printed; `OBOL_SEEDS=1000` has so many races in each row.

use std::time::{Duration, Instant};

use obol_ike::config::Config;
use obol_ike::crypto::ke::KeyExchange;
use obol_ike::event::{Event, IkeSpi, Output};
use obol_ike::proposal::IkeProposal;
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::{End, Node, Pair};
use obol_ike::testing::setup::{B, HOSTS, ID_A, ID_B, Setup, mirror};
use obol_ike::wire::{
    ExchangeType, Flags, Header, Ke, KeMethod, Message, Notify, NotifyType, Payload, emit_message,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

const INIT: ExchangeType = ExchangeType::IKE_SA_INIT;
/// Between two forged answers: 10,000 a second.
const PAUSE: Duration = Duration::from_micros(100);
/// No race takes longer.
const LIMIT: Duration = Duration::from_secs(200);

/// What is forged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Forged {
    /// Errors of several types.
    Errors,
    /// Cookies, each another one.
    Cookies,
    /// A wish for another key exchange method that we offer.
    Method,
    /// Whole answers, with a key exchange and a nonce.
    Answers,
    /// The same, by somebody who also answers the IKE_AUTH request: that it fails.
    Refusals,
    /// Octets.
    Junk,
}

use Forged::{Answers, Cookies, Errors, Junk, Method, Refusals};

/// Sees what the first host sends, and answers in the name of the second.
struct Mallory {
    rng: ChaCha20Rng,
    forged: Vec<Forged>,
    seen: usize,
    request: Option<Packet>,
    /// Its public values.
    publics: Vec<KeyExchange>,
    /// Hosts that are configured as the second one, but do not know the secret.
    liars: Vec<Node>,
    sent: u64,
}

impl Mallory {
    fn new(seed: u64, setup: &Setup, forged: &[Forged]) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed ^ 0xbad);
        let methods = [KeMethod::CURVE25519, KeMethod::ECP_256, KeMethod::ECP_384];
        let draw = |method: KeMethod| KeyExchange::generate(method, &mut rng).expect("known");
        let publics = methods.map(draw).into();
        let config = || Config {
            connections: vec![mirror(&setup.connection, setup.b_starts).into()],
            ..Config::default()
        };
        let liars = (0..8).map(|n| Node::new(B, config(), (seed + 1) << 32 | n));
        Self {
            publics,
            liars: liars
                .map(|liar| liar.with_secret(ID_A, ID_B, b"a guess"))
                .collect(),
            rng,
            forged: forged.to_vec(),
            seen: 0,
            request: None,
            sent: 0,
        }
    }

    /// Looks at what is new on the wire; the liars answer it.
    fn look(&mut self, pair: &mut Pair) {
        while let Some(packet) = pair.net.sent.get(self.seen).cloned() {
            self.seen += 1;
            if packet.to.ip() != B {
                continue;
            }
            if packet.datagram[18] == INIT.0 {
                self.request = Some(packet.clone());
            }
            if self.forged.contains(&Refusals) {
                self.lie(pair, &packet);
            }
        }
    }

    fn lie(&mut self, pair: &mut Pair, packet: &Packet) {
        let path = obol_ike::config::Path {
            local: packet.to,
            remote: packet.from,
        };
        for liar in &mut self.liars {
            let _ = liar
                .endpoint
                .handle_datagram(pair.now, path, &packet.datagram);
            while let Some(output) = liar.endpoint.poll_output() {
                match output {
                    Output::Transmit(transmit) => {
                        self.sent += 1;
                        let packet = Packet {
                            from: packet.to,
                            to: packet.from,
                            datagram: transmit.datagram.to_vec(),
                        };
                        pair.net.inject(pair.now, packet);
                    }
                    Output::Ask(id, _) => {
                        let secret = obol_ike::event::Answer::Psk(Some(b"a guess"[..].into()));
                        liar.endpoint.handle_answer(pair.now, id, secret);
                    }
                    Output::Event(_) => {}
                }
            }
        }
    }

    /// Sends one more forged answer.
    fn strike(&mut self, pair: &mut Pair) {
        let which = self.rng.next_u32() as usize % self.forged.len();
        let (kind, Some(request)) = (self.forged[which], self.request.clone()) else {
            return;
        };
        let datagram = match kind {
            Junk => {
                let mut junk = vec![0; 20 + self.rng.next_u32() as usize % 200];
                self.rng.fill_bytes(&mut junk);
                junk
            }
            // The liars do that by themselves.
            Refusals => return,
            _ => self.answer(&request.datagram, kind),
        };
        self.sent += 1;
        let packet = Packet {
            from: request.to,
            to: request.from,
            datagram,
        };
        pair.net.inject(pair.now, packet);
    }

    fn answer(&mut self, request: &[u8], kind: Forged) -> Vec<u8> {
        let message = Message::parse(request).expect("our own");
        let flags = Flags {
            response: true,
            ..Flags::default()
        };
        let spi_r = match kind {
            Answers => IkeSpi(self.rng.next_u64() | 1),
            _ => IkeSpi(0),
        };
        let header = Header::new(message.header.spi_i, spi_r, INIT, flags, 0);
        let mut octets = vec![0; 32];
        self.rng.fill_bytes(&mut octets);
        let draw = self.rng.next_u32() as usize;
        let ours = &self.publics[draw % self.publics.len()];
        let payloads = match kind {
            Errors => {
                let errors = [
                    NotifyType::NO_PROPOSAL_CHOSEN,
                    NotifyType::INVALID_SYNTAX,
                    NotifyType::AUTHENTICATION_FAILED,
                    NotifyType(8191),
                ];
                vec![Payload::Notify(Notify::bare(errors[draw % errors.len()]))]
            }
            Cookies => vec![Payload::Notify(Notify::cookie(&octets))],
            Method => vec![Payload::Notify(Notify::invalid_ke(ours.method()))],
            _ => {
                let mut proposals = IkeProposal::defaults();
                proposals.truncate(1);
                proposals[0].encr.truncate(1);
                proposals[0].prf.truncate(1);
                proposals[0].ke = vec![ours.method()];
                let ke = Ke {
                    method: ours.method(),
                    data: ours.public(),
                };
                vec![
                    Payload::Sa(IkeProposal::to_wire(&proposals, &[])),
                    Payload::Ke(ke),
                    Payload::Nonce(&octets),
                ]
            }
        };
        emit_message(&header, &payloads).expect("short")
    }
}

fn is_up(pair: &Pair) -> bool {
    !pair.a.plane.current.is_empty() && !pair.b.plane.current.is_empty()
}

/// How long one handshake takes, and how many answers were forged meanwhile.
fn race(seed: u64, setup: &Setup, forged: &[Forged]) -> (Duration, u64) {
    let mut setup = setup.clone();
    setup.net = reseed(&setup, seed);
    let mut mallory = Mallory::new(seed, &setup, forged);
    let mut pair = setup.pair(seed);
    pair.start();
    let begun = pair.now;
    let took = |now: Instant| now - begun;
    while !is_up(&pair) {
        assert!(took(pair.now) < LIMIT, "seed {seed}, {forged:?}");
        mallory.look(&mut pair);
        if !forged.is_empty() {
            mallory.strike(&mut pair);
        }
        pair.run_for(PAUSE);
    }
    let result = (took(pair.now), mallory.sent);
    let failed = pair.a.count(|e| matches!(e, Event::IkeFailed { .. }));
    assert_eq!(failed, 0, "seed {seed}, {forged:?}");
    // Nobody else is made to work long, and nothing is left.
    pair.net.loss = 0;
    pair.run_for(Duration::from_secs(200));
    pair.run_until_idle();
    assert!(pair.send_packet(End::A, HOSTS, "pods"), "seed {seed}");
    assert!(pair.send_packet(End::B, HOSTS, "pods"), "seed {seed}");
    pair.assert_up(1);
    result
}

fn reseed(setup: &Setup, seed: u64) -> obol_ike::testing::net::Net {
    let mut net = obol_ike::testing::net::Net::seeded(seed);
    net.loss = setup.net.loss;
    net.delay = setup.net.delay;
    net
}

/// How many races each row has.
#[expect(clippy::disallowed_methods, reason = "the tester's environment")]
fn races(usual: u64) -> u64 {
    let set = std::env::var("OBOL_SEEDS").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// 99 % of the races are over by then, and how many answers were forged in all.
fn p99(setup: &Setup, seeds: u64, forged: &[Forged]) -> (Duration, u64) {
    let results: Vec<_> = (0..races(seeds))
        .map(|seed| race(seed, setup, forged))
        .collect();
    let mut times: Vec<Duration> = results.iter().map(|(took, _)| *took).collect();
    times.sort();
    let last = times.len() * 99 / 100;
    let sent = results.iter().map(|(_, sent)| sent).sum();
    (times[last.min(times.len() - 1)], sent)
}

/// A line for each row: within twice the time of the first, which has no forger.
fn compare(setup: &Setup, seeds: u64, rows: &[&[Forged]]) -> Vec<String> {
    let (baseline, _) = p99(setup, seeds, &[]);
    let line = |(took, sent): (Duration, u64), forged: &[Forged]| {
        let ms = took.as_millis();
        format!(
            "p99 of {}: {ms} ms with {sent} forged {forged:?}",
            races(seeds)
        )
    };
    let mut lines = vec![line((baseline, 0), &[])];
    for forged in rows {
        let result = p99(setup, seeds, forged);
        lines.push(line(result, forged));
        assert!(result.0 <= baseline * 2, "{lines:#?}");
    }
    lines
}

const ROWS: [&[Forged]; 7] = [
    &[Errors],
    &[Cookies],
    &[Method],
    &[Answers],
    &[Refusals],
    &[Junk],
    &[Errors, Cookies, Method, Answers, Refusals, Junk],
];

fn jittery(seed: u64) -> Setup {
    let mut setup = Setup::started(seed);
    setup.net.delay = (Duration::from_millis(5), Duration::from_millis(15));
    setup
}

//= test security S-10
#[test]
fn forged_answers_at_a_high_rate_do_not_slow_a_handshake_down() {
    for line in compare(&jittery(1), 8, &ROWS) {
        println!("F7: {line}");
    }
}

#[test]
fn nor_on_a_network_that_loses_one_packet_in_ten() {
    let mut setup = jittery(1);
    setup.net.loss = 100;
    let rows: &[&[Forged]] = if races(0) > 0 {
        &ROWS
    } else {
        &[&[Cookies], &[Refusals]]
    };
    for line in compare(&setup, 40, rows) {
        println!("F7: 10 % loss: {line}");
    }
}

/// A peer under attack asks for a cookie. Cookies that are forged at the same rate cannot be told
/// from the genuine one, so these are not among the rows.
#[test]
fn nor_if_the_peer_asks_for_a_cookie() {
    let mut setup = jittery(1);
    setup.settings.cookie_threshold = 0;
    let rows: [&[Forged]; 3] = [&[Answers], &[Refusals], &[Errors, Answers, Refusals, Junk]];
    for line in compare(&setup, 8, &rows) {
        println!("F7: with a cookie: {line}");
    }
}

/// A forger that sends one cookie for each request of ours loses in the end, too.
#[test]
fn a_genuine_cookie_is_found_among_forged_ones() {
    let mut longest = Duration::ZERO;
    for seed in 0..races(40) {
        let mut setup = jittery(seed);
        setup.settings.cookie_threshold = 0;
        let mut mallory = Mallory::new(seed, &setup, &[Cookies]);
        let mut pair = setup.pair(seed);
        pair.start();
        let begun = pair.now;
        while !is_up(&pair) {
            let requests = pair.net.sent.len();
            mallory.look(&mut pair);
            mallory.strike(&mut pair);
            while !is_up(&pair) && pair.net.sent.len() == requests {
                pair.run_for(Duration::from_millis(1));
            }
            assert!(pair.now - begun < LIMIT, "seed {seed}");
        }
        longest = longest.max(pair.now - begun);
        pair.run_until_idle();
        pair.assert_up(1);
        let failed = pair.a.count(|e| matches!(e, Event::IkeFailed { .. }));
        assert_eq!(failed, 0, "seed {seed}: {:?}", pair.a.events);
    }
    println!("F7: a forged cookie for each request: at most {longest:?}");
}
