//! Bytes to values and back: headers and payloads of IKEv2 messages. No keys, no state.
//!
//! A datagram is parsed in two steps. [`Message::parse`] checks the header and the chain of
//! payloads; [`RawPayload::decode`] reads one payload. What is encrypted is opened by the
//! caller in between ([`Message::protected`]) and then goes through [`parse_chain`].
//! Parsing and emitting are inverse: `parse(emit(x)) == x`, and a truncated message never
//! parses.

mod header;
mod message;
mod numbers;
mod payload;
mod reader;
mod writer;

pub use header::{Flags, HEADER_LEN, Header};
pub(crate) use message::{CHAIN_LEN, USUAL_PAYLOADS};
pub use message::{
    Fragment, MAX_PAYLOADS, Message, Protected, RawPayload, emit_chain, emit_message, parse_chain,
    protected_prefix,
};
pub use numbers::*;
pub use payload::{
    Auth, Cert, CertReq, Delete, Id, Ke, MAX_PROPOSALS, MAX_TRANSFORMS, Notify, Payload, Proposal,
    SelectorList, Transform, UnknownSelector,
};
pub use reader::Malformed;
pub(crate) use reader::Reader;
pub use writer::TooLong;
pub(crate) use writer::Writer;
