//! What has gone wrong in other IKE daemons with messages that are sound and out of place, or that
//! say odd things: named as in the list of it.

use obol_ike::crypto::ke::ke_public_len;
use obol_ike::crypto::prf::Prf;
use obol_ike::crypto::secret::Secret;
use obol_ike::error::{Dropped, IkeFailure};
use obol_ike::event::{Event, IkeSpi};
use obol_ike::keys::IkeKeys;
use obol_ike::proposal::{ChildExchange, Encr, IkeProposal, choose_ike};
use obol_ike::status::IkeAlgorithms;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::scripted::{Scripted, child_payloads};
use obol_ike::testing::setup::{ID_A, Setup};
use obol_ike::wire::{
    Delete, ExchangeType, Flags, Header, IntegId, KeMethod, Notify, NotifyType, Payload,
    PayloadType, PrfId, emit_chain, emit_message,
};

const AUTH: ExchangeType = ExchangeType::IKE_AUTH;
const CREATE_CHILD_SA: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

fn established() -> Scripted {
    Scripted::established(Setup::new(1))
}

#[test]
fn auth_missing_each_mandatory_payload() {
    let mandatory = [PayloadType::ID_I, PayloadType::AUTH];
    let of_child = [PayloadType::SA, PayloadType::TS_I, PayloadType::TS_R];
    let all = mandatory.iter().chain(&of_child);
    let chain = Scripted::begun(Setup::new(1)).auth_chain(ID_A, |_| {});
    for missing in all {
        let mut peer = Scripted::begun(Setup::new(1));
        let reply = peer.prove(ID_A, |payloads| {
            let before = payloads.len();
            payloads.retain(|payload| payload.ty() != *missing);
            assert_eq!(payloads.len(), before - 1, "{missing:?} was there");
        });
        let error = reply.expect("answered").error();
        let proven = of_child.contains(missing);
        assert!(error.is_some(), "{missing:?}");
        assert_eq!(
            peer.up(),
            (usize::from(proven), 0),
            "{missing:?}: {error:?}"
        );
        assert!(peer.pair.b.plane.inbound.is_empty());
    }
    assert!(!chain.1.is_empty());
    // Nor does a chain that says one of them is something else.
    for at in 0..5 {
        let mut peer = Scripted::begun(Setup::new(1));
        let (mut first, mut chain) = peer.auth_chain(ID_A, |_| {});
        let mut place = 0;
        for _ in 0..at {
            place += usize::from(u16::from_be_bytes([chain[place + 2], chain[place + 3]]));
        }
        match at {
            0 => first = PayloadType(200),
            _ => {
                let before = (0..at - 1).fold(0, |place, _| {
                    place + usize::from(u16::from_be_bytes([chain[place + 2], chain[place + 3]]))
                });
                chain[before] = 200;
            }
        }
        let reply = peer.request_octets(AUTH, first, &chain).expect("answered");
        assert!(reply.error().is_some(), "{at}");
        assert_eq!(peer.up().1, 0, "{at}");
    }
    let mut whole = child_payloads(ChildExchange::CreateChildSa(None));
    whole.insert(1, Payload::Nonce(&[9; 32]));
    for missing in 0..whole.len() {
        let mut peer = established();
        let mut payloads = whole.clone();
        let gone = payloads.remove(missing).ty();
        let reply = peer.request(CREATE_CHILD_SA, &payloads).expect("answered");
        assert!(reply.error().is_some(), "{gone:?}");
        assert!(peer.up().1 <= 1, "{gone:?}");
    }
}

