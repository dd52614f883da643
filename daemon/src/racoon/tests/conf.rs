//! The acceptance list of `racoon.conf` and `psk.txt`.

use proptest::prelude::*;

use super::*;

#[test]
fn r_a1_the_story_with_a_notice_for_each_change() {
    let files = Files::of(RACOON, PSK, MONGODB);
    let understood = files.load().unwrap();
    assert_eq!(
        files.notices(&understood),
        [
            "racoon.conf: racoon cannot speak IKEv2, and obol nothing else: all nodes move together",
            "racoon.conf:13:19: exchange_mode base is IKEv1; this build negotiates IKEv2 with all peers",
            "racoon.conf:21:24: sha1 is raised to sha256, here and by obol on all hosts",
            "racoon.conf:30:31: 3des has 64-bit blocks: it is never offered",
            "racoon.conf:31:69: hmac_sha1 is phased out: it is never offered",
            "racoon.conf:33:15: modp1024 is too short: raised to modp2048, here and by obol on all hosts",
        ]
    );
}

#[test]
fn r_a7_each_error_has_its_place() {
    let table = [
        (
            "passive off;",
            "passive off",
            "15:5: \"nat_traversal\" syntax error",
        ),
        ("dh_group modp2048;", "", "18:5: DH group required."),
        (
            "passive off;",
            "dh_group modp2048;",
            "14:5: DH group must be set in the proposal.",
        ),
        (
            "authentication_algorithm hmac_sha512, hmac_sha384, hmac_sha256, hmac_sha1;",
            "",
            "28:1: no authentication algorithm in this sainfo",
        ),
        (
            "exchange_mode base;",
            "exchange_mode fast;",
            "13:19: \"fast\" syntax error",
        ),
        (
            "exchange_mode base;",
            "",
            "11:1: no exchange mode specified.",
        ),
        (
            "passive off;",
            "pasive off;",
            "14:5: \"pasive\" syntax error",
        ),
        (
            "log debug;",
            "include \"/nowhere/*.conf\";",
            "1:1: \"/nowhere/*.conf\" names no file",
        ),
        ("log debug;", "lisen { }", "did you mean listen?"),
        ("log debug;", "log loud;", "1:5: \"loud\" syntax error"),
        ("log debug;", "log debug", "\"path\" syntax error"),
        ("log debug;", "mode_cfg { }", "Mode-Config"),
        (
            "log debug;",
            "remote anonymous { exchange_mode main; proposal { encryption_algorithm aes; hash_algorithm sha256; authentication_method pre_shared_key; dh_group 14; } }",
            "two remote blocks",
        ),
        (
            "log debug;",
            "sainfo anonymous { encryption_algorithm aes; authentication_algorithm hmac_sha256; }",
            "duplicated sainfo",
        ),
        ("passive off;", "mode_cfg on;", "Mode-Config"),
        (
            "passive off;",
            "generate_policy yes;",
            "\"yes\" syntax error",
        ),
        ("passive off;", "lifetime byte 5 MB;", "byte lifetime"),
        ("passive off;", "my_identifier asn1dn;", "no certificates"),
        ("passive off;", "script \"x\" phase1_up;", "runs no scripts"),
        ("pre_shared_key;", "rsasig;", "no certificates"),
        (
            "lifetime time 24 hour;",
            "lifetime time 24;",
            "write a time like",
        ),
        (
            "lifetime time 24 hour;",
            "lifetime time 99999999 hour;",
            "write a number up to",
        ),
        ("dpd_delay 30;", "dpd_delay x;", "16:15: \"x\" syntax error"),
        (
            "sainfo anonymous",
            "sainfo anonymous from fqdn \"x\"",
            "sainfo with from is refused",
        ),
        (
            "sainfo anonymous",
            "sainfo address 10.0.0.0/16[80] any anonymous",
            "write tcp or udp",
        ),
        (
            "path pre_shared_key \"/etc/racoon/psk.txt\";",
            "path pre_shared_key psk;",
            "path in quotes",
        ),
        (
            "remote anonymous\n{",
            "remote anonymous inherit 10.0.0.1 {",
            "write a remote block before",
        ),
        ("    pfs_group modp1024;\n", "    }", "no block is open"),
    ];
    for (from, to, expected) in table {
        let error = changed(from, to);
        assert!(error.contains(expected), "{to}: {error}");
        assert!(error.starts_with("racoon.conf:"), "{to}: {error}");
    }
    let proposal = RACOON.find("    proposal").unwrap();
    let end = RACOON.find("}\n\nsainfo").unwrap();
    let without = format!("{}{}", &RACOON[..proposal], &RACOON[end..]);
    let error = Files::of(&without, PSK, MONGODB)
        .load()
        .map(|_| ())
        .unwrap_err();
    assert!(error.contains("no proposal in this remote"), "{error}");
}

