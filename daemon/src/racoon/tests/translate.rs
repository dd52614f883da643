//! What files of racoon are as a configuration of obol's own.

use std::time::Duration;

use super::*;
use crate::racoon::load_to_run;

#[test]
fn r_a1_the_story_as_a_configuration() {
    assert_eq!(
        Files::of(RACOON, PSK, MONGODB).native(),
        include_str!("story.toml")
    );
}

/// Children as `NAME LOCAL=REMOTE ACTION`, and what is dropped.
fn shape(files: &Files) -> Vec<String> {
    let understood = files.load().unwrap_or_else(|e| panic!("{e}"));
    let loaded = understood.native.expect("there are policies").loaded;
    loaded
        .policies
        .iter()
        .map(|policy| {
            let list = |all: &[obol_ike::ts::TrafficSelector]| {
                let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
                texts.join(",")
            };
            let trap = if policy.trap { "trap" } else { "wait" };
            let name = format!("{}/{}", policy.connection, policy.child);
            format!(
                "{name} {}={} {trap}",
                list(&policy.local_ts),
                list(&policy.remote_ts)
            )
        })
        .collect()
}

const SERVER: &str = "anonymous/server-27017 10.0.0.0/16[tcp/27017]=10.0.0.0/16[tcp] trap";
const CLIENT: &str = "anonymous/client-27017 10.0.0.0/16[tcp]=10.0.0.0/16[tcp/27017] trap";

#[test]
fn any_to_any_on_demand_within_a_network() {
    assert_eq!(shape(&Files::of(RACOON, PSK, MONGODB)), [SERVER, CLIENT]);
}

#[test]
fn r_a10_use_is_opportunistic_and_cuts_what_is_strict() {
    let text = Files::of(RACOON, PSK, &MONGODB.replace("require", "use")).native();
    assert_eq!(
        text.matches("cleartext = \"opportunistic\"").count(),
        2,
        "{text}"
    );
    // What comes first decides: of the strict policy behind it a piece is missing.
    let files = Files::of(
        RACOON,
        PSK,
        "spdadd 10.0.0.1 10.0.0.9 tcp -P out ipsec esp/transport//use;
        spdadd 10.0.0.9 10.0.0.1 tcp -P in ipsec esp/transport//use;
        spdadd 10.0.0.1 10.0.0.8/31 tcp -P out ipsec esp/transport//require;
        spdadd 10.0.0.8/31 10.0.0.1 tcp -P in ipsec esp/transport//require;",
    );
    let native = files
        .load()
        .unwrap_or_else(|e| panic!("{e}"))
        .native
        .unwrap();
    let shown = native.loaded.policies.iter().map(|policy| {
        let to = policy.remote_ts[0];
        format!("{to} {}", policy.clear.when.word())
    });
    assert_eq!(
        shown.collect::<Vec<_>>(),
        ["10.0.0.9[tcp] opportunistic", "10.0.0.8[tcp] never"]
    );
}

#[test]
fn r_a14_passive_waits_for_the_peer() {
    let passive = RACOON.replace("passive off", "passive on");
    let expected = [SERVER, CLIENT].map(|line| line.replace("trap", "wait"));
    assert_eq!(shape(&Files::of(&passive, PSK, MONGODB)), expected);
}

const OWN_BLOCK: &str = "remote 10.0.1.241 inherit anonymous { my_identifier fqdn \"a.example\"; verify_identifier on; peers_identifier keyid tag \"B\"; }\n";

