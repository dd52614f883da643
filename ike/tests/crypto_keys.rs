//! The key schedule and AUTH against values computed with Python's `hmac` and `hashlib`:
//! `prf = hmac.new(key, data, hash).digest()`, prf+ as its definition in RFC 7296 section 2.13,
//! keys cut off the output in order.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use obol_ike::auth::{
    AuthError, InitiatorSignedOctets, Proof, ResponderSignedOctets, SignatureOptions,
    psk_auth_data, signature_auth, verify_psk, verify_signature,
};
use obol_ike::crypto::ecdsa::Curve;
use obol_ike::crypto::prf::Prf;
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::secret::Secret;
use obol_ike::crypto::signature::SignatureScheme;
use obol_ike::event::{EspKeys, IkeSpi};
use obol_ike::keys::{IkeKeys, UnsupportedAlgorithm, child_keymat};
use obol_ike::proposal::Encr;
use obol_ike::status::IkeAlgorithms;
use obol_ike::wire::{AuthMethod, IntegId, KeMethod, PrfId};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const SPI_I: IkeSpi = IkeSpi(0x0102_0304_0506_0708);
const SPI_R: IkeSpi = IkeSpi(0x1112_1314_1516_1718);

fn counting(from: u8, to: u8) -> Vec<u8> {
    (from..to).collect()
}

fn ni() -> Vec<u8> {
    counting(0x00, 0x20)
}

fn nr() -> Vec<u8> {
    counting(0x40, 0x58)
}

fn algorithms(encr: Encr, integ: IntegId, prf: PrfId) -> IkeAlgorithms {
    IkeAlgorithms {
        encr,
        integ,
        prf,
        ke: KeMethod::CURVE25519,
    }
}

fn derive(encr: Encr, integ: IntegId, prf: PrfId) -> IkeKeys {
    let shared = Secret::new(counting(0x80, 0xa0));
    let alg = algorithms(encr, integ, prf);
    IkeKeys::derive(&alg, &ni(), &nr(), &shared, SPI_I, SPI_R).unwrap()
}

fn aead_keys() -> IkeKeys {
    derive(Encr::AES256_GCM16, IntegId::NONE, PrfId::HMAC_SHA2_256)
}

/// SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi, SK_pr.
fn in_hex(keys: &IkeKeys) -> [String; 7] {
    [
        hex::encode(keys.sk_d.expose()),
        hex::encode(keys.sk_ai.expose()),
        hex::encode(keys.sk_ar.expose()),
        hex::encode(keys.sk_ei.expose()),
        hex::encode(keys.sk_er.expose()),
        hex::encode(keys.sk_pi.expose()),
        hex::encode(keys.sk_pr.expose()),
    ]
}

//= test rfc7296 2.13-3
#[test]
fn keys_of_an_aead_have_their_salt_and_no_integrity_keys() {
    assert_eq!(
        in_hex(&aead_keys()),
        [
            "e0384e510ef95cab8162a0702c5988a601b96f415685cb1d8d12c1d53b81bf2f",
            "",
            "",
            "a3fab3108cbf76c99c6f838e123803947ddbcfbf6de174155e2a18addcf203d29410dd7f",
            "243c4242a394891c1183cd639fb3071ea2867bdcdda259092eb23768319c8bf373875185",
            "c443d772371b00dd24b788720e612c76b6f34d71d1a2b6edce4550da584f0f53",
            "72dc70bd4949becc66117a6c21b7f5fad71ce2a828cd3abf5955ce04d2e05c00",
        ]
    );
}

//= test rfc7296 2.13-3
#[test]
fn keys_of_cbc_with_hmac() {
    let keys = derive(
        Encr::AES192_CBC,
        IntegId::HMAC_SHA2_384_192,
        PrfId::HMAC_SHA2_384,
    );
    assert_eq!(
        in_hex(&keys),
        [
            "5330a579e860d0d4b3fd24bd3e07449826e9cd16277f5c83785b1e27514315edc401a75776a94faf\
             d3bf6e16deb123e8",
            "55971cf62c02c7a2fefa56b9e5e68288bb8438bfb2781211c90ec75a8a5dc945c1ea3043092d1236\
             e98cacf47720b1cb",
            "846bdb51a5e26536d4a24ebdf6dcb9fc3462ad6d1af69fb9ace23eec25dfed256c8e78cfa126fab5\
             35ffa2df3ec814a2",
            "8bfee7752c9805b7d35ba963319459aa2144ba6965179756",
            "ba786f2b03290510595d41fdaf2ca9236f3502cb738e0a73",
            "c1f7a982cdd56ae234d51f96ca3977b1819440fc3a31ca3d6a1eec555d46efb2673e24b8167cdb76\
             40bc0030c4b3c788",
            "6dd0bbce524df7836532cb405d79c4efb2db82bbd6511c3d200133591c07b040617db9821cf22ab2\
             fd53aaf9640775da",
        ]
    );
}

