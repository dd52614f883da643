//! pluto's commands on two running daemons: their lines and exit codes. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/bed.rs"]
mod bed;
#[path = "support/daemons.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod daemons;
#[allow(dead_code, reason = "each test uses its part of it")]
mod support;

use bed::{Bed, CONNS, Files, assert_lines};
use daemons::LIMIT;
use obol_daemon::demo::lab::Host;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use support::{is_root, obol};

#[tokio::test]
async fn a_connection_is_brought_up_counted_and_closed() {
    if !is_root() {
        return;
    }
    let bed = Bed::new().await;
    let (code, text) = bed.run("connectionstatus pods");
    assert_eq!(code, 0, "{text}");
    assert_lines(
        &text,
        &[
            "\"pods\": 172.16.1.0/24===192.168.0.1[@hostA.example.com]...192.168.0.2[@hostB.example.com]===172.16.2.0/24; unrouted; my_ip=unset; their_ip=unset;",
        ],
    );
    let (code, text) = bed.run("up pods");
    assert_eq!(code, 0, "{text}");
    assert_lines(
        &text,
        &[
            "\"pods\" #1: initiating IKEv2 connection to 192.168.0.2 using UDP",
            "\"pods\" #1: sent IKE_SA_INIT request to 192.168.0.2:UDP/500",
            "\"pods\" #1: processed IKE_SA_INIT response from 192.168.0.2:UDP/500 {cipher=AES_GCM_16_256 integ=n/a prf=HMAC_SHA2_256 group=DH31}, initiating IKE_AUTH",
            "\"pods\" #1: sent IKE_AUTH request to 192.168.0.2:UDP/4500",
            "\"pods\" #*: initiator established IKE SA; authenticated peer using authby=secret and ID_FQDN '@hostB.example.com'",
            "\"pods\" #*: initiator established Child SA using #*; IPsec tunnel [172.16.1.0/24===172.16.2.0/24] {ESP/ESN=>0x* <0x* xfrm=AES_GCM_16_256-NONE DPD=*}",
        ],
    );
    bed.pinged().await;
    let (code, text) = bed.run("trafficstatus");
    assert_eq!(code, 0, "{text}");
    assert_lines(
        &text,
        &[
            "#*: \"pods\", type=ESP, add_time=*, inBytes=*, outBytes=*, maxBytes=2^63B, id='@hostB.example.com'",
        ],
    );
    assert!(!text.contains("inBytes=0,"), "{text}");
    let four = bed.run_as(&bed.ipsec, &bed.lab.a, "trafficstatus", "4");
    assert!(
        four.1.lines().all(|line| line.starts_with("006 #")),
        "{four:?}"
    );
    let (_, text) = bed.run("status");
    assert_lines(
        &text,
        &[
            "using kernel interface: userspace",
            "Connection list:",
            "\"pods\": 172.16.1.0/24===192.168.0.1[@hostA.example.com]...*===172.16.2.0/24; routed-tunnel; my_ip=unset; their_ip=unset;",
            "\"pods\":   routing: routed-tunnel; owner: Child SA #*; established IKE SA: #*; established Child SA: #*;",
            "Total IPsec connections: loaded *, active 1",
            "IKE SAs: total(1), half-open(0), open(0), authenticated(1), anonymous(0)",
            "#*: \"hosts\":* ESTABLISHED_IKE_SA (established IKE SA); REKEY in *; newest; idle;",
            "#*: \"pods\":* ESTABLISHED_CHILD_SA (established Child SA); *IKE SA #*; idle;",
            "#*: \"pods\" esp.*@192.168.0.2 esp.*@192.168.0.1 tun.0@192.168.0.2 tun.0@192.168.0.1 Traffic: ESPin=*B ESPout=*B ESPmax=2^63B",
        ],
    );
    let (code, text) = bed.run("auto --down pods");
    assert_eq!(code, 0, "{text}");
    assert_lines(
        &text,
        &[
            "WARNING: ipsec auto has been deprecated",
            "\"pods\": initiating delete of connection's IKE SA #* (and Child SA #*)",
            "\"pods\" #*: ESP traffic information: in=*B out=*B",
        ],
    );
    let (_, text) = bed.run("briefstatus");
    assert_lines(&text, &["IKE SAs: total(0), *", "IPsec SAs: total(0), *"]);
}