#[test]
fn r_a14_a_peer_with_a_block_of_its_own() {
    let racoon = RACOON.replace("sainfo anonymous", &format!("{OWN_BLOCK}sainfo anonymous"));
    let files = Files::of(
        &racoon,
        PSK,
        "spdadd 10.0.0.0/16 10.0.0.0/16[27017] tcp -P out ipsec esp/transport//require;
        spdadd 10.0.0.0/16[27017] 10.0.0.0/16 tcp -P in ipsec esp/transport//require;",
    );
    assert_eq!(
        shape(&files),
        [
            "10.0.1.241/client-27017 10.0.0.0/16[tcp]=10.0.1.241[tcp/27017] trap",
            "anonymous/client-27017 10.0.0.0/16[tcp]=10.0.0.0-10.0.1.240[tcp/27017] trap",
            "anonymous/client-27017-2 10.0.0.0/16[tcp]=10.0.1.242-10.0.255.255[tcp/27017] trap",
        ]
    );
    let native = files.native();
    assert!(
        native.contains("local = { auth = \"psk\", id = \"@a.example\" }"),
        "{native}"
    );
    assert!(
        native.contains("remote = { auth = \"psk\", id = \"@#42\" }"),
        "{native}"
    );
}

#[test]
fn r_a14_without_a_block_packets_are_dropped() {
    let racoon = RACOON.replace("remote anonymous", "remote 10.0.1.241");
    let files = Files::of(
        &racoon,
        PSK,
        "spdadd 10.0.1.13 10.0.1.7 any -P out ipsec esp/transport//require;",
    );
    assert_eq!(shape(&files), ["[drop]/dropped 10.0.1.13=10.0.1.7 wait"]);
    let notices = files.notices(&files.load().unwrap());
    assert!(
        notices
            .iter()
            .any(|notice| notice.contains("no remote configuration found")),
        "{notices:?}"
    );
}

#[test]
fn r_a9_a_tunnel_has_two_ends() {
    let policies =
        "spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/10.0.1.13-10.0.1.241/require;
        spdadd 10.2.0.0/16 10.1.0.0/16 any -P in ipsec esp/tunnel/10.0.1.241-10.0.1.13/unique:7;";
    let files = Files::of(RACOON, PSK, policies);
    assert_eq!(
        shape(&files),
        ["tunnel-10.0.1.241/flow 10.1.0.0/16=10.2.0.0/16 trap"]
    );
    let native = files.native();
    assert!(
        native.contains("local_addrs = [\"10.0.1.13\"]\nremote_addrs = [\"10.0.1.241\"]"),
        "{native}"
    );
    assert!(!native.contains("transport"), "{native}");
}

#[test]
fn what_passes_in_clear_is_cut_out() {
    let passes = "spdadd 10.0.1.13 10.0.1.77 tcp -P out none;\nspdadd 10.0.1.77 10.0.1.13 tcp -P in bypass;\n";
    let protect = "spdadd 10.0.1.13 10.0.1.0/24 tcp -P out ipsec esp/transport//require;
        spdadd 10.0.1.0/24 10.0.1.13 tcp -P in ipsec esp/transport//require;";
    let whole = "anonymous/flow 10.0.1.13[tcp]=10.0.1.0/24[tcp] trap";
    let first = shape(&Files::of(RACOON, PSK, &format!("{passes}{protect}")));
    assert_eq!(
        first,
        [
            "anonymous/flow 10.0.1.13[tcp]=10.0.1.0-10.0.1.76[tcp] trap",
            "anonymous/flow-2 10.0.1.13[tcp]=10.0.1.78-10.0.1.255[tcp] trap",
        ]
    );
    // Behind the other, it never decides.
    assert_eq!(
        shape(&Files::of(RACOON, PSK, &format!("{protect}{passes}"))),
        [whole]
    );
    let one_way = passes.lines().next().unwrap();
    let error = Files::of(RACOON, PSK, &format!("{one_way}{protect}"))
        .load()
        .map(|_| ())
        .unwrap_err();
    assert!(error.contains("in one direction alone"), "{error}");
    let turned = passes.replacen("-P out", "-P out prio low", 1);
    let error = Files::of(RACOON, PSK, &format!("{turned}{protect}"))
        .load()
        .map(|_| ())
        .unwrap_err();
    assert!(
        error.contains("comes first for packets to this host"),
        "{error}"
    );
    let all = protect.replace(" tcp ", " any ");
    let error = Files::of(RACOON, PSK, &format!("{passes}{all}"))
        .load()
        .map(|_| ())
        .unwrap_err();
    assert!(error.contains("all protocols but one"), "{error}");
}

