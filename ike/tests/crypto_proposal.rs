//! The words of proposals: read, printed again, refused; a row per case.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use obol_ike::proposal::{Allowed, Encr, EspProposal, IkeProposal, ProposalError};

//= test rfc7296 3.3.4-4
#[test]
fn ike_words() {
    for (text, printed) in [
        (
            "aes256gcm16-prfsha384-x25519",
            "aes256gcm16-prfsha384-x25519",
        ),
        (
            "AES256GCM16-PRFSHA384-X25519",
            "aes256gcm16-prfsha384-x25519",
        ),
        (
            " aes128-sha256-modp2048 ",
            "aes128-sha256-prfsha256-modp2048",
        ),
        ("aes-sha2_512-ecp521", "aes128-sha512-prfsha512-ecp521"),
        (
            "aes192-sha384-prfsha256-ecp384",
            "aes192-sha384-prfsha256-ecp384",
        ),
        (
            "aes128gcm-aes256gcm128-prfsha256-curve25519",
            "aes128gcm16-aes256gcm16-prfsha256-x25519",
        ),
        (
            "chacha20poly1305-prfsha512-ecp256-modp3072",
            "chacha20poly1305-prfsha512-ecp256-modp3072",
        ),
        // As in strongSwan: integrity says which PRF, and nothing else with an AEAD.
        ("aes256gcm16-sha384-x25519", "aes256gcm16-prfsha384-x25519"),
        (
            "aes256-aes256-sha256-sha2_256-modp4096",
            "aes256-sha256-prfsha256-modp4096",
        ),
    ] {
        let parsed = IkeProposal::parse(text).unwrap();
        let printed_now: Vec<String> = parsed.iter().map(ToString::to_string).collect();
        assert_eq!(printed_now, [printed], "{text}");
        assert_eq!(IkeProposal::parse(printed).unwrap(), parsed, "{text}");
    }
}

//= test rfc7296 3.3.4-4
#[test]
fn esp_words() {
    for (text, printed) in [
        ("aes256gcm16", "aes256gcm16-noesn"),
        ("aes256gcm16-x25519", "aes256gcm16-x25519-noesn"),
        ("aes128-sha256-esn", "aes128-sha256-esn"),
        ("aes128gcm16-noesn-esn", "aes128gcm16-noesn-esn"),
        ("aes128gcm16-sha256", "aes128gcm16-noesn"),
    ] {
        let parsed = EspProposal::parse(text).unwrap();
        let printed_now: Vec<String> = parsed.iter().map(ToString::to_string).collect();
        assert_eq!(printed_now, [printed], "{text}");
        assert_eq!(EspProposal::parse(printed).unwrap(), parsed, "{text}");
    }
}

#[test]
fn default_is_a_word() {
    assert_eq!(IkeProposal::parse("default"), Ok(IkeProposal::defaults()));
    assert_eq!(EspProposal::parse(" Default"), Ok(EspProposal::defaults()));
    for proposal in IkeProposal::defaults() {
        assert_eq!(
            IkeProposal::parse(&proposal.to_string()).unwrap(),
            [proposal]
        );
    }
    for proposal in EspProposal::defaults() {
        assert_eq!(
            EspProposal::parse(&proposal.to_string()).unwrap(),
            [proposal]
        );
    }
}

/// What is weak is taken by name, where it is allowed, and printed as it is written.
#[test]
fn weak_words_are_taken_where_they_are_allowed() {
    let mut allowed = Allowed::default();
    assert!(!allowed.allow("des"));
    assert!(allowed.allow("3des"));
    assert_eq!(allowed.words(), Allowed::WORDS);
    for text in [
        "3des-sha256-prfsha256-modp2048",
        "aes128-3des-sha512-prfsha512-modp2048",
    ] {
        assert!(IkeProposal::parse(text).is_err(), "{text}");
        let read = IkeProposal::parse_allowing(text, allowed).unwrap();
        assert_eq!(read[0].to_string(), text);
        assert!(read[0].encr.contains(&Encr::TRIPLE_DES_CBC));
    }
    let text = "3des-sha256-modp2048-noesn";
    assert!(EspProposal::parse(text).is_err());
    let read = EspProposal::parse_allowing(text, allowed).unwrap();
    assert_eq!(read[0].to_string(), text);
    // Nothing else gets in with it, and nobody gets it who has not named it.
    assert!(EspProposal::parse_allowing("des-sha256", allowed).is_err());
    assert!(EspProposal::parse_allowing("3des", allowed).is_err());
    let defaults = EspProposal::parse_allowing("default", allowed).unwrap();
    assert!(
        defaults
            .iter()
            .all(|one| !one.encr.contains(&Encr::TRIPLE_DES_CBC))
    );
}

