//! A peer that is proven, and asks for more than it should.

#[path = "heap/mod.rs"]
mod heap;

use std::collections::BTreeMap;
use std::time::Duration;

use obol_ike::config::{Mode, StartAction};
use obol_ike::error::Dropped;
use obol_ike::event::{Command, EspSpi, InboundSa};
use obol_ike::proposal::{ChildExchange, EspProposal};
use obol_ike::testing::pair::End;
use obol_ike::testing::scripted::Scripted;
use obol_ike::testing::setup::{self, HOSTS, ID_A, PODS, Setup};
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::{ExchangeType, Notify, NotifyType, Payload};

const MIB: i64 = 1 << 20;

fn child(spi: u32, selectors: &[TrafficSelector]) -> Vec<Payload<'static>> {
    let exchange = ChildExchange::IkeAuth;
    let theirs: TrafficSelector = "172.16.2.0/24".parse().expect("a selector");
    vec![
        Payload::Sa(EspProposal::to_wire(
            &EspProposal::defaults(),
            EspSpi(spi),
            exchange,
        )),
        Payload::Nonce(&[7; 32]),
        Payload::TsI(selectors.to_vec().into()),
        Payload::TsR(vec![theirs].into()),
    ]
}

/// What became of requests.
type Outcomes = BTreeMap<String, usize>;

/// Sends these, and forgets what only the test keeps of it.
fn flood(peer: &mut Scripted, requests: u32, selectors: &[TrafficSelector]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for n in 0..requests {
        let payloads = child(0x1000_0000 + n, selectors);
        let outcome = match peer.request(ExchangeType::CREATE_CHILD_SA, &payloads) {
            Ok(reply) => match reply.error() {
                Some(error) => error.to_string(),
                None => "made".to_owned(),
            },
            Err(dropped) => format!("{dropped:?}"),
        };
        *outcomes.entry(outcome).or_default() += 1;
        peer.pair.net.sent.clear();
        peer.pair.b.events.clear();
    }
    outcomes
}

#[test]
fn a_flood_of_child_sas_is_bounded_in_number_and_memory() {
    let mut peer = Scripted::established(Setup::new(1));
    let before = heap::LIVE.get();
    let selectors = ["172.16.1.0/24".parse().expect("a selector")];
    let outcomes = flood(&mut peer, 20_000, &selectors);
    let grown = heap::LIVE.get() - before;
    println!("20000 requests: {outcomes:?}, {grown} octets more");
    assert_eq!(outcomes.get("made"), Some(&255), "with the first one, 256");
    assert!(outcomes["NO_ADDITIONAL_SAS"] > 0);
    assert!(outcomes["TEMPORARY_FAILURE"] > 0);
    assert!(outcomes["Rationed"] > 0);
    assert!(grown <= MIB, "{grown} octets");
    // Its other requests are answered again after a while.
    peer.pair.run_for(Duration::from_secs(30));
    let alive = peer.request(ExchangeType::INFORMATIONAL, &[]);
    assert!(alive.is_ok_and(|reply| reply.error().is_none()));
}

#[test]
fn a_flood_of_selectors_is_bounded_in_memory() {
    let mut peer = Scripted::established(Setup::new(1));
    let before = heap::LIVE.get();
    let host = |n: u32| -> TrafficSelector {
        let text = format!("172.16.1.{}/32[tcp/{}]", n % 250, n + 1);
        text.parse().expect("a selector")
    };
    let selectors: Vec<TrafficSelector> = (0..200).map(host).collect();
    let outcomes = flood(&mut peer, 400, &selectors);
    let grown = heap::LIVE.get() - before;
    println!("400 requests with 200 selectors: {outcomes:?}, {grown} octets more");
    assert_eq!(outcomes.get("made"), Some(&10), "2048 selectors at most");
    assert!(grown <= MIB, "{grown} octets");
}

