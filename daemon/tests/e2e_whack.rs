//! What an `up` says while it goes on, and what `ipsec whack` does about single SAs and secrets. As root; in
//! namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/bed.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod bed;
#[path = "support/daemons.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod daemons;
#[allow(dead_code, reason = "each test uses its part of it")]
mod support;

use std::time::Instant;

use bed::{Bed, Files, assert_lines};
use daemons::LIMIT;
use obol_daemon::demo::lab::Host;
use support::is_root;

/// A conn between the networks, and what is written into it besides.
fn nets(more: &str) -> String {
    format!(
        "conn nets\n\tleft=192.168.0.1\n\tleftid=@a\n\tright=192.168.0.2\n\trightid=@b\n\tauthby=secret\n\
         \tleftsubnet=172.16.1.0/24\n\trightsubnet=172.16.2.0/24\n\n{more}"
    )
}

/// The numbers of the IKE SA and the Child SA that `showstates` lists as the newest.
fn numbers(files: &Files, host: &Host) -> Option<(u64, u64)> {
    let (_, text) = files.on(host, "showstates");
    let newest = |words: &str| {
        let mut lines = text.lines();
        let line = lines.rfind(|line| line.contains(words) && line.contains("newest"))?;
        line.trim_start_matches('#').split(':').next()?.parse().ok()
    };
    Some((
        newest("(established IKE SA)")?,
        newest("(established Child SA)")?,
    ))
}

