//! What becomes of protection when a unit is stopped, restarted or cannot start again: by what the unit itself
//! has run, with a systemd that is a script. As root; in namespaces.
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

use std::fs;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use daemons::{LIMIT, PATIENCE};
use obol_daemon::demo::capture::{Capture, Seen};
use obol_daemon::demo::lab::{Host, Lab, SERVICE, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::{converse, ping};
use pluto::{log, run_from, write};
use support::{Snapshot, is_root, obol};

const CONF: &str = "\
conn mongodb
  left=192.168.0.1
  leftid=@a
  right=192.168.0.2
  rightid=@b
  authby=secret
  auto=start

conn nets
  also=mongodb
  leftsubnet=172.16.1.0/24
  rightsubnet=172.16.2.0/24
";

/// What obol does not know.
const WRONG: &str = "\nconn more\n  lefsubnet=10.0.0.0/8\n";

/// How long is waited for what must not come.
const IN_VAIN: Duration = Duration::from_millis(700);

/// Hosts that run from pluto's files, and a `systemctl` that tells of these jobs.
struct Bed {
    lab: Lab,
    directory: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let mut lab = Lab::new(obol(), None).unwrap();
        let directory = lab.directory().to_owned();
        write(&directory.join("ipsec.conf"), CONF, 0o644);
        let secrets = directory.join("ipsec.secrets");
        write(&secrets, "@a @b : PSK \"a secret of the two\"\n", 0o600);
        for host in [&mut lab.a, &mut lab.b] {
            run_from(host, &directory);
        }
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = list-jobs ] && exec cat {}/jobs\nexit 1\n",
            directory.display()
        );
        write(&directory.join("systemctl"), &script, 0o755);
        Self { lab, directory }
    }

    /// Starts both, and waits until a packet gets through.
    async fn started(&mut self) {
        for host in [&mut self.lab.a, &mut self.lab.b] {
            host.start().unwrap();
        }
        self.pinged().await;
    }

    async fn pinged(&self) {
        let (a, b) = (&self.lab.a, &self.lab.b);
        let deadline = Instant::now() + LIMIT;
        let done = ping(&a.netns, a.side.pod, b.side.pod, PATIENCE, deadline).await;
        done.unwrap_or_else(|error| panic!("{error}\n{}", log(a)));
    }

    /// Has the first host do what the unit says it does when it ends, while systemd has these jobs.
    fn exec_stop(&self, jobs: Option<&str>) -> Output {
        match jobs {
            Some(jobs) => fs::write(self.directory.join("jobs"), jobs).unwrap(),
            None => fs::remove_file(self.directory.join("jobs")).unwrap_or_default(),
        }
        let path = format!("{}/systemd/ipsec.service", env!("CARGO_MANIFEST_DIR"));
        let unit = fs::read_to_string(path).unwrap();
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStop=/usr/bin/obol "));
        let line = line.unwrap().replace("%n", "ipsec.service");
        let words: Vec<&str> = line.split(' ').collect();
        let output = self.on_a(self.lab.a.command(&words));
        assert!(output.status.success(), "{output:?}");
        output
    }

    fn on_a(&self, mut command: Command) -> Output {
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.directory.display()));
        self.lab.a.netns.run(|| command.output()).unwrap().unwrap()
    }

    /// What is on the wire while the first host tries in vain to reach the other.
    async fn tried(&self) -> Seen {
        let (a, b) = (&self.lab.a, &self.lab.b);
        let capture = Capture::start(&a.netns, WIRE, protected()).unwrap();
        let deadline = Instant::now() + IN_VAIN;
        let answered = ping(&a.netns, a.side.pod, b.side.pod, PATIENCE, deadline).await;
        let service = SocketAddrV4::new(b.side.address, SERVICE);
        let met = converse(&a.netns, a.side.address, service, IN_VAIN).await;
        assert!(answered.is_err() && met.is_err());
        all_of(&capture)
    }
}

/// What was on the wire until then.
fn all_of(capture: &Capture) -> Seen {
    let deadline = Instant::now() + LIMIT;
    while capture.missed().unwrap() > 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    capture.seen()
}

/// `systemctl stop` is on purpose; nothing else opens anything.
#[tokio::test]
async fn only_a_plain_stop_of_the_unit_lifts_the_protection() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    let before = Snapshot::of(&bed.lab.a.netns);
    bed.started().await;
    for jobs in [
        Some("71 ipsec.service restart running\n"),
        Some("71 ipsec.service stop running\n80 shutdown.target start waiting\n"),
        Some("71 ipsec.service stop running\n80 obol.service start waiting\n"),
        // It has ended by itself, without an error.
        Some("80 other.service stop running\n"),
        Some(""),
        None,
    ] {
        let output = bed.exec_stop(jobs);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("nothing is lifted"), "{jobs:?}: {said}");
        assert!(bed.lab.a.runs(), "{jobs:?}");
    }
    bed.lab.a.stop(LIMIT).await.unwrap();
    bed.exec_stop(Some("71 ipsec.service restart running\n"));
    assert_eq!(bed.tried().await.clear, 0);
    bed.exec_stop(Some("71 ipsec.service stop running\n"));
    assert!(bed.tried().await.clear > 0);
    assert_eq!(Snapshot::of(&bed.lab.a.netns), before);
}

