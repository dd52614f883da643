//! `obol migrate` from a pluto that is a script: what it does in which order, and that it goes back. As
//! root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]
#![expect(dead_code, reason = "what tests share, they do not all use")]

#[path = "support/daemons.rs"]
mod daemons;
mod support;

use std::fs;
use std::net::SocketAddrV4;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daemons::{LIMIT, PATIENCE, run};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, Lab, SERVICE, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::{converse, ping};
use support::{Snapshot, is_root, obol};

const CONF: &str = "\
config setup
  secretsfile=SECRETS

conn nets
  left=192.168.0.1
  leftid=@a
  leftsubnet=172.16.1.0/24
  right=192.168.0.2
  rightid=@b
  rightsubnet=172.16.2.0/24
  authby=secret
  auto=add
";

/// How long is waited for what must not come.
const IN_VAIN: Duration = Duration::from_secs(1);
/// How often something is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// What a shell called pluto does: it runs until it is told to end.
const PLUTO: &str = "\
echo pluto begins >>DIR/trace
mkdir -p DIR/pluto-run
[ ! -e DIR/broken ] || exit 1
[ -e DIR/slow ] || [ -e DIR/brief ] || touch DIR/up
echo $$ >DIR/pluto-run/pluto.pid
trap 'rm -f DIR/up DIR/pluto-run/pluto.pid; echo pluto ends >>DIR/trace; exit 0' TERM
[ ! -e DIR/brief ] || { sleep 0.2; rm DIR/pluto-run/pluto.pid; exit 0; }
[ ! -e DIR/slow ] || { sleep 2; touch DIR/up; }
while :; do sleep 0.02; done
";

/// pluto's client.
const IPSEC: &str = "#!/bin/sh
echo \"ipsec $*\" >>DIR/trace
case \"$*\" in
'whack --trafficstatus') [ ! -e DIR/clients ] || cat DIR/clients; [ ! -e DIR/up ] || echo '006 #2: \"nets\", type=ESP, add_time=1, inBytes=0, outBytes=0, id='\"'@b'\" ;;
'whack --status') [ ! -e DIR/status ] || cat DIR/status ;;
'whack --shutdown') [ -e DIR/deaf ] || kill \"$(cat DIR/pluto-run/pluto.pid)\" ;;
esac
";

/// A systemd whose unit is pluto's, if the file says so.
const SYSTEMCTL: &str = "#!/bin/sh
echo \"systemctl $*\" >>DIR/trace
[ -e DIR/unit ] || exit 1
case \"$*\" in
*MainPID*) cat DIR/pluto-run/pluto.pid ;;
*ExecStart*) echo '{ path=/usr/libexec/ipsec/pluto ; argv[]=/usr/libexec/ipsec/pluto --nofork }' ;;
stop*) kill \"$(cat DIR/pluto-run/pluto.pid)\" ;;
start*) DIR/pluto DIR/pluto.sh >/dev/null 2>&1 & ;;
esac
";

/// A systemd whose unit is obol's by now, while pluto is its main process yet.
const REPLACED: &str = "#!/bin/sh
echo \"systemctl $*\" >>DIR/trace
case \"$*\" in
*MainPID*) cat DIR/pluto-run/pluto.pid ;;
*ExecStart*) echo '{ path=/usr/bin/obol ; argv[]=/usr/bin/obol run --ipsec-conf /etc/ipsec.conf }' ;;
list-jobs*) echo '71 ipsec.service stop running' ;;
stop*) OBOL down --all && touch DIR/stopping; sleep 1; kill \"$(cat DIR/pluto-run/pluto.pid)\" ;;
start*) OBOL run --ipsec-conf DIR/ipsec.conf >/dev/null 2>&1 &
    until [ -e A.run/obol.sock ]; do sleep 0.02; done ;;
esac
";

struct Bed {
    lab: Lab,
    directory: PathBuf,
    /// The first pluto.
    first: Option<Child>,
}