/// Waits until the numbers are others than these.
async fn numbers_but(
    files: &Files,
    host: &Host,
    is_right: impl Fn((u64, u64)) -> bool,
) -> (u64, u64) {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = numbers(files, host).filter(|found| is_right(*found)) {
            return found;
        }
        assert!(Instant::now() < deadline, "{}", files.on(host, "status").1);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn sas_are_rekeyed_and_closed_one_by_one() {
    if !is_root() {
        return;
    }
    let files = Files::new(&nets("\tauto=add\n"));
    let a = &files.bed.lab.a;
    for line in [
        "whack --rekey-ike --name nets",
        "whack --rekey-child --name nets",
    ] {
        let (code, text) = files.on(a, line);
        assert_eq!(code, 1, "{line}: {text}");
        assert!(text.contains("no SA is up"), "{text}");
    }
    let (code, text) = files.on(a, "up nets");
    assert_eq!(code, 0, "{text}");
    let (ike, child) = numbers(&files, a).unwrap();
    let (code, text) = files.on(a, "whack --rekey-child --name nets");
    assert_eq!(code, 0, "{text}");
    let line = format!(
        "\"nets\" #{child}: initiating rekey to replace Child SA #{child} using IKE SA #{ike}"
    );
    assert_lines(&text, &[&line]);
    let (_, next) = numbers_but(&files, a, |(_, now)| now != child).await;
    let (code, text) = files.on(a, "whack --name nets --rekey-ike");
    assert_eq!(code, 0, "{text}");
    let line = format!("\"nets\" #{ike}: initiating rekey to replace IKE SA #{ike}");
    assert_lines(&text, &[&line]);
    let (ike, _) = numbers_but(&files, a, |(now, _)| now != ike).await;
    assert_eq!(
        numbers(&files, a).unwrap().1,
        next,
        "its Child SA went along"
    );
    files.bed.pinged().await;
    // By its number, an SA goes and the conn stays.
    let (code, text) = files.on(a, &format!("whack --deletestate {next}"));
    assert_eq!(code, 0, "{text}");
    let deadline = Instant::now() + LIMIT;
    while files.on(a, "trafficstatus").1.contains("type=ESP") {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let (code, text) = files.on(a, &format!("whack --deletestate {ike}"));
    assert_eq!(code, 0, "{text}");
    let deadline = Instant::now() + LIMIT;
    while !files.on(a, "briefstatus").1.contains("IKE SAs: total(0)") {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    for number in [ike, next, 999] {
        let (code, text) = files.on(a, &format!("whack --deletestate {number}"));
        let expected = format!("no state #{number} to delete");
        assert_eq!((code, text.trim()), (21, &*expected));
    }
    assert_eq!(files.on(a, "up nets").0, 0);
    files.bed.pinged().await;
    files.stop();
}

#[tokio::test]
async fn secrets_are_listed_with_who_uses_them_and_never_shown() {
    if !is_root() {
        return;
    }
    let files = Files::new(&nets("\tauto=add\n"));
    let a = &files.bed.lab.a;
    for line in ["listpsks", "whack --listpsks", "whack --listsecrets"] {
        let (code, text) = files.on(a, line);
        assert_eq!(code, 0, "{text}");
        assert_lines(
            &text,
            &[
                "List of Pre-shared secrets (from */ipsec.secrets):",
                "    1: PSK @a @b (*/ipsec.secrets:1; used by \"nets\")",
            ],
        );
        assert!(!text.contains("a secret for"), "{text}");
    }
    files.stop();
}

#[tokio::test]
async fn an_up_without_answer_says_so_line_by_line() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::with("\n[daemon]\nretransmit_tries = 3\n").await;
    bed.lab.b.kill().unwrap();
    for (compat, expected) in [
        (
            "5",
            [
                "\"pods\" #*: initiating IKEv2 connection to 192.168.0.2 using UDP",
                "\"pods\" #*: sent IKE_SA_INIT request to 192.168.0.2:UDP/500",
                "\"pods\" #*: IKE_SA_INIT_I: retransmission; will wait * seconds for response",
                "\"pods\" #*: IKE_SA_INIT_I: * second timeout exceeded after 3 retransmits.  No response (or no acceptable response) to our first IKEv2 message",
            ],
        ),
        (
            "4",
            [
                "1v2 \"pods\" #*: initiating IKEv2 connection",
                "1v2 \"pods\" #*: sent IKE_SA_INIT request to 192.168.0.2:500",
                "010 \"pods\" #*: STATE_V2_PARENT_I1: retransmission; will wait * seconds for response",
                "031 \"pods\" #*: STATE_V2_PARENT_I1: * second timeout exceeded after 3 retransmits.  No response (or no acceptable response) to our first IKEv2 message",
            ],
        ),
    ] {
        let (code, text) = bed.run_as(&bed.ipsec, &bed.lab.a, "up pods", compat);
        assert_eq!(code, 51, "{text}");
        assert_lines(&text, &expected);
    }
}

#[tokio::test]
async fn a_peer_that_does_not_believe_us_is_told_in_plutos_words() {
    if !is_root() {
        return;
    }
    let files = Files::new(&nets("\tauto=add\n"));
    let (a, b) = (&files.bed.lab.a, &files.bed.lab.b);
    // Both read one file: host B knows another secret before A is asked.
    let secrets = files.bed.lab.directory().join("ipsec.secrets");
    std::fs::write(&secrets, "@a @b : PSK \"another one of host B\"\n").unwrap();
    assert_eq!(files.on(b, "rereadsecrets").0, 0);
    let (code, text) = files.on(a, "up nets");
    assert_eq!(code, 56, "{text}");
    assert_lines(
        &text,
        &[
            "\"nets\" #*: sent IKE_AUTH request to 192.168.0.2:UDP/500",
            "\"nets\" #*: IKE SA authentication request rejected by peer: AUTHENTICATION_FAILED",
            "\"nets\" #*: encountered fatal error in state IKE_AUTH_I",
        ],
    );
    files.stop();
}

#[tokio::test]
async fn one_try_is_one_and_without_rekeys_sas_expire() {
    if !is_root() {
        return;
    }
    let files = Files::new(&nets("\tauto=add\n\trekey=no\n\tkeyingtries=1\n"));
    let a = &files.bed.lab.a;
    assert_eq!(files.on(a, "up nets").0, 0);
    let (_, text) = files.on(a, "showstates");
    assert!(
        !text.contains("REKEY in") && !text.contains("REPLACE"),
        "{text}"
    );
    assert_lines(
        &text,
        &[
            "#*: \"nets\":500 ESTABLISHED_IKE_SA (established IKE SA); EXPIRE in *s; newest; idle;",
            "#*: \"nets\":500 ESTABLISHED_CHILD_SA (established Child SA); EXPIRE in *s; newest; eroute owner; *",
        ],
    );
    let (_, text) = files.on(a, "connectionstatus nets");
    assert_lines(&text, &["\"nets\":   policy: IKEv2+PSK+*+DONT_REKEY+*;"]);
    let rundir = files.bed.lab.directory().join(a.side.name);
    let line = format!("connectionstatus nets --rundir {}", rundir.display());
    let (_, text) = files.bed.run_as(&files.bed.ipsec, a, &line, "4");
    assert!(text.contains(" keyingtries: 1;"), "{text}");
    files.stop();
}
