//! What scripts of setkey mean.

use proptest::prelude::*;

use super::MONGODB;
use crate::config::{Finding, Report, Source};
use crate::racoon::names::Names;
use crate::racoon::setkey::{self, Action, Table};

/// The policies of a script, and its notices; or all that is wrong with it.
fn script(text: &str) -> Result<(Vec<String>, Vec<String>), String> {
    let sources: Vec<Source> = vec![setkey::source("s.conf".into(), "".into(), text)];
    let report = Report::new(&sources);
    let lines = setkey::read(&report, &Names::for_tests(), 0, text);
    let mut table = Table::default();
    table.run(&report, &lines);
    let policies = table.in_order();
    let shown: Vec<String> = policies
        .iter()
        .map(|entry| {
            let what = match &entry.action {
                Action::Ipsec(rules) => format!("{rules:?}"),
                other => format!("{other:?}"),
            };
            let key = &entry.key;
            format!("{:?} {} > {} {what}", key.direction, key.src, key.dst)
        })
        .collect();
    match report.finish() {
        Ok(notices) => Ok((shown, notices.iter().map(Finding::to_string).collect())),
        Err(errors) => Err(errors.to_string()),
    }
}

fn policies(text: &str) -> Vec<String> {
    script(text).unwrap_or_else(|e| panic!("{text}: {e}")).0
}

const REQUIRE: &str = "[Rule { protocol: Esp, tunnel: None, level: Require }]";

#[test]
fn policies_of_the_story() {
    let both = "10.0.0.0/16[tcp]";
    let port = "10.0.0.0/16[tcp/27017]";
    assert_eq!(
        policies(MONGODB),
        [
            format!("In {both} > {port} {REQUIRE}"),
            format!("Out {port} > {both} {REQUIRE}"),
            format!("In {port} > {both} {REQUIRE}"),
            format!("Out {both} > {port} {REQUIRE}"),
        ]
    );
}

