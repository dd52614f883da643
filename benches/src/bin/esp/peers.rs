//! Ciphers of others, to compare with. Two of them are built by C compilers, so they are there only with
//! `RUSTFLAGS="--cfg obol_peers"`.

use obol_esp::Suite;

use crate::raw::Raw;

/// All that are there and know the suite, by name.
pub(crate) fn all(suite: Suite) -> Vec<(&'static str, Raw)> {
    let portable = Raw::portable(suite).map(|raw| ("RustCrypto", raw));
    portable.into_iter().chain(foreign(suite)).collect()
}

#[cfg(not(obol_peers))]
fn foreign(_: Suite) -> [(&'static str, Raw); 0] {
    []
}

#[cfg(obol_peers)]
fn foreign(suite: Suite) -> Vec<(&'static str, Raw)> {
    if matches!(suite, Suite::AesCbcHmac { .. }) {
        return Vec::new();
    }
    vec![("ring", by_ring(suite)), ("aws-lc-rs", by_aws_lc(suite))]
}

/// The two have the same interface, and no type in common.
#[cfg(obol_peers)]
macro_rules! of_their_kind {
    ($function:ident, $library:ident) => {
        fn $function(suite: Suite) -> Raw {
            use $library::aead::{
                AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
            };
            let algorithm = match suite {
                Suite::AesGcm16 { key_bits: 128 } => &AES_128_GCM,
                Suite::AesGcm16 { .. } => &AES_256_GCM,
                _ => &CHACHA20_POLY1305,
            };
            let key = || {
                let key = UnboundKey::new(algorithm, &[7; 32][..algorithm.key_len()]);
                LessSafeKey::new(key.expect("a key of the right length"))
            };
            let (sealer, opener) = (key(), key());
            let nonce = || Nonce::assume_unique_for_key(crate::raw::NONCE);
            Raw::sealing_and_opening(
                move |data, body, icv| {
                    let tag = sealer.seal_in_place_separate_tag(nonce(), Aad::from(data), body);
                    icv.copy_from_slice(tag.expect("short").as_ref());
                },
                move |data, body_and_icv| {
                    opener
                        .open_in_place(nonce(), Aad::from(data), body_and_icv)
                        .is_ok()
                },
            )
        }
    };
}

#[cfg(obol_peers)]
of_their_kind!(by_ring, ring);
#[cfg(obol_peers)]
of_their_kind!(by_aws_lc, aws_lc_rs);
