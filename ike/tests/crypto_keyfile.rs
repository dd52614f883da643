//! Key files made by OpenSSL and OpenSSH: `crypto_keys/rsa_*` hold one key in several forms,
//! the others one each. They protect nothing.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use obol_ike::crypto::ecdsa::Curve;
use obol_ike::crypto::keyfile::{KeyFileError, parse_private, parse_public};
use obol_ike::crypto::private_key::{PrivateKey, SignError};
use obol_ike::crypto::signature::{BadKey, PublicKey, SignatureScheme};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("crypto_keys/", $name)).as_slice()
    };
}

fn fingerprint(key: &PublicKey) -> String {
    hex::encode(key.fingerprint())
}

/// `sha256sum` of the SubjectPublicKeyInfo.
const RSA: &str = "cb70f53bdb0ad13411a9be442ca43491264c1400b747c6b550be9f59bc9d56f2";
const ED25519_SSH: &str = "07d7c6cd728aaefe6fe16868c0dae8d243af925c9ef3c7376a360d0bd1013e4f";
const ED25519_SSL: &str = "7e9bed448a7b7448f28fe64e6734c0693b2811206d0ab4d4fd2678b66e3b3016";
const P256: &str = "0fa51c198cb1a5fbc20e6685d16a4354028f8a7906ee7625beeac4ff73524448";
const P384: &str = "7ad393babde8491c5cbb8fd0334cb06e84a5c2aa4e4bbb3fba28560e08bc1d50";
const P521: &str = "1fa6c7e61ecb0741e265943d8fe7c11542439ecc9ce129f28722488be98163a8";

#[test]
fn public_keys_in_every_form_are_the_same_key() {
    for (name, octets, expected) in [
        ("PEM SPKI", file!("rsa_spki.pem"), RSA),
        ("PEM PKCS#1", file!("rsa_pkcs1_pub.pem"), RSA),
        ("OpenSSH RSA", file!("rsa.pub"), RSA),
        ("RFC 3110", file!("rsa_rfc3110.txt"), RSA),
        ("OpenSSH Ed25519", file!("ed25519.pub"), ED25519_SSH),
        ("PEM Ed25519", file!("ed25519_spki.pem"), ED25519_SSL),
        ("PEM P-256", file!("p256_spki.pem"), P256),
        ("PEM P-384", file!("p384_spki.pem"), P384),
        ("PEM P-521", file!("p521_spki.pem"), P521),
        ("OpenSSH P-256", file!("p256.pub"), P256),
        ("OpenSSH P-384", file!("p384.pub"), P384),
        ("OpenSSH P-521", file!("p521.pub"), P521),
    ] {
        let key = parse_public(octets).unwrap();
        assert_eq!(fingerprint(&key), expected, "{name}");
    }
}

#[test]
fn private_keys_in_every_form_are_the_same_key() {
    for (name, octets, expected) in [
        ("PKCS#8 RSA", file!("rsa_pkcs8.pem"), RSA),
        ("PKCS#1", file!("rsa_pkcs1.pem"), RSA),
        ("OpenSSH RSA", file!("rsa_openssh"), RSA),
        ("OpenSSH Ed25519", file!("ed25519_openssh"), ED25519_SSH),
        ("PKCS#8 Ed25519", file!("ed25519_pkcs8.pem"), ED25519_SSL),
        ("PKCS#8 P-256", file!("p256_pkcs8.pem"), P256),
        ("PKCS#8 P-384", file!("p384_pkcs8.pem"), P384),
        ("PKCS#8 P-521", file!("p521_pkcs8.pem"), P521),
        ("SEC 1 P-256", file!("p256_sec1.pem"), P256),
        ("SEC 1 P-384", file!("p384_sec1.pem"), P384),
        ("SEC 1 P-521", file!("p521_sec1.pem"), P521),
        ("OpenSSH P-256", file!("p256_openssh"), P256),
        ("OpenSSH P-384", file!("p384_openssh"), P384),
        ("OpenSSH P-521", file!("p521_openssh"), P521),
    ] {
        let key = parse_private(octets).unwrap();
        assert_eq!(fingerprint(&key.public()), expected, "{name}");
        let again = parse_private(key.to_pkcs8_pem().as_bytes()).unwrap();
        assert_eq!(again.public(), key.public(), "{name}");
    }
}

