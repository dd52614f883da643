//! Bytes to values and back: headers and payloads of IKEv2 messages. No keys, no state.

mod numbers;

pub use numbers::*;
