//! IKEv2 (RFC 7296) as a state machine without I/O.
//!
//! ```text
//!  datagram, now, command, answer -> [ Endpoint ] -> datagrams, questions, events, deadline
//! ```
#![forbid(unsafe_code)]

pub mod auth;
pub mod config;
pub mod crypto;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod identity;
pub mod keys;
pub mod proposal;
pub mod status;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timer;
pub mod ts;
pub mod wire;
