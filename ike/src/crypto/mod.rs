//! The algorithms behind IKEv2: PRF, encryption, integrity, key exchange, signatures.

mod algorithm_identifier;
pub(crate) mod cbc;
pub mod ecdsa;
pub mod encr;
pub mod ke;
pub mod keyfile;
mod modp;
pub mod prf;
pub mod private_key;
pub mod secret;
mod self_test;
pub mod signature;

pub use self_test::self_test;