#[tokio::test]
async fn children_are_unloaded_trapped_and_loaded_again() {
    if !is_root() {
        return;
    }
    let bed = Bed::new().await;
    let (code, text) = bed.run("route pods");
    assert_eq!(code, 0, "{text}");
    let (_, text) = bed.run("briefconnectionstatus pods");
    assert_lines(&text, &["\"pods\": *; routed-ondemand; *"]);
    bed.pinged().await;
    let (_, text) = bed.run("briefconnectionstatus pods");
    assert_lines(&text, &["\"pods\": *; routed-tunnel; *"]);
    let (code, text) = bed.run("auto --dry-run --delete pods");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("dry run: would close \"pods\""), "{text}");
    let (_, text) = bed.run("briefconnectionstatus pods");
    assert_lines(&text, &["\"pods\": *; routed-tunnel; *"]);
    let (code, text) = bed.run("delete pods");
    assert_eq!(code, 0, "{text}");
    for line in ["up pods", "delete unknown"] {
        let (code, text) = bed.run(line);
        assert_eq!(code, 21, "{line}: {text}");
        assert!(text.contains("no connection or alias named"), "{text}");
    }
    let (code, text) = bed.run("add unknown");
    assert_eq!(
        (code, text.trim()),
        (21, "conn unknown: not found (tried aliases)")
    );
    // A reload of all does not bring it back, and asking for it does.
    assert_eq!(bed.run("rereadall").0, 0);
    assert_eq!(bed.run("connectionstatus pods").0, 21);
    let (code, text) = bed.run("whack --name pods --add");
    assert_eq!(code, 0, "{text}");
    assert_lines(&text, &["\"pods\": added IKEv2 connection"]);
    assert_eq!(bed.run("unroute pods").0, 0);
    let (_, text) = bed.run("briefconnectionstatus pods");
    assert_lines(&text, &["\"pods\": *; unrouted; *"]);
}

#[tokio::test]
async fn what_cannot_be_done_has_plutos_exit_code() {
    if !is_root() {
        return;
    }
    let bed = Bed::new().await;
    for (line, code, words) in [
        ("", 2, "Usage: ipsec COMMAND"),
        (
            "frob",
            2,
            "ipsec: unknown IPsec command \"frob\" (\"ipsec help\" for list)",
        ),
        ("up", 2, "needs the name of a connection"),
        ("up nope", 21, "no connection or alias named \"nope\""),
        ("help", 0, "trafficstatus"),
        ("version", 0, "(Libreswan 5.2 compatible)"),
        ("--versioncode", 0, "5.2"),
        (
            "checkconfig --config /nonexistent/ipsec.conf",
            3,
            "/nonexistent/ipsec.conf",
        ),
        (
            "status --rundir /nonexistent",
            33,
            "whack: Pluto is not running (no \"/nonexistent/obol.sock\")",
        ),
    ] {
        let (got, text) = bed.run(line);
        assert_eq!(got, code, "{line}: {text}");
        assert!(text.contains(words), "{line}: {text}");
    }
    let by_obol = bed.run_as(obol(), &bed.lab.a, "ipsec up nope", "5");
    assert_eq!(by_obol.0, 21, "{by_obol:?}");
}

/// `ipsec start` without systemd, on pluto's own files.
#[tokio::test]
async fn plutos_files_are_started_asked_changed_and_stopped() {
    if !is_root() {
        return;
    }
    let files = Files::new(CONNS);
    let (bed, on) = (&files.bed, |host: &Host, line: &str| files.on(host, line));
    let a = &bed.lab.a;
    let (code, text) = on(a, "up nets");
    assert_eq!(code, 0, "{text}");
    assert_lines(
        &text,
        &[
            "\"nets\" #*: initiator established IKE SA; authenticated peer using authby=secret and ID_FQDN '@b'",
            "\"nets\" #*: initiator established Child SA using #*; IPsec tunnel [172.16.1.0/24===172.16.2.0/24] *",
        ],
    );
    bed.pinged().await;
    let (code, text) = on(a, "up elsewhere");
    assert_eq!(code, 22, "{text}");
    assert!(
        text.contains("we cannot identify ourselves with either end"),
        "{text}"
    );
    assert!(
        text.contains("192.168.0.8 or 192.168.0.9 are not usable"),
        "{text}"
    );
    let (_, text) = on(a, "status");
    assert_lines(
        &text,
        &[
            "\"nets\": 172.16.1.0/24===192.168.0.1[@a]...192.168.0.2[@b]===172.16.2.0/24; routed-tunnel; *",
            "\"elsewhere\": 192.168.0.8[@a]...192.168.0.9[@b]; unoriented; my_ip=unset; their_ip=unset;",
            "\"elsewhere\":   host: unoriented; local: 192.168.0.8; remote: 192.168.0.9;",
            "Total IPsec connections: loaded 2, active 1",
        ],
    );
    // A conn of other hosts is added without a word of error, as on each of many hosts with the same files.
    let (code, text) = on(a, "add elsewhere");
    assert_eq!(code, 0, "{text}");
    assert_lines(
        &text,
        &[
            "\"elsewhere\": added unoriented IKEv2 connection (neither left=192.168.0.8 nor right=192.168.0.9 match an interface)",
        ],
    );
    // One that is not loaded at start is there once it is asked for, and comes up beside the other.
    assert_eq!(on(a, "up later").0, 21);
    for host in [&bed.lab.a, &bed.lab.b] {
        let (code, text) = on(host, "add later");
        assert_eq!(code, 0, "{text}");
    }
    let (code, text) = on(a, "up later");
    assert_eq!(code, 0, "{text}");
    let (_, text) = on(a, "down later");
    assert_lines(
        &text,
        &["\"later\": initiating delete of connection's Child SA #*"],
    );
    bed.pinged().await;
    files.stop();
}

