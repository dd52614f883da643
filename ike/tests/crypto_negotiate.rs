//! Negotiation: what is chosen of an offer, and the check of an answer; a row per case.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use obol_ike::event::EspSpi;
use obol_ike::proposal::{
    BadAnswer, ChildExchange, Encr, EspProposal, IkeProposal, check_esp_answer, check_ike_answer,
    choose_esp, choose_ike,
};
use obol_ike::wire::{EncrId, IntegId, KeMethod, PrfId, Proposal, Transform, TransformType};

/// Makes another proposal of one.
type Change<'a> = &'a dyn Fn(&mut Proposal);

const CREATE: ChildExchange = ChildExchange::CreateChildSa(None);

fn ike(texts: &[&str]) -> Vec<IkeProposal> {
    texts
        .iter()
        .flat_map(|text| IkeProposal::parse(text).unwrap())
        .collect()
}

fn esp(texts: &[&str]) -> Vec<EspProposal> {
    texts
        .iter()
        .flat_map(|text| EspProposal::parse(text).unwrap())
        .collect()
}

fn ike_offer(texts: &[&str]) -> Vec<Proposal> {
    IkeProposal::to_wire(&ike(texts), &[])
}

fn esp_offer(texts: &[&str], exchange: ChildExchange) -> Vec<Proposal> {
    EspProposal::to_wire(&esp(texts), EspSpi(0x1234_5678), exchange)
}

/// Offers shaped like the defaults of these peers: CBC first, AEAD and CBC apart, several
/// groups with ours not first. Not captured; their real ones are tested against the peers.
#[test]
fn offers_shaped_like_other_implementations_are_accepted() {
    let cbc = "aes128-aes192-aes256-sha256-sha384-sha512-prfsha256-prfsha384-prfsha512";
    let groups = "ecp256-ecp384-ecp521-x25519-modp3072-modp4096-modp2048";
    let strongswan = [
        &format!("{cbc}-{groups}")[..],
        &format!("aes128gcm16-aes256gcm16-chacha20poly1305-prfsha256-prfsha384-{groups}"),
    ];
    let libreswan = [
        "aes256gcm16-prfsha512-prfsha256-modp2048-modp3072-modp4096-ecp256-ecp384-ecp521-x25519",
        "chacha20poly1305-prfsha512-prfsha256-modp2048-ecp256-x25519",
        "aes256-sha512-sha256-prfsha512-prfsha256-modp2048-ecp256-x25519",
    ];
    let openiked = [
        "aes128gcm16-aes256gcm16-prfsha256-prfsha384-x25519-ecp521-ecp384-ecp256-modp4096",
        "aes256-aes192-aes128-sha256-sha384-sha512-prfsha256-prfsha384-x25519-modp2048",
    ];
    for (peer, offer) in [
        ("strongSwan", &strongswan[..]),
        ("Libreswan", &libreswan),
        ("OpenIKED", &openiked),
    ] {
        let chosen = choose_ike(&ike_offer(offer), &IkeProposal::defaults(), None);
        let alg = chosen.expect(peer).alg;
        assert_eq!(alg.encr, Encr::AES256_GCM16, "{peer}");
        assert_eq!(alg.ke, KeMethod::CURVE25519, "{peer}");
    }
    let child = esp_offer(&["aes128gcm16-aes256gcm16", "aes128-aes256-sha256"], CREATE);
    let chosen = choose_esp(&child, &EspProposal::defaults(), CREATE).unwrap();
    assert_eq!(
        (chosen.encr, chosen.ke, chosen.esn),
        (Encr::AES256_GCM16, None, false)
    );
}

