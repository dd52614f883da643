//! Signatures and keys that other daemons took for good: one test for each lesson, by its name.

use std::collections::BTreeSet;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use obol_ike::auth::{
    AuthError, Proof, ResponderSignedOctets, SignatureOptions, signature_auth, verify_signature,
};
use obol_ike::crypto::ecdsa::Curve;
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::secret::Secret;
use obol_ike::crypto::signature::{PublicKey, SignatureScheme};
use obol_ike::event::IkeSpi;
use obol_ike::keys::IkeKeys;
use obol_ike::proposal::Encr;
use obol_ike::status::IkeAlgorithms;
use obol_ike::wire::{AuthMethod, IntegId, KeMethod, PrfId};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use sha2::{Digest, Sha256, Sha384};

use SignatureScheme as S;

const OCTETS: &[u8] = b"what is signed";
const SHA256: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];
const RSA_SCHEMES: [S; 6] = [
    S::RsaPkcs1Sha256,
    S::RsaPkcs1Sha384,
    S::RsaPkcs1Sha512,
    S::RsaPssSha256,
    S::RsaPssSha384,
    S::RsaPssSha512,
];

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// An RSA key whose private half can be applied to anything.
struct Raw {
    key: rsa::RsaPrivateKey,
    public: PublicKey,
}

impl Raw {
    fn new() -> Self {
        let key = rsa::RsaPrivateKey::new(&mut rng(1), 2048).expect("a legal size");
        let public = PublicKey::rsa(&key.n().to_be_bytes(), &key.e().to_be_bytes());
        Self {
            public: public.expect("a good key"),
            key,
        }
    }

    /// `block ^ d mod n`: the signature whose encoded message is the block.
    fn sign(&self, block: &[u8]) -> Vec<u8> {
        let n = Odd::new(self.key.n().as_ref().clone()).expect("a modulus is odd");
        let params = BoxedMontyParams::new_vartime(n);
        let block = BoxedUint::from_be_slice(block, 2048).expect("as long as the modulus");
        let power = BoxedMontyForm::new(block, &params).pow(self.key.d());
        power.retrieve().to_be_bytes().to_vec()
    }

    fn takes(&self, block: &[u8]) -> bool {
        let signature = self.sign(block);
        let verified = self.public.verify(S::RsaPkcs1Sha256, OCTETS, &signature);
        verified.is_ok()
    }
}

/// `00 01 FF.. 00 tail`, filled up to the length of the modulus.
fn block(start: [u8; 2], separator: u8, tail: &[u8]) -> Vec<u8> {
    let padding = vec![0xff; 256 - 3 - tail.len()];
    [&start[..], &padding, &[separator], tail].concat()
}

#[test]
fn pkcs1v15_bleichenbacher_matrix() {
    let raw = Raw::new();
    let hash = Sha256::digest(OCTETS).to_vec();
    let good = [&SHA256[..], &hash].concat();
    assert!(raw.takes(&block([0, 1], 0, &good)), "the control");
    let info = |parameters: &[u8], hash: &[u8]| {
        let oid = &SHA256[4..15];
        let algorithm = [
            &[0x30, (oid.len() + parameters.len()) as u8],
            oid,
            parameters,
        ]
        .concat();
        let digest = [&[0x04, hash.len() as u8], hash].concat();
        let whole = [&algorithm[..], &digest].concat();
        [&[0x30, whole.len() as u8], &whole[..]].concat()
    };
    assert_eq!(
        info(&[5, 0], &hash),
        good,
        "the builder builds the real one"
    );
    let short_padding = |padding: usize, tail: &[u8]| {
        let mut block = [&[0, 1][..], &vec![0xff; padding], &[0], tail].concat();
        block.resize(256, 0x5a);
        block
    };
    let mut no_ff = block([0, 1], 0, &good);
    no_ff[100] = 0xfe;
    let mut zero_early = block([0, 1], 0, &good);
    zero_early[50] = 0;
    let mut long_form = good.clone();
    long_form.splice(1..2, [0x81, 0x31]);
    let mut indefinite = good.clone();
    indefinite[1] = 0x80;
    indefinite.extend([0, 0]);
    let sha384_oid = {
        let mut other = good.clone();
        other[14] = 2;
        other
    };
    let sha384 = Sha384::digest(OCTETS).to_vec();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("junk after the hash", short_padding(202 - 32, &good)),
        (
            "eight octets of padding, then junk",
            short_padding(8, &good),
        ),
        ("no padding", short_padding(0, &good)),
        ("block type 2", block([0, 2], 0, &good)),
        ("block type 0", block([0, 0], 0, &good)),
        ("a first octet that is not zero", block([1, 1], 0, &good)),
        ("a padding octet that is not FF", no_ff),
        ("a zero within the padding", zero_early),
        ("no separator", block([0, 1], 0xff, &good)),
        ("no parameters", block([0, 1], 0, &info(&[], &hash))),
        (
            "junk as parameters",
            block([0, 1], 0, &info(&[4, 4, 1, 2, 3, 4], &hash)),
        ),
        (
            "NULL with content",
            block([0, 1], 0, &info(&[5, 1, 0], &hash)),
        ),
        (
            "parameters twice",
            block([0, 1], 0, &info(&[5, 0, 5, 0], &hash)),
        ),
        ("a length in the long form", block([0, 1], 0, &long_form)),
        ("an indefinite length", block([0, 1], 0, &indefinite)),
        ("another algorithm", block([0, 1], 0, &sha384_oid)),
        ("another hash", block([0, 1], 0, &info(&[5, 0], &sha384))),
        (
            "a short hash",
            block([0, 1], 0, &info(&[5, 0], &hash[..31])),
        ),
        (
            "a long hash",
            block([0, 1], 0, &info(&[5, 0], &[&hash[..], &[0]].concat())),
        ),
        ("no hash", block([0, 1], 0, &info(&[5, 0], &[]))),
        ("the bare hash", block([0, 1], 0, &hash)),
        (
            "a trailing zero",
            block([0, 1], 0, &[&good[..], &[0]].concat()),
        ),
        ("nothing", block([0, 1], 0, &[])),
    ];
    for (name, block) in rows {
        assert_eq!(block.len(), 256, "{name}");
        assert!(!raw.takes(&block), "{name}");
    }
    // And every octet of the whole block counts.
    let good = block([0, 1], 0, &good);
    for at in 0..256 {
        let mut other = good.clone();
        other[at] ^= 1;
        assert!(!raw.takes(&other), "octet {at}");
    }
    // A signature is a number below the modulus.
    let signature = raw.sign(&good);
    let n = raw.key.n().to_be_bytes();
    let verify = |s: &[u8]| raw.public.verify(S::RsaPkcs1Sha256, OCTETS, s).is_ok();
    assert!(verify(&signature));
    let mut carry = 0;
    let mut sum: Vec<u8> = signature
        .iter()
        .zip(n.iter())
        .rev()
        .map(|(a, b)| {
            let sum = u16::from(*a) + u16::from(*b) + carry;
            carry = sum >> 8;
            sum as u8
        })
        .collect();
    sum.reverse();
    assert!(!verify(&sum), "s + n");
    assert!(
        !verify(&[&[carry as u8][..], &sum].concat()),
        "s + n, longer"
    );
    assert!(!verify(&n), "n");
}