#[tokio::test]
async fn a5_an_unknown_keyword_changes_nothing_that_runs() {
    if !is_root() {
        return;
    }
    let files = Files::new(CONNS);
    let a = &files.bed.lab.a;
    let (code, text) = files.on(a, "up nets");
    assert_eq!(code, 0, "{text}");
    let before = files.on(a, "trafficstatus");
    assert!(before.1.contains("\"nets\", type=ESP"), "{before:?}");
    let good = std::fs::read_to_string(&files.conf).unwrap();
    let bad = format!("{good}\nconn more\n\tlefsubnet=10.0.0.0/8\n");
    let at = bad
        .lines()
        .position(|line| line.contains("lefsubnet"))
        .unwrap()
        + 1;
    std::fs::write(&files.conf, &bad).unwrap();
    for line in ["add more", "add nets", "rereadall"] {
        let (code, text) = files.on(a, line);
        assert_eq!(code, 3, "{line}: {text}");
        let place = format!(
            "{}:{at}:2: unrecognized 'conn' keyword 'lefsubnet'",
            files.conf.display()
        );
        assert!(text.contains(&place), "{line}: {text}");
        assert!(text.contains("did you mean leftsubnet?"), "{line}: {text}");
    }
    let id = |text: &str| text.split(',').next().unwrap().to_owned();
    assert_eq!(id(&files.on(a, "trafficstatus").1), id(&before.1));
    files.bed.pinged().await;
    std::fs::write(&files.conf, &good).unwrap();
    assert_eq!(files.on(a, "rereadall").0, 0);
    files.stop();
}

#[tokio::test]
async fn a9_subnets_are_children_of_one_ike_sa() {
    if !is_root() {
        return;
    }
    let files = Files::new(
        "conn n\n\tleft=192.168.0.1\n\tleftid=@a\n\tright=192.168.0.2\n\trightid=@b\n\tauthby=secret\n\
         \tleftsubnets={172.16.1.0/24 10.2.0.0/24}\n\trightsubnets=\"172.16.2.0/24, 10.4.0.0/24\"\n\tauto=add\n",
    );
    let a = &files.bed.lab.a;
    let (code, text) = files.on(a, "up n");
    assert_eq!(code, 0, "{text}");
    let (_, text) = files.on(a, "briefstatus");
    assert_lines(
        &text,
        &[
            "IKE SAs: total(1), half-open(0), open(0), authenticated(1), anonymous(0)",
            "IPsec SAs: total(4), authenticated(4), anonymous(0)",
        ],
    );
    files.bed.pinged().await;
    let (code, text) = files.on(a, "down n");
    assert_eq!(code, 0, "{text}");
    let (_, text) = files.on(a, "briefstatus");
    assert_lines(
        &text,
        &["IPsec SAs: total(0), authenticated(0), anonymous(0)"],
    );
    files.stop();
}