//= test security S-25
/// SKEYSEED with the old PRF (SHA-256), everything else with the new one (SHA-512).
#[test]
fn a_rekey_uses_the_old_prf_for_its_seed() {
    let alg = algorithms(Encr::AES128_GCM16, IntegId::NONE, PrfId::HMAC_SHA2_512);
    let shared = Secret::new(counting(0xc0, 0xe0));
    let keys = IkeKeys::rekey(
        &aead_keys(),
        &alg,
        &counting(0x20, 0x40),
        &counting(0x60, 0x80),
        &shared,
        IkeSpi(0x2122_2324_2526_2728),
        IkeSpi(0x3132_3334_3536_3738),
    )
    .unwrap();
    assert_eq!(
        in_hex(&keys),
        [
            "6f2a9a2ad4a7ba663d2bbf2024f31277a04d909ba38547d7a72730e200e101e09d1225c79d02e39c\
             9269ce2e16e80381ef9d4e567c4c20704a2d299d2f03c624",
            "",
            "",
            "2592ddae9b98907ce3fd73ed32ee4c72da852586",
            "35c2ed1568d038aa8f12e0294bb87ae39fe38195",
            "345460bbc30da5c65809bc5c2f2285b696e34dde18dc8bb03ed3e8f67324186152a484def40368af\
             a0fdeae09c2d0554141904a9afb5f93ae8232d2e9a6b2097",
            "8de49c3e8ad9a7c159afcbc71edbf0683d2ccd7d2d5b8f94dc5b6189308096ff4d590e3d1cbc2caa\
             1421364d322d1a0710c91ad7ca9b5d48a497aa90955e91f0",
        ]
    );
    assert_eq!(keys.algorithms(), &alg);
}

fn esp_in_hex(keys: &EspKeys) -> (String, String) {
    (
        hex::encode(keys.encr.expose()),
        hex::encode(keys.integ.expose()),
    )
}

#[test]
fn child_keys_without_key_exchange() {
    let keys = aead_keys()
        .child(None, &ni(), &nr(), Encr::AES256_GCM16, IntegId::NONE)
        .unwrap();
    let none = String::new();
    assert_eq!(
        esp_in_hex(&keys.initiator_to_responder),
        (
            "02a59c29bc53ef83b18c4e0f35715292582434d5d00c6be6d3d1a0b8da7e9fe4c479fc10".into(),
            none.clone()
        )
    );
    assert_eq!(
        esp_in_hex(&keys.responder_to_initiator),
        (
            "48cc493a6669facc8598a216b72f3e9f7bfe6971dc40d72c22aa9a529b9fc708924df4d6".into(),
            none
        )
    );
}

//= test rfc7296 2.17-2
#[test]
fn child_keys_with_key_exchange_and_integrity() {
    let ike = aead_keys();
    let keys = child_keymat(
        ike.prf(),
        &ike.sk_d,
        Some(&Secret::new(counting(0xc0, 0xe0))),
        &counting(0x20, 0x40),
        &counting(0x60, 0x80),
        Encr::AES256_CBC,
        IntegId::HMAC_SHA2_256_128,
    )
    .unwrap();
    assert_eq!(
        esp_in_hex(&keys.initiator_to_responder),
        (
            "94b61b9fc3a304ca03dcbbd4b99a1708566955392e511662f305c8da253c8640".into(),
            "713402e1398020bd1e5e50625f9d702dfae0ebcaae1a0fe539cfdf283674d873".into()
        )
    );
    assert_eq!(
        esp_in_hex(&keys.responder_to_initiator),
        (
            "6c2969545fad22261b236b118b7696bb07a10f8a303f90a10180ac98b51a7b4c".into(),
            "b064f4cf84cff40425e1e5e7824965eb19488b975ff55fcb16631d89acf799ae".into()
        )
    );
}

