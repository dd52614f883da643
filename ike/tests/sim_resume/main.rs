//! Session resumption (RFC 5723): what an IKE SA that was lost is made of, and when it is made from
//! scratch instead.

mod forged;
mod hosts;
mod network;
mod resumed;
mod rules;
mod void;