#[test]
fn each_exchange_type_in_each_state() {
    let states: [fn() -> Scripted; 3] = [
        || Scripted::begun(Setup::new(1)),
        established,
        || {
            let mut peer = Scripted::begun(Setup::new(1));
            let refused = peer.prove("@nobody.example.com", |_| {});
            assert!(refused.is_ok());
            peer
        },
    ];
    for (state, make) in states.iter().enumerate() {
        let mut peer = make();
        for exchange in 0..=255 {
            let exchange = ExchangeType(exchange);
            for response in [false, true] {
                let flags = Flags {
                    initiator: true,
                    response,
                    ..Flags::default()
                };
                let spis = peer.pair.b.endpoint.status(peer.pair.now);
                let (spi_i, spi_r) = match spis.first() {
                    Some(sa) => (sa.spi_i, sa.spi_r),
                    None => (IkeSpi(1), IkeSpi(2)),
                };
                for id in [0, 1, 2, u32::MAX] {
                    let header = Header::new(spi_i, spi_r, exchange, flags, id);
                    let clear = emit_message(&header, &[Payload::Delete(Delete::Ike)]);
                    let before = peer.up();
                    assert!(
                        peer.give(&clear.expect("short")).is_err(),
                        "{state}, {exchange:?}"
                    );
                    assert_eq!(peer.up(), before, "{state}, {exchange:?}");
                }
            }
        }
        // Protected, what does not belong there is dropped before IKE_AUTH, and an error after it.
        for exchange in 0..=255 {
            let exchange = ExchangeType(exchange);
            let mut peer = make();
            let known = matches!(exchange, AUTH | CREATE_CHILD_SA | INFORMATIONAL);
            let outcome = peer.request(
                exchange,
                &[Payload::Notify(Notify::bare(NotifyType(40_000)))],
            );
            match (state, outcome) {
                (0, Err(reason)) => assert_eq!(reason, Dropped::OutOfPlace, "{exchange:?}"),
                (0, Ok(_)) => assert_eq!(exchange, AUTH),
                (1, Ok(reply)) => {
                    let fine = reply.error().is_none();
                    assert_eq!(fine, exchange == INFORMATIONAL, "{exchange:?} {known}");
                }
                (2, outcome) => assert!(outcome.is_err(), "{exchange:?}"),
                (state, outcome) => panic!("{state}, {exchange:?}: {outcome:?}"),
            }
        }
    }
}

#[test]
fn builder_never_fails_on_peer_supplied_values() {
    // Whatever is echoed, or answered about, the answer is a message that can be read.
    for ty in 0..=255 {
        let mut peer = established();
        let chain = [0, 0x80, 0, 4];
        let reply = peer.request_octets(INFORMATIONAL, PayloadType(ty), &chain);
        let _ = reply.expect("answered");
    }
    for protocol in [0, 1, 2, 3, 4, 5, 127, 128, 255_u8] {
        for size in [0, 1, 4, 8, 16, 255] {
            let mut peer = established();
            // Delete: protocol, SPI size, number of SPIs, SPIs.
            let spis = [vec![protocol, size, 0, 1], vec![7; usize::from(size)]].concat();
            let chain = with_header(&spis);
            let reply = peer.request_octets(INFORMATIONAL, PayloadType::DELETE, &chain);
            let _ = reply.expect("answered");
            // REKEY_SA, which names an SPI that CHILD_SA_NOT_FOUND repeats.
            let mut peer = established();
            let [high, low] = NotifyType::REKEY_SA.0.to_be_bytes();
            let notify = [vec![protocol, size, high, low], vec![7; usize::from(size)]].concat();
            let mut chain = with_header(&notify);
            let mut rest = Vec::new();
            let mut payloads = child_payloads(ChildExchange::CreateChildSa(None));
            payloads.insert(1, Payload::Nonce(&[9; 32]));
            let first = emit_chain(&payloads, &mut rest).expect("short");
            chain[0] = first.0;
            chain.extend(rest);
            let reply = peer.request_octets(CREATE_CHILD_SA, PayloadType::NOTIFY, &chain);
            let reply = reply.expect("answered");
            let not_found = reply.error() == Some(NotifyType::CHILD_SA_NOT_FOUND);
            assert!(not_found, "{protocol}, {size}: {:?}", reply.error());
            assert_eq!(peer.up(), (1, 1));
        }
    }
}