//= test rfc7296 2.7-1 3.3.4-5 3.3.4-6
#[test]
fn which_ike_proposal_is_chosen() {
    let x25519 = Some(KeMethod::CURVE25519);
    let modp = Some(KeMethod::MODP_2048);
    for (name, offered, configured, prefer, expected) in [
        (
            "the same",
            &["aes256gcm16-prfsha384-x25519"][..],
            &["aes256gcm16-prfsha384-x25519"][..],
            None,
            Some((1, "aes256gcm16 prfsha384 x25519")),
        ),
        (
            "our order of algorithms",
            &["aes128gcm16-aes256gcm16-prfsha256-prfsha384-modp2048-x25519"],
            &["aes256gcm16-aes128gcm16-prfsha384-prfsha256-x25519-modp2048"],
            None,
            Some((1, "aes256gcm16 prfsha384 x25519")),
        ),
        (
            "the KE payload that came",
            &["aes256gcm16-prfsha256-x25519-modp2048"],
            &["aes256gcm16-prfsha256-x25519-modp2048"],
            modp,
            Some((1, "aes256gcm16 prfsha256 modp2048")),
        ),
        (
            "but not one we did not configure",
            &["aes256gcm16-prfsha256-x25519-modp2048"],
            &["aes256gcm16-prfsha256-x25519"],
            modp,
            Some((1, "aes256gcm16 prfsha256 x25519")),
        ),
        (
            "nor one that was not offered",
            &["aes256gcm16-prfsha256-modp2048"],
            &["aes256gcm16-prfsha256-x25519-modp2048"],
            x25519,
            Some((1, "aes256gcm16 prfsha256 modp2048")),
        ),
        (
            "our order of proposals",
            &["aes128-sha256-x25519", "aes256gcm16-prfsha256-x25519"],
            &["aes256gcm16-prfsha256-x25519", "aes128-sha256-x25519"],
            None,
            Some((2, "aes256gcm16 prfsha256 x25519")),
        ),
        (
            "integrity with CBC",
            &["aes256-sha256-sha512-prfsha256-ecp384"],
            &["aes128-aes256-sha512-prfsha256-ecp384"],
            None,
            Some((1, "aes256 sha512 prfsha256 ecp384")),
        ),
        (
            "another key length",
            &["aes128gcm16-prfsha256-x25519"],
            &["aes256gcm16-prfsha256-x25519"],
            None,
            None,
        ),
        (
            "another PRF",
            &["aes256gcm16-prfsha256-x25519"],
            &["aes256gcm16-prfsha384-x25519"],
            None,
            None,
        ),
        (
            "another integrity algorithm",
            &["aes256-sha256-prfsha256-x25519"],
            &["aes256-sha512-prfsha256-x25519"],
            None,
            None,
        ),
        (
            "another group",
            &["aes256gcm16-prfsha256-x25519"],
            &["aes256gcm16-prfsha256-ecp256"],
            x25519,
            None,
        ),
    ] {
        let chosen = choose_ike(&ike_offer(offered), &ike(configured), prefer);
        let found = chosen.map(|chosen| {
            let alg = chosen.alg;
            let proposal = IkeProposal {
                encr: vec![alg.encr],
                integ: vec![alg.integ],
                prf: vec![alg.prf],
                ke: vec![alg.ke],
            };
            let words = proposal.to_string().replace('-', " ").replace(" NONE", "");
            (chosen.num, words)
        });
        let expected = expected.map(|(num, words)| (num, words.to_string()));
        assert_eq!(found, expected, "{name}");
    }
}

fn transform(ty: TransformType, id: u16, key_bits: Option<u16>) -> Transform {
    Transform::new(ty, id, key_bits)
}

/// An offer of `aes256gcm16-prfsha256-x25519`, changed on the wire.
fn changed(change: impl FnOnce(&mut Proposal)) -> Vec<Proposal> {
    let mut offer = ike_offer(&["aes256gcm16-prfsha256-x25519"]);
    change(&mut offer[0]);
    offer
}