#[test]
fn r_a9_port_and_protocol_forms() {
    let story =
        policies("spdadd 10.0.0.0/16 10.0.0.0/16[27017] tcp -P out ipsec esp/transport//require;");
    for same in [
        "spdadd 10.0.0.0/16[any] 10.0.0.0/16[27017] tcp -P out ipsec esp/transport//require;",
        "spdadd 10.0.0.0/16[0] 10.0.0.0/16 [mongodb] 6 -P out ipsec esp/transport//require;",
        "spdadd -4n 10.0.0.0/16 10.0.0.0/16[27017] tcp\n  -P out prio def ipsec # c\n  esp/transport/;",
        "spdadd 10.0.0.0/16 10.0.0.0/16[27017] tcp -P out ipsec esp/transport//default;",
        "spdupdate 10.0.0.0/16 10.0.0.0/16[27017] tcp -P out ipsec esp/transport;",
    ] {
        assert_eq!(policies(same), story, "{same}");
    }
    let table = [
        (
            "spdadd ::/0 ::/0 icmp6 135,0 -P out none;",
            "Out ::/0[icmpv6/135(0)] > ::/0[icmpv6/135(0)] Pass",
        ),
        (
            "spdadd 10.0.1.13 10.0.1.241 any -P out prio high discard;",
            "Out 10.0.1.13 > 10.0.1.241 Discard",
        ),
        (
            "spdadd 10.0.1.13 dev2 udp -P in ipsec esp/transport//unique:7;",
            "In 10.0.1.13[udp] > 10.0.1.241[udp] [Rule { protocol: Esp, tunnel: None, level: Unique(Some(7)) }]",
        ),
        (
            "spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/10.0.1.13-10.0.1.241/require;",
            "Out 10.1.0.0/16 > 10.2.0.0/16 [Rule { protocol: Esp, tunnel: Some((10.0.1.13, 10.0.1.241)), level: Require }]",
        ),
        (
            "spdadd 10.0.1.13 10.0.1.241 icmp 8 -P fwd bypass;",
            "Fwd 10.0.1.13[icmp/8(0)-8(255)] > 10.0.1.241[icmp/8(0)-8(255)] Pass",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(policies(text), [expected], "{text}");
    }
}

#[test]
fn priorities_come_before_the_order_of_the_text() {
    let text = "spdadd 10.0.0.1 10.0.0.2 any -P out none;
        spdadd 10.0.0.1 10.0.0.3 any -P out prio low + 5 none;
        spdadd 10.0.0.1 10.0.0.4 any -P out prio high -1 none;
        spdadd 10.0.0.1 10.0.0.5 any -P out prio high none;
        spdadd 10.0.0.1 10.0.0.6 any -P out prio low none;
        spdadd 10.0.0.1 10.0.0.7 any -P out priority 100 none;
        spdadd 10.0.0.1 10.0.0.8 any -P out none;";
    let order: Vec<char> = policies(text)
        .iter()
        .filter_map(|line| line.strip_suffix(" Pass")?.chars().last())
        .collect();
    assert_eq!(order, ['5', '4', '7', '2', '8', '3', '6']);
}

#[test]
fn statements_change_what_is_there() {
    let one = "spdadd 10.0.0.1 10.0.0.2 any -P out none;";
    assert!(policies(&format!("{one} spdflush;")).is_empty());
    assert!(policies(&format!("{one} spddelete 10.0.0.1 10.0.0.2 any -P out;")).is_empty());
    let updated = policies(&format!(
        "{one} spdupdate 10.0.0.1 10.0.0.2 any -P out discard;"
    ));
    assert_eq!(updated, ["Out 10.0.0.1 > 10.0.0.2 Discard"]);
    assert!(policies(&format!("exit; {one}")).is_empty());
    let (_, notices) = script("spddelete 10.0.0.1 10.0.0.2 any -P in;").unwrap();
    assert!(notices[0].contains("No entry"), "{notices:?}");
    let (_, notices) = script("spdadd 10.0.1.5/16 10.0.0.2 any -P in none;").unwrap();
    assert!(notices[0].contains("read as 10.0.0.0/16"), "{notices:?}");
    let (shown, notices) = script(&one.replace(";", ";\r\n")).unwrap();
    assert_eq!((shown.len(), notices.len()), (1, 1), "{notices:?}");
}

#[test]
fn r_a11_script_errors() {
    let good = "spdadd 10.0.0.0/16 10.0.0.1 tcp -P out ipsec esp/transport//require;\n";
    let ipsec = |rule: &str| format!("spdadd 10.0.0.1 10.0.0.2 any -P out ipsec {rule};");
    let table = [
        (
            "spdadd 10.0.0.0/16 10.0.0.0/16[27017 tcp -P out none;".to_owned(),
            "2:20: syntax error at [10.0.0.0/16[27017]",
        ),
        (
            "spdadd 10.0.0.0/16x 10.0.0.0/16 tcp -P out none;".into(),
            "2:8: syntax error at [10.0.0.0/16x]",
        ),
        (
            "spdadd 10.0.0.0/33 10.0.0.0/16 tcp -P out none;".into(),
            "up to 32",
        ),
        (
            "spdadd 10.0.0.0/16[80]x 10.0.0.0/16 tcp -P out none;".into(),
            "nothing behind it",
        ),
        (
            "spdadd 10.0.0.0.1 10.0.0.0/16 tcp -P out none;".into(),
            "10.0.0.0.1 is no address",
        ),
        (
            "spdadd both 10.0.0.0/16 tcp -P out none;".into(),
            "multiple address specified",
        ),
        (
            "spdadd nobody 10.0.0.0/16 tcp -P out none;".into(),
            "no host of that name",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2[27017] icmp -P out none;".into(),
            "icmp has no ports",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2[27017] any -P out none;".into(),
            "without a protocol",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2[mango] tcp -P out none;".into(),
            "no service of tcp",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2[70000] tcp -P out none;".into(),
            "70000 is no port",
        ),
        (
            "spdadd 10.0.0.1 fd00::1 tcp -P out none;".into(),
            "different address families",
        ),
        (
            "spdadd -6 10.0.0.1 10.0.0.2 tcp -P out none;".into(),
            "address family that the flags",
        ),
        (
            "spdadd ::1 ::2 icmp -P out none;".into(),
            "write icmp with IPv4",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2 tpc -P out none;".into(),
            "syntax error at [tpc]",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2 tcp out none;".into(),
            "write -P in",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2 tcp -P over none;".into(),
            "write in, out or fwd",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2 tcp -P out prio hihg none;".into(),
            "syntax error at [hihg]",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2 tcp -P out nine;".into(),
            "syntax error at [nine]",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2 tcp -P out ipsec;".into(),
            "ends too early",
        ),
        (
            "sdpadd 10.0.0.1 10.0.0.2 tcp -P out none;".into(),
            "did you mean spdadd?",
        ),
        (
            format!("spdadd 10.0.0.1 10.0.0.2 tcp -P out none\n{good}"),
            "3:1: syntax error at [spdadd]",
        ),
        (ipsec("esp/transprot//require"), "write transport or tunnel"),
        (ipsec("esp/tunnel//require"), "both ends of the tunnel"),
        (ipsec("esp/tunnel/10.0.0.1/require"), "two addresses"),
        (
            ipsec("esp/tunnel/10.0.0.1-fd00::1/require"),
            "different address families",
        ),
        (ipsec("esp/transport//requrie"), "write use, require"),
        (ipsec("esp/transport//unique:40000"), "1 to 32767"),
        (ipsec("ah/transport//require"), "obol has no AH"),
        (
            ipsec("esp/transport//require ah/transport//require"),
            "obol has no AH",
        ),
        (ipsec("esp/tunnel/me-any/require"), "no addresses"),
        (
            "spdadd 10.0.0.1 10.0.0.2 any -P out entrust;".into(),
            "entrust",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2 gre 7 -P out none;".into(),
            "keys of GRE",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2 any -ctx 1 1 \"u:r:t\" -P out none;".into(),
            "security contexts",
        ),
        (good.into(), "File exists"),
        (
            "spdadd 10.0.0.0/16 10.0.0.1 tcp -P out discard;".into(),
            "contradict",
        ),
        (
            "add 10.0.0.1 10.0.0.2 esp 255 -E aes-cbc 0x00;".into(),
            "syntax error at [255]",
        ),
        (
            "add 10.0.0.1 10.0.0.2 esp 256 -E aes-cbc 0x0011;".into(),
            "a key of 2 octets does not fit",
        ),
        (
            "add 10.0.0.1 10.0.0.2 esp 256 -E aes-cbc \"abcdefghijklmnop\";".into(),
            "keys that are written down",
        ),
    ];
    for (text, expected) in table {
        let error = script(&format!("{good}{text}")).expect_err(&text);
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains("s.conf:"), "{text}: {error}");
        assert!(!error.contains("abcdefgh"), "a key is shown: {error}");
    }
}