/// A payload that is the last.
fn with_header(body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len() + 4).expect("short");
    [&[0, 0], &len.to_be_bytes()[..], body].concat()
}

#[test]
fn ts_payload_mutations() {
    let (mut made, mut refused, mut ended) = (0, 0, 0);
    let allowed: obol_ike::ts::TrafficSelector = "172.16.1.0/24".parse().expect("sound");
    let mut judge = |mutate: &dyn Fn(&mut Vec<u8>)| {
        let mut peer = Scripted::begun(Setup::new(1));
        let (first, mut chain) = peer.auth_chain(ID_A, |_| {});
        mutate(&mut chain);
        let Ok(reply) = peer.request_octets(AUTH, first, &chain) else {
            return;
        };
        let status = peer.pair.b.endpoint.status(peer.pair.now);
        let children: Vec<_> = status.iter().flat_map(|sa| &sa.children).collect();
        for child in &children {
            for ts in &child.info.remote_ts {
                let inside = allowed.start <= ts.start && ts.end <= allowed.end;
                assert!(inside && ts.start <= ts.end, "{ts:?}");
            }
        }
        match (children.len(), status.len(), reply.error()) {
            (1, 1, None) => made += 1,
            // Proven, and without the child: what is wrong with that does not make the proof wrong.
            (0, 1, Some(NotifyType::TS_UNACCEPTABLE | NotifyType::INVALID_SYNTAX)) => refused += 1,
            (0, 0, Some(_)) => ended += 1,
            odd => panic!("{odd:?}"),
        }
    };
    let chain = Scripted::begun(Setup::new(1)).auth_chain(ID_A, |_| {}).1;
    // TSi and TSr are the last two payloads, of 24 octets each.
    let begin = chain.len() - 48;
    assert_eq!(chain[begin + 2..begin + 4], [0, 24]);
    for at in begin..chain.len() {
        for value in [0, 1, 7, 8, 9, 0x10, 0x7f, 0x80, 0xfe, 0xff] {
            judge(&|chain: &mut Vec<u8>| chain[at] = value);
        }
    }
    for cut in 1..=48 {
        judge(&|chain: &mut Vec<u8>| chain.truncate(chain.len() - cut));
    }
    for more in [1, 16, 1000] {
        judge(&|chain: &mut Vec<u8>| chain.extend(vec![0; more]));
    }
    // The number of selectors lies, in both directions.
    for count in 0..=255 {
        judge(&|chain: &mut Vec<u8>| chain[begin + 4] = count);
    }
    println!("{made} made, {refused} refused, {ended} ended the IKE SA");
    assert!(made > 20 && refused > 20 && ended > 20);
}

#[test]
fn unprotected_delete_is_inert() {
    let mut peer = established();
    let status = peer.pair.b.endpoint.status(peer.pair.now).remove(0);
    let child = status.children[0].info.clone();
    for initiator in [true, false] {
        for response in [true, false] {
            for id in 0..4 {
                for delete in [
                    Delete::Ike,
                    Delete::Esp(vec![child.spi_in]),
                    Delete::Esp(vec![child.spi_out]),
                ] {
                    let flags = Flags {
                        initiator,
                        response,
                        version: false,
                    };
                    let header = Header::new(status.spi_i, status.spi_r, INFORMATIONAL, flags, id);
                    let datagram = emit_message(&header, &[Payload::Delete(delete)]);
                    let sent = peer.pair.net.sent.len();
                    assert!(peer.give(&datagram.expect("short")).is_err());
                    assert_eq!(peer.pair.net.sent.len(), sent, "not even answered");
                    assert_eq!(peer.up(), (1, 1));
                }
            }
        }
    }
    let alive = peer.request(INFORMATIONAL, &[]).expect("answered");
    assert!(alive.payloads.is_empty());
}