//= test rfc7296 2.7-2 2.7-4 3.3.3-1 3.3-5 3.3.5-5 3.3.6-4 3.3.6-6 3.3.6-7
#[test]
fn oddities_of_offers() {
    let chacha =
        |key_bits| changed(|p| p.transforms[0] = transform(TransformType::ENCR, 28, key_bits));
    let triple_des =
        |key_bits| changed(|p| p.transforms[0] = transform(TransformType::ENCR, 3, key_bits));
    for (name, offer, accepted) in [
        ("unchanged", changed(|_| {}), true),
        (
            "INTEG NONE beside an AEAD",
            changed(|p| p.transforms.push(transform(TransformType::INTEG, 0, None))),
            true,
        ),
        (
            "INTEG NONE or SHA-256 beside an AEAD",
            changed(|p| {
                p.transforms.push(transform(TransformType::INTEG, 12, None));
                p.transforms.push(transform(TransformType::INTEG, 0, None));
            }),
            true,
        ),
        (
            "SHA-256 only beside an AEAD",
            changed(|p| p.transforms.push(transform(TransformType::INTEG, 12, None))),
            false,
        ),
        (
            "an unknown transform type",
            changed(|p| p.transforms.push(transform(TransformType(6), 35, None))),
            false,
        ),
        (
            "ESN in an IKE proposal",
            changed(|p| p.transforms.push(transform(TransformType::ESN, 0, None))),
            false,
        ),
        (
            "unknown algorithms beside known ones",
            changed(|p| {
                p.transforms
                    .insert(0, transform(TransformType::ENCR, 1024, Some(256)));
                p.transforms
                    .insert(0, transform(TransformType::KE, 65000, None));
            }),
            true,
        ),
        (
            "an unknown attribute",
            changed(|p| p.transforms[0].unknown_attributes = true),
            false,
        ),
        (
            "a key length with the PRF",
            changed(|p| p.transforms[1].key_bits = Some(256)),
            false,
        ),
        (
            "AES-GCM without key length",
            changed(|p| p.transforms[0].key_bits = None),
            false,
        ),
        (
            "no KE",
            changed(|p| p.transforms.retain(|t| t.ty != TransformType::KE)),
            false,
        ),
        (
            "no PRF",
            changed(|p| p.transforms.retain(|t| t.ty != TransformType::PRF)),
            false,
        ),
        ("no transforms", changed(|p| p.transforms.clear()), false),
        (
            "another protocol",
            changed(|p| p.protocol = obol_ike::wire::ProtocolId::ESP),
            false,
        ),
        ("ChaCha20 without key length", chacha(None), true),
        (
            "ChaCha20 with the superfluous key length",
            chacha(Some(256)),
            true,
        ),
        ("ChaCha20 with another key length", chacha(Some(128)), false),
        ("3DES that nobody has allowed", triple_des(None), false),
        ("no proposal at all", Vec::new(), false),
    ] {
        let configured = ike(&["aes256gcm16-chacha20poly1305-prfsha256-x25519"]);
        let chosen = choose_ike(&offer, &configured, None);
        assert_eq!(chosen.is_some(), accepted, "{name}");
        // What we answer is what was offered, to the letter.
        if let Some(chosen) = chosen {
            let answer = chosen.answer(&[]);
            for transform in &answer.transforms {
                assert!(offer[0].transforms.contains(transform), "{name}");
            }
        }
    }
}

