//! The key schedule and AUTH of a resumed IKE SA, RFC 5723 sections 5.1 and 4.3.3, against values
//! computed with Python's `hmac` and `hashlib` by the formulas of that text.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use obol_ike::auth::{
    AuthError, InitiatorSignedOctets, Proof, ResponderSignedOctets, psk_auth_data,
    resumption_auth_data, verify_resumption,
};
use obol_ike::crypto::secret::Secret;
use obol_ike::event::IkeSpi;
use obol_ike::keys::IkeKeys;
use obol_ike::proposal::Encr;
use obol_ike::status::IkeAlgorithms;
use obol_ike::wire::{AuthMethod, IntegId, KeMethod, PrfId};

const SPI_I: IkeSpi = IkeSpi(0x0102_0304_0506_0708);
const SPI_R: IkeSpi = IkeSpi(0x1112_1314_1516_1718);

fn counting(from: u8, to: u8) -> Vec<u8> {
    (from..to).collect()
}

fn resumed(prf: PrfId, old_sk_d: Vec<u8>) -> IkeKeys {
    let alg = IkeAlgorithms {
        encr: Encr::AES256_GCM16,
        integ: IntegId::NONE,
        prf,
        ke: KeMethod::CURVE25519,
    };
    let (ni, nr) = (counting(0x00, 0x20), counting(0x40, 0x58));
    IkeKeys::resume(&alg, &Secret::new(old_sk_d), &ni, &nr, SPI_I, SPI_R).unwrap()
}

#[test]
fn keys_come_from_the_old_sk_d_and_the_new_nonces_and_spis() {
    let keys = resumed(PrfId::HMAC_SHA2_256, counting(0xc0, 0xe0));
    assert_eq!(
        hex::encode(keys.sk_d.expose()),
        "b7f35fbfb2bd35c93b32c9cd51b8e7b483093076c48a180f78441335a1d23966"
    );
    assert!(keys.sk_ai.expose().is_empty() && keys.sk_ar.expose().is_empty());
    assert_eq!(
        hex::encode(keys.sk_ei.expose()),
        "94aa56d6cce45287461b0bba88e07addd1f9cab7feea2240a89fbbd116cff1c70ebb8aaf"
    );
    assert_eq!(
        hex::encode(keys.sk_er.expose()),
        "7fc7d1dbe988aad7cbdf029cbdf3e8afd21bb96007835b3fb4227b1f0b7b9e3dfcf874f4"
    );
    assert_eq!(
        hex::encode(keys.sk_pi.expose()),
        "783ee45c749423e2d548cf864fd0378499702f196f22cdbe27b1434f35ad885b"
    );
    assert_eq!(
        hex::encode(keys.sk_pr.expose()),
        "6c663fceb962b798d88c62408df08c6a682515df1f2f79344ac988a49e327c8a"
    );
    let keys = resumed(PrfId::HMAC_SHA2_512, counting(0x80, 0xc0));
    assert_eq!(
        hex::encode(keys.sk_d.expose()),
        "4f3fb9f5b4b9ab5a5329effa00e5d0760786bdafe2d8952bf831893e35dffa12\
         179242010fc31f644c81ac3dcc6344489fce7371c27b329f1fd6bb9660995b23"
    );
}

#[test]
fn auth_is_made_with_sk_p_itself() {
    let keys = resumed(PrfId::HMAC_SHA2_256, counting(0xc0, 0xe0));
    let (ni, nr) = (counting(0x00, 0x20), counting(0x40, 0x58));
    let body = b"\x02\0\0\0host";
    let initiator = InitiatorSignedOctets::new(b"message one", &nr, &keys, body);
    let responder = ResponderSignedOctets::new(b"message two", &ni, &keys, body);
    let (prf, pi, pr) = (keys.prf(), keys.sk_pi.expose(), keys.sk_pr.expose());
    let of_initiator = resumption_auth_data(prf, pi, &initiator);
    let of_responder = resumption_auth_data(prf, pr, &responder);
    assert_eq!(
        hex::encode(&of_initiator),
        "ecff387e997eeb75c7ecc1bd5f4e8e277c7b8db3bb3a82e290e8eac67f0b9b34"
    );
    assert_eq!(
        hex::encode(&of_responder),
        "a667863cef19e43d802110b5954276e8a96b0d0816f4c1745d08c85a9ad132b2"
    );
    let psk = psk_auth_data(prf, &Secret::from(pi), &initiator);
    let proof = |method, data| Proof { method, data };
    let shared = AuthMethod::SHARED_KEY;
    let check = |proof| verify_resumption(prf, pi, &initiator, proof).map(drop);
    assert_eq!(check(proof(shared, &of_initiator)), Ok(()));
    let mut altered = of_initiator.clone();
    altered[0] ^= 1;
    for wrong in [
        proof(shared, &of_responder),
        proof(shared, &psk),
        proof(shared, &altered),
        proof(shared, &of_initiator[1..]),
        proof(shared, &[]),
        proof(AuthMethod::NULL, &of_initiator),
        proof(AuthMethod::DIGITAL_SIGNATURE, &of_initiator),
    ] {
        assert_eq!(check(wrong), Err(AuthError::WrongResumption));
    }
}
