//! The daemon as a service: what it tells systemd, and how little its units let it do.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/daemons.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod daemons;
#[allow(dead_code, reason = "each test uses its part of it")]
mod support;

use daemons::LIMIT;
use obol_daemon::demo::lab::Lab;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use support::{is_root, obol};

/// What the daemon tells next that is not only a sign of life.
fn told(socket: &UnixDatagram) -> Vec<String> {
    loop {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap();
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines != ["WATCHDOG=1"] {
            return lines;
        }
    }
}

#[test]
fn systemd_is_told_when_it_is_ready_reads_again_lives_and_ends() {
    if !is_root() {
        return;
    }
    let lab = Lab::new(obol(), None).unwrap();
    let path = lab.directory().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut daemon = lab.a.command(&["run"]);
    daemon
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "40000")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut daemon = lab.a.netns.run(|| daemon.spawn()).unwrap().unwrap();
    assert_eq!(told(&socket), ["READY=1", "STATUS=1 connections"]);
    // Signs of life, which nothing else brings about.
    for _ in 0..5 {
        let mut message = [0; 64];
        let length = socket.recv(&mut message).unwrap();
        assert_eq!(message[..length].trim_ascii_end(), b"WATCHDOG=1");
    }
    let mut reload = lab.a.command(&["reload"]);
    let reloaded = lab.a.netns.run(|| reload.output()).unwrap().unwrap();
    assert!(reloaded.status.success());
    let reloading = told(&socket);
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(reloading[1].starts_with("MONOTONIC_USEC="), "{reloading:?}");
    assert_eq!(told(&socket), ["READY=1", "STATUS=1 connections"]);
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&daemon),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let stopping = told(&socket);
    assert_eq!(stopping[0], "STOPPING=1");
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn units_leave_little_exposed() {
    let known = Command::new("systemd-analyze").arg("--version").output();
    if !known.is_ok_and(|known| known.status.success()) {
        println!("skipped: no systemd-analyze");
        return;
    }
    for unit in ["obol", "ipsec", "racoon", "setkey"] {
        let path = format!("{}/systemd/{unit}.service", env!("CARGO_MANIFEST_DIR"));
        let judged = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=25", &path])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&judged.stdout).into_owned();
        assert!(judged.status.success(), "{text}");
    }
}