//= test rfc7296 2.7-1 3.3.4-6
//= test rfc4303 2.2.1-2
#[test]
fn which_esp_proposal_is_chosen() {
    let with = |ke| ChildExchange::CreateChildSa(Some(ke));
    let auth = ChildExchange::IkeAuth;
    let (x, e) = (KeMethod::CURVE25519, KeMethod::ECP_256);
    for (name, offered, configured, exchange, expected) in [
        (
            "IKE_AUTH leaves KE out",
            &["aes256gcm16-x25519"][..],
            &["aes256gcm16-ecp256"][..],
            auth,
            Some((1, None, false)),
        ),
        (
            "PFS",
            &["aes256gcm16-x25519"],
            &["aes256gcm16-x25519"],
            CREATE,
            Some((1, Some(x), false)),
        ),
        (
            "the KE payload that came",
            &["aes256gcm16-x25519-ecp256"],
            &["aes256gcm16-x25519-ecp256"],
            with(e),
            Some((1, Some(e), false)),
        ),
        (
            "another group",
            &["aes256gcm16-x25519"],
            &["aes256gcm16-ecp256"],
            CREATE,
            None,
        ),
        (
            "PFS wanted, none offered",
            &["aes256gcm16"],
            &["aes256gcm16-x25519"],
            CREATE,
            None,
        ),
        (
            "PFS offered, none wanted",
            &["aes256gcm16-x25519"],
            &["aes256gcm16"],
            CREATE,
            None,
        ),
        (
            "either will do, none offered",
            &["aes256gcm16"],
            &["aes256gcm16-x25519", "aes256gcm16"],
            CREATE,
            Some((1, None, false)),
        ),
        (
            "PFS before none",
            &["aes256gcm16", "aes256gcm16-x25519"],
            &["aes256gcm16-x25519", "aes256gcm16"],
            CREATE,
            Some((2, Some(x), false)),
        ),
        (
            "ESN by our order",
            &["aes256gcm16-noesn-esn"],
            &["aes256gcm16-esn-noesn"],
            auth,
            Some((1, None, true)),
        ),
        (
            "no ESN by our order",
            &["aes256gcm16-esn-noesn"],
            &["aes256gcm16-noesn-esn"],
            auth,
            Some((1, None, false)),
        ),
        (
            "ESN only here",
            &["aes256gcm16-noesn"],
            &["aes256gcm16-esn"],
            auth,
            None,
        ),
        (
            "ESN only there",
            &["aes256gcm16-esn"],
            &["aes256gcm16-noesn"],
            auth,
            None,
        ),
        (
            "CBC without common integrity",
            &["aes128-sha256"],
            &["aes128-sha512"],
            auth,
            None,
        ),
    ] {
        let offer = esp_offer(offered, CREATE);
        let chosen = choose_esp(&offer, &esp(configured), exchange);
        let found = chosen.map(|chosen| {
            assert_eq!(chosen.spi, EspSpi(0x1234_5678), "{name}");
            (chosen.num, chosen.ke, chosen.esn)
        });
        assert_eq!(found, expected, "{name}");
    }
}

//= test rfc7296 2.7-4 3.3.3-1 3.3.6-6
#[test]
fn oddities_of_esp_offers() {
    let configured = esp(&["aes256gcm16-esn-noesn"]);
    let choose = |change: &dyn Fn(&mut Proposal)| {
        let mut offer = esp_offer(&["aes256gcm16-noesn"], ChildExchange::IkeAuth);
        change(&mut offer[0]);
        choose_esp(&offer, &configured, CREATE)
    };
    let no_esn = choose(&|p| p.transforms.retain(|t| t.ty != TransformType::ESN)).unwrap();
    assert!(!no_esn.esn);
    assert_eq!(no_esn.answer(EspSpi(999)).transforms.len(), 1);
    let ke_none = choose(&|p| p.transforms.push(transform(TransformType::KE, 0, None))).unwrap();
    assert_eq!(ke_none.ke, None);
    assert_eq!(ke_none.answer(EspSpi(999)).transforms.len(), 3);
    assert_eq!(
        choose(&|p| p.spi = vec![0, 0, 0, 255]),
        None,
        "a reserved SPI"
    );
    assert_eq!(choose(&|p| p.spi = vec![1; 8]), None, "an SPI of IKE");
    let prf = choose(&|p| p.transforms.push(transform(TransformType::PRF, 5, None)));
    assert_eq!(prf, None, "a PRF in ESP");
}

//= test rfc7296 3.3-3 3.3-4
#[test]
fn in_ike_auth_proposals_that_differ_in_pfs_only_go_once() {
    let defaults = EspProposal::defaults();
    let spi = EspSpi(256);
    assert_eq!(
        EspProposal::to_wire(&defaults, spi, ChildExchange::IkeAuth).len(),
        2
    );
    let create = EspProposal::to_wire(&defaults, spi, CREATE);
    let nums: Vec<u8> = create.iter().map(|proposal| proposal.num).collect();
    assert_eq!(nums, [1, 2, 3, 4]);
    assert_eq!(create[0].spi, [0, 0, 1, 0]);
}

