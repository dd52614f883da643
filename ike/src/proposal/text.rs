//! From swanctl's syntax to proposals: `aes256gcm16-prfsha384-x25519`.

use super::keywords::{ABSENT, KNOWN, WEAK, Word, on_request};
use super::{Allowed, Encr, EspProposal, IkeProposal};
use crate::wire::{IntegId, KeMethod, PrfId};

/// Why a proposal is not taken; says what to write.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProposalError {
    /// Refused because it does not protect.
    #[error("`{word}` {why}: write `{instead}`")]
    Weak {
        /// The word as written.
        word: String,
        /// What is wrong with it.
        why: &'static str,
        /// What to write.
        instead: &'static str,
    },
    /// A real algorithm that obol does not have.
    #[error("`{word}` is not implemented: write `{instead}`")]
    Absent {
        /// The word as written.
        word: String,
        /// What to write.
        instead: &'static str,
    },
    /// No algorithm at all.
    #[error("`{word}` is not an algorithm{}", nearest_words(.nearest))]
    Unknown {
        /// The word as written.
        word: String,
        /// The known word most like it, if one is.
        nearest: Option<&'static str>,
    },
    /// A word too few.
    #[error("there is no {what} in it: add `{add}`")]
    Missing {
        /// Which kind of algorithm.
        what: &'static str,
        /// What to add, for example.
        add: &'static str,
    },
    /// AEAD and other encryption in one proposal.
    #[error("AEAD ({aead}) and other encryption ({other}) do not go into one proposal: write two")]
    Mixed {
        /// The first AEAD.
        aead: Encr,
        /// The first other.
        other: Encr,
    },
    /// The word belongs to the other kind of proposal.
    #[error("`{word}` has no meaning in {place} proposals: leave it out")]
    Misplaced {
        /// The word as written.
        word: String,
        /// `ESP` or `IKE`.
        place: &'static str,
    },
}

fn nearest_words(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |nearest| {
        format!(": did you mean `{nearest}`?")
    })
}

impl IkeProposal {
    //= rfc7296 3.3.4-4
    /// Reads one element of `proposals`; `default` stands for several.
    ///
    /// Without a PRF, that of the integrity algorithms is taken, as strongSwan does; with an
    /// AEAD, integrity algorithms say nothing else.
    ///
    /// # Errors
    /// [`ProposalError`].
    pub fn parse(text: &str) -> Result<Vec<Self>, ProposalError> {
        Self::parse_allowing(text, Allowed::default())
    }

    /// The same with weak algorithms that are allowed.
    ///
    /// # Errors
    /// [`ProposalError`].
    pub fn parse_allowing(text: &str, allowed: Allowed) -> Result<Vec<Self>, ProposalError> {
        if is_default(text) {
            return Ok(Self::defaults());
        }
        let mut words = Words::parse(text, allowed)?;
        if let Some((word, _)) = words.esn.first() {
            return Err(ProposalError::Misplaced {
                word: word.clone(),
                place: "IKE",
            });
        }
        let aead = words.check_encr("aes256gcm16")?;
        if words.prf.is_empty() {
            for integ in &words.integ {
                push_new(&mut words.prf, prf_of(*integ));
            }
        }
        missing(&words.prf, "pseudorandom function", "prfsha256")?;
        if aead {
            words.integ.clear();
        }
        missing(&words.ke, "key exchange", "x25519")?;
        Ok(vec![Self {
            encr: words.encr,
            integ: words.integ,
            prf: words.prf,
            ke: words.ke,
        }])
    }
}

impl EspProposal {
    //= rfc7296 3.3.4-4
    /// Reads one element of `esp_proposals`; `default` stands for several.
    ///
    /// Without `esn` it means `noesn`, as in strongSwan; without a key exchange, no PFS.
    ///
    /// # Errors
    /// [`ProposalError`].
    pub fn parse(text: &str) -> Result<Vec<Self>, ProposalError> {
        Self::parse_allowing(text, Allowed::default())
    }

