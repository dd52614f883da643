//! `setkey --service start` of a host that has just been started, with mistakes in its files. As root; in
//! namespaces.
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

use racoon::{Bed, IN_VAIN, services, talks};
use support::is_root;

/// A host starts with a mistake in one of its files: what the others protect does not wait for that.
#[tokio::test]
async fn a_mistake_in_one_file_opens_nothing_when_a_host_starts() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let _services = services(&bed);
    let more = bed.etc(a).join("ipsec-tools.d/more.conf");
    fs::write(&more, "spdadd 192.168.0.1 192.168.0.2 udp -P out discard\n").unwrap();
    let said = bed.fails(a, "setkey --service start ETC");
    assert!(said.contains("more.conf:1:"), "{said}");
    assert!(said.contains("mend the rest"), "{said}");
    assert!(!talks(a, b, IN_VAIN).await && !talks(b, a, IN_VAIN).await);

    // What holds already is not lost by a mistake.
    let listed = || {
        let listed = bed.does(a, "setkey -DP");
        listed.matches("ipsec\n").count()
    };
    let all = listed();
    assert!(all > 0);
    fs::write(bed.etc(a).join("ipsec-tools.d/mongodb.conf"), "spdadd").unwrap();
    let said = bed.fails(a, "setkey --service restart ETC");
    assert!(said.contains("all is as it was"), "{said}");
    assert_eq!(listed(), all);
}

/// Policies of a start that contradict each other are no reason to let pass what each of them protects.
#[tokio::test]
async fn policies_that_cannot_hold_together_are_dropped_when_a_host_starts() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let _services = services(&bed);
    let path = bed.etc(a).join("ipsec-tools.d/mongodb.conf");
    let policies = fs::read_to_string(&path).unwrap();
    let (one, other) = (
        "-P in ipsec esp/transport//require",
        "-P in ipsec esp/transport//use",
    );
    assert!(policies.contains(one), "{policies}");
    fs::write(&path, policies.replace(one, other)).unwrap();
    let said = bed.fails(a, "setkey --service start ETC");
    assert!(said.contains("mongodb.conf:"), "{said}");
    assert!(said.contains("is dropped until that is mended"), "{said}");
    assert!(!talks(a, b, IN_VAIN).await && !talks(b, a, IN_VAIN).await);
    fs::write(&path, policies).unwrap();
    bed.does(a, "setkey --service restart ETC");
}

/// Files that are gone, as with a package that was purged, are no wish to be without protection.
#[tokio::test]
async fn a_restart_without_scripts_changes_nothing() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let _services = services(&bed);
    bed.does(a, "setkey --service start ETC");
    let listed = bed.does(a, "setkey -DP");
    assert!(listed.contains("ipsec"), "{listed}");
    let directory = bed.etc(a).join("ipsec-tools.d");
    for word in ["restart", "force-reload", "start"] {
        let aside = directory.with_extension("aside");
        fs::rename(&directory, &aside).unwrap();
        let output = bed.run(a, &format!("setkey --service {word} ETC"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("there is no script"), "{said}");
        let policies = |text: &str| {
            text.lines()
                .filter(|line| !line.contains("created"))
                .count()
        };
        assert_eq!(policies(&bed.does(a, "setkey -DP")), policies(&listed));
        assert!(!talks(a, b, IN_VAIN).await && !talks(b, a, IN_VAIN).await);
        fs::rename(&aside, &directory).unwrap();
    }
    bed.does(a, "setkey --service stop ETC");
    assert!(talks(a, b, IN_VAIN).await);
}

/// Scripts find racoon by its file: a second one that cannot run leaves that alone.
#[test]
fn a_second_racoon_leaves_the_first_ones_pid_file() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let a = &bed.lab.a;
    // The file and the directory that are meant by it are the whole system's, but for processes with a /run of
    // their own.
    let script = "\
mount -t tmpfs none /run || exit 9
\"$@\" >/dev/null 2>&1 & first=$!
for i in $(seq 500); do [ -e /run/obol/obol.sock ] && break; sleep 0.02; done
\"$@\" && exit 8
[ \"$(cat /run/racoon.pid)\" = $first ] || exit 7
kill $first && wait $first && [ ! -e /run/racoon.pid ]";
    let racoon = bed.command(a, "racoon -F -f ETC/racoon.conf");
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]);
    command.arg(racoon.get_program()).args(racoon.get_args());
    command
        .env("OBOL_CONFIG", &a.config)
        .env_remove("OBOL_RUNTIME_DIR");
    let output = a.netns.run(|| command.output()).unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another obol (pid"), "{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn the_runtime_directory_that_setkey_makes_is_nobody_elses() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let a = &bed.lab.a;
    assert!(!a.runtime.exists());
    bed.does(a, "setkey -f ETC/ipsec-tools.d/mongodb.conf");
    let mode = fs::metadata(&a.runtime).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