#[test]
fn the_two_directions_open_each_other() {
    let (one, two) = (
        aead_keys().ciphers().unwrap(),
        aead_keys().ciphers().unwrap(),
    );
    let message = [
        &b"header"[..],
        &one.from_initiator.seal(1, b"header", b"hi"),
    ]
    .concat();
    let body = 6..message.len();
    assert_eq!(
        two.from_initiator.open(&message, body.clone()),
        Ok(b"hi".to_vec())
    );
    assert!(two.from_responder.open(&message, body).is_err());
}

#[test]
fn algorithms_that_are_not_here_give_no_keys() {
    let shared = Secret::new(vec![1; 32]);
    for alg in [
        algorithms(Encr::AES256_GCM16, IntegId::NONE, PrfId::HMAC_SHA1),
        algorithms(Encr::AES256_CBC, IntegId::HMAC_MD5_96, PrfId::HMAC_SHA2_256),
        algorithms(
            Encr::new(Encr::AES256_CBC.id, 100),
            IntegId::HMAC_SHA2_256_128,
            PrfId::HMAC_SHA2_256,
        ),
    ] {
        let keys = IkeKeys::derive(&alg, &ni(), &nr(), &shared, SPI_I, SPI_R);
        assert_eq!(keys.err(), Some(UnsupportedAlgorithm));
    }
}

#[test]
fn debug_shows_no_key() {
    let keys = aead_keys();
    let child = keys
        .child(
            None,
            &ni(),
            &nr(),
            Encr::AES256_CBC,
            IntegId::HMAC_SHA2_256_128,
        )
        .unwrap();
    let shown = format!("{keys:?} {child:?} {:?}", keys.ciphers().unwrap());
    assert!(shown.contains("SkD(..)"), "{shown}");
    let lists = shown.matches('[').count();
    assert_eq!(lists, 0, "octets are shown: {shown}");
}

const ID_BODY: &[u8] = b"\x02\0\0\0hostA.example.com";

fn psk() -> Secret {
    Secret::from(&b"demo-secret-demo-secret"[..])
}

fn prf() -> Prf {
    Prf::new(PrfId::HMAC_SHA2_256).unwrap()
}

fn initiator_octets() -> InitiatorSignedOctets {
    InitiatorSignedOctets::new(&counting(0, 64), &nr(), &aead_keys(), ID_BODY)
}

fn responder_octets() -> ResponderSignedOctets {
    ResponderSignedOctets::new(&counting(0, 64), &ni(), &aead_keys(), ID_BODY)
}

fn shared_key(data: &[u8]) -> Proof<'_> {
    Proof {
        method: AuthMethod::SHARED_KEY,
        data,
    }
}

#[test]
fn psk_auth_of_both_sides() {
    let initiator = psk_auth_data(prf(), &psk(), &initiator_octets());
    let responder = psk_auth_data(prf(), &psk(), &responder_octets());
    assert_eq!(
        hex::encode(&initiator),
        "3d26426dffcbad10f829129532d2495574b24d29b72dc17d5c654e8c0393c757"
    );
    assert_eq!(
        hex::encode(&responder),
        "dcf137216d665fe3332e492f1e13d1827a65108cebb8eac7ffe58d769ed2d91d"
    );
    assert!(verify_psk(prf(), &psk(), &initiator_octets(), shared_key(&initiator)).is_ok());
    assert!(verify_psk(prf(), &psk(), &responder_octets(), shared_key(&responder)).is_ok());
    // A reflected proof is none.
    assert_eq!(
        verify_psk(prf(), &psk(), &responder_octets(), shared_key(&initiator)).err(),
        Some(AuthError::WrongSecret)
    );
}

#[test]
fn psk_auth_that_does_not_verify() {
    let right = psk_auth_data(prf(), &psk(), &initiator_octets());
    let check = |secret: &Secret, method, data: &[u8]| {
        verify_psk(prf(), secret, &initiator_octets(), Proof { method, data }).err()
    };
    let other = Secret::from(&b"demo-secret-demo-secreT"[..]);
    let empty = Secret::new(Vec::new());
    let by_empty = psk_auth_data(prf(), &empty, &initiator_octets());
    let method = AuthMethod::SHARED_KEY;
    assert_eq!(check(&other, method, &right), Some(AuthError::WrongSecret));
    assert_eq!(
        check(&psk(), method, &right[1..]),
        Some(AuthError::WrongSecret)
    );
    assert_eq!(check(&psk(), method, &[]), Some(AuthError::WrongSecret));
    assert_eq!(
        check(&empty, method, &by_empty),
        Some(AuthError::EmptySecret)
    );
    assert_eq!(
        check(&psk(), AuthMethod::DIGITAL_SIGNATURE, &right),
        Some(AuthError::MethodMismatch {
            expected: "psk",
            got: AuthMethod::DIGITAL_SIGNATURE
        })
    );
}

