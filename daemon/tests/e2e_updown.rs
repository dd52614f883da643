//! Scripts of `leftupdown`: what they are told, and that they hold up nothing. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]
#![expect(dead_code, reason = "what tests share, they do not all use")]

#[path = "support/daemons.rs"]
mod daemons;
#[path = "support/pluto.rs"]
mod pluto;
mod support;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use daemons::{LIMIT, PATIENCE, assert_only_protected, installed, run, succeeds};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, Lab, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::ping;
use pluto::{log, run_from, write};
use support::{is_root, obol};

/// The same file on both hosts: each has its own end's script, and one connection has pluto's.
const CONF: &str = "\
conn %default
  left=192.168.0.1
  leftid=@a
  right=192.168.0.2
  rightid=\"b';touch${IFS}INJECTED;'@example.com\"
  authby=secret

conn nets
  leftsubnet=172.16.1.0/24
  rightsubnet=172.16.2.0/24
  leftupdown=SCRIPT
  rightupdown=\"sleep 15\"
  auto=start

conn trapped
  leftprotoport=tcp/7
  rightprotoport=tcp
  leftupdown=\"echo trapped $PLUTO_VERB $PLUTO_PEER_ID >>TRACE; false\"
  rightupdown=\"ipsec _updown\"
  auto=ondemand

conn quiet
  leftprotoport=tcp/9
  rightprotoport=tcp
  leftupdown=%disabled
  auto=add
";

const SCRIPT: &str = "#!/bin/sh
{ echo; env; ls -l /proc/self/fd; } >>TRACE
exec IPSEC _updown
";

fn lab() -> Lab {
    let mut lab = Lab::new(obol(), None).unwrap();
    let directory = lab.directory().to_owned();
    let path = |name: &str| directory.join(name).display().to_string();
    std::os::unix::fs::symlink(obol(), path("ipsec")).unwrap();
    let fill = |text: &str| {
        text.replace("SCRIPT", &path("updown.sh"))
            .replace("TRACE", &path("trace"))
            .replace("INJECTED", &path("injected"))
            .replace("IPSEC", &path("ipsec"))
    };
    for (name, text, mode) in [
        ("ipsec.conf", CONF, 0o644),
        ("updown.sh", SCRIPT, 0o755),
        ("ipsec.secrets", ": PSK \"a secret of the two\"\n", 0o600),
    ] {
        write(&directory.join(name), &fill(text), mode);
    }
    for host in [&mut lab.a, &mut lab.b] {
        run_from(host, &directory);
    }
    lab
}

/// What the script was told, each time.
fn told(directory: &Path) -> Vec<HashMap<String, String>> {
    let text = fs::read_to_string(directory.join("trace")).unwrap_or_default();
    let blocks = text.split("\n\n").map(str::trim);
    let read = |block: &str| {
        let lines = block.lines().filter_map(|line| line.split_once('='));
        let pairs = lines.map(|(name, value)| (name.to_owned(), value.to_owned()));
        pairs.collect::<HashMap<_, _>>()
    };
    let all = blocks.map(read);
    all.filter(|told| told.contains_key("PLUTO_VERB")).collect()
}

fn verbs(directory: &Path) -> Vec<String> {
    let told = told(directory).into_iter();
    told.filter_map(|mut told| told.remove("PLUTO_VERB"))
        .collect()
}