#[test]
fn r_a9_what_is_discarded_wins_where_it_comes_first() {
    let discard = "spdadd 10.0.1.13 10.0.1.241 any -P out prio high discard;
        spdadd 10.0.1.241 10.0.1.13 any -P in prio high discard;";
    let protect = "spdadd 10.0.1.13 10.0.1.240/31 tcp -P out ipsec esp/transport//require;
        spdadd 10.0.1.240/31 10.0.1.13 tcp -P in ipsec esp/transport//require;";
    assert_eq!(
        shape(&Files::of(RACOON, PSK, &format!("{protect}{discard}"))),
        [
            "anonymous/flow 10.0.1.13[tcp]=10.0.1.240[tcp] trap",
            "[drop]/dropped 10.0.1.13=10.0.1.241 wait",
        ]
    );
}

#[test]
fn a_sainfo_with_the_selectors_of_a_policy_is_its_own() {
    let own = "sainfo address 10.0.0.0/16[27017] tcp address 10.0.0.0/16[any] tcp {
        encryption_algorithm aes 256; authentication_algorithm hmac_sha256; lifetime time 1 min; }\n";
    let native = Files::of(&format!("{RACOON}{own}"), PSK, MONGODB).native();
    let server = native.split("client-27017").next().unwrap();
    assert!(
        server.contains("esp_proposals = [\"aes256-sha256-noesn\"]"),
        "{server}"
    );
    assert!(
        server.contains("rekey_time = \"48s\"\nlife_time = \"60s\""),
        "{server}"
    );
    let none = format!("{}{own}", RACOON.split("sainfo").next().unwrap());
    let error = Files::of(&none, PSK, MONGODB)
        .load()
        .map(|_| ())
        .unwrap_err();
    assert!(error.contains("failed to get sainfo"), "{error}");
}

/// The lines of a child that say what it has.
fn offers(native: &str) -> Vec<String> {
    let wanted = ["local_ts", "remote_ts", "esp_proposals"];
    let lines = native.lines().filter_map(|line| {
        let (key, value) = line.split_once(" = [\"")?;
        let value = value.trim_end_matches("\"]");
        wanted
            .contains(&key)
            .then_some(value.split(['"', '-']).next()?)
    });
    let lines: Vec<&str> = lines.collect();
    lines.chunks(3).map(|child| child.join(" ")).collect()
}

