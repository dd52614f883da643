//! Signatures that authenticate an IKE SA (RFC 7427, RFC 8420) and the keys that verify them.

use std::sync::Arc;

/// A public key that has passed its sanity checks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PublicKey {
    /// RSA, 2048 to 8192 bits, public exponent odd and at least 65537.
    Rsa(Arc<rsa::RsaPublicKey>),
    /// Ed25519, RFC 8032.
    Ed25519(ed25519_dalek::VerifyingKey),
}

/// How a signature is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5 with SHA-1, AUTH method 1. Only by explicit option.
    RsaPkcs1Sha1,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA-256, MGF1 with the same hash, salt of the hash's length.
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384.
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512.
    RsaPssSha512,
    /// Ed25519 over the octets themselves (hash "Identity", RFC 8420).
    Ed25519,
}