/// What a restart with a broken file leaves: no daemon, and nothing in clear, also after a try more.
#[tokio::test]
async fn a_broken_file_at_a_restart_leaves_what_was_protected_blocked_and_says_so() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    bed.started().await;
    let conf = bed.directory.join("ipsec.conf");
    fs::write(&conf, format!("{CONF}{WRONG}")).unwrap();
    bed.exec_stop(Some("71 ipsec.service restart running\n"));
    bed.lab.a.stop(LIMIT).await.unwrap();
    let arguments: Vec<&str> = bed.lab.a.arguments.iter().map(String::as_str).collect();
    let output = bed.on_a(bed.lab.a.command(&[&["run"], &arguments[..]].concat()));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{said}");
    let line = "what was protected before stays so: it is dropped until a daemon runs";
    assert!(said.contains("lefsubnet") && said.contains(line), "{said}");
    assert_eq!(bed.tried().await.clear, 0);
    fs::write(&conf, CONF).unwrap();
    bed.lab.a.start().unwrap();
    bed.pinged().await;
}

/// The example of the README names addresses; at a boot they may come after the daemon.
#[tokio::test]
async fn an_address_that_is_not_there_yet_is_waited_for_behind_closed_doors() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(obol(), None).unwrap();
    let ip = |host: &Host, words: &str| {
        let mut command = Command::new("ip");
        command.args(words.split(' '));
        let output = host.netns.run(|| command.output()).unwrap().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    ip(&lab.a, &format!("address del 192.168.0.1/24 dev {WIRE}"));
    lab.b.start().unwrap();
    let a = &mut lab.a;
    a.start().unwrap();
    let deadline = Instant::now() + LIMIT;
    while a.status().await.is_err() {
        assert!(a.runs() && Instant::now() < deadline, "{}", log(a));
        tokio::task::yield_now().await;
    }
    let text = log(a);
    assert!(
        text.contains("192.168.0.1 is not an address of this host: its connections wait"),
        "{text}"
    );
    let way = ip(a, "route get 172.16.2.1 from 172.16.1.1");
    assert!(way.contains("dev obol0"), "{way}");
    let mut reload = a.command(&["reload"]);
    let (code, text) = said(a.netns.run(|| reload.output()).unwrap().unwrap());
    assert_eq!(code, 0, "it keeps nothing from being changed: {text}");
    ip(a, &format!("address add 192.168.0.1/24 dev {WIRE}"));
    let (a, b) = (&lab.a, &lab.b);
    let done = ping(&a.netns, a.side.pod, b.side.pod, PATIENCE, deadline).await;
    done.unwrap_or_else(|error| panic!("{error}\n{}", log(a)));
}

#[test]
fn units_start_a_daemon_again_without_end() {
    for unit in ["obol", "ipsec", "racoon"] {
        let path = format!("{}/systemd/{unit}.service", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).unwrap();
        let value = |key: &str| {
            let mut found = text.lines().filter_map(|line| line.strip_prefix(key));
            found.next().map(str::to_owned)
        };
        // 1 is what the system refuses, perhaps for a while.
        let ends = value("RestartPreventExitStatus=").unwrap();
        let mut ends = ends.split(' ').map(|code| code.parse().unwrap());
        assert!(ends.all(|end: i32| end != 1), "{unit}");
        assert_eq!(value("Restart=").as_deref(), Some("on-failure"), "{unit}");
        // Else some quick failures in a row are the end.
        let before = text.split("[Service]").next().unwrap();
        assert!(before.contains("\nStartLimitIntervalSec=0\n"), "{unit}");
    }
}

/// `ipsec` with this word on the first host, as without systemd; other tasks go on meanwhile.
async fn ipsec(bed: &Bed, word: &str) -> (i32, String) {
    let a: &Host = &bed.lab.a;
    let mut command = Command::new(obol());
    command.args(["ipsec", word, "--rundir"]).arg(&a.runtime);
    let conf = bed.directory.join("ipsec.conf");
    command.arg("--config").arg(conf);
    let netns = a.netns.clone();
    let run = move || netns.run(|| command.output()).unwrap().unwrap();
    said(tokio::task::spawn_blocking(run).await.unwrap())
}

/// Exit code, and what was printed.
fn said(output: Output) -> (i32, String) {
    let text = [output.stdout, output.stderr].concat();
    let code = output.status.code().unwrap();
    (code, String::from_utf8(text).unwrap())
}