/// What the first host said after the second one's IKE_AUTH answer.
fn said_after_auth(pair: &Pair) -> Vec<ExchangeType> {
    let mut sent = pair.net.sent.iter();
    let answer = |datagram: &[u8]| datagram[18] == AUTH.0 && datagram[19] & 0x20 != 0;
    let _ = sent.find(|packet| answer(&packet.datagram));
    let from_a = sent.filter(|packet| packet.from.ip() == pair.a.address);
    from_a
        .map(|packet| ExchangeType(packet.datagram[18]))
        .collect()
}

#[test]
fn initiator_checks_idr_and_cert_before_revealing_anything_more() {
    // The responder proves to be somebody, by the same secret, who is not the one we want.
    let mut setup = Setup::started(1);
    setup.connection.peer.unique = obol_ike::config::Unique::No;
    let honest = setup.clone().pair(1);
    let mut other = setup.clone();
    other.connection.remote.id = "@another.example.com".parse().ok();
    let mut pair = setup.pair(1);
    pair.b = other.pair(1).b;
    pair.b.secrets = honest.b.secrets.clone();
    pair.b.secrets.push((
        ID_A.parse().expect("an identity"),
        "@another.example.com".parse().expect("an identity"),
        b"a secret for tests".to_vec(),
    ));
    pair.start();
    pair.run_for(std::time::Duration::from_millis(1500));
    let unproven = |e: &Event| {
        let Event::IkeFailed { reason, .. } = e else {
            return false;
        };
        matches!(
            reason,
            IkeFailure::PeerNotProven { .. } | IkeFailure::WeAreNotProven { .. }
        )
    };
    assert_eq!(pair.a.count(unproven), 1, "{:?}", pair.a.events);
    let said = said_after_auth(&pair);
    assert!(
        said.iter().all(|exchange| *exchange == INFORMATIONAL),
        "{said:?}"
    );
    assert!(pair.a.plane.inbound.is_empty() && pair.a.plane.outbound.is_empty());
    assert_eq!(pair.a.count(|e| matches!(e, Event::IkeUp { .. })), 0);
}

#[test]
fn missing_local_secret_fails_at_config_check_and_at_runtime_cleans_up() {
    // The check of a configuration is a test of the daemon; this is a secret that is gone later.
    for end in [End::A, End::B] {
        let mut pair = Setup::started(1).pair(1);
        pair.node(end).secrets.clear();
        pair.start();
        pair.run_for(std::time::Duration::from_secs(3));
        let failed = |e: &Event| matches!(e, Event::IkeFailed { .. });
        assert!(pair.node(end).count(failed) > 0);
        let credentials = |e: &Event| {
            let Event::IkeFailed { reason, .. } = e else {
                return false;
            };
            matches!(reason, IkeFailure::Credentials(why) if why.contains("secret"))
        };
        assert!(pair.node(end).count(credentials) > 0, "it says which");
        for node in [&pair.a, &pair.b] {
            assert!(node.plane.inbound.is_empty());
        }
        // With the secret, it comes up by itself; nothing of before is in the way.
        let secret = Setup::started(1).pair(1);
        pair.node(end).secrets = match end {
            End::A => secret.a.secrets.clone(),
            End::B => secret.b.secrets.clone(),
        };
        pair.run_for(std::time::Duration::from_secs(120));
        pair.run_until_idle();
        pair.assert_up(1);
    }
}

/// Every suite that the configuration can name.
fn suites() -> Vec<IkeAlgorithms> {
    let words = [
        "default",
        "aes128-sha256-modp2048",
        "aes256-sha512-modp4096",
        "aes192-sha384-ecp521",
    ];
    let named = words
        .iter()
        .flat_map(|text| IkeProposal::parse(text).expect("sound"));
    let mut all = Vec::new();
    for proposal in IkeProposal::defaults().into_iter().chain(named) {
        let integs = match proposal.integ.len() {
            0 => vec![IntegId::NONE],
            _ => proposal.integ.clone(),
        };
        for encr in &proposal.encr {
            for integ in &integs {
                for prf in &proposal.prf {
                    all.extend(proposal.ke.iter().map(|ke| IkeAlgorithms {
                        encr: *encr,
                        integ: *integ,
                        prf: *prf,
                        ke: *ke,
                    }));
                }
            }
        }
    }
    all
}