#[test]
fn what_is_written_is_what_others_write() {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    let rsa = parse_private(file!("rsa_pkcs8.pem")).unwrap();
    let ed25519 = parse_private(file!("ed25519_openssh")).unwrap();
    let ssl = parse_private(file!("ed25519_pkcs8.pem")).unwrap();
    assert_eq!(rsa.public().to_pem(), text(file!("rsa_spki.pem")));
    assert_eq!(*rsa.to_pkcs8_pem(), text(file!("rsa_pkcs8.pem")));
    assert_eq!(ssl.public().to_pem(), text(file!("ed25519_spki.pem")));
    assert_eq!(*ssl.to_pkcs8_pem(), text(file!("ed25519_pkcs8.pem")));
    assert_eq!(
        rsa.public().to_openssh("hostB"),
        text(file!("rsa.pub")).trim()
    );
    assert_eq!(
        ed25519.public().to_openssh("hostA"),
        text(file!("ed25519.pub")).trim()
    );
    let dns = rsa.public().to_rfc3110();
    assert_eq!(dns.as_deref(), Some(text(file!("rsa_rfc3110.txt")).trim()));
    assert_eq!(ed25519.public().to_rfc3110(), None);
    assert!(!ed25519.public().to_openssh("").ends_with(' '));
    for (pkcs8, spki, line) in [
        (
            file!("p256_pkcs8.pem"),
            file!("p256_spki.pem"),
            file!("p256.pub"),
        ),
        (
            file!("p384_pkcs8.pem"),
            file!("p384_spki.pem"),
            file!("p384.pub"),
        ),
        (
            file!("p521_pkcs8.pem"),
            file!("p521_spki.pem"),
            file!("p521.pub"),
        ),
    ] {
        let key = parse_private(pkcs8).unwrap();
        assert_eq!(*key.to_pkcs8_pem(), text(pkcs8));
        assert_eq!(key.public().to_pem(), text(spki));
        assert_eq!(key.public().to_openssh("host"), text(line).trim());
    }
}

#[test]
fn der_and_text_encodings_of_it() {
    use base64ct::{Base64, Encoding};
    let key = parse_public(file!("rsa_spki.pem")).unwrap();
    let der = key.to_spki_der();
    let base64 = Base64::encode_string(&der);
    let broken_lines = base64
        .as_bytes()
        .chunks(60)
        .map(|line| [line, b"\n"].concat());
    let hex = hex::encode(&der);
    for (name, octets) in [
        ("DER", der.clone()),
        ("base64", base64.clone().into_bytes()),
        ("base64 in lines", broken_lines.collect::<Vec<_>>().concat()),
        ("0s", format!("0s{base64}").into_bytes()),
        ("0x", format!("0x{hex}").into_bytes()),
        (
            "0x with colons",
            format!("0x{}:{}", &hex[..20], &hex[20..]).into_bytes(),
        ),
    ] {
        assert_eq!(parse_public(&octets).as_ref(), Ok(&key), "{name}");
    }
    let pkcs8 = parse_private(file!("rsa_pkcs8.pem"))
        .unwrap()
        .to_pkcs8_pem();
    let lines: String = pkcs8
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let der = Base64::decode_vec(&lines).unwrap();
    assert_eq!(parse_private(&der).unwrap().public(), key);
}

/// Flags 257 (or 256), protocol 3, algorithm 8 or 15; RFC 4034 section 2.1.
#[test]
fn dnskey_records() {
    use base64ct::{Base64, Encoding};
    let text = String::from_utf8(file!("rsa_rfc3110.txt").to_vec()).unwrap();
    let rfc3110 = Base64::decode_vec(text.trim().trim_start_matches("0s")).unwrap();
    let record = |header: &[u8], key: &[u8]| {
        let octets = [header, key].concat();
        parse_public(format!("0s{}", Base64::encode_string(&octets)).as_bytes())
    };
    let rsa = record(&[1, 1, 3, 8], &rfc3110).unwrap();
    assert_eq!(fingerprint(&rsa), RSA);
    let PublicKey::Ed25519(raw) = parse_public(file!("ed25519.pub")).unwrap() else {
        panic!("not Ed25519");
    };
    let ed25519 = record(&[1, 0, 3, 15], raw.as_bytes()).unwrap();
    assert_eq!(fingerprint(&ed25519), ED25519_SSH);
    let other = record(&[1, 1, 3, 12], &[1; 64]);
    assert_eq!(
        other,
        Err(KeyFileError::KeyType("DNSSEC algorithm 12".into()))
    );
    // RFC 6605: the coordinates alone; and as others write it, the point of SEC 1.
    for (octets, algorithm, expected) in [
        (file!("p256.pub"), &[1, 1, 3, 13][..], P256),
        (file!("p384.pub"), &[1, 1, 3, 14], P384),
        (file!("p521.pub"), &[], P521),
    ] {
        let PublicKey::Ecdsa(key) = parse_public(octets).unwrap() else {
            panic!("not ECDSA");
        };
        let point = key.point();
        assert_eq!(fingerprint(&record(&[], &point).unwrap()), expected);
        let ecdsa = record(algorithm, &point[1..]).unwrap();
        assert_eq!(fingerprint(&ecdsa), expected);
        let nowhere = record(&[], &[&point[..point.len() - 1], &[0]].concat());
        assert_eq!(nowhere, Err(KeyFileError::Bad(BadKey::Point(key.curve()))));
    }
    // An exponent with its length in three octets.
    let long = [&[0, 0, 3, 1, 0, 1], &rfc3110[4..]].concat();
    assert_eq!(fingerprint(&record(&[], &long).unwrap()), RSA);
}