async fn until(what: &str, host: &mut Host, mut wanted: impl FnMut(&Host) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !wanted(host) {
        let log = log(host);
        assert!(Instant::now() < deadline && host.runs(), "{what}: {log}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn scripts_are_told_and_nothing_waits_for_them() {
    if !is_root() {
        return;
    }
    let mut lab = lab();
    let directory = lab.directory().to_owned();
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    // One after the other: where both begin at once, one of two SAs goes, of which a script is told.
    for host in [&mut lab.b, &mut lab.a] {
        host.start().unwrap();
        until("ready", host, |host| log(host).contains(" ready ")).await;
    }
    // On B a script hangs all the time.
    for host in [&mut lab.a, &mut lab.b] {
        until("up", host, |host| {
            run(host, &["status", "nets"]).status.success()
        })
        .await;
    }
    let deadline = Instant::now() + LIMIT;
    let (a, b) = (&lab.a, &lab.b);
    ping(&a.netns, a.side.pod, b.side.pod, PATIENCE, deadline)
        .await
        .unwrap();
    let expected = ["prepare-client", "route-client", "up-client"];
    until("told", &mut lab.a, |_| verbs(&directory) == expected).await;
    let last = told(&directory).pop().unwrap();
    let id = "b\\047\\073touch\\044\\173IFS\\175INJECTED\\073\\047@example.com";
    let id = id.replace(
        "INJECTED",
        &directory.join("injected").display().to_string(),
    );
    for (name, value) in [
        ("PLUTO_CONNECTION", "nets"),
        ("PLUTO_INTERFACE", "wire0"),
        ("PLUTO_ME", "192.168.0.1"),
        ("PLUTO_MY_ID", "@a"),
        ("PLUTO_MY_CLIENT", "172.16.1.0/24"),
        ("PLUTO_PEER", "192.168.0.2"),
        ("PLUTO_PEER_ID", &id),
        ("PLUTO_PEER_CLIENT", "172.16.2.0/24"),
        ("PLUTO_PEER_CLIENT_NET", "172.16.2.0"),
        ("PLUTO_PEER_CLIENT_MASK", "255.255.255.0"),
        ("PLUTO_STACK", "userspace"),
        ("PLUTO_SA_TYPE", "ESP"),
        ("PWD", "/"),
    ] {
        assert_eq!(last.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_ne!(last["SPI_IN"], "0x0");
    assert!(!last.contains_key("OBOL_RUNTIME_DIR") && !last.contains_key("HOME"));

    // No socket or device of the daemon is open in it.
    let text = fs::read_to_string(directory.join("trace")).unwrap();
    assert!(
        text.contains(" -> /proc/") && !text.contains("socket:"),
        "{text}"
    );
    assert!(
        !text.contains("/dev/net/tun") && !text.contains("anon_inode"),
        "{text}"
    );

    // What is trapped has a script in a shell, which fails each time.
    let trapped = || {
        let text = fs::read_to_string(directory.join("trace")).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("trapped "));
        lines
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(trapped(), ["prepare-host", "route-host"]);
    let failed = "updown script failed: exit status: 1";
    assert_eq!(log(&lab.a).matches(failed).count(), 2, "{}", log(&lab.a));
    assert!(
        log(&lab.a).contains("verb=\"route-host\""),
        "{}",
        log(&lab.a)
    );
    assert!(!directory.join("injected").exists());
    assert!(
        log(&lab.b).contains("rightupdown has no effect"),
        "{}",
        log(&lab.b)
    );

    // Down and up again, and its script taken away by a reload.
    succeeds(&lab.a, &["down", "nets"]);
    // Or it begins anew by itself, at about the time when this host is told to.
    run(&lab.b, &["down", "nets"]);
    until("down", &mut lab.a, |_| verbs(&directory).len() == 5).await;
    assert_eq!(verbs(&directory)[3..], ["down-client", "unroute-client"]);
    succeeds(&lab.a, &["up", "nets"]);
    until("up again", &mut lab.a, |_| verbs(&directory).len() == 8).await;
    let conf = directory.join("ipsec.conf");
    let text = fs::read_to_string(&conf).unwrap();
    let script = format!("leftupdown={}", directory.join("updown.sh").display());
    fs::write(
        &conf,
        text.replace(&script, "leftupdown=/nonexistent/script"),
    )
    .unwrap();
    succeeds(&lab.a, &["reload"]);
    until("replaced", &mut lab.a, |host| {
        log(host)
            .matches("updown script cannot be run: No such file")
            .count()
            == 3
    })
    .await;
    assert_eq!(verbs(&directory)[8..], ["down-client", "unroute-client"]);
    assert!(installed(&lab.a.status().await.unwrap()).contains(&"nets".to_owned()));
    assert_only_protected(&capture).await;
    // Nor does the end wait for long.
    assert!(lab.b.stop(2 * LIMIT).await.unwrap().success());
}
