//! Which secret serves whom, and who can sign.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;

use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::secret::Secret;
use obol_ike::crypto::signature::SignatureScheme;
use obol_ike::identity::Identity;

use super::{Credentials, OpenPsk, Psk};
use crate::config::files::Disk;
use crate::racoon::PskSource;

fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

/// Secrets named after what they list.
fn credentials(lists: &[&[&str]]) -> Credentials {
    let psk = |ids: &&[&str]| Psk {
        name: ids.join("+"),
        ids: ids.iter().map(|text| id(text)).collect(),
        secret: Secret::from(ids.join("+").as_bytes()),
    };
    Credentials {
        psks: lists.iter().map(psk).collect(),
        ..Credentials::default()
    }
}

fn found(credentials: &Credentials, local: &str, remote: &str) -> Option<String> {
    let secret = credentials.psk(&id(local), &id(remote))?;
    Some(String::from_utf8(secret.expose().to_vec()).unwrap())
}

#[test]
fn the_best_match_wins_in_any_order() {
    let lists: [&[&str]; 4] = [&["@a", "@b"], &["@b"], &["@a"], &[]];
    for first in 0..lists.len() {
        let mut rotated = lists;
        rotated.rotate_left(first);
        let all = credentials(&rotated);
        let best = |local, remote| found(&all, local, remote);
        assert_eq!(best("@a", "@b").as_deref(), Some("@a+@b"));
        assert_eq!(best("@b", "@a").as_deref(), Some("@a+@b"));
        assert_eq!(best("@c", "@b").as_deref(), Some("@b"));
        assert_eq!(best("@a", "@c").as_deref(), Some("@a"));
        assert_eq!(best("@c", "@d").as_deref(), Some(""));
    }
}

//= test rfc7296 1.2-3
#[test]
fn a_secret_of_others_is_not_used() {
    let shared = credentials(&[&["@a", "@b"]]);
    assert_eq!(found(&shared, "@a", "@c"), None, "c is not in it");
    assert_eq!(found(&shared, "@c", "@d"), None);
    assert!(
        shared.psk(&id("@A"), &id("@B")).is_some(),
        "case does not matter"
    );
}

#[test]
fn what_may_be_found_later() {
    let shared = credentials(&[&["@a", "@b"]]);
    let (a, b, c) = (id("@a"), id("@b"), id("@c"));
    assert!(shared.may_have_psk(Some(&a), Some(&b)));
    assert!(!shared.may_have_psk(Some(&a), Some(&c)));
    assert!(shared.may_have_psk(None, Some(&b)));
    assert!(!shared.may_have_psk(None, Some(&c)));
    assert!(shared.may_have_psk(Some(&a), None));
    assert!(!credentials(&[]).may_have_psk(None, None));
    assert!(credentials(&[&["@a"]]).may_have_psk(None, Some(&c)));
}

#[test]
fn signatures_verify_and_strangers_keys_do_not_sign() {
    let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
    let mut credentials = Credentials::default();
    credentials.add_key("own", PrivateKey::generate_ed25519(&mut rng));
    let [(name, public)] = credentials.keys()[..] else {
        panic!("one key");
    };
    assert_eq!(name, "own");
    let scheme = SignatureScheme::Ed25519;
    let signature = credentials.sign(public, scheme, b"octets").unwrap();
    assert!(public.verify(scheme, b"octets", &signature).is_ok());
    assert!(public.verify(scheme, b"others", &signature).is_err());
    let wrong = credentials.sign(public, SignatureScheme::RsaPssSha256, b"octets");
    assert!(wrong.unwrap_err().contains("private key own"));
    let stranger = PrivateKey::generate_ed25519(&mut rng).public();
    assert!(credentials.sign(&stranger, scheme, b"octets").is_err());
}

#[test]
fn debug_says_nothing_secret() {
    let text = format!("{:?}", credentials(&[&["@a"]]));
    assert_eq!(text, "Credentials(1 pre-shared, 0 private keys)");
}

