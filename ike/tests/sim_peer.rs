//! A peer that shares keys with us, and does what it should not.

use std::sync::Arc;

use obol_ike::config::{Config, RemoteAuthMethod, StartAction};
use obol_ike::error::{Dropped, IkeFailure};
use obol_ike::event::{EspSpi, Event, InboundSa};
use obol_ike::proposal::{ChildExchange, EspProposal};
use obol_ike::testing::scripted::{SCRIPTED_SPI, Scripted, child_payloads, rekey_notify};
use obol_ike::testing::setup::{ID_A, Setup, mirror};
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::{
    Delete, ExchangeType, Id, Notify, NotifyType, Payload, PayloadType, ProtocolId,
};

const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;
const CREATE_CHILD_SA: ExchangeType = ExchangeType::CREATE_CHILD_SA;

fn established() -> Scripted {
    Scripted::established(Setup::new(1))
}

fn unknown(critical: bool) -> Payload<'static> {
    Payload::Unknown {
        ty: PayloadType(200),
        critical,
        body: b"what is this",
    }
}

//= test rfc7296 1.4-4 2.5-1 4-5
#[test]
fn a_good_peer_gets_what_it_asks_for() {
    let mut peer = established();
    assert_eq!(peer.up(), (1, 1));
    let reply = peer.request(INFORMATIONAL, &[]).expect("answered");
    assert!(reply.payloads.is_empty());
    let mut payloads = child_payloads(ChildExchange::CreateChildSa(None));
    payloads.insert(1, Payload::Nonce(&[9; 32]));
    let reply = peer.request(CREATE_CHILD_SA, &payloads).expect("answered");
    // Our default proposals ask for PFS first and take it without, too, or say what they want.
    assert!(matches!(
        reply.error(),
        None | Some(NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD)
    ));
}

//= test rfc7296 2.5-7 2.5-8 2.21.2-2
//= test security S-11
#[test]
fn a_critical_payload_that_is_not_known_is_named_and_nothing_else_happens() {
    let mut peer = established();
    let delete = Payload::Delete(Delete::Ike);
    let reply = peer
        .request(INFORMATIONAL, &[delete, unknown(true)])
        .expect("answered");
    let want = (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![200]);
    assert_eq!(reply.notifies, [want]);
    assert_eq!(peer.up(), (1, 1));
    let reply = peer
        .request(INFORMATIONAL, &[unknown(false)])
        .expect("answered");
    assert!(reply.payloads.is_empty());

    let mut peer = Scripted::begun(Setup::new(1));
    let reply = peer
        .prove(ID_A, |payloads| payloads.push(unknown(true)))
        .expect("answered");
    assert_eq!(
        reply.error(),
        Some(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD)
    );
    assert_eq!(peer.up(), (0, 0));
}

//= test rfc7296 2.21.3-1 3.10.1-4
//= test security S-30
#[test]
fn what_makes_no_sense_ends_the_ike_sa() {
    for (exchange, first, chain) in [
        (INFORMATIONAL, PayloadType::NOTIFY, &b"\0\0\0\x04"[..]),
        (INFORMATIONAL, PayloadType::NONCE, b"\0\0\0\xff"),
        (CREATE_CHILD_SA, PayloadType::NONCE, b"\0\0\0\x06ab"),
        (CREATE_CHILD_SA, PayloadType::NONE, b""),
        (ExchangeType::IKE_AUTH, PayloadType::NONE, b""),
        (ExchangeType::IKE_SA_INIT, PayloadType::NONE, b""),
        (ExchangeType(77), PayloadType::NONE, b""),
    ] {
        let mut peer = established();
        let reply = peer
            .request_octets(exchange, first, chain)
            .expect("answered");
        assert_eq!(
            reply.error(),
            Some(NotifyType::INVALID_SYNTAX),
            "{exchange:?} {chain:?}"
        );
        assert_eq!(peer.up(), (0, 0));
        assert!(peer.pair.b.plane.inbound.is_empty());
    }
}

