//! What tests, fuzz targets and benches share. Behind the feature `testing`; never in a
//! shipped binary.

pub mod arbitrary;
pub mod explore;
pub mod flips;
pub mod forge;
mod fuzz;
mod fuzz_endpoint;
mod fuzz_peer;
mod invariants;
pub mod lifecycle;
pub mod net;
pub mod pair;
pub mod parallel;
pub mod plane;
pub mod scripted;
pub mod setup;
pub mod traffic;

pub use fuzz::{fuzz_datagram, fuzz_identity, fuzz_payloads, fuzz_selector};
pub use fuzz_endpoint::fuzz_endpoint;
pub use fuzz_peer::fuzz_peer;
