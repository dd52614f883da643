//! The lines of pluto's commands beside those that real Libreswan printed for the same files on two such hosts
//! (`testdata/lines`, in a VM). Values are replaced by placeholders; what is left is the shape of a line. As root;
//! in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/daemons.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod daemons;
#[path = "support/pluto.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod pluto;
#[allow(dead_code, reason = "each test uses its part of it")]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use daemons::LIMIT;
use obol_daemon::demo::lab::Lab;
use pluto::{DATABASES, ipsec_of, log, nss, story};
use support::{is_root, obol};

/// What real Libreswan prints and obol does not, by a part of the line, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "WARNING: ipsec auto",
        "the reference was made with ipsec auto",
    ),
    ("SElinux", "obol does nothing about it"),
    ("seccomp=", "systemd does that for obol"),
    (
        "configdir=",
        "paths of pluto's programs; configfile= is shown",
    ),
    ("nssdir=", "the same"),
    ("dnssec-rootkey", "obol asks the system's resolver"),
    ("sbindir=", "paths of pluto's programs"),
    ("pluto_version=", "ipsec version says it"),
    ("nhelpers=", "obol has other threads"),
    ("logfile=", "the log is the journal's"),
    (
        "ddos-cookies",
        "briefstatus says whether cookies are asked for",
    ),
    ("config.setup.ike", "the same"),
    ("ikebuf=", "buffers are obol's own"),
    ("ocsp-", "there are no certificates"),
    ("global-redirect", "redirects are by connection"),
    ("secctx-attr", "there are no labels"),
    ("debug:", "log levels are in obol.toml"),
    ("keep-alive=", "obol's own interval"),
    ("virtual-private", "IKEv1"),
    ("algorithms supported", "each connection's are in obol list"),
    ("algorithm ", "the same"),
    ("stats db_ops", "of pluto's memory"),
    (
        "my_updown=",
        "obol routes itself; a script of one's own is in obol list",
    ),
    ("xauth us:", "IKEv1"),
    ("modecfg info:", "obol hands out no addresses"),
    ("iptfs:", "there is no iptfs"),
    ("retransmit-interval:", "obol repeats by its own times"),
    (
        "conn_prio:",
        "the more special selector goes first, without numbers",
    ),
    ("nflog-group:", "there are no such marks"),
    ("liveness:", "with its times, which are obol's own"),
    (
        "nat-traversal: enc",
        "what is done shows in the line of the Child SA",
    ),
    ("conn serial:", "obol has no such numbers"),
    (
        "host: oriented;",
        "the IKE SA is shown with all that share it",
    ),
    (
        "owner: Child SA #N; established Child SA",
        "the IKE SA is shown with all that share it",
    ),
    (
        "retransmission; will wait",
        "nothing was lost here; e2e_ipsec has a peer that does not answer",
    ),
    (
        "stored in the NSS database",
        "it is stored in obol's own place",
    ),
];

/// A line without its values: numbers, SPIs and names of devices.
fn shape(line: &str) -> String {
    // Which of two conns an IKE SA that both share belongs to is as it happens.
    let line = line.trim_end().replace("-subnet\"", "\"");
    let mut words: Vec<String> = Vec::new();
    let mut device = false;
    for word in line.split(' ') {
        let plain = word.trim_end_matches(';');
        let is_long_hex = plain.len() >= 40 && plain.bytes().all(|b| b.is_ascii_hexdigit());
        let word = match word {
            _ if device && !word.is_empty() => "DEVICE".to_owned(),
            spi if spi.starts_with("esp.") => "esp.SPI".to_owned(),
            tun if tun.starts_with("tun.") => "tun.N".to_owned(),
            _ if is_long_hex => "CKAID".to_owned(),
            key if key.contains("sigkey=0s") => "leftrsasigkey=0sKEY".to_owned(),
            _ if word.contains("0x") => {
                let (before, _) = word.split_once("0x").unwrap();
                format!("{before}0xSPI")
            }
            key if key.starts_with("AwEAA") => "KEYID".to_owned(),
            other => other.to_owned(),
        };
        device = word == "interface" || word == "interface:";
        words.push(word);
    }
    let mut shape = String::new();
    let mut in_number = false;
    for c in words.join(" ").chars() {
        if c.is_ascii_digit() {
            if !in_number {
                shape.push('N');
            }
        } else {
            shape.push(c);
        }
        in_number = c.is_ascii_digit();
    }
    // Whether it has a key exchange of its own depends on which exchange made it.
    let shape = shape.replace("-NONE-DHN ", "-NONE ");
    shape.replace("-NONE-MODPN ", "-NONE ")
}

fn shapes(text: &str) -> BTreeSet<String> {
    text.lines()
        .map(shape)
        .filter(|shape| !shape.trim().is_empty())
        .collect()
}