impl Bed {
    fn new() -> Self {
        let mut lab = Lab::new(obol(), None).unwrap();
        let directory = lab.directory().to_owned();
        let text = |text: &str| {
            let secrets = directory.join("ipsec.secrets").display().to_string();
            text.replace("DIR", &directory.display().to_string())
                .replace("SECRETS", &secrets)
        };
        for (name, content, mode) in [
            ("ipsec.conf", CONF, 0o644),
            (
                "ipsec.secrets",
                "@a @b : PSK \"a secret of the two\"\n",
                0o600,
            ),
            ("pluto.sh", PLUTO, 0o644),
            ("ipsec", IPSEC, 0o755),
            ("systemctl", SYSTEMCTL, 0o755),
        ] {
            fs::write(directory.join(name), text(content)).unwrap();
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(directory.join(name), mode).unwrap();
        }
        fs::copy("/bin/sh", directory.join("pluto")).unwrap();
        for host in [&mut lab.a, &mut lab.b] {
            fs::write(&host.config, "").unwrap();
            let conf = directory.join("ipsec.conf").display().to_string();
            host.arguments = vec!["--ipsec-conf".into(), conf];
        }
        Self {
            lab,
            directory,
            first: None,
        }
    }

    /// A connection between the hosts themselves besides, which is not up.
    fn add_hosts(&self) {
        let conf = self.directory.join("ipsec.conf");
        let text = fs::read_to_string(&conf).unwrap();
        let hosts = text.split_once("conn nets").unwrap().1;
        let lines = hosts.split_inclusive('\n');
        let hosts: String = lines.filter(|line| !line.contains("subnet")).collect();
        fs::write(&conf, format!("{text}\nconn hosts{hosts}")).unwrap();
    }

