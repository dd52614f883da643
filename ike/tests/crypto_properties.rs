//! Laws of negotiation, and that nothing a peer or a file says makes the readers panic.

use obol_ike::auth::{InitiatorSignedOctets, Proof, SignatureOptions, verify_signature};
use obol_ike::crypto::keyfile::{parse_private, parse_public};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::secret::Secret;
use obol_ike::crypto::signature::SignatureScheme;
use obol_ike::event::{EspSpi, IkeSpi};
use obol_ike::keys::IkeKeys;
use obol_ike::proposal::{
    ChildExchange, EspProposal, IkeProposal, check_esp_answer, check_ike_answer, choose_esp,
    choose_ike,
};
use obol_ike::wire::{AuthMethod, KeMethod, Proposal, ProtocolId, Transform, TransformType};
use proptest::prelude::*;
use proptest::sample::subsequence;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// Some of the algorithms of `whole`, in any order, at least one of each type.
fn ike_part(whole: IkeProposal) -> impl Strategy<Value = IkeProposal> {
    let some_integ = usize::from(!whole.integ.is_empty());
    let integ_len = whole.integ.len();
    (
        subsequence(whole.encr, 1..=3).prop_shuffle(),
        subsequence(whole.integ, some_integ..=integ_len).prop_shuffle(),
        subsequence(whole.prf, 1..=3).prop_shuffle(),
        subsequence(whole.ke, 1..=7).prop_shuffle(),
    )
        .prop_map(|(encr, integ, prf, ke)| IkeProposal {
            encr,
            integ,
            prf,
            ke,
        })
}

fn ike_proposals() -> impl Strategy<Value = Vec<IkeProposal>> {
    let [aead, cbc] = <[_; 2]>::try_from(IkeProposal::defaults()).expect("AEAD and CBC");
    prop::collection::vec(prop_oneof![ike_part(aead), ike_part(cbc)], 1..4)
}

fn esp_proposals() -> impl Strategy<Value = Vec<EspProposal>> {
    let esn = subsequence(vec![true, false], 1..=2).prop_shuffle();
    let part = (ike_proposals(), any::<bool>(), esn);
    prop::collection::vec(part, 1..3).prop_map(|parts| {
        let parts = parts.into_iter().flat_map(|(proposals, pfs, esn)| {
            proposals.into_iter().map(move |ike| EspProposal {
                encr: ike.encr,
                integ: ike.integ,
                ke: if pfs { ike.ke } else { Vec::new() },
                esn: esn.clone(),
            })
        });
        parts.collect()
    })
}

/// Transforms of all types, known and unknown numbers.
fn any_transform() -> impl Strategy<Value = Transform> {
    let bits = prop_oneof![
        Just(None),
        Just(Some(128)),
        Just(Some(256)),
        any::<Option<u16>>()
    ];
    (0u8..8, 0u16..36, bits, prop::bool::weighted(0.1)).prop_map(|(ty, id, bits, unknown)| {
        let mut transform = Transform::new(TransformType(ty), id, bits);
        transform.unknown_attributes = unknown;
        transform
    })
}

fn any_proposals() -> impl Strategy<Value = Vec<Proposal>> {
    let proposal = (
        any::<u8>(),
        0u8..5,
        prop::collection::vec(any::<u8>(), 0..9),
        prop::collection::vec(any_transform(), 0..12),
    );
    let proposal = proposal.prop_map(|(num, protocol, spi, transforms)| Proposal {
        num,
        protocol: ProtocolId(protocol),
        spi,
        transforms,
    });
    prop::collection::vec(proposal, 0..5)
}

const SPI: EspSpi = EspSpi(0xaabb_ccdd);

