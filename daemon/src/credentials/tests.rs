//! Which secret serves whom, and who can sign.

use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::secret::Secret;
use obol_ike::crypto::signature::SignatureScheme;
use obol_ike::identity::Identity;

use super::{Credentials, Psk};

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