    /// The same with weak algorithms that are allowed.
    ///
    /// # Errors
    /// [`ProposalError`].
    pub fn parse_allowing(text: &str, allowed: Allowed) -> Result<Vec<Self>, ProposalError> {
        if is_default(text) {
            return Ok(Self::defaults());
        }
        let mut words = Words::parse(text, allowed)?;
        if let Some(prf) = words.prf.first() {
            return Err(ProposalError::Misplaced {
                word: super::keywords::prf(*prf),
                place: "ESP",
            });
        }
        if words.check_encr("aes256gcm16")? {
            words.integ.clear();
        }
        let mut esn: Vec<bool> = Vec::new();
        for (_, value) in &words.esn {
            push_new(&mut esn, *value);
        }
        if esn.is_empty() {
            esn.push(false);
        }
        Ok(vec![Self {
            encr: words.encr,
            integ: words.integ,
            ke: words.ke,
            esn,
        }])
    }
}

fn is_default(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("default")
}

/// The words of one proposal, by kind, without repetitions.
#[derive(Default)]
struct Words {
    encr: Vec<Encr>,
    integ: Vec<IntegId>,
    prf: Vec<PrfId>,
    ke: Vec<KeMethod>,
    esn: Vec<(String, bool)>,
}

impl Words {
    fn parse(text: &str, allowed: Allowed) -> Result<Self, ProposalError> {
        let mut words = Self::default();
        for word in text.trim().split('-') {
            match lookup(word, allowed)? {
                Word::Encr(encr) => push_new(&mut words.encr, encr),
                Word::Integ(integ) => push_new(&mut words.integ, integ),
                Word::Prf(prf) => push_new(&mut words.prf, prf),
                Word::Ke(ke) => push_new(&mut words.ke, ke),
                Word::Esn(esn) => words.esn.push((word.to_string(), esn)),
            }
        }
        Ok(words)
    }

    /// Whether the encryption is AEAD; it is all or none, and others have integrity.
    fn check_encr(&self, example: &'static str) -> Result<bool, ProposalError> {
        missing(&self.encr, "encryption", example)?;
        let aead = self.encr.iter().find(|encr| encr.is_aead());
        let other = self.encr.iter().find(|encr| !encr.is_aead());
        match (aead, other) {
            (Some(&aead), Some(&other)) => Err(ProposalError::Mixed { aead, other }),
            (Some(_), None) => Ok(true),
            _ => {
                missing(&self.integ, "integrity algorithm", "sha256")?;
                Ok(false)
            }
        }
    }
}

fn missing<T>(list: &[T], what: &'static str, add: &'static str) -> Result<(), ProposalError> {
    if list.is_empty() {
        Err(ProposalError::Missing { what, add })
    } else {
        Ok(())
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn prf_of(integ: IntegId) -> PrfId {
    match integ {
        IntegId::HMAC_SHA2_384_192 => PrfId::HMAC_SHA2_384,
        IntegId::HMAC_SHA2_512_256 => PrfId::HMAC_SHA2_512,
        _ => PrfId::HMAC_SHA2_256,
    }
}

//= rfc7296 3-1
//= security S-43
fn lookup(written: &str, allowed: Allowed) -> Result<Word, ProposalError> {
    let word = written.to_ascii_lowercase();
    if let Some(word) = on_request(&word, allowed) {
        return Ok(word);
    }
    if let Some((_, found)) = KNOWN.iter().find(|(text, _)| *text == word) {
        return Ok(*found);
    }
    if let Some((_, why, instead)) = WEAK.iter().find(|(text, ..)| *text == word) {
        return Err(ProposalError::Weak {
            word: written.into(),
            why,
            instead,
        });
    }
    if let Some((_, instead)) = ABSENT.iter().find(|(start, _)| word.starts_with(start)) {
        return Err(ProposalError::Absent {
            word: written.into(),
            instead,
        });
    }
    let nearest = KNOWN
        .iter()
        .map(|(text, _)| (distance(text, &word), *text))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, text)| *distance <= text.len() / 3)
        .map(|(_, text)| text);
    Err(ProposalError::Unknown {
        word: written.into(),
        nearest,
    })
}

/// Letters to insert, delete or replace to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