fn check_signature(
    key: &PrivateKey,
    configured: &[&PrivateKey],
    scheme: SignatureScheme,
    options: SignatureOptions,
) -> Option<AuthError> {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let octets = responder_octets().into_octets();
    let signature = key.sign(scheme, &octets, &mut rng).unwrap();
    let (method, data) = signature_auth(scheme, &signature);
    let keys: Vec<_> = configured.iter().map(|key| key.public()).collect();
    let proof = Proof {
        method,
        data: &data,
    };
    let right = verify_signature(&keys, &responder_octets(), proof, options).err();
    if right.is_none() {
        let reflected = verify_signature(&keys, &initiator_octets(), proof, options).err();
        assert_eq!(reflected, Some(AuthError::WrongKey { scheme, tried: 1 }));
    }
    right
}

#[test]
fn signatures_of_every_scheme() {
    use SignatureScheme as S;
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let rsa = PrivateKey::generate_rsa(2048, &mut rng).unwrap();
    let ed25519 = PrivateKey::generate_ed25519(&mut rng);
    let other = PrivateKey::generate_ed25519(&mut rng);
    let strict = SignatureOptions::default();
    let lenient = SignatureOptions {
        allow_sha1_rsa: true,
        ..strict
    };
    for scheme in [
        S::RsaPkcs1Sha256,
        S::RsaPkcs1Sha384,
        S::RsaPkcs1Sha512,
        S::RsaPssSha256,
        S::RsaPssSha384,
        S::RsaPssSha512,
    ] {
        assert_eq!(
            check_signature(&rsa, &[&ed25519, &rsa], scheme, strict),
            None
        );
    }
    let check = |key, configured: &[_], scheme| check_signature(key, configured, scheme, strict);
    assert_eq!(check(&ed25519, &[&rsa, &ed25519], S::Ed25519), None);
    assert_eq!(
        check(&ed25519, &[&other], S::Ed25519),
        Some(AuthError::WrongKey {
            scheme: S::Ed25519,
            tried: 1
        })
    );
    assert_eq!(
        check(&ed25519, &[&rsa], S::Ed25519),
        Some(AuthError::KeyType { scheme: S::Ed25519 })
    );
    assert_eq!(
        check(&ed25519, &[], S::Ed25519),
        Some(AuthError::KeyType { scheme: S::Ed25519 })
    );
    assert_eq!(
        check(&rsa, &[&rsa], S::RsaPkcs1Sha1),
        Some(AuthError::Sha1NotAllowed)
    );
    assert_eq!(
        check_signature(&rsa, &[&rsa], S::RsaPkcs1Sha1, lenient),
        None
    );
}

/// What a set leaves out is refused, whoever made it.
#[test]
fn signatures_of_schemes_that_are_not_accepted() {
    use SignatureScheme as S;
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let rsa = PrivateKey::generate_rsa(2048, &mut rng).unwrap();
    let ecdsa = PrivateKey::generate_ecdsa(Curve::P384, &mut rng);
    let keys = [&rsa, &ecdsa];
    for (word, key, scheme, is_accepted) in [
        ("rsa-pss", &rsa, S::RsaPssSha256, true),
        ("rsa-pss", &rsa, S::RsaPssSha512, true),
        ("rsa-pss", &rsa, S::RsaPkcs1Sha256, false),
        ("rsa-pss", &rsa, S::RsaPkcs1Sha512, false),
        ("rsa-pss", &rsa, S::RsaPkcs1Sha1, false),
        ("rsa-pss", &ecdsa, S::EcdsaSha384, false),
        ("rsa-pss-sha512", &rsa, S::RsaPssSha512, true),
        ("rsa-pss-sha512", &rsa, S::RsaPssSha256, false),
        ("rsa-pkcs1", &rsa, S::RsaPkcs1Sha384, true),
        ("rsa-pkcs1", &rsa, S::RsaPkcs1Sha1, true),
        ("rsa-pkcs1", &rsa, S::RsaPssSha384, false),
        ("ecdsa-sha384", &ecdsa, S::EcdsaSha384, true),
        ("ecdsa-sha384", &ecdsa, S::EcdsaP384, true),
        ("ecdsa-sha384", &ecdsa, S::EcdsaSha512, false),
    ] {
        let accepted = word.parse().unwrap();
        let options = SignatureOptions {
            allow_sha1_rsa: true,
            accepted,
        };
        let refused = (!is_accepted).then_some(AuthError::NotAccepted { scheme, accepted });
        let error = check_signature(key, &keys, scheme, options);
        assert_eq!(error, refused, "{word} {scheme}");
    }
}

