//! Known answers of the algorithms that are offered by default or on request, computed anew at each start: a
//! build or a processor that computes wrongly must not negotiate anything. Of algorithms that
//! share their code (the MODP groups, the hashes of RSA) one stands for the others.

use sha2::{Digest, Sha256};

use super::encr::IkeCipher;
use super::ke::KeyExchange;
use super::prf::Prf;
use super::secret::Secret;
use super::signature::{PublicKey, SignatureScheme};
use crate::proposal::Encr;
use crate::wire::{IntegId, KeMethod, PrfId};

/// One test: its name, and whether the answer is the known one.
type Test = (&'static str, fn() -> bool);

const TESTS: &[Test] = &[
    ("HMAC-SHA2-256", || prf(PrfId::HMAC_SHA2_256, HMAC_SHA256)),
    ("HMAC-SHA2-384", || prf(PrfId::HMAC_SHA2_384, HMAC_SHA384)),
    ("HMAC-SHA2-512", || prf(PrfId::HMAC_SHA2_512, HMAC_SHA512)),
    ("AES-GCM-16 128", || aead(Encr::AES128_GCM16, AES_128_GCM)),
    ("AES-GCM-16 256", || aead(Encr::AES256_GCM16, AES_256_GCM)),
    ("ChaCha20-Poly1305", || {
        aead(Encr::CHACHA20_POLY1305, CHACHA20)
    }),
    ("AES-CBC 128, HMAC-SHA2-256-128", || {
        cbc(
            Encr::AES128_CBC,
            IntegId::HMAC_SHA2_256_128,
            32,
            AES_128_CBC,
        )
    }),
    ("AES-CBC 192, HMAC-SHA2-384-192", || {
        cbc(
            Encr::AES192_CBC,
            IntegId::HMAC_SHA2_384_192,
            48,
            AES_192_CBC,
        )
    }),
    ("AES-CBC 256, HMAC-SHA2-512-256", || {
        cbc(
            Encr::AES256_CBC,
            IntegId::HMAC_SHA2_512_256,
            64,
            AES_256_CBC,
        )
    }),
    ("3DES-CBC, HMAC-SHA2-256-128", || {
        cbc(
            Encr::TRIPLE_DES_CBC,
            IntegId::HMAC_SHA2_256_128,
            32,
            TRIPLE_DES_CBC,
        )
    }),
    ("Curve25519", || {
        ke(
            KeMethod::CURVE25519,
            X25519_PRIVATE,
            X25519_PEER,
            X25519_SHARED,
        )
    }),
    ("ECP-256", || {
        ke(KeMethod::ECP_256, P256_PRIVATE, P256_PEER, P256_SHARED)
    }),
    ("ECP-384", || {
        ke(KeMethod::ECP_384, P384_PRIVATE, P384_PEER, P384_SHARED)
    }),
    ("ECP-521", || {
        ke(KeMethod::ECP_521, P521_PRIVATE, P521_PEER, P521_SHARED)
    }),
    ("MODP-2048", modp),
    ("Ed25519", ed25519),
    ("RSA PKCS#1 v1.5", || {
        rsa(SignatureScheme::RsaPkcs1Sha256, RSA_PKCS1_SIGNATURE)
    }),
    ("RSA PSS", || {
        rsa(SignatureScheme::RsaPssSha256, RSA_PSS_SIGNATURE)
    }),
];

/// Computes all known answers.
///
/// # Errors
/// The names of the algorithms whose answer is wrong.
pub fn self_test() -> Result<(), Vec<&'static str>> {
    let failed: Vec<_> = TESTS
        .iter()
        .filter(|(_, test)| !test())
        .map(|(name, _)| *name)
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed)
    }
}

fn prf(id: PrfId, expected: &str) -> bool {
    Prf::new(id).is_some_and(|prf| {
        let mac = prf.compute(&[0x0b; 20], &[b"Hi ", b"There"]);
        mac.expose() == octets(expected)
    })
}

fn aead(encr: Encr, expected: &str) -> bool {
    let mut key = counting(0, usize::from(encr.key_bits) / 8);
    key.extend([0xa0, 0xa1, 0xa2, 0xa3]);
    cipher(encr, IntegId::NONE, key, Vec::new(), expected)
}

fn cbc(encr: Encr, integ: IntegId, integ_len: usize, expected: &str) -> bool {
    let key = counting(0, usize::from(encr.key_bits) / 8);
    cipher(encr, integ, key, counting(0x80, integ_len), expected)
}