    fn start_pluto(&mut self) {
        let mut command = Command::new(self.directory.join("pluto"));
        command.arg(self.directory.join("pluto.sh"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.first = Some(self.lab.a.netns.run(|| command.spawn()).unwrap().unwrap());
        let deadline = Instant::now() + LIMIT;
        while self.pluto().is_none() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    /// The process of pluto that runs.
    fn pluto(&self) -> Option<u32> {
        let text = fs::read_to_string(self.directory.join("pluto-run/pluto.pid")).ok()?;
        let pid = text.trim().parse().ok()?;
        Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
    }

    async fn start_peer(&mut self) {
        let b = &mut self.lab.b;
        b.start().unwrap();
        let deadline = Instant::now() + LIMIT;
        while b.status().await.is_err() {
            assert!(b.runs() && Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
    }

    /// `obol migrate` with these options besides: exit code and what it said.
    fn migrate(&self, options: &[&str]) -> (i32, String) {
        let mut command = self.command(options);
        let output = self.lab.a.netns.run(|| command.output()).unwrap().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let code = output.status.code().unwrap();
        (code, String::from_utf8(text).unwrap())
    }

    fn command(&self, options: &[&str]) -> Command {
        let rundir = self.directory.join("pluto-run").display().to_string();
        let conf = self.directory.join("ipsec.conf").display().to_string();
        let mut words = vec!["migrate", "--pluto-rundir", &rundir, "--ipsec-conf", &conf];
        words.extend(options);
        let a: &Host = &self.lab.a;
        let mut command = a.command(&words);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.directory.display()));
        command
    }

    /// Nothing of the policies passes in clear, and all is as before once `obol purge` has said so.
    async fn is_blocked_until_purged(&self, before: &Snapshot) {
        let (a, b) = (&self.lab.a, &self.lab.b);
        let capture = Capture::start(&a.netns, WIRE, protected()).unwrap();
        let deadline = Instant::now() + IN_VAIN;
        ping(&a.netns, a.side.pod, b.side.pod, PATIENCE, deadline)
            .await
            .unwrap_err();
        assert_eq!(capture.seen().clear, 0, "{:?}", capture.seen());
        let output = run(a, &["purge"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("cut short had blocked"), "{said}");
        assert_eq!(&Snapshot::of(&a.netns), before);
    }

    /// Packets that left in clear while the first host called the other one.
    async fn tried(&self) -> u64 {
        let (a, b) = (&self.lab.a, &self.lab.b);
        let capture = Capture::start(&a.netns, WIRE, protected()).unwrap();
        let service = SocketAddrV4::new(b.side.address, SERVICE);
        let limit = Duration::from_millis(500);
        let _ = converse(&a.netns, a.side.address, service, limit).await;
        let deadline = Instant::now() + LIMIT;
        while capture.missed().unwrap() > 0 {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        capture.seen().clear
    }

    /// What was called, without questions.
    fn trace(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("trace")).unwrap();
        let asks = |line: &&str| {
            line.contains("show") || line.contains("status") || line.contains("list-jobs")
        };
        text.lines()
            .filter(|line| !asks(line))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(pid) = self.pluto() {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        if let Some(first) = &mut self.first {
            let _ = first.wait();
        }
        let _ = run(&self.lab.a, &["down", "--all"]);
    }
}

#[tokio::test]
async fn what_was_up_is_up_again_and_nothing_was_in_clear() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    bed.start_pluto();
    bed.start_peer().await;
    let before = Snapshot::of(&bed.lab.a.netns);
    let (code, text) = bed.migrate(&["--dry-run"]);
    assert_eq!(code, 0, "{text}");
    for line in [
        "plan: 2. stop pluto: ipsec whack --shutdown",
        "plan: 3. start obol: obol run --ipsec-conf",
        "has up: nets",
        "/pluto.sh",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(Snapshot::of(&bed.lab.a.netns), before);
    assert!(bed.pluto().is_some());

    let capture = Capture::start(&bed.lab.a.netns, WIRE, protected()).unwrap();
    let (code, text) = bed.migrate(&["--timeout", "20s"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("done: obol runs in the place of pluto"),
        "{text}"
    );
    assert_eq!(
        bed.trace(),
        ["pluto begins", "ipsec whack --shutdown", "pluto ends"]
    );
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    assert!(run(a, &["status", "nets"]).status.success());
    let deadline = Instant::now() + LIMIT;
    ping(&a.netns, a.side.pod, b.side.pod, PATIENCE, deadline)
        .await
        .unwrap();
    assert_eq!(capture.seen().clear, 0, "{:?}", capture.seen());
    let (code, text) = bed.migrate(&[]);
    assert_eq!(code, 10, "{text}");
    assert!(text.contains("an obol runs already"), "{text}");
}

#[tokio::test]
async fn without_the_peer_it_goes_back() {
    if !is_root() {
        return;
    }
    for by_unit in [false, true] {
        let mut bed = Bed::new();
        bed.start_pluto();
        if by_unit {
            fs::write(bed.directory.join("unit"), "").unwrap();
        }
        let first = bed.pluto();
        let before = Snapshot::of(&bed.lab.a.netns);
        let (code, text) = bed.migrate(&["--timeout", "2s"]);
        assert_eq!(code, 5, "{text}");
        assert!(
            text.contains("not up after 2s: nets; pluto runs again"),
            "{text}"
        );
        assert!(bed.pluto().is_some() && bed.pluto() != first);
        assert_eq!(
            Snapshot::of(&bed.lab.a.netns),
            before,
            "obol left something"
        );
        assert_eq!(run(&bed.lab.a, &["status"]).status.code(), Some(3));
        let expected = match by_unit {
            false => [
                "pluto begins",
                "ipsec whack --shutdown",
                "pluto ends",
                "pluto begins",
            ]
            .to_vec(),
            true => [
                "pluto begins",
                "systemctl stop ipsec.service",
                "pluto ends",
                "systemctl start ipsec.service",
                "pluto begins",
            ]
            .to_vec(),
        };
        assert_eq!(bed.trace(), expected);
    }
}

/// The peer comes up with obol and then does not answer any more, so that it cannot confirm the end.
#[tokio::test]
async fn it_goes_back_although_a_peer_does_not_confirm_the_end() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    let conf = bed.directory.join("ipsec.conf");
    let text = fs::read_to_string(&conf).unwrap();
    // The second one has nobody at the other end.
    let second = text.split_once("conn nets").unwrap().1;
    let second = second.replace("right=192.168.0.2", "right=192.168.0.77");
    let second = second.replace("172.16.2.0", "172.16.3.0");
    fs::write(&conf, format!("{text}\nconn lost{second}")).unwrap();
    fs::write(
        bed.directory.join("clients"),
        "006 #3: \"lost\", type=ESP, add_time=1, inBytes=0, outBytes=0, id='@c'\n",
    )
    .unwrap();
    bed.start_pluto();
    bed.start_peer().await;
    let (first, before) = (bed.pluto(), Snapshot::of(&bed.lab.a.netns));
    let mut migrates = {
        let mut command = bed.command(&["--timeout", "4s"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        bed.lab.a.netns.run(|| command.spawn()).unwrap().unwrap()
    };
    let deadline = Instant::now() + LIMIT;
    while !run(&bed.lab.a, &["status", "nets"]).status.success() {
        assert!(Instant::now() < deadline && migrates.try_wait().unwrap().is_none());
        tokio::time::sleep(LOOK).await;
    }
    bed.lab.b.kill().unwrap();
    let output = migrates.wait_with_output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.contains("lost; pluto runs again"), "{text}");
    assert!(bed.pluto().is_some() && bed.pluto() != first);
    assert_eq!(
        Snapshot::of(&bed.lab.a.netns),
        before,
        "obol left something"
    );
}

/// Neither obol nor pluto comes up: what they protected stays blocked, until somebody says otherwise.
#[tokio::test]
async fn without_either_daemon_nothing_is_in_clear() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    bed.start_pluto();
    let before = Snapshot::of(&bed.lab.a.netns);
    fs::write(bed.directory.join("broken"), "").unwrap();
    let (code, text) = bed.migrate(&["--timeout", "1s"]);
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("going back failed"), "{text}");
    assert!(text.contains("`obol purge` lets it pass"), "{text}");
    bed.is_blocked_until_purged(&before).await;
}

#[tokio::test]
async fn what_a_killed_move_blocked_is_there_to_be_removed() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    bed.start_pluto();
    fs::write(bed.directory.join("deaf"), "").unwrap();
    let before = Snapshot::of(&bed.lab.a.netns);
    let mut command = bed.command(&["--timeout", "60s"]);
    let mut migrates = bed.lab.a.netns.run(|| command.spawn()).unwrap().unwrap();
    let deadline = Instant::now() + LIMIT;
    while !bed.trace().iter().any(|line| line.contains("--shutdown")) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(LOOK).await;
    }
    // A terminal that goes does not end it.
    let pid = rustix::process::Pid::from_child(&migrates);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    assert!(migrates.try_wait().unwrap().is_none());
    migrates.kill().unwrap();
    let ended = migrates.wait().unwrap();
    let killed = std::os::unix::process::ExitStatusExt::signal(&ended);
    assert_eq!(killed, Some(9), "{ended}");
    bed.is_blocked_until_purged(&before).await;
}

/// pluto has a process ID before it has connections: nothing is let pass for that.
#[tokio::test]
async fn the_way_back_opens_nothing_before_pluto_has_up_what_was() {
    if !is_root() {
        return;
    }
    for (kind, ends) in [("slow", false), ("brief", true)] {
        let mut bed = Bed::new();
        bed.add_hosts();
        bed.start_pluto();
        let before = Snapshot::of(&bed.lab.a.netns);
        fs::write(bed.directory.join(kind), "").unwrap();
        let mut command = bed.command(&["--timeout", "4s"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut migrates = bed.lab.a.netns.run(|| command.spawn()).unwrap().unwrap();
        let deadline = Instant::now() + LIMIT;
        while bed
            .trace()
            .iter()
            .filter(|line| *line == "pluto begins")
            .count()
            < 2
        {
            assert!(Instant::now() < deadline && migrates.try_wait().unwrap().is_none());
            tokio::time::sleep(LOOK).await;
        }
        assert_eq!(bed.tried().await, 0, "{kind}");
        let output = migrates.wait_with_output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(5), "{text}");
        if ends {
            assert!(
                text.contains("going back failed: pluto has ended again"),
                "{text}"
            );
            assert_eq!(bed.tried().await, 0, "{text}");
            bed.is_blocked_until_purged(&before).await;
        } else {
            assert!(text.contains("pluto runs again"), "{text}");
            assert_eq!(Snapshot::of(&bed.lab.a.netns), before);
            assert!(bed.tried().await > 0);
        }
    }
}

/// What pluto protects without an SA counts as well.
#[test]
fn what_waits_for_packets_and_obol_would_not_have_is_not_given_up() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    let conf = bed.directory.join("ipsec.conf");
    let text = fs::read_to_string(&conf).unwrap();
    let idle = text.split_once("conn nets").unwrap().1;
    let idle = idle
        .replace("authby=secret", "leftcert=host")
        .replace("auto=add", "auto=ondemand");
    fs::write(&conf, format!("{text}\nconn idle{idle}")).unwrap();
    for line in [
        "000 \"idle\": 192.168.0.1[@a]...192.168.0.2[@b]; prospective erouted; eroute owner: #0\n",
        "\"idle\": 192.168.0.1[@a]...192.168.0.2[@b]; routed-ondemand; my_ip=unset; their_ip=unset;\n",
    ] {
        fs::write(bed.directory.join("status"), line).unwrap();
        if bed.pluto().is_none() {
            bed.start_pluto();
        }
        let first = bed.pluto();
        let (code, text) = bed.migrate(&[]);
        assert_eq!(code, 6, "{text}");
        let why = "idle is routed with pluto, and obol would not have it";
        assert!(
            text.contains(why) && text.contains("ipsec delete"),
            "{text}"
        );
        assert_eq!(bed.pluto(), first);
    }
}

/// systemd ends pluto by the unit that is there, which is obol's.
#[tokio::test]
async fn a_unit_that_is_obols_already_opens_nothing_when_it_ends_pluto() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    bed.add_hosts();
    let a = &bed.lab.a;
    let program = format!(
        "{} --config {} --runtime-dir {}",
        obol().display(),
        a.config.display(),
        a.runtime.display()
    );
    let script = REPLACED
        .replace("DIR", &bed.directory.display().to_string())
        .replace("OBOL", &program)
        .replace("A.run", &a.runtime.display().to_string());
    fs::write(bed.directory.join("systemctl"), script).unwrap();
    bed.start_pluto();
    bed.start_peer().await;
    // pluto is a shell, and protects nothing.
    assert!(bed.tried().await > 0);
    let mut command = bed.command(&["--timeout", "20s"]);
    command.stdout(Stdio::null());
    let mut migrates = bed.lab.a.netns.run(|| command.spawn()).unwrap().unwrap();
    let deadline = Instant::now() + LIMIT;
    while !bed.directory.join("stopping").exists() {
        assert!(Instant::now() < deadline && migrates.try_wait().unwrap().is_none());
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(bed.tried().await, 0);
    assert!(migrates.wait().unwrap().success());
    assert_eq!(bed.tried().await, 0);
}

#[test]
fn clients_that_obol_would_not_have_are_not_given_up() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    fs::write(
        bed.directory.join("clients"),
        "006 #3: \"road\"[1] 192.0.2.7, type=ESP, add_time=1, inBytes=0, outBytes=0, id='@c'\n",
    )
    .unwrap();
    bed.start_pluto();
    let first = bed.pluto();
    let (code, text) = bed.migrate(&[]);
    assert_eq!(code, 6, "{text}");
    assert!(
        text.contains("road is up with pluto, and obol would not have it"),
        "{text}"
    );
    assert_eq!(bed.pluto(), first);
}

#[test]
fn a_pluto_that_does_not_stop_stays() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    bed.start_pluto();
    fs::write(bed.directory.join("deaf"), "").unwrap();
    let (first, before) = (bed.pluto(), Snapshot::of(&bed.lab.a.netns));
    let (code, text) = bed.migrate(&["--timeout", "1s"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("has not ended after 1s"), "{text}");
    assert!(text.contains("obol is not started"), "{text}");
    assert_eq!(
        (bed.pluto(), Snapshot::of(&bed.lab.a.netns)),
        (first, before)
    );
}

#[test]
fn what_obol_would_not_have_is_not_given_up() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    let conf = bed.directory.join("ipsec.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text}  compress=yes\n  phase2=ah\n")).unwrap();
    let (code, text) = bed.migrate(&[]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("no pluto runs"), "{text}");
    bed.start_pluto();
    let (code, text) = bed.migrate(&[]);
    assert_eq!(code, 6, "{text}");
    assert!(
        text.contains("nets is up with pluto, and obol would not have it"),
        "{text}"
    );
    assert!(text.contains("phase2=ah cannot be honoured"), "{text}");
    assert!(bed.pluto().is_some());
}

/// A program called pluto, which has the port.
#[tokio::test]
async fn beside_a_running_pluto_obol_does_not_start() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    bed.start_pluto();
    let other = bed.directory.join("bin/pluto");
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::copy(obol(), &other).unwrap();
    let a = &bed.lab.a;
    let mut command = Command::new(&other);
    command.arg("--config").arg(&a.config).arg("--runtime-dir");
    command.arg(bed.directory.join("other-run")).arg("run");
    command
        .arg("--ipsec-conf")
        .arg(bed.directory.join("ipsec.conf"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut holder = a.netns.run(|| command.spawn()).unwrap().unwrap();
    let deadline = Instant::now() + LIMIT;
    while !bed.directory.join("other-run/obol.sock").exists() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    bed.lab.a.start().unwrap();
    while bed.lab.a.runs() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let log = fs::read_to_string(&bed.lab.a.log).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(
        log.contains("UDP port 500 is taken by pluto (pid "),
        "{log}"
    );
    assert!(log.contains("obol migrate"), "{log}");
}
