//! Key schedule, RFC 7296 sections 2.14, 2.17 and 2.18: SKEYSEED, the seven SK_ keys, KEYMAT.
//!
//! ```text
//!  Ni | Nr, g^ir ------> SKEYSEED --prf+--> SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi, SK_pr
//!  old SK_d, g^ir, nonces --^                 |
//!                                             '--prf+--> KEYMAT of each Child SA
//! ```

use crate::crypto::cbc::is_single_des;
use crate::crypto::encr::{IkeCipher, UnsupportedEncr, encr_key_len, integ_key_len};
use crate::crypto::prf::Prf;
use crate::crypto::secret::Secret;
use crate::event::{EspKeys, IkeSpi};
use crate::proposal::Encr;
use crate::status::IkeAlgorithms;
use crate::wire::{EncrId, IntegId};

/// Something of the chosen algorithms is not implemented; it should not have been chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnsupportedAlgorithm;

impl From<UnsupportedEncr> for UnsupportedAlgorithm {
    fn from(_: UnsupportedEncr) -> Self {
        Self
    }
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Secret);

        impl $name {
            /// The only way in.
            pub fn expose(&self) -> &[u8] {
                self.0.expose()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

key! {
    /// SK_d: from which the keys of Child SAs and of the next IKE SA come.
    SkD
}
key! {
    /// SK_ai: integrity of messages from the initiator; empty with an AEAD.
    SkAi
}
key! {
    /// SK_ar: integrity of messages from the responder; empty with an AEAD.
    SkAr
}
key! {
    /// SK_ei: encryption of messages from the initiator; key and salt with an AEAD.
    SkEi
}
key! {
    /// SK_er: encryption of messages from the responder; key and salt with an AEAD.
    SkEr
}
key! {
    /// SK_pi: goes into the initiator's AUTH.
    SkPi
}
key! {
    /// SK_pr: goes into the responder's AUTH.
    SkPr
}

/// The keys of one IKE SA. "Initiator" is who began this IKE SA, or asked for its rekey.
#[derive(Debug)]
pub struct IkeKeys {
    alg: IkeAlgorithms,
    prf: Prf,
    /// SK_d.
    pub sk_d: SkD,
    /// SK_ai.
    pub sk_ai: SkAi,
    /// SK_ar.
    pub sk_ar: SkAr,
    /// SK_ei.
    pub sk_ei: SkEi,
    /// SK_er.
    pub sk_er: SkEr,
    /// SK_pi.
    pub sk_pi: SkPi,
    /// SK_pr.
    pub sk_pr: SkPr,
}

/// The two directions of an IKE SA's protection.
#[derive(Debug)]
pub struct IkeCiphers {
    /// For messages from the initiator.
    pub from_initiator: IkeCipher,
    /// For messages from the responder.
    pub from_responder: IkeCipher,
}

/// SKEYSEED, on its way to [`IkeKeys`].
struct SkeyseedStage(Secret);

impl IkeKeys {
    //= security S-25
    /// The keys of a new IKE SA, RFC 7296 section 2.14. `shared` is g^ir as
    /// [`KeyExchange::agree`](crate::crypto::ke::KeyExchange::agree) gives it.
    ///
    /// # Errors
    /// If obol does not implement one of the algorithms.
    pub fn derive(
        alg: &IkeAlgorithms,
        ni: &[u8],
        nr: &[u8],
        shared: &Secret,
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Result<Self, UnsupportedAlgorithm> {
        let prf = Prf::new(alg.prf).ok_or(UnsupportedAlgorithm)?;
        // All of both nonces: only the PRFs made of AES truncate them.
        let nonces = [ni, nr].concat();
        let skeyseed = SkeyseedStage(prf.compute(&nonces, &[shared.expose()]));
        skeyseed.expand(alg, prf, ni, nr, spi_i, spi_r)
    }

    //= security S-25
    /// The keys of the IKE SA that replaces `old`, RFC 7296 section 2.18: SKEYSEED comes from
    /// the PRF of the old SA, everything after from the new one. Nonces and SPIs are those of
    /// the CREATE_CHILD_SA exchange.
    ///
    /// # Errors
    /// If obol does not implement one of the algorithms.
    pub fn rekey(
        old: &IkeKeys,
        alg: &IkeAlgorithms,
        ni: &[u8],
        nr: &[u8],
        shared: &Secret,
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Result<Self, UnsupportedAlgorithm> {
        let prf = Prf::new(alg.prf).ok_or(UnsupportedAlgorithm)?;
        let seed = old
            .prf
            .compute(old.sk_d.expose(), &[shared.expose(), ni, nr]);
        SkeyseedStage(seed).expand(alg, prf, ni, nr, spi_i, spi_r)
    }

    /// The keys of an IKE SA that is resumed, RFC 5723 section 5.1: without a key exchange, from
    /// SK_d of the old one. Nonces and SPIs are those of the IKE_SESSION_RESUME exchange.
    ///
    /// # Errors
    /// If obol does not implement one of the algorithms.
    pub fn resume(
        alg: &IkeAlgorithms,
        old_sk_d: &Secret,
        ni: &[u8],
        nr: &[u8],
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Result<Self, UnsupportedAlgorithm> {
        let prf = Prf::new(alg.prf).ok_or(UnsupportedAlgorithm)?;
        let seed = prf.compute(old_sk_d.expose(), &[b"Resumption", ni, nr]);
        SkeyseedStage(seed).expand(alg, prf, ni, nr, spi_i, spi_r)
    }

    /// Whether these are the same keys for the same algorithms, in constant time. It takes no equal
    /// octets on the wire: two public values of a peer can come to one shared secret.
    pub fn are(&self, other: &Self) -> bool {
        self.alg == other.alg && self.sk_d.0.ct_eq(&other.sk_d.0)
    }

    /// The algorithms these keys are for.
    pub fn algorithms(&self) -> &IkeAlgorithms {
        &self.alg
    }

    /// The PRF of this IKE SA.
    pub fn prf(&self) -> Prf {
        self.prf
    }

    /// The protection of both directions.
    ///
    /// # Errors
    /// If obol does not implement the combination of encryption and integrity.
    pub fn ciphers(&self) -> Result<IkeCiphers, UnsupportedAlgorithm> {
        let (encr, integ) = (self.alg.encr, self.alg.integ);
        Ok(IkeCiphers {
            from_initiator: IkeCipher::new(encr, integ, &self.sk_ei.0, &self.sk_ai.0)?,
            from_responder: IkeCipher::new(encr, integ, &self.sk_er.0, &self.sk_ar.0)?,
        })
    }

    /// The keys of a Child SA of this IKE SA; see [`child_keymat`].
    ///
    /// # Errors
    /// If obol does not implement one of the algorithms.
    pub fn child(
        &self,
        shared: Option<&Secret>,
        ni: &[u8],
        nr: &[u8],
        encr: Encr,
        integ: IntegId,
    ) -> Result<ChildKeys, UnsupportedAlgorithm> {
        child_keymat(self.prf, &self.sk_d, shared, ni, nr, encr, integ)
    }
}

impl SkeyseedStage {
    //= rfc7296 2.13-3
    fn expand(
        self,
        alg: &IkeAlgorithms,
        prf: Prf,
        ni: &[u8],
        nr: &[u8],
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Result<IkeKeys, UnsupportedAlgorithm> {
        let encr_len = encr_key_len(alg.encr).ok_or(UnsupportedAlgorithm)?;
        let integ_len = integ_key_len(alg.integ).ok_or(UnsupportedAlgorithm)?;
        let prf_len = prf.len();
        let spi_i = spi_i.0.to_be_bytes();
        let spi_r = spi_r.0.to_be_bytes();
        let total = 3 * prf_len + 2 * integ_len + 2 * encr_len;
        let keymat = prf.plus(self.0.expose(), &[ni, nr, &spi_i, &spi_r], total);
        let mut rest = Taker(keymat.expose());
        Ok(IkeKeys {
            alg: *alg,
            prf,
            sk_d: SkD(rest.take(prf_len)),
            sk_ai: SkAi(rest.take(integ_len)),
            sk_ar: SkAr(rest.take(integ_len)),
            sk_ei: SkEi(rest.take(encr_len)),
            sk_er: SkEr(rest.take(encr_len)),
            sk_pi: SkPi(rest.take(prf_len)),
            sk_pr: SkPr(rest.take(prf_len)),
        })
    }
}

/// KEYMAT of one Child SA, cut into keys.
#[derive(Debug)]
pub struct ChildKeys {
    /// For packets from who asked for this Child SA (the sender of Ni).
    pub initiator_to_responder: EspKeys,
    /// For packets from who granted it (the sender of Nr).
    pub responder_to_initiator: EspKeys,
}

//= rfc7296 2.17-1 2.17-2
//= security S-25
/// The keys of a Child SA, RFC 7296 section 2.17. "Initiator" is who asked for the Child SA in
/// the exchange whose nonces these are; `shared` is g^ir of that exchange, if it had one.
///
/// # Errors
/// If obol does not implement one of the algorithms.
pub fn child_keymat(
    prf: Prf,
    sk_d: &SkD,
    shared: Option<&Secret>,
    ni: &[u8],
    nr: &[u8],
    encr: Encr,
    integ: IntegId,
) -> Result<ChildKeys, UnsupportedAlgorithm> {
    let encr_len = encr_key_len(encr).ok_or(UnsupportedAlgorithm)?;
    let integ_len = integ_key_len(integ).ok_or(UnsupportedAlgorithm)?;
    let shared = shared.map_or(&[][..], Secret::expose);
    let keymat = prf.plus(sk_d.expose(), &[shared, ni, nr], 2 * (encr_len + integ_len));
    let mut rest = Taker(keymat.expose());
    let mut keys = || EspKeys {
        encr: rest.take(encr_len),
        integ: rest.take(integ_len),
    };
    let keys = ChildKeys {
        initiator_to_responder: keys(),
        responder_to_initiator: keys(),
    };
    let both = [&keys.initiator_to_responder, &keys.responder_to_initiator];
    if encr.id == EncrId::DES3 && both.iter().any(|keys| is_single_des(keys.encr.expose())) {
        return Err(UnsupportedAlgorithm);
    }
    Ok(keys)
}

/// Cuts keys off the front of key material.
struct Taker<'a>(&'a [u8]);

impl Taker<'_> {
    fn take(&mut self, len: usize) -> Secret {
        let (key, rest) = self.0.split_at(len);
        self.0 = rest;
        Secret::from(key)
    }
}