#[tokio::test]
async fn a14_octets_of_inner_packets_are_counted() {
    if !is_root() {
        return;
    }
    let files = Files::new(CONNS);
    let lab = &files.bed.lab;
    let (code, text) = files.on(&lab.a, "auto --up nets");
    assert_eq!(code, 0, "{text}");
    // With their headers, 84 octets.
    let datagram = [0x55; 84 - 20 - 8];
    let bind = |host: &Host| {
        let socket = host.netns.run(|| UdpSocket::bind((host.side.pod, 7000)));
        let socket = socket.unwrap().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    };
    let (here, there) = (bind(&lab.a), bind(&lab.b));
    for (from, to, host) in [(&here, &there, &lab.b), (&there, &here, &lab.a)] {
        from.send_to(&datagram, (host.side.pod, 7000)).unwrap();
        let mut octets = [0; 100];
        assert_eq!(to.recv(&mut octets).unwrap(), datagram.len());
    }
    for host in files.hosts() {
        let (_, text) = files.on(host, "trafficstatus");
        assert_lines(
            &text,
            &[
                "#*: \"nets\", type=ESP, add_time=*, inBytes=84, outBytes=84, maxBytes=2^63B, id='@*'",
            ],
        );
        let rundir = lab.directory().join(host.side.name);
        let line = format!("trafficstatus --rundir {}", rundir.display());
        let (_, four) = files.bed.run_as(&files.bed.ipsec, host, &line, "4");
        // The ages of SAs are in whole seconds, of which one may begin between the two.
        let untimed = |text: &str| {
            let (before, timed) = text.split_once("add_time=").unwrap();
            let after = timed.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}add_time={after}")
        };
        assert_eq!(untimed(&four), untimed(&format!("006 {text}")));
    }
    files.stop();
}

/// What obol calls the connection is the name of one of its conns, which is closed first.
#[tokio::test]
async fn the_ike_sa_goes_with_the_last_of_its_conns_whichever_that_is() {
    if !is_root() {
        return;
    }
    let files = Files::new(
        "conn hosts-nets\n\talso=hosts\n\tleftsubnet=172.16.1.0/24\n\trightsubnet=172.16.2.0/24\n\n\
         conn hosts\n\tleft=192.168.0.1\n\tleftid=@a\n\tright=192.168.0.2\n\trightid=@b\n\tauthby=secret\n\tauto=add\n",
    );
    let a = &files.bed.lab.a;
    for order in [["hosts", "hosts-nets"], ["hosts-nets", "hosts"]] {
        for (line, counts) in [
            (format!("up {}", order[0]), (1, 1)),
            (format!("up {}", order[1]), (1, 2)),
            (format!("down {}", order[0]), (1, 1)),
            (format!("down {}", order[1]), (0, 0)),
        ] {
            let (code, text) = files.on(a, &line);
            assert_eq!(code, 0, "{line}: {text}");
            let (_, text) = files.on(a, "briefstatus");
            let (ike, children) = (format!("IKE SAs: total({}), *", counts.0), counts.1);
            assert_lines(&text, &[&ike, &format!("IPsec SAs: total({children}), *")]);
        }
    }
    files.stop();
}

#[tokio::test]
async fn a10_without_a_secret_up_says_whose_is_lacking() {
    if !is_root() {
        return;
    }
    let files = Files::new(&CONNS.replace("\tleftid=@a\n", "\tleftid=@other\n"));
    let (code, text) = files.on(&files.bed.lab.a, "up nets");
    assert_eq!(code, 56, "{text}");
    let line = "no shared secret for other and b: add one for these identities on this side";
    assert!(text.contains(line), "{text}");
    files.stop();
}

#[tokio::test]
async fn a14_a_second_daemon_ends_with_ten() {
    if !is_root() {
        return;
    }
    let files = Files::new(CONNS);
    let a = &files.bed.lab.a;
    let rundir = files.bed.lab.directory().join(a.side.name);
    let line = format!(
        "run --ipsec-conf {} --runtime-dir {}",
        files.conf.display(),
        rundir.display()
    );
    let (code, text) = files.bed.run_as(obol(), a, &line, "5");
    assert_eq!(code, 10, "{text}");
    assert!(text.contains("another obol (pid "), "{text}");
    // The first one goes on, and who starts it again has what was asked for.
    assert_eq!(files.on(a, "start").0, 0);
    assert_eq!(files.on(a, "up nets").0, 0);
    files.stop();
}