#[test]
fn r_a8_weak_algorithms() {
    let refused = [
        (
            "encryption_algorithm aes;",
            "encryption_algorithm des;",
            "20:30: des has 56-bit keys",
        ),
        (
            "encryption_algorithm aes;",
            "encryption_algorithm 3des;",
            "3des has 64-bit blocks",
        ),
        (
            "hash_algorithm sha1;",
            "hash_algorithm md5;",
            "md5 is broken",
        ),
        (
            "encryption_algorithm aes, 3des;",
            "encryption_algorithm null_enc, 3des;",
            "does not encrypt",
        ),
        (
            "encryption_algorithm aes, 3des;",
            "encryption_algorithm aes 100;",
            "no keys of 100 bits",
        ),
        (
            "hmac_sha512, hmac_sha384, hmac_sha256, hmac_sha1",
            "non_auth",
            "protects no integrity",
        ),
        ("dh_group modp2048;", "dh_group 3;", "unknown in IKEv2"),
        (
            "dh_group modp2048;",
            "dh_group modp8192;",
            "modp4096 is the longest",
        ),
    ];
    for (from, to, expected) in refused {
        let error = changed(from, to);
        assert!(
            error.contains(expected) && error.contains("write "),
            "{to}: {error}"
        );
    }
    let raised = RACOON.replace("modp2048", "modp1024").replace(
        "hmac_sha512, hmac_sha384, hmac_sha256, hmac_sha1",
        "hmac_md5, hmac_sha1",
    );
    let native = Files::of(&raised, PSK, MONGODB).native();
    assert!(
        native.contains("proposals = [\"aes128-sha256-prfsha256-modp2048\"]"),
        "{native}"
    );
    assert!(
        native.contains("esp_proposals = [\"aes128-sha256-modp2048-noesn\"]"),
        "{native}"
    );
}

#[test]
fn r_a8_3des_where_obol_allows_it() {
    let mut allowed = Allowed::default();
    assert!(allowed.allow("3des"));
    let only = RACOON
        .replace("encryption_algorithm aes;", "encryption_algorithm 3des;")
        .replace(
            "encryption_algorithm aes, 3des;",
            "encryption_algorithm 3des;",
        );
    let files = Files::of(&only, PSK, MONGODB);
    let error = files.load().map(|_| ()).unwrap_err();
    assert!(error.contains("allow = [\"3des\"]"), "{error}");
    let understood = files
        .load_allowing(allowed)
        .unwrap_or_else(|e| panic!("{e}"));
    let notices = files.notices(&understood);
    let said = notices
        .iter()
        .filter(|notice| notice.contains("it may be used"));
    assert_eq!(said.count(), 2, "{notices:?}");
    let text = understood.native.unwrap().text;
    for line in [
        "allow = [\"3des\"]",
        "proposals = [\"3des-sha256-prfsha256-modp2048\"]",
        "esp_proposals = [\"3des-sha512-sha384-sha256-modp2048-noesn\"]",
    ] {
        assert!(text.contains(line), "{text}");
    }
    // A list keeps its order; without leave it has but what is strong.
    let both = Files::of(RACOON, PSK, MONGODB);
    let native = both.load_allowing(allowed).unwrap().native.unwrap();
    assert!(
        native.text.contains("[\"aes128-3des-sha512-"),
        "{}",
        native.text
    );
    assert!(!both.native().contains("3des"));
    // Nothing else gets in by it.
    let des = Files::of(&only.replace("3des", "des"), PSK, MONGODB);
    assert!(des.load_allowing(allowed).is_err());
}

