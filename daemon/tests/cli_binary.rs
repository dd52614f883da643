//! The binary from outside: output, exit codes, and files.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory that goes when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("obol-binary-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn obol(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_obol"))
            .args(line.split_whitespace())
            .current_dir(&self.0)
            .env("OBOL_RUNTIME_DIR", self.0.join("run"))
            .output()
            .unwrap()
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

const HOSTS: &str = include_str!("../examples/hosts.toml");

#[test]
fn check_says_what_a_file_means() {
    let directory = Directory::new("check");
    directory.write("hosts.toml", HOSTS, 0o600);
    let output = directory.obol("check hosts.toml");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for part in [
        "hosts.toml is right",
        "192.168.0.2",
        "psk as hostB.example.com",
        "172.16.2.0/24",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let output = directory.obol("check hosts.toml --json");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["ok"], true);
    let children = document["connections"][0]["children"].as_array().unwrap();
    assert_eq!(children.len(), 3);
    assert_eq!(children[1]["local_ts"][0], "192.168.0.1[tcp/27017]");
}

#[test]
fn check_ends_with_6_and_every_error() {
    let directory = Directory::new("wrong");
    let wrong = HOSTS
        .replace("remote_addrs", "remote_adrs")
        .replace("\"trap\"", "\"trip\"");
    directory.write("hosts.toml", &wrong, 0o600);
    let output = directory.obol("check hosts.toml");
    assert_eq!(output.status.code(), Some(6));
    let shown = text(&output.stderr);
    for part in [
        "hosts.toml:5:1: unknown key `remote_adrs`",
        "hosts.toml:19:16:",
        "hosts.toml:25:16:",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let output = directory.obol("check hosts.toml --json");
    assert_eq!(output.status.code(), Some(6));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["errors"].as_array().unwrap().len(), 3);
    assert_eq!(document["errors"][0]["location"], "hosts.toml:5:1");
}

#[test]
fn check_says_what_policies_of_setkey_mean() {
    let directory = Directory::new("setkey");
    let policies = include_str!("../src/racoon/tests/mongodb.conf");
    directory.write("mongodb.conf", policies, 0o644);
    let output = directory.obol("check mongodb.conf");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.starts_with("mongodb.conf is right\n"), "{shown}");
    assert_eq!(
        shown.matches("through ESP or not at all").count(),
        2,
        "{shown}"
    );
    directory.write(
        "wrong.conf",
        &policies.replace("[27017] tcp", "[27017 tcp"),
        0o644,
    );
    let output = directory.obol("check mongodb.conf wrong.conf --json");
    assert_eq!(output.status.code(), Some(6));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["errors"][0]["location"], "wrong.conf:1:20");
}

#[test]
fn files_of_racoon_become_a_configuration() {
    let directory = Directory::new("racoon");
    let racoon = include_str!("../src/racoon/tests/racoon.conf");
    let policies = include_str!("../src/racoon/tests/mongodb.conf");
    directory.write("racoon.conf", racoon, 0o644);
    directory.write("mongodb.conf", policies, 0o644);
    directory.write("psk.txt", "* a secret that all of them share\n", 0o600);
    let output = directory.obol("convert racoon.conf mongodb.conf psk.txt");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let notices = text(&output.stderr);
    let first = notices.lines().next().unwrap();
    assert!(first.ends_with("all nodes move together"), "{first}");
    assert!(notices.contains("racoon.conf:33:15: modp1024"), "{notices}");
    let native = text(&output.stdout);
    assert!(!native.contains("share"), "{native}");
    directory.write("obol.toml", &native, 0o600);
    let output = directory.obol("check obol.toml");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    let meaning = text(&output.stdout);
    let output = directory.obol("check racoon.conf mongodb.conf psk.txt");
    let connections = meaning.split_once("\n\n").unwrap().1;
    assert!(text(&output.stdout).ends_with(connections), "{meaning}");

    for line in [
        "convert racoon.conf",
        "convert mongodb.conf",
        "convert racoon.conf obol.toml",
    ] {
        let output = directory.obol(line);
        assert_eq!(output.status.code(), Some(6), "{line}");
        assert!(output.stdout.is_empty(), "{line}");
    }
    let broken = racoon.replace("dh_group modp2048", "dh_group modp");
    directory.write("racoon.conf", &broken, 0o644);
    let output = directory.obol("convert racoon.conf mongodb.conf psk.txt");
    assert_eq!(output.status.code(), Some(6));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).contains("racoon.conf:23:18: \"modp\" syntax error"));
}

#[test]
fn keys_that_keygen_makes_are_keys_that_check_reads() {
    let directory = Directory::new("keygen");
    let output = directory.obol("keygen --out own.key --public-out own.pub");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(mode(&directory.0.join("own.key")), 0o600);
    assert_eq!(mode(&directory.0.join("own.pub")), 0o644);
    let openssh = directory.obol("keygen --show own.key --format openssh");
    let openssh = text(&openssh.stdout);
    assert!(openssh.starts_with("ssh-ed25519 "), "{openssh}");
    for peer in ["own.pub", openssh.trim()] {
        let config = format!(
            "[connections.c]
local_addrs = [\"192.168.0.1\"]
remote_addrs = [\"192.168.0.2\"]
local = {{ auth = \"pubkey\", id = \"@a\" }}
remote = {{ auth = \"pubkey\", id = \"@b\", pubkeys = [\"{peer}\"] }}
[connections.c.children.hosts]
[secrets.own]
type = \"private-key\"
file = \"own.key\"
"
        );
        directory.write("c.toml", &config, 0o644);
        let output = directory.obol("check c.toml");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("pubkey as b"));
    }
}

#[test]
fn keygen_overwrites_only_by_force() {
    let directory = Directory::new("force");
    let key = directory.0.join("a.psk");
    assert!(directory.obol("keygen --psk --out a.psk").status.success());
    let first = fs::read(&key).unwrap();
    let output = directory.obol("keygen --psk --out a.psk");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--force"));
    assert_eq!(fs::read(&key).unwrap(), first);
    assert!(
        directory
            .obol("keygen --psk --out a.psk --force")
            .status
            .success()
    );
    let second = fs::read(&key).unwrap();
    assert_ne!(second, first);
    assert_eq!(second.len(), first.len());
    assert_eq!(mode(&key), 0o600);
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1);
}

#[test]
fn without_a_daemon_questions_end_with_3() {
    let directory = Directory::new("nobody");
    for line in [
        "status",
        "list",
        "reload",
        "up hosts",
        "down hosts",
        "status --json",
    ] {
        let output = directory.obol(line);
        assert_eq!(output.status.code(), Some(3), "{line}");
        assert!(text(&output.stderr).contains("no daemon runs"), "{line}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn wrong_lines_end_with_2_and_help_with_0() {
    let directory = Directory::new("usage");
    assert_eq!(directory.obol("fly").status.code(), Some(2));
    assert_eq!(directory.obol("up --help").status.code(), Some(0));
    let version = directory.obol("version");
    assert_eq!(
        text(&version.stdout),
        format!("obol {}\n", env!("CARGO_PKG_VERSION"))
    );
}