/// What a data plane has to tell apart is pairs of selectors, so pairs are counted.
#[test]
fn a_product_of_selectors_is_cut_and_then_refused() {
    let mut peer = Scripted::established(Setup::new(1));
    let hosts = |network: &str| -> Vec<TrafficSelector> {
        let host = |n| format!("{network}.{n}").parse().expect("a selector");
        (0..128).step_by(2).map(host).collect()
    };
    let (mine, theirs) = (hosts("172.16.1"), hosts("172.16.2"));
    let mut made = 0;
    for n in 0..20 {
        let mut payloads = child(0x1000_0000 + n, &mine);
        payloads[3] = Payload::TsR(theirs.clone().into());
        let reply = peer.request(ExchangeType::CREATE_CHILD_SA, &payloads);
        match reply.expect("a reply").error() {
            None => made += 1,
            error => assert_eq!(error, Some(NotifyType::NO_ADDITIONAL_SAS)),
        }
    }
    let sas = peer.pair.b.plane.inbound.values();
    let pairs = sas.map(|sa| sa.info.local_ts.len() * sa.info.remote_ts.len());
    let (most, all) = pairs.fold((0, 0), |(most, all), n| (n.max(most), all + n));
    assert_eq!((made, most, all), (7, 256, 7 * 256 + 1), "2048 at most");
}

/// What the operator lists is meant, by both ends, and may be made anew.
#[test]
fn a_child_that_is_configured_with_more_gets_them() {
    let selectors = |network: u8| {
        let host = |n: u8| format!("10.{network}.0.{n}/32");
        (1..=40).map(|n| host(n * 2)).collect::<Vec<_>>().join(" ")
    };
    let (ours, theirs) = (selectors(1), selectors(2));
    let all = setup::child(PODS, Mode::Tunnel, &ours, &theirs, StartAction::Start);
    let mut pair = Setup::new(1).children(vec![all]).up(1);
    for end in [End::A, End::B] {
        pair.assert_up(1);
        let command = Command::RekeyChild {
            connection: HOSTS.to_owned(),
            child: PODS.to_owned(),
        };
        pair.command(end, command).expect("it is up");
        pair.run_for(Duration::from_secs(30));
        let sas = &pair.b.plane.inbound;
        let pairs = |sa: &InboundSa| sa.info.local_ts.len() * sa.info.remote_ts.len();
        assert_eq!(sas.values().map(pairs).max(), Some(1600), "{end:?}");
    }
}

/// The one that comes with the IKE SA is one of them.
#[test]
fn child_sas_are_counted_whatever_exchange_makes_them() {
    let mut setup = Setup::new(1);
    setup.settings.quotas.child_sas = 2;
    let mut peer = Scripted::established(setup);
    for n in 1..5 {
        peer = peer.another(n);
        let reply = peer.prove(ID_A, |_| {}).expect("a reply");
        let wanted = (n > 1).then_some(NotifyType::NO_ADDITIONAL_SAS);
        assert_eq!(reply.error(), wanted, "{n}");
    }
    assert_eq!(peer.up(), (5, 2));
    // What the peer has forgotten does not count.
    peer.pair.run_for(Duration::from_secs(1));
    let mut peer = peer.another(9);
    let contact = Payload::Notify(Notify::bare(NotifyType::INITIAL_CONTACT));
    let reply = peer.prove(ID_A, |payloads| payloads.push(contact));
    assert_eq!(reply.expect("a reply").error(), None);
    assert_eq!(peer.up(), (1, 1));
}

#[test]
fn an_spi_names_one_child_sa() {
    let mut peer = Scripted::established(Setup::new(1));
    let selectors = ["172.16.1.0/24".parse().expect("a selector")];
    for wanted in [None, Some(NotifyType::NO_ADDITIONAL_SAS)] {
        let payloads = child(0x1000_0000, &selectors);
        let reply = peer.request(ExchangeType::CREATE_CHILD_SA, &payloads);
        assert_eq!(reply.expect("a reply").error(), wanted);
    }
    assert_eq!(peer.up(), (1, 2));
}

#[test]
fn a_flood_of_empty_requests_is_answered_at_a_rate() {
    let mut peer = Scripted::established(Setup::new(1));
    let mut answered = 0;
    for _ in 0..10_000 {
        match peer.request(ExchangeType::INFORMATIONAL, &[]) {
            Ok(_) => answered += 1,
            Err(dropped) => assert_eq!(dropped, Dropped::Rationed),
        }
        peer.pair.run_for(Duration::from_micros(200));
        peer.pair.net.sent.clear();
    }
    println!("10000 requests in 2 s: {answered} answered");
    assert!((1100..=1300).contains(&answered), "1024, and 100 a second");
}