#[test]
fn generate_policy_is_taken_over() {
    for (word, level) in [("on", "use"), ("require", "require"), ("unique", "unique")] {
        let text = RACOON.replace("passive off;", &format!("generate_policy {word};"));
        let nothing = "spdadd 10.0.1.13 0.0.0.0/0 tcp -P out none; spdadd 0.0.0.0/0 10.0.1.13 tcp -P in none;";
        // No policy of setkey's is needed, and what passes is said.
        for (policies, except) in [("", false), (nothing, true)] {
            let files = Files::of(&text, PSK, policies);
            let understood = files.load().unwrap_or_else(|e| panic!("{e}"));
            let notices = files.notices(&understood).join("\n");
            let said = "a peer gets what it asks for between this host and its own address";
            assert!(notices.contains(said), "{notices}");
            assert_eq!(notices.contains("cleartext allowed"), word == "on");
            let native = understood.native.unwrap();
            let table = format!("[connections.anonymous.generate]\nlevel = \"{level}\"\n");
            assert!(native.text.contains(&table), "{}", native.text);
            let pair = "except = [\"10.0.1.13[tcp]=0.0.0.0/0[tcp]\"]";
            assert_eq!(native.text.contains(pair), except, "{}", native.text);
            let generate = native.loaded.ike.connections[0].generate.as_ref().unwrap();
            assert_eq!(generate.except.len(), usize::from(except));
            assert_eq!(generate.like.life_time.as_secs(), 12 * 3600);
        }
    }
    let off = RACOON.replace("passive off;", "generate_policy off;");
    assert_eq!(
        Files::of(&off, PSK, MONGODB).native(),
        Files::of(RACOON, PSK, MONGODB).native()
    );
    // What a configured policy protects is none of what a peer may ask for.
    let on = RACOON.replace("passive off;", "generate_policy require;");
    let native = Files::of(&on, PSK, MONGODB).load().unwrap().native.unwrap();
    let generate = native.loaded.ike.connections[0].generate.as_ref().unwrap();
    assert_eq!(generate.except.len(), 2);
    let own = on.replace(
        "sainfo anonymous",
        "sainfo address 10.0.0.0/16 any anonymous",
    );
    let error = Files::of(&own, PSK, "").load().map(|_| ()).unwrap_err();
    assert!(error.contains("failed to get sainfo"), "{error}");
}

#[test]
fn r_a6_who_may_read_the_secrets() {
    let files = Files::of(RACOON, PSK, MONGODB);
    files.write("psk.txt", PSK, 0o644);
    let error = files.load().map(|_| ()).unwrap_err();
    assert!(
        error.starts_with("psk.txt: has weak file permission"),
        "{error}"
    );
    files.write("psk.txt", "# nothing\n", 0o600);
    assert!(
        files
            .load()
            .map(|_| ())
            .unwrap_err()
            .contains("no secret in it")
    );
    files.write("psk.txt", "10.0.1.241 a secret of sixteen \n", 0o600);
    let notices = files.notices(&files.load().unwrap());
    let said = |text: &str| notices.iter().any(|notice| notice.contains(text));
    assert!(said("psk.txt:1: the secret ends in a blank"), "{notices:?}");
    assert!(said("psk.txt: there is no line for *"), "{notices:?}");
    files.write("psk.txt", "* 0x123\n", 0o600);
    let error = files.load().map(|_| ()).unwrap_err();
    assert!(error.starts_with("psk.txt:1: 0x begins"), "{error}");
    assert!(!error.contains("123"), "{error}");
    fs::remove_file(files.0.join("psk.txt")).unwrap();
    let notices = files.notices(&files.load().unwrap());
    assert!(
        notices
            .iter()
            .any(|notice| notice == "psk.txt: there is no such file"),
        "{notices:?}"
    );
}