proptest! {
    //= test security S-15
    /// What the responder chooses, the initiator accepts, and both have the same algorithms,
    /// which both configured.
    #[test]
    fn ike_sides_agree(ours in ike_proposals(), theirs in ike_proposals(), ke in 14u16..32) {
        let offer = IkeProposal::to_wire(&theirs, &[]);
        let has = |list: &[IkeProposal], alg: &obol_ike::status::IkeAlgorithms| {
            list.iter().any(|p| {
                p.encr.contains(&alg.encr) && p.prf.contains(&alg.prf) && p.ke.contains(&alg.ke)
                    && (p.integ.contains(&alg.integ) || p.integ.is_empty() && alg.encr.is_aead())
            })
        };
        if let Some(chosen) = choose_ike(&offer, &ours, Some(KeMethod(ke))) {
            let checked = check_ike_answer(&offer, &[chosen.answer(&[])]);
            prop_assert_eq!(checked.map(|checked| checked.alg), Ok(chosen.alg));
            prop_assert!(has(&ours, &chosen.alg) && has(&theirs, &chosen.alg));
        }
        // Nobody refuses himself.
        prop_assert!(choose_ike(&offer, &theirs, None).is_some());
    }

    #[test]
    fn esp_sides_agree(ours in esp_proposals(), theirs in esp_proposals(), auth in any::<bool>()) {
        let exchange = if auth {
            ChildExchange::IkeAuth
        } else {
            ChildExchange::CreateChildSa(None)
        };
        let offer = EspProposal::to_wire(&theirs, SPI, exchange);
        if let Some(chosen) = choose_esp(&offer, &ours, exchange) {
            let checked = check_esp_answer(&offer, &[chosen.answer(SPI)]).expect("our own choice");
            prop_assert_eq!(
                (checked.encr, checked.integ, checked.ke, checked.esn),
                (chosen.encr, chosen.integ, chosen.ke, chosen.esn)
            );
            prop_assert!(ours.iter().any(|p| p.encr.contains(&chosen.encr)
                && p.esn.contains(&chosen.esn)
                && (auth || chosen.ke.map_or(p.ke.is_empty(), |ke| p.ke.contains(&ke)))));
        }
        prop_assert!(choose_esp(&offer, &theirs, exchange).is_some());
    }

    //= test security S-15
    /// Whatever a peer offers or answers: nothing that was not offered is chosen, and no type
    /// twice.
    #[test]
    fn strange_offers_are_answered_from_within(offer in any_proposals()) {
        let ike = choose_ike(&offer, &IkeProposal::defaults(), None);
        let esp = choose_esp(&offer, &EspProposal::defaults(), ChildExchange::IkeAuth);
        let answers = [ike.map(|c| c.answer(&[])), esp.map(|c| c.answer(SPI))];
        for answer in answers.into_iter().flatten() {
            let of = offer.iter().filter(|p| p.num == answer.num && p.protocol == answer.protocol);
            prop_assert!(of.clone().any(|p| answer.transforms.iter().all(|t| p.transforms.contains(t))));
            let mut types: Vec<_> = answer.transforms.iter().map(|t| t.ty).collect();
            types.sort();
            types.dedup();
            prop_assert_eq!(types.len(), answer.transforms.len());
        }
    }

    #[test]
    fn strange_answers_are_refused_or_ours(answer in any_proposals()) {
        let sent = IkeProposal::to_wire(&IkeProposal::defaults(), &[]);
        if let Ok(chosen) = check_ike_answer(&sent, &answer) {
            prop_assert!(choose_ike(&sent, &IkeProposal::defaults(), Some(chosen.alg.ke)).is_some());
        }
        let sent = EspProposal::to_wire(&EspProposal::defaults(), SPI, ChildExchange::IkeAuth);
        if let Ok(chosen) = check_esp_answer(&sent, &answer) {
            prop_assert!(chosen.ke.is_none() && chosen.spi.0 >= 256);
        }
    }

    #[test]
    fn no_text_makes_the_readers_panic(octets in prop::collection::vec(any::<u8>(), 0..300), text in ".*") {
        let _ = (parse_public(&octets), parse_private(&octets));
        let _ = (parse_public(text.as_bytes()), parse_private(text.as_bytes()));
        let _ = (IkeProposal::parse(&text), EspProposal::parse(&text));
        for prefix in ["0x", "0s", "ssh-rsa ", "ssh-ed25519 AAAA", "-----BEGIN PRIVATE KEY-----\n"] {
            let _ = parse_public(format!("{prefix}{text}").as_bytes());
            let _ = parse_private(format!("{prefix}{text}").as_bytes());
        }
    }

    #[test]
    fn no_auth_data_verifies_or_panics(method in 0u8..16, data in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let key = PrivateKey::generate_ed25519(&mut rng).public();
        let alg = obol_ike::status::IkeAlgorithms {
            encr: obol_ike::proposal::Encr::AES128_GCM16,
            integ: obol_ike::wire::IntegId::NONE,
            prf: obol_ike::wire::PrfId::HMAC_SHA2_256,
            ke: KeMethod::CURVE25519,
        };
        let shared = Secret::new(vec![1; 32]);
        let keys = IkeKeys::derive(&alg, &[1; 32], &[2; 32], &shared, IkeSpi(1), IkeSpi(2))
            .expect("implemented");
        let octets = InitiatorSignedOctets::new(b"message", &[2; 32], &keys, b"id");
        let options = SignatureOptions { allow_sha1_rsa: true, ..SignatureOptions::default() };
        let known = SignatureScheme::Ed25519.to_auth_data(&data);
        for data in [&data[..], &known[..]] {
            let proof = Proof { method: AuthMethod(method), data };
            prop_assert!(verify_signature(std::slice::from_ref(&key), &octets, proof, options).is_err());
        }
    }
}
