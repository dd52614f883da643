//! Proposals: what an operator writes, what goes on the wire, and which of a peer's is chosen.

use std::fmt;

use crate::wire::{EncrId, IntegId, KeMethod, PrfId};

mod keywords;
mod negotiate;
mod text;

pub(crate) use negotiate::offer_text;
pub use negotiate::{
    BadAnswer, ChildExchange, ChosenEsp, ChosenIke, check_esp_answer, check_ike_answer, choose_esp,
    choose_ike,
};
pub use text::ProposalError;

/// An encryption algorithm with its key length.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Encr {
    /// Algorithm.
    pub id: EncrId,
    /// Key length in bits, without salt. On the wire only where the algorithm has several.
    pub key_bits: u16,
}

impl Encr {
    /// AES-GCM with a 16-octet ICV and a key of 128 bits.
    pub const AES128_GCM16: Self = Self::new(EncrId::AES_GCM_16, 128);
    /// AES-GCM with a 16-octet ICV and a key of 256 bits.
    pub const AES256_GCM16: Self = Self::new(EncrId::AES_GCM_16, 256);
    /// ChaCha20-Poly1305.
    pub const CHACHA20_POLY1305: Self = Self::new(EncrId::CHACHA20_POLY1305, 256);
    /// AES-CBC with a key of 128 bits.
    pub const AES128_CBC: Self = Self::new(EncrId::AES_CBC, 128);
    /// AES-CBC with a key of 192 bits.
    pub const AES192_CBC: Self = Self::new(EncrId::AES_CBC, 192);
    /// AES-CBC with a key of 256 bits.
    pub const AES256_CBC: Self = Self::new(EncrId::AES_CBC, 256);

    /// 3DES-CBC, for peers that have nothing else. Nobody gets it without asking for it: see
    /// [`Allowed`].
    pub const TRIPLE_DES_CBC: Self = Self::new(EncrId::DES3, 192);

    /// An algorithm with a key length in bits.
    pub const fn new(id: EncrId, key_bits: u16) -> Self {
        Self { id, key_bits }
    }

    /// Whether it has one key length, which then is not on the wire (RFC 7296 section 3.3.5).
    fn is_fixed(self) -> bool {
        matches!(self.id, EncrId::CHACHA20_POLY1305 | EncrId::DES3)
    }

    /// Whether it protects integrity itself, so that no integrity algorithm goes with it.
    pub fn is_aead(self) -> bool {
        matches!(self.id, EncrId::AES_GCM_16 | EncrId::CHACHA20_POLY1305)
    }
}

/// Weak algorithms that are refused unless the operator has allowed them, each by its name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Allowed {
    /// 3DES-CBC: its blocks of 64 bits collide after some GiB under one key.
    pub triple_des: bool,
}

impl Allowed {
    /// All that there are, in the words of proposals.
    pub const WORDS: [&str; 1] = ["3des"];

    /// Allows one more; `false`: there is none of this name.
    pub fn allow(&mut self, word: &str) -> bool {
        match word {
            "3des" => self.triple_des = true,
            _ => return false,
        }
        true
    }

    /// What is allowed, in the words of proposals.
    pub fn words(self) -> Vec<&'static str> {
        self.triple_des.then_some("3des").into_iter().collect()
    }
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

const AEADS: [Encr; 3] = [
    Encr::AES256_GCM16,
    Encr::AES128_GCM16,
    Encr::CHACHA20_POLY1305,
];
const CBC: [Encr; 3] = [Encr::AES256_CBC, Encr::AES192_CBC, Encr::AES128_CBC];
const INTEG: [IntegId; 3] = [
    IntegId::HMAC_SHA2_256_128,
    IntegId::HMAC_SHA2_384_192,
    IntegId::HMAC_SHA2_512_256,
];
const PRF: [PrfId; 3] = [
    PrfId::HMAC_SHA2_256,
    PrfId::HMAC_SHA2_384,
    PrfId::HMAC_SHA2_512,
];
/// Fast and strong first; MODP last, for peers that have nothing else.
const KE: [KeMethod; 7] = [
    KeMethod::CURVE25519,
    KeMethod::ECP_256,
    KeMethod::ECP_384,
    KeMethod::ECP_521,
    KeMethod::MODP_3072,
    KeMethod::MODP_4096,
    KeMethod::MODP_2048,
];

impl IkeProposal {
    //= security S-43
    /// What `default` stands for: every strong algorithm that obol has, AEAD before CBC, so that peers
    /// agree without being configured.
    pub fn defaults() -> Vec<Self> {
        let with = |encr: &[Encr], integ: &[IntegId]| Self {
            encr: encr.to_vec(),
            integ: integ.to_vec(),
            prf: PRF.to_vec(),
            ke: KE.to_vec(),
        };
        vec![with(&AEADS, &[]), with(&CBC, &INTEG)]
    }
}

impl EspProposal {
    /// What `default` stands for: every strong algorithm that obol has, with PFS before without, since
    /// some peers have PFS off unless told; AEAD before CBC, ESN before none.
    pub fn defaults() -> Vec<Self> {
        let with = |encr: &[Encr], integ: &[IntegId], ke: &[KeMethod]| Self {
            encr: encr.to_vec(),
            integ: integ.to_vec(),
            ke: ke.to_vec(),
            esn: vec![true, false],
        };
        vec![
            with(&AEADS, &[], &KE),
            with(&CBC, &INTEG, &KE),
            with(&AEADS, &[], &[]),
            with(&CBC, &INTEG, &[]),
        ]
    }
}

/// The keyword in swanctl's syntax.
impl fmt::Display for Encr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            EncrId::AES_CBC => write!(f, "aes{}", self.key_bits),
            EncrId::AES_GCM_16 => write!(f, "aes{}gcm16", self.key_bits),
            EncrId::CHACHA20_POLY1305 => f.write_str("chacha20poly1305"),
            EncrId::DES3 => f.write_str("3des"),
            other => write!(f, "{other}/{}", self.key_bits),
        }
    }
}

/// In swanctl's syntax.
impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = self.encr.iter().map(ToString::to_string).collect();
        words.extend(self.integ.iter().map(|integ| keywords::integ(*integ)));
        words.extend(self.prf.iter().map(|prf| keywords::prf(*prf)));
        words.extend(self.ke.iter().map(|ke| keywords::ke(*ke)));
        f.write_str(&words.join("-"))
    }
}

/// In swanctl's syntax.
impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = self.encr.iter().map(ToString::to_string).collect();
        words.extend(self.integ.iter().map(|integ| keywords::integ(*integ)));
        words.extend(self.ke.iter().map(|ke| keywords::ke(*ke)));
        words.extend(
            self.esn
                .iter()
                .map(|esn| if *esn { "esn".into() } else { "noesn".into() }),
        );
        f.write_str(&words.join("-"))
    }
}