#[test]
fn keymat_lengths_total_function() {
    let derive = |alg: &IkeAlgorithms| {
        let shared = Secret::new(vec![7; 32]);
        IkeKeys::derive(alg, &[1; 32], &[2; 32], &shared, IkeSpi(1), IkeSpi(2))
    };
    for alg in suites() {
        let keys = derive(&alg).unwrap_or_else(|_| panic!("{alg:?}"));
        assert!(keys.ciphers().is_ok(), "{alg:?}");
        let salt = if alg.encr.is_aead() { 4 } else { 0 };
        let len = usize::from(alg.encr.key_bits) / 8 + salt;
        assert_eq!(keys.sk_ei.expose().len(), len, "{alg:?}");
        assert_eq!(
            keys.sk_ai.expose().is_empty(),
            alg.encr.is_aead(),
            "{alg:?}"
        );
        assert!(!keys.sk_d.expose().is_empty() && !keys.sk_pi.expose().is_empty());
    }
    // What has no length is refused, and never becomes a key of none.
    for encr in 0..64 {
        for key_bits in [0, 64, 128, 192, 256, u16::MAX] {
            for integ in 0..20 {
                let alg = IkeAlgorithms {
                    encr: Encr {
                        id: obol_ike::wire::EncrId(encr),
                        key_bits,
                    },
                    integ: IntegId(integ),
                    prf: PrfId::HMAC_SHA2_256,
                    ke: KeMethod::CURVE25519,
                };
                if let Ok(keys) = derive(&alg)
                    && keys.ciphers().is_ok()
                {
                    assert!(keys.sk_ei.expose().len() >= 16, "{alg:?}");
                    let integrity = !keys.sk_ai.expose().is_empty();
                    assert!(integrity || alg.encr.is_aead(), "{alg:?}");
                }
            }
        }
    }
}

#[test]
fn proposal_only_offers_and_accepts_what_the_backend_has() {
    for alg in suites() {
        assert!(Prf::new(alg.prf).is_some(), "{alg:?}");
        assert!(ke_public_len(alg.ke).is_some(), "{alg:?}");
    }
    // Every number that is not one of ours is refused in an offer, alone and beside others.
    let ours = IkeProposal::defaults();
    let offer = IkeProposal::to_wire(&ours[..1], &[]);
    assert!(choose_ike(&offer, &ours, None).is_some(), "the control");
    let types: Vec<_> = offer[0].transforms.iter().map(|t| t.ty).collect();
    let types: std::collections::BTreeSet<_> = types.into_iter().collect();
    for ty in types {
        for id in 0..=2000_u16 {
            let mut changed = offer.clone();
            let transforms = &mut changed[0].transforms;
            let mut one = transforms
                .iter()
                .find(|t| t.ty == ty)
                .cloned()
                .expect("there");
            one.id = id;
            transforms.retain(|t| t.ty != ty);
            transforms.push(one);
            if let Some(chosen) = choose_ike(&changed, &ours, None) {
                let alg = chosen.alg;
                let shared = Secret::new(vec![7; 32]);
                let spis = (IkeSpi(1), IkeSpi(2));
                let keys = IkeKeys::derive(&alg, &[1; 32], &[2; 32], &shared, spis.0, spis.1);
                assert!(keys.is_ok_and(|keys| keys.ciphers().is_ok()), "{alg:?}");
                assert!(ke_public_len(alg.ke).is_some(), "{alg:?}");
            }
        }
    }
}
