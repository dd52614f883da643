//! `obol migrate --racoon-conf` on two hosts with the files of the story: the plan, and whether it is
//! done. As root; in namespaces.
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
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daemons::LIMIT;
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, Lab, SERVICE, Side, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::{Service, converse};
use support::{Snapshot, is_root, obol};

const RACOON: &str = include_str!("../src/racoon/tests/racoon.conf");
const POLICIES: &str = include_str!("../src/racoon/tests/mongodb.conf");
const PSK: &str =
    "192.168.0.9  another secret, of that host alone\n* a secret of all hosts of the net\n";

/// How long is waited for what does not come.
const IN_VAIN: &str = "1s";

/// Both hosts with their files, and no daemon.
struct Bed {
    lab: Lab,
}

impl Bed {
    fn new() -> Self {
        let mut lab = Lab::new(obol(), None).unwrap();
        let directory = lab.directory().to_owned();
        for host in [&mut lab.a, &mut lab.b] {
            fs::write(&host.config, "").unwrap();
            let own = directory.join(format!("{}-etc", host.side.name));
            fs::create_dir_all(&own).unwrap();
            let psk = own.join("psk.txt");
            let racoon = RACOON.replace("/etc/racoon/psk.txt", &psk.display().to_string());
            let policies = POLICIES.replace("10.0.0.0/16", "192.168.0.0/16");
            fs::write(own.join("racoon.conf"), racoon).unwrap();
            fs::write(own.join("mongodb.conf"), policies).unwrap();
            fs::write(&psk, PSK).unwrap();
            fs::set_permissions(&psk, fs::Permissions::from_mode(0o400)).unwrap();
            let path = |name: &str| own.join(name).display().to_string();
            host.arguments = vec![
                "--racoon-conf".into(),
                path("racoon.conf"),
                "--setkey".into(),
                path("mongodb.conf"),
            ];
        }
        Self { lab }
    }

    fn etc(&self, host: &Host, name: &str) -> PathBuf {
        let own = format!("{}-etc", host.side.name);
        self.lab.directory().join(own).join(name)
    }

    /// `obol migrate` with the files of the first host, and these options besides: exit code and what
    /// it said.
    fn migrate(&self, options: &[&str]) -> (i32, String) {
        let a = &self.lab.a;
        let mut words = vec!["migrate"];
        words.extend(a.arguments.iter().map(String::as_str));
        words.extend(options);
        let mut command = a.command(&words);
        let output = a.netns.run(|| command.output()).unwrap().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    }

    /// A program called racoon that is none of obol's, on the first host.
    fn racoon(&self) -> Running {
        let program = self.lab.directory().join("racoon");
        fs::copy("/bin/sh", &program).unwrap();
        let mut command = Command::new(program);
        command.args(["-c", "read line"]).stdin(Stdio::piped());
        Running(self.lab.a.netns.run(|| command.spawn()).unwrap().unwrap())
    }
}

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn start(host: &mut Host) {
    host.start().unwrap();
    let deadline = Instant::now() + LIMIT;
    while host.status().await.is_err() {
        let log = || fs::read_to_string(&host.log).unwrap_or_default();
        assert!(Instant::now() < deadline, "{}", log());
        tokio::task::yield_now().await;
    }
}

#[test]
fn the_plan_says_what_becomes_of_it_and_changes_nothing() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let before = Snapshot::of(&bed.lab.a.netns);
    let running = bed.racoon();
    let (code, text) = bed.migrate(&[]);
    assert_eq!(code, 0, "{text}");
    let first = text.lines().next().unwrap();
    assert!(first.contains("all nodes move together"), "{text}");
    let pid = running.0.id();
    for line in [
        "192.168.0.0/16[tcp/27017]",
        "through ESP or not at all, transport mode",
        "every host of 192.168.0.0/16 that ran racoon (policy ",
        "  192.168.0.9 (line 1 of psk.txt)",
        "exchange_mode base",
        "2. systemctl disable --now racoon.service",
        "3. obol setkey -f ",
        "4. ip xfrm state flush && ip xfrm policy flush",
        "5. obol racoon -f ",
        "6. obol migrate --racoon-conf ",
        &format!("racoon runs (pid {pid}): nothing was changed"),
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("a secret"), "{text}");
    assert_eq!(Snapshot::of(&bed.lab.a.netns), before);

    // The kernel takes obol's policies only when it has no others of the same packets.
    fs::write(&bed.lab.a.config, "[daemon]\ndataplane = \"kernel\"\n").unwrap();
    let (code, text) = bed.migrate(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("3. obol --config /dev/null setkey -f "),
        "{text}"
    );

    let script = bed.etc(&bed.lab.a, "mongodb.conf");
    fs::write(&script, "spdadd nothing;\n").unwrap();
    let (code, text) = bed.migrate(&[]);
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("mongodb.conf:1"), "{text}");
}

