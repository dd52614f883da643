//! The control socket: how commands reach a running daemon.

pub(crate) mod protocol;
