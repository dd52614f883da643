//! The AlgorithmIdentifiers (DER) of AUTH method 14: RFC 7427 appendix A, RFC 8420 appendix A.
//!
//! What comes in is compared with complete encodings. RSASSA-PSS has several for the same
//! parameters, since NULL may be written or left out after a hash (RFC 4055 section 2.1) and
//! some peers write the default trailerField.

use super::signature::SignatureScheme as S;

/// 1.2.840.113549.1.1 (pkcs-1) without its last arc, as OBJECT IDENTIFIER of 9 octets.
const PKCS_1: [u8; 10] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// 2.16.840.1.101.3.4.2 (the SHA-2 hashes) without its last arc, likewise.
const NIST_HASH: [u8; 10] = [0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
/// 1.2.840.10045.4.3 (ecdsa-with-SHA2) without its last arc, likewise.
const ECDSA: [u8; 9] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
const NULL: [u8; 2] = [0x05, 0x00];

const SEQUENCE: u8 = 0x30;
const RSASSA_PSS: u8 = 10;
const MGF1: u8 = 8;

/// The scheme that an AlgorithmIdentifier names, if it is one obol accepts. SHA-1 is none.
pub(super) fn scheme(identifier: &[u8]) -> Option<S> {
    let single = [
        S::Ed25519,
        S::RsaPkcs1Sha256,
        S::RsaPkcs1Sha384,
        S::RsaPkcs1Sha512,
        S::EcdsaSha256,
        S::EcdsaSha384,
        S::EcdsaSha512,
    ];
    let pss = [S::RsaPssSha256, S::RsaPssSha384, S::RsaPssSha512];
    let mut all = single
        .into_iter()
        .filter_map(|scheme| Some((scheme, preferred(scheme)?)))
        .chain(pss.into_iter().flat_map(pss_forms));
    all.find_map(|(scheme, form)| (form == identifier).then_some(scheme))
}

//= rfc7427 3-1
/// The AlgorithmIdentifier that obol sends; `None` for the schemes of other AUTH methods.
pub(super) fn preferred(scheme: S) -> Option<Vec<u8>> {
    Some(match scheme {
        S::RsaPkcs1Sha1 | S::EcdsaP256 | S::EcdsaP384 | S::EcdsaP521 => return None,
        S::RsaPkcs1Sha256 => der(SEQUENCE, &[&pkcs_1(11), &NULL]),
        S::RsaPkcs1Sha384 => der(SEQUENCE, &[&pkcs_1(12), &NULL]),
        S::RsaPkcs1Sha512 => der(SEQUENCE, &[&pkcs_1(13), &NULL]),
        S::Ed25519 => der(SEQUENCE, &[&ED25519]),
        S::EcdsaSha256 => der(SEQUENCE, &[&ECDSA, &[2]]),
        S::EcdsaSha384 => der(SEQUENCE, &[&ECDSA, &[3]]),
        S::EcdsaSha512 => der(SEQUENCE, &[&ECDSA, &[4]]),
        // DER leaves out what is default: no trailerField.
        S::RsaPssSha256 | S::RsaPssSha384 | S::RsaPssSha512 => pss_form(scheme, true, false)?,
    })
}

fn pss_forms(scheme: S) -> impl Iterator<Item = (S, Vec<u8>)> {
    [(true, false), (true, true), (false, false), (false, true)]
        .into_iter()
        .filter_map(move |(null, trailer)| Some((scheme, pss_form(scheme, null, trailer)?)))
}

/// RSASSA-PSS-params (RFC 4055 section 3.1): hash, MGF1 with the same hash, salt of its length.
fn pss_form(scheme: S, null: bool, trailer: bool) -> Option<Vec<u8>> {
    let (arc, salt_len) = match scheme {
        S::RsaPssSha256 => (1, 32),
        S::RsaPssSha384 => (2, 48),
        S::RsaPssSha512 => (3, 64),
        _ => return None,
    };
    let parameters: &[u8] = if null { &NULL } else { &[] };
    let hash = der(SEQUENCE, &[&NIST_HASH, &[arc], parameters]);
    let mgf = der(SEQUENCE, &[&pkcs_1(MGF1), &hash]);
    let params = [
        der(0xa0, &[&hash]),
        der(0xa1, &[&mgf]),
        der(0xa2, &[&[0x02, 0x01, salt_len]]),
        if trailer {
            der(0xa3, &[&[0x02, 0x01, 0x01]])
        } else {
            Vec::new()
        },
    ]
    .concat();
    Some(der(
        SEQUENCE,
        &[&pkcs_1(RSASSA_PSS), &der(SEQUENCE, &[&params])],
    ))
}

fn pkcs_1(arc: u8) -> Vec<u8> {
    [&PKCS_1[..], &[arc]].concat()
}

/// Tag, length, value; for values of less than 128 octets, as all of these are.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let len = u8::try_from(value.len()).expect("the longest is 70 octets");
    debug_assert!(len < 128);
    [&[tag, len], &value[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    //= test rfc7427 3-1
    #[test]
    fn the_published_encodings_are_recognised() {
        let table = [
            (
                "RFC 7427 A.1.2",
                "300d06092a864886f70d01010b0500",
                S::RsaPkcs1Sha256,
            ),
            (
                "RFC 7427 A.1.3",
                "300d06092a864886f70d01010c0500",
                S::RsaPkcs1Sha384,
            ),
            (
                "RFC 7427 A.1.4",
                "300d06092a864886f70d01010d0500",
                S::RsaPkcs1Sha512,
            ),
            ("RFC 8420 A.1", "300506032b6570", S::Ed25519),
            ("RFC 7427 A.3.2", "300a06082a8648ce3d040302", S::EcdsaSha256),
            ("RFC 7427 A.3.3", "300a06082a8648ce3d040303", S::EcdsaSha384),
            ("RFC 7427 A.3.4", "300a06082a8648ce3d040304", S::EcdsaSha512),
            (
                "RFC 7427 A.4.3",
                "304606092a864886f70d01010a3039a00f300d06096086480165030402010500\
                 a11c301a06092a864886f70d010108300d06096086480165030402010500a203\
                 020120a303020101",
                S::RsaPssSha256,
            ),
            (
                "SHA-384, no trailer",
                "304106092a864886f70d01010a3034a00f300d06096086480165030402020500\
                 a11c301a06092a864886f70d010108300d06096086480165030402020500a203\
                 020130",
                S::RsaPssSha384,
            ),
            (
                "SHA-512, no trailer, no NULL",
                "303d06092a864886f70d01010a3030a00d300b0609608648016503040203a11a\
                 301806092a864886f70d010108300b0609608648016503040203a203020140",
                S::RsaPssSha512,
            ),
        ];
        for (name, form, expected) in table {
            assert_eq!(
                scheme(&hex::decode(form).unwrap()),
                Some(expected),
                "{name}"
            );
        }
    }

    //= test security S-42
    #[test]
    fn sha1_defaults_and_variations_are_not() {
        let table = [
            ("nothing", ""),
            ("RFC 7427 A.1.1, SHA-1", "300d06092a864886f70d0101050500"),
            (
                "RFC 7427 A.4.1, PSS with SHA-1 by default",
                "300d06092a864886f70d01010a3000",
            ),
            (
                "sha256WithRSAEncryption without NULL",
                "300b06092a864886f70d01010b",
            ),
            ("Ed25519 with NULL", "300706032b65700500"),
            ("Ed448", "300506032b6571"),
            ("RFC 7427 A.3.1, ECDSA with SHA-1", "300906072a8648ce3d0401"),
            (
                "ECDSA with SHA-256 and NULL",
                "300c06082a8648ce3d0403020500",
            ),
            ("ECDSA with SHA-224", "300a06082a8648ce3d040301"),
            (
                "PSS with SHA-256 and a salt of 20",
                "304106092a864886f70d01010a3034a00f300d06096086480165030402010500\
                 a11c301a06092a864886f70d010108300d06096086480165030402010500a203\
                 020114",
            ),
            (
                "PSS with SHA-256 and MGF1 with SHA-512",
                "304106092a864886f70d01010a3034a00f300d06096086480165030402010500\
                 a11c301a06092a864886f70d010108300d06096086480165030402030500a203\
                 020120",
            ),
            ("trailing octet", "300506032b657000"),
        ];
        for (name, form) in table {
            assert_eq!(scheme(&hex::decode(form).unwrap()), None, "{name}");
        }
    }

    //= test rfc7427 3-1
    #[test]
    fn what_is_sent_is_what_is_accepted() {
        for wanted in [
            S::RsaPkcs1Sha256,
            S::RsaPkcs1Sha384,
            S::RsaPkcs1Sha512,
            S::RsaPssSha256,
            S::RsaPssSha384,
            S::RsaPssSha512,
            S::Ed25519,
            S::EcdsaSha256,
            S::EcdsaSha384,
            S::EcdsaSha512,
        ] {
            assert_eq!(scheme(&preferred(wanted).unwrap()), Some(wanted));
        }
        for old in [S::RsaPkcs1Sha1, S::EcdsaP256, S::EcdsaP384, S::EcdsaP521] {
            assert_eq!(preferred(old), None);
        }
    }
}
