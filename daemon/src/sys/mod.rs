//! The only unsafe code: system calls for which no safe wrapper exists.

pub(crate) mod msg;
pub(crate) mod netns;
pub(crate) mod sockopt;
pub(crate) mod tun;
pub(crate) mod watch;