#[test]
fn files_include_files() {
    let files = Files::of(RACOON, PSK, MONGODB);
    let (first, second) = RACOON.split_once("sainfo").unwrap();
    files.write("peers.inc", first, 0o644);
    let here = files.0.display();
    files.write(
        "racoon.conf",
        &format!("path include \"{here}\";\ninclude \"*.inc\";\nsainfo{second}"),
        0o644,
    );
    assert_eq!(files.native(), Files::of(RACOON, PSK, MONGODB).native());
    files.write("peers.inc", "include \"*.inc\";", 0o644);
    assert!(
        files
            .load()
            .map(|_| ())
            .unwrap_err()
            .contains("include each other")
    );
}

#[test]
fn what_has_no_effect_gets_a_line() {
    let idle = [
        ("log debug;", "padding { strict_check on; } log debug;"),
        ("log debug;", "privsep { user \"racoon\"; } log debug;"),
        ("log debug;", "pfkey_buffer 100; log debug;"),
        ("log debug;", "timer { persend 1; } log debug;"),
        ("log debug;", "path backupsa \"/x\"; log debug;"),
        ("passive off;", "support_proxy on;"),
        ("passive off;", "esp_frag 552;"),
        ("passive off;", "nonce_size 16;"),
        ("passive off;", "send_cr off;"),
        ("passive off;", "rekey off;"),
        ("passive off;", "doi ipsec_doi;"),
    ];
    for (from, to) in idle {
        let files = Files::of(&RACOON.replacen(from, to, 1), PSK, MONGODB);
        let notices = files.notices(&files.load().unwrap_or_else(|e| panic!("{to}: {e}")));
        assert_eq!(notices.len(), 7, "{to}: {notices:?}");
        assert!(
            notices
                .iter()
                .any(|notice| notice.contains("has no effect")),
            "{to}: {notices:?}"
        );
    }
}

/// Statements of the grammar's words in any order, and the story's with a piece taken out.
fn any_conf() -> impl Strategy<Value = String> {
    let words = [
        "remote",
        "anonymous",
        "sainfo",
        "proposal",
        "{",
        "}",
        ";",
        ",",
        "[500]",
        "[",
        "10.0.0.1",
        "inherit",
        "\"x\"",
        "exchange_mode",
        "main",
        "encryption_algorithm",
        "aes",
        "256",
        "3des",
        "dh_group",
        "lifetime",
        "time",
        "1",
        "hour",
        "listen",
        "isakmp",
        "path",
        "pre_shared_key",
        "include",
        "timer",
        "counter",
        "address",
        "tcp",
        "#",
        "\n",
        "my_identifier",
        "keyid",
        "tag",
        "log",
        "debug",
        "é",
        "\"",
    ];
    let word = prop_oneof![
        8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let words = proptest::collection::vec(word, 0..40).prop_map(|words| words.join(" "));
    let cut = (0..RACOON.len(), 0..RACOON.len(), any::<char>())
        .prop_map(|(a, b, c)| format!("{}{c}{}", &RACOON[..a], &RACOON[b..]));
    prop_oneof![words, cut]
}

proptest! {
    #[test]
    fn no_conf_panics_and_errors_have_words(text in any_conf(), psk in any::<Vec<u8>>()) {
        let mut sources = Vec::new();
        let mut texts = crate::racoon::conf::Texts::new();
        texts.add(&mut sources, "r.conf".into(), std::path::Path::new(""), text, 10);
        let report = crate::config::Report::new(&sources);
        let conf = crate::racoon::conf::read(&report, &Names::for_tests(), Allowed::default(), &texts);
        let flow = crate::racoon::Flow {
            local: "10.0.0.0/16[tcp]".parse().unwrap(),
            remote: "10.0.0.0/16[tcp/27017]".parse().unwrap(),
            what: crate::racoon::What::Protect(None),
            out: None,
            inward: None,
        };
        let _ = crate::racoon::plan::plan(&report, &conf, &[flow]);
        if let Err(errors) = report.finish() {
            prop_assert!(!errors.to_string().is_empty());
        }
        let _ = crate::racoon::psk::PskFile::read(&psk);
    }
}
