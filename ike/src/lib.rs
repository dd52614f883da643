//! IKEv2 (RFC 7296) as a state machine without I/O.
//!
//! ```text
//!  datagram, now, command, answer -> [ Endpoint ] -> datagrams, questions, events, deadline
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests start clocks and read files of their own"
    )
)]

pub mod auth;
pub mod config;
mod context;
pub mod crypto;
mod directory;
pub mod endpoint;
pub mod error;
pub mod event;
mod exchange;
mod holdings;
pub mod identity;
pub mod keys;
pub mod proposal;
mod sa;
pub mod status;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timer;
pub mod ts;
pub mod wire;