//= test rfc7296 3-1 5-2
//= test rfc4303 3.2-1
//= test security S-43 S-62
#[test]
fn refused_words_name_their_replacement() {
    for (text, said) in [
        (
            "3des-sha256-modp2048",
            "`3des` has 64-bit blocks: write `aes256gcm16`",
        ),
        (
            "des-sha256-modp2048",
            "`des` has 56-bit keys: write `aes256gcm16`",
        ),
        (
            "null-sha256-modp2048",
            "`null` does not encrypt: write `aes256gcm16`",
        ),
        ("aes128-md5-modp2048", "`md5` is broken: write `sha256`"),
        ("aes128-SHA1-modp2048", "`SHA1` is broken: write `sha256`"),
        (
            "aes128-sha-modp2048",
            "`sha` is SHA-1, which is broken: write `sha256`",
        ),
        (
            "aes256gcm16-prfsha1-x25519",
            "`prfsha1` is broken: write `prfsha256`",
        ),
        (
            "aes128-sha256-modp768",
            "(group 1): write `x25519 or modp3072`",
        ),
        (
            "aes128-sha256-modp1024",
            "(group 2): write `x25519 or modp3072`",
        ),
        (
            "aes128-sha256-modp1536",
            "(group 5): write `x25519 or modp3072`",
        ),
        (
            "aes128-sha256-modp1024s160",
            "(group 22): write `x25519 or modp3072`",
        ),
        (
            "aes128-sha256-modp2048s224",
            "(group 23): write `x25519 or modp3072`",
        ),
        (
            "aes128-sha256-modp2048s256",
            "(group 24): write `x25519 or modp3072`",
        ),
        ("blowfish128-sha256-x25519", "write `aes256gcm16`"),
        ("cast128-sha256-x25519", "write `aes256gcm16`"),
        (
            "camellia256-sha256-x25519",
            "`camellia256` is not implemented: write `aes256gcm16`",
        ),
        (
            "aes256ccm16-prfsha256-x25519",
            "`aes256ccm16` is not implemented: write `aes256gcm16`",
        ),
        (
            "aes128gcm8-prfsha256-x25519",
            "`aes128gcm8` is not implemented: write `aes128gcm16`",
        ),
        (
            "aes192gcm16-prfsha256-x25519",
            "`aes192gcm16` is not implemented: write `aes256gcm16`",
        ),
        (
            "aes128-sha256-modp8192",
            "`modp8192` is not implemented: write `modp4096`",
        ),
        (
            "aes128-sha256-x448",
            "`x448` is not implemented: write `x25519`",
        ),
        (
            "aes128-sah256-x25519",
            "`sah256` is not an algorithm: did you mean `sha256`?",
        ),
        (
            "aes265gcm16-prfsha256-x25519",
            "did you mean `aes256gcm16`?",
        ),
        ("aes128-sha256-x2551", "did you mean `x25519`?"),
        ("aes128-sha256-rot13", "`rot13` is not an algorithm"),
        ("", "`` is not an algorithm"),
        ("aes128-", "`` is not an algorithm"),
        (
            "aes128-modp2048",
            "there is no integrity algorithm in it: add `sha256`",
        ),
        (
            "aes256gcm16-x25519",
            "there is no pseudorandom function in it: add `prfsha256`",
        ),
        (
            "aes256gcm16-prfsha256",
            "there is no key exchange in it: add `x25519`",
        ),
        (
            "sha256-x25519",
            "there is no encryption in it: add `aes256gcm16`",
        ),
        (
            "aes256gcm16-aes256-sha256-x25519",
            "AEAD (aes256gcm16) and other encryption (aes256)",
        ),
        (
            "aes256gcm16-prfsha256-x25519-esn",
            "`esn` has no meaning in IKE proposals",
        ),
    ] {
        let error = IkeProposal::parse(text).unwrap_err();
        assert!(error.to_string().contains(said), "{text}: {error}");
    }
    let error = EspProposal::parse("aes256gcm16-prfsha256").unwrap_err();
    assert_eq!(
        error,
        ProposalError::Misplaced {
            word: "prfsha256".into(),
            place: "ESP"
        }
    );
}
