//! What lines of racoon.conf and psk.txt do between two hosts that run from them: whose secret counts, who
//! begins, what a dead peer leaves, and NAT. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/daemons.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod daemons;
#[path = "support/racoon.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod racoon;
#[allow(dead_code, reason = "each test uses its part of it")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use daemons::{LIMIT, assert_only_protected, ike_sas, printed_status};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::Service;
use racoon::{Bed, IN_VAIN, services, talks};
use rtnetlink::LinkUnspec;
use rustix::process::Signal;
use support::is_root;

impl Bed {
    fn psk(&self, host: &Host, text: &str, mode: u32) {
        let path = self.etc(host).join("psk.txt");
        fs::remove_file(&path).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) {
        for host in [&self.lab.a, &self.lab.b] {
            self.does(host, "setkey --service start ETC");
        }
    }

    /// Closes all, so that the next packet negotiates anew.
    fn flush(&self) {
        let (a, b) = (&self.lab.a, &self.lab.b);
        self.does(a, "racoonctl flush-sa isakmp");
        let deadline = Instant::now() + LIMIT;
        while [a, b].map(|host| ike_sas(&printed_status(host)).len()) != [0, 0] {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}

/// Two hosts whose policies are loaded, with services on both, and what is on the wire between them; as
/// root only.
fn loaded() -> Option<(Bed, [Service; 2], Capture)> {
    if !is_root() {
        return None;
    }
    let bed = Bed::new();
    let services = services(&bed);
    let capture = Capture::start(&bed.lab.a.netns, WIRE, protected()).unwrap();
    bed.load();
    Some((bed, services, capture))
}

fn said(host: &Host) -> String {
    fs::read_to_string(host.runtime.join("racoon.log")).unwrap_or_default()
}

/// Waits until the log of a host has these words.
async fn says(host: &Host, words: &str) {
    let deadline = Instant::now() + 3 * LIMIT;
    while !said(host).contains(words) {
        assert!(Instant::now() < deadline, "{words}: {}", said(host));
        tokio::task::yield_now().await;
    }
}

/// Nothing was in clear, and nothing was there that the firewalls of the story stop.
fn assert_never_in_clear(capture: &Capture) {
    let seen = capture.seen();
    assert_eq!((seen.clear, seen.other), (0, 0), "{seen:?}");
}

#[tokio::test]
async fn r_a6_secrets_count_as_they_are_when_they_are_needed() {
    let Some((bed, _services, capture)) = loaded() else {
        return;
    };
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    // Others may read it: nobody can connect, until they may not.
    let everybody = "* the secret of everybody\n";
    bed.psk(a, everybody, 0o644);
    bed.psk(b, everybody, 0o400);
    let racoons = [bed.start(a), bed.start(b)];
    says(a, "has weak file permission").await;
    assert!(!talks(a, b, IN_VAIN).await);
    bed.psk(a, everybody, 0o400);
    assert!(talks(a, b, 3 * LIMIT).await, "{}", said(a));

    // The first line that fits, at both ends; the last one is not the same.
    let (at_a, at_b) = ("192.168.0.1", "192.168.0.2");
    bed.psk(
        a,
        &format!("{at_b} only for these two\n* another one\n"),
        0o400,
    );
    bed.psk(
        b,
        &format!("{at_a} only for these two\n* something else\n"),
        0o400,
    );
    bed.flush();
    assert!(talks(a, b, 3 * LIMIT).await, "{}", said(a));

    // A blank behind it at one end alone: nobody connects, and the line says so. Those within it are part of it.
    let blanks = "* one with blanks  within\n";
    bed.psk(a, blanks, 0o400);
    bed.psk(b, &blanks.replace("within", "within "), 0o400);
    bed.flush();
    assert!(!talks(a, b, IN_VAIN).await);
    let place = bed.etc(b).join("psk.txt");
    let ends = "the secret ends in a blank, which is part of it; remove it on all hosts";
    says(b, &format!("{}:1: {ends}", place.display())).await;
    assert!(!said(a).contains(ends));
    bed.psk(b, blanks, 0o400);
    assert!(talks(a, b, 3 * LIMIT).await, "{}", said(a));

    // Different ones: both say so, and which line it was, and never the secret.
    bed.psk(b, "# none\n* something else\n", 0o400);
    bed.flush();
    assert!(!talks(a, b, IN_VAIN).await);
    says(a, "AUTHENTICATION_FAILED").await;
    says(b, "did not prove it to us").await;
    says(b, "the secret is from psk.txt peer=192.168.0.1 line=2").await;
    for host in [a, b] {
        for secret in [
            "only for these",
            "one with blanks",
            "another one",
            "something else",
        ] {
            assert!(!said(host).contains(secret));
        }
    }
    // It is gone: the daemon runs, and what it protects stays closed.
    fs::remove_file(bed.etc(a).join("psk.txt")).unwrap();
    assert!(!talks(a, b, IN_VAIN).await);
    bed.does(a, "racoonctl show-sa isakmp");
    assert_never_in_clear(&capture);
    drop(racoons);
}

#[tokio::test]
async fn r_a6_a_file_that_is_missing_at_first_is_read_when_it_is_there() {
    let Some((bed, _services, _capture)) = loaded() else {
        return;
    };
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let text = fs::read_to_string(bed.etc(a).join("psk.txt")).unwrap();
    fs::remove_file(bed.etc(a).join("psk.txt")).unwrap();
    let _racoons = [bed.start(a), bed.start(b)];
    says(a, "there is no such file").await;
    assert!(!talks(a, b, IN_VAIN).await);
    fs::write(bed.etc(a).join("psk.txt"), "").unwrap();
    bed.psk(a, &text, 0o400);
    assert!(talks(a, b, 3 * LIMIT).await, "{}", said(a));
}

/// Takes the link of a host away, or gives it back.
fn pull(host: &Host, up: bool) {
    let done = host.netns.configure(async |links| {
        let link = LinkUnspec::new_with_index(links.index(WIRE).await?);
        let link = if up { link.up() } else { link.down() };
        let set = links.handle().link().set(link.build()).execute().await;
        set.map_err(std::io::Error::other)
    });
    done.unwrap();
}

#[tokio::test]
async fn r_a13_a_peer_that_does_not_answer_is_dead_and_comes_back() {
    let Some((bed, _services, capture)) = loaded() else {
        return;
    };
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    for host in [a, b] {
        bed.edit(
            host,
            "dpd_delay 30;",
            "dpd_delay 1; dpd_retry 1; dpd_maxfail 3;",
        );
        bed.edit(
            host,
            "log debug;",
            "log debug;\ntimer { counter 3; interval 1 sec; }",
        );
    }
    let _racoons = [bed.start(a), bed.start(b)];
    assert!(talks(a, b, LIMIT).await);
    pull(b, false);
    says(a, "seems to be dead").await;
    assert_eq!(bed.sas(a), 0, "{}", bed.does(a, "setkey -D"));
    assert!(!talks(a, b, IN_VAIN).await, "nothing passes meanwhile");
    pull(b, true);
    assert!(talks(a, b, 3 * LIMIT).await, "{}", said(a));
    assert_never_in_clear(&capture);
}

#[tokio::test]
async fn r_a14_who_is_passive_waits_for_the_peer() {
    let Some((bed, _services, capture)) = loaded() else {
        return;
    };
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    bed.edit(a, "passive off;", "passive on;");
    let _racoons = [bed.start(a), bed.start(b)];
    assert!(!talks(a, b, IN_VAIN).await);
    assert_eq!(capture.seen().ike, 0, "nobody has begun");
    assert!(talks(b, a, LIMIT).await, "{}", said(b));
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn r_a14_who_offers_what_the_peer_has_not_is_refused() {
    let Some((bed, _services, capture)) = loaded() else {
        return;
    };
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let own = "remote 192.168.0.2 { exchange_mode base; nat_traversal off; proposal {
        encryption_algorithm aes; hash_algorithm sha1; authentication_method pre_shared_key; dh_group modp4096; } }
sainfo anonymous";
    bed.edit(a, "sainfo anonymous", own);
    let _racoons = [bed.start(a), bed.start(b)];
    assert!(!talks(a, b, IN_VAIN).await);
    let (long, short) = (
        "aes128-sha256-prfsha256-modp4096",
        "aes128-sha256-prfsha256-modp2048",
    );
    says(a, "refused with NO_PROPOSAL_CHOSEN").await;
    says(a, &format!("we offer {long}")).await;
    says(b, &format!("it offers {long}, and we have {short};")).await;
    assert_never_in_clear(&capture);
}

#[tokio::test]
async fn r_a15_words_about_nat_on_the_wire() {
    for (at_a, at_b, encapsulates) in [
        ("force", "force", true),
        ("on", "on", false),
        ("off", "on", false),
    ] {
        let Some((bed, _services, capture)) = loaded() else {
            return;
        };
        let (a, b) = (&bed.lab.a, &bed.lab.b);
        for (host, word) in [(a, at_a), (b, at_b)] {
            let line = format!("nat_traversal {word};");
            bed.edit(host, "nat_traversal off;", &line);
        }
        let racoons = [bed.start(a), bed.start(b)];
        assert!(talks(a, b, LIMIT).await, "{at_a}: {}", said(a));
        assert!(talks(b, a, LIMIT).await, "{at_a}: {}", said(b));
        assert_only_protected(&capture).await;
        let seen = capture.seen();
        let kinds = (seen.esp > 0, seen.esp_in_udp > 0);
        assert_eq!(
            kinds,
            (!encapsulates, encapsulates),
            "{at_a}, {at_b}: {seen:?}"
        );
        racoons[0].signal(Signal::TERM);
    }
}

/// The first line of what comes before a mistake, where anything does, would protect more.
const BAD_SCRIPTS: [(&str, usize, &str); 8] = [
    (
        "spdadd 192.168.0.1 192.168.0.2[27017] any -P out discard;",
        1,
        "without a protocol",
    ),
    (
        "spdadd 192.168.0.1 192.168.0.2[27017] icmp -P out discard;",
        1,
        "icmp has no ports",
    ),
    (
        "spdadd 192.168.0.1 fd00::2 tcp -P out discard;",
        1,
        "different address families",
    ),
    (
        "spdadd -6 192.168.0.1 192.168.0.2 tcp -P out discard;",
        1,
        "address family that the flags",
    ),
    (
        "\nspadd 192.168.0.1 192.168.0.2 tcp -P out discard;",
        2,
        "did you mean spdadd?",
    ),
    (
        "spdflush;\nflush;\nspdadd 192.168.0.1 192.168.0.2 tcp -P out none; }{",
        3,
        "syntax error at [}{]",
    ),
    (
        "spdflush;\nspdadd 192.168.0.0/16[27017 192.168.0.0/16 tcp -P out none;",
        2,
        "syntax error",
    ),
    (
        "spdadd 192.168.0.1 192.168.0.2 tcp -P in discard;\nspdadd 192.168.0.2 192.168.0.1 tcp -P out none;",
        1,
        "contradict",
    ),
];

const BAD_CONFS: [(&str, &str, &str); 5] = [
    ("passive off;", "pasive off;", "did you mean passive?"),
    ("passive off;", "generate_policy yes;", "syntax error"),
    (
        "    pfs_group modp1024;\n",
        "    pfs_group modp1024;\n}\n",
        "no block is open",
    ),
    ("log debug;", "log debug; 10.0.0.1", "syntax error"),
    ("nat_traversal off;", "nat_traversal off", "syntax error"),
];

#[tokio::test]
async fn bad_input_is_one_error_with_its_place_and_what_runs_stays() {
    let Some((bed, _services, _capture)) = loaded() else {
        return;
    };
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let _racoons = [bed.start(a), bed.start(b)];
    assert!(talks(a, b, LIMIT).await);
    let listed = || {
        let listed = bed.does(a, "setkey -DP");
        listed.replace(|letter: char| letter.is_ascii_digit(), "")
    };
    let (before, sas) = (listed(), bed.sas(a));
    let path = bed.etc(a).join("bad.conf");
    for (script, line, expected) in BAD_SCRIPTS {
        fs::write(&path, script).unwrap();
        let error = bed.fails(a, "setkey -f ETC/bad.conf");
        let place = format!("{}:{line}:", path.display());
        assert!(error.contains(expected), "{script}: {error}");
        assert_eq!(error.matches(&place).count(), 1, "{script}: {error}");
        assert_eq!(listed(), before, "{script}");
    }
    let conf = bed.etc(a).join("racoon.conf");
    let good = fs::read_to_string(&conf).unwrap();
    for (from, to, expected) in BAD_CONFS {
        fs::write(&conf, good.replacen(from, to, 1)).unwrap();
        let error = bed.fails(a, "racoonctl reload-config");
        let place = format!("{}:", conf.display());
        assert!(
            error.contains(expected) && error.contains(&place),
            "{to}: {error}"
        );
    }
    fs::write(&conf, &good).unwrap();
    // Without a line for everybody, others than those named have no secret.
    bed.psk(a, "192.168.0.77 a secret of somebody else\n", 0o400);
    bed.does(a, "racoonctl reload-config");
    says(a, "there is no line for *").await;
    assert_eq!(bed.sas(a), sas, "SAs stay");
    assert!(talks(a, b, LIMIT).await);
}

#[tokio::test]
async fn r_a8_3des_where_both_hosts_allow_it_and_aes_where_one_does() {
    let allow = "[daemon]\nallow = [\"3des\"]\n";
    for (at_a, at_b, by_b, cipher) in [
        ("3des", "3des", allow, "3des-cbc"),
        ("3des, aes", "3des, aes", "", "aes-cbc"),
    ] {
        let Some((bed, _services, capture)) = loaded() else {
            return;
        };
        let (a, b) = (&bed.lab.a, &bed.lab.b);
        for (host, ciphers, own) in [(a, at_a, allow), (b, at_b, by_b)] {
            fs::write(&host.config, own).unwrap();
            let line = format!("encryption_algorithm {ciphers};");
            bed.edit(host, "encryption_algorithm aes, 3des;", &line);
            bed.edit(host, "encryption_algorithm aes;", &line);
        }
        let _racoons = [bed.start(a), bed.start(b)];
        assert!(talks(a, b, LIMIT).await, "{}", said(a));
        assert!(talks(b, a, LIMIT).await, "{}", said(b));
        for host in [a, b] {
            let listed = bed.does(host, "setkey -D");
            let entries = listed.matches(&format!("\tE: {cipher}  ")).count();
            assert_eq!(entries, 4, "{listed}");
        }
        let status = printed_status(a);
        let encr = &ike_sas(&status)[0]["algorithms"]["encr"];
        let expected = cipher.split('-').next().unwrap().to_uppercase();
        assert!(encr.as_str().unwrap().starts_with(&expected), "{encr}");
        assert_eq!(printed_status(a)["daemon"]["allows"][0], "3des");
        assert_only_protected(&capture).await;
    }
}

#[tokio::test]
async fn r_a8_3des_alone_is_refused_unless_it_is_allowed() {
    let Some((bed, _services, _capture)) = loaded() else {
        return;
    };
    let a = &bed.lab.a;
    bed.edit(
        a,
        "encryption_algorithm aes, 3des;",
        "encryption_algorithm 3des;",
    );
    let error = bed.fails(a, "racoon -f ETC/racoon.conf");
    assert!(error.contains(":30:26: 3des has 64-bit blocks"), "{error}");
    assert!(
        error.contains("write aes") && error.contains("allow"),
        "{error}"
    );
}