/// racoon's SAs in transport mode were between two hosts, and so were the sides that it looked for.
#[test]
fn a_sainfo_of_two_hosts_is_chosen_below_a_policy_of_networks() {
    let policies = "spdadd 10.0.0.0/30 10.0.1.0/31[27017] tcp -P out ipsec esp/transport//require;
        spdadd 10.0.1.0/31[27017] 10.0.0.0/30 tcp -P in ipsec esp/transport//require;";
    let block = |sides: &str, bits: u32| {
        format!(
            "sainfo {sides} {{ encryption_algorithm aes {bits}; authentication_algorithm hmac_sha512; }}\n"
        )
    };
    let all = "aes128";
    for (sides, expected) in [
        (
            "address 10.0.0.3 tcp address 10.0.1.1[27017] tcp",
            vec![
                "10.0.0.3[tcp] 10.0.1.1[tcp/27017] aes256",
                "10.0.0.0 aes128",
            ],
        ),
        // With racoon, the SA of two hosts was for all ports.
        (
            "address 10.0.0.0 tcp address 10.0.1.1[any] tcp",
            vec!["10.0.0.0[tcp] 10.0.1.1[tcp/27017] aes256"],
        ),
        (
            "anonymous address 10.0.1.0 tcp",
            vec![
                "10.0.0.0/30[tcp] 10.0.1.0[tcp/27017] aes256",
                "10.0.0.0/30[tcp] 10.0.1.1[tcp/27017] aes128",
            ],
        ),
    ] {
        let files = Files::of(&format!("{RACOON}{}", block(sides, 256)), PSK, policies);
        let found = offers(&files.native());
        for child in expected.iter().filter(|child| child.contains(']')) {
            assert!(found.contains(&(*child).to_owned()), "{sides}: {found:#?}");
        }
        assert!(found.iter().any(|child| child.ends_with(all)), "{found:#?}");
        assert_eq!(
            found
                .iter()
                .filter(|child| child.ends_with("aes256"))
                .count(),
            1,
            "{found:#?}"
        );
    }
    // What says more comes first, wherever it stands.
    let more = [
        block("address 10.0.0.0 tcp anonymous", 192),
        block("address 10.0.0.0 tcp address 10.0.1.0 tcp", 256),
    ];
    let files = Files::of(&format!("{RACOON}{}", more.concat()), PSK, policies);
    let found = offers(&files.native());
    for child in [
        "10.0.0.0[tcp] 10.0.1.0[tcp/27017] aes256",
        "10.0.0.0[tcp] 10.0.1.1[tcp/27017] aes192",
    ] {
        assert!(found.contains(&child.to_owned()), "{found:#?}");
    }
    // Neither a network of it nor another protocol is what an SA of two hosts has; that is told.
    for sides in [
        "address 10.0.0.0/31 tcp anonymous",
        "address 10.0.0.0 any address 10.0.1.1 any",
        "address 10.0.0.0 tcp address 10.0.1.1[27018] tcp",
        "address 10.9.0.0 tcp anonymous",
    ] {
        let files = Files::of(&format!("{RACOON}{}", block(sides, 256)), PSK, policies);
        let understood = files.load().unwrap();
        assert!(!files.native().contains("aes256"), "{sides}");
        let notices = files.notices(&understood);
        let told = |notice: &&String| notice.contains("this sainfo is never used");
        assert_eq!(notices.iter().filter(told).count(), 1, "{notices:?}");
    }
    // Those of a tunnel are as they are written.
    let tunnel =
        "spdadd 10.0.0.0/30 10.0.1.0/31 tcp -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;";
    let hosts = block("address 10.0.0.0 tcp address 10.0.1.1 tcp", 256);
    let native = Files::of(&format!("{RACOON}{hosts}"), PSK, tunnel).native();
    assert!(!native.contains("aes256"), "{native}");
}

#[test]
fn a_line_of_psk_txt_is_told_of_once_with_its_own_place() {
    let files = Files::of("", "* one with a blank at its end \n", MONGODB);
    let psk = files.0.join("psk.txt").display().to_string();
    files.write(
        "racoon.conf",
        &RACOON.replace("/etc/racoon/psk.txt", &psk),
        0o644,
    );
    let loaded = load_to_run(&files.to_run(), &files.0.join("obol.toml")).unwrap();
    let told = loaded
        .warnings
        .iter()
        .map(|notice| files.without_path(&notice.to_string()));
    let told: Vec<String> = told
        .filter(|notice| notice.contains("ends in a blank"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("psk.txt:1: "), "{told:?}");
}

#[test]
fn obols_own_file_goes_before_racoons_key_by_key() {
    let timer = "timer { counter 7; interval 3 sec; phase1 45 sec; }\n";
    let files = Files::of(&format!("{timer}{RACOON}"), PSK, MONGODB);
    files.write(
        "obol.toml",
        "[daemon]\nlog = \"warn\"\nretransmit_tries = 5\nshow_keys = true\n",
        0o600,
    );
    let loaded = load_to_run(&files.to_run(), &files.0.join("obol.toml")).unwrap();
    assert_eq!(loaded.daemon.log, "warn");
    assert!(loaded.daemon.show_keys);
    let settings = &loaded.ike.settings;
    let times = (settings.retransmit_timeout, settings.half_open_timeout);
    assert_eq!(times, (Duration::from_secs(3), Duration::from_secs(45)));
    assert_eq!(settings.retransmit_tries, 5);
    let notices = loaded
        .warnings
        .iter()
        .map(|notice| files.without_path(&notice.to_string()));
    let told: Vec<String> = notices
        .filter(|notice| notice.contains("goes before"))
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter()
            .any(|notice| notice.starts_with("obol.toml:2:1: log here goes before")),
        "{told:?}"
    );
}

