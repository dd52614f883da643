//! The algorithms behind IKEv2: PRF, encryption, integrity, key exchange, signatures.

pub mod secret;
pub mod signature;
