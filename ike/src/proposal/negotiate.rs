//! Proposals on the wire, RFC 7296 sections 2.7 and 3.3: what we offer, what we choose of a
//! peer's offer, and whether a peer's answer is one to ours.

use super::{Encr, EspProposal, IkeProposal, keywords};
use crate::event::EspSpi;
use crate::status::IkeAlgorithms;
use crate::wire::{
    EncrId, EsnId, IntegId, KeMethod, PrfId, Proposal, ProtocolId, Transform, TransformType,
};

impl IkeProposal {
    /// As offered: one wire proposal for each, numbered from 1. `spi` is empty in IKE_SA_INIT
    /// and the new SPI in a rekey.
    pub fn to_wire(proposals: &[Self], spi: &[u8]) -> Vec<Proposal> {
        let transforms = proposals.iter().map(Self::transforms);
        numbered(ProtocolId::IKE, spi, transforms)
    }

    //= rfc7296 1.2-6 3.3-5
    fn transforms(&self) -> Vec<Transform> {
        let mut list: Vec<Transform> = self.encr.iter().map(|encr| encr.transform()).collect();
        list.extend(self.prf.iter().map(|prf| plain(TransformType::PRF, prf.0)));
        list.extend(
            self.integ
                .iter()
                .map(|integ| plain(TransformType::INTEG, integ.0)),
        );
        list.extend(self.ke.iter().map(|ke| plain(TransformType::KE, ke.0)));
        list
    }
}

impl EspProposal {
    /// As offered: one wire proposal for each, numbered from 1; those that are the same
    /// without their key exchange come once in IKE_AUTH.
    pub fn to_wire(proposals: &[Self], spi: EspSpi, exchange: ChildExchange) -> Vec<Proposal> {
        let mut lists: Vec<Vec<Transform>> = Vec::new();
        for proposal in proposals {
            let list = proposal.transforms(exchange);
            if !lists.contains(&list) {
                lists.push(list);
            }
        }
        numbered(ProtocolId::ESP, &spi.0.to_be_bytes(), lists.into_iter())
    }

    //= rfc7296 1.2-6
    fn transforms(&self, exchange: ChildExchange) -> Vec<Transform> {
        let mut list: Vec<Transform> = self.encr.iter().map(|encr| encr.transform()).collect();
        list.extend(
            self.integ
                .iter()
                .map(|integ| plain(TransformType::INTEG, integ.0)),
        );
        if exchange != ChildExchange::IkeAuth {
            list.extend(self.ke.iter().map(|ke| plain(TransformType::KE, ke.0)));
        }
        list.extend(
            self.esn
                .iter()
                .map(|esn| plain(TransformType::ESN, u16::from(*esn))),
        );
        list
    }
}

//= rfc7296 3.3-1 3.3-3 3.3-4
fn numbered(
    protocol: ProtocolId,
    spi: &[u8],
    lists: impl Iterator<Item = Vec<Transform>>,
) -> Vec<Proposal> {
    (1..=u8::MAX)
        .zip(lists)
        .map(|(num, transforms)| Proposal {
            num,
            protocol,
            spi: spi.to_vec(),
            transforms,
        })
        .collect()
}

fn plain(ty: TransformType, id: u16) -> Transform {
    Transform::new(ty, id, None)
}

impl Encr {
    //= rfc7296 2.13-1 3.3.5-4 3.3.5-5 3.3-7
    fn transform(self) -> Transform {
        let key_bits = (!self.is_fixed()).then_some(self.key_bits);
        Transform::new(TransformType::ENCR, self.id.0, key_bits)
    }

    //= rfc7296 3.3.5-5
    /// What a transform of a peer stands for. A key length with ChaCha20-Poly1305 is
    /// superfluous, but some send it.
    fn of(transform: &Transform) -> Option<Self> {
        let id = EncrId(transform.id);
        match (id, transform.key_bits) {
            (EncrId::CHACHA20_POLY1305, None | Some(256)) => Some(Self::CHACHA20_POLY1305),
            (EncrId::DES3, None) => Some(Self::TRIPLE_DES_CBC),
            (EncrId::CHACHA20_POLY1305 | EncrId::DES3, _) => None,
            (_, Some(bits)) => Some(Self::new(id, bits)),
            (_, None) => None,
        }
    }
}

