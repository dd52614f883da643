//! Configurations that are wrong as a whole, or not good, and texts that are none.

use std::path::Path;

use proptest::prelude::*;

use super::bad::errors;
use super::{HOSTS, Table};
use crate::config::files::NoFiles;
use crate::config::parse_str;

#[test]
fn all_errors_are_reported_in_the_order_of_the_text() {
    let text = HOSTS
        .replace("\"psk\", id = \"@hostB", "\"PSK\", id = \"@hostB")
        .replace("remote_addrs =", "remote_adrs =")
        .replace("172.16.2.0/24", "nets");
    let errors = errors(&text);
    let places: Vec<&str> = errors.0.iter().map(|e| e.location.as_str()).collect();
    assert_eq!(
        places,
        ["a.toml:5:1", "a.toml:8:19", "a.toml:12:14"],
        "{errors}"
    );
    assert!(errors.to_string().ends_with("3 errors"));
}

#[test]
fn a_broken_text_is_shown_where_it_breaks() {
    let errors = errors("[connections.hosts\nlocal_addrs = [\"a\"\n");
    assert!(errors.0[0].location.starts_with("a.toml:1:"), "{errors}");
    let errors = super::bad::errors(&HOSTS.replace("type = \"psk\"", "type = psk"));
    assert_eq!(errors.0[0].location, "a.toml:28:8", "{errors}");
}

#[test]
fn a_connection_without_children_protects_nothing() {
    let end = HOSTS.find("[connections.hosts.children.pods]").unwrap();
    let secrets = &HOSTS[HOSTS.find("[secrets").unwrap()..];
    let errors = errors(&format!("{}{secrets}", &HOSTS[..end]));
    assert!(errors.0[0].message.contains("has no children"), "{errors}");
}

#[test]
fn somebody_must_be_named() {
    let text = HOSTS
        .replace(
            "remote_addrs = [\"192.168.0.2\"]",
            "remote_addrs = [\"%any\"]",
        )
        .replace(", id = \"@hostB.example.com\" }", " }");
    let errors = errors(&text);
    assert!(errors.0[0].message.contains("who the peer is"), "{errors}");
}

#[test]
fn an_mtu_without_room_for_ipv6_is_a_warning() {
    for (mtu, warnings) in [(1367, 1), (1368, 0)] {
        let text = format!("{HOSTS}\n[daemon]\nmtu = {mtu}\n");
        let loaded = parse_str("a.toml", &text, &NoFiles).unwrap();
        assert_eq!(loaded.warnings.len(), warnings, "{:?}", loaded.warnings);
    }
}

#[test]
fn short_secrets_are_a_warning() {
    let mut files = Table::default();
    files.0.insert("short", b"hunter2\n".to_vec());
    let text = HOSTS.replace(
        "secret = \"0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ=\"",
        "file = \"short\"",
    );
    let loaded = parse_str("a.toml", &text, &files).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].message.contains("only 7 octets"));
    let psk = &loaded.credentials.psks[0];
    assert_eq!(psk.secret.expose(), b"hunter2");
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn the_corpus_of_the_fuzzer_is_survived() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/config");
    let mut files = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        crate::config::fuzz_config(&std::fs::read(file.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 0);
}

proptest! {
    #[test]
    fn no_text_panics(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        crate::config::fuzz_config(&octets);
    }

    #[test]
    fn no_damage_to_the_documented_file_panics(
        at in 0..HOSTS.len(),
        removed in 0..40usize,
        inserted in "[\\[\\]{}=\"'#\\.a-z0-9%\n/é-]{0,12}",
    ) {
        let start = HOSTS.floor_char_boundary(at);
        let end = HOSTS.floor_char_boundary((start + removed).min(HOSTS.len()));
        let text = format!("{}{inserted}{}", &HOSTS[..start], &HOSTS[end..]);
        if let Err(errors) = parse_str("a.toml", &text, &NoFiles) {
            prop_assert!(!errors.0.is_empty());
            let shown = errors.to_string();
            prop_assert!(!shown.contains("GVtby1zZWN"), "{}", shown);
        }
    }
}