fn cipher(encr: Encr, integ: IntegId, key: Vec<u8>, integ_key: Vec<u8>, expected: &str) -> bool {
    const PLAINTEXT: &[u8] = b"obol protects flows";
    let (key, integ_key) = (Secret::new(key), Secret::new(integ_key));
    let Ok(cipher) = IkeCipher::new(encr, integ, &key, &integ_key) else {
        return false;
    };
    let aad = counting(0, 32);
    let sealed = cipher.seal(7, &aad, PLAINTEXT);
    let mut message = [aad.clone(), sealed.clone()].concat();
    let body = aad.len()..message.len();
    let opened = cipher.open(&message, body.clone());
    message[0] ^= 1;
    sealed == octets(expected)
        && opened.as_deref() == Ok(PLAINTEXT)
        && cipher.open(&message, body).is_err()
}

fn ke(method: KeMethod, private: &str, peer: &str, expected: &str) -> bool {
    let Some(ours) = KeyExchange::from_private_octets(method, &octets(private)) else {
        return false;
    };
    ours.agree(&octets(peer))
        .is_ok_and(|shared| shared.expose() == octets(expected))
}

fn modp() -> bool {
    KeyExchange::from_private_octets(KeMethod::MODP_2048, &[0x55; 64])
        .is_some_and(|ours| Sha256::digest(ours.public()).as_slice() == octets(MODP_2048_PUBLIC))
}

fn ed25519() -> bool {
    let Ok(key) = PublicKey::ed25519(&octets(ED25519_PUBLIC)) else {
        return false;
    };
    verifies(&key, SignatureScheme::Ed25519, ED25519_SIGNATURE)
}

fn rsa(scheme: SignatureScheme, signature: &str) -> bool {
    let Ok(key) = PublicKey::rsa(&octets(RSA_MODULUS), &[1, 0, 1]) else {
        return false;
    };
    verifies(&key, scheme, signature)
}

/// The right octets verify, and others do not.
fn verifies(key: &PublicKey, scheme: SignatureScheme, signature: &str) -> bool {
    let signature = octets(signature);
    key.verify(scheme, b"obol", &signature).is_ok()
        && key.verify(scheme, b"oboe", &signature).is_err()
}

fn counting(from: u8, len: usize) -> Vec<u8> {
    (from..=u8::MAX).take(len).collect()
}

