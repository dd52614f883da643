//! The cryptography of a handshake alone, by the crates that obol uses, of both ends together.

use std::hint::black_box;
use std::time::Instant;

use aes_gcm::aead::consts::U12;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::signature::{PublicKey, SignatureScheme};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::ends::SECRET;

/// Octets of the two nonces.
const NONCES: usize = 64;
/// Octets of SK_d, SK_ei, SK_er, SK_pi and SK_pr with HMAC-SHA-256 and AES-256-GCM.
const IKE_KEYS: usize = 3 * 32 + 2 * 36;
/// Octets of the keys of one child with AES-256-GCM.
const CHILD_KEYS: usize = 2 * 36;
/// Octets of an identity payload without its header, about.
const ID: usize = 24;
/// Octets of a NAT detection hash's input: SPIs, address, port.
const NAT: usize = 22;

/// Lengths of the four datagrams of a handshake, in their order.
pub(crate) type Datagrams = [usize; 4];

/// One kind of operation.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// How often a handshake needs it, both ends together.
    pub(crate) count: usize,
    run: Box<dyn FnMut()>,
    /// Microseconds of each, so often as it was run.
    times: Vec<f64>,
}

impl Operation {
    fn new(name: &'static str, count: usize, run: impl FnMut() + 'static) -> Self {
        Self {
            name,
            count,
            run: Box::new(run),
            times: Vec::new(),
        }
    }

    /// Runs it as often as a handshake needs it. Microseconds that it took.
    fn run(&mut self) -> f64 {
        let before = self.times.len();
        for _ in 0..self.count {
            let start = Instant::now();
            (self.run)();
            self.times.push(start.elapsed().as_nanos() as f64 / 1000.0);
        }
        self.times[before..].iter().sum()
    }

    /// Microseconds of one.
    pub(crate) fn each(&mut self) -> f64 {
        crate::tenth(&mut self.times)
    }
}

/// Does what one handshake has to compute, one after the other: a handshake does not have the same
/// operation many times in a row either. Microseconds that it took.
pub(crate) fn round(operations: &mut [Operation]) -> f64 {
    operations.iter_mut().map(Operation::run).sum()
}

/// Everything that a handshake has to compute, whoever does it.
pub(crate) fn operations(key: Option<&PrivateKey>, datagrams: Datagrams) -> Vec<Operation> {
    let signed = datagrams[0] + 64;
    let mut all = key_exchange();
    all.extend([
        Operation::new("SKEYSEED", 2, hmac(NONCES, 32)),
        Operation::new("prf+ of the IKE SA", 2, prf_plus(IKE_KEYS)),
        Operation::new("prf+ of the child", 2, prf_plus(CHILD_KEYS)),
        Operation::new("prf of an identity", 4, hmac(32, ID)),
        Operation::new("SHA-1 for NAT detection", 8, || {
            black_box(Sha1::digest(black_box([7; NAT])));
        }),
    ]);
    all.extend(protection(datagrams));
    match key {
        None => all.extend([
            Operation::new("prf of the secret", 4, hmac(SECRET.len(), 17)),
            Operation::new("prf of the signed octets", 4, hmac(32, signed)),
        ]),
        Some(key) => all.extend(signatures(key, signed)),
    }
    all
}

fn key_exchange() -> Vec<Operation> {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut draw = move || {
        let mut octets = [0; 32];
        rng.fill_bytes(&mut octets);
        x25519_dalek::StaticSecret::from(octets)
    };
    let (own, peer) = (draw(), x25519_dalek::PublicKey::from(&draw()));
    vec![
        Operation::new("X25519 key", 2, move || {
            black_box(x25519_dalek::PublicKey::from(&draw()));
        }),
        Operation::new("X25519 agreement", 2, move || {
            black_box(own.diffie_hellman(black_box(&peer)));
        }),
    ]
}

fn hmac(key: usize, data: usize) -> impl FnMut() {
    let (key, data) = (vec![1; key], vec![2; data]);
    move || {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(black_box(&key));
        let mut mac = mac.expect("HMAC takes keys of any length");
        mac.update(&data);
        black_box(mac.finalize());
    }
}

fn prf_plus(len: usize) -> impl FnMut() {
    let (key, seed, mut out) = ([1; 32], [2; NONCES + 16], vec![0; len]);
    move || {
        let prf = Hkdf::<Sha256>::from_prk(black_box(&key)).expect("as long as the hash");
        prf.expand(&seed, &mut out).expect("few blocks");
        black_box(&out);
    }
}

/// IKE_AUTH: each end seals one message and opens one.
fn protection(datagrams: Datagrams) -> Vec<Operation> {
    // The header of IKE and of SK are not encrypted, IV and ICV are no plaintext.
    let plain = |len: usize| vec![3_u8; len - 28 - 4 - 8 - 16];
    let (request, reply) = (plain(datagrams[2]), plain(datagrams[3]));
    let new = || Aes256Gcm::new_from_slice(black_box(&[5; 32])).expect("32 octets");
    let nonce = Nonce::<U12>::default();
    let seal = move |cipher: &Aes256Gcm, plain: &[u8]| {
        let mut buffer = plain.to_vec();
        let tag = cipher
            .encrypt_inout_detached(&nonce, &[4; 32], buffer.as_mut_slice().into())
            .expect("short enough");
        (buffer, tag)
    };
    let sealed = [&request, &reply].map(|plain| seal(&new(), plain));
    let (sealer, opener) = (new(), new());
    vec![
        Operation::new("AES-256-GCM key", 4, move || {
            black_box(new());
        }),
        Operation::new("AES-256-GCM seal, both messages", 1, move || {
            black_box(seal(&sealer, &request));
            black_box(seal(&sealer, &reply));
        }),
        Operation::new("AES-256-GCM open, both messages", 1, move || {
            for (buffer, tag) in &sealed {
                let mut buffer = buffer.clone();
                opener
                    .decrypt_inout_detached(&nonce, &[4; 32], buffer.as_mut_slice().into(), tag)
                    .expect("sealed above");
                black_box(buffer);
            }
        }),
    ]
}

fn signatures(key: &PrivateKey, signed: usize) -> Vec<Operation> {
    let public = key.public();
    let scheme = match public {
        PublicKey::Rsa(_) => SignatureScheme::RsaPssSha256,
        PublicKey::Ed25519(_) => SignatureScheme::Ed25519,
        PublicKey::Ecdsa(_) => SignatureScheme::EcdsaSha256,
    };
    let octets = vec![6; signed];
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let key = crate::again(key);
    let made = key.sign(scheme, &octets, &mut rng).expect("a fitting key");
    let verified = octets.clone();
    vec![
        Operation::new("signature", 2, move || {
            black_box(key.sign(scheme, &octets, &mut rng).is_ok());
        }),
        Operation::new("verification", 2, move || {
            public
                .verify(scheme, &verified, &made)
                .expect("signed above");
        }),
    ]
}
