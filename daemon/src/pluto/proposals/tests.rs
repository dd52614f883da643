//! Tests of the words of `ike=` and `esp=`.

use super::*;

fn ike(text: &str) -> String {
    match read_ike(text) {
        Err(error) => format!("! {error}"),
        Ok(read) => {
            let texts: Vec<String> = read.proposals.iter().map(ToString::to_string).collect();
            texts.join(", ")
        }
    }
}

fn esp(text: &str, pfs: bool) -> String {
    match read_esp(text, pfs, &[true, false]) {
        Err(error) => format!("! {error}"),
        Ok(read) => {
            let texts: Vec<String> = read.proposals.iter().map(ToString::to_string).collect();
            texts.join(", ")
        }
    }
}

const ALL: &str = "ecp256-ecp384-ecp521-x25519-modp4096-modp3072-modp2048";

#[test]
fn ike_lists() {
    let table = [
        (
            "aes_gcm256-sha2;modp2048,aes128-sha2-dh19",
            "aes256gcm16-prfsha256-modp2048, aes128-sha256-prfsha256-ecp256".to_owned(),
        ),
        (
            "aes-sha2;modp2048",
            "aes256-aes128-sha256-prfsha256-modp2048".to_owned(),
        ),
        (
            "aes-sha1-sha2-dh14",
            "! IKE PRF 'sha1' is not supported".to_owned(),
        ),
        (
            "aes256-sha512-sha256-modp3072",
            "aes256-sha512-prfsha256-modp3072".to_owned(),
        ),
        (
            "AES_GCM_16_256-SHA2_512-DH19+DH31",
            "aes256gcm16-prfsha512-ecp256-x25519".to_owned(),
        ),
        (
            "aes-256-sha2-256-dh20",
            "aes256-sha256-prfsha256-ecp384".to_owned(),
        ),
        (
            "chacha20_poly1305",
            format!("chacha20poly1305-prfsha512-prfsha256-{ALL}"),
        ),
        (
            "aes256+aes128-sha2;dh19",
            "aes256-aes128-sha256-prfsha256-ecp256".to_owned(),
        ),
        (
            "aes256;prf=sha2_512;integ=sha2_256;ke=dh19",
            "aes256-sha256-prfsha512-ecp256".to_owned(),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(ike(text), expected, "{text}");
    }
}

#[test]
fn esp_lists() {
    let both = "esn-noesn";
    let table = [
        (
            "aes_gcm,aes-sha2",
            true,
            format!("aes128gcm16-aes256gcm16-{ALL}-{both}, aes128-aes256-sha256-{ALL}-{both}"),
        ),
        ("aes_gcm256-null", false, format!("aes256gcm16-{both}")),
        (
            "aes128-sha2;modp2048",
            true,
            format!("aes128-sha256-modp2048-{both}"),
        ),
        (
            "aes128-sha2;modp2048",
            false,
            format!("aes128-sha256-{both}"),
        ),
        (
            "aes_gcm-none-dh0",
            true,
            format!("aes128gcm16-aes256gcm16-{both}"),
        ),
    ];
    for (text, pfs, expected) in table {
        assert_eq!(esp(text, pfs), expected, "{text}");
    }
}

#[test]
fn what_is_refused_names_the_word() {
    let table = [
        ("aes_gcm-modp2048", "PRF 'modp2048'"),
        ("3des-sha1;modp1024", "'sha1'"),
        ("foo-sha2", "cipher) 'foo'"),
        ("aes-sha3", "PRF 'sha3'"),
        ("aes224-sha2", "valid key lengths: 128, 192, 256"),
        ("aes-sha2;modp1024", "'modp1024' is not supported"),
        ("aes-sha2;dh99", "'dh99' is not recognized"),
        ("3des-sha2;dh14", "no cipher that obol has"),
        ("aes_gcm+aes-sha2", "mixes AEAD"),
        ("aes-sha2-modp2048!", "trailing !"),
        ("", "is empty"),
        ("aes-sha2,,aes-sha2", "is empty"),
        ("aes-sha2-sha2-sha2", "too many words"),
    ];
    for (text, expected) in table {
        let found = ike(text);
        assert!(
            found.starts_with("! ") && found.contains(expected),
            "{text}: {found}"
        );
    }
    for (text, expected) in [
        ("aes-md5", "'md5' is not supported"),
        ("aes-sah1", "Integrity Algorithm 'sah1' is not recognized"),
        ("aes-sha2;dh14,aes_gcm", "either all ESP proposals"),
    ] {
        let found = esp(text, true);
        assert!(
            found.starts_with("! ") && found.contains(expected),
            "{text}: {found}"
        );
    }
}

#[test]
fn weak_words_are_left_out_beside_strong_ones() {
    let read = read_ike("aes+3des-sha2+sha1;modp2048+modp1024").unwrap();
    assert_eq!(read.dropped.len(), 3, "{:?}", read.dropped);
    assert_eq!(
        read.proposals[0].to_string(),
        "aes256-aes128-sha256-prfsha256-modp2048"
    );
}
