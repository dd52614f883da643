//! The control socket: how commands reach a running daemon.

pub(crate) mod describe;
pub(crate) mod protocol;
mod server;

pub(crate) use server::{Call, Server};