#[test]
fn signature_empty_zero_short_long_rejected() {
    let mut random = rng(2);
    let rsa = PrivateKey::generate_rsa(2048, &mut random).expect("a legal size");
    let ed25519 = PrivateKey::generate_ed25519(&mut random);
    let p256 = PrivateKey::generate_ecdsa(Curve::P256, &mut random);
    let all = RSA_SCHEMES
        .iter()
        .chain(&[S::RsaPkcs1Sha1])
        .map(|scheme| (&rsa, *scheme))
        .chain([(&ed25519, S::Ed25519)])
        .chain([(&p256, S::EcdsaSha256), (&p256, S::EcdsaP256)]);
    for (key, scheme) in all {
        let good = key.sign(scheme, OCTETS, &mut random).expect("it fits");
        let takes = |s: &[u8]| key.public().verify(scheme, OCTETS, s).is_ok();
        assert!(takes(&good), "{scheme}: the control");
        for len in [
            0,
            1,
            good.len() - 1,
            good.len(),
            good.len() + 1,
            2 * good.len(),
        ] {
            for octet in [0, 1, 0xff] {
                assert!(!takes(&vec![octet; len]), "{scheme}: {len} times {octet}");
            }
            let mut other = good.clone();
            other.resize(len, 0);
            assert_eq!(
                takes(&other),
                other == good,
                "{scheme}: cut or filled to {len}"
            );
        }
        assert!(
            !takes(&[&[0], &good[..]].concat()),
            "{scheme}: a zero in front"
        );
        assert!(!takes(&good[1..]), "{scheme}: without its first octet");
        let one = [&vec![0; good.len() - 1][..], &[1]].concat();
        assert!(!takes(&one), "{scheme}: the number 1");
        for bit in (0..good.len() * 8).step_by(7) {
            let mut other = good.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!takes(&other), "{scheme}: bit {bit}");
        }
        assert!(key.public().verify(scheme, b"what is not", &good).is_err());
    }
}

/// AUTH method 14 around an AlgorithmIdentifier.
fn accepted(identifier: &[u8]) -> Option<SignatureScheme> {
    let len = u8::try_from(identifier.len()).ok()?;
    let data = [&[len], identifier, b"signature"].concat();
    SignatureScheme::from_auth_data(&data).ok().map(|(s, _)| s)
}