#[test]
fn files_that_are_not_what_belongs_there_say_what_they_are() {
    for (octets, said) in [
        (
            file!("rsa_pkcs8_encrypted.pem"),
            "an encrypted private key (PKCS#8)",
        ),
        (
            file!("rsa_pkcs1_encrypted.pem"),
            "an encrypted private key (PEM with Proc-Type)",
        ),
        (
            file!("ed25519_openssh_encrypted"),
            "an encrypted private key (OpenSSH)",
        ),
        (
            file!("secp256k1_pkcs8.pem"),
            "a key of type ECDSA on another curve",
        ),
        (
            file!("secp256k1_sec1.pem"),
            "a key of type ECDSA on another curve",
        ),
        (
            file!("rsa_spki.pem"),
            "looks like a PEM PUBLIC KEY; expected a private key",
        ),
        (
            file!("certificate.pem"),
            "looks like a PEM CERTIFICATE; expected a private key",
        ),
        (
            file!("rsa.pub"),
            "looks like an OpenSSH public key; expected a private key",
        ),
        (
            file!("rsa1024_pkcs1.pem"),
            "the RSA key has 1024 bits; 2048 to 8192 are accepted",
        ),
        (b"", "it is empty; expected a private key"),
        (b" \n", "it is empty; expected a private key"),
        (
            b"secret",
            "it has no form that obol knows; expected a private key",
        ),
        (
            b"\xff\x00",
            "it has no form that obol knows; expected a private key",
        ),
    ] {
        let error = parse_private(octets).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    for (octets, said) in [
        (
            file!("rsa_pkcs8.pem"),
            "looks like a PEM PRIVATE KEY; expected a public key",
        ),
        (
            file!("ed25519_openssh"),
            "looks like a PEM OPENSSH PRIVATE KEY; expected a public",
        ),
        (
            file!("certificate.pem"),
            "looks like a PEM CERTIFICATE; expected a public key",
        ),
        (
            file!("secp256k1_spki.pem"),
            "a key of type ECDSA on another curve",
        ),
        (
            b"sk-ssh-ed25519@openssh.com AAAA",
            "a key of type sk-ssh-ed25519@openssh.com",
        ),
        (
            b"ecdsa-sha2-nistp256 AAAA",
            "looks like an OpenSSH public key, but it is damaged",
        ),
        (b"ssh-dss AAAA", "a key of type ssh-dss"),
        (
            b"ssh-ed25519",
            "looks like an OpenSSH public key, but it is damaged",
        ),
        (
            b"ssh-ed25519 AAAA",
            "looks like an OpenSSH public key, but it is damaged",
        ),
        (
            b"0sBwE=",
            "an encoded public key (0s or 0x), but it is damaged",
        ),
        (
            b"0s!",
            "an encoded public key (0s or 0x), but it is damaged",
        ),
        (
            b"0x123",
            "an encoded public key (0s or 0x), but it is damaged",
        ),
        (b"0s", "an encoded public key (0s or 0x), but it is damaged"),
        (b"", "it is empty; expected a public key"),
        (
            b"AQID",
            "it has no form that obol knows; expected a public key",
        ),
        (
            b"\xff\x00",
            "it has no form that obol knows; expected a public key",
        ),
    ] {
        let error = parse_public(octets).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn text_around_a_pem_block_does_no_harm() {
    let mut text = b"Public-Key: (2048 bit)\n\n".to_vec();
    text.extend(file!("rsa_spki.pem"));
    text.extend(b"-----BEGIN NONSENSE-----\n");
    assert_eq!(fingerprint(&parse_public(&text).unwrap()), RSA);
    let windows = String::from_utf8(file!("rsa_spki.pem").to_vec()).unwrap();
    let windows = windows.replace('\n', "\r\n");
    assert_eq!(fingerprint(&parse_public(windows.as_bytes()).unwrap()), RSA);
}

/// Cut anywhere, a file is refused, and never as a key of another value.
#[test]
fn cut_files_are_refused() {
    for octets in [
        file!("ed25519_openssh"),
        file!("ed25519_pkcs8.pem"),
        file!("rsa_pkcs1.pem"),
        file!("rsa_openssh"),
        file!("p256_sec1.pem"),
        file!("p384_pkcs8.pem"),
        file!("p521_openssh"),
    ] {
        for end in (0..octets.len() - 3).step_by(7) {
            assert!(parse_private(&octets[..end]).is_err(), "{end}");
        }
    }
}

/// Another octet anywhere in the numbers of a private key: they must belong together.
#[test]
fn damaged_private_keys_are_refused() {
    use base64ct::{Base64, Encoding};
    for (octets, label) in [
        (file!("rsa_pkcs1.pem"), "RSA PRIVATE KEY"),
        (file!("rsa_openssh"), "OPENSSH PRIVATE KEY"),
        (file!("ed25519_openssh"), "OPENSSH PRIVATE KEY"),
        (file!("p256_openssh"), "OPENSSH PRIVATE KEY"),
        (file!("p384_pkcs8.pem"), "PRIVATE KEY"),
    ] {
        let text = String::from_utf8(octets.to_vec()).unwrap();
        let base64: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let content = Base64::decode_vec(&base64).unwrap();
        let key = parse_private(octets).unwrap().public();
        for i in (0..content.len()).step_by(content.len() / 12) {
            let mut damaged = content.clone();
            damaged[i] ^= 0x01;
            let base64 = Base64::encode_string(&damaged);
            let pem = format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n");
            // Names, comments and what can be computed again may change; the key may not.
            if let Ok(other) = parse_private(pem.as_bytes()) {
                assert_eq!(other.public(), key, "{label} {i}");
            }
        }
    }
}

#[test]
fn keys_are_made_of_the_asked_size() {
    let mut rng = ChaCha20Rng::seed_from_u64(11);
    let key = PrivateKey::generate_rsa(2048, &mut rng).unwrap();
    assert_eq!(key.public().kind(), "RSA 2048");
    for bits in [0, 1024, 2047, 8193] {
        let refused = PrivateKey::generate_rsa(bits, &mut rng);
        assert_eq!(refused.err(), Some(BadKey::RsaSize(bits)));
    }
    let one = PrivateKey::generate_ed25519(&mut rng);
    let two = PrivateKey::generate_ed25519(&mut rng);
    assert_ne!(one.public(), two.public());
    for (curve, kind) in [
        (Curve::P256, "ECDSA P-256"),
        (Curve::P384, "ECDSA P-384"),
        (Curve::P521, "ECDSA P-521"),
    ] {
        let key = PrivateKey::generate_ecdsa(curve, &mut rng);
        assert_eq!(key.public().kind(), kind);
    }
}

#[test]
fn ecdsa_signatures_verify_and_are_of_their_form() {
    use SignatureScheme as S;
    let mut rng = ChaCha20Rng::seed_from_u64(13);
    let sets = [
        (file!("p256_sec1.pem"), 64, S::EcdsaP256),
        (file!("p384_sec1.pem"), 96, S::EcdsaP384),
        (file!("p521_sec1.pem"), 132, S::EcdsaP521),
    ];
    for (octets, fixed, old) in sets {
        let key = parse_private(octets).unwrap();
        let schemes = [S::EcdsaSha256, S::EcdsaSha384, S::EcdsaSha512, old];
        for scheme in schemes.into_iter().filter(|&one| key.public().fits(one)) {
            let signature = key.sign(scheme, b"octets", &mut rng).unwrap();
            if scheme == old {
                assert_eq!(signature.len(), fixed, "RFC 4754 section 7");
            }
            for other in schemes {
                let verified = key.public().verify(other, b"octets", &signature);
                assert_eq!(verified.is_ok(), other == scheme, "{scheme} as {other}");
            }
            let changed = key.public().verify(scheme, b"octet", &signature);
            assert!(changed.is_err());
        }
    }
}

#[test]
fn a_key_signs_only_with_its_schemes_and_hides_itself() {
    let mut rng = ChaCha20Rng::seed_from_u64(12);
    let rsa = parse_private(file!("rsa_pkcs8.pem")).unwrap();
    let ed25519 = parse_private(file!("ed25519_pkcs8.pem")).unwrap();
    let wrong = rsa.sign(SignatureScheme::Ed25519, b"octets", &mut rng);
    assert_eq!(wrong, Err(SignError::Scheme));
    let wrong = ed25519.sign(SignatureScheme::RsaPssSha256, b"octets", &mut rng);
    assert_eq!(wrong, Err(SignError::Scheme));
    let p521 = parse_private(file!("p521_openssh")).unwrap();
    for scheme in [SignatureScheme::EcdsaSha256, SignatureScheme::EcdsaP256] {
        let wrong = p521.sign(scheme, b"octets", &mut rng);
        assert_eq!(wrong, Err(SignError::Scheme), "{scheme}");
    }
    let shown = format!("{rsa:?} {ed25519:?}");
    assert_eq!(
        shown,
        "PrivateKey(RSA 2048 SHA256:cb70f53bdb0ad134, ..) \
         PrivateKey(Ed25519 SHA256:7e9bed448a7b7448, ..)"
    );
}