//= test rfc7296 1-1 1.4-1
#[test]
fn before_ike_auth_no_other_exchange_is_answered() {
    for exchange in [
        INFORMATIONAL,
        CREATE_CHILD_SA,
        ExchangeType(34),
        ExchangeType(77),
    ] {
        let mut peer = Scripted::begun(Setup::new(1));
        let delete = [Payload::Delete(Delete::Ike)];
        assert_eq!(
            peer.request(exchange, &delete).err(),
            Some(Dropped::OutOfPlace)
        );
        let reply = peer.prove(ID_A, |_| {}).expect("answered");
        assert_eq!(reply.error(), None);
        assert_eq!(peer.up(), (1, 1));
    }
}

#[test]
fn each_payload_of_ike_auth_is_missed() {
    let names = ["IDi", "AUTH", "SA", "TSi", "TSr"];
    for (nth, name) in names.iter().enumerate() {
        let mut peer = Scripted::begun(Setup::new(1));
        let reply = peer
            .prove(ID_A, |payloads| {
                payloads.remove(nth);
            })
            .expect("answered");
        let ike_sas = match *name {
            "IDi" | "AUTH" => 0,
            _ => 1,
        };
        assert!(reply.error().is_some(), "{name}");
        assert_eq!(peer.up(), (ike_sas, 0), "{name}");
        assert!(peer.pair.b.plane.inbound.is_empty());
    }
}

//= test rfc7296 2.21.2-2
#[test]
fn each_payload_of_ike_auth_twice_is_refused() {
    for nth in 0..5 {
        let mut peer = Scripted::begun(Setup::new(1));
        let reply = peer
            .prove(ID_A, |payloads| payloads.push(payloads[nth].clone()))
            .expect("answered");
        assert_eq!(reply.error(), Some(NotifyType::INVALID_SYNTAX));
        assert_eq!(peer.up(), (0, 0));
    }
}

//= test rfc7296 2.16-1
//= test security S-29
#[test]
fn who_asks_for_eap_is_refused() {
    let mut peer = Scripted::begun(Setup::new(1));
    let reply = peer
        .prove(ID_A, |payloads| {
            payloads.remove(1);
            payloads.push(Payload::Eap(&[1, 1, 0, 4]));
        })
        .expect("answered");
    assert_eq!(reply.error(), Some(NotifyType::AUTHENTICATION_FAILED));
    assert_eq!(peer.up(), (0, 0));
    let refused = |e: &Event| {
        matches!(e, Event::IkeFailed { reason: IkeFailure::PeerNotProven { reason, .. }, .. }
            if reason.contains("EAP"))
    };
    assert_eq!(peer.pair.b.count(refused), 1);
}

//= test rfc7296 2.21.2-1
#[test]
fn a_refusal_is_repeated_and_then_there_is_nothing() {
    let mut peer = Scripted::begun(Setup::new(1));
    let reply = peer.prove("@nobody.example.com", |_| {}).expect("answered");
    assert_eq!(reply.error(), Some(NotifyType::AUTHENTICATION_FAILED));
    peer.message_id -= 1;
    assert_eq!(peer.prove(ID_A, |_| {}).err(), Some(Dropped::Repeated));
    peer.message_id += 1;
    assert_eq!(peer.prove(ID_A, |_| {}).err(), Some(Dropped::OutOfPlace));
    peer.pair.run_for(std::time::Duration::from_secs(31));
    assert_eq!(peer.prove(ID_A, |_| {}).err(), Some(Dropped::UnknownSpi));
}