#[test]
fn pss_params_only_the_rfc7427_set_accepted() {
    let identifier = |scheme: S| {
        let data = scheme.to_auth_data(&[]);
        data[1..].to_vec()
    };
    let pss = [S::RsaPssSha256, S::RsaPssSha384, S::RsaPssSha512];
    let mut forms: BTreeSet<Vec<u8>> = pss.iter().map(|s| identifier(*s)).collect();
    assert_eq!(forms.len(), 3);
    for scheme in pss {
        let octets = identifier(scheme);
        // The salt's length is the last octet; the digest's number occurs twice.
        let salt = octets.len() - 1;
        for len in 0..=255 {
            let mut other = octets.clone();
            other[salt] = len;
            assert_eq!(
                accepted(&other).is_some(),
                other == octets,
                "{scheme}, salt of {len}"
            );
        }
        for cut in 0..octets.len() {
            assert_eq!(accepted(&octets[..cut]), None, "{scheme} cut to {cut}");
        }
        let mut filled = octets.clone();
        filled.push(0);
        assert_eq!(accepted(&filled), None);
        // A salt whose length takes two octets, or many.
        for salt_len in [&[2, 1, 0][..], &[4, 0xff, 0xff, 0xff, 0xff], &[0x80], &[0]] {
            let mut other = octets.clone();
            other.splice(salt - 1.., salt_len.iter().copied());
            assert_eq!(accepted(&other), None, "{scheme}, {salt_len:?}");
        }
        forms.insert(octets);
    }
    // Whatever one octet is changed to, it is another of the forms, or nothing.
    let mut taken = 0;
    for form in &forms {
        for at in 0..form.len() {
            for value in 0..=255 {
                let mut other = form.clone();
                other[at] = value;
                let known = forms.contains(&other);
                assert_eq!(accepted(&other).is_some(), known, "octet {at} to {value}");
                taken += u32::from(known && other != *form);
            }
        }
    }
    assert_eq!(taken, 0, "no two forms differ in one octet only");
    // The parameters that default to SHA-1, and none at all.
    let oid = &identifier(S::RsaPssSha256)[2..13];
    for parameters in [&[0x30, 0][..], &[], &[5, 0]] {
        let len = (oid.len() + parameters.len()) as u8;
        let other = [&[0x30, len], oid, parameters].concat();
        assert_eq!(accepted(&other), None, "{parameters:?}");
    }
}

fn octets() -> ResponderSignedOctets {
    let alg = IkeAlgorithms {
        encr: Encr::AES256_GCM16,
        integ: IntegId::NONE,
        prf: PrfId::HMAC_SHA2_256,
        ke: KeMethod::CURVE25519,
    };
    let shared = Secret::new(vec![7; 32]);
    let keys = IkeKeys::derive(&alg, &[1; 32], &[2; 32], &shared, IkeSpi(1), IkeSpi(2));
    ResponderSignedOctets::new(
        b"message",
        &[1; 32],
        &keys.expect("obol has it"),
        b"identity",
    )
}

#[test]
fn raw_public_key_mismatch_each_type_pair() {
    let mut random = rng(3);
    let mut draw_rsa = || PrivateKey::generate_rsa(2048, &mut random).expect("a legal size");
    let rsa = [draw_rsa(), draw_rsa()];
    let mut random = rng(4);
    let keys = [
        &rsa[0],
        &rsa[1],
        &PrivateKey::generate_rsa(3072, &mut random).expect("a legal size"),
        &PrivateKey::generate_ed25519(&mut random),
        &PrivateKey::generate_ed25519(&mut random),
    ];
    let strict = SignatureOptions::default();
    let mut proven = 0;
    for (a, signer) in keys.iter().enumerate() {
        let schemes: Vec<S> = RSA_SCHEMES
            .into_iter()
            .chain([S::Ed25519])
            .filter(|scheme| signer.public().fits(*scheme))
            .collect();
        for scheme in schemes {
            let signed = signer.sign(scheme, &octets().into_octets(), &mut random);
            let (method, data) = signature_auth(scheme, &signed.expect("it fits"));
            for (b, configured) in keys.iter().enumerate() {
                let proof = Proof {
                    method,
                    data: &data,
                };
                let public = configured.public();
                let fits = public.fits(scheme);
                let result = verify_signature(&[public], &octets(), proof, strict).err();
                let expected = match (a == b, fits) {
                    (true, _) => None,
                    (false, true) => Some(AuthError::WrongKey { scheme, tried: 1 }),
                    (false, false) => Some(AuthError::KeyType { scheme }),
                };
                assert_eq!(
                    result, expected,
                    "{a} signs with {scheme}, {b} is configured"
                );
                proven += u32::from(a == b);
            }
            // As the signature of any other scheme it is none.
            let bare = scheme.to_auth_data(&[]).len();
            for other in RSA_SCHEMES.into_iter().chain([S::Ed25519]) {
                let data = other.to_auth_data(&data[bare..]);
                let proof = Proof {
                    method: AuthMethod::DIGITAL_SIGNATURE,
                    data: &data,
                };
                let keys: Vec<PublicKey> = keys.iter().map(|key| key.public()).collect();
                let result = verify_signature(&keys, &octets(), proof, strict);
                assert_eq!(result.is_ok(), other == scheme, "{scheme} as {other}");
            }
        }
    }
    assert_eq!(proven, 3 * 6 + 2);
}