/// Secrets are read whatever is wrong with the connections by now, and with a mistake in them nothing changes.
#[tokio::test]
async fn secrets_are_read_again_without_a_look_at_connections() {
    if !is_root() {
        return;
    }
    let files = Files::new(CONNS);
    let secrets = files.conf.with_file_name("ipsec.secrets");
    let right = std::fs::read_to_string(&secrets).unwrap();
    std::fs::write(&secrets, "@a @b : PSK \"another one for b\"\n").unwrap();
    let [a, b] = files.hosts();
    let good = std::fs::read_to_string(&files.conf).unwrap();
    std::fs::write(
        &files.conf,
        format!("{good}\nconn more\n\tlefsubnet=10.0.0.0/8\n"),
    )
    .unwrap();
    let (code, text) = files.on(b, "rereadsecrets");
    assert_eq!(code, 0, "{text}");
    let said = format!(
        "forgetting secrets\nloading secrets from \"{}\"\n",
        secrets.display()
    );
    assert_eq!(text, said);
    let (code, text) = files.on(a, "up nets");
    assert_eq!(code, 56, "{text}");
    std::fs::remove_file(&secrets).unwrap();
    let (code, text) = files.on(b, "secrets");
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("ipsec.secrets"), "{text}");
    std::fs::write(&secrets, &right).unwrap();
    std::fs::set_permissions(&secrets, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(files.on(b, "whack --rereadsecrets").0, 0);
    assert_eq!(files.on(a, "up nets").0, 0);
    files.bed.pinged().await;
    std::fs::write(&files.conf, &good).unwrap();
    files.stop();
}

/// Of a file that was edited in several places, what was asked for counts and nothing else; also where it shares its
/// peer with others, and SAs of those stay.
#[tokio::test]
async fn a14_add_after_an_edit_replaces_that_conn_alone() {
    if !is_root() {
        return;
    }
    let files = Files::new(&CONNS.replace("auto=ignore", "auto=add"));
    let [a, _] = files.hosts();
    for host in files.hosts() {
        let (code, text) = files.on(host, "add nets");
        assert_eq!(code, 0, "{text}");
        assert_lines(&text, &["\"nets\": added IKEv2 connection"]);
    }
    assert_eq!(files.on(a, "up nets").0, 0);
    let sa = |text: &str| text.split(',').next().unwrap().to_owned();
    let before = sa(&files.on(a, "trafficstatus nets").1);
    let text = std::fs::read_to_string(&files.conf).unwrap();
    let edited = text
        .replace("rightsubnet=172.16.3.0/24", "rightsubnet=172.16.33.0/24")
        .replace("rightsubnet=172.16.2.0/24", "rightsubnet=172.16.22.0/24");
    std::fs::write(&files.conf, edited).unwrap();
    for host in files.hosts() {
        let (code, text) = files.on(host, "replace later");
        assert_eq!(code, 0, "{text}");
    }
    let (_, text) = files.on(a, "connectionstatus later");
    assert_lines(&text, &["\"later\": *===172.16.33.0/24; unrouted; *"]);
    let (_, text) = files.on(a, "connectionstatus nets");
    assert_lines(&text, &["\"nets\": *===172.16.2.0/24; routed-tunnel; *"]);
    assert_eq!(sa(&files.on(a, "trafficstatus nets").1), before);
    files.bed.pinged().await;
    // It shares the IKE SA, is routed and unrouted, and neither reads the file.
    assert_eq!(files.on(a, "up later").0, 0);
    let (_, text) = files.on(a, "briefstatus");
    assert_lines(&text, &["IKE SAs: total(1), *", "IPsec SAs: total(2), *"]);
    assert_eq!(files.on(a, "down later").0, 0);
    assert_eq!(files.on(a, "route later").0, 0);
    let (_, text) = files.on(a, "connectionstatus later");
    assert_lines(
        &text,
        &["\"later\": *===172.16.33.0/24; routed-ondemand; *"],
    );
    assert_eq!(files.on(a, "unroute later").0, 0);
    let (_, text) = files.on(a, "connectionstatus");
    assert_lines(
        &text,
        &[
            "\"later\": *===172.16.33.0/24; unrouted; *",
            "\"nets\": *===172.16.2.0/24; routed-tunnel; *",
        ],
    );
    files.bed.pinged().await;
    // What cannot be had says why, and what was there goes on.
    let text = std::fs::read_to_string(&files.conf).unwrap();
    let bad = text.replace("\tauto=add", "\tauto=add\n\tsec-label=x");
    std::fs::write(&files.conf, bad).unwrap();
    let (code, text) = files.on(a, "add later");
    assert_eq!(code, 56, "{text}");
    let line = format!(
        "\"later\": failed to add connection: {}:",
        files.conf.display()
    );
    assert!(text.contains(&line) && text.contains("labels"), "{text}");
    assert_eq!(files.on(a, "up later").0, 0);
    files.stop();
}