/// What real Libreswan printed; without addresses that only its hosts had, and IPv6.
fn theirs(version: &str, what: &str) -> BTreeSet<String> {
    let path = format!(
        "{}/testdata/lines/libreswan-{version}-{what}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .filter(|line| !(line.contains("interface ") && line.contains('[')));
    shapes(&lines.collect::<Vec<_>>().join("\n"))
}

/// Each shape of theirs is among ours, or is left out for a reason. What is left out is noted.
fn compare(what: &str, ours: &str, theirs: &BTreeSet<String>, used: &mut BTreeSet<&'static str>) {
    let own = shapes(ours);
    let mut missing = Vec::new();
    for line in theirs {
        if own.contains(line) {
            continue;
        }
        match LEFT_OUT
            .iter()
            .find(|(part, _)| line.contains(&shape(part)))
        {
            Some((part, _)) => drop(used.insert(part)),
            None => missing.push(line.as_str()),
        }
    }
    assert!(
        missing.is_empty(),
        "{what} lacks these lines:\n{}\nobol says:\n{ours}",
        missing.join("\n")
    );
}

fn lab() -> Lab {
    let mut lab = Lab::new(obol(), None).unwrap();
    let conf = lab.directory().join("ipsec.conf");
    fs::write(&conf, format!("config setup\n\n{}", story())).unwrap();
    for (host, database) in [&mut lab.a, &mut lab.b].into_iter().zip(DATABASES) {
        fs::write(&host.config, "").unwrap();
        let words = ["--ipsec-conf", conf.to_str().unwrap(), "--nssdir"];
        host.arguments = words.map(Into::into).to_vec();
        host.arguments.push(nss(database));
        host.start().unwrap();
    }
    lab
}

#[tokio::test]
async fn lines_are_those_of_real_libreswan() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let a = &lab.a;
    let deadline = Instant::now() + LIMIT;
    let up = |text: &str| text.matches("type=ESP").count() == 2;
    loop {
        let (_, said) = ipsec_of(a, "trafficstatus", "5");
        if up(&said) {
            break;
        }
        assert!(Instant::now() < deadline, "not up: {said}\n{}", log(a));
        tokio::task::yield_now().await;
    }
    let mut used = BTreeSet::new();
    for (version, compat) in [("5.2", "5"), ("4.10", "4")] {
        for what in [
            "status",
            "briefstatus",
            "globalstatus",
            "trafficstatus",
            "shuntstatus",
        ] {
            let (code, ours) = ipsec_of(a, what, compat);
            assert_eq!(code, 0, "{ours}");
            let what_of = format!("ipsec {what} of {version}");
            compare(&what_of, &ours, &theirs(version, what), &mut used);
        }
        // Neither host does anything by itself from here on.
        for host in [&lab.b, a] {
            for name in ["hostA-hostB", "hostA-hostB-subnet"] {
                let (code, said) = ipsec_of(host, &format!("down {name}"), compat);
                assert_eq!(code, 0, "{said}");
            }
        }
        let did = |line: &str| {
            let (code, ours) = ipsec_of(a, line, compat);
            assert_eq!(code, 0, "{ours}");
            ours
        };
        // The first makes the IKE SA, and the other one a Child SA on it.
        let up = did("up hostA-hostB-subnet") + &did("up hostA-hostB");
        let down = did("down hostA-hostB-subnet");
        did("up hostA-hostB-subnet");
        for (what, ours) in [("up", up), ("down", down)] {
            let what_of = format!("ipsec {what} of {version}");
            compare(&what_of, &ours, &theirs(version, what), &mut used);
        }
        let database = format!(
            "{}/testdata/nss/libreswan-{version}",
            env!("CARGO_MANIFEST_DIR")
        );
        for (what, options) in [
            ("showhostkey-list", "--list"),
            ("showhostkey-left", "--left"),
        ] {
            let line = format!("showhostkey {options} --nssdir {database}");
            let (code, ours) = ipsec_of(a, &line, compat);
            assert_eq!(code, 0, "{ours}");
            compare(what, &ours, &theirs(version, what), &mut used);
        }
        let store = lab.directory().join(format!("keys-{version}"));
        let line = format!("newhostkey --bits 2192 --nssdir {}", store.display());
        let (code, ours) = ipsec_of(a, &line, compat);
        assert_eq!(code, 0, "{ours}");
        compare(
            "newhostkey",
            &ours,
            &theirs(version, "newhostkey"),
            &mut used,
        );
    }
    let (_, keys) = ipsec_of(a, "listpubkeys", "5");
    for line in [
        " (has private key), until --- -- --:--:-- ---- ok (expires never)",
        " (no private key), until --- -- --:--:-- ---- ok (expires never)",
        "       ID_FQDN '@hostA.example.com'",
        "       ID_FQDN '@hostB.example.com'",
        ", 3072 RSA Key AwEAA",
    ] {
        assert!(keys.contains(line), "{keys}");
    }
    // The list says what is so.
    for (part, _) in LEFT_OUT {
        assert!(used.contains(part), "nothing is left out for {part}");
    }
}