/// Under traffic: a capture sees nothing of it in clear.
#[tokio::test]
async fn ipsec_restart_has_no_gap_and_a_broken_file_ends_nothing() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    let conf = format!(
        "config setup\n  secretsfile={}\n\n{CONF}",
        bed.directory.join("ipsec.secrets").display()
    );
    write(&bed.directory.join("ipsec.conf"), &conf, 0o644);
    bed.lab.b.start().unwrap();
    assert_eq!(ipsec(&bed, "start").await.0, 0);
    bed.pinged().await;
    let capture = Capture::start(&bed.lab.a.netns, WIRE, protected()).unwrap();
    let (a, b) = (bed.lab.a.netns.clone(), bed.lab.b.side);
    let (pod, address) = (bed.lab.a.side.pod, bed.lab.a.side.address);
    let traffic = tokio::spawn(async move {
        let service = SocketAddrV4::new(b.address, SERVICE);
        let patience = Duration::from_millis(10);
        loop {
            let deadline = Instant::now() + patience;
            let _ = ping(&a, pod, b.pod, patience, deadline).await;
            let _ = converse(&a, address, service, patience).await;
        }
    });
    let pid = async |bed: &Bed| bed.lab.a.status().await.unwrap()["daemon"]["pid"].clone();
    let first = pid(&bed).await;
    for word in ["restart", "condrestart"] {
        let (code, text) = ipsec(&bed, word).await;
        assert_eq!(code, 0, "{text}");
    }
    let second = pid(&bed).await;
    assert_ne!(first, second);
    write(
        &bed.directory.join("ipsec.conf"),
        &format!("{conf}{WRONG}"),
        0o644,
    );
    let mut other = Command::new(obol());
    other
        .args(["ipsec", "restart", "--rundir"])
        .arg(&bed.lab.a.runtime);
    let (code, text) = said(bed.lab.a.netns.run(|| other.output()).unwrap().unwrap());
    assert!(code != 0 && text.contains("would take its place"), "{text}");
    let (code, text) = ipsec(&bed, "restart").await;
    assert_eq!(code, 3, "{text}");
    let line = "nothing was restarted: all runs on as before";
    assert!(text.contains("lefsubnet") && text.contains(line), "{text}");
    assert_eq!(pid(&bed).await, second);
    bed.pinged().await;
    traffic.abort();
    let seen = all_of(&capture);
    assert_eq!(seen.clear, 0, "{seen:?}");
    assert_eq!(ipsec(&bed, "stop").await.0, 0);
    assert!(bed.tried().await.clear > 0);
}

/// A daemon that has the directory and does not listen yet may have set up what it is to protect.
#[test]
fn what_a_beginning_daemon_sets_up_is_not_taken_away() {
    if !is_root() {
        return;
    }
    let lab = Lab::new(obol(), None).unwrap();
    let a = &lab.a;
    fs::create_dir(&a.runtime).unwrap();
    let lock = fs::File::create(a.runtime.join("obol.pid")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let run = |words: &[&str]| a.netns.run(|| a.command(words).output()).unwrap().unwrap();
    for (words, why) in [
        (&["purge"][..], "or begins"),
        (&["down", "--all", "--timeout", "300ms"], "begins or ends"),
    ] {
        let output = run(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains(why), "{words:?}: {said}");
    }
    drop(lock);
    assert!(run(&["down", "--all"]).status.success() && run(&["purge"]).status.success());
}

/// As `obol migrate` leaves it where the unit is Libreswan's yet: systemd knows nothing of the daemon.
#[tokio::test]
async fn ipsec_stop_means_the_daemon_that_runs_whoever_started_it() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    let script = format!(
        "#!/bin/sh\necho \"$*\" >>{0}/trace\ncase \"$*\" in *MainPID*) cat {0}/main ;; esac\n",
        bed.directory.display()
    );
    write(&bed.directory.join("systemctl"), &script, 0o755);
    // A system that systemd has started, for this process alone.
    let ipsec = |bed: &Bed, word: &str| {
        let systemd = "mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", systemd, "sh"]);
        command.arg(obol()).args(["ipsec", word]);
        command.env("OBOL_RUNTIME_DIR", &bed.lab.a.runtime);
        said(bed.on_a(command))
    };
    bed.lab.a.start().unwrap();
    let deadline = Instant::now() + LIMIT;
    while bed.lab.a.status().await.is_err() {
        assert!(bed.lab.a.runs() && Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let pid = bed.lab.a.status().await.unwrap()["daemon"]["pid"].clone();
    // The unit's own: systemd does it.
    write(&bed.directory.join("main"), &format!("{pid}\n"), 0o644);
    let (code, text) = ipsec(&bed, "stop");
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("Redirecting to: systemctl stop ipsec.service"),
        "{text}"
    );
    assert!(bed.lab.a.runs());
    write(&bed.directory.join("main"), "0\n", 0o644);
    let (code, text) = ipsec(&bed, "stop");
    assert_eq!((code, text.as_str()), (0, ""));
    while bed.lab.a.runs() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let trace = fs::read_to_string(bed.directory.join("trace")).unwrap();
    assert_eq!(trace.matches("stop ipsec.service").count(), 1, "{trace}");
}