//= test rfc7296 3.3.1-3 3.3.6-5
#[test]
fn answers_to_our_ike_offer() {
    let sent = ike_offer(&[
        "aes256gcm16-prfsha256-prfsha384-x25519-ecp256",
        "aes128-sha256-ecp256",
    ]);
    let good = choose_ike(&sent, &IkeProposal::defaults(), Some(KeMethod::ECP_256)).unwrap();
    let answer = good.answer(&[]);
    let with = |change: &dyn Fn(&mut Proposal)| {
        let mut answer = answer.clone();
        change(&mut answer);
        check_ike_answer(&sent, &[answer])
    };
    assert_eq!(with(&|_| {}), Ok(good.clone()));
    assert!(with(&|p| p.transforms.reverse()).is_ok());
    assert!(with(&|p| p.transforms.push(transform(TransformType::INTEG, 0, None))).is_ok());
    let bad: [(&str, Change<'_>); 8] = [
        ("another number", &|p| p.num = 3),
        ("the number of the other proposal", &|p| p.num = 2),
        ("two of a type", &|p| {
            p.transforms.push(transform(TransformType::KE, 31, None))
        }),
        ("a type missing", &|p| {
            p.transforms.retain(|t| t.ty != TransformType::KE)
        }),
        ("a group that was not offered", &|p| {
            p.transforms.retain(|t| t.ty != TransformType::KE);
            p.transforms.push(transform(TransformType::KE, 14, None));
        }),
        ("a key length that was not offered", &|p| {
            p.transforms[0].key_bits = Some(128)
        }),
        ("a type that was not offered", &|p| {
            p.transforms.push(transform(TransformType::ESN, 0, None));
        }),
        ("integrity beside an AEAD", &|p| {
            p.transforms.push(transform(TransformType::INTEG, 12, None));
        }),
    ];
    for (name, change) in bad {
        assert_eq!(with(change), Err(BadAnswer), "{name}");
    }
    assert_eq!(check_ike_answer(&sent, &[]), Err(BadAnswer));
    assert_eq!(
        check_ike_answer(&sent, &[answer.clone(), answer]),
        Err(BadAnswer)
    );
}

//= test rfc7296 3.3.6-5
#[test]
fn answers_to_our_esp_offer() {
    let sent = esp_offer(
        &["aes256gcm16-x25519-esn-noesn", "aes256gcm16-esn-noesn"],
        CREATE,
    );
    let theirs = EspSpi(0x8000_0001);
    for (configured, ke) in [
        ("aes256gcm16-x25519-esn", Some(KeMethod::CURVE25519)),
        ("aes256gcm16-esn", None),
    ] {
        let chosen = choose_esp(&sent, &esp(&[configured]), CREATE).unwrap();
        let checked = check_esp_answer(&sent, &[chosen.answer(theirs)]).unwrap();
        assert_eq!((checked.spi, checked.ke, checked.esn), (theirs, ke, true));
        assert_eq!(checked.encr, Encr::AES256_GCM16);
        assert_eq!(checked.integ, IntegId::NONE);
        // A KE transform that does not belong to the proposal, or is missing in it.
        let mut wrong = chosen.answer(theirs);
        wrong.num = 3 - wrong.num;
        assert_eq!(check_esp_answer(&sent, &[wrong]), Err(BadAnswer));
        let mut reserved = chosen.answer(theirs);
        reserved.spi = vec![0; 4];
        assert_eq!(check_esp_answer(&sent, &[reserved]), Err(BadAnswer));
    }
}

//= test rfc7296 1.2-6 2.13-1 3.3-1 3.3-5 3.3.5-4 3.3.5-5
#[test]
fn the_wire_has_the_registered_numbers() {
    let offer = ike_offer(&[
        "chacha20poly1305-prfsha512-modp4096",
        "aes192-sha384-ecp521",
    ]);
    let listed: Vec<Vec<_>> = offer
        .iter()
        .map(|proposal| {
            let transforms = proposal.transforms.iter();
            transforms.map(|t| (t.ty.0, t.id, t.key_bits)).collect()
        })
        .collect();
    let aes = (1, EncrId::AES_CBC.0, Some(192));
    assert_eq!(
        listed,
        [
            vec![
                (1, 28, None),
                (2, PrfId::HMAC_SHA2_512.0, None),
                (4, 16, None)
            ],
            vec![aes, (2, 6, None), (3, 13, None), (4, 21, None)],
        ]
    );
}
