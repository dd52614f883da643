//! The only unsafe code: system calls for which no safe wrapper exists. Every block argues for itself.
#![expect(unsafe_code, reason = "the rest of the crate denies it")]

pub(crate) mod inbox;
pub(crate) mod msg;
pub(crate) mod netns;
pub(crate) mod outbox;
pub(crate) mod sockopt;
pub(crate) mod steer;
pub(crate) mod tun;
pub(crate) mod watch;