/// In which exchange a Child SA is negotiated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChildExchange {
    /// IKE_AUTH: without key exchange, whatever the proposals say (RFC 7296 section 1.2).
    IkeAuth,
    /// CREATE_CHILD_SA, with the method of the requester's KE payload, if it sent one: it is
    /// preferred, where it is acceptable.
    CreateChildSa(Option<KeMethod>),
}

/// What was chosen for an IKE SA.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChosenIke {
    /// Number of the proposal.
    pub num: u8,
    /// The SPI in the peer's proposal; empty in IKE_SA_INIT.
    pub spi: Vec<u8>,
    /// The algorithms.
    pub alg: IkeAlgorithms,
    /// The chosen transforms, exactly as offered.
    transforms: Vec<Transform>,
}

/// What was chosen for a Child SA.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChosenEsp {
    /// Number of the proposal.
    pub num: u8,
    /// The peer's SPI: that of packets to the peer.
    pub spi: EspSpi,
    /// Encryption.
    pub encr: Encr,
    /// Integrity; `NONE` with an AEAD.
    pub integ: IntegId,
    /// Key exchange, if the SA has its own.
    pub ke: Option<KeMethod>,
    /// Extended sequence numbers.
    pub esn: bool,
    /// The chosen transforms, exactly as offered.
    transforms: Vec<Transform>,
}

impl ChosenIke {
    //= rfc7296 2.7-2 3.3.1-3
    /// The proposal to answer with; `spi` is ours in a rekey, else empty.
    pub fn answer(&self, spi: &[u8]) -> Proposal {
        Proposal {
            num: self.num,
            protocol: ProtocolId::IKE,
            spi: spi.to_vec(),
            transforms: self.transforms.clone(),
        }
    }
}

impl ChosenEsp {
    //= rfc7296 2.7-2
    /// The proposal to answer with; `spi` is ours, that of packets to us.
    pub fn answer(&self, spi: EspSpi) -> Proposal {
        Proposal {
            num: self.num,
            protocol: ProtocolId::ESP,
            spi: spi.0.to_be_bytes().to_vec(),
            transforms: self.transforms.clone(),
        }
    }
}

//= rfc7296 2.7-1 2.7-3
/// Chooses for an IKE SA, as responder. Our order of proposals decides, then the peer's; of
/// the key exchange methods that fit, `prefer_ke` (that of the peer's KE payload) comes first,
/// since any other costs a round trip.
pub fn choose_ike(
    offered: &[Proposal],
    configured: &[IkeProposal],
    prefer_ke: Option<KeMethod>,
) -> Option<ChosenIke> {
    configured.iter().find_map(|ours| {
        offered
            .iter()
            .find_map(|theirs| match_ike(theirs, ours, prefer_ke))
    })
}

/// Proposals of an offer that are told, and transforms of each: a stranger may send thousands.
const SHOWN: (usize, usize) = (4, 32);

