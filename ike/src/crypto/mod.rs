//! The algorithms behind IKEv2: PRF, encryption, integrity, key exchange, signatures.

mod algorithm_identifier;
mod cbc;
pub mod encr;
pub mod ke;
mod modp;
pub mod prf;
pub mod secret;
pub mod signature;
