//! The story of those who protect MongoDB with racoon, on three hosts with their files: a server and
//! real clients on each, behind a firewall that lets UDP 500 and ESP pass. As root; in namespaces.
//!
//! The story itself is `interop/racoon/story.sh`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[expect(dead_code, reason = "other tests need more of it")]
mod support;

use std::env;
use std::process::Command;
use support::{is_root, obol};

#[test]
fn a_replica_set_writes_and_reads_by_esp_alone() {
    if !is_root() {
        return;
    }
    let own = obol().parent().unwrap().to_owned();
    let path = env::join_paths(
        std::iter::once(own).chain(env::split_paths(&env::var_os("PATH").unwrap())),
    );
    let story = concat!(env!("CARGO_MANIFEST_DIR"), "/../interop/racoon/story.sh");
    let mut command = Command::new(story);
    command
        .env("PATH", path.unwrap())
        .env("PLANE", "userspace")
        .env_remove("OBOL_RUNTIME_DIR");
    let output = command.output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
    assert!(report.ends_with("\n0 failures\n"));
}