/// What a peer offers for an IKE SA, in the words that proposals are configured with.
pub(crate) fn offer_text(offered: &[Proposal]) -> String {
    let word = |transform: &Transform| match transform.ty {
        TransformType::ENCR => {
            let bits = transform.key_bits.unwrap_or_default();
            Some(Encr::new(EncrId(transform.id), bits).to_string())
        }
        TransformType::INTEG => Some(keywords::integ(IntegId(transform.id))),
        TransformType::PRF => Some(keywords::prf(PrfId(transform.id))),
        TransformType::KE => Some(keywords::ke(KeMethod(transform.id))),
        _ => None,
    };
    let words = |proposal: &Proposal| {
        let transforms = proposal.transforms.iter().take(SHOWN.1);
        let mut transforms: Vec<&Transform> = transforms.collect();
        // As they are written: integrity before the PRF.
        transforms.sort_by_key(|transform| match transform.ty {
            TransformType::INTEG => TransformType::PRF.0,
            TransformType::PRF => TransformType::INTEG.0,
            ty => ty.0,
        });
        transforms
            .into_iter()
            .filter_map(word)
            .collect::<Vec<_>>()
            .join("-")
    };
    let mut shown: Vec<String> = offered.iter().take(SHOWN.0).map(words).collect();
    if offered.len() > SHOWN.0 {
        shown.push(format!("and {} more", offered.len() - SHOWN.0));
    }
    shown.join(", ")
}

//= rfc7296 2.18-2 3.3.3-1 3.3.4-5 3.3.4-6
fn match_ike(
    theirs: &Proposal,
    ours: &IkeProposal,
    prefer_ke: Option<KeMethod>,
) -> Option<ChosenIke> {
    let mut offer = Offer::new(theirs, ProtocolId::IKE)?;
    let encr = offer.take_encr(&ours.encr)?;
    let prf = PrfId(offer.take(TransformType::PRF, ours.prf.iter().map(|id| id.0))?);
    let integ = offer.take_integ(encr, &ours.integ)?;
    let ke = offer.take_ke(&ours.ke, prefer_ke)?;
    Some(ChosenIke {
        num: theirs.num,
        spi: theirs.spi.clone(),
        alg: IkeAlgorithms {
            encr,
            integ,
            prf,
            ke,
        },
        transforms: offer.finish(&[])?,
    })
}

//= rfc7296 2.7-1
/// Chooses for a Child SA, as replier. Our order of proposals decides, then the peer's. A
/// proposal of ours with key exchange fits only one with it, one without only one without; so
/// PFS is given up only where the configuration has both.
pub fn choose_esp(
    offered: &[Proposal],
    configured: &[EspProposal],
    exchange: ChildExchange,
) -> Option<ChosenEsp> {
    configured.iter().find_map(|ours| {
        offered
            .iter()
            .find_map(|theirs| match_esp(theirs, ours, exchange))
    })
}

//= rfc7296 3.3.3-1 3.3.4-6 3.3.6-11
fn match_esp(theirs: &Proposal, ours: &EspProposal, exchange: ChildExchange) -> Option<ChosenEsp> {
    let spi = esp_spi(theirs)?;
    let mut offer = Offer::new(theirs, ProtocolId::ESP)?;
    let encr = offer.take_encr(&ours.encr)?;
    let integ = offer.take_integ(encr, &ours.integ)?;
    let (ke, ignored): (_, &[TransformType]) = match exchange {
        // Some peers offer their key exchange here too, though it cannot take place.
        ChildExchange::IkeAuth => {
            offer.take(TransformType::KE, [KeMethod::NONE.0]);
            (None, &[TransformType::KE])
        }
        ChildExchange::CreateChildSa(prefer) if !ours.ke.is_empty() => {
            (Some(offer.take_ke(&ours.ke, prefer)?), &[])
        }
        ChildExchange::CreateChildSa(_) => {
            offer.take_none(TransformType::KE)?;
            (None, &[])
        }
    };
    let esn = offer.take_esn(&ours.esn)?;
    Some(ChosenEsp {
        num: theirs.num,
        spi,
        encr,
        integ,
        ke,
        esn,
        transforms: offer.finish(ignored)?,
    })
}

/// Values below 256 are reserved (RFC 4303 section 2.1).
fn esp_spi(proposal: &Proposal) -> Option<EspSpi> {
    let spi = u32::from_be_bytes(proposal.spi.as_slice().try_into().ok()?);
    (spi >= 256).then_some(EspSpi(spi))
}

/// One proposal of a peer, and what is taken of it so far.
struct Offer<'a> {
    transforms: &'a [Transform],
    taken: Vec<Transform>,
}