#[tokio::test]
async fn a_move_is_done_when_policies_stand_and_peers_answer() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    let verify = |bed: &Bed, options: &[&str]| {
        bed.migrate(&[&["--verify", "--timeout", IN_VAIN], options].concat())
    };
    let (code, text) = verify(&bed, &[]);
    assert_eq!(code, 3, "{text}");
    start(&mut bed.lab.a).await;
    {
        let _racoon = bed.racoon();
        let (code, text) = verify(&bed, &[]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("racoon runs on this node (pid "), "{text}");
        assert!(text.contains("systemctl disable --now racoon"), "{text}");
    }
    let (code, text) = verify(&bed, &[]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.matches(" stands\n").count(), 2, "{text}");
    assert!(text.contains("no peer was asked"), "{text}");

    // The first has moved, and the second has not: nothing passes between them, least of all in clear.
    let capture = Capture::start(&bed.lab.a.netns, WIRE, protected()).unwrap();
    let (code, text) = verify(&bed, &["--peer", "192.168.0.2"]);
    assert_eq!(code, 5, "{text}");
    for child in ["client-27017", "server-27017"] {
        let line = format!("192.168.0.2: {child}: no answer by IKEv2 within 1s");
        assert!(text.contains(&line), "{text}");
    }
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let service = SocketAddrV4::new(b.side.address, SERVICE);
    let _service = Service::start(&b.netns, service).unwrap();
    let limit = Duration::from_secs(1);
    let spoke = converse(&a.netns, a.side.address, service, limit).await;
    assert!(spoke.is_err());
    assert_eq!(capture.seen().clear, 0, "{:?}", capture.seen());

    start(&mut bed.lab.b).await;
    let patient = ["--verify", "--timeout", "30s", "--peer", "192.168.0.2"];
    let (code, text) = bed.migrate(&patient);
    assert_eq!(code, 0, "{text}");
    for child in ["client-27017", "server-27017"] {
        let line = format!("192.168.0.2: {child}: an SA is up\n");
        assert!(text.contains(&line), "{text}");
    }
    assert!(text.ends_with("all of this is as it is to be\n"), "{text}");
    assert_eq!(capture.seen().clear, 0, "{:?}", capture.seen());

    // What the daemon was not told, and whom nothing is about.
    let script = bed.etc(&bed.lab.a, "mongodb.conf");
    let more = fs::read_to_string(&script).unwrap()
        + "spdadd 192.168.0.0/16 192.168.0.0/16[5432] tcp -P out ipsec esp/transport//require;\n\
           spdadd 192.168.0.0/16[5432] 192.168.0.0/16 tcp -P in ipsec esp/transport//require;\n";
    fs::write(&script, more).unwrap();
    let (code, text) = verify(&bed, &["--peer", "10.7.7.7"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("[tcp/5432] is missing"), "{text}");
    assert!(text.contains("10.7.7.7: no policy is about it"), "{text}");
}

#[tokio::test]
async fn a_peer_with_other_policies_answers_and_has_no_sa() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    let script = bed.etc(&bed.lab.b, "mongodb.conf");
    let other = fs::read_to_string(&script)
        .unwrap()
        .replace("27017", "27018");
    fs::write(&script, other).unwrap();
    start(&mut bed.lab.a).await;
    start(&mut bed.lab.b).await;
    let (code, text) = bed.migrate(&["--verify", "--timeout", "2s", "--peer", "192.168.0.2"]);
    assert_eq!(code, 4, "{text}");
    assert!(
        text.contains("it answers by IKEv2, and there is no SA for this after 2s"),
        "{text}"
    );
}

/// A tunnel names its ends, so nobody else has to.
#[tokio::test]
async fn peers_that_the_files_name_are_asked() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    for (host, peer) in [(&bed.lab.a, &bed.lab.b), (&bed.lab.b, &bed.lab.a)] {
        let (here, there) = (host.side, peer.side);
        let line = |from: Side, to: Side, direction: &str| {
            format!(
                "spdadd {} {} any -P {direction} ipsec esp/tunnel/{}-{}/require;\n",
                from.network, to.network, from.address, to.address
            )
        };
        let text = line(here, there, "out") + &line(there, here, "in");
        fs::write(bed.etc(host, "mongodb.conf"), text).unwrap();
    }
    let (code, text) = bed.migrate(&[]);
    assert_eq!(code, 0, "{text}");
    let node = "  192.168.0.2 (peer of tunnel-192.168.0.2)\n";
    assert!(text.contains(node), "{text}");
    start(&mut bed.lab.a).await;
    let (code, text) = bed.migrate(&["--verify", "--timeout", IN_VAIN]);
    assert_eq!(code, 5, "{text}");
    start(&mut bed.lab.b).await;
    let (code, text) = bed.migrate(&["--verify", "--timeout", "30s"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("192.168.0.2: flow: an SA is up\n"), "{text}");
}

/// A program called racoon, which has the port.
#[tokio::test]
async fn beside_a_running_racoon_obol_does_not_start() {
    if !is_root() {
        return;
    }
    let mut bed = Bed::new();
    let directory = bed.lab.directory().to_owned();
    let other = directory.join("racoon");
    fs::copy(obol(), &other).unwrap();
    let a = &bed.lab.a;
    let mut command = Command::new(&other);
    command.arg("-F").arg("-f").arg(bed.etc(a, "racoon.conf"));
    command.env("OBOL_RUNTIME_DIR", directory.join("other-run"));
    command.env("OBOL_CONFIG", &a.config);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let _holder = Running(a.netns.run(|| command.spawn()).unwrap().unwrap());
    let deadline = Instant::now() + LIMIT;
    while !directory.join("other-run/obol.sock").exists() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    bed.lab.a.start().unwrap();
    while bed.lab.a.runs() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let log = fs::read_to_string(&bed.lab.a.log).unwrap();
    assert!(
        log.contains("UDP port 500 is taken by racoon (pid "),
        "{log}"
    );
    assert!(log.contains("obol migrate --racoon-conf FILE"), "{log}");
}