/// Scripts of the grammar's words in any order, and pieces of scripts that are right.
fn any_script() -> impl Strategy<Value = String> {
    let words = [
        "spdadd",
        "spddelete",
        "spdflush",
        "add",
        "flush",
        "10.0.0.0/16",
        "10.0.0.0/16[27017]",
        "fd00::/64",
        "tcp",
        "any",
        "icmp6",
        "135,0",
        "gre",
        "-P",
        "in",
        "out",
        "prio",
        "high",
        "+",
        "10",
        "-",
        "none",
        "ipsec",
        "esp/transport//require",
        "esp/tunnel/10.0.0.1-10.0.0.2/unique:7",
        "/",
        "[",
        "]",
        "esp",
        "0x1000",
        "-E",
        "aes-cbc",
        "0x00",
        "\"a\"",
        "\"",
        ";",
        ";\n",
        "#",
        "\r\n",
        "-4n",
        "é",
        "-ctx",
        "1",
    ];
    let word = prop_oneof![
        8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let words = proptest::collection::vec(word, 0..30).prop_map(|words| words.join(" "));
    let cut = (0..MONGODB.len(), 0..MONGODB.len(), any::<char>())
        .prop_map(|(a, b, c)| format!("{}{c}{}", &MONGODB[..a], &MONGODB[b..]));
    prop_oneof![words, cut]
}

proptest! {
    #[test]
    fn no_script_panics_and_errors_have_places(text in any_script()) {
        if let Err(errors) = script(&text) {
            prop_assert!(errors.starts_with("s.conf:"), "{}", errors);
        }
    }
}