/// The octets of one of the constants below.
fn octets(hex: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).unwrap_or(0) as u8;
    hex.as_bytes()
        .chunks_exact(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

// HMAC: RFC 4231 section 4.2.
/// Key of twenty 0x0b, "Hi There".
const HMAC_SHA256: &str = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
/// Likewise.
const HMAC_SHA384: &str = concat!(
    "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f",
    "4af152e8b2fa9cb6",
);
/// Likewise.
const HMAC_SHA512: &str = concat!(
    "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702",
    "038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
);

// SK payloads: key 00 01 02.., salt a0 a1 a2 a3, integrity key 80 81 82.., 32 octets 00 01 02.. before
// the IV, counter 7, "obol protects flows"; computed with Python's `cryptography` and `hmac`.
/// IV, ciphertext, ICV.
const AES_128_GCM: &str = concat!(
    "000000000000000753d58c9cffa0851c051c9eddce9df656d3ee004daed0fffb687bc5a55fd97bce",
    "4246ce4e",
);
/// IV, ciphertext, ICV.
const AES_256_GCM: &str = concat!(
    "00000000000000071f195350769289ba1d3af910449b70f56d034a96e737d060e1f8c291e1b8cfe4",
    "47a7e5dc",
);
/// IV, ciphertext, ICV.
const CHACHA20: &str = concat!(
    "0000000000000007c3f9d5fb9f7ce7b65bdd55988ed0b55543ef836d9b4bf244446343a10c59fc7e",
    "3d2b8536",
);
/// IV, ciphertext, ICV.
const AES_128_CBC: &str = concat!(
    "840541a586adb85cbdcb7cad2badb744860cdef14003e3bb693ac17de727518872f90f6a808d67c3",
    "700cf3d9125ab9ff45310e3fdf8f5ff1d6b27198f79db393",
);
/// IV, ciphertext, ICV.
const AES_192_CBC: &str = concat!(
    "a26571ba84f57f2fa5a11152b8280e922d49b4ecc7a72946afc31bbba00d1a905634700920e1fa1b",
    "c8acec6c39142a1ef703f5f07e37e21b46dffb149fe4a37f9f7cd06b8b08deb5",
);
/// IV, ciphertext, ICV.
const AES_256_CBC: &str = concat!(
    "f6df81049e831f422078b345ae79864c671fd14a48e169f49104609c9eacc8f15d7086460b745a41",
    "11a7478becceb14b1b0ac3a79c218022a13dca93c7eda10cdd1471db04781fcaab43acdc1bc2bacd",
);
/// IV, ciphertext, ICV.
const TRIPLE_DES_CBC: &str = concat!(
    "840541a586adb85ca0efefe27c20b541ab49e9b6711c64a26de2ad1caaab9ce233ec4c02bea69886",
    "2c3b0392209202df",
);

// Key exchange.
/// RFC 5903 section 8.1, i.
const P256_PRIVATE: &str = "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433";
/// grx | gry.
const P256_PEER: &str = concat!(
    "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf6356fbf3ca366cc23e",
    "8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
);
/// girx.
const P256_SHARED: &str = "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de";
/// 01 02 03..; the peer has 40 41 42..; computed with Python's `cryptography`.
const P384_PRIVATE: &str = concat!(
    "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728",
    "292a2b2c2d2e2f30",
);
/// The peer's public value.
const P384_PEER: &str = concat!(
    "0f3b4e71292f2de3a7c7befb785008417858f3cffe8192345e11735f4e75ed8a20218bddfd9c6656",
    "943b2db8cabf2e40b3348bbbecff8a7b144d73259b20018e9f44f4dac25be0069344c0c70ef4ba5d",
    "830080a52f8a05a423b6e83b93e8923e",
);
/// The shared secret.
const P384_SHARED: &str = concat!(
    "d278922c138f3541e24e81a4a1ba00b99733b286a290532a2bee9b9bc066549bf57af9350203250e",
    "d2bff98029bfe206",
);
/// 00 01 02..; the peer has 00 40 41 42..; computed likewise.
const P521_PRIVATE: &str = concat!(
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627",
    "28292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f4041",
);
/// The peer's public value.
const P521_PEER: &str = concat!(
    "017a40fc560b1a88ed961abbcd824fc5bfcac3e1abaaa81eb3150b983b13446b9fc1a02eb32d1e9b",
    "4a7a6da9c0729478896a3edc15683d8b724d2084494cc7e542820140749091c33243332b84bb7b92",
    "c89628a259a8440e3c11c2c8230dc415b8ff9d18671d42ae820604e144f80f65c8995b22f00b1763",
    "1a2e27bf3772220869c5638e",
);
/// The shared secret.
const P521_SHARED: &str = concat!(
    "00a02ac304137017358cfa6a53ba057d2c37c1582b91e6dbfe2026d9c3b6da02dd1ba93299ea0082",
    "05078e8e0effc26451eabb25b3f1beb07017dc806364b60e76f7",
);
/// RFC 7748 section 6.1, b.
const X25519_PRIVATE: &str = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
/// K_A.
const X25519_PEER: &str = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
/// K.
const X25519_SHARED: &str = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
/// SHA-256 of 2^x mod p for x of sixty-four octets 0x55; from Python's `pow`.
const MODP_2048_PUBLIC: &str = "97415a584882b8a1979bcc980d0a7aff740a0f12c4b4fca8a857e7802d3dc898";

// Signatures of "obol", made with Python's `cryptography`.
/// Of the seed 00 01 02..
const ED25519_PUBLIC: &str = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
/// Deterministic.
const ED25519_SIGNATURE: &str = concat!(
    "bdbc606ef9e1d9ffb0f068951ad5d661ba8eca6b5d4bca56f271f20ddd8791eff8f6618d9f892e10",
    "e7fa3d9ea6a048149a3aac7c56962736798d7ee6cf0d9e00",
);
/// 2048 bits; the exponent is 65537.
const RSA_MODULUS: &str = concat!(
    "d0ec4670026712bb32d2bf103d5fb292ae99b906ad27bbc8bb24baf6612b439094987139a6b96dda",
    "0a057efc78f0aca28f7f2e7eb401caa749c54ee9f333fb95e63f2880ca2505f9ef7230b5f41d3213",
    "fd82c0c026840bf044a907fd757583451c919e63125c87a1628fcf0fb99611ff1509c18725f56ae9",
    "93373f921e00a9f5f88ab35a4c87d056588c9029c9432b5f84a5c5c219b57c761d0683de4e720f9f",
    "fa389d9cdd20a6d67c908d782e929a42691c752813d4d44c9243733f1c34260c85c01f436fb29f19",
    "2315f0aa786b6c7c64fa455719e4a88e21e23da9694c130444e6720954b0d3634bb362aa54faebc2",
    "d5cbf394488c0d9cc3086018154b5d57",
);
/// RSASSA-PKCS1-v1_5 with SHA-256.
const RSA_PKCS1_SIGNATURE: &str = concat!(
    "2dd4999f3d559b39f1b3fd470274286d157da4218d40cf0e2fc5fa24ee2cc4b3b91aa274279f5df2",
    "9ada1dd4b11190320b39b6180f3b997097a8052df503c90054d97fa79927f838d08e333279a12d03",
    "d95bdb4245ac6f22065f33479e7baec96d3eac4ca5ce1896d0378627fca00fc35e3015c6eb516e6a",
    "4d887fec1cebade44236ed47c2054ee964d18833b41db753da445fd199ca1ed1ec46d8eefb6e3bce",
    "0873078f06aaaa5f478725cb63e417faee9681e4c89f79143708362943b7a9ec24e0385b5bec49bf",
    "61c004e4f0d774ce5297ed6ddb8d7b912399f14a280d66242885442a22e7b29007031e4d41c87d37",
    "26eec086284e37e92d21bb25fcfa7c2a",
);
/// RSASSA-PSS with SHA-256, salt of 32 octets.
const RSA_PSS_SIGNATURE: &str = concat!(
    "84e759ead8e34c4f88cac2c5ae804876b019fff271e9b1e2df8db3c27e9ab3315c03784bd613dbfc",
    "488df5e06e46e21f9c52181663797f2017667033df12ec3a780e867b13b91a94018a72dc3e404b55",
    "a31ec3c5d71d5a1fd6db178b06113fcb8b99e29cf7f654674e0be6a6ecc69aa3e24568685e8ac7c3",
    "1aaac31a5435e488de75174c4084dcaf9d3daba03a2d69b4c59c4c526f461d1c793cdb4ab254276d",
    "bad54b339f4bd7cbc85a6b21f0a8c39d25efcf9b8af52a2f54f20d2d3e40ae20c253b27890385fbb",
    "0f4d541ef0d3c89bd4af05e09ae094b9d49d12723b593a8356335ae8d70b70e90b00b2adb152ff46",
    "b691f1aed5fa1f4475ede1f7643699f2",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_algorithm_runs_a_known_answer_at_start() {
        assert_eq!(self_test(), Ok(()));
        // Algorithms of one family share their code, by the table above.
        let families = [
            ("gcm16", "AES-GCM-16"),
            ("chacha20poly1305", "ChaCha20-Poly1305"),
            ("aes", "AES-CBC"),
            ("sha2256", "HMAC-SHA2-256"),
            ("sha2384", "HMAC-SHA2-384"),
            ("sha2512", "HMAC-SHA2-512"),
            ("curve25519", "Curve25519"),
            ("ecp256", "ECP-256"),
            ("ecp384", "ECP-384"),
            ("ecp521", "ECP-521"),
            ("modp", "MODP"),
        ];
        let ike = crate::proposal::IkeProposal::defaults();
        let named = ike.iter().flat_map(|proposal| {
            let encr = proposal.encr.iter().map(ToString::to_string);
            let integ = proposal.integ.iter().map(ToString::to_string);
            let prf = proposal.prf.iter().map(ToString::to_string);
            let ke = proposal.ke.iter().map(ToString::to_string);
            encr.chain(integ).chain(prf).chain(ke)
        });
        for name in named {
            let word: String = name.to_lowercase().replace(['_', '-'], "");
            let shared = families.iter().find(|(family, _)| word.contains(family));
            let (_, test) = shared.unwrap_or_else(|| panic!("{name} has no known answer"));
            assert!(
                TESTS.iter().any(|(tested, _)| tested.contains(test)),
                "{name}"
            );
        }
    }

    #[test]
    fn another_answer_is_noticed() {
        assert!(!prf(PrfId::HMAC_SHA2_256, HMAC_SHA384));
        assert!(!aead(Encr::AES128_GCM16, AES_256_GCM));
        assert!(!ke(
            KeMethod::ECP_256,
            P256_PRIVATE,
            P256_PEER,
            X25519_SHARED
        ));
        assert!(!rsa(SignatureScheme::RsaPssSha256, RSA_PKCS1_SIGNATURE));
    }
}
