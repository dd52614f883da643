//! ESP (RFC 4303) in place and without I/O: packets are sealed and opened inside the caller's
//! buffer. Nothing here knows who negotiated the keys, waits, allocates per packet or logs.
//!
//! ```text
//!  IP packet in a buffer    -> [ Outbound::seal ] -> ESP from SPI to ICV, same buffer
//!  ESP datagram in a buffer -> [ Inbound::open  ] -> IP packet, same buffer
//! ```
//!
//! The caller builds the outer IP header (a socket does), picks the SA ([`Spd`] on the way out,
//! [`Sad`] on the way in) and keeps [`HEADROOM`] and [`TAILROOM`] octets free around a packet.
#![forbid(unsafe_code)]

mod cipher;
mod ecn;
mod error;
mod flow;
mod frame;
mod fuzz;
mod inbound;
mod index;
mod ip;
mod join;
mod lifetime;
mod offload;
mod outbound;
mod params;
mod replay;
mod run;
mod sad;
mod selector;
mod seq;
mod spd;
#[cfg(test)]
mod testing;
mod transport;
mod tunnel;
mod wire;

pub use cipher::Backend;
pub use error::{FrameError, KeyError, OpenError, PacketError, SealError, SelectorError};
pub use flow::{FlowKey, IpInfo};
pub use frame::Frame;
pub use fuzz::fuzz_input;
pub use inbound::{Inbound, Opened, Outer};
pub use index::Index;
pub use join::Joiner;
pub use lifetime::Usage;
pub use offload::{Kind, Offload};
pub use outbound::{Outbound, Plan, Sealed};
pub use params::{Hash, Limits, Mode, SaParams, Suite};
pub use run::Run;
pub use sad::Sad;
pub use selector::{Selector, Selectors};
pub use spd::Spd;
pub use wire::{UdpKind, classify_udp, spi_of};

/// Octets the caller keeps free before a packet that [`Outbound::seal`] gets, and before the SPI
/// of a datagram that [`Inbound::open`] gets.
///
/// Sealing needs an ESP header and an IV (24). Opening in transport mode writes an IPv6 header
/// (40) before a payload that can lie only 16 octets after the SPI. The rest is slack for the
/// caller's own prefix, such as a UDP or a virtio header.
pub const HEADROOM: usize = 64;

/// Octets the caller keeps free after a packet that [`Outbound::seal`] gets: padding (at most
/// 15), Pad Length and Next Header (2), ICV (at most 32).
pub const TAILROOM: usize = 64;

/// Octets of the shortest ICV of any suite. In a row of datagrams, one that was opened already
/// leaves at least so many before the next.
pub const ICV_MIN: usize = 16;