#[test]
fn what_a_peer_asks_us_to_be_is_checked() {
    for (wanted, fits) in [("@hostb.example.com", true), ("@other.example.com", false)] {
        let body = wanted
            .parse::<obol_ike::identity::Identity>()
            .expect("an identity")
            .to_body();
        let body: &'static [u8] = body.leak();
        let mut peer = Scripted::begun(Setup::new(1));
        let reply = peer
            .prove(ID_A, |payloads| {
                payloads.push(Payload::IdR(Id::from_body(body).expect("sound")));
            })
            .expect("answered");
        assert_eq!(reply.error().is_none(), fits);
        assert_eq!(peer.up().0, usize::from(fits));
    }
}

//= test security S-28
#[test]
fn of_connections_with_the_same_addresses_the_identity_chooses() {
    let setup = Setup::new(1);
    let ours = mirror(&setup.connection, StartAction::None);
    let mut other = ours.clone();
    other.name = "other".to_owned();
    other.remote.id = "@other.example.com".parse().ok();
    let mut keyed = ours.clone();
    keyed.name = "keyed".to_owned();
    keyed.remote.method = RemoteAuthMethod::Keys(Vec::new());
    let mut anybody = ours.clone();
    anybody.name = "anybody".to_owned();
    anybody.remote.id = None;
    let connections = [other, keyed, anybody, ours];
    let mut peer = Scripted::begun_with(Config {
        connections: connections.into_iter().map(Arc::new).collect(),
        ..Config::default()
    });
    let reply = peer.prove(ID_A, |_| {}).expect("answered");
    assert_eq!(reply.error(), None);
    let status = peer.pair.b.endpoint.status(peer.pair.now);
    assert_eq!(status[0].connection.as_deref(), Some("hosts"));
}

//= test rfc7296 2.21.3-1 2.25.1-6 2.25-4
//= test security S-19
#[test]
fn deletes_and_rekeys_of_what_is_not_there_do_nothing() {
    let mut peer = established();
    let delete = Payload::Delete(Delete::Esp(vec![EspSpi(0x1234_5678)]));
    let reply = peer.request(INFORMATIONAL, &[delete]).expect("answered");
    assert!(reply.payloads.is_empty());

    let mut payloads = child_payloads(ChildExchange::CreateChildSa(None));
    payloads.insert(1, Payload::Nonce(&[9; 32]));
    payloads.insert(0, rekey_notify(EspSpi(0x1234_5678)));
    let reply = peer.request(CREATE_CHILD_SA, &payloads).expect("answered");
    assert_eq!(reply.error(), Some(NotifyType::CHILD_SA_NOT_FOUND));

    let other = Payload::Delete(Delete::Other {
        protocol: ProtocolId::AH,
        spi_size: 4,
        count: 1,
        spis: &[1, 2, 3, 4],
    });
    let reply = peer.request(INFORMATIONAL, &[other]).expect("answered");
    assert!(reply.payloads.is_empty());
    assert_eq!(peer.up(), (1, 1));
}

//= test rfc7296 1.4.1-2 1.4.1-3
//= test security S-38
#[test]
fn a_child_is_deleted_in_both_directions_and_once() {
    let mut peer = established();
    let ours = peer
        .pair
        .b
        .plane
        .inbound
        .values()
        .next()
        .expect("one")
        .info
        .spi_in;
    let delete = || Payload::Delete(Delete::Esp(vec![SCRIPTED_SPI, SCRIPTED_SPI]));
    let reply = peer
        .request(INFORMATIONAL, &[delete(), delete()])
        .expect("answered");
    assert_eq!(reply.deleted, [ours]);
    assert_eq!(peer.up(), (1, 0));
}

//= test security S-38
#[test]
fn after_a_delete_of_the_ike_sa_nothing_in_the_message_counts() {
    let mut peer = established();
    let payloads = [
        Payload::Delete(Delete::Esp(vec![SCRIPTED_SPI])),
        Payload::Delete(Delete::Ike),
        Payload::Notify(Notify::bare(NotifyType::INITIAL_CONTACT)),
    ];
    let reply = peer.request(INFORMATIONAL, &payloads).expect("answered");
    assert!(reply.payloads.is_empty());
    assert_eq!(peer.up(), (0, 0));
    peer.message_id -= 1;
    assert_eq!(
        peer.request(INFORMATIONAL, &[]).err(),
        Some(Dropped::Repeated)
    );
}