impl<'a> Offer<'a> {
    fn new(proposal: &'a Proposal, protocol: ProtocolId) -> Option<Self> {
        (proposal.protocol == protocol).then(|| Self {
            transforms: &proposal.transforms,
            taken: Vec::new(),
        })
    }

    //= rfc7296 3.3.6-7
    fn of_type(&self, ty: TransformType) -> impl Iterator<Item = &'a Transform> + use<'a> {
        self.transforms
            .iter()
            .filter(move |transform| transform.ty == ty && !transform.unknown_attributes)
    }

    //= rfc7296 3.3.6-4
    /// Takes the first of `wanted` that is there. Only encryption has attributes.
    fn take(&mut self, ty: TransformType, wanted: impl IntoIterator<Item = u16>) -> Option<u16> {
        let found = wanted.into_iter().find_map(|id| {
            self.of_type(ty)
                .find(|transform| transform.id == id && transform.key_bits.is_none())
        })?;
        self.taken.push(*found);
        Some(found.id)
    }

    //= rfc7296 3.3.6-4
    fn take_encr(&mut self, wanted: &[Encr]) -> Option<Encr> {
        let (found, encr) = wanted.iter().find_map(|encr| {
            self.of_type(TransformType::ENCR)
                .find(|transform| Encr::of(transform) == Some(*encr))
                .map(|transform| (transform, *encr))
        })?;
        self.taken.push(*found);
        Some(encr)
    }

    //= rfc7296 3.3-5
    /// With an AEAD there is no integrity algorithm, or it is NONE (RFC 7296 section 3.3).
    fn take_integ(&mut self, encr: Encr, wanted: &[IntegId]) -> Option<IntegId> {
        if encr.is_aead() {
            self.take_none(TransformType::INTEG)?;
            return Some(IntegId::NONE);
        }
        let wanted = wanted.iter().map(|id| id.0);
        self.take(TransformType::INTEG, wanted).map(IntegId)
    }

    fn take_ke(&mut self, wanted: &[KeMethod], prefer: Option<KeMethod>) -> Option<KeMethod> {
        let preferred = prefer.filter(|ke| wanted.contains(ke));
        let wanted = preferred.iter().chain(wanted).map(|ke| ke.0);
        self.take(TransformType::KE, wanted).map(KeMethod)
    }

    //= rfc4303 2.2.1-2
    /// ESN must be offered, but who leaves it out means the numbers of RFC 2406.
    fn take_esn(&mut self, wanted: &[bool]) -> Option<bool> {
        if !self.has(TransformType::ESN) {
            return wanted.contains(&false).then_some(false);
        }
        let wanted = wanted.iter().map(|esn| u16::from(*esn));
        self.take(TransformType::ESN, wanted)
            .map(|id| id == EsnId::ESN.0)
    }

    /// Nothing of this type, or NONE (which is 0 in every type that has it).
    fn take_none(&mut self, ty: TransformType) -> Option<()> {
        if self.has(ty) {
            self.take(ty, [0])?;
        }
        Some(())
    }

    fn has(&self, ty: TransformType) -> bool {
        self.transforms.iter().any(|transform| transform.ty == ty)
    }

    //= rfc7296 2.7-4 3.3.6-6
    //= security S-15
    /// What was taken, if that is one of each type: a type that is left over, known or not,
    /// makes the proposal unacceptable (RFC 7296 section 3.3.6).
    fn finish(self, ignored: &[TransformType]) -> Option<Vec<Transform>> {
        let left_over = self.transforms.iter().any(|transform| {
            !ignored.contains(&transform.ty)
                && !self.taken.iter().any(|taken| taken.ty == transform.ty)
        });
        (!left_over).then_some(self.taken)
    }
}

/// The peer's answer is not one to what we offered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadAnswer;

