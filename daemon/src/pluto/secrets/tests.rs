use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::pluto::tests::Files;

fn read_files(files: &[(&str, &str)]) -> (Psks, String) {
    let files = Files::new(files);
    for name in fs::read_dir(&files.0).unwrap() {
        let path = name.unwrap().path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let secrets = read(&files.0.join("ipsec.secrets")).unwrap();
    let notices: Vec<String> = secrets.notices.iter().map(ToString::to_string).collect();
    (secrets.psks, files.without_path(&notices.join("\n")))
}

fn read_text(text: &str) -> (Psks, String) {
    read_files(&[("ipsec.secrets", text)])
}

fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

/// The secret of a pair as text, `-` for none.
fn of(psks: &Psks, local: &str, peer: &str) -> String {
    let psk = psks.psk(&id(local), &id(peer));
    psk.map_or("-".into(), |(psk, _)| {
        String::from_utf8_lossy(psk.expose()).into_owned()
    })
}

#[test]
fn all_are_found_who_have_one_secret() {
    let text = "@us @b @c : PSK \"one\"\n@us @d : PSK \"two\"\n@us @e : PSK \"one\"\n";
    let (psks, _) = read_text(text);
    let with = |peer: &str| {
        let (secret, _) = psks.psk(&id("@us"), &id(peer)).unwrap();
        let mut all: Vec<String> = psks.with_secret(&secret).map(ToString::to_string).collect();
        all.sort();
        all.dedup();
        all.len()
    };
    assert_eq!((with("@b"), with("@e"), with("@d")), (4, 4, 2));
}

#[test]
fn the_secret_of_a_pair_is_the_one_that_fits_best() {
    let text =
        ": PSK \"default-secret\"\n@a %any : PSK \"any-secret-1\"\n@a @b : PSK \"pair-secret-1\"\n";
    let (psks, notices) = read_text(text);
    assert_eq!(notices, "");
    let table = [
        ("@a", "@b", "pair-secret-1"),
        ("@b", "@a", "pair-secret-1"),
        ("@a", "@c", "any-secret-1"),
        ("@c", "@a", "any-secret-1"),
        ("@x", "@y", "default-secret"),
    ];
    for (local, peer, expected) in table {
        assert_eq!(of(&psks, local, peer), expected, "{local} {peer}");
    }
}

#[test]
fn every_row_of_the_table_of_ranks() {
    // In the order of the ranks, each line worse than the one before it.
    let table = [
        ("@a @b", Some(12)),
        ("@a @b %any", Some(12)),
        ("@a %any", Some(10)),
        ("@a", Some(9)),
        ("@b %any", Some(6)),
        ("%any", Some(2)),
        ("@x %any", Some(2)),
        ("", Some(2)),
        ("@b", None),
        ("@a @x", None),
        ("@b @x", None),
        ("@x", None),
    ];
    for (selectors, expected) in table {
        let (psks, _) = read_text(format!("{selectors} : PSK \"long-enough\"\n").trim_start());
        let fit = psks.0[0].fit(&id("@a"), Some(&id("@b")));
        assert_eq!(fit, expected, "{selectors}");
    }
    for (selectors, expected) in [
        ("@a @b", None),
        ("@a %any", Some(10)),
        ("@a", Some(9)),
        ("@b %any", Some(2)),
        ("", Some(2)),
    ] {
        let (psks, _) = read_text(format!("{selectors} : PSK \"long-enough\"\n").trim_start());
        assert_eq!(psks.0[0].fit(&id("@a"), None), expected, "{selectors}");
    }
}

#[test]
fn wildcards_are_of_a_family() {
    let (psks, _) = read_text("%any : PSK \"version-4\"\n%any6 : PSK \"version-6\"\n");
    assert_eq!(of(&psks, "192.0.2.1", "192.0.2.2"), "version-4");
    assert_eq!(of(&psks, "2001:db8::1", "2001:db8::2"), "version-6");
    assert_eq!(of(&psks, "@a", "@b"), "version-4");
}

#[test]
fn of_equals_the_first_wins() {
    let (psks, _) = read_text("@a @b : PSK \"first-secret\"\n@b @a : PSK \"second-secret\"\n");
    assert_eq!(of(&psks, "@a", "@b"), "first-secret");
    assert_eq!(of(&psks, "@b", "@a"), "first-secret");
}

#[test]
fn a_secret_for_addresses_is_none_for_names() {
    let (psks, _) = read_text("192.0.2.1 192.0.2.2 : PSK \"of-addresses\"\n");
    assert_eq!(of(&psks, "192.0.2.1", "192.0.2.2"), "of-addresses");
    assert_eq!(of(&psks, "@west", "192.0.2.2"), "-");
    let said = psks.missing(
        &id("@west"),
        Some(&id("@east")),
        &[id("192.0.2.1"), id("192.0.2.2")],
        Path::new("/etc/ipsec.secrets"),
    );
    assert_eq!(
        said,
        "no PSK for @west → @east in /etc/ipsec.secrets (there is one for 192.0.2.1; secrets are found by identity, and those of the connection are @west and @east)"
    );
}

#[test]
fn all_forms_of_a_secret() {
    let table = [
        ("\"a 'quoted' #text\"", "a 'quoted' #text"),
        ("'with \" in it'", "with \" in it"),
        ("0x6865_6c6c6f2D68656c6C6f", "hello-hello"),
        ("0sc2VjcmV0LXNlY3JldA==", "secret-secret"),
        ("0sc2VjcmV0LXNlY3JldA", "secret-secret"),
        ("0tto the end # of line", "to the end # of line"),
        ("\"long-enough\" # a comment", "long-enough"),
        ("\"long-enough\"# a comment", "long-enough"),
    ];
    for (value, expected) in table {
        let (psks, notices) = read_text(&format!("@a @b : psk {value}\n"));
        assert_eq!(of(&psks, "@a", "@b"), expected, "{value}: {notices}");
        assert_eq!(notices, "", "{value}");
    }
}

#[test]
fn records_go_on_over_lines_that_begin_with_a_blank() {
    let text = "# of us\n@a\n  # comment within\n\t@b: PSK\n\n  \"over-five-lines\"\n@c @d : PSK \"another-secret\"";
    let (psks, notices) = read_text(text);
    assert_eq!(notices, "");
    assert_eq!(of(&psks, "@a", "@b"), "over-five-lines");
    assert_eq!(of(&psks, "@c", "@d"), "another-secret");
    let (psks, _) = read_text("\"2001:db8::1\" \"2001:db8::2\" : PSK \"quoted-selectors\"\r\n");
    assert_eq!(of(&psks, "2001:db8::1", "2001:db8::2"), "quoted-selectors");
}

#[test]
fn what_is_left_out_is_named_and_the_rest_counts() {
    let table = [
        (": PSK hidden-word", "PSK data malformed"),
        (":PSK \"hidden-word\"", "no colon of its own"),
        ("@a @b PSK \"hidden-word\"", "no colon of its own"),
        (": PSK \"hidden-word", "unterminated string"),
        (": PSK 0xhidden", "what follows 0x is not hex"),
        (": PSK 0x123", "what follows 0x is not hex"),
        (": PSK 0s!hidden", "what follows 0s is not base64"),
        (": PSK \"\"", "the secret is empty"),
        (": PSK", "PSK has no secret"),
        (
            ": PSK \"hidden-word\" more",
            "there is more behind the secret",
        ),
        (":", "nothing behind the colon"),
        (": XAUTH \"hidden-word\"", "IKEv1"),
        (": PPKS \"id\" \"hidden-word\"", "post-quantum"),
        (": PIN hidden", "smartcards"),
        (": ECDSA hidden", "ECDSA keys are not read from here"),
        (
            ": RSA {\n  Modulus: 0xhidden\n }",
            "Modulus of the RSA key is no number",
        ),
        (": RSA {\n  Modulus: 0x12\n }", "has no PublicExponent"),
        (": RSA {\n  Modulus\n }", "cut off"),
        (": RSA {\n  Modulus: 0x12", "does not end"),
        (": RSA /nowhere/host.key", "/nowhere/host.key"),
        (
            "%nobody : PSK \"hidden-word\"",
            "none of its selectors is one",
        ),
        (" : PSK \"hidden-word\"", "begins with a blank"),
    ];
    for (record, expected) in table {
        let (psks, notices) = read_text(&format!("{record}\n@a @b : PSK \"still-there\"\n"));
        assert!(notices.contains(expected), "{record}: {notices}");
        assert!(notices.contains("ipsec.secrets:1: "), "{record}: {notices}");
        assert!(!notices.contains("hidden"), "{record}: {notices}");
        assert_eq!(of(&psks, "@a", "@b"), "still-there", "{record}");
        assert_eq!(of(&psks, "@x", "@y"), "-", "{record}");
    }
    for record in [": RSA nickname", ": RSA \"\""] {
        assert_eq!(read_text(record).1, "");
    }
}

#[test]
fn weak_secrets_and_bad_selectors_are_named() {
    let (psks, notices) = read_text("@a host.example.com @b : PSK \"short\"\n");
    assert_eq!(of(&psks, "@a", "@b"), "short");
    assert!(
        notices.contains("a secret of 5 octets is weak"),
        "{notices}"
    );
    assert!(
        notices.contains("selector host.example.com is left out"),
        "{notices}"
    );
}

#[test]
fn included_files() {
    let (psks, notices) = read_files(&[
        (
            "ipsec.secrets",
            "include d*.secrets\ninclude none-*\ninclude none\n",
        ),
        (
            "d2.secrets",
            "@a @b : PSK \"second-file\"\ninclude ipsec.secrets\n",
        ),
        ("d1.secrets", "@a @b : PSK \"first-file\"\n"),
    ]);
    assert_eq!(of(&psks, "@a", "@b"), "first-file");
    assert!(
        notices.contains("ipsec.secrets:3: no secrets filename matched \"none\""),
        "{notices}"
    );
    assert!(notices.contains("too many includes"), "{notices}");
}

#[test]
fn a_file_that_others_may_read_is_named() {
    let files = Files::new(&[("ipsec.secrets", ": PSK \"long-enough\"\n")]);
    let path = files.0.join("ipsec.secrets");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let secrets = read(&path).unwrap();
    let [notice] = secrets.notices.as_slice() else {
        panic!("{:?}", secrets.notices)
    };
    assert!(notice.message.contains("others may read it"), "{notice}");
    assert_eq!(of(&secrets.psks, "@a", "@b"), "long-enough");
    let error = read(&files.0.join("nothing")).unwrap_err().to_string();
    assert!(error.contains("nothing: cannot read"), "{error}");
}
