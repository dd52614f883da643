//! What every exchange needs, whatever it negotiates: Message IDs, retransmission, cookies,
//! NAT detection, fragments, tickets, a bound on what goes to strangers.

pub(crate) mod cookie;
pub(crate) mod crash;
pub(crate) mod datagrams;
pub(crate) mod half_open;
pub(crate) mod kept;
pub(crate) mod limit;
pub(crate) mod nat;
pub(crate) mod puzzle;
pub(crate) mod reassembly;
pub(crate) mod redirect;
pub(crate) mod retransmit;
pub(crate) mod session;
pub(crate) mod tickets;
pub(crate) mod windows;