//= rfc7296 3.3.6-5
/// Checks, as initiator, that the answer is exactly one of our proposals `sent`, with one
/// transform of each type out of it.
///
/// # Errors
/// [`BadAnswer`]; RFC 7296 section 2.7 tells to end the exchange.
pub fn check_ike_answer(sent: &[Proposal], answer: &[Proposal]) -> Result<ChosenIke, BadAnswer> {
    let (ours, answer) = answered(sent, answer)?;
    let mut offer = Offer::new(answer, ProtocolId::IKE).ok_or(BadAnswer)?;
    let chosen = (|| {
        let encr = offer.take_encr(&encrs(ours))?;
        let prf = PrfId(offer.take(TransformType::PRF, ids(ours, TransformType::PRF))?);
        let integ = offer.take_integ(encr, &integs(ours))?;
        let ke = KeMethod(offer.take(TransformType::KE, ids(ours, TransformType::KE))?);
        Some(ChosenIke {
            num: ours.num,
            spi: answer.spi.clone(),
            alg: IkeAlgorithms {
                encr,
                integ,
                prf,
                ke,
            },
            transforms: offer.finish(&[])?,
        })
    })();
    chosen.ok_or(BadAnswer)
}

//= rfc7296 3.3.6-5
/// As [`check_ike_answer`], for a Child SA.
///
/// # Errors
/// [`BadAnswer`].
pub fn check_esp_answer(sent: &[Proposal], answer: &[Proposal]) -> Result<ChosenEsp, BadAnswer> {
    let (ours, answer) = answered(sent, answer)?;
    let spi = esp_spi(answer).ok_or(BadAnswer)?;
    let mut offer = Offer::new(answer, ProtocolId::ESP).ok_or(BadAnswer)?;
    let chosen = (|| {
        let encr = offer.take_encr(&encrs(ours))?;
        let integ = offer.take_integ(encr, &integs(ours))?;
        let wanted_ke = ids(ours, TransformType::KE);
        let ke = if wanted_ke.is_empty() {
            offer.take_none(TransformType::KE)?;
            None
        } else {
            Some(KeMethod(offer.take(TransformType::KE, wanted_ke)?))
        };
        let esn: Vec<bool> = ids(ours, TransformType::ESN)
            .into_iter()
            .map(|id| id == EsnId::ESN.0)
            .collect();
        let esn = offer.take_esn(&esn)?;
        Some(ChosenEsp {
            num: ours.num,
            spi,
            encr,
            integ,
            ke,
            esn,
            transforms: offer.finish(&[])?,
        })
    })();
    chosen.ok_or(BadAnswer)
}

//= rfc7296 3.3.1-3
//= security S-15
/// The one proposal of the answer, and ours of that number; no type comes twice.
fn answered<'a>(
    sent: &'a [Proposal],
    answer: &'a [Proposal],
) -> Result<(&'a Proposal, &'a Proposal), BadAnswer> {
    let [answer] = answer else {
        return Err(BadAnswer);
    };
    let ours = sent
        .iter()
        .find(|ours| ours.num == answer.num)
        .ok_or(BadAnswer)?;
    let repeated = answer.transforms.iter().enumerate().any(|(i, transform)| {
        answer.transforms[..i]
            .iter()
            .any(|earlier| earlier.ty == transform.ty)
    });
    if repeated {
        Err(BadAnswer)
    } else {
        Ok((ours, answer))
    }
}

fn ids(proposal: &Proposal, ty: TransformType) -> Vec<u16> {
    proposal
        .transforms
        .iter()
        .filter(|transform| transform.ty == ty)
        .map(|transform| transform.id)
        .collect()
}

fn encrs(proposal: &Proposal) -> Vec<Encr> {
    proposal
        .transforms
        .iter()
        .filter(|transform| transform.ty == TransformType::ENCR)
        .filter_map(Encr::of)
        .collect()
}

fn integs(proposal: &Proposal) -> Vec<IntegId> {
    ids(proposal, TransformType::INTEG)
        .into_iter()
        .map(IntegId)
        .collect()
}