/// By AUTH method 14, and by 9 to 11 (RFC 4754), where the method says hash and curve.
//= test rfc7427 3-3
#[test]
fn ecdsa_signatures_of_every_scheme() {
    use SignatureScheme as S;
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    let [p256, p384, p521] = Curve::ALL.map(|curve| PrivateKey::generate_ecdsa(curve, &mut rng));
    let check = |key, configured: &[_], scheme| {
        check_signature(key, configured, scheme, SignatureOptions::default())
    };
    for (key, schemes) in [
        (
            &p256,
            &[S::EcdsaSha256, S::EcdsaSha384, S::EcdsaSha512, S::EcdsaP256][..],
        ),
        (
            &p384,
            &[S::EcdsaSha256, S::EcdsaSha384, S::EcdsaSha512, S::EcdsaP384],
        ),
        (&p521, &[S::EcdsaSha384, S::EcdsaSha512, S::EcdsaP521]),
    ] {
        for &scheme in schemes {
            assert_eq!(check(key, &[key], scheme), None, "{scheme}");
        }
    }
    let scheme = S::EcdsaP256;
    assert_eq!(
        check(&p256, &[&p384, &p521], scheme),
        Some(AuthError::KeyType { scheme }),
        "the method names the curve"
    );
    let scheme = S::EcdsaSha256;
    assert_eq!(
        check(&p256, &[&p384, &p521], scheme),
        Some(AuthError::WrongKey { scheme, tried: 1 }),
        "SHA-256 is too short for P-521"
    );
}

//= test rfc7296 3.8-1
#[test]
fn proofs_that_are_no_signatures() {
    let key = PrivateKey::generate_ed25519(&mut ChaCha20Rng::seed_from_u64(7)).public();
    for (method, data, expected) in [
        (
            AuthMethod::SHARED_KEY,
            &[0; 32][..],
            AuthError::MethodMismatch {
                expected: "pubkey",
                got: AuthMethod::SHARED_KEY,
            },
        ),
        (
            AuthMethod::NULL,
            &[],
            AuthError::MethodMismatch {
                expected: "pubkey",
                got: AuthMethod::NULL,
            },
        ),
        (
            AuthMethod::DIGITAL_SIGNATURE,
            &[],
            AuthError::UnsupportedScheme,
        ),
        (
            AuthMethod::DIGITAL_SIGNATURE,
            &[200, 1, 2],
            AuthError::UnsupportedScheme,
        ),
    ] {
        let options = SignatureOptions {
            allow_sha1_rsa: true,
            ..SignatureOptions::default()
        };
        let keys = std::slice::from_ref(&key);
        let verified = verify_signature(keys, &initiator_octets(), Proof { method, data }, options);
        assert_eq!(verified.err(), Some(expected));
    }
}

#[test]
fn every_error_says_which_side_changes_what() {
    let scheme = SignatureScheme::Ed25519;
    for (error, hint) in [
        (AuthError::WrongSecret, "on both sides"),
        (AuthError::EmptySecret, "on both sides"),
        (AuthError::WrongKey { scheme, tried: 2 }, "on this side"),
        (AuthError::KeyType { scheme }, "on this side"),
        (
            AuthError::MethodMismatch {
                expected: "psk",
                got: AuthMethod::RSA,
            },
            "the peer authenticates with a signature, this side expects `psk`",
        ),
        (AuthError::UnsupportedScheme, "let the peer sign"),
        (AuthError::Sha1NotAllowed, "allow_sha1_rsa on this side"),
        (
            AuthError::NotAccepted {
                scheme: SignatureScheme::RsaPkcs1Sha256,
                accepted: "rsa-pss".parse().unwrap(),
            },
            "have the peer sign with RSASSA-PSS (strongSwan: `charon.rsa_pss = yes`",
        ),
        (
            AuthError::NotAccepted {
                scheme,
                accepted: "rsa-pss".parse().unwrap(),
            },
            "accepts rsa-pss only",
        ),
    ] {
        assert!(error.to_string().contains(hint), "{error}");
    }
}