/// Where a connection leaves open who its peer is, nobody passes by the secret of another one.
#[test]
fn whom_there_is_a_secret_for_at_an_address_needs_that_one() {
    let at: IpAddr = "192.0.2.2".parse().unwrap();
    let own = id("192.0.2.1");
    let shared = credentials(&[
        &["192.0.2.1", "192.0.2.2"],
        &["192.0.2.1", "192.0.2.3"],
        &["192.0.2.1", "@c"],
        &[],
    ]);
    let found = |remote: &str, at: IpAddr, named| {
        let found = shared.psk_at(&own, &id(remote), at, named);
        let text = |found: OpenPsk| String::from_utf8(found.secret.expose().to_vec()).unwrap();
        found.map(|found| found.map(text).unwrap())
    };
    let of_address = "192.0.2.1+192.0.2.2".to_owned();
    assert_eq!(found("192.0.2.2", at, true), Ok(of_address.clone()));
    assert_eq!(found("@b", at, true), Ok(of_address), "nobody else's");
    for another in ["192.0.2.3", "@c"] {
        let why = found(another, at, true).unwrap_err();
        assert!(
            why.contains("192.0.2.2") && why.contains(another.trim_start_matches('@')),
            "{why}"
        );
        assert!(!why.contains("192.0.2.1+"), "no secret is told");
        // Where the connection names no address, or there is no secret for this one.
        let of_identity = format!("192.0.2.1+{another}");
        assert_eq!(found(another, at, false), Ok(of_identity.clone()));
        let elsewhere = "192.0.2.77".parse().unwrap();
        assert_eq!(found(another, elsewhere, true), Ok(of_identity));
    }
    assert_eq!(found("@b", at, false), Ok(String::new()), "everybody's");
    let nothing = credentials(&[]).psk_at(&own, &id("@b"), at, true);
    assert!(matches!(nothing, Ok(None)));
}

/// Who has the secret of others may say to be any of them.
#[test]
fn a_secret_that_others_have_is_of_a_group() {
    let at = "192.0.2.9".parse().unwrap();
    let of = |lists: &[&[&str]], remote: &str| {
        let mut all = credentials(lists);
        // One secret under two entries.
        for psk in all.psks.iter_mut().filter(|psk| psk.name.contains("twin")) {
            psk.secret = Secret::from(b"the same".as_slice());
        }
        let found = all.psk_at(&id("@us"), &id(remote), at, true);
        found.unwrap().unwrap().of_group
    };
    assert!(!of(&[&["@us", "@b"], &["@us", "@c"]], "@b"));
    assert!(!of(&[&["@b"], &[]], "@b"));
    assert!(of(&[&["@us", "@b", "@c"]], "@b"));
    assert!(of(&[&["@us"]], "@b"));
    assert!(of(&[&[]], "@b"));
    assert!(of(&[&["@us", "@twin1"], &["@twin2"]], "@twin1"));
    assert!(!of(&[&["@us", "@twin1"], &["@twin1"]], "@twin1"));
}

/// A group that lists its members has one secret: each is itself with it.
#[test]
fn the_same_secret_under_two_names_is_none_too_many() {
    let at = "192.0.2.2".parse().unwrap();
    let group = credentials(&[&["192.0.2.1", "192.0.2.2", "@b"]]);
    let found = group.psk_at(&id("192.0.2.1"), &id("@b"), at, true);
    assert!(found.unwrap().is_some());
}

#[test]
fn lines_of_psk_txt_are_about_addresses_unless_everybody_comes_first() {
    let path = std::env::temp_dir().join(format!("obol-psk-at-{}", std::process::id()));
    let own = id("10.0.1.1");
    let at: IpAddr = "10.0.1.13".parse().unwrap();
    let found = |text: &str, remote: &str| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (file, _) = PskSource::read(&Disk, path.clone()).unwrap();
        let credentials = Credentials {
            psk_files: vec![file],
            ..Credentials::default()
        };
        let found = credentials.psk_at(&own, &id(remote), at, false).ok()?;
        Some(String::from_utf8(found?.secret.expose().to_vec()).unwrap())
    };
    let lines = "10.0.1.13 the thirteenth\n10.0.1.77 another one\n@c a third one\n* everybody's\n";
    let names = lines.replace("@c", "c.example.com");
    for (remote, secret) in [
        ("10.0.1.13", Some("the thirteenth")),
        ("@b.example.com", Some("the thirteenth")),
        ("10.9.9.9", Some("the thirteenth")),
        ("10.0.1.77", None),
        ("@c.example.com", None),
    ] {
        assert_eq!(found(&names, remote).as_deref(), secret, "{remote}");
    }
    let first = "* everybody's\n10.0.1.13 the thirteenth\n10.0.1.77 another one\n";
    for remote in ["10.0.1.13", "10.0.1.77", "@c.example.com"] {
        assert_eq!(found(first, remote).as_deref(), Some("everybody's"));
    }
    let others = "10.0.1.77 another one\n* everybody's\n";
    assert_eq!(found(others, "10.0.1.77").as_deref(), Some("another one"));
    std::fs::remove_file(&path).unwrap();
}