//= test rfc7296 2.1-5 2.3-8 2.3-9
//= test security S-5
#[test]
fn message_ids_outside_the_window_are_dropped() {
    let mut peer = established();
    for wrong in [0, 3, 4, 1000, u32::MAX] {
        peer.message_id = wrong;
        let delete = [Payload::Delete(Delete::Ike)];
        assert_eq!(
            peer.request(INFORMATIONAL, &delete).err(),
            Some(Dropped::MessageId)
        );
    }
    peer.message_id = 2;
    assert!(peer.request(INFORMATIONAL, &[]).is_ok());
    assert_eq!(peer.up(), (1, 1));
}

//= test rfc7296 2.4-2
//= test security S-9
#[test]
fn an_initial_contact_outside_ike_auth_closes_nothing() {
    let mut peer = established();
    let contact = [Payload::Notify(Notify::bare(NotifyType::INITIAL_CONTACT))];
    let reply = peer.request(INFORMATIONAL, &contact).expect("answered");
    assert!(reply.payloads.is_empty());
    assert_eq!(peer.up(), (1, 1));
}

/// A request for one more Child SA, without key exchange, to be sent with this SPI.
fn one_more(spi: u32, ts_i: &[TrafficSelector], ts_r: &[TrafficSelector]) -> Vec<Payload<'static>> {
    let proposals = EspProposal::to_wire(
        &EspProposal::defaults(),
        EspSpi(spi),
        ChildExchange::IkeAuth,
    );
    vec![
        Payload::Sa(proposals),
        Payload::Nonce(&[9; 32]),
        Payload::TsI(ts_i.to_vec().into()),
        Payload::TsR(ts_r.to_vec().into()),
    ]
}

//= test rfc7296 2.8-5
#[test]
fn a_peer_gets_only_so_many_child_sas() {
    let mut peer = established();
    let pods = |text: &str| vec![text.parse::<TrafficSelector>().expect("a selector")];
    let (ts_i, ts_r) = (pods("172.16.1.0/24"), pods("172.16.2.0/24"));
    let mut refused = 0;
    for n in 0..400 {
        let request = one_more(0x1000 + n, &ts_i, &ts_r);
        let reply = peer.request(CREATE_CHILD_SA, &request).expect("answered");
        match reply.error() {
            None => assert_eq!(refused, 0),
            Some(error) => {
                assert_eq!(error, NotifyType::NO_ADDITIONAL_SAS);
                refused += 1;
            }
        }
    }
    assert_eq!(peer.up(), (1, 256));
    let delete = Payload::Delete(Delete::Esp(vec![EspSpi(0x1000)]));
    peer.request(INFORMATIONAL, &[delete]).expect("answered");
    let request = one_more(0x9000, &ts_i, &ts_r);
    let reply = peer.request(CREATE_CHILD_SA, &request).expect("answered");
    assert_eq!(reply.error(), None, "there is room again");
}

//= test rfc7296 2-1
#[test]
fn a_peer_gets_only_so_many_selectors() {
    let mut peer = established();
    let hosts = |network: &str| -> Vec<TrafficSelector> {
        let host = |n| format!("{network}.{n}").parse().expect("a selector");
        (0..255).step_by(2).map(host).collect()
    };
    let request = one_more(0x1000, &hosts("172.16.1"), &hosts("172.16.2"));
    let reply = peer.request(CREATE_CHILD_SA, &request).expect("answered");
    assert_eq!(reply.error(), None);
    let sas = &peer.pair.b.plane.inbound;
    let pairs = |sa: &InboundSa| sa.info.local_ts.len() * sa.info.remote_ts.len();
    assert_eq!(sas.values().map(pairs).max(), Some(16 * 16), "of 128 x 128");
}
