//! Algorithms by the kernel's names, and what it lacks in an operator's words.

use obol_ike::event::{ChildSaInfo, EspKeys};
use obol_ike::wire::{EncrId, IntegId};

use crate::dataplane::DataPlaneError;
use crate::host::xfrm::{Algorithm, Refusal};

/// The algorithm of an SA, with its keys.
///
/// # Errors
/// What was negotiated is nothing that we know.
pub(super) fn algorithm<'a>(
    encr: EncrId,
    integ: IntegId,
    keys: &'a EspKeys,
) -> Result<Algorithm<'a>, DataPlaneError> {
    let aead = |name| Algorithm::Aead {
        name,
        key: keys.encr.expose(),
        icv_bits: 128,
    };
    let hash = match integ {
        IntegId::HMAC_SHA2_256_128 => Some(("hmac(sha256)", 128)),
        IntegId::HMAC_SHA2_384_192 => Some(("hmac(sha384)", 192)),
        IntegId::HMAC_SHA2_512_256 => Some(("hmac(sha512)", 256)),
        _ => None,
    };
    match (encr, hash) {
        (EncrId::AES_GCM_16, None) => Ok(aead("rfc4106(gcm(aes))")),
        (EncrId::CHACHA20_POLY1305, None) => Ok(aead("rfc7539esp(chacha20,poly1305)")),
        (EncrId::AES_CBC | EncrId::DES3, Some((name, icv_bits))) => Ok(Algorithm::Pair {
            encr: match encr {
                EncrId::DES3 => "cbc(des3_ede)",
                _ => "cbc(aes)",
            },
            encr_key: keys.encr.expose(),
            integ: name,
            integ_key: keys.integ.expose(),
            icv_bits,
        }),
        (encr, _) => Err(DataPlaneError::Refused(format!(
            "no ESP with {encr} and {integ}"
        ))),
    }
}

/// What the kernel says to a state, as an error that names what is missing.
pub(super) fn state_refused(info: &ChildSaInfo, refusal: &Refusal) -> DataPlaneError {
    let v4 = info.path.remote.is_ipv4();
    let algorithm = match info.integ {
        IntegId::NONE => info.encr.to_string(),
        integ => format!("{} with {integ}", info.encr),
    };
    words(refusal, &algorithm, v4)
}

/// Why there is no state of this algorithm.
pub(super) fn words(refusal: &Refusal, algorithm: &str, v4: bool) -> DataPlaneError {
    let (esp, option) = if v4 {
        ("esp4", "CONFIG_INET_ESP")
    } else {
        ("esp6", "CONFIG_INET6_ESP")
    };
    match refusal.source.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EPROTOTYPE) => DataPlaneError::Refused(format!(
            "this kernel has no ESP: `modprobe {esp}`, or a kernel with {option}"
        )),
        Some(libc::ENOSYS | libc::ENOENT) => DataPlaneError::Refused(format!(
            "this kernel has no {algorithm} for ESP: `modprobe {}`, or choose other esp_proposals ({refusal})",
            modules(algorithm)
        )),
        _ => DataPlaneError::Refused(format!(
            "the kernel refuses an SA with {algorithm}: {refusal}"
        )),
    }
}

fn modules(algorithm: &str) -> &'static str {
    match algorithm {
        "AES_GCM_16" => "-a gcm seqiv",
        "CHACHA20_POLY1305" => "-a chacha20poly1305 seqiv",
        name if name.starts_with("3DES") => "-a authenc cbc hmac echainiv des_generic",
        _ => "-a authenc cbc hmac echainiv",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_ike::crypto::secret::Secret;

    #[test]
    fn ciphers_by_the_kernels_names() {
        let keys = EspKeys {
            encr: Secret::new(vec![1; 24]),
            integ: Secret::new(vec![2; 32]),
        };
        let integ = IntegId::HMAC_SHA2_256_128;
        for (encr, expected) in [
            (EncrId::AES_CBC, "cbc(aes)"),
            (EncrId::DES3, "cbc(des3_ede)"),
        ] {
            match algorithm(encr, integ, &keys).unwrap() {
                Algorithm::Pair { encr, integ, .. } => {
                    assert_eq!((encr, integ), (expected, "hmac(sha256)"));
                }
                Algorithm::Aead { .. } => panic!("{encr} is no AEAD"),
            }
            assert!(algorithm(encr, IntegId::NONE, &keys).is_err());
        }
        assert!(algorithm(EncrId::DES, integ, &keys).is_err());
        assert_eq!(
            modules("3DES with HMAC_SHA2_256_128"),
            "-a authenc cbc hmac echainiv des_generic"
        );
    }
}