#[test]
fn settings_of_the_daemon() {
    let more = "listen { isakmp 10.0.1.13 [1500]; isakmp_natt 10.0.1.13 [1501]; strict_address; adminsock disabled; }
        timer { counter 7; interval 3 sec; phase1 45 sec; }\n";
    let racoon = format!(
        "{more}{}",
        RACOON
            .replace(
                "dpd_delay 30",
                "dpd off; ike_frag force; initial_contact off"
            )
            .replace("nat_traversal off", "nat_traversal force")
    );
    let native = Files::of(&racoon, PSK, MONGODB).native();
    for line in [
        "port = 1500",
        "natt_port = 1501",
        "log = \"debug\"",
        "half_open_timeout = \"45s\"",
        "retransmit_timeout = \"3s\"",
        "retransmit_base = 1.0",
        "retransmit_tries = 7",
        "local_addrs = [\"10.0.1.13\"]",
        "dpd_delay = \"0s\"",
        "fragmentation = \"force\"",
        "initial_contact = false",
        "encap = true",
    ] {
        assert!(
            native.lines().any(|other| other == line),
            "{line}: {native}"
        );
    }
}

#[test]
fn racoon_conf_alone_protects_nothing() {
    let files = Files::of(RACOON, PSK, "spdflush;");
    let understood = files.load().unwrap();
    assert!(understood.native.is_none() && understood.flows.is_empty());
}

#[test]
fn r_a13_a_child_is_rekeyed_at_four_fifths_of_its_life() {
    let racoon = RACOON.replace("lifetime time 12 hour", "lifetime time 60 sec");
    let loaded = Files::of(&racoon, PSK, MONGODB).load().unwrap();
    let loaded = loaded.native.unwrap().loaded;
    for child in &loaded.ike.connections[0].children {
        let lives = (child.rekey_time.as_secs(), child.life_time.as_secs());
        assert_eq!(lives, (48, 60));
        let idle = child.upkeep.inactivity.expect("idle pairs go");
        assert_eq!(idle.as_secs(), 24);
    }
}

/// As racoon counts: five probes, five seconds after each other, once the peer is silent for thirty.
#[test]
fn r_a13_a_silent_peer_is_asked_as_often_as_racoon_asks() {
    for (more, retry) in [
        ("", Some((5, 5))),
        ("dpd_retry 3; dpd_maxfail 2;", Some((3, 2))),
        ("dpd_retry 3 sec; dpd_maxfail 0;", Some((3, 1))),
        ("dpd off;", None),
    ] {
        let racoon = RACOON.replace("dpd_delay 30;", &format!("dpd_delay 30; {more}"));
        let loaded = Files::of(&racoon, PSK, MONGODB).load().unwrap();
        let connection = &loaded.native.unwrap().loaded.ike.connections[0];
        let found = connection
            .dpd_retry
            .map(|retry| (retry.after.as_secs(), retry.tries));
        assert_eq!(found, retry, "{more}");
        let delay = connection.dpd_delay.map(|delay| delay.as_secs());
        assert_eq!(delay, retry.map(|_| 30), "{more}");
    }
}

#[test]
fn r_a15_words_about_nat() {
    for (word, detects, encapsulates) in [
        ("off", false, false),
        ("on", true, false),
        ("force", true, true),
    ] {
        let racoon = RACOON.replace("nat_traversal off", &format!("nat_traversal {word}"));
        let native = Files::of(&racoon, PSK, MONGODB).native();
        assert_eq!(!native.contains("nat_traversal = false"), detects, "{word}");
        assert_eq!(native.contains("encap = true"), encapsulates, "{word}");
    }
}
