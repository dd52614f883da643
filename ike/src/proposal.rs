//! Proposals: what an operator writes, what goes on the wire, and which of a peer's is chosen.

use crate::wire::{EncrId, IntegId, KeMethod, PrfId};

/// An encryption algorithm with its key length.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Encr {
    /// Algorithm.
    pub id: EncrId,
    /// Key length in bits, without salt. On the wire only where the algorithm has several.
    pub key_bits: u16,
}

/// Algorithms for an IKE SA, any combination of one from each list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IkeProposal {
    /// Encryption: all AEAD or none.
    pub encr: Vec<Encr>,
    /// Integrity: empty with an AEAD.
    pub integ: Vec<IntegId>,
    /// Pseudorandom function.
    pub prf: Vec<PrfId>,
    /// Key exchange.
    pub ke: Vec<KeMethod>,
}

/// Algorithms for a Child SA.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EspProposal {
    /// Encryption: all AEAD or none.
    pub encr: Vec<Encr>,
    /// Integrity: empty with an AEAD.
    pub integ: Vec<IntegId>,
    /// Key exchange for PFS; empty: none.
    pub ke: Vec<KeMethod>,
    /// Extended sequence numbers: `true` and `false` in order of preference.
    pub esn: Vec<bool>,
}
