//! What keeps a daemon from starting: one clear error, the right exit code, and nothing left
//! behind. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

mod support;

use obol_daemon::demo::lab::{Host, Lab};
use std::net::UdpSocket;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use support::{Snapshot, is_root, obol};

const FAILED: i32 = 1;
const NOT_RUNNING: i32 = 3;
const NOT_PERMITTED: i32 = 7;
const ALREADY_RUNS: i32 = 10;

/// Runs a command in the host's namespace.
fn run(host: &Host, mut command: Command) -> Output {
    host.netns.run(|| command.output()).unwrap().unwrap()
}

/// One line of error that contains all these words, this exit code, and a host as it was.
fn assert_refused(host: &Host, command: Command, code: i32, words: &[&str]) {
    let before = Snapshot::of(&host.netns);
    let output = run(host, command);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
    let errors = error
        .lines()
        .filter(|line| line.starts_with("obol: "))
        .count();
    assert_eq!(errors, 1, "{error}");
    assert_eq!(Snapshot::of(&host.netns), before, "{error}");
}

#[test]
fn a_taken_port_is_named() {
    if !is_root() {
        return;
    }
    let lab = Lab::new(obol(), None).unwrap();
    for port in [500, 4500] {
        let taken = lab
            .a
            .netns
            .run(|| UdpSocket::bind(("0.0.0.0", port)).unwrap())
            .unwrap();
        let words = [port.to_string(), std::process::id().to_string()];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_refused(&lab.a, lab.a.command(&["run"]), FAILED, &words);
        drop(taken);
    }
}

#[test]
fn an_address_of_another_host_is_named_with_its_place() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(obol(), None).unwrap();
    lab.a.start().unwrap();
    wait_until_ready(&mut lab.a);
    let text = std::fs::read_to_string(&lab.a.config).unwrap();
    std::fs::write(&lab.a.config, text.replace("192.168.0.1", "192.168.0.9")).unwrap();
    let place = format!("{}:2", lab.a.config.display());
    assert_refused(
        &lab.a,
        lab.a.command(&["reload"]),
        FAILED,
        &["192.168.0.9", &place],
    );
    assert!(lab.a.runs());
}

#[test]
fn a_second_daemon_leaves_the_first_alone() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(obol(), None).unwrap();
    lab.a.start().unwrap();
    wait_until_ready(&mut lab.a);
    let runtime = lab.a.runtime.display().to_string();
    assert_refused(&lab.a, lab.a.command(&["run"]), ALREADY_RUNS, &[&runtime]);
    assert_refused(&lab.a, lab.a.command(&["purge"]), FAILED, &[&runtime]);
    assert!(lab.a.runs());
    assert!(run(&lab.a, lab.a.command(&["status"])).status.success());
}

#[test]
fn without_a_daemon_the_commands_say_so() {
    if !is_root() {
        return;
    }
    let lab = Lab::new(obol(), None).unwrap();
    for arguments in [&["status"][..], &["list"], &["reload"], &["up", "hosts"]] {
        assert_refused(&lab.a, lab.a.command(arguments), NOT_RUNNING, &["run"]);
    }
}

#[test]
fn an_ordinary_user_is_told_what_is_missing() {
    if !is_root() {
        return;
    }
    let lab = Lab::new(obol(), None).unwrap();
    // The program may be below a directory that only root can enter.
    let directory = lab.directory();
    let program = directory.join("obol");
    // Another process writes the copy: a child that a neighbouring test forks meanwhile would
    // inherit this process's open file, and a file that is open for writing cannot be run.
    let copied = Command::new("cp").arg(obol()).arg(&program).status();
    assert!(copied.unwrap().success());
    for path in [directory, &lab.a.config, &program] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let as_nobody = || {
        let mut command = Command::new(&program);
        command.uid(NOBODY).gid(NOBODY);
        command
            .arg("--config")
            .arg(&lab.a.config)
            .arg("--runtime-dir")
            .arg(&lab.a.runtime);
        command
    };
    for command in ["run", "purge", "demo"] {
        let mut obol = as_nobody();
        obol.arg(command);
        assert_refused(&lab.a, obol, NOT_PERMITTED, &["root"]);
    }
    assert!(as_nobody().arg("check").output().unwrap().status.success());
}

#[test]
fn a_missing_or_forbidden_tun_is_named() {
    if !is_root() {
        return;
    }
    let lab = Lab::new(obol(), None).unwrap();
    let cases = [
        ("true", FAILED, "cannot open /dev/net/tun"),
        (
            "mknod /dev/net/tun c 10 200",
            NOT_PERMITTED,
            "--device /dev/net/tun",
        ),
    ];
    for (change, code, words) in cases {
        let command = with_other_dev_net(&lab.a.command(&["run"]), change);
        assert_refused(&lab.a, command, code, &[words]);
    }
}

#[test]
fn startup_refuses_when_enforcement_cannot_be_installed() {
    if !is_root() {
        return;
    }
    let lab = Lab::new(obol(), None).unwrap();
    let inner = lab.a.command(&["run"]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-all"]);
    command.arg(inner.get_program()).args(inner.get_args());
    assert_refused(&lab.a, command, NOT_PERMITTED, &["CAP_NET_ADMIN"]);
}

/// The command as it runs where /dev/net is empty but for what `change` puts there, which no
/// one may open: a file system without devices.
fn with_other_dev_net(inner: &Command, change: &str) -> Command {
    let script = format!("mount -t tmpfs -o nodev none /dev/net && {change} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

/// The user `nobody` has this number everywhere.
const NOBODY: u32 = 65534;

fn wait_until_ready(host: &mut Host) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !run(host, host.command(&["status"])).status.success() {
        let log = std::fs::read_to_string(&host.log).unwrap_or_default();
        assert!(host.runs() && Instant::now() < deadline, "{log}");
    }
}
