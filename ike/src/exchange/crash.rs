//! Quick crash detection, RFC 6290: a token that only we can make, given to the peer under
//! protection, and shown in clear once we have lost the IKE SA that it is about.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::crypto::prf::Prf;
use crate::crypto::secret::Secret;
use crate::event::IkeSpi;
use crate::wire::{Notify, NotifyType, PrfId, ProtocolId};

/// Octets of a token of ours: the least that RFC 6290 section 5 allows, so that an answer with
/// it is not longer than the shortest protected request.
const TOKEN_LEN: usize = 16;
/// Octets that the token of a peer may have, RFC 6290 section 5.
const PEER_TOKEN_LEN: std::ops::RangeInclusive<usize> = 16..=128;
/// Tokens looked at in one message, RFC 6290 section 4.5.
const MAX_TOKENS: usize = 4;
/// Keeps the key apart from other uses of the same secret.
const LABEL: &[u8] = b"obol QCD token";

/// Makes the same tokens after a restart, RFC 6290 section 5.1.
pub(crate) struct TokenMaker(Secret);

/// What is kept of a peer's token: a digest, which is of no use to others.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct PeerToken([u8; 32]);

impl TokenMaker {
    /// With a secret that survives restarts and that no other host has.
    pub(crate) fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// The token of the IKE SA with these SPIs.
    pub(crate) fn notify(&self, spi_i: IkeSpi, spi_r: IkeSpi) -> Notify<'static> {
        let prf = Prf::new(PrfId::HMAC_SHA2_256).expect("SHA-256 is always there");
        let (spi_i, spi_r) = (spi_i.0.to_be_bytes(), spi_r.0.to_be_bytes());
        let mac = prf.compute(self.0.expose(), &[LABEL, &spi_i, &spi_r]);
        Notify {
            protocol: ProtocolId::IKE,
            ..Notify::with_data(NotifyType::QCD_TOKEN, mac.expose()[..TOKEN_LEN].to_vec())
        }
    }
}

impl PeerToken {
    /// The token in a protected message, if there is one of a legal length.
    pub(crate) fn of(notifies: &[Notify<'_>]) -> Option<Self> {
        let token = tokens(notifies).next()?;
        Some(Self(Sha256::digest(token).into()))
    }

    /// Whether one of the notifies of an unprotected message is this token. Takes the same time
    /// for all tokens of a length.
    pub(crate) fn is_shown_by(&self, notifies: &[Notify<'_>]) -> bool {
        tokens(notifies)
            .take(MAX_TOKENS)
            .any(|token| bool::from(Sha256::digest(token)[..].ct_eq(&self.0)))
    }
}

fn tokens<'a>(notifies: &'a [Notify<'_>]) -> impl Iterator<Item = &'a [u8]> {
    notifies
        .iter()
        .filter(|n| n.ty == NotifyType::QCD_TOKEN && PEER_TOKEN_LEN.contains(&n.data.len()))
        .map(|n| &*n.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker(secret: u8) -> TokenMaker {
        TokenMaker::new(Secret::new(vec![secret; 32]))
    }

    #[test]
    fn a_token_is_of_its_maker_and_its_two_spis() {
        let (i, r) = (IkeSpi(1), IkeSpi(2));
        let token = maker(7).notify(i, r);
        assert_eq!(token.protocol, ProtocolId::IKE);
        assert_eq!(token, maker(7).notify(i, r), "also after a restart");
        let kept = PeerToken::of(std::slice::from_ref(&token)).expect("a token");
        for other in [
            maker(8).notify(i, r),
            maker(7).notify(r, i),
            maker(7).notify(i, IkeSpi(3)),
            Notify::with_data(NotifyType::QCD_TOKEN, vec![0; 16]),
            Notify::with_data(NotifyType::COOKIE, token.data.to_vec()),
        ] {
            assert!(!kept.is_shown_by(&[other]));
        }
        assert!(kept.is_shown_by(&[token]));
    }

    #[test]
    fn lengths_and_numbers_of_tokens_are_bounded() {
        let token = |len: usize| Notify::with_data(NotifyType::QCD_TOKEN, vec![1; len]);
        for (len, legal) in [
            (0, false),
            (15, false),
            (16, true),
            (128, true),
            (129, false),
        ] {
            assert_eq!(PeerToken::of(&[token(len)]).is_some(), legal, "{len}");
        }
        let kept = PeerToken::of(&[token(20)]).expect("a token");
        let mut list = vec![token(17), token(18), token(19), token(20)];
        assert!(kept.is_shown_by(&list), "the fourth counts");
        list.insert(0, token(16));
        assert!(!kept.is_shown_by(&list), "the fifth does not");
    }
}
