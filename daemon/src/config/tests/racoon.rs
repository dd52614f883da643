//! What files of racoon need in a configuration: `[drop.NAME]`, and secrets in `psk.txt`.

use obol_ike::identity::Identity;

use super::super::{Loaded, parse_str};
use super::{HOSTS, Table};

fn load(more: &str, psk: &str) -> Result<Loaded, String> {
    let mut files = Table::default();
    files.0.insert("psk.txt", psk.as_bytes().to_vec());
    let text = format!("{HOSTS}\n{more}");
    parse_str("hosts.toml", &text, &files).map_err(|errors| errors.to_string())
}

#[test]
fn what_is_dropped_is_a_policy_that_nothing_negotiates_for() {
    let before = load("", "").unwrap().policies;
    let drop = "[drop.old]\nlocal_ts = [\"10.1.0.0/16\"]\nremote_ts = [\"10.2.0.0/16[tcp/80]\", \"10.3.0.0/16\"]\n";
    let loaded = load(drop, "").unwrap();
    assert_eq!(loaded.ike.connections.len(), 1);
    let (dropped, others) = loaded.policies.split_last().unwrap();
    assert_eq!(others, before);
    assert!(!dropped.trap);
    assert_eq!(
        (dropped.child.as_str(), dropped.remote_ts.len()),
        ("old", 2)
    );
}

#[test]
fn what_is_dropped_is_not_protected() {
    let table = [
        (
            "local_ts = [\"172.16.1.0/24\"]\nremote_ts = [\"172.16.2.0/24\"]",
            "child pods are about the same packets",
        ),
        ("local_ts = [\"10.0.0.1\"]", "dynamic is the address"),
        (
            "local_ts = [\"10.0.0.1\"]\nremote_ts = [\"fd00::1\"]",
            "different address families",
        ),
        (
            "local_ts = [\"10.0.0.1\"]\nremote_ts = [\"10.0.0.2\"]\nmode = \"tunnel\"",
            "unknown key `mode`",
        ),
    ];
    for (lines, expected) in table {
        let error = load(&format!("[drop.old]\n{lines}\n"), "")
            .map(|_| ())
            .unwrap_err();
        assert!(
            error.contains(expected) && error.contains("hosts.toml:"),
            "{lines}: {error}"
        );
    }
}

#[test]
fn secrets_in_psk_txt_are_the_peers() {
    let more = "[secrets.racoon]\ntype = \"psk.txt\"\nfile = \"psk.txt\"\n";
    let psk = "10.0.1.241 specific to this one\n* for everybody else\n";
    let loaded = load(more, psk).unwrap();
    let secret = |peer: &str| {
        let own: Identity = "10.0.1.13".parse().unwrap();
        let found = loaded
            .credentials
            .psk(&own, &peer.parse().unwrap())
            .unwrap();
        String::from_utf8(found.expose().to_vec()).unwrap()
    };
    assert_eq!(secret("10.0.1.241"), "specific to this one");
    assert_eq!(secret("10.0.1.7"), "for everybody else");
    // A line with this host's own name is about somebody else.
    assert_eq!(secret("@x.example"), "for everybody else");
    let bad = load(more, "* 0xabc\n").map(|_| ()).unwrap_err();
    assert!(bad.contains("psk.txt, line 1: 0x begins"), "{bad}");
    assert!(!bad.contains("abc"), "{bad}");
    let missing = load("[secrets.racoon]\ntype = \"psk.txt\"\n", "")
        .map(|_| ())
        .unwrap_err();
    assert!(missing.contains("has no file"), "{missing}");
}
