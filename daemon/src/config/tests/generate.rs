//! The table `generate`, and `allow`.

use obol_ike::proposal::{Allowed, Encr};

use super::super::generate::Level;
use super::super::{Loaded, parse_str};
use super::HOSTS;
use crate::config::files::NoFiles;

fn load(text: &str) -> Result<Loaded, String> {
    parse_str("hosts.toml", text, &NoFiles).map_err(|errors| errors.to_string())
}

/// The example, with `mobike = false`, and a table behind it.
fn with(lines: &str) -> Result<Loaded, String> {
    let text = HOSTS.replacen("local_addrs", "mobike = false\nlocal_addrs", 1);
    load(&format!("{text}\n[connections.hosts.generate]\n{lines}\n"))
}

#[test]
fn what_peers_may_ask_for_is_all_that_no_policy_is_about() {
    assert!(load(HOSTS).unwrap().ike.connections[0].generate.is_none());
    let drop = "[drop.old]\nlocal_ts = [\"10.1.0.0/16\"]\nremote_ts = [\"10.2.0.0/16\"]";
    let except = "except = [\"10.0.0.1[tcp/22] = 0.0.0.0/0[tcp]\"]";
    let loaded = with(&format!(
        "{except}\nesp_proposals = [\"aes128-sha256\"]\n{drop}"
    ))
    .unwrap();
    let generate = loaded.ike.connections[0].generate.as_ref().unwrap();
    assert_eq!(generate.except.len(), loaded.policies.len() + 1);
    assert_eq!(generate.like.esp_proposals[0].encr, [Encr::AES128_CBC]);
    assert_eq!(loaded.generated["hosts"], Level::Require);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let sides = |local: &str, remote: &str| {
        let side = |text: &str| vec![text.parse().unwrap()];
        generate.allows(&side(local), &side(remote))
    };
    assert!(sides("10.1.0.1", "192.0.2.1"));
    assert!(!sides("10.1.0.1", "10.2.0.1"), "dropped");
    assert!(!sides("10.0.0.1[tcp]", "192.0.2.1"), "excepted");
    assert!(sides("10.0.0.1[udp]", "192.0.2.1"));
    let child = &loaded.ike.connections[0].children[0];
    assert!(!generate.allows(&child.local_ts, &child.remote_ts));
}

#[test]
fn what_passes_in_clear_by_it_is_told() {
    let loaded = with("level = \"use\"").unwrap();
    assert_eq!(loaded.generated["hosts"], Level::Use);
    let told = loaded.warnings[0].to_string();
    assert!(told.contains("opportunistic, cleartext allowed"), "{told}");
    assert_eq!(
        with("level = \"unique\"").unwrap().generated["hosts"],
        Level::Unique
    );
}

#[test]
fn what_makes_no_sense_has_its_place() {
    for (lines, expected) in [
        (
            "level = \"always\"",
            "level = \"always\" is none that obol knows",
        ),
        ("mode = \"tunnel\"", "unknown key `mode`"),
        ("except = [\"10.0.0.1\"]", "is no pair of selectors"),
        ("except = [\"10.0.0.1=x\"]", "is no pair of selectors"),
        ("esp_proposals = [\"des-sha256\"]", "56-bit keys"),
        ("life_time = \"1s\"", "life_time"),
    ] {
        let error = with(lines).map(|_| ()).unwrap_err();
        assert!(
            error.contains(expected) && error.contains("hosts.toml:"),
            "{lines}: {error}"
        );
    }
    let moving = load(&format!("{HOSTS}\n[connections.hosts.generate]\n"));
    let error = moving.map(|_| ()).unwrap_err();
    assert!(error.contains("add mobike = false"), "{error}");
}

#[test]
fn weak_algorithms_are_allowed_by_name() {
    let weak = HOSTS.replacen(
        "local_addrs",
        "proposals = [\"3des-sha256-modp2048\"]\nlocal_addrs",
        1,
    );
    let error = load(&weak).map(|_| ()).unwrap_err();
    assert!(error.contains("`3des` has 64-bit blocks"), "{error}");
    let loaded = load(&format!("[daemon]\nallow = [\"3des\"]\n{weak}")).unwrap();
    assert_eq!(
        loaded.ike.connections[0].ike_proposals[0].encr,
        [Encr::TRIPLE_DES_CBC]
    );
    assert_eq!(loaded.daemon.allow, Allowed { triple_des: true });
    let told = loaded.warnings[0].to_string();
    assert!(
        told.starts_with("hosts.toml:2:10: 3des is allowed"),
        "{told}"
    );
    let other = load(&format!("[daemon]\nallow = [\"des\"]\n{HOSTS}"));
    let error = other.map(|_| ()).unwrap_err();
    assert!(error.contains("write allow = [\"3des\"]"), "{error}");
}
